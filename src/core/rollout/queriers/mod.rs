//! What the queriers of a StatefulSet say about its pods, as last asked.
//!
//! The controller decides which queriers are asked and bounds their answers; what an answer means for
//! a rollout is decided in [`reconcile`](super::reconcile).

mod listing;
mod memory;

use std::time::Duration;

pub use listing::{GrpcAddresses, Listing, PodListing};
pub use memory::QuerierMemory;

/// An older answer shows nothing: the querier may have changed its mind since.
pub const MAX_ANSWER_AGE: Duration = Duration::from_secs(10);

/// A pod that runs `thanos query` and may use pods of the StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedQuerier {
    /// `namespace/pod`.
    pub name: String,
    pub uid: String,
    /// Whether it counts although it lists none of the pods: its arguments name a Service of the
    /// StatefulSet.
    pub expected: bool,
    /// Whether the configuration names it, instead of being found in the namespace.
    pub configured: bool,
    /// How long ago the request was sent that `answer` answers: the answer shows the querier at
    /// that time or later. `None` while there is none.
    pub answered_ago: Option<Duration>,
    pub answer: QuerierAnswer,
}

impl ObservedQuerier {
    /// Whether it lists any endpoint.
    #[must_use]
    pub fn lists_any(&self) -> bool {
        matches!(&self.answer, QuerierAnswer::Stores(stores) if !stores.is_empty())
    }
}

/// What a querier last said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuerierAnswer {
    /// It was not asked yet.
    Pending,
    /// The endpoints of its `GET /api/v1/stores`.
    Stores(Vec<ListedStore>),
    /// Why it cannot be asked: TLS, authentication, no connection, an answer that is too large.
    Unknown(String),
}

/// An endpoint that a querier lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedStore {
    /// `host:port`, as listed.
    pub address: String,
    /// Why the querier does not use it now (`lastError`).
    pub error: Option<String>,
}
