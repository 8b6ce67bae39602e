//! A service that somebody else has started, driven in the same rounds by the same generator with the same bodies. Its keys and payments
//! are counted as everybody's: it must keep them in `idempotency_keys` and `payments`, with the states `COMPLETED` and `SUCCESS`.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, ensure};

use crate::bench::{Bench, Site, no_api_key};
use crate::database::DatabaseServer;
use crate::process::listener_on;
use crate::server::Address;

/// Where it takes payments and where it keeps them.
pub struct Yardstick {
    pub bench: Bench,
    pub address: Address,
    pub path: String,
    pub site: Site,
}

impl Yardstick {
    /// `url` as http://host:port/path. The database is one that nothing else writes to.
    pub async fn open(bench: &Bench, url: &str, database: &str) -> anyhow::Result<Self> {
        let (host, path) = parse(url).context("--yardstick is no http://host:port/path")?;
        let socket = resolve(&host).with_context(|| format!("--yardstick: {host}"))?;
        let server = DatabaseServer::open(database)
            .await
            .context("--yardstick-database")?;
        let database = server.named();
        let is_here = socket.ip().is_loopback();
        Ok(Self {
            bench: bench.on(server),
            address: Address {
                socket,
                process_id: is_here.then(|| listener_on(socket.port())).flatten(),
            },
            path,
            site: Site {
                database,
                api_key: no_api_key(),
            },
        })
    }
}

fn resolve(host: &str) -> anyhow::Result<SocketAddr> {
    let mut found = host.to_socket_addrs()?;
    found.next().context("it has no address")
}

/// The host with its port, and the path.
fn parse(url: &str) -> anyhow::Result<(String, String)> {
    let rest = url.strip_prefix("http://").context("no http://")?;
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    ensure!(!host.is_empty(), "no host");
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(is_plain, "a path that would not fit a request's line");
    let host = match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("{host}:80"),
    };
    Ok((host, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, host, path) in [
            ("http://127.0.0.1:8099/gc", "127.0.0.1:8099", "/gc"),
            ("http://[::1]:8099", "[::1]:8099", "/"),
            ("http://localhost/a/b?c=d", "localhost:80", "/a/b?c=d"),
        ] {
            let expected = (host.to_owned(), path.to_owned());
            assert_eq!(parse(url).expect(url), expected);
        }
        for bad in [
            "https://127.0.0.1/gc",
            "127.0.0.1:8099/gc",
            "http:///gc",
            "http://a/b c",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
