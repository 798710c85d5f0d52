//! Finds pods among the endpoints that a querier lists.

use ::core::net::IpAddr;
use std::collections::HashMap;

use super::ListedStore;
use crate::core::kube::observed::PodFacts;
use crate::core::model::names::THANOS_GRPC_PORT;

/// Where the pods of a StatefulSet serve gRPC.
#[derive(Clone, Copy, Debug)]
pub struct GrpcAddresses<'a> {
    pub namespace: &'a str,
    /// The port in `--grpc-address`; `None` for Thanos' default.
    pub port: Option<u16>,
}

/// How a querier lists a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodListing<'a> {
    /// It sends queries there.
    Used,
    /// It lists the pod with this error.
    Failing(&'a str),
}

/// The endpoints of one answer, by host.
#[derive(Debug)]
pub struct Listing<'a> {
    /// By IP address.
    ips: HashMap<IpAddr, Vec<ListedEndpoint<'a>>>,
    /// By the first label of the host name.
    names: HashMap<&'a str, Vec<ListedEndpoint<'a>>>,
    is_empty: bool,
}

#[derive(Clone, Copy, Debug)]
struct ListedEndpoint<'a> {
    /// The host name after its first label.
    domain: &'a str,
    port: u16,
    error: Option<&'a str>,
}

impl<'a> Listing<'a> {
    #[must_use]
    pub fn of(stores: &'a [ListedStore]) -> Self {
        let mut listing = Self {
            ips: HashMap::new(),
            names: HashMap::new(),
            is_empty: stores.is_empty(),
        };
        for store in stores {
            let Some((host, port)) = store.address.rsplit_once(':') else {
                continue;
            };
            let Ok(port) = port.parse() else { continue };
            let host = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host);
            let (name, domain) = host.split_once('.').unwrap_or((host, ""));
            let error = store.error.as_deref();
            let endpoint = ListedEndpoint {
                domain,
                port,
                error,
            };
            match host.parse() {
                Ok(ip) => listing.ips.entry(ip).or_default().push(endpoint),
                Err(_) => listing.names.entry(name).or_default().push(endpoint),
            }
        }
        listing
    }

    /// Whether it lists no endpoint at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Returns how the pod is listed; `None` if it is not. A pod that is listed twice is used if one
    /// of its addresses is.
    #[must_use]
    pub fn pod(&self, pod: &PodFacts, at: GrpcAddresses<'_>) -> Option<PodListing<'a>> {
        let port = at.port.unwrap_or(THANOS_GRPC_PORT);
        let by_ip = pod
            .ip
            .as_ref()
            .and_then(|ip| self.ips.get(&ip.parse::<IpAddr>().ok()?));
        // `<pod>.<service>.<namespace>...`, or shorter.
        let is_own = |endpoint: &&ListedEndpoint<'_>| {
            let mut labels = endpoint.domain.split('.').skip(1);
            labels
                .next()
                .is_none_or(|namespace| namespace.is_empty() || namespace == at.namespace)
        };
        let by_name = self.names.get(pod.name.as_str());
        let found = by_ip
            .into_iter()
            .flatten()
            .chain(by_name.into_iter().flatten().filter(is_own))
            .filter(|endpoint| endpoint.port == port);
        found.fold(None, |known, endpoint| match (known, endpoint.error) {
            (Some(PodListing::Used), _) | (_, None) => Some(PodListing::Used),
            (_, Some(error)) => Some(PodListing::Failing(error)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: GrpcAddresses<'_> = GrpcAddresses {
        namespace: "monitoring",
        port: None,
    };

    fn pod(ip: &str) -> PodFacts {
        PodFacts {
            name: "store-1".to_owned(),
            ip: Some(ip.to_owned()),
            ..PodFacts::default()
        }
    }

    fn store(address: &str, error: Option<&str>) -> ListedStore {
        ListedStore {
            address: address.to_owned(),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn a_pod_is_found_by_its_address_or_its_name() {
        for (address, ip, listed) in [
            ("10.0.0.7:10901", "10.0.0.7", true),
            ("10.0.0.7:10902", "10.0.0.7", false),
            ("10.0.0.71:10901", "10.0.0.7", false),
            ("[fd00::7]:10901", "fd00:0:0::7", true),
            ("[fd00::8]:10901", "fd00::7", false),
            ("store-1:10901", "10.0.0.7", true),
            ("store-1.store:10901", "10.0.0.7", true),
            (
                "store-1.store.monitoring.svc.cluster.local:10901",
                "10.0.0.7",
                true,
            ),
            ("store-1.store.other.svc:10901", "10.0.0.7", false),
            ("store-10.store:10901", "10.0.0.7", false),
            ("store.monitoring.svc:10901", "10.0.0.7", false),
            ("thanos:///dnssrv+_grpc._tcp.store", "10.0.0.7", false),
            ("10.0.0.7", "10.0.0.7", false),
            ("", "10.0.0.7", false),
        ] {
            let stores = [store(address, None)];
            let found = Listing::of(&stores).pod(&pod(ip), AT);
            assert_eq!(found, listed.then_some(PodListing::Used), "{address}");
        }
        let at = GrpcAddresses {
            port: Some(19091),
            ..AT
        };
        let stores = [store("10.0.0.7:19091", None)];
        assert!(Listing::of(&stores).pod(&pod("10.0.0.7"), at).is_some());
    }

    #[test]
    fn a_pod_is_used_if_one_of_its_addresses_is() {
        let (ok, bad) = (
            store("10.0.0.7:10901", None),
            store("store-1.store:10901", Some("refused")),
        );
        let found = |stores: &[ListedStore]| {
            let listing = Listing::of(stores);
            listing.pod(&pod("10.0.0.7"), AT) == Some(PodListing::Used)
        };
        assert!(found(&[ok.clone(), bad.clone()]));
        assert!(found(&[bad.clone(), ok]));
        let only = [bad];
        assert_eq!(
            Listing::of(&only).pod(&pod("10.0.0.7"), AT),
            Some(PodListing::Failing("refused"))
        );
    }
}
