//! A robot that only follows `retry`: under every fault, an intent is charged at most once by the gateway's own books.

use std::collections::HashMap;

use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::support::flaky::{Flaky, Way};
use crate::support::gateway::{ChargeStatus, Endpoint, Fault};

/// Far more than any fault lasts.
const MAX_TRIES: usize = 300;

/// The robot waits a hundredth of the time in `Retry-After`, because a longer wait tests nothing more.
const SECOND: Duration = Duration::from_millis(10);

/// One intended operation, and the requests that the robot may send for it.
struct Intent {
    path: String,
    /// It sends the first, and a further one if it is told to correct the request or to make a new one.
    bodies: Vec<Value>,
    name: String,
}

impl Intent {
    fn new(name: &str, path: &str, bodies: &[Value]) -> Self {
        Self {
            path: path.to_owned(),
            bodies: bodies.to_vec(),
            name: name.to_owned(),
        }
    }

    /// A payment. Its description identifies the payments that were made for it.
    fn payment(name: &str, tokens: &[&str]) -> Self {
        let body = |token: &&str| {
            let mut body = by_token("10", token);
            body["description"] = json!(name);
            body
        };
        let bodies: Vec<_> = tokens.iter().map(body).collect();
        Self::new(name, "/v1/payments", &bodies)
    }
}

/// How the robot's task ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    /// `retry` was `no`, or there was no correction left.
    Stopped(String),
}

struct Robot<'a> {
    merchant: Merchant,
    service: &'a Service,
}

impl Robot<'_> {
    /// Follows `retry` until the operation is done, or until it must stop.
    async fn run(&self, intent: &Intent) -> End {
        let (mut body, mut key) = (0, 0);
        for _ in 0..MAX_TRIES {
            let name = format!("{}-{key}", intent.name);
            let request = self
                .merchant
                .post(&intent.path, intent.bodies[body].clone())
                .key(&name)
                .header("prefer", "wait=0");
            let Ok(answer) = request.try_send().await else {
                // No answer: the same request with the same key.
                continue;
            };
            let retry = match answer.status.as_u16() {
                200 | 201 => return End::Done,
                202 => "same-key".to_owned(),
                // A proxy's own answer has no `retry`; it may be asked again.
                _ if answer.header("content-type") != Some("application/problem+json") => {
                    "same-key".to_owned()
                }
                _ => answer.text("retry"),
            };
            match retry.as_str() {
                "same-key" => self.wait_for(&answer).await,
                "fix-request" if body + 1 < intent.bodies.len() => body += 1,
                "new-key" if body + 1 < intent.bodies.len() => (body, key) = (body + 1, key + 1),
                "fix-request" | "new-key" | "no" => return End::Stopped(answer.text("code")),
                other => panic!("retry {other:?}: {answer:?}"),
            }
        }
        panic!("{} does not end", intent.name);
    }

    /// In the meantime leases end, as they would during a wait.
    async fn wait_for(&self, answer: &Answer) {
        let seconds = answer.header("retry-after").map(str::parse::<u32>);
        let seconds = seconds.transpose().expect("seconds").unwrap_or(1);
        assert!(seconds <= 5, "{answer:?}");
        tokio::time::sleep(SECOND * seconds).await;
        end_leases(&self.service.pool).await;
    }
}

/// The gateway's charges and holds of each intent, by its books.
async fn charges(service: &Service, gateway: &TestGateway) -> HashMap<String, usize> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select payment_id, description from payments where description is not null",
    )
    .fetch_all(&service.pool)
    .await
    .expect("payments");
    let intents: HashMap<String, String> = rows.into_iter().collect();
    let mut charges = HashMap::new();
    for charge in gateway.ledger().charges {
        if charge.status != ChargeStatus::Canceled {
            let intent = intents.get(&charge.payment_id);
            let intent = intent.unwrap_or_else(|| panic!("nobody knows of {charge:?}"));
            *charges.entry(intent.clone()).or_default() += 1;
        }
    }
    charges
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn through_every_fault_of_the_gateway_and_of_the_network(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let stripe: Arc<dyn Gateway> = Arc::new(adapter(&gateway, Duration::from_millis(800)));
    let service = Service::start_on(&db, no_recovery(), stripe, Duration::from_secs(1)).await;
    let acme = service.merchant("acme").await;
    let others = [Fault::StoredError, Fault::StoredFailure, Fault::LockTimeout];
    let faults = Fault::CHAOS
        .iter()
        .chain(Fault::MISCONFIGURED)
        .chain(&others);
    // A good card; one that is declined and then another; a token that nobody knows and then a good one.
    let wallets: [&[&str]; 3] = [
        &["pm_card_visa"],
        &["pm_card_chargeDeclined", "pm_card_visa"],
        &["pm_card_unheard_of", "pm_card_visa"],
    ];
    let mut intents = 0;
    for fault in faults {
        for (number, wallet) in wallets.iter().enumerate() {
            let bad_gateway =
                "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let script = [
                Way::AnswerLost,
                Way::Lost,
                Way::Answered(bad_gateway.to_owned()),
                Way::AnswerLost,
            ];
            let network = Flaky::before(&service.url, &script);
            let merchant = Merchant {
                url: network.url.clone(),
                ..acme.clone()
            };
            let robot = Robot {
                merchant,
                service: &service,
            };
            gateway.script([(Endpoint::Charge, *fault); 3]);
            gateway.script([(Endpoint::Cancel, *fault), (Endpoint::ListIntents, *fault)]);
            let intent = Intent::payment(&format!("{fault:?}-{number}"), wallet);
            assert_eq!(robot.run(&intent).await, End::Done, "{}", intent.name);
            gateway.calm();
            // The robot has forgotten its result and its corrections.
            let again = match number {
                2 => End::Stopped("idempotency-key-reused".to_owned()),
                _ => End::Done,
            };
            assert_eq!(robot.run(&intent).await, again, "{}", intent.name);
            intents += 1;
        }
    }
    let charges = charges(&service, &gateway).await;
    assert_eq!(charges.len(), intents);
    assert!(charges.values().all(|charges| *charges == 1), "{charges:?}");
    gateway.ledger().assert_nothing_twice();
    assert_eq!(service.count("unsettled_keys").await, 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn that_comes_back_too_late_or_with_another_request_pays_nothing_more(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let robot = Robot {
        merchant: acme.clone(),
        service: &service,
    };
    // It has two cards, and would use the second if it were told to make a new payment.
    let intent = Intent::payment("order", &["pm_card_visa", "pm_card_mastercard"]);
    assert_eq!(robot.run(&intent).await, End::Done);
    let mut changed = Intent::payment("order", &["pm_card_visa", "pm_card_mastercard"]);
    changed.bodies[0]["amount"] = json!("11");
    let stopped = End::Stopped("idempotency-key-reused".to_owned());
    assert_eq!(robot.run(&changed).await, stopped);
    execute(&service.pool,
        "update idempotency_keys set created_at = created_at - interval '2 days',
            completed_at = completed_at - interval '2 days', expires_at = expires_at - interval '2 days'",
    )
    .await;
    // A node that remembers no answer.
    let fresh = node(&db, &gateway, AMPLE).await;
    let robot = Robot {
        merchant: acme.at(&fresh),
        service: &fresh,
    };
    let stopped = End::Stopped("idempotency-key-expired".to_owned());
    assert_eq!(robot.run(&intent).await, stopped);
    assert_eq!(robot.run(&changed).await, stopped);
    let charges = charges(&service, &gateway).await;
    assert_eq!(charges, HashMap::from([("order".to_owned(), 1)]));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn that_refunds_a_busy_payment_gives_back_what_it_was_told_once(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, HASTY).await;
    let acme = service.merchant("acme").await;
    let id = paid(&acme, "10", "p").await;
    let path = format!("/v1/payments/{id}/refunds");
    // The first refund's answer is held back, and the others find the payment busy.
    gateway.script([(Endpoint::Refund, Fault::Hold)]);
    let first = on(&acme, &id, "refunds", "first-0", json!({"amount": "6"}));
    assert_eq!(first.send().await.status, 202);
    let busy = on(&acme, &id, "refunds", "second-0", json!({"amount": "5"}));
    busy.send()
        .await
        .assert_problem(409, "payment-busy", "same-key");
    gateway.calm();
    let robot = Robot {
        merchant: acme.clone(),
        service: &service,
    };
    let amounts = |amounts: &[&str]| -> Vec<_> {
        let bodies = amounts.iter().map(|amount| json!({"amount": amount}));
        bodies.collect()
    };
    let errands = [
        Intent::new("first", &path, &amounts(&["6"])),
        Intent::new("second", &path, &amounts(&["5", "3"])),
        Intent::new("third", &path, &amounts(&["4", "1"])),
    ];
    let (first, second, third) = tokio::join!(
        robot.run(&errands[0]),
        robot.run(&errands[1]),
        robot.run(&errands[2])
    );
    assert_eq!(first, End::Done);
    for end in [second, third] {
        let is_right = match &end {
            End::Done => true,
            // Too little is left, or nothing.
            End::Stopped(code) => code == "amount-too-large" || code == "payment-state-conflict",
        };
        assert!(is_right, "{end:?}");
    }
    let ledger = gateway.ledger();
    ledger.assert_nothing_twice();
    let charge = ledger.only_charge(&id);
    assert!(charge.amount_refunded <= 1_000, "{charge:?}");
    let told = shown(&acme, &id).await.text("amountRefunded");
    let refunded = format!(
        "{}.{:02}",
        charge.amount_refunded / 100,
        charge.amount_refunded % 100
    );
    assert_eq!(told, refunded);
    assert_eq!(service.count("unsettled_keys").await, 0);
}
