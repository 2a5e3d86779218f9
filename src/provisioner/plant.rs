//! The cable plant in memory: for each modem and MTA its current and previous revision, and from these the files TFTP
//! serves.
//!
//! Comes in: `cm` and `mta` elements as the store holds them, or the sealed snapshot of the last time when the database is away.
//! Goes out: bytes by file name, and fetches waiting to be recorded. Never waits for anything: a modem that boots gets
//! its file from here whatever the database does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::cmts::{Cmts, CmtsTable};
use super::fetch_loop::FetchLoops;
use super::modem::{ModemSettings, Serving, build, build_unprovisioned};
use super::mta::{self, OpenedSecrets};
use super::snapshot;
use super::tod::seconds_since_1900;
use crate::dhcp::{Access, Subscriber};
use crate::docsis::{MtaAnnouncement, effective_digest, network_access};
use crate::provision::{CmAccess, Content, DeviceKind};
use crate::store::Sealer;
use crate::store::elements::ElementRow;
use crate::store::plant::{UNPROVISIONED, config_file_name, parse_config_file_name};
use crate::vocabulary::{MacAddress, Secret, Timestamp};

/// The plant; cheap to clone.
#[derive(Clone)]
pub struct Plant(Arc<Inner>);

struct Inner {
    sealer: Sealer,
    snapshot: Option<PathBuf>,
    settings: RwLock<PlantSettings>,
    devices: RwLock<HashMap<DeviceKey, Device>>,
    /// Static addresses of CPEs, by the modem of their account.
    statics: RwLock<HashMap<Ipv4Addr, MacAddress>>,
    files: Mutex<Files>,
    fetches: Mutex<HashMap<i64, Fetch>>,
    fetched: Notify,
    loops: FetchLoops,
    /// What MTAs reported last, for as long as this process lives; afterwards they are asked.
    reports: Mutex<HashMap<MacAddress, Report>>,
    /// Elements whose device reported and whose job does not know yet.
    reported: Mutex<HashMap<i64, Timestamp>>,
    changed: AtomicBool,
}

/// Built files by what they depend on.
type Files = HashMap<FileKey, Arc<[u8]>>;

/// Whose file, which revision, and behind which CMTS it is served.
type FileKey = (DeviceKey, i64, Option<Arc<str>>);

/// A modem and an MTA are devices of their own, whatever their addresses.
pub(super) type DeviceKey = (DeviceKind, MacAddress);

/// What the files of the installation depend on besides the modems; from the configuration.
#[derive(Debug, Clone)]
pub struct PlantSettings {
    /// Where no CMTS is known, or it says nothing of its own.
    pub modem: ModemSettings,
    pub cmts: CmtsTable,
    /// Whether modems or their CMTSs are asked what they run; otherwise a fetch is all the proof there is.
    pub asked: bool,
}

impl From<ModemSettings> for PlantSettings {
    fn from(modem: ModemSettings) -> Self {
        Self { modem, cmts: CmtsTable::default(), asked: false }
    }
}

impl PlantSettings {
    /// What counts behind one CMTS.
    pub fn behind(&self, cmts: Option<&Cmts>) -> ModemSettings {
        let own = cmts.and_then(|cmts| cmts.shared_secret.clone());
        ModemSettings { shared_secret: own.unwrap_or_else(|| self.modem.shared_secret.clone()), ..self.modem.clone() }
    }
}

/// One modem or MTA: what it must get now, and what it may still ask for because it was told so before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Device {
    pub kind: DeviceKind,
    pub mac: MacAddress,
    pub element_id: i64,
    pub revision: i64,
    /// `None`: removed; none of its files is served any more.
    pub content: Option<Content>,
    pub previous: Option<Content>,
    /// In clear here and sealed with everything else in the snapshot: files are built while the database is away.
    #[serde(with = "snapshot::opened", default)]
    pub secrets: OpenedSecrets,
}

/// A file on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub name: String,
    /// Effective digest of its bytes: a modem that runs the same one need not boot.
    pub digest: String,
    /// Whether a modem with it lets its CPEs send: it proves itself by being operational, or by forwarding nothing.
    pub forwards: bool,
}

/// What DHCP tells a device about its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    pub name: String,
    pub element_id: i64,
    pub revision: i64,
    /// How an MTA is provisioned.
    pub realm: Option<&'static str>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    File(File),
    /// The name is genuine and speaks of a revision this process has not heard of yet.
    Later(DeviceKind, MacAddress),
    /// Nobody's name, a removed device's, or a revision before the previous one.
    Nothing,
    /// The content makes no valid file; the reason is for NOC.
    Broken(String),
}

/// A file to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub bytes: Arc<[u8]>,
    /// Whose it is; `None` for the file of unknown modems.
    pub owner: Option<FileOwner>,
}

/// The device and revision of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOwner {
    pub kind: DeviceKind,
    pub mac: MacAddress,
    pub element_id: i64,
    pub revision: i64,
}

/// A complete fetch that the store does not know yet. A later one of the same modem takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub revision: i64,
    pub from: IpAddr,
    pub name: String,
    pub kind: DeviceKind,
    pub mac: MacAddress,
    /// Effective digest of the bytes.
    pub digest: String,
    pub at: Timestamp,
    /// `false`: the device says that it runs it, and nobody saw it fetch.
    pub seen: bool,
}

/// How an MTA says that its provisioning ended: the INFORM at the end of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// pktcMtaDevProvisioningState.
    pub state: i64,
    pub at: Timestamp,
}

/// Files kept built. One takes about 10 µs to build: this only smooths a boot storm.
const MOST_FILES: usize = 8192;

impl Plant {
    /// A plant as the snapshot left it, or an empty one.
    pub fn open(sealer: Sealer, settings: impl Into<PlantSettings>, snapshot: Option<PathBuf>) -> Self {
        let known = snapshot.as_deref().map_or_else(Vec::new, |path| match snapshot::read(path, &sealer) {
            Ok(devices) => devices,
            Err(reason) => {
                tracing::warn!(
                    "Modems of the last run are not known: {}: {reason}. They are read from the database.",
                    path.display()
                );
                Vec::new()
            }
        });
        let devices: HashMap<_, _> = known.into_iter().map(|device| (device.key(), device)).collect();
        let statics = statics_of(devices.values());
        Self(Arc::new(Inner {
            sealer,
            snapshot,
            settings: RwLock::new(settings.into()),
            devices: RwLock::new(devices),
            statics: RwLock::new(statics),
            files: Mutex::default(),
            fetches: Mutex::default(),
            fetched: Notify::new(),
            loops: FetchLoops::default(),
            reports: Mutex::default(),
            reported: Mutex::default(),
            changed: AtomicBool::new(false),
        }))
    }

    /// Takes over the desired content of a device's element, with the secrets its content names; older news than it has
    /// are passed over.
    pub fn learn(&self, element: &ElementRow, secrets: OpenedSecrets) {
        let Some(device) = Device::of(element, secrets) else { return };
        let mut devices = self.devices_mut();
        let key = device.key();
        if devices.get(&key).is_some_and(|known| *known == device || known.revision > device.revision) {
            return;
        }
        let reserved: Vec<Ipv4Addr> = device.static_addresses().collect();
        let before = devices.insert(key, device);
        drop(devices);
        let repeated = before.as_ref().is_some_and(|known| known.revision == element.desired_revision);
        let mut statics = self.0.statics.write().unwrap_or_else(PoisonError::into_inner);
        for address in before.iter().flat_map(Device::static_addresses) {
            if statics.get(&address) == Some(&key.1) {
                statics.remove(&address);
            }
        }
        statics.extend(reserved.into_iter().map(|address| (address, key.1)));
        drop(statics);
        if repeated {
            // The same revision with another secret: what was built before is of no use.
            lock(&self.0.files).retain(|(of, ..), _| *of != key);
        }
        self.0.changed.store(true, Ordering::Relaxed);
    }

    /// Makes the plant exactly what the store was read to hold, from end to end: a restored database counts, whatever
    /// the snapshot says.
    pub(super) fn replace(&self, elements: impl IntoIterator<Item = (ElementRow, OpenedSecrets)>) {
        let device = |(element, secrets): (ElementRow, OpenedSecrets)| Device::of(&element, secrets);
        let fresh: HashMap<_, _> =
            elements.into_iter().filter_map(device).map(|device| (device.key(), device)).collect();
        let mut devices = self.devices_mut();
        if *devices == fresh {
            return;
        }
        let statics = statics_of(fresh.values());
        *devices = fresh;
        drop(devices);
        *self.0.statics.write().unwrap_or_else(PoisonError::into_inner) = statics;
        lock(&self.0.files).clear();
        self.0.changed.store(true, Ordering::Relaxed);
    }

    /// Builds and proves the file of a device's element and puts it on offer; `None`: it is removed and offered no longer.
    ///
    /// **Errors**: a sentence for NOC; a person must mend catalog or account, trying again changes nothing.
    pub fn offer(&self, element: &ElementRow, secrets: OpenedSecrets) -> Result<Option<Offer>, String> {
        let (kind, mac) = match &element.desired {
            Content::Cm(content) => (DeviceKind::Cm, content.mac),
            Content::Mta(content) => (DeviceKind::Mta, content.mac),
            Content::Absent => {
                self.learn(element, secrets);
                return Ok(None);
            }
            Content::Mailbox(_) | Content::Aaa(_) => {
                return Err(format!("element {} is no cable modem and no MTA", element.key));
            }
        };
        let bytes = file_of(&element.desired, &secrets, &self.settings().modem, &Serving::default())?;
        self.learn(element, secrets);
        let name = config_file_name(&self.0.sealer, kind, mac, element.desired_revision);
        let forwards = kind == DeviceKind::Mta || network_access(&bytes);
        Ok(Some(Offer { name, digest: effective_digest(&bytes), forwards }))
    }

    /// The file of a name, as TFTP asks for it: signed for the CMTS behind which `from` is, and for this address and
    /// instant alone where that CMTS is said to check them.
    pub fn find(&self, name: &str, from: IpAddr, now: Timestamp) -> Found {
        let cmts = self.cmts_of(from);
        if name == UNPROVISIONED {
            return match build_unprovisioned(&self.settings().behind(cmts.as_deref())) {
                Ok(bytes) => Found::File(File { bytes: bytes.into(), owner: None }),
                Err(reason) => Found::Broken(reason),
            };
        }
        let Some((kind, mac, revision)) = parse_config_file_name(&self.0.sealer, name) else { return Found::Nothing };
        let devices = self.devices();
        let Some(device) = devices.get(&(kind, mac)).filter(|device| device.revision >= revision) else {
            return Found::Later(kind, mac);
        };
        let Some(content) = device.content_of(revision) else { return Found::Nothing };
        let before = cmts.as_deref().and_then(|cmts| self.previous_secret(cmts, (kind, mac), now));
        let built = match (cmts.as_deref().and_then(|cmts| serving(cmts, from, now)), before) {
            (None, None) => self.built(device, revision, content, cmts.as_deref()),
            (serving, before) => {
                let mut settings = self.settings().behind(cmts.as_deref());
                settings.shared_secret = before.unwrap_or(settings.shared_secret);
                let serving = serving.unwrap_or_else(|| for_all(cmts.as_deref()));
                file_of(content, &device.secrets, &settings, &serving).map(Into::into)
            }
        };
        match built {
            Ok(bytes) => {
                let owner = FileOwner { kind, mac, element_id: device.element_id, revision };
                Found::File(File { bytes, owner: Some(owner) })
            }
            Err(reason) => Found::Broken(reason),
        }
    }

    /// Notes a complete fetch, for `take_fetches`. One that nobody saw is no turn of a loop, and no news beside one that was.
    pub fn note_fetch(&self, element_id: i64, fetch: Fetch) {
        if fetch.seen {
            if fetch.kind == DeviceKind::Cm {
                self.0.loops.note(fetch.mac, fetch.at);
            }
            lock(&self.0.fetches).insert(element_id, fetch);
        } else {
            lock(&self.0.fetches).entry(element_id).or_insert(fetch);
        }
        self.0.fetched.notify_one();
    }

    /// Notes how an MTA says that its provisioning ended, for its job. `false`: it is nobody's.
    pub fn note_report(&self, mac: MacAddress, report: Report) -> bool {
        let devices = self.devices();
        let known = devices.get(&(DeviceKind::Mta, mac)).filter(|device| device.content.is_some());
        let Some(element_id) = known.map(|device| device.element_id) else { return false };
        drop(devices);
        lock(&self.0.reports).insert(mac, report);
        lock(&self.0.reported).insert(element_id, report.at);
        self.0.fetched.notify_one();
        true
    }

    /// What an MTA reported last.
    pub fn report_of(&self, mac: MacAddress) -> Option<Report> {
        lock(&self.0.reports).get(&mac).copied()
    }

    /// New settings, for example another shared secret: files are built anew.
    pub fn reload(&self, settings: impl Into<PlantSettings>) {
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = settings.into();
        lock(&self.0.files).clear();
    }

    /// The CMTS behind which an address is, or which has it itself.
    pub fn cmts_of(&self, address: IpAddr) -> Option<Arc<Cmts>> {
        self.settings().cmts.of_address(address).cloned()
    }

    /// The CMTS that relays DHCP with this address (giaddr).
    pub fn cmts_of_relay(&self, relay: Ipv4Addr) -> Option<Arc<Cmts>> {
        self.settings().cmts.of_relay(relay).cloned()
    }

    /// Whether a modem's fetch is only the beginning of its proof.
    pub fn modems_are_asked(&self) -> bool {
        self.settings().asked
    }

    /// What the account of a modem allows the devices behind it; `None`: no account has the modem.
    pub fn subscriber(&self, modem: MacAddress) -> Option<Subscriber> {
        let devices = self.devices();
        let Some(Content::Cm(content)) = devices.get(&(DeviceKind::Cm, modem))?.content.as_ref() else { return None };
        Some(Subscriber {
            access: match content.access {
                CmAccess::Active | CmAccess::Throttled { .. } => Access::Open,
                CmAccess::Garden => Access::Garden,
                CmAccess::VoiceOnly => Access::VoiceOnly,
                CmAccess::Blocked => Access::Blocked,
            },
            voice: content.voice,
            mta: content.mta_mac,
            static_addresses: v4(&content.static_ips).collect(),
            most_cpes: content.max_cpe,
        })
    }

    /// The newest file of a device; `None`: no account has it.
    pub fn boot_file(&self, kind: DeviceKind, mac: MacAddress) -> Option<BootFile> {
        let devices = self.devices();
        let device = devices.get(&(kind, mac))?;
        let realm = match device.content.as_ref()? {
            Content::Mta(content) => Some(content.flow.as_str()),
            _ => None,
        };
        let name = config_file_name(&self.0.sealer, kind, mac, device.revision);
        Some(BootFile { name, element_id: device.element_id, revision: device.revision, realm })
    }

    /// What an MTA that enrolled from `from` is told about its newest file, at the URL that `url` makes of a name.
    /// `None`: it is nobody's, or in its flow DHCP tells everything.
    ///
    /// **Errors**: a sentence for NOC, when there is no valid file.
    pub fn announcement(
        &self,
        mac: MacAddress,
        from: IpAddr,
        now: Timestamp,
        url: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Option<MtaAnnouncement>, String> {
        let key = (DeviceKind::Mta, mac);
        let content = match self.devices().get(&key).map(|device| device.content.clone()) {
            Some(Some(Content::Mta(content))) => content,
            _ => return Ok(None),
        };
        let Some(boot) = self.boot_file(key.0, mac) else { return Ok(None) };
        match self.find(&boot.name, from, now) {
            Found::File(file) => Ok(mta::announcement(&content, &url(&boot.name)?, &file.bytes)),
            Found::Broken(reason) => Err(reason),
            Found::Later(..) | Found::Nothing => Ok(None),
        }
    }

    /// The modem whose account has a static address.
    pub fn modem_with_static(&self, address: Ipv4Addr) -> Option<MacAddress> {
        self.0.statics.read().unwrap_or_else(PoisonError::into_inner).get(&address).copied()
    }

    /// How many modems and MTAs are known.
    pub fn device_count(&self) -> usize {
        self.devices().len()
    }

    /// Waits for a fetch or a report to record.
    pub(super) async fn fetched(&self) {
        self.0.fetched.notified().await;
    }

    pub(super) fn take_fetches(&self) -> HashMap<i64, Fetch> {
        std::mem::take(&mut *lock(&self.0.fetches))
    }

    pub(super) fn take_reported(&self) -> HashMap<i64, Timestamp> {
        std::mem::take(&mut *lock(&self.0.reported))
    }

    pub(super) fn return_reported(&self, unrecorded: HashMap<i64, Timestamp>) {
        lock(&self.0.reported).extend(unrecorded);
    }

    /// Puts back what could not be recorded, unless the modem fetched again meanwhile.
    pub(super) fn return_fetches(&self, unrecorded: HashMap<i64, Fetch>) {
        let mut waiting = lock(&self.0.fetches);
        for (element_id, fetch) in unrecorded {
            waiting.entry(element_id).or_insert(fetch);
        }
    }

    /// Writes the snapshot when something changed since the last one. Slow: call it off the async threads.
    pub(super) fn save(&self) -> Result<(), String> {
        let Some(path) = self.0.snapshot.as_deref() else { return Ok(()) };
        if !self.0.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let devices: Vec<Device> = self.devices().values().cloned().collect();
        snapshot::write(path, &self.0.sealer, &devices).inspect_err(|_| self.0.changed.store(true, Ordering::Relaxed))
    }

    /// The secret of a CMTS before the current one, when it is its turn: the modem fetches again and again.
    fn previous_secret(&self, cmts: &Cmts, (kind, mac): DeviceKey, now: Timestamp) -> Option<Secret> {
        let previous = cmts.previous_shared_secret.as_ref().filter(|_| kind == DeviceKind::Cm)?;
        let fetches = self.0.loops.turn_of_previous(mac, now)?;
        tracing::warn!(
            modem.mac = %mac,
            "Modem {mac} fetched its file {fetches} times within minutes and does not come up; this time it is signed with \
             previous_shared_secret of {}.",
            cmts.name
        );
        Some(previous.clone())
    }

    fn built(
        &self,
        device: &Device,
        revision: i64,
        content: &Content,
        cmts: Option<&Cmts>,
    ) -> Result<Arc<[u8]>, String> {
        let key = (device.key(), revision, cmts.map(|cmts| cmts.name.as_str().into()));
        if let Some(bytes) = lock(&self.0.files).get(&key) {
            return Ok(bytes.clone());
        }
        let serving = for_all(cmts);
        let bytes: Arc<[u8]> = file_of(content, &device.secrets, &self.settings().behind(cmts), &serving)?.into();
        let mut files = lock(&self.0.files);
        if files.len() >= MOST_FILES {
            files.clear();
        }
        files.insert(key, bytes.clone());
        Ok(bytes)
    }

    fn settings(&self) -> RwLockReadGuard<'_, PlantSettings> {
        self.0.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices(&self) -> RwLockReadGuard<'_, HashMap<DeviceKey, Device>> {
        self.0.devices.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn devices_mut(&self) -> RwLockWriteGuard<'_, HashMap<DeviceKey, Device>> {
        self.0.devices.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file a content stands for.
fn file_of(
    content: &Content,
    secrets: &OpenedSecrets,
    settings: &ModemSettings,
    serving: &Serving,
) -> Result<Vec<u8>, String> {
    match content {
        Content::Cm(content) => build(content, settings, serving),
        Content::Mta(content) => mta::build(content, secrets),
        Content::Mailbox(_) | Content::Aaa(_) | Content::Absent => Err("this is the content of no device".to_owned()),
    }
}

fn statics_of<'d>(devices: impl Iterator<Item = &'d Device>) -> HashMap<Ipv4Addr, MacAddress> {
    devices.flat_map(|device| device.static_addresses().map(|address| (address, device.mac))).collect()
}

fn v4(list: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    list.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// What a file served behind this CMTS says about who asked for it and when; `None`: nothing.
fn serving(cmts: &Cmts, from: IpAddr, now: Timestamp) -> Option<Serving> {
    let IpAddr::V4(address) = from.to_canonical() else { return None };
    // What the CMTS fetches is for a modem whose address is not seen here.
    (cmts.address_in_file && !cmts.is_itself(from)).then(|| Serving {
        modem_address: Some(address),
        tftp_timestamp: Some(seconds_since_1900(now)),
        extended_mic: cmts.extended_mic.clone(),
    })
}

/// What a file says that is the same for whoever asks behind this CMTS.
fn for_all(cmts: Option<&Cmts>) -> Serving {
    Serving { extended_mic: cmts.and_then(|cmts| cmts.extended_mic.clone()), ..Serving::default() }
}

impl Device {
    fn of(element: &ElementRow, secrets: OpenedSecrets) -> Option<Self> {
        let kind = element.kind.device()?;
        let mac = element.key.parse().ok()?;
        let known = |content: &Content| matches!(content, Content::Cm(_) | Content::Mta(_)).then(|| content.clone());
        Some(Self {
            kind,
            mac,
            element_id: element.id,
            revision: element.desired_revision,
            content: known(&element.desired),
            previous: element.previous.as_ref().and_then(known),
            secrets,
        })
    }

    /// Addresses that only CPEs behind this modem get.
    fn static_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let list = match &self.content {
            Some(Content::Cm(content)) => content.static_ips.as_slice(),
            _ => &[],
        };
        v4(list)
    }

    pub(super) fn key(&self) -> DeviceKey {
        (self.kind, self.mac)
    }

    /// What a revision says: the current one, or the one before while the device is not removed.
    fn content_of(&self, revision: i64) -> Option<&Content> {
        let current = self.content.as_ref()?;
        match self.revision - revision {
            0 => Some(current),
            1 => self.previous.as_ref(),
            _ => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are whole after every single step; a panic elsewhere must not stop modems from booting.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "plant_tests.rs"]
mod tests;
