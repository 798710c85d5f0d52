//! Whether `drain`, `termination_drain` and `discovery_delay` are longer than queriers take to learn of a pod.
//!
//! Adds up what lies between a pod and a querier: readiness, the `EndpointSlice`, what DNS remembers, the querier's interval
//! and its own update. What cannot be seen is assumed to be as long as usual, and the finding says so.

use super::Report;
use super::api::listed;
use super::corefile::{DnsTimes, times};
use super::ids::DISCOVERY_PERIODS;
use super::queriers::DNS_INTERVAL;
use super::sets::Gateway;
use super::snapshot::{DnsFacts, Snapshot};
use crate::core::config::Sharding;
use crate::core::duration::PromDuration;
use crate::core::fleet::Known;
use crate::core::names;

use super::objects::ContainerWords;

/// Until kubelet calls a pod unready: the sidecar's probe has period 1 s and failureThreshold 3.
const READINESS: PromDuration = PromDuration::from_secs(3);
/// Until the endpoint controller has written it and DNS servers have seen it.
const ENDPOINT_SLICE: PromDuration = PromDuration::from_secs(1);
/// The rhythm in which a querier refreshes its set of stores.
const QUERIER_UPDATE: PromDuration = PromDuration::from_secs(5);
/// What DNS remembers where that cannot be seen: kubeadm's `cache 30` and `ttl 30`.
const ASSUMED_DNS_CACHE: PromDuration = PromDuration::from_secs(30);
/// The longest and the shortest time for which `NodeLocal` `DNSCache` keeps an answer of the cluster, in seconds, as its manifest says.
const NODE_LOCAL_SECONDS: (u64, u64) = (5, 30);

/// Checks each gateway against the longest interval of the queriers that ask it; `None` where none is seen.
pub(super) fn look(
    snapshot: &Snapshot,
    gateways: &[Gateway<'_>],
    intervals: &[Option<PromDuration>],
    report: &mut Report,
) {
    for (gateway, interval) in gateways.iter().zip(intervals) {
        let title = gateway.title();
        let Some(sharding) = gateway.known.as_ref().map(|known| &known.sharding) else {
            report.skip(&DISCOVERY_PERIODS, &title, "the configuration is not known");
            continue;
        };
        let sum = Sum::of(&snapshot.dns, *interval);
        let before = report.findings.len();
        configured(&title, sharding, &sum, report);
        admitted(snapshot, gateway, sharding, &sum, report);
        replaced(gateway, &sum, report);
        if report.findings.len() == before {
            report.pass(
                &DISCOVERY_PERIODS,
                &title,
                format!("queriers learn of a pod within {sum}, which the periods allow for"),
            );
        }
    }
}

/// What lies between a pod that comes or goes and a querier that knows it.
struct Sum {
    dns: PromDuration,
    dns_from: String,
    interval: PromDuration,
    interval_from: &'static str,
}

impl Sum {
    fn of(dns: &DnsFacts, interval: Option<PromDuration>) -> Self {
        let interval_from = if interval.is_some() { "" } else { " (assumed)" };
        let interval = interval.unwrap_or(DNS_INTERVAL);
        let (dns, dns_from) = dns_cache(dns, interval);
        Self {
            dns,
            dns_from,
            interval,
            interval_from,
        }
    }

    fn total(&self) -> PromDuration {
        READINESS + ENDPOINT_SLICE + self.dns + self.interval + QUERIER_UPDATE
    }

    /// A period with a margin of a quarter, in whole tens of seconds.
    fn advised(&self) -> PromDuration {
        let seconds = self.total().as_secs().saturating_mul(5) / 4;
        PromDuration::from_secs(seconds.saturating_add(9) / 10 * 10)
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            dns,
            dns_from,
            interval,
            interval_from,
        } = self;
        write!(
            f,
            "{} (readiness {READINESS}, EndpointSlice {ENDPOINT_SLICE}, DNS cache {dns} {dns_from}, querier's interval {interval}{interval_from}, \
             its update {QUERIER_UPDATE})",
            self.total()
        )
    }
}

/// How long DNS remembers an answer, and where that comes from.
fn dns_cache(dns: &DnsFacts, interval: PromDuration) -> (PromDuration, String) {
    if let Some(told) = dns.told {
        return (told, "as --dns-cache says".to_owned());
    }
    let assumed = |why: String| {
        (
            ASSUMED_DNS_CACHE,
            format!("assumed: {why}; --dns-cache sets it"),
        )
    };
    let times = match &dns.corefile {
        Ok(Some(text)) => times(text),
        Ok(None) => {
            return assumed("there is no ConfigMap coredns in namespace kube-system".to_owned());
        }
        Err(lack) => return assumed(format!("could not {}", lack.what)),
    };
    let times = match times {
        Ok(times) => times,
        Err(why) => return assumed(format!("the Corefile is not understood, {why}")),
    };
    let server = server_cache(times, interval);
    match &dns.node_local {
        Err(lack) if server < ASSUMED_DNS_CACHE => assumed(format!("could not {}", lack.what)),
        Ok(true) => {
            let (least, most) = NODE_LOCAL_SECONDS;
            let node = seconds(times.record_ttl.clamp(least, most));
            // An answer that is about to expire in the server's cache is kept for the least time once more.
            let both = if times.cached.is_some() {
                server + seconds(least)
            } else {
                PromDuration::ZERO
            };
            (
                node.max(both),
                "by the Corefile and NodeLocal DNSCache".to_owned(),
            )
        }
        _ => (server, "by the Corefile".to_owned()),
    }
}

fn server_cache(times: DnsTimes, interval: PromDuration) -> PromDuration {
    let cached = times.cached.map_or(PromDuration::ZERO, seconds);
    // The expired answer that a querier gets once more is as old as its last question.
    if times.serves_stale && times.cached.is_some() {
        cached + interval
    } else {
        cached
    }
}

fn seconds(seconds: u64) -> PromDuration {
    PromDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX / 1_000))
}

fn configured(title: &str, sharding: &Sharding, sum: &Sum, report: &mut Report) {
    let periods = [
        ("drain", sharding.drain()),
        // 0s switches it off, of which config-sound warns.
        (
            "termination_drain",
            Some(sharding.termination_drain())
                .filter(|drain| *drain > PromDuration::ZERO)
                .unwrap_or(sum.total()),
        ),
        ("discovery_delay", sharding.discovery_delay()),
    ];
    let short: Vec<_> = periods
        .into_iter()
        .filter(|(_, period)| *period < sum.total())
        .collect();
    if short.is_empty() {
        return;
    }
    let shown: Vec<String> = short
        .iter()
        .map(|(name, period)| format!("{name} is {period}"))
        .collect();
    let names: Vec<&str> = short.iter().map(|(name, _)| *name).collect();
    let message = format!(
        "queriers learn of a pod that came or went within {sum}, but {}: queries fail or are incomplete",
        shown.join(", ")
    );
    report.warn(
        &DISCOVERY_PERIODS,
        title,
        message,
        format!("set {} to at least {}", names.join(", "), sum.advised()),
    );
}

/// Running pods keep the termination drain that they were admitted with.
fn admitted(
    snapshot: &Snapshot,
    gateway: &Gateway<'_>,
    sharding: &Sharding,
    sum: &Sum,
    report: &mut Report,
) {
    let title = gateway.title();
    let drains = match snapshot
        .spaces
        .get(&gateway.namespace)
        .map(|space| &space.termination_drains)
    {
        None => return,
        Some(Err(lack)) => return report.lacks(&DISCOVERY_PERIODS, &title, lack),
        Some(Ok(drains)) => drains,
    };
    let short = |name: &str| {
        drains
            .get(name)
            .filter(|drain| **drain < sum.total() && **drain < sharding.termination_drain())
            .map(|drain| format!("{name} ({drain})"))
    };
    let short: Vec<String> = gateway
        .pods
        .iter()
        .filter_map(|pod| short(&pod.name))
        .collect();
    if !short.is_empty() {
        let message = format!(
            "pods were admitted with a shorter termination drain than the {} that queriers take, and keep it until they are replaced: {}",
            sum.total(),
            listed(&short, ", ")
        );
        let hint = "docs/operations.md#pods-with-an-earlier-termination-drain says how to replace them without loss";
        report.warn(&DISCOVERY_PERIODS, &title, message, hint);
    }
}

/// The StatefulSet controller deletes the next pod as soon as one has been Ready for `minReadySeconds`. A querier that then has a
/// cached SRV answer, without the new pod, and no address for the deleted one has neither.
fn replaced(gateway: &Gateway<'_>, sum: &Sum, report: &mut Report) {
    let Some(facts) = gateway.known.as_ref().map(Known::facts) else {
        return;
    };
    let least = sum.dns + ENDPOINT_SLICE + QUERIER_UPDATE;
    if sum.dns == PromDuration::ZERO
        || facts.replicas < 2
        || i64::from(facts.min_ready_seconds) >= least.as_secs()
    {
        return;
    }
    let message = format!(
        "DNS remembers answers for {} {}, and minReadySeconds is {}: in a rolling restart strict queries are incomplete for as long after each pod",
        sum.dns, sum.dns_from, facts.min_ready_seconds
    );
    report.warn(
        &DISCOVERY_PERIODS,
        &gateway.title(),
        message,
        format!("set spec.minReadySeconds to {}", sum.advised().as_secs()),
    );
}

/// The termination drain of a pod's launcher; `None` without one.
#[must_use]
pub fn termination_drain(containers: &[ContainerWords]) -> Option<PromDuration> {
    const FLAG: &str = "--termination-drain=";
    let launcher = containers.iter().find(|one| {
        one.command
            .first()
            .is_some_and(|word| word == names::AGENT_IN_SHARED_DIR)
    })?;
    // What follows belongs to thanos.
    let own = launcher.command.iter().take_while(|word| *word != "--");
    Some(
        own.filter_map(|word| word.strip_prefix(FLAG)?.parse().ok())
            .last()
            .unwrap_or(PromDuration::ZERO),
    )
}
