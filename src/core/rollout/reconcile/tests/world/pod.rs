//! A pod with its sidecar, its thanos and its kubelet, second by second.

use super::*;
use crate::core::agent::status::{AgentStatus, Phase};

#[derive(Clone, Debug)]
pub(in super::super) struct Pod {
    pub(in super::super) facts: PodFacts,
    pub(in super::super) answer: PodAnswer,
    pub(in super::super) applied: Option<Window>,
    /// Entries on their way through kubelet, with the time of arrival.
    pub(in super::super) coming: Vec<(u64, Option<Entry>)>,
    /// The mounted entry, and since when.
    pub(in super::super) mounted: Option<(Entry, u64)>,
    /// The entry that the sidecar has accepted.
    pub(in super::super) entry: Option<Entry>,
    pub(in super::super) generation: Option<u64>,
    pub(in super::super) contract: u32,
    /// The world's blocks that its thanos has loaded.
    pub(in super::super) loaded: BTreeSet<usize>,
    pub(in super::super) next_sync: u64,
    pub(in super::super) draining_until: Option<u64>,
    pub(in super::super) draining_since: u64,
    /// The order that it carried out last.
    pub(in super::super) done_order: Option<u64>,
    pub(in super::super) loading_until: Option<u64>,
    pub(in super::super) gone_at: Option<u64>,
    pub(in super::super) ready_since: u64,
    pub(in super::super) unready_since: u64,
    pub(in super::super) restarts: u64,
    pub(in super::super) known_to: Vec<bool>,
    pub(in super::super) updates: Vec<Vec<(u64, bool)>>,
    /// The sidecar refuses its next window, as if thanos exited with it.
    pub(in super::super) refuses: bool,
}

/// A sidecar acts on an entry without a generation after this long. Seconds.
const STANDS: u64 = 120;

impl Pod {
    pub(in super::super) fn notify(&mut self, at: u64, known: bool, delays: &[u64]) {
        for (queue, delay) in self.updates.iter_mut().zip(delays) {
            let earliest = queue.last().map_or(at, |(when, _)| *when);
            queue.push((earliest.max(at + delay), known));
        }
    }

    /// Accepts the mounted entry if its generation is greater than the remembered one.
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

    /// Its readiness changes.
    pub(in super::super) fn turns(&mut self, ready: bool, at: u64, now: DateTime<Utc>) {
        if self.facts.ready != ready {
            self.facts.ready_changed_unix_seconds = now.timestamp();
            if ready {
                self.ready_since = at;
            } else {
                self.unready_since = at;
            }
        }
        self.facts.ready = ready;
    }

    /// When its drain ends by itself, or has ended because its order was released.
    fn drains_until(&self) -> Option<u64> {
        self.draining_until?;
        let entry = self.entry?;
        let released = self.contract >= 2
            && entry.order.is_some()
            && entry.released == entry.order
            && self.done_order != entry.order;
        if released {
            return Some(0);
        }
        let drain = entry.drain.map_or(DRAIN, |drain| drain.to_std().as_secs());
        Some(self.draining_since + drain)
    }

    pub(in super::super) fn second(&mut self, world: &mut World) {
        let (at, now, delays) = (world.at, world.now(), world.delays());
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
            self.draining_since = at;
            self.draining_until = Some(at);
            self.turns(false, at, now);
            self.notify(at, false, &delays);
        }
        if self.draining_until.is_some() && !differs && !self.refuses && !self.facts.terminating {
            // The window that it runs was published again.
            self.draining_until = None;
            self.turns(true, at, now);
            self.notify(at, true, &delays);
        }
        self.draining_until = self.drains_until();
        if self.draining_until.is_some_and(|until| at > until) {
            self.draining_until = None;
            self.loading_until = Some(at + 1 + world.random(10));
            self.applied = wanted;
            self.done_order = self.entry.and_then(|entry| entry.order);
            self.restarts += 1;
        }
        if self.loading_until.is_some_and(|until| at >= until) && !self.facts.terminating {
            self.loading_until = None;
            world.load(self, true);
            self.turns(true, at, now);
            self.notify(at, true, &delays);
        }
        if self.facts.ready && at >= self.next_sync {
            world.load(self, false);
        }
        let queues = self.known_to.iter_mut().zip(&mut self.updates);
        for ((knows, queue), querier) in queues.zip(&world.queriers) {
            while queue.first().is_some_and(|(when, _)| *when <= at) {
                let keeps = *knows && querier.behaviour == Behaviour::NeverLetsGo;
                let learns = querier.behaviour != Behaviour::Elsewhere;
                let news = queue.remove(0).1;
                *knows = learns && (news || keeps);
            }
        }
        self.answer = self.status(world);
    }

    /// What its sidecar answers.
    fn status(&self, world: &World) -> PodAnswer {
        let wanted = self.entry.map(|entry| entry.window);
        let phase = match (self.draining_until, self.loading_until) {
            _ if self.refuses && wanted != self.applied => Phase::Failed,
            (Some(_), _) => Phase::Draining,
            (_, Some(_)) if self.restarts > 0 => Phase::Restarting,
            (_, Some(_)) => Phase::Starting,
            _ => Phase::Serving,
        };
        PodAnswer::Status(Box::new(AgentStatus {
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
            order: self
                .entry
                .filter(|_| self.contract >= 2)
                .and_then(|entry| entry.order),
            blocks: (self.contract >= 2 && self.loading_until.is_none())
                .then(|| world.reported(self)),
            last_load: world.last_load(self),
            ..AgentStatus::default()
        }))
    }
}
