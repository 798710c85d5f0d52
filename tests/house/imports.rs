//! Which modules of the library import which: never in a circle, and between rooms in one direction.
//!
//! Read with syn, so that grouped, renamed, relative (`super::super::x`) and inline paths count,
//! also those inside macros. An import from an enclosing module (`use super::X` in `x/y.rs`) is no
//! arrow: a folder is one thing with parts. Unit tests may import anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use syn::visit::Visit;

use crate::{at, files, paths};

/// What each room imports besides core and adapters: roles meet in the command lines only.
const ROLES: [(&str, &[&str]); 11] = [
    ("core", &[]),
    ("adapters", &["core"]),
    ("webhook", &["adapters", "core"]),
    ("controller", &["adapters", "core"]),
    ("page", &["adapters", "core"]),
    ("sidecar", &["adapters", "core"]),
    ("launcher", &["adapters", "core"]),
    ("stand_in", &["adapters", "core"]),
    ("testing", &["adapters", "core"]),
    ("agent_cli", &["sidecar", "launcher", "adapters", "core"]),
    (
        "cli",
        &[
            "webhook",
            "controller",
            "page",
            "stand_in",
            "agent_cli",
            "adapters",
            "core",
        ],
    ),
];

/// The rooms of core, lowest first: each imports only from those before it.
const CORE: [&str; 15] = [
    "model",
    "fairness",
    "agent",
    "kube",
    "election",
    "certificates",
    "config",
    "pod",
    "thanos",
    "plan",
    "gateways",
    "rollout",
    "server_status",
    "admission",
    "check",
];

/// A module, such as `["core", "plan"]`.
type Module = Vec<String>;

/// The module of a file; `None` for the programs.
fn module_of(file: &Path) -> Option<Module> {
    let inside = file.strip_prefix(at("src")).unwrap().with_extension("");
    let mut module: Module = inside
        .components()
        .map(|part| part.as_os_str().to_str().unwrap().to_owned())
        .collect();
    if module[0] == "main" || module[0] == "bin" {
        return None;
    }
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    Some(module)
}

/// Collects the paths that the code of one module names, from the root of the library on.
struct Paths {
    /// The module of the code being read: the file's, or one inside it.
    inside: Module,
    found: BTreeSet<Module>,
}

impl Paths {
    fn of(module: &Module, text: &str) -> BTreeSet<Module> {
        let mut paths = Self {
            inside: module.clone(),
            found: BTreeSet::new(),
        };
        paths.visit_file(&syn::parse_file(text).unwrap());
        paths.found
    }

    fn take(&mut self, path: &[String]) {
        let supers = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let (base, rest) = match path[0].as_str() {
            "crate" => (&[][..], &path[1..]),
            "self" => (&self.inside[..], &path[1..]),
            "super" => (&self.inside[..self.inside.len() - supers], &path[supers..]),
            // A module inside this one, or something outside the library.
            _ => (&self.inside[..], path),
        };
        self.found.insert([base, rest].concat());
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            for import in paths::imports(&item.tree) {
                self.take(&import.path);
            }
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.ident == "tests" {
            return;
        }
        self.inside.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.inside.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            let path: Vec<String> = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect();
            self.take(&path);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        for path in paths::in_tokens(item.tokens.clone()) {
            self.take(&path);
        }
    }
}

type Arrows = BTreeMap<Module, BTreeSet<Module>>;

/// For each module those that it imports, except the ones that enclose it.
fn arrows(sources: &BTreeMap<Module, String>) -> Arrows {
    let target = |path: Module| {
        (1..=path.len())
            .rev()
            .map(|n| path[..n].to_vec())
            .find(|m| sources.contains_key(m))
    };
    let of = |(module, text): (&Module, &String)| {
        let targets = Paths::of(module, text).into_iter().filter_map(target);
        (
            module.clone(),
            targets
                .filter(|target| !module.starts_with(target))
                .collect(),
        )
    };
    sources.iter().map(of).collect()
}

/// The arrows of the library.
fn library() -> Arrows {
    let read = |file: &std::path::PathBuf| {
        let module = module_of(file)?;
        let is_test = module.iter().any(|part| part == "tests");
        (!is_test).then(|| (module, std::fs::read_to_string(file).unwrap()))
    };
    let sources: BTreeMap<Module, String> = files("src", "rs").iter().filter_map(read).collect();
    let arrows = arrows(&sources);
    let found = arrows.values().map(BTreeSet::len).sum::<usize>();
    assert!(found > 300, "only {found} imports were found");
    arrows
}

/// A shortest chain of imports that ends where it begins.
fn circle(arrows: &Arrows) -> Option<Vec<Module>> {
    let circle_from = |start: &Module| {
        let mut from: BTreeMap<&Module, &Module> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(module) = queue.pop_front() {
            for next in arrows.get(module).into_iter().flatten() {
                if next == start {
                    let mut chain = vec![module.clone()];
                    while chain.last() != Some(start) {
                        chain.push(from[chain.last().unwrap()].clone());
                    }
                    chain.reverse();
                    return Some(chain);
                }
                if !from.contains_key(next) {
                    from.insert(next, module);
                    queue.push_back(next);
                }
            }
        }
        None
    };
    arrows.keys().filter_map(circle_from).min_by_key(Vec::len)
}

#[test]
fn no_import_leads_back() {
    if let Some(circle) = circle(&library()) {
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        panic!("{} -> {}", names.join(" -> "), names[0]);
    }
}

/// The folder of `module` below `parent`.
fn child(module: &Module, parent: usize) -> Module {
    module[..=parent].to_vec()
}

/// Folders count as a whole here: what is in one may not import a sibling that imports it back.
#[test]
fn no_folder_imports_a_sibling_that_imports_it() {
    let mut siblings = Arrows::new();
    for (module, targets) in library() {
        for target in targets {
            let common = module
                .iter()
                .zip(&target)
                .take_while(|(a, b)| a == b)
                .count();
            if common < module.len() && common < target.len() {
                let arrows = siblings.entry(child(&module, common)).or_default();
                arrows.insert(child(&target, common));
            }
        }
    }
    if let Some(circle) = circle(&siblings) {
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        panic!("{} -> {}", names.join(" -> "), names[0]);
    }
}

#[test]
fn imports_flow_one_way() {
    let place = |room: &str| CORE.iter().position(|known| *known == room);
    let mut wrong = Vec::new();
    for (module, targets) in library() {
        for target in targets {
            let [own, other] = [&module, &target].map(|m| m.first().cloned().unwrap_or_default());
            let (_, allowed) = ROLES
                .iter()
                .find(|(role, _)| *role == own)
                .unwrap_or_else(|| panic!("src/{own} has no place here and in ARCHITECTURE.md"));
            let flows = if own == "core" && other == "core" && module.len() > 1 && target.len() > 1
            {
                let [from, to] = [&module[1], &target[1]].map(|room| {
                    place(room).unwrap_or_else(|| {
                        panic!("src/core/{room} has no place here and in ARCHITECTURE.md")
                    })
                });
                to <= from
            } else {
                own == other || allowed.contains(&other.as_str())
            };
            if !flows {
                wrong.push(format!(
                    "{} imports {}",
                    module.join("::"),
                    target.join("::")
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that go back up:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn circles_of_every_kind_are_found() {
    let library = |a: &str, b: &str| {
        let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
        let sources = [
            ("room", "pub mod a; pub mod b;"),
            ("room::a", a),
            ("room::b", b),
            ("c", ""),
        ];
        circle(&arrows(
            &sources
                .map(|(path, text)| (module(path), text.to_owned()))
                .into(),
        ))
    };
    let back = "use super::a::A;";
    for there in [
        "use super::b::B;",
        "use crate::{c, room::b::{self, C}};",
        "fn f() { super::b::g() }",
        "fn f() { assert_eq!(1, crate::room::b::g()) }",
        "mod inner { use super::super::b::B; }",
        "fn f(x: &super::b::B) {}",
        "use super::b as other;",
    ] {
        assert!(library(there, back).is_some(), "{there}");
    }
    let none = "use crate::c; use super::Room; use super::a::X;";
    assert_eq!(library(none, back), None);
    assert_eq!(library("mod tests { use super::super::b::B; }", back), None);
}
