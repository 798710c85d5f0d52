//! The ConfigMap annotation that lists blocks which only one pod has loaded: the leader writes it,
//! the guard of every replica reads it.
//!
//! A JSON object: pod name to a list of ULIDs. Invariants: the written value is bounded and
//! deterministic; a value that is too long or has another form is ignored entirely, since anyone
//! who may edit the ConfigMap can write it. Deliberately absent: which pods are single holders (the
//! planner decides).

use std::collections::{BTreeMap, BTreeSet};

use crate::core::agent::loaded::ULID_CHARS;

/// Blocks listed for one pod: the first ones by ULID.
pub const MAX_BLOCKS: usize = 8;
/// Longest value, in bytes. Kubernetes allows 256 KiB for all annotations of an object.
pub const MAX_BYTES: usize = 32 * 1024;

/// By pod, the blocks that only it has loaded.
pub type SingleHolders = BTreeMap<String, Vec<String>>;

/// Returns the annotation's value; `None` if there are no single holders. Omits entries beyond the
/// bounds.
#[must_use]
pub fn render(holders: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut text = String::from("{");
    for (pod, blocks) in holders.iter().filter(|(_, blocks)| !blocks.is_empty()) {
        let named: Vec<&String> = blocks.iter().take(MAX_BLOCKS).collect();
        let (Ok(pod), Ok(named)) = (serde_json::to_string(pod), serde_json::to_string(&named))
        else {
            continue;
        };
        let comma = if text.len() > 1 { "," } else { "" };
        if text.len() + comma.len() + pod.len() + named.len() + 2 > MAX_BYTES {
            break;
        }
        text.extend([comma, &pod, ":", &named]);
    }
    text.push('}');
    (text.len() > 2).then_some(text)
}

/// Parses the annotation's value; empty if [`render`] cannot have written it.
#[must_use]
pub fn parse(text: &str) -> SingleHolders {
    if text.len() > MAX_BYTES {
        return SingleHolders::new();
    }
    let holders: SingleHolders = serde_json::from_str(text).unwrap_or_default();
    let is_ulid = |text: &String| {
        text.len() == ULID_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let is_valid = holders.values().all(|blocks| {
        !blocks.is_empty() && blocks.len() <= MAX_BLOCKS && blocks.iter().all(is_ulid)
    });
    if is_valid {
        holders
    } else {
        SingleHolders::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ulid(number: usize) -> String {
        format!("01K1H8R1{number:018}")
    }

    fn held(pods: usize, blocks: usize) -> BTreeMap<String, BTreeSet<String>> {
        (0..pods)
            .map(|pod| (format!("store-{pod}"), (0..blocks).map(ulid).collect()))
            .collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let text = render(&held(2, 2)).unwrap();
        assert_eq!(
            text,
            r#"{"store-0":["01K1H8R1000000000000000000","01K1H8R1000000000000000001"],"store-1":["01K1H8R1000000000000000000","01K1H8R1000000000000000001"]}"#
        );
        assert_eq!(parse(&text)["store-1"], [ulid(0), ulid(1)]);
        assert_eq!((render(&held(0, 0)), render(&held(3, 0))), (None, None));
    }

    #[test]
    fn it_is_bounded_both_ways() {
        let text = render(&held(10_000, 300)).unwrap();
        assert!(
            text.len() <= MAX_BYTES && text.len() > MAX_BYTES - 1024,
            "{}",
            text.len()
        );
        let read = parse(&text);
        assert!(read.len() > 100 && read.values().all(|blocks| blocks.len() == MAX_BLOCKS));
        assert!(parse(&format!("{text}{}", " ".repeat(MAX_BYTES))).is_empty());
    }

    #[test]
    fn other_values_are_ignored() {
        for text in [
            "",
            "null",
            "[]",
            "{",
            r#"{"store-0":"01K"}"#,
            r#"{"store-0":[]}"#,
            r#"{"store-0":["x"]}"#,
            r#"{"store-0":["\n1K1H8R1000000000000000000"]}"#,
        ] {
            assert!(parse(text).is_empty(), "{text}");
        }
    }
}
