//! Numbers and lists in sentences.

/// A number of things: `1 pod`, `2 pods`.
#[must_use]
pub fn counted(count: impl Into<u64>, what: &str) -> String {
    let count = count.into();
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The first `most` of a list, and how many more there are.
#[must_use]
pub fn listed<T: AsRef<str>>(items: &[T], most: usize) -> String {
    let shown: Vec<&str> = items.iter().take(most).map(AsRef::as_ref).collect();
    match items.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The older end of a range, an RFC 3339 time, for people: before 1970 no block begins, so nothing but `retention: forever` asks
/// for that time.
#[must_use]
pub fn older_end(time: &str) -> &str {
    if time < "1970" { "the beginning" } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many_and_what_is_cut_is_said() {
        assert_eq!(
            (
                counted(1_u32, "pod"),
                counted(0_u32, "pod"),
                counted(2_u32, "pod")
            ),
            ("1 pod".into(), "0 pods".into(), "2 pods".into())
        );
        assert_eq!(
            (
                older_end("1926-12-20T20:00:00Z"),
                older_end("1970-01-01T00:00:00Z")
            ),
            ("the beginning", "1970-01-01T00:00:00Z")
        );
        assert_eq!(
            (listed(&["a", "b"], 2), listed(&["a", "b", "c"], 2)),
            ("a, b".to_owned(), "a, b and 1 more".to_owned())
        );
    }
}
