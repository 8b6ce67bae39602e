use uuid::Uuid;

use super::*;
use crate::cards::{Cvv, Pan};
use crate::money::{Amount, Currency};

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

#[test]
fn a_card_is_good_until_its_month_is_over_everywhere() {
    let february = card("4242424242424242", 2, 2027);
    let rows = [
        ("2027-02-28T23:59:59Z", Outcome::Success),
        ("2027-03-01T11:59:59Z", Outcome::Success),
        ("2027-03-01T12:00:00Z", Outcome::ExpiredCard),
    ];
    for (now, outcome) in rows {
        let date = last_date(now.parse().expect(now));
        assert_eq!(Outcome::of_card(&february, date), outcome, "{now}");
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
async fn an_unknown_token_is_the_requests_fault() {
    for token in [
        "pm_card_unheard_of",
        "pm_simulated_",
        "pm_simulated_resource_missing",
        "success",
        "",
    ] {
        match gateway().charge(&charge(token)).await {
            Err(GatewayError::Refused(refusal)) => {
                assert_eq!(refusal.code, "resource_missing");
                assert_eq!(refusal.param.as_deref(), Some("paymentMethod.token"));
            }
            other => panic!("{token}: {other:?}"),
        }
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
        transaction_id: "sim_ch_0199".to_owned(),
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

/// The call before this one did not reach the gateway.
fn word<T>(result: &Result<T, GatewayError>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(GatewayError::Declined(_)) => "declined",
        Err(GatewayError::Refused(_)) => "refused",
        Err(GatewayError::Misconfigured { .. }) => "misconfigured",
        Err(GatewayError::NothingHappened { .. }) => "nothing happened",
        Err(GatewayError::HoldLapsed { .. }) => "hold lapsed",
        Err(GatewayError::Unknown { .. }) => "unknown",
    }
}

/// A charge of a payment that was claimed just now, or long ago.
fn scripted(token: &str, is_new: bool) -> Charge {
    let id = if is_new { Uuid::now_v7() } else { Uuid::nil() };
    Charge {
        payment_id: format!("pay_{id}"),
        ..charge(token)
    }
}

#[tokio::test]
async fn tokens_behave_as_gateways_sometimes_do() {
    let rows = [
        ("pm_sim_unknown", "unknown", "done"),
        ("pm_sim_unknown_declined", "unknown", "declined"),
        ("pm_sim_misconfigured", "misconfigured", "misconfigured"),
        ("pm_sim_refused", "refused", "refused"),
        ("pm_sim_x", "refused", "refused"),
    ];
    for (token, at_first, later) in rows {
        let gateway = gateway();
        let first = gateway.charge(&scripted(token, true)).await;
        let second = gateway.charge(&scripted(token, false)).await;
        assert_eq!((word(&first), word(&second)), (at_first, later), "{token}");
    }
    let found = gateway()
        .find_charge(&scripted("pm_sim_unknown", true))
        .await;
    assert_eq!(word(&found), "unknown");
    let found = gateway()
        .find_charge(&scripted("pm_sim_refused", false))
        .await;
    assert!(matches!(found, Ok(None)), "{found:?}");
}

#[tokio::test]
async fn a_gateway_is_unavailable_twice_whatever_the_payments_id() {
    let gateway = gateway();
    let words = async || {
        let charge = scripted("pm_sim_unavailable", true);
        word(&gateway.charge(&charge).await)
    };
    for _ in 0..2 {
        let three = [words().await, words().await, words().await];
        assert_eq!(three, ["nothing happened", "nothing happened", "done"]);
    }
}

#[tokio::test]
async fn a_slow_charge_takes_its_time() {
    let gateway = gateway();
    let slow = scripted("pm_sim_slow", true);
    assert!(gateway.charge(&slow).now_or_never().is_none());
    // Only the charge does.
    let found = gateway.find_charge(&slow).now_or_never();
    assert!(matches!(found, Some(Ok(Some(_)))));
}

#[tokio::test]
async fn some_refunds_are_on_their_way_and_then_fail() {
    let gateway = gateway();
    let token = gateway
        .tokenize(&card("4000000000005126", 12, 2099), None)
        .await
        .expect("a token");
    let charge = charge(token.as_str());
    let charged = gateway.charge(&charge).await.expect("a charge");
    let refund = |id: Uuid| GatewayRefund {
        refund_id: format!("ref_{id}"),
        payment_id: charge.payment_id.clone(),
        merchant_id: "acme".to_owned(),
        account: None,
        transaction_id: charged.transaction_id.clone(),
        amount: usd(100),
    };
    let new = refund(Uuid::now_v7());
    for result in [
        gateway.refund(&new).await.map(Some),
        gateway.find_refund(&new).await,
    ] {
        let made = result.expect("an answer").expect("a refund");
        assert_eq!(made.progress, RefundProgress::Pending);
    }
    let old = refund(Uuid::nil());
    assert_eq!(decline(gateway.find_refund(&old).await).0, "refund_failed");
}

#[tokio::test]
async fn what_contradicts_the_books_is_refused() {
    let gateway = gateway();
    let held = Charge {
        capture_method: CaptureMethod::Manual,
        ..charge("pm_card_visa")
    };
    let charged = gateway.charge(&held).await.expect("a charge");
    let capture = |minor, transaction_id: &str| Capture {
        key: "cap_1".to_owned(),
        account: None,
        payment_id: held.payment_id.clone(),
        transaction_id: transaction_id.to_owned(),
        amount: usd(minor),
    };
    let id = charged.transaction_id.as_str();
    let words = [
        word(&gateway.capture(&capture(100, "sim_ch_other")).await),
        word(&gateway.capture(&capture(101, id)).await),
        word(&gateway.capture(&capture(60, id)).await),
        word(&gateway.capture(&capture(61, id)).await),
    ];
    assert_eq!(words, ["misconfigured", "refused", "done", "declined"]);
    // A clone is the same gateway.
    let taken = gateway.clone().find_capture(&capture(60, id)).await;
    assert!(matches!(taken, Ok(Some(()))));
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
