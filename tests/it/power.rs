//! The power fails at any moment under load: what was answered is in the journal afterwards, and counted exactly once.
//!
//! The data lies on an XFS file system of its own, which is shut down without writing its log: what was synced stays,
//! what was not is gone, as on a disk without power. The control runs the same daemon with `synchronous=NORMAL`, and
//! must lose what it answered: else the cut would prove nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::disk::{Disk, FileSystem};
use crate::harness::nas::Nas;
use crate::harness::truth::{StoredReports, wrong_after};
use crate::harness::{http, long_or, program, temp_dir, wait_for};

const LINKS: u32 = 12;

#[test]
fn power_cut_loses_nothing_that_was_answered() {
    let disk = match Disk::new(FileSystem::Xfs) {
        Ok(disk) => disk,
        Err(why) => {
            println!("NOT RUN: power_cut_loses_nothing_that_was_answered: {why}");
            return;
        }
    };
    let cuts = long_or(100, 5);
    let (site, key) = site_on(&disk);
    let mut daemon = site.start();
    push_accounts(&daemon, &key);
    let nas = Nas::start(site.radius_port, LINKS, "p", jiff::Timestamp::now().as_second() - 20_000_000);
    let mut stored = StoredReports::default();
    let mut checked = 0;
    for cut in 0..cuts {
        std::thread::sleep(Duration::from_millis(moment(cut)));
        // In the middle of accounts being pushed, too.
        let pushed = push(&site, &key, 1000 + cut);
        disk.cut_power_of(daemon);
        let acked = nas.acked();
        disk.restore_power();
        stored.read_on(&site);
        let missing = stored.missing(&acked[checked..]);
        assert!(missing.is_empty(), "cut {cut}: answered and lost: {missing:?}");
        checked = acked.len();
        assert_whole(&disk);
        daemon = site.start();
        if pushed {
            let answer = daemon.api(&key, "GET", &format!("acme/accounts/c{}", 1000 + cut), None);
            assert_eq!(answer.status, 200, "cut {cut}: the account was stored, said the answer");
        }
    }
    let truth = nas.finish();
    // Once more from the first record on: a later cut must not take what an earlier one left.
    let missing = StoredReports::of(&site).missing(&truth.acked).len();
    let wrong = wrong_after(&site, &truth, true, Duration::from_secs(60));
    println!(
        "PROOF: power cuts {cuts}: acked {} lost {missing} sessions {} wrong {}",
        truth.acked.len(),
        truth.finished.len(),
        wrong.len()
    );
    assert_eq!(missing, 0);
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(truth.given_up, 0);
    daemon.stop();
}

#[test]
fn power_cut_without_full_synchronisation_loses_answered_records() {
    let disk = match Disk::new(FileSystem::Xfs) {
        Ok(disk) => disk,
        Err(why) => {
            println!("NOT RUN: power_cut_without_full_synchronisation_loses_answered_records: {why}");
            return;
        }
    };
    let cuts = long_or(20, 3);
    let (site, key) = site_on(&disk);
    push_accounts(&site.start(), &key);
    let undurable = program("examples/undurable");
    let mut lost = 0;
    let mut acked = 0;
    for cut in 0..cuts {
        let config = site.config.display().to_string();
        let daemon = site.spawn_program(&undurable, &[&config]);
        wait_for("the control is ready", Duration::from_secs(20), || {
            http::request(site.http_port, "GET", "/readyz", &[], None).ok().filter(|answer| answer.status == 200)
        });
        let prefix = format!("n{cut}");
        let nas = Nas::start(site.radius_port, LINKS, &prefix, jiff::Timestamp::now().as_second() - 20_000_000);
        std::thread::sleep(Duration::from_millis(400 + moment(cut)));
        disk.cut_power_of(daemon);
        let answered = nas.acked();
        disk.restore_power();
        lost += StoredReports::of(&site).missing(&answered).len();
        acked += answered.len();
        let after = site.start();
        nas.finish();
        after.stop();
    }
    println!("PROOF: power cuts {cuts} with synchronous=NORMAL (the control): acked {acked} lost {lost}");
    assert!(lost > 0, "the control lost nothing: cutting the power proves nothing here");
}

/// A site whose databases lie on the disk and everything else does not.
fn site_on(disk: &Disk) -> (Site, String) {
    let url = format!("sqlite://{}", database(disk).display());
    let site = Site::new(temp_dir(), &url);
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    (site, key)
}

fn database(disk: &Disk) -> PathBuf {
    disk.mount.join("lastmile.db")
}

fn push_accounts(daemon: &Daemon, key: &str) {
    for link in 0..LINKS {
        let answer = daemon.api(key, "PUT", &format!("acme/accounts/a{link}"), Some(&internet(link)));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
}

/// Whether an account pushed now was answered as stored; the power may be gone before.
fn push(site: &Site, key: &str, number: u32) -> bool {
    let bearer = format!("Bearer {key}");
    let path = format!("/v1/tenants/acme/accounts/c{number}");
    let body = internet(number).to_string();
    http::request(site.http_port, "PUT", &path, &[("Authorization", bearer.as_str())], Some(&body))
        .is_ok_and(|answer| answer.status == 201)
}

/// Milliseconds from a start to the next cut: its catching up, full load, a checkpoint, the same on each run.
fn moment(cut: u32) -> u64 {
    u64::from(cut * 7919 % 900)
}

fn assert_whole(disk: &Disk) {
    for file in [database(disk), disk.mount.join("lastmile-accounting.db")] {
        let told = crate::harness::run("sqlite3", "sqlite3", &[&file.display().to_string(), "PRAGMA integrity_check"]);
        let told = String::from_utf8_lossy(&told.stdout).trim().to_owned();
        assert_eq!(told, "ok", "{}", file.display());
    }
}
