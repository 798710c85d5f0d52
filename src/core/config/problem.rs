//! What is wrong with a configuration: the place, the key, the value, and what would be right.

use std::fmt;

/// One mistake. Its `Display` is one line that starts with `source:line:column:`, as compilers do.
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
    /// What is wrong with which value, and what would be accepted.
    pub why: String,
}

/// Every mistake of one configuration; never empty.
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
