//! Each fault: the client's result, the ledger, and the answer to a retry.

use std::time::{Duration, Instant};

use super::super::{Endpoint, Fault, TestGateway};
use super::{Answer, Caller, charge_form, error};

/// Charges `pay_1` under a fault, then again. What the client saw (`None`: no answer), whether that had charged, and the
/// answer to the retry.
async fn charge_through(fault: Fault) -> (Option<Answer>, bool, Answer) {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.script([(Endpoint::Charge, fault)]);
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    let seen = match caller
        .post("/v1/payment_intents", "pay_1", &form)
        .send()
        .await
    {
        Ok(response) => Some(Answer::of(response).await),
        Err(error) => {
            assert!(
                !error.is_connect() && !error.is_timeout(),
                "closed after the request was read: {error:?}"
            );
            None
        }
    };
    let charged = gateway.ledger().charges_for("pay_1").len() == 1;
    let retry = caller.charge("pay_1", "pm_card_visa", "automatic").await;
    let ledger = gateway.ledger();
    assert_eq!(
        (gateway.unused_faults(), ledger.faults.get(fault.name())),
        (0, Some(&1))
    );
    assert_eq!(
        ledger.calls(Endpoint::Charge).received,
        2,
        "the client did not retry by itself"
    );
    ledger.only_charge("pay_1");
    (seen, charged, retry)
}

#[tokio::test]
async fn an_error_before_does_nothing() {
    let (seen, charged, retry) = charge_through(Fault::ErrorBefore).await;
    assert_eq!(
        seen.expect("an answer").error(),
        error(500, "api_error", "")
    );
    assert_eq!((charged, retry.status, retry.replayed), (false, 200, false));
}

#[tokio::test]
async fn an_error_after_hides_the_answer_once() {
    let (seen, charged, retry) = charge_through(Fault::ErrorAfter).await;
    assert_eq!(seen.expect("an answer").status, 500);
    assert_eq!((charged, retry.status, retry.replayed), (true, 200, true));
}

#[tokio::test]
async fn a_stored_error_hides_the_answer_for_good() {
    let (seen, charged, retry) = charge_through(Fault::StoredError).await;
    assert_eq!(seen.expect("an answer").status, 500);
    assert_eq!((charged, retry.status, retry.replayed), (true, 500, true));
}

#[tokio::test]
async fn a_drop_before_does_nothing() {
    let (seen, charged, retry) = charge_through(Fault::DropBefore).await;
    assert!(seen.is_none());
    assert_eq!((charged, retry.status, retry.replayed), (false, 200, false));
}

#[tokio::test]
async fn a_drop_after_has_charged() {
    let (seen, charged, retry) = charge_through(Fault::DropAfter).await;
    assert!(seen.is_none());
    assert_eq!((charged, retry.status, retry.replayed), (true, 200, true));
}

#[tokio::test]
async fn a_slow_answer_is_the_true_one() {
    let begun = Instant::now();
    let (seen, charged, retry) = charge_through(Fault::Slow(Duration::from_millis(50))).await;
    assert!(begun.elapsed() >= Duration::from_millis(50));
    let seen = seen.expect("an answer");
    assert_eq!((seen.status, charged, retry.body), (200, true, seen.body));
}

#[tokio::test]
async fn a_throttled_request_does_nothing() {
    let (seen, charged, retry) = charge_through(Fault::Throttle).await;
    assert_eq!(
        seen.expect("an answer").error(),
        error(429, "invalid_request_error", "rate_limit")
    );
    assert_eq!((charged, retry.status, retry.replayed), (false, 200, false));
}

#[tokio::test]
async fn a_throttled_request_is_told_when_to_come_back() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.script([(Endpoint::Refund, Fault::Throttle)]);
    let response = caller
        .post("/v1/refunds", "ref_1", &[])
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.headers()["Retry-After"], "1");
}

#[tokio::test]
async fn a_drop_on_a_kept_connection_is_seen_as_one() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.script([
        (Endpoint::Charge, Fault::None),
        (Endpoint::Charge, Fault::DropAfter),
    ]);
    caller.paid("pay_1").await;
    let form = charge_form("pay_2", "pm_card_visa", "automatic");
    assert!(
        caller
            .post("/v1/payment_intents", "pay_2", &form)
            .send()
            .await
            .is_err()
    );
    gateway.ledger().only_charge("pay_2");
    assert_eq!(gateway.calls(Endpoint::Charge).received, 2);
}

#[tokio::test]
async fn a_closed_gateway_refuses_and_keeps_its_port() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let url = gateway.url();
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    for _ in 0..20 {
        gateway.refuse();
        // A client of its own: a pooled connection may be found closed only on use, and that is no refusal.
        let refused = Caller::of(&gateway)
            .post("/v1/payment_intents", "pay_1", &form)
            .send()
            .await;
        assert!(refused.expect_err("refused").is_connect());
        gateway.accept();
        assert_eq!(gateway.url(), url);
        assert_eq!(
            Caller::of(&gateway)
                .charge("pay_1", "pm_card_visa", "automatic")
                .await
                .status,
            200
        );
    }
    assert_eq!(
        caller
            .charge("pay_1", "pm_card_visa", "automatic")
            .await
            .status,
        200
    );
    assert_eq!(gateway.calls(Endpoint::Charge).executed, 1);
}

#[tokio::test]
async fn a_request_at_work_is_answered_after_the_port_is_closed() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    let at_work = tokio::spawn(caller.post("/v1/payment_intents", "pay_1", &form).send());
    gateway.until_executed(Endpoint::Charge, 1).await;
    gateway.refuse();
    gateway.release();
    assert_eq!(
        at_work
            .await
            .expect("no panic")
            .expect("an answer")
            .status(),
        200
    );
    let refused = caller
        .post("/v1/payment_intents", "pay_1", &form)
        .send()
        .await;
    assert!(
        refused.expect_err("refused").is_connect(),
        "the answer said Connection: close"
    );
}

#[tokio::test]
async fn a_scripted_refusal_drops_its_request_and_refuses_the_next() {
    let gateway = TestGateway::start();
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    let send = async || {
        Caller::of(&gateway)
            .post("/v1/payment_intents", "pay_1", &form)
            .send()
            .await
    };
    gateway.script([(Endpoint::Charge, Fault::Refuse(Duration::from_secs(3600)))]);
    assert!(!send().await.expect_err("dropped").is_connect());
    assert!(send().await.expect_err("refused").is_connect());
    assert!(gateway.ledger().charges.is_empty());
    gateway.accept();
    assert_eq!(send().await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_scripted_refusal_ends_by_itself() {
    let gateway = TestGateway::start();
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    let send = async || {
        Caller::of(&gateway)
            .post("/v1/payment_intents", "pay_1", &form)
            .send()
            .await
    };
    gateway.script([(Endpoint::Charge, Fault::Refuse(Duration::from_millis(20)))]);
    assert!(send().await.is_err());
    let begun = Instant::now();
    while send().await.is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it never opened again"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gateway.ledger().only_charge("pay_1");
}

#[tokio::test]
async fn a_refusal_by_the_test_is_not_ended_by_a_scripted_one() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.script([(Endpoint::Charge, Fault::Refuse(Duration::from_secs(3600)))]);
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    assert!(
        caller
            .post("/v1/payment_intents", "pay_1", &form)
            .send()
            .await
            .is_err()
    );
    gateway.refuse();
    gateway.end_scripted_refusal();
    let refused = Caller::of(&gateway)
        .post("/v1/payment_intents", "pay_1", &form)
        .send()
        .await;
    assert!(refused.expect_err("refused").is_connect());
}

#[tokio::test]
async fn the_latency_comes_before_the_effect() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.latency(Duration::from_secs(3600));
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    let _client = tokio::spawn(caller.post("/v1/payment_intents", "pay_1", &form).send());
    gateway.until_received(Endpoint::Charge, 1).await;
    assert!(gateway.ledger().charges.is_empty());
    let second = caller.charge("pay_1", "pm_card_visa", "automatic").await;
    assert_eq!(
        second.error(),
        error(409, "idempotency_error", "idempotency_key_in_use")
    );
}

#[tokio::test]
async fn work_goes_on_when_the_client_hangs_up() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.latency(Duration::from_millis(100));
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    let client = tokio::spawn(caller.post("/v1/payment_intents", "pay_1", &form).send());
    gateway.until_received(Endpoint::Charge, 1).await;
    client.abort();
    gateway.until_executed(Endpoint::Charge, 1).await;
    gateway.ledger().only_charge("pay_1");
}

#[tokio::test]
async fn each_endpoint_has_a_script_of_its_own() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.script([
        (Endpoint::Search, Fault::ErrorBefore),
        (Endpoint::Retrieve, Fault::ErrorAfter),
    ]);
    let intent = caller.paid("pay_1").await;
    let path = format!("/v1/payment_intents/{intent}");
    assert_eq!(caller.get(&path, &[]).await.status, 500);
    assert_eq!(caller.get(&path, &[]).await.status, 200);
    gateway.calm();
    assert_eq!(
        caller
            .get(
                "/v1/payment_intents/search",
                &[("query", "metadata['a']:'b'")]
            )
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn clients_that_retry_through_chaos_are_charged_once() {
    let gateway = TestGateway::start();
    let kinds = [
        Fault::ErrorBefore,
        Fault::ErrorAfter,
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::Slow(Duration::from_millis(1)),
        Fault::Throttle,
        Fault::Refuse(Duration::from_millis(1)),
    ];
    gateway.chaos_of(7, 70, &kinds);
    let clients = (0..8).map(async |client| {
        let caller = Caller::of(&gateway);
        for payment in 0..20 {
            let payment_id = format!("pay_{client}_{payment}");
            let form = charge_form(&payment_id, "pm_card_visa", "automatic");
            loop {
                match caller
                    .post("/v1/payment_intents", &payment_id, &form)
                    .send()
                    .await
                {
                    Ok(response) if response.status() == 200 => break,
                    _ => crate::support::pause().await,
                }
            }
        }
    });
    futures_util::future::join_all(clients).await;
    gateway.calm();
    let ledger = gateway.ledger();
    assert_eq!(
        (
            ledger.charges.len(),
            ledger.calls(Endpoint::Charge).executed
        ),
        (160, 160)
    );
    assert_eq!(
        ledger.faults.len(),
        kinds.len(),
        "each kind came: {:?}",
        ledger.faults
    );
    ledger.assert_nothing_twice();
}

#[tokio::test]
async fn the_same_seed_brings_the_same_faults() {
    let faults = async |seed| {
        let gateway = TestGateway::start();
        let caller = Caller::of(&gateway);
        gateway.chaos_of(seed, 50, &[Fault::ErrorBefore, Fault::Throttle]);
        let mut statuses = Vec::new();
        for _ in 0..50 {
            statuses.push(caller.get("/v1/refunds", &[]).await.status);
        }
        statuses
    };
    assert_eq!(faults(1).await, faults(1).await);
    assert_ne!(faults(1).await, faults(2).await);
}

#[tokio::test]
async fn chaos_of_no_percent_spares_all_requests_and_of_a_hundred_none() {
    let gateway = TestGateway::start();
    // Asked directly: over HTTP it would take too many requests to find a bound that is off by one percent.
    let faulty = |percent| {
        gateway.chaos(1, percent);
        let mut state = gateway.shared.state();
        (0..10_000)
            .filter(|_| state.faults.next(Endpoint::Charge) != Fault::None)
            .count()
    };
    assert_eq!((faulty(0), faulty(100)), (0, 10_000));
    assert!((4_800..5_200).contains(&faulty(50)));
}

#[tokio::test]
async fn a_stopped_gateway_is_gone() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    drop(gateway);
    let gone = caller
        .post("/v1/payment_intents", "pay_1", &[])
        .send()
        .await;
    assert!(gone.expect_err("refused").is_connect());
}
