//! One `AdmissionReview`: read without copying, decided by `core::mutation`, answered with the request's uid.
//!
//! The API server always sends whole, well-typed reviews; everything else is answered so that its sender finds out what
//! is wrong. A review whose pod cannot be read is denied by name; one that cannot be answered at all is an HTTP error.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::core::fleet::Fleet;
use crate::core::guard::PodSource;
use crate::core::mutation::{Candidate, Facts, Injection, Skip, eligible, inject};
use crate::core::notice::{Notice, warning};
use crate::core::pod::{PodView, Text};
use crate::core::printable::{cut, short_line};

/// Decides about reviews, on the fleet as it is known at that moment.
#[derive(Clone)]
pub struct Reviewer {
    pub(super) fleet: Arc<ArcSwap<Fleet>>,
    pub(super) clock: fn() -> DateTime<Utc>,
    /// For the guard; `None` where no pods are watched.
    pub(super) pods: Option<PodSource>,
    /// Whether the server has no rights in a namespace; `None` where there is no cluster.
    lacks_rights: Option<RightsSource>,
}

/// Tells whether the server has no rights in a namespace.
pub(super) type RightsSource = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What a review comes to.
#[derive(Debug)]
pub struct Answer {
    /// The `AdmissionReview` to send, or a sentence for an HTTP 400.
    pub body: Result<Vec<u8>, String>,
    /// What happened.
    pub verdict: Verdict,
    /// What the pod's user should know; nothing on dry run.
    pub notices: Vec<Notice>,
    /// Whether the StatefulSet that these are about exists as the request says: a labelled namespace has it, with this UID. Anyone
    /// on the network may send a review of any pod; only for these may it have effects outside the answer.
    pub owner_known: bool,
}

/// How a review ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A patch was sent.
    Injected,
    /// Admitted untouched.
    Skipped(Skip),
    /// The pod was not readable.
    Denied,
    /// There was nothing to answer.
    Error,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReviewView<'a, O> {
    #[serde(borrow, default)]
    pub(super) api_version: Text<'a>,
    #[serde(borrow, default)]
    pub(super) kind: Text<'a>,
    #[serde(borrow = "'a", default, bound(deserialize = "O: Deserialize<'de>"))]
    pub(super) request: Option<RequestView<'a, O>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestView<'a, O> {
    #[serde(borrow, default)]
    pub(super) uid: Text<'a>,
    #[serde(borrow, default)]
    kind: KindView<'a>,
    #[serde(borrow, default)]
    pub(super) resource: ResourceView<'a>,
    #[serde(borrow, default)]
    pub(super) sub_resource: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) namespace: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) operation: Text<'a>,
    #[serde(default)]
    pub(super) dry_run: Option<bool>,
    #[serde(borrow, default)]
    pub(super) options: Option<OptionsView<'a>>,
    pub(super) object: Option<O>,
    #[serde(default)]
    pub(super) old_object: Option<O>,
}

#[derive(Default, Deserialize)]
struct KindView<'a> {
    #[serde(borrow, default)]
    group: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
}

#[derive(Default, Deserialize)]
pub(super) struct ResourceView<'a> {
    #[serde(borrow, default)]
    pub(super) group: Text<'a>,
    #[serde(borrow, default)]
    pub(super) resource: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OptionsView<'a> {
    #[serde(borrow, default)]
    pub(super) propagation_policy: Option<Text<'a>>,
}

/// What goes into the `response` of a review.
pub(super) struct ResponseOut<'a> {
    pub(super) uid: &'a str,
    /// HTTP status and reason, if it is denied.
    pub(super) denial: Option<(u16, String)>,
    /// Operations as JSON.
    pub(super) patch: Option<Vec<u8>>,
    pub(super) warnings: Vec<String>,
}

#[derive(Serialize)]
struct StatusOut {
    code: u16,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// HTTP status of a pod that cannot be read.
const BAD_REQUEST: u16 = 400;
/// HTTP status of what a policy refuses; kubectl says `Error from server (Forbidden)`.
pub(super) const FORBIDDEN: u16 = 403;
/// What is said of bytes that cannot be read; the parser's words repeat them. Characters.
const MAX_ERROR_CHARS: usize = 300;
/// Kubernetes' longest name. Characters.
pub(super) const MAX_NAME_CHARS: usize = 253;
/// Events and log lines of one review.
const MAX_NOTICES: usize = 8;
/// Room for a usual patch. Bytes.
const PATCH_BYTES: usize = 4096;
/// Room for an answer without its patch. Bytes.
const ENVELOPE_BYTES: usize = 512;

impl Reviewer {
    /// On this fleet and clock.
    #[must_use]
    pub fn new(fleet: Arc<ArcSwap<Fleet>>, clock: fn() -> DateTime<Utc>) -> Self {
        Self {
            fleet,
            clock,
            pods: None,
            lacks_rights: None,
        }
    }

    /// Has the guard count on pods that are ready.
    #[must_use]
    pub fn with_pods(self, pods: PodSource) -> Self {
        Self {
            pods: Some(pods),
            ..self
        }
    }

    /// Leaves pods alone in namespaces where the server has no rights.
    #[must_use]
    pub fn with_rights(self, lacks: Arc<dyn Fn(&str) -> bool + Send + Sync>) -> Self {
        Self {
            lacks_rights: Some(lacks),
            ..self
        }
    }

    /// Decides about one review's bytes.
    #[must_use]
    pub fn review(&self, body: &[u8]) -> Answer {
        let review: ReviewView<'_, PodView<'_>> = match serde_json::from_slice(body) {
            Ok(review) => review,
            Err(error) => return unreadable(body, &error),
        };
        let request = match check(&review.api_version.0, &review.kind.0, review.request) {
            Ok(request) => request,
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
                    .metadata
                    .owner_references
                    .iter()
                    .flatten()
                    .find(|owner| owner.kind.0 == "StatefulSet");
                let owner = owner.map(|owner| (owner.name.0.as_ref(), owner.uid.0.as_ref()));
                let owner_known = owner.is_some_and(|(name, uid)| {
                    knows(&self.fleet.load(), request.namespace(), name, uid)
                });
                return Answer {
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
    ) -> Answer {
        let fleet = self.fleet.load();
        let namespace = request.namespace();
        let (statefulset, uid) = (&*candidate.owner.name.0, &*candidate.owner.uid.0);
        if self
            .lacks_rights
            .as_ref()
            .is_some_and(|lacks| lacks(namespace))
        {
            return skip(request, Skip::NoRights, Some((statefulset, uid)));
        }
        let known = fleet.known(namespace, statefulset);
        let published = fleet.published(namespace, statefulset, pod.name());
        let facts = Facts {
            published,
            ..Facts::of(known, fleet.config(), namespace, (self.clock)())
        };
        let answer = match inject(pod, candidate, &facts) {
            Ok(injection) => injected(request, &injection, (namespace, statefulset, uid)),
            Err(reason) => skip(request, reason, Some((statefulset, uid))),
        };
        Answer {
            owner_known: knows(&fleet, namespace, statefulset, uid),
            ..answer
        }
    }
}

/// Whether a labelled namespace has this StatefulSet with this UID.
fn knows(fleet: &Fleet, namespace: &str, statefulset: &str, uid: &str) -> bool {
    let facts = fleet.known(namespace, statefulset).facts();
    !uid.is_empty() && facts.uid == uid && facts.namespace == namespace
}

impl<O> RequestView<'_, O> {
    fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("", |namespace| &namespace.0)
    }

    fn creates_a_pod(&self) -> bool {
        let whole = self
            .sub_resource
            .as_ref()
            .is_none_or(|sub| sub.0.is_empty());
        self.operation.0 == "CREATE"
            && self.kind.kind.0 == "Pod"
            && self.kind.group.0.is_empty()
            && whole
    }
}

/// Refuses what is not a review with a request and a uid.
pub(super) fn check<'a, O>(
    api_version: &str,
    kind: &str,
    request: Option<RequestView<'a, O>>,
) -> Result<RequestView<'a, O>, String> {
    if kind != KIND || api_version != API_VERSION {
        let (kind, api_version): (String, String) = (
            kind.chars().take(64).collect(),
            api_version.chars().take(64).collect(),
        );
        return Err(format!(
            "the body is kind {kind:?} of apiVersion {api_version:?}, expected kind {KIND:?} of apiVersion {API_VERSION:?}"
        ));
    }
    let request = request.ok_or("the review has no request")?;
    if request.uid.0.is_empty() {
        return Err("the request has no uid, so it cannot be answered".to_owned());
    }
    Ok(request)
}

/// The pod inside may be what is unreadable: read the rest without it, so that the answer has a uid.
fn unreadable(body: &[u8], error: &serde_json::Error) -> Answer {
    let Ok(review) = serde_json::from_slice::<ReviewView<'_, IgnoredAny>>(body) else {
        return refuse(not_a_review(body, error));
    };
    match check(&review.api_version.0, &review.kind.0, review.request) {
        Err(why) => refuse(why),
        Ok(request) if !request.creates_a_pod() => skip(&request, Skip::NotPodCreation, None),
        Ok(request) => deny(
            &request.uid.0,
            format!(
                "the pod is not readable: {}",
                short_line(&error.to_string(), MAX_ERROR_CHARS)
            ),
        ),
    }
}

/// What is wrong with bytes that cannot be answered as a review.
pub(super) fn not_a_review(body: &[u8], error: &serde_json::Error) -> String {
    let what = if body.is_empty() {
        "the body is empty".to_owned()
    } else {
        format!(
            "the body is not an AdmissionReview: {}",
            short_line(&error.to_string(), MAX_ERROR_CHARS)
        )
    };
    format!("{what}; expected JSON of kind {KIND:?}, apiVersion {API_VERSION:?}")
}

fn refuse(why: String) -> Answer {
    Answer {
        body: Err(why),
        verdict: Verdict::Error,
        notices: Vec::new(),
        owner_known: false,
    }
}

fn deny(uid: &str, message: String) -> Answer {
    let response = ResponseOut {
        uid,
        denial: Some((BAD_REQUEST, message)),
        patch: None,
        warnings: Vec::new(),
    };
    Answer {
        body: encode(response),
        verdict: Verdict::Denied,
        notices: Vec::new(),
        owner_known: false,
    }
}

fn skip<O>(request: &RequestView<'_, O>, reason: Skip, owner: Option<(&str, &str)>) -> Answer {
    let mut warnings = Vec::new();
    let mut notices = Vec::new();
    if reason.surprises() {
        let message = format!("thanos-timeshard left this pod alone: {reason}");
        if let Some((statefulset, uid)) = owner.filter(|_| request.dry_run != Some(true)) {
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
        denial: None,
        patch: None,
        warnings,
    };
    Answer {
        body: encode(response),
        verdict: Verdict::Skipped(reason),
        notices,
        owner_known: false,
    }
}

fn injected<O>(
    request: &RequestView<'_, O>,
    injection: &Injection<'_>,
    owner: (&str, &str, &str),
) -> Answer {
    let mut patch = Vec::with_capacity(PATCH_BYTES);
    if let Err(error) = serde_json::to_writer(&mut patch, &injection.operations) {
        return refuse(format!("the patch cannot be written: {error}"));
    }
    let warnings = injection
        .remarks
        .iter()
        .map(|remark| warning(remark.to_string()))
        .collect();
    let notices = if request.dry_run == Some(true) {
        Vec::new()
    } else {
        injection
            .remarks
            .iter()
            .take(MAX_NOTICES)
            .map(|remark| notice(owner, remark.reason(), remark.to_string()))
            .collect()
    };
    let response = ResponseOut {
        uid: &request.uid.0,
        denial: None,
        patch: Some(patch),
        warnings,
    };
    Answer {
        body: encode(response),
        verdict: Verdict::Injected,
        notices,
        owner_known: false,
    }
}

fn notice(
    (namespace, statefulset, uid): (&str, &str, &str),
    reason: &'static str,
    message: String,
) -> Notice {
    let [namespace, statefulset, uid] =
        [namespace, statefulset, uid].map(|name| cut(name, MAX_NAME_CHARS).into_owned());
    Notice {
        namespace,
        statefulset,
        uid,
        reason,
        message,
    }
}

/// Writes the answer. By hand where it is long: base64 needs no look at each of its characters.
pub(super) fn encode(response: ResponseOut<'_>) -> Result<Vec<u8>, String> {
    let patch = response.patch.unwrap_or_default();
    let mut out = Vec::with_capacity(ENVELOPE_BYTES + patch.len() / 3 * 4);
    out.extend_from_slice(
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#,
    );
    let failed = |error: serde_json::Error| error.to_string();
    serde_json::to_writer(&mut out, response.uid).map_err(failed)?;
    match response.denial {
        None => out.extend_from_slice(br#","allowed":true"#),
        Some((code, message)) => {
            out.extend_from_slice(br#","allowed":false,"status":"#);
            let reason = (code == FORBIDDEN).then_some("Forbidden");
            serde_json::to_writer(
                &mut out,
                &StatusOut {
                    code,
                    message,
                    reason,
                },
            )
            .map_err(failed)?;
        }
    }
    if !patch.is_empty() {
        out.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
        let start = out.len();
        out.resize(start + patch.len().div_ceil(3) * 4, 0);
        STANDARD
            .encode_slice(&patch, &mut out[start..])
            .map_err(|error| error.to_string())?;
        out.push(b'"');
    }
    if !response.warnings.is_empty() {
        out.extend_from_slice(br#","warnings":"#);
        serde_json::to_writer(&mut out, &response.warnings).map_err(failed)?;
    }
    out.extend_from_slice(b"}}");
    Ok(out)
}
