//! The agent's command line. Every flag is also an environment variable.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::adapters::logfmt;
use crate::core::agent::handoff::ReloadMode;
use crate::core::agent::sidecar as decisions;
use crate::core::model::duration::PromDuration;
use crate::core::model::version;
use crate::launcher::{self, process};
use crate::sidecar::{self, ThanosClient};

pub use crate::launcher::process::CHILD_COMMAND;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_NOT_FOUND: u8 = 127;

/// Keeps one Thanos Store Gateway on its published time window.
#[derive(Debug, Parser)]
#[command(name = "timeshard-agent", version = version::text())]
struct AgentCli {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Watch the mounted `ConfigMap`, drain, have thanos restarted with a new window, verify,
    /// report.
    Sidecar(Box<SidecarArgs>),
    /// Run thanos as PID 1 of its container and restart it in place when the window changes.
    ///
    /// Exits with thanos' own exit code; 127 if COMMAND was not found.
    Launch(LaunchArgs),
    #[command(name = process::CHILD_COMMAND, hide = true)]
    ExecChild {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Durations are whole numbers with units, such as 60s, 5m, 1h30m; 0s is none.
#[derive(Debug, Args)]
struct SidecarArgs {
    /// This pod's name; its entry is the file NAME.yaml.
    #[arg(long, env = "TIMESHARD_POD", value_name = "NAME")]
    pod: String,
    /// This pod's namespace, for /status.
    #[arg(long, env = "TIMESHARD_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// This pod's UID, for /status.
    #[arg(long, env = "TIMESHARD_UID", value_name = "UID")]
    uid: Option<String>,
    /// Directory where the `ConfigMap` with the windows is mounted; may be empty or absent.
    #[arg(
        long,
        env = "TIMESHARD_CONFIG_DIR",
        value_name = "DIR",
        default_value = "/etc/timeshard"
    )]
    config_dir: PathBuf,
    /// Writable directory shared with the launcher.
    #[arg(
        long,
        env = "TIMESHARD_SHARED_DIR",
        value_name = "DIR",
        default_value = "/run/timeshard"
    )]
    shared_dir: PathBuf,
    /// URL of thanos' --http-address from this container.
    #[arg(
        long,
        env = "TIMESHARD_THANOS_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:10902"
    )]
    thanos_url: String,
    /// Address of thanos' --grpc-address from this container; used when the HTTP port does not
    /// reveal whether thanos is ready.
    #[arg(
        long,
        env = "TIMESHARD_GRPC_ADDRESS",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:10901"
    )]
    grpc_address: String,
    /// Address for /status, /readyz, /livez and /metrics; 0.0.0.0 is every address, including IPv6.
    #[arg(
        long,
        env = "TIMESHARD_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:10908"
    )]
    listen: SocketAddr,
    /// How long to be unready before thanos is restarted, so that queriers drop the pod; the entry
    /// may override it (at most 1h).
    #[arg(long, env = "TIMESHARD_DRAIN", value_name = "DURATION", default_value = "90s", value_parser = duration)]
    drain: Duration,
    /// How long thanos may take to become ready with a new window before the window is given up;
    /// 0s: no limit.
    #[arg(long, env = "TIMESHARD_READY_TIMEOUT", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    ready_timeout: Duration,
    /// How long to restart thanos, before the pod turns Ready, while it could not load all its
    /// blocks; 0s: never.
    ///
    /// Needs --reload=exec. Blocks that the pod already lacked before the restart are not waited
    /// for.
    #[arg(long, env = "TIMESHARD_LOAD_RETRY", value_name = "DURATION", default_value = "2m", value_parser = duration)]
    load_retry: Duration,
    /// First copy this program into the shared directory, for the launcher.
    #[arg(long, env = "TIMESHARD_INSTALL")]
    install: bool,
    /// Install, write the window file if the entry is mounted, and exit (init container of the
    /// classic form).
    #[arg(long, env = "TIMESHARD_INSTALL_ONLY")]
    install_only: bool,
    /// How thanos switches to a new window.
    #[arg(
        long,
        env = "TIMESHARD_RELOAD",
        value_name = "MODE",
        default_value = "exec"
    )]
    reload: ReloadMode,
    /// With --reload=signal: HUP, INT, QUIT, TERM, USR1, USR2 or WINCH.
    #[arg(long, env = "TIMESHARD_RELOAD_SIGNAL", value_name = "SIGNAL", default_value = "HUP", value_parser = signal_name)]
    reload_signal: rustix::process::Signal,
    /// With --reload=signal: how long thanos may take to change its flags.
    #[arg(long, env = "TIMESHARD_SIGNAL_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    signal_timeout: Duration,
    /// With --reload=signal: the program's file name; only its processes with the argument `store`
    /// are signalled.
    #[arg(
        long,
        env = "TIMESHARD_PROCESS_NAME",
        value_name = "NAME",
        default_value = "thanos"
    )]
    process_name: String,
    /// How often to check whether a serving thanos still serves.
    #[arg(long, env = "TIMESHARD_CHECK_INTERVAL", value_name = "DURATION", default_value = "10s", value_parser = positive)]
    check_interval: Duration,
    /// How often to read both directories without a change notification.
    #[arg(long, env = "TIMESHARD_POLL_INTERVAL", value_name = "DURATION", default_value = "60s", value_parser = positive)]
    poll_interval: Duration,
}

impl ValueEnum for ReloadMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Exec, Self::Signal, Self::Off]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Exec => "The launcher restarts thanos in place (works with every thanos)",
            Self::Signal => {
                "A signal, for builds of thanos that reload on one; needs a shared process namespace"
            }
            Self::Off => "Never: thanos keeps its admission window, the sidecar only reports",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

#[derive(Debug, Args)]
struct LaunchArgs {
    /// Writable directory shared with the sidecar.
    #[arg(
        long,
        env = "TIMESHARD_SHARED_DIR",
        value_name = "DIR",
        default_value = "/run/timeshard"
    )]
    shared_dir: PathBuf,
    /// How long thanos goes on serving after SIGTERM; a second SIGTERM or a SIGINT ends it
    /// immediately.
    #[arg(long, env = "TIMESHARD_TERMINATION_DRAIN", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    termination_drain: Duration,
    /// How long thanos may take to stop for a restart before it is killed.
    #[arg(long, env = "TIMESHARD_STOP_GRACE", value_name = "DURATION", default_value = "120s", value_parser = positive)]
    stop_grace: Duration,
    /// How long after a change of the window the index headers of the previous one stay on disk, so
    /// that going back downloads nothing again; 0s: no longer than thanos keeps them.
    #[arg(long, env = "TIMESHARD_KEEP_HEADERS", value_name = "DURATION", default_value = "1d", value_parser = duration)]
    keep_headers: Duration,
    /// Where COMMAND is looked up if it has no slash.
    #[arg(long, env = "PATH", hide = true)]
    path: Option<OsString>,
    /// Thanos and its arguments; the values of --min-time and --max-time are replaced by the
    /// current window.
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[must_use]
pub fn main() -> ExitCode {
    // First of all: this process becomes thanos.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == process::CHILD_COMMAND) {
        logfmt::init("timeshard-launcher");
        error!(error = %process::become_child(args), "cannot start thanos");
        return ExitCode::from(EXIT_NOT_FOUND);
    }
    match AgentCli::parse().command {
        AgentCommand::Sidecar(args) => sidecar_main(*args),
        AgentCommand::Launch(args) => launch_main(args),
        AgentCommand::ExecChild { .. } => ExitCode::from(EXIT_USAGE),
    }
}

fn launch_main(args: LaunchArgs) -> ExitCode {
    logfmt::init("timeshard-launcher");
    let settings = launcher::LauncherSettings {
        shared_dir: args.shared_dir,
        termination_drain: args.termination_drain,
        stop_grace: args.stop_grace,
        command: args.command,
        path: args.path,
        keep_headers: args.keep_headers,
    };
    let ended = block_on(async {
        launcher::run(&settings)
            .await
            .map_err(|error| error.to_string())
    });
    match ended {
        Ok(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(EXIT_FAILED)),
        Err(why) => failed(&why),
    }
}

fn sidecar_main(args: SidecarArgs) -> ExitCode {
    logfmt::init("timeshard-sidecar");
    let thanos = match ThanosClient::new(&args.thanos_url, &args.grpc_address) {
        Ok(thanos) => thanos,
        Err(error) => {
            error!(%error, "cannot use the addresses of thanos");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let settings = sidecar::SidecarSettings {
        core: decisions::DecisionSettings {
            pod: args.pod,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            namespace: args.namespace.filter(|namespace| !namespace.is_empty()),
            uid: args.uid.filter(|uid| !uid.is_empty()),
            reload: args.reload,
            drain: args.drain,
            ready_timeout: args.ready_timeout,
            signal_timeout: args.signal_timeout,
            check_interval: args.check_interval,
            load_retry: args.load_retry,
        },
        config_dir: args.config_dir,
        shared_dir: args.shared_dir,
        thanos,
        listen: args.listen,
        poll: args.poll_interval,
        install: args.install || args.install_only,
        signal: (args.reload_signal, args.process_name),
    };
    let ended = block_on(async {
        if args.install_only {
            return sidecar::install_only(&settings).map_err(|error| error.to_string());
        }
        let on =
            |kind| signal(kind).map_err(|error| format!("cannot install signal handlers: {error}"));
        let (mut term, mut int) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        let shutdown = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            info!("ending on a signal");
        };
        sidecar::run(&settings, shutdown)
            .await
            .map_err(|error| error.to_string())
    });
    ended.map_or_else(|why| failed(&why), |()| ExitCode::SUCCESS)
}

fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?
        .block_on(work)
}

fn failed(why: &str) -> ExitCode {
    error!(error = why, "the agent ends");
    ExitCode::from(EXIT_FAILED)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: PromDuration = text.parse().map_err(|error| format!("{error}"))?;
    if duration < PromDuration::ZERO {
        return Err("a duration cannot be negative here".to_owned());
    }
    Ok(duration.to_std())
}

fn positive(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|duration| {
        if duration.is_zero() {
            Err("this duration must be greater than zero".to_owned())
        } else {
            Ok(duration)
        }
    })
}

fn signal_name(text: &str) -> Result<rustix::process::Signal, String> {
    sidecar::signal_by_name(text)
        .ok_or_else(|| format!("{text:?} is none of HUP, INT, QUIT, TERM, USR1, USR2, WINCH"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        AgentCli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_an_environment_variable() {
        for command in AgentCli::command()
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            for argument in command
                .get_arguments()
                .filter(|a| a.get_long().is_some() && !a.is_hide_set())
            {
                let Some(long) = argument
                    .get_long()
                    .filter(|long| !matches!(*long, "help" | "version"))
                else {
                    continue;
                };
                let expected = format!("TIMESHARD_{}", long.replace('-', "_").to_uppercase());
                assert_eq!(
                    argument.get_env().and_then(|e| e.to_str()),
                    Some(expected.as_str()),
                    "--{long}"
                );
                assert!(argument.get_help().is_some(), "--{long}");
            }
        }
    }

    #[test]
    fn durations_are_checked() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("-1s").is_err());
        assert!(duration("10").is_err());
        assert!(positive("0s").is_err());
    }
}
