//! What a device tells of itself: its kind by option 60, its model, serial number and software by option 43.
//!
//! Option 43 of cable devices (CL-SP-CANN-DHCP-Reg): 2 device type, 4 serial number, 5 hardware version, 6 software
//! version, 7 boot ROM version, 8 OUI, 9 model, 10 vendor.

use serde::{Deserialize, Serialize};

use super::message::{Request, sub_option};

/// What kind of device asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientKind {
    /// A cable modem.
    Cm,
    /// The telephone adapter inside an EMTA.
    Mta,
    /// Anything behind a modem.
    Cpe,
}

impl ClientKind {
    /// By the vendor class identifier: `docsis3.1:…`, `pktc1.5:…`, anything else.
    pub fn of_class(class: &[u8]) -> Self {
        if class.starts_with(b"docsis") {
            Self::Cm
        } else if class.starts_with(b"pktc") {
            Self::Mta
        } else {
            Self::Cpe
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cm => "cm",
            Self::Mta => "mta",
            Self::Cpe => "cpe",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Cm, Self::Mta, Self::Cpe].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What a modem or MTA tells of itself; empty where it tells nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub class: String,
    pub vendor: String,
    pub model: String,
    pub serial: String,
    pub hardware: String,
    pub software: String,
    pub boot_rom: String,
}

/// Longest text kept of one field: what a stranger sends goes into a table.
const MOST_CHARACTERS: usize = 64;

impl About {
    pub fn of(request: &Request<'_>) -> Self {
        // Behind the colon stand the capabilities, long and of no use to a person.
        let class = request.class.split(|octet| *octet == b':').next().unwrap_or_default();
        let mut about = Self { class: text(class), ..Self::default() };
        let mut rest = &*request.vendor;
        while let Some((code, value, next)) = sub_option(rest) {
            match code {
                4 => about.serial = text(value),
                5 => about.hardware = text(value),
                6 => about.software = text(value),
                7 => about.boot_rom = text(value),
                9 => about.model = text(value),
                10 => about.vendor = text(value),
                _ => {}
            }
            rest = next;
        }
        about
    }
}

/// Printable ASCII of what came, so that it can be shown anywhere.
fn text(octets: &[u8]) -> String {
    let printable = octets.iter().map(|octet| char::from(*octet)).filter(|letter| (' '..='~').contains(letter));
    printable.take(MOST_CHARACTERS).collect::<String>().trim().to_owned()
}
