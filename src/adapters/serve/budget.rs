//! Bytes or turns that the requests of all connections share: `core::shares` with waiting, and with the connection to cut.
//!
//! Invariants: what a [`Claim`] holds is free again when it is dropped, wherever that happens; a claim that waits presses those
//! that hold more, so nobody waits longer than a turn for a peer that does nothing. Deliberately absent: limits in time, which the
//! caller sets around the wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::state::State;
use crate::core::peer::Peer;
use crate::core::shares::Shares;

/// How often a claim that waits looks whether somebody has had a turn.
const PRESS_EVERY: Duration = Duration::from_millis(50);

/// The connection that a request came on; in the request's extensions.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who sent it.
    pub peer: Peer,
    state: Option<Arc<State>>,
}

impl Connection {
    /// For requests that came on none, such as those of tests.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            peer: Peer::UNKNOWN,
            state: None,
        }
    }

    pub(super) fn new(peer: Peer, state: Arc<State>) -> Self {
        Self {
            peer,
            state: Some(state),
        }
    }

    /// The connection of a request.
    #[must_use]
    pub fn of<B>(request: &hyper::Request<B>) -> Self {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .unwrap_or(Self::none())
    }

    fn cut(&self) {
        if let Some(state) = &self.state {
            state.cut();
        }
    }
}

/// A limited amount, and who holds and wants how much of it.
#[derive(Debug)]
pub struct Budget {
    opened: Instant,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    shares: Shares<Peer>,
    holders: HashMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    connection: Connection,
    granted: Option<Arc<Notify>>,
}

impl Budget {
    /// An amount, the most of it for one peer, and for how long nobody has to give up what was granted.
    #[must_use]
    pub fn new(most: usize, most_of_peer: usize, turn: Duration) -> Arc<Self> {
        let turn_ms = u64::try_from(turn.as_millis()).unwrap_or(u64::MAX);
        let shared = Shared {
            shares: Shares::new(most, most_of_peer, turn_ms),
            holders: HashMap::new(),
        };
        Arc::new(Self {
            opened: Instant::now(),
            shared: Mutex::new(shared),
        })
    }

    /// Waits for an amount. Dropping the future gives the claim up.
    pub async fn claim(self: &Arc<Self>, connection: &Connection, amount: usize) -> Claim {
        let (claim, granted) = self.open(connection, amount);
        if let Some(granted) = granted {
            while !self.press(claim.number) {
                let _ = timeout(PRESS_EVERY, granted.notified()).await;
            }
        }
        claim
    }

    fn open(
        self: &Arc<Self>,
        connection: &Connection,
        amount: usize,
    ) -> (Claim, Option<Arc<Notify>>) {
        let now = self.now();
        let mut shared = self.lock();
        let number = shared.shares.claim(connection.peer, amount, now);
        let granted = (!shared.shares.is_granted(number)).then(Arc::<Notify>::default);
        shared.holders.insert(
            number,
            Holder {
                connection: connection.clone(),
                granted: granted.clone(),
            },
        );
        (
            Claim {
                budget: Arc::clone(self),
                number,
                answering: None,
            },
            granted,
        )
    }

    /// Whether the claim is granted now; cuts what is in its way.
    fn press(&self, number: u64) -> bool {
        let now = self.now();
        let mut shared = self.lock();
        while let Some(victim) = shared.shares.in_the_way(number, now) {
            if let Some(holder) = shared.holders.get(&victim) {
                holder.connection.cut();
            }
        }
        shared.shares.is_granted(number)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What is shared is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn wake(&self, granted: &[u64]) {
        for number in granted {
            if let Some(notify) = self
                .holders
                .get(number)
                .and_then(|holder| holder.granted.as_ref())
            {
                notify.notify_one();
            }
        }
    }
}

/// An amount that is held, or waited for, until this is dropped.
#[derive(Debug)]
pub struct Claim {
    budget: Arc<Budget>,
    number: u64,
    answering: Option<Arc<State>>,
}

impl Claim {
    /// Keeps the claim from being given up while its request is being decided.
    pub fn keep(&self) {
        self.budget.lock().shares.keep(self.number);
    }

    /// An answer's bytes, which hold the claim in their own size until the last of them is written or dropped.
    #[must_use]
    pub fn answer(self, answer: Vec<u8>) -> Bytes {
        self.resize(answer.len());
        self.carry(answer)
    }

    /// The same, where a claim is no number of bytes: it stays as large as it is.
    #[must_use]
    pub fn carry(mut self, answer: Vec<u8>) -> Bytes {
        let state = self
            .budget
            .lock()
            .holders
            .get(&self.number)
            .and_then(|holder| holder.connection.state.clone());
        if let Some(state) = &state {
            state.answer_begins();
        }
        self.answering = state;
        Bytes::from_owner(Charged {
            answer,
            _claim: self,
        })
    }

    fn resize(&self, amount: usize) {
        let now = self.budget.now();
        let mut shared = self.budget.lock();
        let granted = shared.shares.replace(self.number, amount, now);
        shared.wake(&granted);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(state) = &self.answering {
            state.answer_ends();
        }
        let now = self.budget.now();
        let mut shared = self.budget.lock();
        shared.holders.remove(&self.number);
        let granted = shared.shares.close(self.number, now);
        shared.wake(&granted);
    }
}

/// An answer and what it is charged to.
struct Charged {
    answer: Vec<u8>,
    _claim: Claim,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}
