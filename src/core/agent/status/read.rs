//! A sidecar's answer as the server keeps it: bounded, and safe to show.

use super::AgentStatus;
use crate::core::agent::loaded::{BlockRef, LoadedBlocks, MAX_MISSING, ULID_CHARS};
use crate::core::model::text::short_line;

/// The limit of each kept text; thousands of documents are in memory.
const MAX_KEPT_CHARS: usize = 500;
const MAX_VERSION_CHARS: usize = 64;

impl AgentStatus {
    /// Parses a pod's answer. Shortens texts that are logged or shown to one line, and replaces an
    /// unusable list of missing blocks by the reason. `pod` stays as it is: the caller compares it.
    ///
    /// # Errors
    /// The parser's.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut status: Self = serde_json::from_slice(body)?;
        status.agent_version = short_line(&status.agent_version, MAX_VERSION_CHARS);
        for text in [
            &mut status.last_error,
            &mut status.blocks_unknown,
            &mut status.namespace,
            &mut status.uid,
        ] {
            *text = text.as_deref().map(brief);
        }
        if let Some(why) = status.blocks.as_ref().and_then(malformed) {
            (status.blocks, status.blocks_unknown) = (None, Some(why.to_owned()));
        }
        Ok(status)
    }
}

/// Shortens a text to one line for logs, Events and terminals.
fn brief(text: &str) -> String {
    short_line(text, MAX_KEPT_CHARS + 1)
}

/// Returns why the list of blocks cannot be used.
fn malformed(blocks: &LoadedBlocks) -> Option<&'static str> {
    let is_ulid = |block: &BlockRef| {
        block.ulid.len() == ULID_CHARS
            && block.ulid.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if blocks.missing.len() > MAX_MISSING {
        Some("its sidecar names more missing blocks than it may")
    } else if !blocks.missing.iter().all(is_ulid) {
        Some("its sidecar names a missing block by something other than a ULID")
    } else if blocks
        .missing
        .iter()
        .any(|block| block.min_time > block.max_time)
    {
        Some("its sidecar names a missing block that ends before it begins")
    } else {
        None
    }
}
