//! The door: decides for each datagram between queueing it for the next commit, answering at once and silence.
//!
//! In: datagrams of one port. Out: requests in the committer's queue, answers to copies of committed requests, counters.
//! It never answers a request that is not durable, and nothing at all to a stranger.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::complaints::{Complaints, and_more};
use super::nas::{NasClient, NasTable};
use super::port::{Datagram, Peer, Port, Room};
use super::reply::Reply;
use super::seen::{RequestKey, Seen, Sighting};
use super::tally::{Kind, Tallies, Tally};
use super::{BEAT_EVERY, Wiring, stopped};
use crate::radius::{PacketView, Refusal, answer, attribute, code, redacted, verify};
use crate::store::journal::JournalEntry;
use crate::telemetry::{Heartbeat, Metrics, NasReason};
use crate::vocabulary::{Clock, Secret, Timestamp};

/// A request that waits for a commit, with its answer made and not sent.
#[derive(Debug)]
pub struct Pending {
    pub what: What,
    pub reply: Reply,
    pub answer: Vec<u8>,
    /// Of the client it came from.
    pub tally: Arc<Tally>,
}

/// What must be true before the answer may be sent.
#[derive(Debug)]
pub enum What {
    /// This entry is durable.
    Record { key: RequestKey, entry: JournalEntry },
    /// A commit succeeds now (Status-Server).
    Status,
}

/// What all ports share.
pub struct Door {
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) nas: watch::Receiver<Arc<NasTable>>,
    pub(super) queue: mpsc::Sender<Pending>,
    pub(super) seen: Arc<Seen>,
    pub(super) complaints: Complaints,
    pub(super) tallies: Arc<Tallies>,
}

impl Door {
    pub fn new(wiring: &Wiring, queue: mpsc::Sender<Pending>, seen: Arc<Seen>, tallies: Arc<Tallies>) -> Self {
        Self {
            clock: wiring.clock.clone(),
            metrics: wiring.metrics.clone(),
            nas: wiring.nas.clone(),
            queue,
            seen,
            complaints: Complaints::default(),
            tallies,
        }
    }

    /// Takes one datagram in. Gives the answer when there is one to send at once.
    fn admit(
        &self,
        datagram: &Datagram<'_>,
        port: usize,
        table: &NasTable,
        now: Timestamp,
    ) -> Option<(Vec<u8>, Arc<Tally>)> {
        let source = datagram.peer.address;
        let Some(client) = table.of(source.ip()) else {
            self.drop(None, source, "unknown_nas", "no [[radius.nas]] covers this address", now);
            return None;
        };
        let refuse = |reason, why: &str| self.drop(Some(client), source, reason, why, now);
        let view = match PacketView::parse(datagram.octets) {
            Ok(view) => view,
            Err(malformed) => {
                refuse("malformed", &malformed.to_string());
                return None;
            }
        };
        let secrets: Vec<&Secret> = client.secrets().collect();
        if secrets.is_empty() {
            refuse("wrong_transport", "this NAS has no secret, so it may send over RadSec only");
            return None;
        }
        let signer = match verify(&view, &secrets) {
            Ok(signer) => signer,
            Err(refusal) => {
                refuse(reason(refusal), &refusal.to_string());
                return None;
            }
        };
        if client.message_authenticator && view.first(attribute::MESSAGE_AUTHENTICATOR).is_none() {
            refuse("bad_message_authenticator", "it has no Message-Authenticator, which this NAS is required to send");
            return None;
        }
        let tally = self.tallies.of(&client.name);
        if signer > 0 {
            tally.previous_secret(now);
            self.note_previous_secret(client, now);
        }
        let answer = answer(&view, secrets[signer]);
        let reply = Reply::Datagram { port, peer: datagram.peer };
        if view.code() == code::STATUS_SERVER {
            tally.request(Kind::Status);
            self.enqueue(Pending { what: What::Status, reply, answer, tally }, source, client, now);
            return None;
        }
        tally.request(Kind::of(&view));
        let key = RequestKey { port, source, identifier: view.identifier(), authenticator: view.authenticator() };
        match self.seen.sight(key, now) {
            Sighting::New => {
                let entry = JournalEntry {
                    arrived_at: now,
                    nas: Arc::clone(&client.name),
                    source: source.into(),
                    packet: redacted(&view),
                };
                let what = What::Record { key, entry };
                if !self.enqueue(Pending { what, reply, answer, tally }, source, client, now) {
                    self.seen.failed(std::iter::once(key));
                }
                None
            }
            Sighting::Committing => {
                tally.duplicates.inc();
                None
            }
            Sighting::Committed => {
                tally.duplicates.inc();
                Some((answer, tally))
            }
        }
    }

    /// `false` when the queue is full: dropped before any work was done on it.
    fn enqueue(&self, pending: Pending, source: SocketAddr, client: &NasClient, now: Timestamp) -> bool {
        if self.queue.try_send(pending).is_ok() {
            return true;
        }
        self.drop(Some(client), source, "queue_full", "the journal is slower than the NAS send, or cannot write", now);
        false
    }

    fn drop(&self, client: Option<&NasClient>, source: SocketAddr, reason: &'static str, why: &str, now: Timestamp) {
        let name = client.map_or("", |client| &*client.name);
        self.metrics.radius_dropped.get_or_create(&NasReason::new(name, reason)).inc();
        if let Some(kept_back) = self.complaints.due(reason, name, now) {
            let of = if name.is_empty() { String::new() } else { format!(" ({name})") };
            tracing::warn!(
                nas.name = name,
                nas.address = %source,
                "RADIUS packet from {source}{of} dropped: {why}. Nothing is answered, the NAS will send again.{}",
                and_more(kept_back)
            );
        }
    }

    fn note_previous_secret(&self, client: &NasClient, now: Timestamp) {
        if self.complaints.due("previous_secret", &client.name, now).is_some() {
            tracing::info!(nas.name = &*client.name, "NAS {} still signs with its previous secret.", client.name);
        }
    }

    fn overflow(&self, port: &Port, dropped: u32, peer: &Peer, now: Timestamp) {
        self.metrics.radius_dropped.get_or_create(&NasReason::new("", "socket_buffer")).inc_by(u64::from(dropped));
        if let Some(kept_back) = self.complaints.due("socket_buffer", "", now) {
            tracing::warn!(
                "The kernel dropped {dropped} datagrams at {}, the last before one from {}: its receive buffer was full. \
                 Raise net.core.rmem_max if this goes on; the NAS will send again.{}",
                port.address(),
                peer.address,
                and_more(kept_back)
            );
        }
    }
}

/// Receives at one port until the daemon stops.
pub async fn receive(
    door: Arc<Door>,
    port: Arc<Port>,
    index: usize,
    beat: Heartbeat,
    mut stopping: watch::Receiver<bool>,
) {
    let mut room = Room::new();
    let mut overflowed = 0;
    loop {
        beat.beat();
        let ready = tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            ready = port.readable() => ready,
            () = tokio::time::sleep(BEAT_EVERY) => continue,
        };
        let now = door.clock.now();
        let table = Arc::clone(&door.nas.borrow());
        let mut failure = ready.err();
        for _ in 0..DATAGRAMS_A_TURN {
            let datagram = match port.receive(&mut room) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            let peer = datagram.peer;
            if let Some(count) = datagram.overflowed.filter(|&count| count != overflowed) {
                door.overflow(&port, count.wrapping_sub(overflowed), &peer, now);
                overflowed = count;
            }
            if let Some((answer, tally)) = door.admit(&datagram, index, &table, now)
                && port.try_answer(&answer, &peer).is_ok()
            {
                tally.responses.inc();
            }
        }
        if let Some(error) = failure {
            if let Some(kept_back) = door.complaints.due("receive", "", now) {
                tracing::error!(
                    "Cannot receive RADIUS at {}: {error}. Trying again.{}",
                    port.address(),
                    and_more(kept_back)
                );
            }
            tokio::time::sleep(RECEIVE_RETRY).await;
        }
        // The committer may be waiting for this very thread.
        tokio::task::yield_now().await;
    }
}

pub(super) fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Code(_) => "wrong_code",
        Refusal::Authenticator => "bad_authenticator",
        Refusal::MessageAuthenticator | Refusal::Unsigned => "bad_message_authenticator",
    }
}

/// Datagrams read before other tasks get their turn.
const DATAGRAMS_A_TURN: usize = 256;
const RECEIVE_RETRY: Duration = Duration::from_millis(50);
