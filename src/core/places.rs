//! Places for connections, shared fairly: when all are taken, the peer that holds most gives one up.
//!
//! Invariants: never more than the limits; a newcomer always gets a place, so no number of silent connections keeps a probe out;
//! a peer that holds fewer places than another loses none to it. Deliberately absent: sockets, and any guess about which peers
//! mean well.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Places and who holds them.
#[derive(Debug)]
pub struct Places<P> {
    most: usize,
    most_of_peer: usize,
    /// By place, whose numbers grow.
    held: BTreeMap<u64, Held<P>>,
    of_peer: HashMap<P, usize>,
    next: u64,
}

#[derive(Debug)]
struct Held<P> {
    peer: P,
    /// Grows with every place that is taken or used.
    used: u64,
}

impl<P: Copy + Eq + Hash> Places<P> {
    /// `most` places in all, of which one peer holds at most `most_of_peer`.
    #[must_use]
    pub fn new(most: usize, most_of_peer: usize) -> Self {
        Self {
            most,
            most_of_peer,
            held: BTreeMap::new(),
            of_peer: HashMap::new(),
            next: 0,
        }
    }

    /// Takes a place for a peer. Returns it, and the place that was given up for it, whose connection is to be closed.
    pub fn take(&mut self, peer: P) -> (u64, Option<u64>) {
        let given_up = self.to_give_up(peer);
        if let Some(place) = given_up {
            self.leave(place);
        }
        let place = self.tick();
        self.held.insert(place, Held { peer, used: place });
        *self.of_peer.entry(peer).or_default() += 1;
        (place, given_up)
    }

    /// Notes that something was asked for on this place's connection.
    pub fn used(&mut self, place: u64) {
        let now = self.tick();
        if let Some(held) = self.held.get_mut(&place) {
            held.used = now;
        }
    }

    /// Frees a place, if it is still held.
    pub fn leave(&mut self, place: u64) {
        let Some(held) = self.held.remove(&place) else {
            return;
        };
        if let Some(count) = self.of_peer.get_mut(&held.peer) {
            *count -= 1;
            if *count == 0 {
                self.of_peer.remove(&held.peer);
            }
        }
    }

    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn to_give_up(&self, newcomer: P) -> Option<u64> {
        let of = |peer: &P| {
            self.of_peer.get(peer).copied().unwrap_or_default() + usize::from(*peer == newcomer)
        };
        if of(&newcomer) > self.most_of_peer {
            return self.longest_unused(|peer| *peer == newcomer);
        }
        if self.held.len() < self.most {
            return None;
        }
        let most = self.of_peer.keys().map(of).max().unwrap_or_default();
        // A newcomer who would hold most gives up its own place.
        self.longest_unused(|peer| of(peer) == most)
    }

    fn longest_unused(&self, of: impl Fn(&P) -> bool) -> Option<u64> {
        self.held
            .iter()
            .filter(|(_, held)| of(&held.peer))
            .min_by_key(|(_, held)| held.used)
            .map(|(place, _)| *place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_peer_that_holds_most_gives_up_what_it_used_longest_ago() {
        let mut places = Places::new(4, 3);
        let mut take = |peer: &'static str| places.take(peer);
        let (kubelet, first, second, third) = (
            take("node").0,
            take("attacker").0,
            take("attacker").0,
            take("attacker").0,
        );
        places.used(first);
        assert_eq!(
            places.take("attacker").1,
            Some(second),
            "of one peer there are never more than three"
        );
        assert_eq!(
            places.take("prometheus").1,
            Some(third),
            "all are taken, and the attacker holds most"
        );
        places.leave(first);
        places.leave(first);
        assert_eq!(places.take("node").1, None);
        assert!(places.held.contains_key(&kubelet));
    }

    #[test]
    fn peers_that_hold_one_each_lose_the_one_unused_longest() {
        let mut places = Places::new(64, 16);
        let taken: Vec<u64> = (0..64).map(|peer| places.take(peer).0).collect();
        places.used(taken[0]);
        assert_eq!(places.take(64).1, Some(taken[1]));
    }

    proptest! {
        #[test]
        fn a_newcomer_has_a_place_and_a_modest_peer_keeps_its_own(peers in prop::collection::vec(0_u8..8, 1..300)) {
            let mut places = Places::new(16, 8);
            let (mine, _) = places.take(255);
            for peer in peers {
                let (place, given_up) = places.take(peer);
                prop_assert!(places.held.contains_key(&place));
                prop_assert!(places.held.len() <= 16 && given_up != Some(mine));
                prop_assert!(places.held.values().filter(|held| held.peer == peer).count() <= 8);
            }
        }
    }
}
