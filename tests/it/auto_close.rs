//! Periods that close by themselves, with one daemon and with two; what a catalog would boot.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, HOUSEHOLD, household, internet, last_period};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::{temp_dir, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// Longer than the daemon takes from one look for due periods to the next.
const ONE_LOOK: Duration = Duration::from_secs(11);

#[test]
fn ended_period_closes_by_itself_once_on_sqlite() {
    let site = Site::sqlite();
    site.prepare(&automatic("0s"));
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    push(&daemon, &key, "a1", &billed(1, start));
    let batch = wait_for("the period closes", SOON, || batches(&daemon, &key).pop());
    assert_eq!((&batch["cycle"], &batch["run"], &batch["state"]), (&json!("c15"), &json!(1), &json!("closed")));
    assert!(batch["id"].as_str().is_some_and(|id| id.contains(&start.to_string())), "the latest ended one: {batch:#}");
    let lines = ids(&daemon, &key);
    assert!(!lines.is_empty());

    // A late account waits for the next period or for a person; the closed period is left alone.
    push(&daemon, &key, "a2", &billed(2, start));
    std::thread::sleep(ONE_LOOK);
    assert_eq!(batches(&daemon, &key).len(), 1);
    assert_eq!(ids(&daemon, &key), lines);
    daemon.stop();
    let log = site.log_text();
    assert_eq!(log.matches("Closed cycle c15 of acme").count(), 1, "{log}");
}

#[test]
fn period_in_its_grace_stays_open() {
    let site = Site::sqlite();
    // The period ended at most a month and a day ago.
    site.prepare(&automatic("60d"));
    let key = site.key("acme", "admin");
    let daemon = site.start();
    push(&daemon, &key, "a1", &billed(1, last_period(Timestamp::now()).0));
    std::thread::sleep(ONE_LOOK);
    assert!(batches(&daemon, &key).is_empty());
}

#[test]
fn two_daemons_on_one_postgres_make_one_batch() {
    let first = Site::postgres();
    let second = Site::new(temp_dir(), &url_of(&first));
    first.prepare(CATALOG);
    let key = first.key("acme", "admin");
    let daemon = first.start();
    let (start, _) = last_period(Timestamp::now());
    for number in 0..150 {
        push(&daemon, &key, &format!("a{number}"), &billed(number, start));
    }
    daemon.stop();

    // Both look for due periods in their first moment.
    first.prepare(&automatic("0s"));
    let (one, two) = (first.spawn(), second.spawn());
    wait_for("both answer", SOON, || {
        let answers = |port| crate::harness::http::request(port, "GET", "/readyz", &[], None).ok();
        (answers(one.http_port)?.status == 200 && answers(two.http_port)?.status == 200).then_some(())
    });
    wait_for("the period closes", SOON, || batches(&one, &key).pop());
    std::thread::sleep(ONE_LOOK);
    let seen = batches(&one, &key);
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_eq!(seen, batches(&two, &key), "both show the same");
    let lines = ids(&one, &key);
    assert_eq!(json!(lines.len()), seen[0]["lines"], "every line once");
    let failed = format!("{}{}", first.log_text(), second.log_text());
    assert!(!failed.contains("was not closed"), "{failed}");
    assert_eq!(failed.matches("Closed cycle c15 of acme").count(), 1, "{failed}");
    one.stop();
    two.stop();
}

#[test]
fn catalog_dry_run_tells_how_many_modems_must_boot() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    push(&daemon, &key, HOUSEHOLD, &household(start));
    for number in 1..=2 {
        push(&daemon, &key, &format!("m{number}"), &with_modem(number, "res-100"));
    }
    push(&daemon, &key, "m3", &with_modem(3, "res-300"));
    push(&daemon, &key, "no-modem", &internet(4));
    let before = revisions(&daemon, &key);
    assert_eq!(before.len(), 4, "{before:?}");

    let path = site.path("faster.toml");
    let faster = CATALOG.replacen("downstream = \"100M\"", "downstream = \"150M\"", 1);
    std::fs::write(&path, faster).expect("a catalog");
    let file = path.display().to_string();
    let told = site.json(&["catalog", "apply", &file, "--dry-run"]);
    let effect = &told["applied"][0]["effect"];
    assert_eq!(effect["reboots"], 3, "{effect:#}");
    assert_eq!(effect["reboots_with_voice"], 1);
    assert_eq!(effect["accounts"], 4);
    assert_eq!(effect["changed_plans"][0]["touches"], json!(["modem"]));
    let said = site.succeed(&["catalog", "apply", &file, "--dry-run"]);
    assert!(said.contains("3 modems must boot to take it, 1 of them with voice"), "{said}");
    assert_eq!(site.json(&["catalog", "show"])["items"][0]["version"], 1, "nothing was written");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(revisions(&daemon, &key), before);

    // What was told is what happens, without another push.
    site.succeed(&["catalog", "apply", &file]);
    wait_for("three modems get a new file", SOON, || {
        let after = revisions(&daemon, &key);
        let changed = after.iter().filter(|modem| !before.contains(*modem)).count();
        (changed == 3).then_some(())
    });
    daemon.stop();
}

/// The journeys' catalog, closing by itself.
fn automatic(grace: &str) -> String {
    let catalog = CATALOG.replacen("close = \"manual\"", "close = \"auto\"", 1);
    catalog.replacen("grace = \"6h\"", &format!("grace = \"{grace}\""), 1)
}

fn billed(number: u32, from: jiff::civil::Date) -> Value {
    let mut account = internet(number);
    account["services"][0]["billing_from"] = json!(from.to_string());
    account
}

fn with_modem(number: u32, plan: &str) -> Value {
    let mut account = internet(number);
    account["devices"] = json!([{"id": "gw", "cm_mac": format!("00:11:22:00:00:{number:02x}")}]);
    account["services"][0]["device"] = json!("gw");
    account["services"][0]["plan"] = json!(plan);
    account
}

fn push(daemon: &Daemon, key: &str, name: &str, account: &Value) {
    let answer = daemon.api(key, "PUT", &format!("acme/accounts/{name}"), Some(account));
    assert_eq!(answer.status, 201, "{}", answer.body);
}

fn batches(daemon: &Daemon, key: &str) -> Vec<Value> {
    let list = daemon.api(key, "GET", "acme/batches", None).json();
    list["items"].as_array().expect("items").clone()
}

/// Ids of all visible lines.
fn ids(daemon: &Daemon, key: &str) -> BTreeSet<String> {
    let (mut found, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = daemon.api(key, "GET", &format!("acme/invoice-lines?limit=1000{cursor}"), None).json();
        let here = line_ids(&page["items"]);
        let new = here.iter().filter(|id| found.insert((*id).clone())).count();
        match page["next"].as_str() {
            Some(next) if new > 0 => cursor = format!("&cursor={next}"),
            _ => return found,
        }
    }
}

fn line_ids(lines: &Value) -> BTreeSet<String> {
    let lines = lines.as_array().expect("lines");
    let ids: BTreeSet<String> = lines.iter().map(|line| line["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids.len(), lines.len(), "an id stands twice");
    ids
}

/// Every modem with the revision it should have.
fn revisions(daemon: &Daemon, key: &str) -> BTreeSet<(String, String)> {
    let devices = daemon.api(key, "GET", "acme/devices", None).json();
    let modems = devices["items"].as_array().expect("items").iter().filter(|device| device["kind"] == "cm");
    modems.map(|modem| (modem["mac"].to_string(), modem["desired_revision"].to_string())).collect()
}

fn url_of(site: &Site) -> String {
    let config = std::fs::read_to_string(&site.config).expect("the configuration");
    let line = config.lines().find(|line| line.starts_with("url = \"postgres://")).expect("a database");
    line.split('"').nth(1).expect("a text").to_owned()
}
