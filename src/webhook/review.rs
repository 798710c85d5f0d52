//! A pod's review: decided by `core::admission`.
//!
//! In: a body. Out: the encoded answer, with what to count and which Events to emit. Between them:
//! open the envelope, check whether the pod is a gateway, look up its StatefulSet, inject. Next for
//! a review: `webhook/envelope.rs`.
//!
//! The API server always sends complete, well-typed reviews. Anyone else gets an answer that says
//! what is wrong: a pod that cannot be read is denied, a review that cannot be answered is an HTTP
//! error.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};

use super::envelope::{BAD_REQUEST, MAX_ERROR_CHARS, Opened, RequestView, ResponseOut, open};
use crate::adapters::lock::lock;
use crate::core::admission::guard::PodSource;
use crate::core::admission::notice::{ObjectEvent, warning};
use crate::core::admission::{Candidate, Facts, Injection, Skip, eligible, inject};
use crate::core::fairness::log_lines::{LogLine, LogShares};
use crate::core::gateways::Gateways;
use crate::core::model::text::{short_line, truncate};
use crate::core::pod::PodView;

/// Decides reviews by the gateways known at that moment.
#[derive(Clone)]
pub struct Reviewer {
    pub(super) gateways: Arc<ArcSwap<Gateways>>,
    pub(super) clock: fn() -> DateTime<Utc>,
    /// For the guard; `None` where no pods are watched.
    pub(super) pods: Option<PodSource>,
    /// `None` where there is no cluster.
    lacks_rights: Option<RightsSource>,
    lines: Arc<Mutex<LogShares>>,
}

/// Returns true for a namespace in which the server has no rights.
pub(super) type RightsSource = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A review's answer and its side effects.
#[derive(Debug)]
pub struct ReviewAnswer {
    /// The `AdmissionReview` to send, or a sentence for an HTTP 400.
    pub body: Result<Vec<u8>, String>,
    pub verdict: ReviewVerdict,
    /// Events for the pod's owner; none on dry run.
    pub notices: Vec<ObjectEvent>,
    /// Whether a labelled namespace has the StatefulSet of these Events, with the UID that the
    /// request names. Anyone on the network may send a review of any pod, so only then may the
    /// review have effects beyond its answer.
    pub owner_known: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum ReviewVerdict {
    Injected,
    /// Admitted unchanged.
    Skipped(Skip),
    /// The pod could not be read.
    Denied,
    /// The review could not be answered.
    Error,
}

/// Kubernetes' longest name. Characters.
pub(super) const MAX_NAME_CHARS: usize = 253;
/// Events and log lines of one review.
const MAX_NOTICES: usize = 8;
/// Room for a usual patch. Bytes.
const PATCH_BYTES: usize = 4096;

impl Reviewer {
    #[must_use]
    pub fn new(gateways: Arc<ArcSwap<Gateways>>, clock: fn() -> DateTime<Utc>) -> Self {
        Self {
            gateways,
            clock,
            pods: None,
            lacks_rights: None,
            lines: Arc::default(),
        }
    }

    /// Whether to write one more log line about a namespace. Anyone on the network may name one, so
    /// those without the StatefulSet in question share their lines.
    pub(super) fn may_log(&self, namespace: &str, owner_known: bool) -> bool {
        let share = if owner_known { namespace } else { "" };
        let seconds = u64::try_from((self.clock)().timestamp()).unwrap_or(0);
        let line = lock(&self.lines).take(share, seconds);
        if line == LogLine::Last {
            tracing::warn!(
                namespace = share,
                "log lines about reviews are dropped until the next minute"
            );
        }
        line != LogLine::LeftOut
    }

    /// Has the guard take into account which pods are ready.
    #[must_use]
    pub fn with_pods(self, pods: PodSource) -> Self {
        Self {
            pods: Some(pods),
            ..self
        }
    }

    /// Has pods skipped in namespaces where the server has no rights.
    #[must_use]
    pub fn with_rights(self, lacks: Arc<dyn Fn(&str) -> bool + Send + Sync>) -> Self {
        Self {
            lacks_rights: Some(lacks),
            ..self
        }
    }

    /// Decides a review, given its bytes.
    #[must_use]
    pub fn review(&self, body: &[u8]) -> ReviewAnswer {
        let request: RequestView<'_, PodView<'_>> = match open(body) {
            Ok(Opened::Request(request)) => request,
            Ok(Opened::Unreadable(request, error)) => return unreadable(&request, &error),
            Err(why) => return refuse(why),
        };
        if !request.creates_a_pod() {
            return skip(&request, Skip::NotPodCreation, None);
        }
        let Some(pod) = &request.object else {
            return deny(
                &request.uid.0,
                "the request has no object: a CREATE review carries the pod".to_owned(),
            );
        };
        let candidate = match eligible(pod) {
            Ok(candidate) => candidate,
            Err(reason) => {
                let owner = pod
                    .statefulset()
                    .map(|owner| (owner.name.0.as_ref(), owner.uid.0.as_ref()));
                let gateways = self.gateways.load();
                let owner_known = owner
                    .is_some_and(|(name, uid)| knows(&gateways, request.namespace(), name, uid));
                let opted_out = owner
                    .is_some_and(|(name, _)| gateways.known(request.namespace(), name).opted_out());
                // An opt-out is deliberate, so its pods cause no Events.
                let reason = if opted_out && reason.surprises() {
                    Skip::SetOptedOut
                } else {
                    reason
                };
                return ReviewAnswer {
                    owner_known,
                    ..skip(&request, reason, owner)
                };
            }
        };
        self.decide(&request, pod, &candidate)
    }

    fn decide<'a>(
        &self,
        request: &RequestView<'a, PodView<'a>>,
        pod: &PodView<'a>,
        candidate: &Candidate<'_>,
    ) -> ReviewAnswer {
        let namespace = request.namespace();
        let (statefulset, uid) = (&*candidate.owner.name.0, &*candidate.owner.uid.0);
        if self
            .lacks_rights
            .as_ref()
            .is_some_and(|lacks| lacks(namespace))
        {
            return skip(request, Skip::NoRights, Some((statefulset, uid)));
        }
        let gateways = self.gateways.load();
        let facts = Facts::of(&gateways, namespace, (candidate, pod), (self.clock)());
        let answer = match inject(pod, candidate, &facts) {
            Ok(injection) => injected(request, &injection, (namespace, statefulset, uid)),
            Err(reason) => skip(request, reason, Some((statefulset, uid))),
        };
        ReviewAnswer {
            owner_known: knows(&gateways, namespace, statefulset, uid),
            ..answer
        }
    }
}

/// Whether a labelled namespace has this StatefulSet with this UID.
fn knows(gateways: &Gateways, namespace: &str, statefulset: &str, uid: &str) -> bool {
    let facts = gateways.known(namespace, statefulset).facts();
    !uid.is_empty() && facts.uid == uid && facts.namespace == namespace
}

fn unreadable<O>(request: &RequestView<'_, O>, error: &serde_json::Error) -> ReviewAnswer {
    if !request.creates_a_pod() {
        return skip(request, Skip::NotPodCreation, None);
    }
    let error = short_line(&error.to_string(), MAX_ERROR_CHARS);
    deny(&request.uid.0, format!("the pod is not readable: {error}"))
}

fn refuse(why: String) -> ReviewAnswer {
    answer(Err(why), ReviewVerdict::Error)
}

fn deny(uid: &str, message: String) -> ReviewAnswer {
    let response = ResponseOut {
        uid,
        denial: Some((BAD_REQUEST, message)),
        ..ResponseOut::default()
    };
    answer(response.encode(), ReviewVerdict::Denied)
}

fn answer(body: Result<Vec<u8>, String>, verdict: ReviewVerdict) -> ReviewAnswer {
    ReviewAnswer {
        body,
        verdict,
        notices: Vec::new(),
        owner_known: false,
    }
}

fn skip<O>(
    request: &RequestView<'_, O>,
    reason: Skip,
    owner: Option<(&str, &str)>,
) -> ReviewAnswer {
    let mut warnings = Vec::new();
    let mut notices = Vec::new();
    if reason.surprises() {
        let message = format!("thanos-timeshard skipped this pod: {reason}");
        if let Some((statefulset, uid)) = owner.filter(|_| !request.is_dry_run()) {
            notices.push(notice(
                (request.namespace(), statefulset, uid),
                "NotInjected",
                message.clone(),
            ));
        }
        warnings.push(warning(message));
    }
    let response = ResponseOut {
        uid: &request.uid.0,
        warnings,
        ..ResponseOut::default()
    };
    ReviewAnswer {
        notices,
        ..answer(response.encode(), ReviewVerdict::Skipped(reason))
    }
}

fn injected<O>(
    request: &RequestView<'_, O>,
    injection: &Injection<'_>,
    owner: (&str, &str, &str),
) -> ReviewAnswer {
    let mut patch = Vec::with_capacity(PATCH_BYTES);
    if let Err(error) = serde_json::to_writer(&mut patch, &injection.operations) {
        return refuse(format!("the patch cannot be written: {error}"));
    }
    let remarks = injection.remarks.iter();
    let response = ResponseOut {
        uid: &request.uid.0,
        patch,
        warnings: remarks
            .clone()
            .map(|remark| warning(remark.to_string()))
            .collect(),
        ..ResponseOut::default()
    };
    let notices = remarks
        .take(if request.is_dry_run() { 0 } else { MAX_NOTICES })
        .map(|remark| notice(owner, remark.reason(), remark.to_string()));
    ReviewAnswer {
        notices: notices.collect(),
        ..answer(response.encode(), ReviewVerdict::Injected)
    }
}

fn notice(
    (namespace, statefulset, uid): (&str, &str, &str),
    reason: &'static str,
    message: String,
) -> ObjectEvent {
    let [namespace, statefulset, uid] =
        [namespace, statefulset, uid].map(|name| truncate(name, MAX_NAME_CHARS).into_owned());
    ObjectEvent {
        namespace,
        statefulset,
        uid,
        reason,
        message,
    }
}
