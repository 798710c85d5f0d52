//! The `injection` block: image, resources and form of the sidecar container.

use super::draft::SourceSpan;
use super::problem::{Problem, unknown_key};
use crate::core::model::names::{MAX_SUBDOMAIN_CHARS, is_name};
use crate::core::model::yaml::{Node, NodeKind};

/// The seccomp profile of the sidecar, by its name in Kubernetes.
pub const SECCOMP_PROFILE: &str = "RuntimeDefault";
/// The value of `seccomp_profile` that leaves the field out.
const NO_SECCOMP_PROFILE: &str = "none";
/// Pull secrets that the webhook adds to a pod; kubelet tries each of them.
const MAX_PULL_SECRETS: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InjectionConfig {
    /// Image that contains the agent.
    pub agent_image: String,
    pub image_pull_policy: String,
    /// Names of Secrets in the gateways' namespaces with which kubelet pulls [`Self::agent_image`].
    pub image_pull_secrets: Vec<String>,
    /// CPU request and limit, as a Kubernetes quantity.
    pub cpu: String,
    /// Memory request and limit, as a Kubernetes quantity.
    pub memory: String,
    /// Native sidecar (an init container with `restartPolicy: Always`, Kubernetes 1.29 and newer)
    /// instead of the classic form.
    pub native_sidecar: bool,
    /// Whether the sidecar names [`SECCOMP_PROFILE`]; otherwise the pod's own profile applies. The
    /// first generation of `OpenShift`'s security context constraints refuses containers that name
    /// a profile.
    pub seccomp_profile: bool,
}

impl Default for InjectionConfig {
    fn default() -> Self {
        Self {
            agent_image: concat!(
                "ghcr.io/thanos-timeshard/timeshard:v",
                env!("CARGO_PKG_VERSION")
            )
            .to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            image_pull_secrets: Vec::new(),
            cpu: "50m".to_owned(),
            memory: "32Mi".to_owned(),
            native_sidecar: true,
            seccomp_profile: true,
        }
    }
}

impl InjectionConfig {
    pub(super) fn set(
        &mut self,
        place: &SourceSpan,
        key: &str,
        node: &Node,
        problems: &mut Vec<Problem>,
    ) {
        const KEYS: [&str; 7] = [
            "agent_image",
            "image_pull_policy",
            "image_pull_secrets",
            "cpu",
            "memory",
            "native_sidecar",
            "seccomp_profile",
        ];
        if key == "image_pull_secrets" {
            self.image_pull_secrets = pull_secrets(place, node, problems);
            return;
        }
        let mut refuse = |right: &str| problems.push(place.not_accepted(&node.value, right));
        let mut text = |slot: &mut String, right: &str, fits: fn(&str) -> bool| match &node.value {
            NodeKind::Text(value) if fits(value) => slot.clone_from(value),
            NodeKind::Int(value) if fits(&value.to_string()) => *slot = value.to_string(),
            _ => refuse(right),
        };
        match key {
            "agent_image" => text(
                &mut self.agent_image,
                "an image reference such as registry/timeshard:v1",
                |v| !v.is_empty() && v.len() <= 512 && v.chars().all(|c| c.is_ascii_graphic()),
            ),
            "image_pull_policy" => text(
                &mut self.image_pull_policy,
                "Always, IfNotPresent or Never",
                |v| matches!(v, "Always" | "IfNotPresent" | "Never"),
            ),
            "cpu" => text(&mut self.cpu, "a CPU quantity such as 50m", is_quantity),
            "memory" => text(
                &mut self.memory,
                "a memory quantity such as 32Mi",
                is_quantity,
            ),
            "native_sidecar" => match &node.value {
                NodeKind::Bool(value) => self.native_sidecar = *value,
                _ => refuse("true or false"),
            },
            "seccomp_profile" => match &node.value {
                NodeKind::Text(value) if value == SECCOMP_PROFILE => self.seccomp_profile = true,
                NodeKind::Text(value) if value == NO_SECCOMP_PROFILE => {
                    self.seccomp_profile = false;
                }
                _ => refuse(&format!("{SECCOMP_PROFILE} or {NO_SECCOMP_PROFILE}")),
            },
            other => problems.push(place.refuse(unknown_key(other, &KEYS))),
        }
    }
}

/// Reads the list of pull secrets; every mistake becomes a problem.
fn pull_secrets(place: &SourceSpan, node: &Node, problems: &mut Vec<Problem>) -> Vec<String> {
    let NodeKind::List(items) = &node.value else {
        let right = "a list of names of Secrets, such as [registry]";
        problems.push(place.not_accepted(&node.value, right));
        return Vec::new();
    };
    if items.len() > MAX_PULL_SECRETS {
        problems.push(place.refuse(format!(
            "the list has {} names: at most {MAX_PULL_SECRETS} are accepted; one Secret can hold the credentials of several registries",
            items.len()
        )));
        return Vec::new();
    }
    let mut secrets: Vec<String> = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let at = SourceSpan::of(&place.source, format!("{}[{i}]", place.key), item);
        match &item.value {
            NodeKind::Text(name) if !is_name(name, MAX_SUBDOMAIN_CHARS) => {
                let right = format!(
                    "the name of a Secret (a-z, 0-9, - and .), at most {MAX_SUBDOMAIN_CHARS} characters"
                );
                problems.push(at.not_accepted(&item.value, &right));
            }
            NodeKind::Text(name) if secrets.contains(name) => {
                problems.push(at.refuse(format!("{name:?} is in the list twice: remove one")));
            }
            NodeKind::Text(name) => secrets.push(name.clone()),
            NodeKind::Map(_) => {
                let right = "the name alone, such as [registry], without name:";
                problems.push(at.not_accepted(&item.value, right));
            }
            other => problems.push(at.not_accepted(other, "the name of a Secret, in quotes")),
        }
    }
    secrets
}

/// Whether a text is a Kubernetes quantity as a sidecar needs them: digits, an optional fraction, an
/// optional suffix.
fn is_quantity(text: &str) -> bool {
    let (number, suffix) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len()),
    );
    number.parse::<f64>().is_ok_and(|n| n > 0.0)
        && text.len() <= 16
        && matches!(suffix, "" | "m" | "k" | "M" | "G" | "Ki" | "Mi" | "Gi")
}

#[cfg(test)]
mod tests {
    use crate::core::config::Config;

    fn secrets(list: &str) -> Result<Vec<String>, String> {
        let text = format!("injection:\n  image_pull_secrets: {list}\n");
        Config::parse(&text, "c.yaml")
            .map(|config| config.injection.image_pull_secrets)
            .map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn pull_secrets_are_a_list_of_names() {
        assert_eq!(secrets("[]").unwrap(), Vec::<String>::new());
        assert_eq!(
            secrets("[mirror, \"10.example.com\"]").unwrap(),
            ["mirror", "10.example.com"]
        );
        secrets("[a, b, c, d, e, f, g, h]").unwrap();
    }

    #[test]
    fn a_wrong_pull_secret_is_refused_at_its_place() {
        const KEY: &str = "injection.image_pull_secrets";
        for (list, place, right) in [
            ("mirror", "23: KEY: \"mirror\"", "a list of names"),
            ("", "3: KEY: nothing", "a list of names"),
            ("[a, B]", "27: KEY[1]: \"B\"", "the name of a Secret"),
            ("[a..b]", "24: KEY[0]: \"a..b\"", "the name of a Secret"),
            ("[{name: a}]", "24: KEY[0]: a mapping", "the name alone"),
            ("[7]", "24: KEY[0]: 7", "in quotes"),
            ("[a, b, a]", "30: KEY[2]: \"a\" is in the list twice", ""),
            (
                "[a, b, c, d, e, f, g, h, i]",
                "23: KEY: the list has 9",
                "at most 8",
            ),
        ] {
            let message = secrets(list).expect_err(list);
            let place = format!("c.yaml:2:{}", place.replace("KEY", KEY));
            assert!(
                message.contains(&place) && message.contains(right),
                "{list}\n gave {message}\n wanted {place} … {right}"
            );
        }
    }
}
