//! A fingerprint tells whether two requests ask for the same thing: HMAC-SHA-256 over the request's canonical form.
//!
//! A plain hash of a card number can be searched; PCI DSS 3.5.1.1 therefore asks for a keyed one. The canonical form is a
//! sorted list of `path` and `value`: the order in which a client sends its fields, and how it spells a number, are gone
//! before it is signed, and an optional field at its default is not in it, so that an upgrade that adds a field leaves the
//! fingerprints of requests under way as they are.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use serde::Serialize;
use serde_json::Value;
use sha2::Sha256;

use super::key::ScopedKey;

/// The canonical form's version, stored beside each fingerprint. A change of the form needs a new number.
pub const FINGERPRINT_VERSION: i16 = 1;

/// A request's fields, by path (`customer.email`). Dropped after signing; never stored, logged or printed.
#[derive(Default)]
pub struct CanonicalFields {
    /// The values, one after the other: a field more costs no allocation.
    values: String,
    fields: Vec<Field>,
}

struct Field {
    path: Cow<'static, str>,
    value: Range<usize>,
}

impl CanonicalFields {
    /// Adds a field. The value is in its one spelling: `10` and `10.00` must arrive here as the same text.
    pub fn insert(&mut self, path: impl Into<Cow<'static, str>>, value: impl AsRef<str>) {
        let start = self.values.len();
        self.values.push_str(value.as_ref());
        self.fields.push(Field {
            path: path.into(),
            value: start..self.values.len(),
        });
    }

    /// Paths and values by path, and where a path is there twice by value: the order in which they came makes no difference.
    fn sorted(&self) -> Vec<(&str, &str)> {
        let value_of = |field: &Field| self.values.get(field.value.clone()).unwrap_or_default();
        let pairs = self
            .fields
            .iter()
            .map(|field| (&*field.path, value_of(field)));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        pairs
    }

    /// Adds a field where there is a value.
    pub fn insert_some(&mut self, path: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.insert(path, value);
        }
    }

    fn flatten(&mut self, path: &str, value: &Value) {
        let join = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        match value {
            Value::Null => {}
            Value::Object(fields) => fields
                .iter()
                .for_each(|(name, value)| self.flatten(&join(name), value)),
            Value::Array(items) => {
                self.insert(join("length"), items.len().to_string());
                for (index, value) in items.iter().enumerate() {
                    self.flatten(&join(&index.to_string()), value);
                }
            }
            scalar => self.insert(
                if path.is_empty() {
                    Cow::Borrowed("value")
                } else {
                    Cow::Owned(path.to_owned())
                },
                scalar.to_string(),
            ),
        }
    }
}

impl fmt::Debug for CanonicalFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.sorted().into_iter().map(|(path, _)| path);
        f.debug_set().entries(paths).finish()
    }
}

impl PartialEq for CanonicalFields {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

impl Eq for CanonicalFields {}

/// A request that can be fingerprinted.
///
/// Everything that implements [`Serialize`] is: its JSON form's leaves are the fields, `null` counts as absent. A type that
/// must not be serialisable, because it holds a card, implements this by hand.
pub trait Fingerprinted {
    /// Writes the fields that make this request what it is. `Err` where it has no JSON form.
    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error>;
}

impl<T: Serialize + ?Sized> Fingerprinted for T {
    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error> {
        fields.flatten("", &serde_json::to_value(self)?);
        Ok(())
    }
}

/// The secrets that sign fingerprints. The first signs; each is accepted, so that a secret can be rotated while keys that
/// the old one signed are still remembered.
pub struct FingerprintSecrets(Vec<SecretSlice<u8>>);

impl FingerprintSecrets {
    /// Takes the secret that signs.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(vec![SecretSlice::from(secret.into())])
    }

    /// Accepts what an older secret signed, too.
    #[must_use]
    pub fn accepting(mut self, older: impl Into<Vec<u8>>) -> Self {
        self.0.push(SecretSlice::from(older.into()));
        self
    }
}

impl fmt::Debug for FingerprintSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FingerprintSecrets({} hidden)", self.0.len())
    }
}

/// Signs requests: the secrets, expanded once.
pub(crate) struct Signer(Vec<Hmac<Sha256>>);

impl Signer {
    pub(crate) fn new(secrets: &FingerprintSecrets) -> Self {
        let expand = |secret: &SecretSlice<u8>| {
            // HMAC takes a key of any length (RFC 2104, 2): a longer one is hashed, a shorter one padded.
            <Hmac<Sha256> as KeyInit>::new_from_slice(secret.expose_secret()).ok()
        };
        Self(secrets.0.iter().filter_map(expand).collect())
    }

    /// Signs a request under each secret.
    pub(crate) fn sign(
        &self,
        key: &ScopedKey,
        request: &(impl Fingerprinted + ?Sized),
    ) -> Result<Fingerprints, serde_json::Error> {
        let mut fields = CanonicalFields::default();
        request.canonicalize(&mut fields)?;
        let sign = |mac: &Hmac<Sha256>| (mac.clone(), whole_hash(mac, &key.operation, &fields));
        Ok(Fingerprints {
            signed: self.0.iter().map(sign).collect(),
            fields,
            current: OnceLock::new(),
        })
    }
}

fn whole_hash(mac: &Hmac<Sha256>, operation: &str, fields: &CanonicalFields) -> [u8; 32] {
    let mut whole = mac.clone();
    update_framed(
        &mut whole,
        &[&FINGERPRINT_VERSION.to_be_bytes(), operation.as_bytes()],
    );
    for (path, value) in fields.sorted() {
        update_framed(&mut whole, &[path.as_bytes(), value.as_bytes()]);
    }
    whole.finalize().into_bytes().into()
}

/// One request's fingerprint under one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) hash: [u8; 32],
    /// A line for each field: six hexadecimal digits of a keyed digest, then the path.
    pub(crate) fields: String,
}

const DIGEST_DIGITS: usize = 6;

impl Fingerprint {
    fn with_fields(mac: &Hmac<Sha256>, hash: [u8; 32], fields: &CanonicalFields) -> Self {
        let mut lines = String::with_capacity(fields.fields.len() * 40);
        for (path, value) in fields.sorted() {
            let mut one = mac.clone();
            update_framed(&mut one, &[b"field", path.as_bytes(), value.as_bytes()]);
            let digest = hex::encode(&one.finalize().into_bytes()[..DIGEST_DIGITS / 2]);
            if !lines.is_empty() {
                lines.push('\n');
            }
            lines.push_str(&digest);
            // A path is a client's text where metadata is: keep it on its line, and out of PostgreSQL's way.
            lines.extend(
                path.chars()
                    .map(|c| if c.is_control() { '\u{fffd}' } else { c }),
            );
        }
        Self {
            hash,
            fields: lines,
        }
    }

    /// Path and digest of each field.
    fn digests(&self) -> BTreeSet<(&str, &str)> {
        let lines = self.fields.lines();
        let parts = lines.filter_map(|line| line.split_at_checked(DIGEST_DIGITS));
        parts.map(|(digest, path)| (path, digest)).collect()
    }

    /// The paths that are in one and not the other, or differ; sorted.
    fn changed(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.digests(), other.digests());
        let differing = ours.symmetric_difference(&theirs);
        let paths: BTreeSet<&str> = differing.map(|(path, _)| *path).collect();
        paths.into_iter().map(str::to_owned).collect()
    }
}

/// Length before content, so that no two lists of parts sign alike.
fn update_framed(mac: &mut Hmac<Sha256>, parts: &[&[u8]]) {
    for part in parts {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part);
    }
}

/// One request's fingerprints, under each secret; the first is the one to store. The digests of its fields are only made
/// where they are stored or compared: a replay needs the hash alone.
pub(crate) struct Fingerprints {
    signed: Vec<(Hmac<Sha256>, [u8; 32])>,
    fields: CanonicalFields,
    current: OnceLock<Arc<Fingerprint>>,
}

impl Fingerprints {
    pub(crate) fn current(&self) -> &Arc<Fingerprint> {
        self.current.get_or_init(|| {
            let (mac, hash) = &self.signed[0];
            Arc::new(Fingerprint::with_fields(mac, *hash, &self.fields))
        })
    }

    fn matches(&self, stored: &[u8]) -> bool {
        self.signed.iter().any(|(_, hash)| hash == stored)
    }

    /// `None` where the stored fingerprint is of this request.
    pub(crate) fn compare(&self, stored: &Fingerprint) -> Option<Mismatch> {
        if self.matches(&stored.hash) {
            return None;
        }
        // Which secret signed the stored one isn't known; under the right one, the fewest fields differ.
        let changed = self
            .signed
            .iter()
            .map(|(mac, hash)| Fingerprint::with_fields(mac, *hash, &self.fields).changed(stored))
            .min_by_key(Vec::len)
            .unwrap_or_default();
        Some(Mismatch {
            expected_hash: hex::encode(stored.hash),
            actual_hash: hex::encode(self.current().hash),
            changed,
        })
    }
}

/// Another request under the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The fingerprint of the request that used the key first, 64 hexadecimal digits.
    pub expected_hash: String,
    /// The fingerprint of this one.
    pub actual_hash: String,
    /// The paths of the fields that differ; never values.
    pub changed: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::idempotency::IdempotencyKey;

    fn key(operation: &str) -> ScopedKey {
        ScopedKey::new("acme", operation, IdempotencyKey::new("k").expect("a key"))
    }

    fn sign(secrets: &FingerprintSecrets, request: &Value) -> Fingerprints {
        Signer::new(secrets)
            .sign(&key("pay"), request)
            .expect("JSON")
    }

    #[test]
    fn the_order_of_fields_and_absent_ones_make_no_difference() {
        let secrets = FingerprintSecrets::new("s");
        let one = sign(&secrets, &json!({"a": 1, "b": {"c": [1, "x"]}, "d": null}));
        let two = sign(&secrets, &json!({"b": {"c": [1, "x"]}, "a": 1}));
        assert_eq!(one.compare(two.current()), None);
    }

    #[test]
    fn each_change_is_told_by_its_path() {
        let secrets = FingerprintSecrets::new("s");
        let base = sign(&secrets, &json!({"a": 1, "b": {"c": [1]}, "gone": true}));
        let other = sign(&secrets, &json!({"a": "1", "b": {"c": [1, 2]}, "new": 0}));
        let mismatch = other.compare(base.current()).expect("another request");
        assert_eq!(
            mismatch.changed,
            ["a", "b.c.1", "b.c.length", "gone", "new"]
        );
        assert_eq!(mismatch.expected_hash, hex::encode(base.current().hash));
        assert_ne!(mismatch.expected_hash, mismatch.actual_hash);
    }

    #[test]
    fn two_fields_whose_paths_read_alike_both_count() {
        let secrets = FingerprintSecrets::new("s");
        let request = |dotted: u8, nested: u8| json!({"a.b": dotted, "a": {"b": nested}});
        let base = sign(&secrets, &request(1, 2));
        for other in [request(9, 2), request(1, 9)] {
            let mismatch = sign(&secrets, &other).compare(base.current());
            assert_eq!(
                mismatch.map(|mismatch| mismatch.changed),
                Some(vec!["a.b".to_owned()]),
                "{other}"
            );
        }
    }

    #[test]
    fn operation_and_secret_are_part_of_it() {
        let request = json!({"a": 1});
        let signer = Signer::new(&FingerprintSecrets::new("s"));
        let pay = signer.sign(&key("pay"), &request).expect("JSON");
        let refund = signer.sign(&key("refund"), &request).expect("JSON");
        assert!(!pay.matches(&refund.current().hash));
        assert!(!pay.matches(&sign(&FingerprintSecrets::new("t"), &request).current().hash));
    }

    #[test]
    fn a_rotated_secret_accepts_what_the_old_one_signed_and_still_names_the_change() {
        let old = sign(&FingerprintSecrets::new("old"), &json!({"a": 1, "b": 2}));
        let rotated = FingerprintSecrets::new("new").accepting("old");
        assert_eq!(
            sign(&rotated, &json!({"a": 1, "b": 2})).compare(old.current()),
            None
        );
        let mismatch = sign(&rotated, &json!({"a": 1, "b": 3}))
            .compare(old.current())
            .expect("another request");
        assert_eq!(mismatch.changed, ["b"]);
    }

    #[test]
    fn the_stored_form_is_pinned() {
        // A change here makes every key under way a mismatch after an upgrade: raise FINGERPRINT_VERSION instead.
        let fingerprint = sign(
            &FingerprintSecrets::new("s"),
            &json!({"amount": "1.00", "meta": {"a\nb": "x"}}),
        );
        let Fingerprint { hash, fields } = &**fingerprint.current();
        assert_eq!(
            hex::encode(hash),
            "412b99822ee80e7a1469e363b6453e4fe651f12c661751eb688187b1b084b1ef"
        );
        assert_eq!(fields, "b14bfeamount\n7c8bc0meta.a\u{fffd}b");
    }
}
