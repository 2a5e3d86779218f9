//! The mail host's tables as they may be: PostfixAdmin's own, ours of the same shape, renamed ones, some that lack a
//! column or a right, a database that is locked, changed by hand, or cut off half-way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lastmile::daemon::config::Config;
use lastmile::provision::{Content, ElementDesired, ElementKind, ElementState, MailboxContent};
use lastmile::provisioner::mailbox::MailHost;
use lastmile::store::elements::{ElementRow, Progress};
use lastmile::store::foreign::mail::{MailDatabase, MailMap};
use lastmile::store::{Store, StoreConfig, elements, jobs};
use lastmile::vocabulary::Timestamp;
use serde_json::{Value, json};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::{Daemon, Site};
use crate::harness::desk::Desk;
use crate::harness::{free_tcp_port, postfixadmin, postgres, run, temp_dir, wait_for};

const ADA: &str = "ada@acme.example";
const COUNTESS: &str = "countess@acme.example";

/// Lets the program make the tables, as it does at its start.
fn make_tables(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let database = MailDatabase::open(url, MailMap::default()).expect("a URL");
        database.prepare().await.expect("tables are made");
    });
}

/// Runs SQL on a mail database and gives its unaligned answer.
fn sql(url: &str, statement: &str) -> String {
    let output = match url.strip_prefix("sqlite://") {
        Some(path) => run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", path, statement]),
        None => run("postgresql-client", "psql", &[url, "-XAtqc", statement]),
    };
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn new_sqlite() -> (tempfile::TempDir, String) {
    let folder = temp_dir();
    let url = format!("sqlite://{}", folder.path().join("mail.db").display());
    (folder, url)
}

/// Columns of PostfixAdmin's tables: name, kind of type, whether empty is refused, whether there is a default.
fn shape(url: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for table in ["domain", "mailbox", "alias", "alias_domain", "quota2"] {
        let text = match url.starts_with("sqlite") {
            true => sql(
                url,
                &format!(
                    "SELECT name, lower(type), \"notnull\", dflt_value IS NOT NULL FROM pragma_table_info('{table}') ORDER BY name"
                ),
            ),
            false => sql(
                url,
                &format!(
                    "SELECT column_name, data_type, character_maximum_length, is_nullable, column_default IS NOT NULL
                     FROM information_schema.columns WHERE table_name = '{table}' ORDER BY column_name"
                ),
            ),
        };
        all.insert(table.to_owned(), text);
    }
    all
}

#[test]
fn our_own_tables_have_the_shape_of_postfixadmins() {
    let (_first, ours) = new_sqlite();
    let (_second, theirs) = new_sqlite();
    for (ours, theirs) in [(ours, theirs), (postgres::database(), postgres::database())] {
        if let Err(reason) = postfixadmin::make_tables(&theirs) {
            println!("NOT RUN: {reason}");
            return;
        }
        make_tables(&ours);
        for (table, shape) in shape(&theirs) {
            assert!(!shape.is_empty(), "{table}");
            assert_eq!(self::shape(&ours)[&table], shape, "{table} of {ours}");
        }
    }
}

/// A site whose mail tables have German names and columns of their own, and the section that says so.
fn renamed(site: &Site) {
    sql(
        &site.mail_url,
        "CREATE TABLE postfach (adresse TEXT PRIMARY KEY, kennwort TEXT NOT NULL, ordner TEXT NOT NULL,
             an TEXT NOT NULL, kunde TEXT NOT NULL, geaendert BIGINT NOT NULL);",
    );
    sql(&site.mail_url, "CREATE TABLE umleitung (adresse TEXT PRIMARY KEY, ziel TEXT NOT NULL, an INT NOT NULL);");
    let section = r#"[mail.tables]
mailbox = "postfach"
alias = "umleitung"
domain = ""
quota = ""
[mail.columns.mailbox]
username = "adresse"
password = "kennwort"
maildir = "ordner"
active = "an"
modified = "geaendert"
name = ""
quota = ""
local_part = ""
domain = ""
created = ""
phone = ""
email_other = ""
token = ""
token_validity = ""
password_expiry = ""
[mail.columns.alias]
address = "adresse"
goto = "ziel"
active = "an"
domain = ""
created = ""
modified = ""
[mail.constants.mailbox]
kunde = "it's ours"
[aaa]
"#;
    site.edit("[aaa]\n", section);
}

#[test]
fn renamed_tables_are_written_under_their_names() {
    for url in [None, Some(postgres::database())] {
        let site = site_with(url);
        renamed(&site);
        site.succeed(&["migrate"]);
        assert_eq!(site.json(&["check-config"])["ok"], true);
        assert_eq!(site.json(&["mail", "check"])["ok"], true);
        let desk = Desk::open(&site);
        let _daemon = site.start();
        push(&desk, ADA, "secret-1");
        let row = sql(&site.mail_url, "SELECT ordner, an, kunde FROM postfach WHERE adresse = 'ada@acme.example'");
        assert_eq!(row, "acme.example/ada/|1|it's ours");
        assert_eq!(sql(&site.mail_url, "SELECT ziel, an FROM umleitung"), format!("{ADA}|1"));
        let changed: i64 = sql(&site.mail_url, "SELECT geaendert FROM postfach").parse().expect("seconds");
        assert!(changed > 1_700_000_000, "{changed}");
        desk.close(1, ElementKind::Mailbox, ADA);
        assert_eq!(sql(&site.mail_url, "SELECT an FROM postfach"), "0", "closed, and still there");
    }
}

#[test]
fn what_the_tables_lack_is_named_before_anything_is_written() {
    for url in [None, Some(postgres::database())] {
        let site = site_with(url);
        site.succeed(&["migrate"]);
        make_tables(&site.mail_url);
        sql(&site.mail_url, "ALTER TABLE mailbox RENAME COLUMN phone TO telephone");
        let needs = match site.mail_url.starts_with("sqlite") {
            // SQLite adds no column that must be given: the table is made anew.
            true => {
                "DROP TABLE alias;
                     CREATE TABLE alias (address TEXT, goto TEXT, domain TEXT, created TEXT, modified TEXT, active INT,
                         realm TEXT NOT NULL)"
            }
            false => "ALTER TABLE alias ADD COLUMN realm TEXT NOT NULL",
        };
        sql(&site.mail_url, needs);
        let answer = site.lastmile(&["--json", "mail", "check"]);
        assert_eq!(answer.status.code(), Some(3), "{}", String::from_utf8_lossy(&answer.stderr));
        let told: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
        let told = told["faults"].to_string();
        assert!(told.contains("table mailbox has no column \\\"phone\\\""), "{told}");
        assert!(told.contains("table alias needs a value for its column \\\"realm\\\""), "{told}");

        let desk = Desk::open(&site);
        let _daemon = site.start();
        let said = wait_for("the log names the column", Duration::from_secs(20), || {
            let log = site.log_text();
            log.lines().find(|line| line.contains("has no column \"phone\"")).map(str::to_owned)
        });
        assert!(said.contains("WARN"), "{said}");
        // Mended over there, without a word to the daemon.
        sql(&site.mail_url, "ALTER TABLE mailbox RENAME COLUMN telephone TO phone");
        sql(&site.mail_url, "ALTER TABLE alias DROP COLUMN realm");
        push(&desk, ADA, "secret-1");
    }
}

#[test]
fn a_user_without_rights_is_told_what_to_grant() {
    let url = postgres::database();
    if let Err(reason) = postfixadmin::make_tables(&url) {
        println!("NOT RUN: {reason}");
        return;
    }
    let user = format!("mail_{}", url.rsplit('/').next().expect("a database"));
    sql(&url, &format!("CREATE ROLE {user} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC"));
    let site = site_with(Some(url.replace("postgres@", &format!("{user}@"))));
    site.succeed(&["migrate"]);
    let faults = |site: &Site| {
        let answer = site.lastmile(&["--json", "mail", "check"]);
        let told: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
        told["faults"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one.as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let told = faults(&site);
    let grants: Vec<&str> =
        told.iter().filter_map(|one| one.split_once("a right is missing: ")).map(|(_, sql)| sql).collect();
    assert_eq!(grants.len(), 4, "{told:?}");
    for grant in grants {
        assert!(grant.starts_with("GRANT SELECT, INSERT, UPDATE, DELETE ON "), "{grant}");
        sql(&url, grant);
    }
    let told = faults(&site);
    assert!(told[0].contains("may not create the table lastmile_mailbox"), "{told:?}");
    // The administrator runs what we print, and that is all that was missing.
    sql(&url, &site.succeed(&["mail", "sql", "--user", &user]));
    assert_eq!(faults(&site), Vec::<String>::new());
    let desk = Desk::open(&site);
    let _daemon = site.start();
    push(&desk, ADA, "secret-1");
    assert_eq!(sql(&url, "SELECT username FROM mailbox WHERE active"), ADA);
}

#[test]
fn faults_of_the_map_are_told_with_their_place() {
    let site = Site::sqlite();
    site.edit(
        "[aaa]\n",
        "[mail.tables]\nmailbox = \"mail\\\"box\"\nalias = \"\"\nmail = \"x\"\n\
         [mail.columns.mailbox]\nname = \"phone\"\npassword = \"\"\n\
         [mail.constants.mailbox]\nusername = \"x\"\n\
         [mail.doveadm]\nurl = \"https://mail.example\"\n[aaa]\n",
    );
    site.edit("driver = \"postfixadmin\"", "driver = \"postfixadmin\"\nsuspended = \"perhaps\"\ngrace_days = 9999");
    let output = site.lastmile(&["--json", "check-config"]);
    assert_eq!(output.status.code(), Some(3));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut keys: Vec<&str> =
        told["faults"].as_array().expect("a list").iter().filter_map(|one| one["key"].as_str()).collect();
    keys.sort_unstable();
    let expected = [
        "mail.columns.mailbox.name",
        "mail.columns.mailbox.password",
        "mail.constants.mailbox.username",
        "mail.doveadm",
        "mail.doveadm.url",
        "mail.grace_days",
        "mail.suspended",
        "mail.tables.alias",
        "mail.tables.mail",
        "mail.tables.mailbox",
    ];
    assert_eq!(keys, expected, "{told}");
    assert!(told["faults"].as_array().expect("a list").iter().all(|one| one["line"].as_i64() > Some(1)), "{told}");
}

#[test]
fn rows_changed_by_hand_are_told_and_healed() {
    for url in [None, Some(postgres::database())] {
        let site = site_with(url);
        site.succeed(&["migrate"]);
        let desk = Desk::open(&site);
        let _daemon = site.start();
        push(&desk, ADA, "secret-1");
        let eyes = Eyes::open(&site);
        assert_eq!(eyes.check(ADA), None);
        let off = if site.mail_url.starts_with("sqlite") { "0" } else { "false" };
        let cases = [
            ("UPDATE mailbox SET quota = 5", "a quota of 5 octets instead of 10 MB"),
            (
                &format!("UPDATE mailbox SET active = {off}") as &str,
                "a refused login with mail refused instead of an open login",
            ),
            ("UPDATE alias SET goto = 'eve@evil.example'", "mail goes to eve@evil.example instead of ada@acme.example"),
            (&format!("UPDATE alias SET active = {off}"), "the alias row to itself is missing or inactive"),
            ("UPDATE lastmile_mailbox SET password_digest = 'x'", "another password"),
            ("DELETE FROM mailbox", "its row is missing"),
        ];
        for (change, words) in cases {
            sql(&site.mail_url, change);
            assert_eq!(eyes.check(ADA).as_deref(), Some(words), "{change}");
            eyes.heal(ADA);
            assert_eq!(eyes.check(ADA), None, "{change} is healed");
        }
    }
}

#[test]
fn suspended_mailbox_refuses_mail_where_that_is_wanted() {
    let site = Site::sqlite();
    site.edit("driver = \"postfixadmin\"", "driver = \"postfixadmin\"\nsuspended = \"refuse\"");
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    let mut services = mailbox(ADA);
    services[0]["mailbox"]["aliases"] = json!(["lovelace@acme.example"]);
    put(&daemon, &key, "1", &services);
    applied(&daemon, &key, "1");
    let active = || sql(&site.mail_url, "SELECT active FROM mailbox UNION ALL SELECT active FROM alias");
    assert_eq!(active(), "1\n1\n1");
    let hash = sql(&site.mail_url, "SELECT password FROM mailbox");
    services[0]["status"] = "suspended".into();
    put(&daemon, &key, "1", &services);
    let evidence = applied(&daemon, &key, "1");
    assert!(evidence.contains("mail is refused"), "{evidence}");
    assert_eq!(active(), "0\n0\n0");
    services[0]["status"] = "active".into();
    put(&daemon, &key, "1", &services);
    applied(&daemon, &key, "1");
    assert_eq!((active(), sql(&site.mail_url, "SELECT password FROM mailbox")), ("1\n1\n1".to_owned(), hash));
}

/// The new address is given up before its job ran, after the former one's had left the rows to it.
#[test]
fn change_of_address_overtaken_by_the_end_leaves_no_login() {
    for url in [None, Some(postgres::database())] {
        let site = site_with(url);
        site.succeed(&["migrate"]);
        let desk = Desk::open(&site);
        let daemon = site.start();
        push(&desk, ADA, "secret-1");
        daemon.stop();
        let eyes = Eyes::open(&site);
        let Content::Mailbox(content) = eyes.element(ADA).desired else { panic!("a mailbox") };
        let content = Content::Mailbox(MailboxContent { address: COUNTESS.to_owned(), ..content });
        let services = vec!["1".to_owned()];
        eyes.settle(&[ElementDesired { kind: ElementKind::Mailbox, key: COUNTESS.to_owned(), services, content }]);
        let left = eyes.apply(ADA);
        assert_eq!(left.state, ElementState::Gone);
        assert!(left.evidence.contains("goes on as countess@"), "{}", left.evidence);
        eyes.settle(&[]);
        assert_eq!(eyes.apply(COUNTESS).state, ElementState::Gone);
        let off = if site.mail_url.starts_with("sqlite") { "0" } else { "f" };
        assert_eq!(sql(&site.mail_url, "SELECT username, active FROM mailbox"), format!("{ADA}|{off}"));
    }
}

#[test]
fn mail_goes_to_another_account_only_where_an_operator_gives_it_along() {
    for (release, folder, left) in [
        (vec!["quarantine", "release", ADA], "acme.example/ada-2/", "acme.example/ada/"),
        (vec!["quarantine", "release", ADA, "--with-mail"], "acme.example/ada/", ""),
    ] {
        let site = Site::sqlite();
        site.edit("driver = \"postfixadmin\"", "driver = \"postfixadmin\"\ngrace_days = 30");
        site.prepare(CATALOG);
        let key = site.key("acme", "push");
        let daemon = site.start();
        put(&daemon, &key, "1", &mailbox(ADA));
        applied(&daemon, &key, "1");
        let answer = daemon.api(&key, "DELETE", "acme/accounts/1", None);
        assert_eq!(answer.status, 202, "{}", answer.body);
        wait_for("the mailbox is shut", Duration::from_secs(30), || {
            (sql(&site.mail_url, "SELECT active FROM mailbox") == "0").then_some(())
        });
        site.succeed(&release);
        put(&daemon, &key, "2", &mailbox(ADA));
        applied(&daemon, &key, "2");
        assert_eq!(sql(&site.mail_url, "SELECT maildir, active FROM mailbox"), format!("{folder}|1"), "{release:?}");
        assert_eq!(sql(&site.mail_url, "SELECT maildir FROM lastmile_maildir"), left, "{release:?}");
    }
}

#[test]
fn locked_mail_database_delays_nobody_else_and_is_caught_up_with() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    put(&daemon, &key, "1", &mailbox(ADA));
    applied(&daemon, &key, "1");
    let path = site.mail_url.strip_prefix("sqlite://").expect("a file");
    let mut holder = std::process::Command::new("sqlite3")
        .arg(path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sqlite3 (Debian package sqlite3)");
    use std::io::{BufRead, BufReader, Write};
    let mut typed = holder.stdin.take().expect("a pipe");
    writeln!(typed, "BEGIN EXCLUSIVE; SELECT 'held';").expect("typed");
    let mut said = String::new();
    BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut said).expect("said");
    put(&daemon, &key, "1", &mailbox(COUNTESS));
    let begun = Instant::now();
    let login = json!([{ "id": "i1", "type": "internet", "plan": "res-100",
        "radius": { "username": "ada@acme", "password": "correct horse" } }]);
    put(&daemon, &key, "2", &login);
    applied(&daemon, &key, "2");
    assert!(begun.elapsed() < Duration::from_secs(4), "a login does not wait for the mail host: {:?}", begun.elapsed());
    let waiting = wait_for("the mailbox waits and says why", Duration::from_secs(30), || {
        let answer = daemon.api(&key, "GET", "acme/accounts/1", None).json();
        answer["services"][0]["provisioning"]["last_error"].as_str().map(str::to_owned)
    });
    assert!(waiting.contains("locked"), "{waiting}");
    drop(typed);
    holder.wait().expect("it ends with its input");
    applied(&daemon, &key, "1");
    assert_eq!(sql(&site.mail_url, "SELECT username, maildir FROM mailbox"), format!("{COUNTESS}|acme.example/ada/"));
}

#[test]
fn daemon_killed_between_any_two_steps_leaves_nothing_half_made() {
    let mut site = Site::sqlite();
    site.edit("driver = \"postfixadmin\"", "driver = \"postfixadmin\"\ngrace_days = 30");
    let url = postgres::database();
    site.edit(&site.mail_url, &url);
    site.mail_url = url;
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let mut daemon = site.start();
    let addresses = [ADA, COUNTESS];
    put(&daemon, &key, "1", &mailbox(ADA));
    applied(&daemon, &key, "1");
    for round in 0..8u64 {
        // Each round another address, closed in between now and then, and killed a little later than the last.
        let address = addresses[(round as usize + 1) % 2];
        put(&daemon, &key, "1", &mailbox(address));
        std::thread::sleep(Duration::from_millis(round * 35));
        if round % 3 == 2 {
            let answer = daemon.api(&key, "DELETE", "acme/accounts/1", None);
            assert_eq!(answer.status, 202, "{}", answer.body);
            std::thread::sleep(Duration::from_millis(round * 20));
            daemon.kill();
            daemon = site.start();
            put(&daemon, &key, "1", &mailbox(address));
        }
        daemon.kill();
        daemon = site.start();
        applied(&daemon, &key, "1");
        let rows = sql(&site.mail_url, "SELECT username, maildir, active FROM mailbox");
        assert_eq!(rows, format!("{address}|acme.example/ada/|t"), "round {round}: one mailbox, and its mail");
        let goto = sql(&site.mail_url, &format!("SELECT goto, active FROM alias WHERE address = '{address}'"));
        assert_eq!(goto, format!("{address}|t"), "round {round}");
        assert_eq!(sql(&site.mail_url, "SELECT username FROM lastmile_mailbox"), address, "round {round}");
    }
}

#[test]
fn doveadm_that_is_away_or_refuses_the_key_fails_no_mailbox() {
    let site = Site::sqlite();
    let port = free_tcp_port();
    site.edit("[aaa]\n", &format!("[mail.doveadm]\nurl = \"http://127.0.0.1:{port}\"\nkey = \"wrong\"\n[aaa]\n"));
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    put(&daemon, &key, "1", &mailbox(ADA));
    let evidence = applied(&daemon, &key, "1");
    assert!(evidence.contains("sessions not ended yet: doveadm does not answer"), "{evidence}");

    // One that answers as Dovecot does to a wrong key.
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port");
    let answering = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("a request");
        let mut head = [0u8; 2048];
        let read = stream.read(&mut head).expect("a request");
        let body = "{\"error\":\"no\"}";
        let head_of_answer = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(head_of_answer.as_bytes()).expect("answered");
        String::from_utf8_lossy(&head[..read]).into_owned()
    });
    let mut suspended = mailbox(ADA);
    suspended[0]["status"] = "suspended".into();
    put(&daemon, &key, "1", &suspended);
    let evidence = applied(&daemon, &key, "1");
    assert!(evidence.contains("sessions not ended yet: doveadm refuses the key"), "{evidence}");
    let request = answering.join().expect("one request");
    assert!(request.to_lowercase().contains("authorization: x-dovecot-api d3jvbmc="), "{request}");
    assert!(!site.log_text().contains("d3Jvbmc"), "the key is not logged");
}

fn site_with(mail_url: Option<String>) -> Site {
    let mut site = Site::sqlite();
    site.edit("driver = \"postfixadmin\"", "driver = \"postfixadmin\"\ngrace_days = 30");
    if let Some(url) = mail_url {
        site.edit(&site.mail_url, &url);
        site.mail_url = url;
    }
    site
}

fn mailbox(address: &str) -> Value {
    json!([{ "id": "m1", "type": "email", "plan": "mail-5g",
        "mailbox": { "address": address, "password": "secret-42" } }])
}

fn put(daemon: &Daemon, key: &str, account: &str, services: &Value) {
    let document = json!({ "status": "active", "bill_cycle": "c15", "services": services });
    let answer = daemon.api(key, "PUT", &format!("acme/accounts/{account}"), Some(&document));
    assert!(answer.status < 300, "{} {}", answer.status, answer.body);
}

/// Waits until an account's first service is provisioned, and gives the evidence.
fn applied(daemon: &Daemon, key: &str, account: &str) -> String {
    wait_for(&format!("account {account} is provisioned"), Duration::from_secs(90), || {
        let answer = daemon.api(key, "GET", &format!("acme/accounts/{account}"), None).json();
        let state = &answer["services"][0]["provisioning"];
        let done = state["state"] == "applied" && state["job"].is_null();
        done.then(|| state["evidence"].as_str().unwrap_or_default().to_owned())
    })
}

fn push(desk: &Desk, address: &str, password: &str) {
    let reference = desk.secret("mailbox.password", password);
    let content = MailboxContent {
        address: address.to_owned(),
        active: true,
        quota_mb: 10,
        aliases: Vec::new(),
        forward_to: Vec::new(),
        keep_copy: true,
        prepared: false,
        password: reference.clone(),
    };
    desk.push(1, ElementKind::Mailbox, address, Content::Mailbox(content), &reference, password);
}

/// Looks at the mail host's rows as the daemon's sweep does.
struct Eyes {
    runtime: tokio::runtime::Runtime,
    store: Store,
    host: MailHost,
}

impl Eyes {
    fn open(site: &Site) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let config = Config::load(&site.config).expect("a configuration").config;
        let store = StoreConfig { owner: "eyes".to_owned(), ..config.store_config() };
        let store = runtime.block_on(Store::open(&store)).expect("the store opens");
        let host = runtime.block_on(async { config.mail.expect("[mail]").host().expect("a mail host") });
        Self { runtime, store, host }
    }

    fn element(&self, address: &str) -> ElementRow {
        self.runtime.block_on(async {
            let mut tx = self.store.read().await.expect("a transaction");
            elements::by_key(&mut tx, ElementKind::Mailbox, address).await.expect("read").expect("an element")
        })
    }

    fn check(&self, address: &str) -> Option<String> {
        let element = self.element(address);
        self.runtime.block_on(self.host.check(&self.store, &element, now())).expect("it is looked at")
    }

    fn heal(&self, address: &str) {
        assert_eq!(self.apply(address).state, ElementState::Applied);
    }

    fn apply(&self, address: &str) -> Progress {
        let element = self.element(address);
        self.runtime.block_on(self.host.apply(&self.store, &element, now())).expect("applied")
    }

    /// Makes this what account 1 needs, as a push does.
    fn settle(&self, desired: &[ElementDesired]) {
        self.runtime.block_on(async {
            let mut tx = self.store.write().await.expect("a transaction");
            elements::settle(&mut tx, "acme", 1, desired, jobs::LANE_SINGLE, now()).await.expect("settled");
            tx.commit().await.expect("committed");
        });
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a year after 1970");
    Timestamp::UNIX_EPOCH.checked_add(since).expect("an instant")
}
