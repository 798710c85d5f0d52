//! PID 1 of the thanos container: runs thanos as its child and restarts it in place.
//!
//! This is the outside of [`crate::core::launch`]: it turns signals, ended children, changed files and elapsed timers
//! into events, and does what comes back, in order. Invariants: the only reaper of this process is [`process::reap`];
//! with nothing to do the process sleeps without a timer; stdin, stdout and stderr are thanos' own.

mod inspect;
pub mod process;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::adapters::dir_watch::DirWatch;
use crate::adapters::files;
use crate::core::launch::{Action, Event, Launcher, Options, Signal, Timer};
use crate::core::names;
use crate::core::shared_files::{
    self, BLOCKS_FILE, BlockList, INSPECT_FILE, LaunchState, MAX_FILE_BYTES, RECORD_FILE, Record,
    VERDICT_FILE, WINDOW_FILE,
};
use crate::core::time_flags;
use crate::core::window::Window;

use inspect::Inspector;
use process::Child;

/// Exit code of shells for a program that does not exist.
const EXIT_NOT_FOUND: i32 = 127;
/// A record that could not be written is tried again after this long.
const RECORD_RETRY: Duration = Duration::from_secs(1);
/// Exit code of a start that the kernel refused.
const EXIT_NOT_STARTED: i32 = 126;

/// What to run and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory shared with the sidecar.
    pub shared_dir: PathBuf,
    /// How long thanos goes on serving after the first SIGTERM.
    pub termination_drain: Duration,
    /// How long thanos may take to stop for a restart.
    pub stop_grace: Duration,
    /// Thanos and its arguments, the initial window among them.
    pub command: Vec<OsString>,
    /// The image's `PATH`.
    pub path: Option<OsString>,
}

/// Why nothing could be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The kernel refused a signal handler.
    #[error("cannot install signal handlers: {0}")]
    Signals(#[source] io::Error),
}

/// Runs thanos until it or the pod ends; the exit code is thanos' own.
///
/// # Errors
/// [`LaunchError`] before anything was started.
pub async fn run(settings: &Settings) -> Result<i32, LaunchError> {
    let Some((word, args)) = settings.command.split_first() else {
        warn!("there is no command to launch");
        return Ok(EXIT_NOT_FOUND);
    };
    let Some(program) = process::find(word, settings.path.as_deref()) else {
        warn!(
            "program {word:?} was not found in PATH or the usual places; set the pod's annotation {} to a JSON array such as [\"/bin/thanos\"]",
            names::COMMAND_ANNOTATION
        );
        return Ok(EXIT_NOT_FOUND);
    };
    let mut inbox = Inbox::new(settings, args)?;
    process::adopt_orphans();
    let (launcher, actions) = Launcher::begin(
        Options {
            drains: !settings.termination_drain.is_zero(),
        },
        read(&settings.shared_dir, RECORD_FILE),
        read(&settings.shared_dir, VERDICT_FILE),
        read(&settings.shared_dir, WINDOW_FILE),
        time_flags::initial_window(args),
    );
    let mut runner = Runner {
        settings,
        launcher,
        program,
        args,
        child: None,
        timer: None,
        unwritten: None,
    };
    let mut code = runner.act(actions);
    loop {
        if let Some(code) = code {
            return Ok(code);
        }
        let happened = inbox.next(runner.due()).await;
        code = runner.happened(&happened);
        if matches!(happened, Happened::FilesChanged | Happened::Listed(_)) {
            inbox.inspector.start(
                read(&settings.shared_dir, INSPECT_FILE),
                runner.launcher.record().launch,
            );
        }
    }
}

/// Something woke the launcher.
enum Happened {
    ChildrenEnded,
    FilesChanged,
    Signal(Signal),
    TimerElapsed,
    Listed(BlockList),
}

/// Everything that can wake the launcher.
struct Inbox {
    files: DirWatch,
    child: Signals,
    hangup: Signals,
    handed_on: [(Signal, Signals); 5],
    inspector: Inspector,
}

impl Inbox {
    fn new(settings: &Settings, args: &[OsString]) -> Result<Self, LaunchError> {
        let on = |kind| signal(kind).map_err(LaunchError::Signals);
        Ok(Self {
            files: DirWatch::new(&settings.shared_dir, Duration::MAX),
            child: on(SignalKind::child())?,
            hangup: on(SignalKind::hangup())?,
            handed_on: [
                (Signal::Term, on(SignalKind::terminate())?),
                (Signal::Int, on(SignalKind::interrupt())?),
                (Signal::Quit, on(SignalKind::quit())?),
                (Signal::Usr1, on(SignalKind::user_defined1())?),
                (Signal::Usr2, on(SignalKind::user_defined2())?),
            ],
            inspector: Inspector::new(args),
        })
    }

    async fn next(&mut self, due: Option<Instant>) -> Happened {
        let [term, int, quit, usr1, usr2] = &mut self.handed_on;
        tokio::select! {
            biased;
            _ = self.child.recv() => Happened::ChildrenEnded,
            _ = term.1.recv() => Happened::Signal(term.0),
            _ = int.1.recv() => Happened::Signal(int.0),
            _ = quit.1.recv() => Happened::Signal(quit.0),
            _ = usr1.1.recv() => Happened::Signal(usr1.0),
            _ = usr2.1.recv() => Happened::Signal(usr2.0),
            () = sleep_until(due) => Happened::TimerElapsed,
            _ = self.hangup.recv() => Happened::FilesChanged,
            () = self.files.changed() => Happened::FilesChanged,
            list = self.inspector.done() => Happened::Listed(list),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn read<T: for<'de> serde::Deserialize<'de>>(dir: &Path, name: &str) -> Option<T> {
    let bytes = files::read(&dir.join(name), MAX_FILE_BYTES)
        .ok()
        .flatten()?;
    shared_files::decode(&bytes)
}

struct Runner<'a> {
    settings: &'a Settings,
    launcher: Launcher,
    program: PathBuf,
    args: &'a [OsString],
    child: Option<Child>,
    timer: Option<(Timer, Instant)>,
    /// A record that could not be written, and when to try again: the sidecar waits for it.
    unwritten: Option<(Record, Instant)>,
}

impl Runner<'_> {
    fn due(&self) -> Option<Instant> {
        let write = self.unwritten.as_ref().map(|(_, due)| *due);
        self.timer
            .map(|(_, due)| due)
            .into_iter()
            .chain(write)
            .min()
    }

    fn happened(&mut self, happened: &Happened) -> Option<i32> {
        match happened {
            Happened::ChildrenEnded => {
                let code = process::reap(self.child.as_ref())?;
                self.child = None;
                self.event(&Event::Exited(code))
            }
            Happened::FilesChanged => {
                // The verdict first: a window that was ready stays the one to go back to.
                let verdict = read(&self.settings.shared_dir, VERDICT_FILE).map(Event::Judged);
                let order = read(&self.settings.shared_dir, WINDOW_FILE).map(Event::Ordered);
                [verdict, order]
                    .iter()
                    .flatten()
                    .find_map(|event| self.event(event))
            }
            Happened::Listed(list) => {
                self.write_list(list);
                None
            }
            Happened::Signal(signal) => self.event(&Event::Signalled(*signal)),
            Happened::TimerElapsed => {
                let now = Instant::now();
                if let Some((record, _)) = self.unwritten.clone().filter(|(_, due)| *due <= now) {
                    self.record(&record);
                }
                let (timer, _) = self.timer.take_if(|(_, due)| *due <= now)?;
                self.event(&Event::Elapsed(timer))
            }
        }
    }

    fn event(&mut self, event: &Event) -> Option<i32> {
        let actions = self.launcher.on(event);
        self.act(actions)
    }

    /// Does it all, in order; the exit code once there is one.
    fn act(&mut self, actions: Vec<Action>) -> Option<i32> {
        for action in actions {
            match action {
                Action::Record(record) => self.record(&record),
                Action::Start(window) => {
                    if let Err(error) = self.start(window) {
                        warn!("cannot start {}: {error}", self.program.display());
                        return self.event(&Event::Exited(EXIT_NOT_STARTED));
                    }
                }
                Action::Send(signal) => {
                    if let Some(child) = &self.child {
                        child.send(signal);
                    }
                }
                Action::Arm(timer) => {
                    let after = match timer {
                        Timer::StopGrace => self.settings.stop_grace,
                        Timer::TerminationDrain => self.settings.termination_drain,
                    };
                    self.timer = Instant::now().checked_add(after).map(|due| (timer, due));
                }
                Action::Disarm => self.timer = None,
                Action::Say(line) => info!("{line}"),
                Action::Exit(code) => return Some(code),
            }
        }
        None
    }

    fn record(&mut self, record: &Record) {
        let dir = &self.settings.shared_dir;
        // Attempts and ready marks must outlive even the node. The other two states are stages on the way, where waiting
        // for the disk would only make a restart longer.
        let durable = record.state == LaunchState::Started;
        let written = shared_files::encode(record)
            .map_err(io::Error::from)
            .and_then(|bytes| {
                if durable {
                    files::replace(dir, RECORD_FILE, &bytes[..], files::MODE_DATA)
                } else {
                    files::replace_unsynced(dir, RECORD_FILE, &bytes[..], files::MODE_DATA)
                }
            });
        let failed_before = self.unwritten.take().is_some();
        if let Err(error) = written {
            // Serving comes first; until it is there, a crash has lost the way back and the sidecar waits.
            if !failed_before {
                warn!(
                    "cannot record in {}: {error}; it is tried again",
                    dir.display()
                );
            }
            self.unwritten = Some((record.clone(), Instant::now() + RECORD_RETRY));
        }
    }

    fn write_list(&self, list: &BlockList) {
        let dir = &self.settings.shared_dir;
        let written = shared_files::encode(list)
            .map_err(io::Error::from)
            .and_then(|bytes| {
                files::replace_unsynced(dir, BLOCKS_FILE, &bytes[..], files::MODE_DATA)
            });
        if let Err(error) = written {
            warn!("cannot write {}: {error}", dir.join(BLOCKS_FILE).display());
        }
    }

    fn start(&mut self, window: Window) -> io::Result<()> {
        // As the user wrote them, as long as no other window is asked for.
        let args = if window == time_flags::initial_window(self.args) {
            self.args.to_vec()
        } else {
            time_flags::with_window(self.args, window)
        };
        let word = &self.settings.command[0];
        self.child = Some(Child::start(&self.program, word, &args)?);
        Ok(())
    }
}
