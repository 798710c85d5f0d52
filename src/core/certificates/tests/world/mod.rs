//! Replicas with their own clocks, lagging watches, lost writes, API servers that learn late, and
//! users who edit, in simulated time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::convert::Infallible;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::*;

mod checks;
mod replicas;

pub(super) type Millis = u64;
pub(super) const SECOND: Millis = 1_000;
pub(super) const MINUTE: Millis = 60 * SECOND;
pub(super) const HOUR: Millis = 60 * MINUTE;
/// All replicas have started.
pub(super) const START: Millis = 5 * MINUTE;
/// Faults happen before this.
pub(super) const FAULTS: Millis = 14 * HOUR;
/// From here on everything has settled: the longest partition and one propagation are over.
const SETTLED: Millis = FAULTS + 40 * MINUTE;
const END: Millis = SETTLED + 14 * HOUR;
/// How late an API server learns of another caBundle; less than the propagation.
const API_LAG: Millis = 100 * SECOND;
/// How long a replica may take to renew what is due, over a bad network.
const RENEWAL: Millis = 5 * MINUTE;
/// How late a replica sees a write.
const WATCH_LAG: Millis = 3 * SECOND;
const RETRY: Millis = 5 * SECOND;
/// The largest clock difference, either way.
pub(super) const SKEW_SECONDS: i64 = 300;

pub(super) fn wall(at: Millis, skew: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_800_000_000_000 + i64::try_from(at).unwrap() + skew * 1_000)
        .unwrap()
}

pub(super) fn settings() -> RotationSettings {
    RotationSettings::new(
        TimeDelta::hours(6),
        TimeDelta::minutes(90),
        TimeDelta::minutes(2),
        vec!["timeshard.x.svc".to_owned()],
    )
    .unwrap()
}

/// Certificates with a number instead of a signature.
#[derive(Default)]
pub(super) struct Mint(u64);

impl Issue for Mint {
    type Error = Infallible;
    fn authority(&mut self, validity: Validity) -> Result<Signer, Infallible> {
        self.0 += 1;
        Ok(Signer {
            anchor: Anchor {
                der: self.0.to_be_bytes().to_vec(),
                validity,
            },
            key: PrivateKeyPem(format!("ca {}", self.0)),
        })
    }
    fn leaf(
        &mut self,
        signer: &Signer,
        names: &[String],
        validity: Validity,
    ) -> Result<Leaf, Infallible> {
        self.0 += 1;
        let (chain, key) = (
            format!("leaf {}", self.0),
            PrivateKeyPem(format!("key {}", self.0)),
        );
        Ok(Leaf {
            chain,
            key,
            issuer: signer.anchor.der.clone(),
            names: names.to_vec(),
            validity,
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// SIGKILL, and another process in its place.
    Crash {
        back: Millis,
    },
    /// All replicas together.
    CrashAll {
        back: Millis,
    },
    /// The replica sees nothing and its writes fail.
    Partition {
        span: Millis,
    },
    DeleteSecret,
    /// A user empties a part of the Secret.
    Garble {
        part: u8,
    },
    /// A user replaces the content of the Secret.
    Swap,
    /// A user overwrites the caBundle: with nothing, or with a foreign anchor.
    Overwrite {
        theirs: bool,
    },
    /// The registration is deleted, and recreated without a caBundle.
    Recreate {
        after: Millis,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) skews: Vec<i64>,
    pub(super) faults: Vec<(Millis, usize, Fault)>,
    /// The percentage of writes that fail or lose their answer until [`FAULTS`].
    pub(super) bad: u32,
}

enum Event {
    Boot(usize),
    Fault(usize, Fault),
    Wake(usize, u64),
    SeeSecret(usize, u64),
    SeeBundle(usize, u64),
    Arrive {
        replica: usize,
        life: u64,
        write: Write,
        lost: bool,
    },
    Answer {
        replica: usize,
        life: u64,
        written: bool,
    },
    ApiSees(usize, u64),
    Registered,
    Check,
}

enum Write {
    Secret {
        version: u64,
        store: Box<CertificateStore>,
    },
    Bundle {
        version: u64,
        anchors: Vec<Anchor>,
    },
}

struct Replica {
    manager: CertificateManager,
    alive: bool,
    life: u64,
    boot: Millis,
    busy: bool,
    /// No step before this time: no answer yet, or a refusal.
    hold: Millis,
    partitioned: Millis,
    observed: Observations,
    secret_version: u64,
    bundle_version: u64,
    serving: Option<Leaf>,
}

pub(super) struct World {
    now: Millis,
    order: u64,
    queue: BinaryHeap<Reverse<(Millis, u64)>>,
    events: BTreeMap<u64, Event>,
    rng: SmallRng,
    mint: Mint,
    scenario: Scenario,
    replicas: Vec<Replica>,
    /// All versions; the last one is current. `None`: it does not exist.
    secrets: Vec<Option<CertificateStore>>,
    /// The same, and whether someone else wrote it.
    bundles: Vec<(Option<Vec<Anchor>>, bool)>,
    api: Vec<u64>,
    lives: u64,
    writes: Vec<(Millis, &'static str)>,
    checked: u64,
    authorities: usize,
    /// The last outage of all replicas is over, and what was due has been renewed.
    renewed: Millis,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let fresh = |_: &i64| Replica {
            manager: CertificateManager::new(settings()),
            alive: false,
            life: 0,
            boot: 0,
            busy: false,
            hold: 0,
            partitioned: 0,
            observed: Observations::default(),
            secret_version: 0,
            bundle_version: 0,
            serving: None,
        };
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(scenario.seed),
            mint: Mint::default(),
            replicas: scenario.skews.iter().map(fresh).collect(),
            scenario,
            secrets: vec![None],
            bundles: vec![(Some(Vec::new()), true)],
            api: vec![0; 2],
            lives: 0,
            writes: Vec::new(),
            checked: 0,
            authorities: 0,
            renewed: 0,
        };
        for replica in 0..world.replicas.len() {
            let at = world.rng.random_range(0..5 * SECOND);
            world.at(at, Event::Boot(replica));
        }
        for (at, replica, fault) in world.scenario.faults.clone() {
            world.at(at, Event::Fault(replica % world.replicas.len(), fault));
        }
        world.at(MINUTE, Event::Check);
        world
    }

    fn at(&mut self, at: Millis, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order)));
        self.events.insert(self.order, event);
    }

    fn soon(&mut self, within: Millis, event: Event) {
        let at = self.now + self.rng.random_range(0..=within);
        self.at(at, event);
    }

    pub(super) fn run(mut self) -> Self {
        while let Some(Reverse((at, order))) = self.queue.pop() {
            // The last writes are still on their way to the other replicas.
            let written = self
                .writes
                .iter()
                .filter(|(_, kind)| *kind == "secret")
                .map(|(at, _)| *at)
                .max()
                .unwrap_or(0);
            if at > END && at > written + MINUTE {
                break;
            }
            self.now = at;
            let event = self.events.remove(&order).unwrap();
            self.take(event);
            self.check();
        }
        self
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Boot(i) => self.boot(i),
            Event::Fault(i, fault) => self.fault(i, fault),
            Event::Wake(i, life) => {
                if self.replicas[i].life == life {
                    self.decide(i);
                }
            }
            Event::SeeSecret(i, version) => self.see_secret(i, version),
            Event::SeeBundle(i, version) => self.see_bundle(i, version),
            Event::Arrive {
                replica,
                life,
                write,
                lost,
            } => {
                let written = self.write(write);
                if !lost {
                    self.soon(
                        SECOND,
                        Event::Answer {
                            replica,
                            life,
                            written,
                        },
                    );
                }
            }
            Event::Answer {
                replica,
                life,
                written,
            } => self.answered(replica, life, written),
            Event::ApiSees(api, version) => self.api[api] = self.api[api].max(version),
            Event::Registered => {
                if self.bundles.last().unwrap().0.is_none() {
                    self.bundle(Some(Vec::new()), true);
                }
            }
            Event::Check => self.at(self.now + MINUTE, Event::Check),
        }
    }

    fn write(&mut self, write: Write) -> bool {
        match write {
            Write::Secret { version, store } => {
                let same = version == self.secrets.len() as u64 - 1;
                // A missing Secret is created, whatever was seen before.
                let written = same
                    || (self.secrets[usize::try_from(version).unwrap()].is_none()
                        && self.secrets.last().unwrap().is_none());
                if written {
                    self.writes.push((self.now, "secret"));
                    self.secret(Some(*store));
                }
                written
            }
            Write::Bundle { version, anchors } => {
                let written = version == self.bundles.len() as u64 - 1;
                if written {
                    self.writes.push((self.now, "bundle"));
                    self.bundle(Some(anchors), false);
                }
                written
            }
        }
    }

    fn secret(&mut self, store: Option<CertificateStore>) {
        self.secrets.push(store);
        for i in 0..self.replicas.len() {
            self.soon(WATCH_LAG, Event::SeeSecret(i, 0));
        }
    }

    fn bundle(&mut self, anchors: Option<Vec<Anchor>>, by_others: bool) {
        self.bundles.push((anchors, by_others));
        let version = self.bundles.len() as u64 - 1;
        for i in 0..self.replicas.len() {
            self.soon(WATCH_LAG, Event::SeeBundle(i, 0));
        }
        for api in 0..self.api.len() {
            self.soon(API_LAG, Event::ApiSees(api, version));
        }
    }

    /// Whether a replica had time to see and renew what is due.
    fn is_current(&self, i: usize) -> bool {
        let replica = &self.replicas[i];
        replica.alive && replica.boot.max(replica.partitioned) + RENEWAL <= self.now
    }

    /// Whether these replicas may stop for so long. A leaf is renewed in the last 30 minutes of its
    /// life, which is enough for an outage of all replicas and clocks that differ, but not for a
    /// second outage right after the first.
    fn may_stop(&mut self, stopped: &[usize], span: Millis) -> bool {
        if (0..self.replicas.len()).any(|i| !stopped.contains(&i) && self.is_current(i)) {
            return true;
        }
        let may = self.now >= self.renewed;
        if may {
            self.renewed = self.now + span + RENEWAL;
        }
        may
    }

    fn crash(&mut self, i: usize, back: Millis) {
        self.replicas[i].alive = false;
        self.at(self.now + back, Event::Boot(i));
    }

    fn fault(&mut self, i: usize, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::Crash { back } if self.may_stop(&[i], back) => self.crash(i, back),
            Fault::CrashAll { back } => {
                let all: Vec<usize> = (0..self.replicas.len()).collect();
                if self.may_stop(&all, back) {
                    for i in all {
                        self.crash(i, back + i as u64 * SECOND);
                    }
                }
            }
            Fault::Partition { span } if self.is_current(i) && self.may_stop(&[i], span) => {
                self.replicas[i].partitioned = now + span;
            }
            Fault::Crash { .. } | Fault::Partition { .. } => {}
            Fault::DeleteSecret => self.secret(None),
            Fault::Garble { part } => {
                let Some(mut store) = self.secrets.last().unwrap().clone() else {
                    return;
                };
                match part % 4 {
                    0 => store.leaf = None,
                    1 => store.current = None,
                    2 => store = CertificateStore::default(),
                    _ => (store.current, store.next, store.leaf) = (None, None, None),
                }
                self.secret(Some(store));
            }
            Fault::Swap => {
                let mut other = CertificateStore::default();
                for change in [StoreChange::Begin, StoreChange::Promote] {
                    other = other
                        .changed(
                            &change,
                            &settings(),
                            wall(now, 0),
                            None,
                            &[],
                            &mut self.mint,
                        )
                        .unwrap();
                }
                self.secret(Some(other));
            }
            Fault::Overwrite { theirs } => {
                let anchor = self
                    .mint
                    .authority(Validity::from_now(wall(now, 0), TimeDelta::hours(5), None))
                    .unwrap()
                    .anchor;
                self.bundle(Some(if theirs { vec![anchor] } else { Vec::new() }), true);
            }
            Fault::Recreate { after } => {
                self.bundle(None, true);
                self.at(now + after, Event::Registered);
            }
        }
    }
}
