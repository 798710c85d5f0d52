//! The admin port of the real program: readiness, and the host names that it accepts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;

use crate::server::TIMESHARD;

/// Longer than a reload takes.
const PATIENCE: Duration = Duration::from_mins(1);

struct Program(Child, SocketAddr);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn certificate(directory: &Path, last_year: i32) {
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(vec!["timeshard.timeshard-system.svc".to_owned()]).unwrap();
    (params.not_before, params.not_after) =
        (date_time_ymd(2020, 1, 1), date_time_ymd(last_year, 12, 31));
    // The key first: a pair that does not fit is no good, and the one before stays.
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(
        directory.join("tls.crt"),
        params.self_signed(&key).unwrap().pem(),
    )
    .unwrap();
}

fn start(certificates: &Path, arguments: &[&str]) -> Program {
    let mut child = Command::new(TIMESHARD)
        .args([
            "serve",
            "--webhook-only",
            "--listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--log-format=json",
            "--cert-dir",
        ])
        .arg(certificates)
        .args(arguments)
        .env("TIMESHARD_PROBE_LISTEN", "127.0.0.1:0")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let port = log.by_ref().find_map(|line| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        line["fields"]["admin_listen"].as_str()?.parse().ok()
    });
    std::thread::spawn(move || log.for_each(drop));
    Program(child, port.expect("the server says where it listens"))
}

/// Status and body; `host` as a line of the head, or none.
fn get(program: &Program, path: &str, host: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(program.1).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = host.map_or_else(
        || format!("GET {path} HTTP/1.0\r\n\r\n"),
        |host| format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn a_replica_whose_certificate_has_expired_is_not_ready_until_it_is_renewed() {
    let directory = tempfile::tempdir().unwrap();
    certificate(directory.path(), 2021);
    let program = start(directory.path(), &[]);
    let (code, why) = get(&program, "/readyz", Some("localhost"));
    assert_eq!(code, 503);
    assert!(
        why.starts_with("the serving certificate expired at 2021-12-31T00:00:00Z, so the API server refuses it: renew the Secret"),
        "{why}"
    );
    assert_eq!(
        get(&program, "/livez", Some("localhost")).0,
        200,
        "a restart would not help"
    );
    certificate(directory.path(), 2099);
    let begun = Instant::now();
    while get(&program, "/readyz", Some("localhost")).0 != 200 {
        assert!(
            begun.elapsed() < PATIENCE,
            "the renewed certificate is taken up"
        );
        std::thread::yield_now();
    }
}

#[test]
fn no_page_from_elsewhere_reads_the_admin_port_under_its_own_name() {
    let directory = tempfile::tempdir().unwrap();
    certificate(directory.path(), 2099);
    let program = start(
        directory.path(),
        &["--admin-host=shards.example.com,other.example.com"],
    );
    let shown = ["/", "/status", "/metrics", "/page.js"];
    for host in [
        "127.0.0.1:8080",
        "localhost:8080",
        "[::1]:8080",
        "timeshard.timeshard-system.svc:8080",
        "shards.example.com",
        "OTHER.example.com:80",
    ] {
        for path in shown {
            assert_eq!(get(&program, path, Some(host)).0, 200, "{path} of {host}");
        }
    }
    for host in [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example:8080",
    ] {
        for path in shown.into_iter().chain(["/events", "/nothing"]) {
            let (code, text) = get(&program, path, Some(host));
            assert_eq!(code, 421, "{path} of {host}: {text}");
            assert!(
                text.contains(host) && text.contains("--admin-host"),
                "{text}"
            );
        }
        for path in ["/livez", "/readyz"] {
            assert_eq!(
                get(&program, path, Some(host)).0,
                200,
                "{path}: a probe tells nothing"
            );
        }
    }
    assert_eq!(
        get(&program, "/metrics", None).0,
        200,
        "without a name it is no browser"
    );
}
