//! The sessions of one transaction on the desk: loaded in bulk, folded in memory, attributed, written back in bulk.
//!
//! In: records, and what the store holds of their sessions. Out: changed sessions, ledger entries, totals, identities.
//! The transaction is the caller's, and the watermark moves in it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::calendars::Calendars;
use super::keyed::{ByKey, Memory};
use super::{owners, rules};
use crate::billing::class::{SessionWords, class_of};
use crate::collector::NasTable;
use crate::store::fold::Identity;
use crate::store::ledger::{self, Cause, NewEntry};
use crate::store::sessions::{self, Owner, StoredSession};
use crate::store::{StoreError, Tx, fold};
use crate::usage::{
    self, Amount, Buckets, Choice, Cuts, FoldError, FoldFacts, Outcome, Record, SessionState, Straddling, choose,
};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// What one desk wrote.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Written {
    pub in_octets: i64,
    pub out_octets: i64,
    pub duplicates: u64,
}

#[derive(Default)]
pub(super) struct Desk {
    sessions: Vec<Working>,
    /// Incarnations of a session id, by their place in `sessions`.
    by_key: ByKey<Vec<usize>>,
    identities: HashMap<String, (Identity, bool)>,
    duplicates: u64,
}

struct Working {
    stored: StoredSession,
    /// Usage that came or went since it was loaded.
    change: Buckets,
    /// Newest event when it was loaded: hours before it may be in the ledger.
    last_at_before: i64,
    /// Has an owner since this transaction only: all its usage is new to the totals.
    attached: bool,
    refolded: bool,
    touched: bool,
}

impl Desk {
    /// Loads the sessions and identities that these records speak of, what is remembered from `memory`.
    pub async fn load(tx: &mut Tx, records: &[Record], memory: &mut Memory) -> Result<Self, StoreError> {
        let mut desk = Self::default();
        let mut unknown = Vec::new();
        for record in records.iter().filter(|record| record.kind.is_session()) {
            if desk.by_key.get(&record.nas, &record.session).is_some() {
                continue;
            }
            desk.by_key.insert(&record.nas, &record.session, Vec::new());
            match memory.take(&record.nas, &record.session) {
                Some(incarnations) => desk.lay_out(incarnations),
                None => unknown.push((record.nas.as_str(), record.session.as_str())),
            }
        }
        if !unknown.is_empty() {
            desk.lay_out(sessions::of_keys(tx, &unknown).await?);
        }
        let names: HashSet<&str> = records.iter().map(|record| record.nas.as_str()).collect();
        desk.learn_identities(tx, names.into_iter().collect()).await?;
        Ok(desk)
    }

    /// Loads sessions by id, for the sweeps.
    pub async fn of_sessions(tx: &mut Tx, ids: &[i64]) -> Result<Self, StoreError> {
        let mut desk = Self::default();
        desk.lay_out(sessions::of_ids(tx, ids).await?);
        Ok(desk)
    }

    /// Loads all incarnations of one session id.
    pub async fn of_key(tx: &mut Tx, nas: &str, session: &str) -> Result<Self, StoreError> {
        let mut desk = Self::default();
        desk.lay_out(sessions::of_keys(tx, &[(nas, session)]).await?);
        desk.learn_identities(tx, vec![nas]).await?;
        Ok(desk)
    }

    /// Accounts that own a session on the desk.
    pub fn accounts(&self) -> HashSet<i64> {
        self.sessions.iter().filter_map(|working| working.stored.owner).map(|owner| owner.account_id).collect()
    }

    /// Folds one record into its session or its identity.
    ///
    /// **Errors**: the record must be quarantined; nothing was changed.
    pub fn fold(&mut self, record: &Record, nas: &NasTable, calendars: &Calendars) -> Result<(), FoldError> {
        let (gigawords, rebooted_at) = self.meet(record);
        if !record.kind.is_session() {
            return Ok(());
        }
        let facts = FoldFacts {
            gigawords,
            max_bits_per_second: rules::max_bits_per_second(nas, &record.nas),
            edges: &[],
            cuts: Cuts::NONE,
            straddling: Straddling::default(),
            rebooted_at: rebooted_at.and_then(from_micros),
        };
        let index = self.session_of(record, &facts);
        let working = &mut self.sessions[index];
        let facts = match working.stored.owner {
            Some(Owner { account_id, .. }) => {
                let (edges, straddling) = (calendars.edges(account_id), calendars.straddling(account_id));
                FoldFacts { edges, cuts: calendars.cuts(account_id), straddling, ..facts }
            }
            None => facts,
        };
        match working.stored.state.fold(record, &facts) {
            Ok(Outcome::Changed(change)) => working.change.merge(&change)?,
            Ok(Outcome::Duplicate) => {
                self.duplicates += 1;
                return Ok(());
            }
            Ok(Outcome::NeedsRefold) => working.stored.refold = true,
            Err(error) => {
                if !working.touched && working.stored.id.is_none() {
                    self.forget_last();
                }
                return Err(error);
            }
        }
        working.describe(record);
        working.touched = true;
        Ok(())
    }

    /// Closes what a reboot or a newer incarnation ended.
    pub fn close(&mut self) {
        for working in &mut self.sessions {
            let rebooted_at = self.identities.get(&working.stored.nas).and_then(|(identity, _)| identity.rebooted_at);
            working.touched |= working.stored.state.close_if_rebooted(rebooted_at.and_then(from_micros));
        }
        for members in self.by_key.values().filter(|members| members.len() > 1) {
            let newest =
                members.iter().copied().max_by_key(|index| (self.sessions[*index].stored.state.started_at(), *index));
            for index in members.iter().copied().filter(|index| Some(*index) != newest) {
                let working = &mut self.sessions[index];
                working.touched |= working.stored.state.close_superseded();
            }
        }
    }

    /// Closes the desk's sessions for a reboot of their identity.
    pub fn close_rebooted(&mut self, rebooted_at: i64) {
        for working in &mut self.sessions {
            working.touched |= working.stored.state.close_if_rebooted(from_micros(rebooted_at));
        }
    }

    /// Folds all records of an identity's session id anew and puts what they give in the place of what was known. The
    /// desk holds all incarnations of that id and nothing else.
    pub async fn refold(
        &mut self,
        tx: &mut Tx,
        nas: &str,
        records: &[Record],
        table: &NasTable,
        calendars: &Calendars,
    ) -> Result<Result<(), FoldError>, StoreError> {
        let account = self.accounts().into_iter().next();
        let facts = facts(nas, self.identity(nas), account, table, calendars);
        let states = match usage::refold(records, &facts) {
            Ok(states) => states,
            Err(error) => return Ok(Err(error)),
        };
        let mut emitted: HashMap<i64, Vec<ledger::LedgerEntry>> = HashMap::new();
        for (account, session) in self.owned() {
            emitted.insert(session, ledger::of_session(tx, account, session).await?);
        }
        Ok(self.replace(states, &emitted, facts.cuts))
    }

    fn replace(
        &mut self,
        fresh: Vec<SessionState>,
        emitted: &HashMap<i64, Vec<ledger::LedgerEntry>>,
        cuts: Cuts<'_>,
    ) -> Result<(), FoldError> {
        let old: Vec<&SessionState> = self.sessions.iter().map(|working| &working.stored.state).collect();
        let continues = usage::continued(&old, &fresh);
        let mut states: Vec<Option<SessionState>> = self.sessions.iter().map(|_| None).collect();
        let mut added = Vec::new();
        for (state, continued) in fresh.into_iter().zip(continues) {
            match continued {
                Some(index) => states[index] = Some(state),
                None => added.push(state),
            }
        }
        for (working, state) in self.sessions.iter_mut().zip(states) {
            let mut state = state.unwrap_or_else(|| {
                let mut void = working.stored.state.clone();
                void.void();
                void
            });
            let entries = working.stored.id.and_then(|id| emitted.get(&id)).map_or(&[][..], Vec::as_slice);
            let mut change = state.pending().clone();
            for (start, amount) in working.stored.state.pending().iter() {
                change.add(start, amount.negated())?;
            }
            let entries: Vec<_> = entries.iter().map(ledger::LedgerEntry::bucket).collect();
            for entry in &entries {
                change.add(entry.from_at, entry.amount.negated())?;
            }
            state.settle(&entries, cuts)?;
            working.change = change;
            working.stored.state = state;
            (working.stored.refold, working.refolded, working.touched) = (false, true, true);
        }
        let model = self.sessions.first().map(|working| working.stored.clone());
        for (place, state) in added.into_iter().enumerate() {
            let Some(model) = &model else { break };
            let incarnation = self.next_incarnation(&model.nas, &model.session) + place as i64;
            let stored = StoredSession {
                id: None,
                incarnation,
                owner: None,
                usage_class: None,
                refold: false,
                state,
                ..model.clone()
            };
            self.place(stored);
            let working = self.sessions.last_mut().expect("just placed");
            (working.refolded, working.touched) = (true, true);
        }
        Ok(())
    }

    /// Finds owners for sessions that have none, as of when they started.
    pub async fn attribute(&mut self, tx: &mut Tx, nas: &NasTable) -> Result<(), StoreError> {
        let seeking: Vec<&mut Working> = self
            .sessions
            .iter_mut()
            .filter(|working| working.stored.owner.is_none() && working.stored.id.is_none_or(|_| working.touched))
            .collect();
        let sought: Vec<&StoredSession> = seeking.iter().map(|working| &working.stored).collect();
        let owners = owners::of(tx, &sought, nas).await?;
        for (working, owner) in seeking.into_iter().zip(owners) {
            if let Some(owner) = owner {
                working.stored.owner = Some(owner);
                (working.attached, working.touched) = (true, true);
            }
        }
        Ok(())
    }

    /// Marks every session as to be written, so that `attribute` looks for their owners.
    pub fn seek_owners(&mut self) {
        self.sessions.iter_mut().for_each(|working| working.touched = true);
    }

    /// Decides, once and for all, of which class the sessions are whose owner was just found.
    async fn classify(&mut self, tx: &mut Tx, calendars: &Calendars) -> Result<(), StoreError> {
        let found = |working: &&mut Working| {
            let rules = working.stored.owner.map(|owner| calendars.classes(owner.account_id));
            working.attached && rules.is_some_and(|rules| !rules.is_empty())
        };
        let mut attached: Vec<&mut Working> = self.sessions.iter_mut().filter(found).collect();
        if attached.is_empty() {
            return Ok(());
        }
        let services: Vec<i64> =
            attached.iter().filter_map(|working| working.stored.owner).map(|owner| owner.service_id).collect();
        let types: HashMap<i64, String> = fold::service_types(tx, &services).await?.into_iter().collect();
        for working in &mut attached {
            let stored = &mut working.stored;
            let Some(owner) = stored.owner else { continue };
            let Some(service) = types.get(&owner.service_id).and_then(|word| word.parse().ok()) else { continue };
            let words = SessionWords {
                class: stored.class.as_deref(),
                nas: &stored.nas,
                user: stored.user_name.as_deref(),
                service,
            };
            stored.usage_class = class_of(calendars.classes(owner.account_id), &words).map(Arc::from);
        }
        Ok(())
    }

    /// Writes everything that changed: sessions, the hours that are complete, totals, identities.
    pub async fn save(&mut self, tx: &mut Tx, calendars: &Calendars, now: Timestamp) -> Result<Written, StoreError> {
        self.classify(tx, calendars).await?;
        let mut totals: BTreeMap<(i64, i64), Amount> = BTreeMap::new();
        // Periods that are over: no threshold acts in them.
        let mut past = HashSet::new();
        let mut taken = Vec::new();
        for (index, working) in self.sessions.iter_mut().enumerate().filter(|(_, working)| working.touched) {
            let Some(owner) = working.stored.owner else { continue };
            let state = &working.stored.state;
            let straddled = calendars.is_straddled(owner.account_id, state.started_at(), state.last_at());
            if working.attached && (straddled || calendars.is_coarse_for(owner.account_id, state)) {
                // Its usage was spread before it was known that its tenant wants it otherwise.
                working.stored.refold = !working.refolded;
            }
            let source = if working.attached { working.stored.state.pending() } else { &working.change };
            for (start, amount) in source.iter() {
                let Some(period) = calendars.period_start(owner.account_id, start) else { continue };
                if !calendars.watch().is_idle() && !calendars.is_recent(owner.account_id, period, now) {
                    past.insert((owner.service_id, period));
                }
                let sum = totals.entry((owner.service_id, period)).or_default();
                match sum.plus(amount) {
                    Ok(grown) => *sum = grown,
                    Err(FoldError::Overflow) => {
                        tracing::error!(
                            service.id = owner.service_id,
                            "A running total would leave 64 bits; it stays behind the ledger."
                        );
                    }
                }
            }
            // What it gathered may be coarser than its account is billed for: the ledger gets it when it is folded anew.
            if working.stored.refold {
                continue;
            }
            for bucket in working.stored.state.take_ready(calendars.cuts(owner.account_id)) {
                let cause = match () {
                    () if working.refolded => Cause::Refold,
                    () if working.attached && working.stored.id.is_some() => Cause::Attached,
                    () if bucket.until_at <= working.last_at_before => Cause::Late,
                    () => Cause::Usage,
                };
                taken.push((index, owner, bucket, cause));
            }
        }
        let mut touched: Vec<&mut StoredSession> =
            self.sessions.iter_mut().filter(|working| working.touched).map(|working| &mut working.stored).collect();
        sessions::save(tx, &mut touched).await?;
        let mut written = Written { duplicates: self.duplicates, ..Written::default() };
        let mut entries = Vec::with_capacity(taken.len());
        for (index, owner, bucket, cause) in taken {
            let session_id = self.sessions[index].stored.id.expect("saved sessions have ids");
            written.in_octets = written.in_octets.saturating_add(bucket.amount.in_octets);
            written.out_octets = written.out_octets.saturating_add(bucket.amount.out_octets);
            let period_start_at = calendars.period_start(owner.account_id, bucket.from_at);
            let class = self.sessions[index].stored.usage_class.clone();
            entries.push(NewEntry { owner, session_id, bucket, cause, class, period_start_at });
        }
        ledger::append(tx, &entries, now).await?;
        ledger::add_totals(tx, &totals).await?;
        totals.retain(|key, amount| !past.contains(key) && !amount.is_zero());
        calendars.watch().ask(tx, &totals).await?;
        let identities: Vec<&Identity> =
            self.identities.values().filter(|(_, touched)| *touched).map(|(identity, _)| identity).collect();
        fold::save_identities(tx, &identities).await?;
        Ok(written)
    }

    /// Gives what is saved and committed to `memory`. The desk must hold all incarnations of its session ids.
    pub fn remember(self, memory: &mut Memory) {
        let mut by_key: ByKey<Vec<StoredSession>> = ByKey::default();
        for Working { stored, .. } in self.sessions {
            match by_key.get_mut(&stored.nas, &stored.session) {
                Some(incarnations) => incarnations.push(stored),
                None => {
                    let (nas, session) = (stored.nas.clone(), stored.session.clone());
                    by_key.insert(&nas, &session, vec![stored]);
                }
            }
        }
        by_key.drain().for_each(|(nas, session, incarnations)| memory.keep(&nas, &session, incarnations));
    }

    /// Makes `memory` forget what was changed here without it.
    pub fn forget(&self, memory: &mut Memory) {
        for Working { stored, .. } in &self.sessions {
            memory.take(&stored.nas, &stored.session);
        }
    }

    /// (account, session) of what is on the desk and has an owner.
    fn owned(&self) -> Vec<(i64, i64)> {
        let owned = |working: &Working| Some((working.stored.owner?.account_id, working.stored.id?));
        self.sessions.iter().filter_map(owned).collect()
    }

    /// The first instant any session on the desk is known to have lived.
    pub fn earliest(&self) -> Option<i64> {
        self.sessions.iter().map(|working| working.stored.state.started_at()).min()
    }

    fn identity(&self, nas: &str) -> Option<&Identity> {
        self.identities.get(nas).map(|(identity, _)| identity)
    }

    fn lay_out(&mut self, sessions: Vec<StoredSession>) {
        sessions.into_iter().for_each(|stored| self.place(stored));
    }

    fn place(&mut self, stored: StoredSession) {
        let place = self.sessions.len();
        match self.by_key.get_mut(&stored.nas, &stored.session) {
            Some(members) => members.push(place),
            None => self.by_key.insert(&stored.nas, &stored.session, vec![place]),
        }
        let last_at_before = if stored.id.is_some() { stored.state.last_at() } else { i64::MIN };
        self.sessions.push(Working {
            stored,
            change: Buckets::default(),
            last_at_before,
            attached: false,
            refolded: false,
            touched: false,
        });
    }

    fn forget_last(&mut self) {
        let Some(gone) = self.sessions.pop() else { return };
        if let Some(members) = self.by_key.get_mut(&gone.stored.nas, &gone.stored.session) {
            members.pop();
        }
    }

    async fn learn_identities(&mut self, tx: &mut Tx, names: Vec<&str>) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        for identity in fold::identities(tx, &names).await? {
            self.identities.insert(identity.nas.clone(), (identity, false));
        }
        Ok(())
    }

    /// Whether the record's identity sends Gigawords, and when it rebooted last; notes what the record tells of both.
    fn meet(&mut self, record: &Record) -> (bool, Option<i64>) {
        let arrived_at = to_micros(record.arrived_at);
        if !self.identities.contains_key(&record.nas) {
            let new = Identity {
                nas: record.nas.clone(),
                gigawords: false,
                rebooted_at: None,
                swept_at: None,
                first_seen_at: arrived_at,
                last_seen_at: arrived_at,
            };
            self.identities.insert(record.nas.clone(), (new, true));
        }
        let (identity, touched) = self.identities.get_mut(&record.nas).expect("just met");
        identity.gigawords |= record.gigawords;
        identity.last_seen_at = identity.last_seen_at.max(arrived_at);
        if record.kind.is_reboot() {
            identity.rebooted_at = identity.rebooted_at.max(Some(to_micros(record.event_at)));
        }
        *touched = true;
        (identity.gigawords, identity.rebooted_at)
    }

    fn session_of(&mut self, record: &Record, facts: &FoldFacts<'_>) -> usize {
        let members = self.by_key.get(&record.nas, &record.session).map_or(&[][..], Vec::as_slice);
        if let Choice::Known(at) = choose(members.iter().map(|index| &self.sessions[*index].stored.state), record) {
            return members[at];
        }
        let incarnation = self.next_incarnation(&record.nas, &record.session);
        self.place(StoredSession {
            id: None,
            nas: record.nas.clone(),
            session: record.session.clone(),
            incarnation,
            user_name: None,
            owner: None,
            framed_ip: None,
            framed_prefix: None,
            calling_station: None,
            terminate_cause: None,
            class: None,
            usage_class: None,
            refold: false,
            state: SessionState::new(facts),
        });
        self.sessions.len() - 1
    }

    fn next_incarnation(&self, nas: &str, session: &str) -> i64 {
        let members = self.by_key.get(nas, session).map_or(&[][..], Vec::as_slice);
        members.iter().map(|index| self.sessions[*index].stored.incarnation).max().unwrap_or(0) + 1
    }
}

/// What is known of a session's surroundings when all its records are folded at once.
pub(super) fn facts<'a>(
    nas: &str,
    identity: Option<&Identity>,
    account: Option<i64>,
    table: &NasTable,
    calendars: &'a Calendars,
) -> FoldFacts<'a> {
    FoldFacts {
        gigawords: identity.is_some_and(|identity| identity.gigawords),
        max_bits_per_second: rules::max_bits_per_second(table, nas),
        edges: account.map_or(&[][..], |account| calendars.edges(account)),
        cuts: account.map_or(Cuts::NONE, |account| calendars.cuts(account)),
        straddling: account.map_or(Straddling::default(), |account| calendars.straddling(account)),
        rebooted_at: identity.and_then(|identity| identity.rebooted_at).and_then(from_micros),
    }
}

impl Working {
    /// Notes what the record says of the session besides its counters.
    fn describe(&mut self, record: &Record) {
        let stored = &mut self.stored;
        if stored.user_name.is_none() {
            stored.user_name.clone_from(&record.user);
        }
        if stored.class.is_none() {
            stored.class.clone_from(&record.class);
        }
        if stored.calling_station.is_none() {
            stored.calling_station.clone_from(&record.calling_station);
        }
        stored.framed_ip = record.framed_ip.or(stored.framed_ip);
        if record.framed_prefix.is_some() {
            stored.framed_prefix.clone_from(&record.framed_prefix);
        }
        stored.terminate_cause = record.terminate_cause.or(stored.terminate_cause);
    }
}
