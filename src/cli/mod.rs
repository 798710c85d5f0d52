//! The command line: flags become one checked value, commands return what to print and how to exit.
//!
//! Every command works on the same code as the server. Exit codes are a contract: 0 done, 1 failed, 2 usage or invalid
//! input, 3 a check found something wrong.

mod blocks;
mod check;
mod demo;
mod forecast;
mod inject;
mod input;
mod page_source;
mod plan;
mod self_signed;
mod serve;
mod status;
mod steps;
mod svg;
mod timeline;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::core::printable::one_line;
use crate::core::version;

/// Time-sharded Thanos Store Gateways by admission.
///
/// Label a namespace, deploy a plain `thanos store` StatefulSet, and every pod gets its time window from its ordinal.
/// Windows are ages before now in Prometheus' units (1d = 24h); shard 0 is the newest.
#[derive(Debug, Parser)]
#[command(name = "timeshard", version = version::text(), propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 a check found something wrong."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The names that are written into manifests, and the units of durations, for the commands that read them.
const NAMES_HELP: &str = "\
Namespace label:        thanos-timeshard.io/injection=enabled
StatefulSet annotations (on its own metadata): thanos-timeshard.io/KEY, where KEY is
  a key of the sharding block with dashes: total-shards, replicas-per-shard, replicas, data-retention-days, retention,
  shard-overlap-days, overlap, future-buffer-hours, future-buffer, boundaries, window-format, quantum, minimum-overlap,
  drain, termination-drain, discovery-delay, load-retry, reload, shard-services, allow-coverage-gap;
  target-replicas, pause, guard (deny, warn or off), replace-time-flags, reload-despite-liveness
Pod template annotations: thanos-timeshard.io/inject (also as a label), /command, /replace-time-flags,
  /reload-despite-liveness
Durations: whole numbers with y, w, d, h, m, s, ms, largest first, such as 1d12h (1d = 24h, 1y = 365d);
  retention may be forever, with boundaries; future-buffer may be negative: the newest window then ends before now";

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the windows and pods of a configuration, or the rollout between two, without a cluster
    Plan(plan::Args),
    /// Show pods as they would be after admission, without a cluster
    Inject(inject::Args),
    /// Try the whole system on this machine, without a cluster
    Demo(demo::Args),
    /// Show how far rollouts are, from the running server
    Status(status::Args),
    /// Check an installation and everything around the gateways, or a cluster before installing
    Check(check::Args),
    /// Run the admission webhook
    Serve(Box<serve::Args>),
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something in the world went wrong. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The input cannot be used as it is. Exit code 2.
    #[error("{0}")]
    Invalid(String),
    /// A check found something wrong. Exit code 3.
    #[error("{0}")]
    Found(String),
}

impl Failure {
    /// The exit code that tells scripts which it was.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Invalid(_) => 2,
            Self::Found(_) => 3,
        })
    }
}

impl From<crate::adapters::http_client::ClientError> for Failure {
    fn from(error: crate::adapters::http_client::ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Where the configuration file is.
#[derive(Clone, Debug, clap::Args)]
struct ConfigArgs {
    /// Configuration file (YAML, at most 1 MiB); "-" reads standard input. Without it the built-in defaults hold:
    /// 3 shards, 2 replicas each, 370 days, 1 day overlap, 24 hours future buffer
    #[arg(long, value_name = "FILE", env = "TIMESHARD_CONFIG")]
    config: Option<PathBuf>,
}

/// Runs one command.
///
/// # Errors
/// [`Failure`], whose text is for the person who called.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Plan(args) => plan::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Serve(args) => serve::run(&args),
    }
}

/// Runs the program that the demo has this one play under another name, if that is how it was started.
#[must_use]
pub fn play_another_program() -> Option<ExitCode> {
    #[cfg(feature = "agent")]
    return demo::play_another_program();
    #[cfg(not(feature = "agent"))]
    None
}

/// Prints to standard output; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Says something to the person, beside the output.
#[allow(
    clippy::print_stderr,
    reason = "remarks for the person must not mix with output that is piped on"
)]
fn say(text: &str) {
    eprintln!("{}", for_terminal(text));
}

/// Lines of text without what a terminal would obey: names and messages come from other people's objects.
#[must_use]
pub fn for_terminal(text: &str) -> String {
    text.split('\n')
        .map(one_line)
        .collect::<Vec<_>>()
        .join("\n")
}
