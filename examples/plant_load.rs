//! A cable plant that boots: devices ask for an address through relays and fetch their files, as fast as they are answered.
//!
//! `plant_load boot DHCP_ADDRESS TFTP_ADDRESS RELAY_NETWORK MACS BOOTS WORKERS`: each boot is DISCOVER, OFFER, REQUEST, ACK and
//! the file of the name in the ACK; `MACS` holds a MAC a line. `plant_load tftp TFTP_ADDRESS NAMES TRANSFERS WORKERS`: only
//! files, a name a line. Every transfer uses a port of its own, as modems do. Prints one JSON object.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lastmile::dhcp::MessageType::{Discover, Request};
use lastmile::dhcp::client::{ClientMessage, ServerReply};
use lastmile::vocabulary::MacAddress;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// What a device waits before it repeats itself.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 5;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What all workers share.
struct Plan {
    next: AtomicUsize,
    most: usize,
    repeated: AtomicU64,
    failed: AtomicU64,
    octets: AtomicU64,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let threads = std::env::var("PLANT_LOAD_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    match words[..] {
        ["boot", dhcp, tftp, network, macs, boots, workers] => {
            let macs = read::<MacAddress>(macs)?;
            let (dhcp, tftp) = (dhcp.parse()?, tftp.parse()?);
            let network: Ipv4Addr = network.parse()?;
            runtime.block_on(run(boots.parse()?, workers.parse()?, move |plan, worker| {
                boots_of(plan, worker, dhcp, tftp, network, macs.clone())
            }))
        }
        ["tftp", tftp, names, transfers, workers] => {
            let names: Arc<[String]> = read(names)?;
            let tftp = tftp.parse()?;
            runtime.block_on(run(transfers.parse()?, workers.parse()?, move |plan, _| {
                transfers_of(plan, tftp, names.clone())
            }))
        }
        _ => {
            Err("plant_load boot DHCP TFTP RELAY_NETWORK MACS BOOTS WORKERS | tftp TFTP NAMES TRANSFERS WORKERS".into())
        }
    }
}

fn read<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(path: &str) -> Result<Arc<[T]>, Failure> {
    let text = std::fs::read_to_string(path)?;
    let read: Result<Vec<T>, _> = text.lines().filter(|line| !line.is_empty()).map(str::parse).collect();
    Ok(read?.into())
}

async fn run<W, F>(most: usize, workers: usize, work: W) -> Result<(), Failure>
where
    W: Fn(Arc<Plan>, usize) -> F,
    F: Future<Output = Result<Vec<Duration>, Failure>> + Send + 'static,
{
    let plan = Arc::new(Plan {
        next: AtomicUsize::new(0),
        most,
        repeated: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        octets: AtomicU64::new(0),
    });
    let begun = Instant::now();
    let running: Vec<_> = (0..workers).map(|worker| tokio::spawn(work(plan.clone(), worker))).collect();
    let mut waits = Vec::with_capacity(most);
    for worker in running {
        waits.extend(worker.await??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    waits.sort();
    let at =
        |share: f64| waits.get(((waits.len() as f64 - 1.0) * share) as usize).map_or(0.0, |w| w.as_secs_f64() * 1e3);
    println!(
        "{}",
        serde_json::json!({
            "done": waits.len(), "workers": workers, "seconds": (seconds * 1e3).round() / 1e3,
            "per_second": (waits.len() as f64 / seconds).round(),
            "p50_ms": (at(0.5) * 1e2).round() / 1e2, "p99_ms": (at(0.99) * 1e2).round() / 1e2,
            "repeated": plan.repeated.load(Ordering::Relaxed), "failed": plan.failed.load(Ordering::Relaxed),
            "octets": plan.octets.load(Ordering::Relaxed),
        })
    );
    Ok(())
}

impl Plan {
    fn take(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.most).then_some(number)
    }
}

async fn transfers_of(plan: Arc<Plan>, tftp: SocketAddr, names: Arc<[String]>) -> Result<Vec<Duration>, Failure> {
    let mut waits = Vec::new();
    while let Some(number) = plan.take() {
        let begun = Instant::now();
        match fetch(&plan, tftp, &names[number % names.len()]).await? {
            true => waits.push(begun.elapsed()),
            false => drop(plan.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }
    Ok(waits)
}

async fn boots_of(
    plan: Arc<Plan>,
    worker: usize,
    dhcp: SocketAddr,
    tftp: SocketAddr,
    network: Ipv4Addr,
    macs: Arc<[MacAddress]>,
) -> Result<Vec<Duration>, Failure> {
    // A relay for each worker, all in one network of loopback.
    let relay = Ipv4Addr::from(u32::from(network) + 1 + u32::try_from(worker)?);
    let socket = UdpSocket::bind((relay, 0)).await?;
    socket.connect(dhcp).await?;
    let mut waits = Vec::new();
    while let Some(number) = plan.take() {
        let begun = Instant::now();
        let mac = macs[number % macs.len()];
        let mut message = ClientMessage {
            class: b"docsis3.1:052401".to_vec(),
            vendor: [&[2, 3][..], b"ECM", &[4, 6], b"S-4711", &[6, 5], b"1.2.3", &[9, 5], b"TM402"].concat(),
            parameters: vec![1, 2, 3, 4, 7, 66, 67],
            ..ClientMessage::new(Discover, mac, u32::try_from(number)?).behind(relay, mac)
        };
        message.relay_information.extend([19, 0]);
        let Some(offer) = ask(&plan, &socket, &message).await? else { continue };
        let wanted = ClientMessage { kind: Request, requested: Some(offer.address), server: offer.server(), ..message };
        let Some(ack) = ask(&plan, &socket, &wanted).await? else { continue };
        if ack.kind == 5 && fetch(&plan, tftp, &ack.file).await? {
            waits.push(begun.elapsed());
        } else {
            plan.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(waits)
}

/// An answer, or `None` after the last try.
async fn ask(plan: &Plan, socket: &UdpSocket, message: &ClientMessage) -> Result<Option<ServerReply>, Failure> {
    let octets = message.encode();
    let mut buffer = [0u8; 1500];
    for _ in 0..TRIES {
        socket.send(&octets).await?;
        let waited = timeout(PATIENCE, async {
            loop {
                let length = socket.recv(&mut buffer).await?;
                if let Some(reply) = ServerReply::parse(&buffer[..length]).filter(|reply| reply.xid == message.xid) {
                    // An answer to the DISCOVER may come again behind the REQUEST.
                    if (reply.kind == 2) == (message.kind == Discover) {
                        return Ok::<_, std::io::Error>(reply);
                    }
                }
            }
        });
        match waited.await {
            Ok(reply) => return Ok(Some(reply?)),
            Err(_) => drop(plan.repeated.fetch_add(1, Ordering::Relaxed)),
        }
    }
    plan.failed.fetch_add(1, Ordering::Relaxed);
    Ok(None)
}

/// Whether the file came whole.
async fn fetch(plan: &Plan, tftp: SocketAddr, name: &str) -> Result<bool, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let request = [&[0, 1], name.as_bytes(), b"\0octet\0blksize\0", b"1448\0"].concat();
    let mut last = (request, tftp);
    let (mut buffer, mut tries, mut next) = ([0u8; 2000], 0, 1u16);
    loop {
        socket.send_to(&last.0, last.1).await?;
        let received = loop {
            match timeout(PATIENCE, socket.recv_from(&mut buffer)).await {
                Ok(received) => break received?,
                Err(_) => {
                    tries += 1;
                    plan.repeated.fetch_add(1, Ordering::Relaxed);
                    if tries == TRIES {
                        return Ok(false);
                    }
                    socket.send_to(&last.0, last.1).await?;
                }
            }
        };
        let (octets, server) = received;
        match buffer[..octets] {
            [0, 6, ..] => last = (vec![0, 4, 0, 0], server),
            [0, 3, a, b, ref data @ ..] => {
                last = (vec![0, 4, a, b], server);
                if u16::from_be_bytes([a, b]) == next {
                    next += 1;
                    plan.octets.fetch_add(data.len() as u64, Ordering::Relaxed);
                    if data.len() < 1448 {
                        socket.send_to(&last.0, last.1).await?;
                        return Ok(true);
                    }
                }
            }
            _ => return Ok(false),
        }
    }
}
