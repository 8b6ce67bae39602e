//! An API key is a secret by which a merchant's requests are known. Only its SHA-256 is kept.
//!
//! A plain hash is enough: unlike a password, a key is 256 random bits, and cannot be searched for.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const PREFIX: &str = "sk_";
const SECRET_BYTES: usize = 32;

/// An API key as the database knows it: everything but the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// `key_` and a UUIDv7; it may be shown and logged.
    pub id: String,
    /// Whose key it is.
    pub merchant_id: String,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
    /// Since when it is refused.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// An API key that was just created, and the only moment at which it is known.
#[derive(Debug)]
pub struct NewApiKey {
    /// Whose key it is.
    pub merchant_id: String,
    /// `key_` and a UUIDv7: what it is revoked by.
    pub api_key_id: String,
    /// `sk_` and 64 hexadecimal digits. Only its hash is kept.
    pub api_key: SecretString,
}

/// What came of revoking an API key.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It is revoked from now on.
    Revoked,
    /// It was before; since when has not changed.
    AlreadyRevoked,
    /// There is no such key.
    NotFound,
}

/// SHA-256 of a whole API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ApiKeyHash([u8; 32]);

impl ApiKeyHash {
    /// Hashes a key as a client sent it. `None`: no key of ours has that form, so there is nothing
    /// to look up.
    pub(super) fn of(api_key: &str) -> Option<Self> {
        let secret = api_key.strip_prefix(PREFIX)?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_well_formed = secret.len() == 2 * SECRET_BYTES && secret.bytes().all(is_digit);
        is_well_formed.then(|| Self(Sha256::digest(api_key).into()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A fresh secret and its hash.
pub(super) struct NewSecret {
    pub(super) api_key: SecretString,
    pub(super) hash: ApiKeyHash,
}

impl NewSecret {
    /// Takes 256 bits from a cryptographic generator that the operating system seeds.
    pub(super) fn generate() -> Self {
        let api_key = format!(
            "{PREFIX}{}",
            hex::encode(rand::random::<[u8; SECRET_BYTES]>())
        );
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
        let secret = NewSecret::generate();
        assert_eq!(
            ApiKeyHash::of(secret.api_key.expose_secret()),
            Some(secret.hash)
        );
        assert_ne!(NewSecret::generate().hash, secret.hash);
    }

    #[test]
    fn other_texts_are_no_keys() {
        let digits = "0123456789abcdef".repeat(4);
        assert!(ApiKeyHash::of(&format!("sk_{digits}")).is_some());
        for text in [
            "",
            "sk_",
            &digits,
            &format!("sk_{}", &digits[1..]),
            &format!("sk_{digits}0"),
            &format!("sk_{}", digits.to_uppercase()),
            &format!("pk_{digits}"),
        ] {
            assert_eq!(ApiKeyHash::of(text), None, "{text}");
        }
    }

    #[test]
    fn a_new_secret_is_not_printed() {
        let key = NewApiKey {
            merchant_id: "acme".to_owned(),
            api_key_id: new_api_key_id(),
            api_key: NewSecret::generate().api_key,
        };
        assert!(!format!("{key:?}").contains(key.api_key.expose_secret()));
    }
}
