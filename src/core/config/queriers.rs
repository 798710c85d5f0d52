//! The `queriers` list: queriers that are not in the namespace of their StatefulSet.

use super::draft::SourceSpan;
use super::problem::{Problem, unknown_key};
use crate::core::model::names;
use crate::core::model::yaml::{Node, NodeKind};

/// Items of the list: each costs requests during a step.
const MAX_ITEMS: usize = 16;
const MAX_SELECTOR_CHARS: usize = 1_000;
const MAX_PATH_CHARS: usize = 200;
const KEYS: [&str; 4] = ["namespace", "selector", "port", "path"];

/// Pods that run `thanos query`, and how to ask them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredQueriers {
    pub namespace: String,
    /// A label selector, as `kubectl -l` takes it.
    pub selector: String,
    /// HTTP port; `None` for the one in the pod's arguments.
    pub port: Option<u16>,
    /// Path prefix without a slash at its end; `None` for the one in the pod's arguments.
    pub path: Option<String>,
}

/// Reads the list; every mistake becomes a problem.
pub(super) fn read(
    place: &SourceSpan,
    node: &Node,
    problems: &mut Vec<Problem>,
) -> Vec<ConfiguredQueriers> {
    let items = match &node.value {
        NodeKind::Null => return Vec::new(),
        NodeKind::List(items) => items,
        other => {
            let right = "a list, such as [{namespace: monitoring, selector: app=thanos-query}]";
            problems.push(place.not_accepted(other, right));
            return Vec::new();
        }
    };
    if items.len() > MAX_ITEMS {
        problems.push(place.refuse(format!(
            "the list has {} items: at most {MAX_ITEMS} are accepted, so let one selector select more pods",
            items.len()
        )));
        return Vec::new();
    }
    let read = |(i, item): (usize, &Node)| {
        let at = SourceSpan::of(&place.source, format!("queriers[{i}]"), item);
        item_of(&at, item, problems)
    };
    items.iter().enumerate().filter_map(read).collect()
}

fn item_of(
    place: &SourceSpan,
    item: &Node,
    problems: &mut Vec<Problem>,
) -> Option<ConfiguredQueriers> {
    let NodeKind::Map(keys) = &item.value else {
        problems.push(place.not_accepted(&item.value, "the keys namespace and selector"));
        return None;
    };
    let (mut namespace, mut selector, mut port, mut path) = (None, None, None, None);
    for (key, node) in keys {
        let at = SourceSpan::of(&place.source, format!("{}.{}", place.key, key.value), node);
        let taken = match key.value.as_str() {
            "namespace" => namespace_of(&node.value).map(|read| namespace = Some(read)),
            "selector" => selector_of(&node.value).map(|read| selector = Some(read)),
            "port" => port_of(&node.value).map(|read| port = Some(read)),
            "path" => path_of(&node.value).map(|read| path = Some(read)),
            other => {
                problems.push(at.at(key).refuse(unknown_key(other, &KEYS)));
                continue;
            }
        };
        if let Err(right) = taken {
            problems.push(at.not_accepted(&node.value, &right));
        }
    }
    for (key, missing) in [
        ("namespace", namespace.is_none()),
        ("selector", selector.is_none()),
    ] {
        if missing && !keys.iter().any(|(given, _)| given.value == key) {
            problems.push(place.refuse(format!("the key {key} is missing")));
        }
    }
    Some(ConfiguredQueriers {
        namespace: namespace?,
        selector: selector?,
        port,
        path,
    })
}

fn text(kind: &NodeKind) -> Option<&str> {
    match kind {
        NodeKind::Text(text) => Some(text),
        _ => None,
    }
}

fn namespace_of(kind: &NodeKind) -> Result<String, String> {
    text(kind)
        .filter(|text| names::is_name(text, names::MAX_LABEL_CHARS))
        .map(str::to_owned)
        .ok_or_else(|| "the name of a namespace".to_owned())
}

fn selector_of(kind: &NodeKind) -> Result<String, String> {
    let is_plain = |text: &&str| {
        !text.trim().is_empty()
            && text.len() <= MAX_SELECTOR_CHARS
            && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
    };
    text(kind)
        .filter(is_plain)
        .map(str::to_owned)
        .ok_or_else(|| {
            format!(
                "a label selector of at most {MAX_SELECTOR_CHARS} characters, such as app=thanos-query"
            )
        })
}

fn port_of(kind: &NodeKind) -> Result<u16, String> {
    match kind {
        NodeKind::Int(n) => u16::try_from(*n).ok().filter(|port| *port > 0),
        _ => None,
    }
    .ok_or_else(|| "a port from 1 to 65535".to_owned())
}

fn path_of(kind: &NodeKind) -> Result<String, String> {
    let is_path = |text: &&str| {
        text.starts_with('/')
            && text.len() <= MAX_PATH_CHARS
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b))
    };
    text(kind)
        .filter(is_path)
        .map(|text| text.trim_end_matches('/').to_owned())
        .ok_or_else(|| {
            format!("the path before /api of at most {MAX_PATH_CHARS} characters, such as /thanos")
        })
}
