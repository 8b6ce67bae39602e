//! New payments on empty tables and on tables with many keys, in turns.

use std::time::Instant;

use anyhow::Context;
use sqlx::Connection;

use super::replays::fill_by_a_payment;
use crate::bench::{Bench, Site, count, random_seed};
use crate::fill::{Fill, KEYS_AND_PAYMENTS};
use crate::keys::KeyKind;
use crate::load::Keys;
use crate::load::closed;
use crate::report::{ManyKeys, Report, Run, Series};
use crate::requests::{Customers, PATH, Request};
use crate::server::Server;
use crate::store;

const CONNECTIONS: u32 = 128;

/// Number of merchants that share the keys. The merchant that pays is one of them.
const MERCHANTS: u64 = 1000;

/// Bytes of disk for a key and its payment, with their indexes and write-ahead log; a generous estimate.
const BYTES_PER_KEY: u64 = 4500;

pub async fn many_keys(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let plan = &bench.plan;
    bench.progress.expect(1 + 2 * u64::from(plan.rounds));
    let room = plan.many_keys * BYTES_PER_KEY;
    bench
        .server
        .check_room(room)
        .await
        .context("--many-keys asks for too many")?;
    let (empty, many) = (bench.site("empty").await?, bench.site("many").await?);
    bench.progress.step(&format!(
        "{} keys and payments are filled in",
        plan.many_keys
    ));
    let filling = Instant::now();
    fill_by_a_payment(bench, &many, spread(plan.many_keys)).await?;
    let fill_seconds = filling.elapsed().as_secs_f64();
    let mut connection = many.database.connect().await?;
    let keys = store::sizes(&mut connection, "idempotency_keys").await?;
    let payments = store::sizes(&mut connection, "payments").await?;
    connection.close().await?;

    let (on_empty, on_many) = (
        bench.payonce(&empty, &[]).await?,
        bench.payonce(&many, &[]).await?,
    );
    let mut created = 0;
    for round in 1..=plan.rounds {
        empty_tables(&empty).await?;
        let load = bench.load(CONNECTIONS);
        bench
            .progress
            .step(&format!("{}, round {round}", Series::EmptyTable.label()));
        let driven = bench
            .drive_fresh(on_empty.address(), PATH, &empty, load)
            .await?;
        bench.progress.say(&format!("{:.0}/s", driven.per_second));
        report
            .runs
            .push(Run::of(Series::EmptyTable, CONNECTIONS, round, &driven));
        let (run, answers) = drive_many(bench, &many, &on_many, round).await?;
        report.runs.push(run);
        created += answers;
    }
    // Counted once, at the end: each count reads the whole table.
    let after = count(&many.database).await.context("the large table")?;
    let expected = plan.many_keys + created;
    bench.checks.equal(
        "keys of the large table",
        expected,
        after.keys.unsigned_abs(),
    )?;
    bench
        .checks
        .equal("its payments", expected, after.payments.unsigned_abs())?;

    let gib = |bytes: i64| bytes as f64 / f64::from(1 << 30);
    let memory = |series| report.runs_of(series, CONNECTIONS).last()?.usage.memory_mib;
    report.many_keys = Some(ManyKeys {
        keys: plan.many_keys,
        connections: CONNECTIONS,
        fill_seconds,
        heap_gib: gib(keys.heap + payments.heap),
        indexes_gib: gib(keys.indexes + payments.indexes),
        memory_empty_mib: memory(Series::EmptyTable),
        memory_many_mib: memory(Series::ManyKeys),
    });
    drop((on_empty, on_many));
    for site in [empty, many] {
        bench.server.remove(&site.database).await?;
    }
    Ok(())
}

/// Keys like those of clients, of many merchants, each with its own customer.
fn spread(count: u64) -> Fill {
    Fill {
        count,
        kind: KeyKind::Uuid {
            seed: random_seed(),
        },
        payment_id: String::new(),
        merchants: MERCHANTS,
        customers: true,
        expires_in: 3 * 3600..24 * 3600,
        tables: KEYS_AND_PAYMENTS,
    }
}

async fn empty_tables(site: &Site) -> anyhow::Result<()> {
    let mut connection = site.database.connect().await?;
    let truncate = "truncate idempotency_keys, payments cascade".to_owned();
    store::execute(&mut connection, truncate).await?;
    Ok(connection.close().await?)
}

/// Measures a round. Returns the number of payments that it made.
async fn drive_many(
    bench: &Bench,
    site: &Site,
    server: &Server,
    round: u32,
) -> anyhow::Result<(Run, u64)> {
    bench
        .progress
        .step(&format!("{}, round {round}", Series::ManyKeys.label()));
    bench.server.settle_down().await?;
    let keys = Keys::fresh(random_seed());
    let request = Request::new(&site.api_key, keys.kind(), Customers::Many);
    let load = bench.load(CONNECTIONS);
    let driven = closed::drive(server.address(), request, keys, load).await?;
    bench
        .checks
        .equal("replays of new keys", 0, driven.tally.replayed)?;
    bench.progress.say(&format!("{:.0}/s", driven.per_second));
    let run = Run::of(Series::ManyKeys, CONNECTIONS, round, &driven);
    Ok((run, driven.tally.created()))
}
