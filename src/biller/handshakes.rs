//! The hashes that the lines of a wholesale bill carry, once each: what the counted tenants need to hold their books against
//! the bill.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::billing::lines::Line;
use crate::vocabulary::Date;

/// One tenant's hash at the end of one day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CountedHandshake {
    pub tenant: String,
    pub day: Date,
    pub timezone: String,
    /// Over all services of the tenant that were not terminated, as `handshake show` computes it.
    pub root: String,
    /// Lines of the batch that stand on it.
    pub lines: u64,
}

/// Those of a batch, as its lines come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handshakes(BTreeMap<(String, Date, String, String), u64>);

impl Handshakes {
    /// Notes the one of a line, if it has one.
    pub fn note(&mut self, line: &Line) {
        let Some((count, shape)) = line.count.as_ref().and_then(|count| Some((count, count.handshake.as_ref()?)))
        else {
            return;
        };
        let key = (count.tenant.clone(), shape.day, shape.timezone.clone(), shape.root.clone());
        *self.0.entry(key).or_default() += 1;
    }

    /// By tenant and day. A tenant has two of one day only where its history was changed between two of its lines.
    pub fn list(&self) -> Vec<CountedHandshake> {
        let one = |((tenant, day, timezone, root), lines): (&(String, Date, String, String), &u64)| CountedHandshake {
            tenant: tenant.clone(),
            day: *day,
            timezone: timezone.clone(),
            root: root.clone(),
            lines: *lines,
        };
        self.0.iter().map(one).collect()
    }
}
