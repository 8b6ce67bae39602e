//! Payments: what a merchant asks for once, and what may be done to it afterwards.
//!
//! [`Payments`] is the service: it takes a request through the idempotency engine's two phases with the gateway's call in
//! between. It uses nothing of the engine that another service could not use.

mod adjust;
mod adjustment;
pub(crate) mod answers;
mod call;
mod capture_method;
mod create;
mod error;
#[cfg(test)]
mod fenced_writes;
mod give_back;
mod groups;
mod metrics;
mod new_payment;
mod operation;
mod payment;
mod payment_view;
mod pending_refunds;
mod refund;
mod refused_settle;
mod service;
mod settlement;
mod storable;
mod store;
mod turns;

pub use self::adjustment::{CancelRequest, CaptureRequest, OnPayment, RefundRequest};
pub use self::capture_method::{CaptureMethod, UnknownCaptureMethod};
pub use self::error::PaymentError;
pub use self::metrics::describe_metrics;
pub use self::new_payment::{Customer, Instrument, NewPayment};
pub use self::operation::Operation;
pub use self::payment::{Payment, PaymentState, Pending};
pub use self::refund::{Refund, RefundState};
pub use self::service::{GatewayStatus, Page, PaymentFilter, Payments, Reply};
pub(crate) use self::turns::{Turn, Turnstile};
