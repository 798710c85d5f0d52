//! A report as text, JSON or YAML.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cli::{Failure, output};
use crate::core::check::{CheckOutcome, Finding, Report};
use crate::core::model::text::is_control;

/// How many findings of one check the text shows; `-o wide` and `-o json` have all.
const MAX_SHOWN: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// One line per check, with hints
    #[value(alias = "text")]
    Table,
    /// One line per finding, also for those that passed
    Wide,
    /// One JSON document, described in docs/checks.md
    Json,
    /// The same as YAML
    Yaml,
}

impl Output {
    pub(super) const fn is_document(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) colours: bool,
}

/// Kind of the document.
const KIND: &str = "Check";

pub(super) fn rendered(report: &Report, output: Output, style: Style) -> Result<String, Failure> {
    match output {
        Output::Table => Ok(text(report, style, MAX_SHOWN)),
        Output::Wide => Ok(text(report, style, usize::MAX)),
        Output::Json => output::json(KIND, &document(report)),
        Output::Yaml => output::yaml(KIND, &document(report)),
    }
}

fn document(report: &Report) -> Value {
    let one = |finding: &Finding| {
        json!({"id": finding.check.id, "section": finding.check.section.name(), "subject": finding.subject, "result": finding.result.name(),
            "message": finding.message, "hint": finding.hint, "url": finding.check.url()})
    };
    let sum = report.summary();
    let checks: Vec<_> = report.findings.iter().map(one).collect();
    json!({"checks": checks, "summary": {"pass": sum.pass, "warn": sum.warn, "fail": sum.fail, "skipped": sum.skipped}})
}

impl Style {
    fn sign(self, result: CheckOutcome) -> String {
        let (sign, colour) = match result {
            CheckOutcome::Pass => ("√", 32),
            CheckOutcome::Warn => ("‼", 33),
            CheckOutcome::Fail => ("×", 31),
            CheckOutcome::Skipped => ("-", 2),
        };
        if self.colours {
            format!("\u{1b}[{colour}m{sign}\u{1b}[0m")
        } else {
            sign.to_owned()
        }
    }
}

/// Shows at most `max` findings of a check; if there is no limit, also each that passed.
fn text(report: &Report, style: Style, max: usize) -> String {
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
        text += &group(&of_check, style, max);
    }
    let sum = report.summary();
    text + &format!(
        "\n{} passed, {} warned, {} failed, {} skipped\n",
        sum.pass, sum.warn, sum.fail, sum.skipped
    )
}

/// Prints the findings of one check: passes in one line, all others one by one.
fn group(findings: &[&Finding], style: Style, max: usize) -> String {
    let mut text = String::new();
    let of = |result: CheckOutcome| -> Vec<&&Finding> {
        findings
            .iter()
            .filter(|finding| finding.result == result)
            .collect()
    };
    match of(CheckOutcome::Pass).as_slice() {
        [] => {}
        [one] => text += &line(style, one),
        many if max == usize::MAX => text.extend(many.iter().map(|one| line(style, one))),
        many => {
            text += &format!(
                "{} {} ({})\n",
                style.sign(CheckOutcome::Pass),
                many[0].check.title,
                many.len()
            );
        }
    }
    for result in [
        CheckOutcome::Skipped,
        CheckOutcome::Warn,
        CheckOutcome::Fail,
    ] {
        let all = of(result);
        // Prints each reason for skipping once.
        let mut reasons = BTreeSet::new();
        let fresh = |finding: &&&Finding| {
            result != CheckOutcome::Skipped || reasons.insert(finding.message.clone())
        };
        let all: Vec<_> = all.into_iter().filter(fresh).collect();
        for finding in all.iter().take(max) {
            text += &line(style, finding);
            if !finding.hint.is_empty() {
                text += &format!("    {}\n", plain(&finding.hint));
            }
            if matches!(result, CheckOutcome::Warn | CheckOutcome::Fail) {
                text += &format!("    see {}\n", finding.check.url());
            }
        }
        if all.len() > max {
            text += &format!(
                "{} and {} more like this; -o json has all\n",
                style.sign(result),
                all.len() - max
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

/// Removes control characters.
fn plain(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !is_control(*c)).collect())
        .collect();
    lines.join("\n    ")
}
