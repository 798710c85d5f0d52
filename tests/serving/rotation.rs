//! Certificates change under load, and clients notice only the new serial number.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustls::version::TLS13;
use thanos_timeshard::adapters::https::serve::{ConnectionFailure, Limits};
use thanos_timeshard::adapters::https::tls::{CERT_FILE, Certificates, KEY_FILE};
use thanos_timeshard::adapters::reload::ReloadResult;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::support::{
    Authority, Client, HTTP1, HTTP2, Kubelet, Pair, good_request, served_leaf, start, until,
};

/// Long enough never to come in a test.
const NO_POLL: Duration = Duration::MAX;
const SWAPS: u32 = 50;

async fn until_served(addr: SocketAddr, connector: &TlsConnector, pair: &Pair) {
    until("the new certificate is served", async || {
        served_leaf(addr, connector).await.unwrap() == pair.leaf
    })
    .await;
}

/// Sends requests without a pause, on new or on kept connections, until stopped. Every error is a
/// failure.
fn load(
    addr: SocketAddr,
    authority: &Authority,
    stop: &Arc<AtomicBool>,
    done: &Arc<AtomicU32>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (alpn, kept) in [(HTTP1, false), (HTTP2, false), (HTTP1, true), (HTTP2, true)] {
        let connector = authority.client(alpn, &[&TLS13]);
        let (stop, done) = (Arc::clone(stop), Arc::clone(done));
        tasks.spawn(async move {
            let mut client = Client::connect(addr, &connector).await.unwrap();
            while !stop.load(Relaxed) {
                if kept {
                    client.echo("/", "kept").await.unwrap();
                } else {
                    good_request(addr, &connector).await.unwrap();
                }
                done.fetch_add(1, Relaxed);
            }
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kubelet_swaps_under_load_fail_nothing() {
    let authority = Authority::new();
    let volume = tempfile::tempdir().unwrap();
    let kubelet = Kubelet::new(volume.path().join("tls"));
    let first = authority.issue();
    kubelet.swap(&first.chain, &first.key);
    let certificates = Certificates::load_dir(&kubelet.dir).unwrap();
    let server = start(&certificates, &Limits::default(), Duration::ZERO).await;
    tokio::spawn(Arc::clone(&certificates).follow(kubelet.dir.clone(), NO_POLL));

    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let mut load = load(server.addr, &authority, &stop, &done);
    let connector = authority.client(HTTP1, &[&TLS13]);
    until_served(server.addr, &connector, &first).await;
    for _ in 0..SWAPS {
        let pair = authority.issue();
        let before = done.load(Relaxed);
        kubelet.swap(&pair.chain, &pair.key);
        until_served(server.addr, &connector, &pair).await;
        until("the load goes on", async || done.load(Relaxed) > before).await;
    }
    stop.store(true, Relaxed);
    while let Some(client) = load.join_next().await {
        client.expect("no request and no handshake fails");
    }
    assert_eq!(
        (
            certificates.reloads().swapped,
            certificates.reloads().failed
        ),
        (u64::from(SWAPS), 0)
    );
    let failures: Vec<_> = ConnectionFailure::ALL
        .into_iter()
        .filter(|failure| server.stats.failures(*failure) > 0)
        .collect();
    // The probe of the certificate closes right after the handshake, which is no failure either.
    assert!(failures.is_empty(), "{failures:?}");
    println!(
        "{SWAPS} swaps, {} requests, {} connections, 0 failed",
        done.load(Relaxed),
        server.stats.accepted()
    );
}

#[tokio::test]
async fn a_half_rotated_pair_keeps_the_old_one() {
    let authority = Authority::new();
    let volume = tempfile::tempdir().unwrap();
    let kubelet = Kubelet::new(volume.path().join("tls"));
    let (old, new) = (authority.issue(), authority.issue());
    kubelet.swap(&old.chain, &old.key);
    let certificates = Certificates::load_dir(&kubelet.dir).unwrap();
    let server = start(&certificates, &Limits::default(), Duration::ZERO).await;
    tokio::spawn(Arc::clone(&certificates).follow(kubelet.dir.clone(), NO_POLL));
    let connector = authority.client(HTTP1, &[&TLS13]);

    kubelet.swap(&new.chain, &old.key);
    until("the pair is refused", async || {
        certificates.reloads().failed > 0
    })
    .await;
    assert_eq!(
        served_leaf(server.addr, &connector).await.unwrap(),
        old.leaf
    );
    let failure = certificates.last_failure().unwrap();
    assert!(
        failure.contains(KEY_FILE) && failure.contains("does not fit"),
        "{failure}"
    );
    assert_eq!(certificates.reload_dir(&kubelet.dir), ReloadResult::Kept);

    kubelet.swap(&new.chain, &new.key);
    until_served(server.addr, &connector, &new).await;
    assert_eq!(certificates.last_failure(), None);
    assert_eq!(
        certificates.reload_dir(&kubelet.dir),
        ReloadResult::Unchanged
    );
}

#[tokio::test]
async fn a_vanished_directory_keeps_the_old_one_until_it_is_back() {
    let authority = Authority::new();
    let volume = tempfile::tempdir().unwrap();
    let dir = volume.path().join("tls");
    let kubelet = Kubelet::new(dir.clone());
    let (old, new) = (authority.issue(), authority.issue());
    kubelet.swap(&old.chain, &old.key);
    let certificates = Certificates::load_dir(&dir).unwrap();
    let server = start(&certificates, &Limits::default(), Duration::ZERO).await;
    tokio::spawn(Arc::clone(&certificates).follow(dir.clone(), NO_POLL));
    let connector = authority.client(HTTP1, &[&TLS13]);
    until_served(server.addr, &connector, &old).await;

    fs::remove_dir_all(&dir).unwrap();
    until("the loss is seen", async || {
        certificates.reloads().failed > 0
    })
    .await;
    assert_eq!(
        served_leaf(server.addr, &connector).await.unwrap(),
        old.leaf
    );
    Kubelet::new(dir).swap(&new.chain, &new.key);
    until_served(server.addr, &connector, &new).await;
}

/// A watch on a directory behind a link does not notice when the link is replaced: only the poll
/// does.
#[tokio::test]
async fn the_poll_sees_a_replaced_link() {
    let authority = Authority::new();
    let volume = tempfile::tempdir().unwrap();
    let (old, new) = (authority.issue(), authority.issue());
    for (name, pair) in [("a", &old), ("b", &new)] {
        Kubelet::new(volume.path().join("elsewhere").join(name)).swap(&pair.chain, &pair.key);
    }
    let dir = volume.path().join("tls");
    symlink(volume.path().join("elsewhere/a"), &dir).unwrap();
    let certificates = Certificates::load_dir(&dir).unwrap();
    let server = start(&certificates, &Limits::default(), Duration::ZERO).await;
    tokio::spawn(Arc::clone(&certificates).follow(dir.clone(), Duration::from_millis(50)));
    let connector = authority.client(HTTP1, &[&TLS13]);
    until_served(server.addr, &connector, &old).await;

    symlink(
        volume.path().join("elsewhere/b"),
        volume.path().join("tls_tmp"),
    )
    .unwrap();
    fs::rename(volume.path().join("tls_tmp"), &dir).unwrap();
    until_served(server.addr, &connector, &new).await;
}

#[test]
fn a_bad_start_names_the_file_and_the_problem() {
    let authority = Authority::new();
    let (one, two) = (authority.issue(), authority.issue());
    let refusal = |chain: Option<&str>, key: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in [(CERT_FILE, chain), (KEY_FILE, key)] {
            if let Some(content) = content {
                fs::write(dir.path().join(file), content).unwrap();
            }
        }
        Certificates::load_dir(dir.path()).unwrap_err().to_string()
    };
    let cases = [
        (refusal(None, Some(&one.key)), CERT_FILE, "No such file"),
        (refusal(Some(&one.chain), None), KEY_FILE, "No such file"),
        (
            refusal(Some(""), Some(&one.key)),
            CERT_FILE,
            "no certificate",
        ),
        (
            refusal(Some("hello"), Some(&one.key)),
            CERT_FILE,
            "no certificate",
        ),
        (
            refusal(Some(&one.key), Some(&one.key)),
            CERT_FILE,
            "no certificate",
        ),
        (
            refusal(Some(&one.chain), Some(&one.chain)),
            KEY_FILE,
            "no private key",
        ),
        (
            refusal(Some(&one.chain), Some(&two.key)),
            KEY_FILE,
            "does not fit",
        ),
        (
            refusal(
                Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
                Some(&one.key),
            ),
            CERT_FILE,
            "not valid X.509",
        ),
        (
            refusal(Some(&"x".repeat(2 << 20)), Some(&one.key)),
            CERT_FILE,
            "larger than",
        ),
        (
            Certificates::load_dir(Path::new("/nowhere"))
                .unwrap_err()
                .to_string(),
            "/nowhere/tls.crt",
            "No such file",
        ),
    ];
    for (message, file, problem) in cases {
        assert!(
            message.contains(file) && message.contains(problem),
            "{message:?} should name {file} and say {problem:?}"
        );
    }
}
