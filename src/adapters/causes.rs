//! An error with all that is behind it: the outer words of a client error name the step, the inner ones the cause.

use std::error::Error;
use std::fmt::Write as _;

/// The error's own words and those of its sources, outermost first; words that an outer one has already are left out.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            // Writing into a String does not fail.
            let _ = write!(text, ": {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Outer {
        words: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn the_cause_is_told_once() {
        let outer = |words| Outer {
            words,
            source: std::io::Error::other("connection refused"),
        };
        assert_eq!(
            with_causes(&outer("client error (Connect)")),
            "client error (Connect): connection refused"
        );
        assert_eq!(
            with_causes(&outer("connect: connection refused (111)")),
            "connect: connection refused (111)"
        );
    }
}
