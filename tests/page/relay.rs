//! A replica that does not lead: its page has the reports of the leader, read from the leader's real
//! admin port.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thanos_timeshard::adapters::http_client::{GetLimits, get};
use thanos_timeshard::page::feed::{PageFacts, PageSet};
use thanos_timeshard::page::leader::LeaderReports;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::scenes;
use crate::server::Server;

const DEADLINE: Duration = Duration::from_mins(2);

/// Fetches from this port as a server does.
fn follow(reports: &Arc<LeaderReports>, port: u16) -> JoinHandle<()> {
    let fetch = move |_| async move {
        let address = ([127, 0, 0, 1], port).into();
        match get(address, "/status", GetLimits::default()).await? {
            (200, body) => Ok(body),
            (code, _) => Err(format!("status {code}")),
        }
    };
    tokio::spawn(reports.clone().follow(fetch))
}

/// The facts of a page that shows these reports, and nothing of its own.
fn facts(reports: &LeaderReports) -> PageFacts {
    let (relayed, reports) = reports.latest(Some("timeshard-6f7c9-x2x4q"));
    let set = |report| PageSet {
        shards: Vec::new(),
        problem: None,
        report,
    };
    PageFacts {
        head: json!({"relayed": relayed}),
        sets: reports.into_values().map(set).collect(),
    }
}

/// Waits until the facts are as wanted.
#[allow(
    clippy::disallowed_methods,
    reason = "the pause of a poll with a deadline"
)]
async fn until(reports: &LeaderReports, wanted: impl Fn(&PageFacts) -> bool) -> PageFacts {
    let start = Instant::now();
    loop {
        let known = facts(reports);
        if wanted(&known) {
            return known;
        }
        assert!(start.elapsed() < DEADLINE, "in vain: {:?}", known.head);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_follower_has_the_reports_of_the_leader() {
    let led = scenes::rolling();
    let leader = Server::start(led.clone()).await;
    let reports = Arc::<LeaderReports>::default();
    let task = follow(&reports, leader.addr.port());
    let known = until(&reports, |known| known.sets.len() == 2).await;
    for (own, relayed) in led.sets.iter().zip(&known.sets) {
        let mut own = (*own.report).clone();
        for pod in &mut own.pods {
            (pod.seconds_in_state, pod.drift_seconds) = (0, None);
        }
        assert_eq!(own, *relayed.report);
    }
    assert_eq!(
        known.head["relayed"],
        json!({"from": "timeshard-6f7c9-x2x4q", "error": null, "as_of_unix_seconds": null})
    );
    // A change arrives; the other report stays the same value, so no browser gets it again.
    let mut changed = led.clone();
    changed.sets[0] = scenes::gap().sets[0].clone();
    leader.know(changed);
    let later = until(&reports, |known| known.sets[0].report.gap_seconds > 0).await;
    assert!(Arc::ptr_eq(&known.sets[1].report, &later.sets[1].report));
    // The leader goes away: the last reports are shown with the reason, and then no longer.
    leader.end().await;
    let late = until(&reports, |known| {
        known.head["relayed"]["error"].is_string() && known.sets.len() == 2
    });
    assert!(late.await.head["relayed"]["as_of_unix_seconds"].is_i64());
    let last = until(&reports, |known| known.sets.is_empty()).await;
    assert_eq!(last.head["relayed"]["from"], Value::Null);
    assert!(last.head["relayed"]["error"].is_string());
    task.abort();
}

#[tokio::test]
async fn five_thousand_pods_fit_into_one_document() {
    let leader = Server::start(scenes::five_thousand_pods()).await;
    let limits = GetLimits {
        deadline: DEADLINE,
        ..GetLimits::default()
    };
    let began = Instant::now();
    let (_, body) = get(leader.addr, "/status", limits).await.unwrap();
    println!(
        "/status of 5,000 pods: {} bytes in {:?}",
        body.len(),
        began.elapsed()
    );
    assert!(body.len() < thanos_timeshard::adapters::kube::leader_status::MAX_STATUS_BYTES);
}

/// A leader that accepts and says nothing holds up neither the page nor the task for long.
#[tokio::test]
async fn a_page_does_not_wait_for_the_leader() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reports = Arc::<LeaderReports>::default();
    let task = follow(&reports, silent.local_addr().unwrap().port());
    let source = reports.clone();
    let server = Server::of(Box::new(move || facts(&source))).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    let request = b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut text = String::new();
    let shown = async {
        while !text.contains("event: shown") {
            let mut bytes = [0; 1024];
            let read = socket.read(&mut bytes).await.unwrap();
            assert!(read > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    };
    timeout(DEADLINE, shown).await.unwrap();
    assert!(
        text.contains(r#""relayed":{"from":null,"error":null"#),
        "{text}"
    );
    task.abort();
}
