//! A real `thanos query` with real stores: what `/api/v1/stores` lists of a store that dies and of
//! one that leaves discovery. Set `TIMESHARD_TEST_THANOS` to its path; skipped otherwise.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use thanos_timeshard::core::thanos::query::read_arguments;
use thanos_timeshard::core::thanos::stores::{StoreFault, StoresReader};

use crate::support::{Process, free_port, get, real_thanos, wait_for};

fn run(thanos: &Path, args: &[String]) -> Process {
    let mut command = Command::new(thanos);
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Process(command.spawn().unwrap())
}

/// The arguments of a store on an empty bucket.
fn store(dir: &Path, n: u8, grpc: u16) -> Vec<String> {
    vec![
        "store".to_owned(),
        format!("--data-dir={}/data-{n}", dir.display()),
        format!("--objstore.config-file={}/bucket.yaml", dir.display()),
        format!("--http-address=127.0.0.1:{}", free_port()),
        format!("--grpc-address=127.0.0.1:{grpc}"),
    ]
}

/// Names and errors of the listed stores.
fn listed(port: u16, path: &str) -> Result<Vec<(String, Option<StoreFault>)>, String> {
    let (code, body) = get(port, path)?;
    if code != 200 {
        return Err(format!("{code} on {path}: {body}"));
    }
    // Large answers come in chunks, small ones as a whole.
    let json = &body[body.find('{').ok_or("no JSON")?..=body.rfind('}').ok_or("no JSON")?];
    let mut reader = StoresReader::default();
    reader
        .push(json.as_bytes())
        .map_err(|error| error.to_string())?;
    let stores = reader
        .finish()
        .map_err(|error| format!("{error}: {json}"))?;
    let all = stores.0.into_iter();
    Ok(all
        .map(|store| (store.name.into_owned(), store.error))
        .collect())
}

/// Waits until the querier lists exactly these.
fn wait(what: &str, (port, path): (u16, &str), expected: &[(&str, Option<&'static str>)]) {
    wait_for(what, || {
        let all = listed(port, path)?;
        let mut seen: Vec<_> = all
            .iter()
            .map(|(name, fault)| (name.as_str(), fault.map(|fault| fault.0)))
            .collect();
        seen.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        (seen == expected).then_some(()).ok_or(format!("{seen:?}"))
    });
}

/// Writes what the querier discovers: addresses, and one of them as a group as well.
fn discover(dir: &Path, addresses: &[&str], group: &str) {
    let items = addresses
        .iter()
        .map(|address| format!("- address: {address}\n"));
    let items: String = items.collect();
    let group = format!("- {{address: \"{group}\", group: true}}\n");
    let text = format!("endpoints:\n{items}{group}");
    fs::write(dir.join("endpoints.yaml"), text).unwrap();
}

fn query(dir: &Path) -> Vec<String> {
    vec![
        "query".to_owned(),
        format!("--http-address=127.0.0.1:{}", free_port()),
        format!("--grpc-address=127.0.0.1:{}", free_port()),
        format!("--endpoint.sd-config-file={}/endpoints.yaml", dir.display()),
        "--endpoint.sd-config-reload-interval=1s".to_owned(),
        "--endpoint.info-timeout=1s".to_owned(),
        "--web.external-prefix=/thanos/".to_owned(),
    ]
}

#[test]
fn the_list_of_a_real_querier_shows_which_stores_it_asks() {
    let Some(thanos) = real_thanos() else { return };
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    fs::create_dir(&bucket).unwrap();
    let text = format!(
        "type: FILESYSTEM\nconfig: {{directory: {}}}\n",
        bucket.display()
    );
    fs::write(dir.path().join("bucket.yaml"), text).unwrap();
    let ports = [free_port(), free_port(), free_port()];
    let mut stores: Vec<Process> = (0_u8..)
        .zip(ports)
        .map(|(n, port)| run(&thanos, &store(dir.path(), n, port)))
        .collect();
    // The stores are ready before the querier looks for them, which it does every 5 s.
    for port in ports {
        wait_for("a store's gRPC port", || {
            TcpStream::connect(("127.0.0.1", port))
                .map(drop)
                .map_err(|error| error.to_string())
        });
    }
    let [stays, dies, leaves] = ports.map(|port| format!("127.0.0.1:{port}"));
    let grouped = format!("thanos:///{stays}");
    discover(dir.path(), &[&stays, &dies, &leaves], &stays);
    let args = query(dir.path());
    let _querier = run(&thanos, &args);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let read = read_arguments(&args);
    assert!(!read.told, "its endpoints are in a file");
    let path = format!("{}/api/v1/stores", read.prefix.unwrap());
    let at = (read.port.unwrap(), path.as_str());
    let (first, second, third) = ((&*stays, None), (&*dies, None), (&*leaves, None));
    let all = [first, second, third, (&*grouped, None)];
    wait("all stores, and the group by its name", at, &all);
    let without_prefix = listed(at.0, "/api/v1/stores");
    assert!(without_prefix.unwrap_err().starts_with("404"));

    // One dies while discovery still has it; one leaves discovery and still runs.
    stores[1].kill();
    discover(dir.path(), &[&stays, &dies], &stays);
    let dead = (&*dies, Some("connection refused"));
    let left = [first, dead, (&*grouped, None)];
    wait("the dead one with its error, the other gone", at, &left);
}
