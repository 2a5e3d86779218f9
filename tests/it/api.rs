//! The account API as a billing system meets it: idempotence, revisions, conflicts, walls between tenants, bad input.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, household, internet};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::{http, modem, run, wait_for};

struct Api {
    site: Site,
    daemon: Daemon,
    key: String,
}

impl Api {
    fn over(site: Site) -> Self {
        site.prepare(CATALOG);
        let key = site.key("acme", "push");
        let daemon = site.start();
        Self { site, daemon, key }
    }

    fn put(&self, id: &str, body: &Value) -> http::Answer {
        self.daemon.api(&self.key, "PUT", &format!("acme/accounts/{id}"), Some(body))
    }

    fn get(&self, id: &str) -> http::Answer {
        self.daemon.api(&self.key, "GET", &format!("acme/accounts/{id}"), None)
    }

    fn with_headers(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> http::Answer {
        let bearer = format!("Bearer {}", self.key);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend(headers);
        http::request(self.site.http_port, method, &format!("/v1/tenants/{path}"), &all, body).expect("an answer")
    }
}

fn both(journey: impl Fn(Api)) {
    journey(Api::over(Site::sqlite()));
    journey(Api::over(Site::postgres()));
}

#[test]
fn the_same_content_again_changes_nothing_and_makes_no_job() {
    both(|api| {
        let body = household(jiff::civil::date(2026, 11, 1));
        let created = api.put("a1", &body);
        assert_eq!(created.status, 201, "{}", created.body);
        let etag = created.header("etag").expect("an ETag").to_owned();
        assert!(!etag.starts_with("W/"), "the ETag is strong: {etag}");
        let jobs = || api.daemon.api(&api.key, "GET", "acme/jobs", None).json()["items"].as_array().map(Vec::len);
        let before = jobs();
        let again = api.put("a1", &body);
        assert_eq!((again.status, again.header("etag")), (200, Some(etag.as_str())));
        assert_eq!(jobs(), before, "no job for the same content");
        assert_eq!(api.get("a1").header("etag"), Some(etag.as_str()));

        let mut changed = body.clone();
        changed["services"][0]["plan"] = "res-300".into();
        changed["source_revision"] = 8.into();
        let updated = api.put("a1", &changed);
        assert_eq!(updated.status, 200, "{}", updated.body);
        assert_ne!(updated.header("etag"), Some(etag.as_str()));
    });
}

#[test]
fn older_and_reused_revisions_never_win() {
    both(|api| {
        let mut body = internet(1);
        body["source_revision"] = 5.into();
        assert_eq!(api.put("a1", &body).status, 201);
        let mut older = body.clone();
        older["source_revision"] = 4.into();
        older["services"][0]["plan"] = "res-300".into();
        let stale = api.put("a1", &older);
        assert_eq!((stale.status, stale.json()["applied"].clone()), (200, Value::Bool(false)));
        assert_eq!(stale.json()["reason"], "stale");
        older["source_revision"] = 5.into();
        let reused = api.put("a1", &older);
        assert_eq!(reused.status, 409, "{}", reused.body);
        assert!(reused.header("content-type").is_some_and(|kind| kind.starts_with("application/problem+json")));
        assert_eq!(api.get("a1").json()["services"][0]["plan"], "res-100");
    });
}

#[test]
fn preconditions_are_kept() {
    both(|api| {
        let body = internet(1).to_string();
        let path = "acme/accounts/a1";
        assert_eq!(api.with_headers("PUT", path, &[("If-Match", "\"nothing\"")], Some(&body)).status, 412);
        let created = api.with_headers("PUT", path, &[("If-None-Match", "*")], Some(&body));
        assert_eq!(created.status, 201, "{}", created.body);
        assert_eq!(api.with_headers("PUT", path, &[("If-None-Match", "*")], Some(&body)).status, 412);
        let etag = created.header("etag").expect("an ETag").to_owned();
        assert_eq!(api.with_headers("PUT", path, &[("If-Match", &etag)], Some(&body)).status, 200);
    });
}

#[test]
fn every_fault_of_a_push_comes_at_once_with_its_place() {
    let api = Api::over(Site::sqlite());
    let body = json!({
        "status": "alive", "bill_cycle": "c99", "colour": "blue", "email": 7,
        "devices": [{"id": "gw1", "cm_mac": "00:11:22:33:44"}],
        "services": [
            {"id": "s1", "type": "internet", "plan": "gold", "device": "gw9"},
            {"id": "s2", "type": "email", "plan": "mail-5g", "mailbox": {"address": "ada@elsewhere.example", "password": "x"}},
            {"id": "s3", "type": "voice", "plan": "res-100"}
        ]
    });
    let answer = api.put("a1", &body);
    assert_eq!(answer.status, 422, "{}", answer.body);
    let problem = answer.json();
    let pointers: Vec<&str> =
        problem["errors"].as_array().expect("errors").iter().filter_map(|error| error["pointer"].as_str()).collect();
    for pointer in [
        "/status",
        "/bill_cycle",
        "/colour",
        "/email",
        "/devices/0/cm_mac",
        "/services/0/plan",
        "/services/0/device",
        "/services/1/mailbox/address",
        "/services/2/plan",
    ] {
        assert!(pointers.contains(&pointer), "{pointer} is missing in {pointers:?}");
    }
    assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem:#}");
}

#[test]
fn a_mac_is_one_address_in_six_spellings_and_bad_ones_are_named() {
    let api = Api::over(Site::sqlite());
    let with_mac = |mac: &str| {
        json!({"status": "active", "bill_cycle": "c15",
               "devices": [{"id": "gw1", "cm_mac": mac}],
               "services": [{"id": "s1", "type": "internet", "plan": "res-100", "device": "gw1"}]})
    };
    let spellings = [
        "00:11:22:AA:BB:CC",
        "00-11-22-aa-bb-cc",
        "0011.22aa.bbcc",
        "001122aabbcc",
        "00 11 22 aa bb cc",
        "00:11:22:aa:bb:cc",
    ];
    let mut etags = std::collections::BTreeSet::new();
    for spelling in spellings {
        let answer = api.put("a1", &with_mac(spelling));
        assert!(answer.status < 300, "{spelling}: {}", answer.body);
        assert_eq!(answer.json()["devices"][0]["cm_mac"], "00:11:22:aa:bb:cc");
        etags.insert(answer.header("etag").map(str::to_owned));
    }
    assert_eq!(etags.len(), 1, "one content, one ETag");
    for bad in
        ["", "00:11:22:aa:bb", "00:11:22:aa:bb:cg", "01:11:22:aa:bb:cc", "00:00:00:00:00:00", "0011:22aa:bbcc:dd"]
    {
        let answer = api.put("a2", &with_mac(bad));
        assert_eq!(answer.status, 422, "{bad:?}");
        assert_eq!(answer.json()["errors"][0]["pointer"], "/devices/0/cm_mac", "{bad:?}");
    }
}

#[test]
fn what_one_account_holds_another_cannot_take() {
    both(|api| {
        assert_eq!(api.put("a1", &internet(1)).status, 201);
        let mut thief = internet(2);
        thief["services"][0]["radius"]["username"] = "user1@acme".into();
        let refused = api.put("a2", &thief);
        assert_eq!(refused.status, 409, "{}", refused.body);
        assert!(refused.body.contains("a1"), "the other account of the tenant is named: {}", refused.body);
        assert_eq!(api.get("a2").status, 404, "nothing of the refused push stays");

        // Another provider learns only that somebody holds it.
        let other = CATALOG.replace("\"acme\"", "\"other\"");
        let path = api.site.path("other.toml");
        std::fs::write(&path, other).expect("a catalog");
        api.site.succeed(&["catalog", "apply", &path.display().to_string()]);
        let key = api.site.key("other", "push");
        let mut thief = internet(1);
        thief["services"][0]["radius"]["password"] = "x".into();
        let refused = api.daemon.api(&key, "PUT", "other/accounts/b1", Some(&thief));
        assert_eq!(refused.status, 409, "{}", refused.body);
        assert!(refused.body.contains("held by another provider") && !refused.body.contains("a1"), "{}", refused.body);

        // The freed name can be taken.
        assert_eq!(api.daemon.api(&api.key, "DELETE", "acme/accounts/a1", None).status, 202);
        assert_eq!(api.daemon.api(&key, "PUT", "other/accounts/b1", Some(&thief)).status, 201);
    });
}

#[test]
fn another_tenants_account_is_exactly_like_an_absent_one() {
    let api = Api::over(Site::sqlite());
    assert_eq!(api.put("a1", &internet(1)).status, 201);
    let other = CATALOG.replace("\"acme\"", "\"other\"");
    let path = api.site.path("other.toml");
    std::fs::write(&path, other).expect("a catalog");
    api.site.succeed(&["catalog", "apply", &path.display().to_string()]);
    let key = api.site.key("other", "admin");
    let foreign = api.daemon.api(&key, "GET", "acme/accounts/a1", None);
    let absent = api.daemon.api(&key, "GET", "acme/accounts/nobody", None);
    let unknown_tenant = api.daemon.api(&key, "GET", "nobody/accounts/a1", None);
    assert_eq!((foreign.status, absent.status, unknown_tenant.status), (404, 404, 404));
    assert_eq!(foreign.body, absent.body);
    assert_eq!(foreign.body, unknown_tenant.body);
    let no_key =
        http::request(api.site.http_port, "GET", "/v1/tenants/acme/accounts/a1", &[], None).expect("an answer");
    let wrong_key = api.daemon.api("lm_wrong", "GET", "acme/accounts/a1", None);
    assert_eq!((no_key.status, wrong_key.status), (401, 401));
}

#[test]
fn roles_bound_what_a_key_may_do() {
    let api = Api::over(Site::sqlite());
    let read = api.site.key("acme", "read");
    assert_eq!(api.daemon.api(&read, "PUT", "acme/accounts/a1", Some(&internet(1))).status, 403);
    assert_eq!(api.put("a1", &internet(1)).status, 201);
    assert_eq!(api.daemon.api(&read, "GET", "acme/accounts/a1", None).status, 200);
}

#[test]
fn an_absent_secret_stays_and_null_removes_it() {
    let site = Site::sqlite();
    site.edit("driver = \"freeradius-sql\"", "driver = \"freeradius-sql\"\npassword = \"cleartext\"");
    let api = Api::over(site);
    assert_eq!(api.put("a1", &internet(1)).status, 201);
    let password = || {
        let sql = "SELECT value FROM radcheck WHERE username='user1@acme' AND attribute='Cleartext-Password'";
        let file = api.site.path("aaa.db");
        let output =
            crate::harness::run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &file.display().to_string(), sql]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    wait_for("the login", Duration::from_secs(10), || (password() == "secret-1").then_some(()));
    let mut body = internet(1);
    body["services"][0]["radius"].as_object_mut().expect("radius").remove("password");
    body["services"][0]["plan"] = "res-300".into();
    assert_eq!(api.put("a1", &body).status, 200);
    let group = || {
        let file = api.site.path("aaa.db");
        let sql = "SELECT groupname FROM radusergroup WHERE username='user1@acme'";
        let output =
            crate::harness::run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &file.display().to_string(), sql]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    wait_for("the new group", Duration::from_secs(10), || (group() == "res-300").then_some(()));
    assert_eq!(password(), "secret-1", "an absent secret leaves the stored one");
    body["services"][0]["radius"]["password"] = Value::Null;
    assert_eq!(api.put("a1", &body).status, 200);
    wait_for("the password is gone", Duration::from_secs(10), || password().is_empty().then_some(()));
}

#[test]
fn suspend_is_one_operator_hold_that_survives_pushes() {
    let api = Api::over(Site::sqlite());
    let csr = api.site.key("acme", "operator");
    assert_eq!(api.put("a1", &internet(1)).status, 201);
    let suspended = api.daemon.api(&csr, "POST", "acme/accounts/a1/services/1-1/suspend", Some(&json!({})));
    assert!(suspended.status < 300, "{} {}", suspended.status, suspended.body);
    let group = || {
        let file = api.site.path("aaa.db");
        let sql = "SELECT COALESCE((SELECT groupname FROM radusergroup WHERE username='user1@acme'), '') || '/' || \
                   (SELECT COUNT(*) FROM radcheck WHERE username='user1@acme' AND value='Reject')";
        let output =
            crate::harness::run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &file.display().to_string(), sql]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    wait_for("the login is refused", Duration::from_secs(10), || (group() == "/1").then_some(()));
    let mut pushed = internet(1);
    pushed["name"] = "Ada".into();
    assert_eq!(api.put("a1", &pushed).status, 200);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(group(), "/1", "a push does not lift an operator's hold");
    let resumed = api.daemon.api(&csr, "POST", "acme/accounts/a1/services/1-1/resume", Some(&json!({})));
    assert!(resumed.status < 300, "{}", resumed.body);
    wait_for("the login is back", Duration::from_secs(10), || (group() == "res-100/0").then_some(()));
}

/// The group of the household's login, and the file that its modem fetches, once no job is left.
fn provisioned(api: &Api) -> (String, Vec<u8>) {
    wait_for("no job is left", Duration::from_secs(60), || {
        let jobs = api.daemon.api(&api.key, "GET", "acme/jobs?limit=1000", None).json();
        jobs["items"].as_array().expect("a list").iter().all(|job| job["state"] == "done").then_some(())
    });
    let file = api.site.path("aaa.db").display().to_string();
    let sql = "SELECT groupname FROM radusergroup WHERE username = 'ada@acme'";
    let group = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", &file, sql]);
    let tftp = SocketAddr::from((Ipv4Addr::LOCALHOST, api.site.tftp_port));
    // The snapshot that files are made from follows within seconds.
    let octets = wait_for("the modem fetches its file", Duration::from_secs(60), || {
        let devices = api.daemon.api(&api.key, "GET", "acme/devices?mac=00:11:22:33:44:55", None).json();
        modem::fetch(Ipv4Addr::LOCALHOST, tftp, devices["items"][0]["config_file"].as_str()?)
    });
    (String::from_utf8_lossy(&group.stdout).trim().to_owned(), octets)
}

#[test]
fn a_push_takes_nobody_out_of_the_garden_an_operator_put_them_in() {
    both(|api| {
        let operator = api.site.key("acme", "operator");
        let service = |deed: &str, body: Value| {
            let path = format!("acme/accounts/a1/services/100234-1/{deed}");
            let answer = api.daemon.api(&operator, "POST", &path, Some(&body));
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        let mut body = household(jiff::civil::date(2026, 11, 1));
        assert_eq!(api.put("a1", &body).status, 201);
        let free = provisioned(&api);
        assert_eq!(free.0, "res-100");
        service("suspend", json!({"kind": "abuse", "treatment": "garden"}));
        let garden = provisioned(&api);
        assert_eq!(garden.0, "garden");
        assert!(garden.1 != free.1, "the modem has another file in the garden");

        body["name"] = "Augusta".into();
        body["source_revision"] = 8.into();
        let jobs = || api.daemon.api(&api.key, "GET", "acme/jobs?limit=1000", None).json();
        let before = jobs()["items"].as_array().map(Vec::len);
        assert_eq!(api.put("a1", &body).status, 200);
        assert_eq!(jobs()["items"].as_array().map(Vec::len), before, "it changes nothing outside: {:#}", jobs());
        assert!(provisioned(&api) == garden, "a push of another name leaves the garden");
        // Whatever is bought meanwhile waits behind the garden.
        body["services"][0]["plan"] = "res-300".into();
        body["source_revision"] = 9.into();
        assert_eq!(api.put("a1", &body).status, 200);
        assert_eq!(provisioned(&api).0, "garden");
        service("resume", json!({}));
        assert_eq!(provisioned(&api).0, "res-300");

        // Pushes, operators and the jobs behind them met at the same rows, and none waited for another in a circle.
        let config = std::fs::read_to_string(&api.site.config).expect("the configuration");
        let url =
            config.lines().find_map(|line| line.strip_prefix("url = ")).expect("the database's URL").trim_matches('"');
        if url.starts_with("postgres") {
            let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = CURRENT_DATABASE()";
            let told = run("postgresql-client", "psql", &["-qAt", "-v", "ON_ERROR_STOP=1", "-c", sql, url]);
            assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "0", "{told:?}");
        }
    });
}

#[test]
fn what_is_no_document_gets_a_problem_document_and_stores_nothing() {
    let api = Api::over(Site::sqlite());
    let path = "acme/accounts/a1";
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(10 * 1024 * 1024));
    let bodies: [(&str, &str, u16); 7] = [
        ("malformed", "{\"status\": ", 400),
        ("nothing", "", 400),
        ("an array", "[]", 422),
        ("a duplicate key", "{\"status\": \"active\", \"status\": \"suspended\"}", 400),
        ("NaN", "{\"status\": NaN}", 400),
        ("deep nesting", &deep, 400),
        ("ten megabytes", &huge, 413),
    ];
    for (what, body, status) in bodies {
        let answer = api.with_headers("PUT", path, &[], Some(body));
        assert_eq!(answer.status, status, "{what}: {}", answer.body.chars().take(300).collect::<String>());
        assert!(
            answer.header("content-type").is_some_and(|kind| kind.starts_with("application/problem+json")),
            "{what}: {:?}",
            answer.headers
        );
    }
    assert_eq!(api.get("a1").status, 404);
    assert_eq!(api.put("a1", &internet(1)).status, 201, "the daemon goes on");
}

#[test]
fn a_key_beyond_its_rate_is_told_when_to_come_back() {
    let site = Site::sqlite();
    let listen = format!("listen = \"127.0.0.1:{}\"", site.http_port);
    site.edit(&listen, &format!("{listen}\nrate_limit = {{ per_second = 5, burst = 5 }}"));
    let api = Api::over(site);
    let answers: Vec<http::Answer> = (0..20).map(|_| api.get("nobody")).collect();
    let refused = answers.iter().find(|answer| answer.status == 429).expect("a 429");
    assert!(
        refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok()),
        "{:?}",
        refused.headers
    );
}

#[test]
fn lists_are_paged_without_gaps() {
    let api = Api::over(Site::sqlite());
    for number in 0..25 {
        assert_eq!(api.put(&format!("a{number:02}"), &internet(number)).status, 201);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..10 {
        let page = api.daemon.api(&api.key, "GET", &format!("acme/accounts?limit=10{cursor}"), None).json();
        for item in page["items"].as_array().expect("items") {
            seen.push(item["id"].as_str().expect("an id").to_owned());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 25, "{seen:?}");
}

#[test]
fn the_openapi_document_names_the_routes_that_exist() {
    let api = Api::over(Site::sqlite());
    let document = http::request(api.site.http_port, "GET", "/openapi.json", &[], None).expect("an answer").json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let rollout = "/v1/tenants/{tenant}/rollouts/{rollout}";
    let turns = ["pause", "resume", "cancel", "rollback"].map(|turn| format!("{rollout}/{turn}"));
    let named = [
        "/v1/tenants/{tenant}/accounts/{id}",
        "/v1/tenants/{tenant}/jobs",
        "/v1/tenants/{tenant}/devices",
        "/v1/tenants/{tenant}/devices/{mac}/reset",
        "/v1/tenants/{tenant}/rollouts",
        rollout,
    ];
    for path in named.into_iter().chain(turns.iter().map(String::as_str)) {
        assert!(document["paths"][path].is_object(), "{path} is missing");
    }
}
