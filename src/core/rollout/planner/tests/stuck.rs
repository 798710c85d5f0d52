//! Steps of which some pods do not come back: whatever becomes of them, the next step is safe, too.

use super::world::random;
use super::*;

/// Pods that fail in one rollout.
const FAILURES: u32 = 12;

struct Fleet {
    members: Vec<Member>,
    terms: PlanTerms,
    failures: u32,
}

impl Fleet {
    /// The window that a pod serves.
    fn serves(member: &Member) -> Option<Window> {
        match member.state {
            MemberState::Confirmed => Some(member.published.window),
            MemberState::RolledBack(window) => Some(window),
            MemberState::Broken | MemberState::Settling => None,
        }
    }

    /// Checks that what some pod serves is still served while the pods of a step are away.
    fn check(&self, changes: &[WindowChange]) -> Result<(), String> {
        let goes = |i: usize| {
            let restarts = |change: &WindowChange| {
                Self::serves(&self.members[i]).is_some_and(|window| window != change.to.window)
            };
            changes
                .iter()
                .any(|change| change.member == i && restarts(change))
        };
        let served = |keep: &dyn Fn(usize) -> bool| {
            let kept = (0..self.members.len()).filter(|i| keep(*i));
            let windows: Vec<Window> = kept
                .filter_map(|i| Self::serves(&self.members[i]))
                .collect();
            coverage(&windows, self.terms.required, now()).1
        };
        let (before, during) = (served(&|_| true), served(&|i| !goes(i)));
        if before == during {
            Ok(())
        } else {
            Err(format!(
                "{during:?} is not served in {changes:#?}\n{:#?}",
                self.members
            ))
        }
    }

    /// What becomes of a pod that restarts: it fails only so often.
    fn outcome(
        &mut self,
        serves: Option<Window>,
        random: &mut impl FnMut(u32) -> u32,
    ) -> MemberState {
        let fails = self.failures < FAILURES && random(3) == 0;
        self.failures += u32::from(fails);
        match (fails, random(3), serves) {
            (false, ..) => MemberState::Confirmed,
            (true, 0, Some(window)) => MemberState::RolledBack(window),
            (true, 1, _) => MemberState::Settling,
            (true, ..) => MemberState::Broken,
        }
    }

    fn run(&mut self, random: &mut impl FnMut(u32) -> u32) -> Result<(), String> {
        for _ in 0..400 {
            match next_step(&self.members, &[], &self.terms) {
                Step::Done => return Ok(()),
                Step::Move { changes, gap: None } => {
                    self.check(&changes)?;
                    for change in changes {
                        let serves = Self::serves(&self.members[change.member]);
                        let state = if serves == Some(change.to.window) {
                            MemberState::Confirmed
                        } else {
                            self.outcome(serves, random)
                        };
                        let member = &mut self.members[change.member];
                        (member.published, member.state) = (change.to, state);
                    }
                }
                Step::Wait(pods) => {
                    for i in pods {
                        let serves = Self::serves(&self.members[i]);
                        self.members[i].state = self.outcome(serves, random);
                    }
                }
                step => return Err(format!("{step:?}: {:#?}", self.members)),
            }
        }
        Err("it does not end".to_owned())
    }
}

/// Any member of a Service may be asked, so one with a narrower window would answer incompletely.
#[test]
fn behind_a_service_a_failed_pod_joins_only_members_that_serve_no_more_than_it() {
    let division = |shards, replicas| Division {
        shards,
        replicas,
        retention: 370,
        overlap_hours: 24,
        cuts: Vec::new(),
        open: false,
    };
    let (from, to) = (division(2, 3), division(3, 2));
    let mut members = fleet(&from, &to, 6);
    members[2].state = MemberState::Broken;
    let pods = terms(&to.plan(6));
    let services = PlanTerms {
        discovery: Discovery::ShardServices,
        ..pods
    };
    let direct = Step::Move {
        changes: vec![WindowChange {
            member: 2,
            to: members[2].desired,
        }],
        gap: None,
    };
    assert_eq!(next_step(&members, &[], &pods), direct);
    assert_eq!(next_step(&members, &[], &services), Step::Wait(vec![2]));
    // Once the others serve what the plan wants, it joins.
    for other in [0, 1, 3, 4, 5] {
        members[other].published = members[other].desired;
    }
    assert_eq!(next_step(&members, &[], &services), direct);
}

proptest! {
    #[test]
    fn whatever_becomes_of_the_pods_of_a_step_the_next_one_is_safe(
        from in divisions(2), to in divisions(2), spare in 0..3_u32, seed in any::<u64>(), max_unavailable in 1..3_u32, share in 10..101_u32
    ) {
        let pods = from.pods().max(to.pods()) + spare;
        let terms = PlanTerms {
            max_unavailable,
            max_concurrent_restarts: (pods * share).div_ceil(100) as usize,
            ..terms(&to.plan(pods))
        };
        let mut stuck = Fleet { members: fleet(&from, &to, pods), terms, failures: 0 };
        stuck.run(&mut random(seed)).map_err(TestCaseError::fail)?;
    }
}
