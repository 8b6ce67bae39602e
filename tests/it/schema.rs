//! The schema can be distributed by merchant: the catalog shows it, and `deploy/citus/distribute.sql` knows each table.

use sqlx::PgPool;

use crate::statements::distribution::{COPIES, ON_COORDINATOR, TABLES};
use crate::support::deployed;

/// sqlx's own table of the applied migrations.
const OF_SQLX: &str = "_sqlx_migrations";

/// Indexes that need not begin with the merchant, because they are not unique, each with what it is for.
const INDEXES_OVER_ALL_MERCHANTS: [(&str, &str); 5] = [
    (
        "api_keys_secret_hash",
        "a request brings the API key and names no merchant",
    ),
    (
        "idempotency_keys_expires_at",
        "the clean-up takes the oldest keys of all merchants",
    ),
    (
        "operator_actions_newest",
        "the console lists what operators did, newest first",
    ),
    (
        "refunds_pending",
        "the worker looks at the pending refunds of all merchants whose time has come",
    ),
    (
        "refused_reuses_last_seen",
        "the console lists the latest, and deletes the oldest",
    ),
];

async fn names(pool: &PgPool, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query)
        .bind(OF_SQLX)
        .fetch_all(pool)
        .await
        .expect("the catalogue")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_key_and_each_foreign_key_begins_with_the_merchant(pool: PgPool) {
    let constraints = names(
        &pool,
        "select conname::text
        from pg_constraint
        where connamespace = 'public'::regnamespace
            and contype in ('p', 'u', 'f', 'x')
            and conrelid <> to_regclass($1)",
    )
    .await;
    assert!(constraints.len() >= 10, "{constraints:?}");
    let broken = names(
        &pool,
        "select conname::text
        from pg_constraint c
        where connamespace = 'public'::regnamespace
            and contype in ('p', 'u', 'f', 'x')
            and conrelid <> to_regclass($1)
            and (
                not exists (
                    select from pg_attribute
                    where attrelid = conrelid and attnum = conkey[1] and attname = 'merchant_id'
                )
                or contype = 'f' and not exists (
                    select from pg_attribute
                    where attrelid = confrelid and attnum = confkey[1] and attname = 'merchant_id'
                )
            )",
    )
    .await;
    assert!(broken.is_empty(), "{broken:?}");
    let tables_without_a_key = names(
        &pool,
        "select relname::text
        from pg_class t
        where relnamespace = 'public'::regnamespace
            and relkind = 'r'
            and oid <> to_regclass($1)
            and not exists (select from pg_constraint where conrelid = t.oid and contype = 'p')",
    )
    .await;
    assert!(tables_without_a_key.is_empty(), "{tables_without_a_key:?}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_index_that_does_not_begin_with_the_merchant_is_not_unique_and_has_a_reason(
    pool: PgPool,
) {
    let others = names(
        &pool,
        "select i.indexrelid::regclass::text || case when i.indisunique then ' (unique)' else '' end
        from pg_index i
        join pg_class t on t.oid = i.indrelid
        left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where t.relnamespace = 'public'::regnamespace
            and t.oid <> to_regclass($1)
            and a.attname is distinct from 'merchant_id'
        order by 1",
    )
    .await;
    assert_eq!(others, INDEXES_OVER_ALL_MERCHANTS.map(|(name, _)| name));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn every_merchant_id_is_of_one_type_and_nothing_counts_for_all_merchants(pool: PgPool) {
    let types = names(
        &pool,
        "select distinct format_type(atttypid, atttypmod) || ' ' || attcollation::regcollation || ' ' || attnotnull
        from pg_attribute
        join pg_class on pg_class.oid = attrelid
        where relnamespace = 'public'::regnamespace
            and relkind = 'r'
            and attrelid <> to_regclass($1)
            and attname = 'merchant_id'",
    )
    .await;
    assert_eq!(types, ["text \"C\" true"]);
    let counters = names(
        &pool,
        "select relname::text from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'S' and relname <> $1
        union all
        select tgname::text from pg_trigger
        join pg_class on pg_class.oid = tgrelid
        where relnamespace = 'public'::regnamespace and not tgisinternal",
    )
    .await;
    assert!(counters.is_empty(), "sequences and triggers: {counters:?}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_citus_script_knows_each_table(pool: PgPool) {
    let script = deployed::read("citus/distribute.sql");
    let tables = names(
        &pool,
        "select relname::text from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r' and oid <> to_regclass($1)
        order by relname",
    )
    .await;
    let mut known = [&TABLES[..], &COPIES, &ON_COORDINATOR].concat();
    known.sort_unstable();
    assert_eq!(tables, known);
    for table in TABLES {
        let distributed = format!("select create_distributed_table('{table}', 'merchant_id'");
        assert_eq!(script.matches(&distributed).count(), 1, "{table}");
    }
    for table in COPIES.into_iter().chain([OF_SQLX]) {
        let copied = format!("select create_reference_table('{table}')");
        assert_eq!(script.matches(&copied).count(), 1, "{table}");
    }
    for table in ON_COORDINATOR {
        let kept = format!("select citus_add_local_table_to_metadata('{table}')");
        assert_eq!(script.matches(&kept).count(), 1, "{table}");
    }
}

/// All that the catalogue says of the engine's tables: columns, constraints, indexes, storage parameters and comments.
async fn engine_tables(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "with tables as (
            select c.oid, c.relname, c.reloptions
            from pg_class c
            where c.relname in ('idempotency_keys', 'unsettled_keys', 'fingerprint_secrets')
         )
         select format('%s %s %s %s %s', t.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
             coalesce(pg_get_expr(d.adbin, d.adrelid), '') || coalesce(l.collname, '')
                 || coalesce(col_description(t.oid, a.attnum), ''))
         from tables t
         join pg_attribute a on a.attrelid = t.oid and a.attnum > 0
         left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
         left join pg_collation l on l.oid = a.attcollation
         union all
         select format('%s %s', c.conname, pg_get_constraintdef(c.oid)) from tables t join pg_constraint c on c.conrelid = t.oid
         union all
         select pg_get_indexdef(i.indexrelid) from tables t join pg_index i on i.indrelid = t.oid
         union all
         select format('%s %s %s', t.relname, o.option, obj_description(t.oid))
         from tables t, unnest(t.reloptions) as o (option)
         order by 1",
    )
    .fetch_all(pool)
    .await
    .expect("the catalogue")
}

#[sqlx::test(migrations = false)]
async fn the_engine_and_the_service_make_the_same_tables(pool: PgPool) {
    payonce::idempotency::migrate(&pool)
        .await
        .expect("the engine's tables");
    let engines = engine_tables(&pool).await;
    assert!(engines.len() > 30, "{engines:#?}");

    sqlx::raw_sql("drop table idempotency_keys, unsettled_keys, fingerprint_secrets")
        .execute(&pool)
        .await
        .expect("dropped");
    payonce::database::migrate(&pool)
        .await
        .expect("the service's migrations");
    assert_same(&engines, &engine_tables(&pool).await);

    // A service that used the service's migrations goes on with the engine's.
    sqlx::raw_sql("drop table _payonce_engine_migrations")
        .execute(&pool)
        .await
        .expect("dropped");
    payonce::idempotency::migrate(&pool)
        .await
        .expect("they are left as they are");
}

fn assert_same(engines: &[String], services: &[String]) {
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        let lacking = these.iter().filter(|line| !those.contains(line));
        lacking.cloned().collect()
    };
    let (ours, theirs) = (only(engines, services), only(services, engines));
    assert!(
        ours.is_empty() && theirs.is_empty(),
        "the engine's alone: {ours:#?}\nthe service's alone: {theirs:#?}"
    );
}
