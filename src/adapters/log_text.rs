//! The server's log as text: one line per event, whatever its fields contain.
//!
//! `tracing_subscriber` writes messages and `%` fields as they are, so a newline in a name would
//! begin a line that looks like one of the server, and an escape character would control the
//! terminal of the reader. Here every value is written in one line with a limit. The JSON format
//! escapes by itself.

use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;

use crate::core::model::text::{one_line, truncate};

/// The limit of a field value and of a message.
const MAX_VALUE_CHARS: usize = 4_096;

/// Formats an event as the message, then `key=value`.
#[must_use]
pub fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        let text = truncate(&text, MAX_VALUE_CHARS);
        let text = one_line(&text);
        match field.name() {
            "message" => write!(writer, "{text}"),
            // The origin of a line of the log crate is in the metadata.
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{}={text}", name.trim_start_matches("r#")),
        }
    })
    .delimited(" ")
}
