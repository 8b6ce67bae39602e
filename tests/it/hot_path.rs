//! The cost of a payment in the database: how many rows are read, and whether settling touches an index.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::rows::multiply;
use crate::support::service::{Answer, Merchant, Service};

const PAYMENTS: i64 = 512;

/// Number of keys that the merchant has already. A plan that scans a merchant's rows reads this many for each group.
const BEFORE: u32 = 20_000;

#[derive(Debug, sqlx::FromRow)]
struct Cost {
    seq_scan: i64,
    rows_read: i64,
    updates: i64,
    hot_updates: i64,
}

/// Waits until the sessions have reported their statistics, which takes at most a second.
async fn cost(pool: &PgPool, table: &str) -> Cost {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let cost: Cost = sqlx::query_as(
            "select seq_scan, idx_tup_fetch + seq_tup_read as rows_read, n_tup_upd as updates, \
                    n_tup_hot_upd as hot_updates \
             from pg_stat_user_tables where relname = $1",
        )
        .bind(table)
        .fetch_one(pool)
        .await
        .expect("the table's statistics");
        if cost.updates >= PAYMENTS {
            return cost;
        }
        assert!(
            Instant::now() < deadline,
            "not every settle is seen: {cost:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All at once, each under a key of its own.
async fn pay_all(merchant: &Merchant) -> Vec<Answer> {
    let payments = (0..PAYMENTS).map(|n| {
        let payment = merchant.pay("10").key(&format!("k-{n}"));
        async move { payment.send().await }
    });
    join_all(payments).await
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payment_reads_its_own_rows_and_its_settle_is_hot(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    // The lanes plan their statements while the tables are empty: a plan kept from then would scan.
    assert_eq!(acme.pay("10").key("first").send().await.status, 201);
    multiply(&service.pool, BEFORE, "before-").await;
    sqlx::query("select pg_stat_reset()")
        .execute(&service.pool)
        .await
        .expect("reset");
    assert!(pay_all(&acme).await.iter().all(|paid| paid.status == 201));
    for table in ["idempotency_keys", "payments"] {
        let cost = cost(&service.pool, table).await;
        assert_eq!(cost.seq_scan, 0, "{table}: {cost:?}");
        // Read once to check whether it exists, and once to settle it.
        assert!(cost.rows_read <= 4 * PAYMENTS, "{table}: {cost:?}");
        assert!(
            cost.hot_updates * 100 > cost.updates * 95,
            "{table}: {cost:?}"
        );
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn replays_that_are_not_in_memory_share_a_statement(_: PgPoolOptions, db: PgConnectOptions) {
    let first = Service::start(&db).await;
    let acme = first.merchant("acme").await;
    assert!(pay_all(&acme).await.iter().all(|paid| paid.status == 201));
    let second = Service::start(&db).await;
    let began = sqlx::query_scalar("select clock_timestamp()")
        .fetch_one(&second.pool)
        .await
        .expect("a time");
    assert!(
        pay_all(&acme.at(&second))
            .await
            .iter()
            .all(Answer::replayed)
    );
    // The claims' two, one that asked for the API key, and one that looked for work left behind. A replay that asked by itself
    // would take what the pool has.
    let used = second.sessions_used_since(began).await;
    assert!(used <= 4, "{used} sessions");
}

/// A claim that finds its key in use costs more than a look. While most requests are replays, a look comes first.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn replays_that_are_not_in_memory_are_soon_answered_without_a_claim(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let first = Service::start(&db).await;
    let acme = first.merchant("acme").await;
    let mut made = Vec::new();
    for key in ["a", "b", "c"] {
        made.push(acme.pay("10").key(key).send().await);
    }
    // Fires once for each statement, also for one that inserts nothing.
    sqlx::raw_sql(
        "create table claims (at timestamptz);
        create function note_claim() returns trigger language plpgsql as
            'begin insert into claims values (now()); return null; end';
        create trigger note_claim after insert on payments for each statement execute function note_claim()",
    )
    .execute(&first.pool)
    .await
    .expect("a trigger");
    let second = Service::start(&db).await;
    let acme = acme.at(&second);
    for (key, expected, claims) in [
        ("a", Some(0), 1),
        ("b", Some(1), 1),
        ("c", Some(2), 1),
        // The look finds nothing, and the claim does not see a majority of replays any more.
        ("new", None, 2),
        ("newer", None, 3),
    ] {
        let answer = acme.pay("10").key(key).send().await;
        match expected.and_then(|at| made.get(at)) {
            Some(first) => {
                assert!(answer.replayed(), "{key}");
                assert_eq!(answer.bytes, first.bytes, "{key}");
            }
            None => assert!(answer.status == 201 && !answer.replayed(), "{key}"),
        }
        assert_eq!(second.count("claims").await, claims, "after {key}");
    }
    assert_eq!(second.count("payments").await, 5);
}

/// A join without an index would compare the group's rows with each other, and a payment would cost the more, the larger its group.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn no_statement_joins_its_group_with_itself(options: PgPoolOptions, db: PgConnectOptions) {
    let pool = options.max_connections(1).connect_with(db).await;
    expect_plans_by_whole_keys(&pool.expect("a connection")).await;
}

/// Seen from there, no key is alive. A plan by the time alone would read all that are made from then on, for each group.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_plans_are_the_same_after_a_day_without_payments(
    options: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pool = options.max_connections(1).connect_with(db).await;
    let pool = pool.expect("a connection");
    let yesterday = "
        insert into merchants (merchant_id, name) values ('acme', 'acme');
        insert into idempotency_keys (
            merchant_id, operation, key, fingerprint, fingerprint_version, fingerprint_fields, state, attempt, owner,
            lease_expires_at, resource_id, response_status, response_headers, response_body,
            created_at, completed_at, expires_at
        )
        select 'acme', 'create_payment', n::text, decode(repeat('00', 32), 'hex'), 1, '', 'COMPLETED', 1, gen_random_uuid(),
            null, n::text, 201, '{}', 'made', now() - interval '2 days', now() - interval '2 days', now() - interval '1 day'
        from generate_series(1, 10000) n;
        analyze idempotency_keys";
    sqlx::raw_sql(yesterday)
        .execute(&pool)
        .await
        .expect("expired keys");
    expect_plans_by_whole_keys(&pool).await;
}

/// Looks at the plans that a lane's session makes.
async fn expect_plans_by_whole_keys(pool: &PgPool) {
    let settings = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set enable_bitmapscan = off; \
                    set enable_hashjoin = off; set enable_mergejoin = off";
    sqlx::raw_sql(settings).execute(pool).await.expect("set");
    for (file, finds_by) in [
        ("claim.sql", "Index"),
        ("find_answers.sql", "Index"),
        ("settle.sql", "Index"),
        ("settle_in_place.sql", "Tid Scan"),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/payments/store");
        let sql = std::fs::read_to_string(folder.join(file)).expect("a file");
        let parameters = (1..).take_while(|n| sql.contains(&format!("${n}"))).count();
        let nulls = vec!["null"; parameters].join(", ");
        let prepare = AssertSqlSafe(format!("prepare planned as {sql}"));
        sqlx::raw_sql(prepare)
            .execute(pool)
            .await
            .expect("prepared");
        let explain = AssertSqlSafe(format!("explain (costs off) execute planned({nulls})"));
        let plan: Vec<String> = sqlx::query_scalar(explain)
            .persistent(false)
            .fetch_all(pool)
            .await
            .expect("planned");
        let plan = plan.join("\n");
        assert!(plan.contains(finds_by), "{file}: {plan}");
        assert!(!plan.contains("Seq Scan"), "{file}: {plan}");
        assert!(!plan.contains("Join Filter"), "{file}: {plan}");
        assert!(!plan.contains("expires_at on"), "{file}: {plan}");
        sqlx::raw_sql("deallocate planned")
            .execute(pool)
            .await
            .expect("forgotten");
    }
}
