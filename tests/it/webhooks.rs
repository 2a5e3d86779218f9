//! Webhooks through the running daemon: signed, in order, again until they are taken; and what may not be reached.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::daemon::{Daemon, Site};
use crate::harness::receiver::{Got, Receiver, Reply};
use crate::harness::{pki, run, temp_dir, wait_for};

const SOON: Duration = Duration::from_secs(90);

const CATALOG: &str = r#"
[tenant]
id = "acme"
currency = "USD"
timezone = "UTC"
[[bill_cycle]]
id = "c1"
anchor_day = 1
every = "month"
[[plan]]
id = "res"
service = "internet"
tariff = "res"
docsis = { downstream = "100M", upstream = "20M" }
radius = { group = "res" }
[[tariff]]
id = "res"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "30.00"
timing = "arrears"
"#;

fn site(postgres: bool) -> Site {
    let site = if postgres { Site::postgres() } else { Site::sqlite() };
    site.edit("[log]", "[webhooks]\nallow = [\"127.0.0.0/8\"]\n[log]");
    site.prepare(CATALOG);
    site
}

fn account(number: u32) -> Value {
    json!({
        "status": "active", "bill_cycle": "c1",
        "services": [{ "id": "i1", "type": "internet", "plan": "res",
                       "radius": { "username": format!("user{number}@acme"), "password": "pw" } }]
    })
}

fn push(daemon: &Daemon, key: &str, number: u32, change: impl Fn(&mut Value)) {
    let mut body = account(number);
    change(&mut body);
    let answer = daemon.api(key, "PUT", &format!("acme/accounts/{number}"), Some(&body));
    assert!(answer.status < 300, "{} {}", answer.status, answer.body);
}

fn rename(daemon: &Daemon, key: &str, number: u32, name: &str) {
    push(daemon, key, number, |body| body["name"] = name.into());
}

/// A webhook of acme for these types; its id and secret.
fn hook(daemon: &Daemon, key: &str, url: &str, types: &[&str]) -> (String, String) {
    let answer = daemon.api(key, "POST", "acme/webhooks", Some(&json!({ "url": url, "types": types })));
    assert_eq!(answer.status, 201, "{}", answer.body);
    let made = answer.json();
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("id"), text("secret"))
}

fn show(daemon: &Daemon, key: &str, id: &str) -> Value {
    daemon.api(key, "GET", &format!("acme/webhooks/{id}"), None).json()
}

fn deliveries(daemon: &Daemon, key: &str, id: &str) -> Vec<Value> {
    let page = daemon.api(key, "GET", &format!("acme/webhooks/{id}/deliveries"), None).json();
    page["items"].as_array().expect("items").clone()
}

/// Lets what waits for its next attempt be tried now: the schedule is proven elsewhere.
fn now(daemon: &Daemon, key: &str, id: &str) {
    for one in deliveries(daemon, key, id).iter().filter(|one| one["state"] == "pending" && one["next_at"].is_string())
    {
        let asked = json!({ "event": one["sequence"] });
        let answer = daemon.api(key, "POST", &format!("acme/webhooks/{id}/replay"), Some(&asked));
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
}

/// (type, account) of what came.
fn told(got: &[Got]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    got.iter().map(|got| got.json()).map(|body| (text(&body["type"]), text(&body["data"]["account"]))).collect()
}

/// Verifies deliveries with the reference library; `None`: it cannot be installed here.
pub(crate) fn verified(got: &[Got], secret: &str) -> Option<usize> {
    static LIBRARY: std::sync::OnceLock<Option<tempfile::TempDir>> = std::sync::OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let folder = temp_dir();
        let target = folder.path().display().to_string();
        let install = ["-m", "pip", "install", "--quiet", "--target", &target, "standardwebhooks==1.1.0"];
        let output = Command::new("python3").args(install).output().ok()?;
        output.status.success().then_some(folder)
    });
    let Some(library) = library else {
        println!("NOT RUN: python3 -m pip cannot install standardwebhooks: signatures are not verified independently");
        return None;
    };
    let folder = temp_dir();
    let documents: Vec<Value> = got
        .iter()
        .map(|got| json!({ "body": got.body, "headers": got.headers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>() }))
        .collect();
    let path = folder.path().join("deliveries.json");
    std::fs::write(&path, json!(documents).to_string()).expect("a file");
    let script = r#"
import json, sys
sys.path.insert(0, sys.argv[1])
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
hook, good = Webhook(sys.argv[3]), 0
for one in json.load(open(sys.argv[2])):
    try:
        told = hook.verify(one["body"], one["headers"])
        assert told.get("type") or told["eventType"]
        good += 1
    except WebhookVerificationError:
        pass
    try:
        hook.verify(one["body"] + " ", one["headers"])
        sys.exit("a changed body verifies")
    except WebhookVerificationError:
        pass
print(good)
"#;
    let (library, path) = (library.path().display().to_string(), path.display().to_string());
    let output = run("python3", "python3", &["-c", script, &library, &path, secret]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number"))
}

#[test]
fn deliveries_verify_with_the_reference_library_also_while_the_secret_rotates() {
    let site = site(false);
    let daemon = site.start();
    let key = site.key("acme", "admin");
    let receiver = Receiver::start(|_| 204.into());
    let (id, secret) = hook(&daemon, &key, &receiver.url("/hook?token=abc"), &[]);
    for number in 1..=20 {
        push(&daemon, &key, number, |_| {});
    }
    wait_for("all are told", SOON, || {
        let told = told(&receiver.got());
        let of = |kind: &str| told.iter().filter(|(told, _)| told == kind).count();
        (of("account.created") == 20 && of("service.provisioned") == 20).then_some(())
    });
    let got = receiver.got();
    assert!(got.iter().all(|got| got.path == "/hook?token=abc"));
    let one = &got[0];
    assert!(one.id().starts_with("acme.") && one.header("content-type") == "application/json", "{one:?}");
    let body = one.json();
    let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["type", "timestamp", "data"], "{body}");
    let Some(good) = verified(&got, &secret) else { return };
    assert_eq!(good, got.len());
    assert_eq!(verified(&got, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), Some(0));

    let rotated = daemon.api(&key, "POST", &format!("acme/webhooks/{id}/rotate"), Some(&json!({})));
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    let new = rotated.json()["secret"].as_str().expect("a secret").to_owned();
    rename(&daemon, &key, 1, "Ada");
    let after = wait_for("the change is told", SOON, || {
        let got = receiver.got();
        got.iter().find(|got| got.json()["type"] == "account.updated").cloned()
    });
    assert_eq!(after.header("webhook-signature").split(' ').count(), 2, "{after:?}");
    for secret in [&new, &secret] {
        assert_eq!(verified(std::slice::from_ref(&after), secret), Some(1));
    }
    let printed = site.json(&["webhook", "rotate", &id, "--keep-hours", "0"]);
    let newest = printed["secret"].as_str().expect("a secret").to_owned();
    daemon.api(&key, "POST", &format!("acme/webhooks/{id}/test"), Some(&json!({})));
    let test = wait_for("the test is told", SOON, || {
        receiver.got().iter().find(|got| got.json()["type"] == "webhook.test").cloned()
    });
    assert_eq!(test.header("webhook-signature").split(' ').count(), 1, "the old one is over");
    assert_eq!((verified(std::slice::from_ref(&test), &newest), verified(&[test], &new)), (Some(1), Some(0)));
    let listed = site.json(&["webhook", "list"]);
    assert!(!listed.to_string().contains("whsec_") && !show(&daemon, &key, &id).to_string().contains("whsec_"));
    assert!(!site.log_text().contains("token=abc"), "a URL's query stays out of the log");
    println!(
        "PROOF: {} signed webhooks, also with two secrets, verified by the PyPI library standardwebhooks",
        got.len()
    );
}

#[test]
fn a_failed_event_holds_back_its_subject_only_and_is_sent_again_on_sqlite() {
    order(site(false));
}

#[test]
fn a_failed_event_holds_back_its_subject_only_and_is_sent_again_on_postgresql() {
    order(site(true));
}

fn order(site: Site) {
    let daemon = site.start();
    let key = site.key("acme", "admin");
    let well = Arc::new(AtomicBool::new(false));
    let (asked, refused) = (well.clone(), Arc::new(AtomicUsize::new(0)));
    let count = refused.clone();
    let receiver = Receiver::start(move |got| {
        if got.json()["data"]["account"] == "1" && !asked.load(Ordering::SeqCst) {
            count.fetch_add(1, Ordering::SeqCst);
            return 500.into();
        }
        200.into()
    });
    let (id, _) = hook(&daemon, &key, &receiver.url("/"), &["account.created", "account.updated"]);
    push(&daemon, &key, 1, |_| {});
    push(&daemon, &key, 2, |_| {});
    wait_for("the first is refused", SOON, || (refused.load(Ordering::SeqCst) > 0).then_some(()));
    for name in ["a", "b", "c"] {
        rename(&daemon, &key, 1, name);
        rename(&daemon, &key, 2, name);
    }
    wait_for("those of the other account are taken", SOON, || {
        (told(&receiver.got()).iter().filter(|(_, account)| account == "2").count() == 4).then_some(())
    });
    wait_for("those behind wait", SOON, || {
        let waiting: Vec<Value> = deliveries(&daemon, &key, &id);
        (waiting.len() == 4 && waiting.iter().all(|one| one["state"] == "pending")).then_some(())
    });
    well.store(true, Ordering::SeqCst);
    now(&daemon, &key, &id);
    wait_for("all are taken", SOON, || {
        let got = receiver.got();
        let of_one = told(&got).iter().filter(|(_, account)| account == "1").count();
        (of_one == refused.load(Ordering::SeqCst) + 4).then_some(())
    });
    let got = receiver.got();
    let of_one: Vec<&Got> = got.iter().filter(|got| got.json()["data"]["account"] == "1").collect();
    let mut ids: Vec<&str> = of_one.iter().map(|got| got.id()).collect();
    let bodies: Vec<&str> = of_one.iter().filter(|got| got.id() == ids[0]).map(|got| got.body.as_str()).collect();
    assert!(bodies.len() >= 2 && bodies.iter().all(|body| *body == bodies[0]), "the same octets under the same id");
    ids.dedup();
    let numbers: Vec<i64> =
        ids.iter().map(|id| id.strip_prefix("acme.").and_then(|text| text.parse().ok()).expect("an id")).collect();
    assert!(numbers.len() == 4 && numbers.is_sorted(), "in order: {numbers:?}");
    wait_for("the list says so", SOON, || {
        deliveries(&daemon, &key, &id).iter().all(|one| one["state"] == "delivered").then_some(())
    });
    assert!(daemon.stop() < Duration::from_secs(10));
}

#[test]
fn what_is_not_on_the_internet_is_refused_and_redirects_are_not_followed() {
    let site = Site::sqlite();
    site.prepare(CATALOG);
    let daemon = site.start();
    let key = site.key("acme", "admin");
    let ask = |daemon: &Daemon, url: &str| {
        let answer = daemon.api(&key, "POST", "acme/webhooks", Some(&json!({ "url": url })));
        (answer.status, answer.json()["errors"][0]["pointer"].clone())
    };
    for url in [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[fd00:ec2::254]/",
        "https://[fe80::1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://0.0.0.0/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://224.0.0.1/",
        "http://192.0.43.8/",
        "ftp://example.com/",
        "https://u:p@192.0.43.8/",
        "https://no-such-host.invalid/",
    ] {
        assert_eq!(ask(&daemon, url), (422, json!("/url")), "{url}");
    }
    let wrong =
        json!({ "url": "https://10.0.0.1/", "types": ["no.such"], "secret": "whsec_AAAA", "description": "\u{7}" });
    let answer = daemon.api(&key, "POST", "acme/webhooks", Some(&wrong));
    let pointers: Vec<Value> =
        answer.json()["errors"].as_array().expect("errors").iter().map(|fault| fault["pointer"].clone()).collect();
    assert_eq!(pointers, ["/url", "/types/0", "/description", "/secret"]);
    let reader = site.key("acme", "read");
    let answer = daemon.api(&reader, "POST", "acme/webhooks", Some(&json!({ "url": "https://192.0.43.8/" })));
    assert_eq!(answer.status, 403);
    assert!(daemon.stop() < Duration::from_secs(10));

    // Registered while the configuration allowed it, then no longer: the guard stands at every connection.
    site.edit("[log]", "[webhooks]\nallow = [\"127.0.0.0/8\"]\n[log]");
    let daemon = site.start();
    let inner = Receiver::start(|_| 200.into());
    let target = inner.url("/inner");
    let outer = Receiver::start(move |_| Reply {
        status: 307,
        headers: vec![("Location", target.clone())],
        ..Reply::default()
    });
    let (id, _) = hook(&daemon, &key, &outer.url("/"), &["account.created"]);
    push(&daemon, &key, 1, |_| {});
    let failed = wait_for("the redirect is a failure", SOON, || {
        deliveries(&daemon, &key, &id).first().filter(|one| one["attempts"].as_i64() >= Some(1)).cloned()
    });
    assert_eq!((&failed["state"], &failed["status"]), (&json!("pending"), &json!(307)), "{failed}");
    assert!(inner.got().is_empty(), "nobody followed it");
    assert!(daemon.stop() < Duration::from_secs(10));
    site.edit("allow = [\"127.0.0.0/8\"]", "allow = []");
    let before = outer.got().len();
    let daemon = site.start();
    now(&daemon, &key, &id);
    let refused = wait_for("the guard refuses", SOON, || {
        let one = deliveries(&daemon, &key, &id).first().cloned()?;
        one["detail"].as_str().is_some_and(|detail| detail.contains("not on the public Internet")).then_some(one)
    });
    assert_eq!((outer.got().len(), &refused["state"]), (before, &json!("pending")), "nothing connected");
}

#[test]
fn gone_disables_and_an_overloaded_receiver_is_left_alone() {
    let site = site(false);
    let daemon = site.start();
    let key = site.key("acme", "admin");
    let receiver = Receiver::start(|_| 410.into());
    let (id, _) = hook(&daemon, &key, &receiver.url("/"), &["account.created"]);
    push(&daemon, &key, 1, |_| {});
    wait_for("it is disabled", SOON, || (show(&daemon, &key, &id)["state"] == "disabled").then_some(()));
    push(&daemon, &key, 2, |_| {});
    assert_eq!(receiver.got().len(), 1);
    let exceptions = site.json(&["exception", "list"]);
    assert!(exceptions.to_string().contains(&id), "{exceptions}");
    receiver.answer(|_| Reply { status: 429, headers: vec![("Retry-After", "8".into())], ..Reply::default() });
    let enabled = daemon.api(&key, "PATCH", &format!("acme/webhooks/{id}"), Some(&json!({ "state": "enabled" })));
    assert_eq!(enabled.status, 200, "{}", enabled.body);
    wait_for("it is asked again", SOON, || (receiver.got().len() > 1).then_some(()));
    let began = Instant::now();
    let asked = receiver.got().len();
    wait_for("it rests", SOON, || show(&daemon, &key, &id)["slow_until"].is_string().then_some(()));
    receiver.answer(|_| 200.into());
    push(&daemon, &key, 3, |_| {});
    wait_for("all are taken", SOON, || {
        let accounts: std::collections::BTreeSet<_> =
            told(&receiver.got()[asked..]).into_iter().map(|(_, account)| account).collect();
        accounts.contains("3").then_some(())
    });
    assert!(began.elapsed() >= Duration::from_secs(7), "after {:?}", began.elapsed());
    now(&daemon, &key, &id);
    wait_for("nothing is left", SOON, || {
        deliveries(&daemon, &key, &id).iter().all(|one| one["state"] == "delivered").then_some(())
    });
}

#[test]
fn what_is_given_up_is_listed_and_replayed() {
    let site = site(false);
    let daemon = site.start();
    let key = site.key("acme", "admin");
    let receiver = Receiver::start(|_| 503.into());
    let (id, secret) = hook(&daemon, &key, &receiver.url("/"), &["account.created"]);
    push(&daemon, &key, 1, |_| {});
    wait_for("it failed", SOON, || deliveries(&daemon, &key, &id).first().cloned());
    // As if three days had passed.
    sql(&site, "UPDATE delivery SET attempts = 9, next_at = 1");
    wait_for("it is given up", SOON, || {
        deliveries(&daemon, &key, &id).first().filter(|one| one["state"] == "dead").cloned()
    });
    assert!(site.log_text().contains(&format!("lastmile webhook replay {id}")), "an operator is told what to do");
    let listed = site.json(&["webhook", "deliveries", &id, "--state", "dead"]);
    let event = listed[0]["sequence"].as_i64().expect("a number");
    receiver.answer(|_| 200.into());
    let before = receiver.got().len();
    assert_eq!(site.json(&["webhook", "replay", &id, "--dead"])["replayed"], 1);
    let first = wait_for("it is taken", SOON, || receiver.got().get(before).cloned());
    assert_eq!(first.id(), format!("acme.{event}"));
    // One that was taken at once has no row and can be asked for all the same.
    push(&daemon, &key, 2, |_| {});
    let second = wait_for("another is taken", SOON, || receiver.got().get(before + 1).cloned());
    let last = second.id().strip_prefix("acme.").and_then(|text| text.parse::<i64>().ok()).expect("a number");
    wait_for("and recorded", SOON, || (show(&daemon, &key, &id)["position"].as_i64() >= Some(last)).then_some(()));
    let asked = json!({ "from": event, "to": last });
    let answer = daemon.api(&key, "POST", &format!("acme/webhooks/{id}/replay"), Some(&asked));
    assert_eq!((answer.status, &answer.json()["replayed"]), (202, &json!(2)), "only what it wants: {}", answer.body);
    wait_for("both came again", SOON, || (receiver.got().len() == before + 4).then_some(()));
    let got = receiver.got();
    let again: Vec<&str> = got[before + 2..].iter().map(Got::id).collect();
    assert!(again.contains(&first.id()) && again.contains(&second.id()), "{again:?}");
    if let Some(good) = verified(&got, &secret) {
        assert_eq!(good, got.len());
    }
    let none = daemon.api(&key, "POST", &format!("acme/webhooks/{id}/replay"), Some(&json!({ "from": 5, "to": 1 })));
    assert_eq!(none.status, 400);
}

#[test]
fn an_event_that_was_sent_and_not_recorded_comes_again_under_its_id() {
    let site = site(false);
    let daemon = site.start();
    let key = site.key("acme", "admin");
    // The answer comes when the daemon is gone.
    let receiver = Receiver::start(|_| Reply { status: 200, after: Duration::from_secs(5), ..Reply::default() });
    let (id, _) = hook(&daemon, &key, &receiver.url("/"), &["account.created"]);
    push(&daemon, &key, 1, |_| {});
    wait_for("it is under way", SOON, || receiver.got().first().cloned());
    daemon.kill();
    receiver.answer(|_| 200.into());
    let daemon = site.start();
    wait_for("it comes again", SOON, || (receiver.got().len() >= 2).then_some(()));
    wait_for("and is recorded", SOON, || (show(&daemon, &key, &id)["delivered"] == 1).then_some(()));
    let got = receiver.got();
    assert_eq!((got[0].id(), &got[0].body), (got[1].id(), &got[1].body));
    push(&daemon, &key, 2, |_| {});
    wait_for("others follow", SOON, || (receiver.got().len() == 3).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(receiver.got().len(), 3, "what is recorded is not sent again");
}

#[test]
fn a_receiver_that_hangs_delays_no_other_and_no_other_subject_for_long() {
    let site = site(false);
    let daemon = site.start();
    let key = site.key("acme", "admin");
    let hanging = Receiver::start(|_| Reply { status: 200, after: Duration::from_secs(60), ..Reply::default() });
    let well = Receiver::start(|_| 200.into());
    hook(&daemon, &key, &hanging.url("/"), &["account.created"]);
    hook(&daemon, &key, &well.url("/"), &["account.created"]);
    let began = Instant::now();
    for number in 1..=100 {
        push(&daemon, &key, number, |_| {});
    }
    wait_for("the other got all", SOON, || (well.got().len() == 100).then_some(()));
    let took = began.elapsed();
    assert!(hanging.got().len() <= 16, "{} under way to the one that hangs", hanging.got().len());
    println!("PROOF: 100 events at one webhook in {took:?} while another hung");
}

#[test]
fn two_daemons_share_the_work_and_one_takes_over_from_the_other() {
    let site = site(true);
    let twin = site.twin();
    twin.edit("[log]", "[webhooks]\nallow = [\"127.0.0.0/8\"]\n[log]");
    let (one, two) = (site.start(), twin.start());
    let key = site.key("acme", "admin");
    let receiver = Receiver::start(|_| 200.into());
    let (id, _) = hook(&one, &key, &receiver.url("/"), &["account.created"]);
    for number in 1..=40 {
        push(if number % 2 == 0 { &one } else { &two }, &key, number, |_| {});
    }
    wait_for("all are told", SOON, || (receiver.got().len() >= 40).then_some(()));
    let mut ids: Vec<String> = receiver.got().iter().map(|got| got.id().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), receiver.got().len()), (40, 40), "each once");
    // Whoever has it dies with the claim; the other waits for its end.
    one.kill();
    push(&two, &key, 41, |_| {});
    wait_for("the other goes on", Duration::from_secs(180), || (receiver.got().len() >= 41).then_some(()));
    wait_for("and records", SOON, || (show(&two, &key, &id)["delivered"] == 41).then_some(()));
}

#[test]
fn webhooks_over_tls_trust_the_authority_they_are_told() {
    let site = site(false);
    let folder = site.folder.clone();
    pki::authority(&folder, "hook-ca");
    pki::certificate(&folder, "hook-ca", "hook", "localhost", "DNS:localhost,IP:127.0.0.1");
    let plain = Receiver::start(|_| 200.into());
    let port = crate::harness::free_tcp_port();
    let (cert, key_file) = (folder.join("hook.pem"), folder.join("hook.key"));
    let mut tls = terminate(port, plain.port, &cert.display().to_string(), &key_file.display().to_string());
    let daemon = site.start();
    let key = site.key("acme", "admin");
    let (id, _) = hook(&daemon, &key, &format!("https://localhost:{port}/"), &["account.created"]);
    push(&daemon, &key, 1, |_| {});
    let failed = wait_for("an unknown authority is no receiver", SOON, || {
        deliveries(&daemon, &key, &id).first().filter(|one| one["detail"].is_string()).cloned()
    });
    assert!(failed["detail"].as_str().is_some_and(|detail| detail.contains("no TLS")), "{failed}");
    assert!(daemon.stop() < Duration::from_secs(10));
    let ca = folder.join("hook-ca.pem").display().to_string();
    site.edit("[webhooks]", &format!("[webhooks]\nca = \"{ca}\""));
    let daemon = site.start();
    now(&daemon, &key, &id);
    wait_for("it is taken", SOON, || (plain.got().len() == 1).then_some(()));
    wait_for("and recorded", SOON, || (show(&daemon, &key, &id)["delivered"] == 1).then_some(()));
    tls.kill().expect("it ends");
    tls.wait().expect("it is gone");
}

/// TLS in front of a plain port, by a script of a few lines.
fn terminate(port: u16, plain: u16, cert: &str, key: &str) -> std::process::Child {
    let script = r#"
import asyncio, ssl, sys
port, plain, cert, key = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
async def pump(source, target):
    try:
        while octets := await source.read(65536):
            target.write(octets)
            await target.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    target.close()
async def serve(reader, writer):
    inner, outer = await asyncio.open_connection("127.0.0.1", plain)
    await asyncio.gather(pump(reader, outer), pump(inner, writer))
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    await server.serve_forever()
asyncio.run(main())
"#;
    let arguments = ["-c", script, &port.to_string(), &plain.to_string(), cert, key];
    let child = Command::new("python3").args(arguments).spawn().expect("python3 runs");
    wait_for("TLS is served", Duration::from_secs(30), || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    child
}

#[test]
fn events_follow_an_accounts_life() {
    let site = site(false);
    let daemon = site.start();
    let key = site.key("acme", "admin");
    let path = "acme/accounts/1";
    push(&daemon, &key, 1, |_| {});
    let page = || {
        daemon.api(&key, "GET", "acme/events?limit=1000", None).json()["items"].as_array().cloned().unwrap_or_default()
    };
    wait_for("it is provisioned", SOON, || {
        page().iter().any(|event| event["type"] == "service.provisioned").then_some(())
    });
    push(&daemon, &key, 1, |_| {});
    push(&daemon, &key, 1, |body| body["holds"] = json!([{ "kind": "abuse" }]));
    push(&daemon, &key, 1, |_| {});
    let suspended = daemon.api(&key, "POST", &format!("{path}/services/i1/suspend"), Some(&json!({})));
    assert_eq!(suspended.status, 200, "{}", suspended.body);
    daemon.api(&key, "POST", &format!("{path}/services/i1/resume"), Some(&json!({})));
    let closed = daemon.api(&key, "DELETE", path, None);
    assert_eq!(closed.status, 202);
    push(&daemon, &key, 1, |body| body["source_revision"] = 2.into());
    let lives = |event: &Value| {
        event["type"].as_str().is_some_and(|kind| kind.starts_with("account") || kind.starts_with("hold"))
    };
    let all = page();
    let kinds: Vec<String> = all
        .iter()
        .filter(|event| lives(event))
        .map(|event| {
            format!("{} {}", event["type"].as_str().unwrap_or_default(), event["subject"].as_str().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "account.created default/1",
            "account.updated default/1",
            "hold.placed default/1",
            "account.updated default/1",
            "hold.lifted default/1",
            "hold.placed default/1/i1",
            "hold.lifted default/1/i1",
            "account.closed default/1",
            "account.created default/1",
        ],
        "the same push again tells nothing"
    );
    let sequences: Vec<i64> = all.iter().filter_map(|event| event["sequence"].as_i64()).collect();
    assert_eq!(sequences, (1..=all.len() as i64).collect::<Vec<_>>(), "no gap");
}

#[test]
fn another_tenants_webhook_is_as_if_it_were_not_there() {
    let site = site(false);
    let other = CATALOG.replace("id = \"acme\"", "id = \"other\"");
    let path = site.path("other.toml");
    std::fs::write(&path, other).expect("a catalog");
    site.succeed(&["catalog", "apply", &path.display().to_string()]);
    let daemon = site.start();
    let (key, stranger) = (site.key("acme", "admin"), site.key("other", "admin"));
    let receiver = Receiver::start(|_| 200.into());
    let (id, _) = hook(&daemon, &key, &receiver.url("/"), &[]);
    for (method, route, body) in [
        ("GET", "", None),
        ("PATCH", "", Some(json!({ "state": "disabled" }))),
        ("DELETE", "", None),
        ("POST", "/rotate", Some(json!({}))),
        ("GET", "/deliveries", None),
        ("POST", "/replay", Some(json!({ "dead": true }))),
        ("POST", "/test", None),
    ] {
        for tenant in ["other", "acme"] {
            let answer = daemon.api(&stranger, method, &format!("{tenant}/webhooks/{id}{route}"), body.as_ref());
            assert_eq!(answer.status, 404, "{method} {tenant} {route}: {}", answer.body);
        }
    }
    assert_eq!(show(&daemon, &key, &id)["state"], "enabled");
    assert_eq!(daemon.api(&key, "DELETE", &format!("acme/webhooks/{id}"), None).status, 204);
    assert_eq!(daemon.api(&key, "GET", &format!("acme/webhooks/{id}"), None).status, 404);
}

fn sql(site: &Site, statement: &str) {
    let path = site.path("lastmile.db").display().to_string();
    let output = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &path, statement]);
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}
