//! Reads the configuration, and manifests of any number of documents.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::{ConfigArgs, Failure, say};
use crate::core::config::{Config, MAX_CONFIG_BYTES, nearest};
use crate::core::kube::pod_template;
use crate::core::kube::yaml_scalars::{not_texts, place};
use crate::core::model::names::CONFIG_BLOCKS;
use crate::core::model::yaml::Node;

/// The largest manifests together, in bytes; a complete monitoring stack has a tenth of this.
pub(super) const MAX_MANIFEST_BYTES: usize = 64 * 1024 * 1024;

/// Files of a folder that are compared with a name that does not exist.
const MAX_SUGGESTED_FROM: usize = 1000;

/// How many mistakes of a file are reported.
const MAX_REPORTED: usize = 20;

/// Reads the configuration, or returns the defaults.
pub(super) fn config(args: &ConfigArgs) -> Result<Config, Failure> {
    args.config
        .as_deref()
        .map_or_else(|| Ok(Config::default()), config_file)
}

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
    read.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => similar(path),
            std::io::ErrorKind::IsADirectory => "; name a file in it".to_owned(),
            _ => String::new(),
        };
        Failure::Invalid(format!("{name}: cannot be read: {error}{hint}"))
    })?;
    if bytes.len() > limit {
        return Err(Failure::Invalid(format!(
            "{name}: is larger than {limit} bytes, the limit"
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

/// Suggests a file of the same folder with a similar name.
fn similar(path: &Path) -> String {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return format!("; there is no folder {}", folder.display());
    };
    let names: Vec<String> = entries
        .take(MAX_SUGGESTED_FROM)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let given = path.file_name().unwrap_or_default().to_string_lossy();
    nearest(&given, &names).map_or_else(String::new, |meant| {
        format!("; did you mean {}?", path.with_file_name(meant).display())
    })
}

/// A path's name in messages.
pub(super) fn name(path: &Path) -> String {
    if path.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// A value of a file: a document, or an object in a List.
pub(super) struct FileObject {
    /// Where its document begins, from 1.
    pub(super) line: u64,
    pub(super) value: Value,
}

/// What a file of manifests contains.
pub(super) enum ManifestFile {
    /// At least one object, each with a kind.
    Objects(Vec<FileObject>),
    /// Valid YAML or JSON without objects; the sentence names the file.
    Other(String),
}

/// Reads every object of a multi-document YAML or JSON file, including the items of Lists. `left` is
/// how many bytes may still be read.
pub(super) fn objects(path: &Path, left: &mut usize) -> Result<ManifestFile, Failure> {
    let name = name(path);
    let text = text(path, *left)?;
    *left -= text.len();
    let mut objects = Vec::new();
    let documents = documents(&text, &name)?;
    require_strings(&text, &name, &documents)?;
    for FileObject { line, value } in documents {
        flatten(value, line, &mut objects);
    }
    if objects.is_empty() {
        return Ok(ManifestFile::Other(format!(
            "{name}: contains no Kubernetes object: expected YAML or JSON with apiVersion and kind"
        )));
    }
    if let Some((i, _)) = objects
        .iter()
        .enumerate()
        .find(|(_, object)| object.value.get("kind").and_then(Value::as_str).is_none())
    {
        let hint = if is_configuration(&objects[i].value) {
            "; this is a configuration of timeshard, which --config takes"
        } else {
            ""
        };
        return Ok(ManifestFile::Other(format!(
            "{name}: object {} has no kind: expected Kubernetes objects with apiVersion and kind{hint}",
            i + 1
        )));
    }
    Ok(ManifestFile::Objects(objects))
}

/// Whether a document has only blocks of the configuration.
fn is_configuration(document: &Value) -> bool {
    document.as_object().is_some_and(|keys| {
        !keys.is_empty() && keys.keys().all(|key| CONFIG_BLOCKS.contains(&key.as_str()))
    })
}

/// Rejects numbers and booleans where Kubernetes requires strings, each with its position.
fn require_strings(text: &str, name: &str, documents: &[FileObject]) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let mut objects = Vec::new();
        within(&document.value, &mut Vec::new(), &mut objects);
        for (path, object) in objects {
            wrong.extend(
                not_texts(object)
                    .into_iter()
                    .map(|one| (index, path.clone(), pod_template::title(object), one)),
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
    // A stream of JSON objects is not YAML: then only the keys are reported.
    let nodes: Vec<Node> =
        serde_saphyr::from_multiple_with_options(text, options).unwrap_or_default();
    let more = wrong.len().saturating_sub(MAX_REPORTED);
    let mut lines: Vec<String> = Vec::new();
    for (index, path, title, one) in wrong.into_iter().take(MAX_REPORTED) {
        let full: Vec<String> = path.iter().chain(&one.path).cloned().collect();
        let at = nodes
            .get(index)
            .filter(|_| nodes.len() == documents.len())
            .and_then(|node| place(node, &full));
        let at = at.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        lines.push(format!(
            "{name}{at}: {title}: {} is {}, but Kubernetes requires a string: quote it",
            one.key(),
            one.shown
        ));
    }
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Err(Failure::Invalid(lines.join("\n")))
}

/// Collects every object of a document with its path, in the order of [`flatten`].
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

/// Reads a stream of JSON objects; `None` if it is none.
fn json_stream(text: &str) -> Option<Vec<FileObject>> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut documents = Vec::new();
    let (mut line, mut counted) = (1, 0);
    loop {
        let rest = &text[stream.byte_offset()..];
        let start = text.len() - rest.trim_start().len();
        line += text[counted..start].matches('\n').count() as u64;
        counted = start;
        match stream.next() {
            None => return Some(documents),
            Some(value) => documents.push(FileObject {
                line,
                value: value.ok()?,
            }),
        }
    }
}

fn documents(text: &str, name: &str) -> Result<Vec<FileObject>, Failure> {
    // Tries a stream of JSON first: YAML readers differ on duplicate keys and tabs.
    if text.trim_start().starts_with('{')
        && let Some(documents) = json_stream(text)
    {
        return Ok(documents);
    }
    let read = |duplicate_keys| {
        let options = serde_saphyr::options! {
            // kubectl reads YAML 1.1, where 0644 is octal.
            legacy_octal_numbers: true,
            duplicate_keys: duplicate_keys,
            // Anchors are common in hand-written manifests, and expand little.
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 200_000 },
            budget: serde_saphyr::budget! {
                max_events: 20_000_000, max_nodes: 10_000_000, max_documents: 100_000,
                max_total_scalar_bytes: MAX_MANIFEST_BYTES, max_buffered_comment_events: 1_000_000,
            },
        };
        serde_saphyr::from_multiple_with_options::<Spanned<Value>>(text, options)
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
                "warning: {name}{}: duplicate key; the last value applies, as in kubectl",
                place(error.without_snippet())
            ));
            read(serde_saphyr::DuplicateKeyPolicy::LastWins)
        })
        .map(|documents| {
            let documents = documents.into_iter().map(|document| FileObject {
                line: document.referenced.line(),
                value: document.value,
            });
            documents.collect()
        })
        .map_err(|error| {
            let error = error.without_snippet();
            Failure::Invalid(format!("{name}{}: not YAML or JSON: {error}", place(error)))
        })
}

fn flatten(value: Value, line: u64, into: &mut Vec<FileObject>) {
    match value {
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
                    flatten(item, line, into);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                flatten(item, line, into);
            }
        }
        value => into.push(FileObject { line, value }),
    }
}
