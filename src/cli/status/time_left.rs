//! How much time a rollout needs, as the leader forecasts it.

use crate::core::model::text::counted;
use crate::core::rollout::report::{ForecastReport, SetReport};

/// The steps that are left and their time.
pub(super) fn left(set: &SetReport) -> String {
    let steps = format!(
        "{} in {} left",
        counted(set.moves_left, "move"),
        counted(set.steps_left, "step")
    );
    match (set.steps_left == 0 && set.moves_left == 0, &set.forecast) {
        (true, None) => "nothing left to do".to_owned(),
        (true, Some(_)) => format!("the last step runs, {}", time(set)),
        (false, _) => format!("{steps}, {}", time(set)),
    }
}

/// Without a forecast, the leader's estimate is a lower bound.
fn time(set: &SetReport) -> String {
    let forecast = set.forecast.as_ref().and_then(|forecast| forecast.seconds);
    match forecast {
        Some(seconds) => format!("about {}", rounded(seconds)),
        None => format!("at least {}", rounded(set.eta_seconds)),
    }
}

fn rounded(seconds: u64) -> String {
    match seconds {
        0..60 => "a minute".to_owned(),
        60..3_600 => format!("{} min", seconds.div_ceil(60)),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// What the time rests on.
pub(super) fn line(set: &SetReport) -> Option<String> {
    let forecast = set.forecast.as_ref()?;
    let loads = set.steps.iter().map(|step| step.load_seconds);
    let longest = loads.chain([forecast.running_load_seconds]).flatten().max();
    let load = match longest {
        Some(longest) if forecast.seconds.is_some() => {
            format!(
                "the longest load takes about {longest} s, {}",
                forecast.basis
            )
        }
        _ => format!("how long pods load is {}", forecast.basis),
    };
    Some(format!("  forecast: {}; {load}", waits(forecast)))
}

fn waits(forecast: &ForecastReport) -> String {
    let seconds = forecast.step_seconds;
    if forecast.step_measured {
        format!("a step waits {seconds} s besides loading, as the last ones did")
    } else if forecast.waits_can_end_early {
        format!("a step waits at most {seconds} s besides loading, less if the queriers are faster")
    } else {
        format!("a step waits {seconds} s besides loading (drain, discovery_delay)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::report::StepReport;

    fn set(forecast: Option<ForecastReport>) -> SetReport {
        SetReport {
            moves_left: 2,
            steps_left: 1,
            eta_seconds: 240,
            steps: vec![StepReport {
                load_seconds: Some(41),
                ..StepReport::default()
            }],
            forecast,
            ..SetReport::default()
        }
    }

    #[test]
    fn times_are_readable() {
        for (seconds, want) in [
            (5, "a minute"),
            (61, "2 min"),
            (4_800, "1 h 20 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(rounded(seconds), want);
        }
    }

    #[test]
    fn a_forecast_says_what_it_rests_on() {
        // From a server that does not forecast.
        assert_eq!(left(&set(None)), "2 moves in 1 step left, at least 4 min");
        assert_eq!(line(&set(None)), None);
        let unknown = ForecastReport {
            step_seconds: 124,
            basis: "unknown, no pod has loaded yet".to_owned(),
            ..ForecastReport::default()
        };
        assert_eq!(left(&set(Some(unknown.clone()))), left(&set(None)));
        assert_eq!(
            line(&set(Some(unknown.clone()))).unwrap(),
            "  forecast: a step waits 124 s besides loading (drain, discovery_delay); how long pods load is unknown, no pod has loaded yet"
        );
        let known = ForecastReport {
            seconds: Some(300),
            waits_can_end_early: true,
            basis: "from the last loads of 6 pods".to_owned(),
            ..unknown
        };
        let mut running = set(Some(known.clone()));
        (running.steps_left, running.moves_left) = (0, 0);
        assert_eq!(left(&running), "the last step runs, about 5 min");
        assert_eq!(
            line(&running).unwrap(),
            "  forecast: a step waits at most 124 s besides loading, less if the queriers are faster; the longest load takes about 41 s, from the last loads of 6 pods"
        );
        let measured = ForecastReport {
            step_measured: true,
            step_seconds: 31,
            ..known
        };
        assert!(
            line(&set(Some(measured)))
                .unwrap()
                .contains("waits 31 s besides loading, as the last ones did;")
        );
        running.forecast = None;
        assert_eq!(left(&running), "nothing left to do");
    }
}
