//! Limits for YAML that any user may write, and messages for text that exceeds them.
//!
//! With aliases a few hundred bytes can stand for millions of values, so annotations and ConfigMap
//! entries may have none. Time and memory are then proportional to the text, whose length the caller
//! bounds.

use serde_saphyr::budget::BudgetBreach;

use super::text::truncate;

/// Of a message, in characters; longer ones repeat the input.
const MAX_WHY_CHARS: usize = 200;
/// Levels of nesting; every value here is at most a list in a mapping.
const MAX_DEPTH: usize = 8;

/// Returns options that accept no aliases and at most `nodes` values.
#[must_use]
pub fn without_aliases(nodes: usize) -> serde_saphyr::Options {
    serde_saphyr::options! {
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 0 },
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_nodes: nodes,
            max_events: nodes.saturating_mul(2).saturating_add(16),
            max_depth: MAX_DEPTH,
            max_documents: 2,
        },
    }
}

/// Describes the mistake, without its place and without repeating much of the text.
#[must_use]
pub fn why(error: &serde_saphyr::Error) -> String {
    let message = error.to_string();
    // The parser repeats the place at the end; callers put it in front.
    let why = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(head, _)| head);
    let why = match error {
        serde_saphyr::Error::Budget { breach, .. } => {
            exceeded(breach).unwrap_or_else(|| for_users(why))
        }
        _ => for_users(why),
    };
    truncate(&why, MAX_WHY_CHARS).into_owned()
}

/// Describes an exceeded limit.
fn exceeded(breach: &BudgetBreach) -> Option<String> {
    match breach {
        BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } => Some(
            "anchors (&name) and aliases (*name) are not accepted here; write the value out"
                .to_owned(),
        ),
        BudgetBreach::Nodes { nodes } | BudgetBreach::Events { events: nodes } => Some(format!(
            "too many values (more than {}); write fewer",
            nodes.saturating_sub(1)
        )),
        BudgetBreach::Depth { depth } => Some(format!(
            "nested {depth} levels deep, which no value here needs"
        )),
        _ => None,
    }
}

/// Replaces messages that the parser writes for programmers.
fn for_users(why: &str) -> String {
    if why.starts_with("multiple YAML documents") {
        "there is a second document; keep one and remove the line ---".to_owned()
    } else if why.starts_with("alias replay limit exceeded") {
        "its aliases (*name) stand for too many values; write the values out".to_owned()
    } else if why.starts_with("recursive references") {
        "an alias stands inside the anchor that it refers to; write the value out".to_owned()
    } else if let Some(rest) = why.strip_prefix("duplicate mapping key") {
        let key = rest.split([',', ';']).next().unwrap_or_default();
        format!("duplicate key{key}; keep one of the two")
    } else {
        why.to_owned()
    }
}
