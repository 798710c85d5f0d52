//! How running pods get from the published to the planned windows, and the objects that protect
//! them meanwhile.

pub mod budgets;
pub mod forecast;
pub mod history;
pub mod planner;
pub mod queriers;
pub mod reconcile;
pub mod report;
pub mod services;
pub mod shard_objects;
pub mod single_holders;
pub mod withdrawal;
