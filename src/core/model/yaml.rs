//! YAML as a tree in which every value has its line and column, so that a refusal can point at the
//! place.
//!
//! Typed deserialisation would stop at the first mistake and describe it in Rust's terms; the
//! configuration reports every mistake, with key, value and what would be accepted. Deliberately
//! absent: the schema.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::core::model::bounded_yaml::{why, without_aliases};
use crate::core::model::text::truncate;

/// What all aliases of a configuration file together may add to it, in parser events: a value is
/// one, a list two.
const MAX_REPLAYED_EVENTS: usize = 10_000;
/// Values in one annotation: one for each shard of the longest list, and some. Each takes about 150
/// bytes of memory.
const MAX_VALUE_NODES: usize = 10_100;

/// A value and its place.
pub type Node = Spanned<NodeKind>;
/// A mapping's keys and values, in the order of the file.
pub type Keys = Vec<(Spanned<String>, Node)>;

#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// `~`, `null` or nothing at all.
    Null,
    Bool(bool),
    Int(i64),
    /// A number with a fraction, or one too large for [`NodeKind::Int`].
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Keys),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Line, from 1; 0 when unknown.
    pub line: u64,
    /// Column, from 1; 0 when unknown.
    pub column: u64,
    /// The mistake, without the place.
    pub why: String,
}

/// Reads one YAML document written by an administrator: a few aliases are accepted.
///
/// # Errors
/// [`ReadError`] with the place, also for duplicate keys and for documents that exceed the parser's
/// budget (nesting, aliases, size).
pub fn read(text: &str) -> Result<Node, ReadError> {
    read_with(text, of_an_administrator())
}

/// Reads every document of such a text; none if one of them is unreadable.
#[must_use]
pub fn read_documents(text: &str) -> Vec<Node> {
    serde_saphyr::from_multiple_with_options(text, of_an_administrator()).unwrap_or_default()
}

fn of_an_administrator() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // .nan and .inf become values, so that the schema can refuse them with the key.
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED_EVENTS },
        // Long comments are common in configuration files.
        budget: serde_saphyr::budget! { max_buffered_comment_events: 100_000 },
    }
}

/// Reads the value of an annotation, which any user may write: no aliases, a bounded number of
/// values, little nesting. Time and memory are proportional to the text, whose length the caller
/// bounds.
///
/// # Errors
/// As [`read`].
pub fn read_value(text: &str) -> Result<Node, ReadError> {
    read_with(text, without_aliases(MAX_VALUE_NODES))
}

fn read_with(text: &str, options: serde_saphyr::Options) -> Result<Node, ReadError> {
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |l| (l.line(), l.column()));
        ReadError {
            line,
            column,
            why: why(error),
        }
    })
}

impl NodeKind {
    /// The value in a message.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => format!("{:?}", truncate(value, 48)),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Map(items) => format!("a mapping of {}", items.len()),
        }
    }
}

impl<'de> Deserialize<'de> for NodeKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = NodeKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<NodeKind, E> {
        Ok(NodeKind::Null)
    }

    fn visit_none<E>(self) -> Result<NodeKind, E> {
        Ok(NodeKind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<NodeKind, D::Error> {
        NodeKind::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeKind, E> {
        Ok(NodeKind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<NodeKind, E> {
        Ok(NodeKind::Int(value))
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "only shown in a message; every accepted number fits an i64"
    )]
    fn visit_u64<E>(self, value: u64) -> Result<NodeKind, E> {
        Ok(i64::try_from(value).map_or(NodeKind::Float(value as f64), NodeKind::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<NodeKind, E> {
        Ok(NodeKind::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<NodeKind, E> {
        Ok(NodeKind::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<NodeKind, E> {
        Ok(NodeKind::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NodeKind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(NodeKind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeKind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = map.next_entry()? {
            items.push(item);
        }
        Ok(NodeKind::Map(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_place() {
        let node = read("a: 1\nb:\n  - x\n  - [1.5, ~, true]\n").unwrap();
        let NodeKind::Map(items) = &node.value else {
            panic!("{node:?}")
        };
        assert_eq!(
            (items[0].0.value.as_str(), &items[0].1.value),
            ("a", &NodeKind::Int(1))
        );
        assert_eq!(
            (items[0].1.referenced.line(), items[0].1.referenced.column()),
            (1, 4)
        );
        let NodeKind::List(list) = &items[1].1.value else {
            panic!("{node:?}")
        };
        assert_eq!(
            (list[0].referenced.line(), list[0].referenced.column()),
            (3, 5)
        );
        assert_eq!(
            (items[1].0.referenced.line(), items[1].0.referenced.column()),
            (2, 1)
        );
    }

    #[test]
    fn duplicates_bombs_and_broken_text_are_refused_with_a_place() {
        assert!(
            read("a: &a [x]\nb: [*a, *a]\n").is_ok(),
            "a few aliases are fine"
        );
        for text in ["a: 1\na: 2\n", "a: [1, 2\n", "a: \"x\n", "a: b: c\n"] {
            let error = read(text).unwrap_err();
            assert!(error.line > 0, "{text:?}: {error:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(&deep).is_err());
    }

    /// Some 280 bytes that stand for 10^5 values; two more lines make it 10^7.
    fn laughs() -> String {
        let ten = |name: &str| vec![format!("*{name}"); 10].join(",");
        format!(
            "[&a [x,x,x,x,x,x,x,x,x,x],&b [{}],&c [{}],&d [{}],&e [{}]]",
            ten("a"),
            ten("b"),
            ten("c"),
            ten("d")
        )
    }

    #[test]
    fn aliases_multiply_nothing() {
        let error = read(&laughs()).unwrap_err();
        assert!(error.why.contains("stand for too many values"), "{error:?}");
        for text in [
            laughs(),
            "[&a x, *a]".to_owned(),
            "{a: &a 1, b: *a}".to_owned(),
            "&a [*a]".to_owned(),
        ] {
            let error = read_value(&text).unwrap_err();
            assert!(
                error.why.contains("aliases (*name) are not accepted here"),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn a_value_of_anyone_is_small() {
        let list = |items: usize| format!("[{}]", vec!["1"; items].join(","));
        assert!(
            read_value(&list(9_999)).is_ok(),
            "the longest list of boundaries"
        );
        assert!(
            read_value(&list(11_000))
                .unwrap_err()
                .why
                .contains("too many values")
        );
        assert!(read_value(&format!("{}{}", "[".repeat(20), "]".repeat(20))).is_err());
        let long = format!("{{? {0} : 1, ? {0} : 2}}", "k".repeat(50_000));
        assert!(read_value(&long).unwrap_err().why.len() < 400);
    }
}
