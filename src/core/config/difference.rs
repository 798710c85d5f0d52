//! The keys in which two `sharding` blocks differ, by their effective values: a default that is
//! written out is no difference.

use std::fmt;

use super::{Sharding, WindowFormat};

/// Numbers of a list in a message.
const MAX_SHOWN: usize = 20;

/// One key with two values, as in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub key: &'static str,
    pub old: String,
    pub new: String,
}

impl Sharding {
    /// Returns the keys that differ, those of windows first.
    #[must_use]
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let (old, new) = (self.shown(), new.shown());
        old.into_iter()
            .zip(new)
            .filter(|((_, old), (_, new))| old != new)
            .map(|((key, old), (_, new))| Difference { key, old, new })
            .collect()
    }

    fn shown(&self) -> [(&'static str, String); 20] {
        let format = match self.window_format() {
            WindowFormat::Relative => "relative",
            WindowFormat::Absolute => "absolute",
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
            ("max_unavailable", self.max_unavailable().to_string()),
            (
                "max_concurrent_restarts",
                self.max_concurrent_restarts.to_string(),
            ),
            ("canary", self.canary().to_string()),
            ("queriers_complete", self.queriers_complete().to_string()),
            ("drain_limit", self.drain_limit().to_string()),
            ("drain", self.drain().to_string()),
            ("discovery_delay", self.discovery_delay().to_string()),
            ("termination_drain", self.termination_drain().to_string()),
            ("load_retry", self.load_retry().to_string()),
            ("reload", self.reload().name().to_owned()),
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
        .take(MAX_SHOWN)
        .map(ToString::to_string)
        .collect();
    let more = if values.len() > MAX_SHOWN {
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
    fn only_effective_values_differ() {
        let read = |text: &str| Config::parse(text, "test").unwrap().sharding;
        let old = read("sharding: {total_shards: 3}");
        assert_eq!(
            old.differences(&read("sharding: {data_retention_days: 370, overlap: 24h}")),
            []
        );
        let new = read("sharding: {boundaries: [14d, 90d], replicas: [3, 2, 2], retention: 400d}");
        let shown: Vec<String> = old
            .differences(&new)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "replicas_per_shard: 2 -> [3, 2, 2]",
                "retention: 370d -> 400d",
                "boundaries: equal split -> [14d, 90d]"
            ]
        );
    }
}
