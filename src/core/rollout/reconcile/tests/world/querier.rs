//! Queriers that learn late, and what they tell the leader.

use super::*;
use crate::core::rollout::queriers::{GrpcAddresses, ListedStore, QuerierAnswer};

/// What is special about a querier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Behaviour {
    /// The leader does not know it.
    Unseen,
    Good,
    /// It refuses connections until this second.
    Down(u64),
    /// It lists every pod that it has ever known.
    NeverLetsGo,
    /// It lists the group that it queries.
    Group,
    /// It also lists addresses of other pods.
    Hostile,
    /// It queries other stores only.
    Elsewhere,
}

#[derive(Clone, Debug)]
pub(in super::super) struct SimulatedQuerier {
    /// It learns of each change of a pod after 0 to this many seconds.
    pub(in super::super) delay: u64,
    pub(in super::super) behaviour: Behaviour,
    /// Whether its arguments name a Service of the StatefulSet.
    pub(in super::super) expected: bool,
    /// Whether it cannot reach the pod with this name.
    pub(in super::super) failing: Option<String>,
    /// It answers once in this many seconds.
    pub(in super::super) every: u64,
    /// The last answer, and when it was asked for.
    answer: Option<(u64, QuerierAnswer)>,
}

impl SimulatedQuerier {
    pub(in super::super) fn unseen(delay: u64) -> Self {
        Self {
            behaviour: Behaviour::Unseen,
            ..Self::new(delay)
        }
    }

    pub(in super::super) fn new(delay: u64) -> Self {
        Self {
            delay,
            behaviour: Behaviour::Good,
            expected: true,
            failing: None,
            every: 1,
            answer: None,
        }
    }

    pub(in super::super) fn of(behaviour: Behaviour, delay: u64) -> Self {
        Self {
            behaviour,
            ..Self::new(delay)
        }
    }
}

impl World {
    /// A querier appears; it knows all pods, or none.
    pub(in super::super) fn add_querier(&mut self, querier: SimulatedQuerier, knows: bool) {
        self.queriers.push(querier);
        for pod in self.pods.values_mut() {
            pod.known_to.push(knows && pod.facts.ready);
            pod.updates.push(Vec::new());
        }
    }

    /// The present leader's write arrives late, when another one has long taken over.
    pub(in super::super) fn late_write(&mut self, seconds: u64) {
        let (map, writes, versions) = (self.map.clone(), self.writes, self.versions);
        let (written, own) = (self.written.clone(), self.own.clone());
        let coming: Vec<usize> = self.pods.values().map(|pod| pod.coming.len()).collect();
        self.leader();
        if self.versions > versions {
            let data = self.map.as_ref().map(|map| map.data.clone());
            self.late = Some((self.at + seconds, versions, data.unwrap_or_default()));
        }
        (self.map, self.writes, self.versions) = (map, writes, versions);
        (self.written, self.own) = (written, own);
        for (pod, coming) in self.pods.values_mut().zip(coming) {
            pod.coming.truncate(coming);
        }
        (self.written, self.leader_since) = (None, self.at);
    }

    /// How late each querier learns of a change.
    pub(super) fn delays(&mut self) -> Vec<u64> {
        let delays: Vec<u64> = self.queriers.iter().map(|querier| querier.delay).collect();
        delays
            .into_iter()
            .map(|delay| self.random(delay + 1))
            .collect()
    }

    fn answer_of(&self, at: usize) -> QuerierAnswer {
        let querier = &self.queriers[at];
        let store = |address: String, error: Option<String>| ListedStore { address, error };
        let mut stores: Vec<ListedStore> = self
            .pods
            .values()
            .filter(|pod| pod.known_to[at])
            .map(|pod| {
                let failing = querier.failing.as_ref() == Some(&pod.facts.name);
                let error = failing.then(|| "connection refused".to_owned());
                let ip = pod.facts.ip.as_deref().unwrap_or_default();
                store(format!("[{ip}]:10901"), error)
            })
            .collect();
        match querier.behaviour {
            Behaviour::Down(until) if self.at < until => {
                return QuerierAnswer::Unknown("connection refused".to_owned());
            }
            Behaviour::Group => {
                stores = vec![store(
                    "thanos:///dns:///store.ns.svc:10901".to_owned(),
                    None,
                )];
            }
            Behaviour::Hostile | Behaviour::Elsewhere => {
                let others = (0..100).map(|n| store(format!("10.9.9.{n}:10901"), None));
                stores.extend(others);
                stores.push(store("store-1.store.other.svc:10901".to_owned(), None));
            }
            Behaviour::Unseen | Behaviour::Good | Behaviour::Down(_) | Behaviour::NeverLetsGo => {}
        }
        QuerierAnswer::Stores(stores)
    }

    /// Asks every querier that the leader knows, if the last decision wants that.
    pub(super) fn ask_queriers(&mut self) {
        for i in 0..self.queriers.len() {
            let answer = self.answer_of(i);
            let (at, ask) = (self.at, self.last.ask_queriers);
            let querier = &mut self.queriers[i];
            if ask && at.is_multiple_of(querier.every) && querier.behaviour != Behaviour::Unseen {
                querier.answer = Some((at, answer));
            }
        }
    }

    /// What the leader knows of the queriers; it remembers what they listed.
    pub(super) fn observed_queriers(&mut self) -> Vec<ObservedQuerier> {
        let observed: Vec<ObservedQuerier> = self
            .queriers
            .iter()
            .enumerate()
            .filter(|(_, querier)| querier.behaviour != Behaviour::Unseen)
            .map(|(i, querier)| {
                let answer = querier
                    .answer
                    .as_ref()
                    .filter(|(asked, _)| *asked >= self.leader_since);
                ObservedQuerier {
                    name: format!("ns/query-{i}"),
                    uid: format!("query-{i}"),
                    expected: querier.expected,
                    configured: false,
                    answered_ago: answer.map(|(asked, _)| Duration::from_secs(self.at - asked)),
                    answer: answer.map_or(QuerierAnswer::Pending, |(_, answer)| answer.clone()),
                }
            })
            .collect();
        let pods = self.pods.iter();
        let pods: BTreeMap<String, PodFacts> = pods
            .map(|(name, pod)| (name.clone(), pod.facts.clone()))
            .collect();
        let at = GrpcAddresses {
            namespace: "ns",
            port: None,
        };
        let now = Duration::from_secs(self.at);
        self.querier_memory.observe(&observed, &pods, at, now);
        observed
    }

    pub(super) fn taken_back(&self) -> Option<TakenBack> {
        let (last, at) = self.taken_back.clone()?;
        let ago = Duration::from_secs(self.at - at);
        Some(TakenBack { ago, ..last })
    }

    pub(super) fn note_taken_back(&mut self, pods: &[(String, String)]) {
        if let Some(taken_back) = TakenBack::note(self.taken_back().as_ref(), pods) {
            self.taken_back = Some((taken_back, self.at));
        }
    }
}
