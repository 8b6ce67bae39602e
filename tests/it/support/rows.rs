//! Changes the times of rows, and copies rows.

use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

/// Executes one or more statements.
pub async fn execute(pool: &PgPool, sql: &str) {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    sql.execute(pool).await.expect("executed");
}

/// Makes the next check of each pending refund due.
pub async fn make_looks_due(pool: &PgPool) {
    execute(
        pool,
        "update refunds set next_look_at = now() where state = 'PENDING'",
    )
    .await;
}

/// A transaction to fill tables, whose statements may take longer than any of the service.
pub async fn filling(pool: &PgPool) -> Transaction<'static, Postgres> {
    let mut tx = pool.begin().await.expect("a transaction");
    sqlx::query("set local statement_timeout = '2min'")
        .execute(&mut *tx)
        .await
        .expect("set");
    tx
}

/// Ends the leases of all claims.
pub async fn end_leases(pool: &PgPool) {
    sqlx::query(
        "update idempotency_keys set lease_expires_at = now() - interval '1 second' \
         where state = 'PROCESSING'",
    )
    .execute(pool)
    .await
    .expect("the rows' time is moved");
}

/// Copies the only key and payment to `copies` more, with the keys and ids `{prefix}1`, `{prefix}2`, … and `{payment's id}1`, …. A
/// key in `PROCESSING` has its row in `unsettled_keys`, and so have its copies.
pub async fn multiply(pool: &PgPool, copies: u32, prefix: &str) {
    let mut connection = pool.acquire().await.expect("a connection");
    // This number of rows takes longer than the service's statement time-out.
    let patient = sqlx::raw_sql("set statement_timeout = '2min'");
    patient.execute(&mut *connection).await.expect("set");
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create temporary table copy as select n from generate_series(1, {copies}) n;
         create temporary table one_key as select * from idempotency_keys;
         create temporary table one_payment as select * from payments;
         create temporary table one_unsettled as select * from unsettled_keys;
         insert into idempotency_keys
             select copied.*
             from one_key k, copy, jsonb_populate_record(null::idempotency_keys, to_jsonb(k)
                 || jsonb_build_object('key', '{prefix}' || n, 'resource_id', resource_id || n)) copied;
         insert into payments
             select copied.*
             from one_payment p, copy, jsonb_populate_record(null::payments, to_jsonb(p)
                 || jsonb_build_object('idempotency_key', '{prefix}' || n, 'payment_id', payment_id || n)) copied;
         insert into unsettled_keys
             select merchant_id, operation, '{prefix}' || n, claimed_at from one_unsettled, copy;
         drop table copy, one_key, one_payment, one_unsettled"
    )))
    .execute(&mut *connection)
    .await
    .expect("many rows");
    // Its session has its own settings.
    connection.close().await.expect("closed");
}
