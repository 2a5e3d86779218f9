//! Bad networks between a peer and a daemon: UDP that loses, doubles, reorders and damages; TCP that is cut on purpose.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What of a hundred datagrams, each way, meets a fault.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub dropped: u64,
    pub doubled: u64,
    /// Held back, so that later ones overtake.
    pub held: u64,
    /// Arrive with one bit changed.
    pub damaged: u64,
    pub seed: u64,
}

/// How many datagrams met which fault.
#[derive(Debug, Default)]
pub struct Counts {
    pub dropped: AtomicU64,
    pub doubled: AtomicU64,
    pub held: AtomicU64,
    pub damaged: AtomicU64,
    pub passed: AtomicU64,
}

/// A UDP proxy with faults; ends when dropped.
pub struct BadNetwork {
    pub port: u16,
    pub counts: Arc<Counts>,
    ended: Arc<AtomicBool>,
}

/// How long a held datagram waits at most.
const HELD_MS: u64 = 40;
const LOOK: Duration = Duration::from_millis(50);

/// A datagram on its way: when, on which socket, to whom (`None`: the socket is connected), what.
type Parcel = (Instant, Arc<UdpSocket>, Option<SocketAddr>, Vec<u8>);

impl BadNetwork {
    /// A proxy on a port of its own in front of `target`.
    pub fn before(target: u16, faults: Faults) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        front.set_read_timeout(Some(LOOK)).expect("a timeout");
        let port = front.local_addr().expect("its address").port();
        let (counts, ended) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let (parcels, post) = mpsc::channel();
        let end = ended.clone();
        std::thread::spawn(move || deliver(&post, &end));
        let (counting, end) = (counts.clone(), ended.clone());
        std::thread::spawn(move || forward(&front, target, faults, &counting, &parcels, &end));
        Self { port, counts, ended }
    }
}

impl Drop for BadNetwork {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Requests inwards; a thread a client takes the answers outwards.
fn forward(
    front: &Arc<UdpSocket>,
    target: u16,
    faults: Faults,
    counts: &Arc<Counts>,
    parcels: &mpsc::Sender<Parcel>,
    ended: &Arc<AtomicBool>,
) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut random = Random(faults.seed);
    let mut room = [0u8; 4096];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, client)) = front.recv_from(&mut room) else { continue };
        let seed = faults.seed + 1 + backs.len() as u64;
        let back = backs.entry(client).or_insert_with(|| {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a socket"));
            back.connect(("127.0.0.1", target)).expect("an address");
            back.set_read_timeout(Some(LOOK)).expect("a timeout");
            let (back_in, front_out) = (back.clone(), front.clone());
            let (counts, parcels, ended) = (counts.clone(), parcels.clone(), ended.clone());
            std::thread::spawn(move || {
                let mut random = Random(seed);
                let mut room = [0u8; 4096];
                while !ended.load(Ordering::Relaxed) {
                    let Ok(length) = back_in.recv(&mut room) else { continue };
                    maltreat(&room[..length], &faults, &mut random, &counts, |due, octets| {
                        let _: Result<_, _> = parcels.send((due, front_out.clone(), Some(client), octets));
                    });
                }
            });
            back
        });
        let back = back.clone();
        maltreat(&room[..length], &faults, &mut random, counts, |due, octets| {
            let _: Result<_, _> = parcels.send((due, back.clone(), None, octets));
        });
    }
}

fn maltreat(
    octets: &[u8],
    faults: &Faults,
    random: &mut Random,
    counts: &Counts,
    mut send: impl FnMut(Instant, Vec<u8>),
) {
    let copies = if random.percent(faults.doubled) {
        counts.doubled.fetch_add(1, Ordering::Relaxed);
        2
    } else {
        1
    };
    for _ in 0..copies {
        if random.percent(faults.dropped) {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let mut copy = octets.to_vec();
        if random.percent(faults.damaged) {
            counts.damaged.fetch_add(1, Ordering::Relaxed);
            let bit = random.below(copy.len() as u64 * 8);
            copy[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let mut due = Instant::now();
        if random.percent(faults.held) {
            counts.held.fetch_add(1, Ordering::Relaxed);
            due += Duration::from_millis(1 + random.below(HELD_MS));
        }
        counts.passed.fetch_add(1, Ordering::Relaxed);
        send(due, copy);
    }
}

/// Sends each parcel when it is due.
fn deliver(post: &mpsc::Receiver<Parcel>, ended: &AtomicBool) {
    let mut waiting: BTreeMap<u64, Parcel> = BTreeMap::new();
    let mut due: BinaryHeap<std::cmp::Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut number = 0;
    while !ended.load(Ordering::Relaxed) {
        let wait = due.peek().map_or(LOOK, |next| next.0.0.saturating_duration_since(Instant::now()).min(LOOK));
        match post.recv_timeout(wait) {
            Ok(parcel) => {
                due.push(std::cmp::Reverse((parcel.0, number)));
                waiting.insert(number, parcel);
                number += 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while due.peek().is_some_and(|next| next.0.0 <= Instant::now()) {
            let next = due.pop().expect("it was there").0;
            let (_, socket, to, octets) = waiting.remove(&next.1).expect("as many as are due");
            // A daemon that is down is one more fault.
            let _: std::io::Result<usize> = match to {
                Some(client) => socket.send_to(&octets, client),
                None => socket.send(&octets),
            };
        }
    }
}

/// A TCP proxy before PostgreSQL that can cut the journal's connection around its COMMIT; ends when dropped.
pub struct CommitCutter {
    pub port: u16,
    armed: Arc<Mutex<Option<Cut>>>,
    cuts: Arc<AtomicU32>,
    ended: Arc<AtomicBool>,
}

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server has committed; its answer is not delivered.
    AfterCommit,
    /// The records never reach the server.
    BeforeCommit,
}

/// A connection that has said this writes the journal. The trailing space keeps other tables out.
const JOURNAL: &[u8] = b"INSERT INTO journal ";
/// What the server says of a statement that inserted, or of an explicit COMMIT, in its CommandComplete.
const DONE: [&[u8]; 2] = [b"INSERT 0 ", b"COMMIT\0"];

impl CommitCutter {
    /// A proxy on a port of its own before the server at `target`.
    pub fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let port = listener.local_addr().expect("its address").port();
        let (armed, cuts, ended) =
            (Arc::new(Mutex::new(None)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (arm, count, end) = (armed.clone(), cuts.clone(), ended.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = client else { continue };
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                for stream in [&client, &server] {
                    let _: std::io::Result<()> = stream.set_nodelay(true);
                }
                let journal = Arc::new(AtomicBool::new(false));
                for direction in [Direction::ToServer, Direction::ToClient] {
                    let pump = Pump {
                        direction,
                        client: client.try_clone().expect("a handle"),
                        server: server.try_clone().expect("a handle"),
                        journal: journal.clone(),
                        armed: arm.clone(),
                        cuts: count.clone(),
                    };
                    std::thread::spawn(move || pump.run());
                }
            }
        });
        Self { port, armed, cuts, ended }
    }

    /// Cuts the next commit of the journal.
    pub fn arm(&self, cut: Cut) {
        *self.armed.lock().expect("no pump panicked") = Some(cut);
    }

    /// How many connections were cut so far.
    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for CommitCutter {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // So that the listener looks.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

struct Pump {
    direction: Direction,
    client: TcpStream,
    server: TcpStream,
    journal: Arc<AtomicBool>,
    armed: Arc<Mutex<Option<Cut>>>,
    cuts: Arc<AtomicU32>,
}

impl Pump {
    fn run(mut self) {
        let mut room = vec![0u8; 1 << 20];
        loop {
            let read = match self.direction {
                Direction::ToServer => self.client.read(&mut room),
                Direction::ToClient => self.server.read(&mut room),
            };
            let length = match read {
                Ok(length) if length > 0 => length,
                _ => return self.close(),
            };
            let octets = &room[..length];
            if self.must_cut(octets) {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                return self.close();
            }
            let written = match self.direction {
                Direction::ToServer => self.server.write_all(octets),
                Direction::ToClient => self.client.write_all(octets),
            };
            if written.is_err() {
                return self.close();
            }
        }
    }

    fn must_cut(&self, octets: &[u8]) -> bool {
        if self.direction == Direction::ToServer && contains(octets, JOURNAL) {
            self.journal.store(true, Ordering::SeqCst);
        }
        if !self.journal.load(Ordering::SeqCst) {
            return false;
        }
        let mut armed = self.armed.lock().expect("no pump panicked");
        let now = match (*armed, self.direction) {
            (Some(Cut::AfterCommit), Direction::ToClient) => DONE.iter().any(|done| contains(octets, done)),
            // A Bind with records is long; a probe of the lane is not.
            (Some(Cut::BeforeCommit), Direction::ToServer) => octets.len() > 120,
            _ => false,
        };
        if now {
            *armed = None;
        }
        now
    }

    fn close(&self) {
        for stream in [&self.client, &self.server] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn contains(octets: &[u8], wanted: &[u8]) -> bool {
    octets.windows(wanted.len()).any(|window| window == wanted)
}

/// SplitMix64: small, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
