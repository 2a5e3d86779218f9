//! RADIUS over TLS in: accepts connections, knows the NAS by its certificate, bounds how many there are.
//!
//! ```text
//! accept ─► room for one more? ─► handshake: our client authority, TLS 1.2 or 1.3, ALPN ─► whose certificate? ─► connection
//!             └ no: closed          └ fails: closed, told                                  └ nobody's: closed, told
//! ```
//! In: bound listeners, settings that a reload swaps for new connections. Out: requests in the committer's queue, as from a
//! port. Sources: RFC 6614, RFC 6613, RFC 9765.

mod admit;
pub mod certificate;
mod connection;
mod frames;
mod limits;
mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::complaints::{Complaints, and_more};
use super::door::Door;
use super::{BEAT_EVERY, Wiring, stopped};
use crate::radius::{StreamVersion, protocol_error};
use crate::telemetry::{Heartbeat, Metrics, NasReason, Reason};
use crate::vocabulary::Clock;
use certificate::Presented;
use connection::Connection;
use limits::{Limits, Refused};
pub use settings::{RadSecSettings, Radius11, Ready};

/// What all listeners and connections share.
pub struct RadSec {
    door: Arc<Door>,
    clock: Clock,
    metrics: Metrics,
    complaints: Complaints,
    settings: watch::Receiver<Arc<Ready>>,
    limits: Limits,
    numbers: AtomicUsize,
    stopping: watch::Receiver<bool>,
}

impl RadSec {
    pub fn new(wiring: &Wiring, door: Arc<Door>, settings: watch::Receiver<Arc<Ready>>) -> Self {
        Self {
            door,
            clock: wiring.clock.clone(),
            metrics: wiring.metrics.clone(),
            complaints: Complaints::default(),
            settings,
            limits: Limits::new(wiring.metrics.clone()),
            numbers: AtomicUsize::new(FIRST_CONNECTION),
            stopping: wiring.stopping.clone(),
        }
    }

    /// Accepts at one listener until the daemon stops, then waits for its connections to answer what is committed.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, beat: Heartbeat) {
        let mut stopping = self.stopping.clone();
        let mut connections = JoinSet::new();
        loop {
            beat.beat();
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stopping) => break,
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = tokio::time::sleep(BEAT_EVERY) => continue,
            };
            match accepted {
                Ok((stream, source)) => {
                    connections.spawn(Arc::clone(&self).serve(stream, canonical(source)));
                }
                Err(error) => {
                    self.complain("accept", || format!("Cannot accept RadSec connections: {error}. Trying again."));
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        drop(listener);
        // The door, and with it the queue's entrance, must go before the committer can end.
        drop(self);
        while connections.join_next().await.is_some() {}
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, source: SocketAddr) {
        let ready = Arc::clone(&self.settings.borrow());
        let handshaking = match self.limits.enter(ready.settings.connections) {
            Ok(place) => place,
            Err(refused) => return self.refuse(&refused, source),
        };
        if let Err(error) = prepare(&stream) {
            tracing::debug!("RadSec connection from {source}: {error}");
            return;
        }
        let mut stopping = self.stopping.clone();
        let shaken = tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            shaken = timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(Arc::clone(&ready.tls)).accept(stream)) => shaken,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.handshake_failed(&error, source),
            Err(_) => return self.handshake_failed(&io::ErrorKind::TimedOut.into(), source),
        };
        let (presented, version) = match self.agree(&ready, &stream, source) {
            Ok(agreed) => agreed,
            Err(why) => return self.decline(stream, why).await,
        };
        let table = self.door.table();
        let Some(client) = table.of_certificate(&presented) else {
            self.refused("unknown_certificate");
            self.complain("unknown_certificate", || {
                format!(
                    "RadSec connection from {source} refused: no [[radius.nas]] has its certificate ({presented}). If it is \
                     one of yours, write certificate = \"{}\" to that NAS and reload.",
                    presented.suggestion()
                )
            });
            return self.decline(stream, "this certificate belongs to no NAS").await;
        };
        if let Some(network) = client.network.filter(|network| !network.contains(source.ip())) {
            self.refused("wrong_address");
            self.complain("wrong_address", || {
                format!(
                    "RadSec connection from {source} refused: its certificate is that of NAS {}, which connects from \
                     {network} only.",
                    client.name
                )
            });
            return self.decline(stream, "this NAS may not connect from here").await;
        }
        let place = match handshaking.belong(&client.name, ready.settings.connections_per_nas) {
            Ok(place) => place,
            Err(refused) => {
                self.refuse(&refused, source);
                return self.decline(stream, "this NAS has as many connections as it may have").await;
            }
        };
        let name = client.name.clone();
        tracing::debug!(nas.name = &*name, nas.address = %source, ?version, "RadSec connection opened.");
        let connection = Connection {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            source,
            presented,
            version,
            idle: ready.settings.idle,
        };
        drop((table, ready));
        let door = Arc::clone(&self.door);
        let stopping = self.stopping.clone();
        let shared = Arc::downgrade(&self);
        // Only a connection that reads holds the door.
        drop(self);
        let ended = connection.run(stream, door, stopping).await;
        drop(place);
        if let Some(shared) = shared.upgrade() {
            shared.closed(&name, source, &ended);
        }
    }

    /// Which RADIUS both sides speak, and with whom. The error is what the peer is told.
    fn agree(
        &self,
        ready: &Ready,
        stream: &TlsStream<TcpStream>,
        source: SocketAddr,
    ) -> Result<(Presented, StreamVersion), &'static str> {
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        // The verifier asks for one; without one there is no handshake.
        let presented = certificate.map(|der| Presented::read(der)).ok_or("a certificate is needed")?;
        let old_tls = session.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3);
        match session.alpn_protocol() {
            Some(RADIUS_1_1) if old_tls => {
                self.refused("old_tls");
                self.complain("old_tls", || {
                    format!(
                        "RadSec connection from {source} ({presented}) refused: it speaks RADIUS/1.1 over TLS 1.2, and \
                         RFC 9765 wants TLS 1.3."
                    )
                });
                Err("RADIUS/1.1 needs TLS 1.3")
            }
            Some(RADIUS_1_1) => Ok((presented, StreamVersion::V1_1)),
            _ if ready.settings.radius_1_1 == Radius11::Require => {
                self.refused("radius_1_1");
                self.complain("radius_1_1", || {
                    format!(
                        "RadSec connection from {source} ({presented}) refused: it does not offer RADIUS/1.1, which \
                         [radius] radius_1_1 = \"require\" asks for."
                    )
                });
                Err("RADIUS/1.1 (ALPN radius/1.1) is required here")
            }
            _ => Ok((presented, StreamVersion::Historic)),
        }
    }

    /// Tells the peer why, inside TLS, and closes.
    async fn decline(&self, mut stream: TlsStream<TcpStream>, why: &str) {
        use tokio::io::AsyncWriteExt;
        // A peer that is gone already is fine.
        let _ = timeout(DECLINE_LIMIT, async {
            stream.write_all(&protocol_error(why)).await?;
            stream.shutdown().await
        })
        .await;
    }

    fn handshake_failed(&self, error: &io::Error, source: SocketAddr) {
        self.refused("handshake");
        self.complain("handshake", || format!("RadSec handshake with {source} failed: {}.", handshake_reason(error)));
    }

    fn refuse(&self, refused: &Refused, source: SocketAddr) {
        self.refused(refused.reason());
        self.complain(refused.reason(), || format!("RadSec connection from {source} refused: {refused}."));
    }

    fn refused(&self, reason: &'static str) {
        self.metrics.radsec_refused.get_or_create(&Reason::new(reason)).inc();
    }

    fn closed(&self, name: &str, source: SocketAddr, ended: &connection::Ended) {
        self.metrics.radsec_closed.get_or_create(&NasReason::new(name, ended.reason())).inc();
        if !ended.is_usual() {
            let now = self.clock.now();
            if let Some(kept_back) = self.complaints.due(ended.reason(), name, now) {
                tracing::warn!(
                    nas.name = name,
                    nas.address = %source,
                    "RadSec connection of {name} from {source} closed: {ended}. It may connect again.{}",
                    and_more(kept_back)
                );
            }
        }
    }

    fn complain(&self, cause: &'static str, line: impl FnOnce() -> String) {
        if let Some(kept_back) = self.complaints.due(cause, "", self.clock.now()) {
            tracing::warn!("{}{}", line(), and_more(kept_back));
        }
    }
}

/// A dead peer's connection is noticed by the kernel, a slow NAS keeps its own.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_AGAIN).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// What a failed handshake means for the person who looks after the NAS.
fn handshake_reason(error: &io::Error) -> String {
    use rustls::{AlertDescription, CertificateError, Error};
    if error.kind() == io::ErrorKind::TimedOut {
        return format!("it took longer than {} s", HANDSHAKE_LIMIT.as_secs());
    }
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else {
        return format!("{error}");
    };
    match cause {
        Error::NoCertificatesPresented => "it showed no certificate; a NAS needs one of the authority in \
             [radius] radsec_tls.client_ca"
            .to_owned(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate was not signed by the authority in [radius] radsec_tls.client_ca".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired),
        ) => format!("it does not accept our certificate ({alert:?}); look at its list of trusted authorities"),
        Error::NoApplicationProtocol => {
            "it offers only application protocols (ALPN) that [radius] radius_1_1 does not allow".to_owned()
        }
        other => other.to_string(),
    }
}

/// An IPv4 address that came mapped into IPv6 is that IPv4 address.
fn canonical(source: SocketAddr) -> SocketAddr {
    SocketAddr::new(source.ip().to_canonical(), source.port())
}

const RADIUS_1_1: &[u8] = b"radius/1.1";
/// Connections are numbered above every port, so that no identifier of one is taken for that of another.
const FIRST_CONNECTION: usize = 1 << 32;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const DECLINE_LIMIT: Duration = Duration::from_secs(1);
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(10);
