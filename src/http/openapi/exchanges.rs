//! The examples of the document. A request and its reply have the same name: a test sends each request and compares the reply.

use serde_json::{Value, json};

use crate::http::keys::RecordView;
use crate::http::samples;
use crate::payments::Payment;
use crate::problem::Code;

/// A request, and the reply to it.
pub(super) struct Exchange {
    pub(super) operation: &'static str,
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) request: Option<Value>,
    pub(super) status: u16,
    pub(super) reply: Value,
}

/// All of them.
pub(super) fn exchanges() -> Vec<Exchange> {
    [creations(), adjustments(), refunds(), reads()]
        .into_iter()
        .flatten()
        .collect()
}

fn made(
    operation: &'static str,
    name: &'static str,
    summary: &'static str,
    request: Value,
    (status, reply): (u16, Value),
) -> Exchange {
    Exchange {
        operation,
        name,
        summary,
        request: Some(request),
        status,
        reply,
    }
}

fn refused(operation: &'static str, code: Code, summary: &'static str, request: Value) -> Exchange {
    let reply = (code.status(), samples::problem(code));
    made(operation, code.slug(), summary, request, reply)
}

fn creations() -> Vec<Exchange> {
    let operation = "create_payment";
    let (good, poor) = ("4242424242424242", "4000000000009995");
    let mut manual = samples::card_request(good);
    manual["captureMethod"] = json!("MANUAL");
    let invalid = serde_json::from_str(samples::INVALID_PAYMENT).unwrap_or_default();
    let created = |payment: &Payment| (201, samples::json_of(payment));
    vec![
        made(
            operation,
            "card",
            "A card is charged",
            samples::card_request(good),
            created(&samples::charged()),
        ),
        made(
            operation,
            "token",
            "A card that the gateway holds is charged",
            samples::token_request(),
            created(&samples::charged_by_token()),
        ),
        made(
            operation,
            "manual",
            "The money is held for a capture",
            manual,
            created(&samples::held()),
        ),
        refused(
            operation,
            Code::PaymentDeclined,
            "The card has insufficient funds",
            samples::card_request(poor),
        ),
        refused(
            operation,
            Code::ValidationFailed,
            "Two fields are wrong",
            invalid,
        ),
    ]
}

fn adjustments() -> Vec<Exchange> {
    let changed = |payment: &Payment| (200, samples::json_of(payment));
    vec![
        made(
            "capture_payment",
            "all",
            "The whole hold is captured",
            json!({}),
            changed(&samples::captured(9999)),
        ),
        made(
            "capture_payment",
            "part",
            "A part is captured; the rest is released",
            json!({"amount": "60.00"}),
            changed(&samples::captured(6000)),
        ),
        refused(
            "capture_payment",
            Code::AmountTooLarge,
            "More than the hold",
            json!({"amount": "1000.00"}),
        ),
        made(
            "cancel_payment",
            "cancel",
            "The hold is released",
            json!({}),
            changed(&samples::canceled()),
        ),
    ]
}

fn refunds() -> Vec<Exchange> {
    let operation = "refund_payment";
    let reason = "The lamp arrived broken";
    let refunded =
        |minor, reason: Option<&str>| (201, samples::json_of(&samples::refund(minor, reason)));
    vec![
        made(
            operation,
            "all",
            "The whole amount is refunded",
            json!({}),
            refunded(9999, None),
        ),
        made(
            operation,
            "part",
            "A part is refunded, with a reason",
            json!({"amount": "40.00", "reason": reason}),
            refunded(4000, Some(reason)),
        ),
        refused(
            operation,
            Code::AmountTooLarge,
            "More than was captured",
            json!({"amount": "1000.00"}),
        ),
    ]
}

fn reads() -> Vec<Exchange> {
    let read = |operation, name, summary, reply| Exchange {
        operation,
        name,
        summary,
        request: None,
        status: 200,
        reply,
    };
    let payment = samples::json_of(&samples::charged());
    let refund = samples::json_of(&samples::refund(4000, Some("The lamp arrived broken")));
    let record = samples::json_of(&RecordView::from(&samples::key_record()));
    let page = |of: &Value| json!({"data": [of], "nextCursor": null});
    let ready = json!({"status": "ok", "database": "ok", "gateway": "ok"});
    vec![
        read(
            "list_payments",
            "page",
            "One payment, and no further pages",
            page(&payment),
        ),
        read(
            "get_payment",
            "payment",
            "The payment in its present state",
            payment,
        ),
        read(
            "list_refunds",
            "page",
            "The payment's one refund",
            page(&refund),
        ),
        read(
            "get_refund",
            "refund",
            "The refund in its present state",
            refund,
        ),
        read(
            "get_idempotency_key",
            "completed",
            "The key made a payment",
            record,
        ),
        read(
            "healthz",
            "ok",
            "The process is alive",
            json!({"status": "ok"}),
        ),
        read("readyz", "ok", "The service can work", ready),
    ]
}
