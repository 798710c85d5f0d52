//! The guard: warns the user who changes a StatefulSet what the change does to its gateways, and
//! denies a change that would leave a part of the time without a pod.
//!
//! Invariants, property-tested in `guard/tests/properties.rs` by an independent check of the
//! windows. Mode `deny` denies a change after which
//! - the published windows of the remaining pods, or those of the *ready* remaining pods, leave a
//!   gap that was not there before;
//! - a changed template whose rolling update (`maxUnavailable`) replaces all replicas of a shard at
//!   once;
//! - a pod is gone that alone has loaded a block which a remaining pod should have, too.
//!
//! It never denies a scale-up or a valid annotation, nor anything without published windows, when
//! nothing is known. Scaling down to `target-replicas` waits until the removed pods are published
//! where they are not needed.
//!
//! Only the leader knows what pods have confirmed. The guard uses published windows, which pods are
//! ready (where this server watches them), and what the leader wrote about blocks that only one pod
//! has loaded. Both kinds of gap count: a moment without any ready pod does not make all pods
//! dispensable. Deliberately absent: calls to the cluster, Events (a validating webhook without
//! side effects writes nothing), other StatefulSets.

mod annotations;
mod messages;
mod pods;
mod preview;
mod removal;
mod view;

use chrono::{DateTime, Utc};

use super::notice::{MAX_WARNINGS_CHARS, warning};
use super::{Facts, Remark, Skip, eligible, inject};
use crate::core::config::{Config, GuardMode};
use crate::core::gateways::{AllAtOnce, all_at_once};
use crate::core::gateways::{Entries, Gateway};
use crate::core::model::text::counted;
use crate::core::model::window::Window;
use crate::core::pod::PodView;
use crate::core::rollout::planner::holders;
pub use messages::summary;
pub use pods::{PodCondition, PodSource, PodsSeen};
use preview::{members, out_of_place, required, steps};
use removal::{Going, Ordinals, Removal, removal};
pub use view::SetView;

/// A StatefulSet before or after the change.
#[derive(Clone, Copy, Debug)]
pub struct GuardedSet<'a> {
    pub gateway: &'a Gateway,
    /// The first pod, as the StatefulSet controller would create it; `None` where the request has
    /// only the number of pods.
    pub pod: Option<&'a PodView<'a>>,
    /// The pod template as written in the request.
    pub template: Option<&'a str>,
    /// Whether the controller replaces pods regardless of whether others are ready.
    pub parallel: bool,
}

/// Everything that decides about a change besides the request.
#[derive(Clone, Copy, Debug)]
pub struct GuardContext<'a> {
    pub config: &'a Config,
    /// The entries of the StatefulSet's pods; `None` while its ConfigMap is not known.
    pub published: Option<&'a Entries>,
    /// `None` while the pods are not known: only published windows count then.
    pub pods: Option<&'a PodsSeen>,
    pub now: DateTime<Utc>,
}

/// Why a change is denied, or would be in mode `deny`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// A part of the time, or a block, would be left without a pod that serves it.
    CoverageGap,
    /// By the published windows, pods to be removed are still needed: others may be about to take
    /// over.
    RolloutUnderWay,
    /// Pods would come back without a window from timeshard.
    NotInjected,
}

/// Metric labels, in the order of [`Concern::index`].
pub const CONCERN_LABELS: [&str; 3] = ["coverage_gap", "rollout_under_way", "not_injected"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardVerdict {
    pub concern: Option<Concern>,
    /// The reason and the safe way, a line each; only in mode `deny`.
    pub denial: Option<String>,
    /// Most important first, within the API server's limits.
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

/// Messages about a change, most important first.
#[derive(Default)]
struct Findings {
    concern: Option<Concern>,
    /// About the concern.
    against: Vec<String>,
    warnings: Vec<String>,
}

/// Classifies a change: a creation has nothing before it, a deletion nothing after it.
#[must_use]
pub fn classify(
    before: Option<&GuardedSet<'_>>,
    after: Option<&GuardedSet<'_>>,
    context: &GuardContext<'_>,
) -> GuardVerdict {
    let Some(set) = after.or(before) else {
        return GuardVerdict::default();
    };
    let mode = annotations::mode(set.gateway).unwrap_or(context.config.guard);
    if mode == GuardMode::Off {
        return GuardVerdict::default();
    }
    let mut findings = Findings::default();
    if set.gateway.opted_out() {
        opted_out(before, set, context, &mut findings);
        return findings.verdict(mode);
    }
    match (before, after) {
        (Some(before), Some(after)) => updated(before, after, context, &mut findings),
        (None, Some(after)) => created(after, context, &mut findings),
        (Some(before), None) => deleted(before, context, &mut findings),
        (None, None) => {}
    }
    findings.verdict(mode)
}

/// A sentence for each annotation that is wrong or has no effect, as far as that shows without a
/// pod.
#[must_use]
pub fn annotation_problems(gateway: &Gateway) -> Vec<String> {
    annotations::problems(gateway, None)
}

/// An opted-out StatefulSet is its user's; only the opt-out itself gets a sentence.
fn opted_out(
    before: Option<&GuardedSet<'_>>,
    set: &GuardedSet<'_>,
    context: &GuardContext<'_>,
    findings: &mut Findings,
) {
    let is_new = before.is_some_and(|before| !before.gateway.opted_out());
    let has_windows = context.published.is_some_and(|entries| !entries.is_empty());
    if is_new && has_windows {
        findings.warnings.push(messages::opted_out(set.gateway));
    }
}

fn created(set: &GuardedSet<'_>, context: &GuardContext<'_>, findings: &mut Findings) {
    match injection(set, context) {
        Ok(remarks) => {
            findings
                .warnings
                .extend(annotations::problems(set.gateway, set.pod));
            findings
                .warnings
                .extend(remarks.iter().map(ToString::to_string));
            findings.warnings.extend(
                set.gateway
                    .all_at_once()
                    .map(|all| all.sentence(set.gateway.facts())),
            );
            findings
                .warnings
                .extend(set.gateway.plan.notes().iter().map(ToString::to_string));
            findings
                .warnings
                .push(messages::summary(set.gateway, context.now));
        }
        Err(skip) if skip.surprises() => findings.warnings.push(messages::skipped(&skip)),
        Err(_) => {}
    }
}

fn deleted(set: &GuardedSet<'_>, context: &GuardContext<'_>, findings: &mut Findings) {
    let ordinals = Ordinals {
        before: ordinals(set.gateway),
        after: 0..0,
    };
    let gone = loss(set.gateway, None, &ordinals, context);
    if !gone.gaps.is_empty() {
        findings
            .warnings
            .extend(messages::deletion(set.gateway, &gone, context.now));
    }
}

fn updated(
    before: &GuardedSet<'_>,
    after: &GuardedSet<'_>,
    context: &GuardContext<'_>,
    findings: &mut Findings,
) {
    let (was_injected, now_injected) = (injection(before, context), injection(after, context));
    let ordinals = Ordinals {
        before: ordinals(before.gateway),
        after: ordinals(after.gateway),
    };
    let lost = loss(before.gateway, Some(after.gateway), &ordinals, context);
    let waiting = if ordinals.remove() {
        out_of_place(before.gateway, context.published, context.now)
    } else {
        Vec::new()
    };
    if lost.is_a_loss() {
        findings.against(
            Concern::CoverageGap,
            messages::loss(before.gateway, after.gateway, &lost, context.now),
        );
    } else if annotations::target(before.gateway)
        .is_some_and(|target| target <= after.gateway.facts().replicas)
        && waiting.iter().any(|ordinal| ordinals.removes(*ordinal))
    {
        findings.against(Concern::RolloutUnderWay, messages::too_early(after.gateway));
    }
    if let Some(all) = replaced_at_once(before, after, context) {
        findings.against(
            Concern::CoverageGap,
            messages::replaced_at_once(after.gateway, &all),
        );
    }
    let remarks = match (was_injected.as_ref(), now_injected) {
        (Ok(_), Err(skip)) => return no_longer_injected(before, after, &skip, context, findings),
        (Err(_), Err(skip)) => {
            findings.warnings.extend(
                Some(&skip)
                    .filter(|skip| skip.surprises())
                    .map(messages::skipped),
            );
            return;
        }
        (_, Ok(remarks)) => remarks,
    };
    if after.pod.is_none() && context.published.is_none() {
        // Probably not a gateway.
        return;
    }
    if let Some(thin) = lost.thin.filter(|_| lost.gaps.is_empty()) {
        findings
            .warnings
            .extend(messages::thin(after.gateway, thin, context.now));
    }
    if findings.concern.is_none() && !waiting.is_empty() {
        findings.warnings.push(messages::under_way(after.gateway));
    }
    replacement_warnings(before, after, context, findings);
    object_warnings(
        before,
        after,
        &remarks,
        was_injected.as_deref().ok(),
        findings,
    );
    let (before, after) = (before.gateway, after.gateway);
    if was_injected.is_err() || has_new_windows(before, after) {
        let summary = messages::summary(after, context.now);
        findings.warnings.push(summary);
    }
    if lost.gaps.is_empty() {
        let steps = steps(before, after, context.published, context.now);
        findings.warnings.extend(steps);
    }
}

/// Without pods the plan is a full one, so that the first pods get their windows.
fn has_new_windows(before: &Gateway, after: &Gateway) -> bool {
    let empty = |gateway: &Gateway| gateway.facts().replicas == 0;
    before.plan.shards() != after.plan.shards() || empty(before) != empty(after)
}

/// Warns if the controller will replace pods during a rollout, several at once, or too quickly.
fn replacement_warnings(
    before: &GuardedSet<'_>,
    after: &GuardedSet<'_>,
    context: &GuardContext<'_>,
    findings: &mut Findings,
) {
    let replaces = after.parallel && before.template != after.template;
    if replaces && !out_of_place(before.gateway, context.published, context.now).is_empty() {
        findings
            .warnings
            .push(messages::replaced_meanwhile(after.gateway));
    }
    let at_once = |gateway: &Gateway| {
        gateway
            .all_at_once()
            .map(|all| all.sentence(gateway.facts()))
    };
    findings.warnings.extend(
        at_once(after.gateway).filter(|warning| at_once(before.gateway).as_ref() != Some(warning)),
    );
    if before.template.is_some() && before.template != after.template {
        findings
            .warnings
            .extend(messages::replaced_quickly(after.gateway));
    }
}

/// Warns about new problems of the object itself: annotations, pod template, plan.
fn object_warnings(
    before: &GuardedSet<'_>,
    after: &GuardedSet<'_>,
    remarks: &[Remark],
    remarks_before: Option<&[Remark]>,
    findings: &mut Findings,
) {
    if after.pod.is_some() {
        findings
            .warnings
            .extend(annotations::problems(after.gateway, after.pod));
    }
    let earlier = remarks_before.unwrap_or_default();
    findings.warnings.extend(
        remarks
            .iter()
            .filter(|remark| !earlier.contains(remark))
            .map(ToString::to_string),
    );
    let notes = before.gateway.plan.notes();
    findings.warnings.extend(
        after
            .gateway
            .plan
            .notes()
            .iter()
            .filter(|note| !notes.contains(note))
            .map(ToString::to_string),
    );
}

/// The replicas of a shard that the controller will replace together for a changed template, if by
/// the published windows no other pod serves a part of the time meanwhile.
fn replaced_at_once(
    before: &GuardedSet<'_>,
    after: &GuardedSet<'_>,
    context: &GuardContext<'_>,
) -> Option<AllAtOnce> {
    context.published.filter(|entries| {
        !entries.is_empty() && after.template.is_some() && before.template != after.template
    })?;
    let members = members(after.gateway, context.published, context.now);
    let shard = |index: u32| {
        members
            .get(index as usize)
            .map_or(u32::MAX, |member| member.published.shard)
    };
    let all = all_at_once(after.gateway.facts(), shard).filter(|all| all.certain)?;
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
    holders([&now, &then], required(after.gateway), context.now)
        .iter()
        .any(|(_, [now, then])| *now > 0 && *then == 0)
        .then_some(all)
}

/// Denies the end of injection, except by an opt-out, which is deliberate.
fn no_longer_injected(
    before: &GuardedSet<'_>,
    after: &GuardedSet<'_>,
    skip: &Skip,
    context: &GuardContext<'_>,
    findings: &mut Findings,
) {
    let lines = messages::no_longer_injected(after.gateway, skip);
    let has_windows = before.gateway.facts().replicas > 0
        && context.published.is_some_and(|entries| !entries.is_empty());
    if has_windows && *skip != Skip::OptedOut {
        findings.against(Concern::NotInjected, lines);
    } else {
        findings.warnings.extend(lines);
    }
}

/// The remarks of admission on the pods; none where the request leaves them unchanged.
fn injection(set: &GuardedSet<'_>, context: &GuardContext<'_>) -> Result<Vec<Remark>, Skip> {
    let Some(pod) = set.pod else {
        return Ok(Vec::new());
    };
    let facts = Facts {
        config: context.config,
        gateway: set.gateway,
        published: None,
        namespace: &set.gateway.facts().namespace,
        now: context.now,
    };
    match inject(pod, &eligible(pod)?, &facts) {
        Ok(injection) => Ok(injection.remarks),
        Err(Skip::AlreadyInjected) => Ok(Vec::new()),
        Err(skip) => Err(skip),
    }
}

fn ordinals(gateway: &Gateway) -> std::ops::Range<u32> {
    let start = gateway.ordinals_start;
    start..start.saturating_add(gateway.facts().replicas)
}

/// The loss with the removed pods; none where nothing is published.
fn loss<'a>(
    before: &Gateway,
    after: Option<&Gateway>,
    ordinals: &Ordinals,
    context: &GuardContext<'a>,
) -> Removal<'a> {
    let Some(entries) = context.published else {
        return Removal::default();
    };
    let (plan, required) = (
        after.map(|gateway| &gateway.plan),
        required(after.unwrap_or(before)),
    );
    removal(
        &Going {
            set: &before.facts().name,
            ordinals,
            entries,
            pods: context.pods,
            now: context.now,
        },
        plan,
        required,
    )
}

impl Findings {
    fn against(&mut self, concern: Concern, sentences: Vec<String>) {
        self.concern.get_or_insert(concern);
        self.against.extend(sentences);
    }

    fn verdict(self, mode: GuardMode) -> GuardVerdict {
        if self.concern.is_some() && mode == GuardMode::Deny {
            // The change does not happen, so its other effects do not matter.
            return GuardVerdict {
                concern: self.concern,
                denial: Some(self.against.join("\n")),
                warnings: Vec::new(),
            };
        }
        let warnings = within_limits(self.against.into_iter().chain(self.warnings));
        GuardVerdict {
            concern: self.concern,
            denial: None,
            warnings,
        }
    }
}

/// Keeps as many lines as the API server passes on, and counts the others.
fn within_limits(sentences: impl Iterator<Item = String>) -> Vec<String> {
    /// Room for the line that counts the others. Characters.
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
        warnings.push(format!("and {}", counted(left_out, "more warning")));
    }
    warnings
}

#[cfg(test)]
mod tests;
