//! Values of a manifest that must be strings in Kubernetes and are something else in YAML: `2`,
//! `false`, `1.5`.
//!
//! The API server refuses such an object with an error about Go types; timeshard's reader would drop
//! the value silently. Only the fields that timeshard reads are checked. After a mistake the file is
//! read a second time, with places.

use serde_json::Value;

use crate::core::model::yaml::{Node, NodeKind};

/// Keys and list indexes from an object to a value.
pub type Path = Vec<String>;

/// A value that is not a string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotText {
    pub path: Path,
    /// The value in YAML.
    pub shown: String,
}

impl NotText {
    /// Returns the path such as `spec.template.metadata.annotations[a.b/c]`.
    #[must_use]
    pub fn key(&self) -> String {
        self.path.iter().fold(String::new(), |mut text, step| {
            if step.contains(['.', '/']) || step.bytes().all(|byte| byte.is_ascii_digit()) {
                text = text + "[" + step + "]";
            } else {
                text += if text.is_empty() { "" } else { "." };
                text += step;
            }
            text
        })
    }
}

/// Returns the values of a pod or `StatefulSet` that must be strings and are not.
#[must_use]
pub fn not_texts(object: &Value) -> Vec<NotText> {
    let mut found = Vec::new();
    let template: &[&str] = match object.get("kind").and_then(Value::as_str) {
        Some("StatefulSet") => &["spec", "template"],
        Some("Pod") => &[],
        _ => return found,
    };
    metadata(object, &[], &mut found);
    if !template.is_empty() {
        metadata(object, template, &mut found);
    }
    for list in ["initContainers", "containers"] {
        let base = [template, &["spec", list]].concat();
        let count = at(object, &base)
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        for index in (0..count).map(|index| index.to_string()) {
            let container: Vec<&str> = base.iter().copied().chain([index.as_str()]).collect();
            for key in ["name", "image"] {
                text(object, &container, key, &mut found);
            }
            for key in ["command", "args"] {
                members(object, &[&container[..], &[key]].concat(), &mut found);
            }
            variables(object, &container, &mut found);
        }
    }
    found
}

/// Returns line and column, from 1, of the value at this path.
#[must_use]
pub fn place(object: &Node, path: &[String]) -> Option<(u64, u64)> {
    let mut node = object;
    for step in path {
        node = match &node.value {
            NodeKind::Map(items) => &items.iter().find(|(key, _)| key.value == *step)?.1,
            NodeKind::List(items) => items.get(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    let (line, column) = (node.referenced.line(), node.referenced.column());
    (line > 0).then_some((line, column))
}

fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

fn metadata(object: &Value, base: &[&str], found: &mut Vec<NotText>) {
    for map in ["labels", "annotations"] {
        members(object, &[base, &["metadata", map]].concat(), found);
    }
}

/// Checks every value of a list or mapping.
fn members(object: &Value, base: &[&str], found: &mut Vec<NotText>) {
    let keys: Vec<String> = match at(object, base) {
        Some(Value::Array(items)) => (0..items.len()).map(|index| index.to_string()).collect(),
        Some(Value::Object(items)) => items.keys().cloned().collect(),
        _ => return,
    };
    for key in keys {
        text(object, base, &key, found);
    }
}

fn variables(object: &Value, container: &[&str], found: &mut Vec<NotText>) {
    let base = [container, &["env"]].concat();
    let count = at(object, &base)
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    for index in (0..count).map(|index| index.to_string()) {
        let variable: Vec<&str> = base.iter().copied().chain([index.as_str()]).collect();
        text(object, &variable, "name", found);
        text(object, &variable, "value", found);
    }
}

fn text(object: &Value, base: &[&str], key: &str, found: &mut Vec<NotText>) {
    let path = [base, &[key]].concat();
    if let Some(value @ (Value::Bool(_) | Value::Number(_))) = at(object, &path) {
        found.push(NotText {
            path: path.into_iter().map(str::to_owned).collect(),
            shown: value.to_string(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::yaml::read;

    #[test]
    fn every_kind_of_value_is_found_at_its_place() {
        let text = "kind: StatefulSet\nmetadata:\n  annotations: {a.b/n: 2, t: \"2\"}\n  labels:\n    f: 1.5\nspec:\n  template:\n    \
                    metadata:\n      annotations:\n        x.io/inject: false\n    spec:\n      containers:\n      - name: 7\n        \
                    args: [store, 10]\n        env:\n        - {name: A, value: true}\n";
        let value: Value = serde_saphyr::from_str(text).unwrap();
        let node = read(text).unwrap();
        let found: Vec<_> = not_texts(&value)
            .into_iter()
            .map(|one| (one.key(), one.shown.clone(), place(&node, &one.path)))
            .collect();
        let want = [
            ("metadata.labels.f", "1.5", (5, 8)),
            ("metadata.annotations[a.b/n]", "2", (3, 24)),
            (
                "spec.template.metadata.annotations[x.io/inject]",
                "false",
                (10, 22),
            ),
            ("spec.template.spec.containers[0].name", "7", (13, 15)),
            ("spec.template.spec.containers[0].args[1]", "10", (14, 23)),
            (
                "spec.template.spec.containers[0].env[0].value",
                "true",
                (16, 28),
            ),
        ];
        assert_eq!(
            found,
            want.map(|(key, shown, at)| (key.to_owned(), shown.to_owned(), Some(at)))
        );
    }

    #[test]
    fn other_objects_and_strings_are_not_reported() {
        for text in [
            "kind: ConfigMap\nmetadata: {labels: {a: 1}}",
            "kind: Pod\nmetadata: {labels: {a: \"1\"}, annotations: }",
            "[]",
        ] {
            assert_eq!(
                not_texts(&serde_saphyr::from_str(text).unwrap()),
                [],
                "{text}"
            );
        }
    }
}
