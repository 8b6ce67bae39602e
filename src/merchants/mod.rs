//! A merchant receives payments. It is identified by its API keys, and by nothing else that a client sends.
//!
//! Operators create and revoke merchants and keys through [`Merchants`], and move merchants between cells ([`moves`]); requests are
//! authenticated by [`Authenticator`].

mod accounts;
mod api_key;
mod authenticator;
mod cell;
pub mod moves;
mod rate_limit;
mod standing;
mod store;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sqlx::PgPool;

pub use self::accounts::Accounts;
pub use self::api_key::{ApiKeyRecord, NewApiKey, Revocation};
use self::api_key::{NewSecret, new_api_key_id};
pub use self::authenticator::Authenticator;
pub use self::cell::{Cell, NotACell};
pub use self::rate_limit::{RateLimit, RateLimiter};
pub use self::standing::{KnownMerchant, Move, MoveState, is_refused_by_a_move};

/// Maximum length of a name, in characters. The schema has the same constraint.
const MAX_NAME_LENGTH: usize = 200;

/// A merchant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merchant {
    /// `[A-Za-z0-9_.-]{1,64}`, but not `.` or `..`. It never changes.
    pub id: String,
    /// A name for people, 1 to 200 characters.
    pub name: String,
    /// When it was created, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// The merchant's own account at Stripe (`acct_…`).
    pub stripe_account: Option<String>,
    /// Its move to another cell, or from one; `None` where it is served here.
    pub moving: Option<Move>,
}

/// A merchant that was just created. This is the only time that its first API key is shown.
#[derive(Debug)]
pub struct NewMerchant {
    /// The requested ID.
    pub merchant_id: String,
    /// Its first API key: see [`NewApiKey`].
    pub api_key: SecretString,
}

/// Why merchants and their keys could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum MerchantError {
    /// Final: the ID belongs to another merchant, or was created before.
    #[error("merchant {0} exists already")]
    AlreadyExists(String),
    /// Final.
    #[error("a merchant's ID must match [A-Za-z0-9_.-]{{1,64}}, and must not be . or ..")]
    InvalidId,
    /// Final.
    #[error("a merchant's name must have 1 to 200 characters, none of them a control character")]
    InvalidName,
    /// Final.
    #[error(
        "--stripe-account must be an account's ID, acct_ and letters or digits, or empty for none"
    )]
    InvalidStripeAccount,
    /// Final: no such merchant.
    #[error("there is no merchant {0}")]
    UnknownMerchant(String),
    /// The database could not be queried, or returned an error. Retryable if the cause is.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Creates, changes and lists merchants and their API keys, for operators.
///
/// Each change is one statement, so it happens as a whole or not at all, even if its future is dropped.
#[derive(Clone, Debug)]
pub struct Merchants {
    pool: PgPool,
    cell: Option<Cell>,
}

impl Merchants {
    /// Works on a database with this crate's schema.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, cell: None }
    }

    /// New API keys name this cell.
    #[must_use]
    pub fn in_cell(self, cell: Option<Cell>) -> Self {
        Self { cell, ..self }
    }

    /// Creates a merchant together with its first API key.
    pub async fn create(&self, id: &str, name: &str) -> Result<NewMerchant, MerchantError> {
        check_id(id)?;
        check_name(name)?;
        let secret = NewSecret::generate(self.cell);
        let key_id = new_api_key_id();
        if !store::insert_merchant(&self.pool, id, name, &key_id, &secret.hash).await? {
            return Err(MerchantError::AlreadyExists(id.to_owned()));
        }
        Ok(NewMerchant {
            merchant_id: id.to_owned(),
            api_key: secret.api_key,
        })
    }

    /// Sets or removes the merchant's own account at Stripe. It applies to new payments; existing payments stay with the account that
    /// they started with.
    pub async fn set_stripe_account(
        &self,
        id: &str,
        account: Option<&str>,
    ) -> Result<Merchant, MerchantError> {
        if !account.is_none_or(is_stripe_account) {
            return Err(MerchantError::InvalidStripeAccount);
        }
        store::set_stripe_account(&self.pool, id, account)
            .await?
            .ok_or_else(|| MerchantError::UnknownMerchant(id.to_owned()))
    }

    /// All merchants, by ID.
    pub async fn list(&self) -> Result<Vec<Merchant>, MerchantError> {
        Ok(store::list_merchants(&self.pool).await?)
    }

    /// Creates a further API key. The merchant's other keys stay valid.
    pub async fn create_api_key(&self, merchant_id: &str) -> Result<NewApiKey, MerchantError> {
        let secret = NewSecret::generate(self.cell);
        let api_key_id = new_api_key_id();
        if !store::insert_api_key(&self.pool, merchant_id, &api_key_id, &secret.hash).await? {
            return Err(MerchantError::UnknownMerchant(merchant_id.to_owned()));
        }
        let merchant_id = merchant_id.to_owned();
        Ok(NewApiKey {
            merchant_id,
            api_key_id,
            api_key: secret.api_key,
        })
    }

    /// A merchant's API keys, including revoked ones, oldest first.
    pub async fn list_api_keys(
        &self,
        merchant_id: &str,
    ) -> Result<Vec<ApiKeyRecord>, MerchantError> {
        let keys = store::list_api_keys(&self.pool, merchant_id).await?;
        if keys.is_empty() && !store::merchant_exists(&self.pool, merchant_id).await? {
            return Err(MerchantError::UnknownMerchant(merchant_id.to_owned()));
        }
        Ok(keys)
    }

    /// Revokes an API key. Every node refuses it within 5 s: see [`Authenticator`].
    pub async fn revoke_api_key(&self, api_key_id: &str) -> Result<Revocation, MerchantError> {
        if store::revoke_api_key(&self.pool, api_key_id).await? {
            Ok(Revocation::Revoked)
        } else if store::api_key_exists(&self.pool, api_key_id).await? {
            Ok(Revocation::AlreadyRevoked)
        } else {
            Ok(Revocation::NotFound)
        }
    }
}

fn check_id(id: &str) -> Result<(), MerchantError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    // In a path, such as a link of the console, these two are relative steps and not names (RFC 3986, 3.3).
    let is_a_step = matches!(id, "." | "..");
    if (1..=64).contains(&id.len()) && id.chars().all(is_allowed) && !is_a_step {
        Ok(())
    } else {
        Err(MerchantError::InvalidId)
    }
}

fn is_stripe_account(account: &str) -> bool {
    let id = account.strip_prefix("acct_").unwrap_or_default();
    (1..=255).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn check_name(name: &str) -> Result<(), MerchantError> {
    let length = name.chars().count();
    if (1..=MAX_NAME_LENGTH).contains(&length) && !name.contains(char::is_control) {
        Ok(())
    } else {
        Err(MerchantError::InvalidName)
    }
}
