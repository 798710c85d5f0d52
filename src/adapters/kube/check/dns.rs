//! How long queriers keep asking a deleted pod: the caches of the cluster's DNS.

use k8s_openapi::api::core::v1::ConfigMap;

use super::ask::{Asker, Form};
use crate::core::check::DnsFacts;
use crate::core::check::objects::Object;
use crate::core::model::duration::PromDuration;

const COREFILE: &str = "Corefile";

/// Reads `CoreDNS`' configuration, and whether each node has its own cache; skipped if the user sets
/// the time.
pub(super) async fn facts(asker: &Asker, given: Option<PromDuration>) -> DnsFacts {
    if given.is_some() {
        return DnsFacts {
            given,
            corefile: Ok(None),
            node_local: Ok(false),
        };
    }
    let (map, daemons) = tokio::join!(
        asker.get::<ConfigMap>(
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
    let corefile = map.map(|map| map?.data?.remove(COREFILE));
    DnsFacts {
        given,
        corefile,
        node_local: daemons.map(|found| found.is_some()),
    }
}
