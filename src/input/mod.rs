//! Reading a request's JSON body: every field by hand, every error at once, and each error with its field's path.
//!
//! A derived `Deserialize` stops at the first error, reads numbers through floats and repeats the input in its messages; a
//! client wants all errors, an amount wants its exact text, and a card number wants no message at all.
//!
//! ```ignore
//! let order = input::read_object(body, |fields| {
//!     let id = fields.required("id", text(1..=255));
//!     let note = fields.optional("note", multiline_text(0..=1000));
//!     Ok(Order { id: id?, note: note? })
//! })?;
//! ```
//!
//! All fields are read before the first `?`, so that each has its say.

mod fields;
mod object;
mod problems;
mod readers;
mod string_map;
mod value;

use serde::Serialize;

pub use self::fields::{Fields, read_object, read_optional_object};
pub use self::problems::Rejected;
pub(crate) use self::problems::shown as shown_name;
pub use self::readers::{boolean, decimal_text, multiline_text, named, text, token, whole_number};
pub use self::string_map::StringMapLimits;
pub use self::value::{Fault, Value};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where: `paymentMethod.details.cardNumber`; empty for the whole body.
    pub field: String,
    /// What, for people, as the rest of a sentence that the field begins: `is required`. Never repeats a value.
    pub message: String,
}

/// Why a body is not the request that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// No JSON object (RFC 8259) in UTF-8. Says where reading stopped; never repeats the input.
    #[error("the body is not a JSON object: {0}")]
    Malformed(String),
    /// A JSON object, with other fields or values than the request has.
    #[error("{} of the request's fields are not valid", .0.len())]
    Invalid(Vec<FieldError>),
}
