//! Tables that are distributed over the nodes of a cluster, as Citus does it: whether they are, on which node a merchant's rows are,
//! and what the nodes say of themselves.
//!
//! sqlx's macros cannot check most of these queries: a plain PostgreSQL has neither the catalogs nor the functions.

use std::time::Duration;

use quick_cache::sync::Cache;
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use super::{Bounded, acquire};

/// The others are distributed as this one is.
const FIRST_TABLE: &str = "idempotency_keys";

/// How the engine's tables are stored. [`Engine::distribution`](crate::Engine::distribution) returns it; [`distribution`] has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Distribution {
    /// On one server.
    #[default]
    OneServer,
    /// Over the nodes of a cluster, by the first column of every key. All rows of a merchant are on one node.
    ByMerchant,
}

/// Returns how the engine's tables are stored.
///
/// ```no_run
/// # async fn ask(pool: sqlx::PgPool) -> sqlx::Result<()> {
/// use payonce_engine::database::{Distribution, acquire, distribution};
///
/// if distribution(&mut *acquire(&pool).await?).await? == Distribution::ByMerchant {
///     println!("each merchant's rows are on one node of a cluster");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The queries'.
pub async fn distribution(connection: &mut PgConnection) -> sqlx::Result<Distribution> {
    let has_catalog = sqlx::query_scalar!(
        r#"select to_regclass('pg_catalog.pg_dist_partition') is not null as "has_catalog!""#
    )
    .fetch_one(&mut *connection)
    .bounded()
    .await?;
    if !has_catalog {
        return Ok(Distribution::OneServer);
    }
    let is_distributed: bool = sqlx::query_scalar(
        "select exists (
            select
            from pg_catalog.pg_dist_partition
            where logicalrelid = to_regclass($1)
                and partmethod = 'h'
        )",
    )
    .bind(FIRST_TABLE)
    .fetch_one(connection)
    .bounded()
    .await?;
    Ok(if is_distributed {
        Distribution::ByMerchant
    } else {
        Distribution::OneServer
    })
}

/// A node of the cluster, by its number in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node(i32);

impl Node {
    /// Where a merchant is put whose node could not be looked up. Its statements go where its rows are all the same.
    const NOT_KNOWN: Self = Self(-1);

    #[cfg(test)]
    pub(crate) fn numbered(number: i32) -> Self {
        Self(number)
    }
}

/// A shard may move to another node. Until then its merchants' groups wait in the queue of the old one, and are written all the same.
const TIME_TO_LIVE: Duration = Duration::from_secs(60);

/// Limits the memory to a few megabytes.
const MAX_ENTRIES: usize = 50_000;

/// The nodes of merchants. Each merchant is looked up once a minute.
#[derive(Debug)]
pub(crate) struct Nodes {
    pool: PgPool,
    of: Cache<Box<str>, Found>,
}

/// A node, and when it was looked up.
#[derive(Clone, Copy, Debug)]
struct Found {
    node: Node,
    at: Instant,
}

impl Nodes {
    pub(crate) fn new(pool: PgPool) -> Self {
        let of = Cache::new(MAX_ENTRIES);
        Self { pool, of }
    }

    /// Returns the node that has the merchant's rows.
    pub(crate) async fn of(&self, merchant: &str) -> Node {
        if let Some(found) = self.of.get(merchant)
            && found.at.elapsed() < TIME_TO_LIVE
        {
            return found.node;
        }
        match self.look_up(merchant).await {
            Ok(node) => {
                let at = Instant::now();
                self.of.insert(merchant.into(), Found { node, at });
                node
            }
            Err(error) => {
                tracing::warn!(%error, "the node of a merchant's rows could not be looked up");
                Node::NOT_KNOWN
            }
        }
    }

    async fn look_up(&self, merchant: &str) -> sqlx::Result<Node> {
        let mut connection = acquire(&self.pool).await?;
        // The catalog is on the node that is connected to: a node that is down does not delay this.
        let group: i32 = sqlx::query_scalar(
            "select groupid
            from pg_catalog.pg_dist_placement
            where shardid = get_shard_id_for_distribution_column($1::text::regclass, $2::text)
                and shardstate = 1
            order by groupid
            limit 1",
        )
        .bind(FIRST_TABLE)
        .bind(merchant)
        .fetch_one(&mut *connection)
        .bounded()
        .await?;
        Ok(Node(group))
    }
}

/// What a node of the cluster says of itself. [`cluster_nodes`] has an example.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterNode {
    /// `host:port`, as the cluster knows it.
    pub address: String,
    /// `Err` with the reason if it could not be asked.
    pub settings: Result<NodeSettings, String>,
}

/// A node's settings and its clock. [`cluster_nodes`] has an example.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct NodeSettings {
    /// Those of `fsync`, `full_page_writes` and `synchronous_commit` that are off there.
    pub off: Vec<String>,
    /// For example 150018 for PostgreSQL 15.18.
    pub version: u32,
    /// Its clock, in seconds since 1970.
    pub clock: f64,
    /// Milliseconds; 0 if it has none.
    pub statement_timeout: i64,
    /// Milliseconds; 0 if it has none.
    pub lock_timeout: i64,
}

/// Asks every node of the cluster. Returns none if the tables are on [one server](Distribution::OneServer).
///
/// ```no_run
/// # async fn ask(pool: sqlx::PgPool) -> sqlx::Result<()> {
/// use payonce_engine::database::{acquire, cluster_nodes};
///
/// for node in cluster_nodes(&mut *acquire(&pool).await?).await? {
///     match node.settings {
///         Ok(settings) => println!("{}: {:?} is off", node.address, settings.off),
///         Err(reason) => println!("{} does not answer: {reason}", node.address),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The queries', and a time-out if a node neither answers nor refuses connections. A node that refuses them is not an error.
pub async fn cluster_nodes(connection: &mut PgConnection) -> sqlx::Result<Vec<ClusterNode>> {
    if distribution(connection).await? == Distribution::OneServer {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, bool, String)> = sqlx::query_as(
        "select n.nodename || ':' || n.nodeport, r.success, r.result
        from run_command_on_all_nodes($1) r
        join pg_catalog.pg_dist_node n on n.nodeid = r.nodeid
        order by n.groupid, n.nodeid",
    )
    .bind(ASK_OF_A_NODE)
    .fetch_all(connection)
    .bounded()
    .await?;
    let nodes = rows.into_iter().map(|(address, is_answer, answer)| {
        let settings = match is_answer {
            true => serde_json::from_str(&answer).map_err(|error| error.to_string()),
            false => Err(answer),
        };
        ClusterNode { address, settings }
    });
    Ok(nodes.collect())
}

/// The settings are those of a session that the cluster's nodes open to each other: the role's, not those of a client.
const ASK_OF_A_NODE: &str = "select json_build_object(
    'off', array_to_json(array_remove(array[
        case when current_setting('fsync') = 'off' then 'fsync' end,
        case when current_setting('full_page_writes') = 'off' then 'full_page_writes' end,
        case when current_setting('synchronous_commit') = 'off' then 'synchronous_commit' end
    ], null)),
    'version', current_setting('server_version_num')::integer,
    'clock', extract(epoch from clock_timestamp())::float8,
    'statement_timeout', (select setting::bigint from pg_settings where name = 'statement_timeout'),
    'lock_timeout', (select setting::bigint from pg_settings where name = 'lock_timeout')
)::text";
