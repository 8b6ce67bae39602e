//! An actix handler wrapped in one line beside the same handler bare: new requests, repeated ones beside a read of the same row, and the
//! memory of the wrapped one over many requests.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::Connection;

use crate::bench::{Bench, count, random_seed};
use crate::database::Database;
use crate::fill::MERCHANT;
use crate::keys::KeyKind;
use crate::load::closed::{self, Driven, Load};
use crate::load::{Keys, Tally};
use crate::report::{LAYER_CONNECTIONS, Report, Run, Series};
use crate::requests::{Customers, Request};
use crate::rivals::{Handler, LAYERED_SCHEMA};
use crate::server::Server;
use crate::store::{self, Counts};

/// How many keys are repeated.
const HOT_KEYS: u64 = 1000;

/// Memory is looked at after each of so many equal parts of the requests.
const PARTS: u64 = 4;

/// A part ends when its keys are used up. This ends one that never would.
const LONGEST_PART: Duration = Duration::from_secs(3600);

pub async fn layer(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let rounds = bench.plan.rounds;
    bench.progress.expect(4 * u64::from(rounds) + PARTS);
    let wrapped = Subject::start(bench, Series::Wrapped, Handler::Wrapped).await?;
    let bare = Subject::start(bench, Series::Unwrapped, Handler::Bare).await?;
    for round in 1..=rounds {
        for subject in [&wrapped, &bare] {
            report.runs.push(subject.fresh(bench, round).await?);
        }
    }
    let reader = wrapped.reader(bench).await?;
    let hot = wrapped.make_hot(bench).await?;
    for round in 1..=rounds {
        for (server, series) in [
            (&wrapped.server, Series::WrappedReplays),
            (&reader, Series::UnwrappedReads),
        ] {
            let keys = Keys::hot(hot, HOT_KEYS);
            let run = wrapped.repeat(bench, server, series, keys, round).await?;
            report.runs.push(run);
        }
    }
    drop(reader);
    report.layer_memory_mib = wrapped.memory(bench).await?;
    for subject in [wrapped, bare] {
        let Subject {
            server, database, ..
        } = subject;
        server.stop().await?;
        bench.server.remove(&database).await?;
    }
    Ok(())
}

/// A handler that takes new requests, and where they are kept.
struct Subject {
    series: Series,
    server: Server,
    database: Database,
}

impl Subject {
    async fn start(bench: &Bench, series: Series, handler: Handler) -> anyhow::Result<Self> {
        let database = bench.server.create(handler.name()).await?;
        let mut connection = database.connect().await?;
        store::execute(&mut connection, LAYERED_SCHEMA.to_owned()).await?;
        connection.close().await?;
        let server = serve(bench, &database, handler).await?;
        Ok(Self {
            series,
            server,
            database,
        })
    }

    async fn reader(&self, bench: &Bench) -> anyhow::Result<Server> {
        serve(bench, &self.database, Handler::Read).await
    }

    async fn fresh(&self, bench: &Bench, round: u32) -> anyhow::Result<Run> {
        bench.progress.step(&format!(
            "{}, {LAYER_CONNECTIONS} connections, round {round}",
            self.series.label()
        ));
        bench.server.settle_down().await?;
        let keys = Keys::fresh(random_seed());
        let load = bench.load(LAYER_CONNECTIONS);
        let driven = self.drive_new(bench, keys, load).await?;
        bench.progress.say(&format!("{:.0}/s", driven.per_second));
        Ok(Run::of(self.series, LAYER_CONNECTIONS, round, &driven))
    }

    /// Drives new requests, and checks that the database has just what was answered: a row for each, and a key where they were wrapped.
    async fn drive_new(&self, bench: &Bench, keys: Keys, load: Load) -> anyhow::Result<Driven> {
        let before = self.counts().await?;
        let request = Request::new(MERCHANT, keys.kind(), Customers::Many);
        let driven = closed::drive(self.server.address(), request, keys, load).await?;
        let after = self.counts().await?;
        self.check_new(bench, before, after, &driven.tally)
            .context(self.series.label())?;
        Ok(driven)
    }

    fn check_new(
        &self,
        bench: &Bench,
        before: Counts,
        after: Counts,
        tally: &Tally,
    ) -> anyhow::Result<()> {
        if self.series == Series::Wrapped {
            return bench.checks.created(before, after, tally);
        }
        ensure!(tally.created() > 0, "nothing was created");
        let added = u64::try_from(after.payments - before.payments).unwrap_or(0);
        bench.checks.equal("rows", tally.created(), added)
    }

    /// The bare handler's database has no keys.
    async fn counts(&self) -> anyhow::Result<Counts> {
        if self.series == Series::Wrapped {
            return count(&self.database).await;
        }
        let mut connection = self.database.connect().await?;
        let payments = store::count_payments(&mut connection).await?;
        connection.close().await?;
        Ok(Counts { keys: 0, payments })
    }

    /// Makes the rows that are then repeated and read.
    async fn make_hot(&self, bench: &Bench) -> anyhow::Result<KeyKind> {
        let kind = KeyKind::Uuid {
            seed: random_seed(),
        };
        // One customer: a repeat has to be the same request.
        let request = Request::new(MERCHANT, kind, Customers::One);
        let keys = Keys::once_each(kind, HOT_KEYS);
        let load = until_used_up(bench, LAYER_CONNECTIONS);
        let made = closed::drive(self.server.address(), request, keys, load).await?;
        bench
            .checks
            .equal("keys to repeat", HOT_KEYS, made.tally.created())?;
        Ok(kind)
    }

    /// Repeats requests at the wrapped handler, or reads their rows at the bare one. Neither makes anything.
    async fn repeat(
        &self,
        bench: &Bench,
        server: &Server,
        series: Series,
        keys: Keys,
        round: u32,
    ) -> anyhow::Result<Run> {
        let connections = bench.plan.replay_connections;
        bench
            .progress
            .step(&format!("{}, round {round}", series.label()));
        let before = self.counts().await?;
        let request = Request::new(MERCHANT, keys.kind(), Customers::One);
        let load = bench.load(connections);
        let driven = closed::drive(server.address(), request, keys, load).await?;
        let after = self.counts().await?;
        let mut tally = driven.tally.answers.clone();
        let answered = tally.remove(&201).unwrap_or(0);
        ensure!(tally.is_empty(), "{}: {tally:?}", series.label());
        if series == Series::WrappedReplays {
            let checked = bench.checks.replayed(before, after, &driven.tally);
            checked.context(series.label())?;
        } else {
            ensure!(answered > 0, "nothing was read");
            let rows = |counts: Counts| u64::try_from(counts.payments).unwrap_or(0);
            bench
                .checks
                .equal("rows after reads", rows(before), rows(after))?;
        }
        bench.progress.say(&format!("{:.0}/s", driven.per_second));
        Ok(Run::of(series, connections, round, &driven))
    }

    /// The wrapped handler's memory after each part of many new requests, in MiB.
    async fn memory(&self, bench: &Bench) -> anyhow::Result<Vec<f64>> {
        let keys = Keys::fresh(random_seed());
        let mut memory = Vec::new();
        for part in 1..=PARTS {
            bench.progress.step(&format!(
                "memory, {} of {} requests",
                bench.plan.layer_requests / PARTS * part,
                bench.plan.layer_requests
            ));
            let share = keys.at_most(bench.plan.layer_requests / PARTS);
            let load = until_used_up(bench, LAYER_CONNECTIONS);
            let driven = self.drive_new(bench, share, load).await?;
            memory.extend(driven.usage.memory_mib);
        }
        Ok(memory)
    }
}

fn until_used_up(bench: &Bench, connections: u32) -> Load {
    Load {
        warm_up: Duration::ZERO,
        duration: LONGEST_PART,
        ..bench.load(connections)
    }
}

async fn serve(bench: &Bench, database: &Database, handler: Handler) -> anyhow::Result<Server> {
    let pool = bench.plan.reference_pools.first().copied().unwrap_or(20);
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("layered")
        .arg(format!("--pool={pool}"))
        .arg(format!("--handler={}", handler.name()))
        .env("DATABASE_URL", database.url());
    Server::start(command).await
}
