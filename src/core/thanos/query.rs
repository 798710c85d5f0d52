//! The command line of `thanos query`: where its HTTP port is, and which Services it asks.
//!
//! As far as the arguments tell: files are not read, and references such as `$(ENV)` are not
//! expanded.

use std::collections::BTreeMap;

use super::args::{Runs, port_of, recognise};
use crate::core::kube::observed::{QuerierFacts, ServiceFacts};
use crate::core::pod::ContainerView;

/// Thanos' default for `--http-address`.
pub const DEFAULT_HTTP_PORT: u16 = 10902;
/// Flags that name an endpoint each. Members of a group are not listed, only the group.
const ENDPOINT_FLAGS: [&str; 6] = [
    "--endpoint",
    "--store",
    "--endpoint-strict",
    "--store-strict",
    "--endpoint-group",
    "--endpoint-group-strict",
];
/// Flags whose endpoints are in a file, or in YAML.
const OTHER_SOURCES: [&str; 3] = [
    "--endpoint.sd-config-file",
    "--endpoint.sd-config",
    "--store.sd-files",
];
/// Endpoints of one querier that are kept.
const MAX_ENDPOINTS: usize = 16;
/// A DNS name has at most 253 characters, and a port's name precedes it.
const MAX_ENDPOINT_BYTES: usize = 320;
/// Length of a prefix that is asked. Bytes.
const MAX_PREFIX_BYTES: usize = 128;

/// An endpoint as a flag gives it.
#[derive(Debug, PartialEq, Eq)]
pub struct QuerierEndpoint<'a> {
    pub text: &'a str,
    /// `dns`, `dnssrv` or `dnssrvnoa`.
    pub lookup: Option<&'a str>,
    /// The port's name in `_grpc._tcp.`.
    pub port: Option<&'a str>,
    /// The DNS name's labels, without those of the port.
    pub labels: Vec<&'a str>,
}

/// A Service that a DNS name may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedService<'a> {
    pub name: &'a str,
    /// The querier's own namespace if there is none.
    pub namespace: Option<&'a str>,
    /// Whether the DNS name is that of a single pod behind it.
    pub one_pod: bool,
}

impl<'a> QuerierEndpoint<'a> {
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let (lookup, rest) = text
            .split_once('+')
            .map_or((None, text), |(lookup, rest)| (Some(lookup), rest));
        let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
        let mut labels: Vec<&str> = host.split('.').filter(|label| !label.is_empty()).collect();
        let port = labels.first().and_then(|label| label.strip_prefix('_'));
        labels.retain(|label| !label.starts_with('_'));
        Self {
            text,
            lookup,
            port,
            labels,
        }
    }

    /// The Services that its DNS name may stand for, the likeliest first.
    pub fn services(&self) -> impl Iterator<Item = NamedService<'a>> {
        let at = |from: usize, one_pod: bool| {
            let labels = self.labels.get(from..)?;
            Some(NamedService {
                name: labels.first()?,
                namespace: labels.get(1).copied(),
                one_pod,
            })
        };
        [at(0, false), at(1, true)].into_iter().flatten()
    }

    /// The namespace, if the DNS name is that of a Service and has one.
    fn namespace(&self) -> Option<&'a str> {
        let at = self.labels.iter().position(|label| *label == "svc")?;
        self.labels.get(at.checked_sub(1)?).copied()
    }
}

/// Returns every value of a flag, in both forms that kingpin reads: `--flag=value` and `--flag
/// value`.
#[must_use]
pub fn flag_values<'a, T: AsRef<str>>(args: &'a [T], name: &str) -> Vec<&'a str> {
    let at = |(i, arg): (usize, &'a T)| match arg.as_ref().split_once('=') {
        Some((flag, value)) if flag == name => Some(value),
        None if arg.as_ref() == name => args.get(i + 1).map(AsRef::as_ref),
        _ => None,
    };
    args.iter().enumerate().filter_map(at).collect()
}

/// Returns the values of all flags that name an endpoint.
#[must_use]
pub fn endpoint_values<T: AsRef<str>>(args: &[T]) -> Vec<&str> {
    ENDPOINT_FLAGS
        .into_iter()
        .flat_map(|name| flag_values(args, name))
        .collect()
}

#[must_use]
pub fn is_querier(container: &ContainerView<'_>) -> bool {
    matches!(recognise(container, false), Runs::OtherThanos("query"))
}

/// Reads the arguments of `thanos query`, `command` and `args` together.
#[must_use]
pub fn read_arguments(args: &[&str]) -> QuerierFacts {
    let last = |name| flag_values(args, name).pop();
    let address = last("--http-address");
    // As thanos does: the external prefix, unless there is one for routes.
    let route = last("--web.route-prefix").filter(|prefix| !prefix.is_empty());
    let prefix = route.or(last("--web.external-prefix")).unwrap_or_default();
    let given = endpoint_values(args);
    let fits = |text: &&&str| text.len() <= MAX_ENDPOINT_BYTES;
    let endpoints: Vec<String> = given
        .iter()
        .filter(fits)
        .take(MAX_ENDPOINTS)
        .map(|text| (*text).to_owned())
        .collect();
    let elsewhere = |arg: &str| {
        let flag = arg.split_once('=').map_or(arg, |(flag, _)| flag);
        OTHER_SOURCES.contains(&flag) || arg.starts_with('@')
    };
    QuerierFacts {
        port: address.map_or(Some(DEFAULT_HTTP_PORT), port_of),
        prefix: route_prefix(prefix),
        http_config: last("--http.config").is_some_and(|file| !file.is_empty()),
        told: endpoints.len() == given.len() && !args.iter().any(|arg| elsewhere(arg)),
        endpoints,
        ..QuerierFacts::default()
    }
}

/// Returns the prefix of all paths, empty or with a leading slash. `None` if it is none that a
/// querier serves: the author of a pod's arguments must not compose any other request with it.
#[must_use]
pub fn route_prefix(text: &str) -> Option<String> {
    let trimmed = text.trim_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let dots = |part: &str| ["", ".", ".."].contains(&part);
    if trimmed.is_empty() {
        return Some(String::new());
    }
    let is_path = trimmed.len() <= MAX_PREFIX_BYTES
        && trimmed.bytes().all(plain)
        && !trimmed.split('/').any(dots);
    is_path.then(|| format!("/{trimmed}"))
}

/// Whether a querier asks the pods of a StatefulSet, by its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsksSet {
    /// An endpoint names one of its Services.
    Yes,
    /// The arguments do not tell.
    Maybe,
    /// Every endpoint names a Service without these pods.
    No,
}

/// Whether a querier in namespace `own` asks pods of `namespace`, which has these Services: those
/// that `selects` says a Service has.
#[must_use]
pub fn asks_set(
    querier: &QuerierFacts,
    (own, namespace): (&str, &str),
    services: &BTreeMap<String, ServiceFacts>,
    selects: impl Fn(&ServiceFacts) -> bool,
) -> AsksSet {
    let (mut asks, mut other) = (false, querier.told);
    for text in &querier.endpoints {
        let endpoint = QuerierEndpoint::parse(text);
        let here = endpoint
            .services()
            .filter(|named| named.namespace.unwrap_or(own) == namespace);
        let mut known = here.filter_map(|named| services.get(named.name));
        match known.next() {
            Some(service) if selects(service) => asks = true,
            // Without a selector its endpoints may be any pods.
            Some(service) => other &= !service.selector.is_empty(),
            None => other &= endpoint.namespace().is_some_and(|of| of != namespace),
        }
    }
    match (asks, other) {
        (true, _) => AsksSet::Yes,
        (false, true) => AsksSet::No,
        (false, false) => AsksSet::Maybe,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn endpoints_are_parsed() {
        let srv = QuerierEndpoint::parse("dnssrv+_grpc._tcp.store.monitoring.svc.cluster.local");
        assert_eq!(
            (srv.lookup, srv.port, &srv.labels[..2]),
            (Some("dnssrv"), Some("grpc"), &["store", "monitoring"][..])
        );
        let plain = QuerierEndpoint::parse("store-0.store.monitoring.svc:10901");
        assert_eq!((plain.lookup, plain.port), (None, None));
        assert_eq!(plain.labels, vec!["store-0", "store", "monitoring", "svc"]);
        assert_eq!(plain.namespace(), Some("monitoring"));
        let named: Vec<_> = plain
            .services()
            .map(|named| (named.name, named.namespace, named.one_pod))
            .collect();
        assert_eq!(
            named,
            [
                ("store-0", Some("store"), false),
                ("store", Some("monitoring"), true)
            ]
        );
        for odd in ["", "+", "dns+", "dns+:", "_", "._.:", "dns+[::1]:80", "svc"] {
            let endpoint = QuerierEndpoint::parse(odd);
            assert!(endpoint.services().count() <= 2 && endpoint.namespace().is_none());
        }
    }

    #[test]
    fn flags_are_found_in_both_forms() {
        let args = [
            "query",
            "--endpoint=a",
            "--endpoint",
            "b",
            "--endpoint-group=c",
            "--endpoint",
        ];
        assert_eq!(flag_values(&args, "--endpoint"), ["a", "b"]);
        assert_eq!(endpoint_values(&args), ["a", "b", "c"]);
    }

    #[test]
    fn the_port_and_the_prefix_are_those_that_thanos_serves() {
        let read = |args: &[&str]| {
            let read = read_arguments(args);
            (read.port, read.prefix, read.http_config)
        };
        let prefix = |text: &str| Some(text.to_owned());
        assert_eq!(read(&["query"]), (Some(10902), prefix(""), false));
        assert_eq!(
            read(&[
                "query",
                "--http-address=0.0.0.0:9090",
                "--web.route-prefix=/"
            ]),
            (Some(9090), prefix(""), false)
        );
        assert_eq!(
            read(&[
                "query",
                "--web.external-prefix",
                "/thanos/",
                "--http.config=/x"
            ]),
            (Some(10902), prefix("/thanos"), true)
        );
        assert_eq!(
            read(&["--web.external-prefix=/a", "--web.route-prefix=b/c"]),
            (Some(10902), prefix("/b/c"), false)
        );
        assert_eq!(
            read(&["--web.external-prefix=/a", "--web.route-prefix=/"]).1,
            prefix("")
        );
        assert_eq!(read(&["--http-address=:$(PORT)"]).0, None);
        for odd in [
            "/a?b",
            "/../x",
            "a b",
            "/a%2f",
            "/a#",
            "/$(X)",
            "//a//b",
            "/a\r\nHost: x",
        ] {
            assert_eq!(route_prefix(odd), None, "{odd:?}");
        }
        assert_eq!(route_prefix(&"a".repeat(MAX_PREFIX_BYTES + 1)), None);
    }

    #[test]
    fn the_arguments_tell_which_services_are_asked() {
        let service = |name: &str, app: &str| {
            let selector = [("app".to_owned(), app.to_owned())].into();
            let facts = ServiceFacts {
                name: name.to_owned(),
                selector: if app.is_empty() {
                    BTreeMap::new()
                } else {
                    selector
                },
                ..ServiceFacts::default()
            };
            (name.to_owned(), facts)
        };
        let services = BTreeMap::from([
            service("store", "store"),
            service("rule", "rule"),
            service("by-hand", ""),
        ]);
        let selects = |service: &ServiceFacts| service.name == "store";
        let asks_from = |own, args: &[&str]| {
            let namespaces = (own, "monitoring");
            asks_set(&read_arguments(args), namespaces, &services, selects)
        };
        let asks = |args: &[&str]| asks_from("monitoring", args);
        for (args, expected) in [
            (
                &["--endpoint=dnssrv+_grpc._tcp.store.monitoring.svc"][..],
                AsksSet::Yes,
            ),
            (&["--store", "dns+store:10901"], AsksSet::Yes),
            (&["--endpoint-strict=store-0.store:10901"], AsksSet::Yes),
            (
                &["--endpoint-group=dns+store:1", "--endpoint=dns+rule:1"],
                AsksSet::Yes,
            ),
            (&["--endpoint=dns+rule:10901"], AsksSet::No),
            (
                &["--endpoint=dns+store.other.svc.cluster.local:1"],
                AsksSet::No,
            ),
            (&[], AsksSet::No),
            (&["--endpoint=dns+thanos.example.com:443"], AsksSet::Maybe),
            (&["--endpoint=dns+by-hand:443"], AsksSet::Maybe),
            (&["--endpoint=10.0.0.1:10901"], AsksSet::Maybe),
            (
                &["--endpoint=dns+rule:1", "--endpoint.sd-config-file=/x"],
                AsksSet::Maybe,
            ),
            (&["--store.sd-files", "/x"], AsksSet::Maybe),
            (&["--endpoint.sd-config=x"], AsksSet::Maybe),
        ] {
            assert_eq!(asks(args), expected, "{args:?}");
        }
        for (endpoint, expected) in [
            ("--endpoint=dns+store.monitoring:1", AsksSet::Yes),
            ("--endpoint=dns+store.other.svc:1", AsksSet::No),
            ("--endpoint=dns+store:1", AsksSet::Maybe),
        ] {
            assert_eq!(asks_from("elsewhere", &[endpoint]), expected, "{endpoint}");
        }
        let many: Vec<&str> = vec!["--endpoint=dns+rule:1"; MAX_ENDPOINTS + 1];
        assert_eq!(asks(&many), AsksSet::Maybe, "not all are kept");
    }

    proptest! {
        #[test]
        fn facts_are_bounded_and_a_prefix_is_a_path(args in prop::collection::vec(".{0,400}|--(endpoint|web.route-prefix)=.{0,400}", 0..40)) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let read = read_arguments(&args);
            prop_assert!(read.endpoints.len() <= MAX_ENDPOINTS);
            prop_assert!(read.endpoints.iter().all(|text| text.len() <= MAX_ENDPOINT_BYTES));
            if let Some(prefix) = read.prefix {
                prop_assert!(prefix.is_empty() || prefix.starts_with('/'));
                prop_assert!(!prefix.contains(['?', '#', ' ', '%']) && !prefix.contains("//"));
            }
        }
    }
}
