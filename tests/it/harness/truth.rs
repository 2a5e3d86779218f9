//! What a NAS was answered, held against what is stored: reports in the journal, octets of sessions and of the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lastmile::radius::PacketView;
use lastmile::store::{Store, StoreConfig, journal};

use super::daemon::Site;
use super::nas::{Acked, Truth};

/// The reports that stand in a site's journal, read through the store as any other program would.
#[derive(Default)]
pub struct StoredReports {
    found: BTreeSet<Acked>,
    /// How far each lane is read.
    read: BTreeMap<i64, i64>,
}

/// Records read from the journal at a time.
const PAGE: i64 = 5000;

impl StoredReports {
    /// Everything that stands in the journal now.
    pub fn of(site: &Site) -> Self {
        let mut reports = Self::default();
        reports.read_on(site);
        reports
    }

    /// Reads what came since the last call.
    pub fn read_on(&mut self, site: &Site) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = Store::open(&store_config(site)).await.expect("the store opens");
            let mut tx = store.read_journal().await.expect("a transaction");
            for lane in journal::lanes(&mut tx).await.expect("lanes") {
                let seq = self.read.entry(lane).or_default();
                loop {
                    let rows = journal::read_after(&mut tx, lane, *seq, PAGE).await.expect("rows");
                    let Some(last) = rows.last() else { break };
                    assert!(last.seq > *seq, "the journal is read forwards");
                    *seq = last.seq;
                    self.found.extend(rows.iter().map(|row| report_of(&row.entry.packet)));
                }
            }
            drop(tx);
            store.close().await;
        });
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Answered reports that are not stored.
    pub fn missing<'a>(&self, acked: &'a [Acked]) -> Vec<&'a Acked> {
        acked.iter().filter(|report| !self.found.contains(*report)).collect()
    }
}

/// The store of a site, as its configuration names it.
pub fn store_config(site: &Site) -> StoreConfig {
    let config = std::fs::read_to_string(&site.config).expect("the configuration");
    let value = |key: &str| {
        let line = config.lines().find(|line| line.starts_with(key)).expect("a key of the configuration");
        line.split('"').nth(1).expect("a text").to_owned()
    };
    StoreConfig {
        url: value("url"),
        key_file: Some(value("key_file").into()),
        previous_key_file: None,
        owner: "reader".to_owned(),
    }
}

fn report_of(packet: &[u8]) -> Acked {
    let view = PacketView::parse(packet).expect("a stored packet is whole");
    let integer = |kind: u8| {
        let value = view.first(kind).expect("an attribute the NAS sent");
        u32::from_be_bytes(value.try_into().expect("four octets"))
    };
    let session = String::from_utf8_lossy(view.first(44).expect("a session")).into_owned();
    (session, integer(40), integer(46))
}

/// Waits until sessions and ledger equal the truth, octet by octet; gives what is still wrong after `limit`. With
/// `attributed`, every user of the NAS has an account, and so the ledger must hold what the sessions do.
pub fn wrong_after(site: &Site, truth: &Truth, attributed: bool, limit: Duration) -> Vec<String> {
    let started = Instant::now();
    loop {
        let mut wrong = wrong_now(&octets_by_session(site, "sessions"), truth, "session");
        if wrong.is_empty() && attributed {
            wrong = wrong_now(&octets_by_session(site, "usage"), truth, "ledger of");
        }
        if wrong.is_empty() || started.elapsed() > limit {
            return wrong;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn wrong_now(got: &BTreeMap<String, (u64, u64)>, truth: &Truth, what: &str) -> Vec<String> {
    let differing = truth.finished.iter().filter(|(session, (_, up, down))| {
        // A session without octets needs no entry.
        got.get(*session).copied().unwrap_or_default() != (*up, *down)
    });
    differing
        .map(|(session, expected)| format!("{what} {session}: {:?} instead of {expected:?}", got.get(session)))
        .collect()
}

/// Octets up and down by session, of `export sessions` or `export usage`.
pub fn octets_by_session(site: &Site, export: &str) -> BTreeMap<String, (u64, u64)> {
    let text = site.succeed(&["export", export, "--format", "csv"]);
    let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    each_row(&text, |row| {
        let sum = sums.entry(row("session")).or_default();
        sum.0 += row("in_octets").parse::<i64>().expect("octets");
        sum.1 += row("out_octets").parse::<i64>().expect("octets");
    });
    // A correction in the ledger is negative; a sum is not.
    let octets = |sum: i64| u64::try_from(sum).expect("no session has negative usage");
    sums.into_iter().map(|(session, (up, down))| (session, (octets(up), octets(down)))).collect()
}

/// Calls `each` with a lookup by heading for every row of a CSV.
pub fn each_row(csv: &str, mut each: impl FnMut(&dyn Fn(&str) -> String)) {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let headings = reader.headers().expect("headings").clone();
    for row in reader.records() {
        let row = row.expect("a row");
        each(&|heading| {
            let at = headings.iter().position(|name| name == heading);
            row.get(at.unwrap_or_else(|| panic!("no column {heading}"))).unwrap_or_default().to_owned()
        });
    }
}
