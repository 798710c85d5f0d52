//! `updateStrategy.rollingUpdate.maxUnavailable` of a StatefulSet: how many pods its controller
//! replaces at once.
//!
//! Some Kubernetes versions have the field by default and others drop it, so the value in an
//! observed object is in force.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxUnavailable {
    Pods(u32),
    /// Of `spec.replicas`.
    Percent(u32),
}

impl MaxUnavailable {
    /// Reads the field from JSON; `None` for values that the API server would refuse.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Self::Pods(u32::try_from(number.as_i64()?).ok()?)),
            Value::String(text) => Self::percent(text),
            _ => None,
        }
    }

    /// Reads a percentage such as `50%`.
    #[must_use]
    pub fn percent(text: &str) -> Option<Self> {
        text.strip_suffix('%')?.parse().ok().map(Self::Percent)
    }

    /// Reads `spec.updateStrategy`; `None` with `OnDelete`.
    #[must_use]
    pub fn of_strategy(strategy: &Value) -> Option<Self> {
        let replaces = strategy.get("type").and_then(Value::as_str) != Some("OnDelete");
        strategy
            .pointer("/rollingUpdate/maxUnavailable")
            .filter(|_| replaces)
            .and_then(Self::read)
    }

    /// Returns the least and the greatest number of pods that it may mean, at least 1.
    #[must_use]
    pub fn range(self, replicas: u32) -> (u32, u32) {
        match self {
            Self::Pods(pods) => (pods.max(1), pods.max(1)),
            Self::Percent(percent) => {
                let hundredfold = u64::from(percent) * u64::from(replicas);
                let pods = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
                (pods(hundredfold / 100), pods(hundredfold.div_ceil(100)))
            }
        }
    }
}
