//! The programs' settings, as flags and environment variables. The doc comments of the fields are the help text.
//!
//! A flag takes precedence over its variable; an empty variable counts as unset (see [`crate::cli`]).
//!
//! One file per aspect: `server`, `database`, `cell`, `idempotency`, `gateway`, `limits`, `console`, `telemetry`; `value` has the parsers
//! of single values. [`ServeArgs`] puts them together into the [`Settings`] of a service.

mod cell;
mod console;
mod database;
mod gateway;
mod idempotency;
mod limits;
mod server;
mod telemetry;
mod value;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

pub use self::cell::CellArgs;
pub use self::console::ConsoleArgs;
pub use self::database::DatabaseArgs;
pub use self::gateway::{GatewayArgs, NoStripeSecretKey};
pub use self::idempotency::{IdempotencyArgs, NoFingerprintSecret, SecretRotation};
pub use self::limits::{BurstWithoutLimit, RateLimitArgs};
pub use self::server::{ServerArgs, TlsArgs, TlsArgsError};
pub use self::telemetry::LogArgs;
pub use self::value::Refused;
pub(crate) use self::value::{is_example, positive_duration, secret};
use crate::http::{CardIntake, Limits};
use crate::idempotency::IdempotencyConfig;
use crate::settings::Settings;

/// Each setting is valid by itself, but their combination is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub enum ConfigError {
    /// Stripe is chosen, and its key is missing.
    Gateway(#[from] NoStripeSecretKey),
    /// Certificate or key are incomplete, or cannot be used.
    Tls(#[from] TlsArgsError),
    /// No secret signs fingerprints.
    Idempotency(#[from] NoFingerprintSecret),
    /// A burst is set, and no rate that it belongs to.
    Limits(#[from] BurstWithoutLimit),
}

/// All settings of the service.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub idempotency: IdempotencyArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// Whether clients may send card numbers. If off, only the gateway's tokens are accepted.
    #[arg(long, env = "PAYONCE_CARD_INTAKE", value_enum, default_value_t = CardIntake::On)]
    pub card_intake: CardIntake,
    /// How often a node looks for unfinished work that other processes left behind.
    #[arg(
        long,
        env = "PAYONCE_RECOVERY_INTERVAL",
        value_name = "DURATION",
        default_value = "1s"
    )]
    #[arg(value_parser = positive_duration)]
    pub recovery_interval: Duration,
    #[command(flatten)]
    pub rate_limit: RateLimitArgs,
    /// Maximum number of connections to the database.
    #[arg(long, env = "PAYONCE_DATABASE_MAX_CONNECTIONS", value_name = "COUNT")]
    #[arg(default_value_t = 20)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000))]
    pub database_max_connections: u32,
    #[command(flatten)]
    pub cell: CellArgs,
    #[command(flatten)]
    pub console: ConsoleArgs,
    #[command(flatten)]
    pub log: LogArgs,
    /// Do not migrate the schema. The service refuses to start on a schema that is older than the program.
    #[arg(long)]
    pub no_migrate: bool,
    /// Start even if this database's keys were signed with other fingerprint secrets. A repeated request whose key they signed is
    /// answered 503 until the key is forgotten.
    #[arg(long)]
    pub allow_other_fingerprint_secret: bool,
}

impl ServeArgs {
    /// The engine's configuration.
    pub fn idempotency(&self) -> IdempotencyConfig {
        self.idempotency.config()
    }

    /// The settings that the service is started with.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if settings that are each valid do not fit together.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        Ok(Settings {
            listen: self.server.listen.clone(),
            certificate: self.server.tls.certificate()?.map(Arc::new),
            database: self.database.settings(self.database_max_connections),
            migrate: !self.no_migrate,
            allow_other_secret: self.allow_other_fingerprint_secret,
            idempotency: self.idempotency(),
            fingerprint_secrets: self.idempotency.fingerprint_secrets()?,
            gateway: self.gateway.settings()?,
            gateway_timeout: self.gateway.gateway_timeout,
            recovery_interval: self.recovery_interval,
            rate_limit: self.rate_limit.limit()?,
            limits: Limits::default(),
            card_intake: self.card_intake,
            cell: self.cell.cell,
            console_token: self.console.console_token.clone(),
        })
    }
}
