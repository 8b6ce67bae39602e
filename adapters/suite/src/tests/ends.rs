//! Clients that hang up, and services that stop.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use crate::{Framework, Shop};

/// The handler goes on, and its client finds the answer.
pub async fn a_client_that_hangs_up_stops_nothing<F: Framework>(database: PgConnectOptions) {
    let shop = Shop::open::<F>(database).await;
    let held = shop.post("/held").key("k");
    let stream = held.open().await;
    shop.gates.entered().await;
    shop.hang_up(stream).await;
    shop.gates.open();
    // The route does not wait for the first one, so the client asks until it has ended.
    let found = held.send_until_answered().await;
    assert_eq!((found.status, found.is_replay()), (201, true));
    assert_eq!(shop.orders().await, 1);
    shop.close().await;
}

/// It waits, and what the handler wrote is there afterwards.
pub async fn a_stop_waits_for_the_handler_whose_client_is_gone<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let stream = shop.post("/held").key("k").open().await;
    shop.gates.entered().await;
    shop.hang_up(stream).await;
    let Shop {
        database,
        gates,
        running,
        ..
    } = shop;
    let mut stopping = tokio::spawn((running.stop)());
    // It cannot end before the gate is opened, however slow the machine is. One that does not wait ends within this time.
    let ended = timeout(Duration::from_secs(3), &mut stopping).await;
    assert!(ended.is_err(), "it stopped while a handler was at work");
    gates.open();
    stopping.await.expect("it stops");
    let orders: i64 = sqlx::query_scalar("select count(*) from orders")
        .fetch_one(&database)
        .await
        .expect("a number");
    assert_eq!(orders, 1);
    database.close().await;
}

/// A request that is not whole is none.
pub async fn a_client_that_hangs_up_before_its_body_ends_stores_nothing<F: Framework>(
    database: PgConnectOptions,
) {
    let shop = Shop::open::<F>(database).await;
    let half = shop.post("/large").key("k").length(100).body("half");
    drop(half.open().await);
    shop.gates.gone().await;
    assert_eq!((shop.orders().await, shop.keys().await), (0, 0));
    assert_eq!(
        shop.post("/large")
            .key("k")
            .body("other")
            .send()
            .await
            .status,
        201
    );
    shop.close().await;
}
