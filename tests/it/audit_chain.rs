//! The audit's chain: any tampering with any of ten thousand deeds is found on both databases, a tail that is cut off is found
//! by a head that was published, and the daemon seals what it commits and never signs what somebody forged.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use jiff::Timestamp;
use lastmile::audit::{Break, Head};
use lastmile::store::audit::{self, Entry};
use lastmile::store::audit_chain::{self, Meeting, Sealed, Walked};
use lastmile::store::{Store, StoreConfig};
use lastmile::vocabulary::from_micros;
use serde_json::json;
use sqlx::Connection;

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::Site;
use crate::harness::{postgres, temp_dir, wait_for};

const DEEDS: i64 = 10_000;

/// A store with `DEEDS` sealed deeds of one tenant.
struct Ledger {
    store: Store,
    url: String,
    _folder: tempfile::TempDir,
}

impl Ledger {
    async fn open(url: Option<String>) -> Self {
        let folder = temp_dir();
        let key = folder.path().join("key");
        std::fs::write(&key, "0123456789abcdef".repeat(4)).expect("a key file");
        let url = url.unwrap_or_else(|| format!("sqlite://{}", folder.path().join("lastmile.db").display()));
        let config =
            StoreConfig { url: url.clone(), key_file: Some(key), previous_key_file: None, owner: "audit".to_owned() };
        let store = Store::open(&config).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let ledger = Self { store, url, _folder: folder };
        let (details, subjects): (Vec<_>, Vec<_>) =
            (0..DEEDS).map(|number| (json!({ "revision": number }), format!("default/{number}"))).unzip();
        for start in (0..DEEDS).step_by(1000) {
            let mut tx = ledger.store.write().await.expect("a transaction");
            for number in start..start + 1000 {
                let entry = Entry {
                    tenant: Some("acme"),
                    actor: "key k1 (billing, push)",
                    action: "account.update",
                    account_id: Some(number % 50 + 1),
                    subject: &subjects[number as usize],
                    detail: &details[number as usize],
                };
                audit::append(&mut tx, &entry, at(number)).await.expect("appended");
            }
            tx.commit().await.expect("a commit");
        }
        ledger.seal(DEEDS).await;
        ledger.sql("CREATE TABLE audit_copy AS SELECT * FROM audit").await;
        ledger
    }

    /// Seals all that waits; the clock stands at deed `number`.
    async fn seal(&self, number: i64) -> Option<Head> {
        let mut newest = None;
        loop {
            let mut tx = self.store.write().await.expect("a transaction");
            let sealed =
                audit_chain::seal(&mut tx, self.store.sealer(), "acme", None, (1024, Meeting::Pass), at(number)).await;
            tx.commit().await.expect("a commit");
            match sealed.expect("sealed") {
                Sealed::Deeds { head, .. } => newest = Some(head),
                Sealed::Nothing => return newest,
                Sealed::Refused(broken) => panic!("not sealed: {broken:?}"),
            }
        }
    }

    async fn walk(&self, published: &[Head]) -> Walked {
        let mut tx = self.store.read_snapshot().await.expect("a transaction");
        audit_chain::walk(&mut tx, self.store.sealer(), published, |_| {}).await.expect("a walk")
    }

    /// The one break there is, after `statements`; then everything is as it was.
    async fn broken_by(&self, statements: &[String]) -> Break {
        for statement in statements {
            self.sql(statement).await;
        }
        let walked = self.walk(&[]).await;
        self.sql("DELETE FROM audit").await;
        self.sql("INSERT INTO audit SELECT * FROM audit_copy").await;
        match walked.breaks.as_slice() {
            [found] => found.clone(),
            other => panic!("{statements:?} gave {other:?}"),
        }
    }

    async fn sql(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        match self.url.starts_with("postgres") {
            true => {
                let mut c = sqlx::PgConnection::connect(&self.url).await.expect("connects");
                sqlx::query(statement).execute(&mut c).await.expect("a statement of the test");
            }
            false => {
                let mut c = sqlx::SqliteConnection::connect(&self.url).await.expect("connects");
                sqlx::query(statement).execute(&mut c).await.expect("a statement of the test");
            }
        }
    }
}

fn at(number: i64) -> Timestamp {
    from_micros(1_780_000_000_000_000 + number * 1_000_000).expect("an instant of the test")
}

fn both(check: impl AsyncFn(Ledger)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        check(Ledger::open(None).await).await;
        check(Ledger::open(Some(postgres::database())).await).await;
    });
}

/// Random numbers from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = RandomState::new().build_hasher().finish();
        println!("seed {seed}");
        Self(seed)
    }

    /// A deed's sequence.
    fn deed(&mut self) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % DEEDS as u64) as i64 + 1
    }
}

const COLUMNS: [&str; 7] = [
    "actor = 'somebody else'",
    "action = 'account.close'",
    "at = at + 1",
    "account_id = 77",
    "subject = 'default/x'",
    "detail = '{}'",
    "chain_salt = NULL, subject = '', detail = 'null'",
];
const ROUNDS: usize = 4;

#[test]
fn any_of_ten_thousand_deeds_changed_deleted_inserted_or_swapped_is_found() {
    both(async |ledger| {
        let whole = ledger.walk(&[]).await;
        assert_eq!((whole.deeds, whole.breaks.len()), (DEEDS as u64, 0), "{whole:?}");
        let mut dice = Dice::new();
        for change in COLUMNS {
            let deed = dice.deed();
            let found = ledger.broken_by(&[format!("UPDATE audit SET {change} WHERE chain_sequence = {deed}")]).await;
            assert_eq!(found.sequence, deed, "{change}: {found:?}");
        }
        for _ in 0..ROUNDS {
            let (deed, other) = (dice.deed(), dice.deed());
            let found = ledger.broken_by(&[format!("DELETE FROM audit WHERE chain_sequence = {deed}")]).await;
            assert_eq!((found.sequence, found.id), (deed, None), "deleted: {found:?}");

            // Inserted as a deed nobody gave a place, and with a place made for it.
            let copied = "SELECT 20000, at, tenant, 'mallory', action, account_id, subject, detail";
            let into = "INSERT INTO audit (id, at, tenant, actor, action, account_id, subject, detail";
            let unplaced = format!("{into}) {copied} FROM audit WHERE chain_sequence = {}", deed.min(DEEDS - 700));
            let found = ledger.broken_by(&[unplaced]).await;
            assert_eq!(found.id, Some(20_000), "inserted: {found:?}");
            let room = format!("UPDATE audit SET chain_sequence = -chain_sequence - 1 WHERE chain_sequence >= {deed}");
            let placed = format!(
                "{into}, chain_sequence, chain_salt, chain_commitment, chain_hash) {copied}, {deed}, chain_salt,
                 chain_commitment, chain_hash FROM audit_copy WHERE chain_sequence = {deed}"
            );
            let back = "UPDATE audit SET chain_sequence = -chain_sequence WHERE chain_sequence < 0".to_owned();
            let found = ledger.broken_by(&[room, placed, back]).await;
            assert_eq!((found.sequence, found.id), (deed, Some(20_000)), "inserted: {found:?}");

            if deed != other {
                let swapped = |from: i64, to: i64| {
                    format!("UPDATE audit SET chain_sequence = {to} WHERE chain_sequence = {from}")
                };
                let found = ledger.broken_by(&[swapped(deed, -1), swapped(other, deed), swapped(-1, other)]).await;
                assert_eq!(found.sequence, deed.min(other), "swapped: {found:?}");
            }
        }
        let whole = ledger.walk(&[]).await;
        assert!(whole.breaks.is_empty(), "the test put everything back: {whole:?}");
    });
}

#[test]
fn a_tail_that_is_cut_off_is_found_by_a_head_that_was_published() {
    both(async |ledger| {
        let mut tx = ledger.store.read().await.expect("a transaction");
        let published = audit_chain::heads(&mut tx, Some("acme")).await.expect("heads");
        drop(tx);
        assert_eq!(published[0].sequence, DEEDS);
        assert!(ledger.walk(&published).await.breaks.is_empty());

        // The head in the database tells of rows that are gone.
        ledger.sql("DELETE FROM audit WHERE chain_sequence > 9000").await;
        let found = ledger.walk(&[]).await.breaks;
        assert_eq!(found[0].sequence, 9001, "{found:?}");

        // Whoever puts back an older, well signed head cannot put back the one that was published.
        ledger.sql("DELETE FROM audit_chain").await;
        ledger.sql("UPDATE audit SET chain_sequence = NULL, chain_salt = NULL, chain_hash = NULL").await;
        ledger.seal(DEEDS).await;
        assert!(ledger.walk(&[]).await.breaks.is_empty(), "alone, the shorter chain looks whole");
        let found = ledger.walk(&published).await.breaks;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].why.contains("published"), "{found:?}");
        // Nor can a published head be made up.
        let forged = Head { sequence: 5, ..published[0].clone() };
        assert!(ledger.walk(&[forged]).await.breaks[0].why.contains("not signed"));
    });
}

#[test]
fn the_daemon_seals_what_it_commits_and_never_signs_what_was_forged() {
    for site in [Site::sqlite(), Site::postgres()] {
        site.prepare(CATALOG);
        let (push, admin) = (site.key("acme", "push"), site.key("acme", "admin"));
        let daemon = site.start();
        for number in 1..=3 {
            let answer = daemon.api(&push, "PUT", &format!("acme/accounts/a{number}"), Some(&internet(number)));
            assert_eq!(answer.status, 201, "{}", answer.body);
        }
        let sealed = |count: usize| {
            wait_for("every deed has its place", Duration::from_secs(60), || {
                let deeds = site.json(&["audit", "list", "--tenant", "acme"]);
                let deeds = deeds.as_array().expect("a list").clone();
                (deeds.len() >= count && deeds.iter().all(|deed| deed["sequence"].is_i64())).then_some(deeds)
            })
        };
        // The catalog, two keys, three accounts.
        sealed(6);
        let of_one = site.json(&["audit", "list", "--tenant", "acme", "--account", "a2"]);
        assert_eq!(of_one[0]["action"], "account.create", "{of_one:#}");
        assert!(of_one[0]["actor"].as_str().is_some_and(|actor| actor.ends_with("(push)")), "{of_one:#}");
        let told = daemon.api(&admin, "GET", "acme/audit?account=a2", None).json();
        assert_eq!(told["items"][0]["sequence"], of_one[0]["sequence"], "{told:#}");
        assert_eq!(daemon.api(&push, "GET", "acme/audit", None).status, 403);
        let verified = site.json(&["audit", "verify"]);
        assert_eq!(verified["audit"]["breaks"], json!([]), "{verified:#}");

        // The log has the head; it is kept elsewhere.
        let log = wait_for("a head in the log", Duration::from_secs(60), || {
            let log = site.log_text();
            log.contains("Audit head: acme").then_some(log)
        });
        let kept = site.path("heads");
        let heads: Vec<&str> = log.lines().filter(|line| line.contains("Audit head: ")).collect();
        std::fs::write(&kept, heads.join("\n")).expect("a file");
        let kept = kept.display().to_string();
        site.succeed(&["audit", "verify", "--chain", "--heads", &kept]);

        // Somebody takes the last deeds away, and the head with them.
        sql(&site, "DELETE FROM audit WHERE tenant = 'acme' AND chain_sequence > 2");
        let verified = site.lastmile(&["audit", "verify", "--chain"]);
        assert_eq!(verified.status.code(), Some(3));
        assert!(String::from_utf8_lossy(&verified.stdout).contains("broken at deed 3"), "{verified:?}");
        let answer = daemon.api(&push, "PUT", "acme/accounts/a4", Some(&internet(4)));
        assert_eq!(answer.status, 201, "{}", answer.body);
        wait_for("a person is told", Duration::from_secs(60), || {
            let open = site.json(&["exception", "list"]);
            open.as_array().expect("a list").iter().any(|one| one["kind"] == "audit_chain").then_some(())
        });
        let waiting = site.json(&["audit", "list", "--tenant", "acme", "--action", "account."]);
        assert!(waiting[0]["sequence"].is_null(), "nothing is signed behind a broken chain: {waiting:#}");
        assert!(daemon.stop() < Duration::from_secs(10));
    }
}

fn sql(site: &Site, statement: &str) {
    let text = std::fs::read_to_string(&site.config).expect("the configuration");
    let url = text.lines().find(|line| line.starts_with("url = ")).and_then(|line| line.split('"').nth(1));
    let url = url.expect("the database's URL");
    let output = match url.strip_prefix("sqlite://") {
        Some(path) => crate::harness::run("sqlite3", "sqlite3", &["-cmd", ".timeout 5000", path, statement]),
        None => crate::harness::run("postgresql-client", "psql", &["-q", "-c", statement, url]),
    };
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}
