//! Two PostgreSQL servers with synchronous replication, whose address moves with a failover.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use super::cluster::Cluster;
use super::proxy::Proxy;

const STANDBY: &str = "standby";

/// Only an event that never happens exceeds it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends every session but its own.
const END_SESSIONS: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
     where backend_type = 'client backend' and pid <> pg_backend_pid()";

/// Two clusters. A commit on the first is on the second before it is confirmed.
pub struct Pair {
    primary: Cluster,
    standby: Option<Cluster>,
    /// The address of the database for the service, which a failover moves.
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

    /// The connect options for a service.
    pub fn options(&self) -> PgConnectOptions {
        self.address.options()
    }

    pub fn primary(&self) -> &Cluster {
        &self.primary
    }

    /// Gives the primary a new standby, and returns once commits wait for it.
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

    /// Cuts the standby off from the primary. After this, commits wait.
    pub fn cut_off(&self) {
        let standby = self.standby.as_ref().expect("a standby");
        standby.down();
        standby.up_with("-c primary_conninfo=''");
    }

    /// The standby follows the primary again, and waiting commits continue.
    pub fn reconnect(&self) {
        let standby = self.standby.as_ref().expect("a standby");
        standby.down();
        standby.up_with(&format!("-c cluster_name={STANDBY}"));
    }

    /// Existing connections carry no more data, but are not closed. New ones work.
    pub fn silence(&self) {
        self.address.silence();
    }

    /// Terminates sessions, as an operator might if statements hang: commits that waited for the standby are then visible, but not
    /// durable.
    pub async fn end_sessions(&self) {
        self.run(END_SESSIONS).await;
    }

    /// Fails over like an operator or Patroni: the old primary must be gone before the new one begins.
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
