//! The agent's log: one logfmt line per event on stderr, like the thanos log next to it.
//!
//! Deliberately absent: spans, colours, filters. The agent logs changes only.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use chrono::SecondsFormat;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::clock;

#[derive(Debug)]
struct Logfmt {
    caller: &'static str,
}

/// Sends events of level info and above to stderr; `caller` names the part of the program. Later
/// calls do nothing.
pub fn init(caller: &'static str) {
    // Only tests call it twice; the first subscriber stays.
    let _ = tracing::subscriber::set_global_default(Logfmt { caller });
}

impl Subscriber for Logfmt {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
            && metadata.is_event()
            && metadata.target().starts_with("thanos_timeshard")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let time = clock::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            _ => "info",
        };
        let mut line = LogfmtLine(format!("ts={time} caller={} level={level}", self.caller));
        event.record(&mut line);
        line.0.push('\n');
        // A failure of the log itself cannot be reported.
        let _ = std::io::stderr().write_all(line.0.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct LogfmtLine(String);

impl Visit for LogfmtLine {
    fn record_str(&mut self, field: &Field, value: &str) {
        let key = if field.name() == "message" {
            "msg"
        } else {
            field.name()
        };
        let plain = !value.is_empty()
            && value
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'=' | b'\\'));
        // Writing into a String does not fail.
        let _ = if plain {
            write!(self.0, " {key}={value}")
        } else {
            write!(self.0, " {key}={value:?}")
        };
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
