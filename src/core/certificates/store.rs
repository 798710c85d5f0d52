//! The content of the Secret, and its changes.
//!
//! Invariants: every content made here is sound (a leaf exists exactly while its signer does); a CA
//! that ever signed a leaf stays trusted until that leaf has expired; only the content of the
//! Secret decides that an anchor is dropped, so that replicas whose clocks differ do not undo each
//! other's writes.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::RotationSettings;

/// How long before its creation a certificate becomes valid: clocks differ, and clients refuse a
/// certificate from the future.
pub const BACKDATE: TimeDelta = TimeDelta::hours(1);
/// The limit of kept anchors, since others may fill a caBundle.
pub const MAX_ANCHORS: usize = 16;
/// The limit of DNS names on a leaf.
pub const MAX_NAMES: usize = 16;

/// A private key as PEM text. Has no `Display`; `Debug` hides the content.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKeyPem(pub String);

impl fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKeyPem(..)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// [`BACKDATE`] after `notBefore`.
    pub issued: DateTime<Utc>,
    /// `notAfter`.
    pub expires: DateTime<Utc>,
}

impl Validity {
    /// Returns the validity of a certificate made now; it ends no later than its signer.
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

    #[must_use]
    pub fn is_over(&self, wall: DateTime<Utc>) -> bool {
        wall >= self.expires
    }

    /// Returns whether the certificate is valid now.
    #[must_use]
    pub fn holds(&self, wall: DateTime<Utc>) -> bool {
        self.issued - BACKDATE <= wall && !self.is_over(wall)
    }

    /// Returns whether the certificate is not valid yet, because the clock of its maker was ahead.
    #[must_use]
    pub fn is_early(&self, wall: DateTime<Utc>) -> bool {
        self.issued - BACKDATE > wall
    }

    /// Returns the end of two thirds of its life.
    #[must_use]
    pub fn renew_at(&self) -> DateTime<Utc> {
        self.issued + (self.expires - self.issued).max(TimeDelta::zero()) / 3 * 2
    }
}

/// A certificate that the API server may trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The certificate, which is also its identity.
    pub der: Vec<u8>,
    pub validity: Validity,
}

/// A CA that can sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    pub anchor: Anchor,
    pub key: PrivateKeyPem,
}

/// A serving certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// PEM.
    pub chain: String,
    pub key: PrivateKeyPem,
    /// The anchor that verifies the leaf.
    pub issuer: Vec<u8>,
    /// DNS names.
    pub names: Vec<String>,
    pub validity: Validity,
}

/// The readable content of the Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateStore {
    /// The CA that signs leaves; every API server trusts it.
    pub current: Option<Signer>,
    /// The next CA: in the caBundle, and signs nothing before every API server knows it.
    pub next: Option<Signer>,
    /// CAs that no longer sign, and anchors that others put into the caBundle.
    pub retired: Vec<Anchor>,
    /// When the last leaf of a retired CA has expired. If unset, each is kept until it expires
    /// itself.
    pub trust_until: Option<DateTime<Utc>>,
    /// To be removed from the caBundle.
    pub dropped: Vec<Anchor>,
    /// The leaf that all replicas serve.
    pub leaf: Option<Leaf>,
}

/// Makes keys and certificates.
pub trait Issue {
    type Error;
    /// # Errors
    /// When none can be made.
    fn authority(&mut self, validity: Validity) -> Result<Signer, Self::Error>;
    /// Makes a leaf signed by `signer`.
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// Restore the content that this process saw last, because it was deleted or broken.
    Restore,
    /// Add another CA; it signs nothing yet.
    Begin,
    /// Replace the leaf by one of the same CA.
    Renew,
    /// Let the next CA sign from now on, beginning with the leaf.
    Promote,
    /// Keep anchors that others put into the caBundle for a while.
    Adopt(Vec<Anchor>),
    /// Drop spent anchors.
    Forget,
}

impl CertificateStore {
    /// Returns whether the content is as a change leaves it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match (&self.current, &self.leaf) {
            (Some(current), Some(leaf)) => leaf.issuer == current.anchor.der,
            (None, None) => self.next.is_some(),
            _ => false,
        }
    }

    /// Returns the required content of the caBundle.
    pub fn anchors(&self) -> impl Iterator<Item = &Anchor> {
        self.next
            .iter()
            .chain(&self.current)
            .map(|signer| &signer.anchor)
            .chain(&self.retired)
    }

    /// Returns whether an anchor of the caBundle is accounted for here.
    #[must_use]
    pub fn knows(&self, anchor: &Anchor) -> bool {
        self.anchors()
            .chain(&self.dropped)
            .any(|known| known.der == anchor.der)
    }

    /// Returns whether another leaf is due: it is missing, lacks a name, is not valid yet, or two
    /// thirds of its life are over.
    #[must_use]
    pub fn leaf_is_due(&self, settings: &RotationSettings, wall: DateTime<Utc>) -> bool {
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

    /// Returns whether a retired anchor may be dropped.
    #[must_use]
    pub fn is_spent(&self, anchor: &Anchor, wall: DateTime<Utc>) -> bool {
        anchor.validity.is_over(wall) || self.trust_until.is_some_and(|until| wall >= until)
    }

    /// Returns the content after a change. `memory` is what [`StoreChange::Restore`] restores,
    /// `bundled` the current content of the caBundles.
    ///
    /// # Errors
    /// Those of [`Issue`].
    pub fn changed<I: Issue>(
        mut self,
        change: &StoreChange,
        settings: &RotationSettings,
        wall: DateTime<Utc>,
        memory: Option<&Self>,
        bundled: &[Anchor],
        issue: &mut I,
    ) -> Result<Self, I::Error> {
        match change {
            StoreChange::Restore => self = memory.cloned().unwrap_or(self),
            StoreChange::Begin => {
                self.begin(issue.authority(Validity::from_now(
                    wall,
                    settings.ca_validity,
                    None,
                ))?);
            }
            StoreChange::Renew => {
                if let Some(current) = self.current.clone() {
                    self.renew(&current, settings, wall, issue)?;
                }
            }
            StoreChange::Promote => self.promote(settings, wall, issue)?,
            StoreChange::Adopt(anchors) => self.adopt(anchors, settings, wall),
            StoreChange::Forget => self.forget(wall),
        }
        // Only now, so that a replica that saw the caBundle before the Secret finds them here.
        if *change != StoreChange::Forget {
            self.dropped
                .retain(|gone| bundled.iter().any(|anchor| anchor.der == gone.der));
        }
        Ok(self)
    }

    fn begin(&mut self, next: Signer) {
        // The replaced CA never signed, so no replica served a leaf of it.
        self.dropped
            .extend(self.next.replace(next).map(|never| never.anchor));
        if self.leaf.as_ref().map(|leaf| &leaf.issuer)
            != self.current.as_ref().map(|current| &current.anchor.der)
        {
            self.leaf = None;
        }
        if self.leaf.is_none() {
            // The current CA has expired, or a leaf of it would have been due before.
            self.retired
                .extend(self.current.take().map(|before| before.anchor));
        }
    }

    fn renew<I: Issue>(
        &mut self,
        signer: &Signer,
        settings: &RotationSettings,
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

    /// Keeps the names of the current leaf: two replicas with different flags would otherwise take
    /// turns.
    fn names(&self, settings: &RotationSettings) -> Vec<String> {
        let mut names = settings.names.clone();
        let before = self.leaf.iter().flat_map(|leaf| &leaf.names);
        for name in before {
            if !names.contains(name) && names.len() < MAX_NAMES {
                names.push(name.clone());
            }
        }
        names
    }

    fn promote<I: Issue>(
        &mut self,
        settings: &RotationSettings,
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

    fn adopt(&mut self, anchors: &[Anchor], settings: &RotationSettings, wall: DateTime<Utc>) {
        for anchor in anchors {
            if !self.knows(anchor) && self.anchors().count() < MAX_ANCHORS {
                self.retired.push(anchor.clone());
            }
        }
        // A leaf of theirs that is served now is assumed to last as long as one of timeshard.
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
            .drain(..self.dropped.len().saturating_sub(MAX_ANCHORS));
    }
}
