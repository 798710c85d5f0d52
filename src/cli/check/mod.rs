//! `timeshard check`: reports problems of an installation and how to fix them.
//!
//! `core::check` decides, `adapters::kube::check` gathers; this module has flags, waiting and exit
//! codes.

mod print;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use self::print::{Output, Style};
use super::cluster::{ClusterArgs, SystemArgs, parse_name};
use super::{Failure, input, print as put};
use crate::adapters::kube::check::{CheckScope, DEADLINE, Progress, gather, gather_before};
use crate::adapters::kube::server_status::Address;
use crate::core::check::objects::ConfigText;
use crate::core::check::{self, CheckOutcome, Report};
use crate::core::config::MAX_CONFIG_BYTES;
use crate::core::model::duration::PromDuration;
use crate::core::model::text::truncate;

/// The highest `--dns-cache`: no DNS server caches an answer about a Service for longer.
const MAX_DNS_CACHE: PromDuration = PromDuration::from_secs(3_600);
/// The pause before the next try with `--wait`.
const RETRY_EVERY: Duration = Duration::from_secs(2);

/// Check an installation, its gateways and queriers, or a cluster before installation
///
/// Checks the API server, the server, its webhook and certificate, labelled namespaces, gateways,
/// rollouts and queriers. Prints for each check whether it passes (√), warns (‼), fails (×) or is
/// skipped (-), and what to do. Changes nothing: it creates one pod, as a dry run. docs/checks.md
/// explains every check. Exits with 0 if all checks passed or only warned, 3 if any failed, 1 if the
/// cluster cannot be reached.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  timeshard check --pre                      # before installation
  timeshard check --wait 5m                  # after it, until no check fails
  timeshard check -n monitoring -o wide
  timeshard check --config config.yaml       # a changed configuration, before it is applied
  timeshard check -o json | jq '.checks[] | select(.result == \"fail\")'")]
pub(super) struct Args {
    /// Check a cluster before installation
    #[arg(long, conflicts_with_all = ["namespace", "all_namespaces", "config"])]
    pre: bool,
    /// Check only this labelled namespace. Default: all labelled namespaces
    #[arg(short, long, value_name = "NAMESPACE", value_parser = parse_name)]
    namespace: Option<String>,
    /// All labelled namespaces, as without -n
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Check this configuration file (YAML, at most 1 MiB; "-" reads standard input) against the
    /// gateways, instead of the server's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// Repeat every 2 s until no check fails, for at most this long (such as 5m). Default: run once
    #[arg(long, value_name = "DURATION", value_parser = super::status::parse_timeout)]
    wait: Option<PromDuration>,
    /// Address of the server's admin port, such as `http://127.0.0.1:8080` (a port-forward).
    /// Default: through the API server
    #[arg(long, value_name = "URL", env = "TIMESHARD_SERVER")]
    server: Option<Address>,
    /// How long DNS caches an answer about a Service (such as 30s; 0s for no cache). Default: from
    /// the Corefile in ConfigMap coredns of namespace kube-system, or 30s if that cannot be read
    #[arg(long, value_name = "DURATION", value_parser = parse_dns_cache, conflicts_with = "pre")]
    dns_cache: Option<PromDuration>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    system: SystemArgs,
    /// Disable colours (also `NO_COLOR`)
    #[arg(long, env = "NO_COLOR", hide_env = true, value_parser = parse_no_color)]
    no_color: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    super::block_on(check(args))
}

async fn check(args: &Args) -> Result<(), Failure> {
    let wanted = wanted(args)?;
    let cluster = args.cluster.connect(DEADLINE, "").await?;
    let client = &cluster.client;
    let line = ProgressLine::new();
    let deadline = args
        .wait
        .and_then(|wait| Instant::now().checked_add(wait.to_std()));
    let report = loop {
        let report = gather_and_check(args, &wanted, client, &line).await;
        let left = deadline.is_some_and(|deadline| Instant::now() + RETRY_EVERY < deadline);
        let failed = report.summary().fail;
        if failed == 0 || !left {
            break report;
        }
        line.show(&format!("{failed} failed; trying again"));
        tokio::time::sleep(RETRY_EVERY).await;
    };
    line.clear();
    if let Some(finding) = unreachable(&report) {
        // Scripts that read JSON also get a document.
        if args.output.is_document() {
            put(&print::rendered(
                &report,
                args.output,
                Style { colours: false },
            )?)?;
        }
        let cause = finding
            .message
            .split_once(": ")
            .map_or(finding.message.as_str(), |(_, cause)| cause);
        return Err(Failure::Failed(format!(
            "the API server at {cluster} does not answer: {}",
            one_line(cause)
        )));
    }
    let style = Style {
        colours: std::io::stdout().is_terminal() && !args.no_color,
    };
    put(&print::rendered(&report, args.output, style)?)?;
    verdict(&report)
}

async fn gather_and_check(
    args: &Args,
    wanted: &CheckScope,
    client: &Client,
    line: &ProgressLine,
) -> Report {
    if args.pre {
        check::pre(&Box::pin(gather_before(client.clone(), wanted, line.progress())).await)
    } else {
        check::run(&Box::pin(gather(client.clone(), wanted, line.progress())).await)
    }
}

fn wanted(args: &Args) -> Result<CheckScope, Failure> {
    let local = |path: &PathBuf| {
        let text = input::text(path, MAX_CONFIG_BYTES)?;
        Ok::<_, Failure>(ConfigText {
            source: input::name(path),
            text,
            of_server: false,
        })
    };
    Ok(CheckScope {
        system: args.system.system_namespace.clone(),
        only: args.namespace.clone(),
        config: args.config.as_ref().map(local).transpose()?,
        server: args.server.clone(),
        dns_cache: args.dns_cache,
        deadline: args.cluster.deadline(DEADLINE),
    })
}

fn parse_dns_cache(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text
        .parse()
        .map_err(|error: crate::core::model::duration::DurationError| error.to_string())?;
    if (PromDuration::ZERO..=MAX_DNS_CACHE).contains(&value) {
        Ok(value)
    } else {
        Err("write a duration from 0s to 1h, such as 30s".to_owned())
    }
}

fn verdict(report: &Report) -> Result<(), Failure> {
    let summary = report.summary();
    match summary.fail {
        0 => Ok(()),
        failed => Err(Failure::Found(format!(
            "{failed} of {} checks failed",
            report.findings.len()
        ))),
    }
}

fn unreachable(report: &Report) -> Option<&check::Finding> {
    report.findings.iter().find(|finding| {
        finding.check == &check::ids::API_REACHABLE && finding.result == CheckOutcome::Fail
    })
}

/// Joins the lines of a cause: proxies answer with whole pages.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// True for the bare flag and for any non-empty environment variable except `false`.
#[allow(clippy::unnecessary_wraps, reason = "clap's parsers may fail")]
fn parse_no_color(text: &str) -> Result<bool, String> {
    Ok(!matches!(text, "" | "false"))
}

/// A line on the terminal with the current check; nothing if stderr is not a terminal.
struct ProgressLine {
    visible: bool,
}

/// Fits a narrow terminal, in characters.
const LINE_CHARS: usize = 76;

impl ProgressLine {
    fn new() -> Self {
        Self {
            visible: std::io::stderr().is_terminal(),
        }
    }

    fn progress(&self) -> Progress {
        let visible = self.visible;
        Arc::new(move |what| Self { visible }.show(what))
    }

    fn show(&self, what: &str) {
        self.put(&format!("\r\u{1b}[K{}", truncate(what, LINE_CHARS)));
    }

    fn clear(&self) {
        self.put("\r\u{1b}[K");
    }

    fn put(&self, text: &str) {
        use std::io::Write as _;
        if self.visible {
            let mut out = std::io::stderr().lock();
            // The line is only decoration.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_cache_is_bounded() {
        for (text, fits) in [
            ("0s", true),
            ("30s", true),
            ("1h", true),
            ("2h", false),
            ("-1s", false),
            ("30", false),
            ("", false),
        ] {
            assert_eq!(parse_dns_cache(text).is_ok(), fits, "{text}");
        }
    }
}
