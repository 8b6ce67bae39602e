//! The settings of the programs, as flags and environment variables. The fields' documentation is
//! the help text.
//!
//! A flag wins over its variable; a variable that is empty counts as unset (see [`crate::cli`]).

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::database::DatabaseSettings;
use crate::http::Limits;
use crate::idempotency::{FingerprintSecrets, IdempotencyConfig, LARGEST_GROUP};
use crate::merchants::RateLimit;
pub use crate::startup::GatewayKind;
use crate::startup::{GatewaySettings, Settings, StripeSettings};
use crate::telemetry::{LogFormat, Traces};
use crate::tls::{Certificate, TlsError, TlsFiles};

/// A shorter secret can be guessed; 128 bits are what is taken for safe.
const SHORTEST_SAFE_SECRET: usize = 16;

/// How the secrets begin that stand in `scripts/run`, `docker-compose.yml` and `.env.example`.
const PUBLIC_SECRETS: [&str; 2] = ["development-only-", "change-me"];

/// Longer than anyone means. The database's time stamps would end long after.
const LONGEST_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Settings that each are good, but not together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Stripe is asked for, without a key to it.
    #[error(
        "--stripe-secret-key (PAYONCE_STRIPE_SECRET_KEY) is required with \
         --gateway (PAYONCE_GATEWAY) stripe"
    )]
    NoStripeSecretKey,
    /// One of two that only work together.
    #[error("{missing} is required with {given}")]
    HalfOfTls {
        /// The flag and variable that is there.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nothing signs fingerprints.
    #[error("--fingerprint-secret (PAYONCE_FINGERPRINT_SECRET) is required")]
    NoFingerprintSecret,
    /// A burst of what is not limited.
    #[error(
        "--rate-limit-burst (PAYONCE_RATE_LIMIT_BURST) needs --rate-limit (PAYONCE_RATE_LIMIT)"
    )]
    BurstWithoutLimit,
}

/// The database, which every program asks for.
#[derive(Clone, Debug, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL 14 or later, as postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    #[arg(value_parser = secret)]
    pub database_url: SecretString,
    /// Work on a database with fsync, full_page_writes or synchronous_commit off, which may lose
    /// what it confirmed.
    #[arg(long)]
    pub allow_unsafe_database: bool,
}

impl DatabaseArgs {
    /// The settings of a pool of at most `max_connections`.
    pub fn settings(&self, max_connections: u32) -> DatabaseSettings {
        DatabaseSettings {
            url: self.database_url.clone(),
            max_connections,
            allow_unsafe: self.allow_unsafe_database,
        }
    }
}

/// The engine's settings.
#[derive(Clone, Debug, Args)]
pub struct IdempotencyArgs {
    /// Key of the request fingerprint, at least 16 bytes. Two values separated by a comma rotate
    /// it: the first signs, each is accepted. Spaces around a value do not count.
    #[arg(
        long,
        env = "PAYONCE_FINGERPRINT_SECRET",
        value_name = "SECRET[,OLDER]"
    )]
    // An `Option` for `payonce doctor`, which does without it and tells that it is missing.
    #[arg(hide_env_values = true, required = true)]
    pub fingerprint_secret: Option<SecretRotation>,
    /// How long a key is remembered, from its first use.
    #[arg(
        long,
        env = "PAYONCE_KEY_TTL",
        value_name = "DURATION",
        default_value = "24h"
    )]
    #[arg(value_parser = positive_duration)]
    pub key_ttl: Duration,
    /// How long a claim is held without a sign of life of its owner, before another may take it
    /// over.
    #[arg(
        long,
        env = "PAYONCE_LOCK_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s"
    )]
    #[arg(value_parser = positive_duration)]
    pub lock_timeout: Duration,
    /// The pause between two looks of a duplicate at the first request's outcome.
    #[arg(
        long,
        env = "PAYONCE_RETRY_INTERVAL",
        value_name = "DURATION",
        default_value = "50ms"
    )]
    #[arg(value_parser = positive_duration)]
    pub retry_interval: Duration,
    /// How often a duplicate looks before it is told that the first is still at work; 0: it does
    /// not wait.
    #[arg(
        long,
        env = "PAYONCE_MAX_RETRIES",
        value_name = "COUNT",
        default_value_t = 100
    )]
    pub max_retries: u32,
    /// The most payments that one group commit claims or settles; 1: each commits alone.
    #[arg(
        long,
        env = "PAYONCE_GROUP_SIZE",
        value_name = "COUNT",
        default_value_t = LARGEST_GROUP
    )]
    #[arg(value_parser = RangedU64ValueParser::<u16>::new().range(1..=u64::from(LARGEST_GROUP)))]
    pub group_size: u16,
}

impl IdempotencyArgs {
    /// The secrets that sign fingerprints.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoFingerprintSecret`] where there are none.
    pub fn fingerprint_secrets(&self) -> Result<FingerprintSecrets, ConfigError> {
        let secrets = self.fingerprint_secret.as_ref();
        secrets
            .map(SecretRotation::fingerprint_secrets)
            .ok_or(ConfigError::NoFingerprintSecret)
    }

    /// The engine's configuration.
    pub fn config(&self) -> IdempotencyConfig {
        IdempotencyConfig::default()
            .with_ttl(self.key_ttl)
            .with_lock_timeout(self.lock_timeout)
            .with_retry_interval(self.retry_interval)
            .with_max_retries(self.max_retries)
            .with_group_size(self.group_size)
    }
}

/// Which gateway moves the money, and how it is reached.
#[derive(Clone, Debug, Args)]
pub struct GatewayArgs {
    /// The gateway for new payments. Older ones go on with the one that they began with.
    #[arg(long, env = "PAYONCE_GATEWAY", value_enum, default_value_t = GatewayKind::Simulated)]
    pub gateway: GatewayKind,
    /// The longest a client's request waits for the gateway.
    #[arg(
        long,
        env = "PAYONCE_GATEWAY_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s"
    )]
    #[arg(value_parser = positive_duration)]
    pub gateway_timeout: Duration,
    /// How long the simulated gateway takes for a call.
    #[arg(
        long,
        env = "PAYONCE_SIMULATED_GATEWAY_LATENCY",
        value_name = "DURATION"
    )]
    #[arg(default_value = "100ms", value_parser = duration)]
    pub simulated_gateway_latency: Duration,
    /// Where Stripe's API is.
    #[arg(long, env = "PAYONCE_STRIPE_API_BASE", value_name = "URL")]
    #[arg(default_value = "https://api.stripe.com", value_parser = http_url)]
    pub stripe_api_base: String,
    /// Stripe's secret key; required with --gateway stripe, and while payments that began at Stripe may still be touched.
    #[arg(
        long,
        env = "PAYONCE_STRIPE_SECRET_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    #[arg(value_parser = header_secret)]
    pub stripe_secret_key: Option<SecretString>,
}

impl GatewayArgs {
    /// The settings of the gateways that are set up.
    pub fn settings(&self) -> Result<GatewaySettings, ConfigError> {
        if self.gateway == GatewayKind::Stripe && self.stripe_secret_key.is_none() {
            return Err(ConfigError::NoStripeSecretKey);
        }
        let stripe = self.stripe_secret_key.clone();
        Ok(GatewaySettings {
            kind: self.gateway,
            simulated_latency: self.simulated_gateway_latency,
            stripe: stripe.map(|secret_key| StripeSettings {
                api_base: self.stripe_api_base.clone(),
                secret_key,
            }),
        })
    }
}

/// How often each merchant may call.
#[derive(Clone, Debug, Args)]
pub struct RateLimitArgs {
    /// How many requests a second each merchant may send to this node; more are answered 429. Not
    /// set: as many as it likes.
    #[arg(long, env = "PAYONCE_RATE_LIMIT", value_name = "COUNT")]
    #[arg(value_parser = count)]
    pub rate_limit: Option<NonZeroU32>,
    /// How many of them it may send at once, after a pause. Not set: as many as in a second.
    #[arg(long, env = "PAYONCE_RATE_LIMIT_BURST", value_name = "COUNT")]
    #[arg(value_parser = count)]
    pub rate_limit_burst: Option<NonZeroU32>,
}

impl RateLimitArgs {
    /// The limit, where there is one.
    pub fn limit(&self) -> Result<Option<RateLimit>, ConfigError> {
        match (self.rate_limit, self.rate_limit_burst) {
            (None, Some(_)) => Err(ConfigError::BurstWithoutLimit),
            (None, None) => Ok(None),
            (Some(per_second), burst) => Ok(Some(RateLimit {
                per_second,
                burst: burst.unwrap_or(per_second),
            })),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What is logged: a level (error, warn, info, debug, trace, off), or levels by module, as
    /// info,payonce=debug.
    #[arg(
        long,
        env = "PAYONCE_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    #[arg(value_parser = log_filter)]
    pub log: String,
    /// How log lines are written [default: text on a terminal, else json].
    #[arg(long, env = "PAYONCE_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

impl LogArgs {
    /// Starts logging to standard error, and what makes traces where they are exported.
    pub fn init(&self, traces: Option<&Traces>) {
        let format = self.log_format.unwrap_or_else(LogFormat::for_stderr);
        crate::telemetry::init(EnvFilter::new(&self.log), format, traces);
    }
}

/// TLS from clients.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// The certificate that clients are shown, in PEM, followed by those that lead to its authority.
    /// With it the service speaks HTTPS only. SIGHUP reads certificate and key again.
    #[arg(long, env = "PAYONCE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, env = "PAYONCE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// The certificate, read from its files; `None` where the service is to speak plain HTTP.
    pub fn certificate(&self) -> Result<Option<Certificate>, ConfigError> {
        const CERT: &str = "--tls-cert (PAYONCE_TLS_CERT)";
        const KEY: &str = "--tls-key (PAYONCE_TLS_KEY)";
        let half = |given, missing| Err(ConfigError::HalfOfTls { given, missing });
        match (self.tls_cert.clone(), self.tls_key.clone()) {
            (Some(certificate), Some(key)) => {
                Ok(Some(Certificate::load(TlsFiles { certificate, key })?))
            }
            (None, None) => Ok(None),
            (Some(_), None) => half(CERT, KEY),
            (None, Some(_)) => half(KEY, CERT),
        }
    }
}

/// All settings of the service.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Address and port; port 0 picks one and logs it.
    #[arg(long, env = "PAYONCE_LISTEN", value_name = "ADDRESS:PORT")]
    #[arg(default_value = "127.0.0.1:8080", value_parser = address_and_port)]
    pub listen: String,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub idempotency: IdempotencyArgs,
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// Whether clients may send card numbers; off: the gateway's tokens only.
    #[arg(long, env = "PAYONCE_CARD_INTAKE", value_enum, default_value_t = CardIntake::On)]
    pub card_intake: CardIntake,
    /// How often a node looks for work left behind.
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
    /// The most connections to the database.
    #[arg(long, env = "PAYONCE_DATABASE_MAX_CONNECTIONS", value_name = "COUNT")]
    #[arg(default_value_t = 20)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000))]
    pub database_max_connections: u32,
    /// Turns the operator's console at /console on, and is what operators sign in with; at least 16
    /// characters.
    #[arg(
        long,
        env = "PAYONCE_CONSOLE_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    #[arg(value_parser = console_token)]
    pub console_token: Option<SecretString>,
    #[command(flatten)]
    pub log: LogArgs,
    /// Leave the schema as it is, and refuse to start on one that is older than this program.
    #[arg(long)]
    pub no_migrate: bool,
    /// Start although other fingerprint secrets sign this database's keys. A repeated request whose key they signed is answered 503
    /// until the key is forgotten.
    #[arg(long)]
    pub allow_other_fingerprint_secret: bool,
}

impl ServeArgs {
    /// The engine's configuration.
    pub fn idempotency(&self) -> IdempotencyConfig {
        self.idempotency.config()
    }

    /// What the service is started with.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        Ok(Settings {
            listen: self.listen.clone(),
            certificate: self.tls.certificate()?.map(Arc::new),
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
            console_token: self.console_token.clone(),
        })
    }
}

/// Whether clients may send cards themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CardIntake {
    /// They may; a card becomes the gateway's token before anything is stored.
    #[default]
    On,
    /// Raw card numbers are refused: clients send the gateway's tokens only (PCI DSS SAQ A).
    Off,
}

/// One secret, or two while the first takes the second's place.
#[derive(Clone, Debug)]
pub struct SecretRotation {
    signing: SecretString,
    older: Option<SecretString>,
}

impl SecretRotation {
    /// The secrets, as the engine takes them.
    pub fn fingerprint_secrets(&self) -> FingerprintSecrets {
        let secrets = FingerprintSecrets::new(self.signing.expose_secret());
        match &self.older {
            Some(older) => secrets.accepting(older.expose_secret()),
            None => secrets,
        }
    }

    /// Logs a warning where a secret is shorter than 16 bytes.
    pub fn warn_if_short(&self) {
        if self.has_short_secret() {
            tracing::warn!(
                "PAYONCE_FINGERPRINT_SECRET holds a secret that can be guessed: \
                 it has less than {SHORTEST_SAFE_SECRET} bytes"
            );
        }
    }

    /// True where one of them can be guessed for being short.
    pub(crate) fn has_short_secret(&self) -> bool {
        let is_short = |secret: &SecretString| secret.expose_secret().len() < SHORTEST_SAFE_SECRET;
        is_short(&self.signing) || self.older.as_ref().is_some_and(is_short)
    }

    /// True where one of them is one of ours, for a try: everybody knows it.
    pub(crate) fn is_public(&self) -> bool {
        let is_public = |secret: &SecretString| {
            let secret = secret.expose_secret();
            PUBLIC_SECRETS.iter().any(|start| secret.starts_with(start))
        };
        is_public(&self.signing) || self.older.as_ref().is_some_and(is_public)
    }
}

impl FromStr for SecretRotation {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let secrets: Vec<&str> = text.split(',').map(str::trim).collect();
        match secrets[..] {
            _ if secrets.contains(&"") => Err(Refused("a secret is empty".to_owned())),
            [signing] => Ok(Self {
                signing: signing.into(),
                older: None,
            }),
            [signing, older] => Ok(Self {
                signing: signing.into(),
                older: Some(older.into()),
            }),
            _ => Err(Refused(
                "at most two secrets, separated by a comma".to_owned(),
            )),
        }
    }
}

/// Why a setting's value is none. It never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

fn secret(text: &str) -> Result<SecretString, Refused> {
    let text = text.trim();
    if text.is_empty() {
        refuse("it is empty")
    } else {
        Ok(text.into())
    }
}

/// The largest count of anything a second.
const MAX_COUNT: u32 = 1_000_000;

fn count(text: &str) -> Result<NonZeroU32, Refused> {
    match text.parse() {
        Ok(count) if count <= MAX_COUNT => {
            NonZeroU32::new(count).ok_or_else(|| Refused("it must be more than zero".to_owned()))
        }
        _ => refuse(format!("a whole number from 1 to {MAX_COUNT} is needed")),
    }
}

/// A secret that is sent in a header. White space around it is that of the file that it was read from.
fn header_secret(text: &str) -> Result<SecretString, Refused> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        secret(text)
    } else {
        refuse("only visible ASCII characters, without spaces")
    }
}

/// Who has it sees every payment, so one that can be guessed is none. A file that it was read from may end with a newline, and
/// nobody could type that.
fn console_token(text: &str) -> Result<SecretString, Refused> {
    let text = text.trim();
    if text.chars().count() < SHORTEST_SAFE_SECRET {
        refuse(format!(
            "at least {SHORTEST_SAFE_SECRET} characters are needed"
        ))
    } else {
        Ok(text.into())
    }
}

/// A time with a unit: `24h`, `1m 30s`, `50ms`.
fn duration(text: &str) -> Result<Duration, Refused> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST_DURATION => {
            refuse("at most 3650days, which is 10 years of 365 days")
        }
        Ok(duration) => Ok(duration),
        Err(error) => refuse(format!(
            "{error}; a duration is written as 24h, 1m 30s or 50ms"
        )),
    }
}

/// A time that is not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, Refused> {
    match duration(text)? {
        Duration::ZERO => refuse("it must be more than zero"),
        duration => Ok(duration),
    }
}

fn address_and_port(text: &str) -> Result<String, Refused> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => refuse("an address and a port are needed, as 127.0.0.1:8080 or [::1]:8080"),
    }
}

fn http_url(text: &str) -> Result<String, Refused> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => refuse("an http:// or https:// URL is needed"),
    }
}

/// A filter takes any word for a module's name, so that a level that is misspelt would log nothing
/// at all.
fn log_filter(text: &str) -> Result<String, Refused> {
    let is_one_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_one_word && text.parse::<LevelFilter>().is_err() {
        return refuse("the levels are error, warn, info, debug, trace and off");
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => refuse(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_duration_only_where_it_makes_sense() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(positive_duration("0s").is_err());
        assert_eq!(positive_duration("1ns"), Ok(Duration::from_nanos(1)));
        assert_eq!(positive_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("3650days"), Ok(LONGEST_DURATION));
        for text in ["", "5", "-1s", "soon", "3651days", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_or_two_secrets_and_none_empty() {
        let rotation = |text: &str| text.parse::<SecretRotation>();
        let parts = |text: &str| {
            let SecretRotation { signing, older } = rotation(text).expect(text);
            let older = older.map(|older| older.expose_secret().to_owned());
            (signing.expose_secret().to_owned(), older)
        };
        assert_eq!(parts("new"), ("new".to_owned(), None));
        assert_eq!(
            parts(" new, old "),
            ("new".to_owned(), Some("old".to_owned()))
        );
        for text in ["", " ", ",", "a,", ",a", "a,b,c"] {
            assert!(rotation(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn secrets_below_sixteen_bytes_are_short() {
        for (text, short) in [
            ("123456789012345", true),
            ("1234567890123456", false),
            ("1234567890123456,short", true),
            ("1234567890123456,1234567890123456", false),
        ] {
            let rotation: SecretRotation = text.parse().expect(text);
            assert_eq!(rotation.has_short_secret(), short, "{text}");
        }
    }

    #[test]
    fn a_console_token_has_sixteen_characters() {
        assert!(console_token("123456789012345").is_err());
        assert!(
            console_token("üüüüüüüüüüüüüüü").is_err(),
            "bytes do not count"
        );
        assert!(console_token("1234567890123456").is_ok());
        assert!(console_token("123456789012345\n").is_err());
    }

    #[test]
    fn a_newline_at_the_end_of_a_secret_is_not_part_of_it() {
        for read in [secret, header_secret, console_token] {
            let secret = read("1234567890123456\r\n").expect("a secret");
            assert_eq!(secret.expose_secret(), "1234567890123456");
        }
        assert!(header_secret("a b").is_err());
        assert!(secret("\n").is_err());
    }

    #[test]
    fn the_longest_duration_is_named_as_it_can_be_written() {
        let refused = duration("10years").expect_err("a year has 365.25 days here");
        assert!(refused.to_string().contains("3650days"));
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for text in ["127.0.0.1:0", "[::1]:8080", "localhost:65535"] {
            assert!(address_and_port(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "8080",
            ":8080",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:65536",
        ] {
            assert!(address_and_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_api_base_is_http() {
        assert_eq!(
            http_url("http://127.0.0.1:1/"),
            Ok("http://127.0.0.1:1".to_owned())
        );
        for text in ["", "api.stripe.com", "ftp://api.stripe.com", "https://"] {
            assert!(http_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in [
            "info",
            "off",
            "WARN",
            "info,payonce=debug",
            "payonce::http=trace",
        ] {
            assert!(log_filter(text).is_ok(), "{text}");
        }
        for text in ["inof", "payonce=loud"] {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }
}
