//! The variables of a container: parsed on demand, since few pods need it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ContainerView, Text, bounded};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvView<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// May refer to earlier variables.
    #[serde(borrow, default)]
    pub value: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub value_from: Option<EnvSource<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvSource<'a> {
    #[serde(borrow, default)]
    pub field_ref: Option<FieldRef<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef<'a> {
    /// Such as `metadata.name`.
    #[serde(borrow, default)]
    pub field_path: Text<'a>,
}

impl<'a> ContainerView<'a> {
    /// Parses the variables; empty if they cannot be parsed or exceed the limit.
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
