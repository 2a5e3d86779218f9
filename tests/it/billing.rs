//! Closing a period through the running daemon: catalog, push, run, repeat, explain, acknowledge; on both databases.

use serde_json::{Value, json};

use crate::harness::daemon::Site;

const CATALOG: &str = r#"
[tenant]
id = "acme"
currency = "USD"
timezone = "America/Chicago"
[[bill_cycle]]
id = "c15"
anchor_day = 15
every = "month"
[[plan]]
id = "res-100"
service = "internet"
tariff = "res-100"
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
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
model = "standard"
unit_amount = "0.05"
[[tariff.tax]]
id = "sales"
rate = "8.25"
"#;

#[test]
fn period_closes_once_and_explains_itself_on_sqlite() {
    journey(&Site::sqlite());
}

#[test]
fn period_closes_once_and_explains_itself_on_postgres() {
    journey(&Site::postgres());
}

fn journey(site: &Site) {
    // Given: an account that has been billed for longer than one period.
    site.prepare(CATALOG);
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let account = json!({
        "status": "active", "bill_cycle": "c15", "source_revision": 1,
        "services": [{"id": "s1", "type": "internet", "plan": "res-100", "billing_from": "2026-01-01",
                      "radius": {"username": "ada@acme", "password": "pw"}}]
    });
    let pushed = daemon.api(&admin, "PUT", "acme/accounts/100234", Some(&account));
    assert_eq!(pushed.status, 201, "{}", pushed.json());

    // A preview keeps nothing.
    let run = ["bill", "run", "--tenant", "acme", "--cycle", "c15", "--json"];
    let preview = site.json(&[&run[..], &["--dry-run"]].concat());
    assert!(preview["batch"].is_null());
    let count = preview["lines"].as_array().expect("lines").len();
    assert!(count >= 3, "{preview}");

    // The run has the same lines, and a second one none.
    let closed = site.json(&run);
    assert_eq!(ids(&closed), ids(&preview));
    let batch = closed["batch"].as_str().expect("a batch").to_owned();
    let again = site.json(&run);
    assert!(again["batch"].is_null() && ids(&again).is_empty(), "{again}");

    // Every line recomputes to itself, on the command line and over HTTP.
    let lines = daemon.api(&admin, "GET", "acme/invoice-lines?cycle=c15&account=100234", None).json();
    assert_eq!(lines["items"].as_array().expect("items").len(), count);
    for id in ids(&closed) {
        let explained = site.json(&["line", "explain", &id, "--json"]);
        assert_eq!(explained["differences"], json!([]), "{explained}");
        let path = format!("acme/invoice-lines/{id}/explain");
        assert_eq!(daemon.api(&admin, "GET", &path, None).status, 200);
    }

    // The billing system takes the batch; asking over HTTP finds nothing more.
    let path = format!("acme/batches/{batch}/ack");
    assert_eq!(daemon.api(&admin, "POST", &path, None).json()["state"], "acknowledged");
    let asked = daemon.api(&admin, "POST", "acme/bill-runs", Some(&json!({"cycle": "c15"})));
    assert_eq!((asked.status, asked.json()["lines"].clone()), (200, json!([])), "{}", asked.json());
    let balance = daemon.api(&admin, "GET", "acme/accounts/100234/balance", None);
    assert_eq!(balance.status, 200, "{}", balance.json());
    let exported = site.succeed(&["export", "lines"]);
    assert_eq!(exported.lines().count(), count + 1);

    // A period that runs can be previewed and not closed; a cycle nobody has is not found.
    let running = daemon.api(&admin, "POST", "acme/bill-runs", Some(&json!({"cycle": "c99"})));
    assert_eq!(running.status, 404);
    daemon.stop();
}

fn ids(run: &Value) -> Vec<String> {
    let lines = run["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut ids: Vec<String> = lines.iter().filter_map(|line| line["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}
