//! The invoice line of CONTRACT §6, and what is kept beside it so that it can be explained and corrected.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::allowance::{Bucket, Carry, Source, Usable};
use super::calendar::BillCycle;
use super::charges::{NAMELESS, PostedBasis};
use super::groups::NO_END;
use super::parts::Part;
use super::price::{Adjustment, Granted, PricedTier};
use super::run::RunError;
use super::tax::TaxAmount;
use crate::vocabulary::{Date, Exact, ExactError, Period, Timestamp, hex};

/// One rated, immutable invoice line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub id: String,
    pub tenant: String,
    /// External id.
    pub account: String,
    /// External id.
    pub service: Option<String>,
    pub charge: String,
    pub kind: LineKind,
    pub cycle: String,
    pub period: Period,
    pub tariff: TariffRef,
    pub description: String,
    /// What was counted: octets, seconds, sessions; how many times a fixed amount is due.
    pub quantity_raw: String,
    pub quantity: String,
    pub unit: String,
    pub allowance_used: String,
    /// How an allowance that is shared or carried on came to what was used of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<AllowanceShape>,
    /// The item's usage so far by class and window, calls by destination; empty where the charge tells nothing apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartShape>,
    pub tiers: Vec<TierShape>,
    pub adjustments: Vec<AdjustmentShape>,
    pub amount_exact: String,
    /// `amount_exact` + `rounding_residue`; net of exclusive and gross of inclusive tax.
    pub amount: String,
    pub rounding_residue: String,
    pub tax: Vec<TaxShape>,
    /// For whom taxes its lines with an engine of its own; passed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_category: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_jurisdiction: Option<String>,
    pub currency: String,
    /// The first line of the item this line corrects.
    pub corrects: Option<String>,
    pub usage: Option<UsageShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<CountShape>,
    /// `None` in a preview.
    pub batch: Option<String>,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineKind {
    Recurring,
    Usage,
    Count,
    OneOff,
    /// Money held for the subscriber, and its return.
    Deposit,
    /// A correction that costs the subscriber more, or nothing.
    Adjustment,
    /// A correction in favour of the subscriber.
    Credit,
    TrueUp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TariffRef {
    pub id: String,
    pub version: u32,
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierShape {
    pub quantity: String,
    pub unit_amount: String,
    pub flat_amount: String,
    pub amount_exact: String,
}

/// An allowance that is pooled over services or carried on, in the charge's unit, of the whole period so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowanceShape {
    /// The item's own.
    pub own: String,
    /// What all that share it had from earlier periods.
    pub carried_in: String,
    /// What this item uses of everything.
    pub used: String,
    /// All there was for all that share it: their own, carried and topped up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<String>,
    /// What they left of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// What is carried on by all that share it; it stands on the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_on: Option<String>,
    /// What there was, in the order in which it is used up; it stands on the last of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<BucketShape>,
}

/// A part of an allowance that expires by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketShape {
    pub kind: BucketKind,
    /// The posted charge of a top-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it expires; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    pub quantity: String,
    pub used: String,
    pub left: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BucketKind {
    /// Left from earlier periods.
    Carried,
    /// The period's own.
    Included,
    TopUp,
}

/// The usage of one class and window, or the calls to one destination: Σ `quantity_raw` is what was counted, Σ `weight` × `quantity` what the model
/// sees, Σ `amount_exact` the step `own_price`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartShape {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Of calls: the beginning of the numbers called, and how many there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    pub quantity_raw: String,
    pub quantity: String,
    pub weight: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_amount: Option<String>,
    pub amount_exact: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdjustmentShape {
    pub kind: String,
    pub amount_exact: String,
    /// Which discount it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaxShape {
    pub id: String,
    /// Percent.
    pub rate: String,
    /// The amount of a tax that is no percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    pub inclusive: bool,
    pub base: String,
    pub amount: String,
    /// The line's own part before the tax was rounded once for the account's lines of the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_exact: Option<String>,
}

/// Where the quantity of a count line comes from; the list itself is kept under its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountShape {
    /// The tenant whose subscribers were counted.
    pub tenant: String,
    pub rule: String,
    /// Local days that were looked at.
    pub days: String,
    pub members: u64,
    pub digest: String,
    /// The hash by which the tenant proves that its books say the same of that day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<HandshakeShape>,
}

/// The root of `billing::handshake` over all sources of a tenant, at the end of a day of a time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakeShape {
    pub day: Date,
    pub timezone: String,
    pub root: String,
}

/// Where the quantity of a usage line comes from: the account's ledger up to `watermark`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageShape {
    pub watermark: i64,
    /// Ledger entries that count, those of earlier lines of the item included.
    pub records: u64,
    /// SHA-256 of these entries.
    pub digest: String,
}

impl CountShape {
    /// Whether a list is the one the line was made from.
    pub fn is_of(&self, list: &super::count::CountList) -> bool {
        list.digest() == self.digest && u64::try_from(list.members.len()) == Ok(self.members)
    }
}

/// A line as it is stored: the line and what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLine {
    pub line: Line,
    pub basis: Basis,
}

impl StoredLine {
    /// Takes out what somebody wrote into the description of the posted charge that it is of. `false`: there is nothing.
    pub fn forget_description(&mut self) -> bool {
        let Some(posted) = &mut self.basis.posted else { return false };
        let Some(clean) = posted.posting.without_description() else { return false };
        let before = std::mem::replace(&mut posted.posting, clean).description.unwrap_or_default();
        let words = posted.posting.charge.as_deref().unwrap_or(NAMELESS);
        self.line.description = self.line.description.replace(&before, words);
        true
    }
}

/// The cumulative state of a line's item after the line: the next line of the item is the difference to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    pub source: String,
    /// The form of `inputs` and of the usage digest.
    #[serde(default = "first_engine")]
    pub engine: u32,
    pub addon: Option<String>,
    /// 0 for an item's first line.
    pub revision: u32,
    /// The billed time, `[from, until)` each.
    pub coverage: Vec<(Timestamp, Timestamp)>,
    pub share: Ratio,
    pub cycle_index: u32,
    pub tax_exempt: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exempt_from: Vec<String>,
    /// Conditional discounts that were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discounts: Vec<GrantedShape>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posted: Option<PostedBasis>,
    pub times: u32,
    pub events: u64,
    pub quantity_raw: i64,
    pub quantity: Ratio,
    pub allowance_used: Ratio,
    pub amount_exact: Ratio,
    pub amount_minor: i64,
    pub taxes: Vec<TaxSum>,
    /// What of a shared allowance this item uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Ratio>,
    /// What is carried on; on the last of the items that share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry: Option<Carry>,
    /// Where `granted` comes from; lines of older programs do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolBasis>,
    /// Digest of everything above the amounts: without a new cause there is no correction.
    pub inputs: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaxSum {
    pub id: String,
    pub rate: String,
    pub inclusive: bool,
    pub base_minor: i64,
    pub amount_minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<String>,
    /// Before rounding, where the tax is rounded over a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Ratio>,
}

/// A conditional discount and the part of the billed time it was given for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedShape {
    pub discount: String,
    pub part: Ratio,
}

impl GrantedShape {
    pub fn of(granted: &Granted) -> Self {
        Self { discount: granted.discount.clone(), part: Ratio(granted.part) }
    }

    pub fn granted(&self) -> Granted {
        Granted { discount: self.discount.clone(), part: self.part.0 }
    }
}

/// What an allowance that is shared was computed from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolBasis {
    /// The number of the period.
    pub period: i64,
    /// What was carried into the period.
    pub before: Carry,
    /// Top-ups that could be used in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<GrantBasis>,
    /// The item's place among the members.
    #[serde(default)]
    pub place: usize,
    /// All that share it, in the order in which they are served; none: the item alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<PoolMember>,
    /// What the period used of each top-up; it stands on the last of the members, and where none was used it is not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<GrantTaken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantTaken {
    pub id: String,
    /// Octets, seconds or sessions.
    pub amount: Ratio,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantBasis {
    pub id: String,
    /// The number of the last period it may be used in; `None`: it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    pub amount: Ratio,
    /// What periods of other cycles had used of it when the line was made.
    #[serde(default, skip_serializing_if = "Ratio::is_zero")]
    pub elsewhere: Ratio,
}

/// One that shares an allowance, as the line's run saw it; what it used follows from its ledger entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolMember {
    /// External id; `None`: the line's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// External id.
    pub service: String,
    pub tariff: String,
    pub version: u32,
    pub coverage: Vec<(Timestamp, Timestamp)>,
    pub share: Ratio,
    /// Of its account's ledger.
    pub watermark: i64,
}

impl PoolBasis {
    /// Whether what was carried into the period is what is carried there by now, as far as the period can use it.
    pub fn goes_on_from(&self, now: &Carry) -> bool {
        let is_usable = |id: &str| self.grants.iter().any(|grant| grant.id == id);
        let [then, now] = [&self.before, now].map(|carry| carry.reaching(self.period, &is_usable));
        then.goes_on_as(&now)
    }
}

impl PoolMember {
    /// As a line of `account` keeps it.
    pub fn seen_from(&self, account: &str) -> Self {
        Self { account: self.account.clone().filter(|other| other != account), ..self.clone() }
    }
}

impl GrantBasis {
    pub fn of(usable: &Usable) -> Self {
        let until = Some(usable.until).filter(|until| *until != NO_END);
        Self { id: usable.id.clone(), until, amount: Ratio(usable.amount), elsewhere: Ratio(usable.elsewhere) }
    }

    pub fn usable(&self) -> Usable {
        let until = self.until.unwrap_or(NO_END);
        Usable { id: self.id.clone(), until, amount: self.amount.0, elsewhere: self.elsewhere.0 }
    }
}

impl BucketShape {
    pub fn of(bucket: &Bucket, cycle: &BillCycle) -> Result<Self, RunError> {
        let (kind, id) = match &bucket.source {
            Source::Carried => (BucketKind::Carried, None),
            Source::Own => (BucketKind::Included, None),
            Source::Grant(id) => (BucketKind::TopUp, Some(id.clone())),
        };
        let until = match bucket.until {
            NO_END => None,
            until => Some(cycle.period(until)?.end),
        };
        let (quantity, used) = (bucket.amount.to_string(), bucket.used.to_string());
        Ok(Self { kind, id, until, quantity, used, left: bucket.left()?.to_string() })
    }
}

/// An exact value as `numerator/denominator`: decimals of thirds have no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ratio(pub Exact);

impl Default for Ratio {
    fn default() -> Self {
        Self(Exact::ZERO)
    }
}

impl Ratio {
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }
}

/// What makes two lines lines of the same thing: corrections follow it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemKey {
    pub service: String,
    pub addon: Option<String>,
    pub period_start: Timestamp,
    pub tariff: String,
    pub version: u32,
    pub charge: String,
}

/// Lines that say nothing of it are of the first form.
fn first_engine() -> u32 {
    1
}

impl Line {
    /// `amount` in minor units.
    pub fn amount_minor(&self) -> i64 {
        minor(&self.amount)
    }
}

impl TaxShape {
    /// `amount` in minor units.
    pub fn amount_minor(&self) -> i64 {
        minor(&self.amount)
    }
}

/// An amount as `Money` prints it, all minor digits shown.
fn minor(amount: &str) -> i64 {
    amount.replace('.', "").parse().expect("a line's amounts are printed by Money")
}

impl StoredLine {
    pub fn item(&self) -> ItemKey {
        ItemKey {
            service: self.line.service.clone().unwrap_or_default(),
            addon: self.basis.addon.clone(),
            period_start: self.line.period.start,
            tariff: self.line.tariff.id.clone(),
            version: self.line.tariff.version,
            charge: self.line.charge.clone(),
        }
    }
}

/// The id of an item's `revision`th line: the same facts give the same id, whoever computes it.
pub fn line_id(tenant: &str, source: &str, account: &str, cycle: &str, item: &ItemKey, revision: u32) -> String {
    let version = item.version.to_string();
    let start = item.period_start.as_microsecond().to_string();
    let revision = revision.to_string();
    let parts = [
        tenant,
        source,
        account,
        cycle,
        &item.service,
        item.addon.as_deref().unwrap_or(""),
        &item.tariff,
        &version,
        &item.charge,
        &start,
        &revision,
    ];
    let mut hash = Sha256::new();
    for part in parts {
        // The length before the text keeps ("a", "bc") and ("ab", "c") apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    format!("ln_{}", hex(&hash.finalize()[..ID_BYTES]))
}

impl TierShape {
    pub fn of(tier: &PricedTier) -> Self {
        Self {
            quantity: tier.quantity.to_string(),
            unit_amount: tier.unit_amount.to_string(),
            flat_amount: tier.flat_amount.to_string(),
            amount_exact: tier.amount.to_string(),
        }
    }
}

impl PartShape {
    pub fn of(part: &Part) -> Self {
        Self {
            class: part.class.clone(),
            window: part.window.clone(),
            prefix: part.prefix.clone(),
            calls: part.calls,
            quantity_raw: part.raw.to_string(),
            quantity: part.quantity.to_string(),
            weight: part.weight.to_string(),
            unit_amount: part.own_price.map(|price| price.to_string()),
            amount_exact: part.amount.to_string(),
        }
    }
}

impl AdjustmentShape {
    pub fn of(adjustment: &Adjustment) -> Self {
        Self {
            kind: adjustment.kind.as_str().to_owned(),
            amount_exact: adjustment.amount.to_string(),
            origin: adjustment.origin.clone(),
        }
    }
}

impl TaxShape {
    pub fn of(tax: &TaxAmount) -> Self {
        Self {
            id: tax.id.clone(),
            rate: tax.rate.to_string(),
            fixed: tax.fixed.map(|fixed| fixed.to_string()),
            jurisdiction: tax.jurisdiction.clone(),
            inclusive: tax.inclusive,
            base: tax.base.to_string(),
            amount: tax.amount.to_string(),
            amount_exact: None,
        }
    }
}

impl LineKind {
    pub fn as_str(self) -> &'static str {
        match self {
            LineKind::Recurring => "recurring",
            LineKind::Usage => "usage",
            LineKind::Count => "count",
            LineKind::OneOff => "one_off",
            LineKind::Deposit => "deposit",
            LineKind::Adjustment => "adjustment",
            LineKind::Credit => "credit",
            LineKind::TrueUp => "true_up",
        }
    }
}

impl TryFrom<String> for Ratio {
    type Error = ExactError;
    fn try_from(text: String) -> Result<Self, ExactError> {
        let form = || ExactError::Form(text.chars().take(60).collect());
        let (num, den) = text.split_once('/').ok_or_else(form)?;
        let (num, den) = (num.parse().map_err(|_| form())?, den.parse().map_err(|_| form())?);
        Exact::ratio(num, den).map(Self)
    }
}

impl From<Ratio> for String {
    fn from(ratio: Ratio) -> String {
        format!("{}/{}", ratio.0.numerator(), ratio.0.denominator())
    }
}

const ID_BYTES: usize = 16;
