//! Which readings can be believed: a sync that is under way must not make a pod look worse than it is.
//!
//! During a sync the two counts do not belong together: `expected` jumps when thanos has read the bucket, `loaded` follows
//! block by block, and blocks that a compaction replaced are dropped only at the end. Rules:
//! - a state with more blocks missing than the accepted one is accepted only if no block is being loaded and two readings in a
//!   row are the same;
//! - a better state is accepted at once, unless a sync ended since the reading before;
//! - more loaded than expected is never a state: blocks are about to be dropped, or the bucket could not be read (thanos then
//!   says that it expects none);
//! - after a sync that failed nothing is accepted until one succeeds.

use super::reading::Reading;

/// An accepted state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that passed the filters.
    pub expected: u64,
    /// Blocks that are loaded; never more than `expected`.
    pub loaded: u64,
}

impl Counts {
    /// Blocks that are missing.
    #[must_use]
    pub const fn missing(self) -> u64 {
        self.expected.saturating_sub(self.loaded)
    }
}

/// Takes the readings of one start of thanos, in order.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    last: Option<Reading>,
    /// The last two readings are the same.
    steady: bool,
    /// The last sync failed.
    failed: bool,
    accepted: Option<Counts>,
    last_sync: i64,
}

impl Judge {
    /// Takes one reading.
    pub fn take(&mut self, reading: Reading) {
        if self
            .last
            .is_some_and(|last| reading.syncs < last.syncs || reading.loads < last.loads)
        {
            // Counters start again with the process.
            *self = Self::default();
        }
        let good_before = self.last.map(|last| last.good_syncs());
        if good_before.is_none_or(|before| reading.good_syncs() > before) {
            self.last_sync = reading.unix_seconds;
        }
        let ended = self
            .last
            .is_some_and(|last| reading.syncs_ended != last.syncs_ended);
        self.failed = match self.last {
            Some(last) if reading.sync_failures > last.sync_failures => true,
            Some(_) if ended => false,
            _ => self.failed,
        };
        self.steady = self.last.is_some_and(|last| {
            Reading {
                unix_seconds: last.unix_seconds,
                ..reading
            } == last
        });
        self.last = Some(reading);
        let counts = Counts {
            expected: reading.expected,
            loaded: reading.loaded,
        };
        if self.failed || reading.is_loading() || counts.loaded > counts.expected {
            return;
        }
        let better = match self.accepted {
            Some(accepted) => counts.missing() <= accepted.missing(),
            None => counts.missing() == 0,
        };
        if self.steady || (better && !ended) {
            self.accepted = Some(counts);
        }
    }

    /// The accepted state; `None` before there was one.
    #[must_use]
    pub const fn accepted(&self) -> Option<Counts> {
        self.accepted
    }

    /// The last reading, while no state was accepted yet and it lacks blocks: better told as missing than as unknown.
    #[must_use]
    pub fn pending(&self) -> Option<Counts> {
        let last = self
            .last
            .filter(|_| self.accepted.is_none() && !self.failed)?;
        Some(Counts {
            expected: last.expected,
            loaded: last.loaded,
        })
        .filter(|counts| counts.missing() > 0)
    }

    /// When the bucket was last read without an error; 0 before the first reading.
    #[must_use]
    pub const fn last_sync_unix_seconds(&self) -> i64 {
        self.last_sync
    }

    /// How many syncs have succeeded.
    #[must_use]
    pub fn good_syncs(&self) -> u64 {
        self.last.map_or(0, |last| last.good_syncs())
    }

    /// How many syncs have begun.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.last.map_or(0, |last| last.syncs)
    }

    /// Whether the last reading is the accepted state, or none can be accepted before the next sync.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.failed || self.agrees()
    }

    /// Whether the next reading can wait: this one says nothing that another one soon could confirm.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.is_settled() || self.steady
    }

    /// Whether the last two readings are the accepted state, with no sync under way.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.steady && self.agrees() && self.last.is_some_and(|last| last.is_idle())
    }

    /// Whether these readings are steady and still no state: the last sync failed, and waiting for the next one may take long.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.steady && self.accepted.is_none() && self.last.is_some_and(|last| last.is_idle())
    }

    fn agrees(&self) -> bool {
        match (self.accepted, self.last) {
            (Some(accepted), Some(last)) => {
                accepted.expected == last.expected && accepted.loaded == last.loaded
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(expected: u64, loaded: u64) -> Reading {
        Reading {
            expected,
            loaded,
            syncs: 2,
            syncs_ended: 2,
            loads: 400,
            loads_ended: 400,
            unix_seconds: 100,
            ..Reading::default()
        }
    }

    fn judge(readings: &[Reading]) -> Judge {
        let mut judge = Judge::default();
        for reading in readings {
            judge.take(*reading);
        }
        judge
    }

    #[test]
    fn whole_is_believed_at_once_and_missing_when_it_stays() {
        assert_eq!(
            judge(&[reading(371, 371)]).accepted(),
            Some(Counts {
                expected: 371,
                loaded: 371
            })
        );
        assert_eq!(judge(&[reading(371, 370)]).accepted(), None);
        let judge = judge(&[
            reading(371, 370),
            Reading {
                unix_seconds: 101,
                ..reading(371, 370)
            },
        ]);
        assert_eq!(judge.accepted().unwrap().missing(), 1);
        assert!(judge.is_certain() && judge.is_settled());
    }

    #[test]
    fn until_a_first_state_what_is_missing_is_told_without_names() {
        let loading = Reading {
            loads: 401,
            ..reading(371, 370)
        };
        assert_eq!(
            judge(&[loading, loading, loading])
                .pending()
                .map(Counts::missing),
            Some(1)
        );
        assert_eq!(
            judge(&[reading(371, 370), reading(371, 370), loading]).pending(),
            None,
            "the accepted state holds"
        );
        assert_eq!(
            judge(&[Reading {
                loads: 401,
                ..reading(371, 371)
            }])
            .pending(),
            None
        );
        let failed = Reading {
            sync_failures: 1,
            syncs: 3,
            syncs_ended: 3,
            ..loading
        };
        assert_eq!(judge(&[loading, failed]).pending(), None);
    }

    #[test]
    fn while_the_bucket_is_read_the_counts_of_the_sync_before_hold_but_are_not_certain() {
        let fetching = Reading {
            syncs: 3,
            ..reading(371, 370)
        };
        let judge = judge(&[fetching, fetching]);
        assert_eq!(judge.accepted().unwrap().missing(), 1);
        assert!(!judge.is_certain());
    }

    /// The gauge of a sync that could not list the bucket says 0.
    #[test]
    fn a_failed_sync_changes_nothing_and_is_not_a_sync() {
        let later = |reading: Reading, syncs, failures, unix_seconds| Reading {
            syncs,
            syncs_ended: syncs,
            sync_failures: failures,
            unix_seconds,
            ..reading
        };
        let before = [reading(371, 370), reading(371, 370)];
        let failed = later(reading(0, 370), 3, 1, 900);
        let partial = later(reading(300, 300), 4, 2, 1000);
        let mut judge = judge(&[before[0], before[1], failed, failed, partial, partial]);
        assert_eq!(
            (
                judge.accepted().unwrap().missing(),
                judge.last_sync_unix_seconds()
            ),
            (1, 100)
        );
        assert!(judge.is_settled());
        let good = later(reading(371, 371), 5, 2, 1900);
        judge.take(good);
        judge.take(good);
        assert_eq!(
            (
                judge.accepted().unwrap().missing(),
                judge.last_sync_unix_seconds()
            ),
            (0, 1900)
        );
        let blind = [reading(0, 370), reading(0, 370)];
        assert!(self::judge(&blind).is_hopeless());
    }

    #[test]
    fn another_process_begins_again() {
        let judge = judge(&[
            reading(371, 371),
            Reading {
                syncs: 1,
                syncs_ended: 1,
                loads: 5,
                loads_ended: 4,
                ..reading(371, 3)
            },
        ]);
        assert_eq!(judge.accepted(), None);
    }

    /// Thanos' bucket store as far as its counts go, one event at a time.
    #[derive(Clone, Debug)]
    struct Store {
        now: Reading,
        missing: u64,
    }

    #[derive(Clone, Debug)]
    struct Sync {
        /// Blocks that come, that are replaced, and how many of the new ones (and of the ones missing so far) cannot be loaded.
        new: u64,
        gone: u64,
        broken: u64,
        fails: bool,
        /// After how many events a reading is taken.
        looks: Vec<u8>,
    }

    fn sync() -> impl Strategy<Value = Sync> {
        (
            0_u64..5,
            0_u64..5,
            0_u64..3,
            prop::bool::weighted(0.2),
            prop::collection::vec(0_u8..4, 1..12),
        )
            .prop_map(|(new, gone, broken, fails, looks)| Sync {
                new,
                gone,
                broken,
                fails,
                looks,
            })
    }

    impl Store {
        /// All states that the counts pass through; the last one is at rest.
        fn sync(&mut self, sync: &Sync) -> Vec<Reading> {
            let mut states = Vec::new();
            let mut now = self.now;
            now.unix_seconds += 900;
            now.syncs += 1;
            states.push(now);
            now.syncs_ended += 1;
            if sync.fails {
                now.sync_failures += 1;
                states.push(now);
                now.expected = 0;
                states.push(now);
                self.now = now;
                return states;
            }
            states.push(now);
            let held = now.loaded;
            let gone = sync.gone.min(held);
            let wanted = sync.new + self.missing;
            let broken = sync.broken.min(wanted);
            now.expected = held - gone + wanted;
            states.push(now);
            for n in 0..wanted {
                now.loads += 1;
                states.push(now);
                now.loads_ended += 1;
                now.loaded += u64::from(n >= broken);
                states.push(now);
            }
            for _ in 0..gone {
                now.loaded -= 1;
                states.push(now);
            }
            self.missing = broken;
            self.now = now;
            states
        }
    }

    proptest! {
        /// Readings at any points of any syncs: while a sync is under way no more blocks are reported missing than before or
        /// after it, and when thanos rests the state is the true one after two readings.
        #[test]
        fn a_sync_that_is_under_way_does_not_flap(syncs in prop::collection::vec(sync(), 1..12)) {
            let mut store = Store { now: reading(20, 20), missing: 0 };
            let mut judge = judge(&[store.now]);
            let mut truth = 0;
            for sync in syncs {
                let before = truth;
                let states = store.sync(&sync);
                truth = store.missing;
                let mut at = 0;
                for step in &sync.looks {
                    // Two readings a second apart never see the same state in the middle of loading: each load takes a moment.
                    at += 1 + usize::from(*step);
                    let Some(state) = states.get(at) else { break };
                    judge.take(*state);
                    let missing = judge.accepted().unwrap().missing();
                    prop_assert!(missing <= before.max(truth), "{missing}, but {before} before and {truth} after");
                }
                judge.take(*states.last().unwrap());
                judge.take(*states.last().unwrap());
                judge.take(*states.last().unwrap());
                let missing = judge.accepted().unwrap().missing();
                prop_assert_eq!(missing, if sync.fails { before } else { truth });
                truth = missing;
                store.missing = if sync.fails { before } else { store.missing };
            }
        }
    }
}
