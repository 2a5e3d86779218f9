//! Where each limit of a tariff lies: the last value that is taken and the first that is refused, with its reason.

use super::*;

fn with(charges: &str) -> String {
    format!("id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n{charges}\n")
}

fn recurring(keys: &str) -> String {
    with(&format!("[[charge]]\nid = \"access\"\ntype = \"recurring\"\namount = \"1\"\n{keys}"))
}

fn usage(keys: &str) -> String {
    with(&format!(
        "[[charge]]\nid = \"data\"\ntype = \"usage\"\nmeter = \"octets\"\ndirection = \"sum\"\nunit = \"GB\"\n{keys}"
    ))
}

fn standard(keys: &str) -> String {
    usage(&format!("model = \"standard\"\nunit_amount = \"1\"\n{keys}"))
}

/// Another key at the tariff's own level.
fn headed(head: &str) -> String {
    recurring("").replace("[[charge]]", &format!("{head}\n[[charge]]"))
}

fn read(text: &str) -> Tariff {
    Tariff::read("t.toml", text).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
}

fn taken(texts: &[String]) {
    texts.iter().for_each(|text| drop(read(text)));
}

/// Each is refused for one reason alone, which holds the word.
fn refused(cases: &[(String, &str)]) {
    for (text, word) in cases {
        let Err(faults) = Tariff::read("t.toml", text) else { panic!("it is taken: {text}") };
        assert!(faults.iter().any(|fault| fault.detail.contains(word)), "{word}: {faults:?}\n{text}");
    }
}

fn only_usage(text: &str) -> Usage {
    match &read(text).charges[0].kind {
        ChargeKind::Usage(usage) => (**usage).clone(),
        other => panic!("{other:?}"),
    }
}

fn exact(text: &str) -> Exact {
    text.parse().expect("a decimal")
}

#[test]
fn decimals_have_their_places_and_their_most() {
    let priced = |amount: &str| recurring("").replace("amount = \"1\"", &format!("amount = \"{amount}\""));
    taken(&[priced("0"), priced("0.000000000001"), priced("1000000000000")]);
    let wrong = "must be from 0 to 1000000000000 with at most 12 decimal places";
    refused(&[
        (priced("-0.01"), wrong),
        (priced("0.0000000000001"), wrong),
        (priced("1000000000000.01"), wrong),
        (standard("block = { size = \"0\" }"), "above zero"),
    ]);
}

#[test]
fn a_fixed_amount_that_could_leave_128_bits_is_refused() {
    let once = |kind: &str, amount: &str| {
        with(&format!("[[charge]]\nid = \"once\"\ntype = \"{kind}\"\namount = \"{amount}\""))
    };
    taken(&[once("one_off", "1000000000000"), once("deposit", "99999.99")]);
    let long = "999999999999.123456789123";
    refused(&[
        (once("one_off", long), "too many digits"),
        (once("deposit", long), "too many digits"),
        (recurring("").replace("\"1\"", "\"99999.123456789123\""), "too many digits"),
    ]);
}

#[test]
fn every_factor_of_a_price_counts_for_its_digits() {
    // Sound alone, too long together: weights, bounds, allowances, limits and discounts are factors, each one.
    let price = "model = \"standard\"\nunit_amount = \"1.23456789\"\n";
    let night = "windows = [{ id = \"n\", days = \"mon\", from = \"01:00\", to = \"02:00\", weight = \"0.0001\" }]";
    let voice = "classes = { v = { unit_amount = \"99999.123456789012\" } }";
    taken(&[usage(price), usage(&format!("{price}{}", night.replace("0.0001", "0.5")))]);
    let discount = "[[discount]]\nkind = \"amount\"\nvalue = \"0.000000000001\"\napplies_to = [\"data\"]";
    let percent = "[[discount]]\nkind = \"percent\"\nvalue = \"0.000000000001\"\napplies_to = [\"data\"]";
    let long = "too many digits";
    refused(&[
        (usage(&format!("model = \"standard\"\nunit_amount = \"1.23456789012\"\n{night}")), long),
        (standard(voice), long),
        (usage(&format!("{price}allowance = {{ amount = \"1.000000000001\" }}")), long),
        (usage(&format!("{price}allowance = {{ amount = \"1\", rollover = {{ max = \"1.000000000001\" }} }}")), long),
        (usage(&format!("{price}block = {{ size = \"0.000000000001\" }}")), long),
        (usage(&format!("{price}quantize = {{ to = \"0.000000000001 GB\" }}")), long),
        (usage(&format!("{price}maximum = \"1.000000000001\"")), long),
        (usage(&format!("{price}minimum = \"1.000000000001\"")), long),
        (usage(&format!("{price}{discount}")), long),
        (usage(&format!("{price}{percent}")), long),
        (usage("model = \"percentage\"\nrate = \"999.123456789012\""), long),
        (usage("model = \"package\"\npackage_size = \"0.000000000001\"\npackage_amount = \"1.23456789\""), long),
        (
            usage(
                "model = \"graduated\"\ntiers = [{ up_to = \"1.000000000001\", unit_amount = \"1.23456789\" }, \
                 { unit_amount = \"1\" }]",
            ),
            long,
        ),
        (usage("model = \"graduated\"\ntiers = [{ unit_amount = \"1\", flat_amount = \"99999.123456789012\" }]"), long),
    ]);
}

#[test]
fn windows_lie_within_a_day_by_quarter_hours() {
    let window = |from: &str, to: &str| {
        standard(&format!(
            "windows = [{{ id = \"n\", days = \"mon-sun\", from = \"{from}\", to = \"{to}\", weight = \"0\" }}]"
        ))
    };
    taken(&[window("00:00", "24:00"), window("23:45", "00:00"), window("22:00", "06:00")]);
    assert_eq!(only_usage(&window("23:45", "00:00")).windows[0].until, 24 * 60);
    let hour = "no quarter hour";
    refused(&[
        (window("01:60", "03:00"), hour),
        (window("01:00", "24:15"), hour),
        (window("01:10", "03:00"), hour),
        (window("1:00", "03:00"), hour),
        (window("+1:00", "03:00"), hour),
        (window("25:00", "03:00"), hour),
        (window("24:00", "03:00"), "before 24:00"),
    ]);
}

#[test]
fn weights_and_their_number_have_a_most() {
    let weighing = |weight: &str| {
        standard(&format!(
            "windows = [{{ id = \"n\", days = \"mon\", from = \"01:00\", to = \"02:00\", weight = \"{weight}\" }}]"
        ))
    };
    taken(&[weighing("100"), weighing("0.0001")]);
    refused(&[(weighing("100.0001"), "at most 100"), (weighing("0.00001"), "at most 4 decimal places")]);
    let windows = |number: usize| {
        let one =
            |n: usize| format!("{{ id = \"w{n}\", days = \"mon\", from = \"01:00\", to = \"02:00\", weight = \"1\" }}");
        standard(&format!("windows = [{}]", (0..number).map(one).collect::<Vec<_>>().join(", ")))
    };
    let classes = |number: usize| {
        standard(&format!(
            "classes = {{ {} }}",
            (0..number).map(|n| format!("c{n} = \"1\"")).collect::<Vec<_>>().join(", ")
        ))
    };
    taken(&[windows(50), classes(50)]);
    refused(&[(windows(51), "at most 50 windows"), (classes(51), "at most 50 classes")]);
    let twice = windows(2).replace("\"w1\"", "\"w0\"");
    refused(&[(twice, "window `w0` is there twice")]);
}

#[test]
fn a_class_of_octets_alone_has_a_direction() {
    let class = |direction: &str| {
        standard(&format!("classes = {{ v = {{ unit_amount = \"1\", direction = \"{direction}\" }} }}"))
    };
    let of_octets = only_usage(&class("down"));
    assert_eq!(of_octets.classes["v"].direction, Some(Direction::Down));
    let seconds = |keys: &str| {
        class("down")
            .replace("\"octets\"", "\"seconds\"")
            .replace("\"GB\"", "\"min\"")
            .replace("direction = \"sum\"\n", keys)
    };
    refused(&[(seconds(""), "only octets have a direction")]);
    taken(&[seconds("").replace(", direction = \"down\"", "")]);
}

#[test]
fn directions_belong_to_octets_and_must_be_said() {
    let metered = |meter: &str, unit: &str, direction: &str| {
        with(&format!(
            "[[charge]]\nid = \"data\"\ntype = \"usage\"\nmeter = \"{meter}\"\n{unit}{direction}model = \"standard\"\n\
             unit_amount = \"1\""
        ))
    };
    let (gigabytes, minutes, sum) = ("unit = \"GB\"\n", "unit = \"min\"\n", "direction = \"sum\"\n");
    taken(&[metered("octets", gigabytes, sum), metered("seconds", minutes, ""), metered("sessions", "", "")]);
    taken(&[metered("peak_bps_95", "unit = \"Mbps\"\n", sum)]);
    refused(&[
        (metered("octets", gigabytes, ""), "`direction` is missing"),
        (metered("seconds", minutes, sum), "have no direction"),
        (metered("octets", "", sum), "`unit` is missing"),
        (metered("sessions", gigabytes, ""), "no unit of sessions"),
        (metered("peak_bps_95", gigabytes, sum), "no unit of"),
    ]);
    assert_eq!(only_usage(&metered("sessions", "", "")).unit, Unit::Session);
}

#[test]
fn what_does_not_go_with_a_meter_or_a_model_is_refused() {
    let calls = |keys: &str| {
        with(&format!(
            "[[charge]]\nid = \"calls\"\ntype = \"usage\"\nmeter = \"calls\"\nunit = \"min\"\n\
             rates = [{{ prefix = \"+1\", unit_amount = \"1\" }}]\n{keys}"
        ))
    };
    taken(&[calls(""), calls("minimum = \"1\"\nmaximum = \"2\"")]);
    for keys in [
        "model = \"standard\"",
        "allowance = { amount = \"1\" }",
        "block = { size = \"1\" }",
        "proration = \"tiers\"",
        "quantize = { to = \"1 min\" }",
        "classes = { a = \"1\" }",
    ] {
        refused(&[(calls(keys), "does not go with calls")]);
    }
    refused(&[(standard("increments = \"60/60\""), "does not go with anything but calls")]);
    let peak = |keys: &str| standard(keys).replace("\"octets\"", "\"peak_bps_95\"").replace("\"GB\"", "\"Mbps\"");
    taken(&[peak(""), peak("quantize = { to = \"1 Mbps\" }")]);
    refused(&[
        (peak("classes = { a = \"1\" }"), "does not go with a peak rate"),
        (peak("quantize = { to = \"1 Mbps\", level = \"day\" }"), "at level cycle"),
        (peak("quantize = { to = \"1 GB\" }"), "cannot be counted in"),
    ]);
    let package = "model = \"package\"\npackage_size = \"1\"\npackage_amount = \"1\"\n";
    refused(&[
        (usage(&format!("{package}block = {{ size = \"1\" }}")), "`block` goes with"),
        (usage(&format!("{package}unit_amount = \"1\"")), "does not belong to model package"),
        (standard("charge_flat_at_zero = true"), "does not belong to model standard"),
        (standard("minimum = \"2\"\nmaximum = \"1.99\""), "`minimum` is above `maximum`"),
    ]);
    taken(&[standard("minimum = \"2\"\nmaximum = \"2\""), usage(&format!("{package}free_units = \"3\""))]);
}

#[test]
fn steps_and_carried_allowances_have_their_limits() {
    let to = |to: &str| standard(&format!("quantize = {{ to = \"{to}\" }}"));
    taken(&[to("1 MB"), to("0.5 GiB")]);
    refused(&[
        (to("0 MB"), "above zero"),
        (to("1 min"), "cannot be counted"),
        (to("0.0000000000001 GB"), "decimal places"),
    ]);
    let cycles = |cycles: u32| {
        standard(&format!("allowance = {{ amount = \"1\", rollover = {{ max = \"1\", expires_cycles = {cycles} }} }}"))
    };
    taken(&[cycles(1), cycles(120)]);
    refused(&[(cycles(0), "1"), (cycles(121), "120")]);
    let quantized = only_usage(&to("500 MB"));
    assert_eq!(quantized.quantize.map(|step| (step.step, step.mode)), Some((exact("0.5"), Rounding::Up)));
    let free = only_usage(&standard("minimum = \"0\"\nmaximum = \"0\""));
    assert_eq!((free.minimum, free.maximum), (None, Some(Exact::ZERO)), "no minimum is none; nothing is the most");
}

#[test]
fn tiers_are_at_most_a_hundred_and_may_have_a_flat_amount_alone() {
    let tiers = |number: usize| {
        let one = |n: usize| match n + 1 == number {
            true => "{ unit_amount = \"1\" }".to_owned(),
            false => format!("{{ up_to = \"{}\", unit_amount = \"1\" }}", n + 1),
        };
        usage(&format!("model = \"volume\"\ntiers = [{}]", (0..number).map(one).collect::<Vec<_>>().join(", ")))
    };
    taken(&[tiers(1), tiers(100)]);
    refused(&[(tiers(0), "1 to 100"), (tiers(101), "1 to 100")]);
    let flat = usage("model = \"graduated\"\ntiers = [{ flat_amount = \"5\" }]");
    let Model::Graduated(tiers) = only_usage(&flat).model else { panic!("it is graduated") };
    assert_eq!((tiers.list[0].unit_amount, tiers.list[0].flat_amount), (Exact::ZERO, exact("5")));
    let rate = |keys: &str| usage(&format!("model = \"graduated_percentage\"\ntiers = [{{ {keys} }}]"));
    refused(&[(rate("flat_amount = \"5\""), "`rate` is missing")]);
    let Model::GraduatedPercentage(tiers) = only_usage(&rate("rate = \"5\"")).model else {
        panic!("it is a percentage")
    };
    assert_eq!(tiers.list[0].unit_amount, exact("0.05"));
}

#[test]
fn discounts_have_their_limits() {
    let discount = |keys: &str| recurring(&format!("[[discount]]\n{keys}"));
    let percent = |value: &str, keys: &str| discount(&format!("kind = \"percent\"\nvalue = \"{value}\"\n{keys}"));
    let amount = |keys: &str| {
        discount(&format!("kind = \"amount\"\nvalue = \"1\"\n{keys}"))
            .replace("[[discount]]", "[[charge]]\nid = \"b\"\ntype = \"one_off\"\namount = \"1\"\n[[discount]]")
    };
    taken(&[percent("100", ""), percent("1", "cycles = 1"), percent("1", "cycles = 9999")]);
    taken(&[percent("1", "trial_days = 1"), percent("1", "trial_days = 366"), amount("applies_to = [\"b\"]")]);
    refused(&[
        (percent("100.01", ""), "more than 100 percent"),
        (percent("1", "cycles = 0"), "1"),
        (percent("1", "cycles = 10000"), "9999"),
        (percent("1", "trial_days = 367"), "366"),
        (percent("1", "applies_to = []"), "no charge"),
        (percent("1", "applies_to = [\"x\"]"), "there is no charge `x`"),
        (amount(""), "exactly one charge"),
        (percent("1", "requires = []"), "1 to 16 tariffs"),
        (percent("1", &format!("requires = [{}]", vec!["\"a\""; 17].join(", "))), "1 to 16 tariffs"),
        (
            percent("1", "id = \"d\"") + "[[discount]]\nid = \"d\"\nkind = \"percent\"\nvalue = \"2\"\n",
            "is there twice",
        ),
    ]);
    taken(&[percent("1", &format!("requires = [{}]", vec!["\"a\""; 16].join(", ")))]);
    let named = |keys: &str| read(&percent("1", keys)).discounts.remove(0);
    assert_eq!(named("promo = \"SPRING\"").origin.as_deref(), Some("promotion SPRING"));
    assert_eq!(named("requires = [\"a\", \"b\"]").origin.as_deref(), Some("bundle with a, b"));
    assert_eq!(named("trial_days = 30").origin.as_deref(), Some("trial of 30 days"));
    assert_eq!((named("").origin, named("").id.as_str()), (None, "discount-1"));
    assert_eq!(named("origin = \"loyal\"\npromo = \"SPRING\"").origin.as_deref(), Some("loyal"));
    assert!(named("").condition.is_always() && !named("trial_days = 30").condition.is_always());
}

#[test]
fn taxes_have_their_limits() {
    let tax = |id: &str, keys: &str| format!("[[tax]]\nid = \"{id}\"\n{keys}\n");
    let one = |keys: &str| recurring(&tax("vat", keys));
    let many =
        |number: usize| recurring(&(0..number).map(|n| tax(&format!("t{n}"), "rate = \"1\"")).collect::<String>());
    taken(&[one("rate = \"1000\""), one("rate = \"0.000001\""), one("amount = \"1\""), many(8)]);
    refused(&[
        (one("rate = \"1000.01\""), "at most 1000 percent"),
        (one("rate = \"0.0000001\""), "6 decimal places"),
        (one("rate = \"1\"\namount = \"1\""), "not both"),
        (one("amount = \"1\"\ninclusive = true"), "neither inclusive nor compound"),
        (one("amount = \"1\"\ncompound = true"), "neither inclusive nor compound"),
        (one("rate = \"1\"\norder = 1000"), "999"),
        (one("rate = \"1\"\napplies_to = [\"x\"]"), "there is no charge `x`"),
        (many(9), "at most 8 taxes"),
        (recurring(&(tax("vat", "rate = \"1\"") + &tax("vat", "rate = \"2\""))), "tax `vat` is there twice"),
        (
            one("amount = \"1\"").replace("[[charge]]", "rounding = { tax_level = \"batch\" }\n[[charge]]"),
            "does not go with `tax_level",
        ),
    ]);
    let ordered = read(&recurring(&(tax("b", "rate = \"1\"\norder = 2") + &tax("a", "rate = \"2\"\norder = 1"))));
    assert_eq!(ordered.taxes.iter().map(|tax| tax.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let unsaid = read(&many(3));
    assert_eq!(unsaid.taxes.iter().map(|tax| tax.order).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn thresholds_measure_what_their_charge_meters() {
    let threshold = |allowance: &str, at: &str, action: &str| {
        standard(&format!("{allowance}\n[[threshold]]\nat = \"{at}\"\nmeter = \"data\"\ndo = [\"{action}\"]"))
    };
    let included = "allowance = { amount = \"1\" }";
    taken(&[
        threshold(included, "80%", "notify"),
        threshold("", "5 GB", "throttle:slow"),
        threshold("", "5 MB", "disconnect"),
    ]);
    refused(&[
        (threshold("", "80%", "notify"), "no allowance"),
        (threshold(included, "0%", "notify"), "no percentage above zero"),
        (threshold(included, "-1%", "notify"), "no percentage above zero"),
        (threshold("", "5 min", "notify"), "no unit of octets"),
        (threshold("", "0 GB", "notify"), "above zero"),
        (threshold("", "5 GB", "throttle:"), "is not one of"),
        (threshold("", "5 GB", "shout"), "is not one of"),
        (threshold("", "5 GB", "notify").replace("meter = \"data\"", "meter = \"x\""), "no usage charge `x`"),
    ]);
    let read = read(&threshold("", "500 MB", "notify"));
    assert_eq!(read.thresholds[0].at, ThresholdAt::Quantity(exact("0.5")));
}

#[test]
fn heads_of_tariffs_have_their_limits() {
    taken(&[
        headed("for = \"new\""),
        headed("for = \"renewing\"\nterm_months = 120"),
        headed("rounding = { line = \"half_even\", line_dp = 0 }"),
        headed("rounding = { line_dp = 2 }"),
        headed(&format!("jurisdiction = \"{}\"", "x".repeat(64))),
    ]);
    refused(&[
        (headed("for = \"renewing\"\nterm_months = 121"), "120"),
        (headed("for = \"renewing\"\nterm_months = 0"), "1"),
        (headed("for = \"new\"\nterm_months = 3"), "goes with"),
        (headed("rounding = { line_dp = 3 }"), "2"),
        (headed("jurisdiction = \"\""), "1 to 64 printable"),
        (headed("jurisdiction = \"a\\tb\""), "1 to 64 printable"),
        (headed(&format!("jurisdiction = \"{}\"", "x".repeat(65))), "1 to 64 printable"),
        (with(""), "at least one"),
        (recurring("per = \"line\"\nduring_hold = \"seasonal\""), "take `per` or"),
        (recurring("") + "[[charge]]\nid = \"access\"\ntype = \"one_off\"\namount = \"1\"\n", "is there twice"),
        (recurring("").replace("version = 1", "version = 0"), "1"),
        (recurring("").replace("version = 1", "version = 2147483648"), "2147483647"),
    ]);
    let audience = |head: &str| read(&headed(head)).audience;
    assert_eq!(audience("for = \"renewing\""), Audience::Renewing { term_months: 12 });
    assert_eq!(audience("for = \"renewing\"\nterm_months = 24"), Audience::Renewing { term_months: 24 });
    let tagged = read(&headed("jurisdiction = \"TX\""));
    assert_eq!(tagged.charges[0].tags.jurisdiction.as_deref(), Some("TX"), "a charge has its tariff's");
    let own = read(&headed("jurisdiction = \"TX\"").replace("amount = \"1\"", "amount = \"1\"\njurisdiction = \"NM\""));
    assert_eq!(own.charges[0].tags.jurisdiction.as_deref(), Some("NM"));
    let ids = |id: &str| recurring("").replace("\"access\"", &format!("\"{id}\""));
    taken(&[ids("A-z_0.9"), ids(&"x".repeat(64))]);
    refused(&[(ids(""), "an id has"), (ids(&"x".repeat(65)), "an id has"), (ids("a b"), "an id has")]);
}

#[test]
fn counts_have_their_limits() {
    let count = |keys: &str| {
        with(&format!(
            "[[charge]]\nid = \"c\"\ntype = \"count\"\ncount = \"services\"\nmodel = \"standard\"\nunit_amount = \"1\"\n{keys}"
        ))
    };
    taken(&[
        count("rule = \"any\""),
        count("rule = \"active_on\"\nday = 1"),
        count("rule = \"active_on\"\nday = 1900"),
        count("rule = \"peak\"\nblock = { size = \"10\" }\nminimum = \"1\"\nmaximum = \"1\""),
    ]);
    refused(&[
        (count("rule = \"active_on\""), "`day` is missing"),
        (count("rule = \"active_on\"\nday = 0"), "1"),
        (count("rule = \"active_on\"\nday = 1901"), "1900"),
        (count("rule = \"peak\"\nday = 1"), "`day` goes with"),
        (count("rule = \"any\"\nminimum = \"2\"\nmaximum = \"1\""), "above `maximum`"),
        (
            count("rule = \"any\"\nblock = { size = \"1\" }")
                .replace("model = \"standard\"\nunit_amount = \"1\"", "model = \"percentage\"\nrate = \"1\""),
            "`block` goes with",
        ),
    ]);
    let ChargeKind::Count(read) = read(&count("rule = \"any\"")).charges.remove(0).kind else { panic!("it counts") };
    assert_eq!((read.statuses, read.pricing.minimum), (vec![crate::account::Status::Active], None));
}

#[test]
fn rates_of_calls_have_their_limits() {
    let rates = |list: &str, keys: &str| {
        with(&format!(
            "[[charge]]\nid = \"calls\"\ntype = \"usage\"\nmeter = \"calls\"\nunit = \"min\"\nrates = [{list}]\n{keys}"
        ))
    };
    let one = |prefix: &str, more: &str| rates(&format!("{{ prefix = \"{prefix}\", unit_amount = \"1\"{more} }}"), "");
    taken(&[one("", ""), one("+1512", ""), one("*100#", ""), one(&"1".repeat(20), "")]);
    taken(&[one("+1", ", increments = \"0/1\""), one("+1", ", increments = \"86400/86400\"")]);
    refused(&[
        (rates("", ""), "1 to 20000 rates"),
        (one("1x", ""), "no beginning of a number"),
        (one(&"1".repeat(21), ""), "no beginning of a number"),
        (one("+1", ", increments = \"1/0\""), "no increments"),
        (one("+1", ", increments = \"86401/1\""), "no increments"),
        (one("+1", ", increments = \"1/86401\""), "no increments"),
        (one("+1", ", increments = \"60\""), "no increments"),
        (
            rates("{ prefix = \"1\", unit_amount = \"1\" }, { prefix = \"1\", unit_amount = \"2\" }", ""),
            "is there twice",
        ),
    ]);
    let increments = |text: &str| {
        let Model::Rates(rates) = only_usage(text).model else { panic!("it has rates") };
        let rate = *rates.by_prefix.values().next().expect("a rate");
        (rate.first_seconds, rate.then_seconds)
    };
    assert_eq!(increments(&one("+1", "")), (1, 1));
    let usual = rates("{ prefix = \"1\", unit_amount = \"1\" }", "increments = \"60/30\"");
    assert_eq!(increments(&usual), (60, 30));
    let own = rates("{ prefix = \"1\", unit_amount = \"1\", increments = \"6/6\" }", "increments = \"60/30\"");
    assert_eq!(increments(&own), (6, 6));
}
