//! Live sessions follow their login: a change of it reaches the NAS as a Change of Authorization or a Disconnect, with
//! FreeRADIUS as a NAS that nobody here wrote, and with NAS that are silent, slow or lose the daemon in the middle.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, internet, radclient_raw};
use crate::harness::daemon::{Daemon, NAS_SECRET, Site};
use crate::harness::dynauth::{Coa, FakeNas, Scripted};
use crate::harness::radiusd::{self, FreeRadius};
use crate::harness::realnas::{self, RealNas};
use crate::harness::{free_udp_port, postgres, wait_for};

const SOON: Duration = Duration::from_secs(20);

/// A catalog whose two plans differ in what their group and they say of the rate.
fn catalog() -> String {
    CATALOG.replace(
        r#"radius = { group = "res-300" }"#,
        r#"radius = { group = "res-300", reply = { "Mikrotik-Rate-Limit" = "30M/300M" } }"#,
    )
}

struct Isp {
    site: Site,
    daemon: Daemon,
    push: String,
    operator: String,
}

impl Isp {
    fn over(site: Site, coa: &str) -> Self {
        site.edit("identity = \"nas-identifier\"", &format!("identity = \"nas-identifier\"\ncoa = {{ {coa} }}"));
        site.prepare(&catalog());
        let (push, operator) = (site.key("acme", "push"), site.key("acme", "operator"));
        let daemon = site.start();
        Self { site, daemon, push, operator }
    }

    /// Pushes account `number` and waits until its rows stand; `change` makes it another than `internet(number)`.
    fn push(&self, number: u32, change: impl Fn(&mut Value)) {
        let mut body = internet(number);
        change(&mut body);
        let path = format!("acme/accounts/{number}");
        let answer = self.daemon.api(&self.push, "PUT", &path, Some(&body));
        assert!(answer.status < 300, "{} {}", answer.status, answer.body);
        wait_for("the rows are written", SOON, || {
            let account = self.daemon.api(&self.push, "GET", &path, None).json();
            (account["services"][0]["provisioning"]["state"] == "applied").then_some(())
        });
    }

    fn suspended(body: &mut Value) {
        body["status"] = "suspended".into();
    }

    fn on_plan(plan: &'static str) -> impl Fn(&mut Value) {
        move |body| body["services"][0]["plan"] = plan.into()
    }

    /// A session of `user{number}@acme` begins, as a NAS reports it.
    fn start(&self, number: u32, session: &str) -> i64 {
        self.report(number, session, "Start");
        self.session(session)
    }

    fn report(&self, number: u32, session: &str, kind: &str) {
        let report = format!(
            "User-Name = \"user{number}@acme\"\nAcct-Session-Id = \"{session}\"\nAcct-Status-Type = {kind}\n\
             NAS-Identifier = \"bng-7\"\nFramed-IP-Address = 10.0.0.7\nAcct-Session-Time = 60\n"
        );
        let answer = radclient_raw(self.site.radius_port, "acct", NAS_SECRET, &report);
        assert!(answer.contains("Received Accounting-Response"), "{answer}");
    }

    /// The number of a session by its Acct-Session-Id, once it is folded.
    fn session(&self, session: &str) -> i64 {
        wait_for("the session is folded", SOON, || {
            let path = format!("acme/sessions?session={session}");
            let listed = self.daemon.api(&self.push, "GET", &path, None).json();
            listed["items"][0]["id"].as_i64()
        })
    }

    fn shown(&self, id: i64) -> Value {
        self.daemon.api(&self.push, "GET", &format!("acme/sessions/{id}"), None).json()
    }

    /// The newest order about a session, once `is` holds of it.
    fn order(&self, id: i64, is: impl Fn(&Value) -> bool) -> Value {
        wait_for("what the NAS was asked", Duration::from_secs(40), || {
            let order = self.shown(id)["control"][0].clone();
            is(&order).then_some(order)
        })
    }

    fn outcome(&self, id: i64, outcome: &str) -> Value {
        self.order(id, |order| order["outcome"] == outcome)
    }
}

/// FreeRADIUS's view of the packets: its log has every attribute of what it accepted.
#[test]
fn freeradius_as_a_nas_obeys_and_refuses_on_sqlite() {
    freeradius_as_a_nas(Site::sqlite());
}

#[test]
fn freeradius_as_a_nas_obeys_and_refuses_on_postgresql() {
    let mut site = Site::postgres();
    let url = postgres::database();
    site.edit(&site.aaa_url, &url);
    site.aaa_url = url;
    freeradius_as_a_nas(site);
}

fn freeradius_as_a_nas(site: Site) {
    if !radiusd::may_run() {
        return;
    }
    let nas = Coa::start(NAS_SECRET);
    let aaa_url = site.aaa_url.clone();
    let coa = format!(
        "address = \"127.0.0.1\", port = {}, mode = \"coa\", attributes = [\"Mikrotik-Rate-Limit\"], timeout_seconds = 3",
        nas.port
    );
    let isp = Isp::over(site, &coa);
    wait_for("the AAA tables are made", SOON, || group_rows(&aaa_url).ok());
    isp.push(1, |_| {});
    let first = isp.start(1, "0a1b2c01");

    // Another plan, whose rate alone differs: the session goes on with it.
    isp.push(1, Isp::on_plan("res-300"));
    let order = isp.outcome(first, "ack");
    let log = nas.log();
    assert_eq!(
        (&order["action"], &order["cause"]),
        (&json!("coa"), &json!("Mikrotik-Rate-Limit changed")),
        "{order}\n{log}"
    );
    for line in [
        "Received CoA-Request",
        "User-Name = \"user1@acme\"",
        "Acct-Session-Id = \"0a1b2c01\"",
        "NAS-Identifier = \"bng-7\"",
        "Framed-IP-Address = 10.0.0.7",
        "Mikrotik-Rate-Limit = \"30M/300M\"",
        "Event-Timestamp = ",
        "Message-Authenticator = 0x",
        "Sent CoA-ACK",
    ] {
        assert!(log.contains(line), "{line:?} in {log}");
    }
    wait_for("the account tells what became of the session", Duration::from_secs(40), || {
        let account = isp.daemon.api(&isp.push, "GET", "acme/accounts/1", None).json();
        let evidence = account["services"][0]["provisioning"]["evidence"].as_str()?.to_owned();
        evidence.contains("session on bng1/bng-7 changed at").then_some(())
    });

    // Into the garden takes a new session; the plan's own password change takes nothing.
    isp.push(1, |body| {
        Isp::on_plan("res-300")(body);
        body["services"][0]["radius"]["password"] = "another".into();
    });
    isp.push(1, |body| {
        Isp::on_plan("res-300")(body);
        body["services"][0]["radius"]["password"] = "another".into();
        Isp::suspended(body);
    });
    let order = isp.order(first, |order| order["action"] == "disconnect" && order["outcome"] == "ack");
    assert_eq!(order["cause"], "the login is restricted");
    assert_eq!(nas.log().matches("Received CoA-Request").count(), 1, "the password was nobody's session's business");
    assert!(nas.log().contains("Sent Disconnect-ACK"), "{}", nas.log());
    isp.report(1, "0a1b2c01", "Stop");

    // A session that the NAS does not know is stale with us.
    isp.push(2, |_| {});
    let unknown = isp.start(2, "unknown-1");
    isp.push(2, Isp::suspended);
    let order = isp.outcome(unknown, "unknown");
    assert_eq!(order["error_cause"], 503);
    wait_for("the session is called stale", SOON, || (isp.shown(unknown)["state"] == "stale").then_some(()));

    // A change that the NAS refuses is a Disconnect.
    isp.push(3, |_| {});
    let stubborn = isp.start(3, "stubborn-1");
    isp.push(3, Isp::on_plan("res-300"));
    isp.outcome(stubborn, "ack");
    let order = isp.shown(stubborn)["control"][0].clone();
    assert_eq!(order["action"], "disconnect");
    let said = order["detail"].as_str().unwrap_or_default();
    assert!(said.contains("405 Unsupported Service") && said.ends_with("it is asked to end it, and did"), "{said}");
    assert!(nas.log().contains("Sent CoA-NAK"), "{}", nas.log());

    // A refusal for good is a person's: an exception, and the session goes on.
    isp.push(4, |_| {});
    let forbidden = isp.start(4, "forbidden-1");
    isp.push(4, Isp::suspended);
    let order = isp.outcome(forbidden, "nak");
    assert_eq!((&order["error_cause"], &order["next_at"]), (&json!(501), &Value::Null));
    let exceptions = isp.site.json(&["exception", "list"]);
    let told = exceptions.to_string();
    assert!(told.contains("nas_control") && told.contains("501 Administratively Prohibited"), "{told}");

    // What NOC sees.
    let shown = isp.site.succeed(&["session", "show", "forbidden-1", "--records", "0"]);
    assert!(shown.contains("501 Administratively Prohibited"), "{shown}");
    let metrics =
        crate::harness::http::request(isp.site.http_port, "GET", "/metrics", &[], None).expect("metrics").body;
    for line in [
        "lastmile_nas_control_requests_total{nas=\"bng1\",kind=\"coa\",result=\"ack\"} 1",
        "lastmile_nas_control_requests_total{nas=\"bng1\",kind=\"disconnect\",result=\"unknown\"} 1",
        "lastmile_nas_control_waiting{nas=\"bng1\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

/// Both plans' groups say the same, so that only the plans' own rows differ; the garden has a filter.
fn group_rows(url: &str) -> Result<(), sqlx::Error> {
    let statements = ["res-100", "res-300", "garden"].map(|group| {
        format!(
            "INSERT INTO radgroupreply (groupname, attribute, op, value) VALUES ('{group}', 'Idle-Timeout', ':=', '0')"
        )
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        use sqlx::Connection;
        for statement in statements {
            let statement = sqlx::AssertSqlSafe(statement);
            if url.starts_with("sqlite") {
                sqlx::query(statement).execute(&mut sqlx::SqliteConnection::connect(url).await?).await?;
            } else {
                sqlx::query(statement).execute(&mut sqlx::PgConnection::connect(url).await?).await?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_silent_nas_is_asked_again_and_a_killed_daemon_asks_anew() {
    let nas = FakeNas::start(NAS_SECRET, Scripted::Silent);
    let coa = format!("address = \"127.0.0.1\", port = {}, timeout_seconds = 3", nas.port);
    let isp = Isp::over(Site::sqlite(), &coa);
    isp.push(1, |_| {});
    let id = isp.start(1, "s1");
    isp.push(1, Isp::suspended);
    wait_for("the request and its retransmission", SOON, || (nas.packets().len() >= 2).then_some(()));
    let packets = nas.packets();
    assert_eq!(packets[0], packets[1], "a retransmission is the same octets");

    // Killed while the NAS owes an answer: the next daemon asks anew, with a time of its own.
    let Isp { site, daemon, push, operator } = isp;
    daemon.kill();
    let seen = nas.packets().len();
    let isp = Isp { daemon: site.start(), site, push, operator };
    wait_for("it is asked anew", SOON, || (nas.packets().len() > seen).then_some(()));
    assert_ne!(nas.packets()[seen][4..20], packets[0][4..20], "signed anew");

    // Silence is recorded, with when it is asked again; then the NAS answers.
    let order = isp.outcome(id, "silent");
    assert!(order["detail"].as_str().is_some_and(|said| said.starts_with("no answer")), "{order}");
    assert!(order["next_at"].is_string() && order["finished_at"].is_null(), "{order}");
    nas.script(Scripted::Ack);
    let order = isp.outcome(id, "ack");
    assert!(order["attempts"].as_i64().is_some_and(|attempts| attempts >= 2), "{order}");
}

/// The NAS got the change and has not answered yet when the login is as it was: it is told so, for it may have obeyed.
#[test]
fn a_change_taken_back_while_the_nas_owes_an_answer_is_taken_back_there_on_sqlite() {
    change_taken_back(Site::sqlite());
}

#[test]
fn a_change_taken_back_while_the_nas_owes_an_answer_is_taken_back_there_on_postgresql() {
    let mut site = Site::postgres();
    let url = postgres::database();
    site.edit(&site.aaa_url, &url);
    site.aaa_url = url;
    change_taken_back(site);
}

fn change_taken_back(site: Site) {
    let nas = FakeNas::start(NAS_SECRET, Scripted::Silent);
    let aaa_url = site.aaa_url.clone();
    let coa = format!(
        "address = \"127.0.0.1\", port = {}, mode = \"coa\", attributes = [\"Mikrotik-Rate-Limit\"], timeout_seconds = 15",
        nas.port
    );
    let isp = Isp::over(site, &coa);
    wait_for("the AAA tables are made", SOON, || group_rows(&aaa_url).ok());
    isp.push(1, Isp::on_plan("res-300"));
    let id = isp.start(1, "s1");
    let says = |rate: &str| {
        let packets = nas.packets();
        packets.iter().any(|packet| packet.windows(rate.len()).any(|part| part == rate.as_bytes()))
    };

    isp.push(1, |_| {});
    wait_for("the NAS has the change", SOON, || (!nas.packets().is_empty()).then_some(()));
    isp.push(1, Isp::on_plan("res-300"));
    nas.script(Scripted::Ack);
    wait_for("the NAS has the old rate again", SOON, || says("30M/300M").then_some(()));
    let order = isp.order(id, |order| order["outcome"] == "ack");
    assert_eq!(order["action"], "coa", "{order}");
}

#[test]
fn an_answer_with_another_secret_is_no_answer() {
    let nas = FakeNas::start("somebody else's", Scripted::Ack);
    let coa = format!("address = \"127.0.0.1\", port = {}, timeout_seconds = 1", nas.port);
    let isp = Isp::over(Site::sqlite(), &coa);
    isp.push(1, |_| {});
    let id = isp.start(1, "s1");
    isp.push(1, Isp::suspended);
    let order = isp.outcome(id, "silent");
    assert!(order["detail"].as_str().is_some_and(|said| said.contains("another secret")), "{order}");
}

#[test]
fn noc_ends_a_session_and_the_audit_knows_who() {
    let nas = FakeNas::start(NAS_SECRET, Scripted::Ack);
    let coa = format!("address = \"127.0.0.1\", port = {}, timeout_seconds = 3", nas.port);
    let isp = Isp::over(Site::sqlite(), &coa);
    isp.push(1, |_| {});
    let id = isp.start(1, "s1");
    let path = format!("acme/sessions/{id}/disconnect");
    assert_eq!(isp.daemon.api(&isp.push, "POST", &path, None).status, 403, "a billing system may not");
    assert_eq!(isp.daemon.api(&isp.operator, "POST", "acme/sessions/999/disconnect", None).status, 404);
    let asked = isp.daemon.api(&isp.operator, "POST", &path, None);
    assert_eq!(asked.status, 202, "{}", asked.body);
    let order = isp.outcome(id, "ack");
    assert!(order["cause"].as_str().is_some_and(|cause| cause.starts_with("asked for by key ")), "{order}");

    let said = isp.site.json(&["session", "disconnect", "--user", "user1@acme"]);
    assert_eq!((&said[0]["session"], &said[0]["order"]["outcome"]), (&json!(id), &json!("ack")), "{said}");
    isp.report(1, "s1", "Stop");
    wait_for("the session has ended", SOON, || isp.shown(id)["ended_at"].is_string().then_some(()));
    assert_eq!(isp.daemon.api(&isp.operator, "POST", &path, None).status, 409);
    assert_eq!(isp.site.lastmile(&["session", "disconnect", "s1"]).status.code(), Some(3), "nothing lives");
    let history = isp.site.succeed(&["account", "history", "1", "--tenant", "acme"]);
    assert_eq!(history.matches("session.disconnect").count(), 2, "{history}");
}

/// A NAS that cannot be told, and one that is not there: the rows stand, and everybody can see why the session goes on.
#[test]
fn without_coa_the_session_goes_on_and_says_so() {
    let site = Site::sqlite();
    site.prepare(&catalog());
    let (push, operator) = (site.key("acme", "push"), site.key("acme", "operator"));
    let isp = Isp { daemon: site.start(), site, push, operator };
    isp.push(1, |_| {});
    let id = isp.start(1, "s1");
    isp.push(1, Isp::suspended);
    let order = isp.outcome(id, "no_means");
    assert!(order["detail"].as_str().is_some_and(|said| said.contains("no coa for NAS bng1/bng-7")), "{order}");
}

/// Sixty sessions at ten a second, and an operator's wish in the middle of them.
#[test]
fn many_are_paced_and_an_operator_is_not_kept_waiting() {
    const SESSIONS: u32 = 60;
    let nas = FakeNas::start(NAS_SECRET, Scripted::Ack);
    let coa = format!("address = \"127.0.0.1\", port = {}, per_second = 10", nas.port);
    let site = Site::sqlite();
    // So many suspensions at once would wait for an operator.
    site.edit("[log]", "[[source]]\ntenant = \"acme\"\nbreaker = { percent = 100 }\n[log]");
    let isp = Isp::over(site, &coa);
    for number in 1..=SESSIONS + 1 {
        let body = internet(number);
        isp.daemon.api(&isp.push, "PUT", &format!("acme/accounts/{number}"), Some(&body));
    }
    for number in 1..=SESSIONS + 1 {
        isp.report(number, &format!("s{number}"), "Start");
    }
    let bystander = isp.session(&format!("s{}", SESSIONS + 1));
    wait_for("every login stands", Duration::from_secs(60), || {
        let waiting = isp.daemon.api(&isp.push, "GET", "acme/jobs?state=pending", None).json();
        waiting["items"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    let begun = Instant::now();
    for number in 1..=SESSIONS {
        let mut body = internet(number);
        Isp::suspended(&mut body);
        isp.daemon.api(&isp.push, "PUT", &format!("acme/accounts/{number}"), Some(&body));
    }
    wait_for("the first are asked", SOON, || (nas.packets().len() >= 5).then_some(()));
    let path = format!("acme/sessions/{bystander}/disconnect");
    assert_eq!(isp.daemon.api(&isp.operator, "POST", &path, None).status, 202);
    isp.outcome(bystander, "ack");
    let before_the_wish = nas.packets().len();
    wait_for("all are asked", Duration::from_secs(60), || {
        (nas.packets().len() > usize::try_from(SESSIONS).expect("few")).then_some(())
    });
    let took = begun.elapsed();
    assert!(before_the_wish < 50, "{before_the_wish} went before an operator's");
    // A burst of ten, then ten a second.
    assert!(took >= Duration::from_millis(4500), "{SESSIONS} sessions in {took:?}");
}

/// The whole way with servers that nobody here wrote: pushed over HTTP, a subscriber logs in at ocserv with the rows we
/// wrote, moves octets that arrive in our ledger, and is thrown out when the account is suspended.
#[test]
fn a_real_subscriber_at_a_real_nas_is_counted_and_disconnected() {
    const PAYLOAD: u64 = 20_000_000;
    if !radiusd::may_run() || !realnas::may_run() {
        return;
    }
    let site = Site::sqlite();
    let (aaa_url, collector_port) = (site.aaa_url.clone(), site.radius_port);
    // FreeRADIUS has its ports before the daemon has the bridge's.
    let wires = RealNas::wires();
    let ports = [free_udp_port(), free_udp_port()];
    let nas = RealNas::start(wires, ports[0], ports[1]);
    let coa = format!("address = \"127.0.0.1\", port = {}, timeout_seconds = 10", nas.coa_port);
    let isp = Isp::over(site, &coa);
    wait_for("the AAA tables are made", SOON, || group_rows(&aaa_url).ok());
    let radius = FreeRadius::start_at(&aaa_url, collector_port, (realnas::SERVER, "10.231.77.0/24"), ports);

    let subscriber = |body: &mut Value| {
        body["services"][0]["radius"]["framed_ip"] = "10.231.80.7".into();
    };
    isp.push(1, subscriber);
    assert!(nas.login("user1@acme", "wrong").is_none(), "a wrong password is refused");
    let mut session = nas.login("user1@acme", "secret-1").unwrap_or_else(|| panic!("{}\n{}", nas.log(), radius.log()));
    assert_eq!(nas.address(), "10.231.80.7", "the address we wrote");
    assert_eq!(nas.download(PAYLOAD), PAYLOAD);

    let live = wait_for("the octets arrive with an interim report", Duration::from_secs(60), || {
        let listed = isp.daemon.api(&isp.push, "GET", "acme/sessions?user=user1@acme&state=open", None).json();
        let session = listed["items"][0].clone();
        (session["out_octets"].as_u64()? >= PAYLOAD).then_some(session)
    });
    assert_eq!((&live["account"], &live["nas"]), (&json!("1"), &json!("bng1/ocserv-1")));
    assert!(!session.has_ended(), "{}", session.log());

    isp.push(1, |body| {
        subscriber(body);
        Isp::suspended(body);
    });
    let id = live["id"].as_i64().expect("a number");
    let order = isp.outcome(id, "ack");
    assert_eq!((&order["action"], &order["cause"]), (&json!("disconnect"), &json!("the login is restricted")));
    wait_for("the subscriber is out", SOON, || session.has_ended().then_some(()));
    let ended = wait_for("the Stop is folded", SOON, || {
        let shown = isp.shown(id);
        shown["ended_at"].is_string().then_some(shown)
    });
    let usage = isp.daemon.api(&isp.push, "GET", "acme/accounts/1/usage", None).json();
    println!(
        "payload {PAYLOAD} octets; the NAS reported {} down, {} up; usage {}",
        ended["out_octets"], ended["in_octets"], usage["total"]
    );
    assert!(ended["out_octets"].as_u64().is_some_and(|octets| octets >= PAYLOAD), "{ended}");
    assert_eq!(usage["total"]["out_octets"], ended["out_octets"], "every octet is the account's");
}

/// What is wrong in `coa` is told with its place.
#[test]
fn check_config_tells_every_fault_of_coa() {
    let site = Site::sqlite();
    let port = free_udp_port();
    site.edit(
        "identity = \"nas-identifier\"",
        &format!(
            "identity = \"nas-identifier\"\ncoa = {{ port = {port}, mode = \"coa\", attributes = [\"Acct-Session-Id\", \
             \"Nobodys-Own\"], per_secnd = 3 }}"
        ),
    );
    let output = site.lastmile(&["check-config"]);
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    for fault in [
        "radius.nas[0].coa: address is required",
        "coa.attributes[0]: Acct-Session-Id tells the NAS which session is meant",
        "coa.attributes[1]: no dictionary knows the attribute Nobodys-Own",
        "coa.per_secnd: is an unknown key; did you mean per_second?",
    ] {
        assert!(told.contains(fault), "{fault:?} in {told}");
    }
}
