//! Counts a usage charge's quantity from ledger entries, apart by class of traffic and window of the week.
//!
//! An entry that straddles an edge is spread over its own time by cumulative share, so that any cutting adds up to the
//! entry: no octet is lost or made, whatever the windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::calendar::CalendarError;
use super::facts::{PeriodSum, UsageEntry};
use super::tariff::{Direction, Level, Meter, PartPrice, Usage};
use super::window::{Timeline, midnights};
use crate::usage::Fingerprint;
use crate::vocabulary::{Timestamp, Zone, hex};

/// What was counted, and the fingerprint of the entries it was counted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Octets, seconds or sessions, in the order of class and window. A part nothing was used in is not there.
    pub parts: Vec<CountedPart>,
    pub sessions: i128,
    pub records: u64,
    /// The fingerprint of the entries, whatever their order.
    pub digest: String,
}

/// The usage of one class and window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedPart {
    pub class: Option<Arc<str>>,
    /// Place in the charge's list of windows.
    pub window: Option<usize>,
    /// What was counted in each session or day that is quantized by itself; one count where the cycle's sum is.
    pub counts: Vec<i128>,
}

impl CountedPart {
    pub fn total(&self) -> i128 {
        self.counts.iter().sum()
    }
}

/// Counts what `charge` meters in the billed time; days and windows are those of `zone`.
pub fn count(
    charge: &Usage,
    zone: &Zone,
    coverage: &[(Timestamp, Timestamp)],
    entries: &[UsageEntry],
) -> Result<Counted, CalendarError> {
    let mut fingerprint = Fingerprint::default();
    let mut records = 0;
    for entry in entries {
        if coverage.iter().any(|(from, until)| overlap(entry, *from, *until).is_some()) {
            records += 1;
            fingerprint.add(print_of(entry, charge));
        }
    }
    let cells = if is_undivided(charge) {
        let sums = undivided(coverage, entries);
        BTreeMap::from([(Cell { class: None, window: None, group: 0 }, sums)])
    } else {
        divided(charge, zone, coverage, entries)?
    };
    let sessions = cells.values().map(|sums| sums.sessions).sum();
    Ok(Counted { parts: parts(charge, cells), sessions, records, digest: fingerprint.digest(records) })
}

/// Counts from the sum of a period that is billed as a whole: the same as `count` gives for its entries.
pub fn count_sum(charge: &Usage, sum: &PeriodSum) -> Counted {
    let sums = Sums { up: sum.in_octets, down: sum.out_octets, seconds: sum.seconds, sessions: sum.sessions };
    let cells = BTreeMap::from([(Cell { class: None, window: None, group: 0 }, sums)]);
    let digest = sum.fingerprint.digest(sum.records);
    Counted { parts: parts(charge, cells), sessions: sum.sessions, records: sum.records, digest }
}

/// Whether the sum of a period is enough to count this charge; what looks at single entries says no here.
pub fn sum_suffices(charge: &Usage) -> bool {
    // Whoever adds a key decides here.
    let Usage {
        meter,
        direction: _,
        unit: _,
        quantize: _,
        quantize_at: _,
        allowance: _,
        windows: _,
        classes: _,
        model: _,
        block: _,
        minimum: _,
        maximum: _,
        prorate_tiers: _,
        prepaid: _,
    } = charge;
    !matches!(meter, Meter::Calls | Meter::PeakBps95) && is_undivided(charge)
}

/// The digest of the entries in the form of lines before sums were kept: SHA-256 in the order of their sequence.
pub fn first_digest(coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> String {
    let inside = |entry: &&UsageEntry| coverage.iter().any(|(from, until)| overlap(entry, *from, *until).is_some());
    let mut ordered: Vec<&UsageEntry> = entries.iter().filter(inside).collect();
    ordered.sort_by_key(|entry| entry.sequence);
    let mut hash = Sha256::new();
    for number in ordered.into_iter().flat_map(numbers) {
        hash.update(number.to_be_bytes());
    }
    hex(hash.finalize())
}

/// Neither windows nor classes, and quantized by the cycle if at all: one sum is all there is.
fn is_undivided(charge: &Usage) -> bool {
    let by_cycle = charge.quantize.is_none() || charge.quantize_at == Level::Cycle;
    by_cycle && charge.windows.is_empty() && charge.classes.is_empty()
}

fn undivided(coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> Sums {
    let mut sums = Sums::default();
    for entry in entries {
        for (from, until) in coverage {
            let Some(piece) = overlap(entry, *from, *until) else { continue };
            sums.up += part(i128::from(entry.in_octets), entry, piece);
            sums.down += part(i128::from(entry.out_octets), entry, piece);
            sums.seconds += part(i128::from(entry.seconds), entry, piece);
            if *from <= entry.from && entry.from < *until {
                sums.sessions += i128::from(entry.sessions);
            }
        }
    }
    sums
}

fn divided(
    charge: &Usage,
    zone: &Zone,
    coverage: &[(Timestamp, Timestamp)],
    entries: &[UsageEntry],
) -> Result<BTreeMap<Cell, Sums>, CalendarError> {
    let ruler = Ruler::of(charge, zone, coverage)?;
    let mut cells: BTreeMap<Cell, Sums> = BTreeMap::new();
    for (place, sums) in joined(entries) {
        for (from, until) in coverage {
            let Some(piece) = overlap(&place, *from, *until) else { continue };
            ruler.lay(&place, sums, piece, *from <= place.from && place.from < *until, &mut cells);
        }
    }
    Ok(cells)
}

/// Where entries are cut, and what the parts are called.
struct Ruler<'c> {
    charge: &'c Usage,
    timelines: Vec<Timeline>,
    coverage: &'c [(Timestamp, Timestamp)],
    midnights: Vec<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    class: Option<Arc<str>>,
    window: Option<usize>,
    /// The session or the day that is quantized by itself.
    group: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    up: i128,
    down: i128,
    seconds: i128,
    sessions: i128,
}

impl<'c> Ruler<'c> {
    fn of(charge: &'c Usage, zone: &Zone, coverage: &'c [(Timestamp, Timestamp)]) -> Result<Self, CalendarError> {
        let mut timelines = Vec::with_capacity(coverage.len());
        let mut days = Vec::new();
        for (from, until) in coverage {
            timelines.push(Timeline::of(&charge.windows, zone, *from, *until)?);
            if charge.quantize.is_some() && charge.quantize_at == Level::Day {
                days.extend(midnights(zone, *from, *until)?);
            }
        }
        Ok(Self { charge, timelines, coverage, midnights: days })
    }

    /// Adds the part of an entry that lies in `piece` to the cells it belongs to.
    fn lay(
        &self,
        entry: &UsageEntry,
        sums: Sums,
        piece: (Timestamp, Timestamp),
        begins_here: bool,
        cells: &mut BTreeMap<Cell, Sums>,
    ) {
        let class = entry.class.as_ref().filter(|class| self.charge.classes.contains_key(&***class));
        let apart = class.is_some_and(|class| matches!(self.charge.classes[&**class].price, PartPrice::Own(_)));
        let at = self.coverage.iter().position(|(from, until)| *from <= piece.0 && piece.0 < *until);
        let in_windows = match at {
            Some(index) if !apart && !self.charge.windows.is_empty() => self.timelines[index].pieces(piece.0, piece.1),
            _ => vec![(piece.0, piece.1, None)],
        };
        let mut first = begins_here;
        for (from, until, window) in in_windows {
            for (from, until, day) in self.by_day(from, until) {
                let group = match self.charge.quantize.map(|_| self.charge.quantize_at) {
                    Some(Level::Session) => entry.session,
                    Some(Level::Day) => day,
                    _ => 0,
                };
                let cell = cells.entry(Cell { class: class.cloned(), window, group }).or_default();
                let share = |total: i128| part(total, entry, (from, until));
                cell.up += share(sums.up);
                cell.down += share(sums.down);
                cell.seconds += share(sums.seconds);
                // A session is counted where it began.
                cell.sessions += if std::mem::take(&mut first) { sums.sessions } else { 0 };
            }
        }
    }

    /// Cuts at midnights, where days are quantized by themselves.
    fn by_day(&self, from: Timestamp, until: Timestamp) -> Vec<(Timestamp, Timestamp, i64)> {
        let after = self.midnights.partition_point(|midnight| *midnight <= from);
        let mut pieces = Vec::with_capacity(1);
        let (mut begins, mut day) = (from, after);
        for midnight in self.midnights[after..].iter().take_while(|midnight| **midnight < until) {
            pieces.push((begins, *midnight, day as i64));
            (begins, day) = (*midnight, day + 1);
        }
        pieces.push((begins, until, day as i64));
        pieces
    }
}

/// Entries of the same session, class and time as one, so that a correction is spread together with what it corrects.
fn joined(entries: &[UsageEntry]) -> Vec<(UsageEntry, Sums)> {
    let mut ordered: Vec<&UsageEntry> = entries.iter().collect();
    let key = |entry: &&UsageEntry| (entry.session, entry.from, entry.until);
    ordered.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.class.cmp(&b.class)).then(a.sequence.cmp(&b.sequence)));
    let mut found: Vec<(UsageEntry, Sums)> = Vec::with_capacity(ordered.len());
    for entry in ordered {
        let same = |last: &(UsageEntry, Sums)| key(&&last.0) == key(&entry) && last.0.class == entry.class;
        if !found.last().is_some_and(same) {
            found.push((entry.clone(), Sums::default()));
        }
        let (_, sums) = found.last_mut().expect("just pushed");
        sums.up += i128::from(entry.in_octets);
        sums.down += i128::from(entry.out_octets);
        sums.seconds += i128::from(entry.seconds);
        sums.sessions += i128::from(entry.sessions);
    }
    found
}

/// Chooses the direction and gathers the cells of a class and window.
fn parts(charge: &Usage, cells: BTreeMap<Cell, Sums>) -> Vec<CountedPart> {
    let own = |cell: &Cell| cell.class.as_ref().and_then(|class| charge.classes[&**class].direction);
    let larger = {
        let of_charge = cells.iter().filter(|(cell, _)| own(cell).is_none());
        let (up, down) = of_charge.fold((0, 0), |(up, down), (_, sums)| (up + sums.up, down + sums.down));
        // The larger sum of the whole billed time; its parts are then of one direction.
        if up >= down { Direction::Up } else { Direction::Down }
    };
    let mut found: Vec<CountedPart> = Vec::new();
    for (cell, sums) in cells {
        let direction = match own(&cell).unwrap_or(charge.direction) {
            Direction::Max => larger,
            direction => direction,
        };
        let counted = match (charge.meter, direction) {
            (Meter::Octets | Meter::PeakBps95, Direction::Up | Direction::Max) => sums.up,
            (Meter::Octets | Meter::PeakBps95, Direction::Down) => sums.down,
            (Meter::Octets | Meter::PeakBps95, Direction::Sum) => sums.up + sums.down,
            (Meter::Seconds | Meter::Calls, _) => sums.seconds,
            (Meter::Sessions, _) => sums.sessions,
        };
        match found.last_mut() {
            Some(last) if (&last.class, last.window) == (&cell.class, cell.window) => last.counts.push(counted),
            _ => found.push(CountedPart { class: cell.class, window: cell.window, counts: vec![counted] }),
        }
    }
    found.retain(|part| part.counts.iter().any(|count| *count != 0));
    found
}

/// Octets up and down in the billed time.
pub(super) fn octets(coverage: &[(Timestamp, Timestamp)], entries: &[UsageEntry]) -> [i128; 2] {
    let mut sums = [0i128; 2];
    for entry in entries {
        for window in coverage.iter().filter_map(|(from, until)| overlap(entry, *from, *until)) {
            sums[0] += part(i128::from(entry.in_octets), entry, window);
            sums[1] += part(i128::from(entry.out_octets), entry, window);
        }
    }
    sums
}

/// The part of the entry's time that lies in `[from, until)`. An entry without duration lies where it starts.
pub(super) fn overlap(entry: &UsageEntry, from: Timestamp, until: Timestamp) -> Option<(Timestamp, Timestamp)> {
    if entry.from >= entry.until {
        return (from <= entry.from && entry.from < until).then_some((entry.from, entry.until));
    }
    let window = (entry.from.max(from), entry.until.min(until));
    (window.0 < window.1).then_some(window)
}

/// What of `total` falls into the piece: a difference of cumulative shares, each cut towards zero, so that an entry and
/// its opposite always cancel.
pub(super) fn part(total: i128, entry: &UsageEntry, piece: (Timestamp, Timestamp)) -> i128 {
    let length = i128::from(entry.until.as_microsecond() - entry.from.as_microsecond());
    if length <= 0 {
        return total;
    }
    let running = |at: Timestamp| total * i128::from(at.as_microsecond() - entry.from.as_microsecond()) / length;
    running(piece.1) - running(piece.0)
}

/// What a line says of an entry: its numbers; and of a charge that looks at more, what else it looks at, folded into
/// the sequence by its hash.
fn print_of(entry: &UsageEntry, charge: &Usage) -> Fingerprint {
    let session = (charge.quantize.is_some() && charge.quantize_at == Level::Session).then_some(entry.session);
    let class = entry.class.as_ref().filter(|_| !charge.classes.is_empty());
    let call = entry.call.as_ref().filter(|_| charge.meter == Meter::Calls);
    let mut numbers = numbers(entry);
    if session.is_none() && class.is_none() && call.is_none() {
        return Fingerprint::of(numbers);
    }
    let words = [class, call].map(|word| word.map_or("", |word| &**word));
    let text = format!("{}|{}|{}|{}", session.unwrap_or(0), words[0].len(), words[0], words[1]);
    let hash = Sha256::digest(text.as_bytes());
    let more: [u8; 8] = hash[..8].try_into().expect("eight octets");
    numbers[0] ^= i64::from_be_bytes(more);
    Fingerprint::of(numbers)
}

fn numbers(entry: &UsageEntry) -> [i64; 7] {
    [
        entry.sequence,
        entry.from.as_microsecond(),
        entry.until.as_microsecond(),
        entry.in_octets,
        entry.out_octets,
        entry.seconds,
        entry.sessions,
    ]
}

#[cfg(test)]
mod tests;
