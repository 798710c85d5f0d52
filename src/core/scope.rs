//! In which namespaces a server has rights: everywhere, or where it was given a Role.

use std::collections::BTreeSet;

/// Longest name of a namespace, in characters (RFC 1123 label).
const MAX_NAMESPACE_CHARS: usize = 63;
/// Most namespaces that a server is given by name.
pub const MAX_NAMESPACES: usize = 500;

/// The namespaces that a server works in, if they are labelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of the cluster: `deploy/base`, and `rbac.scope: cluster` of the chart.
    #[default]
    Cluster,
    /// These: `deploy/components/namespaced`, and `rbac.scope: namespaces` of the chart.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// Reads names with commas between them; a text without any is the cluster.
    ///
    /// # Errors
    /// A sentence that names the text that is no name of a namespace.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names: BTreeSet<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        if let Some(bad) = names.iter().find(|name| !is_label(name)) {
            let why = "write names of namespaces with commas between them: lower-case letters, digits and '-'";
            return Err(format!(
                "{bad:?} is no name of a namespace; {why}, at most {MAX_NAMESPACE_CHARS} characters each"
            ));
        }
        if names.len() > MAX_NAMESPACES {
            return Err(format!(
                "{} namespaces; at most {MAX_NAMESPACES} can be named: use rights for the whole cluster",
                names.len()
            ));
        }
        if names.is_empty() {
            return Ok(Self::Cluster);
        }
        Ok(Self::Namespaces(
            names.into_iter().map(str::to_owned).collect(),
        ))
    }

    /// The namespaces outside `labelled` that the server can look into; `None` where that is every namespace of the cluster.
    #[must_use]
    pub fn outside(&self, labelled: &BTreeSet<String>) -> Option<Vec<String>> {
        match self {
            Self::Cluster => None,
            Self::Namespaces(names) => Some(names.difference(labelled).cloned().collect()),
        }
    }

    /// Whether the server works in this namespace.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }
}

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= MAX_NAMESPACE_CHARS
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_commas_between_them() {
        let scope = Scope::parse(" team-a,team-b , ,monitoring,").unwrap();
        assert_eq!(
            ["team-a", "team-b", "monitoring", "team", "kube-system"]
                .map(|name| scope.contains(name)),
            [true, true, true, false, false]
        );
        for nothing in ["", " ", ",", " , "] {
            assert_eq!(Scope::parse(nothing), Ok(Scope::Cluster), "{nothing:?}");
        }
        assert!(Scope::Cluster.contains("anything"));
        let labelled = BTreeSet::from(["team-a", "elsewhere"].map(str::to_owned));
        assert_eq!(scope.outside(&labelled).unwrap(), ["monitoring", "team-b"]);
        assert_eq!(Scope::Cluster.outside(&labelled), None);
    }

    #[test]
    fn what_is_no_namespace_is_refused_by_its_text() {
        for bad in [
            "Team-A",
            "team a",
            "team_a",
            "*",
            "-a",
            "a-",
            "a/b",
            &"a".repeat(64),
        ] {
            let refusal = Scope::parse(&format!("monitoring,{bad}")).unwrap_err();
            assert!(
                refusal.starts_with(&format!("{bad:?} is no name of a namespace")),
                "{refusal}"
            );
        }
        let many: Vec<String> = (0..=MAX_NAMESPACES).map(|n| format!("n{n}")).collect();
        assert!(
            Scope::parse(&many.join(","))
                .unwrap_err()
                .starts_with("501 namespaces; at most 500")
        );
    }
}
