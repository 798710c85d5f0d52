//! What is known of queriers: which StatefulSets need them, and their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tokio::time::Instant;

use super::MAX_QUERIERS;
use super::answer::{KnownListing, mentions};
use super::configured::ConfiguredPods;
use super::target::{QuerierTarget, SetServices};
use crate::controller::cache::SetName;
use crate::core::config::ConfiguredQueriers;
use crate::core::kube::observed::{NamespaceFacts, QuerierFacts};
use crate::core::rollout::queriers::{ListedStore, ObservedQuerier, QuerierAnswer};
use crate::core::thanos::query::AsksSet;
use crate::core::thanos::stores::StoreFault;

/// Stands for everything that is listed besides a StatefulSet's pods.
const OTHERS: &str = "others";

#[derive(Debug, Default)]
pub(super) struct QuerierAnswers {
    /// StatefulSets whose step needs their queriers.
    pub(super) sets: BTreeSet<SetName>,
    /// By the pod's UID.
    pub(super) answers: BTreeMap<String, Answered>,
    /// Number of queriers that are asked, by namespace.
    asked: BTreeMap<String, usize>,
    pub(super) configured: Vec<ConfiguredPods>,
    /// Counts the periods in which some StatefulSet needs its queriers.
    pub(super) need: u64,
    /// StatefulSets to reconcile because of new answers.
    touched: BTreeSet<SetName>,
}

/// A querier's last answer.
#[derive(Debug)]
pub(super) struct Answered {
    answer: Result<KnownListing, String>,
    /// When its request was sent.
    sent: Instant,
}

impl QuerierAnswers {
    pub(super) fn count<'a>(&mut self, targets: impl Iterator<Item = &'a QuerierTarget>) {
        self.asked.clear();
        for target in targets {
            *self.asked.entry(target.namespace.clone()).or_default() += 1;
        }
    }

    pub(super) fn asked_of(&self, namespace: &str) -> usize {
        self.asked.get(namespace).copied().unwrap_or(1)
    }

    /// Records an answer; returns whether it differs from the last one.
    pub(super) fn record(
        &mut self,
        uid: &str,
        answer: Result<KnownListing, String>,
        sent: Instant,
    ) -> bool {
        let before = self.answers.get(uid);
        let changed = before.is_none_or(|before| before.answer != answer);
        self.answers
            .insert(uid.to_owned(), Answered { answer, sent });
        changed
    }

    /// Has the StatefulSets that a querier may be one of reconciled, all together at the next refresh:
    /// answers that change all the time must not cost a reconcile each.
    pub(super) fn touch(&mut self, namespace: &str, configured: bool) {
        let affected = self.affected(namespace, configured);
        self.touched.extend(affected);
    }

    pub(super) fn take_touched(&mut self) -> BTreeSet<SetName> {
        std::mem::take(&mut self.touched)
    }

    /// The StatefulSets that a querier may be one of.
    pub(super) fn affected(&self, namespace: &str, configured: bool) -> BTreeSet<SetName> {
        let sets = self.sets.iter();
        sets.filter(|set| configured || set.0 == namespace)
            .cloned()
            .collect()
    }

    pub(super) fn configured_uids(&self) -> BTreeSet<String> {
        let items = self
            .configured
            .iter()
            .filter_map(|item| item.pods.as_ref().ok());
        let pods = items.flat_map(|pods| pods.iter().take(MAX_QUERIERS));
        pods.map(|querier| querier.uid.clone()).collect()
    }

    /// The configured queriers of a StatefulSet. An item that was not listed, or lists none, is one
    /// that nothing is known of.
    pub(super) fn configured_of(
        &self,
        items: &[ConfiguredQueriers],
        of: &SetStores<'_>,
    ) -> Vec<ObservedQuerier> {
        let mut all = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let unknown = |answer: QuerierAnswer| ObservedQuerier {
                name: format!("{}/{}", item.namespace, item.selector),
                uid: format!("queriers[{i}]"),
                expected: true,
                configured: true,
                answered_ago: None,
                answer,
            };
            let listed = self.configured.iter().find(|one| one.item == *item);
            let pods = match listed.map(|one| &one.pods) {
                None => {
                    all.push(unknown(QuerierAnswer::Pending));
                    continue;
                }
                Some(Err(why)) => {
                    all.push(unknown(QuerierAnswer::Unknown(why.clone())));
                    continue;
                }
                Some(Ok(pods)) => pods,
            };
            let lack = if pods.is_empty() {
                Some("no pod has this label selector, so no querier is asked".to_owned())
            } else {
                (pods.len() > MAX_QUERIERS)
                    .then(|| format!("at most {MAX_QUERIERS} pods of a selector are asked"))
            };
            all.extend(lack.map(|why| unknown(QuerierAnswer::Unknown(why))));
            let asked = pods.iter().take(MAX_QUERIERS);
            let asked =
                asked.map(|querier| (querier, of.services.asked_by(&item.namespace, querier)));
            let asked = asked.filter(|(_, asks)| *asks != AsksSet::No);
            all.extend(asked.map(|(querier, asks)| ObservedQuerier {
                configured: true,
                ..self.observed(&item.namespace, querier, asks, of)
            }));
        }
        // Two items may select the same pod.
        let mut seen = BTreeSet::new();
        all.retain(|querier| seen.insert(querier.uid.clone()));
        all
    }

    /// A querier for one StatefulSet, with those of its listed stores that may be its pods.
    pub(super) fn observed(
        &self,
        namespace: &str,
        querier: &QuerierFacts,
        asks: AsksSet,
        of: &SetStores<'_>,
    ) -> ObservedQuerier {
        let answered = self.answers.get(&querier.uid);
        let answer = answered.map_or(QuerierAnswer::Pending, |answered| match &answered.answer {
            Err(why) => QuerierAnswer::Unknown(why.clone()),
            Ok(listed) => QuerierAnswer::Stores(of.stores(listed)),
        });
        let ago = answered.map(|answered| of.now.saturating_duration_since(answered.sent));
        ObservedQuerier {
            name: format!("{namespace}/{}", querier.name),
            uid: querier.uid.clone(),
            expected: asks == AsksSet::Yes,
            configured: false,
            answered_ago: ago,
            answer,
        }
    }
}

/// By what a StatefulSet's pods are recognised in an answer, and when.
pub(super) struct SetStores<'a> {
    pub(super) services: SetServices<'a>,
    addresses: BTreeSet<IpAddr>,
    now: Instant,
}

impl<'a> SetStores<'a> {
    pub(super) fn new(facts: &'a NamespaceFacts, set: &'a SetName, now: Instant) -> Self {
        let own = facts.pods.values().filter(|pod| pod.statefulset == set.1);
        let addresses = own.filter_map(|pod| pod.ip.as_ref()?.parse::<IpAddr>().ok());
        Self {
            services: SetServices::new(facts, (&set.0, &set.1)),
            addresses: addresses.map(|ip| ip.to_canonical()).collect(),
            now,
        }
    }

    fn stores(&self, listed: &KnownListing) -> Vec<ListedStore> {
        let store = |address: String, fault: Option<StoreFault>| ListedStore {
            address,
            error: fault.map(|StoreFault(kind)| kind.to_owned()),
        };
        let pods = listed.pods.iter();
        let pods = pods
            .filter(|(address, _)| self.addresses.contains(&address.ip()))
            .map(|(address, fault)| store(address.to_string(), *fault));
        let names = listed.names.iter();
        let names = names
            .filter(|(name, _)| mentions(name, |label| self.services.is_named(label)))
            .map(|(name, fault)| store(name.clone(), *fault));
        let mut own: Vec<ListedStore> = pods.chain(names).collect();
        if listed.others || own.len() < listed.pods.len() + listed.names.len() {
            own.push(store(OTHERS.to_owned(), None));
        }
        own
    }
}

/// Stands for the queriers of a namespace that are not asked.
pub(super) fn unasked(
    namespace: &str,
    found: &[(&QuerierFacts, AsksSet)],
    facts: &NamespaceFacts,
) -> Option<ObservedQuerier> {
    let beyond = found.get(MAX_QUERIERS).map(|(querier, _)| &querier.name);
    let (pod, why) = if let Some(pod) = beyond {
        let why = format!(
            "{} pods of the namespace run `thanos query`, and at most {MAX_QUERIERS} are asked",
            found.len()
        );
        (pod, why)
    } else {
        let why = "the server has not read it, because it is too large or the namespace has too many queriers, so it may be one";
        (facts.unread_pods.first()?, why.to_owned())
    };
    Some(ObservedQuerier {
        name: format!("{namespace}/{pod}"),
        uid: format!("unasked in {namespace}"),
        expected: false,
        configured: false,
        answered_ago: None,
        answer: QuerierAnswer::Unknown(why),
    })
}
