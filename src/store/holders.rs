//! Who holds a MAC, RADIUS username, mailbox address, static address or phone number, now and before. Unique in the
//! whole installation among the living; the history is what usage is attributed by.

use super::many::{Many, Of};
use super::quarantine::{self, Kept};
use super::{StoreError, Tx, on};
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

/// Something an account holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRow {
    pub id: i64,
    pub account_id: i64,
    pub kind: HeldKind,
    pub value: String,
    pub service_id: Option<i64>,
}

/// Something an account must hold from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<'a> {
    pub kind: HeldKind,
    pub value: &'a str,
    pub account_id: i64,
    /// Row of the service it belongs to; usage goes there.
    pub service_id: Option<i64>,
}

/// Something and the account that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub kind: HeldKind,
    pub value: String,
    pub account_id: i64,
    pub tenant: String,
    pub source: String,
    pub account: String,
}

/// Why an account cannot hold what it wants.
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

static OF_ACCOUNTS: Many<1> = Many::new(
    [("account", Of::Integer)],
    "SELECT id, account_id, kind, value, service_id FROM new CROSS JOIN holder
     WHERE account_id = new.account AND until_at IS NULL
     ORDER BY id",
);
static HOLDERS: Many<2> = Many::new(
    [("kind", Of::Text), ("value", Of::Text)],
    "SELECT holder.kind, holder.value, holder.account_id, account.tenant, account.source, account.external_id
     FROM new CROSS JOIN holder CROSS JOIN account
     WHERE holder.kind = new.kind AND holder.value = new.value AND holder.until_at IS NULL
       AND account.id = holder.account_id
     ORDER BY holder.kind, holder.value",
);
const OF_SOURCE: &str = "SELECT account.external_id, service.external_id
     FROM holder JOIN account ON account.id = holder.account_id LEFT JOIN service ON service.id = holder.service_id
     WHERE holder.kind = $1 AND holder.value = $2 AND holder.until_at IS NULL AND account.tenant = $3
       AND account.source = $4";
static RELEASE: Many<2> = Many::new(
    [("id", Of::Integer), ("at", Of::Integer)],
    "UPDATE holder SET until_at = new.at FROM new WHERE holder.id = new.id",
);
const RELEASE_ALL: &str = "UPDATE holder SET until_at = $2 WHERE account_id = $1 AND until_at IS NULL";
static CLAIM: Many<5> = Many::new(
    [
        ("kind", Of::Text),
        ("value", Of::Text),
        ("account_id", Of::Integer),
        ("service_id", Of::Integer),
        ("at", Of::Integer),
    ],
    "INSERT INTO holder (kind, value, account_id, service_id, from_at)
     SELECT kind, value, account_id, service_id, at FROM new",
);
const LAST_OF_ACCOUNT: &str = "SELECT until_at FROM holder
     WHERE kind = $1 AND value = $2 AND account_id = $3 ORDER BY until_at IS NULL DESC, until_at DESC LIMIT 1";

/// The account of a source that holds something now, and its service that it belongs to, by their external ids.
pub async fn of_source(
    tx: &mut Tx,
    (tenant, source): (&str, &str),
    kind: HeldKind,
    value: &str,
) -> Result<Option<(String, Option<String>)>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(OF_SOURCE)
        .bind(kind.as_str())
        .bind(value)
        .bind(tenant)
        .bind(source)
        .fetch_optional(c)
        .await)?)
}

/// What accounts hold now.
pub async fn of_accounts(tx: &mut Tx, accounts: &[i64]) -> Result<Vec<HeldRow>, StoreError> {
    type Row = (i64, i64, String, String, Option<i64>);
    let rows: Vec<Row> = OF_ACCOUNTS.fetch(tx, accounts.iter().map(|id| [(*id).into()]).collect()).await?;
    let held = |(id, account_id, kind, value, service_id): Row| {
        Ok(HeldRow { id, account_id, kind: kind_of(&kind, &value)?, value, service_id })
    };
    rows.into_iter().map(held).collect()
}

/// Who holds any of these now, by kind and value.
pub async fn who_holds(tx: &mut Tx, wanted: &[(HeldKind, &str)]) -> Result<Vec<Taken>, StoreError> {
    type Row = (String, String, i64, String, String, String);
    let rows = wanted.iter().map(|(kind, value)| [kind.as_str().into(), (*value).into()]);
    let rows: Vec<Row> = HOLDERS.fetch(tx, rows.collect()).await?;
    let taken = |(kind, value, account_id, tenant, source, account): Row| {
        Ok(Taken { kind: kind_of(&kind, &value)?, value, account_id, tenant, source, account })
    };
    rows.into_iter().map(taken).collect()
}

/// Releases rows, by their ids.
pub async fn release(tx: &mut Tx, ids: &[i64], now: Timestamp) -> Result<(), StoreError> {
    RELEASE.execute(tx, ids.iter().map(|id| [(*id).into(), to_micros(now).into()]).collect()).await
}

/// Makes accounts hold what nobody holds.
///
/// **Errors**: `Conflict` when another transaction was a moment faster.
pub async fn claim(tx: &mut Tx, claims: &[Claim<'_>], now: Timestamp) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(claims.len());
    for Claim { kind, value, account_id, service_id } in claims {
        let (kind, value) = (kind.as_str().into(), (*value).into());
        rows.push([kind, value, (*account_id).into(), (*service_id).into(), to_micros(now).into()]);
    }
    CLAIM.execute(tx, rows).await
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

fn kind_of(kind: &str, value: &str) -> Result<HeldKind, StoreError> {
    let known = HeldKind::ALL.into_iter().find(|known| known.as_str() == kind);
    known.ok_or_else(|| StoreError::Corrupt { table: "holder", column: "kind", id: format!("of {value}") })
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
