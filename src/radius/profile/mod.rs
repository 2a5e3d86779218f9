//! What vendors make of the same attributes, as data: which counters hold the octets, in which unit and direction, and
//! which of several accounting streams of one subscriber is billed.
//!
//! A profile is a TOML file (`profiles/` has the shipped ones, compiled in); a NAS names its profile in the
//! configuration, and `[radius] profiles` adds directories of further ones: a new vendor needs no release.
//!
//! ```toml
//! name = "acme"
//! input = "from-user"                  # what Acct-Input-Octets counts: from-user (RFC 2866) | to-user
//! user_name = "whole"                  # what of User-Name a subscriber holds: whole | without-realm (ada@isp is ada)
//! tunnel_links = "recorded"            # reports of tunnel links (RFC 2867, 12 and 13): recorded | informative | billed
//!
//! [[counters]]                         # the first group of which a packet holds any attribute counts; absent: RFC 2869's
//! interval = false                     # true: each report counts since the last one, not since the session's start
//! input = [
//!   { octets = "Acct-Input-Octets", gigawords = "Acct-Input-Gigawords" },
//!   { octets = "Acme-V6-In", unit = "KB", form = "integer", repeated = "sum" },       # these are added
//! ]
//! output = [ … ]
//!
//! [[informative]]                      # sessions that are kept and shown, and never billed
//! attribute = "Acme-Service-Session"
//! is = "present"                       # or "absent"; or like = "svc-*"; or differs_from, same_as = another attribute
//! because = "The subscriber's own session contains it."
//! ```

mod counters;
mod identity;
mod read;
mod streams;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::dictionary::{Dictionary, Source};
use crate::vocabulary::Fault;

use counters::CounterGroup;
pub(super) use counters::count;
pub use identity::IdentityRule;
pub use streams::{StreamRule, TunnelLinks};

/// The counter semantics of a kind of NAS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub name: String,
    /// Acct-Input-Octets counts towards the subscriber: the directions are exchanged (RFC 2866 has it from the user).
    pub swapped: bool,
    /// Never empty. The first of which a packet holds any attribute counts.
    counters: Vec<CounterGroup>,
    /// Sessions that are not billed, by the first rule that holds.
    pub informative: Vec<StreamRule>,
    pub tunnel_links: TunnelLinks,
    /// The realm is no part of the subscriber's name: `ada@isp` and `ISP\\ada` are `ada`.
    pub without_realm: bool,
}

/// Profiles by name.
#[derive(Debug, Clone)]
pub struct Profiles(BTreeMap<String, Arc<Profile>>);

impl Profile {
    /// A shipped profile, or `None`.
    pub fn named(name: &str) -> Option<Arc<Profile>> {
        Profiles::shipped().named(name)
    }

    /// Whether attributes beyond those of RFC 2866 and 2869 decide what a report counts.
    pub fn reads_more_than_standard(&self) -> bool {
        self.counters != Profile::standard().counters || !self.informative.is_empty()
    }

    /// The profile of a NAS that names none.
    pub fn standard() -> &'static Arc<Profile> {
        &Profiles::shipped().0[STANDARD]
    }
}

impl Profiles {
    /// The profiles that are compiled in.
    pub fn shipped() -> &'static Profiles {
        static SHIPPED: OnceLock<Profiles> = OnceLock::new();
        SHIPPED.get_or_init(|| {
            let mut profiles = Profiles(BTreeMap::new());
            profiles.extend(FILES, shipped_dictionary()).expect("the shipped profiles have no faults");
            profiles
        })
    }

    /// Adds profiles; one with the name of a known profile takes its place. `dictionary` explains the attributes' names
    /// that the shipped vendors' dictionaries do not have.
    ///
    /// **Errors**: every fault as `file:line:column`; nothing was added.
    pub fn extend(&mut self, files: &[Source<'_>], dictionary: &Dictionary) -> Result<(), Vec<Fault>> {
        let mut faults = Vec::new();
        let mut added: BTreeMap<String, Arc<Profile>> = BTreeMap::new();
        for file in files {
            match read::profile(file, &[dictionary, shipped_dictionary()]) {
                Ok(profile) if added.contains_key(&profile.name) => faults.push(Fault {
                    pointer: format!("{}:1:1", file.file),
                    detail: format!("the profile {:?} stands in two files", profile.name),
                }),
                Ok(profile) => {
                    added.insert(profile.name.clone(), Arc::new(profile));
                }
                Err(found) => faults.extend(found),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        self.0.append(&mut added);
        Ok(())
    }

    /// The profile of a configuration's name, or `None`.
    pub fn named(&self, name: &str) -> Option<Arc<Profile>> {
        self.0.get(name).cloned()
    }

    /// Every name, for messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The built-in dictionary and the vendors' that the shipped profiles speak of.
pub fn shipped_dictionary() -> &'static Dictionary {
    static DICTIONARY: OnceLock<Dictionary> = OnceLock::new();
    DICTIONARY.get_or_init(|| {
        let mut dictionary = Dictionary::standard();
        dictionary.extend(VENDORS, &|_| None).expect("the shipped dictionaries have no faults");
        dictionary
    })
}

const STANDARD: &str = "default";

macro_rules! shipped {
    ($folder:literal, $($name:literal),+ $(,)?) => {
        &[$(Source { file: $name, text: include_str!(concat!("../../../", $folder, "/", $name)) }),+]
    };
}

const FILES: &[Source<'static>] = shipped!(
    "profiles",
    "accel-ppp.toml",
    "cambium.toml",
    "cisco.toml",
    "coovachilli.toml",
    "default.toml",
    "ericsson.toml",
    "h3c.toml",
    "huawei.toml",
    "huawei-identical.toml",
    "juniper.toml",
    "mikrotik.toml",
    "nokia.toml",
    "nokia-session.toml",
    "opnsense.toml",
    "swapped.toml",
);
const VENDORS: &[Source<'static>] = shipped!(
    "dictionaries",
    "dictionary.alcatel.sr",
    "dictionary.cambium",
    "dictionary.chillispot",
    "dictionary.cisco",
    "dictionary.ericsson.ab",
    "dictionary.erx",
    "dictionary.h3c",
    "dictionary.huawei",
    "dictionary.juniper",
    "dictionary.mikrotik",
    "dictionary.motorola",
    "dictionary.starent",
    "dictionary.wispr",
);

#[cfg(test)]
mod tests;
