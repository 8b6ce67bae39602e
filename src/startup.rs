//! The service as a whole: built in one place, for production and for tests.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use actix_web::{App, HttpServer, middleware};
use metrics_exporter_prometheus::BuildError;
use secrecy::SecretString;
use sqlx::PgPool;
use tokio::signal::unix::{SignalKind, signal};

use crate::database::{self, DatabaseError, DatabaseSettings};
use crate::gateway::{Circuit, Gateway, SimulatedGateway, StripeGateway};
use crate::http::{self, InFlight, Services};
use crate::idempotency::{Engine, FingerprintSecrets, IdempotencyConfig};
use crate::merchants::Authenticator;
use crate::payments::Payments;
use crate::recovery::Recovery;
use crate::telemetry;

/// How long a stopping service waits for the requests under way. It is longer than the gateway may take, and an idle service
/// stops at once.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// An idle connection is kept for this long: longer than a proxy's pool usually does.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// A client has this long to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the service is made of.
#[derive(Debug)]
pub struct Settings {
    /// Address and port; port 0 picks one.
    pub listen: String,
    /// The database.
    pub database: DatabaseSettings,
    /// Apply pending migrations first; otherwise an older schema is refused.
    pub migrate: bool,
    /// The engine's settings.
    pub idempotency: IdempotencyConfig,
    /// What signs fingerprints.
    pub fingerprint_secrets: FingerprintSecrets,
    /// Who moves the money.
    pub gateway: GatewaySettings,
    /// The longest a request waits for the gateway.
    pub gateway_timeout: Duration,
    /// How often a node looks for work left behind.
    pub recovery_interval: Duration,
}

/// Who moves the money.
#[derive(Debug)]
pub enum GatewaySettings {
    /// Nobody: the simulated gateway, in the process.
    Simulated {
        /// How long it takes to answer.
        latency: Duration,
    },
    /// Stripe, or what speaks like it.
    Stripe {
        /// Where its API is.
        api_base: String,
        /// Its secret key.
        secret_key: SecretString,
    },
}

/// Why the service did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The database is not to be had, or not to be trusted.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The address is taken, or no address.
    #[error("cannot listen on {address} (PAYONCE_LISTEN)")]
    Listen {
        /// As it was given.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server or its signals failed.
    #[error("the server failed")]
    Server(#[from] std::io::Error),
    /// The metrics cannot be recorded.
    #[error("the metrics cannot be recorded")]
    Metrics(#[from] BuildError),
    /// The gateway's client cannot be built.
    #[error("the gateway's client cannot be built")]
    Gateway(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A service that listens, and is about to serve.
pub struct Application {
    server: Server,
    address: SocketAddr,
    in_flight: InFlight,
    payments: Payments,
    recovery_interval: Duration,
}

impl Application {
    /// Connects, checks, migrates and listens.
    pub async fn build(settings: Settings) -> Result<Self, StartupError> {
        let pool = database::connect(&settings.database).await?;
        database::check_durability(&pool, settings.database.allow_unsafe).await?;
        if settings.migrate {
            database::migrate(&pool).await?;
        } else {
            database::schema_is_current(&pool).await?;
        }
        let gateway = gateway(&settings.gateway, settings.gateway_timeout)?;
        Self::build_with(pool, gateway, settings)
    }

    /// Listens, on a database that is ready and with a gateway of the caller's.
    pub fn build_with(
        pool: PgPool,
        gateway: Arc<dyn Gateway>,
        settings: Settings,
    ) -> Result<Self, StartupError> {
        // First: what is counted before there is a recorder is lost.
        let metrics = telemetry::metrics()?;
        let engine = Engine::new(
            pool.clone(),
            settings.idempotency,
            &settings.fingerprint_secrets,
        );
        let payments = Payments::new(engine, gateway, settings.gateway_timeout);
        let in_flight = InFlight::default();
        let services = Data::new(Services {
            payments: payments.clone(),
            authenticator: Authenticator::new(pool.clone()),
            pool,
            metrics,
        });
        let listen_error = |source| StartupError::Listen {
            address: settings.listen.clone(),
            source,
        };
        let listener = TcpListener::bind(&settings.listen).map_err(listen_error)?;
        let address = listener.local_addr()?;
        let counted = Data::new(in_flight.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(services.clone())
                .app_data(counted.clone())
                .wrap(middleware::from_fn(http::observe))
                .configure(http::routes)
        })
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(STOP_PATIENCE.as_secs())
        .disable_signals()
        .listen(listener)?
        .run();
        Ok(Self {
            server,
            address,
            in_flight,
            payments,
            recovery_interval: settings.recovery_interval,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The payments service behind it.
    pub fn payments(&self) -> &Payments {
        &self.payments
    }

    /// Stops the server from outside.
    pub fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    /// Serves until SIGTERM or SIGINT. Then no new connection is taken, and the requests under way end.
    pub async fn run_until_stopped(self) -> Result<(), StartupError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let handle = self.server.handle();
        let recovery = Recovery::new(self.payments.clone()).run(self.recovery_interval);
        let _recovery = AbortOnDrop(tokio::spawn(recovery));
        let serving = tokio::spawn(self.server);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = serving => {
                return ended.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(Into::into);
            }
        }
        tracing::info!("stopping: requests under way end first");
        // Idle connections do not hold the stop up, so its end is not awaited: the requests' is.
        let stopping = tokio::spawn(handle.stop(true));
        let drained = self.in_flight.drained(STOP_PATIENCE).await;
        let finished = tokio::time::timeout(STOP_PATIENCE, self.payments.engine().finish())
            .await
            .is_ok();
        stopping.abort();
        if drained && finished {
            tracing::info!("stopped");
        } else {
            tracing::warn!(
                "stopped with requests under way; their retries, or recovery, find their outcome"
            );
        }
        Ok(())
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The gateway that was chosen; each of its calls takes at most `timeout`.
pub fn gateway(
    settings: &GatewaySettings,
    timeout: Duration,
) -> Result<Arc<dyn Gateway>, StartupError> {
    match settings {
        GatewaySettings::Simulated { latency } => Ok(Arc::new(SimulatedGateway::new(*latency))),
        GatewaySettings::Stripe {
            api_base,
            secret_key,
        } => {
            // It ends by itself, and says what it knows, just before the service stops waiting.
            let request_time = timeout.mul_f64(0.9);
            let gateway = StripeGateway::new(api_base, secret_key.clone(), request_time)
                .map_err(|error| StartupError::Gateway(error.into()))?;
            Ok(Arc::new(Circuit::new(Arc::new(gateway))))
        }
    }
}
