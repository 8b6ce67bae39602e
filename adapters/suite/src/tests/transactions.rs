//! The transaction that a handler is lent.

use sqlx::postgres::PgConnectOptions;

use crate::{Framework, Shop};

/// A handler that answers 201 after a failed query would have nothing committed, so it has not succeeded, with a key or without.
pub async fn a_failed_query_that_nobody_minds_commits_nothing<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    for call in [shop.post("/swallows").key("k"), shop.post("/swallows")] {
        let answer = call.send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (500, "transaction-failed")
        );
        assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    }
    shop.close().await;
}

/// A task that holds it may still write.
pub async fn a_transaction_that_outlives_its_handler_commits_nothing<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let answer = shop.send("/keeps", "k").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "handler-aborted")
    );
    assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    shop.gates.open();
    shop.close().await;
}

/// The error says what to do.
pub async fn a_handler_without_a_layer_has_no_transaction<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let answer = shop.send("/bare", "k").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "no-transaction")
    );
    assert!(
        answer.json()["detail"]
            .as_str()
            .is_some_and(|it| it.contains("put the idempotency layer around"))
    );
    shop.close().await;
}

/// A second `Tx` would be another view of the same connection.
pub async fn there_is_one_transaction<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let answer = shop.send("/twice", "k").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "no-transaction")
    );
    assert_eq!(shop.keys().await, 0);
    shop.close().await;
}

/// The inner one would commit what the outer one could not undo. What it says names the outer one, and what to do.
pub async fn a_layer_in_a_layer_does_not_start<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let said = F::start_nested(shop.app.clone()).await;
    for part in ["`outer`", "put one layer around each route"] {
        assert!(said.contains(part), "{said}");
    }
    shop.close().await;
}

/// Where the framework hides the one from the other, each request is refused.
pub async fn a_layer_in_a_layer_that_cannot_be_seen_is_refused<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let answer = shop.send("/nested", "k").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (500, "nested-layers")
    );
    assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    shop.close().await;
}

/// PostgreSQL sees no deadlock, because one of the two waits in our process. The time-out ends it, and says what to do.
pub async fn a_second_connection_that_waits_for_our_row_is_ended<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let answer = shop.send("/second-connection", "k").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "handler-too-slow")
    );
    assert!(
        answer.json()["detail"]
            .as_str()
            .is_some_and(|it| it.contains("through its `Tx`"))
    );
    assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    shop.close().await;
}

/// `tx.begin()` inside the engine's transaction.
pub async fn a_savepoint_is_the_handlers_own<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    assert_eq!(shop.send("/savepoint", "k").await.status, 201);
    assert_eq!(
        shop.count("select count(*) from orders where sku = 'kept'")
            .await,
        1
    );
    assert_eq!((shop.orders().await, shop.keys().await), (1, 1));
    assert!(shop.send("/savepoint", "k").await.is_replay());
    shop.close().await;
}
