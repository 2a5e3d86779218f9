//! Catalogs as files: what is read, what is refused and where.

use super::super::{bundles_of_folder, compare, named_files};
use super::*;

const SAMPLE: &str = include_str!("../cli/demo/catalog.toml");

fn sample() -> String {
    let values = [("@ACCESS@", "49.95"), ("@ALLOWANCE@", "100"), ("@TIER@", "50"), ("@FIRST@", "0.050")];
    let text = values.iter().fold(SAMPLE.to_owned(), |text, (mark, value)| text.replace(mark, value));
    text.replace("@SECOND@", "0.020").replace("@TAX@", "8.25")
}

fn faults(text: &str) -> Vec<String> {
    let faults = read(&Bundle::single("c.toml", text)).expect_err("a catalog with faults");
    faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect()
}

#[test]
fn sample_catalog_is_read() {
    let catalog = read(&Bundle::single("c.toml", sample())).expect("a sound catalog");
    assert_eq!(catalog.tenant.as_str(), "acme");
    assert_eq!(catalog.known().plans.len(), 3);
    assert_eq!(catalog.plan_tariffs()["res-100"], "res-100");
    assert_eq!(catalog.cycles["c15"].grace_seconds, 6 * 3600);
}

#[test]
fn what_a_tenant_keeps_and_who_must_name_a_case_are_read() {
    let with = |more: &str| sample().replacen("[tenant]\n", &format!("[tenant]\n{more}\n"), 1);
    let catalog = read(&Bundle::single("c.toml", sample())).expect("a sound catalog");
    assert_eq!((catalog.retention, catalog.known().history_needs_case), (Retention::default(), false));
    let text = with("retention = { sessions = \"365d\", audit = \"48h\" }\nhistory_case = \"required\"");
    let catalog = read(&Bundle::single("c.toml", text)).expect("a sound catalog");
    assert_eq!(catalog.retention, Retention { sessions: Some(365), audit: Some(2), ..Retention::default() });
    assert!(catalog.known().history_needs_case);
    let found = faults(&with("retention = { raw = \"1h\", ledger = \"1d\" }"));
    assert!(found.iter().any(|fault| fault.contains("at least a day")), "{found:?}");
    assert!(found.iter().any(|fault| fault.contains("unknown key `ledger`")), "{found:?}");
}

#[test]
fn unknown_keys_and_references_are_all_faults() {
    let text = sample()
        .replace("tariff = \"voice-basic\"", "tariff = \"gone\"")
        .replace("close = \"manual\"", "close = \"later\"")
        .replace("realms", "realm");
    let found = faults(&text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().any(|fault| fault.contains("no tariff `gone`")));
    assert!(found.iter().any(|fault| fault.contains("unknown key `realm`")));
}

#[test]
fn inline_tariff_and_its_file_have_one_digest() {
    let catalog = read(&Bundle::single("c.toml", sample())).expect("a sound catalog");
    let tariff = &catalog.tariffs[0];
    let alone = Tariff::read("t.toml", &tariff.document).expect("its own text");
    assert_eq!(alone.digest, tariff.digest);
}

#[test]
fn file_that_nobody_names_is_a_fault() {
    let mut files =
        BTreeMap::from([("acme.toml".to_owned(), sample()), ("old.toml".to_owned(), "id = \"x\"".to_owned())]);
    assert_eq!(bundles_of_folder(&files).expect_err("a stray file")[0].pointer, "old.toml");
    files.remove("old.toml");
    assert_eq!(bundles_of_folder(&files).expect("one catalog").len(), 1);
}

#[test]
fn files_are_relative_to_the_catalog_that_names_them() {
    let catalog =
        "[tenant]\nid = \"a\"\ncurrency = \"USD\"\ntimezone = \"UTC\"\n[[tariff]]\nfile = \"../t/one.toml\"\n";
    let tariff = "id = \"one\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n[[charge]]\nid = \"m\"\n\
                  type = \"recurring\"\namount = \"1\"\n";
    let files =
        BTreeMap::from([("a/cat.toml".to_owned(), catalog.to_owned()), ("t/one.toml".to_owned(), tariff.to_owned())]);
    let bundles = bundles_of_folder(&files).expect("one catalog");
    assert_eq!(read(&bundles[0]).expect("sound").tariffs[0].id, "one");
    assert_eq!(named_files(catalog), ["../t/one.toml"]);
    assert!(faults(catalog)[0].starts_with("c.toml:6:8 there is no file"));
}

#[test]
fn changed_content_under_an_applied_version_is_refused() {
    let catalog = read(&Bundle::single("c.toml", sample())).expect("a sound catalog");
    let other = read(&Bundle::single("c.toml", sample().replace("49.95", "59.95"))).expect("a sound catalog");
    let known = catalog.tariffs.iter().map(|t| ((t.id.clone(), t.version), t.digest.clone())).collect();
    let refused = compare(&other, Some(&catalog), &known).expect_err("version 1 with another price");
    assert_eq!(refused[0].pointer, "tariff res-100 version 1");
    let newer = sample().replacen("version = 1\ncurrency", "version = 2\ncurrency", 1).replace("49.95", "59.95");
    let newer = read(&Bundle::single("c.toml", newer)).expect("a sound catalog");
    let effect = compare(&newer, Some(&catalog), &known).expect("a new version");
    assert_eq!(effect.new_tariff_versions, ["res-100 version 2"]);
    assert_eq!(effect.changed_plans[0].touches, ["price"]);
}

#[test]
fn cycle_keeps_its_calendar() {
    let catalog = read(&Bundle::single("c.toml", sample())).expect("a sound catalog");
    let moved = read(&Bundle::single("c.toml", sample().replace("anchor_day = 15", "anchor_day = 1"))).expect("sound");
    assert!(compare(&moved, Some(&catalog), &BTreeMap::new()).is_err());
}

#[test]
fn radius_values_of_plans_and_the_groups_of_holds_are_read() {
    let text = sample()
        + "\n[holds]\ngarden_group = \"walled\"\nblocked_group = \"nothing\"\n[[plan]]\nid = \"pppoe\"\n\
        service = \"internet\"\nradius = { chap = true, reply = { A = \"1\", \"Cisco-AVPair\" = [\"a=1\", \"b=2\"] } }\n";
    let known = read(&Bundle::single("c.toml", text.clone())).expect("a sound catalog").known();
    assert_eq!((known.garden_group(), known.blocked_group.as_deref()), ("walled", Some("nothing")));
    let radius = known.plans["pppoe"].radius.clone().expect("radius values");
    assert!(radius.chap);
    assert_eq!(radius.reply["Cisco-AVPair"].iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(serde_json::to_string(&radius.reply).expect("JSON"), r#"{"A":"1","Cisco-AVPair":["a=1","b=2"]}"#);
    for (good, bad) in [("chap = true", "chap = 1"), ("\"a=1\"", "7"), ("A = \"1\"", "A = {}")] {
        let found = faults(&text.replace(good, bad));
        assert!(found.len() == 1 && found[0].contains("is expected"), "{found:?}");
    }
}

const TECHNICAL: &str = r#"
[garden]
allow = ["192.0.2.10/32", "2001:db8::/64"]
filter_groups = [1, 2, 3, 4]
upstream = "512k"

[[device_model]]
id = "tm"
match = "arris-tm*"
docsis = "3.0"
mta_hash = "eu"
mta_flow = "HYBRID.2"
snmp = "access_table"
cpe_mac_list = false
garden_filters = "ip_filters"
firmware = { file = "tm-9.1.bin", server = "192.0.2.9", version = "9.1" }
cm_template = [ { DocsisTwoEnable = 1 } ]
mta_template = [ { SnmpMibObject = { oid = "1.3.6.1.4.1.9.1.0", string = "{mac}" } } ]
sip_template = [ { SnmpMibObject = { oid = "1.3.6.1.4.1.9.2.{line}", string = "{sip_user}:{sip_password}@{registrar}" } } ]

[[plan]]
id = "gold"
service = "internet"
docsis = { downstream = { rate = "1G", peak = "1200M", burst = 500000, priority = 3, min_reserved = "10M", service_class = "gold" }, upstream = "50M", template = { override = ["MaxCPE"], tlv = [ { MaxCPE = 9 } ] } }

[[plan]]
id = "boost"
docsis_addon = { downstream = "+100M", upstream = "100M", max_cpe = 1 }

[[plan]]
id = "sip"
service = "voice"
voice = { protocol = "sip", registrar = "sip.example" }

[[plan]]
id = "ncs"
service = "voice"
voice = { protocol = "ncs", call_agent = "ca@cms.example", port = 2727 }
"#;

#[test]
fn what_ends_up_in_configuration_files_is_read() {
    use crate::account::VoiceServer;
    let catalog = read(&Bundle::single("c.toml", format!("{}{TECHNICAL}", sample()))).expect("a sound catalog");
    let known = catalog.known();
    let model = known.model(Some("ARRIS-TM3402")).expect("the model");
    assert_eq!((model.id.as_str(), model.mta_flow.as_str(), model.cpe_mac_list), ("tm", "HYBRID.2", Some(false)));
    assert_eq!(known.model(Some("other")), None);
    assert_eq!(known.garden.filter_groups, [1, 2, 3, 4]);
    let gold = known.plans["gold"].docsis.as_ref().expect("a profile");
    assert_eq!((gold.downstream_qos.priority, gold.downstream_qos.burst), (Some(3), Some(500_000)));
    assert_eq!(gold.template.as_ref().expect("a template").replaced(), [18]);
    assert_eq!(known.plans["boost"].addon.as_ref().map(|addon| addon.max_cpe), Some(1));
    let server = |plan: &str| known.plans[plan].voice.as_ref().map(|voice| voice.server.clone());
    assert!(matches!(server("sip"), Some(VoiceServer::Sip { port: 5060, .. })));
    assert!(matches!(server("ncs"), Some(VoiceServer::Ncs(_))));
}

#[test]
fn a_fault_in_a_template_has_its_place_and_its_tlv() {
    let line_of = |text: &str, needle: &str| text[..text.find(needle).expect("it is there")].matches('\n').count() + 1;
    for (right, wrong, expected) in [
        ("{ DocsisTwoEnable = 1 }", "{ DocsisTwoEnable = 7 }", "39 (DocsisTwoEnable): must be 0 to 1, is 7"),
        ("{ DocsisTwoEnable = 1 }", "{ MaxCPE = 3 }", "MaxCPE is set by the recipe; name it in `override`"),
        ("{ DocsisTwoEnable = 1 }", "{ Nonsense = 3 }", "0 (Nonsense): there is no TLV of this name here"),
        ("\"{mac}\"", "\"{sip_user}\"", "there is no placeholder {sip_user} here"),
        ("override = [\"MaxCPE\"]", "override = [\"CmMic\"]", "CmMic is computed and cannot be replaced"),
        ("peak = \"1200M\"", "peak = \"900M\"", "`peak` is 900M, which a rate of 1G cannot have"),
        (
            "[1, 2, 3, 4]",
            "[1, 2]",
            "4, 6, 8 or 10 groups are expected: subscriber down and up, modem down and up, and so on",
        ),
    ] {
        let text = format!("{}{TECHNICAL}", sample()).replace(right, wrong);
        let found = faults(&text);
        let place = format!("c.toml:{}:", line_of(&text, wrong));
        assert!(
            found.iter().any(|fault| fault.starts_with(&place) && fault.ends_with(expected)),
            "{place} {expected}: {found:?}"
        );
    }
}
