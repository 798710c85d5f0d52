//! What the guard says: to a person at a command line, so each sentence names the thing, and each command can be copied.

use chrono::{DateTime, SecondsFormat, Utc};

use super::annotations;
use super::removal::{Removal, Single, Thin, Unready};
use crate::core::config::{Difference, WindowFormat};
use crate::core::duration::PromDuration;
use crate::core::fleet::Known;
use crate::core::max_unavailable::AllAtOnce;
use crate::core::mutation::Skip;
use crate::core::names;
use crate::core::rollout::{Gap, Range};
use crate::core::window::Bound;

/// Pods, ranges or numbers named in one sentence.
const NAMED: usize = 5;

/// The windows that the pods get, in a line.
#[must_use]
pub fn summary(known: &Known, now: DateTime<Utc>) -> String {
    let replicas = known.facts().replicas;
    if replicas == 0 {
        return "no pods: nothing is served".to_owned();
    }
    let each: Vec<u32> = known
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
    let planned = annotations::target(known)
        .map_or_else(String::new, |target| format!(", planned for {target}"));
    let one = if of == "1" { "" } else { "s" };
    let window = |shard: usize| {
        known
            .plan
            .window(u32::try_from(shard).unwrap_or(u32::MAX), now)
    };
    let windows = match each.len() {
        1 => window(0).to_string(),
        n => format!("newest {}, oldest {}", window(0), window(n - 1)),
    };
    format!(
        "{}{planned}: {} of {of} replica{one}, {windows}",
        counted(replicas as usize, "pod"),
        counted(each.len(), "shard")
    )
}

/// Pods that nothing is injected into.
pub(super) fn left_alone(skip: &Skip) -> String {
    format!("thanos-timeshard leaves these pods alone: {skip}")
}

/// A change after which something is served no more: what it is, then what is safe.
pub(super) fn loss(
    before: &Known,
    after: &Known,
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
            .take(NAMED)
            .flat_map(|single| last_holder(before, after, single)),
    );
    lines.push(escape(after));
    lines
}

/// The change, as the beginning of a sentence.
fn change(before: &Known, after: &Known) -> String {
    match (
        after.facts().replicas,
        before.ordinals_start != after.ordinals_start,
    ) {
        (0, _) => "without pods".to_owned(),
        (_, true) => format!(
            "with spec.ordinals.start {} instead of {}",
            after.ordinals_start, before.ordinals_start
        ),
        (to, false) => format!(
            "with {to} of {}",
            counted(before.facts().replicas as usize, "pod")
        ),
    }
}

/// Pods that stay would serve it, and are not ready.
fn unready(before: &Known, after: &Known, lost: &Unready<'_>, now: DateTime<Utc>) -> Vec<String> {
    let waiting: Vec<String> = lost
        .waiting
        .iter()
        .map(|(pod, condition)| format!("{pod} {}", condition.words()))
        .collect();
    let pods: Vec<&str> = lost.waiting.iter().map(|(pod, _)| *pod).collect();
    vec![
        format!(
            "{}, no ready pod would serve {}: only {} now, and {}",
            change(before, after),
            ranges(after, &lost.gaps, now),
            hold(&lost.serving),
            listed(&waiting)
        ),
        format!(
            "wait until one of them is ready: {} get pod {}",
            kubectl(after),
            pods.iter()
                .take(NAMED)
                .copied()
                .collect::<Vec<_>>()
                .join(" ")
        ),
    ]
}

/// A pod goes that alone has loaded some blocks.
fn last_holder(before: &Known, after: &Known, single: &Single<'_>) -> Vec<String> {
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
            "wait until {} {have} loaded {them}, too: `timeshard status {}/{}` says what is missing",
            listed(&single.lacking),
            after.facts().namespace,
            after.facts().name
        ),
    ]
}

/// A change that leaves a gap: what it is, then what is safe.
fn gap(before: &Known, after: &Known, lost: &Removal<'_>, now: DateTime<Utc>) -> Vec<String> {
    let to = after.facts().replicas;
    let moved = before.ordinals_start != after.ordinals_start;
    let what = change(before, after);
    let mut lines = vec![format!(
        "{what}, nobody would hold {}: only {} now",
        ranges(after, &lost.gaps, now),
        hold(&lost.holders)
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
                "then, when {status} says that it is safe: {} scale statefulset {} --replicas={to}",
                kubectl(after),
                after.facts().name
            ));
        }
    }
    lines
}

/// Another template, and a rolling update that takes all replicas of a shard together.
pub(super) fn replaced_at_once(after: &Known, all: &AllAtOnce) -> Vec<String> {
    let one = r#"'{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":1}}}}'"#;
    vec![
        all.sentence(after.facts()),
        format!(
            "first: {} patch statefulset {} --type=merge -p {one}",
            kubectl(after),
            after.facts().name
        ),
        escape(after),
    ]
}

/// Scaling down to the target before it is done.
pub(super) fn too_early(after: &Known) -> Vec<String> {
    vec![wait(after), escape(after)]
}

fn wait(after: &Known) -> String {
    let facts = after.facts();
    let paused = if annotations::paused(after) {
        format!("it is paused by {}: remove that, and ", names::PAUSE)
    } else {
        String::new()
    };
    format!(
        "the windows are on their way to {}: {paused}wait until `timeshard status {}/{}` says that scaling down is safe",
        counted(facts.replicas as usize, "pod"),
        facts.namespace,
        facts.name
    )
}

/// Pods that would come back without a window of ours.
pub(super) fn no_longer_injected(after: &Known, skip: &Skip) -> Vec<String> {
    let what = match skip {
        Skip::TimeFlags(_) => "pods of this template would no longer be given their windows",
        _ => "pods of this template would come back without a window, each with the whole bucket",
    };
    vec![format!("{what}: {skip}"), escape(after)]
}

fn escape(known: &Known) -> String {
    format!(
        "if it is meant: {}",
        annotate(known, &format!("{}=off", names::GUARD))
    )
}

fn annotate(known: &Known, annotation: &str) -> String {
    format!(
        "{} annotate --overwrite statefulset {} {annotation}",
        kubectl(known),
        known.facts().name
    )
}

fn kubectl(known: &Known) -> String {
    format!("kubectl -n {}", known.facts().namespace)
}

/// A deletion is never refused: whoever deletes means it.
pub(super) fn deletion(known: &Known, lost: &Removal<'_>, now: DateTime<Utc>) -> Vec<String> {
    let facts = known.facts();
    vec![
        format!(
            "its {} end, and no other pod of it holds {}",
            counted(facts.replicas as usize, "pod"),
            ranges(known, &lost.gaps, now)
        ),
        format!(
            "its pods stay with {} delete --cascade=orphan statefulset {}",
            kubectl(known),
            facts.name
        ),
    ]
}

/// Fewer pods than the plan wants, but some.
pub(super) fn thin(after: &Known, thin: Thin, now: DateTime<Utc>) -> Vec<String> {
    let holds = if thin.left == 1 { "holds" } else { "hold" };
    vec![
        format!(
            "until other pods have moved, {} {holds} {} where the plan wants {}",
            counted(thin.left as usize, "pod"),
            ranges(after, &[thin.range], now),
            thin.wanted
        ),
        format!(
            "to avoid that, before it: {}",
            annotate(
                after,
                &format!("{}={}", names::TARGET_REPLICAS, after.facts().replicas)
            )
        ),
    ]
}

/// Published windows may not be served yet.
pub(super) fn under_way(known: &Known) -> String {
    let facts = known.facts();
    format!(
        "a rollout is under way, so published windows may not be served yet: better wait until `timeshard status {}/{}` says settled",
        facts.namespace, facts.name
    )
}

/// A change of the pod template while windows move. The controller of an `OrderedReady` set waits for pods that are away.
pub(super) fn replaced_meanwhile(known: &Known) -> String {
    let facts = known.facts();
    format!(
        "a rollout is under way, and podManagementPolicy: Parallel has a pod replaced although its partner is away with another window: better wait until `timeshard status {}/{}` says settled",
        facts.namespace, facts.name
    )
}

/// Says that the controller deletes the next pod before queriers know the one before, if it does.
pub(super) fn replaced_quickly(known: &Known) -> Option<String> {
    let (facts, wanted) = (known.facts(), known.sharding.discovery_delay());
    let replaces = facts
        .partition
        .is_some_and(|partition| partition < facts.replicas)
        && facts.replicas > 1;
    (replaces && i64::from(facts.min_ready_seconds) < wanted.as_secs()).then(|| {
        format!(
            "a rolling update deletes the next pod as soon as one is Ready, and queriers behind a DNS cache find neither for up to 30 s: set spec.minReadySeconds to {} before it",
            wanted.as_secs()
        )
    })
}

/// What the rollout does: pods, restarts and steps; and where it leaves a gap or stops.
pub(super) fn steps(
    known: &Known,
    differences: &[Difference],
    (pods, restarts, steps): (usize, usize, usize),
    gap: Option<(String, Gap)>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((pod, gap)) = gap {
        let range = ranges(known, &[(gap.from, gap.to)], now);
        lines.push(if known.sharding.allow_coverage_gap() {
            format!("while {pod} restarts nobody holds {range}; allow_coverage_gap is true, so it is done all the same")
        } else {
            format!("the rollout will stop at {pod}, which alone holds {range}: scale up first, or accept that with allow_coverage_gap")
        });
    }
    if restarts > 0 {
        let each = (known.sharding.drain() + known.sharding.discovery_delay()).as_secs();
        let least =
            PromDuration::from_secs(each.saturating_mul(i64::try_from(steps).unwrap_or(i64::MAX)));
        let twice = if restarts > pods {
            format!(" ({restarts} restarts)")
        } else {
            String::new()
        };
        let verb = if pods == 1 { "restarts" } else { "restart" };
        lines.push(format!(
            "{}{} {verb} thanos in place{twice}, in {}, at least {least}{}",
            changed(differences),
            counted(pods, "pod"),
            counted(steps, "step"),
            pausing(known)
        ));
    }
    lines
}

/// The same for a rollout that is too large to go through.
pub(super) fn moves(known: &Known, differences: &[Difference], pods: usize) -> Option<String> {
    let get = if pods == 1 {
        "gets another window"
    } else {
        "get other windows"
    };
    (pods > 0).then(|| {
        format!(
            "{}{} {get}, a few at a time{}",
            changed(differences),
            counted(pods, "pod"),
            pausing(known)
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

fn pausing(known: &Known) -> String {
    if annotations::paused(known) {
        format!("; not before {} is removed", names::PAUSE)
    } else {
        String::new()
    }
}

fn hold(pods: &[&str]) -> String {
    let verb = if pods.len() == 1 { "does" } else { "do" };
    format!("{} {verb}", listed(pods))
}

fn listed(items: &[impl AsRef<str>]) -> String {
    let named: Vec<&str> = items.iter().take(NAMED).map(AsRef::as_ref).collect();
    let more = items.len().saturating_sub(NAMED);
    if more == 0 {
        named.join(", ")
    } else {
        format!("{} and {more} more", named.join(", "))
    }
}

/// As the windows of this StatefulSet are written: relative to now, or as times.
fn ranges(known: &Known, ranges: &[Range], now: DateTime<Utc>) -> String {
    let at = |instant: DateTime<Utc>| match known.sharding.window_format() {
        WindowFormat::Relative => Bound::Relative(PromDuration::from_millis(
            instant.signed_duration_since(now).num_milliseconds(),
        ))
        .to_string(),
        WindowFormat::Absolute => instant.to_rfc3339_opts(SecondsFormat::Secs, true),
    };
    let older = |instant: DateTime<Utc>| {
        // As in `older_end`: nothing but `retention: forever` asks for that time.
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

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
