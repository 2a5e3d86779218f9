//! How the fold reads the journal: by the configured client an entry came from, also when that client is gone.

use crate::collector::{NasClient, NasTable};
use crate::radius::{IdentityRule, NasRule, PacketView, Profile, record};
use crate::store::journal::{JournalEntry, JournalRow};
use crate::usage::Record;
use crate::vocabulary::TenantId;

/// The configured client of an identity: `client`, or `client/inner` behind a proxy.
pub(super) fn client_of<'a>(nas: &NasTable, identity: &'a str) -> &'a str {
    if nas.named(identity).is_some() {
        return identity;
    }
    identity.split_once('/').map_or(identity, |(client, _)| client)
}

/// What a port of this identity can carry.
pub(super) fn max_bits_per_second(nas: &NasTable, identity: &str) -> u64 {
    nas.named(client_of(nas, identity)).map_or(RATE_OF_GONE, |client| client.max_rate.bits_per_second())
}

/// Whose subscribers can be behind this identity; `None`: anybody's.
pub(super) fn tenants<'a>(nas: &'a NasTable, identity: &str) -> Option<&'a [TenantId]> {
    nas.named(client_of(nas, identity)).and_then(|client| client.tenants.as_deref())
}

/// Reads a journal row; the sentence says why it cannot be read.
pub(super) fn read(nas: &NasTable, row: &JournalRow) -> Result<Record, String> {
    read_entry(nas, &row.entry)
}

/// Reads a journal entry; the sentence says why it cannot be read.
pub(in crate::collector) fn read_entry(nas: &NasTable, entry: &JournalEntry) -> Result<Record, String> {
    // A client that left the configuration still has entries in the journal.
    let gone = NasRule { name: &entry.nas, identity: IdentityRule::Client, profile: Profile::standard() };
    let rule = nas.named(&entry.nas).map_or(gone, NasClient::rule);
    let view = PacketView::parse(&entry.packet).map_err(|malformed| malformed.to_string())?;
    record(&view, &rule, entry.arrived_at).map_err(|reason| reason.to_string())
}

/// The configuration's default for a client it no longer names.
const RATE_OF_GONE: u64 = 10_000_000_000;
