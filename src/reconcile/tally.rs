//! Adds findings up, and proves that the sums of the classes are what both sides have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::classify::{Class, Finding, Kind, Theirs, Told};
use crate::account::Account;

/// How many there are of each class, and how many each side has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Counted where the snapshot is read.
    pub theirs: u64,
    /// Counted where ours are read.
    pub ours: u64,
    pub matched: u64,
    pub mismatch: u64,
    pub missing_here: u64,
    pub missing_there: u64,
    pub duplicate: u64,
    pub in_flight: u64,
    /// Of those, how many rows of theirs and how many of ours.
    pub in_flight_there: u64,
    pub in_flight_here: u64,
    pub quarantined: u64,
    pub quarantined_there: u64,
    pub quarantined_here: u64,
}

/// How many services of a kind there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub theirs: u64,
    pub ours: u64,
    /// Those of ours that stand on issued lines of the day's period.
    pub billed: u64,
    /// How many of both are findings other than `matched`: they explain the difference.
    pub unlike_theirs: u64,
    pub unlike_ours: u64,
}

/// A sum and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    pub of: String,
    pub says: String,
    pub left: i64,
    pub right: i64,
}

/// What was added up so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub subscribers: Sums,
    pub services: Sums,
    pub kinds: BTreeMap<Kind, Cell>,
}

impl Tally {
    /// What the snapshot says of an account.
    pub fn told(&mut self, told: &Told) {
        match told {
            Told::Nothing => {}
            Told::Unreadable { rows, .. } => self.subscribers.theirs += rows,
            Told::Rows(rows) => {
                for account in rows.iter().map(Theirs::account) {
                    self.subscribers.theirs += 1;
                    for service in &account.services {
                        self.services.theirs += 1;
                        self.kind(Kind::of(account, service)).theirs += 1;
                    }
                }
            }
        }
    }

    /// A living account of ours.
    pub fn stored(&mut self, account: &Account) {
        self.subscribers.ours += 1;
        for service in &account.services {
            self.services.ours += 1;
            self.kind(Kind::of(account, service)).ours += 1;
        }
    }

    /// A service that issued lines charge for.
    pub fn billed(&mut self, kind: Kind) {
        self.kind(kind).billed += 1;
    }

    pub fn add(&mut self, finding: &Finding) {
        let sums = if finding.service.is_none() { &mut self.subscribers } else { &mut self.services };
        let (there, here) = (finding.there, u64::from(finding.here));
        match finding.class {
            Class::Matched => sums.matched += 1,
            Class::Mismatch => sums.mismatch += 1,
            Class::MissingHere => sums.missing_here += 1,
            Class::MissingThere => sums.missing_there += 1,
            Class::Duplicate => sums.duplicate += 1,
            Class::InFlight => {
                sums.in_flight += 1;
                sums.in_flight_there += there;
                sums.in_flight_here += here;
            }
            Class::Quarantined => {
                sums.quarantined += 1;
                sums.quarantined_there += there;
                sums.quarantined_here += here;
            }
        }
        if finding.class != Class::Matched {
            if let Some(kind) = &finding.theirs {
                self.kind(kind.clone()).unlike_theirs += 1;
            }
            if let Some(kind) = &finding.ours {
                self.kind(kind.clone()).unlike_ours += 1;
            }
        }
    }

    /// Whether there is anything that somebody must look at.
    pub fn differs(&self) -> bool {
        [&self.subscribers, &self.services].iter().any(|sums| sums.differ())
    }

    /// Every sum that must hold.
    pub fn invariants(&self) -> Vec<Invariant> {
        let mut found = self.subscribers.invariants("subscribers");
        found.extend(self.services.invariants("services"));
        for (kind, cell) in &self.kinds {
            found.push(Invariant {
                of: format!("{} {} {}", kind.service_type, kind.plan, kind.status),
                says: "ours − theirs = ours listed − theirs listed".to_owned(),
                left: signed(cell.ours) - signed(cell.theirs),
                right: signed(cell.unlike_ours) - signed(cell.unlike_theirs),
            });
        }
        found
    }

    fn kind(&mut self, kind: Kind) -> &mut Cell {
        self.kinds.entry(kind).or_default()
    }
}

impl Sums {
    pub fn of(&self, class: Class) -> u64 {
        match class {
            Class::Matched => self.matched,
            Class::Mismatch => self.mismatch,
            Class::MissingHere => self.missing_here,
            Class::MissingThere => self.missing_there,
            Class::Duplicate => self.duplicate,
            Class::InFlight => self.in_flight,
            Class::Quarantined => self.quarantined,
        }
    }

    pub fn differ(&self) -> bool {
        self.mismatch + self.missing_here + self.missing_there + self.duplicate + self.quarantined > 0
    }

    fn invariants(&self, of: &str) -> Vec<Invariant> {
        let invariant =
            |says: &str, left: i64, right: i64| Invariant { of: of.to_owned(), says: says.to_owned(), left, right };
        let theirs = self.matched
            + self.mismatch
            + self.missing_here
            + self.duplicate
            + self.in_flight_there
            + self.quarantined_there;
        let ours = self.matched + self.mismatch + self.missing_there + self.in_flight_here + self.quarantined_here;
        let apart = signed(self.missing_there) - signed(self.missing_here) - signed(self.duplicate)
            + (signed(self.in_flight_here) - signed(self.in_flight_there))
            + (signed(self.quarantined_here) - signed(self.quarantined_there));
        vec![
            invariant(
                "theirs = matched + mismatch + missing_here + duplicate + in_flight there + quarantined there",
                signed(self.theirs),
                signed(theirs),
            ),
            invariant(
                "ours = matched + mismatch + missing_there + in_flight here + quarantined here",
                signed(self.ours),
                signed(ours),
            ),
            invariant(
                "ours − theirs = missing_there − missing_here − duplicate + in_flight + quarantined (here − there)",
                signed(self.ours) - signed(self.theirs),
                apart,
            ),
        ]
    }
}

impl Invariant {
    pub fn holds(&self) -> bool {
        self.left == self.right
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
