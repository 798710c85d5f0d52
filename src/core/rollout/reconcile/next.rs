//! What the rollout does now: nothing, wait, or the planner's next step.

use std::collections::BTreeSet;

use super::context::{self, Context, Expected};
use super::{Decision, TakenBack, View, classify, entries, forecast, messages, orders};
use crate::core::agent::status::Phase;
use crate::core::model::entry;
use crate::core::model::names;
use crate::core::model::window::Window;
use crate::core::rollout::planner::{self, Gap, Step, WindowChange};
use crate::core::rollout::report::{PodState, RolloutState};

/// Decides on the next step. Returns the rollout's state and the message for the user.
pub(super) fn next(context: &Context<'_>, decision: &mut Decision) -> (RolloutState, String) {
    let pods = &context.pods;
    let mut moving: Vec<usize> = (0..pods.len()).filter(|i| pods[*i].class.in_step).collect();
    if let Some(pod) = pods.iter().find(|pod| pod.entry.is_none()) {
        // The window that it runs is unknown, so no step can be shown to be safe.
        decision.closed = closed(context, &moving);
        return wait_for(context.view, &[pod]);
    }
    let step = planner::next_step(&context.members, &context.missing.binding, &context.terms);
    let answer = match step {
        Step::Done => match messages::without_injection(context) {
            Some(why) => (RolloutState::Waiting, why),
            None => (RolloutState::Settled, messages::settled(context)),
        },
        Step::Wait(on) => {
            let pods: Vec<_> = on.iter().map(|member| context.pod(*member)).collect();
            let (state, mut message) = wait_for(context.view, &pods);
            if state == RolloutState::Rolling && open(context) && paused(context.view) {
                message.push_str(messages::PAUSES_NEXT);
            }
            (state, message)
        }
        Step::Blocked(gap) => (
            RolloutState::Blocked,
            messages::blocked(&context.pod(gap.member).name, &gap),
        ),
        Step::Held(held) => (RolloutState::Waiting, context.missing.held(&held, context)),
        Step::Move { changes, gap } => {
            start(context, &changes, gap.as_ref(), &mut moving, decision)
        }
    };
    decision.closed = closed(context, &moving);
    if context.view.gateway.split_unknown {
        (
            RolloutState::Refused,
            messages::split_unknown(context.view.gateway),
        )
    } else {
        answer
    }
}

/// Whether answers are needed: some pod of a step drains or comes back, or the next step waits for a
/// pod. While pods load, perhaps for hours, no querier is asked.
pub(super) fn needs_queriers(context: &Context<'_>) -> bool {
    let open = open(context);
    context.pods.iter().any(|pod| {
        let loads = pod
            .status()
            .is_none_or(|status| status.phase == Phase::Restarting);
        let joins = pod.class.state == PodState::Joining;
        (pod.class.in_step && !loads) || (open && joins)
    })
}

/// Whether a step is left to take.
fn open(context: &Context<'_>) -> bool {
    let mut members = context.members.iter();
    members.any(|member| member.published != member.desired)
}

fn paused(view: &View<'_>) -> bool {
    let annotations = &view.gateway.facts().annotations;
    annotations
        .get(names::PAUSE)
        .is_some_and(|value| value == "true")
}

fn wait_for(view: &View<'_>, pods: &[&Expected<'_>]) -> (RolloutState, String) {
    let rolling = pods.iter().all(|pod| pod.class.on_its_way);
    let state = if rolling {
        RolloutState::Rolling
    } else {
        RolloutState::Waiting
    };
    (state, messages::waits_for(view, pods))
}

/// Takes the step unless something outside the plan forbids it. Adds the pods that restart to
/// `moving`.
fn start(
    context: &Context<'_>,
    changes: &[WindowChange],
    gap: Option<&Gap>,
    moving: &mut Vec<usize>,
    decision: &mut Decision,
) -> (RolloutState, String) {
    let (view, members) = (context.view, &context.members);
    let repair = changes.iter().all(|change| {
        members[change.member]
            .state
            .loses_nothing_by(change.to.window)
    });
    if paused(view) {
        return (RolloutState::Paused, messages::paused());
    }
    if !repair && let Some(why) = classify::updating(context).or_else(|| context.missing.too_many())
    {
        return (RolloutState::Waiting, why);
    }
    if !repair && let Some(querier) = context.queriers.unanswered() {
        decision.ask_queriers = true;
        return (RolloutState::Rolling, messages::asks(querier));
    }
    if !repair && let Some(wait) = view.taken_back.and_then(TakenBack::pause_left) {
        return (RolloutState::Waiting, messages::taken_back(view, wait));
    }
    decision.ask_queriers = true;
    let drain = orders::supervised_drain(view, &context.queriers);
    let generation = entries::next_generation(view);
    let mut data = context::data(&context.pods, &context.leaving);
    for change in changes {
        let pod = context.pod(change.member);
        let moved = orders::moved(view, pod, change.to, generation, drain);
        data.insert(entry::key(&pod.name), moved.to_yaml());
    }
    let restarts: Vec<usize> = changes
        .iter()
        .filter(|change| change.to.window != members[change.member].published.window)
        .map(|change| context.at[change.member])
        .collect();
    let names: Vec<String> = restarts
        .iter()
        .map(|i| context.pods[*i].name.clone())
        .collect();
    let to = changes
        .iter()
        .find(|change| restarts.contains(&context.at[change.member]));
    let first = forecast::canary(context, &restarts, to.map(|change| change.to.window));
    let message = messages::moves(&names, gap, first.map(messages::goes_first));
    moving.extend(restarts);
    decision.step = Some((data, names));
    decision.repair = repair;
    (RolloutState::Rolling, message)
}

/// Shards with a pod that serves a part of what a moving pod serves, or that alone serves a part of
/// which the plan wants two: they must stay meanwhile.
fn closed(context: &Context<'_>, moving: &[usize]) -> BTreeSet<u32> {
    let (pods, now) = (&context.pods, context.view.now);
    let alone = planner::left_alone(&context.members, &context.terms);
    let alone = alone.into_iter().map(|i| &context.members[i]);
    let alone = alone.map(|member| member.published.shard);
    let windows: Vec<Window> = moving
        .iter()
        .filter_map(|i| Some(pods[*i].entry?.window))
        .collect();
    let touches =
        |a: &Window, b: &Window| a.min.at(now) <= b.max.at(now) && b.min.at(now) <= a.max.at(now);
    pods.iter()
        .filter_map(|pod| pod.entry)
        .filter(|entry| windows.iter().any(|window| touches(window, &entry.window)))
        .map(|entry| entry.shard)
        .chain(alone)
        .collect()
}
