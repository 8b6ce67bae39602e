//! Traffic: counts of this node's answers, kept in memory and added to the database every ten seconds, so that the charts show all
//! nodes and survive a restart.
//!
//! Counting costs a request a few atomic additions, and only if the console is on. A node that dies loses the counts of its last
//! ten seconds; a node that stops properly loses nothing.

mod store;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::Data;
use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::Console;

/// Maximum delay of a minute's bar.
const SAVED_EVERY: Duration = Duration::from_secs(10);

/// Older minutes are deleted. The charts show one hour; with a day's rows, an operator can examine the last night with SQL.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How often old minutes are deleted.
const PRUNED_EVERY: Duration = Duration::from_secs(10 * 60);

/// Maximum time that a stopping node waits for its last counts to be saved.
const LAST_SAVE_PATIENCE: Duration = Duration::from_secs(2);

/// The charts' span, in minutes.
pub(super) const MINUTES: usize = 60;

/// Counts of answers: of this node since it last saved, or of all nodes in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Keyed requests that executed.
    pub(super) executed: u64,
    /// Keyed requests that a stored outcome answered.
    pub(super) replayed: u64,
    /// Payments charged or authorized.
    pub(super) made: u64,
    /// Payments declined.
    pub(super) declined: u64,
    /// 202: the gateway did not answer in time.
    pub(super) unknown: u64,
    /// 5xx.
    pub(super) failed: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.executed += other.executed;
        self.replayed += other.replayed;
        self.made += other.made;
        self.declined += other.declined;
        self.unknown += other.unknown;
        self.failed += other.failed;
    }
}

/// The last hour, oldest minute first. The last minute is not over.
pub(super) type Hour = [Counts; MINUTES];

/// The counts of one node that are not saved yet.
#[derive(Default)]
pub(super) struct Traffic {
    executed: AtomicU64,
    replayed: AtomicU64,
    made: AtomicU64,
    declined: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
}

impl Traffic {
    /// `replayed`: the reply's `Idempotent-Replayed`, if it has one.
    fn count(&self, makes_payment: bool, status: u16, replayed: Option<bool>) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match (replayed, status) {
            (Some(true), _) => add(&self.replayed),
            (_, 202) => add(&self.unknown),
            (_, 500..) => add(&self.failed),
            (Some(false), _) => add(&self.executed),
            (None, _) => return,
        };
        match (makes_payment, replayed, status) {
            (true, Some(false), 201) => add(&self.made),
            (true, Some(false), 402) => add(&self.declined),
            _ => return,
        };
    }

    fn take(&self) -> Counts {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Counts {
            executed: take(&self.executed),
            replayed: take(&self.replayed),
            made: take(&self.made),
            declined: take(&self.declined),
            unknown: take(&self.unknown),
            failed: take(&self.failed),
        }
    }

    fn give_back(&self, counts: &Counts) {
        let add = |counter: &AtomicU64, count| counter.fetch_add(count, Ordering::Relaxed);
        add(&self.executed, counts.executed);
        add(&self.replayed, counts.replayed);
        add(&self.made, counts.made);
        add(&self.declined, counts.declined);
        add(&self.unknown, counts.unknown);
        add(&self.failed, counts.failed);
    }

    /// Adds the counts to the database's current minute.
    pub(super) async fn save(&self, pool: &PgPool, node: Uuid) -> sqlx::Result<()> {
        let counts = self.take();
        if counts == Counts::default() {
            return Ok(());
        }
        let saved = store::add_to_minute(pool, node, &counts).await;
        if saved.is_err() {
            self.give_back(&counts);
        }
        saved
    }
}

/// Middleware around every request, if the console is on.
pub async fn count_traffic(
    console: Data<Console>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let is_call = request.method() == Method::POST && request.path().starts_with("/v1/");
    let makes_payment = is_call && request.path() == "/v1/payments";
    let response = next.call(request).await?;
    if is_call {
        let replayed = response.headers().get("idempotent-replayed");
        console.traffic().count(
            makes_payment,
            response.status().as_u16(),
            replayed.map(|value| value == "true"),
        );
    }
    Ok(response)
}

/// Saves every ten seconds, until it is dropped.
pub(super) async fn run(console: Console) {
    let (pool, node) = (console.pool(), console.node());
    let mut ticks = interval(SAVED_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pruned: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let result = async {
            console.traffic().save(pool, node).await?;
            if pruned.is_none_or(|pruned| pruned.elapsed() > PRUNED_EVERY) {
                store::delete_older(pool, KEPT_FOR).await?;
                pruned = Some(Instant::now());
            }
            Ok::<_, sqlx::Error>(())
        };
        if let Err(error) = result.await {
            tracing::warn!(%error, "the console's traffic counts could not be saved; they are saved later");
        }
    }
}

/// Saves for the last time.
pub(super) async fn finish(console: &Console) {
    let saved = console.traffic().save(console.pool(), console.node());
    if tokio::time::timeout(LAST_SAVE_PATIENCE, saved)
        .await
        .is_err()
    {
        tracing::warn!("the console's last traffic counts could not be saved");
    }
}

/// The last hour of all nodes.
pub(super) async fn last_hour(pool: &PgPool) -> sqlx::Result<Hour> {
    let mut hour = [Counts::default(); MINUTES];
    for (minutes_ago, counts) in store::list_minutes(pool).await? {
        let slot = usize::try_from(minutes_ago)
            .ok()
            .and_then(|ago| (MINUTES - 1).checked_sub(ago))
            .and_then(|index| hour.get_mut(index));
        if let Some(slot) = slot {
            slot.add(&counts);
        }
    }
    Ok(hour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_by_what_they_mean() {
        let traffic = Traffic::default();
        for (makes_payment, status, replayed) in [
            (true, 201, Some(false)),
            (true, 201, Some(true)),
            (true, 402, Some(false)),
            (true, 402, Some(true)),
            (true, 202, Some(false)),
            (true, 503, None),
            (true, 422, None),
            (true, 409, None),
            (false, 201, Some(false)),
            (false, 402, Some(false)),
        ] {
            traffic.count(makes_payment, status, replayed);
        }
        let counted = Counts {
            executed: 4,
            replayed: 2,
            made: 1,
            declined: 1,
            unknown: 1,
            failed: 1,
        };
        let taken = traffic.take();
        assert_eq!(taken, counted);
        assert_eq!(traffic.take(), Counts::default(), "each is saved once");
        traffic.give_back(&taken);
        assert_eq!(
            traffic.take(),
            counted,
            "and is not lost where it could not be"
        );
    }
}
