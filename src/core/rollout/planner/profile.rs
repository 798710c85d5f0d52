//! The coverage of a range for display: how many pods serve each part.

use chrono::{DateTime, Utc};

use super::segments::Segments;
use crate::core::model::window::Window;
use crate::core::rollout::report::CoverageReport;

/// Returns how many of `windows` cover each part of `required`; each window comes with whether its
/// pod is confirmed. Oldest part first, equal neighbours merged, and at most `most` parts: beyond
/// that, neighbours are merged into the worse of both.
#[must_use]
pub fn profile(
    windows: &[(Window, bool)],
    required: Window,
    now: DateTime<Utc>,
    most: usize,
) -> Vec<CoverageReport> {
    let segments = Segments::cut(windows.iter().map(|(window, _)| *window), required, now);
    let mut parts: Vec<CoverageReport> = (0..segments.len())
        .map(|i| part(segments.ends(i)))
        .collect();
    for (window, confirmed) in windows {
        for part in &mut parts[segments.held(*window)] {
            part.serving += 1;
            part.confirmed += u32::from(*confirmed);
        }
    }
    parts.dedup_by(|next, before| {
        let alike = (next.serving, next.confirmed) == (before.serving, before.confirmed);
        if alike {
            before.newest_age_seconds = next.newest_age_seconds;
        }
        alike
    });
    while parts.len() > most.max(1) {
        parts = parts.chunks(2).map(worse).collect();
    }
    parts
}

/// A part with these ends, in milliseconds after now.
fn part((from, to): (i64, i64)) -> CoverageReport {
    CoverageReport {
        oldest_age_seconds: -from / 1_000,
        newest_age_seconds: -to / 1_000,
        serving: 0,
        confirmed: 0,
    }
}

fn worse(neighbours: &[CoverageReport]) -> CoverageReport {
    let join = |a: CoverageReport, b: &CoverageReport| CoverageReport {
        oldest_age_seconds: a.oldest_age_seconds,
        newest_age_seconds: b.newest_age_seconds,
        serving: a.serving.min(b.serving),
        confirmed: a.confirmed.min(b.confirmed),
    };
    neighbours
        .iter()
        .skip(1)
        .fold(neighbours.first().copied().unwrap_or_default(), join)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use proptest::prelude::*;

    use super::super::coverage;
    use super::*;
    use crate::core::model::duration::PromDuration;

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
    }

    fn window(min: i64, max: i64) -> Window {
        Window::relative(PromDuration::from_secs(min), PromDuration::from_secs(max))
    }

    #[test]
    fn a_part_ends_where_the_number_of_its_pods_changes() {
        let windows = [
            (window(-100, -40), true),
            (window(-100, -40), false),
            (window(-50, 10), true),
            (window(-30, 10), true),
        ];
        let parts: Vec<_> = profile(&windows, window(-120, 10), now(), 100)
            .iter()
            .map(|part| {
                (
                    part.oldest_age_seconds,
                    part.newest_age_seconds,
                    part.serving,
                    part.confirmed,
                )
            })
            .collect();
        assert_eq!(
            parts,
            [
                (120, 100, 0, 0),
                (100, 50, 2, 1),
                (50, 40, 3, 2),
                (40, 30, 1, 1),
                (30, -10, 2, 2)
            ]
        );
    }

    proptest! {
        /// The least number of pods is that of `coverage`, however few parts there are.
        #[test]
        fn the_worst_is_never_lost(edges in prop::collection::vec((-400_i64..0, 1_i64..200), 0..40), most in 1_usize..20) {
            let windows: Vec<(Window, bool)> = edges.iter().map(|(min, length)| (window(*min, min + length), length % 2 == 0)).collect();
            let required = window(-370, 10);
            let (least, _) = coverage(&windows.iter().map(|(window, _)| *window).collect::<Vec<_>>(), required, now());
            let parts = profile(&windows, required, now(), most);
            prop_assert!(parts.len() <= most);
            prop_assert_eq!(parts.iter().map(|part| part.serving).min(), Some(least));
            prop_assert_eq!((parts[0].oldest_age_seconds, parts[parts.len() - 1].newest_age_seconds), (370, -10));
            prop_assert!(parts.windows(2).all(|pair| pair[0].newest_age_seconds == pair[1].oldest_age_seconds));
        }
    }
}
