//! Another company's list beside ours, through the command line and over HTTP, on both databases: classes, sums, plan, guard,
//! apply; and the handshake with its reference script.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use lastmile::store::accounts::{self, ServiceChange};
use lastmile::store::{Store, drift};
use lastmile::vocabulary::AccountKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::acme::{CATALOG, Report, internet, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::truth::store_config;
use crate::harness::{http, run, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn lists_are_reconciled_and_applied_on_sqlite() {
    by_command(&Site::sqlite());
}

#[test]
fn lists_are_reconciled_and_applied_on_postgres() {
    by_command(&Site::postgres());
}

#[test]
fn lists_come_over_http_on_sqlite() {
    over_http(&Site::sqlite());
}

#[test]
fn lists_come_over_http_on_postgres() {
    over_http(&Site::postgres());
}

#[test]
fn plans_of_kept_lists_are_applied_by_command_on_sqlite() {
    kept_plans(&Site::sqlite());
}

#[test]
fn plans_of_kept_lists_are_applied_by_command_on_postgres() {
    kept_plans(&Site::postgres());
}

#[test]
fn handshake_agrees_with_its_reference_script_on_sqlite() {
    handshake(&Site::sqlite());
}

#[test]
fn handshake_agrees_with_its_reference_script_on_postgres() {
    handshake(&Site::postgres());
}

#[test]
fn what_lies_behind_the_lists_is_told_on_sqlite() {
    behind_the_lists(&Site::sqlite());
}

#[test]
fn what_lies_behind_the_lists_is_told_on_postgres() {
    behind_the_lists(&Site::postgres());
}

#[test]
fn lists_in_a_watched_folder_are_reconciled_once_on_sqlite() {
    in_a_folder(&Site::sqlite());
}

#[test]
fn lists_in_a_watched_folder_are_reconciled_once_on_postgres() {
    in_a_folder(&Site::postgres());
}

#[test]
fn wholesale_lines_are_explained_by_name_on_sqlite() {
    wholesale(&Site::sqlite());
}

#[test]
fn wholesale_lines_are_explained_by_name_on_postgres() {
    wholesale(&Site::postgres());
}

fn push(daemon: &Daemon, key: &str, id: u32, document: &Value) {
    let answer = daemon.api(key, "PUT", &format!("acme/accounts/{id}"), Some(document));
    assert!(answer.status < 300, "{id}: {}", answer.body);
}

/// The account as a list has it: with its id, and without passwords unless it must tell them.
fn listed(id: u32) -> Value {
    let mut document = internet(id);
    document["id"] = json!(id.to_string());
    if let Some(radius) = document["services"][0]["radius"].as_object_mut() {
        radius.remove("password");
    }
    document
}

fn list(site: &Site, name: &str, documents: &[Value]) -> String {
    let path = site.path(name);
    let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n")).expect("a list");
    path.display().to_string()
}

/// Runs `reconcile` without a time of grace; gives the exit code and what it printed as JSON.
fn reconcile(site: &Site, file: &str, more: &[&str]) -> (i32, Value) {
    let mut arguments = vec!["--json", "reconcile", "--tenant", "acme", "--grace", "0", file];
    arguments.extend(more);
    let output = site.lastmile(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_str(&text).unwrap_or_else(|_| json!({ "text": text, "told": told }));
    (output.status.code().unwrap_or(-1), value)
}

fn classes(found: &Value) -> Vec<String> {
    let items = found["items"].as_array().unwrap_or_else(|| panic!("no items: {found}"));
    let row = |item: &Value| {
        let service = item["service"].as_str().map(|id| format!("/{id}")).unwrap_or_default();
        format!(
            "{}{service} {}",
            item["account"].as_str().unwrap_or_default(),
            item["class"].as_str().unwrap_or_default()
        )
    };
    items.iter().map(row).collect()
}

fn sums_hold(found: &Value) {
    let invariants = found["report"]["invariants"].as_array().expect("invariants");
    assert!(invariants.len() >= 6, "{invariants:?}");
    for invariant in invariants {
        assert_eq!(invariant["left"], invariant["right"], "{invariant}");
    }
}

fn by_command(site: &Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    for id in 1..=6 {
        push(&daemon, &key, id, &internet(id));
    }
    let mut other_plan = listed(2);
    other_plan["services"][0]["plan"] = json!("res-300");
    let mut other_password = listed(6);
    other_password["services"][0]["radius"]["password"] = json!("another secret");
    let mut unreadable = listed(5);
    unreadable["bill_cycle"] = json!("c99");
    let mut documents = vec![
        listed(1),
        other_plan,
        listed(4),
        listed(4),
        unreadable,
        other_password,
        listed(7),
        json!({"status": "active"}),
    ];
    let file = list(site, "list.jsonl", &documents);

    let (exit, found) = reconcile(site, &file, &[]);
    assert_eq!(exit, 3, "{found}");
    assert_eq!(
        classes(&found),
        [
            "(record 8) quarantined",
            "2/2-1 mismatch",
            "3 missing_there",
            "3/3-1 missing_there",
            "4 duplicate",
            "4/4-1 duplicate",
            "5 quarantined",
            "5/5-1 quarantined",
            "6/6-1 mismatch",
            "7 missing_here",
            "7/7-1 missing_here",
        ]
    );
    sums_hold(&found);
    let report = &found["report"];
    assert_eq!(
        (&report["subscribers"]["theirs"], &report["subscribers"]["ours"], &report["subscribers"]["matched"]),
        (&json!(8), &json!(6), &json!(4))
    );
    assert!(!found.to_string().contains("another secret"), "a secret is shown");
    let plan = &report["plan"];
    assert_eq!(
        (&plan["creates"], &plan["updates"], &plan["deletes"], &plan["absent"]),
        (&json!(1), &json!(2), &json!(0), &json!(1)),
        "{plan}"
    );
    // One service has another plan there, and one is not there: each plan's difference is worth 49.95.
    let effects = report["effects"].to_string();
    assert!(effects.contains("res-300") && effects.contains("49.95"), "{effects}");

    // The order of rows is no fact.
    documents.reverse();
    let (_, mixed) = reconcile(site, &list(site, "mixed.jsonl", &documents), &[]);
    assert_eq!(
        (&mixed["report"]["plan"]["hash"], &mixed["report"]["subscribers"]),
        (&plan["hash"], &report["subscribers"])
    );
    let hash = plan["hash"].as_str().expect("a hash").to_owned();

    // A plan that is not today's changes nothing.
    let (exit, refused) = reconcile(site, &file, &["--apply", &"0".repeat(64)]);
    assert_eq!(exit, 3, "{refused}");
    assert!(refused["told"].as_str().is_some_and(|told| told.contains(&hash)), "{refused}");
    assert_eq!(daemon.api(&key, "GET", "acme/accounts/7", None).status, 404);

    let (exit, applied) = reconcile(site, &file, &["--apply", &hash]);
    assert_eq!(exit, 0, "{applied}");
    assert_eq!(
        (&applied["applied"]["created"], &applied["applied"]["updated"], &applied["applied"]["refused"]),
        (&json!(1), &json!(2), &json!(0))
    );
    let two = daemon.api(&key, "GET", "acme/accounts/2", None).json();
    assert_eq!(two["services"][0]["plan"], json!("res-300"));
    assert_eq!(daemon.api(&key, "GET", "acme/accounts/7", None).status, 200);
    let deeds = site.json(&["account", "history", "7", "--tenant", "acme"]);
    assert_eq!(deeds[0]["action"], json!("account.create"), "{deeds}");

    let (exit, again) = reconcile(site, &file, &[]);
    assert_eq!(
        (exit, &again["report"]["plan"]["creates"], &again["report"]["plan"]["updates"]),
        (3, &json!(0), &json!(0))
    );
    assert_eq!(
        classes(&again),
        [
            "(record 8) quarantined",
            "3 missing_there",
            "3/3-1 missing_there",
            "4 duplicate",
            "4/4-1 duplicate",
            "5 quarantined",
            "5/5-1 quarantined",
        ]
    );

    // A list that proves itself whole closes whom it does not tell, within what a day may take away.
    let mut whole: Vec<Value> = [1, 4, 5, 6, 7].map(listed).to_vec();
    whole.push({
        let mut two = listed(2);
        two["services"][0]["plan"] = json!("res-300");
        two
    });
    let unproven = list(site, "unproven.jsonl", &whole);
    whole.push(json!({"trailer": {"records": 6}}));
    let whole_file = list(site, "whole.jsonl", &whole);
    // Whoever is absent may be the one whose record cannot be read.
    let unnamed = [&whole[..6], &[json!({"status": "active"}), json!({"trailer": {"records": 7}})]].concat();
    let (_, found) = reconcile(site, &list(site, "unnamed.jsonl", &unnamed), &[]);
    assert_eq!(
        (&found["report"]["proof"]["state"], &found["report"]["plan"]["deletes"]),
        (&json!("refuted"), &json!(0)),
        "{found}"
    );
    assert_eq!(reconcile(site, &unproven, &[]).1["report"]["plan"]["deletes"], json!(0));
    let (exit, found) = reconcile(site, &whole_file, &[]);
    let hash = found["report"]["plan"]["hash"].as_str().expect("a hash").to_owned();
    assert_eq!((exit, &found["report"]["plan"]["deletes"]), (3, &json!(1)), "{found}");
    let (exit, guarded) = reconcile(site, &whole_file, &["--apply", &hash, "--allow-deletions", "0"]);
    assert_eq!(exit, 3, "{guarded}");
    assert_eq!(daemon.api(&key, "GET", "acme/accounts/3", None).status, 200, "the guard holds");
    let (exit, applied) = reconcile(site, &whole_file, &["--apply", &hash]);
    assert_eq!((exit, &applied["applied"]["closed"]), (0, &json!(1)), "{applied}");
    assert_eq!(daemon.api(&key, "GET", "acme/accounts/3", None).status, 404);
    let (exit, settled) = reconcile(site, &whole_file, &[]);
    assert_eq!((exit, classes(&settled)), (0, vec![]), "{settled}");
    // One was taken away today: of a limit of one nothing is left.
    push(&daemon, &key, 9, &internet(9));
    let (_, found) = reconcile(site, &whole_file, &["--allow-deletions", "1"]);
    assert!(found["report"]["plan"]["refused"].is_string(), "{}", found["report"]["plan"]);
    // What changed a moment ago is in flight, and no error.
    let output = site.lastmile(&["--json", "reconcile", "--tenant", "acme", &whole_file]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(classes(&found), ["9 in_flight", "9/9-1 in_flight"]);
    sums_hold(&found);

    // Nothing but what is asked for is planned; what is the same is listed when it is asked for.
    let (_, found) = reconcile(site, &whole_file, &["--only", "create,update"]);
    let plan = &found["report"]["plan"];
    assert_eq!(
        (&plan["deletes"], &plan["absent"], &plan["only"], &plan["refused"]),
        (&json!(0), &json!(1), &json!(["create", "update"]), &Value::Null),
        "{plan}"
    );
    let (_, found) = reconcile(site, &whole_file, &["--all"]);
    assert!(classes(&found).contains(&"1/1-1 matched".to_owned()) && classes(&found).len() == 14, "{found}");

    // A manifest of another list stops at once; as text and as CSV it says the same.
    std::fs::write(site.path("manifest.json"), json!({"sha256": "00", "records": 6}).to_string()).expect("a manifest");
    let manifest = site.path("manifest.json").display().to_string();
    let (exit, told) = reconcile(site, &whole_file, &["--manifest", &manifest]);
    assert_eq!(exit, 1, "{told}");
    let text = site.lastmile(&["reconcile", "--tenant", "acme", "--grace", "0", &file]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for words in ["Your list: 8 subscribers", "we have, you do not", "holds", "5 subscriber: quarantined: /bill_cycle"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let csv = site.lastmile(&["reconcile", "--tenant", "acme", "--grace", "0", "--format", "csv", &file]);
    let csv = String::from_utf8_lossy(&csv.stdout).into_owned();
    assert!(csv.starts_with("class,account,service,") && csv.contains("duplicate,4,4-1,"), "{csv}");

    // A foreign list through a profile.
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sources/in/homegrown-csv.customers.csv");
    let (exit, found) = reconcile(site, sample, &["--profile", "homegrown-csv", "--source", "legacy"]);
    assert_eq!(exit, 3, "{found}");
    let theirs = found["report"]["subscribers"]["theirs"].as_u64().unwrap_or_default();
    assert!(theirs > 0 && found["report"]["subscribers"]["ours"] == json!(0), "{}", found["report"]);
    sums_hold(&found);
    daemon.stop();
}

fn over_http(site: &Site) {
    site.prepare(CATALOG);
    let (key, reader) = (site.key("acme", "push"), site.key("acme", "read"));
    let path = site.path("other.toml");
    let other = CATALOG.replace("id = \"acme\"", "id = \"other\"").replace("acme.example", "other.example");
    std::fs::write(&path, other.replace("realms = [\"acme\"]", "realms = [\"other\"]")).expect("a catalog");
    site.succeed(&["catalog", "apply", &path.display().to_string()]);
    let stranger = site.key("other", "admin");
    let daemon = site.start();
    for id in 1..=3 {
        push(&daemon, &key, id, &internet(id));
    }
    wait_for("nothing is under way", SOON, || {
        let jobs = site.json(&["job", "list", "--limit", "1000"]);
        jobs.as_array().expect("a list").iter().all(|job| job["state"] == "done").then_some(())
    });
    let documents = [listed(1), listed(2), listed(4), json!({"trailer": {"records": 3}})];
    let body = documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let send = |key: &str, query: &str| {
        let bearer = format!("Bearer {key}");
        let path = format!("/v1/tenants/acme/syncs{query}");
        http::request(site.http_port, "POST", &path, &[("Authorization", bearer.as_str())], Some(&body))
            .expect("an answer")
    };
    assert_eq!(send(&reader, "").status, 403);
    assert_eq!(send(&stranger, "").status, 404);
    assert_eq!(send(&key, "?profile=nobody").status, 400);
    assert_eq!(send(&key, "?only=destroy").status, 400);
    // A manifest of another list is refused, and nothing of it stays.
    let other = send(&key, &format!("?sha256={}", "0".repeat(64)));
    let digest: String = Sha256::digest(body.as_bytes()).iter().map(|octet| format!("{octet:02x}")).collect();
    assert!(other.status == 400 && other.body.contains(&digest), "{}", other.body);
    let listed = daemon.api(&key, "GET", "acme/syncs", None).json();
    assert_eq!(listed["items"], json!([]), "nothing of what was refused stays");
    once(site, &daemon, &key, &body);
    // As of an hour from now nothing here is new to it.
    let later = Timestamp::now().checked_add(Duration::from_secs(3600)).expect("an instant");
    let sent = send(&key, &format!("?as_of={later:.0}"));
    assert_eq!(sent.status, 202, "{}", sent.body);
    let id = sent.json()["id"].as_str().expect("an id").to_owned();
    let show = |key: &str, more: &str| daemon.api(key, "GET", &format!("acme/syncs/{id}{more}"), None);
    let planned = wait_for("the list is compared", SOON, || {
        let told = show(&reader, "").json();
        (told["state"] == "planned").then_some(told)
    });
    for more in ["", "/plan", "/report"] {
        let asked = daemon.api(&stranger, "GET", &format!("other/syncs/{id}{more}"), None);
        assert_eq!((asked.status, show(&stranger, more).status), (404, 404), "{more}");
    }
    assert_eq!(planned["report"]["plan"]["deletes"], json!(1), "{planned}");
    let found = show(&reader, "/plan?limit=1").json();
    let next = found["next"].as_str().expect("more").to_owned();
    let more = show(&reader, &format!("/plan?cursor={next}")).json();
    let rows =
        [found["items"].as_array().expect("items").clone(), more["items"].as_array().expect("items").clone()].concat();
    assert_eq!(
        classes(&json!({ "items": rows })),
        ["3 missing_there", "3/3-1 missing_there", "4 missing_here", "4/4-1 missing_here"]
    );
    assert_eq!(show(&reader, "/plan?class=missing_here").json()["items"].as_array().map(Vec::len), Some(2));
    let text = show(&reader, "/report");
    assert!(
        text.body.contains("Your list: 3 subscribers") && text.body.contains("4 subscriber: missing_here"),
        "{}",
        text.body
    );
    let events = daemon.api(&reader, "GET", "acme/events?type=reconcile.completed", None).json();
    let told = events["items"].as_array().expect("events");
    assert_eq!(told.iter().filter(|event| event["data"]["sync"] == json!(id)).count(), 1, "{events}");

    let apply = |key: &str, body: &Value| daemon.api(key, "POST", &format!("acme/syncs/{id}/apply"), Some(body));
    assert_eq!(apply(&reader, &json!({"plan": "x"})).status, 403);
    assert_eq!(apply(&key, &json!({"plan": "x"})).status, 409);
    assert_eq!(apply(&key, &json!({"plan": planned["plan"]["hash"], "allow_deletions": 9})).status, 403);
    assert_eq!(apply(&stranger, &json!({"plan": planned["plan"]["hash"]})).status, 404);
    // Something changes here meanwhile: nothing is applied, and what the plan is now can be looked at.
    let mut changed = internet(2);
    changed["services"][0]["plan"] = json!("res-300");
    push(&daemon, &key, 2, &changed);
    assert_eq!(apply(&key, &json!({"plan": planned["plan"]["hash"]})).status, 202);
    let moved = wait_for("the plan is refused", SOON, || {
        let told = show(&reader, "").json();
        assert!(told["state"] == "applying" || told["state"] == "planned", "{told}");
        told["error"].is_string().then_some(told)
    });
    let hash = &moved["plan"]["hash"];
    assert!(moved["error"].to_string().contains(hash.as_str().expect("a hash")), "{moved}");
    assert_eq!((&moved["plan"]["updates"], &moved["state"]), (&json!(1), &json!("planned")), "{moved}");
    assert_eq!(daemon.api(&reader, "GET", "acme/accounts/4", None).status, 404, "nothing is applied");
    let asked = apply(&key, &json!({"plan": hash}));
    assert_eq!(asked.status, 202, "{}", asked.body);
    let applied = wait_for("the plan is applied", SOON, || {
        let told = show(&reader, "").json();
        assert_ne!(told["state"], "failed", "{told}");
        (told["state"] == "applied").then_some(told)
    });
    assert_eq!(
        (&applied["result"]["created"], &applied["result"]["closed"], &applied["result"]["refused"]),
        (&json!(1), &json!(1), &json!(0)),
        "{applied}"
    );
    assert_eq!(applied["result"]["updated"], json!(1), "{applied}");
    assert_eq!(daemon.api(&reader, "GET", "acme/accounts/3", None).status, 404);
    assert_eq!(daemon.api(&reader, "GET", "acme/accounts/4", None).status, 200);
    let listed = daemon.api(&reader, "GET", "acme/syncs", None).json();
    assert_eq!(listed["items"][0]["id"], json!(id));
    daemon.stop();
}

/// A list that was sent stays with us: its plan is applied from the command line, whether a daemon runs or not, and by nobody
/// who did not look at it.
fn kept_plans(site: &Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    for id in 1..=28 {
        push(&daemon, &key, id, &internet(id));
    }
    wait_for("nothing is under way", SOON, || {
        let jobs = site.json(&["job", "list", "--limit", "1000"]);
        jobs.as_array().expect("a list").iter().all(|job| job["state"] == "done").then_some(())
    });
    let documents = [listed(1), listed(2), listed(99), json!({"trailer": {"records": 3}})];
    let body = documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let bearer = format!("Bearer {key}");
    let later = Timestamp::now().checked_add(Duration::from_secs(3600)).expect("an instant");
    let path = format!("/v1/tenants/acme/syncs?as_of={later:.0}");
    let headers = [("Authorization", bearer.as_str())];
    let sent = http::request(site.http_port, "POST", &path, &headers, Some(&body)).expect("an answer");
    let id = sent.json()["id"].as_str().expect("an id").to_owned();
    let state = || daemon.api(&key, "GET", &format!("acme/syncs/{id}"), None).json();
    let planned = wait_for("the list is compared", SOON, || Some(state()).filter(|told| told["state"] == "planned"));
    let hash = planned["plan"]["hash"].as_str().expect("a hash").to_owned();
    let apply = |id: &str, more: &[&str]| {
        let output = site.lastmile(&[&["--json", "sync", "apply", id, "--tenant", "acme"], more].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), told, String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let refused = |id: &str, more: &[&str], exit: i32, words: &str| {
        let (code, told, _) = apply(id, more);
        assert!(code == exit && told.contains(words), "{more:?}: {code} {told}");
    };
    refused(&id, &[], 2, "--plan");
    refused(&id, &["--plan", "today's"], 2, "64 hexadecimal digits");
    refused(&id, &["--plan", &hash[..11]], 2, "first 12");
    refused(&id, &["--plan", &"0".repeat(64)], 3, &hash);
    refused("sy_none", &["--plan", &hash], 3, "sync list --tenant acme");
    // 26 of 28 would go, and so many are nobody's to take away by themselves.
    refused(&id, &["--plan", &hash], 3, "an operator can allow more");
    refused(&id, &["--plan", &hash, "--allow-deletions", "5"], 3, "nothing of");
    // A list that a command read from a file is not kept.
    let (_, found) = reconcile(site, &list(site, "one.jsonl", &[listed(1)]), &[]);
    let (other, plan) =
        (found["sync"].as_str().expect("an id"), found["report"]["plan"]["hash"].as_str().expect("one"));
    refused(other, &["--plan", plan], 3, "not kept");
    let asked = daemon.api(&key, "POST", &format!("acme/syncs/{other}/apply"), Some(&json!({"plan": plan})));
    assert_eq!(
        (asked.status, &asked.json()["type"]),
        (409, &json!("urn:lastmile:problem:list-not-kept")),
        "{}",
        asked.body
    );
    assert_eq!(daemon.api(&key, "GET", "acme/accounts/28", None).status, 200, "nothing was applied");
    // Something changes meanwhile: the plan is another one.
    push(&daemon, &key, 30, &internet(30));
    refused(&id, &["--plan", &hash, "--allow-deletions", "30"], 3, "something changed since");
    let moved = state();
    assert_eq!((&moved["state"], &moved["plan"]["deletes"]), (&json!("planned"), &json!(27)), "{moved}");
    daemon.stop();

    // The first digits, as lists show them, are enough; no daemon is needed.
    let hash = moved["plan"]["hash"].as_str().expect("a hash");
    let (code, told, text) = apply(&id, &["--plan", &hash[..12], "--allow-deletions", "27", "--by", "ada"]);
    assert!(code == 0 && told.contains("1 accounts made") && told.contains("27 closed"), "{code} {told}");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&found["sync"], &found["applied"]["closed"]), (&json!(id), &json!(27)), "{found}");
    let living = site.json(&["account", "list", "--tenant", "acme"]).to_string();
    assert!(living.contains("\"99\"") && !living.contains("\"28\""), "{living}");
    refused(&id, &["--plan", hash], 3, "a plan is applied once");
    let listed = site.json(&["sync", "list", "--tenant", "acme"]);
    let row = listed.as_array().expect("a list").iter().find(|row| row["id"] == json!(id)).expect("ours");
    assert_eq!((&row["state"], &row["applied_by"]), (&json!("applied"), &json!("ada")), "{row}");
    let deeds = site.json(&["audit", "list", "--tenant", "acme", "--actor", "ada"]).to_string();
    assert!(deeds.contains("sync.apply"), "{deeds}");
}

/// A list with an Idempotency-Key is kept once, and of a list that is asked for steps only these are planned.
fn once(site: &Site, daemon: &Daemon, key: &str, body: &str) {
    let bearer = format!("Bearer {key}");
    let send = |once: &str, body: &str| {
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", once)];
        let path = "/v1/tenants/acme/syncs?only=create&source=elsewhere";
        http::request(site.http_port, "POST", path, &headers, Some(body)).expect("an answer")
    };
    let (first, again) = (send("one", body), send("one", body));
    assert_eq!((first.status, again.status, &first.body), (202, 202, &again.body));
    assert_eq!(send("one", "another list").status, 422);
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    let planned = wait_for("the list is compared", SOON, || {
        let told = daemon.api(key, "GET", &format!("acme/syncs/{id}"), None).json();
        (told["state"] == "planned").then_some(told)
    });
    assert_eq!((&planned["plan"]["creates"], &planned["plan"]["only"]), (&json!(3), &json!(["create"])), "{planned}");
    let listed = daemon.api(key, "GET", "acme/syncs", None).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
}

/// Drift of the network, usage of a login that nobody ever held, usage of one that was given up: of this tenant only.
fn behind_the_lists(site: &Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    push(&daemon, &key, 1, &internet(1));
    for id in 2..=4 {
        push(&daemon, &key, id, &internet(id));
    }
    wait_for("nothing is under way", SOON, || {
        let jobs = site.json(&["job", "list", "--limit", "1000"]);
        jobs.as_array().expect("a list").iter().all(|job| job["state"] == "done").then_some(())
    });
    // Two sessions that their services' ends are put before, below.
    let last = Timestamp::from_second(Timestamp::now().as_second()).expect("an instant");
    for user in ["user3@acme", "user4@acme"] {
        let report = Report { user, session: user, kind: "Start", at: last, seconds: 0, in_octets: 0, out_octets: 0 };
        assert!(radclient(site.radius_port, &report), "the collector answers");
    }
    wait_for("the sessions are theirs", SOON, || {
        let sessions = site.json(&["session", "list"]);
        let of = |id: &str| sessions.as_array().is_some_and(|all| all.iter().any(|one| one["account"] == json!(id)));
        (of("3") && of("4")).then_some(())
    });
    for id in 2..=4 {
        assert_eq!(daemon.api(&key, "DELETE", &format!("acme/accounts/{id}"), None).status, 202);
    }
    // Event times are whole seconds: these lie behind the closing.
    std::thread::sleep(Duration::from_millis(1_100));
    for user in ["ghost@acme", "user2@acme", "ghost@elsewhere"] {
        let at = Timestamp::now();
        let report = Report { user, session: user, kind: "Stop", at, seconds: 0, in_octets: 7_000, out_octets: 1 };
        assert!(radclient(site.radius_port, &report), "the collector answers");
    }
    wait_for("usage is folded", SOON, || {
        let waiting = site.json(&["usage", "unattributed"]).to_string();
        ["ghost@acme", "user2@acme", "ghost@elsewhere"].iter().all(|user| waiting.contains(user)).then_some(())
    });
    daemon.stop();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(&store_config(site)).await.expect("the store opens");
        let mut tx = store.write().await.expect("a transaction");
        drift::found(&mut tx, 1, "there is no such row", Timestamp::now()).await.expect("noted");
        // A session is not ended to the second: an hour is no zombie, a second more is one.
        for (id, seconds) in [("3", 3601), ("4", 3600)] {
            ended(&mut tx, id, last.checked_sub(seconds.seconds()).expect("an instant")).await;
        }
        tx.commit().await.expect("commits");
        store.close().await;
    });
    let file = list(site, "list.jsonl", &[listed(1)]);
    let (exit, found) = reconcile(site, &file, &[]);
    assert_eq!((exit, classes(&found)), (3, vec![]), "{found}");
    let ring: Vec<String> = found["report"]["ring"]
        .as_array()
        .expect("a ring")
        .iter()
        .map(|found| format!("{} {} {}", found["class"], found["account"], found["detail"]).replace('"', ""))
        .collect();
    let has = |words: &[&str]| ring.iter().filter(|row| words.iter().all(|word| row.contains(word))).count();
    assert_eq!(ring.len(), 4, "{ring:?}");
    let late =
        found["report"]["ring"].as_array().and_then(|ring| ring.iter().find(|one| one["service"] == json!("3-1")));
    let late = late.unwrap_or_else(|| panic!("no zombie of account 3: {ring:?}"));
    let said = format!("session user3@acme behind bng1/bng1 goes on until {last:.0}");
    assert_eq!((&late["class"], &late["account"]), (&json!("zombie_usage"), &json!("3")), "{late}");
    assert!(late["detail"].as_str().is_some_and(|detail| detail.contains(&said)), "{late} does not say {said}");
    assert_eq!(has(&["backend_drift 1 ", "there is no such row"]), 1, "{ring:?}");
    assert_eq!(has(&["orphan_usage null ghost@acme", "1 sessions, 7001 octets"]), 1, "{ring:?}");
    assert_eq!(has(&["zombie_usage 2 user2@acme"]), 1, "{ring:?}");
    // Another billing system of the tenant's has only the login that nobody ever held.
    let empty = list(site, "empty.jsonl", &[]);
    let (_, found) = reconcile(site, &empty, &["--source", "legacy"]);
    assert_eq!(found["report"]["ring"].as_array().map(Vec::len), Some(1), "{}", found["report"]["ring"]);
}

/// Puts the end of a closed account's service to another instant.
async fn ended(tx: &mut lastmile::store::Tx, id: &str, at: Timestamp) {
    let key = AccountKey {
        tenant: "acme".parse().expect("a tenant"),
        source: "default".parse().expect("a source"),
        external_id: id.to_owned(),
    };
    let row = accounts::find(tx, &key).await.expect("read").expect("an account");
    for known in accounts::known_services(tx, &[row.id]).await.expect("read") {
        let facts = known.last.as_deref().map(serde_json::from_str).expect("a history").expect("facts");
        let change = ServiceChange::new(row.id, &known.row.external_id, facts).expect("a change");
        let change = ServiceChange { id: Some(known.row.id), ended_at: Some(at), ..change };
        accounts::change_services(tx, &[change], at).await.expect("written");
    }
}

/// A list in a folder is compared, told as an event, and put away beside its report; one that does not come is told too.
fn in_a_folder(site: &Site) {
    let (lists, none) = (site.path("lists"), site.path("none"));
    std::fs::create_dir(&lists).expect("a folder");
    std::fs::create_dir(&none).expect("a folder");
    let block = |source: &str, folder: &std::path::Path, more: &str| {
        let folder = folder.display();
        format!("[[source]]\ntenant = \"acme\"\nsource = \"{source}\"\nreconcile = {{ inbox = \"{folder}\"{more} }}\n")
    };
    let settings = [
        "[sources]\nsettle_seconds = 1\n",
        &block("default", &lists, ""),
        &block("late", &none, ", at = \"00:00\""),
        "[log]",
    ];
    site.edit("[log]", &settings.concat());
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    push(&daemon, &key, 1, &internet(1));
    push(&daemon, &key, 2, &internet(2));
    list(site, "lists/customers.jsonl.tmp", &[listed(1), listed(9), json!({"trailer": {"records": 2}})]);
    std::fs::rename(lists.join("customers.jsonl.tmp"), lists.join("customers.jsonl")).expect("a name");
    let report = lists.join("done/customers.jsonl.report.txt");
    let text = wait_for("the list is put away", SOON, || {
        std::fs::read_to_string(&report).ok().filter(|_| !lists.join("customers.jsonl").exists())
    });
    for words in
        ["Your list: 2 subscribers", "9 subscriber: missing_here", "2 subscriber: in_flight", "proven by its own"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(lists.join("done/customers.jsonl").exists());
    let synced = site.json(&["sync", "list", "--tenant", "acme"]);
    assert_eq!((synced.as_array().map(Vec::len), &synced[0]["state"]), (Some(1), &json!("planned")), "{synced}");
    assert_eq!(synced[0]["requested_by"], json!("source default by its list customers.jsonl"));
    let id = synced[0]["id"].as_str().expect("an id");
    assert!(text.starts_with(&format!("Reconciliation {id}\n")), "{text}");
    let shown = site.lastmile(&["sync", "show", id, "--tenant", "acme"]);
    assert_eq!(shown.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&shown.stdout).contains("9 subscriber: missing_here"));
    assert_eq!(site.lastmile(&["sync", "show", id, "--tenant", "nobody"]).status.code(), Some(3));
    let told = daemon.api(&key, "GET", "acme/events?type=reconcile.completed", None).json();
    assert_eq!(told["items"].as_array().map(Vec::len), Some(1), "{told}");
    let metrics = http::request(site.http_port, "GET", "/metrics", &[], None).expect("an answer").body;
    let counted = "lastmile_reconcile_findings_total{kind=\"missing_here\"} 2";
    assert!(metrics.contains(counted), "{metrics}");

    let missing = wait_for("the list that did not come is told", SOON, || {
        let open = site.json(&["exception", "list", "--tenant", "acme"]);
        open.as_array()?.iter().find(|one| one["kind"] == "list-missing").cloned()
    });
    assert_eq!(missing["subject"], json!("acme/late"), "{missing}");
    list(site, "none/late.jsonl", &[]);
    wait_for("it came, and nobody need look", SOON, || {
        let open = site.json(&["exception", "list", "--tenant", "acme"]).to_string();
        (!open.contains("list-missing")).then_some(())
    });
    daemon.stop();
}

/// Whom yesterday's wholesale line counted, beside whom the reseller's own list has: each name, and what they cost.
fn wholesale(site: &Site) {
    let day = |ago: i64| {
        let today = Timestamp::now().in_tz("America/Chicago").expect("a zone").date();
        today.checked_sub(ago.days()).expect("a day")
    };
    let agreed = format!(
        "\n[[wholesale]]\ntenant = \"small\"\naccount = \"reseller\"\ntariff = \"bulk\"\nfrom = \"{}\"\n{BULK}",
        day(3)
    );
    site.prepare(CATALOG);
    let small = CATALOG
        .replace("id = \"acme\"", "id = \"small\"\nparent = \"acme\"")
        .replace("\"acme.example\"", "\"small.example\"")
        .replace("realms = [\"acme\"]", "realms = [\"small\"]");
    for (name, text) in [("small.toml", small), ("agreed.toml", format!("{CATALOG}{agreed}"))] {
        let path = site.path(name);
        std::fs::write(&path, text).expect("a catalog");
        site.succeed(&["catalog", "apply", &path.display().to_string()]);
    }
    let (key, small) = (site.key("acme", "admin"), site.key("small", "admin"));
    let daemon = site.start();
    for id in 1..=2 {
        let pushed = daemon.api(&small, "PUT", &format!("small/accounts/{id}"), Some(&of_small(id)));
        assert_eq!(pushed.status, 201, "{}", pushed.body);
    }
    let reseller = json!({"status": "active", "bill_cycle": "daily", "services": []});
    let pushed = daemon.api(&key, "PUT", "acme/accounts/reseller", Some(&reseller));
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    // Yesterday nobody was there yet; that is what the line says, and so does the hash of that day.
    let printed = site.succeed(&["bill", "run", "--tenant", "acme", "--cycle", "daily", "--dry-run"]);
    let run = site.json(&["bill", "run", "--tenant", "acme", "--cycle", "daily"]);
    let mut counts = run["lines"].as_array().expect("lines").iter().map(|line| &line["count"]);
    let count = counts.find(|count| count["days"] == json!(format!("{0}..{0}", day(1)))).expect("yesterday's line");
    let shown = site.json(&["handshake", "show", "--tenant", "small", "--on", &day(1).to_string()]);
    assert_eq!(
        (&count["handshake"]["root"], &count["handshake"]["day"]),
        (&shown["root"], &json!(day(1).to_string())),
        "{count}"
    );
    let root = shown["root"].as_str().expect("a root");
    assert!(printed.contains(&format!("handshake of small on {} (America/Chicago): {root}", day(1))), "{printed}");
    // The manifest, the event and the list of batches say the same once for each day.
    let lines = run["lines"].as_array().expect("lines").iter();
    let counted = lines.filter_map(|line| line["count"]["handshake"].as_object().map(|_| &line["count"]));
    let of_lines: Vec<Value> = counted
        .map(|count| {
            let shape = &count["handshake"];
            json!({"tenant": count["tenant"], "day": shape["day"], "timezone": shape["timezone"], "root": shape["root"],
                "lines": 1})
        })
        .collect();
    let told = run["handshakes"].as_array().expect("handshakes");
    assert!(!told.is_empty() && told.len() == of_lines.len(), "{run}");
    assert!(of_lines.iter().all(|one| told.contains(one)), "{told:?} of {of_lines:?}");
    let batch = run["batch"].as_str().expect("a batch");
    let manifest = daemon.api(&key, "GET", &format!("acme/batches/{batch}"), None).json();
    assert_eq!(manifest["handshakes"], run["handshakes"], "{manifest}");
    let closed = daemon.api(&key, "GET", "acme/events?type=invoice_batch.closed", None).json();
    assert_eq!(closed["items"][0]["data"]["handshakes"], run["handshakes"], "{closed}");
    let listed = site.json(&["bill", "list", "--tenant", "acme"]);
    assert_eq!(listed["items"][0]["handshakes"], run["handshakes"], "{listed}");

    let mut documents = [of_small(1), of_small(2)];
    for (id, document) in (1..).zip(&mut documents) {
        document["id"] = json!(id.to_string());
    }
    let file = list(site, "theirs.jsonl", &documents);
    let noon = day(1).at(12, 0, 0, 0).in_tz("America/Chicago").expect("an instant").timestamp().to_string();
    let compare = ["reconcile", "--tenant", "small", "--as-of", &noon, &file];
    let output = site.lastmile(&[&["--json"], &compare[..]].concat());
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let count = &found["report"]["wholesale"][0];
    assert_eq!(
        (&count["charge"], &count["counted"], &count["theirs"], &count["worth"], &count["currency"]),
        (&json!("subscribers"), &json!(0), &json!(2), &json!("-6.00"), &json!("USD")),
        "{found}"
    );
    assert_eq!(count["only_theirs"], json!(["default/1", "default/2"]));
    let text = String::from_utf8_lossy(&site.lastmile(&compare).stdout).into_owned();
    assert!(text.contains("worth -6.00 USD") && text.contains("in your list, not counted: default/2"), "{text}");
    daemon.stop();
}

fn of_small(id: u32) -> Value {
    json!({"status": "active", "bill_cycle": "c15", "services": [{
        "id": format!("{id}-1"), "type": "internet", "plan": "res-100", "radius": {"username": format!("u{id}@small")}}]})
}

const BULK: &str = r#"
[[tariff]]
id = "bulk"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "subscribers"
type = "count"
count = "subscribers"
rule = "any"
model = "standard"
unit_amount = "3.00"
[[bill_cycle]]
id = "daily"
every = "day"
timezone = "America/Chicago"
"#;

fn handshake(site: &Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    for id in 1..=40 {
        push(&daemon, &key, id, &internet(id));
    }
    let today = Timestamp::now().in_tz("America/Chicago").expect("a zone").date().to_string();
    let lines = site.succeed(&["handshake", "show", "--tenant", "acme", "--on", &today, "--lines"]);
    assert_eq!(lines.lines().count(), 40, "{lines}");
    assert!(lines.contains(&format!("default\t7\t7-1\tres-100\tactive\t{today}\n")), "{lines}");
    let ours = site.path("ours.tsv");
    std::fs::write(&ours, &lines).expect("lines");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/handshake.py");
    let node = |file: &str, path: &str| {
        let output = run("python3", "python3", &[script, file, path]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let file = ours.display().to_string();
    let shown = site.json(&["handshake", "show", "--tenant", "acme", "--on", &today]);
    assert_eq!((&shown["root"], &shown["rows"]), (&json!(node(&file, "")), &json!(40)));
    assert_eq!(shown["provisional"], json!(true));
    let told = daemon.api(&key, "GET", &format!("acme/handshake?on={today}"), None).json();
    assert_eq!(told["root"], shown["root"]);
    let root = daemon.api(&key, "GET", &format!("acme/handshake/descend?on={today}"), None).json();
    for child in root["children"].as_array().expect("children") {
        assert_eq!(child["hash"], json!(node(&file, child["path"].as_str().expect("a path"))), "{child}");
    }
    assert_eq!(daemon.api(&key, "GET", &format!("acme/handshake/descend?on={today}&path=xy"), None).status, 400);
    let stranger = daemon.api(&key, "GET", &format!("nobody/handshake?on={today}"), None);
    assert_eq!(stranger.status, 404);

    let compare =
        |file: &str| site.lastmile(&["--json", "handshake", "compare", file, "--tenant", "acme", "--on", &today]);
    assert!(compare(&file).status.success());
    let theirs: Vec<String> = lines
        .lines()
        .filter(|line| !line.contains("\t9-1\t"))
        .map(|line| if line.contains("\t7-1\t") { line.replace("res-100", "res-300") } else { line.to_owned() })
        .collect();
    let path = site.path("theirs.tsv").display().to_string();
    std::fs::write(&path, theirs.join("\n")).expect("lines");
    let unlike = compare(&path);
    assert_eq!(unlike.status.code(), Some(3));
    let unlike: Value = serde_json::from_slice(&unlike.stdout).expect("JSON");
    assert_eq!(unlike["theirs"], json!(node(&path, "")));
    let names = |side: &str| -> Vec<String> {
        let lines = unlike["unlike"][side].as_array().cloned().unwrap_or_default();
        lines.iter().filter_map(|line| Some(line.as_str()?.split('\t').nth(2)?.to_owned())).collect()
    };
    assert_eq!((names("only_ours"), names("only_theirs")), (vec!["7-1".into(), "9-1".into()], vec!["7-1".into()]));
    daemon.stop();
}
