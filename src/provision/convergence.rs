//! What a device needs next, so that it demonstrably runs what is desired: facts in, one step out.
//!
//! Comes in: what is wanted of a modem or MTA, what was seen of it, and what may be done to it. Goes out: one `Step`.
//! Looks at no clock, network or database; whoever takes the step asks again with the new facts, so a crash between any
//! two steps converges.
//!
//! ```text
//! offered ──► may it boot? ──no──► settled: taken at its next boot
//!                 │ yes
//!                 ▼
//!              reset ──► await the fetch ──in time──► confirm ──► settled: applied
//!                ▲            │ not in time
//!                └────────────┘ at most RESETS_MOST times, then settled: offline
//! ```
//! A fetch seen at any time, asked for or not, goes on at `confirm`. A device whose running file has the same effective
//! content is never reset.

use std::time::Duration;

use crate::vocabulary::Timestamp;

/// Everything a step follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    pub desired_revision: i64,
    /// Effective digest of the desired file; `None`: the device must be gone from the plant.
    pub wanted: Option<String>,
    /// The last complete fetch; `None`: it was never seen to take a file.
    pub running: Option<Running>,
    /// The newest reset that was sent.
    pub reset: Option<ResetSent>,
    /// Whether an address is known at which it can be asked.
    pub reachable: bool,
    /// Whether this revision may cost a boot: one person's push, or a rollout's turn. Bulk changes wait for the next boot.
    pub may_reset: bool,
    /// A reset was asked for by hand or rollout and is not sent yet: it boots whatever its content.
    pub forced: bool,
    pub means: Means,
}

/// How the device can be reached at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Means {
    /// The device answers SNMP for us, by configuration.
    pub snmp: bool,
    /// Its CMTS may be asked to reset it.
    pub cmts: bool,
}

/// What the device took last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub revision: i64,
    pub digest: String,
    pub fetched_at: Timestamp,
}

/// A reset as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetSent {
    /// The revision it was sent for.
    pub revision: i64,
    pub at: Timestamp,
    /// How many were sent for this revision.
    pub count: u32,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing more until something new is seen.
    Settle(Settled),
    /// It boots: look again at `until`, or when it fetches.
    AwaitFetch { until: Timestamp },
    /// Make it boot.
    Reset,
    /// Ask it, or its CMTS, whether it runs the file of `revision`.
    Confirm { revision: i64, fetched_at: Timestamp },
}

/// Where it stands when nothing more can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It fetched the newest file; nobody can be asked more.
    Fetched,
    /// Its file is on offer; it takes it when it boots.
    NextBoot,
    /// Its file is on offer and it was never seen.
    NeverSeen,
    /// It was seen, but there is no address for it now.
    Away,
    /// It did not come back after resets.
    NotBack { resets: u32 },
    /// It booted again and again with the file of another revision: DHCP does not hand out the newest name.
    OtherFile { revision: i64 },
    /// Gone as desired: it was reset and finds no file of its own any more.
    Removed,
    /// Gone as desired: it was never seen or cannot be reached; its next boot finds no file of its own.
    RemovedUnreached,
}

/// A modem that was reset is back within this: ranging, DHCP and TFTP take one to three minutes.
pub const BOOT_ALLOWANCE: Duration = Duration::from_secs(5 * 60);
/// Resets of one revision before a device counts as offline.
pub const RESETS_MOST: u32 = 3;
/// How often a boot is looked at when no fetch wakes us first.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The next step at `now`.
pub fn next_step(facts: &DeviceFacts, now: Timestamp) -> Step {
    let sent = facts.reset.filter(|reset| reset.revision == facts.desired_revision);
    match &facts.wanted {
        None => removal(facts, sent),
        Some(digest) => presence(facts, digest, sent, now),
    }
}

fn removal(facts: &DeviceFacts, sent: Option<ResetSent>) -> Step {
    match sent {
        Some(_) => Step::Settle(Settled::Removed),
        None if facts.running.is_none() || !can_reset(facts) => Step::Settle(Settled::RemovedUnreached),
        None => Step::Reset,
    }
}

fn presence(facts: &DeviceFacts, digest: &str, sent: Option<ResetSent>, now: Timestamp) -> Step {
    if facts.forced && can_reset(facts) {
        return Step::Reset;
    }
    if let Some(reset) = sent
        && facts.running.as_ref().is_none_or(|running| running.fetched_at <= reset.at)
    {
        return awaiting(facts, reset, now);
    }
    match &facts.running {
        Some(running) if running.revision == facts.desired_revision || running.digest == digest => {
            if facts.means.snmp || facts.means.cmts {
                Step::Confirm { revision: running.revision, fetched_at: running.fetched_at }
            } else {
                Step::Settle(Settled::Fetched)
            }
        }
        None if !facts.reachable => Step::Settle(Settled::NeverSeen),
        _ if !facts.may_reset || !(facts.means.snmp || facts.means.cmts) => Step::Settle(Settled::NextBoot),
        _ if !can_reset(facts) => Step::Settle(Settled::Away),
        Some(running) if sent.is_some_and(|reset| reset.count >= RESETS_MOST) => {
            Step::Settle(Settled::OtherFile { revision: running.revision })
        }
        _ => Step::Reset,
    }
}

fn awaiting(facts: &DeviceFacts, reset: ResetSent, now: Timestamp) -> Step {
    let overdue = reset.at.checked_add(BOOT_ALLOWANCE).unwrap_or(Timestamp::MAX);
    if now < overdue {
        let soon = now.checked_add(LOOK_EVERY).unwrap_or(Timestamp::MAX);
        return Step::AwaitFetch { until: soon.min(overdue) };
    }
    if reset.count < RESETS_MOST && can_reset(facts) {
        return Step::Reset;
    }
    Step::Settle(Settled::NotBack { resets: reset.count })
}

/// SNMP needs an address; the CMTS knows the device by its MAC.
fn can_reset(facts: &DeviceFacts) -> bool {
    facts.means.cmts || (facts.means.snmp && facts.reachable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds is an instant")
    }

    fn facts() -> DeviceFacts {
        DeviceFacts {
            desired_revision: 2,
            wanted: Some("new".to_owned()),
            running: Some(Running { revision: 1, digest: "old".to_owned(), fetched_at: at(10) }),
            reset: None,
            reachable: true,
            may_reset: true,
            forced: false,
            means: Means { snmp: true, cmts: false },
        }
    }

    fn sent(revision: i64, second: i64, count: u32) -> Option<ResetSent> {
        Some(ResetSent { revision, at: at(second), count })
    }

    fn ran(revision: i64, digest: &str, second: i64) -> Option<Running> {
        Some(Running { revision, digest: digest.to_owned(), fetched_at: at(second) })
    }

    #[test]
    fn each_situation_has_its_step() {
        let no_means = Means::default();
        let confirm = |revision, second| Step::Confirm { revision, fetched_at: at(second) };
        let settle = Step::Settle;
        let cases = [
            ("a changed file costs a boot", facts(), Step::Reset),
            ("a bulk change does not", DeviceFacts { may_reset: false, ..facts() }, settle(Settled::NextBoot)),
            ("without SNMP it waits", DeviceFacts { means: no_means, ..facts() }, settle(Settled::NextBoot)),
            ("nobody there", DeviceFacts { reachable: false, ..facts() }, settle(Settled::Away)),
            (
                "the CMTS needs no address",
                DeviceFacts { reachable: false, means: Means { snmp: true, cmts: true }, ..facts() },
                Step::Reset,
            ),
            ("never seen", DeviceFacts { running: None, reachable: false, ..facts() }, settle(Settled::NeverSeen)),
            (
                "the same content under a new revision needs no boot",
                DeviceFacts { running: ran(1, "new", 10), ..facts() },
                confirm(1, 10),
            ),
            (
                "unless it is asked for",
                DeviceFacts { running: ran(1, "new", 10), forced: true, ..facts() },
                Step::Reset,
            ),
            ("it boots", DeviceFacts { reset: sent(2, 80, 1), ..facts() }, Step::AwaitFetch { until: at(130) }),
            ("an older reset is none", DeviceFacts { reset: sent(1, 80, 1), ..facts() }, Step::Reset),
            ("it does not come back", DeviceFacts { reset: sent(2, -300, 1), ..facts() }, Step::Reset),
            (
                "and again not",
                DeviceFacts { reset: sent(2, -300, RESETS_MOST), running: None, ..facts() },
                settle(Settled::NotBack { resets: RESETS_MOST }),
            ),
            (
                "it fetched after the reset",
                DeviceFacts { reset: sent(2, 80, 1), running: ran(2, "new", 90), ..facts() },
                confirm(2, 90),
            ),
            (
                "it fetched, and nobody can be asked",
                DeviceFacts { running: ran(2, "new", 90), means: no_means, ..facts() },
                settle(Settled::Fetched),
            ),
            (
                "it keeps booting with another file",
                DeviceFacts { reset: sent(2, 5, RESETS_MOST), ..facts() },
                settle(Settled::OtherFile { revision: 1 }),
            ),
            ("a removed one is reset", DeviceFacts { wanted: None, ..facts() }, Step::Reset),
            ("once", DeviceFacts { wanted: None, reset: sent(2, 80, 1), ..facts() }, settle(Settled::Removed)),
            (
                "a removed one that was never there",
                DeviceFacts { wanted: None, running: None, ..facts() },
                settle(Settled::RemovedUnreached),
            ),
        ];
        for (name, facts, step) in cases {
            let running = facts.running.as_ref().map(|running| running.fetched_at);
            // The reset of the overdue cases lies before the fetch of the others.
            let facts = match facts.reset {
                Some(reset) if reset.at < at(0) && running.is_some() => {
                    DeviceFacts { running: ran(1, "old", -400), ..facts }
                }
                _ => facts,
            };
            assert_eq!(next_step(&facts, at(100)), step, "{name}");
        }
    }

    fn any_facts() -> impl Strategy<Value = DeviceFacts> {
        let running = proptest::option::of((1..4i64, prop::sample::select(vec!["old", "new"]), -900..100i64));
        let reset = proptest::option::of((1..4i64, -900..100i64, 1..5u32));
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
        (running, reset, proptest::option::of(Just("new")), flags).prop_map(|(running, reset, wanted, flags)| {
            let (reachable, may_reset, forced, snmp, cmts) = flags;
            DeviceFacts {
                desired_revision: 2,
                wanted: wanted.map(str::to_owned),
                running: running.and_then(|(revision, digest, second)| ran(revision, digest, second)),
                reset: reset.and_then(|(revision, second, count)| sent(revision, second, count)),
                reachable,
                may_reset,
                forced,
                means: Means { snmp, cmts },
            }
        })
    }

    proptest! {
        #[test]
        fn nobody_is_reset_for_nothing(facts in any_facts()) {
            if next_step(&facts, at(100)) == Step::Reset && facts.wanted.is_some() && !facts.forced {
                let same = facts.running.as_ref().is_some_and(|running| Some(&running.digest) == facts.wanted.as_ref());
                let sent = facts.reset.filter(|reset| reset.revision == facts.desired_revision);
                // A device that runs the content already is reset again only when it was reset and did not come back.
                prop_assert!(!same || sent.is_some());
                prop_assert!(facts.may_reset || sent.is_some());
                prop_assert!(sent.is_none_or(|sent| sent.count < RESETS_MOST));
            }
        }

        #[test]
        fn a_reset_is_only_asked_of_whom_can_be_reached(facts in any_facts()) {
            if next_step(&facts, at(100)) == Step::Reset {
                prop_assert!(facts.means.cmts || (facts.means.snmp && facts.reachable));
            }
        }

        /// However it goes on, the steps end: each step's effect is played back as a fact.
        #[test]
        fn the_steps_end(facts in any_facts(), answers in any::<u8>()) {
            let (mut facts, mut now) = (facts, 100);
            for turn in 0..64u32 {
                match next_step(&facts, at(now)) {
                    Step::Settle(_) | Step::Confirm { .. } => return Ok(()),
                    Step::AwaitFetch { until } => {
                        prop_assert!(until > at(now));
                        now = until.as_second();
                        facts.running = match answers >> (turn % 4 * 2) & 3 {
                            1 => ran(facts.desired_revision, "new", now),
                            2 => ran(1, "old", now),
                            _ => facts.running,
                        };
                    }
                    Step::Reset => {
                        let count = facts.reset.filter(|sent| sent.revision == 2).map_or(0, |sent| sent.count);
                        facts.reset = sent(2, now, count + 1);
                        facts.forced = false;
                    }
                }
            }
            prop_assert!(false, "still going on");
        }
    }
}
