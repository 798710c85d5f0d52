//! How far back is served.

use std::fmt;

use super::super::duration::PromDuration;
use super::super::window::Bound;
use super::MAX_RETENTION_DAYS;

/// The word for no lower limit.
pub(super) const FOREVER: &str = "forever";

/// Age of the oldest instant that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retention {
    /// Up to this age.
    Limited(PromDuration),
    /// No limit: the oldest window has no lower end.
    Forever,
}

impl Retention {
    /// The age that must be covered. Coverage is counted in ages that stay as time passes, so `forever` counts as the longest
    /// retention that can be configured; the oldest window itself has no end.
    #[must_use]
    pub const fn covered(self) -> PromDuration {
        match self {
            Self::Limited(age) => age,
            Self::Forever => PromDuration::from_days(MAX_RETENTION_DAYS),
        }
    }

    /// The limit, if there is one.
    #[must_use]
    pub const fn limit(self) -> Option<PromDuration> {
        match self {
            Self::Limited(age) => Some(age),
            Self::Forever => None,
        }
    }

    /// The older end of the oldest window: an age before `now`, or thanos' own default.
    #[must_use]
    pub fn oldest(self) -> Bound {
        self.limit()
            .map_or(Bound::BEGINNING, |age| Bound::Relative(-age))
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limited(age) => age.fmt(f),
            Self::Forever => f.write_str(FOREVER),
        }
    }
}
