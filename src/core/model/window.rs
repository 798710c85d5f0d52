//! A time window that a thanos serves, as in flags, entries and `/status`.
//!
//! A bound is relative to now (Thanos re-evaluates it on every call, so the window rolls by itself)
//! or an RFC 3339 time.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::duration::{DurationError, PromDuration};
use super::text::truncate;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// Relative to now; negative is the past.
    Relative(PromDuration),
    Absolute(DateTime<Utc>),
}

/// From `min` to `max`, both included, as in Thanos' block filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The older edge, `--min-time`.
    #[serde(rename = "min_time")]
    pub min: Bound,
    /// The newer edge, `--max-time`.
    #[serde(rename = "max_time")]
    pub max: Bound,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is neither an RFC 3339 time such as 2026-01-31T00:00:00Z nor a relative duration such as -124d8h: {why}"
)]
pub struct BoundError {
    text: String,
    why: DurationError,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the window is inverted: min_time {min} is not before max_time {max}; exchange them or make min_time older"
)]
pub struct InvertedWindow {
    min: Bound,
    max: Bound,
}

impl Bound {
    /// Thanos' default of `--min-time`, older than any sample.
    pub const BEGINNING: Self = Self::Absolute(beginning());

    /// Returns the instant at `now`; saturates at the calendar's ends.
    #[must_use]
    pub fn at(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Absolute(instant) => instant,
            Self::Relative(duration) => now.checked_add_signed(duration.to_chrono()).unwrap_or(
                if duration < PromDuration::ZERO {
                    DateTime::<Utc>::MIN_UTC
                } else {
                    DateTime::<Utc>::MAX_UTC
                },
            ),
        }
    }
}

/// 0000-01-01T00:00:00Z.
const fn beginning() -> DateTime<Utc> {
    const UNIX_SECONDS: i64 = -62_167_219_200;
    match DateTime::from_timestamp(UNIX_SECONDS, 0) {
        Some(instant) => instant,
        None => DateTime::<Utc>::UNIX_EPOCH,
    }
}

impl Window {
    #[must_use]
    pub const fn relative(min: PromDuration, max: PromDuration) -> Self {
        Self {
            min: Bound::Relative(min),
            max: Bound::Relative(max),
        }
    }

    /// Returns the time from its older to its newer edge at `now`.
    #[must_use]
    pub fn length(self, now: DateTime<Utc>) -> TimeDelta {
        self.max.at(now).signed_duration_since(self.min.at(now))
    }

    /// Refuses a window that is empty at `now`. The clock only matters if one bound is relative and
    /// the other is not.
    ///
    /// # Errors
    /// [`InvertedWindow`] if the older edge is not before the newer one.
    pub fn checked(self, now: DateTime<Utc>) -> Result<Self, InvertedWindow> {
        let inverted = match (self.min, self.max) {
            (Bound::Relative(min), Bound::Relative(max)) => min >= max,
            (min, max) => min.at(now) >= max.at(now),
        };
        if inverted {
            Err(InvertedWindow {
                min: self.min,
                max: self.max,
            })
        } else {
            Ok(self)
        }
    }

    /// Whether `instant` is in this window at `now`.
    #[must_use]
    pub fn holds(self, instant: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        self.min.at(now) <= instant && instant <= self.max.at(now)
    }
}

impl FromStr for Bound {
    type Err = BoundError;

    fn from_str(text: &str) -> Result<Self, BoundError> {
        if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Absolute(instant.with_timezone(&Utc)));
        }
        text.parse().map(Self::Relative).map_err(|why| BoundError {
            text: truncate(text, 64).into_owned(),
            why,
        })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative(duration) => duration.fmt(f),
            Self::Absolute(instant) => {
                f.write_str(&instant.to_rfc3339_opts(SecondsFormat::AutoSi, true))
            }
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} .. {}", self.min, self.max)
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2024, 2, 29, 12, 0, 0).unwrap()
    }

    #[test]
    fn bounds_read_back_as_written() {
        for text in ["-124d8h", "1d", "0s", "2026-01-31T00:00:00Z"] {
            assert_eq!(text.parse::<Bound>().unwrap().to_string(), text);
        }
        assert_eq!("24h".parse::<Bound>(), "1d".parse::<Bound>());
        assert_eq!(
            "2026-01-31T02:00:00+02:00".parse::<Bound>(),
            "2026-01-31T00:00:00Z".parse::<Bound>()
        );
        let error = "yesterday".parse::<Bound>().unwrap_err().to_string();
        assert!(
            error.contains("\"yesterday\"") && error.contains("RFC 3339"),
            "{error}"
        );
    }

    #[test]
    fn an_inverted_window_is_refused() {
        let window = |min: &str, max: &str| Window {
            min: min.parse().unwrap(),
            max: max.parse().unwrap(),
        };
        assert!(window("-2d", "-1d").checked(now()).is_ok());
        assert!(window("-1d", "-2d").checked(now()).is_err());
        assert!(window("-1d", "-24h").checked(now()).is_err());
        assert!(window("2030-01-01T00:00:00Z", "1d").checked(now()).is_err());
        assert!(window("2020-01-01T00:00:00Z", "1d").checked(now()).is_ok());
    }

    #[test]
    fn the_beginning_reads_back_as_thanos_default() {
        assert_eq!(Bound::BEGINNING.to_string(), "0000-01-01T00:00:00Z");
        assert_eq!("0000-01-01T00:00:00Z".parse(), Ok(Bound::BEGINNING));
        let open = Window {
            min: Bound::BEGINNING,
            max: "-90d".parse().unwrap(),
        };
        assert_eq!(open.checked(now()), Ok(open));
    }

    #[test]
    fn a_far_bound_saturates() {
        assert_eq!(
            Bound::Relative(PromDuration::from_millis(i64::MIN)).at(now()),
            DateTime::<Utc>::MIN_UTC
        );
    }
}
