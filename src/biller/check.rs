//! The month's end: what a person must look at before a period's bills go out. A draft whose findings are all waived, or
//! that has none, may be approved.

use std::collections::{BTreeMap, BTreeSet};

use jiff::ToSpan;
use serde_json::{Value, json};

use super::{BillerError, FAILED};
use crate::billing::month_end::{Finding, judge};
use crate::store::billing::{self, BatchRow};
use crate::store::exceptions::{self, ExceptionRow};
use crate::store::findings::{self, Origin, Place, StoredFinding};
use crate::store::rating;
use crate::store::{Store, StoreError, Tx, catalog, fold, held, journal, month_end, sessions};
use crate::vocabulary::{Clock, Period, Timestamp, from_micros};

/// What is to be checked.
#[derive(Debug, Clone)]
pub struct CheckOrder {
    pub tenant: String,
    pub cycle: String,
    /// First day or month; `None`: the latest period that has ended.
    pub period: Option<String>,
    /// How often each configured NAS reports, seconds, by its name.
    pub interims: BTreeMap<String, u32>,
}

/// What a check has found.
#[derive(Debug, Clone)]
pub struct Checked {
    pub period: Period,
    /// The latest batch of the period; `None`: there was no run yet.
    pub batch: Option<BatchRow>,
    /// Waived ones too.
    pub findings: Vec<StoredFinding>,
}

impl Checked {
    /// Whether nothing is left to look at.
    pub fn passed(&self) -> bool {
        self.batch.is_some() && self.findings.iter().all(|finding| finding.waived.is_some())
    }
}

/// Checks the latest batch of a period and what stands behind it, and keeps what it finds.
pub async fn check(store: &Store, clock: &Clock, order: &CheckOrder) -> Result<Checked, BillerError> {
    let now = clock.now();
    let (tenant, cycle) = (order.tenant.as_str(), order.cycle.as_str());
    let mut tx = store.read_snapshot().await?;
    let context = rating::context(&mut tx, tenant, cycle, order.period.as_deref(), now).await?;
    let period = context.period;
    let batch = billing::last_of(&mut tx, tenant, cycle, period.start).await?;
    let mut found = Vec::new();
    if let Some(batch) = &batch {
        bills(&mut tx, order, batch, &mut found).await?;
    }
    let id = batch.as_ref().map_or("", |batch| batch.id.as_str());
    people(&mut tx, order, id, &period, &mut found).await?;
    network(&mut tx, order, &period, now, &mut found).await?;
    queue(&mut tx, order, id, &mut found).await?;
    let folded = fold::watermarks(&mut tx).await?;
    drop(tx);
    lag(store, &folded, waits_too_long(&period, now), &mut found).await?;

    let mut tx = store.write().await?;
    let place = Place { tenant, cycle, period_start: period.start };
    findings::replace(&mut tx, place, Origin::Check, &found, now).await?;
    let findings = findings::list(&mut tx, place, Some(Origin::Check), now, FINDINGS_MAX).await?;
    let mut checked = Checked { period, batch, findings };
    if let Some(batch) = checked.batch.as_ref().filter(|batch| matches!(batch.state.as_str(), "draft" | "checked")) {
        let id = batch.id.clone();
        billing::mark_checked(&mut tx, tenant, &id, checked.passed(), now).await?;
        checked.batch = billing::batch(&mut tx, tenant, &id).await?;
    }
    tx.commit().await?;
    Ok(checked)
}

/// Bills that are nothing, negative, or far above what they were.
async fn bills(tx: &mut Tx, order: &CheckOrder, batch: &BatchRow, found: &mut Vec<Finding>) -> Result<(), StoreError> {
    let of = (order.tenant.as_str(), order.cycle.as_str(), batch.id.as_str());
    let odd = month_end::bills(tx, of, &batch.period, EARLIER_PERIODS).await?;
    found.extend(odd.iter().filter_map(judge).take(KIND_MAX));
    Ok(())
}

/// Who pays nothing, and who uses what they should not have.
async fn people(
    tx: &mut Tx,
    order: &CheckOrder,
    batch: &str,
    period: &Period,
    found: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let (tenant, cycle) = (order.tenant.as_str(), order.cycle.as_str());
    for row in month_end::never_billed(tx, (tenant, cycle, batch), period.end, KIND_MAX as i64).await? {
        let subject = format!("{}/{}", row.source, row.account);
        found.push(Finding {
            kind: "never_billed",
            detail: format!("{subject} is active and has never had an invoice line."),
            advice: "Look at its services' plans and `billing_from` with `account show`, or waive it.",
            numbers: json!({ "created_at": from_micros(row.created_at) }),
            subject,
        });
    }
    for row in month_end::stray_usage(tx, (tenant, cycle), period.start, KIND_MAX as i64).await? {
        let subject = format!("{}/{} {}", row.source, row.account, row.service);
        let day = |micros: i64| from_micros(micros).map(|at| format!("{at:.0}")).unwrap_or_default();
        let why = match (row.closed_at, row.ended_at) {
            (Some(closed), _) => format!("its account was closed {}", day(closed)),
            (None, Some(ended)) => format!("the service ended {}", day(ended)),
            (None, None) => format!("its account is {}", row.status),
        };
        let octets = i128::from(row.in_octets) + i128::from(row.out_octets);
        found.push(Finding {
            kind: "used_not_provisioned",
            detail: format!("{subject} used {octets} octets and is not in service: {why}."),
            advice: "Find out how it got on the network: compare `session list --account` with `account history`.",
            numbers: json!({ "octets": number(octets), "status": row.status }),
            subject,
        });
    }
    Ok(())
}

/// NAS that fell silent, and usage that nobody owns.
async fn network(
    tx: &mut Tx,
    order: &CheckOrder,
    period: &Period,
    now: Timestamp,
    found: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let alone = catalog::tenants(tx).await?.len() == 1;
    for behind in month_end::behind(tx, &order.tenant, period, alone, NAS_MAX).await? {
        let Some(last) = from_micros(behind.last_seen_at) else { continue };
        let client = behind.nas.split_once('/').map_or(behind.nas.as_str(), |(client, _)| client);
        let interim = order.interims.get(&behind.nas).or_else(|| order.interims.get(client)).copied();
        let patience = i64::from(interim.unwrap_or(DEFAULT_INTERIM)) * INTERVALS;
        if now.as_second() - last.as_second() <= patience {
            continue;
        }
        found.push(Finding {
            kind: "silent_nas",
            detail: format!(
                "NAS {} has been silent since {last:.0} with {} open sessions of this period: their usage is not all here.",
                behind.nas, behind.open_sessions
            ),
            advice: "Look whether it reaches us (`nas list`); what it sends later becomes corrections.",
            numbers: json!({ "last_report_at": last, "open_sessions": behind.open_sessions }),
            subject: behind.nas,
        });
    }
    let Some(in_force) = catalog::in_force(tx, &order.tenant).await? else { return Ok(()) };
    let realms: BTreeSet<String> = in_force.catalog.realms;
    for row in month_end::ownerless(tx, period, KIND_MAX as i64).await? {
        let realm = row.user_name.as_deref().and_then(|user| user.rsplit_once('@')).map(|(_, realm)| realm);
        let ours = realm.is_some_and(|realm| realms.contains(&realm.to_lowercase()));
        // Names without a realm of ours are ours only where there is nobody else.
        if !ours && !alone {
            continue;
        }
        let user = row.user_name.as_deref().unwrap_or("(no user name)");
        found.push(Finding {
            kind: "unattributed_usage",
            subject: format!("{} {user}", row.nas),
            detail: format!(
                "{user} at {} used {} octets in {} sessions, and nobody holds the name.",
                row.nas, row.octets, row.sessions
            ),
            advice: "Push the account that owns it: its usage attaches and is billed (`usage unattributed`).",
            numbers: json!({ "octets": number(row.octets), "sessions": row.sessions }),
        });
    }
    Ok(())
}

/// What waits for a person, and what policy holds back.
async fn queue(tx: &mut Tx, order: &CheckOrder, batch: &str, found: &mut Vec<Finding>) -> Result<(), StoreError> {
    let limit = KIND_MAX as i64;
    for row in open_exceptions(tx, &order.tenant, limit).await? {
        let failed = row.kind == FAILED;
        found.push(Finding {
            kind: if failed { "failed_account" } else { "open_exception" },
            detail: format!("{} {}: {}", row.kind, row.subject, row.detail),
            advice: match failed {
                true => "Mend what stopped it and repeat `bill run`: until then the account has no lines.",
                false => "Settle it with `exception show` and `exception release`.",
            },
            numbers: json!({ "exception": row.id.to_string(), "occurrences": row.occurrences }),
            subject: format!("{} {}", row.kind, row.subject),
        });
    }
    let draft = Some(batch).filter(|batch| !batch.is_empty());
    for row in held::list(tx, &order.tenant, Some(&order.cycle), draft, limit).await? {
        let subject = format!("{}/{} {} {} {}", row.source, row.account, row.service, row.charge, row.period.start);
        let why = if row.reason == "too_old" { "older than debit_max_age" } else { "smaller than min_amount" };
        found.push(Finding {
            kind: "held_correction",
            detail: format!(
                "A correction of {} {} for {subject} is held back: {why}.",
                row.amount, row.amount.currency
            ),
            advice: "See `bill held`; change `corrections` of the tenant to bill it, or waive it.",
            numbers: json!({ "amount": row.amount.to_string(), "currency": row.amount.currency, "reason": row.reason }),
            subject,
        });
    }
    Ok(())
}

/// What nobody has released of the tenant's; and of the installation's what is about a session of the tenant's, or all of
/// it where there is no other tenant. One that sleeps is open still.
async fn open_exceptions(tx: &mut Tx, tenant: &str, limit: i64) -> Result<Vec<ExceptionRow>, StoreError> {
    let alone = catalog::tenants(tx).await?.len() == 1;
    let rows = exceptions::unreleased(tx, tenant, limit).await?;
    if alone {
        return Ok(rows);
    }
    // A subject is `NAS/SESSION`, and either may have a slash in it.
    let keys: Vec<(&str, &str)> = rows
        .iter()
        .filter(|row| row.tenant.is_none())
        .flat_map(|row| row.subject.match_indices('/').map(|(at, _)| (&row.subject[..at], &row.subject[at + 1..])))
        .collect();
    let mut owners: BTreeMap<String, i64> = BTreeMap::new();
    for session in sessions::of_keys(tx, &keys).await? {
        let subject = format!("{}/{}", session.nas, session.session);
        owners.extend(session.owner.map(|owner| (subject, owner.account_id)));
    }
    let accounts: Vec<i64> = owners.values().copied().collect();
    let of_tenant = fold::cycles_of(tx, &accounts).await?;
    let ours: BTreeSet<i64> = of_tenant.into_iter().filter(|(_, of, _)| of == tenant).map(|(id, ..)| id).collect();
    let concerns = |row: &ExceptionRow| {
        row.tenant.is_some() || owners.get(&row.subject).is_some_and(|account| ours.contains(account))
    };
    Ok(rows.into_iter().filter(concerns).collect())
}

/// What arrived until then and is not folded is told: all of the period, and what has waited since the days behind it, in
/// which its last reports come. A fold that works is never so far behind.
fn waits_too_long(period: &Period, now: Timestamp) -> Timestamp {
    let behind = now.checked_sub(LAG_SECONDS.seconds()).unwrap_or(now);
    let last_reports = period.end.checked_add(REPORTS_HOURS.hours()).unwrap_or(period.end);
    behind.min(last_reports).max(period.end.min(now))
}

/// A number that JSON can hold exactly, else its digits.
fn number(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| json!(number.to_string()), |number| json!(number))
}

/// Records of the period that arrived and are not folded.
async fn lag(
    store: &Store,
    folded: &std::collections::HashMap<i64, i64>,
    until: Timestamp,
    found: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let mut tx = store.read_journal().await?;
    for lane in journal::lanes(&mut tx).await? {
        let after = folded.get(&lane).copied().unwrap_or(0);
        let newest = journal::last_seq(&mut tx, lane).await?;
        let next = journal::read_after(&mut tx, lane, after, 1).await?;
        let Some(waiting) = next.first().filter(|row| row.entry.arrived_at <= until) else { continue };
        found.push(Finding {
            kind: "watermark_lag",
            subject: format!("lane {lane}"),
            detail: format!(
                "{} accounting records wait to be folded, the oldest since {:.0}.",
                newest - after,
                waiting.entry.arrived_at
            ),
            advice: "Let the daemon run until it has folded them, then repeat `bill run`.",
            numbers: json!({ "records": newest - after, "oldest_arrived_at": waiting.entry.arrived_at }),
        });
    }
    Ok(())
}

/// Periods a bill is compared with.
const EARLIER_PERIODS: i64 = 6;
/// Findings of one kind.
const KIND_MAX: usize = 10_000;
const FINDINGS_MAX: i64 = 100_000;
const NAS_MAX: i64 = 100_000;
/// Intervals without a report after which a NAS with open sessions is silent.
const INTERVALS: i64 = 3;
/// The fold is told to be behind when something has waited so long, and was received so long after the period's end at most.
const LAG_SECONDS: i64 = 60;
const REPORTS_HOURS: i64 = 24;
/// How often a NAS reports of which the configuration says nothing, seconds.
const DEFAULT_INTERIM: u32 = 600;
