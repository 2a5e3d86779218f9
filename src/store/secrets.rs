//! Recoverable secrets of accounts (RADIUS and mailbox passwords), sealed to the place they stand at. They come in with
//! a push and are opened only by the provisioner, at the moment it applies them.

use std::collections::HashMap;

use super::many::{Many, Of};
use super::{Sealer, StoreError, Tx, on};
use crate::account::SecretDigests;
use crate::provision::ElementKind;
use crate::vocabulary::{Secret, Timestamp, to_micros};

/// Where a secret stands.
///
/// **Shape**: `service` is the service's external id, `field` for example `radius.password`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretPlace<'a> {
    pub tenant: &'a str,
    pub account_id: i64,
    pub service: &'a str,
    pub field: &'a str,
}

static PUT: Many<6> = Many::new(
    [
        ("account_id", Of::Integer),
        ("service", Of::Text),
        ("field", Of::Text),
        ("sealed", Of::Octets),
        ("digest", Of::Text),
        ("at", Of::Integer),
    ],
    "INSERT INTO secret (account_id, service, field, sealed, digest, updated_at)
     SELECT account_id, service, field, sealed, digest, at FROM new WHERE TRUE
     ON CONFLICT (account_id, service, field) DO UPDATE
     SET sealed = excluded.sealed, digest = excluded.digest, updated_at = excluded.updated_at",
);
const OPEN: &str = "SELECT sealed, digest FROM secret WHERE account_id = $1 AND service = $2 AND field = $3";
const OF_ELEMENTS: &str =
    "SELECT DISTINCT element.tenant, secret.account_id, secret.service, secret.field, secret.sealed
     FROM element JOIN secret ON secret.account_id = element.account_id
     WHERE element.kind = $1 AND element.id > $2 AND element.id <= $3 AND secret.field LIKE 'lines.%'
     ORDER BY secret.account_id, secret.service, secret.field LIMIT 1000000";
static REMOVE: Many<3> = Many::new(
    [("account_id", Of::Integer), ("service", Of::Text), ("field", Of::Text)],
    "DELETE FROM secret WHERE (account_id, service, field) IN (SELECT account_id, service, field FROM new)",
);
const REMOVE_OF_ACCOUNT: &str = "DELETE FROM secret WHERE account_id = $1";
static DIGESTS: Many<1> = Many::new(
    [("id", Of::Integer)],
    "SELECT secret.account_id, secret.service, secret.field, secret.digest
     FROM new CROSS JOIN secret WHERE secret.account_id = new.id",
);

/// A secret to be stored; `digest` is the keyed hash by which a change shows.
#[derive(Clone, Copy)]
pub struct Put<'a> {
    pub place: SecretPlace<'a>,
    pub secret: &'a Secret,
    pub digest: &'a str,
}

/// Seals and stores secrets, each in place of the one that stood there.
pub async fn put(tx: &mut Tx, sealer: &Sealer, secrets: &[Put<'_>], now: Timestamp) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(secrets.len());
    for Put { place, secret, digest } in secrets {
        let sealed = sealer.seal(&bound_to(*place), secret)?;
        let [service, field, digest] = [place.service, place.field, digest].map(Into::into);
        rows.push([place.account_id.into(), service, field, sealed.into(), digest, to_micros(now).into()]);
    }
    PUT.execute(tx, rows).await
}

/// Opens a secret. `None`: none stands there.
///
/// **Errors**: `Corrupt` when it was sealed with another key or for another place; it must be pushed again.
pub async fn open(tx: &mut Tx, sealer: &Sealer, place: SecretPlace<'_>) -> Result<Option<Secret>, StoreError> {
    Ok(open_named(tx, sealer, place).await?.map(|(secret, _)| secret))
}

/// As `open`, with the digest under which it was put: the one that content names it by.
pub async fn open_named(
    tx: &mut Tx,
    sealer: &Sealer,
    place: SecretPlace<'_>,
) -> Result<Option<(Secret, String)>, StoreError> {
    let row: Option<(Vec<u8>, String)> = on!(tx, c => sqlx::query_as(OPEN)
        .bind(place.account_id)
        .bind(place.service)
        .bind(place.field)
        .fetch_optional(c)
        .await)?;
    row.map(|(sealed, digest)| Ok((sealer.open(&bound_to(place), &sealed)?, digest))).transpose()
}

/// The SIP passwords of the accounts that elements of a kind with ids in (`after`, `last`] belong to, by account, service
/// and field. What does not open is left out, for one row must not hide the others.
pub async fn open_of_elements(
    tx: &mut Tx,
    sealer: &Sealer,
    kind: ElementKind,
    after: i64,
    last: i64,
) -> Result<HashMap<(i64, String, String), Secret>, StoreError> {
    let rows: Vec<(String, i64, String, String, Vec<u8>)> = on!(tx, c => sqlx::query_as(OF_ELEMENTS)
        .bind(kind.as_str())
        .bind(after)
        .bind(last)
        .fetch_all(c)
        .await)?;
    let open = |(tenant, account_id, service, field, sealed): (String, i64, String, String, Vec<u8>)| {
        let place = SecretPlace { tenant: &tenant, account_id, service: &service, field: &field };
        let secret = sealer.open(&bound_to(place), &sealed).ok()?;
        Some(((account_id, service, field), secret))
    };
    Ok(rows.into_iter().filter_map(open).collect())
}

/// Removes secrets; nothing happens where none stands.
pub async fn remove(tx: &mut Tx, places: &[SecretPlace<'_>]) -> Result<(), StoreError> {
    let rows = places.iter().map(|place| [place.account_id.into(), place.service.into(), place.field.into()]);
    REMOVE.execute(tx, rows.collect()).await
}

/// Removes all secrets of an account.
pub async fn remove_all(tx: &mut Tx, account_id: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(REMOVE_OF_ACCOUNT).bind(account_id).execute(c).await.map(drop))?;
    Ok(())
}

/// The digests of every secret of accounts, by account; one that has none is absent.
pub async fn digests(tx: &mut Tx, accounts: &[i64]) -> Result<HashMap<i64, SecretDigests>, StoreError> {
    let rows: Vec<(i64, String, String, String)> =
        DIGESTS.fetch(tx, accounts.iter().map(|id| [(*id).into()]).collect()).await?;
    let mut digests: HashMap<i64, SecretDigests> = HashMap::new();
    for (account_id, service, field, digest) in rows {
        digests.entry(account_id).or_default().insert((service, field), digest);
    }
    Ok(digests)
}

/// The associated data a secret is sealed with: a row copied elsewhere does not open.
fn bound_to(place: SecretPlace<'_>) -> String {
    format!("{}\u{0}secret\u{0}{}\u{0}{}\u{0}{}", place.tenant, place.account_id, place.service, place.field)
}
