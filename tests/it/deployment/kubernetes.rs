//! `deploy/kubernetes`.

use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{STOP_SECONDS, assert_is_taken, settings, strings};
use crate::support::deployed;
use crate::support::process::Server;
use crate::support::service::client;

const FILES: [&str; 4] = [
    "kubernetes/secret.example.yaml",
    "kubernetes/migrate.yaml",
    "kubernetes/payonce.yaml",
    "kubernetes/cleanup.yaml",
];

fn objects() -> Vec<Value> {
    let documents = FILES.into_iter().flat_map(|file| {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&deployed::read(file))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        documents
    });
    documents.collect()
}

fn object(kind: &str, name: &str) -> Value {
    let mut objects = objects().into_iter();
    objects
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The pods that something starts.
fn pods() -> Vec<Value> {
    let objects = objects().into_iter();
    let pods = objects.filter_map(|object| match object["kind"].as_str() {
        Some("Deployment" | "Job") => Some(object["spec"]["template"]["spec"].clone()),
        Some("CronJob") => Some(object["spec"]["jobTemplate"]["spec"]["template"]["spec"].clone()),
        _ => None,
    });
    pods.collect()
}

#[test]
fn every_pod_is_confined_and_starts_what_there_is_with_settings_that_there_are() {
    let pods = pods();
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        let container = &pod["containers"][0];
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
        assert!(container["resources"]["limits"]["memory"].is_string());
        assert_is_taken(&strings(&container["command"]));

        let secret = container["envFrom"][0]["secretRef"]["name"]
            .as_str()
            .expect("a secret");
        let secret = object("Secret", secret);
        let secret = secret["stringData"]
            .as_object()
            .expect("values")
            .keys()
            .cloned();
        let plain = container["env"].as_array().into_iter().flatten();
        let plain = plain.map(|variable| variable["name"].as_str().expect("a name").to_owned());
        for name in secret.chain(plain) {
            assert!(settings().contains(&name), "{name}");
        }
    }
}

#[test]
fn the_parts_know_each_other() {
    let deployment = object("Deployment", "payonce");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    let budget = object("PodDisruptionBudget", "payonce");
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    let nodes = deployment["spec"]["replicas"].as_u64().expect("a number");
    assert!(
        budget["spec"]["minAvailable"].as_u64() < Some(nodes),
        "a node may be drained"
    );
    assert_eq!(&object("Service", "payonce")["spec"]["selector"], labels);
    assert_eq!(
        &object("NetworkPolicy", "payonce")["spec"]["podSelector"]["matchLabels"],
        labels
    );

    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let port = &container["ports"][0];
    assert_eq!(
        object("Service", "payonce")["spec"]["ports"][0]["targetPort"],
        port["name"]
    );
    assert_eq!(
        object("NetworkPolicy", "payonce")["spec"]["ingress"][0]["ports"][0]["port"],
        port["name"]
    );
    let variables = container["env"].as_array().expect("variables");
    let listen = variables
        .iter()
        .find(|variable| variable["name"] == "PAYONCE_LISTEN");
    let listen = listen
        .and_then(|variable| variable["value"].as_str())
        .expect("an address");
    assert_eq!(listen, format!("0.0.0.0:{}", port["containerPort"]));

    let before = strings(&container["lifecycle"]["preStop"]["exec"]["command"]);
    let before: u64 = before[1].parse().expect("seconds");
    assert_eq!(pod["terminationGracePeriodSeconds"], STOP_SECONDS + before);
    let cleanup = object("CronJob", "payonce-cleanup");
    assert_eq!(cleanup["spec"]["concurrencyPolicy"], "Forbid");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_probe_asks_a_path_that_answers(_: PgPoolOptions, db: PgConnectOptions) {
    let server = Server::start(&db, &[]);
    let deployment = object("Deployment", "payonce");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    for (probe, path) in [
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
        ("startupProbe", "/healthz"),
    ] {
        let ask = &container[probe]["httpGet"];
        assert_eq!(ask["path"], path, "{probe}");
        assert_eq!(ask["port"], container["ports"][0]["name"]);
        let answer = client().get(format!("{}{path}", server.url)).send().await;
        assert_eq!(answer.expect("an answer").status(), 200, "{probe}");
    }
}
