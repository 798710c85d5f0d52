//! Real connections, with queriers that mean harm.

use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const GOOD: &str = r#"{"status":"success","data":{"store":[
    {"name":"10.0.0.1:10901","lastCheck":"x","lastError":null,"labelSets":[{"a":"b"}],"minTime":0,"maxTime":1},
    {"name":"10.0.0.2:10901","lastError":"rpc error: code = Unavailable desc = hunter2"}]}}"#;

/// Repeats a text until the peer closes the connection, at most this often.
async fn flood(stream: &mut TcpStream, head: &str, text: &str, times: usize) {
    let _ = stream
        .write_all(format!("HTTP/1.1 200 OK\r\n\r\n{head}").as_bytes())
        .await;
    let block = text.repeat(64 * 1024 / text.len());
    for _ in 0..times {
        if stream.write_all(block.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Handles a connection to 127.0.0.`host`.
async fn behave(mut stream: TcpStream, host: u8) {
    let mut request = [0; 1024];
    let read = stream.read(&mut request).await.unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..read]).into_owned();
    let answer = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nlocation: http://10.0.0.1/hunter2\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let list = r#"{"status":"success","data":{"store":["#;
    let text = match host {
        1 | 100 if request.starts_with("GET /q/api/v1/stores HTTP/1.1\r\n") => {
            answer("200 OK", GOOD)
        }
        2 => answer("302 Found", ""),
        3 => answer("401 Unauthorized", "hunter2"),
        4 => answer("404 Not Found", "hunter2"),
        5 => answer(
            "400 Bad Request",
            "Client sent an HTTP request to an HTTPS server.",
        ),
        6 => answer("200 OK", r#"{"status":"error","error":"hunter2"}"#),
        7 => answer(
            "200 OK",
            r#"{"status":"success","data":{"store":{"hunter2":7}}}"#,
        ),
        8 => answer("200 OK", &"[".repeat(1_000_000)),
        9 => answer("200 OK", "<html>hunter2"),
        10 => "SSH-2.0-hunter2\r\n".to_owned(),
        11 => return,
        // A million stores, and more labels than are read.
        12 => return flood(&mut stream, list, r#"{"name":"hunter2"},"#, 1_000).await,
        13 => return flood(&mut stream, list, r#"{"labelSets":"hunter2"},"#, 1_000).await,
        // Endless: a byte now and then.
        14 => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(b" ").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
            return;
        }
        _ => std::future::pending().await,
    };
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Serves all addresses of this machine; counts connections to 127.0.0.100.
async fn serve(tasks: &mut JoinSet<()>) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let IpAddr::V4(ip) = stream.local_addr().unwrap().ip() else {
                continue;
            };
            counted.fetch_add(usize::from(ip.octets()[3] == 100), Relaxed);
            connections.spawn(behave(stream, ip.octets()[3]));
        }
    });
    (port, count)
}

fn at(host: usize, port: u16) -> QuerierFacts {
    QuerierFacts {
        prefix: Some("/q".to_owned()),
        endpoints: vec!["dns+store:10901".to_owned()],
        ..querier(host, &format!("127.0.0.{host}"), port)
    }
}

#[tokio::test]
async fn hostile_answers_are_unknown_with_advice() {
    let mut tasks = JoinSet::new();
    let (port, _) = serve(&mut tasks).await;
    // A busy machine may take long for 8 MiB in a test.
    let deadline = Duration::from_mins(1);
    let (poller, _leading) = poller_with((1..=13).map(|host| at(host, port)), deadline);
    let run = poller.clone();
    tasks.spawn(async move { run.ask_all().await });
    poller.ask(&set("ns"), true);
    let all = async {
        while observed(&poller)
            .iter()
            .any(|one| one.answer == QuerierAnswer::Pending)
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(2), all).await.unwrap();
    let all = observed(&poller);
    let kept = format!("{all:?}{:?}", lock(&poller.state).answers);
    assert!(!kept.contains("hunter2"), "{kept}");
    assert_eq!(
        stores(&all[0]),
        [
            ("10.0.0.1:10901", None),
            ("10.0.0.2:10901", Some("unavailable"))
        ]
    );
    for (host, part) in [
        (
            2,
            "answers 302 on /q/api/v1/stores: redirects are not followed: set `path`",
        ),
        (
            3,
            "answers 401 on /q/api/v1/stores: it wants authentication",
        ),
        (4, "if it has a prefix, set `path`"),
        (5, "it may serve HTTPS"),
        (6, "not a list of stores"),
        (7, "not a list of stores"),
        (8, "not a list of stores"),
        (9, "not JSON"),
        (10, "NetworkPolicy"),
        (11, "NetworkPolicy"),
        (12, "names and errors of its stores take more than 1 MiB"),
        (13, "longer than 8 MiB"),
    ] {
        let why = unknown(&all[host - 1]);
        assert!(why.contains(part), "{host}: {why}");
    }
}

#[tokio::test]
async fn hanging_queriers_delay_no_other_namespace_and_nothing_is_asked_without_need() {
    let mut tasks = JoinSet::new();
    let (port, count) = serve(&mut tasks).await;
    let (poller, _leading) = poller((14..=40).map(|host| at(host, port)));
    poller.cache.expect("quiet");
    poller.cache.put("quiet", pod("store", 1));
    let quiet = at(100, port);
    poller
        .cache
        .put_querier("quiet", &quiet.name.clone(), Ok(Some(quiet)));
    let run = poller.clone();
    tasks.spawn(async move { run.ask_all().await });
    // It begins with the first StatefulSet that needs it.
    poller.ask(&set("ns"), true);
    let quiet = || {
        let facts = poller.cache.with("quiet", Clone::clone);
        poller.observed(&set("quiet"), &facts, &[], Instant::now())
    };
    let hang = |one: &ObservedQuerier| matches!(&one.answer, QuerierAnswer::Unknown(why) if why.contains("no answer within 2 s"));
    let hanging = async {
        while !observed(&poller).iter().any(hang) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), hanging).await.unwrap();
    assert_eq!(count.load(Relaxed), 0, "that namespace does not need it");

    poller.ask(&set("quiet"), true);
    let answers = async {
        while count.load(Relaxed) < 3
            || !matches!(quiet()[0].answer, QuerierAnswer::Stores(_))
            || !observed(&poller).iter().all(hang)
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), answers).await.unwrap();

    poller.ask(&set("ns"), false);
    poller.ask(&set("quiet"), false);
    let forgotten = async {
        while !lock(&poller.state).answers.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), forgotten).await.unwrap();
}

#[tokio::test]
async fn a_changed_answer_triggers_a_reconcile_and_a_gone_pod_is_forgotten() {
    let mut tasks = JoinSet::new();
    let (port, count) = serve(&mut tasks).await;
    let (poller, _leading) = poller([at(100, port)]);
    let run = poller.clone();
    tasks.spawn(async move { run.ask_all().await });
    poller.ask(&set("ns"), true);
    let changed = timeout(Duration::from_mins(1), poller.cache.changed());
    assert_eq!(changed.await.unwrap(), [set("ns")]);
    let more = async {
        while count.load(Relaxed) < 3 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), more).await.unwrap();
    let again = timeout(Duration::from_millis(1), poller.cache.changed());
    assert!(again.await.is_err(), "the same answer is no change");
    assert!(observed(&poller)[0].answered_ago.unwrap() < Duration::from_secs(15));
    poller.cache.remove_querier("ns", "query-100");
    let gone = async {
        while !lock(&poller.state).answers.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), gone).await.unwrap();
}
