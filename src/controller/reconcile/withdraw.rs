//! Withdraws from a StatefulSet that its user opted out: removes what timeshard made for it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Interrupted, Reconcile, ReconcileOutcome, outcome};
use crate::controller::cache::SetName;
use crate::controller::context::LeaderContext;
use crate::controller::gathered::Gathered;
use crate::controller::memory::LeaderMemory;
use crate::core::gateways::{Gateway, Gateways};
use crate::core::rollout::reconcile::Decision;
use crate::core::rollout::withdrawal::{Withdrawal, withdraw};

/// Carries out a withdrawal, as far as one turn allows, and reports it. It sends no Event unless a
/// write keeps failing: the opt-out is no news to its user.
pub(super) async fn withdraw_from(
    context: &LeaderContext,
    set: &SetName,
    (fleet, known, gathered): (&Gateways, &Gateway, &Gathered),
    memory: &mut LeaderMemory,
    began: Instant,
) -> ReconcileOutcome {
    let found = withdraw(
        known,
        fleet.config(),
        gathered.map.as_deref(),
        &gathered.facts,
    );
    let Some(found) = found else {
        return ReconcileOutcome::Ignored;
    };
    // Its sidecars keep being asked, as seldom as those of a settled rollout.
    let none = BTreeSet::new();
    context.poller.watch_closely(&set.0, &set.1, &none);
    let decision = Decision {
        report: found.report.clone(),
        single_holders: found.single_holders.then(String::new),
        ..Decision::default()
    };
    let mut reconcile = Reconcile {
        context,
        set,
        known,
        gathered,
        decision: &decision,
        memory,
        held_up: false,
    };
    let done = reconcile.withdraw(&found).await;
    reconcile.report(began);
    outcome(memory, &done, None)
}

impl Reconcile<'_> {
    /// Removes PDBs first: left behind, they would block the drain of a node.
    async fn withdraw(&mut self, found: &Withdrawal) -> Result<(), Interrupted> {
        for write in &found.budgets {
            self.may_write()?;
            let written = self.context.writer.budget(&self.set.0, write).await;
            self.held_up |= self.settle("PodDisruptionBudget", written).is_err();
        }
        for write in &found.services {
            self.may_write()?;
            let written = self.context.writer.service(&self.set.0, write).await;
            self.held_up |= self.settle("Service", written).is_err();
        }
        if found.empty_map {
            self.publish(BTreeMap::new()).await?;
        }
        self.note_single_holders().await?;
        (!self.held_up).then_some(()).ok_or(Interrupted)
    }
}
