//! The report: everything that was found as one value, and as the text that a person would send to the other company.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::classify::{Class, Finding, Kind};
use super::differ::Difference;
use super::money::Effect;
use super::plan::{Guard, Proof, Step, Steps};
use super::tally::{Cell, Invariant, Sums};
use crate::vocabulary::{Currency, Date, Timestamp, hex};

/// What a reconciliation found; the single rows stand beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Hash of everything that went in: the same lists at the same instant give the same report.
    pub id: String,
    pub tenant: String,
    pub source: String,
    pub as_of: Timestamp,
    /// The day in the tenant's zone that is counted.
    pub day: Date,
    pub timezone: String,
    /// How services are counted.
    pub rule: String,
    pub records: u64,
    /// SHA-256 over the snapshot's records and over our accounts, in any order.
    pub theirs_digest: String,
    pub ours_digest: String,
    pub proof: Proof,
    pub subscribers: Sums,
    pub services: Sums,
    pub kinds: Vec<KindRow>,
    pub invariants: Vec<Invariant>,
    pub effects: Vec<Effect>,
    pub wholesale: Vec<WholesaleCount>,
    pub ring: Vec<Ring>,
    pub plan: PlanSummary,
}

/// The counts of one kind of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindRow {
    #[serde(flatten)]
    pub kind: Kind,
    #[serde(flatten)]
    pub cell: Cell,
}

/// What a wholesale line charged for, beside the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholesaleCount {
    pub line: String,
    pub charge: String,
    pub rule: String,
    pub days: String,
    /// Whom the line counted.
    pub counted: u64,
    /// Whom the same filter counts in the snapshot.
    pub theirs: u64,
    /// Counted on the line and not in the snapshot; and the other way round. At most `LISTED_MAX` each.
    pub only_counted: Vec<String>,
    pub only_theirs: Vec<String>,
    /// What the line charges more than the snapshot's count would cost; `None`: the rule counts more than one day.
    pub worth: Option<String>,
    pub currency: Option<Currency>,
}

/// A difference beyond the two lists: between what is desired and what is there, or what is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    pub class: RingClass,
    pub account: Option<String>,
    pub service: Option<String>,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RingClass {
    /// The modem, mailbox or login is not as it is desired here.
    BackendDrift,
    /// Usage of a login of the tenant's that nobody ever held.
    OrphanUsage,
    /// Usage after its service ended.
    ZombieUsage,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSummary {
    pub hash: String,
    pub creates: u64,
    pub updates: u64,
    pub deletes: u64,
    /// Services that updates take away.
    pub removes: u64,
    /// Accounts the snapshot does not name; they are closed only where it is proven whole.
    pub absent: u64,
    /// The steps that were asked for; `None`: all.
    #[serde(default)]
    pub only: Option<Steps>,
    pub guard: Guard,
    /// Why it would not be applied as it is.
    pub refused: Option<String>,
}

/// Names that are listed of one count.
pub const LISTED_MAX: usize = 1_000;

impl Report {
    /// The id of a report that comes of these inputs. 32 hex digits.
    pub fn identify(inputs: &[&str]) -> String {
        let mut hash = Sha256::new();
        for part in inputs {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hex(&hash.finalize()[..16])
    }

    /// Whether somebody must look at anything.
    pub fn differs(&self) -> bool {
        self.subscribers.differ() || self.services.differ() || !self.ring.is_empty()
    }

    /// Everything that comes before the single rows.
    pub fn head(&self) -> String {
        let mut text = String::new();
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            // Writing to a text cannot fail.
            let _ = text.write_fmt(arguments);
            text.push('\n');
        };
        line(format_args!("Reconciliation of {} (source {}), as of {:.0}", self.tenant, self.source, self.as_of));
        line(format_args!("Report {}. The same lists give the same report.", self.id));
        line(format_args!(""));
        let (subscribers, services) = (&self.subscribers, &self.services);
        let sizes = |subscribers: u64, services: u64| format!("{subscribers} subscribers, {services} services");
        line(format_args!("Your list: {}.", sizes(subscribers.theirs, services.theirs)));
        line(format_args!("Our list:  {}.", sizes(subscribers.ours, services.ours)));
        line(format_args!("Your list is whole: {}.", self.proof));
        line(format_args!(""));
        line(format_args!("{:<34}{:>12}{:>12}", "", "SUBSCRIBERS", "SERVICES"));
        for (words, of) in [
            ("the same on both sides", (|sums: &Sums| sums.matched) as fn(&Sums) -> u64),
            ("different", |sums| sums.mismatch),
            ("you have, we do not", |sums| sums.missing_here),
            ("we have, you do not", |sums| sums.missing_there),
            ("told more than once by you", |sums| sums.duplicate),
            ("being changed here (no error)", |sums| sums.in_flight),
            ("your record cannot be read", |sums| sums.quarantined),
        ] {
            line(format_args!("{words:<34}{:>12}{:>12}", of(subscribers), of(services)));
        }
        line(format_args!(""));
        line(format_args!("Counted by the rule: {}.", self.rule));
        let heading = ["YOURS", "OURS", "BILLED", "OURS-YOURS"].map(|word| format!("{word:>11}")).concat();
        line(format_args!("{:<10}{:<24}{:<12}{heading}", "SERVICE", "PLAN", "STATUS"));
        for KindRow { kind, cell } in &self.kinds {
            let delta = i128::from(cell.ours) - i128::from(cell.theirs);
            let (service_type, status) = (kind.service_type.as_str(), kind.status.as_str());
            let name = format!("{service_type:<10}{:<24}{status:<12}", kind.plan);
            line(format_args!("{name}{:>11}{:>11}{:>11}{delta:>+11}", cell.theirs, cell.ours, cell.billed));
        }
        if !self.effects.is_empty() {
            line(format_args!(""));
            line(format_args!("What the difference of active services is worth in a period, before taxes:"));
        }
        for effect in &self.effects {
            let Effect { service_type, plan, delta, .. } = effect;
            match (&effect.rate, &effect.amount, effect.currency, &effect.by) {
                (Some(rate), Some(amount), Some(currency), Some(by)) => line(format_args!(
                    "  {service_type} {plan}: {delta:+} x {rate} {currency} = {amount} {currency} ({by})"
                )),
                _ => line(format_args!("  {service_type} {plan}: {delta:+}, without a price of its own")),
            }
        }
        for count in &self.wholesale {
            line(format_args!(""));
            line(format_args!(
                "Wholesale line {} ({}, {} of {}): {} counted, {} in your list.",
                count.line, count.charge, count.rule, count.days, count.counted, count.theirs
            ));
            if let (Some(worth), Some(currency)) = (&count.worth, count.currency) {
                line(format_args!("  The difference is worth {worth} {currency}, before taxes."));
            }
            for (words, names) in
                [("counted, not in your list", &count.only_counted), ("in your list, not counted", &count.only_theirs)]
            {
                for name in names {
                    line(format_args!("  {words}: {name}"));
                }
            }
        }
        line(format_args!(""));
        line(format_args!("Sums:"));
        for invariant in self.invariants.iter().filter(|invariant| invariant.counts() || !invariant.holds()) {
            let Invariant { of, says, left, right } = invariant;
            let word = if invariant.holds() { "holds" } else { "DOES NOT HOLD" };
            line(format_args!("  {of}: {says}: {left} = {right}, {word}"));
        }
        text
    }

    /// One line for a finding.
    pub fn row(finding: &Finding) -> String {
        let what = finding.service.as_ref().map_or_else(|| "subscriber".to_owned(), |id| format!("service {id}"));
        let mut text = format!("  {} {what}: {}", finding.account, finding.class);
        let kind = finding.theirs.as_ref().or(finding.ours.as_ref());
        if let Some(Kind { service_type, plan, status }) = kind.filter(|_| finding.class != Class::Mismatch) {
            let _ = write!(text, " ({service_type}, {plan}, {status})");
        }
        if let Some(reason) = &finding.reason {
            let _ = write!(text, ": {reason}");
        }
        for Difference { field, ours, theirs } in &finding.differences {
            let _ = write!(text, "\n      {field}: ours {ours}, yours {theirs}");
        }
        text.push('\n');
        text
    }

    /// Everything that comes after the single rows.
    pub fn foot(&self) -> String {
        let mut text = String::new();
        let mut by_class: BTreeMap<RingClass, Vec<&Ring>> = BTreeMap::new();
        for found in &self.ring {
            by_class.entry(found.class).or_default().push(found);
        }
        for (class, found) in by_class {
            let _ = writeln!(text, "\n{} ({}):", class.words(), found.len());
            for Ring { account, service, detail, .. } in found {
                let whose = account.as_deref().unwrap_or("nobody");
                let service = service.as_ref().map(|id| format!(" service {id}")).unwrap_or_default();
                let _ = writeln!(text, "  {whose}{service}: {detail}");
            }
        }
        let PlanSummary { hash, creates, updates, deletes, removes, absent, only, guard, refused } = &self.plan;
        let _ = writeln!(
            text,
            "\nPlan {hash}:\n  it would make {creates} accounts, change {updates} (taking away {removes} services) and close {deletes}."
        );
        if let Some(only) = only {
            let _ = writeln!(text, "  Only these steps were asked for: {only}.");
        }
        if *absent > *deletes {
            let close = only.as_ref().is_none_or(|only| only.holds(Step::Close));
            let why = if close { "it is not proven whole" } else { "closing was not asked for" };
            let _ = writeln!(text, "  {absent} accounts that your list does not name stay: {why}.");
        }
        let _ = writeln!(
            text,
            "  It may take away {} a day; {} were taken away in the last 24 hours.",
            guard.allowed, guard.used
        );
        if let Some(refused) = refused {
            let _ = writeln!(text, "  It would be refused: {refused}.");
        }
        text
    }
}

impl RingClass {
    pub fn as_str(self) -> &'static str {
        match self {
            RingClass::BackendDrift => "backend_drift",
            RingClass::OrphanUsage => "orphan_usage",
            RingClass::ZombieUsage => "zombie_usage",
        }
    }

    fn words(self) -> &'static str {
        match self {
            RingClass::BackendDrift => "Not as desired in the network",
            RingClass::OrphanUsage => "Usage of logins that nobody ever held",
            RingClass::ZombieUsage => "Usage after the service ended",
        }
    }
}

impl Invariant {
    /// Whether it is one of the whole, and not of one kind of service.
    fn counts(&self) -> bool {
        self.of == "subscribers" || self.of == "services"
    }
}
