//! RFC 6902 operations, built by hand: few, borrowed where possible, and written straight to bytes.
//!
//! `json_patch::diff` compares arrays by position and would rewrite what it only moved, so it is not used. Pointers are
//! escaped here and nowhere else.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::sidecar_spec::{Container, Mount, Volume};

/// One operation.
#[derive(Debug, Serialize)]
pub struct Operation<'a> {
    op: &'static str,
    path: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value<'a>>,
}

/// What an operation puts in place.
#[derive(Debug)]
pub enum Value<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A whole number.
    Number(i64),
    /// A truth value.
    Truth(bool),
    /// A list of strings.
    Words(Vec<Cow<'a, str>>),
    /// A mapping with one string.
    Pair(&'static str, Cow<'a, str>),
    /// A container.
    Container(Box<Container<'a>>),
    /// A list with these containers.
    Containers(Vec<Container<'a>>),
    /// JSON that was written before.
    Rendered(Arc<RawValue>),
    /// A list with one element that was written before.
    RenderedList(Arc<RawValue>),
    /// A volume.
    Volume(Volume<'a>),
    /// A list with these volumes.
    Volumes(Vec<Volume<'a>>),
    /// A volume mount.
    Mount(Mount),
    /// A list with these volume mounts.
    Mounts(Vec<Mount>),
}

impl<'a> Operation<'a> {
    /// `add`: a member is set (also when it is there), an array element is inserted, `-` appends.
    pub fn add(path: impl Into<Cow<'static, str>>, value: Value<'a>) -> Self {
        Self {
            op: "add",
            path: path.into(),
            value: Some(value),
        }
    }

    /// `replace`: what is there gives way.
    pub fn replace(path: impl Into<Cow<'static, str>>, value: Value<'a>) -> Self {
        Self {
            op: "replace",
            path: path.into(),
            value: Some(value),
        }
    }

    /// `remove`.
    pub fn remove(path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            op: "remove",
            path: path.into(),
            value: None,
        }
    }

    /// The JSON pointer.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A name as one token of a JSON pointer (RFC 6901).
#[must_use]
pub fn token(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) {
        Cow::Owned(name.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(name)
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Truth(truth) => serializer.serialize_bool(*truth),
            Self::Words(words) => words.serialize(serializer),
            Self::Pair(key, value) => serializer.collect_map([(key, value)]),
            Self::Container(container) => container.serialize(serializer),
            Self::Containers(containers) => containers.serialize(serializer),
            Self::Rendered(json) => json.as_ref().serialize(serializer),
            Self::RenderedList(json) => [json.as_ref()].serialize(serializer),
            Self::Volume(volume) => volume.serialize(serializer),
            Self::Volumes(volumes) => volumes.serialize(serializer),
            Self::Mount(mount) => mount.serialize(serializer),
            Self::Mounts(mounts) => mounts.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_escaped() {
        assert_eq!(
            token("thanos-timeshard.io/shard"),
            "thanos-timeshard.io~1shard"
        );
        assert_eq!(token("a~b/c"), "a~0b~1c");
        assert_eq!(token("plain"), "plain");
    }
}
