//! The parts of Kubernetes objects that decisions depend on.

pub mod foreign;
pub mod json_trim;
pub mod max_unavailable;
pub mod observed;
pub mod pod_address;
pub mod pod_template;
pub mod recognise;
pub mod scope;
pub mod statefulset;
pub mod yaml_scalars;
