//! Two merchants, and two operations of one of them, use the same key.

use std::collections::BTreeSet;

use super::{CREATE_PAYMENT, REFUND_PAYMENT, check_same_answer, each, status};
use crate::demo::client::Client;
use crate::demo::report::Scene;
use crate::demo::server::Server;
use crate::demo::stage::{GOOD_CARD, Stage, card_payment};

const KEY: &str = "order-1";
const REFUND: &[u8] = br#"{"amount": "5.00"}"#;

pub(in crate::demo) async fn play(
    stage: &Stage,
    server: &mut Server,
    scene: &mut Scene<'_>,
) -> anyhow::Result<()> {
    scene.story("A key means something to one merchant and one operation, and nothing to others.");
    let acme = stage.merchant(server, "acme").await?;
    let globex = stage.merchant(server, "globex").await?;
    let (acme_body, globex_body) = (
        card_payment("10.00", GOOD_CARD),
        card_payment("20.00", GOOD_CARD),
    );

    let acme_pays = acme.pay(KEY, &acme_body).await?;
    scene.step("acme, create_payment", &acme_pays);
    let globex_pays = globex.pay(KEY, &globex_body).await?;
    scene.step("globex, create_payment", &globex_pays);
    let payment = format!("/v1/payments/{}", acme_pays.text("/id"));
    let refunds = format!("{payment}/refunds");
    let refund = acme.post(&refunds, KEY, REFUND).await?;
    scene.step("acme, refund_payment", &refund);
    scene.fact("key of all three", KEY);

    let replies = [&acme_pays, &globex_pays, &refund];
    scene.equal("statuses", each(replies, status), "201 201 201");
    let firsts = replies.iter().filter(|reply| reply.is_first()).count();
    scene.equal("requests that executed", firsts, 3);
    let mut ids: BTreeSet<String> = replies.iter().map(|reply| reply.text("/id")).collect();
    ids.remove("");
    scene.check("three things were made", ids.len() == 3, || {
        format!("saw {ids:?}")
    });
    let amounts = each(replies, |reply| reply.text("/amount"));
    scene.equal("their amounts", amounts, "10.00 20.00 5.00");
    let again = [
        acme.pay(KEY, &acme_body).await?,
        globex.pay(KEY, &globex_body).await?,
        acme.post(&refunds, KEY, REFUND).await?,
    ];
    let names = ["acme's payment", "globex's payment", "acme's refund"];
    for ((name, first), again) in names.into_iter().zip(replies).zip(&again) {
        check_same_answer(scene, &format!("{name}, repeated"), &[first, again]);
    }
    check_made(scene, &acme, CREATE_PAYMENT, &acme_pays.text("/id")).await?;
    check_made(scene, &globex, CREATE_PAYMENT, &globex_pays.text("/id")).await?;
    check_made(scene, &acme, REFUND_PAYMENT, &refund.text("/id")).await?;
    let seen_by_globex = globex.get(&payment).await?;
    scene.equal(
        "acme's payment, as globex sees it",
        seen_by_globex.status,
        404,
    );
    Ok(())
}

/// Checks that the record of the key in this scope names the resource that was made in it.
async fn check_made(
    scene: &mut Scene<'_>,
    client: &Client,
    operation: &str,
    id: &str,
) -> anyhow::Result<()> {
    let record = client.key_record(operation, KEY).await?;
    let what = format!("{}:{operation}:{KEY} made", client.merchant_id());
    scene.equal(&what, record.text("/resourceId"), id);
    Ok(())
}
