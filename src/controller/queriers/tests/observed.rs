//! What a reconcile gets.

use super::*;
use crate::controller::queriers::answer::KnownListing;
use crate::core::thanos::stores::StoresReader;

fn listed(poller: &QuerierPoller, answer: &str) -> KnownListing {
    let mut reader = StoresReader::default();
    reader.push(answer.as_bytes()).unwrap();
    let mut known = KnownStores::default();
    poller.cache.with("ns", |facts| known.add(facts));
    known.keep(reader.finish().unwrap()).unwrap()
}

fn answer(poller: &QuerierPoller, uid: &str, stores: &str) -> bool {
    let text = format!(r#"{{"status":"success","data":{stores}}}"#);
    let listed = listed(poller, &text);
    lock(&poller.state).record(uid, Ok(listed), Instant::now())
}

#[tokio::test(start_paused = true)]
async fn a_set_gets_the_stores_that_may_be_its_pods_and_since_when() {
    let (poller, _leading) = poller([querier(0, "10.1.0.1", 10902)]);
    assert_eq!(observed(&poller)[0].answer, QuerierAnswer::Pending);
    let stores_of_all = r#"{
        "store": [{"name": "10.0.0.1:10901", "lastError": null}, {"name": "10.0.0.2:10901", "lastError": "connection refused"},
                  {"name": "10.0.0.9:10901"}, {"name": "10.7.7.7:10901"}],
        "query": [{"name": "thanos:///dnssrv+_grpc._tcp.store.ns.svc"}, {"name": "other:10901"}, {"name": "other-1.x:10901"}, {"name": "store-1:10901"}, {"name": "secret.example.com:1"}]
    }"#;
    assert!(answer(&poller, "q0", stores_of_all));
    assert!(!answer(&poller, "q0", stores_of_all), "it is the same");
    sleep(Duration::from_secs(3)).await;
    let querier = &observed(&poller)[0];
    assert_eq!(
        stores(querier),
        [
            ("10.0.0.1:10901", None),
            ("10.0.0.2:10901", Some("connection refused")),
            ("store-1:10901", None),
            ("thanos:///dnssrv+_grpc._tcp.store.ns.svc", None),
            ("others", None),
        ]
    );
    assert_eq!(querier.answered_ago, Some(Duration::from_secs(3)));
    assert!(querier.expected && !querier.configured && querier.name == "ns/query-000");
    let kept = format!("{:?}", lock(&poller.state).answers);
    assert!(
        !kept.contains("secret") && !kept.contains("10.7.7.7"),
        "{kept}"
    );
}

#[tokio::test]
async fn queriers_that_ask_other_services_only_are_left_out() {
    let of = |n: usize, endpoints: &[&str], told: bool| QuerierFacts {
        endpoints: endpoints.iter().map(|&text| text.to_owned()).collect(),
        told,
        ..querier(n, "10.1.0.1", 10902)
    };
    let pending = QuerierFacts {
        ip: None,
        ..querier(4, "", 1)
    };
    let (poller, _leading) = poller([
        of(0, &["dns+store:10901"], true),
        of(1, &["dns+other:10901"], true),
        of(2, &["dns+other:10901"], false),
        of(3, &["10.0.0.1:10901"], true),
        pending,
    ]);
    let observed = observed(&poller);
    let seen: Vec<(&str, bool)> = observed
        .iter()
        .map(|one| (one.uid.as_str(), one.expected))
        .collect();
    assert_eq!(seen, [("q0", true), ("q2", false), ("q3", false)]);
}

#[tokio::test]
async fn queriers_that_are_not_asked_are_known_as_such() {
    let (poller, _leading) = poller((0..200).map(|n| querier(n, "10.1.0.1", 10902)));
    let all = observed(&poller);
    assert_eq!(all.len(), MAX_QUERIERS + 1);
    assert!(unknown(&all[MAX_QUERIERS]).starts_with("128 pods of the namespace run"));
    for n in 20..128 {
        poller.cache.remove_querier("ns", &format!("query-{n:03}"));
    }
    let all = observed(&poller);
    assert_eq!(all.len(), 21, "72 others were not kept");
    assert_eq!(all[20].name, "ns/query-128");
    assert!(unknown(&all[20]).contains("has not read it"), "{all:?}");
    for n in 128..200 {
        poller.cache.remove_querier("ns", &format!("query-{n:03}"));
    }
    assert_eq!(observed(&poller).len(), 20);
    poller.cache.put_querier("ns", "huge", Err(()));
    assert_eq!(observed(&poller)[20].name, "ns/huge");
    poller.cache.put_querier("ns", "huge", Ok(None));
    assert_eq!(observed(&poller).len(), 20);
}

#[tokio::test]
async fn configured_queriers_are_unknown_until_they_are_listed_and_asked() {
    let (poller, _leading) = poller([]);
    let item = |namespace: &str| ConfiguredQueriers {
        namespace: namespace.to_owned(),
        selector: "app=query".to_owned(),
        port: None,
        path: Some("/global".to_owned()),
    };
    let items = [item("a"), item("b"), item("c")];
    let observed = || {
        let facts = poller.cache.with("ns", Clone::clone);
        poller.observed(&set("ns"), &facts, &items, Instant::now())
    };
    let before = observed();
    assert!(
        before
            .iter()
            .all(|one| one.answer == QuerierAnswer::Pending)
    );
    assert_eq!(before[1].name, "b/app=query");
    poller.ask(&set("ns"), true);
    let elsewhere = QuerierFacts {
        endpoints: vec!["dns+store.ns.svc:10901".to_owned()],
        ..querier(7, "10.1.0.7", 10902)
    };
    let need = lock(&poller.state).need;
    poller.put_configured(&items[0], Ok(vec![elsewhere.clone()]), need);
    poller.put_configured(&items[1], Ok(Vec::new()), need);
    poller.put_configured(&items[2], Err("no right".to_owned()), need);
    poller.touch();
    assert_eq!(poller.cache.changed().await, [set("ns")]);
    let mut schedule = Schedule::default();
    poller.refresh(&mut schedule);
    let target = schedule.take(Instant::now()).unwrap();
    assert_eq!(
        (target.path.as_str(), target.configured),
        ("/global/api/v1/stores", true)
    );
    answer(&poller, "q7", r#"{"store":[{"name":"10.0.0.3:10901"}]}"#);
    let all = observed();
    assert_eq!(stores(&all[0]), [("10.0.0.3:10901", None)]);
    assert!(all[0].configured && all[0].expected && all[0].name == "a/query-007");
    assert!(unknown(&all[1]).contains("no pod has this label selector"));
    assert_eq!(unknown(&all[2]), "no right");
    // The next step lists them again; a list that was begun before does not count.
    poller.ask(&set("ns"), false);
    poller.ask(&set("ns"), true);
    poller.put_configured(&items[0], Ok(vec![elsewhere]), need);
    assert!(
        observed()
            .iter()
            .all(|one| one.answer == QuerierAnswer::Pending)
    );
}

#[tokio::test]
async fn one_pod_at_many_ports_is_no_list_of_stores() {
    let (poller, _leading) = poller([]);
    let mut known = KnownStores::default();
    poller.cache.with("ns", |facts| known.add(facts));
    let keep = |ports: std::ops::Range<u32>| {
        let stores: Vec<String> = ports
            .map(|port| format!(r#"{{"name":"10.0.0.1:{port}"}}"#))
            .collect();
        let mut reader = StoresReader::default();
        let text = format!(
            r#"{{"status":"success","data":{{"store":[{}]}}}}"#,
            stores.join(",")
        );
        reader.push(text.as_bytes()).unwrap();
        known.keep(reader.finish().unwrap())
    };
    assert_eq!(keep(10_901..10_909).unwrap().pods.len(), 8);
    let refusal = keep(1..1_000).unwrap_err();
    assert!(refusal.contains("ports of one pod"), "{refusal}");
}

#[tokio::test]
async fn queriers_that_cannot_be_asked_say_why() {
    let with = |n: usize, change: fn(&mut QuerierFacts)| {
        let mut querier = querier(n, "10.1.0.1", 10902);
        change(&mut querier);
        querier
    };
    let (poller, _leading) = poller([
        with(0, |one| one.http_config = true),
        with(1, |one| one.port = None),
        with(2, |one| one.prefix = None),
        with(3, |one| one.ip = Some("169.254.169.254".to_owned())),
        with(4, |one| one.ip = Some("localhost\nx".to_owned())),
    ]);
    poller.ask(&set("ns"), true);
    let mut schedule = Schedule::default();
    poller.refresh(&mut schedule);
    assert_eq!(schedule.take(Instant::now()), None);
    let all = observed(&poller);
    for (querier, part) in all.iter().zip([
        "--http.config",
        "--http-address has no number",
        "--web.route-prefix is not a plain path",
        "not an address of a pod but a link-local address",
        "is not an IP address",
    ]) {
        assert!(unknown(querier).contains(part), "{querier:?}");
        assert!(!unknown(querier).contains('\n'));
    }
}

#[test]
fn long_answers_have_long_pauses() {
    let mib = 1024 * 1024;
    assert_eq!(pause_after(2_000, 4), Duration::from_millis(1));
    assert_eq!(pause_after(5 * mib, 4), Duration::from_secs(5));
    assert!(pause_after(8 * mib, 32) > MAX_PAUSE);
    assert_eq!(
        too_long(8 * mib, 32),
        "its list takes 8192 KiB, and those of 32 queriers of one namespace may take 20 MiB"
    );
    assert!(pause_after(usize::MAX, usize::MAX) > MAX_PAUSE);
}
