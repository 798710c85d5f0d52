//! Links in the documentation lead to existing files and headings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{at, files};

/// A heading's anchor, by GitHub's rule.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    plain
        .chars()
        .filter_map(|c| {
            if c == ' ' {
                Some('-')
            } else {
                Some(c).filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_')
            }
        })
        .collect()
}

/// The lines of a page outside code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

fn anchors(page: &str) -> BTreeSet<String> {
    let named = page
        .split("<a id=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(id, _)| id.to_owned());
    prose(page)
        .filter(|line| line.starts_with('#'))
        .map(anchor)
        .chain(named)
        .collect()
}

fn links(page: &str) -> Vec<String> {
    let targets = |line: &str| {
        line.split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'))
            .map(|(to, _)| to.to_owned())
            .collect::<Vec<_>>()
    };
    prose(page).flat_map(targets).collect()
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![at("README.md"), at("ARCHITECTURE.md")];
    for folder in ["docs", "deploy", "tests"] {
        pages.extend(files(folder, "md"));
    }
    pages
}

#[test]
fn every_link_has_a_target() {
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap_or(Path::new(".")).join(file)
            };
            let good = target.exists()
                && (fragment.is_empty()
                    || std::fs::read_to_string(&target)
                        .is_ok_and(|text| anchors(&text).contains(fragment)));
            followed += 1;
            if !good {
                wrong.push(format!(
                    "{}: {link}",
                    page.strip_prefix(at("")).unwrap().display()
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these links have no target:\n{}",
        wrong.join("\n")
    );
    assert!(followed > 0, "no link was found");
}
