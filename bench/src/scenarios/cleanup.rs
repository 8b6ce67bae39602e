//! The clean-up compared with a plain DELETE of the same rows, and its effect on payments.

use std::time::Instant;

use anyhow::Context;
use serde_json::Value;
use sqlx::Connection;

use super::cleanup_beside::{alone, beside};
use super::expired::fill_expired;
use crate::bench::{Bench, Site};
use crate::load::open::Pace;
use crate::programs;
use crate::report::{Cleanup, Report};
use crate::store;

pub async fn cleanup(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let plan = &bench.plan;
    bench.progress.expect(4 * u64::from(plan.rounds));
    let site = bench.site("cleanup").await?;
    let rows = plan.expired_keys;
    for round in 1..=plan.rounds {
        bench.progress.step(&format!(
            "{rows} expired keys, payonce-cleanup, round {round}"
        ));
        fill_expired(bench, &site).await?;
        let payonce_per_second = clean_up(bench, &site).await?;
        bench
            .progress
            .say(&format!("{payonce_per_second:.0} rows/s"));

        bench
            .progress
            .step(&format!("{rows} expired keys, plain DELETE, round {round}"));
        fill_expired(bench, &site).await?;
        let plain_per_second = plain_delete(bench, &site).await?;
        bench.progress.say(&format!("{plain_per_second:.0} rows/s"));

        fill_expired(bench, &site).await?;
        let server = bench.payonce(&site, &[]).await?;
        let pace = || Pace::new(plan.steady_rate, plan.warm_up, plan.steady_duration);
        // First without the clean-up, because what it leaves to vacuum would be felt afterwards.
        bench
            .progress
            .step(&format!("payments without payonce-cleanup, round {round}"));
        let without = alone(bench, &site, &server, pace()).await?;
        bench
            .progress
            .step(&format!("payments beside payonce-cleanup, round {round}"));
        bench.server.settle_down().await?;
        let (with, _) = beside(bench, &site, &server, without.created(), pace()).await?;
        let without = without.latency();
        bench.progress.say(&format!(
            "p99 {:.1} ms with, {:.1} ms without",
            with.p99_ms, without.p99_ms
        ));
        server.stop().await?;
        report.cleanup.push(Cleanup {
            rows,
            payonce_per_second,
            plain_per_second,
            with,
            without,
        });
    }
    bench.server.remove(&site.database).await
}

/// Rows per second of `payonce-cleanup`, according to its own report.
async fn clean_up(bench: &Bench, site: &Site) -> anyhow::Result<f64> {
    let mut command = bench.programs.payonce("payonce-cleanup");
    command.env("DATABASE_URL", site.database.url());
    let said: Value = serde_json::from_str(&programs::output(&mut command).await?)?;
    let number = |name: &str| said[name].as_u64().context("payonce-cleanup's report");
    bench
        .checks
        .equal("deleted keys", bench.plan.expired_keys, number("deleted")?)?;
    bench.checks.equal("keys left", 0, number("remaining")?)?;
    Ok(number("deleted")? as f64 * 1e3 / number("durationMs")?.max(1) as f64)
}

async fn plain_delete(bench: &Bench, site: &Site) -> anyhow::Result<f64> {
    let mut connection = site.database.connect().await?;
    let began = Instant::now();
    let deleted = store::plain_delete(&mut connection).await?;
    let took = began.elapsed();
    connection.close().await?;
    bench
        .checks
        .equal("deleted keys", bench.plan.expired_keys, deleted)?;
    Ok(deleted as f64 / took.as_secs_f64())
}
