//! Lists the pods of the configuration's `queriers`, while some StatefulSet's step needs them.
//!
//! Their namespaces need not be labelled, so no watch shows them. Invariant: a list that fails, or is
//! empty, is known as such.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{MAX_QUERIERS, QuerierPoller};
use crate::adapters::lock::lock;
use crate::controller::write::Writer;
use crate::core::config::ConfiguredQueriers;
use crate::core::kube::observed::QuerierFacts;

/// Interval at which the pods are listed during a step.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// Shortest time between two lists, however often steps begin.
const MIN_PAUSE: Duration = Duration::from_secs(5);

/// The pods of one item of the configuration.
#[derive(Debug)]
pub(super) struct ConfiguredPods {
    pub(super) item: ConfiguredQueriers,
    /// At most one more than are asked; an error if they could not be listed.
    pub(super) pods: Result<Vec<QuerierFacts>, String>,
}

impl QuerierPoller {
    pub(super) async fn list_configured(&self, writer: &Writer) {
        loop {
            let began = Instant::now();
            if !lock(&self.state).sets.is_empty() {
                self.list_all(writer).await;
            }
            tokio::select! {
                () = sleep_until(began + LIST_EVERY) => {}
                () = self.begun.notified() => sleep_until(began + MIN_PAUSE).await,
            }
        }
    }

    async fn list_all(&self, writer: &Writer) {
        let fleet = self.cache.observed.fleet.load_full();
        let items = &fleet.config().queriers;
        let need = {
            let mut state = lock(&self.state);
            state.configured.retain(|known| items.contains(&known.item));
            state.need
        };
        for item in items {
            let listed = writer
                .querier_pods(&item.namespace, &item.selector, MAX_QUERIERS + 1)
                .await;
            self.put_configured(item, listed, need);
        }
    }

    /// Takes a list that was begun in this period of need; one of an earlier period may lack pods
    /// that are new since.
    pub(super) fn put_configured(
        &self,
        item: &ConfiguredQueriers,
        pods: Result<Vec<QuerierFacts>, String>,
        need: u64,
    ) {
        let mut state = lock(&self.state);
        if state.need != need {
            return;
        }
        let known = state.configured.iter_mut().find(|one| one.item == *item);
        let changed = match known {
            Some(known) if known.pods == pods => false,
            Some(known) => {
                known.pods = pods;
                true
            }
            None => {
                let item = item.clone();
                state.configured.push(ConfiguredPods { item, pods });
                true
            }
        };
        if changed {
            state.touch("", true);
            drop(state);
            self.woken.notify_one();
        }
    }
}
