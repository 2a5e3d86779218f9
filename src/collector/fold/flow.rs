//! Where the octets of the journal's records went on their way to the ledger: sums by tenant, cycle and period.
//!
//! In: each session's records folded anew, and what is stored of it, both of one moment. Out: for each period how many
//! octets the records tell of, and how many of them stand in the ledger or wait for it, belong to nobody, only inform,
//! or were left out because a counter's fall could be read in two ways.

use std::collections::{BTreeMap, HashSet};

use super::calendars::Calendars;
use crate::radius::{PacketView, attribute};
use crate::store::sessions::{Owner, StoredSession};
use crate::usage::{Buckets, SessionState};
use crate::vocabulary::from_micros;

/// What a sum is of. Usage of nobody is summed by month; an account that changed its cycle, over all time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    /// `None`: nobody's.
    pub tenant: Option<String>,
    /// `None`: nobody's.
    pub cycle: Option<String>,
    /// Start of the period or month in microseconds; `None`: all time.
    pub start: Option<i64>,
}

/// Octets in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// As the records tell, in doubt the larger reading.
    pub raw: i128,
    /// In the ledger, or pending to be written there.
    pub ledger: i128,
    /// Of sessions without an owner.
    pub unattributed: i128,
    /// Of records that could not be read, and of sessions that only inform.
    pub rejected: i128,
    /// What the larger reading of ambiguous falls would have had besides.
    pub ambiguous: i128,
    /// Of `ledger`, what could not be compared with records: they were dropped, or the session waits to be folded anew.
    pub not_compared: i128,
}

/// All sums of a verification.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Flows {
    pub sums: BTreeMap<FlowKey, Flow>,
    /// Accounts that have lines on a cycle they no longer follow.
    pub moved: HashSet<i64>,
}

/// Octets that the other reading of an ambiguous fall would have had, by when they were reported.
pub(super) type Favoured = Vec<(i64, i128)>;

impl FlowKey {
    /// The sum that an account's usage at an instant belongs to.
    pub(super) fn of_account(moved: &HashSet<i64>, calendars: &Calendars, account: i64, at: i64) -> Self {
        let names = calendars.names(account);
        let start = calendars.period_start(account, at).filter(|_| !moved.contains(&account));
        Self {
            tenant: names.map(|(tenant, _)| tenant.to_owned()),
            cycle: names.map(|(_, cycle)| cycle.to_owned()),
            start,
        }
    }

    fn of_nobody(at: i64) -> Self {
        let month = from_micros(at).and_then(|at| {
            let first = at.to_zoned(crate::vocabulary::Zone::UTC).date().first_of_month();
            let start = first.to_zoned(crate::vocabulary::Zone::UTC).ok()?;
            Some(crate::vocabulary::to_micros(start.timestamp()))
        });
        Self { tenant: None, cycle: None, start: month }
    }
}

impl Flows {
    /// Adds a session that was compared: what it is by its records, and what is stored of it. `is` are the octets that
    /// the ledger holds of it or that are pending, by when they were used.
    pub(super) fn add(
        &mut self,
        calendars: &Calendars,
        stored: Option<&StoredSession>,
        fresh: Option<&SessionState>,
        favoured: &Favoured,
        is: &[(i64, i128)],
    ) {
        let owner = stored.and_then(|stored| stored.owner);
        let moved = std::mem::take(&mut self.moved);
        let key = |at: i64| match owner {
            Some(Owner { account_id, .. }) => FlowKey::of_account(&moved, calendars, account_id, at),
            None => FlowKey::of_nobody(at),
        };
        for (at, octets) in fresh.into_iter().flat_map(|state| by_time(state.pending())) {
            self.at(key(at)).raw += octets;
        }
        for (at, octets) in favoured {
            let flow = self.at(key(*at));
            flow.raw += octets;
            flow.ambiguous += octets;
        }
        for (at, octets) in is {
            let flow = self.at(key(*at));
            match owner {
                Some(_) => flow.ledger += octets,
                None => flow.unattributed += octets,
            }
        }
        // What only informs is in the totals and in no bucket.
        let only_inform = |state: &SessionState| state.marks() & crate::usage::mark::INFORMATIVE != 0;
        let all = |state: &SessionState| i128::from(state.totals().in_octets) + i128::from(state.totals().out_octets);
        if let Some(state) = fresh.filter(|state| only_inform(state)) {
            self.at(key(state.started_at())).raw += all(state);
        }
        if let Some(state) = stored.map(|stored| &stored.state).filter(|state| only_inform(state)) {
            self.at(key(state.started_at())).rejected += all(state);
        }
        self.moved = moved;
    }

    /// Adds a session that cannot be compared with its records: what is stored stands for them.
    pub(super) fn add_uncompared(&mut self, calendars: &Calendars, owner: Option<Owner>, is: &[(i64, i128)]) {
        for (at, octets) in is {
            let key = match owner {
                Some(Owner { account_id, .. }) => FlowKey::of_account(&self.moved, calendars, account_id, *at),
                None => FlowKey::of_nobody(*at),
            };
            let flow = self.at(key);
            flow.raw += octets;
            flow.not_compared += octets;
            match owner {
                Some(_) => flow.ledger += octets,
                None => flow.unattributed += octets,
            }
        }
    }

    /// Adds a record that could not be read, by the counters it has anyway.
    pub(super) fn add_unreadable(&mut self, arrived_at: i64, packet: &[u8]) {
        let Ok(view) = PacketView::parse(packet) else { return };
        let number = |kind: u8| {
            let value = view.first(kind).and_then(|value| <[u8; 4]>::try_from(value).ok());
            value.map_or(0, |value| i128::from(u32::from_be_bytes(value)))
        };
        let wide = |low: u8, high: u8| (number(high) << 32) + number(low);
        let octets = wide(attribute::ACCT_INPUT_OCTETS, attribute::ACCT_INPUT_GIGAWORDS)
            + wide(attribute::ACCT_OUTPUT_OCTETS, attribute::ACCT_OUTPUT_GIGAWORDS);
        if octets > 0 {
            let flow = self.at(FlowKey::of_nobody(arrived_at));
            flow.raw += octets;
            flow.rejected += octets;
        }
    }

    fn at(&mut self, key: FlowKey) -> &mut Flow {
        self.sums.entry(key).or_default()
    }
}

/// Octets of buckets, both directions, by when they begin.
pub(super) fn by_time(buckets: &Buckets) -> impl Iterator<Item = (i64, i128)> + '_ {
    buckets.iter().map(|(at, amount)| (at, i128::from(amount.in_octets) + i128::from(amount.out_octets)))
}
