//! `retention`: the age of the oldest instant that is served.

use std::fmt;

use super::MAX_RETENTION_DAYS;
use crate::core::model::duration::PromDuration;
use crate::core::model::window::Bound;

/// The value for no limit.
pub(super) const FOREVER: &str = "forever";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retention {
    Limited(PromDuration),
    /// The oldest window has no lower end.
    Forever,
}

impl Retention {
    /// Returns the age that must be covered. For `forever` that is the longest retention that can be
    /// configured, so that reported ages do not change as time passes.
    #[must_use]
    pub const fn covered(self) -> PromDuration {
        match self {
            Self::Limited(age) => age,
            Self::Forever => PromDuration::from_days(MAX_RETENTION_DAYS),
        }
    }

    #[must_use]
    pub const fn limit(self) -> Option<PromDuration> {
        match self {
            Self::Limited(age) => Some(age),
            Self::Forever => None,
        }
    }

    /// Returns the older end of the oldest window.
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
