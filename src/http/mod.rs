//! The HTTP edge, and the only module that knows actix-web.
//!
//! * [`routes`]: every route in one list.
//! * `payments`, `refunds`, `keys`: handlers that extract, parse, make one call and respond.
//! * `operations`: health, metrics, and what explains the service; `pages`: how that looks in a browser.
//! * [`openapi_json`]: the OpenAPI document, from the code.
//! * [`KeyHeader`] and [`stored_response`]: what an embedding service needs to do the same.
//! * `request`: what is asked of every request before its handler sees it; `reply`: what every reply carries.
//! * `observe`: request ids, one log line and the metrics of each request.

mod body_guard;
mod card_intake;
mod docs;
mod key_header;
mod keys;
mod limits;
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
pub use self::observe::{InFlight, observe};
pub use self::openapi::openapi_json;
pub use self::read_limiter::ReadLimiter;
pub use self::routes::routes;
pub use self::services::Services;
pub use self::stored::{answer_response, stored_response};
