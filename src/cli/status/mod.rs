//! `timeshard status`: what a person needs during a rollout, from the server that leads.
//!
//! Nothing is computed here that the leader has not said; what it said in full is `-o json`.

mod blocks;
mod document;
mod table;
mod watch;

use std::io::IsTerminal as _;

use self::document::{Document, Wanted};
use super::{Failure, print, say};
use crate::adapters::server_status::{Address, Server, connect};
use crate::core::duration::PromDuration;
use crate::core::names;

/// Show how far rollouts are: per pod the published and applied window, its state, and what it waits for.
///
/// Asks the leader among the pods of `timeshard serve` through the API server's proxy (in-cluster configuration or
/// KUBECONFIG; takes get on leases, list on pods and get on pods/proxy in its namespace), or with --server an address.
/// Exits with 0 whenever it could show something, also when that is a gap or a blocked rollout: use --until-settled where
/// the exit code shall tell.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// StatefulSets to show, as NAME or NAMESPACE/NAME. Default: all in labelled namespaces
    #[arg(value_name = "[NAMESPACE/]STATEFULSET")]
    statefulsets: Vec<Wanted>,
    /// Namespace of StatefulSets that are given without one. Default: any
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// Ask every 2 s and show what changes, until Ctrl-C (exit code 0)
    #[arg(short, long)]
    watch: bool,
    /// As --watch, until all that is shown is settled (exit code 0), or blocked or refused (exit code 3). A change that the
    /// leader has not seen yet is not waited for
    #[arg(long)]
    until_settled: bool,
    /// With --until-settled: give up after this long (such as 30m), with exit code 1. Default: never
    #[arg(long, value_name = "DURATION", requires = "until_settled", value_parser = parse_timeout)]
    timeout: Option<PromDuration>,
    /// Ask the admin port at this address, such as `http://127.0.0.1:8080` (a port-forward), instead of a cluster
    #[arg(long, value_name = "URL", env = "TIMESHARD_SERVER")]
    server: Option<Address>,
    /// Namespace that `timeshard serve` runs in
    #[arg(long, value_name = "NAMESPACE", env = "TIMESHARD_SYSTEM_NAMESPACE", default_value = names::SYSTEM_NAMESPACE, value_parser = parse_name)]
    system_namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A table for each StatefulSet
    Table,
    /// One JSON document: the leader's reports as they are (with --watch one a line)
    Json,
}

/// Width of a table that is not read on a terminal.
const PIPED_COLUMNS: usize = 200;

pub(super) fn parse_timeout(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text
        .parse()
        .map_err(|error: crate::core::duration::DurationError| error.to_string())?;
    if value > PromDuration::ZERO {
        Ok(value)
    } else {
        Err("write a duration above 0s, such as 30m".to_owned())
    }
}

/// A namespace's name; it becomes a part of a path.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("write a namespace's name (a-z, 0-9, -), at most 63 characters".to_owned())
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime does not start: {error}")))?;
    runtime.block_on(async {
        let server = server(args).await?;
        if args.watch || args.until_settled {
            watch::run(args, &server).await
        } else {
            once(args, &server).await
        }
    })
}

async fn server(args: &Args) -> Result<Server, Failure> {
    if let Some(address) = &args.server {
        return Ok(Server::At(address.clone()));
    }
    let client = connect().await.map_err(|error| {
        Failure::Failed(format!(
            "no cluster: {error}; set KUBECONFIG, run in a pod with a ServiceAccount, or ask an address with --server http://127.0.0.1:8080"
        ))
    })?;
    Ok(Server::Leader {
        client,
        namespace: args.system_namespace.clone(),
    })
}

async fn once(args: &Args, server: &Server) -> Result<(), Failure> {
    let document = ask(args, server).await?;
    for remark in document.remarks() {
        say(&remark);
    }
    match args.output {
        Output::Json => print(&(document.json(true)? + "\n")),
        Output::Table => print(&table::text(&document, size().0)?),
    }
}

async fn ask(args: &Args, server: &Server) -> Result<Document, Failure> {
    let answer = server
        .ask()
        .await
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let mut document = Document::read(answer)?;
    document.select(&args.statefulsets, args.namespace.as_deref())?;
    Ok(document)
}

/// Columns and, on a terminal, rows.
fn size() -> (usize, Option<usize>) {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return (PIPED_COLUMNS, None);
    }
    // A terminal that does not say is taken for a small one.
    let (columns, rows) =
        rustix::termios::tcgetwinsize(stdout).map_or((0, 0), |size| (size.ws_col, size.ws_row));
    let or = |given: u16, usual: usize| {
        if given == 0 {
            usual
        } else {
            usize::from(given)
        }
    };
    (or(columns, 80), Some(or(rows, 24)))
}
