//! A line from the journal's own records: what `line explain --from-journal` adds to the computation from the ledger.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::context::Context;
use super::exit::CliError;
use crate::billing::explain::{Recomputed, recomputed_from};
use crate::billing::facts::UsageEntry;
use crate::billing::tariff::{ChargeKind, Meter};
use crate::collector::fold::{Replay, ReplayOrder, ReplayedEntry, ReplayedRecord, replay};
use crate::daemon::nas_table;
use crate::store::Store;
use crate::store::rating::LineGround;
use crate::vocabulary::{Money, Timestamp, from_micros, hex};

/// A line's usage as its records give it.
pub struct FromJournal {
    pub replay: Replay,
    pub recomputed: Recomputed,
    /// Every difference, to the ledger and to the line; empty: the same to the last digit.
    pub differences: Vec<String>,
}

/// Folds the records of the line's service and period anew and rates what they give. `None`: the line has no usage that a
/// NAS reported; calls come from a switch, and their ledger entries are its records.
pub async fn from_journal(
    store: &Store,
    ground: &LineGround,
    context: &Context,
) -> Result<Option<FromJournal>, CliError> {
    let (Some(usage), Some(service_id)) = (&ground.stored.line.usage, ground.service_id) else { return Ok(None) };
    if is_of_calls(ground) {
        return Ok(None);
    }
    let order = ReplayOrder {
        account_id: ground.account_id,
        service_id,
        period: ground.stored.line.period.clone(),
        watermark: usage.watermark,
        run_at: ground.stored.line.created_at,
    };
    let nas = Arc::new(nas_table(&context.config()?));
    let replay = replay(store, &context.clock(), &nas, &order).await?;
    let mut entries = Vec::with_capacity(replay.entries.len());
    for (sequence, entry) in (1..).zip(&replay.entries) {
        entries.push(UsageEntry {
            sequence,
            session: entry.session_id,
            class: entry.class.clone(),
            call: None,
            from: instant(entry.from_at)?,
            until: instant(entry.until_at)?,
            in_octets: entry.amount.in_octets,
            out_octets: entry.amount.out_octets,
            seconds: entry.amount.seconds,
            sessions: entry.amount.sessions,
        });
    }
    let recomputed = recomputed_from(&ground.stored, &ground.tariff, &entries)?;
    let mut differences = replay.differences.clone();
    let basis = &ground.stored.basis;
    let mut compare = |what: &str, line: String, now: &str| {
        if line != now {
            differences.push(format!("{what} is {line} in the line and {now} from the journal"));
        }
    };
    compare("quantity_raw", basis.quantity_raw.to_string(), &recomputed.quantity_raw);
    compare("amount_exact", basis.amount_exact.0.to_string(), &recomputed.amount_exact);
    let line = &ground.stored.line;
    let total = Money::new(basis.amount_minor, line.currency.parse()?).to_string();
    compare("amount so far", total, &recomputed.amount);
    Ok(Some(FromJournal { replay, recomputed, differences }))
}

fn is_of_calls(ground: &LineGround) -> bool {
    let charge = ground.tariff.charge(&ground.stored.line.charge);
    matches!(charge.map(|charge| &charge.kind), Some(ChargeKind::Usage(usage)) if usage.meter == Meter::Calls)
}

/// As JSON.
pub fn document(found: &FromJournal) -> Value {
    let replay = &found.replay;
    json!({
        "until": replay.until,
        "dropped": replay.dropped,
        "entries": replay.entries.iter().map(|found| entry(found, replay)).collect::<Vec<_>>(),
        "records": replay.records.iter().map(record).collect::<Vec<_>>(),
        "recomputed": found.recomputed,
        "differences": found.differences,
    })
}

/// For a person.
pub fn text(found: &FromJournal) -> String {
    let replay = &found.replay;
    let mut out = format!(
        "from the journal: {} records of {} sessions, arrived until {}\n",
        replay.records.len(),
        replay.entries.iter().map(|entry| entry.session_id).collect::<std::collections::BTreeSet<_>>().len(),
        replay.until.map_or_else(|| "now".to_owned(), |until| until.to_string())
    );
    if let Some(day) = &replay.dropped {
        out.push_str(&format!("  records of {day} were dropped from the journal; the archive has them\n"));
    }
    for entry in &replay.entries {
        out.push_str(&format!(
            "  {} to {}  {} of {}  up {}  down {}  {} s  {} sessions\n      records {}\n      digest {}\n",
            shown(entry.from_at),
            shown(entry.until_at),
            entry.session,
            entry.nas,
            entry.amount.in_octets,
            entry.amount.out_octets,
            entry.amount.seconds,
            entry.amount.sessions,
            places(entry, replay).join(" "),
            digest(entry, replay),
        ));
    }
    let now = &found.recomputed;
    out.push_str(&format!("  counted {}, exact {}, rounded {}\n", now.quantity_raw, now.amount_exact, now.amount));
    if found.differences.is_empty() {
        out.push_str("  from the journal: the same to the last digit\n");
    }
    for difference in &found.differences {
        out.push_str(&format!("  DIFFERS: {difference}\n"));
    }
    out
}

/// Where a record stands in the journal, and in which archive.
pub fn place(known: &ReplayedRecord) -> String {
    format!("{}:{}", known.row.lane, known.row.seq)
}

/// SHA-256 of a record's octets.
pub fn record_digest(known: &ReplayedRecord) -> String {
    hex(Sha256::digest(&known.row.entry.packet))
}

/// A record as its journal entry and as it was read.
pub fn record(known: &ReplayedRecord) -> Value {
    let read = &known.read;
    json!({
        "record": place(known),
        "archive": known.archive,
        "arrived_at": known.row.entry.arrived_at,
        "client": *known.row.entry.nas,
        "source": known.row.entry.source.to_string(),
        "sha256": record_digest(known),
        "nas": read.nas,
        "session": read.session,
        "kind": read.kind.to_string(),
        "event_at": read.event_at,
        "session_seconds": read.session_seconds,
        "in_octets": read.in_octets,
        "out_octets": read.out_octets,
        "since_last_report": read.counting.interval,
    })
}

/// SHA-256 over the octets of the records that brought an entry, in the order of their places.
fn digest(entry: &ReplayedEntry, replay: &Replay) -> String {
    let mut hash = Sha256::new();
    for place in &entry.records {
        hash.update(&replay.records[*place].row.entry.packet);
    }
    hex(hash.finalize())
}

fn entry(entry: &ReplayedEntry, replay: &Replay) -> Value {
    json!({
        "nas": entry.nas,
        "session": entry.session,
        "from": from_micros(entry.from_at),
        "until": from_micros(entry.until_at),
        "in_octets": entry.amount.in_octets,
        "out_octets": entry.amount.out_octets,
        "seconds": entry.amount.seconds,
        "sessions": entry.amount.sessions,
        "records": places(entry, replay),
        "records_digest": digest(entry, replay),
    })
}

fn places(entry: &ReplayedEntry, replay: &Replay) -> Vec<String> {
    entry.records.iter().map(|known| place(&replay.records[*known])).collect()
}

fn shown(micros: i64) -> String {
    from_micros(micros).map(|at| at.to_string()).unwrap_or_default()
}

fn instant(micros: i64) -> Result<Timestamp, CliError> {
    from_micros(micros).ok_or_else(|| CliError::failed(format!("{micros} is no instant")))
}
