//! The gateway's books: what it holds, and the rules by which that changes.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::{Value, json};
use uuid::Uuid;

use super::call::{Call, NewIntent};
use super::cards::{AUTHENTICATION_REQUIRED, Outcome, PaymentMethod};
use super::intent::{Intent, Refund, Status};
use super::ledger::{CancelEntry, CaptureEntry, Ledger, RefundEntry};
use super::reply::ApiError;

/// Everything that outlives a request. Lists are in the order in which things happened.
#[derive(Default)]
pub(super) struct Books {
    cards: HashMap<String, PaymentMethod>,
    intents: Vec<Intent>,
    refunds: Vec<Refund>,
    captures: Vec<CaptureEntry>,
    cancels: Vec<CancelEntry>,
    pub(super) search_lag: Duration,
}

impl Books {
    /// Carries a call out, wholly or not at all.
    pub(super) fn execute(&mut self, call: Call) -> Result<Value, ApiError> {
        match call {
            Call::Tokenize {
                number,
                exp_month,
                exp_year,
            } => {
                let card = PaymentMethod::new(&number, exp_month, exp_year);
                let answer = card.json();
                self.cards.insert(card.id.clone(), card);
                Ok(answer)
            }
            Call::Charge(new) => self.charge(new),
            Call::Retrieve { intent, expand } => Ok(self.intent_in_path(&intent)?.json(&expand)),
            Call::Search {
                name,
                value,
                limit,
                expand,
            } => Ok(self.search(&name, &value, limit, &expand)),
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
            } => self.refund(&intent, amount, reason, metadata),
            Call::ListRefunds {
                intent,
                limit,
                starting_after,
            } => self.list_refunds(&intent, limit, starting_after.as_deref()),
        }
    }

    fn charge(&mut self, new: NewIntent) -> Result<Value, ApiError> {
        let id = &new.payment_method;
        let card = self
            .cards
            .get(id)
            .cloned()
            .or_else(|| PaymentMethod::test_token(id));
        let card =
            card.ok_or_else(|| ApiError::missing_reference("payment_method", "PaymentMethod", id))?;
        let outcome = match card.outcome() {
            Outcome::Authentication if new.unattended => Outcome::Declined(AUTHENTICATION_REQUIRED),
            outcome => outcome,
        };
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
                Err(error.payment_intent(answer))
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
    ) -> Result<Value, ApiError> {
        let intent = self.intents.iter_mut().find(|intent| intent.id == id);
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
            created: Utc::now().timestamp(),
        };
        let answer = refund.json();
        self.refunds.push(refund);
        Ok(answer)
    }

    fn search(&self, name: &str, value: &str, limit: usize, expand: &[String]) -> Value {
        let mut found = self.intents.iter().rev().filter(|intent| {
            intent.born.elapsed() >= self.search_lag
                && intent.metadata.get(name).is_some_and(|v| v == value)
        });
        let data: Vec<Value> = found
            .by_ref()
            .take(limit)
            .map(|intent| intent.json(expand))
            .collect();
        json!({
            "object": "search_result",
            "url": "/v1/payment_intents/search",
            "data": data,
            "has_more": found.next().is_some(),
            "next_page": null,
        })
    }

    fn list_refunds(
        &self,
        intent: &str,
        limit: usize,
        starting_after: Option<&str>,
    ) -> Result<Value, ApiError> {
        if !self.intents.iter().any(|i| i.id == intent) {
            return Err(ApiError::missing_reference(
                "payment_intent",
                "payment_intent",
                intent,
            ));
        }
        let mut newest_first = self
            .refunds
            .iter()
            .rev()
            .filter(|refund| refund.intent_id == intent);
        if let Some(cursor) = starting_after {
            let found = newest_first.by_ref().find(|refund| refund.id == cursor);
            found.ok_or_else(|| ApiError::missing_reference("starting_after", "refund", cursor))?;
        }
        let data: Vec<Value> = newest_first
            .by_ref()
            .take(limit)
            .map(Refund::json)
            .collect();
        Ok(json!({
            "object": "list",
            "url": "/v1/refunds",
            "data": data,
            "has_more": newest_first.next().is_some(),
        }))
    }

    fn intent_in_path(&self, id: &str) -> Result<&Intent, ApiError> {
        let found = self.intents.iter().find(|intent| intent.id == id);
        found.ok_or_else(|| ApiError::missing_resource("payment_intent", id))
    }

    fn intent_in_path_mut(&mut self, id: &str) -> Result<&mut Intent, ApiError> {
        let found = self.intents.iter_mut().find(|intent| intent.id == id);
        found.ok_or_else(|| ApiError::missing_resource("payment_intent", id))
    }

    /// Fills in all of a ledger that the books know.
    pub(super) fn ledger(&self) -> Ledger {
        let payment_of: HashMap<&str, String> = self
            .intents
            .iter()
            .map(|intent| (intent.id.as_str(), intent.payment_id()))
            .collect();
        Ledger {
            charges: self
                .intents
                .iter()
                .filter_map(Intent::charge_entry)
                .collect(),
            unpaid: self
                .intents
                .iter()
                .filter_map(Intent::unpaid_entry)
                .collect(),
            captures: self.captures.clone(),
            cancels: self.cancels.clone(),
            refunds: self
                .refunds
                .iter()
                .map(|r| RefundEntry::new(r, &payment_of[r.intent_id.as_str()]))
                .collect(),
            tokenizations: self.cards.len(),
            calls: BTreeMap::new(),
            faults: BTreeMap::new(),
        }
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
