//! Lists: a page costs the same for any length of a merchant's history and any filter.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::rows::multiply;
use crate::support::service::{Answer, Merchant, Service, payment};

/// The merchant's other payments, all newer or older than the few that are looked for.
const HISTORY: u32 = 20_000;

/// Entries of the payments' indexes, and rows without one, that were read since the statistics were reset: at least `least`, and
/// then as many as there are. Sessions tell what they did after their transactions, all of it at once.
async fn read_since_reset(pool: &PgPool, least: i64) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let read: i64 = sqlx::query_scalar(
            "select (select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname = 'payments') \
                  + (select seq_tup_read from pg_stat_user_tables where relname = 'payments')",
        )
        .fetch_one(pool)
        .await
        .expect("the statistics");
        if read >= least {
            return read;
        }
        assert!(
            Instant::now() < deadline,
            "{read} reads of at least {least}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn reset(pool: &PgPool) {
    let reset = sqlx::query("select pg_stat_reset()").execute(pool).await;
    reset.expect("reset");
}

/// A payment, copied so often, and then what else is to be done. It is done by a session of its own, which has told the statistics
/// what it did when it is gone.
async fn make_history(service: &Service, db: &PgConnectOptions, and_then: &[&'static str]) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(db.clone().application_name("history"))
        .await
        .expect("a connection");
    multiply(&pool, HISTORY, "copy-").await;
    for statement in and_then {
        sqlx::raw_sql(*statement)
            .execute(&pool)
            .await
            .expect("done");
    }
    pool.close().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let left = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'history'";
    while sqlx::query_scalar::<_, i64>(left)
        .fetch_one(&service.pool)
        .await
        .expect("a count")
        > 0
    {
        assert!(Instant::now() < deadline, "the session stays");
    }
}

fn shown(page: &Answer) -> Vec<String> {
    assert_eq!(page.status, 200);
    let page = page.json();
    let data = page["data"].as_array().expect("a list");
    let id = |payment: &Value| payment["id"].as_str().expect("an id").to_owned();
    data.iter().map(id).collect()
}

/// Reads all pages of a list. Returns their content, and the number of pages.
async fn walk(merchant: &Merchant, query: &str) -> (Vec<String>, usize) {
    let (mut all, mut pages) = (Vec::new(), 0);
    let mut path = format!("/v1/payments?{query}");
    loop {
        let page = merchant.get(&path).await;
        all.extend(shown(&page));
        pages += 1;
        let Some(cursor) = page.json()["nextCursor"].as_str().map(str::to_owned) else {
            return (all, pages);
        };
        path = format!("/v1/payments?{query}&cursor={cursor}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_page_of_a_state_that_none_has_does_not_read_the_history(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    assert_eq!(acme.pay("10").key("first").send().await.status, 201);
    make_history(&service, &db, &["analyze payments"]).await;
    for (filter, least) in [
        ("state=REFUNDED", 500),
        ("state=REFUNDED&customerId=c-1", 500),
    ] {
        reset(&service.pool).await;
        let page = acme.get(&format!("/v1/payments?{filter}")).await;
        assert_eq!(shown(&page), Vec::<String>::new());
        assert!(page.json()["nextCursor"].is_string(), "there may be more");
        let read = read_since_reset(&service.pool, least).await;
        assert!(read < 2_500, "{filter}: {read}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_customers_page_reads_the_customers_payments_only(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    assert_eq!(acme.pay("10").key("first").send().await.status, 201);
    // Makes the planner assume that this customer has many payments, so that it would read the newest of all first.
    let rare = [
        "update payments set customer_id = 'rare' where right(payment_id, 1) in ('1', '2', '3')",
        "analyze payments",
        "update payments set customer_id = 'c-1'",
        "update payments set customer_id = 'rare' where idempotency_key = 'first'",
        // Otherwise index entries of deleted rows are read, too.
        "vacuum payments",
    ];
    make_history(&service, &db, &rare).await;
    reset(&service.pool).await;
    let page = acme.get("/v1/payments?customerId=rare&limit=1").await;
    assert_eq!(shown(&page).len(), 1);
    assert_eq!(page.json()["nextCursor"], json!(null));
    let read = read_since_reset(&service.pool, 1).await;
    assert!(read < 100, "{read}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn short_pages_together_show_all(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    assert_eq!(acme.pay("10").key("first").send().await.status, 201);
    multiply(&service.pool, 2_000, "copy-").await;
    let marked: Vec<String> = sqlx::query_scalar(
        "update payments set state = 'REFUNDED', amount_refunded_minor = amount_minor \
         where idempotency_key in ('first', 'copy-7', 'copy-499', 'copy-500', 'copy-501', 'copy-1000', 'copy-1999') \
         returning payment_id",
    )
    .fetch_all(&service.pool)
    .await
    .expect("some are refunded");
    let mut marked = marked;
    marked.sort_unstable();
    marked.reverse();
    for query in [
        "state=REFUNDED",
        "state=REFUNDED&customerId=c-1",
        "state=REFUNDED&limit=1",
    ] {
        let (seen, pages) = walk(&acme, query).await;
        assert_eq!(seen, marked, "{query}");
        // 2,001 payments, 500 of them a page at most.
        assert!((5..=12).contains(&pages), "{query}: {pages} pages");
    }
    let (seen, pages) = walk(&acme, "limit=100").await;
    assert_eq!((seen.len(), pages), (2_001, 21));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payment_is_found_by_its_key(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let (acme, other) = (
        service.merchant("acme").await,
        service.merchant("other").await,
    );
    let paid = acme.pay("10").key("order/1 & more").send().await;
    assert_eq!(paid.status, 400, "a key has no spaces");
    let paid = acme.pay("10").key("order/1&more").send().await.text("id");
    let declined = acme
        .pay("10")
        .key("2")
        .card("4000000000000002")
        .send()
        .await;
    let declined = declined.text("paymentId");
    let of = |key: &str| format!("/v1/payments?idempotencyKey={key}");
    assert_eq!(
        shown(&acme.get(&of("order%2F1%26more")).await),
        [paid.as_str()]
    );
    assert_eq!(shown(&acme.get(&of("2")).await), [declined.as_str()]);
    let none: [&str; 0] = [];
    for path in [
        of("3"),
        of("2&state=SUCCESS"),
        of("2&customerId=c-2"),
        format!("{}&cursor={declined}", of("2")),
    ] {
        let page = acme.get(&path).await;
        assert_eq!(shown(&page), none, "{path}");
        assert_eq!(page.json()["nextCursor"], json!(null), "{path}");
    }
    assert_eq!(
        shown(&acme.get(&of("2&state=FAILED&customerId=c-1&limit=1")).await),
        [declined.as_str()]
    );
    assert_eq!(shown(&other.get(&of("2")).await), none);
    for wrong in ["", "a%20b", "%00", "%C3%BC", &"a".repeat(256)] {
        let answer = acme.get(&of(wrong)).await;
        answer.assert_problem(422, "validation-failed", "fix-request");
        assert_eq!(
            answer.json()["errors"][0]["field"],
            "idempotencyKey",
            "{wrong}"
        );
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_parameter_that_is_not_known_is_an_error_that_names_it(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let paid = acme.pay("10").key("k").send().await.text("id");
    let field = |answer: &Answer| {
        answer.assert_problem(422, "validation-failed", "fix-request");
        answer.json()["errors"][0].clone()
    };
    for path in [
        "/v1/payments?stat=FAILED".to_owned(),
        "/v1/payments?limit=1&stat=FAILED".to_owned(),
        format!("/v1/payments/{paid}?stat=FAILED"),
        format!("/v1/payments/{paid}/refunds?stat=FAILED"),
        "/v1/refunds/ref_x?stat=FAILED".to_owned(),
        "/v1/idempotency-keys/create_payment/k?stat=FAILED".to_owned(),
    ] {
        let error = field(&acme.get(&path).await);
        assert_eq!(
            error,
            json!({"field": "stat", "message": "is not a known parameter"}),
            "{path}"
        );
    }
    let twice = field(&acme.get("/v1/payments?limit=1&limit=2").await);
    assert_eq!(
        twice,
        json!({"field": "limit", "message": "is given more than once"})
    );
    let posted = acme
        .post("/v1/payments?test=true", payment("10"))
        .key("t")
        .send()
        .await;
    assert_eq!(field(&posted)["field"], "test");
    assert_eq!(service.count("payments").await, 1);
    // Authentication comes first.
    let stranger = Merchant {
        api_key: "sk_nobody".to_owned(),
        ..acme.clone()
    };
    assert_eq!(stranger.get("/v1/payments?stat=FAILED").await.status, 401);
}
