//! The guard: what a change of a StatefulSet does to its gateways, told to the person who makes it, and refused where a part
//! of the time would be left without a pod.
//!
//! Invariants, property-tested in `guard/tests/properties.rs` by an independent check of the windows:
//! - in mode `deny` no change passes after which the published windows of the pods that stay leave a gap that was not there,
//!   nor one after which the *ready* pods that stay leave a gap that the ready pods before did not have;
//! - nor another template whose rolling update (`maxUnavailable`) replaces all replicas of a shard at once;
//! - nor one that removes a pod which alone has loaded a block, while a pod that stays should have it, too;
//! - a change that leaves none is not refused for that, a scale-up or a valid annotation never; only scaling down to
//!   `target-replicas` waits until the pods that go are published where they are not needed;
//! - without published windows nothing is refused: then nothing is known.
//!
//! What pods have confirmed only the leader knows: what counts here is published windows, which pods are ready (where this
//! server watches them), and what the leader wrote of blocks that one pod alone has loaded. Both kinds of gap count, so a
//! moment in which no pod is ready does not make all of them dispensable. Deliberately absent: the
//! cluster, Events (a validating webhook without side effects writes nothing), and a look at other StatefulSets.

mod annotations;
mod pods;
mod preview;
mod removal;
#[cfg(test)]
mod tests;
mod view;
mod words;

use chrono::{DateTime, Utc};

use super::config::{Config, GuardMode};
use super::fleet::{Entries, Known};
use super::max_unavailable::{AllAtOnce, all_at_once};
use super::mutation::{Facts, Remark, Skip, eligible, inject};
use super::notice::{MAX_WARNINGS_CHARS, warning};
use super::pod::PodView;
use super::rollout::holders;
use super::window::Window;
pub use pods::{PodCondition, PodSource, PodsSeen};
use preview::{members, out_of_place, required, steps};
use removal::{Going, Ordinals, Removal, removal};
pub use view::SetView;
pub use words::summary;

/// A StatefulSet before or after the change.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Its sharding, plan and facts.
    pub known: &'a Known,
    /// Its first pod, as its controller would make it; `None` where the request only has the number of pods.
    pub pod: Option<&'a PodView<'a>>,
    /// Its pod template as it stands in the request, where it has one.
    pub template: Option<&'a str>,
    /// Whether its controller replaces pods without looking at whether others are ready.
    pub parallel: bool,
}

/// What is known beside the request.
#[derive(Clone, Copy, Debug)]
pub struct Facing<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// What is published for the StatefulSet's pods; `None` while its ConfigMap is not known.
    pub published: Option<&'a Entries>,
    /// How its pods are; `None` while that is not known: then published windows alone count.
    pub pods: Option<&'a PodsSeen>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// Why a change is refused, or would be in mode `deny`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// A part of the time, or a block, would be left without a pod that serves it.
    CoverageGap,
    /// Pods that shall go are still needed, as far as is published: others may be on their way to take over.
    RolloutUnderWay,
    /// Pods would come back without a window of ours.
    NotInjected,
}

/// Every concern's label, for metrics.
pub const CONCERN_LABELS: [&str; 3] = ["coverage_gap", "rollout_under_way", "not_injected"];

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What stands against the change, if anything does.
    pub concern: Option<Concern>,
    /// Why it is refused and what is safe, a line each; only in mode `deny`.
    pub denial: Option<String>,
    /// What else its user should know, most important first, within the API server's limits.
    pub warnings: Vec<String>,
}

impl Concern {
    /// Position in [`CONCERN_LABELS`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::CoverageGap => 0,
            Self::RolloutUnderWay => 1,
            Self::NotInjected => 2,
        }
    }
}

/// What is to be said, in the order in which it matters.
#[derive(Default)]
struct Said {
    concern: Option<Concern>,
    /// Sentences that belong to the concern.
    against: Vec<String>,
    warnings: Vec<String>,
}

/// Judges a change: a creation has nothing before it, a deletion nothing after it.
#[must_use]
pub fn judge(before: Option<&Set<'_>>, after: Option<&Set<'_>>, facing: &Facing<'_>) -> Verdict {
    let Some(set) = after.or(before) else {
        return Verdict::default();
    };
    let mode = annotations::mode(set.known).unwrap_or(facing.config.guard);
    if mode == GuardMode::Off {
        return Verdict::default();
    }
    let mut said = Said::default();
    match (before, after) {
        (Some(before), Some(after)) => updated(before, after, facing, &mut said),
        (None, Some(after)) => created(after, facing, &mut said),
        (Some(before), None) => deleted(before, facing, &mut said),
        (None, None) => {}
    }
    said.verdict(mode)
}

/// A sentence for each annotation that is wrong or does nothing, as far as that shows without a pod.
#[must_use]
pub fn annotation_problems(known: &Known) -> Vec<String> {
    annotations::problems(known, None)
}

fn created(set: &Set<'_>, facing: &Facing<'_>, said: &mut Said) {
    match injection(set, facing) {
        Ok(remarks) => {
            said.warnings
                .extend(annotations::problems(set.known, set.pod));
            said.warnings
                .extend(remarks.iter().map(ToString::to_string));
            said.warnings.extend(
                set.known
                    .all_at_once()
                    .map(|all| all.sentence(set.known.facts())),
            );
            said.warnings
                .extend(set.known.plan.notes().iter().map(ToString::to_string));
            said.warnings.push(words::summary(set.known, facing.now));
        }
        Err(skip) if skip.surprises() => said.warnings.push(words::left_alone(&skip)),
        Err(_) => {}
    }
}

fn deleted(set: &Set<'_>, facing: &Facing<'_>, said: &mut Said) {
    let ordinals = Ordinals {
        before: ordinals(set.known),
        after: 0..0,
    };
    let gone = loss(set.known, None, &ordinals, facing);
    if !gone.gaps.is_empty() {
        said.warnings
            .extend(words::deletion(set.known, &gone, facing.now));
    }
}

fn updated(before: &Set<'_>, after: &Set<'_>, facing: &Facing<'_>, said: &mut Said) {
    let (was_injected, now_injected) = (injection(before, facing), injection(after, facing));
    let ordinals = Ordinals {
        before: ordinals(before.known),
        after: ordinals(after.known),
    };
    let lost = loss(before.known, Some(after.known), &ordinals, facing);
    let waiting = if ordinals.remove() {
        out_of_place(before.known, facing.published, facing.now)
    } else {
        Vec::new()
    };
    if lost.is_a_loss() {
        said.against(
            Concern::CoverageGap,
            words::loss(before.known, after.known, &lost, facing.now),
        );
    } else if annotations::target(before.known)
        .is_some_and(|target| target <= after.known.facts().replicas)
        && waiting.iter().any(|ordinal| ordinals.removes(*ordinal))
    {
        said.against(Concern::RolloutUnderWay, words::too_early(after.known));
    }
    if let Some(all) = replaced_at_once(before, after, facing) {
        said.against(
            Concern::CoverageGap,
            words::replaced_at_once(after.known, &all),
        );
    }
    let remarks = match (was_injected.as_ref(), now_injected) {
        (Ok(_), Err(skip)) => return no_longer_injected(before, after, &skip, facing, said),
        (Err(_), Err(skip)) => {
            said.warnings.extend(
                Some(&skip)
                    .filter(|skip| skip.surprises())
                    .map(words::left_alone),
            );
            return;
        }
        (_, Ok(remarks)) => remarks,
    };
    if after.pod.is_none() && facing.published.is_none() {
        // Not a gateway of ours, as far as can be seen.
        return;
    }
    if let Some(thin) = lost.thin.filter(|_| lost.gaps.is_empty()) {
        said.warnings
            .extend(words::thin(after.known, thin, facing.now));
    }
    if said.concern.is_none() && !waiting.is_empty() {
        said.warnings.push(words::under_way(after.known));
    }
    replacement_warnings(before, after, facing, said);
    object_warnings(before, after, &remarks, was_injected.as_deref().ok(), said);
    // Without pods the plan is that of all pods, so that the first ones find their windows.
    let empty = |set: &Set<'_>| set.known.facts().replicas == 0;
    if before.known.plan.shards() != after.known.plan.shards()
        || empty(before) != empty(after)
        || was_injected.is_err()
    {
        said.warnings.push(words::summary(after.known, facing.now));
    }
    if lost.gaps.is_empty() {
        said.warnings.extend(steps(
            before.known,
            after.known,
            facing.published,
            facing.now,
        ));
    }
}

/// Warns about how the controller will replace the pods: during a rollout, several at once, or quickly.
fn replacement_warnings(before: &Set<'_>, after: &Set<'_>, facing: &Facing<'_>, said: &mut Said) {
    let replaces = after.parallel && before.template != after.template;
    if replaces && !out_of_place(before.known, facing.published, facing.now).is_empty() {
        said.warnings.push(words::replaced_meanwhile(after.known));
    }
    let at_once = |known: &Known| known.all_at_once().map(|all| all.sentence(known.facts()));
    said.warnings
        .extend(at_once(after.known).filter(|said| at_once(before.known).as_ref() != Some(said)));
    if before.template.is_some() && before.template != after.template {
        said.warnings.extend(words::replaced_quickly(after.known));
    }
}

/// Warns about what is wrong with the object itself and was not so before: annotations, pod template, plan.
fn object_warnings(
    before: &Set<'_>,
    after: &Set<'_>,
    remarks: &[Remark],
    remarks_before: Option<&[Remark]>,
    said: &mut Said,
) {
    if after.pod.is_some() {
        said.warnings
            .extend(annotations::problems(after.known, after.pod));
    }
    let known = remarks_before.unwrap_or_default();
    said.warnings.extend(
        remarks
            .iter()
            .filter(|remark| !known.contains(remark))
            .map(ToString::to_string),
    );
    let notes = before.known.plan.notes();
    said.warnings.extend(
        after
            .known
            .plan
            .notes()
            .iter()
            .filter(|note| !notes.contains(note))
            .map(ToString::to_string),
    );
}

/// The replicas of a shard that another template has its controller replace together, where by what is published no other pod
/// serves a part of the time then.
fn replaced_at_once(before: &Set<'_>, after: &Set<'_>, facing: &Facing<'_>) -> Option<AllAtOnce> {
    facing.published.filter(|entries| {
        !entries.is_empty() && after.template.is_some() && before.template != after.template
    })?;
    let members = members(after.known, facing.published, facing.now);
    let shard = |index: u32| {
        members
            .get(index as usize)
            .map_or(u32::MAX, |member| member.published.shard)
    };
    let all = all_at_once(after.known.facts(), shard).filter(|all| all.certain)?;
    let windows = |which: &dyn Fn(u32) -> bool| -> Vec<Window> {
        (0..)
            .zip(&members)
            .filter(|(index, _)| which(*index))
            .map(|(_, member)| member.published.window)
            .collect()
    };
    let (now, then) = (
        windows(&|_| true),
        windows(&|index| all.pods.binary_search(&index).is_err()),
    );
    holders([&now, &then], required(after.known), facing.now)
        .iter()
        .any(|(_, [now, then])| *now > 0 && *then == 0)
        .then_some(all)
}

/// Whether it is refused depends on whether its user names us: an opt-out is meant.
fn no_longer_injected(
    before: &Set<'_>,
    after: &Set<'_>,
    skip: &Skip,
    facing: &Facing<'_>,
    said: &mut Said,
) {
    let lines = words::no_longer_injected(after.known, skip);
    let has_windows = before.known.facts().replicas > 0
        && facing.published.is_some_and(|entries| !entries.is_empty());
    if has_windows && *skip != Skip::OptedOut {
        said.against(Concern::NotInjected, lines);
    } else {
        said.warnings.extend(lines);
    }
}

/// What admission would make of its pods. Where the request has none, they are as they were.
fn injection(set: &Set<'_>, facing: &Facing<'_>) -> Result<Vec<Remark>, Skip> {
    let Some(pod) = set.pod else {
        return Ok(Vec::new());
    };
    let facts = Facts::of(
        set.known,
        facing.config,
        &set.known.facts().namespace,
        facing.now,
    );
    match inject(pod, &eligible(pod)?, &facts) {
        Ok(injection) => Ok(injection.remarks),
        Err(Skip::AlreadyInjected) => Ok(Vec::new()),
        Err(skip) => Err(skip),
    }
}

fn ordinals(known: &Known) -> std::ops::Range<u32> {
    known.ordinals_start..known.ordinals_start.saturating_add(known.facts().replicas)
}

/// What goes with the pods that go; nothing where nothing is published.
fn loss<'a>(
    before: &Known,
    after: Option<&Known>,
    ordinals: &Ordinals,
    facing: &Facing<'a>,
) -> Removal<'a> {
    let Some(entries) = facing.published else {
        return Removal::default();
    };
    let (plan, required) = (
        after.map(|known| &known.plan),
        required(after.unwrap_or(before)),
    );
    removal(
        &Going {
            set: &before.facts().name,
            ordinals,
            entries,
            pods: facing.pods,
            now: facing.now,
        },
        plan,
        required,
    )
}

impl Said {
    fn against(&mut self, concern: Concern, sentences: Vec<String>) {
        self.concern.get_or_insert(concern);
        self.against.extend(sentences);
    }

    fn verdict(self, mode: GuardMode) -> Verdict {
        if self.concern.is_some() && mode == GuardMode::Deny {
            // What else would come of it need not be known: it does not happen.
            return Verdict {
                concern: self.concern,
                denial: Some(self.against.join("\n")),
                warnings: Vec::new(),
            };
        }
        let warnings = within_limits(self.against.into_iter().chain(self.warnings));
        Verdict {
            concern: self.concern,
            denial: None,
            warnings,
        }
    }
}

/// As many as the API server passes on; it is said how many are missing.
fn within_limits(sentences: impl Iterator<Item = String>) -> Vec<String> {
    /// Room for the sentence about those that are missing. Characters.
    const REST: usize = 40;
    let lines = sentences.flat_map(|sentence| {
        sentence
            .lines()
            .map(|line| warning(line.trim().to_owned()))
            .collect::<Vec<_>>()
    });
    let (mut warnings, mut used, mut left_out) = (Vec::new(), 0, 0);
    for line in lines {
        let chars = line.chars().count();
        if left_out > 0 || used + chars + REST > MAX_WARNINGS_CHARS {
            left_out += 1;
        } else if !warnings.contains(&line) {
            used += chars;
            warnings.push(line);
        }
    }
    if left_out > 0 {
        warnings.push(format!("and {left_out} more warnings"));
    }
    warnings
}
