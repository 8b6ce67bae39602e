//! Reads: one payment or refund, and lists of them.

use sqlx::PgConnection;

use super::{Payment, PaymentError, PaymentState, Payments, Refund, store};
use crate::database::{self, Bounded};

/// Which payments to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentFilter {
    /// Only those made before this one: the last page's [`Page::next_cursor`].
    pub before: Option<String>,
    /// Only those in this state.
    pub state: Option<PaymentState>,
    /// Only this customer's.
    pub customer_id: Option<String>,
    /// Only the payment that this key made.
    pub idempotency_key: Option<String>,
}

/// Maximum number of payments that one page examines when it shows only those in one state. No index has the state, so that
/// settling a payment changes no index.
const MAX_EXAMINED: usize = 500;

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Newest first. A page may have fewer than were asked for, or none, and still have a next page.
    pub payments: Vec<Payment>,
    /// Where the next page begins. `None` on the last page.
    pub next_cursor: Option<String>,
}

impl Payments {
    /// One of a merchant's payments.
    pub async fn find(&self, merchant_id: &str, payment_id: &str) -> Result<Payment, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        self.load(&mut connection, merchant_id, payment_id).await
    }

    /// A merchant's payments, newest first, `limit` at most. With a state, a page examines no more than 500 of the merchant's
    /// or the customer's payments.
    pub async fn list(
        &self,
        merchant_id: &str,
        filter: &PaymentFilter,
        limit: u16,
    ) -> Result<Page, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        let is_by_key = filter.idempotency_key.is_some();
        if !is_by_key && (filter.state.is_some() || filter.customer_id.is_some()) {
            return list_examined(&mut connection, merchant_id, filter, limit.into()).await;
        }
        // Reads one more than asked for, to know whether there is a next page.
        let mut payments = store::list_payments(
            &mut connection,
            merchant_id,
            filter,
            i64::from(limit).saturating_add(1),
        )
        .bounded()
        .await?;
        let more = payments.len() > usize::from(limit);
        payments.truncate(limit.into());
        let next_cursor = payments.last().filter(|_| more).map(|last| last.id.clone());
        Ok(Page {
            payments,
            next_cursor,
        })
    }

    /// One of a merchant's refunds.
    pub async fn find_refund(
        &self,
        merchant_id: &str,
        refund_id: &str,
    ) -> Result<Refund, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        store::find_refund(&mut connection, merchant_id, refund_id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("refund"))
    }

    /// The refunds of one of a merchant's payments, newest first.
    pub async fn list_refunds(
        &self,
        merchant_id: &str,
        payment_id: &str,
    ) -> Result<Vec<Refund>, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        self.load(&mut connection, merchant_id, payment_id).await?;
        Ok(
            store::list_refunds(&mut connection, merchant_id, payment_id)
                .bounded()
                .await?,
        )
    }

    async fn load(
        &self,
        connection: &mut PgConnection,
        merchant_id: &str,
        payment_id: &str,
    ) -> Result<Payment, PaymentError> {
        store::find_payment(connection, merchant_id, payment_id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("payment"))
    }
}

/// A page of the payments of a state or a customer, found by examining a bounded number of rows.
async fn list_examined(
    connection: &mut PgConnection,
    merchant_id: &str,
    filter: &PaymentFilter,
    limit: usize,
) -> Result<Page, PaymentError> {
    let before = filter.before.as_deref();
    let max_examined = match filter.state {
        Some(_) => MAX_EXAMINED,
        None => limit.saturating_add(1),
    };
    let rows = i64::try_from(max_examined).unwrap_or(i64::MAX);
    let examined = match filter.customer_id.as_deref() {
        Some(customer_id) => {
            store::list_newest_of_customer(connection, merchant_id, customer_id, before, rows)
                .bounded()
                .await?
        }
        None => {
            store::list_newest(connection, merchant_id, before, rows)
                .bounded()
                .await?
        }
    };
    // A full read means that there may be older payments.
    let last_examined = examined.last().filter(|_| examined.len() == max_examined);
    let last_examined = last_examined.map(|last| last.payment_id.clone());
    let is_wanted = |state: &str| filter.state.is_none_or(|wanted| wanted.as_str() == state);
    let wanted = examined
        .into_iter()
        .filter(|payment| is_wanted(&payment.state));
    let mut shown: Vec<String> = wanted
        .map(|payment| payment.payment_id)
        .take(limit.saturating_add(1))
        .collect();
    let more = shown.len() > limit;
    shown.truncate(limit);
    let last_shown = shown.last().filter(|_| more).cloned();
    Ok(Page {
        payments: store::list_among(connection, merchant_id, &shown, filter.state)
            .bounded()
            .await?,
        next_cursor: last_shown.or(last_examined),
    })
}
