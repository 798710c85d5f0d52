//! The configuration file and the annotations that override it, read into values that nothing else can build.
//!
//! Invariants: a [`Sharding`] always gives windows without a gap, in order, with at least the overlap that it names;
//! every refusal lists all mistakes, each with source, line, column, key, value and what would be accepted.
//! Reading files and watching them is not here.

mod annotation;
mod difference;
mod draft;
mod problem;
mod retention;
mod sharding;

use std::collections::BTreeMap;

pub use annotation::{is_ours, more_annotations, unknown_annotation, unknown_annotations};
pub use difference::Difference;
pub use draft::SHARDING_KEYS;
pub use draft::unknown_key;
use draft::{Draft, Place};
pub use problem::{Problem, Refusal};
pub use retention::Retention;
pub use sharding::{LOAD_ALLOWANCE, Sharding};

use super::foreign::not_a_configuration;
use super::located::{Kind, Node, read, read_value};
use super::names;

/// The most shards. Ten years in shards of a third of a day is already too many to operate.
pub const MAX_SHARDS: u32 = 10_000;
/// The most pods for one shard.
pub const MAX_REPLICAS_PER_SHARD: u32 = 1_000;
/// The most pods for one StatefulSet; 1 MiB of ConfigMap holds fewer.
pub const MAX_PODS: u32 = 100_000;
/// The longest retention, in days (a hundred years).
pub const MAX_RETENTION_DAYS: i64 = 36_500;
/// The largest configuration file, in bytes; a ConfigMap holds no more.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;
/// The seccomp profile of the sidecar, as Kubernetes calls it.
pub const SECCOMP_PROFILE: &str = "RuntimeDefault";
/// The word for a sidecar without a seccomp profile of its own.
const NO_SECCOMP_PROFILE: &str = "none";
/// Annotations of one StatefulSet that are read, together; the API server accepts no more. Bytes.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// N, or derived from the number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardCount {
    /// This many.
    Fixed(u32),
    /// As many as the pods fill with `replicas_per_shard` each.
    Auto,
}

/// How windows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowFormat {
    /// Durations before now; they roll by themselves.
    Relative,
    /// RFC 3339 times, moved on by the refresher every quantum.
    Absolute,
}

/// How a running thanos takes over a new window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The launcher restarts it in place.
    Exec,
    /// The sidecar sends a signal, for builds of Thanos that honour it.
    Signal,
}

/// What the guard does about a change of a StatefulSet that would leave a part of the time unserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuardMode {
    /// Refuse it. The default: what is refused is lost coverage that nobody would be told of otherwise, the refusal names
    /// the way that is safe, and no pod waits for it.
    #[default]
    Deny,
    /// Let it pass with a warning.
    Warn,
    /// Say nothing.
    Off,
}

/// What stands in the file.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which objects, how often.
    pub operator: Operator,
    /// The default for every labelled namespace.
    pub sharding: Sharding,
    /// How the sidecar looks.
    pub injection: Injection,
    /// What the guard does, the key `guard.mode`.
    pub guard: GuardMode,
    draft: Draft,
}

/// The `operator` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Seconds between full resyncs.
    pub update_interval_seconds: u32,
    /// Namespace of the StatefulSet that has a ConfigMap name of its own.
    pub namespace: String,
    /// That StatefulSet.
    pub statefulset_name: String,
    /// Its ConfigMap.
    pub configmap_name: String,
}

/// The `injection` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Image with the agent.
    pub agent_image: String,
    /// `imagePullPolicy` of the sidecar.
    pub image_pull_policy: String,
    /// CPU of the sidecar, request and limit, as a Kubernetes quantity.
    pub cpu: String,
    /// Memory of the sidecar, request and limit, as a Kubernetes quantity.
    pub memory: String,
    /// Native sidecar (init container with `restartPolicy: Always`, Kubernetes 1.29 and newer) or the classic form.
    pub native_sidecar: bool,
    /// Whether the sidecar names the seccomp profile [`SECCOMP_PROFILE`]; otherwise the pod's own one holds for it. The first
    /// generation of security context constraints of `OpenShift` refuses every container that names one.
    pub seccomp_profile: bool,
}

impl Default for Operator {
    fn default() -> Self {
        Self {
            update_interval_seconds: 300,
            namespace: "monitoring".to_owned(),
            statefulset_name: "thanos-store-gateway".to_owned(),
            configmap_name: "thanos-store-config".to_owned(),
        }
    }
}

impl Default for Injection {
    fn default() -> Self {
        Self {
            agent_image: concat!(
                "ghcr.io/thanos-timeshard/timeshard:v",
                env!("CARGO_PKG_VERSION")
            )
            .to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            cpu: "50m".to_owned(),
            memory: "32Mi".to_owned(),
            native_sidecar: true,
            seccomp_profile: true,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let draft = Draft::default();
        Self {
            operator: Operator::default(),
            sharding: Sharding::default(),
            injection: Injection::default(),
            guard: GuardMode::default(),
            draft,
        }
    }
}

impl Operator {
    /// Name of the ConfigMap of a StatefulSet.
    #[must_use]
    pub fn configmap_of(&self, namespace: &str, statefulset: &str) -> String {
        if namespace == self.namespace && statefulset == self.statefulset_name {
            self.configmap_name.clone()
        } else {
            format!("{statefulset}{}", names::CONFIGMAP_SUFFIX)
        }
    }
}

impl Config {
    /// Reads a file's text; `source` is its name, for messages.
    ///
    /// # Errors
    /// [`Refusal`] with every mistake.
    pub fn parse(text: &str, source: &str) -> Result<Self, Refusal> {
        let problem = |line, column, why: String| Problem {
            source: source.to_owned(),
            line,
            column,
            key: String::new(),
            why,
        };
        if text.len() > MAX_CONFIG_BYTES {
            let why = format!(
                "the file has {} bytes; at most {MAX_CONFIG_BYTES} are read",
                text.len()
            );
            return Err(Refusal(vec![problem(1, 1, why)]));
        }
        let root = read(text).map_err(|e| Refusal(vec![problem(e.line, e.column, e.why)]))?;
        let blocks = match root.value {
            Kind::Map(blocks) => blocks,
            Kind::Null => {
                return Err(Refusal(vec![problem(
                    1,
                    1,
                    "the file is empty: write at least a block sharding:".to_owned(),
                )]));
            }
            other => {
                let why = format!(
                    "{} is not a configuration: write the blocks operator, sharding, injection and guard",
                    other.shown()
                );
                return Err(Refusal(vec![problem(1, 1, why)]));
            }
        };
        let shown = blocks.iter().map(|(key, node)| {
            (
                key.value.as_str(),
                if let Kind::Text(text) = &node.value {
                    Some(text.as_str())
                } else {
                    None
                },
            )
        });
        if let Some(why) = not_a_configuration(shown) {
            return Err(Refusal(vec![problem(1, 1, why)]));
        }
        let mut problems = Vec::new();
        let (mut operator, mut injection, mut draft) =
            (Operator::default(), Injection::default(), Draft::default());
        let mut guard = GuardMode::default();
        for (name, block) in &blocks {
            let key_place = || Place {
                line: name.referenced.line(),
                column: name.referenced.column(),
                ..Place::of(source, &*name.value, block)
            };
            match (name.value.as_str(), &block.value) {
                ("operator" | "sharding" | "injection" | "guard", Kind::Null) => {}
                ("operator", Kind::Map(keys)) => {
                    each(keys, source, "operator", &mut problems, |p, k, n, out| {
                        operator.set(&p, k, n, out)
                    });
                    operator.check_name(keys, source, &mut problems);
                }
                ("sharding", Kind::Map(keys)) => {
                    each(keys, source, "sharding", &mut problems, |p, k, n, out| {
                        draft.set(p, k, n, out)
                    })
                }
                ("injection", Kind::Map(keys)) => {
                    each(keys, source, "injection", &mut problems, |p, k, n, out| {
                        injection.set(&p, k, n, out);
                    })
                }
                ("guard", Kind::Map(keys)) => {
                    each(keys, source, "guard", &mut problems, |p, k, n, out| {
                        guard.set(&p, k, n, out)
                    })
                }
                ("operator" | "sharding" | "injection" | "guard", other) => {
                    problems.push(key_place().refuse(format!(
                        "{} is not accepted: write a block of keys",
                        other.shown()
                    )));
                }
                (other, _) => problems.push(key_place().refuse(unknown_key(
                    other,
                    &["operator", "sharding", "injection", "guard"],
                ))),
            }
        }
        let sharding = if problems.is_empty() {
            Sharding::check(&draft, &mut problems)
        } else {
            None
        };
        match sharding {
            Some(sharding) => Ok(Self {
                operator,
                sharding,
                injection,
                guard,
                draft,
            }),
            None => Err(Refusal(problems)),
        }
    }

    /// The sharding of one StatefulSet: the file's, overridden by the annotations on its own metadata.
    ///
    /// # Errors
    /// [`Refusal`] whose source names the annotation.
    pub fn sharding_for<'a>(
        &self,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Sharding, Refusal> {
        let mut layer = Draft::default();
        let mut problems = Vec::new();
        // Sorted, so that two keys for one thing are refused the same way each time.
        let ours: BTreeMap<&str, &str> = annotations
            .into_iter()
            .filter(|(name, _)| sharding_key(name).is_some())
            .collect();
        if ours.is_empty() {
            return Ok(self.sharding.clone());
        }
        let mut left = MAX_ANNOTATIONS_BYTES;
        for (name, text) in ours {
            let Some(key) = sharding_key(name) else {
                continue;
            };
            let source = format!("annotation {name}");
            let Some(rest) = left.checked_sub(text.len()) else {
                let why = format!(
                    "the annotations are longer than {MAX_ANNOTATIONS_BYTES} bytes together; write shorter ones"
                );
                problems.push(Problem {
                    source,
                    line: 0,
                    column: 0,
                    key: key.to_owned(),
                    why,
                });
                break;
            };
            left = rest;
            match read_value(text) {
                Ok(node) => layer.set(Place::of(&source, key, &node), key, &node, &mut problems),
                Err(e) => problems.push(Problem {
                    source,
                    line: e.line,
                    column: e.column,
                    key: key.to_owned(),
                    why: e.why,
                }),
            }
        }
        let sharding = if problems.is_empty() {
            Sharding::check(&layer.over(&self.draft), &mut problems)
        } else {
            None
        };
        sharding.ok_or(Refusal(problems))
    }
}

/// The `sharding` key that an annotation overrides, if it is one of those.
#[must_use]
pub fn sharding_key(annotation: &str) -> Option<&'static str> {
    let name = annotation.strip_prefix(names::PREFIX)?;
    SHARDING_KEYS.into_iter().find(|key| {
        key.len() == name.len()
            && key
                .bytes()
                .zip(name.bytes())
                .all(|(k, n)| k == n || (k == b'_' && n == b'-'))
    })
}

type Keys = Vec<(serde_saphyr::Spanned<String>, Node)>;

fn each(
    keys: &Keys,
    source: &str,
    block: &str,
    problems: &mut Vec<Problem>,
    mut set: impl FnMut(Place, &str, &Node, &mut Vec<Problem>),
) {
    for (name, node) in keys {
        let mut place = Place::of(source, format!("{block}.{}", name.value), node);
        if matches!(node.value, Kind::Null) {
            // An absent value has no place of its own.
            (place.line, place.column) = (name.referenced.line(), name.referenced.column());
        }
        set(place, &name.value, node, problems);
    }
}

impl Operator {
    fn set(&mut self, place: &Place, key: &str, node: &Node, problems: &mut Vec<Problem>) {
        const KEYS: [&str; 4] = [
            "update_interval",
            "namespace",
            "statefulset_name",
            "configmap_name",
        ];
        match key {
            "update_interval" => match &node.value {
                Kind::Int(n) if (10..=86_400).contains(n) => {
                    self.update_interval_seconds = u32::try_from(*n).unwrap_or(300)
                }
                other => problems.push(place.refuse(format!(
                    "{} is not accepted: write seconds from 10 to 86400",
                    other.shown()
                ))),
            },
            "namespace" => name_into(&mut self.namespace, 63, place, node, problems),
            "statefulset_name" => name_into(&mut self.statefulset_name, 253, place, node, problems),
            "configmap_name" => name_into(&mut self.configmap_name, 253, place, node, problems),
            other => problems.push(place.refuse(unknown_key(other, &KEYS))),
        }
    }
}

impl Operator {
    /// Refuses the name that another StatefulSet's ConfigMap gets: two would write over each other.
    fn check_name(&self, keys: &Keys, source: &str, problems: &mut Vec<Problem>) {
        let Some((_, node)) = keys.iter().find(|(name, _)| name.value == "configmap_name") else {
            return;
        };
        let taken = self
            .configmap_name
            .strip_suffix(names::CONFIGMAP_SUFFIX)
            .filter(|other| *other != self.statefulset_name);
        if let Some(other) = taken {
            let (name, own) = (&self.configmap_name, &self.statefulset_name);
            let why = format!(
                "{name:?} is not accepted: the ConfigMap of a StatefulSet {other} is called so; write a name that does not end in {suffix}, or {own}{suffix}",
                suffix = names::CONFIGMAP_SUFFIX
            );
            problems.push(Place::of(source, "operator.configmap_name", node).refuse(why));
        }
    }
}

impl Injection {
    fn set(&mut self, place: &Place, key: &str, node: &Node, problems: &mut Vec<Problem>) {
        const KEYS: [&str; 6] = [
            "agent_image",
            "image_pull_policy",
            "cpu",
            "memory",
            "native_sidecar",
            "seccomp_profile",
        ];
        let mut text = |slot: &mut String, right: &str, fits: fn(&str) -> bool| match &node.value {
            Kind::Text(value) if fits(value) => slot.clone_from(value),
            Kind::Int(value) if fits(&value.to_string()) => *slot = value.to_string(),
            other => problems
                .push(place.refuse(format!("{} is not accepted: write {right}", other.shown()))),
        };
        match key {
            "agent_image" => text(
                &mut self.agent_image,
                "an image reference such as registry/timeshard:v1",
                |v| !v.is_empty() && v.len() <= 512 && v.chars().all(|c| c.is_ascii_graphic()),
            ),
            "image_pull_policy" => {
                text(
                    &mut self.image_pull_policy,
                    "Always, IfNotPresent or Never",
                    |v| matches!(v, "Always" | "IfNotPresent" | "Never"),
                );
            }
            "cpu" => text(&mut self.cpu, "a CPU quantity such as 50m", is_quantity),
            "memory" => text(
                &mut self.memory,
                "a memory quantity such as 32Mi",
                is_quantity,
            ),
            "native_sidecar" => match &node.value {
                Kind::Bool(value) => self.native_sidecar = *value,
                other => problems.push(place.refuse(format!(
                    "{} is not accepted: write true or false",
                    other.shown()
                ))),
            },
            "seccomp_profile" => match &node.value {
                Kind::Text(value) if value == SECCOMP_PROFILE => self.seccomp_profile = true,
                Kind::Text(value) if value == NO_SECCOMP_PROFILE => self.seccomp_profile = false,
                other => problems.push(place.refuse(format!(
                    "{} is not accepted: write {SECCOMP_PROFILE} or {NO_SECCOMP_PROFILE}",
                    other.shown()
                ))),
            },
            other => problems.push(place.refuse(unknown_key(other, &KEYS))),
        }
    }
}

impl GuardMode {
    /// The mode that a word means.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "deny" => Some(Self::Deny),
            "warn" => Some(Self::Warn),
            "off" => Some(Self::Off),
            _ => None,
        }
    }

    fn set(&mut self, place: &Place, key: &str, node: &Node, problems: &mut Vec<Problem>) {
        let mode = match (key, &node.value) {
            ("mode", Kind::Text(word)) => Self::of(word),
            // YAML 1.1 reads off as false.
            ("mode", Kind::Bool(false)) => Some(Self::Off),
            ("mode", _) => None,
            (other, _) => return problems.push(place.refuse(unknown_key(other, &["mode"]))),
        };
        match mode {
            Some(mode) => *self = mode,
            None => problems.push(place.refuse(format!(
                "{} is not accepted: write deny, warn or off",
                node.value.shown()
            ))),
        }
    }
}

/// A Kubernetes quantity, as far as a sidecar needs one: digits, perhaps a fraction, perhaps a suffix.
fn is_quantity(text: &str) -> bool {
    let (number, suffix) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len()),
    );
    number.parse::<f64>().is_ok_and(|n| n > 0.0)
        && text.len() <= 16
        && matches!(suffix, "" | "m" | "k" | "M" | "G" | "Ki" | "Mi" | "Gi")
}

/// An RFC 1123 name, as Kubernetes wants it.
fn name_into(
    slot: &mut String,
    longest: usize,
    place: &Place,
    node: &Node,
    problems: &mut Vec<Problem>,
) {
    let fits = |v: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        v.len() <= longest
            && edge(v.bytes().next())
            && edge(v.bytes().last())
            && v.bytes().all(|b| {
                b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || b == b'-'
                    || (b == b'.' && longest > 63)
            })
    };
    match &node.value {
        Kind::Text(value) if fits(value) => slot.clone_from(value),
        other => problems.push(
            place.refuse(format!("{} is not accepted: write a Kubernetes name (a-z, 0-9, -), at most {longest} characters", other.shown())),
        ),
    }
}

#[cfg(test)]
mod tests;
