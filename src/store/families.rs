//! Which accounts belong together because they have, or had, the same parent: those are read at one moment and rated
//! together where a tariff shares an allowance among them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::billing::BilledAccount;
use super::many::{Many, Of};
use super::{StoreError, Tx};

static NOTE: Many<2> = Many::new(
    [("id", Of::Integer), ("head", Of::Text)],
    "INSERT INTO account_family (tenant, source, head, account_id)
     SELECT account.tenant, account.source, new.head, account.id FROM new CROSS JOIN account WHERE account.id = new.id
     ON CONFLICT (tenant, source, head, account_id) DO NOTHING",
);
static HEADS: Many<1> = Many::new(
    [("id", Of::Integer)],
    "SELECT family.account_id, family.source, family.head FROM new CROSS JOIN account_family AS family
     WHERE family.account_id = new.id",
);
static MEMBERS: Many<3> = Many::new(
    [("tenant", Of::Text), ("source", Of::Text), ("head", Of::Text)],
    "SELECT family.account_id, family.source, family.head FROM new CROSS JOIN account_family AS family
     WHERE family.tenant = new.tenant AND family.source = new.source AND family.head = new.head",
);
static NAMED: Many<3> = Many::new(
    [("tenant", Of::Text), ("source", Of::Text), ("name", Of::Text)],
    "SELECT account.id, account.source, account.external_id, account.bill_cycle FROM new CROSS JOIN account
     WHERE account.tenant = new.tenant AND account.source = new.source AND account.external_id = new.name",
);
static BILLED: Many<1> = Many::new(
    [("id", Of::Integer)],
    "SELECT account.id, account.source, account.external_id, account.bill_cycle FROM new CROSS JOIN account
     WHERE account.id = new.id",
);

/// Remembers whose family accounts are of.
pub(super) async fn note(tx: &mut Tx, parents: &BTreeSet<(i64, &str)>) -> Result<(), StoreError> {
    NOTE.execute(tx, parents.iter().map(|(id, head)| [(*id).into(), (*head).into()]).collect()).await
}

/// The families of these accounts, each with all its members, in the order of their rows; an account without relatives is
/// one by itself. They are in the order of their first members.
pub async fn of(tx: &mut Tx, tenant: &str, accounts: &[BilledAccount]) -> Result<Vec<Vec<BilledAccount>>, StoreError> {
    let mut known: BTreeMap<i64, BilledAccount> = accounts.iter().map(|one| (one.id, one.clone())).collect();
    // Who is of which name: the head itself and all that have, or had, it as their parent.
    let mut names: BTreeMap<(String, String), BTreeSet<i64>> = BTreeMap::new();
    let mut asked: HashSet<(String, String)> = HashSet::new();
    let mut new: Vec<BilledAccount> = accounts.to_vec();
    for _ in 0..MOST_STEPS {
        let own = new.iter().map(|one| ((one.source.clone(), one.external_id.clone()), one.id));
        let own: Vec<((String, String), i64)> = own.collect();
        let heads: Vec<Link> = HEADS.fetch(tx, new.iter().map(|one| [one.id.into()]).collect()).await?;
        let heads = heads.into_iter().map(|(id, source, head)| ((source, head), id));
        for (name, id) in own.into_iter().chain(heads) {
            names.entry(name).or_default().insert(id);
        }
        let ask: Vec<(String, String)> = names.keys().filter(|name| !asked.contains(*name)).cloned().collect();
        let rows = || ask.iter().map(|(source, name)| [tenant.into(), source.into(), name.into()]).collect();
        let members: Vec<Link> = MEMBERS.fetch(tx, rows()).await?;
        // Without a member a name is its own account's alone.
        let shared: BTreeSet<(String, String)> =
            members.iter().map(|(_, source, head)| (source.clone(), head.clone())).collect();
        for (id, source, head) in &members {
            names.entry((source.clone(), head.clone())).or_default().insert(*id);
        }
        let heads: Vec<_> = shared.iter().map(|(source, name)| [tenant.into(), source.into(), name.into()]).collect();
        let heads: Vec<BilledAccount> = NAMED.fetch(tx, heads).await?;
        asked.extend(ask);
        let ids: BTreeSet<i64> = members.iter().map(|(id, _, _)| *id).filter(|id| !known.contains_key(id)).collect();
        new = BILLED.fetch(tx, ids.into_iter().map(|id| [id.into()]).collect()).await?;
        new.extend(heads.into_iter().filter(|head| !known.contains_key(&head.id)));
        new.sort_by_key(|one| one.id);
        new.dedup_by_key(|one| one.id);
        known.extend(new.iter().map(|one| (one.id, one.clone())));
        if new.is_empty() {
            break;
        }
    }
    if !new.is_empty() {
        return Err(StoreError::Database(format!("a family of accounts of {tenant} has no end in {MOST_STEPS} steps")));
    }
    Ok(joined(known, names.into_values()))
}

/// Accounts that have a name in common, directly or by way of others.
fn joined(known: BTreeMap<i64, BilledAccount>, names: impl Iterator<Item = BTreeSet<i64>>) -> Vec<Vec<BilledAccount>> {
    let mut first: BTreeMap<i64, i64> = known.keys().map(|id| (*id, *id)).collect();
    for ids in names {
        let Some(least) = ids.iter().filter_map(|id| first.get(id)).min().copied() else { continue };
        let merged: BTreeSet<i64> = ids.iter().filter_map(|id| first.get(id)).copied().collect();
        first.values_mut().filter(|of| merged.contains(of)).for_each(|of| *of = least);
    }
    let mut families: BTreeMap<i64, Vec<BilledAccount>> = BTreeMap::new();
    for (id, account) in known {
        families.entry(first[&id]).or_default().push(account);
    }
    families.into_values().collect()
}

/// (account row, source, head).
type Link = (i64, String, String);

/// Accounts that move from parent to parent join their families; so far nobody moves that often.
const MOST_STEPS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_with_a_name_in_common_are_one_family() {
        let account = |id: i64| BilledAccount {
            id,
            source: "default".to_owned(),
            external_id: id.to_string(),
            bill_cycle: "c1".to_owned(),
        };
        let known = (1..=7).map(|id| (id, account(id))).collect();
        let names = [vec![2], vec![5, 3], vec![3, 6], vec![7], vec![4, 1]];
        let families = joined(known, names.into_iter().map(|ids| ids.into_iter().collect()));
        let ids: Vec<Vec<i64>> =
            families.iter().map(|family| family.iter().map(|account| account.id).collect()).collect();
        assert_eq!(ids, [vec![1, 4], vec![2], vec![3, 5, 6], vec![7]]);
    }
}
