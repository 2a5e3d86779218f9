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
pub use unit::{Meter, Unit};

pub use super::window::Window;
use crate::vocabulary::{Currency, Date, Exact, Fault, Rounding, TomlFile};

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
    pub rounding: LineRounding,
    pub charges: Vec<Charge>,
    pub discounts: Vec<Discount>,
    /// In the order in which they are levied.
    pub taxes: Vec<Tax>,
    pub thresholds: Vec<Threshold>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRounding {
    pub mode: Rounding,
    pub places: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub id: String,
    pub kind: ChargeKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeKind {
    Recurring(Recurring),
    /// Due once, with the period in which the service first has this tariff.
    OneOff {
        amount: Exact,
    },
    Usage(Box<Usage>),
}

/// A price per period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurring {
    pub amount: Exact,
    pub timing: Timing,
    pub proration: Proration,
    pub refund_on_end: RefundOnEnd,
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
    pub kind: DiscountKind,
    /// Charge ids; never empty.
    pub applies_to: Vec<String>,
    /// Periods counted from the one the service's billing began in; `None`: for ever.
    pub cycles: Option<u32>,
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
    /// Percent.
    pub rate: Exact,
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

impl Usage {
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
    Sha256::digest(canonical.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
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
mod tests;
