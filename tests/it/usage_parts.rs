//! What tells usage apart on its way into the ledger, on both databases: windows, five minutes, classes, and calls.

use lastmile::catalog::Bundle;
use lastmile::store::ledger::{self, Cutting};
use lastmile::store::{billing, calls};
use lastmile::usage::{Call, CallLine, CallProfile, Cuts};
use lastmile::vocabulary::Period;
use serde_json::json;

use crate::fold::{BASE, Bench, at, on_postgres, on_sqlite, report};
use crate::harness::daemon::Site;

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::on_sqlite(|bench| Box::pin(super::$name(bench))); })*
        }
        mod postgres_15 {
            $(#[test] fn $name() { super::on_postgres(|bench| Box::pin(super::$name(bench))); })*
        }
    };
}

on_both!(
    entries_are_cut_where_a_window_begins,
    entries_of_a_peak_plan_are_of_five_minutes,
    session_that_waits_to_be_cut_finer_tells_no_peak_that_never_was,
    class_of_a_session_stands_in_its_entries,
    calls_are_kept_once_and_given_to_the_holder_of_their_time,
);

/// The catalog of the bench, with more at its end.
async fn catalog(bench: &Bench, more: &str) {
    let text = format!(
        "[tenant]\nid = \"acme\"\nname = \"Acme\"\ncurrency = \"USD\"\ntimezone = \"Asia/Kathmandu\"\n\
         realms = [\"acme\"]\n[[bill_cycle]]\nid = \"c1\"\nanchor_day = 1\nevery = \"month\"\n{more}\n"
    );
    let document = serde_json::to_string(&Bundle::single("acme.toml", &text)).expect("texts are JSON");
    bench.sql(&format!("UPDATE catalog_version SET document = '{}'", document.replace('\'', "''"))).await;
}

const TARIFF: &str = "[[plan]]\nid = \"p\"\nservice = \"internet\"\ntariff = \"t\"\n[[tariff]]\nid = \"t\"\nversion = 1\n\
    currency = \"USD\"\neffective_from = \"2020-01-01\"\n[[tariff.charge]]\nid = \"data\"\ntype = \"usage\"\n\
    model = \"standard\"\nunit_amount = \"1\"\ndirection = \"sum\"\n";

async fn entries_are_cut_where_a_window_begins(mut bench: Bench) {
    bench.account("ada@acme").await;
    let windows = "meter = \"octets\"\nunit = \"GB\"\n\
        windows = [{ id = \"n\", days = \"mon-sun\", from = \"06:00\", to = \"12:00\", weight = \"0\" }]";
    catalog(&bench, &format!("{TARIFF}{windows}")).await;
    // 06:00 in Kathmandu is a quarter past midnight UTC.
    bench.send(&[report("s1", 1, 0, 0, 0), report("s1", 2, 3600, 3600, 3600)]).await;
    bench.fold_once().await;
    assert_eq!(bench.ledger().await, [(0, 900, 900), (900, 3600, 2700)]);
    assert_eq!(bench.verify(false).await.differences, 0);
}

async fn entries_of_a_peak_plan_are_of_five_minutes(mut bench: Bench) {
    // Half an hour of usage before anybody is known to be billed so.
    bench.send(&[report("s1", 1, 0, 0, 0), report("s1", 3, 900, 900, 900)]).await;
    bench.fold_once().await;
    bench.account("ada@acme").await;
    catalog(&bench, &format!("{TARIFF}meter = \"peak_bps_95\"\nunit = \"Mbps\"")).await;
    bench.send(&[report("s1", 2, 1200, 1200, 3900)]).await;
    for _ in 0..3 {
        bench.fold_once().await;
    }
    assert_eq!(bench.ledger().await, [(0, 300, 300), (300, 600, 300), (600, 900, 300), (900, 1200, 3000)]);
    assert_eq!(bench.totals().await, [(3900, 1)]);
    assert_eq!(bench.verify(false).await.differences, 0);
}

async fn session_that_waits_to_be_cut_finer_tells_no_peak_that_never_was(mut bench: Bench) {
    let mut fold = bench.fold();
    bench.send(&[report("s1", 1, 0, 0, 0), report("s1", 3, 1800, 1800, 1800)]).await;
    fold.turn().await.expect("folds");
    bench.account("ada@acme").await;
    catalog(&bench, &format!("{TARIFF}meter = \"peak_bps_95\"\nunit = \"Mbps\"")).await;
    // Its owner is found with the first of these; the second comes before it is folded anew.
    for second in [3600, 7200] {
        bench.send(&[report("s1", 3, second, second, second)]).await;
        fold.turn().await.expect("folds");
        let fine = |_| Cutting { edges: &[], cuts: Cuts { at: &[], fine: true } };
        let mut tx = bench.store.write().await.expect("a transaction");
        ledger::flush(&mut tx, &[7], at(7200), &fine, at(7300)).await.expect("flushes");
        tx.commit().await.expect("commits");
        let told = bench.ledger().await;
        assert!(told.iter().all(|(from, until, octets)| *octets <= until - from), "one octet a second: {told:?}");
    }
    fold.release().await.expect("lets go");
    for _ in 0..3 {
        bench.fold_once().await;
    }
    let steady: Vec<(i64, i64, i64)> = (0..24).map(|slot| (slot * 300, slot * 300 + 300, 300)).collect();
    assert_eq!(bench.ledger().await, steady);
    assert_eq!(bench.totals().await, [(7200, 1)]);
    assert_eq!(bench.verify(false).await.differences, 0);
}

async fn class_of_a_session_stands_in_its_entries(mut bench: Bench) {
    bench.account("ada@acme").await;
    catalog(&bench, "[[usage_class]]\nid = \"own\"\nrealm = \"ACME\"\nnas = \"bng1\"\n").await;
    bench.send(&[report("s1", 1, 0, 0, 0), report("s1", 3, 3600, 3600, 3600)]).await;
    bench.fold_once().await;
    assert_eq!(bench.session("s1").await.usage_class.as_deref(), Some("own"));
    // What the catalog calls it later changes nothing of a session that has its class.
    catalog(&bench, "").await;
    bench.send(&[report("s1", 2, 7200, 7200, 9000)]).await;
    bench.fold_once().await;
    let mut tx = bench.store.read().await.expect("a transaction");
    let period = Period { start: at(0), end: at(86_400), timezone: "UTC".to_owned() };
    let entries = billing::usage_of_period(&mut tx, 7, 70, &period, 10).await.expect("entries");
    let shown: Vec<(i64, Option<&str>)> = entries.iter().map(|e| (e.in_octets, e.class.as_deref())).collect();
    assert_eq!(shown, [(3600, Some("own")), (5400, Some("own"))]);
}

async fn calls_are_kept_once_and_given_to_the_holder_of_their_time(bench: Bench) {
    bench.account("ada@acme").await;
    bench
        .sql(&format!(
            "INSERT INTO holder (kind, value, account_id, service_id, from_at, until_at)
             VALUES ('number', '+15125550100', 7, 70, {BASE}, {})",
            BASE + 7_200_000_000
        ))
        .await;
    let call = |number: &str, second: i64, digest: &str| Call {
        number: number.to_owned(),
        destination: "+442071234567".to_owned(),
        started_at: at(second),
        seconds: 61,
        digest: digest.to_owned(),
    };
    let all = [
        call("+15125550100", -500, "before"),
        call("+15125550100", 100, "held"),
        call("+15125550100", 7_200, "given up"),
        call("+15125550199", 100, "nobody's"),
    ];
    for (new, attributed) in [(4, 2), (0, 0)] {
        let mut tx = bench.store.write().await.expect("a transaction");
        let recorded = calls::record(&mut tx, &all, at(10_000)).await.expect("kept");
        assert_eq!((recorded.new, recorded.known), (new, 4 - new));
        let (last, found) = calls::attribute(&mut tx, 0, 100, at(10_000)).await.expect("given");
        assert_eq!((last.is_some(), found), (true, attributed));
        tx.commit().await.expect("commits");
    }
    let mut tx = bench.store.read().await.expect("a transaction");
    let waiting = calls::unattributed(&mut tx, 10).await.expect("listed");
    let waiting: Vec<(&str, i64)> = waiting.iter().map(|row| (row.number.as_str(), row.calls)).collect();
    assert_eq!(waiting, [("+15125550100", 1), ("+15125550199", 1)]);
    let entries = ledger::of_account(&mut tx, 7, 0, 10).await.expect("entries");
    assert_eq!(
        entries.iter().map(|e| (e.seconds, e.sessions, e.cause.as_str())).collect::<Vec<_>>(),
        [(61, 1, "call"); 2]
    );
    let period = Period { start: at(0), end: at(86_400), timezone: "UTC".to_owned() };
    let billed = billing::usage_of_period(&mut tx, 7, 70, &period, 10).await.expect("entries");
    assert_eq!(billed.iter().map(|entry| entry.call.as_deref()).collect::<Vec<_>>(), [Some("+442071234567")]);
    tx.rollback().await.expect("ends");
    assert_eq!(bench.number("SELECT CAST(SUM(seconds) AS BIGINT) FROM usage_total").await, 122);
    assert_eq!(bench.verify(false).await.differences, 0);
    // Somebody holds the last number: the call that waited is given to them.
    bench
        .sql(
            "INSERT INTO holder (kind, value, account_id, service_id, from_at)
              VALUES ('number', '+15125550199', 7, 70, 0)",
        )
        .await;
    let mut tx = bench.store.write().await.expect("a transaction");
    assert_eq!(calls::attribute(&mut tx, 0, 100, at(20_000)).await.expect("given").1, 1);
    tx.commit().await.expect("commits");
    assert_eq!(bench.ledger().await.len(), 3);
}

#[test]
fn profile_of_the_readme_reads_its_example() {
    let profile = CallProfile::read("asterisk.toml", PROFILE).expect("a sound profile");
    let lines: Vec<_> = profile.calls(CALLS.as_bytes()).expect("the columns").collect();
    assert_eq!(lines.len(), 3);
    assert!(matches!(&lines[0].1, Ok(CallLine::Call(call)) if call.number == "+15125550100"));
}

const PROFILE: &str = "[columns]\nnumber = \"src\"\ndestination = \"dst\"\nstarted = \"calldate\"\nseconds = \"billsec\"\n\
    id = \"uniqueid\"\n[format]\ntime = \"%Y-%m-%d %H:%M:%S\"\ntimezone = \"America/Chicago\"\n[numbers]\n\
    international = \"011\"\nnational = \"1\"\ncountry = \"1\"\n";
const CALLS: &str = "calldate,uniqueid,src,dst,billsec\n2026-10-20 10:00:00,a1,5125550100,18005550100,600\n\
    2026-10-20 11:00:00,a2,5125550100,011442071234567,61\n2026-10-20 12:00:00,a3,5125550199,911,30\n";

const CATALOG: &str = r#"
[tenant]
id = "acme"
currency = "USD"
timezone = "America/Chicago"
[[bill_cycle]]
id = "c15"
anchor_day = 15
every = "month"
[[plan]]
id = "voice-basic"
service = "voice"
tariff = "voice"
[[tariff]]
id = "voice"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "calls"
type = "usage"
meter = "calls"
unit = "min"
increments = "60/30"
rates = [
  { prefix = "+1", unit_amount = "0.02" },
  { prefix = "+1800", unit_amount = "0" },
  { prefix = "+44", unit_amount = "0.10", connection = "0.05" },
]
"#;

/// From a switch's file to a line that explains itself, with the daemon running.
#[test]
fn imported_calls_become_a_line_on_sqlite() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let admin = site.key("acme", "admin");
    let daemon = site.start();
    let account = json!({
        "status": "active", "bill_cycle": "c15", "source_revision": 1,
        "devices": [{"id": "gw1", "cm_mac": "00:11:22:33:44:55", "mta_mac": "00:11:22:33:44:56"}],
        "services": [{"id": "v1", "type": "voice", "plan": "voice-basic", "device": "gw1", "billing_from": "2026-10-01",
                      "lines": [{"port": 1, "number": "+15125550100", "enabled": true}]}]
    });
    let pushed = daemon.api(&admin, "PUT", "acme/accounts/100234", Some(&account));
    assert_eq!(pushed.status, 201, "{}", pushed.json());
    let (profile, file) = (site.path("asterisk.toml"), site.path("calls.csv"));
    std::fs::write(&profile, PROFILE).expect("written");
    std::fs::write(&file, CALLS).expect("written");
    let (profile, file) = (profile.display().to_string(), file.display().to_string());
    let import = ["import", "cdr", &file, "--profile", &profile, "--json"];
    for (new, attributed) in [(3, 2), (0, 0)] {
        let told = site.json(&import);
        assert_eq!((&told["new"], &told["attributed"]), (&json!(new), &json!(attributed)), "{told}");
    }
    let waiting = site.json(&["usage", "unattributed", "--json"]);
    assert_eq!(waiting[0]["number"], "+15125550199", "{waiting}");
    let run = ["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", "2026-10", "--json"];
    let closed = site.json(&run);
    let line = &closed["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .find(|line| line["charge"] == "calls" && line["quantity"] != "0")
        .expect("a line");
    // 10 minutes free of charge, and 1.5 minutes at 0.10 with 0.05 to connect.
    assert_eq!((&line["amount"], &line["quantity"]), (&json!("0.20"), &json!("11.5")), "{line}");
    assert_eq!(line["parts"].as_array().map(Vec::len), Some(2));
    let id = line["id"].as_str().expect("an id");
    let explained = site.json(&["line", "explain", id, "--json"]);
    assert_eq!(explained["differences"], json!([]), "{explained}");
    daemon.stop();
}
