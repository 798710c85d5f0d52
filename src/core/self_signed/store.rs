//! What the Secret holds, and how one content of it follows from another.
//!
//! Invariants: a content that is made here is sound (a leaf is there exactly while its signer is); an authority that ever
//! signed a leaf stays trusted until that leaf has expired; only a content of the Secret decides that an anchor is dropped, so
//! that replicas whose clocks differ do not undo each other's writes.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::Settings;

/// Certificates begin to be valid this long before they are made: clocks differ, and a certificate of the future is refused.
pub const BACKDATE: TimeDelta = TimeDelta::hours(1);
/// Anchors that are kept at most: a caBundle that somebody else fills must not grow for ever.
pub const MOST_ANCHORS: usize = 16;
/// DNS names on a leaf at most.
pub const MOST_NAMES: usize = 16;

/// A private key as PEM text. It has no `Display`, and its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// From when to when a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it was made: [`BACKDATE`] after its `notBefore`.
    pub issued: DateTime<Utc>,
    /// Its `notAfter`.
    pub expires: DateTime<Utc>,
}

impl Validity {
    /// What a certificate gets that is made now: it ends with its signer at the latest.
    #[must_use]
    pub fn from_now(wall: DateTime<Utc>, span: TimeDelta, signer: Option<&Anchor>) -> Self {
        let expires = wall
            .checked_add_signed(span)
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
        Self {
            issued: wall,
            expires: signer.map_or(expires, |signer| expires.min(signer.validity.expires)),
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, wall: DateTime<Utc>) -> bool {
        wall >= self.expires
    }

    /// Whether it counts.
    #[must_use]
    pub fn holds(&self, wall: DateTime<Utc>) -> bool {
        self.issued - BACKDATE <= wall && !self.is_over(wall)
    }

    /// Whether it does not count yet: the clock of whoever made it was ahead.
    #[must_use]
    pub fn is_early(&self, wall: DateTime<Utc>) -> bool {
        self.issued - BACKDATE > wall
    }

    /// Two thirds of its life.
    #[must_use]
    pub fn renew_at(&self) -> DateTime<Utc> {
        self.issued + (self.expires - self.issued).max(TimeDelta::zero()) / 3 * 2
    }
}

/// A certificate that the API server may trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The certificate itself, which is also its identity.
    pub der: Vec<u8>,
    /// From when to when it counts.
    pub validity: Validity,
}

/// An authority that can sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Its certificate.
    pub anchor: Anchor,
    /// Its key.
    pub key: Key,
}

/// A serving certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate as PEM.
    pub chain: String,
    /// Its key.
    pub key: Key,
    /// The anchor that it verifies against.
    pub issuer: Vec<u8>,
    /// Its DNS names.
    pub names: Vec<String>,
    /// From when to when it counts.
    pub validity: Validity,
}

/// The content of the Secret, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// The authority that signs leaves; trusted by every API server.
    pub current: Option<Signer>,
    /// The authority that follows; in the caBundle, and signs nothing before every API server knows it.
    pub next: Option<Signer>,
    /// Authorities that sign no more, and anchors that others put into the caBundle.
    pub retired: Vec<Anchor>,
    /// When the last leaf of a retired one has expired; without it each is kept until it expires itself.
    pub trust_until: Option<DateTime<Utc>>,
    /// To be taken out of the caBundle.
    pub dropped: Vec<Anchor>,
    /// What all replicas serve.
    pub leaf: Option<Leaf>,
}

/// Makes keys and certificates.
pub trait Issue {
    /// Why there is none.
    type Error;
    /// A new authority.
    ///
    /// # Errors
    /// When none can be made.
    fn authority(&mut self, validity: Validity) -> Result<Signer, Self::Error>;
    /// A new leaf, signed by `signer`.
    ///
    /// # Errors
    /// When none can be made.
    fn leaf(
        &mut self,
        signer: &Signer,
        names: &[String],
        validity: Validity,
    ) -> Result<Leaf, Self::Error>;
}

/// A change of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What this process saw last, since it is gone or somebody broke it.
    Restore,
    /// Another authority; it signs nothing yet.
    Begin,
    /// Another leaf by the same authority.
    Renew,
    /// The next authority signs from now on; so does the leaf.
    Promote,
    /// Anchors that others put into the caBundle stay for a while.
    Adopt(Vec<Anchor>),
    /// Anchors whose time is over go.
    Forget,
}

impl Store {
    /// Whether it is as a change leaves it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match (&self.current, &self.leaf) {
            (Some(current), Some(leaf)) => leaf.issuer == current.anchor.der,
            (None, None) => self.next.is_some(),
            _ => false,
        }
    }

    /// What the caBundle must hold.
    pub fn anchors(&self) -> impl Iterator<Item = &Anchor> {
        self.next
            .iter()
            .chain(&self.current)
            .map(|signer| &signer.anchor)
            .chain(&self.retired)
    }

    /// Whether an anchor of the caBundle is accounted for here.
    #[must_use]
    pub fn knows(&self, anchor: &Anchor) -> bool {
        self.anchors()
            .chain(&self.dropped)
            .any(|known| known.der == anchor.der)
    }

    /// Whether another leaf is due: it is missing, does not have all names, does not count yet, or two thirds of its life
    /// are over.
    #[must_use]
    pub fn leaf_is_due(&self, settings: &Settings, wall: DateTime<Utc>) -> bool {
        let Some(current) = self
            .current
            .as_ref()
            .filter(|current| !current.anchor.validity.is_over(wall))
        else {
            return false;
        };
        let Some(leaf) = self
            .leaf
            .as_ref()
            .filter(|leaf| leaf.issuer == current.anchor.der)
        else {
            return true;
        };
        let planned = Validity::from_now(wall, settings.leaf_validity, Some(&current.anchor));
        // A leaf that ends with its authority cannot be made to last longer.
        settings.names.iter().any(|name| !leaf.names.contains(name))
            || (leaf.validity.is_early(wall) && !current.anchor.validity.is_early(wall))
            || (wall >= leaf.validity.renew_at() && planned.expires > leaf.validity.expires)
    }

    /// Whether another authority is due.
    #[must_use]
    pub fn authority_is_due(&self, wall: DateTime<Utc>) -> bool {
        let useless = |signer: &Signer| {
            signer.anchor.validity.is_over(wall) || signer.anchor.validity.is_early(wall)
        };
        let due = |current: &Signer| {
            current.anchor.validity.is_early(wall) || wall >= current.anchor.validity.renew_at()
        };
        self.next.as_ref().is_none_or(useless) && self.current.as_ref().is_none_or(due)
    }

    /// Whether a retired anchor's time is over.
    #[must_use]
    pub fn is_spent(&self, anchor: &Anchor, wall: DateTime<Utc>) -> bool {
        anchor.validity.is_over(wall) || self.trust_until.is_some_and(|until| wall >= until)
    }

    /// The content after a change. `memory` is what [`Change::Restore`] goes back to, `bundled` what the caBundles hold now.
    ///
    /// # Errors
    /// Those of [`Issue`].
    pub fn changed<I: Issue>(
        mut self,
        change: &Change,
        settings: &Settings,
        wall: DateTime<Utc>,
        memory: Option<&Self>,
        bundled: &[Anchor],
        issue: &mut I,
    ) -> Result<Self, I::Error> {
        match change {
            Change::Restore => self = memory.cloned().unwrap_or(self),
            Change::Begin => {
                self.begin(issue.authority(Validity::from_now(wall, settings.ca_validity, None))?)
            }
            Change::Renew => {
                if let Some(current) = self.current.clone() {
                    self.renew(&current, settings, wall, issue)?;
                }
            }
            Change::Promote => self.promote(settings, wall, issue)?,
            Change::Adopt(anchors) => self.adopt(anchors, settings, wall),
            Change::Forget => self.forget(wall),
        }
        // Late, so that a replica that saw the caBundle before the Secret finds them here.
        if *change != Change::Forget {
            self.dropped
                .retain(|gone| bundled.iter().any(|anchor| anchor.der == gone.der));
        }
        Ok(self)
    }

    fn begin(&mut self, next: Signer) {
        // Nobody ever served a leaf of one that never signed.
        self.dropped
            .extend(self.next.replace(next).map(|never| never.anchor));
        if self.leaf.as_ref().map(|leaf| &leaf.issuer)
            != self.current.as_ref().map(|current| &current.anchor.der)
        {
            self.leaf = None;
        }
        if self.leaf.is_none() {
            // It has expired, or a leaf of it would have been due before this.
            self.retired
                .extend(self.current.take().map(|before| before.anchor));
        }
    }

    fn renew<I: Issue>(
        &mut self,
        signer: &Signer,
        settings: &Settings,
        wall: DateTime<Utc>,
        issue: &mut I,
    ) -> Result<(), I::Error> {
        let validity = Validity::from_now(wall, settings.leaf_validity, Some(&signer.anchor));
        let leaf = issue.leaf(signer, &self.names(settings), validity)?;
        if let Some(before) = self.leaf.replace(leaf) {
            self.trust_until = self.trust_until.max(Some(before.validity.expires));
        }
        Ok(())
    }

    /// Names that the leaf has already stay on it: two replicas with different flags would take turns otherwise.
    fn names(&self, settings: &Settings) -> Vec<String> {
        let mut names = settings.names.clone();
        let before = self.leaf.iter().flat_map(|leaf| &leaf.names);
        for name in before {
            if !names.contains(name) && names.len() < MOST_NAMES {
                names.push(name.clone());
            }
        }
        names
    }

    fn promote<I: Issue>(
        &mut self,
        settings: &Settings,
        wall: DateTime<Utc>,
        issue: &mut I,
    ) -> Result<(), I::Error> {
        let Some(next) = self.next.clone() else {
            return Ok(());
        };
        self.renew(&next, settings, wall, issue)?;
        self.next = None;
        self.retired
            .extend(self.current.replace(next).map(|before| before.anchor));
        Ok(())
    }

    fn adopt(&mut self, anchors: &[Anchor], settings: &Settings, wall: DateTime<Utc>) {
        for anchor in anchors {
            if !self.knows(anchor) && self.anchors().count() < MOST_ANCHORS {
                self.retired.push(anchor.clone());
            }
        }
        // A leaf of theirs that is served now lasts as long as one of ours, as far as anybody knows.
        self.trust_until = self
            .trust_until
            .max(wall.checked_add_signed(settings.leaf_validity));
    }

    fn forget(&mut self, wall: DateTime<Utc>) {
        let (spent, kept) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|anchor| self.is_spent(anchor, wall));
        self.retired = kept;
        self.dropped.extend::<Vec<_>>(spent);
        self.dropped
            .drain(..self.dropped.len().saturating_sub(MOST_ANCHORS));
    }
}
