//! The HTTP edge. Only this module and the console know actix-web.
//!
//! * [`routes`]: every route in one list.
//! * `payments`, `refunds`, `keys`: handlers that extract, parse, make one call and respond.
//! * `operations`: health, metrics and explanations of problems; `pages`: the same as pages for a browser.
//! * [`openapi_json`]: the OpenAPI document, from the code.
//! * [`KeyHeader`] and [`stored_response`]: for an embedding service that does the same.
//! * `request`: the checks before every handler; `reply`: what replies have in common.
//! * `observe`: request ids, one log line for each request, and its metrics.

mod body_guard;
mod card_intake;
mod docs;
mod key_header;
mod keys;
mod limits;
mod metrics;
mod observe;
mod openapi;
mod operations;
mod pages;
mod payload_hold;
mod payments;
mod problem;
mod query;
mod read_limiter;
mod refunds;
mod reply;
mod request;
mod request_shapes;
mod routes;
mod samples;
mod services;
mod stored;

pub use self::card_intake::CardIntake;
pub use self::key_header::{KEY_HEADER, KeyHeader};
pub use self::limits::Limits;
pub use self::metrics::{describe_metrics, show_cell};
pub use self::observe::{InFlight, observe};
pub use self::openapi::openapi_json;
pub use self::read_limiter::ReadLimiter;
pub use self::routes::routes;
pub use self::services::Services;
pub use self::stored::{answer_response, stored_response};
