//! The reference of the command line is generated from the program's own help.
//!
//! `UPDATE_GOLDEN=1 cargo test --test house command_line` updates `docs/cli.md`.

use std::fmt::Write as _;

use thanos_timeshard::cli::help_texts;

use crate::at;

const PAGE: &str = "docs/cli.md";
const BEGIN: &str =
    "<!-- commands: written by UPDATE_GOLDEN=1 cargo test --test house command_line -->\n";
const END: &str = "<!-- end of commands -->\n";
/// Characters in a line.
const WIDTH: usize = 100;

#[test]
fn the_page_has_the_help_of_every_command() {
    let before = std::fs::read_to_string(at(PAGE)).unwrap();
    let mut reference = String::new();
    for (name, help) in help_texts(WIDTH) {
        let help: String = help
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        write!(
            reference,
            "\n### {name}\n\n```text\n{}\n```\n",
            help.trim_end()
        )
        .unwrap();
    }
    let (head, rest) = before.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let page = format!("{head}{BEGIN}{reference}\n{END}{tail}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(at(PAGE), page).unwrap();
    } else {
        assert_eq!(
            before, page,
            "update it: UPDATE_GOLDEN=1 cargo test --test house command_line"
        );
    }
}
