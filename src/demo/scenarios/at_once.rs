//! The same request arrives three times at once.

use super::{check_one_execution, check_one_payment, check_same_answer, each, status};
use crate::demo::report::Scene;
use crate::demo::server::Server;
use crate::demo::stage::{GOOD_CARD, Stage, card_payment};

pub(in crate::demo) async fn play(
    stage: &Stage,
    server: &mut Server,
    scene: &mut Scene<'_>,
) -> anyhow::Result<()> {
    scene.story("One of three executes. The others wait for its outcome, and get it.");
    let shop = stage.merchant(server, "at-once").await?;
    let (key, body) = ("order-1003", card_payment("75.00", GOOD_CARD));

    let (a, b, c) = tokio::join!(
        shop.pay(key, &body),
        shop.pay(key, &body),
        shop.pay(key, &body)
    );
    let (a, b, c) = (a?, b?, c?);
    scene.step("request a", &a);
    scene.step("request b", &b);
    scene.step("request c", &c);
    let payment_id = a.text("/id");
    scene.fact("payment", &payment_id);

    scene.equal("statuses", each([&a, &b, &c], status), "201 201 201");
    check_one_execution(scene, &[&a, &b, &c]);
    check_same_answer(scene, "all three", &[&a, &b, &c]);
    check_one_payment(scene, &shop, key, &payment_id).await
}
