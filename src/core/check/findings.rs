//! Findings, one for each check and subject, and their summary.

use super::ids::{ALL, Check};
use super::snapshot::Lack;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckOutcome {
    Pass,
    /// Works, but deserves attention.
    Warn,
    /// Does not work, or will fail when needed.
    Fail,
    /// Not checked; never counts as a pass.
    Skipped,
}

impl CheckOutcome {
    /// The name in JSON.
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
    pub check: &'static Check,
    /// `namespace/name`, a name, or empty for the cluster.
    pub subject: String,
    pub result: CheckOutcome,
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sorted by check, then by subject.
    pub findings: Vec<Finding>,
    /// The caller's missing rights, as sentences.
    pub(super) missing: std::collections::BTreeSet<String>,
}

/// The number of findings by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub pass: usize,
    pub warn: usize,
    pub fail: usize,
    pub skipped: usize,
}

impl Report {
    pub(super) fn add(
        &mut self,
        check: &'static Check,
        subject: &str,
        result: CheckOutcome,
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
        self.add(check, subject, CheckOutcome::Pass, message, "");
    }

    pub(super) fn warn(
        &mut self,
        check: &'static Check,
        subject: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(check, subject, CheckOutcome::Warn, message, hint);
    }

    pub(super) fn fail(
        &mut self,
        check: &'static Check,
        subject: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.add(check, subject, CheckOutcome::Fail, message, hint);
    }

    pub(super) fn skip(
        &mut self,
        check: &'static Check,
        subject: &str,
        message: impl Into<String>,
    ) {
        self.add(check, subject, CheckOutcome::Skipped, message, "");
    }

    /// Records a missing value: skipped if forbidden, otherwise a warning, since it may hide a
    /// failure.
    pub(super) fn lacks(&mut self, check: &'static Check, subject: &str, lack: &Lack) {
        if lack.forbidden {
            self.missing.insert(lack.what.clone());
            self.skip(
                check,
                subject,
                format!(
                    "no permission to {}; grant it, or run the check as a user who has it",
                    lack.what
                ),
            );
        } else {
            self.warn(
                check,
                subject,
                format!("could not {}: {}", lack.what, lack.why),
                "try again; if it persists, check the API server",
            );
        }
    }

    /// Sorts the findings for display.
    pub(super) fn sorted(mut self) -> Self {
        let place = |check: &Check| ALL.iter().position(|one| one.id == check.id);
        self.findings.sort_by(|a, b| {
            (place(a.check), &a.subject, b.result).cmp(&(place(b.check), &b.subject, a.result))
        });
        self.findings.dedup();
        self
    }

    #[must_use]
    pub fn summary(&self) -> Summary {
        let count = |result| {
            self.findings
                .iter()
                .filter(|finding| finding.result == result)
                .count()
        };
        Summary {
            pass: count(CheckOutcome::Pass),
            warn: count(CheckOutcome::Warn),
            fail: count(CheckOutcome::Fail),
            skipped: count(CheckOutcome::Skipped),
        }
    }
}
