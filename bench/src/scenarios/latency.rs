//! The latency that payonce adds to a gateway's 100 ms, at a steady 200 payments a second.

use crate::bench::{Bench, count, random_seed};
use crate::load::Keys;
use crate::load::open::{self, Pace};
use crate::report::{AddedLatency, Report};
use crate::requests::{Customers, Request};

const GATEWAY_MS: u32 = 100;

pub async fn latency(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let plan = &bench.plan;
    bench.progress.expect(plan.rounds.into());
    let site = bench.site("latency").await?;
    let gateway = format!("{GATEWAY_MS}ms");
    let settings = [("PAYONCE_SIMULATED_GATEWAY_LATENCY", gateway.as_str())];
    let server = bench.payonce(&site, &settings).await?;
    for round in 1..=plan.rounds {
        bench.progress.step(&format!(
            "{} payments a second over a gateway, round {round}",
            plan.steady_rate
        ));
        bench.server.settle_down().await?;
        let before = count(&site.database).await?;
        let keys = Keys::fresh(random_seed());
        let request = Request::new(&site.api_key, keys.kind(), Customers::Many);
        let pace = Pace::new(plan.steady_rate, plan.warm_up, plan.steady_duration);
        let tally = open::drive(server.address().socket, request, keys, pace).await?;
        let after = count(&site.database).await?;
        bench.checks.created(before, after, &tally)?;
        let waits = tally.latency();
        let added = AddedLatency {
            gateway_ms: GATEWAY_MS.into(),
            p50_ms: waits.p50_ms - f64::from(GATEWAY_MS),
            p99_ms: waits.p99_ms - f64::from(GATEWAY_MS),
            payments: tally.measured,
        };
        bench.progress.say(&format!(
            "p50 +{:.1} ms, p99 +{:.1} ms",
            added.p50_ms, added.p99_ms
        ));
        report.gateway.push(added);
    }
    drop(server);
    bench.server.remove(&site.database).await
}
