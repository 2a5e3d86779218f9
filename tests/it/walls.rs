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

/// An account is made by naming it: with another tenant's id it becomes one of the caller's own.
const CREATES: &str = "PUT /accounts/{id}";

/// Routes of a service that a key bound to another source must not find either, by the ids in them.
const OF_A_SOURCE: [&str; 6] = ["{id}/services", "{account}", "/accounts/{id}", "{job}", "{mac}", "{session}"];

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
        let run = api("POST", "bill-runs", Some(&json!({ "cycle": "c15" })));
        let period = json!({ "cycle": "c15" });
        let checked = api("POST", "bill-checks", Some(&period));
        let rollout = api("POST", "rollouts", Some(&json!({ "macs": [mac], "mode": "next_boot", "reason": tenant })));
        let jobs = api("GET", "jobs", None);
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
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no id in {value}")).to_owned();
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
            if ["GET /accounts", "GET /jobs", "GET /devices", "GET /sessions"].contains(&row.route) {
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
        ids
    }
}
