//! Where the service listens, and whether it speaks TLS.

use std::path::PathBuf;

use clap::Args;

use super::value::address_and_port;
use crate::tls::{Certificate, TlsError, TlsFiles};

const CERTIFICATE: &str = "--tls-cert (PAYONCE_TLS_CERT)";
const KEY: &str = "--tls-key (PAYONCE_TLS_KEY)";

/// Why TLS cannot be set up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsArgsError {
    /// Only one of certificate and key is set.
    #[error("{missing} is required with {given}")]
    Incomplete {
        /// The flag and variable that is set.
        given: &'static str,
        /// The flag and variable that is missing.
        missing: &'static str,
    },
    /// The certificate or the key cannot be used.
    #[error(transparent)]
    Unusable(#[from] TlsError),
}

/// Where the service listens.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Address and port to listen on. Port 0 picks a free port and logs it.
    #[arg(long, env = "PAYONCE_LISTEN", value_name = "ADDRESS:PORT")]
    #[arg(default_value = "127.0.0.1:8080", value_parser = address_and_port)]
    pub listen: String,
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// The certificate that clients see.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// The service's certificate in PEM, followed by the intermediate certificates. With it the service speaks HTTPS only. SIGHUP
    /// reloads certificate and key.
    #[arg(long, env = "PAYONCE_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, env = "PAYONCE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// Reads the certificate from its files. Returns `None` if the service speaks plain HTTP.
    ///
    /// # Errors
    ///
    /// [`TlsArgsError`] if one of the two files is not set, or cannot be used.
    pub fn certificate(&self) -> Result<Option<Certificate>, TlsArgsError> {
        let incomplete = |given, missing| Err(TlsArgsError::Incomplete { given, missing });
        match (self.tls_cert.clone(), self.tls_key.clone()) {
            (Some(certificate), Some(key)) => {
                Ok(Some(Certificate::load(TlsFiles { certificate, key })?))
            }
            (None, None) => Ok(None),
            (Some(_), None) => incomplete(CERTIFICATE, KEY),
            (None, Some(_)) => incomplete(KEY, CERTIFICATE),
        }
    }
}
