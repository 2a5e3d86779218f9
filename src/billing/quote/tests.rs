//! What a tariff costs for quantities somebody names.

use super::*;

const TARIFF: &str = r#"
id = "t"
version = 1
currency = "USD"
effective_from = "2026-01-01"
[[charge]]
id = "access"
type = "recurring"
amount = "10"
[[charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
quantize = { to = "1 GB", level = "day" }
allowance = { amount = "2" }
model = "percentage"
rate = "50"
fixed_amount = "0.25"
[[charge]]
id = "seats"
type = "count"
count = "services"
rule = "any"
model = "standard"
unit_amount = "3"
[[charge]]
id = "calls"
type = "usage"
meter = "calls"
unit = "min"
rates = [{ prefix = "", unit_amount = "1" }]
[[tax]]
id = "vat"
rate = "20"
inclusive = true
[[tax]]
id = "fee"
rate = "10"
"#;

fn quoted(sample: &str) -> Result<Quote, QuoteError> {
    let tariff = Tariff::read("t.toml", TARIFF).expect("a sound tariff");
    quote(&tariff, &serde_json::from_str(sample).expect("a sample of the test"))
}

#[test]
fn every_charge_is_priced_and_the_total_has_the_taxes_on_top() {
    let quote = quoted(r#"{"quantities": {"data": "6.5", "seats": "2"}, "events": {"data": 4}}"#).expect("priced");
    let of = |line: &QuoteLine| format!("{} {} {} {}", line.charge, line.quantity, line.allowance_used, line.amount);
    // 7 GB in whole ones, 2 free: 5 x 0.5 + 4 x 0.25 = 3.50; two seats; nobody called.
    let lines: Vec<String> = quote.lines.iter().map(of).collect();
    assert_eq!(lines, ["access 1 0 10.00", "data 7 2 3.50", "seats 2 0 6.00", "calls 0 0 0.00"]);
    // Of 10.00 the net is 8.33, of 3.50 2.92, of 6.00 5.00; the fee is 0.83, 0.29 and 0.50 on top.
    let taxes = |line: &QuoteLine| line.tax.iter().map(|tax| tax.amount.clone()).collect::<Vec<String>>().join(" ");
    assert_eq!(quote.lines.iter().map(taxes).collect::<Vec<_>>(), ["1.67 0.83", "0.58 0.29", "1.00 0.50", "0.00 0.00"]);
    assert_eq!((quote.total.as_str(), quote.currency.as_str()), ("21.12", "USD"));
}

#[test]
fn what_the_sample_does_not_name_was_not_used() {
    let quote = quoted("{}").expect("priced");
    assert_eq!(
        quote.lines.iter().map(|line| line.amount.as_str()).collect::<Vec<_>>(),
        ["10.00", "0.00", "0.00", "0.00"]
    );
    assert_eq!(quote.total, "10.83");
}

#[test]
fn a_sample_that_names_what_is_not_there_is_refused_with_every_place() {
    let sample = r#"{"quantities": {"access": "1", "calls": "1", "data": "-1", "seats": "x"}, "events": {"access": 1, "seats": 2}}"#;
    let Err(QuoteError::Sample(faults)) = quoted(sample) else { panic!("it is taken") };
    let places: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(
        places,
        ["/quantities/access", "/quantities/calls", "/quantities/data", "/quantities/seats", "/events/access"]
    );
    assert!(faults[2].detail.contains("not below zero"), "{faults:?}");
}
