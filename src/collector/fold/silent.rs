//! Which sessions of a tenant said nothing for longer than they may, by the records themselves.
//!
//! In: the journal, a slice of sessions at a time; who owns each session. Out: silences inside the accounts' periods, a
//! bounded number of them; the others are counted. Writes nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::calendars::Calendars;
use super::clocks::Clocks;
use super::{desk, rules};
use crate::collector::NasTable;
use crate::store::journal;
use crate::store::sessions::{self, Owner, StoredSession};
use crate::store::{Store, StoreError, fold};
use crate::usage::{Record, Reported, SessionState, Silence, continued, refold_with, silences};
use crate::vocabulary::{Clock, to_micros};

/// What is to be looked through.
#[derive(Debug, Clone)]
pub struct SilenceOrder {
    pub tenant: String,
    /// The period looked at of each cycle, in microseconds.
    pub periods: BTreeMap<String, (i64, i64)>,
    /// So many reporting intervals of its NAS a session may be silent.
    pub intervals: u32,
}

/// A session that was silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentSession {
    pub account_id: i64,
    pub service_id: i64,
    pub nas: String,
    pub session: String,
    pub silence: Silence,
}

/// Looks through all records. Gives the silences and how many more there are. `progress`: done of how many steps.
pub async fn silent_sessions(
    store: &Store,
    clock: &Clock,
    nas: &Arc<NasTable>,
    order: &SilenceOrder,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Vec<SilentSession>, u64), StoreError> {
    let mut tx = store.read_snapshot().await?;
    let until = fold::watermarks(&mut tx).await?;
    tx.rollback().await?;
    let mut journalled = store.read_journal().await?;
    let extent = journal::extent(&mut journalled, &until).await?;
    journalled.rollback().await?;
    let slices = u32::try_from(extent.records / RECORDS_A_SLICE + 1).unwrap_or(u32::MAX);
    let mut look = Look { order, now: to_micros(clock.now()), nas, found: Vec::new(), more: 0 };
    let mut calendars = Calendars::default();
    let mut clocks = Clocks::default();
    for (step, keys) in (0u64..).zip(journal::slices(slices)) {
        progress(step, u64::from(slices));
        let mut tx = store.read_snapshot().await?;
        clocks.load(&mut tx).await?;
        let until = fold::watermarks(&mut tx).await?;
        let mut journalled = store.read_journal().await?;
        let rows = journal::slice(&mut journalled, &keys, &until).await?;
        journalled.rollback().await?;
        let mut records: BTreeMap<(String, String), Vec<Record>> = BTreeMap::new();
        for row in &rows {
            let Ok(mut record) = rules::read(nas, row) else { continue };
            if record.kind.is_session() {
                clocks.correct(&mut record);
                records.entry((record.nas.clone(), record.session.clone())).or_default().push(record);
            }
        }
        drop(rows);
        calendars.refresh(&mut tx, clock.now()).await?;
        let names: Vec<(&str, &str)> = records.keys().map(|(nas, session)| (nas.as_str(), session.as_str())).collect();
        for names in names.chunks(KEYS_AT_ONCE) {
            let mut stored: HashMap<(String, String), Vec<StoredSession>> = HashMap::new();
            for session in sessions::of_keys(&mut tx, names).await? {
                stored.entry((session.nas.clone(), session.session.clone())).or_default().push(session);
            }
            let owners = stored.values().flatten().filter_map(|session| session.owner);
            calendars.learn(&mut tx, owners.map(|owner| owner.account_id).collect(), clock.now()).await?;
            for (key, stored) in stored {
                let identity = fold::identities(&mut tx, &[key.0.as_str()]).await?.into_iter().next();
                look.session(&key, &stored, &records[&key], identity.as_ref(), &calendars);
            }
        }
        tx.rollback().await?;
    }
    progress(u64::from(slices), u64::from(slices));
    look.found.sort_by_key(|found| (found.account_id, found.silence.from, found.session.clone()));
    Ok((look.found, look.more))
}

struct Look<'l> {
    order: &'l SilenceOrder,
    now: i64,
    nas: &'l NasTable,
    found: Vec<SilentSession>,
    more: u64,
}

impl Look<'_> {
    fn session(
        &mut self,
        key: &(String, String),
        stored: &[StoredSession],
        records: &[Record],
        identity: Option<&fold::Identity>,
        calendars: &Calendars,
    ) {
        let owned = stored.iter().filter_map(|session| session.owner);
        let Some(first) =
            owned.map(|owner| owner.account_id).find(|account| self.period(calendars, *account).is_some())
        else {
            return;
        };
        let facts = desk::facts(&key.0, identity, Some(first), self.nas, calendars);
        let mut reports: HashMap<usize, Vec<Reported>> = HashMap::new();
        let fresh = refold_with(records, &facts, |one| {
            let octets = |amount: crate::usage::Amount| i128::from(amount.in_octets) + i128::from(amount.out_octets);
            let octets = one.change.iter().map(|(_, amount)| octets(amount)).sum();
            reports.entry(one.state).or_default().push(Reported { at: one.event_at, octets });
        });
        // What cannot be folded was told as an exception when it came.
        let Ok(fresh) = fresh else { return };
        let interval = self.nas.named(rules::client_of(self.nas, &key.0)).map_or(INTERVAL, |nas| nas.interim_seconds);
        let longest = i64::from(interval) * i64::from(self.order.intervals) * 1_000_000;
        let old: Vec<&SessionState> = stored.iter().map(|session| &session.state).collect();
        for ((number, state), place) in fresh.iter().enumerate().zip(continued(&old, &fresh)) {
            let Some(place) = place else { continue };
            let Some(Owner { account_id, service_id }) = stored[place].owner else { continue };
            let Some(within) = self.period(calendars, account_id) else { continue };
            let next = fresh.iter().map(SessionState::started_at).filter(|began| *began > state.started_at()).min();
            let over = (state.word() != "stopped").then(|| next.unwrap_or(self.now).min(self.now).min(within.1));
            let reports = reports.get(&number).map(Vec::as_slice).unwrap_or_default();
            for silence in silences(reports, state.started_at(), over, longest, within) {
                if self.found.len() >= FOUND_MAX {
                    self.more += 1;
                    continue;
                }
                let (nas, session) = key.clone();
                self.found.push(SilentSession { account_id, service_id, nas, session, silence });
            }
        }
    }

    fn period(&self, calendars: &Calendars, account: i64) -> Option<(i64, i64)> {
        let (tenant, cycle) = calendars.names(account)?;
        if tenant == self.order.tenant { self.order.periods.get(cycle).copied() } else { None }
    }
}

/// Silences that are kept; about twenty megabytes.
const FOUND_MAX: usize = 100_000;
const RECORDS_A_SLICE: i64 = 100_000;
const KEYS_AT_ONCE: usize = 200;
/// The configuration's default for a client it no longer names.
const INTERVAL: u32 = 600;
