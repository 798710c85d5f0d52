//! Leader election over one Lease, by client-go's protocol: which `serve` replica may write.
//!
//! Time is this process' monotonic clock, relative to the start of the [`Election`]. Wall time is
//! only written, never compared, so clocks may differ by hours; their *rates* may differ by 5 %.
//!
//! Invariants, which the tests check by simulation with faults:
//! - a leader begins writes only before the start of its last confirmed renewal plus
//!   [`RENEW_DEADLINE`], each with a deadline of at most [`WRITE`]; every other replica waits
//!   [`LEASE`] from the moment when it *saw* the record change, and then replaces exactly the
//!   version that it saw. So the last write of one leader is over before another begins;
//! - a lost answer grants nothing: only a confirmed write of this replica does, counted from when
//!   it was sent;
//! - holder and acquireTime identify a term. So a replica recognises its own write whose answer was
//!   lost, and a second process under its name is not mistaken for it;
//! - at shutdown the permission ends immediately; the lease is released when the last write must be
//!   over.
//!
//! A lease cannot fence two cases, which is why every write also carries a `resourceVersion`: a
//! process that is suspended in the middle of a write, and a Lease that is deleted by hand while a
//! candidate that never saw it starts.
//!
//! Deliberately absent: requests, timers, randomness, and what a leader does.

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

#[cfg(test)]
mod tests;

/// How long other replicas wait after they saw the record change.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long after sending its last confirmed renewal a leader may begin a write.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// The longest deadline of a leader's write.
pub const WRITE: Duration = Duration::from_secs(2);
/// The time between two rounds: a leader renews, a follower reads.
pub const RETRY: Duration = Duration::from_secs(2);
/// The longest jitter, which spreads the followers' rounds.
pub const MAX_JITTER: Duration = Duration::from_millis(400);
/// The deadline of one request for the Lease.
pub const REQUEST: Duration = Duration::from_secs(2);
/// Releasing the lease is given up after this time; other replicas then wait for [`LEASE`].
pub const RELEASE: Duration = Duration::from_secs(8);
/// The longest duration accepted from a record: a typo must not stop the controller for good.
pub const MAX_LEASE: Duration = Duration::from_mins(1);
/// The limit of requests in one round: replace, create, read, replace.
const REQUESTS_IN_A_ROUND: u8 = 4;
/// `leaseDurationSeconds` of a released lease, as client-go writes it.
const RELEASED_SECONDS: u32 = 1;

// Safety rests on this, with clock rates 5 % apart either way.
const _: () =
    assert!((RENEW_DEADLINE.as_millis() + WRITE.as_millis()) * 105 < LEASE.as_millis() * 95);

/// The spec of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// `holderIdentity`; empty if the lease is released.
    pub holder: String,
    /// `leaseDurationSeconds`.
    pub lease_seconds: u32,
    /// `acquireTime`; identifies a term together with the holder.
    pub acquired: Option<DateTime<Utc>>,
    /// `renewTime`.
    pub renewed: Option<DateTime<Utc>>,
    /// `leaseTransitions`.
    pub transitions: u32,
}

/// A record and its version in the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub record: LeaseRecord,
    /// `resourceVersion`.
    pub version: String,
}

/// A request for the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read the Lease from the store, not from a cache.
    Get,
    /// Refused if the Lease exists.
    Create(LeaseRecord),
    /// Replace exactly this version.
    Replace {
        record: LeaseRecord,
        version: String,
    },
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The stored record, as read or written.
    Found(Stored),
    Missing,
    /// The Lease exists already, or has another version.
    Conflict,
    /// No answer, or one that says nothing about the Lease; a write may have happened.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElectionStep {
    /// Send the request, and pass the answer to [`Election::answered`] within [`REQUEST`].
    Ask(Request),
    /// Do nothing before this time. It is past if the round took long.
    WaitUntil(Duration),
    /// The candidate has retired.
    Done,
}

/// The last observation.
#[derive(Clone, Debug)]
struct LeaseObservation {
    stored: Option<Stored>,
    /// When the lease may be taken if the record is still unchanged.
    free_at: Duration,
}

#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    jitter: Duration,
    observed: Option<LeaseObservation>,
    transitions: Option<u32>,
    /// `acquireTime` of the term that this replica has or tries to begin.
    term: Option<DateTime<Utc>>,
    until: Option<Duration>,
    asked: Option<(Request, Duration)>,
    /// Requests left in this round; 0 between rounds.
    left: u8,
    must_read: bool,
    due: Duration,
    retired: Option<Duration>,
}

impl Election {
    /// Creates a candidate at time zero. `identity` must not be empty, and no two live processes
    /// may share it; `jitter` is limited to [`MAX_JITTER`].
    #[must_use]
    pub fn new(identity: String, jitter: Duration) -> Self {
        Self {
            identity,
            jitter: jitter.min(MAX_JITTER),
            observed: None,
            transitions: None,
            term: None,
            until: None,
            asked: None,
            left: 0,
            must_read: true,
            due: Duration::ZERO,
            retired: None,
        }
    }

    /// Returns the holder, as last seen.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.stored()
            .map(|stored| stored.record.holder.as_str())
            .filter(|holder| !holder.is_empty())
    }

    /// `leaseTransitions`, as last seen.
    #[must_use]
    pub fn transitions(&self) -> u32 {
        self.transitions.unwrap_or(0)
    }

    /// Returns until when writes may begin; may be past.
    #[must_use]
    pub const fn may_write_until(&self) -> Option<Duration> {
        self.until
    }

    /// Decides what to do at `now`; `wall` is written as the time.
    #[must_use]
    pub fn next(&mut self, now: Duration, wall: DateTime<Utc>) -> ElectionStep {
        let wall = wall.trunc_subsecs(6);
        if let Some(retired) = self.retired {
            return self.release(now, wall, retired);
        }
        if self.left == 0 {
            if now < self.due {
                return ElectionStep::WaitUntil(self.due);
            }
            self.left = REQUESTS_IN_A_ROUND;
            self.due = now
                + RETRY
                + if self.is_mine() {
                    Duration::ZERO
                } else {
                    self.jitter
                };
            // A replacement is checked against the version; a creation is not, so read again
            // whether the Lease is absent.
            self.must_read = !(self.is_mine()
                || self.leads(now)
                || (self.stored().is_some() && self.is_free(now)));
        }
        let request = if self.must_read {
            Some(Request::Get)
        } else if self.is_mine() {
            Some(self.renewal(wall))
        } else if self.is_free(now) || (self.leads(now) && self.stored().is_none()) {
            Some(self.acquisition(now, wall))
        } else {
            None
        };
        let Some(request) = request else {
            self.end_round(now);
            return ElectionStep::WaitUntil(self.due);
        };
        self.ask(request, now)
    }

    pub fn answered(&mut self, now: Duration, answer: LeaseAnswer) {
        let Some((request, sent)) = self.asked.take() else {
            return;
        };
        match answer {
            LeaseAnswer::Found(stored) => {
                self.must_read = false;
                self.see(now, Some(stored));
                if request != Request::Get {
                    if self.retired.is_none() && self.is_mine() {
                        self.until = Some(sent + RENEW_DEADLINE);
                    }
                    self.end_round(now);
                }
            }
            LeaseAnswer::Missing => {
                self.must_read = false;
                self.see(now, None);
            }
            LeaseAnswer::Conflict => self.must_read = true,
            LeaseAnswer::Failed => self.left = 0,
        }
    }

    #[must_use]
    pub const fn is_retiring(&self) -> bool {
        self.retired.is_some()
    }

    /// Begins the shutdown: no write begins any more.
    pub fn retire(&mut self, now: Duration) {
        if self.retired.is_some() {
            return;
        }
        self.retired = Some(now);
        // The last write began now at the latest.
        self.due = self
            .until
            .take()
            .map_or(now, |until| until.min(now) + WRITE);
        self.left = 0;
        self.must_read = !self.is_mine();
    }

    fn release(&mut self, now: Duration, wall: DateTime<Utc>, retired: Duration) -> ElectionStep {
        if now >= retired + RELEASE || self.term.is_none() || !(self.must_read || self.is_mine()) {
            return ElectionStep::Done;
        }
        if self.left == 0 {
            if now < self.due {
                return ElectionStep::WaitUntil(self.due);
            }
            self.left = REQUESTS_IN_A_ROUND;
            self.due = now + RETRY;
        }
        if self.must_read {
            return self.ask(Request::Get, now);
        }
        let released = LeaseRecord {
            holder: String::new(),
            lease_seconds: RELEASED_SECONDS,
            acquired: Some(wall),
            renewed: Some(wall),
            transitions: self.transitions(),
        };
        let request = self.writing(released);
        self.ask(request, now)
    }

    fn ask(&mut self, request: Request, now: Duration) -> ElectionStep {
        self.left = self.left.saturating_sub(1);
        self.asked = Some((request.clone(), now));
        ElectionStep::Ask(request)
    }

    /// Ends a round early; the next one begins in time for a lease that becomes free.
    fn end_round(&mut self, now: Duration) {
        self.left = 0;
        if let Some(observed) = self
            .observed
            .as_ref()
            .filter(|observed| observed.free_at > now && !self.is_mine())
        {
            self.due = self.due.min(observed.free_at);
        }
    }

    fn see(&mut self, now: Duration, stored: Option<Stored>) {
        if self
            .observed
            .as_ref()
            .is_some_and(|observed| observed.stored == stored)
        {
            return;
        }
        let first = self.observed.is_none();
        let free_at = match &stored {
            Some(stored) if stored.record.holder.is_empty() => now,
            // The own name from before a restart: that process is dead, and its writes are over by
            // then.
            Some(stored) if first && stored.record.holder == self.identity => now.max(WRITE),
            Some(stored) => {
                now + Duration::from_secs(stored.record.lease_seconds.into())
                    .clamp(LEASE, MAX_LEASE)
            }
            None if first => now,
            // Deleted under a holder who may still write.
            None => now + LEASE,
        };
        if let Some(stored) = &stored {
            self.transitions = Some(stored.record.transitions);
        }
        let leads_without_lease = stored.is_none() && self.leads(now);
        self.observed = Some(LeaseObservation { stored, free_at });
        if !self.is_mine() && !leads_without_lease {
            self.term = None;
            self.until = None;
        }
    }

    fn stored(&self) -> Option<&Stored> {
        self.observed.as_ref()?.stored.as_ref()
    }

    fn is_mine(&self) -> bool {
        let own =
            |record: &LeaseRecord| record.holder == self.identity && record.acquired == self.term;
        self.term.is_some() && self.stored().is_some_and(|stored| own(&stored.record))
    }

    fn is_free(&self, now: Duration) -> bool {
        self.observed
            .as_ref()
            .is_some_and(|observed| now >= observed.free_at)
    }

    fn leads(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Returns the own record with a new renewTime. Other replicas must see it change, whatever the
    /// wall clock does.
    fn renewal(&self, wall: DateTime<Utc>) -> Request {
        let before = self.stored().and_then(|stored| stored.record.renewed);
        let renewed = if before == Some(wall) {
            wall + TimeDelta::microseconds(1)
        } else {
            wall
        };
        self.writing(self.record(renewed, self.transitions()))
    }

    fn acquisition(&mut self, now: Duration, wall: DateTime<Utc>) -> Request {
        // Recreating the Lease within a term is no transition.
        let transitions = if self.leads(now) {
            self.transitions()
        } else {
            self.transitions.map_or(0, |n| n.saturating_add(1))
        };
        self.term.get_or_insert(wall);
        self.writing(self.record(wall, transitions))
    }

    fn record(&self, renewed: DateTime<Utc>, transitions: u32) -> LeaseRecord {
        let lease_seconds = u32::try_from(LEASE.as_secs()).unwrap_or(u32::MAX);
        LeaseRecord {
            holder: self.identity.clone(),
            lease_seconds,
            acquired: self.term,
            renewed: Some(renewed),
            transitions,
        }
    }

    fn writing(&self, record: LeaseRecord) -> Request {
        match self.stored() {
            Some(stored) => Request::Replace {
                record,
                version: stored.version.clone(),
            },
            None => Request::Create(record),
        }
    }
}
