//! The demo's second half: the injected pods run, and their windows change while they do.

use tokio::signal::unix::{SignalKind, signal};

use super::super::{Failure, print, say};
use super::Args;
use super::admission::{self, Admission};
use super::change::{self, Change, DRAIN, Moved, Published};
use super::machine::Machine;
use super::pod::{self, Confirmed};
use super::programs::Thanos;
use super::words::Injected;
use crate::adapters::clock;
use crate::adapters::signals::{self, Stage};
use crate::core::plan::Plan;

/// Pods that run; more would only be more of the same.
const MOST_PODS: usize = 6;

/// The whole demo. Whatever happens, what was started is ended.
pub(super) async fn demo(args: &Args) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("signal handlers cannot be installed: {error}"));
    let mut shutdown = signals::install().map_err(failed)?;
    // A terminal that is closed ends the demo as Ctrl-C does.
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut machine = None;
    let told = tokio::select! {
        told = story(args, &mut machine) => told,
        () = shutdown.reached(Stage::Draining) => Err(Failure::Failed("interrupted".to_owned())),
        _ = hangup.recv() => Err(Failure::Failed("interrupted".to_owned())),
    };
    let Some(machine) = machine else { return told };
    let left = format!("Every process that the demo started has ended, and {} is removed.", machine.dir().display());
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

async fn story(args: &Args, slot: &mut Option<Machine>) -> Result<(), Failure> {
    let admission = admission::admit(args).await?;
    let fleet = admission.observed.fleet.load_full();
    let plan = &fleet.known(&admission.facts.namespace, &admission.facts.name).plan;
    let chosen = choose(&admission, plan);
    if chosen.is_empty() {
        return print("4. None of these pods was injected, so there is nothing to run.\n");
    }
    let thanos = Thanos::find(args.path.as_deref()).await;
    let machine = slot.insert(Machine::new(&admission, &chosen, &thanos, args.path.clone())?);
    let some = if chosen.len() < admission.admitted.len() {
        format!("{} of the {} pods run here, as many shards as possible", chosen.len(), admission.admitted.len())
    } else {
        "These pods run here".to_owned()
    };
    print(&format!("4. {some}: the words that were injected, as processes of this machine.\n   {}\n", thanos.sentence()))?;
    print(&exchanged(machine))?;

    let now = clock::now();
    let mut published = Published::new(&admission.facts, plan, now);
    machine.publish(&published.data())?;
    machine.start().await?;
    let before = change::first_start(machine, &published).await?;
    print(&format!("   {} serve: {}.\n\n", pods(before.len()), all_say_so(before.iter(), &thanos)))?;
    let other_reload = admission.admitted.iter().find_map(|pod| Injected::of(&pod.pod)?.other_reload());
    if let Some(flag) = other_reload {
        return print(&format!(
            "5. These pods were injected with {flag}, so thanos is not restarted in place, and nothing changes while they run.\n"
        ));
    }
    let Some(change) = Change::of(&admission) else {
        return print("5. This configuration leaves no room for other windows, so nothing changes while they run.\n");
    };
    print(&format!(
        "5. The windows change while everything runs, as this would ask for:\n   {}\n   The demo plays refresher and kubelet: it writes the entries of the ConfigMap, with drain: {DRAIN}, because nobody queries here.\n",
        change.command(&admission.facts.name)
    ))?;
    let moved = change::roll(machine, &mut published, &change, &before, now).await?;
    print(&format!("\n{}\n{}", change::table(&moved, thanos.name()), admission::picture(&change.plan, admission.facts.replicas)))?;
    print(&summary(&moved, &thanos)?)
}

/// Which pods run: the first replica of every shard, then the second ones, as far as they go; in order of their names.
fn choose(admission: &Admission, plan: &Plan) -> Vec<usize> {
    let injected = (0..admission.admitted.len()).filter(|i| Injected::of(&admission.admitted[*i].pod).is_some());
    let mut chosen: Vec<usize> = injected.collect();
    chosen.sort_by_key(|i| {
        let place = plan.assign(u32::try_from(*i).unwrap_or(u32::MAX));
        (place.replica, place.shard)
    });
    chosen.truncate(MOST_PODS);
    chosen.sort_unstable();
    chosen
}

fn pods(count: usize) -> String {
    format!("{count} pod{}", if count == 1 { "" } else { "s" })
}

/// What stands for the cluster, by the example of the first pod.
fn exchanged(machine: &Machine) -> String {
    let Some(pod) = machine.pods.first() else { return String::new() };
    let rows = &pod.commands.exchanged;
    let width = rows.iter().map(|(from, _)| from.chars().count()).max().unwrap_or(0);
    let rows: String = rows.iter().map(|(from, to)| format!("      {from:width$}  ->  {to}\n")).collect();
    format!("   Exchanged for this machine, here in {}; all other words are the injected ones:\n{rows}", pod.name)
}

/// Whether what plays thanos itself confirms the windows, in words.
fn all_say_so<'a>(confirmed: impl ExactSizeIterator<Item = &'a Confirmed>, thanos: &Thanos) -> String {
    let (count, flags) = (confirmed.len(), thanos.own_flags());
    let say_so = confirmed.filter(|one| one.flags.as_ref().is_some_and(|flags| pod::states(flags, one.window))).count();
    if say_so == count {
        format!("{flags} say so in each of them")
    } else {
        format!("{flags} say so in {say_so} of {count}, and cannot be read in the others")
    }
}

fn summary(moved: &[Moved], thanos: &Thanos) -> Result<String, Failure> {
    if let Some(restarted) = moved.iter().find(|one| one.before.launcher != one.after.launcher) {
        return Err(Failure::Failed(format!("{}: its launcher is another process now", restarted.pod)));
    }
    let who = thanos.name();
    let differs = |one: &&Moved| one.after.flags.as_ref().is_some_and(|flags| !pod::states(flags, one.after.window));
    if let Some(other) = moved.iter().find(differs) {
        return Err(Failure::Failed(format!("{}: {who} states another window than the pod", other.pod)));
    }
    let slowest = moved.iter().map(|one| one.after.took).max().unwrap_or_default();
    Ok(format!(
        "\n   {} took over new windows while running, within {:.1} s each, {DRAIN} of it draining; {}.\n   \
         Each pod's launcher, PID 1 of its container, is the process that it was: {who} was started again in place, and no pod was restarted.\n",
        pods(moved.len()),
        slowest.as_secs_f64(),
        all_say_so(moved.iter().map(|one| &one.after), thanos)
    ))
}
