//! The blast radius of a catalog: the gateways whose files become others, counted by what each file says.
//!
//! Comes in: the catalog in force and the new one. Goes out: how many gateways must boot to take it, and how many of them
//! carry voice. A change that an account's file does not show, such as a plan's rate while its modem is in the garden,
//! counts for nothing. Writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{StoreError, Tx, accounts, holds, on};
use crate::account::{Known, SecretDigests, Status};
use crate::catalog::{Catalog, Effect, Plan};
use crate::provision::{Basis, Content, elements};
use crate::vocabulary::{MacAddress, Timestamp};

const LIVING_ACCOUNTS: &str =
    "SELECT id FROM account WHERE tenant = $1 AND closed_at IS NULL ORDER BY id LIMIT 10000000";

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
    let ids: Vec<i64> = match all {
        true => on!(tx, c => sqlx::query_scalar(LIVING_ACCOUNTS).bind(new.tenant.as_str()).fetch_all(c).await)?,
        false => of_plans.iter().copied().collect(),
    };
    let (before, after) = (old.known(), new.known());
    for id in ids {
        let Some(row) = accounts::by_id(tx, id).await?.filter(|row| row.closed_at.is_none()) else { continue };
        let held: Vec<_> = holds::living(tx, id).await?.into_iter().map(|row| row.held).collect();
        let gateways = |known: &Known| -> BTreeMap<MacAddress, Vec<Content>> {
            let basis = Basis {
                account: &row.document,
                external_id: &row.external_id,
                known,
                operator_holds: &held,
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
        let (was, is) = (gateways(&before), gateways(&after));
        for (gateway, files) in &is {
            if was.get(gateway).is_some_and(|known| known != files) {
                effect.reboots += 1;
                effect.reboots_with_voice += i64::from(files.iter().any(|file| matches!(file, Content::Mta(_))));
            }
        }
    }
    Ok(())
}
