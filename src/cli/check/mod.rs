//! `timeshard check`: looks at a cluster, says what is wrong and what to do about it.
//!
//! What is wrong is decided in `core::check`, what is looked at in `adapters::check`; here are flags, waiting and exit codes.

mod print;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use self::print::{Output, Style};
use super::{Failure, input, print as put};
use crate::adapters::check::{Progress, Wanted, gather, gather_before};
use crate::adapters::server_status::{Address, connect_to};
use crate::core::check::objects::ConfigText;
use crate::core::check::{self, Outcome, Report};
use crate::core::config::MAX_CONFIG_BYTES;
use crate::core::duration::PromDuration;
use crate::core::names;

/// The longest time that DNS servers remember an answer about a Service.
const MAX_DNS_CACHE: PromDuration = PromDuration::from_secs(3_600);
/// How long to wait before looking again.
const AGAIN: Duration = Duration::from_secs(2);

/// Check an installation, or with --pre a cluster before it.
///
/// Looks at the API server, the server, its webhook and certificate, labelled namespaces, gateways, rollouts and queriers
/// (in-cluster configuration or KUBECONFIG), and says for each check whether it passes (√), warns (‼), fails (×) or was
/// skipped (-), and what to do. Changes nothing: the one pod that it sends is created as a dry run. docs/checks.md explains
/// every check. Exits with 0 when all passed or only warned, with 3 when one failed, with 1 when the cluster cannot be asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Check what can be known before anything is installed
    #[arg(long, conflicts_with_all = ["namespace", "config"])]
    pre: bool,
    /// Look at this labelled namespace only. Default: all that are labelled
    #[arg(short, long, value_name = "NAMESPACE", value_parser = super::status::parse_name)]
    namespace: Option<String>,
    /// Check this configuration file (YAML, at most 1 MiB; "-" reads standard input) against the gateways, instead of the
    /// server's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to print
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Look again every 2 s until no check fails, for this long at most (such as 5m). Default: once
    #[arg(long, value_name = "DURATION", value_parser = super::status::parse_timeout)]
    wait: Option<PromDuration>,
    /// Ask the server's admin port at this address, such as `http://127.0.0.1:8080` (a port-forward), instead of finding it
    #[arg(long, value_name = "URL", env = "TIMESHARD_SERVER")]
    server: Option<Address>,
    /// How long DNS remembers an answer about a Service (such as 30s; 0s is not at all). Default: by the Corefile in ConfigMap
    /// coredns of namespace kube-system, and 30s where that cannot be read
    #[arg(long, value_name = "DURATION", value_parser = parse_dns_cache, conflicts_with = "pre")]
    dns_cache: Option<PromDuration>,
    /// Namespace that `timeshard serve` runs in, or shall run in
    #[arg(long, value_name = "NAMESPACE", env = "TIMESHARD_SYSTEM_NAMESPACE", default_value = names::SYSTEM_NAMESPACE, value_parser = super::status::parse_name)]
    system_namespace: String,
    /// No colours, not on a terminal either; also by any text in `NO_COLOR`
    #[arg(long, env = "NO_COLOR", hide_env = true, value_parser = parse_no_color)]
    no_color: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime does not start: {error}")))?;
    runtime.block_on(check(args))
}

async fn check(args: &Args) -> Result<(), Failure> {
    let wanted = wanted(args)?;
    let (client, url) = connect_to().await.map_err(|error| {
        Failure::Failed(format!(
            "no cluster: {error}; set KUBECONFIG, or run in a pod with a ServiceAccount"
        ))
    })?;
    let line = Line::new();
    let deadline = args
        .wait
        .and_then(|wait| Instant::now().checked_add(wait.to_std()));
    let report = loop {
        let report = look(args, &wanted, &client, &line).await;
        let left = deadline.is_some_and(|deadline| Instant::now() + AGAIN < deadline);
        let failed = report.summary().fail;
        if failed == 0 || !left {
            break report;
        }
        line.show(&format!("{failed} failed; looking again"));
        tokio::time::sleep(AGAIN).await;
    };
    line.clear();
    if let Some(finding) = unreachable(&report) {
        // Scripts that read JSON find the same there.
        if args.output == Output::Json {
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
            "the API server at {} does not answer: {}",
            url.trim_end_matches('/'),
            one_line(cause)
        )));
    }
    let style = Style {
        colours: std::io::stdout().is_terminal() && !args.no_color,
    };
    put(&print::rendered(&report, args.output, style)?)?;
    verdict(&report)
}

async fn look(args: &Args, wanted: &Wanted, client: &Client, line: &Line) -> Report {
    if args.pre {
        check::pre(
            &Box::pin(gather_before(
                client.clone(),
                &args.system_namespace,
                line.progress(),
            ))
            .await,
        )
    } else {
        check::run(&Box::pin(gather(client.clone(), wanted, line.progress())).await)
    }
}

fn wanted(args: &Args) -> Result<Wanted, Failure> {
    let local = |path: &PathBuf| {
        let text = input::text(path, MAX_CONFIG_BYTES)?;
        Ok::<_, Failure>(ConfigText {
            source: input::name(path),
            text,
            of_server: false,
        })
    };
    Ok(Wanted {
        system: args.system_namespace.clone(),
        only: args.namespace.clone(),
        config: args.config.as_ref().map(local).transpose()?,
        server: args.server.clone(),
        dns_cache: args.dns_cache,
    })
}

fn parse_dns_cache(text: &str) -> Result<PromDuration, String> {
    let value: PromDuration = text
        .parse()
        .map_err(|error: crate::core::duration::DurationError| error.to_string())?;
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
        finding.check == &check::ids::API_REACHABLE && finding.result == Outcome::Fail
    })
}

/// A cause in one line: proxies answer with whole pages.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The flag itself says true; an environment variable with any text does, too.
#[allow(clippy::unnecessary_wraps, reason = "clap's parsers may fail")]
fn parse_no_color(text: &str) -> Result<bool, String> {
    Ok(!matches!(text, "" | "false"))
}

/// A line on the terminal that says what is being looked at; nothing where nobody reads it.
struct Line {
    visible: bool,
}

/// What a narrow terminal shows of it, in characters.
const LINE_CHARS: usize = 76;

impl Line {
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
        self.put(&format!(
            "\r\u{1b}[K{}",
            what.chars().take(LINE_CHARS).collect::<String>()
        ));
    }

    fn clear(&self) {
        self.put("\r\u{1b}[K");
    }

    fn put(&self, text: &str) {
        use std::io::Write as _;
        if self.visible {
            let mut out = std::io::stderr().lock();
            // Nobody is worse off without it.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dns_remembers_is_bounded() {
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
