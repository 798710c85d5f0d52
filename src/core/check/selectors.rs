//! Objects that select the gateways' pods: PodDisruptionBudgets and Services, managed by timeshard
//! or not.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::api::listed;
use super::gateway::CheckedGateway;
use super::ids::{STATEFULSET_BUDGETS, STATEFULSET_SERVICES, STATEFULSET_SHARD_SERVICES};
use super::snapshot::{Got, Snapshot};
use crate::core::kube::observed::{BudgetFacts, NamespaceFacts, ServiceFacts};
use crate::core::rollout::services::{self, ServicePlan, ServiceWrite};
use crate::core::rollout::shard_objects::{Owner, ShardedSet};

pub(super) fn check(snapshot: &Snapshot, gateways: &[CheckedGateway<'_>], report: &mut Report) {
    for gateway in gateways {
        let Some(space) = snapshot.spaces.get(&gateway.namespace) else {
            continue;
        };
        budgets(gateway, &space.budgets, report);
        services(gateway, &space.services, report);
        shard_services(gateway, &space.services, report);
    }
}

fn budgets(gateway: &CheckedGateway<'_>, budgets: &Got<Vec<BudgetFacts>>, report: &mut Report) {
    let (check, title) = (&STATEFULSET_BUDGETS, gateway.title());
    let budgets = match budgets {
        Ok(budgets) => budgets,
        Err(lack) => return report.lacks(check, &title, lack),
    };
    let selecting = |labels: &BTreeMap<String, String>| -> Vec<&BudgetFacts> {
        budgets
            .iter()
            .filter(|budget| {
                budget
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.selects(labels))
            })
            .collect()
    };
    let of_pods: Vec<Vec<&BudgetFacts>> = gateway.pod_labels().into_iter().map(selecting).collect();
    let names = |of: &[&BudgetFacts]| {
        of.iter()
            .map(|budget| budget.name.clone())
            .collect::<Vec<_>>()
    };
    if let Some(two) = of_pods.iter().find(|of| of.len() > 1) {
        let message = format!(
            "several PodDisruptionBudgets select the same pods ({}), so Kubernetes evicts none of them and no node can be drained",
            listed(&names(two), ", ")
        );
        return report.fail(
            check,
            &title,
            message,
            "delete those not managed by timeshard; each shard then has one",
        );
    }
    match of_pods.iter().flatten().find(|budget| !budget.ours) {
        Some(foreign) => {
            let message = format!(
                "PodDisruptionBudget {} selects its pods, so timeshard creates none for each shard: during a rollout, pods that others depend on may be evicted",
                foreign.name
            );
            let hint = format!(
                "kubectl -n {} delete poddisruptionbudget {}; timeshard then creates its own",
                gateway.namespace, foreign.name
            );
            report.warn(check, &title, message, hint);
        }
        None => report.pass(check, &title, STATEFULSET_BUDGETS.title),
    }
}

fn services(gateway: &CheckedGateway<'_>, services: &Got<Vec<ServiceFacts>>, report: &mut Report) {
    let (check, title) = (&STATEFULSET_SERVICES, gateway.title());
    let services = match services {
        Ok(services) => services,
        Err(lack) => return report.lacks(check, &title, lack),
    };
    let before = report.findings.len();
    let selecting: Vec<&ServiceFacts> = services
        .iter()
        .filter(|service| gateway.is_selected_by(service))
        .collect();
    for service in selecting
        .iter()
        .filter(|service| service.publishes_not_ready)
    {
        let message = format!(
            "Service {} has publishNotReadyAddresses: true: queriers that discover stores through it keep querying a draining pod",
            service.name
        );
        report.warn(
            check,
            &title,
            message,
            "set it to false, or give queriers another Service (querier-endpoints reports whether one uses it)",
        );
    }
    if selecting.is_empty() {
        report.warn(
            check,
            &title,
            "no Service selects its pods, so queriers cannot discover which are ready",
            "create a headless Service (clusterIP: None) with a port named grpc",
        );
    } else if !selecting.iter().any(|service| service.headless) {
        let names: Vec<&str> = selecting
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        let message = format!(
            "no headless Service selects its pods (only {}): behind a ClusterIP, queriers do not notice a drain",
            listed(&names, ", ")
        );
        report.warn(
            check,
            &title,
            message,
            "create a headless Service (clusterIP: None) with a port named grpc",
        );
    }
    if !gateway.service.is_empty()
        && !services
            .iter()
            .any(|service| service.name == gateway.service)
    {
        let message = format!(
            "spec.serviceName is {}, but there is no such Service: its pods have no DNS names",
            gateway.service
        );
        report.warn(
            check,
            &title,
            message,
            format!("create the headless Service {}", gateway.service),
        );
    }
    if report.findings.len() == before {
        report.pass(check, &title, STATEFULSET_SERVICES.title);
    }
}

fn shard_services(
    gateway: &CheckedGateway<'_>,
    services: &Got<Vec<ServiceFacts>>,
    report: &mut Report,
) {
    let (check, title) = (&STATEFULSET_SHARD_SERVICES, gateway.title());
    let Some(known) = gateway
        .known
        .as_ref()
        .filter(|known| known.sharding.shard_services())
    else {
        return;
    };
    let services = match services {
        Ok(services) => services,
        Err(lack) => return report.lacks(check, &title, lack),
    };
    let shards = u32::try_from(known.plan.shards().len()).unwrap_or(u32::MAX);
    let plan = planned_services(gateway, services, shards);
    let before = report.findings.len();
    for conflict in &plan.conflicts {
        report.fail(
            check,
            &title,
            conflict.clone(),
            "until then, queriers with --endpoint-group do not find that shard",
        );
    }
    let writes = plan.writes.iter();
    let missing: Vec<String> = writes
        .filter(|write| !matches!(write, ServiceWrite::Delete { .. }))
        .map(|write| write.name().to_owned())
        .collect();
    if !missing.is_empty() {
        let message = format!(
            "Services of shards are missing or wrong: {}",
            listed(&missing, ", ")
        );
        report.fail(
            check,
            &title,
            message,
            "the leader creates them within seconds: see server-leader and server-permissions",
        );
    }
    if report.findings.len() == before {
        report.pass(
            check,
            &title,
            format!("each of {shards} shards has a Service"),
        );
    }
}

/// Returns the leader's own plan for the Services of shards.
fn planned_services(
    gateway: &CheckedGateway<'_>,
    services: &[ServiceFacts],
    shards: u32,
) -> ServicePlan {
    let facts = NamespaceFacts {
        pods: gateway
            .pods
            .iter()
            .map(|pod| (pod.name.clone(), (*pod).clone()))
            .collect(),
        services: services
            .iter()
            .map(|service| (service.name.clone(), service.clone()))
            .collect(),
        ..NamespaceFacts::default()
    };
    let owner = Owner {
        name: gateway.name.clone(),
        uid: gateway.uid.clone(),
    };
    let set = ShardedSet {
        owner,
        selector: gateway.selector.clone(),
        grpc_port: gateway.grpc_port,
        ..ShardedSet::default()
    };
    services::wanted(&set, true, &(0..shards).collect::<BTreeSet<_>>(), &facts)
}
