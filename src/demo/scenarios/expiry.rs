//! Expired keys are cleaned up, and still never pay twice.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::CREATE_PAYMENT;
use crate::demo::client::{Client, Reply};
use crate::demo::program;
use crate::demo::report::Scene;
use crate::demo::server::Server;
use crate::demo::stage::{GOOD_CARD, Stage, card_payment};

/// Maximum time until a key with a lifetime of 100 ms has expired.
const EXPIRY_PATIENCE: Duration = Duration::from_secs(10);

const EXPIRY_INTERVAL: Duration = Duration::from_millis(20);

/// Maximum time of the clean-up. It takes seconds unless a database has millions of expired keys; then it stops by itself (see
/// `--max-duration`).
const CLEANUP_PATIENCE: Duration = Duration::from_secs(90);

const KEYS: usize = 5;

/// Maximum number of attempts. Another clean-up, by cron or by another demonstration, may delete the keys first; then the
/// demonstration makes five more.
const ROUNDS: usize = 5;

pub(in crate::demo) async fn play(
    stage: &Stage,
    server: &mut Server,
    scene: &mut Scene<'_>,
) -> anyhow::Result<()> {
    scene
        .story("Keys live for 100 ms here. Then their records go, and the payments remember them.");
    let shop = stage.merchant(server, "expiry").await?;
    let body = card_payment("5.00", GOOD_CARD);

    let mut round = 1;
    let (keys, made, before, report) = loop {
        let keys: [String; KEYS] =
            std::array::from_fn(|number| format!("job-{round}.{}", number + 1));
        let made = pay_and_wait(scene, &shop, &keys, &body).await?;
        let before = count_records(&shop, &keys).await?;
        let report = clean_up(stage).await?;
        scene.fact("payonce-cleanup", &report);
        if round == ROUNDS || (before == KEYS && deleted(&report) >= KEYS as u64) {
            break (keys, made, before, report);
        }
        scene.fact(
            "once more",
            "it had not all five: another clean-up may be in progress",
        );
        round += 1;
    };
    let created = made.iter().filter(|reply| reply.status == 201).count();
    scene.equal("payments made", created, KEYS);
    scene.equal("records past their time", before, KEYS);
    scene.check(
        "the clean-up deleted the five",
        deleted(&report) >= KEYS as u64,
        || format!("it deleted {}", deleted(&report)),
    );
    let after = count_records(&shop, &keys).await?;
    scene.equal("records after the clean-up", after, 0);

    let mut retries = Vec::new();
    for key in &keys {
        let retry = shop.pay(key, &body).await?;
        scene.step(&format!("{key}, once more"), &retry);
        retries.push(retry);
    }
    check_refused(scene, &made, &retries);
    let payments = shop.payments().await?.len();
    scene.equal("payments, none made twice", payments, KEYS * round);
    Ok(())
}

async fn pay_and_wait(
    scene: &mut Scene<'_>,
    shop: &Client,
    keys: &[String],
    body: &[u8],
) -> anyhow::Result<Vec<Reply>> {
    let mut made = Vec::new();
    for key in keys {
        let reply = shop.pay(key, body).await?;
        scene.step(key, &reply);
        made.push(reply);
    }
    for key in keys {
        until_expired(shop, key, body).await?;
    }
    Ok(made)
}

/// Sends the same request until the key has expired. Until then it is replayed; after that it is refused, whether the record was
/// deleted or not.
async fn until_expired(shop: &Client, key: &str, body: &[u8]) -> anyhow::Result<()> {
    let deadline = Instant::now() + EXPIRY_PATIENCE;
    loop {
        let reply = shop.pay(key, body).await?;
        if is_expired(&reply) {
            return Ok(());
        }
        ensure!(
            reply.is_replay(),
            "before the end of its time, {key} is answered by {} {}",
            reply.status,
            String::from_utf8_lossy(&reply.body)
        );
        ensure!(
            Instant::now() < deadline,
            "{key} lives for 100 ms, and has not expired after {EXPIRY_PATIENCE:?}"
        );
        sleep(EXPIRY_INTERVAL).await;
    }
}

fn is_expired(reply: &Reply) -> bool {
    reply.status == 409 && reply.text("/code") == "idempotency-key-expired"
}

/// How many of the keys have a record.
async fn count_records(shop: &Client, keys: &[String]) -> anyhow::Result<usize> {
    let mut count = 0;
    for key in keys {
        let record = shop.key_record(CREATE_PAYMENT, key).await?;
        match record.status {
            200 => count += 1,
            404 => {}
            status => return Err(anyhow!("the record of {key} is answered by {status}")),
        }
    }
    Ok(count)
}

/// Runs the clean-up program, and returns the line that it prints.
async fn clean_up(stage: &Stage) -> anyhow::Result<Value> {
    let output = program::sibling("payonce-cleanup", stage.database())?
        .args(["--max-duration", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output();
    let output = timeout(CLEANUP_PATIENCE, output)
        .await
        .map_err(|_| anyhow!("payonce-cleanup has not ended after {CLEANUP_PATIENCE:?}"))?
        .context("payonce-cleanup cannot be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "payonce-cleanup ended ({}): {}",
        output.status,
        said.trim_end()
    );
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "payonce-cleanup prints no JSON line; it said: {}",
            said.trim_end()
        )
    })
}

/// The database may contain other expired keys.
fn deleted(report: &Value) -> u64 {
    report
        .get("deleted")
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

/// Each key, although it expired and its record is deleted, is refused because of the payment that it made.
fn check_refused(scene: &mut Scene<'_>, made: &[Reply], retries: &[Reply]) {
    let refused = retries.iter().filter(|retry| is_expired(retry)).count();
    scene.equal("retries refused as idempotency-key-expired", refused, KEYS);
    let ids = |replies: &[Reply], pointer| -> Vec<String> {
        replies.iter().map(|reply| reply.text(pointer)).collect()
    };
    let (expected, seen) = (ids(made, "/id"), ids(retries, "/resourceId"));
    scene.check(
        "each names the payment that its key made",
        seen == expected,
        || format!("expected {expected:?}, saw {seen:?}"),
    );
}
