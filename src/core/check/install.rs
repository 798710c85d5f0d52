//! Before installation: whether the caller may install timeshard, and whether anything conflicts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Report;
use super::api::listed;
use super::ids::{INSTALL_CERT_MANAGER, INSTALL_NAMES, INSTALL_NAMESPACE, INSTALL_PERMISSIONS};
use super::objects::{Meta, NodeView};
use super::snapshot::{ApiFacts, Got};

/// The objects in `deploy/`. `NS` in a path stands for the server's namespace.
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

#[derive(Clone, Copy, Debug)]
pub struct Installed {
    pub kind: &'static str,
    pub path: &'static str,
}

impl Installed {
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// The input of the checks before installation.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// By this machine's clock.
    pub now: DateTime<Utc>,
    /// The namespace to install into.
    pub system: String,
    pub api: ApiFacts,
    pub nodes: Got<Vec<NodeView>>,
    /// Rights that the caller lacks, as sentences.
    pub denied: Got<Vec<String>>,
    /// Whether cert-manager's CRDs exist.
    pub cert_manager: Got<bool>,
    /// `None` if the namespace does not exist.
    pub namespace: Got<Option<Meta>>,
    /// `None` for objects that do not exist.
    pub existing: Vec<(Installed, Got<Option<Meta>>)>,
}

pub(super) fn check(preflight: &Preflight, report: &mut Report) {
    match &preflight.denied {
        Err(lack) => report.lacks(&INSTALL_PERMISSIONS, "", lack),
        Ok(denied) if denied.is_empty() => {
            report.pass(&INSTALL_PERMISSIONS, "", INSTALL_PERMISSIONS.title);
        }
        Ok(denied) => report.fail(
            &INSTALL_PERMISSIONS,
            "",
            format!("you may not {}", listed(denied, "; ")),
            "install as an administrator; the server itself needs only the roles of deploy/",
        ),
    }
    namespace(preflight, report);
    names(preflight, report);
    match &preflight.cert_manager {
        Err(lack) => report.lacks(&INSTALL_CERT_MANAGER, "", lack),
        Ok(true) => report.pass(&INSTALL_CERT_MANAGER, "", "cert-manager is installed: use deploy/cert-manager, or the chart's defaults"),
        Ok(false) => report.warn(
            &INSTALL_CERT_MANAGER,
            "",
            "cert-manager is not installed: deploy/cert-manager, and the chart with certificates: cert-manager, would wait for it",
            "install cert-manager first; or let the server create its own certificate: deploy/self-signed, or the chart, whose certificates: auto then does that",
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
            "the namespace does not exist yet: deploy/ creates it, helm with --create-namespace",
        ),
        Ok(Some(meta)) if meta.deletion_timestamp.is_some() => {
            report.fail(
                check,
                name,
                "the namespace is being deleted: nothing can be created in it",
                "wait until it is gone",
            );
        }
        Ok(Some(meta)) => match meta.labels.get(LEVEL).map(String::as_str) {
            Some("restricted") => report.pass(
                check,
                name,
                "Pod Security is restricted, with which the server complies",
            ),
            Some("baseline" | "privileged") | None => {
                report.pass(
                    check,
                    name,
                    format!(
                        "Pod Security {}; the server also complies with restricted",
                        meta.labels
                            .get(LEVEL)
                            .map_or("is not enforced".to_owned(), |level| format!("is {level}"))
                    ),
                );
            }
            Some(other) => {
                let message = format!(
                    "the label {LEVEL} has the value {other:?}, which Kubernetes treats as restricted"
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
    for (installed, found) in &preflight.existing {
        match found {
            Err(lack) => report.lacks(check, installed.kind, lack),
            Ok(None) => {}
            Ok(Some(meta)) => {
                let title = format!("{} {}", installed.kind, installed.name());
                if is_ours(&meta.labels) || installed.kind == "Secret" {
                    ours.push(title);
                } else {
                    foreign.push(title);
                }
            }
        }
    }
    let installed = ours.iter().any(|title| !title.starts_with("Secret"));
    if !foreign.is_empty() && !installed {
        let message = format!(
            "other objects have names that an installation uses: {}",
            listed(&foreign, ", ")
        );
        report.fail(
            check,
            "",
            message,
            "rename or delete them, or install into another namespace",
        );
    } else if installed {
        let message = format!("timeshard is already installed: {}", listed(&ours, ", "));
        report.warn(
            check,
            "",
            message,
            "this would be an upgrade: run timeshard check without --pre",
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
