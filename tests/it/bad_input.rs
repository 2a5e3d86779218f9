//! Bad input through every text door: the JSON of the API, catalogs, tariffs, profiles, modem files, the configuration, and what
//! is imported. Nothing crashes, memory stays bounded, and what is refused is told with its place and reason.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::acme::CATALOG;
use crate::harness::daemon::Site;
use crate::harness::{is_long, repository};

/// A command may take so much memory, whatever it is given.
const MEMORY_MOST_KIB: u64 = 400 * 1024;

/// The JSON test suite as it is in our golden files: name and octets.
fn json_suite() -> Vec<(String, Vec<u8>)> {
    let path = repository().join("tests/golden/sources/json_suite.txt");
    let text = std::fs::read_to_string(path).expect("the suite");
    let octets = |digits: &str| -> Vec<u8> {
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
            .collect()
    };
    let line = |line: &str| {
        let (name, digits) = line.split_once(' ').unwrap_or((line, ""));
        (name.to_owned(), octets(digits.trim()))
    };
    text.lines().filter(|text| !text.starts_with('#') && !text.is_empty()).map(line).collect()
}

/// Octets that no honest sender writes, each with what it is.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let utf16 = |text: &str, big: bool| -> Vec<u8> {
        let mark = if big { vec![0xfe, 0xff] } else { vec![0xff, 0xfe] };
        let units = text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() });
        mark.into_iter().chain(units).collect()
    };
    vec![
        ("nothing", Vec::new()),
        ("one NUL", vec![0]),
        ("many NULs", vec![0; 100_000]),
        ("UTF-16, little end first", utf16("{\"status\": \"active\"}\nid = 1\n", false)),
        ("UTF-16, big end first", utf16("{\"status\": \"active\"}\nid = 1\n", true)),
        ("a byte order mark alone", vec![0xef, 0xbb, 0xbf]),
        ("not UTF-8", b"id = \"\xe9\xff\"\n{\"id\": \"\xe9\"}".to_vec()),
        ("an overlong NUL", b"id = \"\xc0\x80\"".to_vec()),
        ("line ends of every kind", b"id,name\r\n1,a\r2,b\n\r\n\r3,c\x0b4,d".to_vec()),
        ("10,000 arrays", "[".repeat(10_000).into_bytes()),
        ("10,000 objects", "{\"a\":".repeat(10_000).into_bytes()),
        ("10,000 tables", "a = [".repeat(10_000).into_bytes()),
        ("10,000 elements", "<a>".repeat(10_000).into_bytes()),
        ("a key twice", b"{\"status\":\"active\",\"status\":\"active\"}".to_vec()),
        ("NaN", b"{\"status\":NaN}\nx = nan\n".to_vec()),
        ("infinity", b"{\"amount\":1e999999999}\nx = inf\n".to_vec()),
        ("half a character", b"{\"name\":\"\\ud800\"}".to_vec()),
        ("entities", b"<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><x>&b;</x>".to_vec()),
        ("an external entity", b"<!DOCTYPE x [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><x>&a;</x>".to_vec()),
        ("a quote that never ends", b"id,name\n1,\"a\n".to_vec()),
        ("cells that compute", b"id,name\n=1+1,@SUM(A1)\n+2,-3\n".to_vec()),
        ("right to left and joined", "id = \"\u{202e}\u{200d}\u{feff}\u{1f468}\u{200d}\u{1f469}\"\n".into()),
        ("terminal escapes", b"id = \"\x1b[2J\x1b]0;x\x07\"\n".to_vec()),
        ("a million commas", ",".repeat(1_000_000).into_bytes()),
        ("a million brackets", "[[".repeat(500_000).into_bytes()),
    ]
}

/// One request with any octets as its body.
fn put(port: u16, path: &str, key: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time limit");
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // A server that refuses a long body answers before it has read it all.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

#[test]
fn every_invalid_json_is_refused_by_the_api_with_its_place_and_every_valid_one_is_read() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let memory = || peak_of(daemon.pid()).expect("the daemon runs");
    let (mut invalid, mut valid) = (0, 0);
    for (name, octets) in json_suite() {
        let (status, body) = put(site.http_port, "/v1/tenants/acme/accounts/j1", &key, &octets);
        let told: Value =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{name}: {status} {body}: {error}"));
        let fault = told["errors"][0]["detail"].as_str().unwrap_or_default();
        match name.as_bytes()[0] {
            b'n' => {
                invalid += 1;
                assert_eq!(status, 400, "{name}: {body}");
                assert!(!fault.is_empty(), "{name} has no reason: {body}");
            }
            b'y' => {
                valid += 1;
                // What is JSON is read, and is no account; a key that is written twice is refused besides.
                let twice = name.contains("duplicated_key");
                assert_eq!(status, if twice { 400 } else { 422 }, "{name}: {body}");
                assert!(!fault.is_empty(), "{name} has no reason: {body}");
            }
            _ => assert!(matches!(status, 400 | 422), "{name}: {status} {body}"),
        }
    }
    println!("{invalid} invalid refused, {valid} valid read");
    assert!(invalid > 150 && valid > 90, "the suite is whole: {invalid} and {valid}");
    for path in ["/v1/tenants/acme/accounts/j1", "/v1/tenants/acme/catalog"] {
        for (what, octets) in hostile() {
            let (status, body) = put(site.http_port, path, &key, &octets);
            assert!(matches!(status, 400 | 413 | 422), "{what} at {path}: {status} {body}");
            let told: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{what}: {body}: {error}"));
            assert!(told["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}: {body}");
        }
        let long = vec![b'['; if is_long() { 1 << 30 } else { 64 << 20 }];
        let (status, body) = put(site.http_port, path, &key, &long);
        // It is refused by its length; the connection may be gone before the answer is read.
        assert!(matches!(status, 413 | 0), "{path}: {status} {body}");
    }
    assert!(memory() < MEMORY_MOST_KIB, "the daemon took {} KiB", memory());
    let (status, _) =
        put(site.http_port, "/v1/tenants/acme/accounts/j1", &key, b"{\"status\":\"active\",\"bill_cycle\":\"c15\"}");
    assert_eq!(status, 201, "the daemon works as before");
}

/// A command that reads a file, and what of its arguments is the file.
struct Door {
    name: &'static str,
    arguments: Vec<String>,
    /// Whether the line ends are the file's business, so that it may be taken.
    table: bool,
}

fn doors(site: &Site, file: &Path) -> Vec<Door> {
    let file = file.display().to_string();
    let profile = site.path("switch.toml");
    std::fs::write(
        &profile,
        "[columns]\nnumber = \"src\"\ndestination = \"dst\"\nstarted = \"at\"\nseconds = \"s\"\n\
        [format]\ntime = \"unix\"\n",
    )
    .expect("a profile");
    let profile = profile.display().to_string();
    let usage = site.path("usage.json");
    std::fs::write(&usage, "{\"quantities\": {}}").expect("a file");
    let tariff = site.path("tariff.toml");
    std::fs::write(&tariff, "id = \"t\"\nversion = 1\ncurrency = \"USD\"\neffective_from = \"2026-01-01\"\n")
        .expect("a file");
    let (tariff, usage) = (tariff.display().to_string(), usage.display().to_string());
    let out = site.path("out.bin").display().to_string();
    let door = |name, table, arguments: &[&str]| Door {
        name,
        table,
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
    };
    vec![
        door("catalog", false, &["catalog", "apply", &file, "--dry-run"]),
        door("tariff", false, &["tariff", "check", &file]),
        door("usage of a tariff", false, &["tariff", "price", &tariff, "--usage", &file]),
        door("profile", false, &["profile", "check", &file, &usage]),
        door("sample, JSON", true, &["profile", "check", "sonar", &file]),
        door("sample, CSV", true, &["profile", "check", "homegrown-csv", &file]),
        door("sample, XML", true, &["profile", "check", "icoms", &file]),
        door("sample, columns", true, &["profile", "check", "azar", &file]),
        door("sample, environment", true, &["profile", "check", "billmax-service", &file]),
        door("modem file", false, &["docsis", "encode", &file, "-o", &out]),
        door("detail", true, &["import", "detail", &file, "--dry-run"]),
        door("radacct", true, &["import", "radacct", &file, "--dry-run"]),
        door("samis", true, &["import", "samis", &file, "--service-class", "*", "--dry-run"]),
        door("calls", true, &["import", "cdr", &file, "--profile", &profile, "--dry-run"]),
        door("another system's lines", true, &["bill", "compare", &file, "--tenant", "acme", "--cycle", "c15"]),
    ]
}

/// Exit code, what was said, and the most memory it took.
fn told_by(site: &Site, config: &Path, arguments: &[String]) -> (Option<i32>, String, u64) {
    let said = std::fs::File::create(site.path("said")).expect("a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_lastmile"))
        .arg("--config")
        .arg(config)
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(said.try_clone().expect("a file"))
        .stderr(said)
        .spawn()
        .expect("lastmile runs");
    let mut most = 0;
    loop {
        most = peak_of(child.id()).unwrap_or(0).max(most);
        if let Some(status) = child.try_wait().expect("a status") {
            let said = std::fs::read(site.path("said")).expect("what was said");
            return (status.code(), String::from_utf8_lossy(&said).into_owned(), most);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The most memory a process took until now, KiB.
fn peak_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
}

fn check(site: &Site, door: &Door, what: &str, config: &Path) -> Option<String> {
    let (code, said, memory) = told_by(site, config, &door.arguments);
    let is_sound = matches!(code, Some(1..=3)) || (door.table && code == Some(0));
    let mut faults = Vec::new();
    if !is_sound {
        faults.push(format!("exit {code:?}"));
    }
    if said.contains("panicked") || said.contains("RUST_BACKTRACE") {
        faults.push("it panicked".to_owned());
    }
    if said.trim().is_empty() {
        faults.push("it says nothing".to_owned());
    }
    if said.contains('\u{1b}') {
        faults.push("it writes the file's escapes to the terminal".to_owned());
    }
    if memory > MEMORY_MOST_KIB {
        faults.push(format!("it took {memory} KiB"));
    }
    if said.len() > 1 << 20 && !door.table {
        faults.push(format!("it says {} octets", said.len()));
    }
    let shown: String = said.chars().take(300).collect();
    (!faults.is_empty()).then(|| format!("{}, {what}: {}; it said {shown:?}", door.name, faults.join(", ")))
}

#[test]
fn no_door_of_the_command_line_breaks_on_bad_input() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let file: PathBuf = site.path("bad.input");
    let mut wrong = Vec::new();
    let doors = doors(&site, &file);
    for (what, octets) in hostile() {
        std::fs::write(&file, &octets).expect("a file");
        wrong.extend(doors.iter().filter_map(|door| check(&site, door, what, &site.config)));
        let config = Door { name: "configuration", table: false, arguments: vec!["check-config".to_owned()] };
        wrong.extend(check(&site, &config, what, &file));
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn one_line_without_an_end_and_rows_without_number_take_bounded_memory() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let file: PathBuf = site.path("long.input");
    let doors = doors(&site, &file);
    let mut wrong = Vec::new();
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).expect("a file"));
    let chunk = vec![b'a'; 1 << 20];
    for _ in 0..if is_long() { 1024 } else { 512 } {
        out.write_all(&chunk).expect("room on the disk");
    }
    out.flush().expect("room on the disk");
    drop(out);
    wrong.extend(doors.iter().filter_map(|door| check(&site, door, "one line", &site.config)));
    let config = Door { name: "configuration", table: false, arguments: vec!["check-config".to_owned()] };
    wrong.extend(check(&site, &config, "one line", &file));

    let rows = if is_long() { 10_000_000 } else { 100_000 };
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file).expect("a file"));
    writeln!(out, "src,dst,at,s").expect("room on the disk");
    for row in 0..rows {
        writeln!(out, "+1512555{row},+1800,{row},x").expect("room on the disk");
    }
    out.flush().expect("room on the disk");
    drop(out);
    // A sample is shown record by record: what it says is as long as it is.
    let counted = doors.iter().filter(|door| !door.name.starts_with("sample"));
    wrong.extend(counted.filter_map(|door| check(&site, door, "many rows", &site.config)));
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
}
