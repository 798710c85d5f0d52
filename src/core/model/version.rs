//! The text of `--version`: the release, and the commit it was built from if the build knew it.

use std::sync::LazyLock;

static TEXT: LazyLock<String> =
    LazyLock::new(|| with_revision(env!("CARGO_PKG_VERSION"), option_env!("TIMESHARD_REVISION")));

/// Such as `0.1.0 (1f2e3d4)`, or `0.1.0` if `TIMESHARD_REVISION` was not set at build time.
#[must_use]
pub fn text() -> &'static str {
    &TEXT
}

fn with_revision(version: &str, revision: Option<&str>) -> String {
    match revision {
        Some(revision) if !revision.is_empty() => format!("{version} ({revision})"),
        _ => version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_knows_its_commit_names_it() {
        assert_eq!(with_revision("0.1.0", Some("1f2e3d4")), "0.1.0 (1f2e3d4)");
        for unknown in [None, Some("")] {
            assert_eq!(with_revision("0.1.0", unknown), "0.1.0");
        }
    }
}
