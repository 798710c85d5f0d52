//! Pods that alone serve a part of the required range of which the plan wants two replicas.

use std::collections::BTreeSet;

use super::segments::Segments;
use super::{Member, MemberState, PlanTerms};

/// What is known of one segment.
#[derive(Clone, Copy, Default)]
struct Servers {
    /// Confirmed pods that serve it.
    confirmed: u32,
    /// One of these.
    last: usize,
    /// Pods that serve it in the plan, without surplus pods.
    wanted: u32,
}

/// Returns the confirmed pods that alone serve a part that two pods serve in the plan, while the
/// plan is not reached: after a step whose pods did not all arrive, each of them is the last of its
/// range, although the other pods of its shard are ready. Empty if every pod has its planned window
/// and none has given it up: then a shard's own pods show how many are left.
#[must_use]
pub fn left_alone(members: &[Member], terms: &PlanTerms) -> BTreeSet<usize> {
    let is_open = |member: &Member| {
        member.published != member.desired || matches!(member.state, MemberState::RolledBack(_))
    };
    if !members.iter().any(is_open) {
        return BTreeSet::new();
    }
    let windows = members
        .iter()
        .flat_map(|member| [member.published.window, member.desired.window]);
    let segments = Segments::cut(windows, terms.required, terms.now);
    let mut servers = vec![Servers::default(); segments.len()];
    for (i, member) in members.iter().enumerate() {
        if member.state == MemberState::Confirmed {
            for segment in segments.held(member.published.window) {
                (servers[segment].confirmed, servers[segment].last) =
                    (servers[segment].confirmed + 1, i);
            }
        }
        if !member.surplus {
            for segment in segments.held(member.desired.window) {
                servers[segment].wanted += 1;
            }
        }
    }
    let alone = servers
        .into_iter()
        .filter(|servers| servers.confirmed == 1 && servers.wanted > 1);
    alone.map(|servers| servers.last).collect()
}
