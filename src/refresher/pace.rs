//! How fast the refresher may ask the API server: all requests take turns, in the order in which they came.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Requests in any one second. A rollout may cause 10 in all: the Lease and the Events are beside these, and what leaves in one
/// second may arrive a little closer together.
pub(super) const MOST_REQUESTS: usize = 6;
/// What [`MOST_REQUESTS`] counts in.
const WINDOW: Duration = Duration::from_secs(1);

/// Lets requests go, [`MOST_REQUESTS`] a second.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the last ones went. tokio's lock is fair, and whoever waits for time keeps it.
    recent: Mutex<VecDeque<Instant>>,
}

impl Pace {
    /// Waits until one more request may go.
    pub(super) async fn turn(&self) {
        let mut recent = self.recent.lock().await;
        if recent.len() >= MOST_REQUESTS
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
    async fn no_second_has_more_requests_than_allowed_and_nobody_is_overtaken() {
        let (pace, begun) = (Arc::new(Pace::default()), Instant::now());
        let asked = (0..50).map(|i| {
            let pace = pace.clone();
            async move {
                pace.turn().await;
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
            went.windows(MOST_REQUESTS + 1)
                .all(|some| some[MOST_REQUESTS].1 >= some[0].1 + WINDOW),
            "{went:?}"
        );
        assert_eq!(went[49].1, WINDOW * 8, "and it is not slower than that");
    }
}
