//! The service that each framework has for the tests.
//!
//! | route | layer's rules | handler |
//! | --- | --- | --- |
//! | `POST /orders` | `unsigned_field("sent_at")`, `sign_header("x-currency")` | takes the order from JSON, inserts it, 201 with `location` |
//! | `GET`, `HEAD`, `OPTIONS /orders` | the same layer | 200, the number of such requests so far |
//! | `POST /customers/{customer}/orders` | | `Path`, `Tx`, `Key`, then JSON; 201, `{"customer", "key", "sku"}` |
//! | `POST /answers/{status}` | | inserts an order, answers this status, `location: /elsewhere`, body `{"id": …}` |
//! | `POST /panics` | | inserts an order and panics |
//! | `POST /streams/{kibibytes}` | `max_answer(4096)` | inserts an order, streams so many pieces of 1 KiB |
//! | `POST /headers` | `keep_headers(["x-kept"])` | inserts an order, 200 with `x-kept: 1` and `x-dropped: 1` |
//! | `POST /odd-header` | | inserts an order, 200 with a header whose value is the byte 0xe9 |
//! | `POST /held` | `wait(0)` | inserts an order, then [`Gates::pass`], 201 |
//! | `POST /large` | `max_body(11 MiB)` | takes the body's bytes, inserts an order, 201, their number |
//! | `POST /optional` | `key_optional()` | inserts an order; 201, or 409 where the body is `no` |
//! | `POST /brief` | `ttl(1 h)` | inserts an order, 201 |
//! | `POST /own-form` | own refusals: 418 with the code as text | inserts an order, 201 |
//! | `POST /swallows` | `key_optional()` | inserts an order, runs a query that fails, 201 |
//! | `POST /keeps` | | gives its `Tx` to a task that holds it until [`Gates::pass`], 201 |
//! | `POST /bare` | no layer | takes `Tx` |
//! | `POST /twice` | | takes `Tx` twice |
//! | `POST /nested` | a layer around another service that has one | inserts an order, 201 |
//! | `POST /second-connection` | `timeout(300 ms)` | inserts an order by [`insert_order`], then [`App::wait_for_own_key`] |
//! | `POST /savepoint` | | inserts an order in a savepoint and undoes it, inserts another, 201 |
//!
//! The operation is the route's first segment; the owner is the header `x-shop`. Around all of it is a middleware that holds
//! [`Gates::presence`] for as long as a request is under way.

use std::any::Any;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use payonce_engine::{Engine, failpoints};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// The service's own table.
pub const SCHEMA: &str = "create table orders (id uuid primary key, shop text not null, sku text not null, quantity integer not null)";

/// What the service runs on.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// Where handlers stand still until the test lets them go on.
    pub gates: Gates,
    /// Connections without time-outs, which a handler should not use.
    pub other: PgPool,
}

/// What a panic said.
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
    text.expect("a panic with a message")
}

/// A framework under test.
pub trait Framework {
    /// Starts the service on a port that is free.
    fn start(app: App) -> impl Future<Output = Running>;

    /// Starts a service with a layer around a layer on the same route. It does not start; returns what it says.
    fn start_nested(app: App) -> impl Future<Output = String>;
}

/// A service that runs.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    /// Stops it as the adapter's documentation says.
    pub stop: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
}

/// Where handlers stand still, and what the test learns of them.
#[derive(Clone)]
pub struct Gates(Arc<Inner>);

struct Inner {
    entered: Semaphore,
    open: Semaphore,
    gone: Semaphore,
    reads: AtomicUsize,
}

impl Gates {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Inner {
            entered: Semaphore::new(0),
            open: Semaphore::new(0),
            gone: Semaphore::new(0),
            reads: AtomicUsize::new(0),
        }))
    }

    /// A handler says that it is here, and waits for the test.
    pub async fn pass(&self) {
        self.0.entered.add_permits(1);
        take(&self.0.open).await;
    }

    /// The test waits for a handler to be here.
    pub async fn entered(&self) {
        take(&self.0.entered).await;
    }

    /// The test lets one handler go on.
    pub fn open(&self) {
        self.0.open.add_permits(1);
    }

    /// Held while a request is under way for its client.
    pub fn presence(&self) -> Presence {
        Presence(self.clone())
    }

    /// The test waits for the end of a request, answered or hung up.
    pub async fn gone(&self) {
        take(&self.0.gone).await;
    }

    /// Counts a request that reads.
    pub fn count_read(&self) -> usize {
        self.0.reads.fetch_add(1, Ordering::Relaxed) + 1
    }
}

async fn take(semaphore: &Semaphore) {
    semaphore
        .acquire()
        .await
        .expect("it is never closed")
        .forget();
}

/// See [`Gates::presence`].
pub struct Presence(Gates);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.0.gone.add_permits(1);
    }
}

/// Inserts an order. A process may die before (`handler-began`) and after it (`handler-wrote`).
///
/// # Errors
///
/// The database's.
pub async fn insert_order(
    connection: &mut PgConnection,
    sku: &str,
    quantity: i32,
) -> sqlx::Result<Uuid> {
    failpoints::reach("handler-began");
    let id = Uuid::now_v7();
    sqlx::query("insert into orders (id, shop, sku, quantity) values ($1, 'a shop', $2, $3)")
        .bind(id)
        .bind(sku)
        .bind(quantity)
        .execute(connection)
        .await?;
    failpoints::reach("handler-wrote");
    Ok(id)
}

/// Inserts an order in a savepoint, undoes it, and inserts another.
///
/// # Errors
///
/// The database's.
pub async fn insert_by_savepoint(connection: &mut PgConnection) -> sqlx::Result<()> {
    let mut savepoint = connection.begin().await?;
    insert_order(&mut savepoint, "undone", 1).await?;
    savepoint.rollback().await?;
    insert_order(connection, "kept", 1).await?;
    Ok(())
}

impl App {
    /// What a handler must not do: it waits on another connection for the key that its own transaction holds.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn wait_for_own_key(&self) -> sqlx::Result<()> {
        let mut transaction = self.other.begin().await?;
        sqlx::query(
            "insert into idempotency_keys
                 (merchant_id, operation, key, fingerprint, fingerprint_version, fingerprint_fields, state, attempt, owner,
                  lease_expires_at, created_at, expires_at)
             values ('acme', 'second-connection', 'k', sha256('x'), 2, '', 'PROCESSING', 1, gen_random_uuid(), now(), now(),
                  now() + interval '1 day')",
        )
        .execute(&mut *transaction)
        .await?;
        transaction.rollback().await
    }
}
