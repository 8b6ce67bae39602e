//! The programs' output and exit status, on which scripts rely.

use std::process::{Command, Output};

use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::cluster::Cluster;
use crate::support::process::{Server, error_line, json as stdout, program, run};
use crate::support::service::Service;

fn payonce(db: &PgConnectOptions, arguments: &[&str]) -> Output {
    run(program("payonce", db).args(arguments))
}

/// Exits with 0 and prints one line of JSON.
#[track_caller]
fn printed(output: &Output) -> Value {
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "{text}");
    stdout(output)
}

fn names(value: &Value) -> Vec<&str> {
    let fields = value.as_object().expect("an object");
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn merchants_and_keys_are_made_listed_and_revoked(_: PgPoolOptions, db: PgConnectOptions) {
    let made = printed(&payonce(
        &db,
        &["merchants", "create", "acme", "--name", "Acme Ltd"],
    ));
    assert_eq!(names(&made), ["apiKey", "merchantId"]);
    let first = made["apiKey"].as_str().expect("a key").to_owned();
    let listed = printed(&payonce(&db, &["merchants", "list", "--json"]));
    assert_eq!(
        (&listed[0]["merchantId"], &listed[0]["name"]),
        (&json!("acme"), &json!("Acme Ltd"))
    );

    let second = printed(&payonce(&db, &["api-keys", "create", "acme"]));
    assert_eq!(names(&second), ["apiKey", "apiKeyId", "merchantId"]);
    let id = second["apiKeyId"].as_str().expect("an id");
    let listed = payonce(&db, &["api-keys", "list", "acme", "--json"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(!text.contains(&first) && !text.contains(second["apiKey"].as_str().expect("a key")));
    let listed = printed(&listed);
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert!(
        listed
            .as_array()
            .expect("a list")
            .iter()
            .all(|key| key["revokedAt"].is_null())
    );

    for _ in 0..2 {
        let revoked = payonce(&db, &["api-keys", "revoke", id]);
        assert_eq!(revoked.status.code(), Some(0), "also a second time");
    }
    let listed = printed(&payonce(&db, &["api-keys", "list", "acme", "--json"]));
    let keys = listed.as_array().expect("a list");
    let revoked = keys.iter().filter(|key| key["revokedAt"].is_string());
    assert_eq!(
        revoked
            .map(|key| key["apiKeyId"].clone())
            .collect::<Vec<_>>(),
        [json!(id)]
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn records_are_shown_and_listed(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let paid = acme.pay("10").key("good").send().await;
    acme.pay("10")
        .key("bad")
        .card("4000000000000002")
        .send()
        .await;
    let shown = printed(&payonce(
        &db,
        &[
            "idempotency-keys",
            "show",
            "acme",
            "create_payment",
            "good",
            "--json",
        ],
    ));
    let record = acme
        .get("/v1/idempotency-keys/create_payment/good")
        .await
        .json();
    for name in names(&record) {
        // For people: times in milliseconds.
        let text = |value: &Value| {
            value
                .as_str()
                .map(|text| text.chars().take(23).collect::<String>())
        };
        match text(&record[name]).filter(|_| name.ends_with("At")) {
            Some(time) => assert_eq!(text(&shown[name]), Some(time), "{name}"),
            None => assert_eq!(shown[name], record[name], "{name}"),
        }
    }
    assert_eq!(
        (&shown["merchantId"], &shown["resourceId"]),
        (&json!("acme"), &paid.json()["id"])
    );
    for (filter, keys) in [
        (&["--state", "COMPLETED"][..], &["good"][..]),
        (&["--state", "failed"], &["bad"]),
        (&["--state", "PROCESSING"], &[]),
        (&["--stuck"], &[]),
        (&["--limit", "1"], &["bad"]),
        (&[], &["bad", "good"]),
    ] {
        let arguments = [&["idempotency-keys", "list", "--json"], filter].concat();
        let listed = printed(&payonce(&db, &arguments));
        let listed: Vec<&str> = listed
            .as_array()
            .expect("a list")
            .iter()
            .map(|record| record["key"].as_str().expect("a key"))
            .collect();
        assert_eq!(listed, keys, "{filter:?}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_cannot_be_done_ends_with_1_and_bad_usage_with_2(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    assert_eq!(
        payonce(&db, &["merchants", "create", "acme"]).status.code(),
        Some(0)
    );
    for (status, arguments, named) in [
        (1, &["merchants", "create", "acme"][..], "acme"),
        (1, &["api-keys", "create", "nobody"], "nobody"),
        (1, &["api-keys", "list", "nobody"], "nobody"),
        (1, &["api-keys", "revoke", "key_nobody"], "key_nobody"),
        (
            1,
            &["idempotency-keys", "show", "acme", "create_payment", "k"],
            "acme:create_payment:k",
        ),
        (2, &["merchants", "create", "a b"], "merchant's ID"),
        (2, &["merchants", "create", "b", "--name", ""], "name"),
        (2, &["merchants", "create"], "ID"),
        (
            2,
            &["idempotency-keys", "show", "acme", "create_payment", "a b"],
            "KEY",
        ),
        (
            2,
            &["idempotency-keys", "list", "--state", "DONE"],
            "--state",
        ),
        (
            2,
            &["idempotency-keys", "list", "--state", "FAILED", "--stuck"],
            "--stuck",
        ),
        (2, &["idempotency-keys", "list", "--limit", "0"], "--limit"),
        (2, &["pay"], "pay"),
        (
            2,
            &[
                "merchants",
                "list",
                "--database-url",
                "postgres://u:hunter2@h:port/d",
            ],
            "--database-url",
        ),
        (2, &[], "--help"),
    ] {
        let output = payonce(&db, arguments);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let line = error_line(&output);
        assert!(
            line.starts_with("payonce: ") && line.contains(named),
            "{arguments:?}: {line}"
        );
        assert!(!line.contains("hunter2"), "{line}");
        assert!(output.stdout.is_empty());
    }
    for (flag, value) in [
        ("--batch-size", "0"),
        ("--batch-size", "many"),
        ("--max-duration", "0s"),
        ("--max-duration", "5"),
    ] {
        let output = run(program("payonce-cleanup", &db).args([flag, value]));
        assert_eq!(output.status.code(), Some(2), "{flag} {value}");
        assert!(error_line(&output).contains(flag));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("nowhere/file.prom");
    let output = run(program("payonce-cleanup", &db)
        .arg("--metrics-file")
        .arg(&nowhere));
    assert_eq!(output.status.code(), Some(1));
    assert!(error_line(&output).contains("--metrics-file"));
}

#[sqlx::test(migrations = false)]
async fn an_older_schema_is_refused_until_it_is_migrated(_: PgPoolOptions, db: PgConnectOptions) {
    let serve = run(program("payonce", &db)
        .args(["serve", "--no-migrate"])
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
    assert_eq!(serve.status.code(), Some(1));
    let log = String::from_utf8_lossy(&serve.stderr).into_owned();
    assert!(log.contains("payonce migrate"), "{log}");
    for output in [
        payonce(&db, &["merchants", "create", "acme"]),
        run(&mut program("payonce-cleanup", &db)),
    ] {
        assert_eq!(output.status.code(), Some(1));
        error_line(&output);
    }
    for _ in 0..2 {
        assert_eq!(
            payonce(&db, &["migrate"]).status.code(),
            Some(0),
            "also a second time"
        );
    }
    printed(&payonce(&db, &["merchants", "create", "acme"]));
    printed(&run(&mut program("payonce-cleanup", &db)));
}

/// Completes these words as the shell would.
fn completed(script: &str, words: &[&str]) -> String {
    let last = words.len() - 1;
    let asking = format!(
        "{script}\nCOMP_WORDS=({}); COMP_CWORD={last}; _payonce payonce {:?} {:?}; echo \"${{COMPREPLY[*]}}\"",
        words
            .iter()
            .map(|word| format!("{word:?} "))
            .collect::<String>(),
        words[last],
        words[last - 1],
    );
    let output = run(Command::new("bash").args(["-c", &asking]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn shells_complete_commands_flags_and_values() {
    let nowhere = PgConnectOptions::new_without_pgpass();
    let script = |shell: &str| {
        let output = payonce(&nowhere, &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        String::from_utf8(output.stdout).expect("text")
    };
    let bash = script("bash");
    for (words, expected) in [
        (&["payonce", "do"][..], "doctor"),
        (&["payonce", "api-keys", "rev"], "revoke"),
        (&["payonce", "serve", "--lock"], "--lock-timeout"),
        (&["payonce", "serve", "--gateway", "str"], "stripe"),
        (&["payonce", "completions", "z"], "zsh"),
    ] {
        assert_eq!(completed(&bash, words).trim(), expected, "{words:?}");
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(script(shell).contains("idempotency-keys"), "{shell}");
    }
    let unknown = payonce(&nowhere, &["completions", "csh"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        error_line(&unknown).contains("bash"),
        "it names those that there are"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn people_get_tables(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    acme.pay("10").key("good").send().await;
    for (arguments, titles, cell) in [
        (&["merchants", "list"][..], "MERCHANT  CREATED", "acme"),
        (&["api-keys", "list", "acme"], "API KEY", "key_"),
        (
            &["idempotency-keys", "list"],
            "MERCHANT  OPERATION",
            "acme      create_payment  good",
        ),
        (
            &["idempotency-keys", "show", "acme", "create_payment", "good"],
            "FIELD        VALUE",
            "state        COMPLETED",
        ),
        (
            &["doctor", "--fingerprint-secret", "a secret of the tests"],
            "RESULT   CHECK",
            "ok       version",
        ),
    ] {
        let output = payonce(&db, arguments);
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {table}");
        assert!(table.starts_with(titles), "{table}");
        assert!(
            table.lines().any(|line| line.starts_with(cell)),
            "{cell}: {table}"
        );
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn readiness_is_an_exit_status(_: PgPoolOptions, db: PgConnectOptions) {
    let mut server = Server::start(&db, &[]);
    let ready = |listen: &str| {
        run(program("payonce", &db)
            .arg("ready")
            .env_remove("DATABASE_URL")
            .env("PAYONCE_LISTEN", listen)
            // A health check stays on its machine.
            .env("http_proxy", "http://127.0.0.1:1"))
    };
    let listen = server.url.trim_start_matches("http://").to_owned();
    let answer = printed(&ready(&listen));
    assert_eq!(
        (&answer["status"], &answer["database"]),
        (&json!("ok"), &json!("ok"))
    );
    let everywhere = listen.replace("127.0.0.1", "0.0.0.0");
    assert_eq!(ready(&everywhere).status.code(), Some(0));
    server.kill();
    let gone = ready(&listen);
    assert_eq!(gone.status.code(), Some(1));
    let line = error_line(&gone);
    assert!(
        line.contains(&format!("http://{listen}/readyz does not answer")),
        "{line}"
    );
}

#[tokio::test]
async fn a_service_without_its_database_is_not_ready() {
    let cluster = Cluster::start();
    let server = Server::start(&cluster.options(), &[]);
    cluster.down();
    let asked = run(program("payonce", &cluster.options())
        .arg("ready")
        .env("PAYONCE_LISTEN", server.url.trim_start_matches("http://")));
    assert_eq!(asked.status.code(), Some(1));
    let line = error_line(&asked);
    assert!(
        line.contains("answers 503: {") && line.contains("unreachable"),
        "{line}"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn secrets_may_come_from_files_and_not_from_both(_: PgPoolOptions, db: PgConnectOptions) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = folder.path().join("url");
    std::fs::write(&url, format!("{}\n", db.to_url_lossy())).expect("a file");
    let listing = |program: &mut Command| run(program.env("DATABASE_URL_FILE", &url));
    let list = ["merchants", "list", "--json"];
    let listed = listing(
        program("payonce", &db)
            .args(list)
            .env_remove("DATABASE_URL"),
    );
    assert_eq!(printed(&listed), json!([]));
    let cleaned = listing(program("payonce-cleanup", &db).env("DATABASE_URL", ""));
    assert_eq!(printed(&cleaned)["deleted"], 0);

    let both = listing(program("payonce", &db).args(list));
    assert_eq!(both.status.code(), Some(2));
    assert_eq!(
        error_line(&both).trim_end(),
        "payonce: DATABASE_URL and DATABASE_URL_FILE are both set: unset one of them"
    );

    // A service with all of its secrets in files; a bad one is named by its setting and not shown.
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hunter2-hunter2-hunter2,,").expect("a file");
    let refused = run(program("payonce", &db)
        .args(["serve", "--no-migrate"])
        .env("PAYONCE_FINGERPRINT_SECRET_FILE", &secret));
    assert_eq!(refused.status.code(), Some(2));
    let line = error_line(&refused);
    assert!(
        line.contains("PAYONCE_FINGERPRINT_SECRET") && !line.contains("hunter2"),
        "{line}"
    );
    std::fs::write(&secret, "a secret of the tests\n").expect("a file");
    let path = secret.to_str().expect("text");
    let server = Server::start(
        &db,
        &[
            ("PAYONCE_FINGERPRINT_SECRET", ""),
            ("PAYONCE_FINGERPRINT_SECRET_FILE", path),
        ],
    );
    let ready = run(program("payonce", &db)
        .arg("ready")
        .env("PAYONCE_LISTEN", server.url.trim_start_matches("http://")));
    assert_eq!(ready.status.code(), Some(0));
}
