//! What [`Sidecar::status`] says.

use super::super::names::CONTRACT;
use super::{AgentStatus, ReloadMode, Sidecar};

impl Sidecar {
    /// The document for `GET /status`.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        let confirmed = self
            .confirmed
            .as_ref()
            .filter(|c| c.launch == self.launch() && self.runs() && !self.deciding());
        let entry = self.entries.accepted();
        let (blocks, blocks_unknown) = match self.loaded() {
            Ok(blocks) => (Some(blocks), None),
            Err(why) => (None, Some(why)),
        };
        AgentStatus {
            pod: self.settings.pod.clone(),
            shard: entry.map(|e| e.shard),
            replica: entry.map(|e| e.replica),
            phase: self.phase,
            published: entry.map(|e| e.window),
            applied: confirmed.map(|c| c.applied),
            verified: confirmed.is_some_and(|c| c.verified),
            restarts: self.record.as_ref().map_or(0, |r| r.restarts),
            last_error: self.last_error(),
            agent_version: self.settings.version.clone(),
            contract: CONTRACT,
            namespace: self.settings.namespace.clone(),
            uid: self.settings.uid.clone(),
            generation: self.entries.generation(),
            order: entry.and_then(|e| e.order),
            blocks,
            blocks_unknown,
        }
    }

    fn last_error(&self) -> Option<String> {
        let entry = self.entries.error().cloned();
        let act = || self.act_error.as_ref().map(|(why, _)| why.clone());
        let failed = || {
            self.failure()
                .map(|(window, why)| format!("window {window} was given up: {why}"))
        };
        let mismatch = || self.mismatch.clone();
        let off = || {
            let differs = self.settings.reload == ReloadMode::Off
                && self.running().is_some()
                && self.running() != self.wanted();
            (differs && self.entries.accepted().is_some())
                .then(|| "in-place reload is off for this pod: the published window takes effect when the pod is created anew".to_owned())
        };
        let note = || self.confirmed.as_ref().and_then(|c| c.note.clone());
        entry
            .or_else(act)
            .or_else(failed)
            .or_else(mismatch)
            .or_else(off)
            .or_else(note)
    }
}
