//! Limits the leader's requests to the API server: all take turns, first come, first served.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Requests in any one second. A rollout may cause 10 in all: Lease and Events are not counted here,
/// and requests may arrive closer together than they were sent.
const MAX_REQUESTS: usize = 6;
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct RateLimit {
    /// When the last ones were sent. tokio's lock is fair, and the task that waits for time keeps it.
    recent: Mutex<VecDeque<Instant>>,
}

impl RateLimit {
    /// Waits until one more request may be sent.
    pub(super) async fn turn(&self) {
        let mut recent = self.recent.lock().await;
        if recent.len() >= MAX_REQUESTS
            && let Some(oldest) = recent.front().copied()
        {
            sleep_until(oldest + WINDOW).await;
            recent.pop_front();
        }
        recent.push_back(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_requests_than_allowed_and_they_keep_their_order() {
        let (limit, begun) = (Arc::new(RateLimit::default()), Instant::now());
        let asked = (0..50).map(|i| {
            let limit = limit.clone();
            async move {
                limit.turn().await;
                (i, begun.elapsed())
            }
        });
        let went = Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = asked.map(|turn| async {
            let turn = turn.await;
            went.lock().unwrap().push(turn);
        });
        futures::future::join_all(note).await;
        let went = went.lock().unwrap();
        assert!(went.iter().map(|(i, _)| *i).eq(0..50), "{went:?}");
        assert!(
            went.windows(MAX_REQUESTS + 1)
                .all(|some| some[MAX_REQUESTS].1 >= some[0].1 + WINDOW),
            "{went:?}"
        );
        assert_eq!(went[49].1, WINDOW * 8, "and it is not slower than that");
    }
}
