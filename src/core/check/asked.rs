//! Whether timeshard can ask the queriers that a StatefulSet with `queriers_complete` relies on.

use super::Report;
use super::gateway::CheckedGateway;
use super::ids::QUERIER_ASKED;
use super::objects::Workload;
use crate::core::config::{Config, ConfiguredQueriers};
use crate::core::thanos::query::read_arguments;

/// Checks a querier of these gateways, given its arguments.
pub(super) fn check(
    workload: &Workload,
    title: &str,
    args: &[String],
    asked: &[&CheckedGateway<'_>],
    config: Option<&Config>,
    report: &mut Report,
) {
    let Some(config) = config else { return };
    let namespace = &workload.metadata.namespace;
    let item = config
        .queriers
        .iter()
        .find(|item| item.namespace == *namespace);
    let elsewhere = item.is_none() && asked.iter().any(|of| of.namespace != *namespace);
    let why = cannot_be_asked(args, item);
    if !elsewhere && why.is_none() {
        report.pass(&QUERIER_ASKED, title, QUERIER_ASKED.title);
        return;
    }
    // Without queriers_complete each step waits for its delays in any case.
    let complete = |gateway: &&&CheckedGateway<'_>| {
        let known = gateway.known.as_ref();
        known.is_some_and(|known| known.sharding.queriers_complete())
            && (why.is_some() || gateway.namespace != *namespace)
    };
    let Some(gateway) = asked.iter().find(complete) else {
        return;
    };
    let of = gateway.title();
    if elsewhere {
        let message = format!(
            "{of} has queriers_complete, but this querier is in another namespace and is not asked: a step does not wait for it, and its queries fail"
        );
        let hint = format!(
            "add {{namespace: {namespace}, selector: ...}} to `queriers` of the configuration"
        );
        report.fail(&QUERIER_ASKED, title, message, hint);
    } else {
        let message = format!(
            "{of} has queriers_complete, but this querier cannot be asked: {}; each step waits drain and discovery_delay for it",
            why.unwrap_or_default()
        );
        let hint = "set port and path in `queriers` of the configuration, or let it serve HTTP without authentication";
        report.warn(&QUERIER_ASKED, title, message, hint);
    }
}

/// Why a querier with these arguments cannot be asked.
fn cannot_be_asked(args: &[String], item: Option<&ConfiguredQueriers>) -> Option<&'static str> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let read = read_arguments(&args);
    let has_port = read.port.is_some() || item.is_some_and(|item| item.port.is_some());
    let has_path = read.prefix.is_some() || item.is_some_and(|item| item.path.is_some());
    if read.http_config {
        Some("it serves HTTPS or wants authentication (--http.config)")
    } else if !has_port {
        Some("its --http-address has no number as port")
    } else if !has_path {
        Some("its --web.route-prefix is not a plain path")
    } else {
        None
    }
}
