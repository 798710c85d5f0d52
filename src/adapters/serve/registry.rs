//! Every open connection, so that the accept loop can speak to all of them, and which of them holds a place.
//!
//! Invariants: a connection is here exactly as long as its [`Entry`] lives. It first *arrives*: connections whose handshake is not
//! done, and plain ones without a byte, have places of their own, of which a newcomer always gets one, so that no number of them
//! touches what is established. Then it *settles* into a place of its protocol, of which `core::standing` decides who keeps it.
//! Looked at when a connection opens, settles or closes, and at the drain; never per request.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::Limits;
use super::budget::Connection;
use super::state::{Order, State};
use super::stats::{Failure, ServeStats};
use crate::core::peer::Peer;
use crate::core::places::Places;
use crate::core::standing::{Held, Room, Standing, Verdict};

/// How often a connection that waits for a place looks again.
const SETTLE_RETRY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stats: Arc<ServeStats>,
    limits: Limits,
    opened: Instant,
    connections: Mutex<Connections>,
    /// A connection has closed.
    left: Notify,
}

#[derive(Debug)]
struct Connections {
    arriving: Places<Peer>,
    open: HashMap<u64, Open>,
    /// What connections that come later are told at once.
    order: Order,
}

#[derive(Debug)]
struct Open {
    state: Arc<State>,
    peer: Peer,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Arriving,
    Http1,
    Http2,
}

impl Registry {
    pub(super) fn new(stats: Arc<ServeStats>, limits: &Limits) -> Self {
        let arriving = Places::new(limits.arriving, limits.arriving);
        let connections = Mutex::new(Connections {
            arriving,
            open: HashMap::new(),
            order: Order::default(),
        });
        Self {
            shared: Arc::new(Shared {
                stats,
                limits: *limits,
                opened: Instant::now(),
                connections,
                left: Notify::new(),
            }),
        }
    }

    /// Takes in a new connection until its entry is dropped. The one that arrives for longest, of the peer that has most of them,
    /// makes room where there is none.
    pub(super) fn register(&self, peer: Peer) -> Entry {
        let mut connections = self.shared.lock();
        let state = Arc::new(State::default());
        state.order(connections.order);
        let (number, given_up) = connections.arriving.take(peer);
        if let Some(victim) = given_up.and_then(|victim| connections.open.get(&victim)) {
            victim.state.cut();
        }
        connections.open.insert(
            number,
            Open {
                state: Arc::clone(&state),
                peer,
                stage: Stage::Arriving,
            },
        );
        self.shared.stats.opened();
        Entry {
            number,
            peer,
            state,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Says which task runs a connection.
    pub(super) fn runs_as(&self, number: u64, task: AbortHandle) {
        if let Some(open) = self.shared.lock().open.get(&number) {
            open.state.runs_as(task);
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
        let mut connections = self.shared.lock();
        connections.order = order;
        for open in connections.open.values() {
            open.state.order(order);
        }
    }

    /// Closes one connection, since the system has no room for more: the one that arrives for longest, else one that has nothing
    /// under way, those that never were answered first.
    pub(super) fn close_longest_idle(&self) {
        let connections = self.shared.lock();
        let arriving = connections
            .open
            .iter()
            .filter(|(_, open)| open.stage == Stage::Arriving && !open.state.is_evicted());
        if let Some((_, open)) = arriving.min_by_key(|(number, _)| **number) {
            return open.state.cut();
        }
        let idle = connections.open.values().filter_map(|open| {
            let standing = open.state.standing(self.shared.opened)?;
            matches!(standing, Standing::Unproven { .. } | Standing::Idle { .. })
                .then_some((standing, open))
        });
        if let Some((_, open)) = idle.min_by_key(|(standing, _)| *standing) {
            open.state.make_room();
        }
    }
}

impl Shared {
    /// The map is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn room(&self, stage: Stage) -> Room {
        let turn_ms = u64::try_from(self.limits.turn.as_millis()).unwrap_or(u64::MAX);
        let (most, most_of_peer) = match stage {
            Stage::Http2 => (
                self.limits.http2_connections,
                self.limits.http2_connections_of_peer,
            ),
            Stage::Http1 | Stage::Arriving => {
                (self.limits.connections, self.limits.connections_of_peer)
            }
        };
        Room {
            most,
            most_of_peer,
            turn_ms,
        }
    }
}

/// One connection's place in the registry.
#[derive(Debug)]
pub(super) struct Entry {
    number: u64,
    peer: Peer,
    state: Arc<State>,
    shared: Arc<Shared>,
}

impl Entry {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    pub(super) fn connection(&self) -> Connection {
        Connection::new(self.peer, Arc::clone(&self.state))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(super) fn stats(&self) -> &ServeStats {
        &self.shared.stats
    }

    pub(super) fn failed(&self, failure: Failure) {
        self.shared.stats.failed(failure);
    }

    /// The peer has said something: of those that arrive, the silent ones make room first.
    pub(super) fn spoke(&self) {
        self.shared.lock().arriving.used(self.number);
    }

    /// Waits for a place among the connections of its protocol, for as long as a handshake may take. Whether it has one.
    pub(super) async fn settle(&self, http2: bool) -> bool {
        let stage = if http2 { Stage::Http2 } else { Stage::Http1 };
        self.spoke();
        let settled = async {
            loop {
                let left = self.shared.left.notified();
                if self.try_settle(stage) {
                    break;
                }
                let _ = timeout(SETTLE_RETRY, left).await;
            }
        };
        timeout(self.shared.limits.handshake, settled).await.is_ok()
    }

    fn try_settle(&self, stage: Stage) -> bool {
        let mut connections = self.shared.lock();
        let settled = connections
            .open
            .iter()
            .filter(|(_, open)| open.stage == stage);
        let held = |(number, open): (&u64, &Open)| Held {
            number: *number,
            peer: open.peer,
            standing: open.state.standing(self.shared.opened),
        };
        let room = self.shared.room(stage);
        let full = settled.clone().count() >= room.most.min(room.most_of_peer);
        let now = u64::try_from(self.shared.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let held: Vec<Held<Peer>> = if full {
            settled.map(held).collect()
        } else {
            Vec::new()
        };
        let admitted = match room.admit(&held, self.peer, now) {
            Verdict::Free => true,
            Verdict::Wait => false,
            Verdict::Instead(victim) => connections.give_up(victim),
        };
        if admitted {
            connections.arriving.leave(self.number);
            if let Some(open) = connections.open.get_mut(&self.number) {
                open.stage = stage;
            }
        }
        admitted
    }
}

impl Connections {
    /// Closes a connection; whether its place is free at once. One that was answered before and has nothing under way is told
    /// in the ordinary way, since its next request may be on its way.
    fn give_up(&mut self, victim: u64) -> bool {
        let Some(open) = self.open.get(&victim) else {
            return true;
        };
        if matches!(
            open.state.standing(Instant::now()),
            Some(Standing::Idle { .. })
        ) {
            open.state.make_room();
            return false;
        }
        open.state.cut();
        self.open.remove(&victim);
        true
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
        {
            let mut connections = self.shared.lock();
            connections.open.remove(&self.number);
            connections.arriving.leave(self.number);
        }
        if self.state.is_evicted() {
            self.shared.stats.failed(Failure::Evicted);
        }
        self.shared.stats.closed();
        self.shared.left.notify_waiters();
    }
}
