//! The Stripe adapter over real HTTP, against a gateway that fails on command and keeps its own books.

mod faults;
mod finds;
mod kinds;
mod localstripe;
mod older_wire;
mod outcomes;
mod truth;
mod waits;

use std::time::{Duration, Instant};

use payonce::cards::{Card, CardSummary, Cvv, Pan};
use payonce::gateway::{
    Cancel, Capture, CaptureMethod, Charge, Charged, Gateway, GatewayError, GatewayRefund,
    GatewayToken, StripeGateway,
};
use payonce::money::{Amount, Currency};
use secrecy::SecretString;

use crate::support::gateway::{Endpoint, Fault, SECRET_KEY, TestGateway};

/// Long enough for every fault that a retry overcomes.
const AMPLE: Duration = Duration::from_secs(10);

/// An adapter with fresh connections.
fn adapter(api_base: &str, request_time: Duration) -> StripeGateway {
    StripeGateway::new(api_base, SecretString::from(SECRET_KEY), request_time).expect("an adapter")
}

/// A gateway, and an adapter with ample time.
fn pair() -> (TestGateway, StripeGateway) {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), AMPLE);
    (gateway, stripe)
}

fn amount(minor: i64, currency: &str) -> Amount {
    Amount::from_minor(minor, Currency::from_code(currency).expect(currency))
}

fn card(number: &str) -> Card {
    Card {
        number: Pan::parse(number).expect(number),
        cvv: Cvv::parse("123").expect("a code"),
        expiry_month: 12,
        expiry_year: 2031,
        holder_name: None,
    }
}

/// A charge of 50.00 USD.
fn charge(payment_id: &str, token: &str, capture_method: CaptureMethod) -> Charge {
    Charge {
        payment_id: payment_id.to_owned(),
        merchant_id: "acme".to_owned(),
        account: None,
        amount: amount(5_000, "USD"),
        token: GatewayToken::new(token),
        capture_method,
        gateway_customer_id: None,
        off_session: false,
        description: None,
        claimed_at: chrono::Utc::now(),
    }
}

fn taken(payment_id: &str) -> Charge {
    charge(payment_id, "pm_card_visa", CaptureMethod::Automatic)
}

fn held(payment_id: &str) -> Charge {
    charge(payment_id, "pm_card_visa", CaptureMethod::Manual)
}

fn capture(charged: &Charged, minor: i64) -> Capture {
    Capture {
        key: "pay_1:capture".to_owned(),
        payment_id: "pay_1".to_owned(),
        account: None,
        transaction_id: charged.transaction_id.clone(),
        amount: amount(minor, "USD"),
    }
}

fn cancel(charged: &Charged) -> Cancel {
    Cancel {
        key: "pay_1:cancel".to_owned(),
        payment_id: "pay_1".to_owned(),
        account: None,
        transaction_id: charged.transaction_id.clone(),
    }
}

fn refund(charged: &Charged, refund_id: &str, minor: i64) -> GatewayRefund {
    GatewayRefund {
        refund_id: refund_id.to_owned(),
        payment_id: "pay_1".to_owned(),
        merchant_id: "acme".to_owned(),
        account: None,
        transaction_id: charged.transaction_id.clone(),
        amount: amount(minor, "USD"),
    }
}

/// The result of a call in a word, with a decline's code.
fn word<T>(result: &Result<T, GatewayError>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(GatewayError::Declined(decline)) => format!("declined {}", decline.code),
        Err(GatewayError::Refused(refusal)) => format!("refused {}", refusal.code),
        Err(GatewayError::Misconfigured { .. }) => "misconfigured".to_owned(),
        Err(GatewayError::NothingHappened { .. }) => "nothing happened".to_owned(),
        Err(GatewayError::HoldLapsed { .. }) => "hold lapsed".to_owned(),
        Err(GatewayError::Unknown { .. }) => "unknown".to_owned(),
    }
}

/// The result in a word, and how long it took.
async fn timed<T>(call: impl Future<Output = Result<T, GatewayError>>) -> (String, Duration) {
    let begun = Instant::now();
    let result = call.await;
    (word(&result), begun.elapsed())
}
