//! Messages to users through the API server: Events on a StatefulSet, and warnings in a response.
//! Adapters send them.

use std::borrow::Cow;

use crate::core::model::text::truncate;

/// The API server cuts or drops longer warnings. Characters.
pub const MAX_WARNING_CHARS: usize = 256;
/// The API server drops warnings beyond this in total, per response. Characters.
pub const MAX_WARNINGS_CHARS: usize = 4096;

/// An Event to write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectEvent {
    /// The StatefulSet's.
    pub namespace: String,
    pub statefulset: String,
    /// The StatefulSet's; empty if unknown.
    pub uid: String,
    /// `CamelCase`.
    pub reason: &'static str,
    pub message: String,
}

/// Cuts a sentence to the length of a warning.
#[must_use]
pub fn warning(sentence: String) -> String {
    match truncate(&sentence, MAX_WARNING_CHARS) {
        Cow::Owned(short) => short,
        Cow::Borrowed(_) => sentence,
    }
}
