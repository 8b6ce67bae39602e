//! Turns at the database, for what changes a payment that exists: a capture, a cancel or a refund.
//!
//! Each of them locks its payment's row, so only one of a payment can work at a time. The others wait here, in memory, and not
//! in the database with a connection each: 300 refunds of one payment would take all connections from everybody else. And
//! whatever its payments are, a merchant has a quarter of the connections at most.
//!
//! A turn lasts for one transaction, never for a call of the gateway. It only saves connections: what may happen to a payment
//! is still decided by its row's lock.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::refused_settle::OrBare;
use super::{PaymentError, Payments};
use crate::idempotency::{
    Answer, Attempt, Claim, Claimant, Engine, Fingerprinted, Gate, IdempotencyError, NewKey,
    Outcome, Permit, Plan, Remembered, ScopedKey, Settled, Settler, Transaction, Wait,
    in_transaction,
};

/// The longest wait for a turn: as long as for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// Maximum number of claims that wait or are at work, in the process. A merchant's may be as many as there is room left.
const MAX_CLAIMS: usize = 4096;

/// Lets at most `most` in at once for each key, in the order in which they came. It remembers only the keys of those who are in
/// or wait. Cloning it gives the same one.
pub(crate) struct Turnstile<K: Eq + Hash>(Arc<Shared<K>>);

struct Shared<K> {
    most: usize,
    capacity: usize,
    lines: Mutex<Lines<K>>,
}

struct Lines<K> {
    /// In all lines together.
    length: usize,
    by_key: HashMap<K, Line>,
}

struct Line {
    /// Those who are in and those who wait.
    length: usize,
    places: Arc<Semaphore>,
}

impl<K: Eq + Hash> Clone for Turnstile<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Clone + Eq + Hash> Turnstile<K> {
    /// `most`: for each key. `capacity`: how many may be in or wait, for all keys together; one key's may be as many as there is
    /// room left, so that there is always room for another's.
    pub(crate) fn new(most: usize, capacity: usize) -> Self {
        Self(Arc::new(Shared {
            most: most.min(Semaphore::MAX_PERMITS),
            capacity,
            lines: Mutex::new(Lines {
                length: 0,
                by_key: HashMap::new(),
            }),
        }))
    }

    /// For each merchant a quarter of so many connections, and at least one.
    pub(crate) fn quarter(connections: u32) -> Self {
        let quarter = usize::try_from(connections / 4).unwrap_or(1);
        Self::new(quarter.max(1), usize::MAX)
    }

    /// Waits for a turn, until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::Overloaded`] if the line is as long as it may be, or if the turn did not come in time.
    pub(crate) async fn enter(
        &self,
        key: &K,
        deadline: Instant,
    ) -> Result<Turn<K>, IdempotencyError> {
        let (mut turn, places) = self.join(key)?;
        let permit = timeout_at(deadline, places.acquire_owned()).await;
        // The semaphore is never closed.
        turn.permit = permit.ok().and_then(Result::ok);
        match turn.permit {
            Some(_) => Ok(turn),
            None => Err(IdempotencyError::Overloaded),
        }
    }

    fn join(&self, key: &K) -> Result<(Turn<K>, Arc<Semaphore>), IdempotencyError> {
        let mut lines = self.0.lock();
        let free = self.0.capacity - lines.length;
        if lines.by_key.get(key).map_or(0, |line| line.length) >= free {
            return Err(IdempotencyError::Overloaded);
        }
        lines.length += 1;
        let line = lines.by_key.entry(key.clone()).or_insert_with(|| Line {
            length: 0,
            places: Arc::new(Semaphore::new(self.0.most)),
        });
        line.length += 1;
        let places = Arc::clone(&line.places);
        let turn = Turn {
            permit: None,
            key: key.clone(),
            turnstile: self.clone(),
        };
        Ok((turn, places))
    }
}

impl<K> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, Lines<K>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn, or a place in the line for one. The next one's begins when it is dropped.
pub(crate) struct Turn<K: Eq + Hash> {
    permit: Option<OwnedSemaphorePermit>,
    key: K,
    turnstile: Turnstile<K>,
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut lines = self.turnstile.0.lock();
        lines.length -= 1;
        if let Some(line) = lines.by_key.get_mut(&self.key) {
            line.length -= 1;
            if line.length == 0 {
                lines.by_key.remove(&self.key);
            }
        }
    }
}

type Merchant = Arc<str>;
type OfPayment = (Merchant, Arc<str>);

/// The turns of one process.
pub(super) struct Turns {
    /// Bounds how many claims wait. It has a place for each that it takes.
    waiting: Turnstile<Merchant>,
    /// A payment's claims, in front of its turn: a settle waits for one of them at most, and not for all.
    claims: Turnstile<OfPayment>,
    payments: Turnstile<OfPayment>,
    merchants: Turnstile<Merchant>,
}

/// A turn at the database, and the places in the lines that led to it. They end in this order.
pub(super) struct DatabaseTurn {
    _merchant: Turn<Merchant>,
    _payment: Turn<OfPayment>,
    _claim: Option<(Turn<OfPayment>, Turn<Merchant>)>,
}

impl Turns {
    /// For a process with so many connections.
    pub(super) fn new(connections: u32) -> Self {
        Self {
            waiting: Turnstile::new(usize::MAX, MAX_CLAIMS),
            claims: Turnstile::new(1, usize::MAX),
            payments: Turnstile::new(1, usize::MAX),
            merchants: Turnstile::quarter(connections),
        }
    }

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

    /// For the end of what was claimed. There are no more of these than there were claims.
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

    /// For a look that locks nothing.
    pub(super) async fn to_look(
        &self,
        merchant_id: &str,
    ) -> Result<Turn<Merchant>, IdempotencyError> {
        let deadline = Instant::now() + PATIENCE;
        self.merchants.enter(&merchant_id.into(), deadline).await
    }
}

fn names(merchant_id: &str, payment_id: &str) -> (Merchant, OfPayment, Instant) {
    let merchant = Merchant::from(merchant_id);
    let payment = (Arc::clone(&merchant), payment_id.into());
    (merchant, payment, Instant::now() + PATIENCE)
}

impl Payments {
    /// [`Engine::claim`], in the payment's turn.
    pub(super) async fn claim_in_turn<T, E, F, Fut>(
        &self,
        scope: &ScopedKey,
        payment_id: &str,
        request: &impl Fingerprinted,
        wait: Wait,
        plan: F,
    ) -> Result<Gate<T>, PaymentError>
    where
        T: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Transaction) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Plan<T>, E>> + Send + 'static,
    {
        let signed = self.engine().sign(scope.clone(), request)?;
        if let Some(gate) = self.engine().recall(&signed) {
            return Ok(gate);
        }
        let claim = InTurn {
            payments: self,
            payment_id,
            work: self.engine().planned(plan),
        };
        Ok(self.engine().enter(signed, wait, claim).await?)
    }

    /// [`Engine::settle`], in the payment's turn. The second of `settles` leaves the gateway's text out, and runs where the database
    /// refuses the first for its content.
    pub(super) async fn settle_in_turn<E, F, Fut>(
        &self,
        permit: Permit,
        payment_id: &str,
        settles: [F; 2],
    ) -> Result<Settled, PaymentError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: Fn(Transaction) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
    {
        let [told, bare] = settles.map(in_transaction);
        let settle = InTurn {
            payments: self,
            payment_id,
            work: OrBare {
                payment_id,
                told,
                bare,
            },
        };
        Ok(self.engine().settle_by(permit, &settle).await?)
    }
}

/// A claim or a settle that waits for its payment's turn first.
struct InTurn<'a, W> {
    payments: &'a Payments,
    payment_id: &'a str,
    work: W,
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
        let allowed = self.payments.may_take_over(scope, resource_id).await;
        allowed.map_err(PaymentError::into_engine)
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

    fn at_once<K: Clone + Eq + Hash>(turnstile: &Turnstile<K>, key: K) -> Option<Turn<K>> {
        let far = Instant::now() + Duration::from_secs(60);
        turnstile
            .enter(&key, far)
            .now_or_never()
            .and_then(Result::ok)
    }

    #[tokio::test]
    async fn each_key_has_its_turns_and_is_forgotten_after_the_last() {
        let turnstile = Turnstile::<&str>::quarter(8);
        let first = at_once(&turnstile, "acme").expect("its first");
        let second = at_once(&turnstile, "acme").expect("its second");
        assert!(at_once(&turnstile, "acme").is_none(), "a third has to wait");
        assert!(
            at_once(&turnstile, "other").is_some(),
            "another's is its own"
        );
        drop(first);
        let third = at_once(&turnstile, "acme").expect("in the first's place");
        drop((second, third));
        let lines = turnstile.0.lock();
        assert!(lines.by_key.is_empty() && lines.length == 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let turnstile = Turnstile::quarter(1);
        let held = at_once(&turnstile, "acme").expect("its only one");
        let refused = turnstile.enter(&"acme", Instant::now()).await.map(drop);
        assert!(matches!(refused, Err(IdempotencyError::Overloaded)));
        drop(held);
        assert!(at_once(&turnstile, "acme").is_some(), "free again");
    }

    #[tokio::test]
    async fn one_that_waits_is_next_and_the_lines_are_bounded() {
        let turnstile = Turnstile::new(1, 4);
        let far = Instant::now() + Duration::from_secs(60);
        let held = at_once(&turnstile, "a").expect("its only one");
        let mut waiting = Box::pin(turnstile.enter(&"a", far));
        assert!(waiting.as_mut().now_or_never().is_none());
        let full = turnstile.enter(&"a", far).now_or_never();
        assert!(
            matches!(full, Some(Err(IdempotencyError::Overloaded))),
            "half of it is its own at most"
        );
        let other = at_once(&turnstile, "b").expect("there is room for another");
        drop(held);
        assert!(
            at_once(&turnstile, "a").is_none(),
            "the one that waits is first"
        );
        assert!(waiting.now_or_never().is_some_and(|turn| turn.is_ok()));
        drop(other);
    }

    /// Behind all of a payment's claims it would wait for as long as they take together.
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
        assert!(turns.waiting.0.lock().by_key.is_empty());
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
