//! Admission's decision: which pods are ours, and the few operations that make one a shard's replica.
//!
//! Raw JSON in (as a `PodView`), RFC 6902 operations out. Invariants, property-tested in `mutation/tests/random.rs`: nothing
//! but what an operation names changes; injecting an injected pod gives no operation, also after other injectors changed
//! it; no input panics. No API call, no clock, no cache: what the StatefulSet says comes in as [`Facts`].

mod eligible;
mod inject;
mod liveness;
mod mesh;
mod selection;
mod token;

use std::fmt;

use chrono::{DateTime, Utc};

pub use eligible::{Candidate, eligible};
pub use inject::inject;

use super::config::{Config, Sharding, more_annotations};
use super::entry::Entry;
use super::fleet::Known;
use super::names;
use super::patch::Operation;
use super::plan::{Assignment, Plan};
use super::pod::bounded::MAX_WORDS;
use super::sidecar_spec::RenderedSidecar;
use super::store_args::MAX_ARGUMENTS;
use super::window::Window;

/// What is known of a pod's StatefulSet when the pod is admitted.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Configuration file: how the sidecar looks, and what the ConfigMap is called.
    pub config: &'a Config,
    /// The StatefulSet's own sharding.
    pub sharding: &'a Sharding,
    /// The plan for its number of pods.
    pub plan: &'a Plan,
    /// `spec.ordinals.start`.
    pub ordinals_start: u32,
    /// Whether it lets us replace time flags.
    pub replace_time_flags: bool,
    /// Whether it wants in-place reloads although a liveness probe may kill a long load.
    pub reload_despite_liveness: bool,
    /// The pod's published entry, if there is one: it wins over the plan.
    pub published: Option<&'a Entry>,
    /// The sidecar as it was written for an earlier pod of the StatefulSet.
    pub rendered: &'a RenderedSidecar,
    /// The pod's namespace, from the request.
    pub namespace: &'a str,
    /// Now, for absolute windows.
    pub now: DateTime<Utc>,
}

impl<'a> Facts<'a> {
    /// Of a StatefulSet whose pod has no published entry.
    #[must_use]
    pub fn of(
        known: &'a Known,
        config: &'a Config,
        namespace: &'a str,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            config,
            sharding: &known.sharding,
            plan: &known.plan,
            ordinals_start: known.ordinals_start,
            replace_time_flags: known.replace_time_flags,
            reload_despite_liveness: known.reload_despite_liveness,
            published: None,
            rendered: &known.rendered,
            namespace,
            now,
        }
    }
}

/// What admission does to a pod.
#[derive(Debug)]
pub struct Injection<'a> {
    /// The patch; empty when the pod has everything already.
    pub operations: Vec<Operation<'a>>,
    /// Its place.
    pub assignment: Assignment,
    /// Its window.
    pub window: Window,
    /// Where the window comes from.
    pub source: Source,
    /// What its user should know.
    pub remarks: Vec<Remark>,
}

/// Where an injected window comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The published entry.
    Published,
    /// The plan, for a pod without an entry.
    Plan,
}

/// Why a pod is admitted untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Not the creation of a pod.
    NotPodCreation,
    /// No StatefulSet owns it.
    NotStatefulSet,
    /// Its user said no.
    OptedOut,
    /// A Windows pod.
    Windows,
    /// Its name does not end in an ordinal.
    NoOrdinal(String),
    /// No container runs thanos store; the words say what runs instead.
    NoStore(String),
    /// `store` as first word, but the image does not look like Thanos.
    UnknownImage(String),
    /// More than one container runs thanos store.
    SeveralStores(usize),
    /// Time flags of the user's own.
    TimeFlags(String),
    /// thanos store inside a shell or behind another program.
    Wrapper(String),
    /// thanos store behind a program that is not called thanos.
    Program(String),
    /// Blocks are selected by a variable that differs from pod to pod.
    PerPodSelection(String),
    /// A version of Thanos whose store has no time flags.
    OldImage(String),
    /// Our sidecar is there, and the launcher no longer is; the words say what runs instead.
    Undone(String),
    /// Arguments in a file.
    ArgsFile(String),
    /// A name that we need is taken by someone else.
    NameTaken(&'static str),
    /// Everything is there already.
    AlreadyInjected,
    /// More arguments than are looked at.
    TooManyArguments(usize),
    /// The server has no rights in the namespace, so nobody would keep the window current.
    NoRights,
}

/// Every reason's label, for metrics and tests.
pub const SKIP_LABELS: [&str; 18] = [
    "not_pod_creation",
    "not_statefulset",
    "opted_out",
    "windows",
    "no_ordinal",
    "no_store",
    "unknown_image",
    "several_stores",
    "time_flags",
    "wrapper",
    "args_file",
    "name_taken",
    "already_injected",
    "per_pod_selection",
    "undone",
    "old_image",
    "too_many_arguments",
    "no_rights",
];

impl Skip {
    /// Position in [`SKIP_LABELS`].
    #[must_use]
    pub const fn index(&self) -> usize {
        match self {
            Self::NotPodCreation => 0,
            Self::NotStatefulSet => 1,
            Self::OptedOut => 2,
            Self::Windows => 3,
            Self::NoOrdinal(_) => 4,
            Self::NoStore(_) => 5,
            Self::UnknownImage(_) => 6,
            Self::SeveralStores(_) => 7,
            Self::TimeFlags(_) => 8,
            Self::Wrapper(_) | Self::Program(_) => 9,
            Self::ArgsFile(_) => 10,
            Self::NameTaken(_) => 11,
            Self::AlreadyInjected => 12,
            Self::PerPodSelection(_) => 13,
            Self::Undone(_) => 14,
            Self::OldImage(_) => 15,
            Self::TooManyArguments(_) => 16,
            Self::NoRights => 17,
        }
    }

    /// The metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        SKIP_LABELS[self.index()]
    }

    /// Whether the pod is a gateway whose user may have expected an injection: worth a warning and an Event.
    #[must_use]
    pub const fn surprises(&self) -> bool {
        matches!(
            self,
            Self::UnknownImage(_)
                | Self::SeveralStores(_)
                | Self::TimeFlags(_)
                | Self::Wrapper(_)
                | Self::Program(_)
                | Self::PerPodSelection(_)
                | Self::Undone(_)
                | Self::OldImage(_)
                | Self::ArgsFile(_)
                | Self::NameTaken(_)
                | Self::NoOrdinal(_)
                | Self::TooManyArguments(_)
                | Self::NoRights
        )
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPodCreation => f.write_str("not the creation of a pod"),
            Self::NotStatefulSet => f.write_str("not owned by a StatefulSet"),
            Self::OptedOut => f.write_str("opted out by thanos-timeshard.io/inject: \"false\""),
            Self::Windows => f.write_str("a Windows pod"),
            Self::NoOrdinal(name) => write!(f, "the name {name:?} does not end in an ordinal"),
            Self::NoStore(what) => write!(f, "no container runs thanos store ({what})"),
            Self::UnknownImage(image) => write!(
                f,
                "the first argument is store, but the image {image:?} is not named thanos; annotate the pod template with thanos-timeshard.io/inject: \"true\" if it is Thanos"
            ),
            Self::SeveralStores(n) => {
                write!(f, "{n} containers run thanos store, so it is unclear which one a window is for; run one in each pod")
            }
            Self::TimeFlags(flag) => write!(
                f,
                "{flag} is set by hand and respected; remove it, or annotate the StatefulSet with thanos-timeshard.io/replace-time-flags: \"true\""
            ),
            Self::Wrapper(word) => {
                write!(f, "thanos store runs inside {word:?}, where flags cannot be added safely; make thanos the container's command")
            }
            Self::Program(word) => write!(
                f,
                "{word:?} starts thanos store; make thanos the container's command, or annotate the template with thanos-timeshard.io/inject: \"true\" and thanos-timeshard.io/command: '[\"PROGRAM\"]'"
            ),
            Self::PerPodSelection(by) => write!(
                f,
                "--selector.relabel-config selects blocks by {by}, another for each pod: with windows on top most blocks would be served by no pod; remove it, or set thanos-timeshard.io/inject: \"false\""
            ),
            Self::OldImage(image) => {
                write!(
                    f,
                    "the store of {image:?} has no --min-time and --max-time and would not start with them; use Thanos 0.7.0 or newer"
                )
            }
            Self::Undone(what) => write!(
                f,
                "its sidecar is there, but the launcher no longer starts thanos ({what}): another webhook or tool changed the command; keep that out of this pod, or take the sidecar out of the template"
            ),
            Self::ArgsFile(word) => {
                write!(f, "{word:?} reads arguments from a file, which may set the time flags; write the arguments in the pod template")
            }
            Self::NameTaken(name) => write!(f, "{name:?} is used by something else in this pod; rename that"),
            Self::AlreadyInjected => f.write_str("already injected"),
            Self::NoRights => f.write_str(
                "the server has no rights in this namespace, so it could not keep the window current; give it a Role there (rbac.namespaces of the chart), or remove the namespace's label",
            ),
            Self::TooManyArguments(count) => {
                // Further ones are not counted.
                let least = if *count >= MAX_WORDS { "at least " } else { "" };
                write!(f, "thanos store has {least}{count} arguments, and at most {MAX_ARGUMENTS} are looked at; remove repeated flags")
            }
        }
    }
}

/// Something about an injected pod that its user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The liveness probe would kill a thanos that loads for long.
    UnsafeLiveness(String),
    /// A `sharding` key stands on the pod (template), where it has no effect.
    KeyOnPod(String),
    /// An annotation of the pod that begins as ours do and is none; the sentence about it.
    UnknownAnnotation(String),
    /// The command annotation is not a JSON array of strings.
    BadCommandAnnotation,
    /// The HTTP address names a port by an environment variable, which the sidecar cannot read.
    UnreadableAddress(String),
    /// A signal is asked for in a pod that sees the node's processes.
    HostPid,
    /// The selection of blocks stands in a file of the pod's own.
    SelectionFile(String),
    /// There are more annotations without effect than are named.
    MoreAnnotations(usize),
    /// A service mesh takes over the sidecar's port.
    MeshedPort {
        /// Container, label or annotation that shows it.
        found: &'static str,
        /// The annotation that keeps a port out of it.
        exclude: &'static str,
    },
}

impl Remark {
    /// A `CamelCase` reason for an Event.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::UnsafeLiveness(_) => "UnsafeLivenessProbe",
            Self::KeyOnPod(_) => "KeyOnPodIgnored",
            Self::UnknownAnnotation(_) | Self::MoreAnnotations(_) => "UnknownAnnotation",
            Self::BadCommandAnnotation => "InvalidAnnotation",
            Self::UnreadableAddress(_) => "UnreadableAddress",
            Self::HostPid => "HostPid",
            Self::SelectionFile(_) => "SelectionByPod",
            Self::MeshedPort { .. } => "MeshPort",
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsafeLiveness(container) => write!(
                f,
                "the liveness probe of {container} fails while thanos loads blocks, so kubelet may kill it: this pod keeps its first window; probe /-/healthy instead"
            ),
            Self::KeyOnPod(key) => {
                write!(f, "annotation {key} on the pod has no effect: annotate the StatefulSet itself, not its pod template")
            }
            Self::UnknownAnnotation(said) => f.write_str(said),
            Self::MoreAnnotations(count) => f.write_str(&more_annotations(*count)),
            Self::BadCommandAnnotation => f.write_str(
                "annotation thanos-timeshard.io/command is not a JSON array of strings such as [\"/bin/thanos\"]; it was ignored",
            ),
            Self::UnreadableAddress(address) => {
                write!(
                    f,
                    "--http-address {address:?} has no plain port, so the sidecar looks for thanos at 127.0.0.1:10902; write the port as a number"
                )
            }
            Self::HostPid => f.write_str(
                "reload: signal looks for thanos among the pod's processes, and hostPID: true shows it the node's: thanos is restarted in place instead; remove hostPID, or write reload: exec",
            ),
            Self::SelectionFile(path) => write!(
                f,
                "--selector.relabel-config-file {path:?} lies on a volume of this pod's own: if the selection differs from pod to pod, most blocks are served by no pod; take it from a ConfigMap that all share"
            ),
            Self::MeshedPort { found, exclude } => write!(
                f,
                "a service mesh ({found}) takes over port {}: the pod may stay in Init for ever, and the server cannot ask the sidecar; add {} to the template's annotation {exclude}",
                names::SIDECAR_PORT,
                names::SIDECAR_PORT
            ),
        }
    }
}

#[cfg(test)]
mod tests;
