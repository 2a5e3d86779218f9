//! A tariff: the versioned, effective-dated price that plans name, as CONTRACT §5 writes it.
//!
//! A `Tariff` that exists can be rated: what this release cannot rate is refused when the file is read, never ignored,
//! and its scales are bounded so that exact arithmetic holds for any 63-bit count of octets.

mod bound;
mod read;
mod unit;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

pub use read::read_section;
pub use unit::{Measured, Meter, Unit};

use super::ladder::Ladder;
pub use super::window::Window;
use crate::account::{HoldKind, ServiceType, Status};
use crate::vocabulary::{Currency, Date, Exact, Fault, Rounding, TomlFile, hex};

/// One version of a tariff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tariff {
    pub id: String,
    pub version: u32,
    pub currency: Currency,
    pub effective_from: Date,
    pub apply: Apply,
    /// Re-rates periods that were closed before this version was known.
    pub retroactive: bool,
    pub audience: Audience,
    pub rounding: LineRounding,
    pub tax_level: TaxLevel,
    pub charges: Vec<Charge>,
    pub discounts: Vec<Discount>,
    /// In the order in which they are levied.
    pub taxes: Vec<Tax>,
    pub thresholds: Vec<Threshold>,
    /// What can be bought beside the allowances.
    pub top_ups: Vec<TopUp>,
    /// The canonical text: what is stored, and what the digest is of.
    pub document: String,
    /// SHA-256 of the canonical text, in hexadecimal: (id, version) names one digest for ever.
    pub digest: String,
}

/// What a new version does to the period that is running when it takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    Split,
    NextPeriod,
}

/// Which subscribers a version is for; the others keep the version before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    All,
    /// Those who take the tariff on `effective_from` or later.
    New,
    /// As `New`, and each of the others from the end of their term on, counted from when they took the tariff.
    Renewing {
        term_months: u32,
    },
}

/// What a tax is rounded over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaxLevel {
    Line,
    /// Once over an account's lines of a batch, then given to the lines by largest remainder.
    Batch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRounding {
    pub mode: Rounding,
    pub places: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub id: String,
    pub kind: ChargeKind,
    pub tags: TaxTags,
}

/// What a tax engine wants to know of a line; passed through, never interpreted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaxTags {
    pub category: Option<String>,
    pub jurisdiction: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeKind {
    Recurring(Recurring),
    /// Due once, with the period in which the service first has this tariff.
    OneOff {
        amount: Exact,
    },
    /// Taken once, as `OneOff`, and given back with the period in which the service ends. Never taxed.
    Deposit {
        amount: Exact,
    },
    Usage(Box<Usage>),
    Count(Box<Count>),
}

/// Which facts of an account a recurring charge is due for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Each service on the tariff, and each add-on by its quantity.
    #[default]
    Service,
    /// Each enabled voice line of a service on the tariff.
    Line,
    /// The account, once, while anything of it is on the tariff.
    Account,
    /// Each service on the tariff while a hold of this kind stops its billing.
    Hold(HoldKind),
}

/// A price for how many subscribers or services another tenant has: wholesale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub what: Counted,
    /// Empty: of every type.
    pub types: Vec<ServiceType>,
    /// Empty: on every plan.
    pub plans: Vec<String>,
    pub statuses: Vec<Status>,
    pub rule: CountRule,
    /// Model, minimum and maximum; what is metered is the count.
    pub pricing: Usage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Accounts with at least one service that counts.
    Accounts,
    Services,
}

/// When something counts. A day counts it when it was there at any time of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountRule {
    /// On one day of the period, counted from 1; a later one than the last is the last.
    ActiveOn(u16),
    /// On any day of the period.
    Any,
    /// The sum over the days, divided by the days of the period.
    AverageDaily,
    /// On the day that has most.
    Peak,
}

/// A price per period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurring {
    pub amount: Exact,
    pub timing: Timing,
    pub proration: Proration,
    pub refund_on_end: RefundOnEnd,
    pub scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Billed with the run of the period before.
    Advance,
    Arrears,
}

/// What part of a recurring amount a service pays that has the tariff during part of the period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proration {
    /// The tariff of the period's first billed day is due in full, a later one of the same period not at all.
    None,
    /// Billed days by the days of the period.
    ActualDays,
    /// A month has 30 days: day 31 costs nothing, the last day of a shorter month costs the rest.
    Fixed30,
    PerSecond,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundOnEnd {
    /// The period in which the service ends stays paid in full.
    None,
    Prorata,
}

/// A price for what was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub meter: Meter,
    pub direction: Direction,
    pub unit: Unit,
    pub quantize: Option<Quantize>,
    /// Over what the quantity is summed before it is quantized.
    pub quantize_at: Level,
    pub allowance: Option<Allowance>,
    /// Times of the week that count or cost otherwise; of two that overlap the first one holds.
    pub windows: Vec<Window>,
    /// Classes of traffic that count or cost otherwise, by name.
    pub classes: BTreeMap<String, ClassPrice>,
    pub model: Model,
    /// The quantity beyond the allowance is priced in whole blocks; `unit_amount` stays the price of one unit.
    pub block: Option<Quantize>,
    pub minimum: Option<Exact>,
    pub maximum: Option<Exact>,
    /// Bounds, flat amounts, minimum and maximum follow the billed part of the period.
    pub prorate_tiers: bool,
    /// Nothing is billed beyond what is there: the service stops when it is used up.
    pub prepaid: bool,
}

/// Which octets count: up is from the subscriber, `Max` the larger sum of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
    Sum,
    Max,
}

/// What is rounded to whole steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What one session used in the billed time of the period.
    Session,
    /// What one local day holds.
    Day,
    /// The sum of the billed time.
    Cycle,
}

/// What a window or a class does to the quantity in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartPrice {
    /// Counts so many times in the charge's quantity; 0: not at all.
    Weight(Exact),
    /// Costs so much a unit, apart from the allowance and the model.
    Own(Exact),
}

/// How a class of traffic is rated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassPrice {
    pub price: PartPrice,
    /// Another direction than the charge's.
    pub direction: Option<Direction>,
}

/// Whole multiples of `step`, in the charge's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantize {
    pub step: Exact,
    pub mode: Rounding,
}

/// What the price of the plan includes, in the charge's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub amount: Exact,
    /// Follows the billed part of the period.
    pub prorate: bool,
    pub pool: Pool,
    pub rollover: Option<Rollover>,
}

/// Who shares an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Nobody: it is the service's own.
    Service,
    /// All services of the account whose tariff has a pooled charge of the same id.
    Account,
    /// As `Account`, over all accounts that have the same parent, and that parent.
    Parent,
}

/// Allowance that can be bought by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUp {
    pub id: String,
    /// Id of a usage charge.
    pub charge: String,
    /// In the unit of the charge; whole octets, seconds or sessions.
    pub amount: Exact,
    /// `None`: it costs nothing.
    pub price: Option<Exact>,
    pub valid: Validity,
}

/// How long a top-up may be used. Always to the end of the billing period in which that time ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Until it is used up.
    Always,
    /// The period it is made for, and so many after it.
    Cycles(u32),
    /// So many days from the day it is made for.
    Days(u32),
    /// Up to a day, which is not included.
    Until(Date),
}

/// How unused allowance is carried into later periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollover {
    /// The most that is carried into a period, in the charge's unit.
    pub max: Exact,
    /// How many periods after its own it may be used in.
    pub expires_cycles: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Model {
    Standard {
        unit_amount: Exact,
    },
    /// Each part of the quantity at its own tier's price.
    Graduated(Tiers),
    /// The whole quantity at the price of the tier it reaches.
    Volume(Tiers),
    Package {
        size: Exact,
        amount: Exact,
        free_units: Exact,
    },
    /// `rate` is percent of the quantity.
    Percentage {
        rate: Exact,
        fixed_amount: Exact,
    },
    /// Tiers whose `unit_amount` is the rate already divided by 100.
    GraduatedPercentage(Tiers),
    /// Calls, each by the number called.
    Rates(Rates),
}

/// What calls cost, by the beginning of the number called; the longest one holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    pub by_prefix: BTreeMap<String, Rate>,
}

/// What calls to one destination cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Of one unit of billed time.
    pub unit_amount: Exact,
    /// Of each call.
    pub connection: Exact,
    /// The least a call costs.
    pub minimum: Exact,
    /// Billed whole, however short the call.
    pub first_seconds: u32,
    /// Billed whole after that, each one begun; above zero.
    pub then_seconds: u32,
}

/// Tiers with rising bounds; the last has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers {
    pub list: Vec<Tier>,
    /// Whether the first tier's flat amount is due when nothing was used.
    pub flat_at_zero: bool,
    /// The same tiers in whole numbers, for the usual case; `None`: they do not fit.
    pub(in crate::billing) ladder: Option<Ladder>,
}

/// Covers (bound of the tier before, `up_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    pub up_to: Option<Exact>,
    pub unit_amount: Exact,
    pub flat_amount: Exact,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discount {
    /// Tells the discounts of a tariff apart.
    pub id: String,
    /// What the line calls it; `None`: nothing.
    pub origin: Option<String>,
    pub kind: DiscountKind,
    /// Charge ids; never empty.
    pub applies_to: Vec<String>,
    /// Periods counted from the one the service's billing began in, for a promotion from the one it begins in; `None`:
    /// for ever.
    pub cycles: Option<u32>,
    pub condition: Condition,
}

/// When a discount is given; all parts must hold. Nothing said: always.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// While the service has this promotion.
    pub promo: Option<String>,
    /// While the account is billed for each of these tariffs: a bundle.
    pub requires: Vec<String>,
    /// In the first days of the service: a trial.
    pub trial_days: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscountKind {
    Percent(Exact),
    /// Per period, never more than the charge itself; names exactly one charge.
    Amount(Exact),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tax {
    pub id: String,
    /// Percent; nothing where the tax is a fixed amount.
    pub rate: Exact,
    /// Due once on every line's item that costs anything, whatever it costs.
    pub fixed: Option<Exact>,
    /// Charge ids; `None`: all of them.
    pub applies_to: Option<Vec<String>>,
    pub jurisdiction: Option<String>,
    /// Contained in the prices of the tariff.
    pub inclusive: bool,
    /// Levied on the taxes before it, too.
    pub compound: bool,
    pub order: u32,
}

/// A mark whose crossing makes something happen, once in a period (see `billing::thresholds`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threshold {
    pub at: ThresholdAt,
    /// Id of a usage charge.
    pub meter: String,
    pub actions: Vec<ThresholdAction>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThresholdAt {
    /// Percent of the allowance.
    Percent(Exact),
    /// In the unit of the charge.
    Quantity(Exact),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThresholdAction {
    Notify,
    Throttle(String),
    Disconnect,
}

impl Tariff {
    /// Reads a file that holds one tariff.
    ///
    /// **Errors**: every fault of the text, each with `file:line:column`.
    pub fn read(name: &str, text: &str) -> Result<Self, Vec<Fault>> {
        let file = TomlFile::new(name, text);
        let tariff = file.read().and_then(|table| {
            let tariff = read_section(file.section(&table), canonical_text(text));
            (!file.has_faults()).then_some(tariff).flatten()
        });
        tariff.ok_or_else(|| file.into_faults())
    }

    pub fn charge(&self, id: &str) -> Option<&Charge> {
        self.charges.iter().find(|charge| charge.id == id)
    }
}

impl Model {
    /// The model of a charge of which one unit is `size` of what is counted.
    fn in_units_of(mut self, size: u64) -> Self {
        if let Model::Graduated(tiers) | Model::GraduatedPercentage(tiers) = &mut self {
            tiers.ladder = Ladder::of(&tiers.list, size);
        }
        self
    }
}

impl Count {
    /// A count of (types, plans, statuses) that has no price, to be looked at.
    pub fn of(what: Counted, rule: CountRule, who: (Vec<ServiceType>, Vec<String>, Vec<Status>)) -> Self {
        let (types, plans, statuses) = who;
        Self { what, types, plans, statuses, rule, pricing: Usage::of_nothing() }
    }
}

impl Condition {
    pub fn is_always(&self) -> bool {
        *self == Self::default()
    }
}

impl Charge {
    /// Which facts it is due for.
    pub fn scope(&self) -> Scope {
        match &self.kind {
            ChargeKind::Recurring(recurring) => recurring.scope,
            _ => Scope::Service,
        }
    }
}

impl Usage {
    /// A price of nothing, for what is only counted.
    pub(super) fn of_nothing() -> Self {
        Self {
            meter: Meter::Sessions,
            direction: Direction::Sum,
            unit: Unit::Session,
            quantize: None,
            quantize_at: Level::Cycle,
            allowance: None,
            windows: Vec::new(),
            classes: BTreeMap::new(),
            model: Model::Standard { unit_amount: Exact::ZERO },
            block: None,
            minimum: None,
            maximum: None,
            prorate_tiers: false,
            prepaid: false,
        }
    }

    /// Who shares its allowance.
    pub fn pool(&self) -> Pool {
        self.allowance.map_or(Pool::Service, |allowance| allowance.pool)
    }

    /// Octets, seconds, sessions or bits per second in one unit.
    pub fn unit_size(&self) -> u64 {
        self.unit.size()
    }
}

/// The form of a tariff that does not change with comments, spacing or the order of keys. Takes the keys of one tariff.
pub fn canonical(table: &toml::Table) -> String {
    toml::to_string(&sorted(table)).expect("a table that was read from TOML can be written as TOML")
}

/// SHA-256 of a canonical text, in hexadecimal.
pub fn digest(canonical: &str) -> String {
    hex(Sha256::digest(canonical.as_bytes()))
}

fn canonical_text(text: &str) -> String {
    text.parse::<toml::Table>().map(|table| canonical(&table)).unwrap_or_default()
}

fn sorted(table: &toml::Table) -> toml::Table {
    let mut keys: Vec<&String> = table.keys().collect();
    keys.sort();
    keys.into_iter().map(|key| (key.clone(), sorted_value(&table[key]))).collect()
}

fn sorted_value(value: &toml::Value) -> toml::Value {
    match value {
        toml::Value::Table(table) => toml::Value::Table(sorted(table)),
        toml::Value::Array(items) => toml::Value::Array(items.iter().map(sorted_value).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod tests;
