//! The main job, end to end, on both databases: push, modem file, mailbox, AAA rows, accounting, closed period, explained line.

use std::process::Command;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use serde_json::Value;

use crate::harness::acme::{CATALOG, HOUSEHOLD, Report, household, last_period, midnight, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::{run, wait_for};

const GIGABYTE: u64 = 1_000_000_000;
const SOON: Duration = Duration::from_secs(15);

#[test]
fn main_job_on_sqlite() {
    main_job(&Site::sqlite());
}

#[test]
fn main_job_on_postgres() {
    main_job(&Site::postgres());
}

fn main_job(site: &Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, end) = last_period(Timestamp::now());

    a_push_with_curl_is_answered_without_secrets(site, &key, start);
    the_modem_file_is_fetched_and_says_what_the_plan_says(site, &daemon, &key);
    mailbox_and_aaa_rows_stand_in_their_own_databases(site, &daemon, &key);

    // A session over the period's end: 4 GB up in the last two hours before it, 12 GB down, 3 GB more an hour after it.
    let edge = midnight(end);
    let hour = |hours: i64| edge + hours.hours();
    let report = |kind: &'static str, hours: i64, in_octets: u64, out_octets: u64| Report {
        user: "ada@acme",
        session: "s-1",
        kind,
        at: hour(hours),
        seconds: u64::try_from((hours + 2) * 3600).expect("after the start"),
        in_octets,
        out_octets,
    };
    assert!(radclient(site.radius_port, &report("Start", -2, 0, 0)));
    assert!(radclient(site.radius_port, &report("Interim-Update", -1, 3 * GIGABYTE, 9 * GIGABYTE)));
    assert!(radclient(site.radius_port, &report("Interim-Update", -1, 3 * GIGABYTE, 9 * GIGABYTE)), "a repetition");
    // Half of this interval lies before the edge: 2 of 4 GB up, 3 of 6 GB down.
    assert!(radclient(site.radius_port, &report("Stop", 1, 7 * GIGABYTE, 15 * GIGABYTE)));
    wait_for("the session is folded", SOON, || {
        let sessions = site.json(&["session", "list", "--tenant", "acme"]);
        let session = items(&sessions).first().cloned()?;
        (session["out_octets"].to_string().trim_matches('"') == (15 * GIGABYTE).to_string()).then_some(session)
    });

    // Before the edge 17 GB were used, 10 are free: 5 at 0.50 and 2 at 0.25.
    let period = start.to_string();
    let run = ["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", &period];
    let preview = site.json(&[&run[..], &["--dry-run"]].concat());
    let closed = site.json(&run);
    let lines = closed["lines"].as_array().expect("lines");
    assert_eq!(amounts(&preview), amounts(&closed), "the preview is what is billed");
    let usage = line(lines, "data");
    assert_eq!(usage["amount"], "3.00", "{usage:#}");
    assert_eq!(usage["quantity_raw"], (17 * GIGABYTE).to_string());
    assert_eq!(usage["quantity"], "17");
    assert_eq!(usage["allowance_used"], "10");
    let access: Vec<&str> =
        lines.iter().filter(|line| line["charge"] == "access").map(|line| text(&line["amount"])).collect();
    assert_eq!(access, ["49.95", "49.95"], "the period itself and the next in advance: {lines:#?}");
    assert_eq!(line(lines, "line")["amount"], "15.00");

    let again = site.json(&run);
    assert_eq!(again["lines"].as_array().map(Vec::len), Some(0), "a repeated run emits nothing: {again:#}");

    let explained = site.succeed(&["line", "explain", text(&usage["id"])]);
    for word in ["17", "10", "0.5", "3.00"] {
        assert!(explained.contains(word), "{word} is not in:\n{explained}");
    }

    // One more GB of the closed period arrives late: 0.25 on the original period, in a new batch.
    let late = Report {
        user: "ada@acme",
        session: "s-0",
        kind: "Stop",
        at: hour(-5),
        seconds: 600,
        in_octets: GIGABYTE,
        out_octets: 0,
    };
    assert!(radclient(site.radius_port, &late));
    wait_for("the late session is folded", SOON, || {
        (items(&site.json(&["session", "list", "--tenant", "acme"])).len() == 2).then_some(())
    });
    let corrected = site.json(&run);
    let lines = corrected["lines"].as_array().expect("lines");
    assert_eq!(lines.len(), 1, "{corrected:#}");
    assert_eq!(lines[0]["amount"], "0.25");
    assert_eq!(lines[0]["corrects"], usage["id"]);
    assert_eq!(lines[0]["period"], usage["period"]);
    assert_ne!(corrected["batch"], closed["batch"]);

    deleted_here_is_deleted_there(site, &daemon, &key);
    assert!(daemon.stop() < Duration::from_secs(5), "SIGTERM stops within 5 s");
    no_secret_is_in_the_log(site);
}

fn a_push_with_curl_is_answered_without_secrets(site: &Site, key: &str, billing_from: jiff::civil::Date) {
    let body = site.path("ada.json");
    std::fs::write(&body, household(billing_from).to_string()).expect("a body");
    let url = format!("http://127.0.0.1:{}/v1/tenants/acme/accounts/{HOUSEHOLD}", site.http_port);
    let (bearer, data) = (format!("Authorization: Bearer {key}"), format!("@{}", body.display()));
    let push = || {
        let output = run(
            "curl",
            "curl",
            &[
                "-s",
                "-w",
                "\n%{http_code}",
                "-X",
                "PUT",
                "-H",
                &bearer,
                "-H",
                "Content-Type: application/json",
                "-d",
                &data,
                &url,
            ],
        );
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let (body, status) = text.rsplit_once('\n').expect("a status line");
        (status.to_owned(), body.to_owned())
    };
    let (status, answer) = push();
    assert_eq!(status, "201", "{answer}");
    for secret in ["correct horse", "mail-secret-42", "sip-secret-77"] {
        assert!(!answer.contains(secret), "{secret} came back");
    }
    assert_eq!(push().0, "200", "the same content again");
}

fn the_modem_file_is_fetched_and_says_what_the_plan_says(site: &Site, daemon: &Daemon, key: &str) {
    let name = wait_for("the modem has a file", SOON, || {
        let devices = daemon.api(key, "GET", "acme/devices", None).json();
        let modem = items(&devices).into_iter().find(|device| device["mac"] == "00:11:22:33:44:55")?;
        modem["config_file"].as_str().map(str::to_owned)
    });
    let fetched = site.path("fetched.cm");
    let script = format!("mode octet\nget {name} {}\nquit\n", fetched.display());
    let mut client = Command::new("tftp")
        .args(["127.0.0.1", &site.tftp_port.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("tftp runs (Debian package tftp-hpa)");
    std::io::Write::write_all(&mut client.stdin.take().expect("its input"), script.as_bytes()).expect("commands");
    client.wait().expect("tftp ends");
    let secret = site.path("cmts-secret");
    std::fs::write(&secret, crate::harness::daemon::CMTS_SECRET).expect("a secret file");
    let decoded = site.succeed(&[
        "docsis",
        "decode",
        &fetched.display().to_string(),
        "--secret-file",
        &secret.display().to_string(),
    ]);
    for word in ["100000000", "20000000"] {
        assert!(decoded.contains(word), "{word} is not in:\n{decoded}");
    }
    wait_for("the fetch proves the modem's revision", SOON, || {
        let account = daemon.api(key, "GET", &format!("acme/accounts/{HOUSEHOLD}"), None).json();
        let internet = items_of(&account, "services").into_iter().find(|service| service["id"] == "100234-1")?;
        (internet["provisioning"]["state"] == "applied").then_some(())
    });
}

fn mailbox_and_aaa_rows_stand_in_their_own_databases(site: &Site, daemon: &Daemon, key: &str) {
    wait_for("the mailbox is applied", SOON, || {
        let account = daemon.api(key, "GET", &format!("acme/accounts/{HOUSEHOLD}"), None).json();
        let email = items_of(&account, "services").into_iter().find(|service| service["id"] == "100234-3")?;
        (email["provisioning"]["state"] == "applied").then_some(())
    });
    let mailbox = sqlite(site, "mail.db", "SELECT username, quota, active FROM mailbox");
    assert_eq!(mailbox, format!("ada@acme.example|{}|1", 5120u64 * 1024 * 1024));
    let login =
        sqlite(site, "aaa.db", "SELECT value FROM radcheck WHERE username='ada@acme' AND attribute='Crypt-Password'");
    let again = run("perl", "perl", &["-e", "print crypt($ARGV[0], $ARGV[1])", "correct horse", &login]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), login, "glibc makes the same hash of the password");
    assert_eq!(sqlite(site, "aaa.db", "SELECT COUNT(*) FROM radcheck WHERE value LIKE '%horse%'"), "0");
}

fn deleted_here_is_deleted_there(site: &Site, daemon: &Daemon, key: &str) {
    let path = format!("acme/accounts/{HOUSEHOLD}");
    assert_eq!(daemon.api(key, "DELETE", &path, None).status, 202);
    assert_eq!(daemon.api(key, "DELETE", &path, None).status, 204);
    wait_for("the mailbox and the login are gone", SOON, || {
        let rows = sqlite(site, "mail.db", "SELECT COUNT(*) FROM mailbox")
            + &sqlite(site, "aaa.db", "SELECT COUNT(*) FROM radcheck");
        (rows == "00").then_some(())
    });
    let older = household(jiff::civil::date(2026, 1, 1));
    let answer = daemon.api(key, "PUT", &path, Some(&older));
    assert_eq!(
        (answer.status, answer.json()["reason"].clone()),
        (200, Value::from("stale")),
        "a tombstone makes it stale"
    );
}

fn no_secret_is_in_the_log(site: &Site) {
    let log = site.log_text();
    for secret in ["correct horse", "mail-secret-42", "sip-secret-77", acme_secret()] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

fn acme_secret() -> &'static str {
    crate::harness::daemon::NAS_SECRET
}

fn sqlite(site: &Site, file: &str, sql: &str) -> String {
    let output = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &site.path(file).display().to_string(), sql]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn items(list: &Value) -> Vec<Value> {
    match list {
        Value::Array(items) => items.clone(),
        other => items_of(other, "items"),
    }
}

fn items_of(object: &Value, name: &str) -> Vec<Value> {
    object[name].as_array().cloned().unwrap_or_default()
}

fn amounts(run: &Value) -> Vec<(String, String)> {
    let lines = run["lines"].as_array().expect("lines");
    lines.iter().map(|line| (text(&line["charge"]).to_owned(), text(&line["amount"]).to_owned())).collect()
}

fn line<'a>(lines: &'a [Value], charge: &str) -> &'a Value {
    lines.iter().find(|line| line["charge"] == charge).unwrap_or_else(|| panic!("no line {charge} in {lines:#?}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
