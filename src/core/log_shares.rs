//! Lines of the log, shared between namespaces: what others can cause again and again is written so often and no more.
//!
//! Invariant: at most [`MAX_LINES`] lines a minute for each namespace, and the last of them says that further ones are left out.

use std::collections::BTreeMap;

/// Lines for one namespace in one minute.
pub const MAX_LINES: u32 = 60;
/// Namespaces that are remembered; beyond, all begin anew.
const MAX_NAMESPACES: usize = 10_000;

/// What has been written this minute.
#[derive(Debug, Default)]
pub struct LogShares {
    minute: u64,
    lines: BTreeMap<String, u32>,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It is written.
    Written,
    /// It is written, and that further ones are left out.
    Last,
    /// It is left out.
    LeftOut,
}

impl LogShares {
    /// Counts a line about a namespace.
    pub fn take(&mut self, namespace: &str, unix_seconds: u64) -> Line {
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
            std::cmp::Ordering::Less => Line::Written,
            std::cmp::Ordering::Equal => Line::Last,
            std::cmp::Ordering::Greater => Line::LeftOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loud_namespace_is_cut_short_and_a_quiet_one_is_not() {
        let mut shares = LogShares::default();
        let lines: Vec<Line> = (0..1_000).map(|_| shares.take("loud", 120)).collect();
        assert_eq!(
            lines.iter().filter(|line| **line == Line::Written).count(),
            MAX_LINES as usize - 1
        );
        assert_eq!(lines.iter().filter(|line| **line == Line::Last).count(), 1);
        assert_eq!(
            (
                shares.take("quiet", 179),
                shares.take("loud", 179),
                shares.take("loud", 180)
            ),
            (Line::Written, Line::LeftOut, Line::Written)
        );
    }
}
