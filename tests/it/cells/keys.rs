//! API keys that name a cell.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::process::{json, program, run};
use crate::support::service::{Merchant, Service, client};

/// The API key that a command prints.
fn key_of(db: &PgConnectOptions, arguments: &[&str], cell: &str) -> String {
    let created = run(program("payonce", db)
        .args(arguments)
        .env("PAYONCE_CELL", cell));
    assert!(created.status.success(), "{created:?}");
    json(&created)["apiKey"].as_str().expect("a key").to_owned()
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_key_names_its_cell_and_is_good_there_only(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let first = key_of(&db, &["merchants", "create", "acme"], "2");
    let second = key_of(&db, &["api-keys", "create", "acme"], "9999");
    let plain = key_of(&db, &["api-keys", "create", "acme"], "");
    for (key, start, length) in [
        (&first, "sk_2_", 69),
        (&second, "sk_9999_", 72),
        (&plain, "sk_", 67),
    ] {
        assert!(key.starts_with(start) && key.len() == length, "{key}");
    }
    let acme = |api_key: &str| Merchant {
        url: service.url.clone(),
        api_key: api_key.to_owned(),
        client: client(),
    };
    for (number, key) in [&first, &second, &plain].into_iter().enumerate() {
        let paid = acme(key).pay("10").key(&format!("k{number}")).send().await;
        assert_eq!(paid.status, 201, "{key}");
    }
    // The whole key counts: the same digits with another cell, or with none, are nobody's.
    for wrong in [
        first.replace("sk_2_", "sk_3_"),
        first.replace("sk_2_", "sk_"),
        first.replace("sk_2_", "sk_02_"),
        plain.replace("sk_", "sk_1_"),
    ] {
        let refused = acme(&wrong).pay("10").key("k").send().await;
        refused.assert_problem(401, "unauthorized", "fix-request");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_cell_is_a_number_from_1_to_9999(_: PgPoolOptions, db: PgConnectOptions) {
    for wrong in ["0", "01", "10000", "-1", "a"] {
        let create = run(program("payonce", &db)
            .args(["merchants", "create", "acme"])
            .env("PAYONCE_CELL", wrong));
        assert_eq!(create.status.code(), Some(2), "{wrong}");
        let said = String::from_utf8_lossy(&create.stderr).into_owned();
        assert!(said.contains("--cell (PAYONCE_CELL)"), "{said}");
    }
}
