//! The builtin DHCP server: one loop that reads what relays send, decides on the table in memory, and answers.
//!
//! Comes in: datagrams of CMTS and of devices that renew. Goes out: answers; new leases through their journal first, so that
//! an ACK is sent only when its lease is on the disk. Never waits for the database: who may have what is in the plant, who
//! has what in the table. The protocol is in `crate::dhcp`.
//!
//! Bounds: `MOST_TOGETHER` datagrams are read before any is answered, and of the DISCOVERs of one device among them only the
//! newest counts: the others were given up by their sender. `MOST_PER_MODEM` messages in `WINDOW` of one modem with all
//! that is behind it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::cmts::{Cmts, CmtsTable};
use super::lease_journal::{Entry, LeaseJournal};
use super::leases::Leases;
use super::pktinfo::{self, Received};
use super::plant::{BootFile, Plant};
use crate::dhcp::{
    About, Answer, Asker, Change, ClientKind, Context, Facts, MessageType, Options, Outcome, ReplyKind, Request,
    Silence, Site, Subscriber, decide,
};
use crate::provision::DeviceKind;
use crate::store::leases::SeenDevice;
use crate::store::plant::UNPROVISIONED;
use crate::telemetry::{Heartbeat, Metrics, Outcome as Label, Reason};
use crate::vocabulary::{Clock, MacAddress, Timestamp, Zone};

const BEAT_EVERY: Duration = Duration::from_secs(5);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
const MOST_TOGETHER: usize = 512;
const MOST_OCTETS: usize = 1500;
const MOST_PER_MODEM: u32 = 60;
const WINDOW: Duration = Duration::from_secs(10);
/// Modems counted in one window; in a storm of strangers the rest is let through.
const MOST_COUNTED: usize = 200_000;
/// A modem that is at two CMTS within this time is two modems, or one of them pretends.
const CLONE_SECONDS: i64 = 300;
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What the configuration says about DHCP; swapped at a reload.
#[derive(Debug, Clone)]
pub struct DhcpSettings {
    pub cmts: CmtsTable,
    pub options: Options,
    /// Where the devices are, for the time offset; instead of `options.time_offset`.
    pub zone: Option<Zone>,
    /// Time of day is told here: without other time servers devices are sent to us.
    pub tells_time: bool,
}

/// Everything the server works with.
pub struct DhcpServer {
    pub plant: Plant,
    pub leases: Leases,
    pub journal: super::lease_journal::OpenedJournal,
    pub settings: SettingsHandle,
    pub metrics: Metrics,
    pub clock: Clock,
}

/// The settings in force; cheap to clone.
#[derive(Clone)]
pub struct SettingsHandle(Arc<RwLock<Arc<Ready>>>);

/// Settings with the sites made of them.
struct Ready {
    settings: DhcpSettings,
    sites: HashMap<String, Arc<Site>>,
}

impl SettingsHandle {
    pub fn new(settings: DhcpSettings) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Ready::of(settings)))))
    }

    pub fn replace(&self, settings: DhcpSettings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Ready::of(settings));
    }

    fn ready(&self) -> Arc<Ready> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Ready {
    fn of(settings: DhcpSettings) -> Self {
        let site = |cmts: &Arc<Cmts>| {
            let site = Site { cmts: cmts.name.as_str().into(), networks: cmts.dhcp_networks.clone() };
            (cmts.name.clone(), Arc::new(site))
        };
        let sites = settings.cmts.all().map(site).collect();
        Self { settings, sites }
    }

    /// The site a message comes from: by its relay, or by the address of who renews.
    fn site(&self, request: &Request<'_>) -> Option<&Arc<Site>> {
        let cmts = match request.relay {
            Ipv4Addr::UNSPECIFIED => {
                let serves = |cmts: &&Arc<Cmts>| {
                    cmts.dhcp_networks.iter().any(|network| network.subnet.contains(request.client))
                };
                self.settings.cmts.all().find(serves)?
            }
            relay => self.settings.cmts.of_relay(relay)?,
        };
        self.sites.get(&cmts.name).filter(|site| !site.networks.is_empty())
    }

    /// Options as they are now, sent from `local`.
    fn options(&self, local: Ipv4Addr, now: Timestamp) -> Options {
        let mut options = self.settings.options.clone();
        if let Some(zone) = &self.settings.zone {
            options.time_offset = Some(zone.to_offset(now).seconds());
        }
        if options.time_servers.is_empty() && self.settings.tells_time {
            options.time_servers.push(local);
        }
        options
    }
}

impl DhcpServer {
    /// Serves a bound socket until the task is dropped.
    pub async fn serve(self, socket: UdpSocket, beat: Heartbeat) -> io::Result<()> {
        pktinfo::enable(&socket)?;
        let journal = self.journal.start(self.leases.clone(), self.metrics.clone(), self.clock.clone())?;
        let mut desk = Desk {
            plant: self.plant,
            leases: self.leases,
            journal,
            ready: self.settings.ready(),
            metrics: self.metrics,
            socket: Arc::new(socket),
            limits: Limits { begun: Instant::now(), counts: HashMap::new() },
            complained: None,
        };
        let mut buffers = vec![[0u8; MOST_OCTETS]; MOST_TOGETHER];
        let mut received: Vec<Received> = Vec::with_capacity(MOST_TOGETHER);
        loop {
            beat.beat();
            received.clear();
            match timeout(BEAT_EVERY, pktinfo::receive(&desk.socket, &mut buffers[0])).await {
                Err(_) => continue,
                Ok(Ok(first)) => received.push(first),
                Ok(Err(error)) => {
                    tracing::debug!("DHCP receive: {error}");
                    tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                    continue;
                }
            }
            while received.len() < MOST_TOGETHER {
                match pktinfo::try_receive(&desk.socket, &mut buffers[received.len()]) {
                    Ok(next) => received.push(next),
                    Err(_) => break,
                }
            }
            desk.ready = self.settings.ready();
            desk.answer_all(&received, &buffers, self.clock.now());
        }
    }
}

/// What the loop works at.
struct Desk {
    plant: Plant,
    leases: Leases,
    journal: LeaseJournal,
    ready: Arc<Ready>,
    metrics: Metrics,
    socket: Arc<UdpSocket>,
    limits: Limits,
    complained: Option<Instant>,
}

impl Desk {
    fn answer_all(&mut self, received: &[Received], buffers: &[[u8; MOST_OCTETS]], now: Timestamp) {
        let mut messages: Vec<(Request<'_>, &Received)> = Vec::with_capacity(received.len());
        for (datagram, buffer) in received.iter().zip(buffers) {
            match Request::parse(&buffer[..datagram.octets.min(MOST_OCTETS)]) {
                Ok(request) => messages.push((request, datagram)),
                Err(_) => self.dropped("malformed"),
            }
        }
        // The place of the newest DISCOVER of each device.
        let mut newest: HashMap<MacAddress, (u16, usize), foldhash::fast::RandomState> = HashMap::default();
        for (place, (request, _)) in messages.iter().enumerate() {
            if request.kind == MessageType::Discover {
                let best = newest.entry(request.mac).or_insert((request.seconds, place));
                if request.seconds >= best.0 {
                    *best = (request.seconds, place);
                }
            }
        }
        // One clock and one set of options for all that came together.
        let mut options: Option<(Ipv4Addr, Options)> = None;
        let ready = Arc::clone(&self.ready);
        for (place, (request, datagram)) in messages.iter().enumerate() {
            if request.kind == MessageType::Discover && newest.get(&request.mac).is_some_and(|best| best.1 != place) {
                self.dropped("superseded");
                continue;
            }
            let IpAddr::V4(local) = datagram.local.to_canonical() else { continue };
            let options = match &mut options {
                Some((of, options)) if *of == local => options,
                place => &mut place.insert((local, ready.options(local, now))).1,
            };
            let context =
                Context { now, local, source: datagram.peer, options, site: ready.site(request).map(|site| &**site) };
            self.answer(request, &context);
        }
    }

    fn answer(&mut self, request: &Request<'_>, context: &Context<'_>) {
        self.metrics.dhcp_requests.get_or_create(&Label::new(word(request.kind))).inc();
        let asker = Asker::of(request, &self.leases.table());
        if !self.limits.admits(asker.modem.unwrap_or(request.mac)) {
            return self.dropped("too_often");
        }
        let known = Known::of(&self.plant, request, asker);
        let modem = asker.modem;
        let plant = &self.plant;
        let reserved = |address: Ipv4Addr| plant.modem_with_static(address).is_some_and(|owner| Some(owner) != modem);
        let facts = Facts {
            subscriber: known.subscriber.as_ref(),
            boot_file: known.file_name(asker.kind),
            realm: known.file.as_ref().and_then(|file| file.realm),
            reserved: &reserved,
        };
        let moved = self.moved(request, asker, context);
        let outcome = decide(&mut self.leases.table(), request, asker, &facts, context);
        if !matches!(outcome, Outcome::Silent(Silence::UnknownRelay | Silence::NotRelayed)) {
            self.note_seen(request, asker, context);
        }
        match outcome {
            Outcome::Silent(silence) => {
                if silence == Silence::Full {
                    self.complain(request, asker, context);
                }
                self.dropped(silence.as_str());
            }
            Outcome::Ended(lease) => {
                self.journal.write(Entry { lease, then: Box::new(|| ()) });
            }
            Outcome::Answer(answer) => {
                if let (Some(from), ReplyKind::Offer) = (moved, answer.kind) {
                    tracing::warn!(
                        modem.mac = %request.mac,
                        "Modem {} asks behind {} and was behind {from} less than {CLONE_SECONDS} s ago: it was moved fast, or another one uses its address. Both are served; look for it on both.",
                        request.mac,
                        context.site.map_or("-", |site| &*site.cmts)
                    );
                }
                self.send(answer, &known, context.local);
            }
        }
    }

    /// Sends at once what changes nothing, and the rest when it is on the disk.
    fn send(&self, answer: Answer, known: &Known, local: Ipv4Addr) {
        let Answer { kind, to, octets, change } = answer;
        if let (Some(file), ReplyKind::Offer | ReplyKind::Ack) = (&known.file, kind) {
            self.leases.note_offer(file.element_id, file.revision);
        }
        let (socket, metrics) = (self.socket.clone(), self.metrics.clone());
        let send = move || {
            let label = match kind {
                ReplyKind::Offer => "offer",
                ReplyKind::Ack => "ack",
                ReplyKind::Nak => "nak",
            };
            // What the kernel has no room for is asked for again.
            let label = pktinfo::send(&socket, &octets, SocketAddr::V4(to), local.into()).map_or("unsent", |()| label);
            metrics.dhcp_replies.get_or_create(&Label::new(label)).inc();
        };
        match change {
            Change::None => send(),
            Change::Renewed(lease) => {
                self.leases.note(lease);
                send();
            }
            Change::Bound(lease) => {
                if !self.journal.write(Entry { lease, then: Box::new(send) }) {
                    self.dropped("disk_queue_full");
                }
            }
        }
    }

    /// The CMTS a modem was behind a moment ago, when it asks behind another one.
    fn moved(&self, request: &Request<'_>, asker: Asker, context: &Context<'_>) -> Option<Arc<str>> {
        if asker.kind != ClientKind::Cm || request.kind != MessageType::Discover {
            return None;
        }
        let here = &context.site?.cmts;
        let table = self.leases.table();
        let elsewhere = |lease: &&crate::dhcp::Lease| {
            lease.is_held(context.now)
                && lease.cmts != *here
                && context.now.duration_since(lease.seen_at).as_secs() < CLONE_SECONDS
        };
        table.of(request.mac).find(elsewhere).map(|lease| lease.cmts.clone())
    }

    fn note_seen(&self, request: &Request<'_>, asker: Asker, context: &Context<'_>) {
        // Once a boot is enough, and only for what is provisioned.
        if request.kind != MessageType::Discover || asker.kind == ClientKind::Cpe {
            return;
        }
        self.leases.note_seen(SeenDevice {
            mac: request.mac,
            kind: asker.kind,
            behind: asker.modem.filter(|modem| *modem != request.mac),
            relay: request.relay,
            cmts: context.site.map_or_else(String::new, |site| site.cmts.to_string()),
            about: About::of(request),
            seen_at: context.now,
        });
    }

    fn complain(&mut self, request: &Request<'_>, asker: Asker, context: &Context<'_>) {
        if self.complained.is_some_and(|at| at.elapsed() < COMPLAIN_EVERY) {
            return;
        }
        self.complained = Some(Instant::now());
        tracing::error!(
            "No free address for a {} ({}) behind {}: its pools are full. It asks again; give its network more addresses.",
            asker.kind.as_str(),
            request.mac,
            context.site.map_or("-", |site| &*site.cmts)
        );
    }

    fn dropped(&self, reason: &'static str) {
        self.metrics.dhcp_dropped.get_or_create(&Reason::new(reason)).inc();
    }
}

/// What the plant knows about who asks.
struct Known {
    subscriber: Option<Subscriber>,
    file: Option<BootFile>,
}

impl Known {
    fn of(plant: &Plant, request: &Request<'_>, asker: Asker) -> Self {
        let file = match asker.kind {
            ClientKind::Cm => plant.boot_file(DeviceKind::Cm, request.mac),
            ClientKind::Mta => plant.boot_file(DeviceKind::Mta, request.mac),
            ClientKind::Cpe => None,
        };
        Self { subscriber: asker.modem.and_then(|modem| plant.subscriber(modem)), file }
    }

    /// A modem without an account gets the file that keeps it closed.
    fn file_name(&self, kind: ClientKind) -> Option<&str> {
        let own = self.file.as_ref().map(|file| file.name.as_str());
        own.or((kind == ClientKind::Cm).then_some(UNPROVISIONED))
    }
}

fn word(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Discover => "discover",
        MessageType::Request => "request",
        MessageType::Decline => "decline",
        MessageType::Release => "release",
        MessageType::Inform => "inform",
    }
}

/// How often each modem, with what is behind it, has asked.
struct Limits {
    begun: Instant,
    counts: HashMap<MacAddress, u32>,
}

impl Limits {
    fn admits(&mut self, modem: MacAddress) -> bool {
        if self.begun.elapsed() >= WINDOW {
            self.begun = Instant::now();
            self.counts.clear();
        }
        if self.counts.len() >= MOST_COUNTED && !self.counts.contains_key(&modem) {
            return true;
        }
        let count = self.counts.entry(modem).or_insert(0);
        *count += 1;
        *count <= MOST_PER_MODEM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modem_that_asks_without_end_is_heard_now_and_then() {
        let mut limits = Limits { begun: Instant::now(), counts: HashMap::new() };
        let mac = |last| MacAddress::from_octets([0, 1, 2, 3, 4, last]).expect("a MAC");
        let heard = (0..1000).filter(|_| limits.admits(mac(1))).count();
        assert_eq!(heard, MOST_PER_MODEM as usize);
        assert!(limits.admits(mac(2)), "others are heard");
    }
}
