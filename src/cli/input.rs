//! Reading files: the configuration, and manifests of any number of documents.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::{ConfigArgs, Failure, say};
use crate::core::config::{Config, MAX_CONFIG_BYTES};
use crate::core::expand;
use crate::core::located::Node;
use crate::core::texts::{not_texts, place};

/// The largest manifest file, in bytes; a whole monitoring stack is a tenth of this.
const MAX_MANIFEST_BYTES: usize = 64 * 1024 * 1024;

/// Mistakes that are told of one file.
const MAX_TOLD: usize = 20;

/// Reads the configuration, or takes the defaults.
pub(super) fn config(args: &ConfigArgs) -> Result<Config, Failure> {
    args.config
        .as_deref()
        .map_or_else(|| Ok(Config::default()), config_file)
}

/// Reads one configuration file.
pub(super) fn config_file(path: &Path) -> Result<Config, Failure> {
    let text = text(path, MAX_CONFIG_BYTES)?;
    Config::parse(&text, &name(path)).map_err(|refusal| Failure::Invalid(refusal.to_string()))
}

/// Reads a text file of at most `limit` bytes.
pub(super) fn text(path: &Path, limit: usize) -> Result<String, Failure> {
    let name = name(path);
    let mut bytes = Vec::new();
    let bounded = limit as u64 + 1;
    let read = if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(bounded)
            .read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(bounded).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Invalid(format!("{name}: cannot be read: {error}")))?;
    if bytes.len() > limit {
        return Err(Failure::Invalid(format!(
            "{name}: is larger than {limit} bytes, the most that is read"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error
            .as_bytes()
            .get(..error.utf8_error().valid_up_to())
            .unwrap_or_default();
        let line = good.split(|byte| *byte == b'\n').count();
        let column = good
            .rsplit(|byte| *byte == b'\n')
            .next()
            .map_or(0, <[u8]>::len)
            + 1;
        Failure::Invalid(format!(
            "{name}:{line}:{column}: not UTF-8 text; save the file as UTF-8"
        ))
    })
}

/// What a path is called in messages.
pub(super) fn name(path: &Path) -> String {
    if path.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// Every object of a multi-document YAML or JSON file, Lists taken apart.
pub(super) fn objects(path: &Path) -> Result<Vec<Value>, Failure> {
    let name = name(path);
    let text = text(path, MAX_MANIFEST_BYTES)?;
    let mut objects = Vec::new();
    let documents = documents(&text, &name)?;
    refuse_other_than_texts(&text, &name, &documents)?;
    for document in documents {
        flatten(document, &mut objects);
    }
    if objects.is_empty() {
        return Err(Failure::Invalid(format!(
            "{name}: holds no Kubernetes object: expected YAML or JSON with apiVersion and kind"
        )));
    }
    if let Some((i, _)) = objects
        .iter()
        .enumerate()
        .find(|(_, object)| object.get("kind").and_then(Value::as_str).is_none())
    {
        return Err(Failure::Invalid(format!(
            "{name}: object {} has no kind: expected Kubernetes objects with apiVersion and kind",
            i + 1
        )));
    }
    Ok(objects)
}

/// Refuses numbers and truth values where Kubernetes wants texts, each with its place in the file.
fn refuse_other_than_texts(text: &str, name: &str, documents: &[Value]) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let mut objects = Vec::new();
        within(document, &mut Vec::new(), &mut objects);
        for (path, object) in objects {
            wrong.extend(
                not_texts(object)
                    .into_iter()
                    .map(|one| (index, path.clone(), expand::title(object), one)),
            );
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        budget: serde_saphyr::budget! {
            max_events: 20_000_000, max_nodes: 10_000_000, max_documents: 100_000,
            max_total_scalar_bytes: MAX_MANIFEST_BYTES, max_buffered_comment_events: 1_000_000,
        },
    };
    // A stream of JSON objects is not YAML: then the keys alone have to do.
    let nodes: Vec<Node> =
        serde_saphyr::from_multiple_with_options(text, options).unwrap_or_default();
    let more = wrong.len().saturating_sub(MAX_TOLD);
    let mut lines: Vec<String> = Vec::new();
    for (index, path, title, one) in wrong.into_iter().take(MAX_TOLD) {
        let whole: Vec<String> = path.iter().chain(&one.path).cloned().collect();
        let at = nodes
            .get(index)
            .filter(|_| nodes.len() == documents.len())
            .and_then(|node| place(node, &whole));
        let at = at.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        lines.push(format!(
            "{name}{at}: {title}: {} is {}, and Kubernetes wants a text there: write it in quotes",
            one.key(),
            one.shown
        ));
    }
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Err(Failure::Invalid(lines.join("\n")))
}

/// Every object of a document with the steps to it, as [`flatten`] takes Lists apart.
fn within<'a>(
    document: &'a Value,
    path: &mut Vec<String>,
    into: &mut Vec<(Vec<String>, &'a Value)>,
) {
    let is_list = document
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.ends_with("List"));
    let (items, steps) = match document {
        Value::Array(items) => (items, 0),
        Value::Object(map) if is_list => match map.get("items") {
            Some(Value::Array(items)) => (items, 1),
            _ => return,
        },
        _ => return into.push((path.clone(), document)),
    };
    path.extend((0..steps).map(|_| "items".to_owned()));
    for (index, item) in items.iter().enumerate() {
        path.push(index.to_string());
        within(item, path, into);
        path.pop();
    }
    path.truncate(path.len() - steps);
}

fn documents(text: &str, name: &str) -> Result<Vec<Value>, Failure> {
    // JSON is tried first, as a stream: YAML readers accept most of it, but not duplicated or tabbed text alike.
    if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        if let Ok(values) = stream.collect::<Result<Vec<Value>, _>>() {
            return Ok(values);
        }
    }
    let read = |duplicate_keys| {
        let options = serde_saphyr::options! {
            // kubectl reads YAML 1.1, where 0644 is octal.
            legacy_octal_numbers: true,
            duplicate_keys: duplicate_keys,
            // Anchors are common in manifests that people write; what they add to one is small.
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 200_000 },
            budget: serde_saphyr::budget! {
                max_events: 20_000_000, max_nodes: 10_000_000, max_documents: 100_000,
                max_total_scalar_bytes: MAX_MANIFEST_BYTES, max_buffered_comment_events: 1_000_000,
            },
        };
        serde_saphyr::from_multiple_with_options(text, options)
    };
    let place = |error: &serde_saphyr::Error| {
        error
            .location()
            .map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()))
    };
    read(serde_saphyr::DuplicateKeyPolicy::Error)
        .or_else(|error| {
            if !error
                .without_snippet()
                .to_string()
                .contains("duplicate mapping key")
            {
                return Err(error);
            }
            say(&format!(
                "warning: {name}{}: a key is given twice; the last one is taken, as kubectl does",
                place(error.without_snippet())
            ));
            read(serde_saphyr::DuplicateKeyPolicy::LastWins)
        })
        .map_err(|error| {
            let error = error.without_snippet();
            Failure::Invalid(format!("{name}{}: not YAML or JSON: {error}", place(error)))
        })
}

fn flatten(object: Value, into: &mut Vec<Value>) {
    match object {
        Value::Null => {}
        Value::Object(mut map)
            if map
                .get("kind")
                .and_then(Value::as_str)
                .is_some_and(|kind| kind.ends_with("List"))
                && map.contains_key("items") =>
        {
            if let Some(Value::Array(items)) = map.remove("items") {
                for item in items {
                    flatten(item, into);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                flatten(item, into);
            }
        }
        other => into.push(other),
    }
}
