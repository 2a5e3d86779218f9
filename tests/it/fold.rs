//! The fold against a real store, on both databases: journal in, sessions, ledger and totals out.

use std::sync::Arc;

use lastmile::catalog::Bundle;
use lastmile::collector::fold::{Flow, Fold, ReplayOrder, Verdict, Verifier, What, replay};
use lastmile::collector::keeper::{Keeper, Keeping};
use lastmile::collector::{Committed, Fed, Feed, NasTable};
use lastmile::radius::{RequestBuilder, attribute};
use lastmile::store::journal::{JournalEntry, JournalWriter};
use lastmile::store::ledger::{self, Cutting};
use lastmile::store::sessions::{self, StoredSession};
use lastmile::store::{Store, StoreConfig, fold as fold_store};
use lastmile::telemetry::{Heartbeats, Metrics};
use lastmile::usage::Cuts;
use lastmile::vocabulary::{Clock, Period, Secret, Timestamp, from_micros};
use sqlx::Connection;
use tokio::sync::watch;

use crate::harness::{postgres, temp_dir};

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { super::on_sqlite(|bench| Box::pin(super::$name(bench))); })*
        }
        mod postgres_15 {
            $(#[test] fn $name() { super::on_postgres(|bench| Box::pin(super::$name(bench))); })*
        }
    };
}

on_both!(
    usage_is_cut_at_hours_and_summed_by_period,
    usage_before_the_first_holder_attaches_to_it_once,
    folding_again_from_nothing_gives_the_same_sessions,
    a_late_record_beyond_the_tail_is_folded_in_from_the_journal,
    accounting_on_closes_older_sessions_at_their_last_report,
    flush_empties_the_open_hour_once,
    two_folds_never_count_twice,
    others_are_folded_while_ones_own_keep_coming,
    a_record_that_cannot_be_read_waits_for_a_person,
    verification_finds_and_mends_what_was_planted,
    a_disorderly_journal_verifies_clean_live_and_sealed,
    a_late_record_is_not_counted_from_days_that_were_dropped,
    every_octet_of_the_records_has_a_way,
    a_period_replays_from_its_records_as_of_any_watermark,
);

async fn verification_finds_and_mends_what_was_planted(mut bench: Bench) {
    bench.account("ada@acme").await;
    bench.send(&[nameless("stray", 77)]).await;
    let ids = ["s1", "s2", "s3", "s4"];
    for (place, id) in (1u32..).zip(ids) {
        let reports: Vec<Vec<u8>> = (1..=9).map(|i| report(id, 3, i * 1800, i * 1800, i * 1000 * place)).collect();
        bench.send(&reports).await;
    }
    bench.fold_once().await;
    let clean = bench.verify(false).await;
    assert_eq!((clean.differences, clean.sessions, clean.records), (0, 5, 37), "{:?}", clean.findings);
    let totals = bench.totals().await;

    let (one, two) = (bench.session("s1").await.id, bench.session("s2").await.id);
    let (one, two) = (one.expect("an id"), two.expect("an id"));
    let cases = [
        ("a column", format!("UPDATE session SET in_octets = in_octets + 1 WHERE id = {one}"), What::Session),
        (
            "a state",
            format!("UPDATE session SET body = (SELECT body FROM session WHERE id = {two}) WHERE id = {one}"),
            What::Session,
        ),
        ("a lost entry", format!("DELETE FROM ledger WHERE session_id = {two} AND from_at = {BASE}"), What::Ledger),
        ("a total", "UPDATE usage_total SET in_octets = in_octets - 5".to_owned(), What::Total),
        ("a lost session", "DELETE FROM session WHERE session = 'stray'".to_owned(), What::Session),
        (
            "an invented session",
            "INSERT INTO session (id, nas, session, incarnation, state, started_at, last_event_at, in_octets,
                out_octets, seconds, flags, pending, refold, body)
             SELECT 9999, nas, 'invented', incarnation, state, started_at, last_event_at, in_octets, out_octets,
                seconds, flags, pending, refold, body FROM session WHERE session = 's3'"
                .to_owned(),
            What::Session,
        ),
    ];
    for (name, plant, what) in cases {
        bench.sql(&plant).await;
        let found = bench.verify(false).await;
        assert!(found.findings.iter().any(|finding| finding.what == what), "{name}: {:?}", found.findings);
        assert_eq!(bench.verify(false).await.differences, found.differences, "{name}: looking changes nothing");
        let mended = bench.verify(true).await;
        assert!(mended.repaired > 0, "{name}");
        let after = bench.verify(false).await;
        assert_eq!(after.differences, 0, "{name}: {:?}", after.findings);
        assert_eq!(bench.totals().await, totals, "{name}");
        let octets = "SELECT CAST(SUM(in_octets) AS BIGINT) FROM ledger";
        // Of nine half hours the last is not complete.
        assert_eq!(bench.number(octets).await, 8_000 * (1 + 2 + 3 + 4), "{name}");
    }
    assert_eq!(bench.session("stray").await.state.totals().in_octets, 77);
}

async fn a_disorderly_journal_verifies_clean_live_and_sealed(mut bench: Bench) {
    bench.account("ada@acme").await;
    let mut fold = bench.fold();
    let mut packets = Vec::new();
    for session in 0..40u32 {
        let id = format!("s{session}");
        packets.push(report(&id, 1, session * 60, 0, 0));
        for i in 1..30 {
            packets.push(report(&id, 3, session * 60 + i * 600, i * 600, i * 1000 + session));
        }
        if session % 3 == 0 {
            packets.push(report(&id, 2, session * 60 + 18_300, 18_300, 40_000 + session));
        }
    }
    // Any order, a third of them twice, and in the middle a reboot.
    let mut state = 20_261_122u64;
    for at in (1..packets.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        packets.swap(at, (state >> 33) as usize % (at + 1));
    }
    let copies: Vec<Vec<u8>> = packets.iter().step_by(3).cloned().collect();
    packets.splice(600..600, [reboot(9_000)]);
    packets.extend(copies);
    for some in packets.chunks(97) {
        bench.send(some).await;
        fold.turn().await.expect("folds");
    }
    fold.release().await.expect("lets go");
    // What came late is folded anew, a few sessions at a time.
    for _ in 0..10 {
        bench.fold_once().await;
    }
    assert_eq!(bench.number("SELECT COUNT(*) FROM session WHERE refold").await, 0);
    let live = bench.verify(false).await;
    assert_eq!(live.differences, 0, "{:#?}", live.findings);
    bench.keep(at(200_000), 400).await;
    let sealed = bench.verify(false).await;
    assert_eq!((sealed.differences, sealed.records, sealed.sessions), (0, packets.len() as i64, live.sessions));
    bench.sql("UPDATE session SET out_octets = 1 WHERE session = 's7'").await;
    assert_eq!(bench.verify(false).await.differences, 1);
    assert!(bench.verify(true).await.repaired > 0, "mended from sealed records");
    assert_eq!(bench.verify(false).await.differences, 0);
}

async fn a_late_record_is_not_counted_from_days_that_were_dropped(mut bench: Bench) {
    bench.account("ada@acme").await;
    let reports: Vec<Vec<u8>> =
        (1..40).filter(|i| *i != 3).map(|i| report("s1", 3, i * 600, i * 600, i * 1000)).collect();
    bench.send(&reports).await;
    bench.fold_once().await;
    bench.keep(at(3 * 86_400), 1).await;
    bench.send(&[report("s1", 3, 1800, 1800, 2500)]).await;
    bench.fold_once().await;
    let session = bench.session("s1").await;
    assert!(!session.refold, "it does not ask for ever");
    assert_eq!(session.state.totals().in_octets, 39_000, "nothing was taken away for want of records");
    assert_eq!(bench.number("SELECT COUNT(*) FROM exception WHERE kind = 'session_records_dropped'").await, 1);
    let verdict = bench.verify(true).await;
    assert_eq!((verdict.differences, verdict.excluded), (0, 1));
    assert_eq!(verdict.dropped_days, ["2026-11-10"]);
}

async fn every_octet_of_the_records_has_a_way(mut bench: Bench) {
    bench.account("ada@acme").await;
    let unreadable = RequestBuilder::accounting(9)
        .integer(attribute::ACCT_STATUS_TYPE, 3)
        .integer(attribute::ACCT_INPUT_OCTETS, 55)
        .sign(&secret())
        .expect("fits");
    // Both counters fall from where a wrap is possible and not near: it counts as a reset.
    let packets = [
        report("s1", 3, 600, 600, 2_000_000_000),
        report("s1", 3, 1_200, 1_200, 1_000),
        report("s1", 3, 8_000, 8_000, 2_000),
        nameless("stray", 77),
        unreadable,
    ];
    bench.send(&packets).await;
    bench.fold_once().await;
    let sums = bench.verify(false).await.flows.sums;
    let of = |tenant: Option<&str>| {
        let found: Vec<&Flow> =
            sums.iter().filter(|(key, _)| key.tenant.as_deref() == tenant).map(|(_, flow)| flow).collect();
        assert_eq!(found.len(), 1, "{sums:#?}");
        *found[0]
    };
    let ambiguous = 2 * ((1i128 << 32) - 2_000_000_000);
    let ledger = 2 * (2_000_000_000 + 1_000 + 1_000);
    assert_eq!(of(Some("acme")), Flow { raw: ledger + ambiguous, ledger, ambiguous, ..Flow::default() });
    assert_eq!(of(None), Flow { raw: 77 + 55, unattributed: 77, rejected: 55, ..Flow::default() });
    bench.sql(&format!("DELETE FROM ledger WHERE from_at = {BASE}")).await;
    let broken = bench.verify(false).await.flows.sums;
    let broken = broken.values().find(|flow| flow.ledger > 0).expect("the account's");
    assert_eq!((broken.raw, broken.ledger < ledger), (ledger + ambiguous, true), "the records have not changed");
}

async fn a_period_replays_from_its_records_as_of_any_watermark(mut bench: Bench) {
    bench.account("ada@acme").await;
    let period = Period {
        start: "2026-11-01T00:00:00Z".parse().expect("an instant"),
        end: "2026-12-01T00:00:00Z".parse().expect("an instant"),
        timezone: "UTC".to_owned(),
    };
    let mut watermarks = Vec::new();
    for some in [1..9u32, 9..20, 20..30] {
        let mut packets: Vec<Vec<u8>> = some.clone().map(|i| report("s1", 3, i * 600, i * 600, i * 1_000)).collect();
        packets.extend(some.filter(|i| i % 3 == 0).map(|i| report("s2", 3, i * 600, i * 600, i * 77)));
        bench.send_at(&packets, 50_000 + watermarks.len() as i64).await;
        bench.fold_once().await;
        let mut tx = bench.store.write_derived().await.expect("a transaction");
        let edges = [period.start, period.end];
        ledger::flush(&mut tx, &[7], period.end, &|_| Cutting { edges: &edges, cuts: Cuts::at(&edges) }, at(100_000))
            .await
            .expect("flushed");
        tx.commit().await.expect("committed");
        watermarks.push(bench.number("SELECT MAX(sequence) FROM ledger").await);
    }
    for (run, watermark) in watermarks.iter().enumerate() {
        // The run began before its last records came: they are found all the same.
        let run_at = at(50_000 + run as i64 - i64::from(run > 0));
        let order =
            ReplayOrder { account_id: 7, service_id: 70, period: period.clone(), watermark: *watermark, run_at };
        let nas = Arc::new(NasTable::default());
        let clock = Clock::fixed(at(100_000));
        let found = replay(&bench.store, &clock, &nas, &order).await.expect("replayed");
        assert_eq!(found.differences, Vec::<String>::new(), "as of {watermark}");
        assert_eq!(found.until, Some(at(50_000 + run as i64)));
        let octets: i64 = found.entries.iter().map(|entry| entry.amount.in_octets).sum();
        let told = format!("SELECT CAST(SUM(in_octets) AS BIGINT) FROM ledger WHERE sequence <= {watermark}");
        assert_eq!(octets, bench.number(&told).await);
        let first = &found.entries[0];
        let places: Vec<i64> = first.records.iter().map(|place| found.records[*place].row.seq).collect();
        assert_eq!((first.session.as_str(), places), ("s1", vec![1, 2, 3, 4, 5, 6]), "the reports of the first hour");
    }
    bench.sql(&format!("UPDATE ledger SET in_octets = in_octets + 1 WHERE from_at = {BASE} AND sequence = 1")).await;
    let order = ReplayOrder { account_id: 7, service_id: 70, period, watermark: watermarks[2], run_at: at(50_002) };
    let found = replay(&bench.store, &Clock::fixed(at(100_000)), &Arc::new(NasTable::default()), &order).await;
    assert_eq!(found.expect("replayed").differences.len(), 1, "one octet too many in one hour");
}

pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) url: String,
    config: StoreConfig,
    pub(crate) writer: JournalWriter,
}

async fn usage_is_cut_at_hours_and_summed_by_period(mut bench: Bench) {
    bench.account("ada@acme").await;
    let mut fold = bench.fold();
    bench.send(&[report("s1", 1, 0, 0, 0), report("s1", 3, 5400, 5400, 5400)]).await;
    fold.turn().await.expect("folds");
    let entries = bench.ledger().await;
    assert_eq!(entries, [(0, 3600, 3600)], "the second hour is not complete");
    bench.send(&[report("s1", 2, 7200, 7200, 9000)]).await;
    fold.turn().await.expect("folds");
    assert_eq!(bench.ledger().await, [(0, 3600, 3600), (3600, 7200, 5400)]);
    assert_eq!(bench.totals().await, [(9000, 1)]);
    assert_eq!(bench.session("s1").await.state.word(), "stopped");
}

async fn usage_before_the_first_holder_attaches_to_it_once(mut bench: Bench) {
    let mut fold = bench.fold();
    bench.send(&[report("s1", 1, 0, 0, 0), report("s1", 2, 600, 600, 700)]).await;
    fold.turn().await.expect("folds");
    assert_eq!(bench.session("s1").await.owner, None);
    fold.release().await.expect("lets go");
    bench.account("ADA@acme").await;
    bench.fold_once().await;
    bench.fold_once().await;
    assert_eq!(bench.ledger().await, [(0, 3600, 700)]);
    assert_eq!(bench.totals().await, [(700, 1)]);
}

async fn folding_again_from_nothing_gives_the_same_sessions(mut bench: Bench) {
    let mut packets = Vec::new();
    for number in 0..700u32 {
        let id = format!("s{number}");
        packets.push(report(&id, 1, 0, 0, 0));
        packets.push(report(&id, 3, 300, 300, number * 3));
        packets.push(report(&id, 2, 600, 600, number * 7));
        packets.push(report(&id, 3, 300, 300, number * 3));
    }
    bench.send(&packets).await;
    bench.fold_once().await;
    let before = bench.session("s699").await;
    assert_eq!(before.state.totals().in_octets, 699 * 7);
    bench.sql("DELETE FROM session").await;
    bench.sql("DELETE FROM fold_watermark").await;
    bench.fold_once().await;
    assert_eq!(bench.session("s699").await.state, before.state);
}

async fn a_late_record_beyond_the_tail_is_folded_in_from_the_journal(mut bench: Bench) {
    bench.account("ada@acme").await;
    let mut fold = bench.fold();
    let reports: Vec<Vec<u8>> =
        (1..40).filter(|i| *i != 3).map(|i| report("s1", 3, i * 600, i * 600, i * 1000)).collect();
    bench.send(&reports).await;
    fold.turn().await.expect("folds");
    let before: i64 = bench.ledger().await.iter().map(|(.., octets)| octets).sum();
    bench.send(&[report("s1", 3, 1800, 1800, 2500)]).await;
    fold.release().await.expect("lets go");
    bench.fold_once().await;
    let session = bench.session("s1").await;
    assert!(!session.refold);
    assert_eq!(session.state.totals().in_octets, 39_000);
    let after = bench.ledger().await;
    assert_eq!(after.iter().map(|(.., octets)| octets).sum::<i64>(), before, "only moved between hours");
    let first_hour: i64 = after.iter().filter(|(from, ..)| *from == 0).map(|(.., octets)| octets).sum();
    assert_eq!(first_hour, 6_000);
    assert_eq!(bench.totals().await, [(39_000, 1)]);
}

async fn accounting_on_closes_older_sessions_at_their_last_report(mut bench: Bench) {
    bench.account("ada@acme").await;
    let mut fold = bench.fold();
    bench.send(&[report("s1", 1, 0, 0, 0), report("s1", 3, 300, 300, 50)]).await;
    fold.turn().await.expect("folds");
    bench.send(&[report("s2", 1, 900, 0, 0), reboot(600)]).await;
    fold.release().await.expect("lets go");
    bench.fold_once().await;
    let (old, new) = (bench.session("s1").await, bench.session("s2").await);
    assert_eq!((old.state.word(), old.state.ended_at()), ("closed", Some(BASE + 300_000_000)));
    assert_eq!(new.state.word(), "open");
    assert_eq!(bench.ledger().await, [(0, 3600, 50)]);
}

async fn flush_empties_the_open_hour_once(mut bench: Bench) {
    let account = bench.account("ada@acme").await;
    let mut fold = bench.fold();
    bench.send(&[report("s1", 1, 0, 0, 0), report("s1", 3, 1800, 1800, 1800)]).await;
    fold.turn().await.expect("folds");
    assert_eq!(bench.ledger().await, []);
    for expected in [1, 0] {
        let mut tx = bench.store.write().await.expect("a transaction");
        let whole = |_| Cutting { edges: &[], cuts: Cuts::NONE };
        let written = ledger::flush(&mut tx, &[account], at(1000), &whole, at(1900)).await.expect("flushes");
        assert_eq!(written, expected);
        tx.commit().await.expect("commits");
    }
    assert_eq!(bench.ledger().await, [(0, 3600, 1800)]);
    bench.send(&[report("s1", 2, 2400, 2400, 2500)]).await;
    fold.turn().await.expect("folds");
    assert_eq!(bench.ledger().await, [(0, 3600, 1800), (0, 3600, 700)]);
    assert_eq!(bench.totals().await, [(2500, 1)]);
}

async fn two_folds_never_count_twice(mut bench: Bench) {
    bench.account("ada@acme").await;
    let (mut one, mut two) = (bench.fold(), bench.fold());
    one.turn().await.expect("folds");
    two.turn().await.expect("folds");
    let packets: Vec<Vec<u8>> = (0..60).map(|i| report(&format!("s{i}"), 2, 600, 600, 100)).collect();
    bench.send(&packets).await;
    let (first, second) = tokio::join!(one.turn(), two.turn());
    first.expect("folds");
    second.expect("folds");
    one.turn().await.expect("folds");
    assert_eq!(bench.totals().await, [(6000, 60)]);
    let entries = bench.ledger().await;
    assert_eq!(entries.iter().map(|(.., octets)| octets).sum::<i64>(), 6000);
}

async fn others_are_folded_while_ones_own_keep_coming(mut bench: Bench) {
    let another = Store::open(&bench.config).await.expect("another daemon's store");
    let mut other = another.open_journal(at(0)).await.expect("a lane");
    let (feed, fed) = Feed::new();
    let (stop, stopping) = watch::channel(false);
    let folding = tokio::spawn(bench.fold_fed(fed).run(stopping));
    let folded = format!("SELECT COUNT(*) FROM fold_watermark WHERE lane = {}", other.lane());
    for second in 0..400 {
        // Something new is there whenever the fold looks, before the other's record and after it.
        let entries = vec![entry(report("own", 3, second, second, second))];
        let last = bench.writer.append(&entries).await.expect("stored");
        feed.tell(Committed { lane: bench.writer.lane(), first_seq: last, entries });
        if second == 50 {
            other.append(&[entry(report("other", 2, 600, 600, 100))]).await.expect("stored");
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        if bench.number(&folded).await == 1 {
            break;
        }
    }
    assert_eq!(bench.number(&folded).await, 1, "it waits for a quiet moment");
    stop.send(true).expect("the fold listens");
    folding.await.expect("an end").expect("no fault");
    other.discard();
    another.close().await;
}

async fn a_record_that_cannot_be_read_waits_for_a_person(mut bench: Bench) {
    let mut fold = bench.fold();
    let poor = RequestBuilder::accounting(9).integer(attribute::ACCT_STATUS_TYPE, 1).sign(&secret()).expect("fits");
    bench.send(&[poor.clone(), poor, report("s1", 2, 600, 600, 100)]).await;
    fold.turn().await.expect("folds");
    assert_eq!(bench.session("s1").await.state.totals().in_octets, 100);
    assert_eq!(bench.number("SELECT COUNT(*) FROM exception WHERE kind = 'record_quarantined'").await, 1);
}

impl Bench {
    pub(crate) fn fold(&self) -> Fold {
        self.fold_fed(Feed::new().1)
    }

    fn fold_fed(&self, fed: Fed) -> Fold {
        let (nas, nas_seen) = watch::channel(Arc::new(NasTable::default()));
        drop(nas);
        Fold::new(
            self.store.clone(),
            Clock::fixed(at(100_000)),
            fed,
            nas_seen,
            Metrics::new(),
            Heartbeats::new().register("fold"),
        )
    }

    /// A fold of its own that folds everything there is and lets others go on.
    pub(crate) async fn fold_once(&self) {
        let mut fold = self.fold();
        fold.turn().await.expect("folds");
        fold.release().await.expect("lets go");
    }

    pub(crate) async fn verify(&self, repair: bool) -> Verdict {
        let nas = Arc::new(NasTable::default());
        let verifier = Verifier::new(self.store.clone(), Clock::fixed(at(100_000)), nas, repair);
        verifier.run(|_, _| ()).await.expect("compared")
    }

    /// Seals what is folded and drops what is older than `keep_days`.
    async fn keep(&self, now: Timestamp, keep_days: u32) {
        let keeper = Keeper {
            store: self.store.clone(),
            clock: Clock::fixed(now),
            keeping: Keeping { keep_days, archive: None },
            metrics: Metrics::new(),
            beat: Heartbeats::new().register("keeper"),
        };
        while keeper.turn().await.expect("kept") {}
    }

    pub(crate) async fn send(&mut self, packets: &[Vec<u8>]) {
        self.send_at(packets, 50_000).await;
    }

    /// As they arrive so many seconds after the base.
    async fn send_at(&mut self, packets: &[Vec<u8>], seconds: i64) {
        let arrived = |packet: Vec<u8>| JournalEntry { arrived_at: at(seconds), ..entry(packet) };
        let entries: Vec<JournalEntry> = packets.iter().cloned().map(arrived).collect();
        self.writer.append(&entries).await.expect("stored");
    }

    /// A subscriber of tenant acme on cycle c1 who holds this user name since now.
    pub(crate) async fn account(&self, user_name: &str) -> i64 {
        let catalog = "[tenant]\nid = \"acme\"\nname = \"Acme\"\ncurrency = \"USD\"\ntimezone = \"UTC\"\n\
            [[bill_cycle]]\nid = \"c1\"\nanchor_day = 1\nevery = \"month\"\n";
        let document = serde_json::to_string(&Bundle::single("acme.toml", catalog)).expect("texts are JSON");
        for statement in [
            "INSERT INTO tenant VALUES ('acme', 'Acme', NULL, 1, 0)".to_owned(),
            format!("INSERT INTO catalog_version VALUES ('acme', 1, 'd', '{document}', 0, 'test')"),
            "INSERT INTO account (id, tenant, source, external_id, revision, status, bill_cycle, document, etag,
                 created_at, updated_at) VALUES (7, 'acme', 'default', 'A7', 1, 'active', 'c1', '{}', 'e', 0, 0)"
                .to_owned(),
            "INSERT INTO service (id, account_id, external_id, type, plan, created_at, updated_at)
                 VALUES (70, 7, 'A7-1', 'internet', 'p', 0, 0)"
                .to_owned(),
            format!(
                "INSERT INTO holder (kind, value, account_id, service_id, from_at)
                 VALUES ('username', '{user_name}', 7, 70, {})",
                BASE + 50_000_000_000
            ),
        ] {
            self.sql(&statement).await;
        }
        7
    }

    pub(crate) async fn session(&self, id: &str) -> StoredSession {
        let mut tx = self.store.read().await.expect("a transaction");
        let found = sessions::of_keys(&mut tx, &[("bng1", id)]).await.expect("sessions");
        assert_eq!(found.len(), 1);
        found.into_iter().next().expect("one")
    }

    /// (from, until, in octets) in seconds after the base, in order of sequence.
    pub(crate) async fn ledger(&self) -> Vec<(i64, i64, i64)> {
        let mut tx = self.store.read().await.expect("a transaction");
        let entries = ledger::of_account(&mut tx, 7, 0, 10_000).await.expect("entries");
        let dense = entries.iter().zip(1..).all(|(entry, sequence)| entry.sequence == sequence);
        assert!(dense, "sequences are dense");
        let seconds = |at: i64| (at - BASE) / 1_000_000;
        entries.iter().map(|e| (seconds(e.from_at), seconds(e.until_at), e.in_octets)).collect()
    }

    /// (in octets, sessions) of every total.
    pub(crate) async fn totals(&self) -> Vec<(i64, i64)> {
        let octets = self.number("SELECT CAST(COALESCE(SUM(in_octets), 0) AS BIGINT) FROM usage_total").await;
        let sessions = self.number("SELECT CAST(COALESCE(SUM(sessions), 0) AS BIGINT) FROM usage_total").await;
        assert_eq!(self.number("SELECT COUNT(*) FROM usage_total").await, 1, "all in one period");
        vec![(octets, sessions)]
    }

    pub(crate) async fn sql(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        if self.url.starts_with("postgres") {
            let mut c = sqlx::PgConnection::connect(&self.url).await.expect("connects");
            sqlx::query(statement).execute(&mut c).await.expect("a statement of the test");
        } else {
            let mut c = sqlx::SqliteConnection::connect(&self.url).await.expect("connects");
            sqlx::query(statement).execute(&mut c).await.expect("a statement of the test");
        }
    }

    pub(crate) async fn number(&self, statement: &str) -> i64 {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        if self.url.starts_with("postgres") {
            let mut c = sqlx::PgConnection::connect(&self.url).await.expect("connects");
            sqlx::query_scalar(statement).fetch_one(&mut c).await.expect("a number")
        } else {
            let mut c = sqlx::SqliteConnection::connect(&self.url).await.expect("connects");
            sqlx::query_scalar(statement).fetch_one(&mut c).await.expect("a number")
        }
    }
}

pub(crate) fn report(session: &str, status: u32, event: u32, seconds: u32, octets: u32) -> Vec<u8> {
    let event_at = u32::try_from(BASE / 1_000_000).expect("a time of ours") + event;
    let mut packet = RequestBuilder::accounting(1)
        .integer(attribute::ACCT_STATUS_TYPE, status)
        .text(attribute::ACCT_SESSION_ID, session)
        .text(attribute::USER_NAME, "ada@acme")
        .integer(attribute::EVENT_TIMESTAMP, event_at);
    if status != 1 {
        packet = packet
            .integer(attribute::ACCT_SESSION_TIME, seconds)
            .integer(attribute::ACCT_INPUT_OCTETS, octets)
            .integer(attribute::ACCT_OUTPUT_OCTETS, octets);
    }
    packet.sign(&secret()).expect("fits")
}

/// A Stop that no account can own.
fn nameless(session: &str, octets: u32) -> Vec<u8> {
    RequestBuilder::accounting(3)
        .integer(attribute::ACCT_STATUS_TYPE, 2)
        .text(attribute::ACCT_SESSION_ID, session)
        .integer(attribute::ACCT_SESSION_TIME, 60)
        .integer(attribute::ACCT_INPUT_OCTETS, octets)
        .sign(&secret())
        .expect("fits")
}

fn reboot(event: u32) -> Vec<u8> {
    let event_at = u32::try_from(BASE / 1_000_000).expect("a time of ours") + event;
    RequestBuilder::accounting(2)
        .integer(attribute::ACCT_STATUS_TYPE, 7)
        .integer(attribute::EVENT_TIMESTAMP, event_at)
        .sign(&secret())
        .expect("fits")
}

fn entry(packet: Vec<u8>) -> JournalEntry {
    JournalEntry {
        arrived_at: at(50_000),
        nas: "bng1".into(),
        source: std::net::SocketAddr::from(([127, 0, 0, 1], 4000)).into(),
        packet,
    }
}

pub(crate) fn secret() -> Secret {
    Secret::new("testing123")
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    from_micros(BASE + seconds * 1_000_000).expect("an instant of the test")
}

/// 2026-11-10T00:00:00Z.
pub(crate) const BASE: i64 = 1_794_268_800_000_000;

pub(crate) type Work = std::pin::Pin<Box<dyn Future<Output = ()>>>;

pub(crate) fn on_sqlite(work: impl FnOnce(Bench) -> Work) {
    let dir = temp_dir();
    run(&format!("sqlite://{}", dir.path().join("lastmile.db").display()), None, work);
}

pub(crate) fn on_postgres(work: impl FnOnce(Bench) -> Work) {
    let dir = temp_dir();
    let key = dir.path().join("key");
    std::fs::write(&key, "0123456789abcdef".repeat(4)).expect("a key file");
    run(&postgres::database(), Some(key), work);
}

fn run(url: &str, key_file: Option<std::path::PathBuf>, work: impl FnOnce(Bench) -> Work) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = StoreConfig { url: url.to_owned(), key_file, previous_key_file: None, owner: "test".to_owned() };
        let store = Store::open(&config).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let writer = store.open_journal(at(0)).await.expect("a lane");
        let mut tx = store.read().await.expect("a transaction");
        assert!(fold_store::watermarks(&mut tx).await.expect("watermarks").is_empty());
        drop(tx);
        work(Bench { store: store.clone(), url: url.to_owned(), config, writer }).await;
        store.close().await;
    });
}
