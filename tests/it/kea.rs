//! Kea 2.2 itself hands out what we write into its tables: offer, acknowledgement, boot file, TFTP, the next revision.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::harness::acme::{CATALOG, household, last_period};
use crate::harness::cable::{Device, Relay, fetch};
use crate::harness::daemon::Site;
use crate::harness::kea::Kea;
use crate::harness::{run, temp_dir, wait_for};

const SOON: Duration = Duration::from_secs(40);
const CM: &str = "00:11:22:33:44:55";
const MTA: &str = "00:11:22:33:44:56";

#[test]
fn a_gateway_boots_behind_kea_and_gets_its_new_revision_with_the_next_offer() {
    let folder = temp_dir();
    let Some(mut kea) = Kea::start(folder.path(), 66) else {
        println!("NOT RUN: a_gateway_boots_behind_kea: this machine gives no network namespaces");
        return;
    };
    let site = Site::sqlite();
    site.edit(
        "[mail]",
        &format!(
            r#"[dhcp]
driver = "kea-sql"
url = "{}"
tftp_server = "127.0.0.1"
voice_server = "10.66.0.1"
[sweep]
every_hours = 1
[[cmts]]
name = "cmts1"
relays = ["10.66.0.2"]
tftp_source_check = "enforce"
[[cmts.network]]
kind = "cm"
subnet = "10.66.1.0/24"
kea_subnet_id = 1
[[cmts.network]]
kind = "mta"
subnet = "10.66.2.0/24"
kea_subnet_id = 2
[mail]"#,
            kea.url()
        ),
    );
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let account = |revision: i64, plan: &str| {
        let mut document = household(last_period(Timestamp::now()).0);
        document["source_revision"] = json!(revision);
        document["services"][0]["plan"] = json!(plan);
        document
    };
    let push = |document: &serde_json::Value| {
        let answer = daemon.api(&key, "PUT", "acme/accounts/100234", Some(document));
        assert!(answer.status < 300, "{}", answer.body);
    };
    let name = |mac: &str| site.json(&["device", "show", mac])["config_file"].as_str().expect("a name").to_owned();
    let relay = Relay::on_port_67("10.66.0.2", "10.66.0.1:67");
    let (modem, mta) = (Device::modem(CM), Device::mta(MTA, CM));
    wait_for("Kea answers", SOON, || {
        let message = relay.message(&modem);
        relay.once(&message, Duration::from_secs(1)).filter(|offer| offer.file == "unprovisioned.cm")
    });

    push(&account(1, "res-100"));
    let first = name(CM);
    wait_for("Kea offers the file", SOON, || (relay.offer(&modem).file == first).then_some(()));
    let ack = relay.boot(&modem);
    assert_eq!((ack.file.as_str(), ack.next_server.to_string().as_str()), (first.as_str(), "127.0.0.1"));
    assert_eq!(ack.option(122), Some(&[1, 4, 10, 66, 0, 1][..]), "its MTA may ask here");
    kea.adopt(ack.address);
    // At once: Kea is asked for whose the address is.
    fetch(ack.address, site.tftp_port, &first).expect("its file");
    let neighbour = relay.boot(&Device::modem("00:11:22:33:44:99"));
    assert_eq!(neighbour.file, "unprovisioned.cm");
    kea.adopt(neighbour.address);
    assert_eq!(fetch(neighbour.address, site.tftp_port, &first), Err("2: not for this address".to_owned()));
    let telephone = relay.boot(&mta);
    assert_eq!((telephone.file.clone(), telephone.address.octets()[2]), (name(MTA), 2));
    assert_eq!(telephone.option(122), Some(&b"\x06\x09\x05BASIC\x011\x00"[..]));
    let who = wait_for("Kea's lease is known", SOON, || {
        let told = site.lastmile(&["--json", "who", &ack.address.to_string()]);
        told.status.success().then(|| serde_json::from_slice::<serde_json::Value>(&told.stdout).expect("JSON"))
    });
    assert_eq!((&who[0]["account"], &who[0]["mac"]), (&json!("100234"), &json!(CM)), "{who:#}");

    // Kea's database is away while the plan changes: the job waits and converges.
    kea.cluster.kill_9();
    push(&account(2, "res-300"));
    std::thread::sleep(Duration::from_secs(1));
    kea.cluster.launch(&[]);
    let second = name(CM);
    assert_ne!(first, second);
    wait_for("Kea offers the new revision", SOON, || {
        let message = relay.message(&modem);
        relay.once(&message, Duration::from_secs(1)).filter(|offer| offer.file == second)
    });

    // Somebody else changed the rows: the next attempt mends them.
    kea.sql("UPDATE hosts SET dhcp4_boot_file_name = 'wrong.cm'");
    assert_eq!(relay.offer(&modem).file, "wrong.cm");
    push(&account(3, "res-100"));
    let third = name(CM);
    wait_for("Kea offers the right file again", SOON, || (relay.offer(&modem).file == third).then_some(()));
    // And so does the sweep, which nobody asked: an hour passes.
    for (change, told) in [
        ("UPDATE hosts SET dhcp4_boot_file_name = 'wrong.cm' WHERE dhcp4_subnet_id = 1", "wrong.cm"),
        ("DELETE FROM hosts WHERE dhcp4_subnet_id = 1", "lacks the reservation"),
        ("UPDATE dhcp4_options SET value = '\\x0104c0000299' WHERE code = 122", "another"),
    ] {
        wait_for("nothing differs", SOON, || (drift(&site, false).is_empty()).then_some(()));
        let before = drift(&site, true).len();
        kea.sql(change);
        hour_passes(&site);
        let found = wait_for("the sweep finds it", SOON, || drift(&site, true).get(before).cloned());
        assert_eq!((&found["kind"], &found["key"]), (&json!("cm"), &json!(CM)), "{change}: {found:#}");
        let detail = found["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("Kea") && (told == "another" || detail.contains(told)), "{change}: {found:#}");
        wait_for("it is healed", SOON, || {
            drift(&site, true).get(before).filter(|found| !found["healed_at"].is_null()).map(drop)
        });
        let offer = relay.offer(&modem);
        assert_eq!(
            (offer.file.as_str(), offer.option(122)),
            (third.as_str(), Some(&[1, 4, 10, 66, 0, 1][..])),
            "{change}"
        );
    }
    let removed = json!({"source_revision": 4, "status": "terminated", "bill_cycle": "c15", "services": []});
    let answer = daemon.api(&key, "PUT", "acme/accounts/100234", Some(&removed));
    assert!(answer.status < 300, "{}", answer.body);
    wait_for("the reservations are gone", SOON, || (kea.sql("SELECT COUNT(*) FROM hosts").trim() == "0").then_some(()));
    drop(daemon);
}

/// Differences, as JSON; `all`: the healed ones too.
fn drift(site: &Site, all: bool) -> Vec<serde_json::Value> {
    let told = site.lastmile(if all { &["--json", "drift", "list", "--all"] } else { &["--json", "drift", "list"] });
    serde_json::from_slice::<Vec<serde_json::Value>>(&told.stdout).expect("a list")
}

/// The last sweep of modems was long ago.
fn hour_passes(site: &Site) {
    let path = site.path("lastmile.db").display().to_string();
    let sql = "UPDATE sweep SET after_id = 0, started_at = NULL, finished_at = 1 WHERE kind = 'cm'";
    let done = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &path, sql]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
