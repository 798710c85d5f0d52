//! Stands in for kubelet and sidecars of pods without a node: `stand-in-sidecars NAMESPACE…`, with an
//! administrator's `KUBECONFIG`. For tests of the server at a scale beyond any test machine.
//!
//! Every pod of these namespaces gets its own address in 127.0.0.0/8 and becomes Ready. At that
//! address, `GET /status` returns the pod's entry in the ConfigMap as published, applied and verified
//! immediately, with one more restart. It does nothing else of a sidecar.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use thanos_timeshard::core::agent::loaded::{BucketCounts, LoadedBlocks};
use thanos_timeshard::core::agent::status::{AgentStatus, Phase};
use thanos_timeshard::core::model::entry::Entry;
use thanos_timeshard::core::model::names;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How many pods are made Ready concurrently.
const CONCURRENT_PATCHES: usize = 32;
/// How many loaded blocks each pod reports.
const BLOCKS: u64 = 130;
const MAX_REQUEST_BYTES: usize = 4096;

#[derive(Default)]
struct StandIn {
    entry: Option<Entry>,
    restarts: u64,
}

/// Pods, the stand-ins by namespace and name.
#[derive(Default)]
struct Pods {
    /// UIDs: a pod that is created again gets an address of its own.
    addressed: HashSet<String>,
    given: u32,
    stand_in: HashMap<PodName, StandIn>,
}

type PodName = (String, String);
type Shared = Arc<Mutex<Pods>>;

impl Pods {
    /// Returns whether the pod is new.
    fn appeared(&mut self, uid: String) -> bool {
        self.addressed.insert(uid)
    }

    /// The next address: 127.1.0.1 and on.
    fn address(&mut self) -> Ipv4Addr {
        self.given += 1;
        Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + self.given)
    }

    fn published(&mut self, pod: PodName, entry: Entry) {
        let stand_in = self.stand_in.entry(pod).or_default();
        let moved = stand_in
            .entry
            .as_ref()
            .is_some_and(|before| before.window != entry.window);
        stand_in.restarts += u64::from(moved);
        stand_in.entry = Some(entry);
    }

    fn answer(&self, pod: &PodName) -> AgentStatus {
        let stand_in = self.stand_in.get(pod);
        let entry = stand_in.and_then(|stand_in| stand_in.entry.as_ref());
        let window = entry.map(|entry| entry.window);
        AgentStatus {
            pod: pod.1.clone(),
            shard: entry.map(|entry| entry.shard),
            replica: entry.map(|entry| entry.replica),
            phase: if entry.is_some() {
                Phase::Serving
            } else {
                Phase::Starting
            },
            published: window,
            applied: window,
            verified: window.is_some(),
            restarts: stand_in.map_or(0, |stand_in| stand_in.restarts),
            last_error: None,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            contract: names::CONTRACT,
            namespace: Some(pod.0.clone()),
            uid: None,
            generation: entry.and_then(|entry| entry.generation),
            order: entry.and_then(|entry| entry.order),
            blocks: entry.map(|_| loaded()),
            blocks_unknown: None,
            last_load: None,
        }
    }
}

/// All blocks loaded, as of now.
fn loaded() -> LoadedBlocks {
    let bucket = BucketCounts {
        total: BLOCKS,
        older: 0,
        newer: 0,
    };
    LoadedBlocks {
        expected: BLOCKS,
        loaded: BLOCKS,
        missing_total: 0,
        missing: Vec::new(),
        last_sync_unix_seconds: thanos_timeshard::adapters::clock::unix_seconds(),
        bucket: Some(bucket),
    }
}

fn with<R>(pods: &Shared, act: impl FnOnce(&mut Pods) -> R) -> R {
    act(&mut pods.lock().unwrap_or_else(PoisonError::into_inner))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let namespaces: Vec<String> = std::env::args().skip(1).collect();
    anyhow::ensure!(
        !namespaces.is_empty(),
        "usage: stand-in-sidecars NAMESPACE…"
    );
    let client = Client::try_default()
        .await
        .context("no cluster: set KUBECONFIG")?;
    let pods = Shared::default();
    let followed = namespaces.into_iter().map(|namespace| {
        let (client, pods) = (client.clone(), pods.clone());
        async move {
            tokio::try_join!(
                make_ready(client.clone(), &namespace, &pods),
                read_entries(client, &namespace, &pods)
            )
        }
    });
    futures::future::try_join_all(followed).await?;
    Ok(())
}

/// Stands in for kubelet: gives each pod an address and makes it Ready.
async fn make_ready(client: Client, namespace: &str, pods: &Shared) -> anyhow::Result<()> {
    let names = Api::<PartialObjectMeta<Pod>>::namespaced(client.clone(), namespace);
    let api = Api::<Pod>::namespaced(client, namespace);
    let appeared = watcher(names, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(goes_on);
    let patched = appeared.map_ok(|pod| {
        let (api, name) = (api.clone(), pod.name_any());
        let key = (namespace.to_owned(), name.clone());
        let uid = pod.uid().unwrap_or_default();
        let appeared = with(pods, |pods| pods.appeared(uid));
        async move {
            if !appeared {
                return Ok(());
            }
            let (address, listener) = listen(pods).await.with_context(|| format!("pod {name}"))?;
            tokio::spawn(serve(listener, key, pods.clone()));
            // Any time will do: the server counts from its own observation.
            let since = thanos_timeshard::adapters::clock::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            let condition = |kind| json!({"type": kind, "status": "True", "lastTransitionTime": since});
            let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [condition("PodScheduled"), condition("ContainersReady"), condition("Ready")]}});
            match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await {
                // The pod was deleted meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                answer => answer.map(drop).with_context(|| format!("pod {name} did not become Ready")),
            }
        }
    });
    patched
        .try_buffer_unordered(CONCURRENT_PATCHES)
        .try_for_each(|()| async { Ok(()) })
        .await
}

/// A watch that breaks begins again.
async fn goes_on<K>(object: Result<K, watcher::Error>) -> Option<anyhow::Result<K>> {
    object
        .inspect_err(|error| eprintln!("watching again: {error}"))
        .ok()
        .map(Ok)
}

/// Listens on the next free address: another instance may run on this machine.
async fn listen(pods: &Shared) -> anyhow::Result<(Ipv4Addr, TcpListener)> {
    loop {
        let address = with(pods, Pods::address);
        match TcpListener::bind(SocketAddr::new(address.into(), names::SIDECAR_PORT)).await {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && address.is_loopback() => {}
            listener => {
                let listener = listener.with_context(|| {
                    format!("cannot listen on {address}; is ulimit -n above the number of pods?")
                })?;
                return Ok((address, listener));
            }
        }
    }
}

/// Stands in for sidecars: applies every entry as soon as it is published.
async fn read_entries(client: Client, namespace: &str, pods: &Shared) -> anyhow::Result<()> {
    let ours = watcher::Config::default().labels(&format!(
        "{}={}",
        names::MANAGED_BY_LABEL,
        names::MANAGED_BY
    ));
    let maps = watcher(Api::<ConfigMap>::namespaced(client, namespace), ours)
        .default_backoff()
        .applied_objects()
        .filter_map(goes_on);
    maps.try_for_each(|map| async move {
        let now = thanos_timeshard::adapters::clock::now();
        for (key, text) in map.data.unwrap_or_default() {
            let entry =
                Entry::parse(&text, now).map_err(|error| anyhow::anyhow!("{key}: {error}"))?;
            let name = key.strip_suffix(".yaml").unwrap_or(&key).to_owned();
            with(pods, |pods| {
                pods.published((namespace.to_owned(), name), entry);
            });
        }
        Ok(())
    })
    .await
}

/// One pod's sidecar.
async fn serve(listener: TcpListener, pod: PodName, pods: Shared) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let answer = with(&pods, |pods| pods.answer(&pod));
        tokio::spawn(reply(stream, answer));
    }
}

/// Answers one request with the status, whatever the path.
async fn reply(mut stream: TcpStream, answer: AgentStatus) -> Option<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > MAX_REQUEST_BYTES || stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::to_string(&answer).ok()?;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .ok()?;
    stream.shutdown().await.ok()
}
