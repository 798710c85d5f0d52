//! A pod in simulated time: sidecar, launcher, a model of thanos with its bucket, and kubelet.

use super::*;

const STOP: Duration = Duration::from_millis(200);
const STOP_GRACE: Duration = Duration::from_mins(2);
const CONTAINER_BACKOFF: Duration = Duration::from_secs(10);
const INITIAL_DAYS: i64 = 100;

#[derive(Clone, Debug)]
pub(super) struct Thanos {
    pub(super) window: Window,
    pub(super) ready_at: Duration,
    pub(super) exits_at: Option<(Duration, i32)>,
    /// Begins when it is ready, immediately with the second sync.
    pub(super) next_sync: Duration,
    pub(super) missing: BTreeSet<u32>,
    pub(super) reading: Reading,
}

impl Thanos {
    /// One sync: missing blocks are tried again.
    pub(super) fn sync(&mut self, broken: &BTreeSet<u32>) {
        self.next_sync += SYNC;
        self.reading.syncs += 1;
        self.reading.syncs_ended += 1;
        self.reading.loads += self.missing.len() as u64;
        self.reading.loads_ended = self.reading.loads;
        self.missing.retain(|block| broken.contains(block));
        self.reading.expected = BLOCKS.into();
        self.reading.loaded = u64::from(BLOCKS) - self.missing.len() as u64;
    }
}

#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a way in which a pod may be, independent of the others"
)]
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) settings: DecisionSettings,
    pub(super) sidecar: Sidecar,
    pub(super) born: Duration,
    pub(super) launcher: Option<Launcher>,
    pub(super) container_starts_at: Option<Duration>,
    pub(super) thanos: Option<Thanos>,
    pub(super) timer: Option<(Timer, Duration)>,
    pub(super) record: Option<LaunchRecord>,
    pub(super) verdict: Option<LaunchVerdict>,
    pub(super) order: Option<WindowFile>,
    pub(super) entry: Option<Entry>,
    pub(super) load: Duration,
    pub(super) bad: BTreeSet<i64>,
    /// Blocks that cannot be loaded now.
    pub(super) broken: BTreeSet<u32>,
    pub(super) metrics_readable: bool,
    pub(super) lists: bool,
    pub(super) contract: u32,
    pub(super) inspect: Option<Inspect>,
    pub(super) list: Option<BlockList>,
    pub(super) honours_signal: bool,
    pub(super) last_ready: Option<Duration>,
    pub(super) stops_of_ready: u32,
    pub(super) undrained_is_expected: bool,
}

impl World {
    pub(super) fn new(
        entry: Option<Entry>,
        load: Duration,
        bad: &[i64],
        settings: DecisionSettings,
    ) -> Self {
        let mut world = Self {
            now: Duration::from_hours(1),
            sidecar: Sidecar::new(settings.clone(), SharedDirectory::default()),
            settings,
            born: Duration::from_hours(1),
            launcher: None,
            container_starts_at: None,
            thanos: None,
            timer: None,
            record: None,
            verdict: None,
            order: None,
            entry,
            load,
            bad: bad.iter().copied().collect(),
            broken: BTreeSet::new(),
            metrics_readable: true,
            lists: true,
            contract: 2,
            inspect: None,
            list: None,
            honours_signal: false,
            last_ready: None,
            stops_of_ready: 0,
            undrained_is_expected: false,
        };
        let _ = world.sidecar.set_entry(Ok(world.entry), Duration::ZERO);
        world.decide();
        assert!(
            world.sidecar.has_entry_filed(),
            "the first start waits for nothing else"
        );
        world.container_starts();
        world
    }

    pub(super) fn age(&self) -> Duration {
        self.now.saturating_sub(self.born)
    }

    pub(super) fn container_starts(&mut self) {
        self.container_starts_at = None;
        let options = LauncherOptions { drains: false };
        let (launcher, actions) = Launcher::begin(
            options,
            self.record.clone(),
            self.verdict,
            self.order,
            window(INITIAL_DAYS),
        );
        self.launcher = Some(launcher);
        self.act(&actions);
    }

    pub(super) fn container_dies(&mut self) {
        (self.launcher, self.thanos, self.timer) = (None, None, None);
        self.container_starts_at = Some(self.now + CONTAINER_BACKOFF);
    }

    pub(super) fn launcher_event(&mut self, event: &LauncherEvent) {
        if let Some(launcher) = &mut self.launcher {
            let actions = launcher.on(event);
            self.act(&actions);
        }
    }

    pub(super) fn act(&mut self, actions: &[launcher::LauncherAction]) {
        for action in actions {
            match action {
                launcher::LauncherAction::Record(record) => {
                    self.record = Some(LaunchRecord {
                        contract: self.contract,
                        ..record.clone()
                    });
                }
                launcher::LauncherAction::Start { window, .. } => {
                    assert!(self.thanos.is_none());
                    let days = (1..200)
                        .find(|d| super::tests::window(*d) == *window)
                        .unwrap();
                    self.thanos = Some(Thanos {
                        window: *window,
                        ready_at: self.now + self.load,
                        exits_at: self
                            .bad
                            .contains(&days)
                            .then_some((self.now + self.load / 2, 1)),
                        next_sync: self.now + self.load,
                        missing: (0..BLOCKS).collect(),
                        reading: Reading::default(),
                    });
                }
                launcher::LauncherAction::Send(launcher::Signal::Term) => self.thanos_is_stopped(),
                launcher::LauncherAction::Send(_) | launcher::LauncherAction::Log(_) => {}
                launcher::LauncherAction::Arm(timer) => {
                    self.timer = Some((*timer, self.now + STOP_GRACE));
                }
                launcher::LauncherAction::Disarm => self.timer = None,
                launcher::LauncherAction::Exit(_) => self.container_dies(),
            }
        }
    }

    pub(super) fn thanos_is_stopped(&mut self) {
        let served = self.serves();
        if let Some(thanos) = &mut self.thanos {
            if served {
                self.stops_of_ready += 1;
                let quiet = self.last_ready.map(|at| self.now.saturating_sub(at));
                assert!(
                    self.undrained_is_expected || quiet.is_none_or(|quiet| quiet >= DRAIN),
                    "restarted {quiet:?} after it was ready"
                );
            }
            thanos.exits_at = Some((self.now + STOP, 0));
        }
    }

    pub(super) fn serves(&self) -> bool {
        self.thanos.as_ref().is_some_and(|t| self.now >= t.ready_at)
    }

    /// Runs due syncs; the initial one and the second come together.
    pub(super) fn syncs(&mut self) {
        let Some(thanos) = &mut self.thanos else {
            return;
        };
        if thanos.reading.syncs == 0 && self.now >= thanos.next_sync {
            thanos.sync(&self.broken);
            thanos.next_sync -= SYNC;
        }
        while self.now >= thanos.next_sync {
            thanos.sync(&self.broken);
        }
    }

    pub(super) fn list_of(&self, wish: &Inspect) -> BlockList {
        let missing = self
            .thanos
            .as_ref()
            .map(|t| t.missing.clone())
            .unwrap_or_default();
        let candidates: Vec<BlockRef> = missing.iter().copied().map(block).collect();
        let (number, launch) = (wish.number, wish.launch);
        BlockList {
            contract: 2,
            number,
            launch,
            candidates_total: candidates.len() as u64,
            candidates,
            ..BlockList::default()
        }
    }

    /// Returns what thanos lacks, and what the pod reports as missing.
    pub(super) fn missing(&self) -> (Vec<String>, Option<Vec<String>>) {
        let truth = self
            .thanos
            .iter()
            .flat_map(|t| &t.missing)
            .map(|n| block(*n).ulid)
            .collect();
        let reported = self.sidecar.status().blocks.map(|blocks| {
            assert!(!blocks.is_cut(), "{blocks:?}");
            blocks.missing.into_iter().map(|block| block.ulid).collect()
        });
        (truth, reported)
    }

    /// Steps the sidecar at one moment.
    pub(super) fn decide(&mut self) {
        for _ in 0..100 {
            let age = self.age();
            self.sidecar.set_files(self.record.clone(), self.order, age);
            self.sidecar.set_blocks(self.list.clone());
            self.syncs();
            let actions = self.sidecar.step(age);
            for action in &actions {
                self.carry_out(action);
            }
            if let Some(launch) = self.sidecar.probe_due(age) {
                let probe = self.probe();
                self.sidecar.probed(launch, probe, age);
            } else if actions.is_empty() {
                if self.sidecar.status().phase.is_ready() {
                    self.last_ready = Some(self.now);
                }
                return;
            }
        }
        panic!("the sidecar does not come to rest: {:?}", self.sidecar);
    }

    /// Carries out the sidecar's actions, with the files between it and the launcher.
    fn carry_out(&mut self, action: &SidecarAction) {
        match action {
            SidecarAction::Remember(file) => {
                assert_eq!(
                    self.order.map(|o| (o.request, o.window)),
                    Some((file.request, file.window))
                );
                self.write_window(*file);
            }
            SidecarAction::Inspect(wish) => {
                self.inspect = Some(*wish);
                self.list = self.lists.then(|| self.list_of(wish));
            }
            SidecarAction::Log(change) => assert!(!change.line.is_empty()),
            SidecarAction::Order(file) => {
                assert!(self.order.is_none_or(|o| o.request < file.request));
                self.write_window(*file);
            }
            SidecarAction::Verdict(verdict) => {
                self.verdict = Some(*verdict);
                self.launcher_event(&LauncherEvent::Verdict(*verdict));
            }
            SidecarAction::Signal => {
                if let (true, Some(order), Some(thanos)) =
                    (self.honours_signal, self.order, &mut self.thanos)
                {
                    thanos.window = order.window;
                }
            }
        }
    }

    fn write_window(&mut self, file: WindowFile) {
        self.order = Some(file);
        self.sidecar.wrote(file);
        self.launcher_event(&LauncherEvent::Ordered(file));
    }

    /// Returns what thanos answers now.
    fn probe(&self) -> Probe {
        let flags = self
            .thanos
            .as_ref()
            .map(|t| t.window)
            .ok_or("no answer".to_owned());
        let unix_seconds = i64::try_from(self.now.as_secs()).unwrap();
        let reading = self
            .thanos
            .as_ref()
            .filter(|_| self.serves())
            .map(|t| Reading {
                unix_seconds,
                ..t.reading
            });
        let blocks = reading.map(|reading| {
            if self.metrics_readable {
                Ok(reading)
            } else {
                Err("401".to_owned())
            }
        });
        Probe {
            ready: self.serves(),
            flags,
            blocks,
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.decide();
            let wake = self.sidecar.next_wake(self.age()).map(|at| self.born + at);
            let exits = self
                .thanos
                .as_ref()
                .and_then(|t| t.exits_at)
                .map(|(at, _)| at);
            let sync = self
                .thanos
                .as_ref()
                .map(|t| t.next_sync)
                .filter(|at| *at > self.now);
            let timer = self.timer.map(|(_, at)| at);
            let next = [wake, exits, timer, sync, self.container_starts_at]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = next;
            if let Some((_, code)) = self
                .thanos
                .as_ref()
                .and_then(|t| t.exits_at)
                .filter(|(at, _)| *at <= next)
            {
                self.thanos = None;
                self.launcher_event(&LauncherEvent::Exited(code));
            }
            if let Some((timer, _)) = self.timer.filter(|(_, at)| *at <= next) {
                self.timer = None;
                self.launcher_event(&LauncherEvent::Elapsed(timer));
            }
            if self.container_starts_at.is_some_and(|at| at <= next) {
                self.container_starts();
            }
        }
    }

    pub(super) fn publish(&mut self, days: i64) {
        self.mount(entry(days));
    }

    pub(super) fn mount(&mut self, entry: Entry) {
        self.entry = Some(entry);
        let _ = self.sidecar.set_entry(Ok(self.entry), self.age());
        self.decide();
    }

    pub(super) fn found(&self) -> SharedDirectory {
        SharedDirectory {
            record: self.record.clone(),
            file: self.order,
            inspect: self.inspect,
        }
    }

    pub(super) fn sidecar_restarts(&mut self) {
        self.born = self.now;
        self.sidecar = Sidecar::new(self.settings.clone(), self.found());
        let _ = self.sidecar.set_entry(Ok(self.entry), Duration::ZERO);
        // It may have been ready until this moment.
        self.last_ready = self.last_ready.map(|_| self.now);
        self.decide();
    }

    pub(super) fn applied(&self) -> Option<Window> {
        self.sidecar.status().applied
    }

    pub(super) fn phase(&self) -> Phase {
        self.sidecar.status().phase
    }
}
