//! The mover dies at each of its steps, and is run again, or its move is undone.

use payonce::merchants::Merchants;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{SecondDatabase, age_moves, moved, mover, rows_of, run_beside, sign, state, triggers};
use crate::support::process::error_line;
use crate::support::service::{Answer, Merchant, Service};

/// A step, and what the two cells answer to a new payment while the mover is dead: the one that is left, and the other.
const STEPS: [(&str, [u16; 2]); 8] = [
    ("move-announced", [503, 401]),
    ("move-claims-refused", [503, 401]),
    ("move-writes-refused", [503, 401]),
    ("move-arriving", [503, 401]),
    ("move-copied-before-commit", [503, 401]),
    ("move-copied", [503, 503]),
    ("move-left", [503, 503]),
    ("move-opened", [503, 201]),
];

/// From here on the move cannot be undone.
const LEFT: &str = "move-left";

struct Pair {
    db: PgConnectOptions,
    here: Service,
    other: SecondDatabase,
    there: Service,
}

/// A merchant with something of everything, and what its clients were told.
struct Moving {
    /// The keys are not in any node's memory before they are used.
    api_keys: [Merchant; 3],
    told: Vec<(String, Answer)>,
}

impl Pair {
    async fn new(db: &PgConnectOptions) -> Self {
        let other = SecondDatabase::create(db).await;
        let (here, there) = (
            Service::start(db).await,
            Service::start(&other.options).await,
        );
        sign(&here.pool).await;
        sign(&there.pool).await;
        Self {
            db: db.clone(),
            here,
            other,
            there,
        }
    }

    async fn merchant(&self, id: &str) -> Moving {
        let first = self.here.merchant(id).await;
        let mut api_keys = [first.clone(), first.clone(), first.clone()];
        for further in &mut api_keys[1..] {
            let created = Merchants::new(self.here.pool.clone())
                .create_api_key(id)
                .await;
            created
                .expect("a key")
                .api_key
                .expose_secret()
                .clone_into(&mut further.api_key);
        }
        let paid = first.pay("10").key("paid");
        let declined = first.pay("10").card("4000000000000002").key("declined");
        let mut told = Vec::new();
        for (key, request) in [("paid", paid), ("declined", declined)] {
            told.push((key.to_owned(), request.send().await));
        }
        let path = format!("/v1/payments/{}/refunds", told[0].1.text("id"));
        let refund = first.post(&path, json!({"amount": "1"})).key("refund");
        assert_eq!(refund.send().await.status, 201);
        Moving { api_keys, told }
    }

    /// Runs the mover until it dies at this step.
    async fn die(&self, merchant: &str, step: &str) {
        // It waits until every node has seen that the merchant leaves. Here they have.
        let steps: &[&str] = match step {
            "move-announced" => &[step],
            _ => &["move-announced", step],
        };
        for step in steps {
            let mut command = mover(&self.db, &self.other.options, merchant);
            command.env("FAILPOINTS", format!("{step}=return"));
            let died = run_beside(command).await;
            assert_eq!(died.status.code(), None, "{step}: {died:?}");
            age_moves(&self.here.pool).await;
        }
    }

    async fn undo(&self, merchant: &str, failpoints: &str) -> std::process::Output {
        let mut undo = mover(&self.db, &self.other.options, merchant);
        undo.arg("--undo").env("FAILPOINTS", failpoints);
        run_beside(undo).await
    }

    /// What both cells answer to a new payment.
    async fn answers(&self, merchant: &Merchant, key: &str) -> [u16; 2] {
        let here = merchant.at(&self.here).pay("10").key(key).send().await;
        let there = merchant.at(&self.there).pay("10").key(key).send().await;
        [here.status.as_u16(), there.status.as_u16()]
    }
}

async fn assert_replayed(merchant: &Merchant, at: &Service, told: &[(String, Answer)]) {
    for (key, answer) in told {
        let card = match key.as_str() {
            "declined" => "4000000000000002",
            _ => "4242424242424242",
        };
        let request = merchant.at(at).pay("10").card(card).key(key);
        let replay = request.send().await;
        assert!(replay.replayed(), "{key}: {replay:?}");
        assert_eq!(
            (replay.status, &replay.bytes),
            (answer.status, &answer.bytes)
        );
    }
}

async fn assert_nothing_of(pool: &PgPool, merchant: &str) {
    assert_eq!(rows_of(pool, merchant).await, [""; 0]);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn wherever_it_dies_the_same_command_ends_the_move(_: PgPoolOptions, db: PgConnectOptions) {
    let pair = Pair::new(&db).await;
    for (step, while_dead) in STEPS {
        let it = pair.merchant(step).await;
        pair.die(step, step).await;
        assert_eq!(
            pair.answers(&it.api_keys[1], "new").await,
            while_dead,
            "{step}"
        );

        let report = moved(mover(&pair.db, &pair.other.options, step)).await;
        let is_done = step == "move-opened";
        assert_eq!(
            report["writesRefusedMs"] == Value::Null,
            is_done,
            "{step}: {report}"
        );
        let has_copied = !matches!(step, "move-left" | "move-opened");
        assert_eq!(
            report["rows"]["payments"].as_i64(),
            has_copied.then_some(2),
            "{step}"
        );
        let states = (
            state(&pair.here.pool, step).await,
            state(&pair.there.pool, step).await,
        );
        assert_eq!(states, ("MOVED".to_owned(), "-".to_owned()), "{step}");
        if !is_done {
            assert_eq!(
                rows_of(&pair.here.pool, step).await,
                rows_of(&pair.there.pool, step).await
            );
        }
        assert_eq!(
            pair.answers(&it.api_keys[2], "later").await,
            [503, 201],
            "{step}"
        );
        assert_replayed(&it.api_keys[2], &pair.there, &it.told).await;
        // Once more: it has nothing to do.
        let again = moved(mover(&pair.db, &pair.other.options, step)).await;
        assert_eq!(again["haproxyMap"], report["haproxyMap"], "{step}");
    }
    assert_eq!(triggers(&pair.there.pool).await, [""; 0]);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn wherever_it_dies_before_it_has_left_the_move_can_be_undone(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pair = Pair::new(&db).await;
    let before = STEPS.iter().take_while(|(step, _)| *step != LEFT);
    for (step, _) in before {
        let it = pair.merchant(step).await;
        let rows = rows_of(&pair.here.pool, step).await;
        pair.die(step, step).await;
        if *step == "move-copied" {
            let died = pair.undo(step, "undo-deleted=return").await;
            assert_eq!(died.status.code(), None, "{died:?}");
            assert_eq!(state(&pair.here.pool, step).await, "COPYING");
        }
        let undone = pair.undo(step, "").await;
        assert!(undone.status.success(), "{step}: {undone:?}");
        assert_eq!(state(&pair.here.pool, step).await, "-", "{step}");
        assert_eq!(rows_of(&pair.here.pool, step).await, rows, "{step}");
        assert_nothing_of(&pair.there.pool, step).await;
        assert_eq!(
            pair.answers(&it.api_keys[2], "later").await,
            [201, 401],
            "{step}"
        );
        for pool in [&pair.here.pool, &pair.there.pool] {
            assert_eq!(triggers(pool).await, [""; 0], "{step}");
        }
    }
    pair.merchant("acme").await;
    pair.die("acme", LEFT).await;
    let refused = pair.undo("acme", "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(error_line(&refused).contains("has moved already"));
    moved(mover(&pair.db, &pair.other.options, "acme")).await;
}

/// What arrives somewhere by another move is not opened by this one.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn only_its_own_copy_is_opened(_: PgPoolOptions, db: PgConnectOptions) {
    let pair = Pair::new(&db).await;
    pair.merchant("acme").await;
    pair.die("acme", LEFT).await;
    super::run_on(
        &pair.other.options,
        "begin; set local payonce.moving = 'acme'; \
         update merchants set move_id = gen_random_uuid(); commit",
    )
    .await;
    let refused = run_beside(mover(&pair.db, &pair.other.options, "acme")).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = error_line(&refused);
    assert!(said.contains("another copy"), "{said}");
    assert_eq!(state(&pair.there.pool, "acme").await, "ARRIVING");
}
