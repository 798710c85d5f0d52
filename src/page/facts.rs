//! The page's input: what the program knows, without copying reports.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::core::model::window::Window;
use crate::core::rollout::report::SetReport;

#[derive(Clone, Debug)]
pub struct PageFacts {
    /// The server itself: an object with version, leader and errors.
    pub head: Value,
    pub sets: Vec<PageSet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSet {
    /// The planned shards.
    pub shards: Vec<PageShard>,
    /// Why its annotations are invalid.
    pub problem: Option<String>,
    /// The leader's report; its state is `Unknown` on other replicas, and before the first report.
    pub report: Arc<SetReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PageShard {
    /// How many pods are planned.
    pub replicas: u32,
    pub window: Window,
}
