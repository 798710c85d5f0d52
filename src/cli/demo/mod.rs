//! `timeshard demo`: the whole system on one machine, without a cluster.
//!
//! First admission over HTTPS with the server's own code, then the agents and thanos as processes that run what was
//! injected, then a reshard while they run, by the decisions that the leader of a cluster makes: the demo only plays API
//! server, kubelet and StatefulSet controller. Invariant: whatever ends the demo (its last line, a failure, a signal, even
//! SIGKILL), no process outlives it; all but SIGKILL remove the directory, too.

mod admission;
#[cfg(feature = "agent")]
mod change;
#[cfg(feature = "agent")]
mod leader;
#[cfg(feature = "agent")]
mod live;
#[cfg(feature = "agent")]
mod machine;
#[cfg(feature = "agent")]
mod page;
#[cfg(feature = "agent")]
mod pod;
#[cfg(feature = "agent")]
mod programs;
#[cfg(feature = "agent")]
mod tell;
#[cfg(feature = "agent")]
mod words;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ConfigArgs, Failure, print};

#[cfg(feature = "agent")]
pub(super) use programs::play_another_program;

/// Try the whole system on this machine, without a cluster.
///
/// Starts the webhook on 127.0.0.1 with a certificate made in memory, expands a plain StatefulSet into pods as the
/// StatefulSet controller would, has each admitted over HTTPS, and shows what was injected. Then the pods run, at most 8:
/// config-sidecar and launcher as processes in a temporary directory, with the words that were injected, and thanos on an
/// empty bucket (the thanos on PATH, or else a stand-in that serves no data). At last the StatefulSet is scaled and gets
/// one shard more while everything runs, step by step as the server would do it. It takes about a minute and leaves
/// nothing behind.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A manifest of your own with a thanos store StatefulSet, instead of the built-in one
    #[arg(short, long, value_name = "FILE")]
    filename: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Number of pods, instead of the StatefulSet's spec.replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: Option<u32>,
    /// End after admission; start no agent and no thanos
    #[arg(long)]
    admission_only: bool,
    /// The agent that the pods run, such as another release's timeshard-agent; by default this program plays it
    #[arg(long, value_name = "FILE", conflicts_with = "admission_only")]
    agent: Option<PathBuf>,
    /// Serve the page meanwhile, by default on 127.0.0.1:8080, and go on until Ctrl-C
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "127.0.0.1:8080", conflicts_with = "admission_only")]
    page: Option<SocketAddr>,
    /// Where thanos is looked for
    #[arg(long, env = "PATH", hide = true)]
    path: Option<OsString>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // One thread: the kernel ends the demo's processes when the thread that started them ends.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|error| Failure::Failed(format!("the runtime does not start: {error}")))?
        .block_on(demo(args))
}

async fn demo(args: &Args) -> Result<(), Failure> {
    if args.admission_only {
        admission::admit(args, &[]).await?.end().await?;
        return print("4. The webhook has drained and ended. Nothing is left behind.\n");
    }
    #[cfg(feature = "agent")]
    return live::demo(args).await;
    #[cfg(not(feature = "agent"))]
    {
        admission::admit(args, &[]).await?.end().await?;
        Err(Failure::Failed(
            "this timeshard was built without the agent, so no pod can run here: build it with its default features \
             (cargo run --bin timeshard -- demo), or use --admission-only"
                .to_owned(),
        ))
    }
}
