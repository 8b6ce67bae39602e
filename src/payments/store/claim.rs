//! Claims: keys and their payments, a group in one statement.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use uuid::Uuid;

use super::column;
use super::location::{RowLocation, RowLocations};
use crate::gateway::GatewayToken;
use crate::idempotency::grouped::{
    FINGERPRINT_VERSION, FoundColumns, FoundKey, Inserted, KeyColumns,
};
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

/// The result of a claim that did not find its key in use.
pub(in crate::payments) enum Claimed {
    /// The key is claimed.
    New(NewClaim),
    /// The payment was made before, and this is its answer.
    Found(FoundKey),
}

/// A claim that was taken.
pub(in crate::payments) struct NewClaim {
    pub(in crate::payments) inserted: Inserted,
    /// `None` if that is not known.
    pub(in crate::payments) locations: Option<RowLocations>,
}

/// A row of a claim's result. The first stands for all that were claimed, and each other one for an answer that was found.
struct ClaimRow {
    payment_ids: Option<Vec<String>>,
    payment_locations: Option<Vec<RowLocation>>,
    key_locations: Option<Vec<RowLocation>>,
    unsettled_locations: Option<Vec<RowLocation>>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    merchant_id: Option<String>,
    key: Option<String>,
    seconds_left: Option<f64>,
    fingerprint: Option<Vec<u8>>,
    fingerprint_version: Option<i16>,
    fingerprint_fields: Option<String>,
    response_status: Option<i16>,
    response_headers: Option<Value>,
    response_body: Option<Vec<u8>>,
}

impl ClaimRow {
    fn locations(&self, at: usize) -> Option<RowLocations> {
        let location = |of: &Option<Vec<RowLocation>>| of.as_ref()?.get(at).copied();
        Some(RowLocations {
            key: location(&self.key_locations)?,
            unsettled_key: location(&self.unsettled_locations)?,
            payment: location(&self.payment_locations)?,
        })
    }
}

/// An answer that was found.
struct AnswerRow {
    merchant_id: String,
    key: String,
    expires_at: DateTime<Utc>,
    seconds_left: f64,
    fingerprint: Option<Vec<u8>>,
    fingerprint_version: Option<i16>,
    fingerprint_fields: Option<String>,
    response_status: Option<i16>,
    response_headers: Option<Value>,
    response_body: Option<Vec<u8>>,
}

/// The results of sorted claims, in their order.
pub(super) struct ClaimResults<'a> {
    claims: &'a [PaymentClaim<'a>],
    results: Vec<Option<Claimed>>,
}

impl<'a> ClaimResults<'a> {
    pub(super) fn new(claims: &'a [PaymentClaim<'a>]) -> Self {
        let results = column(claims, |_| None);
        Self { claims, results }
    }

    pub(super) fn into_vec(self) -> Vec<Option<Claimed>> {
        self.results
    }

    pub(super) fn found(&mut self, merchant_id: &str, key: &str, columns: FoundColumns) {
        // An answer that cannot be read is left out: the other claims are committed. A request for this one alone gets the error.
        if let (Some(at), Ok(found)) = (self.position(merchant_id, key), columns.read()) {
            self.put(at, Claimed::Found(found));
        }
    }

    pub(super) fn claimed(&mut self, merchant_id: &str, key: &str, inserted: Inserted) {
        let claim = NewClaim {
            inserted,
            locations: None,
        };
        if let Some(at) = self.position(merchant_id, key) {
            self.put(at, Claimed::New(claim));
        }
    }

    /// The rows were inserted in the order of the claims, so the next claim is the one. In another order it would be found, too.
    fn claimed_together(&mut self, row: &ClaimRow) {
        let claims = self.claims;
        let mut positions = (0..claims.len()).cycle();
        for (at, payment_id) in row.payment_ids.iter().flatten().enumerate() {
            let is_it = |claim: &PaymentClaim<'_>| claim.payment.id == *payment_id;
            let mut from_here = positions.by_ref().take(claims.len());
            let position = from_here.find(|position| claims.get(*position).is_some_and(is_it));
            let inserted = Inserted {
                created_at: row.created_at,
                expires_at: row.expires_at,
            };
            let claim = NewClaim {
                inserted,
                locations: row.locations(at),
            };
            if let Some(position) = position {
                self.put(position, Claimed::New(claim));
            }
        }
    }

    fn position(&self, merchant_id: &str, key: &str) -> Option<usize> {
        let of = |claim: &PaymentClaim<'a>| {
            let scope = claim.key.scope;
            (scope.merchant_id.as_str(), scope.key.as_str())
        };
        let search = self
            .claims
            .binary_search_by(|claim| of(claim).cmp(&(merchant_id, key)));
        search.ok()
    }

    fn put(&mut self, at: usize, claimed: Claimed) {
        if let Some(result) = self.results.get_mut(at) {
            *result = Some(claimed);
        }
    }
}

/// Claims keys that are not in `idempotency_keys`, and inserts their payments. See [`claim_payments`](super::claim_payments).
pub(super) async fn insert_claims(
    connection: &mut PgConnection,
    terms: &ClaimTerms,
    claims: &[PaymentClaim<'_>],
) -> sqlx::Result<Vec<Option<Claimed>>> {
    let columns = Columns::of(&column(claims, |claim| claim));
    let rows = sqlx::query_file_as!(
        ClaimRow,
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
    .await?;
    let mut results = ClaimResults::new(claims);
    for row in rows {
        match (&row.merchant_id, &row.key, row.seconds_left) {
            (Some(merchant_id), Some(key), Some(seconds_left)) => {
                let columns = FoundColumns {
                    fingerprint: row.fingerprint,
                    fingerprint_version: row.fingerprint_version,
                    fingerprint_fields: row.fingerprint_fields,
                    status: row.response_status,
                    headers: row.response_headers,
                    body: row.response_body,
                    expires_at: row.expires_at,
                    seconds_left,
                };
                results.found(merchant_id, key, columns);
            }
            _ => results.claimed_together(&row),
        }
    }
    Ok(results.into_vec())
}

/// Returns the answers that [`claim_payments`](super::claim_payments) would find for these claims, at a fraction of its
/// price. It claims nothing.
pub(in crate::payments) async fn find_answers(
    connection: &mut PgConnection,
    claims: &[PaymentClaim<'_>],
) -> sqlx::Result<Vec<Option<Claimed>>> {
    let merchant_ids = column(claims, |claim| claim.key.scope.merchant_id.as_str());
    let operations = column(claims, |claim| claim.key.scope.operation.as_str());
    let keys = column(claims, |claim| claim.key.scope.key.as_str());
    let rows = sqlx::query_file_as!(
        AnswerRow,
        "src/payments/store/find_answers.sql",
        &merchant_ids as _,
        &operations as _,
        &keys as _,
    )
    .fetch_all(connection)
    .await?;
    let mut results = ClaimResults::new(claims);
    for row in rows {
        let columns = FoundColumns {
            fingerprint: row.fingerprint,
            fingerprint_version: row.fingerprint_version,
            fingerprint_fields: row.fingerprint_fields,
            status: row.response_status,
            headers: row.response_headers,
            body: row.response_body,
            expires_at: row.expires_at,
            seconds_left: row.seconds_left,
        };
        results.found(&row.merchant_id, &row.key, columns);
    }
    Ok(results.into_vec())
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
