//! Tests of each condition of the payments' statements, with a row that only this condition leaves out. `tests/mutants.json` names
//! them.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::DateTime;
use serde_json::json;
use sqlx::postgres::types::PgInterval;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::store::{self, ClaimTerms, Claimed, PaymentClaim, PaymentSettle, RowLocations};
use super::{Customer, Operation, Payment, PaymentState};
use crate::gateway::{CaptureMethod, GatewayToken};
use crate::idempotency::database::{interval, may_be_one_items_fault};
use crate::idempotency::grouped::{KeyColumns, ResponseColumns};
use crate::idempotency::{IdempotencyKey, ScopedKey};
use crate::money::{Amount, Currency};

pub(super) fn payment(id: &str) -> Payment {
    let usd = Currency::from_code("USD").expect("USD");
    Payment {
        merchant_id: "acme".to_owned(),
        id: id.to_owned(),
        idempotency_key: "k".to_owned(),
        state: PaymentState::Processing,
        amount: Amount::from_minor(100, usd),
        captured: Amount::zero(usd),
        refunded: Amount::zero(usd),
        refunding: Amount::zero(usd),
        pending: None,
        pending_attempt: None,
        capture_method: CaptureMethod::Automatic,
        gateway_type: "simulated".to_owned(),
        gateway_account: None,
        gateway_token: Some(GatewayToken::new("tok_1")),
        gateway_transaction_id: None,
        card: None,
        customer: Customer::default(),
        off_session: false,
        cancellation_reason: None,
        description: None,
        metadata: BTreeMap::new(),
        failure: None,
        created_at: DateTime::default(),
        updated_at: DateTime::default(),
    }
}

fn seconds(seconds: u64) -> PgInterval {
    interval(Duration::from_secs(seconds))
}

/// The result of a claim of `k`.
#[derive(Debug, PartialEq)]
enum Came {
    Claimed,
    Found,
    InUse,
}

struct Database {
    pool: PgPool,
    owner: Uuid,
    /// Whether settles are told where the rows are.
    locates: bool,
}

impl Database {
    /// With a claim on `k`, for `pay_1`.
    async fn with_a_claim(pool: PgPool) -> Self {
        let database = Self {
            pool,
            owner: Uuid::now_v7(),
            locates: false,
        };
        database
            .run("insert into merchants (merchant_id, name) values ('acme', 'Acme')")
            .await;
        assert_eq!(database.claim("pay_1").await, Came::Claimed);
        database
    }

    /// The same, and its settles go by the rows' locations.
    async fn with_a_located_claim(pool: PgPool) -> Self {
        Self {
            locates: true,
            ..Self::with_a_claim(pool).await
        }
    }

    async fn run(&self, sql: &str) {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .expect(sql);
    }

    async fn claim(&self, id: &str) -> Came {
        match self.claim_all(&[("k", id)]).await.expect("asked").pop() {
            None | Some(None) => Came::InUse,
            Some(Some(Claimed::Found(_))) => Came::Found,
            Some(Some(Claimed::New(_))) => Came::Claimed,
        }
    }

    /// Claims keys for payments, in one group.
    async fn claim_all(&self, group: &[(&str, &str)]) -> sqlx::Result<Vec<Option<Claimed>>> {
        let terms = ClaimTerms {
            owner: self.owner,
            lock_timeout: seconds(60),
            ttl: seconds(86_400),
        };
        let mut connection = self.pool.acquire().await.expect("a connection");
        with_claims(group, async |claims| {
            store::claim_payments(&mut connection, &terms, claims).await
        })
        .await
    }

    /// Whether the answer of `k` is found without a claim.
    async fn finds_answer(&self) -> bool {
        let mut connection = self.pool.acquire().await.expect("a connection");
        let found = with_claims(&[("k", "pay_2")], async |claims| {
            store::find_answers(&mut connection, claims).await
        })
        .await
        .expect("asked");
        matches!(found.as_slice(), [Some(Claimed::Found(_))])
    }

    async fn count(&self, table: &str) -> i64 {
        let count = AssertSqlSafe(format!("select count(*) from {table}"));
        let count = sqlx::query_scalar(count).fetch_one(&self.pool).await;
        count.expect("counted")
    }

    async fn settle(&self, owner: Uuid, attempt: i32) -> bool {
        let locations = match self.locates {
            true => Some(self.locations("k").await),
            false => None,
        };
        self.settle_at(owner, attempt, locations).await
    }

    async fn settle_at(&self, owner: Uuid, attempt: i32, locations: Option<RowLocations>) -> bool {
        let mut settled = payment("pay_1");
        settled.state = PaymentState::Success;
        settled.captured = settled.amount;
        settled.gateway_transaction_id = Some("ch_1".to_owned());
        let settle = PaymentSettle {
            attempt,
            payment: &settled,
            response: ResponseColumns {
                state: "COMPLETED",
                status: 201,
                headers: json!([]),
                body: b"{}",
            },
            locations,
        };
        let mut connection = self.pool.acquire().await.expect("a connection");
        let operation = Operation::CreatePayment.as_str();
        let settled = store::settle_payments(&mut connection, operation, owner, &[settle]).await;
        settled.expect("asked") == [true]
    }

    /// Where the rows of a key are now.
    async fn locations(&self, key: &str) -> RowLocations {
        let [key, unsettled_key, payment] = [
            ("idempotency_keys", "key"),
            ("unsettled_keys", "key"),
            ("payments", "idempotency_key"),
        ]
        .map(async |(table, column)| {
            let sql = format!("select ctid from {table} where {column} = $1");
            let location = sqlx::query_scalar(AssertSqlSafe(sql)).bind(key);
            location.fetch_optional(&self.pool).await.expect("asked")
        });
        // What is settled has no row in `unsettled_keys`, and any location will do.
        let key = key.await.expect("a key");
        RowLocations {
            key,
            unsettled_key: unsettled_key.await.unwrap_or(key),
            payment: payment.await.unwrap_or(key),
        }
    }

    async fn payment_state(&self) -> Option<PaymentState> {
        let mut connection = self.pool.acquire().await.expect("a connection");
        store::find_state_by_key(&mut connection, "acme", "k")
            .await
            .expect("asked")
    }

    async fn remove_payment(&self) {
        let mut connection = self.pool.acquire().await.expect("a connection");
        store::remove_payment(&mut connection, "acme", "pay_1")
            .await
            .expect("asked");
    }
}

/// The claims of a group of keys for payments.
async fn with_claims<T>(
    group: &[(&str, &str)],
    ask: impl AsyncFnOnce(&[PaymentClaim<'_>]) -> T,
) -> T {
    let scopes = group.iter().map(|(key, _)| {
        let key = IdempotencyKey::new(*key).expect("a key");
        ScopedKey::new("acme", Operation::CreatePayment.as_str(), key)
    });
    let scopes: Vec<ScopedKey> = scopes.collect();
    let payments = group.iter().map(|(key, id)| Payment {
        idempotency_key: (*key).to_owned(),
        ..payment(id)
    });
    let payments: Vec<Payment> = payments.collect();
    let claim = |(scope, payment)| PaymentClaim {
        key: KeyColumns {
            scope,
            fingerprint: &[7; 32],
            fingerprint_fields: "#00000000\n",
        },
        payment,
    };
    let claims: Vec<PaymentClaim<'_>> = scopes.iter().zip(&payments).map(claim).collect();
    ask(&claims).await
}

const EXPIRE: &str = "update idempotency_keys set expires_at = now() - interval '1 second'";

async fn expect_settles_of_the_owner_only(database: Database) {
    assert!(!database.settle(Uuid::now_v7(), 1).await);
    assert_eq!(
        database.payment_state().await,
        Some(PaymentState::Processing)
    );
    assert!(database.settle(database.owner, 1).await);
    assert_eq!(database.payment_state().await, Some(PaymentState::Success));
    assert_eq!(database.count("unsettled_keys").await, 0);
}

async fn expect_settles_of_the_attempt_only(database: Database) {
    database
        .run("update idempotency_keys set attempt = 2")
        .await;
    assert!(!database.settle(database.owner, 1).await);
    assert!(database.settle(database.owner, 2).await);
}

async fn expect_settles_of_what_is_unfinished_only(database: Database) {
    assert!(database.settle(database.owner, 1).await);
    assert!(!database.settle(database.owner, 1).await);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_settle_is_for_the_owner(pool: PgPool) {
    expect_settles_of_the_owner_only(Database::with_a_claim(pool).await).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_settle_in_place_is_for_the_owner(pool: PgPool) {
    expect_settles_of_the_owner_only(Database::with_a_located_claim(pool).await).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_settle_is_for_the_attempt(pool: PgPool) {
    expect_settles_of_the_attempt_only(Database::with_a_claim(pool).await).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_settle_in_place_is_for_the_attempt(pool: PgPool) {
    expect_settles_of_the_attempt_only(Database::with_a_located_claim(pool).await).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_settle_is_for_what_is_unfinished(pool: PgPool) {
    expect_settles_of_what_is_unfinished_only(Database::with_a_claim(pool).await).await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_settle_in_place_is_for_what_is_unfinished(pool: PgPool) {
    expect_settles_of_what_is_unfinished_only(Database::with_a_located_claim(pool).await).await;
}

/// A renewed lease moves the key's row, and anything else may move the others. All three are written, or none.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn rows_that_have_moved_are_found_by_their_keys(pool: PgPool) {
    let database = Database::with_a_located_claim(pool).await;
    for table in ["idempotency_keys", "unsettled_keys", "payments"] {
        let locations = database.locations("k").await;
        let moving = format!("update {table} set merchant_id = merchant_id");
        database.run(&moving).await;
        assert_ne!(locations, database.locations("k").await, "{table}");
        let settled = database.settle_at(database.owner, 1, Some(locations)).await;
        assert!(settled, "{table}");
        let state = database.payment_state().await;
        assert_eq!(state, Some(PaymentState::Success), "{table}");
        assert_eq!(database.count("unsettled_keys").await, 0, "{table}");
        for table in ["idempotency_keys", "payments"] {
            database.run(&format!("delete from {table}")).await;
        }
        assert_eq!(database.claim("pay_1").await, Came::Claimed);
    }
}

/// Another row may be stored where one was.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_settle_in_place_leaves_the_rows_of_other_keys_alone(pool: PgPool) {
    let database = Database::with_a_located_claim(pool).await;
    let claimed = database.claim_all(&[("l", "pay_2")]).await.expect("asked");
    assert!(matches!(claimed.as_slice(), [Some(Claimed::New(_))]));
    let others = database.locations("l").await;
    for mixed in [
        |_, others: RowLocations| others,
        |own, others: RowLocations| RowLocations {
            unsettled_key: others.unsettled_key,
            ..own
        },
        |own, others: RowLocations| RowLocations {
            payment: others.payment,
            ..own
        },
    ] {
        let locations = mixed(database.locations("k").await, others);
        let settled = database.settle_at(database.owner, 1, Some(locations)).await;
        assert!(settled, "{locations:?}");
        assert_eq!(database.payment_state().await, Some(PaymentState::Success));
        assert_eq!(database.locations("l").await, others, "{locations:?}");
        assert_eq!(database.count("unsettled_keys").await, 1, "{locations:?}");
        for sql in [
            "delete from idempotency_keys where key = 'k'",
            "delete from payments where idempotency_key = 'k'",
        ] {
            database.run(sql).await;
        }
        assert_eq!(database.claim("pay_1").await, Came::Claimed);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_claim_that_finds_one_under_way_is_in_use(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    assert_eq!(database.claim("pay_2").await, Came::InUse);
    assert!(database.settle(database.owner, 1).await);
    assert_eq!(database.claim("pay_2").await, Came::Found);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_answer_past_its_time_is_not_found(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    assert!(database.settle(database.owner, 1).await);
    database.run(EXPIRE).await;
    assert_eq!(database.claim("pay_2").await, Came::InUse, "its payment is");
}

/// A look finds what a claim finds.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_look_finds_only_a_final_answer_in_its_time(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    assert!(!database.finds_answer().await, "it is under way");
    assert!(database.settle(database.owner, 1).await);
    assert!(database.finds_answer().await);
    for (column, own, other) in [
        ("merchant_id", "acme", "globex"),
        ("operation", Operation::CreatePayment.as_str(), "order"),
        ("key", "k", "l"),
    ] {
        for (value, is_found) in [(other, false), (own, true)] {
            let change = format!("update idempotency_keys set {column} = '{value}'");
            database.run(&change).await;
            assert_eq!(database.finds_answer().await, is_found, "{column} {value}");
        }
    }
    database.run(EXPIRE).await;
    assert!(!database.finds_answer().await, "it is past its time");
}

/// The payment was removed or never existed: only the key's row decides.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_claim_replaces_only_what_is_finished(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    database.run(EXPIRE).await;
    database.run("delete from payments").await;
    database.run("delete from unsettled_keys").await;
    assert_eq!(database.claim("pay_2").await, Came::InUse);
    assert_eq!(database.payment_state().await, None, "no key, no payment");
}

/// One of a group has a key without a payment. Neither is claimed, and the error asks for them one by one.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_group_whose_keys_and_payments_differ_is_not_claimed(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    database.run("delete from payments").await;
    let group = [("k", "pay_2"), ("l", "pay_3")];
    let error = database.claim_all(&group).await.err().expect("refused");
    assert!(may_be_one_items_fault(&error), "{error}");
    assert_eq!(database.count("payments").await, 0);
    assert_eq!(database.count("idempotency_keys").await, 1);
    for (one, claimed) in group.iter().zip([0, 1]) {
        let results = database.claim_all(std::slice::from_ref(one)).await;
        let results = results.expect("asked");
        assert_eq!(results.iter().flatten().count(), claimed);
    }
    assert_eq!(database.count("payments").await, 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_claim_replaces_only_what_is_past_its_time(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    assert!(database.settle(database.owner, 1).await);
    database.run("delete from payments").await;
    assert_eq!(database.claim("pay_2").await, Came::InUse);
    database.run(EXPIRE).await;
    assert_eq!(database.claim("pay_2").await, Came::Claimed);
}

/// A payment is remembered longer than its key.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_claim_leaves_out_what_has_a_payment(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    assert!(database.settle(database.owner, 1).await);
    database.run("delete from idempotency_keys").await;
    assert_eq!(database.claim("pay_2").await, Came::InUse);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_claim_that_has_a_payment_fails_no_group(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    assert!(database.settle(database.owner, 1).await);
    database.run("delete from idempotency_keys").await;
    let group = [("k", "pay_2"), ("l", "pay_3")];
    let claimed = database.claim_all(&group).await.expect("asked");
    assert!(matches!(claimed.as_slice(), [None, Some(Claimed::New(_))]));
    let keys = database.count("idempotency_keys").await;
    assert_eq!(keys, 1, "no key without its payment");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_payment_with_an_outcome_is_not_removed(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    assert!(database.settle(database.owner, 1).await);
    database.remove_payment().await;
    assert_eq!(database.payment_state().await, Some(PaymentState::Success));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_payment_under_way_is_removed(pool: PgPool) {
    let database = Database::with_a_claim(pool).await;
    database.remove_payment().await;
    assert_eq!(database.payment_state().await, None);
}
