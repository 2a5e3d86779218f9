//! Where billing periods begin for each account, so that usage is cut there and summed by period.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use foldhash::HashMap;

use super::crossings::Watch;
use crate::billing::calendar::BillCycle;
use crate::billing::class::ClassRule;
use crate::store::cycles::{self, Timetable};
use crate::store::{StoreError, Tx, fold};
use crate::usage::{Cuts, SessionState, Straddling};
use crate::vocabulary::{Timestamp, from_micros, to_micros};

/// The period edges of every cycle in use, and which account follows which.
#[derive(Debug, Default)]
pub(super) struct Calendars {
    cycles: HashMap<(String, String), Arc<Cut>>,
    /// The cycle of an account, `None` while it is unknown, and when it was looked up.
    accounts: HashMap<i64, Known>,
    /// Catalog versions the cycles were read from.
    versions: Vec<(String, i64)>,
    /// Whose usage may cross a threshold, by the same versions.
    watch: Watch,
    looked_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Known {
    cut: Option<Arc<Cut>>,
    /// Its usage is kept by five minutes.
    fine: bool,
    at: Timestamp,
}

#[derive(Debug)]
struct Cut {
    tenant: String,
    cycle: BillCycle,
    timetable: Arc<Timetable>,
    edges: Vec<Timestamp>,
    /// The edges, and those of windows that are not at whole hours.
    cuts: Vec<Timestamp>,
    /// Some of them lie within an hour.
    odd: bool,
}

impl Calendars {
    /// Reads the catalogs' cycles again when a catalog has changed or the edges computed run out. Looks at most once a
    /// second.
    pub async fn refresh(&mut self, tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
        let age = |since: Timestamp| to_micros(now) - to_micros(since);
        let fresh = self.looked_at.is_some_and(|at| (0..LOOK_EVERY).contains(&age(at)));
        if fresh && !self.cycles.is_empty() {
            return Ok(());
        }
        let versions = cycles::versions(tx).await?;
        let outdated = self.looked_at.is_some_and(|at| to_micros(at) / DAY != to_micros(now) / DAY);
        if versions != self.versions || outdated {
            self.cycles.clear();
            self.accounts.clear();
            for (tenant, version) in &versions {
                let timetable = Arc::new(cycles::of_catalog(tx, tenant, *version).await?);
                for cycle in &timetable.cycles {
                    let key = (tenant.clone(), cycle.id.clone());
                    self.cycles.insert(key, Arc::new(Cut::of(tenant, cycle, &timetable, now)));
                }
            }
            self.watch = Watch::of(tx, &versions).await?;
            self.versions = versions;
        }
        self.looked_at = Some(now);
        Ok(())
    }

    /// Makes sure that the cycles these accounts follow are known, as they were at most a second ago.
    pub async fn learn(&mut self, tx: &mut Tx, accounts: HashSet<i64>, now: Timestamp) -> Result<(), StoreError> {
        let known = |account: &i64| {
            let looked_up = self.accounts.get(account).map(|known| to_micros(now) - to_micros(known.at));
            looked_up.is_some_and(|age| (0..LOOK_EVERY).contains(&age))
        };
        let accounts: Vec<i64> = accounts.into_iter().filter(|account| !known(account)).collect();
        if accounts.is_empty() {
            return Ok(());
        }
        if self.accounts.len() > ACCOUNTS_MAX {
            self.accounts.clear();
        }
        let found = fold::cycles_of(tx, &accounts).await?;
        if found.iter().any(|(_, tenant, cycle)| self.cut_of(tenant, cycle).is_none()) {
            // A catalog that is newer than the last look.
            self.looked_at = None;
            self.refresh(tx, now).await?;
        }
        let mut peak_plans: BTreeSet<&str> = BTreeSet::new();
        let cuts: Vec<(i64, Option<Arc<Cut>>)> =
            found.iter().map(|(account, tenant, cycle)| (*account, self.cut_of(tenant, cycle))).collect();
        for cut in cuts.iter().filter_map(|(_, cut)| cut.as_ref()) {
            peak_plans.extend(cut.timetable.peak_plans.iter().map(String::as_str));
        }
        let plans: Vec<&str> = peak_plans.into_iter().collect();
        let fine = if plans.is_empty() { Vec::new() } else { fold::accounts_on_plans(tx, &accounts, &plans).await? };
        for (account, cut) in cuts {
            let on_peak = |cut: &Arc<Cut>| {
                let plans = &cut.timetable.peak_plans;
                fine.iter().any(|(other, plan)| *other == account && plans.contains(plan))
            };
            let fine = cut.as_ref().is_some_and(on_peak);
            self.accounts.insert(account, Known { cut, fine, at: now });
        }
        Ok(())
    }

    /// The period starts of an account's cycle; empty while its cycle is unknown.
    pub fn edges(&self, account: i64) -> &[Timestamp] {
        self.cut(account).map_or(&[], |cut| &cut.edges)
    }

    /// Where the account's ledger entries are cut.
    pub fn cuts(&self, account: i64) -> Cuts<'_> {
        match self.accounts.get(&account) {
            Some(Known { cut: Some(cut), fine, .. }) => Cuts { at: &cut.cuts, fine: *fine },
            _ => Cuts::NONE,
        }
    }

    /// How the account's tenant tells classes of usage.
    pub fn classes(&self, account: i64) -> &[ClassRule] {
        self.cut(account).map_or(&[], |cut| &cut.timetable.classes)
    }

    /// The account's tenant's policy for usage between two reports that an edge lies between.
    pub fn straddling(&self, account: i64) -> Straddling {
        self.cut(account).map_or(Straddling::default(), |cut| cut.timetable.straddling)
    }

    /// Whether an edge lies inside this stretch, and usage over it is not spread by time.
    pub fn is_straddled(&self, account: i64, from: i64, until: i64) -> bool {
        self.straddling(account) == Straddling::Report
            && self.edges(account).iter().any(|edge| from < to_micros(*edge) && to_micros(*edge) < until)
    }

    /// Whether usage that was gathered without an owner must be read again to be cut as this account's is.
    pub fn is_coarse_for(&self, account: i64, state: &SessionState) -> bool {
        let odd_cuts = self.cut(account).is_some_and(|cut| cut.odd);
        self.cuts(account).fine || (odd_cuts && state.may_be_coarse())
    }

    /// The start of the account's period that holds `at`; `None` while its cycle is unknown.
    pub fn period_start(&self, account: i64, at: i64) -> Option<i64> {
        let cut = self.cut(account)?;
        let after = cut.edges.partition_point(|edge| to_micros(*edge) <= at);
        if after > 0 && after < cut.edges.len() {
            return Some(to_micros(cut.edges[after - 1]));
        }
        let period = cut.cycle.period_at(from_micros(at)?).ok()?;
        Some(to_micros(period.start))
    }

    /// The account's tenant and the cycle it follows; `None` while its cycle is unknown.
    pub fn names(&self, account: i64) -> Option<(&str, &str)> {
        self.cut(account).map(|cut| (cut.tenant.as_str(), cut.cycle.id.as_str()))
    }

    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Whether the account's period that starts at `period` runs, or ended not long ago: only there thresholds act.
    pub fn is_recent(&self, account: i64, period: i64, now: Timestamp) -> bool {
        self.period_start(account, to_micros(now) - DAY).is_some_and(|start| start <= period)
    }

    fn cut(&self, account: i64) -> Option<&Cut> {
        self.accounts.get(&account).and_then(|known| known.cut.as_deref())
    }

    fn cut_of(&self, tenant: &str, cycle: &str) -> Option<Arc<Cut>> {
        self.cycles.get(&(tenant.to_owned(), cycle.to_owned())).cloned()
    }
}

impl Cut {
    fn of(tenant: &str, cycle: &BillCycle, timetable: &Arc<Timetable>, now: Timestamp) -> Self {
        let edges = edges_around(cycle, now);
        let mut cuts = match (edges.first(), edges.last()) {
            (Some(first), Some(last)) => timetable.cuts(cycle, *first, *last).unwrap_or_default(),
            _ => Vec::new(),
        };
        cuts.extend(&edges);
        cuts.sort();
        cuts.dedup();
        let odd = cuts.iter().any(|cut| to_micros(*cut).rem_euclid(HOUR) != 0);
        Self { tenant: tenant.to_owned(), cycle: cycle.clone(), timetable: timetable.clone(), edges, cuts, odd }
    }
}

fn edges_around(cycle: &BillCycle, now: Timestamp) -> Vec<Timestamp> {
    let mut edges = Vec::new();
    let from = from_micros(to_micros(now) - PAST).unwrap_or(now);
    let until = to_micros(now) + AHEAD;
    let mut next = cycle.period_at(from);
    while let Ok(period) = next {
        if to_micros(period.start) > until || edges.len() >= EDGES_MAX {
            break;
        }
        edges.push(period.start);
        next = cycle.next(&period);
    }
    edges
}

/// Microseconds between two looks at the catalogs' versions.
const LOOK_EVERY: i64 = 1_000_000;
/// Accounts remembered; beyond it they are looked up again.
const ACCOUNTS_MAX: usize = 50_000;
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
/// Event times older than 400 days are not believed; a session may be as long again.
const PAST: i64 = 800 * DAY;
const AHEAD: i64 = 400 * DAY;
/// More than daily periods over the whole stretch.
const EDGES_MAX: usize = 1_500;
