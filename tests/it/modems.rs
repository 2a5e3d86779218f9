//! A push reaches the modem: it is reset by SNMP, fetches its new file and proves itself that it runs it; with Debian's
//! snmpd as modems and CMTS.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::{Daemon, Site};
use crate::harness::modem::{
    AUTH_PASSWORD, Agent, BOOT_STATE, Behaviour, COMMUNITY, CONFIG_FILE, MTA_FILE, MTA_HASH, Modem, PRIVACY_PASSWORD,
    RESET_NOW, USER, fetch,
};
use crate::harness::{free_udp_port, http, run, wait_for};

const SOON: Duration = Duration::from_secs(60);
const FIRST: &str = "00:11:22:33:44:55";
const SECOND: &str = "00:11:22:33:44:66";

#[test]
fn a_push_is_in_force_when_the_modem_says_so_on_sqlite() {
    journey(Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 21));
}

#[test]
fn a_push_is_in_force_when_the_modem_says_so_on_postgres() {
    journey(Plant::new(Site::postgres(), "[snmp]\ncommunity = \"plant-community\"\n", 22));
}

fn journey(plant: Plant) {
    plant.push(FIRST, |_| {});
    let modem = plant.modem(FIRST, 1);
    let waiting = plant.until(FIRST, |device| device["offered_revision"] == 1);
    assert_eq!(waiting["state"], "pending", "{waiting:#}");
    assert!(plant.evidence().contains("waiting for the modem to fetch it"), "{}", plant.evidence());

    // It is turned on by its subscriber, and tells itself that it runs its file.
    modem.power_cycle();
    let device = plant.until(FIRST, |device| device["state"] == "applied");
    assert_eq!((&device["fetched_revision"], &device["confirmed_revision"]), (&json!(1), &json!(1)), "{device:#}");
    assert!(plant.evidence().contains("reports operational"), "{}", plant.evidence());

    // Another plan: one reset, another file, proven again.
    plant.push(FIRST, |account| account["services"][0]["plan"] = json!("res-300"));
    let device = plant.until(FIRST, |device| device["confirmed_revision"] == 2);
    assert_eq!((device["state"].as_str(), modem.boots()), (Some("applied"), 2), "{device:#}");

    // What does not change its file costs no boot.
    plant.push(FIRST, |account| {
        account["services"][0]["plan"] = json!("res-300");
        account["name"] = json!("Augusta Ada King");
    });
    // Who has not paid sees the garden; the modem still reports operational.
    plant.push(FIRST, |account| account["status"] = json!("suspended"));
    let device = plant.until(FIRST, |device| device["confirmed_revision"] == 3);
    assert_eq!((device["state"].as_str(), modem.boots()), (Some("applied"), 3), "{device:#}");

    // A blocked modem proves itself by not forwarding.
    plant.push(FIRST, |account| account["holds"] = json!([{"kind": "abuse"}]));
    let device = plant.until(FIRST, |device| device["confirmed_revision"] == 4);
    assert_eq!((device["state"].as_str(), modem.boots()), (Some("applied"), 4), "{device:#}");
    assert!(plant.evidence().contains("reports forwarding disabled"), "{}", plant.evidence());

    // A swap: the old modem is reset so that it loses the service, the new one is another device.
    plant.push(FIRST, |account| account["devices"][0]["cm_mac"] = json!(SECOND));
    wait_for("the old modem is reset and finds no file of its own", SOON, || (modem.boots() == 5).then_some(()));
    assert_eq!(plant.file(FIRST), "unprovisioned.cm");
    plant.until(SECOND, |device| device["offered_revision"] == 1);
}

#[test]
fn a_modem_that_speaks_only_snmpv3_is_reset_and_proven() {
    let settings = format!(
        "[snmp]\n[snmp.user]\nname = \"{USER}\"\nauth = \"sha256\"\nauth_password = \"{AUTH_PASSWORD}\"\n\
         privacy = \"aes\"\nprivacy_password = \"{PRIVACY_PASSWORD}\"\n"
    );
    let plant = Plant::new(Site::sqlite(), &settings, 23);
    plant.push(FIRST, |_| {});
    let modem = plant.modem(FIRST, 1);
    modem.power_cycle();
    plant.until(FIRST, |device| device["confirmed_revision"] == 1);
    plant.push(FIRST, |account| account["services"][0]["plan"] = json!("res-300"));
    plant.until(FIRST, |device| device["confirmed_revision"] == 2);
    assert_eq!(modem.boots(), 2);
}

#[test]
fn a_silent_modem_is_reset_through_its_cmts_and_delays_nobody() {
    let cmts = Ipv4Addr::new(127, 0, 24, 200);
    let settings = format!(
        "[snmp]\ncommunity = \"plant-community\"\n[[cmts]]\nname = \"cmts1\"\naddress = \"{cmts}\"\n\
         community = \"{COMMUNITY}\"\nreset = \"cisco\"\nnetworks = [\"127.0.24.0/24\"]\n"
    );
    let plant = Plant::new(Site::sqlite(), &settings, 24);
    let agent = Agent::start(
        cmts,
        plant.snmp_port,
        &[
            ("1.3.6.1.2.1.10.127.1.3.7.1.2.0.17.34.51.68.85", "integer", "77"),
            ("1.3.6.1.4.1.9.9.116.1.3.1.1.9.0.17.34.51.68.85", "integer", "2"),
        ],
    );
    let (silent, lively) = (plant.modem(FIRST, 1), plant.modem(SECOND, 2));
    plant.push(FIRST, |_| {});
    plant.push(SECOND, |_| {});
    for modem in [&silent, &lively] {
        modem.power_cycle();
    }
    for mac in [FIRST, SECOND] {
        plant.until(mac, |device| device["confirmed_revision"] == 1);
    }
    silent.agent.silence(true);

    plant.push(FIRST, |account| account["services"][0]["plan"] = json!("res-300"));
    let begun = Instant::now();
    plant.push(SECOND, |account| account["services"][0]["plan"] = json!("res-300"));
    wait_for("the other modem is reset", SOON, || (lively.boots() == 2).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(5), "the silent one held it up for {:?}", begun.elapsed());
    let told = wait_for("the CMTS is told", SOON, || agent.sets().into_iter().next());
    assert_eq!(told, ("1.3.6.1.4.1.9.9.116.1.3.1.1.9.0.17.34.51.68.85".to_owned(), "1".to_owned()));

    // It boots without ever speaking SNMP: registered at the CMTS is what can be seen.
    agent.set("1.3.6.1.2.1.10.127.1.3.3.1.9.77", "integer", "8");
    let name = plant.file(FIRST);
    assert!(fetch(silent.agent.address, plant.tftp(), &name).is_some());
    let device = plant.until(FIRST, |device| device["state"] == "applied" && device["fetched_revision"] == 2);
    assert_eq!(device["confirmed_revision"], 1, "only its own word confirms: {device:#}");
    assert!(plant.evidence().contains("registered at cmts1"), "{}", plant.evidence());
}

#[test]
fn the_cmts_of_each_maker_is_told_in_its_own_words() {
    let cmts = Ipv4Addr::new(127, 0, 37, 250);
    let user = format!(
        "[cmts.user]\nname = \"{USER}\"\nauth = \"sha256\"\nauth_password = \"{AUTH_PASSWORD}\"\nprivacy = \"aes\"\n\
         privacy_password = \"{PRIVACY_PASSWORD}\"\n"
    );
    let community = format!("community = \"{COMMUNITY}\"\n");
    let of = |maker: &str, network: &str, access: &str| {
        format!(
            "[[cmts]]\nname = \"{maker}\"\naddress = \"{cmts}\"\nreset = \"{maker}\"\nnetworks = [\"{network}\"]\n{access}"
        )
    };
    let settings = format!(
        "[snmp]\ncommunity = \"plant-community\"\n{}{}{}",
        of("cisco", "127.0.37.0/26", &community),
        of("casa", "127.0.37.64/26", &user),
        of("arris", "127.0.37.128/26", &community)
    );
    let plant = Plant::new(Site::sqlite(), &settings, 37);
    let makers = [
        ("00:11:22:33:44:01", 1, "1.3.6.1.4.1.9.9.116.1.3.1.1.9.0.17.34.51.68.1", "1"),
        ("00:11:22:33:44:02", 65, "1.3.6.1.4.1.20858.10.12.1.3.1.7.0.17.34.51.68.2", "1"),
        ("00:11:22:33:44:03", 129, "1.3.6.1.4.1.4981.2.2.2.0", "00 11 22 33 44 03"),
    ];
    let objects = makers.map(|(_, _, object, _)| (object, "string", ""));
    let agent = Agent::start(cmts, plant.snmp_port, &objects);
    for (mac, host, object, value) in makers {
        plant.push(mac, |_| {});
        let name = wait_for("it has a file", SOON, || Some(plant.file(mac)).filter(|name| name.starts_with("1-")));
        // Nobody answers SNMP at its address.
        assert!(fetch(Ipv4Addr::new(127, 0, 37, host), plant.tftp(), &name).is_some());
        plant.until(mac, |device| device["fetched_revision"] == 1);
        plant.push(mac, |account| account["services"][0]["plan"] = json!("res-300"));
        let told = wait_for("the CMTS is told", SOON, || agent.sets().into_iter().find(|(oid, _)| oid == object));
        assert_eq!(told.1.trim().trim_matches('"').trim(), value, "{:?}", agent.sets());
    }
    assert_eq!(agent.sets().len(), 3, "each once: {:?}", agent.sets());
}

#[test]
fn a_modem_that_the_cmts_refuses_is_told_in_words() {
    let plant = Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 25);
    plant.push(FIRST, |_| {});
    let modem = plant.modem(FIRST, 1);
    modem.power_cycle();
    plant.until(FIRST, |device| device["state"] == "applied");
    // It answers, with another file than it fetched last: the CMTS sent it back to the old one.
    plant.registers.store(false, Ordering::SeqCst);
    plant.push(FIRST, |account| account["services"][0]["plan"] = json!("res-300"));
    wait_for("it boots", SOON, || (modem.boots() == 2).then_some(()));
    plant.until(FIRST, |device| device["fetched_revision"] == 2);
    modem.agent.set(BOOT_STATE, "integer", "7");
    modem.agent.silence(false);
    let trouble = wait_for("the refusal is seen", SOON, || {
        Some(plant.evidence()).filter(|evidence| evidence.contains("the CMTS refused the file"))
    });
    assert!(trouble.contains("shared secret"), "{trouble}");
}

#[test]
fn garbage_for_an_answer_is_no_answer() {
    let plant = Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 26);
    plant.push(FIRST, |_| {});
    let address = Ipv4Addr::new(127, 0, 26, 1);
    let socket = UdpSocket::bind((address, plant.snmp_port)).expect("the modem's port");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
    let done = Arc::new(AtomicBool::new(false));
    let gibberish = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut buffer = [0u8; 2048];
            while !done.load(Ordering::SeqCst) {
                if let Ok((octets, peer)) = socket.recv_from(&mut buffer) {
                    for answer in [&b"\x30\x84\xff\xff\xff\xff"[..], &buffer[..octets], b"", &[0x30; 900]] {
                        let _ = socket.send_to(answer, peer);
                    }
                }
            }
        })
    };
    assert!(fetch(address, plant.tftp(), &plant.file(FIRST)).is_some());
    plant.until(FIRST, |device| device["fetched_revision"] == 1);
    let evidence = wait_for("the modem is asked", SOON, || Some(plant.evidence()).filter(|text| text.contains("SNMP")));
    assert!(evidence.contains("fetched"), "{evidence}");
    assert_ne!(plant.device(FIRST).expect("it is listed")["state"], "applied");
    done.store(true, Ordering::SeqCst);
    gibberish.join().expect("it ends");
}

#[test]
fn a_telephone_call_is_not_cut_off_by_a_reset() {
    // The model's own object tells whether a line is in use: 1 is on hook.
    let settings = "[snmp]\ncommunity = \"plant-community\"\n[[reset.line_status]]\nmodel = \"tm*\"\noid = \"1.3.6.1.4.1.4115.1.3.1\"\nidle = 1\n";
    let plant = Plant::careful(Site::sqlite(), settings, 27);
    let gateway = |account: &mut Value| {
        account["devices"][0] = json!({"id": "gw1", "cm_mac": FIRST, "mta_mac": SECOND, "model": "TM3402"});
        let voice = json!({"id": "v", "type": "voice", "plan": "voice-basic", "device": "gw1",
            "lines": [{"port": 1, "number": "+15125550100", "enabled": true}]});
        account["services"].as_array_mut().expect("services").push(voice);
    };
    plant.push(FIRST, gateway);
    let modem = plant.modem(FIRST, 1);
    modem.agent.set("1.3.6.1.4.1.4115.1.3.1.9", "integer", "2");
    modem.power_cycle();
    plant.until(FIRST, |device| device["confirmed_revision"] == 1);

    let faster = |account: &mut Value| {
        gateway(account);
        account["services"][0]["plan"] = json!("res-300");
    };
    plant.push(FIRST, faster);
    let evidence =
        wait_for("the call is seen", SOON, || Some(plant.evidence()).filter(|text| text.contains("a call is up")));
    assert!(evidence.contains("every minute"), "{evidence}");
    assert_eq!(modem.boots(), 1);

    // It ends; the reset follows by itself, here hurried by a push that changes the file once more.
    modem.agent.set("1.3.6.1.4.1.4115.1.3.1.9", "integer", "1");
    plant.push(FIRST, |account| {
        faster(account);
        account["services"][0]["max_cpe"] = json!(7);
    });
    plant.until(FIRST, |device| device["confirmed_revision"] == 3);
    assert_eq!(modem.boots(), 2);

    // Where nothing tells about lines, the maintenance window is waited for.
    plant.push(FIRST, |account| {
        gateway(account);
        account["devices"][0]["model"] = json!("another-maker");
    });
    let evidence = wait_for("the window is waited for", SOON, || {
        Some(plant.evidence()).filter(|text| text.contains("maintenance window"))
    });
    assert!(evidence.contains("cannot be read"), "{evidence}");
    assert_eq!(modem.boots(), 2);
}

#[test]
fn an_mta_proves_itself_and_one_that_moved_house_calls_a_person() {
    let settings = "[snmp]\ncommunity = \"plant-community\"\n[[cmts]]\nname = \"cmts1\"\nnetworks = [\"127.0.28.0/24\"]\nareas = [\"787*\"]\n";
    let plant = Plant::new(Site::sqlite(), settings, 28);
    let living_in = |code: &'static str| {
        move |account: &mut Value| {
            account["devices"][0] = json!({"id": "gw1", "cm_mac": FIRST, "mta_mac": SECOND});
            let voice = json!({"id": "v", "type": "voice", "plan": "voice-basic", "device": "gw1",
                "service_address": {"line1": "1 Main St", "city": "Austin", "postal_code": code, "country": "US"},
                "lines": [{"port": 1, "number": "+15125550100", "enabled": true}]});
            account["services"].as_array_mut().expect("services").push(voice);
        }
    };
    plant.push(FIRST, living_in("78701"));
    let mta = Agent::start(Ipv4Addr::new(127, 0, 28, 2), plant.snmp_port, &[]);
    let name = wait_for("the MTA has a file", SOON, || Some(plant.file(SECOND)).filter(|name| name.ends_with(".mta")));
    assert!(fetch(mta.address, plant.tftp(), &name).is_some());
    plant.until(SECOND, |device| device["fetched_revision"] == 1);
    // pktcMtaDevProvisioningState: in progress, then pass.
    mta.set("1.3.6.1.4.1.4491.2.2.1.1.1.9.0", "integer", "2");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(plant.device(SECOND).expect("it is listed")["state"], "pending");
    mta.set("1.3.6.1.4.1.4491.2.2.1.1.1.9.0", "integer", "1");
    plant.until(SECOND, |device| device["state"] == "applied" && device["confirmed_revision"] == 1);
    let open = || plant.site.json(&["exception", "list"]).to_string();
    assert!(!open().contains("emergency_location"), "{}", open());

    // The account says another city than the CMTS serves.
    plant.push(FIRST, living_in("10001"));
    assert!(fetch(mta.address, plant.tftp(), &plant.file(SECOND)).is_some());
    wait_for("a person is called", SOON, || open().contains("emergency_location").then_some(()));
    plant.push(FIRST, living_in("78702"));
    assert!(fetch(mta.address, plant.tftp(), &plant.file(SECOND)).is_some());
    wait_for("it is in order again", SOON, || (!open().contains("emergency_location")).then_some(()));
}

#[test]
fn an_mta_of_a_hybrid_flow_is_told_its_file_when_it_enrols() {
    let informs = free_udp_port();
    let settings = format!(
        "[snmp]\ncommunity = \"plant-community\"\ninforms = \"127.0.0.1:{informs}\"\n[[cmts]]\nname = \"cmts1\"\n\
         networks = [\"127.0.30.0/24\"]\n"
    );
    let plant = Plant::new(Site::sqlite(), &settings, 30);
    let path = plant.site.path("hybrid.toml");
    let model = "\n[[device_model]]\nid = \"hybrid\"\nmatch = \"HY*\"\nmta_hash = \"na\"\nmta_flow = \"HYBRID.2\"\n";
    std::fs::write(&path, format!("{CATALOG}{model}")).expect("a catalog");
    plant.site.succeed(&["catalog", "apply", &path.display().to_string()]);
    let line = |account: &mut Value| {
        account["devices"][0] = json!({"id": "gw1", "cm_mac": FIRST, "mta_mac": SECOND, "model": "HY100"});
        let voice = json!({"id": "v", "type": "voice", "plan": "voice-basic", "device": "gw1",
            "lines": [{"port": 1, "number": "+15125550100", "enabled": true}]});
        account["services"].as_array_mut().expect("services").push(voice);
    };
    plant.push(FIRST, line);
    let name = wait_for("the MTA has a file", SOON, || Some(plant.file(SECOND)).filter(|name| name.ends_with(".mta")));
    let told = [(MTA_FILE, "string", ""), (MTA_HASH, "string", ""), ("1.3.6.1.4.1.4491.2.2.1.1.1.9.0", "integer", "2")];
    let mta = Agent::start(Ipv4Addr::new(127, 0, 30, 2), plant.snmp_port, &told);
    // snmpinform waits for the response: it ends well only when it is answered.
    let enrol = |from: Ipv4Addr, mac: &str| {
        let (client, to) = (format!("--clientaddr={from}"), format!("127.0.0.1:{informs}"));
        let enrolment = "1.3.6.1.4.1.4491.2.2.1.2.0.3";
        let object = ["1.3.6.1.2.1.2.2.1.6.1", "x", mac];
        let usual = ["-v2c", "-c", "public", "-t", "2", "-r", "2", &client, &to, "", enrolment];
        run("snmp", "snmpinform", &[&usual[..], &object[..]].concat());
    };

    // Somebody else, from the plant and from elsewhere: answered, and told nothing.
    enrol(mta.address, "0x001122334499");
    let stranger = Agent::start(Ipv4Addr::new(127, 0, 31, 2), plant.snmp_port, &told);
    enrol(stranger.address, "0x001122334466");
    enrol(mta.address, "0x001122334466");
    let sets = wait_for("the MTA is told", SOON, || Some(mta.sets()).filter(|sets| sets.len() >= 2));
    let url = format!("\"tftp://127.0.0.1:{}/{name}\"", plant.site.tftp_port);
    assert_eq!(sets[0], (MTA_FILE.to_owned(), url));
    assert_eq!(sets[1].0, MTA_HASH);

    // The hash is of the very file it fetches; then its own word counts.
    let bytes = fetch(mta.address, plant.tftp(), &name).expect("its file");
    let sha1: String = Sha1::digest(&bytes).iter().map(|octet| format!("{octet:02x}")).collect();
    let shown: String = sets[1].1.chars().filter(char::is_ascii_hexdigit).collect();
    assert_eq!(shown.to_lowercase(), sha1, "{sets:?}");
    assert!(!bytes.windows(20).any(|octets| octets == &Sha1::digest(&bytes)[..]), "no hash in the file itself");
    // Asked, it goes on saying that it is being provisioned; unasked it says at the end how that went.
    let say = |from: Ipv4Addr, state: &str| {
        let (client, to) = (format!("--clientaddr={from}"), format!("127.0.0.1:{informs}"));
        let status = ["1.3.6.1.4.1.4491.2.2.1.2.0.4", "1.3.6.1.2.1.2.2.1.6.1", "x", "0x001122334466"];
        let object = ["1.3.6.1.4.1.4491.2.2.1.1.1.9.0", "i", state];
        let usual = ["-v2c", "-c", "public", "-t", "2", "-r", "2", &client, &to, ""];
        run("snmp", "snmpinform", &[&usual[..], &status[..], &object[..]].concat());
    };
    say(stranger.address, "1");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(plant.device(SECOND).expect("it is listed")["state"], "pending", "nobody else speaks for it");
    say(mta.address, "1");
    plant.until(SECOND, |device| device["state"] == "applied" && device["confirmed_revision"] == 1);
    assert!(plant.details(SECOND)["evidence"].to_string().contains("the MTA reports pass, by INFORM at"));
    assert_eq!(mta.sets().len(), 2, "the last word of a flow is no enrolment");
    assert_eq!(stranger.sets(), [], "an address outside the plant is told nothing");

    // The next file does not please it.
    let renamed = |account: &mut Value| {
        line(account);
        account["services"][1]["lines"][0]["enabled"] = json!(false);
    };
    plant.push(FIRST, renamed);
    let next = wait_for("it has another file", SOON, || Some(plant.file(SECOND)).filter(|next| *next != name));
    assert!(fetch(mta.address, plant.tftp(), &next).is_some());
    plant.until(SECOND, |device| device["fetched_revision"] == 2);
    say(mta.address, "3");
    let device = plant.until(SECOND, |device| device["state"] == "failed");
    let refused = device["last_error"].as_str().unwrap_or_default();
    assert!(refused.contains("refused its file: failConfigFileError, by INFORM at"), "{device:#}");
    let open = plant.site.json(&["exception", "list"]).to_string();
    assert!(open.contains("failConfigFileError"), "{open}");
    assert_eq!(mta.sets().len(), 2);
}

#[test]
fn a_silent_modem_is_told_of_once() {
    let plant = Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 34);
    plant.push(FIRST, |_| {});
    let modem = plant.modem(FIRST, 1);
    modem.power_cycle();
    plant.until(FIRST, |device| device["confirmed_revision"] == 1);
    modem.agent.silence(true);
    plant.push(FIRST, |account| account["services"][0]["plan"] = json!("res-300"));
    let looks = || {
        let jobs = plant.daemon.api(&plant.key, "GET", "acme/jobs?limit=1", None).json();
        jobs["items"][0]["attempts"].as_u64().filter(|_| jobs["items"][0]["state"] == "waiting")
    };
    wait_for("it was looked at twice", SOON, || looks().filter(|attempts| *attempts >= 2));
    let log = plant.site.log_text();
    let told = log.lines().filter(|line| line.contains("WARN") && line.contains("no SNMP answer")).count();
    assert_eq!(told, 1, "{log}");
    assert!(plant.evidence().contains("no SNMP answer"), "{}", plant.evidence());
}

#[test]
fn a_daemon_killed_between_any_two_steps_brings_the_modem_there_all_the_same() {
    let mut plant = Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 29);
    plant.push(FIRST, |_| {});
    let modem = plant.modem(FIRST, 1);
    modem.power_cycle();
    plant.until(FIRST, |device| device["confirmed_revision"] == 1);
    for (turn, wait_ms) in [0u64, 40, 120, 250, 400, 700, 1100].into_iter().enumerate() {
        plant.push(FIRST, |account| account["services"][0]["max_cpe"] = json!(3 + turn));
        std::thread::sleep(Duration::from_millis(wait_ms));
        plant.kill_and_start();
        let revision = 2 + turn;
        plant.until(FIRST, |device| device["confirmed_revision"] == revision && device["state"] == "applied");
    }
    // A kill right after the reset may cost a second one, never more.
    assert!((8..=15).contains(&modem.boots()), "{} boots for 7 changes", modem.boots());
}

/// A daemon with modems around it.
pub struct Plant {
    pub site: Site,
    pub daemon: Daemon,
    pub key: String,
    snmp_port: u16,
    /// The second octet of every address: tests run side by side.
    net: u8,
    pub registers: Arc<AtomicBool>,
}

impl Plant {
    pub fn new(site: Site, settings: &str, net: u8) -> Self {
        Self::careful(site, &format!("{settings}[reset]\nvoice = \"any\"\n"), net)
    }

    /// As `new`, but modems with voice are only reset when their lines are silent.
    pub fn careful(site: Site, settings: &str, net: u8) -> Self {
        let snmp_port = free_udp_port();
        let poll = if settings.contains("poll_minutes") { "" } else { "poll_minutes = 0\n" };
        let timing = format!("[snmp]\nport = {snmp_port}\ntimeout_ms = 500\nretries = 1\n{poll}");
        let settings = settings.replacen("[snmp]\n", &timing, 1);
        site.edit("[log]", &format!("{settings}[log]"));
        site.prepare(CATALOG);
        let key = site.key("acme", "admin");
        let daemon = site.start();
        Self { site, daemon, key, snmp_port, net, registers: Arc::new(AtomicBool::new(true)) }
    }

    /// `kill -9`; it stays away until `kill_and_start`.
    pub fn kill(&self) {
        self.daemon.end();
    }

    pub fn kill_and_start(&mut self) {
        self.kill();
        // The old one is reaped when the new one takes its place.
        self.daemon = self.site.start();
    }

    /// An agent that answers for the modem of this number and never boots by itself.
    pub fn agent(&self, number: u8) -> Agent {
        let objects = [(RESET_NOW, "integer", "2"), (BOOT_STATE, "integer", "1"), (CONFIG_FILE, "string", "")];
        Agent::start(Ipv4Addr::new(127, 0, self.net, number), self.snmp_port, &objects)
    }

    pub fn tftp(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.site.tftp_port))
    }

    /// A modem that is off.
    pub fn modem(&self, mac: &'static str, number: u8) -> Modem {
        let (port, key) = (self.site.http_port, self.key.clone());
        let file = move || file_of(port, &key, mac);
        let behaviour = Behaviour {
            tftp: self.tftp(),
            file: Arc::new(file),
            boot: Duration::from_millis(300),
            operational: 12,
            registers: Arc::clone(&self.registers),
        };
        Modem::new(Ipv4Addr::new(127, 0, self.net, number), self.snmp_port, behaviour)
    }

    /// Pushes the account of a modem, changed.
    pub fn push(&self, mac: &str, change: impl Fn(&mut Value)) {
        let id = format!("10{}", mac.replace(':', ""));
        let mut account = json!({
            "status": "active", "bill_cycle": "c15",
            "devices": [{"id": "gw1", "cm_mac": mac}],
            "services": [{"id": format!("{id}-1"), "type": "internet", "plan": "res-100", "device": "gw1"}]
        });
        change(&mut account);
        let answer = self.daemon.api(&self.key, "PUT", &format!("acme/accounts/{id}"), Some(&account));
        assert!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.body);
    }

    pub fn device(&self, mac: &str) -> Option<Value> {
        device(self.site.http_port, &self.key, mac)
    }

    /// Everything known of a device.
    pub fn details(&self, mac: &str) -> Value {
        self.daemon.api(&self.key, "GET", &format!("acme/devices/{mac}"), None).json()
    }

    pub fn file(&self, mac: &str) -> String {
        file_of(self.site.http_port, &self.key, mac)
    }

    pub fn until(&self, mac: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.until_in(SOON, mac, is)
    }

    pub fn until_in(&self, limit: Duration, mac: &str, is: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let device = self.device(mac);
            match device.clone().filter(&is) {
                Some(device) => return device,
                None if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(50)),
                None => panic!("{mac} does not get there: {device:#?}\n{}", self.evidence()),
            }
        }
    }

    /// The evidence of the first account's service.
    pub fn evidence(&self) -> String {
        let id = format!("10{}", FIRST.replace(':', ""));
        let account = self.daemon.api(&self.key, "GET", &format!("acme/accounts/{id}"), None).json();
        account["services"][0]["provisioning"]["evidence"].as_str().unwrap_or_default().to_owned()
    }
}

fn device(port: u16, key: &str, mac: &str) -> Option<Value> {
    let bearer = format!("Bearer {key}");
    let path = format!("/v1/tenants/acme/devices?mac={mac}");
    let answer = http::request(port, "GET", &path, &[("Authorization", &bearer)], None).ok()?.json();
    answer["items"].as_array().and_then(|items| items.first()).cloned()
}

/// What DHCP would hand out now. While nobody answers, a modem goes on asking.
fn file_of(port: u16, key: &str, mac: &str) -> String {
    let bearer = format!("Bearer {key}");
    let path = format!("/v1/tenants/acme/devices?mac={mac}");
    let asked = || http::request(port, "GET", &path, &[("Authorization", &bearer)], None).ok();
    let answer = wait_for("DHCP answers", SOON, || asked().filter(|answer| answer.status == 200)).json();
    let name = answer["items"][0]["config_file"].as_str().map(str::to_owned);
    name.unwrap_or_else(|| "unprovisioned.cm".to_owned())
}
