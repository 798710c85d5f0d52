//! Every open connection, so that the accept loop can address them all, and the places that they
//! hold.
//!
//! Invariants: a connection is here exactly as long as its [`Registered`] lives. It first
//! *arrives*: connections before the end of the handshake, and plain ones without a byte, have
//! places of their own. A newcomer always gets one of these, so that no number of them affects
//! established connections. Then it *settles* into a place of its protocol;
//! `core::fairness::connections` decides who keeps one. Used when a connection opens, settles or
//! closes, and at the drain; never per request.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::Limits;
use super::budget::Connection;
use super::state::{ConnectionState, Order};
use super::stats::{ConnectionFailure, ServeStats};
use crate::adapters::lock::lock;
use crate::core::fairness::connections::{Activity, HeldPlace, PlaceDecision, Room};
use crate::core::fairness::peer::Peer;
use crate::core::fairness::places::Places;

/// How often a connection that waits for a place tries again.
const SETTLE_RETRY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Registry {
    shared: Arc<RegistryState>,
}

#[derive(Debug)]
struct RegistryState {
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
    open: HashMap<u64, RegisteredConnection>,
    /// The order that new connections start with.
    order: Order,
}

#[derive(Debug)]
struct RegisteredConnection {
    state: Arc<ConnectionState>,
    peer: Peer,
    stage: ConnectionStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionStage {
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
            shared: Arc::new(RegistryState {
                stats,
                limits: *limits,
                opened: Instant::now(),
                connections,
                left: Notify::new(),
            }),
        }
    }

    /// Registers a new connection until its entry is dropped. If there is no room, evicts the
    /// longest arriving connection of the peer with the most of them.
    pub(super) fn register(&self, peer: Peer) -> Registered {
        let mut connections = lock(&self.shared.connections);
        let state = Arc::new(ConnectionState::default());
        state.order(connections.order);
        let (number, given_up) = connections.arriving.take(peer);
        if let Some(victim) = given_up.and_then(|victim| connections.open.get(&victim)) {
            victim.state.cut();
        }
        connections.open.insert(
            number,
            RegisteredConnection {
                state: Arc::clone(&state),
                peer,
                stage: ConnectionStage::Arriving,
            },
        );
        self.shared.stats.opened();
        Registered {
            number,
            peer,
            state,
            shared: Arc::clone(&self.shared),
        }
    }

    /// Sets the task that runs a connection.
    pub(super) fn runs_as(&self, number: u64, task: AbortHandle) {
        if let Some(open) = lock(&self.shared.connections).open.get(&number) {
            open.state.runs_as(task);
        }
    }

    /// Makes the next answer of every connection, also of later ones, its last.
    pub(super) fn drain(&self) {
        self.broadcast(Order::Drain);
    }

    /// Closes every connection, also later ones, after the answers under way.
    pub(super) fn finish(&self) {
        self.broadcast(Order::Finish);
    }

    fn broadcast(&self, order: Order) {
        let mut connections = lock(&self.shared.connections);
        connections.order = order;
        for open in connections.open.values() {
            open.state.order(order);
        }
    }

    /// Closes one connection, since the system has no room for more: the one arriving for longest,
    /// else an idle one, beginning with those that were never answered.
    pub(super) fn close_longest_idle(&self) {
        let connections = lock(&self.shared.connections);
        let arriving = connections.open.iter().filter(|(_, open)| {
            open.stage == ConnectionStage::Arriving && !open.state.is_evicted()
        });
        if let Some((_, open)) = arriving.min_by_key(|(number, _)| **number) {
            return open.state.cut();
        }
        let idle = connections.open.values().filter_map(|open| {
            let standing = open.state.activity(self.shared.opened)?;
            matches!(standing, Activity::Unproven { .. } | Activity::Idle { .. })
                .then_some((standing, open))
        });
        if let Some((_, open)) = idle.min_by_key(|(standing, _)| *standing) {
            open.state.make_room();
        }
    }
}

impl RegistryState {
    fn room(&self, stage: ConnectionStage) -> Room {
        let ms = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let (most, most_of_peer) = match stage {
            ConnectionStage::Http2 => (
                self.limits.http2_connections,
                self.limits.http2_connections_of_peer,
            ),
            ConnectionStage::Http1 | ConnectionStage::Arriving => {
                (self.limits.connections, self.limits.connections_of_peer)
            }
        };
        Room {
            most,
            most_of_peer,
            turn_ms: ms(self.limits.turn),
            grace_ms: ms(self.limits.request_grace),
        }
    }
}

/// One connection's entry in the registry.
#[derive(Debug)]
pub(super) struct Registered {
    number: u64,
    peer: Peer,
    state: Arc<ConnectionState>,
    shared: Arc<RegistryState>,
}

impl Registered {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn state(&self) -> &Arc<ConnectionState> {
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

    pub(super) fn failed(&self, failure: ConnectionFailure) {
        self.shared.stats.failed(failure);
    }

    /// Notes that the peer has sent something: of the arriving connections, silent ones are evicted
    /// first.
    pub(super) fn note_bytes(&self) {
        lock(&self.shared.connections).arriving.used(self.number);
    }

    /// Waits for a place among the connections of its protocol, at most as long as a handshake may
    /// take. Returns whether it got one.
    pub(super) async fn settle(&self, http2: bool) -> bool {
        let stage = if http2 {
            ConnectionStage::Http2
        } else {
            ConnectionStage::Http1
        };
        self.note_bytes();
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

    fn try_settle(&self, stage: ConnectionStage) -> bool {
        let mut connections = lock(&self.shared.connections);
        let settled = connections
            .open
            .iter()
            .filter(|(_, open)| open.stage == stage);
        let held = |(number, open): (&u64, &RegisteredConnection)| HeldPlace {
            number: *number,
            peer: open.peer,
            standing: open.state.activity(self.shared.opened),
        };
        let room = self.shared.room(stage);
        let full = settled.clone().count() >= room.most.min(room.most_of_peer);
        let now = u64::try_from(self.shared.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let held: Vec<HeldPlace<Peer>> = if full {
            settled.map(held).collect()
        } else {
            Vec::new()
        };
        let admitted = match room.admit(&held, self.peer, now) {
            PlaceDecision::Free => true,
            PlaceDecision::Wait => false,
            PlaceDecision::Instead(victim) => connections.give_up(victim),
        };
        if admitted {
            connections.arriving.leave(self.number);
            if let Some(open) = connections.open.get_mut(&self.number) {
                open.stage = stage;
                // Its grace begins now, before another newcomer may see it.
                open.state.established(stage == ConnectionStage::Http2);
            }
        }
        admitted
    }
}

impl Connections {
    /// Closes a connection; returns whether its place is free immediately. An idle one that was
    /// answered before is asked to close, since its next request may be on its way.
    fn give_up(&mut self, victim: u64) -> bool {
        let Some(open) = self.open.get(&victim) else {
            return true;
        };
        if matches!(
            open.state.activity(Instant::now()),
            Some(Activity::Idle { .. })
        ) {
            open.state.make_room();
            return false;
        }
        open.state.cut();
        self.open.remove(&victim);
        true
    }
}

impl Deref for Registered {
    type Target = ConnectionState;

    fn deref(&self) -> &ConnectionState {
        &self.state
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        {
            let mut connections = lock(&self.shared.connections);
            connections.open.remove(&self.number);
            connections.arriving.leave(self.number);
        }
        if self.state.is_evicted() {
            self.shared.stats.failed(ConnectionFailure::Evicted);
        }
        self.shared.stats.closed();
        self.shared.left.notify_waiters();
    }
}
