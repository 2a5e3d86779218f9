//! How a rollout goes on: how many devices may be moved now, and when it must stop by itself.
//!
//! Comes in: the operator's policy and what became of the members so far. Goes out: one `Decision`. A rollout begins with a
//! canary, waits until all of it is back, then goes at its rate; too many devices that do not come back halt it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::vocabulary::Timestamp;

/// How a rollout reaches its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutMode {
    /// Each takes its new file when it boots next, by itself.
    NextBoot,
    /// Devices whose running file differs are reset.
    Reset,
    /// Every device is reset, whatever it runs: for example when a shared secret is rotated.
    ResetAll,
}

/// What the operator decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutPolicy {
    pub mode: RolloutMode,
    /// Devices moved first.
    pub canary: u32,
    /// Devices moved in a minute behind one CMTS.
    pub per_minute: u32,
    /// More than this part of those that should be back is not: halt.
    pub halt_percent: u32,
    /// A device that is not back after this counts as lost.
    pub back_within_seconds: u32,
    /// Only in the maintenance window.
    pub in_window: bool,
    /// Accounts held on a catalog of before stay there: a rollback.
    #[serde(default)]
    pub keep_held: bool,
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            mode: RolloutMode::NextBoot,
            canary: 10,
            per_minute: 60,
            halt_percent: 5,
            back_within_seconds: 900,
            in_window: false,
            keep_held: false,
        }
    }
}

/// Where a member of a rollout stands. The text form is the `phase` column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Its turn has not come.
    Waiting,
    /// It was moved, and what came of it is awaited.
    Moved,
    /// It runs its new file; or, for `NextBoot`, the file is on offer.
    Back,
    /// It did not come back in time.
    Lost,
    /// It needs nothing, or cannot be reached now and takes its file when it boots.
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no phase of a rollout's member")]
pub struct PhaseError(String);

/// What became of the members so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub waiting: u64,
    pub moved: u64,
    pub back: u64,
    pub lost: u64,
    pub skipped: u64,
    /// Members moved in the last minute, by CMTS.
    pub moved_lately: BTreeMap<String, u32>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Everybody had a turn, and nobody is awaited.
    Finish,
    /// Stop and call a person.
    Halt(String),
    /// Move so many: behind each CMTS at most `per_minute` less what `moved_lately` says, `most` in all.
    Move { most: u64 },
    /// Wait for what is under way, or for the window.
    Wait,
}

/// Lost devices below which nothing is concluded: two of three may be a street without power.
const LEAST_LOST: u64 = 3;

/// The next thing to do. `window_open` is whether the maintenance window is open now.
pub fn decide_rollout(policy: &RolloutPolicy, tally: &Tally, window_open: bool) -> Decision {
    let known = tally.back + tally.lost;
    let in_canary =
        tally.moved + known < u64::from(policy.canary) || (known < u64::from(policy.canary) && tally.moved > 0);
    // In the canary every lost device counts: it is small so that it can.
    let least = if known <= u64::from(policy.canary) { 1 } else { LEAST_LOST };
    if tally.lost >= least && tally.lost * 100 > known * u64::from(policy.halt_percent) {
        return Decision::Halt(format!(
            "{} of {known} devices did not come back within {} s, more than {} %",
            tally.lost, policy.back_within_seconds, policy.halt_percent
        ));
    }
    if tally.waiting == 0 {
        return if tally.moved == 0 { Decision::Finish } else { Decision::Wait };
    }
    if policy.in_window && !window_open {
        return Decision::Wait;
    }
    if in_canary {
        let room = u64::from(policy.canary).saturating_sub(tally.moved + known);
        return if room > 0 { Decision::Move { most: room } } else { Decision::Wait };
    }
    Decision::Move { most: tally.waiting }
}

/// What became of one moved member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberFacts {
    pub moved_at: Timestamp,
    /// The account's elements were worked out under the catalog it moves to.
    pub settled: bool,
    /// Its newest revision is in force, or on offer and nothing more can be asked.
    pub applied: bool,
    /// The file on offer differs, for the device, from the one it runs.
    pub behind: bool,
    /// When it last fetched a file.
    pub fetched_at: Option<Timestamp>,
    /// It was never seen, or nobody knows where it is.
    pub out_of_reach: bool,
    /// A job is still at work on it.
    pub under_way: bool,
    /// Its reset was asked for or sent since it was moved.
    pub reset_asked: bool,
}

/// Whether a moved member's reset is due: its account stands under the catalog it moves to, and what it runs differs.
pub fn reset_is_due(policy: &RolloutPolicy, facts: &MemberFacts) -> bool {
    let wanted = match policy.mode {
        RolloutMode::NextBoot => false,
        RolloutMode::Reset => facts.behind,
        // One that booted by itself since has what the reset is for.
        RolloutMode::ResetAll => facts.fetched_at.is_none_or(|at| at < facts.moved_at),
    };
    wanted && facts.settled && !facts.reset_asked
}

/// The phase of a moved member now.
pub fn phase_of(policy: &RolloutPolicy, facts: &MemberFacts, now: Timestamp) -> Phase {
    let waited = now.duration_since(facts.moved_at).as_secs();
    let late = waited > i64::from(policy.back_within_seconds);
    if !facts.settled {
        return if late { Phase::Lost } else { Phase::Moved };
    }
    let booted = facts.fetched_at.is_some_and(|at| at >= facts.moved_at);
    match policy.mode {
        RolloutMode::NextBoot if !facts.under_way => Phase::Back,
        RolloutMode::Reset if facts.applied && !facts.behind => Phase::Back,
        RolloutMode::ResetAll if facts.applied && booted => Phase::Back,
        RolloutMode::Reset | RolloutMode::ResetAll if facts.out_of_reach && !facts.under_way => Phase::Skipped,
        _ if late => Phase::Lost,
        _ => Phase::Moved,
    }
}

impl Phase {
    pub const ALL: [Phase; 5] = [Phase::Waiting, Phase::Moved, Phase::Back, Phase::Lost, Phase::Skipped];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Moved => "moved",
            Phase::Back => "back",
            Phase::Lost => "lost",
            Phase::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = PhaseError;

    fn from_str(text: &str) -> Result<Self, PhaseError> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text).ok_or_else(|| PhaseError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tally(waiting: u64, moved: u64, back: u64, lost: u64) -> Tally {
        Tally { waiting, moved, back, lost, ..Tally::default() }
    }

    #[test]
    fn it_begins_with_the_canary_and_waits_for_all_of_it() {
        let policy = RolloutPolicy::default();
        let cases = [
            (tally(1000, 0, 0, 0), Decision::Move { most: 10 }),
            (tally(993, 7, 0, 0), Decision::Move { most: 3 }),
            (tally(990, 10, 0, 0), Decision::Wait),
            (tally(990, 1, 9, 0), Decision::Wait),
            (tally(990, 0, 10, 0), Decision::Move { most: 990 }),
            (tally(500, 300, 200, 0), Decision::Move { most: 500 }),
            (tally(0, 3, 997, 0), Decision::Wait),
            (tally(0, 0, 1000, 0), Decision::Finish),
            (tally(0, 0, 0, 0), Decision::Finish),
        ];
        for (tally, expected) in cases {
            assert_eq!(decide_rollout(&policy, &tally, true), expected, "{tally:?}");
        }
    }

    #[test]
    fn it_halts_by_itself_when_too_many_stay_away() {
        let policy = RolloutPolicy::default();
        let halts = |tally: Tally| matches!(decide_rollout(&policy, &tally, true), Decision::Halt(_));
        assert!(halts(tally(990, 9, 0, 1)), "the first of the canary");
        assert!(halts(tally(900, 0, 94, 6)));
        assert!(!halts(tally(900, 0, 95, 5)), "five of a hundred is not more than 5 %");
        assert!(!halts(tally(900, 0, 98, 2)));
    }

    #[test]
    fn outside_the_window_nothing_moves() {
        let policy = RolloutPolicy { in_window: true, ..RolloutPolicy::default() };
        assert_eq!(decide_rollout(&policy, &tally(10, 0, 0, 0), false), Decision::Wait);
        assert_eq!(decide_rollout(&policy, &tally(0, 0, 10, 0), false), Decision::Finish);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds is an instant")
    }

    #[test]
    fn a_member_is_back_when_it_runs_its_new_file() {
        let facts = MemberFacts {
            moved_at: at(100),
            settled: true,
            applied: true,
            behind: false,
            fetched_at: Some(at(160)),
            out_of_reach: false,
            under_way: false,
            reset_asked: false,
        };
        let reset = RolloutPolicy { mode: RolloutMode::Reset, ..RolloutPolicy::default() };
        let all = RolloutPolicy { mode: RolloutMode::ResetAll, ..reset.clone() };
        let offer = RolloutPolicy::default();
        let cases = [
            (&reset, facts, 200, Phase::Back),
            (&reset, MemberFacts { fetched_at: Some(at(50)), ..facts }, 200, Phase::Back),
            (&all, MemberFacts { fetched_at: Some(at(50)), ..facts }, 200, Phase::Moved),
            (&all, facts, 200, Phase::Back),
            (&reset, MemberFacts { applied: false, behind: true, ..facts }, 200, Phase::Moved),
            (&reset, MemberFacts { applied: false, behind: true, ..facts }, 1200, Phase::Lost),
            (&reset, MemberFacts { settled: false, ..facts }, 200, Phase::Moved),
            (&reset, MemberFacts { applied: false, out_of_reach: true, ..facts }, 200, Phase::Skipped),
            (&offer, MemberFacts { applied: false, behind: true, ..facts }, 200, Phase::Back),
            (&offer, MemberFacts { under_way: true, applied: false, ..facts }, 200, Phase::Moved),
        ];
        for (policy, facts, now, expected) in cases {
            assert_eq!(phase_of(policy, &facts, at(now)), expected, "{policy:?} {facts:?}");
        }
        let behind = MemberFacts { applied: false, behind: true, ..facts };
        let not_booted = MemberFacts { fetched_at: Some(at(50)), ..facts };
        assert!(reset_is_due(&reset, &behind) && reset_is_due(&all, &not_booted));
        assert!(reset_is_due(&all, &MemberFacts { fetched_at: None, ..facts }));
        assert!(!reset_is_due(&all, &facts), "it booted by itself since it was moved");
        assert!(!reset_is_due(&reset, &facts) && !reset_is_due(&offer, &behind));
        assert!(!reset_is_due(&reset, &MemberFacts { settled: false, ..behind }), "not before its account has moved");
        assert!(!reset_is_due(&all, &MemberFacts { reset_asked: true, ..not_booted }), "once");
    }

    proptest! {
        /// Played on with any share of devices that stay away: it ends, and never moves more at once than it may.
        #[test]
        fn it_ends_or_halts_and_never_moves_beyond_the_canary_unproven(
            size in 1u64..500, canary in 1u32..50, away in 0u64..100
        ) {
            let policy = RolloutPolicy { canary, ..RolloutPolicy::default() };
            let (mut tally, mut seen) = (tally(size, 0, 0, 0), 0);
            for _ in 0..2000 {
                match decide_rollout(&policy, &tally, true) {
                    Decision::Finish => {
                        prop_assert_eq!(tally.back + tally.lost, size);
                        return Ok(());
                    }
                    Decision::Halt(_) => {
                        prop_assert!(tally.lost > 0);
                        return Ok(());
                    }
                    Decision::Move { most } => {
                        let count = most.min(tally.waiting);
                        prop_assert!(count > 0);
                        if tally.back + tally.lost < u64::from(canary) {
                            prop_assert!(tally.moved + tally.back + tally.lost + count <= u64::from(canary));
                        }
                        tally.waiting -= count;
                        tally.moved += count;
                    }
                    Decision::Wait => {
                        prop_assert!(tally.moved > 0);
                        tally.moved -= 1;
                        seen += 1;
                        if seen * 37 % 100 < away { tally.lost += 1 } else { tally.back += 1 }
                    }
                }
            }
            prop_assert!(false, "still going on");
        }
    }
}
