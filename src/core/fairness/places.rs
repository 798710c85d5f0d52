//! Places for connections, shared fairly: when all are taken, the peer with most of them loses one.
//!
//! Invariants: the limits hold; a newcomer always gets a place, so silent connections cannot keep a
//! probe out; a peer never loses a place to one with more places. Deliberately absent: sockets, and
//! any guess which peers are malicious.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

#[derive(Debug)]
pub struct Places<P> {
    max: usize,
    max_of_peer: usize,
    /// By number, in the order of admission.
    held: BTreeMap<u64, PlaceHolder<P>>,
    of_peer: HashMap<P, usize>,
    next: u64,
}

#[derive(Debug)]
struct PlaceHolder<P> {
    peer: P,
    /// The tick of the last use.
    used: u64,
}

impl<P: Copy + Eq + Hash> Places<P> {
    #[must_use]
    pub fn new(max: usize, max_of_peer: usize) -> Self {
        Self {
            max,
            max_of_peer,
            held: BTreeMap::new(),
            of_peer: HashMap::new(),
            next: 0,
        }
    }

    /// Takes a place for a peer. Returns it, and the place that is given up for it: the caller closes
    /// that connection.
    pub fn take(&mut self, peer: P) -> (u64, Option<u64>) {
        let given_up = self.to_give_up(peer);
        if let Some(place) = given_up {
            self.leave(place);
        }
        let place = self.tick();
        self.held.insert(place, PlaceHolder { peer, used: place });
        *self.of_peer.entry(peer).or_default() += 1;
        (place, given_up)
    }

    /// Records a request on this place's connection.
    pub fn used(&mut self, place: u64) {
        let now = self.tick();
        if let Some(held) = self.held.get_mut(&place) {
            held.used = now;
        }
    }

    /// Frees a place, unless it was given up.
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
        if of(&newcomer) > self.max_of_peer {
            return self.least_recently_used(|peer| *peer == newcomer);
        }
        if self.held.len() < self.max {
            return None;
        }
        let most = self.of_peer.keys().map(of).max().unwrap_or_default();
        // A newcomer that would have most gives up a place of its own.
        self.least_recently_used(|peer| of(peer) == most)
    }

    fn least_recently_used(&self, of: impl Fn(&P) -> bool) -> Option<u64> {
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
    fn the_peer_with_most_places_gives_up_the_least_recently_used() {
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
    fn peers_with_one_place_each_lose_the_least_recently_used() {
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
