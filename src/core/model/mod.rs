//! The values that everything else is about: windows, durations, entries, names, and text for
//! people.

pub mod bounded_yaml;
pub mod duration;
pub mod entry;
pub mod host_names;
pub mod names;
pub mod text;
pub mod version;
pub mod window;
#[cfg(feature = "cli")]
pub mod yaml;
