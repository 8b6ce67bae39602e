//! The examples of the document and the pages: one merchant's payment and its refund, serialized by the code that serializes the
//! real ones.

mod problems;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cards::CardSummary;
use crate::gateway::CaptureMethod;
use crate::idempotency::records::{KeyRecord, KeyState};
use crate::idempotency::{IdempotencyKey, ScopedKey};
use crate::money::{Amount, Currency};
use crate::payments::{Customer, Operation, Payment, PaymentState, Refund, RefundState};

pub(super) use self::problems::problem;

pub(crate) const PAYMENT_ID: &str = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11";
pub(crate) const REFUND_ID: &str = "ref_01936d32-11aa-7b0c-8e55-2d1f4c6b7a90";
pub(crate) const KEY: &str = "order-1001";

/// Its amount has too many decimals, and its card number fails the Luhn check.
pub(crate) const INVALID_PAYMENT: &str = r#"{"amount": "99.999", "currency": "USD", "paymentMethod": {"type": "CARD",
    "details": {"cardNumber": "4242424242424241", "cvv": "123", "expiryMonth": "12", "expiryYear": "2031"}}}"#;

/// The body of a 202: the gateway's answer is not known yet.
pub(super) fn processing(operation: &str) -> Value {
    match operation {
        "refund_payment" => json_of(&Refund {
            state: RefundState::Processing,
            gateway_refund_id: None,
            ..refund(9999, None)
        }),
        "create_payment" => json_of(&Payment {
            gateway_transaction_id: None,
            updated_at: time(0),
            ..payment_in(PaymentState::Processing)
        }),
        _ => json_of(&Payment {
            state: PaymentState::Processing,
            ..held()
        }),
    }
}

/// A moment, in seconds after noon of a fixed day.
pub(crate) fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_366_400 + seconds, 123_456_000).unwrap_or_default()
}

#[expect(clippy::expect_used, reason = "a constant, which the tests use")]
fn usd(minor: i64) -> Amount {
    let usd = Currency::from_code("USD").expect("USD is in ISO 4217");
    Amount::from_minor(minor, usd)
}

/// The example payment of 99.99 USD, with nothing captured or refunded.
pub(crate) fn payment_in(state: PaymentState) -> Payment {
    Payment {
        merchant_id: "demo".to_owned(),
        id: PAYMENT_ID.to_owned(),
        idempotency_key: KEY.to_owned(),
        state,
        amount: usd(9999),
        captured: usd(0),
        refunded: usd(0),
        refunding: usd(0),
        pending: None,
        capture_method: CaptureMethod::Automatic,
        gateway_type: "SIMULATED".to_owned(),
        gateway_token: None,
        gateway_transaction_id: Some(PAYMENT_ID.replacen("pay_", "sim_ch_", 1)),
        card: Some(visa(Some("Test User"))),
        customer: Customer {
            id: Some("customer-7".to_owned()),
            email: Some("test.user@example.com".to_owned()),
            name: Some("Test User".to_owned()),
            gateway_customer_id: None,
        },
        gateway_account: None,
        off_session: false,
        pending_attempt: None,
        cancellation_reason: None,
        description: Some("Order 1001".to_owned()),
        metadata: BTreeMap::from([("order".to_owned(), "1001".to_owned())]),
        failure: None,
        created_at: time(0),
        updated_at: time(1),
    }
}

/// A card that may be shown.
fn visa(holder_name: Option<&str>) -> CardSummary {
    CardSummary {
        brand: "visa".to_owned(),
        last4: "4242".to_owned(),
        expiry_month: 12,
        expiry_year: 2031,
        holder_name: holder_name.map(str::to_owned),
    }
}

pub(super) fn charged() -> Payment {
    Payment {
        captured: usd(9999),
        ..payment_in(PaymentState::Success)
    }
}

/// The payment of [`token_request`], which does not name the payer.
pub(super) fn charged_by_token() -> Payment {
    Payment {
        card: Some(CardSummary {
            expiry_year: 2034,
            ..visa(None)
        }),
        customer: Customer::default(),
        description: None,
        metadata: BTreeMap::new(),
        ..charged()
    }
}

pub(super) fn held() -> Payment {
    Payment {
        capture_method: CaptureMethod::Manual,
        ..payment_in(PaymentState::Authorized)
    }
}

pub(super) fn captured(minor: i64) -> Payment {
    Payment {
        state: PaymentState::Success,
        captured: usd(minor),
        ..held()
    }
}

pub(super) fn canceled() -> Payment {
    Payment {
        state: PaymentState::Canceled,
        ..held()
    }
}

pub(super) fn refund(minor: i64, reason: Option<&str>) -> Refund {
    Refund {
        merchant_id: "demo".to_owned(),
        id: REFUND_ID.to_owned(),
        payment_id: PAYMENT_ID.to_owned(),
        idempotency_key: "refund-1001".to_owned(),
        state: RefundState::Success,
        amount: usd(minor),
        reason: reason.map(str::to_owned),
        gateway_refund_id: Some(REFUND_ID.replacen("ref_", "sim_re_", 1)),
        failure: None,
        created_at: time(300),
    }
}

#[expect(clippy::expect_used, reason = "a constant, which the tests use")]
pub(super) fn key_record() -> KeyRecord {
    let key = IdempotencyKey::new(KEY).expect("it is visible ASCII");
    KeyRecord {
        scope: ScopedKey::new("demo", Operation::CreatePayment.as_str(), key),
        state: KeyState::Completed,
        fingerprint: "9f2c1b6d0e8a47530c5d".to_owned(),
        attempt: 1,
        lease_expires_at: None,
        resource_id: Some(PAYMENT_ID.to_owned()),
        response_status: Some(201),
        created_at: time(0),
        completed_at: Some(time(1)),
        expires_at: time(24 * 3600),
    }
}

/// The body of `POST /v1/payments` with every field.
pub(super) fn card_request(number: &str) -> Value {
    json!({
        "amount": 99.99,
        "currency": "USD",
        "paymentMethod": {"type": "CARD", "details": {
            "cardNumber": number, "cvv": "123", "expiryMonth": "12", "expiryYear": "2031", "cardHolderName": "Test User",
        }},
        "customer": {"id": "customer-7", "email": "test.user@example.com", "name": "Test User"},
        "description": "Order 1001",
        "metadata": {"order": "1001"},
    })
}

/// The body of `POST /v1/payments` with the required fields only.
pub(super) fn token_request() -> Value {
    json!({
        "amount": "99.99",
        "currency": "USD",
        "paymentMethod": {"type": "CARD", "token": "pm_card_visa"},
    })
}

/// A sample as it is sent.
pub(super) fn json_of(sample: &impl Serialize) -> Value {
    serde_json::to_value(sample).unwrap_or_default()
}
