//! The gateway's books: its state, and the rules by which it changes.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::Value;
use uuid::Uuid;

use super::call::{Call, NewIntent};
use super::cards::{AUTHENTICATION_REQUIRED, Outcome, PaymentMethod};
use super::intent::{Intent, Refund, RefundStatus, Status};
use super::ledger::{CancelEntry, CaptureEntry, Ledger, RefundEntry};
use super::reply::ApiError;

/// How the gateway behaves to all accounts, as the test has set it.
#[derive(Clone, Copy, Default)]
pub(super) struct Settings {
    /// For how long a new intent is not found by search.
    pub(super) search_lag: Duration,
    /// Raw card numbers are refused, as they are by default at Stripe.
    pub(super) no_raw_cards: bool,
    /// A card that asks for authentication leaves its intent waiting for it, whatever the client wanted.
    pub(super) always_waits: bool,
    /// Refunds are pending until the test ends them, for every card.
    pub(super) refunds_take_time: bool,
}

/// Everything of one account that outlives a request. Lists are in the order in which things happened.
#[derive(Default)]
pub(super) struct Books {
    cards: HashMap<String, PaymentMethod>,
    pub(super) intents: Vec<Intent>,
    pub(super) refunds: Vec<Refund>,
    captures: Vec<CaptureEntry>,
    cancels: Vec<CancelEntry>,
}

impl Books {
    /// Carries a call out, wholly or not at all.
    pub(super) fn execute(&mut self, call: Call, settings: Settings) -> Result<Value, ApiError> {
        match call {
            Call::Tokenize {
                number,
                exp_month,
                exp_year,
                name,
            } => {
                if settings.no_raw_cards {
                    return Err(ApiError::raw_cards());
                }
                let card = PaymentMethod::new(&number, exp_month, exp_year, name);
                let answer = card.json();
                self.cards.insert(card.id.clone(), card);
                Ok(answer)
            }
            Call::Charge(new) => self.charge(new, settings),
            Call::Retrieve { intent, expand } => Ok(self.intent_in_path(&intent)?.json(&expand)),
            Call::ListIntents {
                filter,
                customer,
                page,
                expand,
            } => self.list_intents(&filter, customer.as_deref(), &page, &expand),
            Call::Search {
                name,
                value,
                limit,
                expand,
            } => Ok(self.search(&name, &value, limit, &expand, settings.search_lag)),
            Call::Capture {
                intent,
                amount,
                expand,
            } => self.capture(&intent, amount, &expand),
            Call::Cancel {
                intent,
                reason,
                expand,
            } => self.cancel(&intent, reason, &expand),
            Call::Refund {
                intent,
                amount,
                reason,
                metadata,
            } => self.refund(&intent, amount, reason, metadata, settings),
            Call::ListRefunds {
                intent,
                filter,
                page,
            } => self.list_refunds(intent.as_deref(), &filter, &page),
            Call::RetrieveRefund { refund } => {
                let found = self.refunds.iter().find(|listed| listed.id == refund);
                found
                    .map(Refund::json)
                    .ok_or_else(|| ApiError::missing_resource("refund", &refund))
            }
        }
    }

    fn charge(&mut self, new: NewIntent, settings: Settings) -> Result<Value, ApiError> {
        let id = &new.payment_method;
        let card = self
            .cards
            .get(id)
            .cloned()
            .or_else(|| PaymentMethod::test_token(id));
        let card =
            card.ok_or_else(|| ApiError::missing_reference("payment_method", "PaymentMethod", id))?;
        let outcome = match card.outcome() {
            Outcome::Authentication if new.unattended && !settings.always_waits => {
                Outcome::Declined(AUTHENTICATION_REQUIRED)
            }
            outcome => outcome,
        };
        if new
            .customer
            .as_deref()
            .is_some_and(|id| !id.starts_with("cus_"))
        {
            let id = new.customer.as_deref().unwrap_or_default();
            return Err(ApiError::missing_reference("customer", "customer", id));
        }
        let (status, decline) = match outcome {
            Outcome::Approved if new.manual => (Status::RequiresCapture, None),
            Outcome::Approved => (Status::Succeeded, None),
            Outcome::Authentication => (Status::RequiresAction, None),
            Outcome::Declined(decline) => (Status::RequiresPaymentMethod, Some(decline)),
        };
        let intent = Intent {
            id: format!("pi_{}", Uuid::new_v4().simple()),
            charge_id: format!("ch_{}", Uuid::new_v4().simple()),
            captured: if status == Status::Succeeded {
                new.amount
            } else {
                0
            },
            amount: new.amount,
            currency: new.currency,
            manual: new.manual,
            payment_method: card,
            customer: new.customer,
            description: new.description,
            metadata: new.metadata,
            status,
            decline,
            refunded: 0,
            cancellation_reason: None,
            created: Utc::now().timestamp(),
            born: Instant::now(),
            authorized: outcome == Outcome::Approved,
        };
        let answer = intent.json(&new.expand);
        self.intents.push(intent);
        match decline {
            None => Ok(answer),
            Some(decline) => {
                let error = ApiError::card(decline.code, decline.decline_code, decline.message);
                Err(match decline.advice {
                    Some(advice) => error.advice(advice.0, advice.1, advice.2),
                    None => error,
                }
                .payment_intent(answer))
            }
        }
    }

    fn capture(
        &mut self,
        id: &str,
        amount: Option<i64>,
        expand: &[String],
    ) -> Result<Value, ApiError> {
        let intent = self.intent_in_path_mut(id)?;
        if intent.status != Status::RequiresCapture {
            return Err(unexpected_state(intent, "captured", "requires_capture"));
        }
        let amount = amount.unwrap_or(intent.amount);
        if amount > intent.amount {
            let message = "The requested capture amount is greater than the authorized amount.";
            return Err(ApiError::invalid(message)
                .code("amount_too_large")
                .param("amount_to_capture"));
        }
        intent.captured = amount;
        intent.status = Status::Succeeded;
        let entry = CaptureEntry {
            payment_id: intent.payment_id(),
            intent_id: intent.id.clone(),
            amount,
        };
        let answer = intent.json(expand);
        self.captures.push(entry);
        Ok(answer)
    }

    fn cancel(
        &mut self,
        id: &str,
        reason: Option<String>,
        expand: &[String],
    ) -> Result<Value, ApiError> {
        let intent = self.intent_in_path_mut(id)?;
        if matches!(intent.status, Status::Succeeded | Status::Canceled) {
            let cancelable = "requires_payment_method, requires_capture, requires_confirmation, requires_action, processing";
            return Err(unexpected_state(intent, "canceled", cancelable));
        }
        intent.status = Status::Canceled;
        intent.cancellation_reason = reason;
        let entry = CancelEntry {
            payment_id: intent.payment_id(),
            intent_id: intent.id.clone(),
        };
        let answer = intent.json(expand);
        self.cancels.push(entry);
        Ok(answer)
    }

    fn refund(
        &mut self,
        id: &str,
        amount: Option<i64>,
        reason: Option<String>,
        metadata: BTreeMap<String, String>,
        settings: Settings,
    ) -> Result<Value, ApiError> {
        let intent = self.intents.iter_mut().rev().find(|intent| intent.id == id);
        let intent = intent
            .ok_or_else(|| ApiError::missing_reference("payment_intent", "payment_intent", id))?;
        if intent.status != Status::Succeeded {
            let message =
                format!("This PaymentIntent ({id}) does not have a successful charge to refund.");
            return Err(ApiError::invalid(message).code("payment_intent_unexpected_state"));
        }
        let left = intent.captured - intent.refunded;
        if left == 0 {
            let message = format!("Charge {} has already been refunded.", intent.charge_id);
            return Err(ApiError::invalid(message).code("charge_already_refunded"));
        }
        let amount = amount.unwrap_or(left);
        if amount > left {
            // Stripe gives this one no code.
            let message = format!(
                "Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            );
            return Err(ApiError::invalid(message).param("amount"));
        }
        intent.refunded += amount;
        let refund = Refund {
            id: format!("re_{}", Uuid::new_v4().simple()),
            intent_id: intent.id.clone(),
            charge_id: intent.charge_id.clone(),
            amount,
            currency: intent.currency.clone(),
            reason,
            metadata,
            status: match settings.refunds_take_time || intent.payment_method.refunds_take_time {
                true => RefundStatus::Pending,
                false => RefundStatus::Succeeded,
            },
            created: Utc::now().timestamp(),
        };
        let answer = refund.json();
        self.refunds.push(refund);
        Ok(answer)
    }

    /// Ends all pending refunds. Returns how many.
    pub(super) fn end_refunds(&mut self, status: RefundStatus) -> usize {
        let mut ended = 0;
        for refund in &mut self.refunds {
            if refund.status != RefundStatus::Pending {
                continue;
            }
            refund.status = status;
            ended += 1;
            let intent = self
                .intents
                .iter_mut()
                .rev()
                .find(|intent| intent.id == refund.intent_id);
            if let Some(intent) = intent.filter(|_| status == RefundStatus::Failed) {
                intent.refunded -= refund.amount;
            }
        }
        ended
    }

    /// Makes everything older.
    pub(super) fn age(&mut self, by: Duration) {
        let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        for created in self
            .intents
            .iter_mut()
            .map(|intent| &mut intent.created)
            .chain(self.refunds.iter_mut().map(|refund| &mut refund.created))
        {
            *created -= seconds;
        }
    }

    fn intent_in_path(&self, id: &str) -> Result<&Intent, ApiError> {
        let found = self.intents.iter().rev().find(|intent| intent.id == id);
        found.ok_or_else(|| ApiError::missing_resource("payment_intent", id))
    }

    fn intent_in_path_mut(&mut self, id: &str) -> Result<&mut Intent, ApiError> {
        let found = self.intents.iter_mut().rev().find(|intent| intent.id == id);
        found.ok_or_else(|| ApiError::missing_resource("payment_intent", id))
    }

    /// Adds all that the books know to a ledger.
    pub(super) fn add_to(&self, ledger: &mut Ledger) {
        let payment_of: HashMap<&str, String> = self
            .intents
            .iter()
            .map(|intent| (intent.id.as_str(), intent.payment_id()))
            .collect();
        ledger
            .charges
            .extend(self.intents.iter().filter_map(Intent::charge_entry));
        ledger
            .unpaid
            .extend(self.intents.iter().filter_map(Intent::unpaid_entry));
        ledger.captures.extend(self.captures.iter().cloned());
        ledger.cancels.extend(self.cancels.iter().cloned());
        ledger.refunds.extend(
            self.refunds
                .iter()
                .map(|refund| RefundEntry::new(refund, &payment_of[refund.intent_id.as_str()])),
        );
        ledger.tokenizations += self.cards.len();
    }
}

fn unexpected_state(intent: &Intent, done: &str, allowed: &str) -> ApiError {
    let message = format!(
        "This PaymentIntent could not be {done} because it has a status of {}. Only a PaymentIntent with one of the following \
         statuses may be {done}: {allowed}.",
        intent.status.name()
    );
    ApiError::invalid(message)
        .code("payment_intent_unexpected_state")
        .payment_intent(intent.json(&[]))
}
