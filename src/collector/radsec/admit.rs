//! One packet of a connection at the door: queued for the next commit, answered at once, passed over, or the end of the
//! connection.
//!
//! Unlike a port, a connection waits when the queue is full: TCP holds the NAS back, and nothing is lost on the way.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::super::complaints::and_more;
use super::super::door::{Door, Pending, What, reason};
use super::super::nas::{NasClient, NasTable};
use super::super::reply::{Reply, Seat};
use super::super::seen::{RequestKey, Sighting};
use super::super::tally::Kind;
use super::connection::Ended;
use crate::radius::{PacketView, StreamRequest, StreamVersion, redacted};
use crate::store::journal::JournalEntry;
use crate::telemetry::NasReason;

/// Whose packet it is.
pub struct Caller<'a> {
    pub client: &'a NasClient,
    pub source: SocketAddr,
    pub connection: usize,
    pub version: StreamVersion,
    /// How many packets came on the connection, this one included.
    pub packets: u64,
}

impl Door {
    /// Takes one packet of a connection in.
    ///
    /// **Errors**: the connection must be closed (RFC 6613 section 2.6.4).
    pub(super) async fn hear(&self, packet: &[u8], caller: &Caller<'_>, seat: Seat) -> Result<(), Ended> {
        let Caller { client, source, .. } = *caller;
        let now = self.clock.now();
        let view = match PacketView::parse(packet) {
            Ok(view) => view,
            Err(malformed) => {
                seat.leave();
                self.count_dropped(&client.name, "malformed");
                return Err(Ended::Malformed(malformed));
            }
        };
        let request = match StreamRequest::of(&view, caller.version) {
            Ok(request) => request,
            Err(refusal) => {
                seat.leave();
                self.count_dropped(&client.name, reason(refusal));
                return Err(Ended::Refused(refusal));
            }
        };
        let tally = self.tallies.of(&client.name);
        let (what, answer) = match request {
            StreamRequest::Status { answer } => {
                tally.request(Kind::Status);
                (What::Status, answer)
            }
            StreamRequest::Record { answer } => {
                tally.request(Kind::of(&view));
                let key = RequestKey {
                    port: caller.connection,
                    source,
                    identifier: view.identifier(),
                    authenticator: distinction(&view, caller),
                };
                match self.seen.sight(key, now) {
                    Sighting::New => {}
                    Sighting::Committing => {
                        tally.duplicates.inc();
                        seat.leave();
                        return Ok(());
                    }
                    Sighting::Committed => {
                        tally.duplicates.inc();
                        tally.responses.inc();
                        seat.answer(answer);
                        return Ok(());
                    }
                }
                let entry = JournalEntry {
                    arrived_at: now,
                    nas: Arc::clone(&client.name),
                    source: source.into(),
                    packet: redacted(&view),
                };
                (What::Record { key, entry }, answer)
            }
            StreamRequest::Unwanted { answer } => {
                self.note_wrong_code(caller, view.code());
                seat.answer(answer);
                return Ok(());
            }
            StreamRequest::Unknown(code) => {
                self.note_wrong_code(caller, code);
                seat.leave();
                return Ok(());
            }
        };
        let pending = Pending { what, reply: Reply::Stream(seat), answer, tally };
        if let Err(mpsc::error::SendError(Pending { what: What::Record { key, .. }, .. })) =
            self.queue.send(pending).await
        {
            // The committer is gone; its seat tells the connection.
            self.seen.failed(std::iter::once(key));
        }
        Ok(())
    }

    /// Who may send, by the configuration in force now.
    pub(super) fn table(&self) -> Arc<NasTable> {
        Arc::clone(&self.nas.borrow())
    }

    /// Counts a packet that is not answered; what it means for the connection is told when that closes.
    pub(super) fn count_dropped(&self, client: &str, reason: &'static str) {
        self.metrics.radius_dropped.get_or_create(&NasReason::new(client, reason)).inc();
    }

    fn note_wrong_code(&self, caller: &Caller<'_>, code: u8) {
        let Caller { client, source, .. } = *caller;
        self.count_dropped(&client.name, "wrong_code");
        if let Some(kept_back) = self.complaints.due("wrong_code", &client.name, self.clock.now()) {
            tracing::warn!(
                nas.name = &*client.name,
                nas.address = %source,
                "RadSec packet from {source} ({}) is not for us: packet code {code} does not belong to accounting. Look at \
                 which server the NAS sends what.{}",
                client.name,
                and_more(kept_back)
            );
        }
    }
}

/// What tells this request from others with its identifier on its connection. RFC 9765 section 4.2.2 has no copies over
/// TLS: there every packet is a request of its own.
fn distinction(view: &PacketView<'_>, caller: &Caller<'_>) -> [u8; 16] {
    match caller.version {
        StreamVersion::Historic => view.authenticator(),
        StreamVersion::V1_1 => {
            let mut distinct = view.authenticator();
            distinct[8..].copy_from_slice(&caller.packets.to_be_bytes());
            distinct
        }
    }
}
