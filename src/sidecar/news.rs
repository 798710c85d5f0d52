//! The log lines about blocks: one for each change.

use tracing::{info, warn};

use crate::core::agent_status::AgentStatus;
use crate::core::loaded::LoadedBlocks;
use crate::core::reload::{NOT_LISTED, NOT_READY};

/// A line names at most this many blocks; `/status` names more.
const NAMED: usize = 5;

/// What the log said last.
#[derive(Debug, Default)]
pub(super) struct BlockNews {
    missing: Option<LoadedBlocks>,
    unknown: Option<String>,
}

impl BlockNews {
    /// Logs what is new.
    pub(super) fn observe(&mut self, status: &AgentStatus) {
        // Before the pod is Ready the next reading or list mostly says more.
        let unfinished = status.blocks.as_ref().is_none_or(LoadedBlocks::is_cut);
        if unfinished && !status.phase.is_ready() {
            return;
        }
        match (&status.blocks, &status.blocks_unknown) {
            (Some(blocks), _)
                if self.unknown.is_some() || self.missing.as_ref() != Some(blocks) =>
            {
                let first = self.missing.is_none() && self.unknown.is_none();
                let named: Vec<&str> = blocks
                    .missing
                    .iter()
                    .take(NAMED)
                    .map(|block| block.ulid.as_str())
                    .collect();
                let (expected, loaded, missing) =
                    (blocks.expected, blocks.loaded, blocks.missing_total);
                if missing > 0 {
                    warn!(
                        missing,
                        expected,
                        loaded,
                        blocks = named.join(","),
                        "thanos has not loaded all blocks of its window"
                    );
                } else if !first {
                    info!(expected, "thanos has loaded all blocks of its window");
                }
                (self.missing, self.unknown) = (Some(blocks.clone()), None);
            }
            (None, Some(why))
                if why != NOT_READY && why != NOT_LISTED && self.unknown.as_ref() != Some(why) =>
            {
                info!(why, "it is not known which blocks thanos has loaded");
                self.unknown = Some(why.clone());
            }
            _ => {}
        }
    }
}
