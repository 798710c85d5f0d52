//! Results of a reconcile for users: the report, the log, Events.

use tokio::time::Instant;

use super::Reconcile;
use crate::core::admission::notice::ObjectEvent;
use crate::core::config::Difference;
use crate::core::rollout::report::{RolloutState, SettingChange};

impl Reconcile<'_> {
    pub(super) fn report(&mut self, began: Instant) {
        let mut report = self.decision.report.clone();
        if let Some(why) = self.memory.hindered.take() {
            (report.state, report.message) = (RolloutState::Waiting, why);
        }
        if let Some(why) = &self.memory.refused {
            (report.state, report.message) = (RolloutState::Refused, why.clone());
        }
        let state = (report.state, without_digits(&report.message));
        if self.memory.state.as_ref() != Some(&state) {
            if self.context.observed.may_log(&self.set.0) {
                tracing::info!(
                    namespace = self.set.0,
                    statefulset = self.set.1,
                    state = ?report.state,
                    moves_left = report.moves_left,
                    "{}", report.message
                );
            }
            self.memory.state = Some(state);
        }
        for (reason, text) in &self.decision.events {
            self.notify(reason, text);
        }
        // An Event that no longer holds is sent again when it does; a turn that ended early has not
        // seen all that hold.
        let memory = &mut *self.memory;
        let holding = std::mem::take(&mut memory.holding);
        if memory.turn.is_over() {
            memory.notified.extend(holding);
        } else {
            memory.notified = holding;
        }
        for text in memory.notified.values() {
            if !self.decision.report.warnings.contains(text) {
                report.warnings.push(text.clone());
            }
        }
        report.setting_changes = self.setting_changes();
        self.context.reports.put(self.set, report, began.elapsed());
    }

    /// The settings that changed since the last report; their time is filled in by the history.
    fn setting_changes(&mut self) -> Vec<SettingChange> {
        let now = &self.known.sharding;
        let before = self.memory.sharding.as_ref();
        if before == Some(now) {
            return Vec::new();
        }
        let differences = before.map(|before| before.differences(now));
        let change = |Difference { key, old, new }: Difference| SettingChange {
            at: String::new(),
            key: key.to_owned(),
            old,
            new,
        };
        let changes = differences.into_iter().flatten().map(change).collect();
        self.memory.sharding = Some(now.clone());
        changes
    }

    /// Sends an Event and logs it, once while it holds.
    pub(super) fn notify(&mut self, reason: &'static str, text: &str) {
        let key = (reason, without_digits(text));
        let is_new = !self.memory.notified.contains_key(&key);
        if self.memory.holding.insert(key, text.to_owned()).is_some() || !is_new {
            return;
        }
        let (namespace, statefulset) = self.set;
        if self.context.observed.may_log(namespace) {
            tracing::warn!(namespace, statefulset, reason, "{text}");
        }
        let event = ObjectEvent {
            namespace: namespace.clone(),
            statefulset: statefulset.clone(),
            uid: self.known.facts().uid.clone(),
            reason,
            message: text.to_owned(),
        };
        // A full queue drops the Event; the log has it.
        let _ = self.context.events.try_send(event);
    }
}

/// A text that stays the same while only times and numbers in it change.
fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}
