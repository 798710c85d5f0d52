//! The configuration file, and the annotations that override it.
//!
//! Invariants: only this module builds a [`Sharding`], and its windows are in order, leave no gap
//! and overlap by at least the configured overlap. A refusal lists every mistake with source, line,
//! column, key, value and what would be accepted. Deliberately absent: reading and watching files.

mod annotation;
mod difference;
mod draft;
mod guard;
mod injection;
mod operator;
mod permissive;
mod problem;
mod queriers;
mod retention;
mod sharding;

use std::collections::BTreeMap;
use std::fmt;

pub use annotation::{
    Misuse, is_ours, misuse_on_statefulset, more_annotations, sharding_key, unknown_annotation,
    unknown_annotations,
};
pub use difference::Difference;
pub use draft::SHARDING_KEYS;
use draft::{Draft, SourceSpan};
pub use guard::GuardMode;
pub use injection::{InjectionConfig, SECCOMP_PROFILE};
pub use operator::Operator;
use problem::unknown_key;
pub use problem::{Problem, Refusal, nearest};
pub use queriers::ConfiguredQueriers;
pub use retention::Retention;
use serde_saphyr::Spanned;
pub use sharding::{LOAD_ALLOWANCE, Sharding};

use crate::core::kube::foreign::{chart_values, manifest};
use crate::core::model::names::CONFIG_BLOCKS;
use crate::core::model::yaml::{Keys, Node, NodeKind, read, read_documents, read_value};

/// Ten years in shards of a third of a day are already too many to operate.
pub const MAX_SHARDS: u32 = 10_000;
pub const MAX_REPLICAS_PER_SHARD: u32 = 1_000;
/// Pods of one StatefulSet; 1 MiB of ConfigMap has room for fewer.
pub const MAX_PODS: u32 = 100_000;
/// Longest retention, in days (a hundred years).
pub const MAX_RETENTION_DAYS: i64 = 36_500;
/// Largest configuration file, in bytes: the size limit of a ConfigMap.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;
/// Annotations of one StatefulSet together, in bytes: the API server's own limit.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardCount {
    Fixed(u32),
    /// As many shards as the pods fill with `replicas_per_shard` each.
    Auto,
}

/// How many pods may restart at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Concurrency {
    Pods(u32),
    /// Of the StatefulSet's pods, rounded up.
    Percent(u32),
}

impl fmt::Display for Concurrency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(pods) => pods.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowFormat {
    /// Durations before now; such windows roll by themselves.
    Relative,
    /// RFC 3339 times, moved on by the leader every quantum.
    Absolute,
}

/// The file's content.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub operator: Operator,
    /// The default for every labelled namespace.
    pub sharding: Sharding,
    pub injection: InjectionConfig,
    pub guard: GuardMode,
    /// Queriers in addition to those that are found in a StatefulSet's namespace.
    pub queriers: Vec<ConfiguredQueriers>,
    draft: Draft,
}

impl Config {
    /// Reads a file's text; `source` is its name in messages.
    ///
    /// # Errors
    /// [`Refusal`] with every mistake.
    pub fn parse(text: &str, source: &str) -> Result<Self, Refusal> {
        let mut config = Self::default();
        let mut problems = Vec::new();
        for (name, block) in &blocks(text, source)? {
            config.set_block(name, block, source, &mut problems);
        }
        config.sharding = checked(&config.draft, problems)?;
        Ok(config)
    }

    fn set_block(
        &mut self,
        name: &Spanned<String>,
        block: &Node,
        source: &str,
        problems: &mut Vec<Problem>,
    ) {
        let key_place = || SourceSpan::of(source, &*name.value, block).at(name);
        let name = name.value.as_str();
        if !CONFIG_BLOCKS.contains(&name) {
            return problems.push(key_place().refuse(unknown_key(name, &CONFIG_BLOCKS)));
        }
        if name == "queriers" {
            let place = SourceSpan::of(source, name, block);
            self.queriers = queriers::read(&place, block, problems);
            return;
        }
        let keys = match &block.value {
            NodeKind::Null => return,
            NodeKind::Map(keys) => keys,
            other => return problems.push(key_place().not_accepted(other, "a block of keys")),
        };
        for (key, node) in keys {
            let mut place = SourceSpan::of(source, format!("{name}.{}", key.value), node);
            if matches!(node.value, NodeKind::Null) {
                // An absent value has no place of its own.
                place = place.at(key);
            }
            let key = key.value.as_str();
            match name {
                "operator" => self.operator.set(&place, key, node, problems),
                "injection" => self.injection.set(&place, key, node, problems),
                "guard" => self.guard.set(&place, key, node, problems),
                _ => self.draft.set(place, key, node, problems),
            }
        }
        if name == "operator" {
            self.operator.check_name(keys, source, problems);
        }
    }

    /// Returns the sharding of one StatefulSet: the file's, overridden by the annotations on the
    /// StatefulSet's own metadata.
    ///
    /// # Errors
    /// [`Refusal`] whose source names the annotation.
    pub fn sharding_for<'a>(
        &self,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Sharding, Refusal> {
        match overrides(annotations) {
            None => Ok(self.sharding.clone()),
            Some((layer, problems)) => checked(&layer.over(&self.draft), problems),
        }
    }
}

/// Checks annotations before the StatefulSet and the server's configuration are known: what is
/// accepted here may still not fit those.
///
/// # Errors
/// [`Refusal`] for values that are wrong on every StatefulSet, alone or together.
pub fn check_annotations<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), Refusal> {
    match overrides(annotations) {
        None => Ok(()),
        Some((layer, problems)) => checked(&permissive::completed(layer), problems).map(drop),
    }
}

/// Reads the annotations that override the file, with their mistakes; `None` if there are none.
fn overrides<'a>(
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<(Draft, Vec<Problem>)> {
    // Sorted, so that two keys for one setting are always refused in the same way.
    let overrides: BTreeMap<&str, (&str, &str)> = annotations
        .into_iter()
        .filter_map(|(name, text)| Some((name, (sharding_key(name)?, text))))
        .collect();
    if overrides.is_empty() {
        return None;
    }
    let mut layer = Draft::default();
    let mut problems = Vec::new();
    let mut left = MAX_ANNOTATIONS_BYTES;
    for (name, (key, text)) in overrides {
        let source = format!("annotation {name}");
        let problem = |line, column, why| Problem {
            source: source.clone(),
            line,
            column,
            key: key.to_owned(),
            why,
        };
        let Some(rest) = left.checked_sub(text.len()) else {
            let why = format!(
                "the annotations are longer than {MAX_ANNOTATIONS_BYTES} bytes together; write shorter ones"
            );
            problems.push(problem(0, 0, why));
            break;
        };
        left = rest;
        match read_value(text) {
            Ok(node) => {
                let place = SourceSpan::of(&source, key, &node);
                layer.set(place, key, &node, &mut problems);
            }
            Err(e) => problems.push(problem(e.line, e.column, e.why)),
        }
    }
    Some((layer, problems))
}

/// Reads the file's blocks.
fn blocks(text: &str, source: &str) -> Result<Keys, Refusal> {
    let refused = |line, column, why: String| {
        Refusal(vec![Problem {
            source: source.to_owned(),
            line,
            column,
            key: String::new(),
            why,
        }])
    };
    if text.len() > MAX_CONFIG_BYTES {
        let why = format!(
            "the file has {} bytes; at most {MAX_CONFIG_BYTES} are read",
            text.len()
        );
        return Err(refused(1, 1, why));
    }
    let root = read(text).map_err(|e| match manifest(&read_documents(text), source) {
        Some(why) => refused(1, 1, why),
        None => refused(e.line, e.column, e.why),
    })?;
    if let Some(why) = manifest(std::slice::from_ref(&root), source) {
        return Err(refused(1, 1, why));
    }
    let blocks = match root.value {
        NodeKind::Map(blocks) => blocks,
        NodeKind::Null => {
            let why = "the file is empty: write at least a block sharding:";
            return Err(refused(1, 1, why.to_owned()));
        }
        other => {
            let why = format!(
                "{} is not a configuration: write the blocks operator, sharding, injection and guard",
                other.shown()
            );
            return Err(refused(1, 1, why));
        }
    };
    match chart_values(&blocks) {
        Some(why) => Err(refused(1, 1, why.to_owned())),
        None => Ok(blocks),
    }
}

/// Checks the keys against each other, once each is right by itself.
fn checked(draft: &Draft, mut problems: Vec<Problem>) -> Result<Sharding, Refusal> {
    let sharding = if problems.is_empty() {
        Sharding::check(draft, &mut problems)
    } else {
        None
    };
    sharding.ok_or(Refusal(problems))
}

#[cfg(test)]
mod tests;
