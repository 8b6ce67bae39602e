//! A service under test: the production `Application` on its own database, and merchants that send requests to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use payonce::database::{DatabaseSettings, pool_options};
use payonce::gateway::Gateway;
use payonce::http::{CardIntake, Limits};
use payonce::idempotency::{
    Cleaner, CleanupLimits, CleanupReport, FingerprintSecrets, IdempotencyConfig,
};
use payonce::merchants::{Cell, Merchants, RateLimit};
use payonce::payments::Payments;
use payonce::settings::{GatewayKind, GatewaySettings, Settings};
use payonce::startup::Application;
use reqwest::{Client, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::scripted::ScriptedGateway;

/// The settings that a test may change.
pub struct Setup {
    pub idempotency: IdempotencyConfig,
    pub latency: Duration,
    pub secrets: FingerprintSecrets,
    pub connections: u32,
    pub recovery_interval: Duration,
    pub rate_limit: Option<RateLimit>,
    pub limits: Limits,
    pub card_intake: CardIntake,
    pub cell: Option<Cell>,
    pub console_token: Option<SecretString>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            idempotency: IdempotencyConfig::default(),
            latency: Duration::ZERO,
            secrets: FingerprintSecrets::new("a secret of the tests"),
            connections: 20,
            recovery_interval: Duration::from_secs(1),
            rate_limit: None,
            limits: Limits::default(),
            card_intake: CardIntake::On,
            cell: None,
            console_token: None,
        }
    }
}

/// A running service.
pub struct Service {
    pub url: String,
    pub pool: PgPool,
    pub gateway: Arc<ScriptedGateway>,
    pub payments: Payments,
    client: Client,
    database: PgConnectOptions,
    name: String,
}

impl Drop for Service {
    /// Ends the service's sessions: PostgreSQL would wait 5 s for them before it drops the test's database.
    fn drop(&mut self) {
        let (database, name) = (self.database.clone(), self.name.clone());
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let ending = async {
                let mut connection = PgConnection::connect_with(&database).await?;
                sqlx::query(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
                )
                .bind(name)
                .execute(&mut connection)
                .await?;
                connection.close().await
            };
            // Not for ever: a test may have failed while its database was silent.
            let ending = async { tokio::time::timeout(Duration::from_secs(5), ending).await };
            drop(runtime.expect("a runtime").block_on(ending));
        });
        drop(ending.join());
    }
}

impl Service {
    pub async fn start(database: &PgConnectOptions) -> Self {
        Self::start_with(database, Setup::default()).await
    }

    pub async fn start_with(database: &PgConnectOptions, setup: Setup) -> Self {
        let gateway = ScriptedGateway::with_latency(setup.latency, &[]);
        let counted: Arc<dyn Gateway> = gateway.clone();
        let timeout = Duration::from_secs(10);
        let mut service = Self::start_on(database, setup, counted, timeout).await;
        service.gateway = gateway;
        service
    }

    /// On a gateway of the test's own.
    pub async fn start_on(
        database: &PgConnectOptions,
        setup: Setup,
        gateway: Arc<dyn Gateway>,
        gateway_timeout: Duration,
    ) -> Self {
        let name = format!("payonce-test-{}", uuid::Uuid::now_v7());
        let pool = pool_options()
            .max_connections(setup.connections)
            .connect_with(database.clone().application_name(&name))
            .await
            .expect("the test's database");
        let settings = Settings {
            listen: "127.0.0.1:0".to_owned(),
            certificate: None,
            database: DatabaseSettings {
                url: SecretString::from(""),
                max_connections: setup.connections,
                allow_unsafe: false,
            },
            migrate: false,
            allow_other_secret: false,
            idempotency: setup.idempotency,
            fingerprint_secrets: setup.secrets,
            gateway: GatewaySettings {
                kind: GatewayKind::Simulated,
                simulated_latency: setup.latency,
                stripe: None,
            },
            gateway_timeout,
            recovery_interval: setup.recovery_interval,
            rate_limit: setup.rate_limit,
            limits: setup.limits,
            card_intake: setup.card_intake,
            cell: setup.cell,
            console_token: setup.console_token,
        };
        let application = Application::build_with(pool.clone(), gateway.into(), settings)
            .await
            .expect("the service starts");
        let url = format!("http://{}", application.address());
        let payments = application.payments().clone();
        tokio::spawn(application.run_until_stopped());
        Self {
            url,
            pool,
            gateway: ScriptedGateway::new(&[]),
            payments,
            client: client(),
            database: database.clone(),
            name,
        }
    }

    /// A new merchant with its API key.
    pub async fn merchant(&self, id: &str) -> Merchant {
        let created = Merchants::new(self.pool.clone()).create(id, id).await;
        let api_key = created
            .expect("a new merchant")
            .api_key
            .expose_secret()
            .to_owned();
        Merchant {
            url: self.url.clone(),
            api_key,
            client: self.client.clone(),
        }
    }

    pub async fn count(&self, table: &str) -> i64 {
        count(&self.pool, table).await
    }

    /// How many of the service's sessions have done anything since then, by the database's clock. The one that asks counts
    /// as none.
    pub async fn sessions_used_since(&self, then: chrono::DateTime<chrono::Utc>) -> i64 {
        sqlx::query_scalar(
            "select count(*) from pg_stat_activity \
             where application_name = $1 and query_start > $2 and pid <> pg_backend_pid()",
        )
        .bind(&self.name)
        .bind(then)
        .fetch_one(&self.pool)
        .await
        .expect("a count")
    }

    /// Notes the most of the service's sessions that are seen at work at once, for as long as it is polled.
    pub fn watch_sessions(&self, most: Arc<AtomicI64>) -> impl Future<Output = ()> + Send + use<> {
        let (database, name) = (self.database.clone(), self.name.clone());
        async move {
            let mut connection = PgConnection::connect_with(&database)
                .await
                .expect("a connection");
            loop {
                let at_work: i64 = sqlx::query_scalar(
                    "select count(*) from pg_stat_activity where application_name = $1 and state <> 'idle'",
                )
                .bind(&name)
                .fetch_one(&mut connection)
                .await
                .expect("a count");
                most.fetch_max(at_work, Ordering::Relaxed);
            }
        }
    }

    /// Waits until so many claims are not settled.
    pub async fn until_unsettled(&self, claims: i64) {
        until_unsettled(&self.pool, claims).await;
    }

    /// Nothing of a request is left: no key, no payment, no unsettled work.
    pub async fn assert_no_rows(&self, context: &str) {
        for table in ["idempotency_keys", "payments", "refunds", "unsettled_keys"] {
            assert_eq!(self.count(table).await, 0, "{table} after {context}");
        }
    }
}

/// A clean-up within the default limits.
pub async fn clean_up(pool: &PgPool) -> CleanupReport {
    Cleaner::new(pool.clone())
        .run(CleanupLimits::default())
        .await
        .expect("a report")
}

pub async fn count(pool: &PgPool, table: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
        .fetch_one(pool)
        .await
        .expect("a count")
}

/// Waits until so many claims are not settled.
pub async fn until_unsettled(pool: &PgPool, claims: i64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while count(pool, "unsettled_keys").await != claims {
        assert!(
            Instant::now() < deadline,
            "there are never {claims} unsettled claims"
        );
        crate::support::pause().await;
    }
}

/// reqwest is built without a provider of its own.
pub fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder()
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client")
}

/// A merchant's program.
#[derive(Clone)]
pub struct Merchant {
    pub url: String,
    pub api_key: String,
    pub client: Client,
}

impl Merchant {
    /// The same merchant, at another node.
    pub fn at(&self, service: &Service) -> Self {
        Self {
            url: service.url.clone(),
            ..self.clone()
        }
    }

    pub fn pay(&self, amount: &str) -> Request {
        self.post("/v1/payments", payment(amount))
    }

    pub fn post(&self, path: &str, body: Value) -> Request {
        let headers = vec![
            (
                "authorization".to_owned(),
                format!("Bearer {}", self.api_key),
            ),
            ("content-type".to_owned(), "application/json".to_owned()),
        ];
        Request {
            merchant: self.clone(),
            path: path.to_owned(),
            body: body.to_string(),
            headers,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        let request = self
            .client
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.api_key);
        Answer::of(request.send().await.expect("an answer"))
            .await
            .expect("a whole answer")
    }
}

/// API.md's example.
pub fn payment(amount: &str) -> Value {
    json!({
        "amount": amount,
        "currency": "USD",
        "paymentMethod": {"type": "CARD", "details": {
            "cardNumber": "4242424242424242", "cvv": "737", "expiryMonth": "12", "expiryYear": "2031",
            "cardHolderName": "Test User"}},
        "customer": {"id": "c-1", "email": "a@example.com", "name": "A"},
    })
}

/// A POST in the making.
#[derive(Clone)]
pub struct Request {
    merchant: Merchant,
    path: String,
    body: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same request, to another node.
    pub fn at(mut self, url: &str) -> Self {
        self.merchant.url = url.to_owned();
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(have, _)| have != name);
        self
    }

    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    pub fn card(self, number: &str) -> Self {
        let body = self.body.replace("4242424242424242", number);
        self.body(body)
    }

    pub async fn send(&self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    pub async fn try_send(&self) -> reqwest::Result<Answer> {
        let url = format!("{}{}", self.merchant.url, self.path);
        let mut request = self.merchant.client.post(url).body(self.body.clone());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Answer::of(request.send().await?).await
    }
}

/// Sends a request as clients do: again on 503. On a busy machine a request may get no connection in its time. If there is none for
/// anybody, each try is refused.
pub async fn repeated(send: impl AsyncFn() -> Answer) -> Answer {
    const TRIES: usize = 10;
    for _ in 1..TRIES {
        let answer = send().await;
        if answer.status.as_u16() != 503 {
            return answer;
        }
    }
    send().await
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// An error where the server dies in the middle of it.
    async fn of(response: Response) -> reqwest::Result<Self> {
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?.to_vec();
        Ok(Self {
            status,
            headers,
            bytes,
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn replayed(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("JSON")
    }

    pub fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }

    /// This problem, in all that API.md asks of one.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, slug: &str, retry: &str) {
        let body = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{body}"
        );
        let json = self.json();
        assert_eq!(json["code"], slug, "{body}");
        assert_eq!(json["type"], format!("/problems/{slug}"));
        assert_eq!(json["status"], status);
        assert_eq!(json["retry"], retry);
        assert!(json["title"].is_string() && json["detail"].is_string());
        if retry == "same-key" {
            assert!(
                self.header("retry-after").is_some(),
                "{slug} without Retry-After"
            );
        }
    }
}
