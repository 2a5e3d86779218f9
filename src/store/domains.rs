//! Whose a mail domain is. Several catalogs may name the same; it belongs to the first until its catalog names it no more,
//! so that no tenant takes the mail of another's subscribers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::many::{Many, Of};
use super::{StoreError, Tx, catalog, on};
use crate::vocabulary::{Timestamp, to_micros};

const OWNER: &str = "SELECT tenant FROM mail_domain WHERE domain = $1";
static OWNERS: Many<1> =
    Many::new([("name", Of::Text)], "SELECT domain, tenant FROM new CROSS JOIN mail_domain WHERE domain = new.name");
const OWNED: &str = "SELECT domain FROM mail_domain WHERE tenant = $1 ORDER BY domain LIMIT 100000";
const GIVE: &str =
    "INSERT INTO mail_domain (domain, tenant, since_at) VALUES ($1, $2, $3) ON CONFLICT (domain) DO NOTHING";
const GIVE_UP: &str = "DELETE FROM mail_domain WHERE domain = $1 AND tenant = $2";

/// The owners of those of `named` that are another tenant's.
pub async fn elsewhere(
    tx: &mut Tx,
    tenant: &str,
    named: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut others = BTreeMap::new();
    let mut free = Vec::new();
    for domain in named {
        match owner(tx, domain).await? {
            Some(owner) if owner != tenant => drop(others.insert(domain.clone(), owner)),
            Some(_) => {}
            None => free.push(domain),
        }
    }
    // Nobody's in the table, and yet another's: catalogs that were in force before the table was there.
    if !free.is_empty() {
        for (other, theirs) in named_by_others(tx, tenant).await? {
            for domain in free.iter().filter(|domain| theirs.contains(**domain)) {
                others.entry((*domain).clone()).or_insert_with(|| other.clone());
            }
        }
    }
    Ok(others)
}

/// Settles whose the domains of a tenant's new catalog are. **Returns** the owners of those that are another's.
pub(super) async fn settle(
    tx: &mut Tx,
    tenant: &str,
    named: &BTreeSet<String>,
    now: Timestamp,
) -> Result<BTreeMap<String, String>, StoreError> {
    let owned: Vec<String> = on!(tx, c => sqlx::query_scalar(OWNED).bind(tenant).fetch_all(c).await)?;
    let given_up: Vec<String> = owned.into_iter().filter(|domain| !named.contains(domain)).collect();
    for domain in &given_up {
        on!(tx, c => sqlx::query(GIVE_UP).bind(domain).bind(tenant).execute(c).await.map(drop))?;
    }
    if !given_up.is_empty() {
        // Whoever named it in vain has it now.
        for (other, theirs) in named_by_others(tx, tenant).await? {
            for domain in given_up.iter().filter(|domain| theirs.contains(*domain)) {
                give(tx, domain, &other, now).await?;
            }
        }
    }
    let others = elsewhere(tx, tenant, named).await?;
    for domain in named {
        give(tx, domain, others.get(domain).map_or(tenant, String::as_str), now).await?;
    }
    Ok(others)
}

/// The owners of those of the domains that have one.
pub async fn owners(tx: &mut Tx, domains: &BTreeSet<&str>) -> Result<HashMap<String, String>, StoreError> {
    let rows: Vec<(String, String)> = OWNERS.fetch(tx, domains.iter().map(|name| [(*name).into()]).collect()).await?;
    Ok(rows.into_iter().collect())
}

async fn owner(tx: &mut Tx, domain: &str) -> Result<Option<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(OWNER).bind(domain).fetch_optional(c).await)?)
}

/// A domain that has an owner keeps it.
async fn give(tx: &mut Tx, domain: &str, tenant: &str, now: Timestamp) -> Result<(), StoreError> {
    on!(tx, c => sqlx::query(GIVE).bind(domain).bind(tenant).bind(to_micros(now)).execute(c).await.map(drop))?;
    Ok(())
}

async fn named_by_others(tx: &mut Tx, tenant: &str) -> Result<Vec<(String, BTreeSet<String>)>, StoreError> {
    let mut named = Vec::new();
    for other in catalog::tenants(tx).await?.into_iter().filter(|other| other != tenant) {
        if let Some(current) = catalog::in_force(tx, &other).await? {
            named.push((other, current.catalog.mail_domains));
        }
    }
    Ok(named)
}
