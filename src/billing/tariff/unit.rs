//! What is counted and in which unit: a decimal and a binary gigabyte are two units, and every tariff says which.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::vocabulary::Exact;

/// What the ledger counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    Octets,
    Seconds,
    Sessions,
    /// Telephone calls, by their seconds.
    Calls,
    /// The 95th percentile of the rates of five minutes, in bits per second.
    PeakBps95,
}

/// The unit a charge prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// 10^9 octets.
    Gigabyte,
    /// 2^30 octets.
    Gibibyte,
    /// 10^6 octets.
    Megabyte,
    /// 2^20 octets.
    Mebibyte,
    Octet,
    Second,
    Minute,
    Hour,
    Session,
    BitPerSecond,
    /// 10^3 bits per second.
    Kilobit,
    /// 10^6 bits per second.
    Megabit,
    /// 10^9 bits per second.
    Gigabit,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error("{0:?} is no unit; units are GB, GiB, MB, MiB, octet, s, min, h, session, bps, kbps, Mbps, Gbps")]
    Unit(String),
    #[error("{0:?} is no quantity with its unit; write for example \"1 MB\"")]
    Quantity(String),
}

/// A quantity with its own unit, for example `1 MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    pub amount: Exact,
    pub unit: Unit,
}

impl Unit {
    const ALL: [Unit; 13] = [
        Unit::Gigabyte,
        Unit::Gibibyte,
        Unit::Megabyte,
        Unit::Mebibyte,
        Unit::Octet,
        Unit::Second,
        Unit::Minute,
        Unit::Hour,
        Unit::Session,
        Unit::BitPerSecond,
        Unit::Kilobit,
        Unit::Megabit,
        Unit::Gigabit,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Gigabyte => "GB",
            Unit::Gibibyte => "GiB",
            Unit::Megabyte => "MB",
            Unit::Mebibyte => "MiB",
            Unit::Octet => "octet",
            Unit::Second => "s",
            Unit::Minute => "min",
            Unit::Hour => "h",
            Unit::Session => "session",
            Unit::BitPerSecond => "bps",
            Unit::Kilobit => "kbps",
            Unit::Megabit => "Mbps",
            Unit::Gigabit => "Gbps",
        }
    }

    /// Octets, seconds, sessions or bits per second in one unit.
    pub fn size(self) -> u64 {
        match self {
            Unit::Gigabyte => 1_000_000_000,
            Unit::Gibibyte => 1 << 30,
            Unit::Megabyte => 1_000_000,
            Unit::Mebibyte => 1 << 20,
            Unit::Octet | Unit::Second | Unit::Session | Unit::BitPerSecond => 1,
            Unit::Kilobit => 1_000,
            Unit::Megabit => 1_000_000,
            Unit::Gigabit => 1_000_000_000,
            Unit::Minute => 60,
            Unit::Hour => 3600,
        }
    }

    pub fn meter(self) -> Meter {
        match self {
            Unit::Gigabyte | Unit::Gibibyte | Unit::Megabyte | Unit::Mebibyte | Unit::Octet => Meter::Octets,
            Unit::Second | Unit::Minute | Unit::Hour => Meter::Seconds,
            Unit::Session => Meter::Sessions,
            Unit::BitPerSecond | Unit::Kilobit | Unit::Megabit | Unit::Gigabit => Meter::PeakBps95,
        }
    }
}

impl Meter {
    /// The meter whose units it is counted in.
    pub fn counted_as(self) -> Meter {
        if self == Meter::Calls { Meter::Seconds } else { self }
    }

    /// Whether it tells what comes from the subscriber and what goes there.
    pub fn has_direction(self) -> bool {
        matches!(self, Meter::Octets | Meter::PeakBps95)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Meter::Octets => "octets",
            Meter::Seconds => "seconds",
            Meter::Sessions => "sessions",
            Meter::Calls => "calls",
            Meter::PeakBps95 => "peak_bps_95",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Unit {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        Self::ALL
            .into_iter()
            .find(|unit| unit.as_str() == text)
            .ok_or_else(|| UnitError::Unit(text.chars().take(20).collect()))
    }
}

impl FromStr for Measured {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fail = || UnitError::Quantity(text.chars().take(40).collect());
        let (amount, unit) = text.trim().split_once(' ').ok_or_else(fail)?;
        Ok(Self { amount: amount.parse().map_err(|_| fail())?, unit: unit.trim().parse()? })
    }
}
