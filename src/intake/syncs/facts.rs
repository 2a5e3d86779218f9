//! What a report tells besides the two lists: whom wholesale lines counted, what plans cost, drift and usage of nobody.

use std::collections::{BTreeMap, HashMap};

use jiff::ToSpan;

use super::Order;
use crate::billing::lines::StoredLine;
use crate::billing::price::{Measure, price};
use crate::billing::tariff::{Audience, Charge, ChargeKind, CountRule, Counted, Scope, Tariff};
use crate::catalog::Catalog;
use crate::reconcile::{Counting, Filter, LISTED_MAX, Rate, Ring, RingClass, WholesaleCount};
use crate::store::accounts::{self, AccountRow};
use crate::store::fold::holders_of;
use crate::store::{StoreError, Tx, catalog, census, drift, syncs, usage};
use crate::vocabulary::{Date, Exact, Money, MoneyError, Rounding, Timestamp};

/// Whom a wholesale line charges for, and by which price.
#[derive(Debug)]
pub(super) struct Charged {
    pub counting: Counting,
    tariff: Tariff,
    charge: Charge,
    /// The count is the number of names, so that another number has a price.
    is_plain: bool,
}

impl Charged {
    /// What was counted, beside the list, and what the difference is worth.
    pub fn finish(self) -> Result<WholesaleCount, MoneyError> {
        let mut count = self.counting.finish();
        let cost = |number: u64| {
            let measure = Measure::whole(Exact::from_int(i128::from(number)), number);
            let priced = price(&self.tariff, &self.charge, &measure).map_err(|_| MoneyError::Overflow)?;
            let currency = self.tariff.currency;
            Money::round(priced.amount, currency, currency.minor_digits(), Rounding::HalfUp)
        };
        if self.is_plain {
            count.worth = Some(cost(count.counted)?.checked_sub(cost(count.theirs)?)?.to_string());
            count.currency = Some(self.tariff.currency);
        }
        Ok(count)
    }
}

/// What the tenant's parent charges it for on issued lines of the period that holds the list's instant.
pub(super) async fn counting(tx: &mut Tx, order: &Order) -> Result<Vec<Charged>, StoreError> {
    let mut newest: BTreeMap<(String, String), Charged> = BTreeMap::new();
    for document in syncs::wholesale_lines(tx, order.tenant.as_str(), order.as_of).await? {
        let corrupt =
            |column| StoreError::Corrupt { table: "line", column, id: format!("a count of {}", order.tenant) };
        let stored: StoredLine = serde_json::from_str(&document).map_err(|_| corrupt("document"))?;
        let line = stored.line;
        let Some(digest) = line.count.as_ref().map(|count| count.digest.clone()) else { continue };
        let Some(list) = census::list(tx, &digest).await? else { continue };
        if list.tenant != order.tenant.as_str() {
            continue;
        }
        let book = catalog::tariff_book(tx, &line.tenant).await?;
        let versions = book.get(&line.tariff.id).into_iter().flatten();
        let tariff = versions.map(|known| &known.tariff).find(|tariff| tariff.digest == line.tariff.digest);
        let charge = tariff.and_then(|tariff| Some((tariff, tariff.charge(&line.charge)?)));
        let Some((tariff, charge)) = charge else { continue };
        let ChargeKind::Count(count) = &charge.kind else { continue };
        let filter = Filter {
            services: count.what == Counted::Services,
            types: count.types.clone(),
            plans: count.plans.clone(),
            statuses: count.statuses.clone(),
        };
        let members = list.members.into_iter().map(|(member, _)| member);
        let names = [line.id.as_str(), line.charge.as_str(), list.rule.as_str(), list.days.as_str()];
        let counting = Counting::new(names, filter, order.source.as_str(), members);
        // A correction counts anew: the newest line of a charge tells whom it charges for.
        let is_plain = matches!(count.rule, CountRule::ActiveOn(_) | CountRule::Any);
        let charged = Charged { counting, tariff: tariff.clone(), charge: charge.clone(), is_plain };
        newest.insert((line.tariff.id.clone(), line.charge.clone()), charged);
    }
    Ok(newest.into_values().collect())
}

/// What an active service of each plan costs in a period: the recurring charges of its tariff that is in force on a day.
pub(super) fn rates(catalog: &Catalog, day: Date) -> BTreeMap<String, Rate> {
    let mut rates = BTreeMap::new();
    for plan in catalog.plans.values() {
        let of_plan = catalog.tariffs.iter().filter(|tariff| Some(&tariff.id) == plan.tariff.as_ref());
        let in_force = of_plan.filter(|tariff| tariff.effective_from <= day && tariff.audience == Audience::All);
        let Some(tariff) = in_force.max_by_key(|tariff| (tariff.effective_from, tariff.version)) else { continue };
        let recurring =
            tariff.charges.iter().filter(|charge| charge.scope() == Scope::Service).filter_map(|charge| match &charge
                .kind
            {
                ChargeKind::Recurring(recurring) => Some((charge.id.as_str(), recurring.amount)),
                _ => None,
            });
        let recurring: Vec<(&str, Exact)> = recurring.collect();
        let sum = recurring.iter().try_fold(Exact::ZERO, |sum, (_, amount)| sum.checked_add(*amount));
        // A sum that does not fit has no price to show.
        let Ok(amount) = sum else { continue };
        if !recurring.is_empty() {
            let charges: Vec<&str> = recurring.iter().map(|(id, _)| *id).collect();
            let by = format!("tariff {} version {}, {}", tariff.id, tariff.version, charges.join(" + "));
            rates.insert(plan.id.clone(), Rate { amount, currency: tariff.currency, by });
        }
    }
    rates
}

/// What differs beyond the lists.
pub(super) async fn ring(tx: &mut Tx, order: &Order, catalog: &Catalog) -> Result<Vec<Ring>, StoreError> {
    let limit = LISTED_MAX as i64;
    let (tenant, source) = (order.tenant.as_str(), order.source.as_str());
    let mut ring = Vec::new();
    for found in drift::list(tx, (Some(tenant), Some(source)), None, false, 0, limit).await? {
        let detail = format!("{} {}: {}", found.kind, found.key, found.detail);
        ring.push(Ring { class: RingClass::BackendDrift, account: Some(found.account), service: None, detail });
    }
    ring.extend(unowned(tx, order, catalog).await?);
    let since = order.as_of.checked_sub((LOOKED_BACK_DAYS * 24).hours()).unwrap_or(Timestamp::MIN);
    for zombie in syncs::zombies(tx, tenant, source, since, SLACK_SECONDS, limit).await? {
        let at = |at: Option<Timestamp>| at.map(|at| format!("{at:.0}")).unwrap_or_default();
        let detail = format!(
            "session {} behind {} goes on until {}; it ended {}",
            zombie.session,
            zombie.nas,
            at(zombie.last_event_at),
            at(zombie.ended_at)
        );
        let (account, service) = (Some(zombie.account), Some(zombie.service));
        ring.push(Ring { class: RingClass::ZombieUsage, account, service, detail });
    }
    Ok(ring)
}

/// Usage of logins of the tenant's realms that is nobody's: of one that its last holder gave up, or that nobody ever held.
async fn unowned(tx: &mut Tx, order: &Order, catalog: &Catalog) -> Result<Vec<Ring>, StoreError> {
    let mut found = Vec::new();
    for realm in &catalog.realms {
        found.extend(usage::unattributed(tx, Some(realm), LISTED_MAX as i64).await?);
    }
    let names: Vec<&str> = found.iter().filter_map(|unowned| unowned.user.as_deref()).collect();
    let holders = if names.is_empty() { Vec::new() } else { holders_of(tx, &names).await? };
    // The oldest come first, so that the last one stays.
    let last: HashMap<String, i64> =
        holders.iter().map(|holder| (holder.value.to_lowercase(), holder.owner.account_id)).collect();
    let ids: Vec<i64> = last.values().copied().collect();
    let rows = if ids.is_empty() { Vec::new() } else { accounts::these_by_id(tx, &ids).await? };
    let accounts: HashMap<i64, &AccountRow> = rows.iter().map(|row| (row.id, row)).collect();
    let mut ring = Vec::with_capacity(found.len());
    for unowned in &found {
        let user = unowned.user.as_deref().unwrap_or_default();
        let holder = last.get(&user.to_lowercase()).and_then(|id| accounts.get(id));
        // What a login of another billing system did is in that one's report.
        if holder.is_some_and(|row| row.tenant != order.tenant.as_str() || row.source != order.source.as_str()) {
            continue;
        }
        let class = if holder.is_some() { RingClass::ZombieUsage } else { RingClass::OrphanUsage };
        let octets = unowned.in_octets.saturating_add(unowned.out_octets);
        let detail = format!(
            "{user} behind {}: {} sessions, {octets} octets, {:.0} to {:.0}",
            unowned.nas, unowned.sessions, unowned.first_at, unowned.last_at
        );
        ring.push(Ring { class, account: holder.map(|row| row.external_id.clone()), service: None, detail });
    }
    Ok(ring)
}

/// Services that ended longer ago are not looked at.
const LOOKED_BACK_DAYS: i64 = 90;
/// A session is not ended to the second.
const SLACK_SECONDS: i64 = 3600;
