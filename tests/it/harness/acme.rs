//! The tenant of the journeys: its catalog, its accounts, and a NAS played by Debian's `radclient`.

use std::io::Write;
use std::process::{Command, Stdio};

use jiff::civil::{Date, date};
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::daemon::NAS_SECRET;

pub const ZONE: &str = "America/Chicago";

/// Catalog of tenant `acme`: monthly cycle on the 15th, two internet plans, voice, mail, one usage tariff with tiers.
pub const CATALOG: &str = r#"
[tenant]
id = "acme"
name = "Acme Cable"
currency = "USD"
timezone = "America/Chicago"
mail_domains = ["acme.example"]
realms = ["acme"]

[[bill_cycle]]
id = "c15"
anchor_day = 15
every = "month"
timezone = "America/Chicago"
close = "manual"
grace = "6h"

[[plan]]
id = "res-100"
service = "internet"
tariff = "res-100"
docsis = { downstream = "100M", upstream = "20M", max_cpe = 2, version = "3.0" }
radius = { group = "res-100", reply = { "Mikrotik-Rate-Limit" = "20M/100M" } }

[[plan]]
id = "res-300"
service = "internet"
tariff = "res-100"
docsis = { downstream = "300M", upstream = "30M", max_cpe = 4, version = "3.1" }
radius = { group = "res-300" }

[[plan]]
id = "voice-basic"
service = "voice"
tariff = "voice-basic"

[[plan]]
id = "mail-5g"
service = "email"
tariff = "mail-5g"

[[tariff]]
id = "res-100"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "49.95"
timing = "advance"
proration = "actual_days"
refund_on_end = "prorata"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
allowance = { amount = "10" }
model = "graduated"
tiers = [ { up_to = "5", unit_amount = "0.50" }, { unit_amount = "0.25" } ]
[[tariff.tax]]
id = "vat"
rate = "10"
inclusive = false

[[tariff]]
id = "voice-basic"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "line"
type = "recurring"
amount = "15.00"
timing = "arrears"
proration = "none"

[[tariff]]
id = "mail-5g"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "mailbox"
type = "recurring"
amount = "2.00"
timing = "advance"
proration = "none"
"#;

/// Start of the newest period of cycle `c15` that has ended before `now`, and its end.
pub fn last_period(now: Timestamp) -> (Date, Date) {
    let today = now.in_tz(ZONE).expect("a known zone").date();
    let mut end = date(today.year(), today.month(), 15);
    // A day of distance keeps the test clear of the edge itself.
    while end + 1.day() > today {
        end -= 1.month();
    }
    (end - 1.month(), end)
}

/// Midnight of a day where the tenant lives.
pub fn midnight(day: Date) -> Timestamp {
    day.in_tz(ZONE).expect("a known zone").timestamp()
}

/// An internet account of one RADIUS user.
pub fn internet(number: u32) -> Value {
    json!({
        "status": "active",
        "bill_cycle": "c15",
        "services": [{
            "id": format!("{number}-1"),
            "type": "internet",
            "plan": "res-100",
            "radius": {"username": format!("user{number}@acme"), "password": format!("secret-{number}")}
        }]
    })
}

/// Name of the whole household used by `household`.
pub const HOUSEHOLD: &str = "100234";

/// An account with a gateway, internet, voice and mail.
pub fn household(billing_from: Date) -> Value {
    json!({
        "source_revision": 7, "status": "active", "kind": "person",
        "name": "Ada Lovelace", "email": "ada@example.net", "phone": "+15125550100", "language": "en",
        "billing_address": {"line1": "1 Main St", "city": "Austin", "region": "TX", "postal_code": "78701", "country": "US"},
        "bill_cycle": "c15",
        "devices": [{"id": "gw1", "cm_mac": "00:11:22:33:44:55", "mta_mac": "00:11:22:33:44:56", "model": "arris-tm3402", "serial": "A1"}],
        "services": [
            {"id": "100234-1", "type": "internet", "plan": "res-100", "device": "gw1", "max_cpe": 2, "static_ips": [],
             "radius": {"username": "ada@acme", "password": "correct horse", "framed_ip": null, "ipv6_delegated": null},
             "billing_from": billing_from.to_string()},
            {"id": "100234-2", "type": "voice", "plan": "voice-basic", "device": "gw1", "billing_from": billing_from.to_string(),
             "service_address": {"line1": "1 Main St", "city": "Austin", "region": "TX", "postal_code": "78701", "country": "US"},
             "lines": [{"port": 1, "number": "+15125550100", "enabled": true,
                        "sip": {"user": "u", "password": "sip-secret-77", "display_name": "Ada"}}]},
            {"id": "100234-3", "type": "email", "plan": "mail-5g", "billing_from": billing_from.to_string(),
             "mailbox": {"address": "ada@acme.example", "password": "mail-secret-42", "quota_mb": 5120, "aliases": ["lovelace@acme.example"], "forward_to": []}}
        ],
        "tags": {"csr": "42"}
    })
}

/// What a NAS reports of one session.
pub struct Report<'a> {
    pub user: &'a str,
    pub session: &'a str,
    pub kind: &'a str,
    pub at: Timestamp,
    pub seconds: u64,
    pub in_octets: u64,
    pub out_octets: u64,
}

/// Sends one report with `radclient`, patiently; true when the collector answered it.
pub fn radclient(port: u16, report: &Report<'_>) -> bool {
    radclient_raw(port, "acct", NAS_SECRET, &report.attributes()).contains("Received Accounting-Response")
}

impl Report<'_> {
    /// As `radclient` reads it.
    pub fn attributes(&self) -> String {
        let report = self;
        let high = |octets: u64| octets >> 32;
        let low = |octets: u64| octets & 0xffff_ffff;
        format!(
            "User-Name = \"{}\"\nAcct-Session-Id = \"{}\"\nAcct-Status-Type = {}\nNAS-Identifier = \"bng1\"\n\
         Event-Timestamp = {}\nAcct-Session-Time = {}\nAcct-Input-Octets = {}\nAcct-Input-Gigawords = {}\n\
         Acct-Output-Octets = {}\nAcct-Output-Gigawords = {}\nFramed-IP-Address = 10.0.0.7\n",
            report.user,
            report.session,
            report.kind,
            report.at.as_second(),
            report.seconds,
            low(report.in_octets),
            high(report.in_octets),
            low(report.out_octets),
            high(report.out_octets),
        )
    }
}

/// Runs `radclient` with attributes as text, patiently, and gives what it printed.
pub fn radclient_raw(port: u16, command: &str, secret: &str, attributes: &str) -> String {
    radclient_tries(15, port, command, secret, attributes)
}

/// As `radclient_raw`, sending so many times, two seconds apart: few where no answer is to come.
pub fn radclient_tries(tries: u32, port: u16, command: &str, secret: &str, attributes: &str) -> String {
    let mut child = Command::new("radclient")
        .args(["-x", "-r", &tries.to_string(), "-t", "2", &format!("127.0.0.1:{port}"), command, secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("radclient runs (Debian package freeradius-utils)");
    child.stdin.take().expect("its input").write_all(attributes.as_bytes()).expect("attributes are read");
    let output = child.wait_with_output().expect("radclient ends");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
