//! `import detail`: files as FreeRADIUS writes them, made here and by FreeRADIUS itself.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::harness::acme::radclient;
use crate::harness::daemon::NAS_SECRET;
use crate::harness::{free_udp_port, temp_dir};

#[test]
fn detail_files_come_in_once_on_sqlite() {
    a_file_comes_in_once(&Site::sqlite());
}

#[test]
fn detail_files_come_in_once_on_postgres() {
    a_file_comes_in_once(&Site::postgres());
}

/// Without a daemon, again without one, and again after one has folded.
fn a_file_comes_in_once(site: &Site) {
    subscribers(site);
    let truths = truths("d", 200);
    let file = write(site, "detail", &concat(truths.iter(), detail));
    let (planned, _) = import(site, &["detail", "--dry-run", &file], 0);
    assert_eq!((counts(&planned), planned["folding"].as_str()), ((1000, 1000, 0, 0), Some("nothing")));
    let (first, _) = import(site, &["detail", &file], 0);
    assert_eq!((counts(&first), first["folding"].as_str()), ((1000, 1000, 0, 0), Some("waiting")));
    let (again, _) = import(site, &["detail", &file], 0);
    assert_eq!((counts(&again), again["folding"].as_str()), ((1000, 0, 1000, 0), Some("nothing")));
    let daemon = site.start();
    wait_for_sums(site, &Truth::sums(&truths));
    let (used, whole) = (ledger(site), used_by_ledger(site));
    let truth = truths.iter().fold((0, 0), |sum, t| (sum.0 + t.in_octets, sum.1 + t.out_octets));
    assert_eq!(whole, truth);
    let (folded, _) = import(site, &["detail", &file, &file], 0);
    assert_eq!(counts(&folded), (2000, 0, 2000, 0));
    daemon.stop();
    assert_eq!(ledger(site), used);
}

#[test]
fn what_came_by_the_wire_is_known_and_the_rest_is_folded_by_the_running_daemon() {
    for site in [Site::sqlite(), Site::postgres()] {
        subscribers(&site);
        let daemon = site.start();
        let truths = truths("w", 12);
        for report in truths[..6].iter().flat_map(Truth::reports) {
            assert!(radclient(site.radius_port, &report));
        }
        wait_for_sums(&site, &Truth::sums(&truths[..6]));
        let used = ledger(&site);
        let wire_only = write(&site, "wire", &concat(truths[..6].iter(), detail));
        let (known, _) = import(&site, &["detail", &wire_only], 0);
        assert_eq!(counts(&known), (30, 0, 30, 0));
        let file = write(&site, "all", &concat(truths.iter(), detail));
        let (all, _) = import(&site, &["detail", &file], 0);
        assert_eq!((counts(&all), all["folding"].as_str()), ((60, 30, 30, 0), Some("done")));
        wait_for_sums(&site, &Truth::sums(&truths));
        assert_holds(&ledger(&site), &used);
        daemon.stop();
    }
}

#[test]
fn what_comes_by_the_wire_after_the_import_adds_nothing() {
    let site = Site::sqlite();
    subscribers(&site);
    let truths = truths("i", 6);
    let file = write(&site, "detail", &concat(truths.iter(), detail));
    import(&site, &["detail", &file], 0);
    let daemon = site.start();
    wait_for_sums(&site, &Truth::sums(&truths));
    let used = ledger(&site);
    for report in truths.iter().flat_map(Truth::reports) {
        assert!(radclient(site.radius_port, &report));
    }
    let last = Truth { session: "marker".to_owned(), ..Truth::new(&truths[0]) };
    let [.., stop] = &last.reports()[..] else { unreachable!("five reports") };
    assert!(radclient(site.radius_port, stop));
    wait_until_folded(&site, 7);
    let mut expected = Truth::sums(&truths);
    expected.extend(Truth::sums(&[last.copy()]));
    assert_eq!(sums(&site), expected);
    assert_holds(&ledger(&site), &used);
    daemon.stop();
}

/// More reports than a session keeps apart: only the journal can compare the oldest.
#[test]
fn a_long_session_that_came_by_the_wire_does_not_change() {
    let site = Site::sqlite();
    subscribers(&site);
    let daemon = site.start();
    let truth = &truths("long", 1)[0];
    let reports: Vec<Report<'_>> = (0..40u64)
        .map(|part| Report {
            user: &truth.user,
            session: &truth.session,
            kind: match part {
                0 => "Start",
                39 => "Stop",
                _ => "Interim-Update",
            },
            at: Timestamp::from_second(truth.began.as_second() + part as i64 * 300).expect("an instant"),
            seconds: part * 300,
            in_octets: part * 1_000_000,
            out_octets: part * 9_000_000_000,
        })
        .collect();
    assert!(reports.iter().all(|report| radclient(site.radius_port, report)));
    let expected = BTreeMap::from([(truth.session.clone(), (39_000_000, 351_000_000_000, "stopped".to_owned()))]);
    wait_for_sums(&site, &expected);
    let used = used_by_ledger(&site);
    let mut text = String::new();
    reports.iter().for_each(|report| record(&mut text, report));
    let file = write(&site, "long", &text);
    let (summary, _) = import(&site, &["detail", &file], 0);
    assert_eq!(summary["read"], 40);
    assert!(summary["known"].as_u64() >= Some(16), "{summary}");
    assert_eq!(summary["older"], summary["new"], "what is not known could not be compared yet");
    assert_eq!(summary["folding"], "done");
    std::thread::sleep(Duration::from_secs(2));
    wait_for_sums(&site, &expected);
    assert_eq!(used_by_ledger(&site), used);
    let (again, _) = import(&site, &["detail", &file], 0);
    assert_eq!(counts(&again), (40, 0, 40, 0));
    daemon.stop();
}

#[test]
fn a_file_with_faults_names_each_and_gives_the_rest() {
    let site = Site::sqlite();
    subscribers(&site);
    let truths = truths("f", 2);
    let mut text = String::new();
    detail(&mut text, &truths[0]);
    let whole = text.lines().count();
    text.push_str("Sun Nov 22 07:56:48 2026\n\tAcct-Status-Type = Strat\n\tTimestamp = 1795334208\n\n");
    text.push_str(
        "Sun Nov 22 07:56:48 2026\n\tNAS-IP-Address = 198.51.100.1\n\tAcct-Status-Type = Stop\n\tTimestamp = 1\n\n",
    );
    text.push_str("Sun Nov 22 07:56:48 2026\n\tNAS-IP-Address = 127.0.0.1\n\tAcct-Status-Type = Stop\n\tTimestamp = 1795334208\n\n");
    detail(&mut text, &truths[1]);
    let cut = &text[..text.len() - 30];
    let file = write(&site, "faults", cut);
    let (summary, said) = import(&site, &["detail", &file], 1);
    assert_eq!(counts(&summary), (10, 9, 0, 4), "{said}");
    for (line, words) in [
        (whole + 1, "nothing tells which NAS it came from"),
        (whole + 5, "no [[radius.nas]] covers 198.51.100.1"),
        (whole + 10, "Acct-Session-Id is missing"),
    ] {
        assert!(said.contains(&format!("{file}:{line}: ")) && said.contains(words), "{line} {words}: {said}");
    }
    assert!(said.contains("it was cut off, or is still being written"), "{said}");
    let (named, said) = import(&site, &["detail", "--nas", "bng1", &file], 1);
    assert!(said.contains("Acct-Status-Type = Strat does not fit its type"), "{said}");
    assert_eq!(counts(&named).1, 0, "{named}");
    assert_eq!(site.lastmile(&["import", "detail", "--nas", "nobody", &file]).status.code(), Some(2));
    assert_eq!(site.lastmile(&["import", "detail", "/nowhere"]).status.code(), Some(1));
    assert_eq!(site.lastmile(&["import", "detail"]).status.code(), Some(2));
}

/// Believable is what was believable when the other server received it.
#[test]
fn an_old_file_is_judged_by_its_own_time() {
    let site = Site::sqlite();
    subscribers(&site);
    let began = Timestamp::from_second(Timestamp::now().as_second() - 600 * 86_400).expect("long ago");
    let old = Truth { began, ..Truth::new(&truths("old", 1)[0]) };
    let mut text = String::new();
    detail(&mut text, &old);
    let received = began.as_second() + 5000;
    text.push_str("Sun Nov 22 07:56:48 2026\n\tUser-Name = \"user1@acme\"\n\tAcct-Session-Id = \"delayed\"\n");
    text.push_str("\tAcct-Status-Type = Stop\n\tNAS-Identifier = \"bng1\"\n\tAcct-Delay-Time = 30\n");
    text.push_str(&format!("\tAcct-Session-Time = 100\n\tAcct-Input-Octets = 9\n\tTimestamp = {received}\n\n"));
    let file = write(&site, "old", &text);
    import(&site, &["detail", "--nas", "bng1", &file], 0);
    let daemon = site.start();
    wait_until_folded(&site, 2);
    let exported = site.succeed(&["export", "sessions", "--format", "csv"]);
    let times = |session: &str| {
        let row = exported.lines().find(|row| row.contains(session)).unwrap_or_else(|| panic!("{exported}"));
        let cells: Vec<&str> = row.split(',').collect();
        [cells[5], cells[6]].map(|cell| cell.parse::<Timestamp>().expect("an instant").as_second())
    };
    assert_eq!(times("old0"), [began.as_second(), began.as_second() + 2400]);
    assert_eq!(times("delayed"), [received - 130, received - 30]);
    daemon.stop();
    let ahead = text.replace(&received.to_string(), &(Timestamp::now().as_second() + 3600).to_string());
    let file = write(&site, "ahead", &ahead);
    let (_, said) = import(&site, &["detail", "--nas", "bng1", &file], 1);
    assert!(said.contains("in the future"), "{said}");
}

/// FreeRADIUS writes the file; the same packets come to us by the wire for half of the sessions.
#[test]
fn a_file_that_freeradius_wrote_comes_in() {
    if !crate::harness::radiusd::may_run() {
        return;
    }
    let site = Site::sqlite();
    subscribers(&site);
    let writer = Writer::start();
    let truths = truths("r", 8);
    for report in truths.iter().flat_map(Truth::reports) {
        assert!(radclient(writer.port, &report), "{}", writer.log());
    }
    // A password, a vendor's attribute, octets and a text that must be escaped.
    let odd = "User-Name = \"quote\\\"back\\\\slash\\ttab ö\"\nAcct-Session-Id = \"odd\"\nAcct-Status-Type = Stop\n\
               NAS-Identifier = \"bng1\"\nAcct-Session-Time = 60\nAcct-Input-Octets = 7\nAcct-Output-Octets = 9\n\
               Class = 0x00ff0d0a\nMikrotik-Rate-Limit = \"20M/100M\"\nFramed-IPv6-Prefix = 2001:db8:1::/48\n\
               Tunnel-Type:1 = VLAN\nNAS-Port-Type = Ethernet\nAcct-Delay-Time = 30\n";
    let answer = crate::harness::acme::radclient_raw(writer.port, "acct", NAS_SECRET, odd);
    assert!(answer.contains("Received Accounting-Response"), "{answer}");
    let daemon = site.start();
    for report in truths[..4].iter().flat_map(Truth::reports) {
        assert!(radclient(site.radius_port, &report));
    }
    wait_for_sums(&site, &Truth::sums(&truths[..4]));
    let file = writer.file();
    let (summary, said) = import(&site, &["detail", &file], 0);
    assert_eq!(counts(&summary), (41, 21, 20, 0), "{said}\n{}", std::fs::read_to_string(&file).unwrap_or_default());
    let mut expected = Truth::sums(&truths);
    expected.insert("odd".to_owned(), (7, 9, "stopped".to_owned()));
    wait_for_sums(&site, &expected);
    let (again, _) = import(&site, &["detail", &file], 0);
    assert_eq!(counts(&again), (41, 0, 41, 0));
    let lane = 1 + (1..).take_while(|lane| shown(&site, &format!("{lane}:1")).is_some()).last().unwrap_or(0);
    let odd = (1..lane)
        .flat_map(|lane| (1..60).map_while(move |seq| Some(format!("{lane}:{seq}"))))
        .filter_map(|place| shown(&site, &place))
        .find(|record| record["read"]["session"] == "odd")
        .expect("the odd record is in the journal");
    let attribute = |name: &str| {
        let found = odd["attributes"].as_array().and_then(|all| all.iter().find(|found| found["name"] == name));
        found.map_or(Value::Null, |found| found["value"].clone())
    };
    assert_eq!(attribute("Class"), "0x00ff0d0a");
    assert_eq!(attribute("Tunnel-Type:1"), "VLAN");
    assert_eq!(attribute("Framed-IPv6-Prefix"), "2001:db8:1::/48");
    assert_eq!(odd["source"], "detail");
    daemon.stop();
}

fn shown(site: &Site, place: &str) -> Option<Value> {
    let output = site.lastmile(&["--json", "record", "show", place]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

impl Truth {
    fn new(like: &Self) -> Self {
        Self { user: like.user.clone(), session: like.session.clone(), ..*like }
    }

    fn copy(&self) -> Self {
        Self::new(self)
    }
}

/// All reports of a session as `detail` has them.
fn detail(text: &mut String, truth: &Truth) {
    truth.reports().iter().for_each(|report| record(text, report));
}

fn record(text: &mut String, report: &Report<'_>) {
    let received = report.at.as_second() + 1;
    line(text, format_args!("Sun Nov 22 07:56:48 2026"));
    line(text, format_args!("\tUser-Name = \"{}\"", report.user));
    line(text, format_args!("\tAcct-Session-Id = \"{}\"", report.session));
    line(text, format_args!("\tAcct-Status-Type = {}", report.kind));
    line(text, format_args!("\tNAS-IP-Address = 127.0.0.1"));
    line(text, format_args!("\tNAS-Identifier = \"bng1\""));
    let at = jiff::fmt::strtime::format("%b %e %Y %H:%M:%S UTC", &report.at.to_zoned(jiff::tz::TimeZone::UTC));
    line(text, format_args!("\tEvent-Timestamp = \"{}\"", at.expect("a date")));
    line(text, format_args!("\tAcct-Session-Time = {}", report.seconds));
    line(text, format_args!("\tAcct-Input-Octets = {}", report.in_octets & 0xffff_ffff));
    line(text, format_args!("\tAcct-Input-Gigawords = {}", report.in_octets >> 32));
    line(text, format_args!("\tAcct-Output-Octets = {}", report.out_octets & 0xffff_ffff));
    line(text, format_args!("\tAcct-Output-Gigawords = {}", report.out_octets >> 32));
    line(text, format_args!("\tAcct-Unique-Session-Id = \"0123456789abcdef\""));
    line(text, format_args!("\tTimestamp = {received}\n"));
}

/// A FreeRADIUS that does nothing but write detail.
struct Writer {
    folder: std::path::PathBuf,
    port: u16,
    child: std::process::Child,
    _keep: tempfile::TempDir,
}

impl Writer {
    fn start() -> Self {
        let keep = temp_dir();
        let folder = keep.path().to_path_buf();
        let port = free_udp_port();
        let config = WRITER
            .replace("FOLDER", &folder.display().to_string())
            .replace("PORT", &port.to_string())
            .replace("SECRET", NAS_SECRET);
        std::fs::write(folder.join("radiusd.conf"), config).expect("a configuration file");
        let log = std::fs::File::create(folder.join("log")).expect("a log file");
        let child = Command::new("freeradius")
            .args(["-fxx", "-l", "stdout", "-n", "radiusd", "-d"])
            .arg(&folder)
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("freeradius runs (Debian package freeradius)");
        let writer = Self { folder, port, child, _keep: keep };
        wait_for("FreeRADIUS is ready", Duration::from_secs(20), || {
            writer.log().contains("Ready to process requests").then_some(())
        });
        writer
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn file(&self) -> String {
        self.folder.join("detail").display().to_string()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const WRITER: &str = r#"
prefix = /usr
libdir = /usr/lib/freeradius
logdir = FOLDER
run_dir = FOLDER
confdir = FOLDER
name = writer
pidfile = FOLDER/radiusd.pid
max_requests = 4096
proxy_requests = no
log {
  destination = stdout
}
client lo {
  ipaddr = 127.0.0.0/8
  secret = SECRET
}
modules {
  detail {
    filename = FOLDER/detail
    escape_filenames = no
    permissions = 0644
    log_packet_header = yes
  }
}
server writer {
  listen {
    type = acct
    ipaddr = 127.0.0.1
    port = PORT
  }
  accounting {
    detail
  }
}
"#;
