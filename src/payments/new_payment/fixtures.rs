//! Requests for this folder's tests.

use serde_json::{Value as Json, json};

use super::NewPayment;
use crate::input::InputError;

pub(super) fn full() -> Json {
    json!({
        "amount": "100.00",
        "currency": "USD",
        "captureMethod": "MANUAL",
        "paymentMethod": {"type": "CARD", "details": {
            "cardNumber": "4242424242424242", "cvv": "987", "expiryMonth": "9", "expiryYear": "2031",
            "cardHolderName": "Test User"
        }},
        "customer": {"id": "c1", "email": "a@b.example", "name": "Ann"},
        "description": "A book",
        "metadata": {"order": "7"}
    })
}

pub(super) fn minimal() -> Json {
    json!({
        "amount": 100,
        "currency": "USD",
        "paymentMethod": {"type": "CARD", "token": "pm_card_visa"}
    })
}

/// `request` with another value at a JSON pointer. `null` removes the field.
pub(super) fn with(mut request: Json, pointer: &str, value: Json) -> Json {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    request.pointer_mut(parent).expect(pointer)[name] = value;
    request
}

pub(super) fn parse(request: &Json) -> Result<NewPayment, InputError> {
    NewPayment::parse(request.to_string().as_bytes())
}

pub(super) fn payment(request: &Json) -> NewPayment {
    parse(request).unwrap_or_else(|error| panic!("{request}: {error:?}"))
}
