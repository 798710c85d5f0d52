//! The demo's second half: the injected pods run, and the StatefulSet is scaled and resharded while they do.

use std::cell::Cell;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::super::{Failure, print, say};
use super::Args;
use super::admission::{self, Admission};
use super::change::{Change, DISCOVERY_DELAY, DRAIN, MOST_PODS, quick};
use super::leader::{self, Leader};
use super::machine::Machine;
use super::page::Page;
use super::pod::{self, Running};
use super::programs::Thanos;
use super::tell::{self, Moment, Teller};
use super::words::Injected;
use crate::adapters::signals::{self, Shutdown, Stage};
use crate::core::report::{SetReport, State};

/// The whole demo. Whatever happens, what was started is ended.
pub(super) async fn demo(args: &Args) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Failed(format!("signal handlers cannot be installed: {error}"))
    };
    let mut shutdown = signals::install().map_err(failed)?;
    // A terminal that is closed ends the demo as Ctrl-C does.
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut machine = None;
    let (told_all, asked) = (Cell::new(false), shutdown.clone());
    let told = tokio::select! {
        told = story(args, &mut machine, asked, &told_all) => told,
        () = shutdown.reached(Stage::Draining) => Err(Failure::Failed("interrupted".to_owned())),
        _ = hangup.recv() => Err(Failure::Failed("interrupted".to_owned())),
    };
    // With a page that is the way to end it.
    let told = if told_all.get() && shutdown.is_draining() {
        Ok(())
    } else {
        told
    };
    let Some(machine) = machine else { return told };
    let left = format!(
        "Every process that the demo started has ended, and {} is removed.",
        machine.dir().display()
    );
    let ended = tokio::select! {
        ended = machine.end() => ended,
        // The second signal: killed, not waited for.
        () = shutdown.reached(Stage::Abort) => Err(Failure::Failed("interrupted twice".to_owned())),
    };
    match (told, ended) {
        (Ok(()), Ok(())) => print(&format!("\n6. {left} Nothing is left behind.\n")),
        (Err(failure), Ok(())) => {
            say(&left);
            Err(failure)
        }
        (Ok(()), Err(failure)) => Err(failure),
        (Err(failure), Err(more)) => Err(Failure::Failed(format!("{failure}\n{more}"))),
    }
}

async fn story(
    args: &Args,
    slot: &mut Option<Machine>,
    shutdown: Shutdown,
    told_all: &Cell<bool>,
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
    let thanos = Thanos::find(args.path.as_deref()).await;
    let machine = slot.insert(Machine::new(
        &thanos,
        args.agent.as_deref(),
        args.path.clone(),
    )?);
    if let Some(smaller) = Change::smaller(&admission) {
        print(&format!(
            "   {} pods are more than the {MOST_PODS} that this demo runs, so it goes on with fewer, which are admitted anew, as after:\n{}",
            admission.facts.replicas,
            commands(&smaller, admission.facts.replicas)
        ))?;
        print(&format!(
            "{}\n",
            admission::table(admission.anew(smaller.facts).await?)
        ))?;
    }
    let mut leader = Leader::default();
    if let Some(address) = args.page {
        let page = Page::open(address, &admission.observed, shutdown)?;
        print(&format!(
            "   The page shows what happens from here on: {}\n\n",
            page.url()
        ))?;
        leader.page = Some(page);
    }
    let mut live = Live {
        machine,
        admission,
        thanos,
        leader,
        teller: Teller::new(),
    };
    live.start(args.agent.as_deref()).await?;
    live.change().await?;
    if let Some(page) = &live.leader.page {
        print(&format!(
            "\n   Everything goes on, and {} shows it; Ctrl-C ends it all.\n",
            page.url()
        ))?;
        told_all.set(true);
        live.go_on().await?;
    }
    live.admission.end().await
}

/// What runs, and who watches it.
struct Live<'a> {
    machine: &'a mut Machine,
    admission: Admission,
    thanos: Thanos,
    leader: Leader,
    teller: Teller,
}

impl Live<'_> {
    /// The pods start with what was injected; the first entries are what they run.
    async fn start(&mut self, agent: Option<&Path>) -> Result<(), Failure> {
        let agent = agent.map_or_else(String::new, |file| {
            format!("   The agent is {}.\n", file.display())
        });
        self.machine
            .add(&self.admission.facts.namespace, &self.admission.admitted)?;
        self.leader
            .add(&self.admission.facts.name, &self.admission.admitted);
        print(&format!(
            "4. These pods run here: the words that were injected, as processes of this machine.\n   {}\n{agent}{}   \
             Nobody queries here, so the StatefulSet is annotated with drain: {DRAIN} and discovery-delay: {DISCOVERY_DELAY}; each is 90 s otherwise.\n",
            self.thanos.sentence(),
            exchanged(self.machine)
        ))?;
        self.teller.begin();
        self.machine.start().await?;
        let report = self.settle().await?;
        let moments = self.moments(report).await;
        print(&format!(
            "   {} serve: {}.\n\n",
            pods(moments.len()),
            all_say_so(&moments, &self.thanos)
        ))
    }

    async fn settle(&mut self) -> Result<SetReport, Failure> {
        self.leader
            .settle(self.machine, &self.admission, &mut self.teller)
            .await
    }

    /// Looks for as long as nothing fails.
    async fn go_on(&mut self) -> Result<(), Failure> {
        loop {
            self.settle().await?;
            tokio::time::sleep(leader::LOOK_EVERY).await;
        }
    }

    async fn moments(&self, report: SetReport) -> Vec<Moment> {
        let running =
            futures::future::join_all(self.machine.pods.iter().map(pod::Pod::running)).await;
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
        let Some(change) = Change::of(&self.admission) else {
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
        let asked = commands(&change, self.admission.facts.replicas);
        print(&format!(
            "5. The division of the time changes while everything runs, as it would after:\n{asked}   \
             The server's own code decides what happens now. The demo carries it out, as API server, StatefulSet controller and kubelet.\n\n"
        ))?;
        let mut moments = self.moments(before).await;
        if change.replicas != self.admission.facts.replicas {
            before = self.scale(change.replicas).await?;
            // With total_shards: auto this was all, and the new pods had nothing before.
            if !change.annotations.is_empty() && before.state == State::Settled {
                moments = self.moments(before).await;
            }
        }
        if !change.annotations.is_empty() {
            print("   Now the StatefulSet is annotated.\n")?;
            self.admission.update(change.facts.clone()).await?;
            self.teller.begin();
        }
        let report = self.settle().await?;
        self.summary(&change, &moments, report).await
    }

    /// The new pods come as more replicas of the newest shard, unless the number of shards follows that of the pods.
    async fn scale(&mut self, replicas: u32) -> Result<SetReport, Failure> {
        let facts = crate::core::fleet::StatefulSetFacts {
            replicas,
            ..self.admission.facts.clone()
        };
        let (namespace, name) = (facts.namespace.clone(), facts.name.clone());
        let there = self.admission.facts.replicas;
        let more = self.admission.update(facts).await?;
        print(&format!(
            "   {} to {replicas} pods: these are admitted, too.\n{}\n",
            there,
            admission::table(more)
        ))?;
        self.machine.add(&namespace, more)?;
        self.leader.add(&name, more);
        if let Some(data) = self.leader.data() {
            self.machine.publish(data)?;
        }
        self.teller.begin();
        self.machine.start().await?;
        let report = self.settle().await?;
        let known = self.admission.observed.fleet.load();
        let notes = known
            .known(&namespace, &name)
            .plan
            .notes()
            .iter()
            .map(|note| format!("   As it stands: {note}.\n"))
            .collect::<String>();
        print(&notes)?;
        Ok(report)
    }

    /// Fails where anything was not as promised.
    async fn summary(
        &self,
        change: &Change,
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
        if let Some(other) = after.iter().find(|one| differs(one)) {
            return Err(Failure::Failed(format!(
                "{}: {who} states another window than the pod",
                other.report.pod
            )));
        }
        print(&format!("\n{}\n", tell::table(before, &after, who)))?;
        let coverage = tell::coverage(&self.leader.coverage);
        if state != State::Settled {
            return print(&format!(
                "   The change ends here, as it should: {message}.\n   {coverage}\n"
            ));
        }
        let most = after
            .iter()
            .map(|one| one.report.restarts)
            .max()
            .unwrap_or(0);
        print(&format!(
            "{}\n   {} serve what is planned now, after {} steps: {}.\n   {coverage}\n   \
             No thanos was restarted more than {} and no pod at all: each launcher, PID 1 of its container, is the process that it was.\n",
            admission::picture(&change.plan, replicas),
            pods(after.len()),
            self.teller.steps(),
            all_say_so(&after, &self.thanos),
            match most {
                1 => "once".to_owned(),
                2 => "twice".to_owned(),
                most => format!("{most} times"),
            }
        ))
    }
}

/// Commands as a block.
fn commands(change: &Change, before: u32) -> String {
    change
        .commands(before)
        .iter()
        .map(|command| format!("      {command}\n"))
        .collect()
}

fn pods(count: usize) -> String {
    format!("{count} pod{}", if count == 1 { "" } else { "s" })
}

/// What stands for the cluster, by the example of the first pod.
fn exchanged(machine: &Machine) -> String {
    let Some(pod) = machine.pods.first() else {
        return String::new();
    };
    let rows = &pod.commands.exchanged;
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
        "   Exchanged for this machine, here in {}; all other words are the injected ones:\n{rows}",
        pod.name
    )
}

/// Whether what plays thanos states another window than its sidecar.
fn differs(one: &Moment) -> bool {
    let Running { flags, .. } = &one.running;
    flags
        .as_ref()
        .zip(one.report.applied)
        .is_some_and(|(flags, window)| !pod::states(flags, window))
}

/// Whether what plays thanos itself confirms the windows, in words.
fn all_say_so(moments: &[Moment], thanos: &Thanos) -> String {
    let (count, flags) = (moments.len(), thanos.own_flags());
    let say_so = moments
        .iter()
        .filter(|one| one.running.flags.is_some() && !differs(one))
        .count();
    if say_so == count {
        format!("{flags} say so in each of them")
    } else {
        format!("{flags} say so in {say_so} of {count}, and cannot be read in the others")
    }
}
