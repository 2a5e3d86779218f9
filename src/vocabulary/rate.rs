//! A bit rate as catalogs and configuration files write it: `64k`, `100M`, `10G`, or plain bits per second.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bits per second, decimal multiples (k = 10^3, M = 10^6, G = 10^9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BitRate(u64);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no bit rate; write for example 64k, 100M, 2.5G")]
pub struct RateError(String);

impl BitRate {
    pub fn from_bits_per_second(bits: u64) -> Self {
        Self(bits)
    }
    pub fn bits_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for BitRate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let fail = || RateError(text.chars().take(40).collect());
        let trimmed = text.trim();
        let (number, scale) = match trimmed.char_indices().last() {
            Some((at, 'k' | 'K')) => (&trimmed[..at], 1_000u64),
            Some((at, 'm' | 'M')) => (&trimmed[..at], 1_000_000),
            Some((at, 'g' | 'G')) => (&trimmed[..at], 1_000_000_000),
            _ => (trimmed, 1),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || (number.contains('.') && fraction.is_empty()) {
            return Err(fail());
        }
        let mut bits = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(fail)?;
        let mut unit = scale;
        for digit in fraction.bytes() {
            if !unit.is_multiple_of(10) {
                return Err(fail());
            }
            unit /= 10;
            bits = bits.checked_add(u64::from(digit - b'0') * unit).ok_or_else(fail)?;
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bits if bits >= 1_000_000_000 && bits.is_multiple_of(1_000_000_000) => {
                write!(f, "{}G", bits / 1_000_000_000)
            }
            bits if bits >= 1_000_000 && bits.is_multiple_of(1_000_000) => write!(f, "{}M", bits / 1_000_000),
            bits if bits >= 1_000 && bits.is_multiple_of(1_000) => write!(f, "{}k", bits / 1_000),
            bits => write!(f, "{bits}"),
        }
    }
}

impl TryFrom<String> for BitRate {
    type Error = RateError;
    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<BitRate> for String {
    fn from(rate: BitRate) -> String {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_rates_become_bits() {
        for (text, bits) in [("64k", 64_000), ("100M", 100_000_000), ("2.5G", 2_500_000_000), ("9600", 9_600), ("0", 0)]
        {
            assert_eq!(text.parse::<BitRate>().expect(text).bits_per_second(), bits);
        }
        for text in ["", "M", "1.M", "-5M", "1,5M", "0.0001k", "fast", "99999999999999999999G"] {
            assert!(text.parse::<BitRate>().is_err(), "{text}");
        }
    }
}
