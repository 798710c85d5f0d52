use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::adapters::cluster::Observed;
use crate::adapters::events;
use crate::adapters::lease::Leadership;
use crate::adapters::signals::Shutdown;
use crate::core::config::Config;
use crate::core::fleet::{Fleet, StatefulSetFacts};
use crate::core::pod_address::Asked;
use crate::core::report::SetReport;
use crate::core::report::State;
use crate::refresher::poll::Poller;
use crate::refresher::release::Replica;
use crate::refresher::reports::Reports;
use crate::refresher::seen::{Kind, Seen};
use crate::refresher::write::Writer;

/// The API server: takes every write, but for those of paths that are refused.
#[derive(Clone, Default)]
struct Api {
    refused: Arc<Mutex<Vec<&'static str>>>,
    sent: Arc<Mutex<Vec<String>>>,
    /// What a list of budgets shows.
    budgets: Arc<Mutex<Vec<Value>>>,
}

impl Api {
    async fn answer(self, request: Request<Body>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let _ = body.collect().await;
        let line = format!("{} {}", parts.method, parts.uri.path());
        self.sent.lock().unwrap().push(line.clone());
        let refused = parts.method != Method::GET
            && self
                .refused
                .lock()
                .unwrap()
                .iter()
                .any(|path| line.contains(path));
        let (code, body): (u16, Value) = if refused {
            let message = "admission webhook \"policy.example.org\" denied the request: no ConfigMaps on Fridays";
            (
                403,
                json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": message}),
            )
        } else if line == "GET /apis/policy/v1/poddisruptionbudgets" {
            (
                200,
                json!({"metadata": {"resourceVersion": "9"}, "items": *self.budgets.lock().unwrap()}),
            )
        } else {
            (
                200,
                json!({"metadata": {"resourceVersion": "9"}, "items": []}),
            )
        };
        Ok(Response::builder()
            .status(code)
            .body(Full::from(body.to_string()))
            .unwrap())
    }
}

/// A leader that looks at one StatefulSet.
struct World {
    api: Api,
    tenure: Tenure,
    notices: events::Receiver,
    memory: Memory,
}

fn set() -> SetName {
    ("ns".to_owned(), "store".to_owned())
}

impl World {
    fn new(replicas: u32, store: bool) -> Self {
        let facts = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            uid: "set".to_owned(),
            generation_observed: true,
            replicas,
            store,
            ..StatefulSetFacts::default()
        };
        let fleet = Fleet::new(Arc::new(Config::default()))
            .with_statefulset(facts)
            .unwrap();
        let seen = Seen::new(Observed::new(fleet));
        seen.observed.list_for_test("ns");
        seen.expect("ns");
        for kind in [Kind::Pods, Kind::Budgets, Kind::Services] {
            seen.listed("ns", kind);
        }
        let api = Api::default();
        let server = api.clone();
        let client = Client::new(
            tower::service_fn(move |request| server.clone().answer(request)),
            "default",
        );
        let (notices, told) = events::queue();
        let tenure = Tenure {
            observed: seen.observed.clone(),
            poller: Poller::new(seen.clone(), Asked::Pods),
            seen,
            writer: Arc::new(Writer::new(client, &mut Registry::default())),
            leadership: Leadership::always(),
            reports: Arc::<Reports>::default(),
            notices,
            replica: Replica {
                name: "timeshard-0".to_owned(),
                namespace: "timeshard-system".to_owned(),
            },
            shutdown: Shutdown::never(),
            memories: std::collections::HashMap::new(),
            alarms: BTreeMap::new(),
            told_refused: BTreeSet::new(),
        };
        Self {
            api,
            tenure,
            notices: told,
            memory: Memory::default(),
        }
    }

    /// A pod that has not run anything yet.
    fn pod(&self, ordinal: u32) {
        let (name, uid) = (format!("store-{ordinal}"), format!("u{ordinal}"));
        let (statefulset, owner_uid) = ("store".to_owned(), "set".to_owned());
        let stuck = Some("ImagePullBackOff".to_owned());
        self.tenure.seen.put(
            "ns",
            PodFacts {
                name,
                uid,
                statefulset,
                owner_uid,
                injected: true,
                store: true,
                stuck,
                ..PodFacts::default()
            },
        );
    }

    async fn look(&mut self) -> Option<SetReport> {
        let outcome = self.tenure.look(&set(), &mut self.memory).await;
        if matches!(outcome, Outcome::Nothing) {
            None
        } else {
            self.tenure.reports.all().pop()
        }
    }

    fn events(&mut self) -> Vec<(&'static str, String)> {
        std::iter::from_fn(|| self.notices.try_recv())
            .map(|notice| (notice.reason, notice.message))
            .collect()
    }

    fn sent(&self, part: &str) -> usize {
        self.api
            .sent
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.contains(part))
            .count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_configmap_that_is_refused_is_told() {
    let mut world = World::new(6, true);
    (0..6).for_each(|pod| world.pod(pod));
    // Kubernetes' own words, from whichever policy, quota or lack of a right they come.
    world.api.refused.lock().unwrap().push("/configmaps");
    let words = "a ConfigMap of it is not written, and no window changes until it is: admission webhook \"policy.example.org\" denied the request";
    for look in 0..=TOLD_AFTER + 1 {
        let report = world.look().await.unwrap();
        assert_eq!(
            report.state,
            State::Waiting,
            "look {look}: {}",
            report.message
        );
        assert!(
            report.message.starts_with(words),
            "look {look}: {}",
            report.message
        );
        let told = world
            .events()
            .into_iter()
            .filter(|(reason, _)| *reason == "WriteRefused")
            .collect::<Vec<_>>();
        // An API server that is away for a moment is no news, and what was told once is not told again.
        assert_eq!(
            told.len(),
            usize::from(look == TOLD_AFTER),
            "look {look}: {told:?}"
        );
        assert!(told.iter().all(|(_, text)| text.starts_with(words)));
    }
    world.api.refused.lock().unwrap().clear();
    let report = world.look().await.unwrap();
    assert!(
        !report.message.contains("is not written"),
        "{}",
        report.message
    );
    assert!(world.sent("POST /api/v1/namespaces/ns/configmaps") > TOLD_AFTER as usize);
}

#[tokio::test(start_paused = true)]
async fn a_configmap_that_cannot_be_replaced_is_told() {
    let mut world = World::new(2, true);
    (0..2).for_each(|pod| world.pod(pod));
    let map = MapFacts {
        name: "store-time-shards".to_owned(),
        resource_version: "5".to_owned(),
        ..MapFacts::default()
    };
    world.tenure.observed.put_map_for_test("ns", map);
    world.api.refused.lock().unwrap().push("/configmaps");
    for _ in 0..=TOLD_AFTER {
        world.look().await;
    }
    assert!(
        world
            .events()
            .iter()
            .any(|(reason, text)| *reason == "WriteRefused"
                && text.contains("no ConfigMaps on Fridays (HTTP 403)"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_without_pods_has_a_report_and_nothing_is_made_for_it() {
    let mut world = World::new(0, true);
    let report = world.look().await.unwrap();
    assert_eq!(
        (report.state, report.message.as_str()),
        (State::Settled, "no pods: nothing is served")
    );
    assert_eq!(
        (report.gap_seconds, report.gaps.len(), report.replicas),
        (0, 0, 0),
        "nobody is woken for it"
    );
    assert!(world.events().is_empty());
    let mut world = World::new(6, true);
    let report = world.look().await.unwrap();
    assert_eq!(report.state, State::Waiting, "{}", report.message);
    assert_eq!(report.pods.len(), 6);
    assert!(world.events().is_empty());
    assert_eq!(world.sent(""), 0, "neither reads nor writes");
    // Whatever else lives in the namespace.
    assert_eq!(World::new(0, false).look().await, None);
}

/// A server that has just started has seen no pod ready for long; where nothing moves that is nobody's concern.
#[tokio::test(start_paused = true)]
async fn a_settled_fleet_is_calm_under_a_leader_that_has_just_started() {
    let mut world = World::new(0, true);
    assert!(
        world
            .look()
            .await
            .is_some_and(|report| report.state == State::Settled)
    );
    let mut world = World::new(6, true);
    let known = world.tenure.observed.fleet.load_full();
    let known = known.known("ns", "store");
    let entry = |index: u32| {
        let at = known.plan.assign(index);
        let drain = Some(known.sharding.drain());
        entry::Entry {
            drain,
            ..entry::Entry::new(
                at.shard,
                at.replica,
                known.plan.window(at.shard, clock::now()),
            )
        }
    };
    let data = (0..6)
        .map(|index| {
            (
                entry::key(&format!("store-{index}")),
                entry(index).to_yaml(),
            )
        })
        .collect();
    let (name, resource_version, owner_uid) = (
        "store-time-shards".to_owned(),
        "5".to_owned(),
        Some("set".to_owned()),
    );
    world.tenure.observed.put_map_for_test(
        "ns",
        MapFacts {
            name,
            resource_version,
            owner_uid,
            data,
            ..MapFacts::default()
        },
    );
    for index in 0..6 {
        let pod = PodFacts {
            ready: true,
            ready_changed_unix_seconds: 1,
            shard_label: Some((index / 2).to_string()),
            ..PodFacts::default()
        };
        let (name, uid) = (format!("store-{index}"), format!("u{index}"));
        let (statefulset, owner_uid, ip) = (
            "store".to_owned(),
            "set".to_owned(),
            Some("10.0.0.1".to_owned()),
        );
        world.tenure.seen.put(
            "ns",
            PodFacts {
                name,
                uid,
                statefulset,
                owner_uid,
                ip,
                injected: true,
                store: true,
                ..pod
            },
        );
    }
    let report = world.look().await.unwrap();
    assert!(
        report.not_asked == 6 && world.events().is_empty(),
        "{}",
        report.message
    );
    let asked: Vec<String> = (0..6).map(|index| format!("u{index}")).collect();
    for (index, uid) in (0..6).zip(&asked) {
        let (window, published) = (entry(index).window, entry(index));
        let status = crate::core::agent_status::AgentStatus {
            pod: format!("store-{index}"),
            phase: crate::core::agent_status::Phase::Serving,
            shard: Some(published.shard),
            replica: Some(published.replica),
            published: Some(window),
            applied: Some(window),
            verified: true,
            contract: 1,
            ..crate::core::agent_status::AgentStatus::default()
        };
        world.tenure.poller.answered_for_test(uid, status);
    }
    let report = world.look().await.unwrap();
    assert_eq!(
        (
            report.state,
            report.gap_seconds,
            report.minimum_ready_replicas
        ),
        (State::Rolling, 0, 2),
        "{}",
        report.message
    );
    assert_eq!(
        (report.minimum_confirmed_replicas, report.moves_left),
        (0, 0),
        "nobody knows yet that every querier knows them"
    );
    tokio::time::sleep(known.sharding.discovery_delay().to_std()).await;
    let report = world.look().await.unwrap();
    assert_eq!(
        (report.state, report.minimum_confirmed_replicas),
        (State::Settled, 2),
        "{}",
        report.message
    );
    assert!(world.events().is_empty());
    assert_eq!(world.sent("configmaps"), 0);
}

/// A StatefulSet of another namespace with a pod in each of hundreds of shards.
fn loud(world: &World, pods: u32) {
    let annotations = [
        ("total-shards", pods.to_string()),
        ("replicas-per-shard", "1".to_owned()),
        ("overlap", "30m".to_owned()),
    ];
    let facts = StatefulSetFacts {
        namespace: "loud".to_owned(),
        name: "huge".to_owned(),
        uid: "huge".to_owned(),
        generation_observed: true,
        replicas: pods,
        store: true,
        annotations: annotations
            .map(|(key, value)| (format!("{}{key}", names::PREFIX), value))
            .into(),
        ..StatefulSetFacts::default()
    };
    world
        .tenure
        .observed
        .update(|fleet| fleet.with_statefulset(facts));
    world.tenure.observed.list_for_test("loud");
    world.tenure.seen.expect("loud");
    for n in 0..pods {
        let (name, uid, owner_uid, statefulset) = (
            format!("huge-{n}"),
            format!("h{n}"),
            "huge".to_owned(),
            "huge".to_owned(),
        );
        let (stuck, shard_label) = (Some("ImagePullBackOff".to_owned()), Some(n.to_string()));
        let pod = PodFacts {
            name,
            uid,
            owner_uid,
            statefulset,
            injected: true,
            store: true,
            stuck,
            shard_label,
            ..PodFacts::default()
        };
        world.tenure.seen.put("loud", pod);
    }
    for kind in [Kind::Pods, Kind::Budgets, Kind::Services] {
        world.tenure.seen.listed("loud", kind);
    }
}

impl World {
    /// Leads for so long; what was sent then.
    async fn lead(self, long: Duration) -> Vec<String> {
        tokio::select! {
            () = self.tenure.run() => panic!("nobody ends it"),
            () = tokio::time::sleep(long) => {}
        }
        self.api.sent.lock().unwrap().clone()
    }
}

/// Nothing that is written for the loud one is ever seen to be there, so it needs hundreds of writes for ever.
#[tokio::test(start_paused = true)]
async fn who_needs_hundreds_of_writes_delays_another_namespace_by_one_turn() {
    let world = World::new(6, true);
    (0..6).for_each(|pod| world.pod(pod));
    for namespace in ["ns", "loud"] {
        world.tenure.observed.label_for_test(namespace);
    }
    loud(&world, 300);
    let sent = world.lead(Duration::from_mins(1)).await;
    let of = |namespace: &str, line: &String| line.contains(&format!("/namespaces/{namespace}/"));
    let map = sent
        .iter()
        .position(|line| line.starts_with("POST") && line.ends_with("/namespaces/ns/configmaps"))
        .unwrap();
    let before = sent[..map].iter().filter(|line| of("loud", line)).count();
    assert!(
        before <= super::super::turn::MAX_WRITES as usize,
        "{before}"
    );
    assert!(
        sent.iter().filter(|line| of("loud", line)).count() > 200,
        "what is left is not waited for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_turns_and_deletes_only_what_we_made() {
    let world = World::new(6, true);
    (0..6).for_each(|pod| world.pod(pod));
    world.tenure.observed.label_for_test("ns");
    let budget = |name: &str, owner: &str| {
        json!({"metadata": {"name": name, "namespace": "bare", "resourceVersion": "5", "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "name": "gone", "uid": "u"}]}})
    };
    let theirs = (0..600).map(|n| {
        if n % 2 == 0 {
            budget(&format!("theirs-{n}"), "StatefulSet")
        } else {
            budget(&format!("gone-shard-{n}"), "Deployment")
        }
    });
    *world.api.budgets.lock().unwrap() = theirs
        .chain((0..20).map(|n| budget(&format!("gone-shard-{n}"), "StatefulSet")))
        .collect();
    let sent = world.lead(Duration::from_secs(30)).await;
    let deleted: Vec<&String> = sent
        .iter()
        .filter(|line| line.starts_with("DELETE"))
        .collect();
    assert!(
        deleted.len() == 20
            && deleted
                .iter()
                .all(|line| line.contains("/namespaces/bare/poddisruptionbudgets/gone-shard-")),
        "{deleted:?}"
    );
    let map = sent
        .iter()
        .position(|line| line.starts_with("POST") && line.ends_with("/namespaces/ns/configmaps"))
        .unwrap();
    assert!(
        sent[..map]
            .iter()
            .filter(|line| line.starts_with("DELETE"))
            .count()
            <= 4,
        "{sent:?}"
    );
    assert_eq!(
        sent.iter()
            .filter(|line| *line == "GET /apis/policy/v1/poddisruptionbudgets")
            .count(),
        1
    );
}
