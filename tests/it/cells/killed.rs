//! The mover dies at each of its steps, and is run again, or its move is undone.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use payonce::merchants::Merchants;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{
    SecondDatabase, age_moves, moved, mover, rows_of, run_beside, run_on, sign, state, triggers,
};
use crate::support::process::{error_line, is_stopped, program};
use crate::support::rows::execute;
use crate::support::service::{Answer, Merchant, Service, count};

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

    /// What `payonce doctor` says of moves: its result, and the text.
    async fn doctor(&self, db: &PgConnectOptions) -> (String, String) {
        let mut doctor = program("payonce", db);
        doctor.args(["doctor", "--json"]);
        let report = crate::support::process::json(&run_beside(doctor).await);
        let findings = report["findings"].as_array().expect("findings");
        let moves = findings.iter().find(|it| it["name"] == "moves");
        let moves = moves.expect("a finding");
        let text = |name: &str| moves[name].as_str().unwrap_or_default().to_owned();
        (text("result"), text("found"))
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

/// Something that an operator did with work of this merchant.
async fn operate(pool: &PgPool, merchant: &str) {
    let noted = sqlx::query(
        "insert into operator_actions (merchant_id, action_id, operator, peer, session_id, action, operation, key) \
         values ($1, gen_random_uuid(), 'ann', '::1', gen_random_uuid(), 'resolve_now', 'o', 'k')",
    );
    noted.bind(merchant).execute(pool).await.expect("noted");
}

async fn assert_nothing_of(pool: &PgPool, merchant: &str) {
    assert_eq!(rows_of(pool, merchant).await, [""; 0]);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn wherever_it_dies_the_same_command_ends_the_move(_: PgPoolOptions, db: PgConnectOptions) {
    let pair = Pair::new(&db).await;
    for (step, while_dead) in STEPS {
        let it = pair.merchant(step).await;
        operate(&pair.here.pool, step).await;
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
    // Each cell keeps its own audit.
    assert_eq!(count(&pair.there.pool, "operator_actions").await, 0);
    let kept = count(&pair.here.pool, "operator_actions").await;
    assert_eq!(kept, STEPS.len() as i64);
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
        if *step == "move-arriving" {
            operate(&pair.there.pool, step).await;
            pair.undo_elsewhere(step).await;
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
    assert_eq!(count(&pair.there.pool, "operator_actions").await, 1);
    pair.merchant("acme").await;
    pair.die("acme", LEFT).await;
    let refused = pair.undo("acme", "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(error_line(&refused).contains("has moved already"));
    let (result, said) = pair.doctor(&pair.db).await;
    let part = "acme is served by cell 2 (the move began ";
    assert!(result == "ok" && said.contains(part), "{result}: {said}");
    let (result, said) = pair.doctor(&pair.other.options).await;
    let part = "acme is being moved here";
    assert!(
        result == "warning" && said.contains(part),
        "{result}: {said}"
    );
    moved(mover(&pair.db, &pair.other.options, "acme")).await;
    pair.assert_a_lost_end_is_not_undone("acme").await;
}

impl Pair {
    /// Undoes the move with the URL of a wrong database: the copy stays where it is.
    async fn undo_elsewhere(&self, merchant: &str) {
        let third = SecondDatabase::create(&self.db).await;
        let mut undo = mover(&self.db, &third.options, merchant);
        undo.arg("--undo");
        let undone = run_beside(undo).await;
        assert!(undone.status.success(), "{undone:?}");
        let said = String::from_utf8_lossy(&undone.stderr).into_owned();
        assert!(said.contains("nothing of this move has arrived"), "{said}");
        assert_eq!(state(&self.here.pool, merchant).await, "-");
        assert_eq!(state(&self.there.pool, merchant).await, "ARRIVING");
    }

    /// The merchant has moved, and the source's standby took over without knowing that.
    async fn assert_a_lost_end_is_not_undone(&self, merchant: &str) {
        let set = |state: &str| {
            format!(
                "begin; set local payonce.moving = '{merchant}'; \
                 update merchants set move_state = '{state}' where merchant_id = '{merchant}'; commit"
            )
        };
        run_on(&self.db, &set("COPYING")).await;
        let undo = || {
            let mut undo = mover(&self.db, &self.other.options, merchant);
            undo.arg("--undo");
            undo
        };
        for command in [undo(), mover(&self.db, &self.other.options, merchant)] {
            let refused = run_beside(command).await;
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            let said = error_line(&refused);
            assert!(said.contains("has lost the end of the move"), "{said}");
            assert_eq!(state(&self.here.pool, merchant).await, "COPYING");
            assert_eq!(state(&self.there.pool, merchant).await, "-");
        }
        // What docs/OPERATIONS.md says.
        run_on(&self.db, &set("MOVED")).await;
        moved(mover(&self.db, &self.other.options, merchant)).await;

        // Another merchant of this ID, which has nothing to do with the move.
        run_on(&self.db, &set("COPYING")).await;
        execute(
            &self.there.pool,
            "update merchants set created_at = created_at + interval '1 second' where merchant_id = 'acme'",
        )
        .await;
        let refused = run_beside(mover(&self.db, &self.other.options, merchant)).await;
        let said = error_line(&refused);
        for part in [
            "exists in the destination's database, and is served there",
            "the merchant's writes stay refused until its move is ended, or is undone with --undo",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let undone = run_beside(undo()).await;
        assert!(undone.status.success(), "{undone:?}");
        assert_eq!(state(&self.here.pool, merchant).await, "-");
        assert_eq!(state(&self.there.pool, merchant).await, "-");
    }
}

/// What arrives somewhere by another move is not opened by this one.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn only_its_own_copy_is_opened(_: PgPoolOptions, db: PgConnectOptions) {
    let pair = Pair::new(&db).await;
    pair.merchant("acme").await;
    pair.die("acme", LEFT).await;
    run_on(
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

/// A mover is paused before it copies, and loses its sessions and the lock. Another one ends its move, and the merchant pays in its new
/// cell. Then the first one goes on.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_late_movers_copy_replaces_nothing_that_is_served(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pair = Pair::new(&db).await;
    let it = pair.merchant("acme").await;
    pair.die("acme", "move-claims-refused").await;
    let mut command = mover(&db, &pair.other.options, "acme");
    command
        .env("FAILPOINTS", "move-arriving=return(stop)")
        .stderr(Stdio::piped());
    let late = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn();
    let late = late.expect("the program runs");
    let id = late.id().expect("a process id");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_stopped(id) {
        assert!(Instant::now() < deadline, "it does not stop");
        crate::support::pause().await;
    }
    for pool in [&pair.here.pool, &pair.there.pool] {
        execute(
            pool,
            "select pg_terminate_backend(l.pid, 30000) from pg_locks l join pg_database d on d.oid = l.database \
             where l.locktype = 'advisory' and d.datname = current_database() and l.pid <> pg_backend_pid()",
        )
        .await;
    }
    moved(mover(&db, &pair.other.options, "acme")).await;
    let new = it.api_keys[2].at(&pair.there).pay("10").key("new");
    assert_eq!(new.send().await.status, 201);
    let rows = rows_of(&pair.there.pool, "acme").await;

    let id = i32::try_from(id).expect("a process id");
    kill(Pid::from_raw(id), Signal::SIGCONT).expect("the signal is sent");
    let ended = late.wait_with_output().await.expect("its output");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        said.contains("no longer arrives at the destination"),
        "{said}"
    );
    assert_eq!(rows_of(&pair.there.pool, "acme").await, rows);
}
