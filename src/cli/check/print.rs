//! A report as text for people, and as JSON for programs.

use std::collections::BTreeSet;

use serde_json::json;

use crate::cli::Failure;
use crate::core::check::{Finding, Outcome, Report};
use crate::core::printable::acts;

/// Findings of one check that are shown one by one; `-o json` has all.
const MOST_SHOWN: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// A line for each check, and what to do
    Text,
    /// One JSON document, described in docs/checks.md
    Json,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) colours: bool,
}

pub(super) fn rendered(report: &Report, output: Output, style: Style) -> Result<String, Failure> {
    match output {
        Output::Text => Ok(text(report, style)),
        Output::Json => json(report).map_err(|error| Failure::Failed(error.to_string())),
    }
}

fn json(report: &Report) -> Result<String, serde_json::Error> {
    let one = |finding: &Finding| {
        json!({"id": finding.check.id, "section": finding.check.section.name(), "subject": finding.subject, "result": finding.result.name(),
            "message": finding.message, "hint": finding.hint, "url": finding.check.url()})
    };
    let sum = report.summary();
    let checks: Vec<_> = report.findings.iter().map(one).collect();
    let document = json!({"checks": checks, "summary": {"pass": sum.pass, "warn": sum.warn, "fail": sum.fail, "skipped": sum.skipped}});
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

impl Style {
    fn sign(self, result: Outcome) -> String {
        let (sign, colour) = match result {
            Outcome::Pass => ("√", 32),
            Outcome::Warn => ("‼", 33),
            Outcome::Fail => ("×", 31),
            Outcome::Skipped => ("-", 2),
        };
        if self.colours {
            format!("\u{1b}[{colour}m{sign}\u{1b}[0m")
        } else {
            sign.to_owned()
        }
    }
}

fn text(report: &Report, style: Style) -> String {
    let mut text = String::new();
    let mut at = 0;
    let mut section = None;
    while let Some(first) = report.findings.get(at) {
        let of_check: Vec<&Finding> = report.findings[at..]
            .iter()
            .take_while(|finding| finding.check == first.check)
            .collect();
        at += of_check.len();
        if section != Some(first.check.section) {
            section = Some(first.check.section);
            let name = first.check.section.name();
            text += &format!(
                "{}{name}\n{}\n",
                if text.is_empty() { "" } else { "\n" },
                "-".repeat(name.len())
            );
        }
        text += &group(&of_check, style);
    }
    let sum = report.summary();
    text + &format!(
        "\n{} passed, {} warned, {} failed, {} skipped\n",
        sum.pass, sum.warn, sum.fail, sum.skipped
    )
}

/// The findings of one check: what is well in one line, anything else one by one.
fn group(findings: &[&Finding], style: Style) -> String {
    let mut text = String::new();
    let of = |result: Outcome| -> Vec<&&Finding> {
        findings
            .iter()
            .filter(|finding| finding.result == result)
            .collect()
    };
    match of(Outcome::Pass).as_slice() {
        [] => {}
        [one] => text += &line(style, one),
        many => {
            text += &format!(
                "{} {} ({})\n",
                style.sign(Outcome::Pass),
                many[0].check.title,
                many.len()
            )
        }
    }
    for result in [Outcome::Skipped, Outcome::Warn, Outcome::Fail] {
        let all = of(result);
        // What is skipped for the same reason is said once.
        let mut told = BTreeSet::new();
        let fresh = |finding: &&&Finding| {
            result != Outcome::Skipped || told.insert(finding.message.clone())
        };
        let all: Vec<_> = all.into_iter().filter(fresh).collect();
        for finding in all.iter().take(MOST_SHOWN) {
            text += &line(style, finding);
            if !finding.hint.is_empty() {
                text += &format!("    {}\n", plain(&finding.hint));
            }
            if matches!(result, Outcome::Warn | Outcome::Fail) {
                text += &format!("    see {}\n", finding.check.url());
            }
        }
        if all.len() > MOST_SHOWN {
            text += &format!(
                "{} and {} more like this; -o json has all\n",
                style.sign(result),
                all.len() - MOST_SHOWN
            );
        }
    }
    text
}

fn line(style: Style, finding: &Finding) -> String {
    let subject = if finding.subject.is_empty() {
        String::new()
    } else {
        format!("{}: ", plain(&finding.subject))
    };
    format!(
        "{} {}: {subject}{}\n",
        style.sign(finding.result),
        finding.check.id,
        plain(&finding.message)
    )
}

/// Foreign text without what a terminal would act upon.
fn plain(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !acts(*c)).collect())
        .collect();
    lines.join("\n    ")
}
