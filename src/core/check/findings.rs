//! Findings: one for each check and subject, and what they add up to.

use super::ids::{ALL, Check};
use super::snapshot::Lack;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// It works, and somebody should know.
    Warn,
    /// It does not work, or will not when it is needed.
    Fail,
    /// Not looked at.
    Skipped,
}

impl Outcome {
    /// For JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skipped => "skipped",
        }
    }
}

/// One check of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub check: &'static Check,
    /// Of what: `namespace/name`, a name, or nothing for the cluster.
    pub subject: String,
    /// How it ended.
    pub result: Outcome,
    /// What was found, in a sentence.
    pub message: String,
    /// What to do; empty when there is nothing to do.
    pub hint: String,
}

/// All findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the checks, then of the subjects.
    pub findings: Vec<Finding>,
    /// Rights that were missing, as sentences.
    pub(super) missing: std::collections::BTreeSet<String>,
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Passed.
    pub pass: usize,
    /// Warned.
    pub warn: usize,
    /// Failed.
    pub fail: usize,
    /// Skipped.
    pub skipped: usize,
}

impl Report {
    pub(super) fn add(
        &mut self,
        check: &'static Check,
        subject: &str,
        result: Outcome,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (message, hint) = (message.into(), hint.into());
        self.findings.push(Finding {
            check,
            subject: subject.to_owned(),
            result,
            message,
            hint,
        });
    }

    pub(super) fn pass(
        &mut self,
        check: &'static Check,
        subject: &str,
        message: impl Into<String>,
    ) {
        self.add(check, subject, Outcome::Pass, message, "");
    }

    pub(super) fn warn(
        &mut self,
        check: &'static Check,
        subject: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(check, subject, Outcome::Warn, message, hint);
    }

    pub(super) fn fail(
        &mut self,
        check: &'static Check,
        subject: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(check, subject, Outcome::Fail, message, hint);
    }

    pub(super) fn skip(
        &mut self,
        check: &'static Check,
        subject: &str,
        message: impl Into<String>,
    ) {
        self.add(check, subject, Outcome::Skipped, message, "");
    }

    /// What could not be looked at: forbidden is skipped, anything else a warning, since it may hide a failure.
    pub(super) fn lacks(&mut self, check: &'static Check, subject: &str, lack: &Lack) {
        if lack.forbidden {
            self.missing.insert(lack.what.clone());
            self.skip(
                check,
                subject,
                format!(
                    "no permission to {}; grant it, or run this as somebody who has it",
                    lack.what
                ),
            );
        } else {
            self.warn(
                check,
                subject,
                format!("could not {}: {}", lack.what, lack.why),
                "try again; if it stays, look at the API server",
            );
        }
    }

    /// In the order in which they are shown.
    pub(super) fn sorted(mut self) -> Self {
        let place = |check: &Check| ALL.iter().position(|one| one.id == check.id);
        self.findings.sort_by(|a, b| {
            (place(a.check), &a.subject, b.result).cmp(&(place(b.check), &b.subject, a.result))
        });
        self.findings.dedup();
        self
    }

    /// How many of each.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let count = |result| {
            self.findings
                .iter()
                .filter(|finding| finding.result == result)
                .count()
        };
        Summary {
            pass: count(Outcome::Pass),
            warn: count(Outcome::Warn),
            fail: count(Outcome::Fail),
            skipped: count(Outcome::Skipped),
        }
    }
}
