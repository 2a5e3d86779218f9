//! A provisioned mailbox is a real one through its whole life: PostfixAdmin's own tables, filled from the HTTP API,
//! read by Dovecot and Postfix, on both kinds of database.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::Site;
use crate::harness::inside::Inside;
use crate::harness::mailhost::{DOVEADM_KEY, Login, MailHost};
use crate::harness::{free_tcp_port, postfixadmin, postgres, run, wait_for};

const ADA: &str = "ada@acme.example";
const BOB: &str = "bob@acme.example";
const COUNTESS: &str = "countess@acme.example";

#[test]
fn mailbox_lives_on_a_sqlite_mail_host() {
    if let Some(town) = Town::build(None) {
        town.lives();
    }
}

#[test]
fn mailbox_lives_on_a_postgresql_mail_host() {
    if let Some(town) = Town::build(Some(postgres::database())) {
        town.lives();
    }
}

#[test]
fn mailbox_ends_on_a_sqlite_mail_host() {
    if let Some(town) = Town::build(None) {
        town.ends();
    }
}

#[test]
fn mailbox_ends_on_a_postgresql_mail_host() {
    if let Some(town) = Town::build(Some(postgres::database())) {
        town.ends();
    }
}

/// The daemon with its API, and a mail host over PostfixAdmin's tables.
struct Town {
    inside: Inside,
    host: MailHost,
    key: String,
    site: Site,
}

impl Town {
    /// `None`: this machine lacks what it takes, and says so.
    fn build(mail_url: Option<String>) -> Option<Self> {
        if String::from_utf8_lossy(&run("coreutils", "id", &["-u"]).stdout).trim() != "0" {
            println!("NOT RUN: Postfix starts only as root");
            return None;
        }
        let mut site = Site::sqlite();
        if let Some(url) = mail_url {
            site.edit(&site.mail_url, &url);
            site.mail_url = url;
        }
        if let Err(reason) = postfixadmin::make_tables(&site.mail_url) {
            println!("NOT RUN: {reason}");
            return None;
        }
        let_others_read(&site.mail_url);
        let doveadm_port = free_tcp_port();
        let url = format!("http://127.0.0.1:{doveadm_port}");
        let doveadm = format!("[mail.doveadm]\nurl = \"{url}\"\nkey = \"{DOVEADM_KEY}\"\n[aaa]\n");
        site.edit("[aaa]\n", &doveadm);
        site.edit("driver = \"postfixadmin\"", "driver = \"postfixadmin\"\ngrace_days = 30");
        site.prepare(CATALOG);
        let key = site.key("acme", "push");
        let host = MailHost::start(&site.mail_url, doveadm_port);
        let inside = Inside::start(&site);
        Some(Self { inside, host, key, site })
    }

    /// Pushes an account with one mailbox and waits until it stands.
    fn push(&self, account: &str, mailbox: &Value) -> Value {
        self.push_with(account, mailbox, "active")
    }

    fn push_with(&self, account: &str, mailbox: &Value, status: &str) -> Value {
        let answer = self.put(account, mailbox, status);
        assert!(answer.status < 300, "{} {}", answer.status, answer.body);
        self.settled(account)
    }

    fn put(&self, account: &str, mailbox: &Value, status: &str) -> crate::harness::http::Answer {
        let document = json!({
            "status": "active", "bill_cycle": "c15",
            "services": [{ "id": "m1", "type": "email", "plan": "mail-5g", "status": status, "mailbox": mailbox }],
        });
        self.inside.api(&self.key, "PUT", &format!("acme/accounts/{account}"), Some(&document))
    }

    /// How the account's mailbox is provisioned, once no job is left.
    fn settled(&self, account: &str) -> Value {
        wait_for(&format!("account {account} is provisioned"), Duration::from_secs(30), || {
            let answer = self.inside.api(&self.key, "GET", &format!("acme/accounts/{account}"), None);
            let state = answer.json()["services"][0]["provisioning"].clone();
            (state["state"] == "applied" && state["job"].is_null()).then_some(state)
        })
    }

    fn close(&self, account: &str) {
        let answer = self.inside.api(&self.key, "DELETE", &format!("acme/accounts/{account}"), None);
        assert_eq!(answer.status, 202, "{}", answer.body);
        self.no_job_left();
    }

    fn no_job_left(&self) {
        wait_for("no job is left", Duration::from_secs(30), || {
            let jobs = self.inside.api(&self.key, "GET", "acme/jobs?limit=1000", None).json();
            let jobs = jobs["items"].as_array().cloned().expect("a list");
            jobs.iter().all(|job| job["state"] == "done").then_some(())
        });
    }

    fn days_pass(&self, days: i64) {
        self.inside.pass_days(days);
        // What is due is looked for each second.
        std::thread::sleep(Duration::from_millis(2500));
        self.no_job_left();
    }

    fn arrives(&self, address: &str, password: &str, subject: &str) {
        wait_for(&format!("{subject} arrives at {address}"), Duration::from_secs(20), || {
            self.host.has(address, password, subject).then_some(())
        });
    }

    fn refused(&self, to: &str) {
        let refusal = self.host.send(to, "refused").expect_err("nothing is taken in");
        assert!(refusal.contains("550 5.1.1"), "{refusal}");
    }

    fn lives(&self) {
        let host = &self.host;
        self.push(
            "1",
            &json!({ "address": ADA, "password": "mail-secret-42", "quota_mb": 10,
            "aliases": ["lovelace@acme.example"] }),
        );
        self.push("2", &json!({ "address": BOB, "password": "bob-secret-42", "forward_to": [ADA] }));
        assert_eq!(host.login(ADA, "mail-secret-42"), Login::Accepted, "{}", host.logs());
        assert_eq!(host.login(ADA, "wrong"), Login::Denied);
        let quota = host.ask(ADA, "mail-secret-42", "GETQUOTAROOT INBOX");
        assert!(quota.contains("(STORAGE 0 10240)"), "{quota}");

        // By its alias, by a mailbox that forwards and keeps a copy, and by one that keeps none.
        host.send("lovelace@acme.example", "alias").expect("taken");
        self.arrives(ADA, "mail-secret-42", "alias");
        host.send(BOB, "forward").expect("taken");
        self.arrives(ADA, "mail-secret-42", "forward");
        self.arrives(BOB, "bob-secret-42", "forward");
        self.push("2", &json!({ "address": BOB, "forward_to": [ADA], "keep_copy": false }));
        host.send(BOB, "onward").expect("taken");
        self.arrives(ADA, "mail-secret-42", "onward");
        assert!(!host.has(BOB, "bob-secret-42", "onward"), "no copy is kept");
        self.refused("nobody@acme.example");

        // Another password, without the alias; whoever is logged in with the old one is sent away.
        let mut session = host.stay(ADA, "mail-secret-42");
        let ada = json!({ "address": ADA, "password": "new-secret-77", "quota_mb": 10 });
        let state = self.push("1", &ada);
        assert!(session.ends_within(Duration::from_secs(10)), "{state} {}", host.logs());
        assert_eq!(host.login(ADA, "mail-secret-42"), Login::Denied);
        assert_eq!(host.login(ADA, "new-secret-77"), Login::Accepted);
        self.refused("lovelace@acme.example");

        // Suspended: no login, sessions end, mail is taken in and nothing is forwarded.
        let mut session = host.stay(ADA, "new-secret-77");
        let state = self.push_with("1", &ada, "suspended");
        assert!(session.ends_within(Duration::from_secs(10)), "{state} {}", host.logs());
        assert_eq!(host.login(ADA, "new-secret-77"), Login::Denied);
        host.send(ADA, "meanwhile").expect("mail is kept");
        self.push("1", &ada);
        assert_eq!(host.login(ADA, "new-secret-77"), Login::Accepted, "the old password, without a push of it");
        self.arrives(ADA, "new-secret-77", "meanwhile");

        // Another address: the same mail, the old address leads there for a while, its login is gone.
        let mut session = host.stay(ADA, "new-secret-77");
        let countess = json!({ "address": COUNTESS, "quota_mb": 10 });
        let state = self.push("1", &countess);
        assert!(state["evidence"].as_str().is_some_and(|text| text.contains("moved from ada@")), "{state}");
        assert!(session.ends_within(Duration::from_secs(10)), "{}", host.logs());
        assert_eq!(host.login(ADA, "new-secret-77"), Login::Denied);
        assert!(host.has(COUNTESS, "new-secret-77", "meanwhile"), "the mail moved along: {}", host.logs());
        host.send(ADA, "oldaddress").expect("the former address leads to the new one");
        self.arrives(COUNTESS, "new-secret-77", "oldaddress");
        self.days_pass(31);
        self.refused(ADA);
        host.send(COUNTESS, "newaddress").expect("taken");
        self.arrives(COUNTESS, "new-secret-77", "newaddress");

        // Her former address is hers to take back, and kept from Bob.
        let bob = json!({ "address": BOB, "aliases": [ADA] });
        let refused = self.put("2", &bob, "active");
        assert_eq!(refused.status, 409, "{}", refused.body);
        let problem = refused.json();
        assert_eq!(problem["type"], "urn:lastmile:problem:quarantined");
        assert_eq!(problem["conflicts"][0]["account"], "1");
        self.push("1", &json!({ "address": COUNTESS, "aliases": [ADA], "quota_mb": 10 }));
        host.send(ADA, "again").expect("taken");
        self.arrives(COUNTESS, "new-secret-77", "again");
    }

    fn ends(&self) {
        let host = &self.host;
        let ada = json!({ "address": ADA, "password": "mail-secret-42", "aliases": ["lovelace@acme.example"] });
        self.push("1", &ada);
        host.send(ADA, "first").expect("taken");
        self.arrives(ADA, "mail-secret-42", "first");

        // Closed: no login, mail refused, and all of it comes back within the days of grace.
        let mut session = host.stay(ADA, "mail-secret-42");
        self.close("1");
        assert!(session.ends_within(Duration::from_secs(10)), "{}", host.logs());
        assert_eq!(host.login(ADA, "mail-secret-42"), Login::Denied);
        self.refused(ADA);
        self.refused("lovelace@acme.example");
        self.days_pass(29);
        self.push("1", &json!({ "address": ADA, "aliases": ["lovelace@acme.example"] }));
        assert_eq!(host.login(ADA, "mail-secret-42"), Login::Accepted, "with the password of before");
        assert!(host.has(ADA, "mail-secret-42", "first"), "its mail came back: {}", host.logs());

        // Closed for good: the rows go, the folder waits for the operator.
        self.close("1");
        assert_eq!(self.site.json(&["mail", "purge", "list", "--all"]), json!([]), "its grace is not over");
        self.days_pass(31);
        let left = self.site.json(&["mail", "purge", "list", "--all"]);
        assert_eq!(left[0]["maildir"], "acme.example/ada/", "{left}");
        assert!(host.maildir("acme.example/ada/").join("Maildir/cur").exists(), "the mail is still on the disk");

        // Nobody inherits the address until it is free, and nobody ever the mail.
        let eve = json!({ "address": ADA, "password": "eve-secret-42" });
        let refused = self.put("3", &eve, "active");
        assert_eq!(refused.status, 409, "{}", refused.body);
        assert!(refused.body.contains("given up by account 1"), "{}", refused.body);
        let until = refused.json()["conflicts"][0]["quarantined_until"].as_str().expect("an instant").to_owned();
        let listed = self.site.json(&["quarantine", "list", "--tenant", "acme"]);
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "the address and its alias: {listed}");
        assert_eq!(listed[0]["until_at"], until.as_str());
        self.days_pass(148);
        assert_eq!(self.put("3", &eve, "active").status, 409, "a day is left");
        self.days_pass(2);
        self.push("3", &eve);
        assert_eq!(host.login(ADA, "mail-secret-42"), Login::Denied);
        assert_eq!(host.login(ADA, "eve-secret-42"), Login::Accepted);
        assert!(!host.has(ADA, "eve-secret-42", "first"), "a predecessor's mail is nobody's");
        host.send(ADA, "foreve").expect("taken");
        self.arrives(ADA, "eve-secret-42", "foreve");
        assert!(!host.maildir("acme.example/ada/").join("Maildir/new/foreve").exists());
        self.site.succeed(&["mail", "purge", "done", "acme.example/ada/"]);
        assert_eq!(self.site.json(&["mail", "purge", "list", "--all"]), json!([]));

        // An operator frees one early.
        self.close("3");
        assert_eq!(self.put("4", &eve, "active").status, 409);
        self.site.succeed(&["quarantine", "release", ADA]);
        self.push("4", &eve);
        assert!(!host.has(ADA, "eve-secret-42", "foreve"), "not with the predecessor's mail");
        let left = self.site.json(&["mail", "purge", "list", "--all"]);
        assert_eq!(left[0]["address"], ADA, "{left}");
    }
}

/// Dovecot and Postfix run as users of their own; an operator gives them the file by its folder's group.
pub fn let_others_read(url: &str) {
    let Some(path) = url.strip_prefix("sqlite://") else { return };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("permissions");
}
