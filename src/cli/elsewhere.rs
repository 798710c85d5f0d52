//! `demo` and `serve` in a program without them, as on macOS and Windows: hidden in the help, and a
//! user who tries them reads where they run.

use super::Failure;

/// Not in this program; run it to read where it runs
#[derive(Debug, clap::Args)]
#[command(hide = true, disable_help_flag = true, disable_version_flag = true)]
pub(super) struct Args {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _ignored: Vec<std::ffi::OsString>,
}

fn refused(command: &str, place: &str) -> Failure {
    Failure::Invalid(format!(
        "{command} is not in this program, which has the client commands only; {place}"
    ))
}

pub(super) mod demo {
    use std::process::ExitCode;

    pub(in crate::cli) use super::Args;
    use super::{Failure, refused};

    pub(in crate::cli) const EXAMPLE: &str = "";
    pub(in crate::cli) const PAGE_HINT: &str = "";
    pub(in crate::cli) const PAGE_EXAMPLE: &str = "a port-forward to the admin port";

    pub(in crate::cli) fn run(_: &Args) -> Result<(), Failure> {
        Err(refused(
            "demo",
            "it needs Linux: use the program in the release's archive for Linux, also in a container",
        ))
    }

    pub(in crate::cli) fn play_another_program() -> Option<ExitCode> {
        None
    }
}

pub(super) mod serve {
    pub(in crate::cli) use super::Args;
    use super::{Failure, refused};

    pub(in crate::cli) fn run(_: &Args) -> Result<(), Failure> {
        Err(refused(
            "serve",
            "it runs in the cluster, from the image: install the chart or the release's install.yaml",
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::{Cli, Failure, help_texts, run};

    #[test]
    fn commands_that_are_not_here_say_where_they_run() {
        for (words, place) in [
            (&["demo"][..], "it needs Linux"),
            (&["demo", "--page", "-f", "store.yaml"], "it needs Linux"),
            (&["demo", "--help"], "it needs Linux"),
            (
                &["serve", "--cert-dir=/tls", "-V"],
                "it runs in the cluster",
            ),
        ] {
            let words = ["timeshard"].iter().chain(words);
            let failure = run(Cli::try_parse_from(words).unwrap()).unwrap_err();
            assert!(matches!(failure, Failure::Invalid(_)), "{failure}");
            assert!(failure.to_string().contains(place), "{failure}");
        }
    }

    #[test]
    fn the_help_names_only_commands_that_work() {
        let texts = help_texts(100);
        let names: Vec<&str> = texts.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"timeshard plan") && names.contains(&"timeshard status"));
        for (name, help) in &texts {
            assert!(
                !name.ends_with("demo") && !name.ends_with("serve"),
                "{name}"
            );
            assert!(!help.contains("timeshard demo"), "{name}: {help}");
        }
    }
}
