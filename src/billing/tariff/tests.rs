//! Tariffs as files: what is read, what is refused and where.

use super::*;

const FULL: &str = include_str!("full.toml");

fn faults(text: &str) -> Vec<String> {
    let faults = Tariff::read("t.toml", text).expect_err("a tariff with faults");
    faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect()
}

/// A sound tariff whose usage charge is made of `keys`.
fn usage(keys: &str) -> String {
    format!(
        "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"data\"\n\
         type = \"usage\"\nmeter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\n{keys}\n"
    )
}

#[test]
fn every_key_of_the_contract_that_can_be_rated_is_read() {
    let tariff = Tariff::read("full.toml", FULL).expect("a sound tariff");
    assert_eq!((tariff.id.as_str(), tariff.version, tariff.currency.as_str()), ("res-100", 1, "USD"));
    assert_eq!(tariff.charges.len(), 3);
    assert_eq!(tariff.discounts[0].cycles, Some(12));
    assert_eq!(tariff.taxes[0].id, "city");
    assert_eq!(tariff.thresholds.len(), 2);
    assert_eq!(tariff.digest.len(), 64);
}

#[test]
fn canonical_text_is_read_back_as_the_same_tariff() {
    let tariff = Tariff::read("full.toml", FULL).expect("a sound tariff");
    assert_eq!(Tariff::read("stored", &tariff.document).expect("its own text"), tariff);
}

#[test]
fn digest_ignores_comments_and_order_but_no_value() {
    let tariff = Tariff::read("a", &usage("model = \"standard\"\nunit_amount = \"0.05\"")).expect("sound");
    let same = Tariff::read("b", &usage("unit_amount = \"0.05\" # five cents\nmodel = \"standard\"")).expect("sound");
    let other = Tariff::read("c", &usage("model = \"standard\"\nunit_amount = \"0.06\"")).expect("sound");
    assert_eq!(tariff.digest, same.digest);
    assert_ne!(tariff.digest, other.digest);
}

#[test]
fn faults_are_all_named_with_their_place() {
    let found = faults(
        "id = \"a b\"\nversion = 0\ncurrency = \"usd\"\neffective_from = \"soon\"\nspeed = 1\n[[charge]]\nid = \"x\"\n\
         type = \"recurring\"\namount = \"-1\"\ntiming = \"later\"\n",
    );
    let places: Vec<&str> = found.iter().filter_map(|fault| fault.split(' ').next()).collect();
    assert_eq!(
        places,
        ["t.toml:1:6", "t.toml:2:11", "t.toml:3:12", "t.toml:4:18", "t.toml:9:10", "t.toml:10:10", "t.toml:5:1"]
    );
}

#[test]
fn what_cannot_be_rated_is_refused_with_a_reason() {
    let standard = "model = \"standard\"\nunit_amount = \"1\"\n";
    for (keys, word) in [
        ("allowance = { amount = \"1\", pool = \"street\" }", "parent"),
        (
            "windows = [{ id = \"n\", days = \"mon-sun\", from = \"01:05\", to = \"07:00\", weight = \"0\" }]",
            "quarter hour",
        ),
        (
            "windows = [{ id = \"n\", days = \"mon-sun\", from = \"01:00\", to = \"01:00\", weight = \"0\" }]",
            "longer than",
        ),
        ("windows = [{ id = \"n\", days = \"mon-sun\", from = \"01:00\", to = \"07:00\" }]", "weight"),
        ("classes = { a = { weight = \"1\", unit_amount = \"1\" } }", "either"),
        ("classes = { a = { weight = \"0.00001\" } }", "weight"),
    ] {
        let found = faults(&usage(&format!("{standard}{keys}")));
        assert!(found.len() == 1 && found[0].contains(word), "{keys}: {found:?}");
    }
    let prepaid = faults(&usage(&format!("{standard}prepaid = true")));
    assert!(prepaid.len() == 2 && prepaid.iter().all(|fault| fault.contains("prepaid")), "{prepaid:?}");
    let peak = usage(standard).replace("\"octets\"", "\"peak_bps_95\"");
    assert!(faults(&peak)[0].contains("peak_bps_95"));
}

#[test]
fn tiers_must_rise_and_end_open() {
    for (tiers, word) in [
        ("[]", "1 to"),
        ("[{ unit_amount = \"1\" }, { unit_amount = \"2\" }]", "only the last tier"),
        ("[{ up_to = \"5\", unit_amount = \"1\" }]", "last tier has no"),
        (
            "[{ up_to = \"5\", unit_amount = \"1\" }, { up_to = \"5\", unit_amount = \"2\" }, { unit_amount = \"3\" }]",
            "rise",
        ),
    ] {
        let found = faults(&usage(&format!("model = \"graduated\"\ntiers = {tiers}")));
        assert!(found[0].contains(word), "{tiers}: {found:?}");
    }
}

#[test]
fn keys_of_another_model_are_refused() {
    let found = faults(&usage("model = \"standard\"\nunit_amount = \"1\"\npackage_size = \"5\""));
    assert!(found[0].contains("does not belong to model standard"), "{found:?}");
}

#[test]
fn units_must_measure_the_meter() {
    let text = usage("model = \"standard\"\nunit_amount = \"1\"").replace("\"GB\"", "\"min\"");
    assert!(faults(&text)[0].contains("no unit of octets"));
}

#[test]
fn prices_that_exact_arithmetic_cannot_hold_are_refused() {
    let found = faults(&usage("model = \"standard\"\nunit_amount = \"99999.123456789012\""));
    assert!(found[0].contains("too many digits"), "{found:?}");
    assert!(Tariff::read("t", &usage("model = \"standard\"\nunit_amount = \"0.000000123456\"")).is_ok());
}

#[test]
fn unit_amount_as_a_float_is_refused() {
    assert!(faults(&usage("model = \"standard\"\nunit_amount = 0.05"))[0].contains("decimals as strings"));
}

#[test]
fn prepaid_charge_stops_at_its_end_and_top_ups_are_read() {
    let head = "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"data\"\n\
                type = \"usage\"\nmeter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\nprepaid = true\n";
    let actions = |more: &str| -> Vec<ThresholdAction> {
        let tariff = Tariff::read("t.toml", &format!("{head}{more}")).expect("a sound tariff");
        tariff.thresholds.into_iter().flat_map(|threshold| threshold.actions).collect()
    };
    assert_eq!(actions(""), [ThresholdAction::Disconnect]);
    let slow = "[[threshold]]\nat = \"100%\"\nmeter = \"data\"\ndo = [\"throttle:slow\"]\n";
    assert_eq!(actions(slow), [ThresholdAction::Throttle("slow".to_owned())]);
    let top_up = |keys: &str| Tariff::read("t.toml", &format!("{head}[[top_up]]\nid = \"boost\"\n{keys}\n"));
    let read = top_up("charge = \"data\"\namount = \"50\"\nprice = \"9.99\"\nvalid = \"30d\"").expect("sound");
    let boost = &read.top_ups[0];
    assert_eq!((boost.amount, boost.valid), (Exact::from_int(50), Validity::Days(30)));
    for (keys, place, word) in [
        ("charge = \"voice\"\namount = \"50\"", "t.toml:14:10", "there is no usage charge `voice`"),
        ("charge = \"data\"\namount = \"0.0000000001\"", "t.toml:15:10", "a whole number"),
        ("charge = \"data\"\namount = \"1\"\nvalid = \"for ever\"", "t.toml:16:9", "none of"),
        ("charge = \"data\"\namount = \"1\"\nprice = \"0\"", "t.toml:16:9", "above zero"),
        ("charge = \"data\"", "t.toml:12:1", "`amount`"),
    ] {
        let faults = top_up(keys).expect_err("a fault");
        let text: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
        assert!(text.iter().any(|text| text.starts_with(place) && text.contains(word)), "{keys}: {text:?}");
    }
}
