//! What was injected, as commands for this machine: the same words, with the cluster's paths and addresses exchanged.
//!
//! Every exchange is remembered, so that it can be shown. Pure: nothing here touches a file or a socket.

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::core::{names, store_args};

/// What stands on this machine for the cluster around one pod.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The pod's own directory.
    pub(super) dir: PathBuf,
    /// `metadata.name`.
    pub(super) pod: String,
    /// `metadata.namespace`.
    pub(super) namespace: String,
    /// `status.podIP`.
    pub(super) ip: Ipv4Addr,
    /// The ports.
    pub(super) ports: Ports,
    /// The agent's program.
    pub(super) agent: PathBuf,
    /// Thanos' program.
    pub(super) thanos: PathBuf,
    /// The configuration of the bucket.
    pub(super) bucket: PathBuf,
}

/// Where a pod listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// Thanos' HTTP port.
    pub(super) http: u16,
    /// Thanos' gRPC port.
    pub(super) grpc: u16,
    /// The sidecar's port.
    pub(super) status: u16,
}

/// A program's words and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// The program first.
    pub(super) words: Vec<String>,
    /// What the container's `env` sets.
    pub(super) env: Vec<(String, String)>,
}

/// An injected pod's two commands.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    /// The container `config-sidecar`.
    pub(super) sidecar: Command,
    /// The container that ran thanos and now runs the launcher.
    pub(super) thanos: Command,
    /// Each thing that was exchanged, and for what.
    pub(super) exchanged: Vec<(String, String)>,
    /// Directories that stand for volumes.
    pub(super) volumes: Vec<PathBuf>,
}

/// The containers of an injected pod; `None` if it is not one.
pub(super) struct Injected<'a> {
    sidecar: &'a Value,
    thanos: &'a Value,
}

impl<'a> Injected<'a> {
    pub(super) fn of(pod: &'a Value) -> Option<Self> {
        let list = |key: &str| {
            pod.pointer(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let containers = || list("/spec/containers");
        // The sidecar is an init container, or a plain one in the classic form.
        let sidecar = list("/spec/initContainers")
            .chain(containers())
            .find(|c| c.get("name").and_then(Value::as_str) == Some(names::SIDECAR))?;
        let thanos = containers()
            .find(|c| texts(c, "command").next() == Some(names::AGENT_IN_SHARED_DIR))?;
        Some(Self { sidecar, thanos })
    }

    /// The ports that were injected.
    pub(super) fn ports(&self) -> Ports {
        let port = |flag: &str| {
            texts(self.sidecar, "args")
                .find_map(|word| store_args::port_of(word.strip_prefix(flag)?))
        };
        Ports {
            http: port("--thanos-url=").unwrap_or(names::THANOS_HTTP_PORT),
            grpc: port("--grpc-address=").unwrap_or(names::THANOS_GRPC_PORT),
            status: names::SIDECAR_PORT,
        }
    }

    /// The flag that keeps a running pod from taking over a window by a restart in place, which is what the demo shows.
    pub(super) fn other_reload(&self) -> Option<&'a str> {
        texts(self.sidecar, "args")
            .find(|word| word.starts_with("--reload=") && *word != "--reload=exec")
    }

    /// Both commands, for this place.
    pub(super) fn commands(&self, place: &Place) -> Commands {
        let mut exchanged = Vec::new();
        let mut sidecar = Exchange::new(self.sidecar, place, &mut exchanged);
        let (mut words, mut volumes) = (
            sidecar.words(texts(self.sidecar, "command").chain(texts(self.sidecar, "args"))),
            sidecar.volumes(),
        );
        words.push(sidecar.added(format!("--listen={}:{}", place.ip, place.ports.status)));
        let sidecar = Command {
            words,
            env: sidecar.env,
        };

        let mut thanos = Exchange::new(self.thanos, place, &mut exchanged);
        let mut words =
            thanos.launched(texts(self.thanos, "command").chain(texts(self.thanos, "args")));
        for flag in [Flag::Http, Flag::Grpc, Flag::Bucket] {
            if !thanos.seen.contains(&flag) {
                words.extend(flag.on(place).map(|word| thanos.added(word)));
            }
        }
        if place.thanos.ends_with(super::programs::STAND_IN) {
            words.push(thanos.added(STAND_IN_LOADS.to_owned()));
        }
        volumes.extend(thanos.volumes());
        Commands {
            sidecar,
            thanos: Command {
                words,
                env: thanos.env,
            },
            exchanged,
            volumes,
        }
    }
}

/// The stand-in takes a moment to become ready, so that its restart can be watched.
const STAND_IN_LOADS: &str = "--stand-in-ready-after-ms=300";

/// A flag whose value means something else on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Http,
    Grpc,
    Url,
    DataDir,
    Bucket,
    /// Its value is, or names, a file that only the cluster has.
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

    /// The word that takes its place, if that does not depend on the old value.
    fn on(self, place: &Place) -> Option<String> {
        let Ports { http, grpc, .. } = place.ports;
        match self {
            Self::Http => Some(format!("--http-address={}:{http}", place.ip)),
            Self::Grpc => Some(format!("--grpc-address={}:{grpc}", place.ip)),
            Self::Url => Some(format!("--thanos-url=http://{}:{http}", place.ip)),
            Self::Bucket => Some(format!("--objstore.config-file={}", place.bucket.display())),
            Self::DataDir | Self::Elsewhere => None,
        }
    }
}

/// One container's words on the way to this machine.
struct Exchange<'a> {
    place: &'a Place,
    env: Vec<(String, String)>,
    /// Mount paths and the directories that stand for their volumes.
    mounts: Vec<(&'a str, PathBuf)>,
    seen: Vec<Flag>,
    exchanged: &'a mut Vec<(String, String)>,
}

impl<'a> Exchange<'a> {
    fn new(
        container: &'a Value,
        place: &'a Place,
        exchanged: &'a mut Vec<(String, String)>,
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
            exchanged,
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
                // Secrets and the like are the cluster's.
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

    /// `$(NAME)` as kubelet expands it: what is not set stays as it stands.
    fn expanded(&self, word: &str) -> String {
        self.env
            .iter()
            .fold(word.to_owned(), |word, (name, value)| {
                word.replace(&format!("$({name})"), value)
            })
    }

    fn exchange(&mut self, from: String, to: String) {
        if from != to && !self.exchanged.contains(&(from.clone(), to.clone())) {
            self.exchanged.push((from, to));
        }
    }

    fn added(&mut self, word: String) -> String {
        self.exchange("(added)".to_owned(), word.clone());
        word
    }

    /// The launcher's words: thanos' program stands behind the first `--`.
    fn launched<'w>(&mut self, words: impl Iterator<Item = &'w str>) -> Vec<String> {
        let words: Vec<&str> = words.collect();
        let end = words
            .iter()
            .position(|word| *word == "--")
            .map_or(words.len(), |at| at + 1);
        let (launcher, thanos) = words.split_at(end);
        let mut mapped = self.words(launcher.iter().copied());
        if let Some((program, args)) = thanos.split_first() {
            let here = self.place.thanos.display().to_string();
            self.exchange((*program).to_owned(), here.clone());
            mapped.push(here);
            mapped.extend(self.words(args.iter().copied()));
        }
        mapped
    }

    fn words<'w>(&mut self, words: impl Iterator<Item = &'w str>) -> Vec<String> {
        let mut words = words
            .map(|word| self.expanded(word))
            .collect::<Vec<_>>()
            .into_iter();
        let mut mapped = Vec::new();
        while let Some(word) = words.next() {
            let (name, inline) = word
                .split_once('=')
                .map_or((word.as_str(), None), |(name, value)| {
                    (name, Some(value.to_owned()))
                });
            let Some(flag) = Flag::named(name) else {
                mapped.push(self.plain(&word));
                continue;
            };
            self.seen.push(flag);
            let value = inline.or_else(|| words.next()).unwrap_or_default();
            match (flag, flag.on(self.place)) {
                (_, Some(here)) => {
                    self.exchange(format!("{name}={value}"), here.clone());
                    mapped.push(here);
                }
                (Flag::DataDir, None) => mapped.push(format!("{name}={}", self.path(&value, true))),
                (_, None) => self.exchange(
                    name.to_owned(),
                    "(left out: only the cluster has what it names)".to_owned(),
                ),
            }
        }
        mapped
    }

    fn plain(&mut self, word: &str) -> String {
        match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                format!("{name}={}", self.path(value, false))
            }
            _ => self.path(word, false),
        }
    }

    /// A path below a mount, or another that thanos writes to, in this pod's directory; anything else as it is.
    fn path(&mut self, value: &str, written: bool) -> String {
        if value == names::AGENT_IN_IMAGE {
            let here = self.place.agent.display().to_string();
            self.exchange(value.to_owned(), here.clone());
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
            self.exchange(mount.to_owned(), dir.display().to_string());
            return format!("{}{rest}", dir.display());
        }
        if written && value.starts_with('/') {
            let here = self.place.dir.join("data").display().to_string();
            self.exchange(value.to_owned(), here.clone());
            return here;
        }
        value.to_owned()
    }
}

/// A name as one path component, whatever a manifest says.
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
