//! A disk whose writes fail, that hangs, that is read-only: nothing is answered that is not durable, `/readyz` says so,
//! and afterwards everything that was answered is there — also after a power cut behind an error that has passed.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::acme::{CATALOG, internet};
use crate::harness::daemon::{Daemon, Site};
use crate::harness::disk::{Disk, FileSystem};
use crate::harness::nas::{Nas, Truth};
use crate::harness::truth::{StoredReports, wrong_after};
use crate::harness::{http, long_or, run, temp_dir, wait_for};

const LINKS: u32 = 12;
const SOON: Duration = Duration::from_secs(15);
/// The daemon copies a log that grows at least so often.
const COPIED_WITHIN: Duration = Duration::from_millis(2500);
/// What was committed before a fault may still be answered so long after it.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// The kernel tells a failed write once and forgets what it could not write; a later fsync succeeds without it. So nothing
/// may be answered behind something in the log that was not synced.
#[test]
fn writes_that_failed_once_are_not_trusted_afterwards() {
    let Some(disk) = disk_or_not_run("writes_that_failed_once_are_not_trusted_afterwards", || {
        Disk::fallible(FileSystem::XfsLogApart)
    }) else {
        return;
    };
    let site = site_on(&disk);
    let mut daemon = prepared(&site);
    let nas = start_nas(&site, "e");
    let rounds = long_or(20, 3);
    let mut checked = 0;
    // Without an error first: this file system keeps what was synced.
    for round in 0..=rounds {
        answered(&nas);
        if round == 0 {
            disk.cut_power_of(daemon);
            let acked = nas.acked();
            disk.restore_power();
            assert_eq!(StoredReports::of(&site).missing(&acked).len(), 0, "lost with the power, without any error");
            checked = acked.len();
            daemon = site.start();
            continue;
        }
        disk.fail_writes(true);
        let silent = silent_and_unready(&site, &nas);
        std::thread::sleep(Duration::from_millis(500 + u64::from(round * 7919 % 1000)));
        assert_eq!(nas.answers_after(silent), 0, "round {round}: no write succeeds");
        disk.fail_writes(false);
        wait_for("accounting is answered again", SOON, || nas.first_answer_after(Instant::now() - ON_ITS_WAY));
        wait_for("the daemon is ready again", SOON, || (readiness(&site) == 200).then_some(()));
        std::thread::sleep(Duration::from_millis(500));
        // What was answered since must be on the disk, not only in the kernel's memory.
        disk.cut_power_of(daemon);
        let acked = nas.acked();
        disk.restore_power();
        let missing = StoredReports::of(&site).missing(&acked[checked..]).len();
        assert_eq!(missing, 0, "round {round}: answered after the error had passed, and lost with the power");
        checked = acked.len();
        daemon = site.start();
    }
    all_is_true(&site, nas.finish(), "failed writes");
    daemon.stop();
}

/// SQLite copies what a reader does not need from its log into the file without waiting for the disk. When that write
/// fails later, nothing may begin the log anew before it was copied again.
#[test]
fn a_log_whose_copy_failed_is_copied_again() {
    let Some(disk) =
        disk_or_not_run("a_log_whose_copy_failed_is_copied_again", || Disk::fallible(FileSystem::XfsLogApart))
    else {
        return;
    };
    let site = site_on(&disk);
    let mut daemon = prepared(&site);
    let nas = start_nas(&site, "c");
    let files = ["lastmile.db", "lastmile-accounting.db"].map(|name| disk.mount.join(name));
    let rounds = long_or(10, 2);
    let mut checked = 0;
    for round in 0..rounds {
        answered(&nas);
        let readers: Vec<Reader> = files.iter().map(|file| Reader::begin(file)).collect();
        std::thread::sleep(COPIED_WITHIN);
        disk.fail_writes(true);
        // What was copied meanwhile goes to the disk now, and fails.
        let _ = run("coreutils", "sync", &["-f", &disk.mount.display().to_string()]);
        silent_and_unready(&site, &nas);
        let afresh = || site.log_text().matches("begins afresh").count();
        let before = afresh();
        disk.fail_writes(false);
        wait_for("accounting is answered again", SOON, || nas.first_answer_after(Instant::now() - ON_ITS_WAY));
        std::thread::sleep(COPIED_WITHIN);
        assert_eq!(afresh(), before, "round {round}: beside a reader SQLite would not read its log itself");
        drop(readers);
        wait_for("the daemon begins afresh", SOON, || (afresh() > before).then_some(()));
        let afresh = Instant::now();
        wait_for("accounting is answered again", SOON, || nas.first_answer_after(afresh));
        // Long enough for a log that was not copied again to be begun anew.
        std::thread::sleep(COPIED_WITHIN);
        disk.cut_power_of(daemon);
        let acked = nas.acked();
        disk.restore_power();
        for file in &files {
            let told = run("sqlite3", "sqlite3", &[&file.display().to_string(), "PRAGMA integrity_check"]);
            assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "ok", "round {round}: {}", file.display());
        }
        let missing = StoredReports::of(&site).missing(&acked[checked..]).len();
        assert_eq!(missing, 0, "round {round}: answered, and lost with a copy that failed");
        checked = acked.len();
        daemon = site.start();
    }
    all_is_true(&site, nas.finish(), "failed copies of the log");
    daemon.stop();
}

/// XFS shuts itself down when its own log cannot be written: the disk stays away until it is mounted again.
#[test]
fn dead_disk_is_never_answered_for() {
    let Some(disk) = disk_or_not_run("dead_disk_is_never_answered_for", || Disk::fallible(FileSystem::Xfs)) else {
        return;
    };
    let site = site_on(&disk);
    let daemon = prepared(&site);
    let nas = start_nas(&site, "x");
    answered(&nas);
    disk.fail_writes(true);
    let silent = silent_and_unready(&site, &nas);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(nas.answers_after(silent), 0);
    assert_eq!(status(&site, "/healthz"), 200, "the process is alive and says what it waits for");
    disk.fail_writes(false);
    daemon.kill();
    disk.restore_power();
    let acked = nas.acked();
    let stored = StoredReports::of(&site);
    let missing = stored.missing(&acked);
    assert!(missing.is_empty(), "{} of {} answered reports are not stored: {missing:?}", missing.len(), acked.len());
    let daemon = site.start();
    all_is_true(&site, nas.finish(), "dead disk");
    daemon.stop();
}

#[test]
fn hanging_disk_is_never_answered_for_and_passes_without_restart() {
    let Some(disk) =
        disk_or_not_run("hanging_disk_is_never_answered_for_and_passes_without_restart", || Disk::new(FileSystem::Xfs))
    else {
        return;
    };
    let site = site_on(&disk);
    let daemon = prepared(&site);
    let nas = start_nas(&site, "h");
    answered(&nas);
    let mount = disk.mount.display().to_string();
    assert!(run("util-linux", "fsfreeze", &["-f", &mount]).status.success());
    let silent = silent_and_unready(&site, &nas);
    std::thread::sleep(Duration::from_secs(4));
    let answers = nas.answers_after(silent);
    assert!(run("util-linux", "fsfreeze", &["-u", &mount]).status.success());
    assert_eq!(answers, 0, "nothing can be written");
    let back = Instant::now();
    let first = wait_for("accounting is answered again", SOON, || nas.first_answer_after(back));
    println!("PROOF: hanging disk: first answer {:?} after the disk's return", first.duration_since(back));
    assert!(first.duration_since(back) < Duration::from_secs(5));
    wait_for("the daemon is ready again", SOON, || (readiness(&site) == 200).then_some(()));
    all_is_true(&site, nas.finish(), "hanging disk");
    daemon.stop();
}

/// What the kernel does with a file system it no longer trusts: it stays read-only although the drive works again.
#[test]
fn read_only_disk_is_never_answered_for() {
    let Some(disk) = disk_or_not_run("read_only_disk_is_never_answered_for", || Disk::fallible(FileSystem::Ext4))
    else {
        return;
    };
    let site = site_on(&disk);
    let daemon = prepared(&site);
    let nas = start_nas(&site, "r");
    answered(&nas);
    disk.fail_writes(true);
    let silent = silent_and_unready(&site, &nas);
    wait_for("ext4 goes read-only", SOON, || disk.is_read_only().then_some(()));
    disk.fail_writes(false);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(nas.answers_after(silent), 0);
    daemon.kill();
    disk.restore_power();
    let acked = nas.acked();
    let stored = StoredReports::of(&site);
    let missing = stored.missing(&acked);
    assert!(missing.is_empty(), "{} of {} answered reports are not stored: {missing:?}", missing.len(), acked.len());
    let daemon = site.start();
    all_is_true(&site, nas.finish(), "read-only disk");
    daemon.stop();
}

/// Somebody who reads one picture of a database for long.
struct Reader(Child);

impl Reader {
    fn begin(file: &Path) -> Self {
        let mut child = Command::new("sqlite3")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3 (Debian package sqlite3)");
        let question = b"BEGIN;\nSELECT count(*) FROM sqlite_master;\n";
        child.stdin.as_mut().expect("its input").write_all(question).expect("a question");
        let mut answer = [0u8; 1];
        child.stdout.as_mut().expect("its output").read_exact(&mut answer).expect("an answer");
        Self(child)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.kill().expect("the reader is ended");
        self.0.wait().expect("the reader is gone");
    }
}

fn disk_or_not_run(test: &str, make: impl FnOnce() -> Result<Disk, String>) -> Option<Disk> {
    match make() {
        Ok(disk) => Some(disk),
        Err(why) => {
            println!("NOT RUN: {test}: {why}");
            None
        }
    }
}

fn site_on(disk: &Disk) -> Site {
    Site::new(temp_dir(), &format!("sqlite://{}", disk.mount.join("lastmile.db").display()))
}

fn prepared(site: &Site) -> Daemon {
    site.prepare(CATALOG);
    let key = site.key("acme", "push");
    let daemon = site.start();
    for link in 0..LINKS {
        let answer = daemon.api(&key, "PUT", &format!("acme/accounts/a{link}"), Some(&internet(link)));
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    daemon
}

fn start_nas(site: &Site, prefix: &str) -> Nas {
    Nas::start(site.radius_port, LINKS, prefix, jiff::Timestamp::now().as_second() - 20_000_000)
}

/// Waits until the load runs well.
fn answered(nas: &Nas) {
    let before = nas.acked().len();
    wait_for("accounting is answered", SOON, || (nas.acked().len() > before + 100).then_some(()));
}

/// Waits until `/readyz` tells the fault; gives the instant since when nothing may be answered.
fn silent_and_unready(site: &Site, nas: &Nas) -> Instant {
    std::thread::sleep(ON_ITS_WAY);
    let silent = Instant::now();
    wait_for("readiness tells the fault", SOON, || (status(site, "/readyz") == 503).then_some(()));
    assert_eq!(nas.answers_after(silent), 0, "answered although nothing can be made durable");
    silent
}

fn all_is_true(site: &Site, truth: Truth, what: &str) {
    let missing = StoredReports::of(site).missing(&truth.acked).len();
    let wrong = wrong_after(site, &truth, true, Duration::from_secs(60));
    println!(
        "PROOF: {what}: acked {} lost {missing} sessions {} wrong {}",
        truth.acked.len(),
        truth.finished.len(),
        wrong.len()
    );
    assert_eq!(truth.given_up, 0);
    assert_eq!(missing, 0);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// 503 also where nobody listens for a moment: a daemon that begins afresh is not ready.
fn readiness(site: &Site) -> u16 {
    http::request(site.http_port, "GET", "/readyz", &[], None).map_or(503, |answer| answer.status)
}

fn status(site: &Site, path: &str) -> u16 {
    http::request(site.http_port, "GET", path, &[], None).expect("an answer").status
}
