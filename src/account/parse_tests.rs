//! Facts about what the door accepts and refuses.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Account, Known, KnownPlan, Pushed, SecretDigests, ServiceType, content_tag, json, parse};
use crate::vocabulary::{AccountKey, Fault, SourceId, TenantId};

fn known() -> Known {
    let of = |service| KnownPlan { service, ..KnownPlan::default() };
    Known {
        plans: BTreeMap::from([
            ("res-100".to_owned(), of(Some(ServiceType::Internet))),
            ("res-300".to_owned(), of(Some(ServiceType::Internet))),
            ("static-ip".to_owned(), of(None)),
            ("voice-basic".to_owned(), of(Some(ServiceType::Voice))),
            ("mail-5g".to_owned(), of(Some(ServiceType::Email))),
        ]),
        bill_cycles: BTreeSet::from(["c15".to_owned()]),
        mail_domains: BTreeSet::from(["acme.example".to_owned()]),
        ..Known::default()
    }
}

fn key() -> AccountKey {
    AccountKey {
        tenant: TenantId::parse("acme").expect("tenant"),
        source: SourceId::default(),
        external_id: "100234".to_owned(),
    }
}

/// The document of the contract.
fn whole() -> Value {
    json!({
      "source": "default", "source_revision": 7, "status": "active", "kind": "person",
      "name": "Ada Lovelace", "email": "ada@example.net", "phone": "+15125550100", "language": "en", "tax_exempt": false,
      "billing_address": {"line1": "1 Main St", "city": "Austin", "region": "TX", "postal_code": "78701", "country": "US"},
      "parent": null, "tier_label": null, "bill_cycle": "c15",
      "holds": [{"kind": "nonpay", "from": "2026-11-20T00:00:00Z", "until": null}],
      "devices": [{"id": "gw1", "cm_mac": "00:11:22:33:44:55", "mta_mac": "00:11:22:33:44:56",
                   "model": "arris-tm3402", "serial": "A1"}],
      "services": [
        {"id": "100234-1", "type": "internet", "plan": "res-100", "device": "gw1", "max_cpe": 2, "static_ips": [],
         "radius": {"username": "ada@acme", "password": "pw-1", "framed_ip": null, "ipv6_delegated": null},
         "network_from": null, "billing_from": "2026-11-01", "billing_until": null, "price_override": null,
         "addons": [{"id": "ip", "plan": "static-ip", "quantity": 1, "from": "2026-11-01", "until": null}],
         "promos": [{"code": "SPRING", "from": "2026-11-01", "until": "2027-05-01"}],
         "scheduled": [{"at": "next_cycle", "set": {"plan": "res-300"}}]},
        {"id": "100234-2", "type": "voice", "plan": "voice-basic", "device": "gw1",
         "service_address": {"line1": "1 Main St", "city": "Austin", "region": "TX", "postal_code": "78701", "country": "US"},
         "lines": [{"port": 1, "number": "+15125550100", "enabled": true,
                    "sip": {"user": "u", "password": "pw-2", "display_name": "Ada"}}]},
        {"id": "100234-3", "type": "email", "plan": "mail-5g",
         "mailbox": {"address": "ada@acme.example", "password": "pw-3", "quota_mb": 5120, "aliases": [], "forward_to": []}}
      ],
      "tags": {"csr": "42"}
    })
}

fn parsed(document: &Value) -> Result<Pushed, Vec<Fault>> {
    parse(document, &key(), &known())
}

/// The whole document with one value put in at a pointer whose parent exists.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = whole();
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
    let parent = document.pointer_mut(parent).expect("the parent is there");
    match parent {
        Value::Array(items) => match last.parse::<usize>() {
            Ok(index) if index < items.len() => items[index] = value,
            _ => items.push(value),
        },
        Value::Object(map) => {
            map.insert(last.to_owned(), value);
        }
        _ => panic!("{pointer} has no container"),
    }
    document
}

fn pointers(document: &Value) -> Vec<String> {
    parsed(document).err().unwrap_or_default().into_iter().map(|fault| fault.pointer).collect()
}

#[test]
fn the_contracts_document_is_accepted_and_keeps_no_secret() {
    let pushed = parsed(&whole()).expect("the contract's own document");
    assert_eq!(pushed.source_revision, Some(7));
    let fields: Vec<_> = pushed.secrets.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["radius.password", "lines.1.sip.password", "mailbox.password"]);
    let stored = serde_json::to_string(&pushed.account).expect("serializes");
    assert!(!stored.contains("pw-"), "{stored}");
    let back: Account = serde_json::from_str(&stored).expect("reads back");
    assert_eq!(back, pushed.account);
}

#[test]
fn an_answer_pushed_back_changes_nothing() {
    let first = parsed(&whole()).expect("good").account;
    let again = parsed(&serde_json::to_value(&first).expect("serializes")).expect("still good");
    assert_eq!(again.account, first);
    assert!(again.secrets.is_empty(), "absent secrets stay");
}

#[test]
fn the_document_made_of_what_was_pushed_says_the_same_with_its_secrets() {
    for document in [whole(), with("/services/0/radius/password", Value::Null)] {
        let pushed = parsed(&document).expect("good");
        assert_eq!(parsed(&pushed.document()), Ok(pushed));
    }
}

#[test]
fn a_null_secret_is_removed_and_an_absent_one_stays() {
    let removed = parsed(&with("/services/0/radius/password", Value::Null)).expect("good");
    assert!(removed.secrets.iter().any(|change| change.field == "radius.password" && change.value.is_none()));
}

#[test]
fn every_field_at_the_wrong_type_is_named() {
    let mut tried = 0;
    for pointer in leaves(&whole(), "") {
        for wrong in [json!({"x": 1}), json!([1]), json!(1.5), json!("\u{7}"), json!(true)] {
            let document = with(&pointer, wrong.clone());
            let found = pointers(&document);
            let flag = pointer.ends_with("tax_exempt") || pointer.ends_with("enabled");
            let removes = wrong == json!(true) && flag;
            if removes {
                continue;
            }
            tried += 1;
            assert!(found.iter().any(|found| found.starts_with(&pointer)), "{pointer} = {wrong}: {found:?}");
        }
    }
    assert!(tried > 250, "{tried}");
}

fn leaves(value: &Value, pointer: &str) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (format!("{pointer}/{key}"), value)).collect(),
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().map(|(index, value)| (format!("{pointer}/{index}"), value)).collect()
        }
        // An empty list may hold numbers as wrongly as texts.
        _ => return vec![pointer.to_owned()],
    };
    inner.into_iter().flat_map(|(pointer, value)| leaves(value, &pointer)).collect()
}

#[test]
fn unknown_fields_are_refused_at_every_level() {
    for place in [
        "",
        "/billing_address",
        "/holds/0",
        "/devices/0",
        "/services/0",
        "/services/0/radius",
        "/services/0/addons/0",
        "/services/0/promos/0",
        "/services/0/scheduled/0",
        "/services/0/scheduled/0/set",
        "/services/1/lines/0",
        "/services/1/lines/0/sip",
        "/services/2/mailbox",
    ] {
        let pointer = format!("{place}/colour");
        assert_eq!(pointers(&with(&pointer, json!("red"))), [pointer]);
    }
}

#[test]
fn what_is_required_is_missed() {
    for pointer in [
        "/status",
        "/bill_cycle",
        "/services/0/id",
        "/services/0/type",
        "/services/0/plan",
        "/services/0/radius/username",
        "/services/1/device",
        "/services/1/lines",
        "/services/1/lines/0/number",
        "/services/2/mailbox",
        "/services/2/mailbox/address",
        "/devices/0/id",
        "/devices/0/cm_mac",
        "/holds/0/kind",
        "/billing_address/country",
    ] {
        let found = pointers(&with(pointer, Value::Null));
        assert!(found.contains(&pointer.to_owned()), "{pointer}: {found:?}");
    }
}

#[test]
fn each_rule_has_its_fault() {
    let other = json!({"id": "x", "type": "internet", "plan": "res-100", "device": "gw1"});
    for (pointer, value, fault_at) in [
        ("/source", json!("other"), "/source"),
        ("/source_revision", json!(-1), "/source_revision"),
        ("/bill_cycle", json!("c99"), "/bill_cycle"),
        ("/status", json!("gone"), "/status"),
        ("/parent", json!("100234"), "/parent"),
        ("/email", json!("ada@"), "/email"),
        ("/phone", json!("5125550100"), "/phone"),
        ("/billing_address/country", json!("usa"), "/billing_address/country"),
        ("/holds/0/kind", json!("bored"), "/holds/0/kind"),
        ("/holds/0/treatment", json!("throttle:"), "/holds/0/treatment"),
        ("/holds/0/billing", json!("half"), "/holds/0/billing"),
        ("/holds/0/from", json!("2026-11-20"), "/holds/0/from"),
        ("/holds/0/until", json!("2026-11-19T00:00:00Z"), "/holds/0/until"),
        ("/devices/0/cm_mac", json!("00:11:22:33:44"), "/devices/0/cm_mac"),
        ("/devices/0/mta_mac", json!("0011.2233.4455"), "/devices/0/mta_mac"),
        ("/devices/1", json!({"id": "gw1", "cm_mac": "00:11:22:33:44:77"}), "/devices/1/id"),
        ("/services/0/plan", json!("nope"), "/services/0/plan"),
        ("/services/0/plan", json!("mail-5g"), "/services/0/plan"),
        ("/services/0/plan", json!("static-ip"), "/services/0/plan"),
        ("/services/0/type", json!("gas"), "/services/0/type"),
        ("/services/0/device", json!("gw9"), "/services/0/device"),
        ("/services/0/max_cpe", json!(0), "/services/0/max_cpe"),
        ("/services/0/static_ips", json!(["192.0.2.300"]), "/services/0/static_ips/0"),
        ("/services/0/static_ips", json!(["192.0.2.3", "192.0.2.3"]), "/services/0/static_ips/1"),
        ("/services/0/radius/framed_ip", json!("2001:db8::1"), "/services/0/radius/framed_ip"),
        ("/services/0/radius/ipv6_delegated", json!("2001:db8::1"), "/services/0/radius/ipv6_delegated"),
        ("/services/0/radius/password", json!(""), "/services/0/radius/password"),
        ("/services/0/billing_from", json!("2026-13-01"), "/services/0/billing_from"),
        ("/services/0/billing_until", json!("2026-10-31"), "/services/0/billing_until"),
        ("/services/0/network_from", json!("soon"), "/services/0/network_from"),
        ("/services/0/price_override", json!("-1"), "/services/0/price_override"),
        ("/services/0/price_override", json!({"charge": "access"}), "/services/0/price_override/amount"),
        ("/services/0/addons/0/plan", json!("nope"), "/services/0/addons/0/plan"),
        ("/services/0/addons/0/quantity", json!(0), "/services/0/addons/0/quantity"),
        ("/services/0/promos/0/until", json!("2026-10-01"), "/services/0/promos/0/until"),
        ("/services/0/scheduled/0/at", json!("soon"), "/services/0/scheduled/0/at"),
        ("/services/0/scheduled/0/set", json!({}), "/services/0/scheduled/0/set"),
        ("/services/0/scheduled/0/set", json!({"plan": "nope"}), "/services/0/scheduled/0/set/plan"),
        ("/services/0/scheduled/0/set", json!({"id": "y"}), "/services/0/scheduled/0/set/id"),
        ("/services/0/scheduled/0/set", json!({"radius": {"password": "x"}}), "/services/0/scheduled/0/set"),
        ("/services/0/lines", json!([{"port": 1, "number": "+15125550111"}]), "/services/0/lines"),
        ("/services/1/lines", json!([]), "/services/1/lines"),
        ("/services/1/lines/0/number", json!("911"), "/services/1/lines/0/number"),
        ("/services/1/lines/0/port", json!(0), "/services/1/lines/0/port"),
        ("/services/2/mailbox/address", json!("ada@else.example"), "/services/2/mailbox/address"),
        ("/services/2/mailbox/aliases", json!(["ada@acme.example"]), "/services/2/mailbox/aliases/0"),
        ("/services/2/mailbox/forward_to", json!(["nobody"]), "/services/2/mailbox/forward_to/0"),
        ("/services/2/mailbox/quota_mb", json!(0), "/services/2/mailbox/quota_mb"),
        ("/services/2/id", json!("100234-1"), "/services/2"),
        ("/services/3", other, "/services/3/device"),
        ("/services/0/device", Value::Null, ""),
        ("/tags/csr", json!(42), "/tags/csr"),
    ] {
        let found = pointers(&with(pointer, value.clone()));
        let wanted: &[&str] = if fault_at.is_empty() { &[] } else { &[fault_at] };
        assert_eq!(found, wanted, "{pointer} = {value}");
    }
}

#[test]
fn voice_needs_a_device_with_an_mta() {
    assert_eq!(pointers(&with("/devices/0/mta_mac", Value::Null)), ["/services/1/device"]);
}

#[test]
fn an_internet_service_needs_a_device_or_a_login() {
    let mut document = with("/services/0/device", Value::Null);
    document["services"][0]["radius"] = Value::Null;
    assert_eq!(pointers(&document), ["/services/0"]);
}

#[test]
fn all_faults_come_in_one_answer() {
    let mut document = with("/status", json!("gone"));
    document["services"][0]["plan"] = json!("nope");
    document["devices"][0]["cm_mac"] = json!("bad");
    document["services"][2]["mailbox"]["quota_mb"] = json!("big");
    document["colour"] = json!("red");
    let mut found = pointers(&document);
    found.sort();
    assert_eq!(found, ["/colour", "/devices/0/cm_mac", "/services/0/plan", "/services/2/mailbox/quota_mb", "/status"]);
}

#[test]
fn six_spellings_of_a_mac_are_the_same_content() {
    let tag = |document: &Value| content_tag(&parsed(document).expect("good").account, &SecretDigests::new());
    let first = tag(&whole());
    for spelling in ["00-11-22-33-44-55", "0011.2233.4455", "001122334455", "00 11 22 33 44 55", "001122-334455"] {
        assert_eq!(tag(&with("/devices/0/cm_mac", json!(spelling))), first, "{spelling}");
    }
}

#[test]
fn the_tag_follows_content_and_secrets_but_neither_order_nor_revision() {
    let account = |document: &Value| parsed(document).expect("good").account;
    let none = SecretDigests::new();
    let first = content_tag(&account(&whole()), &none);
    assert_eq!(content_tag(&account(&with("/source_revision", json!(8))), &none), first);
    let mut reversed = whole();
    reversed["services"].as_array_mut().expect("services").reverse();
    assert_eq!(content_tag(&account(&reversed), &none), first);
    assert_ne!(content_tag(&account(&with("/name", json!("Ada King"))), &none), first);
    let secret = SecretDigests::from([(("100234-1".to_owned(), "radius.password".to_owned()), "d1".to_owned())]);
    assert_ne!(content_tag(&account(&whole()), &secret), first);
}

#[test]
fn the_number_of_faults_in_an_answer_has_a_bound() {
    let map: serde_json::Map<String, Value> = (0..5_000).map(|n| (format!("x{n}"), json!(n))).collect();
    assert_eq!(pointers(&Value::Object(map)).len(), 501);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["internet", "gw1", "res-100", "2026-11-01", "active", "next_cycle"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,4}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_anywhere_makes_the_door_panic(value in any_json(), place in any::<prop::sample::Index>()) {
        let pointers = leaves(&whole(), "");
        let document = with(&pointers[place.index(pointers.len())], value.clone());
        let _ = parsed(&document);
        let _ = parsed(&value);
        if let Ok(pushed) = parsed(&document) {
            let stored = serde_json::to_vec(&pushed.account).expect("serializes");
            let back: Account = serde_json::from_slice(&stored).expect("reads back");
            prop_assert_eq!(back, pushed.account);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = json::read(&bytes);
    }
}
