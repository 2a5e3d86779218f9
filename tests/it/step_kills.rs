//! `kill -9` between every two steps of a modem's change: it runs its new file after one boot, and nothing is half-made.

use std::time::Duration;

use serde_json::json;

use crate::harness::daemon::Site;
use crate::harness::modem::{Agent, come_up, fetch_until_last};
use crate::harness::{is_long, long_or, wait_for};
use crate::modems::Plant;

const MAC: &str = "00:11:22:33:44:55";
const SOON: Duration = Duration::from_secs(100);
/// Sooner than a boot that nothing was heard of is looked at again.
const AT_ONCE: Duration = Duration::from_secs(25);
const SETTINGS: &str = "[snmp]\ncommunity = \"plant-community\"\n";

/// When the daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The push was answered.
    Pushed,
    /// The new file is on offer; the modem is silent, so that it is not reset yet.
    Offered,
    /// The modem has the reset; its answer has not come.
    ResetReceived,
    /// It boots; the reset is written down.
    Booting,
    /// It has the whole file; its last acknowledgement has not come.
    Fetched,
    /// The fetch is written down; the modem has not come up.
    Awaited,
}

const MOMENTS: [Moment; 6] =
    [Moment::Pushed, Moment::Offered, Moment::ResetReceived, Moment::Booting, Moment::Fetched, Moment::Awaited];

#[test]
fn a_kill_between_two_steps_costs_no_second_boot_on_sqlite() {
    changes(Plant::new(Site::sqlite(), SETTINGS, 51), &MOMENTS, long_or(20, 3), AT_ONCE);
}

/// Where other daemons may be alive, a job that was under way is taken over when its lease ends, after a minute.
#[test]
fn a_kill_between_two_steps_costs_no_second_boot_on_postgres() {
    let quick = [Moment::Fetched];
    let (moments, limit) = if is_long() { (&MOMENTS[..], SOON) } else { (&quick[..], AT_ONCE) };
    changes(Plant::new(Site::postgres(), SETTINGS, 52), moments, long_or(5, 2), limit);
}

/// Every moment `rounds` times, in an order of chance.
fn changes(mut plant: Plant, moments: &[Moment], rounds: u32, limit: Duration) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        u64::from(now.subsec_nanos()) | 1
    });
    println!("seed {seed}");
    plant.push(MAC, |_| {});
    let agent = plant.agent(1);
    boot(&plant, &agent, || ());
    plant.until(MAC, |device| device["confirmed_revision"] == 1 && device["state"] == "applied");
    assert_eq!(agent.resets(), 0, "it was turned on by its subscriber");

    let mut chance = seed;
    let mut moments: Vec<Moment> = (0..rounds).flat_map(|_| moments.to_vec()).collect();
    for place in (1..moments.len()).rev() {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        moments.swap(place, (chance >> 33) as usize % (place + 1));
    }
    for (turn, moment) in moments.iter().enumerate() {
        let (revision, resets) = (turn + 2, turn + 1);
        change(&mut plant, &agent, *moment, revision, resets, limit);
        assert_eq!(agent.resets(), resets, "{moment:?} of seed {seed}: more than one reset");
        let device = plant.device(MAC).expect("it is listed");
        for told in ["desired_revision", "offered_revision", "fetched_revision", "confirmed_revision"] {
            assert_eq!(device[told], json!(revision), "{moment:?} of seed {seed}: {device:#}");
        }
    }
    let differing = plant.site.lastmile(&["drift", "list"]).status.code();
    assert_eq!((differing, plant.site.json(&["exception", "list"])), (Some(0), json!([])), "seed {seed}");
    println!(
        "PROOF: kill -9 between two steps of a modem's change: {} changes, {} resets, seed {seed}",
        moments.len(),
        agent.resets()
    );
}

fn change(plant: &mut Plant, agent: &Agent, moment: Moment, revision: usize, resets: usize, limit: Duration) {
    // Never the same as before, and never the two of its plan.
    let push = |plant: &Plant| plant.push(MAC, |account| account["services"][0]["max_cpe"] = json!(10 + revision));
    let is_reset = || wait_for("it is reset", SOON, || (agent.resets() == resets).then_some(()));
    match moment {
        Moment::Pushed => {
            push(plant);
            plant.kill_and_start();
        }
        Moment::Offered => {
            agent.silence(true);
            push(plant);
            plant.until(MAC, |device| device["offered_revision"] == revision);
            plant.kill();
            assert_eq!(agent.resets(), resets - 1, "silent modems hear no reset");
            agent.silence(false);
            plant.kill_and_start();
        }
        Moment::ResetReceived => {
            agent.hold_answers(true);
            push(plant);
            is_reset();
            plant.kill();
            agent.silence(true);
            agent.hold_answers(false);
            plant.kill_and_start();
        }
        Moment::Booting | Moment::Fetched | Moment::Awaited => push(plant),
    }
    is_reset();
    agent.silence(true);
    if moment == Moment::Booting {
        // What the modem answered is written down within this time, or is not: either must do.
        std::thread::sleep(Duration::from_millis(100));
        plant.kill_and_start();
    }
    if moment == Moment::Fetched {
        wait_for("the reset is written down", SOON, || plant.evidence().contains("reset by SNMP").then_some(()));
        boot(plant, agent, || plant.kill());
        plant.kill_and_start();
    } else if moment == Moment::Awaited {
        let name = plant.file(MAC);
        let bytes = fetch_until_last(agent.address, plant.tftp(), &name, || ()).expect("its file");
        plant.until(MAC, |device| device["fetched_revision"] == revision);
        plant.kill_and_start();
        come_up(agent, 12, &name, &bytes);
    } else {
        boot(plant, agent, || ());
    }
    plant.until_in(limit, MAC, |device| device["confirmed_revision"] == revision && device["state"] == "applied");
    if moment == Moment::Fetched {
        let told = plant.details(MAC);
        assert_eq!(told["fetch_seen"], json!(false), "{told:#}");
        assert!(told["evidence"].to_string().contains("its fetch was not seen"), "{told:#}");
    }
}

/// The modem asks for its file's name, fetches it and comes up.
fn boot(plant: &Plant, agent: &Agent, before_last: impl FnOnce()) {
    let name = plant.file(MAC);
    let bytes = fetch_until_last(agent.address, plant.tftp(), &name, before_last).expect("its file");
    come_up(agent, 12, &name, &bytes);
}
