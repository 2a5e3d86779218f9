//! Billing systems as the configuration has them, and the profiles by which they are read: swapped as a whole when the
//! configuration is read again, and when a profile's file changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::mediation::{PROFILE_MAX, Profile, shipped, shipped_names};
use crate::vocabulary::hex;
use crate::vocabulary::{Cidr, Fault, Secret, SourceId, TenantId};

/// What the configuration says about billing systems.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Files of profiles, and folders of them; a profile of one of these goes before a shipped one of its name.
    pub profiles: Vec<PathBuf>,
    /// Days for which what came is kept as it came.
    pub raw_days: u32,
    /// For how long a file in a watched folder must have stood still.
    pub settle_seconds: u32,
    pub sources: Vec<Source>,
    pub shelf: Arc<Shelf>,
}

/// `[[source]]`: a billing system of a tenant, and how it comes in. One that comes in several ways has several.
#[derive(Debug, Clone)]
pub struct Source {
    pub tenant: TenantId,
    pub source: SourceId,
    pub profiles: Vec<String>,
    pub secret: Option<Secret>,
    pub previous_secret: Option<Secret>,
    /// Where it sends from; empty: anywhere.
    pub addresses: Vec<Cidr>,
    pub callback: Option<Callback>,
    /// Its pushes change nothing: what they would change is noted.
    pub observe: bool,
    pub breaker: Breaker,
    /// Folder in which it puts files.
    pub inbox: Option<PathBuf>,
    /// Where it connects to.
    pub listen: Option<SocketAddr>,
}

/// Where a source is asked back.
#[derive(Debug, Clone)]
pub struct Callback {
    /// `http://host[:port]/path` or `https://…`, without the slash at its end.
    pub url: String,
    /// Whom an `https` place is believed.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// A header that opens it, and its value.
    pub header: Option<(String, Secret)>,
}

/// How much a source may take away in 24 hours: whichever is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Of its living accounts; 100 never holds anything.
    pub percent: u32,
    pub accounts: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { percent: 2, accounts: 25 }
    }
}

impl Default for SourceSettings {
    fn default() -> Self {
        let shelf = Arc::new(Shelf::read(&[]).expect("the shipped profiles have no faults"));
        Self { profiles: Vec::new(), raw_days: RAW_DAYS, settle_seconds: SETTLE_SECONDS, sources: Vec::new(), shelf }
    }
}

/// Days for which what came is kept unless the configuration says otherwise.
pub const RAW_DAYS: u32 = 30;
/// For how long a file must have stood still unless the configuration says otherwise.
pub const SETTLE_SECONDS: u32 = 10;
/// Files of profiles that are read at most.
const FILES_MAX: usize = 1_000;

/// A profile with the version of its file.
#[derive(Debug)]
pub struct Shelved {
    pub profile: Profile,
    /// SHA-256 of the text, 32 hexadecimal digits of it.
    pub digest: String,
    pub text: String,
}

/// Every profile there is, by name.
#[derive(Debug, Default)]
pub struct Shelf {
    profiles: BTreeMap<String, Arc<Shelved>>,
    /// The files they came from, as they were.
    seen: Vec<(PathBuf, Option<(SystemTime, u64)>)>,
}

impl Shelf {
    /// Reads the shipped profiles and those of the files and folders.
    ///
    /// **Errors**: every fault, as `file:line:column`.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Vec<Fault>> {
        let mut shelf = Shelf::default();
        for name in shipped_names() {
            let text = shipped(name).unwrap_or_default();
            shelf.put(name, text.to_owned())?;
        }
        let mut faults = Vec::new();
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        for file in listed(paths)? {
            let shown = file.display().to_string();
            shelf.seen.push((file.clone(), state(&file)));
            let text = match std::fs::metadata(&file) {
                Ok(metadata) if metadata.len() > PROFILE_MAX as u64 => Err("is too long to be a profile".to_owned()),
                Ok(_) => std::fs::read_to_string(&file).map_err(|error| format!("cannot be read: {error}")),
                Err(error) => Err(format!("cannot be read: {error}")),
            };
            let name = match text {
                Err(detail) => Err(vec![Fault { pointer: shown, detail }]),
                Ok(text) => shelf.put(&shown, text),
            };
            match name {
                Err(found) => faults.extend(found),
                Ok(name) => {
                    if let Some(other) = files.insert(name.clone(), file.clone()) {
                        let detail = format!("the profile {name:?} stands in {} too", other.display());
                        faults.push(Fault { pointer: file.display().to_string(), detail });
                    }
                }
            }
        }
        if faults.is_empty() { Ok(shelf) } else { Err(faults) }
    }

    fn put(&mut self, file: &str, text: String) -> Result<String, Vec<Fault>> {
        let profile = Profile::read(file, &text)?;
        let digest = hex(&Sha256::digest(text.as_bytes())[..16]);
        let name = profile.name.clone();
        self.profiles.insert(name.clone(), Arc::new(Shelved { profile, digest, text }));
        Ok(name)
    }

    pub fn named(&self, name: &str) -> Option<Arc<Shelved>> {
        self.profiles.get(name).cloned()
    }

    /// Whether any of the files is not what it was, or another is there.
    fn is_outdated(&self, paths: &[PathBuf]) -> bool {
        let Ok(files) = listed(paths) else { return true };
        let now: Vec<_> =
            files.into_iter().map(|file| (state(&file), file)).map(|(state, file)| (file, state)).collect();
        now != self.seen
    }
}

fn state(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The files of all paths: a folder stands for its `*.toml`, in order.
fn listed(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Vec<Fault>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unread = |error: std::io::Error| {
            vec![Fault { pointer: path.display().to_string(), detail: format!("cannot be read: {error}") }]
        };
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unread)? {
            let file = entry.map_err(unread)?.path();
            if file.extension().is_some_and(|extension| extension == "toml") && file.is_file() {
                inside.push(file);
            }
        }
        inside.sort();
        files.extend(inside);
    }
    files.truncate(FILES_MAX);
    Ok(files)
}

/// The sources and their profiles as they are now; cheap to clone, and every clone sees the next swap.
#[derive(Clone, Default)]
pub struct Sources {
    now: Arc<RwLock<Arc<SourceSettings>>>,
}

impl Sources {
    pub fn new(settings: SourceSettings) -> Self {
        Self { now: Arc::new(RwLock::new(Arc::new(settings))) }
    }

    pub fn now(&self) -> Arc<SourceSettings> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Swaps everything.
    pub fn replace(&self, settings: SourceSettings) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Reads the files of profiles again where one of them changed. `Ok(true)`: they are new.
    ///
    /// **Errors**: faults of the new ones; the old ones stay in force.
    pub fn refresh(&self) -> Result<bool, Vec<Fault>> {
        let before = self.now();
        if !before.shelf.is_outdated(&before.profiles) {
            return Ok(false);
        }
        let shelf = Arc::new(Shelf::read(&before.profiles)?);
        let gone = before.sources.iter().flat_map(|source| &source.profiles).find(|name| shelf.named(name).is_none());
        if let Some(name) = gone {
            let detail = "is gone, and a [[source]] of the configuration names it".to_owned();
            return Err(vec![Fault { pointer: format!("profile {name}"), detail }]);
        }
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        // A reload in between has read them itself.
        if Arc::ptr_eq(&before, &now) {
            *now = Arc::new(SourceSettings { shelf, ..SourceSettings::clone(&before) });
        }
        Ok(true)
    }

    /// Whether a source's pushes change nothing.
    pub fn observes(&self, tenant: &TenantId, source: &SourceId) -> bool {
        self.now().of(tenant, source).any(|source| source.observe)
    }

    pub fn breaker(&self, tenant: &TenantId, source: &SourceId) -> Breaker {
        self.now().of(tenant, source).next().map(|source| source.breaker).unwrap_or_default()
    }
}

impl SourceSettings {
    /// What is configured of a source.
    pub fn of<'s>(&'s self, tenant: &'s TenantId, source: &'s SourceId) -> impl Iterator<Item = &'s Source> {
        self.sources.iter().filter(move |one| one.tenant == *tenant && one.source == *source)
    }

    /// The sources of a tenant that use a profile.
    pub fn by_profile<'s>(&'s self, tenant: &'s TenantId, profile: &'s str) -> impl Iterator<Item = &'s Source> {
        self.sources.iter().filter(move |one| one.tenant == *tenant && one.profiles.iter().any(|name| name == profile))
    }
}

impl Source {
    /// Whether it may send from there.
    pub fn sends_from(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.is_empty() || self.addresses.iter().any(|network| network.contains(address))
    }

    pub fn secrets(&self) -> Vec<&Secret> {
        self.secret.iter().chain(&self.previous_secret).collect()
    }
}

impl Breaker {
    /// How many accounts a source with so many living ones may take from in 24 hours. `None`: any number.
    pub fn allows(self, living: i64) -> Option<i64> {
        if self.percent >= 100 {
            return None;
        }
        Some(i64::from(self.accounts).max(living.saturating_mul(i64::from(self.percent)) / 100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_allows_the_larger_of_share_and_number() {
        let usual = Breaker::default();
        for (living, allowed) in [(0, 25), (100, 25), (1_250, 25), (1_300, 26), (100_000, 2_000)] {
            assert_eq!(usual.allows(living), Some(allowed), "{living}");
        }
        assert_eq!(Breaker { percent: 0, accounts: 0 }.allows(1_000), Some(0), "everything is held");
        assert_eq!(Breaker { percent: 100, accounts: 0 }.allows(1_000), None);
    }

    #[test]
    fn a_changed_profile_is_read_again_and_a_broken_one_leaves_the_old_in_force() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mine.toml");
        let text = |about: &str| {
            shipped("whmcs").expect("shipped").replace("name = \"whmcs\"", &format!("name = \"mine\"\n# {about}"))
        };
        std::fs::write(&file, text("one")).expect("a file");
        let profiles = vec![folder.path().to_path_buf()];
        let shelf = Arc::new(Shelf::read(&profiles).expect("profiles"));
        let sources = Sources::new(SourceSettings { profiles, shelf, ..SourceSettings::default() });
        let digest = || sources.now().shelf.named("mine").map(|shelved| shelved.digest.clone()).expect("a profile");
        let first = digest();
        assert_eq!(sources.refresh(), Ok(false), "nothing changed");
        std::fs::write(&file, text("another version of it")).expect("a file");
        assert_eq!(sources.refresh(), Ok(true));
        let second = digest();
        assert_ne!(first, second);
        std::fs::write(&file, "name = ").expect("a file");
        let faults = sources.refresh().expect_err("no TOML");
        assert!(faults[0].pointer.contains("mine.toml"), "{faults:?}");
        assert_eq!(digest(), second, "the old one stays");
    }
}
