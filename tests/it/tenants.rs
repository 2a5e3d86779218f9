//! Two tenants with their rows in one mail database and one AAA database: neither touches what is the other's, by a push or
//! by a sweep.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::{Daemon, Site};
use crate::harness::{run, wait_for};

const SOON: Duration = Duration::from_secs(40);

/// Everything that stands there for tenant `other`, with the instants.
const THEIRS: [&str; 4] = [
    "SELECT * FROM domain WHERE domain = 'other.example'",
    "SELECT * FROM mailbox WHERE username LIKE '%@other.example' ORDER BY username",
    "SELECT * FROM alias WHERE address LIKE '%@other.example' ORDER BY address",
    "SELECT * FROM lastmile_mailbox WHERE username LIKE '%@other.example' ORDER BY username",
];

#[test]
fn a_tenant_touches_only_its_own_mailboxes_and_logins() {
    let site = Site::sqlite();
    site.edit("[log]", "[sweep]\nevery_hours = 1\n[log]");
    site.prepare(CATALOG);
    let other = CATALOG
        .replace("id = \"acme\"", "id = \"other\"")
        .replace("\"acme.example\"", "\"other.example\"")
        .replace("realms = [\"acme\"]", "realms = [\"other\"]");
    let path = site.path("other.toml");
    std::fs::write(&path, other).expect("a catalog");
    site.succeed(&["catalog", "apply", &path.display().to_string()]);
    let keys = [("acme", site.key("acme", "push")), ("other", site.key("other", "push"))];
    let daemon = site.start();
    let push = |tenant: &str, account: &str, services: &Value| {
        let key = &keys.iter().find(|(name, _)| *name == tenant).expect("a tenant").1;
        let document = json!({ "status": "active", "bill_cycle": "c15", "services": services });
        daemon.api(key, "PUT", &format!("{tenant}/accounts/{account}"), Some(&document))
    };
    let mail = |address: &str, aliases: &[&str]| {
        json!([{ "id": "m1", "type": "email", "plan": "mail-5g",
                 "mailbox": { "address": address, "password": "mail-secret-42", "aliases": aliases } }])
    };
    let login = |username: &str| {
        json!([{ "id": "i1", "type": "internet", "plan": "res-100",
                 "radius": { "username": username, "password": "correct horse" } }])
    };

    for (tenant, account, services) in [
        ("other", "1", mail("eve@other.example", &["eva@other.example"])),
        ("other", "2", login("eve@other")),
        ("acme", "1", mail("ada@acme.example", &[])),
        ("acme", "2", login("ada@acme")),
    ] {
        let answer = push(tenant, account, &services);
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    settled(&site);
    let mailboxes = || THEIRS.map(|statement| sql(&site.mail_url, statement));
    let logins = || {
        ["radcheck", "radreply", "radusergroup"].map(|table| {
            sql(&site.aaa_url, &format!("SELECT * FROM {table} WHERE username = 'eve@other' ORDER BY 1, 2, 3"))
        })
    };
    let (mail_before, logins_before) = (mailboxes(), logins());
    assert!(mail_before.iter().all(|rows| rows.contains("other.example")), "{mail_before:?}");

    // A domain that is not in its catalog: the fault names the field.
    for (services, field) in [
        (mail("eve@other.example", &[]), "/services/0/mailbox/address"),
        (mail("mallory@other.example", &[]), "/services/0/mailbox/address"),
        (mail("ada@acme.example", &["eva@other.example"]), "/services/0/mailbox/aliases/0"),
        (mail("ada@acme.example", &["new@other.example"]), "/services/0/mailbox/aliases/0"),
    ] {
        let answer = push("acme", "1", &services);
        assert_eq!(answer.status, 422, "{field}: {}", answer.body);
        let told = answer.json();
        let faults: Vec<&str> =
            told["errors"].as_array().into_iter().flatten().filter_map(|fault| fault["pointer"].as_str()).collect();
        assert_eq!(faults, [field], "{told:#}");
    }
    // A login that another tenant holds: who holds it is not told.
    let answer = push("acme", "3", &login("eve@other"));
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert!(answer.body.contains("another provider") && !answer.body.contains("\"other\""), "{}", answer.body);
    // Mail may be sent on to anybody.
    let mut onward = mail("ada@acme.example", &[]);
    onward[0]["mailbox"]["forward_to"] = json!(["eve@other.example"]);
    assert_eq!(push("acme", "1", &onward).status, 200);
    settled(&site);
    assert_eq!((mailboxes(), logins()), (mail_before.clone(), logins_before.clone()), "after the pushes");

    // What differs of one tenant is healed, and nothing of the other is written.
    sql(&site.mail_url, "UPDATE mailbox SET quota = 5 WHERE username = 'ada@acme.example'");
    sql(&site.aaa_url, "DELETE FROM radcheck WHERE username = 'ada@acme'");
    site.succeed(&["drift", "sweep"]);
    let keys_healed = wait_for("both are healed", SOON, || {
        let told = site.lastmile(&["--json", "drift", "list", "--all"]);
        let listed: Vec<Value> = serde_json::from_slice(&told.stdout).expect("a list");
        let mut keys: Vec<String> = listed
            .iter()
            .filter(|found| !found["healed_at"].is_null())
            .map(|found| {
                format!("{} {}", found["tenant"].as_str().unwrap_or("?"), found["key"].as_str().unwrap_or("?"))
            })
            .collect();
        keys.sort();
        (keys.len() >= 2).then_some(keys)
    });
    assert_eq!(keys_healed, ["acme ada@acme", "acme ada@acme.example"]);
    assert_ne!(sql(&site.mail_url, "SELECT quota FROM mailbox WHERE username = 'ada@acme.example'"), "5");
    assert_eq!((mailboxes(), logins()), (mail_before.clone(), logins_before.clone()), "after the sweep");

    // A tenant whose last account closes takes nothing along.
    for account in ["1", "2"] {
        let answer = daemon.api(&keys[0].1, "DELETE", &format!("acme/accounts/{account}"), None);
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    settled(&site);
    assert_eq!((mailboxes(), logins()), (mail_before, logins_before), "after the closing");
    stopped(daemon);
}

fn stopped(daemon: Daemon) {
    assert!(daemon.stop() < Duration::from_secs(5));
}

/// Waits until no job is under way.
fn settled(site: &Site) {
    wait_for("no job is left", SOON, || {
        let jobs = site.json(&["job", "list", "--limit", "1000"]);
        jobs.as_array().expect("a list").iter().all(|job| job["state"] == "done").then_some(())
    });
}

fn sql(url: &str, statement: &str) -> String {
    let path = url.strip_prefix("sqlite://").expect("a file");
    let output = run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", path, statement]);
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
