//! The variables of a container: few pods need a look at them, so they stay unread bytes until something asks.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ContainerView, Text, bounded};

/// What is read of a variable.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvView<'a> {
    /// Its name.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// Its value; it may refer to variables before it.
    #[serde(borrow, default)]
    pub value: Option<Text<'a>>,
    /// Where its value comes from otherwise.
    #[serde(borrow, default)]
    pub value_from: Option<EnvSource<'a>>,
}

/// What is read of a variable's source.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource<'a> {
    /// A field of the pod.
    #[serde(borrow, default)]
    pub field_ref: Option<FieldRef<'a>>,
}

/// A field of the pod.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef<'a> {
    /// Such as `metadata.name`.
    #[serde(borrow, default)]
    pub field_path: Text<'a>,
}

impl<'a> ContainerView<'a> {
    /// Variables, read now; none where they cannot be read, or are more than any pod has.
    #[must_use]
    pub fn variables(&self) -> Vec<EnvView<'a>> {
        let read = |raw: &'a RawValue| {
            bounded::variables(&mut serde_json::Deserializer::from_str(raw.get()))
                .ok()
                .flatten()
        };
        self.env.and_then(read).unwrap_or_default()
    }
}
