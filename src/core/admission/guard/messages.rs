//! The guard's sentences, for a person at a command line: each names its subject, and each command
//! can be copied.

use chrono::{DateTime, SecondsFormat, Utc};

use super::annotations;
use super::removal::{Removal, Single, Thin, Unready};
use crate::core::admission::Skip;
use crate::core::config::{Difference, WindowFormat};
use crate::core::gateways::AllAtOnce;
use crate::core::gateways::Gateway;
use crate::core::model::duration::PromDuration;
use crate::core::model::names;
use crate::core::model::text::{self, counted};
use crate::core::model::window::Bound;
use crate::core::rollout::planner::{Gap, TimeRange};

/// Pods, ranges or blocks named in one sentence.
const MAX_NAMED: usize = 5;

/// Summarises the windows of the pods in one line.
#[must_use]
pub fn summary(gateway: &Gateway, now: DateTime<Utc>) -> String {
    let replicas = gateway.facts().replicas;
    if replicas == 0 {
        return "no pods: nothing is served".to_owned();
    }
    let each: Vec<u32> = gateway
        .plan
        .shards()
        .iter()
        .map(|shard| shard.replicas)
        .collect();
    let alike = each.iter().all(|count| *count == each[0]);
    let of = if alike {
        each[0].to_string()
    } else {
        listed(&each.iter().map(u32::to_string).collect::<Vec<_>>())
    };
    let planned = annotations::target(gateway)
        .map_or_else(String::new, |target| format!(", planned for {target}"));
    let one = if of == "1" { "" } else { "s" };
    let window = |shard: usize| {
        gateway
            .plan
            .window(u32::try_from(shard).unwrap_or(u32::MAX), now)
    };
    let windows = match each.len() {
        1 => window(0).to_string(),
        n => format!("newest {}, oldest {}", window(0), window(n - 1)),
    };
    format!(
        "{}{planned}: {} of {of} replica{one}, {windows}",
        counted(replicas, "pod"),
        counted(each.len() as u64, "shard")
    )
}

pub(super) fn skipped(skip: &Skip) -> String {
    format!("thanos-timeshard skips these pods: {skip}")
}

/// A change after which something is no longer served, then the safe way.
pub(super) fn loss(
    before: &Gateway,
    after: &Gateway,
    lost: &Removal<'_>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if !lost.gaps.is_empty() {
        lines.extend(gap(before, after, lost, now));
    }
    if !lost.unready.gaps.is_empty() {
        lines.extend(unready(before, after, &lost.unready, now));
    }
    lines.extend(
        lost.single
            .iter()
            .take(MAX_NAMED)
            .flat_map(|single| last_holder(before, after, single)),
    );
    lines.push(override_command(after));
    lines
}

/// The change, as the beginning of a sentence.
fn change(before: &Gateway, after: &Gateway) -> String {
    let (pods, start) = (before.facts().replicas, before.ordinals_start);
    match (after.facts().replicas, after.ordinals_start) {
        (to, same) if to == 0 || same == start => format!("with {to} of {}", counted(pods, "pod")),
        (_, moved) => format!("with spec.ordinals.start {moved} instead of {start}"),
    }
}

/// Pods that stay would serve the range but are not ready.
fn unready(
    before: &Gateway,
    after: &Gateway,
    lost: &Unready<'_>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let waiting: Vec<String> = lost
        .waiting
        .iter()
        .map(|(pod, condition)| format!("{pod} {}", condition.clause()))
        .collect();
    let pods: Vec<&str> = lost.waiting.iter().map(|(pod, _)| *pod).collect();
    vec![
        format!(
            "{}, no ready pod would serve {}; today only {}, and {}",
            change(before, after),
            ranges(after, &lost.gaps, now),
            only(&lost.serving),
            listed(&waiting)
        ),
        format!(
            "wait until one of them is ready: {} get pod {}",
            kubectl(after),
            pods.iter()
                .take(MAX_NAMED)
                .copied()
                .collect::<Vec<_>>()
                .join(" ")
        ),
    ]
}

/// A removed pod is the only one that has loaded some blocks.
fn last_holder(before: &Gateway, after: &Gateway, single: &Single<'_>) -> Vec<String> {
    let (block, them) = if single.blocks.len() == 1 {
        ("block", "it")
    } else {
        ("blocks", "them")
    };
    let have = if single.lacking.len() == 1 {
        "has"
    } else {
        "have"
    };
    vec![
        format!(
            "{}, no pod would serve {block} {}: only {} has loaded {them}",
            change(before, after),
            listed(&single.blocks),
            single.pod
        ),
        format!(
            "wait until {} {have} loaded {them}, too: `timeshard status {}/{}` shows what is missing",
            listed(&single.lacking),
            after.facts().namespace,
            after.facts().name
        ),
    ]
}

/// A change that leaves a gap, then the safe way.
fn gap(before: &Gateway, after: &Gateway, lost: &Removal<'_>, now: DateTime<Utc>) -> Vec<String> {
    let to = after.facts().replicas;
    let moved = before.ordinals_start != after.ordinals_start;
    let what = change(before, after);
    let mut lines = vec![format!(
        "{what}, no pod would serve {}; today only {}",
        ranges(after, &lost.gaps, now),
        only(&lost.holders)
    )];
    let status = format!(
        "`timeshard status {}/{}`",
        after.facts().namespace,
        after.facts().name
    );
    if to > 0 && !moved {
        if annotations::target(before) == Some(to) {
            lines.push(wait(after));
        } else {
            lines.push(format!(
                "first: {}",
                annotate(after, &format!("{}={to}", names::TARGET_REPLICAS))
            ));
            lines.push(format!(
                "then, once {status} reports that it is safe: {} scale statefulset {} --replicas={to}",
                kubectl(after),
                after.facts().name
            ));
        }
    }
    lines
}

/// A changed template whose rolling update replaces all replicas of a shard together.
pub(super) fn replaced_at_once(after: &Gateway, all: &AllAtOnce) -> Vec<String> {
    let one = r#"'{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":1}}}}'"#;
    vec![
        all.sentence(after.facts()),
        format!(
            "first: {} patch statefulset {} --type=merge -p {one}",
            kubectl(after),
            after.facts().name
        ),
        override_command(after),
    ]
}

/// Scaling down to the target before the rollout has finished.
pub(super) fn too_early(after: &Gateway) -> Vec<String> {
    vec![wait(after), override_command(after)]
}

fn wait(after: &Gateway) -> String {
    let facts = after.facts();
    let paused = if annotations::paused(after) {
        format!("it is paused by {}: remove that, and ", names::PAUSE)
    } else {
        String::new()
    };
    format!(
        "the rollout to {} has not finished: {paused}wait until `timeshard status {}/{}` reports that scaling down is safe",
        counted(facts.replicas, "pod"),
        facts.namespace,
        facts.name
    )
}

/// Pods that would come back without a window from timeshard.
pub(super) fn no_longer_injected(after: &Gateway, skip: &Skip) -> Vec<String> {
    let what = match skip {
        Skip::TimeFlags(_) => "pods of this template would no longer get their windows",
        _ => {
            "pods of this template would come back without a window, each serving the whole bucket"
        }
    };
    vec![format!("{what}: {skip}"), override_command(after)]
}

/// A StatefulSet that timeshard lets go of.
pub(super) fn opted_out(after: &Gateway) -> String {
    format!(
        "timeshard lets go of {}/{}: running pods keep their windows; pods that are created from now on have none, each serving the whole bucket",
        after.facts().namespace,
        after.facts().name
    )
}

fn override_command(gateway: &Gateway) -> String {
    format!(
        "to proceed anyway: {}",
        annotate(gateway, &format!("{}=off", names::GUARD))
    )
}

fn annotate(gateway: &Gateway, annotation: &str) -> String {
    format!(
        "{} annotate --overwrite statefulset {} {annotation}",
        kubectl(gateway),
        gateway.facts().name
    )
}

fn kubectl(gateway: &Gateway) -> String {
    format!("kubectl -n {}", gateway.facts().namespace)
}

/// A deletion is never denied: it is always deliberate.
pub(super) fn deletion(gateway: &Gateway, lost: &Removal<'_>, now: DateTime<Utc>) -> Vec<String> {
    let facts = gateway.facts();
    vec![
        format!(
            "its {} will be deleted, and no other pod of it serves {}",
            counted(facts.replicas, "pod"),
            ranges(gateway, &lost.gaps, now)
        ),
        format!(
            "to keep the pods: {} delete --cascade=orphan statefulset {}",
            kubectl(gateway),
            facts.name
        ),
    ]
}

/// Fewer pods than planned, but at least one.
pub(super) fn thin(after: &Gateway, thin: Thin, now: DateTime<Utc>) -> Vec<String> {
    let serve = if thin.left == 1 { "serves" } else { "serve" };
    vec![
        format!(
            "until other pods have moved, {} {serve} {} where the plan wants {}",
            counted(thin.left, "pod"),
            ranges(after, &[thin.range], now),
            thin.wanted
        ),
        format!(
            "to avoid that, first: {}",
            annotate(
                after,
                &format!("{}={}", names::TARGET_REPLICAS, after.facts().replicas)
            )
        ),
    ]
}

pub(super) fn under_way(gateway: &Gateway) -> String {
    let facts = gateway.facts();
    format!(
        "a rollout is under way, so published windows may not be served yet: wait until `timeshard status {}/{}` reports settled",
        facts.namespace, facts.name
    )
}

/// A change of the pod template during a rollout. The controller of an `OrderedReady` set waits for
/// pods that restart.
pub(super) fn replaced_meanwhile(gateway: &Gateway) -> String {
    let facts = gateway.facts();
    format!(
        "a rollout is under way, and podManagementPolicy: Parallel replaces a pod even while its partner restarts with another window: wait until `timeshard status {}/{}` reports settled",
        facts.namespace, facts.name
    )
}

/// Warns if the controller will delete the next pod before queriers have discovered the previous
/// one.
pub(super) fn replaced_quickly(gateway: &Gateway) -> Option<String> {
    let (facts, wanted) = (gateway.facts(), gateway.sharding.discovery_delay());
    let replaces = facts
        .partition
        .is_some_and(|partition| partition < facts.replicas)
        && facts.replicas > 1;
    (replaces && i64::from(facts.min_ready_seconds) < wanted.as_secs()).then(|| {
        format!(
            "a rolling update deletes the next pod as soon as one is Ready, and queriers behind a DNS cache find neither for up to 30 s: set spec.minReadySeconds to {} first",
            wanted.as_secs()
        )
    })
}

/// The size of the rollout, and where it leaves a gap or stops.
pub(super) fn steps(
    gateway: &Gateway,
    differences: &[Difference],
    (pods, restarts, steps): (usize, usize, usize),
    gap: Option<(String, Gap)>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((pod, gap)) = gap {
        let range = ranges(gateway, &[(gap.from, gap.to)], now);
        lines.push(if gateway.sharding.allow_coverage_gap() {
            format!("while {pod} restarts, no pod serves {range}; the rollout proceeds because allow_coverage_gap is true")
        } else {
            format!("the rollout will stop at {pod}, the only pod that serves {range}: scale up first, or accept the gap with allow_coverage_gap")
        });
    }
    if restarts > 0 {
        let each = (gateway.sharding.drain() + gateway.sharding.discovery_delay()).as_secs();
        let waits =
            PromDuration::from_secs(each.saturating_mul(i64::try_from(steps).unwrap_or(i64::MAX)));
        let time = if gateway.sharding.queriers_complete() {
            format!("waiting {waits} or less besides loading")
        } else {
            format!("at least {waits}")
        };
        let twice = if restarts > pods {
            format!(" ({restarts} restarts)")
        } else {
            String::new()
        };
        let verb = if pods == 1 { "restarts" } else { "restart" };
        lines.push(format!(
            "{}{} {verb} thanos in place{twice}, in {}, {time}{}",
            changed(differences),
            counted(pods as u64, "pod"),
            counted(steps as u64, "step"),
            pausing(gateway)
        ));
    }
    lines
}

/// The same for a rollout that is too large to preview.
pub(super) fn moves(gateway: &Gateway, differences: &[Difference], pods: usize) -> Option<String> {
    let get = if pods == 1 {
        "gets another window"
    } else {
        "get other windows"
    };
    (pods > 0).then(|| {
        format!(
            "{}{} {get}, a few at a time{}",
            changed(differences),
            counted(pods as u64, "pod"),
            pausing(gateway)
        )
    })
}

fn changed(differences: &[Difference]) -> String {
    let shown: Vec<String> = differences.iter().map(ToString::to_string).collect();
    if shown.is_empty() {
        String::new()
    } else {
        format!("{}: ", listed(&shown))
    }
}

fn pausing(gateway: &Gateway) -> String {
    if annotations::paused(gateway) {
        format!("; not before {} is removed", names::PAUSE)
    } else {
        String::new()
    }
}

fn only(pods: &[&str]) -> String {
    let verb = if pods.len() == 1 { "does" } else { "do" };
    format!("{} {verb}", listed(pods))
}

fn listed<T: AsRef<str>>(items: &[T]) -> String {
    text::listed(items, MAX_NAMED)
}

/// Writes ranges in the window format of the StatefulSet: relative to now, or as times.
fn ranges(gateway: &Gateway, ranges: &[TimeRange], now: DateTime<Utc>) -> String {
    let at = |instant: DateTime<Utc>| match gateway.sharding.window_format() {
        WindowFormat::Relative => Bound::Relative(PromDuration::from_millis(
            instant.signed_duration_since(now).num_milliseconds(),
        ))
        .to_string(),
        WindowFormat::Absolute => instant.to_rfc3339_opts(SecondsFormat::Secs, true),
    };
    let older = |instant: DateTime<Utc>| {
        // As in `older_end`: only `retention: forever` reaches back that far.
        if instant < DateTime::UNIX_EPOCH {
            "the beginning".to_owned()
        } else {
            at(instant)
        }
    };
    let shown: Vec<String> = ranges
        .iter()
        .map(|(from, to)| format!("{} .. {}", older(*from), at(*to)))
        .collect();
    listed(&shown)
}
