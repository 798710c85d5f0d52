//! Rights: what the server needs (the roles of `deploy/`, compared by a test), and what it takes to install it.

use std::collections::BTreeMap;

/// One right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, with `/subresource` if there is one.
    pub resource: &'static str,
    /// Verb.
    pub verb: &'static str,
    /// The one object that it is for, if it is one.
    pub name: Option<&'static str>,
    /// Where it is needed.
    pub place: Where,
}

/// Where a right is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// For objects of the cluster.
    Cluster,
    /// In every labelled namespace.
    Labelled,
    /// In the server's own namespace.
    System,
}

type Row = (Where, &'static str, &'static str, &'static [&'static str]);

/// What the server needs.
const SERVER: [Row; 13] = [
    (Where::Cluster, "", "namespaces", &["list", "watch"]),
    (Where::Labelled, "apps", "statefulsets", &["list", "watch"]),
    (Where::Labelled, "apps", "statefulsets/status", &["patch"]),
    (
        Where::Labelled,
        "",
        "configmaps",
        &["get", "list", "watch", "create", "patch"],
    ),
    (Where::Labelled, "", "pods", &["list", "watch"]),
    (Where::Labelled, "", "pods/status", &["patch"]),
    (
        Where::Labelled,
        "policy",
        "poddisruptionbudgets",
        &["list", "watch", "create", "update", "delete"],
    ),
    (
        Where::Labelled,
        "",
        "services",
        &["list", "watch", "create", "update", "delete"],
    ),
    (
        Where::Labelled,
        "events.k8s.io",
        "events",
        &["create", "patch"],
    ),
    (
        Where::System,
        "coordination.k8s.io",
        "leases",
        &["get", "update"],
    ),
    (Where::System, "coordination.k8s.io", "leases", &["create"]),
    (Where::System, "", "pods", &["list"]),
    (Where::System, "events.k8s.io", "events", &["create"]),
];

/// What it takes to apply `deploy/`.
const INSTALL: [Row; 14] = [
    (Where::Cluster, "", "namespaces", &["create"]),
    (
        Where::Cluster,
        "rbac.authorization.k8s.io",
        "clusterroles",
        &["create"],
    ),
    (
        Where::Cluster,
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        &["create"],
    ),
    (
        Where::Cluster,
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        &["create"],
    ),
    (
        Where::Cluster,
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        &["create"],
    ),
    (Where::System, "", "serviceaccounts", &["create"]),
    (
        Where::System,
        "rbac.authorization.k8s.io",
        "roles",
        &["create"],
    ),
    (
        Where::System,
        "rbac.authorization.k8s.io",
        "rolebindings",
        &["create"],
    ),
    (Where::System, "", "configmaps", &["create"]),
    (Where::System, "", "services", &["create"]),
    (Where::System, "apps", "deployments", &["create"]),
    (Where::System, "policy", "poddisruptionbudgets", &["create"]),
    (
        Where::System,
        "networking.k8s.io",
        "networkpolicies",
        &["create"],
    ),
    (Where::Cluster, "", "namespaces", &["patch"]),
];

/// With cert-manager these beside [`install`].
const CERT_MANAGER: [Row; 2] = [
    (
        Where::System,
        "cert-manager.io",
        "certificates",
        &["create"],
    ),
    (Where::System, "cert-manager.io", "issuers", &["create"]),
];

fn rights(rows: &[Row]) -> Vec<Right> {
    let of = |(place, group, resource, verbs): &Row| {
        let (place, group, resource) = (*place, *group, *resource);
        let named = resource == "leases" && !verbs.contains(&"create");
        let name = named.then_some(crate::core::names::LEASE);
        verbs
            .iter()
            .map(move |verb| Right {
                group,
                resource,
                verb,
                name,
                place,
            })
            .collect::<Vec<_>>()
    };
    rows.iter().flat_map(of).collect()
}

/// What the server needs.
#[must_use]
pub fn server() -> Vec<Right> {
    rights(&SERVER)
}

/// What it takes to apply `deploy/`.
#[must_use]
pub fn install(cert_manager: bool) -> Vec<Right> {
    let more: &[Row] = if cert_manager { &CERT_MANAGER } else { &[] };
    [rights(&INSTALL), rights(more)].concat()
}

/// Rights that the server has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// As sentences, but those in namespaces without any.
    pub sentences: Vec<String>,
    /// Labelled namespaces in which it has none of the rights that it needs there: there is no Role.
    pub namespaces: Vec<String>,
}

impl Denied {
    /// Of `asked`, what was refused, with the namespace if it was asked for in one. A namespace in which all was refused is told of once.
    #[must_use]
    pub fn new(asked: &[Right], refused: &[(Right, Option<String>)]) -> Self {
        let needed = asked
            .iter()
            .filter(|right| right.place == Where::Labelled)
            .count();
        let mut by_namespace = BTreeMap::<&str, usize>::new();
        for namespace in refused
            .iter()
            .filter(|(right, _)| right.place == Where::Labelled)
            .filter_map(|(_, namespace)| namespace.as_deref())
        {
            *by_namespace.entry(namespace).or_default() += 1;
        }
        let without = |namespace: &str| {
            by_namespace
                .get(namespace)
                .is_some_and(|refused| *refused == needed)
        };
        let in_one = |(right, namespace): &&(Right, Option<String>)| {
            right.place == Where::Labelled && namespace.as_deref().is_some_and(without)
        };
        Self {
            sentences: refused
                .iter()
                .filter(|one| !in_one(one))
                .map(|(right, namespace)| right.sentence(namespace.as_deref()))
                .collect(),
            namespaces: by_namespace
                .keys()
                .filter(|namespace| without(namespace))
                .map(|namespace| (*namespace).to_owned())
                .collect(),
        }
    }
}

impl Right {
    /// `list services in labelled namespaces`.
    #[must_use]
    pub fn sentence(&self, namespace: Option<&str>) -> String {
        let group = if self.group.is_empty() {
            String::new()
        } else {
            format!(".{}", self.group)
        };
        let place = namespace.map_or_else(String::new, |namespace| {
            format!(" in namespace {namespace}")
        });
        format!("{} {}{group}{place}", self.verb, self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_without_a_role_is_told_of_once() {
        let asked = server();
        let here = |namespace: &str| Some(namespace.to_owned());
        let labelled: Vec<Right> = asked
            .iter()
            .filter(|right| right.place == Where::Labelled)
            .copied()
            .collect();
        let mut refused: Vec<_> = labelled
            .iter()
            .map(|right| (*right, here("closed")))
            .collect();
        refused.push((labelled[0], here("half")));
        refused.push((asked[0], None));
        let denied = Denied::new(&asked, &refused);
        assert_eq!(denied.namespaces, ["closed"]);
        assert_eq!(
            denied.sentences,
            [
                "list statefulsets.apps in namespace half",
                "list namespaces"
            ]
        );
        assert_eq!(Denied::new(&asked, &[]), Denied::default());
    }
}
