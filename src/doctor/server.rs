//! PostgreSQL's settings for durability and for the upkeep of tables.

use sqlx::PgConnection;

use super::store::{self, ServerSetting};
use super::{Finding, Verdict};
use crate::config::ServeArgs;
use crate::database::{OLDEST_VERSION, SESSION_SETTINGS};

const ASKED: [&str; 12] = [
    "autovacuum",
    "client_encoding",
    "fsync",
    "full_page_writes",
    "log_timezone",
    "server_encoding",
    "server_version",
    "server_version_num",
    "synchronous_commit",
    "synchronous_standby_names",
    "TimeZone",
    "track_counts",
];

pub(super) async fn examine(connection: &mut PgConnection, args: &ServeArgs) -> Vec<Finding> {
    let mut findings = match store::settings(connection, &ASKED).await {
        Ok(settings) => of_settings(&settings, args.database.allow_unsafe_database),
        Err(error) => vec![Finding::or_unseen("server-settings", Err(error))],
    };
    findings.push(Finding::or_unseen(
        "session-settings",
        session_settings(connection).await,
    ));
    findings.push(Finding::or_unseen(
        "autovacuum-tables",
        autovacuum_of_tables(connection).await,
    ));
    findings.push(Finding::or_unseen("primary", primary(connection).await));
    findings
}

fn of_settings(settings: &[ServerSetting], allow_unsafe: bool) -> Vec<Finding> {
    let find = |name: &str| settings.iter().find(|setting| setting.name == name);
    let value = |name: &str| find(name).map_or("", |setting| setting.value.as_str());
    let mut findings = vec![version(
        value("server_version_num"),
        value("server_version"),
    )];
    for name in ["fsync", "full_page_writes"] {
        findings.push(durability(name, find(name), allow_unsafe));
    }
    let standbys = value("synchronous_standby_names");
    let commit = find("synchronous_commit");
    findings.push(match commit {
        Some(setting) if setting.value == "local" && !standbys.is_empty() => Finding::warning(
            "synchronous-commit",
            format!(
                "local, {}, although there are synchronous standbys",
                setting.by()
            ),
            "a confirmed payment may be missing on the standby: set synchronous_commit to on",
        ),
        found => durability("synchronous_commit", found, allow_unsafe),
    });
    findings.push(autovacuum(value("autovacuum"), value("track_counts")));
    findings.push(time_zone(value("TimeZone"), value("log_timezone")));
    findings.push(encoding(value("server_encoding"), value("client_encoding")));
    findings
}

fn version(number: &str, text: &str) -> Finding {
    const NAME: &str = "version";
    let found = format!("PostgreSQL {text}");
    match number.parse::<u32>().map(|number| number / 10_000) {
        Ok(major) if major >= OLDEST_VERSION => Finding::ok(NAME, found),
        Ok(_) => {
            let advice = format!("payonce needs PostgreSQL {OLDEST_VERSION} or later: upgrade it");
            Finding::problem(NAME, found, advice)
        }
        Err(_) => Finding::warning(
            NAME,
            "it does not report it",
            format!("payonce is tested with PostgreSQL {OLDEST_VERSION} and later"),
        ),
    }
}

fn encoding(server: &str, session: &str) -> Finding {
    const NAME: &str = "encoding";
    if !server.eq_ignore_ascii_case("UTF8") {
        return Finding::problem(
            NAME,
            format!("the database stores text in {server}"),
            "names and descriptions are UTF-8: create a new database with encoding 'UTF8' template template0, and move the data",
        );
    }
    if !session.eq_ignore_ascii_case("UTF8") {
        return Finding::problem(
            NAME,
            format!("{session} in payonce's session, which asked for UTF8"),
            "a pooler or proxy in between drops the session's settings: connect without it, or let it pool sessions",
        );
    }
    Finding::ok(NAME, "UTF8")
}

/// One of the three settings without which a confirmed commit may be lost.
fn durability(name: &'static str, setting: Option<&ServerSetting>, allowed: bool) -> Finding {
    let check = match name {
        "full_page_writes" => "full-page-writes",
        "synchronous_commit" => "synchronous-commit",
        name => name,
    };
    let Some(setting) = setting else {
        let advice = format!("make sure that {name} is on");
        return Finding::warning(check, "it does not report it", advice);
    };
    let found = format!("{}, {}", setting.value, setting.by());
    if setting.value != "off" {
        return Finding::ok(check, found);
    }
    let found = format!("{found}: the database may lose confirmed commits");
    let off = Finding::problem(check, found, how_to_turn_on(name, &setting.source));
    if allowed {
        return Finding {
            verdict: Verdict::Warning,
            ..off
        };
    }
    off
}

/// A setting has to be turned on in the place where it was turned off.
fn how_to_turn_on(name: &str, source: &str) -> String {
    match source {
        "user" | "database user" => {
            format!("alter role … [in database …] reset {name}; then reconnect")
        }
        "database" => format!("alter database … reset {name}; then reconnect"),
        "client" | "session" => format!("remove {name} from DATABASE_URL or PGOPTIONS"),
        "command line" => format!("remove {name} from PostgreSQL's command line, and restart it"),
        _ => format!("alter system set {name} = on; select pg_reload_conf()"),
    }
}

fn autovacuum(autovacuum: &str, track_counts: &str) -> Finding {
    const NAME: &str = "autovacuum";
    let off: Vec<&str> = [("autovacuum", autovacuum), ("track_counts", track_counts)]
        .into_iter()
        .filter_map(|(name, value)| (value == "off").then_some(name))
        .collect();
    if off.is_empty() {
        return Finding::ok(NAME, "on");
    }
    let advice = format!(
        "keys live for a day, and their table only grows without it: alter system set {} = on; select pg_reload_conf()",
        off.join(" = on; alter system set ")
    );
    Finding::problem(NAME, format!("{} is off", off.join(" and ")), advice)
}

fn time_zone(session: &str, log: &str) -> Finding {
    const NAME: &str = "time-zone";
    let is_utc = |zone: &str| matches!(zone, "UTC" | "Etc/UTC" | "GMT" | "UCT" | "Zulu");
    if !is_utc(session) {
        return Finding::problem(
            NAME,
            format!("{session} in payonce's session, which asked for UTC"),
            "a pooler or proxy in between drops the session's settings: connect without it, or let it pool sessions",
        );
    }
    if !is_utc(log) {
        return Finding::warning(
            NAME,
            format!("UTC in payonce's sessions, {log} in the server's log"),
            "to read both logs side by side: alter system set log_timezone = 'UTC'; select pg_reload_conf()",
        );
    }
    Finding::ok(NAME, "UTC, in payonce's sessions and in the server's log")
}

/// The waits of a session are bounded only if it got the settings that it asked for.
async fn session_settings(connection: &mut PgConnection) -> sqlx::Result<Finding> {
    let names = SESSION_SETTINGS.map(|(name, _)| name);
    let values = store::current_values(connection, &names).await?;
    let got = |name: &str| values.iter().find(|(have, _)| have == name);
    let dropped: Vec<&str> = SESSION_SETTINGS
        .iter()
        .filter(|(name, asked)| got(name).is_none_or(|(_, value)| value != asked))
        .map(|(name, _)| *name)
        .collect();
    Ok(of_session(&dropped))
}

fn of_session(dropped: &[&str]) -> Finding {
    const NAME: &str = "session-settings";
    if dropped.is_empty() {
        return Finding::ok(NAME, "the session has the requested settings");
    }
    Finding::warning(
        NAME,
        format!(
            "a pooler in between drops the session's start-up settings: {}",
            dropped.join(", ")
        ),
        "payonce sets them after each connect, which needs a session of its own: let the pooler pool sessions, not transactions",
    )
}

async fn autovacuum_of_tables(connection: &mut PgConnection) -> sqlx::Result<Finding> {
    const NAME: &str = "autovacuum-tables";
    let tables = store::tables_without_autovacuum(connection).await?;
    if tables.is_empty() {
        return Ok(Finding::ok(NAME, "on for every table"));
    }
    let advice = tables
        .iter()
        .map(|table| format!("alter table {table} reset (autovacuum_enabled)"));
    Ok(Finding::problem(
        NAME,
        format!("off for {}", tables.join(", ")),
        advice.collect::<Vec<_>>().join("; "),
    ))
}

async fn primary(connection: &mut PgConnection) -> sqlx::Result<Finding> {
    const NAME: &str = "primary";
    let mode = store::mode(connection).await?;
    if mode.in_recovery {
        return Ok(Finding::problem(
            NAME,
            "this is a standby, which accepts no writes",
            "let DATABASE_URL name the primary: no decision is ever read from a replica",
        ));
    }
    if mode.read_only {
        return Ok(Finding::problem(
            NAME,
            "default_transaction_read_only is on: every write fails",
            "reset default_transaction_read_only where it was set: for the role, the database or the server",
        ));
    }
    Ok(Finding::ok(NAME, "a primary that accepts writes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str, source: &str) -> ServerSetting {
        ServerSetting {
            name: name.to_owned(),
            value: value.to_owned(),
            source: source.to_owned(),
        }
    }

    #[test]
    fn the_oldest_version_is_fourteen() {
        assert_eq!(version("130022", "13.22").verdict, Verdict::Problem);
        assert_eq!(version("140000", "14.0").verdict, Verdict::Ok);
        assert_eq!(version("", "").verdict, Verdict::Warning);
    }

    #[test]
    fn it_is_turned_on_where_it_was_turned_off() {
        for (source, advice) in [
            ("user", "alter role"),
            ("database", "alter database"),
            ("client", "DATABASE_URL"),
            ("command line", "command line"),
            ("configuration file", "alter system"),
        ] {
            let off = setting("fsync", "off", source);
            let finding = durability("fsync", Some(&off), false);
            assert_eq!(finding.verdict, Verdict::Problem);
            let said = finding.advice.expect("advice");
            assert!(said.contains(advice), "{source}: {said}");
        }
    }

    #[test]
    fn what_a_pooler_drops_is_named() {
        let finding = of_session(&["lock_timeout"]);
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.found.contains("lock_timeout"));
        assert_eq!(time_zone("Europe/Berlin", "UTC").verdict, Verdict::Problem);
    }

    #[test]
    fn a_local_commit_is_enough_only_without_standbys() {
        let settings = |standbys: &str| {
            let settings = [
                setting("synchronous_commit", "local", "database"),
                setting("synchronous_standby_names", standbys, "default"),
            ];
            let findings = of_settings(&settings, false);
            let found = findings
                .into_iter()
                .find(|it| it.name == "synchronous-commit");
            found.expect("a finding").verdict
        };
        assert_eq!(settings(""), Verdict::Ok);
        assert_eq!(settings("'b'"), Verdict::Warning);
    }
}
