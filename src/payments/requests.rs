//! Requests for an existing payment: capture, cancel, refund.
//!
//! Only checks that depend on the request alone are made here. Whether an amount fits the payment and its currency's decimals is
//! checked when the payment is known.

use crate::idempotency::{CanonicalFields, Fingerprinted};
use crate::input::{InputError, decimal_text, multiline_text, read_optional_object};
use crate::money::MajorAmount;

const MAX_REASON_CHARACTERS: usize = 500;

/// Takes what a payment holds: `{"amount"?}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureRequest {
    /// The amount to take, in the payment's currency. All of it if absent.
    pub amount: Option<MajorAmount>,
}

impl CaptureRequest {
    /// Reads a request's body. An empty body counts as `{}`.
    ///
    /// # Errors
    ///
    /// All errors of the body at once.
    pub fn parse(body: &[u8]) -> Result<Self, InputError> {
        read_optional_object(body, |fields| {
            Ok(Self {
                amount: fields.optional("amount", decimal_text(MajorAmount::parse))?,
            })
        })
    }
}

impl Fingerprinted for CaptureRequest {
    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error> {
        fields.insert_some(
            "amount",
            self.amount.map(|amount| amount.canonical()).as_deref(),
        );
        Ok(())
    }
}

/// Pays money back: `{"amount"?,"reason"?}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefundRequest {
    /// The amount, in the payment's currency. All that is left if absent.
    pub amount: Option<MajorAmount>,
    /// The reason, for people. Up to 500 characters.
    pub reason: Option<String>,
}

impl RefundRequest {
    /// Reads a request's body. An empty body counts as `{}`.
    ///
    /// # Errors
    ///
    /// All errors of the body at once.
    pub fn parse(body: &[u8]) -> Result<Self, InputError> {
        read_optional_object(body, |fields| {
            let amount = fields.optional("amount", decimal_text(MajorAmount::parse));
            let reason = fields.optional("reason", multiline_text(0..=MAX_REASON_CHARACTERS));
            Ok(Self {
                amount: amount?,
                reason: reason?,
            })
        })
    }
}

impl Fingerprinted for RefundRequest {
    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error> {
        fields.insert_some(
            "amount",
            self.amount.map(|amount| amount.canonical()).as_deref(),
        );
        fields.insert_some("reason", self.reason.as_deref());
        Ok(())
    }
}

/// Releases all that a payment holds: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CancelRequest {}

impl CancelRequest {
    /// Reads a request's body. An empty body counts as `{}`.
    ///
    /// # Errors
    ///
    /// All errors of the body at once.
    pub fn parse(body: &[u8]) -> Result<Self, InputError> {
        read_optional_object(body, |_| Ok(Self {}))
    }
}

impl Fingerprinted for CancelRequest {
    fn canonicalize(&self, _: &mut CanonicalFields) -> Result<(), serde_json::Error> {
        Ok(())
    }
}

/// A request with the payment that its path names. Both are in the fingerprint, so that one key cannot be used for two payments.
#[derive(Clone, Copy, Debug)]
pub struct OnPayment<'a, R> {
    /// The payment's id (`pay_…`).
    pub payment_id: &'a str,
    /// The request.
    pub request: &'a R,
}

impl<R: Fingerprinted> Fingerprinted for OnPayment<'_, R> {
    fn canonicalize(&self, fields: &mut CanonicalFields) -> Result<(), serde_json::Error> {
        fields.insert("paymentId", self.payment_id);
        self.request.canonicalize(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(request: &impl Fingerprinted) -> CanonicalFields {
        let mut fields = CanonicalFields::default();
        request.canonicalize(&mut fields).expect("canonical fields");
        fields
    }

    fn errors<T: std::fmt::Debug>(result: Result<T, InputError>) -> Vec<String> {
        match result {
            Err(InputError::Invalid(errors)) => errors
                .into_iter()
                .map(|error| format!("{} {}", error.field, error.message))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_sent_asks_for_all_of_it() {
        for body in [&b""[..], b"{}", br#"{"amount":null}"#] {
            assert_eq!(CaptureRequest::parse(body), Ok(CaptureRequest::default()));
            assert_eq!(RefundRequest::parse(body), Ok(RefundRequest::default()));
        }
        for body in [&b""[..], b"{}"] {
            assert_eq!(CancelRequest::parse(body), Ok(CancelRequest {}));
        }
    }

    #[test]
    fn all_errors_come_at_once() {
        let long = format!(r#"{{"amount":0,"reason":"{}","note":1}}"#, "r".repeat(501));
        assert_eq!(
            errors(RefundRequest::parse(long.as_bytes())),
            [
                "amount must be greater than zero",
                "reason must have at most 500 characters",
                "note is not a known field",
            ]
        );
        assert_eq!(
            errors(CaptureRequest::parse(br#"{"reason":"r"}"#)),
            ["reason is not a known field"]
        );
        assert_eq!(
            errors(CancelRequest::parse(br#"{"amount":1}"#)),
            ["amount is not a known field"]
        );
        let longest = format!(r#"{{"reason":"{}"}}"#, "r".repeat(500));
        assert!(RefundRequest::parse(longest.as_bytes()).is_ok());
    }

    #[test]
    fn an_amounts_spelling_makes_no_difference_but_its_value_does() {
        let refund = |amount: &str| {
            let body = format!(r#"{{"amount":{amount}}}"#);
            canonical(&RefundRequest::parse(body.as_bytes()).expect("a refund"))
        };
        for amount in ["10.0", "10.00", "\"10.00\"", "1e1"] {
            assert!(refund(amount) == refund("10"), "{amount}");
        }
        assert!(refund("10") != refund("10.01"));
    }

    #[test]
    fn payment_amount_and_reason_each_make_another_request() {
        let on = |payment_id: &str, body: &str| {
            let request = RefundRequest::parse(body.as_bytes()).expect(body);
            canonical(&OnPayment {
                payment_id,
                request: &request,
            })
        };
        let base = on("pay_1", r#"{"amount":1}"#);
        assert!(base == on("pay_1", r#"{"reason":null,"amount":1}"#));
        assert!(base != on("pay_2", r#"{"amount":1}"#));
        assert!(base != on("pay_1", "{}"));
        assert!(base != on("pay_1", r#"{"amount":1,"reason":"r"}"#));
        assert_eq!(format!("{base:?}"), r#"{"amount", "paymentId"}"#);
    }
}
