//! Every open connection, so that the accept loop can speak to all of them or to the one idle longest.
//!
//! Invariant: a connection is here exactly as long as its [`Entry`] lives. Looked at when a connection opens or closes,
//! at the cap, and at the drain; never per request.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::{Order, State};
use super::stats::{Failure, ServeStats};

#[derive(Debug)]
pub(super) struct Registry {
    stats: Arc<ServeStats>,
    shared: Arc<Mutex<Connections>>,
}

#[derive(Debug, Default)]
struct Connections {
    open: HashMap<u64, Arc<State>>,
    next_id: u64,
    /// What connections that come later are told at once.
    order: Order,
}

impl Registry {
    pub(super) fn new(stats: Arc<ServeStats>) -> Self {
        Self {
            stats,
            shared: Arc::default(),
        }
    }

    /// Takes in a new connection until its entry is dropped.
    pub(super) fn register(&self) -> Entry {
        let mut connections = lock(&self.shared);
        let state = Arc::new(State::default());
        state.order(connections.order);
        let id = connections.next_id;
        connections.next_id += 1;
        connections.open.insert(id, Arc::clone(&state));
        self.stats.opened();
        Entry {
            id,
            state,
            stats: Arc::clone(&self.stats),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Tells every connection, also later ones, that its next answer is its last.
    pub(super) fn drain(&self) {
        self.tell(Order::Drain);
    }

    /// Tells every connection, also later ones, to close once it has answered what is on its way.
    pub(super) fn finish(&self) {
        self.tell(Order::Finish);
    }

    fn tell(&self, order: Order) {
        let mut connections = lock(&self.shared);
        connections.order = order;
        for state in connections.open.values() {
            state.order(order);
        }
    }

    /// Closes one connection that has no request under way: the one idle longest, those that never sent one first.
    pub(super) fn close_longest_idle(&self) {
        let connections = lock(&self.shared);
        let victim = connections
            .open
            .values()
            .filter_map(|state| Some((state.idle_rank()?, state)))
            .min_by_key(|(rank, _)| *rank);
        if let Some((_, state)) = victim {
            state.order(Order::Close);
            self.stats.failed(Failure::Evicted);
        }
    }
}

/// One connection's place in the registry.
#[derive(Debug)]
pub(super) struct Entry {
    id: u64,
    state: Arc<State>,
    stats: Arc<ServeStats>,
    shared: Arc<Mutex<Connections>>,
}

impl Entry {
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(super) fn failed(&self, failure: Failure) {
        self.stats.failed(failure);
    }
}

impl Deref for Entry {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.shared).open.remove(&self.id);
        self.stats.closed();
    }
}

/// The map is consistent after every statement, so a panic elsewhere does not spoil it.
fn lock(shared: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
