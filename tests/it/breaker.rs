//! Order and safety of what sources push: what would take too much away waits for an operator, a source that is only observed
//! changes nothing, revisions begin anew in the next epoch, and what is deleted can come back for a while.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::http::{self, Answer};
use crate::harness::inside::Inside;
use crate::harness::{run, wait_for};

const SOON: Duration = Duration::from_secs(60);

struct Api {
    site: Site,
    daemon: Daemon,
    key: String,
    operator: String,
}

impl Api {
    /// Over a site whose sources are so configured.
    fn over(site: Site, sources: &str) -> Self {
        site.edit("[log]", &format!("{sources}\n[log]"));
        site.prepare(CATALOG);
        let (key, operator) = (site.key("acme", "push"), site.key("acme", "operator"));
        let daemon = site.start();
        Self { site, daemon, key, operator }
    }

    fn put(&self, number: u32, body: &Value) -> Answer {
        self.daemon.api(&self.key, "PUT", &format!("acme/accounts/a{number}"), Some(body))
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.daemon.api(&self.key, "GET", &format!("acme/{path}"), None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    fn status(&self, number: u32) -> Value {
        self.get(&format!("accounts/a{number}"))["status"].clone()
    }

    fn operate(&self, path: &str) -> Answer {
        self.daemon.api(&self.operator, "POST", &format!("acme/{path}"), None)
    }

    fn held(&self) -> Vec<Value> {
        self.get("held")["items"].as_array().expect("a list").clone()
    }
}

fn both(sources: &str, journey: impl Fn(Api)) {
    journey(Api::over(Site::sqlite(), sources));
    journey(Api::over(Site::postgres(), sources));
}

fn of(number: u32, status: &str, revision: i64) -> Value {
    let mut body = internet(number);
    body["status"] = status.into();
    body["source_revision"] = revision.into();
    body
}

const THREE: &str = "[[source]]\ntenant = \"acme\"\nbreaker = { percent = 2, accounts = 3 }";

/// Whoever holds services one by one takes as much away as who pushes them suspended.
#[test]
fn suspensions_one_by_one_count_and_wait_like_pushes() {
    both(THREE, |api| {
        for number in 0..8 {
            assert_eq!(api.put(number, &of(number, "active", 1)).status, 201);
        }
        let service = |number: u32, what: &str| format!("accounts/a{number}/services/{number}-1/{what}");
        let holds = |number: u32| api.get(&format!("accounts/a{number}"))["operator_holds"].clone();
        assert_eq!(api.put(0, &of(0, "suspended", 2)).status, 200);
        assert_eq!(api.operate(&service(1, "suspend")).status, 200);
        // Again, and another hold in the place of the one there is, take nothing more.
        assert_eq!(api.operate(&service(1, "suspend")).status, 200);
        let abuse = json!({ "kind": "abuse", "reason": "spam" });
        let by_operator =
            |path: &str, body: &Value| api.daemon.api(&api.operator, "POST", &format!("acme/{path}"), Some(body));
        assert_eq!(by_operator(&service(1, "suspend"), &abuse).status, 200);
        // What restricts nothing is none either.
        let noted = json!({ "kind": "admin", "treatment": "none" });
        assert_eq!(by_operator(&service(2, "suspend"), &noted).status, 200);
        assert_eq!(api.operate(&service(3, "suspend")).status, 200);

        let held = by_operator(&service(4, "suspend"), &abuse);
        assert_eq!(held.status, 202, "{}", held.body);
        assert!(held.json()["held"]["reasons"].to_string().contains("service 4-1 is suspended"), "{}", held.body);
        assert!(holds(4).is_null(), "nothing of it is done: {}", holds(4));
        assert_eq!(api.operate(&service(5, "suspend")).status, 202);
        assert_eq!(api.operate(&service(6, "suspend")).status, 202);
        // A push of the account does not take the place of what waits of its service, nor the other way round.
        assert_eq!(api.put(6, &of(6, "suspended", 2)).status, 202);
        let waiting = api.held();
        let of_account =
            |account: &str| waiting.iter().filter(|one| one["account"] == account).cloned().collect::<Vec<_>>();
        let kinds: Vec<Value> = of_account("a6").iter().map(|one| one["kind"].clone()).collect();
        assert_eq!((waiting.len(), kinds), (4, vec![json!("suspend"), json!("push")]), "{waiting:?}");
        assert_eq!(of_account("a4")[0]["service"], "4-1");

        // An operator lets one pass; one is not wanted any more; one goes with its account.
        let released = api.operate(&format!("held/{}/release", of_account("a4")[0]["id"].as_str().expect("an id")));
        assert_eq!(released.status, 200, "{}", released.body);
        assert_eq!(holds(4)[0]["kind"], "abuse", "{}", holds(4));
        assert_eq!(api.operate(&service(5, "resume")).status, 200);
        let push = of_account("a6")[1]["id"].as_str().expect("an id").to_owned();
        assert_eq!(api.operate(&format!("held/{push}/drop")).status, 200);
        let closed = api.daemon.api(&api.key, "DELETE", "acme/accounts/a6", None);
        assert_eq!(closed.status, 202, "{}", closed.body);
        let closing = closed.json()["held"]["id"].as_str().expect("it waits").to_owned();
        assert_eq!(api.operate(&format!("held/{closing}/release")).status, 200);
        assert_eq!(api.held(), Vec::<Value>::new());
    });
}

/// What is arranged for a day is done on that day without asking: it counts when it is arranged.
#[test]
fn suspensions_that_are_arranged_for_later_count_and_wait() {
    both(THREE, |api| {
        let day = jiff::Zoned::now().date().saturating_add(jiff::ToSpan::days(9)).to_string();
        let arranged = |number: u32, status: &str, revision: i64| {
            let mut body = of(number, "active", revision);
            body["services"][0]["scheduled"] = json!([{ "at": day, "set": { "status": status } }]);
            body
        };
        for number in 0..6 {
            assert_eq!(api.put(number, &of(number, "active", 1)).status, 201);
        }
        assert_eq!(api.put(0, &arranged(0, "suspended", 2)).status, 200);
        assert_eq!(api.put(0, &arranged(0, "suspended", 3)).status, 200, "the same again takes nothing more");
        assert_eq!(api.put(1, &arranged(1, "terminated", 2)).status, 200);
        assert_eq!(api.put(2, &arranged(2, "suspended", 2)).status, 200);
        let held = api.put(3, &arranged(3, "terminated", 2));
        assert_eq!(held.status, 202, "{}", held.body);
        assert!(held.json()["held"]["reasons"].to_string().contains("service 3-1 is terminated"), "{}", held.body);
        assert_eq!(api.put(4, &arranged(4, "active", 2)).status, 200, "what gives is never held");
    });
}

#[test]
fn what_takes_too_much_away_waits_until_an_operator_decides() {
    both(THREE, |api| {
        for number in 0..12 {
            assert_eq!(api.put(number, &of(number, "active", 1)).status, 201);
        }
        // A suspension, a termination, a service that is gone: each takes from one account.
        assert_eq!(api.put(0, &of(0, "suspended", 2)).status, 200);
        assert_eq!(api.put(1, &of(1, "terminated", 2)).status, 200);
        let mut bare = of(2, "active", 2);
        bare["services"] = json!([]);
        assert_eq!(api.put(2, &bare).status, 200);
        // What gives is never held.
        assert_eq!(api.put(0, &of(0, "active", 3)).status, 200);
        // From here on everything that takes waits: pushes, closings, patches.
        let held = api.put(3, &of(3, "suspended", 2));
        assert_eq!(held.status, 202, "{}", held.body);
        assert_eq!(held.json()["applied"], false);
        assert!(held.json()["held"]["reasons"].to_string().contains("service 3-1 is suspended"), "{}", held.body);
        let closed = api.daemon.api(&api.key, "DELETE", "acme/accounts/a4?source_revision=2", None);
        assert_eq!(closed.status, 202, "{}", closed.body);
        assert!(closed.json()["held"]["id"].is_string(), "{}", closed.body);
        let path = "acme/accounts/a5/services/5-1?source_revision=2";
        let patched = api.daemon.api(&api.key, "PATCH", path, Some(&json!({ "status": "terminated" })));
        assert_eq!(patched.status, 202, "{}", patched.body);
        let mut secret = of(6, "suspended", 2);
        secret["services"][0]["radius"]["password"] = "a new zebra".into();
        assert_eq!(api.put(6, &secret).status, 202);
        for number in 3..7 {
            assert_eq!(api.status(number), "active", "a{number} is as it was");
        }
        assert_eq!(api.put(7, &of(7, "active", 2)).status, 200, "what takes nothing goes on");
        // The same again is the same.
        assert_eq!(api.put(3, &of(3, "suspended", 2)).status, 202);
        let listed = api.held();
        assert_eq!(listed.len(), 4, "{listed:#?}");
        assert_eq!((listed[0]["account"].clone(), listed[0]["times"].clone()), (json!("a3"), json!(2)));
        assert!(!json!(listed).to_string().contains("zebra"), "nothing of what is sealed is shown");
        let told = api.get("exceptions?kind=changes-held");
        assert_eq!(told["items"].as_array().map(Vec::len), Some(1), "{told:#}");
        wait_for("the gauge tells", SOON, || {
            let metrics = http::request(api.site.http_port, "GET", "/metrics", &[], None).ok()?.body;
            (metrics.contains("lastmile_changes_held 4") && metrics.contains("result=\"held\"")).then_some(())
        });
        assert!(api.site.log_text().contains("waits for an operator"));

        // Older than what waits is old; what is newer takes its place.
        let older = api.put(3, &of(3, "active", 1));
        assert_eq!((older.status, older.json()["reason"].clone()), (200, json!("stale")));
        let mut renamed = of(3, "active", 3);
        renamed["name"] = "Ada".into();
        assert_eq!(api.put(3, &renamed).status, 200);
        assert_eq!(api.held().len(), 3, "a newer push that takes nothing supersedes what waited");

        // An operator decides; others may not.
        let id_of = |account: &str| {
            let held = api.held().into_iter().find(|one| one["account"] == account).expect("it waits");
            held["id"].as_str().expect("a number").to_owned()
        };
        let refused = api.daemon.api(&api.key, "POST", &format!("acme/held/{}/release", id_of("a4")), None);
        assert_eq!(refused.status, 403);
        assert_eq!(api.operate(&format!("held/{}/release", id_of("a4"))).status, 200);
        assert_eq!(api.daemon.api(&api.key, "GET", "acme/accounts/a4", None).status, 404, "it is closed");
        let id = id_of("a5");
        assert!(api.site.lastmile(&["held", "drop", &id, "--by", "ops"]).status.success());
        assert_eq!(api.status(5), "active");
        assert_eq!(api.operate(&format!("held/{id}/release")).status, 404, "it waits no longer");
        let released = api.site.json(&["held", "release", "--all", "--tenant", "acme", "--by", "ops"]);
        assert_eq!(released["released"].as_array().map(Vec::len), Some(1), "{released:#}");
        assert_eq!(api.status(6), "suspended");
        let told = api.get("exceptions?kind=changes-held");
        assert_eq!(told["items"].as_array().map(Vec::len), Some(0), "nothing waits, nobody need look: {told:#}");
        // With the password that was pushed: the same again is no change.
        let again = api.put(6, &secret);
        assert_eq!(again.status, 200, "{}", again.body);
        let history = api.site.json(&["account", "history", "a6", "--tenant", "acme"]).to_string();
        assert!(history.contains("change.release") && history.contains("ops"), "{history}");
    });
}

#[test]
fn a_day_later_a_source_may_take_away_again() {
    let site = Site::sqlite();
    site.edit("[log]", &format!("{THREE}\n[log]"));
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let inside = Inside::start(&site);
    let put = |number: u32, status: &str, revision| {
        inside.api(&key, "PUT", &format!("acme/accounts/a{number}"), Some(&of(number, status, revision))).status
    };
    for number in 0..5 {
        assert_eq!(put(number, "active", 1), 201);
    }
    let taken: Vec<u16> = (0..4).map(|number| put(number, "suspended", 2)).collect();
    assert_eq!(taken, [200, 200, 200, 202]);
    inside.pass_days(2);
    assert_eq!(put(4, "suspended", 2), 200);
    assert_eq!(put(3, "suspended", 3), 200, "what waited is superseded by the same, newer");
}

#[test]
fn an_event_about_one_service_keeps_what_waits_of_another() {
    let site = Site::sqlite();
    let profile = site.path("mine.toml");
    std::fs::write(
        &profile,
        r#"name = "mine"
format = "json"
mode = "event"
scope = "service"
[op]
from = "{do}"
words = { set = "upsert", off = "suspend" }
[account]
id = "{id}"
status = "active"
bill_cycle = "c15"
[[service]]
id = "{service}"
type = "internet"
plan = "{plan}"
radius = { username = "{service}@acme", password = "{secret}" }
"#,
    )
    .expect("a profile");
    site.edit(
        "[log]",
        &format!(
            "[sources]\nprofiles = \"{}\"\n[[source]]\ntenant = \"acme\"\nprofile = \"mine\"\nbreaker = {{ percent = 0, accounts = 0 }}\n[log]",
            profile.display()
        ),
    );
    site.prepare(CATALOG);
    let (key, operator) = (site.key("acme", "push"), site.key("acme", "operator"));
    let daemon = site.start();
    let send = |body: Value| {
        let answer = daemon.api(&key, "POST", "acme/ingest/mine", Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    for service in ["x1", "x2"] {
        let made =
            send(json!({ "do": "set", "id": "7", "service": service, "plan": "res-100", "secret": "hush-hush-1" }));
        assert_eq!(made["changes"], 1, "{made:#}");
    }
    let held = send(json!({ "do": "off", "id": "7", "service": "x1" }));
    assert_eq!((held["held"].clone(), held["changes"].clone()), (json!(1), json!(0)), "{held:#}");
    // It knows nothing of x1: what waits of it must not be lost.
    let held = send(json!({ "do": "set", "id": "7", "service": "x2", "plan": "res-300", "secret": "hush-hush-2" }));
    assert_eq!(held["held"], 1, "{held:#}");
    let listed = daemon.api(&key, "GET", "acme/held", None).json();
    let id = listed["items"][0]["id"].as_str().expect("one waits").to_owned();
    assert_eq!(daemon.api(&operator, "POST", &format!("acme/held/{id}/release"), None).status, 200);
    let stored = daemon.api(&key, "GET", "acme/accounts/7", None).json();
    let services: Vec<(Value, Value)> = stored["services"]
        .as_array()
        .expect("services")
        .iter()
        .map(|one| (one["status"].clone(), one["plan"].clone()))
        .collect();
    assert_eq!(services, [(json!("suspended"), json!("res-100")), (Value::Null, json!("res-300"))], "{stored:#}");
}

#[test]
fn many_old_revisions_in_a_row_are_told_and_a_new_epoch_lets_them_in() {
    both("", |api| {
        for number in 0..25 {
            assert_eq!(api.put(number, &of(number, "active", 100)).status, 201);
        }
        // The source was restored from a backup: whatever it says is old, each account once.
        for number in 0..25 {
            let mut old = of(number, "active", 40);
            old["name"] = "restored".into();
            assert_eq!(api.put(number, &old).json()["reason"], "stale");
        }
        let told = api.get("exceptions?kind=stale-pushes");
        let subjects: Vec<&Value> =
            told["items"].as_array().expect("a list").iter().map(|one| &one["subject"]).collect();
        assert_eq!(subjects, ["acme/default"], "{told:#}");
        let opened = api.site.json(&[
            "source",
            "epoch",
            "new",
            "--tenant",
            "acme",
            "--source",
            "default",
            "--reason",
            "backup of Sunday",
            "--by",
            "ops",
        ]);
        assert_eq!(opened["epoch"], 1, "{opened:#}");
        let told = api.get("exceptions?kind=stale-pushes");
        assert_eq!(told["items"].as_array().map(Vec::len), Some(0), "{told:#}");
        let mut old = of(0, "active", 41);
        old["name"] = "restored".into();
        assert_eq!(api.put(0, &old).json()["name"], "restored");
        old["source_revision"] = 39.into();
        old["name"] = "older".into();
        assert_eq!(api.put(0, &old).json()["reason"], "stale", "in its epoch the order holds");
        let next = api.daemon.api(&api.operator, "POST", "acme/sources/default/epoch", None);
        assert_eq!((next.status, next.json()["epoch"].clone()), (200, json!(2)), "{}", next.body);
        assert_eq!(api.put(0, &old).json()["name"], "older");
        assert_eq!(api.daemon.api(&api.key, "POST", "acme/sources/default/epoch", None).status, 403);
    });
}

#[test]
fn a_source_that_is_observed_changes_nothing_and_tells_what_it_would() {
    both("[[source]]\ntenant = \"acme\"\nsource = \"new\"\nmode = \"observe\"", |api| {
        let path = |number: u32| format!("acme/accounts/a{number}?source=new");
        let put = |number: u32, body: &Value| api.daemon.api(&api.key, "PUT", &path(number), Some(body));
        // The accounts came another way, while the source was live.
        let text = std::fs::read_to_string(&api.site.config).expect("the configuration");
        std::fs::write(&api.site.config, text.replace("mode = \"observe\"", "mode = \"live\""))
            .expect("the configuration");
        api.daemon.signal("HUP");
        wait_for("it is live", SOON, || (api.get("sources")["items"][1]["mode"] == "live").then_some(()));
        for number in 0..3 {
            let made = put(number, &of(number, "active", 1));
            assert_eq!(made.status, 201, "{}", made.body);
        }
        std::fs::write(&api.site.config, text).expect("the configuration");
        api.daemon.signal("HUP");
        wait_for("it is observed", SOON, || (api.get("sources")["items"][1]["mode"] == "observe").then_some(()));

        let mut changed = of(0, "suspended", 2);
        changed["name"] = "Ada".into();
        let answer = put(0, &changed);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let told = answer.json();
        assert_eq!((told["applied"].clone(), told["observed"]["would"].clone()), (json!(false), json!("update")));
        assert_eq!(told["observed"]["places"], json!(["/status", "/name"]), "{told:#}");
        assert_eq!(put(1, &of(1, "active", 2)).json()["observed"]["would"], "unchanged");
        assert_eq!(put(9, &of(9, "active", 1)).json()["observed"]["would"], "create");
        let closed = api.daemon.api(&api.key, "DELETE", &path(2), None);
        assert_eq!(closed.json()["observed"]["would"], "close", "{}", closed.body);
        let mut wrong = of(1, "active", 3);
        wrong["services"][0]["plan"] = "gold".into();
        assert_eq!(put(1, &wrong).status, 422, "a document with a fault is refused all the same");

        assert_eq!(api.get("accounts/a0?source=new")["status"], "active");
        assert_eq!(api.daemon.api(&api.key, "GET", &path(9), None).status, 404);
        assert_eq!(api.get("accounts/a2?source=new")["status"], "active");
        let report = api.site.json(&["source", "report", "--tenant", "acme", "--source", "new"]);
        assert_eq!(report["counts"], json!({ "close": 1, "create": 1, "unchanged": 1, "update": 1 }), "{report:#}");
        let update = &report["accounts"].as_array().expect("accounts")[0];
        assert_eq!(update["losses"], json!(["service 0-1 is suspended"]), "{report:#}");
        let page = api.get("sources/new/observations?would=update");
        assert_eq!(page["items"].as_array().map(Vec::len), Some(1), "{page:#}");
        assert!(!report.to_string().contains("secret-"), "no secrets in a report");
    });
}

#[test]
fn what_is_deleted_comes_back_as_it_was_within_the_grace_and_is_nobody_elses() {
    let site = Site::sqlite();
    let catalog = CATALOG.replace("realms = [\"acme\"]", "realms = [\"acme\"]\ndelete_grace = \"30d\"")
        + "\n[quarantine]\nmailbox_days = 0\nnumber_days = 0\n";
    site.prepare(&catalog);
    let key = site.key("acme", "push");
    let inside = Inside::start(&site);
    let account = |password: bool| {
        let mut document = json!({
            "status": "active", "bill_cycle": "c15",
            "devices": [{ "id": "gw", "cm_mac": "00:11:22:33:44:55", "mta_mac": "00:11:22:33:44:56" }],
            "services": [
                { "id": "i", "type": "internet", "plan": "res-100", "static_ips": ["192.0.2.7"],
                  "radius": { "username": "ada@acme", "password": "correct horse" } },
                { "id": "v", "type": "voice", "plan": "voice-basic", "device": "gw",
                  "lines": [{ "port": 1, "number": "+15125550100" }] },
                { "id": "m", "type": "email", "plan": "mail-5g",
                  "mailbox": { "address": "ada@acme.example", "password": "mail-secret-42" } },
            ],
        });
        if !password {
            document["services"][2]["mailbox"].as_object_mut().expect("a mailbox").remove("password");
        }
        document
    };
    let put = |id: &str, body: &Value| inside.api(&key, "PUT", &format!("acme/accounts/{id}"), Some(body));
    let mail = |what: &str| {
        let path = site.mail_url.strip_prefix("sqlite://").expect("a file").to_owned();
        let statement = format!("SELECT {what} FROM mailbox WHERE username = 'ada@acme.example'");
        let output = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &path, &statement]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(put("1", &account(true)).status, 201);
    wait_for("the mailbox is open", SOON, || (mail("active") == "1").then_some(()));
    let hash = mail("password");
    assert_eq!(inside.api(&key, "DELETE", "acme/accounts/1", None).status, 202);
    wait_for("the mailbox is shut, and there", SOON, || (mail("active") == "0").then_some(()));

    inside.pass_days(20);
    // Nobody else gets any of it.
    for (kind, service) in [
        (
            "address",
            json!({ "id": "i", "type": "internet", "plan": "res-100", "static_ips": ["192.0.2.7"], "radius": { "username": "eve@acme", "password": "x-123456" } }),
        ),
        (
            "mailbox",
            json!({ "id": "m", "type": "email", "plan": "mail-5g", "mailbox": { "address": "ada@acme.example", "password": "x-123456" } }),
        ),
    ] {
        let other = put("2", &json!({ "status": "active", "bill_cycle": "c15", "services": [service] }));
        assert_eq!(other.status, 409, "{kind}: {}", other.body);
        assert_eq!(other.json()["conflicts"][0]["kind"], kind, "{}", other.body);
    }
    let number = json!({ "status": "active", "bill_cycle": "c15", "devices": [{ "id": "gw", "cm_mac": "00:11:22:33:44:57", "mta_mac": "00:11:22:33:44:58" }],
        "services": [{ "id": "v", "type": "voice", "plan": "voice-basic", "device": "gw", "lines": [{ "port": 1, "number": "+15125550100" }] }] });
    let other = put("2", &number);
    assert_eq!((other.status, other.json()["conflicts"][0]["kind"].clone()), (409, json!("number")), "{}", other.body);

    // Pushed again, without the password: everything is as it was.
    let back = put("1", &account(false));
    assert_eq!(back.status, 201, "{}", back.body);
    wait_for("the mailbox is open again", SOON, || (mail("active") == "1").then_some(()));
    assert_eq!(mail("password"), hash, "with the password it had");

    // Deleted for good: after the grace it is removed, and others may have the rest.
    assert_eq!(inside.api(&key, "DELETE", "acme/accounts/1", None).status, 202);
    wait_for("the mailbox is shut", SOON, || (mail("active") == "0").then_some(()));
    inside.pass_days(31);
    wait_for("the mailbox is removed", SOON, || mail("active").is_empty().then_some(()));
    assert_eq!(put("2", &number).status, 201);
    let secrets = || {
        let path = site.path("lastmile.db").display().to_string();
        let output = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &path, "SELECT COUNT(*) FROM secret"]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    wait_for("its passwords are forgotten", SOON, || (secrets() == "0").then_some(()));
}

#[test]
fn an_address_that_a_living_service_changes_is_free_at_once() {
    let api = Api::over(Site::sqlite(), "");
    let with = |address: &str, number: u32| {
        let mut body = internet(number);
        body["services"][0]["static_ips"] = json!([address]);
        body
    };
    assert_eq!(api.put(1, &with("192.0.2.7", 1)).status, 201);
    assert_eq!(api.put(1, &with("192.0.2.8", 1)).status, 200);
    assert_eq!(api.put(2, &with("192.0.2.7", 2)).status, 201, "the operator moved it");
    let mut bare = internet(2);
    bare["services"] = json!([]);
    assert_eq!(api.put(2, &bare).status, 200);
    assert_eq!(api.put(3, &with("192.0.2.7", 3)).status, 409, "with its service it was deleted");
    assert!(api.site.lastmile(&["quarantine", "release", "192.0.2.7"]).status.success());
    assert_eq!(api.put(3, &with("192.0.2.7", 3)).status, 201);
}
