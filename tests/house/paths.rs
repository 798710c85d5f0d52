//! Paths in Rust code, as syn reads it: those of imports, and those in the tokens of macros.

use proc_macro2::{TokenStream, TokenTree};

/// A path, such as `["crate", "core", "plan"]`.
pub(crate) type Segments = Vec<String>;

/// An import: the path, and the name that it has from there on. A glob has no name.
pub(crate) struct Import {
    pub(crate) path: Segments,
    pub(crate) name: Option<String>,
}

/// The imports of one `use`; `self` in a group imports what is before it.
pub(crate) fn imports(tree: &syn::UseTree) -> Vec<Import> {
    let mut found = Vec::new();
    collect(&[], tree, &mut found);
    found
}

fn collect(before: &[String], tree: &syn::UseTree, found: &mut Vec<Import>) {
    let mut take = |last: Option<&syn::Ident>, name: Option<&syn::Ident>| {
        let last = last.filter(|last| *last != "self").map(ToString::to_string);
        let path: Segments = before.iter().cloned().chain(last).collect();
        let name = name
            .filter(|name| *name != "self")
            .map(ToString::to_string)
            .or_else(|| path.last().cloned());
        found.push(Import { path, name });
    };
    match tree {
        syn::UseTree::Path(path) => {
            let before = [before, &[path.ident.to_string()]].concat();
            collect(&before, &path.tree, found);
        }
        syn::UseTree::Group(group) => {
            for tree in &group.items {
                collect(before, tree, found);
            }
        }
        syn::UseTree::Name(name) => take(Some(&name.ident), Some(&name.ident)),
        syn::UseTree::Rename(name) => take(Some(&name.ident), Some(&name.rename)),
        syn::UseTree::Glob(_) => found.push(Import {
            path: before.to_vec(),
            name: None,
        }),
    }
}

/// The paths of two segments or more in tokens, which syn does not parse: identifiers with `::`
/// between them.
pub(crate) fn in_tokens(tokens: TokenStream) -> Vec<Segments> {
    let mut found = Vec::new();
    let mut path = Segments::new();
    let mut colons = 0;
    let mut end = |path: &mut Segments| {
        let path = std::mem::take(path);
        if path.len() > 1 {
            found.push(path);
        }
    };
    let mut groups = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Ident(ident) => {
                if colons != 2 {
                    end(&mut path);
                }
                path.push(ident.to_string());
                colons = 0;
            }
            other => {
                end(&mut path);
                colons = 0;
                if let TokenTree::Group(group) = other {
                    groups.push(group.stream());
                }
            }
        }
    }
    end(&mut path);
    found.extend(groups.into_iter().flat_map(in_tokens));
    found
}
