//! A database, a gateway with its own books, a merchant, and the surviving server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::support::gateway::{Endpoint, TestGateway};
use crate::support::process::{Server, merchant};
use crate::support::service::{Answer, Merchant, Request, payment};

/// A dead server's claims may be taken over after this.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Longer than anything here takes, so that only an event that never happens exceeds it.
const PATIENCE: Duration = Duration::from_secs(30);

/// An operation: the end of its path, and the gateway's endpoint that it uses.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub name: &'static str,
    pub endpoint: Endpoint,
}

pub const OPERATIONS: [Operation; 4] = [
    Operation {
        name: "create",
        endpoint: Endpoint::Charge,
    },
    Operation {
        name: "capture",
        endpoint: Endpoint::Capture,
    },
    Operation {
        name: "cancel",
        endpoint: Endpoint::Cancel,
    },
    Operation {
        name: "refunds",
        endpoint: Endpoint::Refund,
    },
];

pub struct Worker {
    pub database: PgConnectOptions,
    pub gateway: TestGateway,
    pub survivor: Server,
    merchant: Merchant,
}

impl Worker {
    pub fn start(database: &PgConnectOptions) -> Self {
        let gateway = TestGateway::start();
        let survivor = server(database, &gateway, "");
        let merchant = merchant(database, &survivor.url, "acme");
        Self {
            database: database.clone(),
            gateway,
            survivor,
            merchant,
        }
    }

    /// A server beside the survivor, with a failpoint at a step.
    pub fn doomed(&self, failpoints: &str) -> Server {
        server(&self.database, &self.gateway, failpoints)
    }

    /// The request of an operation under `key`, after its payment was made.
    pub async fn request(&self, operation: Operation, key: &str) -> Request {
        let mut body = payment("10.00");
        body["captureMethod"] = json!(if matches!(operation.name, "capture" | "cancel") {
            "MANUAL"
        } else {
            "AUTOMATIC"
        });
        let pay = self.merchant.post("/v1/payments", body).key(key);
        if operation.name == "create" {
            return pay;
        }
        let made = pay.send().await;
        assert_eq!(made.status, 201, "{key}");
        self.merchant
            .post(
                &format!("/v1/payments/{}/{}", made.text("id"), operation.name),
                json!({}),
            )
            .key(key)
    }

    /// Repeats a request at the survivor until its answer is final. Returns how long that took.
    pub async fn until_final(&self, request: &Request) -> (Answer, Duration) {
        let began = Instant::now();
        loop {
            let answer = request.send().await;
            if matches!(answer.status.as_u16(), 200 | 201 | 402) {
                return (answer, began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "no final answer: {answer:?}");
        }
    }

    /// Waits until nothing is in `PROCESSING`. Returns how long that took.
    pub async fn until_settled(&self, context: &str) -> Duration {
        let began = Instant::now();
        let mut connection = self.connect().await;
        while sqlx::query_scalar(
            "select exists (select from unsettled_keys) \
                 or exists (select from idempotency_keys where state = 'PROCESSING') \
                 or exists (select from payments where state = 'PROCESSING' or pending_operation is not null)",
        )
        .fetch_one(&mut connection)
        .await
        .expect("an answer")
        {
            assert!(began.elapsed() < PATIENCE, "{context} stays in PROCESSING: {}", self.survivor.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.database)
            .await
            .expect("a connection")
    }

    /// Checks that the gateway did what the database says, once, for this key and all before it.
    pub async fn books_agree(&self, operation: Operation, key: &str) {
        let ledger = self.gateway.ledger();
        ledger.assert_nothing_twice();
        let mut connection = self.connect().await;
        let (known, of_key): (i64, Option<String>) = sqlx::query_as(
            "select count(*), max(payment_id) filter (where idempotency_key = $1) from payments",
        )
        .bind(key)
        .fetch_one(&mut connection)
        .await
        .expect("payments");
        assert_eq!(
            i64::try_from(ledger.charges.len()),
            Ok(known),
            "{key}: as many charges as payments"
        );
        // A claim that was never committed has no payment and no charge.
        let Some(id) = of_key else { return };
        let shown: Value = self
            .merchant
            .get(&format!("/v1/payments/{id}"))
            .await
            .json();
        assert_eq!(ledger.only_charge(&id).amount, 1000, "{key}");
        let done = match operation.name {
            "capture" => ledger.captures_for(&id).len(),
            "cancel" => ledger.cancels_for(&id).len(),
            "refunds" => ledger.refunds_for(&id).len(),
            _ => 1,
        };
        let expected = match (operation.name, done) {
            ("create", _) | ("capture", 1) | ("refunds", 0) => "SUCCESS",
            ("cancel", 1) => "CANCELED",
            ("refunds", 1) => "REFUNDED",
            (_, 0) => "AUTHORIZED",
            (_, more) => panic!("{key}: {more} times"),
        };
        assert_eq!(
            shown["state"], expected,
            "{key}: the gateway did it {done} times"
        );
    }
}

fn server(database: &PgConnectOptions, gateway: &TestGateway, failpoints: &str) -> Server {
    let lock_timeout = format!("{}ms", LOCK_TIMEOUT.as_millis());
    Server::start_on(
        &gateway.url(),
        database,
        &[
            ("PAYONCE_GATEWAY_TIMEOUT", "2s"),
            ("PAYONCE_LOCK_TIMEOUT", &lock_timeout),
            // This server must not recover others' work, which would reach its failpoint.
            (
                "PAYONCE_RECOVERY_INTERVAL",
                if failpoints.is_empty() { "100ms" } else { "1h" },
            ),
            ("FAILPOINTS", failpoints),
        ],
    )
}
