//! The dependencies that the engine adds to a project.

use std::collections::BTreeSet;
use std::process::Command;

use super::source::root;

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
