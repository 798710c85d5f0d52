//! Thanos' metrics about blocks: which passed the filters and which are loaded.
//!
//! The exposition is parsed line by line as it arrives and never kept: lines longer than
//! [`MAX_LINE_BYTES`] and all other series are skipped.

/// A wanted series is far shorter; longer lines are skipped.
pub const MAX_LINE_BYTES: usize = 1024;

/// One reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Blocks that passed the filters at the last sync.
    pub expected: u64,
    pub loaded: u64,
    /// Syncs that began to read the bucket.
    pub syncs: u64,
    /// Syncs that finished reading the bucket, including failed ones.
    pub syncs_ended: u64,
    /// Syncs that could not read the whole bucket.
    pub sync_failures: u64,
    /// Block loads that began.
    pub loads: u64,
    /// Block loads that ended, including failed ones.
    pub loads_ended: u64,
    /// When this was read, by the pod's clock.
    pub unix_seconds: i64,
}

impl Reading {
    #[must_use]
    pub const fn missing(&self) -> u64 {
        self.expected.saturating_sub(self.loaded)
    }

    /// Returns whether no sync and no block load is under way.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.syncs == self.syncs_ended && !self.is_loading()
    }

    #[must_use]
    pub const fn is_loading(&self) -> bool {
        self.loads != self.loads_ended
    }

    /// Counts the syncs that read the whole bucket.
    #[must_use]
    pub const fn good_syncs(&self) -> u64 {
        self.syncs_ended.saturating_sub(self.sync_failures)
    }
}

/// The wanted series and their fields.
const SERIES: [(&str, Field); 8] = [
    ("thanos_blocks_meta_synced{state=\"loaded\"}", |found| {
        &mut found.expected
    }),
    ("thanos_bucket_store_blocks_loaded", |found| {
        &mut found.loaded
    }),
    ("thanos_blocks_meta_syncs_total", |found| &mut found.syncs),
    ("thanos_blocks_meta_sync_duration_seconds_count", |found| {
        &mut found.syncs_ended
    }),
    ("thanos_blocks_meta_sync_failures_total", |found| {
        &mut found.sync_failures
    }),
    ("thanos_bucket_store_block_loads_total", |found| {
        &mut found.loads
    }),
    ("thanos_bucket_store_block_load_failures_total", |found| {
        &mut found.load_failures
    }),
    (
        "thanos_bucket_store_block_load_duration_seconds_count",
        |found| &mut found.loads_done,
    ),
];

type Field = fn(&mut BlockCounts) -> &mut Option<u64>;

#[derive(Debug, Default)]
struct BlockCounts {
    expected: Option<u64>,
    loaded: Option<u64>,
    syncs: Option<u64>,
    syncs_ended: Option<u64>,
    sync_failures: Option<u64>,
    loads: Option<u64>,
    load_failures: Option<u64>,
    loads_done: Option<u64>,
}

/// Parses the exposition in pieces.
#[derive(Debug, Default)]
pub struct Parser {
    found: BlockCounts,
    line: Vec<u8>,
    skipping: bool,
}

impl Parser {
    pub fn push(&mut self, mut piece: &[u8]) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = piece.split_at(end);
            piece = &rest[1..];
            if !self.skipping && self.line.is_empty() {
                self.found.take(head);
            } else {
                self.keep(head);
                if !self.skipping {
                    self.found.take(&self.line);
                }
                self.line.clear();
                self.skipping = false;
            }
        }
        self.keep(piece);
    }

    fn keep(&mut self, part: &[u8]) {
        if self.skipping || self.line.len() + part.len() > MAX_LINE_BYTES {
            self.line.clear();
            self.skipping = true;
        } else {
            self.line.extend_from_slice(part);
        }
    }

    /// Returns the reading, taken at `unix_seconds`.
    ///
    /// # Errors
    /// Names the first series that this thanos does not have.
    pub fn finish(mut self, unix_seconds: i64) -> Result<Reading, String> {
        if !self.skipping {
            self.found.take(&self.line);
        }
        let found = self.found;
        let need = |value: Option<u64>, at: usize| {
            value.ok_or_else(|| format!("/metrics has no {}", SERIES[at].0))
        };
        let loads = need(found.loads, 5)?;
        let load_failures = need(found.load_failures, 6)?;
        Ok(Reading {
            expected: need(found.expected, 0)?,
            loaded: need(found.loaded, 1)?,
            syncs: need(found.syncs, 2)?,
            syncs_ended: need(found.syncs_ended, 3)?,
            sync_failures: need(found.sync_failures, 4)?,
            loads,
            // Older versions do not count successful loads. Equal readings then show that no load
            // is under way.
            loads_ended: found
                .loads_done
                .map_or(loads, |done| done.saturating_add(load_failures)),
            unix_seconds,
        })
    }
}

impl BlockCounts {
    fn take(&mut self, line: &[u8]) {
        if !line.starts_with(b"thanos_b") {
            return;
        }
        for (name, field) in SERIES {
            if let Some(value) = line.strip_prefix(name.as_bytes()).and_then(value) {
                *field(self) = Some(value);
                return;
            }
        }
    }
}

/// Parses the value after the series name: whole and not negative. A timestamp may follow.
fn value(rest: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(rest.strip_prefix(b" ")?).ok()?;
    let value: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    // Counts of blocks; beyond this a double is not exact and the value is nonsense.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: within 0 and 2^53"
    )]
    (0.0..=9_007_199_254_740_992.0)
        .contains(&value)
        .then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = concat!(
        "# HELP thanos_blocks_meta_synced Number of block metadata synced\n# TYPE thanos_blocks_meta_synced gauge\n",
        "thanos_blocks_meta_synced{state=\"loaded\"} 371\nthanos_blocks_meta_synced{state=\"time-excluded\"} 9\n",
        "thanos_blocks_meta_syncs_total 3\nthanos_blocks_meta_sync_duration_seconds_bucket{le=\"1\"} 2\n",
        "thanos_blocks_meta_sync_duration_seconds_count 2\nthanos_blocks_meta_sync_failures_total 1\n",
        "thanos_bucket_store_blocks_loaded 370\nthanos_bucket_store_blocks_loaded_other 7\nthanos_bucket_store_block_loads_total 1.2e+3\n",
        "thanos_bucket_store_block_load_failures_total 2\nthanos_bucket_store_block_load_duration_seconds_count 1197\n",
    );

    fn read(text: &str) -> Result<Reading, String> {
        let mut parser = Parser::default();
        parser.push(text.as_bytes());
        parser.finish(5)
    }

    #[test]
    fn the_wanted_series_are_found() {
        let reading = read(TEXT).unwrap();
        let expected = Reading {
            expected: 371,
            loaded: 370,
            syncs: 3,
            syncs_ended: 2,
            sync_failures: 1,
            loads: 1200,
            loads_ended: 1199,
            unix_seconds: 5,
        };
        assert_eq!(reading, expected);
        assert_eq!(
            (
                reading.missing(),
                reading.good_syncs(),
                reading.is_idle(),
                reading.is_loading()
            ),
            (1, 1, false, true)
        );
        let older = TEXT.replace(
            "thanos_bucket_store_block_load_duration_seconds_count 1197\n",
            "",
        );
        assert!(!read(&older).unwrap().is_loading());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(
            read(""),
            Err("/metrics has no thanos_bucket_store_block_loads_total".to_owned())
        );
        let without = TEXT.replace(
            "thanos_bucket_store_blocks_loaded 370",
            "thanos_bucket_store_blocks_loaded NaN",
        );
        assert_eq!(
            read(&without),
            Err("/metrics has no thanos_bucket_store_blocks_loaded".to_owned())
        );
    }

    #[test]
    fn a_line_without_end_takes_no_room() {
        let mut parser = Parser::default();
        for _ in 0..1000 {
            parser.push(&[b'x'; 1000]);
            assert!(parser.line.len() <= MAX_LINE_BYTES);
        }
        parser.push(b"\n");
        parser.push(TEXT.as_bytes());
        assert_eq!(parser.finish(5), read(TEXT));
    }

    proptest! {
        /// The boundaries of the pieces do not matter.
        #[test]
        fn any_pieces_give_the_same(cuts in prop::collection::vec(1_usize..200, 1..40)) {
            let mut parser = Parser::default();
            let mut rest = TEXT.as_bytes();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                parser.push(head);
                rest = tail;
            }
            parser.push(rest);
            prop_assert_eq!(parser.finish(5), read(TEXT));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut parser = Parser::default();
            parser.push(&bytes);
            prop_assert!(parser.finish(0).is_err());
        }
    }
}
