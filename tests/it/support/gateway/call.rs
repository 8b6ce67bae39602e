//! What a request asks for: its endpoint, and its parameters found valid.

use std::collections::BTreeMap;

use super::contract;
use super::form::Params;
use super::reply::ApiError;
use super::units;

/// The endpoints, as scripts and counts name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `POST /v1/payment_methods`
    Tokenize,
    /// `POST /v1/payment_intents`
    Charge,
    /// `GET /v1/payment_intents/{id}`
    Retrieve,
    /// `GET /v1/payment_intents`
    ListIntents,
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
    /// `GET /v1/refunds/{id}`
    RetrieveRefund,
}

impl Endpoint {
    /// The call's name in the contract.
    pub(super) fn call(self) -> &'static str {
        match self {
            Endpoint::Tokenize => "POST /v1/payment_methods",
            Endpoint::Charge => "POST /v1/payment_intents",
            Endpoint::Retrieve => "GET /v1/payment_intents/{id}",
            Endpoint::ListIntents => "GET /v1/payment_intents",
            Endpoint::Search => "GET /v1/payment_intents/search",
            Endpoint::Capture => "POST /v1/payment_intents/{id}/capture",
            Endpoint::Cancel => "POST /v1/payment_intents/{id}/cancel",
            Endpoint::Refund => "POST /v1/refunds",
            Endpoint::ListRefunds => "GET /v1/refunds",
            Endpoint::RetrieveRefund => "GET /v1/refunds/{id}",
        }
    }
}

/// A call, ready to be executed.
pub(super) enum Call {
    Tokenize {
        number: String,
        exp_month: i64,
        exp_year: i64,
        name: Option<String>,
    },
    Charge(NewIntent),
    Retrieve {
        intent: String,
        expand: Vec<String>,
    },
    ListIntents {
        filter: CreatedFilter,
        customer: Option<String>,
        page: Page,
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
        intent: Option<String>,
        filter: CreatedFilter,
        page: Page,
    },
    RetrieveRefund {
        refund: String,
    },
}

/// Which page of a list.
pub(super) struct Page {
    pub(super) limit: usize,
    pub(super) starting_after: Option<String>,
}

/// When the listed objects were created, in Unix seconds.
pub(super) struct CreatedFilter {
    at: Option<i64>,
    gt: Option<i64>,
    gte: Option<i64>,
    lt: Option<i64>,
    lte: Option<i64>,
}

impl CreatedFilter {
    pub(super) fn admits(&self, created: i64) -> bool {
        self.at.is_none_or(|at| created == at)
            && self.gt.is_none_or(|gt| created > gt)
            && self.gte.is_none_or(|gte| created >= gte)
            && self.lt.is_none_or(|lt| created < lt)
            && self.lte.is_none_or(|lte| created <= lte)
    }

    fn of(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            at: params.integer("created")?,
            gt: params.integer("created[gt]")?,
            gte: params.integer("created[gte]")?,
            lt: params.integer("created[lt]")?,
            lte: params.integer("created[lte]")?,
        })
    }
}

/// The parameters of `POST /v1/payment_intents`.
pub(super) struct NewIntent {
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) payment_method: String,
    pub(super) manual: bool,
    /// The caller has nobody who could authenticate: a card that asks for it is declined.
    pub(super) unattended: bool,
    pub(super) customer: Option<String>,
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
        ("GET", ["v1", "payment_intents"]) => (Endpoint::ListIntents, ""),
        ("GET", ["v1", "payment_intents", "search"]) => (Endpoint::Search, ""),
        ("GET", ["v1", "payment_intents", id]) => (Endpoint::Retrieve, id),
        ("POST", ["v1", "payment_intents", id, "capture"]) => (Endpoint::Capture, id),
        ("POST", ["v1", "payment_intents", id, "cancel"]) => (Endpoint::Cancel, id),
        ("POST", ["v1", "refunds"]) => (Endpoint::Refund, ""),
        ("GET", ["v1", "refunds"]) => (Endpoint::ListRefunds, ""),
        ("GET", ["v1", "refunds", id]) => (Endpoint::RetrieveRefund, id),
        _ => return None,
    })
}

impl Call {
    /// Checks the parameters. What fails here has not begun, so it is not stored under the idempotency key.
    pub(super) fn parse(endpoint: Endpoint, id: &str, params: &Params) -> Result<Self, ApiError> {
        contract::check(endpoint, params)?;
        Ok(match endpoint {
            Endpoint::Tokenize => tokenize(params)?,
            Endpoint::Charge => charge(params)?,
            Endpoint::Retrieve => Call::Retrieve {
                intent: id.into(),
                expand: params.expand()?,
            },
            Endpoint::ListIntents => Call::ListIntents {
                filter: CreatedFilter::of(params)?,
                customer: params.get("customer").map(str::to_owned),
                page: Page::of(params)?,
                expand: params.expand()?,
            },
            Endpoint::Search => search(params)?,
            Endpoint::Capture => Call::Capture {
                intent: id.into(),
                amount: params.amount("amount_to_capture")?,
                expand: params.expand()?,
            },
            Endpoint::Cancel => Call::Cancel {
                intent: id.into(),
                reason: params.get("cancellation_reason").map(str::to_owned),
                expand: params.expand()?,
            },
            Endpoint::Refund => Call::Refund {
                intent: params.required("payment_intent")?.into(),
                amount: params.amount("amount")?,
                reason: params.get("reason").map(str::to_owned),
                metadata: params.metadata()?,
            },
            Endpoint::ListRefunds => Call::ListRefunds {
                intent: params.get("payment_intent").map(str::to_owned),
                filter: CreatedFilter::of(params)?,
                page: Page::of(params)?,
            },
            Endpoint::RetrieveRefund => Call::RetrieveRefund { refund: id.into() },
        })
    }
}

impl Page {
    fn of(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            limit: params.limit()?,
            starting_after: params.get("starting_after").map(str::to_owned),
        })
    }
}

fn tokenize(params: &Params) -> Result<Call, ApiError> {
    params.one_of("type", &["card"])?;
    for required in ["type", "card[exp_month]", "card[exp_year]"] {
        params.required(required)?;
    }
    Ok(Call::Tokenize {
        number: params.required("card[number]")?.into(),
        exp_month: params.integer("card[exp_month]")?.unwrap_or_default(),
        exp_year: params.integer("card[exp_year]")?.unwrap_or_default(),
        name: params.get("billing_details[name]").map(str::to_owned),
    })
}

fn charge(params: &Params) -> Result<Call, ApiError> {
    if !params.flag("confirm")? {
        return Err(ApiError::invalid("This gateway knows only confirm=true.").param("confirm"));
    }
    needs_no_return_url(params)?;
    let currency = params.required("currency")?;
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_lowercase()) {
        return Err(ApiError::invalid(format!("Invalid currency: {currency}.")).param("currency"));
    }
    let amount = params.amount("amount")?.unwrap_or_default();
    units::check(amount, currency)?;
    Ok(Call::Charge(NewIntent {
        amount,
        currency: currency.into(),
        payment_method: params.required("payment_method")?.into(),
        manual: params.get("capture_method") == Some("manual"),
        unattended: params.flag("error_on_requires_action")? || params.get("off_session").is_some(),
        customer: params.get("customer").map(str::to_owned),
        description: params.get("description").map(str::to_owned),
        metadata: params.metadata()?,
        expand: params.expand()?,
    }))
}

/// The dashboard decides which payment methods an intent has, and some of them send the payer elsewhere and want them back.
fn needs_no_return_url(params: &Params) -> Result<(), ApiError> {
    let stays = params.get("return_url").is_some()
        || params.get("automatic_payment_methods[allow_redirects]") == Some("never")
        || params.get("allowed_payment_method_types[]").is_some();
    match stays {
        true => Ok(()),
        false => Err(ApiError::invalid(
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of these \
             payment methods might redirect your customer off of your page, you must provide a `return_url`. If you don't want \
             to accept redirect-based payment methods, set `automatic_payment_methods[enabled]` to `true` and \
             `automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and Payment Intents.",
        )),
    }
}

/// Stripe's query language has more; this is the part that finds an intent by its metadata.
fn search(params: &Params) -> Result<Call, ApiError> {
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
