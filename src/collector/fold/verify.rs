//! Folds the whole journal anew and compares: sessions, the ledger and the running totals against what is stored; and,
//! when asked, rebuilds what differs.
//!
//! In: the journal up to the fold's watermarks, the configuration's rules. Out: differences, a bounded number of them in
//! words and all of them counted; with repair, ledger entries for the differences, sessions and totals as they must be.
//! It goes through the journal by sessions, a slice at a time, so that memory is bounded by the slice; each slice is
//! compared within one moment of the database, so that a daemon may go on folding meanwhile. What days dropped by
//! retention may have held is left out and named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::calendars::Calendars;
use super::clocks::Clocks;
use super::desk::{self, Desk};
use super::flow::{Favoured, Flows, by_time};
use super::rules;
use crate::collector::NasTable;
use crate::store::journal::{self, SessionKey};
use crate::store::sessions::{self, StoredSession};
use crate::store::verify as stored;
use crate::store::{Store, StoreError, Tx, fold, ledger};
use crate::usage::{Amount, FoldError, Record, SessionState, Traced, continued, refold_with};
use crate::vocabulary::{Clock, Timestamp, from_micros, to_micros};

/// What was compared and what differs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub records: i64,
    pub sessions: u64,
    pub accounts: u64,
    /// All differences; those that were repaired are among them.
    pub differences: u64,
    pub repaired: u64,
    /// The first [`FINDINGS_MAX`] of them.
    pub findings: Vec<Finding>,
    /// Sessions that dropped days may hold records of: not compared.
    pub excluded: u64,
    pub dropped_days: Vec<String>,
    /// Where the records' octets went. With repair: as it was found.
    pub flows: Flows,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: What,
    pub nas: Option<String>,
    pub session: Option<String>,
    pub service_id: Option<i64>,
    /// Start of the period, where it is about one.
    pub period: Option<Timestamp>,
    pub stored: Amount,
    pub refolded: Amount,
}

/// What a difference is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A session's sums.
    Session,
    /// The ledger's entries of a session in a period, with what is pending.
    Ledger,
    /// A running total of a service in a period.
    Total,
    /// A sum that leaves 64 bits: nothing else is compared of it.
    Beyond,
}

impl What {
    pub fn as_str(self) -> &'static str {
        match self {
            What::Session => "session",
            What::Ledger => "ledger",
            What::Total => "total",
            What::Beyond => "beyond 64 bits",
        }
    }
}

/// Verifies, and repairs when asked.
pub struct Verifier {
    store: Store,
    clock: Clock,
    nas: Arc<NasTable>,
    calendars: Calendars,
    clocks: Clocks,
    repair: bool,
    verdict: Verdict,
    dropped_until: Option<i64>,
    seen: HashSet<i64>,
}

type Key = (String, String);

impl Verifier {
    pub fn new(store: Store, clock: Clock, nas: Arc<NasTable>, repair: bool) -> Self {
        Self {
            store,
            clock,
            nas,
            calendars: Calendars::default(),
            clocks: Clocks::default(),
            repair,
            verdict: Verdict::default(),
            dropped_until: None,
            seen: HashSet::new(),
        }
    }

    /// Compares everything. `progress` is told how many of how many steps are done.
    ///
    /// **Errors**: the database, or a damaged page of the journal.
    pub async fn run(mut self, mut progress: impl FnMut(u64, u64)) -> Result<Verdict, StoreError> {
        let mut tx = self.store.read_snapshot().await?;
        let until = fold::watermarks(&mut tx).await?;
        self.verdict.flows.moved = stored::moved_accounts(&mut tx).await?;
        tx.rollback().await?;
        let mut tx = self.store.read_journal().await?;
        let extent = journal::extent(&mut tx, &until).await?;
        tx.rollback().await?;
        self.verdict.records = extent.records;
        self.verdict.dropped_days = extent.dropped_days;
        self.dropped_until = extent.dropped_until;
        let slices = u32::try_from(extent.records / RECORDS_A_SLICE + 1).unwrap_or(u32::MAX);
        let steps = u64::from(slices) + 2;
        for (step, keys) in (0u64..).zip(journal::slices(slices)) {
            progress(step, steps);
            self.slice(&keys).await?;
        }
        progress(steps - 2, steps);
        self.strays().await?;
        progress(steps - 1, steps);
        self.totals().await?;
        progress(steps, steps);
        Ok(self.verdict)
    }

    /// Compares the sessions whose records hash into a slice.
    async fn slice(&mut self, keys: &std::ops::RangeInclusive<i64>) -> Result<(), StoreError> {
        let mut tx = self.store.read_snapshot().await?;
        self.clocks.load(&mut tx).await?;
        let until = fold::watermarks(&mut tx).await?;
        let mut journalled = self.store.read_journal().await?;
        let rows = journal::slice(&mut journalled, keys, &until).await?;
        journalled.rollback().await?;
        let mut records: BTreeMap<Key, Vec<Record>> = BTreeMap::new();
        for row in &rows {
            let Ok(mut record) = rules::read(&self.nas, row) else {
                self.verdict.flows.add_unreadable(to_micros(row.entry.arrived_at), &row.entry.packet);
                continue;
            };
            if record.kind.is_session() {
                self.clocks.correct(&mut record);
                records.entry((record.nas.clone(), record.session.clone())).or_default().push(record);
            }
        }
        drop(rows);
        let names: Vec<Key> = records.keys().cloned().collect();
        let mut wrong = Vec::new();
        for names in names.chunks(KEYS_AT_ONCE) {
            let mut found = self.load(&mut tx, names).await?;
            for key in names {
                let sessions = found.remove(key).unwrap_or_default();
                if self.compare(&mut tx, key, &sessions, &records[key]).await? {
                    wrong.push(key.clone());
                }
            }
        }
        tx.rollback().await?;
        self.mend(wrong).await
    }

    /// Compares the sessions that no record spoke of.
    async fn strays(&mut self) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let mut tx = self.store.read_snapshot().await?;
            let rows = stored::sessions_after(&mut tx, after, SESSIONS_AT_ONCE).await?;
            tx.rollback().await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.id;
            for row in rows {
                if self.seen.contains(&row.id) {
                    continue;
                }
                let key = (row.nas, row.session);
                let mut tx = self.store.read_snapshot().await?;
                let records = self.records_of(&mut tx, &key).await?;
                let sessions = self.load(&mut tx, std::slice::from_ref(&key)).await?.remove(&key).unwrap_or_default();
                let wrong = self.compare(&mut tx, &key, &sessions, &records).await?;
                tx.rollback().await?;
                if wrong {
                    self.mend(vec![key]).await?;
                }
            }
        }
    }

    async fn load(&self, tx: &mut Tx, keys: &[Key]) -> Result<HashMap<Key, Vec<StoredSession>>, StoreError> {
        let names: Vec<(&str, &str)> = keys.iter().map(|(nas, session)| (nas.as_str(), session.as_str())).collect();
        let mut found: HashMap<Key, Vec<StoredSession>> = HashMap::new();
        for session in sessions::of_keys(tx, &names).await? {
            found.entry((session.nas.clone(), session.session.clone())).or_default().push(session);
        }
        Ok(found)
    }

    /// Compares all incarnations of one session id. `true`: something differs.
    async fn compare(
        &mut self,
        tx: &mut Tx,
        key: &Key,
        sessions: &[StoredSession],
        records: &[Record],
    ) -> Result<bool, StoreError> {
        let ids: Vec<i64> = sessions.iter().filter_map(|session| session.id).collect();
        self.verdict.sessions += ids.iter().filter(|id| self.seen.insert(**id)).count() as u64;
        // Counted again when it is written; until then it is known to be incomplete.
        let waiting = sessions.iter().any(|session| session.refold);
        let begins = |session: &StoredSession| session.state.started_at();
        let from_records = records.iter().map(|record| to_micros(record.event_at));
        let earliest = sessions.iter().map(begins).chain(from_records).min();
        let cut = |until: i64| earliest.is_none_or(|at| at - CLOCKS_APART <= until);
        let accounts: HashSet<i64> =
            sessions.iter().filter_map(|session| session.owner).map(|owner| owner.account_id).collect();
        let now = self.clock.now();
        self.calendars.refresh(tx, now).await?;
        self.calendars.learn(tx, accounts.clone(), now).await?;
        if waiting || self.dropped_until.is_some_and(cut) {
            self.verdict.excluded += 1;
            return self.leave_out(tx, sessions).await;
        }
        let identity = fold::identities(tx, &[key.0.as_str()]).await?.into_iter().next();
        let account = accounts.iter().next().copied();
        let facts = desk::facts(&key.0, identity.as_ref(), account, &self.nas, &self.calendars);
        let mut doubts: HashMap<usize, Favoured> = HashMap::new();
        let trace = |traced: Traced<'_>| {
            let octets = traced.favoured.iter().map(|octets| i128::from(*octets)).sum::<i128>();
            if octets > 0 {
                doubts.entry(traced.state).or_default().push((traced.event_at, octets));
            }
        };
        // What cannot be folded at all was told as an exception when it came.
        let Ok(fresh) = refold_with(records, &facts, trace) else { return self.leave_out(tx, sessions).await };
        let old: Vec<&SessionState> = sessions.iter().map(|session| &session.state).collect();
        let mut now_is: Vec<Option<(&SessionState, Favoured)>> = vec![None; sessions.len()];
        let before = self.verdict.differences;
        for ((number, state), place) in fresh.iter().enumerate().zip(continued(&old, &fresh)) {
            let doubts = doubts.remove(&number).unwrap_or_default();
            if let Some(place) = place {
                now_is[place] = Some((state, doubts));
                continue;
            }
            self.verdict.flows.add(&self.calendars, None, Some(state), &doubts, &[]);
            self.note(Finding {
                what: What::Session,
                nas: Some(key.0.clone()),
                session: Some(key.1.clone()),
                service_id: None,
                period: None,
                stored: Amount::default(),
                refolded: state.totals(),
            });
        }
        let columns = stored::columns(tx, &ids).await?;
        for (session, fresh) in sessions.iter().zip(now_is) {
            let (fresh, doubts) = fresh.map_or((None, Favoured::new()), |(state, doubts)| (Some(state), doubts));
            let truth = fresh.map_or(Amount::default(), SessionState::totals);
            let row = columns.iter().find(|row| Some(row.id) == session.id);
            let shown = row.map_or(session.state.totals(), |row| Amount {
                in_octets: row.in_octets,
                out_octets: row.out_octets,
                seconds: row.seconds,
                sessions: session.state.totals().sessions,
            });
            for wrong in [shown, session.state.totals()].into_iter().filter(|amount| *amount != truth).take(1) {
                self.note(Finding {
                    what: What::Session,
                    nas: Some(key.0.clone()),
                    session: Some(key.1.clone()),
                    service_id: session.owner.map(|owner| owner.service_id),
                    period: None,
                    stored: wrong,
                    refolded: truth,
                });
            }
            let is = self.compare_ledger(tx, key, session, fresh).await?;
            self.verdict.flows.add(&self.calendars, Some(session), fresh, &doubts, &is);
        }
        Ok(self.verdict.differences > before)
    }

    /// Sums what is stored of sessions that no records can prove.
    async fn leave_out(&mut self, tx: &mut Tx, sessions: &[StoredSession]) -> Result<bool, StoreError> {
        for session in sessions {
            let mut is: Vec<(i64, i128)> = by_time(session.state.pending()).collect();
            if let (Some(owner), Some(id)) = (session.owner, session.id) {
                is.extend(ledger::of_session(tx, owner.account_id, id).await?.iter().map(octets_of));
            }
            self.verdict.flows.add_uncompared(&self.calendars, session.owner, &is);
        }
        Ok(false)
    }

    /// Compares what a session has in the ledger and pending with what its records give, period by period. Gives the
    /// octets it has, by when they were used.
    async fn compare_ledger(
        &mut self,
        tx: &mut Tx,
        key: &Key,
        session: &StoredSession,
        fresh: Option<&SessionState>,
    ) -> Result<Vec<(i64, i128)>, StoreError> {
        let mut octets: Vec<(i64, i128)> = by_time(session.state.pending()).collect();
        let (Some(owner), Some(id)) = (session.owner, session.id) else { return Ok(octets) };
        let period = |at: i64| self.calendars.period_start(owner.account_id, at);
        let mut stored = Vec::new();
        for entry in ledger::of_session(tx, owner.account_id, id).await? {
            octets.push(octets_of(&entry));
            stored.push((period(entry.from_at), entry.bucket().amount));
        }
        stored.extend(session.state.pending().iter().map(|(start, amount)| (period(start), amount)));
        let fresh = fresh.into_iter().flat_map(|state| state.pending().iter());
        let must = sums(fresh.map(|(start, amount)| (period(start), amount)));
        let (is, must) = match (sums(stored), must) {
            (Ok(is), Ok(must)) => (is, must),
            (Err(beyond), _) | (_, Err(beyond)) => {
                self.note(Finding {
                    what: What::Beyond,
                    nas: Some(key.0.clone()),
                    session: Some(key.1.clone()),
                    service_id: Some(owner.service_id),
                    period: beyond.and_then(from_micros),
                    stored: Amount::default(),
                    refolded: Amount::default(),
                });
                return Ok(octets);
            }
        };
        for (period, is, must) in differences(&is, &must) {
            self.note(Finding {
                what: What::Ledger,
                nas: Some(key.0.clone()),
                session: Some(key.1.clone()),
                service_id: Some(owner.service_id),
                period: period.and_then(from_micros),
                stored: is,
                refolded: must,
            });
        }
        Ok(octets)
    }

    /// Compares running totals with the ledger and what is pending.
    async fn totals(&mut self) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let mut tx = self.store.read_snapshot().await?;
            let accounts = stored::accounts_after(&mut tx, after, ACCOUNTS_AT_ONCE).await?;
            let Some(last) = accounts.last().copied() else { return tx.rollback().await };
            after = last;
            let now = self.clock.now();
            self.calendars.refresh(&mut tx, now).await?;
            self.calendars.learn(&mut tx, accounts.iter().copied().collect(), now).await?;
            let mut wrong = Vec::new();
            for account in accounts {
                self.verdict.accounts += 1;
                let differing = match self.totals_of(&mut tx, account).await? {
                    Ok(differing) => differing,
                    Err((service, period)) => {
                        self.note(Finding {
                            what: What::Beyond,
                            nas: None,
                            session: None,
                            service_id: Some(service),
                            period: from_micros(period),
                            stored: Amount::default(),
                            refolded: Amount::default(),
                        });
                        continue;
                    }
                };
                if !differing.is_empty() {
                    wrong.push(account);
                }
                for (service, period, is, must) in differing {
                    self.note(Finding {
                        what: What::Total,
                        nas: None,
                        session: None,
                        service_id: Some(service),
                        period: from_micros(period),
                        stored: is,
                        refolded: must,
                    });
                }
            }
            tx.rollback().await?;
            if self.repair {
                for account in wrong {
                    self.set_totals(account).await?;
                }
            }
        }
    }

    /// (service, period start, stored, true) where they differ; the inner error is the service and period whose sum leaves 64
    /// bits.
    async fn totals_of(&self, tx: &mut Tx, account: i64) -> Result<Result<Differing, (i64, i64)>, StoreError> {
        let (mut is, mut must) = (BTreeMap::new(), BTreeMap::new());
        for (service, period, amount) in stored::totals(tx, account).await? {
            // A period of a cycle the account no longer follows: its usage is counted where it was then.
            if self.calendars.period_start(account, period) != Some(period) {
                return Ok(Ok(Vec::new()));
            }
            is.insert((service, period), amount);
        }
        let mut after = 0;
        loop {
            let entries = ledger::of_account(tx, account, after, ENTRIES_AT_ONCE).await?;
            let Some(last) = entries.last() else { break };
            after = last.sequence;
            for entry in entries {
                if let Some(period) = self.calendars.period_start(account, entry.from_at) {
                    let added = add(&mut must, (entry.service_id, period), entry.bucket().amount);
                    if let Err(beyond) = added {
                        return Ok(Err(beyond));
                    }
                }
            }
        }
        for session in sessions::pending_of_accounts(tx, &[account]).await? {
            let Some(owner) = session.owner else { continue };
            for (start, amount) in session.state.pending().iter() {
                let Some(period) = self.calendars.period_start(account, start) else { continue };
                if let Err(beyond) = add(&mut must, (owner.service_id, period), amount) {
                    return Ok(Err(beyond));
                }
            }
        }
        let named = |((service, period), is, must)| (service, period, is, must);
        Ok(Ok(differences(&is, &must).into_iter().map(named).collect()))
    }

    async fn set_totals(&mut self, account: i64) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut tx = self.store.write_derived().await?;
        fold::interrupt(&mut tx).await?;
        self.calendars.learn(&mut tx, HashSet::from([account]), now).await?;
        for (service, period, _, must) in self.totals_of(&mut tx, account).await?.unwrap_or_default() {
            stored::set_total(&mut tx, service, period, must).await?;
            self.verdict.repaired += 1;
        }
        tx.commit().await
    }

    /// Rebuilds sessions from their records; what the ledger has too much or too little becomes new entries.
    async fn mend(&mut self, keys: Vec<Key>) -> Result<(), StoreError> {
        if !self.repair {
            return Ok(());
        }
        for key in keys {
            // A session without a row is folded report by report first, and may then ask for all of them in order.
            for _ in 0..2 {
                self.rebuild(&key).await?;
            }
            self.verdict.repaired += 1;
        }
        Ok(())
    }

    async fn rebuild(&mut self, key: &Key) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut tx = self.store.write_derived().await?;
        fold::interrupt(&mut tx).await?;
        let records = self.records_of(&mut tx, key).await?;
        let mut desk = Desk::of_key(&mut tx, &key.0, &key.1).await?;
        self.calendars.refresh(&mut tx, now).await?;
        self.calendars.learn(&mut tx, desk.accounts(), now).await?;
        if desk.earliest().is_none() {
            for record in &records {
                // A report that cannot be folded was told as an exception when it came.
                let _: Result<(), FoldError> = desk.fold(record, &self.nas, &self.calendars);
            }
        } else if desk.refold(&mut tx, &key.0, &records, &self.nas, &self.calendars).await?.is_err() {
            return tx.rollback().await;
        }
        desk.close();
        desk.attribute(&mut tx, &self.nas).await?;
        self.calendars.learn(&mut tx, desk.accounts(), now).await?;
        desk.save(&mut tx, &self.calendars, now).await?;
        tx.commit().await
    }

    /// The records of a session that were folded by the moment `tx` sees.
    async fn records_of(&self, tx: &mut Tx, key: &Key) -> Result<Vec<Record>, StoreError> {
        let until = fold::watermarks(tx).await?;
        let session = SessionKey::new(rules::client_of(&self.nas, &key.0), &key.1);
        let mut journalled = self.store.read_journal().await?;
        let found = journal::of_session(&mut journalled, &session, i64::MIN, &until, usize::MAX).await?;
        journalled.rollback().await?;
        let read = found.rows.iter().filter_map(|row| rules::read(&self.nas, row).ok()).map(|mut record| {
            self.clocks.correct(&mut record);
            record
        });
        Ok(read.filter(|record| record.nas == key.0 && record.session == key.1).collect())
    }

    fn note(&mut self, finding: Finding) {
        self.verdict.differences += 1;
        if self.verdict.findings.len() < FINDINGS_MAX {
            self.verdict.findings.push(finding);
        }
    }
}

/// When an entry's octets were used, and how many, in both directions.
fn octets_of(entry: &ledger::LedgerEntry) -> (i64, i128) {
    (entry.from_at, i128::from(entry.in_octets) + i128::from(entry.out_octets))
}

/// (service, period start, stored, true).
type Differing = Vec<(i64, i64, Amount, Amount)>;

/// The sum of each key. **Errors**: the key whose sum leaves 64 bits.
fn sums<K: Ord + Copy>(amounts: impl IntoIterator<Item = (K, Amount)>) -> Result<BTreeMap<K, Amount>, K> {
    let mut sums = BTreeMap::new();
    for (key, amount) in amounts {
        add(&mut sums, key, amount)?;
    }
    Ok(sums)
}

fn add<K: Ord + Copy>(sums: &mut BTreeMap<K, Amount>, key: K, amount: Amount) -> Result<(), K> {
    let sum = sums.entry(key).or_default();
    *sum = sum.plus(amount).map_err(|_| key)?;
    Ok(())
}

/// Keys under which the two differ, with both amounts.
fn differences<K: Ord + Copy>(is: &BTreeMap<K, Amount>, must: &BTreeMap<K, Amount>) -> Vec<(K, Amount, Amount)> {
    let keys: std::collections::BTreeSet<K> = is.keys().chain(must.keys()).copied().collect();
    let amount = |of: &BTreeMap<K, Amount>, key: K| of.get(&key).copied().unwrap_or_default();
    keys.into_iter().map(|key| (key, amount(is, key), amount(must, key))).filter(|(_, is, must)| is != must).collect()
}

/// Differences that are told one by one.
pub const FINDINGS_MAX: usize = 100;
/// About thirty megabytes.
const RECORDS_A_SLICE: i64 = 100_000;
const KEYS_AT_ONCE: usize = 200;
const SESSIONS_AT_ONCE: i64 = 1_000;
const ACCOUNTS_AT_ONCE: i64 = 500;
const ENTRIES_AT_ONCE: i64 = 5_000;
/// A report never arrives before what it reports, but for the clocks: an hour.
const CLOCKS_APART: i64 = 3_600_000_000;
