//! Holds: reasons to restrict a service, what they do to it, and which of several wins.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::vocabulary::Timestamp;

/// Why a service is restricted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    Nonpay,
    Abuse,
    Seasonal,
    Fraud,
    Legal,
    Admin,
}

/// What a hold does to the services it covers.
///
/// **Shape**: text `garden`, `throttle:PROFILE`, `block`, `block_voice`, `none`. PROFILE names an internet plan of the
/// catalog, whose rates and RADIUS group then apply.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Treatment {
    /// Recorded only.
    None,
    /// Internet at the rates of a profile; voice and mail stay.
    Throttle(String),
    /// Internet into a walled garden, mail off (a mailbox has no garden); voice stays.
    Garden,
    /// Internet and mail off; voice keeps working, so that an emergency call still goes through.
    Block,
    /// Everything off, voice too.
    BlockVoice,
}

/// Whether a held service keeps billing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum HoldBilling {
    #[default]
    Full,
    None,
}

/// One hold as it is kept in the account document or set by an operator.
///
/// **Shape**: in force in `[from, until)`; a missing edge is open. `treatment` missing: the catalog's default of the
/// kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub kind: HoldKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treatment: Option<Treatment>,
    #[serde(default)]
    pub billing: HoldBilling,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HoldError {
    #[error("{0:?} is no kind of hold; kinds are nonpay, abuse, seasonal, fraud, legal, admin")]
    Kind(String),
    #[error("{0:?} is no treatment; treatments are garden, throttle:PROFILE, block, block_voice, none")]
    Treatment(String),
}

const PROFILE_MAX: usize = 64;

impl HoldKind {
    pub const ALL: [HoldKind; 6] =
        [HoldKind::Nonpay, HoldKind::Abuse, HoldKind::Seasonal, HoldKind::Fraud, HoldKind::Legal, HoldKind::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            HoldKind::Nonpay => "nonpay",
            HoldKind::Abuse => "abuse",
            HoldKind::Seasonal => "seasonal",
            HoldKind::Fraud => "fraud",
            HoldKind::Legal => "legal",
            HoldKind::Admin => "admin",
        }
    }

    /// What the kind does where the catalog does not say: who owes money sees the garden and keeps the telephone, who
    /// misuses the line loses it.
    pub fn default_treatment(self) -> Treatment {
        match self {
            HoldKind::Nonpay => Treatment::Garden,
            HoldKind::Abuse | HoldKind::Seasonal | HoldKind::Admin => Treatment::Block,
            HoldKind::Fraud | HoldKind::Legal => Treatment::BlockVoice,
        }
    }
}

impl Hold {
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

impl fmt::Display for HoldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for HoldKind {
    type Err = HoldError;
    fn from_str(text: &str) -> Result<Self, HoldError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| HoldError::Kind(shortened(text)))
    }
}

impl FromStr for Treatment {
    type Err = HoldError;
    fn from_str(text: &str) -> Result<Self, HoldError> {
        match text {
            "none" => Ok(Treatment::None),
            "garden" => Ok(Treatment::Garden),
            "block" => Ok(Treatment::Block),
            "block_voice" => Ok(Treatment::BlockVoice),
            _ => match text.strip_prefix("throttle:") {
                Some(profile) if is_profile(profile) => Ok(Treatment::Throttle(profile.to_owned())),
                _ => Err(HoldError::Treatment(shortened(text))),
            },
        }
    }
}

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Treatment::None => f.write_str("none"),
            Treatment::Garden => f.write_str("garden"),
            Treatment::Block => f.write_str("block"),
            Treatment::BlockVoice => f.write_str("block_voice"),
            Treatment::Throttle(profile) => write!(f, "throttle:{profile}"),
        }
    }
}

impl TryFrom<String> for Treatment {
    type Error = HoldError;
    fn try_from(text: String) -> Result<Self, HoldError> {
        text.parse()
    }
}

impl From<Treatment> for String {
    fn from(treatment: Treatment) -> String {
        treatment.to_string()
    }
}

fn is_profile(text: &str) -> bool {
    (1..=PROFILE_MAX).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}
