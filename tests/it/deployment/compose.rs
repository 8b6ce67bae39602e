//! `docker-compose.yml`, the second one in `deploy/scaling`, and the files that they name.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{STOP_SECONDS, assert_is_taken, settings, strings};
use crate::support::cluster::{Cluster, postgres_program};
use crate::support::deployed;
use crate::support::process::{Server, plain_url, run};

const COMPOSE: &str = "../docker-compose.yml";
const SCALING: &str = "scaling/docker-compose.yml";

fn services() -> BTreeMap<String, Value> {
    let mut services = BTreeMap::new();
    for file in [COMPOSE, SCALING] {
        let file = deployed::yaml(file);
        let found = file["services"].as_object().expect("services").clone();
        services.extend(found);
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
        // The images of the observability profile name a user of their own.
        if service["profiles"].is_null() {
            let user = service["user"].as_str().expect(&name);
            assert!(
                ["payonce", "postgres", "haproxy"].contains(&user),
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
    for target in jobs
        .iter()
        .flat_map(|job| strings(&job["static_configs"][0]["targets"]))
    {
        let (host, _) = target.split_once(':').expect("host:port");
        assert!(services.contains_key(host), "{target}");
    }
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

/// The health check is run as the container would run it.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_health_check_sees_a_node_that_is_ready_and_one_that_is_not(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let mut server = Server::start(&db, &[]);
    let port = server.url.rsplit(':').next().expect("a port").to_owned();
    for name in ["app", "app-b"] {
        let services = services();
        let check = strings(&services[name]["healthcheck"]["test"]);
        let ["CMD", shell, "-c", script] = check[..] else {
            panic!("{check:?}");
        };
        let listen = &environment(&services[name])["PAYONCE_LISTEN"];
        let configured = listen.rsplit(':').next().expect("a port");
        let ask = |from: &str, to: &str| {
            let script = script.replace(&format!("/{configured} "), &format!("/{port} "));
            assert!(script.contains(&port) && script.contains(from), "{script}");
            run(Command::new(shell).arg("-c").arg(script.replace(from, to)))
                .status
                .success()
        };
        assert!(ask("/readyz", "/readyz"), "{name}");
        assert!(!ask("/readyz", "/nowhere"), "{name}");
    }
    server.kill();
    let gone = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    assert!(
        !run(Command::new("bash").arg("-c").arg(gone))
            .status
            .success()
    );
}

/// The script that the database's image runs when it makes the database.
#[tokio::test]
async fn each_role_gets_its_password_when_the_database_is_made() {
    let cluster = Cluster::start();
    let psql = postgres_program("psql");
    let url = plain_url(&cluster.options());
    let made = run(Command::new(&psql)
        .args(["-X", "-q", "-f"])
        .arg(deployed::path("roles.sql"))
        .arg(&url));
    assert!(made.status.success(), "{made:?}");
    let folder = psql.parent().map(Path::to_path_buf).unwrap_or_default();
    let search = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let mut script = Command::new("sh");
    script
        .arg(deployed::path("compose/passwords.sh"))
        .env("PATH", search)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", cluster.options().get_port().to_string())
        .envs(environment(&services()["db"]))
        .env("POSTGRES_DB", "postgres");
    let given = run(&mut script);
    assert!(given.status.success(), "{given:?}");
    let pool = PgPool::connect_with(cluster.options())
        .await
        .expect("a pool");
    let with_password: Vec<String> = sqlx::query_scalar(
        "select rolname::text from pg_authid where rolpassword is not null and rolname like 'payonce%' order by 1",
    )
    .fetch_all(&pool)
    .await
    .expect("the roles");
    assert_eq!(
        with_password,
        ["payonce_cleanup", "payonce_owner", "payonce_service"]
    );
    pool.close().await;
}
