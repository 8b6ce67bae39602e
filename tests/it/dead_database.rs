//! A database that cannot be reached: all requests are answered at once, and none is executed later.

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::proxy::Proxy;
use crate::support::service::{Service, Setup};

/// More requests than could be answered one after the other within the client's 20 s, at 3 s each.
const PAYMENTS: u32 = 48;

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn all_who_wait_are_told_together_and_none_is_charged_later(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    for is_silent in [false, true] {
        let proxy = Proxy::start(&db);
        let setup = Setup {
            recovery_interval: Duration::from_secs(3600),
            ..Setup::default()
        };
        let service = Service::start_with(&proxy.options(), setup).await;
        let acme = service.merchant(&format!("acme-{is_silent}")).await;
        // The API key is cached for 3 s, so payments wait in the lane's queue and not for authentication.
        let first = acme.get("/v1/payments").await;
        assert_eq!(first.status.as_u16(), 200);
        if is_silent {
            proxy.silence_for_good();
        } else {
            proxy.go_down();
        }
        let pay = |n: u32| {
            let request = acme.pay("10").key(&n.to_string());
            async move { request.send().await }
        };
        for answer in join_all((0..PAYMENTS).map(pay)).await {
            answer.assert_problem(503, "database-unavailable", "same-key");
        }
        proxy.mend();
        // It is queued behind those before it.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let paid = acme.pay("10").key("later").send().await;
            if paid.status == 201 {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{paid:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(service.gateway.charges(), 1);
        drop(service);
    }
}
