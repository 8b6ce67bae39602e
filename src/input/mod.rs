//! Parses a request's JSON body by hand, field by field. All errors are reported at once, each with the path of its field.
//!
//! A derived `Deserialize` stops at the first error, parses numbers as floats, and repeats the input in its messages. Clients need all
//! errors, amounts need their exact text, and card numbers must not appear in any message.
//!
//! ```ignore
//! let order = input::read_object(body, |fields| {
//!     let id = fields.required("id", text(1..=255));
//!     let note = fields.optional("note", multiline_text(0..=1000));
//!     Ok(Order { id: id?, note: note? })
//! })?;
//! ```
//!
//! All fields are read before the first `?`, so that each of them can report its error.

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

/// An error in one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// The path of the field, such as `paymentMethod.details.cardNumber`; empty for the whole body.
    pub field: String,
    /// The rest of a sentence that begins with the field: `is required`. It never repeats a value.
    pub message: String,
}

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// It is not a JSON object (RFC 8259) in UTF-8. The message says where parsing stopped, and never repeats the input.
    #[error("the body is not a JSON object: {0}")]
    Malformed(String),
    /// It is a JSON object, but its fields or values are not valid.
    #[error("{} of the request's fields are not valid", .0.len())]
    Invalid(Vec<FieldError>),
}
