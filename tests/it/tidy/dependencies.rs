//! The direction of dependencies between modules: no cycle among the modules of a directory, and at the top level the order
//! of `src/lib.rs`.
//!
//! Parent and child may use each other. Tests are not looked at. Paths inside macro calls are read as tokens, so that
//! `select! { .. crate::a::b() .. }` counts.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, Macro, UseTree};

use super::sources;

/// `["cluster", "endpoint"]`; the crate root is empty.
type ModulePath = Vec<String>;

/// What each module uses of the crate.
type Uses = BTreeMap<ModulePath, BTreeSet<ModulePath>>;

#[test]
fn modules_of_a_directory_have_no_cycle() {
    let uses = crate_uses();
    let cycles: Vec<_> = directories(&uses).iter().filter_map(|dir| cycle(&siblings(&uses, dir))).collect();
    assert!(cycles.is_empty(), "\n{}", cycles.iter().map(|c| c.join(" -> ")).collect::<Vec<_>>().join("\n"));
}

#[test]
fn each_top_level_module_uses_only_modules_above_it_in_lib_rs() {
    let order = declared(&parse("src/lib.rs"));
    let place = |module: &String| order.iter().position(|name| name == module);
    let graph = siblings(&crate_uses(), &Vec::new());
    let upward: Vec<String> = graph
        .iter()
        .flat_map(|(module, uses)| uses.iter().map(move |used| (module, used)))
        .filter(|(module, used)| place(module).is_some() && place(used) > place(module))
        .map(|(module, used)| format!("{module} uses {used}"))
        .collect();
    assert!(!order.is_empty() && upward.is_empty(), "declared below in src/lib.rs: {upward:?}");
}

#[test]
fn a_cycle_is_found_through_use_paths_calls_and_macros() {
    let modules = [
        ("src/lib.rs", "pub mod a; pub mod b; pub mod c;"),
        ("src/a.rs", "use crate::{b::Thing, std};"),
        ("src/b.rs", "fn f() { super::c::g() }"),
        ("src/c.rs", "fn g() { select! { x = crate::a::h() => {} } }"),
        ("src/c/one.rs", "use super::two::Two;"),
        ("src/c/two.rs", "#[cfg(test)] mod tests { use super::super::one::One; }"),
    ];
    let uses = uses_of(modules.map(|(path, text)| (path.to_owned(), text.to_owned())));
    let found = cycle(&siblings(&uses, &Vec::new())).expect("a cycle");
    assert_eq!(found, ["a", "b", "c", "a"]);
    assert_eq!(cycle(&siblings(&uses, &vec!["c".to_owned()])), None);
}

fn crate_uses() -> Uses {
    let is_code = |path: &str| !path.ends_with("/tests.rs") && !path.contains("/tests/");
    uses_of(sources("src").into_iter().filter(|(path, _)| is_code(path)))
}

fn uses_of(sources: impl IntoIterator<Item = (String, String)>) -> Uses {
    let parsed: BTreeMap<ModulePath, File> = sources
        .into_iter()
        .map(|(path, text)| {
            let file = syn::parse_file(&text).unwrap_or_else(|why| panic!("{path}: {why}"));
            (module_path(&path), file)
        })
        .collect();
    let modules: BTreeSet<&ModulePath> = parsed.keys().collect();
    parsed
        .iter()
        .filter(|(module, _)| !module.is_empty() && module[0] != "main")
        .map(|(module, file)| {
            let mut paths = Paths::default();
            paths.visit_file(file);
            let used = paths.0.iter().filter_map(|path| resolve(path, module, &modules));
            (module.clone(), used.filter(|used| used != module).collect())
        })
        .collect()
}

fn parse(path: &str) -> File {
    let (_, text) = sources("src").into_iter().find(|(source, _)| source == path).expect("the file");
    syn::parse_file(&text).expect("Rust")
}

/// `src/a/b.rs` is `a::b`; `src/lib.rs` is the root.
fn module_path(path: &str) -> ModulePath {
    let path = path.strip_prefix("src/").unwrap_or(path).strip_suffix(".rs").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

fn declared(file: &File) -> Vec<String> {
    let name = |item: &Item| match item {
        Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    };
    file.items.iter().filter_map(name).collect()
}

/// The module that a path leads into. `None` for a path outside of the crate.
fn resolve(path: &[String], module: &ModulePath, modules: &BTreeSet<&ModulePath>) -> Option<ModulePath> {
    let mut names = path.iter().peekable();
    let mut at = match names.next()?.as_str() {
        "crate" => Vec::new(),
        "self" => module.clone(),
        "super" => module[..module.len() - 1].to_vec(),
        _ => return None,
    };
    while names.next_if(|name| *name == "super").is_some() {
        at.pop();
    }
    for name in names {
        at.push(name.clone());
        if !modules.contains(&at) {
            at.pop();
            break;
        }
    }
    (!at.is_empty()).then_some(at)
}

/// Every directory with modules in it, as the path of its parent module.
fn directories(uses: &Uses) -> BTreeSet<ModulePath> {
    uses.keys().map(|module| module[..module.len() - 1].to_vec()).collect()
}

/// The arrows between the modules of one directory, those of their descendants included.
fn siblings(uses: &Uses, dir: &ModulePath) -> BTreeMap<String, BTreeSet<String>> {
    let child = |module: &ModulePath| module.strip_prefix(dir.as_slice()).and_then(<[_]>::first).cloned();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, used) in uses {
        let Some(from) = child(module) else { continue };
        let to = used.iter().filter_map(child).filter(|to| *to != from);
        graph.entry(from.clone()).or_default().extend(to);
    }
    graph
}

/// The names on one cycle, the first repeated at its end.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| cycle_from(start, graph, &mut Vec::new(), &mut done))
}

fn cycle_from(
    at: &String,
    graph: &BTreeMap<String, BTreeSet<String>>,
    path: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(begin) = path.iter().position(|module| module == at) {
        return Some(path[begin..].iter().chain([at]).cloned().collect());
    }
    if !done.insert(at.clone()) {
        return None;
    }
    path.push(at.clone());
    let found = graph.get(at).into_iter().flatten().find_map(|next| cycle_from(next, graph, path, done));
    path.pop();
    found
}

/// Collects the paths that a file names, each as its identifiers.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn collect_use(&mut self, tree: &UseTree, prefix: &[String]) {
        let with = |name: String| prefix.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.collect_use(&path.tree, &with(path.ident.to_string())),
            UseTree::Name(name) => self.0.push(with(name.ident.to_string())),
            UseTree::Rename(rename) => self.0.push(with(rename.ident.to_string())),
            UseTree::Glob(_) => self.0.push(prefix.to_vec()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.collect_use(tree, prefix)),
        }
    }

    /// Runs of identifiers joined by `::`.
    fn collect_tokens(&mut self, tokens: TokenStream) {
        let mut run: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.0.push(std::mem::take(&mut run));
                    }
                    run.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.collect_tokens(group.stream());
                    colons = 0;
                }
                _ => colons = 0,
            }
        }
        self.0.push(run);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(module) => &module.attrs,
            Item::Fn(function) => &function.attrs,
            Item::Impl(block) => &block.attrs,
            Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.collect_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.collect_tokens(call.tokens.clone());
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let is_test = |list: &syn::MetaList| list.tokens.to_string() == "test";
    attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test)
}
