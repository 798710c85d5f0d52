//! `/` and `/events` on real sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use thanos_timeshard::page::feed::MAX_STREAMS;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::scenes;
use crate::server::Server;
use crate::story::Story;

/// How long any condition may take on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);

async fn request(addr: SocketAddr, path: &str) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    // HTTP/1.0: neither chunks nor keep-alive.
    socket
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())
        .await
        .unwrap();
    BufReader::new(socket)
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut answer = String::new();
    timeout(
        DEADLINE,
        request(addr, path).await.read_to_string(&mut answer),
    )
    .await
    .unwrap()
    .unwrap();
    answer
}

/// A stream whose head is read.
struct Events(BufReader<TcpStream>);

impl Events {
    async fn open(addr: SocketAddr) -> Self {
        let mut events = Self(request(addr, "/events").await);
        assert!(events.line().await.unwrap().contains("200"));
        while !events.line().await.unwrap().trim().is_empty() {}
        events
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(DEADLINE, self.0.read_line(&mut line))
            .await
            .expect("the stream sends an event in time")
            .unwrap();
        (read > 0).then_some(line)
    }

    /// Name and data; `None` at the end.
    async fn next(&mut self) -> Option<(String, String)> {
        let name = self
            .line()
            .await?
            .trim_end()
            .strip_prefix("event: ")
            .unwrap()
            .to_owned();
        let data = self
            .line()
            .await?
            .trim_end()
            .strip_prefix("data: ")
            .unwrap()
            .to_owned();
        assert_eq!(self.line().await?, "\n");
        Some((name, data))
    }

    /// Reads all events of one state.
    async fn state(&mut self) -> Vec<(String, Value)> {
        let mut state = Vec::new();
        loop {
            let (name, data) = self.next().await.expect("the stream goes on");
            if name == "shown" {
                return state;
            }
            if name != "beat" {
                state.push((name, serde_json::from_str(&data).unwrap()));
            }
        }
    }
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn everything_first_and_then_what_changed() {
    let server = Server::start(scenes::healthy()).await;
    let mut events = Events::open(server.addr).await;
    let first = events.state().await;
    assert_eq!(names(&first), ["set", "set", "head"]);
    let store = &first[0].1;
    assert_eq!(
        (&store["name"], &store["least"], &store["state"]),
        (&"thanos-store-gateway".into(), &2.into(), &"settled".into())
    );
    assert_eq!(store["shards"][0]["window"]["min_time"], "-124d8h");
    let pod = store["pods"][0].as_object().unwrap();
    assert_eq!(
        pod.keys().collect::<Vec<_>>(),
        ["ordinal", "shard", "replica", "blocks", "since", "restarts"],
        "defaults are omitted"
    );

    let mut known = scenes::rolling();
    // Rebuilt with ages of its own; what stays must be the same value.
    known.sets[1] = server.known.lock().unwrap().sets[1].clone();
    known.head = server.known.lock().unwrap().head.clone();
    server.know(known.clone());
    let second = events.state().await;
    assert_eq!(names(&second), ["set"]);
    assert_eq!(
        (&second[0].1["state"], &second[0].1["rollout"]["steps_done"]),
        (&"rolling".into(), &2.into())
    );

    known.sets.pop();
    known.head["config_error"] = "x".into();
    server.know(known);
    assert_eq!(names(&events.state().await), ["gone", "head"]);

    server.trigger.signal();
    assert_eq!(events.next().await.unwrap().0, "bye");
    assert!(events.next().await.is_none(), "a drain does not wait");
    let refused = get(server.addr, "/events").await;
    assert!(
        refused.starts_with("HTTP/1.0 503") && refused.contains("shutting down"),
        "{refused}"
    );
}

#[tokio::test]
async fn streams_are_bounded_and_given_back() {
    let server = Server::start(scenes::healthy()).await;
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS {
        open.push(Events::open(server.addr).await);
    }
    let refused = get(server.addr, "/events").await;
    assert!(
        refused.starts_with("HTTP/1.0 503") && refused.contains("16 pages are already open"),
        "{refused}"
    );
    assert!(
        get(server.addr, "/livez").await.contains("200"),
        "probes are still answered"
    );
    open.pop();
    let start = Instant::now();
    while get(server.addr, "/events-are-given-back").await.is_empty() || {
        let mut again = request(server.addr, "/events").await;
        let mut line = String::new();
        again.read_line(&mut line).await.unwrap();
        !line.contains("200")
    } {
        assert!(start.elapsed() < DEADLINE, "a closed stream frees its slot");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn five_thousand_pods_are_a_small_message_and_a_change_a_smaller_one() {
    let server = Server::start(scenes::five_thousand_pods()).await;
    let mut events = Events::open(server.addr).await;
    let bytes = |events: &[(String, Value)]| {
        events
            .iter()
            .map(|(_, data)| data.to_string().len())
            .sum::<usize>()
    };
    let first = events.state().await;
    assert_eq!(first.len(), 201);
    println!("200 StatefulSets of 25 pods: {} bytes", bytes(&first));
    assert!(bytes(&first) < 2_000_000, "{}", bytes(&first));
    let mut known = server.known.lock().unwrap().clone();
    known.sets[7] = Story::settled("team-01", "store-007", 12, 24).set();
    server.know(known);
    let second = events.state().await;
    println!("one of them changes: {} bytes", bytes(&second));
    assert!(
        names(&second) == ["set"] && bytes(&second) < 10_000,
        "{}",
        bytes(&second)
    );
}

/// Whether every URL is of the documentation, which is only linked.
fn only_documentation(text: &str) -> bool {
    let docs = "https://github.com/thanos-timeshard/thanos-timeshard/blob/main/docs/";
    text.matches("https://").count() == text.matches(docs).count()
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let server = Server::start(scenes::healthy()).await;
    let page = get(server.addr, "/").await;
    let (head, html) = page.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(
        head.contains(
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';"
        ),
        "{head}"
    );
    assert!(
        head.contains("x-content-type-options: nosniff")
            && head.contains("content-type: text/html"),
        "{head}"
    );
    assert!(
        !html.contains("style=") && !html.contains(" on") || !html.contains("onclick"),
        "no inline styles or handlers"
    );
    for (path, kind) in [
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/timeline.js", "text/javascript"),
        ("/findings.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(server.addr, path).await;
        assert!(
            answer.starts_with("HTTP/1.0 200")
                && answer
                    .to_lowercase()
                    .contains(&format!("content-type: {kind}")),
            "{path}"
        );
        assert!(
            !answer.contains("innerHTML") && only_documentation(&answer),
            "{path}"
        );
        assert!(
            html.contains(path.trim_start_matches('/'))
                || ["/timeline.js", "/findings.js"].contains(&path),
            "{path} is relative"
        );
    }
    assert!(only_documentation(html));
    for method in ["POST", "PUT", "DELETE"] {
        for path in ["/", "/events"] {
            let mut socket = TcpStream::connect(server.addr).await.unwrap();
            socket
                .write_all(
                    format!("{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                        .as_bytes(),
                )
                .await
                .unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with("HTTP/1.0 405"),
                "{method} {path}: {answer}"
            );
        }
    }
}
