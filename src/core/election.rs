//! Which of the `serve` replicas may write: leader election over one Lease, to client-go's protocol.
//!
//! Time is this process' own monotonic clock, counted from the start of the [`Election`]. Wall time is only ever written,
//! never compared, so clocks may differ by hours; their *rates* may differ by 5 %.
//!
//! Invariants, which the tests check by simulation with faults:
//! - a leader begins writes only before the start of its last confirmed renewal plus [`RENEW_DEADLINE`], each with a
//!   deadline of at most [`WRITE`]; everyone else waits [`LEASE`] from the moment when they *saw* the record change, and
//!   then replaces exactly the version they saw. So the last write of one leader is over before another begins;
//! - an answer that was lost grants nothing: only a confirmed write of ours does, counted from when it was sent;
//! - a tenure is named by holder and acquireTime, so that a write of ours whose answer was lost is known as ours, and a
//!   second process under our name is not;
//! - at shutdown the permission ends at once; the lease is given back when the last write must be over.
//!
//! Two things no lease can fence, which is why every write carries a `resourceVersion` as well: a process that stands
//! still in the middle of a write, and a Lease that is deleted by hand while a candidate that never saw it starts.
//!
//! Deliberately absent: requests, timers, randomness, and what a leader does.

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

#[cfg(test)]
mod tests;

/// How long others wait after they saw the record change.
pub const LEASE: Duration = Duration::from_secs(10);
/// A leader begins no write later than this after it sent its last confirmed renewal.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// The longest deadline that a leader's write may have.
pub const WRITE: Duration = Duration::from_secs(2);
/// Time between the beginnings of two rounds: a leader renews, a follower looks.
pub const RETRY: Duration = Duration::from_secs(2);
/// The longest jitter, which spreads the followers' rounds.
pub const MOST_JITTER: Duration = Duration::from_millis(400);
/// The deadline of one request for the Lease.
pub const REQUEST: Duration = Duration::from_secs(2);
/// Giving the lease back is given up after this; others then wait for [`LEASE`].
pub const RELEASE: Duration = Duration::from_secs(8);
/// A record that asks for more is not believed: a slip of the hand would stop the refresher for good.
pub const LONGEST_LEASE: Duration = Duration::from_mins(1);
/// Requests of one round at most: replace, make anew, look, replace.
const REQUESTS_IN_A_ROUND: u8 = 4;
/// `leaseDurationSeconds` of a lease that was given back, as client-go writes it.
const RELEASED_SECONDS: u32 = 1;

// What the safety rests on, with clocks that run 5 % apart either way.
const _: () =
    assert!((RENEW_DEADLINE.as_millis() + WRITE.as_millis()) * 105 < LEASE.as_millis() * 95);

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `holderIdentity`; empty when nobody holds it.
    pub holder: String,
    /// `leaseDurationSeconds`.
    pub lease_seconds: u32,
    /// `acquireTime`: with the holder it names a tenure.
    pub acquired: Option<DateTime<Utc>>,
    /// `renewTime`.
    pub renewed: Option<DateTime<Utc>>,
    /// `leaseTransitions`.
    pub transitions: u32,
}

/// A record and the version under which the API server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What the Lease says.
    pub record: Record,
    /// Its `resourceVersion`.
    pub version: String,
}

/// A request for the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read it, from the store and not from a cache.
    Get,
    /// Make it; refused if it is there.
    Create(Record),
    /// Replace exactly this version of it.
    Replace {
        /// What to write.
        record: Record,
        /// The version that must still stand.
        version: String,
    },
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This stands: it was read or written.
    Stands(Stored),
    /// There is no Lease.
    Missing,
    /// It is there already, or another version stands.
    Conflict,
    /// No answer, or one that says nothing about the Lease; a write may have happened.
    Failed,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and pass the answer to [`Election::answered`] after [`REQUEST`] at the latest.
    Ask(Request),
    /// Nothing before this time; past when the round took long.
    WaitUntil(Duration),
    /// The candidate has retired.
    Done,
}

/// What was last seen.
#[derive(Clone, Debug)]
struct Sight {
    stored: Option<Stored>,
    /// When it may be taken if it still stands.
    free_at: Duration,
}

/// One candidate.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    jitter: Duration,
    sight: Option<Sight>,
    transitions: Option<u32>,
    /// `acquireTime` of the tenure that we hold or try to begin.
    tenure: Option<DateTime<Utc>>,
    until: Option<Duration>,
    asked: Option<(Request, Duration)>,
    /// Requests left in this round; between rounds 0.
    left: u8,
    must_look: bool,
    due: Duration,
    retired: Option<Duration>,
}

impl Election {
    /// A candidate at time zero. `identity` must not be empty, and no two live processes may share it; `jitter` is cut to
    /// [`MOST_JITTER`].
    #[must_use]
    pub fn new(identity: String, jitter: Duration) -> Self {
        Self {
            identity,
            jitter: jitter.min(MOST_JITTER),
            sight: None,
            transitions: None,
            tenure: None,
            until: None,
            asked: None,
            left: 0,
            must_look: true,
            due: Duration::ZERO,
            retired: None,
        }
    }

    /// Who holds the lease, as last seen.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.standing()
            .map(|stored| stored.record.holder.as_str())
            .filter(|holder| !holder.is_empty())
    }

    /// `leaseTransitions`, as last seen.
    #[must_use]
    pub fn transitions(&self) -> u32 {
        self.transitions.unwrap_or(0)
    }

    /// Until when writes may begin; may be past.
    #[must_use]
    pub const fn may_write_until(&self) -> Option<Duration> {
        self.until
    }

    /// Decides what to do at `now`; `wall` is what is written as the time.
    #[must_use]
    pub fn next(&mut self, now: Duration, wall: DateTime<Utc>) -> Step {
        let wall = wall.trunc_subsecs(6);
        if let Some(retired) = self.retired {
            return self.release(now, wall, retired);
        }
        if self.left == 0 {
            if now < self.due {
                return Step::WaitUntil(self.due);
            }
            self.left = REQUESTS_IN_A_ROUND;
            self.due = now
                + RETRY
                + if self.is_mine() {
                    Duration::ZERO
                } else {
                    self.jitter
                };
            // A replacement is checked against the version; making a Lease is not, so absence is looked at again.
            self.must_look = !(self.is_mine()
                || self.leads(now)
                || (self.standing().is_some() && self.is_free(now)));
        }
        let request = if self.must_look {
            Some(Request::Get)
        } else if self.is_mine() {
            Some(self.renewal(wall))
        } else if self.is_free(now) || (self.leads(now) && self.standing().is_none()) {
            Some(self.acquisition(now, wall))
        } else {
            None
        };
        let Some(request) = request else {
            self.end_round(now);
            return Step::WaitUntil(self.due);
        };
        self.ask(request, now)
    }

    /// Takes the answer to the last request.
    pub fn answered(&mut self, now: Duration, answer: Answer) {
        let Some((request, sent)) = self.asked.take() else {
            return;
        };
        match answer {
            Answer::Stands(stored) => {
                self.must_look = false;
                self.see(now, Some(stored));
                if request != Request::Get {
                    if self.retired.is_none() && self.is_mine() {
                        self.until = Some(sent + RENEW_DEADLINE);
                    }
                    self.end_round(now);
                }
            }
            Answer::Missing => {
                self.must_look = false;
                self.see(now, None);
            }
            Answer::Conflict => self.must_look = true,
            Answer::Failed => self.left = 0,
        }
    }

    /// Whether the shutdown has begun.
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
        self.must_look = !self.is_mine();
    }

    fn release(&mut self, now: Duration, wall: DateTime<Utc>, retired: Duration) -> Step {
        if now >= retired + RELEASE || self.tenure.is_none() || !(self.must_look || self.is_mine())
        {
            return Step::Done;
        }
        if self.left == 0 {
            if now < self.due {
                return Step::WaitUntil(self.due);
            }
            self.left = REQUESTS_IN_A_ROUND;
            self.due = now + RETRY;
        }
        if self.must_look {
            return self.ask(Request::Get, now);
        }
        let released = Record {
            holder: String::new(),
            lease_seconds: RELEASED_SECONDS,
            acquired: Some(wall),
            renewed: Some(wall),
            transitions: self.transitions(),
        };
        let request = self.writing(released);
        self.ask(request, now)
    }

    fn ask(&mut self, request: Request, now: Duration) -> Step {
        self.left = self.left.saturating_sub(1);
        self.asked = Some((request.clone(), now));
        Step::Ask(request)
    }

    /// A round ends early; the next one begins in time for a lease that becomes free.
    fn end_round(&mut self, now: Duration) {
        self.left = 0;
        if let Some(sight) = self
            .sight
            .as_ref()
            .filter(|sight| sight.free_at > now && !self.is_mine())
        {
            self.due = self.due.min(sight.free_at);
        }
    }

    fn see(&mut self, now: Duration, stored: Option<Stored>) {
        if self
            .sight
            .as_ref()
            .is_some_and(|sight| sight.stored == stored)
        {
            return;
        }
        let first = self.sight.is_none();
        let free_at = match &stored {
            Some(stored) if stored.record.holder.is_empty() => now,
            // Our own name from before a restart: that process is dead, and its writes are over by then.
            Some(stored) if first && stored.record.holder == self.identity => now.max(WRITE),
            Some(stored) => {
                now + Duration::from_secs(stored.record.lease_seconds.into())
                    .clamp(LEASE, LONGEST_LEASE)
            }
            None if first => now,
            // Deleted under a holder who may still write.
            None => now + LEASE,
        };
        if let Some(stored) = &stored {
            self.transitions = Some(stored.record.transitions);
        }
        let leads_without_lease = stored.is_none() && self.leads(now);
        self.sight = Some(Sight { stored, free_at });
        if !self.is_mine() && !leads_without_lease {
            self.tenure = None;
            self.until = None;
        }
    }

    fn standing(&self) -> Option<&Stored> {
        self.sight.as_ref()?.stored.as_ref()
    }

    fn is_mine(&self) -> bool {
        let ours =
            |record: &Record| record.holder == self.identity && record.acquired == self.tenure;
        self.tenure.is_some() && self.standing().is_some_and(|stored| ours(&stored.record))
    }

    fn is_free(&self, now: Duration) -> bool {
        self.sight
            .as_ref()
            .is_some_and(|sight| now >= sight.free_at)
    }

    fn leads(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// The record of ours with a new renewTime: others must see it change, whatever our wall clock does.
    fn renewal(&self, wall: DateTime<Utc>) -> Request {
        let before = self.standing().and_then(|stored| stored.record.renewed);
        let renewed = if before == Some(wall) {
            wall + TimeDelta::microseconds(1)
        } else {
            wall
        };
        self.writing(self.record(renewed, self.transitions()))
    }

    fn acquisition(&mut self, now: Duration, wall: DateTime<Utc>) -> Request {
        // A Lease that is made anew in the middle of a tenure is no transition.
        let transitions = if self.leads(now) {
            self.transitions()
        } else {
            self.transitions.map_or(0, |n| n.saturating_add(1))
        };
        self.tenure.get_or_insert(wall);
        self.writing(self.record(wall, transitions))
    }

    fn record(&self, renewed: DateTime<Utc>, transitions: u32) -> Record {
        let lease_seconds = u32::try_from(LEASE.as_secs()).unwrap_or(u32::MAX);
        Record {
            holder: self.identity.clone(),
            lease_seconds,
            acquired: self.tenure,
            renewed: Some(renewed),
            transitions,
        }
    }

    fn writing(&self, record: Record) -> Request {
        match self.standing() {
            Some(stored) => Request::Replace {
                record,
                version: stored.version.clone(),
            },
            None => Request::Create(record),
        }
    }
}
