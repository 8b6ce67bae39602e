//! The metrics at `/metrics`, in a separate process, because there is one recorder per process.

use std::time::Duration;

use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::process::{Server, merchant};
use crate::support::rows::end_leases;
use crate::support::scripted::Turn;
use crate::support::service::{Merchant, Service, Setup, client};

/// The value of the one sample of this name with all of these labels.
fn sample(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut found = text.lines().filter(|line| {
        let rest = line.strip_prefix(name).unwrap_or_default();
        (rest.starts_with('{') || rest.starts_with(' '))
            && labels
                .iter()
                .all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    });
    let line = found.next()?;
    assert!(
        found.next().is_none(),
        "more than one {name} with {labels:?}"
    );
    line.rsplit(' ').next()?.parse().ok()
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn groups_stay_within_their_size(_: PgPoolOptions, db: PgConnectOptions) {
    let settings = [
        ("PAYONCE_GROUP_SIZE", "1"),
        ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "0s"),
    ];
    let server = Server::start(&db, &settings);
    let acme = merchant(&db, &server.url, "acme");
    let payments = (0..50).map(|i| {
        let request = acme.pay("10").key(&format!("k{i}"));
        async move { request.send().await }
    });
    for paid in futures_util::future::join_all(payments).await {
        assert_eq!(paid.status, 201);
    }
    let text = String::from_utf8_lossy(&acme.get("/metrics").await.bytes).into_owned();
    for lane in ["claim", "settle"] {
        let groups = |bound| {
            let labels = [("lane", lane), ("le", bound)];
            sample(&text, "payonce_batch_size_bucket", &labels)
        };
        assert_eq!((groups("1"), groups("+Inf")), (Some(50.0), Some(50.0)));
        // Measured with the first group, before the second.
        let commit = sample(&text, "payonce_commit_seconds", &[("lane", lane)]);
        assert!(commit.is_some_and(|seconds| seconds > 0.0), "{commit:?}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_way_through_the_gate_is_counted(_: PgPoolOptions, db: PgConnectOptions) {
    let server = Server::start(
        &db,
        &[
            ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "400ms"),
            ("PAYONCE_RECOVERY_INTERVAL", "1h"),
        ],
    );
    let acme = merchant(&db, &server.url, "acme");
    let pay = |key: &str| acme.pay("10").key(key);
    let metrics = async || String::from_utf8_lossy(&acme.get("/metrics").await.bytes).into_owned();

    // A node that seems dead leaves a claim that can be taken over.
    let setup = Setup {
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    };
    let dead = Service::start_with(&db, setup).await;
    dead.gateway.then(&[Turn::Silence]);
    let left = acme.at(&dead).pay("10").key("left");
    let left = tokio::spawn(async move { left.try_send().await.is_ok() });
    dead.until_unsettled(1).await;
    let text = metrics().await;
    assert_eq!(sample(&text, "payonce_keys_processing", &[]), Some(1.0));
    assert!(sample(&text, "payonce_keys_oldest_processing_seconds", &[]) > Some(0.0));
    end_leases(&dead.pool).await;
    assert_eq!(pay("left").send().await.status, 201);

    let (requests, busy) = ((pay("k"), pay("k")), pay("k").header("prefer", "wait=0"));
    let busy = async {
        dead.until_unsettled(1).await;
        busy.send().await
    };
    let (first, second, busy) = tokio::join!(requests.0.send(), requests.1.send(), busy);
    assert_eq!(
        (
            first.status.as_u16(),
            second.status.as_u16(),
            busy.status.as_u16()
        ),
        (201, 201, 409)
    );
    assert!(pay("k").send().await.replayed());
    assert_eq!(acme.pay("11").key("k").send().await.status, 422);
    pay("declined").card("4000000000000002").send().await;
    let id = first.text("id");
    acme.post(&format!("/v1/payments/{id}/refunds"), json!({}))
        .key("r")
        .send()
        .await;

    let text = metrics().await;
    for (result, count) in [
        ("miss", 2.0),
        ("hit", 1.0),
        ("waited", 1.0),
        ("mismatch", 1.0),
        ("in_use", 1.0),
        ("takeover", 1.0),
    ] {
        let labels = [("operation", "create_payment"), ("result", result)];
        assert_eq!(
            sample(&text, "payonce_idempotency_checks_total", &labels),
            Some(count),
            "{result}"
        );
    }
    let gateway = |operation, outcome| {
        let labels = [
            ("gateway", "SIMULATED"),
            ("operation", operation),
            ("outcome", outcome),
        ];
        sample(&text, "payonce_gateway_requests_total", &labels)
    };
    assert_eq!(gateway("charge", "success"), Some(2.0));
    assert_eq!(gateway("charge", "declined"), Some(1.0));
    assert_eq!(gateway("refund", "success"), Some(1.0));
    let payments = |state| sample(&text, "payonce_payments_total", &[("state", state)]);
    assert_eq!(
        (payments("SUCCESS"), payments("FAILED")),
        (Some(2.0), Some(1.0))
    );
    let charged = [("gateway", "SIMULATED"), ("operation", "charge")];
    assert_eq!(
        sample(&text, "payonce_gateway_request_seconds_count", &charged),
        Some(3.0)
    );
    assert!(sample(&text, "payonce_gateway_request_seconds_sum", &charged) >= Some(1.2));
    assert!(sample(&text, "payonce_idempotency_wait_seconds_count", &[]) >= Some(1.0));
    assert_eq!(sample(&text, "payonce_keys_processing", &[]), Some(0.0));
    let route = [
        ("method", "POST"),
        ("route", "/v1/payments/{id}/refunds"),
        ("status", "201"),
    ];
    assert_eq!(
        sample(&text, "payonce_http_requests_total", &route),
        Some(1.0)
    );
    assert!(!text.contains(&id), "no ids in labels");
    assert!(text.contains("payonce_batch_size_bucket{lane="));
    left.abort();
}

/// The metrics of dashboards and alerts exist from the start, under the names in the API's page.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_fresh_service_has_its_metrics(_: PgPoolOptions, db: PgConnectOptions) {
    let server = Server::start(&db, &[]);
    let nobody = Merchant {
        url: server.url.clone(),
        api_key: "nothing".to_owned(),
        client: client(),
    };
    let metrics =
        async || String::from_utf8_lossy(&nobody.get("/metrics").await.bytes).into_owned();
    let text = metrics().await;
    for result in ["miss", "hit", "waited", "mismatch", "in_use", "takeover"] {
        let labels = [("operation", "refund_payment"), ("result", result)];
        assert_eq!(
            sample(&text, "payonce_idempotency_checks_total", &labels),
            Some(0.0),
            "{result}"
        );
    }
    for outcome in ["success", "declined", "nothing_happened", "unknown"] {
        let labels = [
            ("operation", "charge"),
            ("outcome", outcome),
            ("gateway", "SIMULATED"),
        ];
        assert_eq!(
            sample(&text, "payonce_gateway_requests_total", &labels),
            Some(0.0),
            "{outcome}"
        );
    }
    for outcome in ["resolved", "unknown", "taken_by_others", "failed"] {
        let labels = [("outcome", outcome)];
        assert_eq!(
            sample(&text, "payonce_recovered_total", &labels),
            Some(0.0),
            "{outcome}"
        );
    }
    for state in ["SUCCESS", "AUTHORIZED", "FAILED"] {
        let labels = [("state", state)];
        assert_eq!(
            sample(&text, "payonce_payments_total", &labels),
            Some(0.0),
            "{state}"
        );
    }
    for gauge in [
        "payonce_keys_processing",
        "payonce_keys_oldest_processing_seconds",
    ] {
        assert_eq!(sample(&text, gauge, &[]), Some(0.0), "{gauge}");
    }
    // The recovery's own connection may be waited for at this moment.
    assert!(sample(&text, "payonce_database_waiting", &[]).is_some());
    assert!(sample(&text, "payonce_database_connections", &[]) >= Some(1.0));
    assert!(sample(&text, "payonce_database_wait_seconds_count", &[]) >= Some(1.0));
    assert!(
        text.contains("# HELP payonce_database_wait_seconds "),
        "what it means"
    );
    // The first request to it is counted when the second asks.
    let labels = [("route", "/metrics"), ("status", "200"), ("method", "GET")];
    assert_eq!(
        sample(&metrics().await, "payonce_http_requests_total", &labels),
        Some(1.0)
    );
}

/// Samples are kept one by one until they are added up: without a scrape, the service does that by itself.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn samples_are_added_up_without_a_scrape(_: PgPoolOptions, db: PgConnectOptions) {
    let _service = Service::start(&db).await;
    let recorder = payonce::telemetry::metrics().expect("the recorder");
    metrics::histogram!("never_scraped_seconds").record(0.5);
    let added_up = async {
        // Samples that are not added up yet are not shown there.
        while !distributions(&format!("{recorder:?}")).contains("never_scraped_seconds") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let added_up = tokio::time::timeout(Duration::from_secs(20), added_up).await;
    added_up.expect("it is added up");
}

/// The part of a recorder's `Debug` that has the histograms' sums. Reading it adds up nothing, unlike a scrape.
fn distributions(recorder: &str) -> &str {
    let (_, rest) = recorder
        .split_once("distributions: ")
        .expect("distributions");
    rest.split_once("distribution_builder")
        .expect("their end")
        .0
}
