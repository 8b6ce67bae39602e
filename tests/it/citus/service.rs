//! The service on a cluster, from the first payment to the clean-up.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::Installation;
use crate::support::process::{Server, json as stdout, merchant, program, run};
use crate::support::service::{Merchant, payment};

/// Merchants enough that both workers have some.
const MERCHANTS: [&str; 6] = ["acme", "globex", "initech", "umbrella", "hooli", "stark"];

/// A payment by a simulated card.
fn by_card(number: &str) -> Value {
    let mut body = payment("100.00");
    body["paymentMethod"]["details"]["cardNumber"] = json!(number);
    body
}

async fn everything_of(merchant: &Merchant, id: &str) {
    let key = |name: &str| format!("{id}-{name}");
    let paid = merchant.pay("100.00").key(&key("pay")).send().await;
    assert_eq!(paid.status, StatusCode::CREATED, "{paid:?}");
    let again = merchant.pay("100.00").key(&key("pay")).send().await;
    assert!(again.replayed() && again.bytes == paid.bytes, "{again:?}");
    let other = merchant.pay("1.00").key(&key("pay")).send().await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{other:?}");

    let declined = merchant.post("/v1/payments", by_card("4000000000009995"));
    let declined = declined.key(&key("decline")).send().await;
    assert_eq!(
        declined.status,
        StatusCode::PAYMENT_REQUIRED,
        "{declined:?}"
    );

    let mut held = payment("50.00");
    held["captureMethod"] = json!("MANUAL");
    let hold = merchant
        .post("/v1/payments", held)
        .key(&key("hold"))
        .send()
        .await;
    assert_eq!(hold.status, StatusCode::CREATED, "{hold:?}");
    let capture = format!("/v1/payments/{}/capture", hold.text("id"));
    let captured = merchant.post(&capture, json!({"amount": "20.00"}));
    let captured = captured.key(&key("capture")).send().await;
    assert_eq!(captured.status, StatusCode::OK, "{captured:?}");

    let refund = format!("/v1/payments/{}/refunds", paid.text("id"));
    let refunded = merchant.post(&refund, json!({"amount": "30.00"}));
    let refunded = refunded.key(&key("refund")).send().await;
    assert_eq!(refunded.status, StatusCode::CREATED, "{refunded:?}");

    let listed = merchant.get("/v1/payments?limit=10").await;
    let listed = listed.json()["data"].as_array().expect("payments").len();
    assert_eq!(listed, 3);
}

#[tokio::test]
async fn the_service_works_on_a_cluster_and_on_a_worker_of_it() {
    let Some(installation) = Installation::new("the service on Citus").await else {
        return;
    };
    let database = installation.database();
    let server = Server::start_with(&database, &[], &["--no-migrate"]);
    let merchants = MERCHANTS.map(|id| merchant(&database, &server.url, id));
    let all = MERCHANTS
        .iter()
        .zip(&merchants)
        .map(|(id, merchant)| everything_of(merchant, id));
    futures_util::future::join_all(all).await;

    // A refund that the gateway has not finished is looked at again until it has: it fails, a few seconds later.
    let [acme, ..] = &merchants;
    let pending = acme.post("/v1/payments", by_card("4000000000005126"));
    let pending = pending.key("pending").send().await;
    let refunds = format!("/v1/payments/{}/refunds", pending.text("id"));
    let refund = acme
        .post(&refunds, json!({}))
        .key("pending-refund")
        .send()
        .await;
    assert_eq!(refund.status, StatusCode::CREATED, "{refund:?}");
    assert_eq!(refund.text("state"), "PENDING");

    let doctor = run(program("payonce", &database)
        .args(["doctor", "--json"])
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
    let problems = stdout(&doctor)["findings"].clone();
    let problems: Vec<&Value> = problems
        .as_array()
        .expect("findings")
        .iter()
        .filter(|finding| finding["result"] == "problem")
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
    for program_of_operators in [
        program("payonce-cleanup", &database),
        program("payonce", &database),
    ] {
        let mut command = program_of_operators;
        if command.get_program().to_string_lossy().ends_with("payonce") {
            command.args(["idempotency-keys", "list"]);
        }
        let ran = run(&mut command);
        assert!(ran.status.success(), "{ran:?}");
    }
    drop(server);
    installation.remove().await;
}
