//! SIGHUP: secrets rotate and NAS appear without a lost packet, a half-written file changes nothing, the level follows.

use std::time::Duration;

use crate::harness::acme::radclient_tries;
use crate::harness::daemon::{Daemon, NAS_SECRET, Site};
use crate::harness::{http, wait_for};

const SOON: Duration = Duration::from_secs(15);
const NEW_SECRET: &str = "rotated456";

#[test]
fn rotated_secret_works_beside_the_previous_one_and_a_new_nas_appears() {
    let site = Site::sqlite();
    site.edit("127.0.0.0/8", "127.0.0.1");
    let daemon = site.start();
    assert!(answered(&site, NAS_SECRET, "127.0.0.1"));
    assert!(unanswered(&site, NEW_SECRET, "127.0.0.1"), "not yet known");
    assert!(unanswered(&site, "of-its-own", "127.0.0.9"), "not yet a NAS");

    let both = format!("secret = \"{NEW_SECRET}\"\nprevious_secret = \"{NAS_SECRET}\"");
    site.edit(&format!("secret = \"{NAS_SECRET}\""), &both);
    let second = "[[radius.nas]]\nname = \"bng2\"\naddress = \"127.0.0.9\"\nsecret = \"of-its-own\"\n[tftp]";
    site.edit("[tftp]", second);
    reload(&site, &daemon, "applied", 1);
    assert!(answered(&site, NAS_SECRET, "127.0.0.1"), "the NAS is not moved yet");
    assert!(answered(&site, NEW_SECRET, "127.0.0.1"), "the NAS is moved");
    assert!(answered(&site, "of-its-own", "127.0.0.9"), "the new NAS");
    assert!(unanswered(&site, NEW_SECRET, "127.0.0.9"), "a NAS has its own secret");
    wait_for("what still uses the previous secret is told", SOON, || {
        site.log_text().contains("NAS bng1 still signs with its previous secret").then_some(())
    });

    site.edit(&both, &format!("secret = \"{NEW_SECRET}\""));
    reload(&site, &daemon, "applied", 2);
    assert!(unanswered(&site, NAS_SECRET, "127.0.0.1"), "the rotation is over");
    assert!(answered(&site, NEW_SECRET, "127.0.0.1"));
    let log = site.log_text();
    for secret in [NAS_SECRET, NEW_SECRET, "of-its-own"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert!(daemon.stop() < Duration::from_secs(5), "the same process all the time");
}

#[test]
fn half_written_configuration_changes_nothing_and_is_told_in_one_line() {
    let site = Site::sqlite();
    let daemon = site.start();
    let whole = std::fs::read_to_string(&site.config).expect("the configuration");
    // Inside the NAS' secret, inside a key, inside a table's name: where writing stopped is where the fault is.
    let cuts = ["testing", "[[radius.nas]]\nname = \"bng1\"\naddr", "[database]\nurl = \"sqlite:///x\"\n[ap", "[datab"];
    for (nth, last) in cuts.into_iter().enumerate() {
        let text = match whole.find(last) {
            Some(at) => whole[..at + last.len()].to_owned(),
            None => last.to_owned(),
        };
        std::fs::write(&site.config, &text).expect("the configuration");
        reload(&site, &daemon, "refused", nth + 1);
        let log = site.log_text();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("not reloaded")).collect();
        assert_eq!(told.len(), nth + 1, "{log}");
        let place = format!("lastmile.toml:{}:", text.lines().count());
        let line = told[nth];
        assert!(line.contains(&place), "{place} is not in {line}");
        assert!(line.contains("the old one stays in force") && !line.contains("testing"), "{line}");
        assert!(!line.contains("section [api] is required"), "what is missing says nothing in half a file: {line}");
        assert!(log.lines().all(|line| line.starts_with("20")), "a line begins with its time: {log}");
        assert_eq!(http::request(site.http_port, "GET", "/readyz", &[], None).expect("an answer").status, 200);
    }
    assert!(answered(&site, NAS_SECRET, "127.0.0.1"), "the old secret is in force");

    std::fs::write(&site.config, whole).expect("the configuration");
    reload(&site, &daemon, "applied", 1);
    assert!(answered(&site, NAS_SECRET, "127.0.0.1"));
    daemon.stop();
}

#[test]
fn log_level_follows_a_reload() {
    let site = Site::sqlite();
    let daemon = site.start();
    site.edit("level = \"info\"", "level = \"error\"");
    reload(&site, &daemon, "applied", 1);
    assert!(unanswered(&site, "wrong", "127.0.0.1"));
    assert!(!site.log_text().contains("dropped"), "warnings are off: {}", site.log_text());
    assert!(!site.log_text().contains("was reloaded"), "so is this");
    site.edit("level = \"error\"", "level = \"info\"");
    reload(&site, &daemon, "applied", 2);
    wait_for("news are told again", SOON, || site.log_text().contains("was reloaded").then_some(()));
    daemon.stop();
    assert!(site.log_text().contains("Stopped."), "{}", site.log_text());
}

/// SIGHUP, and waiting until the nth reload of that outcome is counted.
fn reload(site: &Site, daemon: &Daemon, outcome: &str, nth: usize) {
    daemon.signal("HUP");
    wait_for("the reload is counted", SOON, || {
        let page = http::request(site.http_port, "GET", "/metrics", &[], None).ok()?.body;
        let line = page.lines().find(|line| line.contains("reload") && line.contains(&format!("\"{outcome}\"")))?;
        line.ends_with(&format!(" {nth}")).then_some(())
    });
}

/// Sends an accounting start from an address of loopback; whether it was answered.
fn answered(site: &Site, secret: &str, from: &str) -> bool {
    starts(15, site, secret, from)
}

fn unanswered(site: &Site, secret: &str, from: &str) -> bool {
    !starts(2, site, secret, from)
}

fn starts(tries: u32, site: &Site, secret: &str, from: &str) -> bool {
    let attributes = format!(
        "Packet-Src-IP-Address = {from}\nUser-Name = \"ada@acme\"\nAcct-Session-Id = \"{}\"\nAcct-Status-Type = Start\n\
         NAS-Identifier = \"bng1\"\n",
        jiff::Timestamp::now().as_nanosecond()
    );
    let printed = radclient_tries(tries, site.radius_port, "acct", secret, &attributes);
    printed.contains("Received Accounting-Response")
}
