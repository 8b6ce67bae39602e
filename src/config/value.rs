//! Parsers of single values: durations, counts, secrets, addresses.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

/// Minimum length of a secret that cannot be guessed: 128 bits.
pub(super) const SHORTEST_SAFE_SECRET: usize = 16;

/// How the example secrets in `scripts/run`, `deploy/compose` and `.env.example` begin.
const EXAMPLES: [&str; 3] = ["development-only-", "change-me", "public-"];

/// Longer than any useful setting, and well within the range of the database's timestamps.
const LONGEST_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The largest count per second of anything.
const MAX_COUNT: u32 = 1_000_000;

/// Why a value is refused. It never repeats the value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(String);

impl Refused {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::new(reason))
}

pub(crate) fn secret(text: &str) -> Result<SecretString, Refused> {
    let text = text.trim();
    if text.is_empty() {
        refuse("it is empty")
    } else {
        Ok(text.into())
    }
}

/// Returns true if a secret is one of the published examples.
pub(crate) fn is_example(secret: &SecretString) -> bool {
    let secret = secret.expose_secret();
    EXAMPLES.iter().any(|start| secret.starts_with(start))
}

/// A secret that is sent in a header. Surrounding white space comes from the file that it was read from, and is dropped.
pub(super) fn header_secret(text: &str) -> Result<SecretString, Refused> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        secret(text)
    } else {
        refuse("only visible ASCII characters, without spaces")
    }
}

pub(super) fn count(text: &str) -> Result<NonZeroU32, Refused> {
    match text.parse() {
        Ok(count) if count <= MAX_COUNT => {
            NonZeroU32::new(count).ok_or_else(|| Refused::new("it must be more than zero"))
        }
        _ => refuse(format!("a whole number from 1 to {MAX_COUNT} is needed")),
    }
}

/// A duration with a unit: `24h`, `1m 30s`, `50ms`.
pub(super) fn duration(text: &str) -> Result<Duration, Refused> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST_DURATION => {
            refuse("at most 3650days, which is 10 years of 365 days")
        }
        Ok(duration) => Ok(duration),
        Err(error) => refuse(format!(
            "{error}; a duration is written as 24h, 1m 30s or 50ms"
        )),
    }
}

/// A duration that is not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, Refused> {
    match duration(text)? {
        Duration::ZERO => refuse("it must be more than zero"),
        duration => Ok(duration),
    }
}

pub(super) fn address_and_port(text: &str) -> Result<String, Refused> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => refuse("an address and a port are needed, as 127.0.0.1:8080 or [::1]:8080"),
    }
}

pub(super) fn http_url(text: &str) -> Result<String, Refused> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => refuse("an http:// or https:// URL is needed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_duration_only_where_it_makes_sense() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(positive_duration("0s").is_err());
        assert_eq!(positive_duration("1ns"), Ok(Duration::from_nanos(1)));
        assert_eq!(positive_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("3650days"), Ok(LONGEST_DURATION));
        for text in ["", "5", "-1s", "soon", "3651days", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_longest_duration_is_named_as_it_can_be_written() {
        let refused = duration("10years").expect_err("a year has 365.25 days here");
        assert!(refused.to_string().contains("3650days"));
    }

    #[test]
    fn a_newline_at_the_end_of_a_secret_is_not_part_of_it() {
        for read in [secret, header_secret] {
            let secret = read("1234567890123456\r\n").expect("a secret");
            assert_eq!(secret.expose_secret(), "1234567890123456");
        }
        assert!(header_secret("a b").is_err());
        assert!(secret("\n").is_err());
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for text in ["127.0.0.1:0", "[::1]:8080", "localhost:65535"] {
            assert!(address_and_port(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "8080",
            ":8080",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:65536",
        ] {
            assert!(address_and_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_api_base_is_http() {
        assert_eq!(
            http_url("http://127.0.0.1:1/"),
            Ok("http://127.0.0.1:1".to_owned())
        );
        for text in ["", "api.stripe.com", "ftp://api.stripe.com", "https://"] {
            assert!(http_url(text).is_err(), "{text}");
        }
    }
}
