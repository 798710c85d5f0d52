//! Certificates without cert-manager: what one replica does next, from what the Secret and the caBundles hold.
//!
//! Every replica runs this, none leads: the Secret is written against the version that was seen, so one of them wins and the
//! others find its content. The order makes a rotation lossless:
//!
//! ```text
//! another authority in the Secret, which signs nothing -> in every caBundle -> seen there for `propagation`
//!   -> in one write: it signs, the leaf is its own, the old one is retired -> all serve that leaf
//!   -> the last leaf of the old one has expired: it is dropped in the Secret -> out of the caBundles
//! ```
//!
//! Invariants: no leaf is in the Secret whose authority the API servers do not know; a replica that serves takes a leaf of
//! another authority over only after it has itself seen that one in every caBundle for `propagation`; anchors of others are
//! added to and never overwritten; what somebody deletes or breaks is put back.
//!
//! Deliberately absent: times that one replica writes for another to wait by (clocks differ: each waits by its own), and
//! everything about keys and X.509, which [`Issue`] does.

mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::core::duration::PromDuration;
pub use store::{
    Anchor, BACKDATE, Change, Issue, Key, Leaf, MOST_ANCHORS, MOST_NAMES, Signer, Store, Validity,
};

/// How long to wait at most before looking again: the wall clock may be set.
pub const LONGEST_WAIT: Duration = Duration::from_mins(10);
/// The time between two writes of caBundles at least. It doubles while somebody else overwrites them all the time, up to [`LONGEST_PAUSE`].
pub const PAUSE: Duration = Duration::from_secs(1);
/// See [`PAUSE`].
pub const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// After this many pauses without a write the next one is not held up.
const QUIET_PAUSES: u32 = 4;
/// An authority lasts at least this many leaves, so that no leaf is cut short by its end.
const LEAVES: i32 = 3;
/// A leaf lasts at least this often the propagation, so that all replicas take another one over in its last third.
const PROPAGATIONS: i32 = 3;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    ca_validity: TimeDelta,
    leaf_validity: TimeDelta,
    propagation: Duration,
    names: Vec<String>,
}

impl Settings {
    /// Checks what belongs together.
    ///
    /// # Errors
    /// A sentence that names the value and what would be right.
    pub fn new(
        ca: TimeDelta,
        leaf: TimeDelta,
        propagation: TimeDelta,
        names: Vec<String>,
    ) -> Result<Self, String> {
        let seconds = |span: TimeDelta| PromDuration::from_secs(span.num_seconds());
        let (least, most) = (TimeDelta::seconds(1), TimeDelta::days(365 * 100));
        if propagation < least || propagation > TimeDelta::hours(1) {
            return Err(format!(
                "a propagation of {} is not possible; write 1s to 1h",
                seconds(propagation)
            ));
        }
        if leaf < propagation * PROPAGATIONS {
            let want = seconds(propagation * PROPAGATIONS);
            return Err(format!(
                "a leaf validity of {} is too short for a propagation of {}; write at least {want}",
                seconds(leaf),
                seconds(propagation)
            ));
        }
        if leaf > most || ca > most || ca < leaf * LEAVES {
            let want = seconds(leaf * LEAVES);
            return Err(format!(
                "a CA validity of {} does not fit a leaf validity of {}; write {want} to 100y",
                seconds(ca),
                seconds(leaf)
            ));
        }
        if names.is_empty() || names.len() > MOST_NAMES {
            return Err(format!("{} DNS names; give 1 to {MOST_NAMES}", names.len()));
        }
        Ok(Self {
            ca_validity: ca,
            leaf_validity: leaf,
            propagation: propagation.to_std().unwrap_or_default(),
            names,
        })
    }
}

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sight<T> {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It does not exist.
    Missing,
    /// It is somebody else's.
    Foreign,
    /// This is in it.
    Holds(T),
}

/// The caBundles of one registration, one for each of its webhooks.
pub type Bundles = Vec<Vec<Anchor>>;

/// All that a decision is made from.
#[derive(Clone, Debug, Default)]
pub struct Sights {
    /// The Secret.
    pub secret: Sight<Store>,
    /// The objects that register our webhooks.
    pub registrations: Vec<Sight<Bundles>>,
}

impl Sights {
    fn webhooks(&self) -> impl Iterator<Item = &Vec<Anchor>> {
        self.registrations
            .iter()
            .filter_map(|sight| {
                if let Sight::Holds(bundles) = sight {
                    Some(bundles)
                } else {
                    None
                }
            })
            .flatten()
    }

    /// Every anchor of every caBundle.
    #[must_use]
    pub fn bundled(&self) -> Vec<Anchor> {
        let mut all = Vec::new();
        self.webhooks()
            .flatten()
            .for_each(|anchor| add(&mut all, anchor));
        all
    }

    fn is_unknown(&self) -> bool {
        self.registrations.contains(&Sight::Unknown)
    }
}

fn has(anchors: &[Anchor], der: &[u8]) -> bool {
    anchors.iter().any(|anchor| anchor.der == der)
}

fn add(anchors: &mut Vec<Anchor>, anchor: &Anchor) {
    if !has(anchors, &anchor.der) {
        anchors.push(anchor.clone());
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the Secret.
    Write(Change),
    /// Write these anchors into each caBundle of this registration.
    Trust {
        /// Its index in [`Sights::registrations`].
        registration: usize,
        /// All of them, in order.
        anchors: Vec<Anchor>,
    },
    /// Nothing, until something is seen or this time of the process's clock has come.
    WaitUntil(Duration),
}

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What to serve from now on, if it is another one than before.
    pub serve: Option<Leaf>,
    /// What to do.
    pub step: Step,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct Custodian {
    settings: Settings,
    /// Since when each anchor has been in every caBundle, as this process saw it.
    in_force: BTreeMap<Vec<u8>, Duration>,
    /// Since when nothing has been registered.
    unregistered: Option<Duration>,
    serving: Option<Leaf>,
    /// The last sound content of the Secret.
    memory: Option<Store>,
    /// When each registration was last to be written, and the pause after that.
    trusted: BTreeMap<usize, (Duration, Duration)>,
}

impl Custodian {
    /// A replica that has seen nothing and serves nothing.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            in_force: BTreeMap::new(),
            unregistered: None,
            serving: None,
            memory: None,
            trusted: BTreeMap::new(),
        }
    }

    /// What is wanted.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What [`Change::Restore`] goes back to.
    #[must_use]
    pub const fn memory(&self) -> Option<&Store> {
        self.memory.as_ref()
    }

    /// Decides at `now`, a clock of the process that is never set; `wall` is the time of certificates.
    pub fn look(&mut self, now: Duration, wall: DateTime<Utc>, sights: &Sights) -> Look {
        self.note(now, sights);
        let idle = |step| Look { serve: None, step };
        let store = match &sights.secret {
            Sight::Unknown | Sight::Foreign => return idle(Step::WaitUntil(now + LONGEST_WAIT)),
            Sight::Missing => {
                return idle(Step::Write(if self.memory.is_some() {
                    Change::Restore
                } else {
                    Change::Begin
                }));
            }
            Sight::Holds(store) if store.is_sound() => store,
            Sight::Holds(_) if self.memory.is_some() => return idle(Step::Write(Change::Restore)),
            Sight::Holds(store) => store,
        };
        if store.is_sound() {
            self.memory = Some(store.clone());
        }
        let leaf = store.leaf.as_ref().filter(|_| store.is_sound());
        let serve = leaf
            .filter(|leaf| self.may_serve(leaf, now, wall, sights))
            .cloned();
        let serve = serve.filter(|leaf| self.serving.as_ref() != Some(leaf));
        if serve.is_some() {
            self.serving.clone_from(&serve);
        }
        Look {
            serve,
            step: self.step(store, now, wall, sights),
        }
    }

    fn step(&mut self, store: &Store, now: Duration, wall: DateTime<Utc>, sights: &Sights) -> Step {
        if store.leaf_is_due(&self.settings, wall) {
            return Step::Write(Change::Renew);
        }
        if store.authority_is_due(wall) {
            return Step::Write(Change::Begin);
        }
        let mut due = self.due(store, now, wall);
        if sights.is_unknown() {
            return Step::WaitUntil(due);
        }
        for (registration, anchors) in untrusting(store, wall, sights) {
            match self.trusted.get(&registration) {
                Some((last, pause)) if now < *last + *pause => due = due.min(*last + *pause),
                last => {
                    let fight = last.filter(|(last, pause)| now <= *last + *pause * QUIET_PAUSES);
                    let pause = fight.map_or(PAUSE, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
                    self.trusted.insert(registration, (now, pause));
                    return Step::Trust {
                        registration,
                        anchors,
                    };
                }
            }
        }
        let unknown = |anchor: &Anchor| !store.knows(anchor) && !anchor.validity.is_over(wall);
        let foreign: Vec<Anchor> = sights.bundled().into_iter().filter(unknown).collect();
        if !foreign.is_empty() && store.anchors().count() < MOST_ANCHORS {
            return Step::Write(Change::Adopt(foreign));
        }
        if let Some(next) = &store.next {
            match self.known_at(next, store, now, wall, sights) {
                Some(at) if at <= now => return Step::Write(Change::Promote),
                at => due = at.map_or(due, |at| at.min(due)),
            }
        }
        if store
            .retired
            .iter()
            .any(|anchor| store.is_spent(anchor, wall))
        {
            return Step::Write(Change::Forget);
        }
        Step::WaitUntil(due)
    }

    /// Notes since when each anchor has been in force.
    fn note(&mut self, now: Duration, sights: &Sights) {
        let registered = sights.is_unknown() || sights.webhooks().next().is_some();
        self.unregistered = if registered {
            None
        } else {
            self.unregistered.or(Some(now))
        };
        let bundled = if sights.is_unknown() {
            Vec::new()
        } else {
            sights.bundled()
        };
        let everywhere = |der: &[u8]| sights.webhooks().all(|bundle| has(bundle, der));
        self.in_force
            .retain(|der, _| has(&bundled, der) && everywhere(der));
        for anchor in bundled {
            if everywhere(&anchor.der) {
                self.in_force.entry(anchor.der).or_insert(now);
            }
        }
    }

    /// When every API server knows it; `None` while it is not in every caBundle.
    fn settled_at(&self, der: &[u8]) -> Option<Duration> {
        // Where nothing is registered nobody calls us.
        self.unregistered
            .or_else(|| self.in_force.get(der).copied())
            .map(|since| since + self.settings.propagation)
    }

    /// When the next authority may sign. A caBundle that trusts nothing else has nobody to lose: that is the first start.
    fn known_at(
        &self,
        next: &Signer,
        store: &Store,
        now: Duration,
        wall: DateTime<Utc>,
        sights: &Sights,
    ) -> Option<Duration> {
        let over = |anchor: &Anchor| anchor.validity.is_over(wall);
        let settled = self.settled_at(&next.anchor.der)?;
        let alone = store
            .current
            .as_ref()
            .is_none_or(|current| over(&current.anchor))
            && sights
                .bundled()
                .iter()
                .all(|anchor| anchor.der == next.anchor.der || over(anchor));
        Some(if alone { now } else { settled })
    }

    fn may_serve(&self, leaf: &Leaf, now: Duration, wall: DateTime<Utc>, sights: &Sights) -> bool {
        let settled = self.settled_at(&leaf.issuer);
        let known = match self
            .serving
            .as_ref()
            .filter(|serving| !serving.validity.is_over(wall))
        {
            Some(serving) => serving.issuer == leaf.issuer || settled.is_some_and(|at| at <= now),
            // Nothing is lost by a start: whoever put the leaf into the Secret has waited.
            None => settled.is_some() || sights.is_unknown(),
        };
        known && leaf.validity.holds(wall)
    }

    /// When something is due by the clocks alone.
    fn due(&self, store: &Store, now: Duration, wall: DateTime<Utc>) -> Duration {
        let leaf = store.leaf.as_ref().map(|leaf| leaf.validity.renew_at());
        let current = store
            .current
            .as_ref()
            .map(|current| current.anchor.validity.renew_at())
            .filter(|_| store.next.is_none());
        let retired = store.retired.iter().map(|anchor| {
            store.trust_until.map_or(anchor.validity.expires, |at| {
                at.min(anchor.validity.expires)
            })
        });
        let soonest = leaf
            .into_iter()
            .chain(current)
            .chain(retired)
            .filter(|at| *at > wall)
            .min();
        let left = soonest
            .and_then(|at| (at - wall).to_std().ok())
            .unwrap_or(LONGEST_WAIT);
        let settles = self
            .in_force
            .values()
            .chain(&self.unregistered)
            .map(|since| *since + self.settings.propagation)
            .filter(|at| *at > now)
            .min();
        (now + left.min(LONGEST_WAIT)).min(settles.unwrap_or(Duration::MAX))
    }
}

/// Registrations whose caBundles are not as they should be, and what they should hold.
fn untrusting(store: &Store, wall: DateTime<Utc>, sights: &Sights) -> Vec<(usize, Vec<Anchor>)> {
    let wrong = |(registration, sight): (usize, &Sight<Bundles>)| {
        let Sight::Holds(bundles) = sight else {
            return None;
        };
        let mut anchors: Vec<Anchor> = Vec::new();
        store.anchors().for_each(|anchor| add(&mut anchors, anchor));
        let theirs = bundles
            .iter()
            .flatten()
            .filter(|anchor| !store.knows(anchor) && !anchor.validity.is_over(wall));
        for anchor in theirs {
            if anchors.len() < MOST_ANCHORS {
                add(&mut anchors, anchor);
            }
        }
        let same = |bundle: &Vec<Anchor>| {
            bundle.len() == anchors.len() && anchors.iter().all(|anchor| has(bundle, &anchor.der))
        };
        if bundles.iter().all(same) {
            None
        } else {
            Some((registration, anchors))
        }
    };
    sights
        .registrations
        .iter()
        .enumerate()
        .filter_map(wrong)
        .collect()
}
