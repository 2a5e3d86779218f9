//! Is it us or the line: modems are asked how they are, and what differs from what is desired is found unasked and healed.

use std::time::Duration;

use serde_json::json;

use crate::harness::acme::internet;
use crate::harness::daemon::Site;
use crate::harness::modem::CONFIG_FILE;
use crate::harness::{run, wait_for};
use crate::modems::Plant;

const MAC: &str = "00:11:22:33:44:55";
const SOON: Duration = Duration::from_secs(40);

#[test]
fn the_levels_of_a_modem_tell_whether_it_is_the_line() {
    let settings = "[snmp]\ncommunity = \"plant-community\"\npoll_minutes = 1\n";
    let plant = Plant::new(Site::sqlite(), settings, 41);
    plant.push(MAC, |_| {});
    let modem = plant.modem(MAC, 1);
    for (oid, kind, value) in [
        ("1.3.6.1.2.1.69.1.3.5.0", "string", "TM3402-9.1.103"),
        ("1.3.6.1.2.1.10.127.1.1.1.1.6.3", "integer", "-123"),
        ("1.3.6.1.2.1.10.127.1.1.4.1.5.3", "integer", "291"),
        ("1.3.6.1.2.1.10.127.1.2.2.1.3.2", "integer", "455"),
    ] {
        modem.agent.set(oid, kind, value);
    }
    modem.power_cycle();
    plant.until(MAC, |device| device["confirmed_revision"] == 1);
    let shown = wait_for("it is asked how it is", SOON, || {
        Some(plant.site.json(&["device", "show", MAC])).filter(|device| device["health"].is_object())
    });
    assert_eq!(shown["health"]["firmware"], "TM3402-9.1.103", "{shown:#}");
    let summary = shown["summary"].as_str().unwrap_or_default();
    assert!(summary.starts_with("it is the line:"), "{summary}");
    assert!(
        summary.contains("downstream power -12.3 dBmV") && summary.contains("SNR 29.1 dB is below 30.0"),
        "{summary}"
    );
    let text = plant.site.succeed(&["device", "show", MAC]);
    assert!(text.contains("us or the line") && text.contains("reports operational"), "{text}");
    let answer = plant.daemon.api(&plant.key, "GET", &format!("acme/devices/{MAC}"), None);
    assert_eq!((answer.status, &answer.json()["summary"]), (200, &shown["summary"]));
    assert_eq!(plant.daemon.api(&plant.key, "GET", "acme/devices/00:00:00:00:00:09", None).status, 404);

    // Somebody else's server gave it another file: it is listed until it runs its own again.
    modem.agent.set(CONFIG_FILE, "string", "somebody-elses.cm");
    let drift = wait_for("the other file is noticed", Duration::from_secs(100), || {
        let listed = plant.site.lastmile(&["--json", "drift", "list"]);
        (listed.status.code() == Some(3)).then(|| String::from_utf8_lossy(&listed.stdout).into_owned())
    });
    assert!(drift.contains("somebody-elses.cm") && drift.contains(MAC), "{drift}");
}

#[test]
fn rows_changed_by_hand_are_found_unasked_listed_and_healed() {
    let plant = Plant::new(Site::sqlite(), "[sweep]\nevery_hours = 1\n", 42);
    let pushed = plant.daemon.api(&plant.key, "PUT", "acme/accounts/7", Some(&internet(7)));
    assert_eq!(pushed.status, 201, "{}", pushed.body);
    let aaa = plant.site.path("aaa.db").display().to_string();
    let rows = || {
        let output = run("sqlite3", "sqlite3", &[&aaa, "SELECT attribute FROM radcheck WHERE username = 'user7@acme'"]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let before = wait_for("the login stands", SOON, || Some(rows()).filter(|rows| !rows.is_empty()));
    assert_eq!(plant.site.lastmile(&["drift", "list"]).status.code(), Some(0), "nothing differs yet");

    run("sqlite3", "sqlite3", &[&aaa, "DELETE FROM radcheck WHERE username = 'user7@acme'"]);
    plant.site.succeed(&["drift", "sweep"]);
    let healed = wait_for("the difference is found and healed", SOON, || {
        let listed = plant.site.lastmile(&["--json", "drift", "list", "--all"]);
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("a list");
        let found = listed.as_array().and_then(|list| list.first()).cloned()?;
        (!found["healed_at"].is_null()).then_some(found)
    });
    assert_eq!((&healed["kind"], &healed["key"]), (&json!("aaa"), &json!("user7@acme")), "{healed:#}");
    assert_eq!(rows(), before);
}
