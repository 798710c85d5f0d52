//! Which queriers are asked, and where.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::controller::poll::schedule::Scheduled;
use crate::core::config::ConfiguredQueriers;
use crate::core::kube::observed::{NamespaceFacts, QuerierFacts, ServiceFacts};
use crate::core::kube::pod_address::Asked;
use crate::core::thanos::query::{AsksSet, asks_set};

/// The path of the list of stores, after a prefix.
const STORES_PATH: &str = "/api/v1/stores";

/// A querier to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QuerierTarget {
    pub(super) uid: String,
    /// Its own.
    pub(super) namespace: String,
    pub(super) configured: bool,
    pub(super) address: SocketAddr,
    pub(super) path: String,
}

impl Scheduled for QuerierTarget {
    fn uid(&self) -> &str {
        &self.uid
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// Returns where a querier is asked; `None` if it has no address yet.
///
/// # Errors
/// Why it is not asked.
pub(super) fn target(
    namespace: &str,
    querier: &QuerierFacts,
    item: Option<&ConfiguredQueriers>,
    asked: Asked,
) -> Option<Result<QuerierTarget, String>> {
    let ip = querier.ip.as_ref()?;
    Some(
        address(querier, item, asked, ip).map(|(address, path)| QuerierTarget {
            uid: querier.uid.clone(),
            namespace: namespace.to_owned(),
            configured: item.is_some(),
            address,
            path,
        }),
    )
}

fn address(
    querier: &QuerierFacts,
    item: Option<&ConfiguredQueriers>,
    asked: Asked,
    ip: &str,
) -> Result<(SocketAddr, String), String> {
    if querier.http_config {
        return Err(
            "it serves HTTPS or wants authentication (--http.config), which the server does not have: not asked".to_owned(),
        );
    }
    let hint = "set it in the configuration's `queriers`";
    let port = item.and_then(|item| item.port).or(querier.port);
    let port = port.ok_or_else(|| format!("its --http-address has no number as port: {hint}"))?;
    let prefix = item.and_then(|item| item.path.as_ref());
    let prefix = prefix.or(querier.prefix.as_ref());
    let prefix =
        prefix.ok_or_else(|| format!("its --web.route-prefix is not a plain path: {hint}"))?;
    let ip = asked.address(ip)?;
    let path = format!("{}{STORES_PATH}", prefix.trim_end_matches('/'));
    Ok((SocketAddr::new(ip, port), path))
}

/// The Services of a StatefulSet's pods. `facts` may have other pods, too.
pub(super) struct SetServices<'a> {
    facts: &'a NamespaceFacts,
    namespace: &'a str,
    set: &'a str,
    known: RefCell<BTreeMap<String, bool>>,
}

impl<'a> SetServices<'a> {
    pub(super) fn new(facts: &'a NamespaceFacts, (namespace, set): (&'a str, &'a str)) -> Self {
        Self {
            facts,
            namespace,
            set,
            known: RefCell::default(),
        }
    }

    /// Whether a querier in namespace `own` asks them.
    pub(super) fn asked_by(&self, own: &str, querier: &QuerierFacts) -> AsksSet {
        let namespaces = (own, self.namespace);
        asks_set(querier, namespaces, &self.facts.services, |service| {
            self.selects(service)
        })
    }

    /// Whether a label of a DNS name is that of one of its Services or pods.
    pub(super) fn is_named(&self, label: &str) -> bool {
        let statefulset = label.rsplit_once('-').map(|(set, _)| set);
        let service = self.facts.services.get(label);
        statefulset == Some(self.set) || service.is_some_and(|service| self.selects(service))
    }

    fn selects(&self, service: &ServiceFacts) -> bool {
        if let Some(known) = self.known.borrow().get(&service.name) {
            return *known;
        }
        let own = self
            .facts
            .pods
            .values()
            .filter(|pod| pod.statefulset == self.set);
        let has = |labels: &BTreeMap<String, String>| {
            service
                .selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        };
        let mut labels = own.map(|pod| &pod.labels);
        let selects = !service.selector.is_empty() && labels.any(has);
        self.known
            .borrow_mut()
            .insert(service.name.clone(), selects);
        selects
    }
}
