//! `deploy/systemd`.

use std::path::Path;
use std::process::Command;

use super::{STOP_SECONDS, assert_is_taken};
use crate::support::deployed;
use crate::support::process::run;

const UNITS: [&str; 3] = [
    "payonce.service",
    "payonce-cleanup.service",
    "payonce-cleanup.timer",
];

/// The last value of a setting in a unit.
fn setting(unit: &str, name: &str) -> Option<String> {
    let text = deployed::read(&format!("systemd/{unit}"));
    let prefix = format!("{name}=");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines.next_back().map(str::to_owned)
}

#[test]
fn the_units_start_what_there_is_confined_and_with_time_to_stop() {
    for unit in ["payonce.service", "payonce-cleanup.service"] {
        let command = setting(unit, "ExecStart").expect("a command");
        assert_is_taken(&command.split(' ').collect::<Vec<_>>());
        for (name, value) in [
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "yes"),
            ("PrivateTmp", "yes"),
            ("CapabilityBoundingSet", ""),
        ] {
            assert_eq!(
                setting(unit, name).as_deref(),
                Some(value),
                "{unit}: {name}"
            );
        }
        assert!(
            setting(unit, "EnvironmentFile").is_some_and(|file| file.starts_with("/etc/payonce/"))
        );
    }
    assert_eq!(
        setting("payonce.service", "DynamicUser").as_deref(),
        Some("yes")
    );
    // Never given up, whatever is away for however long.
    assert_eq!(
        setting("payonce.service", "StartLimitIntervalSec").as_deref(),
        Some("0")
    );
    // The state of a DynamicUser lies where only root may look, and the exporter is not root.
    assert_eq!(setting("payonce-cleanup.service", "DynamicUser"), None);
    let user = setting("payonce-cleanup.service", "User").expect("a user");
    let users = deployed::read("systemd/payonce.sysusers.conf");
    assert!(users.contains(&format!("\nu {user} ")), "{user}");
    let group = setting("payonce.service.d/tls.conf", "SupplementaryGroups").expect("a group");
    assert!(users.contains(&format!("\ng {group} ")), "{group}");
    assert_eq!(
        setting("payonce.service", "TimeoutStopSec"),
        Some(format!("{STOP_SECONDS}s"))
    );
    assert_eq!(
        setting("payonce.service", "RestartPreventExitStatus").as_deref(),
        Some("2")
    );
    let folder = setting("payonce-cleanup.service", "StateDirectory").expect("a folder");
    let command = setting("payonce-cleanup.service", "ExecStart").expect("a command");
    assert!(
        command.contains(&format!(" /var/lib/{folder}/")),
        "{command}"
    );
    for (name, value) in [("OnCalendar", "hourly"), ("Persistent", "yes")] {
        assert_eq!(
            setting("payonce-cleanup.timer", name).as_deref(),
            Some(value)
        );
    }
}

/// systemd's own check; the programs need not be installed for it.
#[test]
fn systemd_accepts_the_units() {
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        crate::support::skipped::skip(
            "the systemd unit: no systemd-analyze here (apt-get install systemd)",
        );
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for unit in UNITS {
        let text = deployed::read(&format!("systemd/{unit}"));
        let text = text
            .replace("/usr/local/bin/payonce-cleanup", "/bin/true")
            .replace("/usr/local/bin/payonce", "/bin/true");
        std::fs::write(folder.path().join(unit), text).expect("a file");
    }
    let units = UNITS.map(|unit| folder.path().join(unit));
    let verified = run(Command::new(analyze)
        .args(["verify", "--man=no"])
        .args(&units));
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("payonce"))
        .collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
}
