//! Whether Stripe answers, and accepts this service's key and version.

use serde::de::IgnoredAny;

use super::StripeGateway;
use super::api::{Attempt, Call};
use super::verdict::{Verdict, classify};

/// The answer to a request that charges and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StripeProbe {
    /// It answered the request.
    Answers,
    /// It refuses this service, with the reason: its key, the key's permissions, its account or API version.
    Misconfigured(String),
    /// It gave another answer, with its status: too many requests, or a failure at Stripe.
    Ill(u16),
    /// No answer came within the request time, with the reason.
    Silent(String),
}

impl StripeGateway {
    /// Makes one request, for the latest intent. It reads the same list as recovery, which charges and changes nothing.
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
