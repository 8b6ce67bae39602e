#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc)]

mod extract;
mod middleware;
mod reply;
mod stop;
mod wrap;

pub use payonce_engine;
pub use payonce_http::{Ending, IntoOwner, NoTransaction, Refusal, Reply};

pub use self::extract::{Key, KeyError, Tx, TxError};
pub use self::middleware::IdempotentMiddleware;
pub use self::reply::respond;
pub use self::stop::stop;
pub use self::wrap::{Idempotent, Ready, Unnamed, Unowned};
