//! Queriers among the watched pods.
//!
//! Invariant: a pod that may be a querier and is not kept is known by name, so that the queriers of
//! its namespace are not taken for complete.

use super::ClusterCache;
use crate::adapters::lock::lock;
use crate::core::kube::observed::QuerierFacts;

/// Queriers of a namespace that are kept; far more than are asked.
const MAX_QUERIERS: usize = 128;
/// Names of other pods that are kept. If there are more, the first ones stand for them.
const MAX_UNREAD: usize = 128;

impl ClusterCache {
    /// Stores what a pod is: a querier or none; an error if it is too large to tell.
    pub(in crate::controller) fn put_querier(
        &self,
        namespace: &str,
        pod: &str,
        querier: Result<Option<QuerierFacts>, ()>,
    ) {
        let unread = match querier {
            Ok(Some(facts)) => !self.has_room(namespace, pod) || !self.try_put(namespace, facts),
            Ok(None) => {
                self.remove::<QuerierFacts>(namespace, pod);
                false
            }
            // A known one stays as it is.
            Err(()) => !self.with(namespace, |facts| facts.queriers.contains_key(pod)),
        };
        self.set_unread(namespace, pod, unread);
    }

    pub(in crate::controller) fn remove_querier(&self, namespace: &str, pod: &str) {
        self.remove::<QuerierFacts>(namespace, pod);
        self.set_unread(namespace, pod, false);
    }

    /// Names of all pods that are kept in some way.
    pub(in crate::controller) fn pod_names(&self, namespace: &str) -> Vec<String> {
        self.with(namespace, |facts| {
            let pods = facts.pods.keys().chain(facts.queriers.keys());
            pods.chain(&facts.unread_pods).cloned().collect()
        })
    }

    fn has_room(&self, namespace: &str, pod: &str) -> bool {
        self.with(namespace, |facts| {
            facts.queriers.len() < MAX_QUERIERS || facts.queriers.contains_key(pod)
        })
    }

    fn set_unread(&self, namespace: &str, pod: &str, unread: bool) {
        let mut inner = lock(&self.inner);
        let Some(watched) = inner.namespaces.get_mut(namespace) else {
            return;
        };
        let names = &mut watched.facts.unread_pods;
        if !unread {
            names.remove(pod);
        } else if names.len() < MAX_UNREAD {
            names.insert(pod.to_owned());
        }
    }
}
