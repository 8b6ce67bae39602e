//! Claims: keys and their payments, a group in one statement.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use uuid::Uuid;

use super::column;
use crate::database::has_sqlstate;
use crate::gateway::GatewayToken;
use crate::idempotency::grouped::{FINGERPRINT_VERSION, FoundColumns, FoundKey, KeyColumns};
use crate::payments::Payment;

/// A payment to be claimed: its key, and its row in `PROCESSING`.
pub(in crate::payments) struct PaymentClaim<'a> {
    pub(in crate::payments) key: KeyColumns<'a>,
    pub(in crate::payments) payment: &'a Payment,
}

/// What all claims of a group share.
pub(in crate::payments) struct ClaimTerms {
    pub(in crate::payments) owner: Uuid,
    pub(in crate::payments) lock_timeout: PgInterval,
    pub(in crate::payments) ttl: PgInterval,
}

/// A key that was claimed, or whose answer was found.
pub(in crate::payments) struct ClaimedKey {
    pub(in crate::payments) merchant_id: String,
    pub(in crate::payments) key: String,
    pub(in crate::payments) created_at: DateTime<Utc>,
    pub(in crate::payments) expires_at: DateTime<Utc>,
    pub(super) seconds_left: Option<f64>,
    pub(super) fingerprint: Option<Vec<u8>>,
    pub(super) fingerprint_version: Option<i16>,
    pub(super) fingerprint_fields: Option<String>,
    pub(super) response_status: Option<i16>,
    pub(super) response_headers: Option<Value>,
    pub(super) response_body: Option<Vec<u8>>,
}

impl ClaimedKey {
    /// Returns true if an answer was found, and false for a claim.
    pub(in crate::payments) fn is_found(&self) -> bool {
        self.seconds_left.is_some()
    }

    /// Returns the answer that was found, or `None` for a claim.
    pub(in crate::payments) fn found(&mut self) -> sqlx::Result<Option<FoundKey>> {
        let Some(seconds_left) = self.seconds_left else {
            return Ok(None);
        };
        let columns = FoundColumns {
            fingerprint: self.fingerprint.take(),
            fingerprint_version: self.fingerprint_version,
            fingerprint_fields: self.fingerprint_fields.take(),
            status: self.response_status,
            headers: self.response_headers.take(),
            body: self.response_body.take(),
            expires_at: self.expires_at,
            seconds_left,
        };
        columns.read().map(Some)
    }
}

/// Claims keys and inserts their payments, in one statement that commits by itself. Returns the keys that were claimed, and
/// those whose payment was made before, with its answer. A key that is missing from the result is in use, or its answer has
/// expired. Beside synchronous standbys no answer is found here, because a visible row need not be durable there. No key may be
/// given twice.
///
/// A group with a key that was used without a payment, or whose payment has lost its key while the statement ran, is not claimed:
/// the error asks for its claims one by one.
pub(in crate::payments) async fn claim_payments(
    connection: &mut PgConnection,
    terms: &ClaimTerms,
    claims: &[PaymentClaim<'_>],
) -> sqlx::Result<Vec<ClaimedKey>> {
    let columns = Columns::of(&column(claims, |claim| claim));
    let claimed = sqlx::query_file_as!(
        ClaimedKey,
        "src/payments/store/claim.sql",
        &columns.merchant_ids as _,
        &columns.operations as _,
        &columns.keys as _,
        &columns.fingerprints as _,
        &columns.fingerprint_fields as _,
        &columns.payment_ids as _,
        &columns.currencies as _,
        &columns.amounts,
        &columns.capture_methods as _,
        &columns.gateway_types as _,
        &columns.gateway_tokens as _,
        &columns.card_brands as _,
        &columns.card_last4s as _,
        &columns.card_expiry_months as _,
        &columns.card_expiry_years as _,
        &columns.card_holder_names as _,
        &columns.customer_ids as _,
        &columns.customer_emails as _,
        &columns.customer_names as _,
        &columns.descriptions as _,
        &columns.metadata as _,
        &columns.failure_codes as _,
        &columns.failure_messages as _,
        &columns.gateway_accounts as _,
        &columns.gateway_customer_ids as _,
        &columns.off_sessions,
        FINGERPRINT_VERSION,
        terms.owner,
        &terms.lock_timeout,
        &terms.ttl,
    )
    .fetch_all(connection)
    .await;
    match claimed {
        Err(error) if keys_and_payments_differ(&error) => not_claimed(claims),
        claimed => claimed,
    }
}

/// Returns the answers that [`claim_payments`] would find for these claims, at a fraction of its price. It claims nothing.
pub(in crate::payments) async fn find_answers(
    connection: &mut PgConnection,
    claims: &[PaymentClaim<'_>],
) -> sqlx::Result<Vec<ClaimedKey>> {
    let merchant_ids = column(claims, |claim| claim.key.scope.merchant_id.as_str());
    let operations = column(claims, |claim| claim.key.scope.operation.as_str());
    let keys = column(claims, |claim| claim.key.scope.key.as_str());
    sqlx::query_file_as!(
        ClaimedKey,
        "src/payments/store/find_answers.sql",
        &merchant_ids as _,
        &operations as _,
        &keys as _,
    )
    .fetch_all(connection)
    .await
}

/// The result for claims of which none was written, because a key would have no payment or a payment no key.
pub(super) fn not_claimed(claims: &[PaymentClaim<'_>]) -> sqlx::Result<Vec<ClaimedKey>> {
    match claims {
        [_] => Ok(Vec::new()),
        _ => Err(sqlx::Error::InvalidArgument(
            "a key of the group has no payment, or a payment no key".to_owned(),
        )),
    }
}

/// Returns true if the statement would have claimed a key without its payment, or a payment without its key.
fn keys_and_payments_differ(error: &sqlx::Error) -> bool {
    const DIVISION_BY_ZERO: &str = "22012";
    has_sqlstate(error, &[DIVISION_BY_ZERO])
}

/// A group's claims, column by column, as the statement takes them.
pub(super) struct Columns<'a> {
    pub(super) merchant_ids: Vec<&'a str>,
    pub(super) operations: Vec<&'a str>,
    pub(super) keys: Vec<&'a str>,
    pub(super) fingerprints: Vec<&'a [u8]>,
    pub(super) fingerprint_fields: Vec<&'a str>,
    pub(super) payment_ids: Vec<&'a str>,
    pub(super) currencies: Vec<&'a str>,
    pub(super) amounts: Vec<i64>,
    pub(super) capture_methods: Vec<&'a str>,
    pub(super) gateway_types: Vec<&'a str>,
    pub(super) gateway_tokens: Vec<Option<&'a str>>,
    pub(super) card_brands: Vec<Option<&'a str>>,
    pub(super) card_last4s: Vec<Option<&'a str>>,
    pub(super) card_expiry_months: Vec<Option<i16>>,
    pub(super) card_expiry_years: Vec<Option<i16>>,
    pub(super) card_holder_names: Vec<Option<&'a str>>,
    pub(super) customer_ids: Vec<Option<&'a str>>,
    pub(super) customer_emails: Vec<Option<&'a str>>,
    pub(super) customer_names: Vec<Option<&'a str>>,
    pub(super) descriptions: Vec<Option<&'a str>>,
    pub(super) metadata: Vec<Json<&'a BTreeMap<String, String>>>,
    pub(super) failure_codes: Vec<Option<&'a str>>,
    pub(super) failure_messages: Vec<Option<&'a str>>,
    pub(super) gateway_accounts: Vec<Option<&'a str>>,
    pub(super) gateway_customer_ids: Vec<Option<&'a str>>,
    pub(super) off_sessions: Vec<bool>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(claims: &[&'a PaymentClaim<'a>]) -> Self {
        let payments = column(claims, |claim| claim.payment);
        let cards = column(claims, |claim| claim.payment.card.as_ref());
        let customers = column(claims, |claim| &claim.payment.customer);
        let failures = column(claims, |claim| claim.payment.failure.as_ref());
        Self {
            merchant_ids: column(claims, |c| c.key.scope.merchant_id.as_str()),
            operations: column(claims, |c| c.key.scope.operation.as_str()),
            keys: column(claims, |c| c.key.scope.key.as_str()),
            fingerprints: column(claims, |c| c.key.fingerprint),
            fingerprint_fields: column(claims, |c| c.key.fingerprint_fields),
            payment_ids: column(&payments, |p| p.id.as_str()),
            currencies: column(&payments, |p| p.amount.currency().code()),
            amounts: column(&payments, |p| p.amount.minor()),
            capture_methods: column(&payments, |p| p.capture_method.as_str()),
            gateway_types: column(&payments, |p| p.gateway_type.as_str()),
            gateway_tokens: column(&payments, |p| {
                p.gateway_token.as_ref().map(GatewayToken::as_str)
            }),
            card_brands: column(&cards, |card| card.map(|card| card.brand.as_str())),
            card_last4s: column(&cards, |card| card.map(|card| card.last4.as_str())),
            card_expiry_months: column(&cards, |card| card.map(|card| card.expiry_month.into())),
            card_expiry_years: column(&cards, |card| {
                card.and_then(|card| card.expiry_year.try_into().ok())
            }),
            card_holder_names: column(&cards, |card| {
                card.and_then(|card| card.holder_name.as_deref())
            }),
            customer_ids: column(&customers, |customer| customer.id.as_deref()),
            customer_emails: column(&customers, |customer| customer.email.as_deref()),
            customer_names: column(&customers, |customer| customer.name.as_deref()),
            descriptions: column(&payments, |p| p.description.as_deref()),
            metadata: column(&payments, |p| Json(&p.metadata)),
            failure_codes: column(&failures, |failure| failure.map(|f| f.code.as_str())),
            failure_messages: column(&failures, |failure| failure.map(|f| f.message.as_str())),
            gateway_accounts: column(&payments, |p| p.gateway_account.as_deref()),
            gateway_customer_ids: column(&customers, |customer| {
                customer.gateway_customer_id.as_deref()
            }),
            off_sessions: column(&payments, |p| p.off_session),
        }
    }
}
