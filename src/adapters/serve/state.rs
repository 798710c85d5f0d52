//! What a connection is doing, seen from its socket and its requests, and by when it must do something else.
//!
//! hyper's own header timeout also runs while a connection waits for its next request, so it would close idle
//! connections after seconds; here the two waits are told apart. Invariant: the deadline follows from the state alone;
//! a request costs three clock reads and no timer operation.
//!
//! Deliberately absent: the timer, which the connection's driver holds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Limits;
use super::stats::Failure;
use crate::core::standing::Standing;

/// No headers are being read, no answer waits.
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
    active_since: AtomicU64,
    served: AtomicBool,
    /// A request was begun since the runtime last gave this connection a turn.
    in_turn: AtomicBool,
    /// A request was answered with success.
    proven: AtomicBool,
    /// When the socket stopped taking bytes, or [`NEVER`].
    blocked_since: AtomicU64,
    /// Answers that are charged to a budget and not written yet; when the last of them began or ended.
    answers: AtomicU32,
    answer_moved: AtomicU64,
    /// When the first byte of the next request's headers came, or [`NEVER`].
    headers_since: AtomicU64,
    idle_since: AtomicU64,
    last_read: AtomicU64,
    /// When the connection was told to finish or close.
    closing_since: AtomicU64,
    /// HTTP/2 frames come without a request, so bytes say nothing about headers there.
    http2: AtomicBool,
    order: AtomicU8,
    /// Its place is needed.
    evicted: AtomicBool,
    task: OnceLock<AbortHandle>,
    /// Wakes the driver when there is a new order.
    pub(super) ordered: Notify,
}

impl Default for State {
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

impl State {
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// The handshake is done.
    pub(super) fn established(&self, http2: bool) {
        self.http2.store(http2, Relaxed);
        self.idle_since.store(self.now(), Relaxed);
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
        self.flushed();
        if self.active.load(Relaxed) == 0 && !self.is_http2() && self.ordered_now() < Order::Finish
        {
            self.idle_since.store(self.now(), Relaxed);
        }
    }

    /// Nothing waits for the peer to read.
    pub(super) fn flushed(&self) {
        if self.blocked_since.load(Relaxed) != NEVER {
            self.blocked_since.store(NEVER, Relaxed);
        }
    }

    /// The socket takes no more bytes: the peer does not read. The driver looks at the deadline after each poll.
    pub(super) fn blocked(&self) {
        if self.blocked_since.load(Relaxed) == NEVER {
            self.blocked_since.store(self.now(), Relaxed);
        }
    }

    /// A charged answer is on its way.
    pub(super) fn answer_begins(&self) {
        if self.answers.fetch_add(1, Relaxed) == 0 {
            self.answer_moved.store(self.now(), Relaxed);
        }
    }

    /// A charged answer was written, or given up.
    pub(super) fn answer_ends(&self) {
        self.answer_moved.store(self.now(), Relaxed);
        self.answers.fetch_sub(1, Relaxed);
    }

    /// A request was answered with success.
    pub(super) fn proven(&self) {
        if !self.proven.load(Relaxed) {
            self.proven.store(true, Relaxed);
        }
    }

    /// Remembers the task, for [`State::cut`].
    pub(super) fn runs_as(&self, task: AbortHandle) {
        let _ = self.task.set(task);
        // It may have been cut before its task was known.
        if self.evicted.load(Relaxed) && self.ordered_now() < Order::Close {
            self.cut();
        }
    }

    /// Ends the connection at once, since what it holds is needed.
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

    /// Whether it ended, or is to end, since its place is needed.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// A request's headers are complete; the request lasts until the guard is dropped.
    pub(super) fn begin(&self) -> Active<'_> {
        self.headers_since.store(NEVER, Relaxed);
        if self.active.fetch_add(1, Relaxed) == 0 {
            self.active_since.store(self.now(), Relaxed);
        }
        self.served.store(true, Relaxed);
        if self.ordered_now() >= Order::Drain {
            // It may say goodbye now; see `may_say_goodbye`.
            self.ordered.notify_one();
        }
        Active(self)
    }

    /// The runtime gives the connection a turn.
    pub(super) fn new_turn(&self) {
        self.in_turn.store(false, Relaxed);
    }

    /// Whether a request was begun in this turn already. HTTP/2's requests are tasks of their own, with turns of their own.
    pub(super) fn has_had_its_turn(&self) -> bool {
        !self.is_http2() && self.in_turn.swap(true, Relaxed)
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

    /// What the connection is doing, in milliseconds since `epoch`; `None` if it was told to close already.
    pub(super) fn standing(&self, epoch: Instant) -> Option<Standing> {
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
            (false, None) => Standing::Unproven { since_ms: idle },
            (false, Some(since_ms)) => Standing::First { since_ms },
            (true, None) => Standing::Idle { since_ms: idle },
            (true, Some(since_ms)) => Standing::Busy { since_ms },
        })
    }

    /// By when something must have happened, and what is done otherwise.
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
            Some(unread) if unread < due.0 => (unread, Due::Cut(Failure::Unread)),
            _ => due,
        }
    }

    fn deadline_of_requests(&self, limits: &Limits) -> (Instant, Due) {
        let headers_since = self.headers_since.load(Relaxed);
        if self.active.load(Relaxed) > 0 {
            let since = self.time(self.last_read.load(Relaxed));
            (since + limits.stalled, Due::Cut(Failure::Stalled))
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
                Due::Cut(Failure::HeaderTimeout),
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
pub(super) struct Active<'a>(&'a State);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        if self.0.active.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.store(self.0.now(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
