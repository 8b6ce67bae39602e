//! A thousand duplicates at once over a gateway of 200 ms: one execution, and all get its answer soon after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use sqlx::Connection;

use crate::bench::{Bench, Site, random_seed, send};
use crate::database::Database;
use crate::keys::KeyKind;
use crate::load::{milliseconds, storm};
use crate::report::{Report, Storm};
use crate::requests::{Customers, Request};
use crate::server::{Address, Server};
use crate::store;

const DUPLICATES: u32 = 1000;

const GATEWAY: &str = "200ms";

pub async fn storm(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    bench.progress.expect(u64::from(bench.plan.storms));
    let site = bench.site("storm").await?;
    let settings = [("PAYONCE_SIMULATED_GATEWAY_LATENCY", GATEWAY)];
    let server = bench.payonce(&site, &settings).await?;
    // The first payment opens the lanes' connections, which a running service has open already.
    one_storm(bench, &site, &server, 1).await?;
    for number in 1..=bench.plan.storms {
        bench
            .progress
            .step(&format!("a storm of {DUPLICATES} duplicates, {number}"));
        let storm = one_storm(bench, &site, &server, DUPLICATES).await?;
        let said = format!(
            "last answer {:.1} ms after the first",
            storm.last_after_first_ms
        );
        bench.progress.say(&said);
        report.storms.push(storm);
    }
    drop(server);
    bench.server.remove(&site.database).await
}

async fn one_storm(
    bench: &Bench,
    site: &Site,
    server: &Server,
    duplicates: u32,
) -> anyhow::Result<Storm> {
    let to = server.address();
    let kind = KeyKind::Uuid {
        seed: random_seed(),
    };
    let request = Request::new(&site.api_key, kind, Customers::One);
    let calls_before = gateway_calls(to).await?;
    let watch = Watch::begin(&site.database).await?;
    let answers = storm::drive(to.socket, &request, &kind.key(1), duplicates).await?;
    let database_connections = watch.end().await?;
    let gateway_calls = gateway_calls(to).await? - calls_before;
    let checks = &bench.checks;
    checks.equal("answers with 201", duplicates.into(), answers.created)?;
    checks.equal("executions", 1, answers.executed)?;
    checks.equal("different bodies", 1, answers.bodies as u64)?;
    checks.equal("gateway calls", 1, gateway_calls)?;
    Ok(Storm {
        duplicates,
        first_answer_ms: milliseconds(answers.first_answer),
        last_after_first_ms: milliseconds(answers.last_after_first),
        gateway_calls,
        database_connections,
    })
}

/// The gateway's charges so far, by the service's own metric. Calls that turn a card into a token are not counted.
async fn gateway_calls(to: Address) -> anyhow::Result<u64> {
    let metrics = send(to, b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let metrics = String::from_utf8(metrics)?;
    charges(&metrics).context("the metrics cannot be read")
}

/// The sum over the outcomes; the metric is absent before its first event.
fn charges(metrics: &str) -> Option<u64> {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("payonce_gateway_requests_total{")?;
        let (labels, value) = rest.split_once("} ")?;
        labels.contains("operation=\"charge\"").then_some(value)
    });
    samples.map(|value| value.parse::<u64>().ok()).sum()
}

/// Polls the number of connections to the database, which are the service's.
struct Watch {
    most: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Watch {
    async fn begin(database: &Database) -> anyhow::Result<Self> {
        let mut connection = database.connect().await?;
        let (most, is_over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen, over) = (Arc::clone(&most), Arc::clone(&is_over));
        let task = tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let count = store::count_connections(&mut connection).await?;
                seen.fetch_max(count.unsigned_abs(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(connection.close().await?)
        });
        Ok(Self {
            most,
            is_over,
            task,
        })
    }

    async fn end(self) -> anyhow::Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.most.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_are_summed_over_their_outcomes() {
        let metrics = "# TYPE payonce_gateway_requests_total counter\n\
            payonce_gateway_requests_total{operation=\"charge\",outcome=\"success\"} 2\n\
            payonce_gateway_requests_total{operation=\"charge\",outcome=\"unknown\"} 3\n\
            payonce_gateway_requests_total{operation=\"tokenize\",outcome=\"success\"} 7\n\
            payonce_payments_total{state=\"SUCCESS\"} 9\n";
        assert_eq!(charges(metrics), Some(5));
        assert_eq!(charges(""), Some(0));
        let spoilt = metrics.replace("} 3", "} three");
        assert_eq!(charges(&spoilt), None);
    }
}
