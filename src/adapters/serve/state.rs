//! What a connection is doing, seen from its socket and its requests, and by when it must do something else.
//!
//! hyper's own header timeout also runs while a connection waits for its next request, so it would close idle
//! connections after seconds; here the two waits are told apart. Invariant: the deadline follows from the state alone;
//! a request costs three clock reads and no timer operation.
//!
//! Deliberately absent: the timer, which the connection's driver holds.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;
use super::stats::Failure;

/// No headers are being read.
const NEVER: u64 = u64::MAX;

/// What the accept loop asks of a connection. Later ones include the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Order {
    #[default]
    Serve,
    /// Say with the next answer that it is the last one.
    Drain,
    /// The same, and close if nothing is under way. A connection that has sent no request yet may still send one.
    Finish,
    /// Close as soon as nothing is under way.
    Close,
}

/// What ends when the deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing under way for too long: close in the ordinary way.
    Idle,
    /// The ordinary way took too long: drop the socket.
    Closed,
    /// The peer keeps us waiting inside a request: cut off.
    Cut(Failure),
}

/// Shared by the driver, the socket, the service and the registry of one connection. Times are milliseconds since
/// `opened`.
#[derive(Debug)]
pub(super) struct State {
    opened: Instant,
    /// Requests under way.
    active: AtomicU32,
    served: AtomicBool,
    /// When the first byte of the next request's headers came, or [`NEVER`].
    headers_since: AtomicU64,
    idle_since: AtomicU64,
    last_read: AtomicU64,
    /// When the connection was told to finish or close.
    closing_since: AtomicU64,
    /// HTTP/2 frames come without a request, so bytes say nothing about headers there.
    http2: AtomicBool,
    /// Handshakes are not to be closed from outside: they have a limit of their own.
    established: AtomicBool,
    order: AtomicU8,
    /// Wakes the driver when there is a new order.
    pub(super) ordered: Notify,
}

impl Default for State {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            active: AtomicU32::new(0),
            served: AtomicBool::new(false),
            headers_since: AtomicU64::new(NEVER),
            idle_since: AtomicU64::new(0),
            last_read: AtomicU64::new(0),
            closing_since: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            established: AtomicBool::new(false),
            order: AtomicU8::new(Order::Serve as u8),
            ordered: Notify::new(),
        }
    }
}

impl State {
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// The handshake is done.
    pub(super) fn established(&self, http2: bool) {
        self.http2.store(http2, Relaxed);
        self.idle_since.store(self.now(), Relaxed);
        self.established.store(true, Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// Bytes came in.
    pub(super) fn read(&self) {
        let now = self.now();
        self.last_read.store(now, Relaxed);
        let between_requests = self.active.load(Relaxed) == 0 && !self.is_http2();
        if between_requests && self.headers_since.load(Relaxed) == NEVER {
            self.headers_since.store(now, Relaxed);
        }
    }

    /// Bytes went out. An answer that is still on its way, such as a stream of events, keeps its connection from being idle
    /// for as long as the peer takes it. HTTP/2 writes for reasons of its own.
    pub(super) fn wrote(&self) {
        if self.active.load(Relaxed) == 0 && !self.is_http2() && self.ordered_now() < Order::Finish {
            self.idle_since.store(self.now(), Relaxed);
        }
    }

    /// A request's headers are complete; the request lasts until the guard is dropped.
    pub(super) fn begin(&self) -> Active<'_> {
        self.headers_since.store(NEVER, Relaxed);
        self.active.fetch_add(1, Relaxed);
        self.served.store(true, Relaxed);
        if self.ordered_now() >= Order::Drain {
            // It may say goodbye now; see `may_say_goodbye`.
            self.ordered.notify_one();
        }
        Active(self)
    }

    /// Asks for something; the driver sees it at its next poll.
    pub(super) fn order(&self, order: Order) {
        if order == Order::Serve {
            return;
        }
        if order >= Order::Finish && self.ordered_now() < Order::Finish {
            self.closing_since.store(self.now(), Relaxed);
        }
        self.order.fetch_max(order as u8, Relaxed);
        self.ordered.notify_one();
    }

    /// Whether hyper may be told to shut the connection down: a request that is on its way must not be lost.
    ///
    /// In a drain HTTP/2 says so at once (GOAWAY leaves later requests to another connection), but not before the first
    /// request, which would fail. HTTP/1 has only the `Connection: close` of the next answer.
    pub(super) fn may_say_goodbye(&self) -> bool {
        let served = self.served.load(Relaxed);
        match self.ordered_now() {
            Order::Serve => false,
            Order::Drain => served && self.is_http2(),
            Order::Finish => served && self.headers_since.load(Relaxed) == NEVER,
            Order::Close => true,
        }
    }

    pub(super) fn ordered_now(&self) -> Order {
        match self.order.load(Relaxed) {
            0 => Order::Serve,
            1 => Order::Drain,
            2 => Order::Finish,
            _ => Order::Close,
        }
    }

    /// How good a candidate for closing this is, smallest first; `None` if it must not be closed.
    pub(super) fn idle_rank(&self) -> Option<(bool, Instant)> {
        let idle = self.established.load(Relaxed) && self.active.load(Relaxed) == 0 && self.ordered_now() < Order::Close;
        idle.then(|| (self.served.load(Relaxed), self.time(self.idle_since.load(Relaxed))))
    }

    /// By when something must have happened, and what is done otherwise.
    pub(super) fn deadline(&self, limits: &Limits) -> (Instant, Due) {
        let headers_since = self.headers_since.load(Relaxed);
        if self.active.load(Relaxed) > 0 {
            let since = self.time(self.last_read.load(Relaxed));
            (since + limits.stalled, Due::Cut(Failure::Stalled))
        } else if self.ordered_now() >= Order::Finish {
            let since = self.closing_since.load(Relaxed).max(self.idle_since.load(Relaxed));
            (self.time(since) + limits.close, Due::Closed)
        } else if headers_since != NEVER {
            (self.time(headers_since) + limits.header_read, Due::Cut(Failure::HeaderTimeout))
        } else {
            (self.time(self.idle_since.load(Relaxed)) + limits.idle, Due::Idle)
        }
    }

    fn time(&self, since_opened: u64) -> Instant {
        self.opened + Duration::from_millis(since_opened)
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Active<'a>(&'a State);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.store(self.0.now(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_follows_what_the_connection_does() {
        let limits = Limits::default();
        let state = State::default();
        let start = Instant::now();
        state.established(false);
        assert_eq!(state.deadline(&limits), (start + limits.idle, Due::Idle));

        tokio::time::advance(Duration::from_secs(100)).await;
        state.read();
        tokio::time::advance(Duration::from_secs(1)).await;
        state.read();
        let headers_due = start + Duration::from_secs(100) + limits.header_read;
        assert_eq!(state.deadline(&limits), (headers_due, Due::Cut(Failure::HeaderTimeout)), "drip-fed headers do not move it");

        let request = state.begin();
        tokio::time::advance(Duration::from_secs(2)).await;
        state.read();
        let stalled = Instant::now() + limits.stalled;
        assert_eq!(state.deadline(&limits), (stalled, Due::Cut(Failure::Stalled)), "body bytes move it");

        tokio::time::advance(Duration::from_secs(3)).await;
        drop(request);
        assert_eq!(state.deadline(&limits), (Instant::now() + limits.idle, Due::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_keeps_the_connection() {
        let limits = Limits::default();
        let state = State::default();
        let start = Instant::now();
        state.established(false);
        drop(state.begin());
        tokio::time::advance(Duration::from_secs(100)).await;
        state.wrote();
        assert_eq!(state.deadline(&limits), (start + Duration::from_secs(100) + limits.idle, Due::Idle));
        state.order(Order::Finish);
        tokio::time::advance(Duration::from_secs(1)).await;
        state.wrote();
        assert_eq!(state.deadline(&limits), (start + Duration::from_secs(100) + limits.close, Due::Closed), "not beyond the end");
    }

    #[tokio::test(start_paused = true)]
    async fn http2_frames_are_not_headers() {
        let limits = Limits::default();
        let state = State::default();
        state.established(true);
        state.read();
        assert_eq!(state.deadline(&limits).1, Due::Idle);
    }

    #[test]
    fn who_never_sent_a_request_is_closed_first() {
        let (talkative, silent) = (State::default(), State::default());
        assert_eq!(silent.idle_rank(), None, "a handshake under way has its own limit");
        talkative.established(false);
        silent.established(false);
        let request = talkative.begin();
        assert_eq!(talkative.idle_rank(), None);
        drop(request);
        assert!(silent.idle_rank() < talkative.idle_rank());
        silent.order(Order::Close);
        assert_eq!(silent.idle_rank(), None, "told once is enough");
    }
}
