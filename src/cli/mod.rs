//! The command line: parses flags, runs a command and maps its result to an exit code.
//!
//! Every command uses the server's code. Exit codes are a contract: 0 done, 1 failed, 2 usage or
//! invalid input, 3 a check found a problem.

mod blocks;
mod check;
mod cluster;
mod complete;
mod dashboard;
#[cfg(feature = "server")]
mod demo;
#[cfg(not(feature = "server"))]
mod elsewhere;
mod forecast;
mod inject;
mod input;
mod manifests;
mod measured;
mod output;
#[cfg(feature = "server")]
mod page_source;
mod plan;
mod program;
#[cfg(feature = "server")]
mod serve;
mod statefulset_name;
mod status;
mod steps;
mod svg;
mod timeline;
mod verbs;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::core::config::MAX_PODS;
use crate::core::model::text::one_line;
use crate::core::model::version as build;

#[cfg(not(feature = "server"))]
use elsewhere::{demo, serve};
pub use program::{help_texts, parse};

/// Time-sharded Thanos Store Gateways by admission.
///
/// Label a namespace, deploy a plain `thanos store` StatefulSet, and every pod gets its time window
/// from its ordinal. Windows are ages before now in Prometheus' units (1d = 24h); shard 0 is the
/// newest.
#[derive(Debug, Parser)]
#[command(name = "timeshard", version = build::text(), propagate_version = true)]
#[command(after_help = format!("\
Examples:
{}  timeshard plan --config config.yaml
  timeshard check --pre
  timeshard status -n monitoring --watch
  timeshard reshard thanos-store-gateway -n monitoring total-shards=4 --dry-run

As a plugin: a binary or link named kubectl-timeshard on the PATH runs as kubectl timeshard.
Exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 a check found a problem.", demo::EXAMPLE))]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Help on names in manifests and units of durations.
const NAMES_HELP: &str = "\
Namespace label:        thanos-timeshard.io/injection=enabled
StatefulSet annotations (on its own metadata): thanos-timeshard.io/KEY, where KEY is
  a key of the sharding block with dashes: total-shards, replicas-per-shard, replicas, data-retention-days, retention,
  shard-overlap-days, overlap, future-buffer-hours, future-buffer, boundaries, window-format, quantum, minimum-overlap,
  drain, termination-drain, discovery-delay, load-retry, reload, shard-services, allow-coverage-gap,
  max-unavailable, max-concurrent-restarts, canary, queriers-complete, drain-limit;
  target-replicas, pause, managed (\"false\" opts out), guard (deny, warn or off), replace-time-flags, reload-despite-liveness
Pod template annotations: thanos-timeshard.io/inject (also as a label), /command, /replace-time-flags,
  /reload-despite-liveness
Durations: whole numbers with y, w, d, h, m, s, ms, largest first, such as 1d12h (1d = 24h, 1y = 365d);
  retention may be forever, with boundaries; future-buffer may be negative: the newest window then ends before now";

/// Examples, followed by [`NAMES_HELP`].
fn with_names(examples: &str) -> String {
    format!("{examples}\n\n{NAMES_HELP}")
}

// No comments on the variants: they would replace those of the arguments, which are the help texts.
#[derive(Debug, Subcommand)]
enum Command {
    Plan(plan::Args),
    Inject(inject::Args),
    Demo(demo::Args),
    Status(status::Args),
    Check(check::Args),
    Dashboard(dashboard::Args),
    Reshard(verbs::ReshardArgs),
    Pause(verbs::PauseArgs),
    Resume(verbs::ResumeArgs),
    ScaleDown(verbs::ScaleDownArgs),
    Version(version::Args),
    Completion(program::CompletionArgs),
    #[command(hide = true)]
    Man(program::ManArgs),
    Serve(Box<serve::Args>),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Invalid input. Exit code 2.
    #[error("{0}")]
    Invalid(String),
    /// A check found a problem. Exit code 3.
    #[error("{0}")]
    Found(String),
}

impl Failure {
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Invalid(_) => 2,
            Self::Found(_) => 3,
        })
    }
}

#[derive(Clone, Debug, clap::Args)]
struct ConfigArgs {
    /// Configuration file (YAML, at most 1 MiB); "-" reads standard input. Default: 3 shards with 2
    /// replicas each, 370 days, 1 day overlap, 24 hours future buffer
    #[arg(long, value_name = "FILE", env = "TIMESHARD_CONFIG")]
    config: Option<PathBuf>,
}

/// Reads a number of pods.
fn parse_pods(text: &str) -> Result<u32, String> {
    whole_number(text, 1, MAX_PODS)
}

fn whole_number(text: &str, low: u32, high: u32) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| (low..=high).contains(number))
        .ok_or_else(|| format!("write a whole number from {low} to {high}"))
}

/// Runs one command.
///
/// # Errors
/// [`Failure`], whose text is for the user.
pub fn run(cli: Cli) -> Result<(), Failure> {
    // A console of Windows prints escape sequences as text unless a program asks it not to.
    anstyle_query::windows::enable_ansi_colors();
    match cli.command {
        Command::Plan(args) => plan::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Dashboard(args) => dashboard::run(&args),
        Command::Reshard(args) => verbs::reshard(&args),
        Command::Pause(args) => verbs::pause(&args),
        Command::Resume(args) => verbs::resume(&args),
        Command::ScaleDown(args) => verbs::scale_down(&args),
        Command::Version(args) => version::run(&args),
        Command::Completion(args) => program::completion(&args),
        Command::Man(args) => program::man(&args),
        Command::Serve(args) => serve::run(&args),
    }
}

/// Runs a command that asks a cluster, on one thread.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(command)
}

/// Runs the agent or the demo's stand-in, if this program was started under their name.
#[must_use]
pub fn play_another_program() -> Option<ExitCode> {
    demo::play_another_program()
}

/// Prints to standard output; a closed pipe (`| head`) is not a failure.
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

/// Prints a remark to standard error.
#[allow(
    clippy::print_stderr,
    reason = "remarks must not mix with piped output"
)]
fn say(text: &str) {
    eprintln!("{}", for_terminal(text));
}

/// Removes control characters from each line: names and messages come from other people's objects.
#[must_use]
pub fn for_terminal(text: &str) -> String {
    text.split('\n')
        .map(one_line)
        .collect::<Vec<_>>()
        .join("\n")
}
