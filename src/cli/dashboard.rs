//! `timeshard dashboard`: the leader's page on a port of this machine.

use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use tokio::net::TcpListener;

use super::cluster::{ClusterArgs, SystemArgs};
use super::{Failure, demo, print, say};
use crate::adapters::http_client::DEADLINE;
use crate::adapters::kube::pod_proxy::{self, PodProxy};

/// Open the page of the leader in a browser
///
/// Finds the leader among the pods of `timeshard serve` and serves its page on 127.0.0.1 through the
/// API server's proxy, until Ctrl-C. Needs the rights of timeshard status: get on leases, list on
/// pods and get on pods/proxy in its namespace. If another replica becomes the leader, the page
/// follows it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  timeshard dashboard
  timeshard dashboard --context production --port 8099 --no-open")]
pub(super) struct Args {
    /// Port on 127.0.0.1; 0 for any free one
    #[arg(short, long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Only print the address (also without a terminal)
    #[arg(long)]
    no_open: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    system: SystemArgs,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    super::block_on(async {
        let cluster = args.cluster.connect(DEADLINE, demo::PAGE_HINT).await?;
        let shown = cluster.to_string();
        let namespace = &args.system.system_namespace;
        let proxy = PodProxy::new(cluster, namespace.clone());
        let failed = |why: String| Failure::Failed(format!("{shown}: {why}"));
        let pod = proxy.server().await.map_err(failed)?;
        // What the API server refuses is shown here, not in the browser.
        let page = proxy.get("/").await.map_err(failed)?;
        if !page.status().is_success() {
            return Err(failed(format!(
                "the page of pod {pod} in namespace {namespace} answers {}; you need get on pods/proxy there",
                page.status()
            )));
        }
        let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
        let bind = |error: std::io::Error| {
            Failure::Failed(format!(
                "--port {}: cannot listen on 127.0.0.1: {error}; choose another port, or 0",
                args.port
            ))
        };
        let listener = TcpListener::bind(asked).await.map_err(bind)?;
        let url = format!("http://{}/", listener.local_addr().map_err(bind)?);
        print(&format!(
            "{url}\nThe page of {pod} in {shown}. Ctrl-C ends it.\n"
        ))?;
        if !args.no_open && std::io::stdout().is_terminal() {
            open(&url);
        }
        tokio::select! {
            () = pod_proxy::serve(listener, proxy) => Ok(()),
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

/// Returns the program, with its first arguments, that opens a URL on a system as `std` names it.
fn opener(system: &str) -> (&'static str, &'static [&'static str]) {
    match system {
        "macos" => ("open", &[]),
        // Not `cmd /C start`: a shell would read the URL as its own syntax.
        "windows" => ("rundll32", &["url.dll,FileProtocolHandler"]),
        _ => ("xdg-open", &[]),
    }
}

/// Opens the URL in the user's browser; failing that, the user has the address.
fn open(url: &str) {
    let (program, args) = opener(std::env::consts::OS);
    let started = Command::new(program)
        .args(args)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Err(error) = started {
        say(&format!("no browser is opened ({program}: {error})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_has_its_own_program_for_a_url() {
        let all = ["linux", "macos", "windows", "freebsd"].map(|system| opener(system).0);
        assert_eq!(all, ["xdg-open", "open", "rundll32", "xdg-open"]);
    }
}
