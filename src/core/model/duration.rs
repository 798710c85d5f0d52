//! Prometheus durations (`124d8h`), signed, in milliseconds.
//!
//! Thanos reads `--min-time` and `--max-time` with Prometheus' parser: units `y w d h m s ms`, each
//! at most once, largest first, no fractions, 1d = 24h, 1y = 365d. Output uses only `d h m s ms`, so
//! that windows are easy to compare. Thanos prints other units: compare values, never strings.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::text::truncate;

/// A signed duration in milliseconds. Negative means the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromDuration(i64);

/// Milliseconds of each unit, largest first, as Prometheus defines them.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The maximum of Go's `time.Duration`, about 292 years.
const MAX_MILLIS: i64 = i64::MAX / 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a Prometheus duration ({why}): write whole numbers with the units y, w, d, h, m, s, ms, largest first, such as 1d12h"
)]
pub struct DurationError {
    text: String,
    why: &'static str,
}

impl PromDuration {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Saturates.
    #[must_use]
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// Days of 24 hours; saturates.
    #[must_use]
    pub const fn from_days(days: i64) -> Self {
        Self(days.saturating_mul(86_400_000))
    }

    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Rounds towards zero.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0 / 1_000
    }

    /// Negative durations become zero.
    #[must_use]
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(self.0).unwrap_or(0))
    }

    /// Saturates.
    #[must_use]
    pub fn to_chrono(self) -> chrono::TimeDelta {
        let end = if self.0 < 0 {
            chrono::TimeDelta::MIN
        } else {
            chrono::TimeDelta::MAX
        };
        chrono::TimeDelta::try_milliseconds(self.0).unwrap_or(end)
    }
}

impl std::ops::Add for PromDuration {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for PromDuration {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::ops::Neg for PromDuration {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl FromStr for PromDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let fail = |why| DurationError {
            text: truncate(text, 64).into_owned(),
            why,
        };
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if digits == "0" {
            return Ok(Self::ZERO);
        }
        let mut rest = digits;
        let mut units = UNITS.iter();
        let mut total: i64 = 0;
        if rest.is_empty() {
            return Err(fail("it is empty"));
        }
        while !rest.is_empty() {
            let (number, after) = rest.split_at(
                rest.find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(rest.len()),
            );
            let (unit, after) = after.split_at(
                after
                    .find(|c: char| !c.is_ascii_alphabetic())
                    .unwrap_or(after.len()),
            );
            if number.is_empty() {
                return Err(fail("a unit needs a whole number before it"));
            }
            if unit.is_empty() {
                return Err(fail(if after.starts_with('.') {
                    "fractions are not allowed"
                } else {
                    "a number needs a unit after it"
                }));
            }
            if !UNITS.iter().any(|(name, _)| *name == unit) {
                return Err(fail("the unit is unknown"));
            }
            let Some((_, millis)) = units.by_ref().find(|(name, _)| *name == unit) else {
                return Err(fail(
                    "each unit may occur once, and larger units come first",
                ));
            };
            total = number
                .parse::<i64>()
                .ok()
                .and_then(|n| n.checked_mul(*millis))
                .and_then(|part| total.checked_add(part))
                .filter(|sum| *sum <= MAX_MILLIS)
                .ok_or_else(|| fail("it is longer than 292 years"))?;
            rest = after;
        }
        Ok(Self(if negative { -total } else { total }))
    }
}

impl fmt::Display for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut left = self.0.unsigned_abs();
        for (unit, millis) in &UNITS[2..] {
            let millis = millis.unsigned_abs();
            if left >= millis {
                write!(f, "{}{unit}", left / millis)?;
                left %= millis;
            }
        }
        Ok(())
    }
}

impl Serialize for PromDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(text: &str) -> i64 {
        text.parse::<PromDuration>().unwrap().as_millis()
    }

    #[test]
    fn reads_what_prometheus_reads() {
        assert_eq!(millis("-124d8h"), -(124 * 24 + 8) * 3_600_000);
        assert_eq!(
            millis("1y2w3d4h5m6s7ms"),
            (((365 + 14 + 3) * 24 + 4) * 60 + 5) * 60_000 + 6_007
        );
        assert_eq!(millis("0"), 0);
        assert_eq!(millis("0s"), 0);
        assert_eq!(millis("24h"), millis("1d"));
    }

    #[test]
    fn refuses_with_a_reason() {
        for (text, why) in [
            ("", "empty"),
            ("-", "empty"),
            ("12", "needs a unit"),
            ("d", "whole number before"),
            ("1.5h", "fractions"),
            ("1h1d", "larger units come first"),
            ("1h1h", "may occur once"),
            ("1q", "unit is unknown"),
            ("1M", "unit is unknown"),
            ("300y", "292 years"),
            ("99999999999999999999d", "292 years"),
            ("+1d", "whole number before"),
            (" 1d", "whole number before"),
            ("١d", "whole number before"),
        ] {
            let error = text.parse::<PromDuration>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn writes_days_never_weeks_or_years() {
        assert_eq!(PromDuration::from_days(-370).to_string(), "-370d");
        assert_eq!(
            PromDuration::from_secs(-(246 * 24 + 16) * 3600).to_string(),
            "-246d16h"
        );
        assert_eq!(PromDuration::from_millis(1).to_string(), "1ms");
        assert_eq!(PromDuration::ZERO.to_string(), "0s");
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(value in -MAX_MILLIS..MAX_MILLIS) {
            let duration = PromDuration::from_millis(value);
            prop_assert_eq!(duration.to_string().parse::<PromDuration>().unwrap(), duration);
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<PromDuration>();
        }
    }
}
