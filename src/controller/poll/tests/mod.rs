mod answers;
mod peers;

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicUsize;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::adapters::kube::cluster::Observed;
use crate::core::agent::loaded::MAX_MISSING;
use crate::core::agent::status::Phase;
use crate::core::config::Config;
use crate::core::gateways::Gateways;
use crate::core::kube::pod_address::Asked as Who;

fn document(pod: &str, phase: &str) -> Value {
    json!({"pod": pod, "shard": 0, "replica": 0, "phase": phase, "published": null, "applied": null, "verified": true,
        "restarts": 0, "last_error": null, "agent_version": "0.1.0", "contract": 1})
}

fn serving(target: &Target) -> PodAnswer {
    read(
        target,
        Ok((
            200,
            Bytes::from(document(&target.name, "serving").to_string()),
        )),
    )
}

fn pod(n: u8, ip: &str) -> PodFacts {
    let (name, uid) = (format!("store-{n}"), format!("u{n}"));
    let statefulset = "store".to_owned();
    PodFacts {
        name,
        uid,
        statefulset,
        ip: Some(ip.to_owned()),
        injected: true,
        ready: true,
        ..PodFacts::default()
    }
}

/// The poller of a leader with these pods.
fn poller(pods: impl IntoIterator<Item = PodFacts>) -> Arc<Poller> {
    let cache = ClusterCache::new(Observed::new(Gateways::new(Arc::new(Config::default()))));
    // Leads for as long as the test lasts.
    std::mem::forget(cache.lead());
    cache.expect("ns");
    pods.into_iter().for_each(|pod| cache.put("ns", pod));
    Poller::new(cache, Who::OwnMachineToo)
}

/// UIDs that were asked, and when, in seconds.
type Asked = Arc<Mutex<Vec<(String, f64)>>>;

/// Runs a poller against sidecars that answer with `answer`.
fn start(
    poller: &Arc<Poller>,
    tasks: &mut JoinSet<()>,
    answer: impl Fn(&Target) -> PodAnswer + Send + Sync + 'static,
) -> Asked {
    let (asked, begun) = (Asked::default(), Instant::now());
    let (poller, log) = (poller.clone(), asked.clone());
    tasks.spawn(async move {
        let ask = |target: Target| {
            log.lock()
                .unwrap()
                .push((target.uid.clone(), begun.elapsed().as_secs_f64()));
            let answer = answer(&target);
            async move { (target, answer) }
        };
        poller.run_with(ask).await;
    });
    asked
}

fn times(asked: &Asked, uid: &str) -> Vec<f64> {
    asked
        .lock()
        .unwrap()
        .iter()
        .filter(|(of, _)| of == uid)
        .map(|(_, at)| (at * 10.0).round() / 10.0)
        .collect()
}

async fn changes(poller: &Poller) -> Vec<SetName> {
    timeout(Duration::from_millis(1), poller.cache.changed())
        .await
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn settled_pods_are_asked_every_minute_and_expected_changes_immediately() {
    let (poller, mut tasks) = (poller([pod(0, "10.0.0.1")]), JoinSet::new());
    let asked = start(&poller, &mut tasks, serving);
    sleep(Duration::from_secs(125)).await;
    assert_eq!(times(&asked, "u0"), [0.0, 60.0, 120.0]);
    assert_eq!(
        changes(&poller).await,
        [("ns".to_owned(), "store".to_owned())]
    );

    poller.watch_closely("ns", "store", &BTreeSet::from(["u0".to_owned()]));
    sleep(Duration::from_millis(1_600)).await;
    assert_eq!(times(&asked, "u0")[3..], [125.0, 125.5, 126.0, 126.5]);
    poller.watch_closely("ns", "store", &BTreeSet::new());
    sleep(Duration::from_secs(58)).await;
    assert_eq!(
        times(&asked, "u0").len(),
        8,
        "once more, then it is settled"
    );
    assert!(
        changes(&poller).await.is_empty(),
        "the same answer is no change"
    );
    let last = poller.polled("u0").unwrap();
    assert!(last.at - last.unchanged_since > Duration::from_mins(2));
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_does_not_answer_is_asked_with_back_off_until_its_pod_changes() {
    let (poller, mut tasks) = (poller([pod(0, "10.0.0.1")]), JoinSet::new());
    let asked = start(&poller, &mut tasks, |_| {
        PodAnswer::Unreachable("no".to_owned())
    });
    sleep(Duration::from_secs(125)).await;
    assert_eq!(
        times(&asked, "u0"),
        [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0, 121.0]
    );
    poller.cache.put(
        "ns",
        PodFacts {
            ready_changed_unix_seconds: 5,
            ..pod(0, "10.0.0.1")
        },
    );
    sleep(Duration::from_secs(2)).await;
    assert_eq!(times(&asked, "u0").len(), 11);
}

#[tokio::test(start_paused = true)]
async fn a_changed_answer_triggers_a_reconcile_and_interrupts_readiness() {
    let (poller, mut tasks) = (poller([pod(0, "10.0.0.1")]), JoinSet::new());
    let questions = AtomicUsize::new(0);
    start(&poller, &mut tasks, move |target| {
        let phase = if questions.fetch_add(1, Relaxed) == 1 {
            "draining"
        } else {
            "serving"
        };
        read(
            target,
            Ok((200, Bytes::from(document(&target.name, phase).to_string()))),
        )
    });
    sleep(Duration::from_secs(59)).await;
    assert!(poller.cache.ready_for("u0", Instant::now()) >= Some(Duration::from_secs(58)));
    changes(&poller).await;
    sleep(Duration::from_secs(2)).await;
    assert!(
        matches!(poller.polled("u0").unwrap().answer, PodAnswer::Status(status) if status.phase == Phase::Draining)
    );
    assert_eq!(poller.cache.ready_for("u0", Instant::now()), None);
    assert_eq!(changes(&poller).await.len(), 1);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(changes(&poller).await.len(), 1);
    assert!(poller.cache.ready_for("u0", Instant::now()) < Some(Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_hanging_sidecars_delay_no_other() {
    let hang = |n: u8| n >= 50;
    let (poller, mut tasks) = (
        poller((0..150).map(|n| pod(n, &format!("10.0.0.{n}")))),
        JoinSet::new(),
    );
    let most = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicUsize::new(0));
    let (begun, log) = (Instant::now(), Asked::default());
    {
        let (poller, log, most, open) = (poller.clone(), log.clone(), most.clone(), open.clone());
        tasks.spawn(async move {
            let ask = |target: Target| {
                log.lock()
                    .unwrap()
                    .push((target.uid.clone(), begun.elapsed().as_secs_f64()));
                most.fetch_max(open.fetch_add(1, Relaxed) + 1, Relaxed);
                let open = open.clone();
                async move {
                    let answer = if hang(target.uid[1..].parse().unwrap()) {
                        sleep(LIMITS.deadline).await;
                        PodAnswer::Unreachable("no answer".to_owned())
                    } else {
                        sleep(Duration::from_millis(5)).await;
                        serving(&target)
                    };
                    open.fetch_sub(1, Relaxed);
                    (target, answer)
                }
            };
            poller.run_with(ask).await;
        });
    }
    // One pass over all pods, including the hanging ones.
    sleep(Duration::from_secs(30)).await;
    assert!((0..50).all(|n| matches!(
        poller.polled(&format!("u{n}")),
        Some(Polled {
            answer: PodAnswer::Status(_),
            ..
        })
    )));
    poller.watch_closely("ns", "store", &BTreeSet::from(["u7".to_owned()]));
    sleep(Duration::from_mins(1)).await;
    let closely = times(&log, "u7")
        .into_iter()
        .filter(|at| *at >= 30.0)
        .count();
    assert!((110..=121).contains(&closely), "{closely}");
    for n in (0..50).filter(|n| *n != 7) {
        let asked = times(&log, &format!("u{n}"));
        assert!(
            asked.len() == 2 && asked[1] - asked[0] < 61.0,
            "u{n}: {asked:?}"
        );
    }
    assert!(most.load(Relaxed) <= schedule::CONCURRENT);
    tasks.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_gone_are_forgotten_and_some_are_never_asked() {
    let others = [
        PodFacts {
            injected: false,
            ..pod(1, "10.0.0.2")
        },
        PodFacts {
            ip: None,
            ..pod(2, "")
        },
        PodFacts {
            terminating: true,
            ..pod(3, "10.0.0.4")
        },
        pod(4, "not an address"),
    ];
    let (poller, mut tasks) = (
        poller([pod(0, "10.0.0.1")].into_iter().chain(others)),
        JoinSet::new(),
    );
    let asked = start(&poller, &mut tasks, serving);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(asked.lock().unwrap().len(), 1);
    // Recreated under its name.
    poller.cache.put(
        "ns",
        PodFacts {
            uid: "u9".to_owned(),
            ..pod(0, "10.0.0.9")
        },
    );
    sleep(Duration::from_secs(1)).await;
    assert!(poller.polled("u0").is_none() && poller.polled("u9").is_some());
    tasks.shutdown().await;
    assert!(
        poller.polled("u9").is_none(),
        "a process that does not lead has no answers"
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_that_no_pod_can_have_is_reported_and_not_asked() {
    let (cache, addresses) = (
        poller([]).cache.clone(),
        [
            "127.0.0.1",
            "169.254.169.254",
            "::ffff:127.0.0.1",
            "fd00:ec2::254",
            "localhost",
            "10.0.0.1",
        ],
    );
    (0..)
        .zip(addresses)
        .for_each(|(n, ip)| cache.put("ns", pod(n, ip)));
    let (poller, mut tasks) = (Poller::new(cache, Who::Pods), JoinSet::new());
    let asked = start(&poller, &mut tasks, serving);
    sleep(Duration::from_mins(2)).await;
    assert!(
        asked.lock().unwrap().iter().all(|(uid, _)| uid == "u5"),
        "{asked:?}"
    );
    let why = |n: usize| match poller.polled(&format!("u{n}")).unwrap().answer {
        PodAnswer::Unreachable(why) => why,
        PodAnswer::Status(status) => panic!("{status:?}"),
    };
    assert_eq!(
        why(0),
        "pod store-0: podIP 127.0.0.1 is not an address of a pod but a loopback address: not asked"
    );
    assert!((1..5).all(|n| why(n).ends_with(": not asked")));
    assert_eq!(changes(&poller).await.len(), 1);
    // One gets another address, one is deleted.
    poller.cache.put("ns", pod(0, "10.0.0.2"));
    poller.cache.remove::<PodFacts>("ns", "store-1");
    sleep(Duration::from_secs(1)).await;
    assert!(
        matches!(poller.polled("u0").unwrap().answer, PodAnswer::Status(_))
            && poller.polled("u1").is_none()
    );
}

/// A server next to the sidecar, as with host networking: its own address accepts, and nothing is
/// sent to it.
#[tokio::test]
async fn an_address_of_the_servers_own_machine_is_not_asked() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (answer, heard) = tokio::join!(http_client::get(address, "/status", LIMITS), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard
    });
    assert!(
        answer
            .unwrap_err()
            .ends_with("it is an address of the server's own machine: not asked")
    );
    assert!(heard.is_empty());
}

/// A namespace with hundreds of pods that hang, all expected to change, and another one's rollout.
#[test]
fn places_are_shared_between_namespaces() {
    let (mut schedule, now) = (Schedule::default(), Instant::now());
    let pauses = schedule::Pauses {
        closely: Duration::from_millis(500),
        ordinary: Duration::from_mins(1),
        max_back_off: Duration::from_mins(1),
        least: Duration::ZERO,
    };
    let put = |schedule: &mut Schedule<Target>, namespace: &str, n: usize, closely: bool| {
        let target = Target {
            uid: format!("{namespace}-{n}"),
            namespace: namespace.to_owned(),
            statefulset: "store".to_owned(),
            name: format!("store-{n}"),
            ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            ready: (true, 0),
        };
        schedule.put(target, closely, now);
    };
    (0..500).for_each(|n| put(&mut schedule, "loud", n, n % 2 == 0));
    let held: Vec<Target> = std::iter::from_fn(|| schedule.take(now)).collect();
    assert!(
        (10..schedule::CONCURRENT).contains(&held.len()),
        "{}",
        held.len()
    );
    // While none of them answers.
    (0..6).for_each(|n| put(&mut schedule, "quiet", n, n < 3));
    assert_eq!(schedule.next(), Some(now));
    let taken: Vec<Target> = std::iter::from_fn(|| schedule.take(now)).collect();
    assert!(
        taken.len() == 2 && taken.iter().all(|target| target.namespace == "quiet"),
        "{taken:?}"
    );
    // Each place that becomes free is the quiet one's until it has as many.
    for asked in &held[..4] {
        assert!(schedule.done(asked, false, pauses, now));
        let next = schedule.take(now);
        assert!(next.is_none_or(|next| next.namespace == "quiet"));
    }
    let uids = held[4..]
        .iter()
        .chain(&taken)
        .map(|target| target.uid.clone())
        .collect();
    schedule.keep(&uids);
    held[4..]
        .iter()
        .chain(&taken)
        .for_each(|asked| assert!(schedule.done(asked, true, pauses, now)));
    assert!(
        std::iter::from_fn(|| schedule.take(now + Duration::from_mins(2))).count() >= 10,
        "no place is lost"
    );
}
