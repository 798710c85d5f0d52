//! Candidates with clocks of their own, a network that delays and loses, and an API server, in simulated time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;

/// True time, in microseconds. No candidate sees it.
type Micros = u64;

const SECOND: Micros = 1_000_000;
/// Faults begin before this.
const FAULTS: Micros = 120 * SECOND;
/// From here on nothing fails, and nothing late is under way any more.
const HEALTHY: Micros = FAULTS + 40 * SECOND;
const END: Micros = HEALTHY + 45 * SECOND;
/// What is promised of a healthy API server.
const TAKEOVER: Micros = 15 * SECOND;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// kill -9; back under the same name after the delay, if there is one.
    Crash { back: Option<Micros> },
    /// SIGTERM; another under the same name comes after the delay.
    Stop { back: Micros },
    /// SIGSTOP, or a machine without CPU.
    Pause { span: Micros },
    /// Requests of this candidate do not get through; `held`: they arrive afterwards.
    Partition { span: Micros, held: bool },
    /// Nobody's requests get through.
    Outage { span: Micros, held: bool },
    /// The wall clock is set.
    WallJump { micros: i64 },
    /// `kubectl delete lease`.
    Delete,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    drift_ppm: i64,
    wall_offset: i64,
    boot: Micros,
}

#[derive(Clone, Debug)]
struct Scenario {
    seed: u64,
    candidates: Vec<Candidate>,
    faults: Vec<(Micros, usize, Fault)>,
    /// Out of 100 requests, how many meet a bad network until [`FAULTS`].
    bad: u32,
}

enum Event {
    Boot { name: usize },
    Fault { name: usize, fault: Fault },
    Wake { process: usize },
    Arrive { process: usize, token: u64, request: Request, answer_after: Option<Micros> },
    Reply { process: usize, token: u64, answer: Answer },
}

struct Process {
    name: usize,
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
        Duration::from_micros(u64::try_from(elapsed + elapsed * i128::from(self.drift_ppm) / 1_000_000).unwrap())
    }

    /// True time of a local one, never too early.
    fn true_time(&self, local: Duration) -> Micros {
        let local = i128::try_from(local.as_micros()).unwrap();
        self.boot + u64::try_from(local * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm))).unwrap() + 2
    }

    /// Notes from when to when writes may begin.
    fn note(&mut self, at: Micros) {
        let until = self.election.may_write_until().filter(|until| self.alive && self.local(at) < *until).map(|u| self.true_time(u));
        match (self.permitted, until) {
            (Some((from, to)), Some(until)) if to >= at => self.permitted = Some((from, until)),
            (before, until) => {
                self.log.extend(before.map(|(from, to)| (from, to.min(at))));
                self.permitted = until.map(|until| (at, until));
            }
        }
    }
}

struct World {
    now: Micros,
    order: u64,
    queue: BinaryHeap<Reverse<(Micros, u64)>>,
    events: BTreeMap<u64, Event>,
    rng: SmallRng,
    scenario: Scenario,
    wall_offset: Vec<i64>,
    processes: Vec<Process>,
    partition: Vec<(Micros, bool)>,
    outage: (Micros, bool),
    lease: Option<Stored>,
    versions: u64,
    creates_under_way: u32,
    deleted: Micros,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let names = scenario.candidates.len();
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(scenario.seed),
            wall_offset: scenario.candidates.iter().map(|candidate| candidate.wall_offset).collect(),
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
            world.push(at, Event::Fault { name: name % names, fault });
        }
        world
    }

    fn push(&mut self, at: Micros, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at.max(self.now), self.order)));
        self.events.insert(self.order, event);
    }

    fn run(mut self, end: Micros) -> Self {
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
            // Nothing fences a candidate that never saw the lease from a deletion: see the module's header.
            Event::Boot { name } if self.lease.is_none() && self.deleted > 0 && self.now < self.deleted + 12 * SECOND => {
                self.push(self.now + SECOND, Event::Boot { name });
            }
            Event::Boot { name } => self.boot(name),
            Event::Fault { name, fault } => self.fault(name, fault),
            Event::Wake { process } => self.wake(process, None),
            Event::Reply { process, token, answer } => {
                if self.processes[process].token == token {
                    self.wake(process, Some((token, answer)));
                }
            }
            Event::Arrive { process, token, request, answer_after } => {
                self.creates_under_way -= u32::from(matches!(request, Request::Create(_)));
                let answer = self.serve(request);
                if let Some(delay) = answer_after {
                    self.push(self.now + delay, Event::Reply { process, token, answer });
                }
            }
        }
    }

    fn boot(&mut self, name: usize) {
        if self.processes.iter().any(|process| process.alive && process.name == name) {
            return;
        }
        let jitter = MOST_JITTER.mul_f64(self.rng.random::<f64>());
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
        let running = self.processes.iter().position(|process| process.alive && process.name == name);
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
            (Fault::Pause { span }, Some(process)) => self.processes[process].paused_until = now + span,
            (Fault::Partition { span, held }, _) => self.partition[name] = (now + span, held),
            (Fault::Outage { span, held }, _) => self.outage = (now + span, held),
            (Fault::WallJump { micros }, _) => self.wall_offset[name] += micros,
            (Fault::Delete, _) => {
                let known = |process: &Process| process.election.sight.as_ref().is_some_and(|sight| sight.stored.is_some());
                if self.creates_under_way == 0 && self.processes.iter().filter(|process| process.alive).all(known) {
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

    /// Lets a process run: with the answer it waits for, or because time has come.
    fn wake(&mut self, index: usize, reply: Option<(u64, Answer)>) {
        let (now, process) = (self.now, &mut self.processes[index]);
        if !process.alive {
            return;
        }
        if now < process.paused_until {
            let until = process.paused_until;
            let event = match reply {
                None => Event::Wake { process: index },
                Some((token, answer)) => Event::Reply { process: index, token, answer },
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
        let wall = DateTime::UNIX_EPOCH + TimeDelta::microseconds(i64::try_from(now).unwrap() + self.wall_offset[process.name]);
        let step = process.election.next(local, wall);
        process.note(now);
        match step {
            Step::Ask(request) => self.send(index, request),
            Step::WaitUntil(until) => {
                let at = process.true_time(until.max(local));
                self.push(at, Event::Wake { process: index });
            }
            Step::Done => self.kill(index),
        }
    }

    fn send(&mut self, index: usize, request: Request) {
        let process = &mut self.processes[index];
        process.waiting = true;
        let (token, name) = (process.token, process.name);
        let timeout = process.true_time(process.local(self.now) + REQUEST);
        self.push(timeout, Event::Reply { process: index, token, answer: Answer::Failed });
        let (mut delay, mut answer_after) = (self.rng.random_range(200..80_000), Some(self.rng.random_range(200..80_000)));
        let cut = [self.partition[name], self.outage].into_iter().filter(|(until, _)| self.now < *until).max();
        match cut {
            Some((until, true)) => delay += until - self.now,
            Some((_, false)) => {
                // Refused at once.
                return self.push(self.now + delay, Event::Reply { process: index, token, answer: Answer::Failed });
            }
            None if self.now < FAULTS && self.rng.random_range(0..100) < self.scenario.bad => match self.rng.random_range(0..5) {
                0 => return,
                1 => answer_after = None,
                2 => delay += self.rng.random_range(0..30 * SECOND),
                3 => answer_after = Some(self.rng.random_range(0..4 * SECOND)),
                _ => delay += self.rng.random_range(0..3 * SECOND),
            },
            None => {}
        }
        self.creates_under_way += u32::from(matches!(request, Request::Create(_)));
        self.push(self.now + delay, Event::Arrive { process: index, token, request, answer_after });
    }

    /// The API server.
    fn serve(&mut self, request: Request) -> Answer {
        let record = match (request, &self.lease) {
            (Request::Get, Some(stored)) => return Answer::Stands(stored.clone()),
            (Request::Get | Request::Replace { .. }, None) => return Answer::Missing,
            (Request::Create(_), Some(_)) => return Answer::Conflict,
            (Request::Replace { version, .. }, Some(stored)) if version != stored.version => return Answer::Conflict,
            (Request::Create(record) | Request::Replace { record, .. }, _) => record,
        };
        let unchanged = self.lease.as_ref().is_some_and(|stored| stored.record == record);
        // A write that changes nothing leaves the version.
        self.versions += u64::from(!unchanged);
        let stored = Stored { record, version: self.versions.to_string() };
        self.lease = Some(stored.clone());
        Answer::Stands(stored)
    }

    /// Spans in which writes may begin, by process: from, to.
    fn permitted(&self) -> Vec<(Micros, Micros, usize)> {
        let spans = self.processes.iter().enumerate().flat_map(|(i, process)| process.log.iter().map(move |(from, to)| (*from, *to, i)));
        let mut spans: Vec<_> = spans.filter(|(from, to, _)| from < to).collect();
        spans.sort_unstable();
        spans
    }

    /// No write of one process, begun at the last moment and as slow as can be, is under way when another may write.
    fn check_exclusion(&self) -> Result<(), TestCaseError> {
        let mut busy: Vec<(Micros, Micros, usize)> = self.permitted();
        for (_, to, index) in &mut busy {
            let process = &self.processes[*index];
            *to = process.true_time(process.local(*to) + WRITE);
        }
        for (i, one) in busy.iter().enumerate() {
            for other in busy[i + 1..].iter().take_while(|other| other.0 < one.1) {
                prop_assert_eq!(one.2, other.2, "both may write: {:?} and {:?} of {:?}", one, other, busy);
            }
        }
        Ok(())
    }

    /// When somebody could first write at or after `from`.
    fn leads_from(&self, from: Micros) -> Option<Micros> {
        self.permitted().into_iter().filter(|span| span.1 > from).map(|span| span.0.max(from)).min()
    }
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let hours = 3_600_000_000_i64;
    (-10_000..=10_000_i64, -30 * hours..30 * hours, 0..8 * SECOND).prop_map(|(drift_ppm, wall_offset, boot)| Candidate {
        drift_ppm,
        wall_offset,
        boot,
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let span = 0..30 * SECOND;
    prop_oneof![
        4 => prop::option::of(0..20 * SECOND).prop_map(|back| Fault::Crash { back }),
        2 => (0..20 * SECOND).prop_map(|back| Fault::Stop { back }),
        3 => span.clone().prop_map(|span| Fault::Pause { span }),
        3 => (span.clone(), any::<bool>()).prop_map(|(span, held)| Fault::Partition { span, held }),
        2 => (span, any::<bool>()).prop_map(|(span, held)| Fault::Outage { span, held }),
        1 => (-7_200_000_000_i64..7_200_000_000).prop_map(|micros| Fault::WallJump { micros }),
        2 => Just(Fault::Delete),
    ]
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let faults = prop::collection::vec((0..FAULTS, 0..4_usize, fault()), 0..25);
    (any::<u64>(), prop::collection::vec(candidate(), 2..5), faults, prop_oneof![Just(0), 0..60_u32])
        .prop_map(|(seed, candidates, faults, bad)| Scenario { seed, candidates, faults, bad })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// Never two that may write; and once nothing fails any more, one leads within the promise and stays.
    #[test]
    fn at_most_one_writes_and_one_comes_to_lead(scenario in scenario()) {
        let mut world = World::new(scenario);
        // Whoever was killed for good is back when all is well.
        for name in 0..world.scenario.candidates.len() {
            world.push(HEALTHY, Event::Boot { name });
        }
        let world = world.run(END);
        world.check_exclusion()?;
        let first = world.leads_from(HEALTHY);
        prop_assert!(first.is_some_and(|at| at <= HEALTHY + TAKEOVER), "leads from {first:?}: {:?}", world.permitted());
        let after: Vec<_> = world.permitted().into_iter().filter(|span| span.1 > HEALTHY + TAKEOVER).collect();
        prop_assert!(after.len() == 1 && after[0].1 >= END, "one leads on and on: {:?}", after);
    }
}

/// Candidates in good order, and one fault that befalls the leader.
fn after_the_leaders(fault: Fault, seed: u64) -> (World, Micros) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let candidates: Vec<Candidate> = (0..rng.random_range(2..4))
        .map(|_| Candidate {
            drift_ppm: rng.random_range(-10_000..=10_000),
            wall_offset: rng.random_range(-3_600_000_000..3_600_000_000),
            boot: rng.random_range(0..4 * SECOND),
        })
        .collect();
    let at = 30 * SECOND + rng.random_range(0..10 * SECOND);
    let mut scenario = Scenario { seed, candidates, faults: vec![], bad: 0 };
    let before = World::new(scenario.clone()).run(at);
    let leader = before.permitted().last().map(|span| before.processes[span.2].name).unwrap();
    scenario.faults.push((at, leader, fault));
    (World::new(scenario).run(at + 40 * SECOND), at)
}

fn worst_takeover(fault: Fault, what: &str) -> Micros {
    let mut times: Vec<Micros> = (0..2_000)
        .map(|seed| {
            let (world, at) = after_the_leaders(fault, seed);
            world.check_exclusion().unwrap();
            let next = world.permitted().into_iter().map(|span| span.0).find(|from| *from > at);
            next.unwrap_or_else(|| panic!("seed {seed}: nobody took over: {:?}", world.permitted())) - at
        })
        .collect();
    times.sort_unstable();
    println!("{what}: median {} ms, worst {} ms", times[times.len() / 2] / 1000, times[times.len() - 1] / 1000);
    times[times.len() - 1]
}

#[test]
fn a_killed_leader_is_followed_in_time() {
    let worst = worst_takeover(Fault::Crash { back: None }, "killed");
    assert!(worst <= TAKEOVER, "{worst} µs");
    let back = worst_takeover(Fault::Crash { back: Some(SECOND) }, "killed, and back under its name after 1 s");
    assert!(back <= 5 * SECOND, "{back} µs: its own lease is no other's");
}

#[test]
fn a_leader_that_stops_hands_over_at_once() {
    // The last write must be over (2 s), and a follower looks every 2.4 s at the latest.
    let worst = worst_takeover(Fault::Stop { back: 30 * SECOND }, "stopped");
    assert!(worst <= 5 * SECOND, "{worst} µs");
}

#[test]
fn a_short_outage_moves_nobody() {
    for seed in 0..500 {
        for held in [true, false] {
            let (world, at) = after_the_leaders(Fault::Outage { span: 4 * SECOND, held }, seed);
            let spans = world.permitted();
            assert_eq!(spans.iter().filter(|span| span.1 > at).count(), 1, "seed {seed}: {spans:?}");
        }
    }
}

/// One candidate asked by hand: what it sends at `now`.
fn asks(election: &mut Election, now: Duration) -> Request {
    match election.next(now, DateTime::UNIX_EPOCH) {
        Step::Ask(request) => request,
        other => panic!("{other:?} at {now:?}"),
    }
}

/// Answers a write as the API server does.
fn written(election: &mut Election, now: Duration, version: &str) -> Record {
    let (Request::Create(record) | Request::Replace { record, .. }) = asks(election, now) else { panic!("no write") };
    election.answered(now, Answer::Stands(Stored { record: record.clone(), version: version.to_owned() }));
    record
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn leader() -> (Election, Record) {
    let mut election = Election::new("one".to_owned(), Duration::ZERO);
    assert_eq!(asks(&mut election, at(0)), Request::Get);
    election.answered(at(10), Answer::Missing);
    let record = written(&mut election, at(20), "1");
    assert_eq!((election.may_write_until(), record.transitions), (Some(at(20) + RENEW_DEADLINE), 0));
    (election, record)
}

fn look(election: &mut Election, now: Duration, record: &Record, version: &str) {
    assert_eq!(asks(election, now), Request::Get);
    election.answered(now, Answer::Stands(Stored { record: record.clone(), version: version.to_owned() }));
}

#[test]
fn renewals_differ_although_the_wall_clock_stands_still() {
    let (mut election, first) = leader();
    let second = written(&mut election, at(2_000), "2");
    assert_eq!((second.acquired, second.transitions), (first.acquired, 0));
    assert_ne!(second.renewed, first.renewed, "others judge by change");
    assert_eq!(election.may_write_until(), Some(at(2_000) + RENEW_DEADLINE));
}

#[test]
fn a_record_of_another_ends_the_permission_at_once() {
    let (mut election, mine) = leader();
    assert!(matches!(asks(&mut election, at(2_000)), Request::Replace { .. }));
    election.answered(at(2_010), Answer::Conflict);
    look(&mut election, at(2_010), &Record { holder: "two".to_owned(), ..mine }, "2");
    assert_eq!((election.may_write_until(), election.holder()), (None, Some("two")));
}

#[test]
fn a_second_process_under_our_name_is_another() {
    let (mut election, mine) = leader();
    assert!(matches!(asks(&mut election, at(2_000)), Request::Replace { .. }));
    election.answered(at(2_010), Answer::Conflict);
    let namesake = Record { acquired: mine.acquired.map(|at| at + TimeDelta::seconds(1)), ..mine };
    look(&mut election, at(2_010), &namesake, "2");
    assert_eq!(election.may_write_until(), None);
    assert!(matches!(election.next(at(2_020), DateTime::UNIX_EPOCH), Step::WaitUntil(_)), "it may be alive");
}

#[test]
fn a_lease_is_taken_the_moment_it_is_free() {
    let mut election = Election::new("two".to_owned(), Duration::ZERO);
    let other = Record { holder: "one".to_owned(), lease_seconds: 10, acquired: None, renewed: None, transitions: 4 };
    for now in [0, 2_000, 4_000, 6_000, 8_000] {
        look(&mut election, at(now), &other, "9");
        assert_eq!(election.next(at(now), DateTime::UNIX_EPOCH), Step::WaitUntil(at(now + 2_000)));
    }
    assert_eq!(written(&mut election, at(10_000), "10").transitions, 5);

    // Seen to change in between two rounds: free between two rounds.
    let mut election = Election::new("two".to_owned(), Duration::from_millis(300));
    look(&mut election, at(500), &other, "9");
    for now in [2_800, 5_100, 7_400, 9_700] {
        assert_eq!(election.next(at(now - 1), DateTime::UNIX_EPOCH), Step::WaitUntil(at(now)));
        look(&mut election, at(now), &other, "9");
    }
    assert_eq!(election.next(at(9_700), DateTime::UNIX_EPOCH), Step::WaitUntil(at(10_500)));
    assert!(matches!(asks(&mut election, at(10_500)), Request::Replace { version, .. } if version == "9"));
}

#[test]
fn a_duration_in_the_lease_is_believed_within_reason() {
    for (seconds, waits) in [(0, LEASE), (1, LEASE), (30, Duration::from_secs(30)), (86_400, LONGEST_LEASE)] {
        let mut election = Election::new("two".to_owned(), Duration::ZERO);
        let other = Record { holder: "one".to_owned(), lease_seconds: seconds, acquired: None, renewed: None, transitions: 0 };
        look(&mut election, at(0), &other, "9");
        assert!(!election.is_free(waits.saturating_sub(at(1))) && election.is_free(waits), "{seconds} s");
    }
}

#[test]
fn a_release_that_is_never_answered_ends() {
    let (mut election, _) = leader();
    election.retire(at(1_000));
    assert_eq!((election.may_write_until(), election.next(at(1_000), DateTime::UNIX_EPOCH)), (None, Step::WaitUntil(at(1_000) + WRITE)));
    let mut now = at(1_000) + WRITE;
    while let Step::Ask(request) = election.next(now, DateTime::UNIX_EPOCH) {
        assert!(matches!(&request, Request::Replace { record, .. } if record.holder.is_empty() && record.lease_seconds == 1));
        now += REQUEST;
        election.answered(now, Answer::Failed);
    }
    assert!(now <= at(1_000) + RELEASE + REQUEST);
    assert_eq!(election.next(now, DateTime::UNIX_EPOCH), Step::Done);
}
