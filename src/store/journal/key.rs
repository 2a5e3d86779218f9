//! What tells the packets of a session: the client they come from and the Acct-Session-Id they bear. Sealed runs are
//! sorted by a hash of the two.

use super::JournalEntry;
use crate::radius::{PacketView, attribute};

/// A session as its packets tell it.
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

    /// Whether a packet of this client may be of the session. Behind a proxy it may still be another NAS's.
    pub(super) fn is_of(&self, nas: &str, packet: &[u8]) -> bool {
        *nas == *self.client && session_id(packet).is_some_and(|id| self.ids.iter().any(|known| known == id))
    }

    pub(super) fn is_entry(&self, entry: &JournalEntry) -> bool {
        self.is_of(&entry.nas, &entry.packet)
    }

    /// Where sealed runs keep the session's records.
    pub(super) fn hashes(&self) -> impl Iterator<Item = i64> {
        self.ids.iter().map(|id| hash(self.client, id))
    }
}

/// By what a record is sorted; 0 without an Acct-Session-Id, which no session has.
pub(super) fn session_key(nas: &str, packet: &[u8]) -> i64 {
    session_id(packet).map_or(0, |id| hash(nas, id))
}

/// The octets of a packet's Acct-Session-Id.
fn session_id(packet: &[u8]) -> Option<&[u8]> {
    PacketView::parse(packet).ok()?.first(attribute::ACCT_SESSION_ID)
}

/// FNV-1a of 64 bits, its bits mixed once more: it stands in the database, so it never changes.
fn hash(client: &str, id: &[u8]) -> i64 {
    let octets = client.bytes().chain([0]).chain(id.iter().copied());
    let hash = octets
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ (mixed >> 32)).cast_signed()
}

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

    #[test]
    fn the_hash_of_a_session_stands_in_databases_and_never_changes() {
        assert_eq!(hash("bng1", b"80000001"), HASH_OF_A_SESSION);
        assert_ne!(hash("bng1", b"80000001"), hash("bng18", b"0000001"), "names do not run into ids");
        assert_eq!(session_key("bng1", b"no packet"), 0);
    }

    const HASH_OF_A_SESSION: i64 = -2530547175477131527;
}
