//! The refusals of each call in the document, by status, each with an example.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::{
    ContentBuilder, Object, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Responses, Type,
};

use super::headers;
use crate::http::samples;
use crate::problem::{CONTENT_TYPE, Code, HasCharged, Retry};

/// Refusals of every call that needs an API key.
const AUTHENTICATED: &[Code] = &[
    Code::Unauthorized,
    Code::NotAcceptable,
    Code::RateLimited,
    Code::DatabaseUnavailable,
    Code::Internal,
];

/// Refusals of every POST.
const KEYED: &[Code] = &[
    Code::IdempotencyKeyMissing,
    Code::IdempotencyKeyInvalid,
    Code::MalformedJson,
    Code::PaymentDeclined,
    Code::RequestTimeout,
    Code::IdempotencyKeyInUse,
    Code::PayloadTooLarge,
    Code::UnsupportedMediaType,
    Code::IdempotencyKeyReused,
    Code::ValidationFailed,
    Code::GatewayRefused,
    Code::GatewayMisconfigured,
    Code::GatewayUnavailable,
    Code::OutcomeUnknown,
    Code::Overloaded,
];

/// All refusals of a call.
pub(super) fn of(operation: &str) -> Vec<Code> {
    let own: &[Code] = match operation {
        "create_payment" => &[Code::IdempotencyKeyExpired],
        "capture_payment" => &[
            Code::NotFound,
            Code::PaymentBusy,
            Code::PaymentStateConflict,
            Code::AmountTooLarge,
        ],
        "cancel_payment" => &[
            Code::NotFound,
            Code::PaymentBusy,
            Code::PaymentStateConflict,
        ],
        "refund_payment" => &[
            Code::NotFound,
            Code::IdempotencyKeyExpired,
            Code::PaymentBusy,
            Code::PaymentStateConflict,
            Code::AmountTooLarge,
        ],
        "list_payments" => &[Code::ValidationFailed, Code::Overloaded],
        "get_payment" | "list_refunds" | "get_refund" | "get_idempotency_key" => {
            &[Code::NotFound, Code::Overloaded]
        }
        "explain_problem" | "docs_asset" => return vec![Code::NotFound],
        _ => return Vec::new(),
    };
    let keyed = if operation.ends_with("_payment") && operation != "get_payment" {
        KEYED
    } else {
        &[]
    };
    Code::ALL
        .iter()
        .copied()
        .filter(|code| {
            [AUTHENTICATED, keyed, own]
                .iter()
                .any(|codes| codes.contains(code))
        })
        .collect()
}

/// Adds the refusals to the replies of a call.
pub(super) fn document(responses: &mut Responses, codes: &[Code], is_post: bool) {
    let mut statuses: Vec<u16> = codes.iter().map(|code| code.status()).collect();
    statuses.dedup();
    for status in statuses {
        let codes: Vec<Code> = codes
            .iter()
            .copied()
            .filter(|code| code.status() == status)
            .collect();
        responses
            .responses
            .insert(status.to_string(), response(&codes, is_post).into());
    }
}

/// The reply for a status that these share.
pub(super) fn response(codes: &[Code], is_post: bool) -> Response {
    let lines: Vec<String> = codes
        .iter()
        .map(|code| format!("`{}`: {}.", code.slug(), code.title()))
        .collect();
    let examples = codes.iter().map(|code| (code.slug(), example_of(*code)));
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new()
        .description(lines.join("\n\n"))
        .content(CONTENT_TYPE, content)
        .build();
    headers::of_problems(&mut response, codes, is_post);
    response
}

fn example_of(code: Code) -> RefOr<Example> {
    RefOr::Ref(Ref::new(format!("#/components/examples/{}", code.slug())))
}

/// One example for each row of the table, by its slug.
pub(super) fn examples() -> impl Iterator<Item = (String, RefOr<Example>)> {
    Code::ALL.iter().map(|code| {
        let example = ExampleBuilder::new()
            .summary(code.title())
            .description(format!(
                "{} {} {}",
                code.what_happened(),
                code.what_was_charged(),
                code.what_to_do()
            ))
            .value(Some(samples::problem(*code)))
            .build();
        (code.slug().to_owned(), example.into())
    })
}

/// RFC 9457 problem details, with what a program should do next.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "the macro reads it: `Problem::body` writes its members by hand"
)]
pub(super) struct Problem {
    /// A page that explains it.
    #[schema(format = "uri-reference", examples("/problems/payment-declined"))]
    r#type: String,
    /// One line for people, the same for each problem of its code.
    #[schema(examples("The gateway declined"))]
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, examples(402))]
    status: u16,
    /// A description of this occurrence, for people.
    #[schema(examples("Insufficient funds"))]
    detail: String,
    #[schema(schema_with = code)]
    code: String,
    #[schema(schema_with = retry)]
    retry: String,
    #[schema(schema_with = charged)]
    charged: Option<String>,
    /// With `gateway-refused`: the field that the gateway found wrong, if it is known.
    #[schema(nullable = false, examples("amount"))]
    param: Option<String>,
    /// With `gateway-refused`: the gateway's code.
    #[schema(nullable = false, examples("amount_too_small"))]
    gateway_code: Option<String>,
    /// With `payment-declined`: the gateway's advice, if there is any.
    #[schema(nullable = false, examples("try_again_later"))]
    advice_code: Option<String>,
    /// With `validation-failed`: every field that is wrong.
    #[schema(nullable = false)]
    errors: Option<Vec<FieldError>>,
    /// With `payment-declined`: the gateway's reason, for programs.
    #[schema(nullable = false, examples("insufficient_funds"))]
    decline_code: Option<String>,
    /// With `payment-declined`, `payment-state-conflict` and `amount-too-large`: the payment's id.
    #[schema(nullable = false, examples("pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11"))]
    payment_id: Option<String>,
    /// With `payment-state-conflict`: the payment's state.
    #[schema(nullable = false, examples("FAILED"))]
    state: Option<String>,
    /// With `amount-too-large`: the amount that is left, in the currency's major unit.
    #[schema(nullable = false, examples("99.99"))]
    remaining: Option<String>,
    /// With `idempotency-key-reused`: the first 16 hexadecimal digits of the first request's fingerprint.
    #[schema(
        nullable = false,
        pattern = "^[0-9a-f]{16}$",
        examples("9f2c1b6d0e8a4753")
    )]
    expected_hash: Option<String>,
    /// With `idempotency-key-reused`: the first 16 hexadecimal digits of this request's fingerprint.
    #[schema(
        nullable = false,
        pattern = "^[0-9a-f]{16}$",
        examples("41d07a9be3526fc8")
    )]
    actual_hash: Option<String>,
    /// With `idempotency-key-reused`: the paths of the fields that differ, never their values.
    #[schema(nullable = false, examples("amount"))]
    changed: Option<Vec<String>>,
    /// With `idempotency-key-expired`: the id of the payment or refund that the key made.
    #[schema(nullable = false, examples("pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11"))]
    resource_id: Option<String>,
    /// With `idempotency-key-expired`: when it was made, RFC 3339 in UTC.
    #[schema(nullable = false, format = DateTime, examples("2026-03-01T12:00:00.123456Z"))]
    created_at: Option<String>,
}

/// A field that is wrong.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the macro reads it")]
pub(super) struct FieldError {
    /// Its path.
    #[schema(examples("paymentMethod.details.cardNumber"))]
    field: String,
    /// What is wrong with it. Never repeats its value.
    #[schema(examples("is not a valid card number"))]
    message: String,
}

fn names<'a>(names: impl Iterator<Item = &'a str>, description: &str) -> Object {
    let names: Vec<Value> = names.map(|name| json!(name)).collect();
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .examples(names.first().cloned())
        .enum_values(Some(names))
        .build()
}

fn charged() -> Object {
    let all = [HasCharged::Yes, HasCharged::No, HasCharged::Unknown];
    names(
        all.into_iter().map(HasCharged::as_str),
        "Whether a payment by this key took or holds money. It is absent if the request was refused before its key was looked up.",
    )
}

fn code() -> Object {
    let slugs = Code::ALL.iter().map(|code| code.slug());
    names(
        slugs,
        "The problem's code, for programs: the end of `type`.",
    )
}

fn retry() -> Object {
    names(
        Retry::ALL.iter().map(|retry| retry.as_str()),
        "What a program should do. `same-key`: send the same request with the same key, after `Retry-After`. `fix-request`: \
         nothing was stored; correct it, the key is still good. `new-key`: a further attempt is a new payment and needs a \
         new key. `no`: nothing helps.",
    )
}
