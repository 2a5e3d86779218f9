//! Catalogs by version, and the tariff versions that never change. Applying is one transaction: a tenant has the whole
//! new catalog or the old one.

use std::collections::{BTreeMap, BTreeSet};

use super::{StoreError, Tx, audit, blast, domains, follow, on};
use crate::billing::facts::{KnownVersion, TariffBook};
use crate::billing::history::PlanTariffs;
use crate::billing::tariff::{ChargeKind, Pool, Tariff};
use crate::catalog::{Bundle, Catalog, Effect, compare, read};
use crate::vocabulary::{Fault, Timestamp, from_micros, to_micros};

/// The catalog in force.
#[derive(Debug, Clone)]
pub struct InForce {
    pub version: i64,
    pub applied_at: Timestamp,
    pub applied_by: String,
    pub catalog: Catalog,
}

/// What applying did, or would do.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The version in force afterwards.
    pub version: i64,
    pub effect: Effect,
}

/// Why a catalog was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// What is stored does not allow it; every reason.
    #[error("the catalog contradicts what is stored")]
    Refused(Vec<Fault>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

const TENANT_NAME: &str = "SELECT name FROM tenant WHERE id = $1";
const CURRENT: &str = "SELECT catalog_version.version, catalog_version.applied_at, catalog_version.applied_by,
        catalog_version.document
     FROM tenant JOIN catalog_version
       ON catalog_version.tenant = tenant.id AND catalog_version.version = tenant.catalog_version
     WHERE tenant.id = $1";
const LOCK_TENANT: &str = "UPDATE tenant SET name = name WHERE id = $1";
const INSERT_TENANT: &str = "INSERT INTO tenant (id, name, parent, catalog_version, created_at)
     VALUES ($1, $2, $3, 0, $4) ON CONFLICT (id) DO NOTHING";
const MOVE_TENANT: &str = "UPDATE tenant SET name = $2, parent = $3, catalog_version = $4 WHERE id = $1";
const INSERT_VERSION: &str = "INSERT INTO catalog_version (tenant, version, digest, document, applied_at, applied_by)
     VALUES ($1, $2, $3, $4, $5, $6)";
const INSERT_TARIFF: &str = "INSERT INTO tariff_version (tenant, id, version, digest, document, applied_at)
     VALUES ($1, $2, $3, $4, $5, $6)";
const TARIFFS: &str = "SELECT id, version, digest, document, applied_at FROM tariff_version
     WHERE tenant = $1 ORDER BY id, version LIMIT 100000";
const VERSIONS: &str = "SELECT applied_at, document FROM catalog_version
     WHERE tenant = $1 ORDER BY version LIMIT 100000";
const TENANTS: &str = "SELECT id FROM tenant ORDER BY id LIMIT 100000";
const ACCOUNTS_OF_PLAN: &str = "SELECT DISTINCT service.account_id FROM service JOIN account
       ON account.id = service.account_id
     WHERE account.tenant = $1 AND service.plan = $2 AND service.ended_at IS NULL ORDER BY 1 LIMIT 10000000";
const SERVICES_OF_PLAN: &str = "SELECT COUNT(*) FROM service JOIN account ON account.id = service.account_id
     WHERE account.tenant = $1 AND service.plan = $2 AND service.ended_at IS NULL";
const ACCOUNTS_OF_CYCLE: &str =
    "SELECT COUNT(*) FROM account WHERE tenant = $1 AND bill_cycle = $2 AND closed_at IS NULL";
const LOCK_CATALOGS: &str = "SELECT pg_advisory_xact_lock($1)";
/// Key of the advisory lock under which catalogs are applied.
const CATALOGS_LOCK: i64 = 0x6c61_7374_6361_746c;
// A domain has no letters that LIKE reads otherwise but `_`, which only counts too much.
const ADDRESSES_IN: &str = "SELECT COUNT(*) FROM holder JOIN account ON account.id = holder.account_id
     WHERE account.tenant = $1 AND holder.kind = 'mailbox' AND holder.until_at IS NULL AND holder.value LIKE $2";
const WAKE_OF_PLAN: &str = "UPDATE account SET wake_at = $3
     WHERE tenant = $1 AND closed_at IS NULL AND (wake_at IS NULL OR wake_at > $3)
       AND id IN (SELECT service.account_id FROM service WHERE service.plan = $2 AND service.ended_at IS NULL)";
const WAKE_ALL: &str = "UPDATE account SET wake_at = $2
     WHERE tenant = $1 AND closed_at IS NULL AND (wake_at IS NULL OR wake_at > $2)";

/// The tenant's catalog in force. **Errors**: `Corrupt` when this release cannot read it any more.
pub async fn in_force(tx: &mut Tx, tenant: &str) -> Result<Option<InForce>, StoreError> {
    let row: Option<(i64, i64, String, String)> =
        on!(tx, c => sqlx::query_as(CURRENT).bind(tenant).fetch_optional(c).await)?;
    let Some((version, applied_at, applied_by, document)) = row else { return Ok(None) };
    let catalog = read_stored(tenant, version, &document)?;
    Ok(Some(InForce { version, applied_at: instant(applied_at, "catalog_version", tenant)?, applied_by, catalog }))
}

/// Ids of all tenants.
pub async fn tenants(tx: &mut Tx) -> Result<Vec<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(TENANTS).fetch_all(c).await)?)
}

/// Whether there is such a tenant.
pub async fn is_known(tx: &mut Tx, tenant: &str) -> Result<bool, StoreError> {
    Ok(tenants(tx).await?.iter().any(|known| known == tenant))
}

/// What a tenant is called.
pub async fn tenant_name(tx: &mut Tx, tenant: &str) -> Result<Option<String>, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(TENANT_NAME).bind(tenant).fetch_optional(c).await)?)
}

/// Every version of every tariff of a tenant.
pub async fn tariff_book(tx: &mut Tx, tenant: &str) -> Result<TariffBook, StoreError> {
    let rows: Vec<(String, i64, String, String, i64)> =
        on!(tx, c => sqlx::query_as(TARIFFS).bind(tenant).fetch_all(c).await)?;
    let mut book = TariffBook::new();
    for (id, version, _, document, applied_at) in rows {
        let place = format!("{tenant} {id} version {version}");
        let tariff = Tariff::read(&place, &document).map_err(|_| StoreError::Corrupt {
            table: "tariff_version",
            column: "document",
            id: place.clone(),
        })?;
        let known_at = instant(applied_at, "tariff_version", &place)?;
        book.entry(id).or_default().push(KnownVersion { tariff, known_at });
    }
    Ok(book)
}

/// The plans of the catalog in force of whose tariff some version has thresholds, or shares an allowance with one that
/// has.
pub async fn plans_with_thresholds(tx: &mut Tx, tenant: &str) -> Result<Vec<String>, StoreError> {
    let Some(in_force) = in_force(tx, tenant).await? else { return Ok(Vec::new()) };
    let book = tariff_book(tx, tenant).await?;
    let versions = || book.values().flatten().map(|known| &known.tariff);
    // What others use of a pool may cross a threshold of one of them.
    let pooled = |tariff: &Tariff, id: &str| {
        let usage = tariff.charge(id).map(|charge| &charge.kind);
        matches!(usage, Some(ChargeKind::Usage(usage)) if usage.pool() != Pool::Service)
    };
    let watched: BTreeSet<&str> = versions()
        .flat_map(|tariff| tariff.thresholds.iter().map(move |threshold| (tariff, threshold.meter.as_str())))
        .filter(|(tariff, meter)| pooled(tariff, meter))
        .map(|(_, meter)| meter)
        .collect();
    let may_cross =
        |tariff: &Tariff| !tariff.thresholds.is_empty() || watched.iter().any(|meter| pooled(tariff, meter));
    let has_any = |tariff: &String| {
        book.get(tariff).is_some_and(|versions| versions.iter().any(|known| may_cross(&known.tariff)))
    };
    Ok(in_force
        .catalog
        .plan_tariffs()
        .into_iter()
        .filter(|(_, tariff)| has_any(tariff))
        .map(|(plan, _)| plan)
        .collect())
}

/// Which tariff every plan named, from each catalog version on.
pub async fn plan_tariffs(tx: &mut Tx, tenant: &str) -> Result<PlanTariffs, StoreError> {
    let rows: Vec<(i64, String)> = on!(tx, c => sqlx::query_as(VERSIONS).bind(tenant).fetch_all(c).await)?;
    let mut history = PlanTariffs::new();
    for (index, (applied_at, document)) in rows.into_iter().enumerate() {
        let version = i64::try_from(index).unwrap_or(i64::MAX) + 1;
        let plans = read_stored(tenant, version, &document)?.plan_tariffs();
        // Versions that leave the tariffs alone cut nothing.
        if history.last().is_none_or(|(_, before)| *before != plans) {
            history.push((instant(applied_at, "catalog_version", tenant)?, plans));
        }
    }
    Ok(history)
}

/// What applying a catalog would do; writes nothing, so that counting a hundred thousand accounts holds up no push.
pub async fn assess(tx: &mut Tx, catalog: &Catalog, now: Timestamp) -> Result<Applied, ApplyError> {
    let tenant = catalog.tenant.as_str();
    let before = in_force(tx, tenant).await?;
    let known = tariff_digests(tx, tenant).await?;
    let old = before.as_ref().map(|before| &before.catalog);
    let mut effect = compare(catalog, old, &known).map_err(ApplyError::Refused)?;
    let version = before.as_ref().map_or(0, |before| before.version);
    if effect.unchanged {
        return Ok(Applied { version, effect });
    }
    check_removals(tx, catalog, old, &effect).await?;
    effect.mail_domains_elsewhere = domains::elsewhere(tx, tenant, &catalog.mail_domains).await?.into_keys().collect();
    let accounts = count(tx, tenant, &mut effect).await?;
    if let Some(old) = old {
        blast::count(tx, (old, catalog), &accounts, &mut effect, now).await?;
    }
    Ok(Applied { version: version + 1, effect })
}

/// Applies a catalog, as `assess` found it, in the caller's transaction; the same one again changes nothing.
///
/// `held`: what it changes in accounts waits for a rollout; prices count at once all the same. **Errors**: `Unavailable`
/// when the tenant's catalog became another one since it was assessed.
pub async fn apply(
    tx: &mut Tx,
    catalog: &Catalog,
    assessed: Applied,
    held: bool,
    actor: &str,
    now: Timestamp,
) -> Result<Applied, ApplyError> {
    if assessed.effect.unchanged {
        return Ok(assessed);
    }
    let tenant = catalog.tenant.as_str();
    let at = to_micros(now);
    // What is compared between tenants must not change meanwhile; catalogs are applied one after the other.
    if let Tx::Postgres(transaction) = tx {
        sqlx::query(LOCK_CATALOGS).bind(CATALOGS_LOCK).execute(&mut **transaction).await.map_err(StoreError::from)?;
    }
    let parent = catalog.parent.as_ref().map(|parent| parent.as_str());
    on!(tx, c => sqlx::query(INSERT_TENANT).bind(tenant).bind(&catalog.name).bind(parent).bind(at).execute(c).await
        .map(drop))
    .map_err(StoreError::from)?;
    // Whoever applies at the same time waits here.
    on!(tx, c => sqlx::query(LOCK_TENANT).bind(tenant).execute(c).await.map(drop)).map_err(StoreError::from)?;
    let before = in_force(tx, tenant).await?;
    let known = tariff_digests(tx, tenant).await?;
    let old = before.as_ref().map(|before| &before.catalog);
    let Applied { version, mut effect } = assessed;
    if version != before.as_ref().map_or(0, |before| before.version) + 1 {
        let meanwhile = format!("another catalog of {tenant} was applied meanwhile; apply this one again");
        return Err(StoreError::Unavailable(meanwhile).into());
    }
    // Since it was counted, somebody may have bought what is taken away.
    check_removals(tx, catalog, old, &effect).await?;
    let elsewhere = domains::settle(tx, tenant, &catalog.mail_domains, now).await?;
    effect.mail_domains_elsewhere = elsewhere.into_keys().collect();
    wake(tx, catalog, old, &effect, at).await?;
    if let Some(before) = &before {
        follow::mark_woken(tx, tenant, before.version, held, at).await?;
    }
    for tariff in &catalog.tariffs {
        if !known.contains_key(&(tariff.id.clone(), tariff.version)) {
            on!(tx, c => sqlx::query(INSERT_TARIFF)
                .bind(tenant)
                .bind(&tariff.id)
                .bind(i64::from(tariff.version))
                .bind(&tariff.digest)
                .bind(&tariff.document)
                .bind(at)
                .execute(c)
                .await.map(drop))
            .map_err(StoreError::from)?;
        }
    }
    let digest = catalog.bundle.digest();
    let document = serde_json::to_string(&catalog.bundle).map_err(|error| StoreError::Database(error.to_string()))?;
    on!(tx, c => sqlx::query(INSERT_VERSION)
        .bind(tenant)
        .bind(version)
        .bind(&digest)
        .bind(&document)
        .bind(at)
        .bind(actor)
        .execute(c)
        .await.map(drop))
    .map_err(StoreError::from)?;
    on!(tx, c => sqlx::query(MOVE_TENANT).bind(tenant).bind(&catalog.name).bind(parent).bind(version).execute(c).await
        .map(drop))
    .map_err(StoreError::from)?;
    let detail = serde_json::json!({ "version": version, "digest": digest });
    let entry = audit::Entry {
        tenant: Some(tenant),
        actor,
        action: "catalog.apply",
        account_id: None,
        subject: tenant,
        detail: &detail,
    };
    audit::append(tx, &entry, now).await?;
    Ok(Applied { version, effect })
}

/// What living accounts use cannot be taken away; whoever had a mail domain next would get their mail.
async fn check_removals(tx: &mut Tx, new: &Catalog, old: Option<&Catalog>, effect: &Effect) -> Result<(), ApplyError> {
    let tenant = new.tenant.as_str();
    let mut faults = Vec::new();
    for plan in &effect.removed_plans {
        let services = services_of_plan(tx, tenant, plan).await?;
        if services > 0 {
            let detail = format!("cannot be removed: {services} services are on it");
            faults.push(Fault { pointer: format!("plan {plan}"), detail });
        }
    }
    for cycle in &effect.removed_cycles {
        let accounts: i64 =
            on!(tx, c => sqlx::query_scalar(ACCOUNTS_OF_CYCLE).bind(tenant).bind(cycle).fetch_one(c).await)
                .map_err(StoreError::from)?;
        if accounts > 0 {
            let detail = format!("cannot be removed: {accounts} accounts are on it");
            faults.push(Fault { pointer: format!("bill_cycle {cycle}"), detail });
        }
    }
    for domain in old.iter().flat_map(|old| old.mail_domains.difference(&new.mail_domains)) {
        let addresses: i64 = on!(tx, c => sqlx::query_scalar(ADDRESSES_IN)
            .bind(tenant)
            .bind(format!("%@{domain}"))
            .fetch_one(c)
            .await)
        .map_err(StoreError::from)?;
        if addresses > 0 {
            let detail = format!("{domain} cannot be removed: {addresses} addresses are in it");
            faults.push(Fault { pointer: "tenant mail_domains".to_owned(), detail });
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(ApplyError::Refused(faults)) }
}

/// Lets the running daemon work out anew what the catalog changes; without that it would wait for the next push.
async fn wake(tx: &mut Tx, new: &Catalog, old: Option<&Catalog>, effect: &Effect, at: i64) -> Result<(), StoreError> {
    let Some(old) = old else { return Ok(()) };
    let tenant = new.tenant.as_str();
    if blast::touches_all(old, new) {
        on!(tx, c => sqlx::query(WAKE_ALL).bind(tenant).bind(at).execute(c).await.map(drop))?;
        return Ok(());
    }
    // A price is nothing that is provisioned.
    let changed = effect.changed_plans.iter().filter(|change| change.touches.iter().any(|touched| *touched != "price"));
    for change in changed {
        on!(tx, c => sqlx::query(WAKE_OF_PLAN).bind(tenant).bind(&change.plan).bind(at).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Services and accounts on changed plans; gives the accounts whose modems these plans touch.
async fn count(tx: &mut Tx, tenant: &str, effect: &mut Effect) -> Result<BTreeSet<i64>, StoreError> {
    let (mut accounts, mut with_modems) = (BTreeSet::new(), BTreeSet::new());
    for change in &mut effect.changed_plans {
        change.services = services_of_plan(tx, tenant, &change.plan).await?;
        let ids: Vec<i64> =
            on!(tx, c => sqlx::query_scalar(ACCOUNTS_OF_PLAN).bind(tenant).bind(&change.plan).fetch_all(c).await)?;
        if change.touches.contains(&"modem") {
            with_modems.extend(&ids);
        }
        accounts.extend(ids);
    }
    effect.accounts = i64::try_from(accounts.len()).unwrap_or(i64::MAX);
    Ok(with_modems)
}

async fn services_of_plan(tx: &mut Tx, tenant: &str, plan: &str) -> Result<i64, StoreError> {
    Ok(on!(tx, c => sqlx::query_scalar(SERVICES_OF_PLAN).bind(tenant).bind(plan).fetch_one(c).await)?)
}

async fn tariff_digests(tx: &mut Tx, tenant: &str) -> Result<BTreeMap<(String, u32), String>, StoreError> {
    let rows: Vec<(String, i64, String, String, i64)> =
        on!(tx, c => sqlx::query_as(TARIFFS).bind(tenant).fetch_all(c).await)?;
    rows.into_iter()
        .map(|(id, version, digest, _, _)| {
            let number = u32::try_from(version).map_err(|_| StoreError::Corrupt {
                table: "tariff_version",
                column: "version",
                id: format!("{tenant} {id}"),
            })?;
            Ok(((id, number), digest))
        })
        .collect()
}

fn read_stored(tenant: &str, version: i64, document: &str) -> Result<Catalog, StoreError> {
    let corrupt =
        || StoreError::Corrupt { table: "catalog_version", column: "document", id: format!("{tenant} {version}") };
    let bundle: Bundle = serde_json::from_str(document).map_err(|_| corrupt())?;
    read(&bundle).map_err(|_| corrupt())
}

fn instant(micros: i64, table: &'static str, id: &str) -> Result<Timestamp, StoreError> {
    from_micros(micros).ok_or_else(|| StoreError::Corrupt { table, column: "applied_at", id: id.to_owned() })
}
