//! A service that takes new payments, where it keeps them, and how it is driven.

use anyhow::Context;

use crate::bench::{Bench, Site, no_api_key};
use crate::database::Database;
use crate::load::closed::Load;
use crate::report::{ReferencePool, Run, Series};
use crate::requests::PATH;
use crate::rivals::Phases;
use crate::server::{Address, Server};
use crate::yardstick::Yardstick;

/// One of those that are driven in turns.
pub struct Subject {
    pub series: Series,
    /// Where it is measured, and by whose programs it was made.
    bench: Bench,
    site: Site,
    path: String,
    service: Service,
}

enum Service {
    /// The same at all numbers of connections.
    One(Server),
    /// At each number of connections the one with the best pool, by the pool's size.
    Pools(Vec<(u32, Server)>, Vec<ReferencePool>),
    /// Started by somebody else.
    Running(Address),
}

impl Subject {
    /// A `payonce serve` with these settings, on a database of its own.
    pub async fn payonce(
        bench: &Bench,
        series: Series,
        name: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let site = bench.site(name).await?;
        let server = bench.payonce(&site, settings).await?;
        Ok(Self {
            series,
            bench: bench.clone(),
            site,
            path: PATH.to_owned(),
            service: Service::One(server),
        })
    }

    /// A per-request handler with the best of these pools at each of these numbers of connections.
    pub async fn per_request(
        bench: &Bench,
        (series, phases): (Series, Phases),
        name: &str,
        pools: &[u32],
        connections: &[u32],
    ) -> anyhow::Result<Self> {
        let database = bench.rival_database(name).await?;
        let mut servers = Vec::new();
        let mut pools = pools.to_vec();
        pools.sort_unstable();
        for pool in pools {
            servers.push((pool, bench.per_request(phases, &database, pool).await?));
        }
        let mut subject = Self {
            series,
            bench: bench.clone(),
            site: Site {
                database,
                api_key: no_api_key(),
            },
            path: PATH.to_owned(),
            service: Service::Pools(Vec::new(), Vec::new()),
        };
        let mut best = Vec::new();
        for &connections in connections {
            let pool = subject.find_best(&servers, connections).await?;
            best.push(ReferencePool { connections, pool });
        }
        // The others' connections are free for others.
        servers.retain(|(pool, _)| best.iter().any(|best| best.pool == *pool));
        subject.service = Service::Pools(servers, best);
        Ok(subject)
    }

    pub fn yardstick(yardstick: &Yardstick) -> Self {
        Self {
            series: Series::Yardstick,
            bench: yardstick.bench.clone(),
            site: yardstick.site.clone(),
            path: yardstick.path.clone(),
            service: Service::Running(yardstick.address),
        }
    }

    async fn find_best(&self, servers: &[(u32, Server)], connections: u32) -> anyhow::Result<u32> {
        let candidates = candidates(servers, connections);
        if let [(only, _)] = candidates {
            return Ok(*only);
        }
        let mut best = (0, 0.0);
        for (pool, server) in candidates {
            self.bench.progress.expect(1);
            let load = self.bench.short_load(connections);
            let run = self.drive_at(server.address(), load, 0).await?;
            if run.per_second > best.1 {
                best = (*pool, run.per_second);
            }
        }
        Ok(best.0)
    }

    /// The best pools of a per-request handler.
    pub fn best_pools(&self) -> &[ReferencePool] {
        match &self.service {
            Service::Pools(_, best) => best,
            Service::One(_) | Service::Running(_) => &[],
        }
    }

    /// Drives it at a number of connections.
    pub async fn drive(&self, connections: u32, round: u32) -> anyhow::Result<Run> {
        let to = self.address(connections)?;
        let load = self.bench.load(connections);
        self.drive_at(to, load, round).await
    }

    fn address(&self, connections: u32) -> anyhow::Result<Address> {
        match &self.service {
            Service::One(server) => Ok(server.address()),
            Service::Running(address) => Ok(*address),
            Service::Pools(servers, best) => {
                let best = best.iter().find(|best| best.connections == connections);
                let pool = best.context("no pool was tried")?.pool;
                let server = servers.iter().find(|(size, _)| *size == pool);
                Ok(server.context("no such pool")?.1.address())
            }
        }
    }

    async fn drive_at(&self, to: Address, load: Load, round: u32) -> anyhow::Result<Run> {
        let bench = &self.bench;
        let connections = load.connections;
        let name = self.series.label();
        bench
            .progress
            .step(&format!("{name}, {connections} connections, round {round}"));
        let driven = bench
            .drive_fresh(to, &self.path, &self.site, load)
            .await
            .context(name)?;
        let run = Run::of(self.series, connections, round, &driven);
        bench.progress.say(&format!(
            "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
            run.per_second, driven.latency.p50_ms, driven.latency.p99_ms
        ));
        Ok(run)
    }

    /// Ends it in good order where it was started here; its database is left.
    pub async fn stop(self) -> anyhow::Result<Database> {
        match self.service {
            Service::One(server) => server.stop().await?,
            Service::Pools(..) | Service::Running(_) => {}
        }
        Ok(self.site.database)
    }

    /// Ends it, and drops the database that was made for it.
    pub async fn finish(self) -> anyhow::Result<()> {
        let bench = self.bench.clone();
        let is_ours = !matches!(self.service, Service::Running(_));
        let database = self.stop().await?;
        if is_ours {
            bench.server.remove(&database).await?;
        }
        Ok(())
    }
}

/// The pools that are worth a try, of pools in order of size: one that is larger than need be is as good as one that is just large enough.
fn candidates<T>(pools: &[(u32, T)], connections: u32) -> &[(u32, T)] {
    let enough = pools.iter().position(|(pool, _)| *pool >= connections);
    &pools[..enough.map_or(pools.len(), |at| at + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_tried_up_to_the_first_that_is_large_enough() {
        let pools = [(20, ()), (60, ()), (120, ())];
        for (connections, tried) in [(1, 1), (20, 1), (21, 2), (128, 3)] {
            assert_eq!(
                candidates(&pools, connections).len(),
                tried,
                "{connections}"
            );
        }
    }
}
