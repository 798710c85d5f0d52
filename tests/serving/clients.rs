//! `--client-ca`: who may call the webhook, on real handshakes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use thanos_timeshard::adapters::https::client_ca::ClientCa;
use thanos_timeshard::adapters::https::serve::{ConnectionFailure, Limits};
use thanos_timeshard::adapters::https::tls::Certificates;
use thanos_timeshard::adapters::reload::ReloadResult;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::process::{Process, review};
use crate::support::{
    Authority, Client, ClientPair, HTTP1, HTTP2, Server, good_request, start_with, until,
};

const NO_POLL: Duration = Duration::MAX;

fn server(authority: &Authority, ca: &Arc<ClientCa>) -> Server {
    let pair = authority.issue();
    let certificates = Certificates::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).unwrap();
    let tls = certificates
        .server_config_for(Some(Arc::clone(ca)))
        .unwrap();
    start_with(tls, &Limits::default(), Duration::ZERO)
}

fn connector(authority: &Authority, pair: Option<&ClientPair>) -> TlsConnector {
    authority.client_as(HTTP1, &[&TLS13], pair)
}

#[tokio::test]
async fn only_a_client_with_the_right_certificate_is_served() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("ca.crt");
    fs::write(&bundle, clients.pem()).unwrap();
    let names = ["kube-apiserver", "front-proxy-client"]
        .map(str::to_owned)
        .to_vec();
    let ca = ClientCa::load(&bundle, names).unwrap();
    let server = server(&authority, &ca);

    let good = [
        clients.issue_client("kube-apiserver", &[]),
        clients.issue_client("front-proxy-client", &["elsewhere"]),
        clients.issue_client("system:apiserver", &["other", "kube-apiserver"]),
    ];
    let mut refused = 0;
    for versions in [[&TLS13], [&TLS12]] {
        for alpn in [HTTP1, HTTP2] {
            for pair in &good {
                good_request(
                    server.addr,
                    &authority.client_as(alpn, &versions, Some(pair)),
                )
                .await
                .unwrap();
            }
        }
        let bad = [
            None,
            Some(strangers.issue_client("kube-apiserver", &[])),
            Some(clients.issue_client("kubelet", &["kube-apiserver.example"])),
            Some(clients.issue_client("", &[])),
            Some(clients.issue_client_until("kube-apiserver", 2020)),
        ];
        for pair in bad {
            let connector = authority.client_as(HTTP1, &versions, pair.as_ref());
            good_request(server.addr, &connector).await.unwrap_err();
            refused += 1;
            until("it is counted", async || {
                server.stats.failures(ConnectionFailure::ClientCertificate) == refused
            })
            .await;
        }
    }
    assert_eq!(
        server.served.load(Relaxed),
        12,
        "nothing of those who were refused was served"
    );
}

#[tokio::test]
async fn without_names_any_certificate_of_the_authority_will_do() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.crt"), clients.pem()).unwrap();
    let ca = ClientCa::load(&dir.path().join("ca.crt"), Vec::new()).unwrap();
    let server = server(&authority, &ca);
    good_request(
        server.addr,
        &connector(&authority, Some(&clients.issue_client("anyone", &[]))),
    )
    .await
    .unwrap();
    good_request(
        server.addr,
        &connector(&authority, Some(&authority.issue_client("anyone", &[]))),
    )
    .await
    .unwrap_err();
}

/// Sends good requests, one after the other, until it is stopped.
#[derive(Default)]
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
}

impl Load {
    fn start(&self, addr: SocketAddr, connector: &TlsConnector) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let (connector, stop, done) = (connector.clone(), self.stop.clone(), self.done.clone());
            tasks.spawn(async move {
                while !stop.load(Relaxed) {
                    good_request(addr, &connector)
                        .await
                        .expect("a good client is served");
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        tasks
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_changes_under_load_and_no_good_client_fails() {
    let (authority, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("ca.crt");
    let write = |content: &str| {
        // As kubelet does: the file changes atomically.
        fs::write(dir.path().join("next"), content).unwrap();
        fs::rename(dir.path().join("next"), &bundle).unwrap();
    };
    write(&old.pem());
    let ca = ClientCa::load(&bundle, vec!["kube-apiserver".to_owned()]).unwrap();
    let server = server(&authority, &ca);
    tokio::spawn(Arc::clone(&ca).follow(NO_POLL));
    let load = Load::default();
    let [with_old, with_new] =
        [&old, &new].map(|ca| connector(&authority, Some(&ca.issue_client("kube-apiserver", &[]))));
    good_request(server.addr, &with_new).await.unwrap_err();

    let mut old_clients = load.start(server.addr, &with_old);
    // First both, then only the new one: the order of a CA change.
    write(&(old.pem() + &new.pem()));
    until("both are trusted", async || {
        good_request(server.addr, &with_new).await.is_ok()
    })
    .await;
    let mut new_clients = load.start(server.addr, &with_new);
    // An invalid bundle changes nothing.
    for bad in ["", "hello", &authority.issue().key] {
        let failed = ca.reloads().failed;
        write(bad);
        until("it is refused", async || ca.reloads().failed > failed).await;
        assert!(
            ca.last_failure().unwrap().contains("ca.crt"),
            "{:?}",
            ca.last_failure()
        );
    }
    let before = load.done.load(Relaxed);
    until("the load goes on", async || {
        load.done.load(Relaxed) > before + 50
    })
    .await;
    load.stop.store(true, Relaxed);
    while let Some(client) = old_clients.join_next().await {
        client.unwrap();
    }
    while let Some(client) = new_clients.join_next().await {
        client.unwrap();
    }
    let mut kept = Client::connect(server.addr, &with_old).await.unwrap();
    kept.echo("/", "before").await.unwrap();
    write(&new.pem());
    until("the old one is not trusted any more", async || {
        good_request(server.addr, &with_old).await.is_err()
    })
    .await;
    good_request(server.addr, &with_new).await.unwrap();
    kept.echo("/", "a connection that was made before stays")
        .await
        .unwrap();
    assert_eq!(ca.reload(), ReloadResult::Unchanged);
    assert_eq!(ca.reloads().swapped, 2);
}

#[test]
fn a_bad_bundle_is_named_at_the_start() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.crt");
    let refusal = |content: Option<&str>| {
        let _ = fs::remove_file(&path);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        ClientCa::load(&path, Vec::new()).unwrap_err().to_string()
    };
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (message, problem) in [
        (refusal(None), "No such file"),
        (refusal(Some("")), "no certificate"),
        (refusal(Some(&authority.issue().key)), "no certificate"),
        (
            refusal(Some(&(authority.pem() + no_certificate))),
            "certificate 2 of the bundle",
        ),
        (refusal(Some(&"x".repeat(2 << 20))), "larger than"),
    ] {
        assert!(
            message.contains("ca.crt") && message.contains(problem),
            "{message:?} should say {problem:?}"
        );
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_timeshard"))
            .arg("serve")
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text) = run(&["--client-name=x"]);
    assert!(code == Some(2) && text.contains("--client-ca"), "{text}");
    let pair = authority.issue();
    fs::write(dir.path().join("tls.crt"), pair.chain).unwrap();
    fs::write(dir.path().join("tls.key"), pair.key).unwrap();
    let (code, text) = run(&[
        "--webhook-only",
        "--cert-dir",
        dir.path().to_str().unwrap(),
        "--client-ca=/nowhere/ca.crt",
    ]);
    assert!(
        code == Some(2) && text.contains("--client-ca: cannot read /nowhere/ca.crt"),
        "{code:?} {text}"
    );
}

#[tokio::test]
async fn the_program_asks_for_certificates() {
    let clients = Authority::new();
    let prepare = |dir: &Path| fs::write(dir.join("clients.crt"), clients.pem()).unwrap();
    let process = Process::start_with(
        &[
            "--client-ca={}/clients.crt",
            "--client-name=kube-apiserver,other",
        ],
        prepare,
    );
    for (name, served) in [
        (Some("kube-apiserver"), true),
        (Some("other"), true),
        (Some("third"), false),
        (None, false),
    ] {
        let pair = name.map(|name| clients.issue_client(name, &[]));
        let connector = connector(&process.authority, pair.as_ref());
        let answered = async {
            let mut client = Client::connect(process.addr, &connector).await?;
            client.post("/mutate", review(0)).await
        };
        assert_eq!(
            answered.await.is_ok_and(|(status, _)| status == 200),
            served,
            "{name:?}"
        );
    }
    assert_eq!(
        crate::process::get_from(1, process.probes, "/readyz")
            .await
            .0,
        200,
        "probes need none"
    );
}
