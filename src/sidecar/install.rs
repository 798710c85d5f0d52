//! Puts this program into the shared directory, where the launcher is started from.
//!
//! Thanos' container may run as any user, so the copy is readable and executable for all; it appears in one step, so that
//! a container which starts at the same moment finds all of it or none.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::adapters::files;
use crate::core::names;

/// This program, also when its file was replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Copies this program into `dir`.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn install(dir: &Path) -> io::Result<()> {
    files::replace(
        dir,
        names::AGENT,
        File::open(THIS_PROGRAM)?,
        files::MODE_PROGRAM,
    )
}

/// Whether an agent is there. It was put there whole.
pub(super) fn is_installed(dir: &Path) -> bool {
    dir.join(names::AGENT)
        .metadata()
        .is_ok_and(|agent| agent.is_file() && agent.len() > 0)
}
