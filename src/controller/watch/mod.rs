//! Watches of every server: pods, PDBs and Services of every labelled namespace, kept in
//! [`ClusterCache`].
//!
//! Replicas that do not lead watch as well: their guard needs to know which pods are ready, and a
//! new leader needs to know for how long. Invariants: nothing outside labelled namespaces is
//! watched; objects are converted to facts as they are read; nothing is written. StatefulSets and
//! ConfigMaps are watched by `adapters::kube::cluster`; their changes are recorded here.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watcher;
use kube::{Api, Client};

use crate::adapters::kube::facts;
use crate::adapters::kube::partial::{Partial, PartialKind};
use crate::adapters::kube::watch::{NamespaceTasks, Patience, config, keep, of_namespace};
use crate::controller::cache::{ClusterCache, Fact, ObjectKind};
use crate::core::fairness::memory::Why;
use crate::core::kube::observed::PodFacts;

/// Which kinds are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// For a replica that may lead: everything that a rollout depends on.
    Rollouts,
    /// For a replica that never leads (`--no-refresher`): pods, which its guard needs.
    Guard,
}

/// Watches until it is dropped; then the cache is empty.
pub async fn follow(client: Client, cache: Arc<ClusterCache>, purpose: Purpose) {
    let _clear = WatchGuard(&cache);
    // Subscribed before the first read, so that no change is missed.
    let (mut labelled, mut replaced) = (cache.observed.labelled(), cache.observed.replaced());
    let mut fleet = cache.observed.fleet.load_full();
    let mut tasks = NamespaceTasks::default();
    loop {
        let wanted: BTreeSet<String> = labelled.borrow_and_update().clone();
        for namespace in tasks.not_in(&wanted) {
            tasks.stop(&namespace).await;
            cache.forget(&namespace);
        }
        for namespace in wanted {
            if !tasks.contains(&namespace) {
                cache.expect(&namespace);
                let watches = watch(client.clone(), cache.clone(), namespace.clone(), purpose);
                tasks.start(namespace, watches);
            }
        }
        // `cache` keeps both senders alive.
        tokio::select! {
            _ = labelled.changed() => {}
            _ = replaced.changed() => {
                cache.sets_are_listed();
                let now = cache.observed.fleet.load_full();
                for (namespace, name) in now.changed_since(&fleet) {
                    cache.touch(&namespace, &name);
                }
                fleet = now;
            }
        }
    }
}

/// Clears the cache when the watches end.
struct WatchGuard<'a>(&'a ClusterCache);

impl Drop for WatchGuard<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Watches one labelled namespace.
async fn watch(client: Client, cache: Arc<ClusterCache>, namespace: String, purpose: Purpose) {
    let watches = PodWatches {
        client,
        cache: &cache,
        namespace: &namespace,
    };
    let of_rollouts = async {
        if purpose == Purpose::Rollouts {
            tokio::join!(
                watches.keep("PodDisruptionBudgets", |budget| Some(facts::budget(budget))),
                watches.keep("Services", |service| Some(facts::service(service))),
            );
        }
    };
    tokio::join!(watches.keep_pods(purpose), of_rollouts);
}

struct PodWatches<'a> {
    client: Client,
    cache: &'a ClusterCache,
    namespace: &'a str,
}

impl PodWatches<'_> {
    /// Pods of StatefulSets, and queriers.
    async fn keep_pods(&self, purpose: Purpose) {
        let (cache, namespace) = (self.cache, self.namespace);
        let apply = |Partial(pod, cut): &Partial<Pod>| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let querier = if *cut {
                Err(())
            } else {
                Ok(facts::querier(pod))
            };
            if purpose == Purpose::Rollouts {
                cache.put_querier(namespace, name, querier);
            }
            self.apply(pod, *cut, facts::pod);
        };
        let delete = |name: &str| {
            cache.remove::<PodFacts>(namespace, name);
            cache.remove_querier(namespace, name);
        };
        self.keep_with("pods", PodFacts::KIND, apply, delete, || {
            cache.pod_names(namespace)
        })
        .await;
    }

    async fn keep<K, F: Fact>(&self, kind: &str, facts: impl Fn(&K) -> Option<F>)
    where
        K: PartialKind<Scope = NamespaceResourceScope>,
    {
        let (cache, namespace) = (self.cache, self.namespace);
        let apply = |Partial(object, cut): &Partial<K>| self.apply(object, *cut, &facts);
        let delete = |name: &str| cache.remove::<F>(namespace, name);
        let known = || cache.names::<F>(namespace);
        self.keep_with(kind, F::KIND, apply, delete, known).await;
    }

    fn apply<K: PartialKind, F: Fact>(
        &self,
        object: &K,
        cut: bool,
        facts: impl Fn(&K) -> Option<F>,
    ) {
        let (cache, namespace) = (self.cache, self.namespace);
        let name = object.meta().name.as_deref().unwrap_or_default();
        match facts(object).filter(|_| !cut) {
            Some(fact) => cache.put(namespace, fact),
            // The facts known before stay in force.
            None if cut => cache
                .observed
                .refuse(namespace, (F::KEPT, name), Why::TooLarge),
            // It may have had an owner before.
            None => cache.remove::<F>(namespace, name),
        }
    }

    async fn keep_with<K>(
        &self,
        kind: &str,
        of: ObjectKind,
        apply: impl Fn(&Partial<K>),
        delete: impl Fn(&str),
        known: impl Fn() -> Vec<String>,
    ) where
        K: PartialKind<Scope = NamespaceResourceScope>,
    {
        let (cache, namespace) = (self.cache, self.namespace);
        let observed = &cache.observed;
        let api = Api::<Partial<K>>::namespaced(self.client.clone(), namespace);
        let name = of_namespace(kind, namespace);
        keep(
            watcher(api, config(&name)).backoff(Patience::default()),
            &observed.watches,
            &name,
            || cache.listed(namespace, of),
            |object| apply(&object),
            delete,
            known,
        )
        .await;
    }
}
