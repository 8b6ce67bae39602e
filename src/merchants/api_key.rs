//! An API key is a secret that identifies a merchant's requests. Only its SHA-256 is stored.
//!
//! A plain hash is enough: unlike a password, a key has 256 random bits, so it cannot be guessed.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::cell::Cell;

const PREFIX: &str = "sk_";
const SECRET_BYTES: usize = 32;

/// An API key as the database stores it: everything except the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// `key_` and a UUIDv7; it may be shown and logged.
    pub id: String,
    /// The merchant that it belongs to.
    pub merchant_id: String,
    /// When it was created, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// An API key that was just created. This is the only time that it is shown.
#[derive(Debug)]
pub struct NewApiKey {
    /// Whose key it is.
    pub merchant_id: String,
    /// `key_` and a UUIDv7: what it is revoked by.
    pub api_key_id: String,
    /// `sk_` and 64 hexadecimal digits, with the cell's number between them where there are cells: `sk_2_…`. Only its hash is kept.
    pub api_key: SecretString,
}

/// The result of revoking an API key.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It has been revoked.
    Revoked,
    /// It had been revoked before. The time of its revocation has not changed.
    AlreadyRevoked,
    /// There is no such key.
    NotFound,
}

/// SHA-256 of a whole API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ApiKeyHash([u8; 32]);

impl ApiKeyHash {
    /// Hashes a key that a client sent. Returns `None` if it does not have the form of our keys, so that there is nothing to look up.
    pub(super) fn of(api_key: &str) -> Option<Self> {
        let rest = api_key.strip_prefix(PREFIX)?;
        let secret = match rest.split_once('_') {
            Some((cell, secret)) => cell.parse::<Cell>().ok().map(|_| secret)?,
            None => rest,
        };
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_well_formed = secret.len() == 2 * SECRET_BYTES && secret.bytes().all(is_digit);
        is_well_formed.then(|| Self(Sha256::digest(api_key).into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A new secret and its hash.
pub(super) struct NewSecret {
    pub(super) api_key: SecretString,
    pub(super) hash: ApiKeyHash,
}

impl NewSecret {
    /// Takes 256 bits from a cryptographic generator, seeded by the operating system. The key names its cell, if there is one, so that
    /// a proxy knows where to send its requests.
    pub(super) fn generate(cell: Option<Cell>) -> Self {
        let secret = hex::encode(rand::random::<[u8; SECRET_BYTES]>());
        let api_key = match cell {
            Some(cell) => format!("{PREFIX}{cell}_{secret}"),
            None => format!("{PREFIX}{secret}"),
        };
        let hash = ApiKeyHash(Sha256::digest(&api_key).into());
        Self {
            api_key: api_key.into(),
            hash,
        }
    }
}

pub(super) fn new_api_key_id() -> String {
    format!("key_{}", Uuid::now_v7().simple())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_generated_key_is_well_formed_and_hashes_to_its_hash() {
        for (cell, start) in [(None, "sk_"), (Cell::new(2).ok(), "sk_2_")] {
            let secret = NewSecret::generate(cell);
            let api_key = secret.api_key.expose_secret();
            assert_eq!(ApiKeyHash::of(api_key), Some(secret.hash));
            assert_eq!(api_key.len(), start.len() + 64);
            assert!(api_key.starts_with(start));
            assert_ne!(NewSecret::generate(cell).hash, secret.hash);
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        let digits = "0123456789abcdef".repeat(4);
        for good in ["", "1_", "9999_"] {
            assert!(ApiKeyHash::of(&format!("sk_{good}{digits}")).is_some());
        }
        for text in [
            "",
            "sk_",
            &digits,
            &format!("sk_{}", &digits[1..]),
            &format!("sk_{digits}0"),
            &format!("sk_{}", digits.to_uppercase()),
            &format!("pk_{digits}"),
            &format!("sk__{digits}"),
            &format!("sk_0_{digits}"),
            &format!("sk_01_{digits}"),
            &format!("sk_10000_{digits}"),
            &format!("sk_-1_{digits}"),
            &format!("sk_a_{digits}"),
            &format!("sk_1_{digits}0"),
            &format!("sk_1_{}", &digits[1..]),
            &format!("sk_1_1_{digits}"),
            &format!("sk_{digits}_1"),
        ] {
            assert_eq!(ApiKeyHash::of(text), None, "{text}");
        }
    }

    #[test]
    fn a_new_secret_is_not_printed() {
        let key = NewApiKey {
            merchant_id: "acme".to_owned(),
            api_key_id: new_api_key_id(),
            api_key: NewSecret::generate(None).api_key,
        };
        assert!(!format!("{key:?}").contains(key.api_key.expose_secret()));
    }
}
