//! Whether Stripe answers, and accepts this service's key and version.

use serde::de::IgnoredAny;

use super::StripeGateway;
use super::api::{Attempt, Call};
use super::verdict::{Verdict, classify};

/// The answer to a question that charges and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StripeProbe {
    /// It answered the question.
    Answers,
    /// It refuses this service, and why: its key, what the key may do, its account or API version.
    Misconfigured(String),
    /// It answered something else, and its status: too many requests, or a failure of its own.
    Ill(u16),
    /// No answer came within the request time, and why.
    Silent(String),
}

impl StripeGateway {
    /// Asks once, for the latest intent: the list that recovery reads, by which nothing is charged or changed.
    pub async fn probe(&self) -> StripeProbe {
        let call = Call::get(&["payment_intents"], &[("limit", "1")]);
        let attempt = self.api.send(&call, self.request_time).await;
        let status = match &attempt {
            Attempt::Answered(answer) => answer.status,
            Attempt::Unreached(why) | Attempt::Lost(why) => {
                return StripeProbe::Silent(why.clone());
            }
        };
        match classify::<IgnoredAny>(attempt) {
            Verdict::Answered(_) => StripeProbe::Answers,
            Verdict::Misconfigured(reason) => StripeProbe::Misconfigured(reason),
            _ => StripeProbe::Ill(status),
        }
    }
}
