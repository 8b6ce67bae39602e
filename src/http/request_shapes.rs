//! The shapes of requests, for the document alone. Bodies are parsed by hand (`crate::input`), to report all errors at once. A test
//! sends what the document allows, and values one beyond its limits.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

/// A text without control characters.
const LINE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// Like [`LINE`], but with line breaks and tabs allowed.
const LINES: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";

/// A payment to make.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct NewPayment {
    #[schema(schema_with = amount)]
    amount: String,
    /// ISO 4217, in upper case. It says how many decimals the amount may have: USD 2, JPY 0, KWD 3.
    #[schema(pattern = "^[A-Z]{3}$", examples("USD"))]
    currency: String,
    payment_method: NewPaymentMethod,
    customer: Option<NewCustomer>,
    #[schema(schema_with = capture_method)]
    capture_method: Option<String>,
    /// What the payment is for, for people.
    #[schema(
        max_length = 1000,
        pattern = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$",
        examples("Order 1001")
    )]
    description: Option<String>,
    #[schema(schema_with = metadata)]
    metadata: Option<BTreeMap<String, String>>,
    /// True if the payer is not present to authenticate: a payment that needs authentication is declined.
    #[schema(default = false, examples(false))]
    off_session: Option<bool>,
}

/// The payment method: `details`, or `token` instead.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) enum NewPaymentMethod {
    Card(NewCardMethod),
    Token(NewTokenMethod),
}

/// A card that the client sends.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct NewCardMethod {
    /// Always `CARD`.
    #[schema(pattern = "^CARD$", examples("CARD"))]
    r#type: String,
    details: NewCard,
    #[schema(schema_with = no_token)]
    token: Option<String>,
}

/// A card that the gateway holds.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct NewTokenMethod {
    /// Always `CARD`.
    #[schema(pattern = "^CARD$", examples("CARD"))]
    r#type: String,
    /// The gateway's token of the card. A card number is refused.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$",
        examples("pm_card_visa")
    )]
    token: String,
    #[schema(schema_with = no_details)]
    details: Option<String>,
}

/// A card. Its number is exchanged for the gateway's token before anything is stored, and `cvv` is never stored, in any form.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct NewCard {
    /// 12 to 19 digits that pass the Luhn check; single spaces and hyphens between them are ignored.
    #[schema(pattern = "^[1-9]([ -]?[0-9]){11,18}$", examples("4242424242424242"))]
    card_number: String,
    /// 3 or 4 digits.
    #[schema(pattern = "^[0-9]{3,4}$", examples("123"))]
    cvv: String,
    #[schema(schema_with = expiry_month)]
    expiry_month: String,
    #[schema(schema_with = expiry_year)]
    expiry_year: String,
    /// The name on the card.
    #[schema(
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        examples("Test User")
    )]
    card_holder_name: Option<String>,
}

/// The payer, as the client describes them.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct NewCustomer {
    /// The client's own id of the customer.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        examples("customer-7")
    )]
    id: Option<String>,
    /// The customer's email address.
    #[schema(
        min_length = 3,
        max_length = 254,
        pattern = r"^[^@\s\u0000-\u001f\u007f-\u009f]+@[^@\s\u0000-\u001f\u007f-\u009f]+$",
        examples("test.user@example.com")
    )]
    email: Option<String>,
    /// The customer's name.
    #[schema(
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$",
        examples("Test User")
    )]
    name: Option<String>,
    /// The gateway's own customer that the token is saved for.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$",
        examples("cus_9s6XKzkNRiz8i3")
    )]
    gateway_customer_id: Option<String>,
}

/// A capture.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct CapturePayment {
    #[schema(schema_with = optional_amount)]
    amount: Option<String>,
}

/// A cancel.
#[derive(ToSchema)]
pub(crate) struct CancelPayment {}

/// A refund.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct RefundPayment {
    #[schema(schema_with = optional_amount)]
    amount: Option<String>,
    /// The reason, for people.
    #[schema(
        max_length = 500,
        pattern = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$",
        examples("The lamp arrived broken")
    )]
    reason: Option<String>,
}

/// The headers of every POST.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct KeyedHeaders {
    /// Identifies one thing that must be done once: 1 to 255 visible ASCII characters, bare or as an RFC 8941 string. The same
    /// request with the same key gets the same answer, byte for byte, and is charged once. Its scope is merchant, operation and
    /// key.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$",
        example = "order-1001"
    )]
    key: String,
    /// RFC 7240: maximum number of seconds that a duplicate waits for the first request with its key. `wait=0` answers at once. It
    /// can only shorten the service's own wait.
    #[param(
        rename = "Prefer",
        pattern = "^wait=[0-9]+$",
        nullable = false,
        example = "wait=5"
    )]
    prefer: Option<String>,
}

/// The headers of every request.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "the macro reads it")]
pub(crate) struct AnyHeaders {
    /// Your own id of this request, for the logs: 1 to 128 letters, digits and `-_.:`. The reply has it, or else an id that the
    /// service generated.
    #[param(rename = "X-Request-Id", nullable = false, example = "checkout-7f3a")]
    request_id: Option<String>,
}

/// An unknown field is an error.
pub(super) fn is_strict(schema: &str) -> bool {
    const BODIES: [&str; 8] = [
        "NewPayment",
        "NewCardMethod",
        "NewTokenMethod",
        "NewCard",
        "NewCustomer",
        "CapturePayment",
        "CancelPayment",
        "RefundPayment",
    ];
    BODIES.contains(&schema)
}

/// The syntax of a JSON number (RFC 8259, 6) that is greater than zero.
const DECIMAL: &str = "^(0\\.0*[1-9][0-9]*|[1-9][0-9]*(\\.[0-9]+)?)([eE][+-]?[0-9]+)?$";

fn decimal(types: impl IntoIterator<Item = Type>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter(types))
        .pattern(Some(DECIMAL))
        .exclusive_minimum(Some(0))
}

fn amount() -> Object {
    decimal([Type::String, Type::Number])
        .description(Some(
            "In the currency's major unit: a JSON number or a decimal string, read exactly as written and never through a \
             float. Positive, with no more decimals than the currency has.",
        ))
        .examples([json!(99.99), json!("99.99")])
        .build()
}

fn optional_amount() -> Object {
    decimal([Type::String, Type::Number, Type::Null])
        .description(Some(
            "How much, in the payment's currency and its major unit, as a JSON number or a decimal string; all that is left \
             where absent.",
        ))
        .examples([json!("40.00"), json!(40)])
        .build()
}

fn capture_method() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some([json!("AUTOMATIC"), json!("MANUAL"), json!(null)]))
        .default(Some(json!("AUTOMATIC")))
        .description(Some(
            "`AUTOMATIC` takes the money at once; `MANUAL` holds it until a capture or a cancel.",
        ))
        .examples(["MANUAL"])
        .build()
}

fn metadata() -> Object {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(500))
        .pattern(Some(LINES));
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(40))
        .pattern(Some(LINE));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .max_properties(Some(50))
        .property_names(Some(name))
        .additional_properties(Some(text))
        .description(Some(
            "The client's own notes: up to 50 texts of up to 500 characters, by names of up to 40.",
        ))
        .examples([json!({"order": "1001"})])
        .build()
}

fn no_token() -> Object {
    absent("Absent, or null: it stands in the place of `details`.")
}

fn no_details() -> Object {
    absent("Absent, or null: `token` stands in their place.")
}

fn absent(description: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Null)
        .description(Some(description))
        .examples([json!(null)])
        .build()
}

fn whole_number() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Integer]))
}

fn expiry_month() -> Object {
    whole_number()
        .pattern(Some("^0?[1-9]$|^1[0-2]$"))
        .minimum(Some(1))
        .maximum(Some(12))
        .description(Some(
            "The last month in which the card is valid, 1 to 12, as a number or a string.",
        ))
        .examples([json!("12"), json!(12)])
        .build()
}

fn expiry_year() -> Object {
    whole_number()
        .pattern(Some("^20[0-9]{2}$"))
        .minimum(Some(2000))
        .maximum(Some(2099))
        .description(Some("Its year, four digits, as a number or a string."))
        .examples([json!("2031"), json!(2031)])
        .build()
}
