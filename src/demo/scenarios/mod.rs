//! The eight demonstrations, one file each.

pub(super) mod at_once;
pub(super) mod crash;
pub(super) mod decline;
pub(super) mod double_click;
pub(super) mod expiry;
pub(super) mod retry;
pub(super) mod reuse;
pub(super) mod scopes;

use super::client::{Client, Reply};
use super::report::Scene;

const CREATE_PAYMENT: &str = "create_payment";
const REFUND_PAYMENT: &str = "refund_payment";

/// A text in each of the replies, in their order.
fn each<const N: usize>(replies: [&Reply; N], what: impl Fn(&Reply) -> String) -> String {
    replies.map(what).join(" ")
}

fn status(reply: &Reply) -> String {
    reply.status.to_string()
}

/// Checks that all replies are the same answer: status, `Location` and every byte.
fn check_same_answer(scene: &mut Scene<'_>, whose: &str, replies: &[&Reply]) {
    let Some((first, others)) = replies.split_first() else {
        return;
    };
    let differs = others.iter().find(|other| {
        (other.status, &other.location, &other.body) != (first.status, &first.location, &first.body)
    });
    scene.check(
        &format!("{whose}: the same status, Location and body, byte for byte"),
        differs.is_none(),
        || {
            let bodies = replies.iter().map(|reply| {
                let body = String::from_utf8_lossy(&reply.body);
                format!("{} {:?} {body}", reply.status, reply.location)
            });
            format!("saw {}", bodies.collect::<Vec<_>>().join("; "))
        },
    );
}

/// Checks that one request executed, and all others got its answer.
fn check_one_execution(scene: &mut Scene<'_>, replies: &[&Reply]) {
    let firsts = replies.iter().filter(|reply| reply.is_first()).count();
    let replays = replies.iter().filter(|reply| reply.is_replay()).count();
    scene.equal("requests that executed", firsts, 1);
    scene.equal("requests that got its outcome", replays, replies.len() - 1);
}

/// Checks that the merchant has only this payment, and that its key was claimed once.
async fn check_one_payment(
    scene: &mut Scene<'_>,
    shop: &Client,
    key: &str,
    payment_id: &str,
) -> anyhow::Result<()> {
    let payments = shop.payments().await?;
    let ids = payments
        .iter()
        .map(|payment| payment["id"].as_str().unwrap_or("?"));
    let ids: Vec<&str> = ids.collect();
    scene.equal("the merchant's payments", ids.join(", "), payment_id);
    let record = shop.key_record(CREATE_PAYMENT, key).await?;
    scene.equal(
        "attempts of the key",
        record.text("/attempts").as_str(),
        "1",
    );
    Ok(())
}
