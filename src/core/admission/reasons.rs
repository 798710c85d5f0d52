//! Why a pod is skipped, and warnings about injected pods: labels for metrics, reasons of Events, and
//! the sentences.

use std::fmt;

use crate::core::config::more_annotations;
use crate::core::model::names;
use crate::core::pod::bounded::MAX_READ_ARGUMENTS;
use crate::core::thanos::args::MAX_ARGUMENTS;

/// Why a pod is admitted unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    NotPodCreation,
    NotStatefulSet,
    /// By label or annotation.
    OptedOut,
    /// By annotation of the StatefulSet.
    SetOptedOut,
    Windows,
    /// The pod's name does not end in an ordinal.
    NoOrdinal(String),
    /// No container runs thanos store; carries what runs instead.
    NoStore(String),
    /// `store` is the first argument, but the image is not named thanos.
    UnknownImage(String),
    /// More than one container runs thanos store.
    SeveralStores(usize),
    /// The user set time flags.
    TimeFlags(String),
    /// thanos store runs inside a shell script.
    Wrapper(String),
    /// A program that is not named thanos starts thanos store.
    Program(String),
    /// A variable that differs from pod to pod selects the blocks.
    PerPodSelection(String),
    /// The store of this Thanos version has no time flags.
    OldImage(String),
    /// The pod has the sidecar but no longer the launcher; carries what runs instead.
    Undone(String),
    /// Arguments are read from a file.
    ArgsFile(String),
    /// The pod uses a name of timeshard's for something else.
    NameTaken(&'static str),
    AlreadyInjected,
    /// More arguments than [`MAX_ARGUMENTS`].
    TooManyArguments(usize),
    /// The server has no rights in the namespace, so the window would become stale.
    NoRights,
}

/// Metric labels, in the order of [`Skip::index`].
pub const SKIP_LABELS: [&str; 19] = [
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
    "statefulset_opted_out",
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
            Self::SetOptedOut => 18,
        }
    }

    #[must_use]
    pub const fn label(&self) -> &'static str {
        SKIP_LABELS[self.index()]
    }

    /// True for a gateway whose user may have expected an injection: worth a warning and an Event.
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
            Self::SetOptedOut => f.write_str(
                "its StatefulSet is opted out by annotation thanos-timeshard.io/managed: \"false\"",
            ),
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
                "--selector.relabel-config selects blocks by {by}, which differs from pod to pod: with windows as well, no pod would serve most blocks; remove it, or set thanos-timeshard.io/inject: \"false\""
            ),
            Self::OldImage(image) => {
                write!(
                    f,
                    "the store of {image:?} has no --min-time and --max-time and would not start with them; use Thanos 0.7.0 or newer"
                )
            }
            Self::Undone(what) => write!(
                f,
                "the pod has the sidecar, but the launcher no longer starts thanos ({what}): another webhook or tool changed the command; exclude this pod there, or remove the sidecar from the template"
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
                // Further arguments are not counted.
                let least = if *count >= MAX_READ_ARGUMENTS { "at least " } else { "" };
                write!(f, "thanos store has {least}{count} arguments, and at most {MAX_ARGUMENTS} are allowed; remove repeated flags")
            }
        }
    }
}

/// A warning about an injected pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The liveness probe of this container would kill a thanos that loads for long.
    UnsafeLiveness(String),
    /// A `sharding` key on the pod (template), where it has no effect.
    KeyOnPod(String),
    /// A sentence about an annotation with timeshard's prefix that does not exist.
    UnknownAnnotation(String),
    /// The command annotation is not a JSON array of strings.
    BadCommandAnnotation,
    /// The HTTP address takes its port from a variable, which the sidecar cannot read.
    UnreadableAddress(String),
    /// Reload by signal in a pod that sees the node's processes.
    HostPid,
    /// The selection of blocks is in a file on a volume of the pod alone.
    SelectionFile(String),
    /// Number of further annotations without effect.
    MoreAnnotations(usize),
    /// A service mesh intercepts the sidecar's port.
    MeshedPort {
        /// Container, label or annotation that shows the mesh.
        found: &'static str,
        /// The annotation that excludes ports from it.
        exclude: &'static str,
    },
}

impl Remark {
    /// The Event's reason.
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
            Self::UnknownAnnotation(sentence) => f.write_str(sentence),
            Self::MoreAnnotations(count) => f.write_str(&more_annotations(*count)),
            Self::BadCommandAnnotation => f.write_str(
                "annotation thanos-timeshard.io/command is not a JSON array of strings such as [\"/bin/thanos\"]; it was ignored",
            ),
            Self::UnreadableAddress(address) => {
                write!(
                    f,
                    "--http-address {address:?} has no numeric port, so the sidecar expects thanos at 127.0.0.1:10902; write the port as a number"
                )
            }
            Self::HostPid => f.write_str(
                "reload: signal searches the pod's processes for thanos, but hostPID: true shows the node's: thanos is restarted in place instead; remove hostPID, or write reload: exec",
            ),
            Self::SelectionFile(path) => write!(
                f,
                "--selector.relabel-config-file {path:?} is on a volume of this pod alone: if the selection differs from pod to pod, no pod serves most blocks; use a ConfigMap that all pods share"
            ),
            Self::MeshedPort { found, exclude } => write!(
                f,
                "a service mesh ({found}) intercepts port {}: the pod may stay in Init forever, and the server cannot reach the sidecar; add {} to the template's annotation {exclude}",
                names::SIDECAR_PORT,
                names::SIDECAR_PORT
            ),
        }
    }
}
