//! Where the periods of a tenant's cycles begin, so that usage a run asks for early is cut there and counted by period.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::ToSpan;

use crate::billing::calendar::BillCycle;
use crate::catalog::Catalog;
use crate::store::cycles::Timetable;
use crate::store::ledger::Cutting;
use crate::store::{StoreError, Tx, fold};
use crate::usage::Cuts;
use crate::vocabulary::Timestamp;

/// The period starts of every cycle, ascending.
#[derive(Debug, Default)]
pub struct Edges {
    /// The period starts of a cycle, and these with the edges of windows.
    cycles: BTreeMap<String, (Vec<Timestamp>, Vec<Timestamp>)>,
    /// Plans whose usage is kept by five minutes.
    peak_plans: BTreeSet<String>,
}

impl Edges {
    /// As far back as usage is believed, and a period ahead.
    pub fn of(catalog: &Catalog, now: Timestamp) -> Self {
        let edges = |cycle: &BillCycle| {
            let from = now.checked_sub((PAST_DAYS * 24).hours()).unwrap_or(Timestamp::MIN);
            let mut edges = Vec::new();
            let mut next = cycle.period_at(from);
            while let Ok(period) = next {
                edges.push(period.start);
                if period.start > now || edges.len() >= EDGES_MAX {
                    break;
                }
                next = cycle.next(&period);
            }
            edges
        };
        let timetable = Timetable::of(catalog);
        let both = |cycle: &BillCycle| {
            let edges = edges(cycle);
            let mut cuts = match (edges.first(), edges.last()) {
                (Some(first), Some(last)) => timetable.cuts(cycle, *first, *last).unwrap_or_default(),
                _ => Vec::new(),
            };
            cuts.extend(&edges);
            cuts.sort();
            cuts.dedup();
            (edges, cuts)
        };
        let cycles = catalog.cycles.iter().map(|(id, cycle)| (id.clone(), both(&cycle.calendar))).collect();
        Self { cycles, peak_plans: timetable.peak_plans }
    }

    /// Those of these accounts whose usage is kept by five minutes.
    pub async fn fine(&self, tx: &mut Tx, accounts: &[i64]) -> Result<HashSet<i64>, StoreError> {
        let plans: Vec<&str> = self.peak_plans.iter().map(String::as_str).collect();
        if plans.is_empty() {
            return Ok(HashSet::new());
        }
        let found = fold::accounts_on_plans(tx, accounts, &plans).await?;
        Ok(found.into_iter().map(|(account, _)| account).collect())
    }

    /// Those of one cycle; none when the catalog does not know it.
    pub fn of_cycle(&self, cycle: &str, fine: bool) -> Cutting<'_> {
        let (edges, at): (&[Timestamp], &[Timestamp]) = match self.cycles.get(cycle) {
            Some((edges, cuts)) => (edges, cuts),
            None => (&[], &[]),
        };
        Cutting { edges, cuts: Cuts { at, fine } }
    }
}

/// Event times older than 400 days are not believed; a session may be as long again.
const PAST_DAYS: i64 = 800;
/// More than daily periods over the whole stretch.
const EDGES_MAX: usize = 1_500;
