//! Mistakes of a configuration: place, key, value, and what would be accepted.

use std::cmp::Reverse;
use std::fmt;

use crate::core::model::text::truncate;

/// One mistake. `Display` is one line that starts with `source:line:column:`, as compilers print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File name or annotation.
    pub source: String,
    /// Line, from 1; 0 when the source has no lines.
    pub line: u64,
    /// Column, from 1; 0 when the source has no lines.
    pub column: u64,
    /// The key as the user writes it, with its block, or empty for the document itself.
    pub key: String,
    /// The mistake, and what would be accepted.
    pub why: String,
}

/// Every mistake of a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.why)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// Reports a key that does not exist, with the nearest one that does.
pub(super) fn unknown_key(given: &str, known: &[&str]) -> String {
    match nearest(given, known) {
        Some(key) => format!("this key is unknown; did you mean {key}?"),
        None => format!(
            "this key is unknown; the keys here are {}",
            known.join(", ")
        ),
    }
}

/// Returns the known name that was probably meant: the one with the fewest edits, and of several the
/// one with the longest common beginning.
#[must_use]
pub fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    // The distance takes time proportional to both lengths.
    let given = truncate(given, 64);
    known
        .iter()
        .map(|key| {
            let beginning = given.bytes().zip(key.bytes());
            let common = beginning.take_while(|(a, b)| a == b).count();
            (strsim::levenshtein(&given, key), Reverse(common), *key)
        })
        .min()
        .filter(|(distance, ..)| *distance <= 3)
        .map(|(.., key)| key)
}
