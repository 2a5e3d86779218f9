//! What was given up and is kept from others for a while: mailbox addresses, so that nobody gets a predecessor's mail, phone
//! numbers, so that nobody gets a predecessor's calls, and static addresses of what was deleted, so that it can come back. The
//! account that gave one up may have it back at once.
//!
//! How long is decided when it is given up, by the tenant's catalog of that day; a later catalog changes what is given
//! up later.

use super::holders::HeldKind;
use super::many::{Many, Of};
use super::{StoreError, Tx, on};
use crate::account::QuarantineDays;
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub kind: HeldKind,
    pub value: String,
    pub tenant: String,
    /// Source and external id of the account that gave it up.
    pub source: String,
    pub account: String,
    pub account_id: i64,
    pub from_at: Timestamp,
    /// From when on everybody may have it.
    pub until_at: Timestamp,
    /// Until when it comes back as it was, a mailbox with its mail; `None`: as the mail host's rules say.
    pub recover_until: Option<Timestamp>,
    /// When an operator ended it early.
    pub released_at: Option<Timestamp>,
    pub released_by: Option<String>,
    /// Whether whoever gets the address next gets the mail in it too.
    pub with_mail: bool,
}

/// Which of them a list shows.
#[derive(Debug, Clone, Default)]
pub struct KeptFilter {
    pub tenant: Option<String>,
    pub kind: Option<HeldKind>,
    /// Also what is over or released.
    pub all: bool,
    /// Only those after this kind and value; lists are in this order.
    pub after: Option<(String, String)>,
    pub limit: i64,
}

const DAY_MICROS: i64 = 86_400_000_000;

macro_rules! select_kept_from {
    ($rest:literal) => {
        concat!(
            "SELECT quarantine.kind, quarantine.value, quarantine.tenant, account.source,
                    account.external_id AS account, quarantine.account_id, quarantine.from_at, quarantine.until_at,
                    quarantine.recover_until, quarantine.released_at, quarantine.released_by, quarantine.with_mail
             FROM ",
            $rest
        )
    };
}
macro_rules! select_kept {
    ($rest:literal) => {
        concat!(select_kept_from!("quarantine JOIN account ON account.id = quarantine.account_id "), $rest)
    };
}

static KEEP: Many<7> = Many::new(
    [
        ("kind", Of::Text),
        ("value", Of::Text),
        ("account_id", Of::Integer),
        ("tenant", Of::Text),
        ("from_at", Of::Integer),
        ("until_at", Of::Integer),
        ("recover_until", Of::Integer),
    ],
    "INSERT INTO quarantine (kind, value, account_id, tenant, from_at, until_at, recover_until)
     SELECT kind, value, account_id, tenant, from_at, until_at, recover_until FROM new WHERE TRUE
     ON CONFLICT (kind, value) DO UPDATE
     SET account_id = excluded.account_id, tenant = excluded.tenant, from_at = excluded.from_at,
         until_at = excluded.until_at, recover_until = excluded.recover_until, released_at = NULL, released_by = NULL, with_mail = FALSE",
);
// The condition is for SQLite's parser: without one it takes ON for a join's.
const KEEP_ALL: &str = "INSERT INTO quarantine (kind, value, account_id, tenant, from_at, until_at, recover_until)
     SELECT kind, value, account_id, $2, $3, CASE kind WHEN 'mailbox' THEN $4 WHEN 'number' THEN $5 ELSE $6 END, $7
     FROM holder WHERE account_id = $1 AND until_at IS NULL AND kind IN ('mailbox', 'number', 'address')
     ON CONFLICT (kind, value) DO UPDATE
     SET account_id = excluded.account_id, tenant = excluded.tenant, from_at = excluded.from_at,
         until_at = excluded.until_at, recover_until = excluded.recover_until, released_at = NULL, released_by = NULL, with_mail = FALSE";
static BACK: Many<3> = Many::new(
    [("kind", Of::Text), ("value", Of::Text), ("account_id", Of::Integer)],
    "DELETE FROM quarantine WHERE (kind, value, account_id) IN (SELECT kind, value, account_id FROM new)",
);
static BARRED: Many<3> = Many::new(
    [("kind", Of::Text), ("value", Of::Text), ("at", Of::Integer)],
    select_kept_from!(
        "new CROSS JOIN quarantine CROSS JOIN account
         WHERE account.id = quarantine.account_id AND quarantine.kind = new.kind AND quarantine.value = new.value AND quarantine.until_at > new.at
           AND quarantine.released_at IS NULL
         ORDER BY quarantine.kind, quarantine.value"
    ),
);
const ONE: &str = select_kept!("WHERE quarantine.kind = $1 AND quarantine.value = $2");
const LIST: &str = select_kept!(
    "WHERE ($1 IS NULL OR quarantine.tenant = $1)
       AND ($2 IS NULL OR quarantine.kind = $2)
       AND ($3 OR (quarantine.until_at > $4 AND quarantine.released_at IS NULL))
       AND (quarantine.kind, quarantine.value) > ($5, $6)
     ORDER BY quarantine.kind, quarantine.value LIMIT $7"
);
const RELEASE: &str = "UPDATE quarantine SET released_at = $3, released_by = $4, with_mail = $5
     WHERE kind = $1 AND value = $2 AND released_at IS NULL AND until_at > $3";

/// Something that an account gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp<'a> {
    pub kind: HeldKind,
    pub value: &'a str,
    pub account_id: i64,
    pub tenant: &'a str,
    pub days: QuarantineDays,
}

/// Whether what is given up of this kind is kept.
pub fn is_kept(kind: HeldKind) -> bool {
    matches!(kind, HeldKind::Mailbox | HeldKind::Number | HeldKind::Address)
}

/// Keeps what accounts give up now.
pub async fn keep(tx: &mut Tx, given_up: &[GivenUp<'_>], now: Timestamp) -> Result<(), StoreError> {
    let mut rows = Vec::with_capacity(given_up.len());
    for GivenUp { kind, value, account_id, tenant, days } in given_up {
        let recover_until = days.grace.map(|days| until(now, days));
        let days = match kind {
            HeldKind::Mailbox => days.mailbox,
            HeldKind::Address => days.address(),
            _ => days.number,
        };
        let [kind, value, tenant] = [kind.as_str(), value, tenant].map(Into::into);
        let until_at = until(now, days).into();
        rows.push([kind, value, (*account_id).into(), tenant, to_micros(now).into(), until_at, recover_until.into()]);
    }
    KEEP.execute(tx, rows).await
}

/// Keeps all that an account still holds, which it gives up now.
pub(super) async fn keep_all(
    tx: &mut Tx,
    account_id: i64,
    tenant: &str,
    days: QuarantineDays,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(KEEP_ALL)
        .bind(account_id)
        .bind(tenant)
        .bind(to_micros(now))
        .bind(until(now, days.mailbox))
        .bind(until(now, days.number))
        .bind(until(now, days.address()))
        .bind(days.grace.map(|days| until(now, days)))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// What of `wanted` is kept for the account it names.
pub async fn kept(tx: &mut Tx, wanted: &[(HeldKind, &str)], now: Timestamp) -> Result<Vec<Kept>, StoreError> {
    let rows = wanted.iter().map(|(kind, value)| [kind.as_str().into(), (*value).into(), to_micros(now).into()]);
    let rows: Vec<Row> = BARRED.fetch(tx, rows.collect()).await?;
    rows.into_iter().map(Kept::try_from).collect()
}

/// What accounts gave up themselves and have again is kept no longer.
pub async fn give_back(tx: &mut Tx, again: &[(HeldKind, &str, i64)]) -> Result<(), StoreError> {
    let rows = again.iter().map(|(kind, value, account)| [kind.as_str().into(), (*value).into(), (*account).into()]);
    BACK.execute(tx, rows.collect()).await
}

/// One by what it is.
pub async fn of(tx: &mut Tx, kind: HeldKind, value: &str) -> Result<Option<Kept>, StoreError> {
    let row: Option<Row> = on!(tx, c => sqlx::query_as(ONE).bind(kind.as_str()).bind(value).fetch_optional(c).await)?;
    row.map(Kept::try_from).transpose()
}

/// A page of them by kind and value.
pub async fn list(tx: &mut Tx, filter: &KeptFilter, now: Timestamp) -> Result<Vec<Kept>, StoreError> {
    let (kind, value) = filter.after.clone().unwrap_or_default();
    let rows: Vec<Row> = on!(tx, c => sqlx::query_as(LIST)
        .bind(filter.tenant.as_deref())
        .bind(filter.kind.map(HeldKind::as_str))
        .bind(filter.all)
        .bind(to_micros(now))
        .bind(kind)
        .bind(value)
        .bind(filter.limit)
        .fetch_all(c)
        .await)?;
    rows.into_iter().map(Kept::try_from).collect()
}

/// Ends one early; `with_mail` lets the next owner have the mail too. `false`: it is not kept, or not any more.
pub async fn release(
    tx: &mut Tx,
    kind: HeldKind,
    value: &str,
    by: &str,
    with_mail: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let released = on!(tx, c => sqlx::query(RELEASE)
        .bind(kind.as_str())
        .bind(value)
        .bind(to_micros(now))
        .bind(by)
        .bind(with_mail)
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    Ok(released > 0)
}

fn until(now: Timestamp, days: u32) -> i64 {
    to_micros(now).saturating_add(i64::from(days).saturating_mul(DAY_MICROS))
}

#[derive(sqlx::FromRow)]
struct Row {
    kind: String,
    value: String,
    tenant: String,
    source: String,
    account: String,
    account_id: i64,
    from_at: i64,
    until_at: i64,
    recover_until: Option<i64>,
    released_at: Option<i64>,
    released_by: Option<String>,
    with_mail: bool,
}

impl TryFrom<Row> for Kept {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column: &'static str| StoreError::Corrupt { table: "quarantine", column, id: row.value.clone() };
        let instant = |at: i64, column: &'static str| from_micros(at).ok_or_else(|| corrupt(column));
        let kind = HeldKind::ALL.into_iter().find(|known| known.as_str() == row.kind);
        Ok(Self {
            kind: kind.ok_or_else(|| corrupt("kind"))?,
            from_at: instant(row.from_at, "from_at")?,
            until_at: instant(row.until_at, "until_at")?,
            recover_until: row.recover_until.map(|at| instant(at, "recover_until")).transpose()?,
            released_at: row.released_at.map(|at| instant(at, "released_at")).transpose()?,
            value: row.value.clone(),
            tenant: row.tenant,
            source: row.source,
            account: row.account,
            account_id: row.account_id,
            released_by: row.released_by,
            with_mail: row.with_mail,
        })
    }
}
