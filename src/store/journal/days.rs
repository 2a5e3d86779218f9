//! What the journal holds, day by day, for the operator.

use sqlx::FromRow;

use super::runs::{DAY, day_on};
use crate::store::{StoreError, Tx, on};

/// One UTC day of the journal in one state.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Day {
    pub day_on: String,
    /// `live`, `sealed`, or `dropped`: then nothing is left of it here.
    pub state: String,
    pub records: i64,
    /// Rows: pages of a live day, runs of a sealed one.
    pub parts: i64,
    /// What its records take in the database.
    pub octets: i64,
    /// A file it was archived in, if it was.
    pub archive: Option<String>,
}

const RUN_DAYS: &str = "SELECT day_on, state, CAST(SUM(records) AS BIGINT) AS records, COUNT(*) AS parts,
        CAST(SUM(octets) AS BIGINT) AS octets, MAX(archive) AS archive
     FROM journal_run WHERE state IN ('sealed', 'dropped') GROUP BY day_on, state ORDER BY day_on, state LIMIT 100000";
const LIVE_DAYS: &str = "SELECT arrived_from / 86400000000 AS day, CAST(SUM(records) AS BIGINT), COUNT(*),
        CAST(SUM(LENGTH(body)) AS BIGINT)
     FROM journal WHERE first_seq > COALESCE((SELECT MAX(run.last_seq) FROM journal_run AS run
         WHERE run.lane = journal.lane AND run.state IN ('sealed', 'dropped')), 0)
     GROUP BY arrived_from / 86400000000 ORDER BY 1 LIMIT 100000";

/// All days, the oldest first.
pub async fn days(tx: &mut Tx) -> Result<Vec<Day>, StoreError> {
    let mut days: Vec<Day> = on!(&mut *tx, c => sqlx::query_as(RUN_DAYS).fetch_all(c).await)?;
    let live: Vec<(i64, i64, i64, i64)> = on!(tx, c => sqlx::query_as(LIVE_DAYS).fetch_all(c).await)?;
    days.extend(live.into_iter().map(|(day, records, parts, octets)| Day {
        day_on: day_on(day),
        state: "live".to_owned(),
        records,
        parts,
        octets,
        archive: None,
    }));
    days.sort_by(|a, b| (&a.day_on, &a.state).cmp(&(&b.day_on, &b.state)));
    Ok(days)
}

// The statement cuts days as the sealer does.
const _: () = assert!(DAY == 86_400_000_000);
