//! The services of a tenant at the end of a day, as the tree that a handshake is about.

use thiserror::Error;

use super::{StoreError, Tx, catalog, census};
use crate::billing::handshake::Tree;
use crate::vocabulary::{Date, Timestamp, Zone};

/// A day's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeDay {
    pub day: Date,
    pub timezone: String,
    /// The day is not over: it is as it is now.
    pub provisional: bool,
    pub tree: Tree,
}

#[derive(Debug, Error)]
pub enum HandshakeError {
    #[error("there is no tenant {0} with a catalog")]
    NoTenant(String),
    #[error("the day cannot be placed: {0}")]
    Day(#[from] jiff::Error),
    #[error("that day has not begun")]
    Future,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tree of a day, yesterday unless it is named, in the tenant's zone or another; of one source or of all.
pub async fn tree(
    tx: &mut Tx,
    tenant: &str,
    source: Option<&str>,
    on: Option<Date>,
    zone: Option<(String, Zone)>,
    now: Timestamp,
) -> Result<HandshakeDay, HandshakeError> {
    let in_force = catalog::in_force(tx, tenant).await?.ok_or_else(|| HandshakeError::NoTenant(tenant.to_owned()))?;
    let (timezone, zone) = zone.unwrap_or((in_force.catalog.timezone.clone(), in_force.catalog.zone.clone()));
    let today = now.to_zoned(zone.clone()).date();
    let day = match on {
        Some(day) => day,
        None => today.yesterday()?,
    };
    if day > today {
        return Err(HandshakeError::Future);
    }
    let census = census::census(tx, tenant).await?;
    let end = day.tomorrow()?.to_zoned(zone)?.timestamp();
    let at = end.checked_sub(jiff::Span::new().microseconds(1))?.min(now);
    Ok(HandshakeDay { day, timezone, provisional: now < end, tree: Tree::of(&census, source, at, day) })
}
