//! Which entries count: those that only the leader can have written.
//!
//! In: the content of the mounted directory. Out: the accepted entry, whose window is the wanted
//! one. Next for a window: `core/agent/sidecar/decide.rs`.
//!
//! - an entry with a generation counts if its generation is greater than every accepted one;
//! - an entry without a generation counts while no generation is known. Later it counts only after
//!   it has been unchanged for [`UNNUMBERED_WAIT`]: time for a leader to restore its own entry;
//! - any other entry that differs from the accepted one is refused, so that an edit, a restored
//!   backup or kubelet's stale cache makes no pod unready.
//!
//! The window file keeps the accepted entry and its generation for the next sidecar.

use std::time::Duration;

use crate::core::agent::handoff::{AcceptedEntry, WindowFile};
use crate::core::model::entry::Entry;

/// How long an entry without a generation must be unchanged once a generation is known.
pub const UNNUMBERED_WAIT: Duration = Duration::from_mins(2);

/// A log line about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryChange {
    pub line: String,
    pub refused: bool,
}

/// The accepted entry, and the problem of the mounted one.
#[derive(Debug, Default)]
pub(super) struct EntryTracker {
    accepted: Option<Entry>,
    generation: Option<u64>,
    error: Option<String>,
    /// An entry without a generation, and since when it is unchanged.
    waiting: Option<(Entry, Duration)>,
}

impl EntryTracker {
    /// Restores what an earlier sidecar of this pod accepted.
    pub(super) fn restored(file: Option<&WindowFile>) -> Self {
        let generation = file.and_then(|file| file.generation);
        let accepted = file
            .and_then(|file| file.accepted)
            .filter(|_| generation.is_some());
        Self {
            accepted: accepted.map(|entry| entry.with_generation(generation)),
            generation,
            ..Self::default()
        }
    }

    pub(super) const fn accepted(&self) -> Option<&Entry> {
        self.accepted.as_ref()
    }

    pub(super) const fn generation(&self) -> Option<u64> {
        self.generation
    }

    pub(super) const fn error(&self) -> Option<&String> {
        self.error.as_ref()
    }

    /// Returns what the next sidecar needs; nothing while no generation is known.
    pub(super) fn to_keep(&self) -> (Option<u64>, Option<AcceptedEntry>) {
        (
            self.generation,
            self.accepted
                .filter(|_| self.generation.is_some())
                .map(AcceptedEntry::from),
        )
    }

    /// Takes the content of the mounted directory.
    pub(super) fn take(
        &mut self,
        read: Result<Option<Entry>, String>,
        now: Duration,
    ) -> Option<EntryChange> {
        let waiting = self.waiting.take();
        match read {
            Ok(Some(entry)) if self.is_newer(&entry) => self.accept(entry),
            Ok(Some(entry)) if self.is_accepted(&entry) => {
                self.error = None;
                None
            }
            Ok(Some(entry)) => {
                let why = self.not_newer(&entry);
                if entry.generation.is_none() {
                    self.waiting = waiting
                        .filter(|(before, _)| *before == entry)
                        .or(Some((entry, now)));
                }
                self.keep(why)
            }
            Ok(None) if self.accepted.is_none() && self.error.is_none() => None,
            Ok(None) => self.keep("there is no entry for this pod any more".to_owned()),
            Err(why) => self.keep(why),
        }
    }

    /// Returns when to call [`EntryTracker::promote`].
    pub(super) fn wake(&self) -> Option<Duration> {
        self.waiting.map(|(_, since)| since + UNNUMBERED_WAIT)
    }

    /// Accepts an entry without a generation that has been unchanged for long enough.
    pub(super) fn promote(&mut self, now: Duration) -> Option<EntryChange> {
        let (entry, _) = self
            .waiting
            .take_if(|(_, since)| now >= *since + UNNUMBERED_WAIT)?;
        self.accept(entry)
    }

    fn is_newer(&self, entry: &Entry) -> bool {
        match (entry.generation, self.generation) {
            (_, None) => true,
            (new, Some(known)) => new.is_some_and(|new| new > known),
        }
    }

    /// Compares with the accepted entry, ignoring the generation.
    fn is_accepted(&self, entry: &Entry) -> bool {
        self.accepted
            .is_some_and(|accepted| AcceptedEntry::from(accepted) == AcceptedEntry::from(*entry))
    }

    fn accept(&mut self, entry: Entry) -> Option<EntryChange> {
        let place = |entry: &Entry| (entry.shard, entry.replica, entry.window, entry.drain);
        let before = self.accepted.replace(entry);
        self.generation = entry.generation.or(self.generation);
        self.error = None;
        if before.as_ref().map(place) == Some(place(&entry)) {
            return None;
        }
        let before = before.map_or("no window".to_owned(), |entry| entry.window.to_string());
        let line = format!(
            "entry changed: {before} becomes {} (shard {}, replica {})",
            entry.window, entry.shard, entry.replica
        );
        Some(EntryChange {
            line,
            refused: false,
        })
    }

    fn not_newer(&self, entry: &Entry) -> String {
        let known = self.generation.unwrap_or_default();
        match entry.generation {
            Some(generation) => format!(
                "the entry with generation {generation} ({}) is ignored: generation {known} was accepted before, and only an entry with a \
                 greater generation counts",
                entry.window
            ),
            None => format!(
                "the entry without a generation ({}) is ignored: generation {known} was accepted before; it counts once it has been \
                 unchanged for {} s",
                entry.window,
                UNNUMBERED_WAIT.as_secs()
            ),
        }
    }

    fn keep(&mut self, why: String) -> Option<EntryChange> {
        let kept = self
            .accepted
            .as_ref()
            .map_or("what thanos was started with".to_owned(), |entry| {
                entry.window.to_string()
            });
        let line = format!("entry refused, keeping {kept}: {why}");
        let new = self.error.as_ref() != Some(&why);
        self.error = Some(why);
        new.then_some(EntryChange {
            line,
            refused: true,
        })
    }
}
