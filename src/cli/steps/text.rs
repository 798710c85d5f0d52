//! A planned rollout as text.

use super::{Rollout, pods};
use crate::cli::timeline;
use crate::core::model::text::counted;

/// How many rows the table lists.
const MAX_ROWS: usize = 400;

impl Rollout {
    /// The differences and the summary, without the steps.
    pub(in crate::cli) fn outline(&self) -> String {
        let differences: String = self
            .differences
            .iter()
            .map(|difference| format!("{difference}\n"))
            .collect();
        format!("{differences}{}", self.summary())
    }

    /// The differences, the steps and the summary; with `all`, every restart.
    pub(in crate::cli) fn table(&self, all: bool) -> String {
        let mut text: String = self
            .differences
            .iter()
            .map(|difference| format!("{difference}\n"))
            .collect();
        if self.differences.is_empty() {
            text.push_str("both configurations have the same windows\n");
        }
        if !self.steps.is_empty() {
            text.push_str(&format!("\n{}\n", self.rows(all)));
        }
        format!("{text}\n{}", self.summary())
    }

    fn rows(&self, every: bool) -> String {
        let limit = if every { usize::MAX } else { MAX_ROWS };
        let mut table = timeline::plain_table(&[
            "STEP",
            "POD",
            "SHARD",
            "WINDOW BEFORE",
            "WINDOW AFTER",
            "RESTART",
            "SERVED BY",
        ]);
        let mut nth = vec![0; self.restarts.len()];
        let all = (1..).zip(&self.steps).flat_map(|(number, step)| {
            step.iter()
                .enumerate()
                .map(move |(i, restart)| (number, i == 0, restart))
        });
        for (number, first, restart) in all.clone().take(limit) {
            nth[restart.ordinal] += 1;
            table.add_row([
                // Only in the first row of a step.
                if first {
                    number.to_string()
                } else {
                    String::new()
                },
                self.pod(restart.ordinal),
                restart.to.shard.to_string(),
                restart.from.to_string(),
                restart.to.window.to_string(),
                format!(
                    "{} of {}",
                    nth[restart.ordinal], self.restarts[restart.ordinal]
                ),
                if first {
                    format!(
                        "at least {}",
                        pods(self.holders.during()[number - 1] as usize)
                    )
                } else {
                    String::new()
                },
            ]);
        }
        let rest = all.count().saturating_sub(limit);
        let more = if rest > 0 {
            format!("\n… and {rest} more restarts; -o wide and -o json have them all")
        } else {
            String::new()
        };
        format!("{table}{more}")
    }

    /// How many pods restart how often.
    fn how_often(&self) -> String {
        let count = |times: usize| self.restarts.iter().filter(|n| **n == times).count();
        let most = self.restarts.iter().copied().max().unwrap_or(0);
        let often = |times| match times {
            1 => "once".to_owned(),
            2 => "twice".to_owned(),
            n => format!("{n} times"),
        };
        let groups: Vec<String> = (1..=most)
            .map(|n| (count(n), n))
            .filter(|(pods, _)| *pods > 0)
            .map(|(n, times)| format!("{n} {}", often(times)))
            .collect();
        groups.join(", ")
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        if self.steps.is_empty() {
            if self.complete {
                text.push_str("no pod restarts\n");
            }
        } else {
            let minimum = |steps| self.time.minimum(steps);
            text.push_str(&format!(
                "restarts in place: {} of {} ({}), in {}: at least {} for drain ({}) and discovery_delay ({}), about {} if the longest load takes {}\n",
                pods(self.restarts.iter().filter(|n| **n > 0).count()),
                self.restarts.len(),
                self.how_often(),
                counted(self.steps.len(), "step"),
                minimum(self.steps.len()),
                self.sharding.drain(),
                self.sharding.discovery_delay(),
                self.time.of(self.steps.len()),
                self.time.longest_load(),
            ));
            if self.sharding.queriers_complete() {
                text.push_str("queriers_complete: each wait ends as soon as every querier knows, which may be sooner than these periods\n");
            }
            text.push_str(&format!(
                "{}\n{}\n",
                self.time.sentence(),
                self.holders.sentence()
            ));
        }
        self.stand_ins()
            .for_each(|line| text.push_str(&format!("{line}\n")));
        if !self.renumbered.is_empty() {
            let shown: Vec<String> = self
                .renumbered
                .iter()
                .take(5)
                .map(|i| self.pod(*i))
                .collect();
            let more = if self.renumbered.len() > shown.len() {
                ", …"
            } else {
                ""
            };
            text.push_str(&format!(
                "without a restart, {} {} another shard or replica number: {}{more}\n",
                pods(self.renumbered.len()),
                if self.renumbered.len() == 1 {
                    "gets"
                } else {
                    "get"
                },
                shown.join(", ")
            ));
        }
        if !self.complete {
            text.push_str(&format!(
                "BLOCKED with {} short of the plan, because every further step would leave a gap\n",
                pods(self.unfinished)
            ));
        }
        text
    }
}
