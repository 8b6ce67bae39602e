//! Tests of each condition of the engine's statements, with a row that only this condition leaves out. `tests/mutants.json` names
//! them.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::database::Distribution;
use super::engine::{Engine, is_this_claim};
use super::error::IdempotencyError;
use super::fingerprint::{FINGERPRINT_VERSION, Fingerprint};
use super::gate::{Claim, Gate, Plan, Settled};
use super::key::{IdempotencyKey, ScopedKey};
use super::record::{Answer, Outcome};
use super::response::StoredResponse;
use super::settle::Settler;
use super::store::{self, Inserted, NewKey};
use super::{FingerprintSecrets, IdempotencyConfig, Wait};

const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
const RESOURCE: &str = "thing_1";

fn scope(key: &str) -> ScopedKey {
    let key = IdempotencyKey::new(key).expect("a key");
    ScopedKey::new("acme", "make", key)
}

fn new_key(key: &str, owner: Uuid) -> NewKey {
    NewKey {
        scope: scope(key),
        fingerprint: Arc::new(Fingerprint {
            version: FINGERPRINT_VERSION,
            hash: [7; 32],
            fields: "#00000000\n".to_owned(),
        }),
        owner,
        lock_timeout: LOCK_TIMEOUT,
        ttl: Duration::from_secs(86_400),
        has_expired: false,
    }
}

fn outcome(status: u16) -> Outcome {
    Outcome::Completed(StoredResponse::json(status, &json!({})).expect("JSON"))
}

/// A database with one claim on `k`, and its owner.
struct Claimed {
    pool: PgPool,
    owner: Uuid,
    inserted: Inserted,
}

impl Claimed {
    async fn new(pool: PgPool) -> Self {
        let owner = Uuid::now_v7();
        let mut connection = pool.acquire().await.expect("a connection");
        let inserted = store::insert_key(&mut connection, &new_key("k", owner))
            .await
            .expect("inserted")
            .expect("unused");
        store::keep_unsettled(&mut connection, &scope("k"), RESOURCE)
            .await
            .expect("kept");
        drop(connection);
        Self {
            pool,
            owner,
            inserted,
        }
    }

    async fn run(&self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .expect(sql);
    }

    /// The claim has its outcome.
    async fn finish(&self) {
        assert!(self.finish_as(self.owner, 1).await, "it is held");
    }

    async fn finish_as(&self, owner: Uuid, attempt: i32) -> bool {
        let mut connection = self.pool.acquire().await.expect("a connection");
        store::finish_key(&mut connection, &scope("k"), owner, attempt, &outcome(200))
            .await
            .expect("asked")
    }

    /// Without the schema's second guard: a final key with a lease.
    async fn finish_and_leave_a_lease(&self, lease: &str) {
        self.finish().await;
        self.run("alter table idempotency_keys drop constraint idempotency_keys_state_columns")
            .await;
        self.run(&format!(
            "update idempotency_keys set lease_expires_at = now() + interval '{lease}'"
        ))
        .await;
    }

    async fn is_there(&self) -> bool {
        sqlx::query_scalar("select exists (select from idempotency_keys)")
            .fetch_one(&self.pool)
            .await
            .expect("asked")
    }

    fn claim(&self) -> Claim {
        Claim {
            scope: scope("k"),
            attempt: 1,
            resource_id: RESOURCE.to_owned(),
            created_at: self.inserted.created_at,
            expires_at: self.inserted.expires_at,
            age: None,
        }
    }

    async fn remove(&self, owner: Uuid, claim: &Claim) -> bool {
        let mut connection = self.pool.acquire().await.expect("a connection");
        store::remove_key(&mut connection, owner, claim)
            .await
            .expect("asked")
    }

    async fn renew(&self, owner: Uuid, attempt: i32) -> bool {
        let mut connection = self.pool.acquire().await.expect("a connection");
        let scope = scope("k");
        let renewed =
            store::renew_leases(&mut connection, owner, &[(&scope, attempt)], LOCK_TIMEOUT).await;
        !renewed.expect("asked").is_empty()
    }

    async fn take_over(&self) -> bool {
        let mut connection = self.pool.acquire().await.expect("a connection");
        store::take_over(&mut connection, &scope("k"), Uuid::now_v7(), LOCK_TIMEOUT)
            .await
            .expect("asked")
            .is_some()
    }

    async fn replace(&self) -> bool {
        let mut connection = self.pool.acquire().await.expect("a connection");
        let key = new_key("k", Uuid::now_v7());
        let inserted = store::insert_key(&mut connection, &key).await;
        assert!(inserted.expect("asked").is_none(), "it has a record");
        store::replace_expired_key(&mut connection, &key)
            .await
            .expect("asked")
            .is_some()
    }

    async fn abandoned(&self, operation: &str) -> usize {
        let mut connection = self.pool.acquire().await.expect("a connection");
        let listed = store::list_abandoned(&mut connection, &[operation], None, 10).await;
        listed.expect("listed").len()
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn finishing_is_for_the_owner(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    assert!(!claimed.finish_as(Uuid::now_v7(), 1).await);
    assert!(claimed.finish_as(claimed.owner, 1).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn finishing_is_for_the_attempt(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.run("update idempotency_keys set attempt = 2").await;
    assert!(!claimed.finish_as(claimed.owner, 1).await);
    assert!(claimed.finish_as(claimed.owner, 2).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn finishing_is_for_what_is_unfinished(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.finish().await;
    assert!(!claimed.finish_as(claimed.owner, 1).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_final_key_is_not_taken_over(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.finish_and_leave_a_lease("-1 second").await;
    assert!(!claimed.take_over().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_whose_lease_holds_is_not_taken_over(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    assert!(!claimed.take_over().await);
    claimed
        .run("update idempotency_keys set lease_expires_at = now() - interval '1 second'")
        .await;
    assert!(claimed.take_over().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_release_is_for_the_owner(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    assert!(!claimed.remove(Uuid::now_v7(), &claimed.claim()).await);
    assert!(claimed.remove(claimed.owner, &claimed.claim()).await);
    assert!(!claimed.is_there().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_release_is_for_the_attempt(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.run("update idempotency_keys set attempt = 2").await;
    assert!(!claimed.remove(claimed.owner, &claimed.claim()).await);
    assert!(claimed.is_there().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_release_is_for_the_resource(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed
        .run("update idempotency_keys set resource_id = 'thing_2'")
        .await;
    assert!(!claimed.remove(claimed.owner, &claimed.claim()).await);
    assert!(claimed.is_there().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_release_is_for_what_is_unfinished(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.finish().await;
    assert!(!claimed.remove(claimed.owner, &claimed.claim()).await);
    assert!(claimed.is_there().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_renewal_is_for_the_owner(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    assert!(!claimed.renew(Uuid::now_v7(), 1).await);
    assert!(claimed.renew(claimed.owner, 1).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_renewal_is_for_the_attempt(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    assert!(!claimed.renew(claimed.owner, 2).await);
    assert!(claimed.renew(claimed.owner, 1).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_renewal_is_for_what_is_unfinished(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.finish_and_leave_a_lease("1 minute").await;
    assert!(!claimed.renew(claimed.owner, 1).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_claim_replaces_only_what_is_finished(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed
        .run("update idempotency_keys set expires_at = now() - interval '1 second'")
        .await;
    assert!(!claimed.replace().await, "it is in PROCESSING");
    claimed.finish().await;
    assert!(claimed.replace().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_claim_replaces_only_what_is_past_its_time(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.finish().await;
    assert!(!claimed.replace().await, "it is remembered");
    claimed
        .run("update idempotency_keys set expires_at = now() - interval '1 second'")
        .await;
    assert!(claimed.replace().await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_key_is_abandoned_once_its_lease_is_over(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    assert_eq!(claimed.abandoned("make").await, 0);
    claimed
        .run("update idempotency_keys set lease_expires_at = now() - interval '1 second'")
        .await;
    assert_eq!(claimed.abandoned("make").await, 1);
    assert_eq!(claimed.abandoned("break").await, 0, "another operation");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_final_key_is_not_abandoned(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.finish_and_leave_a_lease("-1 second").await;
    assert_eq!(claimed.abandoned("make").await, 0);
}

/// The clean-up by key: after it listed a key, the key is used again.
async fn deleted_after(claimed: &Claimed, meanwhile: &str) -> u64 {
    claimed.finish().await;
    claimed
        .run("update idempotency_keys set expires_at = now() - interval '1 second'")
        .await;
    let mut connection = claimed.pool.acquire().await.expect("a connection");
    let listed = store::list_expired(&mut connection, DateTime::UNIX_EPOCH, None, 10)
        .await
        .expect("listed");
    assert_eq!(listed.len(), 1);
    claimed.run(meanwhile).await;
    store::delete_expired(&mut connection, &listed)
        .await
        .expect("asked")
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_clean_up_by_key_deletes_what_is_over(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    assert_eq!(deleted_after(&claimed, "select").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_clean_up_by_key_spares_what_is_unfinished(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    let deleted = deleted_after(
        &claimed,
        "update idempotency_keys set state = 'PROCESSING', lease_expires_at = now(), completed_at = null, \
         response_status = null, response_headers = null, response_body = null",
    );
    assert_eq!(deleted.await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_clean_up_by_key_spares_what_is_not_over(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    let deleted = deleted_after(
        &claimed,
        "update idempotency_keys set expires_at = now() + interval '1 minute'",
    );
    assert_eq!(deleted.await, 0);
}

/// The keys that a clean-up by time counts, lists and deletes.
async fn cleaned_by_time(claimed: &Claimed) -> [u64; 3] {
    let mut connection = claimed.pool.acquire().await.expect("a connection");
    let counted = store::count_expired(&mut connection, None)
        .await
        .expect("counted");
    let listed = store::list_expired(&mut connection, DateTime::UNIX_EPOCH, None, 10)
        .await
        .expect("listed");
    let far = Some(Utc::now() + Duration::from_secs(3600));
    let deleted = store::delete_expired_between(&mut connection, DateTime::UNIX_EPOCH, far)
        .await
        .expect("asked");
    [counted, u64::try_from(listed.len()).expect("few"), deleted]
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_clean_up_by_time_spares_what_is_unfinished(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed
        .run("update idempotency_keys set expires_at = now() - interval '1 second'")
        .await;
    assert_eq!(cleaned_by_time(&claimed).await, [0; 3]);
    claimed.finish().await;
    assert_eq!(cleaned_by_time(&claimed).await, [1; 3]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_clean_up_by_time_spares_what_is_not_over(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    claimed.finish().await;
    claimed
        .run("update idempotency_keys set expires_at = now() + interval '1 minute'")
        .await;
    assert_eq!(cleaned_by_time(&claimed).await, [0; 3]);
}

fn engine(pool: &PgPool) -> Engine {
    let config = IdempotencyConfig::default();
    Engine::on(
        pool.clone(),
        Distribution::OneServer,
        config,
        &FingerprintSecrets::new("secret"),
    )
}

/// After the answer to its commit was lost, a claim is found by its owner, its attempt and its resource.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_lost_claim_is_known_by_owner_attempt_and_resource(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    let engine = engine(&claimed.pool);
    let found = async |owner, resource: &str| {
        let key = new_key("k", owner);
        engine
            .claimed_after_all(&key, resource)
            .await
            .expect("asked")
            .is_some()
    };
    assert!(found(claimed.owner, RESOURCE).await);
    assert!(!found(Uuid::now_v7(), RESOURCE).await, "another's");
    assert!(!found(claimed.owner, "thing_2").await, "another use");
    claimed.run("update idempotency_keys set attempt = 2").await;
    assert!(!found(claimed.owner, RESOURCE).await, "taken over");
}

/// The same for a claim that was planned in a transaction, whose time is known.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_lost_planned_claim_is_known_by_owner_attempt_and_moment(pool: PgPool) {
    let claimed = Claimed::new(pool).await;
    let is_ours = async |owner, inserted: &Inserted| {
        let mut connection = claimed.pool.acquire().await.expect("a connection");
        let seen = store::see_key(&mut connection, &scope("k")).await;
        let seen = seen.expect("asked").expect("there");
        is_this_claim(&seen, &new_key("k", owner), inserted)
    };
    assert!(is_ours(claimed.owner, &claimed.inserted).await);
    assert!(!is_ours(Uuid::now_v7(), &claimed.inserted).await);
    let earlier = Inserted {
        created_at: claimed.inserted.created_at - Duration::from_micros(1),
        ..claimed.inserted
    };
    assert!(!is_ours(claimed.owner, &earlier).await, "an earlier use");
    claimed.run("update idempotency_keys set attempt = 2").await;
    assert!(!is_ours(claimed.owner, &claimed.inserted).await);
}

/// The statement settled nothing, because a lost commit or another process had settled the claim.
struct SettledByAnother;

impl Settler for SettledByAnother {
    async fn try_settle(&self, _: &Engine, _: &Claim) -> Result<Option<Answer>, IdempotencyError> {
        Ok(None)
    }
}

/// Whether a settle takes the row for its own after the answer to its commit was lost.
async fn settles_after(pool: &PgPool, key: &str, meanwhile: &str) -> bool {
    let engine = engine(pool);
    let plan = async |_| {
        Ok::<_, sqlx::Error>(Plan::Call {
            resource_id: RESOURCE.to_owned(),
            work: (),
        })
    };
    let gate = engine
        .claim(&scope(key), &1, Wait::Configured, plan)
        .await
        .expect("a gate");
    let Gate::Claimed { permit, .. } = gate else {
        panic!("not ours")
    };
    let claim = permit.claim().clone();
    let mut connection = pool.acquire().await.expect("a connection");
    let outcome = outcome(201);
    store::finish_key(&mut connection, &claim.scope, engine.owner(), 1, &outcome)
        .await
        .expect("finished");
    sqlx::query(AssertSqlSafe(format!(
        "update idempotency_keys set {meanwhile} where key = '{key}'"
    )))
    .execute(&mut *connection)
    .await
    .expect("moved");
    match engine.settle_by(permit, &SettledByAnother).await {
        Ok(Settled::Stored(answer)) => !answer.replayed,
        Ok(Settled::Lost(answer)) => {
            assert!(answer.is_some(), "the winner's answer");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_lost_settle_is_known_by_owner_attempt_and_moment(pool: PgPool) {
    assert!(settles_after(&pool, "ours", "attempt = attempt").await);
    assert!(!settles_after(&pool, "owner", "owner = gen_random_uuid()").await);
    assert!(!settles_after(&pool, "attempt", "attempt = 2").await);
    let moment = "created_at = created_at + interval '1 microsecond'";
    assert!(!settles_after(&pool, "moment", moment).await);
}
