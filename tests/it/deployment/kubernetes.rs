//! `deploy/kubernetes`. `scripts/check-kubernetes` builds it with kustomize and compares it with Kubernetes' own schemas.

use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{STOP_SECONDS, assert_is_taken, settings, strings};
use crate::support::deployed;
use crate::support::process::Server;
use crate::support::service::client;

const FILES: [&str; 4] = [
    "kubernetes/example/secrets.yaml",
    "kubernetes/base/migrate.yaml",
    "kubernetes/base/payonce.yaml",
    "kubernetes/base/cleanup.yaml",
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
        _ => None,
    });
    pods.collect()
}

fn containers(pod: &Value) -> Vec<&Value> {
    let lists = ["initContainers", "containers"].into_iter();
    lists
        .flat_map(|list| pod[list].as_array().into_iter().flatten())
        .collect()
}

#[test]
fn every_container_is_confined_and_starts_what_there_is_with_settings_that_there_are() {
    let pods = pods();
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["runAsUser"], 65532);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        assert_eq!(pod["automountServiceAccountToken"], false);
        for container in containers(pod) {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
            assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"]);
            assert!(container["resources"]["limits"]["memory"].is_string());
            assert_settings_exist(container);
        }
    }
    for (object, container) in [("payonce", "payonce"), ("payonce-migrate", "migrate")] {
        let pods = pods.iter().flat_map(containers);
        let mut named = pods.filter(|found| found["name"] == container);
        assert_is_taken(&strings(&named.next().expect(object)["command"]));
    }
    let cleanup = object("Deployment", "payonce-cleanup");
    let cleanup = &cleanup["spec"]["template"]["spec"]["containers"][0];
    let looped = strings(&cleanup["command"])[2];
    let call = looped
        .split("if ")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    assert_is_taken(&call.expect("a call").split(' ').collect::<Vec<_>>());
}

/// What a container of payonce gets is a setting, and what leads to the database by TLS is mounted.
fn assert_settings_exist(container: &Value) {
    let Some(secret) = container["envFrom"][0]["secretRef"]["name"].as_str() else {
        return;
    };
    let secret = object("Secret", secret);
    let secret = secret["stringData"].as_object().expect("values");
    let plain = container["env"].as_array().into_iter().flatten();
    let plain = plain.map(|variable| variable["name"].as_str().expect("a name").to_owned());
    if container["image"] == "payonce:0.1.0" {
        for name in secret.keys().cloned().chain(plain) {
            assert!(settings().contains(&name), "{name}");
        }
    }
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    let mounted = mounts
        .iter()
        .find(|mount| mount["name"] == "database-authority")
        .expect("the database's authority");
    let file = format!("{}/ca.crt", mounted["mountPath"].as_str().expect("a path"));
    let leads = secret.get("DATABASE_URL").or(secret.get("PGSSLROOTCERT"));
    assert!(
        leads
            .and_then(Value::as_str)
            .is_some_and(|value| value.ends_with(&file)),
        "{leads:?}"
    );
}

/// Roles before the migration, and their rights to its tables after it, in one job.
#[test]
fn the_job_sets_the_database_up_in_order() {
    let job = object("Job", "payonce-migrate");
    let pod = &job["spec"]["template"]["spec"];
    let names: Vec<&Value> = containers(pod).iter().map(|found| &found["name"]).collect();
    assert_eq!(names, ["scripts", "roles", "migrate", "grant"]);
    let containers = containers(pod);
    assert_eq!(containers[1]["command"], containers[3]["command"]);
    let copied = strings(&containers[0]["command"]);
    let dockerfile = deployed::read("../Dockerfile");
    assert!(dockerfile.contains("deploy/roles.sql deploy/roles.sh /usr/local/share/payonce/"));
    assert_eq!(
        copied[1..3],
        [
            "/usr/local/share/payonce/roles.sql",
            "/usr/local/share/payonce/roles.sh"
        ]
    );
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
    let grace = pod["terminationGracePeriodSeconds"].as_u64();
    assert!(grace >= Some(STOP_SECONDS + before + 10), "with a margin");
}

/// With a certificate the service speaks HTTPS only, so whoever probes it has to.
#[test]
fn with_tls_everything_that_asks_the_service_asks_by_https() {
    let component = deployed::yaml("kubernetes/components/tls/kustomization.yaml");
    let patch = component["patches"][0]["patch"].as_str().expect("a patch");
    let patch: Value = serde_saphyr::from_str(patch).expect("YAML");
    let template = &patch["spec"]["template"];
    assert_eq!(
        template["metadata"]["annotations"]["prometheus.io/scheme"],
        "https"
    );
    let container = &template["spec"]["containers"][0];
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        assert_eq!(container[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
    }
    let folder = &container["volumeMounts"][0]["mountPath"];
    let folder = folder.as_str().expect("a path");
    for variable in container["env"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        assert!(settings().contains(name), "{name}");
        let value = variable["value"].as_str().expect("a path");
        assert!(value.starts_with(folder), "{value}");
    }
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
