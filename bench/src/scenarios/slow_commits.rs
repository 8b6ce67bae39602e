//! New payments where a commit takes long: beside a synchronous standby, and on a disk that is slow to flush. payonce and the handler
//! in two phases, in turns.

use super::subject::Subject;
use crate::bench::Bench;
use crate::cluster::Pair;
use crate::report::{Report, Series, Skipped};
use crate::rivals::Phases;
use crate::slow_disk::{self, NoSlowDisk, SlowServer};

const CONNECTIONS: u32 = 128;

pub async fn standby(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    bench.progress.expect(1);
    bench.progress.step("a server with a synchronous standby");
    let pair = Pair::start(bench).await?;
    let bench = bench.on(pair.open().await?);
    let series = [Series::StandbyPayonce, Series::StandbyTwoPhase];
    compare(&bench, series, report).await
}

pub async fn slow_disk(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let Some(slow) = start_slow(bench, report, "slow-disk").await? else {
        return Ok(());
    };
    let series = [Series::SlowDiskPayonce, Series::SlowDiskTwoPhase];
    compare(&slow.bench, series, report).await
}

/// A server on the slow disk; without one the report says so.
pub async fn start_slow(
    bench: &Bench,
    report: &mut Report,
    scenario: &str,
) -> anyhow::Result<Option<SlowServer>> {
    bench.progress.expect(1);
    bench.progress.step("a server on a slow disk");
    match slow_disk::build().await? {
        Ok(library) => {
            let measured = report.slow_disk.as_ref().map(|disk| disk.fsync.clone());
            let slow = slow_disk::start(bench, &library, measured).await?;
            report.slow_disk = Some(slow.disk.clone());
            Ok(Some(slow))
        }
        Err(NoSlowDisk(why)) => {
            eprintln!("payonce-bench: SKIPPED: {scenario}: {why}");
            report.skipped.push(Skipped {
                scenario: scenario.to_owned(),
                why,
            });
            Ok(None)
        }
    }
}

async fn compare(
    bench: &Bench,
    [ours, other]: [Series; 2],
    report: &mut Report,
) -> anyhow::Result<()> {
    let plan = &bench.plan;
    bench.progress.expect(2 * u64::from(plan.rounds));
    let payonce = Subject::payonce(bench, ours, "payonce", &[]).await?;
    let handler = (other, Phases::Two);
    let pools = &plan.slow_commit_pools;
    let handler = Subject::per_request(bench, handler, "two_phase", pools, &[CONNECTIONS]).await?;
    let subjects = [payonce, handler];
    for round in 1..=plan.rounds {
        for turn in 0..subjects.len() {
            // Each round begins with the other one.
            let subject = &subjects[(turn + round as usize) % subjects.len()];
            report.runs.push(subject.drive(CONNECTIONS, round).await?);
        }
    }
    for subject in subjects {
        subject.finish().await?;
    }
    Ok(())
}
