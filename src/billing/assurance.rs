//! Where an account's ledger octets went on its lines: billed, in an allowance, rounded away, not metered, not billed yet.
//!
//! What a line says of its octets is taken from the line; what it should say is counted again from the ledger. Where the
//! two agree the terms add up to the ledger, to the octet; where they do not, a fault names the line.

use std::collections::BTreeMap;

use super::charges::tariff_of_line;
use super::explain::{explain, own_amount};
use super::facts::{TariffBook, UsageEntry};
use super::lines::{ItemKey, StoredLine};
use super::measure::octets;
use super::run::RunError;
use super::tariff::{Charge, ChargeKind, Direction, Meter, Usage};
use crate::vocabulary::{Exact, ExactError, Timestamp, to_micros};

/// Octets of one period, both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// What the ledger holds, pending usage included.
    pub ledger: i128,
    /// Priced beyond the allowance.
    pub billed: i128,
    /// Used from an allowance. Of an octet that is only partly in it, none is.
    pub allowance: i128,
    /// Of a class or window without a price.
    pub zero_rated: i128,
    /// What quantizing and weighing took away; negative where they added.
    pub quantization: i128,
    /// Of no charge: a flat plan, the other direction, time that is not billed.
    pub unmetered: i128,
    /// Octets that a second charge of the same service counts again.
    pub metered_again: i128,
    /// Not on a line yet: the period is not closed, or the usage came after it was.
    pub not_billed: i128,
}

/// By the start of the period in microseconds; `None`: all time.
pub type TermsByPeriod = BTreeMap<Option<i64>, Terms>;

/// One account as the store has it.
#[derive(Debug, Clone, Default)]
pub struct AccountLedger {
    /// All visible lines, in any order.
    pub lines: Vec<StoredLine>,
    /// All entries by service, in order of their sequence.
    pub entries: BTreeMap<String, Vec<UsageEntry>>,
    /// Octets that are not in the ledger yet, by when they were used.
    pub pending: Vec<(i64, i128)>,
}

/// A line that is not what its ledger entries make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub line: String,
    pub service: String,
    pub period: Timestamp,
    pub detail: String,
}

/// How the account's time is cut: the start of the period an instant lies in, and whether that period was closed.
pub struct Calendar<'c> {
    /// `None`: all time is one.
    pub period_start: &'c dyn Fn(i64) -> Option<i64>,
    pub is_closed: &'c dyn Fn(i64) -> bool,
}

/// The account's terms by period start (microseconds), and every line that does not add up.
///
/// **Errors**: a sum leaves what can be computed, or a tariff is no longer known.
pub fn account_terms(
    account: &AccountLedger,
    book: &TariffBook,
    calendar: &Calendar<'_>,
) -> Result<(TermsByPeriod, Vec<Fault>), RunError> {
    let mut terms = TermsByPeriod::new();
    let mut faults = Vec::new();
    let items = newest(&account.lines);
    let mut counted: BTreeMap<(&str, Option<i64>), Counted> = BTreeMap::new();
    for (key, line) in &items {
        let unknown = || RunError::UnknownVersion { tariff: key.tariff.clone(), version: key.version };
        let tariff = &tariff_of_line(line, book)?.ok_or_else(unknown)?;
        let charge = tariff.charge(&key.charge).ok_or_else(unknown)?;
        let (ChargeKind::Usage(usage), Some(seen)) = (&charge.kind, &line.line.usage) else { continue };
        if usage.meter != Meter::Octets {
            continue;
        }
        let period = (calendar.period_start)(to_micros(key.period_start));
        let entries = account.entries.get(&key.service).map(Vec::as_slice).unwrap_or_default();
        let until = entries.partition_point(|entry| entry.sequence <= seen.watermark);
        let own = counted_octets(usage, &line.basis.coverage, &entries[..until]);
        let entry = counted.entry((key.service.as_str(), period)).or_default();
        entry.watermark = entry.watermark.max(seen.watermark);
        entry.octets = [entry.octets[0] + own[0], entry.octets[1] + own[1]];
        let sum = terms.entry(period).or_default();
        add_line(sum, line, usage.unit_size())?;
        if i128::from(line.basis.quantity_raw) != own[0] + own[1] {
            faults.push(fault(
                line,
                format!("it counts {} octets, its ledger entries {}", line.basis.quantity_raw, own[0] + own[1]),
            ));
        }
    }
    for (service, entries) in &account.entries {
        for (period, entries) in by_period(entries, calendar) {
            let sum = terms.entry(period).or_default();
            let Counted { watermark, octets: lines } =
                counted.get(&(service.as_str(), period)).copied().unwrap_or_default();
            let (mut seen, mut rest) = ([0i128; 2], 0);
            for entry in entries {
                let both = [i128::from(entry.in_octets), i128::from(entry.out_octets)];
                sum.ledger += both[0] + both[1];
                if entry.sequence <= watermark {
                    seen = [seen[0] + both[0], seen[1] + both[1]];
                } else {
                    rest += both[0] + both[1];
                }
            }
            for (seen, counted) in seen.into_iter().zip(lines) {
                sum.unmetered += (seen - counted).max(0);
                sum.metered_again += (counted - seen).max(0);
            }
            let closed = watermark == i64::MIN && period.is_some_and(|start| (calendar.is_closed)(start));
            let line = items.iter().find(|(key, line)| {
                let start = (calendar.period_start)(to_micros(key.period_start));
                key.service == *service && line.basis.addon.is_none() && start == period
            });
            // Who has lines of a closed period and none of them counts octets has a flat price.
            match line.filter(|_| closed) {
                Some((key, line)) => {
                    sum.unmetered += rest;
                    if meters_octets(key, book) {
                        faults.push(fault(line, "its tariff meters octets, and no line of the period does".to_owned()));
                    }
                }
                None => sum.not_billed += rest,
            }
        }
    }
    for (at, octets) in &account.pending {
        let sum = terms.entry((calendar.period_start)(*at)).or_default();
        sum.ledger += octets;
        sum.not_billed += octets;
    }
    faults.extend(recompute(account, book)?);
    Ok((terms, faults))
}

impl Terms {
    /// What all terms add up to; the ledger, when everything is right.
    pub fn sum(&self) -> i128 {
        self.billed + self.allowance + self.zero_rated + self.quantization + self.unmetered - self.metered_again
            + self.not_billed
    }

    pub fn add(&mut self, other: &Self) {
        self.ledger += other.ledger;
        self.billed += other.billed;
        self.allowance += other.allowance;
        self.zero_rated += other.zero_rated;
        self.quantization += other.quantization;
        self.unmetered += other.unmetered;
        self.metered_again += other.metered_again;
        self.not_billed += other.not_billed;
    }
}

/// What the usage lines of a service and period count by the ledger.
#[derive(Clone, Copy)]
struct Counted {
    /// Up to it their entries were seen.
    watermark: i64,
    /// In and out.
    octets: [i128; 2],
}

impl Default for Counted {
    fn default() -> Self {
        Self { watermark: i64::MIN, octets: [0; 2] }
    }
}

/// The newest line of each item: it carries what all lines of the item come to.
fn newest(lines: &[StoredLine]) -> BTreeMap<ItemKey, &StoredLine> {
    let mut found: BTreeMap<ItemKey, &StoredLine> = BTreeMap::new();
    for line in lines {
        let known = found.entry(line.item()).or_insert(line);
        if line.basis.revision > known.basis.revision {
            *known = line;
        }
    }
    found
}

/// Octets up and down of these entries that a charge counts: each class in its own direction, where it has one.
fn counted_octets(usage: &Usage, coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> [i128; 2] {
    let own = |entry: &UsageEntry| usage.classes.get(entry.class.as_deref()?)?.direction;
    let of = |direction: Option<Direction>| {
        let counted = entries.iter().filter(|entry| own(entry) == direction);
        counted.map(|entry| octets(coverage, std::slice::from_ref(entry))).fold([0; 2], plus)
    };
    let of_charge = of(None);
    let larger = if of_charge[0] >= of_charge[1] { Direction::Up } else { Direction::Down };
    let taken = |direction, both: [i128; 2]| match if direction == Direction::Max { larger } else { direction } {
        Direction::Up | Direction::Max => [both[0], 0],
        Direction::Down => [0, both[1]],
        Direction::Sum => both,
    };
    let mut sums = taken(usage.direction, of_charge);
    for direction in [Direction::Up, Direction::Down, Direction::Sum] {
        if usage.classes.values().any(|class| class.direction == Some(direction)) {
            sums = plus(sums, taken(direction, of(Some(direction))));
        }
    }
    sums
}

fn plus(a: [i128; 2], b: [i128; 2]) -> [i128; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

fn add_line(sum: &mut Terms, line: &StoredLine, unit_size: u64) -> Result<(), ExactError> {
    let unit = Exact::from_int(i128::from(unit_size));
    let quantized = line.basis.quantity.0.checked_mul(unit)?.floor();
    let allowance = line.basis.allowance_used.0.checked_mul(unit)?.floor();
    // Parts with a price of their own are beside the quantity; what weighs nothing costs nothing.
    let mut beside = 0;
    for part in &line.line.parts {
        let raw: i128 = part.quantity_raw.parse().unwrap_or(0);
        let price = part.unit_amount.as_deref();
        match price {
            None if part.weight == "0" => sum.zero_rated += raw,
            None => continue,
            Some("0") => sum.zero_rated += raw,
            Some(_) => sum.billed += raw,
        }
        beside += raw;
    }
    sum.allowance += allowance;
    sum.billed += quantized - allowance;
    sum.quantization += i128::from(line.basis.quantity_raw) - beside - quantized;
    Ok(())
}

fn meters_octets(key: &ItemKey, book: &TariffBook) -> bool {
    let versions = book.get(&key.tariff).map(Vec::as_slice).unwrap_or_default();
    let version = versions.iter().find(|version| version.tariff.version == key.version);
    version.is_some_and(|version| {
        let meters = |charge: &Charge| matches!(&charge.kind, ChargeKind::Usage(usage) if usage.meter == Meter::Octets);
        version.tariff.charges.iter().any(meters)
    })
}

fn by_period<'e>(entries: &'e [UsageEntry], calendar: &Calendar<'_>) -> BTreeMap<Option<i64>, Vec<&'e UsageEntry>> {
    let mut found: BTreeMap<Option<i64>, Vec<&UsageEntry>> = BTreeMap::new();
    for entry in entries {
        found.entry((calendar.period_start)(to_micros(entry.from))).or_default().push(entry);
    }
    found
}

/// Computes every line again.
fn recompute(account: &AccountLedger, book: &TariffBook) -> Result<Vec<Fault>, RunError> {
    let mut faults = Vec::new();
    let mut revisions: BTreeMap<(ItemKey, u32), &StoredLine> = BTreeMap::new();
    for line in &account.lines {
        revisions.insert((line.item(), line.basis.revision), line);
    }
    for ((key, revision), line) in &revisions {
        let unknown = || RunError::UnknownVersion { tariff: key.tariff.clone(), version: key.version };
        let tariff = &tariff_of_line(line, book)?.ok_or_else(unknown)?;
        let before = revision.checked_sub(1).and_then(|before| revisions.get(&(key.clone(), before)).copied());
        if *revision > 0 && before.is_none() {
            faults.push(fault(line, "the line it follows is missing".to_owned()));
            continue;
        }
        let mut entries = Vec::new();
        if let Some(usage) = &line.line.usage {
            let (from, until) = (line.line.period.start, line.line.period.end);
            let own = account.entries.get(&key.service).map(Vec::as_slice).unwrap_or_default();
            let touches =
                |entry: &&UsageEntry| entry.sequence <= usage.watermark && entry.from < until && from <= entry.until;
            entries.extend(own.iter().filter(touches).cloned());
        }
        let explained = explain(line, before, tariff, own_amount(line, tariff), &entries, None)?;
        faults.extend(explained.differences.into_iter().map(|detail| fault(line, detail)));
    }
    Ok(faults)
}

fn fault(line: &StoredLine, detail: String) -> Fault {
    Fault {
        line: line.line.id.clone(),
        service: line.line.service.clone().unwrap_or_default(),
        period: line.line.period.start,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::billing::facts::KnownVersion;
    use crate::billing::tariff::Tariff;

    const TARIFF: &str = r#"
id = "t"
version = 1
currency = "USD"
effective_from = "2026-01-01"
[[charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "down"
unit = "GB"
quantize = { to = "1 MB" }
allowance = { amount = "1" }
model = "standard"
unit_amount = "0.05"
"#;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant of the test")
    }

    fn entry(sequence: i64, from: &str, octets: i64) -> UsageEntry {
        let from = at(from);
        let until = Timestamp::from_second(from.as_second() + 3600).expect("in range");
        let (class, call) = (None, None);
        UsageEntry {
            sequence,
            session: 1,
            class,
            call,
            from,
            until,
            in_octets: 7,
            out_octets: octets,
            seconds: 3600,
            sessions: 1,
        }
    }

    /// One service, billed from 10 November 2026, with its first line.
    fn account(entries: &[UsageEntry]) -> (AccountLedger, TariffBook) {
        account_with(TARIFF, entries)
    }

    fn account_with(tariff: &str, entries: &[UsageEntry]) -> (AccountLedger, TariffBook) {
        use crate::billing::calendar::{BillCycle, Every};
        use crate::billing::facts::{AccountFacts, CorrectionPolicy, RunContext, ServiceFacts, Stretch};
        let cycle = BillCycle {
            id: "c1".to_owned(),
            anchor_day: 1,
            every: Every::Month,
            zone: crate::vocabulary::Zone::UTC,
            timezone: "UTC".to_owned(),
        };
        let tariff = Tariff::read("t.toml", tariff).expect("a sound tariff");
        let known = KnownVersion { tariff, known_at: at("2026-01-01T00:00:00Z") };
        let book = TariffBook::from([("t".to_owned(), vec![known])]);
        let from = at("2026-11-10T00:00:00Z");
        let service = ServiceFacts {
            id: "1".to_owned(),
            times: 1,
            began_at: Some(from),
            stretches: vec![Stretch { from, until: None, tariff: "t".to_owned() }],
            usage: entries.to_vec(),
            ..ServiceFacts::default()
        };
        let facts = AccountFacts {
            tenant: "acme".to_owned(),
            source: "default".to_owned(),
            account: "1".to_owned(),
            services: vec![service],
            watermark: entries.last().map_or(0, |entry| entry.sequence),
            ..AccountFacts::default()
        };
        let context = RunContext {
            period: cycle.named("2026-11").expect("a period"),
            cycle,
            now: at("2026-12-02T00:00:00Z"),
            batch: Some("b".to_owned()),
            tariffs: book.clone().into(),
            backdate_days: 40,
            wholesale: Vec::new(),
            corrections: CorrectionPolicy::default(),
            closures: BTreeMap::new(),
            causes: Default::default(),
        };
        let lines = crate::billing::run::lines(&facts, &context).expect("rated").lines;
        let entries = BTreeMap::from([("1".to_owned(), entries.to_vec())]);
        (AccountLedger { lines, entries, pending: Vec::new() }, book)
    }

    fn terms(account: &AccountLedger, book: &TariffBook) -> (Terms, Vec<Fault>) {
        let november = to_micros(at("2026-11-01T00:00:00Z"));
        let calendar = Calendar { period_start: &|_| Some(november), is_closed: &|_| true };
        let (mut terms, faults) = account_terms(account, book, &calendar).expect("computed");
        (terms.remove(&Some(november)).expect("the period"), faults)
    }

    #[test]
    fn every_octet_of_the_ledger_has_a_term() {
        let (mut account, book) = account(&[
            entry(1, "2026-11-05T00:00:00Z", 500),
            entry(2, "2026-11-12T00:00:00Z", 1_600_000_000),
            entry(3, "2026-11-13T00:00:00Z", 1),
        ]);
        account.entries.get_mut("1").expect("its entries").push(entry(4, "2026-11-14T00:00:00Z", 40));
        account.pending.push((to_micros(at("2026-11-15T00:00:00Z")), 11));
        let (terms, faults) = terms(&account, &book);
        assert_eq!(faults, []);
        let expected = Terms {
            ledger: 1_600_000_569 + 11,
            // 1.600000001 GB, up to whole megabytes 1.601, 1 of them included.
            billed: 601_000_000,
            allowance: 1_000_000_000,
            zero_rated: 0,
            quantization: 1_600_000_001 - 1_601_000_000,
            // The other direction, and what was used before billing began.
            unmetered: 500 + 3 * 7,
            metered_again: 0,
            not_billed: 47 + 11,
        };
        assert_eq!(terms, expected);
        assert_eq!(terms.sum(), terms.ledger);
    }

    #[test]
    fn lost_entries_and_changed_lines_do_not_add_up() {
        let (whole, book) = account(&[entry(1, "2026-11-12T00:00:00Z", 900), entry(2, "2026-11-13T00:00:00Z", 1)]);
        let (terms_whole, faults) = terms(&whole, &book);
        assert_eq!((terms_whole.sum(), faults.len()), (terms_whole.ledger, 0));
        let mut lost = whole.clone();
        lost.entries.get_mut("1").expect("its entries").remove(0);
        let (found, faults) = terms(&lost, &book);
        assert!(!faults.is_empty() && found.sum() != found.ledger, "{found:?}");
        let mut octets = whole.clone();
        octets.lines[0].basis.quantity_raw += 1;
        let (found, faults) = terms(&octets, &book);
        assert!(!faults.is_empty() && found.sum() != found.ledger, "{found:?}");
        let mut amount = whole.clone();
        amount.lines[0].line.amount = "0.01".to_owned();
        let (found, faults) = terms(&amount, &book);
        assert_eq!((found.sum(), faults.len()), (found.ledger, 1), "{faults:?}");
        let mut unbilled = whole;
        unbilled.lines.clear();
        let (found, faults) = terms(&unbilled, &book);
        assert_eq!((found.not_billed, found.sum(), faults.len()), (915, 915, 0));
    }

    fn of_class(class: &str, entry: UsageEntry) -> UsageEntry {
        UsageEntry { class: Some(std::sync::Arc::from(class)), ..entry }
    }

    #[test]
    fn usage_with_a_price_of_its_own_and_without_one_has_its_terms() {
        let tariff = TARIFF.replace("allowance = { amount = \"1\" }", "").replace(
            "direction = \"down\"",
            "direction = \"sum\"\nclasses = { free = \"0\", video = { unit_amount = \"0.01\" }, half = { weight = \"0.5\" }, none = { weight = \"0\" } }",
        );
        let (account, book) = account_with(
            &tariff,
            &[
                entry(1, "2026-11-12T00:00:00Z", 1_000_000_000 - 7),
                of_class("free", entry(2, "2026-11-12T00:00:00Z", 10_000_000 - 7)),
                of_class("video", entry(3, "2026-11-12T00:00:00Z", 20_000_000 - 7)),
                of_class("half", entry(4, "2026-11-12T00:00:00Z", 40_000_000 - 7)),
                of_class("none", entry(5, "2026-11-12T00:00:00Z", 80_000_000 - 7)),
            ],
        );
        let (terms, faults) = terms(&account, &book);
        let expected = Terms {
            ledger: 1_150_000_000,
            // 1 GB and half of 40 MB by the model, 20 MB by their own price.
            billed: 1_000_000_000 + 20_000_000 + 20_000_000,
            zero_rated: 10_000_000 + 80_000_000,
            quantization: 20_000_000,
            ..Terms::default()
        };
        assert_eq!((terms, faults), (expected, Vec::new()));
        assert_eq!(terms.sum(), terms.ledger);
    }

    #[test]
    fn octets_of_two_charges_are_counted_once_and_named_as_counted_again() {
        let second = "[[charge]]\nid = \"again\"\ntype = \"usage\"\nmeter = \"octets\"\ndirection = \"down\"\nunit = \"GB\"\n\
                      model = \"standard\"\nunit_amount = \"1\"\n";
        let (account, book) =
            account_with(&format!("{TARIFF}{second}"), &[entry(1, "2026-11-12T00:00:00Z", 3_000_000_000)]);
        let (terms, faults) = terms(&account, &book);
        assert_eq!((terms.metered_again, terms.unmetered, faults.len()), (3_000_000_000, 7, 0));
        assert_eq!((terms.sum(), terms.billed), (terms.ledger, 5_000_000_000));
    }

    #[test]
    fn octets_that_a_class_does_not_count_are_unmetered() {
        for (direction, unmetered) in [("up", 700), ("down", 7), ("sum", 0)] {
            let class = format!("classes = {{ voip = {{ unit_amount = \"0.02\", direction = \"{direction}\" }} }}");
            let tariff = TARIFF.replace("direction = \"down\"", &format!("direction = \"max\"\n{class}"));
            let entries =
                [entry(1, "2026-11-12T00:00:00Z", 900), of_class("voip", entry(2, "2026-11-12T00:00:00Z", 700))];
            let (account, book) = account_with(&tariff, &entries);
            let (terms, faults) = terms(&account, &book);
            // Seven octets up of the others.
            let expected = (7 + unmetered, 0, terms.ledger);
            assert_eq!((terms.unmetered, faults.len(), terms.sum()), expected, "{direction}");
        }
    }

    #[test]
    fn each_direction_counts_its_own_octets() {
        for (direction, unmetered) in [("up", 900), ("down", 7), ("sum", 0), ("max", 7)] {
            let tariff = TARIFF.replace("\"down\"", &format!("\"{direction}\""));
            let (account, book) = account_with(&tariff, &[entry(1, "2026-11-12T00:00:00Z", 900)]);
            let (terms, faults) = terms(&account, &book);
            assert_eq!((terms.unmetered, faults.len(), terms.sum()), (unmetered, 0, terms.ledger), "{direction}");
        }
        let up = UsageEntry { in_octets: 5_000, ..entry(1, "2026-11-12T00:00:00Z", 900) };
        let (account, book) = account_with(&TARIFF.replace("\"down\"", "\"max\""), &[up]);
        assert_eq!(terms(&account, &book).0.unmetered, 900, "the larger one is up");
    }

    #[test]
    fn closed_period_of_a_flat_price_is_unmetered_and_an_open_one_not_billed() {
        let flat = "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"access\"\n\
                    type = \"recurring\"\namount = \"5\"\ntiming = \"arrears\"\n";
        let (account, book) = account_with(flat, &[entry(1, "2026-11-12T00:00:00Z", 900)]);
        let november = to_micros(at("2026-11-01T00:00:00Z"));
        for (closed, unmetered, not_billed) in [(true, 907, 0), (false, 0, 907)] {
            let calendar = Calendar { period_start: &|_| Some(november), is_closed: &|_| closed };
            let (terms, faults) = account_terms(&account, &book, &calendar).expect("computed");
            let terms = terms[&Some(november)];
            assert_eq!((terms.unmetered, terms.not_billed, faults.len()), (unmetered, not_billed, 0));
        }
        let (whole, book) = super::tests::account(&[entry(1, "2026-11-12T00:00:00Z", 900)]);
        let other = "[[charge]]\nid = \"access\"\ntype = \"recurring\"\namount = \"5\"\ntiming = \"arrears\"\n";
        let (mut both, both_book) = account_with(&format!("{TARIFF}{other}"), &[entry(1, "2026-11-12T00:00:00Z", 900)]);
        both.lines.retain(|line| line.line.charge == "access");
        let (found, faults) = terms(&both, &both_book);
        assert_eq!((found.unmetered, faults.len()), (907, 1), "its tariff meters octets");
        assert!(faults[0].detail.contains("no line of the period does"));
        assert!(terms(&whole, &book).1.is_empty());
    }

    #[test]
    fn line_without_the_one_it_follows_is_a_fault() {
        let (mut account, book) = account(&[entry(1, "2026-11-12T00:00:00Z", 900)]);
        account.lines[0].basis.revision = 1;
        let (_, faults) = terms(&account, &book);
        assert_eq!(faults.iter().filter(|fault| fault.detail.contains("is missing")).count(), 1, "{faults:?}");
        assert_eq!((faults[0].service.as_str(), faults[0].line.as_str()), ("1", account.lines[0].line.id.as_str()));
    }

    #[test]
    fn terms_of_two_accounts_add_up() {
        let one = Terms {
            ledger: 1,
            billed: 2,
            allowance: 3,
            zero_rated: 4,
            quantization: 5,
            unmetered: 6,
            metered_again: 7,
            not_billed: 8,
        };
        let mut sum = one;
        sum.add(&one);
        let twice = Terms {
            ledger: 2,
            billed: 4,
            allowance: 6,
            zero_rated: 8,
            quantization: 10,
            unmetered: 12,
            metered_again: 14,
            not_billed: 16,
        };
        assert_eq!((sum, one.sum()), (twice, 2 + 3 + 4 + 5 + 6 - 7 + 8));
    }
}
