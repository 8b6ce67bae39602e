//! Payments: charging a card once, and what may be done to the payment afterwards.
//!
//! [`Payments`] is the service: it takes a request through the idempotency engine's two phases with the gateway's call in
//! between. It uses nothing of the engine that another service could not use.
//!
//! A request goes through an operation's file (`operations/`), the service that the operations share (`service`, `turns`,
//! `gateway_call`, `settle`) and the SQL (`store/`). `transitions` applies a gateway's answer to a payment, and `answers` has the
//! response that is stored for it.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

pub(crate) mod answers;
mod error;
#[cfg(test)]
mod fenced_writes;
mod gateway_call;
mod group_commit;
mod metrics;
mod new_payment;
mod operation;
mod operations;
mod payment;
mod payment_view;
mod pending_refunds;
mod queries;
mod refund;
mod requests;
mod sanitize;
mod service;
mod settle;
mod store;
mod transitions;
mod turns;
mod turnstile;

pub use self::error::PaymentError;
pub use self::metrics::describe_metrics;
pub use self::new_payment::{Customer, Instrument, NewPayment};
pub use self::operation::Operation;
pub use self::payment::{Payment, PaymentState, Pending};
pub use self::queries::{Page, PaymentFilter};
pub use self::refund::{Refund, RefundState};
pub use self::requests::{CancelRequest, CaptureRequest, OnPayment, RefundRequest};
pub use self::service::{GatewayStatus, Payments};
pub(crate) use self::turnstile::{Turn, Turnstile};
