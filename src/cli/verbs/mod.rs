//! Verbs around the annotations of a StatefulSet: `reshard`, `pause`, `resume`, `scale-down`.
//!
//! Each refuses what is wrong on every StatefulSet before it asks a cluster, reads the StatefulSet
//! and the server's configuration, refuses what the server would refuse before anything is written,
//! and then patches annotations on the StatefulSet's own metadata.
//! Deliberately absent: writes to anything else, except for `scale-down --scale`.

mod change;
mod pause;
mod reshard;
mod scale_down;
mod target;

use std::path::PathBuf;

use super::cluster::{ClusterArgs, SystemArgs, parse_name};
use super::statefulset_name::StatefulSetName;
use super::{Failure, input, print, say};
use crate::core::config::Config;

pub(super) use pause::{PauseArgs, ResumeArgs, pause, resume};
pub(super) use reshard::{ReshardArgs, reshard};
pub(super) use scale_down::{ScaleDownArgs, scale_down};

/// What every verb accepts.
#[derive(Clone, Debug, clap::Args)]
struct VerbArgs {
    /// Namespace of the StatefulSet. Default: the context's
    #[arg(short, long, value_name = "NAMESPACE", value_parser = parse_name)]
    namespace: Option<String>,
    /// Change nothing: client shows what would be written; server also asks the API server and the
    /// guard. Without a value: server
    #[arg(long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "server")]
    dry_run: DryRunMode,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// Configuration file to check against; "-" reads standard input. Default: the server's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    system: SystemArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DryRunMode {
    None,
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// What changes, and the result
    Table,
    /// The same with every step of the rollout
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

impl DryRunMode {
    /// As kubectl shows it behind the result.
    const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl Output {
    /// Prints a line after the document: for people, or else as a remark.
    fn result(self, line: &str) -> Result<(), Failure> {
        match self {
            Self::Table | Self::Wide => print(&format!("{line}\n")),
            Self::Json | Self::Yaml => {
                say(line);
                Ok(())
            }
        }
    }
}

impl VerbArgs {
    /// Returns the configuration in --config, if the user gives one.
    fn given_config(&self) -> Result<Option<Config>, Failure> {
        self.config.as_deref().map(input::config_file).transpose()
    }

    /// Returns the namespace of a StatefulSet, if the user names one.
    fn namespace_of(&self, set: &StatefulSetName) -> Result<Option<String>, Failure> {
        match (&self.namespace, &set.namespace) {
            (Some(flag), Some(own)) if flag != own => Err(Failure::Invalid(format!(
                "{own}/{}: it is in namespace {own}, but -n is {flag}; write one of them",
                set.name
            ))),
            (flag, own) => Ok(own.clone().or_else(|| flag.clone())),
        }
    }
}

#[cfg(test)]
mod tests;
