//! TM Forum's faces over HTTP on both databases: a service ordered, held and ended as the network follows; lists in parts; usage
//! and lines; listeners; and what is refused, in TM Forum's shape.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, Report, internet, last_period, midnight, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::http::{self, Answer};
use crate::harness::receiver::Receiver;
use crate::harness::wait_for;
use crate::modems::Plant;
use crate::webhooks::verified;

const SOON: Duration = Duration::from_secs(90);
const MAC: &str = "00:11:22:33:44:55";
const SERVICES: &str = "/tmf-api/ServiceActivationAndConfiguration/v4/service";
const MONITORS: &str = "/tmf-api/ServiceActivationAndConfiguration/v4/monitor";
const HUB: &str = "/tmf-api/ServiceActivationAndConfiguration/v4/hub";
const INVENTORY: &str = "/tmf-api/serviceInventory/v4/service";
const USAGE: &str = "/tmf-api/usageManagement/v4/usage";
const RATES: &str = "/tmf-api/customerBillManagement/v4/appliedCustomerBillingRate";
const CYCLES: &str = "/tmf-api/customerBillManagement/v4/billCycle";

fn call(port: u16, key: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let bearer = format!("Bearer {key}");
    let mut all = vec![("Authorization", bearer.as_str())];
    all.extend(headers);
    let body = body.map(ToString::to_string);
    http::request(port, method, path, &all, body.as_deref()).expect("an answer")
}

struct Api {
    site: Site,
    daemon: Daemon,
    key: String,
}

impl Api {
    fn over(site: Site, settings: &str) -> Self {
        site.edit("[log]", &format!("{settings}\n[log]"));
        site.prepare(CATALOG);
        let key = site.key("acme", "admin");
        let daemon = site.start();
        Self { site, daemon, key }
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        call(self.site.http_port, &self.key, method, path, &[], body)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, None);
        assert!(matches!(answer.status, 200 | 206), "{path}: {} {}", answer.status, answer.body);
        answer.json()
    }

    fn push(&self, number: u32) {
        let answer = self.daemon.api(&self.key, "PUT", &format!("acme/accounts/a{number}"), Some(&internet(number)));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }

    fn account(&self, id: &str) -> Value {
        self.daemon.api(&self.key, "GET", &format!("acme/accounts/{id}"), None).json()
    }
}

fn both(settings: &str, journey: impl Fn(Api)) {
    journey(Api::over(Site::sqlite(), settings));
    journey(Api::over(Site::postgres(), settings));
}

fn order(account: &str, characteristics: Value) -> Value {
    json!({
        "state": "active", "name": "vCPE", "category": "CFS",
        "serviceSpecification": { "id": "res-100", "name": "Residential" },
        "relatedParty": [{ "id": account, "name": "Ada Lovelace", "role": "customer", "@referredType": "Customer" }],
        "serviceCharacteristic": characteristics
    })
}

fn login(name: &str) -> Value {
    json!([{ "name": "radius", "value": { "username": name, "password": "correct horse" } },
        { "name": "colour", "value": { "shade": "red" } }])
}

fn characteristic<'a>(service: &'a Value, name: &str) -> &'a Value {
    let all = service["serviceCharacteristic"].as_array().expect("characteristics");
    all.iter().find(|one| one["name"] == name).map_or(&Value::Null, |one| &one["value"])
}

#[test]
fn an_ordered_modem_is_active_when_it_says_so_on_sqlite() {
    modem_journey(&Plant::new(Site::sqlite(), "[snmp]\ncommunity = \"plant-community\"\n", 91));
}

#[test]
fn an_ordered_modem_is_active_when_it_says_so_on_postgresql() {
    modem_journey(&Plant::new(Site::postgres(), "[snmp]\ncommunity = \"plant-community\"\n", 92));
}

fn modem_journey(plant: &Plant) {
    let call = |method: &str, path: &str, body: Option<&Value>| {
        call(plant.site.http_port, &plant.key, method, path, &[], body)
    };
    let mut ordered = order("77", json!([{ "name": "device", "value": { "cm_mac": MAC } }]));
    ordered["id"] = json!("77-1");
    let made = call("POST", SERVICES, Some(&ordered));
    assert_eq!(made.status, 201, "{}", made.body);
    let (id, href) = ("77:77-1", format!("{SERVICES}/77:77-1"));
    assert_eq!((made.json()["id"].as_str(), made.header("location")), (Some(id), Some(href.as_str())));
    assert_eq!(made.json()["state"], "reserved", "the modem has not said anything: {}", made.body);
    assert_eq!(made.json()["supportingResource"][0]["id"], format!("cm:{MAC}"));

    // It is the account and the modem of our own API, with a job that is the monitor.
    let account = || plant.daemon.api(&plant.key, "GET", "acme/accounts/77", None).json();
    let stored = account();
    assert_eq!((&stored["name"], &stored["bill_cycle"]), (&json!("Ada Lovelace"), &json!("c15")), "{stored:#}");
    assert_eq!(stored["services"][0]["plan"], "res-100");
    assert_eq!(plant.device(MAC).expect("a device")["account"], "77");
    let monitors = |state: &str| {
        let listed = call("GET", &format!("{MONITORS}?sourceHref={href}&state={state}"), None);
        assert_eq!(listed.status, 200, "{}", listed.body);
        listed.json().as_array().expect("a list").clone()
    };
    let begun = monitors("InProgress");
    assert_eq!((begun.len(), &begun[0]["sourceHref"]), (1, &json!(href)), "{begun:#?}");
    let monitor = begun[0]["href"].as_str().expect("an address").to_owned();
    assert_eq!(call("GET", &monitor, None).json()["state"], "InProgress");

    let state = || call("GET", &href, None).json()["state"].as_str().map(str::to_owned);
    let until = |wanted: &str| wait_for(&format!("the state is {wanted}"), SOON, || (state()? == wanted).then_some(()));
    let modem = plant.modem(MAC, 1);
    plant.until(MAC, |device| device["offered_revision"] == 1);
    assert_eq!(state().as_deref(), Some("reserved"), "a file on offer is not a modem that runs it");
    assert_eq!((monitors("InProgress").len(), monitors("Completed").len()), (1, 0));
    modem.power_cycle();
    until("active");
    assert_eq!(call("GET", &monitor, None).json()["state"], "Completed");
    assert!(monitors("InProgress").is_empty() && !monitors("Completed").is_empty());

    // Held: the network follows, and so does the state.
    let held = call("PATCH", &href, Some(&json!({ "state": "suspended" })));
    assert_eq!(held.status, 200, "{}", held.body);
    assert_eq!(account()["services"][0]["status"], "suspended");
    until("inactive");
    let resumed = call("PATCH", &href, Some(&json!({ "state": "active", "description": "First floor" })));
    assert_eq!(resumed.status, 200, "{}", resumed.body);
    until("active");
    let moved = call("PATCH", &href, Some(&json!({ "serviceSpecification": { "id": "res-300" } })));
    assert_eq!(moved.json()["serviceSpecification"]["id"], "res-300", "{}", moved.body);
    assert_eq!(moved.json()["serviceSpecification"].get("name"), None, "the name was the other plan's");
    assert_eq!((&moved.json()["description"], &moved.json()["name"]), (&json!("First floor"), &json!("vCPE")));

    // Ended: the modem is nobody's, and its file is nobody's.
    let ended = call("DELETE", &href, None);
    assert_eq!((ended.status, ended.body.as_str()), (204, ""));
    assert_eq!((call("GET", &href, None).status, call("DELETE", &href, None).status), (404, 404));
    assert_eq!((&account()["services"], &account()["devices"]), (&json!([]), &json!([])));
    wait_for("the modem's file is gone", SOON, || (plant.file(MAC) == "unprovisioned.cm").then_some(()));
}

#[test]
fn lists_come_in_parts_and_tell_how_many_there_are() {
    both("", |api| {
        for number in 0..7 {
            api.push(number);
        }
        let made = api.call("POST", SERVICES, Some(&order("a0", login("second@acme"))));
        assert_eq!(made.status, 201, "{}", made.body);
        let second = made.json()["id"].as_str().expect("an id").to_owned();
        assert!(second.starts_with("a0:s-"), "{second}");
        assert_eq!(
            characteristic(&made.json(), "radius"),
            &json!({ "username": "second@acme" }),
            "no password is shown"
        );
        assert_eq!(characteristic(&made.json(), "colour"), &json!({ "shade": "red" }), "what we do not know is kept");
        assert_eq!(api.account("a0")["services"].as_array().map(Vec::len), Some(2), "it stands beside the first");

        let counts = |path: &str| {
            let answer = api.call("GET", path, None);
            let header = |name| answer.header(name).and_then(|text| text.parse::<usize>().ok()).expect("a count");
            let items = answer.json().as_array().map(Vec::len).expect("a list");
            assert_eq!(items, header("x-result-count"), "{path}");
            (answer.status, items, header("x-total-count"))
        };
        for base in [SERVICES, INVENTORY] {
            assert_eq!(counts(base), (200, 8, 8));
            assert_eq!(counts(&format!("{base}?limit=3")), (206, 3, 8));
            assert_eq!(counts(&format!("{base}?limit=3&offset=6")), (206, 2, 8));
            assert_eq!(counts(&format!("{base}?offset=8")), (206, 0, 8));
            assert_eq!(counts(&format!("{base}?relatedParty.id=a0")), (200, 2, 2));
            assert_eq!(counts(&format!("{base}?relatedParty.id=a0&limit=1&offset=1")), (206, 1, 2));
            assert_eq!(counts(&format!("{base}?relatedParty.id=nobody")), (200, 0, 0));
            assert_eq!(counts(&format!("{base}?serviceSpecification.id=res-100&serviceType=internet")), (200, 8, 8));
            assert_eq!(counts(&format!("{base}?serviceType=voice")), (200, 0, 0));
            assert_eq!(counts(&format!("{base}?name=vCPE")), (200, 1, 1));
            assert_eq!(counts(&format!("{base}?id=a1:1-1,a2:2-1&limit=1")), (206, 1, 2));
        }
        // Parts together are the whole, in one order.
        let ids = |path: String| -> Vec<String> {
            let listed = api.get(&path);
            listed.as_array().expect("a list").iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
        };
        let parts: Vec<String> =
            (0..4).flat_map(|part| ids(format!("{INVENTORY}?fields=id&limit=2&offset={}", part * 2))).collect();
        assert_eq!(parts, ids(INVENTORY.to_owned()));
        assert_eq!((parts[0].as_str(), parts.last().map(String::as_str)), ("a0:0-1", Some(second.as_str())));

        let one = api.get(&format!("{INVENTORY}/a3:3-1?fields=href,state"));
        let members: Vec<&String> = one.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["id", "href", "state"], "{one}");
        assert_eq!(one["href"], format!("{INVENTORY}/a3:3-1"));
        // A login is in force as soon as its row stands; then services can be asked for by that.
        wait_for("all are active", SOON, || {
            let active = api.call("GET", &format!("{INVENTORY}?state=active&limit=5"), None);
            (active.header("x-total-count") == Some("8") && active.status == 206).then_some(())
        });
        assert_eq!(counts(&format!("{INVENTORY}?state=inactive,reserved")), (200, 0, 0));
        assert_eq!(counts(&format!("{MONITORS}?state=Completed&limit=5")), (206, 5, 8));
        assert_eq!(counts(&format!("{MONITORS}?state=InProgress")), (200, 0, 0));
        assert_eq!(counts(&format!("{MONITORS}?sourceHref={SERVICES}/{second}")), (200, 1, 1));
        // Suspended it is inactive, and that can be asked for, too.
        let held = api.call("PATCH", &format!("{SERVICES}/a3:3-1"), Some(&json!({ "state": "inactive" })));
        assert_eq!(held.status, 200, "{}", held.body);
        wait_for("one is inactive", SOON, || {
            (api.call("GET", &format!("{INVENTORY}?state=inactive"), None).header("x-total-count") == Some("1"))
                .then_some(())
        });
        let waits = api.call("PATCH", &format!("{SERVICES}/a4:4-1"), Some(&json!({ "state": "feasibilityChecked" })));
        assert_eq!(waits.json()["state"], "feasibilityChecked", "{}", waits.body);
        assert_eq!(api.account("a4")["services"][0]["status"], "pending");
        let ended = api.call("PATCH", &format!("{SERVICES}/a5:5-1"), Some(&json!({ "state": "terminated" })));
        assert_eq!((ended.status, ended.json()["state"].clone()), (200, json!("terminated")), "{}", ended.body);
        assert_eq!(counts(INVENTORY), (200, 7, 7), "what has ended is in no list");
    });
}

#[test]
fn usage_and_lines_are_read_as_they_were_billed() {
    both("", |api| {
        let (start, _) = last_period(Timestamp::now());
        let mut account = internet(1);
        account["services"][0]["billing_from"] = json!(start.to_string());
        let pushed = api.daemon.api(&api.key, "PUT", "acme/accounts/a1", Some(&account));
        assert_eq!(pushed.status, 201, "{}", pushed.body);
        let begun = midnight(start) + 24.hours();
        let report = |kind: &'static str, seconds: u64, in_octets: u64, out_octets: u64| Report {
            user: "user1@acme",
            session: "s-1",
            kind,
            at: begun + i64::try_from(seconds).expect("seconds").seconds(),
            seconds,
            in_octets,
            out_octets,
        };
        assert!(radclient(api.site.radius_port, &report("Start", 0, 0, 0)));
        assert!(radclient(api.site.radius_port, &report("Stop", 7200, 6_000_000_000, 8_000_000_000)));
        let path = format!("{USAGE}?relatedParty.id=a1");
        let listed = wait_for("the usage stands in the ledger", SOON, || {
            let answer = api.call("GET", &path, None);
            (answer.header("x-total-count")? != "0").then(|| answer.json())
        });
        let sum = |listed: &Value, name: &str| -> u64 {
            let entries = listed.as_array().expect("a list").iter();
            entries
                .map(|entry| {
                    let found = entry["usageCharacteristic"].as_array().expect("characteristics").iter();
                    let found =
                        found.filter(|one| one["name"] == name).map(|one| one["value"].as_str().expect("a text"));
                    found.map(|text| text.parse::<u64>().expect("a number")).sum::<u64>()
                })
                .sum()
        };
        assert_eq!((sum(&listed, "inOctets"), sum(&listed, "outOctets")), (6_000_000_000, 8_000_000_000), "{listed:#}");
        assert!(listed.as_array().expect("a list").iter().all(|entry| entry["status"] == "guided"), "{listed:#}");
        let first = api.get(&format!("{USAGE}/a1:1"));
        assert_eq!(&first, &listed[0]);
        assert_eq!(first["ratedProductUsage"][0]["productRef"]["id"], "a1:1-1");
        for none in ["a1:0", "a1:999", "a1:01", "a2:1", "a1"] {
            assert_eq!(api.call("GET", &format!("{USAGE}/{none}"), None).status, 404, "{none}");
        }
        let later = format!("{path}&usageDate.gte={}", begun + 3.hours());
        assert_eq!(api.get(&later), json!([]));
        let earlier = format!("{path}&usageDate.lt={}", begun + 3.hours());
        assert_eq!(api.get(&earlier), listed);

        let run = api.site.json(&["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", &start.to_string()]);
        let lines = run["lines"].as_array().expect("lines");
        let billed = api.get(&path);
        assert!(billed.as_array().expect("a list").iter().all(|entry| entry["status"] == "billed"), "{billed:#}");
        assert_eq!(api.get(&format!("{path}&status=guided")), json!([]));

        let rates = api.call("GET", &format!("{RATES}?billingAccount.id=a1"), None);
        assert_eq!(rates.header("x-total-count"), Some(lines.len().to_string().as_str()), "{}", rates.body);
        assert_eq!(api.call("GET", RATES, None).json(), rates.json(), "the tenant has no other lines");
        let data = rates.json();
        let data = data.as_array().expect("a list").iter().find(|rate| rate["name"] == "data").expect("usage").clone();
        let line = lines.iter().find(|line| line["charge"] == "data").expect("a line");
        // 14 GB, 10 of them free, 4 at 0.50, and a tenth of that is tax.
        assert_eq!((&data["id"], &data["taxExcludedAmount"]), (&line["id"], &json!({ "unit": "USD", "value": 2 })));
        assert_eq!(data["taxIncludedAmount"], json!({ "unit": "USD", "value": 2.2 }));
        assert_eq!((&data["isBilled"], &data["product"]["id"]), (&json!(false), &json!("a1:1-1")));
        assert_eq!(data["periodCoverage"]["startDateTime"], line["period"]["start"]);
        assert_eq!(api.get(&format!("{RATES}/{}", data["id"].as_str().expect("an id"))), data);
        let one = api.call("GET", &format!("{RATES}?limit=1&fields=name"), None);
        assert_eq!((one.status, one.header("x-result-count")), (206, Some("1")), "{}", one.body);
        assert_eq!(api.get(&format!("{RATES}?name=data&taxExcludedAmount.value.gt=1.99")), json!([data]));
        assert_eq!(api.get(&format!("{RATES}?billingAccount.id=nobody")), json!([]));

        let cycle = api.get(&format!("{CYCLES}/c15"));
        assert_eq!(api.get(CYCLES), json!([cycle]));
        let running = api.daemon.api(&api.key, "GET", "acme/accounts/a1/balance", None).json();
        assert_eq!(cycle["validFor"]["startDateTime"], running["period"]["start"], "{cycle:#}");
        assert_eq!(api.call("GET", &format!("{CYCLES}/c1"), None).status, 404);
    });
}

#[test]
fn listeners_are_told_in_their_envelope_signed_and_behind_the_same_guard() {
    both("[webhooks]\nallow = [\"127.0.0.0/8\"]", |api| {
        let receiver = Receiver::start(|_| 204.into());
        let all = api.call("POST", HUB, Some(&json!({ "callback": receiver.url("/all") })));
        assert_eq!(all.status, 201, "{}", all.body);
        let id = all.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(all.header("location"), Some(format!("{HUB}/{id}").as_str()));
        let secret = all.json()["secret"].as_str().expect("a secret").to_owned();
        let some = json!({ "callback": receiver.url("/some"), "query": "eventType=ServiceDeleteEvent" });
        assert_eq!(api.call("POST", HUB, Some(&some)).status, 201);
        let made = api.call("POST", SERVICES, Some(&order("77", login("ada@acme"))));
        assert_eq!(made.status, 201, "{}", made.body);
        let href = made.json()["href"].as_str().expect("an address").to_owned();
        let told = |path: &str| -> Vec<String> {
            let got = receiver.got().into_iter().filter(|got| got.path == path);
            got.map(|got| got.json()["eventType"].as_str().unwrap_or_default().to_owned()).collect()
        };
        wait_for("it is in force", SOON, || told("/all").contains(&"ServiceStateChangeEvent".to_owned()).then_some(()));
        assert_eq!(api.call("PATCH", &href, Some(&json!({ "description": "First floor" }))).status, 200);
        assert_eq!(api.call("DELETE", &href, None).status, 204);
        wait_for("its end is told", SOON, || {
            (told("/some") == ["ServiceDeleteEvent"] && told("/all").len() >= 4).then_some(())
        });
        assert_eq!(
            told("/all"),
            ["ServiceCreateEvent", "ServiceStateChangeEvent", "ServiceAttributeValueChangeEvent", "ServiceDeleteEvent"]
        );
        let got: Vec<_> = receiver.got().into_iter().filter(|got| got.path == "/all").collect();
        let first = got[0].json();
        assert_eq!(first["event"]["service"], json!({ "id": made.json()["id"], "href": href, "@type": "Service" }));
        assert_eq!(first["eventId"], got[0].id());
        if let Some(good) = verified(&got, &secret) {
            assert_eq!(good, got.len());
        }
        let listed = api.daemon.api(&api.key, "GET", "acme/webhooks", None).json();
        assert!(listed["items"].as_array().expect("a list").iter().all(|hook| hook["shape"] == "tmf"), "{listed:#}");
        assert_eq!(api.call("DELETE", &format!("{HUB}/{id}"), None).status, 204);
        assert_eq!(api.call("DELETE", &format!("{HUB}/{id}"), None).status, 404);
        // A webhook that is no listener is not one of theirs.
        let hook = api.daemon.api(&api.key, "POST", "acme/webhooks", Some(&json!({ "url": receiver.url("/own") })));
        let own = hook.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(api.call("DELETE", &format!("{HUB}/{own}"), None).status, 404);
        for (callback, query) in [
            ("http://169.254.169.254/latest/meta-data", ""),
            ("https://10.0.0.1/", ""),
            ("ftp://8.8.8.8/", ""),
            ("https://8.8.8.8/", "eventType=CustomerBillCreateEvent"),
        ] {
            let refused = api.call("POST", HUB, Some(&json!({ "callback": callback, "query": query })));
            let place = if query.is_empty() { "/callback" } else { "/query" };
            assert_eq!(
                (refused.status, &refused.json()["errors"][0]["pointer"]),
                (400, &json!(place)),
                "{}",
                refused.body
            );
        }
    });
}

#[test]
fn the_same_order_again_makes_one_service() {
    both("", |api| {
        let body = order("77", login("ada@acme"));
        let send = |body: &Value, key: &str| {
            call(api.site.http_port, &api.key, "POST", SERVICES, &[("Idempotency-Key", key)], Some(body))
        };
        let made = send(&body, "order-1");
        assert_eq!(made.status, 201, "{}", made.body);
        let again = send(&body, "order-1");
        assert_eq!((again.status, again.json()["id"].clone()), (201, made.json()["id"].clone()), "{}", again.body);
        assert_eq!(again.header("location"), made.header("location"));
        let reused = send(&order("77", login("eve@acme")), "order-1");
        assert_eq!((reused.status, reused.json()["code"].clone()), (400, json!("idempotency-key-reused")));
        assert_eq!(api.account("77")["services"].as_array().map(Vec::len), Some(1));
        // Without a key the login is what cannot be there twice; with an id of the sender's own it is the id.
        let twice = api.call("POST", SERVICES, Some(&body));
        assert_eq!((twice.status, twice.json()["code"].clone()), (400, json!("invalid-document")), "{}", twice.body);
        let other = api.call("POST", SERVICES, Some(&order("78", login("ada@acme"))));
        assert_eq!((other.status, other.json()["code"].clone()), (409, json!("already-held")), "{}", other.body);
        let mut named = order("79", login("new@acme"));
        named["id"] = json!("x/1 ä");
        let made = api.call("POST", SERVICES, Some(&named));
        assert_eq!((made.status, made.json()["id"].clone()), (201, json!("79:x=2F1=20=C3=A4")), "{}", made.body);
        let again = api.call("POST", SERVICES, Some(&named));
        assert_eq!((again.status, again.json()["code"].clone()), (409, json!("service-exists")), "{}", again.body);
        let found = api.get(made.header("location").expect("an address"));
        assert_eq!(found["name"], "vCPE");
        assert_eq!(characteristic(&found, "billCycle"), "c15");
    });
}

#[test]
fn what_takes_too_much_away_waits_and_says_so() {
    both("[[source]]\ntenant = \"acme\"\nbreaker = { percent = 2, accounts = 2 }", |api| {
        for number in 0..8 {
            api.push(number);
        }
        let path = |number: u32| format!("{SERVICES}/a{number}:{number}-1");
        let suspend = json!({ "state": "inactive" });
        assert_eq!(api.call("PATCH", &path(0), Some(&suspend)).status, 200);
        assert_eq!(api.call("DELETE", &path(1), None).status, 204);
        let held = api.call("PATCH", &path(2), Some(&suspend));
        assert_eq!(held.status, 202, "{}", held.body);
        let note = held.json()["note"][0]["text"].as_str().expect("a note").to_owned();
        assert!(note.contains("waits for an operator"), "{note}");
        assert_eq!(api.account("a2")["services"][0].get("status"), None, "nothing was done");
        assert_eq!(api.call("DELETE", &path(3), None).status, 202);
        assert_eq!(api.get(&path(3))["id"], "a3:3-1");
        // An operator lets it pass, as with every other way in.
        let waiting = api.daemon.api(&api.key, "GET", "acme/held", None).json();
        assert_eq!(waiting["items"].as_array().map(Vec::len), Some(2), "{waiting:#}");
        for one in waiting["items"].as_array().expect("a list") {
            let path = format!("acme/held/{}/release", one["id"].as_str().expect("an id"));
            assert!(api.daemon.api(&api.key, "POST", &path, None).status < 300);
        }
        assert_eq!(api.account("a2")["services"][0]["status"], "suspended");
        assert_eq!(api.call("GET", &path(3), None).status, 404);
    });
}

#[test]
fn a_key_of_nobody_names_the_tenant_by_header_or_party() {
    let api = Api::over(Site::sqlite(), "");
    let made = api.site.json(&["key", "create", "--role", "platform"]);
    let key = made["key"].as_str().expect("a key");
    let send = |method: &str, path: &str, tenant: &str, body: Option<&Value>| {
        let headers = [("Lastmile-Tenant", tenant)];
        call(api.site.http_port, key, method, path, if tenant.is_empty() { &[] } else { &headers }, body)
    };
    let nameless = send("GET", SERVICES, "", None);
    assert_eq!((nameless.status, nameless.json()["code"].clone()), (400, json!("bad-request")), "{}", nameless.body);
    let mut body = order("77", login("ada@acme"));
    body["relatedParty"].as_array_mut().expect("parties").push(json!({ "id": "acme", "role": "tenant" }));
    let made = send("POST", SERVICES, "", Some(&body));
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(!made.body.contains("\"role\":\"tenant\""), "who the provider is, is no attribute: {}", made.body);
    assert_eq!(send("GET", SERVICES, "acme", None).header("x-total-count"), Some("1"));
    assert_eq!(send("POST", SERVICES, "other", Some(&body)).status, 404, "the names do not agree");
    assert_eq!(api.account("77")["services"].as_array().map(Vec::len), Some(1));
    let audit = api.daemon.api(&api.key, "GET", "acme/audit?action=account.", None).json();
    assert_eq!(audit["items"][0]["action"], "account.create", "{audit:#}");
}

#[test]
fn what_is_wrong_is_refused_in_their_shape_at_its_place() {
    both("", |api| {
        api.push(1);
        let refused = |method: &str, path: &str, body: Option<&str>| -> Value {
            let bearer = format!("Bearer {}", api.key);
            let headers = [("Authorization", bearer.as_str())];
            let answer = http::request(api.site.http_port, method, path, &headers, body).expect("an answer");
            assert!((400..500).contains(&answer.status), "{method} {path} {body:?}: {} {}", answer.status, answer.body);
            assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.body);
            let error = answer.json();
            assert_eq!((&error["@type"], &error["status"]), (&json!("Error"), &json!(answer.status.to_string())));
            for member in ["code", "reason", "message", "referenceError", "@baseType", "@schemaLocation"] {
                assert!(error[member].is_string(), "{member} is missing: {error}");
            }
            error
        };
        let one = format!("{SERVICES}/a1:1-1");
        // What is no document.
        let deep = format!("{}1{}", "[".repeat(50), "]".repeat(50));
        let long = format!("{{\"name\": \"{}\"}}", "x".repeat(2 * 1024 * 1024));
        for body in ["", "{", "NaN", "[]", "5", "{\"state\": \"active\", \"state\": \"active\"}", "\u{feff}{}", &deep] {
            for (method, path) in [("POST", SERVICES), ("PATCH", one.as_str()), ("POST", HUB)] {
                let error = refused(method, path, Some(body));
                assert_eq!(error["status"], "400", "{method} {path} {body}: {error}");
            }
        }
        assert_eq!(refused("POST", SERVICES, Some(&long))["status"], "413");
        let nul = refused("PATCH", &one, Some("{\"description\": \"a\\u0000b\"}"));
        assert_eq!(nul["errors"][0]["pointer"], "/description");
        // What is no order. Every fault has its place.
        let pointers = |error: &Value| -> Vec<String> {
            let faults = error["errors"].as_array().cloned().unwrap_or_default();
            faults.iter().map(|fault| fault["pointer"].as_str().expect("a pointer").to_owned()).collect()
        };
        let order_with = |change: &dyn Fn(&mut Value)| {
            let mut body = order("a1", login("new@acme"));
            change(&mut body);
            pointers(&refused("POST", SERVICES, Some(&body.to_string())))
        };
        assert_eq!(
            pointers(&refused("POST", SERVICES, Some("{}"))),
            ["/state", "/serviceSpecification", "/relatedParty"]
        );
        assert_eq!(order_with(&|body| body["state"] = json!("on")), ["/state"]);
        assert_eq!(
            order_with(&|body| body["serviceSpecification"]["id"] = json!("gold")),
            ["/serviceSpecification/id"]
        );
        assert_eq!(
            order_with(&|body| body["serviceCharacteristic"][0]["value"]["username"] = json!("a\u{7}b")),
            ["/serviceCharacteristic/0/value/username"]
        );
        assert_eq!(
            order_with(&|body| body["serviceCharacteristic"] =
                json!([{ "name": "device", "value": { "cm_mac": "00:11:22:33:44" } }])),
            ["/serviceCharacteristic/0/value"]
        );
        assert_eq!(
            order_with(&|body| body["serviceCharacteristic"][1] = json!({ "name": "password", "value": "secret" })),
            [""],
            "a password where it would be kept readable"
        );
        assert_eq!(order_with(&|body| body["note"] = json!([{ "text": "x".repeat(20_000) }])), [""]);
        assert_eq!(order_with(&|body| body["relatedParty"][0]["id"] = json!("")), ["/relatedParty/0/id"]);
        assert_eq!(
            pointers(&refused("PATCH", &one, Some("{\"id\": \"2\", \"endDate\": \"2027-01-01T00:00:00Z\"}"))),
            ["/endDate"]
        );
        assert_eq!(pointers(&refused("PATCH", &one, Some("{\"id\": \"2\"}"))), ["/id"]);
        assert_eq!(
            pointers(&refused("PATCH", &one, Some("{\"relatedParty\": [{\"id\": \"a2\", \"role\": \"user\"}]}"))),
            ["/relatedParty"]
        );
        // What is no address, or not there.
        for path in ["/tmf-api/", "/tmf-api/x", "/tmf-api/serviceInventory/v4/service/a1:1-1/x"] {
            assert_eq!(refused("GET", path, None)["code"], "not-found", "{path}");
        }
        for id in ["1", "a1:2", "a2:1-1", "default:a1:1-1", "a1:1-1:", "a1%3A1-1%00", "%2e%2e", "=41=31:1-1", "x:y:z:w"]
        {
            for method in ["GET", "DELETE", "PATCH"] {
                let body = (method == "PATCH").then_some("{}");
                assert_eq!(refused(method, &format!("{SERVICES}/{id}"), body)["status"], "404", "{method} {id}");
            }
        }
        assert_eq!(refused("PUT", SERVICES, Some("{}"))["status"], "405");
        for query in
            ["limit=0", "limit=x", "offset=-1", "colour=red", "sort=state", "state=a%00b", "serviceDate.gt=soon"]
        {
            assert_eq!(refused("GET", &format!("{INVENTORY}?{query}"), None)["status"], "400", "{query}");
        }
        assert_eq!(refused("GET", &format!("{one}?limit=5"), None)["code"], "bad-request");
        assert_eq!(refused("GET", USAGE, None)["code"], "bad-request");
        assert_eq!(refused("GET", &format!("{RATES}/nobody"), None)["status"], "404");
        assert_eq!(refused("GET", &format!("{MONITORS}/0x7"), None)["status"], "404");
        let reader = api.site.key("acme", "read");
        let forbidden = call(api.site.http_port, &reader, "DELETE", &one, &[], None);
        assert_eq!((forbidden.status, forbidden.json()["code"].clone()), (403, json!("forbidden")));
        let nobody = http::request(api.site.http_port, "GET", SERVICES, &[], None).expect("an answer");
        assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, Some("Bearer")), "{}", nobody.body);
        assert_eq!(nobody.json()["@type"], "Error");
        assert_eq!(api.get(&one)["id"], "a1:1-1", "nothing of it was changed");
    });
}
