//! The settings of the idempotency engine, and the secrets that sign fingerprints.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use secrecy::{ExposeSecret, SecretString};

use super::value::{Refused, SHORTEST_SAFE_SECRET, is_example, positive_duration};
use crate::idempotency::grouped::LARGEST_GROUP;
use crate::idempotency::{FingerprintSecrets, IdempotencyConfig};

/// No secret signs fingerprints.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--fingerprint-secret (PAYONCE_FINGERPRINT_SECRET) is required")]
pub struct NoFingerprintSecret;

/// The engine's settings.
#[derive(Clone, Debug, Args)]
pub struct IdempotencyArgs {
    /// Secret that signs request fingerprints, at least 16 bytes. To rotate it, give two values separated by a comma: the first
    /// signs, both are accepted. Spaces around a value are ignored.
    #[arg(
        long,
        env = "PAYONCE_FINGERPRINT_SECRET",
        value_name = "SECRET[,OLDER]"
    )]
    // An `Option` because `payonce doctor` runs without it, and reports that it is missing.
    #[arg(hide_env_values = true, required = true)]
    pub fingerprint_secret: Option<SecretRotation>,
    /// How long a key is remembered, counted from its first use.
    #[arg(
        long,
        env = "PAYONCE_KEY_TTL",
        value_name = "DURATION",
        default_value = "24h"
    )]
    #[arg(value_parser = positive_duration)]
    pub key_ttl: Duration,
    /// How long a claim lasts when its owner does not renew it. After that another process may take it over.
    #[arg(
        long,
        env = "PAYONCE_LOCK_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s"
    )]
    #[arg(value_parser = positive_duration)]
    pub lock_timeout: Duration,
    /// How often a waiting duplicate checks whether the first request has finished.
    #[arg(
        long,
        env = "PAYONCE_RETRY_INTERVAL",
        value_name = "DURATION",
        default_value = "50ms"
    )]
    #[arg(value_parser = positive_duration)]
    pub retry_interval: Duration,
    /// Maximum number of checks before a duplicate is told that the first request is still in progress. 0 means that it does not
    /// wait.
    #[arg(
        long,
        env = "PAYONCE_MAX_RETRIES",
        value_name = "COUNT",
        default_value_t = 100
    )]
    pub max_retries: u32,
    /// Maximum number of payments that one group commit claims or settles. With 1, each payment commits alone.
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
    /// [`NoFingerprintSecret`] if none is set.
    pub fn fingerprint_secrets(&self) -> Result<FingerprintSecrets, NoFingerprintSecret> {
        let secrets = self.fingerprint_secret.as_ref();
        secrets
            .map(SecretRotation::fingerprint_secrets)
            .ok_or(NoFingerprintSecret)
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

/// One secret, or two while the first replaces the second.
#[derive(Clone, Debug)]
pub struct SecretRotation {
    signing: SecretString,
    older: Option<SecretString>,
}

impl SecretRotation {
    /// The secrets in the form that the engine takes.
    pub fn fingerprint_secrets(&self) -> FingerprintSecrets {
        let secrets = FingerprintSecrets::new(self.signing.expose_secret());
        match &self.older {
            Some(older) => secrets.accepting(older.expose_secret()),
            None => secrets,
        }
    }

    /// Logs a warning if a secret is shorter than 16 bytes.
    pub fn warn_if_short(&self) {
        if self.has_short_secret() {
            tracing::warn!(
                "PAYONCE_FINGERPRINT_SECRET contains a secret that can be guessed: \
                 it is shorter than {SHORTEST_SAFE_SECRET} bytes"
            );
        }
    }

    /// Returns true if a secret is short enough to be guessed.
    pub(crate) fn has_short_secret(&self) -> bool {
        let is_short = |secret: &SecretString| secret.expose_secret().len() < SHORTEST_SAFE_SECRET;
        is_short(&self.signing) || self.older.as_ref().is_some_and(is_short)
    }

    /// Returns true if a secret is one of the published examples.
    pub(crate) fn is_public(&self) -> bool {
        is_example(&self.signing) || self.older.as_ref().is_some_and(is_example)
    }
}

impl FromStr for SecretRotation {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let secrets: Vec<&str> = text.split(',').map(str::trim).collect();
        match secrets[..] {
            _ if secrets.contains(&"") => Err(Refused::new("a secret is empty")),
            [signing] => Ok(Self {
                signing: signing.into(),
                older: None,
            }),
            [signing, older] => Ok(Self {
                signing: signing.into(),
                older: Some(older.into()),
            }),
            _ => Err(Refused::new("at most two secrets, separated by a comma")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
