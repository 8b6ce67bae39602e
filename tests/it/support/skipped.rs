//! Tests that cannot run here, because a program that they need is missing.

use std::fs::OpenOptions;
use std::io::Write;

/// Says what is skipped and how to have it run. `make test` names a file in PAYONCE_SKIPPED and prints its lines at the end, as one list.
pub fn skip(what: &str) {
    eprintln!("SKIPPED: {what}");
    let Some(path) = std::env::var_os("PAYONCE_SKIPPED") else {
        return;
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    // One write a line: the tests share the file.
    file.and_then(|mut file| file.write_all(format!("{what}\n").as_bytes()))
        .expect("the list of what is skipped is written");
}
