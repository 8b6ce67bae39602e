//! The guarantees over HTTP: any request may be repeated, and is charged once.

use std::time::Duration;

use futures_util::future::join_all;
use payonce::idempotency::{FingerprintSecrets, IdempotencyConfig};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::Instant;

use crate::support::scripted::Turn;
use crate::support::service::{Service, Setup, clean_up, payment};

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_retry_gets_the_first_answer_byte_for_byte(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let first = acme.pay("99.99").key("k1").send().await;
    assert_eq!(first.status, 201);
    assert!(!first.replayed());
    assert_eq!(first.header("idempotency-key"), Some("k1"));
    for _ in 0..2 {
        let again = acme.pay("99.99").key("k1").send().await;
        assert!(again.replayed());
        assert_eq!((again.status, &again.bytes), (first.status, &first.bytes));
        for header in ["location", "content-type", "idempotency-key-expires"] {
            assert_eq!(again.header(header), first.header(header), "{header}");
        }
    }
    // Another node has nothing in memory, so the database answers.
    let other = Service::start(&db).await;
    let elsewhere = acme.at(&other).pay("99.99").key("k1").send().await;
    assert!(elsewhere.replayed());
    assert_eq!(elsewhere.bytes, first.bytes);
    assert_eq!((service.gateway.charges(), other.gateway.charges()), (1, 0));
    assert_eq!(
        (
            service.count("payments").await,
            service.count("unsettled_keys").await
        ),
        (1, 0)
    );
    let record = acme
        .get("/v1/idempotency-keys/create_payment/k1")
        .await
        .json();
    assert_eq!(
        (&record["attempts"], &record["state"]),
        (&json!(1), &json!("COMPLETED"))
    );
    assert_eq!(record["resourceId"], first.json()["id"]);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn another_amount_under_the_same_key_is_refused(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let first = acme.pay("50").key("k1").send().await;
    for node in [&service, &Service::start(&db).await] {
        let changed = acme.at(node).pay("500").key("k1").send().await;
        changed.assert_problem(422, "idempotency-key-reused", "no");
        assert_eq!(changed.json()["changed"], json!(["amount"]));
        let (expected, actual) = (changed.text("expectedHash"), changed.text("actualHash"));
        assert!(expected.len() == 16 && actual.len() == 16 && expected != actual);
    }
    assert_eq!(acme.pay("50").key("k1").send().await.bytes, first.bytes);
    assert_eq!(service.count("payments").await, 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_mismatch_is_told_while_the_first_is_still_at_work(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    service.gateway.then(&[Turn::Hold]);
    let other = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let first = tokio::spawn({
        let request = acme.pay("50").key("k1");
        async move { request.send().await }
    });
    service.until_unsettled(1).await;
    for node in [&service, &other] {
        let changed = acme.at(node).pay("51").key("k1").send().await;
        changed.assert_problem(422, "idempotency-key-reused", "no");
        let busy = acme
            .at(node)
            .pay("50")
            .key("k1")
            .header("prefer", "wait=0")
            .send()
            .await;
        busy.assert_problem(409, "idempotency-key-in-use", "same-key");
    }
    service.gateway.release();
    assert_eq!(first.await.expect("no panic").status, 201);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn fifty_duplicates_on_two_nodes_are_one_payment(_: PgPoolOptions, db: PgConnectOptions) {
    let slow = || Setup {
        latency: Duration::from_millis(100),
        ..Setup::default()
    };
    let one = Service::start_with(&db, slow()).await;
    let two = Service::start_with(&db, slow()).await;
    let acme = one.merchant("acme").await;
    let nodes = [&one, &two];
    let sent = (0..50).map(|i| {
        let request = acme.at(nodes[i % 2]).pay("99.99").key("storm");
        async move { request.send().await }
    });
    let answers = join_all(sent).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 && answer.bytes == answers[0].bytes)
    );
    assert_eq!(
        answers.iter().filter(|answer| !answer.replayed()).count(),
        1
    );
    assert_eq!(one.gateway.charges() + two.gateway.charges(), 1);
    assert_eq!(
        (
            one.count("payments").await,
            one.count("idempotency_keys").await
        ),
        (1, 1)
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_decline_is_final_and_replayed(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let request = acme.pay("99.99").card("4000000000009995").key("poor");
    let first = request.send().await;
    first.assert_problem(402, "payment-declined", "new-key");
    assert_eq!(first.text("detail"), "Insufficient funds");
    assert_eq!(first.text("declineCode"), "insufficient_funds");
    let again = request.send().await;
    assert!(again.replayed());
    assert_eq!(again.bytes, first.bytes);
    let record = acme
        .get("/v1/idempotency-keys/create_payment/poor")
        .await
        .json();
    assert_eq!(
        (&record["attempts"], &record["state"]),
        (&json!(1), &json!("FAILED"))
    );
    let payment = acme
        .get(&format!("/v1/payments/{}", first.text("paymentId")))
        .await
        .json();
    assert_eq!(payment["state"], "FAILED");
    assert_eq!(payment["failure"]["code"], "insufficient_funds");
    assert_eq!(service.gateway.charges(), 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn one_key_of_two_merchants_and_two_operations_is_three_keys(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let (acme, globex) = (
        service.merchant("acme").await,
        service.merchant("globex").await,
    );
    let ours = acme.pay("10").key("same").send().await;
    let theirs = globex.pay("20").key("same").send().await;
    let path = format!("/v1/payments/{}/refunds", ours.text("id"));
    let refund = acme
        .post(&path, json!({"amount": "3"}))
        .key("same")
        .send()
        .await;
    assert!(
        [&ours, &theirs, &refund]
            .iter()
            .all(|answer| answer.status == 201)
    );
    assert_eq!(service.count("idempotency_keys").await, 3);
    let stolen = globex
        .get(&format!("/v1/payments/{}", ours.text("id")))
        .await;
    stolen.assert_problem(404, "not-found", "fix-request");
    let foreign = globex.post(&path, json!({})).key("other").send().await;
    foreign.assert_problem(404, "not-found", "fix-request");
    assert_eq!(
        service.count("idempotency_keys").await,
        3,
        "a refusal leaves no row"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_key_past_its_time_never_pays_again(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let paid = acme.pay("10").key("old").send().await;
    let refunds = format!("/v1/payments/{}/refunds", paid.text("id"));
    let refund = acme
        .post(&refunds, json!({"amount": "3"}))
        .key("old-refund")
        .send()
        .await;
    sqlx::query("update idempotency_keys set expires_at = now() - interval '1 second'")
        .execute(&service.pool)
        .await
        .expect("the rows' time is moved");
    // A node that has nothing in memory; before the clean-up, and after it.
    let node = Service::start(&db).await;
    for cleaned in [false, true] {
        if cleaned {
            let report = clean_up(node.payments.engine().pool()).await;
            assert_eq!((report.deleted, report.remaining), (2, 0));
            assert_eq!(node.count("idempotency_keys").await, 0);
        }
        let late = acme.at(&node).pay("10").key("old").send().await;
        late.assert_problem(409, "idempotency-key-expired", "no");
        assert_eq!(late.json()["resourceId"], paid.json()["id"]);
        assert_eq!(late.json()["createdAt"], paid.json()["createdAt"]);
        let late = acme
            .at(&node)
            .post(&refunds, json!({"amount": "3"}))
            .key("old-refund");
        let late = late.send().await;
        late.assert_problem(409, "idempotency-key-expired", "no");
        assert_eq!(late.json()["resourceId"], refund.json()["id"]);
    }
    assert_eq!(
        (node.count("payments").await, node.count("refunds").await),
        (1, 1)
    );
    assert_eq!(node.gateway.charges(), 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_answer_in_memory_ends_with_its_key(_: PgPoolOptions, db: PgConnectOptions) {
    let short = IdempotencyConfig::default().with_ttl(Duration::from_millis(300));
    let service = Service::start_with(
        &db,
        Setup {
            idempotency: short,
            ..Setup::default()
        },
    )
    .await;
    let acme = service.merchant("acme").await;
    let paid = acme.pay("10").key("k").send().await;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let again = acme.pay("10").key("k").send().await;
        if again.status == 409 {
            again.assert_problem(409, "idempotency-key-expired", "no");
            assert_eq!(again.json()["resourceId"], paid.json()["id"]);
            return;
        }
        assert_eq!(again.bytes, paid.bytes);
        assert!(Instant::now() < deadline, "still replayed past its time");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn another_spelling_is_the_same_request_and_any_change_is_not(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let mut full = payment("100");
    full["description"] = json!("tea");
    full["metadata"] = json!({"order": "7"});
    let send = async |body: String| acme.pay("1").key("k").body(body).send().await;
    let first = send(full.to_string()).await;
    assert_eq!(first.status, 201);

    let card = r#"{"details":{"expiryYear":2031,"expiryMonth":12,"cardHolderName":"Test User","cvv":"999","cardNumber":"4242 4242 4242 4242"},"type":"CARD"}"#;
    let customer = r#"{"name":"A","email":"a@example.com","id":"c-1"}"#;
    for amount in ["100", "100.00", "\"100\"", "\"100.0\"", "1e2"] {
        let spelled = format!(
            r#" {{ "metadata":{{"order":"7"}}, "description":"tea","captureMethod":"AUTOMATIC","customer":{customer},
                "paymentMethod":{card},"currency":"USD","amount":{amount} }} "#
        );
        let again = send(spelled).await;
        assert_eq!(again.bytes, first.bytes, "{amount}");
        assert!(again.replayed());
    }

    let details = "/paymentMethod/details";
    for (pointer, value, path) in [
        ("/amount", json!("100.01"), "amount"),
        ("/currency", json!("EUR"), "currency"),
        ("/captureMethod", json!("MANUAL"), "captureMethod"),
        ("/description", json!("coffee"), "description"),
        ("/description", Value::Null, "description"),
        ("/metadata/order", json!("8"), "metadata.order"),
        ("/metadata/new", json!("x"), "metadata.new"),
        ("/customer/id", json!("c-2"), "customer.id"),
        ("/customer/email", json!("b@example.com"), "customer.email"),
        ("/customer/name", json!("B"), "customer.name"),
        (
            &format!("{details}/cardNumber"),
            json!("5555555555554444"),
            "paymentMethod.details.cardNumber",
        ),
        (
            &format!("{details}/expiryMonth"),
            json!(11),
            "paymentMethod.details.expiryMonth",
        ),
        (
            &format!("{details}/expiryYear"),
            json!(2032),
            "paymentMethod.details.expiryYear",
        ),
        (
            &format!("{details}/cardHolderName"),
            json!("Other"),
            "paymentMethod.details.cardHolderName",
        ),
    ] {
        let mut changed = full.clone();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        changed.pointer_mut(parent).expect("the parent")[name] = value;
        let refused = send(changed.to_string()).await;
        refused.assert_problem(422, "idempotency-key-reused", "no");
        assert_eq!(refused.json()["changed"], json!([path]), "{pointer}");
    }
    assert_eq!(service.gateway.charges(), 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_rotated_secret_still_knows_what_the_old_one_signed(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let old = Service::start(&db).await;
    let acme = old.merchant("acme").await;
    let paid = acme.pay("10").key("k").send().await;
    let secrets = FingerprintSecrets::new("a new secret").accepting("a secret of the tests");
    let rotated = Service::start_with(
        &db,
        Setup {
            secrets,
            ..Setup::default()
        },
    )
    .await;
    assert_eq!(
        acme.at(&rotated).pay("10").key("k").send().await.bytes,
        paid.bytes
    );
    let changed = acme.at(&rotated).pay("11").key("k").send().await;
    changed.assert_problem(422, "idempotency-key-reused", "no");
    assert_eq!(changed.json()["changed"], json!(["amount"]));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_client_that_hangs_up_changes_nothing(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    service.gateway.then(&[Turn::Hold]);
    let acme = service.merchant("acme").await;
    let request = acme.pay("10").key("k");
    let hanging = tokio::spawn({
        let request = request.clone();
        async move { request.try_send().await.is_ok() }
    });
    service.until_unsettled(1).await;
    // Dropping the client's future closes its socket.
    hanging.abort();
    assert!(hanging.await.is_err(), "it got no answer");
    service.gateway.release();
    service.until_unsettled(0).await;
    let again = request.send().await;
    assert_eq!(again.status, 201);
    assert!(again.replayed());
    assert_eq!(service.gateway.charges(), 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_stored_answer_that_cannot_be_read_is_nobody_elses_trouble(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    assert_eq!(acme.pay("10").key("broken").send().await.status, 201);
    sqlx::query("update idempotency_keys set response_headers = '7'")
        .execute(&service.pool)
        .await
        .expect("broken");
    // Another node has nothing in memory. All of these come at once, and so into one group with it.
    let acme = acme.at(&Service::start(&db).await);
    let answers = join_all((0..40).map(|n| {
        let key = if n == 20 {
            "broken".to_owned()
        } else {
            format!("k-{n}")
        };
        let payment = acme.pay("10").key(&key);
        async move { (key, payment.send().await) }
    }));
    for (key, answer) in answers.await {
        match key.as_str() {
            "broken" => answer.assert_problem(500, "internal-error", "same-key"),
            _ => {
                assert_eq!(answer.status, 201, "{key}");
                assert!(!answer.replayed(), "{key}");
            }
        }
    }
}
