//! Bytes or turns that the requests of all connections share: `core::fairness::shares`, with
//! waiting and with the connection to cut.
//!
//! Invariants: dropping a [`BudgetClaim`] frees its amount, wherever that happens; a waiting claim
//! presses those that hold more, so no claim waits longer than a turn for a peer that does nothing.
//! Deliberately absent: limits in time, which the caller sets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::state::ConnectionState;
use crate::adapters::lock::lock;
use crate::core::fairness::peer::Peer;
use crate::core::fairness::shares::Shares;

/// How often a waiting claim checks whether a holder has had its turn.
const PRESS_EVERY: Duration = Duration::from_millis(50);

/// A request's connection; in the request's extensions.
#[derive(Clone, Debug)]
pub struct Connection {
    pub peer: Peer,
    state: Option<Arc<ConnectionState>>,
}

impl Connection {
    /// For requests without a connection, such as those of tests.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            peer: Peer::UNKNOWN,
            state: None,
        }
    }

    pub(super) fn new(peer: Peer, state: Arc<ConnectionState>) -> Self {
        Self {
            peer,
            state: Some(state),
        }
    }

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

/// A limited amount, its holders and the waiting claims.
#[derive(Debug)]
pub struct FairBudget {
    opened: Instant,
    shared: Mutex<BudgetState>,
}

#[derive(Debug)]
struct BudgetState {
    shares: Shares<Peer>,
    holders: HashMap<u64, BudgetHolder>,
}

#[derive(Debug)]
struct BudgetHolder {
    connection: Connection,
    granted: Option<Arc<Notify>>,
}

impl FairBudget {
    /// Takes the total, the limit of one peer, and how long a holder keeps what was granted.
    #[must_use]
    pub fn new(max: usize, max_of_peer: usize, turn: Duration) -> Arc<Self> {
        let turn_ms = u64::try_from(turn.as_millis()).unwrap_or(u64::MAX);
        let shared = BudgetState {
            shares: Shares::new(max, max_of_peer, turn_ms),
            holders: HashMap::new(),
        };
        Arc::new(Self {
            opened: Instant::now(),
            shared: Mutex::new(shared),
        })
    }

    /// Waits for an amount. Dropping the future withdraws the claim.
    pub async fn claim(self: &Arc<Self>, connection: &Connection, amount: usize) -> BudgetClaim {
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
    ) -> (BudgetClaim, Option<Arc<Notify>>) {
        let now = self.now();
        let mut shared = lock(&self.shared);
        let number = shared.shares.claim(connection.peer, amount, now);
        let granted = (!shared.shares.is_granted(number)).then(Arc::<Notify>::default);
        shared.holders.insert(
            number,
            BudgetHolder {
                connection: connection.clone(),
                granted: granted.clone(),
            },
        );
        (
            BudgetClaim {
                budget: Arc::clone(self),
                number,
                answering: None,
            },
            granted,
        )
    }

    /// Cuts the connections in the way; returns whether the claim is granted.
    fn press(&self, number: u64) -> bool {
        let now = self.now();
        let mut shared = lock(&self.shared);
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
}

impl BudgetState {
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

/// An amount held or awaited until this is dropped.
#[derive(Debug)]
pub struct BudgetClaim {
    budget: Arc<FairBudget>,
    number: u64,
    answering: Option<Arc<ConnectionState>>,
}

impl BudgetClaim {
    /// Protects the claim from eviction while its request is being decided.
    pub fn keep(&self) {
        lock(&self.budget.shared).shares.keep(self.number);
    }

    /// Returns an answer's bytes. The claim shrinks or grows to their size, and ends when the last
    /// of them is written or dropped.
    #[must_use]
    pub fn answer(self, answer: Vec<u8>) -> Bytes {
        self.resize(answer.len());
        self.carry(answer)
    }

    /// As [`BudgetClaim::answer`], for a claim that is not a number of bytes: its amount stays.
    #[must_use]
    pub fn carry(mut self, answer: Vec<u8>) -> Bytes {
        let state = lock(&self.budget.shared)
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
        let mut shared = lock(&self.budget.shared);
        let granted = shared.shares.replace(self.number, amount, now);
        shared.wake(&granted);
    }
}

impl Drop for BudgetClaim {
    fn drop(&mut self) {
        if let Some(state) = &self.answering {
            state.answer_ends();
        }
        let now = self.budget.now();
        let mut shared = lock(&self.budget.shared);
        shared.holders.remove(&self.number);
        let granted = shared.shares.close(self.number, now);
        shared.wake(&granted);
    }
}

/// An answer and its claim.
struct Charged {
    answer: Vec<u8>,
    _claim: BudgetClaim,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}
