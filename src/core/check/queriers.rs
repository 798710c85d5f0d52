//! Queriers in the cluster: whether they drop a gateway in time, and whether they notice readiness
//! at all.

use std::borrow::Cow;

use super::Report;
use super::gateway::CheckedGateway;
use super::ids::{QUERIER_ENDPOINTS, QUERIER_INTERVAL};
use super::objects::{ContainerArgs, Workload};
use super::snapshot::Snapshot;
use crate::core::config::Config;
use crate::core::kube::observed::ServiceFacts;
use crate::core::model::duration::PromDuration;
use crate::core::pod::{ContainerView, Text};
use crate::core::thanos::query::{self, QuerierEndpoint, endpoint_values, flag_values};

/// Thanos' default for `--store.sd-dns-interval`.
pub(super) const DNS_INTERVAL: PromDuration = PromDuration::from_secs(30);
/// A gateway's Service that an endpoint names.
struct Named<'a> {
    gateway: &'a CheckedGateway<'a>,
    service: &'a ServiceFacts,
    /// Whether the endpoint names a single pod behind it.
    one_pod: bool,
}

fn named<'a>(
    endpoint: &QuerierEndpoint<'_>,
    own: &str,
    snapshot: &'a Snapshot,
    gateways: &'a [CheckedGateway<'a>],
) -> Option<Named<'a>> {
    endpoint.services().find_map(|named| {
        let namespace = named.namespace.unwrap_or(own);
        let services = snapshot.spaces.get(namespace)?.services.as_ref().ok()?;
        let service = services.iter().find(|service| service.name == named.name)?;
        let gateway = gateways
            .iter()
            .find(|gateway| gateway.namespace == namespace && gateway.is_selected_by(service))?;
        Some(Named {
            gateway,
            service,
            one_pod: named.one_pod,
        })
    })
}

/// Checks every querier. Returns for each gateway the longest interval of its queriers.
pub(super) fn check(
    snapshot: &Snapshot,
    config: Option<&Config>,
    gateways: &[CheckedGateway<'_>],
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
                    (snapshot, config),
                    gateways,
                    &mut intervals,
                    report,
                );
            }
        }
    }
    if intervals.iter().all(Option::is_none) && snapshot.workloads.is_ok() && !gateways.is_empty() {
        let message = "no querier in this cluster names a Service of these gateways, so their queriers were not checked";
        report.skip(&QUERIER_INTERVAL, "", message);
        report.skip(&QUERIER_ENDPOINTS, "", message);
    }
    intervals
}

fn is_querier(container: &ContainerArgs) -> bool {
    let texts = |args: &[String]| {
        (!args.is_empty()).then(|| {
            args.iter()
                .map(|arg| Text(Cow::Owned(arg.clone())))
                .collect()
        })
    };
    query::is_querier(&ContainerView {
        image: Text(Cow::Borrowed(&container.image)),
        command: texts(&container.command),
        args: texts(&container.args),
        ..ContainerView::default()
    })
}

/// Checks one querier, if it queries any of these gateways.
fn querier(
    workload: &Workload,
    kind: &str,
    container: &ContainerArgs,
    (snapshot, config): (&Snapshot, Option<&Config>),
    gateways: &[CheckedGateway<'_>],
    intervals: &mut [Option<PromDuration>],
    report: &mut Report,
) {
    let title = format!("{kind} {}", workload.metadata.title());
    let args: Vec<String> = container
        .command
        .iter()
        .chain(&container.args)
        .cloned()
        .collect();
    let mut asked: Vec<&CheckedGateway<'_>> = Vec::new();
    let before = report.findings.len();
    for text in endpoint_values(&args) {
        let endpoint = QuerierEndpoint::parse(text);
        let Some(named) = named(&endpoint, &workload.metadata.namespace, snapshot, gateways) else {
            continue;
        };
        if !asked.iter().any(|one| std::ptr::eq(*one, named.gateway)) {
            asked.push(named.gateway);
        }
        if let Some(why) = unfit(&endpoint, &named) {
            let (service, namespace) = (&named.service.name, &named.gateway.namespace);
            let hint = format!(
                "use dnssrv+_grpc._tcp.{service}.{namespace}.svc.cluster.local, where {service} is headless and lists only ready pods"
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
    super::asked::check(workload, &title, &args, &asked, config, report);
    let interval = interval(&title, &args, &asked, report);
    for (gateway, longest) in gateways.iter().zip(intervals) {
        if asked.iter().any(|one| std::ptr::eq(*one, gateway)) {
            *longest = Some(longest.map_or(interval, |other| interval.max(other)));
        }
    }
}

/// Returns why a querier would not notice a drain through this endpoint.
fn unfit(endpoint: &QuerierEndpoint<'_>, named: &Named<'_>) -> Option<String> {
    let service = named.service;
    if named.one_pod {
        return Some(
            "a pod's own address is queried whether or not the pod is ready, so its drain has no effect and queries fail".to_owned(),
        );
    }
    if endpoint.lookup.is_none() {
        return Some("without dnssrv+ or dns+, gRPC looks the name up once and never notices changes of pods".to_owned());
    }
    if !service.headless {
        return Some(format!(
            "Service {} has a ClusterIP, behind which the querier sees one store and cannot drop a pod",
            service.name
        ));
    }
    if service.publishes_not_ready {
        return Some(format!(
            "Service {} has publishNotReadyAddresses: true, so a draining pod is still queried and queries fail",
            service.name
        ));
    }
    match endpoint.port {
        Some(port)
            if endpoint.lookup != Some("dns")
                && !service.ports.iter().any(|(name, _)| name == port) =>
        {
            Some(format!(
                "Service {} has no port named {port}, so no store is found",
                service.name
            ))
        }
        _ => None,
    }
}

/// Checks whether the querier resolves DNS often enough to drop a pod; `discovery-periods` adds up
/// the other delays. Returns its interval, or the default if the flag cannot be read.
fn interval(
    title: &str,
    args: &[String],
    asked: &[&CheckedGateway<'_>],
    report: &mut Report,
) -> PromDuration {
    let check = &QUERIER_INTERVAL;
    let given = flag_values(args, "--store.sd-dns-interval").pop();
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
                "it resolves DNS only every {interval}, but {of} waits {shorter} ({which}): it still queries pods that restart, and queries fail"
            );
            let fix = format!(
                "lower --store.sd-dns-interval, or set drain and discovery_delay of {of} as discovery-periods says"
            );
            report.fail(check, title, message, fix);
        }
    }
    if report.findings.len() == before {
        report.pass(check, title, format!("it resolves DNS every {interval}"));
    }
    interval
}
