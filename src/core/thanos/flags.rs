//! Thanos' two time flags: found and replaced in arguments, and read from Thanos' report of its flags.
//!
//! Kingpin accepts `--flag=value` and `--flag value`; each keeps its form and its place, and all
//! other arguments stay byte for byte. Deliberately absent: `@file` arguments, which admission
//! refuses.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::core::model::window::{Bound, Window};

pub const MIN_TIME: &str = "--min-time";
pub const MAX_TIME: &str = "--max-time";

/// Thanos' default of `--max-time`.
const DEFAULT_MAX: &str = "9999-12-31T23:59:59Z";

/// Returns the window of these arguments. Absent flags and invalid values mean Thanos' defaults;
/// Thanos itself refuses the latter with a good message.
#[must_use]
pub fn initial_window(args: &[OsString]) -> Window {
    let bound = |flag: &str| value(args, flag).and_then(|text| text.to_str()?.parse().ok());
    let newest = || {
        DEFAULT_MAX
            .parse()
            .unwrap_or(Bound::Absolute(DateTime::<Utc>::MAX_UTC))
    };
    Window {
        min: bound(MIN_TIME).unwrap_or(Bound::BEGINNING),
        max: bound(MAX_TIME).unwrap_or_else(newest),
    }
}

/// Replaces the window in the arguments, or appends the flags.
#[must_use]
pub fn with_window(args: &[OsString], window: Window) -> Vec<OsString> {
    let mut replaced = args.to_vec();
    let flags = [
        (MIN_TIME, window.min.to_string()),
        (MAX_TIME, window.max.to_string()),
    ];
    let found = flags
        .each_ref()
        .map(|(flag, value)| set(&mut replaced, flag, value));
    for ((flag, value), found) in flags.iter().zip(found) {
        if !found {
            replaced.push(format!("{flag}={value}").into());
        }
    }
    replaced
}

/// Reads a bound from `/api/v1/status/flags`: a relative duration, or a time in Go's notation.
#[must_use]
pub fn effective_bound(text: &str) -> Option<Bound> {
    if let Ok(bound) = text.parse() {
        return Some(bound);
    }
    // Go: `2026-01-31 00:00:00.5 +0100 CET`, here always without a monotonic part.
    let mut words = text.split(' ');
    let local = format!("{} {}", words.next()?, words.next()?);
    let local = NaiveDateTime::parse_from_str(&local, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    let offset: chrono::FixedOffset = words.next()?.parse().ok()?;
    Some(Bound::Absolute(
        local
            .and_local_timezone(offset)
            .single()?
            .with_timezone(&Utc),
    ))
}

fn value<'a>(args: &'a [OsString], flag: &str) -> Option<&'a OsStr> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match matches(arg, flag) {
            Some(Matched::Joined(value)) => return Some(value),
            Some(Matched::Alone) => return args.next().map(OsString::as_os_str),
            None => {}
        }
    }
    None
}

/// Replaces every value of the flag. Returns whether there was one.
fn set(args: &mut [OsString], flag: &str, value: &str) -> bool {
    let joined = || OsString::from_vec([flag.as_bytes(), b"=", value.as_bytes()].concat());
    let mut found = false;
    let mut at = 0;
    while at < args.len() {
        match matches(&args[at], flag) {
            Some(Matched::Alone) if at + 1 < args.len() => {
                at += 1;
                args[at] = value.into();
            }
            Some(_) => args[at] = joined(),
            None => {
                at += 1;
                continue;
            }
        }
        found = true;
        at += 1;
    }
    found
}

/// The two forms of a flag.
enum Matched<'a> {
    /// `--flag=value`
    Joined(&'a OsStr),
    /// `--flag`, its value is the next argument
    Alone,
}

fn matches<'a>(arg: &'a OsStr, flag: &str) -> Option<Matched<'a>> {
    match arg.as_bytes().strip_prefix(flag.as_bytes())? {
        [] => Some(Matched::Alone),
        [b'=', value @ ..] => Some(Matched::Joined(OsStr::from_bytes(value))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn window(min: &str, max: &str) -> Window {
        Window {
            min: min.parse().unwrap(),
            max: max.parse().unwrap(),
        }
    }

    #[test]
    fn both_forms_keep_their_place() {
        let window = window("-10d", "1d");
        for (before, after) in [
            (
                "store --min-time=-1d --max-time=0s --x",
                "store --min-time=-10d --max-time=1d --x",
            ),
            (
                "store --min-time -1d --x --max-time 0s",
                "store --min-time -10d --x --max-time 1d",
            ),
            ("store --x", "store --x --min-time=-10d --max-time=1d"),
            (
                "store --min-time=-1d",
                "store --min-time=-10d --max-time=1d",
            ),
            ("store --max-time", "store --max-time=1d --min-time=-10d"),
            (
                "store --min-times=1 --max-time=",
                "store --min-times=1 --max-time=1d --min-time=-10d",
            ),
        ] {
            assert_eq!(with_window(&args(before), window), args(after), "{before}");
            assert_eq!(initial_window(&args(after)), window);
        }
        let strange = vec![OsString::from_vec(vec![0xff, b'='])];
        assert_eq!(with_window(&strange, window)[0], strange[0]);
    }

    #[test]
    fn absent_flags_mean_all_time() {
        let everything = window("0000-01-01T00:00:00Z", DEFAULT_MAX);
        assert_eq!(initial_window(&args("store")), everything);
        assert_eq!(
            initial_window(&args("store --min-time=yesterday --max-time")),
            everything
        );
    }

    #[test]
    fn bounds_in_thanos_notation_are_read() {
        for (text, bound) in [
            ("-1d12h", "-36h"),
            ("1d", "24h"),
            ("0000-01-01 00:00:00 +0000 UTC", "0000-01-01T00:00:00Z"),
            ("9999-12-31 23:59:59 +0000 UTC", DEFAULT_MAX),
            ("2026-01-31 01:00:00.5 +0100 CET", "2026-01-31T00:00:00.5Z"),
            ("2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"),
        ] {
            assert_eq!(
                effective_bound(text),
                Some(bound.parse().unwrap()),
                "{text}"
            );
        }
        for text in [
            "",
            "yesterday",
            "2026-01-31",
            "2026-01-31 00:00:00",
            "2026-01-31 00:00:00 UTC",
        ] {
            assert_eq!(effective_bound(text), None, "{text}");
        }
    }
}
