//! Text for log lines, Events and terminals: cut to length, free of control characters, with
//! numbers and lists.
//!
//! Names come from the cluster: a newline in one would begin a forged log line, an escape character
//! would command the terminal, and a bidirectional control would show something else than the name.
//! Deliberately absent: HTML and JSON, whose writers escape by themselves.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

/// Whether a character controls a terminal, a line or the direction of text instead of showing
/// itself.
#[must_use]
pub fn is_control(c: char) -> bool {
    c.is_control()
        // Line and paragraph separators, and bidirectional controls.
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes control characters as a Rust literal does (`\n`, `\u{1b}`), so that the text is one line.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if !is_control(c) {
            line.push(c);
        } else if c.is_control() {
            line.extend(c.escape_default());
        } else {
            // Writing into a String does not fail.
            let _ = write!(line, "{}", c.escape_unicode());
        }
    }
    Cow::Owned(line)
}

/// Cuts a text to `max` characters, the last of which is then `…`.
#[must_use]
pub fn truncate(text: &str, max: usize) -> Cow<'_, str> {
    // A text has at least as many bytes as characters.
    if text.len() <= max || text.chars().nth(max).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .take(max.saturating_sub(1))
            .chain(['…'])
            .collect(),
    )
}

/// Cuts a text to `max` characters and escapes its control characters.
#[must_use]
pub fn short_line(text: &str, max: usize) -> String {
    one_line(&truncate(text, max)).into_owned()
}

/// A number with its noun: `1 pod`, `2 pods`.
#[must_use]
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, noun: &str) -> String {
    format!(
        "{count} {noun}{}",
        if count == N::from(1) { "" } else { "s" }
    )
}

/// The first `max` items, separated by commas, and the number of the others.
#[must_use]
pub fn listed<T: AsRef<str>>(items: &[T], max: usize) -> String {
    listed_with(items, ", ", max)
}

/// As [`listed`], with another separator.
#[must_use]
pub fn listed_with<T: AsRef<str>>(items: &[T], separator: &str, max: usize) -> String {
    let shown: Vec<&str> = items.iter().take(max).map(AsRef::as_ref).collect();
    let shown = shown.join(separator);
    match items.len().saturating_sub(max) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The older end of a range, an RFC 3339 time, for people. No block begins before 1970, so only
/// `retention: forever` gives such a time.
#[must_use]
pub fn older_end(time: &str) -> &str {
    if time < "1970" { "the beginning" } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert!(matches!(
            one_line("store-0: größer, 日本"),
            Cow::Borrowed(_)
        ));
        assert_eq!(
            one_line("a\nts=1 level=info\r\u{1b}[2J\t\u{9b}1m"),
            "a\\nts=1 level=info\\r\\u{1b}[2J\\t\\u{9b}1m"
        );
        assert_eq!(one_line("\u{202e}x\u{2028}"), "\\u{202e}x\\u{2028}");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        for (text, max, want) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("ääää", 4, "ääää"),
            ("äääää", 4, "äää…"),
            ("", 0, ""),
        ] {
            assert_eq!(truncate(text, max), want);
        }
        assert_eq!(short_line("a\nbcd", 4), "a\\nb…");
    }

    #[test]
    fn one_is_singular_and_long_lists_are_counted() {
        assert_eq!(
            [counted(1_u32, "pod"), counted(0_usize, "pod")],
            ["1 pod", "0 pods"]
        );
        assert_eq!(
            [
                older_end("1926-12-20T20:00:00Z"),
                older_end("1970-01-01T00:00:00Z")
            ],
            ["the beginning", "1970-01-01T00:00:00Z"]
        );
        assert_eq!(
            [
                listed(&["a", "b"], 2),
                listed(&["a", "b", "c"], 2),
                listed_with(&["a", "b", "c"], "; ", 2)
            ],
            ["a, b", "a, b and 1 more", "a; b and 1 more"]
        );
    }
}
