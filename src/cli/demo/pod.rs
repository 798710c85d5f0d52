//! One pod on this machine: starts and syncs it as kubelet does, and reads its state.
//!
//! Invariants: its processes end with the thread that started them, however that ends, by the same
//! mechanism that ties thanos to the launcher; every wait has a limit, and the error includes the
//! end of the pod's log.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::super::Failure;
use super::localise::{self, Commands, Injected, PodDirectories, PodPorts};
use crate::adapters::files;
use crate::adapters::http_client::{self, GetLimits};
use crate::agent_cli;
use crate::core::agent::status::AgentStatus;
use crate::core::model::names;
use crate::core::model::window::Window;
use crate::core::thanos::flags;

/// The pause between two startup probes.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// How long a pod may take to start, or to make visible progress.
pub(super) const SERVING_LIMIT: Duration = Duration::from_mins(1);
/// Both containers of a pod write to this file.
const LOG: &str = "log";
/// How much of a log is read, in bytes.
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;
/// How many lines of the log a failure quotes.
const LOG_LINES: usize = 8;

pub(super) struct DemoPod {
    pub(super) name: String,
    pub(super) place: PodDirectories,
    pub(super) commands: Commands,
    sidecar: Option<Child>,
    launcher: Option<Child>,
}

/// A pod's processes.
#[derive(Clone, Debug)]
pub(super) struct PodProcess {
    /// `--min-time` and `--max-time` as thanos reports them; `None` if they cannot be read.
    pub(super) flags: Option<(String, String)>,
    /// Process ids.
    pub(super) launcher: Option<u32>,
    pub(super) thanos: Option<u32>,
}

impl DemoPod {
    /// Creates the pod's directories.
    pub(super) fn new(
        name: &str,
        injected: &Injected<'_>,
        place: PodDirectories,
    ) -> Result<Self, Failure> {
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
        })
    }

    /// Projects the ConfigMap as kubelet does: swaps the link `..data`, so that all files change
    /// together.
    pub(super) fn publish(&mut self, data: &BTreeMap<String, String>) -> Result<(), Failure> {
        let dir = self.place.dir.join(names::CONFIG_VOLUME);
        let files = data.iter().map(|(name, content)| (&**name, &**content));
        files::swap_volume(&dir, files)
            .map_err(|error| Failure::Failed(format!("{}: {error}", dir.display())))
    }

    /// Starts sidecar and launcher in kubelet's order: the launcher waits for the sidecar's startup probe.
    pub(super) async fn start(&mut self, path: Option<&std::ffi::OsStr>) -> Result<(), Failure> {
        self.sidecar = Some(spawn(&self.place, &self.commands.sidecar, path)?);
        let deadline = Instant::now() + SERVING_LIMIT;
        loop {
            let probed =
                http_client::get(self.status_address(), "/livez", GetLimits::default()).await;
            match probed {
                Ok((200, _)) => break,
                Ok((status, _)) => {
                    self.pause(deadline, &format!("its startup probe returns {status}"))
                        .await?;
                }
                Err(why) => self.pause(deadline, &why).await?,
            }
        }
        self.launcher = Some(spawn(&self.place, &self.commands.thanos, path)?);
        Ok(())
    }

    fn status_address(&self) -> SocketAddr {
        (self.place.ip, self.place.ports.status).into()
    }

    pub(super) const fn is_started(&self) -> bool {
        self.sidecar.is_some()
    }

    pub(super) async fn running(&self) -> PodProcess {
        let launcher = self.launcher.as_ref().and_then(Child::id);
        PodProcess {
            flags: self.flags().await,
            launcher,
            thanos: launcher.and_then(first_child),
        }
    }

    /// Polls the sidecar.
    pub(super) async fn status(&self) -> Result<AgentStatus, String> {
        let (_, body) =
            http_client::get(self.status_address(), "/status", GetLimits::default()).await?;
        serde_json::from_slice(&body).map_err(|error| format!("/status: {error}"))
    }

    /// Reads `--min-time` and `--max-time` from thanos' HTTP API.
    async fn flags(&self) -> Option<(String, String)> {
        let address = (self.place.ip, self.place.ports.http).into();
        let (_, body) = http_client::get(address, "/api/v1/status/flags", GetLimits::default())
            .await
            .ok()?;
        let document: Value = serde_json::from_slice(&body).ok()?;
        let flag = |name: &str| Some(document.get("data")?.get(name)?.as_str()?.to_owned());
        Some((flag("min-time")?, flag("max-time")?))
    }

    /// Fails if one of its processes has ended.
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

    /// Waits before the next probe. Fails if a process has ended or the deadline has passed.
    async fn pause(&mut self, deadline: Instant, last: &str) -> Result<(), Failure> {
        self.alive()?;
        if Instant::now() >= deadline {
            return Err(self.failure(&format!(
                "it did not start within {} s: {last}",
                SERVING_LIMIT.as_secs()
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

    /// Signals both processes to end; SIGINT ends the launcher without a drain.
    pub(super) fn end(&self) {
        for (child, signal) in [(&self.launcher, Signal::INT), (&self.sidecar, Signal::TERM)] {
            let pid = child
                .as_ref()
                .and_then(Child::id)
                .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
            if let Some(pid) = pid {
                // A process that has already ended is reaped like the others.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    pub(super) fn children(&mut self) -> impl Iterator<Item = &mut Child> {
        [&mut self.launcher, &mut self.sidecar]
            .into_iter()
            .flatten()
    }
}

/// Chooses ports on a pod's address: the injected ones, or others where these are in use.
pub(super) fn free_ports(ip: std::net::Ipv4Addr, wanted: PodPorts) -> io::Result<PodPorts> {
    // Keeps every listener open until all ports are chosen, so that no two are the same.
    let mut listeners = Vec::new();
    let mut free = |port: u16| {
        let listener = TcpListener::bind((ip, port)).or_else(|_| TcpListener::bind((ip, 0)))?;
        let port = listener.local_addr()?.port();
        listeners.push(listener);
        io::Result::Ok(port)
    };
    Ok(PodPorts {
        http: free(wanted.http)?,
        grpc: free(wanted.grpc)?,
        status: free(wanted.status)?,
    })
}

fn spawn(
    place: &PodDirectories,
    command: &localise::Command,
    path: Option<&std::ffi::OsStr>,
) -> Result<Child, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", place.agent.display()));
    let Some((program, args)) = command.argv.split_first() else {
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
    // Ties the process to this one's life, as the agent does for thanos.
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
    // Ctrl-C in the terminal reaches only the demo, which then ends them in order.
    child
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)
}

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

/// Whether thanos' flags are this window; it prints -35d as -5w.
pub(super) fn states(flags: &(String, String), window: Window) -> bool {
    flags::effective_bound(&flags.0) == Some(window.min)
        && flags::effective_bound(&flags.1) == Some(window.max)
}
