//! Turns at the database, for operations that change an existing payment: a capture, a cancel or a refund.
//!
//! Each of them locks its payment's row, so only one at a time can work on a payment. The others wait here, in memory, and not
//! in the database with a connection each: otherwise 300 refunds of one payment would take all connections. Across all of its
//! payments, a merchant has a quarter of the connections at most.
//!
//! A turn lasts for one transaction, never for a call of the gateway. It only saves connections: what may happen to a payment
//! is still decided under its row's lock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::turnstile::{Turn, Turnstile};
use super::{PaymentError, Payments};
use crate::idempotency::grouped::{Attempt, Claimant, NewKey, Remembered, Settler, SignedRequest};
use crate::idempotency::{
    Answer, Claim, Engine, Gate, IdempotencyError, Plan, ScopedKey, Transaction, Wait,
};

/// The longest wait for a turn: the same as for a connection.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// Maximum number of claims in the process that wait or are at work. One merchant may have as many as there is room left.
const MAX_CLAIMS: usize = 4096;

type Merchant = Arc<str>;
type OfPayment = (Merchant, Arc<str>);

/// The turns of one process.
pub(super) struct Turns {
    /// Bounds how many claims wait. It lets all of them in at once.
    waiting: Turnstile<Merchant>,
    /// A payment's claims, one at a time, before they wait for the payment: a settle waits behind one of them at most.
    claims: Turnstile<OfPayment>,
    payments: Turnstile<OfPayment>,
    merchants: Turnstile<Merchant>,
}

/// A turn at the database, with the turns that led to it. Fields drop in this order.
pub(super) struct DatabaseTurn {
    _merchant: Turn<Merchant>,
    _payment: Turn<OfPayment>,
    _claim: Option<(Turn<OfPayment>, Turn<Merchant>)>,
}

impl Turns {
    /// Creates the turns of a process with this number of connections.
    pub(super) fn new(connections: u32) -> Self {
        Self {
            waiting: Turnstile::new(usize::MAX, MAX_CLAIMS),
            claims: Turnstile::new(1, usize::MAX),
            payments: Turnstile::new(1, usize::MAX),
            merchants: Turnstile::quarter(connections),
        }
    }

    /// Waits for the turn to claim a key.
    async fn to_claim(
        &self,
        merchant_id: &str,
        payment_id: &str,
    ) -> Result<DatabaseTurn, IdempotencyError> {
        let (merchant, payment, deadline) = names(merchant_id, payment_id);
        let waiting = self.waiting.enter(&merchant, deadline).await?;
        let claim = self.claims.enter(&payment, deadline).await?;
        let payment = self.payments.enter(&payment, deadline).await?;
        Ok(DatabaseTurn {
            _merchant: self.merchants.enter(&merchant, deadline).await?,
            _payment: payment,
            _claim: Some((claim, waiting)),
        })
    }

    /// Waits for the turn to settle or release a claim. There are never more of these than there were claims.
    pub(super) async fn to_settle(
        &self,
        merchant_id: &str,
        payment_id: &str,
    ) -> Result<DatabaseTurn, IdempotencyError> {
        let (merchant, payment, deadline) = names(merchant_id, payment_id);
        let payment = self.payments.enter(&payment, deadline).await?;
        Ok(DatabaseTurn {
            _merchant: self.merchants.enter(&merchant, deadline).await?,
            _payment: payment,
            _claim: None,
        })
    }

    /// Waits for the turn to read something without a lock.
    pub(super) async fn to_look(
        &self,
        merchant_id: &str,
    ) -> Result<Turn<Merchant>, IdempotencyError> {
        self.merchants.enter(&merchant_id.into(), deadline()).await
    }
}

fn names(merchant_id: &str, payment_id: &str) -> (Merchant, OfPayment, Instant) {
    let merchant = Merchant::from(merchant_id);
    let payment = (Arc::clone(&merchant), payment_id.into());
    (merchant, payment, deadline())
}

/// Returns the time until which a request that comes now waits.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a clock does not end within seconds"
)]
fn deadline() -> Instant {
    Instant::now() + MAX_WAIT
}

impl Payments {
    /// [`Engine::enter`] in the payment's turn, for a claim of one transaction.
    pub(super) async fn claim_in_turn<T, F, Fut>(
        &self,
        signed: SignedRequest,
        payment_id: &str,
        wait: Wait,
        plan: F,
    ) -> Result<Gate<T>, PaymentError>
    where
        T: Send + 'static,
        F: FnOnce(Transaction) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Plan<T>, PaymentError>> + Send + 'static,
    {
        let claim = InTurn {
            payments: self,
            payment_id,
            work: self.engine().planned(plan),
        };
        Ok(self.engine().enter(signed, wait, claim).await?)
    }
}

/// A claim or a settle that waits for its payment's turn first.
pub(super) struct InTurn<'a, W> {
    pub(super) payments: &'a Payments,
    pub(super) payment_id: &'a str,
    pub(super) work: W,
}

impl<T, C: Claimant<T> + Send> Claimant<T> for InTurn<'_, C> {
    async fn try_claim(&mut self, key: NewKey) -> Result<Attempt<T>, IdempotencyError> {
        let merchant_id = &key.columns().scope.merchant_id;
        let turn = self
            .payments
            .turns()
            .to_claim(merchant_id, self.payment_id)
            .await?;
        let claimed = self.work.try_claim(key).await;
        drop(turn);
        claimed
    }

    async fn remembered(
        &mut self,
        scope: &ScopedKey,
    ) -> Result<Option<Remembered>, IdempotencyError> {
        self.work.remembered(scope).await
    }

    async fn may_take_over(
        &mut self,
        scope: &ScopedKey,
        resource_id: &str,
    ) -> Result<(), IdempotencyError> {
        self.payments.may_take_over(scope, resource_id).await
    }
}

impl<S: Settler + Sync> Settler for InTurn<'_, S> {
    async fn try_settle(
        &self,
        engine: &Engine,
        claim: &Claim,
    ) -> Result<Option<Answer>, IdempotencyError> {
        let merchant_id = &claim.scope.merchant_id;
        let turn = self
            .payments
            .turns()
            .to_settle(merchant_id, self.payment_id)
            .await?;
        let settled = self.work.try_settle(engine, claim).await;
        drop(turn);
        settled
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Otherwise it would wait for all of the payment's claims together.
    #[tokio::test]
    async fn a_settle_does_not_wait_for_all_claims() {
        let turns = Turns::new(20);
        let first = turns
            .to_claim("acme", "pay_1")
            .now_or_never()
            .expect("at once")
            .expect("free");
        let mut claims: Vec<_> = (0..100)
            .map(|_| Box::pin(turns.to_claim("acme", "pay_1")))
            .collect();
        for claim in &mut claims {
            assert!(claim.as_mut().now_or_never().is_none());
        }
        let mut settle = Box::pin(turns.to_settle("acme", "pay_1"));
        assert!(settle.as_mut().now_or_never().is_none());
        drop(first);
        let mut next = claims.remove(0);
        assert!(
            next.as_mut().now_or_never().is_none(),
            "the settle comes first"
        );
        drop(settle.now_or_never().expect("its turn").expect("free"));
        assert!(next.now_or_never().is_some_and(|turn| turn.is_ok()));
        drop(claims);
        assert!(turns.waiting.is_empty());
    }

    #[tokio::test]
    async fn many_payments_do_not_take_a_merchant_more_than_its_quarter() {
        let turns = Turns::new(8);
        let held: Vec<_> = ["pay_1", "pay_2"]
            .map(|payment| {
                turns
                    .to_claim("acme", payment)
                    .now_or_never()
                    .expect("at once")
            })
            .into();
        assert!(held.iter().all(Result::is_ok));
        assert!(turns.to_claim("acme", "pay_3").now_or_never().is_none());
        assert!(turns.to_settle("acme", "pay_4").now_or_never().is_none());
        assert!(turns.to_look("acme").now_or_never().is_none());
        assert!(turns.to_claim("other", "pay_5").now_or_never().is_some());
    }
}
