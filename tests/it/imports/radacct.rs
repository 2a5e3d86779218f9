//! `import radacct`: from tables as FreeRADIUS's own schema makes them, and from CSV dumps.

use sqlx::Connection;

use super::*;
use crate::harness::acme::radclient;
use crate::harness::postgres;

const HEADINGS: &str = "radacctid,acctsessionid,acctuniqueid,username,nasipaddress,acctstarttime,acctupdatetime,\
    acctstoptime,acctsessiontime,acctinputoctets,acctoutputoctets,callingstationid,acctterminatecause,framedipaddress\n";

#[test]
fn a_dump_comes_in_once_and_repeats_nothing_of_the_wire() {
    for site in [Site::sqlite(), Site::postgres()] {
        subscribers(&site);
        let daemon = site.start();
        let truths = truths("c", 20);
        for report in truths[..5].iter().flat_map(Truth::reports) {
            assert!(radclient(site.radius_port, &report));
        }
        wait_for_sums(&site, &Truth::sums(&truths[..5]));
        let used = ledger(&site);
        let wire_only = write(&site, "wire.csv", &dump(&truths[..5]));
        let options = ["--nas-identifier", "bng1"];
        let (known, _) = import(&site, &[&["radacct", &wire_only][..], &options].concat(), 0);
        assert_eq!(counts(&known), (10, 0, 10, 0));
        assert_eq!(ledger(&site), used);
        let file = write(&site, "all.csv", &dump(&truths));
        let (all, _) = import(&site, &[&["radacct", &file][..], &options].concat(), 0);
        assert_eq!((counts(&all), all["folding"].as_str()), ((40, 30, 10, 0), Some("done")));
        wait_for_sums(&site, &Truth::sums(&truths));
        let truth = truths.iter().fold((0, 0), |sum, t| (sum.0 + t.in_octets, sum.1 + t.out_octets));
        assert_eq!(used_by_ledger(&site), truth);
        let used = ledger(&site);
        let (again, _) = import(&site, &[&["radacct", &file][..], &options].concat(), 0);
        assert_eq!(counts(&again), (40, 0, 40, 0));
        // The wire after the import: the Interims only tell better when it was.
        for report in truths[5..7].iter().flat_map(Truth::reports) {
            assert!(radclient(site.radius_port, &report));
        }
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(sums(&site), Truth::sums(&truths));
        assert_eq!(used_by_ledger(&site), truth);
        assert_holds(&ledger(&site), &used);
        daemon.stop();
    }
}

#[test]
fn a_row_with_larger_counters_corrects_and_a_smaller_one_does_not() {
    let site = Site::sqlite();
    subscribers(&site);
    let daemon = site.start();
    let truth = &truths("larger", 1)[0];
    // The wire lost the Stop.
    for report in &truth.reports()[..3] {
        assert!(radclient(site.radius_port, report));
    }
    let half = (truth.in_octets * 2 / 4, truth.out_octets * 2 / 4, "open".to_owned());
    wait_for_sums(&site, &BTreeMap::from([(truth.session.clone(), half.clone())]));
    let open = dump(std::slice::from_ref(truth));
    let cells: Vec<&str> = open.lines().nth(1).expect("a row").split(',').collect();
    let row = |stop: &str, octets: u64| {
        let mut cells = cells.clone();
        let octets = octets.to_string();
        (cells[7], cells[9], cells[10], cells[12]) = (stop, &octets, &octets, "");
        format!("{HEADINGS}{}\n", cells.join(","))
    };
    let options = ["--nas-identifier", "bng1"];
    let smaller = write(&site, "smaller.csv", &row("", 5));
    let (summary, _) = import(&site, &[&["radacct", &smaller][..], &options].concat(), 0);
    assert_eq!(counts(&summary), (2, 0, 2, 0));
    let stopped = write(&site, "stopped.csv", &open);
    let (summary, _) = import(&site, &[&["radacct", &stopped][..], &options].concat(), 0);
    assert_eq!(counts(&summary), (2, 1, 1, 0));
    wait_for_sums(&site, &Truth::sums(std::slice::from_ref(truth)));
    let larger = write(&site, "larger.csv", &row(cells[7], truth.out_octets + 77));
    let (summary, _) = import(&site, &[&["radacct", &larger][..], &options].concat(), 0);
    assert_eq!(counts(&summary), (2, 1, 1, 0));
    let corrected = (truth.out_octets + 77, truth.out_octets + 77, "stopped".to_owned());
    wait_for_sums(&site, &BTreeMap::from([(truth.session.clone(), corrected)]));
    daemon.stop();
}

/// FreeRADIUS's own schema, as Debian ships it.
#[test]
fn tables_of_freeradius_are_read_where_they_stand() {
    if !crate::harness::radiusd::may_run() {
        return;
    }
    let site = Site::sqlite();
    subscribers(&site);
    site.edit("identity = \"nas-identifier\"\n", "");
    let truths = truths("t", 700);
    let sqlite = format!("sqlite://{}", site.path("radius.db").display());
    let postgres = postgres::database();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let schema = |name: &str| {
            let file = format!("/etc/freeradius/3.0/mods-config/sql/main/{name}/schema.sql");
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
        };
        let mut lite = sqlx::SqliteConnection::connect(&format!("{sqlite}?mode=rwc")).await.expect("connects");
        sqlx::raw_sql(sqlx::AssertSqlSafe(schema("sqlite"))).execute(&mut lite).await.expect("a schema");
        let mut pg = sqlx::PgConnection::connect(&postgres).await.expect("connects");
        let text: String = schema("postgresql")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .fold(String::new(), |text, line| text + line + "\n");
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut pg).await.expect("a schema");
        for truth in &truths {
            let began = truth.began.as_second();
            let row = |from: &str, to: &str| {
                format!(
                    "INSERT INTO radacct (acctsessionid, acctuniqueid, username, nasipaddress, acctstarttime,
                       acctupdatetime, acctstoptime, acctsessiontime, acctinputoctets, acctoutputoctets,
                       acctterminatecause, calledstationid, callingstationid, framedipaddress)
                     VALUES ('{session}', '{session}', '{user}', '127.0.0.1', {from}{began}{to}, {from}{stop}{to},
                       {from}{stop}{to}, 2400, {in_octets}, {out_octets}, 'User-Request', '', '', {address})",
                    session = truth.session,
                    user = truth.user,
                    stop = began + 2400,
                    in_octets = truth.in_octets,
                    out_octets = truth.out_octets,
                    address = if to.is_empty() { "''" } else { "NULL" },
                )
            };
            sqlx::raw_sql(sqlx::AssertSqlSafe(row("", ""))).execute(&mut lite).await.expect("a row");
            sqlx::raw_sql(sqlx::AssertSqlSafe(row("to_timestamp(", ")"))).execute(&mut pg).await.expect("a row");
        }
        lite.close().await.expect("closed");
    });
    let (first, said) = import(&site, &["radacct", &sqlite], 0);
    assert_eq!(counts(&first), (1400, 1400, 0, 0), "{said}");
    let (second, said) = import(&site, &["radacct", &postgres], 0);
    assert_eq!(counts(&second), (1400, 0, 1400, 0), "the same sessions in another database: {said}");
    let daemon = site.start();
    wait_for_sums(&site, &Truth::sums(&truths));
    daemon.stop();
    assert_eq!(site.lastmile(&["import", "radacct", "mysql://a/b"]).status.code(), Some(1));
}

#[test]
fn rows_that_cannot_be_read_are_named_and_hostile_dumps_end() {
    let site = Site::sqlite();
    subscribers(&site);
    let truths = truths("h", 2);
    let good = dump(&truths);
    let text = good.clone()
        + "9,,u,a,127.0.0.1,2026-11-20 10:00:00+00,,,,1,1,,,\n"
        + "10,s,u,a,127.0.0.1,2026-11-20 10:00:00,,,,1,1,,,\n"
        + "11,s,u,a,198.51.100.1,2026-11-20 10:00:00+00,,,,1,1,,,\n"
        + "12,s,u\n";
    let file = write(&site, "rows.csv", &text);
    let (summary, said) = import(&site, &["radacct", "--nas-identifier", "bng1", &file], 1);
    assert_eq!(counts(&summary), (4, 4, 0, 4), "{said}");
    for (line, words) in [
        (4, "acctsessionid is empty"),
        (5, "without a time zone; give it with --timezone"),
        (6, "no [[radius.nas]] covers 198.51.100.1"),
        (7, "found record with 3 fields"),
    ] {
        assert!(said.contains(&format!("{file}:{line}: ")) && said.contains(words), "{line} {words}: {said}");
    }
    let (_, said) = import(&site, &["radacct", &file], 1);
    assert!(said.contains("told apart by NAS-Identifier"), "{said}");
    let endless = format!("{good}\"{}", "x\n".repeat(2_000_000));
    for (text, words) in [
        ("", "does not name radacct's columns"),
        ("a,b\n1,2\n", "does not name radacct's columns"),
        (endless.as_str(), "a quote may have no end"),
        ("\u{0}\u{1}\"", "does not name radacct's columns"),
    ] {
        let file = write(&site, "hostile.csv", text);
        let (_, said) = import(&site, &["radacct", "--nas-identifier", "bng1", &file], 1);
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// A dump as `psql --csv` writes it.
fn dump(truths: &[Truth]) -> String {
    let rows = concat(truths.iter(), |text, truth| {
        let at = |seconds: i64| {
            let at = Timestamp::from_second(truth.began.as_second() + seconds).expect("an instant");
            at.to_string().replace('T', " ").replace('Z', "+00")
        };
        line(
            text,
            format_args!(
                "1,{},{},{},127.0.0.1,{},{},{},2400,{},{},00:11:22:33:44:55,User-Request,10.0.0.7",
                truth.session,
                truth.session,
                truth.user,
                at(0),
                at(2400),
                at(2400),
                truth.in_octets,
                truth.out_octets
            ),
        );
    });
    format!("{HEADINGS}{rows}")
}
