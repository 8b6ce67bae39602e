//! The example clients of docs/CLIENTS.md: they retry when they should, and only then.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::flaky::{Flaky, Way};
use crate::support::process::run;
use crate::support::service::{Merchant, Service};

/// An answer that the service, or a proxy before it, may give.
fn answered(status: &str, header: &str, body: &str) -> Way {
    let length = body.len();
    Way::Answered(format!(
        "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

/// Every failure after which the same request with the same key should be sent.
fn failures() -> [Way; 7] {
    let now = "Retry-After: 0\r\n";
    let in_use = r#"{"code":"idempotency-key-in-use","retry":"same-key"}"#;
    let limited = r#"{"code":"rate-limited","retry":"same-key"}"#;
    [
        Way::Lost,
        Way::AnswerLost,
        answered("503 Service Unavailable", "Retry-After: 1\r\n", ""),
        answered("502 Bad Gateway", "", "<h1>no JSON</h1>"),
        answered("202 Accepted", now, r#"{"state":"PROCESSING"}"#),
        answered("409 Conflict", now, in_use),
        answered("429 Too Many Requests", now, limited),
    ]
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// A client, and the programs that it needs.
struct Client {
    file: &'static str,
    language: &'static str,
    program: PathBuf,
    arguments: Vec<PathBuf>,
    /// A command that succeeds if the client can run.
    probe: &'static [&'static str],
}

fn clients() -> [Client; 4] {
    let python = std::env::var_os("PAYONCE_PYTHON").map_or("python3".into(), PathBuf::from);
    let script = |name: &str| vec![examples().join("clients").join(name)];
    [
        Client {
            file: "clients/pay.sh",
            language: "bash",
            program: "bash".into(),
            arguments: script("pay.sh"),
            probe: &["-c", "curl --version"],
        },
        Client {
            file: "clients/pay.py",
            language: "python",
            program: python,
            arguments: script("pay.py"),
            probe: &["-c", "import requests"],
        },
        Client {
            file: "clients/pay.mjs",
            language: "js",
            program: "node".into(),
            arguments: script("pay.mjs"),
            probe: &["-e", "fetch.call; AbortSignal.timeout.call"],
        },
        Client {
            file: "pay.rs",
            language: "rust",
            program: built_example(),
            arguments: Vec::new(),
            probe: &[],
        },
    ]
}

/// Cargo builds the examples for `cargo test`, beside the tests.
fn built_example() -> PathBuf {
    let this = std::env::current_exe().expect("the path of the tests");
    let target = this.ancestors().nth(2).expect("the target's folder");
    target.join("examples/pay")
}

impl Client {
    /// Returns false, with a printed message, if it cannot run on this machine.
    fn can_run(&self) -> bool {
        let mut probe = Command::new(&self.program);
        let has_run = probe.args(self.probe).output();
        // Without arguments, this crate's example prints its usage.
        let can_run = has_run.is_ok_and(|output| output.status.success() || self.probe.is_empty());
        if !can_run {
            let (file, program) = (self.file, self.program.display());
            crate::support::skipped::skip(&format!(
                "examples/{file}: {program} {:?} does not run here",
                self.probe
            ));
            assert!(
                std::env::var_os("PAYONCE_ALL_CLIENTS").is_none(),
                "{file} was to be tested"
            );
        }
        can_run
    }

    /// In a separate thread, because the service answers on the test's own runtime.
    async fn pay(&self, merchant: &Merchant, url: &str, order: &str, token: &str) -> Output {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args([order, "99.99", token])
            .env("PAYONCE_URL", url)
            .env("PAYONCE_API_KEY", &merchant.api_key);
        let paying = tokio::task::spawn_blocking(move || run(&mut command));
        paying.await.expect("it ran")
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_client_gets_through_all_failures_and_pays_once(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let mut payments = 0;
    for client in clients().into_iter().filter(Client::can_run) {
        let file = client.file;
        let front = Flaky::before(&service.url, &failures());
        let order = format!("paid-{}", client.language);
        let paid = client.pay(&acme, &front.url, &order, "pm_card_visa").await;
        let errors = String::from_utf8_lossy(&paid.stderr).into_owned();
        assert_eq!(paid.status.code(), Some(0), "{file}: {errors}");
        let shown = String::from_utf8_lossy(&paid.stdout).into_owned();
        assert!(
            shown.contains("pay_") && shown.contains("SUCCESS"),
            "{file}: {shown}"
        );
        // Run again, as after a crash, it gets the same payment.
        let again = client.pay(&acme, &front.url, &order, "pm_card_visa").await;
        assert_eq!(again.stdout, paid.stdout, "{file}");

        let requests = front.requests();
        assert_eq!(requests.len(), failures().len() + 2, "{file}");
        let same: BTreeSet<_> = requests
            .iter()
            .map(|request| key_and_body(request))
            .collect();
        assert_eq!(same.len(), 1, "{file}: {same:?}");
        payments += 1;
        assert_eq!(service.count("payments").await, payments, "{file}");
        let charges = i64::try_from(service.gateway.charges()).expect("a count");
        assert_eq!(charges, payments, "{file}");
    }
    assert!(payments > 0, "the client of this crate can always run");
}

fn key_and_body(request: &str) -> (String, &str) {
    let (head, body) = request.split_once("\r\n\r\n").expect("a head");
    let key = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("idempotency-key:"));
    (key.expect("a key").to_ascii_lowercase(), body)
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_client_that_is_refused_does_not_try_again(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    for client in clients().into_iter().filter(Client::can_run) {
        let file = client.file;
        for (order, token, problem) in [
            ("declined", "pm_card_chargeDeclined", "payment-declined"),
            ("unknown", "no token", "validation-failed"),
        ] {
            let front = Flaky::before(&service.url, &[]);
            let order = format!("{order}-{}", client.language);
            let refused = client.pay(&acme, &front.url, &order, token).await;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{file}: {said}");
            assert!(said.contains(problem), "{file}: {said}");
            assert_eq!(front.requests().len(), 1, "{file}");
        }
    }
}

#[test]
fn the_document_has_the_clients_as_they_are() {
    let document = include_str!("../../docs/CLIENTS.md");
    for Client { file, language, .. } in clients() {
        let source = std::fs::read_to_string(examples().join(file)).expect(file);
        let block = format!("```{language}\n{source}```\n");
        assert!(
            document.contains(&block),
            "examples/{file} is not in docs/CLIENTS.md as it is"
        );
    }
    let blocks = ["```bash\n", "```python\n", "```js\n", "```rust\n"];
    for block in blocks {
        assert_eq!(document.matches(block).count(), 1, "{block}");
    }
}

/// Every way to run a client with too little input: no arguments, an order that is not set, no API key, no address.
fn unusable(client: &Client) -> Vec<Command> {
    let full = ["order", "99.99", "pm_card_visa"];
    let (key, url) = ("PAYONCE_API_KEY", "PAYONCE_URL");
    // Nothing listens there, so a client is refused at once, and tries again.
    let settings = [(key, "sk_test"), (url, "http://127.0.0.1:1")];
    let command = |arguments: &[&str], without: &str, empty: &str| {
        let mut command = Command::new(&client.program);
        command.args(&client.arguments).args(arguments);
        command.env_remove(key).env_remove(url);
        for (name, value) in settings.into_iter().filter(|(name, _)| *name != without) {
            command.env(name, if name == empty { "" } else { value });
        }
        command
    };
    vec![
        command(&[], "", ""),
        command(&full[..2], "", ""),
        command(&["order", "99.99", "pm_card_visa", "more"], "", ""),
        command(&["", "99.99", "pm_card_visa"], "", ""),
        command(&["order", "", "pm_card_visa"], "", ""),
        command(&["order", "99.99", ""], "", ""),
        command(&full, key, ""),
        command(&full, "", key),
        command(&full, url, ""),
        command(&full, "", url),
    ]
}

#[test]
fn a_client_that_is_told_too_little_says_how_it_is_used() {
    for client in clients().into_iter().filter(Client::can_run) {
        for mut command in unusable(&client) {
            let output = run(&mut command);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
            assert!(
                said.starts_with("usage: ") && said.lines().count() == 1,
                "{command:?}: {said}"
            );
            assert!(output.stdout.is_empty(), "{command:?}");
        }
    }
}

/// The rows of the document's table of test cards: a number, a token or both, and what happens.
fn test_cards() -> Vec<(Option<String>, Option<String>, String)> {
    let document = include_str!("../../docs/CLIENTS.md");
    let table = |document: &str| {
        let (_, rest) = document
            .split_once("| card number | token |")
            .expect("the table");
        rest.split_once("\n\n").expect("its end").0.to_owned()
    };
    let rows = table(document);
    assert_eq!(
        rows,
        table(include_str!("../../README.md")),
        "README has the same table"
    );
    let quoted = |cell: &str| cell.split('`').nth(1).map(str::to_owned);
    rows.lines()
        .skip(2)
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            (
                quoted(cells[0]),
                quoted(cells[1]),
                cells[2].trim().to_owned(),
            )
        })
        .collect()
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_test_card_does_what_the_document_says(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let cards = test_cards();
    assert!(cards.len() >= 9, "{cards:?}");
    for (row, (number, token, outcome)) in cards.into_iter().enumerate() {
        let by_number = number.clone().map(|number| acme.pay("10").card(&number));
        let by_token = token.clone().map(|token| {
            let method = serde_json::json!({"type": "CARD", "token": token});
            let body =
                serde_json::json!({"amount": "10", "currency": "USD", "paymentMethod": method});
            acme.post("/v1/payments", body)
        });
        for (way, pay) in [("number", by_number), ("token", by_token)] {
            let Some(pay) = pay else { continue };
            let paid = pay.key(&format!("{way}-{row}")).send().await;
            let status = paid.status.as_u16();
            assert!(
                outcome.starts_with(&status.to_string()),
                "{way} {number:?}: {status}"
            );
            let (told, name) = match status {
                201 => (paid.text("state"), "state"),
                _ => (paid.text("declineCode"), "declineCode"),
            };
            assert!(
                outcome.contains(&format!("`{told}`")),
                "{way} {number:?}: {name} {told}"
            );
        }
    }
}
