//! What a report tells besides the two lists: whom wholesale lines counted, what plans cost, drift and usage of nobody.

use std::collections::BTreeMap;

use jiff::ToSpan;

use super::Order;
use crate::billing::lines::StoredLine;
use crate::billing::tariff::{Audience, ChargeKind, Counted, Scope};
use crate::catalog::Catalog;
use crate::reconcile::{Counting, Filter, LISTED_MAX, Rate, Ring, RingClass};
use crate::store::fold::holders_of;
use crate::store::{StoreError, Tx, catalog, census, drift, syncs, usage};
use crate::vocabulary::{Date, Exact, Timestamp};

/// What the tenant's parent charges it for on issued lines of the period that holds the list's instant.
pub(super) async fn counting(tx: &mut Tx, order: &Order) -> Result<Vec<Counting>, StoreError> {
    let mut newest: BTreeMap<(String, String), Counting> = BTreeMap::new();
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
        let Some(ChargeKind::Count(count)) =
            tariff.and_then(|tariff| tariff.charge(&line.charge)).map(|charge| &charge.kind)
        else {
            continue;
        };
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
        newest.insert((line.tariff.id.clone(), line.charge.clone()), counting);
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
    for found in drift::list(tx, Some(tenant), None, false, 0, limit).await? {
        let detail = format!("{} {}: {}", found.kind, found.key, found.detail);
        ring.push(Ring { class: RingClass::BackendDrift, account: Some(found.account), service: None, detail });
    }
    let orphans: Vec<usage::Unattributed> = usage::unattributed(tx, limit).await?;
    let ours = |user: &str| {
        let realm = user.rsplit_once('@').map(|(_, realm)| realm.to_lowercase());
        realm.is_some_and(|realm| catalog.realms.contains(&realm))
    };
    let orphans: Vec<&usage::Unattributed> =
        orphans.iter().filter(|orphan| orphan.user.as_deref().is_some_and(ours)).collect();
    let names: Vec<&str> = orphans.iter().filter_map(|orphan| orphan.user.as_deref()).collect();
    let holders = if names.is_empty() { Vec::new() } else { holders_of(tx, &names).await? };
    for orphan in orphans {
        let user = orphan.user.as_deref().unwrap_or_default();
        let held = holders.iter().any(|holder| holder.value.eq_ignore_ascii_case(user));
        let class = if held { RingClass::ZombieUsage } else { RingClass::OrphanUsage };
        let octets = orphan.in_octets.saturating_add(orphan.out_octets);
        let detail = format!(
            "{user} behind {}: {} sessions, {octets} octets, {:.0} to {:.0}",
            orphan.nas, orphan.sessions, orphan.first_at, orphan.last_at
        );
        ring.push(Ring { class, account: None, service: None, detail });
    }
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

/// Services that ended longer ago are not looked at.
const LOOKED_BACK_DAYS: i64 = 90;
/// A session is not ended to the second.
const SLACK_SECONDS: i64 = 3600;
