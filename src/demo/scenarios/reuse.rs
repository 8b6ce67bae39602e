//! A different request arrives under a key that was used.

use super::{CREATE_PAYMENT, check_one_payment, check_same_answer};
use crate::demo::client::Reply;
use crate::demo::report::Scene;
use crate::demo::server::Server;
use crate::demo::stage::{GOOD_CARD, Stage, card_payment};

pub(in crate::demo) async fn play(
    stage: &Stage,
    server: &mut Server,
    scene: &mut Scene<'_>,
) -> anyhow::Result<()> {
    scene.story("Somebody on the way, or a bug, makes $500 of $50 and keeps the key.");
    let shop = stage.merchant(server, "reuse").await?;
    let key = "order-1002";
    let fifty = card_payment("50.00", GOOD_CARD);

    let first = shop.pay(key, &fifty).await?;
    scene.step("$50", &first);
    let tampered = shop.pay(key, &card_payment("500.00", GOOD_CARD)).await?;
    scene.step("$500, the same key", &tampered);
    let honest = shop.pay(key, &fifty).await?;
    scene.step("$50 again", &honest);
    scene.fact("hash of the first", tampered.text("/expectedHash"));
    scene.fact("hash of the second", tampered.text("/actualHash"));
    scene.fact("fields that differ", tampered.text("/changed"));

    scene.equal("status of $50", first.status, 201);
    scene.equal("status of $500", tampered.status, 422);
    scene.equal("its code", tampered.text("/code"), "idempotency-key-reused");
    scene.equal("its changed", tampered.text("/changed"), r#"["amount"]"#);
    let record = shop.key_record(CREATE_PAYMENT, key).await?;
    check_hashes(scene, &tampered, &record.text("/fingerprint"));
    check_same_answer(scene, "$50, twice", &[&first, &honest]);
    let payment = shop
        .get(&first.location.clone().unwrap_or_default())
        .await?;
    scene.equal("the payment's amount", payment.text("/amount"), "50.00");
    check_one_payment(scene, &shop, key, &first.text("/id")).await
}

fn check_hashes(scene: &mut Scene<'_>, refused: &Reply, stored: &str) {
    let (expected, actual) = (refused.text("/expectedHash"), refused.text("/actualHash"));
    let is_shown = |hash: &str| hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    scene.check(
        "two hashes of 16 digits that differ",
        is_shown(&expected) && is_shown(&actual) && expected != actual,
        || format!("saw {expected:?} and {actual:?}"),
    );
    scene.equal("the expected hash is the stored one", expected, stored);
}
