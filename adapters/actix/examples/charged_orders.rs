//! A service whose `POST /orders` charges a card at another system, once, in two phases: it claims, calls and settles.
//!
//! ```text
//! export DATABASE_URL=postgres://…  # a database of its own: other programs number their migrations alike
//! cargo run -p payonce-actix --example charged_orders        # on port 8082, or on PORT; 0 picks one
//!
//! curl -i http://127.0.0.1:8082/orders -H 'X-Customer: acme' -H 'Idempotency-Key: cart-17' \
//!   -H 'Content-Type: application/json' -d '{"card": "tok_visa", "amount": 1999}'
//! ```
//!
//! The layer is not for this: its one transaction would be open during the call, and a crash after the call would undo the record
//! of it. Here the claim is committed before the call. Whatever dies after it, the repeat or the recovery takes the claim over, and
//! makes the same call under the same name, the order's id: the other system answers for the charge that it made. A card that is
//! declined (`tok_declined`) is an outcome and is replayed. A call of which nothing is known (`tok_timeout`) is answered by 409
//! with `Retry-After`, and made again under the same name.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::web::{self, Data, Json, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use payonce_actix::payonce_engine::{
    self, Engine, Fence, FingerprintSecrets, Gate, IdempotencyConfig, IdempotencyError, Outcome,
    Permit, Plan, Recovered, Recovery, Resume, ScopedKey, Settled, StoredResponse, Transaction,
    Wait, database::pool_options,
};
use payonce_actix::{Key, Refusal, Reply, respond};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// Part of each key's scope, and how the recovery knows its claims.
const OPERATION: &str = "charge_order";

fn app(orders: &Orders, routes: &mut ServiceConfig) {
    routes
        .app_data(Data::new(orders.clone()))
        .route("/orders", web::post().to(create_order));
}

/// What it serialises to is what the fingerprint covers.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    /// The card's token, as the other system gave it to the client.
    card: String,
    /// In cents.
    amount: i64,
}

async fn create_order(
    orders: Data<Orders>,
    request: HttpRequest,
    Key(key): Key,
    Json(order): Json<NewOrder>,
) -> HttpResponse {
    // In place of whoever was authenticated. A client must not be able to choose it.
    let customer = request.headers().get("x-customer");
    let placed = match customer.and_then(|name| name.to_str().ok()) {
        Some(customer) => {
            let key = ScopedKey::new(customer, OPERATION, key);
            orders.place(key, order).await
        }
        None => Err(Refusal::OwnerUnknown),
    };
    respond(placed.unwrap_or_else(|refusal| refusal.problem()))
}

#[derive(Clone)]
struct Orders {
    engine: Engine,
    cards: Cards,
}

impl Orders {
    async fn place(&self, key: ScopedKey, order: NewOrder) -> Result<Reply, Refusal> {
        if order.amount <= 0 {
            // Refused before the claim: nothing is stored, and the key is still good.
            return Ok(Reply {
                status: 422,
                headers: Vec::new(),
                body: "amount must be at least 1".into(),
            });
        }
        let (customer, request) = (key.merchant_id.clone(), order.clone());
        // The first commit: the key, and the order as it is to be charged.
        let plan = async move |mut tx: Transaction| {
            let id = Uuid::now_v7();
            sqlx::query(
                "insert into orders (order_id, customer, card, amount) values ($1, $2, $3, $4)",
            )
            .bind(id)
            .bind(customer)
            .bind(order.card)
            .bind(order.amount)
            .execute(&mut *tx)
            .await?;
            let resource_id = id.to_string();
            Ok::<_, sqlx::Error>(Plan::Call {
                resource_id,
                work: (),
            })
        };
        let gate = self
            .engine
            .claim(&key, &request, Wait::Configured, plan)
            .await?;
        let permit = match gate {
            Gate::Claimed { permit, .. } | Gate::TakenOver(permit) => permit,
            Gate::Answered(answer) => return Ok(answer.into()),
            Gate::InProgress { retry_after } => return Err(Refusal::InProgress { retry_after }),
            Gate::Mismatch(mismatch) => {
                return Err(Refusal::Mismatch {
                    changed: mismatch.changed,
                });
            }
            Gate::Expired { .. } => return Err(Refusal::Expired),
        };
        // In a task that a client who hangs up does not end.
        let orders = self.clone();
        let settled = self
            .engine
            .run(async move { orders.charge(permit).await })
            .await?;
        match settled? {
            Some(Settled::Stored(answer) | Settled::Lost(Some(answer))) => Ok(answer.into()),
            // Recovery continues it, or a repeat of the request does.
            Some(Settled::Lost(None)) | None => Err(Refusal::InProgress {
                retry_after: Duration::from_secs(1),
            }),
        }
    }

    /// Makes the call of a claim and settles it: for the first request, a repeat that took the claim over, and recovery. Returns
    /// `None` while the outcome of the call is not known.
    async fn charge(&self, permit: Permit) -> Result<Option<Settled>, IdempotencyError> {
        // What was claimed, rather than what a repeat carries: the other system refuses another call under the same name.
        let id = permit.resource_id().to_owned();
        let (card, amount): (String, i64) =
            sqlx::query_as("select card, amount from orders where order_id = $1::uuid")
                .bind(&id)
                .fetch_one(self.engine.pool())
                .await?;
        // This process may have stood still for so long that another one has taken the claim over.
        if self.engine.fence(&permit).await? == Fence::Lost {
            return self.engine.give_way(permit).await.map(Some);
        }
        // No transaction is open here.
        let charge_id = match self.cards.charge(&id, &card, amount).await {
            Charge::Made(charge_id) => Some(charge_id),
            Charge::Declined => None,
            Charge::Unknown => return Ok(None),
        };
        // The second commit: the order's outcome, and the answer. It may run again if the database was lost.
        let settle = move |mut tx: Transaction| {
            let (id, charge_id) = (id.clone(), charge_id.clone());
            async move {
                sqlx::query(
                    "update orders set state = $2, charge_id = $3 where order_id = $1::uuid",
                )
                .bind(&id)
                .bind(if charge_id.is_some() {
                    "PAID"
                } else {
                    "DECLINED"
                })
                .bind(&charge_id)
                .execute(&mut *tx)
                .await?;
                let outcome = match charge_id {
                    Some(charge) => Outcome::Completed(StoredResponse::json(
                        201,
                        &json!({"id": id, "charge": charge}),
                    )?),
                    None => Outcome::Failed(StoredResponse::json(
                        402,
                        &json!({"id": id, "code": "card-declined"}),
                    )?),
                };
                Ok::<_, Box<dyn Error + Send + Sync>>(outcome)
            }
        };
        self.engine.settle(permit, settle).await.map(Some)
    }
}

/// What a dead process left behind is resumed without its client.
impl Resume for Orders {
    fn operations(&self) -> &[&'static str] {
        &[OPERATION]
    }

    async fn resume(&self, permit: Permit) -> Recovered {
        match self.charge(permit).await {
            Ok(Some(_)) => Recovered::Resolved,
            Ok(None) => Recovered::Unknown,
            Err(error) => {
                eprintln!("charged_orders: {error}");
                Recovered::Failed
            }
        }
    }
}

/// In place of a client of the other system. Like Stripe and its like, that one answers a call under a name that it knows with what the
/// first call under it did.
#[derive(Clone, Default)]
struct Cards(Arc<Mutex<HashMap<String, String>>>);

enum Charge {
    Made(String),
    Declined,
    /// No answer came: it may have been made.
    Unknown,
}

impl Cards {
    async fn charge(&self, name: &str, card: &str, _amount: i64) -> Charge {
        if card == "tok_declined" {
            return Charge::Declined;
        }
        let mut charges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !charges.contains_key(name);
        let charge = charges
            .entry(name.to_owned())
            .or_insert_with(|| format!("ch_{}", Uuid::now_v7()));
        if card == "tok_timeout" && is_first {
            return Charge::Unknown;
        }
        Charge::Made(charge.clone())
    }
}

// tokio's own runtime rather than `actix_web::main`: the engine's tasks run in the one in which it is started, and this one has a
// thread for each core.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = std::env::var("DATABASE_URL")?.parse()?;
    let pool = pool_options().connect_with(database).await?;
    payonce_engine::migrate(&pool).await?;
    sqlx::migrate!("examples/charged_migrations")
        .run(&pool)
        .await?;
    // All processes of a service have the same.
    let secret = std::env::var("ORDERS_FINGERPRINT_SECRET")
        .unwrap_or_else(|_| "for development only".to_owned());
    let secrets = FingerprintSecrets::new(secret);
    let engine = Engine::start(pool, IdempotencyConfig::default(), &secrets).await?;
    let cards = Cards::default();
    let orders = Orders {
        engine: engine.clone(),
        cards,
    };
    // Each process has one; they do not get into each other's way.
    tokio::spawn(Recovery::new(engine.clone(), orders.clone()).run(Duration::from_secs(1)));

    let port = std::env::var("PORT").unwrap_or_else(|_| "8082".to_owned());
    let server = HttpServer::new(move || App::new().configure(|routes| app(&orders, routes)))
        .bind(format!("127.0.0.1:{port}"))?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    server.run().await?;
    // A call whose client has hung up may still be under way.
    engine.finish().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "it is all tests")]

    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::web::Bytes;
    use sqlx::PgPool;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    use super::*;

    /// The service on a test's own database, as `main` makes it.
    async fn orders(database: PgConnectOptions) -> Orders {
        let pool = pool_options()
            .max_connections(2)
            .connect_with(database)
            .await
            .expect("a pool");
        payonce_engine::migrate(&pool)
            .await
            .expect("the engine's tables");
        let secrets = FingerprintSecrets::new("of the tests");
        let engine = Engine::start(pool, IdempotencyConfig::default(), &secrets)
            .await
            .expect("a fit pool");
        Orders {
            engine,
            cards: Cards::default(),
        }
    }

    impl Orders {
        async fn post(&self, key: &str, card: &str) -> (u16, bool, Bytes) {
            let request = TestRequest::post()
                .uri("/orders")
                .insert_header(("x-customer", "acme"))
                .insert_header(("idempotency-key", key))
                .set_json(json!({"card": card, "amount": 1999}));
            let service = init_service(App::new().configure(|routes| app(self, routes))).await;
            let response = call_service(&service, request.to_request()).await;
            let replayed = response.headers().contains_key("idempotent-replayed");
            let status = response.status().as_u16();
            let body = read_body(response).await;
            (status, replayed, body)
        }

        fn charges(&self) -> usize {
            self.cards.0.lock().expect("it").len()
        }

        async fn states(&self) -> Vec<String> {
            let pool: &PgPool = self.engine.pool();
            sqlx::query_scalar("select state from orders")
                .fetch_all(pool)
                .await
                .expect("orders")
        }

        /// As after the time that a silent owner has.
        async fn end_leases(&self) {
            let end = "update idempotency_keys set lease_expires_at = now() - interval '1 second' where state = 'PROCESSING'";
            sqlx::query(end)
                .execute(self.engine.pool())
                .await
                .expect("ended");
        }

        async fn close(self) {
            self.engine.finish().await;
            self.engine.pool().close().await;
        }
    }

    #[sqlx::test(migrations = "examples/charged_migrations")]
    async fn a_card_is_charged_once(_: PgPoolOptions, database: PgConnectOptions) {
        let orders = orders(database).await;
        let (status, replayed, body) = orders.post("k", "tok_visa").await;
        assert_eq!((status, replayed), (201, false));
        assert_eq!(orders.post("k", "tok_visa").await, (201, true, body));
        assert_eq!(orders.post("k", "tok_other").await.0, 422);
        assert_eq!(orders.charges(), 1);
        assert_eq!(orders.states().await, ["PAID"]);
        orders.close().await;
    }

    #[sqlx::test(migrations = "examples/charged_migrations")]
    async fn a_declined_card_is_an_outcome(_: PgPoolOptions, database: PgConnectOptions) {
        let orders = orders(database).await;
        let (status, _, body) = orders.post("k", "tok_declined").await;
        assert_eq!(status, 402);
        assert_eq!(orders.post("k", "tok_declined").await, (402, true, body));
        assert_eq!(
            (orders.charges(), orders.states().await),
            (0, vec!["DECLINED".to_owned()])
        );
        orders.close().await;
    }

    /// The charge was made, and nobody heard of it: as where the process dies before it settles.
    #[sqlx::test(migrations = "examples/charged_migrations")]
    async fn the_recovery_settles_what_was_charged(_: PgPoolOptions, database: PgConnectOptions) {
        let orders = orders(database).await;
        assert_eq!(orders.post("k", "tok_timeout").await.0, 409);
        assert_eq!(
            (orders.charges(), orders.states().await),
            (1, vec!["PAYING".to_owned()])
        );
        orders.end_leases().await;
        let mut recovery = Recovery::new(orders.engine.clone(), orders.clone());
        assert_eq!(recovery.run_once().await.expect("a pass").resolved, 1);
        assert_eq!(
            (orders.charges(), orders.states().await),
            (1, vec!["PAID".to_owned()])
        );
        let (status, replayed, _) = orders.post("k", "tok_timeout").await;
        assert_eq!((status, replayed), (201, true));
        orders.close().await;
    }

    /// The client comes back before the recovery.
    #[sqlx::test(migrations = "examples/charged_migrations")]
    async fn a_repeat_takes_over_what_was_charged(_: PgPoolOptions, database: PgConnectOptions) {
        let orders = orders(database).await;
        assert_eq!(orders.post("k", "tok_timeout").await.0, 409);
        orders.end_leases().await;
        assert_eq!(orders.post("k", "tok_timeout").await.0, 201);
        assert_eq!(
            (orders.charges(), orders.states().await),
            (1, vec!["PAID".to_owned()])
        );
        orders.close().await;
    }
}
