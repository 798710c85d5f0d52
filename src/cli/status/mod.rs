//! `timeshard status`: the leader's reports for people during a rollout.
//!
//! Computes nothing that the leader did not report; `-o json` has the complete reports.

mod blocks;
mod document;
mod queriers;
mod table;
mod time_left;
mod watch;

use std::io::IsTerminal as _;

use terminal_size::{Height, Width, terminal_size_of};

use self::document::StatusDocument;
use super::cluster::{ClusterArgs, StatusServer, SystemArgs, parse_name};
use super::statefulset_name::StatefulSetName;
use super::{Failure, demo, output, print, say};
use crate::adapters::kube::server_status::Address;
use crate::core::model::duration::PromDuration;

/// Show the progress of rollouts, from the running server
///
/// For each pod its published and applied window, its state, and what it waits for. Reaches the leader among the pods of `timeshard serve` through the API server's proxy (needs get
/// on leases, list on pods and get on pods/proxy in its namespace), or at the address in --server.
/// Exits with 0 even if there is a gap or a blocked rollout; use --until-settled for an exit code.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  timeshard status
  timeshard status -n monitoring thanos-store-gateway --watch
  timeshard status monitoring/thanos-store-gateway --until-settled --timeout 30m
  timeshard status -o json | jq '.statefulsets[] | {{name, state, message}}'
  timeshard status --server http://127.0.0.1:8080    # {}", demo::PAGE_EXAMPLE))]
pub(super) struct Args {
    /// StatefulSets, as NAME, NAMESPACE/NAME or statefulset/NAME. Default: all in labelled namespaces
    #[arg(value_name = "STATEFULSET")]
    statefulsets: Vec<StatefulSetName>,
    /// Namespace of StatefulSets given without one. Default: any
    #[arg(short, long, value_name = "NAMESPACE", value_parser = parse_name)]
    namespace: Option<String>,
    /// StatefulSets of all labelled namespaces, as without -n
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// Poll every 2 s and show changes, until Ctrl-C (exit code 0)
    #[arg(short, long)]
    watch: bool,
    /// Like --watch, until every StatefulSet is settled (exit code 0), or one is blocked or refused
    /// (exit code 3). Does not wait for a change that the leader has not observed yet
    #[arg(long)]
    until_settled: bool,
    /// With --until-settled: give up after this long (such as 30m), with exit code 1. Default:
    /// never
    #[arg(long, value_name = "DURATION", requires = "until_settled", value_parser = parse_timeout)]
    timeout: Option<PromDuration>,
    /// Address of the admin port, such as `http://127.0.0.1:8080` (a port-forward), instead of a
    /// cluster
    #[arg(long, value_name = "URL", env = "TIMESHARD_SERVER")]
    server: Option<Address>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    system: SystemArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table for each StatefulSet
    Table,
    /// The same with every column and pod, in full width
    Wide,
    /// One JSON document: the leader's complete reports (with --watch one per line)
    Json,
    /// The same as YAML (with --watch one document per change of the reports)
    Yaml,
}

/// Kind of the document.
const KIND: &str = "Status";
/// Width of a table without a terminal.
const PIPED_COLUMNS: usize = 200;

pub(super) fn parse_timeout(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text
        .parse()
        .map_err(|error: crate::core::model::duration::DurationError| error.to_string())?;
    if value > PromDuration::ZERO {
        Ok(value)
    } else {
        Err("write a duration above 0s, such as 30m".to_owned())
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    super::block_on(async {
        let server = StatusServer::find(args.server.as_ref(), &args.cluster, &args.system).await?;
        if args.watch || args.until_settled {
            watch::run(args, &server).await
        } else {
            once(args, &server).await
        }
    })
}

async fn once(args: &Args, server: &StatusServer) -> Result<(), Failure> {
    let document = fetch(args, server).await?;
    for remark in document.remarks() {
        say(&remark);
    }
    match args.output {
        Output::Json => print(&output::json(KIND, &document.parts())?),
        Output::Yaml => print(&output::yaml(KIND, &document.parts())?),
        Output::Table => print(&table::text(&document, Some(size().0))?),
        Output::Wide => print(&table::text(&document, None)?),
    }
}

async fn fetch(args: &Args, server: &StatusServer) -> Result<StatusDocument, Failure> {
    let mut document = StatusDocument::read(server.ask().await?)?;
    document.select(&args.statefulsets, args.namespace.as_deref())?;
    Ok(document)
}

/// Returns columns and, on a terminal, rows.
fn size() -> (usize, Option<usize>) {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return (PIPED_COLUMNS, None);
    }
    // A terminal that does not report its size counts as a small one.
    let (Width(columns), Height(rows)) =
        terminal_size_of(stdout).unwrap_or((Width(80), Height(24)));
    (usize::from(columns), Some(usize::from(rows)))
}
