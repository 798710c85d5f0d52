//! House rules beyond lints: the direction of imports, core's purity, the length of files, and that
//! manifests, chart and documentation agree with the program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod architecture;
mod chart;
mod checks;
mod command_line;
mod configuration;
mod dashboard;
mod deploy;
mod docs;
mod events;
mod imports;
mod layering;
mod licence;
mod links;
mod monitoring;
mod names;
mod paths;
mod portable;
mod readme;
mod release;
mod words;

use std::path::{Path, PathBuf};

/// A path in this checkout.
fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every file below a folder with this extension.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![at(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
