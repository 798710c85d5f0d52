//! A leader with one StatefulSet, and an API server that accepts every write.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::super::{ReconcileOutcome, reconcile};
use crate::adapters::kube::cluster::Observed;
use crate::adapters::kube::events;
use crate::adapters::kube::lease::Leadership;
use crate::adapters::signals::Shutdown;
use crate::controller::cache::{ClusterCache, ObjectKind, SetName};
use crate::controller::context::{LeaderContext, Replica};
use crate::controller::memory::LeaderMemory;
use crate::controller::poll::Poller;
use crate::controller::queriers::QuerierPoller;
use crate::controller::reports::Reports;
use crate::controller::term::LeaderTerm;
use crate::controller::write::Writer;
use crate::core::config::Config;
use crate::core::gateways::Gateways;
use crate::core::kube::observed::PodFacts;
use crate::core::kube::pod_address::Asked;
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::names;
use crate::core::rollout::report::SetReport;
use crate::testing::api_server::{self, Sent};

/// Accepts every write, except to paths that are refused.
#[derive(Clone, Default)]
pub(super) struct Api {
    pub(super) refused: Arc<Mutex<Vec<&'static str>>>,
    /// Method and path of each request.
    pub(super) sent: Arc<Mutex<Vec<String>>>,
    /// The PDBs of a list.
    pub(super) budgets: Arc<Mutex<Vec<Value>>>,
}

impl Api {
    fn answer(&self, sent: &Sent) -> (u16, Value) {
        let line = format!("{} {}", sent.method, sent.uri.path());
        self.sent.lock().unwrap().push(line.clone());
        let mut refused = self.refused.lock().unwrap().clone();
        refused.retain(|path| line.contains(path));
        if sent.method != Method::GET && !refused.is_empty() {
            let message = "admission webhook \"policy.example.org\" denied the request: no ConfigMaps on Fridays";
            return api_server::status(403, "Forbidden", message);
        }
        let items = if line == "GET /apis/policy/v1/poddisruptionbudgets" {
            self.budgets.lock().unwrap().clone()
        } else {
            Vec::new()
        };
        (
            200,
            json!({"metadata": {"resourceVersion": "9"}, "items": items}),
        )
    }
}

pub(super) struct World {
    pub(super) api: Api,
    pub(super) context: LeaderContext,
    events: events::Receiver,
    memory: LeaderMemory,
}

fn set() -> SetName {
    ("ns".to_owned(), "store".to_owned())
}

/// A pod of the StatefulSet `store`.
pub(super) fn pod(ordinal: u32) -> PodFacts {
    PodFacts {
        name: format!("store-{ordinal}"),
        uid: format!("u{ordinal}"),
        statefulset: "store".to_owned(),
        owner_uid: "set".to_owned(),
        injected: true,
        store: true,
        ..PodFacts::default()
    }
}

impl World {
    pub(super) fn new(replicas: u32, store: bool) -> Self {
        let facts = StatefulSetFacts {
            namespace: "ns".to_owned(),
            name: "store".to_owned(),
            uid: "set".to_owned(),
            generation_observed: true,
            replicas,
            store,
            ..StatefulSetFacts::default()
        };
        let fleet = Gateways::new(Arc::new(Config::default()))
            .with_statefulset(facts)
            .unwrap();
        let cache = ClusterCache::new(Observed::new(fleet));
        list(&cache, "ns");
        let api = Api::default();
        let server = api.clone();
        let client = api_server::client("default", move |sent| {
            std::future::ready(server.answer(&sent))
        });
        let (sender, events) = events::queue();
        let context = LeaderContext {
            observed: cache.observed.clone(),
            poller: Poller::new(cache.clone(), Asked::Pods),
            queriers: QuerierPoller::new(cache.clone(), Asked::Pods),
            cache,
            writer: Arc::new(Writer::new(client, &mut Registry::default())),
            leadership: Leadership::always(),
            reports: Arc::<Reports>::default(),
            events: sender,
            replica: Replica {
                name: "timeshard-0".to_owned(),
                namespace: "timeshard-system".to_owned(),
            },
            shutdown: Shutdown::never(),
        };
        Self {
            api,
            context,
            events,
            memory: LeaderMemory::default(),
        }
    }

    /// With a pod for each replica that has not run yet.
    pub(super) fn starting(replicas: u32) -> Self {
        let world = Self::new(replicas, true);
        for ordinal in 0..replicas {
            let stuck = Some("ImagePullBackOff".to_owned());
            let pod = PodFacts {
                stuck,
                ..pod(ordinal)
            };
            world.context.cache.put("ns", pod);
        }
        world
    }

    /// Reconciles once; returns the report.
    pub(super) async fn reconcile(&mut self) -> Option<SetReport> {
        let outcome = reconcile(&self.context, &set(), &mut self.memory).await;
        if matches!(outcome, ReconcileOutcome::Ignored) {
            None
        } else {
            self.context.reports.all().pop()
        }
    }

    /// Leads for a while; returns method and path of each request.
    pub(super) async fn lead(self, time: Duration) -> Vec<String> {
        tokio::select! {
            () = LeaderTerm::new(&self.context).run() => panic!("nothing ends the term"),
            () = tokio::time::sleep(time) => {}
        }
        self.api.sent.lock().unwrap().clone()
    }

    pub(super) fn events(&mut self) -> Vec<(&'static str, String)> {
        std::iter::from_fn(|| self.events.try_recv())
            .map(|event| (event.reason, event.message))
            .collect()
    }

    /// Number of requests whose method and path contain `part`.
    pub(super) fn sent(&self, part: &str) -> usize {
        let sent = self.api.sent.lock().unwrap();
        sent.iter().filter(|line| line.contains(part)).count()
    }
}

/// Lists every kind in a namespace.
fn list(cache: &ClusterCache, namespace: &str) {
    cache.observed.list_for_test(namespace);
    cache.expect(namespace);
    for kind in [ObjectKind::Pods, ObjectKind::Budgets, ObjectKind::Services] {
        cache.listed(namespace, kind);
    }
}

/// Adds a StatefulSet in another namespace with one pod in each of hundreds of shards.
pub(super) fn add_loud_namespace(world: &World, pods: u32) {
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
    let (observed, cache) = (&world.context.observed, &world.context.cache);
    observed.update(|fleet| fleet.with_statefulset(facts));
    observed.list_for_test("loud");
    cache.expect("loud");
    for n in 0..pods {
        let pod = PodFacts {
            name: format!("huge-{n}"),
            uid: format!("h{n}"),
            owner_uid: "huge".to_owned(),
            statefulset: "huge".to_owned(),
            stuck: Some("ImagePullBackOff".to_owned()),
            shard_label: Some(n.to_string()),
            ..pod(n)
        };
        cache.put("loud", pod);
    }
    list(cache, "loud");
}
