//! Queriers, and whether discovery fits the periods.

use serde_json::json;

use super::super::objects::ConfigText;
use super::super::periods::termination_drain;
use super::super::{CheckOutcome, DnsFacts, Snapshot, ids, run};
use super::finds;
use super::fixture::{COREFILE, forbidden, healthy, querier, read, statefulset};
use crate::core::model::duration::PromDuration;

#[test]
fn queriers() {
    const DNSSRV: &str = "--endpoint=dnssrv+_grpc._tcp.store.monitoring.svc.cluster.local";
    let asks = |args: &'static [&'static str]| {
        move |s: &mut Snapshot| s.workloads = Ok(read(json!([querier(args)])))
    };
    finds(
        &[
            "fail querier-interval: every 2m",
            "warn discovery-periods: within 2m39s",
        ],
        asks(&["query", DNSSRV, "--store.sd-dns-interval=2m"]),
    );
    finds(
        &["warn querier-interval: cannot be compared"],
        asks(&["query", DNSSRV, "--store.sd-dns-interval=$(X)"]),
    );
    finds(
        &["fail querier-endpoints: own address"],
        asks(&["query", "--endpoint=store-0.store.monitoring.svc:10901"]),
    );
    finds(
        &["fail querier-endpoints: gRPC looks the name up once"],
        asks(&["query", "--store", "store:10901"]),
    );
    finds(&[], asks(&["query", "--endpoint=dns+store:10901"]));
    finds(
        &[],
        asks(&["query", "--endpoint=dns+other.elsewhere.svc:10901"]),
    );
    finds(
        &["fail querier-endpoints: gRPC looks the name up once"],
        |s| {
            s.workloads = Ok(Vec::new());
            let mut as_set = statefulset();
            as_set["metadata"]["name"] = json!("query");
            as_set["spec"]["template"]["spec"]["containers"][0]["args"] =
                json!(["query", "--endpoint=store.monitoring:10901"]);
            s.statefulsets.as_mut().unwrap().push(as_set);
        },
    );
}

#[test]
fn queriers_that_a_complete_set_relies_on() {
    const ASKS: &str = "--endpoint=dnssrv+_grpc._tcp.store.monitoring.svc.cluster.local";
    const ALL: &str = "sharding: {queriers_complete: true}";
    const ITEM: &str = "sharding: {queriers_complete: true}\nqueriers: [{namespace: thanos, selector: app=query, port: 9090}]";
    let with = |text: &'static str, namespace: &'static str, args: &'static [&'static str]| {
        move |s: &mut Snapshot| {
            let mut querier = querier(args);
            querier["metadata"]["namespace"] = json!(namespace);
            s.workloads = Ok(read(json!([querier])));
            config(text)(s);
        }
    };
    finds(&[], with(ALL, "monitoring", &["query", ASKS]));
    finds(&[], with("sharding: {}", "thanos", &["query", ASKS]));
    finds(
        &["fail querier-asked: in another namespace and is not asked"],
        with(ALL, "thanos", &["query", ASKS]),
    );
    finds(
        &[],
        with(ITEM, "thanos", &["query", ASKS, "--http-address=:$(X)"]),
    );
    finds(
        &["warn querier-asked: no number as port"],
        with(ALL, "monitoring", &["query", ASKS, "--http-address=:$(X)"]),
    );
    finds(
        &["warn querier-asked: --http.config"],
        with(
            ITEM,
            "thanos",
            &["query", ASKS, "--http.config=/etc/web.yaml"],
        ),
    );
    finds(
        &["warn querier-asked: not a plain path"],
        with(
            ALL,
            "monitoring",
            &["query", ASKS, "--web.route-prefix=/a?b"],
        ),
    );
}

fn config(text: &'static str) -> impl Fn(&mut Snapshot) {
    move |s: &mut Snapshot| {
        s.config = Ok(Some(ConfigText {
            text: text.to_owned(),
            of_server: true,
            ..ConfigText::default()
        }));
    }
}

/// What to do about periods that are too short.
fn hint(change: impl Fn(&mut Snapshot)) -> String {
    let mut snapshot = healthy();
    change(&mut snapshot);
    let report = run(&snapshot);
    report
        .findings
        .iter()
        .find(|one| one.check == &ids::DISCOVERY_PERIODS && one.result == CheckOutcome::Warn)
        .unwrap()
        .hint
        .clone()
}

#[test]
fn periods_are_compared_with_what_discovery_takes() {
    const PARTS: &str = "within 1m9s (readiness 3s, EndpointSlice 1s, DNS cache 30s from the Corefile, querier's interval 30s, its update 5s), but ";
    finds(
        &[&format!(
            "warn discovery-periods: {PARTS}drain is 1m, termination_drain is 45s, discovery_delay is 1m: queries"
        )],
        config("sharding: {drain: 60s, termination_drain: 45s, discovery_delay: 60s}"),
    );
    finds(
        &[],
        config("sharding: {drain: 69s, termination_drain: 69s, discovery_delay: 69s}"),
    );
    finds(
        &["warn config-sound: termination_drain is 0s"],
        config("sharding: {termination_drain: 0s}"),
    );
    assert_eq!(
        hint(config("sharding: {drain: 60s}")),
        "set drain to at least 1m30s"
    );
    // Of a StatefulSet that is annotated.
    finds(
        &["warn discovery-periods: but termination_drain is 40s"],
        |s| {
            let sets = s.statefulsets.as_mut().unwrap();
            sets[0]["metadata"]["annotations"] =
                json!({"thanos-timeshard.io/termination-drain": "40s"});
        },
    );
}

#[test]
fn a_controller_that_replaces_pods_before_queriers_know_the_one_before() {
    for (seconds, found) in [
        (
            0,
            &[
                "warn discovery-periods: minReadySeconds is 0: during a rolling restart, strict queries are incomplete",
            ][..],
        ),
        (35, &["warn discovery-periods: minReadySeconds is 35"]),
        (36, &[]),
    ] {
        finds(found, |s| {
            s.statefulsets.as_mut().unwrap()[0]["spec"]["minReadySeconds"] = json!(seconds);
        });
    }
    finds(&[], |s| {
        s.statefulsets.as_mut().unwrap()[0]["spec"]["minReadySeconds"] = json!(0);
        s.dns.given = Some(PromDuration::ZERO);
    });
}

#[test]
fn pods_with_an_earlier_termination_drain_are_named() {
    let earlier = |s: &mut Snapshot| {
        let drains = &mut s.spaces.get_mut("monitoring").unwrap().termination_drains;
        drains.extend([
            ("store-1".to_owned(), PromDuration::from_secs(45)),
            ("other-0".to_owned(), PromDuration::ZERO),
        ]);
    };
    finds(
        &["warn discovery-periods: keep it until they are replaced: store-1 (45s)"],
        earlier,
    );
    assert!(hint(earlier).contains("operations.md#pods-with-an-earlier-termination-drain"));
    finds(
        &["warn api-permissions: list pods in namespace monitoring"],
        |s| {
            s.spaces.get_mut("monitoring").unwrap().pods =
                forbidden("list pods in namespace monitoring");
        },
    );
}

#[test]
fn what_dns_remembers_is_read_told_or_assumed() {
    let with = |change: &dyn Fn(&mut DnsFacts)| {
        let mut snapshot = healthy();
        change(&mut snapshot.dns);
        snapshot.workloads = Ok(Vec::new());
        let report = run(&snapshot);
        report
            .findings
            .iter()
            .find(|one| one.check == &ids::DISCOVERY_PERIODS)
            .unwrap()
            .message
            .clone()
    };
    let has = |change: &dyn Fn(&mut DnsFacts), part: &str| {
        let message = with(change);
        assert!(message.contains(part), "{part:?} is not in {message}");
    };
    has(
        &|_| (),
        "DNS cache 30s from the Corefile, querier's interval 30s (assumed)",
    );
    has(
        &|dns| dns.given = Some(PromDuration::ZERO),
        "within 39s (readiness 3s, EndpointSlice 1s, DNS cache 0s set by --dns-cache",
    );
    has(
        &|dns| dns.corefile = Ok(None),
        "DNS cache 30s assumed: there is no ConfigMap coredns in namespace kube-system; --dns-cache sets it",
    );
    has(
        &|dns| dns.corefile = forbidden("get configmap coredns"),
        "DNS cache 30s assumed: could not get configmap coredns;",
    );
    has(
        &|dns| dns.corefile = Ok(Some("}".to_owned())),
        "DNS cache 30s assumed: the Corefile cannot be parsed: line 1: ",
    );
    let uncached = COREFILE.replace("cache 30", "cache 30 {\n disable success cluster.local\n }");
    has(
        &|dns| dns.corefile = Ok(Some(uncached.clone())),
        "within 39s",
    );
    let with_node = |dns: &mut DnsFacts| {
        (dns.corefile, dns.node_local) = (Ok(Some(uncached.clone())), Ok(true));
    };
    has(
        &with_node,
        "DNS cache 30s from the Corefile and NodeLocal DNSCache",
    );
    let unknown_node = |dns: &mut DnsFacts| {
        (dns.corefile, dns.node_local) = (Ok(Some(uncached.clone())), forbidden("get daemonset"));
    };
    has(
        &unknown_node,
        "DNS cache 30s assumed: could not get daemonset;",
    );
    let stale = COREFILE.replace("cache 30", "cache 30 {\n serve_stale\n }");
    has(
        &|dns| dns.corefile = Ok(Some(stale.clone())),
        "within 1m39s",
    );
}

#[test]
fn a_launcher_says_its_termination_drain() {
    let of = |command: &str| {
        let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
        termination_drain([&["sidecar".to_owned()], command.as_slice()])
    };
    let launch = "/run/timeshard/timeshard-agent launch --shared-dir=/run/timeshard";
    assert_eq!(
        of(&format!(
            "{launch} --termination-drain=1m30s -- thanos store"
        )),
        Some(PromDuration::from_secs(90))
    );
    assert_eq!(
        of(&format!("{launch} -- thanos store --termination-drain=5s")),
        Some(PromDuration::ZERO)
    );
    assert_eq!(of("thanos store --termination-drain=5s"), None);
}
