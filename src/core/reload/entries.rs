//! Which entries count: those that only the leader can have written.
//!
//! - an entry with a generation counts if that is greater than the greatest one accepted so far;
//! - an entry without one counts while no generation is known. Later it counts only after it has stood unchanged for
//!   [`UNNUMBERED_WAIT`]: time for a leader to put its own entry back;
//! - anything else that differs from the accepted entry is refused, so that an edit, a restored backup or a stale cache of
//!   kubelet's makes no pod unready.
//!
//! The accepted entry and its generation outlive the sidecar in the window file.

use std::time::Duration;

use super::super::entry::Entry;
use super::super::shared_files::{AcceptedEntry, WindowFile};

/// How long an entry without a generation has to stand unchanged where a generation is known.
pub const UNNUMBERED_WAIT: Duration = Duration::from_mins(2);

/// What the log should say about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The line.
    pub line: String,
    /// Whether an entry was refused.
    pub refused: bool,
}

/// The accepted entry, and what is wrong with the one that is mounted.
#[derive(Debug, Default)]
pub(super) struct Entries {
    accepted: Option<Entry>,
    generation: Option<u64>,
    error: Option<String>,
    /// An entry without a generation, and since when it stands.
    waiting: Option<(Entry, Duration)>,
}

impl Entries {
    /// What an earlier sidecar of this pod accepted.
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

    /// What a successor needs; nothing while no generation is known.
    pub(super) fn to_keep(&self) -> (Option<u64>, Option<AcceptedEntry>) {
        (
            self.generation,
            self.accepted
                .filter(|_| self.generation.is_some())
                .map(AcceptedEntry::from),
        )
    }

    /// Takes what the mounted directory holds.
    pub(super) fn take(
        &mut self,
        read: Result<Option<Entry>, String>,
        now: Duration,
    ) -> Option<News> {
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

    /// When [`Entries::promote`] has something to do.
    pub(super) fn wake(&self) -> Option<Duration> {
        self.waiting.map(|(_, since)| since + UNNUMBERED_WAIT)
    }

    /// Accepts an entry without a generation that has stood for long enough.
    pub(super) fn promote(&mut self, now: Duration) -> Option<News> {
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

    /// Whether it says the same as the accepted entry, the generation apart.
    fn is_accepted(&self, entry: &Entry) -> bool {
        self.accepted
            .is_some_and(|accepted| AcceptedEntry::from(accepted) == AcceptedEntry::from(*entry))
    }

    fn accept(&mut self, entry: Entry) -> Option<News> {
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
        Some(News {
            line,
            refused: false,
        })
    }

    fn not_newer(&self, entry: &Entry) -> String {
        let known = self.generation.unwrap_or_default();
        match entry.generation {
            Some(generation) => format!(
                "the entry with generation {generation} ({}) is ignored: generation {known} was accepted before, and only an entry with a \
                 greater one counts",
                entry.window
            ),
            None => format!(
                "the entry without a generation ({}) is ignored: generation {known} was accepted before; it counts once it has stood \
                 unchanged for {} s",
                entry.window,
                UNNUMBERED_WAIT.as_secs()
            ),
        }
    }

    fn keep(&mut self, why: String) -> Option<News> {
        let kept = self
            .accepted
            .as_ref()
            .map_or("what thanos was started with".to_owned(), |entry| {
                entry.window.to_string()
            });
        let line = format!("entry refused, keeping {kept}: {why}");
        let new = self.error.as_ref() != Some(&why);
        self.error = Some(why);
        new.then_some(News {
            line,
            refused: true,
        })
    }
}
