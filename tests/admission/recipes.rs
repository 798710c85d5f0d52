//! StatefulSets and Services of the shape that charts of Thanos make (`docs/recipes.md`): every pod is
//! injected without a warning, and the headless Service selects it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command_line::{text, timeshard};

const SHARD: &str = "thanos-timeshard.io/shard";

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes");
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

fn objects(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn is_headless(service: &Value) -> bool {
    service["kind"] == "Service" && service["spec"]["clusterIP"] == "None"
}

fn selects(service: &Value, pod: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object().unwrap();
    selector
        .iter()
        .all(|(key, value)| &pod["metadata"]["labels"][key] == value)
}

#[test]
fn pods_of_every_recipe_are_injected_and_found_by_queriers() {
    let all = recipes();
    assert!(all.len() >= 5, "{all:?}");
    for path in all {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let file = path.to_str().unwrap();
        let output = timeshard(&["inject", "-f", file, "-o", "json"], "");
        let said = text(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        assert!(!said.contains("warning"), "{name}: {said}");
        let pods: Value = serde_json::from_slice(&output.stdout).unwrap();
        let pods = pods["items"].as_array().unwrap();
        let shards: Vec<&str> = pods
            .iter()
            .map(|pod| pod["metadata"]["labels"][SHARD].as_str().unwrap())
            .collect();
        assert_eq!(shards, ["0", "0", "1", "1", "2", "2"], "{name}");
        let services = objects(&path);
        let found = services
            .iter()
            .any(|service| is_headless(service) && pods.iter().all(|pod| selects(service, pod)));
        assert_eq!(found, !name.ends_with("-plain"), "{name}");
    }
}

/// Each recipe is in the document, which names its values.
#[test]
fn the_document_names_every_recipe() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md");
    let page = std::fs::read_to_string(page).unwrap();
    for path in recipes() {
        let file = path.file_name().unwrap().to_str().unwrap();
        assert!(page.contains(file), "docs/recipes.md does not name {file}");
    }
}
