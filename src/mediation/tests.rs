//! What the room does as a whole: every fixture through its profile, hostile input through every reader.

use std::io::Read;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::account::parse;
use crate::vocabulary::{AccountKey, SourceId, TenantId};

/// Compares with a golden file; `LASTMILE_GOLDEN=write` writes it anew for the reviewer to read.
fn golden(path: &PathBuf, text: &str) {
    if std::env::var("LASTMILE_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(path, text).expect("the golden file can be written");
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == text, "{} differs; now it is\n{text}", path.display());
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sources").join(name)
}

fn files(name: &str, without: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder(name)).expect("a folder of fixtures");
    let mut files: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.expect("a file").path())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .filter(|(name, _)| !name.ends_with(without))
        .collect();
    files.sort();
    files
}

fn profile(name: &str) -> Profile {
    Profile::named(name).unwrap_or_else(|| panic!("{name} is shipped"))
}

fn read(name: &str, text: &str) -> Profile {
    Profile::read(name, text).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// Everything there is to say of an input.
fn told(profile: &Profile, input: &[u8]) -> Value {
    let mut changes = profile.changes(input).with_inventory();
    let mut outcomes = Vec::new();
    for outcome in changes.by_ref() {
        outcomes.push(match outcome.result {
            Ok(Some(change)) => json!({ "line": outcome.line, "change": change.shown(false) }),
            Ok(None) => json!({ "line": outcome.line, "ignored": true }),
            Err(refusal) => json!({ "line": outcome.line, "refused": refusal.faults }),
        });
    }
    let inventory = changes.inventory().expect("asked for");
    let unmapped: Vec<&str> = inventory.unmapped().map(|(place, _)| place).collect();
    let words: Vec<String> = inventory.words().map(|(vocabulary, word, _)| format!("{vocabulary}: {word}")).collect();
    let summary = changes.summary();
    json!({
        "outcomes": outcomes,
        "unmapped": unmapped,
        "words": words,
        "completeness": format!("{:?}", summary.completeness),
    })
}

#[test]
fn every_fixture_becomes_what_its_golden_file_says() {
    let mut seen = std::collections::BTreeSet::new();
    for (name, path) in files("in", ".golden") {
        let source = name.split('.').next().expect("a name").to_owned();
        let input = std::fs::read(&path).expect("a fixture");
        let mut text = serde_json::to_string_pretty(&told(&profile(&source), &input)).expect("JSON");
        text.push('\n');
        golden(&path.with_file_name(format!("{name}.golden")), &text);
        seen.insert(source);
    }
    let shipped: std::collections::BTreeSet<String> = shipped_names().map(str::to_owned).collect();
    assert_eq!(seen, shipped, "every shipped profile has a fixture");
}

#[test]
fn every_file_of_a_source_is_what_its_golden_file_says() {
    let lines = std::fs::read_to_string(folder("lines.jsonl")).expect("lines");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let facts: Facts =
        vec![("batch".to_owned(), "b42".to_owned()), ("created_at".to_owned(), "2026-11-02T06:00:00Z".to_owned())];
    let mut written = 0;
    for name in shipped_names() {
        for (out, file) in &profile(name).outs {
            let mut octets = Vec::new();
            file.write(lines.clone(), &facts, &mut octets).unwrap_or_else(|fault| panic!("{name} {out}: {fault}"));
            let text = String::from_utf8(octets).expect("UTF-8");
            golden(&folder("out").join(format!("{name}.{}", file.file_name(&facts).expect("a name"))), &text);
            written += 1;
        }
    }
    assert_eq!(written, files("out", "~").len(), "no golden file is left over");
}

#[test]
fn all_profiles_are_sound_and_say_what_they_are() {
    for name in shipped_names() {
        let profile = profile(name);
        assert_eq!(profile.name, name);
        assert!(!profile.about.is_empty(), "{name}");
        let text = shipped(name).expect("shipped");
        for word in ["Public fact", "Assumption", "To adapt"] {
            assert!(text.to_lowercase().contains(&word.to_lowercase()), "{name} says its {word}");
        }
    }
}

const TINY: &str = "name = \"tiny\"\nformat = \"json\"\nmode = \"event\"\nscope = \"account\"\n[account]\nid = \"{id}\"\n\
    status = \"active\"\nbill_cycle = \"m\"\nname = \"{name}\"\n";

#[test]
fn every_fault_of_a_profile_is_told_with_its_place() {
    let text = TINY.replace("\"event\"", "\"events\"").replace("{name}", "{name|shout}").replace(
        "[account]",
        "colour = 1\n[vocab.x]\n\"*\" = \"y\"\n[account]\nname2 = \"\"\nphone = \"{p|vocab('z')}\"",
    );
    let faults = Profile::read("t.toml", &text).expect_err("faults");
    let told: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
    for words in [
        "t.toml:3:8 \"events\" is not one of",
        "t.toml:7:7 a vocabulary has no word for the unknown",
        "t.toml:10:9 at character 1 of the template: there is no [vocab.z]",
        "t.toml:14:8 at character 1 of the template: there is no function shout",
        "t.toml:5:1 unknown key `colour`",
        "unknown key `name2`",
    ] {
        assert!(told.iter().any(|told| told.contains(words)), "{words}: {told:#?}");
    }
    for (from, to, words) in [
        ("scope = \"account\"\n", "", "`scope` is missing"),
        ("\"account\"", "\"service\"", "needs a [[service]]"),
        ("mode = \"event\"", "mode = \"snapshot\"", "absence must mean something"),
        ("id = \"{id}\"\n", "", "`id` is missing"),
        ("\"{name}\"", "\"{name|present}\"", "a test is no value"),
        (
            "[account]",
            "[out.x]\nof=\"lines\"\nformat=\"csv\"\nfile=\"x\"\ncolumns=[\"{amount|rounded('1')}\"]\n[account]",
            "never rounded",
        ),
    ] {
        let faults = Profile::read("t.toml", &TINY.replace(from, to)).expect_err(words);
        assert!(faults.iter().any(|fault| fault.detail.contains(words)), "{words}: {faults:?}");
    }
}

#[test]
fn an_unknown_word_puts_only_its_record_aside() {
    let text = "name = \"t\"\nformat = \"json\"\nmode = \"snapshot\"\nscope = \"full\"\n[account]\nid = \"{id}\"\n\
        status = \"{s|vocab('s')}\"\nbill_cycle = \"m\"\n[vocab.s]\nA = \"active\"\n";
    let profile = read("t.toml", text);
    let mut changes = profile.changes(&br#"[{"id":1,"s":"A"},{"id":2,"s":"B"},{"id":3,"s":"A"}]"#[..]).with_inventory();
    let results: Vec<bool> = changes.by_ref().map(|outcome| outcome.result.is_ok()).collect();
    assert_eq!(results, [true, false, true]);
    assert_eq!(changes.inventory().expect("asked for").words().collect::<Vec<_>>(), [("s", "B", 1)]);
    assert_eq!((changes.summary().changes, changes.summary().quarantined), (2, 1));
}

#[test]
fn a_snapshot_proves_itself_whole_or_does_not() {
    let profile = profile("homegrown-csv");
    let head = "Cust#;Name;Package;Modem;Tel;State of account;Monthly charges;Bill day\n";
    let row = "A-1;Doe;Gold;02:00:5e:10:20:3b;;live;49,95;17\n";
    let mended = row.replace("A-1", "A-2").replace("live", "weird");
    for (rest, proven) in [
        (format!("{row}END;1"), "Proven"),
        (format!("{row}END;2"), "it says that it has 2 records, and 1 came"),
        (row.to_owned(), "the trailer did not come"),
        (format!("{row}{mended}END;2"), "1 records were put aside"),
        (format!("{row}x;y\nEND;1"), "not all of it could be read"),
    ] {
        let text = format!("{head}{rest}");
        let mut changes = profile.changes(text.as_bytes());
        changes.by_ref().for_each(drop);
        let told = format!("{:?}", changes.summary().completeness);
        assert!(told.contains(proven), "{rest}: {told}");
    }
}

#[test]
fn a_column_that_was_renamed_refuses_the_file() {
    let head = "Cust;Name;Package;Modem;Tel;State of account;Monthly charges;Bill day\n";
    let outcome = profile("homegrown-csv").changes(head.as_bytes()).next().expect("an outcome");
    let refusal = outcome.result.expect_err("no such column");
    assert!(refusal.faults[0].detail.contains("no column \"Cust#\"; it has Cust, Name"), "{refusal:?}");
}

#[test]
fn what_a_partial_source_does_not_know_is_not_touched() {
    let stored = json!({
        "source_revision": 7, "status": "active", "bill_cycle": "c15", "name": "Jane Doe", "phone": "+12175550114",
        "devices": [{ "id": "gw1", "cm_mac": "02:00:5e:10:20:99" }],
        "services": [
            { "id": "40117", "type": "internet", "plan": "cable-100", "device": "gw1", "max_cpe": 2 },
            { "id": "v1", "type": "voice", "plan": "v", "device": "gw1" },
        ],
    });
    let event = std::fs::read(folder("in").join("billmax-service.change.env")).expect("a fixture");
    let change = |profile: &Profile, input: &[u8]| {
        profile.changes(input).next().expect("an outcome").result.expect("sound").expect("ours")
    };
    // Mail stays or comes, internet goes with its resource, voice is another system's.
    let after =
        apply(&change(&profile("billmax-service"), &event), Some(&stored)).expect("applied").expect("still there");
    let ids: Vec<&str> =
        after["services"].as_array().expect("a list").iter().filter_map(|s| s["id"].as_str()).collect();
    assert_eq!(ids, ["v1", "40117-mail"]);
    assert_eq!(after["name"], "Jane Doe");
    assert_eq!(after.get("source_revision"), None, "a revision that the event does not have is not repeated");
    // A telephone number that is said to be gone goes; what is not said stays.
    let event = std::fs::read(folder("in").join("billmax-account.change.env")).expect("a fixture");
    let after =
        apply(&change(&profile("billmax-account"), &event), Some(&stored)).expect("applied").expect("still there");
    assert_eq!(after.get("phone"), None);
    assert_eq!(after["services"], stored["services"]);
    let event = std::fs::read(folder("in").join("freeside-acct.suspend.form")).expect("a fixture");
    let suspend = change(&profile("freeside-acct"), &event);
    assert_eq!((suspend.account.as_deref(), suspend.aliases[0].1.as_str()), (None, "jdoe"));
    assert!(apply(&suspend, None).is_err(), "nobody is suspended who is not known");
}

#[test]
fn a_new_account_comes_with_its_first_service() {
    let event = std::fs::read(folder("in").join("billmax-service.new.env")).expect("a fixture");
    let change = profile("billmax-service")
        .changes(&event[..])
        .next()
        .expect("an outcome")
        .result
        .expect("sound")
        .expect("ours");
    let document = apply(&change, None).expect("applied").expect("still there");
    let mut known = crate::account::Known::default();
    known.bill_cycles.insert("monthly".to_owned());
    let key = AccountKey {
        tenant: TenantId::parse("acme").expect("a tenant"),
        source: SourceId::default(),
        external_id: "20931".to_owned(),
    };
    let faults = parse(&document, &key, &known).expect_err("its plan is in no catalog");
    assert!(faults.iter().all(|fault| fault.detail.contains("is no plan") || fault.detail.contains("mail_domains")));
}

#[test]
fn secrets_are_hidden_from_people() {
    let event = std::fs::read(folder("in").join("billmax-service.new.env")).expect("a fixture");
    let outcome = profile("billmax-service").changes(&event[..]).next().expect("an outcome");
    let change = outcome.result.expect("sound").expect("ours");
    assert!(change.shown(false).to_string().contains("Tr0ub4dor"));
    assert!(!change.shown(true).to_string().contains("Tr0ub4dor"));
}

/// What was refused, in a few words; empty: nothing was.
fn refused(profile: &Profile, input: &[u8]) -> String {
    let mut told = String::new();
    for outcome in profile.changes(input) {
        if let Err(refusal) = outcome.result {
            told.push_str(&format!("line {}: {}; ", outcome.line, refusal.faults[0].detail));
        }
    }
    told
}

#[test]
fn hostile_json_is_refused_with_its_place() {
    let profile = read("t.toml", TINY);
    for (text, words) in [
        ("", "there is nothing"),
        ("{\"id\":1,\"id\":2}", "line 1, column 13: \"id\" is written twice"),
        ("{\"a\":{\"b\":1,\n\"b\":2}}", "line 2, column 4: \"b\" is written twice"),
        ("{\"id\":NaN}", "no value of JSON"),
        ("{\"id\":Infinity}", "no value of JSON"),
        ("{\"id\":1e}", "no number of JSON"),
        ("{\"id\":01}", "no number of JSON"),
        ("{\"id\":1,}", "a string is expected"),
        ("{\"id\":\"a\u{1}\"}", "control character"),
        ("{\"id\":\"\\ud800\"}", "half a character"),
        ("{\"id\":1} {\"id\":2}", "behind the end"),
        ("\u{feff}\u{feff}{}", "no value of JSON"),
        ("{\"id\":1", "ends too early"),
    ] {
        let told = refused(&profile, text.as_bytes());
        assert!(told.contains(words), "{text}: {told}");
    }
    assert!(refused(&profile, &"[".repeat(100_000).into_bytes()).contains("nested deeper than 32"));
    assert!(refused(&profile, &"{\"a\":".repeat(10_000).into_bytes()).contains("nested deeper than 32"));
    assert!(refused(&profile, b"\xff\xfe{\0}\0").contains("UTF-16"));
    assert!(refused(&profile, b"{\"id\":\"\xe9\"}").contains("not UTF-8"));
    assert_eq!(refused(&profile, b"\xef\xbb\xbf{\"id\":\"1\"}"), "");
    let many: String = (0..1_100).map(|n| format!("\"k{n}\":1,")).collect();
    assert!(refused(&profile, format!("{{{many}\"id\":1}}").as_bytes()).contains("more than 1000 members"));
}

#[test]
fn hostile_xml_is_refused_with_its_place() {
    let profile = read("t.toml", &TINY.replace("\"json\"", "\"xml\""));
    let laughs = "<!DOCTYPE a [<!ENTITY x \"ha\"><!ENTITY y \"&x;&x;\">]><a>&y;</a>";
    for (text, words) in [
        ("<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>", "a document type is not read"),
        (laughs, "a document type is not read"),
        ("<a>\n<id>&secret;</id></a>", "line 2: the entity &secret; is not read"),
        ("<a><id>1</b></a>", "cannot be read further"),
        ("<a><id>1</id>", "cut off"),
        ("<a/><b/>", "behind the end"),
        ("x", "outside the document"),
        ("", "there is no document"),
        ("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a/>", "not encoded in UTF-8"),
        ("<a x=\"1\" x=\"2\"/>", "attribute"),
    ] {
        let told = refused(&profile, text.as_bytes());
        assert!(told.contains(words), "{text}: {told}");
    }
    assert!(refused(&profile, "<a>".repeat(100_000).as_bytes()).contains("nested more than 32"));
    assert!(refused(&profile, format!("<r>{}", "<a/>".repeat(100_000)).as_bytes()).contains("more than 20000"));
    assert!(refused(&profile, b"\xfe\xff\0<\0a").contains("UTF-16"));
    assert_eq!(refused(&profile, "<a><id>1</id><name>A &amp; B&#33;<![CDATA[ <x>]]></name></a>".as_bytes()), "");
}

#[test]
fn hostile_forms_and_environments_are_refused() {
    let form = read("t.toml", &TINY.replace("\"json\"", "\"form\""));
    assert_eq!(refused(&form, b"id=1&name=Jane+%C3%A9\n"), "");
    for (text, words) in [(&b"id=%4"[..], "without two"), (b"id=%FF", "no UTF-8"), (b"", "nothing"), (b"=1", "no name")]
    {
        assert!(refused(&form, text).contains(words), "{text:?}");
    }
    assert!(refused(&form, b"id=1&id=2").contains("several values"), "a second value is never dropped");
    let env = read("t.toml", &TINY.replace("\"json\"", "\"env\""));
    assert_eq!(refused(&env, b"id=1\nname=Jane\n"), "");
    for (text, words) in [(&b"id=1\nid=2"[..], "set twice"), (b"id", "no NAME=value"), (b"\n", "nothing")] {
        assert!(refused(&env, text).contains(words), "{text:?}");
    }
}

#[test]
fn a_line_without_end_needs_no_memory() {
    // More than a record may be, many times over, without ever being held.
    let endless = |begin: &'static [u8], octets: u64, end: &'static [u8]| {
        std::io::BufReader::new(begin.chain(std::io::repeat(b'x').take(octets)).chain(end))
    };
    let table = profile("homegrown-csv");
    let head = b"Cust#;Name;Package;Modem;Tel;State of account;Monthly charges;Bill day\n";
    let tail = b"\nA-1;Doe;Gold;02:00:5e:10:20:3b;;live;49,95;17\nEND;1\n";
    let mut changes = table.changes(endless(head, 64 << 20, tail));
    let results: Vec<Result<(), String>> = changes
        .by_ref()
        .map(|outcome| outcome.result.map(|_| ()).map_err(|refusal| refusal.faults[0].detail.clone()))
        .collect();
    assert_eq!(results, [Err("the line is longer than 1024 KiB".to_owned()), Ok(())]);
    for (format, begin) in [("json", &b"{\"id\":\""[..]), ("xml", b"<a><id>"), ("form", b"id="), ("env", b"id=")] {
        let profile = read("t.toml", &TINY.replace("\"json\"", &format!("{format:?}")));
        let input = std::io::BufReader::new(begin.chain(std::io::repeat(b'x').take(64 << 20)));
        let told: Vec<String> = profile
            .changes(input)
            .map(|outcome| outcome.result.expect_err("too long").faults[0].detail.clone())
            .collect();
        assert!(told.len() == 1 && told[0].contains("longer than 1024 KiB"), "{format}: {told:?}");
    }
}

#[test]
fn cells_that_a_spreadsheet_would_compute_are_shown_instead() {
    let text = "[out.x]\nof = \"lines\"\nformat = \"csv\"\nfile = \"x\"\nnames = false\ncolumns = [\"{v}\"]\n";
    let profile = read("t.toml", &format!("{TINY}{text}"));
    let cell = |value: &str| {
        let mut octets = Vec::new();
        profile.outs["x"].write([json!({ "v": value })], &Vec::new(), &mut octets).expect("written");
        String::from_utf8(octets).expect("UTF-8")
    };
    for (value, written) in [
        ("=1+1", "'=1+1\n"),
        ("@SUM(A1)", "'@SUM(A1)\n"),
        ("+1-800", "'+1-800\n"),
        ("-2+3", "'-2+3\n"),
        ("\t=1", "'\t=1\n"),
        ("=a,b", "\"'=a,b\"\n"),
        (" =1", "' =1\n"),
        ("-5.00", "-5.00\n"),
        ("+15125550100", "+15125550100\n"),
        ("a\"b", "\"a\"\"b\"\n"),
        ("a\nb", "\"a\nb\"\n"),
        ("plain", "plain\n"),
    ] {
        assert_eq!(cell(value), written);
    }
}

#[test]
fn a_line_that_does_not_fit_fails_its_file() {
    let text = "[out.x]\nof = \"lines\"\nformat = \"fixed\"\nfile = \"{batch}.txt\"\n\
        columns = [{ name = \"a\", value = \"{a|number('2')}\", width = 6, align = \"right\" }]\n";
    let profile = read("t.toml", &format!("{TINY}{text}"));
    let out = &profile.outs["x"];
    let facts: Facts = vec![("batch".to_owned(), "../b".to_owned())];
    assert!(out.file_name(&facts).is_err(), "a name is no path");
    let write = |value: &str| {
        let mut octets = Vec::new();
        out.write([json!({ "id": "il_1", "a": value })], &facts, &mut octets)
            .map(|_| String::from_utf8(octets).expect("UTF-8"))
            .map_err(|fault| fault.to_string())
    };
    assert_eq!(write("12.5").as_deref(), Ok(" 12.50\n"));
    assert_eq!(write("1234.50"), Err("il_1: \"1234.50\" is longer than its 6 letters".to_owned()));
    assert!(write("1.005").expect_err("a digit would be lost").contains("column a"));
}

#[test]
fn json_is_what_the_standard_says_and_stricter_on_keys() {
    let text = std::fs::read_to_string(folder("json_suite.txt")).expect("the suite");
    let profile = read("t.toml", TINY);
    let (mut taken, mut refused) = (0, 0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, hex) = line.split_once(' ').expect("name and octets");
        let octets: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hexadecimal"))
            .collect();
        let mut records = Records::new(&profile, &octets[..]);
        let sound = loop {
            match records.next_part() {
                Ok(Part::End) => break true,
                Ok(Part::Record(_)) => {}
                _ => break false,
            }
        };
        // The standard leaves duplicate keys open; to us they are two opinions.
        let wanted = name.starts_with("y_") && !name.contains("duplicated_key");
        assert_eq!(sound, wanted, "{name}");
        *(if sound { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken >= 90 && refused >= 180, "{taken} taken, {refused} refused");
}

#[test]
fn a_constant_is_no_news_of_a_known_service() {
    let stored = json!({ "status": "suspended", "bill_cycle": "c15", "services": [
        { "id": "7001", "type": "internet", "plan": "old", "status": "suspended", "radius": { "username": "jdoe" } },
    ] });
    let event = std::fs::read(folder("in").join("whmcs.create.json")).expect("a fixture");
    let change = profile("whmcs").changes(&event[..]).next().expect("an outcome").result.expect("sound").expect("ours");
    let after = apply(&change, Some(&stored)).expect("applied").expect("still there");
    assert_eq!(
        (&after["services"][0]["plan"], &after["services"][0]["status"]),
        (&json!("cable-100"), &json!("suspended"))
    );
    assert_eq!((&after["status"], &after["bill_cycle"]), (&json!("suspended"), &json!("c15")));
    let fresh = apply(&change, None).expect("applied").expect("still there");
    assert_eq!((&fresh["services"][0]["status"], &fresh["bill_cycle"]), (&json!("active"), &json!("monthly")));
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[ -~\\n\\r\\t]{0,12}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..6),
        prop_oneof![
            Just("{\"id\":"),
            Just("\"type\":\"event\","),
            Just("["),
            Just("]}"),
            Just("<a>"),
            Just("</a>"),
            Just("<a b='c'/>"),
            Just("&amp;"),
            Just("&#x"),
            Just("<![CDATA["),
            Just("id=1&"),
            Just("NEW_state=Open\n"),
            Just("\"a;b\""),
            Just("101-00231,J,,,UNIT 4,,,1,I100,,,,1\n"),
            Just("T0000001\n"),
            Just("\u{feff}"),
            Just("\\u00e9"),
            Just("\0"),
        ]
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_octets_make_a_reader_panic(octets in octets()) {
        for name in ["azar", "billmax-service", "freeside-acct", "glds-wincable", "icoms", "omnia360", "powercode", "uisp-service"] {
            let profile = profile(name);
            let mut changes = profile.changes(&octets[..]).with_inventory();
            let outcomes: Vec<Outcome> = changes.by_ref().take(1_000).collect();
            let summary = changes.summary();
            prop_assert_eq!(summary.records, outcomes.len() as u64);
            prop_assert_eq!(summary.records, summary.changes + summary.ignored + summary.quarantined);
            // The same octets mean the same, wherever the input is cut into reads.
            let slow = std::io::BufReader::with_capacity(1, &octets[..]);
            let again: Vec<Outcome> = profile.changes(slow).take(1_000).collect();
            prop_assert_eq!(outcomes, again);
        }
    }

    #[test]
    fn separated_values_mean_to_us_what_they_mean_to_others(
        rows in proptest::collection::vec(proptest::collection::vec("[ -~äé\n]{0,8}", 3), 1..5),
    ) {
        let text = "name = \"t\"\nformat = \"csv\"\nmode = \"snapshot\"\nscope = \"full\"\n[read]\nheader = false\n\
            [account]\nid = \"{c0}\"\nstatus = \"active\"\nbill_cycle = \"m\"\n\
            [out.x]\nof = \"lines\"\nformat = \"csv\"\nfile = \"x\"\nnames = false\ncolumns = [\"{a}\", \"{b}\", \"{c}\"]\n";
        let profile = read("t.toml", text);
        // Blanks around a cell and the sign that guards against formulas are no difference.
        let plain = |text: &str| text.trim_matches(|letter: char| letter.is_whitespace() || letter == '\'').to_owned();
        let wanted: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
        // Written by another program, read by us.
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        for row in &rows {
            writer.write_record(row).expect("written");
        }
        let octets = writer.into_inner().expect("written");
        let mut records = Records::new(&profile, &octets[..]);
        let mut seen = Vec::new();
        while let Ok(Part::Record(Record { tree, .. })) = records.next_part() {
            let cell = |name: &str| match tree.member(name) {
                Some(tree::Tree::Text(text)) => plain(text),
                _ => String::new(),
            };
            seen.push(vec![cell("c0"), cell("c1"), cell("c2")]);
        }
        prop_assert_eq!(&seen, &wanted);
        // Written by us, read by another program.
        let documents = rows.iter().map(|row| json!({ "a": row[0], "b": row[1], "c": row[2] }));
        let mut octets = Vec::new();
        profile.outs["x"].write(documents, &Vec::new(), &mut octets).expect("written");
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&octets[..]);
        let seen: Vec<Vec<String>> =
            reader.records().map(|row| row.expect("a row").iter().map(plain).collect()).collect();
        prop_assert_eq!(&seen, &wanted);
    }

    #[test]
    fn no_text_makes_a_profiles_reader_panic(pieces in proptest::collection::vec(prop_oneof![
        Just(TINY.to_owned()), Just("[read]\n".to_owned()), Just("group_start = { line = \"^H\" }\n".to_owned()),
        Just("[out.x]\nof = \"lines\"\n".to_owned()), Just("fields = { a = [0, 3] }\n".to_owned()),
        "[a-z]{1,6} = \"\\{[a-z|'()/\\[\\]]{0,12}\\}\"\n", "[ -~\n]{0,16}",
    ], 0..8)) {
        if let Err(faults) = Profile::read("t.toml", &pieces.concat()) {
            prop_assert!(!faults.is_empty());
        }
    }
}
