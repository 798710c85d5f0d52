//! The server on real sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream as StdStream;
use std::time::Duration;

use super::*;

/// Serves a bucket with two blocks. Returns the addresses of both endpoints.
async fn bucket(folder: &std::path::Path) -> (SocketAddr, SocketAddr) {
    for (key, content) in [
        ("01A/meta.json", "{}"),
        ("01A/index", "0123456789"),
        ("01B/meta.json", "{}"),
        ("01B/chunks/000001", "c"),
    ] {
        let path = folder.join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let (objects, control) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let addresses = (objects.local_addr().unwrap(), control.local_addr().unwrap());
    let bucket = Bucket::new(folder.to_owned(), Duration::ZERO);
    tokio::spawn(serve_objects(objects, bucket.clone()));
    tokio::spawn(serve_control(control, bucket));
    addresses
}

/// Reads everything that the server sends for one request, for at most `wait`.
async fn ask_for(address: SocketAddr, wait: Duration, request: String) -> String {
    let asked = tokio::task::spawn_blocking(move || {
        let mut stream = StdStream::connect(address).unwrap();
        stream.set_read_timeout(Some(wait)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A timeout or reset keeps the data received before.
        drop(stream.read_to_end(&mut answer));
        String::from_utf8(answer).unwrap()
    });
    asked.await.unwrap()
}

async fn ask(address: SocketAddr, first_line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{first_line} HTTP/1.1\r\nhost: bucket\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    ask_for(address, Duration::from_secs(10), request).await
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path}"), "", "").await
}

#[tokio::test]
async fn objects_are_read_as_s3_clients_ask() {
    let folder = tempfile::tempdir().unwrap();
    let (objects, _) = bucket(folder.path()).await;
    let whole = get(objects, "/e2e/01A/index").await;
    assert!(
        whole.starts_with("HTTP/1.1 200")
            && whole.ends_with("\r\n\r\n0123456789")
            && whole.contains("last-modified: "),
        "{whole}"
    );
    for (range, content_range, part) in [
        ("2-4", "2-4", "234"),
        ("7-", "7-9", "789"),
        ("-2", "8-9", "89"),
        ("8-100", "8-9", "89"),
    ] {
        let answer = ask(
            objects,
            "GET /e2e/01A/index",
            &format!("range: bytes={range}\r\n"),
            "",
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 206") && answer.ends_with(&format!("\r\n\r\n{part}")),
            "{answer}"
        );
        assert!(
            answer.contains(&format!("content-range: bytes {content_range}/10\r\n")),
            "{answer}"
        );
    }
    assert!(
        ask(objects, "GET /e2e/01A/index", "range: bytes=10-\r\n", "")
            .await
            .starts_with("HTTP/1.1 416")
    );
    let head = ask(objects, "HEAD /e2e/01A/index", "", "").await;
    assert!(
        head.starts_with("HTTP/1.1 200")
            && head.contains("content-length: 10\r\n")
            && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    for missing in [
        "/e2e/01C/index",
        "/e2e/01A",
        "/e2e/../01A/index",
        "/e2e/%2e%2e/x",
        "/e2e//etc/passwd",
    ] {
        let answer = get(objects, missing).await;
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.contains("<Code>NoSuchKey</Code>"),
            "{missing}: {answer}"
        );
    }
    assert!(
        ask(objects, "PUT /e2e/01C/index", "", "x")
            .await
            .starts_with("HTTP/1.1 403")
    );
    assert!(
        get(objects, "/e2e/?location=")
            .await
            .contains("<LocationConstraint ")
    );
}

#[tokio::test]
async fn listings_have_pages_prefixes_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let (objects, _) = bucket(folder.path()).await;
    let names = |xml: &str| -> Vec<String> {
        let keys = xml
            .split("<Key>")
            .skip(1)
            .filter_map(|rest| rest.split_once("</Key>"));
        let folders = xml
            .split("<CommonPrefixes><Prefix>")
            .skip(1)
            .filter_map(|rest| rest.split_once("</Prefix>"));
        keys.chain(folders)
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    let listing = |query: &'static str| async move {
        get(objects, &format!("/e2e/?list-type=2&{query}")).await
    };
    assert_eq!(
        names(&listing("delimiter=%2F&prefix=").await),
        ["01A/", "01B/"]
    );
    assert_eq!(
        names(&listing("delimiter=%2F&prefix=01B%2F").await),
        ["01B/meta.json", "01B/chunks/"]
    );
    assert_eq!(names(&listing("prefix=01A%2Fi").await), ["01A/index"]);
    assert_eq!(names(&listing("prefix=01C%2F").await), [""; 0]);
    let first = listing("max-keys=3").await;
    assert_eq!(
        names(&first),
        ["01A/index", "01A/meta.json", "01B/chunks/000001"]
    );
    assert!(first.contains("<IsTruncated>true</IsTruncated><NextContinuationToken>01B/chunks/000001</NextContinuationToken>"), "{first}");
    let second = listing("max-keys=3&continuation-token=01B%2Fchunks%2F000001").await;
    assert_eq!(names(&second), ["01B/meta.json"]);
    assert!(
        second.contains("<IsTruncated>false</IsTruncated>") && !second.contains("Token"),
        "{second}"
    );
}

#[tokio::test]
async fn rules_break_what_they_name_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (objects, control) = bucket(folder.path()).await;
    let put = |rules: &'static str| async move { ask(control, "PUT /faults", "", rules).await };
    let index = || get(objects, "/e2e/01A/index");

    let refused = put(r#"[{"fault": {"status": 500}, "keys": "x"}]"#).await;
    assert!(
        refused.starts_with("HTTP/1.1 400") && refused.contains("unknown field `keys`"),
        "{refused}"
    );
    let rule = r#"[{"client": "127.0.0.1", "method": "HEAD", "prefixes": ["01B/", "01A/"], "suffix": "/index", "fault": {"status": 503}}]"#;
    assert!(put(rule).await.starts_with("HTTP/1.1 204"));
    assert!(
        ask(objects, "HEAD /e2e/01A/index", "", "")
            .await
            .starts_with("HTTP/1.1 503")
    );
    assert!(
        ask(objects, "HEAD /e2e/01A/meta.json", "", "")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(index().await.starts_with("HTTP/1.1 200"));
    let listed = get(control, "/faults").await;
    assert!(
        listed.contains(r#""applied":1"#)
            && listed.contains(r#""clients":{"127.0.0.1":{"requests":3,"faults":1}}"#),
        "{listed}"
    );

    put(r#"[{"client": "10.0.0.1", "fault": {"status": 500}}]"#).await;
    assert!(index().await.starts_with("HTTP/1.1 200"));
    ask(
        control,
        "POST /faults",
        "",
        r#"[{"suffix": "/index", "fault": "reset"}]"#,
    )
    .await;
    assert_eq!(index().await, "");
    put(r#"[{"suffix": "/index", "fault": "hang"}]"#).await;
    let request = "GET /e2e/01A/index HTTP/1.1\r\nhost: bucket\r\n\r\n".to_owned();
    assert_eq!(
        ask_for(objects, Duration::from_millis(200), request).await,
        ""
    );
    put(r#"[{"fault": {"delay_ms": 50}}]"#).await;
    let before = Instant::now();
    assert!(index().await.starts_with("HTTP/1.1 200"));
    assert!(before.elapsed() >= Duration::from_millis(50));
    // It expires immediately.
    put(r#"[{"fault": {"status": 500}, "seconds": 0}]"#).await;
    assert!(index().await.starts_with("HTTP/1.1 200"));
    put(r#"[{"fault": {"status": 500}}]"#).await;
    assert!(index().await.starts_with("HTTP/1.1 500"));
    ask(control, "DELETE /faults", "", "").await;
    assert!(index().await.starts_with("HTTP/1.1 200"));
}
