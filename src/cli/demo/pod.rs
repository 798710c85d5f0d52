//! One pod on this machine: what kubelet does for it, and what it says about itself.
//!
//! Invariants: its processes end with the thread that started them, however that ends, by the step that the launcher uses
//! for thanos; every wait has a limit, and what comes back at a limit says what the pod's log says.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::super::Failure;
use super::words::{self, Commands, Injected, Place, Ports};
use crate::adapters::files;
use crate::adapters::http_client::{self, GetLimits};
use crate::agent_cli;
use crate::core::agent_status::AgentStatus;
use crate::core::names;
use crate::core::time_flags;
use crate::core::window::Window;

/// The pause between two startup probes.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// A pod may take this long to start, or for anything else without visible progress.
pub(super) const SERVING_LIMIT: Duration = Duration::from_mins(1);
/// Where both containers of a pod write.
const LOG: &str = "log";
/// A log is read up to here. Bytes.
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;
/// Lines of the log in a failure.
const LOG_LINES: usize = 8;

/// The pod.
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) commands: Commands,
    sidecar: Option<Child>,
    launcher: Option<Child>,
    /// Versions of the ConfigMap that it has seen.
    versions: u32,
}

/// What runs in a pod.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Thanos' own words; `None` if they cannot be read.
    pub(super) flags: Option<(String, String)>,
    /// Process ids.
    pub(super) launcher: Option<u32>,
    pub(super) thanos: Option<u32>,
}

impl Pod {
    /// Makes the pod's directories.
    pub(super) fn new(name: &str, injected: &Injected<'_>, place: Place) -> Result<Self, Failure> {
        let commands = injected.commands(&place);
        let made = fs::create_dir(&place.dir)
            .and_then(|()| commands.volumes.iter().try_for_each(fs::create_dir_all));
        made.map_err(|error| Failure::Failed(format!("{}: {error}", place.dir.display())))?;
        Ok(Self {
            name: name.to_owned(),
            place,
            commands,
            sidecar: None,
            launcher: None,
            versions: 0,
        })
    }

    /// What kubelet does when the ConfigMap changes: all files at once, by exchanging the link `..data`.
    pub(super) fn publish(&mut self, data: &BTreeMap<String, String>) -> Result<(), Failure> {
        let dir = self.place.dir.join(names::CONFIG_VOLUME);
        self.versions += 1;
        swap(&dir, &format!("..version-{}", self.versions), data)
            .map_err(|error| Failure::Failed(format!("{}: {error}", dir.display())))
    }

    /// Starts sidecar and launcher in kubelet's order: the startup probe holds the launcher back.
    pub(super) async fn start(&mut self, path: Option<&std::ffi::OsStr>) -> Result<(), Failure> {
        self.sidecar = Some(spawn(&self.place, &self.commands.sidecar, path)?);
        let deadline = Instant::now() + SERVING_LIMIT;
        loop {
            let probed =
                http_client::get(self.status_address(), "/livez", GetLimits::default()).await;
            match probed {
                Ok((200, _)) => break,
                Ok((status, _)) => {
                    self.go_on(deadline, &format!("its startup probe gets {status}"))
                        .await?
                }
                Err(why) => self.go_on(deadline, &why).await?,
            }
        }
        self.launcher = Some(spawn(&self.place, &self.commands.thanos, path)?);
        Ok(())
    }

    fn status_address(&self) -> SocketAddr {
        (self.place.ip, self.place.ports.status).into()
    }

    /// Whether kubelet has begun to start it.
    pub(super) const fn is_started(&self) -> bool {
        self.sidecar.is_some()
    }

    /// What is in it now.
    pub(super) async fn running(&self) -> Running {
        let launcher = self.launcher.as_ref().and_then(Child::id);
        Running {
            flags: self.flags().await,
            launcher,
            thanos: launcher.and_then(first_child),
        }
    }

    /// What its sidecar answers.
    pub(super) async fn status(&self) -> Result<AgentStatus, String> {
        let (_, body) =
            http_client::get(self.status_address(), "/status", GetLimits::default()).await?;
        serde_json::from_slice(&body).map_err(|error| format!("/status: {error}"))
    }

    /// `--min-time` and `--max-time` as thanos states them.
    async fn flags(&self) -> Option<(String, String)> {
        let address = (self.place.ip, self.place.ports.http).into();
        let (_, body) = http_client::get(address, "/api/v1/status/flags", GetLimits::default())
            .await
            .ok()?;
        let document: Value = serde_json::from_slice(&body).ok()?;
        let flag = |name: &str| Some(document.get("data")?.get(name)?.as_str()?.to_owned());
        Some((flag("min-time")?, flag("max-time")?))
    }

    /// Fails when a process of it has ended.
    pub(super) fn alive(&mut self) -> Result<(), Failure> {
        let ended = |child: &mut Option<Child>| {
            child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten())
        };
        if let Some(status) = ended(&mut self.sidecar) {
            return Err(self.failure(&format!("config-sidecar has ended ({status})")));
        }
        if let Some(status) = ended(&mut self.launcher) {
            return Err(self.failure(&format!("the launcher has ended ({status})")));
        }
        Ok(())
    }

    /// A pause, or the reason why no further look is worth it.
    async fn go_on(&mut self, deadline: Instant, excuse: &str) -> Result<(), Failure> {
        self.alive()?;
        if Instant::now() >= deadline {
            return Err(self.failure(&format!(
                "it does not start within its time limit: {excuse}"
            )));
        }
        tokio::time::sleep(PROBE_EVERY).await;
        Ok(())
    }

    /// A failure with the end of the pod's log.
    pub(super) fn failure(&self, why: &str) -> Failure {
        let log = files::read(&self.place.dir.join(LOG), MAX_LOG_BYTES)
            .ok()
            .flatten()
            .unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last: String = lines[lines.len().saturating_sub(LOG_LINES)..]
            .iter()
            .map(|line| format!("\n   {line}"))
            .collect();
        Failure::Failed(format!("{}: {why}; its log ends with:{last}", self.name))
    }

    /// Tells both processes to end; the launcher is asked not to drain.
    pub(super) fn end(&self) {
        for (child, signal) in [(&self.launcher, Signal::INT), (&self.sidecar, Signal::TERM)] {
            let pid = child
                .as_ref()
                .and_then(Child::id)
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
            if let Some(pid) = pid {
                // One that has ended is waited for like the others.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    /// The processes that were started.
    pub(super) fn children(&mut self) -> impl Iterator<Item = &mut Child> {
        [&mut self.launcher, &mut self.sidecar]
            .into_iter()
            .flatten()
    }
}

/// Chooses ports on a pod's address: those that were injected, unless something on this machine has them.
pub(super) fn free_ports(ip: std::net::Ipv4Addr, wanted: Ports) -> io::Result<Ports> {
    // All are held until all are chosen, so that no two are the same.
    let mut held = Vec::new();
    let mut free = |port: u16| {
        let listener = TcpListener::bind((ip, port)).or_else(|_| TcpListener::bind((ip, 0)))?;
        let port = listener.local_addr()?.port();
        held.push(listener);
        io::Result::Ok(port)
    };
    Ok(Ports {
        http: free(wanted.http)?,
        grpc: free(wanted.grpc)?,
        status: free(wanted.status)?,
    })
}

fn swap(dir: &Path, version: &str, data: &BTreeMap<String, String>) -> io::Result<()> {
    fs::create_dir(dir.join(version))?;
    for (name, content) in data {
        fs::write(dir.join(version).join(name), content)?;
        if fs::symlink_metadata(dir.join(name)).is_err() {
            symlink(format!("..data/{name}"), dir.join(name))?;
        }
    }
    let old = fs::read_link(dir.join("..data")).ok();
    symlink(version, dir.join("..data_tmp"))?;
    fs::rename(dir.join("..data_tmp"), dir.join("..data"))?;
    old.map_or(Ok(()), |old| fs::remove_dir_all(dir.join(old)))
}

fn spawn(
    place: &Place,
    command: &words::Command,
    path: Option<&std::ffi::OsStr>,
) -> Result<Child, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", place.agent.display()));
    let Some((program, args)) = command.words.split_first() else {
        return Err(Failure::Failed(format!(
            "{}: no command was injected",
            place.pod
        )));
    };
    let log: File = OpenOptions::new()
        .append(true)
        .create(true)
        .open(place.dir.join(LOG))
        .map_err(failed)?;
    let mut child = Command::new(std::env::current_exe().map_err(failed)?);
    // The agent's own way to tie a process to its parent's life.
    child
        .arg(agent_cli::CHILD_COMMAND)
        .arg(std::process::id().to_string())
        .arg(program)
        .arg(program)
        .args(args);
    child
        .env_clear()
        .env("PATH", path.unwrap_or_default())
        .envs(command.env.iter().cloned());
    child.current_dir(&place.dir).stdin(Stdio::null());
    child.stdout(log.try_clone().map_err(failed)?).stderr(log);
    // A Ctrl-C in the terminal is for the demo, which then ends them in order.
    child
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}

/// The process that another one has started.
fn first_child(parent: u32) -> Option<u32> {
    let children = files::read(
        Path::new(&format!("/proc/{parent}/task/{parent}/children")),
        4096,
    )
    .ok()??;
    String::from_utf8_lossy(&children)
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Whether what thanos states is this window; it writes -35d as -5w.
pub(super) fn states(flags: &(String, String), window: Window) -> bool {
    time_flags::effective_bound(&flags.0) == Some(window.min)
        && time_flags::effective_bound(&flags.1) == Some(window.max)
}
