//! The namespaces in which the server has rights: all, or those with a Role for it.

use std::collections::BTreeSet;

use crate::core::model::names;

const MAX_NAMESPACE_CHARS: usize = names::MAX_LABEL_CHARS;
/// Namespaces that a server is given by name.
pub const MAX_NAMESPACES: usize = 500;

/// The namespaces that the server manages if they are labelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All: `deploy/base`, and `rbac.scope: cluster` of the chart.
    #[default]
    Cluster,
    /// `deploy/components/namespaced`, and `rbac.scope: namespaces` of the chart.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// Reads comma-separated names; a text without names is the cluster.
    ///
    /// # Errors
    /// A sentence that quotes an invalid name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names: BTreeSet<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        if let Some(bad) = names
            .iter()
            .find(|name| !names::is_name(name, MAX_NAMESPACE_CHARS))
        {
            let why = "write names of namespaces, separated by commas: lower-case letters, digits and '-'";
            return Err(format!(
                "{bad:?} is not the name of a namespace; {why}, at most {MAX_NAMESPACE_CHARS} characters each"
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

    /// Returns the namespaces outside `labelled` that the server can read; `None` for all of the
    /// cluster.
    #[must_use]
    pub fn outside(&self, labelled: &BTreeSet<String>) -> Option<Vec<String>> {
        match self {
            Self::Cluster => None,
            Self::Namespaces(names) => Some(names.difference(labelled).cloned().collect()),
        }
    }

    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespaces(names) => names.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas() {
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
    fn an_invalid_name_is_quoted() {
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
                refusal.starts_with(&format!("{bad:?} is not the name of a namespace")),
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
