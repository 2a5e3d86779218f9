//! A line and what it was made from, as the store has it: entries, tariff, earlier lines, and those that share its allowance.
//!
//! In: a line's id. Out: what `billing` explains it from, and a dispute pack is made of; it decides nothing of it.

use std::collections::BTreeMap;

use super::billing as rows;
use super::charges::PostedRow;
use super::rating::RatingError;
use super::{Tx, accounts, catalog, census, charges, grants};
use crate::billing::charges::tariff_of_line;
use crate::billing::count::CountList;
use crate::billing::explain::{Explanation, PoolGround, explain as explained, own_amount};
use crate::billing::facts::{TariffBook, UsageEntry};
use crate::billing::groups::{last_period, newer};
use crate::billing::lines::{GrantBasis, Line, PoolBasis, PoolMember, Ratio, StoredLine};
use crate::billing::run::RunError;
use crate::billing::shared::{SharedFigures, shared_figures};
use crate::billing::tariff::{ChargeKind, Pool, Tariff};
use crate::vocabulary::Exact;

/// A line with all that it was made from.
#[derive(Debug, Clone)]
pub struct LineGround {
    pub account_id: i64,
    /// `None`: the line is of no service, or of one that is not there any more.
    pub service_id: Option<i64>,
    pub stored: StoredLine,
    /// The item's line before this one.
    pub before: Option<StoredLine>,
    pub tariff: Tariff,
    /// Ledger entries of the service that touch the period, up to the line's watermark.
    pub entries: Vec<UsageEntry>,
    /// Whom a count line counted.
    pub counted: Option<CountList>,
    /// The charge that was posted, of whose line this is.
    pub posted: Option<PostedRow>,
    /// The figures of an allowance that it shares.
    pub shared: Option<SharedFigures>,
    /// What a shared allowance was made from, where the line says so.
    pub pool: Option<PoolGround>,
}

impl LineGround {
    pub fn explain(&self) -> Result<Explanation, RunError> {
        let own = own_amount(&self.stored, &self.tariff);
        let (before, pool) = (self.before.as_ref(), self.pool.as_ref());
        let mut explanation = explained(&self.stored, before, &self.tariff, own, &self.entries, pool)?;
        if let Some(count) = &self.stored.line.count
            && !self.counted.as_ref().is_some_and(|list| count.is_of(list))
        {
            let what = "the list of whom was counted is not there, or is not the one of its digest";
            explanation.differences.push(what.to_owned());
        }
        explanation.counted = self.counted.clone();
        Ok(explanation)
    }
}

/// A line's whole computation from its ledger entries; `None`: there is no such line.
pub async fn explain(tx: &mut Tx, tenant: Option<&str>, id: &str) -> Result<Option<Explanation>, RatingError> {
    match line_ground(tx, tenant, id).await? {
        Some(ground) => Ok(Some(ground.explain()?)),
        None => Ok(None),
    }
}

/// A line and what it was made from; `None`: there is no such line.
pub async fn line_ground(tx: &mut Tx, tenant: Option<&str>, id: &str) -> Result<Option<LineGround>, RatingError> {
    let Some((account_id, stored)) = rows::line(tx, id).await? else { return Ok(None) };
    if tenant.is_some_and(|tenant| tenant != stored.line.tenant) {
        return Ok(None);
    }
    let line = &stored.line;
    let book = catalog::tariff_book(tx, &line.tenant).await?;
    let unknown = || RunError::UnknownVersion { tariff: line.tariff.id.clone(), version: line.tariff.version };
    let tariff = tariff_of_line(&stored, &book)?.ok_or_else(unknown)?;
    let issued = rows::issued(tx, account_id, &line.cycle, line.batch.as_deref()).await?;
    let before = issued
        .iter()
        .find(|other| other.item() == stored.item() && other.basis.revision + 1 == stored.basis.revision)
        .cloned();
    let mut services = accounts::services(tx, account_id).await?;
    services.sort_by_key(|row| row.id);
    let names: Vec<String> = services.iter().map(|row| row.external_id.clone()).collect();
    let tariff_of = |other: &StoredLine| tariff_of_line(other, &book).ok().flatten();
    let shared = shared_figures(&stored, &issued, &names, &tariff_of).map_err(RunError::from)?;
    let service = services.into_iter().find(|row| Some(&row.external_id) == line.service.as_ref());
    let service_id = service.map(|row| row.id);
    let entries = match (&line.usage, service_id) {
        (Some(usage), Some(service)) => {
            rows::usage_of_period(tx, account_id, service, &line.period, usage.watermark).await?
        }
        _ => Vec::new(),
    };
    let counted = match &line.count {
        Some(count) => census::list(tx, &count.digest).await?,
        None => None,
    };
    let posted = match &stored.basis.posted {
        Some(_) => charges::of_id(tx, account_id, &line.charge).await?,
        None => None,
    };
    let pool = match &stored.basis.pool {
        Some(pool) => Some(pool_ground(tx, account_id, &stored, pool, &tariff, (&book, &issued)).await?),
        None => None,
    };
    Ok(Some(LineGround { account_id, service_id, stored, before, tariff, entries, counted, posted, shared, pool }))
}

/// What the store has of those a line shared its allowance with, of the lines before it, and of the top-ups it names.
async fn pool_ground(
    tx: &mut Tx,
    account_id: i64,
    stored: &StoredLine,
    pool: &PoolBasis,
    tariff: &Tariff,
    (book, issued): (&TariffBook, &[StoredLine]),
) -> Result<PoolGround, RatingError> {
    let line = &stored.line;
    let mut accounts_of: BTreeMap<&str, (i64, Vec<StoredLine>)> = BTreeMap::new();
    accounts_of.insert(&line.account, (account_id, issued.to_vec()));
    let mut members = Vec::with_capacity(pool.members.len());
    let mut lines = Vec::with_capacity(pool.members.len());
    for member in &pool.members {
        let name = member.account.as_deref().unwrap_or(&line.account);
        if !accounts_of.contains_key(name) {
            let id = accounts::row_of(tx, &line.tenant, &stored.basis.source, name).await?;
            let id = id.ok_or_else(|| RunError::Unreadable(format!("account {name} of its allowance is gone")))?;
            accounts_of.insert(name, (id, rows::issued(tx, id, &line.cycle, line.batch.as_deref()).await?));
        }
        let (account, known) = &accounts_of[name];
        let account = *account;
        lines.push(line_of_member(known, line, member).cloned());
        let unknown = || RunError::UnknownVersion { tariff: member.tariff.clone(), version: member.version };
        let versions = book.get(&member.tariff).map(Vec::as_slice).unwrap_or_default();
        let version = versions.iter().find(|known| known.tariff.version == member.version).ok_or_else(unknown)?;
        let services = accounts::services(tx, account).await?;
        let service = services.into_iter().find(|row| row.external_id == member.service);
        let entries = match service {
            Some(service) => rows::usage_of_period(tx, account, service.id, &line.period, member.watermark).await?,
            None => Vec::new(),
        };
        members.push((version.tariff.clone(), entries));
    }
    // The lines of the period before, as they stood when this line was made.
    let pooled = match tariff.charge(&line.charge).map(|charge| &charge.kind) {
        Some(ChargeKind::Usage(usage)) => usage.pool() != Pool::Service,
        _ => false,
    };
    let mut newest: Option<&StoredLine> = None;
    for other in accounts_of.values().flat_map(|(_, issued)| issued) {
        let of_chain = other.line.charge == line.charge && (pooled || other.line.service == line.service);
        let earlier = other.line.period.start < line.period.start && other.line.created_at <= line.created_at;
        if of_chain && earlier {
            newest = newer(newest, other);
        }
    }
    let carried_by = newest.map(|line| line.line.id.clone());
    let before = newest.and_then(|line| line.basis.carry.clone()).unwrap_or_default();
    let ids: Vec<i64> = pool.grants.iter().filter_map(|grant| charges::row_of(&grant.id)).collect();
    let unit = match tariff.charge(&line.charge).map(|charge| &charge.kind) {
        Some(ChargeKind::Usage(usage)) => usage.unit_size(),
        _ => 1,
    };
    let calendar = catalog::in_force(tx, &line.tenant).await?;
    let calendar = calendar.and_then(|known| known.catalog.cycles.get(&line.cycle).map(|cycle| cycle.calendar.clone()));
    let (mut granted, mut stored_grants) = (Vec::new(), Vec::new());
    for row in grants::these(tx, &ids).await? {
        stored_grants.push(row.grant.clone());
        let amount = Exact::ratio(i128::from(row.grant.amount), i128::from(unit));
        let until = match (&calendar, row.grant.until) {
            (Some(cycle), Some(until)) => Some(last_period(cycle, until)?),
            _ => None,
        };
        let amount = Ratio(amount.map_err(RunError::from)?);
        granted.push(GrantBasis { id: row.grant.id, until, amount, elsewhere: Ratio::default() });
    }
    Ok(PoolGround { members, lines, before, carried_by, grants: granted, stored_grants })
}

/// The newest line of what a member is billed for in a line's period, as it stood when that line was made.
fn line_of_member<'l>(issued: &'l [StoredLine], line: &Line, member: &PoolMember) -> Option<&'l StoredLine> {
    let item = |other: &&StoredLine| {
        let of_charge = (&other.line.charge, other.line.period.start) == (&line.charge, line.period.start);
        let of_service = other.line.service.as_deref() == Some(member.service.as_str()) && other.basis.addon.is_none();
        let of_tariff = (&other.line.tariff.id, other.line.tariff.version) == (&member.tariff, member.version);
        of_charge && of_service && of_tariff && other.line.created_at <= line.created_at
    };
    issued.iter().filter(item).max_by_key(|other| other.basis.revision)
}
