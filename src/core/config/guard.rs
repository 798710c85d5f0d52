//! The `guard` block.

use super::draft::SourceSpan;
use super::problem::{Problem, unknown_key};
use crate::core::model::yaml::{Node, NodeKind};

/// How the guard treats a change of a StatefulSet that would leave part of the time unserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardMode {
    /// Refuses it. The default, because a refusal names the safe way and delays no pod, while lost
    /// coverage is reported nowhere else.
    #[default]
    Deny,
    /// Allows it with a warning.
    Warn,
    /// Allows it silently.
    Off,
}

impl GuardMode {
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "deny" => Some(Self::Deny),
            "warn" => Some(Self::Warn),
            "off" => Some(Self::Off),
            _ => None,
        }
    }

    pub(super) fn set(
        &mut self,
        place: &SourceSpan,
        key: &str,
        node: &Node,
        problems: &mut Vec<Problem>,
    ) {
        let mode = match (key, &node.value) {
            ("mode", NodeKind::Text(name)) => Self::of(name),
            // YAML 1.1 reads off as false.
            ("mode", NodeKind::Bool(false)) => Some(Self::Off),
            ("mode", _) => None,
            (other, _) => return problems.push(place.refuse(unknown_key(other, &["mode"]))),
        };
        match mode {
            Some(mode) => *self = mode,
            None => problems.push(place.not_accepted(&node.value, "deny, warn or off")),
        }
    }
}
