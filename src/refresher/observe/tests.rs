use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::*;
use crate::adapters::cluster::{self, Observed};
use crate::adapters::events;
use crate::adapters::trimmed::Trimmed;
use crate::core::config::Config;
use crate::core::fleet::Fleet;
use crate::core::names;
use crate::core::scope::Scope;
use crate::refresher::seen::Leads;

mod rights;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

fn whole(document: &Value) -> Answer {
    Full::new(Bytes::from(document.to_string())).boxed_unsync()
}

/// Plays the API server: lists in pages, watches, and breaks on request.
#[derive(Clone, Default)]
struct ApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By path, then by name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    version: u64,
    refused: Vec<String>,
    requests: Vec<String>,
}

impl ApiServer {
    fn client(&self) -> Client {
        Client::new(
            tower::Layer::layer(&Trimmed::default(), self.clone()),
            "default",
        )
    }

    fn send(state: &State, path: &str, kind: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": kind, "object": object})));
        state
            .watches
            .iter()
            .filter(|(of, _)| of == path)
            .for_each(|(_, watch)| drop(watch.send(line.clone())));
    }

    fn put(&self, path: &str, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let known = state
            .objects
            .entry(path.to_owned())
            .or_default()
            .insert(name, object.clone())
            .is_some();
        Self::send(
            &state,
            path,
            if known { "MODIFIED" } else { "ADDED" },
            &object,
        );
    }

    fn delete(&self, path: &str, name: &str) {
        let mut state = self.0.lock().unwrap();
        let object = state
            .objects
            .get_mut(path)
            .and_then(|objects| objects.remove(name))
            .unwrap();
        Self::send(&state, path, "DELETED", &object);
    }

    /// Ends every watch on a path; `expired` tells them that they have to list anew.
    fn cut(&self, path: &str, expired: bool) {
        let mut state = self.0.lock().unwrap();
        if expired {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"});
            Self::send(&state, path, "ERROR", &status);
        }
        state.watches.retain(|(of, _)| of != path);
    }

    fn refuse(&self, path: &str, refused: bool) {
        let mut state = self.0.lock().unwrap();
        state.refused.retain(|of| of != path);
        if refused {
            state.refused.push(path.to_owned());
        }
    }

    /// Forgets an object without telling anyone, as while a watch is down.
    fn lose(&self, path: &str, name: &str) {
        self.0
            .lock()
            .unwrap()
            .objects
            .get_mut(path)
            .unwrap()
            .remove(name)
            .unwrap();
    }

    fn requests(&self, part: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .requests
            .iter()
            .filter(|request| request.contains(part))
            .count()
    }

    fn answer(&self, uri: &hyper::Uri) -> Response<Answer> {
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default());
        let mut state = self.0.lock().unwrap();
        state.requests.push(uri.to_string());
        if state.refused.contains(&path) {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "no"});
            return Response::builder()
                .status(403)
                .body(whole(&status))
                .unwrap();
        }
        let parameter = |key: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
        };
        if parameter("watch") == Some("true") {
            let (sender, receiver) = mpsc::unbounded_channel();
            state.watches.push((path, sender));
            let lines = futures::stream::unfold(receiver, |mut lines| async {
                lines.recv().await.map(|line| (line, lines))
            });
            return Response::new(
                StreamBody::new(lines.map(|line| Ok::<_, Infallible>(Frame::data(line))))
                    .boxed_unsync(),
            );
        }
        if let Some((all, name)) = path.rsplit_once('/').filter(|(all, _)| *all == MAPS) {
            let object = state.objects.get(all).and_then(|objects| objects.get(name));
            let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no"});
            return Response::builder()
                .status(if object.is_some() { 200 } else { 404 })
                .body(whole(object.unwrap_or(&gone)))
                .unwrap();
        }
        let from: usize = parameter("continue").map_or(0, |token| token.parse().unwrap());
        let limit: usize = parameter("limit").unwrap().parse().unwrap();
        let objects = state.objects.get(&path).cloned().unwrap_or_default();
        let items: Vec<&Value> = objects.values().skip(from).take(limit).collect();
        let rest = if from + limit < objects.len() {
            (from + limit).to_string()
        } else {
            String::new()
        };
        let list = json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": state.version.to_string(), "continue": rest}});
        Response::new(whole(&list))
    }
}

impl tower::Service<Request<Body>> for ApiServer {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Answer>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        std::future::ready(Ok(self.answer(request.uri())))
    }
}

const NAMESPACES: &str = "/api/v1/namespaces";
const PODS: &str = "/api/v1/namespaces/ns/pods";
const MAPS: &str = "/api/v1/namespaces/ns/configmaps";
const SERVICES: &str = "/api/v1/namespaces/ns/services";
const BUDGETS: &str = "/apis/policy/v1/namespaces/ns/poddisruptionbudgets";
const SETS: &str = "/apis/apps/v1/namespaces/ns/statefulsets";

fn statefulset(name: &str, update_revision: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
        "spec": {"replicas": 2, "serviceName": "", "template": {}, "selector": {"matchLabels": {"app": name}}},
        "status": {"replicas": 2, "updateRevision": update_revision}})
}

fn pod(name: &str, statefulset: &str, ready: bool) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": statefulset, "uid": "u"}]},
        "spec": {"containers": []},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns"}})
}

fn ours(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY}}})
}

/// A labelled namespace with two StatefulSets, and a server that follows it.
struct World {
    api: ApiServer,
    seen: Arc<Seen>,
    tasks: JoinSet<()>,
    leads: Option<Leads>,
}

impl World {
    fn start() -> Self {
        Self::within(ApiServer::default(), Scope::Cluster)
    }

    fn within(api: ApiServer, scope: Scope) -> Self {
        api.put(NAMESPACES, json!({"metadata": {"name": "ns", "labels": {names::NAMESPACE_LABEL: names::INJECTION_ENABLED}}}));
        api.put(SETS, statefulset("a", "a-1"));
        api.put(SETS, statefulset("b", "b-1"));
        let observed = Observed::within(Fleet::new(Arc::new(Config::default())), scope);
        let seen = Seen::new(observed.clone());
        let mut tasks = JoinSet::new();
        let (notices, _) = events::queue();
        tasks.spawn(cluster::follow(api.client(), observed, Some(notices)));
        Self {
            api,
            seen,
            tasks,
            leads: None,
        }
    }

    /// As every replica does.
    async fn watch(mut self) -> Self {
        self.until(|world| world.seen.observed.is_synced()).await;
        self.tasks.spawn(follow(
            self.api.client(),
            self.seen.clone(),
            Purpose::Rollouts,
        ));
        self
    }

    async fn lead(self) -> Self {
        let mut world = self.watch().await;
        world.leads = Some(world.seen.lead());
        world.news().await;
        world
    }

    async fn led() -> Self {
        let world = Self::start().lead().await;
        world.until(|world| world.seen.is_listed("ns")).await;
        world.news().await;
        world
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_mins(10), wait).await.unwrap();
    }

    /// What is news once everything has settled.
    async fn news(&self) -> Vec<String> {
        sleep(Duration::from_secs(1)).await;
        let changed = timeout(Duration::from_millis(1), self.seen.changed())
            .await
            .unwrap_or_default();
        changed
            .into_iter()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect()
    }

    fn pods(&self) -> Vec<String> {
        self.seen
            .with("ns", |facts| facts.pods.keys().cloned().collect())
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_before_all_kinds_are_listed() {
    let world = World::start();
    world.api.put(PODS, pod("a-0", "a", true));
    world.api.refuse(BUDGETS, true);
    let world = world.lead().await;
    world
        .until(|world| world.pods() == ["a-0"] && world.api.requests("poddisruptionbudgets") > 2)
        .await;
    assert!(!world.seen.is_listed("ns"));
    assert!(world.news().await.is_empty());
    let error = world.seen.observed.watches.last_error().unwrap();
    assert!(error.starts_with("PodDisruptionBudgets in ns: "), "{error}");
    assert!(world.seen.observed.watches.broken() > 0);

    world.api.refuse(BUDGETS, false);
    world.until(|world| world.seen.is_listed("ns")).await;
    assert_eq!(world.news().await, ["ns/a", "ns/b"]);
    assert_eq!(world.seen.observed.watches.last_error(), None);
}

#[tokio::test(start_paused = true)]
async fn news_is_for_whom_it_concerns_and_told_once() {
    let world = World::led().await;
    world.api.put(PODS, pod("a-0", "a", false));
    world.api.put(PODS, pod("a-0", "a", true));
    assert_eq!(world.news().await, ["ns/a"]);
    world.api.put(PODS, pod("a-0", "a", true));
    assert!(world.news().await.is_empty(), "it is as it was");
    world.api.delete(PODS, "a-0");
    assert_eq!(world.news().await, ["ns/a"]);

    let mut map = ours("a-time-shards");
    world.api.put(MAPS, map.clone());
    assert_eq!(world.news().await, ["ns/a"], "whose windows are there");
    map["data"] = json!({"a-0.yaml": "x"});
    world.api.put(MAPS, map);
    assert_eq!(world.news().await, ["ns/a"]);
    world.api.put(MAPS, ours("c-time-shards"));
    assert!(world.news().await.is_empty(), "nobody reads it");

    world.api.put(BUDGETS, named("someones"));
    assert_eq!(world.news().await, ["ns/a", "ns/b"]);
    world.api.put(BUDGETS, named("someones"));
    assert!(
        world.news().await.is_empty(),
        "another version of a budget that is not ours"
    );
    world.api.put(SERVICES, named("store"));
    assert_eq!(world.news().await, ["ns/a", "ns/b"]);
    world.api.put(SETS, statefulset("a", "a-2"));
    assert_eq!(world.news().await, ["ns/a"]);
    world.seen.touch("ns", "b");
    assert_eq!(world.news().await, ["ns/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_sees_everything_and_begins_to_lead_with_it() {
    let mut world = World::start().watch().await;
    world.api.put(PODS, pod("a-0", "a", true));
    world.api.put(PODS, pod("a-1", "a", false));
    world
        .until(|world| world.seen.is_listed("ns") && world.pods().len() == 2)
        .await;
    sleep(Duration::from_mins(9)).await;
    assert!(world.news().await.is_empty(), "nobody takes it");
    let requests = world.api.requests("");
    world.leads = Some(world.seen.lead());
    assert!(world.seen.is_listed("ns"), "there is nothing to wait for");
    assert_eq!(
        world.news().await,
        ["ns/a", "ns/b"],
        "all is to be looked at"
    );
    assert!(
        world.seen.ready_for("uid-a-0", tokio::time::Instant::now())
            >= Some(Duration::from_mins(9))
    );
    assert_eq!(
        world.api.requests(""),
        requests,
        "leading lists nothing again"
    );
    world.api.put(PODS, pod("a-1", "a", true));
    assert_eq!(world.news().await, ["ns/a"]);
    // It no longer leads.
    world.api.put(PODS, pod("a-1", "a", false));
    world
        .until(|world| {
            world
                .seen
                .ready_for("uid-a-1", tokio::time::Instant::now())
                .is_none()
        })
        .await;
    world.leads = None;
    world.seen.touch("ns", "b");
    assert!(
        world.news().await.is_empty(),
        "what was news is left to the next leader"
    );
    assert_eq!(world.pods(), ["a-0", "a-1"]);
}

#[tokio::test(start_paused = true)]
async fn the_guard_of_every_replica_knows_which_pods_are_ready() {
    use crate::core::guard::PodCondition::{Absent, NotReady, Ready, Terminating};
    let world = World::start();
    world.api.refuse(PODS, true);
    let world = world.watch().await;
    let own = |name: &str, ready| {
        let mut pod = pod(name, "a", ready);
        pod["metadata"]["ownerReferences"][0]["uid"] = json!("uid-a");
        pod
    };
    world.api.put(PODS, own("a-0", true));
    world.api.put(PODS, own("a-1", false));
    let mut ends = own("a-2", true);
    ends["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.api.put(PODS, ends);
    // Anyone who may create pods can give them an owner's name.
    world.api.put(PODS, pod("a-3", "a", true));
    let mut map = ours("a-time-shards");
    map["metadata"]["annotations"] = json!({names::SINGLE_HOLDERS: "{}"});
    world.api.put(MAPS, map);
    world.until(|world| world.api.requests("pods") > 2).await;
    assert_eq!(world.seen.pods("ns", "a"), None, "not listed");
    world.api.refuse(PODS, false);
    world.until(|world| world.seen.is_listed("ns")).await;
    let seen = world.seen.pods("ns", "a").unwrap();
    let conditions = ["a-0", "a-1", "a-2", "a-3", "a-4"].map(|pod| seen.condition(pod));
    assert_eq!(conditions, [Ready, NotReady, Terminating, Absent, Absent]);
    assert_eq!(seen.single_holders.as_deref(), Some("{}"));
    assert_eq!(
        (world.seen.pods("ns", "c"), world.seen.pods("other", "a")),
        (None, None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_never_leads_watches_what_its_guard_needs() {
    let mut world = World::start();
    world.until(|world| world.seen.observed.is_synced()).await;
    world.api.put(PODS, pod("a-0", "a", true));
    world.tasks.spawn(follow(
        world.api.client(),
        world.seen.clone(),
        Purpose::Guard,
    ));
    world
        .until(|world| world.seen.pods("ns", "a").is_some())
        .await;
    assert_eq!(world.pods(), ["a-0"]);
    world.news().await;
    assert_eq!(
        (
            world.api.requests("poddisruptionbudgets"),
            world.api.requests("/services")
        ),
        (0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn what_went_while_a_watch_was_down_shows_by_its_absence() {
    let world = World::led().await;
    for n in 0..450 {
        world.api.put(PODS, pod(&format!("a-{n}"), "a", true));
    }
    world.until(|world| world.pods().len() == 450).await;
    world.news().await;
    world.api.lose(PODS, "a-7");
    world.api.put(
        PODS,
        json!({"metadata": {"name": "job", "ownerReferences": []}}),
    );
    world.api.cut(PODS, true);
    world.until(|world| world.pods().len() == 449).await;
    assert_eq!(world.news().await, ["ns/a"]);
    assert!(!world.pods().contains(&"a-7".to_owned()));
    assert_eq!(world.api.requests("continue=200"), 1, "lists come in pages");
    assert_eq!(world.api.requests("/pods?&limit=50&continue=400"), 1);
    assert!(world.seen.is_listed("ns"));

    // An API server that is away for ten minutes: what is known stays, and what changed meanwhile is seen.
    world.api.refuse(PODS, true);
    world.api.cut(PODS, true);
    sleep(Duration::from_mins(10)).await;
    assert_eq!(world.pods().len(), 449);
    world.api.lose(PODS, "a-8");
    world.api.refuse(PODS, false);
    world.until(|world| world.pods().len() == 448).await;
    assert_eq!(world.news().await, ["ns/a"]);
}

#[tokio::test(start_paused = true)]
async fn only_our_maps_are_asked_for_and_only_in_labelled_namespaces() {
    let world = World::led().await;
    let state = world.api.0.lock().unwrap();
    let of_maps = state
        .requests
        .iter()
        .filter(|request| request.starts_with(MAPS));
    assert!(of_maps.clone().all(|request| {
        request.contains("labelSelector=app.kubernetes.io%2Fmanaged-by%3Dthanos-timeshard")
    }));
    assert_eq!(of_maps.count(), 2, "one list and one watch for everybody");
    for request in &state.requests {
        assert!(
            request.contains("/namespaces/ns/") || request.starts_with("/api/v1/namespaces?"),
            "{request}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unlabelled_namespace_is_forgotten_and_a_labelled_one_is_seen() {
    let world = World::led().await;
    world.api.put(PODS, pod("a-0", "a", true));
    world.until(|world| world.pods() == ["a-0"]).await;
    assert!(
        world
            .seen
            .ready_for("uid-a-0", tokio::time::Instant::now())
            .is_some()
    );
    world.news().await;
    world.api.delete(NAMESPACES, "ns");
    world.until(|world| world.pods().is_empty()).await;
    assert!(!world.seen.is_listed("ns"));
    assert_eq!(
        world.seen.ready_for("uid-a-0", tokio::time::Instant::now()),
        None
    );
    assert_eq!(
        world.news().await,
        ["ns/a", "ns/b"],
        "that they are gone is news"
    );
    world.api.put(NAMESPACES, named("ns"));
    world.until(|world| world.seen.is_listed("ns")).await;
    assert_eq!(world.pods(), ["a-0"]);
}

#[tokio::test(start_paused = true)]
async fn who_no_longer_watches_has_seen_nothing() {
    let mut world = World::led().await;
    world.api.put(PODS, pod("a-0", "a", true));
    world.until(|world| world.pods() == ["a-0"]).await;
    world.tasks.shutdown().await;
    assert!(world.pods().is_empty() && !world.seen.is_listed("ns"));
}

/// What a tenant may make: everything of it together stays small, and the other namespace does not notice.
#[tokio::test(start_paused = true)]
async fn what_nobody_needs_is_neither_read_nor_kept() {
    let world = World::start();
    let text = "<".repeat(400_000);
    for n in 0..40 {
        let mut map = ours(&format!("other-{n}"));
        map["data"] = json!({"x": text});
        map["metadata"]["annotations"] = json!({"x": text});
        world.api.put(MAPS, map);
        // One whose windows would be in a map of ours, which is too large, too.
        let mut set = statefulset(&format!("large-{n}"), "x");
        set["metadata"]["annotations"] =
            json!({"thanos-timeshard.io/total-shards": "9000", "x": text});
        set["spec"]["replicas"] = json!(9_000);
        world.api.put(SETS, set);
    }
    let mut map = ours("large-0-time-shards");
    map["data"] = json!({"x": text.repeat(4)});
    world.api.put(MAPS, map);
    let mut set = statefulset("too-large", "x");
    set["metadata"]["annotations"] = json!({"thanos-timeshard.io/boundaries": text});
    world.api.put(SETS, set);
    let mut map = ours("a-time-shards");
    map["data"] = json!({"a-0.yaml": "shard: 0\nreplica: 0\nmin_time: -1d\nmax_time: 1d\n"});
    world.api.put(MAPS, map);
    let world = world.watch().await;
    world.until(|world| world.seen.is_listed("ns")).await;
    let observed = &world.seen.observed;
    assert!(
        observed.fleet.load().published("ns", "a", "a-0").is_some(),
        "before the server is ready"
    );
    assert_eq!(world.api.requests("configmaps/"), 2, "large-0's and a's");
    let refused = observed.refused();
    let sentence = &refused[0].sentence;
    assert!(
        sentence.contains("StatefulSet too-large")
            && sentence.contains("ConfigMap large-0-time-shards"),
        "{sentence}"
    );
    assert!(observed.fleet.load().get("ns", "too-large").is_none());
    let bytes: usize = observed
        .fleet
        .load()
        .statefulsets()
        .map(crate::core::fleet::Known::bytes)
        .sum();
    assert!(bytes <= crate::core::kept::MAX_NAMESPACE_BYTES, "{bytes}");
    // It is taken in as soon as it is small enough.
    world.api.put(SETS, statefulset("too-large", "y"));
    world
        .until(|world| {
            world
                .seen
                .observed
                .fleet
                .load()
                .get("ns", "too-large")
                .is_some()
        })
        .await;
}

/// An edit is read at once, several together are read once, and what this process has written is not read again.
#[tokio::test(start_paused = true)]
async fn a_change_of_a_configmap_is_read_once_and_our_own_not_at_all() {
    let world = World::led().await;
    let entry = |days: u32| format!("shard: 0\nreplica: 0\nmin_time: -{days}d\nmax_time: 1d\n");
    let put = |days: u32| {
        let mut map = ours("a-time-shards");
        map["data"] = json!({"a-0.yaml": entry(days)});
        world.api.put(MAPS, map);
    };
    let published = |world: &World| {
        world
            .seen
            .observed
            .fleet
            .load()
            .published("ns", "a", "a-0")
            .map(|entry| entry.window.min.to_string())
    };
    (1..=5).for_each(put);
    world
        .until(|world| published(world).as_deref() == Some("-5d"))
        .await;
    assert_eq!(world.api.requests("configmaps/"), 1);
    world.news().await;
    let data = BTreeMap::from([("a-0.yaml".to_owned(), entry(6))]);
    let version = (world.api.0.lock().unwrap().version + 1).to_string();
    world
        .seen
        .observed
        .wrote("ns", "a-time-shards", &version, &data);
    put(6);
    assert_eq!(world.news().await, ["ns/a"]);
    assert_eq!(
        (
            published(&world).as_deref(),
            world.api.requests("configmaps/")
        ),
        (Some("-6d"), 1)
    );
    // Somebody else wrote after it.
    world
        .seen
        .observed
        .wrote("ns", "a-time-shards", &version, &data);
    put(7);
    world
        .until(|world| published(world).as_deref() == Some("-7d"))
        .await;
    assert_eq!(world.api.requests("configmaps/"), 2);
    // A list that shows what is known reads nothing.
    world.api.cut(MAPS, true);
    world.news().await;
    assert_eq!(world.api.requests("configmaps/"), 2);
    world.api.delete(MAPS, "a-time-shards");
    world.until(|world| published(world).is_none()).await;
}

/// One of which it is not known yet that anybody reads it is read as soon as it is.
#[tokio::test(start_paused = true)]
async fn a_configmap_is_read_when_its_statefulset_is_known() {
    let world = World::led().await;
    let mut map = ours("c-time-shards");
    map["data"] = json!({"c-0.yaml": "shard: 0\nreplica: 0\nmin_time: -1d\nmax_time: 1d\n"});
    world.api.put(MAPS, map);
    world.news().await;
    assert_eq!(world.api.requests("configmaps/"), 0);
    world.api.put(SETS, statefulset("c", "1"));
    world
        .until(|world| {
            world
                .seen
                .observed
                .fleet
                .load()
                .published("ns", "c", "c-0")
                .is_some()
        })
        .await;
    assert_eq!(world.api.requests("configmaps/"), 1);
}
