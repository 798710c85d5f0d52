//! Limits per sender: a sender that asks for more than its share delays only itself.

pub mod connections;
pub mod log_lines;
pub mod memory;
pub mod peer;
pub mod places;
pub mod queue;
pub mod shares;
