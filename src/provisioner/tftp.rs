//! The TFTP server: one loop on the well-known port, one task and one new port for each transfer.
//!
//! Comes in: read requests. Goes out: files of the plant, and a note of every complete fetch. Reads no disk and waits
//! for the database only where a name is genuine but newer than what is known, and then for less than a second. The
//! protocol itself is in `crate::tftp`.
//!
//! Bounds: half of the process' open files but at most `MOST_TRANSFERS` at once, `MOST_PER_SOURCE` of one address,
//! `LONGEST_TRANSFER` each. What is beyond is
//! dropped and counted; modems ask again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::follow;
use super::kea::Kea;
use super::leases::Leases;
use super::pktinfo;
use super::plant::{Fetch, File, Found, Plant};
use crate::docsis::effective_digest;
use crate::provision::DeviceKind;
use crate::store::Store;
use crate::telemetry::{Heartbeat, Metrics, Outcome as ResultLabel};
use crate::tftp::{ErrorCode, Outcome, Request, Step, Transfer, error_datagram, is_error, parse_request};
use crate::vocabulary::{Clock, Timestamp};

/// Transfers at once. Each holds a socket; a modem that vanished holds one for a minute.
pub const MOST_TRANSFERS: usize = 8192;
/// Transfers at once of one source address: a CMTS that proxies TFTP asks for many modems.
pub const MOST_PER_SOURCE: usize = 128;

/// Open files of a process that nobody gave more. getrlimit(2).
const USUAL_OPEN_FILES: usize = 1024;
const LONGEST_TRANSFER: Duration = Duration::from_secs(300);
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// RFC 2347: a request is at most 512 octets.
const REQUEST_OCTETS: usize = 1024;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// What the server serves from and reports to.
#[derive(Clone)]
pub struct TftpServer {
    pub plant: Plant,
    pub store: Store,
    /// `None`: nobody here knows the devices' addresses, and nothing is checked.
    pub leases: Option<Leases>,
    /// Where Kea hands out the addresses.
    pub kea: Option<Kea>,
    pub metrics: Metrics,
    pub clock: Clock,
}

impl TftpServer {
    /// Serves a bound socket until the task is dropped.
    pub async fn serve(self, socket: UdpSocket, beat: Heartbeat) -> io::Result<()> {
        pktinfo::enable(&socket)?;
        let active = Active::with_room(transfers_at_once());
        let mut buffer = [0u8; REQUEST_OCTETS];
        loop {
            beat.beat();
            let received = match timeout(BEAT_EVERY, pktinfo::receive(&socket, &mut buffer)).await {
                Err(_) => continue,
                Ok(Ok(received)) => received,
                Ok(Err(error)) => {
                    // Such as the report of an unreachable peer: nothing of it concerns the next datagram.
                    tracing::debug!("TFTP receive: {error}");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            let request = match parse_request(&buffer[..received.octets]) {
                Ok(request) => request,
                Err(refusal) => {
                    self.count("rejected");
                    if let Some(datagram) = refusal.datagram() {
                        // A lost refusal is asked for again.
                        let _ = socket.try_send_to(&datagram, received.peer);
                    }
                    continue;
                }
            };
            match active.enter(received.peer) {
                Entry::Taken(place) => {
                    let server = self.clone();
                    let peer = received.peer;
                    tokio::spawn(async move {
                        let result = server.answer(&request, peer, received.local).await;
                        server.count(result);
                        drop(place);
                    });
                }
                // The client did not see our first answer yet; the transfer repeats it by itself.
                Entry::Repeated => {}
                Entry::Full => self.count("busy"),
            }
        }
    }

    /// One request from its file to its end; gives the result for the metrics.
    async fn answer(&self, request: &Request, peer: SocketAddr, local: IpAddr) -> &'static str {
        let socket = match UdpSocket::bind((local, 0)).await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!("No port for a TFTP transfer to {peer}: {error}. The modem asks again.");
                return "busy";
            }
        };
        let now = self.clock.now();
        let file = match follow::find(&self.plant, &self.store, &request.name, peer.ip(), now).await {
            Found::File(file) if self.is_strange(&file, peer.ip(), now).await => {
                tracing::warn!(
                    "TFTP {} refused to {}: that is not the address its device has leased. The device itself gets it.",
                    request.name,
                    peer.ip()
                );
                refuse(&socket, peer, ErrorCode::Access, "not for this address").await;
                return "wrong_source";
            }
            Found::File(file) => file,
            Found::Later(..) => {
                // An error would end this boot; a modem that hears nothing asks again until the store has answered.
                tracing::debug!(tftp.peer = %peer, "TFTP {:?} asked by {peer}: not known here yet.", request.name);
                return "busy";
            }
            Found::Nothing => {
                tracing::debug!(tftp.peer = %peer, "TFTP {:?} asked by {peer}: no such file.", request.name);
                refuse(&socket, peer, ErrorCode::NotFound, "file not found").await;
                return "not_found";
            }
            Found::Broken(reason) => {
                tracing::warn!("TFTP {:?} not served to {peer}: {reason}.", request.name);
                refuse(&socket, peer, ErrorCode::NotFound, "file not available").await;
                return "failed";
            }
        };
        let outcome = timeout(LONGEST_TRANSFER, self.transfer(&socket, request, &file, peer)).await;
        match outcome {
            Ok(Ok(Outcome::Done)) => {
                self.fetched(request, &file, peer.ip());
                "done"
            }
            Ok(Ok(Outcome::Refused)) => "refused",
            Ok(Ok(Outcome::Silent | Outcome::Waiting { .. })) | Err(_) => "silent",
            Ok(Err(error)) => {
                tracing::debug!("TFTP transfer to {peer}: {error}");
                "failed"
            }
        }
    }

    /// Whether a file is asked for from an address that its device does not have, behind a CMTS where that counts.
    async fn is_strange(&self, file: &File, from: IpAddr, now: Timestamp) -> bool {
        let (Some(leases), Some(owner)) = (&self.leases, file.owner) else { return false };
        if !self.plant.cmts_of(from).is_some_and(|cmts| cmts.tftp_source_check) {
            return false;
        }
        let known = leases.at(from, now);
        if known.as_ref().is_some_and(|lease| lease.mac == owner.mac) {
            return false;
        }
        // A modem asks for its file a moment after Kea gave it the address.
        let Some(kea) = &self.kea else { return true };
        match kea.lease_at(leases, from, now).await {
            Ok(lease) => lease.is_none_or(|lease| lease.mac != owner.mac),
            Err(reason) => {
                tracing::warn!(
                    "Whose {from} is cannot be told: {reason}. It gets {} unchecked: a plant must boot.",
                    owner.mac
                );
                false
            }
        }
    }

    async fn transfer(
        &self,
        socket: &UdpSocket,
        request: &Request,
        file: &File,
        peer: SocketAddr,
    ) -> io::Result<Outcome> {
        let begun = Instant::now();
        let (mut machine, mut step) = Transfer::start(request, file.bytes.clone(), Duration::ZERO);
        let mut buffer = [0u8; REQUEST_OCTETS];
        loop {
            self.send(socket, &step, peer).await?;
            let Outcome::Waiting { wake_at } = step.outcome else { return Ok(step.outcome) };
            step = match timeout_at(begun + wake_at, socket.recv_from(&mut buffer)).await {
                Err(_) => machine.on_timer(begun.elapsed()),
                Ok(Ok((octets, from))) if from == peer => machine.on_datagram(&buffer[..octets], begun.elapsed()),
                Ok(Ok((octets, stranger))) => {
                    if !is_error(&buffer[..octets]) {
                        refuse(socket, stranger, ErrorCode::UnknownTransfer, "unknown transfer").await;
                    }
                    machine.on_datagram(&[], begun.elapsed())
                }
                Ok(Err(error)) => return Err(error),
            };
        }
    }

    async fn send(&self, socket: &UdpSocket, step: &Step, peer: SocketAddr) -> io::Result<()> {
        for datagram in &step.send {
            socket.send_to(datagram, peer).await?;
            self.metrics.tftp_sent_bytes.inc_by(datagram.len() as u64);
        }
        Ok(())
    }

    fn fetched(&self, request: &Request, file: &File, from: IpAddr) {
        let Some(owner) = file.owner else {
            tracing::debug!("{} fetched by {from}: a modem without account.", request.name);
            return;
        };
        let what = match owner.kind {
            DeviceKind::Cm => "Modem",
            DeviceKind::Mta => "MTA",
        };
        tracing::info!(modem.mac = %owner.mac, "{what} {} fetched {} from {from}.", owner.mac, request.name);
        let fetch = Fetch {
            revision: owner.revision,
            from,
            name: request.name.clone(),
            kind: owner.kind,
            mac: owner.mac,
            digest: effective_digest(&file.bytes),
            at: self.clock.now(),
            seen: true,
        };
        self.plant.note_fetch(owner.element_id, fetch);
    }

    fn count(&self, result: &'static str) {
        self.metrics.tftp_transfers.get_or_create(&ResultLabel::new(result)).inc();
    }
}

/// Half of the files this process may open: the database and HTTP need theirs in a boot storm too.
fn transfers_at_once() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = open_files.and_then(|rest| rest.split_whitespace().next()).and_then(|soft| soft.parse().ok());
    (soft.unwrap_or(USUAL_OPEN_FILES) / 2).clamp(1, MOST_TRANSFERS)
}

async fn refuse(socket: &UdpSocket, peer: SocketAddr, code: ErrorCode, text: &str) {
    // A lost refusal is asked for again.
    let _ = socket.send_to(&error_datagram(code, text), peer).await;
}

/// The transfers under way, by client address and port.
#[derive(Clone)]
struct Active(Arc<Mutex<Clients>>);

#[derive(Default)]
struct Clients {
    room: usize,
    ports: HashSet<SocketAddr>,
    sources: HashMap<IpAddr, usize>,
}

enum Entry {
    Taken(Place),
    Repeated,
    Full,
}

/// A transfer's place, given back when dropped.
struct Place {
    active: Active,
    peer: SocketAddr,
}

impl Active {
    fn with_room(room: usize) -> Self {
        Self(Arc::new(Mutex::new(Clients { room, ..Clients::default() })))
    }

    fn enter(&self, peer: SocketAddr) -> Entry {
        let mut clients = self.lock();
        if clients.ports.contains(&peer) {
            return Entry::Repeated;
        }
        let of_source = clients.sources.get(&peer.ip()).copied().unwrap_or(0);
        if clients.ports.len() >= clients.room || of_source >= MOST_PER_SOURCE {
            return Entry::Full;
        }
        clients.ports.insert(peer);
        clients.sources.insert(peer.ip(), of_source + 1);
        Entry::Taken(Place { active: self.clone(), peer })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Clients> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut clients = self.active.lock();
        clients.ports.remove(&self.peer);
        let source = self.peer.ip();
        if let Some(count) = clients.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                clients.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_server_takes_nobody() {
        let active = Active::with_room(1);
        let first = active.enter(SocketAddr::from(([10, 0, 0, 1], 1)));
        assert!(matches!(first, Entry::Taken(_)));
        assert!(matches!(active.enter(SocketAddr::from(([10, 0, 0, 2], 1))), Entry::Full));
        assert!(transfers_at_once() >= 1);
    }

    #[test]
    fn a_repeated_request_and_a_greedy_source_get_no_second_place() {
        let active = Active::with_room(1000);
        let peer = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let first = active.enter(peer(1));
        assert!(matches!(first, Entry::Taken(_)));
        assert!(matches!(active.enter(peer(1)), Entry::Repeated));
        let rest: Vec<Entry> = (2..=MOST_PER_SOURCE as u16).map(|port| active.enter(peer(port))).collect();
        assert!(matches!(active.enter(peer(9999)), Entry::Full));
        assert!(matches!(active.enter(SocketAddr::from(([10, 0, 0, 2], 1))), Entry::Taken(_)));
        drop((first, rest));
        assert!(active.lock().ports.is_empty() && active.lock().sources.is_empty());
    }
}
