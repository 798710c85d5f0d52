//! `--reload=signal`: finds thanos in the pod's shared process namespace and signals it.
//!
//! Needs `shareProcessNamespace: true` and the same user in both containers; each error names what
//! is missing.

use std::path::Path;

use rustix::process::{Pid, Signal};

/// A longer command line is not thanos'.
const MAX_COMMAND_LINE_BYTES: usize = 128 * 1024;

/// Parses a signal name (`HUP`, `SIGHUP`, `hup`).
#[must_use]
pub fn by_name(name: &str) -> Option<Signal> {
    let name = name.to_ascii_uppercase();
    Some(match name.strip_prefix("SIG").unwrap_or(&name) {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "TERM" => Signal::TERM,
        "WINCH" => Signal::WINCH,
        _ => return None,
    })
}

/// Signals every process that runs `program store ...`.
///
/// # Errors
/// A sentence with the missing requirement.
pub(super) fn send(proc: &Path, program: &str, signal: Signal) -> Result<(), String> {
    let found: Vec<Pid> = std::fs::read_dir(proc)
        .map_err(|error| format!("cannot list processes in {}: {error}", proc.display()))?
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter(|pid| is_store(&proc.join(pid.as_raw_pid().to_string()), program))
        .collect();
    if found.is_empty() {
        return Err(format!(
            "no process runs {program:?} with the argument store: does the pod set shareProcessNamespace: true?"
        ));
    }
    found.into_iter().try_for_each(|pid| {
        rustix::process::kill_process(pid, signal).map_err(|error| {
            format!(
                "cannot signal process {}: {error}; both containers need the same runAsUser",
                pid.as_raw_pid()
            )
        })
    })
}

fn is_store(process: &Path, program: &str) -> bool {
    let Ok(Some(line)) =
        crate::adapters::files::read(&process.join("cmdline"), MAX_COMMAND_LINE_BYTES)
    else {
        return false;
    };
    let mut args = line.split(|b| *b == 0).map(String::from_utf8_lossy);
    let called = args
        .next()
        .is_some_and(|arg| arg.rsplit('/').next() == Some(program));
    called && args.any(|arg| arg == "store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_processes() {
        assert_eq!(by_name("SIGHUP"), Some(Signal::HUP));
        assert_eq!(by_name("usr1"), Some(Signal::USR1));
        assert_eq!(by_name("KILL"), None);
        let proc = tempfile::tempdir().unwrap();
        for (pid, line) in [
            (
                "1",
                "/run/timeshard/timeshard-agent\0launch\0thanos\0store\0",
            ),
            ("7", "thanos\0query\0"),
        ] {
            std::fs::create_dir(proc.path().join(pid)).unwrap();
            std::fs::write(proc.path().join(pid).join("cmdline"), line).unwrap();
        }
        let error = send(proc.path(), "thanos", Signal::HUP).unwrap_err();
        assert!(error.contains("shareProcessNamespace"), "{error}");
        assert!(!is_store(&proc.path().join("1"), "thanos"));
        assert!(is_store(&proc.path().join("1"), "timeshard-agent"));
    }
}
