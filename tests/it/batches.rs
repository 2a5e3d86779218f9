//! Bills before and around their closing: drafts that are checked and approved, the month's end, another system's lines, a
//! period rated anew; runs that are killed, and accounts that cannot be rated.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, internet, last_period};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::{long_or, run, wait_for};

const RUN: [&str; 6] = ["bill", "run", "--tenant", "acme", "--cycle", "c15"];
const CHECK: [&str; 6] = ["bill", "check", "--tenant", "acme", "--cycle", "c15"];
/// A killed run's claim ends within half a minute.
const CLAIM: Duration = Duration::from_secs(120);

#[test]
fn draft_is_checked_and_approved_before_anybody_pulls_it_on_sqlite() {
    draft_journey(&Site::sqlite());
}

#[test]
fn draft_is_checked_and_approved_before_anybody_pulls_it_on_postgres() {
    draft_journey(&Site::postgres());
}

fn draft_journey(site: &Site) {
    // Given: a cycle whose bills a person approves; one account is billed, one is pending and will never be.
    site.prepare(&CATALOG.replacen("close = \"manual\"", "close = \"manual\"\napproval = \"required\"", 1));
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    push(&daemon, &admin, 1, &billed(1, start));
    let mut free = billed(2, start);
    free["services"][0]["price_override"] = json!({"charge": "access", "amount": "0"});
    push(&daemon, &admin, 2, &free);

    // When: the cycle is run, the run leaves a draft that nobody pulls.
    let drafted = site.json(&RUN);
    let batch = drafted["batch"].as_str().expect("a batch").to_owned();
    let count = drafted["lines"].as_array().expect("lines").len();
    assert_eq!((&drafted["draft"], count > 2), (&json!(true), true), "{drafted:#}");
    assert_eq!(items(&daemon, &admin, "acme/invoice-lines").len(), 0);
    assert_eq!(items(&daemon, &admin, "acme/batches").len(), 0);
    assert_eq!(site.succeed(&["export", "lines"]).lines().count(), 1, "only the headings");
    let path = format!("acme/batches/{batch}/ack");
    assert_eq!(daemon.api(&admin, "POST", &path, None).status, 404, "a draft cannot be taken");
    // Who asks for drafts sees them.
    let asked = format!("acme/invoice-lines?batch={batch}&drafts=true");
    assert_eq!(items(&daemon, &admin, &asked).len(), count);
    assert_eq!(items(&daemon, &admin, "acme/batches?drafts=true")[0]["state"], "draft");

    // Each line of a draft can be explained before anybody approves it, by whoever has its id.
    for line in drafted["lines"].as_array().expect("lines") {
        let id = line["id"].as_str().expect("an id");
        let explained = site.json(&["line", "explain", id]);
        assert_eq!(explained["differences"], json!([]), "{explained:#}");
        let answer = daemon.api(&admin, "GET", &format!("acme/invoice-lines/{id}/explain"), None);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    // It cannot be approved before it was checked, and the check finds the free account.
    let early = site.lastmile(&["bill", "approve", &batch]);
    assert_eq!(early.status.code(), Some(3), "{}", String::from_utf8_lossy(&early.stderr));
    let checked = no(site, &CHECK);
    let found = checked["findings"].as_array().expect("findings");
    let kinds: Vec<&str> = found.iter().map(|one| one["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["zero_bill"], "{checked:#}");
    assert_eq!(found[0]["subject"], "default/a2");
    assert!(found[0]["advice"].as_str().is_some_and(|advice| !advice.is_empty()));
    let refused = daemon.api(&admin, "POST", &format!("acme/batches/{batch}/approve"), None);
    assert_eq!(refused.status, 409, "{}", refused.body);

    // A new run replaces the draft with the same lines.
    let again = site.json(&RUN);
    assert_eq!(facts(&again["lines"]), facts(&drafted["lines"]));
    // What was waived stays waived; then the draft is checked, approved, closed, and pulled.
    let id = found[0]["id"].as_str().expect("an id");
    let path = format!("acme/bill-findings/{id}/waive");
    let waived = daemon.api(&admin, "POST", &path, Some(&json!({"reason": "staff line"})));
    assert_eq!(waived.status, 200, "{}", waived.body);
    let passed = site.json(&CHECK);
    assert_eq!((&passed["passed"], &passed["batch"]["state"]), (&json!(true), &json!("checked")), "{passed:#}");
    let approved = daemon.api(&admin, "POST", &format!("acme/batches/{batch}/approve"), None);
    assert_eq!(approved.status, 200, "{}", approved.body);
    assert_eq!(items(&daemon, &admin, "acme/invoice-lines").len(), count);
    assert_eq!(items(&daemon, &admin, "acme/batches")[0]["state"], "closed");
    assert!(site.json(&RUN)["batch"].is_null(), "nothing is left to bill");
    let late = site.lastmile(&["bill", "discard", &batch]);
    assert_eq!(late.status.code(), Some(3), "a closed batch stays");
    daemon.stop();
}

/// Records that come late all the time keep some session asking to be folded anew, now more of them, now fewer.
#[test]
fn run_goes_on_while_sessions_never_cease_to_wait_to_be_folded_anew() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    push(&daemon, &admin, 1, &billed(1, start));
    for number in 1..=3 {
        crate::thresholds::report(site.radius_port, number, "Start", 0, 0);
    }
    wait_for("the sessions are folded", CLAIM, || {
        (site.json(&["session", "list"]).as_array().map(Vec::len) == Some(3)).then_some(())
    });
    daemon.stop();

    let ended = AtomicBool::new(false);
    let (output, went_on) = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let output = site.lastmile(&["--json", "bill", "run", "--tenant", "acme", "--cycle", "c15"]);
            ended.store(true, Ordering::SeqCst);
            output
        });
        let begun = Instant::now();
        for turn in 0.. {
            if ended.load(Ordering::SeqCst) || begun.elapsed() > CLAIM {
                break;
            }
            sqlite(&site, &format!("UPDATE session SET refold = id % 3 < {}", 1 + turn % 2));
            std::thread::sleep(Duration::from_millis(20));
        }
        let went_on = ended.load(Ordering::SeqCst);
        // Whoever waits still is let go.
        sqlite(&site, "UPDATE session SET refold = 0");
        (running.join().expect("no panic"), went_on)
    });
    assert!(went_on, "the run waits as long as any session asks");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let closed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(closed["lines"].as_array().is_some_and(|lines| !lines.is_empty()), "{closed:#}");
}

#[test]
fn discarded_draft_leaves_nothing_and_other_tenants_see_none() {
    let site = Site::sqlite();
    site.prepare(&CATALOG.replacen("close = \"manual\"", "close = \"manual\"\napproval = \"required\"", 1));
    std::fs::write(site.path("other.toml"), "[tenant]\nid = \"other\"\ncurrency = \"USD\"\ntimezone = \"UTC\"\n")
        .expect("a catalog");
    site.succeed(&["catalog", "apply", &site.path("other.toml").display().to_string()]);
    let (admin, other) = (site.key("acme", "admin"), site.key("other", "admin"));
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    push(&daemon, &admin, 1, &billed(1, start));
    let drafted = site.json(&RUN);
    let batch = drafted["batch"].as_str().expect("a batch").to_owned();
    for what in ["approve", "discard"] {
        let path = format!("other/batches/{batch}/{what}");
        assert_eq!(daemon.api(&other, "POST", &path, None).status, 404, "{what} of another tenant's");
    }
    let gone = daemon.api(&admin, "POST", &format!("acme/batches/{batch}/discard"), None);
    assert_eq!(gone.status, 200, "{}", gone.body);
    assert_eq!(items(&daemon, &admin, "acme/batches?drafts=true").len(), 0);
    assert_eq!(facts(&site.json(&RUN)["lines"]), facts(&drafted["lines"]));
    daemon.stop();
}

#[test]
fn every_difference_to_another_system_is_classified_until_none_is_left() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    for number in 1..=4 {
        push(&daemon, &admin, number, &billed(number, start));
    }
    let compare = |text: &str| -> (i32, Value) {
        let file = site.path("legacy.csv");
        std::fs::write(&file, text).expect("a file");
        let file = file.display().to_string();
        let output = site.lastmile(&[
            "--json",
            "bill",
            "compare",
            &file,
            "--tenant",
            "acme",
            "--cycle",
            "c15",
            "--account",
            "customer",
            "--charge",
            "item",
        ]);
        let code = output.status.code().unwrap_or(-1);
        (code, serde_json::from_slice(&output.stdout).expect("JSON"))
    };
    // Every row that cannot be read is named, the first hundred of them; nothing is compared.
    let many: String = (0..120).map(|row| format!("a{row},access,1.234\n")).collect();
    for (rows, faults, rest) in
        [("a1,access,x\na2,access,1.00\na3,access,,9\na4,data,1.005\n", 3, None), (&many, 120, Some("and 20 more"))]
    {
        let file = site.path("bad.csv");
        std::fs::write(&file, format!("customer,item,amount\n{rows}")).expect("a file");
        let file = file.display().to_string();
        let arguments = ["--account", "customer", "--charge", "item"];
        let of = ["bill", "compare", &file, "--tenant", "acme", "--cycle", "c15"];
        let output = site.lastmile(&[&of[..], &arguments[..]].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("{faults} faults; nothing was compared")), "{told}");
        assert_eq!(told.matches("line ").count(), faults.min(100), "{told}");
        assert_eq!(told.contains("more"), rest.is_some(), "{told}");
        assert!(rest.is_none_or(|rest| told.contains(rest)), "{told}");
    }
    // Before anything is closed, a preview is compared; with the same amounts nothing differs. Two months of access each.
    let same = "customer,item,amount\na1,access,99.90\na1,data,0\na2,access,99.90\na2,data,0\n\
                a3,access,99.90\na3,data,0\na4,access,99.90\na4,data,0\n";
    let (code, told) = compare(same);
    assert_eq!((code, &told["findings"]), (0, &json!([])), "{told:#}");

    site.json(&RUN);
    let other = same
        .replace("a1,access,99.90", "a1,access,99.90\na1,access,99.90")
        .replace("a2,access,99.90", "a2,access,109.90")
        .replace("a3,access,99.90\n", "")
        + "a9,access,49.95\n";
    let (code, told) = compare(&other);
    let mut found: Vec<String> = told["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|one| format!("{} {}", one["subject"].as_str().expect("a text"), one["kind"].as_str().expect("a text")))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "a1 access compare.duplicate",
            "a2 access compare.tax",
            "a3 access compare.missing_there",
            "a9 access compare.missing_here"
        ]
    );
    assert_eq!(code, 3);
    // What is accepted stays accepted.
    let ids: Vec<String> = told["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect();
    let mut waive = vec!["bill", "waive", "--reason", "the old system is wrong"];
    waive.extend(ids.iter().map(String::as_str));
    site.succeed(&waive);
    assert_eq!(compare(&other).0, 0);
    daemon.stop();
}

#[test]
fn account_that_cannot_be_read_stops_no_other_and_is_billed_when_it_can() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    for number in 1..=3 {
        push(&daemon, &admin, number, &billed(number, start));
    }
    sqlite(&site, "UPDATE service_history SET detail = 'x' || detail WHERE account_id = 2");
    let output = site.lastmile(&[&["--json"], &RUN[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("default/a2"), "it says which");
    let closed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let billed: Vec<&str> = closed["lines"].as_array().expect("lines").iter().map(account_of).collect();
    assert!(billed.contains(&"a1") && billed.contains(&"a3") && !billed.contains(&"a2"), "{billed:?}");
    let checked = no(&site, &CHECK);
    let kinds: Vec<&Value> = checked["findings"].as_array().expect("findings").iter().map(|one| &one["kind"]).collect();
    assert!(kinds.contains(&&json!("failed_account")), "{checked:#}");

    sqlite(&site, "UPDATE service_history SET detail = SUBSTR(detail, 2) WHERE account_id = 2");
    let mended = site.json(&RUN);
    assert!(mended["lines"].as_array().expect("lines").iter().all(|line| account_of(line) == "a2"), "{mended:#}");
    assert_eq!(site.json(&["exception", "list"]), json!([]), "and nobody need look at it any more");
    daemon.stop();
}

#[test]
fn run_killed_at_any_moment_and_repeated_has_the_same_lines_on_sqlite() {
    kill_and_repeat(&Site::sqlite());
}

#[test]
fn run_killed_at_any_moment_and_repeated_has_the_same_lines_on_postgres() {
    kill_and_repeat(&Site::postgres());
}

/// A cycle whose runs leave drafts can be run, discarded, and killed, as often as one likes; its last run is approved.
fn kill_and_repeat(site: &Site) {
    site.prepare(&CATALOG.replacen("close = \"manual\"", "close = \"manual\"\napproval = \"required\"", 1));
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    for number in 0..450 {
        push(&daemon, &admin, number, &billed(number, start));
    }
    let preview = site.json(&[&RUN[..], &["--dry-run"]].concat());
    let expected = facts(&preview["lines"]);
    assert!(expected.len() >= 900, "{}", expected.len());
    let mut moments = Moments::new("kill_and_repeat");
    let whole_or_not_there = || {
        assert!(items(&daemon, &admin, "acme/invoice-lines").is_empty(), "no line after a kill");
        assert!(items(&daemon, &admin, "acme/batches").is_empty(), "no half batch either");
        let drafts = items(&daemon, &admin, "acme/batches?drafts=true");
        drafts.iter().for_each(|draft| assert_eq!(draft["lines"], json!(expected.len()), "a draft is whole"));
        drafts
    };

    // Runs, and what throws a draft away: a kill finds them waiting for a dead one's claim, reading, writing, dropping.
    let (run_takes, first) = timed(|| made(site));
    let id = first["batch"].as_str().expect("a batch").to_owned();
    let discard = ["bill", "discard", id.as_str()];
    let (discard_takes, _) = timed(|| site.succeed(&discard));
    let (mut no_draft, mut thrown) = (0, 0);
    for _ in 0..long_or(80, 10) {
        moments.kill(site, &RUN, run_takes);
        no_draft += usize::from(whole_or_not_there().is_empty());
        if whole_or_not_there().is_empty() {
            made(site);
        }
        moments.kill(site, &discard, discard_takes);
        thrown += usize::from(whole_or_not_there().is_empty());
    }
    let draft = made(site);
    assert_eq!(facts(&draft["lines"]), expected, "byte for byte, but for the instant of the run");

    // Approval: the bills are all there or none of them, whenever it dies.
    site.json(&CHECK);
    let batch = draft["batch"].as_str().expect("a batch").to_owned();
    let approve = ["bill", "approve", batch.as_str()];
    let mut kills = 0;
    while kills < long_or(60, 10) {
        moments.kill(site, &approve, discard_takes);
        kills += 1;
        let lines = site.succeed(&["export", "lines"]).lines().count() - 1;
        let closed = items(&daemon, &admin, "acme/batches").len();
        assert_eq!(lines, closed * expected.len(), "every line or none");
        if closed == 1 {
            break;
        }
    }
    wait_for("it is approved", CLAIM, || site.lastmile(&approve).status.success().then_some(()));
    assert_eq!(site.succeed(&["export", "lines"]).lines().count(), expected.len() + 1, "every line once");
    assert!(site.json(&RUN)["batch"].is_null(), "nothing is left to bill");

    rerate_killed(site, &mut moments, &daemon, &admin, expected.len());
    println!(
        "PROOF {}: {} kills; {no_draft} runs left no draft, {thrown} drafts were thrown away, approved after {kills} kills",
        moments.name, moments.kills
    );
    daemon.stop();
}

/// A closed period that another program had rated too high: the differences are issued once, whenever the run that issues
/// them dies.
fn rerate_killed(site: &Site, moments: &mut Moments, daemon: &Daemon, admin: &str, lines: usize) {
    let (from, to) = ("\"amount_minor\":4995,\"taxes\"", "\"amount_minor\":5195,\"taxes\"");
    sql(
        site,
        &format!(
            "UPDATE line SET document = REPLACE(document, '{from}', '{to}'), amount_minor = 5195 WHERE charge = 'access'"
        ),
    );
    let rerate = ["bill", "rerate", "--tenant", "acme", "--cycle", "c15"];
    let approve = [&rerate[..], &["--approve"]].concat();
    let (takes, proposed) = timed(|| site.json(&rerate));
    let expected = facts(&proposed["lines"]);
    assert!(expected.len() >= 450, "{}", expected.len());
    let visible = || site.succeed(&["export", "lines"]).lines().count() - 1;
    for _ in 0..long_or(60, 8) {
        // As `run`, it leaves a draft where a person approves: no line shows before that.
        moments.kill(site, &approve, takes);
        assert_eq!(visible(), lines, "no difference shows before it is approved");
    }
    sql(site, "DELETE FROM claim");
    let issued = site.json(&approve);
    assert_eq!(facts(&issued["lines"]), expected, "what was proposed, byte for byte");
    let batch = issued["batch"].as_str().expect("a batch").to_owned();
    // Every bill is odd to a check now; a person lives with it.
    let checked = site.lastmile(&[&["--json"], &CHECK[..]].concat());
    let found: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let ids: Vec<&str> =
        found["findings"].as_array().expect("findings").iter().filter_map(|one| one["id"].as_str()).collect();
    if !ids.is_empty() {
        site.succeed(&[&["bill", "waive", "--reason", "rated anew"], &ids[..]].concat());
    }
    site.json(&CHECK);
    site.succeed(&["bill", "approve", &batch]);
    assert_eq!(visible(), lines + expected.len());
    assert_eq!(site.json(&rerate)["lines"], json!([]), "once is enough");
    assert_eq!(items(daemon, admin, "acme/batches").len(), 2);
}

#[test]
fn daemons_killed_while_they_close_a_period_by_themselves_close_it_once_on_sqlite() {
    close_and_kill(Site::sqlite(), false);
}

#[test]
fn two_daemons_killed_while_they_close_a_period_by_themselves_close_it_once_on_postgres() {
    close_and_kill(Site::postgres(), true);
}

fn close_and_kill(site: Site, two: bool) {
    site.prepare(CATALOG);
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    for number in 0..450 {
        push(&daemon, &admin, number, &billed(number, start));
    }
    daemon.stop();
    let (run_takes, preview) = timed(|| site.json(&[&RUN[..], &["--dry-run"]].concat()));
    let expected = facts(&preview["lines"]);
    let automatic = CATALOG.replacen("close = \"manual\"", "close = \"auto\"", 1).replacen("\"6h\"", "\"0s\"", 1);
    site.prepare(&automatic);
    let twin = two.then(|| site.twin());
    let mut moments = Moments::new("close_and_kill");
    let mut closed_at = None;
    for kill in 0..long_or(60, 8) {
        sql(&site, "DELETE FROM claim");
        let daemons: Vec<Daemon> = [Some(&site), twin.as_ref()].into_iter().flatten().map(Site::spawn).collect();
        // They look for due periods as soon as they have started; later kills come later in the run.
        moments.wait(run_takes * (kill + 1) / 4);
        for daemon in daemons {
            daemon.kill();
        }
        moments.kills += 1;
        let visible = site.succeed(&["export", "lines"]).lines().count() - 1;
        assert!(visible == 0 || visible == expected.len(), "{visible} of {} lines", expected.len());
        if visible > 0 {
            closed_at = Some(kill);
            break;
        }
    }
    sql(&site, "DELETE FROM claim");
    let daemons: Vec<Daemon> = [Some(&site), twin.as_ref()].into_iter().flatten().map(Site::start).collect();
    let batches = || items(&daemons[0], &admin, "acme/batches");
    wait_for("the period is closed", CLAIM, || (batches().len() == 1).then_some(()));
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(batches().len(), 1, "and once");
    let mut lines = Vec::new();
    for line in site.succeed(&["export", "lines", "--format", "jsonl"]).lines() {
        lines.push(serde_json::from_str::<Value>(line).expect("a line"));
    }
    let ids = |lines: &[Value]| -> Vec<(String, String)> {
        let mut ids: Vec<(String, String)> = lines
            .iter()
            .map(|line| (line["id"].as_str().expect("an id").to_owned(), line["amount"].to_string()))
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&lines), ids(&expected), "every line once, as it was previewed");
    println!("PROOF {}: {} kills of {}, closed at kill {closed_at:?}", moments.name, moments.kills, daemons.len());
    for daemon in daemons {
        daemon.stop();
    }
}

/// A run to its end, after those that were killed.
fn made(site: &Site) -> Value {
    wait_for("a run goes to its end", CLAIM, || {
        let output = site.lastmile(&[&["--json"], &RUN[..]].concat());
        output.status.success().then(|| serde_json::from_slice::<Value>(&output.stdout).expect("JSON"))
    })
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let made = work();
    (start.elapsed(), made)
}

/// Random moments at which commands are killed; the seed is printed, and LASTMILE_SEED sets it.
struct Moments {
    name: &'static str,
    random: u64,
    kills: u32,
}

impl Moments {
    fn new(name: &'static str) -> Self {
        let seed = std::env::var("LASTMILE_SEED").ok().and_then(|seed| seed.parse().ok());
        let random: u64 = seed.unwrap_or_else(|| Timestamp::now().as_microsecond().unsigned_abs());
        println!("{name}: LASTMILE_SEED={random}");
        Self { name, random: random | 1, kills: 0 }
    }

    /// Some part of `most`.
    fn wait(&mut self, most: Duration) {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        std::thread::sleep(most * u32::try_from(self.random % 1000).expect("small") / 1000);
    }

    /// Runs a command and kills it at a moment of the time it takes, or a little later.
    fn kill(&mut self, site: &Site, arguments: &[&str], takes: Duration) {
        let mut running = Command::new(env!("CARGO_BIN_EXE_lastmile"))
            .arg("--config")
            .arg(&site.config)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("lastmile runs");
        self.wait(takes * 6 / 5);
        running.kill().expect("the command is killed");
        running.wait().expect("the command is gone");
        self.kills += 1;
        // Otherwise the next one would only wait until the dead one's claim ends.
        sql(site, "DELETE FROM claim");
    }
}

#[test]
fn closed_period_is_rated_anew_only_when_a_person_says_so() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    push(&daemon, &admin, 1, &billed(1, start));
    site.json(&RUN);
    // Given: a line as another program would have rated it, two dollars too high.
    let price = "json_extract(document, '$.basis.amount_minor') = 4995 AND charge = 'access'";
    sqlite(
        &site,
        &format!(
            "UPDATE line SET document = json_set(document, '$.basis.amount_minor', 5195), amount_minor = 5195
             WHERE {price} AND period_start_at = (SELECT MIN(period_start_at) FROM line)"
        ),
    );
    // Then: this program leaves it alone, until a person asks.
    assert!(site.json(&RUN)["batch"].is_null());
    let rerate = ["bill", "rerate", "--tenant", "acme", "--cycle", "c15"];
    let proposed = site.json(&rerate);
    let amounts: Vec<&Value> =
        proposed["lines"].as_array().expect("lines").iter().map(|line| &line["amount"]).collect();
    assert_eq!(amounts, [&json!("-2.00")], "{proposed:#}");
    assert!(proposed["batch"].is_null(), "a proposal changes nothing");
    let issued = site.json(&[&rerate[..], &["--approve"]].concat());
    assert!(issued["batch"].is_string());
    assert_eq!(site.json(&rerate)["lines"], json!([]), "once is enough");
    daemon.stop();
}

/// A command that must answer "no", with its JSON.
fn no(site: &Site, arguments: &[&str]) -> Value {
    let output = site.lastmile(&[&["--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Lines without their batch and the instant of the run, in the order of their ids.
fn facts(lines: &Value) -> Vec<Value> {
    let mut lines = lines.as_array().expect("lines").clone();
    for line in &mut lines {
        let line = line.as_object_mut().expect("a line");
        line.remove("batch");
        line.remove("created_at");
    }
    lines.sort_by_key(|line| line["id"].as_str().expect("an id").to_owned());
    lines
}

fn account_of(line: &Value) -> &str {
    line["account"].as_str().expect("an account")
}

fn items(daemon: &Daemon, key: &str, path: &str) -> Vec<Value> {
    let answer = daemon.api(key, "GET", path, None);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["items"].as_array().expect("items").clone()
}

fn billed(number: u32, from: jiff::civil::Date) -> Value {
    let mut account = internet(number);
    account["services"][0]["billing_from"] = json!(from.to_string());
    account
}

fn push(daemon: &Daemon, key: &str, number: u32, account: &Value) {
    let answer = daemon.api(key, "PUT", &format!("acme/accounts/a{number}"), Some(account));
    assert_eq!(answer.status, 201, "{}", answer.body);
}

fn sqlite(site: &Site, statement: &str) -> String {
    let file = site.path("lastmile.db").display().to_string();
    let output = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &file, statement]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A statement on whichever database the site has.
pub fn sql(site: &Site, statement: &str) -> String {
    let config = std::fs::read_to_string(&site.config).expect("the configuration");
    match config.lines().find(|line| line.starts_with("url = \"postgres://")).and_then(|line| line.split('"').nth(1)) {
        Some(url) => {
            let output = run("postgresql-client", "psql", &["-q", "-A", "-t", "-c", statement, url]);
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        None => sqlite(site, statement),
    }
}
