//! Thresholds of use through the running daemon, with FreeRADIUS as the NAS that is told: crossed, told once, restored; and
//! the balance that is the later bill.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::acme::radclient_raw;
use crate::harness::daemon::{Daemon, NAS_SECRET, Site};
use crate::harness::dynauth::{Coa, FakeNas, Scripted};
use crate::harness::http::Answer;
use crate::harness::inside::Inside;
use crate::harness::radiusd;
use crate::harness::{postgres, run, wait_for};

pub const SOON: Duration = Duration::from_secs(60);
pub const GB: u64 = 1_000_000_000;

/// One monthly cycle; a plan of 10 GB that tells at 80 %, throttles at 10 GB and blocks at 20, and the plans it meets.
const CATALOG: &str = r#"
[tenant]
id = "acme"
currency = "USD"
timezone = "UTC"
[[bill_cycle]]
id = "c1"
anchor_day = 1
every = "month"
[[plan]]
id = "capped"
service = "internet"
tariff = "capped"
docsis = { downstream = "100M", upstream = "20M" }
radius = { group = "res", reply = { "Mikrotik-Rate-Limit" = "20M/100M" } }
[[plan]]
id = "slow"
service = "internet"
tariff = "open"
docsis = { downstream = "1M", upstream = "1M" }
radius = { group = "res", reply = { "Mikrotik-Rate-Limit" = "64k/64k" } }
[[plan]]
id = "open"
service = "internet"
tariff = "open"
docsis = { downstream = "100M", upstream = "20M" }
radius = { group = "res", reply = { "Mikrotik-Rate-Limit" = "20M/100M" } }
[[tariff]]
id = "capped"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "30.00"
timing = "arrears"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
allowance = { amount = "10" }
model = "standard"
unit_amount = "0.35"
[[tariff.tax]]
id = "vat"
rate = "10"
[[tariff.threshold]]
at = "80%"
meter = "data"
do = ["notify"]
[[tariff.threshold]]
at = "10 GB"
meter = "data"
do = ["notify", "throttle:slow"]
[[tariff.threshold]]
at = "20 GB"
meter = "data"
do = ["disconnect"]
[[tariff]]
id = "open"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "50.00"
timing = "arrears"
"#;

fn internet(number: u32) -> Value {
    json!({
        "status": "active", "bill_cycle": "c1",
        "services": [{
            "id": format!("{number}-1"), "type": "internet", "plan": "capped", "billing_from": "2026-01-01",
            "radius": {"username": format!("user{number}@acme"), "password": "pw"}
        }]
    })
}

/// Whatever answers the API: a process, or the daemon inside this one.
pub trait Api {
    fn ask(&self, key: &str, method: &str, path: &str, body: Option<&Value>) -> Answer;
}

impl Api for Daemon {
    fn ask(&self, key: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.api(key, method, path, body)
    }
}

impl Api for Inside {
    fn ask(&self, key: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.api(key, method, path, body)
    }
}

fn push(api: &impl Api, key: &str, number: u32, change: impl Fn(&mut Value)) {
    let mut body = internet(number);
    change(&mut body);
    let answer = api.ask(key, "PUT", &format!("acme/accounts/{number}"), Some(&body));
    assert!(answer.status < 300, "{} {}", answer.status, answer.body);
}

fn on_plan(plan: &'static str) -> impl Fn(&mut Value) {
    move |body| body["services"][0]["plan"] = plan.into()
}

fn account(api: &impl Api, key: &str, number: u32) -> Value {
    api.ask(key, "GET", &format!("acme/accounts/{number}"), None).json()
}

fn applied(api: &impl Api, key: &str, number: u32) {
    wait_for("the rows are written", SOON, || {
        (account(api, key, number)["services"][0]["provisioning"]["state"] == "applied").then_some(())
    });
}

/// Treatments of the holds that follow from use.
pub fn holds(api: &impl Api, key: &str, number: u32) -> Vec<String> {
    let account = account(api, key, number);
    let holds = account["operator_holds"].as_array().cloned().unwrap_or_default();
    let own = holds.iter().filter(|hold| hold["placed_by"] == "usage");
    own.map(|hold| hold["treatment"].as_str().unwrap_or_default().to_owned()).collect()
}

pub fn report(port: u16, number: u32, kind: &str, seconds: u64, octets: u64) {
    let (high, low) = (octets >> 32, octets & 0xffff_ffff);
    let report = format!(
        "User-Name = \"user{number}@acme\"\nAcct-Session-Id = \"s{number}\"\nAcct-Status-Type = {kind}\n\
         NAS-Identifier = \"bng-7\"\nFramed-IP-Address = 10.0.0.7\nAcct-Session-Time = {seconds}\n\
         Acct-Input-Octets = 0\nAcct-Input-Gigawords = 0\nAcct-Output-Octets = {low}\nAcct-Output-Gigawords = {high}\n"
    );
    let answer = radclient_raw(port, "acct", NAS_SECRET, &report);
    assert!(answer.contains("Received Accounting-Response"), "{answer}");
}

/// (type, subject, what of the threshold) of the events of use, holds and batches; the numbers of all must have no gap.
pub fn events(api: &impl Api, key: &str) -> Vec<String> {
    let (mut found, mut cursor, mut count) = (Vec::new(), "0".to_owned(), 0);
    loop {
        let page = api.ask(key, "GET", &format!("acme/events?limit=3&cursor={cursor}"), None).json();
        let items = page["items"].as_array().expect("items").clone();
        if items.is_empty() {
            assert_eq!(page["next"], json!(cursor), "a place to go on from");
            return found;
        }
        for event in items {
            count += 1;
            assert_eq!(event["sequence"], json!(count), "no gap: {event}");
            let (kind, subject) = (event["type"].as_str().expect("a type"), event["subject"].as_str().expect("one"));
            if !["usage.", "hold.", "invoice_batch."].iter().any(|of| kind.starts_with(of)) {
                continue;
            }
            let what = event["data"]["at"].as_str().or(event["data"]["hold"]["treatment"].as_str()).unwrap_or_default();
            found.push(format!("{kind} {subject} {what}").trim_end().to_owned());
        }
        cursor = page["next"].as_str().expect("a cursor").to_owned();
    }
}

pub fn tells(site: &Site, coa: &str) {
    site.edit("identity = \"nas-identifier\"", &format!("identity = \"nas-identifier\"\ncoa = {{ {coa} }}"));
}

#[test]
fn a_crossing_reaches_the_nas_at_once_and_acts_once_on_sqlite() {
    crossing(Site::sqlite());
}

#[test]
fn a_crossing_reaches_the_nas_at_once_and_acts_once_on_postgresql() {
    let mut site = Site::postgres();
    let url = postgres::database();
    site.edit(&site.aaa_url, &url);
    site.aaa_url = url;
    crossing(site);
}

fn crossing(site: Site) {
    if !radiusd::may_run() {
        return;
    }
    let nas = Coa::start(NAS_SECRET);
    let port = nas.port;
    tells(
        &site,
        &format!("address = \"127.0.0.1\", port = {port}, mode = \"coa\", attributes = [\"Mikrotik-Rate-Limit\"]"),
    );
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    wait_for("the AAA tables are made", SOON, || known_group(&site.aaa_url).ok());
    push(&daemon, &key, 1, |_| {});
    applied(&daemon, &key, 1);
    let radius = site.radius_port;
    report(radius, 1, "Start", 0, 0);

    // Short of the first threshold, then beyond it: told, and nothing else.
    report(radius, 1, "Interim-Update", 60, 8 * GB - 1);
    report(radius, 1, "Interim-Update", 120, 8 * GB);
    wait_for("it is told", SOON, || (!events(&daemon, &key).is_empty()).then_some(()));
    assert_eq!(events(&daemon, &key), ["usage.threshold default/1/1-1 80%"]);
    let event = daemon.api(&key, "GET", "acme/events?type=usage.threshold", None).json()["items"][0]["data"].clone();
    assert_eq!((&event["used"], &event["threshold"], &event["unit"]), (&json!("8"), &json!("8"), &json!("GB")));
    assert!(holds(&daemon, &key, 1).is_empty());

    // The record that crosses: the live session is slower before the next one.
    let begun = Instant::now();
    report(radius, 1, "Interim-Update", 180, 11 * GB);
    let told = "Mikrotik-Rate-Limit = \"64k/64k\"";
    wait_for("the NAS is told", SOON, || nas.log().contains(told).then_some(()));
    println!("from the record to the CoA-Request at FreeRADIUS: {} ms", begun.elapsed().as_millis());
    assert_eq!(holds(&daemon, &key, 1), ["throttle:slow"]);

    // The same record again and more use do not act again.
    report(radius, 1, "Interim-Update", 180, 11 * GB);
    report(radius, 1, "Interim-Update", 240, 12 * GB);

    // The last threshold ends the session and keeps the login out.
    report(radius, 1, "Interim-Update", 300, 21 * GB);
    wait_for("the session is ended", SOON, || nas.log().contains("Received Disconnect-Request").then_some(()));
    wait_for("both hold", SOON, || (holds(&daemon, &key, 1) == ["throttle:slow", "block"]).then_some(()));
    let told = events(&daemon, &key);
    assert_eq!(
        told,
        [
            "usage.threshold default/1/1-1 80%",
            "hold.placed default/1/1-1 throttle:slow",
            "usage.threshold default/1/1-1 10 GB",
            "hold.placed default/1/1-1 block",
        ]
    );

    // A person suspends and resumes: the restrictions of use are not theirs to take along.
    let path = "acme/accounts/1/services/1-1";
    assert_eq!(daemon.api(&key, "POST", &format!("{path}/suspend"), Some(&json!({}))).status, 200);
    assert_eq!(daemon.api(&key, "POST", &format!("{path}/resume"), Some(&json!({}))).status, 200);
    assert_eq!(holds(&daemon, &key, 1), ["throttle:slow", "block"]);

    // Another plan has no threshold: what followed from the old one ends at once.
    push(&daemon, &key, 1, on_plan("open"));
    wait_for("nothing holds", SOON, || holds(&daemon, &key, 1).is_empty().then_some(()));
    // Back again, the old marks still stand: held as before, and told nothing twice.
    push(&daemon, &key, 1, |_| {});
    wait_for("both hold again", SOON, || (holds(&daemon, &key, 1).len() == 2).then_some(()));
    let thresholds = |all: Vec<String>| all.iter().filter(|event| event.starts_with("usage.threshold")).count();
    assert_eq!(thresholds(events(&daemon, &key)), 2);
    let listed = site.json(&["event", "list", "--tenant", "acme", "--type", "usage.threshold"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    daemon.stop();
}

/// The group of all plans says the same, so that only the plans' own rows differ.
fn known_group(url: &str) -> Result<(), sqlx::Error> {
    use sqlx::Connection;
    let statement =
        "INSERT INTO radgroupreply (groupname, attribute, op, value) VALUES ('res', 'Idle-Timeout', ':=', '0')";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if url.starts_with("sqlite") {
            sqlx::query(statement).execute(&mut sqlx::SqliteConnection::connect(url).await?).await?;
        } else {
            sqlx::query(statement).execute(&mut sqlx::PgConnection::connect(url).await?).await?;
        }
        Ok(())
    })
}

#[test]
fn killed_at_any_moment_each_crossing_is_told_once() {
    const ACCOUNTS: u32 = 12;
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let mut daemon = site.start();
    for number in 1..=ACCOUNTS {
        push(&daemon, &key, number, |_| {});
        report(site.radius_port, number, "Start", 0, 0);
    }
    for number in 1..=ACCOUNTS {
        report(site.radius_port, number, "Interim-Update", 60, 9 * GB);
        report(site.radius_port, number, "Interim-Update", 120, 11 * GB);
        // At once, and ever later: before the fold, between fold and look, in the middle of what follows, after it.
        std::thread::sleep(Duration::from_millis(u64::from(number - 1) * 60));
        daemon.kill();
        daemon = site.start();
    }
    wait_for("all are held", SOON, || {
        (1..=ACCOUNTS).all(|number| holds(&daemon, &key, number) == ["throttle:slow"]).then_some(())
    });
    let mut told = events(&daemon, &key);
    told.sort();
    let mut expected: Vec<String> = (1..=ACCOUNTS)
        .flat_map(|number| {
            ["usage.threshold SUBJECT 80%", "usage.threshold SUBJECT 10 GB", "hold.placed SUBJECT throttle:slow"]
                .map(|event| event.replace("SUBJECT", &format!("default/{number}/{number}-1")))
        })
        .collect();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn two_daemons_tell_each_crossing_once() {
    const ACCOUNTS: u32 = 20;
    let first = Site::postgres();
    first.prepare(CATALOG);
    let second = first.twin();
    let key = first.key("acme", "admin");
    let (one, two) = (first.start(), second.start());
    for number in 1..=ACCOUNTS {
        push(&one, &key, number, |_| {});
    }
    for number in 1..=ACCOUNTS {
        let port = if number % 2 == 0 { first.radius_port } else { second.radius_port };
        report(port, number, "Start", 0, 0);
        report(port, number, "Interim-Update", 60, 11 * GB);
    }
    wait_for("all are held", SOON, || {
        (1..=ACCOUNTS).all(|number| holds(&two, &key, number) == ["throttle:slow"]).then_some(())
    });
    let told = events(&one, &key);
    assert_eq!(told.len(), 3 * ACCOUNTS as usize, "{told:#?}");
    assert_eq!(told, events(&two, &key));
    let mut unique = told.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), told.len(), "{told:#?}");
    one.stop();
    two.stop();
}

/// The modem keeps its boot; its new file waits for it. The login beside it changes at once, both ways.
#[test]
fn a_new_period_restores_what_use_took_and_no_modem_is_reset() {
    let site = Site::sqlite();
    let nas = FakeNas::start(NAS_SECRET, Scripted::Ack);
    tells(&site, &format!("address = \"127.0.0.1\", port = {}, timeout_seconds = 3", nas.port));
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = Inside::start(&site);
    push(&daemon, &key, 1, |body| {
        body["devices"] = json!([{"id": "gw", "cm_mac": "00:11:22:00:00:01"}]);
        body["services"][0]["device"] = json!("gw");
    });
    let lanes =
        || stored(&site, "SELECT group_concat(kind || job.lane, ' ') FROM (SELECT * FROM job ORDER BY id) AS job");
    wait_for("both have a job", SOON, || (lanes().split(' ').count() == 2).then_some(()));
    report(site.radius_port, 1, "Start", 0, 0);
    report(site.radius_port, 1, "Interim-Update", 60, 11 * GB);
    wait_for("it is held", SOON, || (holds(&daemon, &key, 1) == ["throttle:slow"]).then_some(()));
    let group =
        || stored(&site_of(&site.aaa_url), "SELECT value FROM radreply WHERE attribute = 'Mikrotik-Rate-Limit'");
    wait_for("the login is slow", SOON, || (group() == "64k/64k").then_some(()));
    wait_for("the NAS is asked", SOON, || (!nas.packets().is_empty()).then_some(()));
    assert!(modem(&site).contains("throttled"), "{}", modem(&site));

    // A day before the period ends nothing changes.
    let until = account(&daemon, &key, 1)["operator_holds"][0]["until"].as_str().expect("an end").to_owned();
    let until: jiff::Timestamp = until.parse().expect("an instant");
    let left = until.duration_since(daemon.clock.now()).as_secs();
    daemon.clock.advance_micros((left - 3600).max(0) * 1_000_000);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(holds(&daemon, &key, 1), ["throttle:slow"]);
    assert!(
        until.duration_since("2026-01-01T00:00:00Z".parse().expect("an instant")).as_secs() % 86_400 < 300,
        "{until}"
    );

    // Then it does, by itself: at once for the login, at its next boot for the modem.
    let asked = nas.packets().len();
    daemon.clock.advance_micros(3_602 * 1_000_000);
    wait_for("the login is fast", SOON, || (group() == "20M/100M").then_some(()));
    wait_for("the NAS is asked", SOON, || (nas.packets().len() > asked).then_some(()));
    assert!(holds(&daemon, &key, 1).is_empty());
    wait_for("the modem's file is the old one", SOON, || modem(&site).contains("active").then_some(()));
    // Each kind's jobs: first the push of a person (0), then what followed from use: the login at once, the modem never.
    assert_eq!(of_kind(&lanes(), "cm"), ["cm0", "cm1", "cm1"], "no change of use may cost a boot");
    assert_eq!(of_kind(&lanes(), "aaa"), ["aaa0", "aaa0", "aaa1"], "restored as one of many");
    let told = events(&daemon, &key);
    assert_eq!(told.last().map(String::as_str), Some("hold.lifted default/1/1-1 throttle:slow"), "{told:#?}");

    // What is used from here on is the new period's: it may cross again.
    report(site.radius_port, 1, "Interim-Update", 120, 11 * GB);
    report(site.radius_port, 1, "Interim-Update", 180, 11 * GB + 8 * GB);
    wait_for("it is told again", SOON, || {
        let told = events(&daemon, &key);
        (told.iter().filter(|event| event.ends_with("80%")).count() == 2).then_some(())
    });
}

fn of_kind(lanes: &str, kind: &str) -> Vec<String> {
    lanes.split(' ').filter(|lane| lane.starts_with(kind)).map(str::to_owned).collect()
}

fn modem(site: &Site) -> String {
    stored(site, "SELECT json_extract(desired, '$.access') FROM element WHERE kind = 'cm'")
}

#[test]
fn the_balance_is_the_later_bill_on_sqlite() {
    balance_is_the_bill(Site::sqlite());
}

#[test]
fn the_balance_is_the_later_bill_on_postgresql() {
    balance_is_the_bill(Site::postgres());
}

fn balance_is_the_bill(site: Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = Inside::start(&site);
    push(&daemon, &key, 1, |_| {});
    report(site.radius_port, 1, "Start", 0, 0);
    report(site.radius_port, 1, "Interim-Update", 4_000, 7 * GB + 123_456_789);
    report(site.radius_port, 1, "Interim-Update", 4_900, 13 * GB + 987_654_321);
    wait_for("it is folded", SOON, || {
        let usage = daemon.api(&key, "GET", "acme/accounts/1/usage", None).json();
        (usage["total"]["out_octets"] == json!(13 * GB + 987_654_321)).then_some(())
    });

    // Now: the hour that runs is in no ledger entry yet, and counts.
    let balance = daemon.api(&key, "GET", "acme/accounts/1/balance", None).json();
    let period = balance["period"]["start"].as_str().expect("a start")[..10].to_owned();
    let order = json!({"cycle": "c1", "period": period, "dry_run": true});
    let preview = daemon.api(&key, "POST", "acme/bill-runs", Some(&order)).json();
    let items = balance["items"].as_array().expect("items");
    let data = items.iter().find(|item| item["charge"] == "data").expect("usage");
    assert_eq!((&data["used"], &data["allowance_left"]), (&json!("13.987654321"), &json!("0")), "{balance}");
    assert_eq!(data["amount"], json!("1.40"), "3.987654321 GB at 0.35");
    assert_eq!(of_balance(&balance), of_lines(&preview, &period), "{balance:#}\n{preview:#}");

    // The period ends, nothing more is used: the real lines are those.
    let ends: jiff::Timestamp = balance["period"]["end"].as_str().expect("an end").parse().expect("an instant");
    daemon.clock.advance_micros(ends.duration_since(daemon.clock.now()).as_micros() as i64 + 1_000_000);
    let closed = daemon.api(&key, "POST", "acme/bill-runs", Some(&json!({"cycle": "c1", "period": period}))).json();
    assert_eq!(bare(&closed), bare(&preview), "what a preview shows is what a run emits");
    let watermark = |run: &Value| -> Vec<Value> {
        let lines = run["lines"].as_array().expect("lines").clone();
        lines.iter().filter(|line| !line["usage"].is_null()).map(|line| line["usage"]["watermark"].clone()).collect()
    };
    assert!(watermark(&closed).iter().all(|watermark| *watermark == balance["watermark"]), "the same entries");
    let told = events(&daemon, &key);
    assert!(told.iter().any(|event| event.starts_with("invoice_batch.closed acme.c1.")), "{told:#?}");
}

type Items = Vec<(String, String, String)>;

fn of_balance(balance: &Value) -> Items {
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
    let items = balance["items"].as_array().expect("items");
    items.iter().map(|item| (text(item, "charge"), text(item, "used"), text(item, "amount"))).collect()
}

/// The lines of a run that are of one period.
fn of_lines(run: &Value, period: &str) -> Items {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = run["lines"].as_array().expect("lines").iter();
    let of_period =
        lines.filter(|line| line["period"]["start"].as_str().is_some_and(|start| start.starts_with(period)));
    of_period.map(|line| (text(line, "charge"), text(line, "quantity"), text(line, "amount"))).collect()
}

/// A run's lines without what tells when and in which batch they were made.
pub fn bare(run: &Value) -> Vec<Value> {
    let mut lines = run["lines"].as_array().expect("lines").clone();
    for line in &mut lines {
        line.as_object_mut().expect("a line").retain(|key, _| key != "batch" && key != "created_at");
    }
    lines
}

fn stored(site: &impl AsFile, sql: &str) -> String {
    let output = run("sqlite3", "sqlite3", &["-readonly", "-cmd", ".timeout 5000", &site.file(), sql]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

trait AsFile {
    fn file(&self) -> String;
}

impl AsFile for Site {
    fn file(&self) -> String {
        self.path("lastmile.db").display().to_string()
    }
}

struct File(String);

impl AsFile for File {
    fn file(&self) -> String {
        self.0.clone()
    }
}

fn site_of(url: &str) -> File {
    File(url.trim_start_matches("sqlite://").to_owned())
}
