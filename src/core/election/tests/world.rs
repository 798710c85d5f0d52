//! Candidates with their own clocks, a network that delays and loses, and an API server, in
//! simulated time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::super::*;

/// True time, in microseconds. No candidate sees it.
pub(super) type Micros = u64;

pub(super) const SECOND: Micros = 1_000_000;
/// Faults begin before this.
pub(super) const FAULTS: Micros = 120 * SECOND;
/// From here on nothing fails, and nothing late is under way.
pub(super) const HEALTHY: Micros = FAULTS + 40 * SECOND;
pub(super) const END: Micros = HEALTHY + 45 * SECOND;
/// The promised takeover time with a healthy API server.
pub(super) const TAKEOVER: Micros = 15 * SECOND;

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// SIGKILL; back under the same name after the delay, if there is one.
    Crash { back: Option<Micros> },
    /// SIGTERM; another under the same name comes after the delay.
    Stop { back: Micros },
    /// SIGSTOP, or a machine without CPU time.
    Pause { span: Micros },
    /// Requests of this candidate fail; `held`: they arrive afterwards.
    Partition { span: Micros, held: bool },
    /// All requests fail.
    Outage { span: Micros, held: bool },
    /// The wall clock is set.
    WallJump { micros: i64 },
    /// `kubectl delete lease`.
    Delete,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) drift_ppm: i64,
    pub(super) wall_offset: i64,
    pub(super) boot: Micros,
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) candidates: Vec<Candidate>,
    pub(super) faults: Vec<(Micros, usize, Fault)>,
    /// The percentage of requests that meet a bad network until [`FAULTS`].
    pub(super) bad: u32,
}

pub(super) enum Event {
    Boot {
        name: usize,
    },
    Fault {
        name: usize,
        fault: Fault,
    },
    Wake {
        process: usize,
    },
    Arrive {
        process: usize,
        token: u64,
        request: Request,
        answer_after: Option<Micros>,
    },
    Reply {
        process: usize,
        token: u64,
        answer: LeaseAnswer,
    },
}

pub(super) struct Process {
    pub(super) name: usize,
    boot: Micros,
    drift_ppm: i64,
    election: Election,
    alive: bool,
    paused_until: Micros,
    token: u64,
    waiting: bool,
    permitted: Option<(Micros, Micros)>,
    log: Vec<(Micros, Micros)>,
}

impl Process {
    fn local(&self, at: Micros) -> Duration {
        let elapsed = i128::from(at - self.boot);
        Duration::from_micros(
            u64::try_from(elapsed + elapsed * i128::from(self.drift_ppm) / 1_000_000).unwrap(),
        )
    }

    /// Returns the true time of a local one, never too early.
    fn true_time(&self, local: Duration) -> Micros {
        let local = i128::try_from(local.as_micros()).unwrap();
        self.boot
            + u64::try_from(local * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm))).unwrap()
            + 2
    }

    /// Records the span in which writes may begin.
    fn note(&mut self, at: Micros) {
        let until = self
            .election
            .may_write_until()
            .filter(|until| self.alive && self.local(at) < *until)
            .map(|u| self.true_time(u));
        match (self.permitted, until) {
            (Some((from, to)), Some(until)) if to >= at => self.permitted = Some((from, until)),
            (before, until) => {
                self.log.extend(before.map(|(from, to)| (from, to.min(at))));
                self.permitted = until.map(|until| (at, until));
            }
        }
    }
}

pub(super) struct World {
    now: Micros,
    order: u64,
    queue: BinaryHeap<Reverse<(Micros, u64)>>,
    events: BTreeMap<u64, Event>,
    rng: SmallRng,
    pub(super) scenario: Scenario,
    wall_offset: Vec<i64>,
    pub(super) processes: Vec<Process>,
    partition: Vec<(Micros, bool)>,
    outage: (Micros, bool),
    lease: Option<Stored>,
    versions: u64,
    creates_under_way: u32,
    deleted: Micros,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let names = scenario.candidates.len();
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(scenario.seed),
            wall_offset: scenario
                .candidates
                .iter()
                .map(|candidate| candidate.wall_offset)
                .collect(),
            processes: Vec::new(),
            partition: vec![(0, false); names],
            outage: (0, false),
            lease: None,
            versions: 0,
            creates_under_way: 0,
            deleted: 0,
            scenario,
        };
        for name in 0..names {
            world.push(world.scenario.candidates[name].boot, Event::Boot { name });
        }
        for (at, name, fault) in world.scenario.faults.clone() {
            world.push(
                at,
                Event::Fault {
                    name: name % names,
                    fault,
                },
            );
        }
        world
    }

    pub(super) fn push(&mut self, at: Micros, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at.max(self.now), self.order)));
        self.events.insert(self.order, event);
    }

    pub(super) fn run(mut self, end: Micros) -> Self {
        while let Some(Reverse((at, order))) = self.queue.pop() {
            if at >= end {
                break;
            }
            self.now = at;
            let event = self.events.remove(&order).unwrap();
            self.happen(event);
        }
        self.now = end;
        for process in &mut self.processes {
            process.log.extend(process.permitted.take());
        }
        self
    }

    fn happen(&mut self, event: Event) {
        match event {
            // Nothing protects a candidate that never saw the lease from its deletion: see the
            // header of the module.
            Event::Boot { name }
                if self.lease.is_none()
                    && self.deleted > 0
                    && self.now < self.deleted + 12 * SECOND =>
            {
                self.push(self.now + SECOND, Event::Boot { name });
            }
            Event::Boot { name } => self.boot(name),
            Event::Fault { name, fault } => self.fault(name, fault),
            Event::Wake { process } => self.wake(process, None),
            Event::Reply {
                process,
                token,
                answer,
            } => {
                if self.processes[process].token == token {
                    self.wake(process, Some((token, answer)));
                }
            }
            Event::Arrive {
                process,
                token,
                request,
                answer_after,
            } => {
                self.creates_under_way -= u32::from(matches!(request, Request::Create(_)));
                let answer = self.serve(request);
                if let Some(delay) = answer_after {
                    self.push(
                        self.now + delay,
                        Event::Reply {
                            process,
                            token,
                            answer,
                        },
                    );
                }
            }
        }
    }

    fn boot(&mut self, name: usize) {
        if self
            .processes
            .iter()
            .any(|process| process.alive && process.name == name)
        {
            return;
        }
        let jitter = MAX_JITTER.mul_f64(self.rng.random::<f64>());
        self.processes.push(Process {
            name,
            boot: self.now,
            drift_ppm: self.scenario.candidates[name].drift_ppm,
            election: Election::new(format!("pod-{name}"), jitter),
            alive: true,
            paused_until: 0,
            token: 0,
            waiting: false,
            permitted: None,
            log: Vec::new(),
        });
        self.wake(self.processes.len() - 1, None);
    }

    fn fault(&mut self, name: usize, fault: Fault) {
        let now = self.now;
        let running = self
            .processes
            .iter()
            .position(|process| process.alive && process.name == name);
        match (fault, running) {
            (Fault::Crash { back }, Some(process)) => {
                self.kill(process);
                if let Some(delay) = back {
                    self.push(now + delay, Event::Boot { name });
                }
            }
            (Fault::Stop { back }, Some(running)) => {
                let process = &mut self.processes[running];
                process.election.retire(process.local(now));
                process.note(now);
                if !process.waiting {
                    self.wake(running, None);
                }
                self.push(now + back, Event::Boot { name });
            }
            (Fault::Pause { span }, Some(process)) => {
                self.processes[process].paused_until = now + span;
            }
            (Fault::Partition { span, held }, _) => self.partition[name] = (now + span, held),
            (Fault::Outage { span, held }, _) => self.outage = (now + span, held),
            (Fault::WallJump { micros }, _) => self.wall_offset[name] += micros,
            (Fault::Delete, _) => {
                let known = |process: &Process| {
                    process
                        .election
                        .observed
                        .as_ref()
                        .is_some_and(|observed| observed.stored.is_some())
                };
                if self.creates_under_way == 0
                    && self
                        .processes
                        .iter()
                        .filter(|process| process.alive)
                        .all(known)
                {
                    self.lease = None;
                    self.deleted = now;
                }
            }
            (Fault::Crash { .. } | Fault::Stop { .. } | Fault::Pause { .. }, None) => {}
        }
    }

    fn kill(&mut self, process: usize) {
        let now = self.now;
        self.processes[process].alive = false;
        self.processes[process].note(now);
    }

    /// Runs a process: with the awaited answer, or because its time has come.
    fn wake(&mut self, index: usize, reply: Option<(u64, LeaseAnswer)>) {
        let (now, process) = (self.now, &mut self.processes[index]);
        if !process.alive {
            return;
        }
        if now < process.paused_until {
            let until = process.paused_until;
            let event = match reply {
                None => Event::Wake { process: index },
                Some((token, answer)) => Event::Reply {
                    process: index,
                    token,
                    answer,
                },
            };
            return self.push(until, event);
        }
        let local = process.local(now);
        if let Some((_, answer)) = reply {
            process.token += 1;
            process.waiting = false;
            process.election.answered(local, answer);
            process.note(now);
        }
        if process.waiting {
            return;
        }
        let wall = DateTime::UNIX_EPOCH
            + TimeDelta::microseconds(i64::try_from(now).unwrap() + self.wall_offset[process.name]);
        let step = process.election.next(local, wall);
        process.note(now);
        match step {
            ElectionStep::Ask(request) => self.send(index, request),
            ElectionStep::WaitUntil(until) => {
                let at = process.true_time(until.max(local));
                self.push(at, Event::Wake { process: index });
            }
            ElectionStep::Done => self.kill(index),
        }
    }

    fn send(&mut self, index: usize, request: Request) {
        let process = &mut self.processes[index];
        process.waiting = true;
        let (token, name) = (process.token, process.name);
        let timeout = process.true_time(process.local(self.now) + REQUEST);
        self.push(
            timeout,
            Event::Reply {
                process: index,
                token,
                answer: LeaseAnswer::Failed,
            },
        );
        let (mut delay, mut answer_after) = (
            self.rng.random_range(200..80_000),
            Some(self.rng.random_range(200..80_000)),
        );
        let cut = [self.partition[name], self.outage]
            .into_iter()
            .filter(|(until, _)| self.now < *until)
            .max();
        match cut {
            Some((until, true)) => delay += until - self.now,
            Some((_, false)) => {
                // Refused immediately.
                return self.push(
                    self.now + delay,
                    Event::Reply {
                        process: index,
                        token,
                        answer: LeaseAnswer::Failed,
                    },
                );
            }
            None if self.now < FAULTS && self.rng.random_range(0..100) < self.scenario.bad => {
                match self.rng.random_range(0..5) {
                    0 => return,
                    1 => answer_after = None,
                    2 => delay += self.rng.random_range(0..30 * SECOND),
                    3 => answer_after = Some(self.rng.random_range(0..4 * SECOND)),
                    _ => delay += self.rng.random_range(0..3 * SECOND),
                }
            }
            None => {}
        }
        self.creates_under_way += u32::from(matches!(request, Request::Create(_)));
        self.push(
            self.now + delay,
            Event::Arrive {
                process: index,
                token,
                request,
                answer_after,
            },
        );
    }

    /// The API server.
    fn serve(&mut self, request: Request) -> LeaseAnswer {
        let record = match (request, &self.lease) {
            (Request::Get, Some(stored)) => return LeaseAnswer::Found(stored.clone()),
            (Request::Get | Request::Replace { .. }, None) => return LeaseAnswer::Missing,
            (Request::Create(_), Some(_)) => return LeaseAnswer::Conflict,
            (Request::Replace { version, .. }, Some(stored)) if version != stored.version => {
                return LeaseAnswer::Conflict;
            }
            (Request::Create(record) | Request::Replace { record, .. }, _) => record,
        };
        let unchanged = self
            .lease
            .as_ref()
            .is_some_and(|stored| stored.record == record);
        // A write without a change keeps the version.
        self.versions += u64::from(!unchanged);
        let stored = Stored {
            record,
            version: self.versions.to_string(),
        };
        self.lease = Some(stored.clone());
        LeaseAnswer::Found(stored)
    }

    /// Returns the spans in which writes may begin, by process.
    pub(super) fn permitted(&self) -> Vec<(Micros, Micros, usize)> {
        let spans = self
            .processes
            .iter()
            .enumerate()
            .flat_map(|(i, process)| process.log.iter().map(move |(from, to)| (*from, *to, i)));
        let mut spans: Vec<_> = spans.filter(|(from, to, _)| from < to).collect();
        spans.sort_unstable();
        spans
    }

    /// Checks that no write of one process, begun at the last moment and as slow as possible, is
    /// under way when another may write.
    pub(super) fn check_exclusion(&self) -> Result<(), TestCaseError> {
        let mut busy: Vec<(Micros, Micros, usize)> = self.permitted();
        for (_, to, index) in &mut busy {
            let process = &self.processes[*index];
            *to = process.true_time(process.local(*to) + WRITE);
        }
        for (i, one) in busy.iter().enumerate() {
            for other in busy[i + 1..].iter().take_while(|other| other.0 < one.1) {
                prop_assert_eq!(
                    one.2,
                    other.2,
                    "both may write: {:?} and {:?} of {:?}",
                    one,
                    other,
                    busy
                );
            }
        }
        Ok(())
    }

    /// Returns when some process could first write at or after `from`.
    pub(super) fn leads_from(&self, from: Micros) -> Option<Micros> {
        self.permitted()
            .into_iter()
            .filter(|span| span.1 > from)
            .map(|span| span.0.max(from))
            .min()
    }
}
