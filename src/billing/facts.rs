//! What a bill run knows of one account, and the calendar and prices it runs with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::calendar::BillCycle;
use super::charges::PostedCharge;
use super::count::Census;
use super::lines::{ItemKey, StoredLine};
use super::tariff::{Pool, Scope, Tariff};
use crate::usage::Fingerprint;
use crate::vocabulary::{Date, Exact, Period, Timestamp};

/// One account as the store gives it.
#[derive(Debug, Clone, Default)]
pub struct AccountFacts {
    pub tenant: String,
    pub source: String,
    /// External id.
    pub account: String,
    /// Exempt from all taxes.
    pub tax_exempt: bool,
    /// Ids of the taxes it is exempt from.
    pub exempt_from: Vec<String>,
    pub services: Vec<ServiceFacts>,
    /// Charges that were posted for it.
    pub posted: Vec<PostedCharge>,
    /// Top-ups that were posted for it, on whatever cycle, in the order they came.
    pub grants: Vec<Grant>,
    /// The lines of other cycles that tell what of a top-up they used.
    pub issued_elsewhere: Vec<StoredLine>,
    /// The parent it had from an instant on, in order; before the first it had none.
    pub parents: Vec<(Timestamp, Option<String>)>,
    /// Where it stands among accounts that share an allowance.
    pub place: i64,
    /// The other accounts that share an allowance with it, as of the same moment; theirs have none in turn.
    pub relatives: Vec<AccountFacts>,
    /// Lines of earlier batches, for this cycle, in any order; of periods that ended by `lines_since` perhaps not all, where
    /// the run does not look back.
    pub issued: Vec<StoredLine>,
    /// Up to which ledger sequence the lines that are not among `issued` have seen usage, by the start of their period.
    pub looked: BTreeMap<Timestamp, i64>,
    /// Items with a correction that the tenant's policy held back: they are looked at again in every run.
    pub held: BTreeSet<ItemKey>,
    /// The last ledger sequence this run may see.
    pub watermark: i64,
    /// Since when all of this but usage, posted charges and lines surely is as it is. `None`: nobody knows.
    pub unchanged_since: Option<Timestamp>,
}

impl AccountFacts {
    /// Whose family the account was of: its parent's, or its own.
    pub fn head_at(&self, at: Timestamp) -> &str {
        let known = self.parents.iter().rev().find(|(from, _)| *from <= at);
        known.and_then(|(_, parent)| parent.as_deref()).unwrap_or(&self.account)
    }
}

/// A top-up: allowance beside the period's own, for as long as it may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// As the posted charge is called that it came with.
    pub id: String,
    /// Whose allowance it was made for; who leaves that leaves it there.
    pub pool: Pool,
    /// Of a pool over a family: whose.
    pub head: Option<String>,
    /// External id of the service it was posted for.
    pub service: String,
    /// Id of the usage charge.
    pub charge: String,
    /// Octets, seconds or sessions.
    pub amount: i64,
    pub from: Timestamp,
    /// The end of the last period it may be used in; `None`: until it is used up.
    pub until: Option<Timestamp>,
    /// It was posted while another cycle billed the account; it counts here once this one does.
    pub foreign: bool,
}

/// What one service, or one add-on of a service, is billed for.
#[derive(Debug, Clone, Default)]
pub struct ServiceFacts {
    /// External id; empty: of the account as a whole.
    pub id: String,
    /// Tells what is billed beside the service itself: an add-on, a voice line, a hold.
    pub addon: Option<String>,
    /// Which charges of its tariffs are due for it.
    pub scope: Scope,
    /// How many of it.
    pub times: u32,
    /// Billed time on this cycle, in order, without overlap.
    pub stretches: Vec<Stretch>,
    /// Time that another cycle bills, in order.
    pub elsewhere: Vec<Stretch>,
    /// Promotions it had, in the order they were heard of.
    pub promos: Vec<PromoWindow>,
    /// Another tenant's subscribers, for count charges.
    pub census: Option<Arc<Census>>,
    pub tax_jurisdiction: Option<String>,
    /// Where the service's billing began, for discounts that end.
    pub began_at: Option<Timestamp>,
    /// Other amounts than the tariff's, for this subscriber alone; of several in force the last counts.
    pub price_overrides: Vec<PriceOverride>,
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

/// A promotion a service has in `[from, until)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromoWindow {
    pub code: String,
    pub from: Timestamp,
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
    pub tariffs: Arc<TariffBook>,
    pub backdate_days: u32,
    /// Tenants whose subscribers an account pays for.
    pub wholesale: Vec<Wholesale>,
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
    /// When the tenant's catalog was last changed. `None`: nobody knows.
    pub catalog_at: Option<Timestamp>,
}

impl Default for Causes {
    fn default() -> Self {
        Self { engine: super::items::ENGINE, rerate: None, catalog_at: None }
    }
}

/// An account of ours that is a tenant, and the tariff by which its subscribers cost it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wholesale {
    pub tenant: String,
    pub source: String,
    /// External id.
    pub account: String,
    pub tariff: String,
    pub from: Date,
    pub until: Option<Date>,
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
