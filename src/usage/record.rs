//! One accounting record as the fold understands it: who, which session, when, and what its counters said.
//!
//! In: fields the `radius` room has read from a packet, after the NAS profile's swap. It never holds a packet.

use std::fmt;
use std::net::IpAddr;

use super::Told;
use crate::vocabulary::Timestamp;

/// What a record reports, by Acct-Status-Type.
///
/// **Source**: RFC 2866 section 5.1; values 9 to 15 (RFC 2867) and unknown ones are `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    Start,
    Stop,
    Interim,
    AccountingOn,
    AccountingOff,
    /// Recorded and answered; changes no session.
    Other(u32),
}

impl RecordKind {
    /// The kind of an Acct-Status-Type value.
    pub fn from_status_type(value: u32) -> Self {
        match value {
            1 => Self::Start,
            2 => Self::Stop,
            3 => Self::Interim,
            7 => Self::AccountingOn,
            8 => Self::AccountingOff,
            other => Self::Other(other),
        }
    }

    /// The Acct-Status-Type value.
    pub fn status_type(self) -> u32 {
        match self {
            Self::Start => 1,
            Self::Stop => 2,
            Self::Interim => 3,
            Self::AccountingOn => 7,
            Self::AccountingOff => 8,
            Self::Other(value) => value,
        }
    }

    /// Whether the record reports on one session: Start, Stop or Interim.
    pub fn is_session(self) -> bool {
        matches!(self, Self::Start | Self::Stop | Self::Interim)
    }

    /// Whether the record ends every older session of its identity: On or Off.
    pub fn is_reboot(self) -> bool {
        matches!(self, Self::AccountingOn | Self::AccountingOff)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Stop => f.write_str("stop"),
            Self::Interim => f.write_str("interim"),
            Self::AccountingOn => f.write_str("accounting-on"),
            Self::AccountingOff => f.write_str("accounting-off"),
            Self::Other(value) => write!(f, "status-type-{value}"),
        }
    }
}

/// Doubts that came up while a record was read; the record counts all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordFlags {
    /// The clock of the NAS was not believed as it is: it is off by a known offset, or Event-Timestamp lies before arrival
    /// − 400 days or after arrival + 90 seconds.
    pub clock_doubtful: bool,
    /// `event_at` is arrival − Acct-Delay-Time, because Event-Timestamp was absent or not believable. Two copies of
    /// such a record differ in `event_at`, and session time orders them better.
    pub arrival_based: bool,
    /// The identity the configuration asks for was not in the packet; the configured client's name stands in.
    pub identity_missing: bool,
    /// A counter did not fit and was left out.
    pub counter_doubtful: bool,
}

/// How a record counts, by the profile of its NAS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counting {
    /// Another session tells of the same octets: this one is shown and never billed.
    pub informative: bool,
    /// A further link of a multilink session: its octets are added, its time and the session itself are not.
    pub further_link: bool,
    /// The counters are those since the last report, not since the session's start.
    pub interval: bool,
}

/// A record of accounting, ready to be folded.
///
/// **Shape**: octets are 0 to 2^64−1 with gigawords joined, `in` = from the subscriber; `session_seconds` is
/// Acct-Session-Time. An absent counter is `None`, never zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// NAS identity: (configured client, `identity` rule) as one text.
    pub nas: String,
    /// Acct-Session-Id: UTF-8, or `0x` and hex digits. Empty for Accounting-On and -Off without one.
    pub session: String,
    pub kind: RecordKind,
    pub user: Option<String>,
    /// Instant of the event: Event-Timestamp, corrected where the clock is known to be off, if sane; else arrival −
    /// Acct-Delay-Time.
    pub event_at: Timestamp,
    pub arrived_at: Timestamp,
    /// What `event_at` was read from.
    pub told: Told,
    pub session_seconds: Option<u64>,
    pub in_octets: Option<u64>,
    pub out_octets: Option<u64>,
    /// Whether a Gigawords attribute was present, or the counters are 64 bits wide: such an identity never wraps (HOUSE, decision 3).
    pub gigawords: bool,
    pub class: Option<String>,
    pub framed_ip: Option<IpAddr>,
    /// Delegated-IPv6-Prefix, else Framed-IPv6-Prefix, as `2001:db8::/56` without bits beyond its length.
    pub framed_prefix: Option<String>,
    pub calling_station: Option<String>,
    pub terminate_cause: Option<u32>,
    pub counting: Counting,
    pub flags: RecordFlags,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_types_survive_a_round_trip() {
        for value in 0..20 {
            assert_eq!(RecordKind::from_status_type(value).status_type(), value);
        }
        assert!(RecordKind::from_status_type(3).is_session());
        assert!(RecordKind::from_status_type(8).is_reboot());
    }
}
