//! `deploy/observability`: the programs export the metrics of its rules and its dashboard.

mod exported;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::deployed;
use crate::support::gateway::{Endpoint, Fault, TestGateway};
use crate::support::haproxy::{self, Proxy};
use crate::support::process::{Server, merchant, program, run};
use exported::{Sample, missing, names, samples};

/// All rules, of the service and of the proxy.
fn rules() -> Vec<Value> {
    let rules = deployed::yaml("observability/alerts.yml");
    let groups = rules["groups"].as_array().expect("groups");
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules"));
    rules.cloned().collect()
}

/// The rules' names and expressions.
fn alerts() -> Vec<(String, String)> {
    rules()
        .iter()
        .map(|rule| (text(&rule["alert"]), text(&rule["expr"])))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

fn is_of_the_proxy(alert: &str) -> bool {
    alert.starts_with("PayonceProxy")
}

/// The dashboard's panels, without the rows' headings.
fn panels() -> Vec<Value> {
    let dashboard = deployed::read("observability/grafana/dashboards/payonce.json");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    panels
        .into_iter()
        .filter(|panel| panel["type"] != "row")
        .collect()
}

/// A panel's expressions, with a value for Grafana's variable.
fn expressions(panel: &Value) -> Vec<String> {
    let targets = panel["targets"].as_array().expect("targets");
    let expressions = targets.iter().map(|target| text(&target["expr"]));
    expressions
        .map(|expression| expression.replace("$__rate_interval", "1m"))
        .collect()
}

/// All metrics that a server and a clean-up export after each kind of event.
async fn export_everything(db: &PgConnectOptions) -> Vec<Sample> {
    let gateway = TestGateway::start();
    let server = Server::start_on(
        &gateway.url(),
        db,
        &[
            ("PAYONCE_GATEWAY_TIMEOUT", "1s"),
            ("PAYONCE_LOCK_TIMEOUT", "300ms"),
            ("PAYONCE_RECOVERY_INTERVAL", "50ms"),
        ],
    );
    let acme = merchant(db, &server.url, "acme");
    let pay = |key: &str| acme.pay("10").key(key);

    // A first request with duplicates that wait for it, a retry, and another request under the same key.
    gateway.script([(Endpoint::Charge, Fault::Slow(Duration::from_millis(200)))]);
    let requests = [pay("k"), pay("k")];
    for answer in join_all(requests.iter().map(|request| request.send())).await {
        assert_eq!(answer.status, 201);
    }
    assert!(pay("k").send().await.replayed());
    assert_eq!(acme.pay("11").key("k").send().await.status, 422);
    // An outcome that stays unknown until recovery finds it.
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    assert_eq!(pay("late").send().await.status, 202);
    gateway.release();
    let scrape = async || String::from_utf8_lossy(&acme.get("/metrics").await.bytes).into_owned();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !scrape()
        .await
        .contains("payonce_recovered_total{outcome=\"resolved\"}")
    {
        assert!(Instant::now() < deadline, "nothing is recovered");
        crate::support::pause().await;
    }
    // A gateway that cannot be reached.
    gateway.refuse();
    assert_eq!(pay("away").send().await.status, 503);

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("payonce.prom");
    let cleaned = run(program("payonce-cleanup", db)
        .arg("--metrics-file")
        .arg(&file));
    assert!(cleaned.status.success());
    let mut all = samples(&scrape().await);
    all.extend(samples(&std::fs::read_to_string(&file).expect("metrics")));
    all
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_rules_and_dashboard_ask_for_is_exported(_: PgPoolOptions, db: PgConnectOptions) {
    let exported = export_everything(&db).await;
    let mut asked = alerts();
    asked.retain(|(alert, _)| !is_of_the_proxy(alert));
    for panel in panels() {
        let title = text(&panel["title"]);
        let expressions = expressions(&panel).into_iter();
        asked.extend(expressions.map(|expression| (title.clone(), expression)));
    }
    assert!(asked.len() > 30, "rules and panels were read");
    let absent: Vec<_> = asked
        .iter()
        .map(|(who, expression)| (who, missing(expression, &exported)))
        .filter(|(_, missing)| !missing.is_empty())
        .collect();
    assert!(absent.is_empty(), "{absent:#?}");
    // And the comparison does find what is not there.
    for expression in [
        "payonce_no_such_metric",
        "sum(rate(payonce_http_requests_total{status=\"999\"}[5m]))",
        "sum by (shop) (payonce_keys_processing)",
    ] {
        assert_eq!(missing(expression, &exported).len(), 1, "{expression}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_the_proxys_rules_ask_for_is_exported_by_it(_: PgPoolOptions, db: PgConnectOptions) {
    if !haproxy::is_here("the proxy's metrics") {
        return;
    }
    let nodes = [Server::start(&db, &[]), Server::start(&db, &[])];
    let proxy = Proxy::start([&nodes[0], &nodes[1]]).await;
    let exported = samples(&proxy.metrics().await);
    let rules: Vec<_> = alerts()
        .into_iter()
        .filter(|(alert, _)| is_of_the_proxy(alert))
        .collect();
    assert_eq!(rules.len(), 3);
    for (alert, expression) in rules {
        assert_eq!(missing(&expression, &exported), [""; 0], "{alert}");
    }
}

#[test]
fn the_dashboard_shows_what_operators_ask_for() {
    let panels = panels();
    let shown: Vec<String> = panels
        .iter()
        .flat_map(expressions)
        .flat_map(|expression| names(&expression))
        .collect();
    for name in [
        "payonce_idempotency_checks_total",
        "payonce_idempotency_wait_seconds_bucket",
        "payonce_gateway_requests_total",
        "payonce_batch_size_sum",
        "payonce_keys_processing",
        "payonce_payments_total",
        "payonce_http_request_seconds_bucket",
        "payonce_database_wait_seconds_bucket",
        "payonce_cleanup_last_success_timestamp_seconds",
    ] {
        assert!(shown.iter().any(|shown| shown == name), "{name}");
    }
    let datasource =
        deployed::yaml("observability/grafana/provisioning/datasources/prometheus.yml");
    let uid = &datasource["datasources"][0]["uid"];
    for panel in &panels {
        assert_eq!(&panel["datasource"]["uid"], uid, "{}", panel["title"]);
        assert!(
            panel["description"].is_string()
                && panel["fieldConfig"]["defaults"]["unit"].is_string()
        );
    }
}

/// Prometheus's own check of its files, and of when each alert comes.
#[test]
fn promtool_accepts_the_rules_and_sees_each_alert_come() {
    let promtool = Path::new("/usr/bin/promtool");
    if !promtool.exists() {
        crate::support::skipped::skip(
            "Prometheus's check of the alerts: no promtool here (apt-get install prometheus)",
        );
        return;
    }
    let folder = deployed::path("observability");
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let checked = run(Command::new(promtool).args(arguments).current_dir(&folder));
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        let complained = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{said}{complained}");
    }
    // Each alert must have a test that it fires.
    let tests = deployed::read("observability/alerts.test.yml");
    for (alert, _) in alerts() {
        let comes = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&comes), "{alert}");
    }
}

#[test]
fn each_alert_has_a_heading_that_says_what_to_do() {
    let operations = deployed::read("../docs/OPERATIONS.md");
    for rule in rules() {
        let alert = text(&rule["alert"]);
        let heading = format!("\n### {alert}\n\n");
        let advice = operations.split(&heading).nth(1).expect(&alert);
        let advice = advice.split("\n#").next().expect("a section");
        assert!(advice.split_whitespace().count() > 20, "{alert}: {advice}");
        let anchor = format!("docs/OPERATIONS.md#{}", alert.to_lowercase());
        assert_eq!(rule["annotations"]["runbook"], anchor, "{alert}");
    }
}
