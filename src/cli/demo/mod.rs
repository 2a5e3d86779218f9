//! `demo`: the main job in one go, on loopback and a temporary SQLite database, everything in this process.
//!
//! The daemon is the real one with a clock that can be moved; the billing system, the modem and the NAS are small peers
//! that speak HTTP, TFTP and RADIUS to its sockets. What the invoice must say is computed from the seed apart from the
//! program's own rating (`scenario`), and compared to the cent.

mod checks;
mod inside;
mod peers;
mod scenario;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::daemon::Daemon;
use crate::daemon::config::Config;
use crate::docsis;
use crate::vocabulary::{Clock, Secret, Timestamp, to_micros};
use checks::Checks;
use peers::{Answer, Nas};
use scenario::{CYCLE, ExpectedLine, PERIOD_START, Scenario, Subscriber, TENANT};

/// Runs every step; exit 0 only if every check held.
pub async fn run(seed: u64, context: &Context) -> Result<Exit, CliError> {
    let scenario = Scenario::new(seed);
    let folder = TemporaryFolder::new(seed)?;
    let mut checks = Checks::new(context.json);
    checks.say(&format!("Lastmile demo, seed {seed}: MACs, octets and prices derive from it."));
    let lines = journey(&scenario, folder.path(), context.clock(), &mut checks).await?;
    let wrong = checks.wrong();
    if context.json {
        let expected = scenario.expected_lines();
        context.print_json(&json!({
            "seed": seed, "ok": wrong == 0, "inputs": scenario, "expected_lines": expected, "lines": lines,
            "checks": checks.list,
        }))?;
    } else {
        checks.say(&format!("\n{} checks, {wrong} wrong.", checks.list.len()));
    }
    Ok(if wrong == 0 { Exit::Done } else { Exit::Failed })
}

async fn journey(
    scenario: &Scenario,
    folder: &Path,
    clock: Clock,
    checks: &mut Checks,
) -> Result<Vec<Value>, CliError> {
    let config = configuration(folder)?;
    set(&clock, scenario.opening());
    let daemon = Daemon::start(&config, clock.clone()).await?;
    let lines = steps(scenario, &config, &daemon, &clock, checks).await;
    daemon.stop().await;
    lines
}

async fn steps(
    scenario: &Scenario,
    config: &Config,
    daemon: &Daemon,
    clock: &Clock,
    checks: &mut Checks,
) -> Result<Vec<Value>, CliError> {
    checks.step("The daemon runs");
    checks.say(&format!("   {}", daemon.addresses));
    let ready = api(daemon, "", "GET", "/readyz", None).await?;
    checks.equal("a commit would succeed now (/readyz)", 200, ready.status);
    checks.say(&format!("   Its clock is set to {}.", clock.now()));

    checks.step("The catalog of tenant acme is applied, and a key made for its billing system");
    inside::apply_catalog(daemon, &scenario.catalog()).await?;
    let key = inside::make_key(daemon, TENANT).await?;
    push(scenario, daemon, &key, checks).await?;
    provision(scenario, config, daemon, &key, checks).await?;
    account(scenario, daemon, clock, checks).await?;
    bill(scenario, daemon, clock, checks).await
}

/// Accounts come in over HTTP, once, again, and once with faults.
async fn push(scenario: &Scenario, daemon: &Daemon, key: &str, checks: &mut Checks) -> Result<(), CliError> {
    checks.step("The billing system pushes two accounts over HTTP");
    let mut tags = Vec::new();
    for (of, document) in
        [(&scenario.household, scenario.household_document()), (&scenario.heavy, scenario.heavy_document())]
    {
        let answer = api(daemon, key, "PUT", &account_path(of), Some(&document)).await?;
        checks.equal(&format!("PUT of account {}", of.account), 201, answer.status);
        if answer.status >= 400 {
            checks.say(&format!("   {}", answer.body));
        }
        tags.push(answer.etag);
    }
    let again =
        api(daemon, key, "PUT", &account_path(&scenario.household), Some(&scenario.household_document())).await?;
    checks.equal("the same document again", 200, again.status);
    checks.equal("its ETag has not changed", tags[0].clone().unwrap_or_default(), again.etag.unwrap_or_default());
    let mut faulty = scenario.heavy_document();
    faulty["bill_cycle"] = json!("c99");
    faulty["services"][0]["plan"] = json!("no-such-plan");
    faulty["colour"] = json!("red");
    let refused = api(daemon, key, "PUT", "/v1/tenants/acme/accounts/999", Some(&faulty)).await?;
    checks.equal("a document with three faults is refused", 422, refused.status);
    checks.equal("every fault is named", 3, refused.body["errors"].as_array().map_or(0, Vec::len));
    let other = api(daemon, key, "GET", "/v1/tenants/other/accounts/1", None).await?;
    checks.equal("another tenant's account is like absent", 404, other.status);
    Ok(())
}

/// The modem fetches its file; mailbox and AAA user stand in their tables.
async fn provision(
    scenario: &Scenario,
    config: &Config,
    daemon: &Daemon,
    key: &str,
    checks: &mut Checks,
) -> Result<(), CliError> {
    checks.step("The household's gateway boots and fetches its configuration file by TFTP");
    let offered = |mac: String| async move {
        let devices = api(daemon, key, "GET", "/v1/tenants/acme/devices", None).await.ok()?;
        let devices = devices.body["items"].as_array()?.clone();
        let device = devices.into_iter().find(|device| device["mac"] == json!(mac))?;
        device["config_file"].as_str().map(str::to_owned)
    };
    let name = wait("the modem's file is offered", || offered(scenario.household.mac.clone())).await?;
    let server = daemon.addresses.tftp.ok_or_else(|| CliError::failed("the demo has no TFTP server"))?;
    let file = peers::tftp(server, &name).await?;
    checks.say(&format!("   {name}: {} octets", file.len()));
    let verified = docsis::verify(&file, &Secret::new(CMTS_SECRET));
    checks.holds("CM MIC and CMTS MIC verify", verified.is_ok(), describe(verified));
    let wrong = docsis::verify(&file, &Secret::new("another secret"));
    checks.holds("with another shared secret they do not", wrong.is_err(), "refused");
    let name = wait("the MTA's file is offered", || offered(scenario.mta_mac())).await?;
    let of_mta = peers::tftp(server, &name).await?;
    checks.say(&format!("   {name}: {} octets", of_mta.len()));
    let verified = docsis::verify_mta(&of_mta, Some(docsis::HashFamily::Na));
    checks.holds("the hash in the MTA's file verifies", verified.is_ok(), describe(verified));
    let unknown = peers::tftp(server, "unprovisioned.cm").await?;
    checks.holds("a modem nobody knows gets a file of its own", unknown != file, format!("{} octets", unknown.len()));
    let stranger = peers::tftp(server, "../lastmile.toml").await;
    checks.holds(
        "nothing else is served",
        stranger.is_err(),
        stranger.err().map_or_else(String::new, |e| e.to_string()),
    );

    checks.step("Everything of the household is provisioned");
    let path = account_path(&scenario.household);
    let states = wait("every service is applied", || async {
        let body = api(daemon, key, "GET", &path, None).await.ok()?.body;
        let services = body["services"].as_array()?;
        let states: Vec<String> = services
            .iter()
            .map(|service| {
                format!(
                    "{} {}",
                    service["id"].as_str().unwrap_or("?"),
                    service["provisioning"]["state"].as_str().unwrap_or("?")
                )
            })
            .collect();
        states.iter().all(|state| state.ends_with(" applied")).then_some(states)
    })
    .await;
    match states {
        Ok(states) => checks.holds("state of the services", true, states.join(", ")),
        Err(error) => checks.holds("state of the services", false, error.message),
    }
    inside::check_mailbox(config, &scenario.mailbox(), &scenario.password("mail"), checks).await?;
    inside::check_aaa(config, &scenario.household.username, &scenario.password("radius"), checks).await
}

/// A NAS reports sessions, across the edge of the period.
async fn account(scenario: &Scenario, daemon: &Daemon, clock: &Clock, checks: &mut Checks) -> Result<(), CliError> {
    checks.step(
        "A NAS sends signed RADIUS accounting: gigawords, a late packet, retransmissions, a change of the clocks",
    );
    let server = *daemon.addresses.accounting.first().ok_or_else(|| CliError::failed("the demo has no RADIUS port"))?;
    let mut nas = Nas::connect(server, NAS_SECRET).await?;
    let sessions = || scenario.household.sessions.iter().chain(&scenario.heavy.sessions);
    let before = sessions().flat_map(|session| session.reports.iter().map(move |report| (session, report)));
    let (after, before): (Vec<_>, Vec<_>) = before.partition(|(_, report)| scenario.is_after_edge(report));
    let mut sent = 0u64;
    let mut answered = 0u64;
    for (session, report) in before {
        answered += u64::from(nas.send(session, report).await?);
        sent += 1;
    }
    checks.equal("reports answered, each with a genuine authenticator", sent, answered);
    let mut liar = Nas::connect(server, "not-the-secret").await?;
    let first = &scenario.heavy.sessions[0];
    checks.equal(
        "a report signed with a wrong secret gets an answer",
        false,
        liar.send(first, &first.reports[0]).await?,
    );

    checks.step("The period ends; the open session goes on and stops");
    set(clock, scenario.after_edge());
    checks.say(&format!("   The clock is moved to {}.", clock.now()));
    let (mut sent, mut answered) = (0u64, 0u64);
    for (session, report) in after {
        answered += u64::from(nas.send(session, report).await?);
        sent += 1;
    }
    checks.equal("reports answered", sent, answered);
    let metrics = &daemon.ground.metrics;
    let folded = wait("the fold has caught up", || async {
        let (folded, journalled) = (metrics.fold_records.get(), metrics.journal_records.get());
        (folded >= journalled).then_some(folded)
    })
    .await?;
    checks.holds("what is acknowledged is folded", folded > 0, format!("{folded} records"));
    Ok(())
}

/// The period is closed; its lines are what the seed says, and a second run finds nothing more to bill.
async fn bill(
    scenario: &Scenario,
    daemon: &Daemon,
    clock: &Clock,
    checks: &mut Checks,
) -> Result<Vec<Value>, CliError> {
    checks.step("The bill cycle closes its period");
    set(clock, scenario.closing());
    checks.say(&format!("   The clock is moved to {}.", clock.now()));
    let lines = inside::close_period(daemon, TENANT, CYCLE, PERIOD_START).await?;
    for subscriber in [&scenario.household, &scenario.heavy] {
        let (up, down) = scenario.period_octets(subscriber);
        let found = inside::ledger_octets(daemon, TENANT, &subscriber.account, scenario.period()).await?;
        let text = |(up, down): (u64, u64)| format!("{up} up, {down} down");
        checks.equal(&format!("octets of account {} in the period", subscriber.account), text((up, down)), text(found));
    }
    let expected = scenario.expected_lines();
    for want in &expected {
        let found = lines.iter().find(|line| is_line(line, want));
        let amount = found.and_then(|line| cents(&line["amount"]));
        // A charge that comes to nothing may have no line.
        let amount = if want.cents == 0 { amount.or(Some(0)) } else { amount };
        let what = format!("{} {} of {}", want.service, want.charge, want.period);
        checks.equal(&what, dollars(want.cents), amount.map_or_else(|| "no line".to_owned(), dollars));
        let tax: i64 = found.map_or(0, tax_cents);
        checks.equal(&format!("{what}, its tax"), dollars(want.tax_cents), dollars(tax));
    }
    let surprising = lines
        .iter()
        .filter(|line| cents(&line["amount"]) != Some(0) && !expected.iter().any(|want| is_line(line, want)));
    checks.equal("lines nobody expected", 0, surprising.count());
    let again = inside::close_period(daemon, TENANT, CYCLE, PERIOD_START).await?;
    checks.equal("lines of a second run", 0, again.len());

    checks.step("A line explains itself");
    let usage = lines.iter().filter(|line| line["charge"] == json!("data"));
    let dearest = usage.max_by_key(|line| cents(&line["amount"])).ok_or_else(|| CliError::failed("no usage line"))?;
    let id = dearest["id"].as_str().unwrap_or_default();
    let explained = inside::explain(daemon, id).await?;
    checks.say(&indented(&crate::cli::line::text(&explained)));
    checks.holds("computed again from its ledger entries it is the same", explained.differences.is_empty(), id);
    Ok(lines)
}

/// Whether a line is the expected one: account's service, charge, and which of the two periods it is for.
fn is_line(line: &Value, want: &ExpectedLine) -> bool {
    let start = line["period"]["start"].as_str().unwrap_or_default();
    let next = start.get(..10).is_some_and(|day| day >= NEXT_PERIOD);
    line["service"] == json!(want.service)
        && line["charge"] == json!(want.charge)
        && next == (want.period >= NEXT_PERIOD)
}

fn tax_cents(line: &Value) -> i64 {
    line["tax"].as_array().map_or(0, |taxes| taxes.iter().filter_map(|tax| cents(&tax["amount"])).sum())
}

/// An amount in its decimal text, in cents.
fn cents(amount: &Value) -> Option<i64> {
    let text = amount.as_str()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "00"));
    format!("{whole}{fraction:0<2}").parse().ok().filter(|_| fraction.len() <= 2)
}

fn dollars(cents: i64) -> String {
    format!("{}{}.{:02} USD", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
}

fn describe(verified: Result<(), Vec<crate::vocabulary::Fault>>) -> String {
    match verified {
        Ok(()) => "both right".to_owned(),
        Err(faults) => faults.into_iter().map(|fault| fault.detail).collect::<Vec<_>>().join("; "),
    }
}

/// Head and tail of a text: what a line was made from, and what came out.
fn indented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let hidden = lines.len().saturating_sub(SHOWN_AT_HEAD + SHOWN_AT_TAIL);
    let mut all = String::new();
    for (number, line) in lines.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = match number.checked_sub(SHOWN_AT_HEAD) {
            Some(0) if hidden > 0 => writeln!(all, "   |   … {hidden} more lines like these …"),
            Some(after) if after < hidden => Ok(()),
            _ => writeln!(all, "   | {line}"),
        };
    }
    all.trim_end().to_owned()
}

fn account_path(of: &Subscriber) -> String {
    format!("/v1/tenants/{TENANT}/accounts/{}", of.account)
}

async fn api(daemon: &Daemon, key: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, CliError> {
    Ok(peers::http(daemon.addresses.api, key, method, path, body).await?)
}

/// Moves the daemon's clock, forward only.
fn set(clock: &Clock, at: Timestamp) {
    clock.advance_micros(to_micros(at) - to_micros(clock.now()));
}

/// Asks again until there is an answer.
async fn wait<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> Result<T, CliError> {
    for _ in 0..ASKED_AT_MOST {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Err(CliError::failed(format!("{what}: not within {:?}", ASK_EVERY * ASKED_AT_MOST)))
}

/// The configuration file of the demo, read like any other.
fn configuration(folder: &Path) -> Result<Config, CliError> {
    let path = folder.join("lastmile.toml");
    let text = CONFIGURATION.replace("@FOLDER@", &folder.display().to_string());
    std::fs::write(&path, text)?;
    Ok(Config::load(&path)?.config)
}

/// A folder of this process, removed with everything in it.
struct TemporaryFolder(std::path::PathBuf);

impl TemporaryFolder {
    fn new(seed: u64) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("lastmile-demo-{}-{seed}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SHOWN_AT_HEAD: usize = 12;
const SHOWN_AT_TAIL: usize = 14;
const NEXT_PERIOD: &str = "2026-11-15";
const NAS_SECRET: &str = "demo-nas-secret";
const CMTS_SECRET: &str = "demo-cmts-secret";
const ASK_EVERY: Duration = Duration::from_millis(50);
const ASKED_AT_MOST: u32 = 600;
const CONFIGURATION: &str = r#"
[database]
url = "sqlite://@FOLDER@/lastmile.db"
[api]
listen = "127.0.0.1:0"
[radius]
accounting = ["127.0.0.1:0"]
[[radius.nas]]
name = "demo"
address = "127.0.0.0/8"
secret = "demo-nas-secret"
identity = "nas-identifier"
[tftp]
listen = "127.0.0.1:0"
[docsis]
shared_secret = "demo-cmts-secret"
[mail]
driver = "postfixadmin"
url = "sqlite://@FOLDER@/mail.db"
[aaa]
driver = "freeradius-sql"
url = "sqlite://@FOLDER@/aaa.db"
"#;
