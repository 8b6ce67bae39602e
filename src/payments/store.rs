//! The payments' SQL. Every function is one statement on a connection that the service or the engine gives it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    CaptureMethod, Customer, Payment, PaymentFilter, PaymentState, Pending, Refund, RefundState,
};
use crate::cards::CardSummary;
use crate::gateway::{Advice, Decline, GatewayToken};
use crate::idempotency::{
    FINGERPRINT_VERSION, FoundColumns, FoundKey, KeyColumns, ResponseColumns,
};
use crate::money::{Amount, Currency};

/// A payment to be claimed: its key, and its row in `PROCESSING`.
pub(super) struct PaymentClaim<'a> {
    pub(super) key: KeyColumns<'a>,
    pub(super) payment: &'a Payment,
}

/// A key that was claimed, or whose answer was found.
pub(super) struct ClaimedKey {
    pub(super) merchant_id: String,
    pub(super) key: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    seconds_left: Option<f64>,
    fingerprint: Option<Vec<u8>>,
    fingerprint_version: Option<i16>,
    fingerprint_fields: Option<String>,
    response_status: Option<i16>,
    response_headers: Option<Value>,
    response_body: Option<Vec<u8>>,
}

impl ClaimedKey {
    /// The answer that was found; `None` for a claim.
    pub(super) fn found(&mut self) -> sqlx::Result<Option<FoundKey>> {
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

/// What every claim of a batch shares.
pub(super) struct ClaimTerms {
    pub(super) owner: Uuid,
    pub(super) lock_timeout: PgInterval,
    pub(super) ttl: PgInterval,
}

/// Claims keys and inserts their payments, in one statement that commits by itself. Returns those that were claimed, and those
/// whose payment was made before, with its answer; the others' keys are in use, or their answers are past their time. Beside
/// synchronous standbys no answer is found here: what is visible need not be durable there. No key may be given twice.
pub(super) async fn claim_payments(
    connection: &mut PgConnection,
    terms: &ClaimTerms,
    claims: &[PaymentClaim<'_>],
) -> sqlx::Result<Vec<ClaimedKey>> {
    let column = |text: fn(&Payment) -> Option<&str>| -> Vec<Option<&str>> {
        claims.iter().map(|claim| text(claim.payment)).collect()
    };
    let merchant_ids: Vec<&str> = claims
        .iter()
        .map(|c| c.key.scope.merchant_id.as_str())
        .collect();
    let operations: Vec<&str> = claims
        .iter()
        .map(|c| c.key.scope.operation.as_str())
        .collect();
    let keys: Vec<&str> = claims.iter().map(|c| c.key.scope.key.as_str()).collect();
    let fingerprints: Vec<&[u8]> = claims.iter().map(|c| c.key.fingerprint).collect();
    let fingerprint_fields: Vec<&str> = claims.iter().map(|c| c.key.fingerprint_fields).collect();
    let payment_ids: Vec<&str> = claims.iter().map(|c| c.payment.id.as_str()).collect();
    let currencies: Vec<&str> = claims
        .iter()
        .map(|c| c.payment.amount.currency().code())
        .collect();
    let amounts: Vec<i64> = claims.iter().map(|c| c.payment.amount.minor()).collect();
    let capture_methods: Vec<&str> = claims
        .iter()
        .map(|c| c.payment.capture_method.as_str())
        .collect();
    let gateway_types: Vec<&str> = claims
        .iter()
        .map(|c| c.payment.gateway_type.as_str())
        .collect();
    let gateway_tokens = column(|payment| payment.gateway_token.as_ref().map(GatewayToken::as_str));
    let cards: Vec<CardColumns<'_>> = claims
        .iter()
        .map(|c| CardColumns::of(c.payment.card.as_ref()))
        .collect();
    let brands: Vec<Option<&str>> = cards.iter().map(|card| card.brand).collect();
    let last4s: Vec<Option<&str>> = cards.iter().map(|card| card.last4).collect();
    let months: Vec<Option<i16>> = cards.iter().map(|card| card.expiry_month).collect();
    let years: Vec<Option<i16>> = cards.iter().map(|card| card.expiry_year).collect();
    let holders: Vec<Option<&str>> = cards.iter().map(|card| card.holder_name).collect();
    let customer_ids = column(|payment| payment.customer.id.as_deref());
    let customer_emails = column(|payment| payment.customer.email.as_deref());
    let customer_names = column(|payment| payment.customer.name.as_deref());
    let descriptions = column(|payment| payment.description.as_deref());
    let metadata: Vec<Json<&BTreeMap<String, String>>> = claims
        .iter()
        .map(|claim| Json(&claim.payment.metadata))
        .collect();
    let failure_codes = column(|payment| payment.failure.as_ref().map(|f| f.code.as_str()));
    let failure_messages = column(|payment| payment.failure.as_ref().map(|f| f.message.as_str()));
    let gateway_accounts = column(|payment| payment.gateway_account.as_deref());
    let gateway_customers = column(|payment| payment.customer.gateway_customer_id.as_deref());
    let off_sessions: Vec<bool> = claims.iter().map(|c| c.payment.off_session).collect();
    sqlx::query_as!(
        ClaimedKey,
        r#"
        with input as materialized (
            select *
            from unnest(
                $1::text[],
                $2::text[],
                $3::text[],
                $4::bytea[],
                $5::text[],
                $6::text[],
                $7::text[],
                $8::bigint[],
                $9::text[],
                $10::text[],
                $11::text[],
                $12::text[],
                $13::text[],
                $14::smallint[],
                $15::smallint[],
                $16::text[],
                $17::text[],
                $18::text[],
                $19::text[],
                $20::text[],
                $21::jsonb[],
                $22::text[],
                $23::text[],
                $24::text[],
                $25::text[],
                $26::boolean[]
            ) as i (
                merchant_id,
                operation,
                key,
                fingerprint,
                fingerprint_fields,
                payment_id,
                currency,
                amount_minor,
                capture_method,
                gateway_type,
                gateway_token,
                card_brand,
                card_last4,
                card_expiry_month,
                card_expiry_year,
                card_holder_name,
                customer_id,
                customer_email,
                customer_name,
                description,
                metadata,
                failure_code,
                failure_message,
                gateway_account,
                gateway_customer_id,
                off_session
            )
        ),
        remembered as (
            select
                p.merchant_id,
                p.idempotency_key,
                i.operation
            from input i
            join payments p
                on p.merchant_id = i.merchant_id
                and p.idempotency_key = i.key
        ),
        found as (
            select
                k.merchant_id,
                k.key,
                k.created_at,
                k.expires_at,
                extract(epoch from k.expires_at - now())::float8 as seconds_left,
                k.fingerprint,
                k.fingerprint_version,
                k.fingerprint_fields,
                k.response_status,
                k.response_headers,
                k.response_body
            from remembered r
            join idempotency_keys k
                on k.merchant_id = r.merchant_id
                and k.operation = r.operation
                and k.key = r.idempotency_key
            where k.state <> 'PROCESSING'
                and k.expires_at > now()
                and current_setting('synchronous_standby_names') = ''
        ),
        claimed as (
            insert into idempotency_keys as k (
                merchant_id,
                operation,
                key,
                fingerprint,
                fingerprint_version,
                fingerprint_fields,
                state,
                attempt,
                owner,
                lease_expires_at,
                resource_id,
                created_at,
                expires_at
            )
            select
                i.merchant_id,
                i.operation,
                i.key,
                i.fingerprint,
                $27,
                i.fingerprint_fields,
                'PROCESSING',
                1,
                $28,
                now() + $29::interval,
                i.payment_id,
                now(),
                now() + $30::interval
            from input i
            where (i.merchant_id, i.key) not in (select merchant_id, idempotency_key from remembered)
            on conflict (merchant_id, operation, key) do update set
                fingerprint = excluded.fingerprint,
                fingerprint_version = excluded.fingerprint_version,
                fingerprint_fields = excluded.fingerprint_fields,
                state = excluded.state,
                attempt = excluded.attempt,
                owner = excluded.owner,
                lease_expires_at = excluded.lease_expires_at,
                resource_id = excluded.resource_id,
                response_status = null,
                response_headers = null,
                response_body = null,
                created_at = excluded.created_at,
                completed_at = null,
                expires_at = excluded.expires_at
            where k.state <> 'PROCESSING'
                and k.expires_at < excluded.created_at
            returning
                merchant_id,
                operation,
                key,
                created_at,
                expires_at
        ),
        unsettled as (
            insert into unsettled_keys (
                merchant_id,
                operation,
                key,
                claimed_at
            )
            select
                merchant_id,
                operation,
                key,
                created_at
            from claimed
        ),
        made as (
            insert into payments (
                merchant_id,
                payment_id,
                idempotency_key,
                state,
                currency,
                amount_minor,
                capture_method,
                gateway_type,
                gateway_token,
                card_brand,
                card_last4,
                card_expiry_month,
                card_expiry_year,
                card_holder_name,
                customer_id,
                customer_email,
                customer_name,
                description,
                metadata,
                failure_code,
                failure_message,
                gateway_account,
                gateway_customer_id,
                off_session,
                created_at,
                updated_at
            )
            select
                i.merchant_id,
                i.payment_id,
                i.key,
                'PROCESSING',
                i.currency,
                i.amount_minor,
                i.capture_method,
                i.gateway_type,
                i.gateway_token,
                i.card_brand,
                i.card_last4,
                i.card_expiry_month,
                i.card_expiry_year,
                i.card_holder_name,
                i.customer_id,
                i.customer_email,
                i.customer_name,
                i.description,
                i.metadata,
                i.failure_code,
                i.failure_message,
                i.gateway_account,
                i.gateway_customer_id,
                i.off_session,
                c.created_at,
                c.created_at
            from claimed c
            join input i
                on i.merchant_id = c.merchant_id
                and i.key = c.key
        )
        select
            merchant_id as "merchant_id!",
            key as "key!",
            created_at as "created_at!",
            expires_at as "expires_at!",
            null::float8 as seconds_left,
            null::bytea as fingerprint,
            null::smallint as fingerprint_version,
            null::text as fingerprint_fields,
            null::smallint as response_status,
            null::jsonb as response_headers,
            null::bytea as response_body
        from claimed
        union all
        select
            merchant_id,
            key,
            created_at,
            expires_at,
            seconds_left,
            fingerprint,
            fingerprint_version,
            fingerprint_fields,
            response_status,
            response_headers,
            response_body
        from found
        "#,
        &merchant_ids as _,
        &operations as _,
        &keys as _,
        &fingerprints as _,
        &fingerprint_fields as _,
        &payment_ids as _,
        &currencies as _,
        &amounts,
        &capture_methods as _,
        &gateway_types as _,
        &gateway_tokens as _,
        &brands as _,
        &last4s as _,
        &months as _,
        &years as _,
        &holders as _,
        &customer_ids as _,
        &customer_emails as _,
        &customer_names as _,
        &descriptions as _,
        &metadata as _,
        &failure_codes as _,
        &failure_messages as _,
        &gateway_accounts as _,
        &gateway_customers as _,
        &off_sessions,
        FINGERPRINT_VERSION,
        terms.owner,
        &terms.lock_timeout,
        &terms.ttl,
    )
    .fetch_all(connection)
    .await
}

/// A payment to be settled: the attempt that holds its key, its new row, and the answer.
pub(super) struct PaymentSettle<'a> {
    pub(super) attempt: i32,
    pub(super) payment: &'a Payment,
    pub(super) response: ResponseColumns<'a>,
}

/// A key that was settled.
pub(super) struct SettledKey {
    pub(super) merchant_id: String,
    pub(super) key: String,
}

/// Settles payments of `operation`, each if its attempt still holds the key, in one statement that commits by itself: the
/// conditional update is the lock. Returns those that were settled.
pub(super) async fn settle_payments(
    connection: &mut PgConnection,
    operation: &str,
    owner: Uuid,
    settles: &[PaymentSettle<'_>],
) -> sqlx::Result<Vec<SettledKey>> {
    let merchant_ids: Vec<&str> = settles
        .iter()
        .map(|s| s.payment.merchant_id.as_str())
        .collect();
    let keys: Vec<&str> = settles
        .iter()
        .map(|s| s.payment.idempotency_key.as_str())
        .collect();
    let attempts: Vec<i32> = settles.iter().map(|s| s.attempt).collect();
    let key_states: Vec<&str> = settles.iter().map(|s| s.response.state).collect();
    let statuses: Vec<i16> = settles.iter().map(|s| s.response.status).collect();
    let headers: Vec<&Value> = settles.iter().map(|s| &s.response.headers).collect();
    let bodies: Vec<&[u8]> = settles.iter().map(|s| s.response.body).collect();
    let payment_ids: Vec<&str> = settles.iter().map(|s| s.payment.id.as_str()).collect();
    let states: Vec<&str> = settles.iter().map(|s| s.payment.state.as_str()).collect();
    let captured: Vec<i64> = settles.iter().map(|s| s.payment.captured_minor).collect();
    let transaction_ids: Vec<Option<&str>> = settles
        .iter()
        .map(|s| s.payment.gateway_transaction_id.as_deref())
        .collect();
    let cards: Vec<CardColumns<'_>> = settles
        .iter()
        .map(|s| CardColumns::of(s.payment.card.as_ref()))
        .collect();
    let brands: Vec<Option<&str>> = cards.iter().map(|card| card.brand).collect();
    let last4s: Vec<Option<&str>> = cards.iter().map(|card| card.last4).collect();
    let months: Vec<Option<i16>> = cards.iter().map(|card| card.expiry_month).collect();
    let years: Vec<Option<i16>> = cards.iter().map(|card| card.expiry_year).collect();
    let failure = |part: fn(&Decline) -> &str| -> Vec<Option<&str>> {
        settles
            .iter()
            .map(|s| s.payment.failure.as_ref().map(part))
            .collect()
    };
    let failure_codes = failure(|decline| &decline.code);
    let failure_messages = failure(|decline| &decline.message);
    let advice = |part: fn(&Advice) -> Option<&str>| -> Vec<Option<&str>> {
        let failures = settles.iter().map(|s| s.payment.failure.as_ref());
        failures
            .map(|failure| failure.and_then(|decline| part(&decline.advice)))
            .collect()
    };
    let advice_codes = advice(|advice| advice.advice_code.as_deref());
    let network_advice_codes = advice(|advice| advice.network_advice_code.as_deref());
    let network_decline_codes = advice(|advice| advice.network_decline_code.as_deref());
    let updated_ats: Vec<DateTime<Utc>> = settles.iter().map(|s| s.payment.updated_at).collect();
    // A column like the others: a constant would let the planner walk the whole index for it.
    let operations: Vec<&str> = settles.iter().map(|_| operation).collect();
    sqlx::query_as!(
        SettledKey,
        r#"
        with input as materialized (
            select *
            from unnest(
                $1::text[],
                $2::text[],
                $3::integer[],
                $4::text[],
                $5::smallint[],
                $6::jsonb[],
                $7::bytea[],
                $8::text[],
                $9::text[],
                $10::bigint[],
                $11::text[],
                $12::text[],
                $13::text[],
                $14::smallint[],
                $15::smallint[],
                $16::text[],
                $17::text[],
                $18::timestamptz[],
                $19::text[],
                $20::text[],
                $21::text[],
                $22::text[]
            ) as i (
                merchant_id,
                key,
                attempt,
                key_state,
                response_status,
                response_headers,
                response_body,
                payment_id,
                state,
                amount_captured_minor,
                gateway_transaction_id,
                card_brand,
                card_last4,
                card_expiry_month,
                card_expiry_year,
                failure_code,
                failure_message,
                updated_at,
                operation,
                failure_advice_code,
                failure_network_advice_code,
                failure_network_decline_code
            )
        ),
        settled as (
            update idempotency_keys k
            set state = i.key_state,
                lease_expires_at = null,
                completed_at = now(),
                response_status = i.response_status,
                response_headers = i.response_headers,
                response_body = i.response_body
            from input i
            where k.merchant_id = i.merchant_id
                and k.operation = i.operation
                and k.key = i.key
                and k.owner = $23
                and k.attempt = i.attempt
                and k.state = 'PROCESSING'
            returning
                k.merchant_id,
                k.operation,
                k.key
        ),
        forgotten as (
            delete from unsettled_keys u
            using settled s
            where u.merchant_id = s.merchant_id
                and u.operation = s.operation
                and u.key = s.key
        ),
        updated as (
            update payments p
            set state = i.state,
                amount_captured_minor = i.amount_captured_minor,
                gateway_transaction_id = i.gateway_transaction_id,
                card_brand = i.card_brand,
                card_last4 = i.card_last4,
                card_expiry_month = i.card_expiry_month,
                card_expiry_year = i.card_expiry_year,
                failure_code = i.failure_code,
                failure_message = i.failure_message,
                failure_advice_code = i.failure_advice_code,
                failure_network_advice_code = i.failure_network_advice_code,
                failure_network_decline_code = i.failure_network_decline_code,
                updated_at = i.updated_at
            from settled s
            join input i
                on i.merchant_id = s.merchant_id
                and i.key = s.key
            where p.merchant_id = i.merchant_id
                and p.payment_id = i.payment_id
                and p.idempotency_key = i.key
        )
        select
            merchant_id,
            key
        from settled
        "#,
        &merchant_ids as _,
        &keys as _,
        &attempts,
        &key_states as _,
        &statuses,
        &headers as _,
        &bodies as _,
        &payment_ids as _,
        &states as _,
        &captured,
        &transaction_ids as _,
        &brands as _,
        &last4s as _,
        &months as _,
        &years as _,
        &failure_codes as _,
        &failure_messages as _,
        &updated_ats,
        &operations as _,
        &advice_codes as _,
        &network_advice_codes as _,
        &network_decline_codes as _,
        owner,
    )
    .fetch_all(connection)
    .await
}

/// Removes a payment of which nothing happened.
pub(super) async fn remove_payment(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        delete from payments
        where merchant_id = $1
            and payment_id = $2
            and state = 'PROCESSING'
        "#,
        merchant_id,
        payment_id,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// What a key made, whether or not its record is still there.
pub(super) struct MadeByKey {
    pub(super) id: String,
    pub(super) created_at: DateTime<Utc>,
}

/// The payment that a key made.
pub(super) async fn find_payment_of_key(
    connection: &mut PgConnection,
    merchant_id: &str,
    key: &str,
) -> sqlx::Result<Option<MadeByKey>> {
    sqlx::query_as!(
        MadeByKey,
        r#"
        select
            payment_id as id,
            created_at
        from payments
        where merchant_id = $1
            and idempotency_key = $2
        "#,
        merchant_id,
        key,
    )
    .fetch_optional(connection)
    .await
}

/// The state of the payment that a key made.
pub(super) async fn find_state_by_key(
    connection: &mut PgConnection,
    merchant_id: &str,
    key: &str,
) -> sqlx::Result<Option<PaymentState>> {
    sqlx::query_scalar!(
        r#"
        select state
        from payments
        where merchant_id = $1
            and idempotency_key = $2
        "#,
        merchant_id,
        key,
    )
    .fetch_optional(connection)
    .await?
    .map(|state| PaymentState::from_name(&state).ok_or_else(|| corrupt("payments.state")))
    .transpose()
}

/// The refund that a key made.
pub(super) async fn find_refund_of_key(
    connection: &mut PgConnection,
    merchant_id: &str,
    key: &str,
) -> sqlx::Result<Option<MadeByKey>> {
    sqlx::query_as!(
        MadeByKey,
        r#"
        select
            refund_id as id,
            created_at
        from refunds
        where merchant_id = $1
            and idempotency_key = $2
        "#,
        merchant_id,
        key,
    )
    .fetch_optional(connection)
    .await
}

/// The gateway of a payment, or of a refund's payment, by the payment's or the refund's id.
pub(super) async fn find_gateway_of(
    connection: &mut PgConnection,
    merchant_id: &str,
    resource_id: &str,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"
        select gateway_type
        from payments
        where merchant_id = $1
            and payment_id = coalesce(
                (
                    select payment_id
                    from refunds
                    where merchant_id = $1
                        and refund_id = $2
                ),
                $2
            )
        "#,
        merchant_id,
        resource_id,
    )
    .fetch_optional(connection)
    .await
}

/// Locks a payment's row until the transaction ends: whoever changes its amounts holds it.
pub(super) async fn lock_payment(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Option<Payment>> {
    let locked = sqlx::query_scalar!(
        r#"
        select payment_id
        from payments
        where merchant_id = $1
            and payment_id = $2
        for update
        "#,
        merchant_id,
        payment_id,
    )
    .fetch_optional(&mut *connection)
    .await?;
    match locked {
        // A statement of its own: it sees what the row's former holder committed.
        Some(payment_id) => find_payment(connection, merchant_id, &payment_id).await,
        None => Ok(None),
    }
}

/// One payment.
pub(super) async fn find_payment(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Option<Payment>> {
    let filter = RowFilter {
        payment_id: Some(payment_id),
        ..RowFilter::default()
    };
    Ok(select_payments(connection, merchant_id, &filter, Some(1))
        .await?
        .pop())
}

/// A merchant's payments, newest first: ids are UUIDv7, so the primary key's order is the order of creation. A filter by state or
/// customer reads as far as it must: see [`list_newest`].
pub(super) async fn list_payments(
    connection: &mut PgConnection,
    merchant_id: &str,
    filter: &PaymentFilter,
    limit: i64,
) -> sqlx::Result<Vec<Payment>> {
    let filter = RowFilter {
        before: filter.before.as_deref(),
        state: filter.state.map(PaymentState::as_str),
        customer_id: filter.customer_id.as_deref(),
        idempotency_key: filter.idempotency_key.as_deref(),
        ..RowFilter::default()
    };
    select_payments(connection, merchant_id, &filter, Some(limit)).await
}

/// Those of a merchant's payments that have one of these ids and are in this state, newest first.
pub(super) async fn list_among(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_ids: &[String],
    state: Option<PaymentState>,
) -> sqlx::Result<Vec<Payment>> {
    let filter = RowFilter {
        state: state.map(PaymentState::as_str),
        among: Some(payment_ids),
        ..RowFilter::default()
    };
    // With a limit the planner may walk all payments in their order, to find the first of these.
    select_payments(connection, merchant_id, &filter, None).await
}

/// A payment that a list may show.
pub(super) struct LookedAt {
    pub(super) payment_id: String,
    /// As it is shown: `PROCESSING` while a capture or cancel is under way.
    pub(super) state: String,
}

/// A merchant's `most` newest payments, newest first, of those before `before`.
pub(super) async fn list_newest(
    connection: &mut PgConnection,
    merchant_id: &str,
    before: Option<&str>,
    most: i64,
) -> sqlx::Result<Vec<LookedAt>> {
    sqlx::query_as!(
        LookedAt,
        r#"
        select
            payment_id,
            case when pending_operation is null then state else 'PROCESSING' end as "state!"
        from payments
        where merchant_id = $1
            and ($2::text is null or payment_id < $2)
        order by payment_id desc
        limit $3
        "#,
        merchant_id,
        before,
        most,
    )
    .fetch_all(connection)
    .await
}

/// As [`list_newest`], of one customer. Asked in this way, by a range of pairs, only the index of customers has the order: with
/// `customer_id = $2` the planner may walk all of the merchant's payments instead, if it thinks that many are the customer's.
pub(super) async fn list_newest_of_customer(
    connection: &mut PgConnection,
    merchant_id: &str,
    customer_id: &str,
    before: Option<&str>,
    most: i64,
) -> sqlx::Result<Vec<LookedAt>> {
    sqlx::query_as!(
        LookedAt,
        r#"
        select
            payment_id,
            case when pending_operation is null then state else 'PROCESSING' end as "state!"
        from payments
        where merchant_id = $1
            and customer_id is not null
            and (customer_id, payment_id) > ($2, '')
            and (customer_id, payment_id) < ($2, coalesce($3, 'pay~'))
        order by
            customer_id desc,
            payment_id desc
        limit $4
        "#,
        merchant_id,
        customer_id,
        before,
        most,
    )
    .fetch_all(connection)
    .await
}

#[derive(Default)]
struct RowFilter<'a> {
    payment_id: Option<&'a str>,
    before: Option<&'a str>,
    state: Option<&'a str>,
    customer_id: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    among: Option<&'a [String]>,
}

/// The one place that reads payments. With custom plans an absent filter costs nothing: the planner sees its null.
async fn select_payments(
    connection: &mut PgConnection,
    merchant_id: &str,
    filter: &RowFilter<'_>,
    limit: Option<i64>,
) -> sqlx::Result<Vec<Payment>> {
    sqlx::query_as!(
        PaymentRow,
        r#"
        select
            merchant_id,
            payment_id,
            idempotency_key,
            state,
            currency,
            amount_minor,
            amount_captured_minor,
            amount_refunded_minor,
            amount_refunding_minor,
            capture_method,
            pending_operation,
            pending_amount_minor,
            gateway_type,
            gateway_token,
            gateway_transaction_id,
            card_brand,
            card_last4,
            card_expiry_month,
            card_expiry_year,
            card_holder_name,
            customer_id,
            customer_email,
            customer_name,
            gateway_account,
            gateway_customer_id,
            off_session,
            pending_attempt_id,
            cancellation_reason,
            failure_advice_code,
            failure_network_advice_code,
            failure_network_decline_code,
            description,
            metadata as "metadata: Json<BTreeMap<String, String>>",
            failure_code,
            failure_message,
            created_at,
            updated_at
        from payments
        where merchant_id = $1
            and ($2::text is null or payment_id = $2)
            and ($3::text is null or payment_id < $3)
            and ($4::text is null or case when pending_operation is null then state else 'PROCESSING' end = $4)
            and ($5::text is null or customer_id = $5)
            and ($6::text is null or idempotency_key = $6)
            and ($7::text[] is null or payment_id = any($7))
        order by payment_id desc
        limit $8
        "#,
        merchant_id,
        filter.payment_id,
        filter.before,
        filter.state,
        filter.customer_id,
        filter.idempotency_key,
        filter.among,
        limit,
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(PaymentRow::into_payment)
    .collect()
}

/// Writes back a payment whose row the transaction has locked: all that can change after its creation.
pub(super) async fn save_payment(
    connection: &mut PgConnection,
    payment: &Payment,
) -> sqlx::Result<()> {
    let (pending_operation, pending_amount_minor) = match payment.pending {
        None => (None, None),
        Some(Pending::Capture { minor }) => (Some("capture_payment"), Some(minor)),
        Some(Pending::Cancel) => (Some("cancel_payment"), Some(0)),
    };
    sqlx::query!(
        r#"
        update payments
        set state = $3,
            amount_captured_minor = $4,
            amount_refunded_minor = $5,
            amount_refunding_minor = $6,
            pending_operation = $7,
            pending_amount_minor = $8,
            updated_at = $9,
            pending_attempt_id = $10,
            cancellation_reason = $11
        where merchant_id = $1
            and payment_id = $2
        "#,
        payment.merchant_id,
        payment.id,
        payment.state.as_str(),
        payment.captured_minor,
        payment.refunded_minor,
        payment.refunding_minor,
        pending_operation,
        pending_amount_minor,
        payment.updated_at,
        payment.pending_attempt,
        payment.cancellation_reason,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Inserts a refund in `PROCESSING`; its moment is the transaction's.
pub(super) async fn insert_refund(
    connection: &mut PgConnection,
    refund: &Refund,
) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(
        r#"
        insert into refunds (
            merchant_id,
            refund_id,
            payment_id,
            idempotency_key,
            state,
            amount_minor,
            currency,
            reason,
            created_at,
            updated_at
        )
        values ($1, $2, $3, $4, 'PROCESSING', $5, $6, $7, now(), now())
        returning created_at
        "#,
        refund.merchant_id,
        refund.id,
        refund.payment_id,
        refund.idempotency_key,
        refund.amount.minor(),
        refund.amount.currency().code(),
        refund.reason,
    )
    .fetch_one(connection)
    .await
}

/// Writes a refund's outcome.
pub(super) async fn save_refund(
    connection: &mut PgConnection,
    refund: &Refund,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update refunds
        set state = $3,
            gateway_refund_id = $4,
            failure_code = $5,
            failure_message = $6,
            updated_at = now(),
            next_look_at = case when $3 = 'PENDING' then now() + $7::interval end
        where merchant_id = $1
            and refund_id = $2
        "#,
        refund.merchant_id,
        refund.id,
        refund.state.as_str(),
        refund.gateway_refund_id,
        refund.failure.as_ref().map(|failure| failure.code.as_str()),
        refund
            .failure
            .as_ref()
            .map(|failure| failure.message.as_str()),
        seconds(FIRST_LOOK_AFTER),
    )
    .execute(connection)
    .await
    .map(drop)
}

/// The pause before a pending refund is looked at for the first time; each further one is twice as long.
const FIRST_LOOK_AFTER: Duration = Duration::from_secs(2);

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

fn seconds(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}

/// A pending refund that is to be looked at.
pub(super) struct DueRefund {
    pub(super) merchant_id: String,
    pub(super) refund_id: String,
    looks: i32,
}

/// Pending refunds whose time to be looked at has come, the longest due first. Read without a lock.
pub(super) async fn list_due_refunds(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<DueRefund>> {
    sqlx::query_as!(
        DueRefund,
        r#"
        select
            merchant_id,
            refund_id,
            looks
        from refunds
        where state = 'PENDING'
            and next_look_at <= now()
        order by next_look_at
        limit $1
        "#,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Takes the next look at a pending refund, so that no other node does; the one after it comes after a longer pause. Returns
/// `false` where another node took it, or the refund has ended.
pub(super) async fn take_look(
    connection: &mut PgConnection,
    due: &DueRefund,
) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        r#"
        update refunds
        set looks = looks + 1,
            next_look_at = statement_timestamp() + least($4::interval * power(2, least(looks + 1, 20)), $5::interval)
        where merchant_id = $1
            and refund_id = $2
            and state = 'PENDING'
            and looks = $3
        "#,
        due.merchant_id,
        due.refund_id,
        due.looks,
        seconds(FIRST_LOOK_AFTER),
        seconds(LONGEST_PAUSE),
    )
    .execute(connection)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Removes a refund of which nothing happened.
pub(super) async fn remove_refund(
    connection: &mut PgConnection,
    merchant_id: &str,
    refund_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        delete from refunds
        where merchant_id = $1
            and refund_id = $2
            and state = 'PROCESSING'
        "#,
        merchant_id,
        refund_id,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// One refund.
pub(super) async fn find_refund(
    connection: &mut PgConnection,
    merchant_id: &str,
    refund_id: &str,
) -> sqlx::Result<Option<Refund>> {
    Ok(
        select_refunds(connection, merchant_id, Some(refund_id), None)
            .await?
            .pop(),
    )
}

/// A payment's refunds, newest first.
pub(super) async fn list_refunds(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Vec<Refund>> {
    select_refunds(connection, merchant_id, None, Some(payment_id)).await
}

async fn select_refunds(
    connection: &mut PgConnection,
    merchant_id: &str,
    refund_id: Option<&str>,
    payment_id: Option<&str>,
) -> sqlx::Result<Vec<Refund>> {
    sqlx::query_as!(
        RefundRow,
        r#"
        select
            merchant_id,
            refund_id,
            payment_id,
            idempotency_key,
            state,
            amount_minor,
            currency,
            reason,
            gateway_refund_id,
            failure_code,
            failure_message,
            created_at
        from refunds
        where merchant_id = $1
            and ($2::text is null or refund_id = $2)
            and ($3::text is null or payment_id = $3)
        order by refund_id desc
        "#,
        merchant_id,
        refund_id,
        payment_id,
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(RefundRow::into_refund)
    .collect()
}

#[derive(Default)]
struct CardColumns<'a> {
    brand: Option<&'a str>,
    last4: Option<&'a str>,
    expiry_month: Option<i16>,
    expiry_year: Option<i16>,
    holder_name: Option<&'a str>,
}

impl<'a> CardColumns<'a> {
    fn of(card: Option<&'a CardSummary>) -> Self {
        card.map_or_else(Self::default, |card| Self {
            brand: Some(&card.brand),
            last4: Some(&card.last4),
            expiry_month: Some(card.expiry_month.into()),
            expiry_year: i16::try_from(card.expiry_year).ok(),
            holder_name: card.holder_name.as_deref(),
        })
    }
}

struct PaymentRow {
    merchant_id: String,
    payment_id: String,
    idempotency_key: String,
    state: String,
    currency: String,
    amount_minor: i64,
    amount_captured_minor: i64,
    amount_refunded_minor: i64,
    amount_refunding_minor: i64,
    capture_method: String,
    pending_operation: Option<String>,
    pending_amount_minor: Option<i64>,
    gateway_type: String,
    gateway_token: Option<String>,
    gateway_transaction_id: Option<String>,
    card_brand: Option<String>,
    card_last4: Option<String>,
    card_expiry_month: Option<i16>,
    card_expiry_year: Option<i16>,
    card_holder_name: Option<String>,
    customer_id: Option<String>,
    customer_email: Option<String>,
    customer_name: Option<String>,
    gateway_account: Option<String>,
    gateway_customer_id: Option<String>,
    off_session: bool,
    pending_attempt_id: Option<String>,
    cancellation_reason: Option<String>,
    failure_advice_code: Option<String>,
    failure_network_advice_code: Option<String>,
    failure_network_decline_code: Option<String>,
    description: Option<String>,
    metadata: Json<BTreeMap<String, String>>,
    failure_code: Option<String>,
    failure_message: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl PaymentRow {
    fn into_payment(self) -> sqlx::Result<Payment> {
        let pending = match (self.pending_operation.as_deref(), self.pending_amount_minor) {
            (Some("capture_payment"), Some(minor)) => Some(Pending::Capture { minor }),
            (Some("cancel_payment"), _) => Some(Pending::Cancel),
            (None, _) => None,
            _ => return Err(corrupt("payments.pending_operation")),
        };
        let card = match (
            self.card_brand,
            self.card_last4,
            self.card_expiry_month,
            self.card_expiry_year,
        ) {
            (Some(brand), Some(last4), Some(month), Some(year)) => Some(CardSummary {
                brand,
                last4,
                expiry_month: u8::try_from(month)
                    .map_err(|_| corrupt("payments.card_expiry_month"))?,
                expiry_year: u16::try_from(year)
                    .map_err(|_| corrupt("payments.card_expiry_year"))?,
                holder_name: self.card_holder_name,
            }),
            _ => None,
        };
        let currency = currency(&self.currency)?;
        Ok(Payment {
            merchant_id: self.merchant_id,
            id: self.payment_id,
            idempotency_key: self.idempotency_key,
            state: PaymentState::from_name(&self.state).ok_or_else(|| corrupt("payments.state"))?,
            amount: Amount::from_minor(self.amount_minor, currency),
            captured_minor: self.amount_captured_minor,
            refunded_minor: self.amount_refunded_minor,
            refunding_minor: self.amount_refunding_minor,
            pending,
            pending_attempt: self.pending_attempt_id,
            capture_method: CaptureMethod::from_name(&self.capture_method)
                .ok_or_else(|| corrupt("payments.capture_method"))?,
            gateway_type: self.gateway_type,
            gateway_account: self.gateway_account,
            gateway_token: self.gateway_token.map(GatewayToken::new),
            gateway_transaction_id: self.gateway_transaction_id,
            card,
            customer: Customer {
                id: self.customer_id,
                email: self.customer_email,
                name: self.customer_name,
                gateway_customer_id: self.gateway_customer_id,
            },
            off_session: self.off_session,
            cancellation_reason: self.cancellation_reason,
            description: self.description,
            metadata: self.metadata.0,
            failure: failure(self.failure_code, self.failure_message).map(|decline| Decline {
                advice: Advice {
                    advice_code: self.failure_advice_code,
                    network_advice_code: self.failure_network_advice_code,
                    network_decline_code: self.failure_network_decline_code,
                },
                ..decline
            }),
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

struct RefundRow {
    merchant_id: String,
    refund_id: String,
    payment_id: String,
    idempotency_key: String,
    state: String,
    amount_minor: i64,
    currency: String,
    reason: Option<String>,
    gateway_refund_id: Option<String>,
    failure_code: Option<String>,
    failure_message: Option<String>,
    created_at: DateTime<Utc>,
}

impl RefundRow {
    fn into_refund(self) -> sqlx::Result<Refund> {
        Ok(Refund {
            merchant_id: self.merchant_id,
            id: self.refund_id,
            payment_id: self.payment_id,
            idempotency_key: self.idempotency_key,
            state: RefundState::from_name(&self.state).ok_or_else(|| corrupt("refunds.state"))?,
            amount: Amount::from_minor(self.amount_minor, currency(&self.currency)?),
            reason: self.reason,
            gateway_refund_id: self.gateway_refund_id,
            failure: failure(self.failure_code, self.failure_message),
            created_at: self.created_at,
        })
    }
}

fn failure(code: Option<String>, message: Option<String>) -> Option<Decline> {
    code.zip(message)
        .map(|(code, message)| Decline::new(code, message))
}

fn currency(code: &str) -> sqlx::Result<Currency> {
    Currency::from_code(code).ok_or_else(|| corrupt("currency"))
}

/// A row that the schema's constraints do not allow, or that a newer version wrote.
fn corrupt(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds what this version does not know").into())
}
