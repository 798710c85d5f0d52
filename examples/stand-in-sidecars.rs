//! Pods without a node, as if kubelet and sidecars were there: `stand-in-sidecars NAMESPACE…`, with an administrator's
//! `KUBECONFIG`. For tests of the server at a scale that no test machine has room for.
//!
//! Every pod of these namespaces gets an address of its own within 127.0.0.0/8 and becomes Ready; at that address `GET
//! /status` answers what the pod's entry in the ConfigMap says: published, applied and verified at once, with one restart
//! more than before. It answers the way a sidecar does, and does nothing else.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use thanos_timeshard::core::agent_status::{AgentStatus, Phase};
use thanos_timeshard::core::entry::Entry;
use thanos_timeshard::core::loaded::{BucketCounts, LoadedBlocks};
use thanos_timeshard::core::names;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Pods made Ready at the same time.
const CONCURRENT_PATCHES: usize = 32;
/// Blocks that each pod says it has loaded.
const BLOCKS: u64 = 130;
/// The longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 4096;

#[derive(Default)]
struct Stood {
    entry: Option<Entry>,
    restarts: u64,
}

/// Pods by namespace and name.
#[derive(Default)]
struct Pods {
    addressed: HashSet<PodName>,
    given: u32,
    stood: HashMap<PodName, Stood>,
}

type PodName = (String, String);
type Shared = Arc<Mutex<Pods>>;

impl Pods {
    /// Whether it is new.
    fn appeared(&mut self, pod: &PodName) -> bool {
        self.addressed.insert(pod.clone())
    }

    /// The next address: 127.1.0.1 and on.
    fn address(&mut self) -> Ipv4Addr {
        self.given += 1;
        Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + self.given)
    }

    fn published(&mut self, pod: PodName, entry: Entry) {
        let stood = self.stood.entry(pod).or_default();
        let moved = stood
            .entry
            .as_ref()
            .is_some_and(|before| before.window != entry.window);
        stood.restarts += u64::from(moved);
        stood.entry = Some(entry);
    }

    fn answer(&self, pod: &PodName) -> AgentStatus {
        let stood = self.stood.get(pod);
        let entry = stood.and_then(|stood| stood.entry.as_ref());
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
            restarts: stood.map_or(0, |stood| stood.restarts),
            last_error: None,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            contract: names::CONTRACT,
            namespace: Some(pod.0.clone()),
            uid: None,
            generation: entry.and_then(|entry| entry.generation),
            order: entry.and_then(|entry| entry.order),
            blocks: entry.map(|_| loaded()),
            blocks_unknown: None,
        }
    }
}

/// Everything that there is, read a moment ago.
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

/// Does what kubelet would: gives each pod an address, and calls it Ready.
async fn make_ready(client: Client, namespace: &str, pods: &Shared) -> anyhow::Result<()> {
    let names = Api::<PartialObjectMeta<Pod>>::namespaced(client.clone(), namespace);
    let api = Api::<Pod>::namespaced(client, namespace);
    let appeared = watcher(names, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let patched = appeared.map_err(anyhow::Error::from).map_ok(|pod| {
        let (api, name) = (api.clone(), pod.name_any());
        let key = (namespace.to_owned(), name.clone());
        let appeared = with(pods, |pods| pods.appeared(&key));
        async move {
            if !appeared {
                return Ok(());
            }
            let (address, listener) = listen(pods).await.with_context(|| format!("pod {name}"))?;
            tokio::spawn(serve(listener, key, pods.clone()));
            // Whatever it says: a server counts from when it has seen it, by its own clock.
            let since = thanos_timeshard::adapters::clock::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            let condition = |kind| json!({"type": kind, "status": "True", "lastTransitionTime": since});
            let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [condition("PodScheduled"), condition("ContainersReady"), condition("Ready")]}});
            match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await {
                // Deleted meanwhile.
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

/// Listens on the next address that nobody has: another of these may run on this machine.
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

/// Does what sidecars would: every entry is applied as soon as it is published.
async fn read_entries(client: Client, namespace: &str, pods: &Shared) -> anyhow::Result<()> {
    let ours = watcher::Config::default().labels(&format!(
        "{}={}",
        names::MANAGED_BY_LABEL,
        names::MANAGED_BY
    ));
    let maps = watcher(Api::<ConfigMap>::namespaced(client, namespace), ours)
        .default_backoff()
        .applied_objects();
    maps.map_err(anyhow::Error::from)
        .try_for_each(|map| async move {
            let now = thanos_timeshard::adapters::clock::now();
            for (key, text) in map.data.unwrap_or_default() {
                let entry =
                    Entry::parse(&text, now).map_err(|error| anyhow::anyhow!("{key}: {error}"))?;
                let name = key.strip_suffix(".yaml").unwrap_or(&key).to_owned();
                with(pods, |pods| {
                    pods.published((namespace.to_owned(), name), entry)
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

/// One request and one answer; whoever asks for something else than `/status` gets it all the same.
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
