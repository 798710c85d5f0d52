//! A scarce amount (bytes, turns) shared fairly between peers.
//!
//! Invariants: grants never exceed the limits, in total and per peer; a free amount goes to the
//! waiting peer with least, among equals to the one whose last grant is oldest, so peers take turns;
//! a peer with less than another waits at most one turn before [`Shares::in_the_way`] names a claim
//! to give up. Deliberately absent: clocks, and how a claim is given up.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Granted and waiting claims on an amount.
#[derive(Debug)]
pub struct Shares<P> {
    max: usize,
    max_of_peer: usize,
    turn_ms: u64,
    used: usize,
    /// By number, in the order of claims.
    claims: BTreeMap<u64, ShareClaim<P>>,
    waiting: usize,
    peers: HashMap<P, ShareHolder>,
    next: u64,
}

#[derive(Debug, Default)]
struct ShareHolder {
    used: usize,
    claims: usize,
    /// Number of the last claim that was granted, in the order of grants.
    last_grant: u64,
}

#[derive(Debug)]
struct ShareClaim<P> {
    peer: P,
    amount: usize,
    /// Time of the grant in milliseconds.
    granted: Option<u64>,
    /// Must not be given up now.
    firm: bool,
    /// Is being given up.
    leaving: bool,
}

impl<P: Copy + Eq + Hash> Shares<P> {
    /// No claim has to be given up within its first `turn_ms` milliseconds.
    #[must_use]
    pub fn new(max: usize, max_of_peer: usize, turn_ms: u64) -> Self {
        Self {
            max,
            max_of_peer,
            turn_ms,
            used: 0,
            claims: BTreeMap::new(),
            waiting: 0,
            peers: HashMap::new(),
            next: 0,
        }
    }

    /// Claims an amount and returns the claim's number. A larger amount than a peer may have is
    /// reduced, since it could never be granted.
    pub fn claim(&mut self, peer: P, amount: usize, now_ms: u64) -> u64 {
        self.next += 1;
        let number = self.next;
        let amount = amount.min(self.max_of_peer).min(self.max);
        self.claims.insert(
            number,
            ShareClaim {
                peer,
                amount,
                granted: None,
                firm: false,
                leaving: false,
            },
        );
        self.waiting += 1;
        self.peers.entry(peer).or_default().claims += 1;
        self.grant(now_ms);
        number
    }

    #[must_use]
    pub fn is_granted(&self, number: u64) -> bool {
        self.claims
            .get(&number)
            .is_some_and(|claim| claim.granted.is_some())
    }

    /// Protects a granted claim from being given up while its holder uses it.
    pub fn keep(&mut self, number: u64) {
        if let Some(claim) = self.claims.get_mut(&number) {
            claim.firm = true;
        }
    }

    /// Changes the amount of a granted claim, even beyond the limits because it is in use already, and
    /// starts a new turn. Returns the claims that are granted by this.
    pub fn replace(&mut self, number: u64, amount: usize, now_ms: u64) -> Vec<u64> {
        let Some(claim) = self
            .claims
            .get_mut(&number)
            .filter(|claim| claim.granted.is_some())
        else {
            return Vec::new();
        };
        let before = std::mem::replace(&mut claim.amount, amount);
        (claim.firm, claim.granted) = (false, Some(now_ms));
        self.used = self.used - before + amount;
        if let Some(holder) = self.peers.get_mut(&claim.peer) {
            holder.used = holder.used - before + amount;
        }
        self.grant(now_ms)
    }

    /// Ends a claim. Returns the claims that are granted by this.
    pub fn close(&mut self, number: u64, now_ms: u64) -> Vec<u64> {
        let Some(claim) = self.claims.remove(&number) else {
            return Vec::new();
        };
        let held = if claim.granted.is_some() {
            claim.amount
        } else {
            0
        };
        self.used -= held;
        self.waiting -= usize::from(claim.granted.is_none());
        if let Some(holder) = self.peers.get_mut(&claim.peer) {
            holder.used -= held;
            holder.claims -= 1;
            if holder.claims == 0 {
                self.peers.remove(&claim.peer);
            }
        }
        self.grant(now_ms)
    }

    /// Returns the claim to give up now, so that a waiting one can be granted: the oldest of the peer
    /// with most, if that peer has more than the waiting one and the claim had its turn. Call it until
    /// it returns `None`.
    pub fn in_the_way(&mut self, number: u64, now_ms: u64) -> Option<u64> {
        let waiting = self
            .claims
            .get(&number)
            .filter(|claim| claim.granted.is_none())?;
        let (peer, amount) = (waiting.peer, waiting.amount);
        let mine = self.used_by(peer);
        let leaving: usize = self
            .granted()
            .filter(|(_, claim)| claim.leaving)
            .map(|(_, claim)| claim.amount)
            .sum();
        if mine + amount > self.max_of_peer || self.used - leaving + amount <= self.max {
            return None;
        }
        let ripe = |claim: &ShareClaim<P>| {
            claim
                .granted
                .is_some_and(|since| now_ms.saturating_sub(since) >= self.turn_ms)
        };
        let candidates = self.granted().filter(|(_, claim)| {
            !claim.firm
                && !claim.leaving
                && claim.peer != peer
                && self.used_by(claim.peer) > mine
                && ripe(claim)
        });
        let (victim, _) = candidates.max_by_key(|(_, claim)| {
            (
                self.used_by(claim.peer),
                now_ms.saturating_sub(claim.granted.unwrap_or(now_ms)),
            )
        })?;
        if let Some(claim) = self.claims.get_mut(&victim) {
            claim.leaving = true;
        }
        Some(victim)
    }

    fn granted(&self) -> impl Iterator<Item = (u64, &ShareClaim<P>)> {
        self.claims
            .iter()
            .filter(|(_, claim)| claim.granted.is_some())
            .map(|(number, claim)| (*number, claim))
    }

    fn used_by(&self, peer: P) -> usize {
        self.peers.get(&peer).map_or(0, |holder| holder.used)
    }

    fn grant(&mut self, now_ms: u64) -> Vec<u64> {
        let mut granted = Vec::new();
        while self.waiting > 0 {
            let fits = |(number, claim): (&u64, &ShareClaim<P>)| {
                let holder = self.peers.get(&claim.peer)?;
                let fits =
                    claim.granted.is_none() && holder.used + claim.amount <= self.max_of_peer;
                fits.then_some((holder.used, holder.last_grant, *number))
            };
            let Some((_, _, number)) = self.claims.iter().filter_map(fits).min() else {
                break;
            };
            let Some(claim) = self
                .claims
                .get_mut(&number)
                .filter(|claim| self.used + claim.amount <= self.max)
            else {
                break;
            };
            claim.granted = Some(now_ms);
            self.used += claim.amount;
            self.waiting -= 1;
            self.next += 1;
            if let Some(holder) = self.peers.get_mut(&claim.peer) {
                holder.used += claim.amount;
                holder.last_grant = self.next;
            }
            granted.push(number);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_peer_at_its_limit_delays_only_itself() {
        let mut shares = Shares::new(10, 6, 100);
        let mine: Vec<u64> = (0..4).map(|_| shares.claim("attacker", 3, 0)).collect();
        assert_eq!(
            mine.iter()
                .map(|claim| shares.is_granted(*claim))
                .collect::<Vec<_>>(),
            [true, true, false, false]
        );
        let other = shares.claim("api-server", 4, 0);
        assert!(shares.is_granted(other));
        assert_eq!(
            shares.in_the_way(mine[2], 1_000),
            None,
            "its own limit is in the way, no other claim"
        );
        assert_eq!(shares.close(mine[0], 0), [mine[2]]);
    }

    #[test]
    fn the_peer_with_most_gives_up_a_claim_that_had_its_turn() {
        let mut shares = Shares::new(10, 8, 100);
        let (large, small) = (shares.claim("a", 6, 0), shares.claim("b", 3, 0));
        let late = shares.claim("c", 3, 50);
        assert!(!shares.is_granted(late));
        assert_eq!(shares.in_the_way(late, 99), None, "a turn is safe");
        shares.keep(large);
        assert_eq!(
            shares.in_the_way(late, 100),
            Some(small),
            "a protected claim is not given up"
        );
        assert_eq!(shares.in_the_way(late, 100), None, "one is enough");
        assert_eq!(shares.close(small, 100), [late]);

        let mut shares = Shares::new(10, 8, 100);
        let (large, _) = (shares.claim("a", 6, 0), shares.claim("b", 3, 0));
        let late = shares.claim("c", 3, 0);
        assert_eq!(shares.in_the_way(late, 100), Some(large));
        let more = shares.claim("a", 2, 0);
        assert_eq!(
            shares.in_the_way(more, 500),
            None,
            "the peer with most takes nothing from others"
        );
    }

    #[test]
    fn peers_take_turns() {
        let mut turns = Shares::new(1, 1, 0);
        let mut running = turns.claim("a", 1, 0);
        let queue: Vec<u64> = ["a", "a", "a", "b", "c"]
            .map(|peer| turns.claim(peer, 1, 0))
            .into();
        let order: Vec<u64> = (0..queue.len())
            .map(|_| {
                running = turns.close(running, 0)[0];
                running
            })
            .collect();
        assert_eq!(
            order,
            [queue[3], queue[4], queue[0], queue[1], queue[2]],
            "one of each before a second one of a"
        );
    }

    #[test]
    fn a_response_replaces_its_request() {
        let mut shares = Shares::new(10, 10, 100);
        let first = shares.claim("a", 8, 0);
        let second = shares.claim("b", 4, 0);
        shares.keep(first);
        assert_eq!(shares.in_the_way(second, 500), None);
        assert_eq!(
            shares.replace(first, 12, 500),
            [0_u64; 0],
            "in use already, so beyond the limit"
        );
        assert_eq!(shares.in_the_way(second, 599), None);
        assert_eq!(shares.in_the_way(second, 600), Some(first));
        assert_eq!(shares.replace(first, 1, 600), [second]);
        assert_eq!(shares.close(first, 600), [0_u64; 0]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Claim(u8, usize),
        Close(usize),
        Press(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_u8..6, 0_usize..12).prop_map(|(peer, amount)| Step::Claim(peer, amount)),
            (0_usize..20).prop_map(Step::Close),
            (0_usize..20).prop_map(Step::Press),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn limits_hold_and_no_claim_waits_forever(steps in steps()) {
            let (most, of_peer) = (20, 12);
            let mut shares = Shares::new(most, of_peer, 10);
            let mut open: Vec<u64> = Vec::new();
            for (now, step) in (0_u64..).zip(steps) {
                match step {
                    Step::Claim(peer, amount) => open.push(shares.claim(peer, amount, now)),
                    Step::Close(at) if at < open.len() => drop(shares.close(open.remove(at), now)),
                    Step::Press(at) if at < open.len() => {
                        if let Some(victim) = shares.in_the_way(open[at], now) {
                            prop_assert!(shares.is_granted(victim) && !shares.is_granted(open[at]));
                        }
                    }
                    Step::Close(_) | Step::Press(_) => {}
                }
                let used: usize = shares.granted().map(|(_, claim)| claim.amount).sum();
                prop_assert!(used == shares.used && used <= most);
                prop_assert!((0..6).all(|peer| shares.used_by(peer) <= of_peer));
            }
            while let Some(granted) = open.iter().position(|number| shares.is_granted(*number)) {
                shares.close(open.remove(granted), 1_000);
            }
            prop_assert!(open.is_empty() && shares.used == 0 && shares.peers.is_empty());
        }
    }
}
