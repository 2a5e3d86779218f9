//! Thresholds of use as stored: what asks to be looked at, below which totals nothing can have been crossed, and what was.
//!
//! The fold asks in its own transaction and rates nothing: it compares totals with guards. A guard holds for one version of
//! the catalog and for the service's newest facts; with any other it counts as missing. So nobody who changes an account
//! or a catalog has to know of guards.

use std::collections::HashMap;

use sqlx::FromRow;

use super::many::{Many, Of};
use super::sessions::json;
use super::{StoreError, Tx, on};
use crate::billing::lines::Ratio;
use crate::billing::thresholds::{Distance, Mark, ThresholdKey};
use crate::vocabulary::{Exact, Period, Timestamp, to_micros};

/// A service's totals in a period changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    pub service_id: i64,
    pub period_start_at: i64,
    /// Something of it went down: what is known of the distance to a threshold no longer holds.
    pub down: bool,
}

/// A service that is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Look {
    pub service_id: i64,
    pub period_start_at: i64,
    /// How often it was asked for when it was read.
    pub asked: i64,
    pub account_id: i64,
    pub tenant: String,
    pub source: String,
    /// External ids.
    pub account: String,
    pub service: String,
    pub cycle: String,
    /// The newest row of the service's facts.
    pub facts_id: i64,
}

/// Totals of a service in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromRow)]
pub struct Totals {
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
}

/// Where a service stands in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromRow)]
pub struct Place {
    pub service_id: i64,
    /// The newest row of its facts.
    pub facts_id: i64,
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
}

impl Place {
    pub fn totals(&self) -> Totals {
        let Self { in_octets, out_octets, seconds, sessions, .. } = *self;
        Totals { in_octets, out_octets, seconds, sessions }
    }
}

/// Until when a service need not be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    pub catalog_version: i64,
    pub facts_id: i64,
    /// The totals it was made from, and what must come to them.
    pub totals: Totals,
    pub distance: Distance,
}

/// A threshold that was crossed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossed<'a> {
    pub key: &'a ThresholdKey,
    pub bound: Exact,
    pub used: Exact,
}

const PLANS_SQLITE: &str = "SELECT service.id, account.tenant, service.plan
     FROM json_each($1) AS key CROSS JOIN service ON service.id = key.value
     JOIN account ON account.id = service.account_id ORDER BY service.id";
const PLANS_POSTGRES: &str = "SELECT service.id, account.tenant, service.plan
     FROM service JOIN account ON account.id = service.account_id WHERE service.id = ANY($1) ORDER BY service.id";
macro_rules! ask_tail {
    () => {
        "JOIN service ON service.id = key.service_id
         JOIN account ON account.id = service.account_id
         JOIN tenant ON tenant.id = account.tenant
         JOIN usage_total AS total
           ON total.service_id = key.service_id AND total.period_start_at = key.period_start_at
         LEFT JOIN threshold_guard AS guard
           ON guard.service_id = key.service_id AND guard.period_start_at = key.period_start_at
         WHERE guard.service_id IS NULL OR key.down = 1
            OR guard.catalog_version <> tenant.catalog_version
            OR guard.facts_id <> (SELECT facts.id FROM service_history AS facts
                 WHERE facts.account_id = service.account_id AND facts.service_id = service.id
                 ORDER BY facts.from_at DESC, facts.id DESC LIMIT 1)
            OR total.in_octets >= guard.in_octets OR total.out_octets >= guard.out_octets
            OR total.in_octets + total.out_octets >= guard.octets
            OR total.seconds >= guard.seconds OR total.sessions >= guard.sessions
         ORDER BY key.service_id, key.period_start_at
         ON CONFLICT (service_id, period_start_at) DO UPDATE SET asked = threshold_look.asked + 1"
    };
}
const ASK_SQLITE: &str = concat!(
    "INSERT INTO threshold_look (service_id, period_start_at, asked)
     SELECT key.service_id, key.period_start_at, 1
     FROM (SELECT value ->> 0 AS service_id, value ->> 1 AS period_start_at, value ->> 2 AS down
           FROM json_each($1)) AS key ",
    ask_tail!()
);
const ASK_POSTGRES: &str = concat!(
    "INSERT INTO threshold_look (service_id, period_start_at, asked)
     SELECT key.service_id, key.period_start_at, 1
     FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[]) AS key (service_id, period_start_at, down) ",
    ask_tail!()
);
static ASK_AGAIN: Many<2> = Many::new(
    [("service", Of::Integer), ("at", Of::Integer)],
    "INSERT INTO threshold_look (service_id, period_start_at, asked)
     SELECT service_id, period_start_at, 1 FROM new CROSS JOIN threshold_guard
     WHERE service_id = new.service AND period_end_at > new.at
     ORDER BY service_id, period_start_at
     ON CONFLICT (service_id, period_start_at) DO UPDATE SET asked = threshold_look.asked + 1",
);
macro_rules! select_look {
    ($rest:literal) => {
        concat!(
            "SELECT look.service_id, look.period_start_at, look.asked, account.id AS account_id, account.tenant,
                    account.source, account.external_id AS account, service.external_id AS service,
                    account.bill_cycle AS cycle,
                    CAST(COALESCE((SELECT facts.id FROM service_history AS facts
                       WHERE facts.account_id = service.account_id AND facts.service_id = service.id
                       ORDER BY facts.from_at DESC, facts.id DESC LIMIT 1), 0) AS BIGINT) AS facts_id
             FROM threshold_look AS look JOIN service ON service.id = look.service_id
                  JOIN account ON account.id = service.account_id ",
            $rest
        )
    };
}
const LOOKS: &str = select_look!("ORDER BY look.service_id, look.period_start_at LIMIT $1");
const LOOK: &str = select_look!("WHERE look.service_id = $1 AND look.period_start_at = $2");
static PLACES: Many<2> = Many::new(
    [("service", Of::Integer), ("period", Of::Integer)],
    "SELECT service.id AS service_id,
            CAST(COALESCE((SELECT facts.id FROM service_history AS facts
               WHERE facts.account_id = service.account_id AND facts.service_id = service.id
               ORDER BY facts.from_at DESC, facts.id DESC LIMIT 1), 0) AS BIGINT) AS facts_id,
            CAST(COALESCE(total.in_octets, 0) AS BIGINT) AS in_octets,
            CAST(COALESCE(total.out_octets, 0) AS BIGINT) AS out_octets,
            CAST(COALESCE(total.seconds, 0) AS BIGINT) AS seconds,
            CAST(COALESCE(total.sessions, 0) AS BIGINT) AS sessions
     FROM new JOIN service ON service.id = new.service
          LEFT JOIN usage_total AS total ON total.service_id = service.id AND total.period_start_at = new.period",
);
const ASK_ONE: &str = "INSERT INTO threshold_look (service_id, period_start_at, asked) VALUES ($1, $2, 1)
     ON CONFLICT (service_id, period_start_at) DO UPDATE SET asked = threshold_look.asked + 1";
const DONE: &str = "DELETE FROM threshold_look WHERE service_id = $1 AND period_start_at = $2 AND asked = $3";
const TOTALS: &str = "SELECT in_octets, out_octets, seconds, sessions FROM usage_total
     WHERE service_id = $1 AND period_start_at = $2";
const PUT_GUARD: &str =
    "INSERT INTO threshold_guard (service_id, period_start_at, period_end_at, catalog_version, facts_id,
         in_octets, out_octets, octets, seconds, sessions)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     ON CONFLICT (service_id, period_start_at) DO UPDATE SET
         period_end_at = excluded.period_end_at, catalog_version = excluded.catalog_version,
         facts_id = excluded.facts_id, in_octets = excluded.in_octets, out_octets = excluded.out_octets,
         octets = excluded.octets, seconds = excluded.seconds, sessions = excluded.sessions";
const DROP_GUARD: &str = "DELETE FROM threshold_guard WHERE service_id = $1 AND period_start_at = $2";
const MARKS: &str = "SELECT tariff, meter, threshold, bound, rearmed_at FROM threshold_mark
     WHERE service_id = $1 AND period_start_at = $2 ORDER BY tariff, meter, threshold LIMIT 10000";
const MARK: &str = "INSERT INTO threshold_mark (service_id, period_start_at, tariff, meter, threshold, bound, used,
         crossed_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
     ON CONFLICT (service_id, period_start_at, tariff, meter, threshold) DO UPDATE SET
         bound = excluded.bound, used = excluded.used, crossed_at = excluded.crossed_at, rearmed_at = NULL
     WHERE threshold_mark.rearmed_at IS NOT NULL";
const REARM: &str = "UPDATE threshold_mark SET rearmed_at = $6
     WHERE service_id = $1 AND period_start_at = $2 AND tariff = $3 AND meter = $4 AND threshold = $5
       AND rearmed_at IS NULL";
const FORGET_GUARDS: &str = "DELETE FROM threshold_guard WHERE (service_id, period_start_at) IN
     (SELECT service_id, period_start_at FROM threshold_guard WHERE period_end_at < $1 ORDER BY period_end_at LIMIT $2)";
const FORGET_MARKS: &str = "DELETE FROM threshold_mark WHERE (service_id, period_start_at) IN
     (SELECT service_id, period_start_at FROM threshold_mark WHERE period_start_at < $1
      ORDER BY period_start_at LIMIT $2)";

/// (service, tenant, plan) of these services.
pub async fn plans_of(tx: &mut Tx, service_ids: &[i64]) -> Result<Vec<(i64, String, String)>, StoreError> {
    Ok(match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(PLANS_SQLITE).bind(json(&service_ids)).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(PLANS_POSTGRES).bind(service_ids).fetch_all(&mut **transaction).await?
        }
    })
}

/// Asks for a look at those of these services whose totals no guard covers. Call it after the totals were written.
pub async fn ask(tx: &mut Tx, changed: &[Changed]) -> Result<(), StoreError> {
    if changed.is_empty() {
        return Ok(());
    }
    match tx {
        Tx::Sqlite(held) => {
            let row = |key: &Changed| (key.service_id, key.period_start_at, i64::from(key.down));
            let rows: Vec<(i64, i64, i64)> = changed.iter().map(row).collect();
            sqlx::query(ASK_SQLITE).bind(json(&rows)).execute(&mut *held.transaction).await?;
        }
        Tx::Postgres(transaction) => {
            sqlx::query(ASK_POSTGRES)
                .bind(changed.iter().map(|key| key.service_id).collect::<Vec<_>>())
                .bind(changed.iter().map(|key| key.period_start_at).collect::<Vec<_>>())
                .bind(changed.iter().map(|key| i64::from(key.down)).collect::<Vec<_>>())
                .execute(&mut **transaction)
                .await?;
        }
    }
    Ok(())
}

/// Asks for a look at services whose facts have changed, where their running period was looked at before.
pub async fn ask_again(tx: &mut Tx, services: &[i64], now: Timestamp) -> Result<(), StoreError> {
    ASK_AGAIN.execute(tx, services.iter().map(|id| [(*id).into(), to_micros(now).into()]).collect()).await
}

/// What is to be looked at.
pub async fn looks(tx: &mut Tx, limit: i64) -> Result<Vec<Look>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(LOOKS).bind(limit).fetch_all(c).await)?)
}

/// One look, if it is still asked for.
pub async fn look(tx: &mut Tx, service_id: i64, period_start_at: i64) -> Result<Option<Look>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(LOOK).bind(service_id).bind(period_start_at).fetch_optional(c).await)?)
}

/// A look is done, unless it was asked for again since it was read.
pub async fn done(tx: &mut Tx, look: &Look) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(DONE)
        .bind(look.service_id)
        .bind(look.period_start_at)
        .bind(look.asked)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// The running totals of a service in a period.
pub async fn totals(tx: &mut Tx, service_id: i64, period_start_at: i64) -> Result<Totals, StoreError> {
    let found: Option<Totals> =
        on!(tx, c => sqlx::query_as(TOTALS).bind(service_id).bind(period_start_at).fetch_optional(c).await)?;
    Ok(found.unwrap_or_default())
}

/// Where services stand in a period: their newest facts and their totals.
pub async fn places(tx: &mut Tx, services: &[i64], period_start_at: i64) -> Result<HashMap<i64, Place>, StoreError> {
    let rows = services.iter().map(|id| [(*id).into(), period_start_at.into()]).collect();
    let found: Vec<Place> = PLACES.fetch(tx, rows).await?;
    Ok(found.into_iter().map(|place| (place.service_id, place)).collect())
}

/// Asks for a look at a service, whatever its guard says.
pub async fn ask_one(tx: &mut Tx, service_id: i64, period_start_at: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(ASK_ONE).bind(service_id).bind(period_start_at).execute(c).await.map(drop))?;
    Ok(())
}

/// Says until when a service need not be looked at again.
pub async fn put_guard(tx: &mut Tx, service_id: i64, period: &Period, guard: &Guard) -> Result<(), StoreError> {
    let reached = |total: i64, distance: Option<i64>| distance.map_or(i64::MAX, |more| total.saturating_add(more));
    let Guard { totals, distance, .. } = guard;
    on!(tx, c => sqlx::query(PUT_GUARD)
        .bind(service_id)
        .bind(to_micros(period.start))
        .bind(to_micros(period.end))
        .bind(guard.catalog_version)
        .bind(guard.facts_id)
        .bind(reached(totals.in_octets, distance.in_octets))
        .bind(reached(totals.out_octets, distance.out_octets))
        .bind(reached(totals.in_octets.saturating_add(totals.out_octets), distance.octets))
        .bind(reached(totals.seconds, distance.seconds))
        .bind(reached(totals.sessions, distance.sessions))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// A period is not looked at again by itself.
pub async fn drop_guard(tx: &mut Tx, look: &Look) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(DROP_GUARD)
        .bind(look.service_id)
        .bind(look.period_start_at)
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// What was crossed in a period of a service.
pub async fn marks(tx: &mut Tx, service_id: i64, period_start_at: i64) -> Result<Vec<Mark>, StoreError> {
    type Found = (String, String, String, String, Option<i64>);
    let rows: Vec<Found> =
        on!(tx, c => sqlx::query_as(MARKS).bind(service_id).bind(period_start_at).fetch_all(c).await)?;
    rows.into_iter()
        .map(|(tariff, meter, at, bound, rearmed_at)| {
            let corrupt =
                |_| StoreError::Corrupt { table: "threshold_mark", column: "bound", id: service_id.to_string() };
            let bound = Ratio::try_from(bound).map_err(corrupt)?.0;
            Ok(Mark { key: ThresholdKey { tariff, meter, at }, bound, rearmed: rearmed_at.is_some() })
        })
        .collect()
}

/// Marks a threshold as crossed. `false`: it is marked already and must not act again.
pub async fn mark(
    tx: &mut Tx,
    (service_id, period_start_at): (i64, i64),
    crossed: &Crossed<'_>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let done = on!(tx, c => sqlx::query(MARK)
        .bind(service_id)
        .bind(period_start_at)
        .bind(&crossed.key.tariff)
        .bind(&crossed.key.meter)
        .bind(&crossed.key.at)
        .bind(String::from(Ratio(crossed.bound)))
        .bind(String::from(Ratio(crossed.used)))
        .bind(to_micros(now))
        .execute(c)
        .await.map(|done| done.rows_affected()))?;
    Ok(done == 1)
}

/// Lets a threshold act once more.
pub async fn rearm(
    tx: &mut Tx,
    (service_id, period_start_at): (i64, i64),
    key: &ThresholdKey,
    now: Timestamp,
) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(REARM)
        .bind(service_id)
        .bind(period_start_at)
        .bind(&key.tariff)
        .bind(&key.meter)
        .bind(&key.at)
        .bind(to_micros(now))
        .execute(c)
        .await.map(drop))?;
    Ok(())
}

/// Deletes guards of periods that ended before `ended`, and marks of periods that began before `began`, some of each.
pub async fn forget(tx: &mut Tx, ended: Timestamp, began: Timestamp, limit: i64) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(FORGET_GUARDS).bind(to_micros(ended)).bind(limit).execute(c).await.map(drop))?;
    on!(tx, c => sqlx::query(FORGET_MARKS).bind(to_micros(began)).bind(limit).execute(c).await.map(drop))?;
    Ok(())
}
