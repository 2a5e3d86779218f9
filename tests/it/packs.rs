//! Dispute packs of every kind of line: made by the program of a real run, verified by Python alone to the same amount; and
//! one octet, second, name or price changed in any of their files is found and named, even when the manifest is forged.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::harness::acme::{last_period, midnight, radclient_raw};
use crate::harness::daemon::{Daemon, NAS_SECRET, Site};
use crate::harness::wait_for;

const SOON: Duration = Duration::from_secs(120);
const MEGABYTE: u64 = 1_000_000;
const TENANT: &str = r#"
[tenant]
id = "acme"
currency = "USD"
timezone = "America/Chicago"
realms = ["acme"]
backdate_days = 150
[[usage_class]]
id = "zero-rated"
class = "cdn-*"
[[usage_class]]
id = "voip"
class = "voip"
[[bill_cycle]]
id = "c15"
anchor_day = 15
every = "month"
[[plan]]
id = "many"
service = "internet"
tariff = "many"
[[plan]]
id = "family"
service = "internet"
tariff = "family"
[[plan]]
id = "link"
service = "internet"
tariff = "link"
[[plan]]
id = "hours"
service = "internet"
tariff = "hours"
[[plan]]
id = "voice"
service = "voice"
tariff = "voice"
"#;
const TARIFFS: &str = r#"
[[tariff]]
id = "many"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[tariff.rounding]
line = "half_even"
[[tariff.charge]]
id = "access"
type = "recurring"
amount = "39.95"
timing = "arrears"
proration = "fixed_30"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "MB"
quantize = { to = "1 MB", mode = "up" }
allowance = { amount = "100.5", prorate = true }
windows = [
  { id = "night", days = "mon-sun", from = "23:30", to = "05:15", weight = "0.5" },
  { id = "weekend", days = "sat,sun", from = "00:00", to = "24:00", unit_amount = "0.013" },
]
classes = { zero-rated = "0", voip = { unit_amount = "0.02", direction = "down" } }
model = "graduated"
tiers = [ { up_to = "200", unit_amount = "0.0123" }, { up_to = "700", unit_amount = "0.0071", flat_amount = "0.5" }, { unit_amount = "0.003" } ]
[[tariff.discount]]
kind = "percent"
value = "7.5"
applies_to = ["data"]
[[tariff.tax]]
id = "vat"
rate = "19"
inclusive = true
[[tariff.tax]]
id = "city"
rate = "1.75"
compound = true
[[tariff.tax]]
id = "fee"
amount = "0.35"
applies_to = ["access"]

[[tariff]]
id = "family"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "max"
unit = "MB"
allowance = { amount = "300", pool = "account", rollover = { max = "250", expires_cycles = 2 } }
model = "standard"
unit_amount = "0.011"
block = { size = "10" }
maximum = "12.50"

[[tariff]]
id = "link"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "peak"
type = "usage"
meter = "peak_bps_95"
direction = "max"
unit = "kbps"
model = "volume"
tiers = [ { up_to = "500", unit_amount = "0.03" }, { unit_amount = "0.02", flat_amount = "3" } ]

[[tariff]]
id = "hours"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "time"
type = "usage"
meter = "seconds"
unit = "min"
quantize = { to = "15 min", mode = "up", level = "session" }
model = "package"
package_size = "60"
package_amount = "0.75"
free_units = "120"
[[tariff.charge]]
id = "logins"
type = "usage"
meter = "sessions"
model = "percentage"
rate = "10"
fixed_amount = "0.05"
minimum = "1.11"
[[tariff.charge]]
id = "days"
type = "usage"
meter = "octets"
direction = "up"
unit = "MB"
quantize = { to = "5 MB", mode = "half_up", level = "day" }
model = "graduated_percentage"
tiers = [ { up_to = "100", rate = "3" }, { rate = "1.5", flat_amount = "0.10" } ]

[[tariff]]
id = "voice"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "calls"
type = "usage"
meter = "calls"
unit = "min"
increments = "60/30"
rates = [
  { prefix = "+1", unit_amount = "0.02" },
  { prefix = "+1800", unit_amount = "0" },
  { prefix = "+44", unit_amount = "0.10", connection = "0.05", increments = "1/1" },
]
[[tariff.tax]]
id = "vat"
rate = "20"
"#;
const WHOLESALE: &str = r#"
[[wholesale]]
tenant = "small"
account = "reseller"
tariff = "bulk"
from = "DAY"
[[wholesale]]
tenant = "small"
account = "averager"
tariff = "average"
from = "DAY"
[[bill_cycle]]
id = "daily"
every = "day"
[[tariff]]
id = "bulk"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "subscribers"
type = "count"
count = "subscribers"
rule = "any"
model = "graduated"
tiers = [ { up_to = "2", unit_amount = "3.00" }, { unit_amount = "2.50" } ]
minimum = "5"
[[tariff]]
id = "average"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "services"
type = "count"
count = "services"
rule = "average_daily"
model = "standard"
unit_amount = "0.10"
"#;

const SHARING: &str = r#"
[[plan]]
id = "bucket"
service = "internet"
tariff = "bucket"
[[plan]]
id = "small"
service = "internet"
tariff = "small"
[[plan]]
id = "large"
service = "internet"
tariff = "large"
[[tariff]]
id = "bucket"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "MB"
prepaid = true
[[tariff.top_up]]
id = "boost"
charge = "data"
amount = "500"
price = "4.995"
valid = "2 cycles"
[[tariff.tax]]
id = "vat"
rate = "20"
[[tariff]]
id = "small"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "MB"
quantize = { to = "1 MB", mode = "up" }
allowance = { amount = "300", pool = "parent", rollover = { max = "250", expires_cycles = 1 } }
model = "standard"
unit_amount = "0.011"
[[tariff]]
id = "large"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[tariff.charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "down"
unit = "MB"
windows = [ { id = "night", days = "mon-sun", from = "23:30", to = "05:15", weight = "0.5" } ]
classes = { zero-rated = "0" }
allowance = { amount = "400", prorate = true, pool = "parent" }
model = "graduated"
tiers = [ { up_to = "100", unit_amount = "0.02" }, { unit_amount = "0.01" } ]
"#;

/// A change of one file and a part of what must be said of it.
struct Plant {
    file: &'static str,
    change: Box<dyn Fn(&str) -> String>,
    says: &'static str,
}

fn plant(file: &'static str, from: &str, to: &str, says: &'static str) -> Plant {
    let (from, to) = (from.to_owned(), to.to_owned());
    let change = move |text: &str| {
        assert!(text.contains(&from), "{from} is not in {file}:\n{text}");
        text.replacen(&from, &to, 1)
    };
    Plant { file, change: Box::new(change), says }
}

/// Adds one to a number of the first row of a CSV file.
fn one_more(file: &'static str, column: &'static str, says: &'static str) -> Plant {
    let change = move |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let place = lines[0].split(',').position(|name| name == column).expect("a column");
        let mut fields: Vec<String> = lines[1].split(',').map(str::to_owned).collect();
        fields[place] = (fields[place].parse::<i64>().expect("a number") + 1).to_string();
        lines[1] = fields.join(",");
        lines.join("\n") + "\n"
    };
    Plant { file, change: Box::new(change), says }
}

const DIGEST: &str = "digest of the ledger entries";

#[test]
fn pack_of_every_kind_of_usage_verifies_without_us_and_one_change_does_not() {
    let site = Site::sqlite();
    site.prepare(&format!("{TENANT}{TARIFFS}"));
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    let before = start - 1.month();
    for (name, services) in [
        ("many", json!([internet("m1", "many", before)])),
        ("family", json!([internet("f1", "family", before), internet("f2", "family", before)])),
        ("link", json!([internet("l1", "link", before)])),
        ("hours", json!([internet("h1", "hours", start + 3.days())])),
    ] {
        let account = json!({"status": "active", "bill_cycle": "c15", "services": services});
        put(&daemon, &key, name, &account);
    }
    let sessions = usage_of_two_periods(&site, start);
    calls(&site, &daemon, &key, start);
    run(&site, before);
    let lines = run(&site, start);
    // What comes late makes corrections, and moves what is carried on.
    send(
        &site,
        "f1",
        "late",
        None,
        &[(midnight(before) + 30.hours(), 0, (0, 0)), (midnight(before) + 31.hours(), 3600, (120, 10))],
    );
    folded(&site, sessions + 1);
    let corrections = run(&site, start);
    let family: Vec<&Value> = of(&corrections, "family", "data");
    assert!(family.len() >= 2, "the correction cascades: {corrections:#?}");

    let data = of(&lines, "many", "data")[0];
    let parts = data["parts"].as_array().expect("parts");
    assert_eq!(parts.len(), 5, "no window, night, weekend, two classes: {data:#}");
    verified(&site, data, |pack| {
        vec![
            one_more("ledger.csv", "out_octets", DIGEST),
            one_more("ledger.csv", "seconds", DIGEST),
            one_more("ledger.csv", "sequence", DIGEST),
            plant("ledger.csv", ",zero-rated,", ",zero-ratee,", DIGEST),
            plant("tariff.toml", "0.0071", "0.0072", "digest of the tariff"),
            plant("line.json", "\"account\": \"many\"", "\"account\": \"any\"", "the line's id"),
            plant("line.json", "\"window\": \"night\"", "\"window\": \"day\"", "usage by class, window"),
            plant("line.json", "\"rounding_residue\": \"", "\"rounding_residue\": \"1", "rounding residue"),
            later("line.json", "\"tiers\"", "\"quantity\": \"", "\"quantity\": \"1", "tiers"),
            later("line.json", "\"tax\"", "\"amount\": \"", "\"amount\": \"1", "of this line"),
            plant("explain.json", "\"line\"", "\"lime\"", "HOLDS ANYWAY"),
            jsonl(pack, "in_octets", "octets, not"),
            jsonl(pack, "session_seconds", "seconds, not"),
            plant("records.jsonl", "\"session\":\"m1-", "\"session\":\"m2-", "is of session"),
        ]
    });
    let access = of(&lines, "many", "access")[0];
    verified(&site, access, |_| {
        vec![
            plant(
                "line.json",
                "\"coverage\": [\n      [\n        \"20",
                "\"coverage\": [\n      [\n        \"19",
                "billed part",
            ),
            later("line.json", "\"basis\"", "\"times\": 1", "\"times\": 2", "counted"),
        ]
    });
    for line in [of(&lines, "family", "data"), family].concat() {
        verified(&site, line, |_| {
            let carried = line["allowance"]["carried_in"] != "0";
            let lost = plant("allowance.json", "\"max\": \"250/1", "\"max\": \"0/1", "from earlier periods");
            let lost = carried.then_some(lost);
            vec![
                one_more("ledger.csv", "in_octets", DIGEST),
                later(
                    "allowance.json",
                    text(line, "id"),
                    "\"quantity\": \"",
                    "\"quantity\": \"1",
                    "asks for the allowance",
                ),
                plant("allowance.json", "\"used\": \"", "\"used\": \"1", "allowance used by service"),
                plant("allowance.json", "\"own\": \"300/1", "\"own\": \"301/1", ""),
                later("line.json", "\"allowance\": {", "\"used\": \"", "\"used\": \"1", "used here"),
            ]
            .into_iter()
            .chain(lost)
            .collect()
        });
    }
    verified(&site, of(&lines, "link", "peak")[0], |_| {
        vec![
            one_more("ledger.csv", "in_octets", DIGEST),
            later("line.json", "\"basis\"", "\"quantity_raw\": ", "\"quantity_raw\": 1", "counted"),
            plant("tariff.toml", "\"500\"", "\"501\"", "digest of the tariff"),
        ]
    });
    for charge in ["time", "logins", "days"] {
        verified(&site, of(&lines, "hours", charge)[0], |_| {
            vec![
                one_more("ledger.csv", "seconds", DIGEST),
                plant("line.json", "\"amount_exact\": \"", "\"amount_exact\": \"1", ""),
                later("line.json", "\"basis\"", "\"share\": \"", "\"share\": \"1", "billed part of the period"),
            ]
        });
    }
    // A session that is quantized by itself is named by the digest.
    verified(&site, of(&lines, "hours", "time")[0], |_| vec![one_more("ledger.csv", "session_id", DIGEST)]);
    verified(&site, of(&lines, "voice", "calls")[0], |_| {
        vec![
            plant("ledger.csv", ",+442071234567,", ",+442071234568,", DIGEST),
            one_more("ledger.csv", "seconds", DIGEST),
            plant("line.json", "\"prefix\": \"+44\"", "\"prefix\": \"+45\"", "destination"),
            plant("line.json", "\"calls\": 1", "\"calls\": 2", "destination"),
        ]
    });
    let audit = site.lastmile(&["--json", "audit", "verify"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    daemon.stop();
}

#[test]
fn pack_of_top_ups_and_of_pools_over_accounts_verifies_without_us_or_names_and_one_change_does_not() {
    let site = Site::sqlite();
    site.prepare(&format!("{TENANT}{TARIFFS}{SHARING}"));
    let key = site.key("acme", "admin");
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    let before = start - 1.month();
    put(
        &daemon,
        &key,
        "bucket",
        &json!({"status": "active", "bill_cycle": "c15", "services": [internet("b1", "bucket", before)]}),
    );
    put(
        &daemon,
        &key,
        "head-of-all",
        &json!({"status": "active", "bill_cycle": "c15", "services": [internet("h-line", "small", before)]}),
    );
    for (name, service, plan, from) in
        [("kid-one", "k-one", "small", before), ("kid-two", "k-two", "large", start + 6.days())]
    {
        let account = json!({"status": "active", "bill_cycle": "c15", "parent": "head-of-all",
            "services": [internet(service, plan, from)]});
        put(&daemon, &key, name, &account);
    }
    // As if all of them had been pushed before the periods began: a parent counts from when it was told.
    crate::batches::sql(&site, "UPDATE service_history SET from_at = from_at - 8640000000000");
    let post = |body: Value| {
        let posted = daemon.api(&key, "POST", "acme/accounts/bucket/charges", Some(&body));
        assert_eq!(posted.status, 201, "{}", posted.body);
        posted.json()["id"].as_str().expect("an id").to_owned()
    };
    let boost = post(json!({"type": "top_up", "top_up": "boost", "on": before + 20.days()}));
    post(json!({"type": "top_up", "charge": "data", "grant": "100 MB", "valid": "period", "on": start + 1.day()}));
    let own_price = post(
        json!({"type": "top_up", "charge": "data", "grant": "0.1 GB", "amount": "1.00", "quantity": 2, "on": start + 1.day()}),
    );

    let (at, earlier) = (midnight(start), midnight(before));
    let mut count = 0;
    let mut session = |user: &str, class: Option<&str>, from: Timestamp, megabytes: u64| {
        count += 1;
        let half = megabytes * MEGABYTE / 2;
        let reports =
            [(from, 0, (0, 0)), (from + 1.hour(), 3600, (7, half)), (from + 9.hours(), 9 * 3600, (9, 2 * half + 1))];
        send(&site, user, &format!("{count}"), class, &reports);
        count
    };
    session("b1", None, earlier + (26 * 24).hours(), 40);
    session("b1", None, at + 40.hours(), 650);
    session("k-one", None, earlier + 50.hours(), 100);
    session("h-line", None, at + 60.hours(), 20);
    session("k-one", None, at + 70.hours(), 1_100);
    session("k-two", None, at + 220.hours(), 600);
    let sent = session("k-two", Some("cdn-1"), at + 250.hours(), 5_000);
    folded(&site, sent);
    run(&site, before);
    let lines = run(&site, start);
    // What comes late of one of them moves what the others may use.
    let sent = session("h-line", None, at + 90.hours(), 90);
    folded(&site, sent);
    let corrections = run(&site, start);
    let corrected = of(&corrections, "kid-one", "data")[0];
    assert_ne!(corrected["amount"], "0.00", "{corrections:#?}");

    for (id, amount) in [(&boost, "5.00"), (&own_price, "2.00")] {
        let all: Vec<Value> =
            site.json(&["line", "list", "--tenant", "acme"])["items"].as_array().expect("lines").clone();
        let line = of(&all, "bucket", id)[0];
        assert_eq!(line["amount"], amount, "{line:#}");
        verified(&site, line, |_| {
            vec![
                later("posted.json", "\"charge\"", "\"quantity\": ", "\"quantity\": 1", ""),
                plant("posted.json", "\"on\": \"20", "\"on\": \"19", ""),
                plant("tariff.toml", "4.99", "4.98", "digest of the tariff"),
                later("line.json", "\"posting\"", "\"amount\": \"", "\"amount\": \"1", ""),
            ]
            .into_iter()
            .skip(usize::from(*id == boost))
            .collect()
        });
    }
    let data = of(&lines, "bucket", "data")[0];
    assert_eq!(data["allowance"]["buckets"].as_array().map(Vec::len), Some(3), "{data:#}");
    verified(&site, data, |_| {
        vec![
            one_more("ledger.csv", "out_octets", DIGEST),
            plant("pool.json", "\"amount\": 100000000", "\"amount\": 100000001", "top-up ch_"),
            plant("pool.json", "\"from\": \"20", "\"from\": \"21", "cannot be used in this period"),
            later("pool.json", "\"granted\"", "\"amount\": \"", "\"amount\": \"1", "what was carried in"),
            later("line.json", "\"buckets\"", "\"used\": \"", "\"used\": \"1", "what there was"),
            later("line.json", "\"carry\"", "\"amount\": \"", "\"amount\": \"1", "what is carried on"),
            plant("line.json", "\"available\": \"", "\"available\": \"1", "all there was"),
            later("line.json", "\"grants\"", "\"amount\": \"", "\"amount\": \"1", "top-up ch_"),
        ]
    });
    let family = [of(&lines, "kid-one", "data"), of(&lines, "kid-two", "data"), vec![corrected]].concat();
    for line in family {
        verified(&site, line, |pack| {
            let own = line["account"].as_str().expect("an account");
            let names = [("head-of-all", "h-line"), ("kid-one", "k-one"), ("kid-two", "k-two")];
            for (name, service) in names.iter().filter(|(name, _)| *name != own) {
                for file in std::fs::read_dir(pack).expect("the pack") {
                    let path = file.expect("a file").path();
                    let text = String::from_utf8_lossy(&std::fs::read(&path).expect("a file")).into_owned();
                    assert!(!text.contains(name) && !text.contains(service), "{} tells {name}", path.display());
                }
            }
            vec![
                one_more("ledger.csv", "out_octets", DIGEST),
                one_more("pool.csv", "out_octets", "digest of the ledger entries of member"),
                one_more("pool.csv", "sequence", "digest of the ledger entries of member"),
                plant("tariff-2.toml", "0.01", "0.03", "tariff of member"),
                later(
                    "line.json",
                    "\"members\"",
                    "\"share\": \"",
                    "\"share\": \"2",
                    "billed part of the period of member",
                ),
                later("line.json", "\"allowance\": {", "\"used\": \"", "\"used\": \"1", "used here"),
                later("line.json", "\"before\"", "\"amount\": \"", "\"amount\": \"1", "what was carried in"),
            ]
        });
    }
    let audit = site.lastmile(&["--json", "audit", "verify"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
    daemon.stop();
}

#[test]
fn pack_of_posted_charges_and_counts_verifies_without_us_and_one_change_does_not() {
    let site = Site::sqlite();
    let today = Timestamp::now().in_tz("America/Chicago").expect("a zone").date();
    let day = today.checked_sub(3.days()).expect("a day");
    site.prepare(&format!("{TENANT}{TARIFFS}{}", WHOLESALE.replace("DAY", &day.to_string())));
    let small = format!(
        "{}{TARIFFS}",
        TENANT.replace("\"acme\"", "\"small\"").replace("currency", "parent = \"acme\"\ncurrency")
    );
    std::fs::write(site.path("small.toml"), small).expect("a catalog");
    site.succeed(&["catalog", "apply", &site.path("small.toml").display().to_string()]);
    let (key, theirs) = (site.key("acme", "admin"), site.key("small", "admin"));
    let daemon = site.start();
    let (start, _) = last_period(Timestamp::now());
    for number in 1..=3 {
        let account = json!({"status": "active", "bill_cycle": "c15",
            "services": [internet(&format!("s{number}"), "hours", start)]});
        let pushed = daemon.api(&theirs, "PUT", &format!("small/accounts/{number}"), Some(&account));
        assert_eq!(pushed.status, 201, "{}", pushed.body);
    }
    for reseller in ["reseller", "averager"] {
        put(&daemon, &key, reseller, &json!({"status": "active", "bill_cycle": "daily", "services": []}));
    }
    put(
        &daemon,
        &key,
        "A",
        &json!({"status": "active", "bill_cycle": "c15",
        "services": [internet("a1", "many", start)]}),
    );
    let post = |body: Value| {
        let posted = daemon.api(&key, "POST", "acme/accounts/A/charges", Some(&body));
        assert_eq!(posted.status, 201, "{}", posted.body);
        posted.json()["id"].as_str().expect("an id").to_owned()
    };
    let visit = post(json!({"type": "one_off", "amount": "12.345", "quantity": 3, "on": start, "tariff": "many",
        "description": "Technician"}));
    let credit = post(json!({"type": "credit", "amount": "5.005", "on": start}));
    let deposit = post(json!({"type": "deposit", "amount": "50.00", "on": start, "tariff": "many"}));
    let back = post(json!({"type": "deposit_return", "amount": "50.00", "on": start}));
    let lines = run(&site, start);
    for (id, amount) in [(&visit, "37.04"), (&credit, "-5.01"), (&deposit, "50.00"), (&back, "-50.00")] {
        let line = of(&lines, "A", id)[0];
        assert_eq!(line["amount"], amount, "{line:#}");
        let price = if *id == visit || *id == deposit { "tariff.toml" } else { "posting.json" };
        verified(&site, line, |pack| {
            assert!(pack.join(price).is_file(), "{price}");
            vec![
                later("posted.json", "\"charge\"", "\"amount\": \"", "\"amount\": \"1", "what was posted"),
                plant("posted.json", "\"id\": \"ch_", "\"id\": \"ch_9", "the posted charge"),
                plant("posted.json", "\"on\": \"20", "\"on\": \"19", ""),
                plant(price, "0", "1", "digest of the"),
                later("line.json", "\"basis\"", "\"times\": ", "\"times\": 1", "pieces"),
            ]
        });
    }

    // They were pushed today, so the day that runs is the first that counts them: the clock of the run is a day later.
    daemon.stop();
    let inside = crate::harness::inside::Inside::start(&site);
    inside.pass_days(1);
    let asked = inside.api(&key, "POST", "acme/bill-runs", Some(&json!({"cycle": "daily"})));
    assert_eq!(asked.status, 200, "{}", asked.body);
    let lines = asked.json()["lines"].as_array().expect("lines").clone();
    drop(inside);
    for (account, charge, amount) in [("reseller", "subscribers", "8.50"), ("averager", "services", "0.30")] {
        let found = of(&lines, account, charge);
        let line = found.iter().find(|line| line["quantity"] == "3").expect("three of them");
        assert_eq!(line["amount"], amount, "{line:#}");
        verified(&site, line, |_| {
            vec![
                plant("counted.csv", "default/2", "default/4", "digest of the list"),
                one_more("counted.csv", "days", "digest of the list"),
                later("line.json", "\"count\": {", "\"tenant\": \"small", "\"tenant\": \"smell", "digest of the list"),
                plant("tariff.toml", "unit_amount", "unit_amoumt", "digest of the tariff"),
            ]
        });
    }
}

/// Sessions over week-ends and nights, of classes, in a period and the one before it; gives how many.
fn usage_of_two_periods(site: &Site, start: Date) -> usize {
    let at = midnight(start);
    let earlier = midnight(start - 1.month());
    let mut count = 0;
    let mut session = |user: &str, class: Option<&str>, from: Timestamp, hours: u32, megabytes: (u64, u64)| {
        count += 1;
        // Four reports, so that usage lies in the hours it was reported for.
        let seconds = u64::from(hours) * 3600;
        let part = |of: u64, quarter: u64| of * MEGABYTE * quarter * quarter / 16;
        let reports: Vec<Report> = (0..=4)
            .map(|quarter| {
                let at = from + i64::try_from(seconds * quarter / 4).expect("a few days").seconds();
                (at, seconds * quarter / 4, (part(megabytes.0, quarter), part(megabytes.1, quarter)))
            })
            .collect();
        send(site, user, &format!("{count}"), class, &reports);
    };
    // Over the day on which the clocks go back, too.
    for (day, hours, megabytes) in [(1, 20, (37, 211)), (3, 90, (90, 703)), (16, 30, (11, 19))] {
        session("m1", None, at + (day * 24 + 20).hours(), hours, megabytes);
    }
    session("m1", Some("cdn-7"), at + 75.hours(), 9, (3, 800));
    session("m1", Some("voip"), at + 103.hours(), 5, (17, 29));
    session("f1", None, earlier + 50.hours(), 7, (20, 100));
    session("f2", None, earlier + 51.hours(), 8, (350, 3));
    session("f1", None, at + 50.hours(), 30, (70, 900));
    session("f2", None, at + 60.hours(), 5, (1, 70));
    session("l1", None, at + 40.hours(), 200, (300, 9_000));
    session("l1", None, at + 300.hours(), 100, (7_000, 200));
    for (day, minutes) in [(4, 50), (5, 61), (5, 14), (9, 700)] {
        count += 1;
        let from = at + (day * 24 + 19).hours();
        let seconds = u64::try_from(minutes * 60).expect("some");
        let octets = (7 * MEGABYTE + 123_456 * seconds / 60, 5 * MEGABYTE);
        send(site, "h1", &format!("{count}"), None, &[(from, 0, (0, 0)), (from + minutes.minutes(), seconds, octets)]);
    }
    folded(site, count);
    count
}

fn calls(site: &Site, daemon: &Daemon, key: &str, start: Date) {
    put(
        daemon,
        key,
        "voice",
        &json!({
            "status": "active", "bill_cycle": "c15",
            "devices": [{"id": "gw1", "cm_mac": "00:11:22:33:44:55", "mta_mac": "00:11:22:33:44:56"}],
            "services": [{"id": "v1", "type": "voice", "plan": "voice", "device": "gw1", "billing_from": start,
                          "lines": [{"port": 1, "number": "+15125550100", "enabled": true}]}]
        }),
    );
    let profile = "[columns]\nnumber = \"src\"\ndestination = \"dst\"\nstarted = \"calldate\"\nseconds = \"billsec\"\n\
        [format]\ntime = \"%Y-%m-%d %H:%M:%S\"\ntimezone = \"America/Chicago\"\n";
    let day = start + 2.days();
    let file = format!(
        "calldate,src,dst,billsec\n{day} 10:00:00,+15125550100,+18005550100,600\n{day} 11:00:00,+15125550100,+15125550111,61\n\
         {day} 12:00:00,+15125550100,+442071234567,100\n"
    );
    std::fs::write(site.path("profile.toml"), profile).expect("a profile");
    std::fs::write(site.path("calls.csv"), file).expect("calls");
    let (profile, file) =
        (site.path("profile.toml").display().to_string(), site.path("calls.csv").display().to_string());
    let told = site.json(&["import", "cdr", &file, "--profile", &profile]);
    assert_eq!((&told["new"], &told["attributed"]), (&json!(3), &json!(3)), "{told}");
}

/// When, after how many seconds of the session, octets up and down.
type Report = (Timestamp, u64, (u64, u64));

/// Sends a session's reports, the first as its Start, the last as its Stop.
fn send(site: &Site, user: &str, session: &str, class: Option<&str>, reports: &[Report]) {
    for (number, (at, seconds, (up, down))) in reports.iter().enumerate() {
        let kind = match number {
            0 => "Start",
            last if last + 1 == reports.len() => "Stop",
            _ => "Interim-Update",
        };
        let class = class.map_or(String::new(), |class| format!("Class = 0x{}\n", lastmile::vocabulary::hex(class)));
        let attributes = format!(
            "User-Name = \"{user}@acme\"\nAcct-Session-Id = \"{user}-{session}\"\nAcct-Status-Type = {kind}\n\
             NAS-Identifier = \"bng1\"\nEvent-Timestamp = {}\nAcct-Session-Time = {seconds}\nAcct-Input-Octets = {}\n\
             Acct-Input-Gigawords = {}\nAcct-Output-Octets = {}\nAcct-Output-Gigawords = {}\n{class}",
            at.as_second(),
            up & 0xffff_ffff,
            up >> 32,
            down & 0xffff_ffff,
            down >> 32,
        );
        let said = radclient_raw(site.radius_port, "acct", NAS_SECRET, &attributes);
        assert!(said.contains("Received Accounting-Response"), "{said}");
    }
}

fn folded(site: &Site, sessions: usize) {
    wait_for("the sessions are folded", SOON, || {
        let list = site.json(&["session", "list"]);
        let list = list.as_array().expect("sessions");
        let over = list.iter().filter(|session| session["state"] == "stopped").count();
        (over == sessions).then_some(())
    });
}

fn internet(id: &str, plan: &str, from: Date) -> Value {
    json!({"id": id, "type": "internet", "plan": plan, "billing_from": from,
           "radius": {"username": format!("{id}@acme"), "password": "pw"}})
}

fn put(daemon: &Daemon, key: &str, name: &str, account: &Value) {
    let pushed = daemon.api(key, "PUT", &format!("acme/accounts/{name}"), Some(account));
    assert_eq!(pushed.status, 201, "{}", pushed.body);
}

fn run(site: &Site, period: Date) -> Vec<Value> {
    let closed = site.json(&["bill", "run", "--tenant", "acme", "--cycle", "c15", "--period", &period.to_string()]);
    closed["lines"].as_array().expect("lines").clone()
}

/// The lines of an account's charge.
fn of<'l>(lines: &'l [Value], account: &str, charge: &str) -> Vec<&'l Value> {
    let found: Vec<&Value> =
        lines.iter().filter(|line| line["account"] == account && line["charge"] == charge).collect();
    assert!(!found.is_empty(), "{account} {charge}: {lines:#?}");
    found
}

/// A pack of the line verifies to the line's amount; with any of the plants it does not, and says why.
fn verified(site: &Site, line: &Value, plants: impl Fn(&Path) -> Vec<Plant>) {
    let id = line["id"].as_str().expect("an id");
    let pack = site.path(&format!("pack-{id}-{}", std::process::id()));
    let explained = site.json(&["line", "explain", id, "--pack", &pack.display().to_string()]);
    assert_eq!(explained["differences"], json!([]), "{explained:#}");
    let (code, said) = verify(&pack);
    assert_eq!(code, Some(0), "{line:#}\n{said}");
    let holds = format!("The line of {} {} holds.", line["amount"].as_str().expect("an amount"), "USD");
    assert!(said.contains(&holds), "{holds}\n{said}");
    for Plant { file, change, says } in plants(&pack) {
        let path = pack.join(file);
        let whole = std::fs::read_to_string(&path).expect("a file of the pack");
        let changed = change(&whole);
        assert_ne!(changed, whole, "{file}");
        std::fs::write(&path, changed).expect("a file of the pack");
        let (code, said) = verify(&pack);
        assert!(code == Some(1) && said.contains(file), "{file} is changed:\n{said}");
        forge(&pack);
        let (code, said) = verify(&pack);
        if says == "HOLDS ANYWAY" {
            // What no computation needs may say what it likes: the manifest alone guards it.
            assert_eq!(code, Some(0), "{said}");
        } else {
            let reason = said.lines().find(|line| line.starts_with("DOES NOT HOLD")).unwrap_or_default();
            assert_eq!(code, Some(1), "{file}, {says}:\n{said}");
            assert!(reason.contains(says) && !reason.is_empty(), "{file}, {says}:\n{said}");
        }
        std::fs::write(&path, whole).expect("a file of the pack");
        forge(&pack);
    }
    assert_eq!(verify(&pack).0, Some(0), "whole again");
    std::fs::remove_dir_all(&pack).expect("the pack goes");
}

/// Replaces `from` where it stands first after `anchor`.
fn later(file: &'static str, anchor: &str, from: &'static str, to: &'static str, says: &'static str) -> Plant {
    let anchor = anchor.to_owned();
    let change = move |text: &str| {
        let (head, tail) = text.split_at(text.find(&anchor).unwrap_or_else(|| panic!("{anchor} is not in {text}")));
        assert!(tail.contains(from), "{from} is not behind {anchor} in {file}");
        format!("{head}{}", tail.replacen(from, to, 1))
    };
    Plant { file, change: Box::new(change), says }
}

fn text<'v>(row: &'v Value, field: &str) -> &'v str {
    row[field].as_str().expect("a text")
}

/// One more in a number of the last record.
fn jsonl(pack: &Path, field: &'static str, says: &'static str) -> Plant {
    let whole = std::fs::read_to_string(pack.join("records.jsonl")).expect("records");
    assert!(whole.lines().count() > 4);
    let change = move |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let last = lines.last_mut().expect("a record");
        let mut record: Value = serde_json::from_str(last).expect("JSON");
        record[field] = json!(record[field].as_u64().expect("a number") + 1);
        *last = record.to_string();
        lines.join("\n") + "\n"
    };
    Plant { file: "records.jsonl", change: Box::new(change), says }
}

/// Makes the manifest fit the files as they are, as whoever changes a file would.
fn forge(pack: &Path) {
    let manifest: PathBuf = pack.join("manifest.sha256");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
    let output = Command::new("sha256sum").args(&names).current_dir(pack).output().expect("sha256sum runs");
    std::fs::write(manifest, output.stdout).expect("a manifest");
}

fn verify(pack: &Path) -> (Option<i32>, String) {
    let output = Command::new("python3").args(["-B", "verify.py"]).current_dir(pack).output().expect("python3 runs");
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}
