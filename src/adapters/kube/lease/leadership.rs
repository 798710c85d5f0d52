//! The election as seen by the rest of the program: whether, and for how long, it may begin writes.
//!
//! Invariant: the permission is a point in time, so it expires by itself; losing the task that
//! renews it never prolongs it.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;
use tokio::time::Instant;

use super::LeaseFailure;
use crate::adapters::clock;
use crate::core::election;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Permission {
    #[default]
    None,
    Until(Instant),
    Always,
}

impl Permission {
    fn remaining(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Until(end) => end
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero()),
            Self::Always => Some(election::RENEW_DEADLINE),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct LeadershipState {
    permission: Permission,
    /// How often this process began to lead.
    terms: u64,
    holder: Option<String>,
    transitions: u64,
    failures: u64,
    error: Option<String>,
}

/// A view of the election, shared by its clones.
#[derive(Clone, Debug)]
pub struct Leadership {
    state: watch::Receiver<LeadershipState>,
    /// The last term that this clone reported; `None` if it reported none or its end.
    reported: Option<u64>,
}

impl Leadership {
    /// For how long this process may begin writes; `None` if it does not lead. Each write needs a
    /// deadline of at most [`election::WRITE`], and a `resourceVersion`.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.state.borrow().permission.remaining()
    }

    /// The holder of the lease, as last read.
    #[must_use]
    pub fn holder(&self) -> Option<String> {
        self.state.borrow().holder.clone()
    }

    /// `leaseTransitions`, as last read.
    #[must_use]
    pub fn transitions(&self) -> u64 {
        self.state.borrow().transitions
    }

    /// Number of failed requests for the Lease.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state.borrow().failures
    }

    /// Why the last request for the Lease failed.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.state.borrow().error.clone()
    }

    /// Waits until leading begins or ends, compared to what this clone last reported (at first: not
    /// leading).
    pub async fn changed(&mut self) {
        loop {
            let (permission, terms) = {
                let state = self.state.borrow_and_update();
                (state.permission, state.terms)
            };
            let leads = permission.remaining().map(|_| terms);
            if leads != self.reported {
                self.reported = leads;
                return;
            }
            let ends = match permission {
                Permission::Until(end) if leads.is_some() => Some(end),
                _ => None,
            };
            let changed = async {
                if self.state.changed().await.is_err() {
                    // The task has ended, so only time changes the permission.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = clock::at(ends) => {}
                () = changed => {}
            }
        }
    }

    /// Always leads; for tests and offline use.
    #[must_use]
    pub fn always() -> Self {
        let (_, state) = watch::channel(LeadershipState {
            permission: Permission::Always,
            terms: 1,
            ..LeadershipState::default()
        });
        Self {
            state,
            reported: None,
        }
    }
}

/// Publishes the state of the candidate's task. Dropping it ends the permission.
pub(super) struct Seat {
    identity: String,
    state: watch::Sender<LeadershipState>,
    leads: bool,
}

impl Seat {
    pub(super) fn new(identity: String) -> (Self, Leadership) {
        let (sender, state) = watch::channel(LeadershipState::default());
        (
            Self {
                identity,
                state: sender,
                leads: false,
            },
            Leadership {
                state,
                reported: None,
            },
        )
    }

    /// When the published permission ends.
    pub(super) fn ends(&self) -> Option<Instant> {
        match self.state.borrow().permission {
            Permission::Until(end) if self.leads => Some(end),
            _ => None,
        }
    }

    /// Publishes the current state, and logs changes.
    pub(super) fn publish(
        &mut self,
        until: Option<Instant>,
        holder: Option<&str>,
        transitions: u32,
        retiring: bool,
    ) {
        let permission = until.map_or(Permission::None, Permission::Until);
        let leads = permission.remaining().is_some();
        let before = self.state.borrow().holder.clone();
        let identity = self.identity.as_str();
        match (self.leads, leads) {
            (false, true) => tracing::info!(identity, transitions, "this replica leads"),
            (true, false) if retiring => tracing::info!(
                identity,
                "this replica stops leading and releases the lease"
            ),
            (true, false) if holder == Some(identity) => {
                tracing::warn!(
                    identity,
                    "this replica stops leading: the lease was not renewed in time"
                );
            }
            (true, false) => tracing::warn!(
                identity,
                holder,
                "this replica stops leading: it does not hold the lease"
            ),
            _ if before.as_deref() != holder && holder.is_some_and(|holder| holder != identity) => {
                tracing::info!(holder, transitions, "another replica leads");
            }
            _ => {}
        }
        self.state.send_if_modified(|state| {
            let changed = state.permission != permission;
            state.terms += u64::from(leads && !self.leads);
            state.permission = permission;
            if state.holder.as_deref() != holder {
                state.holder = holder.map(ToOwned::to_owned);
            }
            state.transitions = transitions.into();
            changed
        });
        self.leads = leads;
    }

    /// Counts a failed request; logs the first one in a row.
    pub(super) fn failed(&self, namespace: &str, failure: &LeaseFailure) {
        let error = failure.to_string();
        self.state.send_if_modified(|state| {
            if state.error.is_none() {
                tracing::warn!(
                    error,
                    namespace,
                    "the Lease cannot be read or written, retrying"
                );
            }
            state.failures += 1;
            state.error = Some(error);
            false
        });
    }

    /// Clears the error, as a request was answered.
    pub(super) fn answered(&self) {
        self.state.send_if_modified(|state| {
            state.error = None;
            false
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.state
            .send_modify(|state| state.permission = Permission::None);
    }
}

/// A collector, so that the values are read at the scrape.
#[derive(Debug)]
pub struct LeadershipMetrics(pub Leadership);

impl Collector for LeadershipMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let state = self.0.state.borrow().clone();
        let gauge = ConstGauge::new(i64::from(state.permission.remaining().is_some()));
        let help =
            "1 on the leader. If the sum over replicas stays 0, no window moves: check the Lease";
        gauge.encode(encoder.encode_descriptor(
            "timeshard_leader",
            help,
            None,
            gauge.metric_type(),
        )?)?;
        let mut counter = |name, help, value: u64| {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        let help = "How often the holder of the lease changed. If it keeps growing, check restarts and the API server";
        counter("timeshard_leader_transitions", help, state.transitions)?;
        let help =
            "Failed requests for the Lease. If it keeps growing, check RBAC and the API server";
        counter("timeshard_lease_renew_failures", help, state.failures)
    }
}
