//! The octets of each period from the records to the lines, as `audit verify` prints them: one row, one identity.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::context::Context;
use super::exit::CliError;
use crate::biller::assurance::Proof;
use crate::billing::assurance::Terms;
use crate::collector::fold::{Flow, FlowKey, Verdict};
use crate::vocabulary::{Timestamp, from_micros};

/// One period of one cycle; usage of nobody by month.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    pub tenant: Option<String>,
    pub cycle: Option<String>,
    pub start: Option<Timestamp>,
    /// What the records tell of, and what came to the ledger since they were read.
    pub raw: i128,
    pub terms: Terms,
    pub unattributed: i128,
    pub rejected: i128,
    pub ambiguous: i128,
    pub not_compared: i128,
}

impl Row {
    /// Raw octets that no term explains.
    pub fn difference(&self) -> i128 {
        self.raw - self.terms.sum() - self.unattributed - self.rejected - self.ambiguous
    }

    fn document(&self) -> Value {
        let Terms { billed, allowance, zero_rated, quantization, unmetered, metered_again, not_billed, .. } =
            self.terms;
        let octets =
            |octets: i128| i64::try_from(octets).map_or_else(|_| json!(octets.to_string()), |octets| json!(octets));
        json!({
            "tenant": self.tenant,
            "cycle": self.cycle,
            "start": self.start,
            "raw": octets(self.raw),
            "billed": octets(billed),
            "allowance": octets(allowance),
            "zero_rated": octets(zero_rated),
            "quantization": octets(quantization),
            "unmetered": octets(unmetered),
            "metered_again": octets(metered_again),
            "not_billed": octets(not_billed),
            "unattributed": octets(self.unattributed),
            "rejected": octets(self.rejected),
            "ambiguous": octets(self.ambiguous),
            "not_compared": octets(self.not_compared),
            "difference": octets(self.difference()),
        })
    }
}

/// Puts the way from the records to the ledger and the way from the ledger to the lines side by side.
pub fn rows(verdict: &Verdict, proof: &Proof) -> Vec<Row> {
    let mut rows: BTreeMap<FlowKey, (Flow, Terms)> =
        verdict.flows.sums.iter().map(|(key, flow)| (key.clone(), (*flow, Terms::default()))).collect();
    for ((tenant, cycle, start), terms) in &proof.sums {
        let key = FlowKey { tenant: Some(tenant.clone()), cycle: Some(cycle.clone()), start: *start };
        rows.entry(key).or_default().1.add(terms);
    }
    let row = |(key, (flow, terms)): (FlowKey, (Flow, Terms))| Row {
        tenant: key.tenant,
        cycle: key.cycle,
        start: key.start.and_then(from_micros),
        // A daemon goes on folding between the two looks at the ledger; each look was compared with its own side.
        raw: flow.raw + (terms.ledger - flow.ledger),
        terms,
        unattributed: flow.unattributed,
        rejected: flow.rejected,
        ambiguous: flow.ambiguous,
        not_compared: flow.not_compared,
    };
    rows.into_iter().map(row).filter(|row| row.raw != 0 || row.difference() != 0).collect()
}

/// The rows as JSON.
pub fn document(rows: &[Row]) -> Vec<Value> {
    rows.iter().map(Row::document).collect()
}

/// The rows as a table. A column that is zero everywhere is left out.
pub fn print(rows: &[Row], context: &Context) -> Result<(), CliError> {
    type Column = (&'static str, fn(&Row) -> i128);
    let columns: [Column; 13] = [
        ("raw", |row| row.raw),
        ("billed", |row| row.terms.billed),
        ("allowance", |row| row.terms.allowance),
        ("zero-rated", |row| row.terms.zero_rated),
        ("quantization", |row| row.terms.quantization),
        ("unmetered", |row| row.terms.unmetered),
        ("metered again", |row| -row.terms.metered_again),
        ("not billed yet", |row| row.terms.not_billed),
        ("unattributed", |row| row.unattributed),
        ("rejected", |row| row.rejected),
        ("ambiguous", |row| row.ambiguous),
        ("(not compared)", |row| row.not_compared),
        ("difference", Row::difference),
    ];
    let always = ["raw", "billed", "difference"];
    let shown: Vec<&Column> = columns
        .iter()
        .filter(|(name, value)| always.contains(name) || rows.iter().any(|row| value(row) != 0))
        .collect();
    let mut headings = vec!["tenant", "cycle", "from"];
    headings.extend(shown.iter().map(|(name, _)| *name));
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let start = row.start.map_or_else(|| "all time".to_owned(), |start| start.to_string());
            let mut cells = vec![text(&row.tenant), text(&row.cycle), start];
            cells.extend(shown.iter().map(|(_, value)| value(row).to_string()));
            cells
        })
        .collect();
    context.print_table(&headings, &cells)
}
