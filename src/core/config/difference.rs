//! Which keys two `sharding` blocks differ in, by the values that hold: a default that is written down is no difference.

use std::fmt;

use super::{Reload, Sharding, WindowFormat};

/// The most numbers of a list that are shown.
const MOST_SHOWN: usize = 20;

/// One key with two values, as they would stand in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key of the `sharding` block.
    pub key: &'static str,
    /// Its value in the first.
    pub old: String,
    /// Its value in the second.
    pub new: String,
}

impl Sharding {
    /// The keys that differ, those that make windows first.
    #[must_use]
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let (old, new) = (self.shown(), new.shown());
        old.into_iter()
            .zip(new)
            .filter(|((_, old), (_, new))| old != new)
            .map(|((key, old), (_, new))| Difference { key, old, new })
            .collect()
    }

    fn shown(&self) -> [(&'static str, String); 15] {
        let format = match self.window_format() {
            WindowFormat::Relative => "relative",
            WindowFormat::Absolute => "absolute",
        };
        let reload = match self.reload() {
            Reload::Exec => "exec",
            Reload::Signal => "signal",
        };
        [
            (
                "total_shards",
                self.total_shards()
                    .map_or("auto".to_owned(), |n| n.to_string()),
            ),
            ("replicas_per_shard", self.shown_replicas()),
            ("retention", self.retention().to_string()),
            (
                "boundaries",
                if self.boundaries().is_empty() {
                    "equal split".to_owned()
                } else {
                    list(self.boundaries())
                },
            ),
            ("overlap", self.overlap().to_string()),
            ("future_buffer", self.future_buffer().to_string()),
            ("window_format", format.to_owned()),
            ("quantum", self.quantum().to_string()),
            ("shard_services", self.shard_services().to_string()),
            ("allow_coverage_gap", self.allow_coverage_gap().to_string()),
            ("drain", self.drain().to_string()),
            ("discovery_delay", self.discovery_delay().to_string()),
            ("termination_drain", self.termination_drain().to_string()),
            ("load_retry", self.load_retry().to_string()),
            ("reload", reload.to_owned()),
        ]
    }

    fn shown_replicas(&self) -> String {
        let each: Vec<u32> = (0..self.total_shards().unwrap_or(1))
            .map(|shard| self.replicas_of(shard))
            .collect();
        if each.windows(2).all(|pair| pair[0] == pair[1]) {
            self.replicas_of(0).to_string()
        } else {
            list(&each)
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

fn list(values: &[impl fmt::Display]) -> String {
    let shown: Vec<String> = values
        .iter()
        .take(MOST_SHOWN)
        .map(ToString::to_string)
        .collect();
    let more = if values.len() > MOST_SHOWN {
        ", …"
    } else {
        ""
    };
    format!("[{}{more}]", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use crate::core::config::Config;

    #[test]
    fn only_values_that_hold_differ() {
        let read = |text: &str| Config::parse(text, "test").unwrap().sharding;
        let old = read("sharding: {total_shards: 3}");
        assert_eq!(
            old.differences(&read("sharding: {data_retention_days: 370, overlap: 24h}")),
            []
        );
        let new = read("sharding: {boundaries: [14d, 90d], replicas: [3, 2, 2], retention: 400d}");
        let said: Vec<String> = old
            .differences(&new)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "replicas_per_shard: 2 -> [3, 2, 2]",
                "retention: 370d -> 400d",
                "boundaries: equal split -> [14d, 90d]"
            ]
        );
    }
}
