//! The answer is lost on the network, and the client sends the same request again.

use super::{check_one_execution, check_one_payment, check_same_answer};
use crate::demo::report::Scene;
use crate::demo::server::Server;
use crate::demo::stage::{GOOD_CARD, Stage, card_payment};

pub(in crate::demo) async fn play(
    stage: &Stage,
    server: &mut Server,
    scene: &mut Scene<'_>,
) -> anyhow::Result<()> {
    scene.story("The client cannot know whether its request arrived, so it sends it again, twice.");
    let shop = stage.merchant(server, "retry").await?;
    let (key, body) = ("order-1001", card_payment("25.00", GOOD_CARD));

    let first = shop.pay(key, &body).await?;
    scene.step("first request", &first);
    let second = shop.pay(key, &body).await?;
    scene.step("its retry", &second);
    let third = shop.pay(key, &body).await?;
    scene.step("another retry", &third);
    let payment_id = first.text("/id");
    scene.fact("payment", &payment_id);

    scene.equal("status of the first", first.status, 201);
    scene.check(
        "the first is the one that executed",
        first.is_first(),
        || format!("its Idempotent-Replayed is {:?}", first.replayed),
    );
    check_one_execution(scene, &[&first, &second, &third]);
    check_same_answer(scene, "all three", &[&first, &second, &third]);
    check_one_payment(scene, &shop, key, &payment_id).await
}
