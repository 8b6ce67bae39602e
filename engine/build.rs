//! Lets `query!` be checked without a database, in each package of the workspace that has queries: unfolds `sqlx-data.json` into
//! the one file per query that sqlx reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use serde_json::Value;

const QUERY_DATA: &str = "sqlx-data.json";

/// Set by `scripts/prepare`.
const PREPARE_DIR: &str = "PAYONCE_PREPARE_DIR";

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed={QUERY_DATA}");
    // `migrate!` embeds the folder, and Cargo does not see a file that is new in it.
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-env-changed={PREPARE_DIR}");

    // A live database then describes the queries, and the descriptions are written to the package's own folder. Cargo runs this
    // script again for each new value and then compiles the package again, so that every query is described again.
    if let Some(dir) = env::var_os(PREPARE_DIR) {
        let package =
            env::var("CARGO_PKG_NAME").map_err(|error| format!("CARGO_PKG_NAME: {error}"))?;
        let dir = Path::new(&dir).join(package);
        fs::create_dir_all(&dir)
            .map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
        println!("cargo:rustc-env=SQLX_OFFLINE_DIR={}", dir.display());
        return Ok(());
    }

    let out_dir = env::var("OUT_DIR").map_err(|error| format!("OUT_DIR: {error}"))?;
    let dir = Path::new(&out_dir).join("sqlx");
    unfold(&dir)
        .map_err(|error| format!("{QUERY_DATA}: {error}; `make prepare` writes it anew"))?;

    // Set for the compiler only, where it overrides the caller's value: with a DATABASE_URL in the environment, as under
    // `make test`, a build must still need no database.
    println!("cargo:rustc-env=SQLX_OFFLINE_DIR={}", dir.display());
    println!("cargo:rustc-env=SQLX_OFFLINE=true");
    Ok(())
}

fn unfold(dir: &Path) -> Result<(), String> {
    let text = fs::read_to_string(QUERY_DATA).map_err(|error| error.to_string())?;
    let queries: BTreeMap<String, Value> =
        serde_json::from_str(&text).map_err(|error| error.to_string())?;

    // Emptied first: with the files of an older build, a query would compile that `sqlx-data.json` no longer has.
    if dir.exists() {
        fs::remove_dir_all(dir)
            .map_err(|error| format!("cannot empty {}: {error}", dir.display()))?;
    }
    fs::create_dir_all(dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
    for (name, query) in queries {
        let path = dir.join(&name);
        fs::write(&path, query.to_string())
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}
