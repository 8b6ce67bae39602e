//! TLS from clients and to the database, with certificates made here.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use reqwest::{Certificate, Client};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::certificates::Authority;
use crate::support::cluster::Cluster;
use crate::support::process::{Server, error_line, merchant, program, run};
use crate::support::service::{Merchant, client};

/// A client that trusts this authority and no other.
fn client_of(authority: &Authority) -> Client {
    drop(client());
    let trusted = Certificate::from_pem(authority.pem().as_bytes()).expect("a certificate");
    Client::builder()
        .tls_certs_only([trusted])
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(20))
        .build()
        .expect("a client")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in ASCII")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn clients_pay_over_tls_and_only_over_tls(_: PgPoolOptions, db: PgConnectOptions) {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (certificate, key) = ours.issue(folder.path(), "payonce", &["127.0.0.1"]);
    let files = [
        ("PAYONCE_TLS_CERT", text(&certificate)),
        ("PAYONCE_TLS_KEY", text(&key)),
    ];
    let server = Server::start(&db, &files);
    let acme = Merchant {
        client: client_of(&ours),
        ..merchant(&db, &server.url.replace("http://", "https://"), "acme")
    };
    let paid = acme.pay("10").key("k").send().await;
    assert_eq!(paid.status, 201);
    assert!(acme.pay("10").key("k").send().await.replayed());

    let plain = client().get(format!("{}/healthz", server.url)).send();
    assert!(plain.await.is_err(), "plain HTTP is refused");
    let health = format!("{}/healthz", acme.url);
    let stranger = client_of(&theirs).get(&health).send().await;
    let refused = format!("{:?}", stranger.expect_err("another authority"));
    assert!(refused.contains("UnknownIssuer"), "{refused}");

    // The certificate is renewed, by another authority, and read on SIGHUP. A bad one is not taken.
    let trusting_theirs = client_of(&theirs);
    theirs.issue(folder.path(), "payonce", &["127.0.0.1"]);
    server.signal(Signal::SIGHUP);
    let deadline = Instant::now() + Duration::from_secs(20);
    while trusting_theirs.get(&health).send().await.is_err() {
        assert!(Instant::now() < deadline, "{}", server.log());
        crate::support::pause().await;
    }
    assert!(client_of(&ours).get(&health).send().await.is_err());
    std::fs::write(&key, "no key").expect("a file");
    server.signal(Signal::SIGHUP);
    while !server.log().contains("the old certificate stays") {
        assert!(Instant::now() < deadline, "{}", server.log());
        crate::support::pause().await;
    }
    assert!(trusting_theirs.get(&health).send().await.is_ok());
    assert!(!server.log().contains("no key"));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_reload_without_a_certificate_does_not_end_the_service(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let mut server = Server::start(&db, &[]);
    // Only once it answers does it listen to signals.
    let health = format!("{}/healthz", server.url);
    assert!(client().get(&health).send().await.is_ok());
    server.signal(Signal::SIGHUP);
    server
        .until_logged("there is no certificate to reload")
        .await;
    assert_eq!(
        client()
            .get(&health)
            .send()
            .await
            .expect("an answer")
            .status(),
        200
    );
    server.signal(Signal::SIGTERM);
    assert!(server.ended().await.success());
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn readiness_is_asked_by_tls_where_the_service_speaks_it(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = Authority::new().issue(folder.path(), "pay.example.com", &[]);
    let files = [
        ("PAYONCE_TLS_CERT", text(&certificate)),
        ("PAYONCE_TLS_KEY", text(&key)),
    ];
    let server = Server::start(&db, &files);
    let listen = server.url.trim_start_matches("http://");
    let ready = |files: &[(&str, &str)]| {
        run(program("payonce", &db)
            .arg("ready")
            .env("PAYONCE_LISTEN", listen)
            .envs(files.iter().copied()))
    };
    assert_eq!(ready(&files).status.code(), Some(0));
    assert_eq!(ready(&[]).status.code(), Some(1), "plain HTTP");
}

/// RFC 8996: TLS 1.0 and 1.1 are not spoken.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn tls_1_2_and_1_3_are_spoken(_: PgPoolOptions, db: PgConnectOptions) {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let (certificate, key) = authority.issue(folder.path(), "payonce", &["127.0.0.1"]);
    let server = Server::start(
        &db,
        &[
            ("PAYONCE_TLS_CERT", text(&certificate)),
            ("PAYONCE_TLS_KEY", text(&key)),
        ],
    );
    let address = server.url.trim_start_matches("http://");
    let spoken = |version: [u8; 2]| hello(address, version);
    assert_eq!(spoken([3, 3]), Some(HANDSHAKE), "TLS 1.2");
    assert_eq!(spoken([3, 2]), Some(ALERT), "TLS 1.1");
    let client = client_of(&authority);
    for version in [
        reqwest::tls::Version::TLS_1_2,
        reqwest::tls::Version::TLS_1_3,
    ] {
        let trusted = Certificate::from_pem(authority.pem().as_bytes()).expect("a certificate");
        let only = Client::builder()
            .tls_certs_only([trusted])
            .tls_version_min(version)
            .tls_version_max(version)
            .build()
            .expect("a client");
        let answer = only.get(format!("https://{address}/healthz")).send().await;
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    let answer = client.get(format!("https://{address}/readyz")).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
}

const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;

/// The type of the record that answers a hello of this version, with ciphers and curves that every server knows.
fn hello(address: &str, version: [u8; 2]) -> Option<u8> {
    use std::io::{Read, Write};
    let mut body = version.to_vec();
    body.extend([7; 32]); // random
    body.push(0); // no session
    // ECDHE with AES-GCM (1.2) and with AES-CBC (1.0 and 1.1), for ECDSA.
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x09]);
    body.extend([1, 0]); // no compression
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let points = [0, 11, 0, 2, 1, 0];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [&groups[..], &points, &signatures].concat();
    body.extend(
        u16::try_from(extensions.len())
            .expect("short")
            .to_be_bytes(),
    );
    body.extend(extensions);
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    let mut message = vec![1, 0, length[0], length[1]];
    message.extend(body);
    let length = u16::try_from(message.len()).expect("short").to_be_bytes();
    let mut record = vec![HANDSHAKE, 3, 1, length[0], length[1]];
    record.extend(message);
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a time-out");
    stream.write_all(&record).expect("sent");
    let mut first = [0];
    stream.read_exact(&mut first).ok()?;
    Some(first[0])
}

#[test]
fn bad_files_are_told_in_one_line_that_names_the_setting() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let (certificate, key) = authority.issue(folder.path(), "one", &["localhost"]);
    let (_, other_key) = authority.issue(folder.path(), "other", &["localhost"]);
    let rubbish = folder.path().join("rubbish");
    std::fs::write(&rubbish, "-----BEGIN hunter2").expect("a file");
    let absent = folder.path().join("absent");
    let nowhere = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(1);
    for (cert_file, key_file, named) in [
        (Some(&certificate), None, "--tls-key (PAYONCE_TLS_KEY)"),
        (None, Some(&key), "--tls-cert (PAYONCE_TLS_CERT)"),
        (Some(&absent), Some(&key), "--tls-cert (PAYONCE_TLS_CERT)"),
        (Some(&rubbish), Some(&key), "--tls-cert (PAYONCE_TLS_CERT)"),
        (Some(&key), Some(&key), "--tls-cert (PAYONCE_TLS_CERT)"),
        (
            Some(&certificate),
            Some(&absent),
            "--tls-key (PAYONCE_TLS_KEY)",
        ),
        (
            Some(&certificate),
            Some(&rubbish),
            "--tls-key (PAYONCE_TLS_KEY)",
        ),
        (
            Some(&certificate),
            Some(&certificate),
            "--tls-key (PAYONCE_TLS_KEY)",
        ),
        (
            Some(&certificate),
            Some(&other_key),
            "--tls-key (PAYONCE_TLS_KEY)",
        ),
    ] {
        let mut serve = program("payonce", &nowhere);
        serve
            .arg("serve")
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests")
            .envs(cert_file.map(|file| ("PAYONCE_TLS_CERT", file)))
            .envs(key_file.map(|file| ("PAYONCE_TLS_KEY", file)));
        let refused = run(&mut serve);
        let line = error_line(&refused);
        assert_eq!(refused.status.code(), Some(2), "{line}");
        assert!(line.starts_with(&format!("payonce: {named} ")), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

/// A database that takes nothing but TLS, and goes by this name.
fn cluster_with_tls(folder: &Path, authority: &Authority, host: &str) -> Cluster {
    let (certificate, key) = authority.issue(folder, "server", &[host]);
    let rules = folder.join("pg_hba.conf");
    std::fs::write(&rules, "hostssl all all 127.0.0.1/32 trust\n").expect("a file");
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).expect("a mode");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("a mode");
    if nix::unistd::geteuid().is_root() {
        let mut chown = Command::new("chown");
        assert!(run(chown.arg("postgres").arg(&key)).status.success());
    }
    Cluster::start_with(&format!(
        "-c ssl=on -c ssl_cert_file={} -c ssl_key_file={} -c hba_file={}",
        text(&certificate),
        text(&key),
        text(&rules)
    ))
}

#[test]
fn the_database_is_who_the_authority_says_or_is_not_talked_to() {
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let cluster = cluster_with_tls(folder.path(), &ours, "localhost");
    let trusted = folder.path().join("ours.pem");
    std::fs::write(&trusted, ours.pem()).expect("a file");
    let other = folder.path().join("theirs.pem");
    std::fs::write(&other, theirs.pem()).expect("a file");
    let migrate = |host: &str, parameters: &str| {
        let port = cluster.options().get_port();
        run(program("payonce", &cluster.options()).arg("migrate").env(
            "DATABASE_URL",
            format!("postgres://postgres@{host}:{port}/postgres?{parameters}"),
        ))
    };
    let root = format!("sslmode=verify-full&sslrootcert={}", text(&trusted));
    let migrated = migrate("localhost", &root);
    assert!(migrated.status.success(), "{migrated:?}");

    let other_root = format!("sslmode=verify-full&sslrootcert={}", text(&other));
    for (host, parameters, why) in [
        ("localhost", other_root.as_str(), "UnknownIssuer"),
        ("127.0.0.1", &root, "not valid for name"),
        ("localhost", "sslmode=verify-full", "UnknownIssuer"),
        ("localhost", "sslmode=disable", "no encryption"),
    ] {
        let refused = migrate(host, parameters);
        let line = error_line(&refused);
        assert_eq!(refused.status.code(), Some(1), "{line}");
        assert!(line.contains("cannot reach the database"), "{line}");
        assert!(line.contains(why), "{parameters}: {line}");
    }
}
