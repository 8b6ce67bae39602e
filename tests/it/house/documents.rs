//! The files, folders, types and functions in documents exist, and their Rust is compiled.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::source::{Source, files_below, is_word, read, root, sources};

/// The folders to which a path in a document may be relative.
const BASES: &[&str] = &["", "src", "engine/src", "bench/src", "tests/it"];

/// Made by a build or a run, so not part of the tree.
const GENERATED: &[&str] = &["target/", ".postgres/"];

fn documents() -> Vec<PathBuf> {
    let mut documents = vec![PathBuf::from("README.md")];
    for folder in ["docs", "engine", "adapters", "deploy", "bench", "examples"] {
        let is_document = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
        documents.extend(files_below(folder).into_iter().filter(is_document));
    }
    // A change log may name removed things.
    documents.retain(|path| !path.ends_with("CHANGELOG.md"));
    documents
}

/// The texts in backticks, outside of blocks of code.
fn quoted(document: &str) -> Vec<&str> {
    let outside = document.split("```").step_by(2);
    outside
        .flat_map(|text| text.split('`').skip(1).step_by(2))
        .collect()
}

/// `a{b,c}d` as `abd` and `acd`.
fn alternatives(path: &str) -> Vec<String> {
    let Some((before, (inner, after))) = path
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![path.to_owned()];
    };
    inner
        .split(',')
        .map(|one| format!("{before}{one}{after}"))
        .collect()
}

/// Returns true if the path exists. Its last part may have one `*`.
fn exists(path: &Path) -> bool {
    let path = path.to_str().expect("UTF-8");
    let Some((before, after)) = path.split_once('*') else {
        return root().join(path).exists();
    };
    let (folder, start) = before.rsplit_once('/').unwrap_or(("", before));
    let entries = std::fs::read_dir(root().join(folder))
        .into_iter()
        .flatten()
        .flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.any(|name| name.starts_with(start) && name.ends_with(after))
}

fn is_path(text: &str) -> bool {
    let looks_so = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/_.-{},*".contains(c));
    let first = text.split('/').next().unwrap_or_default();
    let names_ours = || {
        BASES
            .iter()
            .any(|base| !first.is_empty() && root().join(base).join(first).is_dir())
    };
    looks_so
        && !text.starts_with(['/', '.'])
        && (text.ends_with(".rs") || text.ends_with(".sql") || (text.contains('/') && names_ours()))
        && !GENERATED.iter().any(|start| text.starts_with(start))
}

#[test]
fn each_path_that_a_document_names_exists() {
    let folders = [
        "src",
        "engine",
        "adapters",
        "bench",
        "tests",
        "deploy",
        "migrations",
    ];
    let sources: Vec<PathBuf> = folders.into_iter().flat_map(files_below).collect();
    let (mut checked, mut missing) = (0, Vec::new());
    for document in documents() {
        for text in quoted(&read(&document))
            .into_iter()
            .filter(|text| is_path(text))
        {
            for path in alternatives(text) {
                let below = |base: &&str| exists(&Path::new(base).join(&path));
                // A bare name is a file of the folder that the sentence is about.
                let is_bare = !path.contains('/');
                let is_found = BASES.iter().any(below)
                    || is_bare && sources.iter().any(|source| source.ends_with(&path));
                checked += 1;
                if !is_found {
                    missing.push(format!("{}: `{path}`", document.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(checked > 50, "{checked}");
}

/// The words after which a type or a module is named.
const OWNERS: &[&str] = &["struct", "enum", "trait", "type", "mod", "impl", "for"];

/// The words after which something is named.
const DECLARATIONS: &[&str] = &[
    "fn", "mod", "struct", "enum", "trait", "type", "const", "use", "as", "pub",
];

/// The declarations of a Rust file.
struct Declared {
    path: &'static Path,
    /// Types and modules, also those that it implements something for.
    owners: BTreeSet<&'static str>,
    /// Functions, types, modules, constants, fields and variants.
    names: BTreeSet<&'static str>,
}

impl Declared {
    fn of(source: &'static Source) -> Self {
        let mut declared = Self {
            path: &source.path,
            owners: BTreeSet::new(),
            names: BTreeSet::new(),
        };
        for line in source.text.lines() {
            let line = line.trim_start();
            let end = line.find(|c| !is_word(c)).unwrap_or(line.len());
            let (first, behind) = line.split_at(end);
            // A variant.
            if first.starts_with(char::is_uppercase) && behind.starts_with(['(', ',', ' ', '{']) {
                declared.names.insert(first);
            }
            let words: Vec<&str> = line.split(' ').collect();
            for pair in words.windows(2) {
                let kind = pair[0].rsplit(|c| !is_word(c)).next().unwrap_or_default();
                let name = pair[1].split(|c| !is_word(c)).next().unwrap_or_default();
                if OWNERS.contains(&kind) {
                    declared.owners.insert(name);
                }
                if DECLARATIONS.contains(&kind) {
                    declared.names.insert(name);
                }
            }
        }
        declared
    }

    /// Returns true if the file is the module, or declares a type or a module of that name.
    fn has_owner(&self, name: &str) -> bool {
        let folder = self.path.parent().and_then(Path::file_name);
        let is_crate = match name {
            "payonce" => self.path.starts_with("src"),
            "payonce_engine" => self.path.starts_with("engine/src"),
            _ => false,
        };
        is_crate
            || self.path.file_stem().is_some_and(|stem| stem == name)
            || folder.is_some_and(|folder| folder == name)
            || self.owners.contains(name)
    }
}

#[test]
fn each_name_that_a_document_qualifies_exists() {
    let sources: Vec<Declared> = sources("").map(Declared::of).collect();
    let (mut checked, mut missing) = (0, Vec::new());
    for document in documents() {
        let text = read(&document);
        for name in quoted(&text) {
            // `it:model::` names a test for the command line.
            let is_name = !name.replace("::", "").contains(':')
                && name
                    .chars()
                    .all(|c| c == ':' || c == '_' || c.is_ascii_alphanumeric());
            let Some((owners, last)) = name.rsplit_once("::").filter(|_| is_name) else {
                continue;
            };
            let owner = owners.rsplit("::").next().unwrap_or(owners);
            let mut found = sources.iter().filter(|file| file.has_owner(owner));
            let is_there = found.any(|file| last.is_empty() || file.names.contains(last));
            checked += 1;
            if !is_there {
                missing.push(format!("{}: `{name}`", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(checked > 5, "{checked}");
}

/// A document's Rust is a doctest of the library or of the engine, or an example's source, which a test compares.
#[test]
fn rust_in_documents_is_compiled() {
    let libraries: String = ["src/lib.rs", "engine/src/lib.rs"]
        .iter()
        .filter(|path| root().join(path).exists())
        .map(read)
        .collect();
    let compared = read("tests/it/clients.rs");
    for document in documents() {
        if !read(&document).contains("```rust") {
            continue;
        }
        let name = document.file_name().expect("a name").to_string_lossy();
        assert!(
            libraries.contains(&format!("{name}\")")) || compared.contains(&format!("{name}\")")),
            "{}: nothing compiles its Rust",
            document.display()
        );
    }
}
