//! Payments' claims and settles, committed in groups: one statement for all that arrived while the last one committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

use super::store::{self, ClaimTerms, ClaimedKey, PaymentClaim, PaymentSettle, SettledKey};
use super::{Operation, Payment};
use crate::idempotency::Outcome;
use crate::idempotency::grouped::{FoundKey, GroupCommit, GroupWriter, Inserted, NewKey};

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

/// The result of a claim that did not find its key in use.
pub(super) enum Claimed {
    /// The key is claimed.
    New(Inserted),
    /// The payment was made before, and this is its answer.
    Found(FoundKey),
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
        connection: &mut sqlx::PgConnection,
        items: &[ClaimItem],
    ) -> sqlx::Result<Vec<Option<Claimed>>> {
        let Some(terms) = terms(items) else {
            return Ok(Vec::new());
        };
        let mut claims = claims(items);
        let mut rows = Vec::new();
        if self.finds_most.load(Ordering::Relaxed) {
            rows = store::find_answers(connection, &claims).await?;
            sort(&mut rows);
            claims.retain(|claim| position(&rows, claim.payment).is_none());
        }
        if !claims.is_empty() {
            rows.extend(store::claim_payments(connection, &terms, &claims).await?);
        }
        let found = rows.iter().filter(|row| row.is_found()).count();
        self.finds_most
            .store(found > items.len() / 2, Ordering::Relaxed);
        Ok(in_order(items, rows))
    }

    // It looks its keys up before it claims them anyway.
    async fn write_of(
        &self,
        connection: &mut sqlx::PgConnection,
        merchant_id: &str,
        items: &[ClaimItem],
    ) -> sqlx::Result<Vec<Option<Claimed>>> {
        let Some(terms) = terms(items) else {
            return Ok(Vec::new());
        };
        let claims = claims(items);
        let rows = store::claim_payments_of(connection, merchant_id, &terms, &claims).await?;
        Ok(in_order(items, rows))
    }
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

/// The rows that a claim returned, in the order of its items.
fn in_order(items: &[ClaimItem], mut rows: Vec<ClaimedKey>) -> Vec<Option<Claimed>> {
    sort(&mut rows);
    let find = |item: &ClaimItem| {
        let row = position(&rows, &item.payment).and_then(|at| rows.get_mut(at))?;
        match row.found() {
            Ok(Some(found)) => Some(Claimed::Found(found)),
            Ok(None) => Some(Claimed::New(Inserted {
                created_at: row.created_at,
                expires_at: row.expires_at,
            })),
            // The other claims are committed. A request for this one alone gets the error.
            Err(_) => None,
        }
    };
    items.iter().map(find).collect()
}

fn sort(rows: &mut [ClaimedKey]) {
    rows.sort_unstable_by(|a, b| (&a.merchant_id, &a.key).cmp(&(&b.merchant_id, &b.key)));
}

/// Finds the row of a payment's key among sorted rows.
fn position(rows: &[ClaimedKey], payment: &Payment) -> Option<usize> {
    let wanted = (&payment.merchant_id, &payment.idempotency_key);
    rows.binary_search_by(|row| (&row.merchant_id, &row.key).cmp(&wanted))
        .ok()
}

/// One payment to settle.
pub(super) struct SettleItem {
    pub(super) attempt: i32,
    pub(super) payment: Arc<Payment>,
    pub(super) outcome: Arc<Outcome>,
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
        connection: &mut sqlx::PgConnection,
        items: &[SettleItem],
    ) -> sqlx::Result<Vec<Option<()>>> {
        let settles = settles(items);
        let rows = store::settle_payments(connection, OPERATION, self.owner, &settles).await?;
        Ok(settled(items, rows))
    }

    async fn write_of(
        &self,
        connection: &mut sqlx::PgConnection,
        merchant_id: &str,
        items: &[SettleItem],
    ) -> sqlx::Result<Vec<Option<()>>> {
        let settles = settles(items);
        let owner = self.owner;
        let rows =
            store::settle_payments_of(connection, merchant_id, OPERATION, owner, &settles).await?;
        Ok(settled(items, rows))
    }
}

/// The only operation whose settles are written in groups.
const OPERATION: &str = Operation::CreatePayment.as_str();

fn settles(items: &[SettleItem]) -> Vec<PaymentSettle<'_>> {
    let settles = items.iter().map(|item| PaymentSettle {
        attempt: item.attempt,
        payment: &item.payment,
        response: item.outcome.columns(),
    });
    settles.collect()
}

/// Whether each item is among the rows that were settled.
fn settled(items: &[SettleItem], mut rows: Vec<SettledKey>) -> Vec<Option<()>> {
    rows.sort_unstable_by(|a, b| (&a.merchant_id, &a.key).cmp(&(&b.merchant_id, &b.key)));
    let is_settled = |item: &SettleItem| {
        let wanted = (&item.payment.merchant_id, &item.payment.idempotency_key);
        rows.binary_search_by(|row| (&row.merchant_id, &row.key).cmp(&wanted))
            .ok()
            .map(drop)
    };
    items.iter().map(is_settled).collect()
}
