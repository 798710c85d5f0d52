//! How long a rollout takes, in the report.

use super::*;

#[test]
fn without_a_measured_load_the_time_is_unknown() {
    let mut world = settled(8, 31);
    assert_eq!(world.last.report.forecast, None);
    world.annotate("total-shards", "4");
    world.leader();
    let report = &world.last.report;
    let forecast = report.forecast.clone().unwrap();
    assert_eq!(
        (forecast.seconds, forecast.basis.as_str()),
        (None, "unknown, no pod has loaded yet")
    );
    let least = u64::from(report.steps_left) * forecast.step_seconds;
    assert!(report.eta_seconds >= least && least > 0, "{report:?}");
}

#[test]
fn a_rollout_is_forecast_from_the_loads_of_its_pods() {
    let mut world = World::new(CONFIG, 8, 31);
    world.loads_take_millis = Some(20_000);
    for age in (0..370).step_by(2) {
        world.upload(age, [], 0);
    }
    world.settle("start", |_| Ok(())).unwrap();
    for _ in 0..=DISCOVERY {
        world.second();
    }
    world.annotate("total-shards", "4");
    world.leader();
    let report = world.last.report.clone();
    let forecast = report.forecast.unwrap();
    let loads: Vec<u64> = report
        .steps
        .iter()
        .map(|step| step.load_seconds.unwrap())
        .collect();
    // A window of a quarter has fewer blocks than one of a third, and most of them are new.
    assert!(
        !loads.is_empty() && loads.iter().all(|load| (1..=20).contains(load)),
        "{loads:?}"
    );
    let sum: u64 = loads.iter().map(|load| load + forecast.step_seconds).sum();
    assert_eq!((forecast.seconds, report.eta_seconds), (Some(sum), sum));
    assert!(forecast.basis.starts_with("from the last loads of 8 pods"));
    // The last step is forecast, too, until every pod is confirmed.
    let mut last = 0;
    while world.last.report.state != RolloutState::Settled {
        world.second();
        let report = &world.last.report;
        if report.moves_left == 0 && report.steps_left == 0 {
            last += u32::from(
                report
                    .forecast
                    .as_ref()
                    .is_some_and(|f| f.seconds.is_some()),
            );
        }
    }
    assert!(last > 0);
    assert_eq!(world.last.report.forecast, None);
}
