//! What the rest of the program knows of the election: whether, and for how long, it may begin writes.
//!
//! Invariant: the permission is a point in time, so it ends without anybody's doing; losing the task that renews it
//! never prolongs it.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Failure;
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
struct State {
    permission: Permission,
    /// How often this process came to lead.
    terms: u64,
    holder: Option<String>,
    transitions: u64,
    failures: u64,
    error: Option<String>,
}

/// A view of the election; clones see the same one.
#[derive(Clone, Debug)]
pub struct Leadership {
    state: watch::Receiver<State>,
    /// The term that this clone was told of; `None` while it knows of none.
    told: Option<u64>,
}

impl Leadership {
    /// How long this process may still begin writes; `None` when it does not lead. Each write needs a deadline of
    /// [`election::WRITE`] at most, and a `resourceVersion`.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.state.borrow().permission.remaining()
    }

    /// Who holds the lease, as last seen.
    #[must_use]
    pub fn holder(&self) -> Option<String> {
        self.state.borrow().holder.clone()
    }

    /// `leaseTransitions`, as last seen.
    #[must_use]
    pub fn transitions(&self) -> u64 {
        self.state.borrow().transitions
    }

    /// Requests for the Lease that failed or were late.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state.borrow().failures
    }

    /// Why the last request for the Lease failed; `None` while all go well.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.state.borrow().error.clone()
    }

    /// Waits until leading begins or ends, counted from what this clone was told last (at first: not leading).
    pub async fn changed(&mut self) {
        loop {
            let (permission, terms) = {
                let state = self.state.borrow_and_update();
                (state.permission, state.terms)
            };
            let leads = permission.remaining().map(|_| terms);
            if leads != self.told {
                self.told = leads;
                return;
            }
            let ends = async {
                match permission {
                    Permission::Until(end) if leads.is_some() => sleep_until(end).await,
                    _ => std::future::pending().await,
                }
            };
            let told = async {
                if self.state.changed().await.is_err() {
                    // The task has ended: only time changes anything now.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = ends => {}
                () = told => {}
            }
        }
    }

    /// Leads always; for tests and offline use.
    #[must_use]
    pub fn always() -> Self {
        let (_, state) = watch::channel(State {
            permission: Permission::Always,
            terms: 1,
            ..State::default()
        });
        Self { state, told: None }
    }
}

/// Where the candidate's task tells what it learns. Dropping it ends the permission.
pub(super) struct Seat {
    identity: String,
    state: watch::Sender<State>,
    leads: bool,
}

impl Seat {
    pub(super) fn new(identity: String) -> (Self, Leadership) {
        let (sender, state) = watch::channel(State::default());
        (
            Self {
                identity,
                state: sender,
                leads: false,
            },
            Leadership { state, told: None },
        )
    }

    /// When the permission ends, if it was told and has not ended.
    pub(super) fn ends(&self) -> Option<Instant> {
        match self.state.borrow().permission {
            Permission::Until(end) if self.leads => Some(end),
            _ => None,
        }
    }

    /// Tells what is known now, and logs what that changes.
    pub(super) fn tell(
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
                "this replica leads no more: it stops, and gives the lease back"
            ),
            (true, false) if holder == Some(identity) => {
                tracing::warn!(
                    identity,
                    "this replica leads no more: its lease was not renewed in time"
                );
            }
            (true, false) => tracing::warn!(
                identity,
                holder,
                "this replica leads no more: the lease is not its own"
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

    /// Counts a request that failed; the first of a row is logged.
    pub(super) fn failed(&self, namespace: &str, failure: &Failure) {
        let error = failure.to_string();
        self.state.send_if_modified(|state| {
            if state.error.is_none() {
                tracing::warn!(
                    error,
                    namespace,
                    "the Lease cannot be read or written; it is tried again"
                );
            }
            state.failures += 1;
            state.error = Some(error);
            false
        });
    }

    /// A request was answered: the next failure is news again.
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

/// Registered as a collector, so that the values are those of the scrape.
#[derive(Debug)]
pub struct LeadershipMetrics(pub Leadership);

impl Collector for LeadershipMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let state = self.0.state.borrow().clone();
        let gauge = ConstGauge::new(i64::from(state.permission.remaining().is_some()));
        let help = "1 on the replica that leads; when the sum over replicas stays 0, no window moves: look at the Lease";
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
        let help = "How often the lease changed hands, as last seen; look at restarts and the API server when it keeps growing";
        counter("timeshard_leader_transitions", help, state.transitions)?;
        let help = "Requests for the Lease that failed or were late; look at RBAC and the API server when it keeps growing";
        counter("timeshard_lease_renew_failures", help, state.failures)
    }
}
