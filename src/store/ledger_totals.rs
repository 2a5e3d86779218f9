//! The sum of each service's ledger entries by period, written in the transaction that appends them: closing a period
//! reads one row where it would read hundreds.
//!
//! A period's sum counts exactly the entries that begin in it, with their fingerprint and last sequence. A service has
//! sums that may be used when all of them were kept from its first entry on, and every entry's period was known.

use std::collections::{BTreeMap, HashMap};

use super::bulk::{Bulk, Values};
use super::ledger::NewEntry;
use super::sessions::json;
use super::{StoreError, Tx};
use crate::billing::calendar::BillCycle;
use crate::billing::facts::PeriodSum;
use crate::usage::Fingerprint;
use crate::vocabulary::{Timestamp, from_micros};

/// The sums of one service by the start of their period.
pub type Sums = BTreeMap<Timestamp, PeriodSum>;

macro_rules! add {
    ($values:literal) => {
        concat!(
            "INSERT INTO ledger_total (service_id, period_start_at, whole, last_sequence, records, in_octets, out_octets,
                seconds, sessions, f0, f1, f2, f3, f4, f5, f6, f7)",
            $values
        )
    };
}
// Octets that would leave 64 bits are not added: the sum is whole no more, and whoever rates reads the entries.
macro_rules! fits {
    ($octets:literal) => {
        concat!(
            "ledger_total.",
            $octets,
            " <= 9223372036854775807 - CASE WHEN excluded.",
            $octets,
            " > 0 THEN excluded.",
            $octets,
            " ELSE 0 END"
        )
    };
}
macro_rules! add_tail {
    () => {
        concat!(
            " ON CONFLICT (service_id, period_start_at) DO UPDATE SET
            last_sequence = excluded.last_sequence, records = ledger_total.records + excluded.records,
            whole = ledger_total.whole AND ",
            fits!("in_octets"),
            " AND ",
            fits!("out_octets"),
            ",
            in_octets = CASE WHEN ",
            fits!("in_octets"),
            "
                THEN ledger_total.in_octets + excluded.in_octets ELSE ledger_total.in_octets END,
            out_octets = CASE WHEN ",
            fits!("out_octets"),
            "
                THEN ledger_total.out_octets + excluded.out_octets ELSE ledger_total.out_octets END,
            seconds = ledger_total.seconds + excluded.seconds, sessions = ledger_total.sessions + excluded.sessions,
            f0 = ledger_total.f0 + excluded.f0, f1 = ledger_total.f1 + excluded.f1,
            f2 = ledger_total.f2 + excluded.f2, f3 = ledger_total.f3 + excluded.f3,
            f4 = ledger_total.f4 + excluded.f4, f5 = ledger_total.f5 + excluded.f5,
            f6 = ledger_total.f6 + excluded.f6, f7 = ledger_total.f7 + excluded.f7"
        )
    };
}
static ADD_SQLITE: Bulk = Bulk::new(add!(""), 17, add_tail!());
const ADD_POSTGRES: &str = concat!(
    add!(
        " SELECT total.service_id, total.period_start_at, total.whole <> 0, total.last_sequence, total.records,
            total.in_octets, total.out_octets, total.seconds, total.sessions, total.f0, total.f1, total.f2, total.f3,
            total.f4, total.f5, total.f6, total.f7
         FROM UNNEST($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[], $7::BIGINT[],
            $8::BIGINT[], $9::BIGINT[], $10::BIGINT[], $11::BIGINT[], $12::BIGINT[], $13::BIGINT[], $14::BIGINT[],
            $15::BIGINT[], $16::BIGINT[], $17::BIGINT[])
            AS total (service_id, period_start_at, whole, last_sequence, records, in_octets, out_octets, seconds,
                sessions, f0, f1, f2, f3, f4, f5, f6, f7)"
    ),
    add_tail!()
);
macro_rules! select_of {
    ($from:literal) => {
        concat!(
            "SELECT ledger_total.service_id, period_start_at, whole, last_sequence, records, in_octets, out_octets,
                seconds, sessions, f0, f1, f2, f3, f4, f5, f6, f7 ",
            $from,
            " ORDER BY ledger_total.service_id, period_start_at"
        )
    };
}
const OF_SQLITE: &str =
    select_of!("FROM json_each($1) AS key CROSS JOIN ledger_total ON ledger_total.service_id = key.value");
const OF_POSTGRES: &str = select_of!("FROM ledger_total WHERE ledger_total.service_id = ANY($1)");

/// Counts entries on their way into the ledger, which got these sequences.
pub(super) async fn add(tx: &mut Tx, entries: &[NewEntry], sequences: &[i64]) -> Result<(), StoreError> {
    let mut sums: BTreeMap<(i64, i64), Row> = BTreeMap::new();
    for (entry, sequence) in entries.iter().zip(sequences) {
        let amount = entry.bucket.amount;
        let numbers = [amount.in_octets, amount.out_octets, amount.seconds, amount.sessions];
        let sane = numbers.iter().all(|number| (-ENTRY_MAX..ENTRY_MAX).contains(number));
        let period = entry.period_start_at.filter(|_| sane).unwrap_or(UNKNOWN);
        let sum = sums.entry((entry.owner.service_id, period)).or_insert_with(|| Row {
            service_id: entry.owner.service_id,
            period_start_at: period,
            whole: true,
            ..Row::default()
        });
        if period == UNKNOWN {
            // That there is one is enough: the service's sums are used no more.
            continue;
        }
        sum.last_sequence = sum.last_sequence.max(*sequence);
        sum.records += 1;
        sum.in_octets += amount.in_octets;
        sum.out_octets += amount.out_octets;
        sum.seconds += amount.seconds;
        sum.sessions += amount.sessions;
        let print = Fingerprint::of([
            *sequence,
            entry.bucket.from_at,
            entry.bucket.until_at,
            amount.in_octets,
            amount.out_octets,
            amount.seconds,
            amount.sessions,
        ]);
        let lanes =
            [&mut sum.f0, &mut sum.f1, &mut sum.f2, &mut sum.f3, &mut sum.f4, &mut sum.f5, &mut sum.f6, &mut sum.f7];
        lanes.into_iter().zip(print.0).for_each(|(lane, more)| *lane += more);
    }
    let rows: Vec<[i64; 17]> = sums.values().map(Row::columns).collect();
    match tx {
        Tx::Sqlite(held) => {
            let put = |row: &[i64; 17], values: &mut Values| {
                row.iter().for_each(|number| {
                    values.put(*number);
                });
            };
            ADD_SQLITE.execute(held, &rows, put).await?;
        }
        Tx::Postgres(transaction) => {
            let mut query = sqlx::query(ADD_POSTGRES);
            for column in 0..17 {
                query = query.bind(rows.iter().map(|row| row[column]).collect::<Vec<_>>());
            }
            query.execute(&mut **transaction).await?;
        }
    }
    Ok(())
}

/// The sums of these services. A service without an entry has an empty list; one whose sums may not be used, or are
/// not of this cycle's periods, has `None`.
pub async fn of_services(
    tx: &mut Tx,
    service_ids: &[i64],
    cycle: &BillCycle,
) -> Result<BTreeMap<i64, Option<Sums>>, StoreError> {
    let rows: Vec<Row> = match tx {
        Tx::Sqlite(held) => {
            sqlx::query_as(OF_SQLITE).bind(json(&service_ids)).fetch_all(&mut *held.transaction).await?
        }
        Tx::Postgres(transaction) => {
            sqlx::query_as(OF_POSTGRES).bind(service_ids).fetch_all(&mut **transaction).await?
        }
    };
    let mut starts: HashMap<Timestamp, bool> = HashMap::new();
    let mut is_start =
        |at: Timestamp| *starts.entry(at).or_insert_with(|| cycle.period_at(at).is_ok_and(|period| period.start == at));
    let mut found: BTreeMap<i64, Option<Sums>> = service_ids.iter().map(|id| (*id, Some(Sums::new()))).collect();
    for row in rows {
        let start = from_micros(row.period_start_at).filter(|_| row.period_start_at != UNKNOWN);
        let start = start.filter(|start| row.whole && is_start(*start));
        let sums = found.entry(row.service_id).or_default();
        match (start, sums.as_mut()) {
            (Some(start), Some(kept)) => {
                kept.insert(start, row.sum());
            }
            _ => *sums = None,
        }
    }
    Ok(found)
}

#[derive(Debug, Clone, Copy, Default, sqlx::FromRow)]
struct Row {
    service_id: i64,
    period_start_at: i64,
    whole: bool,
    last_sequence: i64,
    records: i64,
    in_octets: i64,
    out_octets: i64,
    seconds: i64,
    sessions: i64,
    f0: i64,
    f1: i64,
    f2: i64,
    f3: i64,
    f4: i64,
    f5: i64,
    f6: i64,
    f7: i64,
}

impl Row {
    fn sum(&self) -> PeriodSum {
        PeriodSum {
            last_sequence: self.last_sequence,
            records: u64::try_from(self.records).unwrap_or(0),
            fingerprint: Fingerprint([self.f0, self.f1, self.f2, self.f3, self.f4, self.f5, self.f6, self.f7]),
            in_octets: i128::from(self.in_octets),
            out_octets: i128::from(self.out_octets),
            seconds: i128::from(self.seconds),
            sessions: i128::from(self.sessions),
        }
    }

    fn columns(&self) -> [i64; 17] {
        let Self { service_id, period_start_at, whole, last_sequence, records, .. } = *self;
        let Self { in_octets, out_octets, seconds, sessions, .. } = *self;
        let Self { f0, f1, f2, f3, f4, f5, f6, f7, .. } = *self;
        let sums = [in_octets, out_octets, seconds, sessions];
        let lanes = [f0, f1, f2, f3, f4, f5, f6, f7];
        let mut columns = [0; 17];
        let own = [service_id, period_start_at, i64::from(whole), last_sequence, records];
        for (column, value) in columns.iter_mut().zip(own.into_iter().chain(sums).chain(lanes)) {
            *column = value;
        }
        columns
    }
}

/// The period of entries whose account's cycle was unknown when they were written.
const UNKNOWN: i64 = -1;
/// What an hour's entry may hold (140 TB) so that no sum of a period can leave 64 bits; a larger one is counted from
/// the ledger, where that is noticed.
const ENTRY_MAX: i64 = 1 << 47;
