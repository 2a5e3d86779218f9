//! What is shown of the period that runs.

use std::sync::Arc;

use super::*;
use crate::billing::run::tests::{TARIFF, context, entry, facts, run, version};

#[test]
fn balance_is_the_lines_of_the_period_with_what_is_left_of_the_allowance() {
    let context = context("2026-10-15");
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 40_000_000_000)];
    facts.watermark = 1;
    let balance = balance("100234", 1, &context, &run(&facts, &context));
    assert_eq!((balance.account.as_str(), balance.cycle.as_str(), balance.watermark), ("100234", "c15", 1));
    assert_eq!(balance.period, context.period);
    let of = |item: &BalanceItem| {
        let (allowance, left) = (item.allowance.as_deref(), item.allowance_left.as_deref());
        format!("{:?} {} {} {} {allowance:?} {left:?} {}", item.service, item.charge, item.used, item.unit, item.amount)
    };
    // The advance of the next period is none of this one.
    assert_eq!(
        balance.items.iter().map(of).collect::<Vec<_>>(),
        ["Some(\"1\") access 1 period None None 49.95", "Some(\"1\") data 40 GB Some(\"100\") Some(\"60\") 0.00"]
    );
    assert_eq!((balance.items[0].currency.as_str(), balance.items[0].tax[0].amount.as_str()), ("USD", "4.12"));
}

#[test]
fn an_allowance_of_a_part_of_the_period_is_shown_as_the_part() {
    let mut context = context("2026-10-15");
    let text = TARIFF.replace("allowance = { amount = \"100\" }", "allowance = { amount = \"31\", prorate = true }");
    let prorated = version(&text, "2026-01-01T00:00:00Z");
    Arc::make_mut(&mut context.tariffs).insert("res-100".to_owned(), vec![prorated]);
    let facts = facts("2026-11-01T05:00:00Z");
    let balance = balance("100234", 0, &context, &run(&facts, &context));
    assert_eq!(balance.items[1].allowance.as_deref(), Some("14"), "14 of 31 days");
}
