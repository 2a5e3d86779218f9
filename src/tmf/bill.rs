//! An invoice line as TMF678's AppliedCustomerBillingRate, and a bill cycle as its BillCycle. A line is on no bill of ours: the
//! bill is made by whoever takes the line, so `isBilled` is false and the account stands beside it.

use serde_json::{Value, json};

use super::id::{BILLS, ItemId};
use super::service::{characteristic, reference};
use super::{number, resource};
use crate::billing::calendar::{BillCycle, CalendarError};
use crate::billing::lines::{Line, LineKind};
use crate::vocabulary::{Exact, SourceId, Timestamp};

/// An applied billing rate; `source` is the billing system the line's account belongs to.
pub fn rate(line: &Line, source: &SourceId) -> Value {
    let money = |amount: &str| json!({ "unit": line.currency, "value": number(amount) });
    let (without_tax, with_tax) = amounts(line);
    let credit = line.amount.starts_with('-');
    let mut shown = resource("AppliedCustomerBillingRate", &line.id, BILLS, "appliedCustomerBillingRate");
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    put("date", json!(line.created_at));
    put("name", json!(line.charge));
    put("description", json!(line.description));
    put("isBilled", json!(false));
    put("type", json!(if credit { "appliedBillingCredit" } else { "appliedBillingCharge" }));
    put("appliedBillingRateType", json!(rate_type(line.kind)));
    put("periodCoverage", json!({ "startDateTime": line.period.start, "endDateTime": line.period.end }));
    put("taxExcludedAmount", money(&without_tax));
    put("taxIncludedAmount", money(&with_tax));
    let tax = |tax: &crate::billing::lines::TaxShape| {
        json!({
            "taxCategory": tax.id, "taxRate": number(&tax.rate), "taxAmount": money(&tax.amount),
            "@type": "AppliedBillingTaxRate",
        })
    };
    put("appliedTax", line.tax.iter().map(tax).collect());
    put(
        "billingAccount",
        json!({ "id": line.account, "@type": "BillingAccountRef", "@referredType": "BillingAccount" }),
    );
    if let Some(service) = &line.service {
        let id = ItemId { source: source.clone(), account: line.account.clone(), item: service.clone() };
        put("product", Value::Object(reference(&id, "ProductRef")));
    }
    let mut characteristics = vec![
        characteristic("source", json!(source)),
        characteristic("cycle", json!(line.cycle)),
        characteristic("timezone", json!(line.period.timezone)),
        characteristic("tariff", json!(line.tariff)),
        characteristic("quantity", json!(line.quantity)),
        characteristic("unit", json!(line.unit)),
        characteristic("allowance_used", json!(line.allowance_used)),
        characteristic("amount_exact", json!(line.amount_exact)),
        characteristic("amount", json!(line.amount)),
    ];
    let batch = line.batch.iter().map(|batch| characteristic("batch", json!(batch)));
    let corrects = line.corrects.iter().map(|line| characteristic("corrects", json!(line)));
    characteristics.extend(batch.chain(corrects));
    put("characteristic", Value::Array(characteristics));
    Value::Object(shown)
}

fn rate_type(kind: LineKind) -> &'static str {
    match kind {
        LineKind::Recurring => "recurring",
        LineKind::Usage => "usage",
        LineKind::Count => "count",
        LineKind::OneOff => "oneTime",
        LineKind::Deposit => "deposit",
        LineKind::Adjustment | LineKind::Credit | LineKind::TrueUp => "adjustment",
    }
}

/// The line's amount without any tax and with all of it. Its own is net of exclusive and gross of inclusive tax; a text that
/// is no number, which no line has, stays as it is.
fn amounts(line: &Line) -> (String, String) {
    let sum = |inclusive: bool| {
        let mut sum = Exact::from_int(0);
        for tax in line.tax.iter().filter(|tax| tax.inclusive == inclusive) {
            sum = sum.checked_add(tax.amount.parse().ok()?).ok()?;
        }
        Some(sum)
    };
    let own: Option<Exact> = line.amount.parse().ok();
    let without = own.zip(sum(true)).and_then(|(own, tax)| own.checked_sub(tax).ok());
    let with = own.zip(sum(false)).and_then(|(own, tax)| own.checked_add(tax).ok());
    let text = |amount: Option<Exact>| amount.map_or_else(|| line.amount.clone(), |amount| amount.to_string());
    (text(without), text(with))
}

/// A bill cycle with its running period; `closes` tells whether a person closes it.
///
/// **Errors**: the time leaves the calendar.
pub fn cycle(cycle: &BillCycle, closes: &str, now: Timestamp) -> Result<Value, CalendarError> {
    let period = cycle.period_at(now)?;
    let mut shown = resource("BillCycle", &cycle.id, BILLS, "billCycle");
    let mut put = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    put("name", json!(cycle.id));
    put("description", json!(format!("Its running period; in {}, closed {closes}", cycle.timezone)));
    put("billingPeriod", json!(cycle.name(&period)));
    put("billingDate", json!(period.end));
    put("validFor", json!({ "startDateTime": period.start, "endDateTime": period.end }));
    put("billCycleSpecification", json!({ "id": cycle.id, "name": cycle.id, "@type": "BillCycleSpecificationRef" }));
    Ok(Value::Object(shown))
}
