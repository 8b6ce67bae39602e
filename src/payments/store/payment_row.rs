//! A payment's row, and the one statement that reads it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;

use super::{amount, corrupt, currency, failure};
use crate::cards::CardSummary;
use crate::gateway::{Advice, CaptureMethod, Decline, GatewayToken};
use crate::money::Currency;
use crate::payments::{Customer, Operation, Payment, PaymentState, Pending};

#[derive(Default)]
pub(super) struct RowFilter<'a> {
    pub(super) payment_id: Option<&'a str>,
    pub(super) before: Option<&'a str>,
    pub(super) state: Option<&'a str>,
    pub(super) customer_id: Option<&'a str>,
    pub(super) idempotency_key: Option<&'a str>,
    pub(super) among: Option<&'a [String]>,
}

/// The only statement that reads whole payments. An absent filter costs nothing, because with custom plans the planner sees its
/// null.
pub(super) async fn select_payments(
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
        let currency = currency(&self.currency)?;
        Ok(Payment {
            state: PaymentState::from_name(&self.state).ok_or_else(|| corrupt("payments.state"))?,
            amount: amount(self.amount_minor, currency)?,
            captured: amount(self.amount_captured_minor, currency)?,
            refunded: amount(self.amount_refunded_minor, currency)?,
            refunding: amount(self.amount_refunding_minor, currency)?,
            pending: self.pending(currency)?,
            capture_method: CaptureMethod::from_name(&self.capture_method)
                .ok_or_else(|| corrupt("payments.capture_method"))?,
            card: self.card()?,
            merchant_id: self.merchant_id,
            id: self.payment_id,
            idempotency_key: self.idempotency_key,
            pending_attempt: self.pending_attempt_id,
            gateway_type: self.gateway_type,
            gateway_account: self.gateway_account,
            gateway_token: self.gateway_token.map(GatewayToken::new),
            gateway_transaction_id: self.gateway_transaction_id,
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

    fn pending(&self, currency: Currency) -> sqlx::Result<Option<Pending>> {
        let Some(operation) = self.pending_operation.as_deref() else {
            return Ok(None);
        };
        match (Operation::from_name(operation), self.pending_amount_minor) {
            (Some(Operation::CapturePayment), Some(minor)) => Ok(Some(Pending::Capture {
                amount: amount(minor, currency)?,
            })),
            (Some(Operation::CancelPayment), _) => Ok(Some(Pending::Cancel)),
            _ => Err(corrupt("payments.pending_operation")),
        }
    }

    fn card(&self) -> sqlx::Result<Option<CardSummary>> {
        let (Some(brand), Some(last4), Some(month), Some(year)) = (
            &self.card_brand,
            &self.card_last4,
            self.card_expiry_month,
            self.card_expiry_year,
        ) else {
            return Ok(None);
        };
        Ok(Some(CardSummary {
            brand: brand.clone(),
            last4: last4.clone(),
            expiry_month: u8::try_from(month).map_err(|_| corrupt("payments.card_expiry_month"))?,
            expiry_year: u16::try_from(year).map_err(|_| corrupt("payments.card_expiry_year"))?,
            holder_name: self.card_holder_name.clone(),
        }))
    }
}
