mod observed;
mod peers;

use std::net::{IpAddr, Ipv4Addr};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::adapters::kube::cluster::Observed;
use crate::controller::cache::Leading;
use crate::core::config::Config;
use crate::core::gateways::Gateways;
use crate::core::kube::observed::{PodFacts, ServiceFacts};
use crate::core::rollout::queriers::{ListedStore, QuerierAnswer};

fn set(namespace: &str) -> SetName {
    (namespace.to_owned(), "store".to_owned())
}

fn labels(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), app.to_owned())])
}

/// A pod of a StatefulSet of this name.
fn pod(statefulset: &str, n: u8) -> PodFacts {
    PodFacts {
        name: format!("{statefulset}-{n}"),
        uid: format!("{statefulset}-u{n}"),
        statefulset: statefulset.to_owned(),
        ip: Some(format!("10.0.0.{n}")),
        labels: labels(statefulset),
        ..PodFacts::default()
    }
}

fn service(name: &str, app: &str) -> ServiceFacts {
    ServiceFacts {
        name: name.to_owned(),
        selector: labels(app),
        headless: true,
        ..ServiceFacts::default()
    }
}

fn querier(n: usize, ip: &str, port: u16) -> QuerierFacts {
    QuerierFacts {
        name: format!("query-{n:03}"),
        uid: format!("q{n}"),
        ip: Some(ip.to_owned()),
        port: Some(port),
        prefix: Some(String::new()),
        endpoints: vec!["dnssrv+_grpc._tcp.store.ns.svc.cluster.local".to_owned()],
        told: true,
        ..QuerierFacts::default()
    }
}

/// A leader whose namespace `ns` has the pods store-1 to store-3, other-9, and these queriers.
fn poller(queriers: impl IntoIterator<Item = QuerierFacts>) -> (Arc<QuerierPoller>, Leading) {
    poller_with(queriers, DEADLINE)
}

/// The same with another deadline.
fn poller_with(
    queriers: impl IntoIterator<Item = QuerierFacts>,
    deadline: Duration,
) -> (Arc<QuerierPoller>, Leading) {
    let cache = ClusterCache::new(Observed::new(Gateways::new(Arc::new(Config::default()))));
    let leading = cache.lead();
    cache.expect("ns");
    for pod in [
        pod("store", 1),
        pod("store", 2),
        pod("store", 3),
        pod("other", 9),
    ] {
        cache.put("ns", pod);
    }
    for service in [service("store", "store"), service("other", "other")] {
        cache.put("ns", service);
    }
    for querier in queriers {
        cache.put_querier("ns", &querier.name.clone(), Ok(Some(querier)));
    }
    let poller = QuerierPoller::new(cache, Asked::OwnMachineToo);
    let poller = QuerierPoller {
        deadline,
        ..Arc::into_inner(poller).unwrap()
    };
    (Arc::new(poller), leading)
}

/// The queriers of `ns/store`, as a reconcile sees them.
fn observed(poller: &QuerierPoller) -> Vec<ObservedQuerier> {
    let facts = poller.cache.with("ns", Clone::clone);
    poller.observed(&set("ns"), &facts, &[], Instant::now())
}

fn stores(querier: &ObservedQuerier) -> Vec<(&str, Option<&str>)> {
    match &querier.answer {
        QuerierAnswer::Stores(stores) => stores
            .iter()
            .map(|ListedStore { address, error }| (address.as_str(), error.as_deref()))
            .collect(),
        other => panic!("{}: {other:?}", querier.name),
    }
}

fn unknown(querier: &ObservedQuerier) -> &str {
    match &querier.answer {
        QuerierAnswer::Unknown(why) => why,
        other => panic!("{}: {other:?}", querier.name),
    }
}
