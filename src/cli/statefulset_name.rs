//! A StatefulSet as users of kubectl write it.

use std::str::FromStr;

use super::cluster::parse_name;
use crate::core::model::names;

/// Names of StatefulSets as kubectl accepts them before a slash.
const KINDS: [&str; 5] = [
    "statefulset",
    "statefulsets",
    "sts",
    "statefulset.apps",
    "statefulsets.apps",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatefulSetName {
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

impl FromStr for StatefulSetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((kind, name)) if KINDS.contains(&kind) => (None, name),
            Some((namespace, name)) => (Some(parse_name(namespace)?), name),
            None if KINDS.contains(&text) => {
                return Err(format!(
                    "a StatefulSet is one word here: write {text}/NAME, NAMESPACE/NAME or NAME"
                ));
            }
            None => (None, text),
        };
        if !names::is_name(name, names::MAX_SUBDOMAIN_CHARS) {
            let right = "write the StatefulSet as NAME, NAMESPACE/NAME or statefulset/NAME";
            let first = if text.contains('=') { " first" } else { "" };
            return Err(format!("{right}{first}"));
        }
        Ok(Self {
            namespace,
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_kubectl_and_status_write_them() {
        let set = |namespace: Option<&str>, name: &str| {
            Some(StatefulSetName {
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
            })
        };
        for (text, want) in [
            ("store", set(None, "store")),
            ("sts/store", set(None, "store")),
            ("statefulset/store", set(None, "store")),
            ("statefulset.apps/store", set(None, "store")),
            ("monitoring/store", set(Some("monitoring"), "store")),
            ("monitoring/sts", set(Some("monitoring"), "sts")),
            ("sts", None),
            ("", None),
            ("a/b/c", None),
            ("sts/monitoring/store", None),
            ("../x", None),
            ("-x/store", None),
            ("store?x=1", None),
            ("Store", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
