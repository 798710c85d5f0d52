//! Nudges pods: a touched pod makes kubelet sync its volumes now instead of within a minute and a
//! half.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{Interrupted, Reconcile};
use crate::adapters::clock;
use crate::core::rollout::reconcile::NUDGE_INTERVAL;

impl<'a> Reconcile<'a> {
    /// Pods to nudge that were not nudged recently, say, in this reconcile.
    pub(super) fn due_nudges(&self) -> Vec<&'a str> {
        let now = Instant::now();
        let is_due = |name: &&String| {
            let pod = self.gathered.facts.pods.get(*name);
            pod.and_then(|pod| self.memory.nudged_ago(&pod.uid, now))
                .is_none_or(|ago| ago >= NUDGE_INTERVAL)
        };
        let pods = self.decision.nudge.iter().filter(is_due);
        pods.map(String::as_str).collect()
    }

    /// Touches these pods and corrects their shard labels.
    pub(super) async fn nudge<'p>(
        &mut self,
        pods: impl Iterator<Item = &'p str>,
    ) -> Result<(), Interrupted> {
        for name in pods.collect::<BTreeSet<_>>() {
            let Some(pod) = self
                .gathered
                .facts
                .pods
                .get(name)
                .filter(|pod| pod.injected && !pod.terminating)
            else {
                continue;
            };
            self.may_write()?;
            let mut relabel = self.decision.relabel.iter();
            let label = relabel
                .find(|(pod, _)| pod == name)
                .map(|(_, shard)| shard.to_string());
            self.memory.nudged.insert(pod.uid.clone(), Instant::now());
            let written = self
                .context
                .writer
                .nudge(&self.set.0, name, &pod.uid, label.as_deref(), clock::now())
                .await;
            if label.is_some() {
                self.settle("Shard label of the pod", written)?;
            } else {
                // Without the nudge kubelet takes a minute longer.
                let _ = self.settle_quietly(written);
            }
        }
        Ok(())
    }
}
