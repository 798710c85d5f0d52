//! RFC 6902 operations, built by hand: few, borrowed where possible, and serialised directly.
//!
//! `json_patch::diff` is not used: it compares arrays by position and would rewrite elements that
//! only moved. JSON pointers are escaped only here.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::core::gateways::container::{Container, Mount, Volume};

#[derive(Debug, Serialize)]
pub struct Operation<'a> {
    op: &'static str,
    path: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value<'a>>,
}

#[derive(Debug)]
pub enum Value<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    Truth(bool),
    Strings(Vec<Cow<'a, str>>),
    /// A mapping of one key to a string.
    Pair(&'static str, Cow<'a, str>),
    Container(Box<Container<'a>>),
    Containers(Vec<Container<'a>>),
    /// JSON that was serialised earlier.
    Rendered(Arc<RawValue>),
    /// A list of one element that was serialised earlier.
    RenderedList(Arc<RawValue>),
    Volume(Volume<'a>),
    Volumes(Vec<Volume<'a>>),
    Mount(Mount),
    Mounts(Vec<Mount>),
    /// References to objects by their names.
    References(Vec<Reference<'a>>),
}

/// A reference to an object of the pod's namespace.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reference<'a> {
    pub name: &'a str,
}

impl<'a> Operation<'a> {
    /// Sets a member, whether or not it exists, or inserts an array element; `-` appends.
    pub fn add(path: impl Into<Cow<'static, str>>, value: Value<'a>) -> Self {
        Self {
            op: "add",
            path: path.into(),
            value: Some(value),
        }
    }

    /// Replaces an existing value.
    pub fn replace(path: impl Into<Cow<'static, str>>, value: Value<'a>) -> Self {
        Self {
            op: "replace",
            path: path.into(),
            value: Some(value),
        }
    }

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

/// Escapes a name as a token of a JSON pointer (RFC 6901).
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
            Self::Strings(strings) => strings.serialize(serializer),
            Self::Pair(key, value) => serializer.collect_map([(key, value)]),
            Self::Container(container) => container.serialize(serializer),
            Self::Containers(containers) => containers.serialize(serializer),
            Self::Rendered(json) => json.as_ref().serialize(serializer),
            Self::RenderedList(json) => [json.as_ref()].serialize(serializer),
            Self::Volume(volume) => volume.serialize(serializer),
            Self::Volumes(volumes) => volumes.serialize(serializer),
            Self::Mount(mount) => mount.serialize(serializer),
            Self::Mounts(mounts) => mounts.serialize(serializer),
            Self::References(references) => references.serialize(serializer),
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
