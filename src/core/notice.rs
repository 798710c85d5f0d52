//! What users are told by the API server: Events on a StatefulSet, and warnings at a request. Sending them is elsewhere.

/// Longer warnings are cut or dropped by the API server. Characters.
pub const MAX_WARNING_CHARS: usize = 256;
/// All warnings of one answer; what is more is dropped by the API server. Characters.
pub const MAX_WARNINGS_CHARS: usize = 4096;

/// One Event to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// Namespace of the StatefulSet.
    pub namespace: String,
    /// Its name.
    pub statefulset: String,
    /// Its UID, if known.
    pub uid: String,
    /// `CamelCase`, for machines.
    pub reason: &'static str,
    /// A sentence, for people.
    pub message: String,
}

/// A sentence as a warning, cut where it is too long.
#[must_use]
pub fn warning(mut sentence: String) -> String {
    if sentence.chars().count() > MAX_WARNING_CHARS {
        sentence = sentence
            .chars()
            .take(MAX_WARNING_CHARS - 1)
            .chain(['…'])
            .collect();
    }
    sentence
}
