//! What a person may ask: an export of everything, an erasure after which no file, log, dump or backup of ours has a word of
//! them while every sum and the audit's chain stay; legal holds; retention by class; who looked at history, for which case.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use lastmile::collector::keeper::{Keeper, Keeping};
use lastmile::custodian::{Chain, Retention};
use lastmile::store::{Store, StoreConfig, ingest};
use lastmile::telemetry::{Heartbeats, Metrics};
use lastmile::vocabulary::Clock;
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, internet, last_period, midnight, radclient_raw};
use crate::harness::daemon::{Daemon, NAS_SECRET, Site};
use crate::harness::{run, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Words that tell the person, each of which stands in our databases before.
const WORDS: [&str; 14] = [
    "Zebulon Quixotic",
    "zeb.quix@mail.example",
    "+15125559876",
    "77 Quixote Lane",
    "00:1a:2b:77:88:99",
    "00:1a:2b:77:88:9a",
    "SNQX9911",
    "quixote77@acme",
    "quixbox@acme.example",
    "quixalias@acme.example",
    "+15125551177",
    "203.0.113.77",
    "198.51.100.77",
    "quixsip77",
];

fn person(billing_from: jiff::civil::Date) -> Value {
    json!({
        "status": "active", "kind": "person", "name": WORDS[0], "email": WORDS[1], "phone": WORDS[2], "bill_cycle": "c15",
        "billing_address": {"line1": WORDS[3], "city": "Austin", "region": "TX", "postal_code": "78701", "country": "US"},
        "devices": [{"id": "gw1", "cm_mac": WORDS[4], "mta_mac": WORDS[5], "model": "arris-tm3402", "serial": WORDS[6]}],
        "services": [
            {"id": "q-1", "type": "internet", "plan": "res-100", "device": "gw1", "static_ips": [WORDS[11]],
             "radius": {"username": WORDS[7], "password": "correct horse"}, "billing_from": billing_from.to_string()},
            {"id": "q-2", "type": "voice", "plan": "voice-basic", "device": "gw1", "billing_from": billing_from.to_string(),
             "lines": [{"port": 1, "number": WORDS[10], "enabled": true,
                        "sip": {"user": WORDS[13], "password": "sip-secret-77"}}]},
            {"id": "q-3", "type": "email", "plan": "mail-5g", "billing_from": billing_from.to_string(),
             "mailbox": {"address": WORDS[8], "password": "mail-secret-42", "aliases": [WORDS[9]]}}
        ]
    })
}

/// A whole session of the person and one of somebody else, in the last closed period.
fn sessions(site: &Site, start: Timestamp) {
    for (user, session, address, station) in [
        (WORDS[7], "quix-session", WORDS[12], "00-1A-2B-77-88-99"),
        ("user1@acme", "other-session", "198.51.100.1", "x"),
    ] {
        for (kind, at, octets) in [("Start", start, 0u32), ("Stop", start + 2.hours(), 3_000_000_000)] {
            let seconds = at.as_second() - start.as_second();
            let attributes = format!(
                "User-Name = \"{user}\"\nAcct-Session-Id = \"{session}\"\nAcct-Status-Type = {kind}\n\
                 NAS-Identifier = \"bng1\"\nEvent-Timestamp = {}\nAcct-Session-Time = {seconds}\n\
                 Acct-Input-Octets = {octets}\nAcct-Output-Octets = {octets}\nFramed-IP-Address = {address}\n\
                 Calling-Station-Id = \"{station}\"\n",
                at.as_second()
            );
            let told = radclient_raw(site.radius_port, "acct", NAS_SECRET, &attributes);
            assert!(told.contains("Received Accounting-Response"), "{told}");
        }
    }
}

fn url(site: &Site) -> String {
    let text = std::fs::read_to_string(&site.config).expect("the configuration");
    let url = text.lines().find(|line| line.starts_with("url = ")).and_then(|line| line.split('"').nth(1));
    url.expect("the database's URL").to_owned()
}

/// What there is of ours on the disk: each with a name and its octets.
fn holdings(site: &Site, backup: &str) -> Vec<(String, Vec<u8>)> {
    let url = url(site);
    if url.starts_with("postgres") {
        let dump = run("postgresql-client", "pg_dump", &["--no-sync", &url]);
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        return vec![("dump".to_owned(), dump.stdout)];
    }
    let file = site.path(backup);
    site.succeed(&["backup", &file.display().to_string()]);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&site.folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lastmile")))
        .filter(|path| path.extension().is_some_and(|extension| extension != "toml"))
        .collect();
    files.push(file);
    files.into_iter().map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file"))).collect()
}

/// Where a word stands, in the spellings it may have there; a dump writes octets as hexadecimal digits.
fn places<'h>(word: &str, holdings: &'h [(String, Vec<u8>)]) -> Vec<&'h str> {
    let hex = |text: &str| text.bytes().map(|octet| format!("{octet:02x}")).collect::<String>();
    let dashes = word.replace(':', "-");
    let mut spellings: Vec<String> = vec![word.to_owned(), word.to_uppercase(), dashes.to_uppercase(), hex(word)];
    spellings.extend([hex(&word.to_uppercase()), hex(&dashes.to_uppercase())]);
    let has = |octets: &[u8]| {
        spellings.iter().any(|spelling| octets.windows(spelling.len()).any(|window| window == spelling.as_bytes()))
    };
    holdings.iter().filter(|(_, octets)| has(octets)).map(|(name, _)| name.as_str()).collect()
}

fn settled(site: &Site) {
    wait_for("no job is left", SOON, || {
        let jobs = site.json(&["job", "list", "--limit", "1000"]);
        jobs.as_array().expect("a list").iter().all(|job| job["state"] == "done").then_some(())
    });
}

fn refused(site: &Site, arguments: &[&str], why: &str) {
    let told = site.lastmile(arguments);
    let text = String::from_utf8_lossy(&told.stderr);
    assert_eq!(told.status.code(), Some(3), "{arguments:?}: {text}");
    assert!(text.contains(why), "{arguments:?}: {text}");
}

/// Rows that name the person where nothing of a short journey would: each is taken out or away by another statement. The words
/// stand in capitals, as no column of ours has them.
fn planted(site: &Site) {
    let now = Timestamp::now().as_microsecond();
    let (name, mail, mac, serial) = (WORDS[0].to_uppercase(), WORDS[1].to_uppercase(), WORDS[4], WORDS[6]);
    let octets = if url(site).starts_with("postgres") {
        format!("convert_to('{name}', 'UTF8')")
    } else {
        format!("CAST('{name}' AS BLOB)")
    };
    let rows = [
        (
            "exception (tenant, kind, subject, detail, opened_at, updated_at)",
            format!("NULL, 'planted', 'x', 'of {name}', {now}, {now}"),
        ),
        (
            "exception (tenant, kind, subject, detail, opened_at, updated_at)",
            format!("'acme', 'planted', '{mail}', 'x', {now}, {now}"),
        ),
        (
            "event (tenant, sequence, type, subject, occurred_at, payload)",
            format!("'acme', 900001, 'x', '{mail}', {now}, '{{\"to\":\"{name}\"}}'"),
        ),
        (
            "outlet (id, tenant, kind, url, types, description, state, because, position, created_at, updated_at)",
            format!(
                "'wh_planted', 'acme', 'webhook', 'https://x', '[]', '', 'disabled', 'no mailbox {mail}', 900001, {now}, {now}"
            ),
        ),
        (
            "delivery (outlet, sequence, subject, state, attempts, detail, updated_at)",
            format!("'wh_planted', 900001, '{mail}', 'dead', 1, '550 <{mail}> unknown', {now}"),
        ),
        (
            "bill_finding (id, tenant, cycle, period_start_at, kind, subject, detail, advice, numbers, found_at, waived_because)",
            format!(
                "'bf_planted', 'acme', 'c15', 0, 'x', '{mail}', '{name}', '{name}', '{{\"a\":\"{mail}\"}}', {now}, 'for {name}'"
            ),
        ),
        (
            "rollout (tenant, reason, policy, state, note, before_version, created_by, created_at, updated_at, finished_at)",
            format!("'acme', 'x', '{{}}', 'cancelled', 'modem {serial} of {name}', 1, 'x', {now}, {now}, {now}"),
        ),
        (
            "ingest (tenant, source, profile, profile_digest, way, name, event, digest, state, next_record, changes, ignored, held, \
          quarantined, received_at, expires_at)",
            format!(
                "'acme', 'other', 'x', 'x', 'inbox', '{name}.csv', '{mail}', 'planted', 'done', 2, 0, 0, 0, 1, {now}, {now} + 900000000000"
            ),
        ),
        (
            "held_change (tenant, source, account, kind, sealed, losses, actor, origin, times, held_at, updated_at)",
            format!(
                "'acme', 'default', 'Q77', 'push', {octets}, '[]', '{mail}', '{{\"x\":\"{name}\"}}', 1, {now}, {now}"
            ),
        ),
        (
            "observation (tenant, source, account, would, places, losses, times, first_at, last_at)",
            format!("'acme', 'default', 'Q77', 'update', '[\"/{name}\"]', '[]', 1, {now}, {now}"),
        ),
        (
            "idempotency (tenant, key, request_digest, status, response, created_at)",
            format!("'acme', 'for {mail}', 'x', 200, '{{}}', {now}"),
        ),
        (
            "nas_request (tenant, username, cause, origin, previous, target, lane, since_at, written_at, run_at, created_at, updated_at, finished_at)",
            format!(
                "NULL, '{name}', 'x', '{{\"a\":\"{name}\"}}', '{{\"a\":\"{name}\"}}', '{{\"a\":\"{name}\"}}', 1, 0, 0, 0, {now}, {now}, {now}"
            ),
        ),
        (
            "device_seen (mac, kind, behind, relay, cmts, class, vendor, model, serial, hardware, software, boot_rom, first_seen_at, last_seen_at)",
            format!(
                "'02:00:00:00:00:01', 'mta', '{mac}', '10.0.0.1', 'x', 'x', 'x', 'x', '{serial}', 'x', 'x', 'x', {now}, {now}"
            ),
        ),
        (
            "address_lease (address, mac, kind, behind, relay, cmts, since_at, seen_at, until_at, lease_seconds, ended)",
            format!(
                "'{}', '02:00:00:00:00:02', 'cpe', '{mac}', '10.0.0.1', 'x', {now}, {now}, {now} + 60000000, 60, FALSE",
                WORDS[12]
            ),
        ),
    ];
    for (into, values) in rows {
        sql(site, &format!("INSERT INTO {into} VALUES ({values})"));
    }
    sql(
        site,
        &format!(
            "INSERT INTO call_record (digest, number, destination, started_at, seconds, imported_at, account_id)
             SELECT 'planted', '{}', '{name}', {now}, 60, {now}, id FROM account WHERE external_id = 'Q77'",
            WORDS[10]
        ),
    );
    sql(
        site,
        &format!(
            "INSERT INTO drift (element_id, detail, found_at, seen_at, healed_at)
             SELECT element.id, 'radcheck has {name}', {now}, {now}, {now}
             FROM element JOIN account ON account.id = element.account_id WHERE account.external_id = 'Q77'"
        ),
    );
    sql(
        site,
        &format!(
            "INSERT INTO ingest_fault (ingest, record, line, account, faults, created_at) SELECT id, 1, 1, NULL, \
                 '[{{\"pointer\":\"\",\"detail\":\"{name}\"}}]', {now} FROM ingest WHERE digest = 'planted'"
        ),
    );
}

/// A look at each element that is due long after this test: a mailbox that was closed would have had one.
fn woken_some_day(site: &Site) {
    sql(
        site,
        "INSERT INTO mailbox_wake (element_id, at) SELECT element.id, 4000000000000000
         FROM element JOIN account ON account.id = element.account_id
         WHERE account.external_id = 'Q77' AND element.id NOT IN (SELECT element_id FROM mailbox_wake)",
    );
    assert_ne!(sql(site, "SELECT COUNT(*) FROM mailbox_wake"), "0");
}

/// A statement on whichever database the site has.
fn sql(site: &Site, statement: &str) -> String {
    let url = url(site);
    let told = match url.strip_prefix("sqlite://") {
        Some(path) => run("sqlite3", "sqlite3", &["-bail", "-cmd", ".timeout 5000", path, statement]),
        None => run("postgresql-client", "psql", &["-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement, &url]),
    };
    assert!(told.status.success(), "{statement}: {}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8_lossy(&told.stdout).trim().to_owned()
}

/// What came of this input, as it is kept now.
fn kept(site: &Site, input: &str) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = StoreConfig {
            url: url(site),
            key_file: Some(site.path("key")),
            previous_key_file: None,
            owner: "a look at an input".to_owned(),
        };
        let store = Store::open(&config).await.expect("a store");
        let mut tx = store.read().await.expect("a transaction");
        let row = ingest::one(&mut tx, input.parse().expect("a number")).await.expect("read").expect("the input");
        let raw = ingest::raw(&mut tx, store.sealer(), &row).await.expect("what came");
        drop(tx);
        store.close().await;
        raw.map(|octets| String::from_utf8(octets).expect("text"))
    })
}

/// What a billing system sent of the person alone, and together with somebody under a legal hold; both are put aside, for their
/// cycle is not in the catalog. Gives the numbers of the two inputs.
fn sent(daemon: &Daemon, key: &str) -> [String; 2] {
    let head = "Cust#;Name;Package;Modem;Tel;State of account;Monthly charges;Bill day";
    let own = format!("Q77;{};RES-100;{};{};live;49,95;77", WORDS[0], WORDS[4], WORDS[2]);
    let other = "other;Ada Other;RES-100;02:00:5e:10:20:3e;;live;49,95;77";
    [format!("{head}\n{own}\nEND;1;\n"), format!("{head}\n{own}\n{other}\nEND;2;\n")].map(|body| {
        let bearer = format!("Bearer {key}");
        let path = "/v1/tenants/acme/ingest/homegrown-csv";
        let told =
            crate::harness::http::request(daemon.http_port, "POST", path, &[("Authorization", &bearer)], Some(&body));
        let told = told.expect("an answer");
        let input = told.json()["ingest"].as_str().map(str::to_owned);
        input.unwrap_or_else(|| panic!("no number in {}: {}", told.status, told.body))
    })
}

fn erased_account_leaves_no_word_and_every_sum(site: &Site) {
    site.edit("[log]", "[[source]]\ntenant = \"acme\"\nsource = \"default\"\nprofile = \"homegrown-csv\"\n[log]");
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    let created = daemon.api(&key, "PUT", "acme/accounts/Q77", Some(&person(start)));
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(daemon.api(&key, "PUT", "acme/accounts/other", Some(&internet(1))).status, 201);
    settled(site);
    sessions(site, midnight(start) + 5.hours());
    wait_for("both sessions are folded", SOON, || {
        let listed = daemon.api(&key, "GET", "acme/sessions?state=stopped", None).json();
        (listed["items"].as_array().is_some_and(|items| items.len() == 2)).then_some(())
    });
    let inputs = sent(&daemon, &site.key("acme", "push"));
    let visit = json!({"type": "one_off", "id": "visit", "amount": "35.00", "on": start.to_string(),
        "description": format!("Visit at {}'s, bell of Zaphod", WORDS[0])});
    let posted = daemon.api(&key, "POST", "acme/accounts/Q77/charges", Some(&visit));
    assert_eq!(posted.status, 201, "{}", posted.body);
    planted(site);
    site.succeed(&["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", &start.to_string()]);
    let looked = daemon.api(&key, "GET", "acme/who?address=198.51.100.77", None);
    assert_eq!(looked.status, 200, "{}", looked.body);

    let export = site.json(&["account", "export", "Q77", "--tenant", "acme"]);
    for word in WORDS {
        assert!(export.to_string().contains(word), "{word} is missing in the export: {export:#}");
    }
    for list in [
        "lines",
        "charges",
        "inputs",
        "put_aside",
        "held_changes",
        "observations",
        "events",
        "calls",
        "jobs",
        "elements",
        "exceptions",
        "findings",
        "named_in_events",
        "deliveries",
        "devices_seen",
        "leases",
        "audit",
    ] {
        assert!(export[list].as_array().is_some_and(|list| !list.is_empty()), "{list} is empty: {export:#}");
    }
    assert!(export.to_string().contains("bell of Zaphod"), "{export:#}");
    assert!(
        inputs.iter().all(|input| kept(site, input).is_some_and(|text| text.contains(WORDS[0]))),
        "what came is kept"
    );
    let before = holdings(site, "before.backup");
    for word in WORDS.into_iter().chain(["bell of Zaphod"]) {
        assert!(!places(word, &before).is_empty(), "the search finds no {word} before the erasure");
    }

    // What stands in the way is told.
    let erase = ["account", "erase", "Q77", "--tenant", "acme", "--reason", "asked to be forgotten"];
    refused(site, &erase, "not closed");
    assert_eq!(daemon.api(&key, "DELETE", "acme/accounts/Q77", None).status, 202);
    settled(site);
    refused(site, &erase, "kept from others");
    for kept in site.json(&["quarantine", "list"]).as_array().expect("a list") {
        site.succeed(&["quarantine", "release", kept["value"].as_str().expect("a value")]);
    }
    site.succeed(&["account", "hold-legal", "Q77", "--tenant", "acme", "--reason", "court order", "--case", "C-1"]);
    refused(site, &erase, "legal hold");
    site.succeed(&["account", "release-legal", "Q77", "--tenant", "acme"]);

    site.succeed(&["account", "hold-legal", "other", "--tenant", "acme", "--reason", "court order", "--case", "C-2"]);
    let lines = site.json(&["line", "list", "--tenant", "acme"]);
    let batch = lines["items"][0]["batch"].as_str().expect("a batch").to_owned();
    let manifest = daemon.api(&key, "GET", &format!("acme/batches/{batch}"), None).json();
    assert!(manifest["closed_sha256"].is_null(), "{manifest:#}");
    let usage = site.json(&["usage", "show", "Q77", "--tenant", "acme", "--from", &midnight(start).to_string()]);
    woken_some_day(site);
    let told = site.json(&erase);
    assert_eq!(told["log_emptied"], true, "{told:#}");
    let erased = &told["erased"]["acme/default/Q77"];
    assert_eq!(
        (&erased["records"], &erased["inputs"], &erased["charges"]),
        (&json!(2), &json!(2), &json!(2)),
        "{told:#}"
    );

    // What came of the person alone is gone; what another's legal hold covers has the other still.
    assert_eq!(kept(site, &inputs[0]), None);
    let shared = kept(site, &inputs[1]).expect("a legal hold keeps it");
    assert!(shared.contains("other;Ada Other;RES-100;02:00:5e:10:20:3e"), "{shared}");
    assert!(shared.contains("Q77;xxxxxxxxxxxxxxxx;") && WORDS.iter().all(|word| !shared.contains(word)), "{shared}");
    let of_other = site.json(&["ingest", "show", &inputs[1]]).to_string();
    assert!(of_other.contains("other") && of_other.contains("/bill_cycle"), "another's fault stays: {of_other}");

    // Rows without a word are of the person all the same; the digest of a call stays, so that its file cannot bring it back.
    for left in [
        "SELECT COUNT(*) FROM drift",
        "SELECT COUNT(*) FROM mailbox_wake",
        "SELECT COUNT(*) FROM call_record WHERE number NOT LIKE 'erased:%' OR destination <> 'erased'",
    ] {
        assert_eq!(sql(site, left), "0", "{left}");
    }
    assert_eq!(sql(site, "SELECT digest FROM call_record"), "planted");
    assert_eq!(erased["calls"], 1, "{told:#}");

    let after = holdings(site, "after.backup");
    for word in WORDS.into_iter().chain(["bell of Zaphod"]) {
        assert_eq!(places(word, &after), Vec::<&str>::new(), "{word} is still there");
    }
    // Compressed pages of the journal are read as records.
    let records = site.succeed(&["--json", "session", "show", "quix-session"]);
    assert!(records.contains("xxxx") && WORDS.iter().all(|word| !records.contains(word)), "{records}");

    // Lines are what they were but for the description of what was posted; the batch says so.
    let (mut expected, mut taken_out) = (lines.clone(), 0);
    for line in expected["items"].as_array_mut().expect("a list") {
        if line["description"].as_str().is_some_and(|text| text.contains("Zaphod")) {
            line["description"] = json!(format!("charge, {start}"));
            taken_out += 1;
        }
    }
    assert_eq!(taken_out, 1, "{lines:#}");
    let left = site.json(&["line", "list", "--tenant", "acme"]);
    assert_eq!(left, expected, "lines never change otherwise");
    let now = daemon.api(&key, "GET", &format!("acme/batches/{batch}"), None).json();
    assert_eq!(now["closed_sha256"], manifest["sha256"], "{now:#}");
    let octets = daemon.api(&key, "GET", &format!("acme/batches/{batch}/lines"), None).body;
    let file = site.path("octets");
    std::fs::write(&file, octets).expect("a file");
    let sum = run("coreutils", "sha256sum", &[&file.display().to_string()]);
    assert_eq!(now["sha256"], json!(String::from_utf8_lossy(&sum.stdout).split(' ').next()), "{now:#}");
    let visited =
        left["items"].as_array().into_iter().flatten().find(|line| line["description"] == format!("charge, {start}"));
    let (id, pack) = (visited.expect("the line")["id"].as_str().expect("an id"), site.path("pack"));
    site.succeed(&["line", "explain", id, "--pack", &pack.display().to_string()]);
    let proven = Command::new("python3").args(["-B", "verify.py"]).current_dir(&pack).output().expect("python3 runs");
    assert!(proven.status.success(), "{proven:?}");
    let usage_after = site.json(&["usage", "show", "Q77", "--tenant", "acme", "--from", &midnight(start).to_string()]);
    assert_eq!(usage_after, usage, "what was used stays");
    let verified = site.json(&["audit", "verify"]);
    assert_eq!(verified["audit"]["breaks"], json!([]), "{verified:#}");
    assert!(verified["audit"]["erased"].as_u64().is_some_and(|erased| erased > 0), "{verified:#}");
    let listed = site.json(&["audit", "list", "--tenant", "acme", "--account", "Q77"]);
    let deeds = listed.as_array().expect("a list");
    let place = deeds.iter().position(|deed| deed["action"] == "account.erase").expect("the erasure stands there");
    let before = &deeds[place + 1];
    assert!(before["erased"] == true && before["subject"].is_null() && before["detail"].is_null(), "{listed:#}");

    // Nothing that is done again brings it back.
    let again =
        site.json(&["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", &start.to_string(), "--dry-run"]);
    assert!(!again.to_string().contains("charge, "), "what was posted is billed: {again:#}");
    // The other subscriber is as before.
    let other = site.succeed(&["--json", "session", "show", "other-session"]);
    assert!(other.contains("user1@acme") && other.contains("198.51.100.1"), "{other}");
    assert_eq!(daemon.api(&key, "GET", "acme/accounts/other", None).status, 200);
    assert!(daemon.stop() < Duration::from_secs(10));
}

#[test]
fn erased_account_leaves_no_word_and_every_sum_on_sqlite() {
    erased_account_leaves_no_word_and_every_sum(&Site::sqlite());
}

#[test]
fn erased_account_leaves_no_word_and_every_sum_on_postgres() {
    erased_account_leaves_no_word_and_every_sum(&Site::postgres());
}

/// Every row in the pages of PostgreSQL's tables, those too that nobody sees any more; by the table's name.
fn rows_in_pages(site: &Site) -> Vec<(String, Vec<u8>)> {
    sql(site, "CHECKPOINT");
    let told = sql(
        site,
        "SELECT CAST(page.table_oid AS REGCLASS), STRING_AGG(ENCODE(item.t_data, 'hex'), ' ') FROM (
             SELECT oid AS table_oid, GENERATE_SERIES(0, PG_RELATION_SIZE(oid) / 8192 - 1) AS number FROM pg_class
             WHERE relkind IN ('r', 't') AND (relnamespace = CAST('public' AS REGNAMESPACE) OR relname IN
                 (SELECT 'pg_toast_' || oid FROM pg_class WHERE relnamespace = CAST('public' AS REGNAMESPACE)))
         ) AS page, HEAP_PAGE_ITEMS(GET_RAW_PAGE(CAST(CAST(page.table_oid AS REGCLASS) AS TEXT), page.number)) AS item
         WHERE item.t_data IS NOT NULL GROUP BY page.table_oid",
    );
    let row = |line: &str| line.split_once('|').map(|(table, rows)| (table.to_owned(), rows.as_bytes().to_vec()));
    told.lines().filter_map(row).collect()
}

#[test]
fn after_an_erasure_no_row_in_the_pages_of_postgres_has_a_word() {
    let site = Site::postgres();
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    for (id, body) in [("Q77", person(start)), ("other", internet(1))] {
        let pushed = daemon.api(&key, "PUT", &format!("acme/accounts/{id}"), Some(&body));
        assert_eq!(pushed.status, 201, "{}", pushed.body);
    }
    settled(&site);
    sessions(&site, midnight(start) + 5.hours());
    wait_for("both sessions are folded", SOON, || {
        let listed = daemon.api(&key, "GET", "acme/sessions?state=stopped", None).json();
        (listed["items"].as_array().is_some_and(|items| items.len() == 2)).then_some(())
    });
    planted(&site);
    assert_eq!(daemon.api(&key, "DELETE", "acme/accounts/Q77", None).status, 202);
    settled(&site);
    for kept in site.json(&["quarantine", "list"]).as_array().expect("a list") {
        site.succeed(&["quarantine", "release", kept["value"].as_str().expect("a value")]);
    }
    // Nobody reads meanwhile: rows that somebody may still see stay.
    assert!(daemon.stop() < Duration::from_secs(10));
    sql(&site, "CREATE EXTENSION pageinspect");
    let before = rows_in_pages(&site);
    for word in WORDS {
        assert!(!places(word, &before).is_empty(), "the search finds no {word} before the erasure");
    }

    site.succeed(&["account", "erase", "Q77", "--tenant", "acme", "--reason", "asked to be forgotten"]);
    let after = rows_in_pages(&site);
    assert!(after.iter().any(|(table, _)| table == "account"), "the search finds rows");
    for word in WORDS {
        assert_eq!(places(word, &after), Vec::<&str>::new(), "{word} is still there");
    }
    // What is compressed or sealed shows no word: its table was swept like all that may have one.
    let (holding, _) = IDENTITY.split_once("## Holds none").expect("two lists");
    let holding: BTreeSet<&str> =
        holding.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let swept = sql(&site, "SELECT relname FROM pg_stat_user_tables WHERE last_vacuum IS NOT NULL");
    let swept: BTreeSet<&str> = swept.lines().collect();
    assert_eq!(holding.difference(&swept).collect::<Vec<_>>(), Vec::<&&str>::new(), "tables that were not swept");
}

const KEPT: &str = "realms = [\"acme\"]\nretention = { raw = \"400d\", sessions = \"30d\", audit = \"30d\", ingest = \"2d\" }\n\
                    history_case = \"required\"";

/// Days for which the keeper of the journal keeps what arrived, where the catalog alone decides.
const LONG: u32 = 100_000;

#[test]
fn what_is_older_than_its_retention_goes_and_a_legal_hold_keeps_it() {
    for site in [Site::sqlite(), Site::postgres()] {
        site.edit("[log]", "[[source]]\ntenant = \"acme\"\nsource = \"default\"\nprofile = \"homegrown-csv\"\n[log]");
        site.prepare(&CATALOG.replace("realms = [\"acme\"]", KEPT));
        let key = site.key("acme", "admin");
        let daemon = site.start();
        let push = |id: &str, body: &Value| {
            let answer = daemon.api(&key, "PUT", &format!("acme/accounts/{id}"), Some(body));
            assert_eq!(answer.status, 201, "{}", answer.body);
        };
        let (start, _) = last_period(Timestamp::now());
        push("Q77", &person(start));
        push("other", &internet(1));
        sessions(&site, Timestamp::now() - 4.hours());
        wait_for("both sessions are folded", SOON, || {
            let listed = daemon.api(&key, "GET", "acme/sessions?state=stopped", None).json();
            (listed["items"].as_array().is_some_and(|items| items.len() == 2)).then_some(())
        });
        cases_are_asked_for(&site, &daemon, &key);
        let inputs = sent(&daemon, &site.key("acme", "push"));
        sql(&site, "DELETE FROM idempotency");
        let now = Timestamp::now();
        let answer = format!("'acme', 'once', 'x', 200, '{{}}', {}", now.as_microsecond());
        sql(
            &site,
            &format!(
                "INSERT INTO idempotency (tenant, key, request_digest, status, response, created_at) VALUES ({answer})"
            ),
        );
        let archive = site.path("archive");
        std::fs::create_dir(&archive).expect("a folder");
        let archived = archive.join(format!("journal-{}.lmj", now.to_zoned(jiff::tz::TimeZone::UTC).date()));
        std::fs::write(&archived, "a day").expect("an archive");
        site.succeed(&["account", "hold-legal", "Q77", "--tenant", "acme", "--reason", "court order"]);
        wait_for("the audit is sealed", SOON, || {
            let deeds = site.json(&["audit", "list", "--tenant", "acme"]);
            deeds.as_array().expect("a list").iter().all(|deed| deed["sequence"].is_i64()).then_some(())
        });
        assert!(daemon.stop() < Duration::from_secs(10));

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let look = |days: i64, keep_days: u32| {
            runtime.block_on(async {
                let config = StoreConfig {
                    url: url(&site),
                    key_file: Some(site.path("key")),
                    previous_key_file: None,
                    owner: "retention".to_owned(),
                };
                let store = Store::open(&config).await.expect("a store");
                let clock = Clock::fixed(now + (days * 24).hours());
                let hearts = Heartbeats::new();
                let mut chain = Chain::new(store.clone(), clock.clone(), Metrics::new(), hearts.register("audit"));
                chain.turn().await.expect("sealed");
                // Days are sealed once they are over.
                let keeper = Keeper {
                    store: store.clone(),
                    clock: Clock::fixed(now + 48.hours()),
                    keeping: Keeping { keep_days, archive: None },
                    metrics: Metrics::new(),
                    beat: hearts.register("keeper"),
                };
                while keeper.turn().await.expect("kept") {}
                let beat = hearts.register("retention");
                let archive = Some(archive.clone());
                let retention = Retention { store: store.clone(), clock: clock.clone(), archive, beat };
                let done = retention.turn().await.expect("a look");
                let mut tx = store.write().await.expect("a transaction");
                let inputs = ingest::forget(&mut tx, clock.now(), 100).await.expect("a look at inputs");
                tx.commit().await.expect("written");
                store.close().await;
                (done, inputs)
            })
        };
        let (done, _) = look(1, LONG);
        assert_eq!((done.answers, sql(&site, "SELECT COUNT(*) FROM idempotency")), (0, "1".to_owned()));
        let (done, _) = look(3, LONG);
        assert_eq!((done.answers, sql(&site, "SELECT COUNT(*) FROM idempotency")), (1, "0".to_owned()));
        let (done, _) = look(29, LONG);
        assert_eq!((done.sessions, done.deeds), (0, 0), "nothing is old yet");
        let (done, _) = look(31, LONG);
        // The deeds from the oldest up to the first one of the held account: the catalog and the key.
        assert!(done.sessions >= 1 && done.deeds == 2, "{done:?}");
        let verified = site.json(&["audit", "verify", "--chain"]);
        assert_eq!(verified["audit"]["breaks"], json!([]), "{verified:#}");
        let shown = |session: &str| site.json(&["session", "show", session, "--records", "0", "--case", "C-9"]);
        assert!(shown("other-session")[0]["user"].is_null(), "its name went");
        assert_eq!(shown("other-session")[0]["in_octets"], 3_000_000_000u32, "what was counted stays");
        assert_eq!(shown("quix-session")[0]["user"], WORDS[7], "a legal hold keeps it");
        // What is raw stays whole, others' too: records, their archives, and what came of billing systems.
        let raw = |session: &str| site.succeed(&["--json", "session", "show", session, "--case", "C-9"]);
        let (done, gone) = look(402, 1);
        assert_eq!((done.runs, done.files, gone, archived.exists()), (0, 0, 0, true), "{done:?}");
        assert!(raw("quix-session").contains(WORDS[7]) && raw("other-session").contains("user1@acme"));
        assert!(inputs.iter().all(|input| kept(&site, input).is_some_and(|text| text.contains(WORDS[0]))));

        site.succeed(&["account", "release-legal", "Q77", "--tenant", "acme"]);
        let (_, gone) = look(29, LONG);
        assert_eq!(gone, 0, "what came is kept for thirty days");
        let (done, gone) = look(40, LONG);
        assert!(done.sessions >= 1 && done.deeds > 2, "{done:?}");
        site.succeed(&["audit", "verify", "--chain"]);
        assert!(shown("quix-session")[0]["user"].is_null(), "nothing holds it any more");
        assert_eq!((done.runs, done.files, gone), (0, 0, 2), "{done:?}");
        assert_eq!(site.json(&["ingest", "list", "--tenant", "acme"]), json!([]));
        assert_eq!(sql(&site, "SELECT COUNT(*) FROM ingest_fault"), "0");
        assert!(raw("quix-session").contains(WORDS[7]), "raw records have days left");
        let (done, _) = look(402, LONG);
        assert!(done.runs >= 1 && done.files == 1 && !archived.exists(), "{done:?}");
        assert!(!raw("quix-session").contains(WORDS[7]) && !raw("other-session").contains("user1@acme"));
    }
}

/// With `history_case = "required"` nobody looks without naming one, and whoever looks stands in the audit.
fn cases_are_asked_for(site: &Site, daemon: &Daemon, key: &str) {
    let at = (Timestamp::now() - 3.hours()).to_string();
    for path in [&*format!("who?address=198.51.100.77&at={at}"), "accounts/Q77/timeline", "sessions?account=Q77"] {
        let answer = daemon.api(key, "GET", &format!("acme/{path}"), None);
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert!(answer.body.contains("case-needed"), "{path}: {}", answer.body);
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str()), ("Lastmile-Case", "C-4711"), ("Lastmile-Actor", "Nora NOC")];
        let address = format!("/v1/tenants/acme/{path}");
        let answer = crate::harness::http::request(site.http_port, "GET", &address, &headers, None).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.body.contains(if path.starts_with("who") { "Q77" } else { "quix" }), "{path}: {}", answer.body);
    }
    let without = site.lastmile(&["who", "198.51.100.77", "--at", &at]);
    assert_eq!(without.status.code(), Some(1), "{without:?}");
    let who = site.json(&["who", "198.51.100.77", "--at", &at, "--case", "C-4712"]);
    assert_eq!(who[0]["account"], "Q77", "{who:#}");
    let timeline = site.json(&["account", "timeline", "Q77", "--tenant", "acme", "--case", "C-4713"]);
    let kinds: Vec<&str> = timeline.as_array().into_iter().flatten().filter_map(|one| one["kind"].as_str()).collect();
    assert!(kinds.contains(&"session.started") && kinds.contains(&"deed"), "{timeline:#}");
    let found = site.json(&["find", "00-1A-2B-77-88-99", "--tenant", "acme"]);
    assert!(found.as_array().is_some_and(|found| found.iter().any(|one| one["account"] == "Q77")), "{found:#}");
    let found = site.json(&["find", "quixotic"]);
    assert_eq!((&found[0]["what"], &found[0]["account"]), (&json!("document"), &json!("Q77")), "{found:#}");
    let deeds =
        site.json(&["audit", "list", "--tenant", "acme", "--account", "Q77", "--action", "history."]).to_string();
    for case in ["C-4711", "C-4712", "C-4713"] {
        assert!(deeds.contains(case), "{case} is missing in {deeds}");
    }
    let by = site.json(&["audit", "list", "--tenant", "acme", "--actor", "nora noc"]);
    assert_eq!(by.as_array().map(Vec::len), Some(3), "{by:#}");
}

/// Where identity may stand: each table with its columns, and what an erasure does about them.
const IDENTITY: &str = include_str!("identity.md");

/// The columns of texts and octets of every table, as the database has them.
fn columns(site: &Site) -> BTreeMap<String, BTreeSet<String>> {
    const OF_SQLITE: &str = "SELECT tables.name || '|' || COALESCE(columns.name, '') FROM sqlite_master AS tables
         LEFT JOIN pragma_table_info(tables.name) AS columns ON UPPER(columns.type) NOT IN ('BIGINT', 'INTEGER', 'BOOLEAN')
         WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite!_%' ESCAPE '!'";
    const OF_POSTGRES: &str = "SELECT tables.table_name || '|' || COALESCE(columns.column_name, '')
         FROM information_schema.tables AS tables LEFT JOIN information_schema.columns AS columns
              ON columns.table_name = tables.table_name AND columns.table_schema = tables.table_schema
              AND columns.data_type NOT IN ('bigint', 'integer', 'smallint', 'boolean')
         WHERE tables.table_schema = 'public' AND tables.table_type = 'BASE TABLE'";
    let told = match url(site).strip_prefix("sqlite://") {
        Some(_) => {
            let accounting =
                run("sqlite3", "sqlite3", &[&site.path("lastmile-accounting.db").display().to_string(), OF_SQLITE]);
            assert!(accounting.status.success(), "{accounting:?}");
            sql(site, OF_SQLITE) + "\n" + &String::from_utf8_lossy(&accounting.stdout)
        }
        None => sql(site, OF_POSTGRES),
    };
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (table, column) in told.lines().filter_map(|line| line.split_once('|')) {
        let columns = tables.entry(table.to_owned()).or_default();
        columns.extend(Some(column.to_owned()).filter(|column| !column.is_empty()));
    }
    tables.remove("_sqlx_migrations");
    tables
}

#[test]
fn every_column_either_loses_identity_in_an_erasure_or_has_none_and_says_why() {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in IDENTITY.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")) {
        let (table, rest) = row.split_once("` | ").expect("a table's name");
        let (columns, why) = rest.split_once(" | ").expect("columns and what becomes of them");
        assert!(why.len() > 5, "{table}: {why:?} says nothing");
        for column in columns.split('`').skip(1).step_by(2) {
            assert!(
                known.entry(table.to_owned()).or_default().insert(column.to_owned()),
                "{table}.{column} stands twice"
            );
        }
        known.entry(table.to_owned()).or_default();
    }
    for site in [Site::sqlite(), Site::postgres()] {
        site.succeed(&["migrate"]);
        let found = columns(&site);
        assert!(found.len() > 50, "{found:?}");
        assert_eq!(found, known, "tests/it/identity.md does not list what the database has");
    }
}
