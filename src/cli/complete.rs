//! Completion of `kubectl timeshard`: kubectl runs a program named `kubectl_complete-timeshard` with
//! the words after the plugin's name, the last of them unfinished, and reads candidates from it.

use clap::{Arg, Command};

/// kubectl then completes no file names.
const NO_FILES: &str = ":4\n";

/// Returns the answer for kubectl: a line for each candidate, with its help.
pub(super) fn answer(mut root: Command, words: &[String]) -> String {
    root.build();
    let lines: String = candidates(&root, words)
        .into_iter()
        .map(|(word, help)| format!("{word}\t{help}\n"))
        .collect();
    lines + NO_FILES
}

fn candidates(root: &Command, words: &[String]) -> Vec<(String, String)> {
    let (last, before) = words
        .split_last()
        .map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut command = root;
    let mut flag = None;
    for word in before {
        if flag.take().is_some() {
            continue;
        }
        flag = flag_with_value(command, word);
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let mut found: Vec<(String, String)> = match flag {
        Some(flag) => values(flag),
        None if last.starts_with('-') => flags(command),
        None => {
            let subcommands = command.get_subcommands().filter(|one| !one.is_hide_set());
            let about = |one: &Command| one.get_about().map(ToString::to_string);
            let mut found: Vec<_> = subcommands
                .map(|one| (one.get_name().to_owned(), about(one).unwrap_or_default()))
                .collect();
            found.extend(command.get_positionals().flat_map(values));
            found
        }
    };
    found.retain(|(word, _)| word.starts_with(last));
    found
}

/// Returns the flag that the next word is the value of.
fn flag_with_value<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let is = |arg: &&Arg| {
        let long = word.strip_prefix("--");
        let mut short = word.strip_prefix('-').unwrap_or_default().chars();
        long.is_some_and(|long| arg.get_long() == Some(long))
            || (arg.get_short().is_some()
                && arg.get_short() == short.next()
                && short.next().is_none())
    };
    command
        .get_arguments()
        .filter(is)
        .find(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let flag = |arg: &Arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        Some((format!("--{}", arg.get_long()?), help))
    };
    command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(flag)
        .collect()
}

fn values(arg: &Arg) -> Vec<(String, String)> {
    arg.get_possible_values()
        .into_iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| {
            let help = value.get_help().map(ToString::to_string);
            (value.get_name().to_owned(), help.unwrap_or_default())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_last_word_is_completed() {
        for (words, want) in [
            (&["sta"][..], &["status"][..]),
            (&["re"], &["reshard", "resume"]),
            (&["status", "--request"], &["--request-timeout"]),
            (&["plan", "-o", "j"], &["json"]),
            (
                &["plan", "--output", ""],
                &["table", "wide", "json", "yaml", "svg"],
            ),
            (&["-n", "x", "completion", "z"], &["zsh"]),
            (&["status", "-n", "m", "x"], &[]),
            (&["ma"], &[]),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let answer = answer(Cli::command(), &words);
            let got: Vec<&str> = answer
                .lines()
                .filter_map(|line| Some(line.split_once('\t')?.0))
                .collect();
            assert_eq!(got, want, "{words:?}");
            assert!(answer.ends_with(NO_FILES));
        }
    }
}
