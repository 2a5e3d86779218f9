//! Takes a person out of the journal: the records of some sessions keep what was counted and lose who it was. Pages are
//! written anew in their places; the keeper's unfinished work is thrown away first, for it holds copies.

use super::key::SessionKey;
use super::page::{self, PageView};
use super::read::runs_since;
use super::runs::lock;
use super::sealed::{pack, unpack};
use super::{JournalEntry, JournalRow, damaged};
use crate::radius::redact;
use crate::store::{Store, StoreError, Tx, on};
use crate::vocabulary::Timestamp;

/// A session whose records are to lose their person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedSession {
    pub nas: String,
    pub session: String,
    /// When its records arrived at the earliest, microseconds; how late they may come nobody knows.
    pub from: i64,
}

const GIVE_UP_UNFINISHED: &str = "UPDATE journal_run SET state = 'replaced' WHERE state = 'making'";
const PAGES_OF_KEY: &str = "SELECT key_until, page, key_from, body FROM journal_segment
     WHERE run = $1 AND key_until >= $2 AND key_from <= $2 AND (key_until, page) > ($3, $4)
     ORDER BY key_until, page LIMIT 1";
const WRITE_SEALED: &str = "UPDATE journal_segment SET body = $4 WHERE run = $1 AND key_until = $2 AND page = $3";
const LIVE_AFTER: &str = "SELECT lane, first_seq, body FROM journal WHERE (lane, first_seq) > ($1, $2)
     ORDER BY lane, first_seq LIMIT 1";
const WRITE_LIVE: &str = "UPDATE journal SET body = $3 WHERE lane = $1 AND first_seq = $2";

impl Store {
    /// Overwrites who it was in every record of these sessions that has one of `words` in it. Returns how many records.
    ///
    /// **Errors**: a damaged page, which stays as it is; the database. Safe to repeat.
    pub async fn redact_sessions(
        &self,
        sessions: &[RedactedSession],
        words: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut tx = self.write_journal().await?;
        lock(&mut tx).await?;
        on!(&mut tx, c => sqlx::query(GIVE_UP_UNFINISHED).execute(c).await.map(drop))?;
        tx.commit().await?;
        while self.tidy_journal(now).await? {}
        let mut redacted = 0;
        let keys: Vec<(SessionKey<'_>, &RedactedSession)> = sessions
            .iter()
            .flat_map(|session| clients(&session.nas).map(move |client| (client, session)))
            .map(|(client, session)| (SessionKey::new(client, &session.session), session))
            .collect();
        for (key, session) in &keys {
            redacted += self.redact_sealed(key, session, words).await?;
        }
        let keys: Vec<SessionKey<'_>> = keys.into_iter().map(|(key, _)| key).collect();
        redacted += self.redact_live(&keys, words).await?;
        Ok(redacted)
    }

    async fn redact_sealed(
        &self,
        session: &SessionKey<'_>,
        of: &RedactedSession,
        words: &[Vec<u8>],
    ) -> Result<u64, StoreError> {
        let mut tx = self.write_journal().await?;
        let mut redacted = 0;
        let runs = runs_since(&mut tx, of.from).await?;
        for run in runs.iter().filter(|run| run.state == "sealed") {
            for key in session.hashes() {
                let mut after = (i64::MIN, -1);
                while let Some((key_until, number, _, body)) = page_of_key(&mut tx, run.id, key, after).await? {
                    after = (key_until, number);
                    let broken = |_| damaged("journal_segment", run.lane, run.first_seq);
                    let mut rows: Vec<JournalRow> = unpack(run.lane, &body).map_err(broken)?;
                    let changed =
                        overwrite(rows.iter_mut().map(|row| &mut row.entry), std::slice::from_ref(session), words);
                    if changed > 0 {
                        on!(&mut tx, c => sqlx::query(WRITE_SEALED)
                            .bind(run.id)
                            .bind(key_until)
                            .bind(number)
                            .bind(pack(&rows))
                            .execute(c)
                            .await
                            .map(drop))?;
                        redacted += changed;
                    }
                }
            }
        }
        tx.commit().await?;
        Ok(redacted)
    }

    /// Live pages are few, and in no order of sessions: all of them are looked at, each in a transaction of its own.
    async fn redact_live(&self, sessions: &[SessionKey<'_>], words: &[Vec<u8>]) -> Result<u64, StoreError> {
        let (mut after, mut redacted) = ((i64::MIN, -1), 0);
        loop {
            let mut tx = self.write_journal().await?;
            let next: Option<(i64, i64, Vec<u8>)> = on!(&mut tx, c => sqlx::query_as(LIVE_AFTER)
                .bind(after.0)
                .bind(after.1)
                .fetch_optional(c)
                .await)?;
            let Some((lane, first_seq, body)) = next else { return Ok(redacted) };
            after = (lane, first_seq);
            let broken = |_| damaged("journal", lane, first_seq);
            let view = PageView::open(&body).map_err(broken)?;
            let entries = view.records().map(|record| record.map(|record| record.to_entry()));
            let mut entries: Vec<JournalEntry> = entries.collect::<Result<_, _>>().map_err(broken)?;
            let changed = overwrite(entries.iter_mut(), sessions, words);
            if changed > 0 {
                let body = page::encode(&entries).body;
                on!(&mut tx, c => sqlx::query(WRITE_LIVE)
                    .bind(lane)
                    .bind(first_seq)
                    .bind(body)
                    .execute(c)
                    .await
                    .map(drop))?;
                redacted += changed;
                tx.commit().await?;
            }
        }
    }
}

type KeyedPage = (i64, i64, i64, Vec<u8>);

async fn page_of_key(tx: &mut Tx, run: i64, key: i64, after: (i64, i64)) -> Result<Option<KeyedPage>, StoreError> {
    Ok(on!(tx, c => sqlx::query_as(PAGES_OF_KEY)
        .bind(run)
        .bind(key)
        .bind(after.0)
        .bind(after.1)
        .fetch_optional(c)
        .await)?)
}

/// Overwrites the records of these sessions; behind a client may be several NAS, and a record without any of the words is
/// another's. Returns how many were.
fn overwrite<'e>(
    entries: impl Iterator<Item = &'e mut JournalEntry>,
    sessions: &[SessionKey<'_>],
    words: &[Vec<u8>],
) -> u64 {
    let mut changed = 0;
    for entry in entries {
        let has = |word: &Vec<u8>| entry.packet.windows(word.len().max(1)).any(|window| window == word.as_slice());
        if words.iter().any(has) && sessions.iter().any(|session| session.is_entry(entry)) {
            redact(&mut entry.packet, words);
            changed += 1;
        }
    }
    changed
}

/// The clients an identity may belong to: it is one, or begins with one where a client is many NAS.
fn clients(nas: &str) -> impl Iterator<Item = &str> {
    let part = nas.split_once('/').map(|(client, _)| client);
    std::iter::once(nas).chain(part)
}
