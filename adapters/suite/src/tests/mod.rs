//! The tests, by what they are about.

pub mod answers;
pub mod crashes;
pub mod ends;
pub mod keys;
pub mod requests;
pub mod transactions;
