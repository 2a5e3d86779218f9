//! One UDP socket to one NAS: gives each request an identifier of its own, sends it again while no answer comes, and tells
//! the genuine answer from everything else.
//!
//! The socket is connected, so that the kernel passes on only what comes from that address and port, and says when the
//! host refuses the port. At most 256 requests are under way, one an identifier.
//! Source: RFC 5176 section 2.3, RFC 5080 section 2.2.1.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::radius::{DynamicAnswer, DynamicRequest, NoAnswer, PACKET_MAX, PacketView, dynamic_answer};
use crate::vocabulary::{Secret, Timestamp};

/// The first time an answer is waited for, and the longest (IRT, MRT), and how often at most a request is sent (MRC).
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
const SENT_AT_MOST: u32 = 5;
/// After an error of the socket: it may come back at once.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Answered(DynamicAnswer),
    /// No genuine answer came. `forged`: one came that was signed with another secret; `refused`: the host has nobody at
    /// that port.
    Silent {
        forged: bool,
        refused: bool,
        sent: u32,
    },
    /// It could not be sent at all.
    Unsendable(String),
}

/// A socket to one NAS, with the requests that wait for its answers.
pub struct Channel {
    socket: Arc<UdpSocket>,
    secret: Secret,
    waiting: Arc<Mutex<Waiting>>,
    reader: AbortHandle,
}

#[derive(Default)]
struct Waiting {
    by_identifier: HashMap<u8, Slot>,
    next: u8,
}

struct Slot {
    sent: Vec<u8>,
    answered: Option<oneshot::Sender<DynamicAnswer>>,
    forged: bool,
    refused: bool,
}

impl Channel {
    /// **Errors**: no socket, or no way to the address.
    pub async fn open(address: SocketAddr, secret: Secret) -> io::Result<Self> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        let socket = Arc::new(socket);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let reader = tokio::spawn(read(socket.clone(), secret.clone(), waiting.clone())).abort_handle();
        Ok(Self { socket, secret, waiting, reader })
    }

    /// Sends a request until it is answered, `patience` is over or it was sent often enough. `random` spreads the waits.
    pub async fn ask(&self, request: &DynamicRequest, now: Timestamp, patience: Duration, random: u64) -> Reply {
        let (answered, answer) = oneshot::channel();
        let identifier = match self.enter(request, now, answered) {
            Ok(identifier) => identifier,
            Err(why) => return Reply::Unsendable(why),
        };
        // Whoever drops this future gives the identifier back too.
        let entry = Entry { waiting: &self.waiting, identifier };
        let end = Instant::now() + patience;
        let mut answer = answer;
        let (mut sent, mut wait) = (0, None);
        while sent < SENT_AT_MOST && Instant::now() < end {
            self.send(identifier).await;
            sent += 1;
            let next = next_wait(wait, random.rotate_left(sent * 7));
            wait = Some(next);
            // The last wait lasts as long as there is patience.
            let until = if sent == SENT_AT_MOST { end } else { end.min(Instant::now() + next) };
            match timeout_at(until, &mut answer).await {
                Ok(Ok(answer)) => return Reply::Answered(answer),
                // The reader is gone, which it never is while the channel is there.
                Ok(Err(_)) => break,
                Err(_) => {}
            }
        }
        let (forged, refused) = entry.marks();
        Reply::Silent { forged, refused, sent }
    }

    /// Takes a free identifier and signs the request with it.
    fn enter(
        &self,
        request: &DynamicRequest,
        now: Timestamp,
        answered: oneshot::Sender<DynamicAnswer>,
    ) -> Result<u8, String> {
        let mut waiting = locked(&self.waiting);
        let first = waiting.next;
        let free = (0..=u8::MAX).map(|step| first.wrapping_add(step));
        let identifier = free
            .into_iter()
            .find(|identifier| !waiting.by_identifier.contains_key(identifier))
            .ok_or("256 requests are under way to this NAS")?;
        let sent = request.sign(identifier, &self.secret, now).map_err(|error| error.to_string())?;
        waiting.next = identifier.wrapping_add(1);
        let slot = Slot { sent, answered: Some(answered), forged: false, refused: false };
        waiting.by_identifier.insert(identifier, slot);
        Ok(identifier)
    }

    /// A retransmission is the same octets, under the same identifier: the NAS knows it for one.
    async fn send(&self, identifier: u8) {
        let packet = locked(&self.waiting).by_identifier.get(&identifier).map(|slot| slot.sent.clone());
        let Some(packet) = packet else { return };
        if let Err(error) = self.socket.send(&packet).await
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            note_refusal(&self.waiting);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// An identifier in use.
struct Entry<'a> {
    waiting: &'a Mutex<Waiting>,
    identifier: u8,
}

impl Entry<'_> {
    fn marks(&self) -> (bool, bool) {
        let waiting = locked(self.waiting);
        waiting.by_identifier.get(&self.identifier).map_or((false, false), |slot| (slot.forged, slot.refused))
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        locked(self.waiting).by_identifier.remove(&self.identifier);
    }
}

async fn read(socket: Arc<UdpSocket>, secret: Secret, waiting: Arc<Mutex<Waiting>>) {
    let mut datagram = vec![0; PACKET_MAX];
    loop {
        match socket.recv(&mut datagram).await {
            Ok(length) => take(&datagram[..length], &secret, &waiting),
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    note_refusal(&waiting);
                }
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Gives a datagram to the request it answers; everything else is dropped.
fn take(datagram: &[u8], secret: &Secret, waiting: &Mutex<Waiting>) {
    let Some(identifier) = datagram.get(1) else { return };
    let mut waiting = locked(waiting);
    let Some(slot) = waiting.by_identifier.get_mut(identifier) else { return };
    let sent = PacketView::parse(&slot.sent).expect("we made it");
    match dynamic_answer(datagram, &sent, secret) {
        Ok(answer) => {
            if let Some(answered) = slot.answered.take() {
                // Nobody waits any more: the order is asked again, and the NAS answers again.
                let _ = answered.send(answer);
            }
        }
        Err(NoAnswer::Forged) => slot.forged = true,
        Err(NoAnswer::Malformed | NoAnswer::Unasked) => {}
    }
}

fn note_refusal(waiting: &Mutex<Waiting>) {
    locked(waiting).by_identifier.values_mut().for_each(|slot| slot.refused = true);
}

fn locked(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    // Entries are whole at every moment a panic could leave them.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long to wait after the next sending: 2 s first, then twice the wait before, at most 16 s, each a tenth more or less.
fn next_wait(last: Option<Duration>, random: u64) -> Duration {
    let base = last.map_or(FIRST_WAIT, |last| (last * 2).min(LONGEST_WAIT));
    let tenth = u64::try_from(base.as_micros() / 10).unwrap_or(0);
    let spread = Duration::from_micros(random % (2 * tenth + 1));
    base - Duration::from_micros(tenth) + spread
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radius::DynamicKind;

    fn request(session: &str) -> DynamicRequest {
        DynamicRequest { kind: DynamicKind::Disconnect, attributes: vec![(44, session.as_bytes().to_vec())] }
    }

    fn then() -> Timestamp {
        Timestamp::from_second(1_780_000_000).expect("an instant")
    }

    /// Signs an answer as a NAS does.
    fn answer(sent: &[u8], code: u8, secret: &str) -> Vec<u8> {
        use md5::{Digest, Md5};
        let header = [&[code, sent[1], 0, 20], &sent[4..20]].concat();
        let signed = Md5::new().chain_update(&header).chain_update(secret).finalize();
        [&header[..4], signed.as_slice()].concat()
    }

    async fn nas() -> (UdpSocket, Channel) {
        let nas = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = nas.local_addr().expect("an address");
        let channel = Channel::open(address, Secret::new("s")).await.expect("a channel");
        (nas, channel)
    }

    #[tokio::test]
    async fn the_same_octets_are_sent_until_a_genuine_answer_comes() {
        let (nas, channel) = nas().await;
        let asked = tokio::spawn(async move {
            let reply = channel.ask(&request("a"), then(), Duration::from_secs(20), 7).await;
            (reply, channel)
        });
        let mut datagram = [0; 4096];
        let (length, from) = nas.recv_from(&mut datagram).await.expect("a request");
        let first = datagram[..length].to_vec();
        // Forged, foreign and malformed answers leave it waiting.
        for junk in [answer(&first, 41, "other"), answer(&first, 44, "s"), vec![41, first[1]], vec![]] {
            nas.send_to(&junk, from).await.expect("sent");
        }
        let (length, from) = nas.recv_from(&mut datagram).await.expect("a retransmission");
        assert_eq!(datagram[..length], first, "octet for octet");
        nas.send_to(&answer(&first, 41, "s"), from).await.expect("sent");
        let (reply, channel) = asked.await.expect("no panic");
        assert_eq!(reply, Reply::Answered(DynamicAnswer::Ack));
        assert!(locked(&channel.waiting).by_identifier.is_empty(), "the identifier is free again");
    }

    #[tokio::test]
    async fn requests_under_way_have_identifiers_of_their_own_and_their_own_answers() {
        let (nas, channel) = nas().await;
        let channel = Arc::new(channel);
        let asked: Vec<_> = (0..8)
            .map(|number| {
                let channel = channel.clone();
                tokio::spawn(async move {
                    channel.ask(&request(&number.to_string()), then(), Duration::from_secs(20), number).await
                })
            })
            .collect();
        let mut requests = Vec::new();
        let mut datagram = [0; 4096];
        while requests.len() < 8 {
            let (length, from) = nas.recv_from(&mut datagram).await.expect("a request");
            requests.push((datagram[..length].to_vec(), from));
        }
        // Answered backwards: the odd ones refused.
        for (sent, from) in requests.iter().rev() {
            let session = PacketView::parse(sent).expect("a packet").first(44).expect("a session")[0];
            let code = if session % 2 == 1 { 42 } else { 41 };
            nas.send_to(&answer(sent, code, "s"), *from).await.expect("sent");
        }
        for (number, asked) in asked.into_iter().enumerate() {
            let expected = if number % 2 == 1 { DynamicAnswer::Nak(None) } else { DynamicAnswer::Ack };
            assert_eq!(asked.await.expect("no panic"), Reply::Answered(expected), "{number}");
        }
    }

    #[tokio::test]
    async fn silence_ends_with_what_is_known_of_it() {
        let (nas, channel) = nas().await;
        let patience = Duration::from_millis(300);
        let silent = channel.ask(&request("a"), then(), patience, 0).await;
        assert_eq!(silent, Reply::Silent { forged: false, refused: false, sent: 1 });
        let asked = tokio::spawn(async move { channel.ask(&request("b"), then(), Duration::from_secs(1), 0).await });
        let mut datagram = [0; 4096];
        let mut sent = Vec::new();
        let mut from = None;
        while PacketView::parse(&sent).ok().and_then(|view| view.first(44).map(<[u8]>::to_vec)) != Some(b"b".to_vec()) {
            let (length, sender) = nas.recv_from(&mut datagram).await.expect("a request");
            (sent, from) = (datagram[..length].to_vec(), Some(sender));
        }
        nas.send_to(&answer(&sent, 41, "other"), from.expect("a sender")).await.expect("sent");
        let reply = asked.await.expect("no panic");
        assert_eq!(reply, Reply::Silent { forged: true, refused: false, sent: 1 });
    }

    #[tokio::test]
    async fn a_port_that_nobody_has_is_told() {
        let (nas, channel) = nas().await;
        drop(nas);
        let reply = channel.ask(&request("a"), then(), Duration::from_millis(500), 0).await;
        assert_eq!(reply, Reply::Silent { forged: false, refused: true, sent: 1 });
    }

    #[test]
    fn waits_double_to_sixteen_seconds_and_spread_by_a_tenth() {
        for random in [0, 1, 77, u64::MAX] {
            let mut wait = None;
            for expected in [2.0, 4.0, 8.0, 16.0, 16.0] {
                let next = next_wait(wait, random).as_secs_f64();
                let around = wait.map_or(2.0, |last: Duration| (last.as_secs_f64() * 2.0).min(16.0));
                assert!((around * 0.9 - 0.001..=around * 1.1 + 0.001).contains(&next), "{next} around {expected}");
                wait = Some(Duration::from_secs_f64(next));
            }
        }
    }
}
