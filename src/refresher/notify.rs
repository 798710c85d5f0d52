//! What a reconcile leaves for people: the report, a line in the log, Events.

use tokio::time::Instant;

use super::drive::Tenure;
use super::memory::Memory;
use super::seen::SetName;
use crate::core::fleet::Known;
use crate::core::notice::Notice;
use crate::core::reconcile::Decision;
use crate::core::report::State;

impl Tenure {
    /// Report, log and Events.
    pub(super) fn tell(
        &self,
        set: &SetName,
        known: &Known,
        decision: &Decision,
        memory: &mut Memory,
        began: Instant,
    ) {
        let mut report = decision.report.clone();
        if let Some(why) = memory.hindered.take() {
            (report.state, report.message) = (State::Waiting, why);
        }
        if let Some(why) = &memory.refused {
            (report.state, report.message) = (State::Refused, why.clone());
        }
        // Seconds that pass are no news.
        let words: String = report
            .message
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .collect();
        if memory.state.as_ref() != Some(&(report.state, words.clone())) {
            if self.observed.may_log(&set.0) {
                tracing::info!(namespace = set.0, statefulset = set.1, state = ?report.state, moves_left = report.moves_left, "{}", report.message);
            }
            memory.state = Some((report.state, words));
        }
        for (reason, text) in &decision.notices {
            self.notify(set, known, reason, text, memory);
        }
        // What no longer holds is told again when it comes back; a turn that ended early has not seen all that holds.
        let holds = std::mem::take(&mut memory.holds);
        if memory.turn.is_over() {
            memory.told.extend(holds);
        } else {
            memory.told = holds;
        }
        let known = report.warnings.clone();
        report.warnings.extend(
            memory
                .told
                .values()
                .filter(|text| !known.contains(text))
                .cloned(),
        );
        self.reports.put(set, report, began.elapsed());
    }

    pub(super) fn notify(
        &self,
        set: &SetName,
        known: &Known,
        reason: &'static str,
        text: &str,
        memory: &mut Memory,
    ) {
        // A moment or a number that changes is no news.
        let remark = (
            reason,
            text.chars().filter(|c| !c.is_ascii_digit()).collect(),
        );
        let is_news = !memory.told.contains_key(&remark);
        if memory.holds.insert(remark, text.to_owned()).is_some() || !is_news {
            return;
        }
        if self.observed.may_log(&set.0) {
            tracing::warn!(namespace = set.0, statefulset = set.1, reason, "{text}");
        }
        let notice = Notice {
            namespace: set.0.clone(),
            statefulset: set.1.clone(),
            uid: known.facts().uid.clone(),
            reason,
            message: text.to_owned(),
        };
        // A full queue drops the Event; the log has it.
        let _ = self.notices.try_send(notice);
    }
}
