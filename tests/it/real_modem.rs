//! Modems made of nothing of ours, in network namespaces: udhcpc through ISC's relay to Kea or to our own server, Debian's
//! TFTP client, snmpd that takes the reset; from an unknown modem to a pushed change that the modem itself confirms.

use std::time::Duration;

use lastmile::docsis::decode;
use serde_json::{Value, json};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::{CMTS_SECRET, Daemon, Site};
use crate::harness::kea::Kea;
use crate::harness::segment::{LivingModem, Segment};
use crate::harness::{temp_dir, wait_for};

const SOON: Duration = Duration::from_secs(60);
const CM: &str = "00:11:22:33:44:55";
const MTA: &str = "00:11:22:33:44:56";

#[test]
fn a_modem_of_real_programs_is_served_through_kea() {
    let folder = temp_dir();
    let mut segment = match Segment::new() {
        Ok(segment) => segment,
        Err(reason) => return println!("NOT RUN: a_modem_of_real_programs_is_served_through_kea: {reason}"),
    };
    let kea = Kea::of_segment(folder.path(), &segment);
    segment.start_relay(folder.path());
    let settings = format!("driver = \"kea-sql\"\nurl = \"{}\"\n", kea.url());
    journey(segment, &settings, "kea_subnet_id = 1", "kea_subnet_id = 2", true);
}

#[test]
fn a_modem_of_real_programs_is_served_by_the_builtin_server() {
    let folder = temp_dir();
    let mut segment = match Segment::new() {
        Ok(segment) => segment,
        Err(reason) => return println!("NOT RUN: a_modem_of_real_programs_is_served_by_the_builtin_server: {reason}"),
    };
    segment.start_relay(folder.path());
    let settings = format!("driver = \"builtin\"\nlisten = \"{}:67\"\n", segment.server());
    let pools = |third: u8| format!("pools = [\"10.{0}.{third}.10-10.{0}.{third}.200\"]", segment.net);
    let (cm, mta) = (pools(1), pools(2));
    // The relay of this test cannot tell which modem an MTA sits in, as a CMTS does: ours serves none without that.
    journey(segment, &settings, &cm, &mta, false);
}

/// The account, its daemon, and what the modem is told.
struct Operator {
    site: Site,
    daemon: Daemon,
    key: String,
}

impl Operator {
    fn push(&self, plan: &str) {
        let account = json!({
            "status": "active", "bill_cycle": "c15",
            "devices": [{"id": "gw1", "cm_mac": CM, "mta_mac": MTA, "model": "TM402"}],
            "services": [
                {"id": "1", "type": "internet", "plan": plan, "device": "gw1"},
                {"id": "2", "type": "voice", "plan": "voice-basic", "device": "gw1",
                 "lines": [{"port": 1, "number": "+15125550100", "enabled": true}]},
            ]
        });
        let answer = self.daemon.api(&self.key, "PUT", "acme/accounts/1", Some(&account));
        assert!(answer.status < 300, "{}", answer.body);
    }

    fn device(&self, mac: &str) -> Value {
        self.site.json(&["device", "show", mac])
    }

    fn file(&self, mac: &str) -> String {
        self.device(mac)["config_file"].as_str().expect("a name").to_owned()
    }

    fn until_confirmed(&self, revision: i64) -> Value {
        wait_for("the modem is seen to run it", SOON, || {
            Some(self.device(CM))
                .filter(|device| device["confirmed_revision"] == revision && device["state"] == "applied")
        })
    }
}

fn journey(mut segment: Segment, dhcp: &str, cm_network: &str, mta_network: &str, with_mta: bool) {
    let (server, net) = (segment.server(), segment.net);
    let site = Site::sqlite();
    site.edit(&format!("127.0.0.1:{}", site.tftp_port), &format!("{server}:69"));
    site.edit(
        "[mail]",
        &format!(
            r#"[dhcp]
{dhcp}tftp_server = "{server}"
voice_server = "{server}"
[snmp]
community = "plant-community"
timeout_ms = 500
retries = 1
poll_minutes = 0
[reset]
voice = "any"
[[cmts]]
name = "cmts1"
relays = ["{relay}"]
networks = ["10.{net}.0.0/16"]
tftp_source_check = "enforce"
[[cmts.network]]
kind = "cm"
subnet = "10.{net}.1.0/24"
{cm_network}
[[cmts.network]]
kind = "mta"
subnet = "10.{net}.2.0/24"
{mta_network}
[mail]"#,
            relay = segment.relay_address()
        ),
    );
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let operator = Operator { site, daemon, key };
    let mut modem = LivingModem::new(segment.device(CM, "docsis3.1:052401"));
    let neighbour = segment.device("00:11:22:33:44:99", "docsis3.0:052401");

    // Nobody has pushed it: it gets the file of the unknown.
    let (told, bytes) = wait_for("an unknown modem boots", SOON, || modem.boot());
    assert_eq!(told.get("boot_file"), "unprovisioned.cm", "{told:?}");
    let text = decode(&bytes, Some(CMTS_SECRET.as_bytes())).expect("a configuration file").toml;
    assert!(text.contains("{ NetworkAccess = 0 }"), "{text}");

    operator.push("res-100");
    let first = operator.file(CM);
    let (told, bytes) = wait_for("the modem is offered its own file", SOON, || {
        modem.boot().filter(|(told, _)| told.get("boot_file") == first)
    });
    let server = server.to_string();
    assert_eq!((told.get("siaddr"), told.get("serverid")), (server.as_str(), server.as_str()), "{told:?}");
    for (option, value) in [("tftp", server.as_str()), ("bootfile", first.as_str())] {
        assert!(["", value].contains(&told.get(option)), "option {option} says {told:?}");
    }
    assert!(told.get("opt122").starts_with(&format!("01040a{net:02x}0001")), "its MTA may ask here: {told:?}");
    let address = told.address();
    assert_eq!(address.octets()[..3], [10, net, 1], "{told:?}");
    let text = decode(&bytes, Some(CMTS_SECRET.as_bytes())).expect("a configuration file").toml;
    assert!(text.contains(&format!("TftpModemAddress = \"{address}\"")) && text.contains("100000000"), "{text}");
    operator.until_confirmed(1);

    // Another modem may not have that file.
    let told = wait_for("the neighbour boots", SOON, || neighbour.dhcp());
    assert_ne!(told.address(), address);
    let refused = neighbour.fetch(&first).expect_err("the neighbour's modem has another's file");
    assert!(refused.contains("not for this address"), "{refused}");

    if with_mta {
        let mta = segment.device(MTA, "pktc1.5:0501");
        let told =
            wait_for("the MTA boots", SOON, || mta.dhcp().filter(|told| told.get("boot_file").ends_with(".mta")));
        assert_eq!((told.get("boot_file"), told.address().octets()[2]), (operator.file(MTA).as_str(), 2));
        let bytes = mta.fetch(told.get("boot_file")).expect("its file");
        assert!(bytes.starts_with(&[0xfe, 1, 1]), "{bytes:02x?}");
    }

    // A change: it is reset over SNMP, and the next acknowledgement names the new revision.
    let boots = modem.boots;
    for (revision, plan, rate) in [(2, "res-300", "300000000"), (3, "res-100", "100000000")] {
        let before = operator.file(CM);
        operator.push(plan);
        wait_for("the modem is reset", SOON, || modem.is_told_to_reset().then_some(()));
        let name = operator.file(CM);
        let (told, bytes) = modem.boot().expect("it boots");
        assert_ne!(name, before);
        assert_eq!((told.get("boot_file"), told.address()), (name.as_str(), address), "{told:?}");
        let text = decode(&bytes, Some(CMTS_SECRET.as_bytes())).expect("a configuration file").toml;
        assert!(text.contains(rate), "{text}");
        operator.until_confirmed(revision);
    }
    assert_eq!(modem.boots, boots + 2, "one boot a change");
    assert!(!modem.is_told_to_reset());
    println!(
        "PROOF: udhcpc, dhcrelay, tftp and snmpd as a modem behind {}: unknown, provisioned, changed twice, {} boots",
        dhcp.lines().next().unwrap_or_default(),
        modem.boots
    );
}
