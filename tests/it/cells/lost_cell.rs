//! A cell that is lost, nodes and database, stops its own merchants and no others.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::proxy::Proxy;
use crate::support::cluster::Cluster;
use crate::support::haproxy;
use crate::support::process::{Server, json, program, run};
use crate::support::service::{Merchant, client};

fn merchant_of(db: &PgConnectOptions, proxy: &Proxy, id: &str, cell: &str) -> Merchant {
    let created = run(program("payonce", db)
        .args(["merchants", "create", id])
        .env("PAYONCE_CELL", cell));
    assert!(created.status.success(), "{created:?}");
    let api_key = json(&created)["apiKey"].as_str().expect("a key").to_owned();
    Merchant {
        url: proxy.url.clone(),
        api_key,
        client: client(),
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_lost_cell_stops_its_own_merchants_only(_: PgPoolOptions, db: PgConnectOptions) {
    if !haproxy::is_here("a cell that is lost beside another one") {
        return;
    }
    let cluster = Cluster::start();
    let quick = |cell| {
        [
            ("PAYONCE_CELL", cell),
            ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "1ms"),
        ]
    };
    let ones = [(); 2].map(|()| Server::start(&db, &quick("1")));
    let mut twos = [(); 2].map(|()| Server::start(&cluster.options(), &quick("2")));
    let proxy = Proxy::start([[&ones[0], &ones[1]], [&twos[0], &twos[1]]]).await;
    let living = merchant_of(&db, &proxy, "acme", "1");
    let lost = merchant_of(&cluster.options(), &proxy, "acme", "2");
    for merchant in [&living, &lost] {
        assert_eq!(merchant.pay("10").key("k").send().await.status, 201);
    }

    cluster.kill();
    let without_database = lost.pay("10").key("without").send().await;
    assert_eq!(without_database.status, 503, "{without_database:?}");
    assert_eq!(without_database.json()["retry"], "same-key");
    for key in ["k1", "k2", "k3"] {
        assert_eq!(living.pay("10").key(key).send().await.status, 201);
    }
    for node in &mut twos {
        node.kill();
    }
    assert_eq!(lost.pay("10").key("nobody").send().await.status, 503);
    for key in ["k4", "k5", "k6"] {
        assert_eq!(living.pay("10").key(key).send().await.status, 201);
    }
    let replay = living.pay("10").key("k").send().await;
    assert!(replay.replayed(), "{replay:?}");
}
