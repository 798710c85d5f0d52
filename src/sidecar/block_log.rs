//! Log lines about blocks: one for each change.

use tracing::{info, warn};

use crate::core::agent::loaded::LoadedBlocks;
use crate::core::agent::sidecar::{NOT_LISTED, NOT_READY};
use crate::core::agent::status::AgentStatus;

/// The number of blocks that a line names; `/status` names more.
const NAMED: usize = 5;

/// The last logged state.
#[derive(Debug, Default)]
pub(super) struct BlockLog {
    missing: Option<LoadedBlocks>,
    unknown: Option<String>,
}

impl BlockLog {
    /// Logs a change.
    pub(super) fn observe(&mut self, status: &AgentStatus) {
        // Before the pod is Ready the next reading or list mostly changes the state.
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
                info!(why, "unknown which blocks thanos has loaded");
                self.unknown = Some(why.clone());
            }
            _ => {}
        }
    }
}
