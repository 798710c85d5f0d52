//! Which readings can be trusted: a sync that is under way must not make a pod seem worse than it
//! is.
//!
//! During a sync the two counts do not belong together: `expected` jumps when thanos has read the
//! bucket, `loaded` follows block by block, and blocks that a compaction replaced are dropped only
//! at the end. Rules:
//! - a state with more missing blocks than the accepted one is accepted only if no block is being
//!   loaded and two readings in a row are equal;
//! - a better state is accepted immediately, unless a sync ended since the last reading;
//! - more loaded than expected is never accepted: blocks are about to be dropped, or the bucket
//!   could not be read (thanos then expects none);
//! - after a failed sync nothing is accepted until one succeeds.

use super::reading::Reading;

/// An accepted state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub expected: u64,
    /// Never more than `expected`.
    pub loaded: u64,
}

impl Counts {
    #[must_use]
    pub const fn missing(self) -> u64 {
        self.expected.saturating_sub(self.loaded)
    }
}

/// Takes the readings of one start of thanos, in order.
#[derive(Clone, Debug, Default)]
pub struct ReadingFilter {
    last: Option<Reading>,
    /// The last two readings are equal.
    steady: bool,
    /// The last sync failed.
    failed: bool,
    accepted: Option<Counts>,
    last_sync: i64,
}

impl ReadingFilter {
    pub fn take(&mut self, reading: Reading) {
        if self
            .last
            .is_some_and(|last| reading.syncs < last.syncs || reading.loads < last.loads)
        {
            // thanos was restarted: its counters began again.
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

    #[must_use]
    pub const fn accepted(&self) -> Option<Counts> {
        self.accepted
    }

    /// Returns the last reading if it lacks blocks and no state was accepted yet: reporting missing
    /// blocks is better than reporting nothing.
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

    /// Returns when the bucket was last read without an error; 0 before the first reading.
    #[must_use]
    pub const fn last_sync_unix_seconds(&self) -> i64 {
        self.last_sync
    }

    /// Counts the syncs that succeeded.
    #[must_use]
    pub fn good_syncs(&self) -> u64 {
        self.last.map_or(0, |last| last.good_syncs())
    }

    /// Counts the syncs that have begun.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.last.map_or(0, |last| last.syncs)
    }

    /// Returns whether the last reading is the accepted state, or no state can be accepted before
    /// the next sync.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.failed || self.agrees()
    }

    /// Returns whether the next reading can wait, because an early one would confirm nothing.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.is_settled() || self.steady
    }

    /// Returns whether the last two readings are the accepted state, with no sync under way.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.steady && self.agrees() && self.last.is_some_and(|last| last.is_idle())
    }

    /// Returns whether equal readings are still not accepted: the last sync failed, and the next
    /// one may be far away.
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

    fn filter(readings: &[Reading]) -> ReadingFilter {
        let mut filter = ReadingFilter::default();
        for reading in readings {
            filter.take(*reading);
        }
        filter
    }

    #[test]
    fn a_complete_state_is_accepted_at_once_and_a_missing_block_after_two_readings() {
        assert_eq!(
            filter(&[reading(371, 371)]).accepted(),
            Some(Counts {
                expected: 371,
                loaded: 371
            })
        );
        assert_eq!(filter(&[reading(371, 370)]).accepted(), None);
        let filter = filter(&[
            reading(371, 370),
            Reading {
                unix_seconds: 101,
                ..reading(371, 370)
            },
        ]);
        assert_eq!(filter.accepted().unwrap().missing(), 1);
        assert!(filter.is_certain() && filter.is_settled());
    }

    #[test]
    fn before_the_first_accepted_state_missing_blocks_are_counted_only() {
        let loading = Reading {
            loads: 401,
            ..reading(371, 370)
        };
        assert_eq!(
            filter(&[loading, loading, loading])
                .pending()
                .map(Counts::missing),
            Some(1)
        );
        assert_eq!(
            filter(&[reading(371, 370), reading(371, 370), loading]).pending(),
            None,
            "the accepted state holds"
        );
        assert_eq!(
            filter(&[Reading {
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
        assert_eq!(filter(&[loading, failed]).pending(), None);
    }

    #[test]
    fn during_a_sync_the_earlier_counts_hold_but_are_not_certain() {
        let fetching = Reading {
            syncs: 3,
            ..reading(371, 370)
        };
        let filter = filter(&[fetching, fetching]);
        assert_eq!(filter.accepted().unwrap().missing(), 1);
        assert!(!filter.is_certain());
    }

    /// The gauge is 0 after a sync that could not list the bucket.
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
        let mut filter = filter(&[before[0], before[1], failed, failed, partial, partial]);
        assert_eq!(
            (
                filter.accepted().unwrap().missing(),
                filter.last_sync_unix_seconds()
            ),
            (1, 100)
        );
        assert!(filter.is_settled());
        let good = later(reading(371, 371), 5, 2, 1900);
        filter.take(good);
        filter.take(good);
        assert_eq!(
            (
                filter.accepted().unwrap().missing(),
                filter.last_sync_unix_seconds()
            ),
            (0, 1900)
        );
        let blind = [reading(0, 370), reading(0, 370)];
        assert!(self::filter(&blind).is_hopeless());
    }

    #[test]
    fn another_process_starts_from_zero() {
        let filter = filter(&[
            reading(371, 371),
            Reading {
                syncs: 1,
                syncs_ended: 1,
                loads: 5,
                loads_ended: 4,
                ..reading(371, 3)
            },
        ]);
        assert_eq!(filter.accepted(), None);
    }

    /// Thanos' bucket store, reduced to its counts, one event at a time.
    #[derive(Clone, Debug)]
    struct Store {
        now: Reading,
        missing: u64,
    }

    #[derive(Clone, Debug)]
    struct Sync {
        /// New blocks, replaced blocks, and how many of the new and of the missing ones cannot be
        /// loaded.
        new: u64,
        gone: u64,
        broken: u64,
        fails: bool,
        /// The number of events between readings.
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
        /// All states of the counts; the last one is at rest.
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
        /// With readings at any point of any syncs: a sync under way never makes more blocks seem
        /// missing than before or after it, and at rest two readings give the true state.
        #[test]
        fn a_sync_that_is_under_way_does_not_flap(syncs in prop::collection::vec(sync(), 1..12)) {
            let mut store = Store { now: reading(20, 20), missing: 0 };
            let mut filter = filter(&[store.now]);
            let mut truth = 0;
            for sync in syncs {
                let before = truth;
                let states = store.sync(&sync);
                truth = store.missing;
                let mut at = 0;
                for step in &sync.looks {
                    // Two readings a second apart never see the same state while loading: each load
                    // takes a moment.
                    at += 1 + usize::from(*step);
                    let Some(state) = states.get(at) else { break };
                    filter.take(*state);
                    let missing = filter.accepted().unwrap().missing();
                    prop_assert!(missing <= before.max(truth), "{missing}, but {before} before and {truth} after");
                }
                filter.take(*states.last().unwrap());
                filter.take(*states.last().unwrap());
                filter.take(*states.last().unwrap());
                let missing = filter.accepted().unwrap().missing();
                prop_assert_eq!(missing, if sync.fails { before } else { truth });
                truth = missing;
                store.missing = if sync.fails { before } else { store.missing };
            }
        }
    }
}
