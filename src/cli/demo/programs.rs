//! The programs that the demo starts: the agent, and a thanos.
//!
//! The agent is this very program under the agent's name, as busybox does it: whoever has `timeshard` can run the demo,
//! and what runs is of one version, unless another agent is named. The stand-in for thanos is the same, where no thanos is
//! on the `PATH`.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use super::super::{Failure, say};
use crate::agent_cli;
use crate::core::names;
use crate::stand_in;

/// The stand-in's name as a program.
pub(super) const STAND_IN: &str = "stand-in-thanos";
/// `thanos --version` takes at most this long.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Runs the agent or the stand-in if this program was started under their name. The launcher starts thanos by way of its
/// own program, whose name is then that of a file in `/proc`, and a word that tells.
pub(in super::super) fn play_another_program() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    if name == STAND_IN {
        let args: Vec<_> = words.collect();
        return Some(match stand_in::main(&args) {
            Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            Err(error) => {
                say(&format!("{STAND_IN}: {error}"));
                ExitCode::FAILURE
            }
        });
    }
    (name == names::AGENT
        || words
            .next()
            .is_some_and(|word| word == agent_cli::CHILD_COMMAND))
    .then(agent_cli::main)
}

/// What plays thanos.
pub(super) enum Thanos {
    /// The real one: where it is and what it says of its version.
    Real(PathBuf, String),
    /// The stand-in, and why.
    StandIn(String),
}

impl Thanos {
    /// Looks for a thanos that runs.
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

    /// What it is called, so that nobody takes one for the other.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Real(..) => "thanos",
            Self::StandIn(_) => "the stand-in",
        }
    }

    /// Its name with what belongs to it.
    pub(super) const fn own_flags(&self) -> &'static str {
        match self {
            Self::Real(..) => "thanos' own flags",
            Self::StandIn(_) => "the stand-in's own flags",
        }
    }

    /// Which of the two runs, in plain words.
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Real(program, version) => {
                format!(
                    "thanos is the real one, {} ({version}), on an empty bucket that this demo made.",
                    program.display()
                )
            }
            Self::StandIn(why) => {
                format!(
                    "thanos is NOT the real one: {why}, so a stand-in plays it, which has thanos' flags and ports and serves no data."
                )
            }
        }
    }
}

/// The version that a program called thanos states.
async fn version(program: &Path) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_LIMIT, command.output())
        .await
        .map_err(|_| format!("does not end within {} s", VERSION_LIMIT.as_secs()))?
        .map_err(|error| format!("does not start: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let words = said
        .lines()
        .find_map(|line| line.strip_prefix("thanos, version "));
    let number = words
        .ok_or("does not say which thanos it is")?
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

/// Puts names for the agent, this program if none is given, and for thanos into `dir`; where both are.
pub(super) fn place(
    dir: &Path,
    thanos: &Thanos,
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
        Thanos::Real(program, _) => program.clone(),
        Thanos::StandIn(_) => named(STAND_IN, &this)?,
    };
    Ok((agent, thanos))
}
