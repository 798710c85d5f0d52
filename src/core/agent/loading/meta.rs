//! A block's `meta.json`: its time range from the first bytes, the rest only where needed.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::super::loaded::BlockRef;

/// Every `meta.json` that thanos wrote has its time range within these first bytes.
pub const PREFIX_BYTES: usize = 256;
/// A larger `meta.json` is ignored.
pub const MAX_META_BYTES: usize = 1024 * 1024;
/// The range of RFC 3339: 0000-01-01 to the last second of 9999. Milliseconds since 1970.
const FIRST_MILLIS: i64 = -62_167_219_200_000;
const LAST_MILLIS: i64 = 253_402_300_799_000;

/// A ULID as a number, ordered by creation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ulid(u128);

/// Digits of Crockford's base 32.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH: usize = 26;

impl Ulid {
    /// Parses the name of a block folder.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        // 26 digits are 130 bits; the first may not be above 7.
        if bytes.len() != LENGTH || bytes[0] > b'7' {
            return None;
        }
        bytes
            .iter()
            .try_fold(0_u128, |number, byte| {
                let digit = DIGITS.iter().position(|digit| digit == byte)?;
                Some(number << 5 | digit as u128)
            })
            .map(Self)
    }

    /// Returns when the block was created. Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> i64 {
        #[allow(clippy::cast_possible_truncation, reason = "48 bits")]
        let millis = (self.0 >> 80) as i64;
        millis
    }
}

impl std::fmt::Display for Ulid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = (0..LENGTH)
            .rev()
            .map(|at| char::from(DIGITS[((self.0 >> (5 * at)) & 31) as usize]));
        digits
            .into_iter()
            .try_for_each(|digit| f.write_str(digit.encode_utf8(&mut [0; 4])))
    }
}

/// A block and its time range, kept small: there may be a hundred thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    pub ulid: Ulid,
    /// The oldest sample. Milliseconds since 1970.
    pub min: i64,
    /// The end of the newest sample's range. Milliseconds since 1970.
    pub max: i64,
}

impl BlockRange {
    #[must_use]
    pub fn to_ref(self) -> BlockRef {
        let time = |millis: i64| {
            DateTime::<Utc>::from_timestamp_millis(millis.clamp(FIRST_MILLIS, LAST_MILLIS))
                .unwrap_or_default()
        };
        BlockRef {
            ulid: self.ulid.to_string(),
            min_time: time(self.min),
            max_time: time(self.max),
        }
    }
}

/// Returns the time range if it is where thanos writes it: `{"ulid": ..., "minTime": ...,
/// "maxTime": ...,`.
#[must_use]
pub fn range_at_front(prefix: &[u8]) -> Option<(i64, i64)> {
    let mut rest = Cursor(prefix);
    rest.expect(b"{")?;
    rest.expect(b"\"ulid\"")?;
    rest.expect(b":")?;
    rest.expect(b"\"")?;
    rest.0 = rest.0.get(LENGTH..)?;
    rest.expect(b"\"")?;
    let mut number = |key: &[u8]| {
        rest.expect(b",")?;
        rest.expect(key)?;
        rest.expect(b":")?;
        rest.number()
    };
    let range = (number(b"\"minTime\"")?, number(b"\"maxTime\"")?);
    rest.expect(b",")?;
    Some(range)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn expect(&mut self, token: &[u8]) -> Option<()> {
        self.0 = self.0.trim_ascii_start().strip_prefix(token)?;
        Some(())
    }

    fn number(&mut self) -> Option<i64> {
        let text = self.0.trim_ascii_start();
        let end = text
            .iter()
            .position(|byte| !byte.is_ascii_digit() && *byte != b'-')?;
        let (number, rest) = text.split_at(end);
        self.0 = rest;
        std::str::from_utf8(number).ok()?.parse().ok()
    }
}

/// The fields that thanos' filters use besides the time range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// Milliseconds since 1970.
    pub range: (i64, i64),
    /// The blocks that this one was compacted from, or itself; sorted.
    pub sources: Vec<Ulid>,
    /// External labels and resolution as one text. Only blocks of one group replace each other.
    pub group: String,
}

#[derive(Deserialize)]
struct RawMeta {
    #[serde(rename = "minTime")]
    min: i64,
    #[serde(rename = "maxTime")]
    max: i64,
    #[serde(default)]
    compaction: RawCompaction,
    #[serde(default)]
    thanos: RawThanos,
}

#[derive(Default, Deserialize)]
struct RawCompaction {
    #[serde(default)]
    sources: Vec<String>,
}

#[derive(Default, Deserialize)]
struct RawThanos {
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    downsample: RawDownsample,
}

#[derive(Default, Deserialize)]
struct RawDownsample {
    #[serde(default)]
    resolution: i64,
}

impl BlockMeta {
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let raw: RawMeta = serde_json::from_slice(bytes).ok()?;
        let mut sources = raw
            .compaction
            .sources
            .iter()
            .map(|text| Ulid::parse(text))
            .collect::<Option<Vec<_>>>()?;
        sources.sort_unstable();
        let group = format!(
            "{}@{:?}",
            raw.thanos.downsample.resolution, raw.thanos.labels
        );
        Some(Self {
            range: (raw.min, raw.max),
            sources,
            group,
        })
    }

    /// Returns whether this block has all samples of `other`: same group, and all its sources.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.group == other.group
            && other
                .sources
                .iter()
                .all(|source| self.sources.binary_search(source).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "{\n\t\"ulid\": \"01K1H8R1000000000000A1B2C3\",\n\t\"minTime\": -5,\n\t\"maxTime\": 1753315200000,\n\t\"stats\": {},\n\t\
        \"compaction\": {\"level\": 2, \"sources\": [\"01K1H8R1000000000000A1B2C4\", \"01K1H8R1000000000000A1B2C3\"]},\n\t\
        \"version\": 1, \"thanos\": {\"labels\": {\"b\": \"1\", \"a\": \"2\"}, \"downsample\": {\"resolution\": 300000}, \"source\": \"x\"}}";

    #[test]
    fn ulids_read_back_and_other_names_are_none() {
        for text in [
            "01K1H8R1000000000000A1B2C3",
            "00000000000000000000000000",
            "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        ] {
            assert_eq!(Ulid::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Ulid::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap().millis(),
            1_469_922_850_259
        );
        for text in [
            "",
            "meta-syncer",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "01K1H8R1000000000000A1B2CI",
            "01K1H8R1000000000000A1B2C3.tmp",
        ] {
            assert_eq!(Ulid::parse(text), None);
        }
    }

    #[test]
    fn the_range_stands_at_the_front_or_the_whole_document_is_read() {
        assert_eq!(
            range_at_front(&TEXT.as_bytes()[..PREFIX_BYTES.min(TEXT.len())]),
            Some((-5, 1_753_315_200_000))
        );
        assert_eq!(
            range_at_front(&TEXT.as_bytes()[..60]),
            None,
            "a number that is cut"
        );
        let compact: String = TEXT.split_whitespace().collect();
        assert_eq!(
            range_at_front(compact.as_bytes()),
            Some((-5, 1_753_315_200_000))
        );
        let other = compact.replace(
            "\"minTime\":-5,",
            "\"stats\":{\"minTime\":1},\"minTime\":-5,",
        );
        assert_eq!(range_at_front(other.as_bytes()), None);
        let meta = BlockMeta::parse(other.as_bytes()).unwrap();
        assert_eq!(meta.range, (-5, 1_753_315_200_000));
        assert!(meta.sources.is_sorted() && meta.sources.len() == 2);
        assert_eq!(meta, BlockMeta::parse(TEXT.as_bytes()).unwrap());
        assert!(meta.covers(&BlockMeta {
            sources: meta.sources[..1].to_vec(),
            ..meta.clone()
        }));
        assert!(!meta.covers(&BlockMeta {
            group: "other".to_owned(),
            ..meta.clone()
        }));
    }

    #[test]
    fn times_beyond_the_calendar_are_still_a_document() {
        let block = BlockRange {
            ulid: Ulid::parse("01K1H8R1000000000000A1B2C3").unwrap(),
            min: i64::MIN,
            max: i64::MAX,
        };
        let text = serde_json::to_string(&block.to_ref()).unwrap();
        assert!(
            text.contains("0000-01-01T00:00:00Z") && text.contains("9999-12-31T23:59:59Z"),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<BlockRef>(&text).unwrap(),
            block.to_ref()
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = range_at_front(&bytes);
            let _ = BlockMeta::parse(&bytes);
        }
    }
}
