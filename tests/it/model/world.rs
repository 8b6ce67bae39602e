//! The real service: two nodes on one database and one gateway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use payonce::gateway::Gateway;
use payonce::idempotency::IdempotencyConfig;
use payonce::recovery::Recovery;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Postgres, Transaction};
use tokio::task::JoinHandle;

use crate::support::pause;
use crate::support::rows::end_leases;
use crate::support::service::{Answer, Merchant, Service, Setup, clean_up, payment};

use super::gateway::{Gate, GatedGateway, Turn};
use super::history::{Op, Request};
use super::spec::{KeyView, PaymentView};

/// Longer than any history: only the history ends leases and waits.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Shorter than a session's `lock_timeout`.
const SLOW: Duration = Duration::from_secs(2);

/// A request whose call is held at the gateway.
struct Held {
    answer: JoinHandle<Answer>,
    gate: Gate,
}

pub struct World {
    database: PgConnectOptions,
    gateway: Arc<GatedGateway>,
    nodes: [Service; 2],
    acme: Merchant,
    pool: PgPool,
    held: [Option<Held>; 2],
    /// The number of the history. The nodes' memory outlives a history, so each history has its own keys.
    history: u64,
}

impl World {
    pub async fn new(database: PgConnectOptions) -> Self {
        let gateway = GatedGateway::new();
        let nodes = [
            node(&database, &gateway).await,
            node(&database, &gateway).await,
        ];
        let mut acme = nodes[0].merchant("acme").await;
        // A held request is waited for as long as its gate is closed.
        acme.client = reqwest::Client::new();
        let pool = PgPool::connect_with(database.clone())
            .await
            .expect("a pool");
        Self {
            database,
            gateway,
            nodes,
            acme,
            pool,
            held: [None, None],
            history: 0,
        }
    }

    /// Begins another history, after releasing the calls that the last one left at the gateway.
    pub async fn clear(&mut self) {
        for node in 0..2 {
            if self.held[node].is_some() {
                self.open(node, Turn::Unknown).await;
            }
        }
        let tables = "truncate refunds, payments, unsettled_keys, idempotency_keys cascade";
        sqlx::raw_sql(tables)
            .execute(&self.pool)
            .await
            .expect("empty tables");
        self.history += 1;
    }

    pub async fn close(self) {
        self.pool.close().await;
    }

    pub fn calls(&self) -> usize {
        self.gateway.calls()
    }

    pub async fn restart(&mut self, number: usize) {
        self.nodes[number] = node(&self.database, &self.gateway).await;
    }

    pub async fn send(&self, request: &Request, node: usize, turn: Turn) -> Answer {
        self.gateway.set(Some(turn));
        self.begin(request, node).await.await.expect("an answer")
    }

    /// Sends a request whose call, if it makes one, is held. Returns the answer where there is one without a call.
    pub async fn hold(&mut self, request: &Request, node: usize) -> Option<Answer> {
        self.gateway.set(None);
        let before = self.gateway.calls();
        let mut answer = self.begin(request, node).await;
        tokio::select! {
            answer = &mut answer => Some(answer.expect("an answer")),
            gate = self.gateway.held_after(before) => {
                self.held[node] = Some(Held { answer, gate });
                None
            }
        }
    }

    /// Answers a node's call at the gateway.
    pub async fn open(&mut self, node: usize, turn: Turn) -> Answer {
        let Held { answer, gate } = self.held[node].take().expect("a held call");
        gate.send(turn).expect("it is waited for");
        answer.await.expect("an answer")
    }

    /// Sends a request to both nodes while a transaction keeps both from writing, until both wait for it or have their answer.
    /// Returns true if it took so long that a wait may have ended before.
    pub async fn race(&self, request: &Request, turn: Turn) -> ([Answer; 2], bool) {
        self.gateway.set(Some(turn));
        let gate = self.closed_gate(request).await;
        let began = Instant::now();
        let answers = [self.begin(request, 0).await, self.begin(request, 1).await];
        loop {
            let answered = answers.iter().filter(|answer| answer.is_finished()).count();
            if answered + self.waiting().await >= answers.len() {
                break;
            }
            pause().await;
        }
        gate.rollback().await.expect("the gate is open");
        let was_slow = began.elapsed() > SLOW;
        let [here, there] = answers;
        let answers = [
            here.await.expect("an answer"),
            there.await.expect("an answer"),
        ];
        (answers, was_slow)
    }

    /// Nobody writes the key while it lives. A row that is there can be held by itself, so that a take-over comes as far as it.
    async fn closed_gate(&self, request: &Request) -> Transaction<'static, Postgres> {
        let mut gate = self.pool.begin().await.expect("a transaction");
        let row = sqlx::query("select from idempotency_keys where key = $1 for update")
            .bind(self.name(&request.key))
            .fetch_optional(&mut *gate)
            .await
            .expect("the row");
        if row.is_none() {
            sqlx::query("lock table idempotency_keys in share mode")
                .execute(&mut *gate)
                .await
                .expect("the table");
        }
        gate
    }

    /// How many sessions wait for a lock.
    async fn waiting(&self) -> usize {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity \
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&self.pool)
        .await
        .expect("the sessions");
        usize::try_from(waiting).expect("a few")
    }

    pub async fn recover(&self, node: usize, turn: Turn) {
        self.gateway.set(Some(turn));
        let mut recovery = Recovery::new(self.nodes[node].payments.clone());
        recovery.run_once().await.expect("a pass");
    }

    /// Returns how many keys it deleted.
    pub async fn clean_up(&self, node: usize) -> u64 {
        let engine = self.nodes[node].payments.engine();
        clean_up(engine.pool()).await.deleted
    }

    pub async fn end_leases(&self) {
        end_leases(&self.pool).await;
    }

    pub async fn expire(&self, with_unfinished: bool) {
        sqlx::query(
            "update idempotency_keys set expires_at = now() - interval '1 second' \
             where $1 or state <> 'PROCESSING'",
        )
        .bind(with_unfinished)
        .execute(&self.pool)
        .await
        .expect("moved");
    }

    async fn begin(&self, request: &Request, node: usize) -> JoinHandle<Answer> {
        let path = match request.op.of() {
            None => "/v1/payments".to_owned(),
            Some(of) => format!("/v1/payments/{}", self.id_of(of).await),
        };
        let amount = |amount: &i64| json!({"amount": amount.to_string()});
        let (path, body) = match &request.op {
            Op::Pay { amount, manual } => {
                let mut body = payment(&amount.to_string());
                body["captureMethod"] = json!(if *manual { "MANUAL" } else { "AUTOMATIC" });
                (path, body)
            }
            Op::Capture { amount: asked, .. } => (path + "/capture", amount(asked)),
            Op::Cancel { .. } => (path + "/cancel", json!({})),
            Op::Refund { amount: asked, .. } => (path + "/refunds", amount(asked)),
        };
        let request = self
            .acme
            .at(&self.nodes[node])
            .post(&path, body)
            .key(&self.name(&request.key))
            .header("prefer", "wait=0");
        tokio::spawn(async move { request.send().await })
    }

    async fn id_of(&self, key: &str) -> String {
        sqlx::query_scalar("select payment_id from payments where idempotency_key = $1")
            .bind(self.name(key))
            .fetch_one(&self.pool)
            .await
            .expect("the payment")
    }

    fn name(&self, key: &str) -> String {
        format!("{}-{key}", self.history)
    }

    /// All payments, as the database has them.
    pub async fn payments(&self) -> Vec<(String, PaymentView)> {
        type Row = (String, String, i64, i64, i64, bool);
        let rows: Vec<Row> = sqlx::query_as(
            "select idempotency_key, state, amount_captured_minor, amount_refunded_minor, amount_refunding_minor, \
             pending_operation is not null from payments order by idempotency_key",
        )
        .fetch_all(&self.pool)
        .await
        .expect("the payments");
        rows.into_iter()
            .map(|(key, state, captured, refunded, refunding, pending)| {
                let view = PaymentView {
                    state,
                    captured: captured / 100,
                    refunded: refunded / 100,
                    refunding: refunding / 100,
                    pending,
                };
                (short(&key), view)
            })
            .collect()
    }

    /// All keys, as the database has them.
    pub async fn keys(&self) -> Vec<(String, KeyView)> {
        let rows: Vec<(String, bool, i32, Option<i16>)> = sqlx::query_as(
            "select key, state = 'PROCESSING', attempt, response_status from idempotency_keys order by key",
        )
        .fetch_all(&self.pool)
        .await
        .expect("the keys");
        rows.into_iter()
            .map(|(key, is_processing, attempt, status)| {
                let view = KeyView {
                    is_processing,
                    attempt,
                    status: status.map(|status| u16::try_from(status).expect("a status")),
                };
                (short(&key), view)
            })
            .collect()
    }

    pub async fn unsettled(&self) -> usize {
        let unsettled: i64 = sqlx::query_scalar("select count(*) from unsettled_keys")
            .fetch_one(&self.pool)
            .await
            .expect("a count");
        usize::try_from(unsettled).expect("a few")
    }
}

/// Without the history's number.
fn short(key: &str) -> String {
    key.split('-').next_back().unwrap_or_default().to_owned()
}

async fn node(database: &PgConnectOptions, gateway: &Arc<GatedGateway>) -> Service {
    let setup = Setup {
        connections: 5,
        recovery_interval: FOR_EVER,
        idempotency: IdempotencyConfig::default().with_lock_timeout(FOR_EVER),
        ..Setup::default()
    };
    let shared: Arc<dyn Gateway> = gateway.clone();
    Service::start_on(database, setup, shared, FOR_EVER).await
}
