//! A server that may lose confirmed commits is refused, unless this is allowed explicitly.

use crate::support::cluster::Cluster;
use crate::support::process::{error_line, program, run};

#[test]
fn a_server_that_does_not_write_through_is_refused_unless_allowed() {
    let cluster = Cluster::start_with("-c fsync=off");
    for setting in ["fsync", "full_page_writes"] {
        let serve = run(program("payonce", &cluster.options())
            .arg("serve")
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
        assert_eq!(serve.status.code(), Some(2), "{setting}");
        let line = error_line(&serve);
        assert!(
            line.contains(&format!("{setting} is off")) && line.contains("--allow-unsafe-database"),
            "{line}"
        );
        if setting == "fsync" {
            cluster.down();
            cluster.up_with("-c full_page_writes=off");
        }
    }
    // It passes the permission to its servers and its clean-up, which need it, too.
    let demo = |flags: &[&str]| {
        run(program("payonce", &cluster.options())
            .arg("demo")
            .args(flags))
    };
    assert_eq!(demo(&[]).status.code(), Some(2));
    let shown = demo(&["--allow-unsafe-database"]);
    let page = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0), "{page}");
    // An address that is not this machine's (RFC 5737), so the program fails at this point.
    let allowed = run(program("payonce", &cluster.options())
        .args([
            "serve",
            "--allow-unsafe-database",
            "--listen",
            "192.0.2.1:80",
        ])
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
    let log = String::from_utf8_lossy(&allowed.stderr).into_owned();
    assert!(
        log.contains("WARN") && log.contains("full_page_writes"),
        "{log}"
    );
    assert!(log.contains("PAYONCE_LISTEN"), "{log}");
}
