//! A line recomputes to itself, and whatever is changed of it is named.

use super::*;
use crate::billing::run::tests::{at, close, context, entry, facts};

/// A line whose tariff meters usage and taxes it, its tariff, and the entries it was made from.
fn billed() -> (StoredLine, Tariff, Vec<UsageEntry>) {
    let context = context("2026-10-15");
    let mut facts = facts("2026-10-20T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 150_000_000_000)];
    facts.watermark = 1;
    let lines = close(&mut facts, &context);
    let line = lines.iter().find(|line| line.line.charge == "data").expect("a usage line");
    (line.clone(), context.tariffs["res-100"][0].tariff.clone(), facts.services[0].usage.clone())
}

fn differences(line: &StoredLine, tariff: &Tariff, entries: &[UsageEntry]) -> Vec<String> {
    explain(line, None, tariff, None, entries, None).expect("recomputed").differences
}

#[test]
fn line_recomputes_to_itself_with_all_it_was_made_from() {
    let (line, tariff, entries) = billed();
    let explained = explain(&line, None, &tariff, None, &entries, None).expect("recomputed");
    assert_eq!(explained.differences, Vec::<String>::new());
    assert_eq!((explained.issued_before.as_str(), explained.share.as_str()), ("0.00", "0.83870967741935483870"));
    assert_eq!(explained.rounding, "half_up, 2 decimal places");
    assert_eq!((explained.coverage[0].from, explained.coverage.len()), (at("2026-10-20T05:00:00Z"), 1));
    let recomputed = explained.recomputed;
    assert_eq!((recomputed.quantity_raw.as_str(), recomputed.quantity.as_str()), ("150000000000", "150"));
    assert_eq!((recomputed.allowance_used.as_str(), recomputed.amount_exact.as_str()), ("100", "2.5"));
    assert_eq!((recomputed.amount.as_str(), recomputed.rounding_residue.as_str()), ("2.50", "0"));
    assert_eq!((recomputed.tiers.len(), recomputed.tax[0].amount.as_str()), (1, "0.21"));
    let usage = line.line.usage.as_ref().expect("usage");
    assert_eq!(recomputed.usage_digest.as_ref(), Some(&usage.digest));
    let again = recomputed_from(&line, &tariff, &entries).expect("recomputed");
    assert_eq!((again.amount, again.usage_digest), ("2.50".to_owned(), None), "other entries have other sequences");
}

#[test]
fn every_changed_number_is_named() {
    let (line, tariff, entries) = billed();
    let named = |change: fn(&mut StoredLine), words: &str| {
        let mut changed = line.clone();
        change(&mut changed);
        let found = differences(&changed, &tariff, &entries);
        assert!(found.len() == 1 && found[0].starts_with(words), "{words}: {found:?}");
    };
    named(|line| line.line.tariff.digest = "0".to_owned(), "tariff digest is 0 in the line");
    named(|line| line.basis.quantity_raw += 1, "quantity_raw is 150000000001 in the line and 150000000000");
    named(|line| line.basis.amount_exact = "3/1".to_owned().try_into().expect("a ratio"), "amount_exact is 3 in");
    named(|line| line.basis.amount_minor += 1, "amount so far is 2.51 in the line and 2.50");
    named(|line| line.line.amount = "2.49".to_owned(), "amount is 2.49 in the line and 2.50");
    named(|line| line.line.usage.as_mut().expect("usage").digest = "0".to_owned(), "digest of the ledger entries is 0");
    named(|line| line.basis.taxes[0].amount_minor += 1, "tax sales is 22 in the line and 21");
    named(|line| line.basis.taxes[0].id = "other".to_owned(), "tax sales is 0 in the line and 21");
    let mut told_apart = line.clone();
    let part = r#"{"quantity_raw": "1", "quantity": "1", "weight": "1", "amount_exact": "0"}"#;
    told_apart.line.parts = vec![serde_json::from_str(part).expect("a part")];
    assert!(differences(&told_apart, &tariff, &entries)[0].starts_with("usage by class and window"));
}

#[test]
fn correction_is_explained_against_the_line_before() {
    let context = context("2026-10-15");
    let mut facts = facts("2026-10-15T05:00:00Z");
    facts.services[0].usage = vec![entry(1, "2026-11-02T10:00:00Z", 150_000_000_000)];
    facts.watermark = 1;
    let first = close(&mut facts, &context).remove(1);
    facts.services[0].usage.push(entry(2, "2026-11-02T10:00:00Z", 10_000_000_000));
    facts.watermark = 2;
    let second = close(&mut facts, &context).remove(0);
    let tariff = &context.tariffs["res-100"][0].tariff;
    let explained = explain(&second, Some(&first), tariff, None, &facts.services[0].usage, None).expect("recomputed");
    assert_eq!((explained.differences, explained.issued_before.as_str()), (Vec::new(), "2.50"));
    let alone = explain(&second, None, tariff, None, &facts.services[0].usage, None).expect("recomputed");
    assert_eq!(alone.differences, ["amount is 0.50 in the line and 3.00 recomputed"]);
}

#[test]
fn entries_are_shown_that_lie_in_the_billed_time() {
    let (line, tariff, mut entries) = billed();
    let touching = |sequence: i64, from: &str| UsageEntry { out_octets: 0, ..entry(sequence, from, 0) };
    let instant = |sequence: i64, from: &str| UsageEntry { until: at(from), ..touching(sequence, from) };
    // Billed from October 20 05:00 to November 15 06:00.
    entries.extend([
        touching(2, "2026-10-20T04:00:00Z"),
        touching(3, "2026-10-20T04:00:01Z"),
        touching(4, "2026-11-15T06:00:00Z"),
        touching(5, "2026-11-15T05:59:59Z"),
        instant(6, "2026-10-20T05:00:00Z"),
        instant(7, "2026-10-20T04:59:59Z"),
        instant(8, "2026-11-15T06:00:00Z"),
    ]);
    let explained = explain(&line, None, &tariff, None, &entries, None).expect("recomputed");
    let shown: Vec<i64> = explained.entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(shown, [1, 3, 5, 6]);
    assert_eq!((explained.entries[0].out_octets, explained.entries[0].seconds), (150_000_000_000, 3600));
}

#[test]
fn own_price_is_read_back_from_the_line() {
    let context = context("2026-10-15");
    let tariff = &context.tariffs["res-100"][0].tariff;
    let mut facts = facts("2026-11-01T05:00:00Z");
    facts.services[0].times = 3;
    let standard = close(&mut facts.clone(), &context).remove(0);
    assert_eq!(own_amount(&standard, tariff), None);
    let amount = "39.95".parse().expect("a decimal");
    facts.services[0].price_overrides =
        vec![crate::billing::facts::PriceOverride { charge: None, amount, from: None, until: None }];
    let lines = close(&mut facts, &context);
    assert_eq!(own_amount(&lines[0], tariff), Some(amount));
    assert_eq!(own_amount(&lines[1], tariff), None, "usage has no amount of its own");
    let explained = explain(&lines[0], None, tariff, Some(amount), &[], None).expect("recomputed");
    assert_eq!(explained.differences, Vec::<String>::new());
    assert_eq!(explained.recomputed.quantity_raw, "3");
    assert!(!explain(&lines[0], None, tariff, None, &[], None).expect("recomputed").differences.is_empty());
}
