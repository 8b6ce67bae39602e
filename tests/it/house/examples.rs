//! Each public item of the libraries has an example, or its documentation names the item whose example shows it.

use super::source::{Source, sources};

/// The libraries. A method may rely on its type's example, so only items outside of an `impl` are checked.
const LIBRARIES: &[(&str, usize)] = &[
    ("engine/src", 80),
    ("adapters/core/src", 12),
    ("adapters/actix/src", 10),
    ("adapters/axum/src", 10),
];

/// For this project's own tests, and hidden in the documentation.
const HIDDEN: &[&str] = &["engine/src/failpoints.rs"];

const KINDS: &[&str] = &["fn", "struct", "enum", "trait", "const", "static"];

/// The public items outside of an `impl`, with the documentation of each.
fn items(source: &Source) -> Vec<(&str, Vec<&str>)> {
    let mut items = Vec::new();
    let mut documentation = Vec::new();
    for line in source.text.lines() {
        if line.starts_with("///") {
            documentation.push(line);
            continue;
        }
        // Attributes stand between the documentation and the item, and some take several lines.
        if line.starts_with('#') || line.starts_with([' ', ')']) {
            continue;
        }
        let mut words = line.split(' ').filter(|word| *word != "async");
        let (first, kind, name) = (words.next(), words.next(), words.next());
        if let (Some("pub"), Some(kind), Some(name)) = (first, kind, name)
            && KINDS.contains(&kind)
        {
            let end = name.find(|c| !super::source::is_word(c));
            items.push((&name[..end.unwrap_or(name.len())], documentation.clone()));
        }
        documentation.clear();
    }
    items
}

fn has_example(documentation: &[&str]) -> bool {
    let mut lines = documentation.iter();
    lines.any(|line| line.contains("```") || line.contains("example"))
}

#[test]
fn each_public_item_of_the_libraries_has_an_example() {
    for (library, fewest) in LIBRARIES {
        let (mut checked, mut without) = (0, Vec::new());
        let sources = sources(library)
            .filter(|source| !source.lines.is_empty())
            .filter(|source| !HIDDEN.iter().any(|hidden| source.path.ends_with(hidden)));
        for source in sources {
            for (name, documentation) in items(source) {
                checked += 1;
                if !has_example(&documentation) {
                    without.push(format!("{}: {name}", source.path.display()));
                }
            }
        }
        assert!(without.is_empty(), "{without:#?}");
        assert!(checked >= *fewest, "{library}: {checked}");
    }
}

#[test]
fn an_item_without_an_example_is_found() {
    let source = |text: &str| Source {
        path: "a.rs".into(),
        text: text.to_owned(),
        code: String::new(),
        lines: Vec::new(),
    };
    let text = "/// ```\n/// ```\n#[derive(\n    Debug,\n)]\npub struct A<T>;\n\n/// B.\npub async fn b(\n    c: C,\n) {}\n\npub(crate) fn d() {}\n";
    let source = source(text);
    let items = items(&source);
    let found: Vec<(&str, bool)> = items
        .iter()
        .map(|(name, documentation)| (*name, has_example(documentation)))
        .collect();
    assert_eq!(found, [("A", true), ("b", false)]);
}
