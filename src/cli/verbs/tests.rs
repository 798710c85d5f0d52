//! The verbs before an API server that records what is written.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::adapters::kube::user_client::ClusterClient;
use crate::testing::api_server::{self, Sent};

const CONFIG: &str = "sharding: {total_shards: 3, replicas_per_shard: 2, retention: 370d}";
const SETS: &str = "/apis/apps/v1/namespaces/monitoring/statefulsets";

fn parsed<A: clap::Args>(args: &str) -> A {
    let command = A::augment_args(clap::Command::new("verb"));
    let matches = command.try_get_matches_from(args.split(' ')).unwrap();
    A::from_arg_matches(&matches).unwrap()
}

/// A cluster with StatefulSet monitoring/store of 6 pods. Its reports are given one after the other,
/// the last one for ever.
struct FakeCluster {
    cluster: ClusterClient,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl FakeCluster {
    fn new(annotations: &Value, reports: Vec<Value>, patched: (u16, Value)) -> Self {
        let reports = Arc::new(Mutex::new(reports));
        let annotations = annotations.clone();
        Self::answering(move |request, _| answer(request, &annotations, &reports, &patched))
    }

    /// `answer` also gets the number of patches before the request.
    fn answering(
        answer: impl Fn(&Sent, usize) -> (u16, Value) + Clone + Send + Sync + 'static,
    ) -> Self {
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let log = sent.clone();
        let client = api_server::client("monitoring", move |request: Sent| {
            let mut log = log.lock().unwrap();
            let patches = log.iter().filter(|one| one.method == hyper::Method::PATCH);
            let answer = answer(&request, patches.count());
            log.push(request);
            async move { answer }
        });
        let cluster = ClusterClient {
            client,
            url: "https://test:6443".to_owned(),
            context: Some("test".to_owned()),
            namespace: "monitoring".to_owned(),
            deadline: Duration::from_secs(10),
        };
        Self { cluster, sent }
    }

    fn with(annotations: &Value) -> Self {
        Self::new(annotations, Vec::new(), (200, json!({})))
    }

    /// The written requests: path with query, media type, body.
    fn written(&self) -> Vec<(String, String, Value)> {
        let sent = self.sent.lock().unwrap();
        let written = sent.iter().filter(|one| one.method != hyper::Method::GET);
        written
            .map(|one| (one.line(), one.media.clone(), one.body.clone()))
            .collect()
    }

    async fn target(&self, verb: &VerbArgs, name: &str) -> Result<target::ChangeTarget, Failure> {
        let given = verb.given_config()?;
        target::read(verb, given, &self.cluster, "monitoring", name).await
    }

    async fn reshard(&self, args: &str) -> Result<(), Failure> {
        let args: ReshardArgs = parsed(&format!("reshard store {args}"));
        reshard::check_changes(&args)?;
        let target = self.target(&args.verb, "store").await?;
        reshard::carry_out(&args, &self.cluster, &target).await
    }

    async fn scale_down(&self, args: &str) -> Result<(), Failure> {
        let args: ScaleDownArgs = parsed(&format!("scale-down store {args}"));
        let target = self.target(&args.verb, "store").await?;
        scale_down::carry_out(&args, &self.cluster, &target).await
    }

    async fn pause(&self, value: Option<&str>, flags: &str) -> Result<(), Failure> {
        let args: PauseArgs = parsed(format!("pause store {flags}").trim_end());
        let target = self.target(&args.verb, "store").await?;
        pause::carry_out(&args.verb, &self.cluster, &target, value).await
    }
}

fn answer(
    request: &Sent,
    annotations: &Value,
    reports: &Mutex<Vec<Value>>,
    patched: &(u16, Value),
) -> (u16, Value) {
    let path = request.uri.path();
    if request.method == hyper::Method::PATCH {
        return patched.clone();
    }
    let container = json!({"name": "t", "image": "thanos", "args": ["store"]});
    let store = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "store", "namespace": "monitoring", "resourceVersion": "7", "annotations": annotations},
        "spec": {"replicas": 6, "template": {"spec": {"containers": [container]}}}});
    let answer = match path {
        "/api/v1/namespaces/monitoring" => {
            json!({"metadata": {"labels": {"thanos-timeshard.io/injection": "enabled"}}})
        }
        "/apis/apps/v1/namespaces/timeshard-system/deployments" => json!({"items": []}),
        "/api/v1/namespaces/timeshard-system/configmaps/timeshard-config" => {
            json!({"metadata": {"name": "timeshard-config"}, "data": {"config.yaml": CONFIG}})
        }
        SETS => json!({"items": [{"metadata": {"name": "store"}}]}),
        path if path == format!("{SETS}/store") => store,
        path if path.contains("/leases/") => {
            json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "timeshard-a"}})
        }
        path if path.ends_with("/proxy/status") => {
            let mut reports = reports.lock().unwrap();
            let next = if reports.len() > 1 {
                reports.remove(0)
            } else {
                reports[0].clone()
            };
            json!({"version": "0.1.0", "synced": true, "statefulsets": [next]})
        }
        _ => return api_server::status(404, "NotFound", "not found"),
    };
    (200, answer)
}

fn report(state: &str, needed: u32) -> Value {
    let window = json!({"min_time": "-1d", "max_time": "0s"});
    let pod = |i: u32| {
        json!({"pod": format!("store-{i}"), "ordinal": i, "shard": 0, "replica": i, "surplus": i >= needed,
            "desired": window, "published": window, "applied": window, "verified": true, "state": "confirmed",
            "phase": "serving", "seconds_in_state": 1, "restarts": 0, "agent_version": "0.1.0", "why": null})
    };
    let pods: Vec<Value> = (0..6).map(pod).collect();
    json!({"namespace": "monitoring", "name": "store", "configmap": "c", "replicas": 6, "state": state, "message": "m",
        "moves_left": 0, "steps_left": 0, "eta_seconds": 0, "gaps": [], "gap_seconds": 0,
        "minimum_ready_replicas": 2, "warnings": [], "pods": pods})
}

fn patch(query: &str, annotations: &Value) -> (String, String, Value) {
    (
        format!("PATCH {SETS}/store?fieldManager=timeshard-cli{query}"),
        "application/merge-patch+json".to_owned(),
        json!({"metadata": {"resourceVersion": "7", "annotations": annotations}}),
    )
}

#[tokio::test]
async fn reshard_writes_only_annotations() {
    let shards = json!({"thanos-timeshard.io/total-shards": "2"});
    for (present, args, written) in [
        (json!({}), "total-shards=2 --dry-run=client", vec![]),
        (
            json!({}),
            "total-shards=2 --dry-run",
            vec![patch("&dryRun=All", &shards)],
        ),
        (
            json!({}),
            "total-shards=2 -o json",
            vec![patch("", &shards)],
        ),
        // Already so.
        (shards.clone(), "total-shards=2", vec![]),
        (
            json!({"thanos-timeshard.io/total_shards": "3"}),
            "total-shards=2",
            vec![patch(
                "",
                &json!({"thanos-timeshard.io/total-shards": "2", "thanos-timeshard.io/total_shards": null}),
            )],
        ),
        (
            shards.clone(),
            "total_shards- overlap=2d -o wide",
            vec![patch(
                "",
                &json!({"thanos-timeshard.io/total-shards": null, "thanos-timeshard.io/overlap": "2d"}),
            )],
        ),
    ] {
        let fake = FakeCluster::with(&present);
        fake.reshard(args).await.unwrap();
        assert_eq!(fake.written(), written, "{args}");
    }
}

#[tokio::test]
async fn what_the_server_would_refuse_is_not_written() {
    for (args, words) in [
        (
            "total-shards=0",
            "StatefulSet store is not changed: annotation thanos-timeshard.io/total-shards:1:1: total_shards: 0",
        ),
        ("retention=forever", "retention: forever cannot be split"),
        ("overlap=1m", "overlap"),
        ("overlap=1d overlap=2d", "overlap: it is given twice"),
    ] {
        let fake = FakeCluster::with(&json!({}));
        let failure = fake.reshard(args).await.unwrap_err();
        assert!(matches!(failure, Failure::Invalid(_)), "{failure}");
        assert!(failure.to_string().contains(words), "{args}: {failure}");
        assert_eq!(fake.written(), [], "{args}");
    }
}

#[tokio::test]
async fn pause_and_resume_also_work_with_annotations_that_are_refused() {
    let broken = json!({"thanos-timeshard.io/total-shards": "many"});
    let paused = json!({"thanos-timeshard.io/pause": "true"});
    let none = json!({"thanos-timeshard.io/pause": null});
    for (present, value, flags, written) in [
        (broken, Some("true"), "", vec![patch("", &paused)]),
        (paused.clone(), Some("true"), "", vec![]),
        (paused.clone(), None, "-o yaml", vec![patch("", &none)]),
        (
            paused.clone(),
            None,
            "--dry-run=server",
            vec![patch("&dryRun=All", &none)],
        ),
        (json!({}), None, "", vec![]),
    ] {
        let fake = FakeCluster::with(&present);
        fake.pause(value, flags).await.unwrap();
        assert_eq!(fake.written(), written, "{present} {value:?}");
    }
}

/// The StatefulSet controller writes the status a moment after a scale-up.
#[tokio::test]
async fn a_conflict_with_a_change_of_the_status_alone_is_tried_again() {
    for (spec_changes, written, ends) in [(false, 3, true), (true, 1, false)] {
        let none = Arc::new(Mutex::new(Vec::new()));
        let fake = FakeCluster::answering(move |request, patches| {
            let conflict = api_server::status(409, "Conflict", "the object has been modified");
            let patched = if patches < 2 {
                conflict
            } else {
                (200, json!({}))
            };
            let (code, mut body) = answer(request, &json!({}), &none, &patched);
            if request.method == hyper::Method::GET && body["kind"] == "StatefulSet" {
                body["metadata"]["resourceVersion"] = json!(format!("{}", 7 + patches));
                let changes = usize::from(spec_changes) * patches;
                body["metadata"]["generation"] = json!(1 + changes);
            }
            (code, body)
        });
        let done = fake.reshard("total-shards=2").await;
        assert_eq!(done.is_ok(), ends, "{done:?}");
        let versions: Vec<Value> = fake
            .written()
            .into_iter()
            .map(|(_, _, body)| body["metadata"]["resourceVersion"].clone())
            .collect();
        let expected: Vec<String> = (7..7 + written)
            .map(|version| version.to_string())
            .collect();
        assert_eq!(versions, expected);
    }
}

#[tokio::test]
async fn refusals_of_the_api_server_name_the_cluster() {
    for (answer, words) in [
        (
            api_server::status(409, "Conflict", "the object has been modified"),
            "patch statefulset store in namespace monitoring: it was changed by another client meanwhile; run the command again",
        ),
        (
            api_server::status(
                403,
                "Forbidden",
                "User \"jane\" cannot patch resource \"statefulsets\"",
            ),
            "User \"jane\" cannot patch resource \"statefulsets\" (403 Forbidden)",
        ),
    ] {
        let fake = FakeCluster::new(&json!({}), Vec::new(), answer);
        let failure = fake
            .reshard("total-shards=2")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            failure.starts_with("https://test:6443 (context test): ") && failure.contains(words),
            "{failure}"
        );
        assert_eq!(failure.lines().count(), 1);
    }
    let fake = FakeCluster::with(&json!({}));
    let args: PauseArgs = parsed("pause stor");
    let failure = fake
        .target(&args.verb, "stor")
        .await
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        failure,
        "https://test:6443 (context test): no StatefulSet stor in namespace monitoring; did you mean store?"
    );
}

#[tokio::test(start_paused = true)]
async fn scale_down_waits_until_the_pods_are_not_needed() {
    let target = |n: &str| patch("", &json!({"thanos-timeshard.io/target-replicas": n}));
    let scaled = (
        format!("PATCH {SETS}/store/scale?fieldManager=timeshard-cli"),
        "application/merge-patch+json".to_owned(),
        json!({"spec": {"replicas": 4}}),
    );
    // "settled" before the leader has observed the annotation is not the end.
    let reports = || {
        vec![
            report("settled", 6),
            report("rolling", 4),
            report("settled", 4),
        ]
    };
    for (args, written) in [
        ("--to 4", vec![target("4")]),
        ("--to 4 --scale", vec![target("4"), scaled]),
    ] {
        let fake = FakeCluster::new(&json!({}), reports(), (200, json!({})));
        fake.scale_down(args).await.unwrap();
        assert_eq!(fake.written(), written, "{args}");
        let sent = fake.sent.lock().unwrap();
        let asked = sent
            .iter()
            .filter(|one| one.uri.path().ends_with("/proxy/status"));
        assert_eq!(asked.count(), 3, "{args}");
    }
    let never = || FakeCluster::new(&json!({}), vec![report("rolling", 4)], (200, json!({})));
    let failure = never().scale_down("--to 4 --timeout 1m").await.unwrap_err();
    assert!(
        failure.to_string().contains("not safe yet after 1m"),
        "{failure}"
    );
    let blocked = FakeCluster::new(&json!({}), vec![report("blocked", 4)], (200, json!({})));
    let failure = blocked.scale_down("--to 4 --scale").await.unwrap_err();
    assert!(matches!(failure, Failure::Found(_)), "{failure}");
    assert_eq!(blocked.written(), [target("4")], "no scaling");
}

#[tokio::test]
async fn scale_down_is_for_fewer_pods() {
    for (to, words) in [
        (
            "6",
            "--to 6: StatefulSet monitoring/store has 6 pods; nothing is to be scaled down",
        ),
        ("8", "scale up with kubectl scale first"),
    ] {
        let fake = FakeCluster::with(&json!({}));
        let failure = fake.scale_down(&format!("--to {to}")).await.unwrap_err();
        assert!(failure.to_string().contains(words), "{failure}");
        assert_eq!(fake.written(), []);
    }
    let fake = FakeCluster::with(&json!({"thanos-timeshard.io/target-replicas": "4"}));
    fake.scale_down("--cancel").await.unwrap();
    assert_eq!(
        fake.written(),
        [patch(
            "",
            &json!({"thanos-timeshard.io/target-replicas": null})
        )]
    );
}
