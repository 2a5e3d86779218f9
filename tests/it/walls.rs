//! Tenants are walls: every route of the OpenAPI document × method × role × another tenant's ids. What is another's is answered
//! byte for byte as what does not exist, and a route that nobody said here who may call it fails the test.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, Report, last_period, midnight, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::http::{self, Answer};
use crate::harness::wait_for;

const SOON: Duration = Duration::from_secs(60);
/// Stands in whatever the other tenant has.
const MARK: &str = "zzother";
const ROLES: [&str; 6] = ["push", "read", "csr", "operator", "billing", "admin"];

const EVERYBODY: &[&str] = &ROLES;
const PUSHERS: &[&str] = &["push", "admin"];
const HANDLERS: &[&str] = &["push", "csr", "operator", "admin"];
const OPERATORS: &[&str] = &["operator", "admin"];
const TRACERS: &[&str] = &["csr", "operator", "admin"];
const CHARGERS: &[&str] = &["push", "csr", "billing", "admin"];
const BILLERS: &[&str] = &["billing", "admin"];
const ADMINS: &[&str] = &["admin"];
const SENDERS: &[&str] = &["push", "operator", "admin"];

/// Who may call a route, with which query and body a call is complete.
pub(crate) struct Row {
    pub route: &'static str,
    roles: &'static [&'static str],
    query: &'static str,
    body: Option<&'static str>,
    /// Its last word is a name and no id, so that another tenant's is not absent: a profile is everybody's, and a source is one of
    /// the caller's own by whatever name. The answer must be that of a name that nobody has.
    named: bool,
}

const fn row(route: &'static str, roles: &'static [&'static str]) -> Row {
    Row { route, roles, query: "", body: None, named: false }
}

const fn asked(route: &'static str, roles: &'static [&'static str], query: &'static str) -> Row {
    Row { route, roles, query, body: None, named: false }
}

const fn told(route: &'static str, roles: &'static [&'static str], body: &'static str) -> Row {
    Row { route, roles, query: "", body: Some(body), named: false }
}

const fn named(route: &'static str, roles: &'static [&'static str], body: Option<&'static str>) -> Row {
    Row { route, roles, query: "", body, named: true }
}

/// The matrix: below `/v1/tenants/{tenant}`.
pub(crate) const ROWS: &[Row] = &[
    row("GET /accounts", EVERYBODY),
    told("PUT /accounts/{id}", PUSHERS, r#"{"status": "active", "bill_cycle": "c15"}"#),
    row("GET /accounts/{id}", EVERYBODY),
    row("DELETE /accounts/{id}", PUSHERS),
    told("PATCH /accounts/{id}/services/{service}", PUSHERS, r#"{"plan": "res-300"}"#),
    row("POST /accounts/{id}/services/{service}/suspend", HANDLERS),
    row("POST /accounts/{id}/services/{service}/resume", HANDLERS),
    row("POST /accounts/{id}/services/{service}/reprovision", HANDLERS),
    row("GET /accounts/{account}/usage", EVERYBODY),
    row("GET /accounts/{id}/balance", EVERYBODY),
    row("GET /accounts/{id}/charges", EVERYBODY),
    told("POST /accounts/{id}/charges", CHARGERS, r#"{"type": "credit", "id": "w1", "amount": "1.00"}"#),
    row("GET /accounts/{id}/timeline", TRACERS),
    row("GET /audit", ADMINS),
    row("GET /batches", EVERYBODY),
    row("GET /batches/{id}", EVERYBODY),
    row("GET /batches/{id}/lines", EVERYBODY),
    row("POST /batches/{id}/ack", BILLERS),
    row("POST /batches/{id}/approve", BILLERS),
    row("POST /batches/{id}/discard", BILLERS),
    told("POST /bill-checks", BILLERS, r#"{"cycle": "c15"}"#),
    asked("GET /bill-findings", EVERYBODY, "cycle=c15"),
    told("POST /bill-findings/{id}/waive", BILLERS, r#"{"reason": "as agreed"}"#),
    told("POST /bill-runs", BILLERS, r#"{"cycle": "c15", "dry_run": true}"#),
    row("GET /bill-runs/{id}", EVERYBODY),
    row("GET /catalog", EVERYBODY),
    told("PUT /catalog", ADMINS, "[tenant]\nid = \"nobody\"\n"),
    row("GET /devices", EVERYBODY),
    row("GET /devices/{mac}", EVERYBODY),
    row("POST /devices/{mac}/reset", HANDLERS),
    row("GET /events", EVERYBODY),
    row("GET /exceptions", EVERYBODY),
    asked("GET /find", EVERYBODY, "q=eve"),
    row("GET /handshake", EVERYBODY),
    row("GET /handshake/descend", EVERYBODY),
    row("GET /held", EVERYBODY),
    row("GET /held/{held}", EVERYBODY),
    row("POST /held/{held}/release", OPERATORS),
    row("POST /held/{held}/drop", OPERATORS),
    row("GET /held-corrections", EVERYBODY),
    named("POST /ingest/{profile}", PUSHERS, Some(RECORD)),
    row("GET /ingests", EVERYBODY),
    row("GET /ingests/{ingest}", EVERYBODY),
    row("POST /ingests/{ingest}/replay", HANDLERS),
    row("GET /invoice-lines", EVERYBODY),
    row("GET /invoice-lines/{id}/explain", EVERYBODY),
    row("GET /jobs", EVERYBODY),
    row("GET /jobs/{job}", EVERYBODY),
    row("POST /jobs/{job}/retry", HANDLERS),
    row("GET /quarantine", EVERYBODY),
    row("GET /rollouts", EVERYBODY),
    told("POST /rollouts", OPERATORS, r#"{"which": "behind", "dry_run": true}"#),
    row("GET /rollouts/{rollout}", EVERYBODY),
    row("POST /rollouts/{rollout}/pause", OPERATORS),
    row("POST /rollouts/{rollout}/resume", OPERATORS),
    row("POST /rollouts/{rollout}/cancel", OPERATORS),
    row("POST /rollouts/{rollout}/rollback", OPERATORS),
    row("GET /sessions", EVERYBODY),
    row("GET /sessions/{session}", EVERYBODY),
    row("POST /sessions/{session}/disconnect", OPERATORS),
    row("GET /sources", EVERYBODY),
    named("GET /sources/{source}/observations", EVERYBODY, None),
    named("POST /sources/{source}/epoch", OPERATORS, None),
    asked("GET /subscriber-counts", EVERYBODY, "on=2026-11-15"),
    row("GET /syncs", EVERYBODY),
    told("POST /syncs", SENDERS, r#"{"id": "1", "status": "active", "bill_cycle": "c15"}"#),
    row("GET /syncs/{id}", EVERYBODY),
    row("GET /syncs/{id}/plan", EVERYBODY),
    row("GET /syncs/{id}/report", EVERYBODY),
    told("POST /syncs/{id}/apply", SENDERS, r#"{"plan": "0"}"#),
    row("GET /webhooks", EVERYBODY),
    told("POST /webhooks", ADMINS, r#"{"url": "https://8.8.8.8/hook"}"#),
    row("GET /webhooks/{id}", EVERYBODY),
    told("PATCH /webhooks/{id}", ADMINS, r#"{"state": "disabled"}"#),
    row("DELETE /webhooks/{id}", ADMINS),
    row("POST /webhooks/{id}/rotate", ADMINS),
    row("GET /webhooks/{id}/deliveries", EVERYBODY),
    told("POST /webhooks/{id}/replay", OPERATORS, r#"{"dead": true}"#),
    row("POST /webhooks/{id}/test", OPERATORS),
    asked("GET /who", TRACERS, "address=10.0.0.7"),
];

/// A record whose cycle is in no catalog: it is put aside.
const RECORD: &str = "Cust#;Name;Package;Modem;Tel;State of account;Monthly charges;Bill day\n\
                      W-1;Doe, Jane;RES-100;02:00:5e:10:20:3b;;live;49,95;77\nEND;1;\n";
const PROFILE: &str = "homegrown-csv";

/// The faces of TM Forum, whose addresses name no tenant: the key does.
const FACES: &[Row] = &[
    row("GET /tmf-api/ServiceActivationAndConfiguration/v4/service", EVERYBODY),
    told(
        "POST /tmf-api/ServiceActivationAndConfiguration/v4/service",
        PUSHERS,
        r#"{"state": "active", "serviceSpecification": {"id": "res-100"}, "id": "made",
            "relatedParty": [{"id": "made-1", "role": "customer"}],
            "serviceCharacteristic": [{"name": "radius", "value": {"username": "made@acme"}}]}"#,
    ),
    row("GET /tmf-api/ServiceActivationAndConfiguration/v4/service/{service}", EVERYBODY),
    told(
        "PATCH /tmf-api/ServiceActivationAndConfiguration/v4/service/{service}",
        PUSHERS,
        r#"{"serviceSpecification": {"id": "res-300"}}"#,
    ),
    row("DELETE /tmf-api/ServiceActivationAndConfiguration/v4/service/{service}", PUSHERS),
    row("GET /tmf-api/ServiceActivationAndConfiguration/v4/monitor", EVERYBODY),
    row("GET /tmf-api/ServiceActivationAndConfiguration/v4/monitor/{monitor}", EVERYBODY),
    told(
        "POST /tmf-api/ServiceActivationAndConfiguration/v4/hub",
        ADMINS,
        r#"{"callback": "https://8.8.8.8/listener", "query": "eventType=ServiceCreateEvent"}"#,
    ),
    row("DELETE /tmf-api/ServiceActivationAndConfiguration/v4/hub/{listener}", ADMINS),
    row("GET /tmf-api/serviceInventory/v4/service", EVERYBODY),
    row("GET /tmf-api/serviceInventory/v4/service/{service}", EVERYBODY),
    asked("GET /tmf-api/usageManagement/v4/usage", EVERYBODY, "relatedParty.id=acme-1"),
    row("GET /tmf-api/usageManagement/v4/usage/{usage}", EVERYBODY),
    row("GET /tmf-api/customerBillManagement/v4/appliedCustomerBillingRate", EVERYBODY),
    row("GET /tmf-api/customerBillManagement/v4/appliedCustomerBillingRate/{line}", EVERYBODY),
    row("GET /tmf-api/customerBillManagement/v4/billCycle", EVERYBODY),
    row("GET /tmf-api/customerBillManagement/v4/billCycle/{cycle}", EVERYBODY),
];

/// An account is made by naming it: with another tenant's id it becomes one of the caller's own.
const CREATES: &str = "PUT /accounts/{id}";

/// Routes of a service that a key bound to another source must not find either, by the ids in them.
const OF_A_SOURCE: [&str; 7] =
    ["{id}/services", "{account}", "/accounts/{id}", "{job}", "{mac}", "{session}", "/syncs/{id}"];

pub(crate) struct Walls {
    pub site: Site,
    daemon: Daemon,
    pub keys: BTreeMap<&'static str, String>,
    /// Ids of things of the other tenant, and of nothing.
    theirs: BTreeMap<String, String>,
    nothing: BTreeMap<String, String>,
}

impl Walls {
    pub fn over(site: Site) -> Self {
        let source = |tenant: &str| {
            format!(
                "[[source]]\ntenant = \"{tenant}\"\nsource = \"{tenant}-crm\"\nprofile = \"{PROFILE}\"\n\
                 breaker = {{ percent = 0, accounts = 0 }}\n"
            )
        };
        site.edit("[log]", &format!("{}{}[log]", source("acme"), source("zzother")));
        site.prepare(CATALOG);
        let other = CATALOG
            .replace("id = \"acme\"", "id = \"zzother\"")
            .replace("\"acme.example\"", "\"zzother.example\"")
            .replace("realms = [\"acme\"]", "realms = [\"zzother\"]");
        let path = site.path("zzother.toml");
        std::fs::write(&path, other).expect("a catalog");
        site.succeed(&["catalog", "apply", &path.display().to_string()]);
        let keys = ROLES.map(|role| (role, site.key("acme", role))).into();
        let theirs = site.key("zzother", "admin");
        let daemon = site.start();
        let mut walls = Self { site, daemon, keys, theirs: BTreeMap::new(), nothing: BTreeMap::new() };
        walls.fill("zzother", &theirs, "00:11:22:0e:0e:01");
        let admin = walls.keys["admin"].clone();
        let own = walls.fill_only("acme", &admin, "00:11:22:0a:0a:01");
        assert_eq!(own.len(), walls.theirs.len());
        let nothing = |place: &str| match place {
            "{job}" | "{rollout}" | "{session}" | "{held}" | "{ingest}" => "999999999",
            "{mac}" => "00:11:22:0f:0f:0f",
            _ => "nobody-9",
        };
        walls.nothing = walls.theirs.keys().map(|place| (place.clone(), nothing(key_of(place)).to_owned())).collect();
        walls.keys.insert("theirs", theirs);
        walls
    }

    fn fill(&mut self, tenant: &str, key: &str, mac: &str) {
        self.theirs = self.fill_only(tenant, key, mac);
    }

    /// One of everything for a tenant, and the ids by their places in routes.
    fn fill_only(&self, tenant: &str, key: &str, mac: &str) -> BTreeMap<String, String> {
        let (start, _) = last_period(jiff::Timestamp::now());
        let (account, service) = (format!("{tenant}-1"), format!("{tenant}-svc"));
        let username = format!("eve@{tenant}");
        let document = json!({
            "status": "active", "bill_cycle": "c15", "name": format!("Eve of {tenant}"),
            "devices": [{ "id": "gw1", "cm_mac": mac }],
            "services": [{ "id": service, "type": "internet", "plan": "res-100", "device": "gw1",
                "billing_from": start.to_string(), "radius": { "username": username, "password": "correct horse" } }]
        });
        let api = |method: &str, path: &str, body: Option<&Value>| {
            let answer = self.daemon.api(key, method, &format!("{tenant}/{path}"), body);
            assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
            answer.json()
        };
        api("PUT", &format!("accounts/{account}"), Some(&document));
        let credit =
            json!({ "type": "credit", "id": format!("{tenant}-credit"), "amount": "500.00", "on": start.to_string() });
        api("POST", &format!("accounts/{account}/charges"), Some(&credit));
        let session = format!("{tenant}-session");
        let report = Report {
            user: &username,
            session: &session,
            kind: "Start",
            at: midnight(start),
            seconds: 0,
            in_octets: 0,
            out_octets: 0,
        };
        assert!(radclient(self.site.radius_port, &report), "the record is answered");
        let session = wait_for("the session is folded", SOON, || {
            let listed = api("GET", "sessions", None);
            listed["items"][0]["id"].as_i64()
        });
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no id in {value}")).to_owned();
        let run = api("POST", "bill-runs", Some(&json!({ "cycle": "c15" })));
        let period = json!({ "cycle": "c15" });
        let checked = api("POST", "bill-checks", Some(&period));
        let rollout = api("POST", "rollouts", Some(&json!({ "macs": [mac], "mode": "next_boot", "reason": tenant })));
        let jobs = api("GET", "jobs", None);
        let mut listed = document.clone();
        listed["id"] = json!(account);
        let sync = text(&api("POST", "syncs", Some(&listed))["id"]);
        wait_for("the list is compared", SOON, || {
            (api("GET", &format!("syncs/{sync}"), None)["state"] == "planned").then_some(())
        });
        let hook = api("POST", "webhooks", Some(&json!({ "url": "https://8.8.8.8/hook" })));
        let source = format!("{tenant}-crm");
        api(
            "PUT",
            &format!("accounts/{tenant}-2?source={source}"),
            Some(&json!({ "status": "active", "bill_cycle": "c15" })),
        );
        let held = api("DELETE", &format!("accounts/{tenant}-2?source={source}"), None);
        let bearer = format!("Bearer {key}");
        let path = format!("/v1/tenants/{tenant}/ingest/{PROFILE}?source={source}");
        let record = RECORD.replace("Doe, Jane", &format!("Eve of {tenant}"));
        let sent = http::request(self.site.http_port, "POST", &path, &[("Authorization", &bearer)], Some(&record));
        let sent = sent.expect("an answer");
        [
            ("/accounts/{id}", account.clone()),
            ("/accounts/{account}", account),
            ("/services/{service}", service),
            ("/batches/{id}", text(&run["batch"])),
            ("/bill-runs/{id}", text(&run["batch"])),
            ("/bill-findings/{id}", text(&checked["findings"][0]["id"])),
            ("/invoice-lines/{id}", text(&run["lines"][0]["id"])),
            ("/jobs/{job}", text(&jobs["items"][0]["id"])),
            ("/devices/{mac}", mac.to_owned()),
            ("/rollouts/{rollout}", text(&rollout["id"])),
            ("/sessions/{session}", session.to_string()),
            ("/syncs/{id}", sync),
            ("/webhooks/{id}", text(&hook["id"])),
            ("/held/{held}", text(&held["held"]["id"])),
            ("/ingests/{ingest}", text(&sent.json()["ingest"])),
            ("/ingest/{profile}", PROFILE.to_owned()),
            ("/sources/{source}", source),
        ]
        .map(|(place, id)| (place.to_owned(), id))
        .into()
    }

    fn call(&self, key: Option<&str>, tenant: &str, row: &Row, ids: &BTreeMap<String, String>, query: &str) -> Answer {
        let (method, path) = row.route.split_once(' ').expect("a method and a path");
        let mut path = path.to_owned();
        for (place, id) in ids {
            path = path.replace(place, &place.replace(key_of(place), id));
        }
        assert!(!path.contains('{'), "{path}: the test has no such id");
        let queries: Vec<&str> = [row.query, query].into_iter().filter(|query| !query.is_empty()).collect();
        let mark = if queries.is_empty() { "" } else { "?" };
        let address = format!("/v1/tenants/{tenant}{path}{mark}{}", queries.join("&"));
        let bearer = key.map(|key| format!("Bearer {key}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        http::request(self.site.http_port, method, &address, &headers, row.body).expect("an answer")
    }
}

/// The name in braces at the end of a place.
pub(crate) fn key_of(place: &str) -> &str {
    &place[place.rfind('{').expect("a name in braces")..]
}

/// What a caller can see of an answer.
fn face(answer: &Answer) -> (u16, Option<String>, String) {
    (answer.status, answer.header("content-type").map(str::to_owned), answer.body.clone())
}

#[test]
fn every_route_has_its_row_and_every_row_a_route() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let _daemon = site.start();
    let document = http::request(site.http_port, "GET", "/openapi.json", &[], None).expect("an answer").json();
    let faces = document["paths"].as_object().expect("paths").iter().filter(|(path, _)| path.starts_with("/tmf-api/"));
    let faces = faces.flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").keys();
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    let rows: BTreeSet<String> = FACES.iter().map(|row| row.route.to_owned()).collect();
    assert_eq!(rows, faces.collect::<BTreeSet<_>>(), "say in FACES who may call a route");
    let routes = routes(&document);
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.route.to_owned()).collect();
    assert_eq!(rows, routes.keys().cloned().collect::<BTreeSet<_>>(), "say in ROWS who may call a route");
}

/// Routes below a tenant, with their query parameters.
fn routes(document: &Value) -> BTreeMap<String, Vec<String>> {
    let mut routes = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let Some(path) = path.strip_prefix("/v1/tenants/{tenant}") else {
            assert!(!path.starts_with("/v1"), "{path} is not below a tenant");
            continue;
        };
        for (method, operation) in methods.as_object().expect("methods") {
            let queries = operation["parameters"].as_array().into_iter().flatten().filter(|one| one["in"] == "query");
            let names = queries.filter_map(|one| one["name"].as_str()).map(str::to_owned).collect();
            routes.insert(format!("{} {path}", method.to_uppercase()), names);
        }
    }
    routes
}

#[test]
fn no_role_reaches_another_tenant_by_any_route_method_or_id() {
    let walls = Walls::over(Site::sqlite());
    let document = http::request(walls.site.http_port, "GET", "/openapi.json", &[], None).expect("an answer").json();
    let routes = routes(&document);
    // How far its modem and login are, and which deeds are sealed, moves by itself.
    let still = |mut value: Value| {
        for item in value["items"].as_array_mut().into_iter().flatten() {
            for service in item["services"].as_array_mut().into_iter().flatten() {
                service["provisioning"] = Value::Null;
            }
            if item["action"].is_string() {
                item["sequence"] = Value::Null;
            }
        }
        let told = value["items"].as_array_mut();
        told.into_iter().for_each(|told| told.retain(|one| !one["type"].to_string().contains("service.")));
        value.to_string()
    };
    let theirs = |path: &str| {
        let answer = walls.daemon.api(&walls.keys["theirs"], "GET", &format!("zzother/{path}"), None);
        still(serde_json::from_str(&answer.body).unwrap_or_else(|_| json!(answer.body)))
    };
    let watched = [
        "accounts",
        "sessions",
        "batches",
        "invoice-lines",
        "events",
        "catalog",
        "audit?action=account.",
        "audit?action=bill.",
        "audit?action=charge.",
        "audit?action=session.",
        "audit?action=change.",
        "audit?action=source.",
        "held",
        "ingests",
        "sources",
        "accounts/zzother-1/charges",
    ];
    let before = watched.map(theirs);
    let wrong: RefCell<Vec<String>> = RefCell::default();
    let fault = |text: String| wrong.borrow_mut().push(text);
    let made: BTreeMap<String, String> = [("/accounts/{id}".to_owned(), "made-1".to_owned())].into();
    // Last those that make things of the caller's own by the other's name.
    for row in ROWS.iter().filter(|row| !row.named).chain(ROWS.iter().filter(|row| row.named)) {
        let queries = &routes[row.route];
        let has_id = row.route.contains('{') && row.route != CREATES;
        for (who, key) in walls.keys.iter().filter(|(who, _)| **who != "theirs") {
            let same = |what: &str, found: &Answer, expected: &Answer| {
                if face(found) != face(expected) {
                    fault(format!("{} as {who}, {what}: {:?}, not {:?}", row.route, face(found), face(expected)));
                }
            };
            let call = |tenant: &str, ids, query: &str| walls.call(Some(key), tenant, row, ids, query);
            // Another tenant's address, with real ids, is that of a tenant that does not exist.
            let nobody = call("nobody", &walls.nothing, "");
            same("their address", &call("zzother", &walls.theirs, ""), &nobody);
            if nobody.status != 404 {
                fault(format!("{} as {who}: a tenant that does not exist gave {:?}", row.route, face(&nobody)));
            }
            let may = row.roles.contains(who);
            if row.named {
                let (found, absent) = match row.route.contains("{profile}") {
                    true => {
                        let to = |source: &str| call("acme", &walls.theirs, &format!("source={source}"));
                        (to("zzother-crm"), to("nobody-9"))
                    }
                    false => (call("acme", &walls.theirs, ""), call("acme", &walls.nothing, "")),
                };
                let plain = |answer: &Answer| {
                    let mut body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                    // Its own number, and the name that the caller gave.
                    for key in ["ingest", "source"] {
                        if body[key].is_string() {
                            body[key] = json!("");
                        }
                    }
                    (answer.status, answer.header("content-type").map(str::to_owned), body)
                };
                if plain(&found) != plain(&absent) || found.body.contains("Eve of zzother") {
                    fault(format!("{} as {who}, their name: {:?}, not {:?}", row.route, face(&found), face(&absent)));
                }
                if may == matches!(found.status, 401 | 403) || found.status == 404 {
                    fault(format!("{} as {who}: {} {}", row.route, found.status, found.body));
                }
            } else if has_id {
                // Their ids below the caller's own address are ids of nothing.
                let found = call("acme", &walls.theirs, "");
                same("their ids", &found, &call("acme", &walls.nothing, ""));
                if found.status != if may { 404 } else { 403 } {
                    fault(format!("{} as {who}: {} {}", row.route, found.status, found.body));
                }
            } else {
                let ids = if row.route == CREATES { &made } else { &walls.nothing };
                let found = call("acme", ids, "");
                if may == matches!(found.status, 401 | 403) || found.status == 404 {
                    fault(format!("{} as {who}: {} {}", row.route, found.status, found.body));
                }
                if found.body.contains(MARK) {
                    fault(format!("{} as {who} shows theirs: {}", row.route, found.body));
                }
            }
            // Nor does a filter reach over.
            let filters =
                [("account", "/accounts/{id}"), ("batch", "/batches/{id}"), ("of", ""), ("mac", "/devices/{mac}")];
            for (name, place) in filters.iter().filter(|(name, _)| queries.iter().any(|query| query == name)) {
                let id = walls.theirs.get(*place).map_or("zzother", String::as_str);
                let absent = walls.nothing.get(*place).map_or("nobody", String::as_str);
                let found = call("acme", &walls.nothing, &format!("{name}={id}"));
                same(name, &found, &call("acme", &walls.nothing, &format!("{name}={absent}")));
            }
        }
        for key in [None, Some("lm_0000000000000000000000000000000000000000000000000000000000000000")] {
            let found = walls.call(key, "acme", row, &walls.nothing, "");
            let theirs = walls.call(key, "zzother", row, &walls.theirs, "");
            if found.status != 401 || face(&found) != face(&theirs) {
                fault(format!("{} without a key: {} {}", row.route, found.status, theirs.status));
            }
        }
    }
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(watched.map(theirs), before, "nothing of theirs was touched");
}

impl Walls {
    fn face(&self, key: Option<&str>, row: &Row, ids: &BTreeMap<&str, String>, query: &str, tenant: &str) -> Answer {
        let (method, path) = row.route.split_once(' ').expect("a method and a path");
        let path = ids.iter().fold(path.to_owned(), |path, (name, id)| path.replace(name, id));
        assert!(!path.contains('{'), "{path}: the test has no such id");
        let queries: Vec<&str> = [row.query, query].into_iter().filter(|query| !query.is_empty()).collect();
        let mark = if queries.is_empty() { "" } else { "?" };
        let bearer = key.map(|key| format!("Bearer {key}"));
        let mut headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        if !tenant.is_empty() {
            headers.push(("Lastmile-Tenant", tenant));
        }
        let address = format!("{path}{mark}{}", queries.join("&"));
        http::request(self.site.http_port, method, &address, &headers, row.body).expect("an answer")
    }
}

#[test]
fn no_role_reaches_another_tenant_by_a_face_of_tm_forum() {
    let walls = Walls::over(Site::sqlite());
    let listener = FACES.iter().find(|row| row.route.contains("POST") && row.route.ends_with("/hub")).expect("a row");
    let made = walls.face(Some(&walls.keys["theirs"]), listener, &BTreeMap::new(), "", "");
    assert_eq!(made.status, 201, "{}", made.body);
    let text = |place: &str| walls.theirs[place].clone();
    let theirs: BTreeMap<&str, String> = [
        ("{service}", "zzother-1:zzother-svc".to_owned()),
        ("{monitor}", text("/jobs/{job}")),
        ("{listener}", made.json()["id"].as_str().expect("an id").to_owned()),
        ("{usage}", "zzother-1:1".to_owned()),
        ("{line}", text("/invoice-lines/{id}")),
        ("{cycle}", "zzother-cycle".to_owned()),
    ]
    .into();
    let nothing: BTreeMap<&str, String> = [
        ("{service}", "nobody-9:nobody-9".to_owned()),
        ("{monitor}", "999999999".to_owned()),
        ("{listener}", "nobody-9".to_owned()),
        ("{usage}", "nobody-9:1".to_owned()),
        ("{line}", "nobody-9".to_owned()),
        ("{cycle}", "nobody-9".to_owned()),
    ]
    .into();
    let account = || {
        let mut account = walls.daemon.api(&walls.keys["theirs"], "GET", "zzother/accounts/zzother-1", None).json();
        account["services"][0]["provisioning"] = Value::Null;
        account
    };
    let before = account();
    let mut wrong = Vec::new();
    for row in FACES {
        let has_id = row.route.contains('{');
        for (who, key) in walls.keys.iter().filter(|(who, _)| **who != "theirs") {
            let call = |ids, query: &str, tenant: &str| walls.face(Some(key), row, ids, query, tenant);
            let mut same = |what: &str, found: &Answer, expected: &Answer| {
                if face(found) != face(expected) {
                    wrong.push(format!("{} as {who}, {what}: {:?}, not {:?}", row.route, face(found), face(expected)));
                }
            };
            // Whoever names another tenant is told the same as whoever names none that there is.
            let nobody = call(&nothing, "", "nobody");
            same("their name", &call(&theirs, "", "zzother"), &nobody);
            let may = row.roles.contains(who);
            let found = call(&theirs, "", "");
            if has_id {
                same("their ids", &found, &call(&nothing, "", ""));
            }
            for filter in ["relatedParty.id", "billingAccount.id"] {
                let knows = |word: &str| row.route.starts_with("GET") && row.route.ends_with(word);
                if (filter == "relatedParty.id" && knows("/service"))
                    || (filter == "billingAccount.id" && knows("Rate"))
                {
                    let absent = call(&nothing, &format!("{filter}=nobody-9"), "");
                    same(filter, &call(&nothing, &format!("{filter}=zzother-1"), ""), &absent);
                }
            }
            if nobody.status != 404 {
                wrong.push(format!("{} as {who}: a tenant that does not exist gave {:?}", row.route, face(&nobody)));
            }
            let expected = match (may, has_id) {
                (false, _) => found.status == 403,
                (true, true) => found.status == 404,
                // The second who orders finds it there.
                (true, false) => found.status < 300 || found.status == 409,
            };
            if !expected || (row.body.is_none() && found.body.contains(MARK)) {
                wrong.push(format!("{} as {who}: {} {}", row.route, found.status, found.body));
            }
            if found.status >= 400 && (found.json()["@type"] != "Error" || found.json()["code"].is_null()) {
                wrong.push(format!("{} as {who} is refused in another shape: {}", row.route, found.body));
            }
        }
        let unknown = "lm_0000000000000000000000000000000000000000000000000000000000000000";
        for key in [None, Some(unknown)] {
            let (found, named) = (walls.face(key, row, &theirs, "", ""), walls.face(key, row, &theirs, "", "zzother"));
            if found.status != 401 || face(&found) != face(&named) {
                wrong.push(format!("{} without a key: {} {}", row.route, found.status, named.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(account(), before, "nothing of theirs was touched");
    let gone = walls.face(Some(&walls.keys["theirs"]), &FACES[8], &theirs, "", "");
    assert_eq!(gone.status, 204, "their listener is still there: {}", gone.body);
    // A key of one source finds nothing of another's.
    let made = walls.site.json(&["key", "create", "--tenant", "acme", "--role", "admin", "--source", "elsewhere"]);
    let bound = made["key"].as_str().expect("a key");
    let own: BTreeMap<&str, String> = [("{service}", "acme-1:acme-svc".to_owned()), ("{usage}", "acme-1:1".to_owned())]
        .into_iter()
        .chain([("{monitor}", walls.ids_of_acme()["/jobs/{job}"].clone()), ("{line}", own_line(&walls))])
        .collect();
    for row in FACES.iter().filter(|row| own.keys().any(|name| row.route.contains(*name))) {
        let found = walls.face(Some(bound), row, &own, "", "");
        assert_eq!(face(&found), face(&walls.face(Some(bound), row, &nothing, "", "")), "{}", row.route);
        assert_eq!(found.status, 404, "{}: {}", row.route, found.body);
    }
    for row in FACES.iter().filter(|row| row.route.starts_with("GET") && !row.route.contains('{')) {
        let found = walls.face(Some(bound), row, &own, "", "");
        let empty = row.route.ends_with("billCycle") || found.body == "[]";
        assert!(found.status == 200 && empty, "{}: {} {}", row.route, found.status, found.body);
    }
}

fn own_line(walls: &Walls) -> String {
    let lines = walls.daemon.api(&walls.keys["admin"], "GET", "acme/invoice-lines?limit=1", None).json();
    lines["items"][0]["id"].as_str().expect("a line").to_owned()
}

#[test]
fn a_key_of_one_source_reaches_no_other_source() {
    let walls = Walls::over(Site::sqlite());
    let mut wrong = Vec::new();
    let own = walls.ids_of_acme();
    for role in ROLES {
        let made = walls.site.json(&["key", "create", "--tenant", "acme", "--role", role, "--source", "elsewhere"]);
        let key = made["key"].as_str().expect("a key");
        for row in ROWS.iter().filter(|row| row.route != CREATES && row.roles.contains(&role)) {
            if OF_A_SOURCE.iter().any(|place| row.route.contains(place)) {
                let found = walls.call(Some(key), "acme", row, &own, "");
                let absent = walls.call(Some(key), "acme", row, &walls.nothing, "");
                if found.status != 404 || face(&found) != face(&absent) {
                    wrong.push(format!("{} as {role}: {} {}", row.route, found.status, found.body));
                }
            }
            if ["GET /accounts", "GET /jobs", "GET /devices", "GET /sessions", "GET /syncs"].contains(&row.route) {
                let found = walls.call(Some(key), "acme", row, &own, "");
                if found.json()["items"] != json!([]) {
                    wrong.push(format!("{} as {role} lists another source's: {}", row.route, found.body));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

impl Walls {
    /// The ids of what `acme` has; of accounts those in the source `default`.
    pub fn ids_of_acme(&self) -> BTreeMap<String, String> {
        let first = |path: &str| {
            let listed = self.daemon.api(&self.keys["admin"], "GET", &format!("acme/{path}"), None).json();
            let id = &listed["items"][0]["id"];
            id.as_str().map_or_else(|| id.to_string(), str::to_owned)
        };
        let mut ids = self.nothing.clone();
        ids.insert("/accounts/{id}".to_owned(), "acme-1".to_owned());
        ids.insert("/accounts/{account}".to_owned(), "acme-1".to_owned());
        ids.insert("/services/{service}".to_owned(), "acme-svc".to_owned());
        ids.insert("/jobs/{job}".to_owned(), first("jobs"));
        ids.insert("/sessions/{session}".to_owned(), first("sessions"));
        ids.insert("/devices/{mac}".to_owned(), "00:11:22:0a:0a:01".to_owned());
        for (place, path) in [
            ("/batches/{id}", "batches"),
            ("/webhooks/{id}", "webhooks"),
            ("/held/{held}", "held"),
            ("/ingests/{ingest}", "ingests"),
        ] {
            ids.insert(place.to_owned(), first(path));
        }
        ids.insert("/ingest/{profile}".to_owned(), PROFILE.to_owned());
        ids.insert("/sources/{source}".to_owned(), "acme-crm".to_owned());
        ids.insert("/syncs/{id}".to_owned(), first("syncs"));
        ids
    }
}
