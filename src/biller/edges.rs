//! Where the periods of a tenant's cycles begin, so that usage a run asks for early is cut there and counted by period.

use std::collections::BTreeMap;

use jiff::ToSpan;

use crate::billing::calendar::BillCycle;
use crate::catalog::Catalog;
use crate::vocabulary::Timestamp;

/// The period starts of every cycle, ascending.
#[derive(Debug, Default)]
pub struct Edges(BTreeMap<String, Vec<Timestamp>>);

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
        Self(catalog.cycles.iter().map(|(id, cycle)| (id.clone(), edges(&cycle.calendar))).collect())
    }

    /// Those of one cycle; none when the catalog does not know it.
    pub fn of_cycle(&self, cycle: &str) -> &[Timestamp] {
        self.0.get(cycle).map_or(&[], Vec::as_slice)
    }
}

/// Event times older than 400 days are not believed; a session may be as long again.
const PAST_DAYS: i64 = 800;
/// More than daily periods over the whole stretch.
const EDGES_MAX: usize = 1_500;
