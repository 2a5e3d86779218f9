//! What an account gives up is kept from others for a while, on both kinds of database; and a mail domain is one
//! tenant's alone.

use serde_json::{Value, json};

use crate::harness::acme::CATALOG;
use crate::harness::daemon::Site;
use crate::harness::http::Answer;
use crate::harness::inside::Inside;

struct Desk {
    inside: Inside,
    site: Site,
    acme: String,
    other: String,
}

/// Tenant `acme`, and tenant `other` with a domain of its own and shorter times.
fn both(journey: impl Fn(&Desk)) {
    for site in [Site::sqlite(), Site::postgres()] {
        site.prepare(CATALOG);
        let other = CATALOG
            .replace("id = \"acme\"", "id = \"other\"")
            .replace("\"acme.example\"", "\"other.example\"")
            .replace("realms = [\"acme\"]", "realms = [\"other\"]")
            + "\n[quarantine]\nmailbox_days = 10\nnumber_days = 0\n";
        let path = site.path("other.toml");
        std::fs::write(&path, other).expect("a catalog");
        site.succeed(&["catalog", "apply", &path.display().to_string()]);
        let (acme, other) = (site.key("acme", "push"), site.key("other", "push"));
        let inside = Inside::start(&site);
        journey(&Desk { inside, site, acme, other });
    }
}

impl Desk {
    fn put(&self, account: &str, services: &Value) -> Answer {
        self.put_for("acme", &self.acme, account, services)
    }

    fn put_for(&self, tenant: &str, key: &str, account: &str, services: &Value) -> Answer {
        let mac = format!("00:11:22:{}:00:{}", &account[..2], if tenant == "acme" { "01" } else { "02" });
        let mta = format!("00:11:22:{}:01:{}", &account[..2], if tenant == "acme" { "01" } else { "02" });
        let document = json!({
            "status": "active", "bill_cycle": "c15", "services": services,
            "devices": [{ "id": "gw1", "cm_mac": mac, "mta_mac": mta }],
        });
        self.inside.api(key, "PUT", &format!("{tenant}/accounts/{account}"), Some(&document))
    }

    fn close(&self, account: &str) {
        let answer = self.inside.api(&self.acme, "DELETE", &format!("acme/accounts/{account}"), None);
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
}

fn mail(address: &str, aliases: &[&str]) -> Value {
    json!([{ "id": "m1", "type": "email", "plan": "mail-5g", "mailbox": { "address": address, "aliases": aliases } }])
}

fn voice(number: &str) -> Value {
    json!([{ "id": "v1", "type": "voice", "plan": "voice-basic", "device": "gw1",
             "lines": [{ "port": 1, "number": number, "enabled": true }] }])
}

fn created(answer: &Answer) {
    assert!(answer.status < 300, "{} {}", answer.status, answer.body);
}

/// A refusal that names until when.
fn barred(answer: &Answer) -> Value {
    assert_eq!(answer.status, 409, "{}", answer.body);
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:lastmile:problem:quarantined", "{problem}");
    assert!(problem["conflicts"][0]["quarantined_until"].is_string(), "{problem}");
    problem
}

#[test]
fn address_and_its_aliases_are_kept_for_180_days_from_all_but_their_account() {
    both(|desk| {
        created(&desk.put("10", &mail("ada@acme.example", &["lovelace@acme.example"])));
        // Given up by a push, not by a closing.
        created(&desk.put("10", &mail("countess@acme.example", &[])));
        let problem = barred(&desk.put("20", &mail("ada@acme.example", &[])));
        assert_eq!(problem["conflicts"][0]["account"], "10", "{problem}");
        barred(&desk.put("20", &mail("bob@acme.example", &["lovelace@acme.example"])));
        created(&desk.put("20", &mail("bob@acme.example", &[])));

        created(&desk.put("10", &mail("ada@acme.example", &[])));
        created(&desk.put("10", &mail("countess@acme.example", &[])));
        desk.inside.pass_days(179);
        barred(&desk.put("20", &mail("ada@acme.example", &[])));
        // The alias was given up when the address was, and the address once more later: on the same day here.
        desk.inside.pass_days(2);
        created(&desk.put("20", &mail("ada@acme.example", &["lovelace@acme.example"])));
        let problem = desk.put("10", &mail("ada@acme.example", &[])).json();
        assert_eq!(problem["type"], "urn:lastmile:problem:already-held", "{problem}");
    });
}

#[test]
fn number_is_kept_for_90_days_after_its_account_closed() {
    both(|desk| {
        created(&desk.put("10", &voice("+15125550100")));
        desk.close("10");
        barred(&desk.put("20", &voice("+15125550100")));
        created(&desk.put("10", &voice("+15125550100")));
        desk.close("10");
        desk.inside.pass_days(89);
        barred(&desk.put("20", &voice("+15125550100")));
        desk.inside.pass_days(2);
        created(&desk.put("20", &voice("+15125550100")));
    });
}

#[test]
fn another_tenants_account_is_not_named_and_its_days_are_its_own() {
    both(|desk| {
        created(&desk.put("10", &voice("+15125550100")));
        desk.close("10");
        let answer = desk.put_for("other", &desk.other, "20", &voice("+15125550100"));
        let problem = barred(&answer);
        assert!(problem["conflicts"][0]["account"].is_null(), "{problem}");
        assert!(answer.body.contains("another provider") && !answer.body.contains("account 10"), "{}", answer.body);

        created(&desk.put_for("other", &desk.other, "30", &mail("eve@other.example", &[])));
        created(&desk.put_for("other", &desk.other, "30", &voice("+15125550199")));
        created(&desk.put_for("other", &desk.other, "30", &json!([])));
        created(&desk.put_for("other", &desk.other, "31", &voice("+15125550199")));
        barred(&desk.put_for("other", &desk.other, "31", &mail("eve@other.example", &[])));
        desk.inside.pass_days(11);
        created(&desk.put_for("other", &desk.other, "31", &mail("eve@other.example", &[])));
    });
}

#[test]
fn operator_frees_one_early_and_it_is_noted() {
    both(|desk| {
        created(&desk.put("10", &voice("+15125550100")));
        desk.close("10");
        let listed = desk.inside.api(&desk.acme, "GET", "acme/quarantine?limit=1", None).json();
        assert_eq!(listed["items"][0]["value"], "+15125550100", "{listed}");
        assert_eq!(desk.inside.api(&desk.other, "GET", "other/quarantine", None).json()["items"], json!([]));
        let released = desk.site.json(&["quarantine", "release", "+15125550100", "--by", "noc"]);
        assert_eq!((&released["released_by"], &released["account"]), (&json!("noc"), &json!("10")));
        let again = desk.site.lastmile(&["quarantine", "release", "+15125550100"]);
        assert_eq!(again.status.code(), Some(3), "{}", String::from_utf8_lossy(&again.stderr));
        let unknown = desk.site.lastmile(&["quarantine", "release", "+15125550111"]);
        assert_eq!(unknown.status.code(), Some(3));
        assert_eq!(desk.site.json(&["quarantine", "list"]), json!([]));
        created(&desk.put("20", &voice("+15125550100")));
        let history = desk.site.json(&["account", "history", "10", "--tenant", "acme"]).to_string();
        assert!(history.contains("quarantine.release") && history.contains("noc"), "{history}");
    });
}

#[test]
fn mail_domain_is_one_tenants_alone() {
    both(|desk| {
        // The administrator of the other tenant names it too: the catalog is taken, and says what is not had by it.
        let admin = desk.site.key("other", "admin");
        let greedy = CATALOG
            .replace("id = \"acme\"", "id = \"other\"")
            .replace("[\"acme.example\"]", "[\"other.example\", \"ACME.example\"]")
            .replace("realms = [\"acme\"]", "realms = [\"other\"]");
        let body = json!({ "main": "other.toml", "files": { "other.toml": greedy } });
        for query in ["?dry_run=true", ""] {
            let answer = desk.inside.api(&admin, "PUT", &format!("other/catalog{query}"), Some(&body));
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.json()["effect"]["mail_domains_elsewhere"], json!(["acme.example"]), "{}", answer.body);
        }
        let held = |answer: Answer| {
            assert_eq!(answer.status, 409, "{}", answer.body);
            let domain = json!({ "kind": "mail_domain", "value": "acme.example", "held_by": "another provider" });
            assert_eq!(answer.json()["conflicts"], json!([domain]), "{}", answer.body);
        };
        held(desk.put_for("other", &desk.other, "30", &mail("eve@acme.example", &[])));
        held(desk.put_for("other", &desk.other, "30", &mail("eve@other.example", &["ada@acme.example"])));
        created(&desk.put_for("other", &desk.other, "30", &mail("eve@other.example", &[])));
        let undone = desk.inside.api(&desk.other, "GET", "other/accounts/30", None).json();
        assert_eq!(undone["services"][0]["mailbox"]["aliases"].as_array().map_or(0, Vec::len), 0, "{undone}");

        // A domain with addresses in it stays.
        created(&desk.put("10", &mail("ada@acme.example", &[])));
        let path = desk.site.path("acme-new.toml");
        let path = path.display().to_string();
        std::fs::write(&path, CATALOG.replace("[\"acme.example\"]", "[\"new.example\"]")).expect("a catalog");
        let refused = desk.site.lastmile(&["catalog", "apply", &path]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("acme.example cannot be removed: 1 addresses are in it"), "{said}");

        // Without them it can go, and is then the other's, who named it all the time.
        desk.close("10");
        desk.site.succeed(&["catalog", "apply", &path]);
        created(&desk.put_for("other", &desk.other, "31", &mail("eva@acme.example", &[])));
        std::fs::write(&path, CATALOG).expect("a catalog");
        let told = desk.site.json(&["catalog", "apply", &path]);
        assert_eq!(told["applied"][0]["effect"]["mail_domains_elsewhere"], json!(["acme.example"]), "{told}");
        held(desk.put("11", &mail("bob@acme.example", &[])));
    });
}
