//! How records of each configured client are read and bounded, as the fold needs it.

use std::collections::HashMap;

use crate::radius::{IdentityRule, NasRule, PacketView, Profile, record};
use crate::store::journal::JournalRow;
use crate::usage::Record;
use crate::vocabulary::TenantId;

/// What the configuration says of one RADIUS client.
#[derive(Debug, Clone)]
pub struct ClientRule {
    pub identity: IdentityRule,
    pub profile: &'static Profile,
    /// What a port can carry; decides what a counter can have done.
    pub max_bits_per_second: u64,
    pub interim_seconds: u32,
    /// Whose subscribers can be behind it; `None`: anybody's.
    pub tenants: Option<Vec<TenantId>>,
}

/// The rules of all clients by name.
#[derive(Debug, Clone, Default)]
pub struct FoldRules(HashMap<String, ClientRule>);

impl Default for ClientRule {
    /// For a client that is no longer in the configuration but still in the journal.
    fn default() -> Self {
        Self {
            identity: IdentityRule::Client,
            profile: Profile::standard(),
            max_bits_per_second: 10_000_000_000,
            interim_seconds: 600,
            tenants: None,
        }
    }
}

impl FoldRules {
    pub fn new(clients: impl IntoIterator<Item = (String, ClientRule)>) -> Self {
        Self(clients.into_iter().collect())
    }

    pub(super) fn of(&self, client: &str) -> ClientRule {
        self.0.get(client).cloned().unwrap_or_default()
    }

    /// The client of an identity: `client`, or `client/inner` behind a proxy.
    pub(super) fn client_of<'a>(&self, identity: &'a str) -> &'a str {
        if self.0.contains_key(identity) {
            return identity;
        }
        identity.split_once('/').map_or(identity, |(client, _)| client)
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = (&str, &ClientRule)> {
        self.0.iter().map(|(name, rule)| (name.as_str(), rule))
    }

    /// Reads a journal entry; the sentence says why it cannot be read.
    pub(super) fn read(&self, row: &JournalRow) -> Result<Record, String> {
        let rule = self.of(&row.entry.nas);
        let nas = NasRule { name: &row.entry.nas, identity: rule.identity, profile: rule.profile };
        let view = PacketView::parse(&row.entry.packet).map_err(|malformed| malformed.to_string())?;
        record(&view, &nas, row.entry.arrived_at).map_err(|reason| reason.to_string())
    }
}
