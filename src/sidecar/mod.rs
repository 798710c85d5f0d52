//! The sidecar: watches its pod's entry, drains, has thanos restarted with it, verifies, reports.
//!
//! This is the outside of [`crate::core::reload`]: files, thanos' answers and the passing of time go in, what comes back
//! is done. Invariants: one task decides, the HTTP server only repeats what was decided; it does not listen before the
//! agent is installed and the window file holds the mounted entry, because that is what holds thanos' first start back.

mod entry_file;
mod http;
mod install;
mod loaded;
mod metrics;
mod news;
mod signal;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::adapters::dir_watch::DirWatch;
use crate::adapters::{clock, files, listen};
use crate::core::agent_status::Phase;
use crate::core::reload::{Action, Found, News, Probe, Settings as Core, Sidecar};
use crate::core::shared_files::{
    self, BLOCKS_FILE, INSPECT_FILE, MAX_FILE_BYTES, RECORD_FILE, VERDICT_FILE, WINDOW_FILE,
    WindowFile,
};

pub use signal::by_name as signal_by_name;
pub use verify::{AddressError, Thanos};

use http::Answers;
use metrics::Metrics;
use news::BlockNews;

/// What to watch and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the decisions need.
    pub core: Core,
    /// The mounted `ConfigMap`.
    pub config_dir: PathBuf,
    /// The directory shared with the launcher.
    pub shared_dir: PathBuf,
    /// Where thanos listens.
    pub thanos: Thanos,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How often to look at both directories without a notification.
    pub poll: Duration,
    /// Whether to put this program into the shared directory.
    pub install: bool,
    /// For `--reload=signal`: which signal, and to which program.
    pub signal: (Signal, String),
}

/// Why there is no sidecar.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The agent could not be copied.
    #[error(
        "cannot install the agent into {dir}: {why}; the volume must be writable for this container's user"
    )]
    Install {
        /// The shared directory.
        dir: PathBuf,
        /// What the file system said.
        #[source]
        why: io::Error,
    },
    /// The window file could not be written, in the form that ends after that.
    #[error(
        "cannot write the window file into {dir}: {why}; the volume must be writable for this container's user"
    )]
    Order {
        /// The shared directory.
        dir: PathBuf,
        /// What the file system said.
        why: String,
    },
    /// The port is taken.
    #[error("cannot listen on {address}: {why}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        why: io::Error,
    },
}

/// Installs the agent, writes the window file for the first start, and ends: the init container of the classic form.
///
/// # Errors
/// [`SidecarError`].
pub fn install_only(settings: &Settings) -> Result<(), SidecarError> {
    let mut worker = Worker::new(settings)?;
    worker.read_entry();
    worker.decide();
    if worker.sidecar.holds_entry() {
        Ok(())
    } else {
        Err(SidecarError::Order {
            dir: settings.shared_dir.clone(),
            why: worker.sidecar.status().last_error.unwrap_or_default(),
        })
    }
}

/// Runs until `shutdown` resolves.
///
/// # Errors
/// [`SidecarError`], all of it before thanos is held back no longer.
pub async fn run(
    settings: &Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), SidecarError> {
    // Armed before the first read, so that nothing falls between the two.
    let mut config = DirWatch::new(&settings.config_dir, settings.poll);
    let mut shared = DirWatch::new(&settings.shared_dir, settings.poll);
    let mut worker = Worker::new(settings)?;
    worker.read_entry();
    let (publish, answers) = watch::channel(Answers::default());
    let mut answers = Some(answers);
    let mut looking = Looking::new(&settings.thanos);
    tokio::pin!(shutdown);
    loop {
        worker.decide();
        let _ = publish.send_replace(worker.answers());
        if worker.sidecar.holds_entry()
            && let Some(answers) = answers.take()
        {
            let address = settings.listen;
            let listener =
                listen::bind(address).map_err(|why| SidecarError::Listen { address, why })?;
            info!("serving /status, /readyz, /livez and /metrics on {address}");
            tokio::spawn(http::serve(listener, answers));
        }
        let now = worker.now();
        if let Some(launch) = worker.sidecar.probe_due(now) {
            looking.start(launch);
        }
        let wake = worker.sidecar.next_wake(now).map(|at| worker.start + at);
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            (launch, probe) = looking.done() => worker.sidecar.probed(launch, probe, worker.start.elapsed()),
            () = config.changed() => worker.read_entry(),
            () = shared.changed() => worker.read_files(),
            () = sleep_until(wake) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Probe> + 'a>>;

/// At most one look at thanos at a time; it goes on while other things happen.
struct Looking<'a> {
    thanos: &'a Thanos,
    running: Option<(u64, Answer<'a>)>,
}

impl<'a> Looking<'a> {
    const fn new(thanos: &'a Thanos) -> Self {
        Self {
            thanos,
            running: None,
        }
    }

    fn start(&mut self, launch: u64) {
        self.running = Some((launch, Box::pin(self.thanos.probe())));
    }

    async fn done(&mut self) -> (u64, Probe) {
        let Some((launch, probe)) = &mut self.running else {
            return std::future::pending().await;
        };
        let done = (*launch, probe.await);
        self.running = None;
        done
    }
}

/// How a file is replaced: to outlive the node, or not.
type Replace = fn(&Path, &str, &[u8], u32) -> io::Result<()>;

struct Worker<'a> {
    settings: &'a Settings,
    sidecar: Sidecar,
    metrics: Metrics,
    start: Instant,
    phase: Phase,
    blocks: BlockNews,
}

impl<'a> Worker<'a> {
    fn new(settings: &'a Settings) -> Result<Self, SidecarError> {
        let dir = &settings.shared_dir;
        if settings.install {
            match install::install(dir) {
                Err(why) if install::is_installed(dir) => {
                    warn!(
                        "cannot install the agent into {} anew: {why}; the one that is there stays",
                        dir.display()
                    );
                }
                installed => installed.map_err(|why| SidecarError::Install {
                    dir: dir.clone(),
                    why,
                })?,
            }
        }
        Ok(Self {
            settings,
            sidecar: Sidecar::new(
                settings.core.clone(),
                Found {
                    record: read(dir, RECORD_FILE),
                    file: read(dir, WINDOW_FILE),
                    inspect: read(dir, INSPECT_FILE),
                },
            ),
            metrics: Metrics::new(&settings.core.version),
            start: Instant::now(),
            phase: Phase::Starting,
            blocks: BlockNews::default(),
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn read_entry(&mut self) {
        let read = entry_file::read(
            &self.settings.config_dir,
            &self.settings.core.pod,
            clock::now(),
        );
        if let Some(news) = self.sidecar.set_entry(read, self.now()) {
            self.tell(&news);
        }
    }

    fn tell(&self, news: &News) {
        if news.refused {
            self.metrics.entry_refused();
            warn!("{}", news.line);
        } else {
            info!("{}", news.line);
        }
    }

    fn read_files(&mut self) {
        let dir = &self.settings.shared_dir;
        let now = self.now();
        self.sidecar
            .set_files(read(dir, RECORD_FILE), read(dir, WINDOW_FILE), now);
        self.sidecar.set_blocks(read(dir, BLOCKS_FILE));
    }

    fn decide(&mut self) {
        let now = self.now();
        for action in self.sidecar.step(now) {
            match action {
                Action::Order(file) => {
                    if self.write_window(file, now) {
                        info!(
                            "window file written: {} (request {})",
                            file.window, file.request
                        );
                    }
                }
                Action::Remember(file) => {
                    self.write_window(file, now);
                }
                Action::Inspect(inspect) => {
                    if let Err(why) = self.write_with(
                        |dir, name, bytes, mode| files::replace_unsynced(dir, name, bytes, mode),
                        INSPECT_FILE,
                        &inspect,
                    ) {
                        warn!("{why}");
                        self.sidecar.failed_to_ask();
                    }
                }
                Action::Tell(news) => self.tell(&news),
                Action::Judge(verdict) => {
                    if let Err(why) = self.write(VERDICT_FILE, &verdict) {
                        self.failed(why, now);
                    }
                }
                Action::Signal => {
                    let (signal, program) = &self.settings.signal;
                    if let Err(why) = signal::send(Path::new("/proc"), program, *signal) {
                        self.failed(why, now);
                    }
                }
            }
        }
        let status = self.sidecar.status();
        self.blocks.observe(&status);
        if status.phase != self.phase {
            self.phase = status.phase;
            let applied = status
                .applied
                .map_or("nothing".to_owned(), |window| window.to_string());
            info!(
                "phase {}: thanos serves {applied}{}",
                status.phase,
                status
                    .last_error
                    .map_or(String::new(), |error| format!(" ({error})"))
            );
        }
    }

    /// Whether the window file could be written.
    fn write_window(&mut self, file: WindowFile, now: Duration) -> bool {
        let written = self.write(WINDOW_FILE, &file);
        let done = written.is_ok();
        match written {
            Ok(()) => self.sidecar.wrote(file),
            Err(why) => self.failed(why, now),
        }
        done
    }

    fn failed(&mut self, why: String, now: Duration) {
        warn!("{why}");
        self.sidecar.failed_to_act(why, now);
    }

    fn write<T: serde::Serialize>(&self, name: &str, document: &T) -> Result<(), String> {
        self.write_with(
            |dir, name, bytes, mode| files::replace(dir, name, bytes, mode),
            name,
            document,
        )
    }

    fn write_with<T: serde::Serialize>(
        &self,
        replace: Replace,
        name: &str,
        document: &T,
    ) -> Result<(), String> {
        let dir = &self.settings.shared_dir;
        shared_files::encode(document)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(dir, name, &bytes, files::MODE_DATA))
            .map_err(|error| format!("cannot write {}: {error}", dir.join(name).display()))
    }

    fn answers(&mut self) -> Answers {
        let status = self.sidecar.status();
        self.metrics
            .observe(&self.sidecar, &status, clock::unix_seconds());
        Answers {
            // Plain data always serialises; an empty body would be seen by every client.
            status: serde_json::to_vec(&status).unwrap_or_default().into(),
            ready: status.phase.is_ready(),
            phase: status.phase.as_str(),
            metrics: self.metrics.text(),
        }
    }
}

fn read<T: for<'de> serde::Deserialize<'de>>(dir: &Path, name: &str) -> Option<T> {
    let bytes = files::read(&dir.join(name), MAX_FILE_BYTES)
        .ok()
        .flatten()?;
    shared_files::decode(&bytes)
}
