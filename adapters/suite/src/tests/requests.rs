//! Requests: methods, extractors and bodies.

use serde_json::json;
use sqlx::postgres::PgConnectOptions;

use crate::{Framework, Shop};

const MEBIBYTE: usize = 1024 * 1024;

/// They are executed each time, and leave no key.
pub async fn safe_methods_pass_through<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    for (method, expected) in [("GET", "1"), ("GET", "2"), ("HEAD", ""), ("OPTIONS", "4")] {
        let answer = shop.call(method, "/orders").key("k").send().await;
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, expected.as_bytes()),
            "{method}"
        );
        assert!(!answer.is_replay());
    }
    assert_eq!(shop.keys().await, 0);
    shop.close().await;
}

/// The body was read to be signed, and is there again.
pub async fn extractors_before_and_after_work<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let of = |customer: &str| {
        let path = format!("/customers/{customer}/orders");
        shop.post(&path)
            .key("k")
            .json(&json!({"sku": "tea", "quantity": 2}))
    };
    let first = of("7").send().await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(
        first.json(),
        json!({"customer": "7", "key": "k", "sku": "tea"})
    );
    assert!(of("7").send().await.is_replay());
    let other = of("8").send().await;
    assert_eq!(
        (other.status, &other.json()["changed"]),
        (422, &json!(["path"]))
    );
    // What an extractor refuses is an answer as any other.
    let broken = shop
        .post("/customers/7/orders")
        .key("b")
        .json(&json!({"sku": 1}));
    let refused = broken.send().await;
    assert!((400..=422).contains(&refused.status), "{refused:?}");
    assert!(broken.send().await.is_replay());
    assert_eq!(shop.orders().await, 1);
    shop.close().await;
}

/// Where the route takes as much.
pub async fn ten_mebibytes_are_signed_and_handled<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let mut body = vec![b'x'; 10 * MEBIBYTE];
    let call = shop.post("/large").key("k");
    let first = call.clone().body(body.clone()).send().await;
    assert_eq!(
        (first.status, first.body.as_slice()),
        (201, b"10485760".as_slice())
    );
    assert!(call.clone().body(body.clone()).send().await.is_replay());
    body[9 * MEBIBYTE] = b'y';
    let other = call.body(body).send().await;
    assert_eq!(
        (other.status, &other.json()["changed"]),
        (422, &json!(["body"]))
    );
    assert_eq!(shop.orders().await, 1);
    shop.close().await;
}

/// By its length before any of it is read, and by what comes where it has no length.
pub async fn a_body_beyond_the_bound_is_refused<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let announced = shop
        .post("/orders")
        .key("k")
        .length(10 * MEBIBYTE)
        .send()
        .await;
    assert_eq!(
        (announced.status, announced.code().as_str()),
        (413, "payload-too-large")
    );
    let chunk = [
        format!("{:x}\r\n", 2 * MEBIBYTE + 1).into_bytes(),
        vec![b'x'; 2 * MEBIBYTE + 1],
    ];
    let chunked = shop
        .post("/orders")
        .key("k")
        .chunked()
        .body(chunk.concat())
        .send()
        .await;
    assert_eq!(
        (chunked.status, chunked.code().as_str()),
        (413, "payload-too-large")
    );
    assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    shop.close().await;
}

/// Where the route says so.
pub async fn a_signed_header_is_a_part_of_the_request<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let first = shop.order("k").header("x-currency", "EUR").send().await;
    assert_eq!(first.status, 201);
    let unsigned = shop
        .order("k")
        .header("x-currency", "EUR")
        .header("x-trace", "2")
        .send()
        .await;
    assert!(unsigned.is_replay());
    let other = shop.order("k").header("x-currency", "USD").send().await;
    assert_eq!(
        (other.status, &other.json()["changed"]),
        (422, &json!(["header x-currency"]))
    );
    shop.close().await;
}
