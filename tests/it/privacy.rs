//! What a person may ask: an export of everything, an erasure after which no file, log, dump or backup of ours has a word of
//! them while every sum and the audit's chain stay; legal holds; retention by class; who looked at history, for which case.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use lastmile::custodian::{Chain, Retention};
use lastmile::store::{Store, StoreConfig};
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
    spellings.push(hex(&dashes.to_uppercase()));
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

fn erased_account_leaves_no_word_and_every_sum(site: &Site) {
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
    site.succeed(&["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", &start.to_string()]);
    let looked = daemon.api(&key, "GET", "acme/who?address=198.51.100.77", None);
    assert_eq!(looked.status, 200, "{}", looked.body);

    let export = site.json(&["account", "export", "Q77", "--tenant", "acme"]);
    for word in WORDS {
        assert!(export.to_string().contains(word), "{word} is missing in the export: {export:#}");
    }
    assert!(export["lines"].as_array().is_some_and(|lines| !lines.is_empty()), "{export:#}");
    let before = holdings(site, "before.backup");
    for word in WORDS {
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

    let lines = site.json(&["line", "list", "--tenant", "acme"]);
    let usage = site.json(&["usage", "show", "Q77", "--tenant", "acme", "--from", &midnight(start).to_string()]);
    let told = site.json(&erase);
    assert_eq!(told["log_emptied"], true, "{told:#}");
    assert_eq!(told["erased"]["acme/default/Q77"]["records"], 2, "{told:#}");

    let after = holdings(site, "after.backup");
    for word in WORDS {
        assert_eq!(places(word, &after), Vec::<&str>::new(), "{word} is still there");
    }
    // Compressed pages of the journal are read as records.
    let records = site.succeed(&["--json", "session", "show", "quix-session"]);
    assert!(records.contains("xxxx") && WORDS.iter().all(|word| !records.contains(word)), "{records}");

    assert_eq!(site.json(&["line", "list", "--tenant", "acme"]), lines, "lines never change");
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

const KEPT: &str = "realms = [\"acme\"]\nretention = { raw = \"400d\", sessions = \"30d\", audit = \"30d\", ingest = \"2d\" }\n\
                    history_case = \"required\"";

#[test]
fn what_is_older_than_its_retention_goes_and_a_legal_hold_keeps_it() {
    for site in [Site::sqlite(), Site::postgres()] {
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
        site.succeed(&["account", "hold-legal", "Q77", "--tenant", "acme", "--reason", "court order"]);
        wait_for("the audit is sealed", SOON, || {
            let deeds = site.json(&["audit", "list", "--tenant", "acme"]);
            deeds.as_array().expect("a list").iter().all(|deed| deed["sequence"].is_i64()).then_some(())
        });
        assert!(daemon.stop() < Duration::from_secs(10));

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let look = |days: i64| {
            runtime.block_on(async {
                let config = StoreConfig {
                    url: url(&site),
                    key_file: Some(site.path("key")),
                    previous_key_file: None,
                    owner: format!("retention {days}"),
                };
                let store = Store::open(&config).await.expect("a store");
                let clock = Clock::fixed(Timestamp::now() + (days * 24).hours());
                let hearts = Heartbeats::new();
                let mut chain = Chain::new(store.clone(), clock.clone(), Metrics::new(), hearts.register("audit"));
                chain.turn().await.expect("sealed");
                let beat = hearts.register("retention");
                let retention = Retention { store: store.clone(), clock, archive: None, beat };
                let done = retention.turn().await.expect("a look");
                store.close().await;
                done
            })
        };
        let done = look(29);
        assert_eq!((done.sessions, done.deeds), (0, 0), "nothing is old yet");
        let done = look(31);
        // The deeds from the oldest up to the first one of the held account: the catalog and the key.
        assert!(done.sessions >= 1 && done.deeds == 2, "{done:?}");
        let verified = site.json(&["audit", "verify", "--chain"]);
        assert_eq!(verified["audit"]["breaks"], json!([]), "{verified:#}");
        let shown = |session: &str| site.json(&["session", "show", session, "--records", "0", "--case", "C-9"]);
        assert!(shown("other-session")[0]["user"].is_null(), "its name went");
        assert_eq!(shown("other-session")[0]["in_octets"], 3_000_000_000u32, "what was counted stays");
        assert_eq!(shown("quix-session")[0]["user"], WORDS[7], "a legal hold keeps it");

        site.succeed(&["account", "release-legal", "Q77", "--tenant", "acme"]);
        let done = look(40);
        assert!(done.sessions >= 1 && done.deeds > 2, "{done:?}");
        site.succeed(&["audit", "verify", "--chain"]);
        assert!(shown("quix-session")[0]["user"].is_null(), "nothing holds it any more");
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
