//! A closed period that proves itself: simulated at other prices, explained from the journal, packed for a dispute, and
//! every octet on its way from the records to the lines; on both databases, with planted faults.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::harness::acme::{CATALOG, HOUSEHOLD, Report, household, last_period, midnight, radclient};
use crate::harness::daemon::Site;
use crate::harness::wait_for;

const GIGABYTE: u64 = 1_000_000_000;
const SOON: Duration = Duration::from_secs(60);

#[test]
fn closed_period_proves_itself_on_sqlite() {
    journey(&Site::sqlite());
}

#[test]
fn closed_period_proves_itself_on_postgres() {
    journey(&Site::postgres());
}

fn journey(site: &Site) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, end) = last_period(Timestamp::now());
    let path = format!("acme/accounts/{HOUSEHOLD}");
    assert_eq!(daemon.api(&key, "PUT", &path, Some(&household(start))).status, 201);
    let usage = a_period_with_a_late_record_is_closed(site, end, &start.to_string());
    let [first, correction] = [&usage[0], &usage[1]];

    for line in [first, correction] {
        explains_itself_from_the_journal(site, line);
    }
    let http = daemon.api(&key, "GET", &format!("acme/invoice-lines/{first}/explain"), None);
    let plain = site.json(&["line", "explain", first]);
    assert_eq!((http.status, http.json()), (200, plain), "HTTP and the command line say the same");
    let pack = site.path("pack");
    site.succeed(&["line", "explain", first, "--pack", &pack.display().to_string()]);
    a_pack_verifies_without_us_and_one_octet_less_does_not(&pack);
    let pack = site.path("pack-of-a-correction");
    site.succeed(&["line", "explain", correction, "--pack", &pack.display().to_string()]);
    assert_eq!(verify(&pack).0, Some(0), "{}", verify(&pack).1);
    let lines = site.json(&["line", "list", "--tenant", "acme", "--account", HOUSEHOLD]);
    let lines = lines["items"].as_array().expect("lines");
    let access = lines.iter().find(|line| line["charge"] == "access").and_then(|line| line["id"].as_str());
    let pack = site.path("pack-of-a-fixed-price");
    site.succeed(&["line", "explain", access.expect("a line"), "--pack", &pack.display().to_string()]);
    assert_eq!(verify(&pack).0, Some(0), "{}", verify(&pack).1);

    other_prices_are_simulated_and_the_old_ones_reproduce_the_lines(site, &start.to_string());
    what_accounting_missed_is_found(site, start, end);
    daemon.stop();
    every_octet_has_a_term_and_planted_faults_are_seen(site, first);
}

/// 17 GB before the period's end, 5 GB after it, one more of the closed period late. Gives the usage lines' ids.
fn a_period_with_a_late_record_is_closed(site: &Site, end: Date, period: &str) -> [String; 2] {
    let edge = midnight(end);
    let report = |session: &'static str, kind: &'static str, hours: i64, gigabytes: (u64, u64)| Report {
        user: "ada@acme",
        session,
        kind,
        at: edge + hours.hours(),
        seconds: u64::try_from((hours + 30) * 3600).expect("after the start"),
        in_octets: gigabytes.0 * GIGABYTE,
        out_octets: gigabytes.1 * GIGABYTE,
    };
    for (kind, hours, gigabytes) in
        [("Start", -30, (0, 0)), ("Interim-Update", -1, (3, 9)), ("Interim-Update", -1, (3, 9)), ("Stop", 1, (7, 15))]
    {
        assert!(radclient(site.radius_port, &report("s-1", kind, hours, gigabytes)));
    }
    // A stranger's session, and one that nobody has ever held the name of.
    let stranger = Report { user: "nobody@elsewhere", ..report("s-9", "Stop", -29, (1, 0)) };
    assert!(radclient(site.radius_port, &stranger));
    let folded = |count: usize| {
        wait_for("the sessions are folded", SOON, || {
            let sessions = site.json(&["session", "list"]);
            let sessions = sessions.as_array().expect("sessions").clone();
            let over = sessions.iter().filter(|session| session["state"] == "stopped").count();
            (over == count).then_some(())
        });
    };
    folded(2);
    let run = ["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", period];
    let usage = |closed: &Value| {
        let lines = closed["lines"].as_array().expect("lines");
        let usage = lines.iter().find(|line| line["charge"] == "data").expect("a usage line");
        (usage["id"].as_str().expect("an id").to_owned(), usage["amount"].clone())
    };
    let (first, amount) = usage(&site.json(&run));
    assert_eq!(amount, "3.00");
    let late = Report { seconds: 600, ..report("s-0", "Stop", -5, (1, 0)) };
    assert!(radclient(site.radius_port, &late));
    folded(3);
    let (correction, amount) = usage(&site.json(&run));
    assert_eq!(amount, "0.25");
    [first, correction]
}

fn explains_itself_from_the_journal(site: &Site, line: &str) {
    let explained = site.json(&["line", "explain", line, "--from-journal"]);
    assert_eq!((&explained["differences"], &explained["journal"]["differences"]), (&json!([]), &json!([])));
    let journal = &explained["journal"];
    let entries = journal["entries"].as_array().expect("entries");
    let octets = |entry: &Value| {
        entry["in_octets"].as_i64().expect("a number") + entry["out_octets"].as_i64().expect("a number")
    };
    let counted: i64 = entries.iter().map(octets).sum();
    assert_eq!(counted.to_string(), journal["recomputed"]["quantity_raw"].as_str().expect("a text"));
    assert_eq!(journal["recomputed"]["amount_exact"], explained["recomputed"]["amount_exact"]);
    let records: Vec<&str> =
        journal["records"].as_array().expect("records").iter().filter_map(|record| record["record"].as_str()).collect();
    for entry in entries {
        let made_by = entry["records"].as_array().expect("records of an entry");
        assert!(!made_by.is_empty(), "{entry}");
        assert!(made_by.iter().all(|place| records.contains(&place.as_str().expect("a place"))), "{entry}");
    }
}

fn a_pack_verifies_without_us_and_one_octet_less_does_not(pack: &Path) {
    let (code, said) = verify(pack);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("The line of 3.00 USD holds."), "{said}");
    let page = std::fs::read_to_string(pack.join("index.html")).expect("a page");
    for word in ["3.00 USD", "the same to the last digit", "up_to", "interim"] {
        assert!(page.contains(word), "{word} is not on the page");
    }
    assert!(!page.contains("src=") && !page.contains("http"), "nothing on the page is from elsewhere");
    // Whoever changes a file changes the manifest too: what the files say must not fit either.
    let replaced = |from: &'static str, to: &'static str| {
        move |whole: &[u8]| {
            let place = whole.windows(from.len()).position(|some| some == from.as_bytes()).expect("it is there");
            [&whole[..place], to.as_bytes(), &whole[place + from.len()..]].concat()
        }
    };
    let one_octet_more = |whole: &[u8]| {
        let text = std::str::from_utf8(whole).expect("UTF-8");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut fields: Vec<String> = lines[1].split(',').map(str::to_owned).collect();
        fields[4] = (fields[4].parse::<u64>().expect("octets") + 1).to_string();
        lines[1] = fields.join(",");
        (lines.join("\n") + "\n").into_bytes()
    };
    type Plant<'p> = (&'p str, &'p dyn Fn(&[u8]) -> Vec<u8>);
    let plants: [Plant<'_>; 4] = [
        ("ledger.csv", &one_octet_more),
        ("line.json", &replaced("\"amount\": \"3.00\"", "\"amount\": \"3.01\"")),
        ("tariff.toml", &replaced("0.25", "0.26")),
        ("records.bin", &replaced("s-1", "s-2")),
    ];
    for (name, plant) in plants {
        let path = pack.join(name);
        let whole = std::fs::read(&path).expect("a file of the pack");
        let changed = plant(&whole);
        std::fs::write(&path, &changed).expect("a file of the pack");
        assert_eq!(verify(pack).0, Some(1), "{name} is changed");
        let manifest = std::fs::read_to_string(pack.join("manifest.sha256")).expect("a manifest");
        std::fs::write(pack.join("manifest.sha256"), forged(pack, &manifest)).expect("a manifest");
        let (code, said) = verify(pack);
        let told = said.contains("DOES NOT HOLD");
        assert_eq!((code, told), (Some(1), true), "{name} is changed, and the manifest with it:\n{said}");
        std::fs::write(&path, &whole).expect("a file of the pack");
        std::fs::write(pack.join("manifest.sha256"), &manifest).expect("a manifest");
    }
    assert_eq!(verify(pack).0, Some(0), "whole again");
}

/// The manifest as it would be of the files as they are.
fn forged(pack: &Path, manifest: &str) -> String {
    let names: Vec<&str> = manifest.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
    let output = Command::new("sha256sum").args(&names).current_dir(pack).output().expect("sha256sum runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn verify(pack: &Path) -> (Option<i32>, String) {
    let output = Command::new("python3").arg("verify.py").current_dir(pack).output().expect("python3 runs");
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn other_prices_are_simulated_and_the_old_ones_reproduce_the_lines(site: &Site, period: &str) {
    let section = CATALOG.split("[[tariff]]\n").find(|section| section.starts_with("id = \"res-100\""));
    let old = section.expect("the tariff").replace("[[tariff.", "[[").replace("[tariff.", "[");
    let file = site.path("tariff.toml");
    let file_name = file.display().to_string();
    let simulate = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).expect("a tariff file");
        let order = ["tariff", "simulate", &file_name, "--tenant", "acme", "--cycle", "c15", "--period", period];
        site.json(&[&order[..], more].concat())
    };
    let same = simulate(&old, &[]);
    assert_eq!(same["control"], json!({"accounts": 1, "differ": 0, "failed": 0}), "{same:#}");
    let amounts = &same["totals"]["amounts"][0];
    assert_eq!((&amounts["difference"], &same["totals"]["compared"]), (&json!("0.00"), &json!(1)), "{same:#}");
    // 49.95 + 3.25 of usage with 10 % on each, 15.00 for the voice line, 2.00 for the mailbox.
    assert_eq!(amounts["before"], "75.53", "{same:#}");
    let dearer = old.replace("version = 1", "version = 2").replace("49.95", "59.95").replace("0.25", "0.50");
    let found = simulate(&dearer, &["--best-plan"]);
    // 10.00 more for access and its tax, 8 GB at 0.50 instead of 3.25 and its tax.
    assert_eq!(found["totals"]["amounts"][0]["difference"], "11.82", "{found:#}");
    let account = &found["accounts"][0];
    assert_eq!(account["items"].as_array().map(Vec::len), Some(2), "{account:#}");
    let best = account["best_plans"].as_array().expect("plans");
    let internet = best.iter().find(|best| best["service"] == "100234-1").expect("the internet service");
    assert_eq!(internet["plan"], internet["best_plan"], "its only rival has the same tariff");
}

fn what_accounting_missed_is_found(site: &Site, start: Date, end: Date) {
    let period = start.to_string();
    let ask = ["--json", "audit", "completeness", "--tenant", "acme", "--cycle", "c15", "--period", &period];
    let answer = || {
        let output = site.lastmile(&ask);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (output.status.code(), document)
    };
    let (code, found) = answer();
    // 29 hours lie between the Start and the first report, two between it and the Stop: their octets are counted.
    assert_eq!((code, &found["kinds"]["between_reports"]["findings"]), (Some(3), &json!(2)), "{found:#}");
    assert_eq!(found["amounts"], json!([]), "counted octets are worth nothing more: {found:#}");
    // A modem that had an address for ten hours, days before its first session.
    let since = (midnight(end) - 240.hours()).as_microsecond();
    let hours = |hours: i64| since + hours * 3_600_000_000;
    sql(
        site,
        &format!(
        "INSERT INTO address_lease (address, mac, kind, relay, cmts, since_at, seen_at, until_at, lease_seconds, ended)
         VALUES ('10.9.8.7', '00:11:22:33:44:55', 'cm', '10.0.0.1', 'cmts1', {since}, {}, {}, 3600, FALSE)",
        hours(10),
        hours(11)
    ),
    );
    sql(site, &format!("UPDATE holder SET from_at = {since} WHERE kind = 'mac'"));
    let (code, found) = answer();
    let online = found["findings"].as_array().expect("findings");
    let online: Vec<&Value> = online.iter().filter(|found| found["what"] == "online_without_accounting").collect();
    assert_eq!((code, online.len()), (Some(3), 1), "{found:#}");
    assert_eq!((&online[0]["subject"], &online[0]["seconds"]), (&json!("00:11:22:33:44:55"), &json!(36_000)));
    // 18 GB in 30 hours and ten minutes of sessions: about 6 GB in ten hours, at 0.25 and the tax.
    let octets = online[0]["octets"].as_i64().expect("a number");
    assert!((5_900_000_000..6_000_000_000).contains(&octets), "{octets}");
    assert_eq!(online[0]["amount"], "1.63", "{found:#}");
}

fn every_octet_has_a_term_and_planted_faults_are_seen(site: &Site, line: &str) {
    let audit = || {
        let output = site.lastmile(&["--json", "audit", "verify"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (output.status.code(), document)
    };
    let (code, clean) = audit();
    assert_eq!(code, Some(0), "{clean:#}");
    let rows = clean["octets"].as_array().expect("rows");
    let row = |tenant: &Value, raw: u64| {
        let found = rows.iter().find(|row| row["tenant"] == *tenant && row["raw"] == json!(raw * GIGABYTE));
        found.unwrap_or_else(|| panic!("no row of {raw} GB: {rows:#?}")).clone()
    };
    let closed = row(&json!("acme"), 18);
    let term = |row: &Value, name: &str| row[name].as_i64().expect("a number");
    assert_eq!((term(&closed, "allowance"), term(&closed, "billed")), (10_000_000_000, 8_000_000_000));
    assert_eq!(term(&row(&json!("acme"), 5), "not_billed"), 5_000_000_000);
    assert_eq!(term(&row(&Value::Null, 1), "unattributed"), 1_000_000_000);
    assert!(rows.iter().all(|row| row["difference"] == json!(0)), "{rows:#?}");

    let undo = [
        (
            "a lost entry",
            "CREATE TABLE kept AS SELECT * FROM ledger WHERE sequence = 1",
            "DELETE FROM ledger WHERE sequence = 1",
            "INSERT INTO ledger SELECT * FROM kept",
        ),
        (
            "an invented entry",
            "DROP TABLE kept",
            "INSERT INTO ledger (account_id, sequence, service_id, session_id, from_at, until_at, in_octets, out_octets,
              seconds, sessions, cause, recorded_at)
             SELECT account_id, 9999, service_id, 424242, from_at, until_at, in_octets, out_octets, seconds, sessions, cause,
              recorded_at FROM ledger WHERE sequence = 1",
            "DELETE FROM ledger WHERE sequence = 9999",
        ),
        (
            "octets of a line",
            "CREATE TABLE kept AS SELECT * FROM line",
            "UPDATE line SET document = REPLACE(document, '\"quantity_raw\":17000000000', '\"quantity_raw\":17000000001')",
            "UPDATE line SET document = (SELECT document FROM kept WHERE kept.id = line.id)",
        ),
        (
            "the amount of a line",
            "SELECT 1",
            "UPDATE line SET document = REPLACE(document, '\"amount\":\"3.00\"', '\"amount\":\"3.01\"')",
            "UPDATE line SET document = (SELECT document FROM kept WHERE kept.id = line.id)",
        ),
    ];
    for (name, before, plant, after) in undo {
        sql(site, before);
        sql(site, plant);
        let (code, found) = audit();
        assert_eq!((code, &found["equal"]), (Some(3), &json!(false)), "{name}: {found:#}");
        let named = !found["findings"].as_array().expect("findings").is_empty()
            || found["faults"].as_array().expect("faults").iter().any(|fault| {
                fault["account"] == format!("default/{HOUSEHOLD}") && (fault["line"] == line || fault["line"].is_null())
            });
        assert!(named, "{name} is named: {found:#}");
        sql(site, after);
    }
    let (code, mended) = audit();
    assert_eq!(code, Some(0), "{mended:#}");
    let page = site.succeed(&["audit", "verify"]);
    assert!(page.contains("add up to the octet, 0 do not"), "{page}");
}

fn sql(site: &Site, statement: &str) {
    let text = std::fs::read_to_string(&site.config).expect("the configuration");
    let url = text.lines().find(|line| line.starts_with("url = ")).and_then(|line| line.split('"').nth(1));
    let url = url.expect("the database's URL").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        if url.starts_with("postgres") {
            let mut c = sqlx::PgConnection::connect(&url).await.expect("connects");
            sqlx::query(statement).execute(&mut c).await.expect("a statement of the test");
        } else {
            let mut c = sqlx::SqliteConnection::connect(&url).await.expect("connects");
            sqlx::query(statement).execute(&mut c).await.expect("a statement of the test");
        }
    });
}
