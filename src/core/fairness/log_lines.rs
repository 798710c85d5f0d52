//! A rate limit per namespace for log lines that users can cause.
//!
//! Invariant: at most [`MAX_LINES`] lines a minute for each namespace, the last of which says that
//! further ones are omitted.

use std::collections::BTreeMap;

/// Lines for one namespace in one minute.
pub const MAX_LINES: u32 = 60;
/// With more namespaces, all counts start over.
const MAX_NAMESPACES: usize = 10_000;

/// The lines of the present minute.
#[derive(Debug, Default)]
pub struct LogShares {
    minute: u64,
    lines: BTreeMap<String, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLine {
    Written,
    /// Written, with the remark that further ones are omitted.
    Last,
    LeftOut,
}

impl LogShares {
    /// Counts a line on a namespace.
    pub fn take(&mut self, namespace: &str, unix_seconds: u64) -> LogLine {
        let minute = unix_seconds / 60;
        if minute != self.minute || self.lines.len() >= MAX_NAMESPACES {
            (self.minute, self.lines) = (minute, BTreeMap::new());
        }
        let lines = match self.lines.get_mut(namespace) {
            Some(lines) => lines,
            None => self.lines.entry(namespace.to_owned()).or_default(),
        };
        *lines = lines.saturating_add(1);
        match (*lines).cmp(&MAX_LINES) {
            std::cmp::Ordering::Less => LogLine::Written,
            std::cmp::Ordering::Equal => LogLine::Last,
            std::cmp::Ordering::Greater => LogLine::LeftOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loud_namespace_is_limited_and_a_quiet_one_is_not() {
        let mut shares = LogShares::default();
        let lines: Vec<LogLine> = (0..1_000).map(|_| shares.take("loud", 120)).collect();
        assert_eq!(
            lines
                .iter()
                .filter(|line| **line == LogLine::Written)
                .count(),
            MAX_LINES as usize - 1
        );
        assert_eq!(
            lines.iter().filter(|line| **line == LogLine::Last).count(),
            1
        );
        assert_eq!(
            (
                shares.take("quiet", 179),
                shares.take("loud", 179),
                shares.take("loud", 180)
            ),
            (LogLine::Written, LogLine::LeftOut, LogLine::Written)
        );
    }
}
