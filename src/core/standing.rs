//! Which connection gives its place up for another one: decided by what each has done, not by what its peer says.
//!
//! Invariants: a connection that has been answered is kept before one that never was, also before one whose first request is under
//! way; a newcomer takes such a place, or one in use, only from a peer that holds more than it does, and one in use only when it has
//! made us wait for a whole turn. Deliberately absent: sockets, and how a
//! connection is closed.

use std::collections::HashMap;
use std::hash::Hash;

/// What a connection is doing. Milliseconds since any fixed moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing was answered with success yet, and nothing is under way.
    Unproven {
        /// When it was opened, or last had something under way.
        since_ms: u64,
    },
    /// Its first request is under way.
    First {
        /// When that began.
        since_ms: u64,
    },
    /// It was answered before, and nothing is under way.
    Idle {
        /// When the last answer was given.
        since_ms: u64,
    },
    /// It was answered before, and something is under way: headers, a request, an answer that is not taken.
    Busy {
        /// When that began.
        since_ms: u64,
    },
}

/// A connection that holds a place.
#[derive(Clone, Copy, Debug)]
pub struct Held<P> {
    /// Its number.
    pub number: u64,
    /// Whose it is.
    pub peer: P,
    /// What it is doing; `None` for one that was told to go already.
    pub standing: Option<Standing>,
}

/// The limits of a set of connections.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Places in all.
    pub most: usize,
    /// Places of one peer.
    pub most_of_peer: usize,
    /// For how long a connection may keep us waiting before its place can be taken. Milliseconds.
    pub turn_ms: u64,
}

/// What a newcomer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a place.
    Free,
    /// There is one when this connection is closed.
    Instead(u64),
    /// There is none now: every other connection is in use by a peer that may use it.
    Wait,
}

impl Room {
    /// Decides about a newcomer of `peer`.
    pub fn admit<P: Copy + Eq + Hash>(&self, held: &[Held<P>], peer: P, now_ms: u64) -> Verdict {
        let (mut all, mut unproven) = (HashMap::<P, usize>::new(), HashMap::<P, usize>::new());
        for connection in held {
            *all.entry(connection.peer).or_default() += 1;
            if matches!(
                connection.standing,
                Some(Standing::Unproven { .. } | Standing::First { .. })
            ) {
                *unproven.entry(connection.peer).or_default() += 1;
            }
        }
        let of = |peer: &P| all.get(peer).copied().unwrap_or_default();
        let unproven = |peer: &P| unproven.get(peer).copied().unwrap_or_default();
        let mine = of(&peer);
        let own_limit = mine >= self.most_of_peer;
        if !own_limit && held.len() < self.most {
            return Verdict::Free;
        }
        // They have a turn to be answered in, and what was answered before is not given up for want of patience with them.
        let never_answered = held
            .iter()
            .any(|connection| matches!(connection.standing, Some(Standing::First { .. })));
        let rank = |connection: &Held<P>| {
            if own_limit && connection.peer != peer {
                return None;
            }
            let richer = of(&connection.peer) > mine + 1;
            let answered = own_limit || (of(&connection.peer) > mine && !never_answered);
            let ripe = |since: u64| richer && now_ms.saturating_sub(since) >= self.turn_ms;
            let (rank, holds, since) = match connection.standing? {
                Standing::Unproven { since_ms } => (0, unproven(&connection.peer), since_ms),
                Standing::First { since_ms } if ripe(since_ms) => {
                    (1, unproven(&connection.peer), since_ms)
                }
                Standing::Idle { since_ms } if answered => (2, of(&connection.peer), since_ms),
                Standing::Busy { since_ms } if answered && ripe(since_ms) => {
                    (3, of(&connection.peer), since_ms)
                }
                Standing::First { .. } | Standing::Idle { .. } | Standing::Busy { .. } => {
                    return None;
                }
            };
            Some((rank, std::cmp::Reverse(holds), since))
        };
        let victim = held
            .iter()
            .filter_map(|connection| Some((rank(connection)?, connection.number)))
            .min();
        victim.map_or(Verdict::Wait, |(_, number)| Verdict::Instead(number))
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
    };

    fn held(connections: &[(&'static str, Standing)]) -> Vec<Held<&'static str>> {
        (0..)
            .zip(connections)
            .map(|(number, (peer, standing))| Held {
                number,
                peer: *peer,
                standing: Some(*standing),
            })
            .collect()
    }

    #[test]
    fn who_was_never_answered_goes_first() {
        use Standing::{Busy, First, Idle, Unproven};
        let api = ("api", Idle { since_ms: 0 });
        let silent = |since_ms| ("x", Unproven { since_ms });
        let full = held(&[api, ("api", Busy { since_ms: 0 }), silent(5), silent(3)]);
        assert_eq!(
            ROOM.admit(&full, "y", 1_000),
            Verdict::Instead(3),
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
            Verdict::Wait,
            "a first request has its turn, and nobody else pays for that"
        );
        assert_eq!(ROOM.admit(&full, "y", 100), Verdict::Instead(1));
        assert_eq!(
            ROOM.admit(&full, "x", 100),
            Verdict::Wait,
            "at its own limit a peer displaces nobody"
        );
        let busy = held(&[
            ("api", Busy { since_ms: 0 }),
            ("b", Busy { since_ms: 0 }),
            ("x", Busy { since_ms: 0 }),
            ("x", Busy { since_ms: 9 }),
        ]);
        assert_eq!(ROOM.admit(&busy, "y", 99), Verdict::Wait);
        assert_eq!(ROOM.admit(&busy, "y", 100), Verdict::Instead(2));
        assert_eq!(ROOM.admit(&busy[..3], "y", 0), Verdict::Free);
    }

    #[test]
    fn who_holds_most_of_those_that_were_answered_gives_one_up() {
        let idle = |peer, since_ms| (peer, Standing::Idle { since_ms });
        let full = held(&[idle("api", 0), idle("x", 9), idle("x", 5), idle("z", 1)]);
        assert_eq!(ROOM.admit(&full, "y", 50), Verdict::Instead(2));
        assert_eq!(ROOM.admit(&full, "z", 50), Verdict::Instead(2));
        assert_eq!(
            ROOM.admit(&full, "x", 50),
            Verdict::Wait,
            "nobody holds more"
        );
        assert_eq!(
            ROOM.admit(
                &held(&[idle("a", 3), idle("b", 2), idle("c", 1), idle("d", 4)]),
                "y",
                50
            ),
            Verdict::Instead(2)
        );
    }

    #[test]
    fn one_that_goes_already_still_holds_its_place() {
        let mut full = held(&[("a", Standing::Idle { since_ms: 0 }); 3]);
        full.extend(held(&[("b", Standing::Idle { since_ms: 0 })]));
        for connection in &mut full {
            connection.standing = None;
        }
        assert_eq!(ROOM.admit(&full, "c", 1_000), Verdict::Wait);
    }

    fn standing() -> impl Strategy<Value = Standing> {
        (0..4, 0_u64..200).prop_map(|(kind, since_ms)| match kind {
            0 => Standing::Unproven { since_ms },
            1 => Standing::First { since_ms },
            2 => Standing::Idle { since_ms },
            _ => Standing::Busy { since_ms },
        })
    }

    proptest! {
        #[test]
        fn silence_displaces_nobody_who_was_answered(standings in prop::collection::vec((0_u8..4, standing()), 4)) {
            let full: Vec<_> = (0..).zip(standings).map(|(number, (peer, standing))| Held { number, peer, standing: Some(standing) }).collect();
            let unproven = |held: &Held<u8>| matches!(held.standing, Some(Standing::Unproven { .. }));
            if let Verdict::Instead(victim) = ROOM.admit(&full, 200, 200)
                && full.iter().any(unproven)
            {
                prop_assert!(full.iter().any(|held| held.number == victim && unproven(held)));
            }
        }

        #[test]
        fn a_request_that_was_never_answered_costs_nobody_else_a_place(standings in prop::collection::vec((0_u8..4, standing()), 4)) {
            let full: Vec<_> = (0..).zip(standings).map(|(number, (peer, standing))| Held { number, peer, standing: Some(standing) }).collect();
            let first = |held: &&Held<u8>| matches!(held.standing, Some(Standing::First { .. }));
            if let Verdict::Instead(victim) = ROOM.admit(&full, 200, 200)
                && full.iter().any(|held| first(&held))
            {
                let kept = |held: &&Held<u8>| matches!(held.standing, Some(Standing::Idle { .. } | Standing::Busy { .. }));
                prop_assert!(!full.iter().filter(kept).any(|held| held.number == victim));
            }
        }
    }
}
