//! All pods of the demo, and their directory.
//!
//! Invariant: [`Machine::end`], or dropping the value, ends every process and then removes the
//! directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::{join_all, try_join_all};

use super::super::Failure;
use super::super::inject::Admitted;
use super::localise::{self, Injected, PodDirectories};
use super::pod::{self, DemoPod};
use super::programs::{self, ThanosProgram};
use crate::core::agent::status::AgentStatus;

/// Time for all processes to end before they are killed.
const END_LIMIT: Duration = Duration::from_secs(10);
const MAX_NAMES: u32 = 100;
/// Only the user may read what the pods write.
const PRIVATE: u32 = 0o700;

/// Fields are dropped in this order: first the processes, then the directory.
pub(super) struct Machine {
    pub(super) pods: Vec<DemoPod>,
    agent: PathBuf,
    thanos: PathBuf,
    bucket: PathBuf,
    path: Option<OsString>,
    tree: Tree,
}

/// A directory that is removed when dropped.
struct Tree(PathBuf);

impl Tree {
    fn new() -> io::Result<Self> {
        let id = std::process::id();
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for n in 0..MAX_NAMES {
            // A killed demo with the same process id may have left its directory.
            let dir = std::env::temp_dir().join(if n == 0 {
                format!("timeshard-demo-{id}")
            } else {
                format!("timeshard-demo-{id}-{n}")
            });
            match DirBuilder::new().mode(PRIVATE).create(&dir) {
                Ok(()) => return Ok(Self(dir)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("{}: {error}", dir.display()),
                    ));
                }
            }
        }
        Err(last)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Dropped only after another failure, which is the one to report.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Machine {
    /// Creates the directory, without pods.
    pub(super) fn new(
        thanos: &ThanosProgram,
        agent: Option<&Path>,
        path: Option<OsString>,
    ) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::Failed(format!("cannot create a temporary directory: {error}"))
        };
        let tree = Tree::new().map_err(failed)?;
        let (agent, thanos) = programs::place(&tree.0, thanos, agent)?;
        let bucket = bucket(&tree.0).map_err(failed)?;
        Ok(Self {
            pods: Vec::new(),
            agent,
            thanos,
            bucket,
            path,
            tree,
        })
    }

    /// Creates the directories of these pods; [`Machine::start`] starts them.
    pub(super) fn add(&mut self, namespace: &str, admitted: &[Admitted]) -> Result<(), Failure> {
        for admitted in admitted {
            let Some(injected) = Injected::of(&admitted.pod) else {
                continue;
            };
            let dir = self.tree.0.join(localise::file_name(&admitted.name));
            let ip = pod_ip(u8::try_from(self.pods.len()).unwrap_or(u8::MAX));
            let ports = pod::free_ports(ip, injected.ports()).map_err(|error| {
                Failure::Failed(format!("cannot listen on {ip}: {error}; the demo gives each pod an address in 127.0.0.0/8"))
            })?;
            let (agent, thanos, bucket) =
                (self.agent.clone(), self.thanos.clone(), self.bucket.clone());
            let place = PodDirectories {
                dir,
                pod: admitted.name.clone(),
                namespace: namespace.to_owned(),
                ip,
                ports,
                agent,
                thanos,
                bucket,
            };
            self.pods
                .push(DemoPod::new(&admitted.name, &injected, place)?);
        }
        Ok(())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.tree.0
    }

    /// Projects the ConfigMap into every pod's volume, as kubelet does.
    pub(super) fn publish(&mut self, data: &BTreeMap<String, String>) -> Result<(), Failure> {
        self.pods.iter_mut().try_for_each(|pod| pod.publish(data))
    }

    /// Starts every pod that has not been started.
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        let path = self.path.as_deref();
        try_join_all(
            self.pods
                .iter_mut()
                .filter(|pod| !pod.is_started())
                .map(|pod| pod.start(path)),
        )
        .await
        .map(drop)
    }

    /// Polls every sidecar concurrently.
    pub(super) async fn poll(&self) -> Vec<(&str, Result<AgentStatus, String>)> {
        join_all(
            self.pods
                .iter()
                .map(|pod| async { (pod.name.as_str(), pod.status().await) }),
        )
        .await
    }

    /// Fails if a process has ended.
    pub(super) fn alive(&mut self) -> Result<(), Failure> {
        self.pods.iter_mut().try_for_each(DemoPod::alive)
    }

    /// A failure of a pod, with the end of its log.
    pub(super) fn failure(&self, pod: &str, why: &str) -> Failure {
        let found = self.pods.iter().find(|one| one.name == pod);
        found.map_or_else(
            || Failure::Failed(format!("{pod}: {why}")),
            |one| one.failure(why),
        )
    }

    /// Ends every process and removes the directory.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        self.pods.iter().for_each(DemoPod::end);
        let mut children: Vec<_> = self.pods.iter_mut().flat_map(DemoPod::children).collect();
        let waits = join_all(children.iter_mut().map(|child| child.wait()));
        if tokio::time::timeout(END_LIMIT, waits).await.is_err() {
            // Killing a launcher kills its thanos.
            join_all(children.iter_mut().map(|child| child.kill())).await;
        }
        fs::remove_dir_all(&self.tree.0).map_err(|error| {
            Failure::Failed(format!("{}: cannot remove: {error}", self.tree.0.display()))
        })
    }
}

/// Creates one empty bucket for all pods. Returns the path of its configuration.
fn bucket(tree: &Path) -> io::Result<PathBuf> {
    let (dir, config) = (tree.join("bucket"), tree.join("bucket.yaml"));
    fs::create_dir_all(&dir)?;
    // A JSON string is valid YAML, whatever the directory's name.
    let quoted = serde_json::Value::from(dir.to_string_lossy()).to_string();
    fs::write(
        &config,
        format!("type: FILESYSTEM\nconfig: {{directory: {quoted}}}\n"),
    )?;
    Ok(config)
}

/// An address for the n-th pod. All of 127.0.0.0/8 is this machine, so each pod gets its own, and
/// two demos can run at the same time.
fn pod_ip(n: u8) -> Ipv4Addr {
    let [_, high, low, lowest] = std::process::id().to_be_bytes();
    // Avoids 127.0.0.0/16, where other programs listen.
    Ipv4Addr::new(127, 64 | (high ^ low) & 0x3f, lowest, 16 + n)
}
