//! Where thanos keeps its index headers, and whether it has them at all: read from its arguments.
//!
//! Kingpin accepts `--flag=value` and `--flag value`, and refuses to start on a repeated flag.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Thanos' default, relative to its working directory.
const DEFAULT_DATA_DIR: &str = "./data";

/// Returns the data directory that shows which blocks are loaded.
///
/// # Errors
/// Why this thanos' data directory does not show that.
pub fn data_dir(args: &[OsString]) -> Result<PathBuf, &'static str> {
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--no-cache-index-header") {
        return Err(
            "thanos runs with --no-cache-index-header, so its data directory does not show what is loaded",
        );
    }
    let lazy = value(args, "--store.index-header-lazy-download-strategy")
        .is_some_and(|strategy| strategy == "lazy");
    if lazy && has("--store.enable-index-header-lazy-reader") {
        return Err(
            "thanos downloads index headers lazily, so nothing shows which blocks it could load",
        );
    }
    Ok(value(args, "--data-dir")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| DEFAULT_DATA_DIR.into(), PathBuf::from))
}

fn value<'a>(args: &'a [OsString], flag: &str) -> Option<&'a OsStr> {
    let joined = args.iter().rev().find_map(|arg| {
        let rest = arg
            .as_bytes()
            .strip_prefix(flag.as_bytes())?
            .strip_prefix(b"=")?;
        Some(OsStr::from_bytes(rest))
    });
    joined.or_else(|| {
        args.iter()
            .rposition(|arg| arg == flag)
            .and_then(|at| args.get(at + 1))
            .map(OsString::as_os_str)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_flag_are_read() {
        const LAZY: &str = "--store.index-header-lazy-download-strategy";
        const READER: &str = "--store.enable-index-header-lazy-reader";
        let of = |text: &str| {
            data_dir(
                &text
                    .split_whitespace()
                    .map(OsString::from)
                    .collect::<Vec<_>>(),
            )
        };
        for (text, dir) in [
            ("store", "./data"),
            ("store --data-dir=/x --data-dirs=/y", "/x"),
            ("store --data-dir /x y", "/x"),
            ("store --data-dir", "./data"),
            ("store --data-dir= --cache-index-header", "./data"),
        ] {
            assert_eq!(of(text), Ok(PathBuf::from(dir)), "{text}");
        }
        assert!(
            of("store --no-cache-index-header")
                .unwrap_err()
                .contains("--no-cache-index-header")
        );
        assert!(
            of(&format!("store {READER} {LAZY}=lazy"))
                .unwrap_err()
                .contains("lazily")
        );
        assert!(
            of(&format!("store {LAZY} lazy {READER}"))
                .unwrap_err()
                .contains("lazily")
        );
        // Without the lazy reader the strategy has no effect, and an eager one downloads at load.
        assert!(of(&format!("store {LAZY}=lazy")).is_ok());
        assert!(of(&format!("store {LAZY}=eager {READER}")).is_ok());
    }
}
