//! Money: a whole number of a currency's minor units, read and written as decimals, never through a float.
//!
//! A client writes a [`MajorAmount`] (`99.99`); with its [`Currency`] it becomes an [`Amount`] (9999 cents), which the rest of the
//! service uses.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::float_arithmetic
)]

mod amount;
mod currency;
mod major;

pub use self::amount::{Amount, ArithmeticError, MAX_MINOR};
pub use self::currency::Currency;
pub use self::major::{AmountError, MajorAmount};
