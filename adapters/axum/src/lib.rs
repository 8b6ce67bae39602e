#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod extract;
mod layer;
mod nesting;
mod reply;
mod service;

pub use payonce_engine;
pub use payonce_http::{Ending, IntoOwner, NoTransaction, Refusal, Reply};

pub use self::extract::{Key, KeyRejection, Tx, TxRejection};
pub use self::layer::{IdempotentLayer, Ready, Unnamed, Unowned};
pub use self::reply::respond;
pub use self::service::Idempotent;
