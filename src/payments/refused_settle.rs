//! A settle that the database refuses for its content. The money has moved, so the outcome is stored all the same: without the
//! text that is only for people.

use crate::database;
use crate::idempotency::{Answer, Claim, Engine, IdempotencyError, Settler};

/// True where the database refuses what is to be written, and would refuse it each time.
pub(super) fn is_refused(error: &IdempotencyError) -> bool {
    error
        .database_error()
        .is_some_and(database::is_of_its_content)
}

/// Tells it, before the outcome is stored without the gateway's text.
pub(super) fn tell(payment_id: &str, error: &IdempotencyError) {
    let cause = error.database_error();
    tracing::error!(
        payment = payment_id,
        error = cause.map(tracing::field::display),
        "the database refuses to store what the gateway answered; its text is left out"
    );
}

/// Settles, and where the database refuses the content, settles without the gateway's text.
pub(super) struct OrBare<'a, S> {
    pub(super) payment_id: &'a str,
    pub(super) told: S,
    pub(super) bare: S,
}

impl<S: Settler + Sync> Settler for OrBare<'_, S> {
    async fn try_settle(
        &self,
        engine: &Engine,
        claim: &Claim,
    ) -> Result<Option<Answer>, IdempotencyError> {
        match self.told.try_settle(engine, claim).await {
            Err(error) if is_refused(&error) => {
                tell(self.payment_id, &error);
                self.bare.try_settle(engine, claim).await
            }
            settled => settled,
        }
    }
}
