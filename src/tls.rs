//! TLS: the service's certificate and key, which are read from files and can be reloaded while the service runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Why TLS cannot be set up. Each message names its setting; none contains any part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The file with the certificates.
    #[error("--tls-cert (PAYONCE_TLS_CERT) {0}")]
    Certificate(String),
    /// The file with the key, or a key that belongs to another certificate.
    #[error("--tls-key (PAYONCE_TLS_KEY) {0}")]
    Key(String),
}

/// The files with certificate and key, both in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The service's certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1, without a passphrase.
    pub key: PathBuf,
}

/// The certificate for new connections.
pub struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, current })
    }

    /// Reads the files again, for new connections. If that fails, the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let renewed = Arc::new(read(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }

    /// TLS 1.2 and 1.3, without client certificates.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        Ok(ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.files).finish()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| TlsError::Certificate(unreadable(&files.certificate, &error)))?;
    if chain.is_empty() {
        let path = files.certificate.display();
        return Err(TlsError::Certificate(format!("has no certificate: {path}")));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::Key(unreadable(&files.key, &error)))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InvalidCertificate(_) => {
            TlsError::Certificate(format!("cannot be used: {error}"))
        }
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Key("is not the key of the certificate".to_owned())
        }
        error => TlsError::Key(format!("cannot be used: {error}")),
    })
}

/// A message without the content of the file, which some errors would show.
fn unreadable(path: &Path, error: &pem::Error) -> String {
    let path = path.display();
    match error {
        pem::Error::Io(error) => format!("cannot be read: {path}: {error}"),
        pem::Error::NoItemsFound => format!("holds none in PEM: {path}"),
        _ => format!("is not in PEM: {path}"),
    }
}
