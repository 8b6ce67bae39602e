//! The service: its parts, and the path from a request to its answer that all operations share.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::PgPool;

use super::gateway_call::start_counting_calls;
use super::group_commit::{ClaimGroup, ClaimWriter, SettleGroup, SettleWriter};
use super::turns::Turns;
use super::{Operation, Payment, PaymentError, PaymentState, store};
use crate::database::{self, Bounded};
use crate::gateway::{Gateway, Gateways};
use crate::idempotency::grouped::SignedRequest;
use crate::idempotency::{Answer, Engine, Gate, Permit, ScopedKey};
use crate::merchants::Accounts;
use crate::mismatches::Mismatches;
use crate::problem::HasCharged;

/// Maximum number of groups of one kind that commit at the same time while commits are slow. With more, each would find fewer items.
const SIDE_BY_SIDE: u32 = 4;

/// The gateway's state, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum GatewayStatus {
    /// It takes calls.
    Ok,
    /// It cannot be reached, and calls are not tried for a while.
    CircuitOpen,
    /// It refuses this service, not the payer. An operator has to fix that.
    Misconfigured,
}

impl GatewayStatus {
    /// The name in `/readyz`.
    pub fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// The payments service. A clone is the same service.
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
    /// Empty if mismatches are not noted.
    mismatches: OnceLock<Mismatches>,
}

/// The work of an operation once its key is claimed.
pub(super) trait ClaimedWork: Sized + Send {
    /// Reads what the claim stored, in a process that has taken the claim over.
    fn load(
        payments: &Payments,
        permit: &Permit,
    ) -> impl Future<Output = Result<Self, PaymentError>> + Send;

    /// Calls the gateway and settles.
    fn execute(
        self,
        payments: &Payments,
        permit: Permit,
    ) -> impl Future<Output = Result<Answer, PaymentError>> + Send;
}

impl Payments {
    /// Assembles the service. `gateway_timeout` is the longest that a request waits for the gateway.
    pub fn new(engine: Engine, gateways: Gateways, gateway_timeout: Duration) -> Self {
        for kind in gateways.kinds() {
            start_counting_calls(kind);
        }
        let claims = ClaimGroup::start(&engine, ClaimWriter::default(), SIDE_BY_SIDE);
        let settles = SettleGroup::start(
            &engine,
            SettleWriter {
                owner: engine.owner(),
            },
            SIDE_BY_SIDE,
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
            mismatches: OnceLock::new(),
        }))
    }

    /// Notes each mismatch from now on. A second call has no effect.
    pub fn note_mismatches(&self, mismatches: Mismatches) {
        drop(self.0.mismatches.set(mismatches));
    }

    /// Takes a request through `claim` to its answer, in a task that continues if the caller hangs up.
    pub(super) async fn run<W, F, Fut>(
        &self,
        signed: SignedRequest,
        claim: F,
    ) -> Result<Answer, PaymentError>
    where
        W: ClaimedWork + 'static,
        F: FnOnce(Self, SignedRequest) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Gate<W>, PaymentError>> + Send,
    {
        let scope = signed.key().clone();
        // A replay from memory needs no task.
        match self.engine().recall::<W>(&signed) {
            Some(Gate::Answered(answer)) => return Ok(answer),
            Some(gate) => return Box::pin(self.proceed(&scope, gate)).await,
            None => {}
        }
        let payments = self.clone();
        // Boxed here: it is large, and what takes it by value would copy it.
        let detached = Box::pin(async move {
            let gate = claim(payments.clone(), signed).await?;
            payments.proceed(&scope, gate).await
        });
        self.engine().run(detached).await?
    }

    /// What is rare is boxed, because every request carries room for the rest.
    async fn proceed<W: ClaimedWork>(
        &self,
        scope: &ScopedKey,
        gate: Gate<W>,
    ) -> Result<Answer, PaymentError> {
        match gate {
            Gate::Claimed { permit, work } => work
                .execute(self, permit)
                .await
                .map_err(PaymentError::after_claim),
            Gate::TakenOver(permit) => Box::pin(self.resume_as::<W>(permit)).await,
            Gate::Answered(answer) => Ok(answer),
            Gate::InProgress { retry_after } => Err(PaymentError::InProgress { retry_after }),
            Gate::Mismatch(mismatch) => {
                if let Some(mismatches) = self.0.mismatches.get() {
                    mismatches.note(scope, &mismatch);
                }
                let charged = Box::pin(self.charged_by(scope)).await;
                Err(PaymentError::Mismatch { mismatch, charged })
            }
            Gate::Expired {
                resource_id,
                created_at,
            } => Err(PaymentError::Expired {
                resource_id,
                created_at,
                charged: Box::pin(self.charged_by(scope)).await,
            }),
        }
    }

    /// Executes a claim that was taken over, from what the claim stored.
    pub(super) async fn resume_as<W: ClaimedWork>(
        &self,
        permit: Permit,
    ) -> Result<Answer, PaymentError> {
        let resumed = async {
            let work = W::load(self, &permit).await?;
            work.execute(self, permit).await
        };
        resumed.await.map_err(PaymentError::after_claim)
    }

    /// Whether a payment that this key made took or holds money. For information only: nothing is decided by it.
    async fn charged_by(&self, scope: &ScopedKey) -> HasCharged {
        if scope.operation != Operation::CreatePayment.as_str() {
            // No other operation makes a payment.
            return HasCharged::No;
        }
        match self.state_by(scope).await {
            Ok(Some(state)) => state.charged(),
            Ok(None) => HasCharged::Unknown,
            Err(error) => {
                tracing::warn!(key = %scope, %error, "whether the key charged could not be looked up");
                HasCharged::Unknown
            }
        }
    }

    async fn state_by(&self, scope: &ScopedKey) -> sqlx::Result<Option<PaymentState>> {
        let mut connection = database::acquire(self.pool()).await?;
        store::find_state_by_key(&mut connection, &scope.merchant_id, scope.key.as_str())
            .bounded()
            .await
    }
}

/// The parts of the service.
impl Payments {
    /// Returns its engine.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn pool(&self) -> &PgPool {
        self.0.engine.pool()
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

    /// The merchant's own account at Stripe.
    pub(super) async fn stripe_account(&self, merchant_id: &str) -> sqlx::Result<Option<Arc<str>>> {
        self.0.accounts.stripe_account(merchant_id).await
    }

    /// False while the gateway is down and calls are not tried.
    pub fn gateway_is_available(&self) -> bool {
        self.gateway_status() != GatewayStatus::CircuitOpen
    }

    /// The state of the gateway for new payments, according to its latest answers.
    pub fn gateway_status(&self) -> GatewayStatus {
        let gateway = self.default_gateway();
        if !gateway.is_available() {
            GatewayStatus::CircuitOpen
        } else if gateway.trouble().is_some() {
            GatewayStatus::Misconfigured
        } else {
            GatewayStatus::Ok
        }
    }

    pub(super) fn gateway_timeout(&self) -> Duration {
        self.0.gateway_timeout
    }

    /// The gateway for new payments.
    pub(super) fn default_gateway(&self) -> &dyn Gateway {
        &**self.0.gateways.default_gateway()
    }

    /// The kinds of gateway that are set up in this process.
    pub(super) fn gateway_kinds(&self) -> Vec<&'static str> {
        self.0.gateways.kinds()
    }

    /// The gateway of a payment whose key is claimed.
    pub(super) fn gateway_of(&self, gateway_type: &str) -> Result<&dyn Gateway, PaymentError> {
        match self.0.gateways.of(gateway_type) {
            Some(gateway) => Ok(&**gateway),
            None => Err(not_set_up(gateway_type, true)),
        }
    }

    /// Refuses to begin an operation on a payment whose gateway is not set up in this process. Nothing is stored yet.
    pub(super) fn check_gateway_of(&self, payment: &Payment) -> Result<(), PaymentError> {
        match self.0.gateways.of(&payment.gateway_type) {
            Some(_) => Ok(()),
            None => Err(not_set_up(&payment.gateway_type, false)),
        }
    }
}

fn not_set_up(gateway_type: &str, may_have_charged: bool) -> PaymentError {
    PaymentError::GatewayMisconfigured {
        reason: format!("the payment's gateway, {gateway_type}, is not set up in this process"),
        may_have_charged,
    }
}
