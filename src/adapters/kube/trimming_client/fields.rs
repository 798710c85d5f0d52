//! The fields that are kept of each kind, by request. `partial` deserializes the same fields.

use hyper::{Method, Uri};

use crate::core::kube::json_trim::Keep;
use crate::core::model::names;

/// Limit for one object that is listed or watched. Bytes of JSON; a gateway's pod takes 4 KiB.
pub const MAX_OBJECT_BYTES: usize = 32 * 1024;
/// Limit for a single ConfigMap. Bytes of JSON: Kubernetes' 1 MiB of data, plus escapes of line
/// breaks.
pub const MAX_MAP_BYTES: usize = 1_280 * 1024;
/// Limit for one PDB in a list of the whole cluster, of which only identity and owner are kept.
/// Bytes of JSON.
const MAX_SWEPT_BYTES: usize = 4 * 1024;
const NAME: (&str, Keep) = ("name", Keep::All);
const OWNERS: (&str, Keep) = (
    "ownerReferences",
    Keep::Keys(&[API_VERSION, KIND, NAME, ("uid", Keep::All)]),
);
const META: Keep = Keep::Keys(&[
    NAME,
    ("namespace", Keep::All),
    ("uid", Keep::All),
    ("resourceVersion", Keep::All),
    ("generation", Keep::All),
    ("deletionTimestamp", Keep::All),
    ("labels", Keep::All),
    ("annotations", Keep::Prefixed(names::PREFIX)),
    OWNERS,
]);
/// Kept of a namespace, a ConfigMap, and the answer to a write: identity, and timeshard's own keys.
const IDENTITY: Keep = Keep::Keys(&[
    NAME,
    ("namespace", Keep::All),
    ("uid", Keep::All),
    ("resourceVersion", Keep::All),
    ("deletionTimestamp", Keep::All),
    (
        "labels",
        Keep::Keys(&[
            (names::MANAGED_BY_LABEL, Keep::All),
            (names::NAMESPACE_LABEL, Keep::All),
        ]),
    ),
    ("annotations", Keep::Prefixed(names::PREFIX)),
    OWNERS,
]);
const KIND: (&str, Keep) = ("kind", Keep::All);
const API_VERSION: (&str, Keep) = ("apiVersion", Keep::All);

/// One object of a list or a watch. A broken watch sends a Status in its place, with a code, a
/// message and a reason.
macro_rules! object {
    ($($field:expr),* $(,)?) => {
        Keep::Object(&[KIND, API_VERSION, ("code", Keep::All), ("message", Keep::All), ("reason", Keep::All), $($field),*])
    };
}

const CONTAINERS: Keep = Keep::Keys(&[
    NAME,
    ("image", Keep::All),
    ("command", Keep::All),
    ("args", Keep::All),
]);
const POD_SPEC: Keep = Keep::Keys(&[
    ("containers", CONTAINERS),
    ("initContainers", CONTAINERS),
    (
        "volumes",
        Keep::Keys(&[NAME, ("configMap", Keep::Keys(&[NAME]))]),
    ),
]);
const CONTAINER_STATUSES: Keep = Keep::Keys(&[
    NAME,
    ("restartCount", Keep::All),
    (
        "state",
        Keep::Keys(&[("waiting", Keep::Keys(&[("reason", Keep::All)]))]),
    ),
]);
const POD: Keep = object![
    ("metadata", META),
    ("spec", POD_SPEC),
    (
        "status",
        Keep::Keys(&[
            ("phase", Keep::All),
            ("podIP", Keep::All),
            ("reason", Keep::All),
            (
                "conditions",
                Keep::Keys(&[
                    ("type", Keep::All),
                    ("status", Keep::All),
                    ("reason", Keep::All),
                    ("lastTransitionTime", Keep::All)
                ]),
            ),
            ("initContainerStatuses", CONTAINER_STATUSES),
            ("containerStatuses", CONTAINER_STATUSES),
        ]),
    ),
];
const STATEFULSET: Keep = object![
    ("metadata", META),
    (
        "spec",
        Keep::Keys(&[
            ("minReadySeconds", Keep::All),
            ("ordinals", Keep::Keys(&[("start", Keep::All)])),
            ("podManagementPolicy", Keep::All),
            ("replicas", Keep::All),
            ("selector", Keep::All),
            ("serviceName", Keep::All),
            ("template", Keep::Keys(&[("spec", POD_SPEC)])),
            ("updateStrategy", Keep::All),
        ]),
    ),
    (
        "status",
        Keep::Keys(&[
            ("observedGeneration", Keep::All),
            ("updateRevision", Keep::All),
            ("currentRevision", Keep::All)
        ])
    ),
];
const BUDGET: Keep = object![
    ("metadata", META),
    (
        "spec",
        Keep::Keys(&[
            ("selector", Keep::All),
            ("minAvailable", Keep::All),
            ("maxUnavailable", Keep::All)
        ])
    ),
    ("status", Keep::Keys(&[("observedGeneration", Keep::All)])),
];
const SERVICE: Keep = object![
    ("metadata", META),
    (
        "spec",
        Keep::Keys(&[
            ("clusterIP", Keep::All),
            ("selector", Keep::All),
            ("publishNotReadyAddresses", Keep::All),
            ("ports", Keep::Keys(&[NAME, ("port", Keep::All)])),
        ]),
    ),
    ("status", Keep::Keys(&[])),
];
const IDENTIFIED: Keep = object![("metadata", IDENTITY)];
const ONE_MAP: Keep = Keep::Object(&[
    KIND,
    API_VERSION,
    ("metadata", IDENTITY),
    ("data", Keep::All),
]);

const LIST_META: (&str, Keep) = (
    "metadata",
    Keep::Keys(&[("resourceVersion", Keep::All), ("continue", Keep::All)]),
);

/// Fields kept of a list and of a watch event of one kind.
macro_rules! cuts {
    ($list:ident, $event:ident, $object:ident) => {
        static $list: Keep = Keep::Keys(&[KIND, API_VERSION, LIST_META, ("items", $object)]);
        static $event: Keep = Keep::Keys(&[("type", Keep::All), ("object", $object)]);
    };
}
cuts!(PODS, POD_EVENTS, POD);
cuts!(STATEFULSETS, STATEFULSET_EVENTS, STATEFULSET);
cuts!(BUDGETS, BUDGET_EVENTS, BUDGET);
cuts!(SERVICES, SERVICE_EVENTS, SERVICE);
cuts!(IDENTITIES, IDENTITY_EVENTS, IDENTIFIED);
static WRITTEN: Keep = IDENTIFIED;
static MAP: Keep = ONE_MAP;

/// How an answer is trimmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) keep: &'static Keep,
    /// Bytes of JSON for each object.
    pub(super) limit: usize,
    /// Whether it counts against the answers that are read at a time.
    pub(super) bulk: bool,
}

/// How to trim the answer to a request; `None` leaves it as it is.
pub(super) fn cut(method: &Method, uri: &Uri) -> Option<Cut> {
    let segments: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let (["api", "v1", below @ ..] | ["apis", "apps" | "policy", "v1", below @ ..]) =
        segments.as_slice()
    else {
        return None;
    };
    let (["namespaces", _, plural, rest @ ..] | [plural, rest @ ..]) = below else {
        return None;
    };
    let (plural, named) = (*plural, !rest.is_empty());
    let (list, events): (&Keep, &Keep) = match plural {
        "pods" => (&PODS, &POD_EVENTS),
        "statefulsets" => (&STATEFULSETS, &STATEFULSET_EVENTS),
        "poddisruptionbudgets" => (&BUDGETS, &BUDGET_EVENTS),
        "services" => (&SERVICES, &SERVICE_EVENTS),
        "configmaps" | "namespaces" => (&IDENTITIES, &IDENTITY_EVENTS),
        _ => return None,
    };
    let watches = uri.query().is_some_and(|query| {
        query
            .split('&')
            .any(|pair| pair == "watch=true" || pair == "watch=1")
    });
    Some(match (method, named, watches) {
        (&Method::GET, false, true) => Cut {
            keep: events,
            limit: MAX_OBJECT_BYTES,
            bulk: false,
        },
        (&Method::GET, false, false)
            if plural == "poddisruptionbudgets" && below[0] != "namespaces" =>
        {
            Cut {
                keep: &IDENTITIES,
                limit: MAX_SWEPT_BYTES,
                bulk: true,
            }
        }
        (&Method::GET, false, false) => Cut {
            keep: list,
            limit: MAX_OBJECT_BYTES,
            bulk: true,
        },
        (&Method::GET, true, _) if plural == "configmaps" => Cut {
            keep: &MAP,
            limit: MAX_MAP_BYTES,
            bulk: true,
        },
        _ => Cut {
            keep: &WRITTEN,
            limit: MAX_OBJECT_BYTES,
            bulk: false,
        },
    })
}
