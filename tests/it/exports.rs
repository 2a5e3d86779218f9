//! Lines given back: a batch's manifest, pulling without a gap, files in a source's own words that appear once and whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use lastmile::store::billing::{self, Closing, LineFilter, Place};
use lastmile::vocabulary::Period;
use serde_json::{Value, json};

use crate::fold::{Bench, on_postgres};
use crate::harness::acme::{CATALOG, Report, internet, last_period, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::{run, wait_for};

const SOON: Duration = Duration::from_secs(90);
const RUN: [&str; 6] = ["bill", "run", "--tenant", "acme", "--cycle", "c15"];

fn billed(site: &Site, daemon: &Daemon, accounts: u32) -> Value {
    let key = site.key("acme", "admin");
    let (start, _) = last_period(Timestamp::now());
    for number in 1..=accounts {
        let mut body = internet(number);
        body["services"][0]["billing_from"] = json!(start.strftime("%Y-%m-%d").to_string());
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/a{number}"), Some(&body));
        assert!(answer.status < 300, "{} {}", answer.status, answer.body);
    }
    site.json(&RUN)
}

#[test]
fn a_batch_has_a_manifest_of_its_octets_and_is_pulled_by_place_on_sqlite() {
    manifest(Site::sqlite());
}

#[test]
fn a_batch_has_a_manifest_of_its_octets_and_is_pulled_by_place_on_postgresql() {
    manifest(Site::postgres());
}

fn manifest(site: Site) {
    site.prepare(CATALOG);
    let daemon = site.start();
    let made = billed(&site, &daemon, 5);
    let (key, batch) = (site.key("acme", "billing"), made["batch"].as_str().expect("a batch").to_owned());
    let shown = daemon.api(&key, "GET", &format!("acme/batches/{batch}"), None).json();
    let lines = daemon.api(&key, "GET", &format!("acme/batches/{batch}/lines"), None);
    let path = site.path("lines.jsonl");
    fs::write(&path, &lines.body).expect("a file");
    let digest = run("coreutils", "sha256sum", &[&path.display().to_string()]);
    let digest = String::from_utf8_lossy(&digest.stdout);
    assert_eq!(shown["sha256"], json!(digest.split(' ').next()), "{shown}");
    assert_eq!(shown["lines"], json!(lines.body.lines().count()));
    let events = daemon.api(&key, "GET", "acme/events?type=invoice_batch.closed", None).json();
    assert_eq!(events["items"][0]["data"]["sha256"], shown["sha256"], "{events}");

    // The same lines by pages, and the place after the last stays good.
    let all: Vec<Value> = lines.body.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let (mut pulled, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = daemon.api(&key, "GET", &format!("acme/invoice-lines?limit=2&{cursor}"), None).json();
        pulled.extend(page["items"].as_array().expect("items").clone());
        cursor = format!("cursor={}", page["cursor"].as_str().expect("a place"));
        if page["next"].is_null() {
            break;
        }
    }
    assert_eq!(pulled, all);
    let nothing = daemon.api(&key, "GET", &format!("acme/invoice-lines?{cursor}"), None).json();
    assert_eq!(
        (&nothing["items"], format!("cursor={}", nothing["cursor"].as_str().unwrap_or_default())),
        (&json!([]), cursor)
    );
    let wrong = daemon.api(&key, "GET", "acme/invoice-lines?cursor=il_1", None);
    assert_eq!(wrong.status, 400);
    assert_eq!(daemon.api(&key, "POST", &format!("acme/batches/{batch}/ack"), None).status, 200);
    assert_eq!(daemon.api(&key, "GET", "acme/batches/nobodys", None).status, 404);
}

#[test]
fn whoever_pulls_while_batches_close_misses_no_line_on_postgresql() {
    on_postgres(|bench| Box::pin(pull_while_closing(bench)));
}

/// Several closings at once, some of which wait in the middle, and one that pulls all the time.
async fn pull_while_closing(bench: Bench) {
    const RUNS: i64 = 12;
    let at = |micros: i64| Timestamp::from_microsecond(micros).expect("an instant");
    bench.account("ada@acme").await;
    let mut closings = Vec::new();
    for run in 1..=RUNS {
        let store = bench.store.clone();
        closings.push(tokio::spawn(async move {
            // Later ones have smaller ids: by id they would stand behind whoever has pulled the earlier ones.
            let id = format!("acme.c1.{:02}", RUNS - run);
            let period = Period { start: at(run), end: at(run + 1), timezone: "UTC".into() };
            let row = crate::exports::row(&id, period, run);
            let mut tx = store.write().await.expect("a transaction");
            billing::begin_batch(&mut tx, &row).await.expect("begun");
            tx.commit().await.expect("committed");
            for part in 0..3 {
                let mut tx = store.write().await.expect("a transaction");
                crate::exports::plant(&mut tx, &id, &format!("il_{:02}_{part}", RUNS - run)).await;
                tx.commit().await.expect("committed");
            }
            let mut tx = store.write().await.expect("a transaction");
            let closing = Closing { lines: 3, totals: "[]", handshakes: "[]", digest: "00" };
            billing::close_batch(&mut tx, &id, &closing, at(run)).await.expect("closed");
            tokio::time::sleep(Duration::from_millis(u64::try_from(run % 4).unwrap_or(0) * 20)).await;
            tx.commit().await.expect("committed");
        }));
    }
    let (mut seen, mut place) = (Vec::new(), Place::default());
    let filter = LineFilter { tenant: Some("acme".into()), limit: 2, ..LineFilter::default() };
    loop {
        let done = closings.iter().all(tokio::task::JoinHandle::is_finished);
        let mut tx = bench.store.read().await.expect("a transaction");
        let page = billing::pull(&mut tx, &filter, &place).await.expect("lines");
        match page.last() {
            Some(last) => place = last.place.clone(),
            None if done => break,
            None => {}
        }
        seen.extend(page.into_iter().map(|pulled| pulled.place.line));
    }
    for closing in closings {
        closing.await.expect("it closed");
    }
    let distinct: BTreeSet<&String> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (3 * RUNS as usize, 3 * RUNS as usize), "each once, none missed");
}

fn row(id: &str, period: Period, run: i64) -> billing::BatchRow {
    billing::BatchRow {
        id: id.to_owned(),
        tenant: "acme".into(),
        cycle: "c1".into(),
        created_at: period.start,
        period,
        run,
        state: "building".into(),
        lines: 0,
        totals: "[]".into(),
        handshakes: None,
        digest: None,
        closed_digest: None,
        closed_at: None,
        acknowledged_at: None,
        checked_at: None,
        approved_at: None,
        approved_by: None,
    }
}

/// A line of account 7.
async fn plant(tx: &mut lastmile::store::Tx, batch: &str, id: &str) {
    let line = json!({
        "line": {
            "id": id, "tenant": "acme", "account": "7", "service": null, "charge": "access", "kind": "recurring", "cycle": "c1",
            "period": { "start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z", "timezone": "UTC" },
            "tariff": { "id": "res", "version": 1, "digest": "0" }, "description": "x", "quantity_raw": "1", "quantity": "1",
            "unit": "", "allowance_used": "0", "tiers": [], "adjustments": [], "amount_exact": "1", "amount": "1.00",
            "rounding_residue": "0", "tax": [], "currency": "USD", "corrects": null, "usage": null, "batch": batch,
            "created_at": "2026-12-01T00:00:00Z"
        },
        "basis": {
            "source": "default", "addon": null, "revision": 0, "coverage": [], "share": "1/1", "cycle_index": 0,
            "tax_exempt": false, "times": 1, "events": 0, "quantity_raw": 0, "quantity": "1/1", "allowance_used": "0/1",
            "amount_exact": "1/1", "amount_minor": 100, "taxes": [], "inputs": "0"
        }
    });
    let stored = serde_json::from_value(line.clone()).expect("a line");
    let new = billing::NewLine { account_id: 7, stored, amount_minor: 100, document: line.to_string() };
    billing::insert_lines(tx, (batch, "acme", "c1"), &[new]).await.expect("written");
}

#[test]
fn a_closed_batch_becomes_a_file_once_and_whole_also_after_kill_on_sqlite() {
    files(Site::sqlite());
}

#[test]
fn a_closed_batch_becomes_a_file_once_and_whole_also_after_kill_on_postgresql() {
    files(Site::postgres());
}

fn files(site: Site) {
    let folder = site.path("spool");
    fs::create_dir(&folder).expect("a folder");
    let directory = folder.display();
    site.edit(
        "[log]",
        &format!(
            "[[export]]\ntenant = \"acme\"\nname = \"books\"\nprofile = \"quickbooks\"\nout = \"iif\"\ndirectory = \"{directory}\"\n\
             [[export]]\ntenant = \"acme\"\nname = \"omnia\"\nprofile = \"omnia360\"\nout = \"lines\"\ndirectory = \"{directory}\"\n[log]"
        ),
    );
    let known = site.json(&["profile", "list"]);
    let omnia = known.as_array().expect("profiles").iter().find(|one| one["name"] == "omnia360").expect("omnia360");
    site.edit("out = \"lines\"", &format!("out = {}", omnia["out"][0]));
    site.prepare(CATALOG);
    let daemon = site.start();
    wait_for("the outlets are there", SOON, || {
        (site.json(&["webhook", "list"]).as_array().map(Vec::len) == Some(2)).then_some(())
    });
    let made = billed(&site, &daemon, 3);
    let batch = made["batch"].as_str().expect("a batch").to_owned();
    wait_for("both files and their manifests are there", SOON, || (names(&folder).len() == 4).then_some(()));
    let iif = folder.join(format!("quickbooks-{batch}.iif"));
    let text = fs::read_to_string(&iif).expect("the file");
    assert_eq!(text.matches("\nTRNS\t").count(), made["lines"].as_array().expect("lines").len(), "{text}");
    let manifest: Value = serde_json::from_str(
        &fs::read_to_string(folder.join(format!("quickbooks-{batch}.iif.manifest.json"))).expect("one"),
    )
    .expect("JSON");
    let digest = run("coreutils", "sha256sum", &[&iif.display().to_string()]);
    assert_eq!(manifest["sha256"], json!(String::from_utf8_lossy(&digest.stdout).split(' ').next()), "{manifest}");
    assert_eq!(
        (&manifest["batch"], &manifest["documents"]),
        (&json!(batch), &json!(made["lines"].as_array().map(Vec::len)))
    );

    // The command writes the same octets.
    let printed = site.succeed(&[
        "export",
        "lines",
        "--tenant",
        "acme",
        "--profile",
        "quickbooks",
        "--out",
        "iif",
        "--batch",
        &batch,
    ]);
    assert_eq!(printed, text);

    // Taken away by whoever reads them: asking again does not bring them back under the same names.
    wait_for("it is recorded", SOON, || {
        let listed = site.json(&["webhook", "list"]);
        listed.as_array().is_some_and(|all| all.iter().all(|one| one["delivered"] == 1)).then_some(())
    });
    for name in names(&folder) {
        fs::remove_file(folder.join(name)).expect("taken");
    }
    let event = daemon.api(&site.key("acme", "read"), "GET", "acme/events?type=invoice_batch.closed", None).json();
    let number = event["items"][0]["sequence"].to_string();
    site.succeed(&["webhook", "replay", "export.acme.books", "--event", &number]);
    wait_for("it was looked at", SOON, || {
        let listed = site.json(&["webhook", "deliveries", "export.acme.books"]);
        (listed[0]["state"] == "delivered").then_some(())
    });
    assert_eq!(names(&folder), Vec::<String>::new());

    // Killed after the whole file stood beside its place, before it was put there.
    let again = |state: &str| {
        let statement = format!("UPDATE export_file SET state = '{state}' WHERE outlet = 'export.acme.books'");
        sql(&site, &statement);
    };
    daemon.kill();
    fs::write(folder.join(format!(".quickbooks-{batch}.iif.partial")), &text).expect("as it stood");
    fs::write(folder.join(format!(".quickbooks-{batch}.iif.manifest.json.partial")), "{}").expect("as it stood");
    again("writing");
    let _daemon = site.start();
    site.succeed(&["webhook", "replay", "export.acme.books", "--event", &number]);
    wait_for("it is put there", SOON, || (names(&folder).len() == 2).then_some(()));
    assert_eq!(fs::read_to_string(&iif).expect("the file"), text);
    wait_for("nothing is left over", SOON, || {
        let left: Vec<PathBuf> = fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
        (left.len() == 2).then_some(())
    });
}

/// What a reader of the folder sees: names that do not begin with a dot.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn sql(site: &Site, statement: &str) {
    let text = fs::read_to_string(&site.config).expect("the configuration");
    let url =
        text.lines().find(|line| line.starts_with("url = ")).and_then(|line| line.split('"').nth(1)).expect("a URL");
    let output = match url.strip_prefix("sqlite://") {
        Some(path) => run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", path, statement]),
        None => run("postgresql", "psql", &["-q", "-c", statement, url]),
    };
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn lines_carry_the_name_the_network_knows_and_cells_are_safe_in_a_spreadsheet() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let daemon = site.start();
    billed(&site, &daemon, 2);
    let csv = site.succeed(&["export", "lines", "--format", "csv"]);
    let (head, first) = (csv.lines().next().unwrap_or_default(), csv.lines().nth(1).unwrap_or_default());
    assert!(head.ends_with(",username,number"), "{head}");
    assert!(first.contains("@acme"), "{first}");
    let lines = site.succeed(&["export", "lines", "--format", "jsonl"]);
    let line: Value = serde_json::from_str(lines.lines().next().unwrap_or_default()).expect("a line");
    assert!(line["username"].as_str().is_some_and(|name| name.ends_with("@acme")), "{line}");
    assert_eq!(line["source"], "default");

    // What a stranger named is shown, whoever opens the table.
    let key = site.key("acme", "admin");
    let credit = json!({"type": "credit", "id": "cr1", "amount": "1.00", "tariff": "res-100", "description": "=1+1",
        "on": last_period(Timestamp::now()).0.to_string()});
    let posted = daemon.api(&key, "POST", "acme/accounts/a1/charges", Some(&credit));
    assert!(posted.status < 300, "{}", posted.body);
    let batch = site.json(&RUN)["batch"].as_str().expect("a batch").to_owned();
    let start = Report {
        user: "@SUM(A1)",
        session: "=cmd|' /C calc'!A0",
        kind: "Start",
        at: Timestamp::now(),
        seconds: 0,
        in_octets: 0,
        out_octets: 0,
    };
    assert!(radclient(site.radius_port, &start), "the collector answers");
    let sessions = wait_for("the session is there", SOON, || {
        Some(site.succeed(&["export", "sessions", "--format", "csv"])).filter(|text| text.contains("calc"))
    });
    assert!(sessions.contains("'@SUM(A1),'=cmd|' /C calc'!A0,"), "{sessions}");
    let csv = site.succeed(&["export", "lines", "--tenant", "acme", "--batch", &batch]);
    assert!(csv.contains("'=1+1") && csv.contains(",-1.00,"), "{csv}");
    // Every ready-made file takes what is the account's alone, and books add up.
    let file = |profile: &str, out: &str| {
        let words = ["--tenant", "acme", "--batch", &batch, "--profile", profile, "--out", out];
        site.succeed(&[&["export", "lines"], &words[..]].concat())
    };
    for (profile, out) in [
        ("billmax-service", "cdr"),
        ("freeside-acct", "cdr"),
        ("splynx-service", "cdr"),
        ("omnia360", "charges"),
        ("icoms", "charges"),
        ("azar", "charges"),
        ("homegrown-csv", "bill"),
        ("homegrown-csv", "iif"),
    ] {
        let text = file(profile, out);
        assert!(text.contains("1.00") || text.contains("1,00"), "{profile}: {text}");
    }
    for (profile, out) in [("killbill", "usage"), ("lago", "events")] {
        assert_eq!(file(profile, out), "", "a credit is no usage");
    }
    let books = file("ledger", "csv");
    let rows: Vec<Vec<&str>> = books.lines().map(|row| row.split(',').collect()).collect();
    let cents = |row: &Vec<&str>, place: usize| row[place].replace('.', "").parse::<i64>().unwrap_or(0);
    let entries = &rows[1..rows.len() - 1];
    let (debit, credit): (i64, i64) =
        entries.iter().fold((0, 0), |(debit, credit), row| (debit + cents(row, 4), credit + cents(row, 5)));
    assert_eq!((debit, credit), (110, 110), "1.00 and a tax of 10 %: {books}");
    assert_eq!((rows[rows.len() - 1][4], entries.len()), ("-1.10", 3), "{books}");
    let iif = file("quickbooks", "iif");
    assert!(iif.contains("TRNS\tCREDIT MEMO\t") && iif.contains("\tSales Tax Payable\ta1\t0.10\t"), "{iif}");
}
