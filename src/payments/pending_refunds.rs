//! Refunds that the gateway has accepted but not finished are checked, with growing pauses, until they end.

use chrono::Utc;
use futures_util::{StreamExt, stream};

use super::gateway_call::count_call;
use super::sanitize::{self, Sanitize};
use super::settle::{is_content_rejected, log_rejected_content};
use super::store::DueRefund;
use super::transitions::{self, now};
use super::{Payment, PaymentError, Payments, Refund, RefundState, store};
use crate::database::{self, Bounded};
use crate::gateway::{Decline, GatewayError, RefundProgress};
use crate::idempotency::IdempotencyError;

/// Maximum number of refunds that one pass checks.
const MAX_CHECKS: i64 = 200;

/// Maximum number of refunds that are checked at the same time.
const CONCURRENCY: usize = 4;

impl Payments {
    /// Checks the pending refunds that are due. Returns how many of them have ended.
    pub async fn follow_refunds(&self) -> Result<u64, IdempotencyError> {
        let mut connection = database::acquire(self.pool()).await?;
        // Only refunds of this process's gateways are claimed, because claiming others would delay the checks of the processes that
        // have their gateway.
        let gateways = self.gateway_kinds();
        let due = store::list_due_refunds(&mut connection, &gateways, MAX_CHECKS)
            .bounded()
            .await?;
        drop(connection);
        let ended = stream::iter(due)
            .map(|due| async move {
                let payments = self.clone();
                let checked = self.engine().run(async move { payments.check(&due).await });
                match checked.await {
                    Ok(Ok(ended)) => ended,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "a pending refund could not be checked");
                        false
                    }
                    Err(error) => {
                        tracing::error!(%error, "the check of a pending refund did not end properly");
                        false
                    }
                }
            })
            .buffer_unordered(CONCURRENCY)
            .filter(|ended| std::future::ready(*ended))
            .count()
            .await;
        Ok(u64::try_from(ended).unwrap_or(u64::MAX))
    }

    async fn check(&self, due: &DueRefund) -> Result<bool, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        if !store::claim_check(&mut connection, due).bounded().await? {
            return Ok(false);
        }
        let refund = store::find_refund(&mut connection, &due.merchant_id, &due.refund_id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("refund"))?;
        let payment = store::find_payment(&mut connection, &due.merchant_id, &refund.payment_id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("payment"))?;
        drop(connection);
        match self.ask_for(&payment, &refund).await? {
            Ok(Some(RefundProgress::Succeeded)) => self.end_refund(&refund, Ok(())).await,
            Ok(Some(RefundProgress::Pending)) => Ok(false),
            // The gateway has accepted it, so it must exist there. The next check asks again.
            Ok(None) => {
                tracing::warn!(
                    refund = refund.id,
                    "the gateway does not show a pending refund"
                );
                Ok(false)
            }
            Err(decline) => match self.end_refund(&refund, Err(decline.clone())).await {
                Err(PaymentError::Engine(error)) if is_content_rejected(&error) => {
                    log_rejected_content(&payment.id, &error);
                    self.end_refund(&refund, Err(decline.without_text())).await
                }
                ended => ended,
            },
        }
    }

    async fn ask_for(
        &self,
        payment: &Payment,
        refund: &Refund,
    ) -> Result<Result<Option<RefundProgress>, Decline>, PaymentError> {
        let gateway = self.gateway_of(&payment.gateway_type)?;
        let asked = refund.to_gateway(payment);
        let started = tokio::time::Instant::now();
        let found = self.in_time(gateway.find_refund(&asked)).await;
        count_call(gateway.kind(), "refund", &found, started.elapsed());
        match sanitize::answer(found) {
            Ok(found) => Ok(Ok(found.map(|refunded| refunded.progress))),
            Err(GatewayError::Declined(decline)) => Ok(Err(decline)),
            Err(error) => {
                tracing::warn!(refund = refund.id, %error, "the state of a pending refund is not known");
                Ok(Ok(Some(RefundProgress::Pending)))
            }
        }
    }

    /// Saves the end of a pending refund. Returns `false` if another node has saved it.
    async fn end_refund(
        &self,
        refund: &Refund,
        result: Result<(), Decline>,
    ) -> Result<bool, PaymentError> {
        let mut tx = database::begin(self.pool()).await?;
        // The payment's lock comes first, as everywhere. While it is held, the refund cannot change.
        let mut payment =
            store::lock_claimed(&mut tx, &refund.merchant_id, &refund.payment_id).await?;
        let mut refund = store::find_refund(&mut tx, &refund.merchant_id, &refund.id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("refund"))?;
        if refund.state != RefundState::Pending {
            tx.rollback().await?;
            return Ok(false);
        }
        let failed = result.as_ref().err().map(|decline| decline.code.clone());
        transitions::refund_ended(&mut payment, &mut refund, result, now())?;
        store::save_payment(&mut tx, &payment).bounded().await?;
        store::save_refund(&mut tx, &refund).bounded().await?;
        tx.commit().await?;
        let outcome = if failed.is_some() {
            "failed"
        } else {
            "succeeded"
        };
        metrics::counter!("payonce_pending_refunds_ended_total", "outcome" => outcome).increment(1);
        let waited = Utc::now()
            .signed_duration_since(refund.created_at)
            .num_seconds();
        tracing::info!(
            refund = refund.id,
            payment = payment.id,
            outcome,
            code = failed,
            waited,
            "a pending refund has ended"
        );
        Ok(true)
    }
}
