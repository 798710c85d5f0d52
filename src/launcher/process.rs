//! Thanos as a process: found, started, signalled, reaped.
//!
//! In: the program, and its arguments with the new window. Out: a child of the launcher, later its
//! exit code. Next for a window: `sidecar/verify.rs`.
//!
//! Invariants: thanos dies with the launcher, however the launcher ends (a second thanos would find
//! the ports in use), and all orphans of thanos are reaped. The former needs a step between fork
//! and exec. Only unsafe code can run anything in a forked child, so this step is a program of its
//! own ([`become_child`]).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::core::agent::launcher::Signal;

/// Where images have thanos if `PATH` does not include it.
const USUAL_PLACES: [&str; 4] = [
    "/bin",
    "/usr/bin",
    "/usr/local/bin",
    "/opt/bitnami/thanos/bin",
];

/// The hidden subcommand that becomes thanos.
pub const CHILD_COMMAND: &str = "exec-child";

/// This program, even if its file was replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

#[derive(Debug)]
pub struct Child(Pid);

impl Child {
    /// Starts `program` with `word` as its argv[0].
    ///
    /// # Errors
    /// When the kernel refuses a new process.
    pub fn start(program: &Path, word: &OsStr, args: &[OsString]) -> io::Result<Self> {
        let launcher = rustix::process::getpid().as_raw_nonzero().to_string();
        let child = Command::new(THIS_PROGRAM)
            .arg(CHILD_COMMAND)
            .arg(launcher)
            .arg(program)
            .arg(word)
            .args(args)
            .spawn()?;
        // Reaped by `reap`, never through this handle.
        Pid::from_raw(i32::try_from(child.id()).unwrap_or_default())
            .map(Self)
            .ok_or_else(|| io::Error::other("the kernel gave no process id"))
    }

    /// Sends a signal. A child that is gone is noticed by its end, not here.
    pub fn send(&self, signal: Signal) {
        use rustix::process::Signal as Os;
        let signal = match signal {
            Signal::Term => Os::TERM,
            Signal::Int => Os::INT,
            Signal::Quit => Os::QUIT,
            Signal::Usr1 => Os::USR1,
            Signal::Usr2 => Os::USR2,
            Signal::Kill => Os::KILL,
        };
        let _ = rustix::process::kill_process(self.0, signal);
    }
}

/// The second half of [`Child::start`]: ties this process to the launcher's life and becomes
/// thanos. Returns only on failure. `args`: the launcher's process id, the program, its argv[0],
/// its arguments.
pub fn become_child(mut args: impl Iterator<Item = OsString>) -> io::Error {
    let launcher = args
        .next()
        .and_then(|word| word.to_str()?.parse::<i32>().ok());
    let (Some(launcher), Some(program), Some(word)) = (launcher, args.next(), args.next()) else {
        return io::Error::new(
            io::ErrorKind::InvalidInput,
            "this command is for the launcher only",
        );
    };
    if let Err(error) =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
    {
        return error.into();
    }
    // The launcher may have ended before the line above.
    if rustix::process::getppid().map(Pid::as_raw_pid) != Some(launcher) {
        return io::Error::other("the launcher is gone");
    }
    Command::new(program).arg0(word).args(args).exec()
}

/// Makes this process the reaper of orphans if it is not PID 1.
pub fn adopt_orphans() {
    // Old kernels refuse; PID 1 then reaps the orphans.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Reaps all ended processes; returns the exit code if `child` was among them (128 + n for signal
/// n).
#[must_use]
pub fn reap(child: Option<&Child>) -> Option<i32> {
    let mut code = None;
    // Any child: `waitpid` without a process waits for this process group only, and thanos may run
    // under `setsid`.
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if child.is_some_and(|child| child.0 == pid) {
            code = Some(exit_code(status));
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(1)
}

/// Finds the program as a shell does: a word with a slash is a path, any other is looked up.
#[must_use]
pub fn find(word: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if word.is_empty() {
        return None;
    }
    let runs = |file: &PathBuf| {
        file.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if word.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(word)).filter(runs);
    }
    std::env::split_paths(path.unwrap_or_default())
        .filter(|dir| !dir.as_os_str().is_empty())
        .chain(USUAL_PLACES.iter().map(PathBuf::from))
        .map(|dir| dir.join(word))
        .find(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_would() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("prog");
        std::fs::write(&program, "").unwrap();
        let path = std::env::join_paths([Path::new("/does/not/exist"), dir.path()]).unwrap();
        assert_eq!(
            find(OsStr::new("prog"), Some(&path)),
            None,
            "not executable yet"
        );
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(OsStr::new("prog"), Some(&path)), Some(program.clone()));
        assert_eq!(find(program.as_os_str(), None), Some(program));
        assert_eq!(find(OsStr::new("prog"), None), None);
        assert_eq!(find(OsStr::new("sh"), None), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find(OsStr::new(""), Some(&path)), None);
        assert_eq!(find(OsStr::new("/does/not/exist"), Some(&path)), None);
    }
}
