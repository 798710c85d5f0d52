//! One meaning for each type name: a reader who greps for `Outcome` finds one type.

use std::collections::BTreeMap;

use crate::{at, files};

/// Names that several modules may use, and why.
const SHARED: [(&str, &str); 4] = [
    ("Args", "clap's convention: the arguments of one subcommand"),
    (
        "Command",
        "clap's convention: the subcommands of one program",
    ),
    ("Output", "the values of --output of one subcommand"),
    (
        "Ulid",
        "the agent keeps bytes, the planner text; neither is built with the other",
    ),
];

/// The types that the code of a file declares; associated types and unit tests do not count.
fn types(text: &str) -> Vec<String> {
    let code = syn::parse_file(text).unwrap();
    let name = |item: &syn::Item| match item {
        syn::Item::Struct(item) => Some(item.ident.to_string()),
        syn::Item::Enum(item) => Some(item.ident.to_string()),
        syn::Item::Trait(item) => Some(item.ident.to_string()),
        syn::Item::Type(item) => Some(item.ident.to_string()),
        _ => None,
    };
    code.items.iter().filter_map(name).collect()
}

#[test]
fn a_type_name_has_one_meaning() {
    let mut modules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in files("src", "rs") {
        let inside = path.strip_prefix(at("src")).unwrap();
        let module = inside.with_extension("").display().to_string();
        if module
            .split('/')
            .any(|part| part == "tests" || part == "testing")
        {
            continue;
        }
        for name in types(&std::fs::read_to_string(&path).unwrap()) {
            modules.entry(name).or_default().push(module.clone());
        }
    }
    assert!(
        modules.len() > 300,
        "only {} types were found",
        modules.len()
    );
    let shared = |name: &str| SHARED.iter().any(|(known, _)| *known == name);
    let several: Vec<String> = modules
        .iter()
        .filter(|(name, modules)| modules.len() > 1 && !shared(name))
        .map(|(name, modules)| format!("{name}: {}", modules.join(", ")))
        .collect();
    assert!(
        several.is_empty(),
        "one name, several types; rename them, or give the reason in SHARED:\n{}",
        several.join("\n")
    );
    for (name, _) in SHARED {
        let uses = modules.get(name).map_or(0, Vec::len);
        assert!(
            uses > 1,
            "{name} is not shared any more: remove it from SHARED"
        );
    }
}
