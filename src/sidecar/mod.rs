//! The sidecar: watches its pod's entry, drains, has thanos restarted with it, verifies, reports.
//!
//! This is the I/O around [`crate::core::agent::sidecar`]. In: the mounted entry, the launcher's
//! files, thanos' answers, and time. Out: the window file and the other actions of
//! [`Sidecar::step`], and `/status`. It is one loop ([`run`]): each input wakes it, and it decides
//! again. Next for a window: `core/agent/sidecar/mod.rs`.
//!
//! Invariants: one task decides, and the HTTP server only repeats its decisions; the port is opened
//! only when the agent is installed and the window file has the mounted entry, which holds back the
//! first start of thanos; of the mounted ConfigMap only this pod's entry is read, with a limit.

mod block_log;
mod http;
mod install;
mod loaded;
mod metrics;
mod signal;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::adapters::dir_watch::DirWatch;
use crate::adapters::handoff_files::{Durability, read, write};
use crate::adapters::{clock, files, listen};
use crate::core::agent::handoff::{
    BLOCKS_FILE, INSPECT_FILE, RECORD_FILE, VERDICT_FILE, WINDOW_FILE, WindowFile,
};
use crate::core::agent::sidecar::{
    self as decisions, EntryChange, SharedDirectory, Sidecar, SidecarAction,
};
use crate::core::agent::status::Phase;
use crate::core::model::entry::{self, Entry, MAX_ENTRY_BYTES};

pub use signal::by_name as signal_by_name;
pub use verify::{AddressError, ThanosClient};

use block_log::BlockLog;
use http::Answers;
use metrics::SidecarMetrics;
use verify::ProbeInFlight;

#[derive(Clone, Debug)]
pub struct SidecarSettings {
    pub core: decisions::DecisionSettings,
    /// The mounted `ConfigMap`.
    pub config_dir: PathBuf,
    /// The directory shared with the launcher.
    pub shared_dir: PathBuf,
    pub thanos: ThanosClient,
    pub listen: SocketAddr,
    /// How often to read both directories without a notification.
    pub poll: Duration,
    /// Whether to copy this program into the shared directory.
    pub install: bool,
    /// For `--reload=signal`: the signal, and the program to send it to.
    pub signal: (Signal, String),
}

#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    #[error(
        "cannot install the agent into {dir}: {why}; the volume must be writable for this container's user"
    )]
    Install {
        dir: PathBuf,
        #[source]
        why: io::Error,
    },
    /// Writing the window file failed, in the classic form, which ends after that.
    #[error(
        "cannot write the window file into {dir}: {why}; the volume must be writable for this container's user"
    )]
    Order { dir: PathBuf, why: String },
    #[error("cannot listen on {address}: {why}; choose another address with --listen")]
    Listen {
        address: SocketAddr,
        #[source]
        why: io::Error,
    },
}

/// Installs the agent, writes the window file for the first start, and returns: the init container
/// of the classic form.
///
/// # Errors
/// [`SidecarError`].
pub fn install_only(settings: &SidecarSettings) -> Result<(), SidecarError> {
    let mut worker = Worker::new(settings)?;
    worker.read_entry();
    worker.decide();
    if worker.sidecar.has_entry_filed() {
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
/// [`SidecarError`], before thanos is released for its first start.
pub async fn run(
    settings: &SidecarSettings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), SidecarError> {
    // Armed before the first read, so that no change is missed between the two.
    let mut config = DirWatch::new(&settings.config_dir, settings.poll);
    let mut shared = DirWatch::new(&settings.shared_dir, settings.poll);
    let mut worker = Worker::new(settings)?;
    worker.read_entry();
    let (publish, answers) = watch::channel(Answers::default());
    let mut answers = Some(answers);
    let mut probing = ProbeInFlight::new(&settings.thanos);
    tokio::pin!(shutdown);
    loop {
        worker.decide();
        let _ = publish.send_replace(worker.answers());
        if worker.sidecar.has_entry_filed()
            && let Some(answers) = answers.take()
        {
            let address = settings.listen;
            let listener =
                listen::bind(address).map_err(|why| SidecarError::Listen { address, why })?;
            info!(%address, "serving /status, /readyz, /livez and /metrics");
            tokio::spawn(http::serve(listener, answers));
        }
        let now = worker.now();
        if let Some(launch) = worker.sidecar.probe_due(now) {
            probing.start(launch);
        }
        let wake = worker.sidecar.next_wake(now).map(|at| worker.start + at);
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            (launch, probe) = probing.done() => worker.sidecar.probed(launch, probe, worker.start.elapsed()),
            () = config.changed() => worker.read_entry(),
            () = shared.changed() => worker.read_files(),
            () = clock::at(wake) => {}
        }
    }
}

struct Worker<'a> {
    settings: &'a SidecarSettings,
    sidecar: Sidecar,
    metrics: SidecarMetrics,
    start: Instant,
    phase: Phase,
    blocks: BlockLog,
}

impl<'a> Worker<'a> {
    fn new(settings: &'a SidecarSettings) -> Result<Self, SidecarError> {
        let dir = &settings.shared_dir;
        if settings.install {
            match install::install(dir) {
                Err(why) if install::is_installed(dir) => {
                    warn!(dir = %dir.display(), error = %why, "cannot install the agent again; the installed one stays");
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
                SharedDirectory {
                    record: read(dir, RECORD_FILE),
                    file: read(dir, WINDOW_FILE),
                    inspect: read(dir, INSPECT_FILE),
                },
            ),
            metrics: SidecarMetrics::new(&settings.core.version),
            start: Instant::now(),
            phase: Phase::Starting,
            blocks: BlockLog::default(),
        })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn read_entry(&mut self) {
        let read = read_entry(
            &self.settings.config_dir,
            &self.settings.core.pod,
            clock::now(),
        );
        if let Some(change) = self.sidecar.set_entry(read, self.now()) {
            self.log(&change);
        }
    }

    fn log(&self, change: &EntryChange) {
        if change.refused {
            self.metrics.entry_refused();
            warn!(reason = change.line, "entry not accepted");
        } else {
            info!(change = change.line, "entry accepted");
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
                SidecarAction::Order(file) => {
                    if self.write_window(file, now) {
                        info!(window = %file.window, request = file.request, "window file written");
                    }
                }
                SidecarAction::Remember(file) => {
                    self.write_window(file, now);
                }
                SidecarAction::Inspect(inspect) => {
                    if let Err(why) = self.write(INSPECT_FILE, &inspect, Durability::Unsynced) {
                        warn!(
                            error = why,
                            "cannot ask the launcher for its list of blocks"
                        );
                        self.sidecar.failed_to_ask();
                    }
                }
                SidecarAction::Log(change) => self.log(&change),
                SidecarAction::Verdict(verdict) => {
                    if let Err(why) = self.write(VERDICT_FILE, &verdict, Durability::Synced) {
                        self.failed(why, now);
                    }
                }
                SidecarAction::Signal => {
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
            info!(
                phase = %status.phase,
                applied = status.applied.map(tracing::field::display),
                error = status.last_error,
                "phase changed"
            );
        }
    }

    /// Returns whether the window file was written.
    fn write_window(&mut self, file: WindowFile, now: Duration) -> bool {
        let written = self.write(WINDOW_FILE, &file, Durability::Synced);
        let done = written.is_ok();
        match written {
            Ok(()) => self.sidecar.wrote(file),
            Err(why) => self.failed(why, now),
        }
        done
    }

    fn failed(&mut self, why: String, now: Duration) {
        warn!(error = why, "cannot carry out a step; it is tried again");
        self.sidecar.failed_to_act(why, now);
    }

    fn write<T: serde::Serialize>(
        &self,
        name: &str,
        document: &T,
        durability: Durability,
    ) -> Result<(), String> {
        let dir = &self.settings.shared_dir;
        write(dir, name, document, durability)
            .map_err(|error| format!("cannot write {}: {error}", dir.join(name).display()))
    }

    fn answers(&mut self) -> Answers {
        let status = self.sidecar.status();
        self.metrics
            .observe(&self.sidecar, &status, clock::unix_seconds());
        Answers {
            // Plain data always serialises; every client would notice an empty body.
            status: serde_json::to_vec(&status).unwrap_or_default().into(),
            ready: status.phase.is_ready(),
            phase: status.phase.as_str(),
            metrics: self.metrics.text(),
        }
    }
}

/// Reads the entry of `pod`; `None` if the directory has none.
///
/// # Errors
/// A sentence with the file and the problem.
fn read_entry(dir: &Path, pod: &str, now: DateTime<Utc>) -> Result<Option<Entry>, String> {
    let key = entry::key(pod);
    let bytes =
        files::read(&dir.join(&key), MAX_ENTRY_BYTES).map_err(|error| format!("{key}: {error}"))?;
    let Some(bytes) = bytes else {
        return Ok(None);
    };
    let text =
        std::str::from_utf8(&bytes).map_err(|error| format!("{key}: it is not UTF-8: {error}"))?;
    Entry::parse(text, now)
        .map(Some)
        .map_err(|error| format!("{key}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::clock;

    #[test]
    fn only_a_good_entry_of_this_pod_counts() {
        let dir = tempfile::tempdir().unwrap();
        let read = || read_entry(dir.path(), "store-0", clock::now());
        assert_eq!(read(), Ok(None));
        let good = "shard: 1\nreplica: 0\nmin_time: -2d\nmax_time: -1d\n";
        std::fs::write(dir.path().join("store-1.yaml"), good).unwrap();
        assert_eq!(read(), Ok(None));
        let path = dir.path().join("store-0.yaml");
        std::fs::write(&path, good).unwrap();
        assert_eq!(read().unwrap().unwrap().shard, 1);
        let large = vec![b'a'; MAX_ENTRY_BYTES + 1];
        for bad in [&b"\xff\xfe"[..], b"", b"shard: 0", &large] {
            std::fs::write(&path, bad).unwrap();
            assert!(read().unwrap_err().starts_with("store-0.yaml: "));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read().is_err());
        assert_eq!(
            read_entry(&dir.path().join("gone"), "store-0", clock::now()),
            Ok(None)
        );
    }
}
