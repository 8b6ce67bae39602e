//! The service: what all operations share, recovery's way in, and what only reads.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::PgPool;

use super::call::start_counting_calls;
use super::groups::{ClaimGroup, ClaimWriter, SettleGroup, SettleWriter};
use super::{Operation, Payment, PaymentError, PaymentState, Refund, answers, store};
use crate::database::{self, Bounded};
use crate::gateway::Gateway;
use crate::idempotency::{
    Answer, Engine, Gate, Permit, ScopedKey, Settled, StoredResponse, Transaction,
};
use crate::input::FieldError;
use crate::money::{Amount, MajorAmount};
use crate::refused_reuses::RefusedReuses;

/// How many groups of one kind may commit at once. More lanes make smaller groups, and so more commits.
const LANES: usize = 1;

/// What a request is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Status, headers and body, byte for byte.
    pub response: Arc<StoredResponse>,
    /// True when an earlier or concurrent request made it.
    pub replayed: bool,
    /// When the key is forgotten.
    pub expires_at: DateTime<Utc>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        let Answer {
            response,
            replayed,
            expires_at,
        } = answer;
        Self {
            response,
            replayed,
            expires_at,
        }
    }
}

/// Which payments to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaymentFilter {
    /// Only those made before this one: the last page's [`Page::next_cursor`].
    pub before: Option<String>,
    /// Only those in this state.
    pub state: Option<PaymentState>,
    /// Only this customer's.
    pub customer_id: Option<String>,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Newest first.
    pub payments: Vec<Payment>,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<String>,
}

/// The payments service.
#[derive(Clone)]
pub struct Payments(Arc<Shared>);

struct Shared {
    engine: Engine,
    gateway: Arc<dyn Gateway>,
    gateway_timeout: Duration,
    claims: ClaimGroup,
    settles: SettleGroup,
    /// Empty where nobody looks at them.
    refused_reuses: OnceLock<RefusedReuses>,
}

/// What came of the gate.
pub(super) enum Passed<T> {
    Mine(Permit, Option<T>),
    Answered(Reply),
}

impl Payments {
    /// What the gate's answer means here.
    pub(super) fn pass<T>(
        &self,
        scope: &ScopedKey,
        gate: Gate<T>,
    ) -> Result<Passed<T>, PaymentError> {
        match gate {
            Gate::Mine { permit, work } => Ok(Passed::Mine(permit, work)),
            Gate::Done(answer) | Gate::Replay(answer) => Ok(Passed::Answered(answer.into())),
            Gate::InProgress { retry_after } => Err(PaymentError::InUse { retry_after }),
            Gate::Mismatch(mismatch) => {
                if let Some(refused_reuses) = self.0.refused_reuses.get() {
                    refused_reuses.note(scope, &mismatch);
                }
                Err(PaymentError::Reused(mismatch))
            }
            Gate::Expired {
                resource_id,
                created_at,
            } => Err(PaymentError::Expired {
                resource_id,
                created_at,
            }),
        }
    }

    /// From now on each refused reuse is noted. A second call changes nothing.
    pub fn note_refused_reuses(&self, refused_reuses: RefusedReuses) {
        drop(self.0.refused_reuses.set(refused_reuses));
    }

    /// Puts the service together. `gateway_timeout` is the longest a request waits for the gateway.
    pub fn new(engine: Engine, gateway: Arc<dyn Gateway>, gateway_timeout: Duration) -> Self {
        start_counting_calls(gateway.kind());
        let claims = ClaimGroup::start(&engine, ClaimWriter, LANES);
        let settles = SettleGroup::start(
            &engine,
            SettleWriter {
                owner: engine.owner(),
            },
            LANES,
        );
        Self(Arc::new(Shared {
            engine,
            gateway,
            gateway_timeout,
            claims,
            settles,
            refused_reuses: OnceLock::new(),
        }))
    }

    /// The engine that it works through.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// False while the gateway is down, and calls are not even tried.
    pub fn gateway_is_available(&self) -> bool {
        self.0.gateway.is_available()
    }

    pub(super) fn gateway(&self) -> &dyn Gateway {
        &*self.0.gateway
    }

    pub(super) fn gateway_timeout(&self) -> Duration {
        self.0.gateway_timeout
    }

    pub(super) fn claims(&self) -> &ClaimGroup {
        &self.0.claims
    }

    pub(super) fn settles(&self) -> &SettleGroup {
        &self.0.settles
    }

    /// True while claims or settles wait for a database that does not answer.
    pub fn is_stalled(&self) -> bool {
        self.0.claims.is_stalled() || self.0.settles.is_stalled()
    }

    pub(super) fn pool(&self) -> &PgPool {
        self.0.engine.pool()
    }

    /// Goes on with what a dead owner left behind: the first run's own code, from what the claim stored.
    pub async fn resume(&self, permit: Permit) -> Result<Reply, PaymentError> {
        let claim = permit.claim().clone();
        let merchant_id = claim.scope.merchant_id.as_str();
        let mut connection = database::acquire(self.pool()).await?;
        match Operation::from_name(&claim.scope.operation) {
            Some(Operation::CreatePayment) => {
                let payment = self
                    .load(&mut connection, merchant_id, permit.resource_id())
                    .await?;
                drop(connection);
                self.charge(permit, Box::new(payment)).await
            }
            Some(Operation::CapturePayment | Operation::CancelPayment) => {
                let payment = self
                    .load(&mut connection, merchant_id, permit.resource_id())
                    .await?;
                drop(connection);
                self.adjust(permit, payment).await
            }
            Some(Operation::RefundPayment) => {
                let refund = store::find_refund(&mut connection, merchant_id, permit.resource_id())
                    .bounded()
                    .await?
                    .ok_or(PaymentError::NotFound("refund"))?;
                let payment = self
                    .load(&mut connection, merchant_id, &refund.payment_id)
                    .await?;
                drop(connection);
                self.give_back(permit, payment, refund).await
            }
            // An embedding service's own operation: its own recovery knows it.
            None => Err(PaymentError::NotFound("operation")),
        }
    }

    async fn load(
        &self,
        connection: &mut sqlx::PgConnection,
        merchant_id: &str,
        payment_id: &str,
    ) -> Result<Payment, PaymentError> {
        store::find_payment(connection, merchant_id, payment_id)
            .bounded()
            .await?
            .ok_or(PaymentError::NotFound("payment"))
    }

    pub(super) fn settled(
        &self,
        settled: Settled,
        processing: impl FnOnce() -> StoredResponse,
    ) -> Reply {
        match settled {
            Settled::Stored(answer) | Settled::Lost(Some(answer)) => answer.into(),
            // Whoever took the claim over is still at work.
            Settled::Lost(None) => Reply {
                response: Arc::new(processing()),
                replayed: false,
                expires_at: Utc::now(),
            },
        }
    }

    pub(super) async fn release<F, Fut>(
        &self,
        permit: Permit,
        undo: F,
    ) -> Result<Reply, PaymentError>
    where
        F: Fn(Transaction) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = sqlx::Result<()>> + Send + 'static,
    {
        let _ = self.0.engine.release(permit, undo).await?;
        Err(PaymentError::GatewayUnavailable)
    }

    /// One of a merchant's payments.
    pub async fn find(&self, merchant_id: &str, payment_id: &str) -> Result<Payment, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        self.load(&mut connection, merchant_id, payment_id).await
    }

    /// A merchant's payments, newest first, `limit` at most.
    pub async fn list(
        &self,
        merchant_id: &str,
        filter: &PaymentFilter,
        limit: u16,
    ) -> Result<Page, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        // One more than asked for tells whether there is a next page.
        let mut payments =
            store::list_payments(&mut connection, merchant_id, filter, i64::from(limit) + 1)
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
}

/// An asked-for amount in the payment's currency, or the default.
pub(super) fn in_currency_of(
    payment: &Payment,
    asked: Option<MajorAmount>,
    default: Amount,
) -> Result<Amount, PaymentError> {
    let Some(asked) = asked else {
        return Ok(default);
    };
    asked.to_amount(payment.amount.currency()).map_err(|error| {
        let field = FieldError {
            field: "amount".to_owned(),
            message: error.to_string(),
        };
        PaymentError::Invalid(vec![field])
    })
}

/// The row of a payment whose key we hold: it is there.
pub(super) async fn locked(
    tx: &mut Transaction,
    merchant_id: &str,
    id: &str,
) -> sqlx::Result<Payment> {
    store::lock_payment(tx, merchant_id, id)
        .await?
        .ok_or(sqlx::Error::RowNotFound)
}

/// Not an outcome: the claim stays, and whoever asks next finds out.
pub(super) fn unsettled(permit: &Permit, response: StoredResponse) -> Reply {
    Reply {
        response: Arc::new(response),
        replayed: false,
        expires_at: permit.claim().expires_at,
    }
}

pub(super) fn processing_payment(payment: &Payment) -> StoredResponse {
    answers::processing(payment, answers::payment_location(&payment.id))
}

pub(super) fn processing_refund(refund: &Refund) -> StoredResponse {
    answers::processing(refund, answers::refund_location(&refund.id))
}

/// In microseconds, as the database keeps it, so that a payment reads the same before and after.
pub(super) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
