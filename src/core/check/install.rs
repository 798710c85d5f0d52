//! Before anything is installed: whether it may be, and whether something is in the way.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Report;
use super::api::listed;
use super::ids::{INSTALL_CERT_MANAGER, INSTALL_NAMES, INSTALL_NAMESPACE, INSTALL_PERMISSIONS};
use super::objects::{Meta, NodeView};
use super::snapshot::{ApiFacts, Got};

/// Objects that `deploy/` makes: kind, plural, API path and name. Those of the server's namespace have `NS` in the path.
pub const INSTALLED: [Installed; 13] = [
    Installed {
        kind: "ClusterRole",
        path: "/apis/rbac.authorization.k8s.io/v1/clusterroles/timeshard",
    },
    Installed {
        kind: "ClusterRoleBinding",
        path: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/timeshard",
    },
    Installed {
        kind: "MutatingWebhookConfiguration",
        path: "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/timeshard",
    },
    Installed {
        kind: "ValidatingWebhookConfiguration",
        path: "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/timeshard",
    },
    Installed {
        kind: "ServiceAccount",
        path: "/api/v1/namespaces/NS/serviceaccounts/timeshard",
    },
    Installed {
        kind: "Role",
        path: "/apis/rbac.authorization.k8s.io/v1/namespaces/NS/roles/timeshard",
    },
    Installed {
        kind: "RoleBinding",
        path: "/apis/rbac.authorization.k8s.io/v1/namespaces/NS/rolebindings/timeshard",
    },
    Installed {
        kind: "ConfigMap",
        path: "/api/v1/namespaces/NS/configmaps/timeshard-config",
    },
    Installed {
        kind: "Service",
        path: "/api/v1/namespaces/NS/services/timeshard",
    },
    Installed {
        kind: "Deployment",
        path: "/apis/apps/v1/namespaces/NS/deployments/timeshard",
    },
    Installed {
        kind: "PodDisruptionBudget",
        path: "/apis/policy/v1/namespaces/NS/poddisruptionbudgets/timeshard",
    },
    Installed {
        kind: "NetworkPolicy",
        path: "/apis/networking.k8s.io/v1/namespaces/NS/networkpolicies/timeshard",
    },
    Installed {
        kind: "Secret",
        path: "/api/v1/namespaces/NS/secrets/timeshard-tls",
    },
];

/// One object that an installation makes.
#[derive(Clone, Copy, Debug)]
pub struct Installed {
    /// Its kind.
    pub kind: &'static str,
    /// Where it is.
    pub path: &'static str,
}

impl Installed {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// What was seen before anything is installed.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// When, by our clock.
    pub now: DateTime<Utc>,
    /// Where it shall be installed.
    pub system: String,
    /// The API server.
    pub api: ApiFacts,
    /// Its nodes.
    pub nodes: Got<Vec<NodeView>>,
    /// Rights that the caller has not, as sentences.
    pub denied: Got<Vec<String>>,
    /// Whether cert-manager's kinds are there.
    pub cert_manager: Got<bool>,
    /// The namespace, if it is there.
    pub namespace: Got<Option<Meta>>,
    /// Objects of these names, by kind, that are there.
    pub there: Vec<(Installed, Got<Option<Meta>>)>,
}

pub(super) fn look(preflight: &Preflight, report: &mut Report) {
    match &preflight.denied {
        Err(lack) => report.lacks(&INSTALL_PERMISSIONS, "", lack),
        Ok(denied) if denied.is_empty() => report.pass(&INSTALL_PERMISSIONS, "", INSTALL_PERMISSIONS.title),
        Ok(denied) => report.fail(
            &INSTALL_PERMISSIONS,
            "",
            format!("you may not {}", listed(denied, "; ")),
            "install it as an administrator; the server itself then needs only the roles of deploy/",
        ),
    }
    namespace(preflight, report);
    names(preflight, report);
    match &preflight.cert_manager {
        Err(lack) => report.lacks(&INSTALL_CERT_MANAGER, "", lack),
        Ok(true) => report.pass(&INSTALL_CERT_MANAGER, "", "cert-manager is there: deploy/cert-manager, or the chart as it is"),
        Ok(false) => report.warn(
            &INSTALL_CERT_MANAGER,
            "",
            "cert-manager is not there: deploy/cert-manager and the chart as it is would wait for a certificate",
            "install cert-manager first; or let the server make its own certificate: deploy/self-signed, or the chart's certManager.enabled=false",
        ),
    }
}

fn namespace(preflight: &Preflight, report: &mut Report) {
    const LEVEL: &str = "pod-security.kubernetes.io/enforce";
    let (check, name) = (&INSTALL_NAMESPACE, preflight.system.as_str());
    match &preflight.namespace {
        Err(lack) => report.lacks(check, name, lack),
        Ok(None) => report.pass(
            check,
            name,
            "the namespace is not there yet: deploy/ makes it, helm with --create-namespace",
        ),
        Ok(Some(meta)) if meta.deletion_timestamp.is_some() => {
            report.fail(
                check,
                name,
                "the namespace is being deleted: nothing can be made in it",
                "wait until it is gone",
            );
        }
        Ok(Some(meta)) => match meta.labels.get(LEVEL).map(String::as_str) {
            Some("restricted") => report.pass(
                check,
                name,
                "Pod Security restricted, which the server fits",
            ),
            Some("baseline" | "privileged") | None => {
                report.pass(
                    check,
                    name,
                    format!(
                        "Pod Security {}; the server fits restricted as well",
                        meta.labels
                            .get(LEVEL)
                            .map_or("is not enforced", String::as_str)
                    ),
                );
            }
            Some(other) => {
                let message = format!(
                    "the label {LEVEL} has the value {other:?}, which Kubernetes takes for restricted"
                );
                report.warn(
                    check,
                    name,
                    message,
                    "write privileged, baseline or restricted",
                );
            }
        },
    }
}

fn names(preflight: &Preflight, report: &mut Report) {
    let check = &INSTALL_NAMES;
    let (mut ours, mut foreign) = (Vec::new(), Vec::new());
    for (installed, there) in &preflight.there {
        match there {
            Err(lack) => report.lacks(check, installed.kind, lack),
            Ok(None) => {}
            Ok(Some(meta)) => {
                let title = format!("{} {}", installed.kind, installed.name());
                if is_ours(&meta.labels) || installed.kind == "Secret" {
                    ours.push(title)
                } else {
                    foreign.push(title)
                }
            }
        }
    }
    let installed = ours.iter().any(|title| !title.starts_with("Secret"));
    if !foreign.is_empty() && !installed {
        let message = format!(
            "objects of somebody else have names that an installation uses: {}",
            listed(&foreign, ", ")
        );
        report.fail(
            check,
            "",
            message,
            "rename or delete them, or install into another namespace",
        );
    } else if installed {
        let message = format!("timeshard is installed already: {}", listed(&ours, ", "));
        report.warn(
            check,
            "",
            message,
            "this would be an upgrade: timeshard check without --pre looks at what is there",
        );
    } else {
        report.pass(check, "", INSTALL_NAMES.title);
    }
}

fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    labels
        .get("app.kubernetes.io/name")
        .is_some_and(|value| value == "thanos-timeshard")
}
