//! What a leader remembers of queriers between two answers.
//!
//! Bounded by the queriers and pods that exist. A new leader starts without it: until the next
//! answers, only queriers whose arguments name the StatefulSet's Services count then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::listing::{GrpcAddresses, Listing, PodListing};
use super::{MAX_ANSWER_AGE, ObservedQuerier, QuerierAnswer};
use crate::core::kube::observed::PodFacts;

/// Times are relative to any one moment, and passed in.
#[derive(Clone, Debug, Default)]
pub struct QuerierMemory {
    /// By UID.
    queriers: HashMap<String, RememberedQuerier>,
    now: Duration,
}

#[derive(Clone, Debug, Default)]
struct RememberedQuerier {
    /// Pods that it has listed.
    listed: BTreeSet<String>,
    /// When it last gave an answer that could be read.
    answered: Option<Duration>,
    /// Pods that it does not use, and since when its answers have said so.
    not_used: BTreeMap<String, Duration>,
}

/// A querier that has listed other endpoints, and none of the pods, for this long uses them no more:
/// thanos reads its files of endpoints again without a restart.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

impl RememberedQuerier {
    /// Forgets the pods if the querier has turned to others.
    fn forget(&mut self, listing: &Listing<'_>, now: Duration) {
        let unused = |pod: &String| {
            let since = self.not_used.get(pod);
            since.is_some_and(|since| now.saturating_sub(*since) >= FORGOTTEN_AFTER)
        };
        if !listing.is_empty() && self.listed.iter().all(unused) {
            self.listed.clear();
        }
    }
}

impl QuerierMemory {
    /// Takes the queriers' present answers.
    pub fn observe(
        &mut self,
        queriers: &[ObservedQuerier],
        pods: &BTreeMap<String, PodFacts>,
        at: GrpcAddresses<'_>,
        now: Duration,
    ) {
        self.now = now;
        let present: BTreeSet<&str> = queriers
            .iter()
            .map(|querier| querier.uid.as_str())
            .collect();
        self.queriers
            .retain(|uid, _| present.contains(uid.as_str()));
        for querier in queriers {
            let known = self.queriers.entry(querier.uid.clone()).or_default();
            known.listed.retain(|pod| pods.contains_key(pod));
            let QuerierAnswer::Stores(stores) = &querier.answer else {
                continue;
            };
            let ago = querier.answered_ago.unwrap_or_default();
            known.answered = Some(now.saturating_sub(ago));
            if ago > MAX_ANSWER_AGE {
                known.not_used.clear();
            }
            let listing = Listing::of(stores);
            known.not_used.retain(|pod, _| pods.contains_key(pod));
            for (name, pod) in pods {
                let found = listing.pod(pod, at);
                if found.is_some() && !known.listed.contains(name) {
                    known.listed.insert(name.clone());
                }
                if found == Some(PodListing::Used) {
                    known.not_used.remove(name);
                } else if ago <= MAX_ANSWER_AGE && !known.not_used.contains_key(name) {
                    known.not_used.insert(name.clone(), now);
                }
            }
            known.forget(&listing, now);
        }
    }

    /// Whether the querier has listed this pod.
    #[must_use]
    pub fn has_listed(&self, uid: &str, pod: &str) -> bool {
        let known = self.queriers.get(uid);
        known.is_some_and(|known| known.listed.contains(pod))
    }

    /// Whether the querier has listed any of the pods.
    #[must_use]
    pub fn has_listed_any(&self, uid: &str) -> bool {
        let known = self.queriers.get(uid);
        known.is_some_and(|known| !known.listed.is_empty())
    }

    /// For how long the querier's answers have said that it does not use this pod.
    #[must_use]
    pub fn not_used_for(&self, uid: &str, pod: &str) -> Option<Duration> {
        let since = self.queriers.get(uid)?.not_used.get(pod)?;
        Some(self.now.saturating_sub(*since))
    }

    /// How long ago the querier last gave an answer that could be read.
    #[must_use]
    pub fn answered_ago(&self, uid: &str) -> Option<Duration> {
        Some(self.now.saturating_sub(self.queriers.get(uid)?.answered?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ListedStore;
    use super::*;

    #[test]
    fn what_a_querier_listed_is_remembered_while_querier_and_pod_exist() {
        let mut pods = BTreeMap::new();
        for (name, ip) in [("store-0", "10.0.0.1"), ("store-1", "10.0.0.2")] {
            let pod = PodFacts {
                name: name.to_owned(),
                ip: Some(ip.to_owned()),
                ..PodFacts::default()
            };
            pods.insert(name.to_owned(), pod);
        }
        let at = GrpcAddresses {
            namespace: "ns",
            port: None,
        };
        let querier = |answer: QuerierAnswer| ObservedQuerier {
            name: "ns/query-0".to_owned(),
            uid: "q".to_owned(),
            expected: false,
            configured: false,
            answered_ago: Some(Duration::from_secs(1)),
            answer,
        };
        let stores = |address: &str| {
            QuerierAnswer::Stores(vec![ListedStore {
                address: address.to_owned(),
                error: None,
            }])
        };
        let mut memory = QuerierMemory::default();
        let seconds = Duration::from_secs;
        memory.observe(&[querier(stores("10.0.0.1:10901"))], &pods, at, seconds(10));
        memory.observe(&[querier(stores("10.0.0.9:10901"))], &pods, at, seconds(20));
        let refused = QuerierAnswer::Unknown("refused".to_owned());
        memory.observe(&[querier(refused.clone())], &pods, at, seconds(30));
        let not_used = |pod: &str| memory.not_used_for("q", pod);
        assert_eq!(
            (not_used("store-0"), not_used("store-1")),
            (Some(seconds(10)), Some(seconds(20)))
        );
        assert!(memory.has_listed("q", "store-0") && !memory.has_listed("q", "store-1"));
        assert_eq!(memory.answered_ago("q"), Some(seconds(11)));
        // It lists other endpoints only, for long.
        let elsewhere = stores("10.0.0.9:10901");
        memory.observe(&[querier(elsewhere.clone())], &pods, at, seconds(40));
        memory.observe(&[querier(elsewhere.clone())], &pods, at, seconds(600));
        assert!(memory.has_listed("q", "store-0"));
        let mut forgetful = memory.clone();
        let empty = QuerierAnswer::Stores(Vec::new());
        forgetful.observe(&[querier(empty)], &pods, at, seconds(700));
        assert!(forgetful.has_listed_any("q"), "it has perhaps just started");
        forgetful.observe(&[querier(elsewhere)], &pods, at, seconds(701));
        assert!(!forgetful.has_listed_any("q"));
        pods.remove("store-0");
        memory.observe(&[querier(refused)], &pods, at, seconds(601));
        assert!(!memory.has_listed_any("q"));
        memory.observe(&[], &pods, at, seconds(602));
        assert_eq!(memory.answered_ago("q"), None);
    }
}
