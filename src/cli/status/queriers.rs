//! Lines of `timeshard status` about queriers; none while no step needs them.

use super::blocks::MAX_REASON;
use crate::core::model::text::{counted, truncate};
use crate::core::rollout::report::{QuerierReport, QuerierState, RolloutState, SetReport};

/// How many queriers are listed.
const MAX_QUERIERS: usize = 5;

pub(super) fn lines(set: &SetReport, now_unix_seconds: i64) -> Vec<String> {
    if set.state == RolloutState::Settled {
        return Vec::new();
    }
    let mut all: Vec<String> = set
        .queriers
        .iter()
        .filter_map(|querier| one(querier, now_unix_seconds))
        .collect();
    let more = all.len().saturating_sub(MAX_QUERIERS);
    all.truncate(MAX_QUERIERS);
    if more > 0 {
        all.push(format!("  and {more} more queriers"));
    }
    if set.taken_back > 0 {
        all.push(format!(
            "  QUERIER: the step was taken back {} because a querier kept using a pod",
            counted(set.taken_back, "time")
        ));
    }
    all
}

fn one(querier: &QuerierReport, now_unix_seconds: i64) -> Option<String> {
    let name = &querier.name;
    if let Some(waits_for) = &querier.waits_for {
        let since = querier.since_unix_seconds.unwrap_or(now_unix_seconds);
        let seconds = now_unix_seconds.saturating_sub(since).max(0);
        return Some(format!(
            "  querier {name}: the step waits for it {waits_for}, for {seconds} s"
        ));
    }
    let why = match querier.state {
        QuerierState::Answers | QuerierState::Pending => return None,
        QuerierState::Group => "it lists a group instead of pods",
        QuerierState::Unknown => querier.why.as_deref().unwrap_or("it cannot be asked"),
    };
    Some(format!(
        "  querier {name}: drain and discovery_delay hold for it: {}",
        truncate(why, MAX_REASON)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn querier(name: &str, state: QuerierState) -> QuerierReport {
        QuerierReport {
            name: format!("monitoring/{name}"),
            state,
            ..QuerierReport::default()
        }
    }

    #[test]
    fn a_running_step_shows_what_each_querier_has_to_do() {
        let waits = QuerierReport {
            waits_for: Some("to stop using store-3".to_owned()),
            since_unix_seconds: Some(958),
            ..querier("query-0", QuerierState::Answers)
        };
        let down = QuerierReport {
            why: Some("connection refused".to_owned()),
            ..querier("query-1", QuerierState::Unknown)
        };
        let mut set = SetReport {
            state: RolloutState::Rolling,
            queriers: vec![
                waits,
                querier("query-2", QuerierState::Answers),
                down,
                querier("query-3", QuerierState::Group),
            ],
            taken_back: 2,
            ..SetReport::default()
        };
        assert_eq!(
            lines(&set, 1_000),
            [
                "  querier monitoring/query-0: the step waits for it to stop using store-3, for 42 s",
                "  querier monitoring/query-1: drain and discovery_delay hold for it: connection refused",
                "  querier monitoring/query-3: drain and discovery_delay hold for it: it lists a group instead of pods",
                "  QUERIER: the step was taken back 2 times because a querier kept using a pod",
            ]
        );
        set.queriers = vec![set.queriers[0].clone(); 9];
        assert_eq!(lines(&set, 1_000)[5], "  and 4 more queriers");
        set.state = RolloutState::Settled;
        assert!(lines(&set, 1_000).is_empty());
    }
}
