//! Offers through the running daemon, on both databases: posted charges, a change that waits for its day, a change of the
//! cycle, wholesale counts of a child tenant.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::harness::acme::last_period;
use crate::harness::daemon::{Daemon, Site};
use crate::harness::wait_for;

const SOON: Duration = Duration::from_secs(60);

const CATALOG: &str = r#"
[tenant]
id = "acme"
currency = "USD"
timezone = "America/Chicago"
[[bill_cycle]]
id = "c15"
anchor_day = 15
every = "month"
[[bill_cycle]]
id = "daily"
every = "day"
[[plan]]
id = "res-100"
service = "internet"
tariff = "res-100"
radius = { group = "res-100" }
[[plan]]
id = "res-300"
service = "internet"
tariff = "res-100"
radius = { group = "res-300" }
[[tariff]]
id = "res-100"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "49.95"
[[tariff.charge]]
id = "setup"
type = "one_off"
amount = "20.00"
tax_category = "labour"
[[tariff.charge]]
id = "modem"
type = "deposit"
amount = "50.00"
[[tariff.tax]]
id = "sales"
rate = "8.25"
"#;

const WHOLESALE: &str = r#"
[[wholesale]]
tenant = "small"
account = "reseller"
tariff = "bulk"
from = "2026-01-01"
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
"#;

#[test]
fn offers_are_billed_and_explained_on_sqlite() {
    journey(&Site::sqlite());
}

#[test]
fn offers_are_billed_and_explained_on_postgres() {
    journey(&Site::postgres());
}

fn journey(site: &Site) {
    site.prepare(CATALOG);
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    charges(site, &daemon, &admin);
    waiting_change(&daemon, &admin);
    change_of_cycle(site, &daemon, &admin);
    counts(site, &daemon, &admin);
    daemon.stop();
}

fn account(cycle: &str, plan: &str, username: &str) -> Value {
    json!({
        "status": "active", "bill_cycle": cycle,
        "services": [{"id": "s1", "type": "internet", "plan": plan, "billing_from": "2026-01-01",
                      "radius": {"username": username, "password": "pw"}}]
    })
}

/// A posted charge is stored once, billed once, and explains itself.
fn charges(site: &Site, daemon: &Daemon, admin: &str) {
    let pushed = daemon.api(admin, "PUT", "acme/accounts/A", Some(&account("c15", "res-100", "ada@acme")));
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    let (start, _) = last_period(Timestamp::now());
    let post = |body: Value| daemon.api(admin, "POST", "acme/accounts/A/charges", Some(&body));
    let visit = json!({"type": "one_off", "id": "visit-1", "amount": "12.34", "quantity": 2, "service": "s1",
                       "on": start, "tariff": "res-100", "description": "Technician"});
    let first = post(visit.clone());
    assert_eq!(first.status, 201, "{}", first.body);
    let again = post(visit.clone());
    assert_eq!((again.status, again.json()["id"].clone()), (200, first.json()["id"].clone()));
    let mut other = visit;
    other["amount"] = json!("12.35");
    assert_eq!(post(other).status, 409);
    let named = post(json!({"type": "one_off", "on": start, "tariff": "res-100", "charge": "setup"}));
    assert_eq!(named.status, 201, "{}", named.body);
    assert_eq!(post(json!({"type": "credit", "amount": "5.00", "on": start})).status, 201);
    let refused = post(json!({"type": "credit", "amount": "-5.00", "on": "2001-01-01", "service": "s9"}));
    assert_eq!(refused.status, 422);
    let faults: Vec<String> =
        refused.json()["errors"].as_array().into_iter().flatten().map(|fault| fault["pointer"].to_string()).collect();
    assert_eq!(faults, ["\"/amount\"", "\"/on\"", "\"/service\""]);
    // What is wrong by its form stands in the same answer as what is wrong by its content.
    let refused = post(json!({"type": "gift", "amount": 5, "on": "2001-01-01", "service": "s9", "colour": "red"}));
    let mut faults: Vec<String> =
        refused.json()["errors"].as_array().into_iter().flatten().map(|fault| fault["pointer"].to_string()).collect();
    faults.sort();
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(faults, ["\"/amount\"", "\"/colour\"", "\"/on\"", "\"/service\"", "\"/type\""]);
    assert_eq!(
        daemon
            .api(admin, "POST", "acme/accounts/nobody/charges", Some(&json!({"type": "credit", "amount": "1"})))
            .status,
        404
    );
    let listed = daemon.api(admin, "GET", "acme/accounts/A/charges", None).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{listed}");

    let run = ["bill", "run", "--tenant", "acme", "--cycle", "c15", "--json"];
    let closed = site.json(&run);
    let lines = closed["lines"].as_array().expect("lines").clone();
    let amount_of = |charge: &str| {
        let of = lines.iter().filter(|line| line["charge"] == *charge);
        of.map(|line| line["amount"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // Twice 12.34 with 8.25 % of 24.68: 2.0361. The setup fee of the tariff, once by itself and once posted.
    let visit = first.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(amount_of(&visit), ["24.68"]);
    let line = lines.iter().find(|line| line["charge"] == visit).expect("the visit");
    assert_eq!((&line["tax"][0]["amount"], &line["service"]), (&json!("2.04"), &json!("s1")), "{line}");
    assert_eq!(amount_of(named.json()["id"].as_str().expect("an id")), ["20.00"]);
    assert_eq!(amount_of("setup"), ["20.00"]);
    assert_eq!(amount_of("modem"), ["50.00"]);
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert!(kinds.contains(&"credit") && kinds.contains(&"deposit"), "{kinds:?}");
    for line in &lines {
        let explained = site.json(&["line", "explain", line["id"].as_str().expect("an id"), "--json"]);
        assert_eq!(explained["differences"], json!([]), "{explained}");
    }
    assert_eq!(site.json(&run)["lines"], json!([]), "a repeated run has nothing to say");
}

/// A change with a day of its own reaches what is provisioned by itself, and a repeated push neither moves nor undoes it.
fn waiting_change(daemon: &Daemon, admin: &str) {
    let due = Timestamp::now().checked_add(4.seconds()).expect("soon");
    let mut document = account("c15", "res-100", "bob@acme");
    document["services"][0]["scheduled"] = json!([{"at": due, "set": {"plan": "res-300"}}]);
    let pushed = daemon.api(admin, "PUT", "acme/accounts/B", Some(&document));
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    let desired = || {
        let account = daemon.api(admin, "GET", "acme/accounts/B", None).json();
        account["services"][0]["provisioning"]["desired_revision"].as_i64()
    };
    assert_eq!(desired(), Some(1));
    wait_for("the change comes by itself", SOON, || (desired() == Some(2)).then_some(()));
    let again = daemon.api(admin, "PUT", "acme/accounts/B", Some(&document));
    assert_eq!((again.status, desired()), (200, Some(2)), "the same push changes nothing");
    document["tags"] = json!({"csr": "7"});
    assert_eq!(daemon.api(admin, "PUT", "acme/accounts/B", Some(&document)).status, 200);
    assert_eq!(desired(), Some(2), "and another one takes nothing back");
    document["services"][0]["scheduled"] = json!([{"at": "next_cycle", "set": {"radius": {"username": "eve@acme"}}}]);
    let refused = daemon.api(admin, "PUT", "acme/accounts/B", Some(&document));
    assert_eq!(refused.status, 422, "what is unique is no matter of a schedule: {}", refused.body);
}

/// The cycle an account leaves before its first bill still bills what was.
fn change_of_cycle(site: &Site, daemon: &Daemon, admin: &str) {
    for cycle in ["daily", "c15"] {
        let pushed = daemon.api(admin, "PUT", "acme/accounts/C", Some(&account(cycle, "res-100", "cy@acme")));
        assert!(pushed.status < 300, "{}", pushed.body);
    }
    let old = site.json(&["bill", "run", "--tenant", "acme", "--cycle", "daily", "--json", "--dry-run"]);
    let lines = old["lines"].as_array().expect("lines");
    assert!(lines.iter().any(|line| line["account"] == "C"), "the days before the change: {}", lines.len());
}

/// What a child tenant's subscribers cost lands on its account here, and the counts can be asked for.
fn counts(site: &Site, daemon: &Daemon, admin: &str) {
    let small = CATALOG.replace("id = \"acme\"", "id = \"small\"\nparent = \"acme\"");
    let apply = |name: &str, text: &str| {
        let path = site.path(name);
        std::fs::write(&path, text).expect("a catalog");
        site.succeed(&["catalog", "apply", &path.display().to_string()]);
    };
    apply("small.toml", &small);
    let today = Timestamp::now().in_tz("America/Chicago").expect("a zone").date();
    let agreed = today.checked_sub(3.days()).expect("a day").to_string();
    apply("acme-wholesale.toml", &format!("{CATALOG}{}", WHOLESALE.replace("2026-01-01", &agreed)));
    let key = site.key("small", "admin");
    for (number, status) in [(1, "active"), (2, "active"), (3, "pending")] {
        let mut document = account("c15", "res-100", &format!("u{number}@small"));
        document["status"] = json!(status);
        let pushed = daemon.api(&key, "PUT", &format!("small/accounts/{number}"), Some(&document));
        assert_eq!(pushed.status, 201, "{}", pushed.body);
    }
    let reseller = json!({"status": "active", "bill_cycle": "daily", "services": []});
    assert_eq!(daemon.api(admin, "PUT", "acme/accounts/reseller", Some(&reseller)).status, 201);

    let counted = daemon.api(admin, "GET", &format!("acme/subscriber-counts?on={today}&of=small"), None);
    assert_eq!(counted.status, 200, "{}", counted.body);
    let items = counted.json()["items"].as_array().expect("items").clone();
    let active = items.iter().find(|item| item["status"] == "active").expect("active ones");
    assert_eq!((&active["subscribers"], &active["tenant"]), (&json!("2"), &json!("small")));
    assert_eq!(daemon.api(&key, "GET", &format!("small/subscriber-counts?on={today}&of=acme"), None).status, 404);

    // The day that runs: two active subscribers of 3.00.
    let cycle = daemon.api(admin, "GET", "acme/accounts/reseller/balance", None).json();
    let items = cycle["items"].as_array().expect("items");
    let bulk = items.iter().find(|item| item["charge"] == "subscribers").expect("the count");
    assert_eq!((&bulk["amount"], &bulk["used"]), (&json!("6.00"), &json!("2")), "{bulk}");

    // The days before nobody was there: the line says so, and the list of whom it counted is kept with it.
    let run = site.json(&["bill", "run", "--tenant", "acme", "--cycle", "daily", "--json"]);
    let lines = run["lines"].as_array().expect("lines");
    let count = lines.iter().find(|line| line["account"] == "reseller").expect("a count line");
    assert_eq!(
        (&count["kind"], &count["quantity"], &count["count"]["tenant"]),
        (&json!("count"), &json!("0"), &json!("small"))
    );
    let explained = site.json(&["line", "explain", count["id"].as_str().expect("an id"), "--json"]);
    assert_eq!((&explained["differences"], &explained["counted"]["members"]), (&json!([]), &json!([])), "{explained}");
}
