//! A model of keys, payments and refunds, and histories of the real service that are checked against it: two nodes on one
//! database, a gateway that fails as the history says, keys that expire, leases that end and nodes that are started again.
//!
//! `make test` runs a fixed number of histories; `MODEL_CASES=500 MODEL_SEED=7` runs others. A failure prints the history.

mod history;
mod spec;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use payonce::gateway::Gateway;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::rows::end_leases;
use crate::support::scripted::{ScriptedGateway, Turn};
use crate::support::service::{Answer, Merchant, Service, Setup, payment};

use self::history::{Op, Step, next_step};
use self::spec::{Expected, Model, PaymentView};

const STEPS: usize = 30;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")),
        _ => default,
    }
}

/// Two nodes on one database and one gateway.
struct World {
    database: PgConnectOptions,
    gateway: Arc<ScriptedGateway>,
    nodes: [Service; 2],
    acme: Merchant,
    pool: PgPool,
}

impl World {
    async fn new(database: PgConnectOptions) -> Self {
        let gateway = ScriptedGateway::new(&[]);
        let nodes = [
            node(&database, &gateway).await,
            node(&database, &gateway).await,
        ];
        let acme = nodes[0].merchant("acme").await;
        let pool = PgPool::connect_with(database.clone())
            .await
            .expect("a pool");
        Self {
            database,
            gateway,
            nodes,
            acme,
            pool,
        }
    }

    /// Another history begins.
    async fn clear(&self) {
        let tables = "truncate refunds, payments, unsettled_keys, idempotency_keys cascade";
        sqlx::raw_sql(tables)
            .execute(&self.pool)
            .await
            .expect("empty tables");
    }

    async fn restart(&mut self, number: usize) {
        self.nodes[number] = node(&self.database, &self.gateway).await;
    }

    async fn send(&self, step: &Step, history: u64) -> Answer {
        let (path, body) = match &step.op {
            Op::Pay { amount, manual } => {
                let mut body = payment(&amount.to_string());
                body["captureMethod"] = json!(if *manual { "MANUAL" } else { "AUTOMATIC" });
                ("/v1/payments".to_owned(), body)
            }
            Op::Capture { of, amount } => {
                let path = format!("/v1/payments/{}/capture", self.id_of(of, history).await);
                (path, json!({"amount": amount.to_string()}))
            }
            Op::Cancel { of } => {
                let path = format!("/v1/payments/{}/cancel", self.id_of(of, history).await);
                (path, json!({}))
            }
            Op::Refund { of, amount } => {
                let path = format!("/v1/payments/{}/refunds", self.id_of(of, history).await);
                (path, json!({"amount": amount.to_string()}))
            }
            Op::Expire | Op::EndLeases | Op::Restart => unreachable!("no request"),
        };
        self.gateway.script(step.turn);
        let request = self
            .acme
            .at(&self.nodes[step.node])
            .post(&path, body)
            .key(&name(&step.key, history))
            .header("prefer", "wait=0");
        request.send().await
    }

    async fn id_of(&self, key: &str, history: u64) -> String {
        sqlx::query_scalar("select payment_id from payments where idempotency_key = $1")
            .bind(name(key, history))
            .fetch_one(&self.pool)
            .await
            .expect("the payment")
    }

    async fn expire(&self) {
        sqlx::query(
            "update idempotency_keys set expires_at = now() - interval '1 second' \
             where state <> 'PROCESSING' \
                 and (key in (select idempotency_key from payments) or key in (select idempotency_key from refunds))",
        )
        .execute(&self.pool)
        .await
        .expect("moved");
    }

    /// All payments, as the database has them.
    async fn payments(&self) -> Vec<(String, PaymentView)> {
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
                let key = key.split('-').next_back().unwrap_or_default().to_owned();
                let view = PaymentView {
                    state,
                    captured: captured / 100,
                    refunded: refunded / 100,
                    refunding: refunding / 100,
                    pending,
                };
                (key, view)
            })
            .collect()
    }

    async fn counts(&self) -> (i64, i64) {
        sqlx::query_as(
            "select (select count(*) from idempotency_keys where state = 'PROCESSING'), \
                    (select count(*) from unsettled_keys)",
        )
        .fetch_one(&self.pool)
        .await
        .expect("the counts")
    }
}

/// The replay caches outlive a history: each has keys of its own.
fn name(key: &str, history: u64) -> String {
    format!("{history}-{key}")
}

async fn node(database: &PgConnectOptions, gateway: &Arc<ScriptedGateway>) -> Service {
    let setup = Setup {
        connections: 5,
        // Only the history decides when a claim is taken over.
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    };
    let shared: Arc<dyn Gateway> = gateway.clone();
    Service::start_on(database, setup, shared, Duration::from_secs(10)).await
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn histories_of_two_nodes_are_the_models(_: PgPoolOptions, database: PgConnectOptions) {
    let (cases, seed) = (number("MODEL_CASES", 16), number("MODEL_SEED", 20_261_126));
    let mut world = World::new(database).await;
    for history in 0..cases {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(history));
        let mut told = format!("MODEL_SEED={} MODEL_CASES=1\n", seed.wrapping_add(history));
        world.clear().await;
        let mut model = Model::default();
        for _ in 0..STEPS {
            let step = next_step(&mut rng, &model);
            check(&mut world, &mut model, &step, history, &mut told).await;
        }
        finish(&mut world, &mut model, history, &mut told).await;
    }
    world.pool.close().await;
}

async fn check(world: &mut World, model: &mut Model, step: &Step, history: u64, told: &mut String) {
    writeln!(told, "{step:?}").expect("a string");
    match step.op {
        Op::Expire => {
            model.expire();
            world.expire().await;
        }
        Op::EndLeases => {
            model.end_leases();
            end_leases(&world.pool).await;
        }
        Op::Restart => world.restart(step.node).await,
        _ => {
            let before = world.gateway.asked().len();
            let answer = world.send(step, history).await;
            let called = world.gateway.asked().len() - before;
            let body = String::from_utf8_lossy(&answer.bytes).into_owned();
            writeln!(told, "    {} {body}", answer.status).expect("a string");
            let expected = model.request(step);
            assert_answer(&answer, &expected, called, told);
            model.remember(step, &answer.bytes);
        }
    }
    assert_eq!(world.payments().await, model.views(), "{told}");
    let processing = model.processing();
    assert_eq!(world.counts().await, (processing, processing), "{told}");
}

fn assert_answer(answer: &Answer, expected: &[Expected], called: usize, told: &str) {
    let fits = |expected: &Expected| {
        expected.status == answer.status.as_u16()
            && expected.replayed == answer.replayed()
            && expected.calls == called
            && expected.code.is_none_or(|code| code == answer.text("code"))
            && expected
                .bytes
                .as_ref()
                .is_none_or(|bytes| *bytes == answer.bytes)
    };
    assert!(
        expected.iter().any(fits),
        "{called} calls; one of {expected:#?} was expected\n{told}"
    );
}

/// Whatever is under way is sent again after its lease, and ends.
async fn finish(world: &mut World, model: &mut Model, history: u64, told: &mut String) {
    for mut step in model.unfinished() {
        step.turn = Turn::Answer;
        let end = Step {
            op: Op::EndLeases,
            ..step.clone()
        };
        check(world, model, &end, history, told).await;
        check(world, model, &step, history, told).await;
    }
    assert_eq!(model.processing(), 0, "{told}");
}
