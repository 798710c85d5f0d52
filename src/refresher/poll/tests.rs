use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicUsize;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::adapters::cluster::Observed;
use crate::core::agent_status::Phase;
use crate::core::config::Config;
use crate::core::fleet::Fleet;
use crate::core::loaded::MAX_MISSING;
use crate::core::pod_address::Asked as Whom;

fn document(pod: &str, phase: &str) -> Value {
    json!({"pod": pod, "shard": 0, "replica": 0, "phase": phase, "published": null, "applied": null, "verified": true,
        "restarts": 0, "last_error": null, "agent_version": "0.1.0", "contract": 1})
}

fn serving(target: &Target) -> Answer {
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

/// A leader that has seen these pods, and who asks them.
fn poller(pods: impl IntoIterator<Item = PodFacts>) -> Arc<Poller> {
    let seen = Seen::new(Observed::new(Fleet::new(Arc::new(Config::default()))));
    // Leads for as long as the test lasts.
    std::mem::forget(seen.lead());
    seen.expect("ns");
    pods.into_iter().for_each(|pod| seen.put("ns", pod));
    Poller::new(seen, Whom::OwnMachineToo)
}

/// Whom it asked, and when, in seconds since the beginning.
type Asked = Arc<Mutex<Vec<(String, f64)>>>;

/// Runs a poller against sidecars that are played by `answer`.
fn start(
    poller: &Arc<Poller>,
    tasks: &mut JoinSet<()>,
    answer: impl Fn(&Target) -> Answer + Send + Sync + 'static,
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

async fn news(poller: &Poller) -> Vec<SetName> {
    timeout(Duration::from_millis(1), poller.seen.changed())
        .await
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn settled_pods_are_asked_every_minute_and_expected_changes_at_once() {
    let (poller, mut tasks) = (poller([pod(0, "10.0.0.1")]), JoinSet::new());
    let asked = start(&poller, &mut tasks, serving);
    sleep(Duration::from_secs(125)).await;
    assert_eq!(times(&asked, "u0"), [0.0, 60.0, 120.0]);
    assert_eq!(news(&poller).await, [("ns".to_owned(), "store".to_owned())]);

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
    assert!(news(&poller).await.is_empty(), "the same answer is no news");
    let last = poller.polled("u0").unwrap();
    assert!(last.at - last.unchanged_since > Duration::from_mins(2));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_asked_less_and_less_until_something_changes() {
    let (poller, mut tasks) = (poller([pod(0, "10.0.0.1")]), JoinSet::new());
    let asked = start(&poller, &mut tasks, |_| {
        Answer::Unreachable("no".to_owned())
    });
    sleep(Duration::from_secs(125)).await;
    assert_eq!(
        times(&asked, "u0"),
        [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0, 121.0]
    );
    poller.seen.put(
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
async fn a_change_of_answer_is_news_and_ends_a_readiness() {
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
    assert!(poller.seen.ready_for("u0", Instant::now()) >= Some(Duration::from_secs(58)));
    news(&poller).await;
    sleep(Duration::from_secs(2)).await;
    assert!(
        matches!(poller.polled("u0").unwrap().answer, Answer::Status(status) if status.phase == Phase::Draining)
    );
    assert_eq!(poller.seen.ready_for("u0", Instant::now()), None);
    assert_eq!(news(&poller).await.len(), 1);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(news(&poller).await.len(), 1);
    assert!(poller.seen.ready_for("u0", Instant::now()) < Some(Duration::from_secs(2)));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_that_hang_delay_nobody() {
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
                        Answer::Unreachable("no answer".to_owned())
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
    // One pass over all of them, hanging ones included.
    sleep(Duration::from_secs(30)).await;
    assert!((0..50).all(|n| matches!(
        poller.polled(&format!("u{n}")),
        Some(Polled {
            answer: Answer::Status(_),
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
    poller.seen.put(
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
        "who does not lead knows nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_none_of_a_pod_is_not_asked_and_told() {
    let (seen, addresses) = (
        poller([]).seen.clone(),
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
        .for_each(|(n, ip)| seen.put("ns", pod(n, ip)));
    let (poller, mut tasks) = (Poller::new(seen, Whom::Pods), JoinSet::new());
    let asked = start(&poller, &mut tasks, serving);
    sleep(Duration::from_mins(2)).await;
    assert!(
        asked.lock().unwrap().iter().all(|(uid, _)| uid == "u5"),
        "{asked:?}"
    );
    let why = |n: usize| match poller.polled(&format!("u{n}")).unwrap().answer {
        Answer::Unreachable(why) => why,
        Answer::Status(status) => panic!("{status:?}"),
    };
    assert_eq!(
        why(0),
        "pod store-0: podIP 127.0.0.1 is not an address of a pod but a loopback address: not asked"
    );
    assert!((1..5).all(|n| why(n).ends_with(": not asked")));
    assert_eq!(news(&poller).await.len(), 1);
    // It has another one now, or is gone.
    poller.seen.put("ns", pod(0, "10.0.0.2"));
    poller.seen.remove::<PodFacts>("ns", "store-1");
    sleep(Duration::from_secs(1)).await;
    assert!(
        matches!(poller.polled("u0").unwrap().answer, Answer::Status(_))
            && poller.polled("u1").is_none()
    );
}

/// A server beside the sidecar, as with host networking: its own address is reached, and nothing is said to it.
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
    let put = |schedule: &mut Schedule, namespace: &str, n: usize, closely: bool| {
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
        assert!(schedule.done(asked, false, Duration::from_mins(1), now));
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
        .for_each(|asked| assert!(schedule.done(asked, true, Duration::from_mins(1), now)));
    assert!(
        std::iter::from_fn(|| schedule.take(now + Duration::from_mins(2))).count() >= 10,
        "no place is lost"
    );
}

#[test]
fn documents_of_other_ages_are_read_and_nonsense_is_told_apart() {
    let target = target("ns", &pod(0, "10.0.0.1"), Whom::Pods)
        .unwrap()
        .unwrap();
    let ask = |document: &Value| read(&target, Ok((200, Bytes::from(document.to_string()))));
    let why = |answer| match answer {
        Answer::Unreachable(why) => why,
        Answer::Status(status) => panic!("{status:?}"),
    };
    let mut newer = document("store-0", "serving");
    (newer["contract"], newer["news"]) = (json!(3), json!({}));
    assert!(matches!(ask(&newer), Answer::Status(status) if status.contract == 3));
    newer["phase"] = json!("dreaming");
    assert!(why(ask(&newer)).contains("speaks contract 3, this server 2"));
    assert!(why(ask(&json!({"pod": 1}))).contains("no status document"));
    assert!(why(ask(&document("store-5", "serving"))).contains("answers as a pod of another name"));
    let mut long = document("store-0", "serving");
    long["last_error"] = json!("x".repeat(60_000));
    assert!(
        matches!(ask(&long), Answer::Status(status) if status.last_error.as_ref().unwrap().len() < 600)
    );
    // Whoever may set an address would read by it what answers there.
    for secret in [
        json!({"phase": "s3cret"}),
        json!({"s3cret": {}}),
        json!("s3cret"),
        json!({"pod": "s3cret"}),
        json!({"uid": "s3cret"}),
    ] {
        let mut told = document("store-0", "serving");
        match secret.as_object() {
            Some(fields) => told.as_object_mut().unwrap().extend(fields.clone()),
            None => told = secret.clone(),
        }
        if secret.get("s3cret").is_some() {
            told["restarts"] = json!("s3cret");
        }
        let why = why(ask(&told));
        assert!(!why.contains("s3cret"), "{why}");
    }
    assert!(!why(read(&target, Ok((200, Bytes::from("s3cret"))))).contains("s3cret"));
    assert!(!why(read(&target, Ok((401, Bytes::from("s3cret"))))).contains("s3cret"));
    for answer in [Ok((503, Bytes::new())), Err("refused".to_owned())] {
        let why = why(read(&target, answer));
        assert!(
            ["10908", "NetworkPolicy", "service mesh"]
                .iter()
                .all(|cause| why.contains(cause)),
            "{why}"
        );
    }
}

#[test]
fn a_pod_of_the_same_name_is_somebody_else() {
    let target = target("ns", &pod(0, "10.0.0.1"), Whom::Pods)
        .unwrap()
        .unwrap();
    let ask = |namespace: Value, uid: Value| {
        let mut document = document("store-0", "serving");
        (document["namespace"], document["uid"]) = (namespace, uid);
        match read(&target, Ok((200, Bytes::from(document.to_string())))) {
            Answer::Unreachable(why) => Some(why),
            Answer::Status(_) => None,
        }
    };
    let (null, long) = (|| Value::Null, "x".repeat(60_000));
    for (namespace, uid, other) in [
        (null(), null(), None),
        (json!("ns"), null(), None),
        (json!("ns"), json!("u0"), None),
        (null(), json!("u0"), None),
        // The UID says it all.
        (json!("elsewhere"), json!("u0"), None),
        (
            json!("elsewhere"),
            null(),
            Some("a pod of the same name in another namespace"),
        ),
        (
            json!("ns"),
            json!("u7"),
            Some("another pod of the same name"),
        ),
        (
            json!("b"),
            json!("u7"),
            Some("a pod of the same name in another namespace"),
        ),
        (
            json!(long),
            json!(long),
            Some("a pod of the same name in another namespace"),
        ),
    ] {
        let other = other.map(|other| {
            format!("pod store-0: its address answers as {other}, which has it by now")
        });
        assert_eq!(
            ask(namespace.clone(), uid.clone()),
            other,
            "{namespace} {uid}"
        );
    }
}

#[test]
fn what_a_pod_says_of_its_blocks_is_bounded() {
    let target = target("ns", &pod(0, "10.0.0.1"), Whom::Pods)
        .unwrap()
        .unwrap();
    let ask = |blocks: Value| {
        let mut document = document("store-0", "serving");
        (
            document["contract"],
            document["blocks"],
            document["blocks_unknown"],
        ) = (json!(2), blocks, json!("y".repeat(10_000)));
        match read(&target, Ok((200, Bytes::from(document.to_string())))) {
            Answer::Status(status) => status,
            Answer::Unreachable(why) => panic!("{why}"),
        }
    };
    let block =
        |ulid: &str, min: &str, max: &str| json!({"ulid": ulid, "min_time": min, "max_time": max});
    let (ulid, from, to) = (
        "01K1H8R1000000000000A1B2C3",
        "2026-07-23T00:00:00Z",
        "2026-08-06T00:00:00Z",
    );
    let blocks = |missing: Vec<Value>, total: usize| json!({"expected": 1_000, "loaded": 1_000 - total, "missing_total": total, "missing": missing});
    let good = ask(blocks(vec![block(ulid, from, to)], 1));
    assert_eq!(good.blocks.as_ref().unwrap().missing[0].ulid, ulid);
    assert!(good.blocks_unknown.as_ref().unwrap().chars().count() < 600);
    assert!(
        ask(blocks(vec![block(ulid, from, to); MAX_MISSING], 900))
            .blocks
            .is_some_and(|blocks| blocks.is_cut())
    );
    for (missing, total, words) in [
        (
            vec![block(ulid, from, to); MAX_MISSING + 1],
            300,
            "more missing blocks than it may",
        ),
        (vec![block("x", from, to)], 1, "something else than a ULID"),
        (
            vec![block("../../../../../etc/hosts/x", from, to)],
            1,
            "something else than a ULID",
        ),
        (vec![block(ulid, to, from)], 1, "ends before it begins"),
    ] {
        let status = ask(blocks(missing, total));
        assert!(
            status.blocks.is_none()
                && status
                    .blocks_unknown
                    .as_ref()
                    .is_some_and(|why| why.contains(words)),
            "{words}: {status:?}"
        );
    }
}

/// What a peer at this address does with a connection.
async fn behave(mut stream: TcpStream, host: u8) {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).await.unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let answer = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let text = match host {
        1 if request.starts_with("GET /status HTTP/1.1\r\n") => {
            answer("200 OK", &document("store-1", "serving").to_string())
        }
        2 => "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/status\r\ncontent-length: 0\r\n\r\n"
            .to_owned(),
        3 => answer(
            "200 OK",
            &format!("{{\"pod\":\"{}\"}}", "x".repeat(100_000)),
        ),
        4 => "SSH-2.0-OpenSSH\r\n".to_owned(),
        5 => format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1_000_000)),
        6 => return,
        // Never an end: a byte now and then, so that only a deadline for all of it helps.
        7 => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(b" ").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
            return;
        }
        _ => pending().await,
    };
    let _ = stream.write_all(text.as_bytes()).await;
}

fn accept(listener: TcpListener, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let host = match stream.local_addr().unwrap().ip() {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => 1,
            };
            connections.spawn(behave(stream, host));
        }
    });
}

#[tokio::test]
async fn real_peers_good_and_bad() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    accept(listener, &mut tasks);
    // Pods 1 to 7 behave as above, 8 to 24 accept and say nothing.
    let poller = poller((1..=24).map(|n| pod(n, &format!("127.0.0.{n}"))));
    poller.watch_closely("ns", "store", &BTreeSet::from(["u1".to_owned()]));
    let run = poller.clone();
    tasks.spawn(async move { run.run_on(port).await });
    let all = async {
        while (1..=7).any(|n| poller.polled(&format!("u{n}")).is_none()) {
            assert!(
                poller
                    .polled("u1")
                    .is_none_or(|polled| matches!(polled.answer, Answer::Status(_)))
            );
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), all).await.unwrap();
    let why = |n: u8| match poller.polled(&format!("u{n}")).unwrap().answer {
        Answer::Unreachable(why) => why,
        Answer::Status(status) => panic!("{n}: {status:?}"),
    };
    assert!(why(2).contains("answers 302"), "{}", why(2));
    assert!(why(3).contains("longer than 65536 bytes"), "{}", why(3));
    assert!(why(7).contains("no answer within 2 s"), "{}", why(7));
    for n in 4..=6 {
        assert!(why(n).contains("NetworkPolicy"), "{}", why(n));
    }
    let good = poller.polled("u1").unwrap();
    assert!(
        good.at.elapsed() < Duration::from_millis(1_500),
        "asked every half second beside 23 that are not well"
    );
}

#[tokio::test]
async fn ipv6_pods_are_asked() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return;
    };
    let (port, mut tasks) = (listener.local_addr().unwrap().port(), JoinSet::new());
    accept(listener, &mut tasks);
    let poller = poller([pod(1, "::1")]);
    let run = poller.clone();
    tasks.spawn(async move { run.run_on(port).await });
    assert_eq!(
        timeout(Duration::from_secs(10), poller.seen.changed())
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(matches!(
        poller.polled("u1").unwrap().answer,
        Answer::Status(_)
    ));
}
