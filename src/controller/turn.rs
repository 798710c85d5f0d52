//! Turns of StatefulSets: how many requests one may send before the others are served.
//!
//! All requests are limited to six a second (`write::rate_limit`), so a StatefulSet that needs
//! thousands would delay the others for minutes. A turn ends after a number of writes or some time;
//! the rest follows in the next turn, after one turn of each other waiting namespace.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::controller::cache::SetName;
use crate::core::fairness::queue::FairQueue;

/// Writes in one turn: the PDBs of a dozen shards, or a step with its pods.
pub(super) const MAX_WRITES: u32 = 16;
/// Time in a turn after which no write begins.
const MAX_TIME: Duration = Duration::from_secs(5);

/// A turn, counted through a shared reference because the data to write is borrowed meanwhile.
#[derive(Debug, Default)]
pub(super) struct Turn {
    writes: AtomicU32,
    began: Option<Instant>,
    over: AtomicBool,
}

impl Turn {
    pub(super) fn begin(&mut self) {
        *self = Self {
            began: Some(Instant::now()),
            ..Self::default()
        };
    }

    /// Counts one write; returns whether it may begin. If not, the turn is over.
    pub(super) fn take(&self) -> bool {
        let late = self.began.is_some_and(|began| began.elapsed() >= MAX_TIME);
        if late || self.writes.fetch_add(1, Relaxed) >= MAX_WRITES {
            self.over.store(true, Relaxed);
        }
        !self.is_over()
    }

    /// Whether writes were left for the next turn.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }
}

/// StatefulSets that wait for a turn: namespaces alternate, and within one it is first come, first
/// served.
#[derive(Debug)]
pub(super) struct TurnQueue {
    waiting: FairQueue<String, SetName>,
    known: BTreeSet<SetName>,
}

impl Default for TurnQueue {
    fn default() -> Self {
        // Each StatefulSet is queued once, and their number is bounded.
        Self {
            waiting: FairQueue::new(usize::MAX, usize::MAX),
            known: BTreeSet::new(),
        }
    }
}

impl TurnQueue {
    pub(super) fn push(&mut self, set: SetName) {
        if self.known.insert(set.clone()) {
            // Never full.
            let _ = self.waiting.push(set.0.clone(), set);
        }
    }

    pub(super) fn pop(&mut self) -> Option<SetName> {
        let set = self.waiting.pop()?;
        self.known.remove(&set);
        Some(set)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_after_a_number_of_writes_or_some_time() {
        let mut turn = Turn::default();
        turn.begin();
        assert!((0..MAX_WRITES).all(|_| turn.take()) && !turn.is_over());
        assert!(!turn.take() && turn.is_over());
        turn.begin();
        assert!(turn.take());
        tokio::time::sleep(MAX_TIME).await;
        assert!(!turn.take() && turn.is_over());
    }

    #[test]
    fn a_namespace_with_many_statefulsets_waits_for_each_other_one() {
        let mut queue = TurnQueue::default();
        let set = |namespace: &str, n: u32| (namespace.to_owned(), format!("store-{n}"));
        (0..500).for_each(|n| queue.push(set("loud", n)));
        queue.push(set("loud", 7));
        queue.push(set("quiet", 0));
        let first: Vec<SetName> = std::iter::from_fn(|| queue.pop()).take(2).collect();
        assert!(first.contains(&set("quiet", 0)), "{first:?}");
        // A StatefulSet with more to do comes after all others.
        queue.push(set("quiet", 0));
        queue.push(first[0].clone());
        let rest: Vec<SetName> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!((rest.len(), queue.is_empty()), (501, true));
        assert!(rest[..2].contains(&set("quiet", 0)) && rest.last() == Some(&first[0]));
    }
}
