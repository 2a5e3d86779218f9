//! TLS files: PEM certificates and keys made into a server's or a client's settings, with every fault named by its file and
//! key.
//!
//! In: paths. Out: rustls settings over the ring provider, TLS 1.2 and 1.3. Whoever serves adds its own protocols; nothing
//! here opens a socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use thiserror::Error;

/// PEM files. With `client_ca` only clients with a certificate of that authority get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with a file. `key` is the key of the configuration's table that names it: `cert`, `key`, `client_ca`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key} {path}: {reason}")]
pub struct TlsFault {
    pub key: &'static str,
    pub path: String,
    pub reason: String,
}

impl TlsFiles {
    /// Reads the files as serving would, and keeps nothing.
    ///
    /// **Errors**: the first file that is unreadable or unfit.
    pub fn check(&self) -> Result<(), TlsFault> {
        self.server_config(rustls::DEFAULT_VERSIONS).map(drop)
    }

    /// The settings of a server with this certificate, for the TLS versions given.
    ///
    /// **Errors**: the first file that is unreadable or unfit.
    pub fn server_config(&self, versions: &[&'static SupportedProtocolVersion]) -> Result<ServerConfig, TlsFault> {
        let chain = certificates("cert", &self.cert)?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| fault("key", &self.key, unread(error, "private key")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| fault("cert", &self.cert, error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates("client_ca", path)? {
                    roots.add(certificate).map_err(|error| fault("client_ca", path, unfit(&error)))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| fault("client_ca", path, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                fault("key", &self.key, format!("is not the key of the certificate {}", self.cert.display()))
            }
            rustls::Error::InvalidCertificate(_) => fault("cert", &self.cert, unfit(&error)),
            error => fault("key", &self.key, error.to_string()),
        })
    }
}

/// The settings of a client that trusts the authorities this machine trusts, and those of a file.
///
/// **Errors**: the file is unreadable or unfit, or there is no authority at all.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, TlsFault> {
    let mut roots = RootCertStore::empty();
    // Some of a machine's certificates may be unfit; the others serve.
    let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        for certificate in certificates("ca", path)? {
            roots.add(certificate).map_err(|error| fault("ca", path, unfit(&error)))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fault("ca", Path::new(""), error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(fault(key, path, unread(pem::Error::NoItemsFound, "certificate"))),
        Ok(found) => Ok(found),
        Err(error) => Err(fault(key, path, unread(error, "certificate"))),
    }
}

fn fault(key: &'static str, path: &Path, reason: String) -> TlsFault {
    TlsFault { key, path: path.display().to_string(), reason }
}

/// What is wrong with a PEM file, for the person who put it there.
fn unread(error: pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("holds no {wanted}; it must be PEM, beginning with -----BEGIN"),
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        error => format!("is no PEM file: {error}"),
    }
}

fn unfit(error: &rustls::Error) -> String {
    format!("holds something that is no certificate ({error})")
}
