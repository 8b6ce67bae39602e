//! A pair of PostgreSQL's own making, with synchronous replication, whose address moves with a failover.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use super::cluster::Cluster;
use super::proxy::Proxy;

const STANDBY: &str = "standby";

/// Only what never happens runs into it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends every session but its own.
const END_SESSIONS: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
     where backend_type = 'client backend' and pid <> pg_backend_pid()";

/// Two clusters; what commits on the first is on the second before anybody hears of it.
pub struct Pair {
    primary: Cluster,
    standby: Option<Cluster>,
    /// Where the service looks for its database: the address that a failover moves.
    address: Proxy,
}

impl Pair {
    pub async fn start() -> Self {
        let primary = Cluster::start();
        let address = Proxy::start(&primary.options());
        let mut pair = Self {
            primary,
            standby: None,
            address,
        };
        pair.renew_standby().await;
        pair
    }

    /// Where a service finds its database.
    pub fn options(&self) -> PgConnectOptions {
        self.address.options()
    }

    pub fn primary(&self) -> &Cluster {
        &self.primary
    }

    /// Gives the primary a new standby, and returns once it is waited for.
    pub async fn renew_standby(&mut self) {
        // Without the setting in the copy, which otherwise would wait for a standby of its own once it is promoted.
        self.run("alter system reset synchronous_standby_names")
            .await;
        self.run("select pg_reload_conf()").await;
        let standby = Cluster::standby_of(&self.primary, STANDBY);
        self.run("alter system set synchronous_standby_names = 'standby'")
            .await;
        self.run("select pg_reload_conf()").await;
        let deadline = Instant::now() + PATIENCE;
        let pool = self.pool().await;
        let is_followed =
            "select exists (select from pg_stat_replication where sync_state = 'sync')";
        while !sqlx::query_scalar::<_, bool>(is_followed)
            .fetch_one(&pool)
            .await
            .expect("the standbys")
        {
            assert!(Instant::now() < deadline, "nobody follows");
            super::pause().await;
        }
        pool.close().await;
        self.standby = Some(standby);
    }

    /// The standby hears no more of the primary. Commits wait for it from now on.
    pub fn cut_off(&self) {
        let standby = self.standby.as_ref().expect("a standby");
        standby.down();
        standby.up_with("-c primary_conninfo=''");
    }

    /// The standby follows the primary again, and what waited for it goes on.
    pub fn reconnect(&self) {
        let standby = self.standby.as_ref().expect("a standby");
        standby.down();
        standby.up_with(&format!("-c cluster_name={STANDBY}"));
    }

    /// No connection that there is carries anything any more, and none ends. New ones work.
    pub fn silence(&self) {
        self.address.silence();
    }

    /// As an operator does whose statements hang: what waited for the standby is visible afterwards, and is not durable.
    pub async fn end_sessions(&self) {
        self.run(END_SESSIONS).await;
    }

    /// What an operator does, or Patroni: the old one must be gone before the new one begins.
    pub fn fail_over(&mut self) {
        let standby = self.standby.take().expect("a standby");
        self.primary.kill();
        standby.promote();
        self.address.turn_to(&standby.options());
        self.primary = standby;
    }

    async fn pool(&self) -> PgPool {
        PgPool::connect_with(self.primary.options())
            .await
            .expect("the primary")
    }

    async fn run(&self, statement: &'static str) {
        let pool = self.pool().await;
        sqlx::query(statement)
            .execute(&pool)
            .await
            .expect(statement);
        pool.close().await;
    }
}
