//! Refunds against refunds, and captures against captures and cancels, on two nodes and a gateway that fails half of the time:
//! together they never exceed the amount, in the database or in the gateway's books.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use payonce::gateway::{Gateway, StripeGateway};
use payonce::idempotency::IdempotencyConfig;
use secrecy::SecretString;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::gateway::{Ledger, SECRET_KEY, TestGateway};
use crate::support::service::{Answer, Merchant, Request, Service, Setup, payment};

/// Half of the requests to the gateway get a fault.
const PERCENT: u32 = 50;

struct Nodes {
    gateway: TestGateway,
    services: [Service; 2],
    acme: Merchant,
}

impl Nodes {
    async fn start(db: &PgConnectOptions) -> Self {
        let gateway = TestGateway::start();
        let services = [node(db, &gateway).await, node(db, &gateway).await];
        let acme = services[0].merchant("acme").await;
        Self {
            gateway,
            services,
            acme,
        }
    }

    async fn made(&self, capture_method: &str, n: u64) -> String {
        let mut body = payment("10.00");
        body["captureMethod"] = json!(capture_method);
        let made = self.acme.post("/v1/payments", body).key(&format!("p-{n}"));
        made.send().await.text("id")
    }

    /// All at once, one node and the other in turn, each until its answer is final.
    async fn race(&self, requests: Vec<Request>) -> Vec<Answer> {
        join_all(
            requests
                .into_iter()
                .enumerate()
                .map(|(n, request)| async move {
                    let mut node = n;
                    loop {
                        node += 1;
                        let url = &self.services[node % 2].url;
                        let answer = request.clone().at(url).send().await;
                        let again = answer.status == 202 || answer.json()["retry"] == "same-key";
                        if !again {
                            return answer;
                        }
                    }
                }),
        )
        .await
    }

    async fn ledger(&self) -> Ledger {
        self.services[0].until_unsettled(0).await;
        let ledger = self.gateway.ledger();
        ledger.assert_nothing_twice();
        ledger
    }

    /// What the payment shows, in minor units.
    async fn shown(&self, id: &str) -> (String, i64, i64) {
        sqlx::query_as(
            "select state, amount_captured_minor, amount_refunded_minor from payments where payment_id = $1",
        )
        .bind(id)
        .fetch_one(&self.services[0].pool)
        .await
        .expect("the payment")
    }
}

async fn node(db: &PgConnectOptions, gateway: &TestGateway) -> Service {
    let time = Duration::from_secs(2);
    let key = SecretString::from(SECRET_KEY);
    let stripe = StripeGateway::new(&gateway.url(), key, time).expect("a client");
    let setup = Setup {
        idempotency: IdempotencyConfig::default().with_lock_timeout(Duration::from_millis(500)),
        recovery_interval: Duration::from_millis(100),
        ..Setup::default()
    };
    let stripe: Arc<dyn Gateway> = Arc::new(stripe);
    Service::start_on(db, setup, stripe, time).await
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn refunds_that_race_under_faults_never_pass_the_amount(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let nodes = Nodes::start(&db).await;
    for n in 0..4 {
        let id = nodes.made("AUTOMATIC", n).await;
        nodes.gateway.chaos(n, PERCENT);
        let path = format!("/v1/payments/{id}/refunds");
        let refunds = (0..6)
            .map(|refund| {
                nodes
                    .acme
                    .post(&path, json!({"amount": "4.00"}))
                    .key(&format!("r-{n}-{refund}"))
            })
            .collect();
        let answers = nodes.race(refunds).await;
        nodes.gateway.calm();
        let given = answers.iter().filter(|answer| answer.status == 201).count();
        let refused = answers.iter().filter(|answer| answer.status == 422).count();
        assert_eq!((given, refused), (2, 4), "{answers:?}");
        let ledger = nodes.ledger().await;
        assert_eq!(ledger.only_charge(&id).amount_refunded, 800);
        assert_eq!(
            nodes.shown(&id).await,
            ("PARTIALLY_REFUNDED".to_owned(), 1000, 800)
        );
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn captures_and_cancels_that_race_under_faults_end_in_one(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let nodes = Nodes::start(&db).await;
    for n in 0..4 {
        let id = nodes.made("MANUAL", n).await;
        nodes.gateway.chaos(n, PERCENT);
        let path = format!("/v1/payments/{id}");
        let mut requests: Vec<Request> = (1..=3)
            .map(|part| {
                let body = json!({"amount": format!("{part}.50")});
                let request = nodes.acme.post(&format!("{path}/capture"), body);
                request.key(&format!("c-{n}-{part}"))
            })
            .collect();
        requests.push(
            nodes
                .acme
                .post(&format!("{path}/cancel"), json!({}))
                .key(&format!("x-{n}")),
        );
        let answers = nodes.race(requests).await;
        nodes.gateway.calm();
        let won: Vec<_> = answers
            .iter()
            .filter(|answer| answer.status == 200)
            .collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let ledger = nodes.ledger().await;
        let charge = ledger.only_charge(&id);
        let (state, captured, _) = nodes.shown(&id).await;
        assert_eq!(won[0].text("state"), state);
        assert_eq!(charge.amount_captured, captured);
        assert_eq!(
            (
                ledger.captures_for(&id).len(),
                ledger.cancels_for(&id).len()
            ),
            if state == "CANCELED" { (0, 1) } else { (1, 0) },
            "{answers:?}"
        );
    }
}
