//! The service as a whole: built in one place, for production and for tests.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Once};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use actix_web::{App, HttpServer, middleware};
use metrics_exporter_prometheus::{BuildError, PrometheusHandle};
use sqlx::PgPool;
use tokio::signal::unix::{SignalKind, signal};

use crate::console::{self, Console};
use crate::database::{self, DatabaseError};
use crate::gateway::{self, Circuit, Gateway, Gateways, SimulatedGateway, StripeGateway};
use crate::http::{self, InFlight, ReadLimiter, Services};
use crate::idempotency::records::SecretsError;
use crate::idempotency::{self, Engine, IdempotencyError, UnfitPool};
use crate::merchants::{Authenticator, RateLimiter};
use crate::mismatches;
use crate::payments::{self, Operation, Payments};
use crate::recovery::Recovery;
use crate::settings::{GatewayKind, GatewaySettings, Settings, StripeSettings};
use crate::telemetry;
use crate::tls::Certificate;

/// How long a stopping service waits for its connections to write answers that are ready.
const LAST_WRITES: Duration = Duration::from_millis(100);

/// Maximum time that a stopping service waits for the requests in flight. It is longer than a call to the gateway may take. An idle
/// service stops at once.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Why the service did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The database cannot be reached, or may lose confirmed commits.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The pool or its database cannot keep the engine's guarantees.
    #[error("the database is not fit for the idempotency engine")]
    Unfit(#[from] UnfitPool),
    /// The address is in use, or is not valid.
    #[error("cannot listen on {address} (PAYONCE_LISTEN)")]
    Listen {
        /// The address in the settings.
        address: String,
        /// Why it cannot be used.
        source: std::io::Error,
    },
    /// The server or its signal handlers failed.
    #[error("the server failed")]
    Server(#[from] std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be offered")]
    Tls(#[from] rustls::Error),
    /// The metrics cannot be recorded.
    #[error("the metrics cannot be recorded")]
    Metrics(#[from] BuildError),
    /// The fingerprints of this database were signed by another secret.
    #[error(
        "PAYONCE_FINGERPRINT_SECRET does not fit this database; use the secret that it was used with before, \
         put that one second to rotate it, or pass --allow-other-fingerprint-secret if it is lost (docs/OPERATIONS.md)"
    )]
    Secrets(#[source] SecretsError),
    /// The database failed while its fingerprint secrets were checked.
    #[error("the database's fingerprint secrets could not be checked")]
    Engine(#[source] IdempotencyError),
    /// The gateway's client cannot be built.
    #[error("the gateway's client cannot be built")]
    Gateway(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<SecretsError> for StartupError {
    fn from(error: SecretsError) -> Self {
        match error {
            SecretsError::Database(error) => Self::Engine(error),
            error => Self::Secrets(error),
        }
    }
}

/// A service that listens, and is ready to serve.
pub struct Application {
    server: Server,
    address: SocketAddr,
    in_flight: InFlight,
    payments: Payments,
    recovery_interval: Duration,
    console: Option<Console>,
    certificate: Option<Arc<Certificate>>,
    metrics: PrometheusHandle,
}

impl Application {
    /// Connects to the database, checks and migrates it, and listens.
    pub async fn build(settings: Settings) -> Result<Self, StartupError> {
        let pool = database::connect(&settings.database).await?;
        database::check_durability(&pool, settings.database.allow_unsafe).await?;
        if settings.migrate {
            database::migrate(&pool).await?;
        } else {
            database::schema_is_current(&pool).await?;
        }
        let gateways = gateways(&settings.gateway, settings.gateway_timeout)?;
        let allow_other_secret = settings.allow_other_secret;
        let application = Self::build_with(pool, gateways, settings).await?;
        if !allow_other_secret {
            check_secrets(application.payments.engine()).await?;
        }
        Ok(application)
    }

    /// Listens, with a database that is ready and with gateways that the caller provides.
    pub async fn build_with(
        pool: PgPool,
        gateways: Gateways,
        settings: Settings,
    ) -> Result<Self, StartupError> {
        // First, because events before there is a recorder are not counted.
        let metrics = described_metrics()?;
        let durability = settings.database.durability();
        let engine = Engine::start(
            pool.clone(),
            settings.idempotency.with_durability(durability),
            &settings.fingerprint_secrets,
        )
        .await?;
        let payments = Payments::new(engine, gateways, settings.gateway_timeout);
        let in_flight = InFlight::default();
        let console = settings
            .console_token
            .as_ref()
            .map(|token| Console::start(payments.clone(), token, settings.cell));
        http::show_cell(settings.cell);
        let services = Data::new(Services {
            payments: payments.clone(),
            authenticator: Authenticator::new(pool.clone()),
            rate_limiter: settings.rate_limit.map(RateLimiter::new),
            read_limiter: ReadLimiter::of(pool.options().get_max_connections()),
            body_timeout: settings.limits.body_timeout,
            card_intake: settings.card_intake,
            pool,
            metrics: metrics.clone(),
        });
        let listen_error = |source| StartupError::Listen {
            address: settings.listen.clone(),
            source,
        };
        let listener = TcpListener::bind(&settings.listen).map_err(listen_error)?;
        let address = listener.local_addr()?;
        close_unread(&listener, settings.limits.unread_timeout)?;
        let counted = Data::new(in_flight.clone());
        let served_console = console.clone();
        let server = HttpServer::new(move || {
            let console = served_console.as_ref();
            App::new()
                .app_data(services.clone())
                .app_data(counted.clone())
                .wrap(middleware::Condition::new(
                    console.is_some(),
                    middleware::from_fn(console::count_traffic),
                ))
                .wrap(middleware::from_fn(http::observe))
                .configure(|config| console::routes(config, console))
                .configure(http::routes)
        })
        .keep_alive(settings.limits.keep_alive)
        .client_request_timeout(settings.limits.head_timeout)
        .max_connections(settings.limits.max_connections)
        .shutdown_timeout(STOP_PATIENCE.as_secs())
        .disable_signals();
        let server = match &settings.certificate {
            Some(certificate) => server.listen_rustls_0_23(listener, certificate.server_config()?),
            None => server.listen(listener),
        }?
        .run();
        Ok(Self {
            server,
            address,
            in_flight,
            payments,
            recovery_interval: settings.recovery_interval,
            console,
            certificate: settings.certificate,
            metrics,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its payments.
    pub fn payments(&self) -> &Payments {
        &self.payments
    }

    /// A handle that stops the server.
    pub fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    /// Serves until SIGTERM or SIGINT. Then it accepts no new connections, and finishes the requests in flight.
    pub async fn run_until_stopped(self) -> Result<(), StartupError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let handle = self.server.handle();
        let recovery = Recovery::new(self.payments.clone()).run(self.recovery_interval);
        let _recovery = AbortOnDrop(tokio::spawn(recovery));
        let upkeep = telemetry::keep_up(self.metrics, telemetry::UPKEEP_INTERVAL);
        let _upkeep = AbortOnDrop(tokio::spawn(upkeep));
        let console = self.console.clone();
        let _console = console.map(|console| AbortOnDrop(tokio::spawn(console.run())));
        let _renewal = renew_on_hangup(self.certificate)?;
        let serving = tokio::spawn(self.server);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = serving => {
                return ended.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(Into::into);
            }
        }
        tracing::info!("stopping: finishing the requests in flight");
        // The server's own stop also waits for idle connections, so it is not awaited here. The requests are.
        let mut stopping = tokio::spawn(handle.stop(true));
        let drained = self.in_flight.drained(STOP_PATIENCE).await;
        let finished = tokio::time::timeout(STOP_PATIENCE, self.payments.engine().finish())
            .await
            .is_ok();
        // The last answers have been handed to their connections, which need a moment to write them.
        let _ = tokio::time::timeout(LAST_WRITES, &mut stopping).await;
        stopping.abort();
        if let Some(console) = &self.console {
            console.finish().await;
        }
        if drained && finished {
            tracing::info!("stopped");
        } else {
            tracing::warn!(
                "stopped with requests in flight; their retries, or recovery, find their outcome"
            );
        }
        Ok(())
    }
}

/// The process's recorder of metrics, with the descriptions of every module.
fn described_metrics() -> Result<PrometheusHandle, BuildError> {
    static DESCRIBED: Once = Once::new();
    let recorder = telemetry::metrics()?;
    DESCRIBED.call_once(|| {
        idempotency::describe_metrics(Operation::ALL.iter().map(|operation| operation.as_str()));
        gateway::describe_metrics();
        payments::describe_metrics();
        mismatches::describe_metrics();
        http::describe_metrics();
        console::describe_metrics();
    });
    Ok(recorder)
}

/// Lets the operating system close a connection whose peer has acknowledged nothing for `timeout` (`TCP_USER_TIMEOUT`, which accepted
/// connections inherit). actix-web has no such limit: answers to a peer that never reads would be kept for ever.
fn close_unread(listener: &TcpListener, timeout: Duration) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(listener).set_tcp_user_timeout(Some(timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = (listener, timeout);
    Ok(())
}

/// Reloads the certificate on SIGHUP. A service without one has nothing to reload, and is not ended either: a reload that an operator
/// asks for must never stop payments.
fn renew_on_hangup(certificate: Option<Arc<Certificate>>) -> std::io::Result<AbortOnDrop> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(AbortOnDrop(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match certificate.as_ref().map(|certificate| certificate.reload()) {
                None => tracing::info!("SIGHUP: there is no certificate to reload"),
                Some(Ok(())) => {
                    tracing::info!("the certificate has been reloaded; new connections get it")
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "the certificate cannot be reloaded: the old certificate stays")
                }
            }
        }
    })))
}

/// A task that is aborted when its owner is dropped.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Checks that our secrets are the ones that signed this database's fingerprints.
async fn check_secrets(engine: &Engine) -> Result<(), StartupError> {
    let retired = engine.register_secrets().await?;
    let lifetime = engine.config().ttl;
    let needed = retired.iter().filter(|secret| secret.is_needed(lifetime));
    for secret in needed {
        tracing::warn!(
            secret_id = secret.id,
            retired_at = ?secret.retired_at,
            "keys that an older secret signed may still be remembered: keep it as the second value of \
             PAYONCE_FINGERPRINT_SECRET for as long as keys are (PAYONCE_KEY_TTL)"
        );
    }
    Ok(())
}

/// The gateways that are set up. Each of their calls takes at most `timeout`.
pub fn gateways(settings: &GatewaySettings, timeout: Duration) -> Result<Gateways, StartupError> {
    let simulated: Arc<dyn Gateway> = Arc::new(SimulatedGateway::new(settings.simulated_latency));
    let stripe = settings
        .stripe
        .as_ref()
        .map(|stripe| stripe_gateway(stripe, timeout))
        .transpose()?;
    match (settings.kind, stripe) {
        (GatewayKind::Simulated, None) => Ok(Gateways::new(simulated)),
        (GatewayKind::Simulated, Some(stripe)) => Ok(Gateways::new(simulated).with(stripe)),
        (GatewayKind::Stripe, Some(stripe)) => Ok(Gateways::new(stripe).with(simulated)),
        (GatewayKind::Stripe, None) => Err(StartupError::Gateway(
            "PAYONCE_GATEWAY is stripe, and PAYONCE_STRIPE_SECRET_KEY is missing".into(),
        )),
    }
}

fn stripe_gateway(
    settings: &StripeSettings,
    timeout: Duration,
) -> Result<Arc<dyn Gateway>, StartupError> {
    // The client times out just before the service stops waiting, so that it can still report what it knows.
    let request_time = timeout.mul_f64(0.9);
    let secret_key = settings.secret_key.clone();
    let gateway = StripeGateway::new(&settings.api_base, secret_key, request_time)
        .map_err(|error| StartupError::Gateway(error.into()))?;
    Ok(Arc::new(Circuit::new(Arc::new(gateway))))
}
