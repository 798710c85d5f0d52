//! The server's log as text: one line for each event, whatever is in its fields.
//!
//! `tracing_subscriber` writes messages and `%` fields as they are, so a newline in a name would begin a line that looks like
//! one of ours, and an escape character would command the terminal of whoever reads it. Here every value is written in one line
//! and has a bound. The JSON format escapes by itself.

use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

use crate::core::printable::{cut, one_line};

/// The longest value of a field, and the longest message. Characters.
const MAX_VALUE_CHARS: usize = 4_096;

/// How fields are written: the message, then `key=value`.
#[must_use]
pub fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        let text = cut(&text, MAX_VALUE_CHARS);
        let text = one_line(&text);
        match field.name() {
            "message" => write!(writer, "{text}"),
            // Where a line of the log crate comes from is in the event's metadata.
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{}={text}", name.trim_start_matches("r#")),
        }
    })
    .delimited(" ")
}
