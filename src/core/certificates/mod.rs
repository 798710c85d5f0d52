//! Certificates without cert-manager: what one replica does next, given the Secret and the
//! caBundles.
//!
//! Every replica runs this and none leads: each writes the Secret against the version that it saw,
//! so one replica wins and the others adopt its content. The order makes a rotation lossless:
//!
//! ```text
//! new CA in the Secret, signs nothing -> in every caBundle -> seen there for `propagation`
//!   -> in one write: the new CA signs the leaf, the old CA is retired -> all replicas serve that
//! leaf
//!   -> the last leaf of the old CA has expired: dropped in the Secret -> removed from the
//! caBundles
//! ```
//!
//! Invariants: the Secret has no leaf whose CA the API servers do not know; a serving replica
//! switches to a leaf of another CA only after it has itself seen that CA in every caBundle for
//! `propagation`; anchors of others are kept and never overwritten; deleted or broken content is
//! restored.
//!
//! Deliberately absent: times that one replica writes for another to wait by (clocks differ: each
//! waits by its own), and everything about keys and X.509, which [`Issue`] does.

mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::core::model::duration::PromDuration;
pub use store::{
    Anchor, BACKDATE, CertificateStore, Issue, Leaf, MAX_ANCHORS, MAX_NAMES, PrivateKeyPem, Signer,
    StoreChange, Validity,
};

/// The longest wait between two decisions, since the wall clock may be set.
pub const MAX_WAIT: Duration = Duration::from_mins(10);
/// The shortest time between two writes of caBundles. It doubles while someone else keeps
/// overwriting them, up to [`MAX_PAUSE`].
pub const PAUSE: Duration = Duration::from_secs(1);
/// See [`PAUSE`].
pub const MAX_PAUSE: Duration = Duration::from_mins(1);
/// After this many pauses without a write the next write is not delayed.
const QUIET_PAUSES: u32 = 4;
/// The minimum of leaf validities in a CA validity, so that the end of the CA cuts no leaf short.
const LEAVES: i32 = 3;
/// The minimum of propagations in a leaf validity, so that all replicas switch within its last
/// third.
const PROPAGATIONS: i32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationSettings {
    ca_validity: TimeDelta,
    leaf_validity: TimeDelta,
    propagation: Duration,
    names: Vec<String>,
}

impl RotationSettings {
    /// Validates the settings together.
    ///
    /// # Errors
    /// A sentence with the value and the remedy.
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
        if names.is_empty() || names.len() > MAX_NAMES {
            return Err(format!("{} DNS names; give 1 to {MAX_NAMES}", names.len()));
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
pub enum Observation<T> {
    /// Not read yet.
    #[default]
    Unknown,
    Missing,
    /// Not managed by timeshard.
    Foreign,
    Holds(T),
}

/// The caBundles of one registration, one per webhook.
pub type Bundles = Vec<Vec<Anchor>>;

/// The input of a decision.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    pub secret: Observation<CertificateStore>,
    /// The objects that register timeshard's webhooks.
    pub registrations: Vec<Observation<Bundles>>,
}

impl Observations {
    fn webhooks(&self) -> impl Iterator<Item = &Vec<Anchor>> {
        self.registrations
            .iter()
            .filter_map(|observation| {
                if let Observation::Holds(bundles) = observation {
                    Some(bundles)
                } else {
                    None
                }
            })
            .flatten()
    }

    /// Returns the anchors of all caBundles.
    #[must_use]
    pub fn bundled(&self) -> Vec<Anchor> {
        let mut all = Vec::new();
        self.webhooks()
            .flatten()
            .for_each(|anchor| add(&mut all, anchor));
        all
    }

    fn is_unknown(&self) -> bool {
        self.registrations.contains(&Observation::Unknown)
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RotationStep {
    Write(StoreChange),
    /// Write these anchors into every caBundle of the registration.
    Trust {
        /// Index in [`Observations::registrations`].
        registration: usize,
        /// The complete list, in order.
        anchors: Vec<Anchor>,
    },
    /// Wait for an observation, or until this time of the process' clock.
    WaitUntil(Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationDecision {
    /// The leaf to serve from now on, if it changes.
    pub serve: Option<Leaf>,
    pub step: RotationStep,
}

#[derive(Clone, Debug)]
pub struct CertificateManager {
    settings: RotationSettings,
    /// Since when this process has seen each anchor in every caBundle.
    in_force: BTreeMap<Vec<u8>, Duration>,
    /// Since when nothing has been registered.
    unregistered: Option<Duration>,
    serving: Option<Leaf>,
    /// The last sound content of the Secret.
    memory: Option<CertificateStore>,
    /// The last write of each registration, and the pause after it.
    trusted: BTreeMap<usize, (Duration, Duration)>,
}

impl CertificateManager {
    /// Starts with nothing seen and nothing served.
    #[must_use]
    pub const fn new(settings: RotationSettings) -> Self {
        Self {
            settings,
            in_force: BTreeMap::new(),
            unregistered: None,
            serving: None,
            memory: None,
            trusted: BTreeMap::new(),
        }
    }

    #[must_use]
    pub const fn settings(&self) -> &RotationSettings {
        &self.settings
    }

    /// Returns the content that [`StoreChange::Restore`] restores.
    #[must_use]
    pub const fn memory(&self) -> Option<&CertificateStore> {
        self.memory.as_ref()
    }

    /// Decides at `now`, a clock of the process that is never set; `wall` is the time for
    /// certificates.
    pub fn decide(
        &mut self,
        now: Duration,
        wall: DateTime<Utc>,
        observed: &Observations,
    ) -> RotationDecision {
        self.note(now, observed);
        let idle = |step| RotationDecision { serve: None, step };
        let store = match &observed.secret {
            Observation::Unknown | Observation::Foreign => {
                return idle(RotationStep::WaitUntil(now + MAX_WAIT));
            }
            Observation::Missing => {
                return idle(RotationStep::Write(if self.memory.is_some() {
                    StoreChange::Restore
                } else {
                    StoreChange::Begin
                }));
            }
            Observation::Holds(store) if store.is_sound() => store,
            Observation::Holds(_) if self.memory.is_some() => {
                return idle(RotationStep::Write(StoreChange::Restore));
            }
            Observation::Holds(store) => store,
        };
        if store.is_sound() {
            self.memory = Some(store.clone());
        }
        let leaf = store.leaf.as_ref().filter(|_| store.is_sound());
        let serve = leaf
            .filter(|leaf| self.may_serve(leaf, now, wall, observed))
            .cloned();
        let serve = serve.filter(|leaf| self.serving.as_ref() != Some(leaf));
        if serve.is_some() {
            self.serving.clone_from(&serve);
        }
        RotationDecision {
            serve,
            step: self.step(store, now, wall, observed),
        }
    }

    fn step(
        &mut self,
        store: &CertificateStore,
        now: Duration,
        wall: DateTime<Utc>,
        observed: &Observations,
    ) -> RotationStep {
        if store.leaf_is_due(&self.settings, wall) {
            return RotationStep::Write(StoreChange::Renew);
        }
        if store.authority_is_due(wall) {
            return RotationStep::Write(StoreChange::Begin);
        }
        let mut due = self.due(store, now, wall);
        if observed.is_unknown() {
            return RotationStep::WaitUntil(due);
        }
        for (registration, anchors) in untrusting(store, wall, observed) {
            match self.trusted.get(&registration) {
                Some((last, pause)) if now < *last + *pause => due = due.min(*last + *pause),
                last => {
                    let fight = last.filter(|(last, pause)| now <= *last + *pause * QUIET_PAUSES);
                    let pause = fight.map_or(PAUSE, |(_, pause)| (*pause * 2).min(MAX_PAUSE));
                    self.trusted.insert(registration, (now, pause));
                    return RotationStep::Trust {
                        registration,
                        anchors,
                    };
                }
            }
        }
        let unknown = |anchor: &Anchor| !store.knows(anchor) && !anchor.validity.is_over(wall);
        let foreign: Vec<Anchor> = observed.bundled().into_iter().filter(unknown).collect();
        if !foreign.is_empty() && store.anchors().count() < MAX_ANCHORS {
            return RotationStep::Write(StoreChange::Adopt(foreign));
        }
        if let Some(next) = &store.next {
            match self.known_at(next, store, now, wall, observed) {
                Some(at) if at <= now => return RotationStep::Write(StoreChange::Promote),
                at => due = at.map_or(due, |at| at.min(due)),
            }
        }
        if store
            .retired
            .iter()
            .any(|anchor| store.is_spent(anchor, wall))
        {
            return RotationStep::Write(StoreChange::Forget);
        }
        RotationStep::WaitUntil(due)
    }

    /// Notes since when each anchor has been in force.
    fn note(&mut self, now: Duration, observed: &Observations) {
        let registered = observed.is_unknown() || observed.webhooks().next().is_some();
        self.unregistered = if registered {
            None
        } else {
            self.unregistered.or(Some(now))
        };
        let bundled = if observed.is_unknown() {
            Vec::new()
        } else {
            observed.bundled()
        };
        let everywhere = |der: &[u8]| observed.webhooks().all(|bundle| has(bundle, der));
        self.in_force
            .retain(|der, _| has(&bundled, der) && everywhere(der));
        for anchor in bundled {
            if everywhere(&anchor.der) {
                self.in_force.entry(anchor.der).or_insert(now);
            }
        }
    }

    /// Returns when every API server knows the anchor; `None` while it is missing in a caBundle.
    fn settled_at(&self, der: &[u8]) -> Option<Duration> {
        // Without a registration no API server calls the webhook.
        self.unregistered
            .or_else(|| self.in_force.get(der).copied())
            .map(|since| since + self.settings.propagation)
    }

    /// Returns when the next CA may sign. If the caBundles trust nothing else, no caller can be
    /// lost: that is the first start.
    fn known_at(
        &self,
        next: &Signer,
        store: &CertificateStore,
        now: Duration,
        wall: DateTime<Utc>,
        observed: &Observations,
    ) -> Option<Duration> {
        let over = |anchor: &Anchor| anchor.validity.is_over(wall);
        let settled = self.settled_at(&next.anchor.der)?;
        let alone = store
            .current
            .as_ref()
            .is_none_or(|current| over(&current.anchor))
            && observed
                .bundled()
                .iter()
                .all(|anchor| anchor.der == next.anchor.der || over(anchor));
        Some(if alone { now } else { settled })
    }

    fn may_serve(
        &self,
        leaf: &Leaf,
        now: Duration,
        wall: DateTime<Utc>,
        observed: &Observations,
    ) -> bool {
        let settled = self.settled_at(&leaf.issuer);
        let known = match self
            .serving
            .as_ref()
            .filter(|serving| !serving.validity.is_over(wall))
        {
            Some(serving) => serving.issuer == leaf.issuer || settled.is_some_and(|at| at <= now),
            // A start loses nothing: the replica that wrote the leaf has waited.
            None => settled.is_some() || observed.is_unknown(),
        };
        known && leaf.validity.holds(wall)
    }

    /// Returns when something is due by the clocks alone.
    fn due(&self, store: &CertificateStore, now: Duration, wall: DateTime<Utc>) -> Duration {
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
            .unwrap_or(MAX_WAIT);
        let settles = self
            .in_force
            .values()
            .chain(&self.unregistered)
            .map(|since| *since + self.settings.propagation)
            .filter(|at| *at > now)
            .min();
        (now + left.min(MAX_WAIT)).min(settles.unwrap_or(Duration::MAX))
    }
}

/// Returns the registrations whose caBundles are wrong, with the right content.
fn untrusting(
    store: &CertificateStore,
    wall: DateTime<Utc>,
    observed: &Observations,
) -> Vec<(usize, Vec<Anchor>)> {
    let wrong = |(registration, observation): (usize, &Observation<Bundles>)| {
        let Observation::Holds(bundles) = observation else {
            return None;
        };
        let mut anchors: Vec<Anchor> = Vec::new();
        store.anchors().for_each(|anchor| add(&mut anchors, anchor));
        let theirs = bundles
            .iter()
            .flatten()
            .filter(|anchor| !store.knows(anchor) && !anchor.validity.is_over(wall));
        for anchor in theirs {
            if anchors.len() < MAX_ANCHORS {
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
    observed
        .registrations
        .iter()
        .enumerate()
        .filter_map(wrong)
        .collect()
}
