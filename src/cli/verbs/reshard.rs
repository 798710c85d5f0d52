//! `timeshard reshard`.

use std::str::FromStr;

use super::VerbArgs;
use super::change::{annotation, apply, checked, follow};
use super::target::{self, ChangeTarget};
use crate::adapters::kube::annotate::AnnotationPatch;
use crate::adapters::kube::user_client::ClusterClient;
use crate::cli::Failure;
use crate::cli::statefulset_name::StatefulSetName;
use crate::core::config::{SHARDING_KEYS, check_annotations, is_ours, nearest, sharding_key};

/// Change the sharding of a StatefulSet, and show the rollout that follows
///
/// Sets annotations on the StatefulSet's own metadata, which override the configuration, and shows
/// the steps of the rollout as if every pod were healthy. What the server would refuse is refused
/// before anything is written. The server carries the rollout out without a gap; no pod is
/// recreated.
#[derive(Debug, clap::Args)]
#[command(after_help = concat!("\
Examples:
  timeshard reshard thanos-store-gateway -n monitoring total-shards=4 --dry-run
  timeshard reshard thanos-store-gateway -n monitoring total-shards=4
  timeshard reshard monitoring/thanos-store-gateway retention=730d 'boundaries=[14d, 90d]' -o wide
  timeshard reshard monitoring/thanos-store-gateway total-shards-    # back to the configuration

Keys are those of the sharding block, with dashes: timeshard plan --help lists them."))]
pub(in crate::cli) struct ReshardArgs {
    /// The StatefulSet, as NAME, NAMESPACE/NAME or statefulset/NAME
    #[arg(value_name = "STATEFULSET")]
    name: StatefulSetName,
    /// Keys with values; KEY- removes the annotation, so that the configuration applies
    #[arg(value_name = "KEY=VALUE", required = true)]
    changes: Vec<KeyChange>,
    #[command(flatten)]
    pub(super) verb: VerbArgs,
}

/// A key of the sharding block with its new value; `None` removes the annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyChange {
    key: &'static str,
    value: Option<String>,
}

impl FromStr for KeyChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (given, value) = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value.to_owned())),
            (None, Some(key)) => (key, None),
            (None, None) => {
                return Err(
                    "write KEY=VALUE such as total-shards=4, or KEY- to remove it".to_owned(),
                );
            }
        };
        let short = given
            .strip_prefix(crate::core::model::names::PREFIX)
            .unwrap_or(given);
        match sharding_key(&annotation(short)) {
            Some(key) => Ok(Self { key, value }),
            None => Err(unknown(short)),
        }
    }
}

/// Says which key was probably meant, or which command is for it.
fn unknown(key: &str) -> String {
    match key {
        "pause" => return "use timeshard pause and timeshard resume".to_owned(),
        "target-replicas" => return "use timeshard scale-down".to_owned(),
        _ if is_ours(&annotation(key)) => {
            return format!(
                "it is not a key of sharding; use kubectl annotate statefulset NAME {}=VALUE",
                annotation(key)
            );
        }
        _ => {}
    }
    let known = SHARDING_KEYS.map(|key| key.replace('_', "-"));
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    match nearest(&key.replace('_', "-"), &known) {
        Some(meant) => format!("no key {key}; did you mean {meant}?"),
        None => format!("no key {key}; the keys are {}", known.join(", ")),
    }
}

pub(in crate::cli) fn reshard(args: &ReshardArgs) -> Result<(), Failure> {
    crate::cli::block_on(async {
        check_changes(args)?;
        let given = args.verb.given_config()?;
        let (cluster, target) = target::find(&args.verb, given, &args.name).await?;
        carry_out(args, &cluster, &target).await
    })
}

pub(super) async fn carry_out(
    args: &ReshardArgs,
    cluster: &ClusterClient,
    target: &ChangeTarget,
) -> Result<(), Failure> {
    let change = checked(target, wanted(target, &args.changes), true)?;
    let next = follow(&args.verb, target);
    apply(&args.verb, cluster, target, &change, next).await
}

/// Refuses changes that are wrong on every StatefulSet.
pub(super) fn check_changes(args: &ReshardArgs) -> Result<(), Failure> {
    let namespace = args.verb.namespace_of(&args.name)?;
    for (i, KeyChange { key, .. }) in args.changes.iter().enumerate() {
        if args.changes[..i].iter().any(|other| other.key == *key) {
            return Err(Failure::Invalid(format!(
                "{}: it is given twice; write it once",
                dashed(key)
            )));
        }
    }
    let given: Vec<(String, &str)> = args
        .changes
        .iter()
        .filter_map(|change| Some((annotation(&dashed(change.key)), change.value.as_deref()?)))
        .collect();
    check_annotations(given.iter().map(|(key, value)| (key.as_str(), *value))).map_err(|refusal| {
        let namespace = namespace.map_or_else(String::new, |namespace| namespace + "/");
        Failure::Invalid(format!(
            "StatefulSet {namespace}{} is not changed: {refusal}",
            args.name.name
        ))
    })
}

/// A key as annotations have it.
fn dashed(key: &str) -> String {
    key.replace('_', "-")
}

/// Returns the annotations to write. One key may be on the StatefulSet with dashes or underscores.
fn wanted(target: &ChangeTarget, changes: &[KeyChange]) -> AnnotationPatch {
    let mut wanted = AnnotationPatch::new();
    for KeyChange { key, value } in changes {
        let dashed = annotation(&dashed(key));
        let others = target.facts.annotations.keys();
        wanted.extend(
            others
                .filter(|other| **other != dashed && sharding_key(other) == Some(key))
                .map(|other| (other.clone(), None)),
        );
        wanted.insert(dashed, value.clone());
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_sharding_block() {
        let change = |key, value: Option<&str>| {
            Ok(KeyChange {
                key,
                value: value.map(str::to_owned),
            })
        };
        for (text, want) in [
            ("total-shards=4", change("total_shards", Some("4"))),
            ("total_shards=4", change("total_shards", Some("4"))),
            (
                "thanos-timeshard.io/overlap=2d",
                change("overlap", Some("2d")),
            ),
            (
                "boundaries=[14d, 90d]",
                change("boundaries", Some("[14d, 90d]")),
            ),
            ("retention-", change("retention", None)),
        ] {
            assert_eq!(text.parse::<KeyChange>(), want, "{text}");
        }
        for (text, want) in [
            (
                "total-shard=4",
                "no key total-shard; did you mean total-shards?",
            ),
            ("pause=true", "use timeshard pause and timeshard resume"),
            ("target-replicas=4", "use timeshard scale-down"),
            (
                "guard=off",
                "use kubectl annotate statefulset NAME thanos-timeshard.io/guard=VALUE",
            ),
            ("something-else-entirely=1", "the keys are total-shards"),
            ("total-shards", "write KEY=VALUE"),
            ("=4", "no key ;"),
        ] {
            let error = text.parse::<KeyChange>().unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
