//! The actor of the tests: a shop, its database and one node of the service.

use payonce_engine::{Engine, FingerprintSecrets, IdempotencyConfig};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpStream;

use crate::app::{App, Framework, Gates, Running, SCHEMA};
use crate::client::{self, Call, Reply};

/// A shop with one node.
pub struct Shop {
    /// A handle to the database, for a look behind the scenes.
    pub database: PgPool,
    /// Where its handlers stand still.
    pub gates: Gates,
    /// What the node runs on.
    pub app: App,
    /// The node.
    pub running: Running,
}

/// Starts a node of the service on the database.
pub async fn node<F: Framework>(database: &PgConnectOptions, gates: Gates) -> Running {
    F::start(app(database, gates).await).await
}

async fn app(database: &PgConnectOptions, gates: Gates) -> App {
    let secrets = FingerprintSecrets::new("of the tests");
    let engine = Engine::connect(database.clone(), 5, IdempotencyConfig::default(), &secrets).await;
    let other = PgPoolOptions::new()
        .max_connections(2)
        .connect_lazy_with(database.clone());
    App {
        engine: engine.expect("a fit database"),
        gates,
        other,
    }
}

impl Shop {
    /// Opens the shop.
    pub async fn open<F: Framework>(database: PgConnectOptions) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy_with(database.clone());
        sqlx::raw_sql(SCHEMA)
            .execute(&pool)
            .await
            .expect("the service's own table");
        let gates = Gates::closed();
        let app = app(&database, gates.clone()).await;
        let running = F::start(app.clone()).await;
        Self {
            database: pool,
            gates,
            app,
            running,
        }
    }

    /// A request of the shop `acme`.
    pub fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.running.address, method, path).header("x-shop", "acme")
    }

    /// A POST of it.
    pub fn post(&self, path: &str) -> Call {
        self.call("POST", path)
    }

    /// An order of two pounds of tea.
    pub fn order(&self, key: &str) -> Call {
        self.post("/orders")
            .key(key)
            .json(&json!({"sku": "tea", "quantity": 2}))
    }

    /// A request without a body.
    pub async fn send(&self, path: &str, key: &str) -> Reply {
        self.post(path).key(key).send().await
    }

    /// Hangs up on a request that is under way, and waits until the service has seen it.
    pub async fn hang_up(&self, stream: TcpStream) {
        client::hang_up(stream);
        self.gates.gone().await;
    }

    /// The number of orders.
    pub async fn orders(&self) -> i64 {
        self.count("select count(*) from orders").await
    }

    /// The number of keys that are remembered.
    pub async fn keys(&self) -> i64 {
        self.count("select count(*) from idempotency_keys").await
    }

    /// What a query counts.
    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.database)
            .await
            .expect("a number")
    }

    /// Closes the shop, so that its database can be dropped.
    pub async fn close(self) {
        (self.running.stop)().await;
        self.app.other.close().await;
        self.database.close().await;
    }
}
