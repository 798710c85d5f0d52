//! What a connection is doing, as seen from its socket and its requests, and its current deadline.
//!
//! hyper's own header timeout also runs while a connection waits for its next request, so it would
//! close idle connections after seconds; here these two waits differ. Invariant: the deadline
//! follows from the state alone; a request costs three clock reads and no timer operation.
//!
//! Deliberately absent: the timer, which the connection's driver holds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Limits;
use super::stats::ConnectionFailure;
use crate::core::fairness::connections::Activity;

/// No headers are being read, no answer waits.
const NEVER: u64 = u64::MAX;

/// What the accept loop asks of a connection. Later orders include the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Order {
    #[default]
    Serve,
    /// Mark the next answer as the last one.
    Drain,
    /// Also close if nothing is under way. A connection that has sent no request yet may still send
    /// one.
    Finish,
    /// Close as soon as nothing is under way.
    Close,
}

/// What happens at the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing was under way for too long: close gracefully.
    Idle,
    /// Closing gracefully took too long: drop the socket.
    Closed,
    /// The peer keeps the server waiting inside a request: cut off.
    Cut(ConnectionFailure),
}

/// Shared by the driver, the socket, the service and the registry of one connection. Times are
/// milliseconds since `opened`.
#[derive(Debug)]
pub(super) struct ConnectionState {
    opened: Instant,
    active: AtomicU32,
    active_since: AtomicU64,
    served: AtomicBool,
    /// A request began since the runtime last gave this connection a turn.
    in_turn: AtomicBool,
    /// A request was answered with success.
    proven: AtomicBool,
    /// When the socket stopped taking bytes, or [`NEVER`].
    blocked_since: AtomicU64,
    /// Answers charged to a budget and not written yet, and when the last of them began or ended.
    answers: AtomicU32,
    answer_moved: AtomicU64,
    /// When the first byte of the next request's headers came, or [`NEVER`].
    headers_since: AtomicU64,
    idle_since: AtomicU64,
    last_read: AtomicU64,
    /// When the connection was ordered to finish or close.
    closing_since: AtomicU64,
    /// HTTP/2 frames come without a request, so bytes say nothing about headers there.
    http2: AtomicBool,
    order: AtomicU8,
    /// The place is needed.
    evicted: AtomicBool,
    task: OnceLock<AbortHandle>,
    /// Wakes the driver for a new order.
    pub(super) ordered: Notify,
}

impl Default for ConnectionState {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            active: AtomicU32::new(0),
            active_since: AtomicU64::new(0),
            served: AtomicBool::new(false),
            in_turn: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            blocked_since: AtomicU64::new(NEVER),
            answers: AtomicU32::new(0),
            answer_moved: AtomicU64::new(0),
            headers_since: AtomicU64::new(NEVER),
            idle_since: AtomicU64::new(0),
            last_read: AtomicU64::new(0),
            closing_since: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            order: AtomicU8::new(Order::Serve as u8),
            evicted: AtomicBool::new(false),
            task: OnceLock::new(),
            ordered: Notify::new(),
        }
    }
}

impl ConnectionState {
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// Notes the end of the handshake.
    pub(super) fn established(&self, http2: bool) {
        self.http2.store(http2, Relaxed);
        self.idle_since.store(self.now(), Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// Notes incoming bytes.
    pub(super) fn read(&self) {
        let now = self.now();
        self.last_read.store(now, Relaxed);
        let between_requests = self.active.load(Relaxed) == 0 && !self.is_http2();
        if between_requests && self.headers_since.load(Relaxed) == NEVER {
            self.headers_since.store(now, Relaxed);
        }
    }

    /// Notes outgoing bytes. A long answer, such as a stream of events, keeps its connection from
    /// being idle while the peer takes it. HTTP/2 also writes for reasons of its own.
    pub(super) fn wrote(&self) {
        self.flushed();
        if self.active.load(Relaxed) == 0 && !self.is_http2() && self.ordered_now() < Order::Finish
        {
            self.idle_since.store(self.now(), Relaxed);
        }
    }

    /// Notes that nothing waits for the peer to read.
    pub(super) fn flushed(&self) {
        if self.blocked_since.load(Relaxed) != NEVER {
            self.blocked_since.store(NEVER, Relaxed);
        }
    }

    /// Notes that the socket takes no more bytes: the peer does not read. The driver checks the
    /// deadline after each poll.
    pub(super) fn blocked(&self) {
        if self.blocked_since.load(Relaxed) == NEVER {
            self.blocked_since.store(self.now(), Relaxed);
        }
    }

    /// Notes that a charged answer is on its way.
    pub(super) fn answer_begins(&self) {
        if self.answers.fetch_add(1, Relaxed) == 0 {
            self.answer_moved.store(self.now(), Relaxed);
        }
    }

    /// Notes that a charged answer was written or dropped.
    pub(super) fn answer_ends(&self) {
        self.answer_moved.store(self.now(), Relaxed);
        self.answers.fetch_sub(1, Relaxed);
    }

    pub(super) fn proven(&self) {
        if !self.proven.load(Relaxed) {
            self.proven.store(true, Relaxed);
        }
    }

    /// Sets the task for [`ConnectionState::cut`].
    pub(super) fn runs_as(&self, task: AbortHandle) {
        let _ = self.task.set(task);
        // The connection may have been cut before its task was known.
        if self.evicted.load(Relaxed) && self.ordered_now() < Order::Close {
            self.cut();
        }
    }

    /// Ends the connection immediately, to free what it holds.
    pub(super) fn cut(&self) {
        self.evicted.store(true, Relaxed);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Asks the connection to close, since its place is needed.
    pub(super) fn make_room(&self) {
        self.evicted.store(true, Relaxed);
        self.order(Order::Close);
    }

    /// Returns whether the connection ends because its place is needed.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// Notes complete request headers; the request lasts until the guard is dropped.
    pub(super) fn begin(&self) -> Active<'_> {
        self.headers_since.store(NEVER, Relaxed);
        if self.active.fetch_add(1, Relaxed) == 0 {
            self.active_since.store(self.now(), Relaxed);
        }
        self.served.store(true, Relaxed);
        if self.ordered_now() >= Order::Drain {
            // Hyper may shut the connection down now; see `may_shut_down`.
            self.ordered.notify_one();
        }
        Active(self)
    }

    /// Notes that the runtime gives the connection a turn.
    pub(super) fn new_turn(&self) {
        self.in_turn.store(false, Relaxed);
    }

    /// Returns whether a request began in this turn already. HTTP/2's requests are tasks with turns
    /// of their own.
    pub(super) fn has_had_its_turn(&self) -> bool {
        !self.is_http2() && self.in_turn.swap(true, Relaxed)
    }

    /// Gives an order; the driver sees it at its next poll.
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

    /// Returns whether hyper may shut the connection down without losing a request that is on its
    /// way.
    ///
    /// In a drain HTTP/2 says so immediately (GOAWAY leaves later requests to another connection),
    /// but not before the first request, which would fail. HTTP/1 has only the `Connection: close`
    /// of the next answer.
    pub(super) fn may_shut_down(&self) -> bool {
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

    /// Returns what the connection is doing, in milliseconds since `epoch`; `None` if it was
    /// already ordered to close.
    pub(super) fn activity(&self, epoch: Instant) -> Option<Activity> {
        if self.is_evicted() || self.ordered_now() >= Order::Close {
            return None;
        }
        let ms = |since| {
            u64::try_from(
                self.time(since)
                    .saturating_duration_since(epoch)
                    .as_millis(),
            )
            .unwrap_or(NEVER)
        };
        let proven = self.proven.load(Relaxed);
        let under_way = [
            Some(self.active_since.load(Relaxed)).filter(|_| self.active.load(Relaxed) > 0),
            Some(self.headers_since.load(Relaxed)).filter(|since| *since != NEVER && proven),
            Some(self.blocked_since.load(Relaxed)).filter(|since| *since != NEVER),
        ];
        let since = under_way.into_iter().flatten().min().map(ms);
        let idle = ms(self.idle_since.load(Relaxed));
        Some(match (proven, since) {
            (false, None) => Activity::Unproven { since_ms: idle },
            (false, Some(since_ms)) => Activity::First { since_ms },
            (true, None) => Activity::Idle { since_ms: idle },
            (true, Some(since_ms)) => Activity::Busy { since_ms },
        })
    }

    /// Returns the deadline and what happens then.
    pub(super) fn deadline(&self, limits: &Limits) -> (Instant, Due) {
        let due = self.deadline_of_requests(limits);
        let unread = [
            Some(self.blocked_since.load(Relaxed))
                .filter(|since| *since != NEVER)
                .map(|since| (since, limits.unread)),
            Some(self.answer_moved.load(Relaxed))
                .filter(|_| self.answers.load(Relaxed) > 0)
                .map(|since| (since, limits.answer)),
        ];
        let unread = unread
            .into_iter()
            .flatten()
            .map(|(since, limit)| self.time(since) + limit)
            .min();
        match unread {
            Some(unread) if unread < due.0 => (unread, Due::Cut(ConnectionFailure::Unread)),
            _ => due,
        }
    }

    fn deadline_of_requests(&self, limits: &Limits) -> (Instant, Due) {
        let headers_since = self.headers_since.load(Relaxed);
        if self.active.load(Relaxed) > 0 {
            let since = self.time(self.last_read.load(Relaxed));
            (since + limits.stalled, Due::Cut(ConnectionFailure::Stalled))
        } else if self.ordered_now() >= Order::Finish {
            let since = self
                .closing_since
                .load(Relaxed)
                .max(self.idle_since.load(Relaxed));
            let limit = if self.is_evicted() {
                limits.evict
            } else {
                limits.close
            };
            (self.time(since) + limit, Due::Closed)
        } else if headers_since != NEVER {
            (
                self.time(headers_since) + limits.header_read,
                Due::Cut(ConnectionFailure::HeaderTimeout),
            )
        } else {
            (
                self.time(self.idle_since.load(Relaxed)) + limits.idle,
                Due::Idle,
            )
        }
    }

    fn time(&self, since_opened: u64) -> Instant {
        self.opened + Duration::from_millis(since_opened)
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Active<'a>(&'a ConnectionState);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.store(self.0.now(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
