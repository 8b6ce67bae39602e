//! Rust files, read far enough for these tests: which characters are code, comment or string, and which are tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The folders that have the project's Rust.
const FOLDERS: &[&str] = &["src", "engine", "adapters", "bench", "tests/it"];

/// A Rust file.
pub struct Source {
    /// From the root.
    pub path: PathBuf,
    pub text: String,
    /// Without comments, the content of strings, and tests at the end of the file. Lines keep their places.
    pub code: String,
    /// The lines of code: no comments, no blank lines, no tests. Strings stay, so SQL counts as code.
    pub lines: Vec<String>,
}

/// All Rust files, read once for all tests.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|end| end == "rs");
    let paths = FOLDERS.iter().flat_map(|folder| files_below(folder));
    let texts: BTreeMap<PathBuf, String> = paths
        .filter(is_rust)
        .map(|path| (path.clone(), read(path)))
        .collect();
    let sources = texts.iter().map(|(path, text)| Source {
        path: path.clone(),
        text: text.clone(),
        code: without_tests(&Separated::of(text).code),
        lines: match is_tests(path, &texts) {
            true => Vec::new(),
            false => lines_of(text),
        },
    });
    sources.collect()
});

/// The Rust files below a folder, in the order of their paths.
pub fn sources(folder: &str) -> impl Iterator<Item = &'static Source> {
    let folder = folder.to_owned();
    SOURCES
        .iter()
        .filter(move |source| source.path.starts_with(&folder))
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, by their paths from the root. Empty if the folder does not exist.
pub fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(root()).expect("below").to_owned());
            }
        }
    }
    files.sort();
    files
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A source without its comments. Lines keep their places.
#[derive(Default)]
struct Separated {
    /// Strings are empty, too.
    code: String,
    with_strings: String,
}

impl Separated {
    fn of(source: &str) -> Self {
        let mut separated = Self::default();
        let mut rest = source;
        while !rest.is_empty() {
            let (kind, length) = piece(rest);
            let (piece, behind) = rest.split_at(length);
            let blank = || "\n ".repeat(piece.matches('\n').count());
            separated.code.push_str(match kind {
                Kind::Code => piece,
                Kind::Text | Kind::Comment => " ",
            });
            separated.with_strings.push_str(match kind {
                Kind::Code | Kind::Text => piece,
                Kind::Comment => " ",
            });
            if kind != Kind::Code {
                separated.code.push_str(&blank());
            }
            if kind == Kind::Comment {
                separated.with_strings.push_str(&blank());
            }
            rest = behind;
        }
        separated
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Comment,
    Text,
    Code,
}

/// What a rest begins with, and how many bytes it has.
fn piece(rest: &str) -> (Kind, usize) {
    let end_of = |text: &str| rest.find(text).map_or(rest.len(), |at| at + text.len());
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, end_of("*/"));
    }
    let mut characters = rest.chars();
    match characters.next() {
        Some('"') => (Kind::Text, quoted(rest)),
        Some('r') if rest[1..].starts_with(['"', '#']) => {
            raw_text(rest).map_or_else(|| (Kind::Code, 1), |length| (Kind::Text, length))
        }
        // A character, or a lifetime.
        Some('\'') => match (characters.next(), characters.next()) {
            (Some('\\'), _) => {
                let end = rest[3..].find('\'').map(|at| at + 4);
                (Kind::Text, end.unwrap_or(rest.len()))
            }
            (Some(character), Some('\'')) => (Kind::Text, character.len_utf8() + 2),
            _ => (Kind::Code, 1),
        },
        Some(first) if is_word(first) => {
            let end = rest.find(|c| !is_word(c));
            (Kind::Code, end.unwrap_or(rest.len()))
        }
        Some(first) => {
            let start = first.len_utf8();
            let end = rest[start..].find(|c| is_word(c) || matches!(c, '"' | '\'' | '/'));
            (Kind::Code, end.map_or(rest.len(), |end| start + end))
        }
        None => (Kind::Code, 0),
    }
}

pub fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn quoted(rest: &str) -> usize {
    let mut at = 1;
    while let Some(next) = rest.get(at..).and_then(|rest| rest.find(['"', '\\'])) {
        at += next;
        if rest[at..].starts_with('"') {
            return at + 1;
        }
        let escaped = rest[at + 1..].chars().next();
        at += 1 + escaped.map_or(0, char::len_utf8);
    }
    rest.len()
}

fn raw_text(rest: &str) -> Option<usize> {
    let hashes = rest[1..].find(|c| c != '#')?;
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(hashes + 2 + body.find(&end)? + end.len())
}

/// A source without its `#[cfg(test)] mod … { … }`. Comments and strings must be gone already.
fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut kept = String::new();
    while let Some((before, behind)) = rest.split_once("#[cfg(test)]\nmod ") {
        kept.push_str(before);
        kept.push('\n');
        let end = match (behind.find('{'), behind.find(';')) {
            (Some(block), semicolon) if semicolon.is_none_or(|semicolon| block < semicolon) => {
                block_end(behind)
            }
            (_, semicolon) => semicolon,
        };
        let end = end.expect("the module's end") + 1;
        kept.extend(behind[..end].chars().filter(|c| *c == '\n'));
        rest = &behind[end..];
    }
    kept + rest
}

fn block_end(code: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, brace) in code.match_indices(['{', '}']) {
        match brace {
            "{" => depth += 1,
            _ if depth == 1 => return Some(at),
            _ => depth -= 1,
        }
    }
    None
}

/// Returns true if the file is compiled for tests only, because its parent declares it so.
fn is_tests(path: &Path, texts: &BTreeMap<PathBuf, String>) -> bool {
    let stem = path.file_stem().expect("a name").to_string_lossy();
    let folder = path.parent().expect("a folder");
    let parents = [
        folder.join("mod.rs"),
        folder.join("lib.rs"),
        folder.with_extension("rs"),
    ];
    let declared = format!("#[cfg(test)]\nmod {stem};");
    let mut parents = parents.iter().filter_map(|parent| texts.get(parent));
    parents.any(|parent| parent.contains(&declared))
}

fn lines_of(text: &str) -> Vec<String> {
    let separated = Separated::of(text);
    // Strings may contain braces, so the end of the tests is found without them.
    let outside = without_tests(&separated.code);
    // A line of the tests is empty in the one, a comment is blank in the other.
    let lines = separated.with_strings.lines().zip(outside.lines());
    let lines = lines.filter(|(code, outside)| !code.trim().is_empty() && !outside.is_empty());
    lines.map(|(code, _)| code.to_owned()).collect()
}

#[test]
fn comments_strings_and_tests_are_told_from_code() {
    let source = concat!(
        "let a = \"crate::x // \\\" {\"; // crate::y\n",
        "let b = r#\"crate::\"z\"\n#\"#; /* crate::\n w */ let c = '\"'; let d = '{'; fn e<'a>() { 'ä' }\n",
        "#[cfg(test)]\nmod tests {\n    fn f() { crate::g(); }\n}\nlet r#h;\n",
    );
    let separated = Separated::of(source);
    let code = without_tests(&separated.code);
    assert_eq!(code.lines().count(), source.lines().count());
    assert!(!code.contains("crate::") && !code.contains('ä'), "{code}");
    for kept in ["let a =", "let b =", "let c =", "fn e<'a>() {", "let r#h;"] {
        assert!(code.contains(kept), "{kept}: {code}");
    }
    assert!(separated.with_strings.contains("crate::\"z"));
    assert_eq!(lines_of(source).len(), 5, "{:?}", lines_of(source));
}
