//! The refresher: moves what is published towards what is desired. What to do is decided in core; here it is done.

mod bodies;
mod pace;
pub mod write;
