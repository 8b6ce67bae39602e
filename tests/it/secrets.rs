//! Card numbers, CVVs and API keys exist only during a request: they are in no row and in no line of the log.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::cluster::postgres_program;
use crate::support::process::{Server, merchant, plain_url, run};
use crate::support::service::{Merchant, Service, payment};

const CARDS: [&str; 4] = [
    "4242424242424242",
    "4000000000009995",
    "5555555555554444",
    "4242424242424241",
];
const CVV: &str = "7391";

/// The places where a text contains a separate number, which is not part of a longer one, of a UUID or of a fraction.
fn stands_alone(text: &str, number: &str) -> bool {
    text.match_indices(number).any(|(at, _)| {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        let after = text[at + number.len()..].chars().next().unwrap_or(' ');
        !before.is_ascii_alphanumeric()
            && !after.is_ascii_alphanumeric()
            && !matches!(before, '-' | '.' | ':')
            && after != '-'
    })
}

#[track_caller]
fn assert_holds_no_secret(place: &str, text: &str, api_key: &str) {
    for secret in CARDS.into_iter().chain([api_key]) {
        let grouped: Vec<&str> = (0..secret.len())
            .step_by(4)
            .map(|start| &secret[start..(start + 4).min(secret.len())])
            .collect();
        // Plain, in groups of four, and as PostgreSQL writes bytes.
        for form in [
            secret.to_owned(),
            grouped.join(" "),
            grouped.join("-"),
            hex::encode(secret),
        ] {
            if let Some(at) = text.find(&form) {
                let line = text[..at].lines().count();
                panic!("a secret is in line {line} of the {place}");
            }
        }
    }
    assert!(!stands_alone(text, CVV), "a CVV is in the {place}");
    // Inside a stored body: the quotes are bytes, too.
    assert!(!text.contains(&hex::encode(format!("\"{CVV}\""))));
}

#[test]
fn a_number_that_stands_alone_is_told_from_a_part_of_another() {
    for leak in [
        "cvv=7391",
        r#"Cvv(\"7391\")"#,
        "7391",
        r#""cvv":"7391","#,
        "(7391)",
    ] {
        assert!(stands_alone(leak, "7391"), "{leak}");
    }
    for part in [
        "0199-7391-70aa",
        "took 0.7391",
        "17391",
        "73912",
        "7391ab",
        "127.0.0.1:7391",
    ] {
        assert!(!stands_alone(part, "7391"), "{part}");
    }
}

/// All correct and wrong uses of cards by a merchant.
async fn use_cards(acme: &Merchant) {
    let body = |card: &str| {
        let body = payment("10").to_string().replace("737", CVV);
        body.replace("4242424242424242", card)
    };
    let send = async |key: &str, body: String| acme.pay("10").key(key).body(body).send().await;
    for (key, card, status) in [
        ("good", CARDS[0], 201),
        ("declined", CARDS[1], 402),
        ("another", CARDS[2], 201),
        ("no card", CARDS[3], 400),
        ("wrong", CARDS[3], 422),
        ("grouped", "4242 4242 4242 4242", 201),
    ] {
        assert_eq!(send(key, body(card)).await.status, status, "{key}");
    }
    assert!(send("good", body(CARDS[0])).await.replayed());
    let reused = send("good", body(CARDS[2])).await;
    reused.assert_problem(422, "idempotency-key-reused", "no");
    // Truncated in the middle of the card, of a wrong type, in an unknown field, in a field for something else.
    let cut = body(CARDS[0]);
    let cut = &cut[..cut.find(CARDS[0]).expect("the card") + 12];
    for odd in [
        cut.to_owned(),
        body(CARDS[0]).replace(&format!("\"{}\"", CARDS[0]), CARDS[0]),
        body(CARDS[0]).replace(&format!("\"{CVV}\""), CVV),
        body(CARDS[0]).replace("cardNumber", "card_number"),
        body(CARDS[0]).replace("\"cvv\"", "\"cvc\""),
        body(CARDS[0]).replace("\"12\"", &format!("\"{}\"", CARDS[0])),
        body(CARDS[0]).replace("USD", CARDS[0]),
        body(CARDS[0])
            .replace("\"10\"", CARDS[0])
            .replace("cvv", CARDS[0]),
    ] {
        let answer = send("odd", odd).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        if answer.status.is_client_error() {
            assert_holds_no_secret("answer", &text, &acme.api_key);
        }
    }
    let wrong = acme.pay("1").key("k").without("authorization");
    let wrong = wrong.header("authorization", &format!("Bearer {}x", acme.api_key));
    wrong
        .send()
        .await
        .assert_problem(401, "unauthorized", "fix-request");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_dump_and_the_log_of_a_run_hold_no_secret(_: PgPoolOptions, db: PgConnectOptions) {
    let settings = [
        ("PAYONCE_LOG", "trace"),
        ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "0s"),
    ];
    let mut server = Server::start(&db, &settings);
    let acme = merchant(&db, &server.url, "acme");
    use_cards(&acme).await;
    server.signal(Signal::SIGTERM);
    server.ended().await;
    server.until_logged("\"stopped\"").await;
    let log = server.log();
    assert!(log.contains("\"TRACE\"") && log.contains("\"status\":422"));
    assert_holds_no_secret("log", &log, &acme.api_key);
    let dump = dump(&db);
    assert!(dump.contains("sim_ch_") && dump.contains("response_body"));
    assert_holds_no_secret("dump", &dump, &acme.api_key);
}

fn dump(db: &PgConnectOptions) -> String {
    let dumped = run(Command::new(postgres_program("pg_dump")).arg(plain_url(db)));
    assert!(
        dumped.status.success(),
        "{}",
        String::from_utf8_lossy(&dumped.stderr)
    );
    String::from_utf8(dumped.stdout).expect("text")
}

/// Free text that contains the card's number is refused, because it would be stored.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_card_in_another_field_is_refused(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let details = "/paymentMethod/details";
    for (pointer, value, field) in [
        (
            "/description",
            json!("card 4242 4242 4242 4242"),
            "description",
        ),
        ("/customer/id", json!(CARDS[0]), "customer.id"),
        (
            "/customer/name",
            json!("4242-4242-4242-4242"),
            "customer.name",
        ),
        ("/metadata", json!({"card": CARDS[0]}), "metadata"),
        ("/metadata", json!({CARDS[0]: "card"}), "metadata"),
        (
            &format!("{details}/cardHolderName"),
            json!(CARDS[0]),
            "paymentMethod.details.cardHolderName",
        ),
    ] {
        let mut body: Value = payment("1");
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        body.pointer_mut(parent).expect("the parent")[name] = value;
        let answer = acme.post("/v1/payments", body).key("k").send().await;
        answer.assert_problem(422, "validation-failed", "fix-request");
        assert_eq!(answer.json()["errors"][0]["field"], field);
        assert_holds_no_secret(
            "answer",
            &String::from_utf8_lossy(&answer.bytes),
            &acme.api_key,
        );
        service.assert_no_rows(pointer).await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_cards_number_is_taken_in_no_place_that_is_kept(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    for number in [
        "4242424242424242",
        "4242.4242.4242.4242",
        "4242_4242_4242_4242",
        "4242\u{a0}4242\u{2011}4242\u{2009}4242",
        "４２４２４２４２４２４２４２４２",
    ] {
        for pointer in [
            "/description",
            "/customer/name",
            "/customer/id",
            "/metadata",
        ] {
            let mut body = payment("1");
            body["description"] = json!("x");
            let value = body.pointer_mut(pointer);
            match value {
                Some(value) => *value = json!(number),
                None => body["metadata"] = json!({ "order": number }),
            }
            let refused = acme.post("/v1/payments", body).key("k").send().await;
            refused.assert_problem(422, "validation-failed", "fix-request");
            let said = String::from_utf8_lossy(&refused.bytes).into_owned();
            assert!(!said.contains(number), "{said}");
        }
    }
    service.assert_no_rows("numbers in other fields").await;
}
