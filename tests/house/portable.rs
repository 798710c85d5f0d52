//! The client commands (feature `cli`) are built for macOS and Windows too, so nothing in them may
//! need Unix, nor say what is to be done on which system where a portable call exists.
//!
//! Follows the `mod` lines of the library and of `timeshard` with that feature alone, and reads
//! every path with syn. Crates are left to their own authors. Unit tests do not count.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::paths::{self, Segments};
use crate::{at, files};

/// What every system has: `std` and tokio name the rest by these paths.
const UNIX_ONLY: [&str; 9] = [
    "std::os",
    "core::os",
    "tokio::signal::unix",
    "tokio::io::unix",
    "tokio::net::unix",
    "rustix",
    "libc",
    "nix",
    "inotify",
];
/// Types of tokio and methods of its sockets that only some systems have.
const UNIX_ONLY_NAMES: [&str; 8] = [
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "AsyncFd",
    "set_quickack",
    "set_reuseport",
    "bind_device",
    "process_group",
];
/// Folders that only Linux or Unix has. Paths in a container are constants of `core/model/names.rs`.
const UNIX_FOLDERS: [&str; 6] = ["/proc/", "/dev/", "/tmp/", "/bin/", "/usr/bin/", "/sys/"];
/// Conditions on the system.
const SYSTEMS: [&str; 6] = [
    "unix",
    "windows",
    "target_os",
    "target_family",
    "target_env",
    "target_vendor",
];

/// The files of the closure by their path below `src`, such as `cli/plan.rs`, and what is wrong in
/// them.
#[derive(Default)]
struct Closure {
    files: BTreeSet<String>,
    wrong: Vec<String>,
}

/// Follows modules from `roots` on.
fn closure(sources: &BTreeMap<String, String>, roots: &[&str], features: &[&str]) -> Closure {
    let mut closure = Closure::default();
    let mut queue: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
    while let Some(file) = queue.pop() {
        let mut reader = Reader {
            features,
            folder: folder(&file),
            modules: Vec::new(),
            names: BTreeMap::new(),
            wrong: Vec::new(),
        };
        reader.visit_file(&syn::parse_file(&sources[&file]).unwrap());
        for module in reader.modules {
            let both = [format!("{module}.rs"), format!("{module}/mod.rs")];
            let found = both.into_iter().find(|path| sources.contains_key(path));
            queue.push(found.unwrap_or_else(|| panic!("{file}: mod {module} has no file")));
        }
        let wrong = reader.wrong.into_iter();
        closure
            .wrong
            .extend(wrong.map(|what| format!("src/{file}: {what}")));
        closure.files.insert(file);
    }
    closure.wrong.sort();
    closure
}

/// The folder of a file's modules, with a slash at its end.
fn folder(file: &str) -> String {
    let stem = file.strip_suffix(".rs").unwrap();
    let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    match (parent, name) {
        ("", "lib" | "main") => String::new(),
        (parent, "mod") => format!("{parent}/"),
        _ => format!("{stem}/"),
    }
}

/// Reads the active code of one file.
struct Reader<'a> {
    features: &'a [&'a str],
    folder: String,
    /// Files of modules below this one, without their ending.
    modules: Vec<String>,
    /// What imported names stand for.
    names: BTreeMap<String, Segments>,
    wrong: Vec<String>,
}

impl Reader<'_> {
    /// Whether code with these attributes is built.
    fn active(&mut self, attributes: &[syn::Attribute]) -> bool {
        let mut conditions = attributes.iter().filter(|one| one.path().is_ident("cfg"));
        conditions.all(|one| self.holds(&one.parse_args().unwrap()))
    }

    fn holds(&mut self, condition: &syn::Meta) -> bool {
        let name = condition.path().get_ident().unwrap().to_string();
        match condition {
            syn::Meta::NameValue(pair) if name == "feature" => {
                let syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(feature),
                    ..
                }) = &pair.value
                else {
                    panic!("a feature's name is a string");
                };
                self.features.contains(&feature.value().as_str())
            }
            syn::Meta::List(list) => {
                let inner = list.parse_args_with(
                    syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated,
                );
                let held: Vec<bool> = inner.unwrap().iter().map(|one| self.holds(one)).collect();
                match name.as_str() {
                    "all" => held.iter().all(|held| *held),
                    "any" => held.iter().any(|held| *held),
                    "not" => !held[0],
                    _ => panic!("cfg({name}(...))"),
                }
            }
            _ if name == "test" => false,
            _ if SYSTEMS.contains(&name.as_str()) => {
                self.wrong.push(format!("cfg({name})"));
                true
            }
            _ => true,
        }
    }

    /// Checks a path, with imported names replaced.
    fn take(&mut self, path: &[String]) {
        let meant = self
            .names
            .get(&path[0])
            .filter(|meant| **meant != path[..1]);
        let full = match meant {
            Some(meant) => [meant, &path[1..]].concat(),
            None => path.to_vec(),
        };
        let text = full.join("::");
        let is = |banned: &str| text == banned || text.starts_with(&format!("{banned}::"));
        if UNIX_ONLY.iter().any(|banned| is(banned)) || full.iter().any(|part| is_unix_name(part)) {
            self.wrong.push(text);
        }
    }

    fn take_text(&mut self, text: &str) {
        if UNIX_FOLDERS.iter().any(|folder| text.starts_with(folder)) {
            self.wrong.push(format!("{text:?}"));
        }
    }
}

fn is_unix_name(name: &str) -> bool {
    UNIX_ONLY_NAMES.contains(&name)
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_file(&mut self, file: &'ast syn::File) {
        // Imports first: they may follow the code that uses them.
        let uses = file.items.iter().filter_map(|item| match item {
            syn::Item::Use(item) => Some(item),
            _ => None,
        });
        for item in uses {
            for import in paths::imports(&item.tree) {
                if let Some(name) = import.name {
                    self.names.insert(name, import.path);
                }
            }
        }
        syn::visit::visit_file(self, file);
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Macro(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Trait(item) => &item.attrs,
            syn::Item::Type(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if self.active(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let moved = item.attrs.iter().any(|one| one.path().is_ident("path"));
        assert!(!moved, "mod {}: #[path] is not followed", item.ident);
        if item.content.is_none() {
            self.modules.push(format!("{}{}", self.folder, item.ident));
        }
        let outer = self.folder.clone();
        self.folder += &format!("{}/", item.ident);
        syn::visit::visit_item_mod(self, item);
        self.folder = outer;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for import in paths::imports(&item.tree) {
            self.take(&import.path);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.take(
            &segments
                .map(|one| one.ident.to_string())
                .collect::<Vec<_>>(),
        );
        syn::visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.take(&[call.method.to_string()]);
        syn::visit::visit_expr_method_call(self, call);
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.take_text(&text.value());
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let words = words(item.tokens.clone());
        for text in texts(item.tokens.clone()) {
            self.take_text(&text);
        }
        if item.path.is_ident("cfg") {
            let systems = words.iter().filter(|word| SYSTEMS.contains(&word.as_str()));
            let systems: Vec<String> = systems.map(|word| format!("cfg!({word})")).collect();
            self.wrong.extend(systems);
        }
        for word in words.iter().filter(|word| is_unix_name(word)) {
            self.wrong.push(word.clone());
        }
        for path in paths::in_tokens(item.tokens.clone()) {
            self.take(&path);
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if attribute.path().is_ident("cfg") {
            // On a field, a statement or the like: there it counts as active.
            self.active(std::slice::from_ref(attribute));
        }
    }
}

/// The identifiers in tokens.
fn words(tokens: TokenStream) -> Vec<String> {
    let of = |token| match token {
        TokenTree::Ident(ident) => vec![ident.to_string()],
        TokenTree::Group(group) => words(group.stream()),
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(of).collect()
}

/// The texts in tokens.
fn texts(tokens: TokenStream) -> Vec<String> {
    let of = |token| match token {
        TokenTree::Literal(literal) => syn::parse_str::<syn::LitStr>(&literal.to_string())
            .map(|text| vec![text.value()])
            .unwrap_or_default(),
        TokenTree::Group(group) => texts(group.stream()),
        _ => Vec::new(),
    };
    tokens.into_iter().flat_map(of).collect()
}

fn library() -> BTreeMap<String, String> {
    let read = |file: std::path::PathBuf| {
        let inside = file.strip_prefix(at("src")).unwrap();
        let name = inside.iter().map(|part| part.to_str().unwrap());
        (
            name.collect::<Vec<_>>().join("/"),
            std::fs::read_to_string(&file).unwrap(),
        )
    };
    files("src", "rs").into_iter().map(read).collect()
}

#[test]
fn the_client_commands_need_no_unix() {
    let closure = closure(&library(), &["lib.rs", "main.rs"], &["cli"]);
    assert!(closure.wrong.is_empty(), "{}", closure.wrong.join("\n"));
    for file in [
        "cli/plan.rs",
        "cli/status/watch.rs",
        "cli/elsewhere.rs",
        "core/plan/mod.rs",
    ] {
        assert!(closure.files.contains(file), "{file} is not built");
    }
    let processes = [
        "cli/serve",
        "cli/demo",
        "launcher",
        "sidecar",
        "stand_in",
        "controller",
    ];
    let built = |place: &&str| closure.files.iter().any(|file| file.starts_with(*place));
    assert_eq!(processes.iter().find(|place| built(place)), None);
}

/// The test above means something only if the whole program would fail it.
#[test]
fn the_server_needs_unix() {
    let features = ["agent", "cli", "server"];
    let closure = closure(&library(), &["lib.rs", "main.rs"], &features);
    for part in [
        "adapters/dir_watch.rs: rustix::",
        "launcher/mod.rs: tokio::signal::unix",
    ] {
        let found = closure.wrong.iter().any(|wrong| wrong.contains(part));
        assert!(found, "{part} is not found");
    }
}

#[test]
fn what_only_unix_has_comes_with_the_agent() {
    let manifest = std::fs::read_to_string(at("Cargo.toml")).unwrap();
    let (_, cli) = manifest.split_once("\ncli = [").unwrap();
    let (cli, _) = cli.split_once(']').unwrap();
    for part in ["\"agent\"", "\"server\"", "rustix"] {
        assert!(!cli.contains(part), "feature cli has {part}");
    }
    let rustix = manifest
        .lines()
        .find(|line| line.starts_with("rustix = "))
        .unwrap();
    assert!(rustix.contains("optional = true"), "{rustix}");
}

#[test]
fn unix_in_every_form_is_found() {
    let wrong = |text: &str| {
        let sources = [
            (
                "lib.rs",
                "#[cfg(feature = \"cli\")] pub mod a; #[cfg(feature = \"agent\")] mod b;",
            ),
            ("a/mod.rs", "mod c;"),
            ("a/c.rs", text),
            ("b.rs", "use std::os::fd::OwnedFd;"),
        ];
        let sources = sources.map(|(path, text)| (path.to_owned(), text.to_owned()));
        closure(&sources.into(), &["lib.rs"], &["cli"]).wrong
    };
    for text in [
        "use std::os::unix::fs::symlink;",
        "use std::{fs, os::{fd::AsFd, unix}};",
        "use std::os as system;",
        "use std as s; fn f() { s::os::unix::fs::symlink(a, b) }",
        "fn f() { std::os::unix::process::parent_id(); }",
        "use tokio::signal; fn f() { signal::unix::signal(x) }",
        "use tokio::signal::*; fn f() { tokio::select! { _ = tokio::signal::unix::signal(x) => {} } }",
        "mod inner { fn f() { rustix::process::getpid(); } }",
        "fn f() { assert_eq!(libc::EPERM, 1) }",
        "fn f(socket: &TcpStream) { socket.set_quickack(true) }",
        "use tokio::net::UnixStream;",
        "#[cfg(unix)] fn f() {}",
        "#[cfg(not(target_os = \"windows\"))] fn f() {}",
        "#[cfg(all(feature = \"cli\", unix))] fn f() {}",
        "struct S { #[cfg(unix)] a: u8 }",
        "fn f() { if cfg!(target_os = \"macos\") {} }",
        "fn f() { std::fs::read(\"/proc/self/exe\") }",
        "fn f() { format!(\"/dev/fd/{fd}\") }",
        "impl S { #[cfg(feature = \"cli\")] fn f() { nix::unistd::getpid() } }",
    ] {
        assert_eq!(wrong(text).len().min(1), 1, "{text}");
    }
    for text in [
        "use tokio::signal; async fn f() { signal::ctrl_c().await }",
        "#[cfg(feature = \"agent\")] use std::os::fd::OwnedFd;",
        "#[cfg(not(feature = \"cli\"))] fn f() { rustix::process::getpid() }",
        "#[cfg(test)] mod tests { use std::os::unix::fs::symlink; }",
        "const A: &str = \"/run/timeshard\"; fn f() { std::env::consts::OS; }",
    ] {
        assert_eq!(wrong(text), [""; 0], "{text}");
    }
}
