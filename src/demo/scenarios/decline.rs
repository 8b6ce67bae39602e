//! The card has insufficient funds, and the client repeats the request.

use super::{CREATE_PAYMENT, check_one_payment, check_same_answer};
use crate::demo::report::Scene;
use crate::demo::server::Server;
use crate::demo::stage::{EMPTY_CARD, Stage, card_payment};

pub(in crate::demo) async fn play(
    stage: &Stage,
    server: &mut Server,
    scene: &mut Scene<'_>,
) -> anyhow::Result<()> {
    scene.story("A decline is an outcome, too: it is stored, and the bank is not asked again.");
    let shop = stage.merchant(server, "decline").await?;
    let (key, body) = ("order-1005", card_payment("80.00", EMPTY_CARD));

    let first = shop.pay(key, &body).await?;
    scene.step("first request", &first);
    let second = shop.pay(key, &body).await?;
    scene.step("its retry", &second);
    let record = shop.key_record(CREATE_PAYMENT, key).await?;
    scene.fact("detail", first.text("/detail"));
    scene.fact(
        "key",
        format_args!(
            "{}, attempts {}",
            record.text("/state"),
            record.text("/attempts")
        ),
    );

    scene.equal("status", first.status, 402);
    scene.equal("code", first.text("/code"), "payment-declined");
    scene.equal("detail", first.text("/detail"), "Insufficient funds");
    scene.equal(
        "declineCode",
        first.text("/declineCode"),
        "insufficient_funds",
    );
    scene.check("the first executed", first.is_first(), || {
        format!("{:?}", first.replayed)
    });
    scene.check("the retry is a replay", second.is_replay(), || {
        format!("{:?}", second.replayed)
    });
    check_same_answer(scene, "both", &[&first, &second]);
    scene.equal("state of the key", record.text("/state"), "FAILED");
    scene.equal(
        "status that it keeps",
        record.text("/responseStatus"),
        "402",
    );
    let payment_id = first.text("/paymentId");
    let payment = shop.get(&format!("/v1/payments/{payment_id}")).await?;
    scene.equal("state of the payment", payment.text("/state"), "FAILED");
    check_one_payment(scene, &shop, key, &payment_id).await
}
