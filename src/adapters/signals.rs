//! One watcher for SIGTERM and SIGINT, shared by every part of the program.
//!
//! Invariants: the stage only moves forward. The first signal begins the drain, the second aborts
//! it, later ones change nothing. Losing the watcher never counts as a signal.
//!
//! Deliberately absent: SIGHUP (files are watched instead), and the actions of each part at a
//! stage.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownStage {
    Running,
    /// First signal: fail readiness, keep serving for the drain period, then finish the requests in
    /// flight.
    Draining,
    /// Second signal: stop now.
    Abort,
}

/// A view of the stage; clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<ShutdownStage>);

impl Shutdown {
    /// Returns a shutdown that never comes, for parts that serve until the process ends (the admin
    /// port).
    #[must_use]
    pub fn never() -> Self {
        channel().1
    }

    #[must_use]
    pub fn stage(&self) -> ShutdownStage {
        *self.0.borrow()
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.stage() >= ShutdownStage::Draining
    }

    /// Waits until the stage is reached or passed.
    pub async fn reached(&mut self, stage: ShutdownStage) {
        if self.0.wait_for(|now| *now >= stage).await.is_err() {
            // The sender is gone: no signal can come any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Moves the stage forward; tests and `demo` use it instead of a signal.
#[derive(Debug)]
pub struct Trigger(watch::Sender<ShutdownStage>);

impl Trigger {
    /// Acts as one more signal.
    pub fn signal(&self) {
        self.0.send_modify(|stage| {
            *stage = match stage {
                ShutdownStage::Running => ShutdownStage::Draining,
                ShutdownStage::Draining | ShutdownStage::Abort => ShutdownStage::Abort,
            }
        });
    }
}

#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(ShutdownStage::Running);
    (Trigger(sender), Shutdown(receiver))
}

/// Starts the watcher. Call it once, inside the runtime.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn install() -> io::Result<Shutdown> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (trigger, shutdown) = channel();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = term.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => return,
            };
            trigger.signal();
            let stage = *trigger.0.borrow();
            tracing::info!(signal = name, ?stage, "signal received");
        }
    });
    Ok(shutdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_only_move_forward() {
        let (trigger, mut shutdown) = channel();
        assert!(!shutdown.is_draining());
        trigger.signal();
        shutdown.reached(ShutdownStage::Draining).await;
        assert_eq!(shutdown.stage(), ShutdownStage::Draining);
        trigger.signal();
        trigger.signal();
        shutdown.reached(ShutdownStage::Draining).await;
        assert_eq!(shutdown.stage(), ShutdownStage::Abort);
    }

    #[tokio::test]
    async fn a_lost_watcher_is_not_a_signal() {
        let (trigger, mut shutdown) = channel();
        drop(trigger);
        let waited = tokio::time::timeout(
            std::time::Duration::from_millis(20),
            shutdown.reached(ShutdownStage::Draining),
        )
        .await;
        assert!(waited.is_err(), "the wait must not end without a signal");
    }
}
