//! An example of each problem, made by the code that makes the real ones.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::gateway::{Decline, Refusal};
use crate::http::problem::keyed;
use crate::idempotency::Mismatch;
use crate::payments::{NewPayment, PaymentError, PaymentState, answers};
use crate::problem::{Code, HasCharged, Problem};

/// The example of a problem, as it is sent.
pub(in crate::http) fn problem(code: Code) -> Value {
    serde_json::from_slice(&body(code)).unwrap_or_default()
}

fn body(code: Code) -> Bytes {
    match code {
        Code::PaymentDeclined => {
            answers::declined(super::PAYMENT_ID, &declined())
                .into_response()
                .body
        }
        Code::PaymentStateConflict => {
            let payment = super::payment_in(PaymentState::Failed);
            answers::state_conflict(&payment, "captured")
                .into_response()
                .body
        }
        Code::AmountTooLarge => {
            let payment = super::payment_in(PaymentState::Success);
            let asked = payment.in_currency(100_000);
            answers::amount_too_large(&payment, asked, payment.amount)
                .into_response()
                .body
        }
        code => made(code).body().into(),
    }
}

fn made(code: Code) -> Problem {
    match code {
        Code::IdempotencyKeyInUse => keyed(PaymentError::InProgress {
            retry_after: Duration::from_secs(1),
        }),
        Code::IdempotencyKeyExpired => keyed(PaymentError::Expired {
            resource_id: super::PAYMENT_ID.to_owned(),
            created_at: super::time(0),
            charged: HasCharged::Yes,
        }),
        Code::IdempotencyKeyReused => keyed(PaymentError::Mismatch {
            mismatch: Mismatch {
                expected_hash: "9f2c1b6d0e8a47530c5d".to_owned(),
                actual_hash: "41d07a9be3526fc81b2e".to_owned(),
                changed: vec!["amount".to_owned()],
            },
            charged: HasCharged::Yes,
        }),
        Code::PaymentBusy => keyed(PaymentError::Busy("a capture of the payment")),
        Code::GatewayRefused => keyed(PaymentError::GatewayRefused(Refusal {
            code: "amount_too_small".to_owned(),
            message: "The amount is smaller than the gateway takes".to_owned(),
            param: Some("amount".to_owned()),
        })),
        Code::GatewayMisconfigured => keyed(PaymentError::GatewayMisconfigured {
            reason: String::new(),
            may_have_charged: false,
        }),
        Code::OutcomeUnknown => plain(code).charged(HasCharged::Unknown),
        Code::ValidationFailed => NewPayment::parse(super::INVALID_PAYMENT.as_bytes())
            .err()
            .map_or_else(|| plain(code), Into::into),
        Code::GatewayUnavailable => keyed(PaymentError::GatewayUnavailable),
        code => plain(code),
    }
}

fn plain(code: Code) -> Problem {
    Problem::new(code, code.title())
}

fn declined() -> Decline {
    Decline::new("insufficient_funds", "Insufficient funds")
}
