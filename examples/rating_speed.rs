//! How fast usage becomes priced lines, in memory: `rating_speed [--rows N] [--accounts N] [--write FILE]`.
//!
//! Makes usage of accounts whose bill cycles begin on days 1 to 28, over 90 days, and writes it for a peer. For each line
//! it reads on standard input it rates all of it on one thread (account keys hashed, each row placed in its account's
//! period, four graduated tiers, one rounding), checks nothing and prints the CPU and wall seconds, lines, total in cents
//! and sum of each tier as JSON. `price` instead times the pricing function alone. `bench/rating.py` drives it.

use std::collections::HashMap;
use std::io::{BufRead, BufWriter, Write};
use std::time::Instant;

use foldhash::fast::RandomState;
use lastmile::billing::calendar::{BillCycle, Every};
use lastmile::billing::price::{Measure, PricedTier, price};
use lastmile::billing::tariff::{ChargeKind, Tariff};
use lastmile::vocabulary::{Exact, Money, Zone, from_micros, to_micros};

/// As the daemon allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TARIFF: &str = r#"
id = "res"
version = 1
currency = "USD"
effective_from = "2020-01-01"
[[charge]]
id = "data"
type = "usage"
meter = "octets"
direction = "sum"
unit = "GB"
model = "graduated"
tiers = [{ up_to = "50", unit_amount = "0" }, { up_to = "200", unit_amount = "0.05" }, { up_to = "500", unit_amount = "0.03" }, { unit_amount = "0.02" }]
"#;
/// 2026-01-01T00:00:00Z.
const FIRST: i64 = 1_767_225_600_000_000;
const DAY: i64 = 86_400_000_000;
const DAYS: i64 = 90;
/// A month's use is some hundred GB in some dozens of rows.
const MOST_OCTETS: u64 = 16_000_000_000;

struct Usage {
    accounts: Vec<Account>,
    rows: Vec<Row>,
}

struct Account {
    key: u64,
    anchor_day: u8,
}

struct Row {
    account: u64,
    at: i64,
    octets: i64,
}

struct Line {
    #[expect(dead_code, reason = "a line says whose it is")]
    account: u64,
    #[expect(dead_code, reason = "a line says of when it is")]
    period_start: i64,
    amount: Money,
    tiers: Vec<PricedTier>,
}

fn main() {
    let (mut rows, mut accounts, mut file) = (10_000_000, 100_000, None);
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match name.as_str() {
            "--rows" => rows = value.parse().expect("a number of rows"),
            "--accounts" => accounts = value.parse().expect("a number of accounts"),
            "--write" => file = Some(value),
            _ => panic!("unknown option {name}"),
        }
    }
    let usage = Usage::made(rows, accounts);
    if let Some(file) = file {
        usage.write(&file).expect("the file can be written");
    }
    println!("ready");
    for asked in std::io::stdin().lock().lines() {
        match asked.expect("a line").as_str() {
            "price" => println!("{}", price_alone(&usage)),
            _ => println!("{}", rate_all(&usage)),
        }
    }
}

impl Usage {
    fn made(rows: u64, accounts: u64) -> Self {
        let account = |number: u64| Account { key: mixed(number) >> 1, anchor_day: 1 + (number % 28) as u8 };
        let accounts: Vec<Account> = (0..accounts).map(account).collect();
        let row = |number: u64| {
            let drawn = mixed(number ^ 0x5eed_0000_0000_0000);
            Row {
                account: accounts[(drawn % accounts.len() as u64) as usize].key,
                // In the order in which a collector sees it.
                at: FIRST + (DAYS as i128 * DAY as i128 * number as i128 / rows as i128) as i64,
                octets: (mixed(drawn) % MOST_OCTETS) as i64,
            }
        };
        let rows = (0..rows).map(row).collect();
        Self { accounts, rows }
    }

    fn write(&self, file: &str) -> std::io::Result<()> {
        let mut accounts = BufWriter::new(std::fs::File::create(format!("{file}.accounts.csv"))?);
        for account in &self.accounts {
            writeln!(accounts, "{},{}", account.key, account.anchor_day)?;
        }
        let mut rows = BufWriter::new(std::fs::File::create(format!("{file}.usage.csv"))?);
        for row in &self.rows {
            writeln!(rows, "{},{},{}", row.account, row.at, row.octets)?;
        }
        accounts.flush()?;
        rows.flush()
    }
}

/// Hashes, places, sums and prices all rows.
fn rate_all(usage: &Usage) -> String {
    let tariff = tariff();
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let sums = sums(usage);
    let summed = cpu_seconds() - cpu;
    let mut lines = Vec::new();
    for (account, starts, octets) in &sums {
        for (place, octets) in octets.iter().enumerate().filter(|(_, octets)| **octets > 0) {
            let measure = Measure::whole(quantity(&tariff, *octets), 0);
            let priced = price(&tariff, &tariff.charges[0], &measure).expect("in range");
            let rounding = tariff.rounding;
            let amount =
                Money::round(priced.amount, tariff.currency, rounding.places, rounding.mode).expect("in range");
            lines.push(Line { account: *account, period_start: starts[place], amount, tiers: priced.tiers });
        }
    }
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let total: i64 = lines.iter().map(|line| line.amount.minor).sum();
    let tiers: Vec<String> = (0..4).map(|tier| format!("\"{}\"", sum_of_tier(&lines, tier))).collect();
    format!(
        "{{\"wall\": {wall}, \"cpu\": {cpu}, \"cpu_summing\": {summed}, \"lines\": {}, \"total\": {total}, \"tiers\": [{}]}}",
        lines.len(),
        tiers.join(", ")
    )
}

/// The octets of each account by the periods of its cycle, and where these begin.
fn sums(usage: &Usage) -> Vec<(u64, Vec<i64>, Vec<i64>)> {
    let until = from_micros(FIRST + DAYS * DAY).expect("in range");
    let starts: Vec<Vec<i64>> = (1..=28)
        .map(|anchor_day| {
            let cycle = cycle(anchor_day);
            let starts = cycle.starts(from_micros(FIRST).expect("in range"), until).expect("in range");
            starts.into_iter().map(to_micros).collect()
        })
        .collect();
    let mut places: HashMap<u64, u32, RandomState> =
        HashMap::with_capacity_and_hasher(usage.accounts.len(), RandomState::default());
    let mut sums: Vec<(u64, &Vec<i64>)> = Vec::with_capacity(usage.accounts.len());
    for account in &usage.accounts {
        places.insert(account.key, sums.len() as u32);
        sums.push((account.key, &starts[usize::from(account.anchor_day) - 1]));
    }
    let most = starts.iter().map(Vec::len).max().unwrap_or(0);
    let mut octets = vec![0i64; sums.len() * most];
    for row in &usage.rows {
        let place = places[&row.account] as usize;
        let period = sums[place].1.partition_point(|start| *start <= row.at) - 1;
        let sum = &mut octets[place * most + period];
        *sum = sum.checked_add(row.octets).expect("in range");
    }
    let of = |(index, (key, starts)): (usize, (u64, &Vec<i64>))| {
        (key, starts.clone(), octets[index * most..(index + 1) * most].to_vec())
    };
    sums.into_iter().enumerate().map(of).collect()
}

/// Times the pricing of every line by itself.
fn price_alone(usage: &Usage) -> String {
    let tariff = tariff();
    let sums = sums(usage);
    let used = sums.iter().flat_map(|(_, _, octets)| octets).filter(|octets| **octets > 0);
    let measures: Vec<Measure> = used.map(|octets| Measure::whole(quantity(&tariff, *octets), 0)).collect();
    let cpu = cpu_seconds();
    let mut tiers = 0;
    for _ in 0..TIMES {
        for measure in &measures {
            let priced = price(&tariff, &tariff.charges[0], measure).expect("in range");
            tiers += std::hint::black_box(priced).tiers.len();
        }
    }
    let cpu = cpu_seconds() - cpu;
    format!("{{\"cpu\": {cpu}, \"lines\": {}, \"tiers\": {tiers}}}", TIMES * measures.len())
}

const TIMES: usize = 10;

fn tariff() -> Tariff {
    Tariff::read("rating_speed.toml", TARIFF).expect("a sound tariff")
}

fn cycle(anchor_day: u8) -> BillCycle {
    let timezone = "UTC".to_owned();
    let zone = Zone::get(&timezone).expect("UTC is known");
    BillCycle { id: format!("c{anchor_day}"), anchor_day, every: Every::Month, zone, timezone }
}

fn quantity(tariff: &Tariff, octets: i64) -> Exact {
    let ChargeKind::Usage(usage) = &tariff.charges[0].kind else { unreachable!("the tariff meters usage") };
    Exact::ratio(i128::from(octets), i128::from(usage.unit_size())).expect("in range")
}

fn sum_of_tier(lines: &[Line], tier: usize) -> Exact {
    let amounts = lines.iter().filter_map(|line| line.tiers.get(tier)).map(|tier| tier.amount);
    amounts.fold(Exact::ZERO, |sum, amount| sum.checked_add(amount).expect("in range"))
}

/// CPU time of the only thread there is.
fn cpu_seconds() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    let nanoseconds = told.split(' ').next().and_then(|first| first.parse::<u64>().ok());
    nanoseconds.expect("a number") as f64 / 1e9
}

/// SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
