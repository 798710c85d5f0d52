//! The disk around a start of thanos: index headers are kept and brought back before it
//! ([`kept`]), and the loaded blocks are counted after it.
//!
//! In: the window of a start, once the old thanos has ended. Out: [`DiskEvent::Prepared`], upon
//! which the launcher starts thanos; much later [`DiskEvent::Counted`]. Next for a window:
//! `launcher/process.rs`.
//!
//! Invariants: threads of their own read the disk, so that a hanging disk delays no signal, and a
//! start by at most [`PREPARE_LIMIT`]; without a data directory that shows what is loaded only the
//! time is measured.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::data_dir;
use super::kept::{self, ComingStart, Prepared};
use crate::adapters::clock;
use crate::core::agent::last_load::LastLoad;
use crate::core::agent::loading::meta::Ulid;
use crate::core::model::window::Window;

/// The longest wait for the disk before thanos is started. Two links for each of 5,000 blocks take
/// 0.3 s on a local disk.
const PREPARE_LIMIT: Duration = Duration::from_secs(10);
/// Enough for paths; a node may run many launchers.
const STACK_BYTES: usize = 256 * 1024;

/// What happened on the disk.
#[derive(Debug)]
pub(super) enum DiskEvent {
    /// Thanos can be started with this window.
    Prepared(Window),
    /// How the start with this number went.
    Counted(u64, LastLoad),
}

#[derive(Debug)]
enum LoadPhase {
    Idle,
    Preparing {
        window: Window,
        since: Instant,
        stop: Arc<AtomicBool>,
        done: oneshot::Receiver<Option<Prepared>>,
    },
    Loading {
        launch: u64,
        window: Window,
        since: Instant,
        /// `None` if unknown.
        present: Option<Vec<Ulid>>,
    },
    Counting {
        launch: u64,
        load: LastLoad,
        done: oneshot::Receiver<Option<(u64, u64)>>,
    },
}

#[derive(Debug)]
pub(super) struct Loads {
    /// `None` if it does not show what is loaded.
    dir: Option<PathBuf>,
    /// How long headers stay kept after a start; zero: none are.
    keep: Duration,
    started: Option<Instant>,
    phase: LoadPhase,
}

impl Loads {
    pub(super) const fn new(dir: Option<PathBuf>, keep: Duration) -> Self {
        Self {
            dir,
            keep,
            started: None,
            phase: LoadPhase::Idle,
        }
    }

    /// Begins to prepare a start, which follows with [`DiskEvent::Prepared`].
    pub(super) fn prepare(&mut self, window: Window, changed: bool) {
        let start = ComingStart {
            window,
            changed,
            unix_seconds: clock::unix_seconds(),
        };
        let (dir, keeps) = (self.dir.clone(), !self.keep.is_zero());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let done = in_thread(move || Some(prepare(dir.as_deref()?, keeps, start, &stopped)));
        self.phase = LoadPhase::Preparing {
            window,
            since: Instant::now(),
            stop,
            done,
        };
    }

    /// Returns whether a start was being prepared; it does not follow any more.
    pub(super) fn cancel(&mut self) -> bool {
        let LoadPhase::Preparing { stop, .. } = &self.phase else {
            return false;
        };
        stop.store(true, Ordering::Relaxed);
        self.phase = LoadPhase::Idle;
        true
    }

    /// Notes that start `launch` is ready, and counts its blocks. Only the first time counts.
    pub(super) fn ready(&mut self, launch: u64) {
        match std::mem::replace(&mut self.phase, LoadPhase::Idle) {
            LoadPhase::Loading {
                launch: of,
                window,
                since,
                present,
            } if of == launch => {
                let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                let load = LastLoad {
                    window,
                    millis,
                    blocks: None,
                    blocks_new: None,
                };
                let dir = self.dir.clone();
                let done = in_thread(move || count(dir.as_deref()?, &present?));
                self.phase = LoadPhase::Counting { launch, load, done };
            }
            other => self.phase = other,
        }
    }

    /// Returns whether no window change is recent enough to be taken back.
    pub(super) fn is_settled(&self) -> bool {
        self.started
            .is_some_and(|started| started.elapsed() >= self.keep)
    }

    /// Returns the next event; never resolves while there is nothing to do.
    pub(super) async fn done(&mut self, launch: u64) -> DiskEvent {
        let (window, since, prepared) = match &mut self.phase {
            LoadPhase::Idle | LoadPhase::Loading { .. } => return std::future::pending().await,
            LoadPhase::Counting { launch, load, done } => {
                // Without a thread, only the time is known.
                let counts = done.await.ok().flatten();
                let (blocks, blocks_new) = counts.unzip();
                let load = LastLoad {
                    blocks,
                    blocks_new,
                    ..*load
                };
                let event = DiskEvent::Counted(*launch, load);
                self.phase = LoadPhase::Idle;
                return event;
            }
            LoadPhase::Preparing {
                window,
                since,
                stop,
                done,
            } => {
                let prepared = tokio::time::timeout_at(*since + PREPARE_LIMIT, done).await;
                if prepared.is_err() {
                    stop.store(true, Ordering::Relaxed);
                    warn!(
                        "thanos is started although its data directory could not be listed in time"
                    );
                }
                (
                    *window,
                    *since,
                    prepared.ok().and_then(Result::ok).flatten(),
                )
            }
        };
        self.started = Some(Instant::now());
        self.phase = LoadPhase::Loading {
            launch,
            window,
            since,
            present: prepared.map(|prepared| prepared.present),
        };
        DiskEvent::Prepared(window)
    }
}

/// Runs `work` in a thread; the receiver fails if there is none.
fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (send, receive) = oneshot::channel();
    // Out of processes: `work` and `send` are dropped.
    let _ = std::thread::Builder::new()
        .name("data-dir".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // The launcher may be gone.
            let _ = send.send(work());
        });
    receive
}

fn prepare(dir: &Path, keeps: bool, start: ComingStart, stop: &AtomicBool) -> Prepared {
    if !keeps {
        kept::drop_all(dir);
        let present = data_dir::headers(dir).unwrap_or_default();
        return Prepared {
            present,
            ..Prepared::default()
        };
    }
    // Before the first start of thanos there is no directory.
    let prepared = kept::prepare(dir, start, stop).unwrap_or_default();
    if let Some(problem) = &prepared.problem {
        info!(problem, "index headers of other windows are not kept");
    }
    if prepared.restored > 0 {
        info!(
            blocks = prepared.restored,
            "brought back the kept index headers of the window"
        );
    }
    prepared
}

/// Counts the loaded blocks, and those of them that were not there before the start.
fn count(dir: &Path, present: &[Ulid]) -> Option<(u64, u64)> {
    let loaded = data_dir::headers(dir).ok()?;
    let new = loaded
        .iter()
        .filter(|ulid| present.binary_search(ulid).is_err())
        .count();
    Some((loaded.len() as u64, new as u64))
}
