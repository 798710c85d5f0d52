//! A StatefulSet with its pods, kubelets, queriers and leader, second by second.

use std::sync::Arc;

use chrono::{TimeDelta, TimeZone, Utc};

use super::super::*;
use crate::core::agent_status::{AgentStatus, Phase};
use crate::core::fleet::{Fleet, StatefulSetFacts};

mod bucket;

use bucket::Bucketed;

pub(super) const DISCOVERY: u64 = 6;
pub(super) const DRAIN: u64 = 6;
pub(super) const CONFIG: &str = "sharding: {retention: 370d, overlap: 1d, drain: 6s, discovery_delay: 6s, termination_drain: 6s}";

/// A pod with its sidecar, its thanos and its kubelet, second by second.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) facts: PodFacts,
    pub(super) answer: Answer,
    pub(super) applied: Option<Window>,
    /// Entries on their way through kubelet: when they arrive, and what they say.
    pub(super) coming: Vec<(u64, Option<Entry>)>,
    /// What is mounted, and since when.
    pub(super) mounted: Option<(Entry, u64)>,
    /// What the sidecar has accepted.
    pub(super) entry: Option<Entry>,
    pub(super) generation: Option<u64>,
    pub(super) contract: u32,
    /// Of the world's blocks, those that its thanos has loaded.
    pub(super) loaded: BTreeSet<usize>,
    pub(super) next_sync: u64,
    pub(super) draining_until: Option<u64>,
    pub(super) loading_until: Option<u64>,
    pub(super) gone_at: Option<u64>,
    pub(super) ready_since: u64,
    pub(super) restarts: u64,
    pub(super) known_to: Vec<bool>,
    pub(super) news: Vec<Vec<(u64, bool)>>,
    /// The sidecar refuses this window, as one that thanos does not survive.
    pub(super) refuses: bool,
}

/// As long as an entry without a generation must stand before a sidecar acts on it. Seconds.
const STANDS: u64 = 120;

/// A cluster with one StatefulSet.
pub(super) struct World {
    pub(super) at: u64,
    pub(super) seed: u64,
    pub(super) fleet: Fleet,
    pub(super) set: StatefulSetFacts,
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) map: Option<MapFacts>,
    pub(super) versions: u64,
    pub(super) writes: u64,
    pub(super) written: Option<BTreeMap<String, String>>,
    pub(super) leader_since: u64,
    pub(super) own: BTreeSet<String>,
    pub(super) drifts_for: Option<Duration>,
    pub(super) hurried_ago: Option<Duration>,
    pub(super) last: Decision,
    pub(super) blocks: Vec<Bucketed>,
    /// By ULID, as a leader remembers it.
    pub(super) missing_for: BTreeMap<String, Duration>,
    /// The leader does nothing before this second.
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
        let fleet = Fleet::new(config).with_statefulset(set.clone()).unwrap();
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
            hurried_ago: None,
            last,
            blocks: Vec::new(),
            missing_for: BTreeMap::new(),
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

    /// The StatefulSet controller: makes what is missing, deletes what is too much, highest ordinal first.
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
        let facts = PodFacts {
            name: name.to_owned(),
            uid: format!("{name}-{}", self.at),
            statefulset: "store".to_owned(),
            injected: true,
            store: true,
            revision: self.set.update_revision.clone(),
            shard_label: Some(shard.to_string()),
            ..PodFacts::default()
        };
        let loading = self.at + 1 + self.random(10);
        let entry = self.entry_of(name);
        self.pods.insert(
            name.to_owned(),
            Pod {
                facts,
                answer: Answer::Unreachable("it was just made".to_owned()),
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
                loading_until: Some(loading),
                gone_at: None,
                ready_since: 0,
                restarts: 0,
                known_to: vec![false; 3],
                news: vec![Vec::new(); 3],
                refuses: false,
            },
        );
    }

    pub(super) fn delete(&mut self, name: &str) {
        let at = self.at;
        let delays: Vec<u64> = (0..3).map(|_| self.random(DISCOVERY + 1)).collect();
        if let Some(pod) = self.pods.get_mut(name).filter(|pod| !pod.facts.terminating) {
            pod.facts.terminating = true;
            pod.facts.ready = false;
            pod.gone_at = Some(at + DRAIN + 2);
            pod.tell(at, false, &delays);
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

    /// Kubelet brings what the ConfigMap says, after a while.
    pub(super) fn deliver(&mut self) {
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            let (entry, when) = (self.entry_of(&name), self.at + self.random(5));
            if let Some(pod) = self.pods.get_mut(&name) {
                let when = pod.coming.last().map_or(when, |(last, _)| when.max(*last));
                pod.coming.push((when, entry));
            }
        }
    }

    pub(super) fn leader(&mut self) {
        if self.written.is_none() {
            // A new one takes what it finds, and asks one pod after the other.
            self.written = self.map.as_ref().map(|map| map.data.clone());
            self.own.clear();
        }
        let asked = |name: &str| {
            self.at >= self.leader_since + name.bytes().map(u64::from).sum::<u64>() % 3
                || self.leader_since == 0
        };
        let views: BTreeMap<String, PodView<'_>> = self
            .pods
            .iter()
            .map(|(name, pod)| {
                let since = pod.ready_since.max(self.leader_since);
                let ready_for = pod
                    .facts
                    .ready
                    .then(|| Duration::from_secs(self.at - since));
                let (answer, labelled_for) = (
                    asked(name).then_some(&pod.answer),
                    Duration::from_secs(1_000),
                );
                let (drifts_for, hurried_ago) = (self.drifts_for, self.hurried_ago);
                (
                    name.clone(),
                    PodView {
                        facts: &pod.facts,
                        answer,
                        ready_for,
                        labelled_for,
                        drifts_for,
                        hurried_ago,
                    },
                )
            })
            .collect();
        let view = View {
            known: self.fleet.known("ns", "store"),
            config: self.fleet.config(),
            map: self.map.as_ref(),
            written: self.written.as_ref(),
            own: &self.own,
            pods: &views,
            missing_for: &self.missing_for,
            now: self.now(),
        };
        let mut decision = decide(&view);
        if let (Some(text), Some(map)) = (decision.single_holders.take(), &mut self.map) {
            map.single_holders = Some(text).filter(|text| !text.is_empty());
        }
        if let Some(data) = decision.upkeep.take() {
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

    pub(super) fn second(&mut self) {
        self.at += 1;
        self.controller();
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            let mut pod = self.pods.remove(&name).unwrap();
            pod.second(self);
            self.pods.insert(name, pod);
        }
        if self.at >= self.away_until {
            self.leader();
        }
    }

    /// Runs until all is settled; `check` sees every second.
    pub(super) fn settle(
        &mut self,
        what: &str,
        mut check: impl FnMut(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        for _ in 0..5_000 {
            self.second();
            check(self).map_err(|why| format!("{what}, second {}: {why}", self.at))?;
            if self.last.report.state == State::Settled
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

    /// Whether each of three queriers that learn late gets the whole retention, from pods that are up.
    pub(super) fn answers(&self) -> Result<(), String> {
        self.answers_about(self.fleet.known("ns", "store").sharding.required())
    }

    /// The same for one range.
    pub(super) fn answers_about(&self, required: Window) -> Result<(), String> {
        for querier in 0..3 {
            let asked: Vec<(&String, &Pod)> = self
                .pods
                .iter()
                .filter(|(_, pod)| pod.known_to[querier])
                .collect();
            if let Some((name, _)) = asked.iter().find(|(_, pod)| pod.loading_until.is_some()) {
                return Err(format!("{name} is asked while it restarts"));
            }
            let windows: Vec<Window> = asked.iter().filter_map(|(_, pod)| pod.applied).collect();
            let (_, holes) = rollout::coverage(&windows, required, self.now());
            if !holes.is_empty() {
                return Err(format!(
                    "nobody is asked for {holes:?}; {}",
                    self.last.report.message
                ));
            }
        }
        Ok(())
    }
}

impl Pod {
    pub(super) fn tell(&mut self, at: u64, known: bool, delays: &[u64]) {
        for (queue, delay) in self.news.iter_mut().zip(delays) {
            let earliest = queue.last().map_or(at, |(when, _)| *when);
            queue.push((earliest.max(at + delay), known));
        }
    }

    /// Acts on what is mounted if the leader wrote it after what the sidecar remembers.
    fn accept(&mut self, at: u64) {
        let Some((entry, since)) = self.mounted else {
            return;
        };
        let is_newer = match (entry.generation, self.generation) {
            _ if self.contract < 2 => true,
            (_, None) => true,
            (Some(new), Some(remembered)) => new > remembered,
            (None, Some(_)) => at >= since + STANDS,
        };
        if is_newer {
            self.entry = Some(entry);
            self.generation = entry
                .generation
                .filter(|_| self.contract >= 2)
                .or(self.generation);
        }
    }

    pub(super) fn second(&mut self, world: &mut World) {
        let at = world.at;
        let delays: Vec<u64> = (0..3).map(|_| world.random(DISCOVERY + 1)).collect();
        while self.coming.first().is_some_and(|(when, _)| *when <= at) {
            // A sidecar keeps its last good entry.
            if let Some(entry) = self.coming.remove(0).1 {
                let since = self
                    .mounted
                    .filter(|(before, _)| *before == entry)
                    .map_or(at, |(_, since)| since);
                self.mounted = Some((entry, since));
            }
        }
        self.accept(at);
        let wanted = self.entry.map(|entry| entry.window);
        let differs = wanted.is_some() && wanted != self.applied && !self.refuses;
        if differs && self.facts.ready && !self.facts.terminating {
            self.draining_until = Some(at + DRAIN);
            self.facts.ready = false;
            self.tell(at, false, &delays);
        }
        if self.draining_until.is_some_and(|until| at > until) {
            self.draining_until = None;
            self.loading_until = Some(at + 1 + world.random(10));
            self.applied = wanted;
            self.restarts += 1;
        }
        if self.loading_until.is_some_and(|until| at >= until) && !self.facts.terminating {
            self.loading_until = None;
            world.load(self, true);
            self.facts.ready = true;
            self.ready_since = at;
            self.tell(at, true, &delays);
        }
        if self.facts.ready && at >= self.next_sync {
            world.load(self, false);
        }
        for (knows, queue) in self.known_to.iter_mut().zip(&mut self.news) {
            while queue.first().is_some_and(|(when, _)| *when <= at) {
                *knows = queue.remove(0).1;
            }
        }
        let phase = match (self.draining_until, self.loading_until) {
            _ if self.refuses && wanted != self.applied => Phase::Failed,
            (Some(_), _) => Phase::Draining,
            (_, Some(_)) if self.restarts > 0 => Phase::Restarting,
            (_, Some(_)) => Phase::Starting,
            _ => Phase::Serving,
        };
        self.answer = Answer::Status(Box::new(AgentStatus {
            pod: self.facts.name.clone(),
            shard: self.entry.map(|entry| entry.shard),
            replica: self.entry.map(|entry| entry.replica),
            phase,
            published: wanted,
            applied: self.applied.filter(|_| self.loading_until.is_none()),
            verified: true,
            restarts: self.restarts,
            last_error: None,
            agent_version: "0.1.0".to_owned(),
            contract: self.contract,
            generation: self.generation,
            blocks: (self.contract >= 2 && self.loading_until.is_none())
                .then(|| world.reported(self)),
            ..AgentStatus::default()
        }));
    }
}
