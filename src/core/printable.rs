//! Text of others made safe to show: what comes from the cluster or from a pod is put into log lines, Events and terminals.
//!
//! A newline in a name would begin a log line that looks like ours, an escape character would command the terminal, and a
//! character that turns the direction of text would show something else than is there. Deliberately absent: HTML and JSON, whose
//! writers escape by themselves.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character does something else than show itself.
#[must_use]
pub fn acts(c: char) -> bool {
    c.is_control()
        // Line and paragraph separators, and what turns the direction of text.
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in one line, such characters written as in a Rust literal (`\n`, `\u{1b}`).
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if !acts(c) {
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

/// At most `most` characters, the last of them `…` where something is cut off.
#[must_use]
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    // A text has at least as many bytes as characters.
    if text.len() <= most || text.chars().nth(most).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .take(most.saturating_sub(1))
            .chain(['…'])
            .collect(),
    )
}

/// Both: at most `most` characters of the text, in one line.
#[must_use]
pub fn short_line(text: &str, most: usize) -> String {
    one_line(&cut(text, most)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_written_out() {
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
    fn what_is_long_is_cut() {
        for (text, most, want) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("ääää", 4, "ääää"),
            ("äääää", 4, "äää…"),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text, most), want);
        }
        assert_eq!(short_line("a\nbcd", 4), "a\\nb…");
    }
}
