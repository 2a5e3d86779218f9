//! Recoverable secrets of accounts (RADIUS and mailbox passwords), sealed to the place they stand at. They come in with
//! a push and are opened only by the provisioner, at the moment it applies them.

use std::collections::HashMap;

use super::{Sealer, StoreError, Tx, on};
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

const PUT: &str = "INSERT INTO secret (account_id, service, field, sealed, digest, updated_at)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (account_id, service, field) DO UPDATE
     SET sealed = excluded.sealed, digest = excluded.digest, updated_at = excluded.updated_at";
const OPEN: &str = "SELECT sealed, digest FROM secret WHERE account_id = $1 AND service = $2 AND field = $3";
const OF_ELEMENTS: &str =
    "SELECT DISTINCT element.tenant, secret.account_id, secret.service, secret.field, secret.sealed
     FROM element JOIN secret ON secret.account_id = element.account_id
     WHERE element.kind = $1 AND element.id > $2 AND element.id <= $3 AND secret.field LIKE 'lines.%'
     ORDER BY secret.account_id, secret.service, secret.field LIMIT 1000000";
const REMOVE: &str = "DELETE FROM secret WHERE account_id = $1 AND service = $2 AND field = $3";
const REMOVE_OF_ACCOUNT: &str = "DELETE FROM secret WHERE account_id = $1";
const DIGESTS: &str =
    "SELECT service, field, digest FROM secret WHERE account_id = $1 ORDER BY service, field LIMIT 10000";

/// Seals and stores a secret, in place of the one that stood there. `digest` is the keyed hash by which a change shows.
pub async fn put(
    tx: &mut Tx,
    sealer: &Sealer,
    place: SecretPlace<'_>,
    secret: &Secret,
    digest: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sealed = sealer.seal(&bound_to(place), secret)?;
    on!(tx, c => sqlx::query(PUT)
        .bind(place.account_id)
        .bind(place.service)
        .bind(place.field)
        .bind(&sealed)
        .bind(digest)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
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

/// Removes a secret; nothing happens when none stands there.
pub async fn remove(tx: &mut Tx, place: SecretPlace<'_>) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(REMOVE)
        .bind(place.account_id)
        .bind(place.service)
        .bind(place.field)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Removes all secrets of an account.
pub async fn remove_all(tx: &mut Tx, account_id: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(REMOVE_OF_ACCOUNT).bind(account_id).execute(c).await.map(drop))?;
    Ok(())
}

/// (service, field, digest) of every secret of an account.
pub async fn digests(tx: &mut Tx, account_id: i64) -> Result<Vec<(String, String, String)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(DIGESTS).bind(account_id).fetch_all(c).await)?)
}

/// The associated data a secret is sealed with: a row copied elsewhere does not open.
fn bound_to(place: SecretPlace<'_>) -> String {
    format!("{}\u{0}secret\u{0}{}\u{0}{}\u{0}{}", place.tenant, place.account_id, place.service, place.field)
}
