//! The HTTP edge, and the only module that knows actix-web.
//!
//! * [`routes`]: every route in one list.
//! * `payments`, `refunds`, `keys`: handlers that extract, parse, make one call and respond.
//! * `operations`: health, metrics, and what explains the service; `pages`: how that looks in a browser.
//! * [`openapi_json`]: the OpenAPI document, from the code.
//! * [`KeyHeader`] and [`stored_response`]: what an embedding service needs to do the same.
//! * `request`: what is asked of every request before its handler sees it; `reply`: what every reply carries.
//! * `observe`: request ids, one log line and the metrics of each request.

mod docs;
mod key_header;
mod keys;
mod limits;
mod observe;
mod openapi;
mod operations;
mod pages;
mod payments;
mod problem;
mod problem_example;
mod query;
mod reads;
mod refunds;
mod reply;
mod request;
mod routes;
mod sent;
mod stored;
mod unread;

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;

pub use self::key_header::{KEY_HEADER, KeyHeader};
pub use self::limits::Limits;
pub use self::observe::{InFlight, observe};
pub use self::openapi::openapi_json;
pub use self::reads::Reads;
pub use self::routes::routes;
pub use self::stored::{answer_response, stored_response};
use crate::config::CardIntake;
use crate::merchants::{Authenticator, RateLimiter};
use crate::payments::Payments;

/// What the handlers work with.
pub struct Services {
    /// The payments.
    pub payments: Payments,
    /// Who calls.
    pub authenticator: Authenticator,
    /// How often each may call; `None`: as often as it likes.
    pub rate_limiter: Option<RateLimiter>,
    /// Whose turn it is to read.
    pub reads: Reads,
    /// Whether clients may send cards themselves.
    pub card_intake: CardIntake,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// The database, for `/readyz` and the pool's metrics.
    pub pool: PgPool,
    /// What `/metrics` shows.
    pub metrics: PrometheusHandle,
}
