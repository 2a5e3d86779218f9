//! Identifiers that cannot be wrong: tenants, sources, accounts, roles of API keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The source a push belongs to when it names none.
pub const DEFAULT_SOURCE: &str = "default";

const SHORT_ID_MAX: usize = 64;
const EXTERNAL_ID_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    #[error("must not be empty")]
    Empty,
    #[error("is longer than {0} characters")]
    TooLong(usize),
    #[error("holds {0:?}; letters, digits, '-', '_' and '.' are allowed")]
    Character(char),
    #[error("holds a control character")]
    Control,
    #[error("{0:?} is no role; roles are push, read, csr, operator, billing, admin, platform")]
    Role(String),
}

macro_rules! short_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn parse(text: &str) -> Result<Self, IdError> {
                short(text).map(Self)
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

short_id! {
    /// One provider that pushes accounts to us. 1 to 64 of `A-Z a-z 0-9 - _ .`.
    TenantId
}
short_id! {
    /// One billing system of a tenant; `default` unless named. Same alphabet as a tenant.
    SourceId
}

impl Default for SourceId {
    fn default() -> Self {
        Self(DEFAULT_SOURCE.to_owned())
    }
}

/// Identity of an account in the world outside: (tenant, source, external id).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    pub tenant: TenantId,
    pub source: SourceId,
    pub external_id: String,
}

impl AccountKey {
    /// Checks an external id: 1 to 128 characters, no control characters. Anything else belongs to the billing system.
    pub fn parse_external_id(text: &str) -> Result<String, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.chars().count() > EXTERNAL_ID_MAX {
            return Err(IdError::TooLong(EXTERNAL_ID_MAX));
        }
        if text.chars().any(char::is_control) {
            return Err(IdError::Control);
        }
        Ok(text.to_owned())
    }
}

/// What an API key may do. `Platform` belongs to no tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Push,
    Read,
    Csr,
    Operator,
    Billing,
    Admin,
    Platform,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Push => "push",
            Role::Read => "read",
            Role::Csr => "csr",
            Role::Operator => "operator",
            Role::Billing => "billing",
            Role::Admin => "admin",
            Role::Platform => "platform",
        }
    }
}

impl FromStr for Role {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        [Role::Push, Role::Read, Role::Csr, Role::Operator, Role::Billing, Role::Admin, Role::Platform]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| IdError::Role(text.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn short(text: &str) -> Result<String, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > SHORT_ID_MAX {
        return Err(IdError::TooLong(SHORT_ID_MAX));
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        Some(c) => Err(IdError::Character(c)),
        None => Ok(text.to_owned()),
    }
}
