//! The month's end: each kind of finding made through the program's own doors, told with subject, numbers and what to do,
//! lived with by a waiver of its own, and gone with its cause; corrections that policy holds back; sums beyond 64 bits.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, Report, internet, last_period, midnight, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::inside::Inside;
use crate::harness::wait_for;

const SOON: Duration = Duration::from_secs(60);
const GIGABYTE: u64 = 1_000_000_000;
/// An account whose bill is 0: what is open besides the finding a test is about.
const WITNESS: &str = "default/free";

/// A cycle whose drafts a person approves, the witness, and an account `a1` that is as it should be.
struct Month {
    site: Site,
    key: String,
    daemon: Option<Daemon>,
    start: Date,
    end: Date,
}

impl Month {
    /// On SQLite, drafts to be approved.
    fn new(catalog: &str) -> Self {
        Self::on(Site::sqlite(), &approved(catalog))
    }

    fn on(site: Site, catalog: &str) -> Self {
        site.prepare(catalog);
        let key = site.key("acme", "admin");
        let daemon = Some(site.start());
        let (start, end) = last_period(Timestamp::now());
        let month = Self { site, key, daemon, start, end };
        let mut free = month.account(900);
        free["services"][0]["price_override"] = json!({"charge": "access", "amount": "0"});
        month.put("free", &free, 201);
        month.put("a1", &month.account(1), 201);
        month
    }

    /// An internet account, billed since the period before the last one.
    fn account(&self, number: u32) -> Value {
        let mut account = internet(number);
        account["services"][0]["billing_from"] = json!((self.start - 1.month()).to_string());
        account
    }

    fn put(&self, name: &str, account: &Value, status: u16) {
        let path = format!("acme/accounts/{name}");
        let daemon = self.daemon.as_ref().expect("it runs");
        let answer = daemon.api(&self.key, "PUT", &path, Some(account));
        assert_eq!(answer.status, status, "{}", answer.body);
    }

    /// Posts money to an account, for a day of the period.
    fn post(&self, name: &str, kind: &str, amount: &str) {
        let path = format!("acme/accounts/{name}/charges");
        let body = json!({"type": kind, "amount": amount, "on": self.start});
        let answer = self.daemon.as_ref().expect("it runs").api(&self.key, "POST", &path, Some(&body));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    fn report(&self, user: &str, session: &str, kind: &str, at: Timestamp, seconds: u64, octets: u64) {
        let report =
            Report { user, session, kind, at, seconds, in_octets: octets / 4, out_octets: octets - octets / 4 };
        assert!(radclient(self.site.radius_port, &report));
    }

    /// One session of an hour, so many hours before the period's end.
    fn use_octets(&self, user: &str, session: &str, hours: i64, octets: u64) {
        let at = midnight(self.end) - hours.hours();
        self.report(user, session, "Start", at, 0, 0);
        self.report(user, session, "Stop", at + 1.hour(), 3600, octets);
        wait_for("the session is folded", SOON, || {
            let sessions = self.site.json(&["session", "list"]);
            let sessions = sessions.as_array().expect("sessions").clone();
            sessions.iter().any(|row| row["session"] == session && row["state"] == "stopped").then_some(())
        });
    }

    /// A run that may fail for single accounts.
    fn run(&self) -> Value {
        let output = self.site.lastmile(&["--json", "bill", "run", "--tenant", "acme", "--cycle", "c15"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The exit code of a check, and what is open.
    fn check(&self) -> (i32, Vec<Value>) {
        check(&self.site, "c15", &self.start)
    }

    /// The finding of this kind, which is there besides the witness and nothing else, and is told to a person, too.
    fn found(&self, kind: &str) -> Value {
        let (code, open) = self.check();
        let kinds: Vec<&str> = open.iter().map(|one| one["kind"].as_str().expect("a kind")).collect();
        let others: Vec<&Value> = open.iter().filter(|one| one["subject"] != WITNESS).collect();
        assert_eq!((code, others.len()), (3, 1), "{kinds:?}: {open:#?}");
        let found = others[0].clone();
        assert_eq!(found["kind"], kind, "{found:#}");
        let told = self.site.lastmile(&check_order("c15", &self.start.to_string()));
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        for what in ["id", "detail", "advice"] {
            let text = found[what].as_str().expect("a text");
            assert!(!text.is_empty() && told.contains(text), "{what}: {text:?} is not in\n{told}");
        }
        found
    }

    /// A waiver clears this finding and not the witness; with its cause gone nothing but the witness was ever open.
    fn settle(&self, found: &Value, mend: impl FnOnce()) {
        waive(&self.site, found);
        let (code, open) = self.check();
        let open: Vec<&Value> = open.iter().map(|one| &one["subject"]).collect();
        assert_eq!((code, open), (3, vec![&json!(WITNESS)]), "the waiver is for one finding");
        mend();
        let listed = self.site.lastmile(&[&["--json"], &check_order("c15", &self.start.to_string())[..]].concat());
        let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        let all = listed["findings"].as_array().expect("findings");
        assert_eq!(all.len(), 1, "its cause is gone: {all:#?}");
        waive(&self.site, &all[0]);
        assert_eq!(self.check(), (0, Vec::new()));
    }
}

/// The catalog with a cycle whose bills a person approves.
fn approved(catalog: &str) -> String {
    catalog.replacen("close = \"manual\"", "close = \"manual\"\napproval = \"required\"", 1)
}

fn check_order<'c>(cycle: &'c str, period: &'c str) -> [&'c str; 8] {
    ["bill", "check", "--tenant", "acme", "--cycle", cycle, "--period", period]
}

fn check(site: &Site, cycle: &str, period: &Date) -> (i32, Vec<Value>) {
    let output = site.lastmile(&[&["--json"], &check_order(cycle, &period.to_string())[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let findings = told["findings"].as_array().expect("findings");
    let open = findings.iter().filter(|one| one["waived"].is_null()).cloned().collect();
    (output.status.code().unwrap_or(-1), open)
}

fn waive(site: &Site, found: &Value) {
    let id = found["id"].as_str().expect("an id");
    let empty = site.lastmile(&["bill", "waive", id, "--reason", " "]);
    assert_eq!(empty.status.code(), Some(2), "a waiver has a reason");
    site.succeed(&["bill", "waive", id, "--reason", "known", "--by", "ada"]);
}

fn text<'v>(found: &'v Value, field: &str) -> &'v str {
    found[field].as_str().expect("a text")
}

#[test]
fn silent_nas_with_sessions_of_the_period_is_told_until_it_reports() {
    let site = Site::sqlite();
    site.edit("identity = \"nas-identifier\"", "identity = \"nas-identifier\"\ninterim_seconds = 1");
    let month = Month::on(site, &approved(CATALOG));
    month.run();
    let edge = midnight(month.end);
    // A session that began after the period's end owes it nothing.
    month.report("user1@acme", "s-new", "Start", edge + 2.hours(), 0, 0);
    month.report("user1@acme", "s-old", "Start", edge - 3.hours(), 0, 0);
    month.report("user1@acme", "s-old", "Interim-Update", edge - 2.hours(), 3600, GIGABYTE);
    let found = wait_for("the NAS is silent", SOON, || {
        let (_, open) = month.check();
        open.iter().any(|one| one["kind"] == "silent_nas").then(|| month.found("silent_nas"))
    });
    assert_eq!((text(&found, "subject"), &found["numbers"]["open_sessions"]), ("bng1/bng1", &json!(1)));
    month.settle(&found, || {
        month.report("user1@acme", "s-old", "Stop", edge + 1.hour(), 4 * 3600, 2 * GIGABYTE);
        wait_for("the session is over", SOON, || (month.check().1.len() == 1).then_some(()));
    });
}

#[test]
fn records_that_wait_to_be_folded_are_told_until_they_are() {
    let mut month = Month::new(CATALOG);
    month.run();
    month.daemon.take().expect("it runs").stop();
    let at = (midnight(month.end) - 5.hours()).as_second();
    let record = |kind: &str, at: i64, seconds: i64, octets: u64| {
        format!(
            "Sun Nov 22 07:56:48 2026\n\tAcct-Session-Id = \"d-1\"\n\tAcct-Status-Type = {kind}\n\tUser-Name = \
             \"user1@acme\"\n\tNAS-IP-Address = 127.0.0.1\n\tNAS-Identifier = \"bng1\"\n\tEvent-Timestamp = {at}\n\t\
             Acct-Session-Time = {seconds}\n\tAcct-Input-Octets = {octets}\n\tAcct-Output-Octets = {octets}\n\t\
             Timestamp = {at}\n\n"
        )
    };
    let file = month.site.path("detail");
    std::fs::write(&file, record("Start", at, 0, 0) + &record("Stop", at + 3600, 3600, 1_000_000)).expect("a file");
    month.site.succeed(&["import", "detail", &file.display().to_string()]);
    let found = month.found("watermark_lag");
    assert!(text(&found, "subject").starts_with("lane "), "{found:#}");
    assert_eq!(found["numbers"]["records"], 2);
    // The one who mends it is the daemon.
    waive(&month.site, &found);
    assert_eq!(month.check().1.len(), 1, "the witness alone");
    let daemon = month.site.start();
    wait_for("they are folded", SOON, || {
        let output = month.site.lastmile(&[&["--json"], &check_order("c15", &month.start.to_string())[..]].concat());
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (told["findings"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
    daemon.stop();
}

#[test]
fn usage_that_nobody_owns_is_told_until_somebody_does() {
    let month = Month::new(CATALOG);
    month.run();
    month.use_octets("user7@acme", "g-1", 9, 5_000_000);
    month.use_octets("user7@acme", "g-2", 7, 2_000_000);
    let found = month.found("unattributed_usage");
    assert_eq!(text(&found, "subject"), "bng1/bng1 user7@acme");
    assert_eq!((&found["numbers"]["octets"], &found["numbers"]["sessions"]), (&json!(7_000_000), &json!(2)));
    month.settle(&found, || {
        month.put("a7", &month.account(7), 201);
        wait_for("the usage has an owner", SOON, || {
            (month.site.json(&["usage", "unattributed"]) == json!([])).then_some(())
        });
    });
}

#[test]
fn bill_of_nothing_is_told_until_there_is_something_on_it() {
    let month = Month::new(CATALOG);
    let mut zero = month.account(2);
    zero["services"][0]["price_override"] = json!({"charge": "access", "amount": "0"});
    month.put("zero", &zero, 201);
    month.run();
    let found = month.found("zero_bill");
    assert_eq!((text(&found, "subject"), &found["numbers"]["amount"]), ("default/zero", &json!("0.00")));
    month.settle(&found, || {
        month.post("zero", "one_off", "5.00");
        month.run();
    });
    // Who pays nothing has lines that explain themselves, too.
    let batches = month.site.json(&["bill", "list", "--tenant", "acme"]);
    month.site.succeed(&["bill", "approve", text(&batches["items"][0], "id")]);
    let lines = month.site.json(&["line", "list", "--tenant", "acme", "--account", "zero"]);
    let lines = lines["items"].as_array().expect("lines");
    assert!(lines.iter().filter(|line| line["charge"] == "access").count() >= 2, "{lines:#?}");
    for line in lines {
        let explained = month.site.json(&["line", "explain", text(line, "id")]);
        assert_eq!(explained["differences"], json!([]), "{explained:#}");
    }
}

#[test]
fn negative_bill_is_told_until_it_is_none() {
    let month = Month::new(CATALOG);
    month.post("a1", "credit", "500.00");
    month.run();
    let found = month.found("negative_bill");
    assert_eq!(text(&found, "subject"), "default/a1");
    let amount: f64 = text(&found["numbers"], "amount").parse().expect("a number");
    assert!((-500.0..-200.0).contains(&amount), "{found:#}");
    month.settle(&found, || {
        month.post("a1", "one_off", "400.00");
        month.run();
    });
}

#[test]
fn bill_three_times_its_like_is_told_until_it_is_explained() {
    let month = Month::new(CATALOG);
    // The period before is closed first.
    let before = (month.start - 1.month()).to_string();
    let run = month.site.json(&["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", &before]);
    let (_, open) = check(&month.site, "c15", &(month.start - 1.month()));
    open.iter().for_each(|one| waive(&month.site, one));
    assert_eq!(check(&month.site, "c15", &(month.start - 1.month())).0, 0);
    month.site.succeed(&["bill", "approve", run["batch"].as_str().expect("a batch")]);
    month.post("a1", "one_off", "260.00");
    month.run();
    let found = month.found("high_bill");
    assert_eq!(text(&found, "subject"), "default/a1");
    // Two months of access in the first bill, one and the visit in this one.
    let numbers = &found["numbers"];
    assert_eq!(
        (&numbers["amount"], &numbers["earlier"], &numbers["earlier_periods"]),
        (&json!("309.95"), &json!("99.90"), &json!(1)),
        "{found:#}"
    );
    month.settle(&found, || {
        month.post("a1", "credit", "60.00");
        month.run();
    });
}

#[test]
fn active_account_that_was_never_billed_is_told_until_it_is() {
    // Accounts of today are of a period that ends today: the day's, which is closed by a daemon that is a day ahead.
    let site = Site::sqlite();
    site.prepare(&CATALOG.replacen(
        "[[plan]]",
        "[[bill_cycle]]\nid = \"daily\"\nevery = \"day\"\ntimezone = \"America/Chicago\"\n[[plan]]",
        1,
    ));
    let key = site.key("acme", "admin");
    let inside = Inside::start(&site);
    let today = Timestamp::now().in_tz("America/Chicago").expect("a zone").date();
    let put = |name: &str, services: Value| {
        let account = json!({"status": "active", "bill_cycle": "daily", "services": services});
        let answer = inside.api(&key, "PUT", &format!("acme/accounts/{name}"), Some(&account));
        assert!(answer.status < 300, "{}", answer.body);
    };
    for name in ["idle", "lazy"] {
        put(name, json!([]));
    }
    put("busy", internet(1)["services"].clone());
    inside.pass_days(1);
    let run = || {
        let body = json!({"cycle": "daily", "period": today.to_string()});
        let asked = inside.api(&key, "POST", "acme/bill-runs", Some(&body));
        assert_eq!(asked.status, 200, "{}", asked.body);
    };
    run();
    let (code, open) = check(&site, "daily", &today);
    let told: Vec<(&str, &str)> = open.iter().map(|one| (text(one, "kind"), text(one, "subject"))).collect();
    assert_eq!((code, told), (3, vec![("never_billed", "default/idle"), ("never_billed", "default/lazy")]));
    assert!(text(&open[0], "advice").contains("billing_from"), "{open:#?}");
    waive(&site, &open[0]);
    let (code, open) = check(&site, "daily", &today);
    assert_eq!((code, open.len(), text(&open[0], "subject")), (3, 1, "default/lazy"));
    let mut services = internet(2)["services"].clone();
    services[0]["billing_from"] = json!(today.to_string());
    put("lazy", services);
    run();
    assert_eq!(check(&site, "daily", &today), (0, Vec::new()));
}

#[test]
fn usage_of_who_is_not_in_service_is_told_until_they_are() {
    let month = Month::new(CATALOG);
    let mut pending = month.account(3);
    pending["status"] = json!("pending");
    month.put("a3", &pending, 201);
    month.run();
    month.use_octets("user3@acme", "p-1", 20, 3 * GIGABYTE);
    let found = month.found("used_not_provisioned");
    assert_eq!(text(&found, "subject"), "default/a3 3-1");
    assert_eq!((&found["numbers"]["octets"], &found["numbers"]["status"]), (&json!(3 * GIGABYTE), &json!("pending")));
    month.settle(&found, || month.put("a3", &month.account(3), 200));
}

#[test]
fn open_exception_is_told_until_somebody_releases_it_and_not_when_it_sleeps() {
    let month = Month::new(CATALOG);
    month.run();
    let mut account = month.account(4);
    account["source_revision"] = json!(9);
    month.put("a4", &account, 201);
    account["source_revision"] = json!(2);
    for _ in 0..20 {
        month.put("a4", &account, 200);
    }
    // The source as a whole is asked about, too; that one is settled at once.
    let listed = month.site.json(&["exception", "list"]);
    let of_source = |one: &&Value| one["subject"] == "acme/default";
    let source = listed.as_array().expect("a list").iter().find(of_source).expect("the one of the source");
    let id = source["id"].to_string().replace('"', "");
    month.site.succeed(&["exception", "release", &id]);
    let found = month.found("open_exception");
    assert!(text(&found, "subject").contains("a4") && text(&found, "detail").contains("20 pushes"), "{found:#}");
    let exception = text(&found["numbers"], "exception").to_owned();
    month.site.succeed(&["exception", "snooze", &exception, "--until", "2030-01-01T00:00:00Z"]);
    assert_eq!(month.found("open_exception")["id"], found["id"], "asleep is not settled");
    month.settle(&found, || drop(month.site.succeed(&["exception", "release", &exception])));
}

#[test]
fn counters_that_no_link_can_carry_are_told_although_they_are_no_tenants() {
    let month = Month::new(CATALOG);
    month.run();
    month.use_octets("user1@acme", "x-1", 20, 4_000_000_000_000_000_000);
    wait_for("somebody is asked", SOON, || (month.check().1.len() == 2).then_some(()));
    let found = month.found("open_exception");
    assert!(text(&found, "subject").contains("impossible_rate bng1/bng1/x-1"), "{found:#}");
}

#[test]
fn account_that_could_not_be_rated_is_told_until_it_is() {
    let calls = r#"
[[tariff.charge]]
id = "calls"
type = "usage"
meter = "calls"
unit = "min"
rates = [ { prefix = "+1", unit_amount = "0.02" } ]
"#;
    let voice = "id = \"line\"\ntype = \"recurring\"\namount = \"15.00\"\ntiming = \"arrears\"\nproration = \"none\"\n";
    assert!(CATALOG.contains(voice));
    let catalog = CATALOG.replacen(voice, &format!("{voice}{calls}"), 1);
    let month = Month::new(&catalog);
    let voice = json!({
        "status": "active", "bill_cycle": "c15",
        "devices": [{"id": "gw1", "cm_mac": "00:11:22:33:44:55", "mta_mac": "00:11:22:33:44:56"}],
        "services": [{"id": "v1", "type": "voice", "plan": "voice-basic", "device": "gw1", "billing_from": month.start,
                      "lines": [{"port": 1, "number": "+15125550100", "enabled": true}]}]
    });
    month.put("a5", &voice, 201);
    let profile = "[columns]\nnumber = \"src\"\ndestination = \"dst\"\nstarted = \"at\"\nseconds = \"s\"\n[format]\n\
        time = \"%Y-%m-%d %H:%M:%S\"\ntimezone = \"America/Chicago\"\n";
    std::fs::write(month.site.path("profile.toml"), profile).expect("a profile");
    let call = format!("src,dst,at,s\n+15125550100,+442071234567,{} 10:00:00,61\n", month.start + 1.day());
    std::fs::write(month.site.path("calls.csv"), call).expect("calls");
    let path = |name: &str| month.site.path(name).display().to_string();
    month.site.succeed(&["import", "cdr", &path("calls.csv"), "--profile", &path("profile.toml")]);
    let run = month.run();
    assert!(run["lines"].as_array().expect("lines").iter().any(|line| line["account"] == "a1"), "the others go on");
    let found = month.found("failed_account");
    assert!(text(&found, "subject").ends_with("acme/default/a5"), "{found:#}");
    assert!(text(&found, "detail").contains("+44207"), "it says for which numbers: {found:#}");
    month.settle(&found, || {
        let mended = approved(&catalog);
        let version = "id = \"voice-basic\"\nversion = 1\n";
        assert!(mended.contains(version));
        let mended = mended.replacen(version, "id = \"voice-basic\"\nversion = 2\nretroactive = true\n", 1).replacen(
            "{ prefix = \"+1\", unit_amount = \"0.02\" }",
            "{ prefix = \"\", unit_amount = \"0.02\" }",
            1,
        );
        std::fs::write(month.site.path("mended.toml"), mended).expect("a catalog");
        month.site.succeed(&["catalog", "apply", &path("mended.toml")]);
        month.run();
    });
}

#[test]
fn correction_that_policy_holds_back_is_told_until_it_is_billed() {
    let catalog = CATALOG.replacen("[[bill_cycle]]", "corrections = { min_amount = \"0.60\" }\n[[bill_cycle]]", 1);
    let month = Month::new(&catalog);
    month.use_octets("user1@acme", "c-1", 30, 12 * GIGABYTE);
    let draft = month.run();
    month.check().1.iter().for_each(|one| waive(&month.site, one));
    assert_eq!(month.check().0, 0);
    month.site.succeed(&["bill", "approve", draft["batch"].as_str().expect("a batch")]);
    month.use_octets("user1@acme", "c-2", 20, GIGABYTE);
    month.run();
    // The second draft has no line of the witness; what is held is all there is to look at.
    let (code, open) = month.check();
    assert_eq!((code, open.len()), (3, 1), "{open:#?}");
    let found = &open[0];
    assert_eq!(text(found, "kind"), "held_correction");
    assert!(text(found, "subject").starts_with("default/a1 1-1 data "), "{found:#}");
    assert_eq!((&found["numbers"]["amount"], &found["numbers"]["reason"]), (&json!("0.50"), &json!("too_small")));
    waive(&month.site, found);
    assert_eq!(month.check(), (0, Vec::new()));
    month.use_octets("user1@acme", "c-3", 10, GIGABYTE);
    let run = month.run();
    let amounts: Vec<&Value> = run["lines"].as_array().expect("lines").iter().map(|line| &line["amount"]).collect();
    assert_eq!(amounts, [&json!("1.00")], "both gigabytes: {run:#}");
    assert_eq!(month.check(), (0, Vec::new()));
}

#[test]
fn check_finds_the_same_on_both_databases() {
    let (sqlite, postgres) = (everything_at_once(Site::sqlite()), everything_at_once(Site::postgres()));
    assert_eq!(sqlite, postgres);
    let kinds: BTreeSet<&str> = sqlite.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["negative_bill", "open_exception", "silent_nas", "unattributed_usage", "used_not_provisioned", "zero_bill"]
            .into()
    );
}

/// Kind, subject and octets or amount of all findings of a month in which much is wrong.
fn everything_at_once(site: Site) -> Vec<(String, String, String)> {
    site.edit("identity = \"nas-identifier\"", "identity = \"nas-identifier\"\ninterim_seconds = 1");
    let month = Month::on(site, &approved(CATALOG));
    month.post("a1", "credit", "500.00");
    let mut pending = month.account(3);
    pending["status"] = json!("pending");
    month.put("a3", &pending, 201);
    month.use_octets("user3@acme", "e-1", 20, 3 * GIGABYTE);
    // Two sessions of nobody, whose octets come to more than 64 bits together.
    for session in ["e-2", "e-3"] {
        month.use_octets("user7@acme", session, 20, 8_000_000_000_000_000_000);
    }
    month.report("user1@acme", "e-4", "Start", midnight(month.end) - 3.hours(), 0, 0);
    month.run();
    let expected = 7;
    let found = wait_for("everything is found", SOON, || {
        let (_, open) = month.check();
        (open.len() == expected).then_some(open)
    });
    let shown = |one: &Value| {
        let numbers = &one["numbers"];
        let number = if numbers["octets"].is_null() { &numbers["amount"] } else { &numbers["octets"] };
        (text(one, "kind").to_owned(), text(one, "subject").to_owned(), number.to_string())
    };
    let mut found: Vec<(String, String, String)> = found.iter().map(shown).collect();
    found.sort();
    let nobody = found.iter().find(|(kind, ..)| kind == "unattributed_usage").expect("it is there");
    assert_eq!(nobody.2, "\"16000000000000000000\"", "exact beyond 64 bits");
    found
}

#[test]
fn held_corrections_are_added_up_and_never_lost_on_sqlite() {
    held(Site::sqlite());
}

#[test]
fn held_corrections_are_added_up_and_never_lost_on_postgres() {
    held(Site::postgres());
}

fn held(site: Site) {
    let policy =
        |terms: &str| CATALOG.replacen("[[bill_cycle]]", &format!("corrections = {{ {terms} }}\n[[bill_cycle]]"), 1);
    let month = Month::on(site, &policy("min_amount = \"0.60\", after = \"report\""));
    let mut two = month.account(5);
    let mut second = month.account(6)["services"][0].clone();
    second["billing_from"] = two["services"][0]["billing_from"].clone();
    two["services"].as_array_mut().expect("services").push(second);
    month.put("a2", &two, 201);
    // 10 GB are included, five more cost 0.50 each, the others 0.25.
    for (user, session) in [("user1@acme", "h-1"), ("user5@acme", "h-2"), ("user6@acme", "h-3")] {
        month.use_octets(user, session, 90, 12 * GIGABYTE);
    }
    month.run();
    let books = |account: &str| {
        let held: Vec<Value> = held_of(&month.site, account);
        (charged(&month.site, account), held.iter().map(minor).sum::<i64>(), held)
    };
    assert_eq!(books("a1"), (100, 0, Vec::new()));

    // A small correction is held, told, and in force once: a run with nothing new makes no batch.
    month.use_octets("user1@acme", "h-4", 80, GIGABYTE);
    let output = month.site.lastmile(&["bill", "run", "--tenant", "acme", "--cycle", "c15"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("default/a1: a correction of 0.50 USD (data of 1-1) was held back"), "{said}");
    let (charged_now, held_now, rows) = books("a1");
    assert_eq!((charged_now + held_now, held_now, rows.len()), (150, 50, 1), "{rows:#?}");
    assert_eq!(
        (&rows[0]["reason"], &rows[0]["charge"], &rows[0]["service"]),
        (&json!("too_small"), &json!("data"), &json!("1-1"))
    );
    let again = month.run();
    assert_eq!((&again["batch"], &again["lines"]), (&Value::Null, &json!([])), "nothing new: {again:#}");
    assert_eq!(books("a1"), (100, 50, rows));
    let human = month.site.succeed(&["bill", "held", "--tenant", "acme", "--cycle", "c15"]);
    assert!(human.contains("a1") && human.contains("0.50 USD") && human.contains("too_small"), "{human}");
    // With the next one it is enough.
    month.use_octets("user1@acme", "h-5", 70, GIGABYTE);
    month.run();
    assert_eq!(books("a1"), (200, 0, Vec::new()), "rated at once it is 4 GB at 0.50");

    // Small ones of an account are added up over its services.
    month.use_octets("user5@acme", "h-6", 60, 800_000_000);
    month.run();
    let (charged_now, held_now, _) = books("a2");
    assert_eq!((charged_now, held_now), (200, 40));
    month.use_octets("user6@acme", "h-7", 50, 800_000_000);
    let run = month.run();
    assert_eq!(run["lines"].as_array().map(Vec::len), Some(2), "{run:#}");
    assert_eq!(books("a2"), (280, 0, Vec::new()));

    // An old debit waits as long as the policy says so, and is billed when it says something else.
    let apply = |catalog: &str| {
        std::fs::write(month.site.path("policy.toml"), catalog).expect("a catalog");
        month.site.succeed(&["catalog", "apply", &month.site.path("policy.toml").display().to_string()]);
    };
    apply(&policy("debit_max_age = \"1d\", after = \"report\""));
    month.use_octets("user1@acme", "h-8", 40, 2 * GIGABYTE);
    month.run();
    let (charged_now, held_now, rows) = books("a1");
    assert_eq!((charged_now, held_now, &rows[0]["reason"]), (200, 75, &json!("too_old")), "0.50 and 0.25");
    // What the subscriber gets back waits for nothing: 0.40 instead of 0.50 from the beginning on, in a new version.
    let cheaper = policy("debit_max_age = \"1d\", after = \"report\"")
        .replacen("id = \"res-100\"\nversion = 1\n", "id = \"res-100\"\nversion = 2\nretroactive = true\n", 1)
        .replacen("unit_amount = \"0.50\"", "unit_amount = \"0.40\"", 1);
    apply(&cheaper);
    month.run();
    let (charged_now, held_now, rows) = books("a1");
    assert_eq!((charged_now, held_now), (225, 0), "5 GB at 0.40, one at 0.25: {rows:#?}");
    let (charged_now, ..) = books("a2");
    assert_eq!(charged_now, 2 * 112, "2.8 GB at 0.40, twice");

    month.use_octets("user1@acme", "h-9", 30, GIGABYTE);
    month.run();
    assert_eq!(books("a1").0 + books("a1").1, 250);
    assert_eq!(books("a1").1, 25, "old again");
    apply(&cheaper.replacen("debit_max_age = \"1d\"", "debit_max_age = \"400d\"", 1));
    month.run();
    assert_eq!(books("a1"), (250, 0, Vec::new()));
    assert!(month.run()["batch"].is_null());
    month.daemon.expect("it runs").stop();
}

/// What lines of usage have charged an account, in minor units.
fn charged(site: &Site, account: &str) -> i64 {
    let list = site.json(&["line", "list", "--tenant", "acme", "--account", account]);
    let lines = list["items"].as_array().expect("lines");
    lines.iter().filter(|line| line["charge"] == "data").map(minor).sum()
}

fn held_of(site: &Site, account: &str) -> Vec<Value> {
    let list = site.json(&["bill", "held", "--tenant", "acme"]);
    list["items"].as_array().expect("items").iter().filter(|row| row["account"] == account).cloned().collect()
}

fn minor(row: &Value) -> i64 {
    text(row, "amount").replace('.', "").parse().expect("an amount")
}

#[test]
fn sums_beyond_64_bits_stop_the_account_that_makes_them_on_sqlite() {
    beyond(Site::sqlite());
}

#[test]
fn sums_beyond_64_bits_stop_the_account_that_makes_them_on_postgres() {
    beyond(Site::postgres());
}

/// Charges of 10^12 for a gigabyte; 92,233 gigabytes of it are all that an amount in cents holds.
const DEAR: &str = r#"
[tenant]
id = "acme"
currency = "USD"
timezone = "America/Chicago"
realms = ["acme"]
[[bill_cycle]]
id = "c15"
anchor_day = 15
every = "month"
[[plan]]
id = "once"
service = "internet"
tariff = "once"
[[plan]]
id = "twice"
service = "internet"
tariff = "twice"
[[tariff]]
id = "once"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
model = "standard"
unit_amount = "1000000000000"
[[tariff.tax]]
id = "vat"
rate = "1"
inclusive = true
[[tariff]]
id = "twice"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
model = "standard"
unit_amount = "1000000000000"
[[tariff.charge]]
id = "again"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
model = "standard"
unit_amount = "1000000000000"
"#;

fn beyond(site: Site) {
    site.prepare(DEAR);
    let key = site.key("acme", "admin");
    let daemon = Some(site.start());
    let (start, end) = last_period(Timestamp::now());
    let month = Month { site, key, daemon, start, end };
    let account = |number: u32, plan: &str| {
        let mut account = internet(number);
        account["services"][0]["plan"] = json!(plan);
        account["services"][0]["billing_from"] = json!(start.to_string());
        account
    };
    // Two whose bills together leave 64 bits, one whose amount does, one whose two lines do, one whose usage does.
    for (name, number, plan) in [
        ("rich", 1, "once"),
        ("wealthy", 2, "once"),
        ("amount", 3, "once"),
        ("lines", 4, "twice"),
        ("usage", 5, "once"),
        ("poor", 6, "once"),
    ] {
        month.put(name, &account(number, plan), 201);
    }
    month.use_octets("user1@acme", "b-1", 90, 90_000 * GIGABYTE);
    month.use_octets("user2@acme", "b-2", 90, 90_000 * GIGABYTE);
    month.use_octets("user3@acme", "b-3", 90, 100_000 * GIGABYTE);
    month.use_octets("user4@acme", "b-4", 90, 60_000 * GIGABYTE);
    for (session, hours) in [("b-5", 90), ("b-6", 80), ("b-7", 70), ("b-9", 60)] {
        month.use_octets("user5@acme", session, hours, 4_000_000_000_000_000_000);
    }
    month.use_octets("user6@acme", "b-8", 90, GIGABYTE);

    let run = ["bill", "run", "--tenant", "acme", "--cycle", "c15", "--json"];
    let output = month.site.lastmile(&run);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for (account, why) in [
        ("amount", "charge data of service 3-1: the amount does not fit 64 bits of minor units"),
        ("lines", "its 2 lines come to 120000000000000000.00 USD, more than 64 bits of minor units hold"),
        ("usage", "the usage of charge data adds up to 16000000000000000000, more than 64 bits hold"),
    ] {
        let told = said.lines().find(|line| line.contains(&format!("default/{account} "))).unwrap_or_default();
        assert!(told.contains(why) && told.contains("the next run tries again"), "{account}: {said}");
    }
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let billed: BTreeSet<&str> =
        told["lines"].as_array().expect("lines").iter().map(|line| text(line, "account")).collect();
    assert_eq!(billed, ["poor", "rich", "wealthy"].into(), "the others go on");
    assert_eq!(told["totals"][0]["amount"], "180001000000000000.00", "exact beyond 64 bits: {told:#}");

    // What looks at everything goes on, too: check, list of batches, audit, held corrections, a further run.
    let (code, open) = month.check();
    let failed: Vec<&str> =
        open.iter().filter(|one| one["kind"] == "failed_account").map(|one| text(one, "subject")).collect();
    assert_eq!((code, failed.len()), (3, 3), "{open:#?}");
    assert!(month.site.succeed(&["bill", "list", "--tenant", "acme"]).contains("closed"));
    let audit = month.site.lastmile(&["--json", "audit", "verify"]);
    let audited: Value = serde_json::from_slice(&audit.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&audit.stderr)));
    assert_eq!(audit.status.code(), Some(3), "{audited:#}");
    let findings = audited["findings"].as_array().expect("findings");
    let beyond: Vec<&Value> = findings.iter().filter(|one| one["what"] == "beyond 64 bits").collect();
    assert!(beyond.iter().all(|one| one["account"] == "usage") && !beyond.is_empty(), "{findings:#?}");
    let again = month.site.lastmile(&run);
    assert_eq!(again.status.code(), Some(1), "they are tried again");
    let again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!((&again["lines"], &again["batch"]), (&json!([]), &Value::Null), "and nobody is billed twice");

    // With prices that can be computed those are billed whose usage can be counted.
    let mended = DEAR.replace("version = 1", "version = 2\nretroactive = true").replace("1000000000000", "1");
    std::fs::write(month.site.path("mended.toml"), mended).expect("a catalog");
    month.site.succeed(&["catalog", "apply", &month.site.path("mended.toml").display().to_string()]);
    let last = month.site.lastmile(&run);
    let said = String::from_utf8_lossy(&last.stderr).into_owned();
    assert_eq!(last.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains("was not billed")).count(), 1, "{said}");
    let last: Value = serde_json::from_slice(&last.stdout).expect("JSON");
    let billed: BTreeSet<&str> =
        last["lines"].as_array().expect("lines").iter().map(|line| text(line, "account")).collect();
    assert!(billed.contains("amount") && billed.contains("lines") && !billed.contains("usage"), "{billed:?}");
}
