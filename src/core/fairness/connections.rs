//! Which connection is closed for a newcomer, by what each connection has done.
//!
//! Invariants: connections with a successful response outlive those without, including those whose
//! first request is in progress; a newcomer displaces an answered or busy connection only of a peer
//! with more connections than its own, and a busy one only after a full turn. Deliberately absent:
//! sockets, and how a connection is closed.

use std::collections::HashMap;
use std::hash::Hash;

/// The state of a connection. Times are milliseconds since any fixed moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// No successful response yet, and no request in progress.
    Unproven {
        /// When it was opened, or its last request ended.
        since_ms: u64,
    },
    /// The first request is in progress.
    First { since_ms: u64 },
    /// Answered before, and no request in progress.
    Idle {
        /// When the last response was sent.
        since_ms: u64,
    },
    /// Answered before, and headers, a request or an unread response are in progress.
    Busy { since_ms: u64 },
}

/// A connection with a place.
#[derive(Clone, Copy, Debug)]
pub struct HeldPlace<P> {
    pub number: u64,
    pub peer: P,
    /// `None` for a connection that is closing.
    pub standing: Option<Activity>,
}

/// The limits of a server's connections, in total and per peer.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub most: usize,
    pub most_of_peer: usize,
    /// How long a request may take before its connection can be displaced. Milliseconds.
    pub turn_ms: u64,
    /// How long a new connection may take to begin a request before it can be displaced.
    /// Milliseconds.
    pub grace_ms: u64,
}

/// The decision on a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceDecision {
    Free,
    /// After closing this connection.
    Instead(u64),
    /// Every other connection may keep its place for now.
    Wait,
}

impl Room {
    pub fn admit<P: Copy + Eq + Hash>(
        &self,
        held: &[HeldPlace<P>],
        peer: P,
        now_ms: u64,
    ) -> PlaceDecision {
        let (mut all, mut unproven) = (HashMap::<P, usize>::new(), HashMap::<P, usize>::new());
        for connection in held {
            *all.entry(connection.peer).or_default() += 1;
            if matches!(
                connection.standing,
                Some(Activity::Unproven { .. } | Activity::First { .. })
            ) {
                *unproven.entry(connection.peer).or_default() += 1;
            }
        }
        let of = |peer: &P| all.get(peer).copied().unwrap_or_default();
        let unproven = |peer: &P| unproven.get(peer).copied().unwrap_or_default();
        // Silent connections go first, once their grace is over.
        let silent = held
            .iter()
            .any(|connection| matches!(connection.standing, Some(Activity::Unproven { .. })));
        let mine = of(&peer);
        let own_limit = mine >= self.most_of_peer;
        if !own_limit && held.len() < self.most {
            return PlaceDecision::Free;
        }
        // Connections with their first request get a turn, and no answered one is displaced instead.
        let never_answered = held
            .iter()
            .any(|connection| matches!(connection.standing, Some(Activity::First { .. })));
        let rank = |connection: &HeldPlace<P>| {
            if own_limit && connection.peer != peer {
                return None;
            }
            let richer = of(&connection.peer) > mine + 1;
            let answered = own_limit || (of(&connection.peer) > mine && !never_answered);
            let held_for = |since: u64| now_ms.saturating_sub(since);
            let ripe = |since: u64| richer && held_for(since) >= self.turn_ms;
            let (rank, holds, since) = match connection.standing? {
                Activity::Unproven { since_ms }
                    if own_limit || richer || held_for(since_ms) >= self.grace_ms =>
                {
                    (0, unproven(&connection.peer), since_ms)
                }
                _ if silent && !own_limit => return None,
                Activity::First { since_ms } if ripe(since_ms) => {
                    (1, unproven(&connection.peer), since_ms)
                }
                Activity::Idle { since_ms } if answered => (2, of(&connection.peer), since_ms),
                Activity::Busy { since_ms } if answered && ripe(since_ms) => {
                    (3, of(&connection.peer), since_ms)
                }
                Activity::Unproven { .. }
                | Activity::First { .. }
                | Activity::Idle { .. }
                | Activity::Busy { .. } => return None,
            };
            Some((rank, std::cmp::Reverse(holds), since))
        };
        let victim = held
            .iter()
            .filter_map(|connection| Some((rank(connection)?, connection.number)))
            .min();
        victim.map_or(PlaceDecision::Wait, |(_, number)| {
            PlaceDecision::Instead(number)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Room = Room {
        most: 4,
        most_of_peer: 3,
        turn_ms: 100,
        grace_ms: 25,
    };

    fn held(connections: &[(&'static str, Activity)]) -> Vec<HeldPlace<&'static str>> {
        (0..)
            .zip(connections)
            .map(|(number, (peer, standing))| HeldPlace {
                number,
                peer: *peer,
                standing: Some(*standing),
            })
            .collect()
    }

    #[test]
    fn connections_without_a_response_go_first() {
        use Activity::{Busy, First, Idle, Unproven};
        let api = ("api", Idle { since_ms: 0 });
        let silent = |since_ms| ("x", Unproven { since_ms });
        let full = held(&[api, ("api", Busy { since_ms: 0 }), silent(5), silent(3)]);
        assert_eq!(
            ROOM.admit(&full, "y", 1_000),
            PlaceDecision::Instead(3),
            "the silent peer loses its oldest"
        );
        let full = held(&[
            api,
            ("x", First { since_ms: 0 }),
            ("x", First { since_ms: 50 }),
            ("x", Busy { since_ms: 0 }),
        ]);
        assert_eq!(
            ROOM.admit(&full, "y", 99),
            PlaceDecision::Wait,
            "a first request has its turn, at no other connection's cost"
        );
        assert_eq!(ROOM.admit(&full, "y", 100), PlaceDecision::Instead(1));
        assert_eq!(
            ROOM.admit(&full, "x", 100),
            PlaceDecision::Wait,
            "at its own limit a peer displaces no other peer"
        );
        let busy = held(&[
            ("api", Busy { since_ms: 0 }),
            ("b", Busy { since_ms: 0 }),
            ("x", Busy { since_ms: 0 }),
            ("x", Busy { since_ms: 9 }),
        ]);
        assert_eq!(ROOM.admit(&busy, "y", 99), PlaceDecision::Wait);
        assert_eq!(ROOM.admit(&busy, "y", 100), PlaceDecision::Instead(2));
        assert_eq!(ROOM.admit(&busy[..3], "y", 0), PlaceDecision::Free);
    }

    #[test]
    fn the_peer_with_most_answered_connections_loses_one() {
        let idle = |peer, since_ms| (peer, Activity::Idle { since_ms });
        let full = held(&[idle("api", 0), idle("x", 9), idle("x", 5), idle("z", 1)]);
        assert_eq!(ROOM.admit(&full, "y", 50), PlaceDecision::Instead(2));
        assert_eq!(ROOM.admit(&full, "z", 50), PlaceDecision::Instead(2));
        assert_eq!(
            ROOM.admit(&full, "x", 50),
            PlaceDecision::Wait,
            "no peer has more"
        );
        assert_eq!(
            ROOM.admit(
                &held(&[idle("a", 3), idle("b", 2), idle("c", 1), idle("d", 4)]),
                "y",
                50
            ),
            PlaceDecision::Instead(2)
        );
    }

    #[test]
    fn a_new_connection_has_a_grace_until_its_request() {
        let room = Room { most: 3, ..ROOM };
        let busy = ("x", Activity::Busy { since_ms: 0 });
        let full = held(&[("scraper", Activity::Unproven { since_ms: 50 }), busy, busy]);
        assert_eq!(room.admit(&full, "y", 74), PlaceDecision::Wait);
        assert_eq!(room.admit(&full, "y", 75), PlaceDecision::Instead(0));
        let full = held(&[
            ("scraper", Activity::Unproven { since_ms: 50 }),
            ("x", Activity::Unproven { since_ms: 60 }),
            busy,
        ]);
        assert_eq!(
            room.admit(&full, "y", 61),
            PlaceDecision::Instead(1),
            "a peer that holds more has no grace"
        );
    }

    #[test]
    fn a_closing_connection_still_has_its_place() {
        let mut full = held(&[("a", Activity::Idle { since_ms: 0 }); 3]);
        full.extend(held(&[("b", Activity::Idle { since_ms: 0 })]));
        for connection in &mut full {
            connection.standing = None;
        }
        assert_eq!(ROOM.admit(&full, "c", 1_000), PlaceDecision::Wait);
    }

    fn standing() -> impl Strategy<Value = Activity> {
        (0..4, 0_u64..200).prop_map(|(kind, since_ms)| match kind {
            0 => Activity::Unproven { since_ms },
            1 => Activity::First { since_ms },
            2 => Activity::Idle { since_ms },
            _ => Activity::Busy { since_ms },
        })
    }

    proptest! {
        #[test]
        fn silence_displaces_no_answered_connection(standings in prop::collection::vec((0_u8..4, standing()), 4)) {
            let full: Vec<_> = (0..).zip(standings).map(|(number, (peer, standing))| HeldPlace { number, peer, standing: Some(standing) }).collect();
            let unproven = |held: &HeldPlace<u8>| matches!(held.standing, Some(Activity::Unproven { .. }));
            if let PlaceDecision::Instead(victim) = ROOM.admit(&full, 200, 200)
                && full.iter().any(unproven)
            {
                prop_assert!(full.iter().any(|held| held.number == victim && unproven(held)));
            }
        }

        #[test]
        fn an_unanswered_request_costs_no_other_connection_its_place(standings in prop::collection::vec((0_u8..4, standing()), 4)) {
            let full: Vec<_> = (0..).zip(standings).map(|(number, (peer, standing))| HeldPlace { number, peer, standing: Some(standing) }).collect();
            let first = |held: &&HeldPlace<u8>| matches!(held.standing, Some(Activity::First { .. }));
            if let PlaceDecision::Instead(victim) = ROOM.admit(&full, 200, 200)
                && full.iter().any(|held| first(&held))
            {
                let kept = |held: &&HeldPlace<u8>| matches!(held.standing, Some(Activity::Idle { .. } | Activity::Busy { .. }));
                prop_assert!(!full.iter().filter(kept).any(|held| held.number == victim));
            }
        }
    }
}
