//! An error with its causes: the outer message of a client error names the step, the inner ones the
//! reason.

use std::error::Error;
use std::fmt::Write as _;

/// Joins the messages of an error and its sources, outermost first. Leaves out messages that an
/// outer one already contains.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.contains(&message) {
            // Writing into a String does not fail.
            let _ = write!(text, ": {message}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Outer {
        message: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn a_cause_appears_once() {
        let outer = |message| Outer {
            message,
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
