//! A replica: starts, sees late, decides, and writes over a bad network.

use super::*;

impl World {
    pub(super) fn boot(&mut self, i: usize) {
        self.lives += 1;
        let (life, now) = (self.lives, self.now);
        let replica = &mut self.replicas[i];
        replica.manager = CertificateManager::new(settings());
        (
            replica.alive,
            replica.life,
            replica.boot,
            replica.busy,
            replica.hold,
        ) = (true, life, now, false, 0);
        replica.observed = Observations {
            secret: Observation::Unknown,
            registrations: vec![Observation::Unknown],
        };
        (
            replica.secret_version,
            replica.bundle_version,
            replica.serving,
        ) = (0, 0, None);
        self.soon(WATCH_LAG, Event::SeeSecret(i, 0));
        self.soon(WATCH_LAG, Event::SeeBundle(i, 0));
    }

    /// Watches deliver the current state, in order and without a lasting gap.
    pub(super) fn see_secret(&mut self, i: usize, _: u64) {
        let version = self.secrets.len() as u64 - 1;
        if !self.replicas[i].alive || self.again(i, Event::SeeSecret(i, version)) {
            return;
        }
        let observation = self
            .secrets
            .last()
            .unwrap()
            .clone()
            .map_or(Observation::Missing, Observation::Holds);
        let replica = &mut self.replicas[i];
        (replica.observed.secret, replica.secret_version) = (observation, version);
        self.decide(i);
    }

    pub(super) fn see_bundle(&mut self, i: usize, _: u64) {
        let version = self.bundles.len() as u64 - 1;
        if !self.replicas[i].alive || self.again(i, Event::SeeBundle(i, version)) {
            return;
        }
        let observation = self
            .bundles
            .last()
            .unwrap()
            .0
            .clone()
            .map_or(Observation::Missing, |bundle| {
                Observation::Holds(vec![bundle])
            });
        let replica = &mut self.replicas[i];
        (replica.observed.registrations[0], replica.bundle_version) = (observation, version);
        self.decide(i);
    }

    /// A partitioned replica sees it when the partition ends.
    fn again(&mut self, i: usize, event: Event) -> bool {
        let until = self.replicas[i].partitioned;
        let later = until > self.now;
        if later {
            self.at(until + 1, event);
        }
        later
    }

    pub(super) fn decide(&mut self, i: usize) {
        let (now, skew) = (self.now, self.scenario.skews[i]);
        let replica = &mut self.replicas[i];
        if !replica.alive || replica.busy || now < replica.hold {
            return;
        }
        let local = Duration::from_millis(now - replica.boot);
        let decide = replica
            .manager
            .decide(local, wall(now, skew), &replica.observed);
        if let Some(leaf) = decide.serve {
            replica.serving = Some(leaf);
        }
        let write = match decide.step {
            RotationStep::WaitUntil(at) => {
                assert!(at > local, "it waits for what has come already");
                let (at, life) = (
                    replica.boot + u64::try_from(at.as_millis()).unwrap() + 1,
                    replica.life,
                );
                self.at(at, Event::Wake(i, life));
                return;
            }
            RotationStep::Write(change) => {
                let before = if let Observation::Holds(store) = &replica.observed.secret {
                    store.clone()
                } else {
                    CertificateStore::default()
                };
                let (memory, bundled) = (
                    replica.manager.memory().cloned(),
                    replica.observed.bundled(),
                );
                let store = before
                    .changed(
                        &change,
                        &settings(),
                        wall(now, skew),
                        memory.as_ref(),
                        &bundled,
                        &mut self.mint,
                    )
                    .unwrap();
                assert!(store.is_sound(), "{change:?}: {store:?}");
                self.authorities += usize::from(change == StoreChange::Promote);
                Write::Secret {
                    version: self.replicas[i].secret_version,
                    store: Box::new(store),
                }
            }
            RotationStep::Trust { anchors, .. } => Write::Bundle {
                version: replica.bundle_version,
                anchors,
            },
        };
        self.send(i, write);
    }

    fn send(&mut self, i: usize, write: Write) {
        let (now, life) = (self.now, self.replicas[i].life);
        self.replicas[i].busy = true;
        let bad = now < FAULTS && self.rng.random_range(0..100) < self.scenario.bad;
        if self.replicas[i].partitioned > now || (bad && self.rng.random_bool(0.5)) {
            self.soon(
                SECOND,
                Event::Answer {
                    replica: i,
                    life,
                    written: false,
                },
            );
            return;
        }
        self.soon(
            SECOND,
            Event::Arrive {
                replica: i,
                life,
                write,
                lost: bad,
            },
        );
        if bad {
            // The write happens, and its answer is lost.
            self.at(
                now + 3 * SECOND,
                Event::Answer {
                    replica: i,
                    life,
                    written: false,
                },
            );
        }
    }

    pub(super) fn answered(&mut self, i: usize, life: u64, written: bool) {
        if self.replicas[i].life != life {
            return;
        }
        self.replicas[i].busy = false;
        if written {
            // The writer sees its write immediately.
            self.see_secret(i, 0);
            self.see_bundle(i, 0);
        } else {
            self.replicas[i].hold = self.now + RETRY;
            self.at(self.now + RETRY + 1, Event::SeeSecret(i, 0));
            self.at(self.now + RETRY + 1, Event::SeeBundle(i, 0));
        }
    }
}
