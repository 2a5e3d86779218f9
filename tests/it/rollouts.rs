//! A catalog change never takes a city down: modems wait for their next boot, or a rollout moves them with a canary, at a
//! rate, and halts by itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::Site;
use crate::harness::modem::Modem;
use crate::harness::{http, wait_for};
use crate::modems::Plant;

const MACS: [&str; 3] = ["00:11:22:33:44:01", "00:11:22:33:44:02", "00:11:22:33:44:03"];
const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_catalog_change_resets_nobody_until_a_rollout_does_on_sqlite() {
    journey(Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 31));
}

#[test]
fn a_catalog_change_resets_nobody_until_a_rollout_does_on_postgres() {
    journey(Plant::new(Site::postgres(), "[snmp]\ncommunity = \"plant-community\"\n", 32));
}

fn journey(plant: Plant) {
    let modems: Vec<Modem> = MACS.iter().zip(1..).map(|(mac, number)| plant.modem(mac, number)).collect();
    for (mac, modem) in MACS.iter().zip(&modems) {
        plant.push(mac, |_| {});
        modem.power_cycle();
    }
    for mac in MACS {
        plant.until(mac, |device| device["confirmed_revision"] == 1);
    }

    // The new file is on offer; nobody boots for it.
    let effect = apply(&plant, "150M", &[]);
    assert_eq!(effect["applied"][0]["effect"]["reboots"], 3, "{effect:#}");
    for mac in MACS {
        let device = plant.until(mac, |device| device["offered_revision"] == 2);
        assert_eq!(device["state"], "pending", "{device:#}");
    }
    assert_eq!(boots(&modems), [1, 1, 1]);

    let count = plant.site.json(&["rollout", "start", "--tenant", "acme", "--behind", "--mode", "reset", "--dry-run"]);
    assert_eq!((count["scope"]["modems"].as_u64(), count["scope"]["reboot"].as_u64()), (Some(3), Some(3)), "{count:#}");
    assert!(plant.site.json(&["rollout", "list"]).as_array().is_some_and(Vec::is_empty), "a dry run begins nothing");
    let begun = start(&plant, &["--behind", "--back-within", "60"]);
    let ended = until(&plant, begun, "finished");
    assert_eq!((ended["back"].as_i64(), boots(&modems)), (Some(3), vec![2, 2, 2]), "{ended:#}");
    for mac in MACS {
        plant.until(mac, |device| device["confirmed_revision"] == 2 && device["state"] == "applied");
    }

    // A catalog on hold changes nothing until a rollout moves the accounts; its canary does not come back, and it halts.
    apply(&plant, "200M", &["--hold"]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(MACS.iter().all(|mac| revision(&plant, mac) == 2), "held accounts keep their files");
    plant.registers.store(false, Ordering::SeqCst);
    let bad = start(&plant, &["--held", "--back-within", "4"]);
    let halted = until(&plant, bad, "halted");
    assert_eq!((halted["lost"].as_i64(), halted["waiting"].as_i64()), (Some(1), Some(2)), "{halted:#}");
    let open = plant.site.json(&["exception", "list"]);
    assert!(open.as_array().is_some_and(|list| list.iter().any(|one| one["kind"] == "rollout")), "{open:#}");
    assert_eq!(MACS.map(|mac| revision(&plant, mac)), [3, 2, 2], "nobody but the canary was touched");

    // Taken back: the canary's account returns to the catalog before.
    plant.registers.store(true, Ordering::SeqCst);
    plant.site.succeed(&["rollout", "rollback", &bad.to_string()]);
    plant.until(MACS[0], |device| device["offered_revision"] == 4);
    modems[0].power_cycle();
    plant.until(MACS[0], |device| device["confirmed_revision"] == 4 && device["state"] == "applied");
    assert!(modems[1].boots() == 2 && modems[2].boots() == 2);
    let refused = plant.site.lastmile(&["rollout", "rollback", &bad.to_string()]);
    assert_eq!(refused.status.code(), Some(3), "once is enough");

    // One person's push goes its own way, on the catalog the account is held on.
    plant.push(MACS[1], |account| account["services"][0]["plan"] = "res-300".into());
    plant.until(MACS[1], |device| device["confirmed_revision"] == 3);
    assert_eq!(modems[1].boots(), 3);
}

#[test]
fn an_operator_s_reset_boots_a_modem_that_runs_the_right_file() {
    let plant = Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 33);
    let modem = plant.modem(MACS[0], 1);
    plant.push(MACS[0], |_| {});
    modem.power_cycle();
    plant.until(MACS[0], |device| device["confirmed_revision"] == 1);
    plant.site.succeed(&["device", "reset", MACS[0]]);
    wait_for("it boots", SOON, || (modem.boots() == 2).then_some(()));
    plant.until(MACS[0], |device| device["state"] == "applied");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(modem.boots(), 2, "once");
    assert_eq!(plant.site.lastmile(&["device", "reset", "00:00:00:00:00:01"]).status.code(), Some(3));
}

#[test]
fn a_rollout_is_counted_begun_stopped_and_taken_back_over_http() {
    let settings = "[snmp]\ncommunity = \"plant-community\"\n[[cmts]]\nname = \"cmts1\"\nnetworks = [\"127.0.35.0/24\"]\nresets_per_minute = 30\n";
    let plant = Plant::new(Site::sqlite(), settings, 35);
    let modem = plant.modem(MACS[0], 1);
    plant.push(MACS[0], |_| {});
    modem.power_cycle();
    plant.until(MACS[0], |device| device["confirmed_revision"] == 1);
    apply(&plant, "150M", &[]);
    plant.until(MACS[0], |device| device["offered_revision"] == 2);
    let ask = |key: &str, method: &str, path: &str, body: Option<Value>| {
        plant.daemon.api(key, method, &format!("acme/rollouts{path}"), body.as_ref())
    };
    let operator = plant.site.key("acme", "operator");

    // Counted, then begun; on a pause it moves nobody.
    let order = |dry_run| json!({ "which": "behind", "mode": "reset", "per_minute": 500, "reason": "150M", "dry_run": dry_run });
    let counted = ask(&operator, "POST", "", Some(order(true)));
    let scope = json!({ "modems": 1, "reboot": 1, "reboot_with_voice": 0, "never_seen": 0, "by_cmts": { "cmts1": 1 } });
    assert_eq!((counted.status, &counted.json()["scope"]), (200, &scope), "{}", counted.body);
    assert_eq!(ask(&operator, "GET", "", None).json()["items"], json!([]), "a dry run begins nothing");
    let mut two_lines = order(false);
    two_lines["reason"] = json!("150M\nand a line of its own in the log");
    assert_eq!(ask(&operator, "POST", "", Some(two_lines)).status, 400);
    let night = json!({ "which": "all", "mode": "reset_all", "in_window": true });
    let first = ask(&operator, "POST", "", Some(night)).json()["id"].as_str().expect("an id").to_owned();
    let paused = ask(&operator, "POST", &format!("/{first}/pause"), None);
    assert_eq!((paused.status, &paused.json()["state"]), (200, &json!("paused")), "{}", paused.body);
    assert_eq!(ask(&operator, "POST", &format!("/{first}/pause"), None).status, 409);
    assert_eq!(ask(&operator, "POST", &format!("/{first}/resume"), None).json()["state"], "running");
    assert_eq!(ask(&operator, "POST", &format!("/{first}/cancel"), None).json()["state"], "cancelled");

    let begun = ask(&operator, "POST", "", Some(order(false)));
    assert_eq!(begun.status, 201, "{}", begun.body);
    let id = begun.json()["id"].as_str().expect("an id").to_owned();
    let ended = wait_for("it ends", SOON, || {
        Some(ask(&operator, "GET", &format!("/{id}"), None).json()).filter(|rollout| rollout["state"] == "finished")
    });
    assert_eq!((&ended["back"], &ended["policy"]["per_minute"]), (&json!(1), &json!(30)), "{ended:#}");
    assert_eq!(ended["members"]["items"][0]["mac"], MACS[0], "{ended:#}");
    assert_eq!(modem.boots(), 2);
    let none = ask(&operator, "GET", &format!("/{id}?phase=lost"), None).json();
    assert_eq!(none["members"]["items"], json!([]), "{none:#}");
    let listed = ask(&operator, "GET", "?limit=1", None).json();
    assert_eq!((&listed["items"][0]["id"], &listed["next"]), (&json!(id), &json!(id)), "{listed:#}");
    let older = ask(&operator, "GET", &format!("?limit=1&cursor={id}"), None).json();
    assert_eq!(older["items"][0]["id"], json!(first), "{older:#}");

    // Taken back once.
    let back = ask(&operator, "POST", &format!("/{id}/rollback"), None);
    assert_eq!((back.status, &back.json()["state"]), (200, &json!("rolled_back")), "{}", back.body);
    assert!(back.json()["by"].is_string(), "{}", back.body);
    assert_eq!(ask(&operator, "POST", &format!("/{id}/rollback"), None).status, 409);

    // Who may not, what cannot be, and the wall between tenants.
    let path = plant.site.path("other.toml");
    let other = CATALOG.replace("\"acme\"", "\"other\"").replace("acme.example", "other.example");
    std::fs::write(&path, other).expect("a catalog");
    plant.site.succeed(&["catalog", "apply", &path.display().to_string()]);
    let (stranger, reader) = (plant.site.key("other", "admin"), plant.site.key("acme", "read"));
    assert_eq!(ask(&stranger, "GET", "", None).status, 404);
    let of_other =
        |method: &str, path: &str| plant.daemon.api(&stranger, method, &format!("other/{path}"), None).status;
    assert_eq!(of_other("GET", &format!("rollouts/{id}")), 404);
    assert_eq!(of_other("POST", &format!("rollouts/{id}/resume")), 404);
    assert_eq!(of_other("POST", &format!("devices/{}/reset", MACS[0])), 404);
    assert_eq!(ask(&reader, "GET", &format!("/{id}"), None).status, 200);
    assert_eq!(ask(&reader, "POST", "", Some(order(false))).status, 403);
    assert_eq!(ask(&operator, "POST", "", Some(json!({ "mode": "reset" }))).status, 400, "a slip is not everybody");
    assert_eq!(ask(&operator, "POST", "", Some(json!({ "which": "all", "modes": "reset" }))).status, 400);
    assert_eq!(ask(&operator, "GET", "/999", None).status, 404);
}

#[test]
fn a_device_is_reset_over_http_once_for_each_key_of_idempotency() {
    let plant = Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 36);
    let modem = plant.modem(MACS[0], 1);
    plant.push(MACS[0], |_| {});
    modem.power_cycle();
    plant.until(MACS[0], |device| device["confirmed_revision"] == 1);
    let path = format!("/v1/tenants/acme/devices/{}/reset", MACS[0]);
    let bearer = format!("Bearer {}", plant.key);
    let headers = [("Authorization", bearer.as_str()), ("Idempotency-Key", "once")];
    let ask = || http::request(plant.site.http_port, "POST", &path, &headers, None).expect("an answer");
    let first = ask();
    assert_eq!(first.status, 202, "{}", first.body);
    wait_for("it boots", SOON, || (modem.boots() == 2).then_some(()));
    plant.until(MACS[0], |device| device["state"] == "applied");
    assert_eq!(ask().json(), first.json());
    let absent = plant.daemon.api(&plant.key, "POST", "acme/devices/00:00:00:00:00:01/reset", None);
    assert_eq!(absent.status, 404, "{}", absent.body);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(modem.boots(), 2, "once");
}

/// Applies the catalog with another rate on every modem's plan.
fn apply(plant: &Plant, downstream: &str, more: &[&str]) -> Value {
    let path = plant.site.path("changed.toml");
    std::fs::write(&path, CATALOG.replace("\"100M\"", &format!("\"{downstream}\""))).expect("a catalog");
    plant.site.json(&[&["catalog", "apply", &path.display().to_string()], more].concat())
}

fn start(plant: &Plant, more: &[&str]) -> i64 {
    let arguments = ["rollout", "start", "--tenant", "acme", "--mode", "reset", "--canary", "1"];
    let begun = plant.site.json(&[&arguments, more].concat());
    begun["rollout"].as_i64().unwrap_or_else(|| panic!("{begun:#}"))
}

fn until(plant: &Plant, id: i64, state: &str) -> Value {
    let show = || plant.site.json(&["rollout", "show", &id.to_string()]);
    wait_for(&format!("rollout {id} is {state}; it is {:#}", show()), SOON, || {
        Some(show()["rollout"].clone()).filter(|rollout| rollout["state"] == state)
    })
}

fn revision(plant: &Plant, mac: &str) -> i64 {
    plant.device(mac).and_then(|device| device["desired_revision"].as_i64()).unwrap_or_default()
}

fn boots(modems: &[Modem]) -> Vec<u64> {
    modems.iter().map(Modem::boots).collect()
}
