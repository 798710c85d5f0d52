//! The server's client of the API server: answers are cut down as their bytes come in, before anything collects them.
//!
//! kube collects a page of a list, and a line of a watch, before it is parsed. Objects of others may take megabytes each, so here
//! stands between the socket and kube what [`Trim`] makes of them: the fields of `lean.rs` and nothing else.
//! Invariants: of each object at most [`MAX_OBJECT_BYTES`] are passed on, of a ConfigMap's entries [`MAX_MAP_BYTES`]; at most
//! [`BULK`] answers that hold many bytes are read at a time, whatever is watched in however many namespaces. What is not
//! named here (Leases, Events, Secrets, webhook registrations) passes as it is: no tenant writes those.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use hyper::body::{Body, Bytes, Frame};
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use crate::core::json_trim::{Keep, Trim};
use crate::core::names;

/// What is kept of one object that is listed or watched. Bytes of JSON; a pod of ours takes 4 KiB.
pub const MAX_OBJECT_BYTES: usize = 32 * 1024;
/// What is kept of the one ConfigMap that is asked for. Bytes of JSON: Kubernetes' 1 MiB of data, and how line breaks are written.
pub const MAX_MAP_BYTES: usize = 1_280 * 1024;
/// What is kept of one budget where those of all namespaces are listed: which it is, and whose. Bytes of JSON.
const MAX_SWEPT_BYTES: usize = 4 * 1024;
/// Pages and ConfigMaps that are read at a time.
const BULK: usize = 3;
/// What is read of an answer that says no. Bytes; Kubernetes repeats in it what it did not like.
const MAX_REFUSAL_BYTES: usize = 16 * 1024;

const NAME: (&str, Keep) = ("name", Keep::All);
const META: Keep = Keep::Keys(&[
    NAME,
    ("namespace", Keep::All),
    ("uid", Keep::All),
    ("resourceVersion", Keep::All),
    ("generation", Keep::All),
    ("deletionTimestamp", Keep::All),
    ("labels", Keep::All),
    ("annotations", Keep::Prefixed(names::PREFIX)),
    (
        "ownerReferences",
        Keep::Keys(&[
            ("apiVersion", Keep::All),
            ("kind", Keep::All),
            NAME,
            ("uid", Keep::All),
        ]),
    ),
]);
/// Of a namespace, a ConfigMap, and what was written: which it is, and what of it is ours.
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
    (
        "ownerReferences",
        Keep::Keys(&[
            ("apiVersion", Keep::All),
            ("kind", Keep::All),
            NAME,
            ("uid", Keep::All),
        ]),
    ),
]);
const KIND: (&str, Keep) = ("kind", Keep::All);
const API_VERSION: (&str, Keep) = ("apiVersion", Keep::All);
/// A watch that breaks says so in place of an object.
const CODE: (&str, Keep) = ("code", Keep::All);
const MESSAGE: (&str, Keep) = ("message", Keep::All);
const REASON: (&str, Keep) = ("reason", Keep::All);

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
const POD: Keep = Keep::Object(&[
    KIND,
    API_VERSION,
    CODE,
    MESSAGE,
    REASON,
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
                    ("lastTransitionTime", Keep::All),
                ]),
            ),
            ("initContainerStatuses", CONTAINER_STATUSES),
            ("containerStatuses", CONTAINER_STATUSES),
        ]),
    ),
]);
const STATEFULSET: Keep = Keep::Object(&[
    KIND,
    API_VERSION,
    CODE,
    MESSAGE,
    REASON,
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
            ("currentRevision", Keep::All),
        ]),
    ),
]);
const BUDGET: Keep = Keep::Object(&[
    KIND,
    API_VERSION,
    CODE,
    MESSAGE,
    REASON,
    ("metadata", META),
    (
        "spec",
        Keep::Keys(&[
            ("selector", Keep::All),
            ("minAvailable", Keep::All),
            ("maxUnavailable", Keep::All),
        ]),
    ),
    ("status", Keep::Keys(&[("observedGeneration", Keep::All)])),
]);
const SERVICE: Keep = Keep::Object(&[
    KIND,
    API_VERSION,
    CODE,
    MESSAGE,
    REASON,
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
    // A Service's own.
    ("status", Keep::Keys(&[])),
]);
const IDENTIFIED: Keep = Keep::Object(&[
    KIND,
    API_VERSION,
    CODE,
    MESSAGE,
    REASON,
    ("metadata", IDENTITY),
]);
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

/// How lists, watches, one object, and what was written of a kind are cut.
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

/// How an answer is read.
#[derive(Clone, Copy, Debug)]
struct Cut {
    keep: &'static Keep,
    most: usize,
    /// Whether it waits for a place.
    bulk: bool,
}

fn cut(method: &Method, uri: &Uri) -> Option<Cut> {
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
            most: MAX_OBJECT_BYTES,
            bulk: false,
        },
        (&Method::GET, false, false)
            if plural == "poddisruptionbudgets" && below[0] != "namespaces" =>
        {
            Cut {
                keep: &IDENTITIES,
                most: MAX_SWEPT_BYTES,
                bulk: true,
            }
        }
        (&Method::GET, false, false) => Cut {
            keep: list,
            most: MAX_OBJECT_BYTES,
            bulk: true,
        },
        (&Method::GET, true, _) if plural == "configmaps" => Cut {
            keep: &MAP,
            most: MAX_MAP_BYTES,
            bulk: true,
        },
        _ => Cut {
            keep: &WRITTEN,
            most: MAX_OBJECT_BYTES,
            bulk: false,
        },
    })
}

/// Puts itself between kube and the API server.
#[derive(Clone, Debug)]
pub struct Trimmed(Arc<Semaphore>);

impl Default for Trimmed {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BULK)))
    }
}

impl<S> Layer<S> for Trimmed {
    type Service = TrimmedService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        TrimmedService {
            inner,
            places: self.0.clone(),
        }
    }
}

/// As [`Trimmed`] makes it.
#[derive(Clone, Debug)]
pub struct TrimmedService<S> {
    inner: S,
    places: Arc<Semaphore>,
}

impl<S, R, B> Service<Request<R>> for TrimmedService<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<TrimmedBody<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        let cut = cut(request.method(), request.uri());
        let (answer, places) = (self.inner.call(request), self.places.clone());
        Box::pin(async move {
            let place = match cut.filter(|cut| cut.bulk) {
                // Never closed.
                Some(_) => places.acquire_owned().await.ok(),
                None => None,
            };
            let (mut head, body) = answer.await?.into_parts();
            head.headers.remove(CONTENT_LENGTH);
            let reads = match cut {
                Some(_) if head.status >= StatusCode::BAD_REQUEST => {
                    Reads::Refusal(MAX_REFUSAL_BYTES)
                }
                Some(cut) => Reads::Trimmed(Box::new(Trim::new(cut.keep, cut.most))),
                None => Reads::All,
            };
            Ok(Response::from_parts(
                head,
                TrimmedBody {
                    body,
                    reads,
                    _place: place,
                },
            ))
        })
    }
}

#[derive(Debug)]
enum Reads {
    All,
    /// So many bytes.
    Refusal(usize),
    Trimmed(Box<Trim>),
}

/// What is left of an answer.
#[derive(Debug)]
pub struct TrimmedBody<B> {
    body: B,
    reads: Reads,
    _place: Option<OwnedSemaphorePermit>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrimmedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)?) else {
                return Poll::Ready(None);
            };
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            let left = match &mut self.reads {
                Reads::All => bytes,
                Reads::Refusal(room) => {
                    let taken = bytes.len().min(*room);
                    *room -= taken;
                    bytes.slice(..taken)
                }
                Reads::Trimmed(trim) => trim.push(&bytes).into(),
            };
            if !left.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(left))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use k8s_openapi::api::apps::v1::StatefulSet;
    use serde_json::{Value, json};

    use super::*;
    use crate::adapters::lean::Lean;

    /// What is left of an answer, and the most that was passed on in one piece.
    async fn left(method: Method, uri: &str, status: u16, answer: String) -> (String, usize) {
        let service = tower::service_fn(move |_: Request<()>| {
            let pieces: Vec<Bytes> = answer
                .as_bytes()
                .chunks(8 * 1024)
                .map(Bytes::copy_from_slice)
                .collect();
            let body = StreamBody::new(stream::iter(
                pieces
                    .into_iter()
                    .map(|piece| Ok::<_, Infallible>(Frame::data(piece))),
            ));
            let answer = Response::builder().status(status).body(body).unwrap();
            async { Ok::<_, Infallible>(answer) }
        });
        let mut client = Trimmed::default().layer(service);
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let mut body = client.call(request).await.unwrap().into_body();
        let (mut all, mut most) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            most = most.max(data.len());
            all.extend_from_slice(&data);
        }
        (String::from_utf8(all).unwrap(), most)
    }

    /// A StatefulSet of a megabyte, in each place where one can have it.
    fn large() -> Vec<Value> {
        let text = "<\u{1}é".repeat(200_000);
        let labels: serde_json::Map<String, Value> = (0..20_000)
            .map(|n| (format!("label-{n}"), json!("x")))
            .collect();
        let set = |change: &dyn Fn(&mut Value)| {
            let mut set = json!({"metadata": {"name": "large", "uid": "u", "resourceVersion": "5"}, "spec": {"replicas": 0, "selector": {},
                "template": {"spec": {"containers": [{"name": "c", "image": "i", "args": ["store"]}]}}}});
            change(&mut set);
            set
        };
        vec![
            set(&|set| set["metadata"]["annotations"] = json!({"someone/else": text})),
            set(&|set| set["metadata"]["managedFields"] = json!([{"fieldsV1": {"f:x": text}}])),
            set(&|set| {
                set["spec"]["template"]["spec"]["containers"][0]["env"] =
                    json!([{"name": "x", "value": text}])
            }),
            set(&|set| set["spec"]["template"]["metadata"] = json!({"annotations": {"x": text}})),
            set(&|set| {
                set["metadata"]["annotations"] = json!({"thanos-timeshard.io/boundaries": text})
            }),
            set(&|set| set["metadata"]["labels"] = json!(labels)),
            set(&|set| set["spec"]["selector"] = json!({"matchLabels": labels})),
            set(&|set| set["spec"]["template"]["spec"]["containers"][0]["args"] = json!([text])),
        ]
    }

    #[tokio::test]
    async fn a_page_of_large_objects_is_small() {
        let items: Vec<Value> = large().into_iter().cycle().take(48).collect();
        // As Kubernetes writes it.
        let page = json!({"kind": "StatefulSetList", "apiVersion": "apps/v1", "metadata": {"resourceVersion": "9"}, "items": items});
        let page = page.to_string().replace('<', "\\u003c");
        assert!(page.len() > 48 * 1_000_000);
        let (all, most) = left(
            Method::GET,
            "/apis/apps/v1/namespaces/ns/statefulsets?limit=50",
            200,
            page,
        )
        .await;
        assert!(
            all.len() < 48 * MAX_OBJECT_BYTES / 4 && most <= MAX_OBJECT_BYTES + 16 * 1024,
            "{} bytes, {most} at once",
            all.len()
        );
        let list: Value = serde_json::from_str(&all).unwrap();
        let sets: Vec<Lean<StatefulSet>> = serde_json::from_value(list["items"].clone()).unwrap();
        assert!(
            sets.iter()
                .all(|set| set.0.metadata.name.as_deref() == Some("large")
                    && set.0.metadata.resource_version.is_some())
        );
        assert!(sets.chunks(8).all(|sets| {
            sets.iter()
                .map(|set| set.1)
                .eq([false, false, false, false, true, true, true, true])
        }));
        assert_eq!(list["metadata"]["resourceVersion"], "9");
    }

    #[tokio::test]
    async fn a_watch_and_an_answer_to_a_write_are_small() {
        let event = |set: Value| format!("{}\n", json!({"type": "MODIFIED", "object": set}));
        let lines: String = large().into_iter().map(event).collect();
        let (all, _) = left(
            Method::GET,
            "/apis/apps/v1/namespaces/ns/statefulsets?watch=true",
            200,
            lines,
        )
        .await;
        assert_eq!(all.lines().count(), 8);
        assert!(
            all.len() < 64 * 1024
                && all
                    .lines()
                    .all(|line| serde_json::from_str::<Value>(line).is_ok())
        );
        let map = json!({"metadata": {"name": "m", "resourceVersion": "5", "labels": {names::MANAGED_BY_LABEL: "x", "a": "b"}}, "data": {"x": "y".repeat(1_000_000)}});
        let (all, _) = left(
            Method::PATCH,
            "/api/v1/namespaces/ns/configmaps/m",
            200,
            map.to_string(),
        )
        .await;
        assert_eq!(all, json!({"metadata": {"name": "m", "resourceVersion": "5", "labels": {names::MANAGED_BY_LABEL: "x"}}}).to_string());
        let (all, _) = left(
            Method::GET,
            "/api/v1/namespaces/ns/configmaps/m",
            200,
            map.to_string(),
        )
        .await;
        assert_eq!(
            serde_json::from_str::<Value>(&all).unwrap()["data"],
            map["data"]
        );
        let (all, _) = left(
            Method::PATCH,
            "/api/v1/namespaces/ns/configmaps/m",
            422,
            "z".repeat(3_000_000),
        )
        .await;
        assert_eq!(all.len(), MAX_REFUSAL_BYTES);
        // What no tenant writes is not touched.
        let (all, _) = left(
            Method::GET,
            "/apis/coordination.k8s.io/v1/namespaces/ns/leases/x",
            200,
            map.to_string(),
        )
        .await;
        assert_eq!(all, map.to_string());
    }

    #[tokio::test]
    async fn only_so_many_bodies_are_read_at_a_time() {
        let service = tower::service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(StreamBody::new(stream::pending::<
                Result<Frame<Bytes>, Infallible>,
            >())))
        });
        let mut client = Trimmed::default().layer(service);
        let mut list =
            |uri: &'static str| client.call(Request::builder().uri(uri).body(()).unwrap());
        let mut held = Vec::new();
        for _ in 0..BULK {
            held.push(list("/api/v1/namespaces/a/pods?limit=50").await.unwrap());
        }
        let mut waits = list("/api/v1/namespaces/b/services?limit=50");
        assert!(futures::poll!(&mut waits).is_pending());
        assert!(
            futures::poll!(list("/api/v1/namespaces/b/services?watch=true")).is_ready(),
            "a watch holds no place"
        );
        held.pop();
        assert!(futures::poll!(&mut waits).is_ready());
    }
}
