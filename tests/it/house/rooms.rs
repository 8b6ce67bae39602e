//! The rooms are the top-level modules of `src`. A room imports only the rooms that this table allows it.

use std::collections::BTreeSet;
use std::path::Path;

use super::source::{code_of, rust_files};

/// Each room and the rooms that it may import. These stand above it in the table, so there is no circle.
const ROOMS: &[(&str, &[&str])] = &[
    ("failpoints", &[]),
    ("tls", &[]),
    ("money", &[]),
    ("cards", &[]),
    ("telemetry", &[]),
    ("input", &["cards"]),
    // The engine, a package of its own. It knows nothing of payments, and nothing of HTTP.
    ("idempotency", &[]),
    ("database", &["idempotency"]),
    ("merchants", &["database"]),
    ("mismatches", &["database", "idempotency"]),
    ("problem", &["idempotency"]),
    ("gateway", &["cards", "idempotency", "money"]),
    (
        "payments",
        &[
            "cards",
            "database",
            "gateway",
            "idempotency",
            "input",
            "merchants",
            "mismatches",
            "money",
            "problem",
        ],
    ),
    ("recovery", &["idempotency", "payments", "telemetry"]),
    (
        "http",
        &[
            "cards",
            "database",
            "gateway",
            "idempotency",
            "input",
            "merchants",
            "money",
            "payments",
            "problem",
            "telemetry",
        ],
    ),
    (
        "console",
        &[
            "database",
            "gateway",
            "idempotency",
            "mismatches",
            "money",
            "payments",
            "recovery",
        ],
    ),
    (
        "settings",
        &["database", "http", "idempotency", "merchants", "tls"],
    ),
    (
        "config",
        &[
            "database",
            "http",
            "idempotency",
            "merchants",
            "settings",
            "telemetry",
            "tls",
        ],
    ),
    (
        "startup",
        &[
            "console",
            "database",
            "gateway",
            "http",
            "idempotency",
            "merchants",
            "mismatches",
            "payments",
            "recovery",
            "settings",
            "telemetry",
            "tls",
        ],
    ),
    (
        "doctor",
        &[
            "config",
            "database",
            "gateway",
            "idempotency",
            "settings",
            "startup",
        ],
    ),
    ("demo", &["config", "database", "merchants"]),
    (
        "cli",
        &[
            "config",
            "database",
            "demo",
            "doctor",
            "http",
            "idempotency",
            "merchants",
            "payments",
            "recovery",
            "startup",
            "telemetry",
            "tls",
        ],
    ),
    ("bin", &["cli", "idempotency"]),
];

/// The room of a file below `src`, or `None` for `lib.rs`.
fn room_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix("src").expect("below src");
    let first = below.components().next().expect("a name").as_os_str();
    let room = first.to_str().expect("UTF-8").trim_end_matches(".rs");
    (room != "lib").then(|| room.to_owned())
}

/// The names that follow `crate::` and the like. `crate::{a::b, c}` names both `a` and `c`.
fn named_after<'a>(code: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(start).flat_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let is_whole = before.is_none_or(|c| c != '_' && c != '$' && !c.is_alphanumeric());
        let behind = &code[at + start.len()..];
        match behind.strip_prefix('{') {
            _ if !is_whole => Vec::new(),
            None => vec![word(behind)],
            Some(group) => group_members(group),
        }
    })
}

fn group_members(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut members) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        let ends_member = depth == 0 && matches!(character, ',' | '}');
        if ends_member {
            members.push(word(group[begin..at].trim_start()));
            begin = at + 1;
        }
        match character {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    members
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| c != '_' && !c.is_alphanumeric());
    &text[..end.unwrap_or(text.len())]
}

/// Every import of one room by another, with a file that has it.
fn imports() -> BTreeSet<(String, String, String)> {
    let mut imports = BTreeSet::new();
    for path in rust_files("src") {
        let Some(room) = room_of(&path) else { continue };
        let code = code_of(&path);
        let named = ["crate::", "payonce::"]
            .into_iter()
            .flat_map(|start| named_after(&code, start));
        // The engine's crate is the room that it was.
        let engine = code.contains("payonce_engine::").then_some("idempotency");
        for other in named.chain(engine) {
            let is_room = other.starts_with(|c: char| c.is_ascii_lowercase());
            if is_room && other != room {
                imports.insert((room.clone(), other.to_owned(), path.display().to_string()));
            }
        }
    }
    imports
}

#[test]
fn a_room_imports_only_what_the_table_allows() {
    for (room, other, path) in &imports() {
        let allowed = ROOMS.iter().find(|(name, _)| *name == *room);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{room} is not in the table"));
        assert!(
            allowed.contains(&other.as_str()),
            "{path}: {room} imports {other}"
        );
    }
}

#[test]
fn the_table_has_no_circle() {
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        for other in *allowed {
            let place = ROOMS.iter().position(|(name, _)| name == other);
            assert!(
                place.is_some_and(|place| place < at),
                "{room} imports {other}, which is not above it"
            );
        }
    }
}

/// The engine and what adapts it to a web framework are crates of their own, which others use without the service.
#[test]
fn the_engine_and_its_adapters_do_not_know_the_service() {
    for folder in ["engine", "adapters"] {
        for path in rust_files(folder) {
            let code = code_of(&path);
            let named: Vec<&str> = named_after(&code, "payonce::").collect();
            assert!(
                named.is_empty(),
                "{}: {named:?} of the service",
                path.display()
            );
        }
    }
}

#[test]
fn imports_are_found_in_each_form() {
    let code = "use crate::{a::{x, y}, b};\nuse crate::c::D; $crate::e; not_crate::f; fn g() { crate::h() } use crate::i;";
    let named: Vec<&str> = named_after(code, "crate::").collect();
    assert_eq!(named, ["a", "b", "c", "h", "i"]);
}
