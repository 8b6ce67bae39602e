//! Whether Stripe answers, and takes our key.

use super::StripeGateway;
use super::api::{Attempt, Call};

/// What came of a question that charges nothing and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StripeProbe {
    /// It answered what it was asked.
    Answers,
    /// It does not take our key, or the key may not read payment intents.
    Refused(u16),
    /// It answered something else: too many requests, or a failure of its own.
    Ill(u16),
    /// No answer came within the request time, and why.
    Silent(String),
}

impl StripeGateway {
    /// Asks once, for a payment that there is not: the question that recovery asks, by which nothing is charged or changed.
    pub async fn probe(&self) -> StripeProbe {
        let params = [("query", "metadata['payment_id']:'none'"), ("limit", "1")];
        let call = Call::get(&["payment_intents", "search"], &params);
        match self.api.send(&call, self.request_time).await {
            Attempt::Answered(answer) => match answer.status {
                200..=299 => StripeProbe::Answers,
                401 | 403 => StripeProbe::Refused(answer.status),
                status => StripeProbe::Ill(status),
            },
            Attempt::Unreached(why) | Attempt::Lost(why) => StripeProbe::Silent(why),
        }
    }
}
