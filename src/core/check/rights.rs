//! The rights that the server needs (equal to the roles in `deploy/`, as a test compares), and those
//! needed to install it.

use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// Empty for the core group.
    pub group: &'static str,
    /// `resource` or `resource/subresource`.
    pub resource: &'static str,
    pub verb: &'static str,
    /// The `resourceName`, if limited to one object.
    pub name: Option<&'static str>,
    pub place: Where,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Cluster-scoped objects.
    Cluster,
    /// Every labelled namespace, or every one of another list.
    Labelled,
    /// The server's own namespace.
    System,
}

type AccessRow = (Where, &'static str, &'static str, &'static [&'static str]);

const SERVER: [AccessRow; 13] = [
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

/// Needed to apply `deploy/`.
const INSTALL: [AccessRow; 14] = [
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

/// Needed in addition with cert-manager.
const CERT_MANAGER: [AccessRow; 2] = [
    (
        Where::System,
        "cert-manager.io",
        "certificates",
        &["create"],
    ),
    (Where::System, "cert-manager.io", "issuers", &["create"]),
];

fn rights(rows: &[AccessRow]) -> Vec<Right> {
    let of = |(place, group, resource, verbs): &AccessRow| {
        let (place, group, resource) = (*place, *group, *resource);
        let named = resource == "leases" && !verbs.contains(&"create");
        let name = named.then_some(crate::core::model::names::LEASE);
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

/// The right that the server needs in each namespace that the configuration's `queriers` name.
#[must_use]
pub fn querier_namespace() -> Vec<Right> {
    rights(&[(Where::Labelled, "", "pods", &["list"])])
}

/// The rights that the server needs.
#[must_use]
pub fn server() -> Vec<Right> {
    rights(&SERVER)
}

/// The rights needed to apply `deploy/`.
#[must_use]
pub fn install(cert_manager: bool) -> Vec<Right> {
    let more: &[AccessRow] = if cert_manager { &CERT_MANAGER } else { &[] };
    [rights(&INSTALL), rights(more)].concat()
}

/// Rights that the server lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// As sentences, without those in [`Denied::namespaces`].
    pub sentences: Vec<String>,
    /// Labelled namespaces in which it has no right at all: the Role is missing.
    pub namespaces: Vec<String>,
}

impl Denied {
    /// Groups the refused ones of the `asked` rights, each with its namespace if any. A namespace
    /// in which every right was refused is listed once.
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
    fn a_namespace_without_a_role_is_listed_once() {
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
