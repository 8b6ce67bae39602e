//! An idempotency key names one thing that a client wants done once.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The longest key, in bytes.
///
/// ```
/// use payonce_engine::{IdempotencyKey, InvalidKey, MAX_KEY_LENGTH};
///
/// assert!(IdempotencyKey::new("k".repeat(MAX_KEY_LENGTH)).is_ok());
/// assert_eq!(IdempotencyKey::new("k".repeat(256)), Err(InvalidKey::TooLong(256)));
/// ```
pub const MAX_KEY_LENGTH: usize = 255;

/// Maximum length of a merchant's or an operation's name, in bytes.
const MAX_NAME_LENGTH: usize = 255;

/// A client's key: 1–255 visible ASCII characters.
///
/// ```
/// use payonce_engine::IdempotencyKey;
///
/// assert_eq!(IdempotencyKey::new("cart-17")?.as_str(), "cart-17");
/// assert!(IdempotencyKey::new("").is_err());
/// assert!(IdempotencyKey::new("a b").is_err());
/// # Ok::<(), payonce_engine::InvalidKey>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(String);

/// Why a text is not a valid key.
///
/// ```
/// use payonce_engine::{IdempotencyKey, InvalidKey};
///
/// assert_eq!(IdempotencyKey::new(""), Err(InvalidKey::Empty));
/// assert_eq!(IdempotencyKey::new("cart 17"), Err(InvalidKey::NotVisibleAscii));
/// assert_eq!(IdempotencyKey::from_header(br#""cart-17"#), Err(InvalidKey::BadQuoting));
/// ```
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidKey {
    /// It is empty.
    #[error("the idempotency key is empty")]
    Empty,
    /// It has more than [`MAX_KEY_LENGTH`] characters.
    #[error("the idempotency key has {0} characters; the most is {MAX_KEY_LENGTH}")]
    TooLong(usize),
    /// It has a space, a control character or a character outside ASCII.
    #[error("the idempotency key has a character that is not visible ASCII")]
    NotVisibleAscii,
    /// It starts with a quote and is not an RFC 8941 string.
    #[error("the idempotency key starts with a quote but is not a quoted string (RFC 8941)")]
    BadQuoting,
}

impl IdempotencyKey {
    /// Reads a key as it stands in the `Idempotency-Key` header: bare, or as an RFC 8941 quoted string. Both spellings
    /// are the same key.
    ///
    /// ```
    /// use payonce_engine::IdempotencyKey;
    ///
    /// let quoted = IdempotencyKey::from_header(br#""cart-17""#)?;
    /// assert_eq!(quoted, IdempotencyKey::from_header(b"cart-17")?);
    /// # Ok::<(), payonce_engine::InvalidKey>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidKey`], which says what is wrong with it.
    pub fn from_header(value: &[u8]) -> Result<Self, InvalidKey> {
        let value = value.trim_ascii();
        if value.first() == Some(&b'"') {
            Self::new(&unquote(value)?)
        } else {
            Self::new(value)
        }
    }

    /// Parses a bare key.
    ///
    /// Unlike in [`IdempotencyKey::from_header`], a quote is a character like any other:
    ///
    /// ```
    /// use payonce_engine::IdempotencyKey;
    ///
    /// assert_eq!(IdempotencyKey::new(r#""cart-17""#)?.as_str(), r#""cart-17""#);
    /// # Ok::<(), payonce_engine::InvalidKey>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidKey`], but never [`InvalidKey::BadQuoting`].
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self, InvalidKey> {
        let key = key.as_ref();
        if key.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if !key.iter().all(u8::is_ascii_graphic) {
            return Err(InvalidKey::NotVisibleAscii);
        }
        if key.len() > MAX_KEY_LENGTH {
            return Err(InvalidKey::TooLong(key.len()));
        }
        String::from_utf8(key.to_vec())
            .map(Self)
            .map_err(|_| InvalidKey::NotVisibleAscii)
    }

    /// The bare key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 8941, 3.3.3: `"`, then characters in which only `\"` and `\\` are escapes, then `"`.
fn unquote(value: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .ok_or(InvalidKey::BadQuoting)?;
    let mut key = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return Err(InvalidKey::BadQuoting),
            b'\\' => match bytes.next() {
                Some(&escaped @ (b'"' | b'\\')) => key.push(escaped),
                _ => return Err(InvalidKey::BadQuoting),
            },
            plain => key.push(plain),
        }
    }
    Ok(key)
}

/// A key in its scope, `merchant:operation:key`. The keys of different merchants or operations are always different. Cloning it is
/// cheap.
///
/// ```
/// use payonce_engine::{IdempotencyKey, ScopedKey};
///
/// let key = ScopedKey::new("acme", "create_order", IdempotencyKey::new("cart-17")?);
/// assert_eq!(key.to_string(), "acme:create_order:cart-17");
/// assert_eq!(key.operation, "create_order");
/// # Ok::<(), payonce_engine::InvalidKey>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopedKey(Arc<Scope>);

/// What a [`ScopedKey`] consists of.
///
/// ```
/// use payonce_engine::{IdempotencyKey, Scope, ScopedKey};
///
/// let key = ScopedKey::new("acme", "create_order", IdempotencyKey::new("cart-17")?);
/// let Scope { merchant_id, operation, key } = &*key;
/// assert_eq!((merchant_id.as_str(), operation.as_str(), key.as_str()), ("acme", "create_order", "cart-17"));
/// # Ok::<(), payonce_engine::InvalidKey>(())
/// ```
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// Whose key it is.
    pub merchant_id: String,
    /// What it is for, e.g. `create_payment`.
    pub operation: String,
    /// The client's key.
    pub key: IdempotencyKey,
}

/// A name in a key's scope that the tables do not hold.
///
/// ```
/// use payonce_engine::InvalidScope;
///
/// let refused = InvalidScope { name: "operation", length: 0 };
/// assert_eq!(refused.to_string(), "the operation of the key's scope has 0 bytes, not 1 to 255");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {name} of the key's scope has {length} bytes, not 1 to {MAX_NAME_LENGTH}")]
pub struct InvalidScope {
    /// `merchant_id` or `operation`.
    pub name: &'static str,
    /// Its length in bytes.
    pub length: usize,
}

impl ScopedKey {
    /// Puts a key in its scope. `merchant_id` and `operation` are names that the service chooses, 1–255 bytes each. Never take them
    /// from a client: a client that chose another merchant's id would read that merchant's answers.
    ///
    /// ```
    /// use payonce_engine::{IdempotencyKey, ScopedKey};
    ///
    /// let cart = IdempotencyKey::new("cart-17")?;
    /// let acme = ScopedKey::new("acme", "create_order", cart.clone());
    /// // Two merchants may use the same key, and so may two operations of one merchant.
    /// assert_ne!(acme, ScopedKey::new("globex", "create_order", cart.clone()));
    /// assert_ne!(acme, ScopedKey::new("acme", "cancel_order", cart));
    /// # Ok::<(), payonce_engine::InvalidKey>(())
    /// ```
    pub fn new(
        merchant_id: impl Into<String>,
        operation: impl Into<String>,
        key: IdempotencyKey,
    ) -> Self {
        Self(Arc::new(Scope {
            merchant_id: merchant_id.into(),
            operation: operation.into(),
            key,
        }))
    }

    /// Refuses names that the tables do not hold. The schema does not check them (migration 0003).
    pub(crate) fn check(&self) -> Result<(), InvalidScope> {
        for (name, value) in [
            ("merchant_id", &self.merchant_id),
            ("operation", &self.operation),
        ] {
            let length = value.len();
            if length == 0 || length > MAX_NAME_LENGTH {
                return Err(InvalidScope { name, length });
            }
        }
        Ok(())
    }
}

impl Deref for ScopedKey {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.0
    }
}

impl fmt::Display for ScopedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.merchant_id, self.operation, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_scope_have_1_to_255_bytes() {
        let check = |merchant_id: &str, operation: &str| {
            let key = IdempotencyKey::new("k").expect("a key");
            ScopedKey::new(merchant_id, operation, key).check()
        };
        let longest = "é".repeat(127) + "e";
        assert!(check("a", &longest).is_ok());
        let long = longest.clone() + "e";
        for (merchant_id, operation, expected) in [
            ("", "o", ("merchant_id", 0)),
            ("a", "", ("operation", 0)),
            (long.as_str(), "o", ("merchant_id", 256)),
            ("a", long.as_str(), ("operation", 256)),
        ] {
            let refused = check(merchant_id, operation);
            let (name, length) = expected;
            assert_eq!(refused, Err(InvalidScope { name, length }));
        }
    }

    #[test]
    fn a_quoted_key_is_the_same_key_as_the_bare_one() {
        for (header, key) in [
            ("abc", "abc"),
            ("\"abc\"", "abc"),
            (" abc ", "abc"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#"a"b"#, r#"a"b"#),
        ] {
            assert_eq!(
                IdempotencyKey::from_header(header.as_bytes()).map(|k| k.0),
                Ok(key.to_owned()),
                "{header}"
            );
        }
    }

    #[test]
    fn a_key_has_1_to_255_visible_characters() {
        assert!(IdempotencyKey::new("k".repeat(255)).is_ok());
        assert_eq!(
            IdempotencyKey::new("k".repeat(256)),
            Err(InvalidKey::TooLong(256))
        );
        assert_eq!(IdempotencyKey::new(""), Err(InvalidKey::Empty));
        assert_eq!(IdempotencyKey::from_header(b"\"\""), Err(InvalidKey::Empty));
        for bad in ["a b", "a\tb", "schlüssel", "\u{7f}", "\"a b\""] {
            assert_eq!(
                IdempotencyKey::from_header(bad.as_bytes()),
                Err(InvalidKey::NotVisibleAscii),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_broken_quote_is_refused() {
        for bad in [
            "\"",
            "\"abc",
            "\"a\"b\"",
            "\"a\\b\"",
            "\"a\\\"",
            "\"abc\";v=1",
        ] {
            assert_eq!(
                IdempotencyKey::from_header(bad.as_bytes()),
                Err(InvalidKey::BadQuoting),
                "{bad}"
            );
        }
    }
}
