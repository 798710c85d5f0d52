//! Copies this program into the shared directory, from which the launcher is started.
//!
//! Thanos' container may run as any user, so the copy is readable and executable for all. It is put
//! there atomically, so that a container which starts at the same moment finds a complete copy or
//! none.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::adapters::files;
use crate::core::model::names;

/// This program, even if its file was replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// # Errors
/// The file system's.
pub(super) fn install(dir: &Path) -> io::Result<()> {
    files::replace(
        dir,
        names::AGENT,
        File::open(THIS_PROGRAM)?,
        files::MODE_PROGRAM,
    )
}

/// Returns whether an agent is there. It was put there atomically, so it is complete.
pub(super) fn is_installed(dir: &Path) -> bool {
    dir.join(names::AGENT)
        .metadata()
        .is_ok_and(|agent| agent.is_file() && agent.len() > 0)
}
