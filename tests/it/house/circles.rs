//! The modules of one folder do not import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::imports::paths;
use super::source::{Source, sources};

/// The packages' folders, and how many imports between modules each has at least: with fewer, this test reads the wrong files.
const ROOTS: &[(&str, usize)] = &[
    ("src", 20),
    ("engine/src", 20),
    ("bench/src", 20),
    ("adapters/core/src", 10),
    ("adapters/actix/src", 4),
    ("adapters/axum/src", 6),
    ("adapters/suite/src", 4),
];

type Module<'a> = Vec<&'a str>;

/// The module that a file is, by its path below the crate's `src`.
fn module_of<'a>(path: &'a Path, root: &str) -> Module<'a> {
    let below = path.strip_prefix(root).expect("below the root");
    let mut module: Module<'a> = below
        .iter()
        .map(|part| part.to_str().expect("UTF-8").trim_end_matches(".rs"))
        .collect();
    if module
        .last()
        .is_some_and(|last| ["lib", "main", "mod"].contains(last))
    {
        module.pop();
    }
    module
}

/// The longest module of the crate that a path in `module` leads through.
fn resolve<'a>(
    modules: &BTreeMap<Module<'a>, &'a Source>,
    module: &[&'a str],
    path: &[&'a str],
) -> Module<'a> {
    let mut found = module.to_vec();
    for name in path {
        match *name {
            "crate" => found.clear(),
            "self" => {}
            "super" => drop(found.pop()),
            name => {
                found.push(name);
                if !modules.contains_key(&found) {
                    found.pop();
                    return found;
                }
            }
        }
    }
    found
}

/// Which module of a folder imports which other of the same folder, itself or in what is below it.
fn imports(root: &str) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let modules: BTreeMap<Module, &Source> = sources(root)
        .filter(|source| !source.lines.is_empty())
        .map(|source| (module_of(&source.path, root), source))
        .collect();
    let mut imports = BTreeMap::<String, BTreeSet<(String, String)>>::new();
    for (module, source) in &modules {
        for path in paths(&source.code, &["crate", "self", "super"]) {
            let other = resolve(&modules, module, &path);
            let shared = module
                .iter()
                .zip(&other)
                .take_while(|(a, b)| a == b)
                .count();
            // A folder's `mod.rs` is above what the folder has, and re-exports it.
            if let (Some(from), Some(to)) = (module.get(shared), other.get(shared)) {
                let folder = format!("{root}/{}", module[..shared].join("/"));
                let edge = ((*from).to_owned(), (*to).to_owned());
                imports.entry(folder).or_default().insert(edge);
            }
        }
    }
    imports
}

/// What is left of these imports once no module is left that imports nothing.
fn circle(mut imports: BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
    loop {
        let importing: BTreeSet<String> = imports.iter().map(|(from, _)| from.clone()).collect();
        let before = imports.len();
        imports.retain(|(_, to)| importing.contains(to));
        if imports.len() == before {
            return imports;
        }
    }
}

#[test]
fn no_folder_has_a_circle_of_imports() {
    for (root, fewest_imports) in ROOTS {
        let imports = imports(root);
        let found: usize = imports.values().map(BTreeSet::len).sum();
        assert!(found >= *fewest_imports, "{root}: {found}");
        for (folder, imports) in imports {
            let circle = circle(imports);
            assert!(circle.is_empty(), "{folder}: {circle:?}");
        }
    }
}

#[test]
fn a_circle_is_found() {
    let imports = |text: &str| -> BTreeSet<(String, String)> {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once('>'));
        pairs
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .collect()
    };
    assert_eq!(circle(imports("a>b b>c a>c")), imports(""));
    assert_eq!(circle(imports("a>b b>c c>b c>d")), imports("a>b b>c c>b"));
}
