//! Recomputes a stored line from its ledger entries and its tariff version, and says whether the result is the line.

use serde::Serialize;

use super::allowance::{Carry, Member, share};
use super::facts::{Grant, UsageEntry};
use super::groups::{member_of, rollover};
use super::lines::{AdjustmentShape, GrantBasis, PartShape, PoolMember, StoredLine, TaxShape, TierShape};
use super::measure::first_digest;
use super::parts::{Metered, meter, zone_of};
use super::price::{AdjustmentKind, Granted, Measure, Priced, price_with};
use super::run::RunError;
use super::tariff::{Charge, ChargeKind, Recurring, Tariff};
use super::tax::{Exemption, TaxAmount, TaxesDue, levy, levy_exact};
use crate::vocabulary::{Exact, ExactError, Money, Timestamp};

/// A line's whole computation, anew.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub line: super::lines::Line,
    /// Billed time.
    pub coverage: Vec<Edge>,
    /// The billed part of the period, exact.
    pub share: String,
    pub rounding: String,
    pub tariff: String,
    /// Ledger entries up to the line's watermark that lie in the billed time.
    pub entries: Vec<EntryShape>,
    /// Whom a count line counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<super::count::CountList>,
    /// How a shared allowance came to what the item uses of it, computed anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedShape>,
    /// The item's whole price so far, recomputed.
    pub recomputed: Recomputed,
    /// What earlier lines of the item had charged.
    pub issued_before: String,
    /// Every difference between the line and its recomputation; empty: it matches to the last digit.
    pub differences: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Edge {
    pub from: Timestamp,
    pub until: Timestamp,
}

#[derive(Debug, Clone, Serialize)]
pub struct EntryShape {
    pub sequence: i64,
    pub session: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    pub from: Timestamp,
    pub until: Timestamp,
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
}

/// A shared allowance from the ledger entries of all that share it.
#[derive(Debug, Clone, Serialize)]
pub struct SharedShape {
    pub members: Vec<MemberShape>,
    /// What was carried into the period, by the lines of the period before.
    pub carried_in: String,
    pub top_ups: Vec<TopUpShape>,
    pub available: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct MemberShape {
    /// External ids.
    pub account: String,
    pub service: String,
    pub own: String,
    pub quantity: String,
    pub used: String,
    /// Ledger entries up to this sequence count.
    pub watermark: i64,
}

#[derive(Debug, Clone, Serialize)]
pub struct TopUpShape {
    pub id: String,
    pub amount: String,
    pub left_before: String,
    pub used: String,
}

/// What the store still has of everything a shared allowance was computed from.
#[derive(Debug, Clone, Default)]
pub struct PoolGround {
    /// By the places of the members: the charge's tariff, and the service's ledger entries that touch the period.
    pub members: Vec<(Tariff, Vec<UsageEntry>)>,
    /// By the places of the members: the newest line of each, as it stood when this line was made.
    pub lines: Vec<Option<StoredLine>>,
    /// What the lines of the period before carry on, and which of them says so.
    pub before: Carry,
    pub carried_by: Option<String>,
    /// The top-ups the line names, as they are stored, in the unit of its charge.
    pub grants: Vec<GrantBasis>,
    /// The same in octets, seconds or sessions.
    pub stored_grants: Vec<Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recomputed {
    pub quantity_raw: String,
    pub quantity: String,
    pub allowance_used: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartShape>,
    pub tiers: Vec<TierShape>,
    pub adjustments: Vec<AdjustmentShape>,
    pub amount_exact: String,
    pub amount: String,
    pub tax: Vec<TaxShape>,
    pub usage_digest: Option<String>,
    /// `amount` less `amount_exact`.
    pub rounding_residue: String,
}

/// Explains a line. `entries` are the service's ledger entries of the period up to the line's watermark; `before` is the
/// item's line before this one; `pool` what others that share its allowance had. Without it what the line says it was given
/// is believed.
pub fn explain(
    stored: &StoredLine,
    before: Option<&StoredLine>,
    tariff: &Tariff,
    own_amount: Option<Exact>,
    entries: &[UsageEntry],
    pool: Option<&PoolGround>,
) -> Result<Explanation, RunError> {
    let basis = &stored.basis;
    let unknown = || RunError::UnknownVersion { tariff: tariff.id.clone(), version: tariff.version };
    let charge = tariff.charge(&stored.line.charge).ok_or_else(unknown)?;
    let shared = match pool {
        Some(ground) => shared_anew(stored, tariff, entries, ground)?,
        None => None,
    };
    let granted = shared.as_ref().map(|shared| shared.used);
    let whole = whole(stored, tariff, charge, own_amount, entries, granted)?;
    let Whole { priced, quantity_raw, metered, amount, taxes } = whole;
    let digest = metered.as_ref().map(|metered| metered.counted.digest.clone());
    let parts: Vec<PartShape> = metered.iter().flat_map(|metered| &metered.parts).map(PartShape::of).collect();
    let rounding = tariff.rounding;
    let exact = levy_exact(&TaxesDue::of(tariff, charge, exemption(stored)).paid, amount.exact())?;
    let issued_before = Money::new(before.map_or(0, |line| line.basis.amount_minor), tariff.currency);

    let mut differences = Vec::new();
    let mut compare = |what: &str, line: String, now: String| {
        if line != now {
            differences.push(format!("{what} is {line} in the line and {now} recomputed"));
        }
    };
    compare("tariff digest", stored.line.tariff.digest.clone(), tariff.digest.clone());
    if let Some(shared) = &shared {
        let kept = basis.granted.map_or(Exact::ZERO, |granted| granted.0);
        compare("what of a shared allowance is used", kept.to_string(), shared.used.to_string());
        shared.differences.iter().for_each(|(what, line, now)| compare(what, line.clone(), now.clone()));
    }
    compare("quantity_raw", basis.quantity_raw.to_string(), quantity_raw.to_string());
    compare("amount_exact", basis.amount_exact.0.to_string(), priced.amount.to_string());
    compare("amount so far", Money::new(basis.amount_minor, tariff.currency).to_string(), amount.to_string());
    compare("amount", stored.line.amount.clone(), amount.checked_sub(issued_before)?.to_string());
    if let (Some(usage), Some(digest)) = (&stored.line.usage, &digest) {
        compare("digest of the ledger entries", usage.digest.clone(), digest.clone());
    }
    if stored.line.parts != parts {
        compare("usage by class and window", json_of(&stored.line.parts), json_of(&parts));
    }
    for (tax, exact) in taxes.iter().zip(exact) {
        let kept = basis.taxes.iter().find(|sum| sum.id == tax.id);
        match kept.and_then(|sum| sum.exact) {
            // Rounded over the batch: the line's own part is compared before rounding.
            Some(kept) => compare(&format!("tax {} so far, exact", tax.id), kept.0.to_string(), exact.to_string()),
            None => {
                let kept = kept.map_or(0, |sum| sum.amount_minor);
                compare(&format!("tax {}", tax.id), kept.to_string(), tax.amount.minor.to_string());
            }
        }
    }

    Ok(Explanation {
        line: stored.line.clone(),
        coverage: basis.coverage.iter().map(|(from, until)| Edge { from: *from, until: *until }).collect(),
        share: basis.share.0.to_string(),
        rounding: format!("{}, {} decimal places", rounding.mode.as_str(), rounding.places),
        tariff: tariff.document.clone(),
        entries: entries.iter().filter(|entry| covered(entry, &basis.coverage)).map(EntryShape::of).collect(),
        counted: None,
        shared: shared.map(|shared| shared.shape),
        recomputed: Recomputed::of(&Whole { priced, quantity_raw, metered, amount, taxes })?,
        issued_before: issued_before.to_string(),
        differences,
    })
}

/// The item's whole price so far from other entries than the ledger's: what the journal gives, for example. Their
/// sequences are not the ledger's, so there is no digest.
pub fn recomputed_from(stored: &StoredLine, tariff: &Tariff, entries: &[UsageEntry]) -> Result<Recomputed, RunError> {
    let unknown = || RunError::UnknownVersion { tariff: tariff.id.clone(), version: tariff.version };
    let charge = tariff.charge(&stored.line.charge).ok_or_else(unknown)?;
    let whole = whole(stored, tariff, charge, own_amount(stored, tariff), entries, None)?;
    Ok(Recomputed { usage_digest: None, ..Recomputed::of(&whole)? })
}

/// The amount a subscriber of their own price paid, read back from the line's first step.
pub fn own_amount(stored: &StoredLine, tariff: &Tariff) -> Option<Exact> {
    let Some(Charge { kind: ChargeKind::Recurring(recurring), .. }) = tariff.charge(&stored.line.charge) else {
        return None;
    };
    let step = stored.line.adjustments.iter().find(|step| step.kind == AdjustmentKind::Price.as_str());
    // Who pays nothing has no such step.
    let paid: Exact = step.map_or(Some(Exact::ZERO), |step| step.amount_exact.parse().ok())?;
    let each = paid.checked_div(Exact::from_int(i128::from(stored.basis.times.max(1)))).ok()?;
    (each != recurring.amount).then_some(each)
}

/// What of a shared allowance an item uses, computed anew.
struct SharedAnew {
    used: Exact,
    shape: SharedShape,
    /// What differs: name, in the line, now.
    differences: Vec<(String, String, String)>,
}

/// Shares the allowance of the line's period out again, from everybody's ledger entries. `None`: it is the item's own, or
/// the line is of a program that did not say with whom it was shared.
fn shared_anew(
    stored: &StoredLine,
    tariff: &Tariff,
    entries: &[UsageEntry],
    ground: &PoolGround,
) -> Result<Option<SharedAnew>, RunError> {
    let (Some(pool), Some(usage)) = (&stored.basis.pool, &stored.line.usage) else { return Ok(None) };
    let alone = PoolMember {
        account: None,
        service: stored.line.service.clone().unwrap_or_default(),
        tariff: tariff.id.clone(),
        version: tariff.version,
        coverage: stored.basis.coverage.clone(),
        share: stored.basis.share,
        watermark: usage.watermark,
    };
    let own = [(tariff.clone(), entries.to_vec())];
    let (said, known): (&[PoolMember], &[(Tariff, Vec<UsageEntry>)]) = match pool.members.is_empty() {
        true => (std::slice::from_ref(&alone), &own),
        false => (&pool.members, &ground.members),
    };
    let zone = zone_of(&stored.line.period.timezone)?;
    let mut members = Vec::with_capacity(said.len());
    let mut rolls = None;
    for (member, (tariff, entries)) in said.iter().zip(known) {
        let unknown = || RunError::UnknownVersion { tariff: member.tariff.clone(), version: member.version };
        let charge = tariff.charge(&stored.line.charge).ok_or_else(unknown)?;
        let ChargeKind::Usage(usage) = &charge.kind else { return Err(unknown()) };
        rolls = rollover(usage).or(rolls);
        if member.coverage.is_empty() {
            members.push(Member { own: Exact::ZERO, quantity: Exact::ZERO });
            continue;
        }
        let until = entries.partition_point(|entry| entry.sequence <= member.watermark);
        let metered = meter(charge, usage, &zone, &member.coverage, &entries[..until])?;
        let measure = Measure { share: member.share.0, ..Measure::whole(metered.quantity, metered.events) };
        members.push(member_of(usage, &measure)?);
    }
    let usable: Vec<_> = pool.grants.iter().map(GrantBasis::usable).collect();
    let shared = share(&pool.before, pool.period, rolls, &members, &usable)?;
    let mut differences = Vec::new();
    if !pool.goes_on_from(&ground.before) {
        let said = |carry: &Carry| serde_json::to_string(carry).unwrap_or_default();
        differences.push((
            "what was carried in".to_owned(),
            said(&pool.before),
            said(&ground.before.clone().or_nothing()),
        ));
    }
    for grant in &pool.grants {
        // What other cycles had of it by then is believed.
        let stored = ground.grants.iter().find(|stored| stored.id == grant.id);
        if stored.is_none_or(|stored| (stored.until, stored.amount) != (grant.until, grant.amount)) {
            let now = stored.map_or("nothing".to_owned(), |stored| stored.amount.0.to_string());
            differences.push((format!("top-up {}", grant.id), grant.amount.0.to_string(), now));
        }
    }
    if let Some(carry) = stored.basis.carry.as_ref().filter(|carry| **carry != shared.carry) {
        let said = |carry: &Carry| serde_json::to_string(carry).unwrap_or_default();
        differences.push(("what is carried on".to_owned(), said(carry), said(&shared.carry)));
    }
    let shape = |(member, (counted, used)): (&PoolMember, (&Member, &Exact))| MemberShape {
        account: member.account.clone().unwrap_or_else(|| stored.line.account.clone()),
        service: member.service.clone(),
        own: counted.own.to_string(),
        quantity: counted.quantity.to_string(),
        used: used.to_string(),
        watermark: member.watermark,
    };
    let top_up = |bucket: &super::allowance::Bucket| match &bucket.source {
        super::allowance::Source::Grant(id) => {
            let amount = usable.iter().find(|grant| grant.id == *id).map_or(Exact::ZERO, |grant| grant.amount);
            let (left_before, used) = (bucket.amount.to_string(), bucket.used.to_string());
            Some(TopUpShape { id: id.clone(), amount: amount.to_string(), left_before, used })
        }
        _ => None,
    };
    let shape = SharedShape {
        members: said.iter().zip(members.iter().zip(&shared.used)).map(shape).collect(),
        carried_in: shared.carried_in.to_string(),
        top_ups: shared.buckets.iter().filter_map(top_up).collect(),
        available: shared.available.to_string(),
    };
    let used = shared.used.get(pool.place).copied().unwrap_or(Exact::ZERO);
    Ok(Some(SharedAnew { used, shape, differences }))
}

/// An item's whole price so far.
struct Whole {
    priced: Priced,
    quantity_raw: i64,
    metered: Option<Metered>,
    amount: Money,
    taxes: Vec<TaxAmount>,
}

fn whole(
    stored: &StoredLine,
    tariff: &Tariff,
    charge: &Charge,
    own_amount: Option<Exact>,
    entries: &[UsageEntry],
    granted: Option<Exact>,
) -> Result<Whole, RunError> {
    let (priced, quantity_raw, metered) = recompute(stored, tariff, charge, own_amount, entries, granted)?;
    let rounding = tariff.rounding;
    let amount = Money::round(priced.amount, tariff.currency, rounding.places, rounding.mode)?;
    let taxes = levy(&TaxesDue::of(tariff, charge, exemption(stored)).paid, amount, rounding)?;
    Ok(Whole { priced, quantity_raw, metered, amount, taxes })
}

impl Recomputed {
    fn of(whole: &Whole) -> Result<Self, ExactError> {
        let Whole { priced, quantity_raw, metered, amount, taxes } = whole;
        Ok(Self {
            quantity_raw: quantity_raw.to_string(),
            quantity: priced.quantity.to_string(),
            allowance_used: priced.allowance_used.to_string(),
            parts: metered.iter().flat_map(|metered| &metered.parts).map(PartShape::of).collect(),
            tiers: priced.tiers.iter().map(TierShape::of).collect(),
            adjustments: priced.adjustments.iter().map(AdjustmentShape::of).collect(),
            amount_exact: priced.amount.to_string(),
            amount: amount.to_string(),
            tax: taxes.iter().map(TaxShape::of).collect(),
            usage_digest: metered.as_ref().map(|metered| metered.counted.digest.clone()),
            rounding_residue: amount.exact().checked_sub(priced.amount)?.to_string(),
        })
    }
}

fn recompute(
    stored: &StoredLine,
    tariff: &Tariff,
    charge: &Charge,
    own_amount: Option<Exact>,
    entries: &[UsageEntry],
    granted: Option<Exact>,
) -> Result<(Priced, i64, Option<Metered>), RunError> {
    let basis = &stored.basis;
    let own = match (&charge.kind, own_amount) {
        (ChargeKind::Recurring(recurring), Some(amount)) => {
            Charge { kind: ChargeKind::Recurring(Recurring { amount, ..recurring.clone() }), ..charge.clone() }
        }
        _ => charge.clone(),
    };
    let metered = match &charge.kind {
        ChargeKind::Usage(usage) => {
            let zone = zone_of(&stored.line.period.timezone)?;
            Some(meter(charge, usage, &zone, &basis.coverage, entries)?)
        }
        _ => None,
    };
    let fixed = if basis.coverage.is_empty() { 0 } else { i64::from(basis.times) };
    let mut measure = Measure {
        quantity: match &metered {
            Some(metered) => metered.quantity,
            None => Exact::from_int(i128::from(basis.times)),
        },
        apart: metered.as_ref().map_or(Exact::ZERO, |metered| metered.apart),
        events: metered.as_ref().map_or(0, |metered| metered.events),
        share: basis.share.0,
        granted: granted.or(basis.granted.map(|granted| granted.0)),
        cycle_index: basis.cycle_index,
    };
    let mut raw = metered.as_ref().map_or(fixed, |metered| metered.raw);
    // Lines of the first form hashed the entries one after the other.
    let metered = metered.map(|mut metered| {
        if basis.engine == 1 {
            metered.counted.digest = first_digest(&basis.coverage, entries);
        }
        metered
    });
    match &charge.kind {
        // The list of whom a count counted is kept; the line's own number is what it was made from.
        ChargeKind::Count(_) => (measure.quantity, raw) = (basis.quantity.0, basis.quantity_raw),
        ChargeKind::Deposit { .. } if basis.quantity_raw < 0 => {
            measure.quantity = measure.quantity.checked_neg()?;
            raw = -raw;
        }
        _ => {}
    }
    let granted: Vec<Granted> = basis.discounts.iter().map(|granted| granted.granted()).collect();
    let mut priced = match basis.coverage.is_empty() {
        true => Priced::nothing(),
        false => price_with(tariff, &own, &measure, &granted)?,
    };
    let net = TaxesDue::of(tariff, charge, exemption(stored)).without_exempt(priced.amount)?;
    priced.adjust(AdjustmentKind::TaxExempt, net.checked_sub(priced.amount)?)?;
    Ok((priced, raw, metered))
}

fn json_of(parts: &[PartShape]) -> String {
    serde_json::to_string(parts).unwrap_or_default()
}

fn exemption(stored: &StoredLine) -> Exemption<'_> {
    Exemption { all: stored.basis.tax_exempt, taxes: &stored.basis.exempt_from }
}

fn covered(entry: &UsageEntry, coverage: &[(Timestamp, Timestamp)]) -> bool {
    coverage.iter().any(|(from, until)| entry.from < *until && (*from < entry.until || *from <= entry.from))
}

impl EntryShape {
    fn of(entry: &UsageEntry) -> Self {
        let UsageEntry { sequence, session, from, until, in_octets, out_octets, seconds, sessions, .. } = *entry;
        let class = entry.class.as_ref().map(|class| class.to_string());
        Self { sequence, session, class, from, until, in_octets, out_octets, seconds, sessions }
    }
}

#[cfg(test)]
mod tests;
