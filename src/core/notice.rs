//! Something that a `StatefulSet`'s user should see as an Event. Making and sending Events is elsewhere.

/// One Event to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// Namespace of the `StatefulSet`.
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
