//! Puts a large accounting load through the journal, the fold and the keeper, in that order and as fast as they go, and
//! prints what a record costs: octets live, sealed and archived, processor time appended, folded and kept.
//!
//! The load is what subscribers of one size of network send: interims in turn, a new session now and then. No packet
//! goes over a socket here; `accounting_load` measures that. Time is the load's own: days pass in minutes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use lastmile::collector::fold::Fold;
use lastmile::collector::keeper::{Keeper, Keeping};
use lastmile::collector::{Feed, NasClient, NasTable};
use lastmile::radius::{IdentityRule, Profile, RequestBuilder, attribute};
use lastmile::store::journal::{self, JournalEntry};
use lastmile::store::{Store, StoreConfig, fold};
use lastmile::telemetry::{Heartbeats, Metrics};
use lastmile::vocabulary::{Clock, Secret, from_micros};
use sqlx::Connection;
use tokio::sync::watch;

/// Appends, folds, seals and archives records; prints what they cost as JSON.
#[derive(Parser)]
struct Options {
    /// A folder for the databases and archives; it must be empty.
    #[arg(long)]
    folder: PathBuf,
    /// `postgres://…` instead of SQLite in the folder.
    #[arg(long)]
    postgres: Option<String>,
    #[arg(long, default_value_t = 50_000_000)]
    records: u64,
    /// Of these so many go through the fold; behind them only the watermark moves.
    #[arg(long)]
    folded: Option<u64>,
    #[arg(long, default_value_t = 100_000)]
    subscribers: u64,
    /// Seconds between two reports of a session.
    #[arg(long, default_value_t = 600)]
    interval: u64,
    /// Reports of a session before the subscriber dials in anew.
    #[arg(long, default_value_t = 432)]
    reports: u64,
}

/// What one kind of work took.
#[derive(Default, Clone, Copy)]
struct Cost {
    processor_seconds: f64,
    seconds: f64,
}

#[derive(Default)]
struct Costs {
    make: Cost,
    append: Cost,
    fold: Cost,
    keep: Cost,
    folded: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("journal_volume: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(&options.folder)?;
    let url = options.postgres.clone();
    let url = url.unwrap_or_else(|| format!("sqlite://{}", options.folder.join("lastmile.db").display()));
    let key = options.folder.join("key");
    std::fs::write(&key, "0123456789abcdef".repeat(4))?;
    let config =
        StoreConfig { url: url.clone(), key_file: Some(key), previous_key_file: None, owner: "volume".to_owned() };
    let store = Store::open(&config).await?;
    store.migrate().await?;
    subscribe(&url, options.subscribers).await?;
    let clock = Clock::fixed(from_micros(BEGAN).ok_or("an instant")?);
    let archive = options.folder.join("archive");
    let keeper = Keeper {
        store: store.clone(),
        clock: clock.clone(),
        keeping: Keeping { keep_days: 400, archive: Some(archive.clone()) },
        metrics: Metrics::new(),
        beat: Heartbeats::new().register("keeper"),
    };
    let (_table, nas) = watch::channel(Arc::new(NasTable::new(vec![client()?])));
    let beat = Heartbeats::new().register("fold");
    let mut fold = Fold::new(store.clone(), clock.clone(), Feed::new().1, nas, Metrics::new(), beat);
    let mut writer = store.open_journal(clock.now()).await?;
    let to_fold = options.folded.unwrap_or(options.records);
    let (mut costs, mut done, mut live_octets, mut live_records) = (Costs::default(), 0, 0u64, 0u64);
    while done < options.records {
        let until = (done + STEP).min(options.records);
        let mut last = 0;
        while done < until {
            let entries = measured(&mut costs.make, async {
                (done..until.min(done + BATCH)).map(|number| entry(&options, number)).collect::<Vec<_>>()
            })
            .await;
            last = measured(&mut costs.append, writer.append(&entries)).await?;
            done += entries.len() as u64;
        }
        let at = BEGAN + arrival(&options, done);
        clock.advance_micros(at - lastmile::vocabulary::to_micros(clock.now()));
        if done <= to_fold {
            measured(&mut costs.fold, fold.turn()).await?;
            costs.folded = done;
        } else {
            let mut tx = store.write_derived().await?;
            fold::move_watermark(&mut tx, writer.lane(), last, clock.now()).await?;
            tx.commit().await?;
        }
        if done <= 4 * STEP {
            let mut tx = store.read_journal().await?;
            for day in journal::days(&mut tx).await?.into_iter().filter(|day| day.state == "live") {
                live_octets += day.octets.unsigned_abs();
                live_records += day.records.unsigned_abs();
            }
            tx.rollback().await?;
        }
        measured(&mut costs.keep, async {
            while keeper.turn().await? {}
            Ok::<_, lastmile::store::journal::ArchiveFault>(())
        })
        .await?;
        if done.is_multiple_of(TELL_EVERY) || done == options.records {
            tell(&options, &store, &costs, done, live_octets as f64 / live_records.max(1) as f64, &archive).await?;
        }
    }
    // The last day is over.
    clock.advance_micros(2 * 86_400_000_000);
    measured(&mut costs.keep, async {
        while keeper.turn().await? {}
        Ok::<_, lastmile::store::journal::ArchiveFault>(())
    })
    .await?;
    tell(&options, &store, &costs, done, live_octets as f64 / live_records.max(1) as f64, &archive).await
}

async fn tell(
    options: &Options,
    store: &Store,
    costs: &Costs,
    done: u64,
    live: f64,
    archive: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut tx = store.read_journal().await?;
    let days = journal::days(&mut tx).await?;
    tx.rollback().await?;
    let sum = |state: &str| {
        let days = days.iter().filter(|day| day.state == state);
        days.fold((0, 0), |(records, octets), day| (records + day.records, octets + day.octets))
    };
    let (sealed_records, sealed_octets) = sum("sealed");
    let (live_records, _) = sum("live");
    let mut archived = 0;
    if archive.exists() {
        for file in std::fs::read_dir(archive)? {
            archived += file?.metadata()?.len();
        }
    }
    let archived_records: i64 = days.iter().filter(|day| day.archive.is_some()).map(|day| day.records).sum();
    let file = |name: &str| std::fs::metadata(options.folder.join(name)).map(|file| file.len()).unwrap_or(0);
    let each = |octets: f64, records: f64| if records > 0.0 { octets / records } else { 0.0 };
    let sealed = each(sealed_octets as f64, sealed_records as f64);
    let in_archive = each(archived as f64, archived_records as f64);
    let micros = |cost: Cost, records: u64| each(cost.processor_seconds * 1e6, records as f64);
    let (append, fold, keep) = (micros(costs.append, done), micros(costs.fold, costs.folded), micros(costs.keep, done));
    println!(
        "{:#}",
        serde_json::json!({
            "records": done, "records_live": live_records, "records_sealed": sealed_records, "records_folded": costs.folded,
            "bytes_a_record": { "live": live, "sealed": sealed, "archived": in_archive },
            "processor_micros_a_record": { "append": append, "fold": fold, "keep": keep },
            "seconds": { "append": costs.append.seconds, "fold": costs.fold.seconds, "keep": costs.keep.seconds },
            "files": { "accounting": file("lastmile-accounting.db"), "main": file("lastmile.db") },
            "a_month_of_432_million": {
                "gigabytes_live": live * MONTH / 1e9,
                "gigabytes_sealed": sealed * MONTH / 1e9,
                "gigabytes_archived": in_archive * MONTH / 1e9,
                "append_processor_hours": append * MONTH / 3.6e9,
                "fold_processor_hours": fold * MONTH / 3.6e9,
                "keep_processor_hours": keep * MONTH / 3.6e9,
            },
            "resident_megabytes": resident_megabytes(),
        })
    );
    Ok(())
}

/// The report with this number: subscribers report in turn, each once an interval.
fn entry(options: &Options, number: u64) -> JournalEntry {
    // Neighbours in time are strangers: the step has no factor in common with any number of subscribers used here.
    let subscriber = number.wrapping_mul(7_919) % options.subscribers;
    let round = number / options.subscribers + subscriber % options.reports;
    let (dialled, report) = (round / options.reports, round % options.reports);
    let arrived_at = BEGAN + arrival(options, number);
    let mut noise = mix(subscriber << 20 | dialled);
    let session = format!("{:08x}", noise as u32);
    let mac = mix(subscriber).to_be_bytes();
    let mac: Vec<String> = mac[..6].iter().map(|octet| format!("{octet:02X}")).collect();
    noise = mix(number);
    let seconds = report * options.interval;
    let down = report * (subscriber % 1000 + 1) * 700_001 + noise % 1_000_000;
    let up = report * (subscriber % 1000 + 1) * 70_001 + (noise >> 20) % 100_000;
    let kind = match report {
        0 => 1,
        last if last + 1 == options.reports => 2,
        _ => 3,
    };
    let low = |octets: u64| octets as u32;
    let class = [mix(subscriber), mix(dialled)].map(u64::to_be_bytes).concat();
    let packet = RequestBuilder::accounting(number as u8)
        .integer(attribute::ACCT_STATUS_TYPE, kind)
        .text(attribute::ACCT_SESSION_ID, &session)
        .text(attribute::USER_NAME, &format!("sub{subscriber:06}@isp.example"))
        .text(attribute::NAS_IDENTIFIER, "bng1.austin")
        .address(attribute::NAS_IP_ADDRESS, [192, 0, 2, 1].into())
        .integer(NAS_PORT_TYPE, 15)
        .text(NAS_PORT_ID, &format!("eth 1/1/{}.{}", subscriber % 48, 100 + subscriber % 4000))
        .integer(attribute::NAS_PORT, low(subscriber))
        .address(attribute::FRAMED_IP_ADDRESS, (0x6440_0000 + low(subscriber)).to_be_bytes().into())
        .text(attribute::CALLING_STATION_ID, &mac.join("-"))
        .integer(SERVICE_TYPE, 2)
        .integer(FRAMED_PROTOCOL, 1)
        .integer(ACCT_AUTHENTIC, 1)
        .octets(CLASS, &class)
        .integer(attribute::ACCT_DELAY_TIME, 0)
        .integer(attribute::EVENT_TIMESTAMP, (arrived_at / 1_000_000) as u32)
        .integer(attribute::ACCT_SESSION_TIME, low(seconds))
        .integer(attribute::ACCT_INPUT_OCTETS, low(up))
        .integer(attribute::ACCT_OUTPUT_OCTETS, low(down))
        .integer(attribute::ACCT_INPUT_GIGAWORDS, low(up >> 32))
        .integer(attribute::ACCT_OUTPUT_GIGAWORDS, low(down >> 32))
        .integer(ACCT_INPUT_PACKETS, low(up / 800))
        .integer(ACCT_OUTPUT_PACKETS, low(down / 1200))
        .sign(&Secret::new("testing123"))
        .expect("the attributes fit a packet");
    JournalEntry {
        arrived_at: from_micros(arrived_at).expect("an instant of this century"),
        nas: "bng1".into(),
        source: std::net::SocketAddr::from(([192, 0, 2, 1], 1813)).into(),
        packet,
    }
}

/// Microseconds after the beginning at which a record comes.
fn arrival(options: &Options, number: u64) -> i64 {
    let every = options.interval as f64 * 1e6 / options.subscribers as f64;
    (number as f64 * every) as i64
}

/// Well-spread bits of a number.
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn client() -> Result<NasClient, Box<dyn std::error::Error>> {
    Ok(NasClient {
        name: "bng1".into(),
        network: Some("192.0.2.0/24".parse()?),
        secret: Some(Secret::new("testing123")),
        previous_secret: None,
        certificates: Vec::new(),
        message_authenticator: false,
        profile: Arc::clone(Profile::standard()),
        identity: IdentityRule::Client,
        max_rate: "10G".parse()?,
        interim_seconds: 600,
        tenants: None,
    })
}

/// A tenant with a monthly cycle, and an account with an internet service for each subscriber.
async fn subscribe(url: &str, subscribers: u64) -> Result<(), Box<dyn std::error::Error>> {
    let catalog = "[tenant]\nid = \"acme\"\nname = \"Acme\"\ncurrency = \"USD\"\ntimezone = \"UTC\"\n\
        [[bill_cycle]]\nid = \"c1\"\nanchor_day = 1\nevery = \"month\"\n";
    let document = serde_json::to_string(&lastmile::catalog::Bundle::single("acme.toml", catalog))?;
    let numbers = format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {subscribers})");
    let name = "'sub' || substr('000000' || (i - 1), length('000000' || (i - 1)) - 5) || '@isp.example'";
    let statements = [
        "INSERT INTO tenant VALUES ('acme', 'Acme', NULL, 1, 0)".to_owned(),
        format!("INSERT INTO catalog_version VALUES ('acme', 1, 'd', '{document}', 0, 'load')"),
        format!(
            "{numbers} INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag,
                created_at, updated_at) SELECT i, 'acme', 'default', 'A' || i, 1, 'active', 'c1', '{{}}', 'e', 0, 0 FROM n"
        ),
        format!(
            "{numbers} INSERT INTO service (id, account_id, external_id, type, plan, created_at, updated_at)
                SELECT i, i, 'S' || i, 'internet', 'p', 0, 0 FROM n"
        ),
        format!(
            "{numbers} INSERT INTO holder (kind, value, account_id, service_id, from_at)
                SELECT 'username', {name}, i, i, 0 FROM n"
        ),
    ];
    if url.starts_with("postgres") {
        let mut c = sqlx::PgConnection::connect(url).await?;
        for statement in statements {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut c).await?;
        }
    } else {
        let mut c = sqlx::SqliteConnection::connect(url).await?;
        for statement in statements {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut c).await?;
        }
    }
    Ok(())
}

async fn measured<T>(cost: &mut Cost, work: impl Future<Output = T>) -> T {
    let (processor, began) = (processor_seconds(), Instant::now());
    let done = work.await;
    cost.processor_seconds += processor_seconds() - processor;
    cost.seconds += began.elapsed().as_secs_f64();
    done
}

/// Processor time of this process, in steps of a hundredth: what one look misses the next one has.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) as f64 / 100.0
}

fn resident_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// 2026-10-01T00:00:00Z.
const BEGAN: i64 = 1_790_812_800_000_000;
/// Records of one commit.
const BATCH: u64 = 512;
/// Records between two turns of the fold and the keeper.
const STEP: u64 = 131_072;
const TELL_EVERY: u64 = 16 * STEP;
/// 100,000 subscribers every ten minutes for thirty days.
const MONTH: f64 = 432e6;
const SERVICE_TYPE: u8 = 6;
const FRAMED_PROTOCOL: u8 = 7;
const CLASS: u8 = 25;
const ACCT_AUTHENTIC: u8 = 45;
const ACCT_INPUT_PACKETS: u8 = 47;
const ACCT_OUTPUT_PACKETS: u8 = 48;
const NAS_PORT_TYPE: u8 = 61;
const NAS_PORT_ID: u8 = 87;
