//! The service: what all operations share, recovery's way in, and what only reads.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::{PgConnection, PgPool};

use super::call::{NothingDone, start_counting_calls};
use super::groups::{ClaimGroup, ClaimWriter, SettleGroup, SettleWriter};
use super::turns::Turns;
use super::{Operation, Payment, PaymentError, PaymentState, Refund, answers, store};
use crate::database::{self, Bounded};
use crate::gateway::{Gateway, Gateways};
use crate::idempotency::{
    Answer, Engine, Gate, Permit, Released, ScopedKey, Settled, StoredResponse, Transaction,
};
use crate::input::FieldError;
use crate::merchants::Accounts;
use crate::mismatches::Mismatches;
use crate::money::{Amount, MajorAmount};
use crate::problem::Charged;

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
    /// Only the one that was made by this key.
    pub idempotency_key: Option<String>,
}

/// How many payments a page looks at, where it shows only those in one state: no index has the state, so that settling a payment
/// changes no index.
const MOST_LOOKED_AT: usize = 500;

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// Newest first. There may be fewer than were asked for, or none, and a next page all the same.
    pub payments: Vec<Payment>,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<String>,
}

/// How a gateway is, for those who run the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayStatus {
    /// It takes calls.
    Ok,
    /// It cannot be reached, and calls are not even tried for a while.
    CircuitOpen,
    /// It refuses this service, not the payer: an operator has to put that right.
    Misconfigured,
}

impl GatewayStatus {
    /// As `/readyz` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::CircuitOpen => "circuit-open",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// The payments service.
#[derive(Clone)]
pub struct Payments(Arc<Shared>);

struct Shared {
    engine: Engine,
    gateways: Gateways,
    accounts: Accounts,
    gateway_timeout: Duration,
    claims: ClaimGroup,
    settles: SettleGroup,
    turns: Turns,
    /// Empty where nobody looks at them.
    refused_reuses: OnceLock<Mismatches>,
}

/// What came of the gate.
pub(super) enum Passed<T> {
    Mine(Permit, Option<T>),
    Answered(Reply),
}

impl Payments {
    /// What the gate's answer means here.
    pub(super) async fn pass<T>(
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
                let charged = self.charged_by(scope).await;
                Err(PaymentError::Reused { mismatch, charged })
            }
            Gate::Expired {
                resource_id,
                created_at,
            } => Err(PaymentError::Expired {
                resource_id,
                created_at,
                charged: self.charged_by(scope).await,
            }),
        }
    }

    /// Goes on behind the gate: with the answer that is there, with this request's own `work`, or with what a dead owner left.
    pub(super) async fn go_on<T, Fut>(
        &self,
        scope: &ScopedKey,
        gate: Gate<T>,
        work: impl FnOnce(Permit, T) -> Fut,
    ) -> Result<Reply, PaymentError>
    where
        Fut: Future<Output = Result<Reply, PaymentError>>,
    {
        match self.pass(scope, gate).await? {
            Passed::Answered(reply) => Ok(reply),
            Passed::Mine(permit, Some(claimed)) => work(permit, claimed)
                .await
                .map_err(PaymentError::after_claim),
            Passed::Mine(permit, None) => self.resume(permit).await,
        }
    }

    /// Whether a payment by this key took or holds money. It only informs: nothing is decided by it.
    async fn charged_by(&self, scope: &ScopedKey) -> Charged {
        if scope.operation != Operation::CreatePayment.as_str() {
            // No other operation makes a payment.
            return Charged::No;
        }
        match self.state_by(scope).await {
            Ok(Some(state)) => state.charged(),
            Ok(None) => Charged::Unknown,
            Err(error) => {
                tracing::warn!(key = %scope, %error, "whether the key charged could not be looked up");
                Charged::Unknown
            }
        }
    }

    async fn state_by(&self, scope: &ScopedKey) -> sqlx::Result<Option<PaymentState>> {
        let mut connection = database::acquire(self.pool()).await?;
        store::find_state_by_key(&mut connection, &scope.merchant_id, scope.key.as_str())
            .bounded()
            .await
    }

    /// From now on each refused reuse is noted. A second call changes nothing.
    pub fn note_refused_reuses(&self, refused_reuses: Mismatches) {
        drop(self.0.refused_reuses.set(refused_reuses));
    }

    /// Puts the service together. `gateway_timeout` is the longest a request waits for the gateway.
    pub fn new(engine: Engine, gateways: Gateways, gateway_timeout: Duration) -> Self {
        for kind in gateways.kinds() {
            start_counting_calls(kind);
        }
        let claims = ClaimGroup::start(&engine, ClaimWriter, LANES);
        let settles = SettleGroup::start(
            &engine,
            SettleWriter {
                owner: engine.owner(),
            },
            LANES,
        );
        let accounts = Accounts::new(engine.pool().clone());
        let turns = Turns::new(engine.pool().options().get_max_connections());
        Self(Arc::new(Shared {
            engine,
            accounts,
            gateways,
            gateway_timeout,
            claims,
            settles,
            turns,
            refused_reuses: OnceLock::new(),
        }))
    }

    /// The engine that it works through.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// False while the gateway is down, and calls are not even tried.
    pub fn gateway_is_available(&self) -> bool {
        self.gateway_status() != GatewayStatus::CircuitOpen
    }

    /// How the gateway for new payments is, as far as its latest answers tell.
    pub fn gateway_status(&self) -> GatewayStatus {
        let gateway = self.0.gateways.default_gateway();
        if !gateway.is_available() {
            GatewayStatus::CircuitOpen
        } else if gateway.trouble().is_some() {
            GatewayStatus::Misconfigured
        } else {
            GatewayStatus::Ok
        }
    }

    /// The gateway for new payments.
    pub(super) fn default_gateway(&self) -> &dyn Gateway {
        &**self.0.gateways.default_gateway()
    }

    /// The merchant's own account at Stripe.
    pub(super) async fn stripe_account(&self, merchant_id: &str) -> sqlx::Result<Option<Arc<str>>> {
        self.0.accounts.stripe_account(merchant_id).await
    }

    /// The gateway that a payment began with, for a request that holds a claim.
    pub(super) fn gateway_of(&self, gateway_type: &str) -> Result<&dyn Gateway, PaymentError> {
        match self.0.gateways.of(gateway_type) {
            Some(gateway) => Ok(&**gateway),
            None => Err(barred(not_set_up(gateway_type))),
        }
    }

    /// Refuses to begin anything on a payment whose gateway is not set up here. Nothing is stored yet.
    pub(super) fn has_gateway_of(&self, payment: &Payment) -> Result<(), PaymentError> {
        match self.0.gateways.of(&payment.gateway_type) {
            Some(_) => Ok(()),
            None => Err(PaymentError::GatewayMisconfigured {
                reason: not_set_up(&payment.gateway_type),
                may_have_charged: false,
            }),
        }
    }

    /// Refuses a claim whose payment began with a gateway that this process does not have: only a process that has it may go on.
    pub async fn may_take_over(
        &self,
        scope: &ScopedKey,
        resource_id: &str,
    ) -> Result<(), PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        let began_with = store::find_gateway_of(&mut connection, &scope.merchant_id, resource_id)
            .bounded()
            .await?;
        match began_with {
            Some(gateway_type) => self.gateway_of(&gateway_type).map(drop),
            None => Ok(()),
        }
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

    pub(super) fn turns(&self) -> &Turns {
        &self.0.turns
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
        self.resume_claimed(permit)
            .await
            .map_err(PaymentError::after_claim)
    }

    async fn resume_claimed(&self, permit: Permit) -> Result<Reply, PaymentError> {
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
        connection: &mut PgConnection,
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

    /// Gives a claim back of which nothing happened, and says why.
    pub(super) async fn release<F, Fut>(
        &self,
        permit: Permit,
        payment_id: &str,
        why: NothingDone,
        processing: impl FnOnce() -> StoredResponse,
        undo: F,
    ) -> Result<Reply, PaymentError>
    where
        F: Fn(Transaction) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = sqlx::Result<()>> + Send + 'static,
    {
        let merchant_id = &permit.claim().scope.merchant_id;
        let _turn = self.0.turns.to_settle(merchant_id, payment_id).await?;
        match self.0.engine.release(permit, undo).await? {
            Released::Removed => Err(why.into()),
            // Whoever took the claim over makes its call.
            Released::Lost => Ok(self.settled(Settled::Lost(None), processing)),
        }
    }

    /// The answer where the claim was lost before its call.
    pub(super) async fn give_way(
        &self,
        permit: Permit,
        processing: impl FnOnce() -> StoredResponse,
    ) -> Result<Reply, PaymentError> {
        let settled = self.0.engine.give_way(permit).await?;
        Ok(self.settled(settled, processing))
    }

    /// One of a merchant's payments.
    pub async fn find(&self, merchant_id: &str, payment_id: &str) -> Result<Payment, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        self.load(&mut connection, merchant_id, payment_id).await
    }

    /// A merchant's payments, newest first, `limit` at most. With a state, a page looks at no more than 500 of the
    /// merchant's payments, or of the customer's.
    pub async fn list(
        &self,
        merchant_id: &str,
        filter: &PaymentFilter,
        limit: u16,
    ) -> Result<Page, PaymentError> {
        let mut connection = database::acquire(self.pool()).await?;
        let is_by_key = filter.idempotency_key.is_some();
        if !is_by_key && (filter.state.is_some() || filter.customer_id.is_some()) {
            return look_through(&mut connection, merchant_id, filter, limit.into()).await;
        }
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

/// A page of those payments that are in a state, or of a customer, among those that are looked at.
async fn look_through(
    connection: &mut PgConnection,
    merchant_id: &str,
    filter: &PaymentFilter,
    limit: usize,
) -> Result<Page, PaymentError> {
    let before = filter.before.as_deref();
    let most = match filter.state {
        Some(_) => MOST_LOOKED_AT,
        None => limit + 1,
    };
    let rows = i64::try_from(most).unwrap_or(i64::MAX);
    let looked_at = match filter.customer_id.as_deref() {
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
    // There may be more behind those.
    let last_looked_at = looked_at.last().filter(|_| looked_at.len() == most);
    let last_looked_at = last_looked_at.map(|last| last.payment_id.clone());
    let is_wanted = |state: &str| filter.state.is_none_or(|wanted| wanted.as_str() == state);
    let wanted = looked_at
        .into_iter()
        .filter(|payment| is_wanted(&payment.state));
    let mut shown: Vec<String> = wanted
        .map(|payment| payment.payment_id)
        .take(limit + 1)
        .collect();
    let more = shown.len() > limit;
    shown.truncate(limit);
    let last_shown = shown.last().filter(|_| more).cloned();
    Ok(Page {
        payments: store::list_among(connection, merchant_id, &shown, filter.state)
            .bounded()
            .await?,
        next_cursor: last_shown.or(last_looked_at),
    })
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
    tx: &mut PgConnection,
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

fn not_set_up(gateway_type: &str) -> String {
    format!("the payment's gateway, {gateway_type}, is not set up in this process")
}

/// The gateway refuses this service, and an earlier attempt may have charged.
pub(super) fn barred(reason: String) -> PaymentError {
    PaymentError::GatewayMisconfigured {
        reason,
        may_have_charged: true,
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
