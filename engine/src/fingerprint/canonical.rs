//! The canonical form of a request: its fields, however the client spelled and ordered them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Serialize;
use serde_json::Value;

/// A request's fields, by path (`customer.email`). Dropped after signing; never stored, logged or printed.
///
/// ```
/// use payonce_engine::CanonicalFields;
///
/// /// The fields of a payment. `0` and `0.00` are one amount, so both have to arrive as the same text.
/// fn fields_of(cents: i64, note: Option<&str>, is_gift: bool) -> CanonicalFields {
///     let mut fields = CanonicalFields::default();
///     fields.insert("amount", format!("{}.{:02}", cents / 100, cents % 100));
///     fields.insert_some("note", note);
///     // A field at its default stays out. So a version that adds the field gives old requests the same fingerprint.
///     fields.insert_some("isGift", is_gift.then_some("true"));
///     fields
/// }
/// # let _ = fields_of(500, None, false);
/// ```
#[derive(Default)]
pub struct CanonicalFields {
    /// The values, one after the other: a field more costs no allocation.
    values: String,
    fields: Vec<Field>,
    /// The request as JSON, where its fields come from it: what rows of an older version are compared by.
    json: Option<Value>,
}

struct Field {
    path: Cow<'static, str>,
    value: Range<usize>,
}

impl CanonicalFields {
    /// Adds a field. Equal values must arrive here as the same text, such as `10` and `10.00`.
    pub fn insert(&mut self, path: impl Into<Cow<'static, str>>, value: impl AsRef<str>) {
        let start = self.values.len();
        self.values.push_str(value.as_ref());
        self.fields.push(Field {
            path: path.into(),
            value: start..self.values.len(),
        });
    }

    /// Paths and values by path, and where a path is there twice by value: the order in which they came makes no difference.
    pub(super) fn sorted(&self) -> Vec<(&str, &str)> {
        let value_of = |field: &Field| self.values.get(field.value.clone()).unwrap_or_default();
        let pairs = self
            .fields
            .iter()
            .map(|field| (&*field.path, value_of(field)));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        pairs
    }

    /// Adds a field if it has a value.
    pub fn insert_some(&mut self, path: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.insert(path, value);
        }
    }

    /// Adds the leaves of a JSON value. No two values give the same fields, but for object members that are `null`, which count
    /// as absent: names have their special characters escaped, array elements stand in brackets, and what is empty is said.
    fn mark(&mut self, path: String, value: &Value) {
        match value {
            Value::Object(members) => {
                let mut is_empty = true;
                for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
                    is_empty = false;
                    self.mark(member(&path, name), value);
                }
                if is_empty {
                    self.insert(path, "{}");
                }
            }
            Value::Array(items) if items.is_empty() => self.insert(path, "[]"),
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.mark(format!("{path}[{index}]"), value);
                }
            }
            scalar => self.insert(path, scalar.to_string()),
        }
    }

    /// The fields as version 1 had them.
    pub(super) fn unmarked(&self) -> Option<Self> {
        let mut fields = Self::default();
        fields.flatten("", self.json.as_ref()?);
        Some(fields)
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

/// The path of an object's member. An empty name has a spelling of its own, so that only the root has the empty path.
fn member(path: &str, name: &str) -> String {
    let mut joined = String::with_capacity(path.len() + name.len() + 1);
    joined.push_str(path);
    if !path.is_empty() {
        joined.push('.');
    }
    if name.is_empty() {
        joined.push_str("\\e");
    }
    for c in name.chars() {
        if matches!(c, '.' | '[' | '\\') {
            joined.push('\\');
        }
        joined.push(c);
    }
    joined
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
/// Every type that implements [`Serialize`] implements this: the leaves of its JSON form are the fields, and `null` counts as absent. A
/// type that must not be serializable, because it holds a card, implements this by hand.
///
/// ```
/// use payonce_engine::{CanonicalFields, Fingerprinted};
///
/// struct NewOrder {
///     sku: String,
///     quantity: u32,
///     /// Another value with each attempt, so it is not part of the request.
///     sent_at: String,
/// }
///
/// impl Fingerprinted for NewOrder {
///     fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error> {
///         fields.insert("sku", &self.sku);
///         fields.insert("quantity", self.quantity.to_string());
///         Ok(())
///     }
/// }
/// ```
pub trait Fingerprinted {
    /// Writes the fields that make this request what it is.
    ///
    /// # Errors
    ///
    /// It has no JSON form. The engine returns this as [`Uncanonical`](crate::IdempotencyError::Uncanonical).
    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error>;

    /// Paths that requests of this kind often have, 64 at most. A row keeps the digest of such a field in five bytes, without its
    /// path. Later versions only append to the list: a row names a path by its place in it.
    fn known_paths(&self) -> &'static [&'static str] {
        &[]
    }
}

impl<T: Serialize + ?Sized> Fingerprinted for T {
    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error> {
        let json = serde_json::to_value(self)?;
        fields.mark(String::new(), &json);
        fields.json = Some(json);
        Ok(())
    }
}
