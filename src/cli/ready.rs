//! `payonce ready`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, StatusCode};

use super::output::print_line;
use crate::config::ServerArgs;

/// Longer than the service waits for its database before it says that it is not ready.
const PATIENCE: Duration = Duration::from_secs(3);

/// The settings that say where the service listens, as the service has them.
#[derive(Debug, clap::Args)]
pub(super) struct ReadyArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Asks `/readyz` of the service on this machine. Returns an error if it is not ready.
pub(super) async fn run(args: &ReadyArgs) -> anyhow::Result<()> {
    let url = url(&args.server);
    let answer = client()?
        .get(&url)
        .send()
        .await
        .with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    let body = answer
        .text()
        .await
        .with_context(|| format!("{url} ended in the middle of its answer"))?;
    if status != StatusCode::OK {
        bail!("{url} answers {}: {}", status.as_u16(), body.trim_end());
    }
    print_line(body.trim_end())
}

fn client() -> anyhow::Result<Client> {
    // Fails if a provider is installed already, which is just as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    Ok(Client::builder()
        // Nothing on the way to this machine needs a proxy.
        .no_proxy()
        // The certificate names the service's public host and not this machine's loopback address. Nothing secret is sent.
        .tls_danger_accept_invalid_certs(true)
        .timeout(PATIENCE)
        .build()?)
}

/// The address that the service listens on, or the loopback address if it listens on all.
fn url(server: &ServerArgs) -> String {
    let scheme = match server.tls.tls_cert {
        Some(_) => "https",
        None => "http",
    };
    let (host, port) = server
        .listen
        .rsplit_once(':')
        .unwrap_or((&server.listen, "80"));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host = match bare.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        _ => host.to_owned(),
    };
    format!("{scheme}://{host}:{port}/readyz")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsArgs;

    #[test]
    fn the_address_is_one_that_can_be_asked() {
        for (listen, tls_cert, asked) in [
            ("127.0.0.1:8080", None, "http://127.0.0.1:8080/readyz"),
            ("0.0.0.0:8080", None, "http://127.0.0.1:8080/readyz"),
            ("[::]:8443", Some("cert.pem"), "https://[::1]:8443/readyz"),
            ("[::1]:1", None, "http://[::1]:1/readyz"),
            (
                "payonce.internal:80",
                None,
                "http://payonce.internal:80/readyz",
            ),
        ] {
            let server = ServerArgs {
                listen: listen.to_owned(),
                tls: TlsArgs {
                    tls_cert: tls_cert.map(Into::into),
                    tls_key: None,
                },
            };
            assert_eq!(url(&server), asked);
        }
    }
}
