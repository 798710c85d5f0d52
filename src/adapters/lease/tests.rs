//! Candidates with a stand-in for the API server, in paused time; and once, by hand, with a real one.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::adapters::signals::{self, Trigger};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Up,
    /// Answers 500 without doing anything.
    Broken,
    Forbids,
    /// Does it, and answers 500.
    LosesAnswers,
    Hangs,
}

/// The API server's one Lease.
struct Server {
    mode: Mode,
    lease: Option<Value>,
    version: u64,
    /// Method and status of each answer.
    log: Vec<(Method, u16)>,
}

#[derive(Clone)]
struct Service(Arc<Mutex<Server>>);

impl Service {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Server { mode: Mode::Up, lease: None, version: 0, log: Vec::new() })))
    }

    fn set(&self, mode: Mode) {
        self.0.lock().unwrap().mode = mode;
    }

    fn lease(&self) -> Value {
        self.0.lock().unwrap().lease.clone().unwrap()
    }

    fn edit(&self, edit: impl FnOnce(&mut Value)) {
        let mut server = self.0.lock().unwrap();
        server.version += 1;
        let version = server.version.to_string();
        let lease = server.lease.as_mut().unwrap();
        edit(lease);
        lease["metadata"]["resourceVersion"] = json!(version);
    }

    /// A candidate under this name.
    fn candidate(&self, name: &str) -> Running {
        let (trigger, shutdown) = signals::channel();
        let settings = Settings { identity: name.to_owned(), namespace: None, jitter: Duration::from_millis(100) };
        let (leadership, task) = run(Client::new(self.clone(), "monitoring"), settings, shutdown);
        Running { leadership, task: tokio::spawn(task), trigger }
    }
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let status = |code: u16, message: &str| (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": message}));
        match self.mode {
            Mode::Broken => return status(500, "broken"),
            Mode::Forbids => return status(403, "leases is forbidden"),
            Mode::Up | Mode::LosesAnswers | Mode::Hangs => {}
        }
        let one = format!("/apis/coordination.k8s.io/v1/namespaces/monitoring/leases/{}", names::LEASE);
        assert!(path == if method == Method::POST { one.rsplit_once('/').unwrap().0 } else { one.as_str() }, "{method} {path}");
        if method != Method::GET {
            let mut sent: Value = serde_json::from_slice(body).unwrap();
            match (&self.lease, method == Method::POST) {
                (Some(_), true) => return status(409, "it exists"),
                (None, false) => return status(404, "there is none"),
                (Some(lease), false) if lease["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] => {
                    return status(409, "another version stands");
                }
                (Some(_), false) | (None, true) => {}
            }
            self.version += 1;
            sent["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.lease = Some(sent);
        }
        match &self.lease {
            _ if self.mode == Mode::LosesAnswers => status(500, "it may have happened"),
            Some(lease) => (if method == Method::POST { 201 } else { 200 }, lease.clone()),
            None => status(404, "there is none"),
        }
    }
}

impl tower::Service<hyper::Request<Body>> for Service {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        let server = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            if server.lock().unwrap().mode == Mode::Hangs {
                std::future::pending::<()>().await;
            }
            // A round trip takes a moment.
            sleep(Duration::from_millis(5)).await;
            let mut server = server.lock().unwrap();
            let (code, answer) = server.answer(&parts.method, parts.uri.path(), &body);
            server.log.push((parts.method, code));
            Ok(Response::builder().status(code).body(Full::from(answer.to_string())).unwrap())
        })
    }
}

struct Running {
    leadership: Leadership,
    task: JoinHandle<()>,
    trigger: Trigger,
}

impl Running {
    fn leads(&self) -> bool {
        self.leadership.remaining().is_some()
    }

    /// Waits until leading begins or ends, and returns whether it leads and how long that took.
    async fn change(&mut self, limit: Duration) -> (bool, Duration) {
        let began = Instant::now();
        timeout(limit, self.leadership.changed()).await.unwrap_or_else(|_| panic!("no change within {limit:?}: {:?}", self.leadership));
        (self.leads(), began.elapsed())
    }

    async fn leading(&mut self) {
        assert!(self.change(15 * SECOND).await.0);
    }
}

#[tokio::test(start_paused = true)]
async fn makes_the_lease_and_renews_it() {
    let server = Service::new();
    let mut one = server.candidate("one");
    assert!(!one.leads());
    one.leading().await;
    assert!(one.leadership.remaining().unwrap() <= election::RENEW_DEADLINE);
    let made = server.lease();
    assert_eq!((&made["spec"]["holderIdentity"], &made["spec"]["leaseDurationSeconds"]), (&json!("one"), &json!(10)));
    assert_eq!((&made["spec"]["leaseTransitions"], &made["metadata"]["name"]), (&json!(0), &json!(names::LEASE)));
    assert_eq!(made["metadata"]["labels"][names::MANAGED_BY_LABEL], names::MANAGED_BY);

    server.edit(|lease| lease["metadata"]["annotations"] = json!({"someone": "else's"}));
    for _ in 0..600 {
        sleep(SECOND / 10).await;
        assert!(one.leadership.remaining().is_some_and(|left| left > 4 * SECOND), "a minute without a gap");
    }
    let renewed = server.lease();
    assert_eq!(renewed["spec"]["acquireTime"], made["spec"]["acquireTime"]);
    assert_ne!(renewed["spec"]["renewTime"], made["spec"]["renewTime"]);
    assert_eq!(renewed["metadata"]["annotations"]["someone"], "else's", "what is not ours is kept");
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
    assert_eq!((two.leadership.holder().as_deref(), two.leadership.transitions()), (Some("one"), 0));

    let last = one.leadership.remaining().unwrap();
    one.task.abort();
    let began = Instant::now();
    one.leadership.changed().await;
    assert!(!one.leads() && began.elapsed() <= last);
    while !two.leads() && !three.leads() {
        sleep(SECOND / 100).await;
    }
    assert!(began.elapsed() > 7 * SECOND && began.elapsed() < 13 * SECOND, "{:?}", began.elapsed());
    sleep(30 * SECOND).await;
    assert!(two.leads() != three.leads(), "one of them");
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_gives_the_lease_back() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    let mut two = server.candidate("two");
    sleep(5 * SECOND).await;
    one.trigger.signal();
    let began = Instant::now();
    assert_eq!(one.change(SECOND).await, (false, Duration::ZERO), "no write begins after the signal");
    one.task.await.unwrap();
    assert!(began.elapsed() >= election::WRITE && began.elapsed() < election::WRITE + SECOND, "{:?}", began.elapsed());
    let spec = server.lease()["spec"].clone();
    assert_eq!((&spec["holderIdentity"], &spec["leaseDurationSeconds"], &spec["leaseTransitions"]), (&json!(""), &json!(1), &json!(0)));
    two.leading().await;
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
    assert_eq!((server.lease()["spec"]["leaseDurationSeconds"].clone(), two.leadership.transitions()), (json!(10), 1));
}

#[tokio::test(start_paused = true)]
async fn a_follower_stops_at_once_and_a_second_signal_ends_everything() {
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
    assert_eq!(server.lease()["spec"]["holderIdentity"], "one", "nobody waited for the last write to end");
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_another_in_the_lease_stops() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    server.edit(|lease| lease["spec"]["holderIdentity"] = json!("thief"));
    let (leads, after) = one.change(4 * SECOND).await;
    assert!(!leads && after <= election::RETRY + SECOND / 10, "{after:?}");
    assert_eq!(one.leadership.holder().as_deref(), Some("thief"));
    let (leads, after) = one.change(15 * SECOND).await;
    assert!(leads && after >= election::LEASE, "{after:?}: a lease that is not renewed is taken");
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn without_an_api_server_leading_ends_in_time_and_comes_back() {
    let server = Service::new();
    let mut one = server.candidate("one");
    one.leading().await;
    sleep(20 * SECOND).await;
    for mode in [Mode::Broken, Mode::Hangs, Mode::Forbids] {
        let failures = one.leadership.failures();
        let left = one.leadership.remaining().unwrap();
        server.set(mode);
        let (leads, after) = one.change(8 * SECOND).await;
        assert!(!leads && after <= left + SECOND / 100, "{mode:?}: {after:?} of {left:?}");
        sleep(20 * SECOND).await;
        assert!(one.leadership.failures() > failures && one.leadership.last_error().is_some(), "{mode:?}");
        server.set(Mode::Up);
        let (leads, after) = one.change(5 * SECOND).await;
        assert!(leads, "{mode:?}: {after:?}");
        assert_eq!((one.leadership.last_error(), one.leadership.transitions()), (None, 0), "{mode:?}: nobody took it");
        sleep(5 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_request_ends_nothing() {
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
        assert!(server.0.lock().unwrap().version > before + 2, "{mode:?}: renewed again");
    }
    assert!(timeout(SECOND, one.leadership.changed()).await.is_err(), "one tenure");
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_made_anew_by_its_holder() {
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
    assert_eq!(server.lease()["spec"]["acquireTime"], before["spec"]["acquireTime"]);
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
    let count = |method: Method| log.iter().filter(|(m, code)| *m == method && *code == 200).count();
    assert_eq!(count(Method::PUT) + count(Method::GET), log.len(), "nothing fails: {log:?}");
    assert!(count(Method::PUT) <= 31 && count(Method::GET) <= 30, "one each in two seconds: {log:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_always_leads() {
    let mut always = Leadership::always();
    assert_eq!(always.remaining(), Some(election::RENEW_DEADLINE));
    always.changed().await;
    assert!(timeout(60 * SECOND, always.changed()).await.is_err(), "nothing changes after that");
    assert!(always.remaining().is_some());
}

#[tokio::test(start_paused = true)]
async fn metrics_say_who_leads() {
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
    for line in ["timeshard_leader 1\n", "timeshard_leader_transitions_total 0\n", "timeshard_lease_renew_failures_total 1\n"] {
        assert!(text().contains(line), "{line}: {}", text());
    }
}

#[test]
fn a_process_without_a_pod_has_a_name_of_its_own() {
    let pod = Settings::of_pod(Some("timeshard-1".to_owned()), Some("monitoring".to_owned()));
    assert_eq!((pod.identity.as_str(), pod.namespace.as_deref()), ("timeshard-1", Some("monitoring")));
    assert!(pod.jitter <= election::MOST_JITTER);
    let (one, two) = (Settings::of_pod(None, None), Settings::of_pod(Some(String::new()), Some(String::new())));
    assert!(one.identity != two.identity && one.namespace.is_none() && two.namespace.is_none());
}

#[test]
fn times_survive_the_way_through_json() {
    let time = DateTime::from_timestamp_micros(1_795_000_000_000_100).unwrap();
    let record = Record { holder: "one".to_owned(), lease_seconds: 10, acquired: Some(time), renewed: None, transitions: 7 };
    let text = serde_json::to_string(&written(None, record.clone(), Some("5".to_owned()))).unwrap();
    let read = stored(&serde_json::from_str(&text).unwrap());
    assert_eq!((read.record, read.version.as_str()), (record, "5"));
}

/// `KUBECONFIG=… cargo test --lib a_real_api_server -- --ignored --nocapture`
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_real_api_server_agrees() {
    let client = crate::adapters::cluster::connect().await.unwrap();
    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let _ = leases.delete(names::LEASE, &kube::api::DeleteParams::default()).await;
    let candidate = |name: &str| {
        let (trigger, shutdown) = signals::channel();
        let settings = Settings { jitter: Duration::from_millis(200), ..Settings::of_pod(Some(name.to_owned()), None) };
        let (leadership, task) = run(client.clone(), settings, shutdown);
        Running { leadership, task: tokio::spawn(task), trigger }
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

    leases.delete(names::LEASE, &kube::api::DeleteParams::default()).await.unwrap();
    let mut three = candidate_after_a_look(&leases, candidate).await;
    assert!(two.leads(), "made anew by its holder");
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
async fn candidate_after_a_look(leases: &Api<Lease>, candidate: impl Fn(&str) -> Running) -> Running {
    while leases.get_opt(names::LEASE).await.unwrap().is_none() {
        sleep(SECOND / 10).await;
    }
    candidate("three")
}
