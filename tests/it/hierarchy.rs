//! Accounts under accounts, on both databases: no loop whoever moves whom at the same time, sums of every level.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::harness::acme::{CATALOG, Report, last_period, radclient};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::wait_for;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn trees_have_no_loops_and_roll_up_on_sqlite() {
    journey(&Site::sqlite(), None);
}

#[test]
fn trees_have_no_loops_and_roll_up_on_postgres() {
    let site = Site::postgres();
    let twin = site.twin();
    journey(&site, Some(&twin));
}

fn account(id: &str, parent: Option<&str>, tier: &str) -> Value {
    let (start, _) = last_period(Timestamp::now());
    json!({
        "status": "active", "bill_cycle": "c15", "parent": parent, "tier_label": tier, "tags": {"cost centre": id},
        "services": [{"id": format!("{id}-i"), "type": "internet", "plan": "res-100", "billing_from": start.to_string(),
                      "radius": {"username": format!("{id}@acme"), "password": "pw"}}]
    })
}

fn journey(site: &Site, twin: Option<&Site>) {
    site.prepare(CATALOG);
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let put = |id: &str, document: &Value| daemon.api(&key, "PUT", &format!("acme/accounts/{id}"), Some(document));
    // Children may come before their parent is known.
    for (id, parent, tier) in [
        ("shop", Some("west"), "site"),
        ("west", Some("hq"), "region"),
        ("hq", None, "enterprise"),
        ("east", Some("hq"), "region"),
        ("till", Some("shop"), "line"),
        ("alone", None, "site"),
    ] {
        let pushed = put(id, &account(id, parent, tier));
        assert_eq!(pushed.status, 201, "{id}: {}", pushed.body);
    }
    let refused = put("hq", &account("hq", Some("till"), "enterprise"));
    assert_eq!(refused.status, 422, "{}", refused.body);
    let told = refused.json()["errors"][0].clone();
    assert_eq!(
        (&told["pointer"], &told["detail"]),
        (&json!("/parent"), &json!("would make a loop: hq under till under shop under west under hq"))
    );
    assert_eq!(put("hq", &account("hq", Some("hq"), "enterprise")).status, 422);
    let moved = put("east", &account("east", Some("west"), "region"));
    assert_eq!(moved.status, 200, "{}", moved.body);
    let refused = put("west", &account("west", Some("east"), "region"));
    assert_eq!(refused.status, 422, "east stands under west now: {}", refused.body);
    assert_eq!(put("east", &account("east", Some("hq"), "region")).status, 200, "and back");

    let tree = site.json(&["account", "tree", "hq", "--tenant", "acme"]);
    let shape: Vec<String> = tree
        .as_array()
        .expect("a list")
        .iter()
        .map(|node| {
            format!(
                "{}{}",
                " ".repeat(node["depth"].as_u64().unwrap_or(9) as usize),
                node["account"].as_str().unwrap_or("?")
            )
        })
        .collect();
    assert_eq!(shape, ["hq", " east", " west", "  shop", "   till"]);
    let text = site.succeed(&["account", "tree", "--tenant", "acme"]);
    assert!(text.contains("    shop  [site]"), "{text}");

    sums(site, &daemon, &key);
    let other = twin.map(Site::start);
    races(site, [&daemon, other.as_ref().unwrap_or(&daemon)], &key);
    if let Some(other) = other {
        other.stop();
    }
    daemon.stop();
}

fn sums(site: &Site, daemon: &Daemon, key: &str) {
    let now = Timestamp::now();
    for (user, octets) in [("till@acme", 1_000), ("east@acme", 200), ("alone@acme", 7)] {
        let report =
            Report { user, session: user, kind: "Stop", at: now, seconds: 1, in_octets: octets, out_octets: 0 };
        assert!(radclient(site.radius_port, &report), "the collector answers");
    }
    let usage = |id: &str| daemon.api(key, "GET", &format!("acme/accounts/{id}/usage?rollup=true"), None).json();
    let rolled = wait_for("usage is folded", SOON, || {
        let told = usage("hq");
        (told["total"]["in_octets"] == json!(1_200)).then_some(told)
    });
    assert_eq!(rolled["accounts"], json!(5), "{rolled}");
    let levels: Vec<(String, i64)> = rolled["levels"]
        .as_array()
        .expect("levels")
        .iter()
        .map(|level| (level["account"].as_str().unwrap_or("?").to_owned(), level["in_octets"].as_i64().unwrap_or(-1)))
        .collect();
    assert_eq!(levels, [("east".to_owned(), 200), ("west".to_owned(), 1_000)]);
    assert_eq!(usage("shop")["total"]["in_octets"], json!(1_000));

    let run = site.json(&["bill", "run", "--tenant", "acme", "--cycle", "c15"]);
    let all = run["lines"].as_array().expect("lines").len();
    let under = |id: &str| {
        let page = daemon.api(key, "GET", &format!("acme/invoice-lines?under={id}&limit=1000"), None).json();
        for line in page["items"].as_array().expect("lines") {
            assert_eq!(line["tags"]["cost centre"], line["account"], "{line}");
        }
        let mut accounts: Vec<String> = page["items"]
            .as_array()
            .expect("lines")
            .iter()
            .map(|line| line["account"].as_str().unwrap_or("?").to_owned())
            .collect();
        accounts.sort();
        accounts.dedup();
        accounts
    };
    assert_eq!(under("west"), ["shop", "till", "west"]);
    assert_eq!(under("hq").len(), 5);
    assert_eq!(daemon.api(key, "GET", "acme/invoice-lines?under=nobody", None).status, 404);
    let (start, _) = last_period(Timestamp::now());
    let rollup = |more: &[&str]| {
        let mut arguments = vec!["bill", "rollup", "--tenant", "acme", "--cycle", "c15", "--period"];
        let period = start.to_string();
        arguments.push(&period);
        arguments.extend(more);
        site.json(&arguments)
    };
    let rows = rollup(&[])["items"].as_array().expect("rows").clone();
    let of = |id: &str| rows.iter().find(|row| row["account"] == id).unwrap_or_else(|| panic!("{id}: {rows:?}"));
    let cents = |value: &Value| value.as_str().unwrap_or("?").replace('.', "").parse::<i64>().unwrap_or(-1);
    let (hq, west, east) = (of("hq"), of("west"), of("east"));
    assert!(all > 0 && cents(&hq["sums"][0]["own"]) > 0, "{hq}");
    let parts = [&hq["sums"][0]["own"], &west["sums"][0]["all"], &east["sums"][0]["all"]].map(cents);
    assert_eq!(cents(&hq["sums"][0]["all"]), parts.iter().sum::<i64>(), "{rows:?}");
    assert_eq!(rollup(&["--under", "shop", "--levels", "0"])["items"].as_array().map(Vec::len), Some(1));
}

/// Two that want under each other at the same time, at one daemon or at two: never both.
fn races(site: &Site, daemons: [&Daemon; 2], key: &str) {
    let rounds = 12;
    for round in 0..rounds {
        let (one, other) = (format!("one{round}"), format!("other{round}"));
        for id in [&one, &other] {
            let pushed = daemons[0].api(key, "PUT", &format!("acme/accounts/{id}"), Some(&bare(None)));
            assert_eq!(pushed.status, 201, "{}", pushed.body);
        }
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for (daemon, id, parent) in [(daemons[0], &one, &other), (daemons[1], &other, &one)] {
                let done = &done;
                scope.spawn(move || {
                    let pushed = daemon.api(key, "PUT", &format!("acme/accounts/{id}"), Some(&bare(Some(parent))));
                    assert!(matches!(pushed.status, 200 | 422), "{}", pushed.body);
                    done.fetch_add(usize::from(pushed.status == 200), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(done.into_inner(), 1, "round {round}");
    }
    let tree = site.succeed(&["account", "tree", "--tenant", "acme"]);
    let roots = tree.lines().filter(|line| !line.starts_with(' ')).count();
    assert_eq!(roots, 1 + rounds, "{tree}");
}

fn bare(parent: Option<&str>) -> Value {
    json!({"status": "active", "bill_cycle": "c15", "parent": parent, "services": []})
}
