//! Words every room uses: identifiers, addresses, rates, secrets, instants, money. No input or output happens here.

#[cfg(test)]
mod cases;
mod cidr;
mod document;
mod exact;
mod fault;
mod hex;
mod ids;
mod mac;
mod money;
pub mod octets;
mod rate;
mod rows;
mod secret;
mod time;

#[cfg(test)]
pub(crate) use cases::cases;
pub use cidr::{Cidr, CidrError};
pub use document::{Section, TomlFile, Value};
pub use exact::{Denominator, Exact, ExactError};
pub use fault::{Fault, Faults};
pub use hex::hex;
pub use ids::{AccountKey, DEFAULT_SOURCE, IdError, Role, SourceId, TenantId};
pub use mac::{MacAddress, MacError};
pub use money::{Currency, Money, MoneyError, Rounding};
pub use rate::{BitRate, RateError};
pub use rows::{ROW_MAX, Rows};
pub use secret::Secret;
pub use time::{Clock, Date, Period, Timestamp, Zone, from_micros, parse_instant, to_micros};
