//! Deletes timeshard's PDBs in namespaces that lost their label.
//!
//! A PDB left behind closed would block draining the nodes of its pods for ever; left behind open,
//! it would do so once its shard has fewer pods.
//!
//! Deliberately absent: ConfigMaps, which running gateways read, and Services, which queriers use.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::context::LeaderContext;
use super::write::WriteOutcome;
use crate::core::model::text::short_line;
use crate::core::rollout::budgets::{self, BudgetWrite};

/// Pause before a failed sweep is repeated.
const RETRY: Duration = Duration::from_secs(15);
/// Deletions in one turn.
const MAX_DELETIONS: usize = 4;
/// Pause between two turns.
const TURN_PAUSE: Duration = Duration::from_secs(1);
/// Pause until the labelled namespaces are known.
const SYNC_PAUSE: Duration = Duration::from_secs(1);
/// How much of an error is logged. Characters.
const MAX_REASON_CHARS: usize = 500;
/// Remedy when nothing opens or deletes a PDB any longer.
pub(super) const REMEDY: &str = "if no server comes back: kubectl delete pdb -A -l app.kubernetes.io/managed-by=thanos-timeshard";

#[derive(Debug, Default)]
enum SweepScope {
    #[default]
    Undecided,
    Cluster,
    /// The namespaces still to be listed.
    Namespaces(VecDeque<String>),
}

/// Progress of one sweep.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// When the next turn is due; `None` from the end of a sweep until the next change of a label
    /// or the next resync.
    pub(super) at: Option<Instant>,
    scope: SweepScope,
    /// Continue token of the list.
    token: Option<String>,
    /// Deletions left of the current page, by namespace.
    waiting: VecDeque<(String, BudgetWrite)>,
    failed: bool,
}

impl Sweep {
    /// Starts a sweep now unless one is running; `restart` starts over in any case.
    pub(super) fn begin(&mut self, restart: bool) {
        if restart {
            *self = Self::default();
        }
        self.at.get_or_insert_with(Instant::now);
    }

    /// Lists one page of PDBs, or deletes a few of those that were listed.
    pub(super) async fn turn(&mut self, context: &LeaderContext) {
        if !context.observed.is_synced() {
            self.at = Some(Instant::now() + SYNC_PAUSE);
            return;
        }
        if self.waiting.is_empty() && !self.list(context).await {
            return;
        }
        for _ in 0..MAX_DELETIONS {
            let Some((namespace, write)) = self.waiting.pop_front() else {
                break;
            };
            // It may have been labelled since it was listed.
            if context.observed.namespaces().contains(&namespace) {
                continue;
            }
            let done = context.still_leads() && release(context, &namespace, &write).await;
            self.failed |= !done;
        }
        if self.is_over() {
            self.end(self.failed);
        } else {
            self.at = Some(Instant::now() + TURN_PAUSE);
        }
    }

    /// Lists the next page; returns whether the sweep goes on.
    async fn list(&mut self, context: &LeaderContext) -> bool {
        let observed = &context.observed;
        if matches!(self.scope, SweepScope::Undecided) {
            // With Roles in some namespaces, only those of them that are not labelled.
            let labelled = observed.namespaces().into_iter().collect();
            let outside = observed.rights.scope().outside(&labelled);
            self.scope = outside.map_or(SweepScope::Cluster, |namespaces| {
                SweepScope::Namespaces(namespaces.into())
            });
        }
        let namespace = match &self.scope {
            SweepScope::Namespaces(namespaces) => {
                let Some(namespace) = namespaces.front() else {
                    self.end(self.failed);
                    return false;
                };
                Some(namespace.clone())
            }
            SweepScope::Undecided | SweepScope::Cluster => None,
        };
        let namespace = namespace.as_deref();
        let page = context
            .writer
            .managed_budgets(namespace, self.token.as_deref())
            .await;
        match page {
            Ok((page, token)) => {
                // Read after the list: a namespace that was labelled meanwhile counts.
                let labelled = observed.namespaces().into_iter().collect();
                self.waiting = budgets::left_behind(&page, &labelled).into();
                self.next_page(token);
            }
            Err(why) => {
                let why = short_line(&why, MAX_REASON_CHARS);
                tracing::warn!(
                    namespace,
                    why,
                    "PDBs cannot be listed, so none are deleted where the label was removed"
                );
                if namespace.is_none() {
                    self.end(true);
                    return false;
                }
                self.next_page(None);
            }
        }
        true
    }

    fn next_page(&mut self, token: Option<String>) {
        if let SweepScope::Namespaces(namespaces) = &mut self.scope
            && token.is_none()
        {
            namespaces.pop_front();
        }
        self.token = token;
    }

    fn is_over(&self) -> bool {
        let listed =
            !matches!(&self.scope, SweepScope::Namespaces(namespaces) if !namespaces.is_empty());
        listed && self.waiting.is_empty() && self.token.is_none()
    }

    fn end(&mut self, retry: bool) {
        *self = Self {
            at: retry.then(|| Instant::now() + RETRY),
            ..Self::default()
        };
    }
}

/// Opens or deletes a PDB; returns whether that is done.
pub(super) async fn release(context: &LeaderContext, namespace: &str, write: &BudgetWrite) -> bool {
    match context.writer.budget(namespace, write).await {
        WriteOutcome::Done { .. } => true,
        WriteOutcome::Failed(why) => {
            tracing::warn!(namespace, why, "a PDB was not released; {REMEDY}");
            false
        }
        // Another client wrote it meanwhile; the caller retries while there is time.
        WriteOutcome::Conflict | WriteOutcome::AlreadyExists(_) => false,
    }
}
