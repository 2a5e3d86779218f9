//! The journal of leases: an address is written here and is on the disk before its device is told.
//!
//! A file of its own beside the snapshot of the plant, so that devices get addresses while the database is away. What
//! binds an address to a device or ends that is written and synced, many together; a renewal is not, for after a restart
//! every lease counts for its whole length again. The store learns everything behind it.
//!
//! **Shape**: one record a line: CRC-32 of the JSON in eight hex digits, a blank, the JSON. A line that is cut off or damaged
//! ends the file: whatever it said was not acknowledged. Rewritten whole when it has grown and the store knows all of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::leases::Leases;
use crate::dhcp::{ClientKind, Lease, LeaseState};
use crate::telemetry::Metrics;
use crate::vocabulary::{Clock, MacAddress, Timestamp};

/// Entries that wait for the disk; more are dropped and asked for again.
const MOST_WAITING: usize = 16_384;
/// Entries of one sync.
const MOST_TOGETHER: usize = 4096;
/// The file is rewritten when it is longer than this and than four times what is alive.
const LEAST_REWRITTEN_OCTETS: u64 = 4 << 20;
const OCTETS_OF_RECORD: u64 = 300;
const TRY_AGAIN: Duration = Duration::from_secs(1);
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Leases that ended longer ago are left out of a rewritten file.
const KEEP_ENDED: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// A lease to be made durable, and what is done then.
pub(super) struct Entry {
    pub lease: Lease,
    /// Sends the answer; called only when the lease is on the disk and still as written.
    pub then: Box<dyn FnOnce() + Send>,
}

/// Where entries are handed in; cheap to clone.
#[derive(Clone)]
pub(super) struct LeaseJournal(SyncSender<Entry>);

/// An open file, not yet running.
pub struct OpenedJournal {
    path: PathBuf,
    file: Option<File>,
    octets: u64,
    /// Whether nothing was known: a first start, or another machine's.
    pub was_empty: bool,
}

impl LeaseJournal {
    /// `false`: too much waits for the disk already.
    pub fn write(&self, entry: Entry) -> bool {
        !matches!(self.0.try_send(entry), Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
    }
}

/// Reads the journal and gives its leases to `leases`; what the store may not know is noted for it.
///
/// **Errors**: the file cannot be read or written.
pub fn open(path: &Path, leases: &Leases, now: Timestamp) -> io::Result<OpenedJournal> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut good = 0;
    let mut rest = &text[..];
    while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
        let Some(record) = Record::parse(&rest[..end]) else { break };
        good += end as u64 + 1;
        rest = &rest[end + 1..];
        let recorded = record.recorded;
        let lease = record.lease();
        if !recorded {
            leases.note(lease.clone());
        }
        leases.table().restore(lease, now);
    }
    if good < text.len() as u64 {
        tracing::warn!(
            "{}: the last {} octets were not written to their end; nobody was told what they say.",
            path.display(),
            text.len() as u64 - good
        );
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_len(good)?;
    file.sync_all()?;
    sync_folder(path)?;
    Ok(OpenedJournal { path: path.to_path_buf(), file: Some(file), octets: good, was_empty: good == 0 })
}

impl OpenedJournal {
    /// Starts the thread that writes; it ends when the last handle is gone.
    pub(super) fn start(self, leases: Leases, metrics: Metrics, clock: Clock) -> io::Result<LeaseJournal> {
        let (handle, entries) = sync_channel(MOST_WAITING);
        let mut writer = Writer { journal: self, leases, metrics, clock, complained: None };
        std::thread::Builder::new().name("lease journal".to_owned()).spawn(move || writer.run(&entries))?;
        Ok(LeaseJournal(handle))
    }
}

struct Writer {
    journal: OpenedJournal,
    leases: Leases,
    metrics: Metrics,
    clock: Clock,
    complained: Option<Instant>,
}

impl Writer {
    fn run(&mut self, entries: &Receiver<Entry>) {
        loop {
            let first = match entries.recv_timeout(TRY_AGAIN) {
                Ok(entry) => Some(entry),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Everything that came while the last sync ran goes with the next one.
            let together: Vec<Entry> = first.into_iter().chain(entries.try_iter().take(MOST_TOGETHER)).collect();
            if let Err(error) = self.write(&together) {
                self.journal.file = None;
                self.complain(&error);
                // Who was not answered asks again.
                continue;
            }
            for entry in together {
                let confirmed = self.leases.table().confirm(&entry.lease);
                let ended = matches!(entry.lease.state, LeaseState::Released | LeaseState::Declined);
                if confirmed || ended {
                    self.leases.note(Lease { state: settled(entry.lease.state), ..entry.lease });
                    (entry.then)();
                }
            }
        }
    }

    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        // What is not recorded must stay until it is: the store learns who had an address from here.
        let asked = self.leases.rewrite_asked().filter(|_| self.leases.is_recorded());
        if self.journal.file.is_none() || self.is_overgrown() || asked.is_some() {
            self.rewrite()?;
        }
        asked.into_iter().for_each(|wish| self.leases.rewritten(wish));
        if entries.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::with_capacity(entries.len() * OCTETS_OF_RECORD as usize);
        for entry in entries {
            Record::of(&entry.lease, false).write(&mut lines)?;
        }
        let file = self.journal.file.as_mut().ok_or_else(|| io::Error::other("no file"))?;
        file.write_all(&lines)?;
        file.sync_data()?;
        self.journal.octets += lines.len() as u64;
        self.metrics.dhcp_journal_commits.inc();
        Ok(())
    }

    /// Only when the store knows all of it: what is rewritten no longer says who had an address before.
    fn is_overgrown(&self) -> bool {
        let alive = self.leases.count() as u64 * OCTETS_OF_RECORD;
        self.journal.octets > LEAST_REWRITTEN_OCTETS.max(4 * alive) && self.leases.is_recorded()
    }

    /// Writes what is alive into a new file and puts it in the old one's place: a crash leaves one of them whole.
    fn rewrite(&mut self) -> io::Result<()> {
        let recorded = self.leases.is_recorded();
        let now = self.clock.now();
        let mut lines = Vec::new();
        {
            let table = self.leases.table();
            let worth = |lease: &&Lease| {
                matches!(lease.state, LeaseState::Bound | LeaseState::Released)
                    && now.duration_since(lease.expires_at) < KEEP_ENDED
            };
            for lease in table.all().filter(worth) {
                Record::of(lease, recorded).write(&mut lines)?;
            }
        }
        let fresh = self.journal.path.with_extension(format!("new-{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&fresh, &self.journal.path)?;
        sync_folder(&self.journal.path)?;
        self.journal.file = Some(OpenOptions::new().append(true).open(&self.journal.path)?);
        self.journal.octets = lines.len() as u64;
        Ok(())
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            tracing::error!(
                "Leases cannot be written to {}: {error}. Devices that renew are served, new addresses are not given; the file is begun anew until that works.",
                self.journal.path.display()
            );
        }
        std::thread::sleep(TRY_AGAIN);
    }
}

/// What is on the disk is bound.
fn settled(state: LeaseState) -> LeaseState {
    if state == LeaseState::Binding { LeaseState::Bound } else { state }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// One line.
#[derive(Serialize, Deserialize)]
struct Record {
    address: Ipv4Addr,
    mac: MacAddress,
    kind: ClientKind,
    behind: Option<MacAddress>,
    relay: Ipv4Addr,
    cmts: String,
    since: i64,
    expires: i64,
    seconds: u32,
    #[serde(default)]
    ended: bool,
    /// The store knows it.
    #[serde(default)]
    recorded: bool,
}

impl Record {
    fn of(lease: &Lease, recorded: bool) -> Self {
        Self {
            address: lease.address,
            mac: lease.mac,
            kind: lease.kind,
            behind: lease.behind,
            relay: lease.relay,
            cmts: lease.cmts.to_string(),
            since: lease.since.as_microsecond(),
            expires: lease.expires_at.as_microsecond(),
            seconds: lease.lease_seconds,
            ended: matches!(lease.state, LeaseState::Released | LeaseState::Declined),
            recorded,
        }
    }

    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let json = serde_json::to_vec(self)?;
        write!(out, "{:08x} ", crc32fast::hash(&json))?;
        out.extend(json);
        out.push(b'\n');
        Ok(())
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let (sum, json) = line.split_at_checked(9)?;
        let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.trim_end(), 16).ok()?;
        if crc32fast::hash(json) != sum {
            return None;
        }
        serde_json::from_slice(json).ok()
    }

    fn lease(self) -> Lease {
        let since = Timestamp::from_microsecond(self.since).unwrap_or(Timestamp::MIN);
        Lease {
            address: self.address,
            mac: self.mac,
            kind: self.kind,
            behind: self.behind,
            relay: self.relay,
            cmts: self.cmts.into(),
            since,
            seen_at: since,
            expires_at: Timestamp::from_microsecond(self.expires).unwrap_or(since),
            lease_seconds: self.seconds,
            state: if self.ended { LeaseState::Released } else { LeaseState::Bound },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(last: u8, state: LeaseState) -> Lease {
        let now = Timestamp::from_second(1_800_000_000).expect("an instant");
        Lease {
            address: Ipv4Addr::new(10, 1, 0, last),
            mac: MacAddress::from_octets([0, 1, 2, 3, 4, last]).expect("a MAC"),
            kind: ClientKind::Cm,
            behind: None,
            relay: Ipv4Addr::new(10, 1, 0, 1),
            cmts: "cmts1".into(),
            since: now,
            seen_at: now,
            expires_at: Timestamp::from_second(1_800_003_600).expect("an instant"),
            lease_seconds: 3600,
            state,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("an instant")
    }

    #[test]
    fn what_was_acknowledged_is_known_after_a_crash_and_a_cut_line_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("leases.journal");
        let leases = Leases::default();
        let opened = open(&path, &leases, at(1_800_000_000)).expect("a new file");
        assert!(opened.was_empty);
        let journal = opened.start(leases.clone(), Metrics::new(), Clock::fixed(at(1_800_000_000))).expect("a thread");
        let (told, answers) = std::sync::mpsc::channel();
        for last in 2..12 {
            let lease = lease(last, LeaseState::Binding);
            leases.table().put(lease.clone());
            let told = told.clone();
            assert!(journal.write(Entry { lease, then: Box::new(move || told.send(last).expect("a reader")) }));
        }
        let mut acknowledged: Vec<u8> =
            (2..12).map(|_| answers.recv_timeout(Duration::from_secs(10)).expect("an answer")).collect();
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, (2..12).collect::<Vec<u8>>());
        let end = Lease { expires_at: at(1_800_000_001), ..lease(2, LeaseState::Released) };
        leases.table().put(end.clone());
        assert!(journal.write(Entry { lease: end, then: Box::new(move || told.send(2).expect("a reader")) }));
        answers.recv_timeout(Duration::from_secs(10)).expect("the end is written");

        // As after kill -9 in the middle of a line.
        let mut text = fs::read(&path).expect("the file");
        text.extend(b"01234567 {\"address\":\"10.1.0.99\"");
        fs::write(&path, &text).expect("the file");
        let again = Leases::default();
        let much_later = at(1_800_000_000 + 90 * 24 * 3600);
        assert!(!open(&path, &again, much_later).expect("the file").was_empty);
        assert_eq!(again.count(), 10);
        assert!(again.at(Ipv4Addr::new(10, 1, 0, 3).into(), much_later).is_some(), "it may have been renewed since");
        assert!(again.at(Ipv4Addr::new(10, 1, 0, 2).into(), much_later).is_none(), "it was given back");
        assert!(!again.is_recorded(), "the store may not know it");
        // A damaged line ends the file; what is behind it is not believed.
        text[20] ^= 1;
        fs::write(&path, &text).expect("the file");
        let damaged = Leases::default();
        open(&path, &damaged, much_later).expect("the file");
        assert_eq!(damaged.count(), 0);
    }
}
