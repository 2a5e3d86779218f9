//! What a pack tells of those that share an allowance with the line's account: as much as its computation needs, and no name.
//!
//! In: the line's basis and what the store has of its members. Out: `pool.json` (what was carried in, the top-ups, the line of
//! each member), `pool.csv` (the ledger entries of the members besides the line's own) and the tariffs they are rated by.
//! Other accounts and their services are numbered; the line's own account keeps its names.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Tariffs, text_of};
use crate::billing::explain::{Explanation, PoolGround};
use crate::billing::lines::{PoolBasis, StoredLine};
use crate::billing::tariff::{ChargeKind, Pool};
use crate::cli::exit::CliError;
use crate::store::rating::LineGround;
use crate::vocabulary::to_micros;

/// What the line shared, where the other files do not tell: with top-ups, prepaid, or over several accounts.
pub fn told(ground: &LineGround) -> Option<(&PoolBasis, &PoolGround)> {
    let (basis, found) = (ground.stored.basis.pool.as_ref()?, ground.pool.as_ref()?);
    let beyond = match ground.tariff.charge(&ground.stored.line.charge).map(|charge| &charge.kind) {
        Some(ChargeKind::Usage(usage)) => usage.prepaid || usage.pool() == Pool::Parent,
        _ => false,
    };
    let others = basis.members.iter().any(|member| member.account.is_some());
    (beyond || others || !basis.grants.is_empty()).then_some((basis, found))
}

/// Numbers for the names of others.
#[derive(Default)]
pub struct Pseudonyms {
    accounts: BTreeMap<String, String>,
    services: BTreeMap<(String, String), String>,
}

impl Pseudonyms {
    /// Of all that the line, and the one before it, name beside its own account.
    pub fn of(ground: &LineGround) -> Self {
        let mut found = Self::default();
        let pools = [Some(&ground.stored), ground.before.as_ref()].into_iter().flatten();
        for member in pools.filter_map(|line| line.basis.pool.as_ref()).flat_map(|pool| &pool.members) {
            if let Some(account) = &member.account {
                let number = found.accounts.len() + 1;
                found.accounts.entry(account.clone()).or_insert_with(|| format!("account {number}"));
                let number = found.services.len() + 1;
                let key = (account.clone(), member.service.clone());
                found.services.entry(key).or_insert_with(|| format!("service {number}"));
            }
        }
        found
    }

    pub fn line(&self, stored: &StoredLine) -> StoredLine {
        let mut line = stored.clone();
        for member in line.basis.pool.iter_mut().flat_map(|pool| &mut pool.members) {
            if let Some(account) = member.account.take() {
                member.service = self.service(&account, &member.service);
                member.account = Some(self.account(&account));
            }
        }
        line
    }

    pub fn explanation(&self, explanation: &Explanation) -> Explanation {
        let mut hidden = explanation.clone();
        for member in hidden.shared.iter_mut().flat_map(|shared| &mut shared.members) {
            if member.account != explanation.line.account {
                member.service = self.service(&member.account, &member.service);
                member.account = self.account(&member.account);
            }
        }
        hidden
    }

    fn account(&self, name: &str) -> String {
        self.accounts.get(name).cloned().unwrap_or_else(|| "another account".to_owned())
    }

    fn service(&self, account: &str, service: &str) -> String {
        let known = self.services.get(&(account.to_owned(), service.to_owned()));
        known.cloned().unwrap_or_else(|| "another service".to_owned())
    }
}

/// `pool.json`; the members by their places in the line's basis.
pub fn document((basis, found): (&PoolBasis, &PoolGround), tariffs: &mut Tariffs) -> Value {
    let grants = found.stored_grants.iter().map(|grant| {
        json!({
            "id": grant.id,
            "amount": grant.amount,
            "from": grant.from,
            "until": grant.until,
        })
    });
    let grants: Vec<Value> = grants.collect();
    let line = |line: &StoredLine| {
        let usage = line.line.usage.as_ref();
        json!({
            "id": line.line.id,
            "tariff_digest": line.line.tariff.digest,
            "engine": line.basis.engine,
            "coverage": line.basis.coverage,
            "watermark": usage.map(|usage| usage.watermark),
            "records": usage.map(|usage| usage.records),
            "digest": usage.map(|usage| usage.digest.clone()),
        })
    };
    let members: Vec<Value> = found
        .members
        .iter()
        .zip(&found.lines)
        .take(basis.members.len())
        .map(|((tariff, _), known)| json!({"tariff": tariffs.file(tariff), "line": known.as_ref().map(line)}))
        .collect();
    json!({
        "carried_by": found.carried_by,
        "before": found.before,
        "grants": grants,
        "members": members,
    })
}

/// `pool.csv`: the ledger entries of every member but the line's own, whose entries are `ledger.csv`.
pub fn entries((basis, found): (&PoolBasis, &PoolGround)) -> Result<String, CliError> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(COLUMNS)?;
    for (place, (_, entries)) in found.members.iter().enumerate().filter(|(place, _)| *place != basis.place) {
        for entry in entries {
            out.write_record([
                place.to_string(),
                entry.sequence.to_string(),
                entry.in_octets.to_string(),
                entry.out_octets.to_string(),
                entry.seconds.to_string(),
                entry.sessions.to_string(),
                entry.class.as_deref().unwrap_or_default().to_owned(),
                entry.session.to_string(),
                to_micros(entry.from).to_string(),
                to_micros(entry.until).to_string(),
            ])?;
        }
    }
    text_of(out)
}

const COLUMNS: [&str; 10] = [
    "member",
    "sequence",
    "in_octets",
    "out_octets",
    "seconds",
    "sessions",
    "class",
    "session_id",
    "from_us",
    "until_us",
];
