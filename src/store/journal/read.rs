//! Reading the journal: a lane in commit order, and the records of one session.

use super::page::{PageRecord, PageView};
use super::{JournalRow, damaged};
use crate::radius::{PacketView, attribute};
use crate::store::{StoreError, Tx, on};

const LANES: &str = "SELECT id FROM lane ORDER BY id LIMIT 100000";
const PAGES_AFTER: &str = "SELECT first_seq, body FROM journal
     WHERE lane = $1 AND first_seq + records - 1 > $2 AND first_seq >= COALESCE(
         (SELECT MAX(first_seq) FROM journal WHERE lane = $1 AND first_seq <= $2 + 1), 0)
     ORDER BY first_seq LIMIT $3";
const PAGES_SINCE: &str = "SELECT first_seq, body FROM journal
     WHERE lane = $1 AND first_seq > $2 AND first_seq <= $3 AND arrived_until >= $4
     ORDER BY first_seq LIMIT $5";
const LAST_SEQ: &str = "SELECT first_seq + records - 1 FROM journal WHERE lane = $1 ORDER BY first_seq DESC LIMIT 1";

/// Every lane there is, oldest first.
pub async fn lanes(tx: &mut Tx) -> Result<Vec<i64>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(LANES).fetch_all(c).await)?)
}

/// The newest `seq` of a lane, 0 when it is empty.
pub async fn last_seq(tx: &mut Tx, lane: i64) -> Result<i64, StoreError> {
    let seq: Option<i64> = on!(tx, c => sqlx::query_scalar(LAST_SEQ).bind(lane).fetch_optional(c).await)?;
    Ok(seq.unwrap_or(0))
}

/// The next entries of a lane after `seq`, in commit order, at most `limit`.
///
/// **Errors**: `Corrupt` names the page that is damaged.
pub async fn read_after(tx: &mut Tx, lane: i64, seq: i64, limit: i64) -> Result<Vec<JournalRow>, StoreError> {
    let wanted = usize::try_from(limit).unwrap_or(0);
    let mut rows = Vec::new();
    let mut after = seq;
    while rows.len() < wanted {
        let pages = i64::try_from(wanted - rows.len()).unwrap_or(i64::MAX).min(PAGES_AT_ONCE);
        let found: Vec<(i64, Vec<u8>)> =
            on!(tx, c => sqlx::query_as(PAGES_AFTER).bind(lane).bind(after).bind(pages).fetch_all(c).await)?;
        if found.is_empty() {
            break;
        }
        for (first_seq, body) in found {
            let broken = |_| damaged("journal", lane, first_seq);
            let view = PageView::open(&body).map_err(broken)?;
            for (seq, record) in (first_seq..).zip(view.records()) {
                let record = record.map_err(broken)?;
                if seq > after && rows.len() < wanted {
                    rows.push(JournalRow { lane, seq, entry: record.to_entry() });
                }
            }
            after = first_seq + view.len() as i64 - 1;
        }
    }
    Ok(rows)
}

/// Records of one session that stand in a lane up to `until_seq`, arrived at or after `since`: those that came from
/// `client` and bear this Acct-Session-Id. At most `limit`, the oldest.
///
/// Among them may be records of another NAS behind the same client; the caller reads them anyway and knows.
pub async fn of_session(
    tx: &mut Tx,
    lane: i64,
    until_seq: i64,
    session: &SessionKey<'_>,
    since: i64,
    limit: usize,
) -> Result<Vec<JournalRow>, StoreError> {
    let mut rows = Vec::new();
    let mut after = 0;
    while rows.len() < limit {
        let found: Vec<(i64, Vec<u8>)> = on!(tx, c => sqlx::query_as(PAGES_SINCE)
            .bind(lane)
            .bind(after)
            .bind(until_seq)
            .bind(since)
            .bind(PAGES_AT_ONCE)
            .fetch_all(c)
            .await)?;
        let Some((last, _)) = found.last() else { break };
        after = *last;
        for (first_seq, body) in found {
            let broken = |_| damaged("journal", lane, first_seq);
            let view = PageView::open(&body).map_err(broken)?;
            for (seq, record) in (first_seq..=until_seq).zip(view.records()) {
                let record = record.map_err(broken)?;
                if session.is_of(&record) && rows.len() < limit {
                    rows.push(JournalRow { lane, seq, entry: record.to_entry() });
                }
            }
        }
    }
    Ok(rows)
}

/// What tells a session's packets: the client they come from and the Acct-Session-Id they bear.
#[derive(Debug, Clone)]
pub struct SessionKey<'a> {
    client: &'a str,
    ids: Vec<Vec<u8>>,
}

impl<'a> SessionKey<'a> {
    /// `session` is the id as it is shown: a text that looks like our hexadecimal may be either.
    pub fn new(client: &'a str, session: &str) -> Self {
        let digits = session.strip_prefix("0x").filter(|digits| digits.len() % 2 == 0);
        let octets: Option<Vec<u8>> = digits.and_then(|digits| {
            let pair = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
            (0..digits.len()).step_by(2).map(pair).collect()
        });
        Self { client, ids: std::iter::once(session.as_bytes().to_vec()).chain(octets).collect() }
    }

    fn is_of(&self, record: &PageRecord<'_, '_>) -> bool {
        **record.nas == *self.client
            && session_id(record.packet).is_some_and(|id| self.ids.iter().any(|known| known == id))
    }
}

/// The octets of a packet's Acct-Session-Id.
fn session_id(packet: &[u8]) -> Option<&[u8]> {
    PacketView::parse(packet).ok()?.first(attribute::ACCT_SESSION_ID)
}

/// Pages read by one statement: up to 512 records each.
const PAGES_AT_ONCE: i64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sought_as_the_nas_sent_it() {
        let ids = |session: &str| SessionKey::new("bng1", session).ids;
        assert_eq!(ids("80000001"), [b"80000001".to_vec()]);
        assert_eq!(ids("0xff00"), [b"0xff00".to_vec(), vec![0xff, 0]]);
        assert_eq!(ids("0xzz"), [b"0xzz".to_vec()]);
    }
}
