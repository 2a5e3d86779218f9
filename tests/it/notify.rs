//! Mail and short messages about events: in the account's language, to whom they concern, and never twice by themselves.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::{Daemon, Site};
use crate::harness::receiver::Receiver;
use crate::harness::wait_for;

const SOON: Duration = Duration::from_secs(90);

/// A mail as the relay got it.
#[derive(Debug, Clone, PartialEq)]
struct Mail {
    to: String,
    head: String,
    text: String,
}

/// How the relay answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// 451 to DATA's end.
    Later,
    /// Takes the mail and says nothing.
    Silent,
}

struct Relay {
    port: u16,
    got: Arc<Mutex<Vec<Mail>>>,
    mood: Arc<Mutex<Mood>>,
}

impl Relay {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (got, mood): (Arc<Mutex<Vec<Mail>>>, _) = (Arc::default(), Arc::new(Mutex::new(Mood::Well)));
        let (kept, asked) = (got.clone(), mood.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, asked) = (kept.clone(), asked.clone());
                std::thread::spawn(move || talk(&stream, &kept, &asked));
            }
        });
        Self { port, got, mood }
    }

    fn got(&self) -> Vec<Mail> {
        self.got.lock().expect("mails").clone()
    }

    /// Those to one address, or below one domain.
    fn to(&self, whom: &str) -> Vec<Mail> {
        self.got().into_iter().filter(|mail| mail.to.contains(whom)).collect()
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().expect("a mood") = mood;
    }
}

fn talk(mut stream: &TcpStream, kept: &Mutex<Vec<Mail>>, asked: &Mutex<Mood>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).ok();
    say("220 relay.example ESMTP")?;
    let mut to = String::new();
    while let Some(Ok(line)) = lines.next() {
        match line.split([' ', ':']).next().unwrap_or_default() {
            "EHLO" => say("250-relay.example\r\n250 8BITMIME")?,
            "RCPT" => {
                to = line.clone();
                say("250 ok")?;
            }
            "DATA" => {
                say("354 go on")?;
                let body: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
                let mood = *asked.lock().expect("a mood");
                if mood == Mood::Later {
                    say("451 not now")?;
                    continue;
                }
                let at = body.iter().position(String::is_empty).unwrap_or(0);
                let text = STANDARD.decode(body[at..].concat()).expect("base64");
                let (head, text) = (body[..at].join("\n"), String::from_utf8(text).expect("UTF-8"));
                kept.lock().expect("mails").push(Mail { to: to.clone(), head, text });
                if mood == Mood::Silent {
                    std::thread::sleep(Duration::from_secs(60));
                }
                say("250 taken")?;
            }
            "QUIT" => return say("221 bye"),
            _ => say("250 ok")?,
        }
    }
    None
}

fn site(relay: &Relay, more: &str) -> Site {
    let site = Site::sqlite();
    let text = format!(
        "[webhooks]\nallow = [\"127.0.0.0/8\"]\n[notify]\nfrom = \"Acme <noc@acme.example>\"\noperator = \"noc@isp.example\"\n\
         smtp = {{ host = \"127.0.0.1\", port = {} }}\n{more}\n[log]",
        relay.port
    );
    site.edit("[log]", &text);
    site.prepare(CATALOG);
    site
}

/// Waits until the tenant's outlets are there: what happens before is not told.
fn start(site: &Site, outlets: usize) -> Daemon {
    let daemon = site.start();
    wait_for("the outlets are there", SOON, || {
        (site.json(&["webhook", "list"]).as_array().map(Vec::len) == Some(outlets)).then_some(())
    });
    daemon
}

fn push(daemon: &Daemon, key: &str, number: u32, change: impl Fn(&mut Value)) {
    let mut body = crate::harness::acme::internet(number);
    change(&mut body);
    let answer = daemon.api(key, "PUT", &format!("acme/accounts/a{number}"), Some(&body));
    assert!(answer.status < 300, "{} {}", answer.status, answer.body);
}

#[test]
fn holds_are_told_in_the_accounts_language_by_mail_and_short_message() {
    let relay = Relay::start();
    let gateway = Receiver::start(|_| 200.into());
    let sms = format!(
        "sms = {{ url = \"{}\", header = \"X-Key\", header_value = \"geheim\", types = [\"hold.placed\"], \
         body = '{{\"to\": {{{{ phone|tojson }}}}, \"text\": {{{{ text|tojson }}}}, \"ref\": {{{{ id|tojson }}}}}}' }}",
        gateway.url("/send")
    );
    let site = site(&relay, &sms);
    let own = site.path("templates/acme/fr");
    std::fs::create_dir_all(&own).expect("a folder");
    std::fs::write(own.join("hold.placed.mail.txt"), "Bonjour {{ account.name }}\n\nà vous\n").expect("a template");
    let templates = site.path("templates").display().to_string();
    site.edit("[notify]", &format!("[notify]\ntemplates = \"{templates}\""));
    let daemon = start(&site, 3);
    let key = site.key("acme", "admin");
    let person = |number: u32, held: bool| {
        move |body: &mut Value| {
            body["language"] = ["de", "fr", "tlh", "en"][number as usize - 1].into();
            body["name"] = "Zoë\u{a0}Müller".into();
            // One that has no address is told nothing.
            if number < 4 {
                body["email"] = format!("user{number}@example.net").into();
            }
            if number == 1 {
                body["phone"] = "+15125550101".into();
            }
            if held {
                body["holds"] = json!([{ "kind": "abuse" }]);
            }
        }
    };
    for held in [false, true] {
        for number in 1..=4 {
            push(&daemon, &key, number, person(number, held));
        }
    }
    wait_for("three are told", SOON, || (relay.to("example.net").len() == 3).then_some(()));
    let text = |number: u32| {
        let mails = relay.to(&format!("user{number}@example.net"));
        assert_eq!(mails.len(), 1, "{mails:?}");
        mails[0].clone()
    };
    assert!(text(1).text.contains("Ihre Anschlüsse sind eingeschränkt"), "{:?}", text(1));
    assert_eq!(text(2).text, "à vous", "the tenant's own template");
    assert!(text(3).text.contains("your services are restricted") && text(3).text.contains("Zoë"), "{:?}", text(3));
    assert!(text(1).head.contains("Auto-Submitted: auto-generated") && text(1).head.contains("Message-ID: <acme."));
    let sent = wait_for("the gateway is asked", SOON, || gateway.got().first().cloned());
    assert_eq!((sent.header("x-key"), &sent.json()["to"]), ("geheim", &json!("+15125550101")));
    assert!(sent.json()["text"].as_str().is_some_and(|text| text.contains("eingeschränkt")), "{}", sent.body);
    // An exception goes to the operator.
    let statement = "INSERT INTO event_sequence VALUES ('acme', 1) ON CONFLICT (tenant) DO UPDATE SET last = last + 1;
        INSERT INTO event SELECT 'acme', last, 'exception.opened', 'x', 1, '{\"exception\":\"1\",\"kind\":\"late\",\"subject\":\"bng1\",\
        \"detail\":\"it is silent\"}' FROM event_sequence WHERE tenant = 'acme'";
    sql(&site, statement);
    wait_for("the operator is told", SOON, || {
        relay.to("noc@isp.example").iter().any(|mail| mail.text.contains("it is silent")).then_some(())
    });
    assert_eq!(relay.to("example.net").len(), 3);
    assert_eq!(gateway.got().len(), 1);
    let log = site.log_text();
    assert!(!log.contains("Müller") && !log.contains("example.net") && !log.contains("geheim"), "{log}");
}

#[test]
fn a_mail_of_which_nobody_knows_is_not_sent_again_and_one_that_was_not_taken_is() {
    let relay = Relay::start();
    let site = site(&relay, "to_account = [\"hold.placed\"]");
    let daemon = start(&site, 2);
    let key = site.key("acme", "admin");
    let told = |number: u32| {
        move |body: &mut Value| {
            body["email"] = format!("user{number}@example.net").into();
            body["holds"] = json!([{ "kind": "abuse" }]);
        }
    };
    relay.be(Mood::Later);
    push(&daemon, &key, 1, told(1));
    let list = || site.json(&["webhook", "deliveries", "mail.acme.account"]).as_array().cloned().unwrap_or_default();
    wait_for("it is put off", SOON, || list().first().filter(|one| one["state"] == "pending").cloned());
    relay.be(Mood::Well);
    wait_for("it is sent again", SOON, || (relay.to("user1").len() == 1).then_some(()));
    wait_for("and recorded", SOON, || list().first().filter(|one| one["state"] == "delivered").cloned());

    // Killed while the relay has it and has not said so.
    relay.be(Mood::Silent);
    push(&daemon, &key, 2, told(2));
    wait_for("the relay has it", SOON, || (relay.to("user2").len() == 1).then_some(()));
    daemon.kill();
    relay.be(Mood::Well);
    let daemon = site.start();
    let dead = wait_for("it waits for a person", SOON, || {
        list().into_iter().find(|one| one["state"] == "dead" && one["subject"] == "default/a2")
    });
    assert!(dead["detail"].as_str().is_some_and(|detail| detail.contains("may have arrived")), "{dead}");
    push(&daemon, &key, 3, told(3));
    wait_for("others are told", SOON, || (relay.to("user3").len() == 1).then_some(()));
    assert_eq!(relay.to("user2").len(), 1, "never twice");
    // A person asks for it again.
    site.succeed(&["webhook", "replay", "mail.acme.account", "--dead"]);
    wait_for("now it is", SOON, || (relay.to("user2").len() == 2).then_some(()));
}

fn sql(site: &Site, statement: &str) {
    let path = site.path("lastmile.db").display().to_string();
    let output = crate::harness::run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &path, statement]);
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}
