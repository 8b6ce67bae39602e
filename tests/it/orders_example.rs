//! `examples/orders.rs`: the real program, over HTTP.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The program connects, migrates and listens in a fraction of this.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The running example. It ends when it is dropped.
struct Shop {
    _process: Child,
    http: reqwest::Client,
    url: String,
}

impl Shop {
    async fn open(pool: &PgPool) -> Self {
        let mut process = Command::new(program())
            .env(
                "DATABASE_URL",
                pool.connect_options().to_url_lossy().as_str(),
            )
            .env("PORT", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the example starts");
        let stdout = process.stdout.take().expect("its output");
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(START_PATIENCE, lines.next_line())
            .await
            .expect("it says where it listens, in time")
            .expect("its output can be read")
            .expect("it listens, and does not end");
        let base = line.strip_prefix("listening on ").expect("an address");
        // An error says that there is one already.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        Self {
            _process: process,
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(30))
                .build()
                .expect("a client"),
            url: format!("{base}/orders"),
        }
    }

    async fn order(&self, key: &str, body: &Value) -> Reply {
        self.order_text(key, &body.to_string()).await
    }

    async fn order_text(&self, key: &str, body: &str) -> Reply {
        let request = self.http.post(&self.url).header("idempotency-key", key);
        Reply::of(
            request
                .header("content-type", "application/json")
                .body(body.to_owned()),
        )
        .await
    }
}

/// Cargo builds the examples for `cargo test`, beside the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this program's path");
    let profile = test.ancestors().nth(2).expect("target/<profile>");
    let path = profile.join("examples").join("orders");
    assert!(
        path.is_file(),
        "{} is missing; with --test, Cargo builds no examples: cargo build --example orders",
        path.display()
    );
    path
}

#[derive(Clone, Debug, PartialEq)]
struct Reply {
    status: StatusCode,
    replayed: Option<String>,
    content_type: Option<String>,
    location: Option<String>,
    body: String,
}

impl Reply {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("a reply");
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().expect("ASCII").to_owned())
        };
        Self {
            status: response.status(),
            replayed: header("idempotent-replayed"),
            content_type: header("content-type"),
            location: header("location"),
            body: response.text().await.expect("a text"),
        }
    }

    /// The same reply, from the stored outcome.
    fn replayed(&self) -> Self {
        Self {
            replayed: Some("true".to_owned()),
            ..self.clone()
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    #[track_caller]
    fn assert_problem(&self, status: StatusCode, code: &str) {
        assert_eq!(
            (self.status, &self.json()["code"]),
            (status, &json!(code)),
            "{self:?}"
        );
        assert_eq!(
            self.content_type.as_deref(),
            Some("application/problem+json")
        );
    }
}

/// How many orders there are, how much tea is left, and how many keys have a record.
async fn books(pool: &PgPool) -> (i64, i32, i64) {
    sqlx::query_as(
        "select
            (select count(*) from orders),
            (select quantity from stock where sku = 'tea'),
            (select count(*) from idempotency_keys)",
    )
    .fetch_one(pool)
    .await
    .expect("the books")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_order_sent_again_is_placed_once(pool: PgPool) {
    let shop = Shop::open(&pool).await;
    let order = json!({"sku": "tea", "quantity": 2});

    let first = shop.order("cart-1", &order).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    assert_eq!(first.replayed.as_deref(), Some("false"));
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(first.location, Some(format!("/orders/{id}")));

    assert_eq!(shop.order("cart-1", &order).await, first.replayed());
    let spelled_differently = "{ \"quantity\": 2,\n \"sku\": \"tea\" }";
    assert_eq!(
        shop.order_text("cart-1", spelled_differently).await,
        first.replayed()
    );
    assert_eq!(books(&pool).await, (1, 98, 1));

    let another = shop.order("cart-2", &order).await;
    assert_eq!(another.replayed.as_deref(), Some("false"));
    assert_ne!(another.body, first.body);
    assert_eq!(books(&pool).await, (2, 96, 2));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_restarted_shop_still_knows(pool: PgPool) {
    let order = json!({"sku": "tea", "quantity": 2});
    let first = Shop::open(&pool).await.order("cart-1", &order).await;
    let retry = Shop::open(&pool).await.order("cart-1", &order).await;
    assert_eq!(retry, first.replayed());
    assert_eq!(books(&pool).await, (1, 98, 1));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn another_order_under_the_same_key_is_refused(pool: PgPool) {
    let shop = Shop::open(&pool).await;
    let order = json!({"sku": "tea", "quantity": 2});
    let first = shop.order("cart-1", &order).await;

    let other = shop
        .order("cart-1", &json!({"sku": "tea", "quantity": 3}))
        .await;
    other.assert_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused");
    assert_eq!(other.json()["changed"], json!(["quantity"]));
    assert_eq!(shop.order("cart-1", &order).await, first.replayed());
    assert_eq!(books(&pool).await, (1, 98, 1));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn twenty_at_once_place_one_order(pool: PgPool) {
    let shop = Shop::open(&pool).await;
    let order = json!({"sku": "tea", "quantity": 2});
    let requests = (0..20).map(|_| shop.order("cart-1", &order));

    let replies = futures_util::future::join_all(requests).await;

    let firsts: Vec<&Reply> = replies
        .iter()
        .filter(|reply| reply.replayed.as_deref() == Some("false"))
        .collect();
    let [first] = firsts[..] else {
        panic!("one executes: {firsts:?}");
    };
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(
        replies
            .iter()
            .all(|reply| reply.replayed() == first.replayed()),
        "{replies:?}"
    );
    assert_eq!(books(&pool).await, (1, 98, 1));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn out_of_stock_is_an_outcome_that_writes_nothing_else(pool: PgPool) {
    let shop = Shop::open(&pool).await;
    let order = json!({"sku": "tea", "quantity": 101});

    let first = shop.order("cart-1", &order).await;
    assert_eq!(first.status, StatusCode::CONFLICT, "{first:?}");
    assert_eq!(first.json(), json!({"code": "out-of-stock", "sku": "tea"}));
    assert_eq!(books(&pool).await, (0, 100, 1));

    // Its key keeps the answer, although there would be enough by now; a new key is a new order.
    sqlx::query("update stock set quantity = 200")
        .execute(&pool)
        .await
        .expect("a delivery");
    assert_eq!(shop.order("cart-1", &order).await, first.replayed());
    assert_eq!(books(&pool).await, (0, 200, 1));
    assert_eq!(
        shop.order("cart-2", &order).await.status,
        StatusCode::CREATED
    );
    assert_eq!(books(&pool).await, (1, 99, 2));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_is_refused_at_the_door_leaves_no_key_behind(pool: PgPool) {
    let shop = Shop::open(&pool).await;
    let order = json!({"sku": "tea", "quantity": 2});

    let keyless = Reply::of(shop.http.post(&shop.url).json(&order)).await;
    keyless.assert_problem(StatusCode::BAD_REQUEST, "idempotency-key-missing");
    let spaced = shop.order("cart 1", &order).await;
    spaced.assert_problem(StatusCode::BAD_REQUEST, "idempotency-key-invalid");
    for body in ["{", r#"{"sku": "tea", "quantity": 2, "gift": true}"#] {
        let reply = shop.order_text("cart-1", body).await;
        reply.assert_problem(StatusCode::BAD_REQUEST, "malformed-json");
    }
    let none = shop
        .order("cart-1", &json!({"sku": "tea", "quantity": 0}))
        .await;
    none.assert_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation-failed");
    assert_eq!(books(&pool).await, (0, 100, 0));

    assert_eq!(
        shop.order("cart-1", &order).await.status,
        StatusCode::CREATED
    );
}
