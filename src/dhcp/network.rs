//! Subnets of a CMTS, by kind of device: a shared network behind one relay.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

use super::ClientKind;
use crate::vocabulary::Cidr;

/// Who gets addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkKind {
    Cm,
    Mta,
    Cpe,
    /// CPEs of accounts in the walled garden; where there is none they get addresses of `Cpe`.
    Garden,
}

impl NetworkKind {
    pub fn device(self) -> ClientKind {
        match self {
            Self::Cm => ClientKind::Cm,
            Self::Mta => ClientKind::Mta,
            Self::Cpe | Self::Garden => ClientKind::Cpe,
        }
    }
}

/// `[[cmts.network]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub kind: NetworkKind,
    pub subnet: Subnet,
    /// Addresses handed out; others of the subnet only where an account has them as static addresses.
    pub pools: Vec<Pool>,
    pub routers: Vec<Ipv4Addr>,
    pub name_servers: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub lease_seconds: u32,
    /// The id of this subnet in Kea's configuration.
    pub kea_subnet_id: Option<u32>,
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SubnetError(String);

impl Subnet {
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask_bits() == self.base
    }

    pub fn mask(self) -> Ipv4Addr {
        self.mask_bits().into()
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether a device can have this address: inside, and neither the network's own nor its broadcast address.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        let number = u32::from(address);
        self.contains(address)
            && (self.prefix >= 31 || (number != self.base && number != self.base | !self.mask_bits()))
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Subnet) -> bool {
        let (wide, narrow) = if self.prefix <= other.prefix { (self, other) } else { (other, self) };
        wide.contains(narrow.base.into())
    }

    fn mask_bits(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let cidr: Cidr = text.parse().map_err(|error: crate::vocabulary::CidrError| SubnetError(error.to_string()))?;
        let base = text.split('/').next().and_then(|address| address.parse::<Ipv4Addr>().ok());
        let base = base.ok_or_else(|| SubnetError(format!("{text} is no IPv4 network")))?;
        Ok(Self { base: base.into(), prefix: cidr.prefix() })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// A stretch of addresses, both ends in it: `10.10.1.0-10.10.200.255`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no stretch of addresses; write for example 10.10.1.0-10.10.200.255")]
pub struct PoolError(String);

impl Pool {
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Number of addresses.
    pub fn size(self) -> u64 {
        u64::from(u32::from(self.last)) - u64::from(u32::from(self.first)) + 1
    }
}

impl FromStr for Pool {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let fault = || PoolError(text.chars().take(60).collect());
        let (first, last) = text.split_once('-').ok_or_else(fault)?;
        let pool =
            Self { first: first.trim().parse().map_err(|_| fault())?, last: last.trim().parse().map_err(|_| fault())? };
        if pool.first <= pool.last { Ok(pool) } else { Err(fault()) }
    }
}
