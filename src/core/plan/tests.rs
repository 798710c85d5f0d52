use super::*;
use std::collections::BTreeSet;

use crate::core::config::Config;
use chrono::{TimeDelta, TimeZone};
use proptest::prelude::*;

fn sharding(keys: &str) -> Sharding {
    Config::parse(&format!("sharding: {{{keys}}}"), "c.yaml")
        .unwrap()
        .sharding
}

fn leap_day() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2024, 2, 29, 23, 59, 59).unwrap()
}

fn windows(plan: &Plan) -> Vec<String> {
    (0..)
        .zip(plan.shards())
        .map(|(i, _)| plan.window(i, leap_day()).to_string())
        .collect()
}

fn shards_of(plan: &Plan, pods: u32) -> Vec<u32> {
    (0..pods).map(|index| plan.assign(index).shard).collect()
}

/// An independent check: counts the pods that serve each edge of each window, and the instants next to
/// it.
fn fewest_holders(
    windows: &[Window],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    now: DateTime<Utc>,
) -> usize {
    let mut instants = vec![from, to];
    for window in windows {
        for edge in [window.min.at(now), window.max.at(now)] {
            instants.extend([
                edge - TimeDelta::milliseconds(1),
                edge,
                edge + TimeDelta::milliseconds(1),
            ]);
        }
    }
    instants.retain(|instant| *instant >= from && *instant <= to);
    instants
        .iter()
        .map(|instant| {
            windows
                .iter()
                .filter(|window| window.holds(*instant, now))
                .count()
        })
        .min()
        .unwrap_or(0)
}

fn check_cover(sharding: &Sharding, pods: u32, now: DateTime<Utc>) -> Result<(), TestCaseError> {
    let plan = Plan::new(sharding, Some(pods));
    let windows: Vec<Window> = (0..pods)
        .map(|index| plan.window(plan.assign(index).shard, now))
        .collect();
    let (from, to) = (
        now - sharding.retention().covered().to_chrono(),
        now + sharding.future_buffer().to_chrono(),
    );
    let fewest_replicas = plan
        .shards()
        .iter()
        .map(|shard| shard.replicas)
        .min()
        .unwrap_or(0) as usize;
    let holders = fewest_holders(&windows, from, to, now);
    prop_assert!(
        holders >= fewest_replicas.max(1),
        "{holders} pods hold some instant, wanted {fewest_replicas}"
    );
    if sharding.nominal_pods().is_some_and(|wanted| pods >= wanted) {
        let asked = (0..sharding.total_shards().unwrap())
            .map(|shard| sharding.replicas_of(shard))
            .min()
            .unwrap();
        prop_assert!(fewest_replicas >= asked as usize);
    }
    let oldest = windows
        .iter()
        .map(|window| window.min.at(now))
        .min()
        .unwrap();
    if sharding.window_format() == WindowFormat::Relative {
        let end = sharding.retention().oldest().at(now);
        prop_assert_eq!(oldest, end, "the last window ends exactly at the retention");
    }
    for window in &windows {
        prop_assert!(window.checked(now).is_ok(), "{window}");
    }
    for pair in plan.shards().windows(2) {
        let end = pair[0].oldest_age.unwrap();
        let overlap = end - pair[1].newest_age;
        let whole = Some(end) == sharding.retention().limit();
        prop_assert!(
            overlap >= sharding.overlap() || whole,
            "neighbours overlap by {overlap}"
        );
    }
    Ok(())
}

/// Configurations as users may write them.
fn any_sharding() -> impl Strategy<Value = Sharding> {
    any_sharding_in(any::<bool>())
}

fn any_sharding_in(absolute: impl Strategy<Value = bool>) -> impl Strategy<Value = Sharding> {
    let total = prop_oneof![1 => Just("total_shards: auto".to_owned()), 4 => (1_u32..40).prop_map(|n| format!("total_shards: {n}"))];
    let boundaries = prop::collection::btree_set(1_u32..2_000, 1..8);
    let list = |set: BTreeSet<u32>| {
        format!(
            "boundaries: [{}]",
            set.iter()
                .map(|h| format!("{h}h"))
                .collect::<Vec<_>>()
                .join(", ")
        )
    };
    let split = prop_oneof![3 => total, 2 => boundaries.prop_map(list)];
    (split, 1_u32..5, 83_u32..4_000, 30_u32..5_000, -40_i32..100, absolute).prop_filter_map(
        "a newest window that is too short is refused",
        |(split, replicas, days, overlap, buffer, absolute)| {
            let overlap = if absolute { overlap + 24 * 60 } else { overlap };
            let format = if absolute { "absolute" } else { "relative" };
            let retention = if split.starts_with("boundaries") && days % 2 == 1 { "forever".to_owned() } else { format!("{}d", days + 1) };
            let keys = format!(
                "{split}, replicas_per_shard: {replicas}, retention: {retention}, overlap: {overlap}m, future_buffer: {buffer}h, window_format: {format}"
            );
            match Config::parse(&format!("sharding: {{{keys}}}"), "c.yaml") {
                Ok(config) => Some(config.sharding),
                Err(refusal) => {
                    assert!(buffer < 0 && refusal.to_string().contains("the newest window would begin"), "{keys}: {refusal}");
                    None
                }
            }
        },
    )
}

proptest! {
    #[test]
    fn every_instant_is_served_by_enough_pods(sharding in any_sharding(), pods in 1_u32..200, seconds in 0_i64..4_000_000_000) {
        check_cover(&sharding, pods, DateTime::from_timestamp(seconds, 0).unwrap())?;
    }

    /// For ten years nothing is unserved, with pods' clocks off by up to five minutes either way.
    #[test]
    fn ten_years_roll_by_with_skewed_clocks(sharding in any_sharding(), skews in prop::collection::vec(-300_i64..=300, 1..40), days in prop::collection::vec(0_i64..3_653, 20)) {
        let pods = u32::try_from(skews.len()).unwrap();
        let plan = Plan::new(&sharding, Some(pods));
        // Absolute windows do not depend on a pod's clock; relative ones are shifted by its skew.
        for day in days {
            let now = leap_day() + TimeDelta::days(day);
            let windows: Vec<Window> = (0..).zip(&skews).map(|(index, skew)| {
                let window = plan.window(plan.assign(index).shard, now);
                let clock = now + TimeDelta::seconds(*skew);
                Window { min: Bound::Absolute(window.min.at(clock)), max: Bound::Absolute(window.max.at(clock)) }
            }).collect();
            // At the outer ends the skew itself is missing: no pod there has the true time.
            let margin = TimeDelta::minutes(5);
            let (from, to) = (now - sharding.retention().covered().to_chrono() + margin, now + sharding.future_buffer().to_chrono() - margin);
            prop_assert!(fewest_holders(&windows, from, to, now) >= 1);
        }
    }

    /// While absolute windows move, everything is covered, whichever pods still have the last quantum's
    /// windows.
    #[test]
    fn a_refresh_of_absolute_windows_never_opens_a_gap(sharding in any_sharding_in(Just(true)), stale in prop::collection::vec(any::<bool>(), 1..40), quanta in 0_i64..500_000, progress in 0_i64..=1_000) {
        let elapsed = sharding.rollout_time().as_millis() * progress / 1_000;
        let now = DateTime::from_timestamp_millis(quanta * sharding.quantum().as_millis() + elapsed).unwrap();
        let last = now - sharding.quantum().to_chrono();
        let plan = Plan::new(&sharding, Some(u32::try_from(stale.len()).unwrap()));
        let windows: Vec<Window> = (0..).zip(&stale).map(|(index, stale)| plan.window(plan.assign(index).shard, if *stale { last } else { now })).collect();
        prop_assert!(fewest_holders(&windows, now - sharding.retention().covered().to_chrono(), now + sharding.future_buffer().to_chrono(), now) >= 1);
    }

    #[test]
    fn every_pod_has_a_place_of_its_own(sharding in any_sharding(), pods in 1_u32..300) {
        let plan = Plan::new(&sharding, Some(pods));
        let mut seen = std::collections::HashSet::new();
        let mut last = 0;
        for index in 0..pods {
            let place = plan.assign(index);
            prop_assert!(seen.insert((place.shard, place.replica)), "two pods at {place:?}");
            if !place.surplus {
                prop_assert!(place.shard >= last, "blocked mapping");
                last = place.shard;
            }
        }
    }
}

#[test]
fn the_compatibility_file_gives_the_documented_windows() {
    let plan = Plan::new(&sharding("total_shards: 3"), None);
    assert_eq!(
        windows(&plan),
        ["-124d8h .. 1d", "-247d16h .. -123d8h", "-370d .. -246d16h"]
    );
    assert_eq!(shards_of(&plan, 6), [0, 0, 1, 1, 2, 2]);
    assert!(plan.notes().is_empty(), "{:?}", plan.notes());
}

#[test]
fn a_larger_future_buffer_widens_the_newest_window_and_slides_nothing() {
    let plan = Plan::new(&sharding("future_buffer_hours: 48"), None);
    assert_eq!(
        windows(&plan),
        ["-124d8h .. 2d", "-247d16h .. -123d8h", "-370d .. -246d16h"]
    );
}

#[test]
fn twelve_shards_end_at_the_retention() {
    let plan = Plan::new(&sharding("total_shards: 12"), None);
    assert_eq!(plan.shards().len(), 12);
    assert_eq!(windows(&plan)[11], "-370d .. -339d4h");
    assert_eq!(windows(&plan)[0], "-31d20h .. 1d");
}

#[test]
fn ordinals_beyond_the_plan_are_extra_replicas_of_the_newest_shard() {
    let plan = Plan::new(&sharding("total_shards: 3"), Some(8));
    assert_eq!(shards_of(&plan, 8), [0, 0, 1, 1, 2, 2, 0, 0]);
    assert_eq!(
        plan.assign(7),
        Assignment {
            shard: 0,
            replica: 3,
            surplus: true
        }
    );
    assert_eq!(plan.notes(), [Note::Surplus { pods: 8, wanted: 6 }]);
}

#[test]
fn fewer_pods_than_planned_reduce_replicas_not_windows() {
    let plan = Plan::new(&sharding("total_shards: 3"), Some(5));
    assert_eq!(shards_of(&plan, 5), [0, 0, 1, 1, 2]);
    assert_eq!(
        windows(&plan),
        windows(&Plan::new(&sharding("total_shards: 3"), None))
    );
    assert_eq!(
        plan.notes()[0],
        Note::FewerReplicas {
            pods: 5,
            wanted: 6,
            replicas: vec![2, 2, 1]
        }
    );
    assert_eq!(plan.notes()[1], Note::SingleReplica { shards: vec![2] });
    assert_eq!(
        shards_of(&Plan::new(&sharding("total_shards: 3"), Some(4)), 4),
        [0, 0, 1, 2]
    );
}

#[test]
fn fewer_pods_than_shards_let_the_oldest_reach_back_to_the_retention() {
    let plan = Plan::new(&sharding("total_shards: 3"), Some(2));
    assert_eq!(windows(&plan), ["-124d8h .. 1d", "-370d .. -123d8h"]);
    assert_eq!(plan.notes()[0], Note::FewerShards { pods: 2, shards: 3 });
    assert_eq!(
        windows(&Plan::new(&sharding("total_shards: 3"), Some(1))),
        ["-370d .. 1d"]
    );
    assert_eq!(
        windows(&Plan::new(&sharding("boundaries: [14d, 90d]"), Some(2))),
        ["-15d .. 1d", "-370d .. -14d"]
    );
}

#[test]
fn without_pods_there_are_no_shards() {
    let plan = Plan::new(&sharding("total_shards: 3"), Some(0));
    assert_eq!(plan.notes(), [Note::NoPods]);
    assert!(plan.shards().is_empty());
    assert_eq!(
        plan.assign(0).shard,
        0,
        "and a pod that comes all the same has a place"
    );
}

#[test]
fn auto_derives_the_shards_from_the_pods() {
    let auto = sharding("total_shards: auto");
    for (pods, shards) in [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (7, 3)] {
        assert_eq!(
            Plan::new(&auto, Some(pods)).shards().len(),
            shards,
            "{pods} pods"
        );
    }
}

#[test]
fn shards_may_have_different_numbers_of_replicas() {
    let plan = Plan::new(&sharding("replicas: [3, 2, 1]"), None);
    assert_eq!(shards_of(&plan, 6), [0, 0, 0, 1, 1, 2]);
    let plan = Plan::new(&sharding("replicas: [3, 2, 1]"), Some(4));
    assert_eq!(shards_of(&plan, 4), [0, 0, 1, 2]);
}

#[test]
fn absolute_windows_do_not_move_within_a_quantum() {
    let plan = Plan::new(&sharding("window_format: absolute"), None);
    let at = |minute| plan.window(1, Utc.with_ymd_and_hms(2026, 11, 21, 7, minute, 0).unwrap());
    assert_eq!(at(0), at(59));
    assert_eq!(
        at(0).to_string(),
        "2026-03-18T15:00:00Z .. 2026-07-20T23:00:00Z"
    );
}

#[test]
fn a_wide_overlap_is_remarked() {
    let plan = Plan::new(&sharding("boundaries: [12h], shard_overlap_days: 1"), None);
    assert!(
        plan.notes()[0]
            .to_string()
            .contains("shard 0 is 12h long and overlaps by 1d"),
        "{:?}",
        plan.notes()
    );
}

#[test]
fn a_drain_shorter_than_the_discovery_delay_is_remarked() {
    let note = |keys| {
        Plan::new(&sharding(keys), None)
            .notes()
            .last()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    assert!(
        note("drain: 10s").contains("a drain of 10s is shorter than discovery_delay (1m30s)"),
        "{}",
        note("drain: 10s")
    );
    assert_eq!(note("drain: 10s, discovery_delay: 10s"), "");
}
