//! How many keys a second the clean-up deletes beside 1,000 payments a second, on the machine's disk and on a slow one, and how long
//! those payments wait.

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, ensure};
use sqlx::Connection;

use super::expired::fill_expired;
use super::slow_commits::start_slow;
use crate::bench::{Bench, Site, count, random_seed};
use crate::load::open::{self, Pace};
use crate::load::{Keys, Latency, Tally};
use crate::report::{CleanupBeside, Disk, Report};
use crate::requests::{Customers, Request};
use crate::server::Server;
use crate::store;

/// By which the server knows it.
const CLEANER: &str = "payonce-bench-cleanup";

pub async fn cleanup_beside(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    on_disk(bench, Disk::Machine, report).await?;
    let Some(slow) = start_slow(bench, report, "cleanup-beside on a slow disk").await? else {
        return Ok(());
    };
    on_disk(&slow.bench, Disk::Slow, report).await
}

async fn on_disk(bench: &Bench, disk: Disk, report: &mut Report) -> anyhow::Result<()> {
    let plan = &bench.plan;
    bench.progress.expect(2 * u64::from(plan.rounds));
    // One that has been stopped would end the next load at once.
    let pace = || Pace::new(plan.busy_rate, plan.warm_up, plan.busy_duration);
    let site = bench.site("cleanup_beside").await?;
    for round in 1..=plan.rounds {
        fill_expired(bench, &site).await?;
        let server = bench.payonce(&site, &[]).await?;
        let what = format!(
            "{} payments a second, {}, round {round}",
            plan.busy_rate,
            disk.label()
        );
        // First without it: what it leaves to vacuum would be felt afterwards.
        bench.progress.step(&format!("{what}, no clean-up"));
        let without = alone(bench, &site, &server, pace()).await?;
        bench.progress.step(&format!("{what}, payonce-cleanup"));
        bench.server.settle_down().await?;
        let (with, keys_per_second) =
            beside(bench, &site, &server, without.created(), pace()).await?;
        bench.progress.say(&format!(
            "{keys_per_second:.0} keys/s; p99 {:.1} ms with, {:.1} ms without",
            with.p99_ms,
            without.latency().p99_ms
        ));
        server.stop().await?;
        report.cleanup_beside.push(CleanupBeside {
            disk,
            rows: plan.expired_keys,
            keys_per_second,
            with,
            without: without.latency(),
        });
    }
    bench.server.remove(&site.database).await
}

async fn drive(site: &Site, server: &Server, pace: Pace) -> anyhow::Result<Tally> {
    let keys = Keys::fresh(random_seed());
    let request = Request::new(&site.api_key, keys.kind(), Customers::Many);
    open::drive(server.address().socket, request, keys, pace).await
}

/// Payments without the clean-up.
pub(super) async fn alone(
    bench: &Bench,
    site: &Site,
    server: &Server,
    pace: Pace,
) -> anyhow::Result<Tally> {
    bench.server.settle_down().await?;
    let before = count(&site.database).await?;
    let tally = drive(site, server, pace).await?;
    let after = count(&site.database).await?;
    bench.checks.created(before, after, &tally)?;
    Ok(tally)
}

/// The payments' waits, and the keys that were deleted in a second. `created`: the payments that there are.
pub(super) async fn beside(
    bench: &Bench,
    site: &Site,
    server: &Server,
    created: u64,
    pace: Pace,
) -> anyhow::Result<(Latency, f64)> {
    let cleaning = clean_up_for_a_while(bench, site, &pace);
    let (cleaned, tally) = tokio::join!(cleaning, drive(site, server, pace.clone()));
    let (seconds, tally) = (cleaned?, tally?);
    ensure!(
        tally.measured > 0,
        "the clean-up was over before a payment was measured"
    );
    let mut connection = site.database.connect().await?;
    let left = store::count_expired(&mut connection).await?;
    connection.close().await?;
    let checks = &bench.checks;
    let made = created + tally.created();
    checks.equal("replays of new keys", 0, tally.replayed)?;
    // The keys of payments are none of the clean-up's, and each has its payment, as the template has.
    checks.equal("keys beside it", made, left.kept.unsigned_abs())?;
    let payments = count(&site.database).await?.payments.unsigned_abs();
    checks.equal("payments beside it", made + 1, payments)?;
    let rows = bench.plan.expired_keys;
    let deleted = rows.checked_sub(left.expired.unsigned_abs());
    let deleted = deleted.context("there are more expired keys than there were")?;
    ensure!(deleted > 0, "the clean-up has deleted nothing");
    Ok((tally.latency(), deleted as f64 / seconds))
}

/// `payonce-cleanup` as cron would run it, for the measured time or until it has done all. Returns for how many seconds.
async fn clean_up_for_a_while(bench: &Bench, site: &Site, pace: &Pace) -> anyhow::Result<f64> {
    let mut command = bench.programs.payonce("payonce-cleanup");
    command
        .env("DATABASE_URL", site.database.url_as(CLEANER))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    tokio::time::sleep(pace.warm_up).await;
    let began = Instant::now();
    let mut cleaner = command.kill_on_drop(true).spawn()?;
    let ended = tokio::time::timeout(pace.duration, cleaner.wait()).await;
    // Before anything is counted: it deletes no more, and neither is anything paid.
    pace.stop.store(true, Ordering::Relaxed);
    let took = began.elapsed();
    match ended {
        Ok(status) => {
            let status = status?;
            ensure!(status.success(), "payonce-cleanup: {status}");
        }
        Err(_) => {
            cleaner.kill().await?;
            wait_for_its_end(site).await?;
        }
    }
    Ok(took.as_secs_f64())
}

/// A statement that its client has left behind goes on to its end.
async fn wait_for_its_end(site: &Site) -> anyhow::Result<()> {
    let mut connection = site.database.connect().await?;
    while store::is_connected(&mut connection, CLEANER).await? {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(connection.close().await?)
}
