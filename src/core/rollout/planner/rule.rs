//! Which steps are safe: what must stay of each cell during a step, and what must be there after it.

use super::PlanTerms;

/// Confirmed replicas that an instant keeps after a step if both plans want them.
pub(super) const REDUNDANT: u32 = 2;

/// Which of the pods that stay a step may rely on. Surplus pods may be scaled away at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reliance {
    /// Pods that the plan needs, where an instant has any.
    Needed,
    /// Surplus pods, too, for an instant that one pod leaves.
    Surplus,
    /// Any pod: a spare pod stands in for a shard's only one.
    Spares,
}

/// Counts for one cell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServerCount {
    /// Confirmed pods that serve it before the step.
    pub(super) held: u32,
    /// Of `held`, pods that are away during the step.
    pub(super) away: u32,
    /// Of `held`, pods that are not surplus.
    pub(super) needed: u32,
    /// Of `away`, pods that are not surplus.
    pub(super) needed_away: u32,
    /// Pods of the step that serve it afterwards.
    pub(super) back: u32,
    /// Of `back`, pods that are not surplus.
    pub(super) needed_back: u32,
    /// Pods that serve it in the plan.
    pub(super) wanted: u32,
    /// Planned replicas of the smallest shard here; 0 if no shard is planned here.
    pub(super) full: u32,
    /// Replicas before the step: see [`replicas`](super::replicas).
    pub(super) before: u32,
    /// The same without surplus pods.
    pub(super) needed_before: u32,
}

impl ServerCount {
    pub(super) fn stay(self) -> u32 {
        self.held - self.away
    }

    /// Of `replicas`, how many must stay.
    fn least(self, replicas: u32, terms: &PlanTerms) -> u32 {
        let replicas = replicas.min(self.full);
        replicas.saturating_sub(terms.max_unavailable.max(1)).max(1)
    }

    /// Whether enough pods stay if any goes away.
    pub(super) fn covered(self, reliance: Reliance, terms: &PlanTerms) -> bool {
        if self.away == 0 {
            return true;
        }
        let enough = self.stay() >= self.least(self.before, terms);
        let lasting = if self.needed == 0 {
            self.stay() >= self.least(self.before, terms)
        } else {
            self.needed - self.needed_away >= self.least(self.needed_before, terms)
        };
        enough
            && match reliance {
                Reliance::Needed => lasting,
                Reliance::Surplus => lasting || self.away == 1,
                Reliance::Spares => true,
            }
    }

    /// Whether enough pods serve it after the step: two if it had two, and all replicas if the next
    /// step must keep more than one, since how many the old plan wanted is read from the pods. A
    /// spare pod that stands in for others is none of the two.
    pub(super) fn redundant(self, reliance: Reliance, terms: &PlanTerms) -> bool {
        let spares = reliance == Reliance::Spares && self.needed > 0;
        let (held, after, before) = if spares {
            let stay = self.needed - self.needed_away;
            (self.needed, stay + self.needed_back, self.needed_before)
        } else {
            (self.held, self.stay() + self.back, self.before)
        };
        let least = if self.least(before, terms) >= REDUNDANT {
            before
        } else {
            REDUNDANT.min(held)
        };
        after >= least.min(self.full)
    }
}
