//! What the faces show, beside files that a reviewer reads (`tests/golden/tmf`), and orders read and refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::account::{Account, Known, KnownPlan, ServiceType};
use crate::billing::calendar::{BillCycle, Every};
use crate::billing::lines::Line;
use crate::provision::{CmAccess, CmContent, Content, ElementKind};
use crate::vocabulary::{SourceId, Timestamp, Zone, parse_instant};

fn at(text: &str) -> Timestamp {
    parse_instant(text).expect("an instant")
}

fn golden(name: &str, found: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tmf").join(format!("{name}.json"));
    let found = format!("{found:#}\n");
    if std::env::var("LASTMILE_GOLDEN").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, &found).expect("the golden file can be written");
    }
    assert_eq!(found, std::fs::read_to_string(&path).expect("the golden file"), "{name} differs");
}

fn id(item: &str) -> ItemId {
    ItemId { source: SourceId::default(), account: "100234".to_owned(), item: item.to_owned() }
}

fn account() -> Account {
    serde_json::from_value(json!({
        "status": "active", "kind": "person", "name": "Ada Lovelace", "bill_cycle": "c15",
        "devices": [{ "id": "gw1", "cm_mac": "00:11:22:33:44:55", "model": "arris-tm3402" }],
        "services": [
            { "id": "100234-1", "type": "internet", "plan": "res-100", "device": "gw1", "max_cpe": 2,
              "radius": { "username": "ada@acme" }, "network_from": "2026-11-01T00:00:00Z",
              "attributes": { "description": "First floor", "note": [{ "text": "Dog in the garden" }],
                  "relatedParty": [{ "id": "100234", "name": "Ada Lovelace", "role": "user" }],
                  "serviceCharacteristic": [{ "name": "colour", "value": "red" }],
                  "serviceSpecification": { "id": "res-100", "name": "Residential", "version": "1.0.0" } } },
            { "id": "100234-2", "type": "internet", "plan": "res-300", "status": "pending",
              "radius": { "username": "ada2@acme" }, "attributes": { "state": "feasibilityChecked",
                  "serviceSpecification": { "id": "res-100", "name": "Residential" } } }
        ]
    }))
    .expect("an account")
}

fn modem(access: CmAccess) -> Content {
    let mac = "00:11:22:33:44:55".parse().expect("a MAC");
    Content::Cm(CmContent { access, ..CmContent::blocked(mac) })
}

fn known() -> Known {
    let plan = |service| KnownPlan { service, ..KnownPlan::default() };
    Known {
        plans: BTreeMap::from([
            ("res-100".to_owned(), plan(Some(ServiceType::Internet))),
            ("voice-basic".to_owned(), plan(Some(ServiceType::Voice))),
            ("static-ip".to_owned(), plan(None)),
        ]),
        bill_cycles: ["c1".to_owned(), "c15".to_owned()].into(),
        ..Known::default()
    }
}

#[test]
fn services_are_shown_as_in_the_golden_files() {
    let account = account();
    let provisioning =
        |state: &str| json!({ "state": state, "desired_revision": 2, "applied_revision": 1, "job": "7" });
    let show = |item: &str, applied: Option<&Content>, state: &str, base| {
        let desired = modem(CmAccess::Active);
        let elements = [(ElementKind::Cm, "00:11:22:33:44:55", Standing { desired: &desired, applied })];
        let seen = Seen {
            id: &id(item),
            account: &account,
            service: account.service(item).expect("a service"),
            created_at: Some(at("2026-10-30T09:00:00Z")),
            elements: &elements,
            provisioning: &provisioning(state),
        };
        service(&seen, base)
    };
    golden("service_reserved", &show("100234-1", None, "pending", ACTIVATION));
    golden("service_active", &show("100234-1", Some(&modem(CmAccess::Active)), "applied", INVENTORY));
    golden("service_feasibility_checked", &show("100234-2", None, "pending", ACTIVATION));
}

#[test]
fn monitors_are_shown_as_in_the_golden_file() {
    let of = |state, answer| {
        monitor(7, state, (ElementKind::Cm, "00:11:22:33:44:55"), 3, &[id("100234-1"), id("100234-2")], answer)
    };
    golden(
        "monitors",
        &json!([
            of(MonitorState::InProgress, None),
            of(MonitorState::InProgress, Some("no answer")),
            of(MonitorState::Completed, Some("the modem reports the file")),
            of(MonitorState::InError, Some("no such model")),
        ]),
    );
}

#[test]
fn usage_is_shown_as_in_the_golden_file() {
    let used = Used {
        id: id("12"),
        service: id("100234-1"),
        service_type: ServiceType::Internet,
        from: at("2026-11-01T00:00:00Z"),
        until: at("2026-11-01T01:00:00Z"),
        in_octets: 9_007_199_254_740_993,
        out_octets: 250,
        seconds: 3600,
        sessions: 1,
        cause: "usage".to_owned(),
        recorded_at: at("2026-11-01T01:00:05Z"),
        billed: true,
    };
    let call = Used { service_type: ServiceType::Voice, billed: false, cause: "call".to_owned(), ..used.clone() };
    golden("usage", &json!([usage(&used), usage(&call)]));
}

fn line(amount: &str, taxes: Value) -> Line {
    serde_json::from_value(json!({
        "id": "il_2026-11.x", "tenant": "acme", "account": "100234", "service": "100234-1", "charge": "access",
        "kind": "recurring", "cycle": "c15",
        "period": { "start": "2026-11-15T06:00:00Z", "end": "2026-12-15T06:00:00Z", "timezone": "America/Chicago" },
        "tariff": { "id": "res-100", "version": 1, "digest": "d1" }, "description": "Access", "quantity_raw": "1",
        "quantity": "1", "unit": "time", "allowance_used": "0", "tiers": [], "adjustments": [],
        "amount_exact": amount, "amount": amount, "rounding_residue": "0", "tax": taxes, "currency": "USD",
        "corrects": null, "usage": null, "batch": "acme.c15.2026-11.1", "created_at": "2026-11-15T06:00:07Z"
    }))
    .expect("a line")
}

#[test]
fn lines_and_cycles_are_shown_as_in_the_golden_files() {
    let exclusive = json!([{ "id": "vat", "rate": "10", "inclusive": false, "base": "49.95", "amount": "5.00" }]);
    let inclusive = json!([{ "id": "vat", "rate": "19.5", "inclusive": true, "base": "8.37", "amount": "1.63" }]);
    let source = SourceId::parse("splynx").expect("a source");
    golden(
        "applied_rates",
        &json!([rate(&line("49.95", exclusive), &source), rate(&line("-10.00", inclusive), &SourceId::default())]),
    );
    let monthly = BillCycle {
        id: "c15".to_owned(),
        anchor_day: 15,
        every: Every::Month,
        zone: Zone::get("America/Chicago").expect("a zone"),
        timezone: "America/Chicago".to_owned(),
    };
    golden("bill_cycle", &cycle(&monthly, "by a person", at("2026-11-20T00:00:00Z")).expect("a period"));
}

#[test]
fn an_amount_is_a_number_only_where_that_is_exact() {
    for (text, expected) in [
        ("49.95", json!(49.95)),
        ("10.00", json!(10)),
        ("-0.50", json!(-0.5)),
        ("0", json!(0)),
        ("92233720368547758.07", json!("92233720368547758.07")),
        ("0.1000000000000000055511151231257827", json!("0.1000000000000000055511151231257827")),
    ] {
        assert_eq!(number(text), expected, "{text}");
    }
}

#[test]
fn events_are_told_as_in_the_golden_file() {
    let payload = json!({ "account": "100234", "source": "default", "service": "100234-1" });
    let failed = json!({
        "account": "7", "source": "splynx", "service": "7/1", "element": { "kind": "cm", "key": "00:11:22:33:44:55" },
        "reason": "no such model"
    });
    let kinds = ["service.created", "service.changed", "service.provisioned", "service.closed", "service.failed"];
    let told = kinds.map(|kind| {
        let payload = if kind == "service.failed" { &failed } else { &payload };
        envelope("acme.41", kind, at("2026-11-01T00:00:00Z"), payload).expect("an event of theirs")
    });
    golden("events", &json!(told));
}

fn order() -> Value {
    json!({
        "state": "active", "name": "First floor", "note": [{ "text": "Dog in the garden" }],
        "serviceSpecification": { "id": "res-100", "name": "Residential" },
        "relatedParty": [{ "id": "100234", "name": "Ada Lovelace", "role": "Customer", "@referredType": "Customer" },
            { "id": "acme", "role": "tenant", "@referredType": "Organization" }],
        "serviceCharacteristic": [
            { "name": "colour", "value": "red" },
            { "name": "billCycle", "value": "c15" },
            { "name": "device", "value": { "cm_mac": "00:11:22:33:44:55", "model": "arris-tm3402" } },
            { "name": "radius", "value": { "username": "ada@acme", "password": "correct horse" } }
        ]
    })
}

#[test]
fn an_order_becomes_the_document_of_the_golden_file() {
    let now = at("2026-11-20T00:00:00Z");
    let order = Order::read(&order(), true).expect("an order");
    assert_eq!(order.tenant.as_ref().map(|tenant| tenant.as_str()), Some("acme"));
    let (first, place) = order.document(None, "s-1", &known(), now).expect("a document");
    assert_eq!(place, 0);
    // A second service beside what is stored leaves the rest as it is.
    let other = Order::read(
        &json!({
            "state": "reserved", "startDate": "2026-12-01T00:00:00Z",
            "serviceSpecification": { "id": "voice-basic" }, "relatedParty": [{ "id": "100234", "role": "customer" }],
            "serviceCharacteristic": [{ "name": "device", "value": "gw1" },
                { "name": "lines", "value": [{ "port": 1, "number": "+15125550100" }] }]
        }),
        true,
    )
    .expect("an order");
    let (second, place) = other.document(Some(&account()), "100234-3", &known(), now).expect("a document");
    assert_eq!((place, second["services"].as_array().map(Vec::len)), (2, Some(3)));
    golden("orders", &json!([first, second["services"][2]]));
}

#[test]
fn a_change_leaves_what_it_does_not_name() {
    let now = at("2026-11-20T00:00:00Z");
    let changed = |patch: Value| {
        let order = Order::read(&patch, false).expect("a change");
        order.document(Some(&account()), "100234-1", &known(), now).expect("a document").0
    };
    let nothing = changed(json!({}));
    assert_eq!(nothing, json!(account()), "an empty change is none");
    let held = changed(json!({ "state": "suspended" }));
    assert_eq!(held["services"][0]["status"], "suspended");
    assert_eq!(held["services"][0]["radius"], json!({ "username": "ada@acme" }));
    let resumed = changed(json!({ "state": "active" }));
    assert_eq!(resumed["services"][0].get("status"), None);
    let waits = changed(json!({ "state": "designed" }));
    assert_eq!(waits["services"][0]["attributes"]["state"], "designed");
    let characteristics = changed(json!({ "serviceCharacteristic": [
        { "name": "max_cpe", "value": null }, { "name": "colour", "value": "blue" }, { "name": "floor", "value": 1 },
        { "name": "radius", "value": { "password": null } }
    ] }));
    let service = &characteristics["services"][0];
    assert_eq!(service.get("max_cpe"), None);
    assert_eq!(service["radius"], json!({ "username": "ada@acme", "password": null }));
    assert_eq!(
        service["attributes"]["serviceCharacteristic"],
        json!([{ "name": "colour", "value": "blue" }, { "name": "floor", "value": 1 }])
    );
    let renamed = changed(json!({ "serviceSpecification": { "id": "res-100" }, "description": null }));
    let attributes = &renamed["services"][0]["attributes"];
    assert_eq!((attributes.get("serviceSpecification"), attributes.get("description")), (None, None));
}

#[test]
fn what_is_shown_can_be_sent_back_and_changes_nothing_that_matters() {
    let account = account();
    let desired = modem(CmAccess::Active);
    let shown = service(
        &Seen {
            id: &id("100234-1"),
            account: &account,
            service: account.service("100234-1").expect("a service"),
            created_at: Some(at("2026-10-30T09:00:00Z")),
            elements: &[(
                ElementKind::Cm,
                "00:11:22:33:44:55",
                Standing { desired: &desired, applied: Some(&desired) },
            )],
            provisioning: &json!({ "state": "applied" }),
        },
        ACTIVATION,
    );
    let order = Order::read(&shown, false).expect("a change");
    let (document, _) =
        order.document(Some(&account), "100234-1", &known(), at("2026-11-20T00:00:00Z")).expect("a document");
    let without_attributes = |mut document: Value| {
        document["services"][0].as_object_mut().expect("a service").shift_remove("attributes");
        document
    };
    assert_eq!(without_attributes(document), without_attributes(json!(account)));
}

#[test]
fn ending_a_service_frees_the_device_that_nothing_else_needs() {
    let left = without(&account(), "100234-1");
    assert_eq!((left["services"].as_array().map(Vec::len), &left["devices"]), (Some(1), &json!([])));
    let left = without(&account(), "100234-2");
    assert_eq!(left["devices"].as_array().map(Vec::len), Some(1));
}

fn faults(body: &Value, whole: bool) -> Vec<(String, String)> {
    let faults = Order::read(body, whole).expect_err("faults");
    faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
}

#[test]
fn a_wrong_order_is_refused_with_every_fault_and_its_place() {
    let pointers =
        |body: Value| -> Vec<String> { faults(&body, true).into_iter().map(|(pointer, _)| pointer).collect() };
    assert_eq!(pointers(json!([])), [""]);
    assert_eq!(pointers(json!({})), ["/state", "/serviceSpecification", "/relatedParty"]);
    let mut wrong = order();
    wrong["state"] = json!("on");
    wrong["serviceSpecification"] = json!({ "name": "Residential" });
    wrong["endDate"] = json!("2027-01-01T00:00:00Z");
    wrong["name"] = json!(7);
    wrong["note"] = json!({});
    wrong["serviceCharacteristic"] = json!([{ "value": 1 }, { "name": "max_cpe" }, 5, { "name": "radius", "value": {} },
        { "name": "radius", "value": {} }]);
    let mut found = pointers(wrong);
    found.sort();
    assert_eq!(
        found,
        [
            "/endDate",
            "/name",
            "/note",
            "/serviceCharacteristic/0/name",
            "/serviceCharacteristic/1/value",
            "/serviceCharacteristic/2",
            "/serviceCharacteristic/4/name",
            "/serviceSpecification/id",
            "/state",
        ]
    );
    let mut two = order();
    two["relatedParty"] = json!([{ "id": "1", "role": "customer" }, { "id": "2", "role": "user" }]);
    assert_eq!(pointers(two), ["/relatedParty/1/id"]);
    let mut nobody = order();
    nobody["relatedParty"] = json!([{ "id": "1", "role": "installer" }]);
    assert_eq!(pointers(nobody), ["/relatedParty"]);
    let mut ended = order();
    ended["state"] = json!("terminated");
    assert_eq!(pointers(ended), ["/state"]);
}

#[test]
fn what_the_catalog_does_not_know_is_refused_at_its_place() {
    let document = |plan: &str, cycle: bool, device: Value| {
        let mut body = order();
        body["serviceSpecification"] = json!({ "id": plan });
        let mut characteristics = vec![json!({ "name": "device", "value": device })];
        if cycle {
            characteristics.push(json!({ "name": "billCycle", "value": "c1" }));
        }
        body["serviceCharacteristic"] = json!(characteristics);
        let order = Order::read(&body, true).expect("an order");
        let faults = order.document(None, "s-1", &known(), at("2026-11-20T00:00:00Z")).expect_err("faults");
        faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
    };
    assert_eq!(document("gold", true, json!("gw1")), ["/serviceSpecification/id"]);
    assert_eq!(document("static-ip", true, json!("gw1")), ["/serviceSpecification/id"]);
    assert_eq!(document("res-100", false, json!("gw1")), ["/serviceCharacteristic"]);
    assert_eq!(document("res-100", true, json!(5)), ["/serviceCharacteristic/0/value"]);
    assert_eq!(document("res-100", true, json!({ "model": "x" })), ["/serviceCharacteristic/0/value"]);
}

#[test]
fn faults_of_the_document_are_told_where_the_order_says_it() {
    let order = Order::read(&order(), true).expect("an order");
    for (pointer, expected) in [
        ("/services/2/radius/username", "/serviceCharacteristic/3/value/username"),
        ("/services/2/device", "/serviceCharacteristic/2/value"),
        ("/devices/0/cm_mac", "/serviceCharacteristic/2/value/cm_mac"),
        ("/services/2/plan", "/serviceSpecification/id"),
        ("/services/2/status", "/state"),
        ("/services/2/attributes", ""),
        ("/services/2", ""),
        ("/services/2/lines", "/serviceCharacteristic"),
        ("/bill_cycle", "/serviceCharacteristic/1/value"),
        ("/name", "/relatedParty"),
        ("/services/20/plan", "/services/20/plan"),
    ] {
        assert_eq!(order.pointer(2, pointer), expected, "{pointer}");
    }
}
