//! What a bill run knows of one account, and the calendar and prices it runs with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::calendar::BillCycle;
use super::lines::{ItemKey, StoredLine};
use super::tariff::Tariff;
use crate::usage::Fingerprint;
use crate::vocabulary::{Exact, Period, Timestamp};

/// One account as the store gives it.
#[derive(Debug, Clone)]
pub struct AccountFacts {
    pub tenant: String,
    pub source: String,
    /// External id.
    pub account: String,
    pub tax_exempt: bool,
    pub services: Vec<ServiceFacts>,
    /// Lines of earlier batches, for this cycle, in any order.
    pub issued: Vec<StoredLine>,
    /// Items with a correction that the tenant's policy held back: they are looked at again in every run.
    pub held: BTreeSet<ItemKey>,
    /// The last ledger sequence this run may see.
    pub watermark: i64,
}

/// What one service, or one add-on of a service, is billed for.
#[derive(Debug, Clone, Default)]
pub struct ServiceFacts {
    /// External id.
    pub id: String,
    pub addon: Option<String>,
    /// How many of it.
    pub times: u32,
    /// Billed time on this cycle, in order, without overlap.
    pub stretches: Vec<Stretch>,
    /// Where the service's billing began, for discounts that end.
    pub began_at: Option<Timestamp>,
    /// Another amount than the tariff's, for this subscriber alone.
    pub price_override: Option<PriceOverride>,
    /// Ledger entries up to the watermark; those of every period `usage_needed` names.
    pub usage: Vec<UsageEntry>,
    /// The sum of each period's entries up to the watermark, by the period's start. `None`: only `usage` tells.
    pub sums: Option<BTreeMap<Timestamp, PeriodSum>>,
}

/// Replaces the amount of a recurring charge in the periods whose billed time begins in `[from, until)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceOverride {
    /// `None`: every recurring charge of the plan.
    pub charge: Option<String>,
    pub amount: Exact,
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Time in which a tariff is billed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub from: Timestamp,
    pub until: Option<Timestamp>,
    /// Id of the tariff; its version follows from the calendar.
    pub tariff: String,
}

/// A ledger entry. Counts may be negative: a mistake is answered by its opposite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageEntry {
    pub sequence: i64,
    /// The session it is of.
    pub session: i64,
    /// The class of traffic the session was of when the entry was written.
    pub class: Option<Arc<str>>,
    /// The number called, where it is a call.
    pub call: Option<Arc<str>>,
    pub from: Timestamp,
    pub until: Timestamp,
    pub in_octets: i64,
    pub out_octets: i64,
    pub seconds: i64,
    pub sessions: i64,
}

/// The sum of a service's ledger entries of one period, as it is kept while they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeriodSum {
    pub last_sequence: i64,
    pub records: u64,
    pub fingerprint: Fingerprint,
    pub in_octets: i128,
    pub out_octets: i128,
    pub seconds: i128,
    pub sessions: i128,
}

impl PeriodSum {
    /// Takes in an entry.
    pub fn count(&mut self, entry: &UsageEntry) {
        self.last_sequence = self.last_sequence.max(entry.sequence);
        self.records += 1;
        self.in_octets += i128::from(entry.in_octets);
        self.out_octets += i128::from(entry.out_octets);
        self.seconds += i128::from(entry.seconds);
        self.sessions += i128::from(entry.sessions);
        self.fingerprint.add(Fingerprint::of([
            entry.sequence,
            entry.from.as_microsecond(),
            entry.until.as_microsecond(),
            entry.in_octets,
            entry.out_octets,
            entry.seconds,
            entry.sessions,
        ]));
    }
}

/// What is the same for every account of a run.
#[derive(Debug, Clone)]
pub struct RunContext {
    pub cycle: BillCycle,
    /// The period whose arrears are closed.
    pub period: Period,
    pub now: Timestamp,
    /// `None` in a preview.
    pub batch: Option<String>,
    pub tariffs: TariffBook,
    pub backdate_days: u32,
    pub corrections: CorrectionPolicy,
    /// When a period of this cycle was first closed, by its start.
    pub closures: BTreeMap<Timestamp, Timestamp>,
    pub causes: Causes,
}

/// Why a run may change what was billed, besides what is new in the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Causes {
    /// The form of this program's own inputs. A line made by another one is compared in that one's form, so that a newer
    /// program alone is no cause.
    pub engine: u32,
    /// Start of a period that a person wants rated anew, whatever has changed.
    pub rerate: Option<Timestamp>,
}

impl Default for Causes {
    fn default() -> Self {
        Self { engine: super::items::ENGINE, rerate: None }
    }
}

/// Every known version of every tariff.
pub type TariffBook = BTreeMap<String, Vec<KnownVersion>>;

#[derive(Debug, Clone)]
pub struct KnownVersion {
    pub tariff: Tariff,
    /// When this version was applied here. A period that was closed before does not know it.
    pub known_at: Timestamp,
}

/// Which corrections a tenant does not want on an invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorrectionPolicy {
    /// A debit older than this many days is held back.
    pub debit_max_age_days: Option<u32>,
    /// A smaller correction is held back.
    pub min_amount: Option<Exact>,
}
