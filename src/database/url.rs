//! The database's URL, which is parsed here before sqlx sees it: sqlx logs an unknown parameter with its value, which may be a
//! password, and accepts fewer forms than PostgreSQL's own library.
//!
//! `postgres://user:password@host:port/database?parameters`, where the host is a name, an address, an IPv6 address in brackets, a
//! folder of Unix sockets with `/` written as `%2F`, or nothing. `host=` and the other parameters override the parts before them.

use std::net::IpAddr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;

use super::{DatabaseError, session_options};

/// Parses a URL and adds the settings of every connection: its time-outs and, unless the URL has one, the application's name.
///
/// sqlx adds `TimeZone=UTC` itself. It logs statements at `debug`, and at `warn` those that take
/// more than 1 s, always without their parameters.
pub fn connect_options(url: &SecretString) -> Result<PgConnectOptions, DatabaseError> {
    let options = read(url.expose_secret()).map_err(DatabaseError::Configuration)?;
    let options = session_options(options);
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("payonce"),
    })
}

/// The parameters that sqlx accepts, by PostgreSQL's names and by sqlx's own.
const PARAMETERS: [&str; 20] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "target_session_attrs",
    "user",
    "options[…]",
];

const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// The reason of a refusal, which follows the setting's name. It contains no value, because each may be a secret.
fn read(url: &str) -> Result<PgConnectOptions, String> {
    let mut parameters = of_url(url)?;
    for (name, value) in &parameters {
        check(name, value)?;
    }
    // An empty one counts as absent, as with PostgreSQL's library. sqlx has no target_session_attrs; every connection is checked
    // for writes anyway.
    parameters.retain(|(name, value)| !value.is_empty() && name != "target_session_attrs");
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish();
    // Everything is passed to sqlx as parameters, which it reads uniformly before it looks for a password in .pgpass.
    format!("postgres://?{query}")
        .parse()
        .map_err(|_| "cannot be used: a parameter has a value of another form".to_owned())
}

/// All parts of the URL as parameters, in order: later ones override earlier ones.
fn of_url(url: &str) -> Result<Vec<(String, String)>, String> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or("must begin with postgres:// or postgresql://")?;
    let (authority, after) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // In a password, one of these characters that is not encoded ends the host early, and the rest of the password would be taken
    // for the database's name or a parameter, and shown. The @ after it reveals this.
    if after.contains(['@', '#']) {
        return Err(
            "has an unencoded @, / , ? or # in the wrong place; write them as %40, %2F, %3F, %23"
                .to_owned(),
        );
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (user, hosts),
        None => ("", authority),
    };
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (host, port) = host_and_port(hosts)?;
    let (database, query) = after.split_once('?').unwrap_or((after, ""));
    let database = database.trim_start_matches('/');
    let mut parameters = Vec::new();
    for (name, value) in [
        ("host", host),
        ("port", port),
        ("user", user),
        ("password", password),
        ("dbname", database),
    ] {
        if !value.is_empty() {
            parameters.push((name.to_owned(), decoded(name, value)?));
        }
    }
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        parameters.push((name.into_owned(), value.into_owned()));
    }
    Ok(parameters)
}

/// The host without the brackets of an IPv6 address, and the port.
fn host_and_port(hosts: &str) -> Result<(&str, &str), String> {
    if hosts.contains(',') {
        return Err(SEVERAL_HOSTS.to_owned());
    }
    let Some(bracketed) = hosts.strip_prefix('[') else {
        return match hosts.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                Err("has an IPv6 address without brackets; write it as [::1]:5432".to_owned())
            }
            Some((host, port)) => Ok((host, port)),
            None => Ok((hosts, "")),
        };
    };
    match bracketed.split_once(']') {
        Some((host, "")) => Ok((host, "")),
        Some((host, port)) if port.starts_with(':') => Ok((host, &port[1..])),
        _ => Err("has a [ without its ] and port, as [::1]:5432".to_owned()),
    }
}

const SEVERAL_HOSTS: &str = "names several hosts; payonce connects to one: name the address that always leads to the \
     primary (a virtual address, a proxy, or the cluster's read-write endpoint)";

/// A parameter that can be used.
fn check(name: &str, value: &str) -> Result<(), String> {
    let is_setting = name.starts_with("options[") && name.ends_with(']');
    if !is_setting && !PARAMETERS.contains(&name) {
        // A name is shown only if it is a valid name, because it may be the rest of a password with an unencoded &.
        let is_name = !value.is_empty()
            && name.len() <= 40
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'));
        let shown = if is_name { name } else { "of another form" };
        let known = PARAMETERS.join(", ");
        return Err(format!(
            "has a parameter that payonce does not know: {shown}; it knows {known}"
        ));
    }
    if value.is_empty() {
        return Ok(());
    }
    if value.contains('\0') || name.contains('\0') {
        return Err(format!("has a NUL character in {name}"));
    }
    let refused = match name {
        "host" | "hostaddr" | "port" if value.contains(',') => {
            return Err(SEVERAL_HOSTS.to_owned());
        }
        "hostaddr" if value.parse::<IpAddr>().is_err() => "must be an IP address",
        "port" if value.parse::<u16>().is_err() => "must be a number from 0 to 65535",
        "sslmode" | "ssl-mode" if !SSL_MODES.contains(&value) => {
            return Err(format!("{name} must be one of {}", SSL_MODES.join(", ")));
        }
        "statement-cache-capacity" if value.parse::<u16>().is_err() => {
            "must be a number from 0 to 65535"
        }
        "target_session_attrs" if !matches!(value, "any" | "read-write" | "primary") => {
            "must be read-write, primary or any: payonce works on the primary only"
        }
        _ => return Ok(()),
    };
    Err(format!("{name} {refused}"))
}

/// Turns `%2F` into `/`, as in a URL's own parts.
fn decoded(name: &str, text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "has a % in the {name} that is not followed by two hexadecimal digits of text; write it as %25"
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong());
        };
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::describe;

    fn options(url: &str) -> Result<PgConnectOptions, DatabaseError> {
        connect_options(&url.into())
    }

    fn reason(url: &str) -> String {
        options(url).map(drop).expect_err(url).to_string()
    }

    #[test]
    fn a_bad_url_names_the_setting_and_not_the_password() {
        for url in [
            "",
            "mysql://u:hunter2@host/db",
            "postgres://u:hunter2@host:port/db",
            "postgres://u:hunter2@host/db?sslmode=perhaps",
            "postgres://u:hunter2/12@host/db",
            "postgres://u:12/hunter2@host/db",
            "postgres://u:12?hunter2@host/db",
            "postgres://u:12#hunter2@host/db",
            "postgres://u:a@b/hunter2@host/db",
            "postgres://u:hunter2%@host/db",
            "postgres://u:hunter2%ff@host/db",
            "postgres://u:hunter2@a,b/db",
            "postgres://u:hunter2@::1/db",
            "postgres://u:hunter2@[::1/db",
            "postgres://u@host/db?sslpassword=hunter2",
            "postgres://u@host/db?passwd=hunter2",
            "postgres://u@host/db?sslmode=hunter2",
            "postgres://u@host/db?port=hunter2",
            "postgres://u@host/db?hostaddr=hunter2",
            "postgres://u@host/db?password=a&hunter2",
            "postgres://u@host/db?password=a&hunter2=",
            "postgres://u@host/db?password=hunter2%00",
            "postgres://u@host/db?target_session_attrs=hunter2",
        ] {
            let reason = reason(url);
            assert!(
                reason.starts_with("--database-url (DATABASE_URL) "),
                "{url}: {reason}"
            );
            assert!(!reason.contains("hunter2"), "{url}: {reason}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_refused_by_its_name() {
        for name in [
            "sslpassword",
            "passwd",
            "connect_timeout",
            "channel_binding",
        ] {
            let reason = reason(&format!("postgres://u@h/d?{name}=x"));
            assert!(
                reason.contains(&format!("does not know: {name};")),
                "{reason}"
            );
        }
    }

    #[test]
    fn several_hosts_are_refused_plainly() {
        for url in [
            "postgres://u@a:1,b:2/d?target_session_attrs=read-write",
            "postgres:///d?host=a,b",
            "postgres://u@h/d?port=1,2",
        ] {
            assert!(reason(url).contains("several hosts"), "{url}");
        }
        let standby = reason("postgres://u@h/d?target_session_attrs=standby");
        assert!(standby.contains("primary"), "{standby}");
        options("postgres://u@h/d?target_session_attrs=read-write").expect("the primary");
    }

    #[test]
    fn the_forms_of_a_host_that_postgresql_knows_are_read() {
        for (url, address) in [
            (
                "postgres://u:hunter2@db.example:5433/pay",
                "db.example:5433/pay as u",
            ),
            ("postgresql://u@h/d", "h:5432/d as u"),
            ("postgres://u@[::1]:5433/db", "[::1]:5433/db as u"),
            ("postgres://u@[::1]/db", "[::1]:5432/db as u"),
            (
                "postgres://u@%2Frun%2Fpostgresql/db",
                "/run/postgresql:5432/db as u",
            ),
            ("postgres://u@%2Frun%2Fpg:5433/db", "/run/pg:5433/db as u"),
            (
                "postgres://u@/db?host=/run/postgresql",
                "/run/postgresql:5432/db as u",
            ),
            (
                "postgres:///db?host=/run/pg&user=u&port=6000",
                "/run/pg:6000/db as u",
            ),
            ("postgres://?host=h&dbname=d&user=u", "h:5432/d as u"),
            ("postgres://a%40b:p%2F%3F@h/d%20e", "h:5432/d e as a@b"),
            ("postgres://u:p@ss@h/d", "h:5432/d as u"),
            (
                "postgres://v@other/e?user=u&host=h&dbname=d&sslmode=",
                "h:5432/d as u",
            ),
        ] {
            let options = options(url).expect(url);
            assert_eq!(describe(&options), address, "{url}");
        }
        assert_eq!(
            options("postgres://u@[::1]/d").expect("read").get_host(),
            "::1"
        );
    }

    #[test]
    fn an_application_name_in_the_url_is_kept() {
        let named = options("postgres://u@h/d?application_name=mine").expect("a URL");
        assert_eq!(named.get_application_name(), Some("mine"));
    }

    #[test]
    fn settings_in_the_url_reach_the_session() {
        let set = options("postgres://u@h/d?options[synchronous_commit]=off").expect("a URL");
        let sent = set.get_options().unwrap_or_default();
        assert!(sent.starts_with("-c synchronous_commit=off "), "{sent}");
        assert!(
            sent.contains(r"-c default_transaction_isolation=read\ committed"),
            "{sent}"
        );
    }
}
