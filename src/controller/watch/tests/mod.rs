mod configmaps;
mod rights;
mod server;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::server::ApiServer;
use super::*;
use crate::adapters::kube::cluster::{self, Observed};
use crate::adapters::kube::events;
use crate::controller::cache::Leading;
use crate::core::config::Config;
use crate::core::gateways::Gateways;
use crate::core::kube::scope::Scope;
use crate::core::model::names;

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

fn managed(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY}}})
}

/// A labelled namespace with two StatefulSets, and a server that watches it.
struct World {
    api: ApiServer,
    cache: Arc<ClusterCache>,
    tasks: JoinSet<()>,
    leads: Option<Leading>,
}

impl World {
    fn start() -> Self {
        Self::within(ApiServer::default(), Scope::Cluster)
    }

    fn within(api: ApiServer, scope: Scope) -> Self {
        api.put(NAMESPACES, json!({"metadata": {"name": "ns", "labels": {names::NAMESPACE_LABEL: names::INJECTION_ENABLED}}}));
        api.put(SETS, statefulset("a", "a-1"));
        api.put(SETS, statefulset("b", "b-1"));
        let observed = Observed::within(Gateways::new(Arc::new(Config::default())), scope);
        let cache = ClusterCache::new(observed.clone());
        let mut tasks = JoinSet::new();
        let (notices, _) = events::queue();
        tasks.spawn(cluster::follow(api.client(), observed, Some(notices)));
        Self {
            api,
            cache,
            tasks,
            leads: None,
        }
    }

    async fn watch(mut self) -> Self {
        self.until(|world| world.cache.observed.is_synced()).await;
        self.tasks.spawn(follow(
            self.api.client(),
            self.cache.clone(),
            Purpose::Rollouts,
        ));
        self
    }

    async fn lead(self) -> Self {
        let mut world = self.watch().await;
        world.leads = Some(world.cache.lead());
        world.changes().await;
        world
    }

    async fn led() -> Self {
        let world = Self::start().lead().await;
        world.until(|world| world.cache.is_listed("ns")).await;
        world.changes().await;
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

    /// The changes recorded once everything has settled.
    async fn changes(&self) -> Vec<String> {
        sleep(Duration::from_secs(1)).await;
        let changed = timeout(Duration::from_millis(1), self.cache.changed())
            .await
            .unwrap_or_default();
        changed
            .into_iter()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect()
    }

    fn pods(&self) -> Vec<String> {
        self.cache
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
    assert!(!world.cache.is_listed("ns"));
    assert!(world.changes().await.is_empty());
    let error = world.cache.observed.watches.last_error().unwrap();
    assert!(error.starts_with("PodDisruptionBudgets in ns: "), "{error}");
    assert!(world.cache.observed.watches.broken() > 0);

    world.api.refuse(BUDGETS, false);
    world.until(|world| world.cache.is_listed("ns")).await;
    assert_eq!(world.changes().await, ["ns/a", "ns/b"]);
    assert_eq!(world.cache.observed.watches.last_error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_recorded_once_for_the_statefulsets_that_it_affects() {
    let world = World::led().await;
    world.api.put(PODS, pod("a-0", "a", false));
    world.api.put(PODS, pod("a-0", "a", true));
    assert_eq!(world.changes().await, ["ns/a"]);
    world.api.put(PODS, pod("a-0", "a", true));
    assert!(world.changes().await.is_empty(), "nothing changed");
    world.api.delete(PODS, "a-0");
    assert_eq!(world.changes().await, ["ns/a"]);

    let mut map = managed("a-time-shards");
    world.api.put(MAPS, map.clone());
    assert_eq!(world.changes().await, ["ns/a"], "which reads it");
    map["data"] = json!({"a-0.yaml": "x"});
    world.api.put(MAPS, map);
    assert_eq!(world.changes().await, ["ns/a"]);
    world.api.put(MAPS, managed("c-time-shards"));
    assert!(world.changes().await.is_empty(), "no StatefulSet reads it");

    world.api.put(BUDGETS, named("someones"));
    assert_eq!(world.changes().await, ["ns/a", "ns/b"]);
    world.api.put(BUDGETS, named("someones"));
    assert!(
        world.changes().await.is_empty(),
        "another version of a user's PDB"
    );
    world.api.put(SERVICES, named("store"));
    assert_eq!(world.changes().await, ["ns/a", "ns/b"]);
    world.api.put(SETS, statefulset("a", "a-2"));
    assert_eq!(world.changes().await, ["ns/a"]);
    world.cache.touch("ns", "b");
    assert_eq!(world.changes().await, ["ns/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_caches_everything_and_begins_to_lead_with_it() {
    let mut world = World::start().watch().await;
    world.api.put(PODS, pod("a-0", "a", true));
    world.api.put(PODS, pod("a-1", "a", false));
    world
        .until(|world| world.cache.is_listed("ns") && world.pods().len() == 2)
        .await;
    sleep(Duration::from_mins(9)).await;
    assert!(
        world.changes().await.is_empty(),
        "a follower records no changes"
    );
    let requests = world.api.requests("");
    world.leads = Some(world.cache.lead());
    assert!(world.cache.is_listed("ns"), "the lists are complete");
    assert_eq!(
        world.changes().await,
        ["ns/a", "ns/b"],
        "every StatefulSet is reconciled"
    );
    assert!(
        world
            .cache
            .ready_for("uid-a-0", tokio::time::Instant::now())
            >= Some(Duration::from_mins(9))
    );
    assert_eq!(
        world.api.requests(""),
        requests,
        "leading lists nothing again"
    );
    world.api.put(PODS, pod("a-1", "a", true));
    assert_eq!(world.changes().await, ["ns/a"]);
    // It stops leading.
    world.api.put(PODS, pod("a-1", "a", false));
    world
        .until(|world| {
            world
                .cache
                .ready_for("uid-a-1", tokio::time::Instant::now())
                .is_none()
        })
        .await;
    world.leads = None;
    world.cache.touch("ns", "b");
    assert!(
        world.changes().await.is_empty(),
        "changes are left to the next leader"
    );
    assert_eq!(world.pods(), ["a-0", "a-1"]);
}

#[tokio::test(start_paused = true)]
async fn the_guard_of_every_replica_knows_which_pods_are_ready() {
    use crate::core::admission::guard::PodCondition::{Absent, NotReady, Ready, Terminating};
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
    let mut map = managed("a-time-shards");
    map["metadata"]["annotations"] = json!({names::SINGLE_HOLDERS: "{}"});
    world.api.put(MAPS, map);
    world.until(|world| world.api.requests("pods") > 2).await;
    assert_eq!(world.cache.pods("ns", "a"), None, "not listed");
    world.api.refuse(PODS, false);
    world.until(|world| world.cache.is_listed("ns")).await;
    let seen = world.cache.pods("ns", "a").unwrap();
    let conditions = ["a-0", "a-1", "a-2", "a-3", "a-4"].map(|pod| seen.condition(pod));
    assert_eq!(conditions, [Ready, NotReady, Terminating, Absent, Absent]);
    assert_eq!(seen.single_holders.as_deref(), Some("{}"));
    assert_eq!(
        (world.cache.pods("ns", "c"), world.cache.pods("other", "a")),
        (None, None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_never_leads_watches_only_pods() {
    let mut world = World::start();
    world.until(|world| world.cache.observed.is_synced()).await;
    world.api.put(PODS, pod("a-0", "a", true));
    world.tasks.spawn(follow(
        world.api.client(),
        world.cache.clone(),
        Purpose::Guard,
    ));
    world
        .until(|world| world.cache.pods("ns", "a").is_some())
        .await;
    assert_eq!(world.pods(), ["a-0"]);
    world.changes().await;
    assert_eq!(
        (
            world.api.requests("poddisruptionbudgets"),
            world.api.requests("/services")
        ),
        (0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn objects_deleted_while_a_watch_was_down_are_noticed() {
    let world = World::led().await;
    for n in 0..450 {
        world.api.put(PODS, pod(&format!("a-{n}"), "a", true));
    }
    world.until(|world| world.pods().len() == 450).await;
    world.changes().await;
    world.api.lose(PODS, "a-7");
    world.api.put(
        PODS,
        json!({"metadata": {"name": "job", "ownerReferences": []}}),
    );
    world.api.cut(PODS, true);
    world.until(|world| world.pods().len() == 449).await;
    assert_eq!(world.changes().await, ["ns/a"]);
    assert!(!world.pods().contains(&"a-7".to_owned()));
    assert_eq!(world.api.requests("continue=200"), 1, "lists come in pages");
    assert_eq!(world.api.requests("/pods?&limit=50&continue=400"), 1);
    assert!(world.cache.is_listed("ns"));

    // An API server that is away for ten minutes: what is known stays, and what changed meanwhile
    // is cache.
    world.api.refuse(PODS, true);
    world.api.cut(PODS, true);
    sleep(Duration::from_mins(10)).await;
    assert_eq!(world.pods().len(), 449);
    world.api.lose(PODS, "a-8");
    world.api.refuse(PODS, false);
    world.until(|world| world.pods().len() == 448).await;
    assert_eq!(world.changes().await, ["ns/a"]);
}

#[tokio::test(start_paused = true)]
async fn an_unlabelled_namespace_is_forgotten_and_a_labelled_one_is_watched() {
    let world = World::led().await;
    world.api.put(PODS, pod("a-0", "a", true));
    world.until(|world| world.pods() == ["a-0"]).await;
    assert!(
        world
            .cache
            .ready_for("uid-a-0", tokio::time::Instant::now())
            .is_some()
    );
    world.changes().await;
    world.api.delete(NAMESPACES, "ns");
    world.until(|world| world.pods().is_empty()).await;
    assert!(!world.cache.is_listed("ns"));
    assert_eq!(
        world
            .cache
            .ready_for("uid-a-0", tokio::time::Instant::now()),
        None
    );
    assert_eq!(
        world.changes().await,
        ["ns/a", "ns/b"],
        "their removal is a change"
    );
    world.api.put(NAMESPACES, named("ns"));
    world.until(|world| world.cache.is_listed("ns")).await;
    assert_eq!(world.pods(), ["a-0"]);
}

#[tokio::test(start_paused = true)]
async fn without_watches_the_cache_is_empty() {
    let mut world = World::led().await;
    world.api.put(PODS, pod("a-0", "a", true));
    world.until(|world| world.pods() == ["a-0"]).await;
    world.tasks.shutdown().await;
    assert!(world.pods().is_empty() && !world.cache.is_listed("ns"));
}

/// Whatever a tenant creates, its namespace takes bounded memory.
#[tokio::test(start_paused = true)]
async fn unneeded_objects_are_neither_read_nor_kept() {
    let world = World::start();
    let text = "<".repeat(400_000);
    for n in 0..40 {
        let mut map = managed(&format!("other-{n}"));
        map["data"] = json!({"x": text});
        map["metadata"]["annotations"] = json!({"x": text});
        world.api.put(MAPS, map);
        // Its ConfigMap is too large as well.
        let mut set = statefulset(&format!("large-{n}"), "x");
        set["metadata"]["annotations"] =
            json!({"thanos-timeshard.io/total-shards": "9000", "x": text});
        set["spec"]["replicas"] = json!(9_000);
        world.api.put(SETS, set);
    }
    let mut map = managed("large-0-time-shards");
    map["data"] = json!({"x": text.repeat(4)});
    world.api.put(MAPS, map);
    let mut set = statefulset("too-large", "x");
    set["metadata"]["annotations"] = json!({"thanos-timeshard.io/boundaries": text});
    world.api.put(SETS, set);
    let mut map = managed("a-time-shards");
    map["data"] = json!({"a-0.yaml": "shard: 0\nreplica: 0\nmin_time: -1d\nmax_time: 1d\n"});
    world.api.put(MAPS, map);
    let world = world.watch().await;
    world.until(|world| world.cache.is_listed("ns")).await;
    let observed = &world.cache.observed;
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
        .map(crate::core::gateways::Gateway::bytes)
        .sum();
    assert!(
        bytes <= crate::core::fairness::memory::MAX_NAMESPACE_BYTES,
        "{bytes}"
    );
    // It is stored as soon as it is small enough.
    world.api.put(SETS, statefulset("too-large", "y"));
    world
        .until(|world| {
            world
                .cache
                .observed
                .fleet
                .load()
                .get("ns", "too-large")
                .is_some()
        })
        .await;
}
