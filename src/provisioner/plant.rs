//! The cable plant in memory: for each modem its current and previous revision, and from these the files TFTP serves.
//!
//! Comes in: `cm` elements as the store holds them, or the sealed snapshot of the last time when the database is away.
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
use super::modem::{ModemSettings, build, build_unprovisioned};
use super::snapshot;
use crate::provision::{CmContent, Content, ElementKind, ElementState};
use crate::store::Sealer;
use crate::store::elements::{ElementRow, Progress};
use crate::store::plant::{UNPROVISIONED, config_file_name, parse_config_file_name};
use crate::vocabulary::{MacAddress, Timestamp};

/// The plant; cheap to clone.
#[derive(Clone)]
pub struct Plant(Arc<Inner>);

struct Inner {
    sealer: Sealer,
    snapshot: Option<PathBuf>,
    settings: RwLock<PlantSettings>,
    modems: RwLock<HashMap<MacAddress, Modem>>,
    files: Mutex<Files>,
    fetches: Mutex<HashMap<i64, Fetch>>,
    fetched: Notify,
    changed: AtomicBool,
}

/// Built files by what they depend on.
type Files = HashMap<FileKey, Arc<[u8]>>;

/// Whose file, which revision, and behind which CMTS it is served.
type FileKey = (MacAddress, i64, Option<Arc<str>>);

/// What the files of the installation depend on besides the modems; from the configuration.
#[derive(Debug, Clone)]
pub struct PlantSettings {
    /// Where no CMTS is known, or it says nothing of its own.
    pub modem: ModemSettings,
    pub cmts: CmtsTable,
}

impl From<ModemSettings> for PlantSettings {
    fn from(modem: ModemSettings) -> Self {
        Self { modem, cmts: CmtsTable::default() }
    }
}

impl PlantSettings {
    /// What counts behind one CMTS.
    pub fn behind(&self, cmts: Option<&Cmts>) -> ModemSettings {
        let own = cmts.and_then(|cmts| cmts.shared_secret.clone());
        ModemSettings { shared_secret: own.unwrap_or_else(|| self.modem.shared_secret.clone()), ..self.modem.clone() }
    }
}

/// One modem: what it must get now, and what it may still ask for because it was told so before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Modem {
    pub mac: MacAddress,
    pub element_id: i64,
    pub revision: i64,
    /// `None`: removed; none of its files is served any more.
    pub content: Option<CmContent>,
    pub previous: Option<CmContent>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    File(File),
    /// The name is genuine and speaks of a revision this process has not heard of yet.
    Later(MacAddress),
    /// Nobody's name, a removed modem's, or a revision before the previous one.
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

/// The modem and revision of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileOwner {
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
    pub at: Timestamp,
}

/// Files kept built. One takes about 10 µs to build: this only smooths a boot storm.
const MOST_FILES: usize = 8192;

impl Plant {
    /// A plant as the snapshot left it, or an empty one.
    pub fn open(sealer: Sealer, settings: impl Into<PlantSettings>, snapshot: Option<PathBuf>) -> Self {
        let known = snapshot.as_deref().map_or_else(Vec::new, |path| match snapshot::read(path, &sealer) {
            Ok(modems) => modems,
            Err(reason) => {
                tracing::warn!(
                    "Modems of the last run are not known: {}: {reason}. They are read from the database.",
                    path.display()
                );
                Vec::new()
            }
        });
        let modems = known.into_iter().map(|modem| (modem.mac, modem)).collect();
        Self(Arc::new(Inner {
            sealer,
            snapshot,
            settings: RwLock::new(settings.into()),
            modems: RwLock::new(modems),
            files: Mutex::default(),
            fetches: Mutex::default(),
            fetched: Notify::new(),
            changed: AtomicBool::new(false),
        }))
    }

    /// Takes over the desired content of a `cm` element; older news than it has are passed over.
    pub fn learn(&self, element: &ElementRow) {
        let Some(modem) = Modem::of(element) else { return };
        let mut modems = self.modems_mut();
        if modems.get(&modem.mac).is_some_and(|known| *known == modem || known.revision > modem.revision) {
            return;
        }
        modems.insert(modem.mac, modem);
        self.0.changed.store(true, Ordering::Relaxed);
    }

    /// Makes the plant exactly what the store was read to hold, from end to end: a restored database counts, whatever
    /// the snapshot says.
    pub(super) fn replace(&self, elements: impl IntoIterator<Item = ElementRow>) {
        let fresh: HashMap<_, _> =
            elements.into_iter().filter_map(|element| Modem::of(&element)).map(|modem| (modem.mac, modem)).collect();
        let mut modems = self.modems_mut();
        if *modems == fresh {
            return;
        }
        *modems = fresh;
        drop(modems);
        lock(&self.0.files).clear();
        self.0.changed.store(true, Ordering::Relaxed);
    }

    /// Brings a `cm` element to where it can be brought without the modem: its file is built, proven and on offer.
    ///
    /// **Errors**: a sentence for NOC; a person must mend catalog or account, trying again changes nothing.
    pub fn apply(&self, element: &ElementRow) -> Result<Progress, String> {
        let content = match &element.desired {
            Content::Cm(content) => content,
            Content::Absent => {
                self.learn(element);
                let evidence = "removed; its file is served no longer".to_owned();
                return Ok(Progress { state: ElementState::Gone, evidence, applied: true });
            }
            _ => return Err(format!("element {} is no cable modem", element.key)),
        };
        build(content, &self.settings().modem)?;
        self.learn(element);
        let name = config_file_name(&self.0.sealer, content.mac, element.desired_revision);
        let evidence = format!("offered {name}; waiting for the modem to fetch it");
        Ok(Progress { state: ElementState::Pending, evidence, applied: false })
    }

    /// The file of a name, as TFTP asks for it: signed for the CMTS behind which `from` is.
    pub fn find(&self, name: &str, from: IpAddr) -> Found {
        let cmts = self.cmts_of(from);
        if name == UNPROVISIONED {
            return match build_unprovisioned(&self.settings().behind(cmts.as_deref())) {
                Ok(bytes) => Found::File(File { bytes: bytes.into(), owner: None }),
                Err(reason) => Found::Broken(reason),
            };
        }
        let Some((mac, revision)) = parse_config_file_name(&self.0.sealer, name) else { return Found::Nothing };
        let modems = self.modems();
        let Some(modem) = modems.get(&mac).filter(|modem| modem.revision >= revision) else {
            return Found::Later(mac);
        };
        let Some(content) = modem.content_of(revision) else { return Found::Nothing };
        match self.built(mac, revision, content, cmts.as_deref()) {
            Ok(bytes) => {
                let owner = FileOwner { mac, element_id: modem.element_id, revision };
                Found::File(File { bytes, owner: Some(owner) })
            }
            Err(reason) => Found::Broken(reason),
        }
    }

    /// Notes a complete fetch, for `take_fetches`.
    pub fn note_fetch(&self, element_id: i64, fetch: Fetch) {
        lock(&self.0.fetches).insert(element_id, fetch);
        self.0.fetched.notify_one();
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

    /// How many modems are known.
    pub fn modem_count(&self) -> usize {
        self.modems().len()
    }

    /// Waits for a fetch to record.
    pub(super) async fn fetched(&self) {
        self.0.fetched.notified().await;
    }

    pub(super) fn take_fetches(&self) -> HashMap<i64, Fetch> {
        std::mem::take(&mut *lock(&self.0.fetches))
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
        let modems: Vec<Modem> = self.modems().values().cloned().collect();
        snapshot::write(path, &self.0.sealer, &modems).inspect_err(|_| self.0.changed.store(true, Ordering::Relaxed))
    }

    fn built(
        &self,
        mac: MacAddress,
        revision: i64,
        content: &CmContent,
        cmts: Option<&Cmts>,
    ) -> Result<Arc<[u8]>, String> {
        let key = (mac, revision, cmts.map(|cmts| cmts.name.as_str().into()));
        if let Some(bytes) = lock(&self.0.files).get(&key) {
            return Ok(bytes.clone());
        }
        let bytes: Arc<[u8]> = build(content, &self.settings().behind(cmts))?.into();
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

    fn modems(&self) -> RwLockReadGuard<'_, HashMap<MacAddress, Modem>> {
        self.0.modems.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn modems_mut(&self) -> RwLockWriteGuard<'_, HashMap<MacAddress, Modem>> {
        self.0.modems.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Modem {
    fn of(element: &ElementRow) -> Option<Self> {
        if element.kind != ElementKind::Cm {
            return None;
        }
        let mac = element.key.parse().ok()?;
        let cm = |content: &Content| match content {
            Content::Cm(content) => Some(content.clone()),
            _ => None,
        };
        Some(Self {
            mac,
            element_id: element.id,
            revision: element.desired_revision,
            content: cm(&element.desired),
            previous: element.previous.as_ref().and_then(cm),
        })
    }

    /// What a revision says: the current one, or the one before while the modem is not removed.
    fn content_of(&self, revision: i64) -> Option<&CmContent> {
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
