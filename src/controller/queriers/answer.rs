//! One request to a querier, and what is kept of the answer.
//!
//! Invariant: of an answer, messages repeat only the HTTP code and its kind; of the names in it, only
//! the addresses of known pods, and those that contain a known
//! Service or StatefulSet, are kept.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::target::QuerierTarget;
use crate::adapters::http_client::{self, GetLimits};
use crate::core::kube::observed::{NamespaceFacts, OTHER_NAMES_BYTES};
use crate::core::thanos::stores::{StoreFault, Stores, StoresReader};

/// Ports of one pod in an answer: a pod has one or two.
const MAX_PORTS: usize = 8;

/// The stores of one answer that may be pods of a StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KnownListing {
    /// By address of a pod.
    pub(super) pods: Vec<(SocketAddr, Option<StoreFault>)>,
    /// By DNS name, such as a group.
    pub(super) names: Vec<(String, Option<StoreFault>)>,
    /// Whether it lists others, too.
    pub(super) others: bool,
}

/// What names in an answer may stand for.
#[derive(Debug, Default)]
pub(super) struct KnownStores {
    addresses: HashSet<IpAddr>,
    services: BTreeSet<String>,
    /// Pods are named after them.
    statefulsets: BTreeSet<String>,
}

impl KnownStores {
    pub(super) fn add(&mut self, facts: &NamespaceFacts) {
        let pods = facts.pods.values();
        let addresses = pods.filter_map(|pod| pod.ip.as_ref()?.parse::<IpAddr>().ok());
        self.addresses.extend(addresses.map(|ip| ip.to_canonical()));
        self.services.extend(facts.services.keys().cloned());
        for pod in facts.pods.values() {
            if !self.statefulsets.contains(&pod.statefulset) {
                self.statefulsets.insert(pod.statefulset.clone());
            }
        }
    }

    /// Keeps what is known of an answer, in a fixed order.
    ///
    /// # Errors
    /// More names than are kept: a pod that is listed by name would count as not listed.
    pub(super) fn keep(&self, stores: Stores<'_>) -> Result<KnownListing, String> {
        let (mut listed, mut bytes) = (KnownListing::default(), 0);
        let is_known = |label: &str| {
            let statefulset = label.rsplit_once('-').map(|(set, _)| set);
            self.services.contains(label)
                || statefulset.is_some_and(|set| self.statefulsets.contains(set))
        };
        for store in stores.0 {
            let address = store.name.parse::<SocketAddr>().ok();
            let address = address.map(|one| SocketAddr::new(one.ip().to_canonical(), one.port()));
            match address {
                Some(address) if self.addresses.contains(&address.ip()) => {
                    listed.pods.push((address, store.error));
                }
                None if mentions(&store.name, is_known) => {
                    bytes += store.name.len() + size_of::<(String, Option<StoreFault>)>();
                    if bytes > OTHER_NAMES_BYTES {
                        return Err(format!(
                            "it lists more than {} KiB of endpoints by name: let it find pods by dnssrv+ or dns+, which list addresses",
                            OTHER_NAMES_BYTES / 1024
                        ));
                    }
                    listed.names.push((store.name.into_owned(), store.error));
                }
                _ => listed.others = true,
            }
        }
        listed.pods.sort_unstable();
        listed.pods.dedup();
        let same = |ports: &[(SocketAddr, _)]| ports[0].0.ip() == ports[MAX_PORTS].0.ip();
        if listed.pods.windows(MAX_PORTS + 1).any(same) {
            return Err(format!("it lists more than {MAX_PORTS} ports of one pod"));
        }
        listed.pods.shrink_to_fit();
        listed.names.sort_unstable();
        Ok(listed)
    }
}

/// Whether a DNS name has a label that `is_known`.
pub(super) fn mentions(name: &str, is_known: impl Fn(&str) -> bool) -> bool {
    name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .any(|label| !label.is_empty() && is_known(label))
}

/// The end of one request.
#[derive(Debug)]
pub(super) struct QuerierReply {
    pub(super) target: QuerierTarget,
    /// When the request was sent: the answer is not older.
    pub(super) sent: Instant,
    /// Size of the answer, also of one that was broken off. Bytes.
    pub(super) received: usize,
    pub(super) answer: Result<KnownListing, String>,
}

/// Asks a querier.
pub(super) async fn ask(
    target: QuerierTarget,
    (deadline, not_own_machine): (Duration, bool),
    known: impl FnOnce(&QuerierTarget) -> KnownStores,
) -> QuerierReply {
    let (sent, mut received) = (Instant::now(), 0);
    let limits = GetLimits {
        deadline,
        not_own_machine,
        ..GetLimits::default()
    };
    let (host, port) = (target.address.ip().to_string(), target.address.port());
    let mut refused = None;
    let read =
        http_client::get_with(
            (&host, port),
            &target.path,
            limits,
            async |status, body| match status {
                StatusCode::OK => collect(body, &mut received, &mut refused).await,
                other => {
                    refused = Some(of_status(other, &target.path));
                    Err(String::new())
                }
            },
        )
        .await;
    let answer = match (read, refused) {
        (_, Some(why)) => Err(why),
        (Ok(reader), None) => match reader.finish() {
            Ok(stores) => known(&target).keep(stores),
            Err(error) => Err(format!("port {port}, {}: {error}", target.path)),
        },
        (Err(why), None) => Err(format!(
            "it cannot be reached on port {port}: {why}: the server must reach that port of the pod; a NetworkPolicy or a service mesh usually prevents it"
        )),
    };
    QuerierReply {
        target,
        sent,
        received,
        answer,
    }
}

async fn collect(
    mut body: Incoming,
    received: &mut usize,
    refused: &mut Option<String>,
) -> Result<StoresReader, String> {
    let mut reader = StoresReader::default();
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|error| error.to_string())?.into_data() else {
            continue;
        };
        *received += bytes.len();
        if let Err(error) = reader.push(&bytes) {
            *refused = Some(error.to_string());
            return Err(String::new());
        }
    }
    Ok(reader)
}

/// Says what to do about an answer with another status than 200.
fn of_status(status: StatusCode, path: &str) -> String {
    let code = status.as_u16();
    let advice = match code {
        300..=399 => {
            "redirects are not followed: set `path` and `port` of this querier in the configuration's `queriers`"
        }
        400 => "it may serve HTTPS, which is not asked",
        401 | 403 => {
            "it wants authentication, which the server does not have: let it answer this path without"
        }
        404 => {
            "no querier serves this path: if it has a prefix, set `path` in the configuration's `queriers`"
        }
        _ => "a querier answers 200",
    };
    format!("it answers {code} on {path}: {advice}")
}
