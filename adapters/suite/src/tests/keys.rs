//! Keys: whose they are, and what becomes of a second request with one.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;

use crate::{Framework, Process, Shop};

/// 400, and nothing is stored.
pub async fn a_missing_or_bad_key_is_refused<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let order = shop
        .post("/orders")
        .json(&json!({"sku": "tea", "quantity": 2}));
    for (call, code) in [
        (order.clone(), "idempotency-key-missing"),
        (order.clone().key("a b"), "idempotency-key-invalid"),
        (order.clone().key("\"a"), "idempotency-key-invalid"),
        (order.clone().key("a").key("a"), "idempotency-key-invalid"),
        (
            order.clone().key(&"k".repeat(256)),
            "idempotency-key-invalid",
        ),
    ] {
        let answer = call.send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code));
    }
    assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    // A quoted key is the same key as the bare one.
    assert_eq!(order.clone().key("\"a\"").send().await.status, 201);
    assert!(order.key("a").send().await.is_replay());
    shop.close().await;
}

/// Without a key each request is executed, in a transaction of its own.
pub async fn a_key_that_is_optional_may_be_missing<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let call = shop.post("/optional");
    for _ in 0..2 {
        let answer = call.send().await;
        assert_eq!((answer.status, answer.is_replay()), (201, false));
    }
    assert_eq!((shop.orders().await, shop.keys().await), (2, 0));
    assert_eq!(call.clone().body("no").send().await.status, 409);
    assert_eq!((shop.orders().await, shop.keys().await), (2, 0));
    for _ in 0..2 {
        assert_eq!(call.clone().key("k").send().await.status, 201);
    }
    // Its owner may not.
    let nobody = crate::Call::new(shop.running.address, "POST", "/optional");
    let refused = nobody.send().await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (401, "owner-unknown")
    );
    assert_eq!((shop.orders().await, shop.keys().await), (3, 1));
    shop.close().await;
}

/// Two shops may use the same key.
pub async fn a_request_without_an_owner_is_refused_and_two_owners_never_meet<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let of = |owner: &str| {
        let call = crate::Call::new(shop.running.address, "POST", "/brief").key("k");
        if owner.is_empty() {
            call
        } else {
            call.header("x-shop", owner)
        }
    };
    let nobody = of("").send().await;
    assert_eq!(
        (nobody.status, nobody.code().as_str()),
        (401, "owner-unknown")
    );
    assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    for owner in ["acme", "globex"] {
        let first = of(owner).send().await;
        assert_eq!((first.status, first.is_replay()), (201, false));
        assert!(of(owner).send().await.is_replay());
    }
    assert_eq!((shop.orders().await, shop.keys().await), (2, 2));
    shop.close().await;
}

/// 422 names the fields, the path or the query. What a route leaves out makes no difference, nor does white space.
pub async fn another_request_under_the_key_is_told_what_changed<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let order = |body: &str| {
        shop.post("/orders")
            .key("k")
            .header("content-type", "application/json")
            .body(body)
    };
    let first = order(r#"{"sku": "tea", "quantity": 2, "sent_at": 1}"#)
        .send()
        .await;
    assert_eq!(first.status, 201, "{first:?}");
    let same = order(r#"{ "sent_at":2, "quantity":2,"sku":"t\u0065a"}"#)
        .send()
        .await;
    assert!(same.is_replay(), "{same:?}");
    let other = order(r#"{"sku": "tea", "quantity": 3}"#).send().await;
    assert_eq!(
        (other.status, other.code().as_str()),
        (422, "idempotency-key-reused")
    );
    assert_eq!(other.json()["changed"], json!(["body.quantity"]));
    let query = shop
        .post("/orders?fast=1")
        .key("k")
        .json(&json!({"sku": "tea", "quantity": 2}));
    assert_eq!(query.send().await.json()["changed"], json!(["query"]));
    assert_eq!(shop.orders().await, 1);
    shop.close().await;
}

/// 409 with Retry-After while the first is at work, and its answer afterwards.
pub async fn the_first_one_at_work_is_told<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let held = shop.post("/held").key("k");
    let first = tokio::spawn({
        let held = held.clone();
        async move { held.send().await }
    });
    shop.gates.entered().await;
    let second = held.send().await;
    assert_eq!(
        (second.status, second.code().as_str()),
        (409, "idempotency-key-in-use")
    );
    assert_eq!(second.header("retry-after"), Some("1"));
    shop.gates.open();
    let first = first.await.expect("an answer");
    assert_eq!((first.status, first.is_replay()), (201, false));
    assert!(held.send().await.is_replay());
    assert_eq!(shop.orders().await, 1);
    shop.close().await;
}

/// An hour where the route says so, a day otherwise.
pub async fn a_key_is_remembered_as_long_as_its_route_says<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    shop.send("/brief", "k").await;
    shop.order("k").send().await;
    let hours = "select extract(epoch from expires_at - created_at)::int8 / 3600 from idempotency_keys where operation = ";
    for (operation, expected) in [("brief", 1), ("orders", 24)] {
        let query = sqlx::AssertSqlSafe(format!("{hours}'{operation}'"));
        let found: i64 = sqlx::query_scalar(query)
            .fetch_one(&shop.database)
            .await
            .expect("a key");
        assert_eq!(found, expected, "{operation}");
    }
    // Past its time it is as if it had never been used.
    sqlx::query("update idempotency_keys set created_at = created_at - interval '2 hours', expires_at = expires_at - interval '2 hours', completed_at = completed_at - interval '2 hours'")
        .execute(&shop.database)
        .await
        .expect("moved");
    let other_node = crate::node::<F>(&shop.database.connect_options(), shop.gates.clone()).await;
    let again = shop
        .post("/brief")
        .key("k")
        .to(other_node.address)
        .send()
        .await;
    assert_eq!((again.status, again.is_replay()), (201, false));
    assert!(
        shop.order("k")
            .to(other_node.address)
            .send()
            .await
            .is_replay()
    );
    (other_node.stop)().await;
    shop.close().await;
}

/// One order, one answer, on whichever node it is asked for. The other one is another process.
pub async fn fifty_at_once_on_two_nodes_make_one_order<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database.clone()).await;
    let other_node = Process::start(&database, "").await;
    let calls = (0..50).map(|index| {
        let node = if index % 2 == 0 {
            shop.running.address
        } else {
            other_node.address
        };
        let call = shop.order("k").to(node);
        async move { call.send().await }
    });
    let answers = join_all(calls).await;
    let first = answers
        .iter()
        .find(|answer| !answer.is_replay())
        .expect("one is the first");
    assert_eq!(first.status, 201, "{first:?}");
    for answer in &answers {
        assert_eq!(answer.lasting(), first.lasting());
    }
    assert_eq!(
        answers.iter().filter(|answer| !answer.is_replay()).count(),
        1
    );
    assert_eq!(shop.orders().await, 1);
    drop(other_node);
    shop.close().await;
}

/// Where it has one.
pub async fn a_service_has_its_own_form_of_refusals<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let answer = shop.post("/own-form").send().await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (418, b"idempotency-key-missing".as_slice())
    );
    // Those that it leaves to the default.
    let answer = shop.post("/own-form").key("a b").send().await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "idempotency-key-invalid")
    );
    shop.close().await;
}
