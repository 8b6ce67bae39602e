//! The paths by which one module names another.

/// Each path that begins with one of `roots`, such as `crate` or `super`. A `use` with groups is taken apart.
pub fn paths<'a>(code: &'a str, roots: &[&str]) -> Vec<Vec<&'a str>> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = &tokens[..at];
        // A visibility, `pub(in super::super)`, imports nothing. `$crate` is another crate.
        let is_whole = !before.ends_with(&["::"])
            && !before.ends_with(&["$"])
            && !before.ends_with(&["(", "in"]);
        let begins = roots.contains(&tokens[at]) && tokens.get(at + 1) == Some(&"::");
        at = match begins && is_whole {
            true => read_path(&tokens, at, &[], &mut paths),
            false => at + 1,
        };
    }
    paths
}

/// Reads the path at `at`, which continues `start`. Returns where it ends.
fn read_path<'a>(
    tokens: &[&'a str],
    mut at: usize,
    start: &[&'a str],
    paths: &mut Vec<Vec<&'a str>>,
) -> usize {
    let mut path = start.to_vec();
    while let Some(token) = tokens.get(at) {
        at += 1;
        if *token == "{" {
            while tokens.get(at).is_some_and(|token| *token != "}") {
                at = match tokens[at] {
                    "," => at + 1,
                    _ => read_path(tokens, at, &path, paths),
                };
            }
            return at + 1;
        }
        path.push(token);
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    paths.push(path);
    match tokens.get(at) {
        Some(&"as") => at + 2,
        _ => at,
    }
}

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if super::source::is_word(first) => rest
                .find(|c| !super::source::is_word(c))
                .unwrap_or(rest.len()),
            _ if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        tokens.push(token);
        rest = behind.trim_start();
    }
    tokens
}

#[test]
fn imports_are_found_in_each_form() {
    let code = "use crate::{a::{x, y as z}, b};\nuse crate::c::D; $crate::e; not_crate::f; fn g() { crate::h() } \
                use crate::i; pub(in crate::j) struct K; use super::super::l::*; other::super::m";
    let found: Vec<String> = paths(code, &["crate", "super"])
        .into_iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = [
        "crate::a::x",
        "crate::a::y",
        "crate::b",
        "crate::c::D",
        "crate::h",
        "crate::i",
        "super::super::l::*",
    ];
    assert_eq!(found, expected);
}
