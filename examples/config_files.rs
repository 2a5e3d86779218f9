//! How many configuration files one core makes in a second, each built and then read back as device and CMTS would.
//!
//! `cargo run --release --example config_files [SECONDS]` prints a table; a kind runs for SECONDS (1 by default). The
//! files of a kind differ in their MAC and rates, so that nothing is made twice.

use std::time::{Duration, Instant};

use lastmile::account::GardenFilters;
use lastmile::docsis::{CallAgent, FilledTlv, HashFamily, MtaFlow, effective_digest};
use lastmile::provision::{CmAccess, CmContent, GardenContent, MtaContent, MtaLine, MtaSip, SecretRef};
use lastmile::provisioner::modem::{self, ModemSettings, Serving};
use lastmile::provisioner::mta::{self, OpenedSecrets};
use lastmile::vocabulary::{BitRate, MacAddress, Secret};

/// What the daemon allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds);
    println!("| configuration files, one core | octets | files/s | µs each |");
    println!("|---|---|---|---|");
    let plain = ModemSettings { shared_secret: Secret::new("example-secret-1"), community: None };
    let managed = ModemSettings { community: Some(Secret::new("kept-from-all")), ..plain.clone() };
    let bound =
        Serving { modem_address: Some([10, 10, 0, 9].into()), tftp_timestamp: Some(3_900_000_000), extended_mic: None };
    row("modem, active", time, |n| modem::build(&cm(n, CmAccess::Active), &plain, &Serving::default()));
    row("modem, active, SNMP access, address and time", time, |n| {
        modem::build(&cm(n, CmAccess::Active), &managed, &bound)
    });
    row("modem, garden with filters", time, |n| modem::build(&cm(n, CmAccess::Garden), &managed, &bound));
    row("modem, DOCSIS 2.0 with rows of SNMP access", time, |n| {
        modem::build(&CmContent { docsis: "2.0".to_owned(), ..cm(n, CmAccess::Active) }, &managed, &bound)
    });
    row("MTA, two NCS lines", time, |n| mta::build(&voice(n, false), &OpenedSecrets::new()));
    let key = ("v".to_owned(), "lines.1.sip.password".to_owned());
    let secrets = OpenedSecrets::from([(key, Secret::new("secret"))]);
    row("MTA, a SIP line by template with its password", time, |n| mta::build(&voice(n, true), &secrets));
    row("effective digest of a modem's file, built before", time, {
        let file = modem::build(&cm(1, CmAccess::Active), &managed, &bound).expect("a file");
        move |_| Ok(effective_digest(&file).into_bytes())
    });
}

fn row(name: &str, time: Duration, mut make: impl FnMut(u64) -> Result<Vec<u8>, String>) {
    const ROUND: u64 = 256;
    let octets = make(0).expect("a file").len();
    let begun = Instant::now();
    let mut made = 0u64;
    while begun.elapsed() < time {
        for n in made..made + ROUND {
            assert!(!std::hint::black_box(make(n)).expect("a file").is_empty());
        }
        made += ROUND;
    }
    let rate = made as f64 / begun.elapsed().as_secs_f64();
    println!("| {name} | {octets} | {} | {:.1} |", grouped(rate as u64), 1e6 / rate);
}

fn cm(n: u64, access: CmAccess) -> CmContent {
    let rate = |bits: u64| Some(BitRate::from_bits_per_second(bits));
    let garden = GardenContent {
        allow: vec!["192.0.2.10/32".parse().expect("a network")],
        filters: GardenFilters::Auto,
        ..GardenContent::default()
    };
    CmContent {
        garden: (access == CmAccess::Garden).then_some(garden),
        access,
        downstream: rate(100_000_000 + n % 1000),
        upstream: rate(20_000_000),
        max_cpe: 3,
        mta_mac: Some(mac(n + 1)),
        plan: Some("res-100".to_owned()),
        ..CmContent::blocked(mac(n))
    }
}

fn voice(n: u64, sip: bool) -> MtaContent {
    let entry = "SnmpMibObject = { oid = \"1.3.6.1.4.1.9.2.9\", string = \"u:{sip_password}\" }".to_owned();
    let password = SecretRef { service: "v".to_owned(), field: "lines.1.sip.password".to_owned(), digest: None };
    let line = |port: u8| MtaLine {
        port,
        number: "+15125550100".to_owned(),
        enabled: true,
        service: "v".to_owned(),
        call_agent: (!sip).then(|| CallAgent { id: "ca@cms1.voice.example".to_owned(), port: 2727 }),
        sip: sip.then(|| MtaSip { user: "u".to_owned(), display_name: None, password: password.clone() }),
        template: if sip { vec![FilledTlv::Open { entry: entry.clone() }] } else { Vec::new() },
    };
    MtaContent {
        mac: mac(n + 1),
        cm_mac: mac(n),
        model: None,
        family: HashFamily::Na,
        flow: MtaFlow::Basic1,
        enabled: true,
        lines: if sip { vec![line(1)] } else { vec![line(1), line(2)] },
        locations: Vec::new(),
        template: Vec::new(),
        fault: String::new(),
    }
}

fn mac(n: u64) -> MacAddress {
    let bytes = n.to_be_bytes();
    MacAddress::from_octets([0x00, 0x11, bytes[4], bytes[5], bytes[6], bytes[7]]).expect("a device's address")
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).expect("digits")).collect();
    groups.join(",")
}
