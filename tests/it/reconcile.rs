//! Another company's list beside ours, through the command line and over HTTP, on both databases: classes, sums, plan, guard,
//! apply; and the handshake with its reference script.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::{Daemon, Site};
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
fn handshake_agrees_with_its_reference_script_on_sqlite() {
    handshake(&Site::sqlite());
}

#[test]
fn handshake_agrees_with_its_reference_script_on_postgres() {
    handshake(&Site::postgres());
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
    assert_eq!(events["items"][0]["data"]["sync"], json!(id), "{events}");

    let apply = |key: &str, body: &Value| daemon.api(key, "POST", &format!("acme/syncs/{id}/apply"), Some(body));
    assert_eq!(apply(&reader, &json!({"plan": "x"})).status, 403);
    assert_eq!(apply(&key, &json!({"plan": "x"})).status, 409);
    assert_eq!(apply(&key, &json!({"plan": planned["plan"]["hash"], "allow_deletions": 9})).status, 403);
    assert_eq!(apply(&stranger, &json!({"plan": planned["plan"]["hash"]})).status, 404);
    let asked = apply(&key, &json!({"plan": planned["plan"]["hash"]}));
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
    assert_eq!(daemon.api(&reader, "GET", "acme/accounts/3", None).status, 404);
    assert_eq!(daemon.api(&reader, "GET", "acme/accounts/4", None).status, 200);
    let listed = daemon.api(&reader, "GET", "acme/syncs", None).json();
    assert_eq!(listed["items"][0]["id"], json!(id));
    daemon.stop();
}

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
