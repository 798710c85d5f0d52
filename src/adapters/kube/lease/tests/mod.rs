//! Candidates with a stand-in for the API server, in paused time; and once, by hand, with a real
//! one.

use hyper::Method;
use serde_json::json;
use tokio::time::sleep;

use super::*;
use crate::adapters::signals;
use server::{Mode, Running, Service};

mod server;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn the_lease_is_created_and_renewed() {
    let server = Service::new();
    let mut one = server.candidate("one");
    assert!(!one.leads());
    one.leading().await;
    assert!(one.leadership.remaining().unwrap() <= election::RENEW_DEADLINE);
    let made = server.lease();
    assert_eq!(
        (
            &made["spec"]["holderIdentity"],
            &made["spec"]["leaseDurationSeconds"]
        ),
        (&json!("one"), &json!(10))
    );
    assert_eq!(
        (&made["spec"]["leaseTransitions"], &made["metadata"]["name"]),
        (&json!(0), &json!(names::LEASE))
    );
    assert_eq!(
        made["metadata"]["labels"][names::MANAGED_BY_LABEL],
        names::MANAGED_BY
    );

    server.edit(|lease| lease["metadata"]["annotations"] = json!({"someone": "else's"}));
    for _ in 0..600 {
        sleep(SECOND / 10).await;
        assert!(
            one.leadership
                .remaining()
                .is_some_and(|left| left > 4 * SECOND),
            "a minute without a gap"
        );
    }
    let renewed = server.lease();
    assert_eq!(renewed["spec"]["acquireTime"], made["spec"]["acquireTime"]);
    assert_ne!(renewed["spec"]["renewTime"], made["spec"]["renewTime"]);
    assert_eq!(
        renewed["metadata"]["annotations"]["someone"], "else's",
        "fields of other clients are kept"
    );
    assert_eq!(one.leadership.holder().as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    let (two, three) = (server.candidate("two"), server.candidate("three"));
    sleep(21 * SECOND).await;
    assert!(!two.leads() && !three.leads());
    assert_eq!(
        (
            two.leadership.holder().as_deref(),
            two.leadership.transitions()
        ),
        (Some("one"), 0)
    );

    let last = one.leadership.remaining().unwrap();
    one.task.abort();
    let began = Instant::now();
    one.leadership.changed().await;
    assert!(!one.leads() && began.elapsed() <= last);
    while !two.leads() && !three.leads() {
        sleep(SECOND / 100).await;
    }
    assert!(
        began.elapsed() > 7 * SECOND && began.elapsed() < 13 * SECOND,
        "{:?}",
        began.elapsed()
    );
    sleep(30 * SECOND).await;
    assert!(two.leads() != three.leads(), "one of them");
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_releases_the_lease() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    let mut two = server.candidate("two");
    sleep(5 * SECOND).await;
    one.trigger.signal();
    let began = Instant::now();
    assert_eq!(
        one.change(SECOND).await,
        (false, Duration::ZERO),
        "no write begins after the signal"
    );
    one.task.await.unwrap();
    assert!(
        began.elapsed() >= election::WRITE && began.elapsed() < election::WRITE + SECOND,
        "{:?}",
        began.elapsed()
    );
    let spec = server.lease()["spec"].clone();
    assert_eq!(
        (
            &spec["holderIdentity"],
            &spec["leaseDurationSeconds"],
            &spec["leaseTransitions"]
        ),
        (&json!(""), &json!(1), &json!(0))
    );
    two.leading().await;
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
    assert_eq!(
        (
            server.lease()["spec"]["leaseDurationSeconds"].clone(),
            two.leadership.transitions()
        ),
        (json!(10), 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_stops_immediately_and_a_second_signal_stops_everything() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    let two = server.candidate("two");
    sleep(3 * SECOND).await;
    let began = Instant::now();
    two.trigger.signal();
    two.task.await.unwrap();
    assert!(began.elapsed() < SECOND / 10, "{:?}", began.elapsed());

    one.trigger.signal();
    one.trigger.signal();
    one.task.await.unwrap();
    assert!(began.elapsed() < SECOND / 10 && one.leadership.remaining().is_none());
    assert_eq!(
        server.lease()["spec"]["holderIdentity"],
        "one",
        "the last write was not waited for"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_finds_another_holder_stops() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    server.edit(|lease| lease["spec"]["holderIdentity"] = json!("thief"));
    let (leads, after) = one.change(4 * SECOND).await;
    assert!(
        !leads && after <= election::RETRY + SECOND / 10,
        "{after:?}"
    );
    assert_eq!(one.leadership.holder().as_deref(), Some("thief"));
    let (leads, after) = one.change(15 * SECOND).await;
    assert!(
        leads && after >= election::LEASE,
        "{after:?}: a lease that is not renewed is taken"
    );
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_leading_ends_in_time_and_resumes() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    sleep(20 * SECOND).await;
    for mode in [Mode::Broken, Mode::Hangs, Mode::Forbids] {
        let failures = one.leadership.failures();
        let left = one.leadership.remaining().unwrap();
        server.set(mode);
        let (leads, after) = one.change(8 * SECOND).await;
        assert!(
            !leads && after <= left + SECOND / 100,
            "{mode:?}: {after:?} of {left:?}"
        );
        sleep(20 * SECOND).await;
        assert!(
            one.leadership.failures() > failures && one.leadership.last_error().is_some(),
            "{mode:?}"
        );
        server.set(Mode::Up);
        let (leads, after) = one.change(5 * SECOND).await;
        assert!(leads, "{mode:?}: {after:?}");
        assert_eq!(
            (one.leadership.last_error(), one.leadership.transitions()),
            (None, 0),
            "{mode:?}: no candidate took it"
        );
        sleep(5 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_failed_request_ends_nothing() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    for mode in [Mode::Hangs, Mode::LosesAnswers, Mode::Broken] {
        let before = server.0.lock().unwrap().version;
        server.set(mode);
        sleep(election::RETRY + SECOND).await;
        server.set(Mode::Up);
        for _ in 0..100 {
            sleep(SECOND / 10).await;
            assert!(one.leads(), "{mode:?}");
        }
        assert!(
            server.0.lock().unwrap().version > before + 2,
            "{mode:?}: renewed again"
        );
    }
    assert!(
        timeout(SECOND, one.leadership.changed()).await.is_err(),
        "one term"
    );
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_recreated_by_its_holder() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    let two = server.candidate("two");
    sleep(5 * SECOND).await;
    let before = server.lease();
    server.0.lock().unwrap().lease = None;
    for _ in 0..300 {
        sleep(SECOND / 10).await;
        assert!(one.leads() && !two.leads());
    }
    assert_eq!(server.lease()["spec"]["holderIdentity"], "one");
    assert_eq!(
        server.lease()["spec"]["acquireTime"],
        before["spec"]["acquireTime"]
    );
}

#[tokio::test(start_paused = true)]
async fn requests_are_few() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    let _two = server.candidate("two");
    sleep(SECOND).await;
    server.0.lock().unwrap().log.clear();
    sleep(60 * SECOND).await;
    let log = server.0.lock().unwrap().log.clone();
    let count = |method: Method| {
        log.iter()
            .filter(|(m, code)| *m == method && *code == 200)
            .count()
    };
    assert_eq!(
        count(Method::PUT) + count(Method::GET),
        log.len(),
        "nothing fails: {log:?}"
    );
    assert!(
        count(Method::PUT) <= 31 && count(Method::GET) <= 30,
        "one each in two seconds: {log:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_unconditional_leader_always_leads() {
    let mut always = Leadership::always();
    assert_eq!(always.remaining(), Some(election::RENEW_DEADLINE));
    always.changed().await;
    assert!(
        timeout(60 * SECOND, always.changed()).await.is_err(),
        "nothing changes after that"
    );
    assert!(always.remaining().is_some());
}

#[tokio::test(start_paused = true)]
async fn metrics_show_the_leader() {
    let server = Service::new();
    let mut one = server.candidate("one");
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(LeadershipMetrics(one.leadership.clone())));
    let text = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    assert!(text().contains("timeshard_leader 0\n"));
    one.leading().await;
    server.set(Mode::Broken);
    sleep(3 * SECOND).await;
    for line in [
        "timeshard_leader 1\n",
        "timeshard_leader_transitions_total 0\n",
        "timeshard_lease_renew_failures_total 1\n",
    ] {
        assert!(text().contains(line), "{line}: {}", text());
    }
}

#[test]
fn a_process_without_a_pod_has_a_unique_name() {
    let pod = LeaseSettings::of_pod(
        Some("timeshard-1".to_owned()),
        Some("monitoring".to_owned()),
    );
    assert_eq!(
        (pod.identity.as_str(), pod.namespace.as_deref()),
        ("timeshard-1", Some("monitoring"))
    );
    assert!(pod.jitter <= election::MAX_JITTER);
    let (one, two) = (
        LeaseSettings::of_pod(None, None),
        LeaseSettings::of_pod(Some(String::new()), Some(String::new())),
    );
    assert!(one.identity != two.identity && one.namespace.is_none() && two.namespace.is_none());
}

#[test]
fn times_survive_json() {
    let time = DateTime::from_timestamp_micros(1_795_000_000_000_100).unwrap();
    let record = LeaseRecord {
        holder: "one".to_owned(),
        lease_seconds: 10,
        acquired: Some(time),
        renewed: None,
        transitions: 7,
    };
    let text = serde_json::to_string(&written(None, record.clone(), Some("5".to_owned()))).unwrap();
    let read = stored(&serde_json::from_str(&text).unwrap());
    assert_eq!((read.record, read.version.as_str()), (record, "5"));
}

/// `KUBECONFIG=… cargo test --lib a_real_api_server -- --ignored --nocapture`
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_real_api_server_agrees() {
    let client = crate::adapters::kube::cluster::connect().await.unwrap();
    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let _ = leases
        .delete(names::LEASE, &kube::api::DeleteParams::default())
        .await;
    let candidate = |name: &str| {
        let (trigger, shutdown) = signals::channel();
        let settings = LeaseSettings {
            jitter: Duration::from_millis(200),
            ..LeaseSettings::of_pod(Some(name.to_owned()), None)
        };
        let (leadership, task) = run(client.clone(), settings, shutdown);
        Running {
            leadership,
            task: tokio::spawn(task),
            trigger,
        }
    };
    let mut one = candidate("one");
    let (_, took) = one.change(15 * SECOND).await;
    println!("made and led after {took:?}");
    let mut two = candidate("two");
    sleep(5 * SECOND).await;
    assert!(one.leads() && !two.leads());

    one.trigger.signal();
    let (leads, took) = two.change(15 * SECOND).await;
    println!("handed over after {took:?}");
    assert!(leads && took < 5 * SECOND);
    one.task.await.unwrap();

    leases
        .delete(names::LEASE, &kube::api::DeleteParams::default())
        .await
        .unwrap();
    let mut three = candidate_after_a_read(&leases, candidate).await;
    assert!(two.leads(), "recreated by its holder");
    sleep(3 * SECOND).await;
    two.task.abort();
    let (leads, took) = three.change(15 * SECOND).await;
    println!("killed, followed after {took:?}");
    assert!(leads);
    let lease = leases.get(names::LEASE).await.unwrap();
    println!("{}", serde_json::to_string(&lease).unwrap());
    three.trigger.signal();
    three.task.await.unwrap();
    let lease = leases.get(names::LEASE).await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.unwrap_or_default(), "");
}

/// A candidate that starts once the Lease is there again.
async fn candidate_after_a_read(
    leases: &Api<Lease>,
    candidate: impl Fn(&str) -> Running,
) -> Running {
    while leases.get_opt(names::LEASE).await.unwrap().is_none() {
        sleep(SECOND / 10).await;
    }
    candidate("three")
}
