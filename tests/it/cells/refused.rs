//! A destination that is not fit for the merchant: the move says why, and changes nothing.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};

use super::{SecondDatabase, move_to, mover, run_beside, run_on, sign, state, triggers};
use crate::support::process::{error_line, program};
use crate::support::rows::execute;
use crate::support::service::{Service, Setup, count};

struct Pair {
    here: Service,
    other: SecondDatabase,
    there: PgPool,
}

impl Pair {
    async fn new(db: &PgConnectOptions) -> Self {
        let here = Service::start_with(db, Setup::default()).await;
        here.merchant("acme").await;
        sign(&here.pool).await;
        let other = SecondDatabase::create(db).await;
        let there = other.pool().await;
        sign(&there).await;
        Self { here, other, there }
    }

    /// The move is refused for this reason, and nothing is changed.
    async fn assert_refused(&self, command: std::process::Command, reason: &str) {
        let refused = run_beside(command).await;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(refused.stdout.is_empty());
        let said = error_line(&refused);
        assert!(said.contains(reason), "{said}");
        assert_eq!(state(&self.here.pool, "acme").await, "-", "{said}");
        for pool in [&self.here.pool, &self.there] {
            assert_eq!(triggers(pool).await, [""; 0], "{said}");
        }
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_unfit_destination_is_refused_and_nothing_is_changed(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pair = Pair::new(&db).await;
    let (to, there) = (&pair.other.options, &pair.there);
    let it = || mover(&db, to, "acme");

    pair.assert_refused(mover(&db, to, "nobody"), "there is no merchant nobody")
        .await;
    pair.assert_refused(mover(&db, &db, "acme"), "name the same database")
        .await;
    let mut same = it();
    same.env("PAYONCE_CELL", "2");
    pair.assert_refused(same, "are both 2").await;

    execute(
        there,
        "update fingerprint_secrets set secret_id = '00000002'",
    )
    .await;
    pair.assert_refused(it(), "sign fingerprints with different secrets (the source's id is 00000001, the destination's 00000002)").await;
    execute(there, "delete from fingerprint_secrets").await;
    pair.assert_refused(it(), "no node has been started there")
        .await;
    sign(there).await;

    let here = &pair.here.pool;
    execute(
        here,
        "insert into fingerprint_secrets (secret_id, retired_at) values ('0000000a', now()), ('0000000b', now()); \
         insert into idempotency_keys (merchant_id, operation, key, fingerprint, fingerprint_version, fingerprint_fields, state, \
             attempt, owner, lease_expires_at, created_at, expires_at) \
         values ('acme', 'o', 'k', sha256('r'), 2, '~0000000a', 'PROCESSING', 1, gen_random_uuid(), now(), now(), \
             now() + interval '1 day')",
    )
    .await;
    pair.assert_refused(it(), "(their ids are 0000000a)").await;
    execute(here, "delete from idempotency_keys").await;

    execute(
        there,
        "create table kept as select * from _sqlx_migrations; delete from _sqlx_migrations where version = 9",
    )
    .await;
    pair.assert_refused(it(), "the destination: the database's schema is older")
        .await;
    execute(
        there,
        "insert into _sqlx_migrations select * from kept where version = 9; \
         insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (9999, 'from the future', true, '', 0)",
    )
    .await;
    pair.assert_refused(
        it(),
        "the destination: its schema is newer than this program (migration 9999)",
    )
    .await;
    execute(there, "delete from _sqlx_migrations where version = 9999").await;

    execute(
        there,
        "insert into merchants (merchant_id, name) values ('acme', 'Another')",
    )
    .await;
    pair.assert_refused(
        it(),
        "exists in the destination's database, and is served there",
    )
    .await;
    let kept: String = sqlx::query_scalar("select name from merchants")
        .fetch_one(there)
        .await
        .expect("the merchant there");
    assert_eq!(kept, "Another");
    pair.there.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_role_that_does_not_own_the_tables_is_told_so(_: PgPoolOptions, db: PgConnectOptions) {
    let pair = Pair::new(&db).await;
    let role = format!("mover_{}", uuid::Uuid::now_v7().simple());
    let grant = format!(
        "create role {role} login password 'p'; \
         grant all on all tables in schema public to {role}"
    );
    run_on(&db, &grant).await;
    let as_role = db.clone().username(&role).password("p");
    pair.assert_refused(
        mover(&as_role, &pair.other.options, "acme"),
        &format!("the source: {role} does not own the table"),
    )
    .await;
    run_on(&db, &format!("drop owned by {role}; drop role {role}")).await;
    pair.there.close().await;
}

/// A move to one cell is not taken over by a move to another, and what has moved is not undone.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_move_has_one_destination(_: PgPoolOptions, db: PgConnectOptions) {
    let pair = Pair::new(&db).await;
    execute(
        &pair.here.pool,
        "update merchants set move_state = 'LEAVING', move_cell = 3, move_id = gen_random_uuid(), \
         move_since = now() - interval '1 hour'",
    )
    .await;
    let listed = run_beside({
        let mut list = program("payonce", &db);
        list.args(["merchants", "list"]);
        list
    })
    .await;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("is being moved to cell 3"), "{listed}");
    let mut undo = mover(&db, &pair.other.options, "acme");
    undo.arg("--undo");
    for command in [mover(&db, &pair.other.options, "acme"), undo] {
        let refused = run_beside(command).await;
        assert_eq!(refused.status.code(), Some(1));
        let said = error_line(&refused);
        assert!(said.contains("is being moved to cell 3"), "{said}");
    }
    let mut doctor = program("payonce", &db);
    doctor
        .arg("doctor")
        .env("PAYONCE_CELL", "1")
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests");
    let said = run_beside(doctor).await;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for part in [
        "cell 1: new API keys begin with sk_1_",
        "acme is being moved to cell 3 (the move began 1h",
        "payonce merchants move acme --to-cell 3",
        "--undo",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // The second has nothing left to undo.
    for _ in 0..2 {
        let mut undo = move_to(&db, &pair.other.options, "acme", "3");
        undo.arg("--undo");
        assert!(run_beside(undo).await.status.success());
        assert_eq!(state(&pair.here.pool, "acme").await, "-");
        assert_eq!(triggers(&pair.here.pool).await, [""; 0]);
    }
    pair.there.close().await;
}

/// Something at the destination changes what is written there: the copy is compared with the source before it is kept.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_copy_that_differs_is_not_kept(_: PgPoolOptions, db: PgConnectOptions) {
    let pair = Pair::new(&db).await;
    let acme = pair.here.merchant("beta").await;
    assert_eq!(acme.pay("10").key("k").send().await.status, 201);
    let there = &pair.there;
    execute(
        there,
        "create function meddle() returns trigger language plpgsql as \
         $$ begin new.amount_minor = new.amount_minor + 1; return new; end $$; \
         create trigger meddles before insert on payments for each row execute function meddle()",
    )
    .await;
    let refused = run_beside(mover(&db, &pair.other.options, "beta")).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("the copied rows of payments differ"),
        "{said}"
    );
    assert!(
        said.contains("writes stay refused until its move is ended, or is undone with --undo"),
        "{said}"
    );
    assert_eq!(state(&pair.here.pool, "beta").await, "COPYING");
    assert_eq!(state(there, "beta").await, "ARRIVING");
    assert_eq!(count(there, "payments").await, 0);
    execute(there, "drop trigger meddles on payments").await;
    let moved = run_beside(mover(&db, &pair.other.options, "beta")).await;
    assert!(moved.status.success(), "{moved:?}");
    assert_eq!(count(there, "payments").await, 1);
    pair.there.close().await;
}

/// The URL is a secret: it may be the content of a file, and no message shows it.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_other_databases_url_may_be_in_a_file_and_is_not_shown(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let away = db.clone().password("hunter2").port(1);
    std::fs::write(file.path(), away.to_url_lossy().as_str()).expect("written");
    let to_2 = || {
        let mut command = program("payonce", &db);
        command.args(["merchants", "move", "acme", "--to-cell", "2"]);
        command
    };
    let mut command = to_2();
    command.env("PAYONCE_MOVE_DATABASE_URL_FILE", file.path());
    let refused = run_beside(command).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = error_line(&refused);
    assert!(
        said.contains("the destination: cannot reach the database"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");

    let mut malformed = to_2();
    malformed.env(
        "PAYONCE_MOVE_DATABASE_URL",
        "postgres://u:hunter2@h/d?sslmode=hunter2",
    );
    let refused = run_beside(malformed).await;
    assert_eq!(refused.status.code(), Some(2));
    let said = error_line(&refused);
    let setting = "payonce: --to-database-url (PAYONCE_MOVE_DATABASE_URL) ";
    assert!(said.starts_with(setting), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
