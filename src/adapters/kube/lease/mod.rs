//! The Lease in the cluster: sends the requests that [`Election`] decides on, and reports the
//! answers to it.
//!
//! Invariants: one request at a time, each with a deadline ([`election::REQUEST`]; kube's own
//! retries happen within it); labels, annotations and fields of other clients are kept; an
//! unreadable answer is a failure, never a permission. The permission expires by itself: a stalled
//! task cannot prolong it.
//!
//! Deliberately absent: watches (a follower reads the Lease every [`election::RETRY`]), and
//! everything a leader does.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::pin::pin;
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until, timeout};

use self::leadership::Seat;
pub use self::leadership::{Leadership, LeadershipMetrics};
use crate::adapters::causes::with_causes;
use crate::adapters::clock;
use crate::adapters::signals::{Shutdown, ShutdownStage};
use crate::core::election::{
    self, Election, ElectionStep, LeaseAnswer, LeaseRecord, Request, Stored,
};
use crate::core::model::names;

mod leadership;
#[cfg(test)]
mod tests;

/// A candidate, and the namespace of its Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The holder in the Lease; no two running processes may share it.
    pub identity: String,
    /// Namespace of the Lease; `None` for the client's own.
    pub namespace: Option<String>,
    /// Added to [`election::RETRY`], so that followers do not all ask at the same time.
    pub jitter: Duration,
}

impl LeaseSettings {
    /// From the pod's name and namespace, as the downward API provides them. A process without a pod
    /// gets its host's name and a random suffix.
    #[must_use]
    pub fn of_pod(name: Option<String>, namespace: Option<String>) -> Self {
        let named = |text: Option<String>| text.filter(|text| !text.is_empty());
        let random = RandomState::new().build_hasher().finish();
        let longest = u64::try_from(election::MAX_JITTER.as_millis()).unwrap_or(u64::MAX);
        Self {
            identity: named(name).unwrap_or_else(|| format!("{}-{random:016x}", host_name())),
            namespace: named(namespace),
            jitter: Duration::from_millis(random % (longest + 1)),
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(name.trim())
        .filter(|name| !name.is_empty())
        .unwrap_or("timeshard")
        .to_owned()
}

/// Takes part in the election until `shutdown`. The future must be polled until it ends, once the
/// lease is released: at most [`election::RELEASE`] and one request after the shutdown.
pub fn run(
    client: Client,
    settings: LeaseSettings,
    shutdown: Shutdown,
) -> (Leadership, impl Future<Output = ()> + Send + 'static) {
    let (seat, leadership) = Seat::new(settings.identity.clone());
    let namespace = settings
        .namespace
        .unwrap_or_else(|| client.default_namespace().to_owned());
    let candidate = LeaseCandidate {
        election: Election::new(settings.identity, settings.jitter),
        api: Api::namespaced(client, &namespace),
        namespace,
        origin: Instant::now(),
        object: None,
        seat,
        shutdown: shutdown.clone(),
    };
    (leadership, candidate.run(shutdown))
}

struct LeaseCandidate {
    election: Election,
    api: Api<Lease>,
    namespace: String,
    /// Time zero of the election.
    origin: Instant,
    /// The object as last read or written.
    object: Option<Lease>,
    /// Publishes the outcome; ends the permission when it is dropped.
    seat: Seat,
    shutdown: Shutdown,
}

impl LeaseCandidate {
    async fn run(mut self, mut shutdown: Shutdown) {
        tokio::select! {
            () = self.campaign() => {}
            () = shutdown.reached(ShutdownStage::Abort) => {}
        }
    }

    async fn campaign(&mut self) {
        loop {
            match self.election.next(self.origin.elapsed(), clock::now()) {
                ElectionStep::Done => return,
                ElectionStep::WaitUntil(at) => self.wait(self.origin + at).await,
                ElectionStep::Ask(request) => {
                    let asked = ask(self.api.clone(), request, self.object.clone());
                    let answer = match self.meanwhile(asked).await {
                        Ok(found) => self.take(found),
                        Err(failure) => {
                            self.seat.failed(&self.namespace, &failure);
                            LeaseAnswer::Failed
                        }
                    };
                    self.election.answered(self.origin.elapsed(), answer);
                }
            }
            self.publish();
        }
    }

    fn take(&mut self, found: LeaseRead) -> LeaseAnswer {
        self.seat.answered();
        match found {
            LeaseRead::Found(lease) => {
                let answer = LeaseAnswer::Found(stored(&lease));
                self.object = Some(*lease);
                answer
            }
            LeaseRead::Missing => LeaseAnswer::Missing,
            LeaseRead::Conflict => LeaseAnswer::Conflict,
        }
    }

    /// Waits until `at`, or until the permission ends or the shutdown begins.
    async fn wait(&mut self, at: Instant) {
        let retiring = self.election.is_retiring();
        let at = self.seat.ends().map_or(at, |ends| ends.min(at));
        tokio::select! {
            () = sleep_until(at) => {}
            () = self.shutdown.reached(ShutdownStage::Draining), if !retiring => self.election.retire(self.origin.elapsed()),
        }
    }

    /// Runs `work`; publishes immediately if the permission ends meanwhile.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let retiring = self.election.is_retiring();
            let ends = self.seat.ends();
            tokio::select! {
                done = &mut work => return done,
                () = clock::at(ends) => {}
                () = self.shutdown.reached(ShutdownStage::Draining), if !retiring => self.election.retire(self.origin.elapsed()),
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        let until = self
            .election
            .may_write_until()
            .map(|until| self.origin + until);
        self.seat.publish(
            until,
            self.election.holder(),
            self.election.transitions(),
            self.election.is_retiring(),
        );
    }
}

/// The result of a request.
enum LeaseRead {
    Found(Box<Lease>),
    Missing,
    Conflict,
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
enum LeaseFailure {
    #[error("no answer within {} s", election::REQUEST.as_secs())]
    Late,
    #[error("the API server refuses: {message} ({code})")]
    Refused { code: u16, message: String },
    #[error("{}", with_causes(.0))]
    Broken(kube::Error),
}

/// Sends one request; `object` is the last known Lease.
async fn ask(
    api: Api<Lease>,
    request: Request,
    object: Option<Lease>,
) -> Result<LeaseRead, LeaseFailure> {
    let creates = matches!(request, Request::Create(_));
    let asked = async {
        let params = PostParams {
            field_manager: Some(names::MANAGED_BY.to_owned()),
            ..PostParams::default()
        };
        match request {
            Request::Get => api.get(names::LEASE).await,
            Request::Create(record) => api.create(&params, &written(None, record, None)).await,
            Request::Replace { record, version } => {
                api.replace(
                    names::LEASE,
                    &params,
                    &written(object, record, Some(version)),
                )
                .await
            }
        }
    };
    match timeout(election::REQUEST, asked).await {
        Err(_) => Err(LeaseFailure::Late),
        Ok(Ok(lease)) => Ok(LeaseRead::Found(Box::new(lease))),
        Ok(Err(kube::Error::Api(status))) => match status.code {
            409 => Ok(LeaseRead::Conflict),
            // For a Create it means that the namespace is missing.
            404 if !creates => Ok(LeaseRead::Missing),
            code => Err(LeaseFailure::Refused {
                code,
                message: status.message,
            }),
        },
        Ok(Err(error)) => Err(LeaseFailure::Broken(error)),
    }
}

/// The object to write: `before` with the record's fields if it is the version to replace, otherwise
/// a new one.
fn written(before: Option<Lease>, record: LeaseRecord, version: Option<String>) -> Lease {
    let mut lease = before
        .filter(|before| before.metadata.resource_version == version)
        .unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(names::LEASE.to_owned()),
                labels: Some(
                    [(
                        names::MANAGED_BY_LABEL.to_owned(),
                        names::MANAGED_BY.to_owned(),
                    )]
                    .into(),
                ),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: None,
        });
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(record.holder);
    spec.lease_duration_seconds = Some(i32::try_from(record.lease_seconds).unwrap_or(i32::MAX));
    spec.lease_transitions = Some(i32::try_from(record.transitions).unwrap_or(i32::MAX));
    spec.acquire_time = record.acquired.and_then(to_micro_time);
    spec.renew_time = record.renewed.and_then(to_micro_time);
    lease
}

fn stored(lease: &Lease) -> Stored {
    let spec = lease.spec.clone().unwrap_or_default();
    let unsigned = |number: Option<i32>| number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    Stored {
        record: LeaseRecord {
            holder: spec.holder_identity.unwrap_or_default(),
            lease_seconds: unsigned(spec.lease_duration_seconds),
            acquired: spec.acquire_time.as_ref().and_then(from_micro_time),
            renewed: spec.renew_time.as_ref().and_then(from_micro_time),
            transitions: unsigned(spec.lease_transitions),
        },
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn to_micro_time(time: DateTime<Utc>) -> Option<MicroTime> {
    Timestamp::from_microsecond(time.timestamp_micros())
        .ok()
        .map(MicroTime)
}

fn from_micro_time(time: &MicroTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(time.0.as_microsecond())
}
