//! The programs that the demo starts: the agent, and a thanos.
//!
//! The agent is this program under the agent's name, as in busybox: `timeshard` alone can run the
//! demo, and both are the same version unless `--agent` names another. So is the stand-in for
//! thanos, where no thanos is on the `PATH`.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use super::super::{Failure, say};
use crate::agent_cli;
use crate::core::model::names;
use crate::stand_in;

pub(super) const STAND_IN: &str = "stand-in-thanos";
/// Time limit of `thanos --version`.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Runs the agent or the stand-in if this program was started under their name. The launcher starts
/// thanos through its own executable in `/proc`, so then the first argument decides.
pub(in super::super) fn play_another_program() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    if name == STAND_IN {
        let args: Vec<_> = args.collect();
        return Some(match stand_in::main(&args) {
            Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            Err(error) => {
                say(&format!("{STAND_IN}: {error}"));
                ExitCode::FAILURE
            }
        });
    }
    (name == names::AGENT
        || args
            .next()
            .is_some_and(|arg| arg == agent_cli::CHILD_COMMAND))
    .then(agent_cli::main)
}

/// What plays thanos.
pub(super) enum ThanosProgram {
    /// The path and the version of the real one.
    Real(PathBuf, String),
    /// Why no real thanos runs.
    StandIn(String),
}

impl ThanosProgram {
    /// Searches the `PATH` for a thanos that runs.
    pub(super) async fn find(path: Option<&OsStr>) -> Self {
        let runs = |file: &PathBuf| {
            file.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        };
        let dirs = std::env::split_paths(path.unwrap_or_default()).filter(|dir| dir.is_absolute());
        let Some(program) = dirs.map(|dir| dir.join("thanos")).find(runs) else {
            return Self::StandIn("no thanos is on the PATH".to_owned());
        };
        match version(&program).await {
            Ok(version) => Self::Real(program, version),
            Err(why) => Self::StandIn(format!("{} --version {why}", program.display())),
        }
    }

    /// Its name in the output, so that the stand-in is not mistaken for thanos.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Real(..) => "thanos",
            Self::StandIn(_) => "the stand-in",
        }
    }

    pub(super) const fn own_flags(&self) -> &'static str {
        match self {
            Self::Real(..) => "thanos' own flags",
            Self::StandIn(_) => "the stand-in's own flags",
        }
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Real(program, version) => {
                format!(
                    "thanos is the real one, {} ({version}), on an empty bucket.",
                    program.display()
                )
            }
            Self::StandIn(why) => {
                format!(
                    "thanos is NOT the real one: {why}, so a stand-in with its flags and ports takes its place; it serves no data."
                )
            }
        }
    }
}

/// Runs `thanos --version`.
async fn version(program: &Path) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_LIMIT, command.output())
        .await
        .map_err(|_| format!("did not end within {} s", VERSION_LIMIT.as_secs()))?
        .map_err(|error| format!("cannot start: {error}"))?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    let version = printed
        .lines()
        .find_map(|line| line.strip_prefix("thanos, version "));
    let number = version
        .ok_or("does not print a thanos version")?
        .split(" (")
        .next()
        .unwrap_or_default()
        .trim();
    Ok(if number.is_empty() {
        "a build without a version".to_owned()
    } else {
        format!("version {number}")
    })
}

/// Links the agent (this program unless one is given) and thanos into `dir`. Returns both paths.
pub(super) fn place(
    dir: &Path,
    thanos: &ThanosProgram,
    agent: Option<&Path>,
) -> Result<(PathBuf, PathBuf), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", dir.display()));
    let this = std::env::current_exe().map_err(failed)?;
    let named = |name: &str, program: &Path| {
        let link = dir.join(name);
        std::os::unix::fs::symlink(program, &link)
            .map(|()| link)
            .map_err(failed)
    };
    let agent = match agent {
        Some(file) => file
            .canonicalize()
            .map_err(|error| Failure::Invalid(format!("--agent {}: {error}", file.display())))?,
        None => this.clone(),
    };
    let agent = named(names::AGENT, &agent)?;
    let thanos = match thanos {
        ThanosProgram::Real(program, _) => program.clone(),
        ThanosProgram::StandIn(_) => named(STAND_IN, &this)?,
    };
    Ok((agent, thanos))
}
