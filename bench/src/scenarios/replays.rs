//! Repeated requests: from memory, compared with an endpoint that only sends the same bytes; from the table, compared with
//! pgbench's select of one row.

use anyhow::{Context, ensure};

use super::fresh::{allowed_clients, pgbench_run};
use crate::bench::{Bench, Site, count, send};
use crate::database::Database;
use crate::fill::{Fill, KEYS_AND_PAYMENTS, MERCHANT};
use crate::keys::{FIRST_DIGITS, KeyKind};
use crate::load::Keys;
use crate::load::closed::{self, Load};
use crate::options::Plan;
use crate::pgbench::{self, Script};
use crate::report::{Report, Run, Series};
use crate::requests::{Customers, Request};
use crate::rivals::Answer;
use crate::server::{Address, Server};

/// Number of hot keys.
const HOT_KEYS: u64 = 1000;

pub async fn replays(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let plan = &bench.plan;
    bench.progress.expect(1 + 5 * u64::from(plan.rounds));
    bench
        .progress
        .step(&format!("{} keys to replay", plan.cold_keys));
    let site = bench.site("replays").await?;
    fill_by_a_payment(bench, &site, replayable(plan.cold_keys)).await?;

    let replays = Replays::start(bench, &site).await?;
    let clients = replays.best_clients(report).await?;
    for round in 1..=plan.rounds {
        for series in [
            Series::HotKeys,
            Series::Bare,
            Series::OneKey,
            Series::ColdKeys,
        ] {
            report.runs.push(replays.drive(series, round).await?);
        }
        report
            .runs
            .push(replays.select(clients, plan.rounds, round).await?);
    }
    drop(replays);
    bench.server.remove(&site.database).await
}

/// Copies that get the original's answer: one merchant, one customer, keys that pgbench can generate.
fn replayable(count: u64) -> Fill {
    Fill {
        count,
        kind: KeyKind::Digits,
        payment_id: String::new(),
        merchants: 1,
        customers: false,
        expires_in: 3 * 3600..24 * 3600,
        tables: KEYS_AND_PAYMENTS,
    }
}

/// Makes one payment with a service that then stops, and fills the tables with copies of it.
pub async fn fill_by_a_payment(bench: &Bench, site: &Site, fill: Fill) -> anyhow::Result<()> {
    let maker = bench.payonce(site, &[]).await?;
    let mut request = Request::new(&site.api_key, fill.kind, Customers::One);
    let answer = send(maker.address(), request.with_key(&fill.kind.key(0))).await?;
    maker.stop().await?;
    let answer = Answer::received(&answer)?;
    ensure!(
        answer.status == 201,
        "the template's payment: {}",
        answer.status
    );
    let payment: serde_json::Value = serde_json::from_str(&answer.body)?;
    let payment_id = payment["id"]
        .as_str()
        .context("a payment without an id")?
        .to_owned();
    Fill { payment_id, ..fill }.run(&site.database).await
}

struct Replays<'a> {
    bench: &'a Bench,
    database: &'a Database,
    payonce: Server,
    bare: Server,
    request: Request,
    /// Over all rounds, because a requested key stays in memory.
    cold: Keys,
}

impl<'a> Replays<'a> {
    async fn start(bench: &'a Bench, site: &'a Site) -> anyhow::Result<Self> {
        let payonce = bench.payonce(site, &[]).await?;
        let request = Request::new(&site.api_key, KeyKind::Digits, Customers::One);
        let key = KeyKind::Digits.key(0);
        let replay = send(payonce.address(), request.clone().with_key(&key)).await?;
        let answer = Answer::received(&replay)?;
        ensure!(
            answer.status == 201,
            "a copy is not replayed: {} {}",
            answer.status,
            answer.body
        );
        Ok(Self {
            bench,
            database: &site.database,
            payonce,
            bare: bench.bare(&answer).await?,
            request,
            cold: Keys::once_each(KeyKind::Digits, bench.plan.cold_keys),
        })
    }

    async fn drive(&self, series: Series, round: u32) -> anyhow::Result<Run> {
        let connections = self.bench.plan.replay_connections;
        self.bench
            .progress
            .step(&format!("{}, round {round}", series.label()));
        self.bench.server.settle_down().await?;
        let load = self.bench.load(connections);
        let hot = |count| Keys::hot(KeyKind::Digits, count);
        let (to, keys) = match series {
            Series::Bare => (&self.bare, hot(1)),
            Series::OneKey => (&self.payonce, hot(1)),
            // The keys that the cold run may use in this round.
            Series::ColdKeys => (
                &self.payonce,
                self.cold.at_most(cold_share(&self.bench.plan)),
            ),
            _ => (&self.payonce, hot(HOT_KEYS)),
        };
        let run = self
            .checked(to.address(), keys, load, series, round)
            .await?;
        self.bench.progress.say(&format!("{:.0}/s", run.per_second));
        Ok(run)
    }

    async fn checked(
        &self,
        to: Address,
        keys: Keys,
        load: Load,
        series: Series,
        round: u32,
    ) -> anyhow::Result<Run> {
        let before = count(self.database).await?;
        let connections = load.connections;
        let driven = closed::drive(to, self.request.clone(), keys, load).await?;
        let after = count(self.database).await?;
        self.bench
            .checks
            .replayed(before, after, &driven.tally)
            .context(series.label())?;
        Ok(Run::of(series, connections, round, &driven))
    }

    async fn best_clients(&self, report: &mut Report) -> anyhow::Result<u32> {
        let mut best = (0, 0.0);
        for clients in allowed_clients(self.bench) {
            self.bench.progress.expect(1);
            let run = self.select(clients, 0, 0).await?;
            if run.per_second > best.1 {
                best = (clients, run.per_second);
            }
            report.runs.push(run);
        }
        ensure!(
            best.0 > 0,
            "the server allows too few connections for pgbench"
        );
        Ok(best.0)
    }

    async fn select(&self, clients: u32, rounds: u32, round: u32) -> anyhow::Result<Run> {
        let series = Series::SelectOne;
        self.bench.progress.step(&format!(
            "{}, {clients} clients, round {round}",
            series.label()
        ));
        let last = FIRST_DIGITS + self.bench.plan.cold_keys - 1;
        let sql = format!(
            "\\set key random({FIRST_DIGITS}, {last})\n\
             select fingerprint, state, response_status, response_headers, response_body, expires_at \
             from idempotency_keys \
             where merchant_id = '{MERCHANT}' and operation = 'create_payment' and key = :key;\n"
        );
        let script = Script {
            sql: &sql,
            variables: &[],
        };
        let duration = match rounds {
            0 => self.bench.short_load(clients).duration,
            _ => self.bench.plan.duration,
        };
        let found = pgbench::run(
            &self.bench.programs,
            self.database,
            &script,
            clients,
            duration,
        )
        .await?;
        self.bench
            .progress
            .say(&format!("{:.0}/s", found.per_second));
        Ok(pgbench_run(series, clients, round, found))
    }
}

/// Each round gets as many keys as any other.
fn cold_share(plan: &Plan) -> u64 {
    plan.cold_keys / u64::from(plan.rounds.max(1))
}
