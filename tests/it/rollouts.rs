//! A catalog change never takes a city down: modems wait for their next boot, or a rollout moves them with a canary, at a
//! rate, and halts by itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use crate::harness::acme::CATALOG;
use crate::harness::daemon::Site;
use crate::harness::modem::Modem;
use crate::harness::wait_for;
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
