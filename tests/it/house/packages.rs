//! What the packages promise to their users: the engine's dependencies, and the oldest Rust.

use std::collections::BTreeSet;
use std::process::Command;

use super::source::{files_below, read, root};

/// Maximum number of packages, the engine among them.
const MOST: usize = 150;

/// Packages that compile C, or that choose a TLS library, an exporter of metrics or a web framework for the project.
const NONE_OF: &[&str] = &[
    "actix-web",
    "aws-lc-sys",
    "axum",
    "cc",
    "cmake",
    "hyper",
    "metrics-exporter-prometheus",
    "native-tls",
    "openssl",
    "openssl-sys",
    "ring",
    "rustls",
    "tower",
];

#[test]
fn the_engine_is_small_and_chooses_nothing_for_others() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--package",
            "payonce-engine",
        ])
        .args([
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let (tree, errors) = (
        String::from_utf8_lossy(&tree.stdout),
        String::from_utf8_lossy(&tree.stderr),
    );
    let packages: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?))
        })
        .collect();
    assert!(
        packages.iter().any(|(name, _)| *name == "sqlx"),
        "no tree: {errors}"
    );
    assert!(packages.len() <= MOST, "{} packages", packages.len());
    let names: BTreeSet<&str> = packages.iter().map(|(name, _)| *name).collect();
    let chosen: Vec<&&str> = NONE_OF
        .iter()
        .filter(|name| names.contains(**name))
        .collect();
    assert!(chosen.is_empty(), "{chosen:?}");
}

/// The lint `incompatible_msrv` compares a package with its own `rust-version`, and README.md promises one for all.
#[test]
fn each_package_names_the_same_oldest_rust_and_the_lint_is_on() {
    let manifests = ["engine", "adapters", "bench"].map(files_below).concat();
    let manifests = manifests
        .into_iter()
        .filter(|path| path.ends_with("Cargo.toml"));
    let read_line = |text: &str, begin: &str| -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(begin))?;
        Some(line.to_owned())
    };
    let workspace = read("Cargo.toml");
    let oldest = read_line(&workspace, "rust-version = ").expect("a version");
    let mut checked = 0;
    for path in manifests {
        let manifest = read(&path);
        let name = path.display();
        assert_eq!(
            read_line(&manifest, "rust-version = "),
            Some(oldest.clone()),
            "{name}"
        );
        assert!(manifest.contains("[lints]\nworkspace = true\n"), "{name}");
        checked += 1;
    }
    assert_eq!(checked, 6, "manifests");
    assert!(workspace.contains("incompatible_msrv = \"warn\""));
    let version = oldest.replace("rust-version = ", "").replace('"', "");
    assert!(
        read("README.md").contains(&format!("Rust {version},")),
        "{version}"
    );
}
