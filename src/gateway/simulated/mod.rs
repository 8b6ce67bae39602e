//! A gateway inside the process, for development, tests and demonstrations. It has no memory.
//!
//! Its answers depend on the card alone, which its tokens carry as the outcome; its transaction ids depend on the
//! payment's id alone. So it makes one charge for one payment however often it is asked, in whichever process, and asking
//! what became of a charge answers as if it had been made.

mod outcome;
mod test_token;

use std::time::Duration;

use chrono::Utc;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use self::outcome::Outcome;
use self::test_token::TestToken;
use super::{
    Cancel, Capture, Charge, Charged, Gateway, GatewayError, GatewayRefund, GatewayToken,
    RefundProgress, Refunded,
};
use crate::cards::{Card, CardSummary};

/// The gateway. See the module.
#[derive(Clone, Debug)]
pub struct SimulatedGateway {
    latency: Duration,
}

impl SimulatedGateway {
    /// A gateway that takes `latency` for everything but tokens.
    pub fn new(latency: Duration) -> Self {
        Self { latency }
    }

    /// Answers after the latency.
    fn after_latency<'a, T: Send + 'a>(
        &self,
        answer: Result<T, GatewayError>,
    ) -> BoxFuture<'a, Result<T, GatewayError>> {
        let latency = self.latency;
        async move {
            // The timer's finest step is a millisecond, which is more than none.
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            answer
        }
        .boxed()
    }
}

impl Gateway for SimulatedGateway {
    fn kind(&self) -> &'static str {
        "SIMULATED"
    }

    fn tokenizes_remotely(&self) -> bool {
        false
    }

    fn tokenize<'a>(
        &'a self,
        card: &'a Card,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<GatewayToken, GatewayError>> {
        let outcome = Outcome::of_card(card, Utc::now().date_naive());
        std::future::ready(Ok(outcome.token())).boxed()
    }

    fn describe_token(&self, token: &GatewayToken) -> Option<CardSummary> {
        TestToken::find(token).map(TestToken::summary)
    }

    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        self.after_latency(answer_to(charge))
    }

    fn capture<'a>(&'a self, _: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.after_latency(Ok(()))
    }

    fn cancel<'a>(&'a self, _: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.after_latency(Ok(()))
    }

    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>> {
        self.after_latency(Ok(refunded(refund)))
    }

    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>> {
        self.after_latency(answer_to(charge).map(Some))
    }

    fn find_capture<'a>(
        &'a self,
        _: &'a Capture,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.after_latency(Ok(Some(())))
    }

    fn find_cancel<'a>(&'a self, _: &'a Cancel) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.after_latency(Ok(Some(())))
    }

    fn find_refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Option<Refunded>, GatewayError>> {
        self.after_latency(Ok(Some(refunded(refund))))
    }
}

fn answer_to(charge: &Charge) -> Result<Charged, GatewayError> {
    let outcome = Outcome::of_token(&charge.token);
    outcome.decline().map_or_else(
        || Ok(charged(charge)),
        |decline| Err(GatewayError::Declined(decline)),
    )
}

fn charged(charge: &Charge) -> Charged {
    let id = strip(&charge.payment_id, "pay_");
    Charged {
        transaction_id: format!("sim_ch_{id}"),
        card: TestToken::find(&charge.token).map(TestToken::summary),
    }
}

fn strip<'a>(id: &'a str, prefix: &str) -> &'a str {
    id.strip_prefix(prefix).unwrap_or(id)
}

fn refunded(refund: &GatewayRefund) -> Refunded {
    let id = strip(&refund.refund_id, "ref_");
    Refunded {
        gateway_refund_id: format!("sim_re_{id}"),
        progress: RefundProgress::Succeeded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cards::{Cvv, Pan};
    use crate::gateway::Decline;
    use crate::money::{Amount, Currency};
    use crate::payments::CaptureMethod;

    fn gateway() -> SimulatedGateway {
        SimulatedGateway::new(Duration::ZERO)
    }

    fn card(number: &str, expiry_month: u8, expiry_year: u16) -> Card {
        Card {
            number: Pan::parse(number).expect(number),
            cvv: Cvv::parse("123").expect("a code"),
            expiry_month,
            expiry_year,
            holder_name: None,
        }
    }

    fn usd(minor: i64) -> Amount {
        Amount::from_minor(minor, Currency::from_code("USD").expect("USD"))
    }

    fn charge(token: &str) -> Charge {
        Charge {
            payment_id: "pay_0199".to_owned(),
            merchant_id: "acme".to_owned(),
            account: None,
            amount: usd(100),
            token: GatewayToken::new(token),
            capture_method: CaptureMethod::Automatic,
            gateway_customer_id: None,
            off_session: false,
            description: None,
            claimed_at: Utc::now(),
        }
    }

    fn decline<T: std::fmt::Debug>(result: Result<T, GatewayError>) -> (String, String) {
        match result {
            Err(GatewayError::Declined(Decline { code, message, .. })) => (code, message),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn each_test_card_has_its_outcome() {
        let rows = [
            (
                "4000000000000002",
                "generic_decline",
                "The card was declined",
            ),
            (
                "4000000000009995",
                "insufficient_funds",
                "Insufficient funds",
            ),
            ("4000000000009987", "lost_card", "The card was declined"),
            ("4000000000009979", "stolen_card", "The card was declined"),
            ("4000000000000069", "expired_card", "The card has expired"),
            (
                "4000000000000127",
                "incorrect_cvc",
                "The card's security code is incorrect",
            ),
            (
                "4000000000000119",
                "processing_error",
                "An error occurred while processing the card",
            ),
        ];
        for (number, code, message) in rows {
            let token = gateway()
                .tokenize(&card(number, 12, 2099), None)
                .await
                .expect("a token");
            assert_eq!(token.as_str(), format!("pm_simulated_{code}"));
            let expected = (code.to_owned(), message.to_owned());
            assert_eq!(
                decline(gateway().charge(&charge(token.as_str())).await),
                expected
            );
            assert_eq!(
                decline(gateway().find_charge(&charge(token.as_str())).await),
                expected
            );
        }
    }

    #[tokio::test]
    async fn any_other_number_succeeds() {
        for number in ["4242424242424242", "5555555555554444", "378282246310005"] {
            let token = gateway()
                .tokenize(&card(number, 12, 2099), None)
                .await
                .expect("a token");
            assert_eq!(token.as_str(), "pm_simulated_success");
            let expected = Charged {
                transaction_id: "sim_ch_0199".to_owned(),
                card: None,
            };
            let charge = charge(token.as_str());
            assert_eq!(gateway().charge(&charge).await.expect("a charge"), expected);
            assert_eq!(
                gateway().find_charge(&charge).await.expect("an answer"),
                Some(expected)
            );
        }
    }

    #[tokio::test]
    async fn stripes_test_tokens_are_known() {
        let summary = gateway()
            .describe_token(&GatewayToken::new("pm_card_visa"))
            .expect("a summary");
        assert_eq!(
            (summary.brand.as_str(), summary.last4.as_str()),
            ("visa", "4242")
        );
        let charged = gateway()
            .charge(&charge("pm_card_visa"))
            .await
            .expect("a charge");
        assert_eq!(charged.card, Some(summary));
        let rows = [
            ("pm_card_chargeDeclined", "generic_decline"),
            (
                "pm_card_visa_chargeDeclinedInsufficientFunds",
                "insufficient_funds",
            ),
            ("pm_card_chargeDeclinedLostCard", "lost_card"),
            ("pm_card_chargeDeclinedStolenCard", "stolen_card"),
            ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
            ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc"),
            ("pm_card_chargeDeclinedProcessingError", "processing_error"),
        ];
        for (token, code) in rows {
            assert_eq!(
                decline(gateway().charge(&charge(token)).await).0,
                code,
                "{token}"
            );
        }
    }

    #[tokio::test]
    async fn an_unknown_token_is_declined() {
        for token in [
            "pm_card_unheard_of",
            "pm_simulated_",
            "pm_simulated_resource_missing",
            "success",
            "",
        ] {
            let expected = (
                "resource_missing".to_owned(),
                "No such payment method".to_owned(),
            );
            assert_eq!(
                decline(gateway().charge(&charge(token)).await),
                expected,
                "{token}"
            );
            assert_eq!(
                gateway().describe_token(&GatewayToken::new(token)),
                None,
                "{token}"
            );
        }
    }

    #[tokio::test]
    async fn ids_depend_on_the_asked_for_thing_alone() {
        let refund = |minor| GatewayRefund {
            refund_id: "ref_0199".to_owned(),
            payment_id: "pay_0199".to_owned(),
            merchant_id: "acme".to_owned(),
            account: None,
            transaction_id: "sim_ch_1".to_owned(),
            amount: usd(minor),
        };
        let expected = Refunded {
            gateway_refund_id: "sim_re_0199".to_owned(),
            progress: RefundProgress::Succeeded,
        };
        assert_eq!(
            gateway().refund(&refund(1)).await.expect("a refund"),
            expected
        );
        assert_eq!(
            gateway().find_refund(&refund(2)).await.expect("an answer"),
            Some(expected)
        );
        let dearer = Charge {
            amount: usd(7),
            ..charge("pm_card_mastercard")
        };
        assert_eq!(
            gateway()
                .charge(&dearer)
                .await
                .expect("a charge")
                .transaction_id,
            "sim_ch_0199"
        );
    }

    #[tokio::test]
    async fn captures_and_cancels_succeed() {
        let (payment_id, transaction_id) = ("pay_0199".to_owned(), "sim_ch_0199".to_owned());
        let cancel = Cancel {
            key: "can_1".to_owned(),
            account: None,
            payment_id: payment_id.clone(),
            transaction_id: transaction_id.clone(),
        };
        let capture = Capture {
            key: "cap_1".to_owned(),
            account: None,
            payment_id,
            transaction_id,
            amount: usd(100),
        };
        assert!(gateway().capture(&capture).await.is_ok());
        assert!(gateway().cancel(&cancel).await.is_ok());
        assert!(matches!(
            gateway().find_capture(&capture).await,
            Ok(Some(()))
        ));
        assert!(matches!(gateway().find_cancel(&cancel).await, Ok(Some(()))));
    }

    #[tokio::test]
    async fn a_charge_takes_the_latency_and_a_token_does_not() {
        let slow = SimulatedGateway::new(Duration::from_secs(3600));
        let card = card("4242424242424242", 12, 2099);
        assert!(slow.tokenize(&card, None).now_or_never().is_some());
        assert!(
            slow.charge(&charge("pm_card_visa"))
                .now_or_never()
                .is_none()
        );
        assert!(
            slow.find_charge(&charge("pm_card_visa"))
                .now_or_never()
                .is_none()
        );
    }
}
