//! The forecast of a rollout: what its pods report, passed to [`crate::core::rollout::forecast`].

use super::View;
use super::context::{Context, Expected};
use crate::core::agent::status::Phase;
use crate::core::model::window::Window;
use crate::core::rollout::forecast::{self, Forecast, PodLoad, STEP_OVERHEAD, Sizes, Untried};
use crate::core::rollout::report::{ForecastReport, PodState, SetReport};

/// A member's move from one window to another.
pub(super) type Move = (usize, Window, Window);

/// Fills in the loads of the steps and the forecast, except for what [`History`] remembers.
///
/// [`History`]: crate::core::rollout::history::History
pub(super) fn fill(context: &Context<'_>, steps: &[Vec<Move>], report: &mut SetReport) {
    let running = running(context);
    if report.moves_left == 0 && running.is_empty() {
        return;
    }
    let forecast = Forecast::new(&loads(&context.pods), context.view.now);
    for (step, moves) in report.steps.iter_mut().zip(steps) {
        let loads = moves.iter().filter(|(_, from, to)| from != to);
        step.load_seconds = longest(loads.map(|(member, from, to)| {
            let last = context
                .pod(*member)
                .status()
                .and_then(|status| status.last_load);
            forecast.load_seconds(last, Some(*from), *to)
        }));
    }
    let sharding = &context.view.gateway.sharding;
    let secs = |duration: crate::core::model::duration::PromDuration| {
        u64::try_from(duration.as_secs()).unwrap_or(0)
    };
    let (drain, delay) = (secs(sharding.drain()), secs(sharding.discovery_delay()));
    let wait = |pod: &&Expected<'_>| match (pod.class.joins_in, pod.status()) {
        (Some(left), _) => left.as_secs(),
        (None, Some(status)) if matches!(status.phase, Phase::Restarting | Phase::Starting) => {
            delay
        }
        (None, _) => drain + delay,
    };
    report.forecast = Some(ForecastReport {
        step_seconds: drain + delay + secs(STEP_OVERHEAD),
        waits_can_end_early: sharding.queriers_complete(),
        running_wait_seconds: running.iter().map(wait).max(),
        running_load_seconds: longest(running.iter().map(|pod| running_load(pod, &forecast))),
        basis: forecast.basis(),
        ..ForecastReport::default()
    });
    forecast::add_up(report, None);
}

/// For each pod whose window changes, or is being loaded, why the planned one is larger than any that
/// the set has loaded: it goes to one pod first.
pub(super) fn untried(view: &View<'_>, pods: &[Expected<'_>]) -> Vec<Option<Untried>> {
    let moves = |pod: &Expected<'_>| {
        let published = pod.entry.map(|entry| entry.window);
        pod.class.in_step || published.is_some_and(|published| published != pod.desired.window)
    };
    if !view.gateway.sharding.canary() || !pods.iter().any(moves) {
        return vec![None; pods.len()];
    }
    let sizes = Sizes::new(&loads(pods), view.now);
    let untried = |pod: &Expected<'_>| {
        Some(pod.desired.window)
            .filter(|_| moves(pod))
            .and_then(|window| sizes.untried(window))
    };
    pods.iter().map(untried).collect()
}

/// Returns the pod that goes first, and why, if `moving` is such a pod alone.
pub(super) fn canary<'a>(
    context: &'a Context<'_>,
    moving: &[usize],
    to: Option<Window>,
) -> Option<(&'a str, Untried)> {
    let [pod] = moving else { return None };
    let (pod, why) = (context.pods.get(*pod)?, (*context.untried.get(*pod)?)?);
    (to == Some(pod.desired.window)).then_some((pod.name.as_str(), why))
}

/// What the pods of the set report, for estimates.
fn loads(pods: &[Expected<'_>]) -> Vec<PodLoad> {
    let pods = pods.iter().filter_map(Expected::status);
    pods.map(|status| {
        let blocks = status.blocks.as_ref();
        PodLoad {
            applied: status.applied,
            blocks: blocks.map(|blocks| blocks.loaded),
            older: blocks.and_then(|blocks| Some(blocks.bucket?.older)),
            last_load: status.last_load,
        }
    })
    .collect()
}

/// Pods on their way to a window that was published for them.
fn running<'a>(context: &'a Context<'_>) -> Vec<&'a Expected<'a>> {
    context.pods.iter().filter(|pod| runs(pod)).collect()
}

fn runs(pod: &Expected<'_>) -> bool {
    pod.class.in_step
        && matches!(pod.class.state, PodState::Settling | PodState::Joining)
        && pod.class.on_its_way
}

/// Returns the pod that loads an untried window now, and why it went first.
pub(super) fn running_canary<'a>(context: &'a Context<'_>) -> Option<(&'a str, Untried)> {
    let pods = context.pods.iter().enumerate();
    let running: Vec<usize> = pods.filter(|(_, pod)| runs(pod)).map(|(i, _)| i).collect();
    let entry = context.pods.get(*running.first()?)?.entry;
    canary(context, &running, entry.map(|entry| entry.window))
}

/// A pod that is ready has loaded.
fn running_load(pod: &Expected<'_>, forecast: &Forecast) -> Option<u64> {
    if pod.class.state == PodState::Joining {
        return Some(0);
    }
    let window: Window = pod.entry?.window;
    let last = pod.status().and_then(|status| status.last_load);
    forecast.load_seconds(last, last.map(|load| load.window), window)
}

/// The longest, if all are known.
fn longest(mut loads: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    loads.try_fold(0, |longest: u64, load| Some(longest.max(load?)))
}
