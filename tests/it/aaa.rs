//! A provisioned RADIUS login is a real one: FreeRADIUS authenticates it from our rows, on both kinds of database, and
//! proxies its accounting to us.

use std::time::Duration;

use lastmile::provision::{AaaAccess, AaaContent, Content, ElementKind};

use crate::harness::daemon::{Daemon, Site};
use crate::harness::desk::Desk;
use crate::harness::radiusd::{self, FreeRadius, Method, Verdict};
use crate::harness::{http, postgres, wait_for};

/// What an operator of FreeRADIUS says of the groups.
const GROUPS: [&str; 2] = [
    "INSERT INTO radgroupreply (groupname, attribute, op, value) VALUES ('res-100', 'Acct-Interim-Interval', ':=', '600')",
    "INSERT INTO radgroupreply (groupname, attribute, op, value) VALUES ('garden', 'Filter-Id', ':=', 'walled-garden')",
];

#[test]
fn login_is_authenticated_from_sqlite() {
    let site = Site::sqlite();
    journey(&site);
}

#[test]
fn login_is_authenticated_from_postgresql() {
    let mut site = Site::sqlite();
    let url = postgres::database();
    site.edit(&site.aaa_url, &url);
    site.aaa_url = url;
    journey(&site);
}

fn journey(site: &Site) {
    if !radiusd::may_run() {
        return;
    }
    let (desk, _daemon, radius) = begin(site);
    let ada = "ada@acme";
    push_chap(&desk, 1, ada, "correct horse", AaaAccess::Accept);
    let accepted = radius.radclient("auth", "User-Name = \"ada@acme\"\nUser-Password = \"correct horse\"\n");
    for line in [
        "Received Access-Accept",
        "Framed-IP-Address = 10.0.0.7",
        "Delegated-IPv6-Prefix = 2001:db8:7::/56",
        "Mikrotik-Rate-Limit = \"20M/100M\"",
        "Acct-Interim-Interval = 600",
    ] {
        assert!(accepted.contains(line), "{line:?} in {accepted}\n{}", radius.log());
    }
    let chap = radius.radclient("auth", "User-Name = \"ada@acme\"\nCHAP-Password = \"correct horse\"\n");
    assert!(chap.contains("Received Access-Accept"), "{chap}");
    for method in [Method::Pap, Method::Chap] {
        assert_eq!(radius.login(ada, "correct horse", method), Verdict::Accept);
        assert_eq!(radius.login(ada, "wrong", method), Verdict::Reject);
        assert_eq!(radius.login("nobody@acme", "correct horse", method), Verdict::Reject);
    }

    // Without a plan that asks for CHAP only a hash stands there, and the same one as long as the password stays.
    push(&desk, 1, ada, "correct horse", AaaAccess::Accept);
    assert_eq!(radius.login(ada, "correct horse", Method::Pap), Verdict::Accept);
    assert_eq!(radius.login(ada, "wrong", Method::Pap), Verdict::Reject);
    assert_eq!(radius.login(ada, "correct horse", Method::Chap), Verdict::Reject, "a hash is no use to CHAP");
    let hash = password_rows(&site.aaa_url, ada);
    assert!(hash.len() == 1 && hash[0].starts_with("Crypt-Password $6$"), "{hash:?}");

    rows_that_somebody_changed_are_noticed_and_healed(site, &desk, &hash);

    // Who has not paid gets into the garden, without what the plan promises.
    push(&desk, 1, ada, "correct horse", AaaAccess::Garden { group: "garden".to_owned() });
    let garden = radius.radclient("auth", "User-Name = \"ada@acme\"\nUser-Password = \"correct horse\"\n");
    assert!(garden.contains("Filter-Id = \"walled-garden\""), "{garden}");
    assert!(!garden.contains("Mikrotik-Rate-Limit") && !garden.contains("Acct-Interim-Interval"), "{garden}");
    assert_eq!(password_rows(&site.aaa_url, ada), hash, "the password did not change");

    // A treatment that blocks refuses.
    push(&desk, 1, ada, "correct horse", AaaAccess::Reject);
    assert_eq!(radius.login(ada, "correct horse", Method::Pap), Verdict::Reject);
    assert_eq!(radius.login(ada, "correct horse", Method::Chap), Verdict::Reject);

    push(&desk, 1, ada, "another horse", AaaAccess::Accept);
    assert_eq!(radius.login(ada, "another horse", Method::Pap), Verdict::Accept);
    assert_eq!(radius.login(ada, "correct horse", Method::Pap), Verdict::Reject);
    push_chap(&desk, 1, ada, "another horse", AaaAccess::Accept);
    assert_eq!(radius.login(ada, "correct horse", Method::Pap), Verdict::Reject);
    assert_eq!(radius.login(ada, "another horse", Method::Chap), Verdict::Accept);

    desk.close(1, ElementKind::Aaa, ada);
    assert_eq!(radius.login(ada, "another horse", Method::Pap), Verdict::Reject);
}

fn rows_that_somebody_changed_are_noticed_and_healed(site: &Site, desk: &Desk, hash: &[String]) {
    let ada = "ada@acme";
    assert_eq!(desk.drift(&site.aaa_url, ada), None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for statement in [
        "UPDATE radcheck SET value = '$6$other$hash' WHERE attribute = 'Crypt-Password'",
        "UPDATE radreply SET value = '1G/1G' WHERE attribute = 'Mikrotik-Rate-Limit'",
        "DELETE FROM radusergroup",
    ] {
        runtime.block_on(texts(&site.aaa_url, statement)).expect("tampered");
    }
    assert_eq!(
        desk.drift(&site.aaa_url, ada).as_deref(),
        Some(
            "radcheck has another password in Crypt-Password; radreply has Mikrotik-Rate-Limit = 1G/1G, not = 20M/100M; \
             radusergroup has no group, not res-100"
        )
    );
    desk.reprovision(1);
    wait_for("the rows are healed", Duration::from_secs(20), || desk.drift(&site.aaa_url, ada).is_none().then_some(()));
    assert_eq!(password_rows(&site.aaa_url, ada), hash, "the hash that was made first");
}

/// FreeRADIUS reads its value column with escapes and quotes, and looks names up escaped: nobody must notice.
#[test]
fn odd_names_and_passwords_log_in() {
    let site = Site::sqlite();
    if !radiusd::may_run() {
        return;
    }
    let (desk, _daemon, radius) = begin(&site);
    let odd = [
        ("plain@acme", "plain"),
        ("quoted@acme", "'abc'"),
        ("double@acme", "\"abc\""),
        ("back@acme", "`id`"),
        ("slash@acme", "a\\nb\\\\c\\"),
        ("mixed@acme", "'\\x41'\"`"),
        ("percent@acme", "%{User-Name}"),
        ("unicode@acme", "pä ßwörd 🐟"),
        ("spaces@acme", " lead and trail "),
        ("ada+tv@acme", "plus"),
    ];
    for (account, (user, password)) in (1..).zip(odd) {
        push(&desk, account, user, password, AaaAccess::Accept);
    }
    for (user, password) in odd {
        assert_eq!(radius.login(user, password, Method::Pap), Verdict::Accept, "{user} {password:?} hashed");
    }
    for (account, (user, password)) in (1..).zip(odd) {
        push_chap(&desk, account, user, password, AaaAccess::Accept);
    }
    for (user, password) in odd {
        for method in [Method::Pap, Method::Chap] {
            assert_eq!(radius.login(user, password, method), Verdict::Accept, "{user} {password:?} {method:?}");
        }
    }
}

#[test]
fn freeradius_proxies_accounting_and_revives_the_daemon_by_status_server() {
    let site = Site::sqlite();
    if !radiusd::may_run() {
        return;
    }
    let (_, daemon, radius) = begin(&site);
    assert!(account_for(&radius, "s1", "Start"), "{}", radius.log());
    // Without the daemon FreeRADIUS marks it dead, and asks with Status-Server until it answers.
    daemon.stop();
    assert!(!account_for(&radius, "s1", "Interim-Update"));
    let daemon = site.start();
    wait_for("FreeRADIUS asked whether we live", Duration::from_secs(40), || {
        let metrics = http::request(daemon.http_port, "GET", "/metrics", &[], None).expect("metrics").body;
        let asked =
            metrics.lines().any(|line| line.starts_with("lastmile_radius_requests_total") && line.contains("status"));
        asked.then_some(())
    });
    wait_for("FreeRADIUS proxies again", Duration::from_secs(20), || account_for(&radius, "s1", "Stop").then_some(()));
}

/// One record sent to FreeRADIUS; true when it was answered, which it is after we answered, Proxy-State and all.
fn account_for(radius: &FreeRadius, session: &str, kind: &str) -> bool {
    let attributes = format!(
        "User-Name = \"ada@acme\"\nAcct-Session-Id = \"{session}\"\nAcct-Status-Type = {kind}\n\
         NAS-Identifier = \"bng1\"\nAcct-Session-Time = 60\nAcct-Input-Octets = 1000\nAcct-Output-Octets = 2000\n"
    );
    radius.radclient("acct", &attributes).contains("Received Accounting-Response")
}

/// A daemon, a desk at its database, and FreeRADIUS over its tables.
fn begin(site: &Site) -> (Desk, Daemon, FreeRadius) {
    site.succeed(&["migrate"]);
    let desk = Desk::open(site);
    let daemon = site.start();
    wait_for("the AAA tables are made", Duration::from_secs(20), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(add_groups(&site.aaa_url)).ok()
    });
    let radius = FreeRadius::start(&site.aaa_url, site.radius_port);
    (desk, daemon, radius)
}

async fn add_groups(url: &str) -> Result<(), sqlx::Error> {
    for statement in GROUPS {
        texts(url, statement).await?;
    }
    Ok(())
}

/// The first column of what a statement gives in the AAA database.
async fn texts(url: &str, statement: &'static str) -> Result<Vec<String>, sqlx::Error> {
    use sqlx::Connection;
    if url.starts_with("sqlite") {
        let mut connection = sqlx::SqliteConnection::connect(url).await?;
        sqlx::query_scalar(statement).fetch_all(&mut connection).await
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await?;
        sqlx::query_scalar(statement).fetch_all(&mut connection).await
    }
}

/// Every row of `radcheck` that holds a user's password.
fn password_rows(url: &str, username: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let sql = "SELECT username || ' ' || attribute || ' ' || value FROM radcheck WHERE attribute LIKE '%Password' ORDER BY id";
    let rows = runtime.block_on(texts(url, sql)).expect("rows");
    let prefix = format!("{username} ");
    rows.iter().filter_map(|row| row.strip_prefix(&prefix)).map(str::to_owned).collect()
}

/// A login whose plan asks for PAP only.
fn push(desk: &Desk, account: i64, username: &str, clear: &str, access: AaaAccess) {
    push_as(desk, account, username, clear, access, false);
}

/// A login whose plan asks for CHAP.
fn push_chap(desk: &Desk, account: i64, username: &str, clear: &str, access: AaaAccess) {
    push_as(desk, account, username, clear, access, true);
}

fn push_as(desk: &Desk, account: i64, username: &str, clear: &str, access: AaaAccess, chap: bool) {
    let password = desk.secret("radius.password", clear);
    let content = AaaContent {
        username: username.to_owned(),
        access,
        group: Some("res-100".to_owned()),
        reply: [("Mikrotik-Rate-Limit".to_owned(), "20M/100M".into())].into(),
        framed_ip: Some("10.0.0.7".parse().expect("an address")),
        ipv6_delegated: Some("2001:db8:7::/56".to_owned()),
        chap,
        password: password.clone(),
    };
    desk.push(account, ElementKind::Aaa, username, Content::Aaa(content), &password, clear);
}
