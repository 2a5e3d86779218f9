//! The builtin DHCP server with TFTP behind it, as CMTS and modems meet them: boots, holds, outages, kill -9.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use jiff::Timestamp;
use lastmile::dhcp::MessageType::{Release, Request};
use lastmile::dhcp::client::ClientMessage;
use lastmile::docsis::decode;
use lastmile::provision::DeviceKind;
use lastmile::store::Sealer;
use lastmile::store::plant::config_file_name;
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, household, last_period};
use crate::harness::cable::{Device, Relay, fetch};
use crate::harness::daemon::{CMTS_SECRET, Daemon, Site};
use crate::harness::postgres::Cluster;
use crate::harness::{free_udp_port, temp_dir, wait_for};

const SOON: Duration = Duration::from_secs(20);
const CM: &str = "00:11:22:33:44:55";
const MTA: &str = "00:11:22:33:44:56";
const CPE: &str = "02:00:00:00:00:01";

/// A site with the builtin server; the plant is 127.NET.0.0/16, its relay 127.NET.0.1.
struct Plant {
    site: Site,
    net: u8,
    dhcp_port: u16,
}

impl Plant {
    fn new(site: Site, net: u8) -> Self {
        let dhcp_port = free_udp_port();
        site.edit(
            "[mail]",
            &format!(
                r#"[dhcp]
driver = "builtin"
listen = "127.0.0.1:{dhcp_port}"
timezone = "Etc/GMT-3"
unknown_lease_seconds = 300
[[cmts]]
name = "cmts1"
relays = ["127.{net}.0.1"]
networks = ["127.{net}.0.0/16"]
tftp_source_check = "enforce"
[[cmts.network]]
kind = "cm"
subnet = "127.{net}.0.0/19"
pools = ["127.{net}.1.10-127.{net}.1.200"]
router = "127.{net}.0.1"
lease_seconds = 3600
[[cmts.network]]
kind = "mta"
subnet = "127.{net}.32.0/24"
pools = ["127.{net}.32.10-127.{net}.32.200"]
[[cmts.network]]
kind = "cpe"
subnet = "10.{net}.64.0/24"
pools = ["10.{net}.64.10-10.{net}.64.200"]
dns = ["192.0.2.53"]
[mail]"#
            ),
        );
        site.prepare(CATALOG);
        Self { site, net, dhcp_port }
    }

    fn relay(&self) -> Relay {
        Relay::at(&format!("127.{}.0.1", self.net), self.dhcp_port)
    }

    fn push(&self, daemon: &Daemon, key: &str, document: &Value) {
        let answer = daemon.api(key, "PUT", "acme/accounts/100234", Some(document));
        assert!(answer.status < 300, "{}", answer.body);
    }

    fn device(&self, mac: &str) -> Value {
        self.site.json(&["device", "show", mac])
    }

    /// The file of a device's newest revision, as its list says it.
    fn name(&self, mac: &str) -> String {
        self.device(mac)["config_file"].as_str().expect("a name").to_owned()
    }

    fn fetch(&self, from: Ipv4Addr, name: &str) -> Result<Vec<u8>, String> {
        fetch(from, self.site.tftp_port, name)
    }

    /// What `who` says, once the store knows it.
    fn who(&self, address: Ipv4Addr, at: Option<Timestamp>) -> Value {
        let (address, at) = (address.to_string(), at.map(|at| at.to_string()));
        let mut arguments = vec!["--json", "who", address.as_str()];
        if let Some(at) = &at {
            arguments.extend(["--at", at.as_str()]);
        }
        wait_for("who knows the address", SOON, || {
            let output = self.site.lastmile(&arguments);
            output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
        })
    }
}

fn account() -> Value {
    let mut document = household(last_period(Timestamp::now()).0);
    document["source_revision"] = json!(1);
    document
}

fn changed(revision: i64, change: impl Fn(&mut Value)) -> Value {
    let mut document = account();
    document["source_revision"] = json!(revision);
    change(&mut document);
    document
}

#[test]
fn a_gateway_boots_and_gets_its_new_revision_with_the_next_offer() {
    let plant = Plant::new(Site::sqlite(), 77);
    let key = plant.site.key("acme", "admin");
    let daemon = plant.site.start();
    let relay = plant.relay();
    let (modem, mta, cpe) = (Device::modem(CM), Device::mta(MTA, CM), Device::cpe(CPE, CM));

    // Before any account has it: closed, for a short time, and visible.
    let stranger = relay.boot(&modem);
    assert_eq!((stranger.file.as_str(), stranger.lease_seconds()), ("unprovisioned.cm", Some(300)));
    assert_eq!(stranger.option(122), Some(&[1, 4, 0, 0, 0, 0][..]));
    assert!(relay.is_silent(&relay.message(&cpe)), "nobody behind an unknown modem gets an address");
    let unknown = wait_for("the stranger is listed", SOON, || {
        let list = plant.site.json(&["device", "list", "--unknown"]);
        list.as_array().and_then(|list| list.first().cloned())
    });
    let told = (&unknown["mac"], &unknown["model"], &unknown["serial"], &unknown["cmts"]);
    assert_eq!(told, (&json!(CM), &json!("TM402"), &json!("S-4711"), &json!("cmts1")));
    let listed = daemon.api(&key, "GET", "acme/devices?unknown=true", None).json();
    assert_eq!(listed["items"][0]["mac"], CM);

    plant.push(&daemon, &key, &account());
    assert_eq!(plant.site.json(&["device", "list", "--unknown"]), json!([]), "an account has it now");
    let first = plant.name(CM);
    let ack = wait_for("the file of the account is offered", SOON, || {
        Some(relay.boot(&modem)).filter(|ack| ack.file == first)
    });
    assert_eq!(ack.lease_seconds(), Some(3600));
    assert_eq!(ack.address, stranger.address, "it keeps its address");
    assert_eq!(ack.next_server, Ipv4Addr::LOCALHOST);
    assert_eq!(ack.option(2), Some(&10_800i32.to_be_bytes()[..]), "three hours east");
    assert_eq!(ack.option(122), Some(&[1, 4, 127, 0, 0, 1][..]), "it has a telephone");

    // What it said of itself stands beside what is desired of it.
    let told = plant.device(CM)["dhcp"].clone();
    let expected = [
        ("class", "docsis3.1"),
        ("vendor", "Acme"),
        ("model", "TM402"),
        ("serial", "S-4711"),
        ("software", "1.2.3"),
        ("cmts", "cmts1"),
    ];
    for (name, value) in expected {
        assert_eq!(told[name], value, "{name} of {told:#}");
    }
    let text = plant.site.succeed(&["device", "show", CM]);
    for word in ["docsis3.1", "S-4711", "TM402", "Acme"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let over_http = daemon.api(&key, "GET", &format!("acme/devices/{CM}"), None).json();
    assert_eq!(over_http["dhcp"]["serial"], "S-4711", "{over_http:#}");
    assert!(plant.device(MTA)["dhcp"].is_null(), "its MTA has not asked yet");

    // Its file is for its address alone, and says so.
    let file = plant.fetch(ack.address, &first).expect("its file");
    let text = decode(&file, Some(CMTS_SECRET.as_bytes())).expect("a configuration file").toml;
    assert!(text.contains(&format!("TftpModemAddress = \"{}\"", ack.address)), "{text}");
    assert!(text.contains("TftpTimestamp = ") && text.contains("{ CmtsMic = \"automatic\" }"), "{text}");
    let neighbour = relay.boot(&Device::modem("00:11:22:33:44:99"));
    let refused = plant.fetch(neighbour.address, &first);
    assert_eq!(refused, Err("2: not for this address".to_owned()));
    wait_for("the refusal is counted", SOON, || {
        let page = crate::harness::http::request(plant.site.http_port, "GET", "/metrics", &[], None).ok()?.body;
        page.contains("lastmile_tftp_transfers_total{result=\"wrong_source\"} 1\n").then_some(())
    });

    // The telephone inside, and a computer behind it.
    let telephone = relay.boot(&mta);
    assert_eq!(telephone.address.octets()[2], 32);
    assert_eq!(telephone.file, plant.name(MTA));
    assert_eq!(telephone.option(122), Some(&b"\x06\x09\x05BASIC\x011\x00"[..]));
    assert!(plant.fetch(telephone.address, &telephone.file).is_ok());
    let computer = relay.boot(&cpe);
    assert_eq!((computer.address.octets()[2], computer.file.as_str()), (64, ""));
    assert_eq!(computer.option(6), Some(&[192, 0, 2, 53][..]));
    let holder = &plant.who(computer.address, None)[0];
    let told = (&holder["account"], &holder["mac"], &holder["modem"], &holder["source"]);
    assert_eq!(told, (&json!("100234"), &json!(CPE), &json!(CM), &json!("lease")));

    // Another plan: the name changes with the next offer, and the old name is still served.
    plant.push(&daemon, &key, &changed(2, |document| document["services"][0]["plan"] = json!("res-300")));
    let second = plant.name(CM);
    assert_ne!(first, second);
    wait_for("the new revision is offered", SOON, || (relay.offer(&modem).file == second).then_some(()));
    assert!(plant.fetch(ack.address, &first).is_ok() && plant.fetch(ack.address, &second).is_ok());
    wait_for("what was offered is recorded", SOON, || {
        (plant.device(CM)["offered_revision"] == plant.device(CM)["desired_revision"]).then_some(())
    });
    assert_eq!(relay.rebind(&modem, ack.address), 5);
    assert_eq!(relay.rebind(&cpe, ack.address), 6, "that is the modem's address");
    let nobody = plant.site.lastmile(&["who", "10.77.64.99"]);
    assert_eq!(nobody.status.code(), Some(3));
    assert!(daemon.stop() < Duration::from_secs(5));
}

#[test]
fn leases_outlive_kill_9_and_a_lost_journal_is_told_by_the_database() {
    let plant = Plant::new(Site::sqlite(), 78);
    let key = plant.site.key("acme", "admin");
    let daemon = plant.site.start();
    plant.push(&daemon, &key, &account());
    let relay = plant.relay();
    let modems: Vec<Device> = (0..30).map(|n| Device::modem(&format!("00:11:22:33:45:{n:02x}"))).collect();
    let had: Vec<Ipv4Addr> = modems.iter().map(|modem| relay.boot(modem).address).collect();
    let released =
        ClientMessage { kind: lastmile::dhcp::MessageType::Release, client: had[0], ..relay.message(&modems[0]) };
    assert!(relay.is_silent(&released));
    // The journal is all that is needed: the database may not know the last ones.
    daemon.kill();

    let daemon = plant.site.start();
    // Newcomers first: a modem that asks for what it had would take it again from a table that knows nothing.
    let newcomers: Vec<Ipv4Addr> =
        (1..4).map(|number| relay.boot(&Device::modem(&format!("00:11:22:33:46:{number:02x}"))).address).collect();
    assert!(newcomers.iter().all(|address| !had[1..].contains(address)), "{newcomers:?} have holders");
    for (modem, address) in modems.iter().zip(&had).skip(1) {
        assert_eq!(relay.rebind(modem, *address), 5, "{address} is still {}", modem.mac);
    }
    for address in &had {
        plant.who(*address, None);
    }
    daemon.kill();

    // Another machine takes over: it has the database and no journal.
    std::fs::remove_file(plant.site.path("lastmile-leases.journal")).expect("the journal");
    let daemon = plant.site.start();
    let others: Vec<Ipv4Addr> =
        (1..4).map(|number| relay.boot(&Device::modem(&format!("00:11:22:33:47:{number:02x}"))).address).collect();
    assert!(others.iter().all(|address| !had[1..].contains(address) && !newcomers.contains(address)), "{others:?}");
    for (modem, address) in modems.iter().zip(&had).skip(1) {
        let renew = ClientMessage { kind: Request, client: *address, ..relay.message(modem) };
        assert_eq!(relay.ask(&renew).kind, 5, "{address}");
    }
    drop(daemon);
}

#[test]
fn a_forgotten_persons_devices_leave_the_journal_of_leases_and_a_neighbour_stays() {
    let plant = Plant::new(Site::sqlite(), 82);
    let key = plant.site.key("acme", "admin");
    let daemon = plant.site.start();
    plant.push(&daemon, &key, &account());
    let relay = plant.relay();
    let (modem, mta, cpe) = (Device::modem(CM), Device::mta(MTA, CM), Device::cpe(CPE, CM));
    let name = plant.name(CM);
    wait_for("the account's file is offered", SOON, || (relay.offer(&modem).file == name).then_some(()));
    let neighbour = Device::modem("00:11:22:33:48:01");
    let kept = relay.boot(&neighbour).address;
    let leased = [&modem, &mta, &cpe].map(|device| relay.boot(device).address);
    plant.who(leased[2], None);
    let path = plant.site.path("lastmile-leases.journal");
    let journal = || std::fs::read_to_string(&path).expect("the journal");
    let of_person = |text: &str| [CM, MTA, CPE].iter().any(|mac| text.contains(mac));
    assert!(of_person(&journal()), "{}", journal());

    assert_eq!(daemon.api(&key, "DELETE", "acme/accounts/100234", None).status, 202);
    wait_for("everything of the account is gone from the plant", SOON, || {
        let jobs = plant.site.json(&["job", "list", "--limit", "1000"]);
        jobs.as_array().expect("a list").iter().all(|job| job["state"] == "done").then_some(())
    });
    // What it held is kept from others for a while; whoever is to be forgotten gives it up at once.
    for held in plant.site.json(&["quarantine", "list"]).as_array().expect("a list") {
        plant.site.succeed(&["quarantine", "release", held["value"].as_str().expect("a value")]);
    }
    let erase = ["account", "erase", "100234", "--tenant", "acme", "--reason", "asked to be forgotten"];
    plant.site.succeed(&erase);
    // A lease that runs is somebody's at the plant: it is let go of when it has ended.
    std::thread::sleep(Duration::from_secs(6));
    assert!(journal().contains(CM), "its lease still runs");
    for (device, address) in [&modem, &mta, &cpe].into_iter().zip(leased) {
        let released = ClientMessage { kind: Release, client: address, ..relay.message(device) };
        assert!(relay.is_silent(&released));
    }
    wait_for("the journal says nothing of the person", Duration::from_secs(60), || {
        (!of_person(&journal())).then_some(())
    });
    let who = ["who", &leased[2].to_string()].map(str::to_owned);
    wait_for("nor does the history", SOON, || {
        let output = plant.site.lastmile(&[who[0].as_str(), who[1].as_str()]);
        (!of_person(&String::from_utf8_lossy(&output.stdout))).then_some(())
    });
    assert_eq!(relay.rebind(&neighbour, kept), 5, "somebody else's lease is theirs");
    // The file that was written anew is the one a restart reads.
    daemon.kill();
    let daemon = plant.site.start();
    assert_eq!(relay.rebind(&neighbour, kept), 5);
    assert!(!of_person(&journal()));
    drop(daemon);
}

#[test]
fn a_plant_boots_while_the_database_is_away_and_who_knows_it_afterwards() {
    let mut cluster = Cluster::start(&[]);
    let plant = Plant::new(Site::new(temp_dir(), &cluster.database()), 79);
    let key = plant.site.key("acme", "admin");
    let daemon = plant.site.start();
    plant.push(&daemon, &key, &account());
    let relay = plant.relay();
    let (modem, cpe) = (Device::modem(CM), Device::cpe(CPE, CM));
    let name = plant.name(CM);
    wait_for("the account's file is offered", SOON, || (relay.offer(&modem).file == name).then_some(()));
    wait_for("the snapshot knows the modem", SOON, || {
        std::fs::metadata(plant.site.path("lastmile-plant.sealed")).is_ok_and(|meta| meta.len() > 300).then_some(())
    });
    let ack = relay.boot(&modem);

    cluster.kill_9();
    let while_away = Timestamp::now();
    for number in 0..20 {
        relay.boot(&Device::modem(&format!("00:11:22:33:47:{number:02x}")));
    }
    assert_eq!(relay.rebind(&modem, ack.address), 5);
    assert_eq!(plant.fetch(ack.address, &name).map(|file| file.len() > 60), Ok(true));
    let computer = relay.boot(&cpe).address;
    // And a daemon that starts without a database at all.
    daemon.kill();
    let daemon = plant.site.spawn();
    let again = wait_for("DHCP answers without a database", SOON, || {
        let message = relay.message(&modem);
        relay.once(&message, Duration::from_secs(1))
    });
    assert_eq!((again.file.as_str(), again.address), (name.as_str(), ack.address));
    assert_eq!(relay.rebind(&cpe, computer), 5);
    assert!(plant.fetch(ack.address, &name).is_ok());

    cluster.launch(&[]);
    let holder = &plant.who(computer, Some(while_away + Duration::from_secs(1)))[0];
    assert_eq!((&holder["account"], &holder["mac"]), (&json!("100234"), &json!(CPE)), "{holder:#}");
    drop(daemon);
}

#[test]
fn a_hold_reaches_the_devices_behind_the_modem() {
    let plant = Plant::new(Site::sqlite(), 80);
    let key = plant.site.key("acme", "admin");
    let daemon = plant.site.start();
    plant.push(&daemon, &key, &changed(1, |document| document["services"][0]["static_ips"] = json!(["10.80.64.7"])));
    let relay = plant.relay();
    let (modem, mta, cpe) = (Device::modem(CM), Device::mta(MTA, CM), Device::cpe(CPE, CM));
    wait_for("the account is known", SOON, || (relay.offer(&modem).file == plant.name(CM)).then_some(()));
    let address = relay.boot(&cpe).address;
    assert_eq!(address, Ipv4Addr::new(10, 80, 64, 7), "its static address");
    let other = relay.boot(&Device::cpe("02:00:00:00:00:02", CM)).address;
    assert_eq!(other.octets()[3], 10, "the second device gets one of the pool");

    let hold = |kind: &str| json!([{"kind": kind, "from": "2026-01-01T00:00:00Z", "until": null}]);
    plant.push(&daemon, &key, &changed(2, |document| document["holds"] = hold("nonpay")));
    // In the garden: short leases, so that its end is noticed, and no address of its own.
    let renew = ClientMessage { kind: Request, client: other, ..relay.message(&Device::cpe("02:00:00:00:00:02", CM)) };
    wait_for("the garden is in force", SOON, || (relay.ask(&renew).lease_seconds() == Some(300)).then_some(()));
    assert_eq!(relay.rebind(&cpe, address), 6);
    assert_eq!(relay.boot(&mta).address.octets()[2], 32, "who has not paid can still call for help");
    plant.push(&daemon, &key, &changed(3, |document| document["holds"] = hold("fraud")));
    wait_for("the account is blocked", SOON, || (relay.ask(&renew).kind == 6).then_some(()));
    assert!(relay.is_silent(&relay.message(&cpe)));
    assert_eq!(relay.boot(&modem).file, plant.name(CM), "the modem itself stays in the network");
    drop(daemon);
}

#[test]
fn only_relays_that_are_known_are_answered_and_junk_changes_nothing() {
    let plant = Plant::new(Site::sqlite(), 81);
    let daemon = plant.site.start();
    let stranger = Relay::at("127.99.0.1", plant.dhcp_port);
    let modem = Device::modem(CM);
    assert!(stranger.is_silent(&stranger.message(&modem)));
    let local = ClientMessage { relay: Ipv4Addr::UNSPECIFIED, ..stranger.message(&modem) };
    assert!(stranger.is_silent(&local), "a broadcast is never answered");
    let socket = UdpSocket::bind("127.81.0.1:0").expect("a port");
    for length in [0usize, 1, 239, 240, 241, 1400] {
        let junk: Vec<u8> = (0..length).map(|place| (place * 7) as u8).collect();
        socket.send_to(&junk, ("127.0.0.1", plant.dhcp_port)).expect("sent");
    }
    let relay = plant.relay();
    let ack = relay.boot(&modem);
    // It gives the address back itself, from that address.
    let release =
        ClientMessage { kind: Release, client: ack.address, relay: Ipv4Addr::UNSPECIFIED, ..relay.message(&modem) };
    let own = UdpSocket::bind((ack.address, 0)).expect("its address");
    own.send_to(&release.encode(), ("127.0.0.1", plant.dhcp_port)).expect("sent");
    wait_for("the release counts", SOON, || (relay.rebind(&modem, ack.address) == 5).then_some(()));
    let metrics =
        crate::harness::http::request(plant.site.http_port, "GET", "/metrics", &[], None).expect("metrics").body;
    for part in [
        "dropped_total{reason=\"unknown_relay\"} 1",
        "dropped_total{reason=\"not_relayed\"} 1",
        "{reason=\"malformed\"} 6",
    ] {
        assert!(metrics.contains(&format!("{part}\n")), "{part}: {metrics}");
    }
    drop(daemon);
}

#[test]
fn time_of_day_is_told_over_udp_and_tcp() {
    let site = Site::sqlite();
    let port = crate::harness::free_tcp_port();
    site.edit("[mail]", &format!("[tod]\nlisten = \"127.0.0.1:{port}\"\n[mail]"));
    site.prepare(CATALOG);
    let daemon = site.start();
    let is_now = |octets: [u8; 4]| {
        let now = Timestamp::now().as_second() + 2_208_988_800;
        assert!((now - i64::from(u32::from_be_bytes(octets))).abs() <= 2);
    };
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(SOON)).expect("a socket");
    socket.send_to(&[], ("127.0.0.1", port)).expect("sent");
    let mut octets = [0u8; 4];
    assert_eq!(socket.recv(&mut octets).expect("the time"), 4);
    is_now(octets);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.read_exact(&mut octets).expect("the time");
    is_now(octets);
    drop(daemon);
}

#[test]
fn names_of_files_fit_the_field() {
    let sealer = Sealer::from_key([1; 32]);
    for kind in [DeviceKind::Cm, DeviceKind::Mta] {
        let name = config_file_name(&sealer, kind, CM.parse().expect("a MAC"), i64::MAX);
        assert!(name.len() < 64, "{name}");
    }
}
