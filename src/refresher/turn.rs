//! One turn of a StatefulSet: how much of the API server it may use before others have theirs.
//!
//! All requests take turns at six a second (`pace`), so whoever needs thousands would have everybody wait for minutes. A turn ends
//! after so many writes or so much time; what is left is done in the next one, after a turn of each other namespace that waits.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::seen::SetName;
use crate::core::fair_queue::FairQueue;

/// Writes of one turn: the budgets of a dozen shards, or a step with its pods.
pub(super) const MAX_WRITES: u32 = 16;
/// No write begins later in a turn than this.
const MAX_TIME: Duration = Duration::from_secs(5);

/// What is left of a turn. It is counted through a shared reference: what is written is borrowed meanwhile.
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

    /// Whether one more write may begin; once it may not, the turn is over.
    pub(super) fn take(&self) -> bool {
        let late = self.began.is_some_and(|began| began.elapsed() >= MAX_TIME);
        if late || self.writes.fetch_add(1, Relaxed) >= MAX_WRITES {
            self.over.store(true, Relaxed);
        }
        !self.is_over()
    }

    /// Whether something was left for the next one.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }
}

/// Who waits for a turn: namespaces alternate, and within one it is first come, first served.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: FairQueue<String, SetName>,
    known: BTreeSet<SetName>,
}

impl Default for Queue {
    fn default() -> Self {
        // Each StatefulSet is in it once, and how many are known is bounded.
        Self {
            waiting: FairQueue::new(usize::MAX, usize::MAX),
            known: BTreeSet::new(),
        }
    }
}

impl Queue {
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
    async fn a_turn_ends_after_so_many_writes_or_so_long() {
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
    fn a_namespace_with_many_waits_for_each_other_one() {
        let mut queue = Queue::default();
        let set = |namespace: &str, n: u32| (namespace.to_owned(), format!("store-{n}"));
        (0..500).for_each(|n| queue.push(set("loud", n)));
        queue.push(set("loud", 7));
        queue.push(set("quiet", 0));
        let first: Vec<SetName> = std::iter::from_fn(|| queue.pop()).take(2).collect();
        assert!(first.contains(&set("quiet", 0)), "{first:?}");
        // One that has more to do comes after everybody else.
        queue.push(set("quiet", 0));
        queue.push(first[0].clone());
        let rest: Vec<SetName> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!((rest.len(), queue.is_empty()), (501, true));
        assert!(rest[..2].contains(&set("quiet", 0)) && rest.last() == Some(&first[0]));
    }
}
