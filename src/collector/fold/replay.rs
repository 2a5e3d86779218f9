//! Folds the records of one service's period anew, in memory, and says which record brought which octets.
//!
//! In: a service, a period, the ledger up to a line's watermark, and the journal. Out: the ledger entries as the records
//! give them, each with its records, and every difference to the ledger. The ledger of a watermark was made from the
//! records that had been folded by then: those that had arrived by the run, or a little later; the first moment at which
//! the records give that ledger is taken. Writes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::calendars::Calendars;
use super::clocks::Clocks;
use super::{desk, rules};
use crate::collector::NasTable;
use crate::store::journal::{self, JournalRow, SessionKey};
use crate::store::sessions::{self, StoredSession};
use crate::store::usage::{self, SessionFilter};
use crate::store::{Store, StoreError, Tx, fold, ledger};
use crate::usage::{Amount, Record, SessionState, continued, entry_bounds, refold_with};
use crate::vocabulary::{Clock, Period, Timestamp, to_micros};

/// What is to be replayed.
#[derive(Debug, Clone)]
pub struct ReplayOrder {
    pub account_id: i64,
    pub service_id: i64,
    pub period: Period,
    /// The last ledger sequence that counts.
    pub watermark: i64,
    /// When the run that fixed the watermark began.
    pub run_at: Timestamp,
}

/// A period as its records give it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    /// By time and session.
    pub entries: Vec<ReplayedEntry>,
    /// By lane and `seq`: every record of the sessions that had arrived by `until`.
    pub records: Vec<ReplayedRecord>,
    /// The newest arrival that was taken in.
    pub until: Option<Timestamp>,
    /// The first day that was dropped from the journal and may hold more.
    pub dropped: Option<String>,
    /// Every difference between the ledger and these entries; empty: they are the same.
    pub differences: Vec<String>,
}

/// What the ledger must hold of a session in one of its hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedEntry {
    pub session_id: i64,
    /// The session's class of usage.
    pub class: Option<Arc<str>>,
    pub nas: String,
    pub session: String,
    pub from_at: i64,
    pub until_at: i64,
    pub amount: Amount,
    /// Places in `records` of those that brought it.
    pub records: Vec<usize>,
}

/// A record with where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedRecord {
    pub row: JournalRow,
    pub read: Record,
    /// The file its day was archived in.
    pub archive: Option<String>,
}

/// Replays.
///
/// **Errors**: the database, or a damaged page of the journal.
pub async fn replay(
    store: &Store,
    clock: &Clock,
    nas: &Arc<NasTable>,
    order: &ReplayOrder,
) -> Result<Replay, StoreError> {
    let mut tx = store.read_snapshot().await?;
    let (ground, ledger) = Ground::read(store, &mut tx, clock, nas, order).await?;
    tx.rollback().await?;
    let mut arrivals: BTreeSet<i64> = ground.records().map(|known| to_micros(known.read.arrived_at)).collect();
    let run_at = to_micros(order.run_at);
    let later: Vec<i64> = arrivals.split_off(&(run_at + 1)).into_iter().take(MOMENTS_MAX).collect();
    let mut first = None;
    for until in [run_at].into_iter().chain(later).chain([i64::MAX]) {
        let replayed = ground.fold(until, order, &ledger);
        if replayed.differences.is_empty() {
            return ground.named(store, replayed, until).await;
        }
        first.get_or_insert((replayed, until));
    }
    // Nothing fits: what had arrived by the run is told.
    let (replayed, until) = first.unwrap_or_default();
    ground.named(store, replayed, until).await
}

/// Hours of a session, (session, from, until) → amount.
type Hours = BTreeMap<(i64, i64, i64), Amount>;

/// The sessions' records and what their folding depends on.
struct Ground {
    keys: Vec<KeyGround>,
    calendars: Calendars,
    nas: Arc<NasTable>,
    identities: HashMap<String, fold::Identity>,
    dropped: Option<String>,
}

/// All incarnations of one session id.
struct KeyGround {
    nas: String,
    session: String,
    stored: Vec<StoredSession>,
    records: Vec<ReplayedRecord>,
}

impl Ground {
    async fn read(
        store: &Store,
        tx: &mut Tx,
        clock: &Clock,
        nas: &Arc<NasTable>,
        order: &ReplayOrder,
    ) -> Result<(Self, Hours), StoreError> {
        let (start, end) = (to_micros(order.period.start), to_micros(order.period.end));
        let mut hours = Hours::new();
        let mut ids = BTreeSet::new();
        let mut after = 0;
        loop {
            let found = ledger::of_account(tx, order.account_id, after, ENTRIES_AT_ONCE).await?;
            let Some(last) = found.last() else { break };
            after = last.sequence;
            let inside = found
                .into_iter()
                .filter(|entry| entry.service_id == order.service_id && entry.from_at < end && entry.until_at > start)
                // Calls are no records of a NAS.
                .filter(|entry| entry.session_id > 0);
            for entry in inside {
                ids.insert(entry.session_id);
                if entry.sequence <= order.watermark {
                    let key = (entry.session_id, entry.from_at, entry.until_at);
                    add(&mut hours, key, entry.bucket().amount);
                }
            }
        }
        let mut filter =
            SessionFilter { account_id: Some(order.account_id), limit: SESSIONS_AT_ONCE, ..SessionFilter::default() };
        loop {
            let page = usage::list(tx, &filter).await?;
            let Some(last) = page.last() else { break };
            filter.after = last.id;
            let touches = |view: &&usage::SessionView| {
                view.started_at < order.period.end && order.period.start <= view.last_event_at
            };
            ids.extend(page.iter().filter(touches).map(|view| view.id));
        }
        let ids: Vec<i64> = ids.into_iter().collect();
        let mut names: BTreeSet<(String, String)> = BTreeSet::new();
        for ids in ids.chunks(IDS_AT_ONCE) {
            names.extend(sessions::of_ids(tx, ids).await?.into_iter().map(|found| (found.nas, found.session)));
        }
        let now = clock.now();
        let mut calendars = Calendars::default();
        calendars.refresh(tx, now).await?;
        calendars.learn(tx, [order.account_id].into(), now).await?;
        let mut clocks = Clocks::default();
        clocks.load(tx).await?;
        let until = fold::watermarks(tx).await?;
        let mut ground =
            Self { keys: Vec::new(), calendars, nas: nas.clone(), identities: HashMap::new(), dropped: None };
        let mut journalled = store.read_journal().await?;
        for (name, session) in names {
            let key = SessionKey::new(rules::client_of(nas, &name), &session);
            let found = journal::of_session(&mut journalled, &key, i64::MIN, &until, usize::MAX).await?;
            ground.dropped = ground.dropped.take().or(found.dropped);
            let mut records = Vec::new();
            for row in found.rows {
                let Ok(mut read) = rules::read(nas, &row) else { continue };
                clocks.correct(&mut read);
                if read.nas == name && read.session == session {
                    records.push(ReplayedRecord { row, read, archive: None });
                }
            }
            let stored = sessions::of_keys(tx, &[(name.as_str(), session.as_str())]).await?;
            for identity in fold::identities(tx, &[name.as_str()]).await? {
                ground.identities.insert(identity.nas.clone(), identity);
            }
            ground.keys.push(KeyGround { nas: name, session, stored, records });
        }
        journalled.rollback().await?;
        Ok((ground, hours))
    }

    fn records(&self) -> impl Iterator<Item = &ReplayedRecord> {
        self.keys.iter().flat_map(|key| &key.records)
    }

    /// Folds what had arrived by `until` and compares it with the ledger.
    fn fold(&self, until: i64, order: &ReplayOrder, ledger: &Hours) -> Replay {
        let mut replay = Replay { dropped: self.dropped.clone(), ..Replay::default() };
        let mut folded = Hours::new();
        let mut brought: BTreeMap<(i64, i64, i64), BTreeSet<usize>> = BTreeMap::new();
        for key in &self.keys {
            let first = replay.records.len();
            let arrived = |known: &&ReplayedRecord| to_micros(known.read.arrived_at) <= until;
            replay.records.extend(key.records.iter().filter(arrived).cloned());
            let records: Vec<Record> = replay.records[first..].iter().map(|known| known.read.clone()).collect();
            let identity = self.identities.get(&key.nas);
            let facts = desk::facts(&key.nas, identity, Some(order.account_id), &self.nas, &self.calendars);
            let mut traced: Vec<(usize, usize, Vec<i64>)> = Vec::new();
            let fresh = refold_with(&records, &facts, |one| {
                traced.push((one.state, one.record, one.change.iter().map(|(at, _)| at).collect()));
            });
            let mut fresh = match fresh {
                Ok(fresh) => fresh,
                Err(error) => {
                    replay.differences.push(format!("session {} of {}: {error}", key.session, key.nas));
                    continue;
                }
            };
            let old: Vec<&SessionState> = key.stored.iter().map(|stored| &stored.state).collect();
            let places = continued(&old, &fresh);
            for (number, (state, place)) in fresh.iter_mut().zip(places).enumerate() {
                let stored = place.map(|place| &key.stored[place]);
                let owned =
                    stored.filter(|stored| stored.owner.is_some_and(|owner| owner.service_id == order.service_id));
                let Some(id) = owned.and_then(|stored| stored.id) else { continue };
                for bucket in state.take_until(order.period.end, facts.cuts) {
                    if bucket.until_at > to_micros(order.period.start) {
                        add(&mut folded, (id, bucket.from_at, bucket.until_at), bucket.amount);
                    }
                }
                for (_, record, starts) in traced.iter().filter(|(state, ..)| *state == number) {
                    for start in starts {
                        let (from, until) = entry_bounds(*start, facts.cuts);
                        brought.entry((id, from, until)).or_default().insert(first + record);
                    }
                }
            }
        }
        let keys: BTreeSet<(i64, i64, i64)> = ledger.keys().chain(folded.keys()).copied().collect();
        for key in keys {
            let amount = |of: &Hours| of.get(&key).copied().unwrap_or_default();
            let (is, must) = (amount(ledger), amount(&folded));
            if is != must {
                let at = |micros| crate::vocabulary::from_micros(micros).map(|at| at.to_string()).unwrap_or_default();
                replay.differences.push(format!(
                    "session {}, {} to {}: the ledger has {} up and {} down, the records give {} and {}",
                    key.0,
                    at(key.1),
                    at(key.2),
                    is.in_octets,
                    is.out_octets,
                    must.in_octets,
                    must.out_octets
                ));
            }
        }
        for (key, amount) in folded {
            let (session_id, from_at, until_at) = key;
            let named = |known: &KeyGround| known.stored.iter().any(|stored| stored.id == Some(session_id));
            let Some(of) = self.keys.iter().find(|known| named(known)) else { continue };
            let records = brought.remove(&key).unwrap_or_default().into_iter().collect();
            let (nas, session) = (of.nas.clone(), of.session.clone());
            let class = of.stored.iter().find(|stored| stored.id == Some(session_id));
            let class = class.and_then(|stored| stored.usage_class.clone());
            replay.entries.push(ReplayedEntry { session_id, class, nas, session, from_at, until_at, amount, records });
        }
        replay.entries.sort_by_key(|entry| (entry.from_at, entry.session_id));
        replay
    }

    /// Adds where the records are archived, and orders them by their places.
    async fn named(&self, store: &Store, mut replay: Replay, until: i64) -> Result<Replay, StoreError> {
        replay.until = crate::vocabulary::from_micros(until);
        let mut tx = store.read_journal().await?;
        for known in &mut replay.records {
            known.archive = journal::archive_of(&mut tx, known.row.lane, known.row.seq).await?;
        }
        tx.rollback().await?;
        let mut order: Vec<usize> = (0..replay.records.len()).collect();
        order.sort_by_key(|place| (replay.records[*place].row.lane, replay.records[*place].row.seq));
        let mut moved = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            moved[*old] = new;
        }
        for entry in &mut replay.entries {
            entry.records = entry.records.iter().map(|old| moved[*old]).collect();
            entry.records.sort_unstable();
        }
        let mut records: Vec<Option<ReplayedRecord>> = replay.records.into_iter().map(Some).collect();
        replay.records = order.into_iter().filter_map(|old| records[old].take()).collect();
        Ok(replay)
    }
}

/// A sum that leaves 64 bits was refused when it was folded first.
fn add(hours: &mut Hours, key: (i64, i64, i64), amount: Amount) {
    let sum = hours.entry(key).or_default();
    if let Ok(grown) = sum.plus(amount) {
        *sum = grown;
    }
    if sum.is_zero() {
        hours.remove(&key);
    }
}

/// Moments after the run that are tried.
const MOMENTS_MAX: usize = 64;
const ENTRIES_AT_ONCE: i64 = 5_000;
const SESSIONS_AT_ONCE: i64 = 1_000;
const IDS_AT_ONCE: usize = 500;
