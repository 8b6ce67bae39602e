//! Refunds that the gateway has accepted and not finished are looked at, with growing pauses, until they end.

use chrono::Utc;
use futures_util::{StreamExt, stream};

use super::call::count_call;
use super::service::{locked, now};
use super::storable::{self, Storable};
use super::store::DueRefund;
use super::{
    Payment, PaymentError, Payments, Refund, RefundState, refused_settle, settlement, store,
};
use crate::database::{self, Bounded};
use crate::gateway::{Decline, GatewayError, GatewayRefund, RefundProgress};
use crate::idempotency::IdempotencyError;

/// Maximum number of refunds that one pass looks at.
const MAX_LOOKS: i64 = 200;

/// Maximum number of refunds that are looked at at the same time.
const CONCURRENCY: usize = 4;

impl Payments {
    /// Looks at the pending refunds whose time has come. Returns how many of them have ended.
    pub async fn follow_refunds(&self) -> Result<u64, IdempotencyError> {
        let mut connection = database::acquire(self.pool()).await?;
        let due = store::list_due_refunds(&mut connection, MAX_LOOKS)
            .bounded()
            .await?;
        drop(connection);
        let ended = stream::iter(due)
            .map(|due| async move {
                let payments = self.clone();
                let looked = self
                    .engine()
                    .run(async move { payments.look_at(&due).await });
                match looked.await {
                    Ok(Ok(ended)) => ended,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "a pending refund could not be looked at");
                        false
                    }
                    Err(error) => {
                        tracing::error!(%error, "looking at a pending refund did not end in order");
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

    async fn look_at(&self, due: &DueRefund) -> Result<bool, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        let refund = store::find_refund(&mut connection, &due.merchant_id, &due.refund_id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("refund"))?;
        let payment = store::find_payment(&mut connection, &due.merchant_id, &refund.payment_id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("payment"))?;
        // The look is for a process that can ask: taking it would put that one's off.
        if let Err(error) = self.gateway_of(&payment.gateway_type) {
            tracing::debug!(refund = refund.id, %error, "a pending refund is left to other processes");
            return Ok(false);
        }
        if !store::take_look(&mut connection, due).bounded().await? {
            return Ok(false);
        }
        drop(connection);
        match self.ask_for(&payment, &refund).await? {
            Ok(Some(RefundProgress::Succeeded)) => self.end_refund(&refund, Ok(())).await,
            Ok(Some(RefundProgress::Pending)) => Ok(false),
            // It was accepted, so it is there: a gateway that does not show it is asked again.
            Ok(None) => {
                tracing::warn!(
                    refund = refund.id,
                    "the gateway does not show a pending refund"
                );
                Ok(false)
            }
            Err(decline) => match self.end_refund(&refund, Err(decline.clone())).await {
                Err(PaymentError::Engine(error)) if refused_settle::is_refused(&error) => {
                    refused_settle::tell(&payment.id, &error);
                    self.end_refund(&refund, Err(decline.bare())).await
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
        let asked = GatewayRefund::of(payment, refund);
        let started = tokio::time::Instant::now();
        let found = self.in_time(gateway.find_refund(&asked)).await;
        count_call(gateway.kind(), "refund", &found, started.elapsed());
        match storable::answer(found) {
            Ok(found) => Ok(Ok(found.map(|refunded| refunded.progress))),
            Err(GatewayError::Declined(decline)) => Ok(Err(decline)),
            Err(error) => {
                tracing::warn!(refund = refund.id, %error, "what became of a pending refund is not known");
                Ok(Ok(Some(RefundProgress::Pending)))
            }
        }
    }

    /// Writes a pending refund's end. Returns `false` where another node wrote it.
    async fn end_refund(
        &self,
        refund: &Refund,
        result: Result<(), Decline>,
    ) -> Result<bool, PaymentError> {
        let mut tx = database::begin(self.pool()).await?;
        // The payment's lock comes first, as everywhere; with it the refund cannot change.
        let mut payment = locked(&mut tx, &refund.merchant_id, &refund.payment_id).await?;
        let mut refund = store::find_refund(&mut tx, &refund.merchant_id, &refund.id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("refund"))?;
        if refund.state != RefundState::Pending {
            tx.rollback().await?;
            return Ok(false);
        }
        let failed = result.as_ref().err().map(|decline| decline.code.clone());
        settlement::refund_ended(&mut payment, &mut refund, result, now());
        store::save_payment(&mut tx, &payment).bounded().await?;
        store::save_refund(&mut tx, &refund).bounded().await?;
        tx.commit().await?;
        let outcome = if failed.is_some() {
            "failed"
        } else {
            "succeeded"
        };
        metrics::counter!("payonce_pending_refunds_ended_total", "outcome" => outcome).increment(1);
        let waited = (Utc::now() - refund.created_at).num_seconds();
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
