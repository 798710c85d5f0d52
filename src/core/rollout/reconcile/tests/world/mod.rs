//! A StatefulSet with its pods, kubelets, queriers and leader, second by second.

use std::sync::Arc;

use chrono::{TimeDelta, TimeZone, Utc};

use super::super::*;

use crate::core::gateways::{Gateways, Published};
use crate::core::kube::observed::{MapFacts, NamespaceFacts};
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::entry;
use crate::core::model::window::Window;
use crate::core::rollout::planner;
use crate::core::rollout::withdrawal::withdraw;

mod bucket;
mod pod;
mod querier;

use bucket::Bucketed;
pub(super) use pod::Pod;
pub(super) use querier::{Behaviour, SimulatedQuerier};

pub(super) const DISCOVERY: u64 = 6;
pub(super) const DRAIN: u64 = 6;
pub(super) const CONFIG: &str = "sharding: {retention: 370d, overlap: 1d, drain: 6s, discovery_delay: 6s, termination_drain: 6s}";

/// A cluster with one StatefulSet.
pub(super) struct World {
    pub(super) at: u64,
    pub(super) seed: u64,
    pub(super) fleet: Gateways,
    pub(super) set: StatefulSetFacts,
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) map: Option<MapFacts>,
    pub(super) versions: u64,
    pub(super) writes: u64,
    pub(super) written: Option<BTreeMap<String, String>>,
    pub(super) leader_since: u64,
    pub(super) own: BTreeSet<String>,
    pub(super) drifts_for: Option<Duration>,
    pub(super) nudged_ago: Option<Duration>,
    pub(super) last: Decision,
    pub(super) blocks: Vec<Bucketed>,
    /// What agents measure; `None`: they are too old to.
    pub(super) loads_take_millis: Option<u64>,
    /// By ULID, as the leader remembers it.
    pub(super) missing_for: BTreeMap<String, Duration>,
    pub(super) queriers: Vec<SimulatedQuerier>,
    /// What the leader remembers of them.
    pub(super) querier_memory: QuerierMemory,
    /// When the leader first called a pod confirmed, if it has done so ever since.
    confirmed: BTreeMap<String, u64>,
    /// And when it took a step back.
    pub(super) taken_back: Option<(TakenBack, u64)>,
    /// A write of an older leader, with the version that it read and when it arrives.
    pub(super) late: Option<(u64, u64, BTreeMap<String, String>)>,
    /// Addresses that were given to pods.
    pub(super) addresses: u64,
    /// The leader is away until this second.
    pub(super) away_until: u64,
    /// Version of the agents of new pods.
    pub(super) contract: u32,
}

impl World {
    pub(super) fn new(config: &str, replicas: u32, seed: u64) -> Self {
        let config = Arc::new(Config::parse(config, "test").unwrap());
        let set = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            uid: "set-1".to_owned(),
            replicas,
            generation_observed: true,
            update_revision: "r1".to_owned(),
            partition: Some(0),
            ..StatefulSetFacts::default()
        };
        let fleet = Gateways::new(config).with_statefulset(set.clone()).unwrap();
        let last = Decision::default();
        Self {
            at: 0,
            seed: seed | 1,
            fleet,
            set,
            pods: BTreeMap::new(),
            map: None,
            versions: 0,
            writes: 0,
            written: None,
            leader_since: 0,
            own: BTreeSet::new(),
            drifts_for: None,
            nudged_ago: None,
            last,
            blocks: Vec::new(),
            loads_take_millis: None,
            missing_for: BTreeMap::new(),
            queriers: vec![SimulatedQuerier::unseen(DISCOVERY); 3],
            querier_memory: QuerierMemory::default(),
            confirmed: BTreeMap::new(),
            taken_back: None,
            late: None,
            addresses: 0,
            away_until: 0,
            contract: 2,
        }
    }

    pub(super) fn random(&mut self, most: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % most.max(1)
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
            + TimeDelta::seconds(i64::try_from(self.at).unwrap())
    }

    pub(super) fn restarts(&self) -> u64 {
        self.pods.values().map(|pod| pod.restarts).sum()
    }

    /// Replaces the configuration file.
    pub(super) fn configure(&mut self, text: &str) {
        let config = Config::parse(text, "test").unwrap();
        self.fleet = self.fleet.with_config(Arc::new(config));
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut StatefulSetFacts)) {
        change(&mut self.set);
        if let Some(next) = self.fleet.with_statefulset(self.set.clone()) {
            self.fleet = next;
        }
    }

    pub(super) fn annotate(&mut self, key: &str, value: &str) {
        self.change(|set| {
            set.annotations
                .insert(format!("thanos-timeshard.io/{key}"), value.to_owned());
        });
    }

    pub(super) fn entry_of(&self, pod: &str) -> Option<Entry> {
        let text = self.map.as_ref()?.data.get(&entry::key(pod))?;
        Entry::parse(text, self.now()).ok()
    }

    /// Acts as the StatefulSet controller: creates absent pods, deletes surplus pods, highest ordinal
    /// first.
    pub(super) fn controller(&mut self) {
        let wanted: Vec<String> = (0..self.set.replicas)
            .map(|i| format!("store-{i}"))
            .collect();
        let at = self.at;
        self.pods
            .retain(|_, pod| pod.gone_at.is_none_or(|gone| at < gone));
        if let Some(name) = self
            .pods
            .keys()
            .rev()
            .find(|name| !wanted.contains(name))
            .cloned()
        {
            self.delete(&name);
        }
        if let Some(name) = wanted
            .iter()
            .find(|name| !self.pods.contains_key(*name))
            .cloned()
        {
            self.create(&name);
        }
    }

    pub(super) fn create(&mut self, name: &str) {
        let known = self.fleet.known("ns", "store");
        let index: u32 = name["store-".len()..].parse().unwrap();
        let shard = known.plan.assign(index).shard;
        let window = self.entry_of(name).map_or_else(
            || known.plan.window(shard, self.now()),
            |entry| entry.window,
        );
        self.addresses += 1;
        let facts = PodFacts {
            ip: Some(format!("fd00::{:x}", self.addresses)),
            ready_changed_unix_seconds: self.now().timestamp(),
            name: name.to_owned(),
            uid: format!("{name}-{}", self.at),
            statefulset: "store".to_owned(),
            injected: !known.opted_out(),
            store: true,
            revision: self.set.update_revision.clone(),
            shard_label: (!known.opted_out()).then(|| shard.to_string()),
            ..PodFacts::default()
        };
        let loading = self.at + 1 + self.random(10);
        let entry = self.entry_of(name);
        self.pods.insert(
            name.to_owned(),
            Pod {
                facts,
                answer: PodAnswer::Unreachable("it was just made".to_owned()),
                applied: Some(window),
                coming: Vec::new(),
                mounted: entry.map(|entry| (entry, self.at)),
                generation: entry
                    .and_then(|entry| entry.generation)
                    .filter(|_| self.contract >= 2),
                entry,
                contract: self.contract,
                loaded: BTreeSet::new(),
                next_sync: 0,
                draining_until: None,
                draining_since: 0,
                done_order: None,
                loading_until: Some(loading),
                gone_at: None,
                ready_since: 0,
                unready_since: self.at,
                restarts: 0,
                known_to: vec![false; self.queriers.len()],
                updates: vec![Vec::new(); self.queriers.len()],
                refuses: false,
            },
        );
    }

    pub(super) fn delete(&mut self, name: &str) {
        let (at, now, delays) = (self.at, self.now(), self.delays());
        if let Some(pod) = self.pods.get_mut(name).filter(|pod| !pod.facts.terminating) {
            pod.facts.terminating = true;
            pod.turns(false, at, now);
            pod.gone_at = Some(at + DRAIN + 2);
            pod.notify(at, false, &delays);
        }
    }

    pub(super) fn write(&mut self, data: BTreeMap<String, String>) {
        let before = self.map.as_ref().map(|map| &map.data);
        let differs = |(key, text): &(&String, &String)| {
            before.and_then(|before| before.get(*key)) != Some(*text)
        };
        let own: BTreeSet<String> = data
            .iter()
            .filter(differs)
            .map(|(key, _)| key.clone())
            .collect();
        self.own.extend(own);
        self.versions += 1;
        self.writes += 1;
        self.map = Some(MapFacts {
            name: "store-time-shards".to_owned(),
            uid: "map".to_owned(),
            resource_version: self.versions.to_string(),
            owner_uid: Some("set-1".to_owned()),
            single_holders: self.map.as_ref().and_then(|map| map.single_holders.clone()),
            data: data.clone(),
        });
        self.written = Some(data);
        self.deliver();
    }

    /// Kubelet delivers the ConfigMap's entries after a while.
    pub(super) fn deliver(&mut self) {
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            let (entry, when) = (self.entry_of(&name), self.at + self.random(5));
            if let Some(pod) = self.pods.get_mut(&name) {
                if !pod.facts.injected {
                    continue;
                }
                let when = pod.coming.last().map_or(when, |(last, _)| when.max(*last));
                pod.coming.push((when, entry));
            }
        }
    }

    /// The pods as the leader sees them. A new leader polls one pod after the other.
    fn views(&self) -> BTreeMap<String, ReportedPod<'_>> {
        let asked = |name: &str| {
            self.at >= self.leader_since + name.bytes().map(u64::from).sum::<u64>() % 3
                || self.leader_since == 0
        };
        self.pods
            .iter()
            .map(|(name, pod)| {
                let since = pod.ready_since.max(self.leader_since);
                let ready_for = pod
                    .facts
                    .ready
                    .then(|| Duration::from_secs(self.at - since));
                let unready = (!pod.facts.ready).then(|| UnreadyTime {
                    seen_for: Duration::from_secs(
                        self.at - pod.unready_since.max(self.leader_since),
                    ),
                    began_before: pod.unready_since < self.leader_since,
                });
                let (answer, labelled_for) = (
                    asked(name).then_some(&pod.answer),
                    Duration::from_secs(1_000),
                );
                let (drifts_for, nudged_ago) = (self.drifts_for, self.nudged_ago);
                let confirmed = self.confirmed.get(name);
                (
                    name.clone(),
                    ReportedPod {
                        facts: &pod.facts,
                        answer,
                        ready_for,
                        unready,
                        labelled_for,
                        confirmed_ago: confirmed.map(|at| Duration::from_secs(self.at - at)),
                        drifts_for,
                        nudged_ago,
                    },
                )
            })
            .collect()
    }

    pub(super) fn leader(&mut self) {
        if self.written.is_none() {
            // A new leader accepts what it finds.
            self.written = self.map.as_ref().map(|map| map.data.clone());
            self.own.clear();
            (self.querier_memory, self.taken_back) = (QuerierMemory::default(), None);
            self.confirmed.clear();
        }
        if self.fleet.known("ns", "store").opted_out() {
            return self.withdraw();
        }
        let queriers = self.observed_queriers();
        let views = self.views();
        let now = self.now();
        let map = self.map.clone().map(|map| Published::new(map, now));
        let written = self.written.clone().map(|data| {
            let facts = MapFacts {
                data,
                ..MapFacts::default()
            };
            Published::new(facts, now)
        });
        let taken_back = self.taken_back();
        let view = View {
            gateway: self.fleet.known("ns", "store"),
            config: self.fleet.config(),
            map: map.as_ref(),
            written: written.as_ref(),
            own: &self.own,
            pods: &views,
            missing_for: &self.missing_for,
            queriers: &queriers,
            querier_memory: &self.querier_memory,
            taken_back: taken_back.as_ref(),
            now,
        };
        let mut decision = decide(&view);
        if let (Some(text), Some(map)) = (decision.single_holders.take(), &mut self.map) {
            map.single_holders = Some(text).filter(|text| !text.is_empty());
        }
        if decision.report.state == RolloutState::Settled {
            self.taken_back = None;
        }
        let is_confirmed = |name: &String| {
            let mut pods = decision.report.pods.iter();
            pods.any(|pod| pod.pod == *name && pod.state == PodState::Confirmed)
        };
        self.confirmed.retain(|name, _| is_confirmed(name));
        for name in self.pods.keys().filter(|name| is_confirmed(name)) {
            self.confirmed.entry(name.clone()).or_insert(self.at);
        }
        if let Some(data) = decision.upkeep.take() {
            self.note_taken_back(&decision.taken_back);
            self.write(data);
        } else if let Some((data, _)) = decision.step.take() {
            self.write(data);
        }
        for (name, shard) in &decision.relabel {
            self.pods.get_mut(name).unwrap().facts.shard_label = Some(shard.to_string());
        }
        if decision.drop_target {
            self.change(|set| {
                set.annotations.remove(names::TARGET_REPLICAS);
            });
        }
        self.last = decision;
    }

    /// Acts as the leader of an opted-out StatefulSet.
    fn withdraw(&mut self) {
        let pods = self.pods.iter();
        let facts = NamespaceFacts {
            pods: pods
                .map(|(name, pod)| (name.clone(), pod.facts.clone()))
                .collect(),
            ..NamespaceFacts::default()
        };
        let map = self.map.clone().map(|map| Published::new(map, self.now()));
        let known = self.fleet.known("ns", "store");
        let found = withdraw(known, self.fleet.config(), map.as_ref(), &facts).unwrap();
        self.last = Decision {
            report: found.report,
            ..Decision::default()
        };
        if let Some(map) = self.map.as_mut().filter(|_| found.single_holders) {
            map.single_holders = None;
        }
        if found.empty_map {
            self.write(BTreeMap::new());
        }
    }

    pub(super) fn second(&mut self) {
        self.at += 1;
        self.controller();
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            let mut pod = self.pods.remove(&name).unwrap();
            pod.second(self);
            self.pods.insert(name, pod);
        }
        self.ask_queriers();
        if let Some((_, version, data)) = self.late.take_if(|(arrives, ..)| *arrives <= self.at)
            && version == self.versions
        {
            self.write(data);
        }
        if self.at >= self.away_until {
            self.leader();
        }
    }

    /// Runs until the rollout is settled, with `check` in every second.
    pub(super) fn settle(
        &mut self,
        what: &str,
        mut check: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        for _ in 0..5_000 {
            self.second();
            check(self).map_err(|why| format!("{what}, second {}: {why}", self.at))?;
            if self.last.report.state == RolloutState::Settled
                && self.last.upkeep.is_none()
                && self.pods.values().all(|pod| pod.coming.is_empty())
            {
                return Ok(());
            }
        }
        Err(format!(
            "{what}: not settled: {} {:?}",
            self.last.report.message, self.last.report.pods
        ))
    }

    /// Whether each of three queriers that learn late finds the whole retention on running pods.
    pub(super) fn answers(&self) -> Result<(), String> {
        self.answers_about(self.fleet.known("ns", "store").sharding.required())
    }

    /// Like [`Self::answers`], for one range.
    pub(super) fn answers_about(&self, required: Window) -> Result<(), String> {
        for querier in 0..self.queriers.len() {
            self.answers_from(querier, required)?;
        }
        Ok(())
    }

    /// Like [`Self::answers`], for one querier.
    pub(super) fn answers_of(&self, querier: usize) -> Result<(), String> {
        self.answers_from(querier, self.fleet.known("ns", "store").sharding.required())
    }

    fn answers_from(&self, querier: usize, required: Window) -> Result<(), String> {
        let asked = || self.pods.iter().filter(|(_, pod)| pod.known_to[querier]);
        if let Some((name, _)) = asked().find(|(_, pod)| pod.loading_until.is_some()) {
            return Err(format!("{name} is asked while it restarts"));
        }
        let windows: Vec<Window> = asked().filter_map(|(_, pod)| pod.applied).collect();
        let (_, holes) = planner::coverage(&windows, required, self.now());
        if holes.is_empty() {
            return Ok(());
        }
        let message = &self.last.report.message;
        Err(format!("no pod is queried for {holes:?}; {message}"))
    }
}
