//! Turns the injected commands into commands for this machine: the same arguments, with the
//! cluster's paths and addresses substituted.
//!
//! Every substitution is recorded, so that the demo can print it. Pure: no file or socket is
//! touched.

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::core::kube::recognise::sidecar_of;
use crate::core::model::names;
use crate::core::thanos::args as thanos_args;

/// A pod's directories, addresses and programs on this machine.
#[derive(Clone, Debug)]
pub(super) struct PodDirectories {
    pub(super) dir: PathBuf,
    pub(super) pod: String,
    pub(super) namespace: String,
    pub(super) ip: Ipv4Addr,
    pub(super) ports: PodPorts,
    pub(super) agent: PathBuf,
    pub(super) thanos: PathBuf,
    /// The bucket's configuration file.
    pub(super) bucket: PathBuf,
}

/// The ports that a pod listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PodPorts {
    pub(super) http: u16,
    pub(super) grpc: u16,
    /// The sidecar's.
    pub(super) status: u16,
}

/// A program with its arguments and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
}

/// An injected pod's two commands.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    pub(super) sidecar: Command,
    /// The launcher with thanos.
    pub(super) thanos: Command,
    /// Each substitution: from, to.
    pub(super) substitutions: Vec<(String, String)>,
    /// Directories in place of volumes.
    pub(super) volumes: Vec<PathBuf>,
}

/// The two containers of an injected pod.
pub(super) struct Injected<'a> {
    sidecar: &'a Value,
    thanos: &'a Value,
}

impl<'a> Injected<'a> {
    /// Returns `None` if the pod was not injected.
    pub(super) fn of(pod: &'a Value) -> Option<Self> {
        let sidecar = sidecar_of(pod)?;
        let mut containers = pod.pointer("/spec/containers")?.as_array()?.iter();
        let thanos =
            containers.find(|c| texts(c, "command").next() == Some(names::AGENT_IN_SHARED_DIR))?;
        Some(Self { sidecar, thanos })
    }

    pub(super) fn ports(&self) -> PodPorts {
        let port = |flag: &str| {
            texts(self.sidecar, "args")
                .find_map(|arg| thanos_args::port_of(arg.strip_prefix(flag)?))
        };
        PodPorts {
            http: port("--thanos-url=").unwrap_or(names::THANOS_HTTP_PORT),
            grpc: port("--grpc-address=").unwrap_or(names::THANOS_GRPC_PORT),
            status: names::SIDECAR_PORT,
        }
    }

    /// Returns a `--reload` flag other than `exec`: such pods do not restart thanos in place, which
    /// is what the demo shows.
    pub(super) fn other_reload(&self) -> Option<&'a str> {
        texts(self.sidecar, "args")
            .find(|arg| arg.starts_with("--reload=") && *arg != "--reload=exec")
    }

    pub(super) fn commands(&self, place: &PodDirectories) -> Commands {
        let mut substitutions = Vec::new();
        let mut sidecar = Localiser::new(self.sidecar, place, &mut substitutions);
        let (mut args, mut volumes) = (
            sidecar.args(texts(self.sidecar, "command").chain(texts(self.sidecar, "args"))),
            sidecar.volumes(),
        );
        args.push(sidecar.added(format!("--listen={}:{}", place.ip, place.ports.status)));
        let sidecar = Command {
            argv: args,
            env: sidecar.env,
        };

        let mut thanos = Localiser::new(self.thanos, place, &mut substitutions);
        let mut args =
            thanos.launched(texts(self.thanos, "command").chain(texts(self.thanos, "args")));
        for flag in [Flag::Http, Flag::Grpc, Flag::Bucket] {
            if !thanos.seen.contains(&flag) {
                args.extend(flag.on(place).map(|arg| thanos.added(arg)));
            }
        }
        if place.thanos.ends_with(super::programs::STAND_IN) {
            args.push(thanos.added(STAND_IN_LOADS.to_owned()));
        }
        volumes.extend(thanos.volumes());
        Commands {
            sidecar,
            thanos: Command {
                argv: args,
                env: thanos.env,
            },
            substitutions,
            volumes,
        }
    }
}

/// Delays the stand-in's readiness, so that its restart can be observed.
const STAND_IN_LOADS: &str = "--stand-in-ready-after-ms=300";

/// A flag whose value must be substituted on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Http,
    Grpc,
    Url,
    DataDir,
    Bucket,
    /// Refers to a file that only the cluster has.
    Elsewhere,
}

impl Flag {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "--http-address" => Self::Http,
            "--grpc-address" => Self::Grpc,
            "--thanos-url" => Self::Url,
            "--data-dir" => Self::DataDir,
            "--objstore.config" | "--objstore.config-file" => Self::Bucket,
            "--http.config"
            | "--grpc-server-tls-cert"
            | "--grpc-server-tls-key"
            | "--grpc-server-tls-client-ca" => Self::Elsewhere,
            _ => {
                let configured = name.strip_suffix("-file").unwrap_or(name);
                let optional = [
                    "tracing",
                    "index-cache",
                    "store.caching-bucket",
                    "request.logging",
                    "selector.relabel",
                ];
                let subject = configured.strip_prefix("--")?;
                let subject = subject
                    .strip_suffix(".config")
                    .or(subject.strip_suffix("-config"))?;
                return optional.contains(&subject).then_some(Self::Elsewhere);
            }
        })
    }

    /// The argument in its place, if that does not depend on the old value.
    fn on(self, place: &PodDirectories) -> Option<String> {
        let PodPorts { http, grpc, .. } = place.ports;
        match self {
            Self::Http => Some(format!("--http-address={}:{http}", place.ip)),
            Self::Grpc => Some(format!("--grpc-address={}:{grpc}", place.ip)),
            Self::Url => Some(format!("--thanos-url=http://{}:{http}", place.ip)),
            Self::Bucket => Some(format!("--objstore.config-file={}", place.bucket.display())),
            Self::DataDir | Self::Elsewhere => None,
        }
    }
}

/// Substitutes one container's arguments.
struct Localiser<'a> {
    place: &'a PodDirectories,
    env: Vec<(String, String)>,
    /// Mount paths and the directories in place of their volumes.
    mounts: Vec<(&'a str, PathBuf)>,
    seen: Vec<Flag>,
    substitutions: &'a mut Vec<(String, String)>,
}

impl<'a> Localiser<'a> {
    fn new(
        container: &'a Value,
        place: &'a PodDirectories,
        substitutions: &'a mut Vec<(String, String)>,
    ) -> Self {
        let list = |key: &str| {
            container
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let mounts = list("volumeMounts").filter_map(|mount| {
            let volume = file_name(mount.get("name")?.as_str()?);
            Some((
                mount.get("mountPath")?.as_str()?.trim_end_matches('/'),
                place.dir.join(volume),
            ))
        });
        let mut this = Self {
            place,
            env: Vec::new(),
            mounts: mounts.collect(),
            seen: Vec::new(),
            substitutions,
        };
        for variable in list("env") {
            let field = variable
                .pointer("/valueFrom/fieldRef/fieldPath")
                .and_then(Value::as_str);
            let value = match (variable.get("value").and_then(Value::as_str), field) {
                (Some(value), _) => this.expanded(value),
                (_, Some("metadata.name")) => place.pod.clone(),
                (_, Some("metadata.namespace")) => place.namespace.clone(),
                (_, Some("status.podIP")) => place.ip.to_string(),
                // Only the cluster has Secrets and the like.
                _ => continue,
            };
            if let Some(name) = variable.get("name").and_then(Value::as_str) {
                this.env.push((name.to_owned(), value));
            }
        }
        this
    }

    fn volumes(&self) -> Vec<PathBuf> {
        self.mounts.iter().map(|(_, dir)| dir.clone()).collect()
    }

    /// Expands `$(NAME)` as kubelet does: unset names stay as written.
    fn expanded(&self, arg: &str) -> String {
        self.env.iter().fold(arg.to_owned(), |arg, (name, value)| {
            arg.replace(&format!("$({name})"), value)
        })
    }

    fn record(&mut self, from: String, to: String) {
        if from != to && !self.substitutions.contains(&(from.clone(), to.clone())) {
            self.substitutions.push((from, to));
        }
    }

    fn added(&mut self, arg: String) -> String {
        self.record("(added)".to_owned(), arg.clone());
        arg
    }

    /// Maps the launcher's arguments; thanos' program follows the first `--`.
    fn launched<'w>(&mut self, args: impl Iterator<Item = &'w str>) -> Vec<String> {
        let args: Vec<&str> = args.collect();
        let end = args
            .iter()
            .position(|arg| *arg == "--")
            .map_or(args.len(), |at| at + 1);
        let (launcher, thanos) = args.split_at(end);
        let mut mapped = self.args(launcher.iter().copied());
        if let Some((program, args)) = thanos.split_first() {
            let here = self.place.thanos.display().to_string();
            self.record((*program).to_owned(), here.clone());
            mapped.push(here);
            mapped.extend(self.args(args.iter().copied()));
        }
        mapped
    }

    fn args<'w>(&mut self, args: impl Iterator<Item = &'w str>) -> Vec<String> {
        let mut args = args
            .map(|arg| self.expanded(arg))
            .collect::<Vec<_>>()
            .into_iter();
        let mut mapped = Vec::new();
        while let Some(arg) = args.next() {
            let (name, inline) = arg
                .split_once('=')
                .map_or((arg.as_str(), None), |(name, value)| {
                    (name, Some(value.to_owned()))
                });
            let Some(flag) = Flag::named(name) else {
                mapped.push(self.plain(&arg));
                continue;
            };
            self.seen.push(flag);
            let value = inline.or_else(|| args.next()).unwrap_or_default();
            match (flag, flag.on(self.place)) {
                (_, Some(here)) => {
                    self.record(format!("{name}={value}"), here.clone());
                    mapped.push(here);
                }
                (Flag::DataDir, None) => mapped.push(format!("{name}={}", self.path(&value, true))),
                (_, None) => self.record(
                    name.to_owned(),
                    "(omitted: only the cluster has this file)".to_owned(),
                ),
            }
        }
        mapped
    }

    fn plain(&mut self, arg: &str) -> String {
        match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                format!("{name}={}", self.path(value, false))
            }
            _ => self.path(arg, false),
        }
    }

    /// Maps a path below a mount, or another that thanos writes to, into the pod's directory.
    /// Returns anything else unchanged.
    fn path(&mut self, value: &str, written: bool) -> String {
        if value == names::AGENT_IN_IMAGE {
            let here = self.place.agent.display().to_string();
            self.record(value.to_owned(), here.clone());
            return here;
        }
        let below = |mount: &str| {
            value
                .strip_prefix(mount)
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let found = self
            .mounts
            .iter()
            .filter_map(|(mount, dir)| Some((*mount, dir.clone(), below(mount)?)))
            .max_by_key(|(mount, ..)| mount.len());
        if let Some((mount, dir, rest)) = found {
            self.record(mount.to_owned(), dir.display().to_string());
            return format!("{}{rest}", dir.display());
        }
        if written && value.starts_with('/') {
            let here = self.place.dir.join("data").display().to_string();
            self.record(value.to_owned(), here.clone());
            return here;
        }
        value.to_owned()
    }
}

/// Reduces a name to one path component, whatever the manifest contains.
pub(super) fn file_name(name: &str) -> &str {
    Path::new(name)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("unnamed")
}

fn texts<'a>(container: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    container
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}
