//! A network in CIDR notation, v4 or v6: who may talk to us, and which client an address belongs to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// An address and the number of leading bits that count. A bare address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CidrError {
    #[error("{0:?} is no address or network; write for example 192.0.2.0/24 or 2001:db8::/32")]
    Form(String),
    #[error("{0} has bits set beyond its prefix; the network is {1}")]
    HostBits(String, Cidr),
}

impl Cidr {
    /// The network of `prefix` bits that `address` is in; an IPv4 address mapped into IPv6 is taken as IPv4. `None` when
    /// the address has fewer bits.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = address.to_canonical();
        let widest = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= widest).then(|| Self { address: masked(address, prefix), prefix })
    }

    /// The network's first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Number of leading bits that count: 0 to 32, or to 128 for IPv6. The longest match wins.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is a network of one.
    pub fn is_host(self) -> bool {
        self.prefix == if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Whether `address` is inside. An IPv4 address mapped into IPv6 counts as the IPv4 address it is.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let form = || CidrError::Form(text.chars().take(60).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => widest,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| form())?,
            Some(_) => return Err(form()),
        };
        if prefix > widest {
            return Err(form());
        }
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(CidrError::HostBits(text.to_owned(), network)) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_holds_its_addresses_and_no_others() {
        for (network, address, inside) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
        ] {
            let cidr: Cidr = network.parse().expect(network);
            assert_eq!(cidr.contains(address.parse().expect(address)), inside, "{address} in {network}");
        }
    }

    #[test]
    fn wrong_networks_are_refused() {
        for text in ["", "192.0.2.0/33", "192.0.2.0/-1", "192.0.2.0/+8", "bng1", "192.0.2.0/", "::/129"] {
            assert!(matches!(text.parse::<Cidr>(), Err(CidrError::Form(_))), "{text}");
        }
        let error = "192.0.2.1/24".parse::<Cidr>().expect_err("host bits");
        assert_eq!(error.to_string(), "192.0.2.1/24 has bits set beyond its prefix; the network is 192.0.2.0/24");
    }
}
