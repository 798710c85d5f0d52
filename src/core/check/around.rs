//! What selects the gateways' pods: budgets and Services, ours and other people's.

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::api::listed;
use super::ids::{STATEFULSET_BUDGETS, STATEFULSET_SERVICES, STATEFULSET_SHARD_SERVICES};
use super::objects::Meta;
use super::sets::Gateway;
use super::snapshot::{Got, Snapshot};
use crate::core::names;
use crate::core::observed::{BudgetFacts, NamespaceFacts, PodFacts, ServiceFacts};
use crate::core::owned::{Owner, ShardedSet};
use crate::core::shard_services::{self, ServicePlan, ServiceWrite};

pub(super) fn look(snapshot: &Snapshot, gateways: &[Gateway<'_>], report: &mut Report) {
    for gateway in gateways {
        let Some(space) = snapshot.spaces.get(&gateway.namespace) else {
            continue;
        };
        budgets(gateway, &space.budgets, report);
        services(gateway, &space.services, report);
        shard_services(gateway, &space.services, report);
    }
}

/// Labels of its pods: of those that there are, else what the template says.
fn labels<'a>(gateway: &'a Gateway<'_>) -> Vec<&'a BTreeMap<String, String>> {
    if gateway.pods.is_empty() {
        vec![&gateway.labels]
    } else {
        gateway.pods.iter().map(|pod| &pod.labels).collect()
    }
}

fn budgets(gateway: &Gateway<'_>, budgets: &Got<Vec<BudgetFacts>>, report: &mut Report) {
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
    let of_pods: Vec<Vec<&BudgetFacts>> = labels(gateway).into_iter().map(selecting).collect();
    let names = |of: &[&BudgetFacts]| {
        of.iter()
            .map(|budget| budget.name.clone())
            .collect::<Vec<_>>()
    };
    if let Some(two) = of_pods.iter().find(|of| of.len() > 1) {
        let message = format!(
            "several budgets select the same pods ({}), so Kubernetes evicts none of them and no node can be drained",
            listed(&names(two), ", ")
        );
        return report.fail(
            check,
            &title,
            message,
            "delete the ones that are not ours; each shard then has one",
        );
    }
    match of_pods.iter().flatten().find(|budget| !budget.ours) {
        Some(foreign) => {
            let message = format!(
                "budget {} selects its pods, so there is none for each shard: during a rollout pods may be evicted that others wait for",
                foreign.name
            );
            let hint = format!(
                "kubectl -n {} delete poddisruptionbudget {}; ours are then made",
                gateway.namespace, foreign.name
            );
            report.warn(check, &title, message, hint);
        }
        None => report.pass(check, &title, STATEFULSET_BUDGETS.title),
    }
}

/// Whether a Service selects pods of a gateway.
pub(super) fn selects(service: &ServiceFacts, gateway: &Gateway<'_>) -> bool {
    let has = |labels: &&BTreeMap<String, String>| {
        service
            .selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    };
    let of_shard = service.ours && service.owner_uid.as_ref() == Some(&gateway.uid);
    of_shard
        || (!service.selector.is_empty()
            && (has(&&gateway.labels) || labels(gateway).iter().any(has)))
}

fn services(gateway: &Gateway<'_>, services: &Got<Vec<ServiceFacts>>, report: &mut Report) {
    let (check, title) = (&STATEFULSET_SERVICES, gateway.title());
    let services = match services {
        Ok(services) => services,
        Err(lack) => return report.lacks(check, &title, lack),
    };
    let before = report.findings.len();
    let selecting: Vec<&ServiceFacts> = services
        .iter()
        .filter(|service| selects(service, gateway))
        .collect();
    for service in selecting
        .iter()
        .filter(|service| service.publishes_not_ready)
    {
        let message = format!(
            "Service {} has publishNotReadyAddresses: true: queriers that find stores through it keep asking a pod that drains",
            service.name
        );
        report.warn(
            check,
            &title,
            message,
            "set it to false, or give queriers another Service (querier-endpoints says whether one uses it)",
        );
    }
    if selecting.is_empty() {
        report.warn(
            check,
            &title,
            "no Service selects its pods, so queriers cannot learn which are ready",
            "make a headless Service (clusterIP: None) with a port named grpc",
        );
    } else if !selecting.iter().any(|service| service.headless) {
        let names: Vec<&str> = selecting
            .iter()
            .map(|service| service.name.as_str())
            .collect();
        let message = format!(
            "no headless Service selects its pods (only {}): behind a ClusterIP a drain tells queriers nothing",
            listed(&names, ", ")
        );
        report.warn(
            check,
            &title,
            message,
            "make a headless Service (clusterIP: None) with a port named grpc",
        );
    }
    if !gateway.service.is_empty()
        && !services
            .iter()
            .any(|service| service.name == gateway.service)
    {
        let message = format!(
            "spec.serviceName is {}, and there is no such Service: its pods have no names in DNS",
            gateway.service
        );
        report.warn(
            check,
            &title,
            message,
            format!("make the headless Service {}", gateway.service),
        );
    }
    if report.findings.len() == before {
        report.pass(check, &title, STATEFULSET_SERVICES.title);
    }
}

fn shard_services(gateway: &Gateway<'_>, services: &Got<Vec<ServiceFacts>>, report: &mut Report) {
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
            "until then queriers with --endpoint-group do not find that shard",
        );
    }
    let name = |write: &ServiceWrite| match write {
        ServiceWrite::Create(service) | ServiceWrite::Replace { service, .. } => {
            Some(service.name.clone())
        }
        ServiceWrite::Delete { .. } => None,
    };
    let missing: Vec<String> = plan.writes.iter().filter_map(name).collect();
    if !missing.is_empty() {
        let message = format!(
            "Services of shards are missing or not as they should be: {}",
            listed(&missing, ", ")
        );
        report.fail(
            check,
            &title,
            message,
            "the leader makes them within seconds: see server-leader and server-permissions",
        );
    }
    if report.findings.len() == before {
        report.pass(
            check,
            &title,
            format!("{shards} shards have a Service each"),
        );
    }
}

/// The refresher's own answer to which Services of shards should be there.
fn planned_services(gateway: &Gateway<'_>, services: &[ServiceFacts], shards: u32) -> ServicePlan {
    let pod = |meta: &&Meta| {
        let facts = PodFacts {
            name: meta.name.clone(),
            statefulset: gateway.name.clone(),
            shard_label: meta.labels.get(names::SHARD_LABEL).cloned(),
            labels: meta.labels.clone(),
            ..PodFacts::default()
        };
        (meta.name.clone(), facts)
    };
    let facts = NamespaceFacts {
        pods: gateway.pods.iter().map(pod).collect(),
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
    shard_services::wanted(&set, true, &(0..shards).collect::<BTreeSet<_>>(), &facts)
}
