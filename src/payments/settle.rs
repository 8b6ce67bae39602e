//! How a claim ends: its outcome is settled, it is released, or it stays open.

use std::future::Future;
use std::sync::Arc;

use chrono::Utc;

use super::gateway_call::Unresolved;
use super::turns::InTurn;
use super::{PaymentError, Payments};
use crate::database;
use crate::idempotency::grouped::{Settler, in_transaction};
use crate::idempotency::{
    Answer, Claim, Engine, IdempotencyError, Outcome, Permit, Released, Settled, StoredResponse,
    Transaction,
};

impl Payments {
    /// [`Engine::settle`], in the payment's turn. The second of `settles` leaves out the gateway's text. It runs if the database
    /// rejects the content of the first.
    pub(super) async fn settle_in_turn<F, Fut>(
        &self,
        permit: Permit,
        payment_id: &str,
        settles: [F; 2],
        processing: impl FnOnce() -> StoredResponse,
    ) -> Result<Answer, PaymentError>
    where
        F: Fn(Transaction) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = sqlx::Result<Outcome>> + Send + 'static,
    {
        let [complete, without_text] = settles.map(in_transaction);
        let settle = InTurn {
            payments: self,
            payment_id,
            work: OrWithoutText {
                payment_id,
                complete,
                without_text,
            },
        };
        let settled = self.engine().settle_by(permit, &settle).await?;
        Ok(answer_of(settled, processing))
    }

    /// Releases a claim for which nothing happened, and returns the reason as the error.
    pub(super) async fn release<F, Fut>(
        &self,
        permit: Permit,
        payment_id: &str,
        reason: PaymentError,
        processing: impl FnOnce() -> StoredResponse,
        undo: F,
    ) -> Result<Answer, PaymentError>
    where
        F: Fn(Transaction) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = sqlx::Result<()>> + Send + 'static,
    {
        let merchant_id = &permit.claim().scope.merchant_id;
        let _turn = self.turns().to_settle(merchant_id, payment_id).await?;
        match self.engine().release(permit, undo).await? {
            Released::Removed => Err(reason),
            // The process that took the claim over makes the call.
            Released::Lost => Ok(answer_of(Settled::Lost(None), processing)),
        }
    }

    /// Leaves a claim open: the next request with its key, or recovery, finds out what happened.
    pub(super) async fn leave_open(
        &self,
        permit: Permit,
        why: Unresolved,
        processing: impl FnOnce() -> StoredResponse,
    ) -> Result<Answer, PaymentError> {
        match why {
            Unresolved::Unknown => Ok(Answer {
                response: Arc::new(processing()),
                replayed: false,
                expires_at: permit.claim().expires_at,
            }),
            Unresolved::Misconfigured { reason } => Err(PaymentError::GatewayMisconfigured {
                reason,
                may_have_charged: true,
            }),
            Unresolved::ClaimLost => {
                let settled = self.engine().give_way(permit).await?;
                Ok(answer_of(settled, processing))
            }
        }
    }
}

/// The stored answer, or `processing` while the process that took the claim over is still at work.
pub(super) fn answer_of(settled: Settled, processing: impl FnOnce() -> StoredResponse) -> Answer {
    match settled {
        Settled::Stored(answer) | Settled::Lost(Some(answer)) => answer,
        Settled::Lost(None) => Answer {
            response: Arc::new(processing()),
            replayed: false,
            expires_at: Utc::now(),
        },
    }
}

/// Whether the database rejects the written content, and would do so each time.
pub(super) fn is_content_rejected(error: &IdempotencyError) -> bool {
    error
        .database_error()
        .is_some_and(database::is_rejected_content)
}

/// Logs that an outcome is stored without the gateway's text. The money has moved, so the outcome must be stored.
pub(super) fn log_rejected_content(payment_id: &str, error: &IdempotencyError) {
    let cause = error.database_error();
    tracing::error!(
        payment = payment_id,
        error = cause.map(tracing::field::display),
        "the database refuses to store what the gateway answered; its text is left out"
    );
}

/// Settles. If the database rejects the content, settles without the gateway's text.
struct OrWithoutText<'a, S> {
    payment_id: &'a str,
    complete: S,
    without_text: S,
}

impl<S: Settler + Sync> Settler for OrWithoutText<'_, S> {
    async fn try_settle(
        &self,
        engine: &Engine,
        claim: &Claim,
    ) -> Result<Option<Answer>, IdempotencyError> {
        match self.complete.try_settle(engine, claim).await {
            Err(error) if is_content_rejected(&error) => {
                log_rejected_content(self.payment_id, &error);
                self.without_text.try_settle(engine, claim).await
            }
            settled => settled,
        }
    }
}
