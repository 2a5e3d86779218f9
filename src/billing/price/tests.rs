//! Prices to the last digit: boundaries, zero, blocks, limits, and what peers get wrong.

use proptest::prelude::*;

use super::*;

fn exact(text: &str) -> Exact {
    text.parse().expect("a decimal of the test")
}

fn tariff(keys: &str) -> Tariff {
    let text = format!(
        "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"data\"\n\
         type = \"usage\"\nmeter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\n{keys}\n"
    );
    Tariff::read("t.toml", &text).expect("a sound tariff of the test")
}

fn amount(tariff: &Tariff, quantity: &str) -> String {
    priced(tariff, exact(quantity), 0).amount.to_string()
}

fn priced(tariff: &Tariff, quantity: Exact, events: u64) -> Priced {
    price(tariff, &tariff.charges[0], &Measure::whole(quantity, events)).expect("in range")
}

const TIERS: &str =
    "tiers = [{ up_to = \"100\", unit_amount = \"0.05\" }, { unit_amount = \"0.02\", flat_amount = \"1\" }]";

#[test]
fn graduated_prices_each_part_at_its_tier() {
    let tariff = tariff(&format!("model = \"graduated\"\n{TIERS}"));
    for (quantity, expected) in [("0", "0"), ("100", "5"), ("100.000000001", "6.00000000002"), ("150", "7")] {
        assert_eq!(amount(&tariff, quantity), expected, "{quantity}");
    }
}

/// F1: a peer bills nothing for 99.5 units between two integer bounds.
#[test]
fn volume_prices_fractions_between_bounds() {
    let tariff = tariff(&format!("model = \"volume\"\n{TIERS}"));
    for (quantity, expected) in
        [("99.5", "4.975"), ("99.999999999", "4.99999999995"), ("100", "5"), ("100.000000001", "3.00000000002")]
    {
        assert_eq!(amount(&tariff, quantity), expected, "{quantity}");
    }
}

/// F2: a peer rounds the unit price to cents first and cuts the quantity to whole units.
#[test]
fn prices_below_a_cent_and_fractions_of_units_count() {
    assert_eq!(amount(&tariff("model = \"standard\"\nunit_amount = \"0.004\""), "10000.9"), "40.0036");
}

/// F7: a peer counts packages in floating point: 9007199254740993 became 9007199254740992.
#[test]
fn packages_are_counted_exactly() {
    let keys = "model = \"package\"\npackage_size = \"1\"\npackage_amount = \"1\"";
    assert_eq!(amount(&tariff(keys), "9007199254740993"), "9007199254740993");
    assert_eq!(amount(&tariff(keys), "3.0000000000000001"), "4");
    let free = format!("{keys}\nfree_units = \"3\"");
    assert_eq!(amount(&tariff(&free), "2"), "0");
}

/// F9: a peer's blocks in floating point make 8 of 0.07 / 0.01, 112 of 1.11 / 0.01, 420 of 4.19 / 0.01.
#[test]
fn blocks_are_counted_exactly() {
    let keys = "model = \"package\"\npackage_size = \"0.01\"\npackage_amount = \"1\"";
    for (quantity, blocks) in [("0.07", "7"), ("1.11", "111"), ("4.19", "419")] {
        assert_eq!(amount(&tariff(keys), quantity), blocks);
    }
    let block = tariff("model = \"standard\"\nunit_amount = \"0.5\"\nblock = { size = \"10\" }");
    assert_eq!(amount(&block, "10.000000001"), "10");
}

#[test]
fn one_octet_around_a_bound_moves_one_octets_price() {
    let tariff = tariff(
        "model = \"graduated\"\ntiers = [{ up_to = \"100\", unit_amount = \"0.05\" }, { unit_amount = \"0.02\" }]",
    );
    let at = |octets: i128| priced(&tariff, Exact::ratio(octets, 1_000_000_000).expect("a ratio"), 0).amount;
    let bound = 100_000_000_000;
    let step = |a: i128, b: i128| at(b).checked_sub(at(a)).expect("in range").to_string();
    assert_eq!(step(bound - 1, bound), "0.00000000005");
    assert_eq!(step(bound, bound + 1), "0.00000000002");
}

#[test]
fn flat_amount_at_zero_is_a_choice() {
    let tiers = "model = \"graduated\"\ntiers = [{ unit_amount = \"1\", flat_amount = \"3\" }]";
    assert_eq!(amount(&tariff(tiers), "0"), "0");
    assert_eq!(amount(&tariff(&format!("{tiers}\ncharge_flat_at_zero = true")), "0"), "3");
}

#[test]
fn allowance_comes_after_quantizing_and_before_the_model() {
    let tariff = tariff(
        "model = \"standard\"\nunit_amount = \"1\"\nquantize = { to = \"1 GB\" }\nallowance = { amount = \"2\" }",
    );
    let priced = priced(&tariff, exact("2.1"), 0);
    assert_eq!((priced.quantity, priced.allowance_used, priced.amount), (exact("3"), exact("2"), exact("1")));
}

#[test]
fn discount_then_maximum_then_minimum() {
    let discount = "[[discount]]\nkind = \"percent\"\nvalue = \"50\"\n";
    let text = format!("model = \"standard\"\nunit_amount = \"1\"\nminimum = \"5\"\nmaximum = \"60\"\n{discount}");
    let tariff = tariff(&text);
    for (quantity, expected) in [("100", "50"), ("200", "60"), ("4", "5")] {
        assert_eq!(amount(&tariff, quantity), expected);
    }
}

#[test]
fn discount_ends_with_its_cycles_and_an_amount_takes_no_more_than_there_is() {
    let text = |kind: &str, value: &str| {
        format!(
            "model = \"standard\"\nunit_amount = \"1\"\n[[discount]]\nkind = \"{kind}\"\nvalue = \"{value}\"\n\
             applies_to = [\"data\"]\ncycles = 2\norigin = \"welcome\""
        )
    };
    let tariff_of = |kind: &str, value: &str| tariff(&text(kind, value));
    let cost = |tariff: &Tariff, quantity: &str, cycle_index: u32| {
        let measure = Measure { cycle_index, ..Measure::whole(exact(quantity), 0) };
        price(tariff, &tariff.charges[0], &measure).expect("in range")
    };
    let half = tariff_of("percent", "50");
    let amounts: Vec<String> = (0..4).map(|index| cost(&half, "10", index).amount.to_string()).collect();
    assert_eq!(amounts, ["5", "5", "10", "10"]);
    let step = &cost(&half, "10", 0).adjustments[0];
    assert_eq!(
        (step.kind, step.amount, step.origin.as_deref()),
        (AdjustmentKind::Discount, exact("-5"), Some("welcome"))
    );
    let three = tariff_of("amount", "3");
    assert_eq!(cost(&three, "10", 0).amount, exact("7"));
    assert_eq!(cost(&three, "2", 0).amount, Exact::ZERO);
    assert_eq!(cost(&three, "0", 0).adjustments, []);
}

#[test]
fn percentage_is_of_the_quantity_and_per_event() {
    let tariff = tariff("model = \"percentage\"\nrate = \"1.5\"\nfixed_amount = \"0.10\"");
    assert_eq!(priced(&tariff, exact("200"), 7).amount, exact("3.7"));
}

#[test]
fn largest_count_of_octets_is_priced_exactly() {
    let octets = Exact::ratio(i128::from(i64::MAX), 1_000_000_000).expect("a ratio");
    let tariff = tariff("model = \"standard\"\nunit_amount = \"0.123456789\"");
    assert_eq!(priced(&tariff, octets, 0).amount.to_string(), "1138687895.422480280447103723");
}

proptest! {
    #![proptest_config(crate::vocabulary::cases(1_000))]

    #[test]
    fn tiers_and_adjustments_add_up_to_the_amount(octets in 0i64..i64::MAX, share in 1i128..31) {
        let keys = format!(
            "model = \"graduated\"\n{TIERS}\nallowance = {{ amount = \"10\", prorate = true }}\nproration = \"tiers\"\n\
             maximum = \"1000\"\nminimum = \"3\""
        );
        let tariff = tariff(&keys);
        let measure = Measure {
            quantity: Exact::ratio(i128::from(octets), 1_000_000_000).expect("a ratio"),
            apart: Exact::ZERO,
            events: 0,
            granted: None,
            share: Exact::ratio(share, 31).expect("a ratio"),
            cycle_index: 0,
        };
        let priced = price(&tariff, &tariff.charges[0], &measure).expect("in range");
        let tiers = priced.tiers.iter().map(|tier| tier.amount);
        let steps = tiers.chain(priced.adjustments.iter().map(|step| step.amount));
        let sum = steps.fold(Exact::ZERO, |sum, part| sum.checked_add(part).expect("in range"));
        prop_assert_eq!(sum, priced.amount);
        let beyond: Exact = priced.tiers.iter().fold(Exact::ZERO, |sum, tier| sum.checked_add(tier.quantity).expect("in range"));
        prop_assert_eq!(beyond.checked_add(priced.allowance_used).expect("in range"), priced.quantity);
    }

    #[test]
    fn more_use_never_costs_less_when_graduated(a in 0i64..4_000_000_000_000, b in 0i64..4_000_000_000_000) {
        let tariff = tariff(&format!("model = \"graduated\"\n{TIERS}"));
        let cost = |octets: i64| priced(&tariff, Exact::ratio(i128::from(octets), 1_000_000_000).expect("a ratio"), 0).amount;
        prop_assert!(cost(a.min(b)) <= cost(a.max(b)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]
    /// Whole numbers and fractions are two ways to one price, at and around every bound too.
    #[test]
    fn ladder_gives_what_fractions_give(
        steps in prop::collection::vec((1u64..200_000, 0u32..4), 0..5),
        prices in prop::collection::vec((0u64..100_000, 0u32..6, 0u64..500), 5),
        unit in prop_oneof![Just("GB"), Just("GiB"), Just("MB"), Just("octet")],
        counted in prop_oneof![0u64..5_000_000_000_000, 0u64..100_000, any::<u32>().prop_map(u64::from)],
        (at_bound, beside) in (0usize..6, -1i128..2),
    ) {
        let decimal = |digits: u64, places: u32| {
            Exact::ratio(i128::from(digits), 10i128.pow(places)).expect("a decimal")
        };
        let mut tiers = Vec::new();
        let (mut bounds, mut bound) = (Vec::new(), Exact::ZERO);
        for (index, (digits, places, flat)) in prices.iter().enumerate().take(steps.len() + 1) {
            let up_to = match steps.get(index) {
                Some((more, fine)) => {
                    bound = bound.checked_add(decimal(*more, *fine)).expect("in range");
                    bounds.push(bound);
                    format!("up_to = \"{bound}\", ")
                }
                None => String::new(),
            };
            let flat = decimal(*flat, 2);
            tiers.push(format!("{{ {up_to}unit_amount = \"{}\", flat_amount = \"{flat}\" }}", decimal(*digits, *places)));
        }
        let text = format!(
            "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"data\"\n\
             type = \"usage\"\nmeter = \"octets\"\ndirection = \"sum\"\nunit = \"{unit}\"\nmodel = \"graduated\"\n\
             tiers = [{}]\n",
            tiers.join(", ")
        );
        let tariff = Tariff::read("t.toml", &text).expect("a sound tariff of the test");
        let ChargeKind::Usage(usage) = &tariff.charges[0].kind else { unreachable!("the test's charge is usage") };
        let size = i128::from(usage.unit_size());
        let counted = match bounds.get(at_bound) {
            Some(bound) => (bound.checked_mul(Exact::from_int(size)).expect("in range").floor() + beside).max(0),
            None => i128::from(counted),
        };
        let quantity = Exact::ratio(counted, size).expect("a quantity");
        let fractions = tiers_of(&usage.model, quantity, Exact::ONE, 0).expect("in range");
        let whole = laddered(&usage.model, quantity, Exact::ONE);
        prop_assert!(whole.is_some() || counted == 0, "the usual case takes whole numbers");
        if let Some(whole) = whole {
            prop_assert_eq!(whole, fractions);
        }
        // What whole numbers cannot hold is left to fractions.
        let odd = Exact::ratio(counted * 7 + 1, size * 7).expect("a quantity");
        prop_assert!(laddered(&usage.model, odd, Exact::ONE).is_none());
    }
}
