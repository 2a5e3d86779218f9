//! One RadSec connection: reads packets while there is room for their answers, writes answers as they become durable.
//!
//! Reading and writing are two halves of one task. When reading ends, for whatever reason, the answers to what was taken in
//! are still written before the connection closes; when writing ends, nobody can be answered and reading ends too.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::door::Door;
use super::super::nas::NasTable;
use super::super::reply::Seat;
use super::super::stopped;
use super::admit::Caller;
use super::certificate::Presented;
use super::frames::Frames;
use crate::radius::{Malformed, Refusal, StreamVersion};

/// A connection of a known NAS.
pub struct Connection {
    /// Unlike that of any other connection or port.
    pub number: usize,
    pub source: SocketAddr,
    pub presented: Presented,
    pub version: StreamVersion,
    /// Closed when nothing comes for this long.
    pub idle: Duration,
}

/// Why a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// The peer closed it.
    Peer,
    Idle(Duration),
    /// A packet was begun and not finished.
    Stalled,
    /// The peer does not read its answers.
    Unread,
    Malformed(Malformed),
    Refused(Refusal),
    /// A request could not be made durable.
    Unanswered,
    /// A reload took the NAS or its certificate out of the configuration.
    Removed,
    Stopping,
    Broken(io::Error),
}

impl Ended {
    /// For the counters.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Idle(_) => "idle",
            Self::Stalled => "stalled",
            Self::Unread => "unread",
            Self::Malformed(_) => "malformed",
            Self::Refused(_) => "bad_authenticator",
            Self::Unanswered => "not_recorded",
            Self::Removed => "removed",
            Self::Stopping => "stopping",
            Self::Broken(_) => "broken",
        }
    }

    /// Nobody needs to be told.
    pub fn is_usual(&self) -> bool {
        matches!(self, Self::Peer | Self::Idle(_) | Self::Stopping | Self::Broken(_))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer => f.write_str("the NAS closed it"),
            Self::Idle(limit) => write!(f, "nothing came for {} s", limit.as_secs()),
            Self::Stalled => f.write_str("a packet was begun and not finished"),
            Self::Unread => write!(f, "it did not read its answers for {} s", WRITE_LIMIT.as_secs()),
            Self::Malformed(malformed) => write!(f, "{malformed}"),
            Self::Refused(refusal) => write!(f, "{refusal} (inside TLS the secret is \"radsec\")"),
            Self::Unanswered => f.write_str("a request could not be made durable; the NAS keeps it and sends it again"),
            Self::Removed => f.write_str("the configuration has no NAS of its certificate any more"),
            Self::Stopping => f.write_str("the daemon stops"),
            Self::Broken(error) => write!(f, "{error}"),
        }
    }
}

impl Connection {
    /// Serves until one side ends it; what was made durable is answered before it closes.
    pub async fn run<S>(self, stream: S, door: Arc<Door>, stopping: watch::Receiver<bool>) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (replies, queued) = mpsc::channel(IN_FLIGHT_MAX);
        let unanswered = Arc::new(Notify::new());
        let mut reading = Box::pin(self.read(reader, replies, &unanswered, door, stopping.clone()));
        let mut writing = Box::pin(write(writer, queued));
        let ended = tokio::select! {
            ended = &mut reading => ended,
            wrote = &mut writing => return wrote.err().unwrap_or(Ended::Peer),
            () = unanswered.notified() => Ended::Unanswered,
        };
        // With it go the door and the way to new answers; the writer ends after the last one that is still to come.
        drop(reading);
        if matches!(ended, Ended::Unanswered) {
            // While nothing can be made durable, connecting again and again would only cost handshakes.
            let mut stopping = stopping;
            tokio::select! {
                () = sleep(UNANSWERED_PAUSE) => {}
                () = stopped(&mut stopping) => {}
            }
        }
        // Too late to matter: the peer sees the connection close either way.
        let _ = timeout(DRAIN_LIMIT, writing).await;
        ended
    }

    async fn read(
        &self,
        mut reader: impl AsyncRead + Unpin,
        replies: mpsc::Sender<Vec<u8>>,
        unanswered: &Arc<Notify>,
        door: Arc<Door>,
        mut stopping: watch::Receiver<bool>,
    ) -> Ended {
        let mut frames = Frames::new();
        let mut table = door.table();
        let Some(mut name) = self.client_of(&table).map(|client| client.name.clone()) else { return Ended::Removed };
        let mut packets: u64 = 0;
        let mut quiet_since = Instant::now();
        let mut begun_at = None;
        loop {
            loop {
                let packet = match frames.take() {
                    Ok(Some(packet)) => packet,
                    Ok(None) => break,
                    Err(malformed) => {
                        door.count_dropped(&name, "malformed");
                        return Ended::Malformed(malformed);
                    }
                };
                let room = tokio::select! {
                    biased;
                    () = stopped(&mut stopping) => return Ended::Stopping,
                    room = replies.clone().reserve_owned() => room,
                };
                let Ok(room) = room else { return Ended::Peer };
                let newest = door.table();
                if !Arc::ptr_eq(&newest, &table) {
                    table = newest;
                }
                let Some(client) = self.client_of(&table) else { return Ended::Removed };
                if client.name != name {
                    name.clone_from(&client.name);
                }
                packets += 1;
                let caller =
                    Caller { client, source: self.source, connection: self.number, version: self.version, packets };
                if let Err(ended) = door.hear(packet, &caller, Seat::new(room, Arc::clone(unanswered))).await {
                    return ended;
                }
                (quiet_since, begun_at) = (Instant::now(), None);
            }
            let deadline = if frames.is_partial() {
                *begun_at.get_or_insert_with(Instant::now) + PACKET_LIMIT.min(self.idle)
            } else {
                quiet_since + self.idle
            };
            let received = tokio::select! {
                biased;
                () = stopped(&mut stopping) => return Ended::Stopping,
                received = reader.read(frames.space()) => received,
                () = sleep_until(deadline) => {
                    return if begun_at.is_some() { Ended::Stalled } else { Ended::Idle(self.idle) };
                }
            };
            match received {
                Ok(0) => return Ended::Peer,
                Ok(octets) => frames.received(octets),
                // Closed without TLS' good-bye.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ended::Peer,
                Err(error) => return Ended::Broken(error),
            }
        }
    }

    /// Whose connection this is by the table in force now.
    fn client_of<'t>(&self, table: &'t NasTable) -> Option<&'t super::super::NasClient> {
        let allowed =
            |client: &&super::super::NasClient| client.network.is_none_or(|network| network.contains(self.source.ip()));
        table.of_certificate(&self.presented).filter(allowed)
    }
}

/// Writes answers until no more can come, then says good-bye.
async fn write(mut writer: impl AsyncWrite + Unpin, mut queued: mpsc::Receiver<Vec<u8>>) -> Result<(), Ended> {
    let mut answers = Vec::with_capacity(ANSWERS_A_WRITE);
    let mut octets = Vec::new();
    while queued.recv_many(&mut answers, ANSWERS_A_WRITE).await > 0 {
        octets.clear();
        answers.drain(..).for_each(|answer| octets.extend_from_slice(&answer));
        let written = timeout(WRITE_LIMIT, async {
            writer.write_all(&octets).await?;
            writer.flush().await
        });
        written.await.map_err(|_| Ended::Unread)?.map_err(Ended::Broken)?;
    }
    // The peer may be gone.
    let _ = timeout(WRITE_LIMIT, writer.shutdown()).await;
    Ok(())
}

/// Requests of one connection that wait for their commit or for being written.
const IN_FLIGHT_MAX: usize = 1024;
const ANSWERS_A_WRITE: usize = 128;
/// From the first octet of a packet to its last.
const PACKET_LIMIT: Duration = Duration::from_secs(30);
const WRITE_LIMIT: Duration = Duration::from_secs(10);
const UNANSWERED_PAUSE: Duration = Duration::from_secs(2);
/// Longer than a commit may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
