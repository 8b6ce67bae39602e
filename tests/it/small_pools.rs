//! Few connections, because of the pool's size, the role or the server. The service works with as many as it gets.

use futures_util::future::join_all;
use payonce::database;
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::cluster::Cluster;
use crate::support::process::{Server, merchant};
use crate::support::service::{Merchant, Service, Setup, count, repeated};

/// Payments that are charged and settled, a capture, a cancel, refunds and reads, some of them at once.
async fn assert_all_works(acme: &Merchant) {
    let pay = async |n: u32| {
        let request = acme.pay("10").key(&format!("p{n}"));
        repeated(async || request.send().await).await
    };
    let mut ids = Vec::new();
    for paid in join_all((0..4).map(pay)).await {
        assert_eq!(paid.status.as_u16(), 201, "{paid:?}");
        ids.push(paid.text("id"));
    }
    for (n, id) in ids.iter().enumerate() {
        let refund = acme
            .post(
                &format!("/v1/payments/{id}/refunds"),
                json!({"amount": "1"}),
            )
            .key(&format!("r{n}"));
        let refund = repeated(async || refund.send().await).await;
        assert_eq!(refund.status.as_u16(), 201, "{refund:?}");
        let read = repeated(async || acme.get(&format!("/v1/payments/{id}")).await).await;
        assert_eq!(read.status.as_u16(), 200, "{read:?}");
    }
    let list = repeated(async || acme.get("/v1/payments").await).await;
    assert_eq!(list.status.as_u16(), 200, "{list:?}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_pool_of_one_two_or_three_works(_: PgPoolOptions, db: PgConnectOptions) {
    for connections in 1..=3 {
        let setup = Setup {
            connections,
            ..Setup::default()
        };
        let service = Service::start_with(&db, setup).await;
        let acme = service.merchant(&format!("acme-{connections}")).await;
        assert_all_works(&acme).await;
        assert_eq!(service.count("unsettled_keys").await, 0, "{connections}");
    }
}

/// A cluster whose role `service` may open `connections` at once.
async fn limited(connections: u32) -> (Cluster, PgPool, PgConnectOptions) {
    let cluster = Cluster::start();
    let owner = PgPool::connect_with(cluster.options())
        .await
        .expect("connected");
    database::migrate(&owner).await.expect("migrated");
    let sql = format!(
        "create role service login connection limit {connections}; \
         grant all on all tables in schema public to service"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&owner)
        .await
        .expect("a role");
    let service = cluster.options().username("service");
    (cluster, owner, service)
}

#[tokio::test]
async fn a_role_that_may_open_fewer_connections_is_told_and_the_service_works() {
    for connections in [1, 2, 5] {
        let (cluster, owner, role) = limited(connections).await;
        let server = Server::start_with(&role, &[], &["--no-migrate"]);
        let log = server.log();
        assert!(log.contains("the role allows fewer connections"), "{log}");
        assert!(log.contains(&format!("\"granted\":{connections}")), "{log}");
        let acme = merchant(&cluster.options(), &server.url, "acme");
        assert_all_works(&acme).await;
        assert_eq!(count(&owner, "unsettled_keys").await, 0);
        owner.close().await;
    }
}

/// Less is left to the service after its start, as when further nodes use the rest: the lanes give up their connections.
#[tokio::test]
async fn whoever_is_left_with_two_connections_goes_on() {
    let (cluster, owner, role) = limited(6).await;
    let server = Server::start_with(&role, &[], &["--no-migrate"]);
    let acme = merchant(&cluster.options(), &server.url, "acme");
    sqlx::query("alter role service connection limit 2")
        .execute(&owner)
        .await
        .expect("a lower limit");
    // Ended rather than outnumbered: how many of the six the service has opened by now is its own affair.
    let ended: Vec<bool> = sqlx::query_scalar(
        "select pg_terminate_backend(pid, 60000) from pg_stat_activity where usename = 'service'",
    )
    .fetch_all(&owner)
    .await
    .expect("the service's connections");
    assert!(ended.iter().all(|ended| *ended), "{ended:?}");
    assert_all_works(&acme).await;
    assert_eq!(count(&owner, "unsettled_keys").await, 0);
    owner.close().await;
}
