//! Every server's watches: pods, budgets and Services of every labelled namespace, kept in [`Seen`].
//!
//! Replicas that do not lead watch as well: their guard needs to know which pods are ready, and one that begins to lead has
//! seen for how long they have been.
//! Invariants: nothing outside labelled namespaces is watched; objects are trimmed as they come in; nothing is written.
//! StatefulSets and our ConfigMaps are watched by `adapters::cluster`; what is new about them is passed on here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watcher;
use kube::{Api, Client};
use tokio::task::JoinSet;

use super::seen::{Fact, Seen};
use super::trim;
use crate::adapters::lean::{Lean, Read};
use crate::adapters::watches::{Patience, config, keep, of_namespace};
use crate::core::kept::Why;

/// What is watched for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A replica that may lead: everything that a rollout depends on.
    Rollouts,
    /// One that never does (`--no-refresher`): what its guard needs, pods.
    Guard,
}

/// Watches for as long as it is polled: while this process lives. It leaves nothing behind.
pub async fn follow(client: Client, seen: Arc<Seen>, purpose: Purpose) {
    let _ended = Ended(&seen);
    // Both before the first look, so that no change falls in between.
    let (mut labelled, mut replaced) = (seen.observed.labelled(), seen.observed.replaced());
    let mut fleet = seen.observed.fleet.load_full();
    let mut tasks: BTreeMap<String, JoinSet<()>> = BTreeMap::new();
    loop {
        let wanted: BTreeSet<String> = labelled.borrow_and_update().clone();
        let gone: Vec<String> = tasks
            .keys()
            .filter(|namespace| !wanted.contains(*namespace))
            .cloned()
            .collect();
        for namespace in gone {
            if let Some(mut watches) = tasks.remove(&namespace) {
                watches.shutdown().await;
            }
            seen.forget(&namespace);
        }
        for namespace in wanted
            .into_iter()
            .filter(|namespace| !tasks.contains_key(namespace))
            .collect::<Vec<_>>()
        {
            seen.expect(&namespace);
            let mut watches = JoinSet::new();
            watches.spawn(watch(
                client.clone(),
                seen.clone(),
                namespace.clone(),
                purpose,
            ));
            tasks.insert(namespace, watches);
        }
        // Neither sender goes while `seen` holds them.
        tokio::select! {
            _ = labelled.changed() => {}
            _ = replaced.changed() => {
                seen.sets_are_listed();
                let now = seen.observed.fleet.load_full();
                now.changed_since(&fleet).iter().for_each(|(namespace, name)| seen.touch(namespace, name));
                fleet = now;
            }
        }
    }
}

/// What was seen is not kept up to date any longer.
struct Ended<'a>(&'a Seen);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

async fn watch(client: Client, seen: Arc<Seen>, namespace: String, purpose: Purpose) {
    let watches = Watches {
        client,
        seen: &seen,
        namespace: &namespace,
    };
    let of_rollouts = async {
        if purpose == Purpose::Rollouts {
            tokio::join!(
                watches.keep("PodDisruptionBudgets", |budget| Some(trim::budget(budget))),
                watches.keep("Services", |service| Some(trim::service(service))),
            );
        }
    };
    tokio::join!(watches.keep("pods", trim::pod), of_rollouts);
}

/// The watches of one labelled namespace.
struct Watches<'a> {
    client: Client,
    seen: &'a Seen,
    namespace: &'a str,
}

impl Watches<'_> {
    async fn keep<K, F: Fact>(&self, kind: &str, trim: impl Fn(&K) -> Option<F>)
    where
        K: Read<Scope = NamespaceResourceScope>,
    {
        let (seen, namespace) = (self.seen, self.namespace);
        let api = Api::<Lean<K>>::namespaced(self.client.clone(), namespace);
        let what = of_namespace(kind, namespace);
        let apply = |Lean(object, cut): Lean<K>| {
            let name = object.meta().name.as_deref().unwrap_or_default();
            match trim(&object).filter(|_| !cut) {
                Some(fact) => seen.put(namespace, fact),
                // What was known of it stays in force.
                None if cut => seen
                    .observed
                    .refuse(namespace, (F::KEPT, name), Why::TooLarge),
                // It may have been of interest before.
                None => seen.remove::<F>(namespace, name),
            }
        };
        let listed = || seen.listed(namespace, F::KIND);
        let delete = |name: &str| seen.remove::<F>(namespace, name);
        let known = || seen.names::<F>(namespace);
        keep(
            watcher(api, config(&what)).backoff(Patience::default()),
            &seen.observed.watches,
            &what,
            listed,
            apply,
            delete,
            known,
        )
        .await;
    }
}

#[cfg(test)]
mod tests;
