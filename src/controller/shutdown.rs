//! Opens closed PDBs when the last server shuts down.
//!
//! A PDB is closed while a step runs. Left closed it would block draining the nodes of its pods for
//! ever. If another replica is running, PDBs stay closed: it continues the step, and the pods that
//! stand in for others must not be evicted meanwhile.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;

use super::context::LeaderContext;
use super::gathered::{Gathered, sharded};
use super::memory::LeaderMemory;
use super::sweep::{REMEDY, release};
use crate::adapters::signals::{Shutdown, ShutdownStage};
use crate::controller::cache::SetName;
use crate::core::rollout::budgets::{self, BudgetWrite};

/// How long a shutdown may take to open PDBs before the lease is released.
const DEADLINE: Duration = Duration::from_secs(6);
/// By then servers that are deleted together with this one are marked as terminating.
const REPLICAS_MARKED: Duration = Duration::from_secs(2);
/// By then the watch usually shows a write.
const WRITE_SEEN: Duration = Duration::from_millis(200);

/// Opens every closed PDB, unless another replica continues.
pub(super) async fn open_pdbs(context: &LeaderContext, memories: &HashMap<SetName, LeaderMemory>) {
    if openings(context, memories).is_empty() {
        return;
    }
    sleep(REPLICAS_MARKED).await;
    let replica = &context.replica;
    match context
        .writer
        .other_servers(&replica.namespace, &replica.name)
        .await
    {
        Ok(0) => {}
        Ok(_) => {
            return tracing::info!(
                "a step is running; its PDBs stay closed for the replica that continues it"
            );
        }
        Err(why) => {
            return tracing::warn!(
                why,
                "other replicas cannot be listed, so PDBs stay closed; {REMEDY}"
            );
        }
    }
    // Until no closed PDB is seen: Kubernetes writes their status concurrently, and the watch shows
    // that a moment later. The caller drops this after `DEADLINE`.
    loop {
        let closed = openings(context, memories);
        if closed.is_empty() {
            return;
        }
        for (namespace, write) in closed {
            if !context.lease_lasts() {
                return tracing::warn!("the lease ends before every PDB is open; {REMEDY}");
            }
            if release(context, &namespace, &write).await {
                tracing::info!(
                    namespace,
                    "no other replica is running; opened a closed PDB"
                );
            }
        }
        sleep(WRITE_SEEN).await;
    }
}

/// By namespace, the writes that open the PDBs that are closed now.
fn openings(
    context: &LeaderContext,
    memories: &HashMap<SetName, LeaderMemory>,
) -> Vec<(String, BudgetWrite)> {
    let fleet = context.observed.fleet.load_full();
    let unknown = LeaderMemory::default();
    let mut all = Vec::new();
    for known in fleet.statefulsets() {
        let facts = known.facts();
        if !context.cache.is_listed(&facts.namespace) {
            continue;
        }
        let gathered = Gathered::of(context, &fleet, known);
        let memory = memories
            .get(&(facts.namespace.clone(), facts.name.clone()))
            .unwrap_or(&unknown);
        let sharded = sharded(known, memory.published(&gathered));
        let opening = budgets::opening(&sharded, &gathered.facts);
        all.extend(
            opening
                .into_iter()
                .map(|write| (facts.namespace.clone(), write)),
        );
    }
    all
}

/// Waits until opening PDBs takes too long.
pub(super) async fn overdue(mut shutdown: Shutdown) {
    shutdown.reached(ShutdownStage::Draining).await;
    sleep(DEADLINE).await;
    tracing::warn!(
        seconds = DEADLINE.as_secs(),
        "releasing the lease although PDBs may still be closed; {REMEDY}"
    );
}
