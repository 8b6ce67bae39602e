#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod canonical;
mod execute;
mod owner;
mod refusal;
mod reply;
mod request;
mod route;
mod rules;
mod slot;

pub use self::execute::{Executed, Handled, HandlerAnswer};
pub use self::owner::IntoOwner;
pub use self::refusal::{Refusal, nested};
pub use self::reply::Reply;
pub use self::request::Request;
pub use self::route::{Ending, Route, key_of};
pub use self::slot::{Lent, NoTransaction, Slot};
