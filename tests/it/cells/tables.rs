//! A move knows each table.

use std::collections::BTreeSet;

use payonce::merchants::moves::{OF_EACH_CELL, TABLES};
use sqlx::PgPool;

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_move_knows_each_table_that_has_rows_of_merchants(pool: PgPool) {
    let in_catalog: Vec<String> = sqlx::query_scalar(
        "select t.relname::text
        from pg_class t
        join pg_attribute a on a.attrelid = t.oid and a.attname = 'merchant_id'
        where t.relnamespace = 'public'::regnamespace
            and t.relkind = 'r'",
    )
    .fetch_all(&pool)
    .await
    .expect("the catalog");
    let known = TABLES.map(|table| table.name).into_iter();
    let known: Vec<&str> = known.chain(OF_EACH_CELL).collect();
    let in_catalog: BTreeSet<&str> = in_catalog.iter().map(String::as_str).collect();
    assert_eq!(in_catalog, known.iter().copied().collect());
    assert_eq!(known.len(), in_catalog.len(), "each is named once");
}

/// A row that is copied must find what it refers to.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn tables_are_copied_after_those_that_they_refer_to(pool: PgPool) {
    let references: Vec<(String, String)> = sqlx::query_as(
        "select conrelid::regclass::text, confrelid::regclass::text
        from pg_constraint
        where contype = 'f' and connamespace = 'public'::regnamespace",
    )
    .fetch_all(&pool)
    .await
    .expect("the catalog");
    assert!(references.len() >= 2, "{references:?}");
    let place = |name: &str| TABLES.iter().position(|table| table.name == name);
    for (table, other) in references {
        assert!(place(&table) > place(&other), "{table} before {other}");
    }
}
