//! The demo's second half: the injected pods run, and the StatefulSet is scaled and resharded while
//! they do.

use std::cell::Cell;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::super::{Failure, print, say};
use super::Args;
use super::admission::{self, Admission};
use super::change::{DISCOVERY_DELAY, DRAIN, MAX_PODS, SpecChange, quick};
use super::coverage::SAMPLE_EVERY;
use super::leader::Leader;
use super::localise::Injected;
use super::machine::Machine;
use super::narrator::{self, Moment, Narrator};
use super::page::DemoPage;
use super::pod::{self, PodProcess};
use super::programs::ThanosProgram;
use crate::adapters::signals::{self, Shutdown, ShutdownStage};
use crate::core::kube::statefulset::StatefulSetFacts;
use crate::core::model::text::counted;
use crate::core::rollout::report::{RolloutState, SetReport};

/// Runs the whole demo and ends every process that it started, whatever happens.
pub(super) async fn demo(args: &Args) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Failed(format!("signal handlers cannot be installed: {error}"))
    };
    let mut shutdown = signals::install().map_err(failed)?;
    // Closing the terminal ends the demo, as Ctrl-C does.
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut machine = None;
    let (complete, asked) = (Cell::new(false), shutdown.clone());
    let result = tokio::select! {
        result = scenes(args, &mut machine, asked, &complete) => result,
        () = shutdown.reached(ShutdownStage::Draining) => Err(Failure::Failed("interrupted".to_owned())),
        _ = hangup.recv() => Err(Failure::Failed("interrupted".to_owned())),
    };
    // With a page, Ctrl-C is the regular end.
    let result = if complete.get() && shutdown.is_draining() {
        Ok(())
    } else {
        result
    };
    let Some(machine) = machine else {
        return result;
    };
    let ended_all = format!(
        "Every process that the demo started has ended, and {} is removed.",
        machine.dir().display()
    );
    let ended = tokio::select! {
        ended = machine.end() => ended,
        // The second signal kills instead of waiting.
        () = shutdown.reached(ShutdownStage::Abort) => Err(Failure::Failed("interrupted twice".to_owned())),
    };
    match (result, ended) {
        (Ok(()), Ok(())) => print(&format!("\n6. {ended_all} Nothing is left behind.\n")),
        (Err(failure), Ok(())) => {
            say(&ended_all);
            Err(failure)
        }
        (Ok(()), Err(failure)) => Err(failure),
        (Err(failure), Err(more)) => Err(Failure::Failed(format!("{failure}\n{more}"))),
    }
}

async fn scenes(
    args: &Args,
    slot: &mut Option<Machine>,
    shutdown: Shutdown,
    complete: &Cell<bool>,
) -> Result<(), Failure> {
    let mut admission = admission::admit(args, &quick()).await?;
    if admission.admitted.is_empty()
        || admission
            .admitted
            .iter()
            .any(|pod| Injected::of(&pod.pod).is_none())
    {
        return print("4. These pods were not injected, so there is nothing to run.\n");
    }
    let thanos = ThanosProgram::find(args.path.as_deref()).await;
    let machine = slot.insert(Machine::new(
        &thanos,
        args.agent.as_deref(),
        args.path.clone(),
    )?);
    if let Some(smaller) = SpecChange::smaller(&admission) {
        print(&format!(
            "   The demo runs at most {MAX_PODS} pods, not {}, so it continues with fewer, admitted again as after:\n{}",
            admission.facts.replicas,
            commands(&smaller, admission.facts.replicas)
        ))?;
        let admitted = admission.replace(smaller.facts).await?;
        print(&format!("{}\n", admission::table(admitted)))?;
    }
    let mut leader = Leader::default();
    if let Some(address) = args.page {
        let metrics = admission.take_metrics();
        let page = DemoPage::open(address, &admission.observed, metrics, shutdown)?;
        print(&format!(
            "   The page is served from now on: {}\n   The same in another terminal: timeshard status --watch --server {}\n\n",
            page.url(),
            page.url().trim_end_matches('/')
        ))?;
        leader.page = Some(page);
    }
    let mut live = Live {
        machine,
        admission,
        thanos,
        leader,
        narrator: Narrator::new(args.verbose),
    };
    live.start(args.agent.as_deref()).await?;
    live.change().await?;
    if let Some(page) = &live.leader.page {
        print(&format!(
            "\n   Everything keeps running, and {} shows it. Ctrl-C ends the demo.\n",
            page.url()
        ))?;
        complete.set(true);
        live.keep_running().await?;
    }
    live.admission.end().await
}

/// The running pods and their leader.
struct Live<'a> {
    machine: &'a mut Machine,
    admission: Admission,
    thanos: ThanosProgram,
    leader: Leader,
    narrator: Narrator,
}

impl Live<'_> {
    /// Starts the pods with what was injected. The first published entries are these windows.
    async fn start(&mut self, agent: Option<&Path>) -> Result<(), Failure> {
        let agent = agent.map_or_else(String::new, |file| {
            format!("   The agent is {}.\n", file.display())
        });
        let (facts, admitted) = (&self.admission.facts, &self.admission.admitted);
        self.machine.add(&facts.namespace, admitted)?;
        self.leader.add(&facts.name, admitted);
        print(&format!(
            "4. The pods run on this machine, as processes with the injected arguments.\n   {}\n{agent}   \
             No one queries them, so drain is {DRAIN} and discovery-delay {DISCOVERY_DELAY}, instead of 90 s each.\n",
            self.thanos.sentence(),
        ))?;
        self.narrator.detail(&substitutions(self.machine))?;
        self.narrator.begin();
        self.machine.start().await?;
        let report = self.settle().await?;
        let moments = self.moments(report).await;
        print(&format!(
            "   {} serve: {}.\n\n",
            pods(moments.len()),
            confirmed_by_flags(&moments, &self.thanos)
        ))
    }

    async fn settle(&mut self) -> Result<SetReport, Failure> {
        self.leader
            .settle(self.machine, &self.admission, &mut self.narrator)
            .await
    }

    /// Reconciles until something fails.
    async fn keep_running(&mut self) -> Result<(), Failure> {
        loop {
            self.settle().await?;
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    }

    async fn moments(&self, report: SetReport) -> Vec<Moment> {
        let running =
            futures::future::join_all(self.machine.pods.iter().map(pod::DemoPod::running)).await;
        report
            .pods
            .into_iter()
            .zip(running)
            .map(|(report, running)| Moment { report, running })
            .collect()
    }

    async fn change(&mut self) -> Result<(), Failure> {
        let other_reload = self
            .admission
            .admitted
            .iter()
            .find_map(|pod| Injected::of(&pod.pod)?.other_reload());
        if let Some(flag) = other_reload {
            return print(&format!(
                "5. These pods were injected with {flag}, so thanos is not restarted in place, and nothing changes while they run.\n"
            ));
        }
        let Some(change) = SpecChange::of(&self.admission) else {
            return print(
                "5. This configuration leaves no room for other windows, so nothing changes while they run.\n",
            );
        };
        {
            let fleet = self.admission.observed.fleet.load();
            let now = fleet.known(&self.admission.facts.namespace, &self.admission.facts.name);
            self.leader
                .coverage
                .require(&now.sharding, &change.sharding);
        }
        let mut before = self.settle().await?;
        print(&format!(
            "5. The StatefulSet changes while the pods run, as it would after:\n{}   \
             The server's own code decides each step. The demo executes it, as API server, StatefulSet controller and kubelet.\n",
            commands(&change, self.admission.facts.replicas)
        ))?;
        let mut moments = self.moments(before).await;
        if change.replicas != self.admission.facts.replicas {
            before = self.scale(change.replicas).await?;
            // With total_shards: auto, scaling was the whole change, and new pods have no "before".
            if !change.annotations.is_empty() && before.state == RolloutState::Settled {
                moments = self.moments(before).await;
            }
        }
        if !change.annotations.is_empty() {
            self.admission.update(change.facts.clone()).await?;
            self.narrator.begin();
        }
        let report = self.settle().await?;
        self.summary(&change, &moments, report).await
    }

    /// Scales the StatefulSet. New pods become more replicas of the newest shard, unless
    /// `total_shards: auto` derives the shards from the pods.
    async fn scale(&mut self, replicas: u32) -> Result<SetReport, Failure> {
        let facts = StatefulSetFacts {
            replicas,
            ..self.admission.facts.clone()
        };
        let (namespace, name) = (facts.namespace.clone(), facts.name.clone());
        let before = self.admission.facts.replicas;
        let added = self.admission.update(facts).await?;
        print(&format!(
            "   Scaled from {before} to {replicas} pods; the new ones are admitted, too.\n"
        ))?;
        self.narrator.detail(&admission::table(added))?;
        self.machine.add(&namespace, added)?;
        self.leader.add(&name, added);
        if let Some(data) = self.leader.data() {
            self.machine.publish(data)?;
        }
        self.narrator.begin();
        self.machine.start().await?;
        self.settle().await
    }

    /// Prints the result. Fails if a launcher was replaced, or thanos runs with another window.
    async fn summary(
        &self,
        change: &SpecChange,
        before: &[Moment],
        report: SetReport,
    ) -> Result<(), Failure> {
        let (state, message, replicas) = (report.state, report.message.clone(), report.replicas);
        let after = self.moments(report).await;
        if let Some((_, other)) = before
            .iter()
            .zip(&after)
            .find(|(old, new)| old.running.launcher != new.running.launcher)
        {
            return Err(Failure::Failed(format!(
                "{}: its launcher is another process now",
                other.report.pod
            )));
        }
        let who = self.thanos.name();
        if let Some(other) = after.iter().find(|moment| differs(moment)) {
            return Err(Failure::Failed(format!(
                "{}: {who} runs with another window than its sidecar reports",
                other.report.pod
            )));
        }
        self.narrator
            .detail(&format!("\n{}\n", narrator::table(before, &after, who)))?;
        let coverage = self.leader.coverage.sentence();
        if state != RolloutState::Settled {
            return print(&format!(
                "   The change stops here, as it should: {message}.\n   {coverage}\n"
            ));
        }
        let most = after.iter().map(|moment| moment.report.restarts).max();
        print(&format!(
            "\n{}\n   {} serve the new windows after {} steps: {}.\n   {coverage}\n   \
             Thanos restarted in place, at most {} in a pod; no pod restarted, and each launcher (PID 1) is still the same process.\n",
            admission::picture(&change.plan, replicas),
            pods(after.len()),
            self.narrator.steps(),
            confirmed_by_flags(&after, &self.thanos),
            match most.unwrap_or(0) {
                1 => "once".to_owned(),
                2 => "twice".to_owned(),
                most => format!("{most} times"),
            }
        ))
    }
}

fn commands(change: &SpecChange, before: u32) -> String {
    change
        .commands(before)
        .iter()
        .map(|command| format!("      {command}\n"))
        .collect()
}

fn pods(count: usize) -> String {
    counted(count, "pod")
}

/// What differs from the injected arguments, by the example of the first pod.
fn substitutions(machine: &Machine) -> String {
    let Some(pod) = machine.pods.first() else {
        return String::new();
    };
    let rows = &pod.commands.substitutions;
    let width = rows
        .iter()
        .map(|(from, _)| from.chars().count())
        .max()
        .unwrap_or(0);
    let rows: String = rows
        .iter()
        .map(|(from, to)| format!("      {from:width$}  ->  {to}\n"))
        .collect();
    format!(
        "   Substituted for this machine, here in {}; all other arguments are the injected ones:\n{rows}",
        pod.name
    )
}

/// Whether thanos' flags contradict its sidecar.
fn differs(moment: &Moment) -> bool {
    let PodProcess { flags, .. } = &moment.running;
    flags
        .as_ref()
        .zip(moment.report.applied)
        .is_some_and(|(flags, window)| !pod::states(flags, window))
}

/// How many pods' windows thanos itself confirms.
fn confirmed_by_flags(moments: &[Moment], thanos: &ThanosProgram) -> String {
    let (count, flags) = (moments.len(), thanos.own_flags());
    let confirmed = moments
        .iter()
        .filter(|moment| moment.running.flags.is_some() && !differs(moment))
        .count();
    if confirmed == count {
        format!("{flags} confirm each window")
    } else {
        format!("{flags} confirm {confirmed} of {count} windows, and cannot be read in the others")
    }
}
