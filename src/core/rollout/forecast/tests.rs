//! Forecasts from measured loads.

use proptest::prelude::*;

use super::*;
use crate::core::model::window::Bound;

fn window(oldest: i64, newest: i64) -> Window {
    let bound = |days: i64| Bound::Relative(PromDuration::from_days(-days));
    Window {
        min: bound(oldest),
        max: bound(newest),
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_651_200, 0).unwrap()
}

/// A pod with 10 blocks a day.
fn pod(of: Window, millis: u64, blocks: u64, new: u64) -> PodLoad {
    PodLoad {
        applied: Some(of),
        blocks: Some(blocks),
        older: None,
        last_load: Some(LastLoad {
            window: of,
            millis,
            blocks: Some(blocks),
            blocks_new: Some(new),
        }),
    }
}

/// 20 ms for a downloaded block, 4 ms for one on the disk.
fn measured() -> Vec<PodLoad> {
    vec![
        pod(window(100, 0), 20_000, 1000, 1000),
        pod(window(200, 100), 4_000, 1000, 0),
        pod(window(300, 200), 12_000, 1000, 500),
    ]
}

#[test]
fn a_load_is_estimated_by_blocks() {
    let forecast = Forecast::new(&measured(), now());
    let load = |from, to| forecast.load_seconds(None, from, to);
    assert_eq!(load(Some(window(100, 0)), window(100, 0)), Some(4));
    assert_eq!(load(Some(window(100, 0)), window(200, 100)), Some(20));
    assert_eq!(load(Some(window(100, 0)), window(150, 50)), Some(12));
    assert_eq!(load(Some(window(100, 0)), window(200, 0)), Some(24));
    assert_eq!(load(None, window(50, 0)), Some(10));
    assert_eq!(
        forecast.basis(),
        "from the last loads of 3 pods: 20 s for 1,000 blocks downloaded, 4.0 s for 1,000 on the disk"
    );
}

#[test]
fn what_was_not_measured_is_the_last_load_or_unknown() {
    let unknown = Forecast::new(&[PodLoad::default()], now());
    assert_eq!(unknown.load_seconds(None, None, window(1, 0)), None);
    assert_eq!(unknown.basis(), "unknown, no pod has loaded yet");
    let mut without_counts = measured();
    for pod in &mut without_counts {
        pod.blocks = None;
        if let Some(load) = &mut pod.last_load {
            (load.blocks, load.blocks_new) = (None, None);
        }
    }
    let forecast = Forecast::new(&without_counts, now());
    let own = without_counts[1].last_load;
    assert_eq!(forecast.load_seconds(own, None, window(400, 0)), Some(4));
    assert_eq!(forecast.load_seconds(None, None, window(1, 0)), Some(20));
    assert!(
        forecast
            .basis()
            .starts_with("as long as the last loads of 3 pods")
    );
    // Nothing was downloaded, so a download is as long as the last load.
    let forecast = Forecast::new(&measured()[1..2], now());
    let own = measured()[1].last_load;
    let load = |to| forecast.load_seconds(own, Some(window(200, 100)), to);
    assert_eq!(load(window(150, 100)), Some(2));
    assert_eq!(load(window(100, 0)), Some(4));
    assert!(forecast.basis().contains("no pod has downloaded many"));
}

fn report(steps: &[Option<u64>], left: u32) -> SetReport {
    SetReport {
        steps_left: left,
        steps: steps
            .iter()
            .map(|load_seconds| StepReport {
                load_seconds: *load_seconds,
                ..StepReport::default()
            })
            .collect(),
        forecast: Some(ForecastReport {
            step_seconds: 124,
            ..ForecastReport::default()
        }),
        ..SetReport::default()
    }
}

fn added(mut report: SetReport, wait: Option<u64>) -> (Option<u64>, u64, bool) {
    add_up(&mut report, wait);
    let forecast = report.forecast.unwrap();
    (forecast.seconds, report.eta_seconds, forecast.step_measured)
}

#[test]
fn steps_add_up() {
    let two = || report(&[Some(20), Some(4)], 2);
    assert_eq!(added(two(), None), (Some(272), 272, false));
    // More steps than listed.
    assert_eq!(added(report(&[Some(20)], 3), None).0, Some(3 * 144));
    // Unknown loads leave the waits.
    assert_eq!(
        added(report(&[Some(20), None], 2), None),
        (None, 248, false)
    );
    assert_eq!(added(report(&[], 2), None), (None, 248, false));
    // Queriers end the waits early only where the user says so.
    assert_eq!(added(two(), Some(30)).0, Some(272));
    let mut early = two();
    early.forecast.as_mut().unwrap().waits_can_end_early = true;
    assert_eq!(added(early.clone(), Some(30)), (Some(84), 84, true));
    assert_eq!(added(early.clone(), Some(300)), (Some(272), 272, false));
    let forecast = early.forecast.as_mut().unwrap();
    (forecast.running_wait_seconds, forecast.running_load_seconds) = (Some(60), Some(9));
    assert_eq!(added(early.clone(), Some(30)).0, Some(84 + 39));
    early.forecast.as_mut().unwrap().running_load_seconds = None;
    assert_eq!(added(early, Some(30)), (None, 90, true));
    let mut none = report(&[], 0);
    none.forecast = None;
    add_up(&mut none, None);
    assert_eq!(none.eta_seconds, 0);
}

proptest! {
    /// Whatever rates the object store has, the forecast of a move of the same kind is their sum.
    #[test]
    fn rates_are_found_again(new in 1_u32..1000, present in 0_u32..1000, shared in 0_i64..=100) {
        let (new, present) = (f64::from(new), f64::from(present));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        let whole = |millis: f64| millis as u64;
        let pods = [
            pod(window(100, 0), whole(new * 1000.0), 1000, 1000),
            pod(window(200, 100), whole(present * 1000.0), 1000, 0),
        ];
        let forecast = Forecast::new(&pods, now());
        let to = window(200 - shared, 100 - shared);
        let load = forecast.load_seconds(None, Some(window(100, 0)), to).unwrap();
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let shared = shared as f64;
        let millis = 10.0 * (shared * present + (100.0 - shared) * new);
        // At most 1 in 20 blocks new counts as none, for the rates only.
        prop_assert!((number(load) * 1000.0 - millis).abs() <= 1_001.0, "{} {}", load, millis);
    }
}
