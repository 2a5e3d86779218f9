//! A provisioned mailbox is a real one: Dovecot logs it in, Postfix delivers to it, on both kinds of database.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lastmile::provision::{Content, ElementKind, MailboxContent};

use crate::harness::daemon::Site;
use crate::harness::desk::Desk;
use crate::harness::mailhost::{Login, MailHost};
use crate::harness::{postgres, run, wait_for};

#[test]
fn mailbox_lives_on_a_sqlite_mail_host() {
    journey(&Site::sqlite());
}

#[test]
fn mailbox_lives_on_a_postgresql_mail_host() {
    let mut site = Site::sqlite();
    let url = postgres::database();
    site.edit(&site.mail_url, &url);
    site.mail_url = url;
    journey(&site);
}

fn journey(site: &Site) {
    if String::from_utf8_lossy(&run("coreutils", "id", &["-u"]).stdout).trim() != "0" {
        println!("NOT RUN: Postfix starts only as root");
        return;
    }
    site.succeed(&["migrate"]);
    let desk = Desk::open(site);
    let _daemon = site.start();
    let_others_read(&site.mail_url);
    let host = MailHost::start(&site.mail_url);

    let ada = Mailbox { account: 1, address: "ada@acme.example", password: "mail-secret-42", ..Mailbox::default() };
    push(&desk, &Mailbox { aliases: &["lovelace@acme.example"], ..ada });
    let forward_to = &["ada@acme.example"];
    push(&desk, &Mailbox { account: 2, address: "bob@acme.example", password: "bob-secret-42", forward_to, ..ada });
    assert_eq!(host.login("ada@acme.example", "mail-secret-42"), Login::Accepted, "{}", host.logs());
    assert_eq!(host.login("ada@acme.example", "wrong"), Login::Denied);
    let quota = host.ask("ada@acme.example", "mail-secret-42", "GETQUOTAROOT INBOX");
    assert!(quota.contains("(STORAGE 0 10240)"), "{quota}");

    // By its alias, and by a mailbox that forwards and keeps its own copy.
    host.send("lovelace@acme.example", "alias").expect("taken");
    arrives(&host, "ada@acme.example", "mail-secret-42", "alias");
    host.send("bob@acme.example", "forward").expect("taken");
    arrives(&host, "ada@acme.example", "mail-secret-42", "forward");
    arrives(&host, "bob@acme.example", "bob-secret-42", "forward");
    let refusal = host.send("nobody@acme.example", "nobody").expect_err("nobody has no mailbox");
    assert!(refusal.contains("550 5.1.1"), "{refusal}");

    // Another password, without the alias.
    let ada = Mailbox { password: "new-secret-77", ..ada };
    push(&desk, &ada);
    assert_eq!(host.login("ada@acme.example", "mail-secret-42"), Login::Denied);
    assert_eq!(host.login("ada@acme.example", "new-secret-77"), Login::Accepted);
    host.send("lovelace@acme.example", "late").expect_err("the alias is gone");

    // Suspended: no login, mail refused while the sender listens, nothing lost.
    push(&desk, &Mailbox { suspended: true, ..ada });
    assert_eq!(host.login("ada@acme.example", "new-secret-77"), Login::Denied);
    let refusal = host.send("ada@acme.example", "suspended").expect_err("a suspended mailbox takes nothing");
    assert!(refusal.contains("550 5.1.1"), "{refusal}");
    push(&desk, &ada);
    assert!(host.has("ada@acme.example", "new-secret-77", "alias"), "kept mail is there again: {}", host.logs());

    desk.close(1, ElementKind::Mailbox, "ada@acme.example");
    assert_eq!(host.login("ada@acme.example", "new-secret-77"), Login::Denied);
    host.send("ada@acme.example", "gone").expect_err("a removed mailbox takes nothing");
    assert_eq!(host.login("bob@acme.example", "bob-secret-42"), Login::Accepted, "others are not touched");
}

#[derive(Default, Clone, Copy)]
struct Mailbox {
    account: i64,
    address: &'static str,
    password: &'static str,
    suspended: bool,
    aliases: &'static [&'static str],
    forward_to: &'static [&'static str],
}

fn push(desk: &Desk, mailbox: &Mailbox) {
    let password = desk.secret("mailbox.password", mailbox.password);
    let owned = |list: &[&str]| list.iter().map(|&address| address.to_owned()).collect();
    let content = MailboxContent {
        address: mailbox.address.to_owned(),
        active: !mailbox.suspended,
        quota_mb: 10,
        aliases: owned(mailbox.aliases),
        forward_to: owned(mailbox.forward_to),
        password: password.clone(),
    };
    let content = Content::Mailbox(content);
    desk.push(mailbox.account, ElementKind::Mailbox, mailbox.address, content, &password, mailbox.password);
}

fn arrives(host: &MailHost, address: &str, password: &str, subject: &str) {
    wait_for(&format!("{subject} arrives at {address}"), Duration::from_secs(20), || {
        host.has(address, password, subject).then_some(())
    });
}

/// Dovecot and Postfix run as users of their own; an operator gives them the file by its folder's group.
fn let_others_read(url: &str) {
    let Some(path) = url.strip_prefix("sqlite://") else { return };
    let made = wait_for("the mail tables are made", Duration::from_secs(20), || std::fs::metadata(path).ok());
    assert_eq!(made.permissions().mode() & 0o777, 0o640, "passwords are not for everybody");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("permissions");
}
