//! Who holds a MAC, RADIUS username, mailbox address, static address or phone number, now and before. Unique in the
//! whole installation among the living; the history is what usage is attributed by.

use std::collections::BTreeMap;

use super::quarantine::{self, Kept};
use super::{StoreError, Tx, domains, on};
use crate::account::QuarantineDays;
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// What can be held. The text form is the `kind` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeldKind {
    Mac,
    Username,
    Mailbox,
    Address,
    Number,
}

/// Something an account must hold from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub kind: HeldKind,
    pub value: String,
    /// Row of the service it belongs to; usage goes there.
    pub service_id: Option<i64>,
}

/// The other account that holds it already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub kind: HeldKind,
    pub value: String,
    pub tenant: String,
    pub source: String,
    pub account: String,
}

/// Why an account cannot hold what it wants; then the caller must undo the transaction, or its savepoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    pub taken: Vec<Taken>,
    /// Given up by another account not long ago.
    pub kept: Vec<Kept>,
    /// Mail domains of another tenant.
    pub domains: Vec<String>,
}

impl Refused {
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.kept.is_empty() && self.domains.is_empty()
    }
}

/// Whose holders are settled.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    pub account_id: i64,
    pub tenant: &'a str,
    pub new_account: bool,
    /// For how long what it gives up is kept from others.
    pub quarantine: QuarantineDays,
}

const OF_ACCOUNT: &str = "SELECT id, kind, value, service_id FROM holder
     WHERE account_id = $1 AND until_at IS NULL ORDER BY id LIMIT 10000";
const RELEASE: &str = "UPDATE holder SET until_at = $2 WHERE id = $1";
const RELEASE_ALL: &str = "UPDATE holder SET until_at = $2 WHERE account_id = $1 AND until_at IS NULL";
const CLAIM_SQLITE: &str = "INSERT INTO holder (kind, value, account_id, service_id, from_at)
     SELECT json_extract(wanted.value, '$[0]'), json_extract(wanted.value, '$[1]'), ?, json_extract(wanted.value, '$[2]'), ?
     FROM json_each(?) AS wanted WHERE TRUE
     ON CONFLICT (kind, value) WHERE until_at IS NULL DO NOTHING
     RETURNING kind, value";
const CLAIM_POSTGRES: &str = "INSERT INTO holder (kind, value, account_id, service_id, from_at)
     SELECT wanted.kind, wanted.value, $1, wanted.service_id, $2
     FROM UNNEST($3::TEXT[], $4::TEXT[], $5::BIGINT[]) AS wanted (kind, value, service_id)
     ON CONFLICT (kind, value) WHERE until_at IS NULL DO NOTHING
     RETURNING kind, value";
const LAST_OF_ACCOUNT: &str = "SELECT until_at FROM holder
     WHERE kind = $1 AND value = $2 AND account_id = $3 ORDER BY until_at IS NULL DESC, until_at DESC LIMIT 1";
const HOLDER: &str = "SELECT account.tenant, account.source, account.external_id
     FROM holder JOIN account ON account.id = holder.account_id
     WHERE holder.kind = $1 AND holder.value = $2 AND holder.until_at IS NULL";

/// Makes `wanted` what the account holds: the rest is released, what is missing is claimed.
pub async fn settle(tx: &mut Tx, holding: Holding<'_>, wanted: &[Held], now: Timestamp) -> Result<Refused, StoreError> {
    let Holding { account_id, tenant, new_account, quarantine } = holding;
    let mut missing: BTreeMap<(&str, &str), Option<i64>> =
        wanted.iter().map(|held| ((held.kind.as_str(), held.value.as_str()), held.service_id)).collect();
    let held: Vec<(i64, String, String, Option<i64>)> = match new_account {
        true => Vec::new(),
        false => on!(tx, c => sqlx::query_as(OF_ACCOUNT).bind(account_id).fetch_all(c).await)?,
    };
    let mut given_up = Vec::new();
    for (id, kind, value, service_id) in &held {
        let place = (kind.as_str(), value.as_str());
        if missing.get(&place) == Some(service_id) {
            missing.remove(&place);
            continue;
        }
        if quarantine::is_kept(kind) && !missing.contains_key(&place) {
            given_up.push(place);
        }
        on!(tx, c => sqlx::query(RELEASE).bind(*id).bind(to_micros(now)).execute(c).await.map(drop))?;
    }
    quarantine::keep(tx, account_id, tenant, &given_up, quarantine, now).await?;
    if missing.is_empty() {
        return Ok(Refused::default());
    }
    let claimed = claim(tx, account_id, &missing, now).await?;
    let mut taken = Vec::new();
    for (kind, value) in missing.keys().filter(|(kind, value)| !claimed.iter().any(|(k, v)| k == kind && v == value)) {
        let holder: Option<(String, String, String)> =
            on!(tx, c => sqlx::query_as(HOLDER).bind(*kind).bind(*value).fetch_optional(c).await)?;
        let (tenant, source, account) =
            holder.ok_or_else(|| StoreError::Unavailable("another push is releasing the same holder".to_owned()))?;
        let kind = HeldKind::ALL.into_iter().find(|known| known.as_str() == *kind).unwrap_or(HeldKind::Mac);
        taken.push(Taken { kind, value: (*value).to_owned(), tenant, source, account });
    }
    // After claiming: whoever gave one up at the same time has committed by now, and what it left is seen.
    let claims: Vec<(&str, &str)> = missing.into_keys().filter(|(kind, _)| quarantine::is_kept(kind)).collect();
    let kept = quarantine::barred(tx, account_id, &claims, now).await?;
    let mailboxes = claims.iter().filter(|(kind, _)| *kind == HeldKind::Mailbox.as_str());
    let of_mail = mailboxes.filter_map(|(_, address)| address.rsplit_once('@')).map(|(_, domain)| domain).collect();
    let domains = domains::foreign(tx, tenant, &of_mail).await?;
    Ok(Refused { taken, kept, domains })
}

/// When an account gave something up, the last time. `None`: it never held it, or holds it.
pub async fn given_up_at(
    tx: &mut Tx,
    kind: HeldKind,
    value: &str,
    account_id: i64,
) -> Result<Option<Timestamp>, StoreError> {
    let until: Option<Option<i64>> = on!(tx, c => sqlx::query_scalar(LAST_OF_ACCOUNT)
        .bind(kind.as_str())
        .bind(value)
        .bind(account_id)
        .fetch_optional(c)
        .await)?;
    Ok(until.flatten().and_then(from_micros))
}

/// Releases everything an account holds.
pub async fn release_all(
    tx: &mut Tx,
    account_id: i64,
    tenant: &str,
    days: QuarantineDays,
    now: Timestamp,
) -> Result<(), StoreError> {
    quarantine::keep_all(tx, account_id, tenant, days, now).await?;
    on!(tx, c => sqlx::query(RELEASE_ALL).bind(account_id).bind(to_micros(now)).execute(c).await.map(drop))?;
    Ok(())
}

async fn claim(
    tx: &mut Tx,
    account_id: i64,
    missing: &BTreeMap<(&str, &str), Option<i64>>,
    now: Timestamp,
) -> Result<Vec<(String, String)>, StoreError> {
    match tx {
        Tx::Sqlite(held) => {
            let rows: Vec<(&str, &str, Option<i64>)> =
                missing.iter().map(|((kind, value), service)| (*kind, *value, *service)).collect();
            let rows = serde_json::json!(rows).to_string();
            let query = sqlx::query_as(CLAIM_SQLITE).bind(account_id).bind(to_micros(now)).bind(rows);
            Ok(query.fetch_all(&mut *held.transaction).await?)
        }
        Tx::Postgres(transaction) => {
            let kinds: Vec<&str> = missing.keys().map(|(kind, _)| *kind).collect();
            let values: Vec<&str> = missing.keys().map(|(_, value)| *value).collect();
            let services: Vec<Option<i64>> = missing.values().copied().collect();
            let query = sqlx::query_as(CLAIM_POSTGRES).bind(account_id).bind(to_micros(now));
            Ok(query.bind(kinds).bind(values).bind(services).fetch_all(&mut **transaction).await?)
        }
    }
}

impl HeldKind {
    pub const ALL: [HeldKind; 5] =
        [HeldKind::Mac, HeldKind::Username, HeldKind::Mailbox, HeldKind::Address, HeldKind::Number];

    pub fn as_str(self) -> &'static str {
        match self {
            HeldKind::Mac => "mac",
            HeldKind::Username => "username",
            HeldKind::Mailbox => "mailbox",
            HeldKind::Address => "address",
            HeldKind::Number => "number",
        }
    }

    /// The word for a person.
    pub fn title(self) -> &'static str {
        match self {
            HeldKind::Mac => "MAC address",
            HeldKind::Username => "RADIUS username",
            HeldKind::Mailbox => "mailbox address",
            HeldKind::Address => "static address",
            HeldKind::Number => "phone number",
        }
    }
}
