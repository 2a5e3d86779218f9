//! Parsers of what strangers send: the kept corpus of the fuzzer, and seeded mutations of it, meet the fuzzer's judges.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lastmile::dhcp::client::ClientMessage;
use lastmile::docsis::{Value, VarBind, encode};
use lastmile::radius::RequestBuilder;
use lastmile::store::journal::{JournalEntry, unsealed_page};
use lastmile::vocabulary::Secret;

use crate::harness::chaos::Random;
use crate::harness::repository;

#[path = "../../fuzz/judges.rs"]
mod judges;

/// How long each parser is fed in `tests/run`; `tests/run --long` runs libFuzzer for ten minutes each.
const MUTATING: Duration = Duration::from_millis(2500);
/// The same each run; a failing mutation is kept in the corpus.
const SEED: u64 = 0x0dd_ba11;
const LONGEST: usize = 4200;

#[test]
fn any_packet_is_read_or_refused() {
    let secret = Secret::new("testing123");
    let made = RequestBuilder::accounting(7)
        .integer(40, 3)
        .text(44, "session")
        .text(1, "user@isp")
        .integer(46, 300)
        .integer(42, 1000)
        .integer(52, 1)
        .vendor(14988, 8, b"10M/10M")
        .octets(241, &[1, 2, 3])
        .octets(245, &[1, 0x80, 3])
        .octets(2, &[9; 16])
        .octets(33, b"proxy")
        .message_authenticator()
        .sign(&secret)
        .expect("fits");
    feed("packet", &[made], judges::packet);
}

#[test]
fn any_dictionary_is_read_or_told_what_is_wrong() {
    let mut texts = vec![
        b"VENDOR Acme 99999 format=2,1\nBEGIN-VENDOR Acme\nATTRIBUTE Acme-A 1 integer has_tag\nVALUE Acme-A On 1\nEND-VENDOR Acme\n".to_vec(),
        b"ATTRIBUTE Ext 241.5 tlv\nATTRIBUTE Inner 241.5.1 ipv6prefix\n$INCLUDE other\nFLAGS internal\n".to_vec(),
    ];
    for file in std::fs::read_dir(repository().join("dictionaries")).expect("the shipped dictionaries") {
        let file = file.expect("a file").path();
        if file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dictionary")) {
            texts.push(std::fs::read(file).expect("a dictionary"));
        }
    }
    feed("dictionary", &texts, judges::dictionary);
}

#[test]
fn any_detail_file_is_read_or_told_what_is_wrong() {
    let text = b"Sun Nov 22 07:56:48 2026\n\tAcct-Session-Id = \"0001\"\n\tUser-Name = \"a\\\"b\\303\\274\"\n\
        \tAcct-Status-Type = Start\n\tFramed-IP-Address = 10.0.0.1\n\tClass = 0x0102\n\tTimestamp = 1795334208\n\n\
        Sun Nov 22 07:56:49 2026\n\tAcct-Session-Id = \"0002\"\n";
    feed("detail", &[text.to_vec()], judges::detail);
}

#[test]
fn any_page_of_the_journal_is_read_or_refused() {
    let entries: Vec<JournalEntry> = (0..5u8)
        .map(|number| JournalEntry {
            arrived_at: jiff::Timestamp::from_second(1_800_000_000 + i64::from(number)).expect("an instant"),
            nas: ["bng1", "bng2"][usize::from(number % 2)].into(),
            source: std::net::SocketAddr::from(([10, 0, 0, number], 1813)).into(),
            packet: vec![number; 30],
        })
        .collect();
    feed("page", &[unsealed_page(&entries)], judges::page);
}

#[test]
fn any_configuration_file_is_shown_and_made_again() {
    let golden = repository().join("tests/golden/docsis");
    let files = ["v1_res_100_20_d30.cm", "v3_disabled.cm", "v5_mta_na.bin"];
    let mut seeds: Vec<Vec<u8>> = files.map(|name| std::fs::read(golden.join(name)).expect("a reference file")).into();
    let extended = "kind = \"cm\"\nextended_mic = { explicit = true }\ntlv = [ { NetworkAccess = 1 }, { MaxCPE = 1 }, \
        { VendorSpecific = [ { VendorIdentifier = \"00000c\" }, { Tlv9 = \"01\" } ] } ]";
    seeds.push(encode(extended, Some(b"example-secret-1")).expect("a file").bytes);
    feed("config_file", &seeds, judges::config_file);
}

#[test]
fn any_snmp_object_is_read_or_refused() {
    let oid = || "1.3.6.1.4.1.4491.2.2.1.1.2.7.0".parse().expect("an OID");
    let values = [
        Value::Integer(-129),
        Value::Octets(vec![7; 300]),
        Value::Object(oid()),
        Value::Counter64(u64::MAX),
        Value::TimeTicks(128),
        Value::Null,
    ];
    feed("ber", &values.map(|value| VarBind::new(oid(), value).encode()), judges::ber);
}

#[test]
fn any_dhcp_message_is_read_or_refused() {
    use lastmile::dhcp::MessageType::{Decline, Discover, Inform, Release, Request};
    let mac = "00:11:22:33:44:55".parse().expect("a MAC");
    let kinds = [Discover, Request, Decline, Release, Inform];
    let made: Vec<Vec<u8>> = kinds
        .into_iter()
        .map(|kind| {
            ClientMessage {
                class: b"docsis3.1:052401".to_vec(),
                vendor: b"\x02\x03ECM\x04\x02S1".to_vec(),
                parameters: vec![1, 3, 66, 67],
                requested: Some([10, 0, 0, 2].into()),
                ..ClientMessage::new(kind, mac, 7).behind([10, 0, 0, 1].into(), mac)
            }
            .encode()
        })
        .collect();
    feed("dhcp", &made, judges::dhcp);
}

#[test]
fn any_tftp_exchange_ends() {
    let asked = b"\0\x01file.cm\0octet\0blksize\x00512\0windowsize\x004\0timeout\x001\0tsize\x000\0".to_vec();
    let exchange = [&asked[..], &[255, 0, 4, 0, 0, 255, 0, 4, 0, 4, 255, 0, 5, 0, 0, 0]].concat();
    feed("tftp", &[asked, exchange, b"\0\x01/a\0OCTET\0".to_vec()], judges::tftp);
}

#[test]
fn any_foreign_record_is_read_or_put_aside() {
    let folder = repository().join("tests/golden/sources/in");
    let mut seeds = Vec::new();
    for (index, name) in lastmile::mediation::shipped_names().enumerate() {
        for file in std::fs::read_dir(&folder).expect("the fixtures") {
            let file = file.expect("a file");
            let shown = file.file_name().to_string_lossy().into_owned();
            if shown.starts_with(&format!("{name}.")) && !shown.ends_with(".golden") {
                let mut octets = vec![index as u8];
                octets.extend(std::fs::read(file.path()).expect("a fixture"));
                seeds.push(octets);
            }
        }
    }
    assert!(seeds.len() >= lastmile::mediation::shipped_names().count(), "every profile has a seed");
    feed("source", &seeds, judges::source);
}

#[test]
fn any_source_profile_is_read_or_told_what_is_wrong() {
    let texts: Vec<Vec<u8>> = lastmile::mediation::shipped_names()
        .filter_map(lastmile::mediation::shipped)
        .map(|text| text.as_bytes().to_vec())
        .collect();
    feed("source_profile", &texts, judges::source_profile);
}

#[test]
fn any_message_on_a_connection_comes_out_whole_however_it_comes() {
    let order = std::fs::read(repository().join("tests/golden/sources/in/icoms.order.xml")).expect("a fixture");
    let seeds = vec![
        [b"\0\x07<e>1</e>\n  <e>2</e><e", &order[..order.len().min(400)], b"</e>"].concat(),
        b"\x01\x03;;a; b;c".to_vec(),
        b"\x02\x05\x03abc\0\x01d\xff".to_vec(),
        b"\x03\x02\0\0\0\x04wxyz\0\0\0\0\0\xff\xff\xff".to_vec(),
    ];
    feed("frame", &seeds, judges::frame);
}

#[test]
fn any_order_in_tm_forums_words_is_read_or_told_what_is_wrong() {
    let mut seeds: Vec<Vec<u8>> = ["orders.json", "events.json", "service_active.json"]
        .iter()
        .map(|name| std::fs::read(repository().join("tests/golden/tmf").join(name)).expect("a golden file"))
        .collect();
    seeds.push(
        br#"{"state":"active","serviceSpecification":{"id":"res-100"},"relatedParty":[{"id":"7","role":"customer"}],
            "serviceCharacteristic":[{"name":"radius","value":{"username":"a@acme"}}],"startDate":"2026-11-01T00:00:00Z",
            "supportingResource":[{"id":"00:11:22:33:44:55","name":"cm"}]}"#
            .to_vec(),
    );
    seeds.push(b"eventType=ServiceStateChangeEvent,ServiceCreateEvent".to_vec());
    seeds.push(b"fields=id,state&offset=0&limit=1000&state=active,held&serviceDate.gte=2026-11-01T00:00:00Z".to_vec());
    feed("order", &seeds, judges::order);
}

#[test]
fn any_file_of_calls_is_read_or_told_what_is_wrong() {
    let seeds = vec![
        b"\0src,dst,at,sec,id\n+15125550100,0117,2026-11-01T00:00:00Z,60,a1\n\"+1,5\",9,x,0,\n".to_vec(),
        b"\x01src;dst;at;sec\r\n5125550100;18005551212;2026-03-08 02:30:00;61\r\n".to_vec(),
        b"\x0215125550100,0114930,1795334208000,90\n5125550100,5125550199,1795334208000,-1\n".to_vec(),
        b"\0[columns]\nnumber = \"src\"\ndestination = \"dst\"\nstarted = \"at\"\nseconds = \"sec\"\n[format]\ntime = \"unix\"\n".to_vec(),
    ];
    feed("calls", &seeds, judges::calls);
}

/// Judges the corpus of one fuzz target and what is made of it; panics with the octets that did not pass.
fn feed(target: &str, seeds: &[Vec<u8>], judge: fn(&[u8])) {
    let mut corpus = seeds.to_vec();
    let folder = repository().join("fuzz/corpus").join(target);
    let mut kept = 0;
    if let Ok(files) = std::fs::read_dir(folder) {
        let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        files.sort();
        kept = files.len();
        corpus.extend(files.iter().map(|file| std::fs::read(file).expect("a corpus file")));
    }
    for octets in &corpus {
        judge_one(target, octets, judge);
    }
    let mut random = Random(SEED);
    let started = Instant::now();
    let mut mutations = 0u64;
    while started.elapsed() < MUTATING {
        for _ in 0..64 {
            let octets = mutated(&corpus, &mut random);
            judge_one(target, &octets, judge);
            mutations += 1;
        }
    }
    println!("PROOF: fuzz {target}: corpus {kept} kept, {} in all, mutations {mutations}", corpus.len());
}

fn judge_one(target: &str, octets: &[u8], judge: fn(&[u8])) {
    if let Err(why) = catch_unwind(AssertUnwindSafe(|| judge(octets))) {
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        println!("fuzz {target}: these octets do not pass: {hex}");
        std::panic::resume_unwind(why);
    }
}

/// One to eight changes of a piece of the corpus: bits, octets, lengths, pieces removed, doubled, or from another one.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let any = |random: &mut Random| &corpus[random.below(corpus.len() as u64) as usize];
    let mut octets = any(random).clone();
    // A long text is cut, so that each turn stays short.
    if octets.len() > LONGEST {
        let from = random.below((octets.len() - LONGEST) as u64) as usize;
        octets = octets[from..from + LONGEST].to_vec();
    }
    for _ in 0..=random.below(8) {
        let length = octets.len() as u64;
        let at = random.below(length) as usize;
        let end = (at + 1 + random.below(16) as usize).min(octets.len());
        match random.below(7) {
            0 if !octets.is_empty() => octets[at] ^= 1 << random.below(8),
            1 if !octets.is_empty() => octets[at] = [0, 1, 2, 3, 0x7f, 0x80, 0xff][random.below(7) as usize],
            2 if !octets.is_empty() => octets[at] = octets[at].wrapping_add(random.below(5) as u8).wrapping_sub(2),
            3 if !octets.is_empty() => drop(octets.drain(at..end)),
            4 => {
                let piece = octets[at.min(octets.len())..end].to_vec();
                octets.splice(at..at, piece);
            }
            5 => {
                let other = any(random);
                let from = random.below(other.len() as u64) as usize;
                let until = (from + 1 + random.below(64) as usize).min(other.len());
                octets.splice(at..at, other[from..until].to_vec());
            }
            _ if octets.len() >= 4 => {
                // A packet's length field that fits again, so that what is behind it is reached.
                let length = (octets.len() as u16).to_be_bytes();
                octets[2..4].copy_from_slice(&length);
            }
            _ => octets.push(random.below(256) as u8),
        }
    }
    octets
}
