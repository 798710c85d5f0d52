//! The command line as clap knows it, under the name by which the user runs it: `timeshard`, or
//! `kubectl timeshard` for a binary named `kubectl-timeshard`. Shell completion and man pages are
//! made from it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::Shell;

use super::{Cli, Failure, complete, print, say};

const NAME: &str = "timeshard";
/// File name as a plugin of kubectl.
const PLUGIN_FILE: &str = "kubectl-timeshard";
/// File name under which kubectl asks for completions of the plugin.
const COMPLETION_FILE: &str = "kubectl_complete-timeshard";
/// How a user runs the plugin.
const PLUGIN_NAME: &str = "kubectl timeshard";

/// Print a script that completes commands in a shell
///
/// It completes commands, flags and their values, of this program under the name by which it runs
/// here. kubectl completes kubectl timeshard by itself where a link to this program named
/// kubectl_complete-timeshard is on the PATH.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(timeshard completion bash)                                          # this shell
  timeshard completion bash > ~/.local/share/bash-completion/completions/timeshard
  timeshard completion zsh > \"${fpath[1]}/_timeshard\"
  timeshard completion fish > ~/.config/fish/completions/timeshard.fish
  timeshard completion powershell | Out-String | Invoke-Expression
  eval (timeshard completion elvish | slurp)
  ln -s \"$(command -v timeshard)\" ~/.local/bin/kubectl_complete-timeshard    # for kubectl timeshard")]
pub(super) struct CompletionArgs {
    shell: Shell,
}

/// Write man pages, one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  timeshard man --dir /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Directory, which is created
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

/// Parses the arguments of this process. Exits with 2 on bad usage and 0 on --help, as the contract
/// requires.
#[must_use]
pub fn parse() -> Cli {
    let program = std::env::args_os().next();
    if is_named(program.as_deref(), COMPLETION_FILE) {
        let words: Vec<String> = std::env::args_os()
            .skip(1)
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        // kubectl reads no errors.
        let _ = print(&complete::answer(Cli::command(), &words));
        std::process::exit(0);
    }
    let matches = named(is_plugin(program.as_deref()))
        .try_get_matches()
        .unwrap_or_else(|error| with_flag(error, std::env::args().nth(1).as_deref()).exit());
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Adds the flag of a file that was given without one, or with kubectl's.
fn with_flag(mut error: clap::Error, command: Option<&str>) -> clap::Error {
    let flag = match command {
        Some("plan" | "check" | "serve") => "--config",
        Some("inject" | "demo") => "--filename",
        _ => return error,
    };
    let given = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) if error.kind() == ErrorKind::UnknownArgument => given,
        _ => return error,
    };
    let is_file = [".yaml", ".yml", ".json"]
        .iter()
        .any(|ending| given.ends_with(ending));
    let tip = match given.as_str() {
        "-f" | "--filename" => format!("write {flag} FILE"),
        file if is_file => format!("write {flag} {file}"),
        _ => return error,
    };
    let tips = ContextValue::StyledStrs(vec![tip.into()]);
    error.insert(ContextKind::Suggested, tips);
    error
}

/// Whether kubectl runs this program as its plugin.
fn is_plugin(program: Option<&OsStr>) -> bool {
    is_named(program, PLUGIN_FILE)
}

fn is_named(program: Option<&OsStr>, name: &str) -> bool {
    program
        .and_then(|path| Path::new(path).file_stem())
        .is_some_and(|stem| stem == name)
}

/// The commands with the name in usage lines and examples.
fn named(plugin: bool) -> Command {
    if !plugin {
        return Cli::command();
    }
    renamed(Cli::command())
        .name(PLUGIN_FILE)
        .display_name(PLUGIN_NAME)
        .bin_name(PLUGIN_NAME)
}

/// Replaces the name in examples.
fn renamed(command: Command) -> Command {
    let command = match command.get_after_help().map(ToString::to_string) {
        Some(help) => command.after_help(plugin_examples(&help)),
        None => command,
    };
    command.mut_subcommands(renamed)
}

/// Replaces the name of the program where it is a word of its own, as in a command.
fn plugin_examples(help: &str) -> String {
    let mut text = String::new();
    for part in help.split_inclusive(&format!("{NAME} ")) {
        let word = part
            .strip_suffix(&format!("{NAME} "))
            .filter(|before| before.ends_with([' ', '(', '\n']) || before.is_empty());
        match word {
            Some(before) => text += &format!("{before}{PLUGIN_NAME} "),
            None => text += part,
        }
    }
    text
}

pub(super) fn completion(args: &CompletionArgs) -> Result<(), Failure> {
    let plugin = is_plugin(std::env::args_os().next().as_deref());
    let name = if plugin { PLUGIN_FILE } else { NAME };
    print(&script(args.shell, name))
}

fn script(shell: Shell, name: &str) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

pub(super) fn man(args: &ManArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Failed(format!(
            "{}: man pages cannot be written: {error}",
            args.dir.display()
        ))
    };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    // The values of this machine's environment do not belong into a page.
    let command = without_values(Cli::command().disable_help_subcommand(true));
    clap_mangen::generate_to(command, &args.dir).map_err(failed)?;
    say(&format!("man pages are in {}", args.dir.display()));
    Ok(())
}

/// Hides the values of environment variables from help texts.
fn without_values(command: Command) -> Command {
    command
        .mut_args(|arg| arg.hide_env_values(true))
        .mut_subcommands(without_values)
}

/// Every visible command with its help text, for the reference in docs/cli.md. The lines have at
/// most `width` characters.
#[must_use]
pub fn help_texts(width: usize) -> Vec<(String, String)> {
    let mut root = without_values(Cli::command())
        .term_width(width)
        .disable_help_subcommand(true);
    root.build();
    let help = |command: &Command| {
        let mut command = command.clone().term_width(width);
        command.render_long_help().to_string()
    };
    let mut texts = vec![(NAME.to_owned(), help(&root))];
    let visible = root
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    texts.extend(visible.map(|command| (format!("{NAME} {}", command.get_name()), help(command))));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
        named(true).debug_assert();
    }

    #[test]
    fn a_plugin_of_kubectl_shows_that_name() {
        for (program, want) in [
            ("/usr/local/bin/kubectl-timeshard", true),
            ("kubectl-timeshard.exe", true),
            ("timeshard", false),
            ("", false),
        ] {
            assert_eq!(is_plugin(Some(OsStr::new(program))), want, "{program}");
        }
        let mut command = named(true);
        let error = command
            .try_get_matches_from_mut(["kubectl-timeshard", "status", "--help"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("Usage: kubectl timeshard status"), "{error}");
        assert!(error.contains("\n  kubectl timeshard status -n"), "{error}");
        assert!(!error.contains("\n  timeshard"), "{error}");
        let text = "x\n  source <(timeshard completion bash)\na file kubectl-timeshard on the PATH, thanos-timeshard too";
        assert_eq!(
            plugin_examples(text),
            text.replace("(timeshard", "(kubectl timeshard")
        );
    }

    #[test]
    fn every_shell_gets_a_script_with_every_command() {
        for shell in [
            Shell::Bash,
            Shell::Elvish,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Zsh,
        ] {
            for name in [NAME, PLUGIN_FILE] {
                let script = script(shell, name);
                for command in ["reshard", "scale-down", "dashboard", "--request-timeout"] {
                    // fish names long flags without dashes.
                    let found = script.contains(command.trim_start_matches('-'));
                    assert!(found && script.contains(name), "{shell} {name} {command}");
                }
            }
        }
    }

    #[test]
    fn every_visible_command_has_examples() {
        for (name, help) in help_texts(100) {
            assert!(
                help.contains("Examples:\n") && help.contains(&format!("{name} ")),
                "{name}: {help}"
            );
        }
    }

    #[test]
    fn each_command_has_a_man_page() {
        let dir = tempfile::tempdir().unwrap();
        man(&ManArgs {
            dir: dir.path().join("man1"),
        })
        .unwrap();
        for command in ["", "-plan", "-status", "-scale-down"] {
            let page = dir.path().join(format!("man1/timeshard{command}.1"));
            let page = std::fs::read_to_string(page).unwrap();
            assert!(
                page.contains(".SH OPTIONS") && page.contains("Examples"),
                "{command}"
            );
        }
    }
}
