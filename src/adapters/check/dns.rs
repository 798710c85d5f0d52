//! What decides how long queriers ask a pod that is gone: the cluster's DNS, and the drains that pods were admitted with.

use std::collections::BTreeMap;

use super::ask::{Asker, Form, escaped};
use crate::core::check::objects::{MapView, Object, ServerPod};
use crate::core::check::periods::termination_drain;
use crate::core::check::{DnsFacts, Got};
use crate::core::duration::PromDuration;
use crate::core::names;

const COREFILE: &str = "Corefile";

/// Reads `CoreDNS`' configuration, and whether each node has a cache of its own; nothing where the user has said how long it is.
pub(super) async fn facts(asker: &Asker, told: Option<PromDuration>) -> DnsFacts {
    if told.is_some() {
        return DnsFacts {
            told,
            corefile: Ok(None),
            node_local: Ok(false),
        };
    }
    let (map, daemons) = tokio::join!(
        asker.get::<MapView>(
            "get configmap coredns in namespace kube-system",
            "/api/v1/namespaces/kube-system/configmaps/coredns",
            Form::Whole
        ),
        asker.get::<Object>(
            "get daemonset node-local-dns in namespace kube-system",
            "/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns",
            Form::Metadata
        ),
    );
    let corefile = map.map(|map| map.and_then(|mut map| map.data.remove(COREFILE)));
    DnsFacts {
        told,
        corefile,
        node_local: daemons.map(|found| found.is_some()),
    }
}

/// The termination drains of a namespace's injected pods, by name.
pub(super) async fn termination_drains(
    asker: &Asker,
    namespace: &str,
) -> Got<BTreeMap<String, PromDuration>> {
    let selector = format!("&labelSelector={}", escaped(names::SHARD_LABEL));
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let pods = asker
        .list::<ServerPod>(
            format!("list pods in namespace {namespace}"),
            path,
            &selector,
            Form::Whole,
        )
        .await?;
    Ok(pods
        .into_iter()
        .filter_map(|pod| Some((pod.metadata.name, termination_drain(&pod.spec.containers)?)))
        .collect())
}
