//! The profiles that are compiled in, by name.

use super::profile::Profile;

/// The text of a shipped profile, or `None`.
pub fn shipped(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Names of the shipped profiles, in order.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

impl Profile {
    /// A shipped profile, or `None`.
    pub fn named(name: &str) -> Option<Profile> {
        let text = shipped(name)?;
        Some(Profile::read(name, text).expect("the shipped profiles have no faults"))
    }
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../profiles/sources/", $name, ".toml")))),+]
    };
}

const FILES: &[(&str, &str)] = files!(
    "azar",
    "azotel",
    "billmax-account",
    "billmax-service",
    "freeside-acct",
    "freeside-cable",
    "glds-wincable",
    "homegrown-csv",
    "homegrown-fixed",
    "icoms",
    "killbill",
    "lago",
    "ledger",
    "omnia360",
    "platypus",
    "powercode",
    "quickbooks",
    "sonar",
    "splynx-customer",
    "splynx-service",
    "uisp-client",
    "uisp-service",
    "whmcs",
);
