//! What is stored of an answer, and what becomes of the handler's writes.

use sqlx::postgres::PgConnectOptions;

use crate::{Framework, Shop};

/// The same bytes, the same headers, and one order.
pub async fn a_replay_is_the_first_answer_byte_for_byte<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let first = shop.order("k").send().await;
    assert_eq!(first.status, 201, "{first:?}");
    assert!(!first.is_replay());
    assert!(
        first
            .header("location")
            .is_some_and(|it| it.starts_with("/orders/"))
    );
    let again = shop.order("k").send().await;
    assert!(again.is_replay());
    assert_eq!(again.lasting(), first.lasting());
    assert_eq!(shop.orders().await, 1);

    // Also from the table, where no process remembers it.
    let other_node = crate::node::<F>(&shop.database.connect_options(), shop.gates.clone()).await;
    let elsewhere = shop.order("k").to(other_node.address).send().await;
    assert_eq!(elsewhere.lasting(), first.lasting());
    assert!(elsewhere.is_replay());
    (other_node.stop)().await;
    shop.close().await;
}

/// 4xx: the order is undone, and the same key is told the same again.
pub async fn a_failure_is_stored_and_its_writes_are_undone<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    for status in [400, 404, 409, 422] {
        let (path, key) = (format!("/answers/{status}"), format!("k{status}"));
        let first = shop.send(&path, &key).await;
        assert_eq!((first.status, first.is_replay()), (status, false));
        let again = shop.send(&path, &key).await;
        assert!(again.is_replay());
        assert_eq!(again.lasting(), first.lasting());
    }
    assert_eq!((shop.orders().await, shop.keys().await), (0, 4));
    shop.close().await;
}

/// 5xx, and what says nothing of the request: no order, no key, and the response comes through as it is.
pub async fn what_may_be_otherwise_next_time_stores_nothing<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    for status in [500, 503, 401, 429] {
        let first = shop.send(&format!("/answers/{status}"), "k").await;
        assert_eq!(first.status, status, "{first:?}");
        assert!(first.json()["id"].is_string());
        assert_eq!((shop.orders().await, shop.keys().await), (0, 0), "{status}");
    }
    // The key is still good.
    assert_eq!(shop.send("/answers/201", "k").await.status, 201);
    assert_eq!((shop.orders().await, shop.keys().await), (1, 1));
    shop.close().await;
}

/// 3xx is done.
pub async fn a_redirect_is_kept<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let first = shop.send("/answers/303", "k").await;
    assert_eq!(first.header("location"), Some("/elsewhere"));
    let again = shop.send("/answers/303", "k").await;
    assert_eq!((again.status, again.is_replay()), (303, true));
    assert_eq!(again.lasting(), first.lasting());
    assert_eq!(shop.orders().await, 1);
    shop.close().await;
}

/// A panic after a write: nothing is left of it, and the service goes on.
pub async fn a_panic_stores_nothing<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    for _ in 0..2 {
        let answer = shop.send("/panics", "k").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (500, "handler-aborted")
        );
        assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    }
    assert_eq!(shop.order("k").send().await.status, 201);
    shop.close().await;
}

/// Up to the bound it is collected. Beyond, nothing of it is stored or sent.
pub async fn a_stream_is_stored_whole_or_not_at_all<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    for kibibytes in ["5", "1000000000"] {
        let answer = shop.send(&format!("/streams/{kibibytes}"), "k").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (500, "answer-too-large")
        );
        assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    }
    let first = shop.send("/streams/4", "k").await;
    assert_eq!((first.status, first.body.len()), (200, 4096));
    let again = shop.send("/streams/4", "k").await;
    assert!(again.is_replay());
    assert_eq!(again.lasting(), first.lasting());
    assert_eq!(shop.orders().await, 1);
    shop.close().await;
}

/// The first answer is the stored one, too.
pub async fn only_kept_headers_are_stored_and_sent<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let first = shop.send("/headers", "k").await;
    assert_eq!(
        (first.header("x-kept"), first.header("x-dropped")),
        (Some("1"), None)
    );
    let again = shop.send("/headers", "k").await;
    assert!(again.is_replay());
    assert_eq!(again.lasting(), first.lasting());
    assert_eq!(shop.orders().await, 1);
    shop.close().await;
}

/// HTTP has no text in it.
pub async fn a_header_that_cannot_be_sent_again_stores_nothing<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let answer = shop.send("/odd-header", "k").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "answer-not-storable")
    );
    assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    shop.close().await;
}
