//! Renewal of the leases by which others know that this process is at work on its claims.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::Engine;
use crate::clock::Moment;
use crate::database::{self, Bounded, Distribution, Node};
use crate::key::ScopedKey;
use crate::lease::Lease;
use crate::store;

/// Maximum number of merchants of one node whose leases are renewed at the same time, where the tables are distributed by merchant.
const RENEWED_AT_ONCE: usize = 8;

type Due = Vec<(ScopedKey, Arc<Lease>)>;

impl Engine {
    pub(super) fn renew_leases_while_alive(&self) {
        let shared = Arc::downgrade(&self.0);
        let mut ticks = {
            let _entered = self.0.runtime.enter();
            interval((self.0.config.lock_timeout / 4).max(Duration::from_millis(10)))
        };
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.0.runtime.spawn(async move {
            let mut renewals = Renewals::default();
            loop {
                ticks.tick().await;
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                Self(shared).renew_leases(&mut renewals).await;
            }
        });
    }

    /// Renews the leases of all claims of this process. Recent leases are left out: most of their time is left.
    async fn renew_leases(&self, renewals: &mut Renewals) {
        let due = self
            .0
            .flights
            .unconfirmed_for(self.0.config.lock_timeout / 4);
        if due.is_empty() {
            return;
        }
        if self.0.distribution == Distribution::OneServer {
            return warn_unless_renewed(self.renew_together(due, None).await);
        }
        let mut by_node: HashMap<Node, HashMap<String, Due>> = HashMap::new();
        for (key, lease) in due {
            let of_node = by_node.entry(self.nodes().of(&key.merchant_id).await);
            let of_merchant = of_node.or_default().entry(key.merchant_id.clone());
            of_merchant.or_default().push((key, lease));
        }
        for (node, by_merchant) in by_node {
            let engine = self.clone();
            renewals.start(&self.0.runtime, node, async move {
                let engine = &engine;
                stream::iter(by_merchant)
                    .for_each_concurrent(RENEWED_AT_ONCE, |(merchant, due)| async move {
                        warn_unless_renewed(engine.renew_together(due, Some(&merchant)).await);
                    })
                    .await;
            });
        }
    }

    /// Renews one lease. A claim that another process has taken over is lost.
    pub(super) async fn renew(&self, key: &ScopedKey, lease: &Arc<Lease>) -> sqlx::Result<()> {
        let of = match self.0.distribution {
            Distribution::OneServer => None,
            Distribution::ByMerchant => Some(key.merchant_id.as_str()),
        };
        self.renew_together(vec![(key.clone(), Arc::clone(lease))], of)
            .await
    }

    /// Renews leases in one statement; those of one merchant, if it is given.
    async fn renew_together(&self, mut due: Due, of: Option<&str>) -> sqlx::Result<()> {
        // In the order in which groups lock the same rows, so that neither waits for the other in a circle. It is only as good as the plan,
        // which reads a table of more than a few rows by its index, in this order.
        due.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut connection = database::acquire(&self.0.pool).await?;
        let sent = Moment::now();
        let keys: Vec<(&ScopedKey, i32)> = due
            .iter()
            .map(|(key, lease)| (key, lease.attempt))
            .collect();
        let (owner, lock_timeout) = (self.0.owner, self.0.config.lock_timeout);
        let renewed = match of {
            None => {
                store::renew_leases(&mut connection, owner, &keys, lock_timeout)
                    .bounded()
                    .await
            }
            Some(of) => {
                store::renew_leases_of(&mut connection, of, owner, &keys, lock_timeout)
                    .bounded()
                    .await
            }
        };
        let renewed: HashSet<ScopedKey> = renewed?.into_iter().collect();
        for (key, lease) in &due {
            if renewed.contains(key) {
                lease.confirm(sent);
            } else {
                lease.lose();
            }
        }
        Ok(())
    }
}

fn warn_unless_renewed(renewed: sqlx::Result<()>) {
    if let Err(error) = renewed {
        tracing::warn!(%error, "leases could not be renewed; their claims may be taken over");
    }
}

/// The renewals at the nodes of a cluster, at most one for each node. One that waits for a node that does not answer delays no other.
#[derive(Default)]
struct Renewals(HashMap<Node, JoinHandle<()>>);

impl Renewals {
    /// Starts a renewal, unless the node's last one has not ended.
    fn start(
        &mut self,
        runtime: &Handle,
        node: Node,
        renewal: impl Future<Output = ()> + Send + 'static,
    ) {
        if self.0.get(&node).is_none_or(JoinHandle::is_finished) {
            self.0.insert(node, runtime.spawn(renewal));
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::{FingerprintSecrets, IdempotencyConfig, IdempotencyKey};

    /// A group locks the same rows in the order of their keys.
    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn leases_are_renewed_in_the_order_of_their_keys(
        _: PgPoolOptions,
        database: PgConnectOptions,
    ) {
        let secrets = FingerprintSecrets::new("secret");
        // A table of two rows would be read as a whole. One of real size is read by its index, key by key.
        let database = database.options([("enable_seqscan", "off"), ("enable_hashjoin", "off")]);
        let engine = Engine::connect(database, 4, IdempotencyConfig::default(), &secrets).await;
        let engine = engine.expect("a fit database");
        let pool = engine.pool();
        let mut due = Vec::new();
        for key in ["b", "a"] {
            let insert = "insert into idempotency_keys values \
                          ('acme', 'make', $1, decode(repeat('00', 32), 'hex'), 2, '', 'PROCESSING', 1, $2, \
                           now() + interval '1 minute', null, null, null, null, now(), null, now() + interval '1 day')";
            let insert = sqlx::query(insert).bind(key).bind(engine.owner());
            insert.execute(pool).await.expect("a claim");
            let scope = ScopedKey::new("acme", "make", IdempotencyKey::new(key).expect("a key"));
            due.push((scope, Lease::new(1, Moment::now())));
        }
        let mut group = pool.begin().await.expect("a transaction");
        let lock_first = "select from idempotency_keys where key = 'a' for update";
        let locked = sqlx::query(lock_first).execute(&mut *group).await;
        locked.expect("locked");
        let renewing = engine.clone();
        let renewal = tokio::spawn(async move { renewing.renew_together(due, None).await });
        let waits = "select exists (select from pg_stat_activity \
                     where datname = current_database() and wait_event_type = 'Lock')";
        while !sqlx::query_scalar::<_, bool>(waits)
            .fetch_one(pool)
            .await
            .expect("the sessions")
        {
            assert!(!renewal.is_finished(), "it waits for the first key");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let free = "select key from idempotency_keys for update skip locked";
        let free: Vec<String> = sqlx::query_scalar(free)
            .fetch_all(pool)
            .await
            .expect("the keys");
        assert_eq!(
            free,
            ["b"],
            "the renewal holds no key while it waits for an earlier one"
        );
        group.rollback().await.expect("an end");
        renewal.await.expect("no panic").expect("renewed");
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_delays_no_other_and_is_asked_once() {
        let runtime = Handle::current();
        let (ended, mut order) = mpsc::unbounded_channel();
        let renewal = |name: &'static str, gate: Option<oneshot::Receiver<()>>| {
            let ended = ended.clone();
            async move {
                if let Some(gate) = gate {
                    gate.await.expect("the gate is opened");
                }
                ended.send(name).expect("the test listens");
            }
        };
        let (silent, other) = (Node::numbered(1), Node::numbered(2));
        let (open, gate) = oneshot::channel();
        let mut renewals = Renewals::default();
        renewals.start(&runtime, silent, renewal("silent", Some(gate)));
        renewals.start(&runtime, silent, renewal("silent, again", None));
        renewals.start(&runtime, other, renewal("other", None));
        assert_eq!(order.recv().await, Some("other"));
        open.send(()).expect("the renewal waits");
        assert_eq!(order.recv().await, Some("silent"));
        let first = renewals.0.get_mut(&silent).expect("it was started");
        first.await.expect("it ended");
        renewals.start(&runtime, silent, renewal("silent, later", None));
        assert_eq!(order.recv().await, Some("silent, later"));
    }
}
