//! `docker-compose.yml`, the second one in `deploy/scaling`, and the files that they name.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use super::{STOP_SECONDS, assert_is_taken, settings, strings};
use crate::support::cluster::{Cluster, postgres_program};
use crate::support::deployed;
use crate::support::process::{json as json_of, program, run};

const COMPOSE: &str = "../docker-compose.yml";
const SCALING: &str = "scaling/docker-compose.yml";

fn services() -> BTreeMap<String, Value> {
    let mut services = BTreeMap::new();
    for file in [COMPOSE, SCALING] {
        let file = deployed::yaml(file);
        let found = file["services"].as_object().expect("services").clone();
        for (name, service) in found {
            // A service that an earlier file has gets what the later one adds.
            let merged = services.entry(name).or_insert_with(|| json!({}));
            let merged = merged.as_object_mut().expect("a service");
            merged.extend(service.as_object().expect("a service").clone());
        }
    }
    services
}

/// The lines `NAME=value` of a service's file.
fn environment(service: &Value) -> BTreeMap<String, String> {
    let file = service["env_file"].as_str().expect("a file");
    let text = deployed::read(&format!("../{file}"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_once('=').expect("NAME=value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn nothing_runs_as_root_or_writes_to_its_image() {
    for (name, service) in services() {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(
            strings(&service["security_opt"]),
            ["no-new-privileges:true"],
            "{name}"
        );
        // Who collects orphans, and how far a log grows.
        assert_eq!(service["init"], true, "{name}");
        assert_eq!(service["logging"]["driver"], "local", "{name}");
        assert_eq!(service["logging"]["options"]["max-size"], "10m", "{name}");
        // The images of the observability profile name a user of their own.
        if service["profiles"].is_null() {
            let user = service["user"].as_str().expect(&name);
            assert!(
                ["65532:65532", "postgres", "haproxy"].contains(&user),
                "{name}: {user}"
            );
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(
                port.as_str()
                    .is_some_and(|port| port.starts_with("127.0.0.1:")),
                "{name}"
            );
        }
    }
}

#[test]
fn each_program_gets_its_own_role_and_only_settings_that_there_are() {
    let services = services();
    let passwords = environment(&services["db"]);
    for (name, role) in [
        ("migrate", "owner"),
        ("app", "service"),
        ("app-b", "service"),
        ("cleanup", "cleanup"),
    ] {
        let environment = environment(&services[name]);
        let unknown: Vec<_> = environment
            .keys()
            .filter(|name| !settings().contains(*name))
            .collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        let password = &passwords[&format!("PAYONCE_{}_PASSWORD", role.to_uppercase())];
        let database = &passwords["POSTGRES_DB"];
        assert_eq!(
            environment["DATABASE_URL"],
            format!("postgres://payonce_{role}:{password}@db:5432/{database}"),
            "{name}"
        );
    }
    assert_eq!(services["app"]["env_file"], services["app-b"]["env_file"]);
    for name in ["migrate", "app", "app-b"] {
        assert_is_taken(&strings(&services[name]["command"]));
    }
    let looped = strings(&services["cleanup"]["command"])[2];
    let call = looped
        .split("if ")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    assert_is_taken(&call.expect("a call").split(' ').collect::<Vec<_>>());
    for name in ["app", "app-b"] {
        assert_eq!(
            services[name]["stop_grace_period"],
            format!("{STOP_SECONDS}s")
        );
    }
}

#[test]
fn what_is_mounted_and_waited_for_is_there() {
    let services = services();
    for (name, service) in &services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let volume = volume.as_str().expect("a volume");
            if let Some(host) = volume.strip_prefix("./") {
                let host = host.split(':').next().expect("a path");
                assert!(deployed::path("..").join(host).exists(), "{name}: {volume}");
                assert!(volume.ends_with(":ro"), "{name}: {volume}");
            }
        }
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let other_service = &services[other];
            if how["condition"] == "service_healthy" {
                assert!(
                    other_service["healthcheck"].is_object(),
                    "{name} waits for {other}"
                );
            }
        }
    }
    let prometheus = deployed::yaml("observability/prometheus.yml");
    let jobs = prometheus["scrape_configs"].as_array().expect("jobs");
    let mut watched = Vec::new();
    for job in jobs {
        let lists = job["static_configs"].as_array().into_iter().flatten();
        watched.extend(
            lists
                .flat_map(|list| strings(&list["targets"]))
                .map(str::to_owned),
        );
        for list in job["file_sd_configs"].as_array().into_iter().flatten() {
            for file in strings(&list["files"]) {
                let file = file.replace("targets/", "scaling/prometheus/");
                let lists = deployed::yaml(&file);
                let lists = lists.as_array().expect("a list of targets");
                let targets = lists.iter().flat_map(|list| strings(&list["targets"]));
                watched.extend(targets.map(str::to_owned));
            }
        }
    }
    for target in &watched {
        let (host, _) = target.split_once(':').expect("host:port");
        assert!(services.contains_key(host), "{target}");
    }
    assert_eq!(
        watched,
        ["app:8080", "app-b:8080", "proxy:8405", "textfile:9100"]
    );
    let proxy = services["proxy"]["environment"]
        .as_object()
        .expect("variables");
    for node in ["PAYONCE_NODE_A", "PAYONCE_NODE_B"] {
        let (host, port) = proxy[node]
            .as_str()
            .and_then(|at| at.split_once(':'))
            .expect(node);
        let listen = &environment(&services[host])["PAYONCE_LISTEN"];
        assert!(listen.ends_with(&format!(":{port}")), "{node}");
    }
    let dockerfile = deployed::read("../Dockerfile");
    assert!(dockerfile.contains("install -d -o payonce -g payonce /var/lib/payonce/textfile"));
}

/// What each asks is tried in `command_line`.
#[test]
fn whether_a_node_is_ready_is_asked_of_itself() {
    let services = services();
    for name in ["app", "app-b"] {
        let check = &services[name]["healthcheck"]["test"];
        assert_eq!(strings(check), ["CMD", "payonce", "ready"], "{name}");
    }
    assert_is_taken(&["payonce", "ready"]);
    let dockerfile = deployed::read("../Dockerfile");
    assert!(dockerfile.contains(r#"CMD ["payonce", "ready"]"#));
    // A directive that names a frontend would be asked of a registry.
    assert!(!dockerfile.contains("syntax="));
}

/// Behind a proxy, a duplicate goes to the node that did not die. It has to wait until the dead one's lease is over.
#[test]
fn a_duplicate_waits_longer_than_a_lease() {
    let nowhere = PgConnectOptions::new_without_pgpass();
    let mut doctor = program("payonce", &nowhere);
    doctor.args(["doctor", "--json"]);
    doctor.envs(environment(&services()["app"]));
    let report = json_of(&run(
        doctor.env("DATABASE_URL", "postgres://u@127.0.0.1:1/d")
    ));
    let mut findings = report["findings"].as_array().expect("findings").iter();
    let wait = findings.find(|finding| finding["name"] == "duplicates-wait");
    assert_eq!(wait.expect("a finding")["result"], "ok", "{wait:?}");
}

/// A service of the compose file runs it with each `docker compose up`.
#[tokio::test]
async fn the_database_its_roles_and_passwords_are_set_up_as_often_as_one_likes() {
    let cluster = Cluster::start();
    let psql = postgres_program("psql");
    let folder = psql.parent().map(Path::to_path_buf).unwrap_or_default();
    let search = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let services = services();
    let set_up = |more: &[(&str, &str)]| {
        let mut script = Command::new("sh");
        script
            .arg(deployed::path("roles.sh"))
            .env("PATH", &search)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", cluster.options().get_port().to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "payonce")
            .envs(environment(&services["db"]))
            .envs(more.iter().copied());
        run(&mut script)
    };
    let pool = PgPool::connect_with(cluster.options())
        .await
        .expect("a pool");
    let passwords = async || {
        let query = "select rolname::text, rolpassword from pg_authid \
                     where rolpassword is not null order by 1";
        let roles: Vec<(String, String)> =
            sqlx::query_as(query).fetch_all(&pool).await.expect("roles");
        roles
    };

    let first = set_up(&[("POSTGRES_PASSWORD", "")]);
    assert!(first.status.success(), "{first:?}");
    let made = passwords().await;
    let names: Vec<&str> = made.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["payonce_cleanup", "payonce_owner", "payonce_service"]
    );
    assert!(
        made.iter()
            .all(|(_, hash)| hash.starts_with("SCRAM-SHA-256$"))
    );

    // Once more, with a password that is changed, one from a file, one that is not given, and characters that SQL and shells read.
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "it's $(from) a \"file\"\n").expect("written");
    let again = set_up(&[
        ("PAYONCE_OWNER_PASSWORD", ""),
        ("PAYONCE_SERVICE_PASSWORD", ""),
        (
            "PAYONCE_SERVICE_PASSWORD_FILE",
            file.path().to_str().expect("text"),
        ),
        ("PAYONCE_CLEANUP_PASSWORD", "it's '; \\ `changed`"),
    ]);
    assert!(again.status.success(), "{again:?}");
    let changed = passwords().await;
    assert_eq!(changed.len(), 4, "the superuser's, too");
    let hash = |roles: &[(String, String)], name: &str| {
        let found = roles.iter().find(|(role, _)| role == name);
        found.map(|(_, hash)| hash.clone())
    };
    assert_eq!(
        hash(&made, "payonce_owner"),
        hash(&changed, "payonce_owner")
    );
    for role in ["payonce_service", "payonce_cleanup"] {
        assert_ne!(hash(&made, role), hash(&changed, role), "{role}");
    }

    let both = set_up(&[("PAYONCE_SERVICE_PASSWORD_FILE", "/nowhere")]);
    assert_eq!(both.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&both.stderr)
            .contains("PAYONCE_SERVICE_PASSWORD and PAYONCE_SERVICE_PASSWORD_FILE are both set")
    );
    pool.close().await;
}
