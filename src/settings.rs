//! What a service is built from, once its flags and variables have been read ([`crate::config`]).

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use secrecy::SecretString;

use crate::database::DatabaseSettings;
use crate::http::{CardIntake, Limits};
use crate::idempotency::{FingerprintSecrets, IdempotencyConfig};
use crate::merchants::{Cell, RateLimit};
use crate::tls::Certificate;

/// The settings of a service.
#[derive(Debug)]
pub struct Settings {
    /// Address and port to listen on; port 0 picks a free port.
    pub listen: String,
    /// The certificate for HTTPS; `None` for plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    /// The database.
    pub database: DatabaseSettings,
    /// Apply pending migrations before the service starts. If false, an older schema is refused.
    pub migrate: bool,
    /// Start even if this database's keys were signed with other fingerprint secrets, and do not register ours.
    pub allow_other_secret: bool,
    /// The engine's settings.
    pub idempotency: IdempotencyConfig,
    /// The secrets that sign fingerprints.
    pub fingerprint_secrets: FingerprintSecrets,
    /// The gateways.
    pub gateway: GatewaySettings,
    /// Maximum time that a request waits for the gateway.
    pub gateway_timeout: Duration,
    /// How often a node looks for unfinished work that other processes left behind.
    pub recovery_interval: Duration,
    /// How often each merchant may call; `None` for no limit.
    pub rate_limit: Option<RateLimit>,
    /// The limits of a connection.
    pub limits: Limits,
    /// Whether clients may send card numbers.
    pub card_intake: CardIntake,
    /// The cell that it belongs to; `None` where there are none.
    pub cell: Option<Cell>,
    /// The token that operators sign in to the console with; `None` for no console.
    pub console_token: Option<SecretString>,
}

/// The gateways that are set up. A payment stays with the gateway that it started with.
#[derive(Debug)]
pub struct GatewaySettings {
    /// The gateway for new payments.
    pub kind: GatewayKind,
    /// How long the simulated gateway takes to answer. This gateway is always set up.
    pub simulated_latency: Duration,
    /// Stripe, or a server that speaks its API; `None` if it is not set up.
    pub stripe: Option<StripeSettings>,
}

/// The kinds of gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GatewayKind {
    /// In this process; for development, tests and demonstrations.
    Simulated,
    /// Stripe.
    Stripe,
}

/// How Stripe is reached.
#[derive(Debug)]
pub struct StripeSettings {
    /// Base URL of its API.
    pub api_base: String,
    /// Its secret key.
    pub secret_key: SecretString,
}
