//! Real connections.

use super::*;

/// Handles a connection to 127.0.0.`host`.
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
        // Endless: a byte now and then, so that only a deadline for the whole answer ends it.
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
    // Pods 1 to 7 behave as above, 8 to 24 accept and send nothing.
    let poller = poller((1..=24).map(|n| pod(n, &format!("127.0.0.{n}"))));
    poller.watch_closely("ns", "store", &BTreeSet::from(["u1".to_owned()]));
    let run = poller.clone();
    tasks.spawn(async move { run.run_on(port).await });
    let all = async {
        while (1..=7).any(|n| poller.polled(&format!("u{n}")).is_none()) {
            assert!(
                poller
                    .polled("u1")
                    .is_none_or(|polled| matches!(polled.answer, PodAnswer::Status(_)))
            );
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(2), all).await.unwrap();
    let why = |n: u8| match poller.polled(&format!("u{n}")).unwrap().answer {
        PodAnswer::Unreachable(why) => why,
        PodAnswer::Status(status) => panic!("{n}: {status:?}"),
    };
    assert!(why(2).contains("answers 302"), "{}", why(2));
    assert!(why(3).contains("longer than 65536 bytes"), "{}", why(3));
    assert!(why(7).contains("no answer within 2 s"), "{}", why(7));
    for n in 4..=6 {
        assert!(why(n).contains("NetworkPolicy"), "{}", why(n));
    }
    let asked_again = async {
        let (mut at, mut least) = (poller.polled("u1").unwrap().at, Duration::MAX);
        for _ in 0..5 {
            while poller.polled("u1").unwrap().at == at {
                sleep(Duration::from_millis(20)).await;
            }
            let now = poller.polled("u1").unwrap().at;
            (at, least) = (now, least.min(now - at));
        }
        least
    };
    let least = timeout(Duration::from_mins(1), asked_again).await.unwrap();
    assert!(
        least < Duration::from_millis(1_500),
        "asked every half second next to 23 broken ones: {least:?}"
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
        timeout(Duration::from_mins(1), poller.cache.changed())
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(matches!(
        poller.polled("u1").unwrap().answer,
        PodAnswer::Status(_)
    ));
}
