//! What the fold reads and writes besides sessions and the ledger: watermarks, NAS identities and who holds a user name.

use std::collections::HashMap;

use sqlx::FromRow;

use super::bulk::{Bulk, Values};
use super::sessions::{Owner, json};
use super::{StoreError, Tx, on};
use crate::vocabulary::{Timestamp, to_micros};

/// What is known of a NAS identity across its sessions.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Identity {
    pub nas: String,
    /// It sent Gigawords at some time: its counters never wrap.
    pub gigawords: bool,
    /// Event time of its newest Accounting-On or -Off.
    pub rebooted_at: Option<i64>,
    /// The reboot up to which all older sessions are closed.
    pub swept_at: Option<i64>,
    pub first_seen_at: i64,
    pub last_seen_at: i64,
}

/// Somebody who holds or held a RADIUS user name, an address or a MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `username`, `address` or `mac`.
    pub kind: String,
    pub value: String,
    pub owner: Owner,
    pub tenant: String,
    pub from_at: i64,
    pub until_at: Option<i64>,
}

const WATERMARKS: &str = "SELECT lane, seq FROM fold_watermark ORDER BY lane LIMIT 100000";
const WATERMARK: &str = "SELECT seq FROM fold_watermark WHERE lane = $1";
const MOVE_WATERMARK: &str = "INSERT INTO fold_watermark (lane, seq, updated_at) VALUES ($1, $2, $3)
     ON CONFLICT (lane) DO UPDATE SET seq = excluded.seq, updated_at = excluded.updated_at";
const TAKE_TURN: &str =
    "UPDATE fold_claim SET epoch = epoch + 1, renewed_at = $2 WHERE id = 1 AND owner = $1 RETURNING epoch";
const CLAIM: &str = "SELECT owner, renewed_at FROM fold_claim WHERE id = 1";
const TAKE_OVER: &str = "UPDATE fold_claim SET owner = $1, epoch = epoch + 1, renewed_at = $2
     WHERE id = 1 AND owner = $3 AND renewed_at = $4 RETURNING epoch";
const RELEASE: &str = "UPDATE fold_claim SET owner = '', epoch = epoch + 1 WHERE id = 1 AND owner = $1";
const INTERRUPT: &str = "UPDATE fold_claim SET epoch = epoch + 1 WHERE id = 1";
const HOLD_STILL: &str = "SELECT id FROM fold_claim WHERE id = 1 FOR SHARE";
const IDENTITIES_SQLITE: &str = "SELECT nas, gigawords, rebooted_at, swept_at, first_seen_at, last_seen_at
     FROM json_each($1) AS key CROSS JOIN nas_identity ON nas_identity.nas = key.value ORDER BY nas";
const IDENTITIES_POSTGRES: &str = "SELECT nas, gigawords, rebooted_at, swept_at, first_seen_at, last_seen_at
     FROM nas_identity WHERE nas = ANY($1) ORDER BY nas";
const UNSWEPT: &str = "SELECT nas, gigawords, rebooted_at, swept_at, first_seen_at, last_seen_at FROM nas_identity
     WHERE rebooted_at IS NOT NULL AND (swept_at IS NULL OR swept_at < rebooted_at) ORDER BY nas LIMIT $1";
const SWEPT: &str = "UPDATE nas_identity SET swept_at = $2 WHERE nas = $1";
macro_rules! save_identity_tail {
    () => {
        " ON CONFLICT (nas) DO UPDATE SET gigawords = excluded.gigawords, rebooted_at = excluded.rebooted_at,
            swept_at = excluded.swept_at, last_seen_at = excluded.last_seen_at"
    };
}
static SAVE_IDENTITIES_SQLITE: Bulk = Bulk::new(
    "INSERT INTO nas_identity (nas, gigawords, rebooted_at, swept_at, first_seen_at, last_seen_at)",
    6,
    save_identity_tail!(),
);
const SAVE_IDENTITIES_POSTGRES: &str = concat!(
    "INSERT INTO nas_identity (nas, gigawords, rebooted_at, swept_at, first_seen_at, last_seen_at)
     SELECT * FROM UNNEST($1::TEXT[], $2::BOOLEAN[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[])",
    save_identity_tail!()
);
const KEYED_SQLITE: &str = "SELECT holder.kind, holder.value, holder.account_id, holder.service_id, account.tenant,
        holder.from_at, holder.until_at
     FROM json_each($1) AS key CROSS JOIN holder
       ON holder.kind = key.value ->> 0 AND holder.value = key.value ->> 1
     JOIN account ON account.id = holder.account_id
     WHERE holder.service_id IS NOT NULL ORDER BY holder.from_at, holder.id";
// OFFSET keeps the planner from beginning with the table, which it takes for empty until it was analysed.
const KEYED_POSTGRES: &str = "SELECT holder.kind, holder.value, holder.account_id, holder.service_id, account.tenant,
        holder.from_at, holder.until_at
     FROM UNNEST($1::TEXT[], $2::TEXT[]) AS key (kind, value) CROSS JOIN LATERAL
       (SELECT * FROM holder AS held WHERE held.kind = key.kind AND held.value = key.value OFFSET 0) AS holder
     JOIN account ON account.id = holder.account_id
     WHERE holder.service_id IS NOT NULL ORDER BY holder.from_at, holder.id";
const HOLDERS_SQLITE: &str = "SELECT holder.kind, holder.value, holder.account_id, holder.service_id, account.tenant,
        holder.from_at, holder.until_at
     FROM json_each($1) AS name CROSS JOIN holder
       ON holder.kind = 'username' AND LOWER(holder.value) = LOWER(name.value)
     JOIN account ON account.id = holder.account_id
     WHERE holder.service_id IS NOT NULL ORDER BY holder.from_at, holder.id";
const HOLDERS_POSTGRES: &str = "SELECT holder.kind, holder.value, holder.account_id, holder.service_id, account.tenant,
        holder.from_at, holder.until_at
     FROM UNNEST($1::TEXT[]) AS name CROSS JOIN LATERAL
       (SELECT * FROM holder AS held WHERE held.kind = 'username' AND LOWER(held.value) = LOWER(name) OFFSET 0) AS holder
     JOIN account ON account.id = holder.account_id
     WHERE holder.service_id IS NOT NULL ORDER BY holder.from_at, holder.id";
const CYCLES_SQLITE: &str = "SELECT account.id, account.tenant, account.bill_cycle
     FROM json_each($1) AS key CROSS JOIN account ON account.id = key.value ORDER BY account.id";
const CYCLES_POSTGRES: &str =
    "SELECT account.id, account.tenant, account.bill_cycle FROM account WHERE id = ANY($1) ORDER BY account.id";

const ON_PLANS_SQLITE: &str = "SELECT service.account_id, service.plan
     FROM json_each($1) AS key CROSS JOIN service ON service.account_id = key.value
     WHERE service.plan IN (SELECT value FROM json_each($2)) ORDER BY service.id";
const ON_PLANS_POSTGRES: &str = "SELECT account_id, plan FROM service
     WHERE account_id = ANY($1) AND plan = ANY($2) ORDER BY id";
const TYPES_SQLITE: &str = "SELECT service.id, service.type
     FROM json_each($1) AS key CROSS JOIN service ON service.id = key.value ORDER BY service.id";
const TYPES_POSTGRES: &str = "SELECT id, type FROM service WHERE id = ANY($1) ORDER BY id";

/// Begins a folding transaction of `owner`: nobody else folds until it ends. Gives the claim's epoch, one more than at
/// the last such transaction of anybody; `None` when `owner` does not hold the claim.
pub async fn take_turn(tx: &mut Tx, owner: &str, now: Timestamp) -> Result<Option<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(TAKE_TURN).bind(owner).bind(to_micros(now)).fetch_optional(c).await)?)
}

/// Who holds the claim, empty when nobody does, and when they last took a turn.
pub async fn claim(tx: &mut Tx) -> Result<(String, i64), StoreError> {
    Ok(on!(tx, c => sqlx::query_as(CLAIM).fetch_one(c).await)?)
}

/// Takes the claim from a holder that stood still since `seen`. Gives its epoch; `None` when the holder moved.
pub async fn take_over(tx: &mut Tx, owner: &str, seen: (&str, i64), now: Timestamp) -> Result<Option<i64>, StoreError> {
    let epoch = on!(tx, c => sqlx::query_scalar(TAKE_OVER)
        .bind(owner)
        .bind(to_micros(now))
        .bind(seen.0)
        .bind(seen.1)
        .fetch_optional(c)
        .await)?;
    Ok(epoch)
}

/// Gives the claim back, so that another process need not wait for it to expire.
pub async fn release(tx: &mut Tx, owner: &str) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(RELEASE).bind(owner).execute(c).await.map(drop))?;
    Ok(())
}

/// For whoever else writes sessions or the ledger: waits until a fold's transaction has ended, keeps the next one
/// waiting, and tells it that what it remembers is outdated.
pub async fn interrupt(tx: &mut Tx) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(INTERRUPT).execute(c).await.map(drop))?;
    Ok(())
}

/// For whoever reads sessions and the ledger in several statements of a transaction that writes something else: no fold
/// commits until it ends. On SQLite nobody else writes meanwhile anyway.
pub async fn hold_still(tx: &mut Tx) -> Result<(), StoreError> {
    if let Tx::Postgres(transaction) = tx {
        sqlx::query(HOLD_STILL).execute(&mut **transaction).await?;
    }
    Ok(())
}

/// Up to where each lane is folded; a lane without a row is not begun.
pub async fn watermarks(tx: &mut Tx) -> Result<HashMap<i64, i64>, StoreError> {
    let rows: Vec<(i64, i64)> = on!(tx, c => sqlx::query_as(WATERMARKS).fetch_all(c).await)?;
    Ok(rows.into_iter().collect())
}

/// Up to where one lane is folded; 0 when it is not begun.
pub async fn watermark(tx: &mut Tx, lane: i64) -> Result<i64, StoreError> {
    let seq: Option<i64> = on!(tx, c => sqlx::query_scalar(WATERMARK).bind(lane).fetch_optional(c).await)?;
    Ok(seq.unwrap_or(0))
}

/// Says that a lane is folded up to `seq`.
pub async fn move_watermark(tx: &mut Tx, lane: i64, seq: i64, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(MOVE_WATERMARK).bind(lane).bind(seq).bind(to_micros(now)).execute(c).await.map(drop))?;
    Ok(())
}

/// What is known of these identities.
pub async fn identities(tx: &mut Tx, names: &[&str]) -> Result<Vec<Identity>, StoreError> {
    Ok(match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(IDENTITIES_SQLITE).bind(json(&names)).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(IDENTITIES_POSTGRES).bind(names).fetch_all(&mut **transaction).await?
        }
    })
}

/// Writes new and changed identities.
pub async fn save_identities(tx: &mut Tx, identities: &[&Identity]) -> Result<(), StoreError> {
    if identities.is_empty() {
        return Ok(());
    }
    match tx {
        Tx::Sqlite(held) => {
            let put = |identity: &&Identity, row: &mut Values| {
                row.put(identity.nas.as_str()).put(identity.gigawords);
                row.put(identity.rebooted_at).put(identity.swept_at);
                row.put(identity.first_seen_at).put(identity.last_seen_at);
            };
            SAVE_IDENTITIES_SQLITE.execute(held, identities, put).await?;
        }
        Tx::Postgres(transaction) => {
            sqlx::query(SAVE_IDENTITIES_POSTGRES)
                .bind(identities.iter().map(|identity| identity.nas.as_str()).collect::<Vec<_>>())
                .bind(identities.iter().map(|identity| identity.gigawords).collect::<Vec<_>>())
                .bind(identities.iter().map(|identity| identity.rebooted_at).collect::<Vec<_>>())
                .bind(identities.iter().map(|identity| identity.swept_at).collect::<Vec<_>>())
                .bind(identities.iter().map(|identity| identity.first_seen_at).collect::<Vec<_>>())
                .bind(identities.iter().map(|identity| identity.last_seen_at).collect::<Vec<_>>())
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Identities that rebooted and have older sessions that may still be open.
pub async fn unswept(tx: &mut Tx, limit: i64) -> Result<Vec<Identity>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(UNSWEPT).bind(limit).fetch_all(c).await)?)
}

/// Says that no session of the identity from before this reboot is open.
pub async fn mark_swept(tx: &mut Tx, nas: &str, rebooted_at: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(SWEPT).bind(nas).bind(rebooted_at).execute(c).await.map(drop))?;
    Ok(())
}

/// Everybody who holds or held one of these user names, whatever their case, oldest first.
pub async fn holders_of(tx: &mut Tx, names: &[&str]) -> Result<Vec<Holder>, StoreError> {
    let rows: Vec<HolderRow> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(HOLDERS_SQLITE).bind(json(&names)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => sqlx::query_as(HOLDERS_POSTGRES).bind(names).fetch_all(&mut **transaction).await?,
    };
    Ok(rows.into_iter().map(Holder::from).collect())
}

/// Everybody who holds or held one of these (kind, value), oldest first.
pub async fn holders_keyed(tx: &mut Tx, keys: &[(&str, &str)]) -> Result<Vec<Holder>, StoreError> {
    let rows: Vec<HolderRow> = match tx {
        Tx::Sqlite(held) => sqlx::query_as(KEYED_SQLITE).bind(json(&keys)).fetch_all(&mut *held.transaction).await?,
        Tx::Postgres(transaction) => {
            let (kinds, values): (Vec<&str>, Vec<&str>) = keys.iter().copied().unzip();
            sqlx::query_as(KEYED_POSTGRES).bind(kinds).bind(values).fetch_all(&mut **transaction).await?
        }
    };
    Ok(rows.into_iter().map(Holder::from).collect())
}

type HolderRow = (String, String, i64, i64, String, i64, Option<i64>);

impl From<HolderRow> for Holder {
    fn from((kind, value, account_id, service_id, tenant, from_at, until_at): HolderRow) -> Self {
        Self { kind, value, owner: Owner { account_id, service_id }, tenant, from_at, until_at }
    }
}

/// (account, plan) of the services of these accounts that have one of these plans now.
pub async fn accounts_on_plans(
    tx: &mut Tx,
    account_ids: &[i64],
    plans: &[&str],
) -> Result<Vec<(i64, String)>, StoreError> {
    Ok(match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(ON_PLANS_SQLITE)
                .bind(json(&account_ids))
                .bind(json(&plans))
                .fetch_all(&mut *held.transaction)
                .await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(ON_PLANS_POSTGRES).bind(account_ids).bind(plans).fetch_all(&mut **transaction).await?
        }
    })
}

/// What type these services are.
pub async fn service_types(tx: &mut Tx, service_ids: &[i64]) -> Result<Vec<(i64, String)>, StoreError> {
    Ok(match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(TYPES_SQLITE).bind(json(&service_ids)).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(TYPES_POSTGRES).bind(service_ids).fetch_all(&mut **transaction).await?
        }
    })
}

/// (account, tenant, bill cycle) of these accounts.
pub async fn cycles_of(tx: &mut Tx, account_ids: &[i64]) -> Result<Vec<(i64, String, String)>, StoreError> {
    Ok(match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(CYCLES_SQLITE).bind(json(&account_ids)).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(CYCLES_POSTGRES).bind(account_ids).fetch_all(&mut **transaction).await?
        }
    })
}
