//! What the demo does, derived from its seed: the catalog, two subscribers, what their NAS will count, and — computed
//! here, apart from the program's own rating — what the invoice lines must say to the cent.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

/// The tenant everything belongs to.
pub const TENANT: &str = "acme";
/// Its bill cycle.
pub const CYCLE: &str = "c15";
/// First day of the period that is closed; 31 days with a change of the clocks in it.
pub const PERIOD_START: &str = "2026-10-15";
/// The same edge as an instant in America/Chicago (still summer time).
const START: &str = "2026-10-15T05:00:00Z";
/// The end of the period, midnight in Chicago (winter time).
const END: &str = "2026-11-15T06:00:00Z";
const DAYS: i64 = 31;
const DAY_SECONDS: i64 = 86_400;

/// Last report of the crossing session before the period's end, seconds before it.
const BEFORE_END_SECONDS: i64 = 25 * 60;
/// Its next report, seconds after the end.
const AFTER_END_SECONDS: i64 = 35 * 60;

/// Everything of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Scenario {
    pub seed: u64,
    pub access_cents: i64,
    pub allowance_gb: u64,
    /// Thousandths of a dollar for a GB, below and above `tier_gb` beyond the allowance.
    pub tier_mills: [i64; 2],
    pub tier_gb: u64,
    pub tax_hundredths_of_percent: i64,
    pub household: Subscriber,
    pub heavy: Subscriber,
    /// Days of the period the household is billed for.
    pub household_days: i64,
}

/// One account.
#[derive(Debug, Clone, Serialize)]
pub struct Subscriber {
    pub account: String,
    pub username: String,
    pub mac: String,
    pub billing_from: String,
    pub sessions: Vec<Session>,
}

/// One session as the NAS reports it, in the order the reports are sent.
#[derive(Debug, Clone, Serialize)]
pub struct Session {
    pub id: String,
    pub user: String,
    pub address: Ipv4Addr,
    pub reports: Vec<Report>,
}

/// One Accounting-Request. Octets are the counters since the session's start.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub kind: ReportKind,
    pub at: Timestamp,
    pub session_seconds: u32,
    pub in_octets: u64,
    pub out_octets: u64,
    /// Sent again unchanged, as a NAS does that saw no answer.
    pub twice: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportKind {
    Start = 1,
    Stop = 2,
    Interim = 3,
}

/// One line the closed period must have.
#[derive(Debug, Clone, Serialize)]
pub struct ExpectedLine {
    pub account: String,
    pub service: String,
    pub charge: &'static str,
    /// First day of the line's own period: this one, or the next for what is paid in advance.
    pub period: &'static str,
    pub cents: i64,
    pub tax_cents: i64,
}

impl Scenario {
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix(seed);
        let household_days = random.between(5, 28) as i64;
        let day = end() - jiff::SignedDuration::from_hours(24 * household_days);
        // Far from midnight, so that the change of the clocks cannot move the day.
        let billing_from = (day + jiff::SignedDuration::from_hours(8)).to_string()[..10].to_owned();
        let household = subscriber(&mut random, "100234", "ada", &billing_from);
        let heavy = subscriber(&mut random, "100777", "bo", PERIOD_START);
        let mut scenario = Self {
            seed,
            access_cents: random.between(3_995, 7_995) as i64,
            allowance_gb: random.between(50, 150),
            tier_mills: [random.between(40, 60) as i64, random.between(10, 30) as i64],
            tier_gb: random.between(100, 200),
            tax_hundredths_of_percent: random.between(400, 1_000) as i64,
            household,
            heavy,
            household_days,
        };
        scenario.household.sessions = vec![whole_session(&mut random, &scenario.household, 1, 3, 2_000_000_000)];
        scenario.heavy.sessions = vec![
            whole_session(&mut random, &scenario.heavy, 1, 12, 60_000_000_000),
            crossing_session(&mut random, &scenario.heavy, 2),
        ];
        scenario
    }

    /// When the subscribers are pushed: before the crossing session's last report of the period.
    pub fn opening(&self) -> Timestamp {
        end() - jiff::SignedDuration::from_secs(BEFORE_END_SECONDS - 60)
    }

    /// The period that is closed.
    pub fn period(&self) -> (Timestamp, Timestamp) {
        (start(), end())
    }

    /// A moment after everything was sent and the grace is over.
    pub fn closing(&self) -> Timestamp {
        end() + jiff::SignedDuration::from_hours(8)
    }

    /// Just after the crossing session's report beyond the edge.
    pub fn after_edge(&self) -> Timestamp {
        end() + jiff::SignedDuration::from_secs(AFTER_END_SECONDS + 20 * 60)
    }

    /// Reports sent before the period's end and after it.
    pub fn is_after_edge(&self, report: &Report) -> bool {
        report.at >= end()
    }

    /// Octets of a subscriber that belong to the period: (in, out).
    pub fn period_octets(&self, subscriber: &Subscriber) -> (u64, u64) {
        let sum = subscriber.sessions.iter().map(octets_until_end);
        sum.fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// What the lines of this period must say.
    pub fn expected_lines(&self) -> Vec<ExpectedLine> {
        let (household, heavy) = (&self.household, &self.heavy);
        let partial = half_up(i128::from(self.access_cents * self.household_days), i128::from(DAYS));
        let mut lines = vec![
            self.line(household, "1", "access", PERIOD_START, partial),
            self.line(household, "1", "access", NEXT_START, self.access_cents),
            self.line(household, "1", "data", PERIOD_START, self.usage_cents(household)),
            self.line(household, "3", "mailbox", PERIOD_START, MAILBOX_CENTS),
            self.line(household, "3", "mailbox", NEXT_START, MAILBOX_CENTS),
            self.line(heavy, "1", "access", PERIOD_START, self.access_cents),
            self.line(heavy, "1", "access", NEXT_START, self.access_cents),
            self.line(heavy, "1", "data", PERIOD_START, self.usage_cents(heavy)),
        ];
        let voice = half_up(i128::from(VOICE_CENTS * self.household_days), i128::from(DAYS));
        lines.push(self.line(household, "2", "line", PERIOD_START, voice));
        lines
    }

    /// Octets, rounded up to whole MB, less the allowance, through two tiers.
    fn usage_cents(&self, subscriber: &Subscriber) -> i64 {
        let (up, down) = self.period_octets(subscriber);
        let megabytes =
            i128::from(up + down).div_euclid(1_000_000) + i128::from(!(up + down).is_multiple_of(1_000_000));
        let beyond = (megabytes - i128::from(self.allowance_gb) * 1_000).max(0);
        let first = beyond.min(i128::from(self.tier_gb) * 1_000);
        let mills_megabytes =
            first * i128::from(self.tier_mills[0]) + (beyond - first) * i128::from(self.tier_mills[1]);
        // Mills for a GB times MB: ten thousand to the cent.
        half_up(mills_megabytes, 10_000)
    }

    fn line(
        &self,
        of: &Subscriber,
        service: &str,
        charge: &'static str,
        period: &'static str,
        cents: i64,
    ) -> ExpectedLine {
        // Voice and mail are sold without the tax in this catalog.
        let taxed = service == "1";
        let tax = half_up(i128::from(cents) * i128::from(self.tax_hundredths_of_percent), 10_000);
        let service = format!("{}-{service}", of.account);
        ExpectedLine {
            account: of.account.clone(),
            service,
            charge,
            period,
            cents,
            tax_cents: if taxed { tax } else { 0 },
        }
    }

    /// The catalog of this run.
    pub fn catalog(&self) -> String {
        CATALOG
            .replace("@ACCESS@", &decimal(self.access_cents, 2))
            .replace("@ALLOWANCE@", &self.allowance_gb.to_string())
            .replace("@TIER@", &self.tier_gb.to_string())
            .replace("@FIRST@", &decimal(self.tier_mills[0], 3))
            .replace("@SECOND@", &decimal(self.tier_mills[1], 3))
            .replace("@TAX@", &decimal(self.tax_hundredths_of_percent, 2))
    }

    /// Internet, voice and a mailbox behind one gateway.
    pub fn household_document(&self) -> Value {
        let of = &self.household;
        let id = |service: u8| format!("{}-{service}", of.account);
        json!({
            "source_revision": 1, "status": "active", "bill_cycle": CYCLE, "name": "Ada Lovelace",
            "devices": [{"id": "gw1", "cm_mac": of.mac, "mta_mac": self.mta_mac(), "model": "demo-gateway"}],
            "services": [
                {"id": id(1), "type": "internet", "plan": "res-100", "device": "gw1", "billing_from": of.billing_from,
                 "radius": {"username": of.username, "password": self.password("radius")}},
                {"id": id(2), "type": "voice", "plan": "voice-basic", "device": "gw1", "billing_from": of.billing_from,
                 "service_address": {"line1": "1 Main St", "city": "Austin", "region": "TX", "postal_code": "78701", "country": "US"},
                 "lines": [{"port": 1, "number": "+15125550100", "enabled": true,
                            "sip": {"user": "ada", "password": self.password("sip"), "display_name": "Ada"}}]},
                {"id": id(3), "type": "email", "plan": "mail-5g", "billing_from": of.billing_from,
                 "mailbox": {"address": self.mailbox(), "password": self.password("mail"), "quota_mb": 5120,
                             "aliases": [], "forward_to": []}}
            ]
        })
    }

    /// Internet only, by RADIUS and a modem.
    pub fn heavy_document(&self) -> Value {
        let of = &self.heavy;
        json!({
            "source_revision": 1, "status": "active", "bill_cycle": CYCLE,
            "devices": [{"id": "cm", "cm_mac": of.mac}],
            "services": [
                {"id": format!("{}-1", of.account), "type": "internet", "plan": "res-100", "device": "cm",
                 "billing_from": of.billing_from,
                 "radius": {"username": of.username, "password": self.password("bo")}}
            ]
        })
    }

    pub fn mailbox(&self) -> String {
        "ada@acme.example".to_owned()
    }

    /// A password of this run.
    pub fn password(&self, of: &str) -> String {
        format!("{of}-{:016x}", SplitMix(self.seed ^ of.len() as u64).next())
    }

    pub fn mta_mac(&self) -> String {
        let mut random = SplitMix(self.seed.wrapping_add(1));
        mac(&mut random)
    }
}

/// Counter of the session at the period's end, by the share of time of the report that crosses it.
fn octets_until_end(session: &Session) -> (u64, u64) {
    let end = end();
    let mut sorted: Vec<&Report> = session.reports.iter().collect();
    sorted.sort_by_key(|report| report.at);
    let Some(before) = sorted.iter().rev().find(|report| report.at < end) else { return (0, 0) };
    let Some(after) = sorted.iter().find(|report| report.at >= end) else {
        return (before.in_octets, before.out_octets);
    };
    let part = (end.as_microsecond() - before.at.as_microsecond()) as u128;
    let whole = (after.at.as_microsecond() - before.at.as_microsecond()) as u128;
    let share = |from: u64, to: u64| from + (u128::from(to - from) * part / whole) as u64;
    (share(before.in_octets, after.in_octets), share(before.out_octets, after.out_octets))
}

fn subscriber(random: &mut SplitMix, account: &str, user: &str, billing_from: &str) -> Subscriber {
    Subscriber {
        account: account.to_owned(),
        username: format!("{user}@acme"),
        mac: mac(random),
        billing_from: billing_from.to_owned(),
        sessions: Vec::new(),
    }
}

/// A session inside the period. Reports come out of order once, and one comes twice.
fn whole_session(random: &mut SplitMix, of: &Subscriber, number: u8, interims: u64, most_octets: u64) -> Session {
    let start = start() + jiff::SignedDuration::from_secs(random.between(3_600, 5 * DAY_SECONDS as u64) as i64);
    let step = 18 * 3_600;
    let mut reports = vec![report(ReportKind::Start, start, 0, (0, 0))];
    let mut octets = (0u64, 0u64);
    for number in 1..=interims + 1 {
        octets.0 += random.between(1, most_octets / 10);
        octets.1 += random.between(most_octets / 2, most_octets);
        let kind = if number > interims { ReportKind::Stop } else { ReportKind::Interim };
        let seconds = i64::try_from(number).unwrap_or_default() * step;
        reports.push(report(kind, start + jiff::SignedDuration::from_secs(seconds), seconds, octets));
    }
    // A late packet on the way, and a retransmission.
    reports.swap(1, 2);
    reports[2].twice = true;
    session(random, of, number, reports)
}

/// A session that is still open when the period ends.
fn crossing_session(random: &mut SplitMix, of: &Subscriber, number: u8) -> Session {
    let start = end() - jiff::SignedDuration::from_hours(30);
    let mut octets = (0u64, 0u64);
    let mut reports = vec![report(ReportKind::Start, start, 0, octets)];
    for (kind, from_end, twice) in [
        (ReportKind::Interim, -3 * 3_600, false),
        (ReportKind::Interim, -BEFORE_END_SECONDS, true),
        (ReportKind::Interim, AFTER_END_SECONDS, false),
        (ReportKind::Stop, AFTER_END_SECONDS + 15 * 60, false),
    ] {
        octets.0 += random.between(1_000_000, 900_000_000);
        octets.1 += random.between(4_000_000_000, 9_000_000_000);
        let at = end() + jiff::SignedDuration::from_secs(from_end);
        let seconds = at.as_second() - start.as_second();
        reports.push(Report { twice, ..report(kind, at, seconds, octets) });
    }
    session(random, of, number, reports)
}

fn session(random: &mut SplitMix, of: &Subscriber, number: u8, reports: Vec<Report>) -> Session {
    Session {
        id: format!("{:08x}-{number}", random.next() as u32),
        user: of.username.clone(),
        address: Ipv4Addr::new(100, 64, random.between(0, 255) as u8, random.between(1, 254) as u8),
        reports,
    }
}

fn report(kind: ReportKind, at: Timestamp, seconds: i64, (in_octets, out_octets): (u64, u64)) -> Report {
    let session_seconds = u32::try_from(seconds).expect("a session of the demo lasts days, not a century");
    Report { kind, at, session_seconds, in_octets, out_octets, twice: false }
}

/// A locally administered address.
fn mac(random: &mut SplitMix) -> String {
    let octets = random.next().to_be_bytes();
    format!("02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", octets[0], octets[1], octets[2], octets[3], octets[4])
}

/// `value` in units of 10^-places, written out.
fn decimal(value: i64, places: usize) -> String {
    let digits = format!("{value:0width$}", width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    format!("{whole}.{fraction}")
}

/// Half away from zero, for amounts that are not negative.
fn half_up(numerator: i128, denominator: i128) -> i64 {
    i64::try_from((2 * numerator + denominator).div_euclid(2 * denominator)).expect("an amount of the demo fits")
}

fn start() -> Timestamp {
    START.parse().expect("a constant instant")
}

fn end() -> Timestamp {
    END.parse().expect("a constant instant")
}

/// Steele, Lea, Flood: the same numbers for the same seed on every machine.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }
}

const NEXT_START: &str = "2026-11-15";
const VOICE_CENTS: i64 = 1_500;
const MAILBOX_CENTS: i64 = 200;
const CATALOG: &str = include_str!("catalog.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_scenario() {
        let [a, b, c] = [Scenario::new(7), Scenario::new(7), Scenario::new(8)].map(|scenario| format!("{scenario:?}"));
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn reports_lie_where_the_story_needs_them() {
        for seed in 0..200 {
            let scenario = Scenario::new(seed);
            for session in scenario.household.sessions.iter().chain(&scenario.heavy.sessions) {
                for report in &session.reports {
                    assert!(report.at >= start() && report.at < scenario.after_edge(), "seed {seed}: {report:?}");
                }
            }
            let crossing = &scenario.heavy.sessions[1];
            assert_eq!(crossing.reports.iter().filter(|report| scenario.is_after_edge(report)).count(), 2);
            let before = crossing.reports.iter().filter(|report| !scenario.is_after_edge(report));
            assert!(before.map(|report| report.at).max() < Some(scenario.opening()), "seed {seed}");
            assert!(scenario.usage_cents(&scenario.heavy) > 0, "seed {seed}");
        }
    }

    #[test]
    fn amounts_are_written_out() {
        assert_eq!([decimal(4995, 2), decimal(5, 3), decimal(825, 2)], ["49.95", "0.005", "8.25"]);
        assert_eq!([half_up(5, 10), half_up(4, 10), half_up(15, 10)], [1, 0, 2]);
    }
}
