//! The rooms are the top-level modules of `src`. A room imports only the rooms that this table allows it.

use std::collections::BTreeSet;
use std::path::Path;

use super::imports::paths;
use super::source::sources;

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
            "merchants",
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
            "merchants",
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

/// Every import of one room by another, with a file that has it.
fn imports() -> BTreeSet<(String, String, String)> {
    let mut imports = BTreeSet::new();
    for source in sources("src") {
        let (path, code) = (&source.path, &source.code);
        let Some(room) = room_of(path) else { continue };
        let named = paths(code, &["crate", "payonce"]);
        let named = named.into_iter().filter_map(|path| path.get(1).copied());
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
        for source in sources(folder) {
            let named = paths(&source.code, &["payonce"]);
            assert!(
                named.is_empty(),
                "{}: {named:?} of the service",
                source.path.display()
            );
        }
    }
}
