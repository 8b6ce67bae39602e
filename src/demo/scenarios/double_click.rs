//! A complete card payment by a customer who clicks twice.

use std::time::Duration;

use super::{check_one_execution, check_one_payment, check_same_answer, each, status};
use crate::demo::client::Reply;
use crate::demo::report::{Milliseconds, Scene};
use crate::demo::server::Server;
use crate::demo::stage::{GOOD_CARD, Stage, card_payment};

/// Time that the gateway takes, by the server's settings.
const GATEWAY_LATENCY: Duration = Duration::from_millis(100);

pub(in crate::demo) async fn play(
    stage: &Stage,
    server: &mut Server,
    scene: &mut Scene<'_>,
) -> anyhow::Result<()> {
    scene.story("The gateway takes 100 ms; the second click comes before it has answered.");
    let shop = stage.merchant(server, "double-click").await?;
    let (key, body) = ("checkout-7", card_payment("99.99", GOOD_CARD));

    let (one, other) = tokio::join!(shop.pay(key, &body), shop.pay(key, &body));
    let (one, other) = (one?, other?);
    let (first, second) = if one.is_first() {
        (one, other)
    } else {
        (other, one)
    };
    scene.step("the click that executed", &first);
    scene.step("the click that waited", &second);
    let payment = shop
        .get(&first.location.clone().unwrap_or_default())
        .await?;
    scene.step("GET Location", &payment);
    for (name, pointer) in [
        ("payment", "/id"),
        ("state", "/state"),
        ("gateway's id", "/gatewayTransactionId"),
        ("card", "/paymentMethod/details/brand"),
        ("its last digits", "/paymentMethod/details/last4"),
    ] {
        scene.fact(name, payment.text(pointer));
    }

    scene.equal("statuses", each([&first, &second], status), "201 201");
    check_one_execution(scene, &[&first, &second]);
    check_same_answer(scene, "both clicks", &[&first, &second]);
    check_payment(scene, &payment);
    scene.check(
        "GET gives what the answer said",
        payment.body == first.body,
        || format!("expected {}, saw {}", first.json, payment.json),
    );
    scene.check(
        "the first took the gateway's time",
        first.took >= GATEWAY_LATENCY,
        || format!("it took {}", Milliseconds(first.took)),
    );
    let shown = String::from_utf8_lossy(&first.body);
    scene.check(
        "the card's number is not in the answer",
        !shown.contains(GOOD_CARD),
        || "it is".to_owned(),
    );
    check_one_payment(scene, &shop, key, &first.text("/id")).await
}

/// Every field of the request, compared with the payment.
fn check_payment(scene: &mut Scene<'_>, payment: &Reply) {
    let expected = [
        ("/state", "SUCCESS"),
        ("/amount", "99.99"),
        ("/currency", "USD"),
        ("/amountCaptured", "99.99"),
        ("/amountRefunded", "0.00"),
        ("/paymentMethod/details/brand", "visa"),
        ("/paymentMethod/details/last4", "4242"),
        ("/customer/email", "test@example.com"),
        ("/gatewayType", "SIMULATED"),
        ("/failure", ""),
    ];
    let is_wrong = |&(pointer, value): &(&str, &str)| payment.text(pointer) != value;
    let wrong: Vec<(&str, &str)> = expected.into_iter().filter(is_wrong).collect();
    scene.check(
        "the payment is as it was asked for, and charged",
        wrong.is_empty(),
        || format!("expected {wrong:?}, saw {}", payment.json),
    );
    let transaction = payment.text("/gatewayTransactionId");
    scene.check(
        "the gateway has a transaction",
        !transaction.is_empty(),
        || "it has none".to_owned(),
    );
}
