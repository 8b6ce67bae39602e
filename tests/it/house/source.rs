//! Rust files, read far enough for these tests: which characters are code, comment or string, and which are tests.

use std::path::{Path, PathBuf};

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

pub fn rust_files(folder: &str) -> Vec<PathBuf> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|end| end == "rs");
    files_below(folder).into_iter().filter(is_rust).collect()
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A source without its comments, and optionally without the content of its strings. Lines keep their places.
pub fn without_comments(source: &str, keep_strings: bool) -> String {
    let characters: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < characters.len() {
        let (length, is_kept) = match token(&characters[at..]) {
            Token::Comment(length) => (length, false),
            Token::Text(length) => (length, keep_strings),
            Token::Code(length) => (length, true),
        };
        for character in &characters[at..at + length] {
            let is_kept = is_kept || *character == '\n';
            code.push(if is_kept { *character } else { ' ' });
        }
        at += length;
    }
    code
}

/// What stands at the beginning of a rest, and how many characters it has.
enum Token {
    Comment(usize),
    Text(usize),
    Code(usize),
}

fn token(rest: &[char]) -> Token {
    let starts = |text: &str| text.chars().zip(rest).filter(|(a, b)| a == *b).count() == text.len();
    let line = || rest.iter().take_while(|c| **c != '\n').count();
    if starts("//") {
        return Token::Comment(line());
    }
    if starts("/*") {
        let end = rest.windows(2).position(|pair| pair == ['*', '/']);
        return Token::Comment(end.map_or(rest.len(), |end| end + 2));
    }
    match rest[0] {
        '"' => Token::Text(quoted(rest)),
        'r' => raw_text(rest).map_or_else(|| Token::Code(word(rest)), Token::Text),
        // A character, or a lifetime.
        '\'' if rest.get(1) == Some(&'\\') => {
            let end = rest.iter().skip(3).position(|c| *c == '\'');
            Token::Text(end.map_or(rest.len(), |end| end + 4))
        }
        '\'' if rest.get(2) == Some(&'\'') => Token::Text(3),
        c if c == '_' || c.is_alphabetic() => Token::Code(word(rest)),
        _ => Token::Code(1),
    }
}

fn word(rest: &[char]) -> usize {
    let is_word = |c: &&char| **c == '_' || c.is_alphanumeric();
    rest.iter().take_while(is_word).count()
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_text(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let mut end = vec!['"'];
    end.resize(1 + hashes, '#');
    let body = &rest[hashes + 2..];
    let length = body.windows(end.len()).position(|part| part == end)?;
    Some(hashes + 2 + length + end.len())
}

/// A source without its `#[cfg(test)] mod … { … }`. Comments and strings must be gone already.
pub fn without_tests(code: &str) -> String {
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
    for (at, character) in code.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Returns true if the file is compiled for tests only, because its parent declares it so.
pub fn is_tests(path: &Path) -> bool {
    let stem = path.file_stem().expect("a name").to_string_lossy();
    let folder = path.parent().expect("a folder");
    let parents = [
        folder.join("mod.rs"),
        folder.join("lib.rs"),
        folder.with_extension("rs"),
    ];
    let declared = format!("#[cfg(test)]\nmod {stem};");
    parents
        .iter()
        .filter(|parent| root().join(parent).exists())
        .any(|parent| read(parent).contains(&declared))
}

/// The lines of a file's code: no comments, no blank lines, no tests. Strings stay, so SQL counts as code.
pub fn lines_of(path: &Path) -> Vec<String> {
    if is_tests(path) {
        return Vec::new();
    }
    let source = read(path);
    // Strings may contain braces, so the end of the tests is found without them.
    let without_strings = without_tests(&without_comments(&source, false));
    let code = without_comments(&source, true);
    // A line of the tests is empty in the one, a comment is blank in the other.
    let lines = code.lines().zip(without_strings.lines());
    let lines = lines.filter(|(code, outside)| !code.trim().is_empty() && !outside.is_empty());
    lines.map(|(code, _)| code.to_owned()).collect()
}

/// The code of a file, as these tests see it: no comments, no strings, no tests.
pub fn code_of(path: &Path) -> String {
    without_tests(&without_comments(&read(path), false))
}

#[test]
fn comments_strings_and_tests_are_told_from_code() {
    let source = concat!(
        "let a = \"crate::x // \\\" {\"; // crate::y\n",
        "let b = r#\"crate::\"z\"#; /* crate::\n w */ let c = '\"'; let d = '{'; fn e<'a>() {}\n",
        "#[cfg(test)]\nmod tests {\n    fn f() { crate::g(); }\n}\nlet h;\n",
    );
    let code = without_tests(&without_comments(source, false));
    assert_eq!(code.lines().count(), source.lines().count());
    assert!(!code.contains("crate::"), "{code}");
    for kept in ["let a =", "let b =", "let c =", "fn e<'a>() {}", "let h;"] {
        assert!(code.contains(kept), "{kept}: {code}");
    }
    assert!(without_comments(source, true).contains("crate::\"z"));
}
