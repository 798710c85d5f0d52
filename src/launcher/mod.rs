//! PID 1 of the thanos container: runs thanos as its child and restarts it in place.
//!
//! This is the I/O around [`crate::core::agent::launcher`]. In: signals, ended children, changed
//! files, elapsed timers, and what happened on the disk; each becomes an event (`happened`). Out:
//! its actions, carried out in order (`act`). Stopping and starting thanos only begin there; that
//! they are done arrives as an event. Next for a window: `core/agent/launcher/mod.rs`.
//!
//! Invariants: only [`process::reap`] reaps children of this process; an idle launcher has no timer;
//! thanos has the container's own stdin, stdout and stderr.

mod data_dir;
mod inspect;
mod kept;
mod loads;
pub mod process;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::adapters::clock;
use crate::adapters::dir_watch::DirWatch;
use crate::adapters::handoff_files::{Durability, read, write};
use crate::core::agent::handoff::{
    BLOCKS_FILE, BlockList, INSPECT_FILE, LaunchRecord, LaunchState, RECORD_FILE, VERDICT_FILE,
    WINDOW_FILE,
};
use crate::core::agent::launcher::{
    Launcher, LauncherAction, LauncherEvent, LauncherNote, LauncherOptions, Signal, Timer,
};
use crate::core::agent::loading::args;
use crate::core::model::names;
use crate::core::model::window::Window;
use crate::core::thanos::flags;

use inspect::Inspector;
use loads::{DiskEvent, Loads};
use process::Child;

/// As shells exit for a missing program.
const EXIT_NOT_FOUND: i32 = 127;
/// The wait before a failed write of the record is repeated.
const RECORD_RETRY: Duration = Duration::from_secs(1);
/// As shells exit for a program that the kernel does not start.
const EXIT_NOT_STARTED: i32 = 126;

#[derive(Clone, Debug)]
pub struct LauncherSettings {
    pub shared_dir: PathBuf,
    /// How long thanos goes on serving after the first SIGTERM.
    pub termination_drain: Duration,
    /// How long thanos may take to stop for a restart.
    pub stop_grace: Duration,
    /// Thanos and its arguments, including the initial window.
    pub command: Vec<OsString>,
    /// The image's `PATH`.
    pub path: Option<OsString>,
    /// How long index headers of the previous window stay on disk after a start; zero: no longer
    /// than thanos keeps them.
    pub keep_headers: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The kernel refused a signal handler.
    #[error("cannot install signal handlers: {0}")]
    Signals(#[source] io::Error),
}

/// Runs thanos until it or the pod ends; returns thanos' exit code.
///
/// # Errors
/// Before anything was started.
pub async fn run(settings: &LauncherSettings) -> Result<i32, LaunchError> {
    let Some((word, args)) = settings.command.split_first() else {
        warn!("there is no command to launch");
        return Ok(EXIT_NOT_FOUND);
    };
    let Some(program) = process::find(word, settings.path.as_deref()) else {
        warn!(
            program = ?word,
            annotation = names::COMMAND_ANNOTATION,
            "program not found in PATH and the usual places; set the pod's annotation to a JSON array such as [\"/bin/thanos\"]"
        );
        return Ok(EXIT_NOT_FOUND);
    };
    let mut inbox = Inbox::new(settings, args)?;
    process::adopt_orphans();
    let (launcher, actions) = Launcher::begin(
        LauncherOptions {
            drains: !settings.termination_drain.is_zero(),
        },
        read(&settings.shared_dir, RECORD_FILE),
        read(&settings.shared_dir, VERDICT_FILE),
        read(&settings.shared_dir, WINDOW_FILE),
        flags::initial_window(args),
    );
    let mut runner = Runner {
        settings,
        launcher,
        program,
        args,
        child: None,
        timer: None,
        unwritten: None,
        loads: Loads::new(args::data_dir(args).ok(), settings.keep_headers),
    };
    let mut code = runner.act(actions);
    loop {
        if let Some(code) = code {
            return Ok(code);
        }
        let (due, launch) = (runner.due(), runner.launcher.record().launch);
        let happened = inbox.next(due, &mut runner.loads, launch).await;
        code = runner.happened(&happened);
        if matches!(happened, Happened::FilesChanged | Happened::Listed(_)) {
            inbox.inspector.start(
                read(&settings.shared_dir, INSPECT_FILE),
                runner.launcher.record().launch,
                runner.loads.is_settled(),
            );
        }
    }
}

enum Happened {
    ChildrenEnded,
    FilesChanged,
    Signal(Signal),
    TimerElapsed,
    Listed(BlockList),
    Disk(DiskEvent),
}

/// All sources of events.
struct Inbox {
    files: DirWatch,
    child: Signals,
    hangup: Signals,
    forwarded: [(Signal, Signals); 5],
    inspector: Inspector,
}

impl Inbox {
    fn new(settings: &LauncherSettings, args: &[OsString]) -> Result<Self, LaunchError> {
        let on = |kind| signal(kind).map_err(LaunchError::Signals);
        Ok(Self {
            files: DirWatch::new(&settings.shared_dir, Duration::MAX),
            child: on(SignalKind::child())?,
            hangup: on(SignalKind::hangup())?,
            forwarded: [
                (Signal::Term, on(SignalKind::terminate())?),
                (Signal::Int, on(SignalKind::interrupt())?),
                (Signal::Quit, on(SignalKind::quit())?),
                (Signal::Usr1, on(SignalKind::user_defined1())?),
                (Signal::Usr2, on(SignalKind::user_defined2())?),
            ],
            inspector: Inspector::new(args),
        })
    }

    /// `launch` is the number of the current start.
    async fn next(&mut self, due: Option<Instant>, loads: &mut Loads, launch: u64) -> Happened {
        let [term, int, quit, usr1, usr2] = &mut self.forwarded;
        tokio::select! {
            biased;
            _ = self.child.recv() => Happened::ChildrenEnded,
            _ = term.1.recv() => Happened::Signal(term.0),
            _ = int.1.recv() => Happened::Signal(int.0),
            _ = quit.1.recv() => Happened::Signal(quit.0),
            _ = usr1.1.recv() => Happened::Signal(usr1.0),
            _ = usr2.1.recv() => Happened::Signal(usr2.0),
            () = clock::at(due) => Happened::TimerElapsed,
            _ = self.hangup.recv() => Happened::FilesChanged,
            () = self.files.changed() => Happened::FilesChanged,
            list = self.inspector.done() => Happened::Listed(list),
            event = loads.done(launch) => Happened::Disk(event),
        }
    }
}

struct Runner<'a> {
    settings: &'a LauncherSettings,
    launcher: Launcher,
    program: PathBuf,
    args: &'a [OsString],
    child: Option<Child>,
    timer: Option<(Timer, Instant)>,
    /// A record that could not be written, and when to retry: the sidecar waits for it.
    unwritten: Option<(LaunchRecord, Instant)>,
    loads: Loads,
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
                self.event(&LauncherEvent::Exited(code))
            }
            Happened::FilesChanged => {
                // The verdict first: a window that was ready stays the fallback.
                let verdict =
                    read(&self.settings.shared_dir, VERDICT_FILE).map(LauncherEvent::Verdict);
                let order =
                    read(&self.settings.shared_dir, WINDOW_FILE).map(LauncherEvent::Ordered);
                [verdict, order]
                    .iter()
                    .flatten()
                    .find_map(|event| self.event(event))
            }
            Happened::Listed(list) => {
                self.write_list(list);
                None
            }
            Happened::Disk(DiskEvent::Prepared(window)) => self.start(*window),
            Happened::Disk(DiskEvent::Counted(launch, load)) => {
                info!(
                    seconds = load.millis / 1000,
                    blocks = load.blocks,
                    downloaded = load.blocks_new,
                    "thanos has loaded its window"
                );
                self.event(&LauncherEvent::Loaded(*launch, *load))
            }
            Happened::Signal(signal) => self.event(&LauncherEvent::Signalled(*signal)),
            Happened::TimerElapsed => {
                let now = Instant::now();
                if let Some((record, _)) = self.unwritten.clone().filter(|(_, due)| *due <= now) {
                    self.record(&record);
                }
                let (timer, _) = self.timer.take_if(|(_, due)| *due <= now)?;
                self.event(&LauncherEvent::Elapsed(timer))
            }
        }
    }

    fn event(&mut self, event: &LauncherEvent) -> Option<i32> {
        let actions = self.launcher.on(event);
        let record = self.launcher.record();
        if record.ready {
            self.loads.ready(record.launch);
        }
        self.act(actions)
    }

    /// Carries out the actions in order, without waiting for thanos to stop or start; returns the
    /// exit code, if one is due.
    fn act(&mut self, actions: Vec<LauncherAction>) -> Option<i32> {
        let mut never_started = None;
        for action in actions {
            match action {
                LauncherAction::Record(record) => self.record(&record),
                // Only begins: `DiskEvent::Prepared` follows in `happened`, which starts thanos.
                LauncherAction::Start { window, changed } => self.loads.prepare(window, changed),
                // Only sends: `ChildrenEnded` follows when thanos has ended.
                LauncherAction::Send(signal) => match &self.child {
                    Some(child) => child.send(signal),
                    None => never_started = signal.exit_code().filter(|_| self.loads.cancel()),
                },
                LauncherAction::Arm(timer) => {
                    let after = match timer {
                        Timer::StopGrace => self.settings.stop_grace,
                        Timer::TerminationDrain => self.settings.termination_drain,
                    };
                    self.timer = Instant::now().checked_add(after).map(|due| (timer, due));
                }
                LauncherAction::Disarm => self.timer = None,
                LauncherAction::Log(note) => log(&note),
                LauncherAction::Exit(code) => return Some(code),
            }
        }
        // As if thanos had been started and had ended by this signal.
        self.event(&LauncherEvent::Exited(never_started?))
    }

    fn record(&mut self, record: &LaunchRecord) {
        let dir = &self.settings.shared_dir;
        // Attempts and ready marks must survive even a crash of the node. The other two states are
        // transient; syncing the disk would only lengthen a restart.
        let durability = if record.state == LaunchState::Started {
            Durability::Synced
        } else {
            Durability::Unsynced
        };
        let written = write(dir, RECORD_FILE, record, durability);
        let failed_before = self.unwritten.take().is_some();
        if let Err(error) = written {
            // Serving comes first. Until the record is written, a crash loses the fallback, and the
            // sidecar waits.
            if !failed_before {
                warn!(dir = %dir.display(), %error, "cannot write the record; it is tried again");
            }
            self.unwritten = Some((record.clone(), Instant::now() + RECORD_RETRY));
        }
    }

    fn write_list(&self, list: &BlockList) {
        let dir = &self.settings.shared_dir;
        if let Err(error) = write(dir, BLOCKS_FILE, list, Durability::Unsynced) {
            warn!(dir = %dir.display(), %error, "cannot write the list of blocks");
        }
    }

    /// Starts thanos, now that the disk is prepared; returns the exit code, if one is due.
    fn start(&mut self, window: Window) -> Option<i32> {
        // As the user wrote them, unless another window is ordered.
        let args = if window == flags::initial_window(self.args) {
            self.args.to_vec()
        } else {
            flags::with_window(self.args, window)
        };
        let word = &self.settings.command[0];
        match Child::start(&self.program, word, &args) {
            Ok(child) => {
                self.child = Some(child);
                None
            }
            Err(error) => {
                warn!(program = %self.program.display(), %error, "cannot start thanos");
                self.event(&LauncherEvent::Exited(EXIT_NOT_STARTED))
            }
        }
    }
}

fn log(note: &LauncherNote) {
    match note {
        LauncherNote::GaveUp {
            window,
            back_to,
            reason,
        } => info!(%window, %back_to, reason, "window given up"),
        LauncherNote::Restarts { from, to } if from == to => {
            info!(window = %to, "restarting thanos in place to load its blocks again");
        }
        LauncherNote::Restarts { from, to } => info!(%from, %to, "restarting thanos in place"),
        LauncherNote::Drains => {
            info!("the pod is being deleted: thanos goes on serving for the termination drain");
        }
        LauncherNote::StopGraceOver => {
            info!("thanos did not stop within the stop grace: killing it");
        }
    }
}
