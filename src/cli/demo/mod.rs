//! `timeshard demo`: the whole system on one machine, without a cluster.
//!
//! First admission over HTTPS with the server's own code, then the agents and thanos as processes
//! with the injected arguments, then a reshard while they run. The real leader's code decides; the
//! demo only plays API server, kubelet and StatefulSet controller.
//!
//! Invariant: whatever ends the demo (its last line, a failure, a signal, even SIGKILL), no process
//! outlives it. All but SIGKILL also remove the directory.

mod admission;
mod change;
mod coverage;
mod leader;
mod live;
mod localise;
mod machine;
mod narrator;
mod page;
mod pod;
mod programs;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ConfigArgs, Failure, print};
use crate::adapters::https_client::ClientError;

pub(super) use programs::play_another_program;

/// Its line among the examples of the whole program.
pub(super) const EXAMPLE: &str =
    "  timeshard demo                                            # everything, without a cluster\n";
/// What a user without a cluster can do instead of `timeshard dashboard`.
pub(super) const PAGE_HINT: &str = ", or see the page without a cluster: timeshard demo --page";
/// What answers at the default address of the admin port.
pub(super) const PAGE_EXAMPLE: &str = "timeshard demo --page, or a port-forward";

/// Try the whole system on this machine, without a cluster
///
/// Starts the webhook on 127.0.0.1 with a certificate made in memory, expands a plain StatefulSet
/// into pods as the StatefulSet controller would, has each admitted over HTTPS, and shows what was
/// injected. Then at most 8 pods run: config-sidecar and launcher as processes in a temporary
/// directory, with the injected arguments, and thanos on an empty bucket (the thanos on PATH, or
/// else a stand-in that serves no data). Finally the StatefulSet is scaled and gets one more shard
/// while everything runs, step by step as the server would do it. It takes about 15 seconds and
/// leaves nothing behind.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  timeshard demo
  timeshard demo --page                                        # in a browser
  timeshard status --watch --server http://127.0.0.1:8080      # in another terminal
  timeshard demo -f store.yaml --config config.yaml")]
pub(super) struct Args {
    /// Your manifests with a thanos store StatefulSet, instead of the built-in one; a folder, or "-"
    /// for standard input; may be repeated
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Also read the folders in the folders of -f
    #[arg(short = 'R', long, requires = "filename")]
    recursive: bool,
    #[command(flatten)]
    config: ConfigArgs,
    /// Number of pods, instead of the StatefulSet's spec.replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: Option<u32>,
    /// Stop after admission; start no agent and no thanos
    #[arg(long)]
    admission_only: bool,
    /// The agent that the pods run, such as another release's timeshard-agent; by default it is
    /// this program
    #[arg(long, value_name = "FILE", conflicts_with = "admission_only")]
    agent: Option<PathBuf>,
    /// Also serve the page, /status, /metrics and /readyz, by default on 127.0.0.1:8080, and keep
    /// running until Ctrl-C; timeshard status --server `http://127.0.0.1:8080` reads it
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "127.0.0.1:8080", conflicts_with = "admission_only")]
    page: Option<SocketAddr>,
    /// Also print every pod's changes, each step's windows and all substituted arguments
    #[arg(short, long, conflicts_with = "admission_only")]
    verbose: bool,
    /// Where to search for thanos
    #[arg(long, env = "PATH", hide = true)]
    path: Option<OsString>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // One thread: the kernel ends the processes when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))?
        .block_on(demo(args))
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.to_string())
    }
}

async fn demo(args: &Args) -> Result<(), Failure> {
    if args.admission_only {
        admission::admit(args, &[]).await?.end().await?;
        return print("4. The webhook has drained and stopped. Nothing is left behind.\n");
    }
    live::demo(args).await
}
