//! Tokens that make the gateway misbehave as real ones sometimes do: `pm_sim_…`.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::gateway::{Charge, Decline, GatewayError, Refusal};

/// How long an unknown outcome stays unknown, a slow answer takes, and a refund is pending.
pub(super) const A_WHILE: Duration = Duration::from_secs(3);

/// Number of calls with `pm_sim_unavailable` that do not reach the gateway before one does.
const TIMES_UNAVAILABLE: u32 = 2;

/// Maximum number of counts of `pm_sim_unavailable`. Beyond it, all counts start again.
const MAX_COUNTS: usize = 10_000;

/// What a token does to a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// No answer at first, and success when asked again after a while.
    Unknown,
    /// No answer at first, and a decline when asked again after a while.
    UnknownDeclined,
    /// Two calls that do not reach the gateway, then success.
    Unavailable,
    /// Success after a while.
    Slow,
    /// The gateway refuses this service.
    Misconfigured,
    /// The gateway refuses the request.
    Refused,
}

impl Behaviour {
    pub(super) fn of_token(token: &str) -> Option<Self> {
        Some(match token.strip_prefix("pm_sim_")? {
            "unknown" => Self::Unknown,
            "unknown_declined" => Self::UnknownDeclined,
            "unavailable" => Self::Unavailable,
            "slow" => Self::Slow,
            "misconfigured" => Self::Misconfigured,
            "refused" => Self::Refused,
            _ => return None,
        })
    }

    /// The error of a charge at this moment, if any.
    pub(super) fn obstacle(self, charge: &Charge, counts: &mut Counts) -> Option<GatewayError> {
        match self {
            Self::Slow => None,
            Self::Unavailable => counts.is_unavailable(charge).then(nothing_happened),
            Self::Misconfigured => Some(GatewayError::Misconfigured {
                reason: "the token pm_sim_misconfigured asks for it".to_owned(),
            }),
            Self::Refused => Some(GatewayError::Refused(Refusal {
                code: "invalid_token".to_owned(),
                message: "The gateway refused the token".to_owned(),
                param: Some("paymentMethod.token".to_owned()),
            })),
            Self::Unknown | Self::UnknownDeclined => self.unknown_outcome(charge),
        }
    }

    /// The error of a question about the charge at this moment, if any.
    pub(super) fn unknown_outcome(self, charge: &Charge) -> Option<GatewayError> {
        match self {
            Self::Unknown | Self::UnknownDeclined if is_recent(&charge.payment_id, Utc::now()) => {
                Some(GatewayError::Unknown {
                    reason: "the token asks for no answer".to_owned(),
                })
            }
            Self::UnknownDeclined => Some(GatewayError::Declined(Decline::new(
                "generic_decline",
                "The card was declined",
            ))),
            _ => None,
        }
    }

    /// True if no charge is ever made.
    pub(super) fn never_charges(self) -> bool {
        matches!(self, Self::Misconfigured | Self::Refused)
    }
}

/// How often `pm_sim_unavailable` was tried. A claim whose call did not reach the gateway is released, so its repetition has
/// another payment's id. It is recognised by its merchant and amount.
#[derive(Default)]
pub(super) struct Counts(HashMap<(String, i64, &'static str), u32>);

impl Counts {
    fn is_unavailable(&mut self, charge: &Charge) -> bool {
        let amount = charge.amount;
        let what = (
            charge.merchant_id.clone(),
            amount.minor(),
            amount.currency().code(),
        );
        if self.0.len() >= MAX_COUNTS {
            self.0.clear();
        }
        let count = self.0.entry(what.clone()).or_default();
        *count += 1;
        let is_unavailable = *count <= TIMES_UNAVAILABLE;
        if !is_unavailable {
            self.0.remove(&what);
        }
        is_unavailable
    }
}

fn nothing_happened() -> GatewayError {
    GatewayError::NothingHappened {
        reason: "the token pm_sim_unavailable asks for it".to_owned(),
    }
}

/// True while an id (`pay_` or `ref_` and a UUIDv7) is younger than [`A_WHILE`]. An id of another form counts as old.
pub(super) fn is_recent(id: &str, now: DateTime<Utc>) -> bool {
    let made_at = id
        .split_once('_')
        .and_then(|(_, uuid)| Uuid::parse_str(uuid).ok())
        .and_then(|uuid| uuid.get_timestamp())
        .and_then(|timestamp| {
            let (seconds, nanos) = timestamp.to_unix();
            DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
        });
    made_at.is_some_and(|made_at| {
        let a_while = TimeDelta::from_std(A_WHILE).unwrap_or(TimeDelta::MAX);
        now < made_at + a_while
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_api_mds() {
        let known = [
            "unknown",
            "unknown_declined",
            "unavailable",
            "slow",
            "misconfigured",
            "refused",
        ];
        for name in known {
            assert!(Behaviour::of_token(&format!("pm_sim_{name}")).is_some());
        }
        for other in ["pm_sim_", "pm_sim_x", "pm_simulated_success", "unknown"] {
            assert_eq!(Behaviour::of_token(other), None, "{other}");
        }
    }

    #[test]
    fn an_id_is_recent_for_a_while() {
        let id = format!("pay_{}", Uuid::now_v7());
        let now = Utc::now();
        assert!(is_recent(&id, now));
        assert!(!is_recent(&id, now + TimeDelta::seconds(4)));
        for other in ["pay_1", "", "pay_6ba7b810-9dad-41d1-80b4-00c04fd430c8"] {
            assert!(!is_recent(other, now), "{other}");
        }
    }
}
