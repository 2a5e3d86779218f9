//! Letters about use and holds through Debian's Postfix into mailboxes that the daemon itself provisioned: in the subscriber's
//! language, once, and none lost while the mail server is away.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, Report, internet, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::mailhost::MailHost;
use crate::harness::{free_tcp_port, postfixadmin, run, wait_for};

const SOON: Duration = Duration::from_secs(90);
/// The waits between attempts grow: a server that was away for some attempts is tried again within minutes.
const LATE: Duration = Duration::from_secs(420);
const THRESHOLD: &str = "inclusive = false\n[[tariff.threshold]]\nat = \"1 GB\"\nmeter = \"data\"\ndo = [\"notify\"]\n";

/// A message in a mailbox.
#[derive(Debug)]
struct Letter {
    to: String,
    head: String,
    text: String,
}

#[test]
fn thresholds_and_holds_become_letters_in_mailboxes_through_postfix() {
    if String::from_utf8_lossy(&run("coreutils", "id", &["-u"]).stdout).trim() != "0" {
        println!("NOT RUN: Postfix starts only as root");
        return;
    }
    let site = Site::sqlite();
    if let Err(reason) = postfixadmin::make_tables(&site.mail_url) {
        println!("NOT RUN: {reason}");
        return;
    }
    crate::mail::let_others_read(&site.mail_url);
    let host = MailHost::start(&site.mail_url, free_tcp_port());
    let notify = format!(
        "[notify]\nfrom = \"Acme <noc@isp.example>\"\nsmtp = {{ host = \"127.0.0.1\", port = {} }}\n[log]",
        host.smtp_port
    );
    site.edit("[log]", &notify);
    site.prepare(&CATALOG.replace("inclusive = false\n", THRESHOLD));
    let key = site.key("acme", "admin");
    let daemon = site.start();
    wait_for("the way to people is there", SOON, || {
        (site.json(&["webhook", "list"]).as_array().map(Vec::len) == Some(1)).then_some(())
    });
    let people = [(1, "ada", "de"), (2, "bob", "fr")];
    for (number, name, language) in people {
        push(&daemon, &key, &person(number, name, language, false), number);
    }
    for (number, ..) in people {
        wait_for("the mailbox stands", SOON, || {
            let account = daemon.api(&key, "GET", &format!("acme/accounts/{number}"), None).json();
            let services = account["services"].as_array().cloned().unwrap_or_default();
            services.iter().all(|one| one["provisioning"]["state"] == "applied").then_some(())
        });
    }

    // What was used, from a NAS to the mailbox.
    for (kind, seconds, out_octets) in [("Start", 0, 0), ("Stop", 60, 1_500_000_000)] {
        let at = Timestamp::now();
        let report = Report { user: "user1@acme", session: "s1", kind, at, seconds, in_octets: 0, out_octets };
        assert!(radclient(site.radius_port, &report), "the collector answers");
    }
    let told = wait_for("the threshold is told", SOON, || letters(&host).pop());
    assert!(told.to.contains("ada@acme.example") && told.head.contains("From: Acme <noc@isp.example>"), "{told:?}");
    for words in ["Guten Tag Zoë ada", "Ihr Anschluss 1-1 hat 1.5 GB verbraucht", "Schwelle 1 GB", "Acme Cable"] {
        assert!(told.text.contains(words), "{words}: {}", told.text);
    }

    // A hold reaches both, each in their own words.
    for (number, name, language) in people {
        push(&daemon, &key, &person(number, name, language, true), number);
    }
    wait_for("the holds are told", SOON, || (letters(&host).len() == 3).then_some(()));
    let to = |name: &str| -> Vec<Letter> {
        letters(&host).into_iter().filter(|letter| letter.to.contains(&format!("{name}@acme.example"))).collect()
    };
    assert!(
        to("ada").iter().any(|letter| letter.text.contains("Ihre Anschlüsse sind eingeschränkt")),
        "{:?}",
        to("ada")
    );
    assert!(
        to("bob")[0].text.contains("Bonjour Zoë bob") && to("bob")[0].text.contains("sont restreints"),
        "{:?}",
        to("bob")
    );

    // While the mail server is away letters wait, also over a restart of the daemon; then each comes once.
    host.stop_postfix();
    for (number, name, language) in people {
        push(&daemon, &key, &person(number, name, language, false), number);
    }
    let waiting = || {
        let list = site.json(&["webhook", "deliveries", "mail.acme.account"]);
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter().filter(|one| one["state"] == "pending").count()
    };
    // A letter whose attempt is not recorded may have been taken: it would wait for a person.
    wait_for("both attempts failed", SOON, || (waiting() == 2).then_some(()));
    daemon.kill();
    assert_eq!(letters(&host).len(), 3, "nothing came by another way");
    host.start_postfix();
    let daemon = site.start();
    wait_for("the letters come", LATE, || (letters(&host).len() >= 5).then_some(()));
    wait_for("nothing waits", LATE, || (waiting() == 0).then_some(()));
    let lifted = |name: &str, words: &str| to(name).iter().filter(|letter| letter.text.contains(words)).count();
    assert_eq!((letters(&host).len(), to("ada").len(), to("bob").len()), (5, 3, 2), "{:?}", letters(&host));
    assert_eq!((lifted("ada", "aufgehoben"), lifted("bob", "levée")), (1, 1), "{:?}", letters(&host));
    let log = site.log_text();
    assert!(!log.contains("ada@acme.example") && !log.contains("Zoë"), "{log}");
    drop(daemon);
}

fn person(number: u32, name: &str, language: &str, held: bool) -> Value {
    let mut document = internet(number);
    document["name"] = json!(format!("Zoë {name}"));
    document["email"] = json!(format!("{name}@acme.example"));
    document["language"] = json!(language);
    let mailbox = json!({"address": format!("{name}@acme.example"), "password": "pw", "quota_mb": 100});
    let service = json!({"id": format!("{number}-2"), "type": "email", "plan": "mail-5g", "mailbox": mailbox});
    document["services"].as_array_mut().expect("services").push(service);
    if held {
        document["holds"] = json!([{ "kind": "abuse" }]);
    }
    document
}

fn push(daemon: &Daemon, key: &str, document: &Value, number: u32) {
    let answer = daemon.api(key, "PUT", &format!("acme/accounts/{number}"), Some(document));
    assert!(answer.status < 300, "{} {}", answer.status, answer.body);
}

fn letters(host: &MailHost) -> Vec<Letter> {
    let read = |text: String| {
        let text = text.replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n")?;
        let octets = STANDARD.decode(body.split_whitespace().collect::<String>()).ok()?;
        let to = head.lines().find(|line| line.starts_with("To:"))?.to_owned();
        Some(Letter { to, head: head.to_owned(), text: String::from_utf8(octets).ok()? })
    };
    host.letters().into_iter().filter_map(read).collect()
}
