//! A fingerprint tells whether two requests ask for the same thing: HMAC-SHA-256 over the request's canonical form.
//!
//! A plain hash of a card number can be searched; PCI DSS 3.5.1.1 therefore asks for a keyed one. The canonical form is a
//! sorted list of `path` and `value`: the order in which a client sends its fields, and how it spells a number, are gone
//! before it is signed, and an optional field at its default is not in it, so that an upgrade that adds a field leaves the
//! fingerprints of requests under way as they are.

mod canonical;
mod digests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

pub use self::canonical::{CanonicalFields, Fingerprinted};
use self::digests::Digest;
use crate::key::ScopedKey;

/// The version of the canonical form, which is stored beside each fingerprint, as in the example of
/// [`grouped`](crate::grouped#claims-in-groups). A change of the form needs a new number, and rows of an older version are compared by
/// that version's form.
pub const FINGERPRINT_VERSION: i16 = 2;

/// The form before. It joined names by a dot without marking what was an object, an array or a dot in a name, and said nothing
/// of the secret.
const UNMARKED_VERSION: i16 = 1;

/// The secrets that sign fingerprints. The first signs; each is accepted, so that a secret can be rotated while keys that
/// the old one signed are still remembered.
///
/// ```
/// use payonce_engine::FingerprintSecrets;
///
/// // While some nodes still have the older one, and until the keys that it signed have expired.
/// let secrets = FingerprintSecrets::new("the newer one").accepting("the older one");
/// assert_eq!(format!("{secrets:?}"), "FingerprintSecrets(2 hidden)");
/// ```
pub struct FingerprintSecrets(Vec<SecretSlice<u8>>);

impl FingerprintSecrets {
    /// Creates the secrets with the one that signs.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(vec![SecretSlice::from(secret.into())])
    }

    /// Also accepts what an older secret signed.
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
pub(crate) struct Signer(Vec<Secret>);

/// One secret, expanded.
#[derive(Clone)]
struct Secret {
    mac: Hmac<Sha256>,
    /// Tells it from other secrets, and no more of it.
    id: String,
}

impl Secret {
    fn new(secret: &SecretSlice<u8>) -> Option<Self> {
        // HMAC takes a key of any length (RFC 2104, 2): a longer one is hashed, a shorter one padded.
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.expose_secret()).ok()?;
        let mut named = mac.clone();
        update_framed(&mut named, &[b"payonce fingerprint secret"]);
        let id = hex::encode(&named.finalize().into_bytes()[..SECRET_ID_BYTES]);
        Some(Self { mac, id })
    }

    fn hash(&self, version: i16, operation: &str, fields: &CanonicalFields) -> [u8; 32] {
        let mut whole = self.mac.clone();
        update_framed(&mut whole, &[&version.to_be_bytes(), operation.as_bytes()]);
        for (path, value) in fields.sorted() {
            update_framed(&mut whole, &[path.as_bytes(), value.as_bytes()]);
        }
        whole.finalize().into_bytes().into()
    }

    /// The digest that names a field's change.
    fn digest(&self, path: &str, value: &str) -> Digest {
        let mut one = self.mac.clone();
        update_framed(&mut one, &[b"field", path.as_bytes(), value.as_bytes()]);
        let [first, second, third, ..] = one.finalize().into_bytes().0;
        [first, second, third]
    }
}

const SECRET_ID_BYTES: usize = 4;

impl Signer {
    pub(crate) fn new(secrets: &FingerprintSecrets) -> Self {
        Self(secrets.0.iter().filter_map(Secret::new).collect())
    }

    /// The secrets' ids; the first signs.
    pub(crate) fn secret_ids(&self) -> Vec<String> {
        self.0.iter().map(|secret| secret.id.clone()).collect()
    }

    /// Signs a request under each secret.
    pub(crate) fn sign(
        &self,
        key: &ScopedKey,
        request: &(impl Fingerprinted + ?Sized),
    ) -> Result<Fingerprints, serde_json::Error> {
        let mut fields = CanonicalFields::default();
        request.canonicalize(&mut fields)?;
        let sign = |secret: &Secret| {
            let hash = secret.hash(FINGERPRINT_VERSION, &key.operation, &fields);
            (secret.clone(), hash)
        };
        Ok(Fingerprints {
            key: key.clone(),
            signed: self.0.iter().map(sign).collect(),
            fields,
            known_paths: request.known_paths(),
            current: OnceLock::new(),
        })
    }
}

/// One request's fingerprint under one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) version: i16,
    pub(crate) hash: [u8; 32],
    /// The digests of the fields; see `digests.rs`.
    pub(crate) fields: String,
}

impl Fingerprint {
    fn with_fields(
        version: i16,
        secret: &Secret,
        hash: [u8; 32],
        fields: &CanonicalFields,
        known_paths: &[&str],
    ) -> Self {
        let sorted = fields.sorted();
        let digests = sorted
            .iter()
            .map(|&(path, value)| (path, secret.digest(path, value)));
        let fields = if version == UNMARKED_VERSION {
            digests::write_unmarked(digests)
        } else {
            digests::write(&secret.id, known_paths, digests)
        };
        Self {
            version,
            hash,
            fields,
        }
    }

    /// The paths that are in one and not the other, or differ; sorted.
    fn changed(&self, other: &Self, known_paths: &[&'static str]) -> Vec<String> {
        let ours = digests::read(&self.fields, known_paths);
        let theirs = digests::read(&other.fields, known_paths);
        let differing = ours.symmetric_difference(&theirs);
        let paths: BTreeSet<&str> = differing.map(|(path, _)| &**path).collect();
        paths.into_iter().map(str::to_owned).collect()
    }

    fn has_a_field_of(&self, other: &Self, known_paths: &[&'static str]) -> bool {
        let ours = digests::read(&self.fields, known_paths);
        !ours.is_disjoint(&digests::read(&other.fields, known_paths))
    }

    fn mismatch(&self, stored: &Self, known_paths: &[&'static str]) -> Mismatch {
        Mismatch {
            expected_hash: hex::encode(stored.hash),
            actual_hash: hex::encode(self.hash),
            changed: self.changed(stored, known_paths),
        }
    }
}

/// Length before content, so that no two lists of parts sign alike.
fn update_framed(mac: &mut Hmac<Sha256>, parts: &[&[u8]]) {
    for part in parts {
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part);
    }
}

/// How a request compares with the one that used the key first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// It is the same request.
    Same,
    /// It is another one.
    Other(Mismatch),
    /// The stored fingerprint cannot be read here: its secret, or its version, is not known to this process.
    Unreadable,
}

/// One request's fingerprints, under each secret; the first is the one to store. The digests of its fields are only made
/// where they are stored or compared: a replay needs the hash alone.
pub(crate) struct Fingerprints {
    key: ScopedKey,
    signed: Vec<(Secret, [u8; 32])>,
    fields: CanonicalFields,
    known_paths: &'static [&'static str],
    current: OnceLock<Arc<Fingerprint>>,
}

impl Fingerprints {
    pub(crate) fn current(&self) -> &Arc<Fingerprint> {
        self.current.get_or_init(|| {
            let (secret, hash) = &self.signed[0];
            Arc::new(self.under(secret, *hash))
        })
    }

    fn under(&self, secret: &Secret, hash: [u8; 32]) -> Fingerprint {
        let version = FINGERPRINT_VERSION;
        Fingerprint::with_fields(version, secret, hash, &self.fields, self.known_paths)
    }

    /// Compares by the stored fingerprint's own version and secret.
    pub(crate) fn compare(&self, stored: &Fingerprint) -> Comparison {
        match stored.version {
            FINGERPRINT_VERSION => self.compare_marked(stored),
            UNMARKED_VERSION => self.compare_unmarked(stored),
            _ => Comparison::Unreadable,
        }
    }

    fn compare_marked(&self, stored: &Fingerprint) -> Comparison {
        if self.signed.iter().any(|(_, hash)| *hash == stored.hash) {
            return Comparison::Same;
        }
        let signer = digests::secret_id(&stored.fields);
        let Some((secret, hash)) = self
            .signed
            .iter()
            .find(|(secret, _)| Some(secret.id.as_str()) == signer)
        else {
            return Comparison::Unreadable;
        };
        let ours = self.under(secret, *hash);
        Comparison::Other(ours.mismatch(stored, self.known_paths))
    }

    /// The stored fingerprint does not say which secret signed it. The right one is that under which the fewest fields differ. If no
    /// field is equal under any secret, none of them signed it.
    fn compare_unmarked(&self, stored: &Fingerprint) -> Comparison {
        let unmarked = self.fields.unmarked();
        let fields = unmarked.as_ref().unwrap_or(&self.fields);
        let ours = self.signed.iter().map(|(secret, _)| {
            let hash = secret.hash(UNMARKED_VERSION, &self.key.operation, fields);
            Fingerprint::with_fields(UNMARKED_VERSION, secret, hash, fields, &[])
        });
        let ours: Vec<Fingerprint> = ours.collect();
        if ours.iter().any(|ours| ours.hash == stored.hash) {
            return Comparison::Same;
        }
        ours.iter()
            .filter(|ours| ours.has_a_field_of(stored, &[]))
            .map(|ours| ours.mismatch(stored, &[]))
            .min_by_key(|mismatch| mismatch.changed.len())
            .map_or(Comparison::Unreadable, Comparison::Other)
    }
}

/// Another request under the same key.
///
/// ```
/// use payonce_engine::Mismatch;
///
/// /// A client's error message, which names fields and never a value.
/// fn explain(mismatch: &Mismatch) -> String {
///     format!("the key was used with another request; changed: {}", mismatch.changed.join(", "))
/// }
///
/// let mismatch = Mismatch {
///     expected_hash: "df03…".to_owned(),
///     actual_hash: "0ef2…".to_owned(),
///     changed: vec!["amount".to_owned()],
/// };
/// assert!(explain(&mismatch).ends_with("changed: amount"));
/// ```
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

    use serde_json::Value;

    use super::*;
    use crate::IdempotencyKey;

    fn key(operation: &str) -> ScopedKey {
        ScopedKey::new("acme", operation, IdempotencyKey::new("k").expect("a key"))
    }

    fn sign(secrets: &FingerprintSecrets, request: &Value) -> Fingerprints {
        Signer::new(secrets)
            .sign(&key("pay"), request)
            .expect("JSON")
    }

    /// The fingerprint as version 1 stored it.
    fn unmarked(secrets: &FingerprintSecrets, request: &Value) -> Fingerprint {
        let signed = sign(secrets, request);
        let fields = signed.fields.unmarked().expect("JSON");
        let (secret, _) = &signed.signed[0];
        let hash = secret.hash(UNMARKED_VERSION, "pay", &fields);
        Fingerprint::with_fields(UNMARKED_VERSION, secret, hash, &fields, &[])
    }

    fn changed(comparison: Comparison) -> Vec<String> {
        match comparison {
            Comparison::Other(mismatch) => mismatch.changed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_order_of_fields_and_absent_ones_make_no_difference() {
        let secrets = FingerprintSecrets::new("s");
        let one = sign(&secrets, &json!({"a": 1, "b": {"c": [1, "x"]}, "d": null}));
        let two = sign(&secrets, &json!({"b": {"c": [1, "x"]}, "a": 1}));
        assert_eq!(one.compare(two.current()), Comparison::Same);
    }

    #[test]
    fn each_change_is_told_by_its_path() {
        let secrets = FingerprintSecrets::new("s");
        let base = sign(&secrets, &json!({"a": 1, "b": {"c": [1]}, "gone": true}));
        let other = sign(&secrets, &json!({"a": "1", "b": {"c": [1, 2]}, "new": 0}));
        let Comparison::Other(mismatch) = other.compare(base.current()) else {
            panic!("it is another request");
        };
        assert_eq!(mismatch.changed, ["a", "b.c[1]", "gone", "new"]);
        assert_eq!(mismatch.expected_hash, hex::encode(base.current().hash));
        assert_ne!(mismatch.expected_hash, mismatch.actual_hash);
    }

    /// Values that an earlier form took for the same, and others that are easily confused.
    #[test]
    fn no_two_values_sign_alike() {
        let values = [
            json!({"a.b": 1}),
            json!({"a": {"b": 1}}),
            json!({"a": [1]}),
            json!({"a": {"0": 1, "length": 1}}),
            json!({"a": {"length": "1", "0": 1}}),
            json!({"a[0]": 1}),
            json!({"a": {"[0]": 1}}),
            json!({"a": []}),
            json!({"a": {}}),
            json!({"a": "[]"}),
            json!({"a": "{}"}),
            json!({"a": [null]}),
            json!({"a": [null, null]}),
            json!({"a": [{}]}),
            json!({"a": [[]]}),
            json!({"": 1}),
            json!({"\\e": 1}),
            json!({"value": 1}),
            json!(1),
            json!("1"),
            json!([1]),
            json!([]),
            json!({}),
            json!(null),
            json!({"length": "0"}),
            json!({"a\\": {"b": 1}}),
            json!({"a\\.b": 1}),
            json!({"a": true}),
            json!({"a": "true"}),
        ];
        let secrets = FingerprintSecrets::new("s");
        for (index, one) in values.iter().enumerate() {
            for other in &values[index + 1..] {
                let stored = sign(&secrets, other);
                assert_ne!(
                    sign(&secrets, one).compare(stored.current()),
                    Comparison::Same,
                    "{one} and {other}"
                );
            }
        }
    }

    #[test]
    fn a_row_of_the_old_version_is_compared_by_the_old_form() {
        let secrets = FingerprintSecrets::new("s");
        let request = json!({"a": {"b": [1, null]}, "c": {}, "d": "x"});
        let stored = unmarked(&secrets, &request);
        assert_eq!(sign(&secrets, &request).compare(&stored), Comparison::Same);
        let other = json!({"a": {"b": [2, null]}, "c": {}, "d": "x"});
        assert_eq!(changed(sign(&secrets, &other).compare(&stored)), ["a.b.0"]);
    }

    #[test]
    fn a_version_or_a_secret_that_is_not_known_is_no_mismatch() {
        let request = json!({"a": 1, "b": 2});
        let (ours, theirs) = (
            FingerprintSecrets::new("ours"),
            FingerprintSecrets::new("theirs"),
        );
        let newer = Fingerprint {
            version: FINGERPRINT_VERSION + 1,
            ..(**sign(&ours, &request).current()).clone()
        };
        let signed = sign(&ours, &request);
        assert_eq!(signed.compare(&newer), Comparison::Unreadable);
        let foreign = sign(&theirs, &request);
        assert_eq!(signed.compare(foreign.current()), Comparison::Unreadable);
        let old_and_foreign = unmarked(&theirs, &request);
        assert_eq!(signed.compare(&old_and_foreign), Comparison::Unreadable);
    }

    #[test]
    fn operation_and_secret_are_part_of_it() {
        let request = json!({"a": 1});
        let signer = Signer::new(&FingerprintSecrets::new("s"));
        let pay = signer.sign(&key("pay"), &request).expect("JSON");
        let refund = signer.sign(&key("refund"), &request).expect("JSON");
        assert_ne!(pay.compare(refund.current()), Comparison::Same);
        let other_secret = sign(&FingerprintSecrets::new("t"), &request);
        assert_ne!(pay.compare(other_secret.current()), Comparison::Same);
    }

    #[test]
    fn a_rotated_secret_accepts_what_the_old_one_signed_and_still_names_the_change() {
        let request = json!({"a": 1, "b": 2});
        let rotated = FingerprintSecrets::new("new").accepting("old");
        let old = FingerprintSecrets::new("old");
        for stored in [
            (**sign(&old, &request).current()).clone(),
            unmarked(&old, &request),
        ] {
            assert_eq!(sign(&rotated, &request).compare(&stored), Comparison::Same);
            let other = sign(&rotated, &json!({"a": 1, "b": 3}));
            assert_eq!(changed(other.compare(&stored)), ["b"]);
        }
    }

    #[test]
    fn the_stored_forms_are_pinned() {
        // A change here makes every key under way unreadable after an upgrade: raise FINGERPRINT_VERSION instead.
        let secrets = FingerprintSecrets::new("s");
        let request = json!({"amount": "1.00", "meta": {"a\nb": "x"}});
        let Fingerprint { hash, fields, .. } = unmarked(&secrets, &request);
        assert_eq!(
            hex::encode(hash),
            "412b99822ee80e7a1469e363b6453e4fe651f12c661751eb688187b1b084b1ef"
        );
        assert_eq!(fields, "b14bfeamount\n7c8bc0meta.a\u{fffd}b");
        let signed = sign(&secrets, &request);
        let Fingerprint { hash, fields, .. } = &**signed.current();
        assert_eq!(
            (hex::encode(hash).as_str(), fields.as_str()),
            (
                "acff074fd86ff80ba9aec1efa4f64937daa37e9e1d2b628d379656654c48645b",
                "~5e993171\n\nsUv-amount\nfIvAmeta.a\u{fffd}b"
            )
        );
        // Rows from before the compact form.
        let lines = Fingerprint {
            fields: "#5e993171\nb14bfeamount\n7c8bc0meta.a\u{fffd}b".to_owned(),
            ..(**signed.current()).clone()
        };
        let other = json!({"amount": "2.00", "meta": {"a\nb": "x"}});
        assert_eq!(changed(sign(&secrets, &other).compare(&lines)), ["amount"]);
    }
}
