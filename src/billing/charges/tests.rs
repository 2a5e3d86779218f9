//! What is wrong with a posted charge, and what it costs.

use serde_json::json;

use super::*;

fn posting(more: &str) -> Posting {
    let mut text: serde_json::Value = serde_json::from_str(r#"{"type": "one_off", "amount": "1"}"#).expect("JSON");
    let more: serde_json::Value = serde_json::from_str(more).expect("JSON of the test");
    for (key, value) in more.as_object().expect("an object") {
        text[key] = value.clone();
    }
    serde_json::from_value(text).expect("a posting of the test")
}

fn places(more: &str) -> Vec<String> {
    posting(more).faults().into_iter().map(|fault| fault.pointer).collect()
}

#[test]
fn amounts_and_pieces_have_their_limits() {
    for sound in [
        r#"{}"#,
        r#"{"amount": "0.000000000001"}"#,
        r#"{"amount": "1000000000"}"#,
        r#"{"quantity": 1000000}"#,
        r#"{"amount": null, "tariff": "t", "charge": "setup"}"#,
    ] {
        assert_eq!(places(sound), Vec::<String>::new(), "{sound}");
    }
    for (wrong, place) in [
        (r#"{"amount": "0"}"#, "/amount"),
        (r#"{"amount": "-1"}"#, "/amount"),
        (r#"{"amount": "1000000000.01"}"#, "/amount"),
        (r#"{"amount": "0.0000000000001"}"#, "/amount"),
        (r#"{"amount": "x"}"#, "/amount"),
        (r#"{"amount": null}"#, "/amount"),
        (r#"{"quantity": 0}"#, "/quantity"),
        (r#"{"quantity": 1000001}"#, "/quantity"),
        (r#"{"charge": "setup"}"#, "/charge"),
    ] {
        assert_eq!(places(wrong), [place], "{wrong}");
    }
}

#[test]
fn texts_are_printable_and_not_too_long() {
    for (key, most) in [("id", 64), ("description", 256), ("tax_category", 64), ("tax_jurisdiction", 64)] {
        let with = |text: &str| places(&format!("{{\"{key}\": \"{text}\"}}"));
        assert_eq!(with(&"ä".repeat(most)), Vec::<String>::new(), "characters, not octets");
        for wrong in ["", "a\\u0007b", &"x".repeat(most + 1)] {
            assert_eq!(with(wrong), [format!("/{key}")]);
        }
    }
}

fn base() -> Tariff {
    Tariff::read(
        "t.toml",
        "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"setup\"\n\
         type = \"one_off\"\namount = \"25\"\ntax_category = \"work\"\njurisdiction = \"TX\"\n[[charge]]\nid = \"other\"\n\
         type = \"recurring\"\namount = \"5\"\n[[discount]]\nkind = \"percent\"\nvalue = \"10\"\n[[tax]]\nid = \"all\"\n\
         rate = \"10\"\n[[tax]]\nid = \"work\"\nrate = \"5\"\napplies_to = [\"setup\"]\n[[tax]]\nid = \"rent\"\nrate = \"1\"\n\
         applies_to = [\"other\"]\n",
    )
    .expect("a sound tariff")
}

fn made(more: &str, base: Option<&Tariff>) -> Result<Tariff, String> {
    let on = "2026-11-02".parse().expect("a date");
    tariff_of("ch_1", &posting(more), on, base, "USD".parse().expect("USD"))
}

fn amount(tariff: &Tariff) -> String {
    match &tariff.charges[0].kind {
        ChargeKind::OneOff { amount } => format!("one_off {amount}"),
        ChargeKind::Deposit { amount } => format!("deposit {amount}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn credits_and_returned_deposits_are_taken_off() {
    for (kind, expected) in [
        ("one_off", "one_off 7.5"),
        ("credit", "one_off -7.5"),
        ("deposit", "deposit 7.5"),
        ("deposit_return", "deposit -7.5"),
    ] {
        let tariff = made(&format!(r#"{{"type": "{kind}", "amount": "7.5"}}"#), None).expect("a tariff");
        assert_eq!(amount(&tariff), expected);
        assert_eq!((tariff.id.as_str(), tariff.charges[0].id.as_str(), tariff.taxes.len()), (POSTED, "ch_1", 0));
    }
    assert!(PostingKind::DepositReturn.is_deposit() && !PostingKind::Credit.is_deposit());
}

#[test]
fn named_charge_gives_its_amount_its_tags_and_its_taxes() {
    let base = base();
    let named = made(r#"{"amount": null, "tariff": "t", "charge": "setup"}"#, Some(&base)).expect("a tariff");
    assert_eq!(amount(&named), "one_off 25");
    assert_eq!(named.taxes.iter().map(|tax| tax.id.as_str()).collect::<Vec<_>>(), ["all", "work"]);
    assert!(named.taxes.iter().all(|tax| tax.applies_to.is_none()), "the charge has another name here");
    assert_eq!((named.discounts.len(), named.charges.len(), named.digest == base.digest), (0, 1, true));
    assert_eq!(named.charges[0].tags.category.as_deref(), Some("work"));
    let own =
        made(r#"{"tariff": "t", "charge": "setup", "tax_category": "gift", "tax_jurisdiction": "NM"}"#, Some(&base));
    let tags = own.expect("a tariff").charges.remove(0).tags;
    assert_eq!((tags.category.as_deref(), tags.jurisdiction.as_deref()), (Some("gift"), Some("NM")));
    let unnamed = made(r#"{"tariff": "t"}"#, Some(&base)).expect("a tariff");
    assert_eq!(unnamed.taxes.iter().map(|tax| tax.id.as_str()).collect::<Vec<_>>(), ["all"]);
    assert!(
        made(r#"{"amount": null, "tariff": "t", "charge": "other"}"#, Some(&base)).is_err(),
        "it is no one-off charge"
    );
    assert!(made(r#"{"amount": null}"#, None).is_err());
}

#[test]
fn posted_charge_is_due_on_its_own_day() {
    let cycle = crate::billing::run::tests::context("2026-10-15").cycle;
    let on = "2026-11-02".parse().expect("a date");
    let posting = posting(r#"{"service": "s1", "quantity": 3, "tax_jurisdiction": "TX"}"#);
    let usd = "USD".parse().expect("USD");
    let posted = PostedCharge::of("ch_1", &posting, on, None, usd, Timestamp::UNIX_EPOCH).expect("a charge");
    let facts = posted.facts();
    assert_eq!((facts.id.as_str(), facts.addon.as_deref(), facts.times), ("s1", Some("charge ch_1"), 3));
    assert_eq!(facts.tax_jurisdiction.as_deref(), Some("TX"));
    let (period, (from, until)) = posted.due(&cycle).expect("in range");
    assert_eq!(cycle.name(&period), "2026-10-15");
    assert_eq!(
        (from.to_string().as_str(), until.to_string().as_str()),
        ("2026-11-02T06:00:00Z", "2026-11-03T06:00:00Z")
    );
}

#[test]
fn whole_document_is_read_as_it_is_stored() {
    let document = json!({
        "type": "deposit_return", "id": "b-7", "service": "1", "description": "Modem", "amount": "12.50",
        "quantity": 2, "on": "2026-11-03", "tariff": "res", "charge": "modem", "tax_category": "goods",
        "tax_jurisdiction": "US-TX",
    });
    let (posting, faults) = Posting::read(&document);
    assert_eq!(faults, []);
    assert_eq!(serde_json::to_value(&posting).expect("JSON"), document);
    for kind in KINDS {
        let mut document = json!({"type": kind.0, "amount": "1"});
        if kind.1 == PostingKind::TopUp {
            document["top_up"] = json!("10-gb");
        }
        let (read, faults) = Posting::read(&document);
        assert_eq!((read.kind, faults), (kind.1, Vec::new()));
        assert_eq!(serde_json::to_value(read.kind).expect("JSON"), json!(kind.0));
    }
}

#[test]
fn every_fault_is_named_by_its_pointer() {
    let document = json!({
        "type": "gift", "amount": 5, "quantity": "two", "on": "2026-02-30", "charge": "modem", "id": "",
        "service": ["1"], "colour": "red",
    });
    let faults = Posting::read(&document).1;
    let mut pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        ["/amount", "/charge", "/colour", "/id", "/on", "/quantity", "/service", "/type"],
        "{faults:#?}"
    );
    for (document, pointer) in
        [(json!([]), ""), (json!({"type": "credit"}), "/amount"), (json!({"amount": "1"}), "/type")]
    {
        let faults = Posting::read(&document).1;
        assert_eq!((faults.len(), faults[0].pointer.as_str()), (1, pointer), "{faults:#?}");
    }
}
