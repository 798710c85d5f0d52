//! What the leader lets go of: disruption budgets that nobody keeps any more.
//!
//! A budget is closed while a step runs. Left behind like that it would keep every node of its pods from being drained, for
//! ever; left behind open it would do so once its shard has fewer pods. So a namespace without our label keeps none of ours,
//! and a leader that goes without a successor opens what it has closed. Where another server is there it does not: that one
//! goes on with the step, and the pods that stand in must not be evicted meanwhile.
//!
//! Deliberately absent: ConfigMaps, which running gateways read, and Services, which queriers ask.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::drive::Tenure;
use super::look::{LEASE_LEFT, owner};
use super::memory::{Memory, published};
use super::write::Outcome as Written;
use crate::adapters::signals::{Shutdown, Stage};
use crate::core::budgets::{self, BudgetWrite};
use crate::core::owned::ShardedSet;
use crate::core::printable::short_line;

/// At the end of a tenure by SIGTERM all of this takes at most so long; then the lease is given back.
const FAREWELL: Duration = Duration::from_secs(6);
/// Servers that are deleted with this one are marked as such by then.
const OTHERS_MARKED: Duration = Duration::from_secs(2);
/// What was written is seen by then, most often.
const SEEN_BY_THEN: Duration = Duration::from_millis(200);
/// A list that failed is tried again after this long.
const AGAIN: Duration = Duration::from_secs(15);
/// Deletions in one turn of the sweep.
const MAX_SWEPT: usize = 4;
/// Between two turns of it.
const BETWEEN: Duration = Duration::from_secs(1);
/// What is repeated of an error. Characters.
const MAX_REASON_CHARS: usize = 500;
/// Whether the labelled namespaces are known is looked at this often.
const KNOWN: Duration = Duration::from_secs(1);

/// Who this server is, among others.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Name of its pod.
    pub name: String,
    /// Namespace of its pod, and of the others'.
    pub namespace: String,
}

/// Where a search looks.
#[derive(Debug, Default)]
enum Range {
    /// Not decided yet.
    #[default]
    Unknown,
    /// In the whole cluster.
    Cluster,
    /// In these namespaces, those left to be searched.
    Namespaces(VecDeque<String>),
}

/// How far the search for budgets that nobody keeps has come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// When it goes on; `None` after the end of a search, until the next change of a label or the next resync.
    pub(super) at: Option<Instant>,
    range: Range,
    /// How to go on listing.
    token: Option<String>,
    /// What was found and is still there, of one page.
    waiting: VecDeque<(String, BudgetWrite)>,
    failed: bool,
}

impl Sweep {
    /// Begins now, if none is under way; with `anew` in any case.
    pub(super) fn begin(&mut self, anew: bool) {
        if anew {
            *self = Self::default();
        }
        self.at.get_or_insert_with(Instant::now);
    }

    /// A page was listed; `token` is how to go on after it.
    fn next_page(&mut self, token: Option<String>) {
        if let Range::Namespaces(namespaces) = &mut self.range
            && token.is_none()
        {
            namespaces.pop_front();
        }
        self.token = token;
    }

    /// Whether nothing is left to be listed or deleted.
    fn is_over(&self) -> bool {
        let searched =
            !matches!(&self.range, Range::Namespaces(namespaces) if !namespaces.is_empty());
        searched && self.waiting.is_empty() && self.token.is_none()
    }
}

impl Tenure {
    /// One turn of deleting our budgets in namespaces that are not labelled, of those that this server has rights in: a page of them
    /// is listed, or a few of those that were listed are deleted.
    pub(super) async fn sweep(&self, sweep: &mut Sweep) {
        if !self.observed.is_synced() {
            sweep.at = Some(Instant::now() + KNOWN);
            return;
        }
        if sweep.waiting.is_empty() {
            if matches!(sweep.range, Range::Unknown) {
                // With rights in some namespaces, only in those of them that lost their label.
                let outside = self
                    .observed
                    .rights
                    .scope()
                    .outside(&self.observed.namespaces().into_iter().collect());
                sweep.range = outside.map_or(Range::Cluster, |namespaces| {
                    Range::Namespaces(namespaces.into())
                });
            }
            let namespace = match &sweep.range {
                Range::Namespaces(namespaces) => namespaces.front().cloned(),
                Range::Unknown | Range::Cluster => None,
            };
            if namespace.is_none() && matches!(sweep.range, Range::Namespaces(_)) {
                // There are none.
                *sweep = Sweep {
                    at: sweep.failed.then(|| Instant::now() + AGAIN),
                    ..Sweep::default()
                };
                return;
            }
            let namespace = namespace.as_deref();
            match self
                .writer
                .budgets_of_ours(namespace, sweep.token.as_deref())
                .await
            {
                Ok((page, token)) => {
                    // Read afterwards: a namespace that was labelled meanwhile counts.
                    let labelled = self.observed.namespaces().into_iter().collect();
                    sweep.waiting = budgets::left_behind(&page, &labelled).into();
                    sweep.next_page(token);
                }
                Err(why) => {
                    let why = short_line(&why, MAX_REASON_CHARS);
                    tracing::warn!(
                        namespace,
                        why,
                        "our budgets cannot be listed, so none is deleted where the label was removed"
                    );
                    if namespace.is_none() {
                        *sweep = Sweep {
                            at: Some(Instant::now() + AGAIN),
                            ..Sweep::default()
                        };
                        return;
                    }
                    sweep.next_page(None);
                }
            }
        }
        for _ in 0..MAX_SWEPT {
            let Some((namespace, write)) = sweep.waiting.pop_front() else {
                break;
            };
            // It may have been labelled since it was listed.
            if self.observed.namespaces().contains(&namespace) {
                continue;
            }
            sweep.failed |=
                self.still_leads().is_err() || self.let_go(&namespace, &write).await.is_err();
        }
        if sweep.is_over() {
            *sweep = Sweep {
                at: sweep.failed.then(|| Instant::now() + AGAIN),
                ..Sweep::default()
            };
        } else {
            sweep.at = Some(Instant::now() + BETWEEN);
        }
    }

    /// Opens what is closed, unless another server goes on.
    pub(super) async fn farewell(&self) {
        if self.openings().is_empty() {
            return;
        }
        sleep(OTHERS_MARKED).await;
        match self
            .writer
            .other_servers(&self.replica.namespace, &self.replica.name)
            .await
        {
            Ok(0) => {}
            Ok(_) => {
                return tracing::info!(
                    "a step is under way: its budgets stay closed for the server that goes on with it"
                );
            }
            Err(why) => {
                return tracing::warn!(
                    why,
                    "other servers cannot be listed, so budgets stay closed; {REMOVE}"
                );
            }
        }
        // Until none is seen that is closed: Kubernetes writes their status at this very time, and what it wrote since is
        // seen a moment later. Whoever waits for this gives up after a while.
        loop {
            let closed = self.openings();
            if closed.is_empty() {
                return;
            }
            for (namespace, write) in closed {
                if self
                    .leadership
                    .remaining()
                    .is_none_or(|left| left < LEASE_LEFT)
                {
                    return tracing::warn!("the lease ends before every budget is open; {REMOVE}");
                }
                if self.let_go(&namespace, &write).await.is_ok() {
                    tracing::info!(
                        namespace,
                        "no other server is there: a budget that was closed for a step is open"
                    );
                }
            }
            sleep(SEEN_BY_THEN).await;
        }
    }

    /// By namespace, what opens the budgets that are closed now.
    fn openings(&self) -> Vec<(String, BudgetWrite)> {
        let fleet = self.observed.fleet.load_full();
        let mut all = Vec::new();
        for known in fleet
            .statefulsets()
            .filter(|known| self.seen.is_listed(&known.facts().namespace))
        {
            let facts = known.facts();
            let set = (facts.namespace.clone(), facts.name.clone());
            let gathered = self.gather(
                &set,
                known,
                fleet.config().operator.configmap_of(&set.0, &set.1),
            );
            let nothing = Memory::default();
            let published = published(self.memories.get(&set).unwrap_or(&nothing), &gathered);
            let sharded = ShardedSet {
                owner: owner(known),
                selector: facts.selector.clone(),
                published,
                grpc_port: facts.grpc_port,
            };
            all.extend(
                budgets::opening(&sharded, &gathered.facts)
                    .into_iter()
                    .map(|write| (set.0.clone(), write)),
            );
        }
        all
    }

    async fn let_go(&self, namespace: &str, write: &BudgetWrite) -> Result<(), ()> {
        match self.writer.budget(namespace, write).await {
            Written::Done { .. } => Ok(()),
            Written::Failed(why) => {
                tracing::warn!(namespace, why, "a budget was not let go of; {REMOVE}");
                Err(())
            }
            // Somebody else wrote it in between: looked at again by who called, if there is time.
            Written::Conflict | Written::AlreadyExists(_) => Err(()),
        }
    }
}

/// Waits until the farewell takes too long.
pub(super) async fn overdue(mut shutdown: Shutdown) {
    shutdown.reached(Stage::Draining).await;
    sleep(FAREWELL).await;
    tracing::warn!(
        seconds = FAREWELL.as_secs(),
        "the lease is given back, although budgets may still be closed; {REMOVE}"
    );
}

/// What is left to people.
const REMOVE: &str = "when no server comes back: kubectl delete pdb -A -l app.kubernetes.io/managed-by=thanos-timeshard";
