//! The blast radius of a catalog: the gateways whose files become others, counted by what each file says.
//!
//! Comes in: the catalog in force and the new one. Goes out: how many gateways must boot to take it, and how many of them
//! carry voice. A change that an account's file does not show, such as a plan's rate while its modem is in the garden,
//! counts for nothing. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::accounts::AccountRow;
use super::{StoreError, Tx, accounts, holds};
use crate::account::{Known, SecretDigests, Status};
use crate::catalog::{Catalog, Effect, Plan};
use crate::provision::{Basis, Content, OperatorHold, elements};
use crate::vocabulary::{MacAddress, Timestamp};

/// Accounts read at once.
const PAGE: i64 = 1000;

/// Whether a catalog changes what every account's devices follow from, and not only some plans' own.
pub(super) fn touches_all(old: &Catalog, new: &Catalog) -> bool {
    // Who has an add-on is read from the documents, not from an index.
    let addons = |catalog: &Catalog| -> BTreeMap<String, _> {
        let of = |plan: &Plan| (plan.id.clone(), (plan.addon.clone(), plan.radius.clone()));
        catalog.plans.values().filter(|plan| plan.service.is_none()).map(of).collect()
    };
    new.holds != old.holds
        || new.garden_group != old.garden_group
        || new.blocked_group != old.blocked_group
        || new.garden != old.garden
        || new.models != old.models
        || addons(old) != addons(new)
}

/// Counts the gateways of `of_plans` (accounts on changed plans), or of all accounts, whose files differ.
pub(super) async fn count(
    tx: &mut Tx,
    (old, new): (&Catalog, &Catalog),
    of_plans: &BTreeSet<i64>,
    effect: &mut Effect,
    now: Timestamp,
) -> Result<(), StoreError> {
    let all = touches_all(old, new);
    if !all && of_plans.is_empty() {
        return Ok(());
    }
    let tenant = new.tenant.as_str();
    let (before, after) = (old.known(), new.known());
    let held = holds::living_of_tenant(tx, tenant).await?;
    let mut last = None;
    loop {
        let page = accounts::list(tx, tenant, None, false, last, PAGE).await?;
        let Some(newest) = page.last().map(|row| row.id) else { return Ok(()) };
        last = Some(newest);
        for row in page.into_iter().filter(|row| all || of_plans.contains(&row.id)) {
            let held = held.get(&row.id).map_or(&[][..], Vec::as_slice);
            count_one(&row, held, (&before, &after), effect, now);
        }
    }
}

fn count_one(
    row: &AccountRow,
    held: &[OperatorHold],
    (before, after): (&Known, &Known),
    effect: &mut Effect,
    now: Timestamp,
) {
    let gateways = |known: &Known| -> BTreeMap<MacAddress, Vec<Content>> {
        let basis = Basis {
            account: &row.document,
            external_id: &row.external_id,
            known,
            operator_holds: held,
            // The same on both sides: a catalog changes no secret.
            secrets: &SecretDigests::new(),
            closed: row.document.status == Status::Terminated,
        };
        let mut files: BTreeMap<MacAddress, Vec<Content>> = BTreeMap::new();
        for element in elements(&basis, &[], now) {
            if let Some(gateway) = element.content.gateway() {
                files.entry(gateway).or_default().push(element.content.as_file());
            }
        }
        files
    };
    let (was, is) = (gateways(before), gateways(after));
    for (gateway, files) in &is {
        if was.get(gateway).is_some_and(|known| known != files) {
            effect.reboots += 1;
            effect.reboots_with_voice += i64::from(files.iter().any(|file| matches!(file, Content::Mta(_))));
        }
    }
}
