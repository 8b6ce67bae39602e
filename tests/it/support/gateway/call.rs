//! What a request asks for: its endpoint, and its parameters found valid.

use std::collections::BTreeMap;

use super::form::Params;
use super::reply::ApiError;

/// The endpoints, as scripts and counts name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `POST /v1/payment_methods`
    Tokenize,
    /// `POST /v1/payment_intents`
    Charge,
    /// `GET /v1/payment_intents/{id}`
    Retrieve,
    /// `GET /v1/payment_intents/search`
    Search,
    /// `POST /v1/payment_intents/{id}/capture`
    Capture,
    /// `POST /v1/payment_intents/{id}/cancel`
    Cancel,
    /// `POST /v1/refunds`
    Refund,
    /// `GET /v1/refunds`
    ListRefunds,
}

/// A call, ready to be executed.
pub(super) enum Call {
    Tokenize {
        number: String,
        exp_month: i64,
        exp_year: i64,
    },
    Charge(NewIntent),
    Retrieve {
        intent: String,
        expand: Vec<String>,
    },
    Search {
        name: String,
        value: String,
        limit: usize,
        expand: Vec<String>,
    },
    Capture {
        intent: String,
        amount: Option<i64>,
        expand: Vec<String>,
    },
    Cancel {
        intent: String,
        reason: Option<String>,
        expand: Vec<String>,
    },
    Refund {
        intent: String,
        amount: Option<i64>,
        reason: Option<String>,
        metadata: BTreeMap<String, String>,
    },
    ListRefunds {
        intent: String,
        limit: usize,
        starting_after: Option<String>,
    },
}

/// The parameters of `POST /v1/payment_intents`.
pub(super) struct NewIntent {
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) payment_method: String,
    pub(super) manual: bool,
    /// The caller has nobody who could authenticate: a card that asks for it is declined.
    pub(super) unattended: bool,
    pub(super) description: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) expand: Vec<String>,
}

/// The endpoint of a path, and the id in it (empty where there is none).
pub(super) fn route<'a>(method: &str, path: &'a str) -> Option<(Endpoint, &'a str)> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    Some(match (method, segments.as_slice()) {
        ("POST", ["v1", "payment_methods"]) => (Endpoint::Tokenize, ""),
        ("POST", ["v1", "payment_intents"]) => (Endpoint::Charge, ""),
        ("GET", ["v1", "payment_intents", "search"]) => (Endpoint::Search, ""),
        ("GET", ["v1", "payment_intents", id]) => (Endpoint::Retrieve, id),
        ("POST", ["v1", "payment_intents", id, "capture"]) => (Endpoint::Capture, id),
        ("POST", ["v1", "payment_intents", id, "cancel"]) => (Endpoint::Cancel, id),
        ("POST", ["v1", "refunds"]) => (Endpoint::Refund, ""),
        ("GET", ["v1", "refunds"]) => (Endpoint::ListRefunds, ""),
        _ => return None,
    })
}

impl Call {
    /// Checks the parameters. What fails here has not begun, so it is not stored under the idempotency key.
    pub(super) fn parse(endpoint: Endpoint, id: &str, params: &Params) -> Result<Self, ApiError> {
        match endpoint {
            Endpoint::Tokenize => tokenize(params),
            Endpoint::Charge => charge(params),
            Endpoint::Retrieve => {
                params.only(&["expand[", "client_secret"])?;
                Ok(Call::Retrieve {
                    intent: id.into(),
                    expand: params.expand()?,
                })
            }
            Endpoint::Search => search(params),
            Endpoint::Capture => {
                params.only(&[
                    "amount_to_capture",
                    "final_capture",
                    "metadata[",
                    "statement_descriptor",
                    "expand[",
                ])?;
                let amount = params.amount("amount_to_capture")?;
                Ok(Call::Capture {
                    intent: id.into(),
                    amount,
                    expand: params.expand()?,
                })
            }
            Endpoint::Cancel => {
                params.only(&["cancellation_reason", "expand["])?;
                let reasons = [
                    "duplicate",
                    "fraudulent",
                    "requested_by_customer",
                    "abandoned",
                ];
                let reason = params
                    .one_of("cancellation_reason", &reasons)?
                    .map(str::to_owned);
                Ok(Call::Cancel {
                    intent: id.into(),
                    reason,
                    expand: params.expand()?,
                })
            }
            Endpoint::Refund => refund(params),
            Endpoint::ListRefunds => {
                params.only(&["payment_intent", "limit", "starting_after", "expand["])?;
                Ok(Call::ListRefunds {
                    intent: params.required("payment_intent")?.into(),
                    limit: params.limit()?,
                    starting_after: params.get("starting_after").map(str::to_owned),
                })
            }
        }
    }
}

fn tokenize(params: &Params) -> Result<Call, ApiError> {
    params.only(&["type", "card[", "billing_details[", "metadata[", "expand["])?;
    params.required("type")?;
    params.one_of("type", &["card"])?;
    params.required("card[exp_month]")?;
    params.required("card[exp_year]")?;
    Ok(Call::Tokenize {
        number: params.required("card[number]")?.into(),
        exp_month: params.integer("card[exp_month]")?.unwrap_or_default(),
        exp_year: params.integer("card[exp_year]")?.unwrap_or_default(),
    })
}

fn charge(params: &Params) -> Result<Call, ApiError> {
    params.only(&[
        "amount",
        "automatic_payment_methods[",
        "capture_method",
        "confirm",
        "confirmation_method",
        "currency",
        "customer",
        "description",
        "error_on_requires_action",
        "expand[",
        "metadata[",
        "off_session",
        "payment_method",
        "payment_method_types[",
        "receipt_email",
        "return_url",
        "statement_descriptor",
        "statement_descriptor_suffix",
    ])?;
    params.required("amount")?;
    if !params.flag("confirm")? {
        return Err(ApiError::invalid("This gateway knows only confirm=true.").param("confirm"));
    }
    let currency = params.required("currency")?;
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_lowercase()) {
        return Err(ApiError::invalid(format!("Invalid currency: {currency}.")).param("currency"));
    }
    let capture_method = params.one_of(
        "capture_method",
        &["automatic", "automatic_async", "manual"],
    )?;
    Ok(Call::Charge(NewIntent {
        amount: params.amount("amount")?.unwrap_or_default(),
        currency: currency.into(),
        payment_method: params.required("payment_method")?.into(),
        manual: capture_method == Some("manual"),
        unattended: params.flag("error_on_requires_action")? || params.flag("off_session")?,
        description: params.get("description").map(str::to_owned),
        metadata: params.metadata()?,
        expand: params.expand()?,
    }))
}

/// Stripe's query language has more; this is the part that finds an intent by its metadata.
fn search(params: &Params) -> Result<Call, ApiError> {
    params.only(&["query", "limit", "page", "expand["])?;
    let query = params.required("query")?.replace('"', "'");
    let parts = query
        .strip_prefix("metadata['")
        .and_then(|rest| rest.strip_suffix('\'')?.split_once("']:'"));
    match parts {
        Some((name, value)) if !name.contains('\'') && !value.contains('\'') => Ok(Call::Search {
            name: name.into(),
            value: value.into(),
            limit: params.limit()?,
            expand: params.expand()?,
        }),
        _ => Err(ApiError::invalid(
            "This gateway knows only queries like metadata['name']:'value'",
        )
        .param("query")),
    }
}

fn refund(params: &Params) -> Result<Call, ApiError> {
    params.only(&["payment_intent", "amount", "reason", "metadata[", "expand["])?;
    let reasons = ["duplicate", "fraudulent", "requested_by_customer"];
    Ok(Call::Refund {
        intent: params.required("payment_intent")?.into(),
        amount: params.amount("amount")?,
        reason: params.one_of("reason", &reasons)?.map(str::to_owned),
        metadata: params.metadata()?,
    })
}
