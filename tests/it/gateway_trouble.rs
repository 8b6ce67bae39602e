//! A gateway that cannot be reached, does not answer, or answers late: the client's answer, and the rows that stay.

use std::sync::Arc;
use std::time::Duration;

use payonce::idempotency::{IdempotencyConfig, IdempotencyError, IdempotencyKey, Wait};
use payonce::payments::{NewPayment, PaymentError};
use payonce::recovery::Recovery;
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::Semaphore;

use crate::support::rows::end_leases;
use crate::support::scripted::{ScriptedGateway, Turn};
use crate::support::service::{Answer, Merchant, Service, Setup, payment};

/// Only the client retries; there is no recovery.
async fn service(db: &PgConnectOptions, gateway: &Arc<ScriptedGateway>) -> Service {
    let setup = Setup {
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    };
    Service::start_on(db, setup, gateway.clone(), Duration::from_millis(300)).await
}

async fn authorized(merchant: &Merchant) -> String {
    let mut body = payment("10.00");
    body["captureMethod"] = json!("MANUAL");
    let made = merchant.post("/v1/payments", body).key("made").send().await;
    assert_eq!(made.text("state"), "AUTHORIZED");
    made.text("id")
}

async fn on(merchant: &Merchant, id: &str, what: &str, key: &str, body: Value) -> Answer {
    let path = format!("/v1/payments/{id}/{what}");
    let request = merchant.post(&path, body).key(key);
    request.header("prefer", "wait=0").send().await
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_capture_cancel_or_refund_that_never_reached_it_leaves_the_payment_as_it_was(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = ScriptedGateway::new(&[]);
    let service = service(&db, &gateway).await;
    let acme = service.merchant("acme").await;
    let id = authorized(&acme).await;
    let path = format!("/v1/payments/{id}");
    for what in ["cancel", "capture", "refunds"] {
        let before = acme.get(&path).await.json();
        gateway.then(&[Turn::Nothing]);
        let refused = on(&acme, &id, what, what, json!({})).await;
        refused.assert_problem(503, "gateway-unavailable", "same-key");
        let mut after = acme.get(&path).await.json();
        after["updatedAt"] = before["updatedAt"].clone();
        assert_eq!(after, before, "{what}");
        assert_eq!(service.count("unsettled_keys").await, 0);
        assert_eq!(service.count("refunds").await, 0);
        if what != "cancel" {
            let done = on(&acme, &id, what, what, json!({})).await;
            assert!(done.status.is_success() && !done.replayed(), "{what}");
        }
    }
    assert_eq!(acme.get(&path).await.text("state"), "REFUNDED");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_unknown_outcome_is_processing_and_found_by_the_same_request(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = ScriptedGateway::new(&[]);
    let service = service(&db, &gateway).await;
    let acme = service.merchant("acme").await;
    for (key, turn) in [("unknown", Turn::Unknown), ("silent", Turn::Silence)] {
        gateway.then(&[turn]);
        let request = acme.pay("10").key(key).header("prefer", "wait=0");
        let pending = request.send().await;
        assert_eq!(pending.status, 202);
        assert!(!pending.replayed());
        assert_eq!(pending.header("retry-after"), Some("1"));
        assert_eq!(pending.text("state"), "PROCESSING");
        let path = format!("/v1/payments/{}", pending.text("id"));
        assert_eq!(pending.header("location"), Some(path.as_str()));
        assert_eq!(acme.get(&path).await.text("state"), "PROCESSING");
        let record = acme
            .get(&format!("/v1/idempotency-keys/create_payment/{key}"))
            .await
            .json();
        assert_eq!(
            (
                &record["state"],
                &record["responseStatus"],
                &record["completedAt"]
            ),
            (&json!("PROCESSING"), &Value::Null, &Value::Null)
        );
        // Its lease holds, so no other process charges.
        let busy = request.send().await;
        busy.assert_problem(409, "idempotency-key-in-use", "same-key");
        end_leases(&service.pool).await;
        let found = request.send().await;
        assert_eq!((found.status.as_u16(), found.replayed()), (201, false));
        assert_eq!(found.json()["id"], pending.json()["id"]);
        assert_eq!(found.text("state"), "SUCCESS");
        assert!(request.send().await.replayed());
        assert_eq!(acme.get(&path).await.bytes, found.bytes);
    }
    let asked = gateway.asked();
    assert_eq!(asked.len(), 4);
    assert_eq!(
        (&asked[0], &asked[2]),
        (&asked[1], &asked[3]),
        "the same names"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_later_attempt_that_reaches_nothing_keeps_the_claim(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    // The first attempt may have charged, which does not change because the second did not reach the gateway.
    let gateway = ScriptedGateway::new(&[Turn::Unknown, Turn::Nothing]);
    let service = service(&db, &gateway).await;
    let acme = service.merchant("acme").await;
    let first = acme.pay("10").key("k").send().await;
    end_leases(&service.pool).await;
    let second = acme.pay("10").key("k").send().await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (202, 202));
    end_leases(&service.pool).await;
    let third = acme.pay("10").key("k").send().await;
    assert_eq!(third.status, 201);
    assert_eq!(third.json()["id"], first.json()["id"]);
    assert_eq!(service.count("payments").await, 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_late_owner_is_not_answered_what_another_request_was(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = ScriptedGateway::new(&[Turn::Hold, Turn::Refuse]);
    // Only the test ends leases and calls.
    let for_ever = Duration::from_secs(3600);
    let node = async || {
        let mut setup = Setup {
            recovery_interval: for_ever,
            ..Setup::default()
        };
        setup.idempotency.lock_timeout = for_ever;
        Service::start_on(&db, setup, gateway.clone(), for_ever).await
    };
    let (late, other) = (node().await, node().await);
    let acme = late.merchant("acme").await;
    let request = acme.pay("10").key("k");
    let owner = tokio::spawn({
        let request = request.clone();
        async move { request.send().await }
    });
    while gateway.charges() == 0 {
        crate::support::pause().await;
    }
    end_leases(&late.pool).await;
    let refused = request.clone().at(&other.url).send().await;
    refused.assert_problem(422, "gateway-refused", "fix-request");
    let corrected = acme.at(&other).pay("11").key("k").send().await;
    assert_eq!(corrected.status, 201);
    gateway.release();
    let told = owner.await.expect("the late owner's client");
    assert_eq!((told.status.as_u16(), told.replayed()), (202, false));
    assert_ne!(told.text("id"), corrected.text("id"));
    // Its node has not cached that answer either.
    let reused = request.send().await;
    reused.assert_problem(422, "idempotency-key-reused", "no");
    let again = acme.pay("11").key("k").send().await;
    assert_eq!((again.replayed(), &again.bytes), (true, &corrected.bytes));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_capture_under_way_admits_no_other(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = ScriptedGateway::new(&[]);
    let service = service(&db, &gateway).await;
    let acme = service.merchant("acme").await;
    let id = authorized(&acme).await;
    gateway.then(&[Turn::Unknown]);
    let pending = on(&acme, &id, "capture", "c", json!({"amount": "4"})).await;
    assert_eq!(
        (pending.status.as_u16(), pending.text("state")),
        (202, "PROCESSING".into())
    );
    for what in ["capture", "cancel", "refunds"] {
        let refused = on(&acme, &id, what, what, json!({})).await;
        refused.assert_problem(409, "payment-busy", "same-key");
        assert_eq!(refused.text("charged"), "no");
    }
    end_leases(&service.pool).await;
    let captured = on(&acme, &id, "capture", "c", json!({"amount": "4.00"})).await;
    assert_eq!(captured.text("state"), "SUCCESS");
    assert_eq!(captured.text("amountCaptured"), "4.00");
    // Nothing of the refused requests was stored: the same request under the same key is decided again.
    let refund = on(&acme, &id, "refunds", "refunds", json!({})).await;
    assert_eq!(
        (refund.status.as_u16(), refund.text("amount")),
        (201, "4.00".into())
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refund_under_way_keeps_its_amount_from_others(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = ScriptedGateway::new(&[]);
    let service = service(&db, &gateway).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10.00").key("p").send().await.text("id");
    gateway.then(&[Turn::Unknown]);
    let pending = on(&acme, &id, "refunds", "r", json!({"amount": "7"})).await;
    assert_eq!(
        (pending.status.as_u16(), pending.text("state")),
        (202, "PROCESSING".into())
    );
    let shown = acme.get(&format!("/v1/payments/{id}")).await;
    assert_eq!(shown.text("amountRefunded"), "0.00");
    let more = on(&acme, &id, "refunds", "more", json!({"amount": "3.01"})).await;
    // Enough is left if the one under way fails.
    more.assert_problem(409, "payment-busy", "same-key");
    let most = on(&acme, &id, "refunds", "most", json!({"amount": "10.01"})).await;
    most.assert_problem(422, "amount-too-large", "new-key");
    assert_eq!(most.text("remaining"), "3.00");
    let rest = on(&acme, &id, "refunds", "rest", json!({})).await;
    assert_eq!(rest.text("amount"), "3.00");
    end_leases(&service.pool).await;
    let found = on(&acme, &id, "refunds", "r", json!({"amount": "7.0"})).await;
    assert_eq!(
        (found.status.as_u16(), &found.json()["id"]),
        (201, &pending.json()["id"])
    );
    let shown = acme.get(&format!("/v1/payments/{id}")).await;
    assert_eq!(
        (shown.text("state"), shown.text("amountRefunded")),
        ("REFUNDED".into(), "10.00".into())
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_the_gateway_declines_later_is_final_and_changes_no_amount(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = ScriptedGateway::new(&[]);
    let service = service(&db, &gateway).await;
    let acme = service.merchant("acme").await;
    let id = authorized(&acme).await;
    for what in ["capture", "cancel"] {
        gateway.then(&[Turn::Decline]);
        let declined = on(&acme, &id, what, what, json!({})).await;
        declined.assert_problem(402, "payment-declined", "new-key");
        assert_eq!(declined.text("declineCode"), "scripted");
        assert_eq!(
            on(&acme, &id, what, what, json!({})).await.bytes,
            declined.bytes
        );
        let shown = acme.get(&format!("/v1/payments/{id}")).await;
        assert_eq!(
            (shown.text("state"), shown.text("amountCaptured")),
            ("AUTHORIZED".into(), "0.00".into())
        );
    }
    assert_eq!(
        on(&acme, &id, "capture", "good", json!({})).await.status,
        200
    );
    gateway.then(&[Turn::Decline]);
    let declined = on(&acme, &id, "refunds", "r", json!({"amount": "9"})).await;
    declined.assert_problem(402, "payment-declined", "new-key");
    let listed = acme.get(&format!("/v1/payments/{id}/refunds")).await.json();
    assert_eq!(listed["data"][0]["state"], "FAILED");
    assert_eq!(
        on(&acme, &id, "refunds", "all", json!({}))
            .await
            .text("amount"),
        "10.00"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_card_that_is_declined_before_it_has_a_token_is_an_outcome(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = ScriptedGateway::new(&[]);
    let service = service(&db, &gateway).await;
    let acme = service.merchant("acme").await;
    gateway.decline_the_next_card();
    let declined = acme.pay("10").key("k").send().await;
    declined.assert_problem(402, "payment-declined", "new-key");
    assert_eq!(declined.text("declineCode"), "scripted");
    // The key has its answer, so the gateway is not asked again.
    let again = acme.pay("10").key("k").send().await;
    assert!(again.replayed());
    assert_eq!(again.bytes, declined.bytes);
    assert_eq!(gateway.asked(), Vec::<String>::new());
    assert_eq!(service.count("unsettled_keys").await, 0);
    let shown = acme.get("/v1/payments?idempotencyKey=k").await.json();
    assert_eq!(shown["data"][0]["state"], "FAILED");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_call_of_long_ago_is_asked_about_and_not_made_again(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = ScriptedGateway::new(&[]);
    let service = service(&db, &gateway).await;
    let acme = service.merchant("acme").await;
    for (key, hours, answer, status) in [
        ("young", 19, Turn::Answer, 201),
        ("made", 21, Turn::Answer, 201),
        ("never-made", 21, Turn::Never, 402),
        ("silent", 21, Turn::Unknown, 202),
    ] {
        gateway.then(&[Turn::Unknown, answer]);
        let request = acme.pay("10").key(key);
        assert_eq!(request.send().await.status, 202);
        let moved = "update idempotency_keys set created_at = now() - make_interval(hours => $1), lease_expires_at = now() - interval '1 second' where key = $2";
        sqlx::query(moved)
            .bind(hours)
            .bind(key)
            .execute(&service.pool)
            .await
            .expect("the row's time is moved");
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{key}");
        let asked = gateway.asked().pop().expect("a call");
        let question = asked.starts_with("find_charge ");
        assert_eq!(question, hours > 20, "{key}: {asked}");
    }
    assert_eq!(service.count("unsettled_keys").await, 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_full_queue_refuses_and_what_it_took_is_done(_: PgPoolOptions, db: PgConnectOptions) {
    // Whenever its lock is not free in time, the lane gives a group up, which frees places. Small groups free few.
    let setup = Setup {
        idempotency: IdempotencyConfig::default().with_group_size(8),
        ..Setup::default()
    };
    let service = Service::start_with(&db, setup).await;
    let acme = service.merchant("acme").await;
    // The lane of the claims waits for the table, so the queue fills.
    let mut holding = service.pool.begin().await.expect("a transaction");
    // However long the queue takes to fill here: the server would end a transaction that stands still.
    sqlx::raw_sql("set local idle_in_transaction_session_timeout = 0; lock table idempotency_keys")
        .execute(&mut *holding)
        .await
        .expect("a lock");
    let refused = Arc::new(Semaphore::new(0));
    let pay = |i: usize| {
        let (payments, refused) = (service.payments.clone(), Arc::clone(&refused));
        tokio::spawn(async move {
            let request = NewPayment::parse(payment("1").to_string().as_bytes()).expect("valid");
            let key = IdempotencyKey::new(format!("k{i}")).expect("a key");
            let made = payments
                .create("acme", key, request, Wait::Configured)
                .await;
            match &made {
                // Its group was given up.
                Ok(_) | Err(PaymentError::InProgress { .. }) => {}
                Err(PaymentError::Engine(IdempotencyError::Overloaded)) => refused.add_permits(1),
                Err(error) => panic!("{error:?}"),
            }
            made.is_ok()
        })
    };
    let (mut tasks, mut waiting) = (vec![pay(0)], Vec::new());
    while !a_lock_is_waited_for(&mut holding).await {
        crate::support::pause().await;
    }
    // More than the 4,096 places that the queue has for one merchant.
    tasks.extend((1..6_000).map(pay));
    drop(refused.acquire().await.expect("it is open"));
    let mut told = None;
    while told.is_none() {
        // It is refused at once, or gets a place that the lane has just freed, and waits in the queue like the others.
        let request = acme.pay("1").key(&format!("one-more-{}", waiting.len()));
        let mut sent = Box::pin(tokio::spawn(async move { request.send().await }));
        tokio::select! {
            answer = &mut sent => told = Some(answer.expect("no panic")),
            () = crate::support::pause() => waiting.push(sent),
        }
    }
    told.expect("an answer")
        .assert_problem(503, "overloaded", "same-key");
    holding.rollback().await.expect("an end");
    let mut made = 0;
    for task in tasks {
        made += i64::from(task.await.expect("no panic"));
    }
    for sent in waiting {
        made += i64::from(matches!(
            sent.await.expect("no panic").status.as_u16(),
            201 | 202
        ));
    }
    assert!(made > 0);
    assert_eq!(service.count("payments").await, made);
    // On a slow machine thousands of outcomes at once take longer than a request waits, and recovery stores the rest. A pass leaves alone
    // what this process is still at work on.
    let mut recovery = Recovery::new(service.payments.clone());
    for _ in 0..PASSES {
        end_leases(&service.pool).await;
        recovery.run_once().await.expect("a pass");
        if service.count("unsettled_keys").await == 0 {
            break;
        }
        crate::support::pause().await;
    }
    assert_eq!(service.count("unsettled_keys").await, 0);
    assert_eq!(acme.pay("1").key("afterwards").send().await.status, 201);
}

/// Many more passes of recovery than are needed.
const PASSES: usize = 200;

async fn a_lock_is_waited_for(connection: &mut PgConnection) -> bool {
    sqlx::query_scalar(
        "select exists (select 1 from pg_locks where not granted and relation = 'idempotency_keys'::regclass)",
    )
    .fetch_one(connection)
    .await
    .expect("the locks")
}
