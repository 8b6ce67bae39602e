//! Payments' claims and settles, committed in groups: one statement for all that arrived while the last one committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::PgConnection;
use uuid::Uuid;

use super::store::{self, ClaimTerms, Claimed, PaymentClaim, PaymentSettle, RowLocations};
use super::{Operation, Payment};
use crate::idempotency::Outcome;
use crate::idempotency::grouped::{GroupCommit, GroupWriter, NewKey};

/// Claims of payments, in groups.
pub(super) type ClaimGroup = GroupCommit<ClaimWriter>;

/// Settles of payments, in groups.
pub(super) type SettleGroup = GroupCommit<SettleWriter>;

/// One payment to claim.
pub(super) struct ClaimItem {
    pub(super) key: NewKey,
    /// Boxed, because an item moves through the queue and is sorted.
    pub(super) payment: Box<Payment>,
}

/// Writes claims.
#[derive(Default)]
pub(super) struct ClaimWriter {
    /// Whether most claims of the last group found an answer, as after a restart or when clients repeat what another node answered.
    /// Answers are then looked up first, which costs a fraction of a claim that finds its key in use.
    finds_most: AtomicBool,
}

impl GroupWriter for ClaimWriter {
    type Item = ClaimItem;
    type Written = Claimed;

    const LANE: &'static str = "claim";
    // A claim that is sent after its client has gone would charge for nothing.
    const NEEDS_CALLER: bool = true;

    fn merchant(item: &ClaimItem) -> &str {
        &item.payment.merchant_id
    }

    fn order(one: &ClaimItem, other: &ClaimItem) -> std::cmp::Ordering {
        one.key.columns().scope.cmp(other.key.columns().scope)
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        items: &[ClaimItem],
    ) -> sqlx::Result<Vec<Option<Claimed>>> {
        let Some(terms) = terms(items) else {
            return Ok(Vec::new());
        };
        let claims = claims(items);
        let results = match self.finds_most.load(Ordering::Relaxed) {
            true => find_or_claim(connection, &terms, claims).await?,
            false => store::claim_payments(connection, &terms, &claims).await?,
        };
        let is_found = |result: &&Option<Claimed>| matches!(result, Some(Claimed::Found(_)));
        let found = results.iter().filter(is_found).count();
        self.finds_most
            .store(found > items.len() / 2, Ordering::Relaxed);
        Ok(results)
    }

    // It looks its keys up before it claims them anyway.
    async fn write_of(
        &self,
        connection: &mut PgConnection,
        merchant_id: &str,
        items: &[ClaimItem],
    ) -> sqlx::Result<Vec<Option<Claimed>>> {
        let Some(terms) = terms(items) else {
            return Ok(Vec::new());
        };
        store::claim_payments_of(connection, merchant_id, &terms, &claims(items)).await
    }
}

/// Looks answers up, and claims the keys that have none.
async fn find_or_claim(
    connection: &mut PgConnection,
    terms: &ClaimTerms,
    claims: Vec<PaymentClaim<'_>>,
) -> sqlx::Result<Vec<Option<Claimed>>> {
    let mut results = store::find_answers(connection, &claims).await?;
    let rest = claims.into_iter().zip(&results);
    let rest = rest.filter_map(|(claim, result)| result.is_none().then_some(claim));
    let rest: Vec<PaymentClaim<'_>> = rest.collect();
    if !rest.is_empty() {
        let claimed = store::claim_payments(connection, terms, &rest).await?;
        let open = results.iter_mut().filter(|result| result.is_none());
        for (result, claimed) in open.zip(claimed) {
            *result = claimed;
        }
    }
    Ok(results)
}

/// All of a process's claims have one owner and one configuration.
fn terms(items: &[ClaimItem]) -> Option<ClaimTerms> {
    items.first().map(|item| ClaimTerms {
        owner: item.key.owner(),
        lock_timeout: item.key.lock_timeout(),
        ttl: item.key.ttl(),
    })
}

fn claims(items: &[ClaimItem]) -> Vec<PaymentClaim<'_>> {
    let claims = items.iter().map(|item| PaymentClaim {
        key: item.key.columns(),
        payment: &item.payment,
    });
    claims.collect()
}

/// One payment to settle.
pub(super) struct SettleItem {
    pub(super) attempt: i32,
    pub(super) payment: Arc<Payment>,
    pub(super) outcome: Arc<Outcome>,
    /// Where the claim has put its rows, if that is known.
    pub(super) locations: Option<RowLocations>,
}

/// Writes settles.
pub(super) struct SettleWriter {
    pub(super) owner: Uuid,
}

impl GroupWriter for SettleWriter {
    type Item = SettleItem;
    type Written = ();

    const LANE: &'static str = "settle";

    fn merchant(item: &SettleItem) -> &str {
        &item.payment.merchant_id
    }

    fn order(one: &SettleItem, other: &SettleItem) -> std::cmp::Ordering {
        let by_merchant = one.payment.merchant_id.cmp(&other.payment.merchant_id);
        by_merchant.then_with(|| {
            let key = &one.payment.idempotency_key;
            key.cmp(&other.payment.idempotency_key)
        })
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        items: &[SettleItem],
    ) -> sqlx::Result<Vec<Option<()>>> {
        let settles = settles(items);
        let settled = store::settle_payments(connection, OPERATION, self.owner, &settles).await?;
        Ok(written(settled))
    }

    async fn write_of(
        &self,
        connection: &mut PgConnection,
        merchant_id: &str,
        items: &[SettleItem],
    ) -> sqlx::Result<Vec<Option<()>>> {
        let settles = settles(items);
        let owner = self.owner;
        let settled =
            store::settle_payments_of(connection, merchant_id, OPERATION, owner, &settles).await?;
        Ok(written(settled))
    }
}

/// The only operation whose settles are written in groups.
const OPERATION: &str = Operation::CreatePayment.as_str();

/// A statement that goes by locations has more parts, and each row costs it less. A smaller group is settled by its keys.
const SMALLEST_IN_PLACE: usize = 6;

fn settles(items: &[SettleItem]) -> Vec<PaymentSettle<'_>> {
    let in_place = items.len() >= SMALLEST_IN_PLACE;
    let settles = items.iter().map(|item| PaymentSettle {
        attempt: item.attempt,
        payment: &item.payment,
        response: item.outcome.columns(),
        locations: item.locations.filter(|_| in_place),
    });
    settles.collect()
}

fn written(settled: Vec<bool>) -> Vec<Option<()>> {
    let written = settled.into_iter();
    written.map(|is_settled| is_settled.then_some(())).collect()
}
