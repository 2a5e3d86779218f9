//! Reads what `billing` needs of a run, an account, a line, and hands it the facts; what they mean is decided there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::ToSpan;
use thiserror::Error;

use super::accounts::FactsRow;
use super::billing::{self as rows, BilledAccount, IssuedLine, Wanted};
use super::charges::PostedRow;
use super::grants::GrantRow;
pub use super::line_ground::{LineGround, explain, line_ground};
use super::{StoreError, Tx, accounts, catalog, census, charges, families, grants, held, ledger, ledger_totals};
use crate::account::{Status, TaxExempt};
use crate::billing::calendar::CalendarError;
use crate::billing::charges::{PostedCharge, Posting, PostingKind};
use crate::billing::count::Census;
use crate::billing::facts::{
    AccountFacts, Causes, KnownVersion, RunContext, ServiceFacts, TariffBook, UsageEntry, Wholesale,
};
use crate::billing::history::{PlanTariffs, ServiceHistory, billed};
use crate::billing::lines::{ItemKey, StoredLine};
use crate::billing::run::{
    RunError, UsageNeed, lines_since, looked_at_everywhere, looks_back, pools_over_accounts, shares_with_others,
    usage_needed, usage_needed_of,
};
use crate::billing::tariff::{ChargeKind, Tariff};
use crate::billing::{account_wide, wholesale};
use crate::vocabulary::{Date, Timestamp};

/// Why a run, an account or a line cannot be looked at.
#[derive(Debug, Error)]
pub enum RatingError {
    #[error("there is no tenant {0}")]
    NoTenant(String),
    #[error("tenant {tenant} has no bill cycle {cycle}")]
    NoCycle { tenant: String, cycle: String },
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// The calendar, prices and closures of a run. `period`: as a person names it; `None`: the latest ended one.
pub async fn context(
    tx: &mut Tx,
    tenant: &str,
    cycle: &str,
    period: Option<&str>,
    now: Timestamp,
) -> Result<RunContext, RatingError> {
    let in_force = catalog::in_force(tx, tenant).await?.ok_or_else(|| RatingError::NoTenant(tenant.to_owned()))?;
    let (in_force, applied_at) = (in_force.catalog, in_force.applied_at);
    let known = in_force
        .cycles
        .get(cycle)
        .ok_or_else(|| RatingError::NoCycle { tenant: tenant.to_owned(), cycle: cycle.to_owned() })?;
    let calendar = known.calendar.clone();
    let period = match period {
        Some(name) => calendar.named(name)?,
        None => calendar.latest_ended(now)?,
    };
    Ok(RunContext {
        cycle: calendar,
        period,
        now,
        batch: None,
        tariffs: catalog::tariff_book(tx, tenant).await?.into(),
        backdate_days: in_force.backdate_days,
        wholesale: in_force.wholesale,
        corrections: in_force.corrections,
        closures: rows::closures(tx, tenant, cycle).await?,
        causes: Causes { catalog_at: Some(applied_at), ..Causes::default() },
    })
}

/// One account's facts, with the usage its items need, and its relatives where it shares an allowance with them. The inner
/// error stops this account only.
pub async fn facts(
    tx: &mut Tx,
    account: &BilledAccount,
    tenant: &str,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Result<AccountFacts, RunError>, StoreError> {
    let family = relatives(tx, tenant, account, context).await?;
    let found = facts_of(tx, std::slice::from_ref(&family), tenant, context, plans).await?;
    Ok(beside_relatives(&family, account.id, found))
}

/// The accounts that may share an allowance with one, itself among them; one alone where no tariff says so.
pub(super) async fn relatives(
    tx: &mut Tx,
    tenant: &str,
    account: &BilledAccount,
    context: &RunContext,
) -> Result<Vec<BilledAccount>, StoreError> {
    let families = units_of(tx, tenant, std::slice::from_ref(account), context).await?;
    Ok(families.into_iter().next().unwrap_or_else(|| vec![account.clone()]))
}

/// The families of these accounts where a tariff shares an allowance among accounts; each alone where none does.
pub async fn units_of(
    tx: &mut Tx,
    tenant: &str,
    accounts: &[BilledAccount],
    context: &RunContext,
) -> Result<Vec<Vec<BilledAccount>>, StoreError> {
    let pooled = context.tariffs.values().flatten().any(|version| pools_over_accounts(&version.tariff));
    match pooled {
        true => families::of(tx, tenant, accounts).await,
        false => Ok(accounts.iter().map(|account| vec![account.clone()]).collect()),
    }
}

/// One account's facts with those of its relatives, which were read with it.
fn beside_relatives(
    family: &[BilledAccount],
    account_id: i64,
    found: Vec<Result<AccountFacts, RunError>>,
) -> Result<AccountFacts, RunError> {
    let (mut own, mut relatives) = (None, Vec::new());
    for (account, facts) in family.iter().zip(found) {
        match facts {
            facts if account.id == account_id => own = Some(facts),
            Ok(facts) => relatives.push(facts),
            // Whoever shares something with it was told so when it was read.
            Err(_) => {}
        }
    }
    let mut own = own.expect("an account is one of its family")?;
    own.relatives = relatives;
    Ok(own)
}

/// The facts of many accounts with a handful of statements, in their order. `units` are read at one moment and rated
/// together: an account that cannot be read stops those of its unit that share an allowance with others.
pub async fn facts_of(
    tx: &mut Tx,
    units: &[Vec<BilledAccount>],
    tenant: &str,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Vec<Result<AccountFacts, RunError>>, StoreError> {
    let accounts: Vec<BilledAccount> = units.iter().flatten().cloned().collect();
    let accounts = accounts.as_slice();
    let ids: Vec<i64> = accounts.iter().map(|account| account.id).collect();
    let mut stored: HashMap<i64, Stored> = ids.iter().map(|id| (*id, Stored::default())).collect();
    for (account, service, external_id) in accounts::service_ids(tx, &ids).await? {
        stored.entry(account).or_default().services.insert(service, external_id);
    }
    for (account, row) in accounts::facts_of(tx, &ids).await? {
        stored.entry(account).or_default().take(row, |one, row| one.history.push(row));
    }
    let since = lines_since(context).unwrap_or(Timestamp::MIN);
    for (account, line) in rows::issued_of(tx, &ids, &context.cycle.id, since).await? {
        stored.entry(account).or_default().take(line, |one, line| one.issued.take(line));
    }
    for (account, key) in held::keys_of(tx, &ids, &context.cycle.id).await? {
        stored.entry(account).or_default().held.insert(key);
    }
    for (account, sequence) in ledger::last_sequences(tx, &ids).await? {
        stored.entry(account).or_default().watermark = sequence;
    }
    for (account, row) in charges::of_accounts(tx, &ids, &context.cycle.id).await? {
        stored.entry(account).or_default().take(row, |one, row| one.posted.push(row));
    }
    for (account, row) in grants::of_accounts(tx, &ids, &context.cycle.id).await? {
        stored.entry(account).or_default().take(row, |one, row| one.grants.push(row));
    }
    for (account, services) in counted(tx, accounts, tenant, context).await? {
        stored.entry(account).or_default().take_counted(services);
    }
    let mut found: Vec<Result<Gathered, RunError>> = accounts
        .iter()
        .map(|account| {
            let mut stored = stored.remove(&account.id).unwrap_or_default();
            let services = services(std::mem::take(&mut stored.history), &stored.services, context, plans)?;
            gather(account, stored, services, tenant, context)
        })
        .collect();
    let sizes: Vec<usize> = units.iter().map(Vec::len).collect();
    read_usage(tx, &mut found, &sizes, context, &[]).await?;
    Ok(found.into_iter().map(|one| one.map(|one| one.facts)).collect())
}

/// What was issued to one account on a cycle.
#[derive(Default)]
pub(super) struct IssuedLines {
    pub lines: Vec<StoredLine>,
    /// What lines of long ago have seen of the ledger, by the start of their period.
    looked: BTreeMap<Timestamp, i64>,
    /// Some of long ago are left out.
    partial: bool,
}

impl IssuedLines {
    pub fn take(&mut self, line: IssuedLine) {
        match line {
            IssuedLine::Whole(line) => self.lines.push(*line),
            IssuedLine::Seen { period_start, watermark } => {
                self.partial = true;
                let Some(watermark) = watermark else { return };
                let seen = self.looked.entry(period_start).or_default();
                *seen = watermark.max(*seen);
            }
        }
    }
}

/// What is stored of one account.
#[derive(Default)]
struct Stored {
    services: BTreeMap<i64, String>,
    history: Vec<FactsRow>,
    issued: IssuedLines,
    held: BTreeSet<ItemKey>,
    posted: Vec<PostedRow>,
    grants: Vec<GrantRow>,
    /// What it pays for the subscribers of tenants.
    counted: Vec<ServiceFacts>,
    watermark: i64,
    /// The first thing of it that cannot be read: that stops this account, and no other.
    failed: Option<RunError>,
}

impl Stored {
    fn take<T>(&mut self, row: Result<T, StoreError>, keep: impl FnOnce(&mut Self, T)) {
        match row {
            Ok(row) => keep(self, row),
            Err(error) => {
                self.failed.get_or_insert(RunError::Unreadable(error.to_string()));
            }
        }
    }

    fn take_counted(&mut self, services: Result<Vec<ServiceFacts>, RunError>) {
        match services {
            Ok(services) => self.counted = services,
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
    }
}

/// An account's facts, and the row of each of its services.
pub(super) struct Gathered {
    pub account_id: i64,
    pub facts: AccountFacts,
    /// Some of its lines of long ago are left out.
    partial: bool,
    pub rows: Vec<i64>,
    /// Rows of services whose sums may be of another cycle's periods.
    moved: BTreeSet<i64>,
}

/// The facts of an account without usage: its services, and beside them what is billed for the account as a whole.
fn gather(
    account: &BilledAccount,
    stored: Stored,
    Services { exempt, parents, mut services, mut rows, mut moved, changed_at }: Services,
    tenant: &str,
    context: &RunContext,
) -> Result<Gathered, RunError> {
    if let Some(error) = stored.failed {
        return Err(error);
    }
    services.extend(stored.counted);
    let posted = posted(&stored.posted, &stored.grants, context)?;
    services.extend(posted.iter().map(PostedCharge::facts));
    services.extend(account_wide(&services, &context.tariffs));
    if account.bill_cycle != context.cycle.id {
        moved.extend(&rows);
    }
    rows.resize(services.len(), NO_ROW);
    let facts = AccountFacts {
        tenant: tenant.to_owned(),
        source: account.source.clone(),
        account: account.external_id.clone(),
        tax_exempt: exempt.is_all(),
        exempt_from: exempt.taxes().to_vec(),
        posted,
        grants: stored.grants.into_iter().map(|row| row.grant).collect(),
        issued_elsewhere: Vec::new(),
        parents,
        place: account.id,
        relatives: Vec::new(),
        services,
        issued: stored.issued.lines,
        looked: stored.issued.looked,
        held: stored.held,
        watermark: stored.watermark,
        unchanged_since: unchanged_since(changed_at, context),
    };
    Ok(Gathered { account_id: account.id, facts, partial: stored.issued.partial, rows, moved })
}

/// Since when neither the catalog nor the account's services have changed, with room for a change that was under way when a
/// run looked: what it is told of carries the instant at which it began.
fn unchanged_since(changed_at: Option<Timestamp>, context: &RunContext) -> Option<Timestamp> {
    let changed_at = changed_at?.max(context.causes.catalog_at?);
    changed_at.checked_add(CHANGE_HOURS.hours()).ok()
}

/// What an account's services are billed for, without usage.
pub(super) struct Services {
    pub exempt: TaxExempt,
    /// The account's parent from an instant on, in order.
    pub parents: Vec<(Timestamp, Option<String>)>,
    pub services: Vec<ServiceFacts>,
    /// The row of each.
    pub rows: Vec<i64>,
    /// Rows of services that were on another cycle, too: the sums that were kept of them may be of its periods.
    pub moved: BTreeSet<i64>,
    /// When the last of their facts became known.
    pub changed_at: Option<Timestamp>,
}

/// The services of one account.
pub(super) async fn services_of(
    tx: &mut Tx,
    account_id: i64,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Result<Services, RunError>, StoreError> {
    let ids: BTreeMap<i64, String> =
        accounts::services(tx, account_id).await?.into_iter().map(|row| (row.id, row.external_id)).collect();
    Ok(services(accounts::facts(tx, account_id).await?, &ids, context, plans))
}

fn services(
    rows: Vec<FactsRow>,
    ids: &BTreeMap<i64, String>,
    context: &RunContext,
    plans: &PlanTariffs,
) -> Result<Services, RunError> {
    let mut histories: BTreeMap<i64, ServiceHistory> = BTreeMap::new();
    let mut tax_exempt = (Timestamp::MIN, TaxExempt::default());
    let changed_at = rows.iter().map(|row| row.from_at).max();
    let mut parents: BTreeMap<Timestamp, (bool, Option<String>)> = BTreeMap::new();
    for row in rows {
        if row.from_at >= tax_exempt.0 {
            tax_exempt = (row.from_at, row.facts.tax_exempt.clone());
        }
        // A service that ends keeps what its account was; the others know better.
        let lives = row.facts.status != Status::Terminated;
        let parent = parents.entry(row.from_at).or_insert((lives, row.facts.parent.clone()));
        if lives && !parent.0 {
            *parent = (lives, row.facts.parent.clone());
        }
        let Some(id) = ids.get(&row.service_id) else { continue };
        let history =
            histories.entry(row.service_id).or_insert_with(|| ServiceHistory { id: id.clone(), facts: Vec::new() });
        history.facts.push((row.from_at, row.facts));
    }
    let mut services = Vec::new();
    let mut rows = Vec::new();
    let mut moved = BTreeSet::new();
    for (row, history) in &histories {
        if history.facts.iter().any(|(_, facts)| facts.bill_cycle != context.cycle.id) {
            moved.insert(*row);
        }
        let found = billed(history, &context.cycle, plans, context.backdate_days)?;
        rows.extend(std::iter::repeat_n(*row, found.len()));
        services.extend(found);
    }
    let parents = parents.into_iter().map(|(from, (_, parent))| (from, parent)).collect();
    Ok(Services { exempt: tax_exempt.1, parents, services, rows, moved, changed_at })
}

/// What is known of an account whose running period is looked at.
pub(super) struct Running {
    pub account: BilledAccount,
    pub services: Services,
    pub issued: IssuedLines,
    pub posted: Vec<PostedRow>,
    pub grants: Vec<GrantRow>,
    /// Ledger entries that are not written yet, with their service, numbered on from the ledger's last.
    pub pending: Vec<(i64, UsageEntry)>,
}

/// Adds the usage that the items of a family need.
pub(super) async fn complete(
    tx: &mut Tx,
    family: Vec<Running>,
    tenant: &str,
    context: &RunContext,
) -> Result<Vec<Result<Gathered, RunError>>, StoreError> {
    let size = family.len();
    let ids: Vec<i64> = family.iter().map(|one| one.account.id).collect();
    let written = ledger::last_sequences(tx, &ids).await?;
    let held = held::keys_of(tx, &ids, &context.cycle.id).await?;
    let mut pending = Vec::new();
    let mut found = Vec::with_capacity(size);
    for one in family {
        let written = written.get(&one.account.id).copied().unwrap_or(0);
        let watermark = one.pending.iter().map(|(_, entry)| entry.sequence).fold(written, i64::max);
        let own = held.iter().filter(|(account, _)| *account == one.account.id);
        let held = own.map(|(_, key)| key.clone()).collect();
        let Running { account, services, issued, posted, grants, pending: more } = one;
        let mut stored = Stored { issued, held, posted, grants, watermark, ..Stored::default() };
        for (_, services) in counted(tx, std::slice::from_ref(&account), tenant, context).await? {
            stored.take_counted(services);
        }
        found.push(gather(&account, stored, services, tenant, context));
        pending.extend(more);
    }
    read_usage(tx, &mut found, &[size], context, &pending).await?;
    Ok(found)
}

/// First the sums that were kept, or what is new since the last run, then everything of the periods that turn out to need
/// their entries. `units`: how many accounts are rated together, one after the other. `pending` is not written yet.
async fn read_usage(
    tx: &mut Tx,
    found: &mut [Result<Gathered, RunError>],
    units: &[usize],
    context: &RunContext,
    pending: &[(i64, UsageEntry)],
) -> Result<(), StoreError> {
    read_elsewhere(tx, found, context).await?;
    let mut metered: Vec<&mut Gathered> =
        found.iter_mut().flatten().filter(|one| meters_usage(&one.facts, context)).collect();
    read_sums(tx, &mut metered, context).await?;
    read_late(tx, &mut metered).await?;
    for one in metered {
        take_pending(one, pending, context);
    }
    read_back(tx, found, context).await?;
    read_periods(tx, found, units, context).await
}

/// What other cycles' lines have used of top-ups, of accounts that have any and that another cycle bills, or billed.
async fn read_elsewhere(
    tx: &mut Tx,
    found: &mut [Result<Gathered, RunError>],
    context: &RunContext,
) -> Result<(), StoreError> {
    for slot in found.iter_mut() {
        let Some(one) = slot.as_mut().ok().filter(|one| !one.facts.grants.is_empty() && !one.moved.is_empty()) else {
            continue;
        };
        match rows::usage_elsewhere(tx, one.account_id, &context.cycle.id).await {
            Ok(mut lines) => {
                lines.retain(|line| line.basis.pool.as_ref().is_some_and(|pool| !pool.grants.is_empty()));
                one.facts.issued_elsewhere = lines;
            }
            Err(error @ StoreError::Corrupt { .. }) => *slot = Err(RunError::Unreadable(error.to_string())),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Every line of the accounts of which a run looks at periods of long ago.
async fn read_back(
    tx: &mut Tx,
    found: &mut [Result<Gathered, RunError>],
    context: &RunContext,
) -> Result<(), StoreError> {
    let mut back: BTreeMap<i64, usize> = BTreeMap::new();
    for (index, slot) in found.iter_mut().enumerate() {
        let Some(one) = slot.as_mut().ok().filter(|one| one.partial) else { continue };
        match looks_back(&one.facts, context) {
            Ok(true) => {
                back.insert(one.account_id, index);
                one.facts.looked.clear();
                one.facts.issued.clear();
            }
            Ok(false) => {}
            Err(error) => *slot = Err(error),
        }
    }
    if back.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = back.keys().copied().collect();
    for (account, line) in rows::issued_of(tx, &ids, &context.cycle.id, Timestamp::MIN).await? {
        let slot = &mut found[back[&account]];
        match (line, slot.as_mut()) {
            (Ok(IssuedLine::Whole(line)), Ok(one)) => one.facts.issued.push(*line),
            (Err(error), Ok(_)) => *slot = Err(RunError::Unreadable(error.to_string())),
            // No line is of long ago.
            (Ok(IssuedLine::Seen { .. }), _) | (_, Err(_)) => {}
        }
    }
    Ok(())
}

/// Counts entries that are not written yet as if they were.
fn take_pending(one: &mut Gathered, pending: &[(i64, UsageEntry)], context: &RunContext) {
    for (service, row) in one.facts.services.iter_mut().zip(&one.rows) {
        for (_, entry) in pending.iter().filter(|(id, _)| id == row) {
            let start = context.cycle.period_at(entry.from).map(|period| period.start);
            if service.addon.is_none() {
                // Also beside sums: some charges look at single entries.
                service.usage.push(entry.clone());
            }
            match (&mut service.sums, start) {
                (Some(sums), Ok(start)) => sums.entry(start).or_default().count(entry),
                // A day outside of the calendar: nothing is billed there.
                (Some(_), Err(_)) => {}
                (None, _) => {}
            }
        }
    }
}

/// What those of the accounts that are tenants pay for their subscribers, each on the cycle it is on now.
async fn counted(
    tx: &mut Tx,
    accounts: &[BilledAccount],
    tenant: &str,
    context: &RunContext,
) -> Result<Vec<(i64, Result<Vec<ServiceFacts>, RunError>)>, StoreError> {
    let mut payers: Vec<(i64, Vec<&Wholesale>)> = Vec::new();
    for account in accounts.iter().filter(|account| account.bill_cycle == context.cycle.id) {
        let own = |agreed: &&Wholesale| agreed.source == account.source && agreed.account == account.external_id;
        let agreed: Vec<&Wholesale> = context.wholesale.iter().filter(own).collect();
        if !agreed.is_empty() {
            payers.push((account.id, agreed));
        }
    }
    if payers.is_empty() {
        return Ok(Vec::new());
    }
    let children = census::children(tx, tenant).await?;
    let mut known: BTreeMap<&str, Result<Arc<Census>, RunError>> = BTreeMap::new();
    for name in payers.iter().flat_map(|(_, agreed)| agreed).map(|agreed| &agreed.tenant) {
        if !known.contains_key(name.as_str()) {
            let census = match children.contains(name) {
                true => census_of(tx, name).await?,
                false => Err(RunError::NoChild(name.clone())),
            };
            known.insert(name, census);
        }
    }
    let priced = |agreed: &&Wholesale| -> Result<ServiceFacts, RunError> {
        let census = known[agreed.tenant.as_str()].clone()?;
        let from = context.cycle.midnight(agreed.from)?;
        let until = agreed.until.map(|on| context.cycle.midnight(on)).transpose()?;
        Ok(wholesale(census, &agreed.tariff, from, until))
    };
    Ok(payers.iter().map(|(id, agreed)| (*id, agreed.iter().map(priced).collect())).collect())
}

/// A row that cannot be read stops the account that pays for it, and no other.
async fn census_of(tx: &mut Tx, tenant: &str) -> Result<Result<Arc<Census>, RunError>, StoreError> {
    match census::census(tx, tenant).await {
        Ok(census) => Ok(Ok(Arc::new(census))),
        Err(error @ StoreError::Corrupt { .. }) => Ok(Err(RunError::Unreadable(error.to_string()))),
        Err(error) => Err(error),
    }
}

/// The charges that were posted for an account and that this cycle bills.
fn posted(rows: &[PostedRow], granted: &[GrantRow], context: &RunContext) -> Result<Vec<PostedCharge>, RunError> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let id = charges::public_id(row.id);
        let failed = |why: String| RunError::Posted { id: id.clone(), why };
        let posting = match row.posting.kind {
            PostingKind::TopUp => {
                let granted = granted.iter().find(|known| known.grant.id == id);
                let granted = granted.ok_or_else(|| failed("what it granted is not stored".to_owned()))?;
                // What costs nothing has no line.
                let Some(posting) = priced(&row.posting, granted) else { continue };
                posting
            }
            _ => row.posting.clone(),
        };
        let base = match &posting.tariff {
            Some(name) => {
                let base = posted_by(&context.tariffs, name, row.on, row.created_at);
                Some(base.ok_or_else(|| failed(format!("there is no tariff {name}")))?)
            }
            None => None,
        };
        found.push(PostedCharge::of(&id, &posting, row.on, base, row.currency, row.created_at).map_err(failed)?);
    }
    Ok(found)
}

/// A top-up as the charge it is: its price, by the tariff of its service.
fn priced(posting: &Posting, granted: &GrantRow) -> Option<Posting> {
    Some(Posting {
        amount: Some(granted.price?.to_string()),
        tariff: Some(granted.tariff.clone()),
        charge: Some(granted.grant.charge.clone()),
        service: Some(granted.grant.service.clone()),
        ..posting.clone()
    })
}

/// The version of a tariff by which a charge is priced: of those known when it was posted the one in force on its day, and
/// where none was yet, the first.
pub fn posted_by<'b>(book: &'b TariffBook, tariff: &str, on: Date, posted_at: Timestamp) -> Option<&'b Tariff> {
    let known = book.get(tariff)?.iter().filter(|version| version.known_at <= posted_at);
    let order = |version: &&KnownVersion| (version.tariff.effective_from, version.tariff.version);
    let in_force = known.clone().filter(|version| version.tariff.effective_from <= on).max_by_key(order);
    in_force.or_else(|| known.min_by_key(order)).map(|version| &version.tariff)
}

fn meters_usage(facts: &AccountFacts, context: &RunContext) -> bool {
    facts.services.iter().flat_map(|service| &service.stretches).any(|stretch| {
        let versions = context.tariffs.get(&stretch.tariff).map(Vec::as_slice).unwrap_or_default();
        versions
            .iter()
            .flat_map(|version| &version.tariff.charges)
            .any(|charge| matches!(charge.kind, ChargeKind::Usage(_)))
    })
}

/// The sums that were kept of each service; where they cannot be used, entries are read below.
async fn read_sums(tx: &mut Tx, metered: &mut [&mut Gathered], context: &RunContext) -> Result<(), StoreError> {
    let usable = |one: &Gathered, row: i64| row != NO_ROW && !one.moved.contains(&row);
    let mut ids: Vec<i64> = Vec::new();
    for one in metered.iter() {
        ids.extend(one.rows.iter().copied().filter(|row| usable(one, *row)));
    }
    ids.dedup();
    if ids.is_empty() {
        return Ok(());
    }
    let sums = ledger_totals::of_services(tx, &ids, &context.cycle).await?;
    for one in metered.iter_mut() {
        for (service, row) in one.facts.services.iter_mut().zip(&one.rows) {
            service.sums = sums.get(row).cloned().flatten();
        }
    }
    Ok(())
}

/// What is new since each account's last run, of services without sums.
async fn read_late(tx: &mut Tx, metered: &mut [&mut Gathered]) -> Result<(), StoreError> {
    // What is billed beside a service has no entries of its own.
    let asks = |service: &ServiceFacts| service.addon.is_none() && service.sums.is_none();
    let mut without: Vec<&mut &mut Gathered> =
        metered.iter_mut().filter(|one| one.facts.services.iter().any(asks)).collect();
    let wanted: Vec<Wanted> = without
        .iter()
        .map(|one| {
            let after = looked_at_everywhere(&one.facts);
            let (account_id, until) = (one.account_id, one.facts.watermark);
            Wanted { account_id, service_id: None, after, until, touching: None }
        })
        .collect();
    let late = rows::usage_wanted(tx, &wanted).await?;
    for (one, late) in without.iter_mut().zip(late) {
        let Gathered { facts, rows, .. } = &mut ***one;
        for (service, row) in facts.services.iter_mut().zip(rows) {
            if asks(service) {
                service.usage.extend(late.iter().filter(|(id, _)| id == row).map(|(_, entry)| entry.clone()));
            }
        }
    }
    Ok(())
}

/// Everything of the periods that turn out to need their entries.
async fn read_periods(
    tx: &mut Tx,
    found: &mut [Result<Gathered, RunError>],
    units: &[usize],
    context: &RunContext,
) -> Result<(), StoreError> {
    let mut wanted = Vec::new();
    let mut places = Vec::new();
    let mut needed = Vec::new();
    let mut first = 0;
    for size in units {
        needed.extend(needed_of_unit(&mut found[first..first + size], context));
        first += size;
    }
    for ((index, slot), needs) in found.iter_mut().enumerate().zip(needed) {
        let Ok(one) = slot else { continue };
        match needs {
            Ok(needs) => {
                for need in needs {
                    wanted.push(Wanted {
                        account_id: one.account_id,
                        service_id: Some(one.rows[need.service]),
                        after: 0,
                        until: one.facts.watermark,
                        touching: Some((need.period.start, need.period.end)),
                    });
                    places.push((index, need.service));
                }
            }
            Err(error) => *slot = Err(error),
        }
    }
    let entries = rows::usage_wanted(tx, &wanted).await?;
    for ((index, service), entries) in places.into_iter().zip(entries) {
        let Ok(one) = &mut found[index] else { continue };
        let usage = &mut one.facts.services[service].usage;
        usage.extend(entries.into_iter().map(|(_, entry)| entry));
        usage.sort_by_key(|entry| entry.sequence);
        usage.dedup_by_key(|entry| entry.sequence);
    }
    Ok(())
}

/// What each account of a unit needs.
fn needed_of_unit(
    unit: &mut [Result<Gathered, RunError>],
    context: &RunContext,
) -> Vec<Result<Vec<UsageNeed>, RunError>> {
    if let [one] = unit {
        return vec![one.as_ref().map_err(Clone::clone).and_then(|one| usage_needed(&one.facts, context))];
    }
    let mut stopped =
        unit.iter().find_map(|one| one.as_ref().err()).map(|why| RunError::Relative { why: why.to_string() });
    if stopped.is_none() {
        // Borrowed for a moment: they stand side by side only here.
        let mut family: Vec<AccountFacts> =
            unit.iter_mut().flatten().map(|one| std::mem::take(&mut one.facts)).collect();
        let needs = usage_needed_of(&family, context);
        for one in unit.iter_mut().flatten().rev() {
            one.facts = family.pop().expect("one for each account");
        }
        match needs {
            Ok(needs) => {
                let mut found: Vec<Vec<UsageNeed>> = unit.iter().map(|_| Vec::new()).collect();
                needs.into_iter().for_each(|need| found[need.account].push(need));
                return found.into_iter().map(Ok).collect();
            }
            Err(error) => stopped = Some(error),
        }
    }
    let alone = |one: &Result<Gathered, RunError>| {
        let one = one.as_ref().map_err(Clone::clone)?;
        match &stopped {
            Some(error) if shares_with_others(&one.facts, &context.tariffs) => Err(error.clone()),
            _ => usage_needed(&one.facts, context),
        }
    };
    unit.iter().map(alone).collect()
}

/// Facts that are not a service's have no usage.
const NO_ROW: i64 = 0;
/// Longer than any push is under way.
const CHANGE_HOURS: i64 = 1;
