//! Queriers that can be seen: whether they let go of a gateway in time, and whether they learn of readiness at all.

use std::borrow::Cow;

use super::Report;
use super::around::selects;
use super::ids::{QUERIER_ENDPOINTS, QUERIER_INTERVAL};
use super::objects::{ContainerWords, Workload};
use super::sets::Gateway;
use super::snapshot::Snapshot;
use crate::core::duration::PromDuration;
use crate::core::observed::ServiceFacts;
use crate::core::pod::{ContainerView, Text};
use crate::core::store_args::{Runs, recognise};

/// Thanos' default for `--store.sd-dns-interval`.
pub(super) const DNS_INTERVAL: PromDuration = PromDuration::from_secs(30);
/// Flags that name stores.
const ENDPOINT_FLAGS: [&str; 5] = [
    "--endpoint",
    "--store",
    "--endpoint-strict",
    "--store-strict",
    "--endpoint-group",
];
const STRICT_GROUP: &str = "--endpoint-group-strict";

/// Values of a flag, in both forms that kingpin reads.
pub(super) fn flag<'a>(words: &'a [String], name: &str) -> Vec<&'a str> {
    let at = |(i, word): (usize, &'a String)| match word.split_once('=') {
        Some((flag, value)) if flag == name => Some(value),
        None if word == name => words.get(i + 1).map(String::as_str),
        _ => None,
    };
    words.iter().enumerate().filter_map(at).collect()
}

/// An endpoint as a querier is told.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint<'a> {
    text: &'a str,
    /// `dns`, `dnssrv`, `dnssrvnoa`, or nothing.
    lookup: Option<&'a str>,
    /// The port's name in `_grpc._tcp.`.
    port: Option<&'a str>,
    /// The name's labels, without those of the port.
    labels: Vec<&'a str>,
}

fn endpoint(text: &str) -> Endpoint<'_> {
    let (lookup, rest) = text
        .split_once('+')
        .map_or((None, text), |(lookup, rest)| (Some(lookup), rest));
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    let mut labels: Vec<&str> = host.split('.').filter(|label| !label.is_empty()).collect();
    let port = labels.first().and_then(|label| label.strip_prefix('_'));
    labels.retain(|label| !label.starts_with('_'));
    Endpoint {
        text,
        lookup,
        port,
        labels,
    }
}

/// A gateway's Service, and how an endpoint names it.
struct Named<'a> {
    gateway: &'a Gateway<'a>,
    service: &'a ServiceFacts,
    /// Whether it names one pod behind it.
    one_pod: bool,
}

fn named<'a>(
    endpoint: &Endpoint<'_>,
    own: &str,
    snapshot: &'a Snapshot,
    gateways: &'a [Gateway<'a>],
) -> Option<Named<'a>> {
    let at = |labels: &[&str]| -> Option<(&'a Gateway<'a>, &'a ServiceFacts)> {
        let (name, namespace) = (*labels.first()?, labels.get(1).copied().unwrap_or(own));
        let services = snapshot.spaces.get(namespace)?.services.as_ref().ok()?;
        let service = services.iter().find(|service| service.name == name)?;
        let gateway = gateways
            .iter()
            .find(|gateway| gateway.namespace == namespace && selects(service, gateway))?;
        Some((gateway, service))
    };
    if let Some((gateway, service)) = at(&endpoint.labels) {
        return Some(Named {
            gateway,
            service,
            one_pod: false,
        });
    }
    let (gateway, service) = at(endpoint.labels.get(1..)?)?;
    Some(Named {
        gateway,
        service,
        one_pod: true,
    })
}

/// Checks every querier that is seen; returns for each gateway the longest interval of those that ask it.
pub(super) fn look(
    snapshot: &Snapshot,
    gateways: &[Gateway<'_>],
    report: &mut Report,
) -> Vec<Option<PromDuration>> {
    if let Err(lack) = &snapshot.workloads {
        report.lacks(&QUERIER_INTERVAL, "", lack);
    }
    let sets = snapshot.statefulsets.iter().flatten().filter_map(|set| {
        serde_json::from_value::<Workload>(set.clone())
            .ok()
            .map(|one| (one, "statefulset"))
    });
    let deployments = snapshot
        .workloads
        .iter()
        .flatten()
        .map(|one| (one.clone(), "deployment"));
    let mut intervals = vec![None; gateways.len()];
    for (workload, kind) in deployments.chain(sets) {
        for container in &workload.spec.template.spec.containers {
            if is_querier(container) {
                querier(
                    &workload,
                    kind,
                    container,
                    snapshot,
                    gateways,
                    &mut intervals,
                    report,
                );
            }
        }
    }
    if intervals.iter().all(Option::is_none) && snapshot.workloads.is_ok() && !gateways.is_empty() {
        let message = "no querier of this cluster names a Service of these gateways: what their queriers do could not be looked at";
        report.skip(&QUERIER_INTERVAL, "", message);
        report.skip(&QUERIER_ENDPOINTS, "", message);
    }
    intervals
}

fn is_querier(container: &ContainerWords) -> bool {
    let texts = |words: &[String]| {
        (!words.is_empty()).then(|| {
            words
                .iter()
                .map(|word| Text(Cow::Owned(word.clone())))
                .collect()
        })
    };
    let view = ContainerView {
        image: Text(Cow::Borrowed(&container.image)),
        command: texts(&container.command),
        args: texts(&container.args),
        ..ContainerView::default()
    };
    matches!(recognise(&view, false), Runs::OtherThanos("query"))
}

/// Looks at one querier if it asks any of these gateways.
fn querier(
    workload: &Workload,
    kind: &str,
    container: &ContainerWords,
    snapshot: &Snapshot,
    gateways: &[Gateway<'_>],
    intervals: &mut [Option<PromDuration>],
    report: &mut Report,
) {
    let title = format!("{kind} {}", workload.metadata.title());
    let words: Vec<String> = container
        .command
        .iter()
        .chain(&container.args)
        .cloned()
        .collect();
    let texts: Vec<&str> = ENDPOINT_FLAGS
        .into_iter()
        .chain([STRICT_GROUP])
        .flat_map(|name| flag(&words, name))
        .collect();
    let mut asked: Vec<&Gateway<'_>> = Vec::new();
    let before = report.findings.len();
    for text in texts {
        let endpoint = endpoint(text);
        let Some(named) = named(&endpoint, &workload.metadata.namespace, snapshot, gateways) else {
            continue;
        };
        if !asked.iter().any(|one| std::ptr::eq(*one, named.gateway)) {
            asked.push(named.gateway);
        }
        if let Some(why) = unfit(&endpoint, &named) {
            let (service, namespace) = (&named.service.name, &named.gateway.namespace);
            let hint = format!(
                "name it dnssrv+_grpc._tcp.{service}.{namespace}.svc.cluster.local, where {service} is headless and names ready pods only"
            );
            report.fail(
                &QUERIER_ENDPOINTS,
                &title,
                format!("{}: {why}", endpoint.text),
                hint,
            );
        }
    }
    if asked.is_empty() {
        return;
    }
    if report.findings.len() == before {
        report.pass(&QUERIER_ENDPOINTS, &title, QUERIER_ENDPOINTS.title);
    }
    let interval = interval(&title, &words, &asked, report);
    for (gateway, longest) in gateways.iter().zip(intervals) {
        if asked.iter().any(|one| std::ptr::eq(*one, gateway)) {
            *longest = Some(longest.map_or(interval, |other| interval.max(other)));
        }
    }
}

/// Why a drain does not reach the querier through this endpoint.
fn unfit(endpoint: &Endpoint<'_>, named: &Named<'_>) -> Option<String> {
    let service = named.service;
    if named.one_pod {
        return Some(
            "a pod's own address is asked whether the pod is ready or not, so its drain has no effect and queries fail".to_owned(),
        );
    }
    if endpoint.lookup.is_none() {
        return Some("without dnssrv+ or dns+ the name is looked up once by gRPC, and pods that come and go are not seen".to_owned());
    }
    if !service.headless {
        return Some(format!(
            "Service {} has a ClusterIP, behind which the querier sees one store and cannot let go of a pod",
            service.name
        ));
    }
    if service.publishes_not_ready {
        return Some(format!(
            "Service {} has publishNotReadyAddresses: true, so a pod that drains is still asked and queries fail",
            service.name
        ));
    }
    match endpoint.port {
        Some(port)
            if endpoint.lookup != Some("dns")
                && !service.ports.iter().any(|(name, _)| name == port) =>
        {
            Some(format!(
                "Service {} has no port named {port}, so nothing is found",
                service.name
            ))
        }
        _ => None,
    }
}

/// Whether it looks often enough to let go of a pod at all; what else takes its time is for `discovery-periods`. Returns its
/// interval, or the default where the flag cannot be read.
fn interval(
    title: &str,
    words: &[String],
    asked: &[&Gateway<'_>],
    report: &mut Report,
) -> PromDuration {
    let check = &QUERIER_INTERVAL;
    let given = flag(words, "--store.sd-dns-interval").pop();
    let Ok(interval) = given.map_or(Ok(DNS_INTERVAL), str::parse::<PromDuration>) else {
        let message = format!(
            "--store.sd-dns-interval={} cannot be compared with drain and discovery_delay",
            given.unwrap_or_default()
        );
        report.warn(
            check,
            title,
            message,
            "write it in Prometheus' units, such as 30s",
        );
        return DNS_INTERVAL;
    };
    let before = report.findings.len();
    for gateway in asked {
        let Some(sharding) = gateway.known.as_ref().map(|known| &known.sharding) else {
            continue;
        };
        let of = gateway.title();
        let (drain, delay) = (sharding.drain(), sharding.discovery_delay());
        let (which, shorter) = if drain < delay {
            ("drain", drain)
        } else {
            ("discovery_delay", delay)
        };
        if interval >= shorter {
            let message = format!(
                "it looks at DNS every {interval}, and {of} waits {shorter} only ({which}): it still asks pods that restart, and queries fail"
            );
            let fix = format!(
                "set --store.sd-dns-interval lower, or drain and discovery_delay of {of} as discovery-periods says"
            );
            report.fail(check, title, message, fix);
        }
    }
    if report.findings.len() == before {
        report.pass(check, title, format!("it looks at DNS every {interval}"));
    }
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_taken_apart() {
        let srv = endpoint("dnssrv+_grpc._tcp.store.monitoring.svc.cluster.local");
        assert_eq!(
            (srv.lookup, srv.port, &srv.labels[..2]),
            (Some("dnssrv"), Some("grpc"), &["store", "monitoring"][..])
        );
        let plain = endpoint("store-0.store.monitoring.svc:10901");
        assert_eq!(
            (plain.lookup, plain.port, plain.labels),
            (None, None, vec!["store-0", "store", "monitoring", "svc"])
        );
        for odd in ["", "+", "dns+", "dns+:", "_", "._.:", "dns+[::1]:80"] {
            endpoint(odd);
        }
    }

    #[test]
    fn flags_are_found_in_both_forms() {
        let words = [
            "query",
            "--endpoint=a",
            "--endpoint",
            "b",
            "--endpoint-group=c",
            "--endpoint",
        ]
        .map(str::to_owned);
        assert_eq!(flag(&words, "--endpoint"), ["a", "b"]);
    }
}
