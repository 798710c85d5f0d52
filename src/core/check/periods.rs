//! Whether `drain`, `termination_drain` and `discovery_delay` are longer than queriers take to
//! notice a pod.
//!
//! Adds up the delays between a pod and a querier: readiness, `EndpointSlice`, DNS caches, the
//! querier's interval and its own update. Delays that cannot be read get their usual value, and the
//! finding reports that.

use super::Report;
use super::api::listed;
use super::corefile::{DnsTimes, times};
use super::gateway::CheckedGateway;
use super::ids::DISCOVERY_PERIODS;
use super::queriers::DNS_INTERVAL;
use super::snapshot::{DnsFacts, Snapshot};
use crate::core::config::Sharding;
use crate::core::gateways::Gateway;
use crate::core::model::duration::PromDuration;
use crate::core::model::names;

/// Until kubelet marks a pod unready: the sidecar's probe has period 1 s and failureThreshold 3.
const READINESS: PromDuration = PromDuration::from_secs(3);
/// Until the endpoint controller has written it and DNS servers have received it.
const ENDPOINT_SLICE: PromDuration = PromDuration::from_secs(1);
/// How often a querier refreshes its set of stores.
const QUERIER_UPDATE: PromDuration = PromDuration::from_secs(5);
/// Assumed if the Corefile cannot be read: kubeadm's `cache 30` and `ttl 30`.
const ASSUMED_DNS_CACHE: PromDuration = PromDuration::from_secs(30);
/// The minimum and maximum TTL of `NodeLocal` `DNSCache` for the cluster's names, in seconds, as in
/// its manifest.
const NODE_LOCAL_SECONDS: (u64, u64) = (5, 30);

/// Checks each gateway against the longest interval of its queriers; `None` if it has none.
pub(super) fn check(
    snapshot: &Snapshot,
    gateways: &[CheckedGateway<'_>],
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
                format!(
                    "queriers notice a pod within {sum}, and the configured periods are longer"
                ),
            );
        }
    }
}

/// The delays until a querier notices a pod that comes or goes.
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

    /// The sum plus a quarter, rounded up to tens of seconds.
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

/// Returns how long DNS caches an answer, and the source of that value.
fn dns_cache(dns: &DnsFacts, interval: PromDuration) -> (PromDuration, String) {
    if let Some(given) = dns.given {
        return (given, "set by --dns-cache".to_owned());
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
        Err(why) => return assumed(format!("the Corefile cannot be parsed: {why}")),
    };
    let server = server_cache(times, interval);
    match &dns.node_local {
        Err(lack) if server < ASSUMED_DNS_CACHE => assumed(format!("could not {}", lack.what)),
        Ok(true) => {
            let (min, max) = NODE_LOCAL_SECONDS;
            let node = seconds(times.record_ttl.clamp(min, max));
            // The node caches an answer that is about to expire on the server for its minimum
            // TTL.
            let both = if times.cached.is_some() {
                server + seconds(min)
            } else {
                PromDuration::ZERO
            };
            (
                node.max(both),
                "from the Corefile and NodeLocal DNSCache".to_owned(),
            )
        }
        _ => (server, "from the Corefile".to_owned()),
    }
}

fn server_cache(times: DnsTimes, interval: PromDuration) -> PromDuration {
    let cached = times.cached.map_or(PromDuration::ZERO, seconds);
    // The stale answer that a querier gets is as old as its previous lookup.
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
        // 0s disables it, which config-sound warns about.
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
        "queriers notice a pod that came or went within {sum}, but {}: queries fail or are incomplete",
        shown.join(", ")
    );
    report.warn(
        &DISCOVERY_PERIODS,
        title,
        message,
        format!("set {} to at least {}", names.join(", "), sum.advised()),
    );
}

/// Checks the termination drain of running pods: they keep the value of their admission.
fn admitted(
    snapshot: &Snapshot,
    gateway: &CheckedGateway<'_>,
    sharding: &Sharding,
    sum: &Sum,
    report: &mut Report,
) {
    let title = gateway.title();
    let Some(space) = snapshot.spaces.get(&gateway.namespace) else {
        return;
    };
    if let Err(lack) = &space.pods {
        return report.lacks(&DISCOVERY_PERIODS, &title, lack);
    }
    let short = |name: &str| {
        space
            .termination_drains
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
            "pods have an earlier termination drain, shorter than the {} that queriers take, and keep it until they are replaced: {}",
            sum.total(),
            listed(&short, ", ")
        );
        let hint = "see docs/operations.md#pods-with-an-earlier-termination-drain for how to replace them without loss";
        report.warn(&DISCOVERY_PERIODS, &title, message, hint);
    }
}

/// Checks `minReadySeconds`. The StatefulSet controller deletes the next pod as soon as one has been
/// Ready for so many seconds. A querier whose cached SRV answer does not yet have the new pod, and
/// that has no address for the deleted one, then has neither.
fn replaced(gateway: &CheckedGateway<'_>, sum: &Sum, report: &mut Report) {
    let Some(facts) = gateway.known.as_ref().map(Gateway::facts) else {
        return;
    };
    let minimum = sum.dns + ENDPOINT_SLICE + QUERIER_UPDATE;
    if sum.dns == PromDuration::ZERO
        || facts.replicas < 2
        || i64::from(facts.min_ready_seconds) >= minimum.as_secs()
    {
        return;
    }
    let message = format!(
        "DNS caches answers for {} ({}), and minReadySeconds is {}: during a rolling restart, strict queries are incomplete for that long after each pod",
        sum.dns, sum.dns_from, facts.min_ready_seconds
    );
    report.warn(
        &DISCOVERY_PERIODS,
        &gateway.title(),
        message,
        format!("set spec.minReadySeconds to {}", sum.advised().as_secs()),
    );
}

/// Returns the termination drain of a pod's launcher, given the commands of its containers; `None`
/// without a launcher.
#[must_use]
pub fn termination_drain<'a>(
    commands: impl IntoIterator<Item = &'a [String]>,
) -> Option<PromDuration> {
    const FLAG: &str = "--termination-drain=";
    let launcher = commands.into_iter().find(|command| {
        command
            .first()
            .is_some_and(|arg| arg == names::AGENT_IN_SHARED_DIR)
    })?;
    // Arguments after `--` are thanos'.
    let own = launcher.iter().take_while(|arg| *arg != "--");
    Some(
        own.filter_map(|arg| arg.strip_prefix(FLAG)?.parse().ok())
            .last()
            .unwrap_or(PromDuration::ZERO),
    )
}
