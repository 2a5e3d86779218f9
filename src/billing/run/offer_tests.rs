//! What real offers need, each with its amount computed on paper: fees per line and account, deposits, promotions, bundles,
//! grandfathering, taxes, posted charges, changes that waited, a change of the cycle. Every period is November 2026, 30 days.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::account::{
    Due, Hold, HoldBilling, HoldKind, NextCycle, PriceOverride, Promo, Scheduled, ScheduledAt,
    ServiceFacts as Recorded, ServiceType, Status, TaxExempt,
};
use crate::billing::calendar::{BillCycle, Every};
use crate::billing::charges::{PostedCharge, Posting, PostingKind};
use crate::billing::count::{Census, Member};
use crate::billing::explain::explain;
use crate::billing::facts::{CorrectionPolicy, KnownVersion, TariffBook};
use crate::billing::history::{PlanTariffs, ServiceHistory, billed};
use crate::billing::tariff::Tariff;
use crate::billing::{account_wide, wholesale};
use crate::vocabulary::{Timestamp, Zone};

fn at(text: &str) -> Timestamp {
    let text = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    text.parse().expect("an instant of the test")
}

fn version(id: &str, number: u32, keys: &str) -> KnownVersion {
    let text = format!("id = \"{id}\"\nversion = {number}\ncurrency = \"USD\"\n{keys}");
    let text = match text.contains("effective_from") {
        true => text,
        false => text.replacen("currency", "effective_from = \"2026-01-01\"\ncurrency", 1),
    };
    KnownVersion { tariff: Tariff::read("t.toml", &text).expect("a sound tariff"), known_at: at("2026-01-01") }
}

fn cycle(id: &str, anchor_day: u8) -> BillCycle {
    BillCycle { id: id.to_owned(), anchor_day, every: Every::Month, zone: Zone::UTC, timezone: "UTC".to_owned() }
}

fn context_of(cycle: BillCycle, period: &str, versions: Vec<KnownVersion>) -> RunContext {
    let mut tariffs = TariffBook::new();
    for version in versions {
        tariffs.entry(version.tariff.id.clone()).or_default().push(version);
    }
    let period = cycle.named(period).expect("a period");
    RunContext {
        now: period.end,
        cycle,
        period,
        batch: Some("b1".to_owned()),
        tariffs: tariffs.into(),
        backdate_days: 400,
        wholesale: Vec::new(),
        corrections: CorrectionPolicy::default(),
        closures: BTreeMap::new(),
        causes: Default::default(),
    }
}

fn context(period: &str, versions: Vec<KnownVersion>) -> RunContext {
    context_of(cycle("c1", 1), period, versions)
}

fn recorded(plan: &str) -> Recorded {
    Recorded {
        service_type: ServiceType::Internet,
        plan: plan.to_owned(),
        bill_cycle: "c1".to_owned(),
        status: Status::Active,
        tax_exempt: TaxExempt::default(),
        parent: None,
        tax_jurisdiction: None,
        lines: Vec::new(),
        billing_from: None,
        billing_until: None,
        price_override: None,
        addons: Vec::new(),
        promos: Vec::new(),
        scheduled: Vec::new(),
        holds: Vec::new(),
    }
}

/// An account of services with their histories; a plan is called as its tariff.
fn account(services: Vec<Vec<(&str, Recorded)>>, context: &RunContext) -> AccountFacts {
    let plans: BTreeMap<String, String> = context.tariffs.keys().map(|id| (id.clone(), id.clone())).collect();
    let plans: PlanTariffs = vec![(at("2026-01-01"), plans)];
    let mut facts = Vec::new();
    for (index, rows) in services.into_iter().enumerate() {
        let rows = rows.into_iter().map(|(from, facts)| (at(from), facts)).collect();
        let history = ServiceHistory { id: format!("s{}", index + 1), facts: rows };
        facts.extend(billed(&history, &context.cycle, &plans, 400).expect("in range"));
    }
    facts.extend(account_wide(&facts, &context.tariffs));
    AccountFacts {
        tenant: "acme".to_owned(),
        source: "default".to_owned(),
        account: "A".to_owned(),
        services: facts,
        ..AccountFacts::default()
    }
}

/// The lines of November and later, as the invoice says them.
fn shown(lines: &[StoredLine]) -> Vec<String> {
    let line = |stored: &StoredLine| {
        let line = &stored.line;
        let service = line.service.as_deref().unwrap_or("-");
        format!(
            "{} {} {} {} {}",
            service,
            line.charge,
            &line.period.start.to_string()[..10],
            line.kind.as_str(),
            line.amount
        )
    };
    lines.iter().map(line).collect()
}

fn close(facts: &mut AccountFacts, context: &RunContext) -> Vec<StoredLine> {
    let lines = lines(facts, context).expect("an account that can be rated").lines;
    facts.issued.extend(lines.iter().cloned());
    let again = super::lines(facts, context).expect("rated again").lines;
    assert!(again.is_empty(), "a repeated run has nothing to say: {:?}", shown(&again));
    lines
}

const ACCESS: &str = "[[charge]]\nid = \"access\"\ntype = \"recurring\"\namount = \"30.00\"\ntiming = \"arrears\"\n";

fn access(id: &str, more: &str) -> KnownVersion {
    version(id, 1, &format!("{ACCESS}{more}"))
}

#[test]
fn fee_per_line_is_due_for_each_voice_line() {
    let fee = |proration: &str| {
        let keys = "[[charge]]\nid = \"e911\"\ntype = \"recurring\"\namount = \"1.50\"\ntiming = \"arrears\"\nper = \"line\"\n";
        let context = context("2026-11", vec![version("voice", 1, &format!("{keys}proration = \"{proration}\"\n"))]);
        let two = Recorded { lines: vec![1, 2], ..recorded("voice") };
        let three = Recorded { lines: vec![1, 2, 3], ..recorded("voice") };
        shown(&close(&mut account(vec![vec![("2026-11-01", two), ("2026-11-16", three)]], &context), &context))
    };
    // Not prorated: whoever was there pays in full. By days: the third line was there for 15 of 30: 0.75.
    assert_eq!(fee("none"), ["s1 e911 2026-11-01 recurring 1.50"; 3]);
    assert_eq!(
        fee("actual_days"),
        ["s1 e911 2026-11-01 recurring 1.50", "s1 e911 2026-11-01 recurring 1.50", "s1 e911 2026-11-01 recurring 0.75"]
    );
}

#[test]
fn fee_per_account_is_due_once_whatever_it_has() {
    let fee = "[[charge]]\nid = \"paper\"\ntype = \"recurring\"\namount = \"2.00\"\ntiming = \"arrears\"\nper = \"account\"\n";
    let context = context("2026-11", vec![version("res", 1, fee)]);
    let ended = Recorded { status: Status::Terminated, ..recorded("res") };
    let services = vec![
        vec![("2026-11-01", recorded("res")), ("2026-11-21", ended)],
        // Over the first one's end: no day is missing and none counts twice.
        vec![("2026-11-11", recorded("res"))],
    ];
    assert_eq!(shown(&close(&mut account(services, &context), &context)), ["- paper 2026-11-01 recurring 2.00"]);
}

#[test]
fn seasonal_hold_has_its_own_charge() {
    let sleep = "[[charge]]\nid = \"sleep\"\ntype = \"recurring\"\namount = \"6.00\"\ntiming = \"arrears\"\nduring_hold = \"seasonal\"\n";
    let context = context("2026-11", vec![access("res", sleep)]);
    let hold = Hold {
        kind: HoldKind::Seasonal,
        treatment: None,
        billing: HoldBilling::None,
        from: Some(at("2026-11-11")),
        until: Some(at("2026-11-21")),
    };
    let facts = Recorded { holds: vec![hold], ..recorded("res") };
    // 20 of 30 days of 30.00, and 10 of 30 days of 6.00.
    assert_eq!(
        shown(&close(&mut account(vec![vec![("2026-11-01", facts)]], &context), &context)),
        ["s1 access 2026-11-01 recurring 20.00", "s1 sleep 2026-11-01 recurring 2.00"]
    );
}

#[test]
fn deposit_is_taken_once_untaxed_and_given_back_at_the_end() {
    let keys =
        "[[charge]]\nid = \"modem\"\ntype = \"deposit\"\namount = \"50.00\"\n[[tax]]\nid = \"vat\"\nrate = \"20\"\n";
    let versions = || {
        vec![
            version("res", 1, keys),
            version("res", 2, &format!("effective_from = \"2026-12-01\"\n{}", keys.replace("50", "80"))),
        ]
    };
    let rows = vec![("2026-11-05", recorded("res"))];
    let november = context("2026-11", versions());
    let mut facts = account(vec![rows.clone()], &november);
    let lines = close(&mut facts, &november);
    assert_eq!(shown(&lines), ["s1 modem 2026-11-01 deposit 50.00"]);
    assert!(lines[0].line.tax.is_empty(), "nobody's income has no tax");
    let issued = facts.issued.clone();
    let ended = Recorded { status: Status::Terminated, ..recorded("res") };
    let january = context("2027-01", versions());
    let mut facts = account(vec![[rows, vec![("2027-01-10T12:00:00Z", ended)]].concat()], &january);
    facts.issued = issued;
    // What was taken comes back, not what the version of today would take.
    assert_eq!(shown(&close(&mut facts, &january)), ["s1 modem 2027-01-01 deposit -50.00"]);
    for line in &facts.issued {
        let explained = explain(line, None, &versions()[0].tariff, None, &[], None).expect("recomputed");
        assert_eq!(explained.differences, Vec::<String>::new());
    }
}

#[test]
fn service_that_is_still_pending_costs_nothing_and_stops_no_bill() {
    let keys = format!("{ACCESS}[[charge]]\nid = \"box\"\ntype = \"deposit\"\namount = \"50.00\"\n");
    let context = context("2026-11", vec![version("res", 1, &keys)]);
    let pending = Recorded { status: Status::Pending, ..recorded("res") };
    let rows = vec![vec![("2026-11-01", recorded("res"))], vec![("2026-11-01", pending)]];
    let lines = close(&mut account(rows, &context), &context);
    let charges: Vec<&str> = lines.iter().map(|line| line.line.charge.as_str()).collect();
    assert_eq!(charges, ["access", "box"], "of the other one alone: {:?}", shown(&lines));
}

#[test]
fn promotion_is_given_for_its_own_days_and_named_on_the_line() {
    let promo = "[[discount]]\nkind = \"percent\"\nvalue = \"50\"\napplies_to = [\"access\"]\npromo = \"SPRING\"\n";
    let november = context("2026-11", vec![access("res", promo)]);
    let code = |from: &str| Promo { code: "SPRING".to_owned(), from: from.parse().ok(), until: None };
    let facts = Recorded { promos: vec![code("2026-11-16")], ..recorded("res") };
    let lines = close(&mut account(vec![vec![("2026-11-01", facts.clone())]], &november), &november);
    // Half of 15 of 30 days of 30.00: 7.50.
    assert_eq!(shown(&lines), ["s1 access 2026-11-01 recurring 22.50"]);
    let step = lines[0].line.adjustments.iter().find(|step| step.kind == "discount").expect("a discount");
    assert_eq!((step.origin.as_deref(), step.amount_exact.as_str()), (Some("promotion SPRING"), "-7.5"));
    // One period from where it begins: November is that, December pays in full.
    let versions = vec![access("res", &format!("{promo}cycles = 1\n"))];
    let december = context("2026-12", versions);
    let found = shown(&close(&mut account(vec![vec![("2026-11-01", facts)]], &december), &december));
    assert_eq!(found, ["s1 access 2026-11-01 recurring 22.50", "s1 access 2026-12-01 recurring 30.00"]);
    // Without it, the full price.
    let plain = close(&mut account(vec![vec![("2026-11-01", recorded("res"))]], &november), &november);
    assert_eq!(shown(&plain), ["s1 access 2026-11-01 recurring 30.00"]);
}

#[test]
fn promotion_that_is_no_longer_said_ends_and_takes_nothing_back() {
    let promo = "[[discount]]\nkind = \"percent\"\nvalue = \"50\"\napplies_to = [\"access\"]\npromo = \"SPRING\"\n";
    let december = context("2026-12", vec![access("res", promo)]);
    let with =
        Recorded { promos: vec![Promo { code: "SPRING".to_owned(), from: None, until: None }], ..recorded("res") };
    let rows = vec![("2026-11-01", with), ("2026-12-11T09:00:00Z", recorded("res"))];
    // November all of it; December 10 of 31 days: 31 - 5 days' worth is 30 - 30 * 10/31 / 2 = 25.16 (25.1612…).
    assert_eq!(
        shown(&close(&mut account(vec![rows], &december), &december)),
        ["s1 access 2026-11-01 recurring 15.00", "s1 access 2026-12-01 recurring 25.16"]
    );
}

#[test]
fn trial_is_free_for_its_first_days() {
    let trial = "[[discount]]\nkind = \"percent\"\nvalue = \"100\"\ntrial_days = 10\n";
    let context = context("2026-11", vec![access("res", trial)]);
    let lines = close(&mut account(vec![vec![("2026-11-01T08:00:00Z", recorded("res"))]], &context), &context);
    // 10 of 30 days free.
    assert_eq!(shown(&lines), ["s1 access 2026-11-01 recurring 20.00"]);
    assert_eq!(lines[0].line.adjustments[1].origin.as_deref(), Some("trial of 10 days"));
}

#[test]
fn bundle_is_cheaper_while_all_of_it_is_there() {
    let bundle = "[[discount]]\nkind = \"percent\"\nvalue = \"10\"\nrequires = [\"voice\", \"res\"]\n";
    let context = context("2026-11", vec![access("res", bundle), access("voice", "")]);
    let services = vec![vec![("2026-11-01", recorded("res"))], vec![("2026-11-16", recorded("voice"))]];
    // Both from the 16th on: a tenth of 15 of 30 days of 30.00 is 1.50.
    assert_eq!(
        shown(&close(&mut account(services, &context), &context)),
        ["s1 access 2026-11-01 recurring 28.50", "s2 access 2026-11-01 recurring 15.00"]
    );
}

#[test]
fn version_for_the_new_leaves_the_others_their_price() {
    let second = |audience: &str| {
        let keys = format!("effective_from = \"2026-11-16\"\n{audience}\n{}", ACCESS.replace("30.00", "40.00"));
        context("2026-11", vec![access("res", ""), version("res", 2, &keys)])
    };
    let of = |context: &RunContext, from: &str| {
        let lines = close(&mut account(vec![vec![(from, recorded("res"))]], context), context);
        shown(&lines).into_iter().filter(|line| line.contains("2026-11-01")).collect::<Vec<_>>()
    };
    let new = second("for = \"new\"");
    assert_eq!(of(&new, "2026-10-20"), ["s1 access 2026-11-01 recurring 30.00"]);
    // 11 of 30 days of 40.00: 14.666…
    assert_eq!(of(&new, "2026-11-20"), ["s1 access 2026-11-01 recurring 14.67"]);
    // Whoever came on October 20 for a month at a time renews on November 20: 19 days of 30.00, 11 of 40.00.
    let renewing = second("for = \"renewing\"\nterm_months = 1");
    let split = ["s1 access 2026-11-01 recurring 19.00", "s1 access 2026-11-01 recurring 14.67"];
    assert_eq!(of(&renewing, "2026-10-20"), split);
    // A year's term has not ended.
    assert_eq!(of(&second("for = \"renewing\""), "2026-10-20"), ["s1 access 2026-11-01 recurring 30.00"]);
    // For all: 15 of 30 days each.
    let all = ["s1 access 2026-11-01 recurring 15.00", "s1 access 2026-11-01 recurring 20.00"];
    assert_eq!(of(&second(""), "2026-10-20"), all);
}

#[test]
fn fixed_tax_is_due_once_on_its_charges_and_carries_its_jurisdiction() {
    let keys = "tax_category = \"internet\"\n[[charge]]\nid = \"tv\"\ntype = \"recurring\"\namount = \"9.00\"\ntiming = \"arrears\"\n\
        [[tax]]\nid = \"stamp\"\namount = \"0.35\"\napplies_to = [\"access\"]\njurisdiction = \"US-TX\"\n";
    let context = context("2026-11", vec![access("res", keys)]);
    let facts = Recorded { tax_jurisdiction: Some("Austin".to_owned()), ..recorded("res") };
    let lines = close(&mut account(vec![vec![("2026-11-16", facts)]], &context), &context);
    assert_eq!(shown(&lines), ["s1 access 2026-11-01 recurring 15.00", "s1 tv 2026-11-01 recurring 4.50"]);
    let tax = &lines[0].line.tax[0];
    assert_eq!(
        (tax.amount.as_str(), tax.fixed.as_deref(), tax.jurisdiction.as_deref()),
        ("0.35", Some("0.35"), Some("US-TX"))
    );
    assert_eq!(lines[0].line.tax_category.as_deref(), Some("internet"));
    assert_eq!(lines[0].line.tax_jurisdiction.as_deref(), Some("Austin"));
    assert!(lines[1].line.tax.is_empty());
}

#[test]
fn exemption_from_one_tax_leaves_the_other() {
    let taxes = "[[tax]]\nid = \"vat\"\nrate = \"20\"\ninclusive = true\n[[tax]]\nid = \"city\"\nrate = \"5\"\n";
    let context = context("2026-11", vec![access("res", taxes)]);
    let mut facts = account(vec![vec![("2026-11-01", recorded("res"))]], &context);
    facts.exempt_from = vec!["vat".to_owned()];
    // 30.00 holds a sixth of VAT: 25.00 without; the city's 5 % of it is 1.25.
    let lines = close(&mut facts, &context);
    assert_eq!(shown(&lines), ["s1 access 2026-11-01 recurring 25.00"]);
    let taxes: Vec<(&str, &str)> = lines[0].line.tax.iter().map(|tax| (tax.id.as_str(), tax.amount.as_str())).collect();
    assert_eq!(taxes, [("city", "1.25")]);
}

#[test]
fn tax_over_the_batch_is_that_of_the_sum_and_lines_add_up_to_it() {
    let keys = |level: &str| {
        let tax = "[[tax]]\nid = \"sales\"\nrate = \"8.25\"\n";
        version(
            "res",
            1,
            &format!("rounding = {{ tax_level = \"{level}\" }}\n{}{tax}", ACCESS.replace("30.00", "1.01")),
        )
    };
    let taxes = |level: &str| {
        let context = context("2026-11", vec![keys(level)]);
        let services = vec![vec![("2026-11-01", recorded("res"))]; 3];
        let lines = close(&mut account(services, &context), &context);
        lines.iter().map(|line| line.line.tax[0].amount.clone()).collect::<Vec<_>>()
    };
    // Each line: 1.01 * 8.25 % = 0.083325. Together 0.249975: 0.25 over the batch, 0.24 line by line.
    assert_eq!(taxes("line"), ["0.08", "0.08", "0.08"]);
    assert_eq!(taxes("batch"), ["0.09", "0.08", "0.08"]);
}

#[test]
fn posted_charges_are_billed_once_with_the_taxes_they_name() {
    let context = context("2026-11", vec![access("res", "[[tax]]\nid = \"sales\"\nrate = \"8.25\"\n")]);
    let base = context.tariffs["res"][0].tariff.clone();
    let usd = "USD".parse().expect("USD");
    let mut facts = account(Vec::new(), &context);
    for (number, kind, amount, tariff) in [
        ("1", PostingKind::OneOff, "25.00", Some("res")),
        ("2", PostingKind::Credit, "10.00", Some("res")),
        ("3", PostingKind::Deposit, "40.00", None),
        ("4", PostingKind::DepositReturn, "40.00", None),
    ] {
        let posting: Posting = serde_json::from_value(json!({
            "type": kind, "amount": amount, "tariff": tariff, "description": "by hand"
        }))
        .expect("a posting");
        assert!(posting.faults().is_empty());
        let on = "2026-11-20".parse().expect("a date");
        let named = tariff.map(|_| &base);
        let posted = PostedCharge::of(&format!("ch_{number}"), &posting, on, named, usd, at("2026-11-20"));
        facts.posted.push(posted.expect("a charge"));
    }
    facts.services.extend(facts.posted.iter().map(PostedCharge::facts).collect::<Vec<_>>());
    let lines = close(&mut facts, &context);
    assert_eq!(
        shown(&lines),
        [
            "- ch_1 2026-11-01 one_off 25.00",
            "- ch_2 2026-11-01 credit -10.00",
            "- ch_3 2026-11-01 deposit 40.00",
            "- ch_4 2026-11-01 deposit -40.00"
        ]
    );
    // 2.0625 and -0.825: 2.06 and -0.83, half away from zero.
    let taxes: Vec<Vec<&str>> =
        lines.iter().map(|line| line.line.tax.iter().map(|tax| tax.amount.as_str()).collect()).collect();
    assert_eq!(taxes, [vec!["2.06"], vec!["-0.83"], vec![], vec![]]);
    assert_eq!(lines[0].line.description, "by hand, 2026-11-20");
}

fn waiting(due: &str, set: serde_json::Value) -> Scheduled {
    let due = Due { at: at(due), on: due.parse().expect("a date") };
    Scheduled { at: ScheduledAt::Word(NextCycle::NextCycle), set, due: Some(due) }
}

#[test]
fn change_that_waited_is_billed_from_its_day() {
    let second = version("fast", 1, &ACCESS.replace("30.00", "60.00"));
    let context = context("2026-11", vec![access("res", ""), second]);
    let pushed = Recorded { scheduled: vec![waiting("2026-11-16", json!({"plan": "fast"}))], ..recorded("res") };
    // 15 of 30 days each: of 60.00 by `fast` and of 30.00 by `res`, in the order of the tariffs' ids.
    let split = ["s1 access 2026-11-01 recurring 30.00", "s1 access 2026-11-01 recurring 15.00"];
    let before = account(vec![vec![("2026-11-01", pushed.clone())]], &context);
    assert_eq!(shown(&close(&mut before.clone(), &context)), split);
    // What is written when the day has come says the same, however late it is written.
    let applied = Recorded { plan: "fast".to_owned(), ..pushed.clone() };
    let rows = vec![("2026-11-01", pushed.clone()), ("2026-11-18T07:00:00Z", applied)];
    assert_eq!(account(vec![rows], &context).services[0].stretches, before.services[0].stretches);
    // Taken back before its day, it never was.
    let rows = vec![("2026-11-01", pushed), ("2026-11-10", recorded("res"))];
    let mut withdrawn = account(vec![rows], &context);
    assert_eq!(shown(&close(&mut withdrawn, &context)), ["s1 access 2026-11-01 recurring 30.00"]);
}

#[test]
fn another_own_price_leaves_what_was_billed_before() {
    let own = |amount: &str| {
        let own = PriceOverride { charge: None, amount: amount.to_owned(), from: None, until: None };
        Recorded { price_override: Some(own), ..recorded("res") }
    };
    let january = context("2027-01", vec![access("res", "")]);
    let rows = vec![("2026-11-01", own("20.00")), ("2026-12-05T10:00:00Z", own("25.00"))];
    assert_eq!(
        shown(&close(&mut account(vec![rows], &january), &january)),
        [
            "s1 access 2026-11-01 recurring 20.00",
            "s1 access 2026-12-01 recurring 20.00",
            "s1 access 2027-01-01 recurring 25.00"
        ]
    );
}

#[test]
fn account_that_changes_its_cycle_is_billed_for_each_day_once() {
    let keys = format!(
        "{ACCESS}refund_on_end = \"none\"\n[[charge]]\nid = \"setup\"\ntype = \"one_off\"\namount = \"9.00\"\n"
    );
    let moved = Recorded { bill_cycle: "c15".to_owned(), ..recorded("res") };
    let rows = vec![("2026-11-01", recorded("res")), ("2026-11-20T14:00:00Z", moved)];
    let lines_on = |cycle: BillCycle, period: &str| {
        let context = context_of(cycle, period, vec![version("res", 1, &keys)]);
        close(&mut account(vec![rows.clone()], &context), &context)
    };
    let (old, new) = (lines_on(cycle("c1", 1), "2026-11"), lines_on(cycle("c15", 15), "2026-11-15"));
    // The day of the change is the new cycle's: 19 of 30 days, then 25 of the 30 from November 15 on; the setup fee once.
    assert_eq!(shown(&old), ["s1 access 2026-11-01 recurring 19.00", "s1 setup 2026-11-01 one_off 9.00"]);
    assert_eq!(shown(&new), ["s1 access 2026-11-15 recurring 25.00"]);
    assert_eq!(old[0].basis.coverage.last().map(|(_, until)| *until), Some(at("2026-11-20")));
    assert_eq!(new[0].basis.coverage.first().map(|(from, _)| *from), Some(at("2026-11-20")));
}

#[test]
fn wholesale_counts_are_priced_and_keep_whom_they_counted() {
    let keys = "[[charge]]\nid = \"subscribers\"\ntype = \"count\"\ncount = \"services\"\nrule = \"average_daily\"\n\
        service_types = [\"internet\"]\nmodel = \"graduated\"\n\
        tiers = [{ up_to = \"2\", unit_amount = \"5\" }, { unit_amount = \"4\" }]\nminimum = \"11\"\n";
    let context = context("2026-11", vec![version("bulk", 1, keys)]);
    let member = |account: &str, from: &str, until: Option<&str>| Member {
        account: account.to_owned(),
        service: "1".to_owned(),
        service_type: ServiceType::Internet,
        plan: "p".to_owned(),
        status: Status::Active,
        from: at(from),
        until: until.map(at),
    };
    let bill = |members: Vec<Member>| {
        let census = Arc::new(Census { tenant: "small".to_owned(), members });
        let mut facts = account(Vec::new(), &context);
        facts.services.push(wholesale(census, "bulk", at("2026-11-01"), None));
        let result = lines(&facts, &context).expect("rated");
        (close(&mut facts, &context), result.counts)
    };
    let three = vec![
        member("default/a", "2026-10-05", None),
        member("default/b", "2026-11-16", None),
        member("default/c", "2026-11-01", Some("2026-11-21T12:00:00Z")),
        member("default/d", "2026-12-01", None),
    ];
    let (lines, counts) = bill(three);
    // 30 + 15 + 21 days = 66 of 30: 2.2 a day on average; 2 at 5.00 and 0.2 at 4.00.
    // That is 10.80, and the minimum is 11.00.
    assert_eq!(shown(&lines), ["- subscribers 2026-11-01 count 11.00"]);
    assert_eq!(lines[0].line.quantity, "2.2");
    assert_eq!(lines[0].line.adjustments[0].amount_exact, "0.2");
    let listed: Vec<(&str, u32)> = counts[0].members.iter().map(|(id, days)| (id.as_str(), *days)).collect();
    assert_eq!(listed, [("default/a/1", 30), ("default/b/1", 15), ("default/c/1", 21)]);
    let shape = lines[0].line.count.as_ref().expect("a count");
    assert_eq!((shape.members, shape.digest.as_str()), (3, counts[0].digest().as_str()));
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(2_000))]

    /// However often and whenever the plan goes to and fro between equal prices, the parts add up to the price.
    #[test]
    fn prorated_parts_sum_to_the_full_price(
        cuts in prop::collection::btree_set(0i64..30 * 86_400, 0..6),
        proration in prop_oneof![Just("actual_days"), Just("fixed_30"), Just("per_second")],
    ) {
        let keys = format!("{ACCESS}proration = \"{proration}\"\n");
        let context = context("2026-11", vec![version("a", 1, &keys), version("b", 1, &keys)]);
        let start = at("2026-11-01").as_second();
        let mut rows = vec![("2026-11-01T00:00:00Z".to_owned(), recorded("a"))];
        for (index, cut) in cuts.iter().enumerate() {
            let from = Timestamp::from_second(start + cut).expect("in range").to_string();
            rows.push((from, recorded(if index % 2 == 0 { "b" } else { "a" })));
        }
        let rows = rows.iter().map(|(from, facts)| (from.as_str(), facts.clone())).collect();
        let lines = close(&mut account(vec![rows], &context), &context);
        let sum = lines.iter().fold(Exact::ZERO, |sum, line| sum.checked_add(line.basis.amount_exact.0).expect("fits"));
        prop_assert_eq!(sum.to_string(), "30");
    }

    /// A change and its taking back at the same instant leave the lines as they are, to the octet of their ids.
    #[test]
    fn change_and_change_back_at_one_instant_is_nothing(second in 0i64..30 * 86_400) {
        let context = context("2026-11", vec![access("a", ""), access("b", "")]);
        let from = Timestamp::from_second(at("2026-11-01").as_second() + second).expect("in range").to_string();
        let plain = account(vec![vec![("2026-11-01", recorded("a"))]], &context);
        let rows = vec![("2026-11-01", recorded("a")), (from.as_str(), recorded("b")), (from.as_str(), recorded("a"))];
        let back = account(vec![rows], &context);
        prop_assert_eq!(lines(&plain, &context).expect("rated"), lines(&back, &context).expect("rated"));
    }

    /// Over a batch the taxes of the lines are the rounded tax of their sum, whatever they cost.
    #[test]
    fn taxes_of_a_batch_sum_to_the_groups_tax(cents in prop::collection::vec(1i64..100_000, 1..8), rate in 1i128..2_500) {
        let versions = cents.iter().enumerate().map(|(index, cents)| {
            let amount = format!("{}.{:02}", cents / 100, cents % 100);
            let rate = Exact::ratio(rate, 100).expect("a ratio");
            let tax = format!("[[tax]]\nid = \"sales\"\nrate = \"{rate}\"\n");
            let keys = format!("rounding = {{ tax_level = \"batch\" }}\n{}{tax}", ACCESS.replace("30.00", &amount));
            version(&format!("t{index}"), 1, &keys)
        });
        let context = context("2026-11", versions.collect());
        let services = (0..cents.len()).map(|index| vec![("2026-11-01", recorded(&format!("t{index}")))]).collect();
        let found = close(&mut account(services, &context), &context);
        let tax: i64 = found.iter().map(|line| line.line.tax[0].amount_minor()).sum();
        let net = Money::new(cents.iter().sum(), "USD".parse().expect("USD")).exact();
        let exact = net.checked_mul(Exact::ratio(rate, 10_000).expect("a ratio")).expect("fits");
        let rounded = Money::round(exact, "USD".parse().expect("USD"), 2, crate::vocabulary::Rounding::HalfUp);
        prop_assert_eq!(tax, rounded.expect("fits").minor);
    }
}
