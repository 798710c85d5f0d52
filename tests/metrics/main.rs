//! `docs/metrics.md` lists the metrics of both programs: here both run as processes and are
//! scraped.
//!
//! `UPDATE_GOLDEN=1 cargo test --test metrics` rewrites the tables.
//! `tests/e2e/scenarios/monitoring.sh` checks on a real cluster that the page is complete.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod api;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Pod, Process, wait_for};

const PAGE: &str = "docs/metrics.md";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0";

/// Scrapes `/metrics`.
fn scrape(port: u16, accept: &str) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(text)?;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let wanted = format!("content-type: {}", accept.split(';').next().unwrap());
    assert!(
        head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains(&wanted),
        "{head}"
    );
    Ok(body.to_owned())
}

/// A server that leads and reconciles a StatefulSet with one pod. With its own certificates it has
/// a few more metrics.
fn server(self_signed: bool) -> (Process, u16, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["timeshard.timeshard-system.svc".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
    let kubeconfig = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
        "clusters": [{"name": "x", "cluster": {"server": format!("http://127.0.0.1:{}", api::start())}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
    for (name, content) in [
        ("tls.crt", certificate.pem()),
        ("tls.key", key.serialize_pem()),
        ("config.yaml", "{}\n".to_owned()),
        ("kubeconfig", kubeconfig.to_string()),
    ] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_timeshard"))
        .args([
            "serve",
            "--listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--probe-listen=127.0.0.1:0",
            "--shutdown-drain=0s",
            "--log-format=json",
        ])
        .args(["--pod-name=one", "--pod-namespace=timeshard-system"])
        .arg(format!(
            "--config={}",
            dir.path().join("config.yaml").display()
        ))
        .arg(if self_signed {
            "--self-signed".to_owned()
        } else {
            format!("--cert-dir={}", dir.path().display())
        })
        .env("KUBECONFIG", dir.path().join("kubeconfig"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let process = Process(child);
    let port = log.by_ref().find_map(|line| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        Some(
            line["fields"]["admin_listen"]
                .as_str()?
                .parse::<SocketAddr>()
                .unwrap()
                .port(),
        )
    });
    std::thread::spawn(move || log.for_each(drop));
    (
        process,
        port.expect("the server says where it listens"),
        dir,
    )
}

/// A metric family of a scrape.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// The families of the text format, whose names are those of PromQL.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let (what, rest) = rest.split_once(' ').unwrap();
            let (name, rest) = rest.split_once(' ').unwrap();
            let family = families.entry(name.to_owned()).or_default();
            rest.clone_into(if what == "HELP" {
                &mut family.help
            } else {
                &mut family.kind
            });
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let of = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        let of = if families.contains_key(name) {
            name
        } else {
            of
        };
        let family = families
            .get_mut(of)
            .unwrap_or_else(|| panic!("{line}: its family was not described"));
        // No label value here contains a comma, a brace or an equals sign.
        let labels = line
            .split_once('{')
            .map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        family.labels.extend(
            labels
                .split(',')
                .filter_map(|label| Some(label.split_once('=')?.0.to_owned()))
                .filter(|label| label != "le"),
        );
    }
    families
}

fn unit(name: &str, family: &Family) -> &'static str {
    let base = name.strip_suffix("_total").unwrap_or(name);
    if base.ends_with("_timestamp_seconds") {
        "seconds since 1970"
    } else if base.ends_with("_seconds") {
        "seconds"
    } else if family.kind == "counter" {
        "events"
    } else {
        ""
    }
}

/// Metrics of a StatefulSet without series while no pod has reported the counted state, as here.
const WITHOUT_SERIES: [&str; 2] = [
    "timeshard_blocks_outside_windows",
    "timeshard_bucket_blocks",
];

fn table(mut families: BTreeMap<String, Family>) -> String {
    for name in WITHOUT_SERIES {
        if let Some(family) = families.get_mut(name) {
            family
                .labels
                .extend(["namespace", "statefulset"].map(str::to_owned));
        }
    }
    let mut table = "| metric | type | unit | labels | meaning |\n|-|-|-|-|-|\n".to_owned();
    for (name, family) in families {
        let labels: Vec<String> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let help = family.help.trim_end_matches('.');
        writeln!(
            table,
            "| `{name}` | {} | {} | {} | {help} |",
            family.kind,
            unit(&name, &family),
            labels.join(", ")
        )
        .unwrap();
    }
    table
}

/// Replaces or compares the text between the two marks of a program.
fn keep(page: &str, program: &str, table: &str) -> String {
    let begin =
        format!("<!-- {program}: written by UPDATE_GOLDEN=1 cargo test --test metrics -->\n");
    let end = format!("<!-- end of {program} -->\n");
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{PAGE} has no line {begin}"));
    let (now, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("{PAGE} has no line {end}"));
    if std::env::var_os("UPDATE_GOLDEN").is_none() {
        assert_eq!(
            now, table,
            "{PAGE} is out of date; rewrite it: UPDATE_GOLDEN=1 cargo test --test metrics"
        );
    }
    format!("{before}{begin}{table}{end}{after}")
}

/// Runs Prometheus' own linter if it is installed; it must be in CI.
fn lint(text: &str) {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Ok(promtool) => promtool,
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "promtool (Debian package prometheus): {error}"
            );
            return println!("skipped: no promtool here (Debian package prometheus)");
        }
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(
        said.status.success() && said.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
}

#[test]
fn the_page_is_what_a_scrape_shows() {
    let (_server, admin, _dir) = server(false);
    let (_other, other_admin, _other_dir) = server(true);
    let of_server = wait_for("a StatefulSet in the metrics", || {
        let text = scrape(admin, "text/plain")?;
        if text.contains(
            "timeshard_coverage_gap_seconds{namespace=\"monitoring\",statefulset=\"store\"}",
        ) {
            Ok(text)
        } else {
            Err(text)
        }
    });
    assert!(
        of_server.contains(
            "timeshard_uninjected_store_pods{namespace=\"monitoring\",statefulset=\"store\"} 1\n"
        ),
        "{of_server}"
    );
    let pod = Pod::new(Path::new("/thanos"));
    let _sidecar = pod.sidecar();
    pod.wait_started();
    let of_agent = scrape(pod.port, "text/plain").unwrap();
    let of_other = scrape(other_admin, "text/plain").unwrap();
    assert!(
        of_other.contains("timeshard_certificate_rotations_total"),
        "{of_other}"
    );
    lint(&of_other);
    for (port, text) in [(admin, &of_server), (pod.port, &of_agent)] {
        lint(text);
        let openmetrics = scrape(port, OPENMETRICS).unwrap();
        assert!(openmetrics.ends_with("# EOF\n"), "{openmetrics}");
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&openmetrics), samples(text), "{openmetrics}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let mut server_families = families(&of_other);
    server_families.extend(families(&of_server));
    let page = keep(&page, "timeshard", &table(server_families));
    let page = keep(&page, "timeshard-agent", &table(families(&of_agent)));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, page).unwrap();
    }
}
