//! Top-ups, prepaid services and allowances of a family of accounts through the running daemon, on both databases.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::daemon::{Daemon, Site};
use crate::harness::dynauth::{FakeNas, Scripted};
use crate::harness::inside::Inside;
use crate::harness::{http, wait_for};
use crate::thresholds::{Api, GB, SOON, bare, events, holds, report, tells};

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
id = "prepaid"
service = "internet"
tariff = "prepaid"
radius = { group = "res" }
[[plan]]
id = "family"
service = "internet"
tariff = "family"
radius = { group = "res" }
[[tariff]]
id = "prepaid"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
prepaid = true
[[tariff.top_up]]
id = "boost"
charge = "data"
amount = "10"
price = "5.00"
valid = "1 cycles"
[[tariff.tax]]
id = "vat"
rate = "10"
[[tariff]]
id = "family"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
allowance = { amount = "10", pool = "parent" }
model = "standard"
unit_amount = "1"
[[tariff.threshold]]
at = "80%"
meter = "data"
do = ["notify"]
"#;

/// A plan whose allowance is the service's own, and a second calendar.
const PLAIN: &str = r#"
[[bill_cycle]]
id = "c15"
anchor_day = 15
every = "month"
[[plan]]
id = "plain"
service = "internet"
tariff = "plain"
radius = { group = "res" }
[[tariff]]
id = "plain"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
allowance = { amount = "10" }
model = "standard"
unit_amount = "1"
"#;

fn push(api: &impl Api, key: &str, number: u32, plan: &str, parent: Option<&str>) {
    push_on(api, key, number, (plan, "c1"), parent);
}

fn push_on(api: &impl Api, key: &str, number: u32, (plan, cycle): (&str, &str), parent: Option<&str>) {
    // Since the month began, so that no line is of an earlier one.
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let month = today.first_of_month().to_string();
    let body = json!({
        "status": "active", "bill_cycle": cycle, "parent": parent,
        "services": [{
            "id": format!("{number}-1"), "type": "internet", "plan": plan, "billing_from": month,
            "radius": {"username": format!("user{number}@acme"), "password": "pw"}
        }]
    });
    let answer = api.ask(key, "PUT", &format!("acme/accounts/{number}"), Some(&body));
    assert!(answer.status < 300, "{} {}", answer.status, answer.body);
}

fn top_up(api: &impl Api, key: &str, number: u32, body: Value) -> (u16, Value) {
    let mut body = body;
    body["type"] = json!("top_up");
    let answer = api.ask(key, "POST", &format!("acme/accounts/{number}/charges"), Some(&body));
    (answer.status, answer.json())
}

fn balance(api: &impl Api, key: &str, number: u32) -> Value {
    let balance = api.ask(key, "GET", &format!("acme/accounts/{number}/balance"), None).json();
    let items = balance["items"].as_array().unwrap_or_else(|| panic!("{balance}")).clone();
    items.into_iter().find(|item| item["charge"] == "data").unwrap_or_else(|| panic!("{balance}"))
}

/// Everything of a period is explained from its records.
fn explained(site: &Site, run: &Value) -> usize {
    let lines = run["lines"].as_array().expect("lines");
    for line in lines {
        let explained = site.json(&["line", "explain", line["id"].as_str().expect("an id"), "--json"]);
        assert_eq!(explained["differences"], json!([]), "{explained:#}");
    }
    lines.len()
}

/// The daemon's clock goes to the end of the period; the period is closed.
fn close(daemon: &Inside, key: &str, balance_of: u32) -> (Value, Value) {
    let balance = daemon.api(key, "GET", &format!("acme/accounts/{balance_of}/balance"), None).json();
    let period = balance["period"]["start"].as_str().expect("a start")[..10].to_owned();
    let order = json!({"cycle": "c1", "period": period, "dry_run": true});
    let preview = daemon.api(key, "POST", "acme/bill-runs", Some(&order)).json();
    let ends: jiff::Timestamp = balance["period"]["end"].as_str().expect("an end").parse().expect("an instant");
    daemon.clock.advance_micros(ends.duration_since(daemon.clock.now()).as_micros() as i64 + 1_000_000);
    let closed = daemon.api(key, "POST", "acme/bill-runs", Some(&json!({"cycle": "c1", "period": period}))).json();
    (preview, closed)
}

#[test]
fn prepaid_service_stops_and_a_top_up_brings_it_back_on_sqlite() {
    prepaid(Site::sqlite());
}

#[test]
fn prepaid_service_stops_and_a_top_up_brings_it_back_on_postgresql() {
    prepaid(Site::postgres());
}

fn prepaid(site: Site) {
    let nas = FakeNas::start(crate::harness::daemon::NAS_SECRET, Scripted::Ack);
    tells(&site, &format!("address = \"127.0.0.1\", port = {}, timeout_seconds = 3", nas.port));
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = Inside::start(&site);
    push(&daemon, &key, 1, "prepaid", None);
    let first = top_up(&daemon, &key, 1, json!({"id": "t-1", "top_up": "boost"}));
    assert_eq!(first.0, 201, "{}", first.1);
    let granted = &first.1["granted"];
    assert_eq!(
        (&granted["amount"], &granted["price"], &granted["charge"]),
        (&json!("10000000000"), &json!("5"), &json!("data"))
    );
    let again = top_up(&daemon, &key, 1, json!({"id": "t-1", "top_up": "boost"}));
    assert_eq!((again.0, &again.1["id"], &again.1["granted"]), (200, &first.1["id"], granted), "granted once");
    assert_eq!(top_up(&daemon, &key, 1, json!({"id": "t-1", "top_up": "boost", "quantity": 2})).0, 409);
    let refused = top_up(&daemon, &key, 1, json!({"charge": "data", "grant": "5 h"}));
    assert_eq!((refused.0, &refused.1["errors"][0]["pointer"]), (422, &json!("/grant")), "{}", refused.1);

    report(site.radius_port, 1, "Start", 0, 0);
    report(site.radius_port, 1, "Interim-Update", 60, 6 * GB);
    wait_for("it is counted", SOON, || (balance(&daemon, &key, 1)["used"] == "6").then_some(()));
    let item = balance(&daemon, &key, 1);
    assert_eq!(
        (&item["allowance"], &item["allowance_left"], &item["amount"]),
        (&json!("10"), &json!("4"), &json!("0.00"))
    );
    let bucket = &item["buckets"][0];
    assert_eq!(
        (&bucket["kind"], &bucket["id"], &bucket["used"], &bucket["left"], &bucket["until"]),
        (&json!("top_up"), &first.1["id"], &json!("6"), &json!("4"), &granted["until"]),
        "{item:#}"
    );
    assert!(holds(&daemon, &key, 1).is_empty());

    // Beyond the last bucket: stopped, and nothing is billed for it.
    report(site.radius_port, 1, "Interim-Update", 120, 11 * GB);
    wait_for("it is stopped", SOON, || (holds(&daemon, &key, 1) == ["block"]).then_some(()));
    wait_for("the NAS is asked", SOON, || (!nas.packets().is_empty()).then_some(()));
    assert_eq!(balance(&daemon, &key, 1)["amount"], json!("0.00"));

    // A gift of half a gigabyte is less than what was used beyond: still stopped. The next one brings it back.
    assert_eq!(top_up(&daemon, &key, 1, json!({"charge": "data", "grant": "0.5 GB", "valid": "period"})).0, 201);
    let begun = Instant::now();
    assert_eq!(top_up(&daemon, &key, 1, json!({"id": "t-2", "top_up": "boost"})).0, 201);
    wait_for("it goes on", SOON, || holds(&daemon, &key, 1).is_empty().then_some(()));
    println!("from the top-up to the end of the hold: {} ms", begun.elapsed().as_millis());
    report(site.radius_port, 1, "Interim-Update", 180, 20 * GB);
    report(site.radius_port, 1, "Interim-Update", 240, 21 * GB);
    wait_for("it is stopped again", SOON, || (holds(&daemon, &key, 1) == ["block"]).then_some(()));
    let told = events(&daemon, &key);
    let kinds: Vec<&str> = told.iter().map(|event| event.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(kinds, ["hold.placed", "hold.lifted", "hold.placed"], "each once: {told:#?}");

    // The bill: two prices with tax, and the usage for nothing, out of the buckets in the order in which they expire.
    let (preview, closed) = close(&daemon, &key, 1);
    assert_eq!(bare(&closed), bare(&preview));
    let lines = closed["lines"].as_array().expect("lines");
    let of =
        |charge: &Value| lines.iter().find(|line| line["charge"] == *charge).unwrap_or_else(|| panic!("{closed:#}"));
    let price = of(&first.1["id"]);
    assert_eq!(
        (&price["kind"], &price["amount"], &price["tax"][0]["amount"]),
        (&json!("one_off"), &json!("5.00"), &json!("0.50"))
    );
    let data = of(&json!("data"));
    assert_eq!(
        (&data["quantity"], &data["allowance_used"], &data["amount"]),
        (&json!("21"), &json!("20.5"), &json!("0.00"))
    );
    let used: Vec<&Value> =
        data["allowance"]["buckets"].as_array().expect("buckets").iter().map(|one| &one["used"]).collect();
    assert_eq!(used, [&json!("0.5"), &json!("10"), &json!("10")]);
    // No line for what was a gift.
    assert_eq!(explained(&site, &closed), 3, "{closed:#}");

    // The period's hold ends, and nothing is there in the next one either.
    daemon.clock.advance_micros(301 * 1_000_000);
    wait_for("it is stopped in the new period, too", SOON, || {
        let told = events(&daemon, &key);
        let told: Vec<&String> = told.iter().filter(|event| event.starts_with("hold.")).collect();
        (told.len() == 5 && holds(&daemon, &key, 1) == ["block"]).then_some(())
    });
}

#[test]
fn killed_at_any_moment_a_top_up_is_granted_once() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let mut daemon: Daemon = site.start();
    push(&daemon, &key, 1, "prepaid", None);
    const ROUNDS: u64 = 10;
    let bearer = format!("Bearer {key}");
    for round in 0..ROUNDS {
        let path = "/v1/tenants/acme/accounts/1/charges";
        let body = json!({"type": "top_up", "charge": "data", "grant": "1 GB"}).to_string();
        let name = format!("round-{round}");
        let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", name.as_str())];
        let port = site.http_port;
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| http::request(port, "POST", path, &headers, Some(&body)));
            // Before it arrives, while it is written, after the answer.
            std::thread::sleep(Duration::from_millis(round * 2));
            daemon.kill();
            asking.join().expect("no panic")
        });
        daemon = site.start();
        // Whoever got no answer asks again, with the same key.
        let answer = http::request(port, "POST", path, &headers, Some(&body)).expect("an answer");
        assert_eq!(answer.status, 201, "{}", answer.body);
        if let Ok(first) = asked {
            assert_eq!(first.json()["id"], answer.json()["id"], "the answer that was given stands");
        }
    }
    let listed = daemon.api(&key, "GET", "acme/accounts/1/charges", None).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(ROUNDS as usize), "{listed}");
    assert_eq!(balance(&daemon, &key, 1)["allowance"], json!(ROUNDS.to_string()));
    daemon.stop();
}

#[test]
fn family_shares_its_allowance_on_sqlite() {
    family(Site::sqlite());
}

#[test]
fn family_shares_its_allowance_on_postgresql() {
    family(Site::postgres());
}

fn family(site: Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = Inside::start(&site);
    // The head itself, two below it, and one that has nothing to do with them.
    push(&daemon, &key, 1, "family", None);
    push(&daemon, &key, 2, "family", Some("1"));
    push(&daemon, &key, 3, "family", Some("1"));
    push(&daemon, &key, 4, "family", None);
    for number in [2, 4] {
        report(site.radius_port, number, "Start", 0, 0);
        report(site.radius_port, number, "Interim-Update", 60, 23 * GB);
    }
    let used = |number: u32, gigabytes: &str| {
        wait_for("it is counted", SOON, || (balance(&daemon, &key, number)["used"] == gigabytes).then_some(()));
        balance(&daemon, &key, number)
    };
    let item = used(2, "23");
    assert_eq!(
        (&item["allowance"], &item["allowance_left"], &item["amount"]),
        (&json!("30"), &json!("7"), &json!("0.00"))
    );
    assert_eq!(used(4, "23")["amount"], json!("13.00"), "alone");
    let subjects = |told: Vec<String>| -> Vec<String> {
        let mut told: Vec<String> = told.into_iter().filter(|event| event.starts_with("usage.threshold")).collect();
        told.sort();
        told
    };
    let one = ["usage.threshold default/4/4-1 80%"];
    wait_for("the one alone is told", SOON, || (subjects(events(&daemon, &key)) == one).then_some(()));

    // One more gigabyte of another member brings all of the family to 80 % of 30.
    report(site.radius_port, 3, "Start", 0, 0);
    let begun = Instant::now();
    report(site.radius_port, 3, "Interim-Update", 60, GB);
    let all = [1, 2, 3, 4].map(|number| format!("usage.threshold default/{number}/{number}-1 80%"));
    wait_for("each member is told once", SOON, || (subjects(events(&daemon, &key)) == all).then_some(()));
    println!("from the record to the last of three events: {} ms", begun.elapsed().as_millis());

    // Ten more than there is: each its own first, the rest in the order of the accounts.
    report(site.radius_port, 3, "Interim-Update", 120, 17 * GB);
    assert_eq!(used(3, "17")["amount"], json!("7.00"), "its own ten");
    assert_eq!(balance(&daemon, &key, 2)["amount"], json!("3.00"), "its own ten, and the head's");
    let (preview, closed) = close(&daemon, &key, 2);
    assert_eq!(bare(&closed), bare(&preview));
    let amounts: Vec<(String, String)> = closed["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| [&line["account"], &line["amount"]].map(|text| text.as_str().unwrap_or_default().to_owned()).into())
        .collect();
    let expected = [("1", "0.00"), ("2", "3.00"), ("3", "7.00"), ("4", "13.00")];
    assert_eq!(amounts, expected.map(|(account, amount)| (account.to_owned(), amount.to_owned())), "{closed:#}");
    assert_eq!(explained(&site, &closed), 4);

    // At the tariff of today the period comes to the same.
    let period = closed["lines"][0]["period"]["start"].as_str().expect("a start")[..10].to_owned();
    let tariff = site.path("family.toml");
    let text = CATALOG.split("[[tariff]]").nth(2).expect("the family's").replace("[[tariff.", "[[");
    std::fs::write(&tariff, text).expect("a file");
    let (tariff, period) = (tariff.display().to_string(), period.as_str());
    let simulated =
        site.json(&["tariff", "simulate", &tariff, "--tenant", "acme", "--cycle", "c1", "--period", period, "--json"]);
    assert_eq!(simulated["control"], json!({"accounts": 4, "differ": 0, "failed": 0}), "{simulated:#}");
    let sums = &simulated["totals"]["amounts"][0];
    assert_eq!((&sums["before"], &sums["difference"]), (&json!("23.00"), &json!("0.00")), "{simulated:#}");
    let again = daemon.api(&key, "POST", "acme/bill-runs", Some(&json!({"cycle": "c1", "period": period}))).json();
    assert_eq!(again["lines"], json!([]), "{again:#}");
}

#[test]
fn rest_of_a_top_up_follows_the_account_to_another_cycle_on_sqlite() {
    mover(Site::sqlite());
}

#[test]
fn rest_of_a_top_up_follows_the_account_to_another_cycle_on_postgresql() {
    mover(Site::postgres());
}

fn mover(site: Site) {
    site.prepare(&format!("{CATALOG}{PLAIN}"));
    let key = site.key("acme", "admin");
    let daemon = Inside::start(&site);
    let today = || daemon.clock.now().to_zoned(jiff::tz::TimeZone::UTC).date();
    // Services begin with their month; what is used is used on three days in a row.
    push(&daemon, &key, 1, "plain", None);
    let posted = top_up(&daemon, &key, 1, json!({"charge": "data", "grant": "20 GB"}));
    assert_eq!(posted.0, 201, "{}", posted.1);
    let used = |gigabytes: u64, all: &str| {
        report(site.radius_port, 1, "Start", 0, 0);
        report(site.radius_port, 1, "Stop", 60, gigabytes * GB);
        wait_for("it is counted", SOON, || (balance(&daemon, &key, 1)["used"] == all).then_some(()));
    };
    let first = today();
    used(16, "16");
    daemon.pass_days(1);
    let document = |cycle: &str| {
        json!({
            "status": "active", "bill_cycle": cycle,
            "services": [{
                "id": "1-1", "type": "internet", "plan": "plain", "billing_from": first.first_of_month().to_string(),
                "radius": {"username": "user1@acme", "password": "pw"}
            }]
        })
    };
    let moved = daemon.api(&key, "PUT", "acme/accounts/1", Some(&document("c15")));
    assert_eq!(moved.status, 200, "{}", moved.body);
    daemon.pass_days(1);
    let last = today();
    let before = balance(&daemon, &key, 1);
    assert_eq!((&before["used"], &before["allowance_left"]), (&json!("0"), &json!("30")), "{before:#}");
    used(30, "30");

    // The period of each cycle is closed when it has ended: 6 of the top-up by the first, so that 14 are left for the other.
    let start_of = |day: jiff::civil::Date, anchor: i8| {
        let month = if day.day() >= anchor { day } else { day.first_of_month().yesterday().expect("a day") };
        jiff::civil::date(month.year(), month.month(), anchor)
    };
    daemon.pass_days(40);
    let run = |cycle: &str, period: jiff::civil::Date| {
        let order = json!({"cycle": cycle, "period": period.to_string()});
        let closed = daemon.api(&key, "POST", "acme/bill-runs", Some(&order));
        assert_eq!(closed.status, 200, "{}", closed.body);
        closed.json()
    };
    let mut of_grant = Vec::new();
    for (cycle, period, amount, taken) in
        [("c1", start_of(first, 1), "0.00", "6"), ("c15", start_of(last, 15), "6.00", "14")]
    {
        let closed = run(cycle, period);
        let lines = closed["lines"].as_array().expect("lines");
        let line = lines.iter().find(|line| line["quantity"] != "0").unwrap_or_else(|| panic!("{closed:#}"));
        assert_eq!(line["amount"], amount, "{closed:#}");
        let buckets = line["allowance"]["buckets"].as_array().expect("buckets");
        let bucket = buckets.iter().find(|bucket| bucket["id"] == posted.1["id"]).expect("the top-up");
        assert_eq!(bucket["used"], taken, "{line:#}");
        explained(&site, &closed);
        of_grant.push(line["id"].as_str().expect("an id").to_owned());
        assert_eq!(run(cycle, period)["lines"], json!([]), "a repeated run");
    }
    for id in of_grant {
        let pack = site.path(&id);
        site.json(&["line", "explain", &id, "--pack", &pack.display().to_string()]);
        let said = std::process::Command::new("python3").args(["-B", "verify.py"]).current_dir(&pack).output();
        let said = said.expect("python3 runs");
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{text}");
        let elsewhere = text.contains("6 were used on another bill cycle");
        assert_eq!(elsewhere, text.contains("line of 6.00"), "{text}");
    }
}

#[test]
fn parents_pushed_before_they_were_kept_count_after_the_upgrade_on_sqlite() {
    upgraded(Site::sqlite());
}

#[test]
fn parents_pushed_before_they_were_kept_count_after_the_upgrade_on_postgresql() {
    upgraded(Site::postgres());
}

fn upgraded(site: Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    push(&daemon, &key, 1, "family", None);
    push(&daemon, &key, 2, "family", Some("1"));
    push(&daemon, &key, 3, "family", Some("O\u{27}Neill \"& Söhne\""));
    daemon.stop();
    let facts = || crate::batches::sql(&site, "SELECT detail FROM service_history ORDER BY id");
    let families =
        || crate::batches::sql(&site, "SELECT head, account_id FROM account_family ORDER BY head, account_id");
    let pushed = (facts(), families());
    // As they were written before the parent was kept in them.
    for statement in [
        "DELETE FROM account_family",
        "UPDATE service_history SET detail = replace(detail, ',\"parent\":\"1\"', '')",
        r#"UPDATE service_history SET detail = replace(detail, ',"parent":"O''Neill \"& Söhne\""', '')"#,
        "DELETE FROM _sqlx_migrations WHERE version = 24",
    ] {
        crate::batches::sql(&site, statement);
    }
    assert!(facts().lines().count() == 3 && !facts().contains("parent") && families().is_empty(), "{}", facts());
    let lacking = site.json(&["migrate", "--dry-run"]);
    assert_eq!(lacking["migrations"][0]["version"], json!(24), "{lacking}");
    site.succeed(&["migrate"]);
    assert_eq!((facts(), families()), pushed, "as the push of today writes it");
    let daemon = Inside::start(&site);
    for (number, parent) in [(2, "1"), (3, "O\u{27}Neill \"& Söhne\"")] {
        push(&daemon, &key, number, "family", Some(parent));
    }
    report(site.radius_port, 2, "Start", 0, 0);
    report(site.radius_port, 2, "Interim-Update", 60, 23 * GB);
    wait_for("it is counted", SOON, || (balance(&daemon, &key, 2)["used"] == "23").then_some(()));
    let item = balance(&daemon, &key, 2);
    assert_eq!((&item["allowance"], &item["amount"]), (&json!("20"), &json!("3.00")), "its own and its parent's");
    let (preview, closed) = close(&daemon, &key, 2);
    assert_eq!(bare(&closed), bare(&preview));
    let lines = closed["lines"].as_array().expect("lines");
    let own = lines.iter().find(|line| line["account"] == "2").unwrap_or_else(|| panic!("{closed:#}"));
    assert_eq!(own["amount"], "3.00", "{own:#}");
    assert_eq!(explained(&site, &closed), 3);
    drop(daemon);
    assert_eq!((facts(), families()), pushed, "the same push again is no change");
}
