//! A hardware address as DOCSIS equipment and billing systems write it, in any of the usual spellings; shown in one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An EUI-48 address of a cable modem or MTA.
///
/// **Shape**: six octets; `Display` is lower-case with colons. Parsing takes `aa:bb:cc:dd:ee:ff`, `aa-bb-…`,
/// `aabb.ccdd.eeff`, `aabbccddeeff` and groups split by spaces, in either case.
/// **Errors**: wrong length or characters, a group (multicast) address, all zeros. The push is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MacError {
    #[error("{0:?} is no MAC address; write six octets, for example 00:11:22:33:44:55")]
    Form(String),
    #[error("{0} is a group address; a device has an individual one")]
    Group(String),
    #[error("the all-zero MAC address belongs to no device")]
    Zero,
}

impl MacAddress {
    pub fn from_octets(octets: [u8; 6]) -> Result<Self, MacError> {
        let mac = Self(octets);
        if octets == [0; 6] {
            return Err(MacError::Zero);
        }
        if octets[0] & 1 == 1 {
            return Err(MacError::Group(mac.to_string()));
        }
        Ok(mac)
    }

    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.chars().take(40).collect());
        let (mut octets, mut digits) = ([0u8; 6], 0);
        // Digits of the current group, and of those before it; what stands between them.
        let (mut group, mut size, mut separator) = (0, None, None);
        for letter in text.trim().chars() {
            match letter.to_digit(16) {
                Some(digit) if digits < 12 => {
                    octets[digits / 2] = octets[digits / 2] << 4 | digit as u8;
                    (digits, group) = (digits + 1, group + 1);
                }
                None if [':', '-', '.', ' '].contains(&letter)
                    && separator.is_none_or(|other| other == letter)
                    && size.is_none_or(|size| size == group) =>
                {
                    (separator, size, group) = (Some(letter), Some(group), 0);
                }
                _ => return Err(form()),
            }
        }
        if digits != 12 || size.unwrap_or(12) != group || ![2, 4, 6, 12].contains(&group) {
            return Err(form());
        }
        Self::from_octets(octets)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_spellings_are_one_address() {
        for text in [
            "00:11:22:aa:bb:CC",
            "00-11-22-AA-BB-CC",
            "0011.22aa.bbcc",
            "001122AABBCC",
            "00 11 22 aa bb cc",
            "001122-aabbcc",
        ] {
            assert_eq!(text.parse::<MacAddress>().expect(text).to_string(), "00:11:22:aa:bb:cc");
        }
    }

    #[test]
    fn what_is_no_device_address_is_refused() {
        for text in
            ["", "00:11:22:33:44", "00:11:22:33:44:5g", "0:11:22:33:44:55", "00:11-22:33:44:55", "00:11:22:33:44:55:66"]
        {
            assert!(matches!(text.parse::<MacAddress>(), Err(MacError::Form(_))), "{text}");
        }
        assert!(matches!("01:00:5e:00:00:01".parse::<MacAddress>(), Err(MacError::Group(_))));
        assert!(matches!("ff:ff:ff:ff:ff:ff".parse::<MacAddress>(), Err(MacError::Group(_))));
        assert_eq!("00:00:00:00:00:00".parse::<MacAddress>(), Err(MacError::Zero));
    }
}
