//! What the configuration says about RadSec, and the TLS settings made of it.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

use crate::tls::{TlsFault, TlsFiles};

/// Whether RADIUS/1.1 (RFC 9765) is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Radius11 {
    /// With a peer that offers it; historic RADIUS with the others.
    #[default]
    Allow,
    /// Only it.
    Require,
    /// Only historic RADIUS.
    Forbid,
}

/// The settings of all listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadSecSettings {
    /// With a client authority: a NAS is known by its certificate.
    pub tls: TlsFiles,
    pub radius_1_1: Radius11,
    /// Open connections, those in their handshake included.
    pub connections: u32,
    pub connections_per_nas: u32,
    /// A connection on which nothing comes for this long is closed.
    pub idle: Duration,
}

/// Settings with their certificates read: what new connections are accepted with.
pub struct Ready {
    pub settings: RadSecSettings,
    pub tls: Arc<ServerConfig>,
}

impl RadSecSettings {
    /// Reads the certificates.
    ///
    /// **Errors**: the first file that is unreadable or unfit.
    pub fn ready(self) -> Result<Ready, TlsFault> {
        let versions = match self.radius_1_1 {
            // RFC 9765 section 3.5: RADIUS/1.1 is never spoken over an older TLS.
            Radius11::Require => &[&rustls::version::TLS13][..],
            Radius11::Allow | Radius11::Forbid => rustls::DEFAULT_VERSIONS,
        };
        let mut tls = self.tls.server_config(versions)?;
        let names: &[&[u8]] = match self.radius_1_1 {
            Radius11::Allow => &[b"radius/1.1", b"radius/1.0"],
            Radius11::Require => &[b"radius/1.1"],
            Radius11::Forbid => &[b"radius/1.0"],
        };
        tls.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
        // A resumed session would carry on with a certificate that was replaced or an authority that was withdrawn, and
        // could be resumed without RADIUS/1.1. Connections are few and long; each has its own handshake.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        Ok(Ready { settings: self, tls: Arc::new(tls) })
    }
}
