//! The crash sweep: a server is aborted at every step of every operation, under every fault of the gateway, and another
//! goes on. Half of the clients come back, half never do. The gateway's own books say what was charged.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::gateway::{Endpoint, Fault, SECRET_KEY, TestGateway};
use crate::support::process::{Server, json as stdout, program, run};
use crate::support::service::{Answer, Merchant, client, payment};

const STEPS: [&str; 7] = [
    "claim-before",
    "claim-before-commit",
    "claim-committed",
    "call-before",
    "call-answered",
    "settle-before-commit",
    "settle-committed",
];

const OPERATIONS: [(&str, Endpoint); 4] = [
    ("create", Endpoint::Charge),
    ("capture", Endpoint::Capture),
    ("cancel", Endpoint::Cancel),
    ("refunds", Endpoint::Refund),
];

/// A server that died may be succeeded after this.
const LOCK_TIMEOUT: &str = "500ms";

/// A share's gateway, its merchant, and the server that goes on.
struct Worker {
    database: PgConnectOptions,
    gateway: TestGateway,
    survivor: Server,
    merchant: Merchant,
    merchant_id: String,
}

impl Worker {
    fn start(database: &PgConnectOptions, id: &str) -> Self {
        let gateway = TestGateway::start();
        let survivor = server(database, &gateway, None);
        let created = run(program("payonce", database).args(["merchants", "create", id]));
        let api_key = stdout(&created)["apiKey"]
            .as_str()
            .expect("a key")
            .to_owned();
        let merchant = Merchant {
            url: survivor.url.clone(),
            api_key,
            client: client(),
        };
        Self {
            database: database.clone(),
            gateway,
            survivor,
            merchant,
            merchant_id: id.to_owned(),
        }
    }

    /// One case. Returns how long the client, if it came back, waited for its answer.
    async fn case(
        &self,
        pool: &PgPool,
        step: &str,
        operation: usize,
        fault: Fault,
        returns: bool,
    ) -> Duration {
        let (name, endpoint) = OPERATIONS[operation];
        let key = format!("{step}-{name}-{fault:?}");
        let mut body = payment("10.00");
        body["captureMethod"] = json!(if matches!(name, "capture" | "cancel") {
            "MANUAL"
        } else {
            "AUTOMATIC"
        });
        let mut request = self.merchant.post("/v1/payments", body).key(&key);
        let mut payment_id = None;
        if name != "create" {
            let made = request.send().await;
            assert_eq!(made.status, 201, "{key}");
            payment_id = Some(made.text("id"));
            request = self
                .merchant
                .post(
                    &format!("/v1/payments/{}/{name}", made.text("id")),
                    json!({}),
                )
                .key(&key);
        }
        let mut dying = server(&self.database, &self.gateway, Some(step));
        if fault != Fault::None {
            self.gateway.script([(endpoint, fault)]);
        }
        let first = request.clone().at(&dying.url).try_send().await;
        // A fault that is not resolved in the request's time is answered by 202 before the later steps are reached.
        assert!(
            first.is_err() || first.is_ok_and(|answer| answer.status == 202),
            "{key}: it did not die"
        );
        dying.kill();
        self.gateway.calm();

        let began = Instant::now();
        let settled = if returns {
            Some(until_final(&request).await)
        } else {
            None
        };
        let waited = began.elapsed();
        while sqlx::query_scalar::<_, bool>(
            "select exists (select from unsettled_keys where merchant_id = $1 and key = $2)",
        )
        .bind(&self.merchant_id)
        .bind(&key)
        .fetch_one(pool)
        .await
        .expect("an answer")
        {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{key} stays in PROCESSING: {}",
                self.survivor.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(answer) = &settled {
            assert!(answer.status != 402, "{key}: {answer:?}");
            assert_eq!(
                request.send().await.bytes,
                answer.bytes,
                "{key}: every retry gets equal bytes"
            );
        }
        self.check_books(
            &key,
            name,
            payment_id.or_else(|| settled.map(|answer| answer.text("id"))),
        )
        .await;
        waited
    }

    /// The gateway did what the payment says, once.
    async fn check_books(&self, key: &str, name: &str, id: Option<String>) {
        let ledger = self.gateway.ledger();
        ledger.assert_nothing_twice();
        // A claim that never was committed has no payment, and so no charge under any id.
        let Some(id) = id else { return };
        let shown: Value = self
            .merchant
            .get(&format!("/v1/payments/{id}"))
            .await
            .json();
        let charge = ledger.only_charge(&id);
        assert_eq!(charge.amount, 1000, "{key}");
        let state = shown["state"].as_str().unwrap_or_default();
        let (captures, cancels, refunds) = (
            ledger.captures_for(&id).len(),
            ledger.cancels_for(&id).len(),
            ledger.refunds_for(&id).len(),
        );
        match name {
            "capture" => assert_eq!(
                (state == "SUCCESS", captures),
                (captures == 1, captures),
                "{key}: {state}"
            ),
            "cancel" => assert_eq!(
                (state == "CANCELED", cancels),
                (cancels == 1, cancels),
                "{key}: {state}"
            ),
            "refunds" => assert_eq!(
                (state == "REFUNDED", refunds),
                (refunds == 1, refunds),
                "{key}: {state}"
            ),
            _ => assert_eq!(state, "SUCCESS", "{key}"),
        }
    }
}

fn server(database: &PgConnectOptions, gateway: &TestGateway, dies_at: Option<&str>) -> Server {
    let failpoints = dies_at
        .map(|step| format!("{step}=return"))
        .unwrap_or_default();
    Server::start(
        database,
        &[
            ("PAYONCE_GATEWAY", "stripe"),
            ("PAYONCE_STRIPE_API_BASE", &gateway.url()),
            ("PAYONCE_STRIPE_SECRET_KEY", SECRET_KEY),
            ("PAYONCE_GATEWAY_TIMEOUT", "2s"),
            ("PAYONCE_LOCK_TIMEOUT", LOCK_TIMEOUT),
            // The dying one must not recover others' work: it would die of that.
            (
                "PAYONCE_RECOVERY_INTERVAL",
                if dies_at.is_some() { "1h" } else { "100ms" },
            ),
            ("FAILPOINTS", &failpoints),
        ],
    )
}

async fn until_final(request: &crate::support::service::Request) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = request.send().await;
        if matches!(answer.status.as_u16(), 200 | 201 | 402) {
            return answer;
        }
        assert!(Instant::now() < deadline, "no final answer: {answer:?}");
    }
}

/// So many tests share the cases, each with a database and a gateway of its own.
const SHARES: usize = 4;

async fn sweep(options: PgPoolOptions, db: PgConnectOptions, share: usize) {
    let pool = options
        .max_connections(2)
        .connect_with(db.clone())
        .await
        .expect("a pool");
    let faults: Vec<Fault> = [Fault::None]
        .into_iter()
        .chain(Fault::CHAOS.iter().copied())
        .chain([Fault::StoredError])
        .collect();
    let mut cases = Vec::new();
    for step in STEPS {
        for operation in 0..OPERATIONS.len() {
            for &fault in &faults {
                // Half of the clients come back.
                cases.push((step, operation, fault, cases.len() % 2 == 0));
            }
        }
    }
    let total = cases.len();
    assert!(total > 200);
    let worker = Worker::start(&db, "acme");
    let (mut ran, mut longest) = (0, Duration::ZERO);
    for (step, operation, fault, returns) in cases.into_iter().skip(share).step_by(SHARES) {
        longest = longest.max(worker.case(&pool, step, operation, fault, returns).await);
        ran += 1;
    }
    let left: (i64, i64) = sqlx::query_as(
        "select (select count(*) from idempotency_keys where state = 'PROCESSING'), \
                (select count(*) from payments where state = 'PROCESSING' or pending_operation is not null)",
    )
    .fetch_one(&pool)
    .await
    .expect("counts");
    assert_eq!(left, (0, 0));
    println!(
        "crash sweep: {ran} of {total} cases; the longest wait of a client that came back: {longest:?}"
    );
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn whatever_dies_there_is_one_charge_0(options: PgPoolOptions, db: PgConnectOptions) {
    sweep(options, db, 0).await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn whatever_dies_there_is_one_charge_1(options: PgPoolOptions, db: PgConnectOptions) {
    sweep(options, db, 1).await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn whatever_dies_there_is_one_charge_2(options: PgPoolOptions, db: PgConnectOptions) {
    sweep(options, db, 2).await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn whatever_dies_there_is_one_charge_3(options: PgPoolOptions, db: PgConnectOptions) {
    sweep(options, db, 3).await;
}
