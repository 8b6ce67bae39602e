//! Documents name what exists: files, folders, types and their functions; and their Rust is compiled.

use std::path::{Path, PathBuf};

use super::source::{files_below, read, root, rust_files};

/// What a path in a document may be relative to.
const BASES: &[&str] = &["", "src", "engine/src", "bench/src", "tests/it"];

/// Made by a build or a run, so not part of the tree.
const GENERATED: &[&str] = &["target/", ".postgres/"];

fn documents() -> Vec<PathBuf> {
    let mut documents = vec![PathBuf::from("README.md")];
    for folder in ["docs", "engine", "adapters", "deploy", "bench", "examples"] {
        let is_document = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
        documents.extend(files_below(folder).into_iter().filter(is_document));
    }
    // A change log tells of what was.
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

/// Everything that Rust files declare, as one text to search.
struct Sources(Vec<(PathBuf, String)>);

impl Sources {
    fn read() -> Self {
        let folders = ["src", "engine/src", "adapters", "bench/src", "tests/it"];
        let files = folders.into_iter().flat_map(rust_files);
        Self(files.map(|path| (path.clone(), read(path))).collect())
    }

    /// The files that declare a type or a module of that name.
    fn of(&self, name: &str) -> Vec<&(PathBuf, String)> {
        let declares = |source: &str| {
            let kinds = ["struct", "enum", "trait", "type", "mod", "impl", "for"];
            source.contains(name)
                && kinds
                    .iter()
                    .any(|kind| has_words(source, &format!("{kind} {name}")))
        };
        let is_module = |path: &Path| {
            let folder = path.parent().and_then(Path::file_name);
            path.file_stem().is_some_and(|stem| stem == name)
                || folder.is_some_and(|folder| folder == name)
        };
        let crate_of = |path: &Path| match name {
            "payonce" => path.starts_with("src"),
            "payonce_engine" => path.starts_with("engine/src"),
            _ => false,
        };
        let files = self.0.iter();
        files
            .filter(|(path, source)| is_module(path) || crate_of(path) || declares(source))
            .collect()
    }
}

/// Returns true if a source has these words, and no longer ones.
fn has_words(source: &str, words: &str) -> bool {
    source.match_indices(words).any(|(at, _)| {
        let behind = source[at + words.len()..].chars().next();
        behind.is_none_or(|c| c != '_' && !c.is_alphanumeric())
    })
}

/// Returns true if a source declares it: a function, a type, a module, or a variant.
fn declares(source: &str, name: &str) -> bool {
    let kinds = [
        "fn", "mod", "struct", "enum", "trait", "type", "const", "use", "as", "pub",
    ];
    let declared = kinds
        .iter()
        .any(|kind| has_words(source, &format!("{kind} {name}")));
    let starts_with_it = |line: &str| {
        let line = line.trim_start();
        name.starts_with(char::is_uppercase)
            && line
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['(', ',', ' ', '{']))
    };
    declared || source.lines().any(starts_with_it)
}

#[test]
fn each_name_that_a_document_qualifies_exists() {
    let sources = Sources::read();
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
            let found = sources.of(owner);
            let is_there = !found.is_empty()
                && (last.is_empty() || found.iter().any(|(_, source)| declares(source, last)));
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
