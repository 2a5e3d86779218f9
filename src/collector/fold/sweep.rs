//! What the fold does between batches: owners found late, reboots, sessions to fold anew, sessions gone silent.
//!
//! Each step is bounded and is a transaction of its own; what is left is found again at the next turn.

use std::collections::HashMap;

use super::calendars::Calendars;
use super::clocks::Clocks;
use super::desk::Desk;
use super::keyed::Memory;
use super::lease::{Lease, Turn};
use super::rules;
use crate::collector::NasTable;
use crate::store::journal::SessionKey;
use crate::store::{Store, StoreError, Tx, exceptions, fold, journal, sessions};
use crate::usage::Record;
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// What the sweeps work with.
pub(super) struct Sweeper<'a> {
    pub store: &'a Store,
    pub nas: &'a NasTable,
    pub calendars: &'a mut Calendars,
    pub lease: &'a mut Lease,
    pub memory: &'a mut Memory,
    pub clocks: &'a Clocks,
    pub now: Timestamp,
}

impl Sweeper<'_> {
    /// Gives usage to owners that appeared since the holder `after`. Returns the newest holder seen.
    pub async fn attach(&mut self, after: i64) -> Result<i64, StoreError> {
        let mut tx = self.store.read().await?;
        let newest = sessions::newest_holder(&mut tx).await?;
        tx.rollback().await?;
        if newest == after {
            return Ok(newest);
        }
        // Numbers of concurrent transactions become visible out of order; look back a little.
        let since = (after - HOLDERS_AGAIN).max(0);
        let mut last = 0;
        loop {
            let Some((mut tx, turn)) = self.turn().await? else { return Ok(after) };
            let ids = sessions::unattributed_held(&mut tx, since, last, SESSIONS_A_STEP).await?;
            let Some(highest) = ids.last().copied() else {
                let none = Desk::default();
                self.commit(tx, turn, &none).await?;
                return Ok(newest);
            };
            last = highest;
            let mut desk = Desk::of_sessions(&mut tx, &ids).await?;
            desk.seek_owners();
            desk.attribute(&mut tx, self.nas).await?;
            self.calendars.learn(&mut tx, desk.accounts(), self.now).await?;
            desk.save(&mut tx, self.calendars, self.now).await?;
            self.commit(tx, turn, &desk).await?;
        }
    }

    /// Closes sessions from before their identity's newest Accounting-On or -Off, a bounded number. True: there is more.
    pub async fn close_rebooted(&mut self) -> Result<bool, StoreError> {
        let mut tx = self.store.read().await?;
        let unswept = fold::unswept(&mut tx, 1).await?;
        tx.rollback().await?;
        let Some(identity) = unswept.into_iter().next() else { return Ok(false) };
        let Some((mut tx, turn)) = self.turn().await? else { return Ok(false) };
        let rebooted_at = identity.rebooted_at.unwrap_or(i64::MIN);
        let ids = sessions::rebooted(&mut tx, &identity.nas, rebooted_at, SESSIONS_A_STEP).await?;
        if ids.is_empty() {
            fold::mark_swept(&mut tx, &identity.nas, rebooted_at).await?;
        }
        let mut desk = Desk::of_sessions(&mut tx, &ids).await?;
        desk.close_rebooted(rebooted_at);
        self.calendars.learn(&mut tx, desk.accounts(), self.now).await?;
        desk.save(&mut tx, self.calendars, self.now).await?;
        self.commit(tx, turn, &desk).await?;
        Ok(true)
    }

    /// Folds one session id anew from the journal, if one asks for it. True: there may be more.
    pub async fn refold_one(&mut self) -> Result<bool, StoreError> {
        let mut tx = self.store.read().await?;
        let waiting = sessions::to_refold(&mut tx, 1).await?;
        if waiting.is_empty() {
            return tx.rollback().await.map(|()| false);
        }
        let found = sessions::of_ids(&mut tx, &waiting).await?;
        let watermarks = fold::watermarks(&mut tx).await?;
        let Some(asking) = found.first() else { return Ok(false) };
        let desk = Desk::of_key(&mut tx, &asking.nas, &asking.session).await?;
        tx.rollback().await?;
        let records = self.records_of(&asking.nas, &asking.session, desk.earliest(), &watermarks).await?;
        let records = match records {
            Ok(records) => records,
            Err(day) => {
                let why = format!(
                    "Records of session {} of {} from {day} were dropped from the journal; its late records are not counted.",
                    asking.session, asking.nas
                );
                return self.give_up(&asking.nas, &asking.session, waiting[0], "session_records_dropped", &why).await;
            }
        };

        let Some((mut tx, turn)) = self.turn().await? else { return Ok(false) };
        if fold::watermarks(&mut tx).await? != watermarks {
            // Another daemon folded meanwhile; what it folded is not among the records.
            self.commit(tx, turn, &Desk::default()).await?;
            return Ok(false);
        }
        let mut desk = Desk::of_key(&mut tx, &asking.nas, &asking.session).await?;
        // An owner that is known by now tells how the usage is cut.
        desk.attribute(&mut tx, self.nas).await?;
        self.calendars.learn(&mut tx, desk.accounts(), self.now).await?;
        if desk.refold(&mut tx, &asking.nas, &records, self.nas, self.calendars).await?.is_err() {
            self.commit(tx, turn, &Desk::default()).await?;
            let why = format!(
                "The octets of session {} of {} leave 64 bits; its late records are not counted.",
                asking.session, asking.nas
            );
            return self.give_up(&asking.nas, &asking.session, waiting[0], "session_overflow", &why).await;
        }
        desk.close();
        desk.attribute(&mut tx, self.nas).await?;
        self.calendars.learn(&mut tx, desk.accounts(), self.now).await?;
        desk.save(&mut tx, self.calendars, self.now).await?;
        self.commit(tx, turn, &desk).await?;
        tracing::info!(session.id = waiting[0], nas = asking.nas, "A late record was folded in from the journal.");
        Ok(true)
    }

    /// Asks a person to look at sessions whose counters rose faster than their link can carry. What they told is kept
    /// and counts: the rate that is configured may be what is wrong.
    pub async fn report_impossible(&mut self) -> Result<(), StoreError> {
        let mut tx = self.store.read().await?;
        let found = sessions::impossible(&mut tx, EXCEPTIONS_A_STEP).await?;
        tx.rollback().await?;
        if found.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.write_derived().await?;
        for (nas, session) in found {
            let detail = format!(
                "A counter of session {session} of {nas} rose faster than max_rate allows. It counts as told; look at the \
                 NAS before its period is closed."
            );
            exceptions::open(&mut tx, None, "impossible_rate", &format!("{nas}/{session}"), &detail, self.now).await?;
        }
        tx.commit().await
    }

    /// Calls sessions stale that sent nothing for several of their NAS's intervals.
    pub async fn mark_stale(&mut self) -> Result<u64, StoreError> {
        let mut marked = 0;
        for client in self.nas.clients() {
            let silence = i64::from(client.interim_seconds) * SILENT_INTERVALS * 1_000_000;
            let Some(since) = from_micros(to_micros(self.now) - silence) else { continue };
            let mut tx = self.store.write_derived().await?;
            marked += sessions::mark_stale(&mut tx, &client.name, since).await?;
            tx.commit().await?;
        }
        Ok(marked)
    }

    /// All records of a session; `Err` tells the dropped day that holds more of them.
    async fn records_of(
        &self,
        nas: &str,
        session: &str,
        earliest: Option<i64>,
        watermarks: &HashMap<i64, i64>,
    ) -> Result<Result<Vec<Record>, String>, StoreError> {
        // A report never arrives before what it reports, but for the clocks.
        let since = earliest.unwrap_or(0).saturating_sub(CLOCKS_APART);
        let key = SessionKey::new(rules::client_of(self.nas, nas), session);
        let mut tx = self.store.read_journal().await?;
        let found = journal::of_session(&mut tx, &key, since, watermarks, RECORDS_A_SESSION).await?;
        tx.rollback().await?;
        if let Some(day) = found.dropped {
            return Ok(Err(day));
        }
        let read = found.rows.iter().filter_map(|row| rules::read(self.nas, row).ok()).map(|mut record| {
            self.clocks.correct(&mut record);
            record
        });
        Ok(Ok(read.filter(|record| record.nas == nas && record.session == session).collect()))
    }

    /// A session that cannot be folded stops asking, and a person is asked instead.
    async fn give_up(&mut self, nas: &str, session: &str, id: i64, kind: &str, why: &str) -> Result<bool, StoreError> {
        let Some((mut tx, turn)) = self.turn().await? else { return Ok(false) };
        let mut found = sessions::of_ids(&mut tx, &[id]).await?;
        found.iter_mut().for_each(|stored| stored.refold = false);
        sessions::save(&mut tx, &mut found.iter_mut().collect::<Vec<_>>()).await?;
        let desk = Desk::of_sessions(&mut tx, &[id]).await?;
        exceptions::open(&mut tx, None, kind, &format!("{nas}/{session}"), why, self.now).await?;
        self.commit(tx, turn, &desk).await?;
        Ok(true)
    }

    /// A transaction that alone may fold; `None` while another process does, or has since the last turn.
    async fn turn(&mut self) -> Result<Option<(Tx, Turn)>, StoreError> {
        let mut tx = self.store.write_derived().await?;
        match self.lease.turn(&mut tx, self.now).await? {
            Some(turn) if turn.continued => Ok(Some((tx, turn))),
            _ => tx.rollback().await.map(|()| None),
        }
    }

    /// Commits what was written behind the memory's back.
    async fn commit(&mut self, tx: Tx, turn: Turn, desk: &Desk) -> Result<(), StoreError> {
        tx.commit().await?;
        self.lease.keep(turn);
        desk.forget(self.memory);
        Ok(())
    }
}

const SESSIONS_A_STEP: i64 = 500;
const EXCEPTIONS_A_STEP: i64 = 100;
/// Records of one session read again at most; a year of interims every ten minutes.
const RECORDS_A_SESSION: usize = 60_000;
const HOLDERS_AGAIN: i64 = 256;
const CLOCKS_APART: i64 = 3_600_000_000;
/// Intervals without a report after which a session is called stale.
const SILENT_INTERVALS: i64 = 3;
